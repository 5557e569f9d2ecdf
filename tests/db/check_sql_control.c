/* outbox.cancel of running jobs, outbox.orders, outbox.pause and resume: what operators ask for,
 * and what a claim's end makes of it. */
#include "blocking.h"
#include "check_sql.h"

static void expect_nothing_left(PGconn *conn)
{
    ck_rows(conn,
            "SELECT (SELECT count(*) FROM outbox.jobs), (SELECT count(*) FROM outbox.attempts)",
            "0|0");
}

/* ---- cancel ---- */

START_TEST(a_running_job_is_reported_to_its_dispatcher_alone)
{
    PGconn *conn = claimed_jobs("2");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{1}");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(2)", "{}");
    ck_rows(conn, "SELECT id, state, cancelling FROM outbox.jobs ORDER BY id",
            "1|running|t;2|running|f");
    PQfinish(conn);
}
END_TEST

static const char *const ends[] = {
    "{\"outcome\": \"release\"}",
    "{\"outcome\": \"release\", \"delay_ms\": 5000}",
    "{\"outcome\": \"retry\", \"reason\": \"exit 1\", \"delay_ms\": 1000}",
    "{\"outcome\": \"dead\", \"reason\": \"exit 65\"}",
};

START_TEST(a_cancelled_job_is_gone_however_its_run_ends)
{
    char sql[256];
    PGconn *conn = claimed_jobs("3");
    pg_exec_ok(conn, "UPDATE outbox.job SET logged = true;"
                     "INSERT INTO outbox.attempt (job_id, attempt, outcome, reason)"
                     " VALUES (2, 1, 'retry', 'exit 1')");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelling");
    (void)snprintf(sql, sizeof sql,
                   "SELECT * FROM outbox.settle(1, '{1,2,3}', '{1,2,3}', '[null, %s, %s]')",
                   ends[_i], ends[_i]);
    ck_rows(conn, sql, "1|done;2|cancelled;3|done");
    ck_rows(conn, "SELECT id FROM outbox.jobs", "3");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts WHERE job_id = 2", "0");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled"); /* for who waits for it */
    ck_rows(conn, "SELECT outbox.retry(2)", "not found");
    PQfinish(conn);
}
END_TEST

START_TEST(brief_answers_name_the_cancelled)
{
    PGconn *conn = claimed_jobs("2");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelling");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}', '[{\"outcome\": \"release\"},"
            " {\"outcome\": \"release\"}]', true, true)",
            "2|cancelled");
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_that_succeeds_after_all_is_done)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    expect_nothing_left(conn);
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT outbox.cancel(1)", "not found");
    PQfinish(conn);
}
END_TEST

START_TEST(a_stale_result_does_not_end_a_cancelled_job)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{9}', '[{\"outcome\": \"release\"}]')",
            "1|lost");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "running");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"release\"}]')",
            "1|cancelled");
    PQfinish(conn);
}
END_TEST

START_TEST(only_a_committed_request_counts)
{
    PGconn *conn = claimed_jobs("1");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "ready");
    PQfinish(conn);
}
END_TEST

/* A request that is not committed yet holds up the end of that claim alone; then it counts. */
START_TEST(a_claim_that_ends_meanwhile_waits_for_the_request)
{
    PGconn *conn = claimed_jobs("2");
    PGconn *settler = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(settler,
            "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}', '[{\"outcome\": \"release\"},"
            " {\"outcome\": \"release\"}]', true)",
            "1|busy;2|done");
    begin_sql(settler, "SELECT * FROM outbox.release(1, '{1}', '{1}')");
    await_blocked(settler);
    pg_exec_ok(conn, "COMMIT");
    PGresult *res = PQgetResult(settler);
    ck_assert_str_eq(PQgetvalue(res, 0, 1), "cancelled");
    PQclear(res);
    PQfinish(settler);
    PQfinish(conn);
}
END_TEST

/* The claim ends while somebody cancels: he waits, then finds the job free, and it is gone. */
START_TEST(a_cancel_that_waited_for_the_end_of_a_claim_takes_the_job)
{
    PGconn *conn = claimed_jobs("1");
    PGconn *canceller = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    begin_sql(canceller, "SELECT outbox.cancel(1)");
    await_blocked(canceller);
    pg_exec_ok(conn, "COMMIT");
    PGresult *res = PQgetResult(canceller);
    ck_assert_str_eq(PQgetvalue(res, 0, 0), "cancelled");
    PQclear(res);
    expect_nothing_left(conn);
    PQfinish(canceller);
    PQfinish(conn);
}
END_TEST

START_TEST(a_lost_dispatchers_job_is_cancelled_instead_of_run_again)
{
    PGconn *conn = claimed_jobs("2");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "2");
    ck_rows(conn, "SELECT id, state, lost FROM outbox.jobs", "2|ready|1");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts WHERE job_id = 1", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_request_follows_the_job_to_the_dispatchers_next_id)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn,
            "SELECT answer FROM outbox.register(3, 'one', 'host', 'boot', 'lock', 42, '{}',"
            " '0.1.0', '{a,b}', '1 minute', 1)",
            "registered");
    ck_rows(conn, "SELECT * FROM outbox.adopt(3, 1, '{1}', '{1}', 7)", "1|7");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(3)", "{1}");
    ck_rows(conn, "SELECT * FROM outbox.release(3, '{1}', '{7}')", "1|cancelled");
    PQfinish(conn);
}
END_TEST

START_TEST(requests_are_forgotten_a_minute_after_their_end)
{
    PGconn *conn = claimed_jobs("3");
    ck_rows(conn, "SELECT outbox.cancel(1), outbox.cancel(2), outbox.cancel(3)",
            "cancelling|cancelling|cancelling");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{2}', '{2}')", "2|cancelled");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{3}");
    ck_rows(conn, "SELECT count(*) FROM outbox.cancelling", "3");
    pg_exec_ok(conn, "UPDATE outbox.cancelling SET requested_at = now() - interval '2 minutes',"
                     " ended_at = ended_at - interval '2 minutes'");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{3}");
    ck_rows(conn, "SELECT id FROM outbox.cancelling", "3");
    PQfinish(conn);
}
END_TEST

/* A minute from its end, however long it took to come. */
START_TEST(an_end_is_told_for_a_minute)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|cancelled");
    pg_exec_ok(conn, "UPDATE outbox.cancelling SET requested_at = now() - interval '1 hour'");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    pg_exec_ok(conn, "UPDATE outbox.cancelling SET ended_at = now() - interval '61 s'");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{}");
    ck_rows(conn, "SELECT outbox.cancel(1)", "not found");
    PQfinish(conn);
}
END_TEST

/* The next notification's payload on a session that listens, or "" if there is none. */
static const char *notified(PGconn *conn)
{
    static char payload[64];
    payload[0] = '\0';
    pg_exec_ok(conn, "SELECT 1");
    PGnotify *n = PQnotifies(conn);
    if (n != NULL)
        (void)snprintf(payload, sizeof payload, "%s", n->extra);
    PQfreemem(n);
    return payload;
}

START_TEST(dispatchers_are_told_once)
{
    PGconn *conn = claimed_jobs("2");
    pg_exec_ok(conn, "LISTEN outbox");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_assert_str_eq(notified(conn), "control");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    ck_assert_str_eq(notified(conn), "");
    pg_exec_ok(conn, "SET outbox.notify = off");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelling");
    ck_assert_str_eq(notified(conn), "");
    PQfinish(conn);
}
END_TEST

/* ---- pause ---- */

START_TEST(a_paused_task_is_told_to_every_dispatcher_until_it_is_resumed)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'); SELECT outbox.enqueue('b'); LISTEN outbox");
    ck_rows(conn, "SELECT outbox.pause('a', 'the shop is closed')", "paused");
    ck_assert_str_eq(notified(conn), "control");
    ck_rows(conn, "SELECT outbox.pause('a')", "already paused");
    ck_assert_str_eq(notified(conn), "");
    ck_rows(conn, "SELECT paused FROM outbox.orders(1)", "{a}");
    ck_rows(conn, "SELECT task, paused FROM outbox.jobs ORDER BY id", "a|t;b|f");
    ck_rows(conn,
            "SELECT task, paused_since IS NOT NULL, paused_reason FROM outbox.stats ORDER BY task",
            "a|t|the shop is closed;b|f|-");
    ck_rows(conn, "SELECT task, paused_by = session_user, reason FROM outbox.pauses",
            "a|t|the shop is closed");
    ck_rows(conn, "SELECT outbox.resume('a')", "resumed");
    ck_assert_str_eq(notified(conn), "control");
    ck_rows(conn, "SELECT outbox.resume('a')", "not paused");
    ck_rows(conn, "SELECT paused FROM outbox.orders(1)", "{}");
    PQfinish(conn);
}
END_TEST

START_TEST(a_reason_given_later_replaces_the_one_before)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT outbox.pause('a', 'one')", "paused");
    ck_rows(conn, "SELECT outbox.pause('a')", "already paused");
    ck_rows(conn, "SELECT reason FROM outbox.pauses", "one");
    ck_rows(conn, "SELECT outbox.pause('a', 'two')", "already paused");
    ck_rows(conn, "SELECT reason FROM outbox.pauses", "two");
    PQfinish(conn);
}
END_TEST

START_TEST(what_is_no_task_name_cannot_be_paused)
{
    PGconn *conn = testdb_connect();
    pg_exec_fails(conn, "SELECT outbox.pause('no such task!')", "22023", NULL);
    pg_exec_fails(conn, "SELECT outbox.pause(NULL)", "22023", NULL);
    ck_rows(conn, "SELECT outbox.resume('no such task!')", "not paused");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_control");
    TCase *tc = sql_case(suite, "cancel");
    tcase_add_test(tc, a_running_job_is_reported_to_its_dispatcher_alone);
    tcase_add_loop_test(tc, a_cancelled_job_is_gone_however_its_run_ends, 0, 4);
    tcase_add_test(tc, brief_answers_name_the_cancelled);
    tcase_add_test(tc, a_job_that_succeeds_after_all_is_done);
    tcase_add_test(tc, a_stale_result_does_not_end_a_cancelled_job);
    tcase_add_test(tc, only_a_committed_request_counts);
    tcase_add_test(tc, a_claim_that_ends_meanwhile_waits_for_the_request);
    tcase_add_test(tc, a_cancel_that_waited_for_the_end_of_a_claim_takes_the_job);
    tcase_add_test(tc, a_lost_dispatchers_job_is_cancelled_instead_of_run_again);
    tcase_add_test(tc, a_request_follows_the_job_to_the_dispatchers_next_id);
    tcase_add_test(tc, requests_are_forgotten_a_minute_after_their_end);
    tcase_add_test(tc, an_end_is_told_for_a_minute);
    tcase_add_test(tc, dispatchers_are_told_once);
    tc = sql_case(suite, "pause");
    tcase_add_test(tc, a_paused_task_is_told_to_every_dispatcher_until_it_is_resumed);
    tcase_add_test(tc, a_reason_given_later_replaces_the_one_before);
    tcase_add_test(tc, what_is_no_task_name_cannot_be_paused);
    return suite;
}
