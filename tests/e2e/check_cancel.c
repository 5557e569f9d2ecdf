/* Cancelling jobs that run: exactly that run ends, it never runs again, and a request that was not
 * committed, or came too late, changes nothing. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

static const char *number(long n)
{
    static char text[8][24];
    static unsigned i;
    i = (i + 1) % 8;
    (void)snprintf(text[i], sizeof text[i], "%ld", n);
    return text[i];
}

static void start(const char *task, const char *then)
{
    const char *const args[] = {"--shell", recording(task, then), NULL};
    daemon_start_ready(&d, args, NULL);
}

static void wait_for_runs(size_t n)
{
    bool ok = wait_until(runs_count() >= n, E2E_WAIT_MS);
    ck_assert_msg(ok, "%zu runs instead of %zu", runs_count(), n);
}

static void expect_gone(long id)
{
    ck_assert_ptr_null(testdb_value("SELECT 1 FROM outbox.jobs WHERE state = 'running'"));
    ck_assert_uint_eq(runs_of(id), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
}

static void expect_cancelled(struct command_result r, long id)
{
    char line[64];
    (void)snprintf(line, sizeof line, "%ld: cancelled\n", id);
    ck_assert_msg(strstr(r.out, line) != NULL, "no \"%s\" in: %s%s", line, r.out, r.err);
    ck_assert_int_eq(r.exit_code, 0);
}

START_TEST(a_running_command_is_ended_and_the_others_go_on)
{
    start("mail", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", "2"), 2);
    daemon_expect_log(&d, "event=cancelled task=mail id=2 attempt=1", E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'"), 2);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_command_that_ignores_term_is_killed_with_its_group)
{
    char text[128];
    int seconds = 700000 + (int)getpid() % 100000; /* tells it from those of other tests */
    (void)snprintf(text, sizeof text, "trap '' TERM; sleep %d & while :; do sleep 0.05; done",
                   seconds);
    start("mail", text);
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", number(id)), id);
    (void)snprintf(text, sizeof text, "sleep %d", seconds);
    ck_assert_uint_eq(processes_with(text), 0);
    expect_gone(id);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_failure_while_it_is_asked_to_end_is_no_retry)
{
    start("mail", "trap 'exit 65' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    expect_cancelled(OUTBOX_RUN("cancel", "-w", number(id)), id);
    expect_gone(id);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_command_that_succeeds_in_spite_of_it_is_done)
{
    start("mail", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    struct command_result r = OUTBOX_RUN("cancel", "--wait", number(id), "--json");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_msg(strstr(r.out, "\"answer\": \"done\"") != NULL, "%s", r.out);
    expect_gone(id);
    daemon_stop(&d);
}
END_TEST

START_TEST(who_does_not_wait_is_told_that_it_was_asked_for)
{
    start("mail", "trap '' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    struct command_result r = OUTBOX_RUN("cancel", number(id), "99");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_msg(strstr(r.out, ": cancelling: its dispatcher") != NULL, "%s", r.out);
    ck_assert_msg(strstr(r.out, "99: not found") != NULL, "%s", r.out);
    r = OUTBOX_RUN("cancel", number(id));
    ck_assert_int_eq(r.exit_code, 0);
    r = OUTBOX_RUN("cancel", number(id), "--wait", "--timeout", "1ms");
    ck_assert_int_eq(r.exit_code, OB_EXIT_TRY_AGAIN);
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", number(id)), id);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_request_that_is_rolled_back_ends_nothing)
{
    start("mail", wait_for_flag("go"));
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    testdb_exec("BEGIN; SELECT outbox.cancel(1); ROLLBACK; SELECT outbox.pause('other')");
    daemon_expect_log(&d, "event=ready", 0);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(id), 1);
    ck_assert_uint_eq(daemon_log_count(&d, "event=cancelling"), 0);
    daemon_stop(&d);
}
END_TEST

/* Producers switched NOTIFY off: the dispatcher hears of it with its next heartbeat. */
START_TEST(a_request_that_nobody_was_told_of_is_seen_at_the_next_heartbeat)
{
    const char *const args[] = {"--shell", recording("mail", "exec sleep 600"), "--lease", "6s",
                                NULL};
    daemon_start_ready(&d, args, NULL);
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    testdb_exec("SET outbox.notify = off; SELECT outbox.cancel(1)");
    daemon_expect_log(&d, "event=cancelled", E2E_WAIT_MS);
    expect_gone(id);
    daemon_stop(&d);
}
END_TEST

/* The claim is committed, and its answer not read yet. */
START_TEST(a_job_that_is_cancelled_on_its_way_here_is_ended)
{
    start("mail", "exec sleep 600");
    hold_claims();
    long id = enqueue_one("mail", "{}");
    wait_for_held_claim();
    daemon_kill(&d, SIGSTOP);
    let_claims_go();
    bool ok = wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert_str_eq(testdb_value("SELECT outbox.cancel(1)"), "cancelling");
    daemon_kill(&d, SIGCONT);
    daemon_expect_log(&d, "event=cancelled", E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    ck_assert_uint_le(runs_of(id), 1);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_webhooks_transfer_is_dropped)
{
    struct httpstub stub;
    static const struct httpstub_answer late = {.status = 200, .delay_ms = 600 * 1000};
    char webhook[128];
    httpstub_start(&stub, &late, 1);
    (void)snprintf(webhook, sizeof webhook, "hook=http://127.0.0.1:%d/", stub.port);
    const char *const args[] = {"--webhook", webhook, NULL};
    daemon_start_ready(&d, args, NULL);
    long id = enqueue_one("hook", "{}");
    bool ok = wait_until(httpstub_requests(&stub) == 1, E2E_WAIT_MS);
    ck_assert(ok);
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", number(id)), id);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

/* As at a timeout: the process ends, and what else it has is given to another. */
START_TEST(a_workers_job_is_ended_with_its_process)
{
    const char *worker = test_file("worker.py",
                                   "import json, signal, sys\n"
                                   "for line in sys.stdin.buffer:\n"
                                   "    m = json.loads(line)\n"
                                   "    r = {'op': 'ready', 'proto': 1}\n"
                                   "    if m['op'] != 'hello':\n"
                                   "        n = json.loads(sys.stdin.buffer.read(m['len']))['n']\n"
                                   "        while n == 1: signal.pause()\n"
                                   "        r = {'id': m['id'], 'status': 'ok'}\n"
                                   "    sys.stdout.buffer.write(json.dumps(r).encode() + b'\\n')\n"
                                   "    sys.stdout.buffer.flush()\n",
                                   0644);
    const char *config = e2e_config(
        "tasks:\n  mail: {worker: [/usr/bin/python3, %s], processes: 1, timeout: 1h}\n", worker);
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_jobs("mail", 3);
    bool ok = wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running' AND id = 1") == 1,
        E2E_WAIT_MS);
    ck_assert(ok);
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", "1"), 1);
    wait_until_all_done();
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    daemon_stop(&d);
}
END_TEST

/* kill -9 of the dispatcher between the request and the end of the command: its lease is taken
 * over, and the job does not run again. */
START_TEST(a_dispatcher_that_dies_in_the_middle_does_not_bring_the_job_back)
{
    start("mail", "trap '' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    ck_assert_str_eq(testdb_value("SELECT outbox.cancel(1)"), "cancelling");
    daemon_expect_log(&d, "event=cancelling", E2E_WAIT_MS);
    daemon_kill(&d, SIGKILL);
    (void)daemon_wait(&d, E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE cancelling"), 1);
    start("mail", "");
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.jobs") == 0, E2E_WAIT_MS);
    ck_assert(ok);
    expect_gone(id);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_dispatcher_that_stops_gives_no_cancelled_job_back)
{
    start("mail", "trap '' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    ck_assert_str_eq(testdb_value("SELECT outbox.cancel(1)"), "cancelling");
    daemon_expect_log(&d, "event=cancelling", E2E_WAIT_MS);
    daemon_kill(&d, SIGQUIT);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 0);
    expect_gone(id);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
}
END_TEST

START_TEST(a_reconnect_in_the_middle_changes_nothing)
{
    start("mail", "trap '' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    testdb_exec("SELECT outbox.cancel(1); SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'outbox%'");
    expect_cancelled(OUTBOX_RUN("cancel", "--wait", number(id)), id);
    expect_gone(id);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("cancel");
    TCase *tc = tcase_create("cancel");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, a_running_command_is_ended_and_the_others_go_on);
    tcase_add_test(tc, a_command_that_ignores_term_is_killed_with_its_group);
    tcase_add_test(tc, a_failure_while_it_is_asked_to_end_is_no_retry);
    tcase_add_test(tc, a_command_that_succeeds_in_spite_of_it_is_done);
    tcase_add_test(tc, who_does_not_wait_is_told_that_it_was_asked_for);
    tcase_add_test(tc, a_request_that_is_rolled_back_ends_nothing);
    tcase_add_test(tc, a_request_that_nobody_was_told_of_is_seen_at_the_next_heartbeat);
    tcase_add_test(tc, a_job_that_is_cancelled_on_its_way_here_is_ended);
    tcase_add_test(tc, a_webhooks_transfer_is_dropped);
    tcase_add_test(tc, a_workers_job_is_ended_with_its_process);
    tcase_add_test(tc, a_dispatcher_that_dies_in_the_middle_does_not_bring_the_job_back);
    tcase_add_test(tc, a_dispatcher_that_stops_gives_no_cancelled_job_back);
    tcase_add_test(tc, a_reconnect_in_the_middle_changes_nothing);
    return suite;
}
