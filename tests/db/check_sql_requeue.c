/* outbox.requeue: which run is meant, whom it is told, and what becomes of the request. */
#include "check_sql.h"

/* n jobs of task a, claimed by dispatcher 1 with claim = id. */
static PGconn *claimed(const char *n)
{
    char sql[128];
    PGconn *conn = testdb_connect();
    register_one(conn);
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('a') FROM generate_series(1, %s)", n);
    pg_exec_ok(conn, sql);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{%s}')", n);
    ck_rows(conn, sql, n);
    return conn;
}

static const char orders[] = "SELECT requeued, requeued_claims FROM outbox.orders(1)";

START_TEST(a_run_is_told_to_its_dispatcher_alone_and_nothing_else_happens)
{
    PGconn *conn = claimed("3");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    ck_rows(conn, "SELECT outbox.requeue(1), outbox.requeue(3)", "requeueing|requeueing");
    ck_rows(conn, orders, "{1,3}|{1,3}");
    ck_rows(conn, "SELECT requeued, requeued_claims, cancelled FROM outbox.orders(2)", "{}|{}|{}");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs WHERE state = 'running'", "3");
    PQfinish(conn);
}
END_TEST

START_TEST(each_state_has_its_answer)
{
    PGconn *conn = claimed("3");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b'); SELECT outbox.enqueue('b', delay => '1 hour')");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"dead\","
            " \"reason\": \"x\"}]')",
            "1|done");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelling");
    ck_rows(conn, "SELECT i, outbox.requeue(i) FROM generate_series(1, 6) AS i ORDER BY i",
            "1|dead;2|cancelling;3|requeueing;4|not running;5|not running;6|not found");
    ck_rows(conn, orders, "{3}|{3}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_run_that_is_given_back_is_ready_and_uncounted)
{
    PGconn *conn = claimed("1");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT state, attempts, lost FROM outbox.jobs", "ready|0|0");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    PQfinish(conn);
}
END_TEST

/* The jobs' next run is none of the request's, whoever makes it. */
START_TEST(a_later_run_is_not_meant)
{
    PGconn *conn = claimed("1");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{1}')", "1");
    ck_rows(conn, orders, "{}|{}");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, orders, "{1}|{2}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_repeating_job_that_succeeded_first_is_not_ended_the_next_time)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', repeat_every => '1 ms')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    pg_exec_ok(conn, "SELECT pg_sleep(0.01); SELECT outbox.due()");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{1}')", "1");
    ck_rows(conn, orders, "{}|{}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_request_follows_the_run_to_the_dispatchers_next_id)
{
    PGconn *conn = claimed("2");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn,
            "SELECT answer FROM outbox.register(3, 'one', 'host', 'boot', 'lock', 42, '{}',"
            " '0.1.0', '{a,b}', '1 minute', 1)",
            "registered");
    ck_rows(conn, "SELECT * FROM outbox.adopt(3, 1, '{1,2}', '{1,2}', 7)", "1|7;2|8");
    ck_rows(conn, orders, "{}|{}");
    ck_rows(conn, "SELECT requeued, requeued_claims FROM outbox.orders(3)", "{1}|{7}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_request_for_an_older_run_does_not_follow_the_newer_one)
{
    PGconn *conn = claimed("1");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{1}')", "1");
    ck_rows(conn,
            "SELECT answer FROM outbox.register(3, 'one', 'host', 'boot', 'lock', 42, '{}',"
            " '0.1.0', '{a,b}', '1 minute', 1)",
            "registered");
    ck_rows(conn, "SELECT * FROM outbox.adopt(3, 1, '{1}', '{2}', 7)", "1|7");
    ck_rows(conn, "SELECT requeued FROM outbox.orders(3)", "{}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_lost_dispatchers_job_is_ready_by_the_take_over)
{
    PGconn *conn = claimed("1");
    pg_exec_ok(conn, "UPDATE outbox.dispatcher SET beat_at = now() - interval '2 minutes'");
    ck_rows(conn, "SELECT outbox.requeue(1)", "silent");
    ck_rows(conn, orders, "{1}|{1}"); /* for when it comes back */
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    ck_rows(conn, "SELECT state, lost FROM outbox.jobs", "ready|1");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    ck_rows(conn, "SELECT id FROM outbox.claim(2, 1, '{a}', '{1}')", "1"); /* the same number */
    ck_rows(conn, "SELECT requeued FROM outbox.orders(2)", "{}");
    PQfinish(conn);
}
END_TEST

START_TEST(cancelling_counts_for_more)
{
    PGconn *conn = claimed("1");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|cancelled");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(only_a_committed_request_counts)
{
    PGconn *conn = claimed("1");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, orders, "{}|{}");
    PQfinish(conn);
}
END_TEST

/* Nor does a request that is not committed yet hold up the end of the claim. */
START_TEST(asking_waits_for_nobody_and_holds_up_nobody)
{
    PGconn *conn = claimed("1");
    PGconn *settler = testdb_connect();
    pg_exec_ok(settler, "BEGIN; SELECT * FROM outbox.job WHERE id = 1 FOR UPDATE");
    pg_exec_ok(conn, "SET statement_timeout = '5s'; BEGIN");
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    pg_exec_ok(settler, "COMMIT; SET statement_timeout = '5s'");
    ck_rows(settler, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(conn, orders, "{}|{}");
    PQfinish(settler);
    PQfinish(conn);
}
END_TEST

static size_t notified(PGconn *conn)
{
    size_t n = 0;
    pg_exec_ok(conn, "SELECT 1");
    for (PGnotify *note = PQnotifies(conn); note != NULL; note = PQnotifies(conn)) {
        ck_assert_str_eq(note->extra, "control");
        PQfreemem(note);
        n++;
    }
    return n;
}

START_TEST(dispatchers_are_told_once)
{
    PGconn *conn = claimed("2");
    pg_exec_ok(conn, "LISTEN outbox");
    ck_rows(conn, "SELECT outbox.requeue(i) FROM generate_series(1, 2) AS i",
            "requeueing;requeueing");
    ck_assert_uint_eq(notified(conn), 1);
    ck_rows(conn, "SELECT outbox.requeue(1)", "requeueing");
    ck_assert_uint_eq(notified(conn), 0);
    PQfinish(conn);
}
END_TEST

START_TEST(requests_are_forgotten_when_their_run_is_over)
{
    PGconn *conn = claimed("2");
    ck_rows(conn, "SELECT outbox.requeue(1), outbox.requeue(2)", "requeueing|requeueing");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, orders, "{2}|{2}");
    ck_rows(conn, "SELECT count(*) FROM outbox.requeueing", "2");
    pg_exec_ok(conn, "UPDATE outbox.requeueing SET requested_at = now() - interval '2 minutes'");
    ck_rows(conn, orders, "{2}|{2}");
    ck_rows(conn, "SELECT id FROM outbox.requeueing", "2");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_requeue");
    TCase *tc = sql_case(suite, "requeue");
    tcase_add_test(tc, a_run_is_told_to_its_dispatcher_alone_and_nothing_else_happens);
    tcase_add_test(tc, each_state_has_its_answer);
    tcase_add_test(tc, a_run_that_is_given_back_is_ready_and_uncounted);
    tcase_add_test(tc, a_later_run_is_not_meant);
    tcase_add_test(tc, a_repeating_job_that_succeeded_first_is_not_ended_the_next_time);
    tcase_add_test(tc, a_request_follows_the_run_to_the_dispatchers_next_id);
    tcase_add_test(tc, a_request_for_an_older_run_does_not_follow_the_newer_one);
    tcase_add_test(tc, a_lost_dispatchers_job_is_ready_by_the_take_over);
    tcase_add_test(tc, cancelling_counts_for_more);
    tcase_add_test(tc, only_a_committed_request_counts);
    tcase_add_test(tc, asking_waits_for_nobody_and_holds_up_nobody);
    tcase_add_test(tc, dispatchers_are_told_once);
    tcase_add_test(tc, requests_are_forgotten_when_their_run_is_over);
    return suite;
}
