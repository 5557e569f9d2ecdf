/* Who gets into the dispatchers' way: rows locked by hand, cancels and retries that roll back, the
 * table locked, long transactions elsewhere, producers' statements cancelled and sessions ended.
 * See stress.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "stress.h"

enum { ROWS_MAX = 8 };
struct rows {
    int count;
    int64_t ids[ROWS_MAX];
    int64_t tokens[ROWS_MAX];
    size_t holds[ROWS_MAX];
};

/* From now on these rows are kept from the dispatchers, at the latest. */
static void hold_rows(struct actor *a, struct rows *rows, const PGresult *res)
{
    rows->count = 0;
    for (int i = 0; res != NULL && i < PQntuples(res) && i < ROWS_MAX; i++) {
        int64_t id = strtoll(PQgetvalue(res, i, 0), NULL, 10);
        int64_t token = strtoll(PQgetvalue(res, i, 1), NULL, 10);
        if (token == 0) /* its payload is msgpack */
            token = stress_token_of(a->s, id);
        rows->ids[rows->count] = id;
        rows->tokens[rows->count] = token;
        rows->holds[rows->count++] = stress_hold_begin(a->s, token);
    }
}

static void let_rows_go(struct actor *a, const struct rows *rows)
{
    for (int i = 0; i < rows->count; i++)
        stress_hold_end(a->s, rows->holds[i]);
}

static void spread(const struct rows *rows, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < rows->count; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%ld", i > 0 ? "," : "", (long)rows->ids[i]);
}

/* Rows by hand: locked, or updated; always rolled back. */
static void lock_rows(struct actor *a)
{
    static const char *const which[] = {"owner IS NULL", "true", "ready_xid IS NULL",
                                        "owner IS NULL AND task < 'd'", "owner IS NOT NULL"};
    static const char *const strength[] = {"UPDATE", "NO KEY UPDATE", "UPDATE"};
    static const char *const updates[] = {"priority = priority", "headers = '{\"by\": \"hand\"}'",
                                          "priority = 5 - priority", "lost = lost"};
    struct rows rows;
    char ids[200];
    /* The rows are locked somewhat before we know which: that much is counted as lateness. */
    PGresult *res =
        actor_query(a,
                    "BEGIN; SELECT id, " STRESS_TOKEN_SQL
                    " FROM outbox.job WHERE %s ORDER BY id DESC LIMIT %u FOR %s SKIP LOCKED",
                    which[actor_below(a, 5)], 1 + actor_below(a, 4), strength[actor_below(a, 3)]);
    hold_rows(a, &rows, res);
    PQclear(res);
    spread(&rows, ids, sizeof ids);
    if (rows.count > 0) {
        atomic_fetch_add(&a->s->locks, 1);
        if (actor_chance(a, 40))
            (void)actor_exec(a, NULL, "UPDATE outbox.job SET %s WHERE id IN (%s)",
                             updates[actor_below(a, 4)], ids);
        chance_pause_ms(actor_chance(a, 15) ? actor_below(a, 800) : actor_below(a, 60));
    }
    actor_recover(a);
    let_rows_go(a, &rows);
    stress_think(a->s, 1 + actor_below(a, rows.count > 0 ? 30 : 4));
}

/* Cancels, or retries by hand, in a transaction that commits or rolls back. */
static void mend_rows(struct actor *a)
{
    bool cancels = actor_chance(a, 50);
    bool commits = actor_chance(a, 50);
    bool done[ROWS_MAX] = {false};
    int64_t answered_ns[ROWS_MAX] = {0};
    struct rows rows;
    PGresult *res = actor_query(
        a, "SELECT id, " STRESS_TOKEN_SQL " FROM %s ORDER BY id DESC LIMIT %u",
        actor_chance(a, cancels ? 10 : 60) ? "outbox.dead" : "outbox.job WHERE owner IS NULL",
        1 + actor_below(a, 3));
    hold_rows(a, &rows, res);
    PQclear(res);
    bool ok = rows.count > 0 && actor_exec(a, NULL, "BEGIN");
    for (int i = 0; ok && i < rows.count; i++) {
        res = actor_query(a, "SELECT outbox.%s(%ld)", cancels ? "cancel" : "retry",
                          (long)rows.ids[i]);
        answered_ns[i] = chance_now_ns();
        const char *answer = res != NULL ? PQgetvalue(res, 0, 0) : "";
        done[i] = strcmp(answer, cancels ? "cancelled" : "retried") == 0;
        if (!cancels && commits)
            atomic_store(&a->s->tokens[rows.tokens[i]].is_retried, true);
        bool is_ending = strcmp(answer, "cancelling") == 0; /* it runs, perhaps not even yet */
        ok = res != NULL &&
             (!cancels || !(done[i] || is_ending) ||
              actor_exec(a, NULL, "INSERT INTO cancelled VALUES (%ld)", (long)rows.tokens[i]));
        PQclear(res);
    }
    if (ok && actor_chance(a, 40))
        chance_pause_ms(actor_below(a, 120));
    if (ok && commits && actor_exec(a, NULL, "COMMIT")) {
        atomic_fetch_add(cancels ? &a->s->cancels : &a->s->retries, 1);
        for (int i = 0; cancels && i < rows.count; i++) {
            if (done[i])
                atomic_store(&a->s->tokens[rows.tokens[i]].cancelled_ns, answered_ns[i]);
        }
    }
    actor_recover(a);
    let_rows_go(a, &rows);
    stress_think(a->s, 5 + actor_below(a, 60));
}

/* Transactions that have an xid, and nothing to do with jobs. In a quiet, too: nobody may wait for
 * them. */
static void idle_elsewhere(struct actor *a)
{
    static const char *const begins[] = {
        "BEGIN; SELECT pg_current_xact_id()",
        "BEGIN; INSERT INTO elsewhere SELECT generate_series(1, 100)",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*), pg_current_xact_id() FROM ledger"};
    if (actor_exec(a, NULL, "%s", begins[actor_below(a, 3)]))
        chance_pause_ms(actor_below(a, actor_chance(a, 50) ? 3000 : 100));
    (void)actor_exec(a, NULL, actor_chance(a, 50) ? "COMMIT" : "ROLLBACK");
    actor_recover(a);
    stress_think(a->s, actor_below(a, 200));
}

/* Everybody's writes wait, also behind us while we wait. */
static void lock_table(struct actor *a)
{
    stress_think(a->s, 300 + actor_below(a, 1500));
    bool ours = actor_chance(a, 70);
    size_t hold = stress_hold_begin(a->s, ALL_TOKENS);
    if (actor_exec(a, NULL, "BEGIN; SET LOCAL lock_timeout = '150ms'; LOCK TABLE %s IN SHARE MODE",
                   ours ? "outbox.job" : "account"))
        chance_pause_ms(actor_below(a, 60));
    actor_recover(a);
    stress_hold_end(a->s, hold);
}

/* In the middle of a statement, or whatever a producer happens to be at. */
static void sabotage(struct actor *a)
{
    char pids[200] = "0";
    size_t n = 1;
    for (size_t i = 0; i < PRODUCERS_MAX; i++)
        n += (size_t)snprintf(pids + n, sizeof pids - n, ",%d", atomic_load(&a->s->backends[i]));
    const char *how = actor_chance(a, 80) ? "pg_cancel_backend" : "pg_terminate_backend";
    int64_t hits = 0;
    if (actor_chance(a, 30))
        (void)actor_exec(a, &hits, "SELECT %s(%d)::integer", how,
                         atomic_load(&a->s->backends[actor_below(a, PRODUCERS_MAX)]));
    else
        (void)actor_exec(a, &hits,
                         "SELECT %s(pid)::integer FROM pg_stat_activity WHERE pid IN (%s) AND "
                         "state = 'active' LIMIT 1",
                         how, pids);
    atomic_fetch_add(&a->s->sabotages, hits);
    stress_think(a->s, actor_below(a, hits > 0 ? 60 : 15));
}

void stress_meddle(struct stress *s, int number, uint64_t seed)
{
    static void (*const ways[MEDDLERS])(struct actor *) = {lock_rows,      mend_rows,  lock_rows,
                                                           idle_elsewhere, lock_table, sabotage};
    struct actor a = {.s = s, .random = seed, .number = PRODUCERS_MAX + number};
    actor_connect(&a);
    while (!atomic_load(&s->is_stopping)) {
        ways[number](&a);
        if (number != IDLE_MEDDLER) /* which wakes nobody */
            stress_rest(s, a.number);
    }
    actor_recover(&a);
    PQfinish(a.conn);
}
