/* rules_fixture.h - what the check_rules*.c share: a dispatcher that looks when the test says so,
 * gates that hold a statement up in its middle, and rules that can be switched off.
 *
 * The dispatcher is the real stream, lanes and store on a real pgconn; what turn.c does around them
 * is done here, one look at a time. Each case is run with its rule and without it: the second run
 * proves that the interleaving is the one that the rule is about. */
#ifndef OB_TEST_RULES_FIXTURE_H
#define OB_TEST_RULES_FIXTURE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ck_main.h"
#include "core/stream.h"
#include "core/walk.h"
#include "db/store.h"
#include "pgcluster.h"
#include "pgrig.h"
#include "testconfig.h"

enum { DESK_ID = 101, RIVAL_ID = 102, HELD_MAX = 4000, RESULTS_MAX = 16, LOOK_MS = 25 };
enum { WAIT_MS = 20000, FIRST_MS = 1000000 };

/* Every case is a loop test: even numbers with the rule, odd ones without. */
#define IS_OFF (_i % 2 == 1)

/* ---- rules that are SQL ---- */

/* Replaces a piece of a function of schema outbox, which must be there exactly once. */
static inline void sql_replace(const char *function, const char *text, const char *instead)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = '%s' AND "
                   "pronamespace = 'outbox'::regnamespace",
                   function);
    const char *old = testdb_value(sql);
    ck_assert_ptr_nonnull(old);
    const char *at = strstr(old, text);
    ck_assert_msg(at != NULL, "outbox.%s does not say: %s", function, text);
    ck_assert_msg(strstr(at + 1, text) == NULL, "outbox.%s says it twice: %s", function, text);
    size_t size = strlen(old) + strlen(instead) + 1;
    char *changed = ob_xcalloc(size, 1);
    (void)snprintf(changed, size, "%.*s%s%s", (int)(at - old), old, instead, at + strlen(text));
    testdb_exec(changed);
    ob_free(changed);
}

/* The rule stands in the text; without it, `instead` does. */
static inline void sql_rule(bool is_off, const char *function, const char *text,
                            const char *instead)
{
    sql_replace(function, text, is_off ? instead : text);
}

/* ---- gates ---- */

/* public.gate(n) waits while gate n is closed; always true. */
static inline void gates_make(void)
{
    testdb_exec("CREATE FUNCTION public.gate(n integer) RETURNS boolean LANGUAGE plpgsql SET "
                "lock_timeout = 0 AS $$ "
                "BEGIN PERFORM pg_catalog.pg_advisory_lock_shared(7, n);"
                " PERFORM pg_catalog.pg_advisory_unlock_shared(7, n); RETURN true; END $$");
}

static inline PGconn *gate_close(int n)
{
    char sql[64];
    PGconn *keeper = testdb_connect();
    (void)snprintf(sql, sizeof sql, "SELECT pg_advisory_lock(7, %d)", n);
    pg_exec_ok(keeper, sql);
    return keeper;
}

static inline void gate_open(PGconn *keeper)
{
    pg_exec_ok(keeper, "SELECT pg_advisory_unlock_all()");
    PQfinish(keeper);
}

static inline bool gate_is_reached(int n)
{
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND "
                   "objid = %d AND NOT granted",
                   n);
    return testdb_long(sql) > 0;
}

static inline void gate_wait(int n)
{
    ck_assert(wait_until(gate_is_reached(n), WAIT_MS));
}

/* ---- producers ---- */

static inline PGconn *begin(void)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    return conn;
}

static inline void commit(PGconn *conn)
{
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
}

static inline void roll_back(PGconn *conn)
{
    pg_exec_ok(conn, "ROLLBACK");
    PQfinish(conn);
}

static inline int64_t number_from(PGconn *conn, const char *sql)
{
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, sql);
    ck_assert_int_ge(PQntuples(res), 1);
    int64_t number = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return number;
}

/* n jobs in the connection's transaction; the id of the first: ids of one call are in a row. */
static inline int64_t put(PGconn *conn, const char *task, int n)
{
    char sql[192];
    (void)snprintf(sql, sizeof sql,
                   "SELECT min(outbox.enqueue('%s')) FROM generate_series(1, %d) AS g", task, n);
    return number_from(conn, sql);
}

/* Committed at once. */
static inline int64_t put_one(const char *task)
{
    PGconn *conn = testdb_connect();
    int64_t id = put(conn, task, 1);
    PQfinish(conn);
    return id;
}

static inline uint64_t xid_of(PGconn *conn)
{
    return (uint64_t)number_from(conn, "SELECT pg_current_xact_id()");
}

/* ---- the dispatcher ---- */

struct held {
    int64_t id;
    int64_t claim;
    struct lane *lane; /* NULL: finished */
};

struct desk {
    struct pgrig rig;
    struct stream stream;
    struct lanes lanes;
    struct config *config;
    int64_t next_claim;
    int64_t first_claim; /* of the look under way */
    uint64_t now_ms;     /* the dispatcher's clock: the test's own */
    struct lanes_asked *asked;
    struct seen *seen; /* the newest look's */
    size_t claimed;    /* by it */
    bool is_answered;
    struct held held[HELD_MAX];
    size_t held_count;
    struct store_result results[RESULTS_MAX];
    struct outcome outcomes[RESULTS_MAX];
    size_t results_count;
};

static inline void register_as(int64_t id)
{
    char sql[224];
    (void)snprintf(sql, sizeof sql,
                   "SELECT answer FROM outbox.register(%" PRId64 ", 'name%" PRId64
                   "', 'host', 'boot', 'lock', 42, '{}', '0.1.0', '{a,b}', '1 minute')",
                   id, id);
    ck_assert_str_eq(testdb_value(sql), "registered");
}

/* Connected and registered; it has not looked yet. */
static inline struct desk *desk_open(const char *yaml)
{
    struct desk *d = ob_xcalloc(1, sizeof *d);
    rig_open_up(&d->rig, testdb_conninfo());
    register_as(DESK_ID);
    d->config = testconfig_load(yaml);
    lanes_init(&d->lanes, d->config);
    stream_init(&d->stream);
    d->next_claim = 1;
    d->now_ms = FIRST_MS;
    return d;
}

static inline void desk_close(struct desk *d)
{
    rig_close(&d->rig);
    seen_free(d->seen);
    stream_deinit(&d->stream);
    lanes_deinit(&d->lanes);
    config_unref(d->config);
    ob_free(d);
}

static inline void desk_note_claims(struct desk *d, const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct job *job = &batch->jobs[i].job;
        struct lane *lane = lanes_find(&d->lanes, job->task);
        ck_assert_ptr_nonnull(lane);
        ck_assert_uint_lt(d->held_count, HELD_MAX);
        lanes_slot_taken(&d->lanes, lane, lane->config);
        d->held[d->held_count++] = (struct held){.id = job->id, .claim = job->claim, .lane = lane};
    }
}

static inline void desk_on_turned(void *arg, const struct pg_error *error,
                                  const struct store_turned *turned)
{
    struct desk *d = arg;
    ck_assert_msg(error == NULL, "%s", error != NULL ? error->message : "");
    for (size_t i = 0; i < turned->answers_count; i++)
        ck_assert_int_eq(turned->answers[i], STORE_RECORDED);
    ck_assert(lanes_learn(d->asked, turned->seen, turned->batch));
    stream_learn(&d->stream, turned->seen, turned->batch, d->now_ms);
    desk_note_claims(d, turned->batch);
    d->claimed = turned->batch->count;
    seen_free(d->seen);
    d->seen = turned->seen;
    batch_unref(turned->batch);
    lanes_asked_free(d->asked);
    d->asked = NULL;
    d->results_count = 0;
    d->is_answered = true;
}

/* Sends a turn: the results that were noted, and a look. */
static inline void desk_send(struct desk *d)
{
    struct store_look look;
    d->asked = lanes_ask(&d->lanes, true, d->now_ms);
    d->first_claim = d->next_claim;
    d->next_claim += (int64_t)d->asked->slots_sum;
    d->is_answered = false;
    look = (struct store_look){.first_claim = d->first_claim,
                               .tasks = d->asked->tasks,
                               .slots = d->asked->slots,
                               .shares = d->asked->shares,
                               .tasks_count = d->asked->count,
                               .shared_slots = d->asked->shared_slots,
                               .lanes = d->asked->codes,
                               .lane_xids = d->asked->xids,
                               .lane_ids = d->asked->ids,
                               .lane_limits = d->asked->limits,
                               .apart = d->asked->apart,
                               .walk_rows = d->asked->walk_rows,
                               .walk_xid = d->asked->walk_xid,
                               .walk_id = d->asked->walk_id,
                               .walk_priority = d->asked->walk_priority,
                               .walk_slots = d->asked->walk_slots,
                               .list_running = true,
                               .lanes_count = d->asked->codes_count};
    stream_ask(&d->stream, &look, clock_mono_ms());
    const struct store_turn turn = {
        .results = d->results, .results_count = d->results_count, .look = &look};
    store_turn(d->rig.conn, DESK_ID, &turn, desk_on_turned, d);
}

static inline void desk_wait(struct desk *d)
{
    rig_until(&d->rig, d->is_answered);
}

/* Waits until the turn that was sent stands at the gate. */
static inline void desk_reaches(struct desk *d, int gate)
{
    rig_until(&d->rig, gate_is_reached(gate));
    ck_assert(!d->is_answered);
}

static inline void desk_look(struct desk *d)
{
    desk_send(d);
    desk_wait(d);
}

/* A look some time after the one before: long transactions become old. */
static inline void desk_look_later(struct desk *d)
{
    d->now_ms += LOOK_MS;
    desk_look(d);
}

static inline bool desk_has(const struct desk *d, int64_t id)
{
    for (size_t i = 0; i < d->held_count; i++) {
        if (d->held[i].id == id)
            return true;
    }
    return false;
}

/* The job's slot is free; the next turn records what became of it. */
static inline void desk_finish(struct desk *d, int64_t id, enum outcome_kind kind)
{
    for (size_t i = 0; i < d->held_count; i++) {
        struct held *h = &d->held[i];
        if (h->id != id || h->lane == NULL)
            continue;
        struct outcome *o = &d->outcomes[d->results_count];
        outcome_init(o);
        outcome_set(o, kind, "%s", kind == OUTCOME_DONE ? "" : "as the test says");
        d->results[d->results_count++] =
            (struct store_result){.token = {.id = h->id, .claim = h->claim}, .outcome = o};
        static const struct task_config like = {.kind = HANDLER_DISCARD}; /* whatever it is now */
        lanes_slot_freed(&d->lanes, h->lane, &like);
        h->lane = NULL;
        return;
    }
    ck_abort_msg("job %lld is not held", (long long)id);
}

/* Whether anything makes the daemon look again soon, beside a notification or a result. */
static inline bool desk_is_restless(const struct desk *d)
{
    return d->stream.is_full || stream_is_uneasy(&d->stream) ||
           lanes_have_work(&d->lanes, d->now_ms);
}

/* With the rule, so many looks find the job; without it, no look ever does, though it is there. */
static inline void desk_expect(struct desk *d, int64_t id, int looks, bool is_off)
{
    char sql[160];
    for (int i = 0; i < (is_off ? looks + 5 : looks); i++)
        desk_look_later(d);
    if (!is_off) {
        ck_assert_msg(desk_has(d, id), "job %lld was not found", (long long)id);
        return;
    }
    ck_assert_msg(!desk_has(d, id), "the interleaving does not need the rule");
    (void)snprintf(
        sql, sizeof sql,
        "SELECT count(*) FROM outbox.jobs WHERE state IN ('ready', 'scheduled') AND id = "
        "%" PRId64,
        id);
    ck_assert_int_eq(testdb_long(sql), 1);
}

static inline TCase *rules_case(Suite *suite, const char *name)
{
    /* Nobody else shall take transaction ids. */
    static const char *const settings[] = {"autovacuum=off", NULL};
    pgcluster_set_options(settings);
    TCase *tc = tcase_create(name);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    return tc;
}

#endif
