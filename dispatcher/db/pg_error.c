/* pg_error.c - what the server or libpq says, as struct pg_error, and what a SQLSTATE advises.
 *
 * Pure: reads results and connections, changes nothing, logs nothing. Called by pgconn.c, pgpipe.c,
 * store.c and migrate.c. */
#include "db/pgconn.h"

#include <ctype.h>
#include <string.h>

#include <libpq-fe.h>

#include "base/utf8.h"

/* First match wins, so full codes come before their class. style.md's table of SQLSTATEs is this
 * one. */
static const struct {
    const char *prefix;
    enum pg_advice advice;
} advices[] = {
    {"08", PG_RECONNECT},     /* connection exceptions */
    {"57P", PG_RECONNECT},    /* shutdown, crash, starting up, database dropped, idle session */
    {"25006", PG_RECONNECT},  /* read-only: a demoted primary or a standby */
    {"25P03", PG_RECONNECT},  /* idle in transaction too long: the session is terminated */
    {"40001", PG_RETRY_SOON}, /* serialization failure */
    {"40P01", PG_RETRY_SOON}, /* deadlock */
    {"55P03", PG_RETRY_SOON}, /* lock not available */
    {"53", PG_SLOW_DOWN},     /* disk, memory or connections are short */
    {"42501", PG_PRIVILEGE},  {"42", PG_WAIT_SCHEMA}, {"3F", PG_WAIT_SCHEMA},
};

enum pg_advice pg_advice(const char *sqlstate)
{
    for (size_t i = 0; i < sizeof advices / sizeof advices[0]; i++) {
        if (strncmp(sqlstate, advices[i].prefix, strlen(advices[i].prefix)) == 0)
            return advices[i].advice;
    }
    return PG_GO_ON;
}

static int err_of_sqlstate(const char *sqlstate)
{
    switch (pg_advice(sqlstate)) {
    case PG_RECONNECT:
        return OB_ECONN;
    case PG_PRIVILEGE:
        return OB_EPRIVILEGE;
    case PG_WAIT_SCHEMA:
        return OB_ESCHEMA;
    case PG_RETRY_SOON:
    case PG_SLOW_DOWN:
    case PG_GO_ON:
        break;
    }
    return OB_EDB;
}

/* Appends text to the string in dst as part of one line: control characters and runs of spaces
 * become one space, invalid UTF-8 a question mark; what does not fit is cut between characters. */
static void append_line(char *dst, size_t size, const char *text, size_t n)
{
    size_t len = strlen(dst);
    for (size_t i = 0; i < n;) {
        size_t step = utf8_sequence(text + i, n - i);
        size_t width = step > 0 ? step : 1;
        const char *src = step > 0 ? text + i : "?";
        if (step == 1 && ((unsigned char)*src <= ' ' || *src == 0x7f))
            src = " ";
        i += width;
        if (*src == ' ' && (len == 0 || dst[len - 1] == ' '))
            continue;
        if (len + width >= size)
            break;
        memcpy(dst + len, src, width);
        len += width;
    }
    dst[len] = '\0';
}

static void set_line(char *dst, size_t size, const char *text)
{
    dst[0] = '\0';
    if (text != NULL)
        append_line(dst, size, text, strlen(text));
}

void pg_error_set(struct pg_error *e, int err, const char *message)
{
    memset(e, 0, sizeof *e);
    e->err = err;
    set_line(e->message, sizeof e->message, message);
}

void pg_error_from_result(struct pg_error *e, const PGresult *res)
{
    if (res == NULL) { /* libpq could not even make an empty result */
        pg_error_set(e, OB_ECONN, "out of memory");
        return;
    }
    if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED) {
        pg_error_set(e, OB_EDB, "not executed: an earlier statement of the batch failed");
        return;
    }
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    if (sqlstate == NULL || strlen(sqlstate) != sizeof e->sqlstate - 1) {
        pg_error_set(e, OB_ECONN, PQresultErrorMessage(res)); /* libpq speaks, not the server */
        return;
    }
    pg_error_set(e, err_of_sqlstate(sqlstate), PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
    memcpy(e->sqlstate, sqlstate, sizeof e->sqlstate);
    set_line(e->hint, sizeof e->hint, PQresultErrorField(res, PG_DIAG_MESSAGE_HINT));
}

/* Where a SQLSTATE stands in a line of libpq's verbose format, "FATAL:  57P03: the database system
 * is starting up" (the severity may be translated); NULL if there is none. */
static const char *find_sqlstate(const char *line, size_t n)
{
    for (size_t i = 0; i + 10 <= n; i++) {
        if (memcmp(line + i, ":  ", 3) != 0 || memcmp(line + i + 8, ": ", 2) != 0)
            continue;
        size_t digits = 0;
        while (digits < 5 && (isdigit((unsigned char)line[i + 3 + digits]) ||
                              isupper((unsigned char)line[i + 3 + digits])))
            digits++;
        if (digits == 5)
            return line + i + 3;
    }
    return NULL;
}

void pg_error_from_conn(struct pg_error *e, const PGconn *conn)
{
    pg_error_set(e, OB_ECONN, "");
    const char *text = PQerrorMessage(conn);
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        /* Lines that begin with a tab are libpq's advice, the others one failure each. */
        if (n > 0 && *text != '\t' && strncmp(text, "LOCATION:", 9) != 0) {
            const char *sqlstate = find_sqlstate(text, n);
            size_t head = sqlstate != NULL ? (size_t)(sqlstate - text) : n;
            if (e->message[0] != '\0')
                append_line(e->message, sizeof e->message, "; ", 2);
            append_line(e->message, sizeof e->message, text, head);
            if (sqlstate != NULL) {
                memcpy(e->sqlstate, sqlstate, sizeof e->sqlstate - 1);
                append_line(e->message, sizeof e->message, sqlstate + 7, n - head - 7);
            }
        }
        text += n + (text[n] == '\n' ? 1 : 0);
    }
    if (e->message[0] == '\0')
        set_line(e->message, sizeof e->message, "connection lost");
}
