/* A producer of the stress: transactions that enqueue in every way there is, and end in every way
 * there is, the producer's own sudden death included. See stress.h. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <outbox/outbox.h>

#include "stress.h"

enum { HOLD_MAX_MS = 2000, DELAY_MAX_MS = 300, PHASE_MS = 500, TRIES_MAX = 5 };

/* One transaction: what it enqueued. */
struct tx {
    int64_t tokens[TOKENS_PER_TX_MAX];
    size_t count;
    bool is_mute; /* outbox.notify = off */
    bool has_task[TASKS];
};

static int64_t take_tokens(struct actor *a, struct tx *tx, int n, enum stress_kind kind,
                           enum stress_task task)
{
    int64_t first = atomic_fetch_add(&a->s->next_token, n);
    if (first + n > TOKENS_MAX || tx->count + (size_t)n > TOKENS_PER_TX_MAX)
        actor_fail(a, "more tokens than fit: OUTBOX_STRESS_SECONDS is too large");
    for (int i = 0; i < n; i++) {
        struct token *t = &a->s->tokens[first + i];
        atomic_store(&t->kind, kind);
        atomic_store(&t->task, task);
        atomic_store(&t->producer, a->number);
        tx->tokens[tx->count++] = first + i;
    }
    tx->has_task[task] = true;
    return first;
}

/* Of tasks whose slots are never all taken unless this is a bulk. */
static enum stress_task pick_task(struct actor *a)
{
    static const enum stress_task tasks[] = {TASK_BRISK,   TASK_BRISK,  TASK_BRISK,  TASK_BRISK,
                                             TASK_LATER,   TASK_LATER,  TASK_SCARCE, TASK_BULK,
                                             TASK_SHELLED, TASK_NOBODY, TASK_BRISK,  TASK_LATER};
    enum stress_task task = tasks[actor_below(a, sizeof tasks / sizeof tasks[0])];
    /* A job that nobody takes is looked at again and again: a few are enough. */
    return task == TASK_NOBODY && !actor_chance(a, 20) ? TASK_BRISK : task;
}

/* Options of outbox.enqueue for this token, as SQL; "" for none. Static storage. */
static const char *pick_options(struct actor *a, int64_t token, unsigned *ret_delay_ms)
{
    static char sql[160];
    enum stress_task task = (enum stress_task)atomic_load(&a->s->tokens[token].task);
    size_t n = 0;
    *ret_delay_ms = 0;
    sql[0] = '\0';
    if (actor_chance(a, 30))
        n += (size_t)snprintf(sql, sizeof sql, ", priority => %u", 1 + actor_below(a, 4));
    if (actor_chance(a, task == TASK_LATER ? 50 : 5)) {
        *ret_delay_ms = actor_below(a, DELAY_MAX_MS);
        n += (size_t)snprintf(sql + n, sizeof sql - n, ", delay => '%u ms'", *ret_delay_ms);
    }
    /* Then the receiver's first refusal is its death, until somebody retries it. */
    if (actor_chance(a, 4)) {
        atomic_store(&a->s->tokens[token].is_mortal, true);
        (void)snprintf(sql + n, sizeof sql - n, ", max_attempts => 1");
    }
    return sql;
}

static void enqueued(struct actor *a, int64_t token, int64_t id, unsigned delay_ms)
{
    struct token *t = &a->s->tokens[token];
    atomic_store(&t->id, id);
    if (delay_ms > 0) /* no earlier than the server's reckoning */
        atomic_store(&t->due_ns, chance_now_ns() + (int64_t)delay_ms * 1000000);
}

/* ---- ways to enqueue; false: the statement failed ---- */

static bool enqueue_one(struct actor *a, struct tx *tx, enum stress_kind kind)
{
    enum stress_task task = pick_task(a);
    unsigned delay_ms = 0;
    long token = take_tokens(a, tx, 1, kind, task);
    const char *options = pick_options(a, token, &delay_ms);
    int64_t id = 0;
    bool ok;
    if (kind == KIND_BYTES)
        ok = actor_exec(a, &id,
                        "INSERT INTO ledger VALUES (%ld); SELECT id FROM outbox.enqueue_bytes('%s',"
                        " '{\"token\": %ld}', 'json'%s)",
                        token, stress_task_names[task], token, options);
    else if (kind == KIND_AUTOCOMMIT)
        ok = actor_exec(a, &id,
                        "WITH l AS (INSERT INTO ledger VALUES (%ld)) SELECT outbox.enqueue('%s',"
                        " '{\"token\": %ld}'%s)",
                        token, stress_task_names[task], token, options);
    else
        ok = actor_exec(a, &id,
                        "INSERT INTO ledger VALUES (%ld); SELECT outbox.enqueue('%s',"
                        " '{\"token\": %ld}'%s)",
                        token, stress_task_names[task], token, options);
    if (ok)
        enqueued(a, token, id, delay_ms);
    return ok;
}

static bool enqueue_from_c(struct actor *a, struct tx *tx)
{
    long token = take_tokens(a, tx, 1, KIND_C, TASK_BRISK);
    struct outbox_payload args;
    struct outbox_job job = OUTBOX_JOB("brisk");
    struct outbox_error err = {.code = 0};
    int64_t id = 0;
    if (!actor_exec(a, NULL, "INSERT INTO ledger VALUES (%ld)", token))
        return false;
    outbox_payload_init(&args);
    outbox_put_int(&args, "token", token);
    job.payload = &args;
    int rc = outbox_enqueue(a->conn, &job, &id, &err);
    outbox_payload_free(&args);
    if (rc == OUTBOX_OK) {
        enqueued(a, token, id, 0);
        return true;
    }
    a->is_lost = PQstatus(a->conn) != CONNECTION_OK;
    if (!a->is_lost && strcmp(err.sqlstate, "57014") != 0 && strcmp(err.sqlstate, "57P01") != 0 &&
        strcmp(err.sqlstate, "55P03") != 0 && strcmp(err.sqlstate, "40001") != 0 &&
        strcmp(err.sqlstate, "40P01") != 0)
        actor_fail(a, "outbox_enqueue: %d %s %s", rc, err.sqlstate, err.message);
    return false;
}

static bool enqueue_bulk(struct actor *a, struct tx *tx)
{
    int n = 20 + (int)actor_below(a, 180);
    long token = take_tokens(a, tx, n, KIND_BULK, TASK_BULK);
    return actor_exec(a, NULL,
                      "INSERT INTO ledger SELECT generate_series(%ld, %ld); SELECT "
                      "count(outbox.enqueue('bulk', jsonb_build_object('token', g), priority => "
                      "1 + g %% 4)) FROM generate_series(%ld, %ld) g",
                      token, token + n - 1, token, token + n - 1);
}

static bool enqueue_many(struct actor *a, struct tx *tx)
{
    static char json[16384];
    size_t len = 0;
    int n = 1 + (int)actor_below(a, 12);
    long tokens[12];
    unsigned delays_ms[12];
    for (int i = 0; i < n; i++) {
        enum stress_task task = pick_task(a);
        tokens[i] = take_tokens(a, tx, 1, KIND_MANY, task);
        delays_ms[i] = actor_chance(a, 20) ? 1 + actor_below(a, DELAY_MAX_MS) : 0;
        len += (size_t)snprintf(json + len, sizeof json - len,
                                "%s{\"task\": \"%s\", \"payload\": {\"token\": %ld}, \"priority\": "
                                "%u, \"delay\": %u.%03u}",
                                i > 0 ? ", " : "", stress_task_names[task], tokens[i],
                                1 + actor_below(a, 4), delays_ms[i] / 1000, delays_ms[i] % 1000);
    }
    for (int i = 0; i < n; i++) {
        if (!actor_exec(a, NULL, "INSERT INTO ledger VALUES (%ld)", tokens[i]))
            return false;
    }
    PGresult *res = actor_query(a, "SELECT id FROM outbox.enqueue_many('[%s]')", json);
    if (res == NULL)
        return false;
    if (PQntuples(res) != n)
        actor_fail(a, "enqueue_many returned %d ids for %d jobs", PQntuples(res), n);
    for (int i = 0; i < n; i++)
        enqueued(a, tokens[i], strtoll(PQgetvalue(res, i, 0), NULL, 10), delays_ms[i]);
    PQclear(res);
    return true;
}

/* COPY into a table whose trigger enqueues: a few rows with the row form, many with the statement
 * form. */
static bool enqueue_by_copy(struct actor *a, struct tx *tx, bool by_statement)
{
    int n = by_statement ? 5 + (int)actor_below(a, 100) : 1 + (int)actor_below(a, 5);
    long token = take_tokens(a, tx, n, by_statement ? KIND_COPY_STATEMENT : KIND_COPY_ROW,
                             by_statement ? TASK_BULK : TASK_COPIED);
    if (!actor_exec(a, NULL, "INSERT INTO ledger SELECT generate_series(%ld, %ld)", token,
                    token + n - 1))
        return false;
    PGresult *res =
        actor_query(a, "COPY %s FROM STDIN", by_statement ? "copied_statement" : "copied_row");
    if (res == NULL)
        return false;
    PQclear(res);
    for (int i = 0; i < n; i++) {
        char line[64];
        int len = snprintf(line, sizeof line, "%ld\tline %d\n", token + i, i);
        (void)PQputCopyData(a->conn, line, len);
    }
    (void)PQputCopyEnd(a->conn, actor_chance(a, 3) ? "thought better of it" : NULL);
    bool ok = true;
    for (PGresult *r = PQgetResult(a->conn); r != NULL; r = PQgetResult(a->conn))
        ok = actor_accept(a, r) && ok;
    return ok;
}

static bool enqueue_by_upsert(struct actor *a, struct tx *tx)
{
    long token = take_tokens(a, tx, 1, KIND_UPSERT, TASK_COPIED);
    return actor_exec(a, NULL,
                      "INSERT INTO ledger VALUES (%ld); INSERT INTO item VALUES (%u, %ld) ON "
                      "CONFLICT (k) DO UPDATE SET token = excluded.token",
                      token, actor_below(a, 200), token);
}

/* Cancelled by the transaction that enqueued it: nobody ever sees it. */
static bool enqueue_and_cancel(struct actor *a, struct tx *tx)
{
    long token = take_tokens(a, tx, 1, KIND_CANCELLED, TASK_BRISK);
    int64_t id = 0;
    if (!actor_exec(a, &id,
                    "INSERT INTO ledger VALUES (%ld); INSERT INTO cancelled VALUES (%ld);"
                    "SELECT outbox.enqueue('brisk', '{\"token\": %ld}')",
                    token, token, token))
        return false;
    atomic_store(&a->s->tokens[token].id, id);
    atomic_store(&a->s->tokens[token].cancelled_ns, 1);
    PGresult *res = actor_query(a, "SELECT outbox.cancel(%ld)", (long)id);
    if (res != NULL && strcmp(PQgetvalue(res, 0, 0), "cancelled") != 0)
        actor_fail(a, "cancel of job %ld in its own transaction: %s", (long)id,
                   PQgetvalue(res, 0, 0));
    PQclear(res);
    return res != NULL;
}

/* A savepoint, released or rolled back, at times within another one. */
static bool enqueue_in_savepoint(struct actor *a, struct tx *tx, int depth)
{
    if (!actor_exec(a, NULL, "SAVEPOINT s%d", depth))
        return false;
    for (unsigned n = 1 + actor_below(a, 3); n > 0; n--) {
        if (!enqueue_one(a, tx, KIND_SAVEPOINT))
            return false;
    }
    if (depth < 3 && actor_chance(a, 30) && !enqueue_in_savepoint(a, tx, depth + 1))
        return false;
    if (actor_chance(a, 10)) /* an error that the savepoint catches */
        (void)actor_exec(a, NULL, "SELECT 1 / 0");
    bool back = actor_chance(a, 45) || PQtransactionStatus(a->conn) == PQTRANS_INERROR;
    return actor_exec(a, NULL, back ? "ROLLBACK TO s%d" : "RELEASE s%d", depth);
}

static bool business(struct actor *a)
{
    if (actor_chance(a, 30) &&
        !actor_exec(a, NULL, "SELECT sum(n) FROM account WHERE k < %u", actor_below(a, 64)))
        return false;
    return actor_exec(a, NULL,
                      "INSERT INTO account VALUES (%u, 1) ON CONFLICT (k) DO UPDATE SET n = "
                      "account.n + 1",
                      actor_below(a, 400));
}

static bool do_step(struct actor *a, struct tx *tx)
{
    unsigned dice = actor_below(a, 100);
    if (dice < 40)
        return enqueue_one(a, tx, KIND_ENQUEUE);
    if (dice < 54)
        return enqueue_in_savepoint(a, tx, 0);
    if (dice < 60)
        return enqueue_many(a, tx);
    if (dice < 66)
        return enqueue_by_upsert(a, tx);
    if (dice < 74)
        return enqueue_from_c(a, tx);
    if (dice < 82)
        return enqueue_by_copy(a, tx, false);
    if (dice < 86)
        return enqueue_and_cancel(a, tx);
    if (dice < 92)
        return enqueue_one(a, tx, KIND_BYTES);
    if (a->s->profile == 2 || tx->count > TOKENS_PER_TX_MAX / 4)
        return enqueue_one(a, tx, KIND_ENQUEUE);
    return dice < 96 ? enqueue_by_copy(a, tx, true) : enqueue_bulk(a, tx);
}

/* ---- ways to end ---- */

static void finished(struct actor *a, const struct tx *tx, enum stress_end end)
{
    int64_t now = chance_now_ns();
    atomic_fetch_add(&a->s->transactions[end], 1);
    for (size_t i = 0; i < tx->count; i++) {
        struct token *t = &a->s->tokens[tx->tokens[i]];
        atomic_store(&t->end, end);
        if (end != END_ROLLED_BACK && end != END_UNKNOWN)
            atomic_store(&t->ready_ns, now);
    }
}

/* Who switched NOTIFY off has to wake by hand, whatever happens to the session. */
static void wake(struct actor *a, const struct tx *tx)
{
    for (size_t i = 0; i < TASKS; i++) {
        while (tx->has_task[i] &&
               !actor_exec(a, NULL, "SELECT outbox.wake('%s')", stress_task_names[i]))
            actor_recover(a);
    }
}

static void die(struct actor *a)
{
    atomic_fetch_add(&a->s->deaths, 1);
    (void)kill(getpid(), SIGKILL);
}

/* The transaction is still there when the session is gone; whoever finds it orphaned ends it and
 * wakes (see check_stress.c). */
static bool end_prepared(struct actor *a, struct tx *tx)
{
    char gid[64];
    (void)snprintf(gid, sizeof gid, "stress %d %ld", (int)getpid(), (long)tx->tokens[0]);
    if (!actor_exec(a, NULL, "PREPARE TRANSACTION '%s'", gid)) {
        actor_recover(a);
        finished(a, tx, END_UNKNOWN);
        return false;
    }
    chance_pause_ms(actor_below(a, 400));
    if (actor_chance(a, 10))
        die(a);
    bool commits = !actor_chance(a, 25);
    while (!actor_exec(a, NULL, "%s PREPARED '%s'", commits ? "COMMIT" : "ROLLBACK", gid)) {
        bool was_lost = a->is_lost;
        actor_recover(a);
        if (was_lost) { /* it may have been done */
            wake(a, tx);
            finished(a, tx, END_UNKNOWN);
            return false;
        }
    }
    if (commits)
        wake(a, tx);
    finished(a, tx, commits ? END_COMMITTED_PREPARED : END_ROLLED_BACK);
    return true;
}

static bool end_committed(struct actor *a, struct tx *tx)
{
    if (!actor_exec(a, NULL, "COMMIT")) {
        bool was_lost = a->is_lost;
        actor_recover(a);
        if (tx->is_mute)
            wake(a, tx);
        finished(a, tx, was_lost ? END_UNKNOWN : END_ROLLED_BACK);
        return false;
    }
    if (tx->is_mute)
        wake(a, tx);
    finished(a, tx, tx->is_mute ? END_COMMITTED_MUTE : END_COMMITTED);
    return true;
}

static bool end_rolled_back(struct actor *a, struct tx *tx)
{
    bool by_error = actor_chance(a, 30);
    if (by_error)
        (void)actor_exec(a, NULL, "SELECT 1 / 0");
    (void)actor_exec(a, NULL, by_error ? "COMMIT" : "ROLLBACK"); /* COMMIT then rolls back */
    actor_recover(a);
    finished(a, tx, END_ROLLED_BACK);
    return true;
}

/* Ends without a goodbye: before COMMIT, or with COMMIT on its way. */
static void end_dead(struct actor *a)
{
    if (actor_chance(a, 50)) {
        (void)PQsendQuery(a->conn, "COMMIT");
        (void)PQflush(a->conn);
    }
    die(a);
}

/* ---- transactions ---- */

enum ending { ENDING_COMMIT, ENDING_ROLLBACK, ENDING_PREPARE, ENDING_DEATH, ENDING_LEAVE };

static enum ending pick_ending(struct actor *a)
{
    unsigned dice = actor_below(a, 1000);
    return dice < 790   ? ENDING_COMMIT
           : dice < 920 ? ENDING_ROLLBACK
           : dice < 975 ? ENDING_PREPARE
           : dice < 985 ? ENDING_DEATH
                        : ENDING_LEAVE;
}

static bool begin(struct actor *a, bool is_mute)
{
    static const char *const levels[] = {"READ COMMITTED", "READ COMMITTED", "REPEATABLE READ",
                                         "SERIALIZABLE"};
    return actor_exec(a, NULL, "BEGIN ISOLATION LEVEL %s%s", levels[actor_below(a, 4)],
                      is_mute ? "; SET LOCAL outbox.notify = off" : "");
}

/* While others go by, with an xid or more. */
static void hold_open(struct actor *a, unsigned long_percent, unsigned short_percent)
{
    unsigned ms = actor_below(a, HOLD_MAX_MS);
    if (actor_chance(a, long_percent))
        chance_pause_ms(actor_chance(a, 50) ? ms : ms / 10);
    else if (actor_chance(a, short_percent))
        chance_pause_ms(ms / 100);
}

/* False: it failed, and may be tried again. */
static bool transact(struct actor *a)
{
    struct tx tx = {.count = 0};
    enum ending ending = pick_ending(a);
    tx.is_mute = ending == ENDING_PREPARE || (ending == ENDING_COMMIT && actor_chance(a, 4));
    bool ok = begin(a, tx.is_mute);
    if (ok && actor_chance(a, 50)) {
        ok = business(a);
        hold_open(a, 4, 5);
    }
    for (unsigned n = 1 + actor_below(a, 3); ok && n > 0; n--) {
        ok = do_step(a, &tx);
        hold_open(a, 2, 5);
    }
    hold_open(a, 3, 10);
    ok = ok && (actor_chance(a, 70) || business(a));
    if (!ok || tx.count == 0) {
        actor_recover(a);
        finished(a, &tx, END_ROLLED_BACK);
        return ok;
    }
    switch (ending) {
    case ENDING_PREPARE:
        return end_prepared(a, &tx);
    case ENDING_ROLLBACK:
        return end_rolled_back(a, &tx);
    case ENDING_DEATH:
        end_dead(a);
        return false;
    case ENDING_LEAVE:
        actor_connect(a);
        finished(a, &tx, END_ROLLED_BACK);
        return true;
    case ENDING_COMMIT:
    default:
        return end_committed(a, &tx);
    }
}

static void autocommit(struct actor *a)
{
    struct tx tx = {.count = 0};
    bool ok = enqueue_one(a, &tx, KIND_AUTOCOMMIT);
    bool was_lost = a->is_lost;
    actor_recover(a);
    finished(a, &tx, ok ? END_COMMITTED : was_lost ? END_UNKNOWN : END_ROLLED_BACK);
}

/* Storms in which nobody sleeps, and lulls in which everybody does, the same for all. */
static unsigned pick_think_ms(struct actor *a)
{
    static const unsigned think_ms[3][4] = {
        {2, 10, 40, 150}, {5, 30, 120, 400}, {40, 120, 300, 600}};
    int64_t phase = (chance_now_ns() - a->s->begun_ns) / 1000000 / PHASE_MS;
    return actor_below(a,
                       1 + think_ms[a->s->profile][chance_derive(a->s->seed, (uint64_t)phase) % 4]);
}

void stress_produce(struct stress *s, int number, uint64_t seed)
{
    struct actor a = {.s = s, .random = seed, .number = number};
    actor_connect(&a);
    while (!atomic_load(&s->is_stopping)) {
        atomic_store(&s->backends[number], PQbackendPID(a.conn));
        if (actor_chance(&a, 20)) {
            autocommit(&a);
        } else {
            uint64_t plan = a.random;
            for (int tries = 0; tries < TRIES_MAX; tries++) {
                a.random = plan;
                if (transact(&a))
                    break;
                atomic_fetch_add(&s->refusals, 1);
                if (a.sqlstate[0] != '4') /* not a serialization failure: not to be repeated */
                    break;
            }
        }
        if (strcmp(a.sqlstate, "57014") == 0) /* cancelled since we last looked */
            actor_expect_no_locks(&a);
        actor_recover(&a);
        a.sqlstate[0] = '\0';
        stress_think(s, pick_think_ms(&a));
        stress_rest(s, number);
    }
    atomic_store(&s->backends[number], 0);
    actor_expect_no_locks(&a);
    PQfinish(a.conn);
}
