/* Limits of how many jobs of a task may be ready: refused exactly, by whomever they are put, and
 * nothing for tasks without one. */
#include "keys_fixture.h"

START_TEST(jobs_beyond_the_limit_are_refused)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.set_task('a', 3)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    pg_exec_fails(conn, "SELECT outbox.enqueue('a')", "53400",
                  "task a has its limit of 3 ready jobs");
    pg_exec_fails(conn, "SELECT outbox.enqueue_many('[{\"task\": \"b\"}, {\"task\": \"a\"}]')",
                  "53400", "task a");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')"); /* not ready */
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    CLAIMED(conn, "1,2,3,8"); /* 4 to 6 were refused */
    pg_exec_ok(conn, "SELECT outbox.enqueue_many('[{\"task\": \"a\"}, {\"task\": \"a\"}]')");
    pg_exec_fails(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)", "53400", "task a");
    pg_exec_ok(conn, "SELECT outbox.set_task('a', 4); SELECT outbox.enqueue('a') FROM "
                     "generate_series(1, 2)");
    pg_exec_ok(conn, "SELECT outbox.set_task('a', NULL)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 9)");
    pg_exec_fails(conn, "SELECT outbox.set_task('a', 0)", "22023", "max_ready is 0");
    pg_exec_fails(conn, "SELECT outbox.set_task('a b', 1)", "22023", "not a task name");
    PQfinish(conn);
}
END_TEST

START_TEST(the_limit_holds_for_those_at_once)
{
    PGconn *first = begin();
    PGconn *second = testdb_connect();
    testdb_exec("SELECT outbox.set_task('a', 1)");
    sql_rule(IS_OFF, "check_ready", "PERFORM pg_advisory_xact_lock(1869968492, hashtext(s.task))",
             "PERFORM 1");
    pg_exec_ok(first, "SELECT outbox.enqueue('a')");
    begin_sql(second, "SELECT outbox.enqueue('a')");
    ck_assert_int_eq(ended_or_blocked(second), IS_OFF);
    commit(first);
    PGresult *res = PQgetResult(second);
    ck_assert_int_eq(PQresultStatus(res), IS_OFF ? PGRES_TUPLES_OK : PGRES_FATAL_ERROR);
    PQclear(res);
    PQfinish(second);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), IS_OFF ? 2 : 1);
}
END_TEST

START_TEST(only_tasks_with_a_limit_care_for_the_isolation_level)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.set_task('a', 9)");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    pg_exec_fails(conn, "SELECT outbox.enqueue('a')", "0A000", "task a, which has a limit");
    pg_exec_ok(conn, "ROLLBACK");
    PQfinish(conn);
}
END_TEST

/* Whichever of several tasks it is. */
START_TEST(the_limit_of_each_task_in_an_array_counts)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.set_task(t, 1) FROM unnest('{a,b,c}'::text[]) AS t");
    pg_exec_ok(conn, _i == 0   ? "SELECT outbox.enqueue('a')"
                     : _i == 1 ? "SELECT outbox.enqueue('b')"
                               : "SELECT outbox.enqueue('c')");
    pg_exec_fails(conn,
                  "SELECT outbox.enqueue_many('[{\"task\": \"a\"}, {\"task\": \"b\"}, "
                  "{\"task\": \"c\"}]')",
                  "53400",
                  _i == 0   ? "task a"
                  : _i == 1 ? "task b"
                            : "task c");
    PQfinish(conn);
}
END_TEST

/* What is not ready is not counted, not refused, and waits for nobody. */
START_TEST(jobs_for_later_are_beside_the_limit)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    pg_exec_ok(conn, "SELECT outbox.set_task('a', 1)"); /* there are more already */
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')");
    pg_exec_ok(conn, "COMMIT");
    pg_exec_fails(conn, "SELECT outbox.enqueue('a')", "53400", "task a");
    pg_exec_ok(conn, "SELECT outbox.set_task('a', 9)");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL READ UNCOMMITTED"); /* the same as READ COMMITTED */
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_limit");
    TCase *tc = sql_case(suite, "max_ready");
    tcase_add_test(tc, jobs_beyond_the_limit_are_refused);
    tcase_add_loop_test(tc, the_limit_holds_for_those_at_once, 0, 2);
    tcase_add_test(tc, only_tasks_with_a_limit_care_for_the_isolation_level);
    tcase_add_loop_test(tc, the_limit_of_each_task_in_an_array_counts, 0, 3);
    tcase_add_test(tc, jobs_for_later_are_beside_the_limit);
    return suite;
}
