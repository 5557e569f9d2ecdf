/* Lines of a key beside other things: a dead job that blocks one, unique keys, the isolation level.
 */
#include "keys_fixture.h"

/* Nobody waits behind it yet: whoever comes still does. */
START_TEST(who_comes_behind_a_blocking_dead_job_waits)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    CLAIMED(conn, "2");
    BECAME(conn, 2, DEAD_BLOCKS);
    if (_i == 0) {
        pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    } else if (_i == 1) {
        pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')");
        ck_rows(conn, "SELECT outbox.retry(3)", "retried");
    } else {
        ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    }
    ck_rows(conn,
            "SELECT count(*), bool_and(state = 'waiting') FROM outbox.jobs WHERE id <> 2 AND "
            "state <> 'dead'",
            "1|t");
    CLAIMED(conn, "");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    CLAIMED(conn, _i == 2 ? "1" : "3");
    PQfinish(conn);
}
END_TEST

/* One that does not block is in nobody's way. */
START_TEST(who_comes_behind_another_dead_job_is_ready)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    STATES(conn, "1|dead;2|ready");
    PQfinish(conn);
}
END_TEST

#define ARRAY_OF_UNIQUE                                                                            \
    "SELECT count(*) FROM outbox.enqueue_many('[{\"task\": \"a\", \"key\": \"k\", \"unique_key\":" \
    " \"z\"}, {\"task\": \"a\", \"key\": \"k\", \"unique_key\": \"b\"}, {\"task\": \"a\", "        \
    "\"key\": \"k\"}]')"

START_TEST(an_array_of_unique_jobs_joins_the_end_of_a_line)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    if (_i > 0)
        CLAIMED(conn, "1");
    if (_i == 2)
        BECAME(conn, 1, DEAD_BLOCKS);
    ck_rows(conn, ARRAY_OF_UNIQUE, "3");
    CLAIMED(conn, _i > 0 ? "" : "1");
    if (_i == 2)
        ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    else
        DONE(conn, 1);
    ck_rows(conn, "SELECT id FROM outbox.job WHERE ready_xid IS NOT NULL", "2");
    CLAIMED(conn, "2");
    DONE(conn, 2);
    ck_rows(conn, "SELECT unique_key FROM outbox.job WHERE NOT waiting", "z");
    PQfinish(conn);
}
END_TEST

START_TEST(who_opens_a_line_wakes)
{
    PGconn *conn = with_dispatcher();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "LISTEN outbox; SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD_BLOCKS);
    pg_exec_ok(sleeper, "SELECT 1");
    for (PGnotify *n = PQnotifies(sleeper); n != NULL; n = PQnotifies(sleeper))
        PQfreemem(n);
    ck_rows(conn, _i == 0 ? "SELECT outbox.cancel(1)" : "SELECT outbox.purge_dead('0')",
            _i == 0 ? "cancelled" : "1");
    pg_exec_ok(sleeper, "SELECT 1");
    PGnotify *notify = PQnotifies(sleeper);
    ck_assert_ptr_nonnull(notify);
    PQfreemem(notify);
    STATES(conn, "2|ready");
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

/* What is due is told by the order in which others committed, too. */
START_TEST(jobs_with_a_key_do_not_fall_due_at_other_isolation_levels)
{
    static const char *const calls[] = {"SELECT outbox.due()", "SELECT outbox.can_take('a')"};
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 ms')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE run_at < "
                                     "clock_timestamp()") == 1,
                         WAIT_MS));
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_fails(conn, calls[_i], "0A000", "repeatable read");
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "scheduled");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL READ UNCOMMITTED"); /* the same as READ COMMITTED */
    pg_exec_ok(conn, calls[_i]);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(conn, "SELECT state FROM outbox.jobs ORDER BY id", "ready;waiting");
    PQfinish(conn);
}
END_TEST

/* By the time at which each was due, whatever its id is. */
START_TEST(jobs_that_fall_due_together_stand_in_the_order_of_their_times)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')"
                     " FROM generate_series(1, 3)");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = now() - id * interval '1 min'");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "3");
    STATES(conn, "1|waiting;2|waiting;3|ready");
    for (long id = 3; id >= 1; id--) {
        CLAIMED(conn, id == 3 ? "3" : id == 2 ? "2" : "1");
        DONE(conn, id);
    }
    PQfinish(conn);
}
END_TEST

START_TEST(a_dependent_with_a_key_keeps_its_time)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', key => 'k', after => '{1}', run_at => '2100-01-01Z')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', after => '{1}')");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    ck_rows(conn, "SELECT moved FROM outbox.due()", "1");
    STATES(conn, "2|scheduled;3|ready");
    ck_rows(conn, "SELECT run_at FROM outbox.job WHERE id = 2", "2100-01-01 00:00:00+00");
    PQfinish(conn);
}
END_TEST

/* Its ids are given before its jobs are put: the lock comes before both. */
START_TEST(an_array_of_unique_jobs_waits_for_who_holds_its_key)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    begin_sql(conn, ARRAY_OF_UNIQUE);
    await_blocked(conn);
    commit(producer);
    end_sql(conn);
    CLAIMED(conn, "1");
    DONE(conn, 1);
    ck_rows(conn, "SELECT unique_key FROM outbox.job WHERE NOT waiting", "z");
    PQfinish(conn);
}
END_TEST

/* A job that gives way to its twin hands its key over, under the key's lock: by who waits, and by
 * who does not. */
START_TEST(a_job_is_merged_when_nobody_holds_its_key)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = begin();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', unique_key => 'u')");
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => 'u')");
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    if (_i == 0) {
        begin_sql(conn, settle_sql(1, RETRY, false));
        await_blocked(conn);
        commit(producer);
        end_sql(conn);
    } else if (_i == 1) {
        ck_rows(conn, settle_sql(1, RETRY, true), "1|busy");
        commit(producer);
        ck_rows(conn, settle_sql(1, RETRY, true), "1|done");
    } else {
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1"); /* left for later */
        STATES(conn, "1|running;2|ready");
        commit(producer);
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    }
    STATES(conn, "2|ready;3|ready");
    PQfinish(conn);
}
END_TEST

/* Or they deadlock: producers lock the rows of those that they depend on after the key. */
START_TEST(who_changes_a_job_locks_its_key_before_its_row)
{
    static const char *const calls[] = {"SELECT outbox.cancel(1)", "SELECT outbox.retry(1)",
                                        "SELECT outbox.take_failed(1, 'x')"};
    PGconn *conn = testdb_connect();
    PGconn *producer = begin();
    pg_exec_ok(conn, _i == 1 ? "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')"
                             : "SELECT outbox.enqueue('a', key => 'k', max_attempts => 1)");
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    begin_sql(conn, calls[_i]);
    await_blocked(conn);
    pg_exec_ok(producer, "SELECT outbox.enqueue('b', after => '{1}')");
    commit(producer);
    end_sql(conn);
    ck_rows(conn, "SELECT id, state FROM outbox.jobs ORDER BY id",
            _i == 0   ? "2|ready;3|dead"
            : _i == 1 ? "1|waiting;2|ready;3|waiting"
                      : "1|dead;2|ready;3|dead");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_lines");
    TCase *tc = sql_case(suite, "lines");
    tcase_add_loop_test(tc, who_comes_behind_a_blocking_dead_job_waits, 0, 3);
    tcase_add_test(tc, who_comes_behind_another_dead_job_is_ready);
    tcase_add_loop_test(tc, an_array_of_unique_jobs_joins_the_end_of_a_line, 0, 3);
    tcase_add_loop_test(tc, who_opens_a_line_wakes, 0, 2);
    tcase_add_loop_test(tc, jobs_with_a_key_do_not_fall_due_at_other_isolation_levels, 0, 2);
    tcase_add_test(tc, jobs_that_fall_due_together_stand_in_the_order_of_their_times);
    tcase_add_test(tc, a_dependent_with_a_key_keeps_its_time);
    tcase_add_test(tc, an_array_of_unique_jobs_waits_for_who_holds_its_key);
    tcase_add_loop_test(tc, a_job_is_merged_when_nobody_holds_its_key, 0, 3);
    tcase_add_loop_test(tc, who_changes_a_job_locks_its_key_before_its_row, 0, 3);
    return suite;
}
