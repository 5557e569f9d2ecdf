/* check_rules_lists.c - what the position passed and did not get: rows that somebody held locked,
 * lanes with a backlog, scheduled jobs; each rule by the one interleaving that needs it, with the
 * rule and without. See rules_fixture.h. */
#include "rules_fixture.h"

#define SLOTS(n) "tasks:\n  a: { discard: true, concurrency: " #n " }\n"

static const char MISSED[] = "'missed', CASE WHEN obtained < cardinality(picked)";

static void cancel(int64_t id)
{
    char sql[64];
    (void)snprintf(sql, sizeof sql, "SELECT outbox.cancel(%" PRId64 ")", id);
    ck_assert_str_eq(testdb_value(sql), "cancelled");
}

/* ---- revisiting ---- */

/* Who may hold the newest job. */
#define NEWEST "(SELECT max(id) FROM outbox.job)"
static const char *const HOLDERS[] = {
    "SELECT * FROM outbox.job WHERE id = " NEWEST " FOR UPDATE",
    "UPDATE outbox.job SET headers = '{}' WHERE id = " NEWEST,
    "SELECT outbox.cancel(" NEWEST ")",
    "SELECT outbox.claim(102, 1, '{a}', '{1}')",
};
enum { HOLDERS_COUNT = sizeof HOLDERS / sizeof HOLDERS[0] };

static PGconn *hold(const char *statement)
{
    PGconn *holder = begin();
    pg_exec_ok(holder, statement);
    return holder;
}

/* It was read, it could not be locked, and it is not new to anybody when the holder gives it up. */
START_TEST(row_whose_holder_rolls_back_is_revisited)
{
    struct desk *d = desk_open(SLOTS(10));
    register_as(RIVAL_ID);
    sql_rule(IS_OFF, "look", MISSED, "'missed', CASE WHEN false");
    desk_look(d);
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[_i / 2]);
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert(!desk_has(d, id));
    ck_assert_int_eq(stream_is_uneasy(&d->stream), !IS_OFF);
    roll_back(holder);
    desk_expect(d, id, 1, IS_OFF);
    desk_look(d);
    ck_assert(!stream_is_uneasy(&d->stream));
    desk_close(d);
}
END_TEST

/* The same for a row that the walk of a backlog did not get. */
START_TEST(row_of_a_backlog_whose_holder_rolls_back_is_revisited)
{
    struct desk *d = desk_open(SLOTS(10));
    sql_rule(IS_OFF, "look", MISSED, "'missed', CASE WHEN false");
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[0]);
    desk_look(d);
    ck_assert(lanes_are_empty(&d->lanes));
    roll_back(holder);
    desk_expect(d, id, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* It is re-stamped between the read and the lock: a later place in the stream, another on disk. */
START_TEST(row_that_was_updated_before_it_was_locked_is_revisited)
{
    struct desk *d = desk_open(SLOTS(10));
    gates_make();
    sql_rule(IS_OFF, "look", MISSED, "'missed', CASE WHEN false");
    sql_replace("look", "PERFORM outbox.hold_dispatcher(owner);",
                "PERFORM public.gate(1); PERFORM outbox.hold_dispatcher(owner);");
    desk_look(d);
    int64_t id = put_one("a");
    PGconn *gate = gate_close(1);
    desk_send(d);
    desk_reaches(d, 1);
    testdb_exec("UPDATE outbox.job SET headers = '{}'");
    gate_open(gate);
    desk_wait(d);
    ck_assert(!desk_has(d, id));
    desk_expect(d, id, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* Whose holder commits: it is gone, or owned, and nobody asks for it again. */
START_TEST(row_that_is_gone_is_not_revisited_for_ever)
{
    struct desk *d = desk_open(SLOTS(10));
    register_as(RIVAL_ID);
    desk_look(d);
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[_i]);
    desk_look(d);
    ck_assert_uint_eq(d->stream.revisit_count, 1);
    commit(holder);
    desk_look(d);
    ck_assert_uint_eq(d->stream.revisit_count, 0);
    ck_assert(!desk_has(d, id));
    desk_close(d);
}
END_TEST

/* 450 rows, all held: a look asks for 200 of the list, in turn. */
START_TEST(long_revisit_list_is_asked_for_in_turn)
{
    struct desk *d = desk_open(SLOTS(1000));
    desk_look(d);
    testdb_exec("SELECT count(outbox.enqueue('a')) FROM generate_series(1, 450)");
    PGconn *holder = begin();
    pg_exec_ok(holder, "SELECT * FROM outbox.job FOR UPDATE");
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert_uint_eq(d->stream.revisit_count, 450);
    roll_back(holder);
    while (desk_is_restless(d))
        desk_look_later(d);
    ck_assert_uint_eq(d->held_count, 450);
    desk_close(d);
}
END_TEST

/* There is no slot for it when it is free again: its lane is opened for it. */
START_TEST(revisited_row_without_a_slot_opens_its_lane)
{
    struct desk *d = desk_open(SLOTS(1));
    sql_rule(IS_OFF, "look", "'blocked', blocked", "'blocked', NULL::jsonb");
    desk_look(d);
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[0]);
    desk_look(d);
    ck_assert_uint_eq(d->stream.revisit_count, 1);
    roll_back(holder);
    int64_t first = testdb_long("SELECT outbox.enqueue('a', priority => 1)");
    desk_look(d);
    ck_assert(desk_has(d, first));
    ck_assert_uint_eq(d->stream.revisit_count, 0);
    desk_finish(d, first, OUTCOME_DONE);
    desk_expect(d, id, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* As long as it is held it is asked for, but the slot is for those who can have it. */
START_TEST(held_row_does_not_keep_its_slot_from_others)
{
    struct desk *d = desk_open(SLOTS(1));
    desk_look(d);
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[0]);
    desk_look(d);
    int64_t next = put_one("a");
    for (int i = 0; i < 3; i++)
        desk_look_later(d);
    ck_assert(desk_has(d, next));
    roll_back(holder);
    desk_finish(d, next, OUTCOME_DONE);
    desk_expect(d, id, 2, false);
    desk_close(d);
}
END_TEST

/* The same while a transaction that runs makes the stream be read again from before the row; and it
 * is listed once, however often it is read. */
START_TEST(held_row_that_is_read_again_does_not_keep_its_slot_either)
{
    struct desk *d = desk_open(SLOTS(1));
    desk_look(d);
    PGconn *producer = begin();
    (void)xid_of(producer);
    int64_t id = put_one("a");
    PGconn *holder = hold(HOLDERS[0]);
    desk_look(d);
    int64_t next = put_one("a");
    for (int i = 0; i < 3; i++)
        desk_look(d); /* the dispatcher's clock stands: the position is held back */
    ck_assert_uint_lt(d->stream.xid, xid_of(producer));
    ck_assert_uint_eq(d->stream.revisit_count, 1);
    ck_assert(desk_has(d, next));
    roll_back(producer);
    roll_back(holder);
    desk_finish(d, next, OUTCOME_DONE);
    desk_expect(d, id, 2, false);
    desk_close(d);
}
END_TEST

/* The slow check has opened its lane again, which is walked in the look that revisits it; and
 * others have the slots. */
START_TEST(revisited_row_that_its_lane_walks_too_is_kept)
{
    struct desk *d = desk_open(SLOTS(6));
    testdb_exec("SELECT count(outbox.enqueue('a')) FROM generate_series(1, 3)");
    int64_t id = testdb_long("SELECT max(id) FROM outbox.job");
    PGconn *holder = hold(HOLDERS[0]);
    desk_look(d);
    ck_assert_uint_eq(d->claimed, 2);
    ck_assert_uint_eq(d->stream.revisit_count, 1);
    d->lanes.items[0]->backlogs[1] = (struct backlog){.is_open = true};
    roll_back(holder);
    int64_t first = testdb_long("SELECT outbox.enqueue('a', priority => 1)");
    testdb_exec("SELECT count(outbox.enqueue('a', priority => 1)) FROM generate_series(1, 2)");
    int64_t second = testdb_long("SELECT outbox.enqueue('a', priority => 1)");
    desk_look(d);
    ck_assert(desk_has(d, first) && desk_has(d, second));
    ck_assert(!desk_has(d, id));
    desk_finish(d, first, OUTCOME_DONE);
    desk_expect(d, id, 2, false);
    desk_close(d);
}
END_TEST

/* ---- backlogs ---- */

/* Who commits late belongs before the place where its lane's backlog continues. */
START_TEST(lane_is_rewound_by_a_late_commit)
{
    struct desk *d = desk_open(SLOTS(1));
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "a", 1);
    int64_t first = put_one("a");
    int64_t second = put_one("a");
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert(desk_has(d, first));
    ck_assert_uint_eq(d->stream.pending_count, 1);
    sql_rule(IS_OFF, "look", "'blocked', blocked", "'blocked', NULL::jsonb");
    commit(producer);
    desk_look(d);
    ck_assert_uint_eq(d->stream.pending_count, 0);
    desk_finish(d, first, OUTCOME_DONE);
    desk_look(d);
    ck_assert(desk_has(d, IS_OFF ? second : late));
    desk_finish(d, IS_OFF ? second : late, OUTCOME_DONE);
    desk_expect(d, IS_OFF ? late : second, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* A row commits when the look has begun, and its lane comes to its end in that look: the walk must
 * not be older than the reading of the stream, which leaves the row to it. */
START_TEST(lane_is_not_exhausted_before_what_the_stream_left_to_it)
{
    struct desk *d = desk_open(SLOTS(1));
    gates_make();
    sql_replace("look", "SELECT d.next_due INTO next_due FROM outbox.make_due(due_from, batch) d;",
                "PERFORM set_config('rules.before', pg_current_snapshot()::text, true);"
                " PERFORM public.gate(1);"
                "SELECT d.next_due INTO next_due FROM outbox.make_due(due_from, batch) d;");
    sql_rule(IS_OFF, "look", "AND j.priority <= l.priority",
             "AND j.priority <= l.priority AND pg_visible_in_snapshot(j.ready_xid,"
             " current_setting('rules.before')::pg_snapshot)");
    desk_look(d);
    int64_t first = put_one("a");
    int64_t second = put_one("a");
    desk_look(d);
    ck_assert(desk_has(d, first));
    desk_finish(d, first, OUTCOME_DONE);
    d->results_count = 0; /* its result goes with a later turn: this one has no xid of its own */
    cancel(second);
    ck_assert(lanes_have_work(&d->lanes, d->now_ms)); /* as far as we know */
    PGconn *gate = gate_close(1);
    desk_send(d);
    desk_reaches(d, 1);
    int64_t id = put_one("a");
    gate_open(gate);
    desk_wait(d);
    desk_expect(d, id, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* The stream passed its jobs over while it had no handler. */
START_TEST(task_added_by_a_reload_is_read_from_the_beginning)
{
    struct desk *d = desk_open(SLOTS(10));
    desk_look(d);
    PGconn *producer = begin();
    int64_t late = put(producer, "b", 1);
    int64_t id = put_one("b");
    for (int i = 0; i < 4; i++)
        desk_look_later(d);
    ck_assert_uint_eq(d->stream.pending_count, 1);
    commit(producer);
    desk_look(d);
    struct config *more =
        testconfig_load("tasks:\n  a: { discard: true }\n  b: { discard: true }\n");
    lanes_set_config(&d->lanes, more);
    config_unref(more);
    struct lane *lane = lanes_find(&d->lanes, "b");
    ck_assert_ptr_nonnull(lane);
    for (int p = 0; IS_OFF && p < PRIORITIES; p++)
        lane->backlogs[p].is_open = false;
    desk_expect(d, id, 1, IS_OFF);
    ck_assert_int_eq(desk_has(d, late), !IS_OFF);
    desk_close(d);
}
END_TEST

/* ---- scheduled jobs ---- */

/* A look when the server's clock has gone on. */
static void tick(struct desk *d)
{
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "SELECT clock_timestamp() > to_timestamp(%" PRId64
                   " / 1000000.0) + interval '30 ms'",
                   d->stream.now_us);
    ck_assert(wait_until(strcmp(testdb_value(sql), "t") == 0, WAIT_MS));
    desk_look_later(d);
}

#define look_until(d, cond)                                                                        \
    for (int tries_ = 0; !(cond); desk_look_later(d))                                              \
    ck_assert_msg(tries_++ < 1000, "looked in vain for %s", #cond)
#define tick_until(d, cond)                                                                        \
    for (int tries_ = 0; !(cond); tick(d))                                                         \
    ck_assert_msg(tries_++ < 10, "looked in vain for %s", #cond)

/* A transaction of the dispatcher's own, as it takes one on the way to sleep. */
static void note_xid(struct desk *d)
{
    stream_note_xid(&d->stream, (uint64_t)testdb_long("SELECT pg_current_xact_id()"));
}

static int64_t put_soon(PGconn *conn)
{
    return number_from(conn, "SELECT outbox.enqueue('a', delay => interval '1 ms')");
}

/* Scheduled jobs are looked for from a time on before which none can turn up, but for those of
 * pending transactions. */
START_TEST(scheduled_job_that_is_committed_late_is_found)
{
    struct desk *d = desk_open(SLOTS(10));
    desk_look(d);
    note_xid(d);
    tick(d);
    int64_t known_from = d->stream.due_from_us;
    ck_assert_int_ne(known_from, INT64_MIN);
    PGconn *producer = begin();
    int64_t id = put_soon(producer);
    testdb_exec("SELECT pg_current_xact_id()");
    tick_until(d, d->stream.pending_count == 1);
    /* Farther than the look goes back for steps of the clock that it can't see. */
    int64_t run_at = number_from(
        producer, "SELECT (1000000 * extract(epoch FROM run_at))::bigint FROM outbox.job");
    look_until(d, d->stream.now_us > run_at + 200000);
    note_xid(d);
    look_until(d, d->stream.due_from_us > run_at + 200000);
    ck_assert_int_gt(d->stream.due_from_us, known_from);
    commit(producer);
    desk_look(d);
    ck_assert(stream_is_uneasy(&d->stream));
    if (IS_OFF)
        d->stream.due_again_us = INT64_MAX;
    desk_expect(d, id, 1, IS_OFF);
    ck_assert(!stream_is_uneasy(&d->stream));
    desk_close(d);
}
END_TEST

/* The same, when the look that makes the transaction pending is the one that learns of a later
 * time. */
START_TEST(scheduled_job_of_a_transaction_passed_together_with_a_later_time_is_found)
{
    struct desk *d = desk_open(SLOTS(10));
    desk_look(d);
    PGconn *producer = begin();
    int64_t id = put_soon(producer);
    tick(d);
    note_xid(d);
    tick_until(d, d->stream.pending_count == 1);
    ck_assert_int_ne(d->stream.due_from_us, INT64_MIN);
    commit(producer);
    desk_look(d);
    desk_expect(d, id, 1, false);
    desk_close(d);
}
END_TEST

/* The clock of enqueuing is read before its transaction has an id: while the table is locked, as
 * CREATE INDEX does, a whole lot of time may lie between the two. */
START_TEST(scheduled_job_whose_producer_waited_for_the_table_is_found)
{
    struct desk *d = desk_open(SLOTS(10));
    desk_look(d);
    PGconn *indexer = begin();
    pg_exec_ok(indexer, "LOCK TABLE outbox.job IN SHARE MODE");
    PGconn *producer = testdb_connect();
    ck_assert_int_eq(PQsendQuery(producer, "SELECT outbox.enqueue('a', delay => interval '1 ms')"),
                     1);
    ck_assert(
        wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, WAIT_MS));
    tick(d);
    note_xid(d);
    tick(d);
    commit(indexer);
    PGresult *res = PQgetResult(producer);
    ck_assert_int_eq(PQresultStatus(res), PGRES_TUPLES_OK);
    PQclear(res);
    PQfinish(producer);
    desk_expect(d, testdb_long("SELECT max(id) FROM outbox.job"), 2, false);
    desk_close(d);
}
END_TEST

/* ---- the server's clock ---- */

/* The functions go by public.clock(), which the test can step. */
static void clock_make(void)
{
    testdb_exec("CREATE TABLE public.step (by interval); INSERT INTO public.step VALUES ('0');"
                "CREATE FUNCTION public.clock() RETURNS timestamptz LANGUAGE sql AS"
                " 'SELECT pg_catalog.clock_timestamp() + by FROM public.step'");
    testdb_exec("DO $$ DECLARE f oid; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE pronamespace ="
                " 'outbox'::regnamespace AND prosrc LIKE '%clock_timestamp()%' LOOP EXECUTE"
                " replace(pg_get_functiondef(f), 'clock_timestamp()', 'public.clock()');"
                " END LOOP; END $$");
}

START_TEST(clock_set_back_forgets_the_times_that_were_known)
{
    struct desk *d = desk_open(SLOTS(10));
    clock_make();
    desk_look(d);
    note_xid(d);
    tick(d);
    int64_t known_from = d->stream.due_from_us;
    ck_assert_int_ne(known_from, INT64_MIN);
    testdb_exec("UPDATE public.step SET by = '-1 hour'");
    PGconn *producer = testdb_connect();
    int64_t id = put_soon(producer);
    PQfinish(producer);
    desk_look_later(d);
    ck_assert_int_eq(d->stream.due_from_us, INT64_MIN);
    ck_assert(!desk_has(d, id));
    if (IS_OFF) {
        d->stream.due_from_us = known_from;
        d->stream.due_again_us = INT64_MAX;
    }
    desk_expect(d, id, 1, IS_OFF);
    desk_close(d);
}
END_TEST

/* Nobody notifies again: the look that sees it is followed by another one. */
START_TEST(clock_set_back_is_looked_into_at_once)
{
    struct desk *d = desk_open(SLOTS(10));
    clock_make();
    desk_look(d);
    note_xid(d);
    tick(d);
    testdb_exec("UPDATE public.step SET by = '-1 hour'");
    PGconn *producer = testdb_connect();
    int64_t id = put_soon(producer);
    PQfinish(producer);
    desk_look_later(d);
    while (desk_is_restless(d))
        desk_look_later(d);
    ck_assert(desk_has(d, id));
    desk_close(d);
}
END_TEST

/* What was known of a pending transaction was known by the old clock, too. */
START_TEST(clock_set_back_holds_for_pending_transactions)
{
    struct desk *d = desk_open(SLOTS(10));
    clock_make();
    desk_look(d);
    note_xid(d);
    tick(d);
    ck_assert_int_ne(d->stream.due_from_us, INT64_MIN);
    PGconn *producer = begin();
    (void)xid_of(producer);
    testdb_exec("SELECT pg_current_xact_id()");
    tick_until(d, d->stream.pending_count == 1);
    testdb_exec("UPDATE public.step SET by = '-1 hour'");
    desk_look_later(d);
    ck_assert_int_eq(d->stream.due_from_us, INT64_MIN);
    int64_t id = put_soon(producer);
    int64_t run_at = number_from(
        producer, "SELECT (1000000 * extract(epoch FROM run_at))::bigint FROM outbox.job");
    look_until(d, d->stream.now_us > run_at);
    note_xid(d);
    look_until(d, d->stream.due_from_us > run_at);
    commit(producer);
    desk_look(d);
    desk_expect(d, id, 1, false);
    desk_close(d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("rules_lists");
    TCase *tc = rules_case(suite, "revisit");
    tcase_add_loop_test(tc, row_whose_holder_rolls_back_is_revisited, 0, 2 * HOLDERS_COUNT);
    tcase_add_loop_test(tc, row_of_a_backlog_whose_holder_rolls_back_is_revisited, 0, 2);
    tcase_add_loop_test(tc, row_that_was_updated_before_it_was_locked_is_revisited, 0, 2);
    tcase_add_loop_test(tc, row_that_is_gone_is_not_revisited_for_ever, 2, HOLDERS_COUNT);
    tcase_add_test(tc, long_revisit_list_is_asked_for_in_turn);
    tcase_add_loop_test(tc, revisited_row_without_a_slot_opens_its_lane, 0, 2);
    tcase_add_test(tc, held_row_does_not_keep_its_slot_from_others);
    tcase_add_test(tc, held_row_that_is_read_again_does_not_keep_its_slot_either);
    tcase_add_test(tc, revisited_row_that_its_lane_walks_too_is_kept);
    tc = rules_case(suite, "backlogs");
    tcase_add_loop_test(tc, lane_is_rewound_by_a_late_commit, 0, 2);
    tcase_add_loop_test(tc, lane_is_not_exhausted_before_what_the_stream_left_to_it, 0, 2);
    tcase_add_loop_test(tc, task_added_by_a_reload_is_read_from_the_beginning, 0, 2);
    tc = rules_case(suite, "scheduled");
    tcase_add_loop_test(tc, scheduled_job_that_is_committed_late_is_found, 0, 2);
    tcase_add_test(tc, scheduled_job_of_a_transaction_passed_together_with_a_later_time_is_found);
    tcase_add_test(tc, scheduled_job_whose_producer_waited_for_the_table_is_found);
    tc = rules_case(suite, "clock");
    tcase_add_loop_test(tc, clock_set_back_forgets_the_times_that_were_known, 0, 2);
    tcase_add_test(tc, clock_set_back_is_looked_into_at_once);
    tcase_add_test(tc, clock_set_back_holds_for_pending_transactions);
    return suite;
}
