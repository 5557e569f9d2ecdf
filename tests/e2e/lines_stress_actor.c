/* What every process of the stress of lines does: dice, one session. See
 * lines_stress.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lines_stress.h"

const char *const lines_task_names[TASKS] = {"line", "wall", "once", "part", "few"};
const char *const lines_told_names[4] = {"done", "dead", "cancelled", "merged"};

unsigned lines_below(struct actor *a, unsigned n)
{
    return chance_below(&a->random, n);
}

bool lines_chance(struct actor *a, unsigned percent)
{
    return lines_below(a, 100) < percent;
}

/* The process ends; the run notices by its exit code. */
void lines_fail(struct lines *s, const char *fmt, ...)
{
    va_list args;
    bool first = false;
    if (atomic_compare_exchange_strong(&s->has_failed, &first, true)) {
        va_start(args, fmt);
        (void)vsnprintf(s->failure, sizeof s->failure, fmt, args);
        va_end(args);
    }
    _exit(3);
}

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

void lines_connect(struct actor *a)
{
    enum { TRIES = 2000, PAUSE_MS = 10 };
    PQfinish(a->conn);
    a->conn = PQconnectdb(a->s->conninfo);
    for (int i = 0; PQstatus(a->conn) != CONNECTION_OK; i++) { /* the server may be restarting */
        if (i == TRIES)
            lines_fail(a->s, "cannot connect: %s", PQerrorMessage(a->conn));
        chance_pause_ms(PAUSE_MS);
        PQfinish(a->conn);
        a->conn = PQconnectdb(a->s->conninfo);
    }
    a->is_lost = false;
    (void)PQsetNoticeProcessor(a->conn, ignore_notice, NULL);
    (void)lines_exec(a, "SET application_name = 'lines stress'; SET lock_timeout = '2s'");
}

static bool is_expected(const char *sqlstate)
{
    static const char *const states[] = {
        "0A000", /* the isolation level */
        "40001", /* serialization */
        "40P01", /* deadlock: keys are locked in any order here */
        "53400", /* max_ready */
        "55P03", /* lock_timeout */
    };
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(sqlstate, states[i]) == 0)
            return true;
    }
    return false;
}

PGresult *lines_query(struct actor *a, const char *fmt, ...)
{
    static char sql[32768];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(sql, sizeof sql, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof sql)
        lines_fail(a->s, "a statement is too long");
    PGresult *res = PQexec(a->conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return res;
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    (void)snprintf(a->sqlstate, sizeof a->sqlstate, "%s", state != NULL ? state : "");
    /* A failed write leaves the connection as if it were good. */
    a->is_lost = PQstatus(a->conn) != CONNECTION_OK || a->sqlstate[0] == '\0' ||
                 strncmp(a->sqlstate, "57P0", 4) == 0;
    if (a->is_lost ? !a->s->restarts : !is_expected(a->sqlstate))
        lines_fail(a->s, "%.500s: %s", sql, PQerrorMessage(a->conn));
    PQclear(res);
    return NULL;
}

bool lines_exec(struct actor *a, const char *fmt, ...)
{
    static char sql[32768];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(sql, sizeof sql, fmt, args);
    va_end(args);
    PGresult *res = lines_query(a, "%s", sql);
    PQclear(res);
    return res != NULL;
}

void lines_recover(struct actor *a)
{
    if (!a->is_lost && PQtransactionStatus(a->conn) != PQTRANS_IDLE)
        (void)lines_exec(a, "ROLLBACK");
    if (a->is_lost)
        lines_connect(a);
}
