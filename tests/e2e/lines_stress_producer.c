/* Producers of the stress of lines: transactions that put jobs with keys, unique keys, dependencies
 * and times; and meddlers, who cancel, retry and delete by hand. See lines_stress.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lines_stress.h"

enum {
    TX_JOBS_MAX = 64,
    MANY_MAX = 6,
    LINE_KEYS = 5,
    WALL_KEYS = 3,
    ONCE_KEYS = 5,
    DELAY_MAX_MS = 300,
    WORK_MAX_MS = 12
};

/* One transaction: what it put. */
struct tx {
    int64_t number;
    int64_t tokens[TX_JOBS_MAX];
    size_t count;
};

/* ---- what to put ---- */

static int64_t pick_parent(struct actor *a, const struct tx *tx)
{
    size_t recent = atomic_load(&a->s->recent_count);
    if (tx->count > 0 && lines_chance(a, 50))
        return tx->tokens[lines_below(a, (unsigned)tx->count)];
    return recent > 0 ? atomic_load(&a->s->recent[lines_below(
                            a, recent < RECENT_MAX ? (unsigned)recent : RECENT_MAX)])
                      : 0;
}

static void pick_parents(struct actor *a, const struct tx *tx, struct job *j)
{
    for (unsigned n = 1 + lines_below(a, AFTER_MAX); n > 0; n--) {
        int64_t parent = pick_parent(a, tx);
        if (parent > 0 && !a->s->jobs[parent].existing)
            j->after[j->after_count++] = parent;
    }
    j->runs_anyway = j->after_count > 0 && lines_chance(a, 30);
}

static void pick_fate(struct actor *a, struct job *j)
{
    j->refusals = lines_chance(a, 30) ? 1 + (int)lines_below(a, 2) : 0;
    j->work_ms = (int)lines_below(a, WORK_MAX_MS);
    if (lines_chance(a, 8)) { /* to die */
        j->refusals = 100;
        j->max_attempts = 1 + (int)lines_below(a, 2);
    }
    if (j->task == TASK_ONCE && j->max_attempts == 0)
        j->max_attempts = 4; /* it may repeat, or come to, and ends by this */
}

/* task NOTHING: any. */
static int64_t make_job(struct actor *a, const struct tx *tx, int task)
{
    static const int tasks[] = {TASK_LINE, TASK_LINE, TASK_LINE, TASK_WALL, TASK_ONCE,
                                TASK_ONCE, TASK_ONCE, TASK_PART, TASK_PART, TASK_FEW};
    int64_t token = atomic_fetch_add(&a->s->next_token, 1);
    if (token >= JOBS_MAX)
        lines_fail(a->s, "more jobs than fit: OUTBOX_STRESS_SECONDS is too large");
    struct job *j = &a->s->jobs[token];
    int any = tasks[lines_below(a, sizeof tasks / sizeof tasks[0])];
    j->task = task != NOTHING ? task : any;
    j->key = NOTHING;
    j->unique_key = NOTHING;
    j->tx = tx->number;
    pick_fate(a, j);
    if (j->task == TASK_FEW)
        return token;
    if (j->task == TASK_LINE)
        j->key = (int)lines_below(a, LINE_KEYS);
    if (j->task == TASK_WALL)
        j->key = (int)lines_below(a, WALL_KEYS);
    if (j->task == TASK_ONCE) {
        j->unique_key = (int)lines_below(a, ONCE_KEYS);
        j->key = lines_chance(a, 40) ? (int)lines_below(a, 3) : NOTHING;
        j->repeat_ms = lines_chance(a, 25) ? 1 + (int)lines_below(a, 80) : 0;
    }
    j->delay_ms = lines_chance(a, 20) ? 1 + (int)lines_below(a, DELAY_MAX_MS) : 0;
    j->expires_ms =
        lines_chance(a, 4) ? j->delay_ms + 20 + (int)lines_below(a, 2 * DELAY_MAX_MS) : 0;
    j->is_told = lines_chance(a, 35);
    if (lines_chance(a, j->task == TASK_PART ? 60 : 12))
        pick_parents(a, tx, j);
    return token;
}

/* As arguments of a function, or as members of an object. Static storage. */
static const char *options_of(const struct lines *s, const struct job *j, bool is_json)
{
    static char text[640];
    char value[120];
    size_t n = 0;
    text[0] = '\0';
#define ADD(cond, name, ...)                                                                       \
    if (cond) {                                                                                    \
        (void)snprintf(value, sizeof value, __VA_ARGS__);                                          \
        n += is_json                                                                               \
                 ? (size_t)snprintf(text + n, sizeof text - n, ", \"%s\": \"%s\"", name, value)    \
                 : (size_t)snprintf(text + n, sizeof text - n, ", %s => '%s'", name, value);       \
    }
    ADD(j->key >= 0, "key", "k%d", j->key)
    ADD(j->unique_key >= 0, "unique_key", "u%d", j->unique_key)
    ADD(j->delay_ms > 0, "delay", "%d ms", j->delay_ms)
    ADD(j->repeat_ms > 0, "repeat_every", "%d ms", j->repeat_ms)
    ADD(j->runs_anyway, "on_failed_dependency", "run")
#undef ADD
    if (j->max_attempts > 0)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              is_json ? ", \"max_attempts\": %d" : ", max_attempts => %d",
                              j->max_attempts);
    if (j->is_told)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              is_json ? ", \"notify_done\": true" : ", notify_done => true");
    if (j->expires_ms > 0 && !is_json)
        n +=
            (size_t)snprintf(text + n, sizeof text - n,
                             ", expires_at => clock_timestamp() + interval '%d ms'", j->expires_ms);
    if (j->after_count > 0) {
        n += (size_t)snprintf(text + n, sizeof text - n,
                              is_json ? ", \"after\": [" : ", after => '{");
        for (int i = 0; i < j->after_count; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%ld", i > 0 ? "," : "",
                                  (long)atomic_load(&s->jobs[j->after[i]].id));
        (void)snprintf(text + n, sizeof text - n, is_json ? "]" : "}'");
    }
    return text;
}

static void note_put(struct actor *a, struct tx *tx, int64_t token, PGresult *res, int row)
{
    struct job *j = &a->s->jobs[token];
    j->answered_ns = chance_now_ns();
    j->existing = PQgetvalue(res, row, 1)[0] == 't';
    atomic_store(&j->id, strtoll(PQgetvalue(res, row, 0), NULL, 10));
    if (tx->count < TX_JOBS_MAX)
        tx->tokens[tx->count++] = token;
}

/* ---- ways to put; false: the statement failed ---- */

static bool put_task(struct actor *a, struct tx *tx, int task)
{
    int64_t token = make_job(a, tx, task);
    struct job *j = &a->s->jobs[token];
    bool by_bytes = j->unique_key >= 0 || lines_chance(a, 30);
    j->called_ns = chance_now_ns();
    PGresult *res =
        by_bytes ? lines_query(a,
                               "INSERT INTO ledger VALUES (%ld); SELECT id, existing FROM "
                               "outbox.enqueue_bytes('%s', '{\"token\": %ld}', 'json'%s)",
                               (long)token, lines_task_names[j->task], (long)token,
                               options_of(a->s, j, false))
                 : lines_query(a,
                               "INSERT INTO ledger VALUES (%ld); SELECT outbox.enqueue('%s', "
                               "'{\"token\": %ld}'%s), false",
                               (long)token, lines_task_names[j->task], (long)token,
                               options_of(a->s, j, false));
    if (res == NULL)
        return false;
    note_put(a, tx, token, res, 0);
    PQclear(res);
    return true;
}

static bool put_one(struct actor *a, struct tx *tx)
{
    return put_task(a, tx, NOTHING);
}

static bool put_many(struct actor *a, struct tx *tx)
{
    char json[8192];
    char values[512];
    size_t len = 0;
    size_t values_len = 0;
    int64_t tokens[MANY_MAX];
    int n = 1 + (int)lines_below(a, MANY_MAX);
    for (int i = 0; i < n; i++) {
        tokens[i] = make_job(a, tx, NOTHING);
        struct job *j = &a->s->jobs[tokens[i]];
        j->expires_ms = 0;
        j->by_many = true;
        len += (size_t)snprintf(json + len, sizeof json - len,
                                "%s{\"task\": \"%s\", \"payload\": {\"token\": %ld}%s}",
                                i > 0 ? ", " : "", lines_task_names[j->task], (long)tokens[i],
                                options_of(a->s, j, true));
        values_len += (size_t)snprintf(values + values_len, sizeof values - values_len, "%s(%ld)",
                                       i > 0 ? ", " : "", (long)tokens[i]);
        j->called_ns = chance_now_ns();
    }
    PGresult *res = lines_query(
        a, "INSERT INTO ledger VALUES %s; SELECT id, existing FROM outbox.enqueue_many('[%s]')",
        values, json);
    if (res == NULL)
        return false;
    if (PQntuples(res) != n)
        lines_fail(a->s, "enqueue_many returned %d rows for %d jobs", PQntuples(res), n);
    for (int i = 0; i < n; i++)
        note_put(a, tx, tokens[i], res, i);
    PQclear(res);
    return true;
}

/* Many at once, of which some may be too many. */
static bool put_few(struct actor *a, struct tx *tx)
{
    for (unsigned n = 1 + lines_below(a, 4); n > 0; n--) {
        if (!put_task(a, tx, TASK_FEW))
            return false;
    }
    return true;
}

static bool put_in_savepoint(struct actor *a, struct tx *tx)
{
    size_t before = tx->count;
    if (!lines_exec(a, "SAVEPOINT s"))
        return false;
    for (unsigned n = 1 + lines_below(a, 3); n > 0; n--) {
        if (!put_one(a, tx)) {
            if (a->is_lost)
                return false;
            atomic_fetch_add(&a->s->refusals, 1);
            tx->count = before;
            return lines_exec(a, "ROLLBACK TO s");
        }
    }
    if (lines_chance(a, 50))
        return lines_exec(a, "RELEASE s");
    tx->count = before;
    return lines_exec(a, "ROLLBACK TO s");
}

static void produce_one(struct actor *a)
{
    struct tx tx = {.number = atomic_fetch_add(&a->s->next_tx, 1)};
    bool ok = lines_exec(a, "BEGIN");
    for (unsigned n = 1 + lines_below(a, 4); ok && n > 0; n--) {
        unsigned dice = lines_below(a, 100);
        ok = dice < 5    ? put_few(a, &tx)
             : dice < 60 ? put_one(a, &tx)
             : dice < 80 ? put_in_savepoint(a, &tx)
                         : put_many(a, &tx);
        if (ok && lines_chance(a, 10))
            chance_pause_ms(lines_below(a, 40));
    }
    if (!ok || lines_chance(a, 15)) {
        bool is_full = !ok && strcmp(a->sqlstate, "53400") == 0;
        atomic_fetch_add(ok ? &a->s->rollbacks : is_full ? &a->s->limits : &a->s->refusals, 1);
        lines_recover(a);
        return;
    }
    if (lines_chance(a, 6))
        chance_pause_ms(lines_below(a, 250));
    for (size_t i = 0; i < tx.count; i++)
        atomic_store(&a->s->jobs[tx.tokens[i]].sent_ns, chance_now_ns());
    if (!lines_exec(a, "COMMIT")) {
        lines_recover(a);
        return;
    }
    int64_t now = chance_now_ns();
    atomic_fetch_add(&a->s->commits, 1);
    for (size_t i = 0; i < tx.count; i++) {
        atomic_store(&a->s->jobs[tx.tokens[i]].acked_ns, now);
        if (!a->s->jobs[tx.tokens[i]].existing)
            atomic_store(&a->s->recent[atomic_fetch_add(&a->s->recent_count, 1) % RECENT_MAX],
                         tx.tokens[i]);
    }
}

/* Another isolation level: a job with a key, or with dependencies, is refused. */
static void produce_refused(struct actor *a)
{
    static const char *const levels[] = {"REPEATABLE READ", "SERIALIZABLE"};
    static const char *const options[] = {"key => 'k1'", "after => '{1}'"};
    if (atomic_load(&a->s->recent_count) == 0)
        return;
    if (!lines_exec(a, "BEGIN ISOLATION LEVEL %s", levels[lines_below(a, 2)])) {
        lines_recover(a);
        return;
    }
    bool done = lines_exec(a, "SELECT outbox.enqueue('line', '{\"token\": 0}', %s)",
                           options[lines_below(a, 2)]);
    if (done || (!a->is_lost && strcmp(a->sqlstate, "0A000") != 0))
        lines_fail(a->s, "an old snapshot was %s", done ? "accepted" : a->sqlstate);
    atomic_fetch_add(&a->s->isolations, 1);
    lines_recover(a);
}

void lines_produce(struct lines *s, unsigned number)
{
    struct actor a = {.s = s, .random = chance_derive(s->seed, 100 + number)};
    lines_connect(&a);
    while (!atomic_load(&s->is_stopping)) {
        if (lines_chance(&a, 3))
            produce_refused(&a);
        else
            produce_one(&a);
        chance_pause_ms(5 + lines_below(&a, lines_chance(&a, 10) ? 200 : 40));
    }
    PQfinish(a.conn);
}

/* ---- by hand ---- */

/* What each is, as SQL. Static storage. */
static const char *deed_sql(enum deed_kind kind, int64_t id)
{
    static char sql[256];
    if (kind == DEED_DELETE)
        (void)snprintf(sql, sizeof sql,
                       "WITH d AS (DELETE FROM outbox.job WHERE id = %ld AND owner IS NULL "
                       "RETURNING id) SELECT CASE WHEN count(*) = 1 THEN 'deleted' ELSE 'not "
                       "found' END FROM d",
                       (long)id);
    else
        (void)snprintf(sql, sizeof sql, "SELECT outbox.%s(%ld)",
                       kind == DEED_CANCEL ? "cancel" : "retry", (long)id);
    return sql;
}

static int64_t pick_victim(struct actor *a, enum deed_kind kind)
{
    const char *from = kind == DEED_DELETE ? "outbox.job WHERE owner IS NULL"
                       : lines_chance(a, kind == DEED_CANCEL ? 25 : 70) ? "outbox.dead"
                                                                        : "outbox.job";
    PGresult *res = lines_query(a, "SELECT id FROM %s ORDER BY random() LIMIT 1", from);
    int64_t id = res != NULL && PQntuples(res) > 0 ? strtoll(PQgetvalue(res, 0, 0), NULL, 10) : 0;
    PQclear(res);
    return id;
}

static void do_deed(struct actor *a, enum deed_kind kind)
{
    int64_t id = pick_victim(a, kind);
    bool commits = lines_chance(a, 75);
    if (id == 0 || !lines_exec(a, "BEGIN")) {
        lines_recover(a);
        return;
    }
    size_t i = atomic_fetch_add(&a->s->deeds_count, 1);
    if (i >= DEEDS_MAX)
        lines_fail(a->s, "too many deeds by hand");
    struct deed *d = &a->s->deeds[i];
    d->kind = (int)kind;
    d->id = id;
    d->called_ns = chance_now_ns();
    bool ok = lines_exec(a, "INSERT INTO deeds VALUES (%zu)", i);
    PGresult *res = ok ? lines_query(a, "%s", deed_sql(kind, id)) : NULL;
    if (res != NULL)
        (void)snprintf(d->answer, sizeof d->answer, "%s", PQgetvalue(res, 0, 0));
    if (res != NULL && lines_chance(a, 20))
        chance_pause_ms(lines_below(a, 60));
    if (res != NULL && commits && lines_exec(a, "COMMIT"))
        atomic_store(&d->acked_ns, chance_now_ns());
    PQclear(res);
    lines_recover(a);
}

void lines_meddle(struct lines *s, unsigned number)
{
    struct actor a = {.s = s, .random = chance_derive(s->seed, 200 + number)};
    lines_connect(&a);
    while (!atomic_load(&s->is_stopping)) {
        unsigned dice = lines_below(&a, 100);
        do_deed(&a, dice < 50 ? DEED_CANCEL : dice < 85 || !s->deletes ? DEED_RETRY : DEED_DELETE);
        chance_pause_ms(5 + lines_below(&a, 60));
    }
    PQfinish(a.conn);
}
