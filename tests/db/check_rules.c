/* check_rules.c - the position in the stream, and the transactions that it passed: each rule by the
 * one interleaving that needs it, with the rule and without. See rules_fixture.h. */
#include "rules_fixture.h"

#define ONE_TASK "tasks:\n  a: { discard: true, concurrency: 1000 }\n"

static const char LAST_ROW[] = "IF NOT is_full OR last_xid >= cut THEN";
static const char HOLD_BACK[] = "IF running[cardinality(running)] >= cut THEN";
static const char PENDING[] = "IF running[1] <= pos_xid THEN";

/* ---- the position ---- */

/* A job retried in the turn that looks carries the turn's own xid, which is above that of a
 * producer who still runs and is in no list of running ones. */
START_TEST(position_is_not_taken_from_the_turns_own_xid)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", LAST_ROW, "IF last_xid IS NULL THEN");
    int64_t retried = put_one("a");
    desk_look(d);
    ck_assert(desk_has(d, retried));
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    uint64_t xid = xid_of(producer);
    desk_finish(d, retried, OUTCOME_RETRY);
    desk_look(d);
    ck_assert_uint_eq(d->claimed, 1);
    ck_assert_uint_gt(d->seen->xid, xid);
    ck_assert_uint_le(d->seen->xmax, xid);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* What a deferred trigger of the turn's own transaction enqueues is in the stream after the look,
 * under an xid below that of others who have committed meanwhile. */
START_TEST(position_stays_below_the_turns_own_xid)
{
    struct desk *d = desk_open(ONE_TASK);
    gates_make();
    sql_rule(IS_OFF, "look", "IF own < cut THEN", "IF false THEN");
    sql_replace("look", "own := pg_current_xact_id_if_assigned();",
                "own := pg_current_xact_id_if_assigned(); PERFORM public.gate(1);");
    testdb_exec("CREATE FUNCTION public.follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM outbox.enqueue('a'); RETURN NULL; END $$;"
                "CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON outbox.dead DEFERRABLE"
                " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.follow()");
    int64_t dying = put_one("a");
    desk_look(d);
    desk_finish(d, dying, OUTCOME_DEAD);
    PGconn *gate = gate_close(1);
    desk_send(d);
    desk_reaches(d, 1);
    testdb_exec("SELECT pg_current_xact_id()");
    gate_open(gate);
    desk_wait(d);
    ck_assert_uint_lt(d->seen->xid, d->seen->xmax);
    desk_expect(d, testdb_long("SELECT max(id) FROM outbox.job"), 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* A batch of rows that carry xids of the future, as from a dump of another cluster. */
START_TEST(position_is_not_taken_from_a_row_of_the_future)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", LAST_ROW, "IF NOT is_full THEN");
    desk_look(d);
    PGconn *restore = begin();
    (void)put(restore, "nobody", 1000);
    pg_exec_ok(restore, "UPDATE outbox.job SET ready_xid = '4000000000'");
    commit(restore);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    desk_look(d);
    ck_assert(d->stream.is_full);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* What a restore left in the future is given an xid of today: the stream passes it once, instead of
 * reading it with every look. */
START_TEST(rows_of_the_future_are_restamped)
{
    struct desk *d = desk_open(ONE_TASK);
    testdb_exec("SELECT count(outbox.enqueue('nobody')) FROM generate_series(1, 1000);"
                "UPDATE outbox.job SET ready_xid = '4000000000'");
    if (!IS_OFF)
        ck_assert_str_eq(rig_value(&d->rig, "SELECT outbox.restamp()"), "1000");
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert_int_eq(d->stream.is_full, IS_OFF);
    ck_assert_uint_lt(d->stream.xid, 4000000000);
    if (!IS_OFF)
        ck_assert_int_eq(testdb_long("SELECT max(ready_xid::text::bigint) FROM outbox.job"),
                         (long)d->stream.xid);
    desk_close(d);
}
END_TEST

/* Who commits late, with a lower xid, is held for by the position or kept as pending; without both
 * nobody looks there again. */
START_TEST(position_waits_for_running_transactions)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", HOLD_BACK, "IF false THEN");
    sql_rule(IS_OFF, "look", PENDING, "IF false THEN");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    int64_t soon = put_one("a");
    desk_look(d);
    ck_assert(desk_has(d, soon));
    ck_assert(!desk_has(d, late));
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* More rows lie above a running transaction than one look reads, and nobody claims them. */
START_TEST(position_passes_a_batch_that_nobody_claims)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", "IF is_full AND last_xid > cut THEN", "IF false THEN");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    testdb_exec("SELECT count(outbox.enqueue('nobody')) FROM generate_series(1, 1000)");
    int64_t behind = put_one("a");
    for (int i = 0; i < 3; i++)
        desk_look(d); /* the dispatcher's clock stands: nothing becomes old */
    ck_assert_int_eq(desk_has(d, behind), !IS_OFF);
    commit(producer);
    desk_look(d);
    ck_assert(desk_has(d, late));
    desk_close(d);
}
END_TEST

/* The read takes no locks: a row that is re-stamped between the statement's snapshot and its lock
 * would come back with an xid above that of a producer who still runs. */
START_TEST(position_is_not_taken_from_a_row_restamped_while_it_is_locked)
{
    struct desk *d = desk_open(ONE_TASK);
    register_as(RIVAL_ID);
    gates_make();
    sql_replace("look", "WHERE (j.ready_xid, j.id) > (pos_xid, pos_id)",
                "WHERE (j.ready_xid, j.id) > (pos_xid, pos_id) AND public.gate(1)");
    sql_rule(IS_OFF, "look", "LIMIT batch) AS q",
             "LIMIT batch FOR NO KEY UPDATE SKIP LOCKED) AS q");
    sql_rule(IS_OFF, "look", LAST_ROW, "IF last_xid IS NULL THEN");
    desk_look(d);
    int64_t moved = put_one("a");
    PGconn *gate = gate_close(1);
    desk_send(d);
    desk_reaches(d, 1);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    testdb_exec("SELECT outbox.release(102, array_agg(c.id), array_agg(c.claim))"
                " FROM outbox.claim(102, 1, '{a}', '{1}') AS c");
    gate_open(gate);
    desk_wait(d);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    ck_assert(desk_has(d, moved));
    desk_close(d);
}
END_TEST

/* ---- pending transactions ---- */

/* The position goes past the producer's transaction, which is then on the list. */
static void pass(struct desk *d, PGconn *producer, bool is_listed)
{
    uint64_t xid = xid_of(producer);
    testdb_exec("SELECT pg_current_xact_id()");
    for (int i = 0; i < 4 && d->stream.xid < xid; i++)
        desk_look_later(d);
    ck_assert_uint_ge(d->stream.xid, xid);
    ck_assert_uint_eq(d->stream.pending_count, is_listed ? 1 : 0);
    if (is_listed)
        ck_assert_uint_eq(d->stream.pending[0].xid, xid);
}

START_TEST(transaction_that_goes_on_for_long_is_pending)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", PENDING, "IF false THEN");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    pass(d, producer, !IS_OFF);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

START_TEST(transaction_a_thousand_xids_old_is_pending)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", PENDING, "IF false THEN");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    uint64_t xid = xid_of(producer);
    testdb_exec("DO $$ BEGIN FOR i IN 1..999 LOOP PERFORM pg_current_xact_id(); COMMIT;"
                " END LOOP; END $$");
    desk_look(d);
    ck_assert_uint_lt(d->stream.xid, xid); /* not yet */
    testdb_exec("DO $$ BEGIN FOR i IN 1..5 LOOP PERFORM pg_current_xact_id(); COMMIT;"
                " END LOOP; END $$");
    desk_look(d);
    ck_assert_uint_ge(d->stream.xid, xid);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

START_TEST(pending_transaction_is_not_read_before_it_ended)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", "AND pending <> running[1:cardinality(pending)] THEN", "THEN");
    sql_rule(IS_OFF, "look", "WHERE pg_visible_in_snapshot(p.xid, snapshot) LIMIT 100",
             "LIMIT 100");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    pass(d, producer, true);
    desk_look(d);
    commit(producer);
    desk_expect(d, late, 1, IS_OFF);
    desk_close(d);
}
END_TEST

START_TEST(pending_transaction_that_ended_is_dropped)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", "FROM ends e WHERE NOT e.has_more)", "FROM ends e WHERE false)");
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    pass(d, producer, true);
    commit(producer);
    desk_expect(d, late, 1, false);
    ck_assert_uint_eq(d->stream.pending_count, IS_OFF ? 1 : 0);
    desk_close(d);
}
END_TEST

START_TEST(pending_transaction_that_rolled_back_is_dropped)
{
    struct desk *d = desk_open(ONE_TASK);
    desk_look(d);
    PGconn *producer = begin();
    int64_t never = put(producer, "a", 1);
    pass(d, producer, true);
    roll_back(producer);
    desk_look(d);
    ck_assert(!desk_has(d, never));
    ck_assert_uint_eq(d->stream.pending_count, 0);
    desk_close(d);
}
END_TEST

/* 450 jobs, of which a look reads 200. */
START_TEST(pending_transaction_is_read_to_its_end)
{
    struct desk *d = desk_open(ONE_TASK);
    sql_rule(IS_OFF, "look", "count(f.id) = 200 AS has_more", "false AS has_more");
    desk_look(d);
    PGconn *producer = begin();
    (void)put(producer, "a", 450);
    pass(d, producer, true);
    commit(producer);
    for (int i = 0; i < 8; i++)
        desk_look_later(d);
    ck_assert_uint_eq(d->held_count, IS_OFF ? 200 : 450);
    ck_assert_uint_eq(d->stream.pending_count, 0);
    desk_close(d);
}
END_TEST

/* The commit notified once: the rest of it must be asked for without another notification. */
START_TEST(rest_of_a_pending_transaction_is_asked_for_at_once)
{
    struct desk *d = desk_open(ONE_TASK);
    desk_look(d);
    PGconn *producer = begin();
    (void)put(producer, "a", 450);
    pass(d, producer, true);
    commit(producer);
    desk_look_later(d);
    while (desk_is_restless(d))
        desk_look_later(d);
    ck_assert_uint_eq(d->held_count, 450);
    desk_close(d);
}
END_TEST

/* Of the pending transactions that ended, a look reads 100. */
START_TEST(many_pending_transactions_that_end_together_are_asked_for_at_once)
{
    enum { PRODUCERS = 70, EACH = 2 };
    PGconn *producers[PRODUCERS];
    struct desk *d = desk_open(ONE_TASK);
    sql_replace("look", "snapshot) LIMIT 100", "snapshot) LIMIT 50");
    desk_look(d);
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = begin();
        (void)put(producers[i], "a", EACH);
    }
    testdb_exec("SELECT pg_current_xact_id()");
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert_uint_eq(d->stream.pending_count, PRODUCERS);
    for (int i = 0; i < PRODUCERS; i++)
        commit(producers[i]);
    desk_look_later(d);
    while (desk_is_restless(d))
        desk_look_later(d);
    ck_assert_uint_eq(d->held_count, PRODUCERS * EACH);
    desk_close(d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("rules");
    TCase *tc = rules_case(suite, "position");
    tcase_add_loop_test(tc, position_is_not_taken_from_the_turns_own_xid, 0, 2);
    tcase_add_loop_test(tc, position_stays_below_the_turns_own_xid, 0, 2);
    tcase_add_loop_test(tc, position_is_not_taken_from_a_row_of_the_future, 0, 2);
    tcase_add_loop_test(tc, rows_of_the_future_are_restamped, 0, 2);
    tcase_add_loop_test(tc, position_waits_for_running_transactions, 0, 2);
    tcase_add_loop_test(tc, position_passes_a_batch_that_nobody_claims, 0, 2);
    tcase_add_loop_test(tc, position_is_not_taken_from_a_row_restamped_while_it_is_locked, 0, 2);
    tc = rules_case(suite, "pending");
    tcase_add_loop_test(tc, transaction_that_goes_on_for_long_is_pending, 0, 2);
    tcase_add_loop_test(tc, transaction_a_thousand_xids_old_is_pending, 0, 2);
    tcase_add_loop_test(tc, pending_transaction_is_not_read_before_it_ended, 0, 2);
    tcase_add_loop_test(tc, pending_transaction_that_ended_is_dropped, 0, 2);
    tcase_add_test(tc, pending_transaction_that_rolled_back_is_dropped);
    tcase_add_loop_test(tc, pending_transaction_is_read_to_its_end, 0, 2);
    tcase_add_test(tc, rest_of_a_pending_transaction_is_asked_for_at_once);
    tcase_add_test(tc, many_pending_transactions_that_end_together_are_asked_for_at_once);
    return suite;
}
