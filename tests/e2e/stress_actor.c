/* What every process of the stress does: rests, one session. See stress.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stress.h"

const char *const stress_task_names[TASKS] = {"brisk",  "later",   "copied", "bulk",
                                              "scarce", "shelled", "nobody"};
const char *const stress_kind_names[KINDS] = {"none",
                                              "enqueue",
                                              "in a savepoint",
                                              "autocommit",
                                              "bulk",
                                              "enqueue_many",
                                              "enqueue_bytes",
                                              "outbox_enqueue of C",
                                              "COPY, row trigger",
                                              "COPY, statement trigger",
                                              "upsert with a trigger",
                                              "cancelled by its own transaction"};
const char *const stress_end_names[ENDS] = {"unknown", "committed", "rolled back",
                                            "committed after PREPARE",
                                            "committed with outbox.notify = off"};

void stress_think(const struct stress *s, unsigned ms)
{
    enum { STEP_MS = 5 };
    for (; ms > 0 && !atomic_load(&s->is_quiet); ms -= ms < STEP_MS ? ms : STEP_MS)
        chance_pause_ms(ms < STEP_MS ? ms : STEP_MS);
}

void stress_rest(struct stress *s, int number)
{
    while (atomic_load(&s->is_quiet) && !atomic_load(&s->is_stopping)) {
        atomic_store(&s->is_resting[number], true);
        chance_pause_ms(1);
    }
    atomic_store(&s->is_resting[number], false);
}

unsigned actor_below(struct actor *a, unsigned n)
{
    return chance_below(&a->random, n);
}

bool actor_chance(struct actor *a, unsigned percent)
{
    return actor_below(a, 100) < percent;
}

/* The process ends; the run notices by its exit code. */
void actor_fail(struct actor *a, const char *fmt, ...)
{
    va_list args;
    bool first = false;
    if (atomic_compare_exchange_strong(&a->s->has_failed, &first, true)) {
        va_start(args, fmt);
        (void)vsnprintf(a->s->failure, sizeof a->s->failure, fmt, args);
        va_end(args);
    }
    _exit(3);
}

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

void actor_connect(struct actor *a)
{
    PQfinish(a->conn);
    a->is_lost = false;
    a->conn = PQconnectdb(a->s->conninfo);
    if (PQstatus(a->conn) != CONNECTION_OK)
        actor_fail(a, "cannot connect: %s", PQerrorMessage(a->conn));
    (void)PQsetNoticeProcessor(a->conn, ignore_notice, NULL);
    (void)actor_exec(a, NULL, "SET application_name = 'stress %d'; SET lock_timeout = '500ms'",
                     a->number);
}

/* What may befall a statement here. */
static bool is_expected(const char *sqlstate)
{
    static const char *const states[] = {
        "40001", /* serialization */
        "40P01", /* deadlock */
        "55P03", /* lock_timeout */
        "57014", /* cancelled */
        "57P01", /* terminated */
        "25P02", /* the transaction has failed before */
        "22012", /* division by zero, asked for */
    };
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(sqlstate, states[i]) == 0)
            return true;
    }
    return false;
}

bool actor_accept(struct actor *a, PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        PQclear(res);
        return true;
    }
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    (void)snprintf(a->sqlstate, sizeof a->sqlstate, "%s", state != NULL ? state : "");
    a->is_lost = PQstatus(a->conn) != CONNECTION_OK;
    if (!a->is_lost && !is_expected(a->sqlstate))
        actor_fail(a, "%s got %s: %s", a->number < PRODUCERS_MAX ? "a producer" : "a meddler",
                   PQresStatus(status), PQerrorMessage(a->conn));
    PQclear(res);
    return false;
}

__attribute__((format(printf, 2, 0))) static PGresult *query(struct actor *a, const char *fmt,
                                                             va_list args)
{
    static char sql[32768];
    int n = vsnprintf(sql, sizeof sql, fmt, args);
    if (n < 0 || (size_t)n >= sizeof sql)
        actor_fail(a, "a statement is too long");
    PGresult *res = PQexec(a->conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_COPY_IN)
        return res;
    (void)actor_accept(a, res);
    return NULL;
}

PGresult *actor_query(struct actor *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    PGresult *res = query(a, fmt, args);
    va_end(args);
    return res;
}

bool actor_exec(struct actor *a, int64_t *ret_value, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    PGresult *res = query(a, fmt, args);
    va_end(args);
    if (res == NULL)
        return false;
    if (ret_value != NULL)
        *ret_value = PQntuples(res) > 0 ? strtoll(PQgetvalue(res, 0, 0), NULL, 10) : 0;
    PQclear(res);
    return true;
}

void actor_recover(struct actor *a)
{
    /* A cancel may hit the ROLLBACK, too. */
    while (!a->is_lost && PQtransactionStatus(a->conn) != PQTRANS_IDLE)
        (void)actor_exec(a, NULL, "ROLLBACK");
    if (a->is_lost)
        actor_connect(a);
}

void actor_expect_no_locks(struct actor *a)
{
    int64_t count = 0;
    if (actor_exec(a, &count,
                   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = "
                   "pg_backend_pid()") &&
        count != 0)
        actor_fail(a, "a producer's session kept %ld advisory locks", (long)count);
}

int64_t stress_token_of(struct stress *s, int64_t id)
{
    for (int64_t token = atomic_load(&s->next_token) - 1; token > 0; token--) {
        if (atomic_load(&s->tokens[token].id) == id)
            return token;
    }
    return NO_TOKEN;
}

size_t stress_hold_begin(struct stress *s, int64_t token)
{
    size_t i = atomic_fetch_add(&s->holds_count, 1);
    if (i >= HOLDS_MAX)
        return HOLDS_MAX;
    s->holds[i].token = token;
    s->holds[i].from_ns = chance_now_ns();
    return i;
}

void stress_hold_end(struct stress *s, size_t hold)
{
    if (hold < HOLDS_MAX)
        atomic_store(&s->holds[hold].to_ns, chance_now_ns());
}
