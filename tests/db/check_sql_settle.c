/* outbox.settle, release, cancel, retry, payload: every outcome, every answer, and stale tokens. */
#include "check_sql.h"

START_TEST(all_done_deletes_the_jobs)
{
    PGconn *conn = claimed_jobs("3");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{3,1}', '{3,1}')", "3|done;1|done");
    ck_rows(conn, "SELECT id FROM outbox.job", "2");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{2}', '{2}', '[null]')", "2|done");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{}', '{}')", "");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(conn);
}
END_TEST

/* Wrong claim, wrong owner, no such job, the same job twice with an old and the current claim. */
#define STALE_IDS "'{1,2,99,3,3}', '{1,7,1,1,3}'"
START_TEST(a_stale_token_changes_nothing)
{
    const char *const outcomes[] = {"NULL",
                                    "'[null, {\"outcome\": \"dead\", \"reason\": \"x\"}, null,"
                                    " {\"outcome\": \"retry\", \"reason\": \"x\"}, null]'"};
    char sql[256];
    PGconn *conn = claimed_jobs("4");
    (void)snprintf(sql, sizeof sql, "SELECT * FROM outbox.settle(1, " STALE_IDS ", %s)",
                   outcomes[_i]);
    ck_rows(conn, sql, "1|done;2|lost;99|gone;3|gone;3|done");
    (void)snprintf(sql, sizeof sql, "SELECT * FROM outbox.settle(2, '{2,4}', '{2,4}', %s)",
                   _i == 0 ? "NULL" : "'[{\"outcome\": \"release\"}, null]'");
    ck_rows(conn, sql, "2|lost;4|lost");
    ck_rows(conn, "SELECT id, owner, claim, attempts FROM outbox.job ORDER BY id",
            "2|1|2|1;4|1|4|1");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_retry_is_scheduled_and_its_attempt_recorded)
{
    PGconn *conn = claimed_jobs("1");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"retry\", \"delay_ms\": "
            "60000,"
            " \"reason\": \"exit 3\", \"uncounted\": false, \"started_at\": "
            "\"2024-05-06T07:08:09.123Z\","
            " \"duration_ms\": 12, \"exit_code\": 3, \"signal\": null, \"http_status\": null, "
            "\"head\": \"aGVhZA==\","
            " \"tail\": \"dGFpbA==\", \"output_bytes\": 20000}]')",
            "1|done");
    ck_rows(conn,
            "SELECT state, attempts, lost, run_at - clock_timestamp() BETWEEN interval '50s' AND "
            "interval '60s', owner"
            " FROM outbox.jobs",
            "scheduled|1|0|t|-");
    ck_rows(conn,
            "SELECT job_id, attempt, started_at, duration_ms, outcome, reason, exit_code, signal, "
            "http_status,"
            " convert_from(output_head, 'UTF8'), convert_from(output_tail, 'UTF8'), output_bytes, "
            "dispatcher"
            " FROM outbox.attempts",
            "1|1|2024-05-06 07:08:09.123+00|12|retry|exit 3|3|-|-|head|tail|20000|one");
    PQfinish(conn);
}
END_TEST

START_TEST(a_retry_without_delay_is_ready_at_once)
{
    PGconn *conn = claimed_jobs("1");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"retry\", "
                     "\"reason\": \"signal 9\","
                     " \"signal\": 9, \"http_status\": 503}]')");
    ck_rows(conn, "SELECT state, run_at FROM outbox.jobs", "ready|-");
    ck_rows(conn,
            "SELECT ready_xid > (SELECT xmin::text::bigint FROM outbox.dispatcher)::text::xid8 "
            "FROM outbox.job",
            "t");
    ck_rows(conn, "SELECT id, attempt FROM outbox.claim(1, 2, '{a}', '{1}')", "1|2");
    ck_rows(conn, "SELECT signal, http_status, output_head FROM outbox.attempts", "9|503|-");
    /* And the end of a job takes its attempts along, whichever way it ends. */
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{2}')", "1|done");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(done_among_others_deletes_its_attempts_too)
{
    PGconn *conn = claimed_jobs("2");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}', '[{\"outcome\": \"retry\", "
                     "\"reason\": \"x\"},"
                     " {\"outcome\": \"retry\", \"reason\": \"x\"}]')");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 3, '{a}', '{2}')");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1,2}', '{3,4}', '[{\"outcome\": \"done\"},"
            " {\"outcome\": \"retry\", \"reason\": \"y\"}]')",
            "1|done;2|done");
    ck_rows(conn, "SELECT job_id, attempt, reason FROM outbox.attempts ORDER BY 1, 2",
            "2|1|x;2|2|y");
    PQfinish(conn);
}
END_TEST

START_TEST(a_dead_job_is_kept_whole)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '[1]', priority => 1, max_attempts => 9, headers "
                     "=> '{\"h\": 1}',"
                     " expires_at => '2100-01-01', run_at => '2001-01-01')");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"dead\", \"reason\": "
            "\"exit 65\","
            " \"exit_code\": 65}]')",
            "1|done");
    ck_rows(conn, "SELECT count(*) FROM outbox.job", "0");
    ck_rows(conn,
            "SELECT id, task, state, priority, run_at, expires_at, attempts, max_attempts, lost, "
            "reason, encoding,"
            " payload_size, headers, finished_at >= created_at, owner, outbox.payload(id) FROM "
            "outbox.jobs",
            "1|a|dead|1|2001-01-01 00:00:00+00|2100-01-01 00:00:00+00|1|9|0|exit 65|json|3|{\"h\": "
            "1}|t|-|\\x5b315d");
    ck_rows(conn, "SELECT outcome, reason, exit_code FROM outbox.attempts", "dead|exit 65|65");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|gone");
    PQfinish(conn);
}
END_TEST

START_TEST(an_uncounted_death_gives_the_attempt_back)
{
    PGconn *conn = claimed_jobs("1");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"dead\", "
                     "\"reason\": \"expired\","
                     " \"uncounted\": true}]')");
    ck_rows(conn, "SELECT state, attempts, reason FROM outbox.jobs", "dead|0|expired");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_released_job_was_never_tried)
{
    PGconn *conn = claimed_jobs("4");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1,2,9}', '{1,9,1}')", "1|done;2|lost;9|gone");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{2}', '{2}', '1 hour')", "2|done");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{3}', '{3}', '[{\"outcome\": \"release\", "
            "\"delay_ms\": 5000}]')",
            "3|done");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{}', '{}')", "");
    ck_rows(conn,
            "SELECT id, state, attempts, lost, date_trunc('minute', run_at - created_at) FROM "
            "outbox.jobs ORDER BY id",
            "1|ready|0|0|-;2|scheduled|0|0|01:00:00;3|scheduled|0|0|00:00:00;4|running|1|0|-");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(all_outcomes_in_one_call_are_answered_in_order)
{
    PGconn *conn = claimed_jobs("5");
    ck_rows(
        conn,
        "SELECT * FROM outbox.settle(1, '{5,4,3,2,1,8}', '{5,4,3,2,1,1}', '[null,"
        " {\"outcome\": \"dead\", \"reason\": \"d\"}, {\"outcome\": \"retry\", \"reason\": \"r\"},"
        " {\"outcome\": \"release\"}, {\"outcome\": \"done\"}, null]')",
        "5|done;4|done;3|done;2|done;1|done;8|gone");
    ck_rows(conn, "SELECT id, state, attempts FROM outbox.jobs ORDER BY id",
            "2|ready|0;3|ready|1;4|dead|1");
    PQfinish(conn);
}
END_TEST

static const char *const bad_outcomes[] = {
    "{}",
    "null",
    "[]",
    "[null, null]",
    "[7]",
    "[\"done\"]",
    "[{}]",
    "[{\"outcome\": \"failed\"}]",
    "[{\"outcome\": \"retry\"}]",
    "[{\"outcome\": \"dead\", \"reason\": null}]",
};

START_TEST(a_malformed_outcome_is_refused_and_nothing_recorded)
{
    PGconn *conn = claimed_jobs("1");
    for (size_t i = 0; i < sizeof bad_outcomes / sizeof bad_outcomes[0]; i++) {
        char sql[160];
        (void)snprintf(sql, sizeof sql, "SELECT * FROM outbox.settle(1, '{1}', '{1}', '%s')",
                       bad_outcomes[i]);
        pg_exec_fails(conn, sql, "22023", "outcomes");
    }
    pg_exec_fails(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1,2}')", "22023",
                  "differ in length");
    pg_exec_fails(conn, "SELECT * FROM outbox.settle(1, NULL, NULL)", "22023", "are NULL");
    pg_exec_fails(conn, "SELECT * FROM outbox.release(1, '{1}', NULL)", "22023", "are NULL");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "running");
    PQfinish(conn);
}
END_TEST

/* ---- cancel, retry, payload ---- */

START_TEST(cancel_removes_what_does_not_run)
{
    PGconn *conn = claimed_jobs("2");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{2}', '{2}', '[{\"outcome\": \"dead\", "
                     "\"reason\": \"x\"}]')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b'), outbox.enqueue('b', delay => '1h')");
    ck_rows(conn, "SELECT id, outbox.cancel(id) FROM unnest('{1,2,3,4,99}'::bigint[]) AS u(id)",
            "1|cancelling;2|cancelled;3|cancelled;4|cancelled;99|not found");
    ck_rows(conn, "SELECT id, state FROM outbox.jobs", "1|running");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    ck_rows(conn, "SELECT outbox.cancel(2), outbox.cancel(NULL)", "not found|not found");
    PQfinish(conn);
}
END_TEST

START_TEST(a_dead_job_can_be_a_job_again)
{
    PGconn *conn = claimed_jobs("1");
    pg_exec_ok(conn, "UPDATE outbox.job SET lost = 3, expires_at = '2001-01-01', max_attempts = 4");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"dead\", "
                     "\"reason\": \"x\"}]')");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn,
            "SELECT id, state, attempts, lost, expires_at, max_attempts, "
            "convert_from(outbox.payload(id), 'UTF8')"
            " FROM outbox.jobs",
            "1|ready|0|0|-|4|{\"n\": 1}");
    ck_rows(conn, "SELECT attempt, outcome FROM outbox.attempts", "1|dead");
    ck_rows(conn, "SELECT id, attempt, expired FROM outbox.claim(1, 2, '{a}', '{1}')", "1|1|f");
    ck_rows(conn, "SELECT outbox.retry(1)", "running");
    /* Done at its first attempt: the history goes with it all the same. */
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{2}')", "1|done");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    /* The id is not handed out again. */
    ck_rows(conn, "SELECT outbox.enqueue('a')", "2");
    PQfinish(conn);
}
END_TEST

START_TEST(retry_makes_a_scheduled_job_ready_now)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1h')");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn, "SELECT state, run_at <= clock_timestamp() FROM outbox.jobs", "ready|t");
    ck_rows(conn, "SELECT outbox.retry(1), outbox.retry(2)", "ready|not found");
    PQfinish(conn);
}
END_TEST

#define LATER "{\"outcome\": \"retry\", \"reason\": \"exit 1\", \"delay_ms\": 60000}"

START_TEST(retry_forgets_the_failures_of_a_scheduled_job)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', max_attempts => 2, expires_at => '2100-01-01');"
                     "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{2}')", "2");
    ck_rows(conn, "SELECT answer FROM outbox.settle(1, '{1,2}', '{1,2}', '[" LATER ", " LATER "]')",
            "done;done");
    pg_exec_ok(conn, "UPDATE outbox.job SET lost = 3");
    pg_exec_ok(conn, "UPDATE outbox.job SET expires_at = now() WHERE id = 1");
    ck_rows(conn, "SELECT outbox.retry(1), outbox.retry(2)", "retried|retried");
    ck_rows(conn,
            "SELECT id, state, attempts, lost, expires_at, run_at <= clock_timestamp(),"
            " (SELECT count(*) FROM outbox.attempts a WHERE a.job_id = j.id)"
            " FROM outbox.jobs j ORDER BY id",
            "1|ready|0|0|-|t|1;2|ready|0|0|-|t|1");
    ck_rows(conn, "SELECT id, attempt, expired FROM outbox.claim(1, 3, '{a}', '{2}')",
            "1|1|f;2|1|f");
    /* One that runs goes on as it is. */
    ck_rows(conn, "SELECT outbox.retry(1)", "running");
    ck_rows(conn, "SELECT attempts FROM outbox.job WHERE id = 1", "1");
    PQfinish(conn);
}
END_TEST

START_TEST(retry_forgets_the_failures_of_a_ready_job)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', expires_at => '2100-01-01') FROM"
                     " generate_series(1, 3)");
    pg_exec_ok(conn, "UPDATE outbox.job SET attempts = 4, lost = 2 WHERE id = 1;"
                     "UPDATE outbox.job SET expires_at = '2020-01-01' WHERE id = 2");
    const char *xids = "SELECT string_agg(ready_xid::text, ' ' ORDER BY id) FROM outbox.job";
    char before[200];
    (void)snprintf(before, sizeof before, "%s", rows_of(conn, xids));
    ck_rows(conn, "SELECT outbox.retry(id) FROM generate_series(1, 3) AS id", "ready;ready;ready");
    ck_rows(conn,
            "SELECT id, state, attempts, lost, expires_at IS NULL FROM outbox.jobs ORDER BY 1",
            "1|ready|0|0|f;2|ready|0|0|t;3|ready|0|0|f");
    ck_rows(conn, xids, before); /* it keeps its place */
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_settle");
    TCase *tc = sql_case(suite, "settle");
    tcase_add_test(tc, all_done_deletes_the_jobs);
    tcase_add_loop_test(tc, a_stale_token_changes_nothing, 0, 2);
    tcase_add_test(tc, a_retry_is_scheduled_and_its_attempt_recorded);
    tcase_add_test(tc, a_retry_without_delay_is_ready_at_once);
    tcase_add_test(tc, done_among_others_deletes_its_attempts_too);
    tcase_add_test(tc, a_dead_job_is_kept_whole);
    tcase_add_test(tc, an_uncounted_death_gives_the_attempt_back);
    tcase_add_test(tc, a_released_job_was_never_tried);
    tcase_add_test(tc, all_outcomes_in_one_call_are_answered_in_order);
    tcase_add_test(tc, a_malformed_outcome_is_refused_and_nothing_recorded);
    tc = sql_case(suite, "mend");
    tcase_add_test(tc, cancel_removes_what_does_not_run);
    tcase_add_test(tc, a_dead_job_can_be_a_job_again);
    tcase_add_test(tc, retry_makes_a_scheduled_job_ready_now);
    tcase_add_test(tc, retry_forgets_the_failures_of_a_scheduled_job);
    tcase_add_test(tc, retry_forgets_the_failures_of_a_ready_job);
    return suite;
}
