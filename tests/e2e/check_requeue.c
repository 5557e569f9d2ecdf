/* Giving back jobs that run, and cancelling or giving back all that match: exactly those runs end,
 * the jobs run again from the beginning, uncounted and never twice at once. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "fleet.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

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

static void expect_out(struct command_result r, const char *out)
{
    ck_assert_str_eq(r.out, out);
    ck_assert_msg(r.exit_code == 0, "%d: %s", r.exit_code, r.err);
}

/* The first run of a job goes on until it is told to end; later ones wait for the flag. */
static const char *first_run_hangs(const char *first)
{
    static char text[1024];
    (void)snprintf(text, sizeof text,
                   "if mkdir %s.$OUTBOX_JOB_ID; then %s while :; do sleep 0.05; done; fi; %s",
                   flag_path("first"), first, wait_for_flag("go"));
    return text;
}

static void expect_requeued(long id, const char *runs)
{
    wait_for_runs((size_t)runs[0] - '0');
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE attempts > 1 OR lost > 0"),
                     0);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(id), 2);
    ck_assert_uint_eq(runs_count(), (size_t)runs[0] - '0');
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    daemon_stop(&d);
}

START_TEST(a_running_command_is_ended_and_run_again_and_the_others_go_on)
{
    start("mail", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    expect_out(OUTBOX_RUN("requeue", "2"),
               "2: requeueing: its dispatcher has been told to end the run\n");
    daemon_expect_log(&d, "event=requeueing task=mail id=2 attempt=1", E2E_WAIT_MS);
    daemon_expect_log(&d, "event=requeued task=mail id=2 attempt=1", E2E_WAIT_MS);
    expect_requeued(2, "4");
}
END_TEST

/* Two dispatchers with free slots: the other one could take it while the first run ends. */
START_TEST(never_do_two_run_it)
{
    struct daemon a;
    struct daemon b;
    const char *task = exclusive("mail", first_run_hangs("trap '' TERM;"));
    FLEET(&a, "a", NULL, "--shell", task);
    FLEET(&b, "b", NULL, "--shell", task);
    enqueue_jobs("mail", 4);
    wait_for_runs(4);
    for (int i = 0; i < 3; i++) /* asking again is harmless */
        expect_out(OUTBOX_RUN("requeue", "--running"), "4 requeueing\n");
    wait_for_runs(8);
    ck_assert_uint_eq(twice_at_once(), 0);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 8);
    ck_assert_uint_eq(twice_at_once(), 0);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

START_TEST(however_the_run_ends_it_is_not_counted)
{
    const char *config =
        e2e_config("tasks:\n  mail: {shell: '%s', dead_exit: [65], max_attempts: 1}\n",
                   strchr(recording("mail", first_run_hangs("trap \"exit 65\" TERM;")), '=') + 1);
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    expect_out(OUTBOX_RUN("requeue", "--running", "--json"), "{\"requeueing\": 1}\n");
    expect_requeued(id, "2");
}
END_TEST

START_TEST(a_command_that_succeeds_in_spite_of_it_is_done)
{
    start("mail", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    expect_out(OUTBOX_RUN("requeue", "--running"), "1 requeueing\n");
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(id), 1);
    daemon_stop(&d);
}
END_TEST

START_TEST(answers_of_what_does_not_run)
{
    testdb_exec("SELECT outbox.enqueue('mail')");
    struct command_result r = OUTBOX_RUN("requeue", "1", "9");
    ck_assert_str_eq(r.out, "1: not running\n9: not found\n");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_out(OUTBOX_RUN("requeue", "--running"), "0 requeueing\n");
}
END_TEST

START_TEST(all_in_flight_of_a_task_or_of_a_dispatcher)
{
    struct daemon a;
    struct daemon b;
    FLEET(&a, "a", NULL, "--shell", recording("mail", wait_for_flag("go")));
    FLEET(&b, "b", NULL, "--shell", recording("bulk", wait_for_flag("go")));
    enqueue_jobs("mail", 2);
    enqueue_jobs("bulk", 2);
    wait_for_runs(4);
    expect_out(OUTBOX_RUN("requeue", "--running", "--dry-run"), "4 would be requeued\n");
    expect_out(OUTBOX_RUN("requeue", "--running", "--task", "mail", "--dry-run", "--json"),
               "{\"would_match\": 2}\n");
    expect_out(OUTBOX_RUN("requeue", "--running", "--task", "mail"), "2 requeueing\n");
    wait_for_runs(6);
    expect_out(OUTBOX_RUN("requeue", "--dispatcher", "b"), "2 requeueing\n");
    wait_for_runs(8);
    flag_raise("go");
    wait_until_all_done();
    for (long id = 1; id <= 4; id++)
        ck_assert_uint_eq(runs_of(id), 2);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

START_TEST(a_webhooks_transfer_is_dropped_and_sent_again)
{
    struct httpstub stub;
    static const struct httpstub_answer answers[] = {{.status = 200, .delay_ms = 600 * 1000},
                                                     {.status = 200}};
    char webhook[128];
    httpstub_start(&stub, answers, 2);
    (void)snprintf(webhook, sizeof webhook, "hook=http://127.0.0.1:%d/", stub.port);
    const char *const args[] = {"--webhook", webhook, NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_one("hook", "{}");
    bool ok = wait_until(httpstub_requests(&stub) == 1, E2E_WAIT_MS);
    ck_assert(ok);
    expect_out(OUTBOX_RUN("requeue", "--running"), "1 requeueing\n");
    wait_until_all_done();
    ck_assert_uint_eq(httpstub_requests(&stub), 2);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(a_workers_job_is_ended_with_its_process_and_run_by_another)
{
    const char *worker = test_file(
        "worker.py",
        "import json, os, signal, sys\n"
        "for line in sys.stdin.buffer:\n"
        "    m = json.loads(line)\n"
        "    r = {'op': 'ready', 'proto': 1}\n"
        "    if m['op'] != 'hello':\n"
        "        sys.stdin.buffer.read(m['len'])\n"
        "        first = not os.path.exists(sys.argv[1])\n"
        "        with open(sys.argv[1], 'a') as f: f.write('%s %d\\n' % (m['id'], m['attempt']))\n"
        "        while first: signal.pause()\n"
        "        r = {'id': m['id'], 'status': 'ok'}\n"
        "    sys.stdout.buffer.write(json.dumps(r).encode() + b'\\n')\n"
        "    sys.stdout.buffer.flush()\n",
        0644);
    const char *config = e2e_config(
        "tasks:\n  mail: {worker: [/usr/bin/python3, %s, %s], processes: 1, timeout: 1h}\n", worker,
        ran_path());
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    expect_out(OUTBOX_RUN("requeue", "--running"), "1 requeueing\n");
    expect_requeued(id, "2");
}
END_TEST

/* kill -9 of the dispatcher between the request and the end of the run: the restart gives the job
 * back as ever, and the request is not for the run that begins then. */
START_TEST(a_dispatcher_that_dies_in_the_middle_takes_the_request_with_it)
{
    start("mail", first_run_hangs("trap '' TERM;"));
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    ck_assert_str_eq(testdb_value("SELECT outbox.requeue(1)"), "requeueing");
    daemon_expect_log(&d, "event=requeueing", E2E_WAIT_MS);
    daemon_kill(&d, SIGKILL);
    (void)daemon_wait(&d, E2E_WAIT_MS);
    start("mail", first_run_hangs("trap '' TERM;"));
    wait_for_runs(2);
    ck_assert_str_eq(testdb_value("SELECT outbox.pause('other')"), "paused");
    daemon_expect_log(&d, "event=ready", 0);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(id), 2);
    ck_assert_uint_eq(daemon_log_count(&d, "event=requeueing"), 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_reconnect_in_the_middle_changes_nothing)
{
    start("mail", first_run_hangs("trap '' TERM;"));
    long id = enqueue_one("mail", "{}");
    wait_for_runs(1);
    testdb_exec("SELECT outbox.requeue(1); SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'outbox%'");
    expect_requeued(id, "2");
}
END_TEST

/* The claim is committed, and its answer not read yet. */
START_TEST(a_run_that_is_on_its_way_here_does_not_begin)
{
    start("mail", wait_for_flag("go"));
    hold_claims();
    long id = enqueue_one("mail", "{}");
    wait_for_held_claim();
    daemon_kill(&d, SIGSTOP);
    let_claims_go();
    bool ok = wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert_str_eq(testdb_value("SELECT outbox.requeue(1)"), "requeueing");
    daemon_kill(&d, SIGCONT);
    daemon_expect_log(&d, "event=requeued", E2E_WAIT_MS);
    flag_raise("go");
    wait_until_all_done();
    ck_assert_uint_le(runs_of(id), 2);
    ck_assert_uint_ge(runs_of(id), 1);
    daemon_stop(&d);
}
END_TEST

/* ---- cancel, of all that match ---- */

START_TEST(all_in_flight_is_cancelled_and_waited_for)
{
    start("mail", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    testdb_exec("SELECT outbox.enqueue('bulk')");
    expect_out(OUTBOX_RUN("cancel", "--running", "--task", "bulk"), "0 cancelled\n");
    expect_out(OUTBOX_RUN("cancel", "--running", "--task", "mail", "--wait"), "3 cancelled\n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 1);
    ck_assert_uint_eq(runs_count(), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(who_does_not_wait_is_told_how_many_are_ending)
{
    start("mail", "trap '' TERM; while :; do sleep 0.05; done");
    enqueue_jobs("mail", 2);
    wait_for_runs(2);
    expect_out(OUTBOX_RUN("cancel", "--running", "--json"),
               "{\"cancelled\": 0, \"cancelling\": 2}\n");
    struct command_result r = OUTBOX_RUN("cancel", "--running", "--wait", "--timeout", "1ms");
    ck_assert_str_eq(r.out, "0 cancelled, 2 cancelling\n");
    ck_assert_int_eq(r.exit_code, OB_EXIT_TRY_AGAIN);
    expect_out(OUTBOX_RUN("cancel", "--running", "--wait"), "2 cancelled\n");
    daemon_stop(&d);
}
END_TEST

START_TEST(what_waits_is_cancelled_by_state_task_and_key)
{
    testdb_exec(
        "SELECT outbox.enqueue('mail') FROM generate_series(1, 700);"
        "SELECT outbox.enqueue('mail', delay => '1 hour') FROM generate_series(1, 3);"
        "SELECT outbox.enqueue('bulk', key => 'k'); SELECT outbox.enqueue('bulk', key => 'k')");
    expect_out(OUTBOX_RUN("cancel", "--state", "ready", "--task", "mail", "--dry-run"),
               "700 would be cancelled\n");
    expect_out(OUTBOX_RUN("cancel", "--state", "ready", "--task", "mail"), "700 cancelled\n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE task = 'mail'"), 3);
    expect_out(OUTBOX_RUN("cancel", "--state", "scheduled,ready", "--min-age", "1h"),
               "0 cancelled\n");
    expect_out(OUTBOX_RUN("cancel", "--state", "scheduled,ready", "--key", "k"), "1 cancelled\n");
    expect_out(OUTBOX_RUN("cancel", "--state", "scheduled", "-s", "ready"), "4 cancelled\n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
}
END_TEST

START_TEST(what_is_meant_must_be_said)
{
    static const struct {
        const char *words[6];
        const char *error;
    } cases[] = {
        {{"cancel"}, "say which: ids, --running, or --state STATE"},
        {{"requeue"}, "say which: ids, or --running"},
        {{"cancel", "--task", "mail"}, "say in which state: --running, or --state STATE"},
        {{"requeue", "--task", "mail"}, "say in which state"},
        {{"cancel", "1", "--running"}, "not both"},
        {{"cancel", "--state", "lost"}, "--state \"lost\": expected ready, scheduled"},
        {{"cancel", "--state", "ready", "--running"}, "give one of them"},
        {{"requeue", "--running", "--task", "a b"}, "a b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct command_result r = run_outbox(NULL, cases[i].words);
        ck_assert_msg(strstr(r.err, cases[i].error) != NULL, "%zu: %s", i, r.err);
        ck_assert_int_eq(r.exit_code, OB_EXIT_USAGE);
    }
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("requeue");
    TCase *tc = tcase_create("requeue");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, a_running_command_is_ended_and_run_again_and_the_others_go_on);
    tcase_add_test(tc, never_do_two_run_it);
    tcase_add_test(tc, however_the_run_ends_it_is_not_counted);
    tcase_add_test(tc, a_command_that_succeeds_in_spite_of_it_is_done);
    tcase_add_test(tc, answers_of_what_does_not_run);
    tcase_add_test(tc, all_in_flight_of_a_task_or_of_a_dispatcher);
    tcase_add_test(tc, a_webhooks_transfer_is_dropped_and_sent_again);
    tcase_add_test(tc, a_workers_job_is_ended_with_its_process_and_run_by_another);
    tcase_add_test(tc, a_dispatcher_that_dies_in_the_middle_takes_the_request_with_it);
    tcase_add_test(tc, a_reconnect_in_the_middle_changes_nothing);
    tcase_add_test(tc, a_run_that_is_on_its_way_here_does_not_begin);
    tcase_add_test(tc, all_in_flight_is_cancelled_and_waited_for);
    tcase_add_test(tc, who_does_not_wait_is_told_how_many_are_ending);
    tcase_add_test(tc, what_waits_is_cancelled_by_state_task_and_key);
    tcase_add_test(tc, what_is_meant_must_be_said);
    return suite;
}
