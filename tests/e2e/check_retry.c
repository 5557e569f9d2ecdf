/* What becomes of attempts that fail: backoff, the attempt log, death, and what operators do then.
 *
 * Delays are looked at where they are stored (run_at), never by the clock: a test that must see a
 * long one asks for hours and makes the job ready by hand. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

static void start_config(const char *config)
{
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

/* One task "mail" with these further keys ("backoff: 20ms, max_attempts: 3"), recording its runs.
 */
static void start_mail(const char *keys, const char *body)
{
    start_config(e2e_config("poll_interval: 50ms\ntasks:\n  mail: {exec: [%s], %s}\n",
                            handler_script("mail", body), keys));
}

static bool is_true(const char *condition, const char *from)
{
    char sql[1024];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) > 0 AND coalesce(bool_and(coalesce(%s, false)), false) FROM %s",
                   condition, from);
    return strcmp(testdb_value(sql), "t") == 0;
}

#define expect_true(condition, from)                                                               \
    ck_assert_msg(is_true(condition, from), "not so in %s: %s", from, condition)

static void wait_for_attempts(long n)
{
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.attempts") == n, E2E_WAIT_MS);
    ck_assert_msg(ok, "%ld attempts instead of %ld",
                  testdb_long("SELECT count(*) FROM outbox.attempts"), n);
}

static void wait_for_dead(long n)
{
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.dead") == n, E2E_WAIT_MS);
    ck_assert_msg(ok, "%ld dead instead of %ld", testdb_long("SELECT count(*) FROM outbox.dead"),
                  n);
}

/* Fails twice, then waits (so that the log can be read), then succeeds. */
START_TEST(failing_job_is_retried_until_it_succeeds)
{
    char body[600];
    (void)snprintf(body, sizeof body, "[ $OUTBOX_ATTEMPT -ge 3 ] || exit 3\n%s",
                   wait_for_flag("go"));
    start_mail("backoff: 20ms", body);
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 3, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 2);
    expect_true("outcome = 'retry' AND reason = 'exit 3' AND exit_code = 3 AND signal IS NULL "
                "AND started_at < now() AND duration_ms >= 0 AND coalesce(output_bytes, 0) = 0 "
                "AND dispatcher IS NOT NULL AND attempt IN (1, 2)",
                "outbox.attempts");
    ck_assert_int_eq(testdb_long("SELECT count(DISTINCT attempt) FROM outbox.attempts"), 2);
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.jobs"), 3);
    flag_raise("go");
    expect_all_ran(id, id);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(id), 3);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
}
END_TEST

static const char after_failure[] =
    "(SELECT j.*, a.started_at + a.duration_ms * interval '1 ms' AS failed_at FROM outbox.jobs j "
    "JOIN outbox.attempts a ON a.job_id = j.id AND a.attempt = j.attempts) x";

/* min(max, backoff * 2^(n-1)), 20 % up or down. */
/* The time has come that the failed one waits for. */
static void make_due(void)
{
    testdb_exec("UPDATE outbox.job SET run_at = clock_timestamp() WHERE ready_xid IS NULL;"
                " SELECT outbox.due()");
}

START_TEST(delay_doubles_up_to_its_maximum)
{
    static const char *const expected[] = {
        "run_at BETWEEN failed_at + interval '0.8 h' AND failed_at + interval '1.2 h 10 min'",
        "run_at BETWEEN failed_at + interval '1.6 h' AND failed_at + interval '2.4 h 10 min'",
        "run_at BETWEEN failed_at + interval '2.4 h' AND failed_at + interval '3.6 h 10 min'",
        "run_at BETWEEN failed_at + interval '2.4 h' AND failed_at + interval '3.6 h 10 min'",
    };
    start_mail("backoff: 1h, backoff_max: 3h", "exit 1");
    (void)enqueue_one("mail", "{}");
    for (int n = 1; n <= 4; n++) {
        wait_for_attempts(n);
        ck_assert_str_eq(testdb_value("SELECT state FROM outbox.jobs"), "scheduled");
        expect_true(expected[n - 1], after_failure);
        make_due();
    }
    wait_for_attempts(5);
    daemon_stop(&d);
}
END_TEST

START_TEST(retry_schedule_is_followed_and_its_last_entry_repeats)
{
    static const char *const hours[] = {"1 h", "5 h", "5 h"};
    start_mail("retry_schedule: [1h, 5h], backoff_jitter: 0", "exit 1");
    (void)enqueue_one("mail", "{}");
    for (int n = 1; n <= 3; n++) {
        char condition[200];
        wait_for_attempts(n);
        (void)snprintf(condition, sizeof condition,
                       /* a second's room: the attempt's end is known to the millisecond */
                       "run_at BETWEEN failed_at + interval '%s' - interval '1 s' AND failed_at + "
                       "interval '%s 10 min'",
                       hours[n - 1], hours[n - 1]);
        expect_true(condition, after_failure);
        make_due();
    }
    wait_for_attempts(4);
    daemon_stop(&d);
}
END_TEST

/* What a handler says is kept byte for byte: NUL, what is no UTF-8, both streams. */
START_TEST(output_of_any_bytes_is_kept)
{
    start_mail("backoff: 1h", "printf 'a\\000\\377\\376\\n'\nprintf 'b\\001' >&2\nexit 1");
    (void)enqueue_one("mail", "{}");
    wait_for_attempts(1);
    expect_true("output_bytes = 7 AND coalesce(output_tail, '') = ''", "outbox.attempts");
    /* Two pipes: either may be read first. */
    expect_true("output_head IN ('\\x6100fffe0a6201', '\\x62016100fffe0a')", "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

START_TEST(long_output_is_kept_by_its_head_and_tail)
{
    start_mail("backoff: 1h, capture_head: 1KiB, capture_tail: 2KiB",
               "printf BEGIN\nhead -c 1048576 /dev/zero\nprintf END\nexit 1");
    (void)enqueue_one("mail", "{}");
    wait_for_attempts(1);
    expect_true("output_bytes = 1048576 + 8 AND octet_length(output_head) = 1024 "
                "AND octet_length(output_tail) = 2048 "
                "AND substr(output_head, 1, 5) = 'BEGIN' AND substr(output_tail, 2046) = 'END'",
                "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

/* A job's own max_attempts wins over its task's, up or down. */
START_TEST(job_dies_after_its_max_attempts_with_all_of_them_kept)
{
    start_mail("backoff: 20ms, max_attempts: 2", "echo no >&2; exit 9");
    long task_s = enqueue_one("mail", "{\"n\": 1}");
    long fewer = testdb_long("SELECT outbox.enqueue('mail', max_attempts => 1)");
    long more = testdb_long("SELECT outbox.enqueue('mail', max_attempts => 4)");
    wait_for_dead(3);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(task_s), 2);
    ck_assert_uint_eq(runs_of(fewer), 1);
    ck_assert_uint_eq(runs_of(more), 4);
    expect_true("d.attempts = d.id AND reason = format('exit 9 (attempt %s of %s)', d.id, d.id) "
                "AND lost = 0 AND n = d.attempts AND last = 'dead' AND finished_at IS NOT NULL "
                "AND heads = d.attempts",
                "(SELECT CASE id WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE 4 END AS id, attempts, reason, "
                "lost, finished_at, n, last, heads FROM outbox.dead, LATERAL (SELECT count(*) AS "
                "n, count(*) FILTER (WHERE output_head = '\\x6e6f0a') AS heads, (array_agg(outcome "
                "ORDER BY attempt DESC))[1] AS last FROM outbox.attempts WHERE job_id = id) a) d");
    ck_assert_str_eq(
        testdb_value("SELECT convert_from(payload, 'UTF8') FROM outbox.dead WHERE id = 1"),
        "{\"n\": 1}");
    struct command_result r = OUTBOX_RUN("jobs", "--state", "dead");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "exit 9"));
}
END_TEST

START_TEST(exit_65_and_100_mean_dead)
{
    start_mail("backoff: 1h", "exit $(sed 's/[^0-9]//g')");
    (void)enqueue_one("mail", "{\"code\": 65}");
    (void)enqueue_one("mail", "{\"code\": 100}");
    (void)enqueue_one("mail", "{\"code\": 75}");
    wait_for_dead(2);
    ck_assert(wait_until(is_true("state = 'scheduled'", "outbox.jobs WHERE state <> 'dead'"),
                         E2E_WAIT_MS));
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 3);
    ck_assert_str_eq(testdb_value("SELECT string_agg(reason, ', ' ORDER BY id) FROM outbox.dead"),
                     "exit 65, exit 100");
}
END_TEST

START_TEST(dead_exit_replaces_the_default)
{
    start_mail("backoff: 1h, dead_exit: [3]", "exit $(sed 's/[^0-9]//g')");
    (void)enqueue_one("mail", "{\"code\": 3}");
    (void)enqueue_one("mail", "{\"code\": 65}");
    wait_for_dead(1);
    wait_for_attempts(2);
    daemon_stop(&d);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "exit 3");
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.attempts WHERE exit_code = 65"),
                     "exit 65");
}
END_TEST

/* `outbox retry ID`: the same job again, with all its attempts before it, and the log of the
 * attempts before still there. */
START_TEST(dead_job_is_replayed_with_its_id)
{
    char body[300];
    (void)snprintf(body, sizeof body, "[ -e %s ] || exit 1", flag_path("mended"));
    start_mail("backoff: 20ms, max_attempts: 2", body);
    long id = enqueue_one("mail", "{}");
    char text[24];
    (void)snprintf(text, sizeof text, "%ld", id);
    wait_for_dead(1);
    struct command_result r = OUTBOX_RUN("retry", text);
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    wait_for_attempts(4); /* two more, numbered from 1 again */
    wait_for_dead(1);
    daemon_stop(&d);
    r = OUTBOX_RUN("retry", text);
    ck_assert_int_eq(r.exit_code, 0);
    expect_true("id = 1 AND attempts = 0 AND lost = 0 AND state = 'ready'", "outbox.jobs");
    flag_raise("mended");
    start_mail("backoff: 20ms, max_attempts: 2", body);
    expect_all_ran(id, id);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(id), 5);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    r = OUTBOX_RUN("retry", text);
    ck_assert_int_eq(r.exit_code, 1); /* done: not found */
}
END_TEST

START_TEST(cancelled_job_does_not_run)
{
    start_mail("backoff: 1h", wait_for_flag("go"));
    long running = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(running) == 1, E2E_WAIT_MS));
    long later = testdb_long("SELECT outbox.enqueue('mail', delay => '1 hour')");
    char text[24];
    (void)snprintf(text, sizeof text, "%ld", later);
    struct command_result r = OUTBOX_RUN("cancel", text);
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "cancelled"));
    (void)snprintf(text, sizeof text, "%ld", running);
    r = OUTBOX_RUN("cancel", text); /* check_cancel.c has the rest of it */
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "cancelling"));
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 1);
}
END_TEST

/* TERM is enough for this one; a stopped one gets CONT too. */
START_TEST(timeout_ends_an_attempt)
{
    start_mail("backoff: 1h, timeout: 300ms", "exec sleep 600");
    (void)enqueue_one("mail", "{}");
    wait_for_attempts(1);
    expect_true("reason = 'timeout' AND outcome = 'retry' AND signal = 15 AND duration_ms >= 290",
                "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

START_TEST(stopped_job_times_out_too)
{
    start_mail("backoff: 1h, timeout: 300ms", "kill -STOP $$");
    (void)enqueue_one("mail", "{}");
    wait_for_attempts(1);
    expect_true("reason = 'timeout' AND outcome = 'retry'", "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

START_TEST(timeout_kills_what_ignores_term)
{
    start_mail("backoff: 1h, timeout: 300ms",
               "trap '' TERM\nwhile :; do sleep 0.05; done"); /* 5 s of grace */
    (void)enqueue_one("mail", "{}");
    wait_for_attempts(1);
    expect_true("reason = 'timeout' AND outcome = 'retry' AND signal = 9", "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

/* Work that is finished in the grace is finished: again would be a duplicate. */
START_TEST(success_in_the_grace_of_a_timeout_is_success)
{
    start_mail("backoff: 1h, timeout: 300ms", "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 1);
}
END_TEST

/* A program that is not there, or may not be run: nothing is counted against its jobs, the log says
 * so once a pause whatever the number of jobs, and they run when it is mended. */
static void mend_after(unsigned mode_before, const char *says)
{
    const char *program = flag_path("program");
    if (mode_before != 0)
        (void)handler_script("program", "");
    if (mode_before != 0)
        ck_assert_int_eq(chmod(program, mode_before), 0);
    enqueue_jobs("mail", 10);
    start_config(
        e2e_config("lease: 1h\npoll_interval: 1h\ntasks:\n  mail: {exec: [%s]}\n", program));
    daemon_expect_log(&d, "event=handler_misconfigured", E2E_WAIT_MS);
    daemon_expect_log(&d, says, 0);
    daemon_expect_log(&d, "paused_ms=2000", E2E_WAIT_MS); /* tried again, by itself */
    ck_assert_uint_eq(daemon_log_count(&d, "paused_ms=1000"), 1);
    ck_assert(wait_until(is_true("state = 'ready' AND attempts = 0 AND lost = 0", "outbox.jobs"),
                         E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    (void)handler_script("program", "");
    expect_all_ran(1, 10);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 10);
}

/* The dispatcher sleeps, holding the task's lock: it does not notify itself. */
START_TEST(job_that_is_retried_at_once_needs_no_look_by_the_clock)
{
    start_config(
        e2e_config("lease: 1h\npoll_interval: 1h\nsweep_interval: 1h\ntasks:\n"
                   "  mail: {exec: [%s], backoff: 0ms, backoff_jitter: 0}\n",
                   handler_script("program", "[ \"$OUTBOX_ATTEMPT\" -lt 4 ] && exit 1; exit 0")));
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                                     " AND classid = 1869968482") == 1,
                         E2E_WAIT_MS));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 4, E2E_WAIT_MS));
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

START_TEST(missing_program_costs_no_attempt)
{
    mend_after(0, "does it exist on this host");
}
END_TEST

START_TEST(program_without_the_right_to_run_costs_no_attempt)
{
    mend_after(0644, "chmod +x");
}
END_TEST

/* HUP ends the pause: the operator who mended the handler need not wait. */
START_TEST(reload_ends_the_pause_of_a_misconfigured_handler)
{
    start_config(e2e_config("lease: 1h\npoll_interval: 1h\ntasks:\n  mail: {exec: [%s]}\n",
                            flag_path("program")));
    long id = enqueue_one("mail", "{}");
    daemon_expect_log(&d, "paused_ms=4000", E2E_WAIT_MS);
    (void)handler_script("program", "");
    daemon_kill(&d, SIGHUP);
    expect_all_ran(id, id);
    daemon_stop(&d);
}
END_TEST

/* ---- webhooks ---- */

static struct httpstub stub;

static void start_hook(const struct httpstub_answer *answers, size_t count, const char *keys)
{
    httpstub_start(&stub, answers, count);
    start_config(e2e_config("poll_interval: 50ms\ntasks:\n  placed: {webhook: "
                            "'http://127.0.0.1:%d/hook', %s}\n",
                            stub.port, keys));
}

START_TEST(webhook_is_retried_after_a_server_error)
{
    static const struct httpstub_answer answers[] = {
        {.status = 500, .body = "out of order"}, {.status = 500}, {.status = 200}};
    start_hook(answers, 3, "backoff: 20ms");
    (void)enqueue_one("placed", "{\"order\": 7}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 3);
    char id[128];
    (void)snprintf(id, sizeof id, "%s", httpstub_header(&stub, 0, "webhook-id"));
    ck_assert_str_eq(httpstub_header(&stub, 2, "webhook-id"), id); /* the receiver can tell */
    ck_assert_str_eq(httpstub_header(&stub, 2, "webhook-attempt"), "3");
    ck_assert_str_eq(httpstub_body(&stub, 2), "{\"order\": 7}");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(webhook_attempt_keeps_status_and_response)
{
    static const struct httpstub_answer answer = {.status = 422, .body = "{\"why\": \"no\"}"};
    start_hook(&answer, 1, "backoff: 1h");
    (void)enqueue_one("placed", "{}");
    wait_for_attempts(1);
    expect_true("http_status = 422 AND reason = 'HTTP 422' AND outcome = 'retry' "
                "AND exit_code IS NULL AND output_head = '{\"why\": \"no\"}'",
                "outbox.attempts");
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(webhook_that_is_gone_ends_dead)
{
    static const struct httpstub_answer answer = {.status = 410};
    start_hook(&answer, 1, "backoff: 20ms");
    (void)enqueue_one("placed", "{}");
    wait_for_dead(1);
    daemon_stop(&d);
    expect_true("reason = 'HTTP 410' AND attempts = 1", "outbox.dead");
    ck_assert_uint_eq(httpstub_requests(&stub), 1);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(retry_after_is_a_lower_bound)
{
    static const struct httpstub_answer answer = {.status = 503,
                                                  .headers = "Retry-After: 7200\r\n"};
    start_hook(&answer, 1, "backoff: 20ms");
    (void)enqueue_one("placed", "{}");
    wait_for_attempts(1);
    expect_true("run_at >= failed_at + interval '2 h' AND run_at < failed_at + interval '3 h'",
                after_failure);
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

/* Nobody listens: as any other failure. */
START_TEST(webhook_without_a_server_is_retried)
{
    static const struct httpstub_answer answer = {.status = 200};
    start_hook(&answer, 1, "backoff: 1h");
    httpstub_stop(&stub);
    (void)enqueue_one("placed", "{}");
    wait_for_attempts(1);
    expect_true("reason LIKE 'connect%' AND http_status IS NULL AND outcome = 'retry'",
                "outbox.attempts");
    daemon_stop(&d);
}
END_TEST

static TCase *server_tcase(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("retry");
    TCase *tc = server_tcase(s, "commands");
    tcase_add_test(tc, failing_job_is_retried_until_it_succeeds);
    tcase_add_test(tc, delay_doubles_up_to_its_maximum);
    tcase_add_test(tc, retry_schedule_is_followed_and_its_last_entry_repeats);
    tcase_add_test(tc, output_of_any_bytes_is_kept);
    tcase_add_test(tc, long_output_is_kept_by_its_head_and_tail);
    tcase_add_test(tc, job_dies_after_its_max_attempts_with_all_of_them_kept);
    tcase_add_test(tc, exit_65_and_100_mean_dead);
    tcase_add_test(tc, dead_exit_replaces_the_default);
    tcase_add_test(tc, dead_job_is_replayed_with_its_id);
    tcase_add_test(tc, cancelled_job_does_not_run);
    tcase_add_test(tc, timeout_ends_an_attempt);
    tcase_add_test(tc, stopped_job_times_out_too);
    tcase_add_test(tc, timeout_kills_what_ignores_term);
    tcase_add_test(tc, success_in_the_grace_of_a_timeout_is_success);
    tcase_add_test(tc, job_that_is_retried_at_once_needs_no_look_by_the_clock);
    tcase_add_test(tc, missing_program_costs_no_attempt);
    tcase_add_test(tc, program_without_the_right_to_run_costs_no_attempt);
    tcase_add_test(tc, reload_ends_the_pause_of_a_misconfigured_handler);
    tc = server_tcase(s, "webhooks");
    tcase_add_test(tc, webhook_is_retried_after_a_server_error);
    tcase_add_test(tc, webhook_attempt_keeps_status_and_response);
    tcase_add_test(tc, webhook_that_is_gone_ends_dead);
    tcase_add_test(tc, retry_after_is_a_lower_bound);
    tcase_add_test(tc, webhook_without_a_server_is_retried);
    return s;
}
