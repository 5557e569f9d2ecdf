/* The look's helpers: outbox.sweep, restamp, still_writing, make_due, pick. */
#include "look.h"

static PGconn *conn;
static PGconn *other;

static void begin(void)
{
    testdb_create();
    conn = testdb_connect();
    other = testdb_connect();
    register_one(conn);
}

static void end(void)
{
    PQfinish(other);
    PQfinish(conn);
    testdb_drop();
}

/* ---- sweep ---- */

/* done, rows as lane:id, the position's id. From transaction 0 to far away unless said otherwise;
 * for tasks a and b. */
static const char *sweep(const char *from, const char *to, int batch)
{
    char sql[1000];
    (void)snprintf(sql, sizeof sql,
                   "SELECT s -> 'done', (SELECT string_agg((b ->> 0) || ':' || (b ->> 2), ' ')"
                   " FROM jsonb_array_elements(s -> 'blocked') AS b), s ->> 'position_id'"
                   " FROM outbox.sweep('{a,b}', %s, %s, %d) AS s",
                   from, to, batch);
    return rows_of(conn, sql);
}

#define START "'0', 0"
#define FAR   "'9999999', 7"

START_TEST(sweep_finds_the_first_row_of_each_lane_that_nobody_owns)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue(t) FROM unnest('{a,c,a,a,b,b}'::text[]) AS t");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', priority => 1), outbox.enqueue('a')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', delay => '1 hour', priority => 4)");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{2}')", "2"); /* 7 and 1 */
    ck_assert_str_eq(sweep(START, FAR, 1000), "true|5:3 9:5|7");
    ck_rows(conn, "SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL", "2"); /* as before */
}
END_TEST

START_TEST(nothing_left_is_nothing_found)
{
    ck_assert_str_eq(sweep(START, FAR, 1000), "true|-|7");
    pg_exec_ok(conn, "SELECT outbox.enqueue('c')");
    ck_assert_str_eq(sweep(START, FAR, 1000), "true|-|7");
}
END_TEST

START_TEST(sweep_keeps_to_its_stretch)
{
    char from[64];
    char to[64];
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b') FROM generate_series(1, 3)");
    (void)snprintf(from, sizeof from, "'%s', 1",
                   rows_of(conn, "SELECT ready_xid FROM outbox.job WHERE id = 1"));
    (void)snprintf(to, sizeof to, "'%s', 4",
                   rows_of(conn, "SELECT ready_xid FROM outbox.job WHERE id = 4"));
    ck_assert_str_eq(sweep(from, to, 1000), "true|5:2 9:4|4"); /* above the first, to the last */
    ck_assert_str_eq(sweep(from, from, 1000), "true|-|1");
    ck_assert_str_eq(sweep(to, from, 1000), "true|-|1");
}
END_TEST

START_TEST(sweep_goes_on_batch_by_batch)
{
    char from[64];
    pg_exec_ok(conn, "SELECT outbox.enqueue(t) FROM unnest('{c,a,c,a,b,a}'::text[]) AS t");
    const char *xid = rows_of(conn, "SELECT ready_xid FROM outbox.job WHERE id = 1");
    (void)snprintf(from, sizeof from, "'%s', 4", xid);
    ck_assert_str_eq(sweep(START, FAR, 4), "false|5:2|4");
    ck_assert_str_eq(sweep(from, FAR, 2), "false|5:6 9:5|6");
    ck_assert_str_eq(sweep(from, FAR, 3), "true|5:6 9:5|7");
}
END_TEST

/* ---- restamp ---- */

#define FUTURE "1000000000000"

START_TEST(rows_from_the_future_get_a_transaction_of_today)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 4)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 hour')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    pg_exec_ok(conn, "CREATE TABLE before AS SELECT id, ready_xid FROM outbox.job");
    ck_rows(conn, "SELECT outbox.restamp()", "0");
    pg_exec_ok(conn, "UPDATE outbox.job SET ready_xid = '" FUTURE "' WHERE id <= 3");
    ck_rows(conn, "SELECT outbox.restamp()", "3");
    ck_rows(conn,
            "SELECT count(DISTINCT j.ready_xid), bool_and(j.ready_xid > b.ready_xid),"
            " bool_and(j.ready_xid < pg_snapshot_xmax(pg_current_snapshot()))"
            " FROM outbox.job j JOIN before b USING (id) WHERE id <= 3",
            "1|t|t");
    ck_rows(conn,
            "SELECT id, j.ready_xid = b.ready_xid FROM outbox.job j JOIN before b USING (id)"
            " WHERE id > 3 ORDER BY id",
            "4|t;5|-");
    ck_rows(conn, "SELECT outbox.restamp()", "0");
}
END_TEST

/* Owned ones keep their owner and claim; and who loses it is still found by it. */
START_TEST(owned_rows_are_restamped_and_stay_within_their_owners_bounds)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 7, '{a}', '{2}')", "1;2");
    pg_exec_ok(conn, "UPDATE outbox.job SET ready_xid = '" FUTURE "'");
    pg_exec_ok(conn, "UPDATE outbox.dispatcher SET oldest_claim = '3', newest_claim = '4'");
    ck_rows(conn, "SELECT outbox.restamp()", "2");
    ck_rows(conn, "SELECT id, owner, claim FROM outbox.job ORDER BY id", "1|1|7;2|1|8");
    ck_rows(conn, "SELECT outbox.unregister(1)", "f");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{7}')", "1|done");
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "1");
}
END_TEST

START_TEST(row_that_somebody_locks_is_not_waited_for)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "UPDATE outbox.job SET ready_xid = '" FUTURE "'");
    pg_exec_ok(other, "BEGIN; SELECT FROM outbox.job WHERE id = 1 FOR UPDATE");
    pg_exec_ok(conn, "SET lock_timeout = '1s'");
    ck_rows(conn, "SELECT outbox.restamp()", "1");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, "SELECT outbox.restamp()", "1");
}
END_TEST

/* ---- still_writing ---- */

static const char *still(uint64_t xid)
{
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.still_writing('{%" PRIu64 ",3}') = '{%" PRIu64 "}'", xid, xid);
    return rows_of(conn, sql);
}

START_TEST(writers_transaction_is_still_writing_until_it_ends)
{
    uint64_t xid = begin_writing(other);
    ck_assert_str_eq(still(xid), "f");
    pg_exec_ok(other, "SELECT outbox.enqueue('a')");
    ck_assert_str_eq(still(xid), "t");
    pg_exec_ok(other, "SAVEPOINT s; SELECT outbox.enqueue('a'); ROLLBACK TO s");
    ck_assert_str_eq(still(xid), "t");
    pg_exec_ok(other, "COMMIT");
    ck_assert_str_eq(still(xid), "f");
}
END_TEST

/* By its own id, whatever it wrote in. */
START_TEST(savepoints_are_their_transactions)
{
    uint64_t xid = begin_writing(other);
    pg_exec_ok(other, "SAVEPOINT s; SELECT outbox.enqueue('a')");
    ck_assert_str_eq(still(xid), "t");
    pg_exec_ok(other, "COMMIT");
}
END_TEST

START_TEST(readers_transaction_is_not_writing)
{
    uint64_t xid = begin_writing(other);
    pg_exec_ok(other, "CREATE TABLE elsewhere (n int); INSERT INTO elsewhere VALUES (1)");
    pg_exec_ok(other, "SELECT count(*) FROM outbox.job");
    pg_exec_ok(other, "SELECT * FROM outbox.jobs");
    ck_assert_str_eq(still(xid), "f");
    pg_exec_ok(other, "ROLLBACK");
}
END_TEST

START_TEST(prepared_transaction_is_still_writing)
{
    uint64_t xid = begin_writing(other);
    pg_exec_ok(other, "SELECT outbox.enqueue('a')");
    pg_exec_ok(other, "PREPARE TRANSACTION 'writer'");
    ck_assert_str_eq(still(xid), "t");
    uint64_t reader = begin_writing(other);
    pg_exec_ok(other, "SELECT count(*) FROM outbox.job");
    pg_exec_ok(other, "PREPARE TRANSACTION 'reader'");
    ck_assert_str_eq(still(reader), "f");
    pg_exec_ok(other, "COMMIT PREPARED 'writer'");
    pg_exec_ok(other, "ROLLBACK PREPARED 'reader'");
    ck_assert_str_eq(still(xid), "f");
}
END_TEST

/* The same table of another database is another table: oids are alike in copies of a template. */
START_TEST(writers_of_another_database_are_not_counted)
{
    PGconn *here_ = conn;
    testdb_create();
    PGconn *there = testdb_connect();
    uint64_t xid = begin_writing(there);
    pg_exec_ok(there, "SELECT outbox.enqueue('a')");
    ck_assert_str_eq(still(xid), "f");
    conn = there;
    ck_assert_str_eq(still(xid), "t");
    conn = here_;
    pg_exec_ok(there, "COMMIT");
    PQfinish(there);
}
END_TEST

START_TEST(nobody_asked_for_is_nobody_told)
{
    (void)begin_writing(other);
    pg_exec_ok(other, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT outbox.still_writing('{}'), outbox.still_writing('{3,4}')", "{}|{}");
    pg_exec_ok(other, "COMMIT");
}
END_TEST

/* ---- make_due ---- */

START_TEST(due_jobs_are_made_ready_from_a_time_on)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 4)");
    pg_exec_ok(conn,
               "UPDATE outbox.job SET run_at = '2020-01-01Z'::timestamptz + id * interval '1 day'");
    ck_rows(conn, "SELECT * FROM outbox.make_due('2020-01-03Z', 2)", "2|2020-01-05 00:00:00+00");
    ck_rows(conn, "SELECT id FROM outbox.job WHERE ready_xid IS NOT NULL ORDER BY id", "2;3");
    ck_rows(conn, "SELECT * FROM outbox.make_due('2020-01-03Z', 2)", "1|-");
    ck_rows(conn, "SELECT * FROM outbox.make_due('2020-01-03Z', 2)", "0|-");
    ck_rows(conn, "SELECT * FROM outbox.make_due('-infinity', 0)", "0|2020-01-02 00:00:00+00");
    ck_rows(conn, "SELECT * FROM outbox.make_due('-infinity', 9)", "1|-");
}
END_TEST

START_TEST(nothing_due_writes_nothing)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', run_at => '2100-01-01Z')");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT * FROM outbox.make_due('-infinity', 9)", "0|2100-01-01 00:00:00+00");
    ck_rows(conn, "SELECT pg_current_xact_id_if_assigned()", "-");
    pg_exec_ok(conn, "COMMIT");
}
END_TEST

START_TEST(due_row_that_is_locked_is_left_and_told)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 2)");
    pg_exec_ok(conn,
               "UPDATE outbox.job SET run_at = '2020-01-01Z'::timestamptz + id * interval '1 day'");
    pg_exec_ok(other, "BEGIN; SELECT FROM outbox.job WHERE id = 1 FOR UPDATE");
    ck_rows(conn, "SELECT * FROM outbox.make_due('-infinity', 9)", "1|2020-01-02 00:00:00+00");
    ck_rows(conn, "SELECT * FROM outbox.make_due('-infinity', 9)", "0|2020-01-02 00:00:00+00");
    pg_exec_ok(other, "COMMIT");
}
END_TEST

/* ---- pick ---- */

/* Places chosen, and the rest, of tasks 1 and 2; each row is id, task, priority, xid. */
static const char *pick(const char *rows, const char *slots, const char *shares, int shared)
{
    char sql[1000];
    (void)snprintf(sql, sizeof sql,
                   "SELECT p.* FROM (SELECT array_agg(i ORDER BY n) AS ids, array_agg(t ORDER BY n)"
                   " AS tasks, array_agg(p::smallint ORDER BY n) AS priorities,"
                   " array_agg(x::text::xid8 ORDER BY n) AS xids FROM (VALUES %s)"
                   " AS v(n, i, t, p, x)) AS r, outbox.pick(r.ids, r.tasks, r.priorities, r.xids,"
                   " '%s', '%s', %d) AS p",
                   rows, slots, shares, shared);
    return rows_of(conn, sql);
}

START_TEST(picked_are_the_best_by_priority_then_age)
{
    static const char rows[] =
        "(1,50,1,2,10), (2,51,1,1,20), (3,52,1,1,20), (4,49,1,2,10), (5,40,1,2,30)";
    ck_assert_str_eq(pick(rows, "{9}", "{f}", 0), "{2,3,4,1,5}|-");
    ck_assert_str_eq(pick(rows, "{3}", "{f}", 0), "{2,3,4}|{1,5}");
    ck_assert_str_eq(pick(rows, "{0}", "{f}", 9), "-|{2,3,4,1,5}");
}
END_TEST

START_TEST(picked_are_limited_by_task_and_by_what_is_shared)
{
    static const char rows[] =
        "(1,11,1,2,10), (2,12,2,2,10), (3,13,1,2,10), (4,14,2,2,10), (5,15,1,2,10)";
    ck_assert_str_eq(pick(rows, "{2,1}", "{f,f}", 0), "{1,2,3}|{4,5}");
    ck_assert_str_eq(pick(rows, "{9,9}", "{t,t}", 3), "{1,2,3}|{4,5}");
    ck_assert_str_eq(pick(rows, "{9,9}", "{t,f}", 1), "{1,2,4}|{3,5}");
    ck_assert_str_eq(pick(rows, "{1,9}", "{t,t}", 3),
                     "{1,2,4}|{3,5}"); /* 3 has no slot of its own */
}
END_TEST

START_TEST(row_that_is_there_twice_is_taken_once)
{
    static const char rows[] = "(1,11,1,2,10), (2,12,1,2,10), (3,11,1,2,10), (4,12,1,2,10)";
    ck_assert_str_eq(pick(rows, "{9}", "{f}", 0), "{3,4}|-");
    ck_assert_str_eq(pick(rows, "{1}", "{t}", 1), "{3}|{4}"); /* at its last place */
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, begin, end);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    static const char *const settings[] = {"max_prepared_transactions=4", NULL};
    pgcluster_set_options(settings);
    Suite *s = suite_create("sql_sweep");
    TCase *tc = add_case(s, "sweep");
    tcase_add_test(tc, sweep_finds_the_first_row_of_each_lane_that_nobody_owns);
    tcase_add_test(tc, nothing_left_is_nothing_found);
    tcase_add_test(tc, sweep_keeps_to_its_stretch);
    tcase_add_test(tc, sweep_goes_on_batch_by_batch);
    tc = add_case(s, "restamp");
    tcase_add_test(tc, rows_from_the_future_get_a_transaction_of_today);
    tcase_add_test(tc, owned_rows_are_restamped_and_stay_within_their_owners_bounds);
    tcase_add_test(tc, row_that_somebody_locks_is_not_waited_for);
    tc = add_case(s, "still_writing");
    tcase_add_test(tc, writers_transaction_is_still_writing_until_it_ends);
    tcase_add_test(tc, savepoints_are_their_transactions);
    tcase_add_test(tc, readers_transaction_is_not_writing);
    tcase_add_test(tc, prepared_transaction_is_still_writing);
    tcase_add_test(tc, writers_of_another_database_are_not_counted);
    tcase_add_test(tc, nobody_asked_for_is_nobody_told);
    tc = add_case(s, "make_due");
    tcase_add_test(tc, due_jobs_are_made_ready_from_a_time_on);
    tcase_add_test(tc, nothing_due_writes_nothing);
    tcase_add_test(tc, due_row_that_is_locked_is_left_and_told);
    tc = add_case(s, "pick");
    tcase_add_test(tc, picked_are_the_best_by_priority_then_age);
    tcase_add_test(tc, picked_are_limited_by_task_and_by_what_is_shared);
    tcase_add_test(tc, row_that_is_there_twice_is_taken_once);
    return s;
}
