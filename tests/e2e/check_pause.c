/* Paused tasks: no claims from the moment on at which the dispatchers have seen it, across
 * restarts, until the task is resumed; what runs goes on. And drains, which wait for nothing that
 * cannot run. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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
    const char *const args[] = {"--shell", recording(task, then), "--shell", recording("other", ""),
                                NULL};
    daemon_start_ready(&d, args, NULL);
}

static void expect_out(struct command_result r, int code, const char *out)
{
    ck_assert_msg(r.exit_code == code, "exit code %d: %s", r.exit_code, r.err);
    ck_assert_str_eq(r.out, out);
}

static long live(const char *task)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.job WHERE task = '%s'", task);
    return testdb_long(sql);
}

/* Others are served: with them, the paused task's jobs have been passed over. */
static void serve_others(void)
{
    enqueue_jobs("other", 5);
    bool ok = wait_until(live("other") == 0, E2E_WAIT_MS);
    ck_assert(ok);
}

START_TEST(jobs_of_a_paused_task_wait_and_the_others_run)
{
    start("mail", "");
    expect_out(OUTBOX_RUN("pause", "mail", "--reason", "moving house"), 0, "mail: paused\n");
    daemon_expect_log(&d, "event=paused task=mail", E2E_WAIT_MS);
    enqueue_jobs("mail", 5);
    serve_others();
    ck_assert_int_eq(live("mail"), 5);
    struct command_result r = OUTBOX_RUN("stats");
    ck_assert_msg(strstr(r.out, "paused: moving house") != NULL, "%s", r.out);
    r = OUTBOX_RUN("jobs");
    ck_assert_msg(strstr(r.out, "paused\n") != NULL, "%s", r.out);
    expect_out(OUTBOX_RUN("resume", "mail"), 0, "mail: resumed\n");
    wait_until_all_done();
    expect_all_ran(1, 10);
    daemon_stop(&d);
}
END_TEST

START_TEST(what_runs_goes_on_and_what_waits_behind_it_stays)
{
    const char *const args[] = {"--shell", recording("mail", wait_for_flag("go")), "--concurrency",
                                "1", NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_jobs("mail", 3);
    bool ok = wait_until(runs_count() == 1, E2E_WAIT_MS);
    ck_assert(ok);
    testdb_exec("SELECT outbox.pause('mail')");
    daemon_expect_log(&d, "event=paused task=mail running=1", E2E_WAIT_MS);
    flag_raise("go");
    ok = wait_until(live("mail") == 2, E2E_WAIT_MS);
    ck_assert(ok);
    testdb_exec("SELECT outbox.resume('mail')");
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_pause_outlives_the_dispatcher)
{
    testdb_exec("SELECT outbox.pause('mail', 'closed')");
    enqueue_jobs("mail", 3);
    start("mail", "");
    serve_others();
    daemon_stop(&d);
    start("mail", "");
    serve_others();
    ck_assert_int_eq(live("mail"), 3);
    ck_assert_uint_eq(runs_count(), 10);
    testdb_exec("SELECT outbox.resume('mail')");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

START_TEST(a_lost_connection_forgets_no_pause)
{
    start("mail", "");
    testdb_exec("SELECT outbox.pause('mail')");
    daemon_expect_log(&d, "event=paused task=mail", E2E_WAIT_MS);
    testdb_exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
                " LIKE 'outbox%'");
    enqueue_jobs("mail", 3);
    serve_others();
    ck_assert_int_eq(live("mail"), 3);
    testdb_exec("SELECT outbox.resume('mail')");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* Nobody is told: the next heartbeat asks. */
START_TEST(a_pause_that_was_not_told_of_is_seen_at_the_next_heartbeat)
{
    const char *const args[] = {"--shell", recording("mail", ""), "--lease", "6s", NULL};
    daemon_start_ready(&d, args, NULL);
    testdb_exec("SET outbox.notify = off; SELECT outbox.pause('mail')");
    daemon_expect_log(&d, "event=paused task=mail", E2E_WAIT_MS);
    enqueue_jobs("mail", 1);
    testdb_exec("SET outbox.notify = off; SELECT outbox.resume('mail')");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

START_TEST(a_handler_that_a_reload_brings_finds_its_task_paused)
{
    testdb_exec("SELECT outbox.pause('mail')");
    enqueue_jobs("mail", 2);
    const char *other = handler_script("other", "");
    const char *config = e2e_config("tasks:\n  other: {exec: [%s]}\n", other);
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    (void)e2e_config("tasks:\n  other: {exec: [%s]}\n  mail: {exec: [%s]}\n", other,
                     handler_script("mail", ""));
    daemon_kill(&d, SIGHUP);
    daemon_expect_log(&d, "event=reloaded", E2E_WAIT_MS);
    serve_others();
    ck_assert_int_eq(live("mail"), 2);
    testdb_exec("SELECT outbox.resume('mail')");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* The claim had been sent when the pause was seen: what it brings is given back uncounted. */
START_TEST(a_claim_under_way_begins_nothing_any_more)
{
    const char *const args[] = {"--shell", recording("mail", ""), "--lease", "12s", NULL};
    daemon_start_ready(&d, args, NULL);
    hold_claims();
    enqueue_jobs("mail", 2);
    wait_for_held_claim();
    testdb_exec("SELECT outbox.pause('mail')");
    daemon_expect_log(&d, "event=paused task=mail", E2E_WAIT_MS); /* by the heartbeat */
    let_claims_go();
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready' AND"
                                     " attempts = 0") == 2,
                         E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert_uint_eq(runs_count(), 0);
    testdb_exec("SELECT outbox.resume('mail')");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

START_TEST(every_dispatcher_obeys)
{
    struct daemon one;
    struct daemon two;
    FLEET(&one, "one", NULL, "--shell", recording("mail", ""), "--shell", recording("other", ""));
    FLEET(&two, "two", NULL, "--shell", recording("mail", ""), "--shell", recording("other", ""));
    testdb_exec("SELECT outbox.pause('mail')");
    daemon_expect_log(&one, "event=paused task=mail", E2E_WAIT_MS);
    daemon_expect_log(&two, "event=paused task=mail", E2E_WAIT_MS);
    enqueue_jobs("mail", 20);
    serve_others();
    ck_assert_int_eq(live("mail"), 20);
    testdb_exec("SELECT outbox.resume('mail')");
    expect_all_ran(1, 25);
    daemon_stop(&one);
    daemon_stop(&two);
}
END_TEST

START_TEST(an_endpoint_that_is_gone_pauses_its_task)
{
    struct httpstub stub;
    static const struct httpstub_answer gone = {.status = 410};
    char webhook[128];
    httpstub_start(&stub, &gone, 1);
    (void)snprintf(webhook, sizeof webhook, "hook=http://127.0.0.1:%d/", stub.port);
    const char *const args[] = {"--webhook", webhook, "--shell", recording("other", ""), NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_one("hook", "{}");
    daemon_expect_log(&d, "event=task_paused task=hook reason=\"HTTP 410\"", E2E_WAIT_MS);
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.pauses WHERE task = 'hook' AND"
                                     " reason = 'HTTP 410'") == 1,
                         E2E_WAIT_MS);
    ck_assert(ok);
    enqueue_jobs("hook", 3);
    serve_others();
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE task = 'hook' AND"
                                 " state = 'ready' AND paused"),
                     3);
    ck_assert_uint_eq(httpstub_requests(&stub), 1);
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(the_command_lists_and_answers)
{
    struct command_result r = OUTBOX_RUN("pause");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_str_eq(r.err, "no task is paused\n");
    expect_out(OUTBOX_RUN("pause", "mail", "post", "-r", "no \033stamps"), 0,
               "mail: paused\npost: paused\n");
    expect_out(OUTBOX_RUN("pause", "mail"), 0, "mail: already paused\n");
    r = OUTBOX_RUN("pause");
    ck_assert_msg(strstr(r.out, "no \\x1bstamps") != NULL, "%s", r.out);
    r = OUTBOX_RUN("resume", "mail", "--json");
    ck_assert_msg(strstr(r.out, "\"task\": \"mail\", \"answer\": \"resumed\"") != NULL, "%s",
                  r.out);
    expect_out(OUTBOX_RUN("resume", "mail", "post"), OB_EXIT_FAILED,
               "mail: not paused\npost: resumed\n");
    expect_out(OUTBOX_RUN("pause", "--json"), 0, "[]\n");
}
END_TEST

/* ---- drains ---- */

START_TEST(a_drain_does_not_wait_for_a_paused_task)
{
    testdb_exec("SELECT outbox.pause('mail')");
    enqueue_jobs("mail", 2);
    enqueue_jobs("other", 2);
    const char *const args[] = {
        "--drain", "--shell", recording("mail", ""), "--shell", recording("other", ""), NULL};
    daemon_start(&d, args, NULL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 0);
    ck_assert_int_eq(live("mail"), 2);
    ck_assert_int_eq(live("other"), 0);
}
END_TEST

START_TEST(a_drain_does_not_wait_for_a_handler_that_cannot_run)
{
    enqueue_jobs("mail", 2);
    enqueue_jobs("other", 2);
    const char *config = e2e_config("tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n",
                                    test_file("no-program", "", 0644), handler_script("other", ""));
    const char *const args[] = {"--drain", "--config", config, NULL};
    daemon_start(&d, args, NULL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), OB_EXIT_TRY_AGAIN);
    ck_assert(daemon_logged(&d, "event=drain_incomplete"));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE task = 'mail' AND"
                                 " state = 'ready' AND attempts = 0"),
                     2);
    ck_assert_int_eq(live("other"), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("pause");
    TCase *tc = tcase_create("pause");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, jobs_of_a_paused_task_wait_and_the_others_run);
    tcase_add_test(tc, what_runs_goes_on_and_what_waits_behind_it_stays);
    tcase_add_test(tc, a_pause_outlives_the_dispatcher);
    tcase_add_test(tc, a_lost_connection_forgets_no_pause);
    tcase_add_test(tc, a_pause_that_was_not_told_of_is_seen_at_the_next_heartbeat);
    tcase_add_test(tc, a_handler_that_a_reload_brings_finds_its_task_paused);
    tcase_add_test(tc, a_claim_under_way_begins_nothing_any_more);
    tcase_add_test(tc, every_dispatcher_obeys);
    tcase_add_test(tc, an_endpoint_that_is_gone_pauses_its_task);
    tcase_add_test(tc, the_command_lists_and_answers);
    tcase_add_test(tc, a_drain_does_not_wait_for_a_paused_task);
    tcase_add_test(tc, a_drain_does_not_wait_for_a_handler_that_cannot_run);
    return suite;
}
