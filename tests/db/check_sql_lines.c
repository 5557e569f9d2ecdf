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

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_lines");
    TCase *tc = sql_case(suite, "lines");
    tcase_add_loop_test(tc, who_comes_behind_a_blocking_dead_job_waits, 0, 3);
    tcase_add_test(tc, who_comes_behind_another_dead_job_is_ready);
    tcase_add_loop_test(tc, an_array_of_unique_jobs_joins_the_end_of_a_line, 0, 3);
    tcase_add_loop_test(tc, who_opens_a_line_wakes, 0, 2);
    tcase_add_loop_test(tc, jobs_with_a_key_do_not_fall_due_at_other_isolation_levels, 0, 2);
    return suite;
}
