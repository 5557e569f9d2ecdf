/* bench/explain.sql: it runs to its end on this server, leaves nothing behind, and no plan in it
 * reads the whole table, or compares each job with each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_sql.h"

enum { SQL_MAX = 64 * 1024, PLANS_MAX = 4 * 1024 * 1024 };

static char *plans;
static size_t plans_len;

static void on_notice(void *arg, const char *message)
{
    (void)arg;
    size_t len = strlen(message);
    ck_assert_uint_lt(plans_len + len, PLANS_MAX);
    memcpy(plans + plans_len, message, len + 1);
    plans_len += len;
}

static const char *script(void)
{
    static char sql[SQL_MAX];
    FILE *f = fopen(OB_TEST_SOURCE_DIR "/bench/explain.sql", "r");
    ck_assert_ptr_nonnull(f);
    size_t len = fread(sql, 1, sizeof sql - 1, f);
    ck_assert_int_eq(fclose(f), 0);
    sql[len] = '\0';
    return sql;
}

/* The most rows that a join looked at and threw away. */
static long joined_in_vain(void)
{
    static const char what[] = "Rows Removed by Join Filter: ";
    long most = 0;
    for (const char *at = strstr(plans, what); at != NULL; at = strstr(at + 1, what)) {
        long n = strtol(at + sizeof what - 1, NULL, 10);
        most = n > most ? n : most;
    }
    return most;
}

START_TEST(no_plan_reads_the_whole_table)
{
    static const char *const parts[] = {"look: the stream",   "look: the backlog of one lane",
                                        "look: lanes walked", "look: what is due",
                                        "settle: 100 that",   "settle: 100, a third",
                                        "claim: 100"};
    PGconn *conn = testdb_connect();
    PGresult *res = PQexec(conn, "LOAD 'auto_explain'");
    bool is_there = PQresultStatus(res) == PGRES_COMMAND_OK;
    PQclear(res);
    if (!is_there) {
        (void)printf("skipped: this server has no auto_explain (PostgreSQL's contrib modules)\n");
        PQfinish(conn);
        return;
    }
    plans = calloc(1, PLANS_MAX);
    ck_assert_ptr_nonnull(plans);
    pg_exec_ok(conn, "INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)"
                     " SELECT 'bench' || (g % 2 + 1), 'json', '{}', now(), pg_current_xact_id()"
                     " FROM generate_series(1, 5000) AS g; ANALYZE outbox.job");
    (void)PQsetNoticeProcessor(conn, on_notice, NULL);
    res = PQexec(conn, script());
    ck_assert_msg(PQresultStatus(res) == PGRES_COMMAND_OK, "%s", PQerrorMessage(conn));
    PQclear(res);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ck_assert_msg(strstr(plans, parts[i]) != NULL, "no \"%s\"", parts[i]);
    ck_assert_ptr_nonnull(strstr(plans, "job_stream"));
    ck_assert_ptr_nonnull(strstr(plans, "job_lanes"));
    ck_assert_ptr_nonnull(strstr(plans, "INSERT INTO outbox.attempt"));
    ck_assert_ptr_nonnull(strstr(plans, "INSERT INTO outbox.dead"));
    ck_assert_ptr_nonnull(strstr(plans, "Buffers: shared hit="));
    const char *bad = strstr(plans, "Seq Scan on job ");
    while (bad != NULL && strstr(bad, "owner = 1") != NULL && strstr(bad, "owner = 1") < bad + 200)
        bad = strstr(bad + 1, "Seq Scan on job "); /* the script's own, to find what it claimed */
    ck_assert_msg(bad == NULL, "%.600s", bad != NULL ? bad - 200 : "");
    ck_assert_int_lt(joined_in_vain(), 1000);
    ck_rows(conn, "SELECT count(*), count(owner) FROM outbox.job", "5000|0");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    free(plans);
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("explain");
    TCase *tc = sql_case(suite, "explain");
    tcase_add_test(tc, no_plan_reads_the_whole_table);
    return suite;
}
