/* A database a test, and small queries. The cluster is pgcluster.c's. */
#define _GNU_SOURCE
#include "testdb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "db/migrate.h"
#include "pgcluster.h"

enum { RING = 8, CONNINFO_SIZE = 256 };

static char database[64]; /* "": none */
static unsigned databases_count;

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

static PGconn *connect_to(const char *dbname, const char *user)
{
    char conninfo[CONNINFO_SIZE];
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=%d dbname=%s user=%s",
                   pgcluster_socket_dir(), pgcluster_port(), dbname, user);
    PGconn *conn = PQconnectdb(conninfo);
    if (conn != NULL)
        (void)PQsetNoticeProcessor(conn, ignore_notice, NULL);
    return conn;
}

static void check_connected(PGconn *conn)
{
    if (PQstatus(conn) != CONNECTION_OK)
        ck_abort_msg("cannot connect: %s", PQerrorMessage(conn));
}

static PGconn *connect_admin(void)
{
    PGconn *conn = connect_to("postgres", "postgres");
    if (PQstatus(conn) != CONNECTION_OK) { /* an earlier test left the server down */
        PQfinish(conn);
        pgcluster_start_again();
        conn = connect_to("postgres", "postgres");
    }
    check_connected(conn);
    return conn;
}

static void admin_exec(const char *sql)
{
    PGconn *conn = connect_admin();
    pg_exec_ok(conn, sql);
    PQfinish(conn);
}

static void marker_path(char *out, size_t size)
{
    (void)snprintf(out, size, "%s/running", pgcluster_socket_dir());
}

void testdb_report_failed(void)
{
    char path[64];
    marker_path(path, sizeof path);
    char *text = read_file_from(path, 0, NULL);
    if (text == NULL)
        return;
    pgcluster_show_log(strtol(text, NULL, 10));
    free(text);
    (void)unlink(path);
}

static void mark_running(void)
{
    char path[64];
    testdb_report_failed();
    marker_path(path, sizeof path);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    (void)fprintf(f, "%ld\n", pgcluster_log_size());
    (void)fclose(f);
}

void testdb_make_template(void)
{
    admin_exec("create database template_outbox");
    char error[MIGRATE_ERROR_SIZE] = "";
    PGconn *conn = connect_to("template_outbox", "postgres");
    check_connected(conn);
    int rc = migrate_apply(conn, NULL, NULL, error);
    PQfinish(conn);
    if (rc != 0)
        ck_abort_msg("migrate_apply: %s: %s", ob_strerror(rc), error);
}

static void create_from(const char *template_name)
{
    char sql[160];
    mark_running();
    (void)snprintf(database, sizeof database, "t_%d_%u", (int)getpid(), ++databases_count);
    (void)snprintf(sql, sizeof sql, "create database %s template %s", database, template_name);
    admin_exec(sql);
}

void testdb_create(void)
{
    create_from("template_outbox");
}

void testdb_create_empty(void)
{
    create_from("template0");
}

void testdb_drop(void)
{
    char path[64];
    char sql[160];
    if (database[0] == '\0')
        return;
    (void)snprintf(sql, sizeof sql, "drop database if exists %s with (force)", database);
    admin_exec(sql);
    database[0] = '\0';
    marker_path(path, sizeof path);
    (void)unlink(path);
}

const char *testdb_conninfo_as(const char *user)
{
    static char ring[RING][CONNINFO_SIZE];
    static unsigned next;
    if (database[0] == '\0')
        return "";
    char *out = ring[next++ % RING];
    (void)snprintf(out, CONNINFO_SIZE, "host=%s dbname=%s user=%s", pgcluster_socket_dir(),
                   database, user);
    return out;
}

const char *testdb_conninfo(void)
{
    return testdb_conninfo_as("postgres");
}

PGconn *testdb_connect_as(const char *user)
{
    PGconn *conn = connect_to(database, user);
    check_connected(conn);
    return conn;
}

PGconn *testdb_connect(void)
{
    return testdb_connect_as("postgres");
}

void testdb_exec(const char *sql)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, sql);
    PQfinish(conn);
}

const char *testdb_value(const char *sql)
{
    static char *ring[RING];
    static unsigned next;
    PGconn *conn = testdb_connect();
    PGresult *res = PQexec(conn, sql);
    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        ck_abort_msg("%s\n%s", sql, PQerrorMessage(conn));
    char *value = NULL;
    if (PQntuples(res) > 0 && !PQgetisnull(res, 0, 0)) {
        value = strdup(PQgetvalue(res, 0, 0));
        ck_assert_ptr_nonnull(value);
        free(ring[next % RING]);
        ring[next++ % RING] = value;
    }
    PQclear(res);
    PQfinish(conn);
    return value;
}

long testdb_long(const char *sql)
{
    const char *value = testdb_value(sql);
    char *end = NULL;
    errno = 0;
    long number = value != NULL ? strtol(value, &end, 10) : 0;
    if (value == NULL || *value == '\0' || *end != '\0' || errno != 0)
        ck_abort_msg("%s\nis no number: %s", sql, value != NULL ? value : "NULL");
    return number;
}

PGresult *pg_query(PGconn *conn, ExecStatusType expected, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    if (PQresultStatus(res) != expected)
        ck_abort_msg("%s\nexpected %s, got %s: %s", sql, PQresStatus(expected),
                     PQresStatus(PQresultStatus(res)), PQerrorMessage(conn));
    return res;
}

void pg_exec_ok(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY)
        ck_abort_msg("%s\n%s", sql, PQerrorMessage(conn));
    PQclear(res);
}

void pg_exec_fails(PGconn *conn, const char *sql, const char *sqlstate, const char *text)
{
    PGresult *res = PQexec(conn, sql);
    if (PQresultStatus(res) != PGRES_FATAL_ERROR)
        ck_abort_msg("%s\nwas to fail with %s, and did not", sql, sqlstate);
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    ck_assert_msg(state != NULL && strcmp(state, sqlstate) == 0, "%s\nwas to fail with %s, but: %s",
                  sql, sqlstate, PQerrorMessage(conn));
    ck_assert_msg(text == NULL || (message != NULL && strstr(message, text) != NULL),
                  "%s\nthe message was to hold \"%s\", but: %s", sql, text, PQerrorMessage(conn));
    PQclear(res);
}
