/* outbox.register, extend, unregister, take_over, terminate, level. */
#include "check_sql.h"

START_TEST(a_name_is_exclusive)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    ck_rows(conn,
            "SELECT * FROM outbox.register(7, 'web1', 'h1', 'b1', 'l1', 42, '{10,11}', '0.1.0', "
            "'{a,b}', '1 minute')",
            "registered|-|-|-|-|-|-|-|-");
    ck_rows(conn, "SELECT outbox.extend(7)", "t");
    ck_rows(
        other,
        "SELECT answer, other_id, other_host, other_boot_id, other_lock_id, other_pid, other_beat,"
        " other_since = (SELECT started_at FROM outbox.dispatchers), other_lease"
        " FROM outbox.register(8, 'web1', 'h2', 'b2', 'l2', 43, '{}', '0.1.0', '{a}', '30s')",
        "taken|7|h1|b1|l1|42|1|t|00:01:00");
    ck_rows(other, REGISTER("9", "web2"), "registered");
    ck_rows(conn,
            "SELECT id, name, host, pid, version, tasks, beat, lease, live, running, boot_id, "
            "lock_id, backends"
            " FROM outbox.dispatchers WHERE id < 9",
            "7|web1|h1|42|0.1.0|{a,b}|1|00:01:00|t|0|b1|l1|{10,11}");
    pg_exec_fails(conn, REGISTER("9", "web3"), "23505", NULL);
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

/* The loser waits for the winner's commit instead of not seeing it. */
START_TEST(two_registrations_at_once_have_one_winner)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, REGISTER("1", "one"), "registered");
    pg_exec_ok(other, "SET statement_timeout = '300ms'");
    pg_exec_fails(other, REGISTER("2", "one"), "57014", NULL);
    ck_rows(other, REGISTER("3", "three"), "registered");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(other, REGISTER("2", "one"), "taken");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(the_row_of_a_broken_connection_is_no_rival)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    ck_rows(
        conn,
        "SELECT answer FROM outbox.register(2, 'one', 'h', 'b', 'l', 1, '{}', '', '{a}', '1m', 3)",
        "taken");
    ck_rows(
        conn,
        "SELECT answer FROM outbox.register(2, 'one', 'h', 'b', 'l', 1, '{}', '', '{a}', '1m', 1)",
        "registered");
    ck_rows(conn, "SELECT id FROM outbox.dispatchers ORDER BY id", "1;2");
    PQfinish(conn);
}
END_TEST

START_TEST(an_incomplete_registration_is_refused)
{
    PGconn *conn = testdb_connect();
    pg_exec_fails(conn,
                  "SELECT * FROM outbox.register(1, NULL, 'h', 'b', 'l', 1, '{}', '', '{a}', '1m')",
                  "22023", "NULL");
    pg_exec_fails(
        conn, "SELECT * FROM outbox.register(1, 'n', 'h', 'b', 'l', 1, '{}', '', '{a}', '0.9s')",
        "22023", "below one second");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(the_heartbeat_counts_and_may_bring_news)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "UPDATE outbox.dispatcher SET beat_at = now() - interval '2 minutes'");
    ck_rows(conn, "SELECT live FROM outbox.dispatchers", "f");
    ck_rows(conn, "SELECT outbox.extend(1), outbox.extend(2)", "t|f");
    ck_rows(conn, "SELECT live, beat, tasks, backends FROM outbox.dispatchers", "t|1|{a,b}|{}");
    ck_rows(conn, "SELECT outbox.extend(1, '{c}', '{5,6}')", "t");
    ck_rows(conn, "SELECT outbox.extend(1, backends => '{7}')", "t");
    ck_rows(conn, "SELECT beat, tasks, backends FROM outbox.dispatchers", "3|{c}|{7}");
    PQfinish(conn);
}
END_TEST

START_TEST(who_still_owns_jobs_stays_registered)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')");
    ck_rows(conn, "SELECT running FROM outbox.dispatchers", "1");
    ck_rows(conn, "SELECT outbox.unregister(1), outbox.unregister(2)", "f|f");
    pg_exec_ok(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')");
    ck_rows(conn, "SELECT outbox.unregister(1)", "t");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_lost_dispatchers_jobs_are_ready_again)
{
    PGconn *conn = claimed_jobs("3");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    ck_rows(conn, "SELECT outbox.take_over(1, 0, 2)", "2");
    ck_rows(conn, "SELECT running FROM outbox.dispatchers", "1");
    ck_rows(conn, "SELECT outbox.take_over(1, 0, 2)", "1");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    ck_rows(conn, "SELECT outbox.take_over(1, 0, 2)", "-1");
    ck_rows(conn, "SELECT id, state, attempts, lost FROM outbox.jobs ORDER BY id",
            "1|ready|1|1;2|ready|1|1;3|ready|1|1;4|ready|0|0");
    ck_rows(
        conn, "SELECT job_id, attempt, outcome, reason, dispatcher FROM outbox.attempts",
        "1|1|lost|dispatcher lost|one;2|1|lost|dispatcher lost|one;3|1|lost|dispatcher lost|one");
    /* Its late result is void, and its heartbeat tells it. */
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|lost");
    ck_rows(conn, "SELECT outbox.extend(1)", "f");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    ck_rows(conn, "SELECT id, attempt, lost FROM outbox.claim(2, 1, '{a}', '{1}')", "1|2|1");
    PQfinish(conn);
}
END_TEST

START_TEST(a_dispatcher_that_beat_again_is_not_taken_over)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn, "SELECT outbox.extend(1)", "t");
    ck_rows(conn, "SELECT outbox.take_over(1, 0), outbox.take_over(9, 0)", "-1|-1");
    ck_rows(conn, "SELECT state, owner FROM outbox.jobs", "running|1");
    PQfinish(conn);
}
END_TEST

START_TEST(jobs_that_never_began_get_their_attempt_back)
{
    PGconn *conn = claimed_jobs("2");
    ck_rows(conn, "SELECT outbox.extend(1)", "t");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL, started => false)", "2");
    ck_rows(conn, "SELECT state, attempts, lost FROM outbox.jobs", "ready|0|0;ready|0|0");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_locked_job_is_taken_over_later)
{
    PGconn *conn = claimed_jobs("2");
    PGconn *other = testdb_connect();
    pg_exec_ok(other, "BEGIN; SELECT 1 FROM outbox.job WHERE id = 1 FOR UPDATE");
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "1");
    ck_rows(conn, "SELECT running FROM outbox.dispatchers", "1");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "1");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(a_dispatcher_without_jobs_is_just_removed)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(the_sessions_of_a_lost_dispatcher_are_ended)
{
    char sql[256];
    PGconn *conn = testdb_connect();
    PGconn *frozen = testdb_connect();
    PGconn *reused = testdb_connect(); /* a pid of the row that is somebody else's session now */
    pg_exec_ok(frozen, "SET application_name = 'outbox 7'");
    (void)snprintf(
        sql, sizeof sql,
        "SELECT answer FROM outbox.register(7, 'n', 'h', 'b', 'l', 1, '{%d,%d}', '', '{a}', '1m')",
        PQbackendPID(frozen), PQbackendPID(reused));
    ck_rows(conn, sql, "registered");
    /* In the middle of a transaction that holds a job's lock. */
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(frozen, "BEGIN; SELECT * FROM outbox.claim(7, 1, '{a}', '{1}')");
    ck_rows(conn, "SELECT outbox.terminate(7), outbox.terminate(8)", "1|0");
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d",
                   PQbackendPID(reused));
    ck_rows(conn, sql, "1");
    ck_rows(conn, "SELECT outbox.take_over(7, 0)", "0");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "ready");
    ck_rows(conn, "SELECT outbox.terminate(7)", "0");
    PQfinish(reused);
    PQfinish(frozen);
    PQfinish(conn);
}
END_TEST

START_TEST(the_level_is_the_newest_migrations)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT level = (SELECT max(version) FROM outbox.migration), min_level <= level FROM "
            "outbox.level()",
            "t|t");
    pg_exec_ok(conn, "INSERT INTO outbox.migration VALUES (8, '0008_x.sql', 'x', now(), 5)");
    ck_rows(conn, "SELECT * FROM outbox.level()", "8|5");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_dispatcher");
    TCase *tc = sql_case(suite, "register");
    tcase_add_test(tc, a_name_is_exclusive);
    tcase_add_test(tc, two_registrations_at_once_have_one_winner);
    tcase_add_test(tc, the_row_of_a_broken_connection_is_no_rival);
    tcase_add_test(tc, an_incomplete_registration_is_refused);
    tcase_add_test(tc, the_heartbeat_counts_and_may_bring_news);
    tcase_add_test(tc, who_still_owns_jobs_stays_registered);
    tcase_add_test(tc, the_level_is_the_newest_migrations);
    tc = sql_case(suite, "take over");
    tcase_add_test(tc, a_lost_dispatchers_jobs_are_ready_again);
    tcase_add_test(tc, a_dispatcher_that_beat_again_is_not_taken_over);
    tcase_add_test(tc, jobs_that_never_began_get_their_attempt_back);
    tcase_add_test(tc, a_locked_job_is_taken_over_later);
    tcase_add_test(tc, a_dispatcher_without_jobs_is_just_removed);
    tcase_add_test(tc, the_sessions_of_a_lost_dispatcher_are_ended);
    return suite;
}
