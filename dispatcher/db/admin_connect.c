/* admin_connect.c - connecting for a command, and saying clearly why it failed; see admin.h. */
#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "db/admin_conn.h"

enum { SECOND_LOOK_MS = 3000 };

int admin_libpq_version(void)
{
    return PQlibVersion();
}

PGconn *admin_pgconn(struct admin *a)
{
    return a->conn;
}

const char *admin_user(const struct admin *a)
{
    return PQuser(a->conn);
}

const char *admin_database(const struct admin *a)
{
    return PQdb(a->conn);
}

void admin_close(struct admin *a)
{
    if (a == NULL)
        return;
    PQfinish(a->conn);
    ob_free(a->conninfo);
    ob_free(a);
}

/* Copies a message as one line, without the trailing newline. */
static void copy_line(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; *from != '\0' && n + 1 < size; from++) {
        if (*from == '\n' || *from == '\t') {
            if (n > 0 && to[n - 1] != ' ')
                to[n++] = ' ';
        } else {
            to[n++] = *from;
        }
    }
    while (n > 0 && to[n - 1] == ' ')
        n--;
    to[n] = '\0';
}

/* Puts "***" in the place of every occurrence of secret. */
static void blot(char *text, size_t size, const char *secret)
{
    size_t n = strlen(secret);
    for (char *p = n > 0 ? strstr(text, secret) : NULL; p != NULL; p = strstr(p, secret)) {
        char *rest = ob_xstrdup(p + n);
        (void)snprintf(p, size - (size_t)(p - text), "***%s", rest);
        ob_free(rest);
        p += strlen(p) < 3 ? strlen(p) : 3;
    }
}

/* Credentials that libpq would read otherwise than their author meant (an '@' in a password that is
 * not written %40) turn up in its messages as parts of host names. */
static bool is_ambiguous(const char *conninfo)
{
    const char *start = strstr(conninfo, "://");
    if (start == NULL)
        return false;
    start += 3;
    const char *end = start + strcspn(start, "?");
    const char *slash = start + strcspn(start, "/?");
    unsigned before = 0;
    unsigned after = 0;
    for (const char *p = start; p < end; p++) {
        if (*p == '@' && p < slash)
            before++;
        else if (*p == '@')
            after++;
    }
    return before > 1 || after > 0;
}

void admin_redact(char *text, size_t size, const char *conninfo)
{
    if (conninfo == NULL)
        return;
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    bool has_secret = strstr(conninfo, "password") != NULL ||
                      (strstr(conninfo, "://") != NULL && strchr(conninfo, '@') != NULL);
    if ((options == NULL && has_secret) || is_ambiguous(conninfo)) {
        (void)snprintf(text, size,
                       "the connection string is malformed (in a URI, write special characters of "
                       "a password as "
                       "%%XX, \"@\" as %%40)");
    }
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        bool secret = strcmp(o->keyword, "password") == 0 || strcmp(o->keyword, "sslpassword") == 0;
        if (secret && o->val != NULL)
            blot(text, size, o->val);
    }
    PQconninfoFree(options);
}

static void set_error(struct admin_error *e, int err, const char *sqlstate, const char *message,
                      const char *hint)
{
    memset(e, 0, sizeof *e);
    e->err = err;
    (void)snprintf(e->sqlstate, sizeof e->sqlstate, "%s", sqlstate);
    copy_line(e->message, sizeof e->message, message);
    copy_line(e->hint, sizeof e->hint, hint);
}

/* What a refused statement means for a command. */
static int err_of_sqlstate(const char *s)
{
    if (strcmp(s, "42501") == 0)
        return OB_EPRIVILEGE;
    /* Undefined schema, table, function or column: the migration has not run, or not far enough. */
    if (strcmp(s, "3F000") == 0 || strcmp(s, "42P01") == 0 || strcmp(s, "42883") == 0 ||
        strcmp(s, "42703") == 0)
        return OB_ESCHEMA;
    if (strncmp(s, "08", 2) == 0 || strncmp(s, "57P", 3) == 0 || strncmp(s, "53", 2) == 0)
        return OB_ECONN;
    return OB_EDB;
}

void admin_error_from_result(const struct admin *a, const PGresult *res, struct admin_error *e)
{
    const char *state = res != NULL ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    if (state == NULL) {
        set_error(e, OB_ECONN, "", PQerrorMessage(a->conn), "");
        admin_redact(e->message, sizeof e->message, a->conninfo);
        return;
    }
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
    const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
    const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    char *text = ob_xasprintf("%s%s%s", primary != NULL ? primary : "", detail != NULL ? ": " : "",
                              detail != NULL ? detail : "");
    set_error(e, err_of_sqlstate(state), state, text, hint != NULL ? hint : "");
    ob_free(text);
}

/* Our settings around the given string: defaults before it, so that it wins, fixed ones behind it.
 */
struct params {
    const char *keys[8];
    const char *values[8];
};

static void fill_params(struct params *p, const char *conninfo, const char *name)
{
    size_t n = 0;
    memset(p, 0, sizeof *p);
    if (getenv("PGCONNECT_TIMEOUT") == NULL) {
        p->keys[n] = "connect_timeout";
        p->values[n++] = "10";
    }
    if (conninfo != NULL && conninfo[0] != '\0') {
        p->keys[n] = "dbname";
        p->values[n++] = conninfo;
    }
    p->keys[n] = "fallback_application_name";
    p->values[n++] = name;
    p->keys[n] = "client_encoding";
    p->values[n++] = "UTF8";
}

/* The SQLSTATE in a verbose message ("FATAL:  28P01: text"); "" when there is none. */
static void find_sqlstate(const char *message, char ret_state[6])
{
    ret_state[0] = '\0';
    for (const char *p = strstr(message, ":  "); p != NULL; p = strstr(p + 1, ":  ")) {
        const char *s = p + 3;
        size_t n = 0;
        while (n < 5 && (isdigit((unsigned char)s[n]) || isupper((unsigned char)s[n])))
            n++;
        if (n == 5 && s[5] == ':') {
            memcpy(ret_state, s, 5);
            ret_state[5] = '\0';
            return;
        }
    }
}

/* libpq tells no SQLSTATE of a failed connection, unless the connection is verbose, which
 * PQconnectdb does not let us ask for. So a server that answered is asked a second time, briefly.
 */
static void second_look(const struct params *p, char ret_state[6])
{
    ret_state[0] = '\0';
    PGconn *conn = PQconnectStartParams(p->keys, p->values, 1);
    if (conn == NULL)
        return;
    (void)PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
    uint64_t end = clock_mono_ms() + SECOND_LOOK_MS;
    PostgresPollingStatusType status =
        PQstatus(conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (status != PGRES_POLLING_FAILED && status != PGRES_POLLING_OK) {
        struct pollfd fd = {.fd = PQsocket(conn),
                            .events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        uint64_t now = clock_mono_ms();
        if (now >= end || poll(&fd, 1, (int)(end - now)) <= 0)
            break;
        status = PQconnectPoll(conn);
    }
    if (status == PGRES_POLLING_FAILED)
        find_sqlstate(PQerrorMessage(conn), ret_state);
    PQfinish(conn);
}

static const char hint_password[] =
    "check user and password (~/.pgpass, PGPASSFILE) and the server's pg_hba.conf";

/* err and hint by why the server refused the connection. */
static void explain(struct admin_error *e)
{
    const char *s = e->sqlstate;
    const char *hint = "check that the server runs, that host and port are right, and that a "
                       "firewall lets you through";
    e->err = OB_ECONN;
    if (strncmp(s, "28", 2) == 0) {
        e->err = OB_EDB;
        hint = hint_password;
    } else if (strcmp(s, "3D000") == 0) {
        e->err = OB_EDB;
        hint = "check the database's name, or create it: createdb NAME";
    } else if (strcmp(s, "42501") == 0) {
        e->err = OB_EDB;
        hint = "the role may not connect: GRANT CONNECT ON DATABASE ... TO ...";
    } else if (strncmp(s, "53", 2) == 0) {
        hint = "the server has no connection left; try again later";
    } else if (strncmp(s, "57P", 3) == 0) {
        hint = "the server is starting or stopping; try again in a moment";
    } else if (s[0] != '\0') {
        e->err = OB_EDB;
        hint = "";
    }
    (void)snprintf(e->hint, sizeof e->hint, "%s", hint);
}

static void connection_failed(PGconn *conn, const struct params *p, const char *conninfo,
                              uint64_t began_ms, struct admin_error *reterr)
{
    set_error(reterr, OB_ECONN, "", conn != NULL ? PQerrorMessage(conn) : "out of memory", "");
    if (clock_mono_ms() - began_ms < SECOND_LOOK_MS)
        second_look(p, reterr->sqlstate);
    explain(reterr);
    /* libpq gave up by itself, so that there is no SQLSTATE: there was no password to send. */
    if (conn != NULL && PQconnectionNeedsPassword(conn) != 0) {
        reterr->err = OB_EDB;
        (void)snprintf(reterr->hint, sizeof reterr->hint, "%s", hint_password);
    }
    admin_redact(reterr->message, sizeof reterr->message, conninfo);
}

int admin_check_conninfo(const char *conninfo, struct admin_error *reterr)
{
    if (conninfo == NULL || conninfo[0] == '\0')
        return 0;
    /* As libpq does: without '=' and a URI's scheme it is a database's name. */
    if (strchr(conninfo, '=') == NULL && strncmp(conninfo, "postgres", 8) != 0)
        return 0;
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &message);
    if (options != NULL || (strchr(conninfo, '=') == NULL && strstr(conninfo, "://") == NULL)) {
        PQconninfoFree(options);
        PQfreemem(message);
        return 0;
    }
    set_error(reterr, OB_EUSAGE, "", message != NULL ? message : "malformed connection string",
              "expected \"host=... dbname=...\" or postgresql://user@host/database");
    PQfreemem(message);
    admin_redact(reterr->message, sizeof reterr->message, conninfo);
    return reterr->err;
}

int admin_connect(const char *conninfo, const char *name, struct admin **ret_admin,
                  struct admin_error *reterr)
{
    int err = admin_check_conninfo(conninfo, reterr);
    if (err != 0)
        return err;
    struct params p;
    fill_params(&p, conninfo, name);
    uint64_t began_ms = clock_mono_ms();
    PGconn *conn = PQconnectdbParams(p.keys, p.values, 1);
    if (PQstatus(conn) != CONNECTION_OK) {
        connection_failed(conn, &p, conninfo, began_ms, reterr);
        PQfinish(conn);
        return reterr->err;
    }
    struct admin *a = ob_xcalloc(1, sizeof *a);
    a->conn = conn;
    a->conninfo = ob_xstrdup(conninfo);
    *ret_admin = a;
    return 0;
}
