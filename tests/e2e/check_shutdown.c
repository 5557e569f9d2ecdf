/* How the daemon ends: what runs may finish, what can't is given back uncounted, and the exit code
 * says whether every row was written. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

#define PROGRAM OB_TEST_BUILD_DIR "/bin/outbox"

static void start_config(const char *config)
{
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

/* Top-level keys, and one task "mail" that records its runs. */
static void start_mail(const char *keys, const char *body)
{
    start_config(
        e2e_config("%s\ntasks:\n  mail: {exec: [%s]}\n", keys, handler_script("mail", body)));
}

static void wait_for_runs(size_t n)
{
    bool ok = wait_until(runs_count() >= n, E2E_WAIT_MS);
    ck_assert_msg(ok, "%zu runs instead of %zu", runs_count(), n);
    ck_assert_uint_eq(runs_count(), n);
}

static void expect_exit(int code)
{
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), code);
}

/* n jobs, all as if never run; no dispatcher. */
static void expect_untouched(long n)
{
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready' AND "
                                 "attempts = 0 AND lost = 0 AND owner IS NULL"),
                     n);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), n);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
}

/* ---- asked to stop ---- */

static const int gentle[] = {SIGTERM, SIGINT};

START_TEST(running_jobs_finish_and_nothing_new_is_claimed)
{
    start_mail("concurrency: 3\nstop_timeout: 1h", wait_for_flag("go"));
    enqueue_jobs("mail", 5);
    wait_for_runs(3);
    daemon_kill(&d, gentle[_i]);
    daemon_expect_log(&d, "event=stopping", E2E_WAIT_MS);
    enqueue_jobs("mail", 2);
    flag_raise("go");
    expect_exit(0);
    ck_assert_uint_eq(runs_count(), 3);
    expect_untouched(4);
    daemon_expect_log(&d, "event=stopped", 0);
}
END_TEST

START_TEST(idle_daemon_stops_at_once_and_leaves_no_row)
{
    start_mail("stop_timeout: 1h", "");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 1);
    daemon_kill(&d, gentle[_i]);
    expect_exit(0);
    expect_untouched(0);
}
END_TEST

START_TEST(jobs_that_obey_term_are_given_back_uncounted)
{
    start_mail("stop_timeout: 1s", "exec sleep 600");
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    daemon_kill(&d, SIGTERM);
    expect_exit(0);
    expect_untouched(3);
}
END_TEST

START_TEST(jobs_that_ignore_term_are_killed_and_given_back_uncounted)
{
    start_mail("stop_timeout: 1s", "trap '' TERM\nwhile :; do sleep 0.05; done");
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    daemon_kill(&d, SIGTERM);
    expect_exit(0);
    expect_untouched(3);
    daemon_expect_log(&d, "step=KILL", 0);
}
END_TEST

/* What is done at the last moment is done. */
START_TEST(job_that_succeeds_when_told_to_end_is_done)
{
    start_mail("stop_timeout: 2s", "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done");
    enqueue_jobs("mail", 1);
    wait_for_runs(1);
    daemon_kill(&d, SIGTERM);
    expect_exit(0);
    expect_untouched(0);
}
END_TEST

START_TEST(second_term_skips_the_wait)
{
    start_mail("stop_timeout: 1h", "exec sleep 600");
    enqueue_jobs("mail", 2);
    wait_for_runs(2);
    daemon_kill(&d, SIGTERM);
    daemon_expect_log(&d, "event=stopping", E2E_WAIT_MS);
    daemon_kill(&d, SIGTERM);
    expect_exit(0);
    expect_untouched(2);
}
END_TEST

START_TEST(quit_kills_at_once)
{
    start_mail("stop_timeout: 1h", "trap '' TERM\nwhile :; do sleep 0.05; done");
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    daemon_kill(&d, SIGQUIT);
    expect_exit(0);
    expect_untouched(3);
}
END_TEST

START_TEST(quit_ends_a_stop_that_takes_long)
{
    start_mail("stop_timeout: 1h", "trap '' TERM\nwhile :; do sleep 0.05; done");
    enqueue_jobs("mail", 2);
    wait_for_runs(2);
    daemon_kill(&d, SIGTERM);
    daemon_expect_log(&d, "event=stopping", E2E_WAIT_MS);
    daemon_kill(&d, SIGQUIT);
    expect_exit(0);
    expect_untouched(2);
}
END_TEST

/* ---- without the database ---- */

/* Results that can't be recorded are left to their lease, the exit code says so, and the jobs run
 * again at once when the daemon is back on this host. */
START_TEST(results_that_cannot_be_recorded_end_in_75)
{
    start_mail("stop_timeout: 1s\nlease: 1h", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    pgcluster_crash();
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    flag_raise("go");
    daemon_kill(&d, SIGTERM);
    expect_exit(75);
    daemon_expect_log(&d, "event=results_not_recorded", 0);
    pgcluster_start_again();
    start_mail("stop_timeout: 1s\nlease: 1h", wait_for_flag("go"));
    expect_all_ran(1, 3);
    daemon_expect_log(&d, "event=took_over", 0);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 6);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
}
END_TEST

START_TEST(quit_without_the_database_is_bounded_too)
{
    start_mail("stop_timeout: 1h\nlease: 1h", "trap '' TERM\nwhile :; do sleep 0.05; done");
    enqueue_jobs("mail", 2);
    wait_for_runs(2);
    pgcluster_crash();
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    daemon_kill(&d, SIGQUIT);
    expect_exit(75);
    pgcluster_start_again();
}
END_TEST

/* A payload that is being fetched when the server goes, and never arrives. */
START_TEST(quit_while_a_payload_cannot_be_fetched)
{
    testdb_exec("CREATE OR REPLACE FUNCTION outbox.payload(id bigint) RETURNS bytea LANGUAGE "
                "plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$");
    start_mail("stop_timeout: 1h\nlease: 1h", "");
    testdb_exec("SELECT outbox.enqueue('mail', to_jsonb(repeat('x', 100000)))");
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1,
        E2E_WAIT_MS));
    pgcluster_crash();
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    daemon_kill(&d, SIGQUIT);
    expect_exit(75);
    ck_assert_uint_eq(runs_count(), 0);
    pgcluster_start_again();
}
END_TEST

START_TEST(daemon_that_never_had_a_server_stops)
{
    pgcluster_crash();
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start(&d, args, NULL);
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    daemon_kill(&d, SIGTERM);
    expect_exit(0);
    pgcluster_start_again();
}
END_TEST

/* The server is back within stop_timeout: everything is written after all. */
START_TEST(results_are_recorded_when_the_server_comes_back_in_time)
{
    start_mail("stop_timeout: 1h\nlease: 1h", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    pgcluster_crash();
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    flag_raise("go");
    daemon_kill(&d, SIGTERM);
    daemon_expect_log(&d, "event=stopping", E2E_WAIT_MS);
    pgcluster_start_again();
    expect_exit(0);
    expect_untouched(0);
    ck_assert_uint_eq(runs_count(), 3);
}
END_TEST

/* A claim whose answer is on its way when TERM comes is given back, not run. */
START_TEST(claim_under_way_at_the_stop_is_given_back)
{
    hold_claims();
    enqueue_jobs("mail", 3);
    start_mail("stop_timeout: 1h", "");
    wait_for_held_claim();
    daemon_kill(&d, SIGTERM);
    daemon_expect_log(&d, "event=stopping", E2E_WAIT_MS);
    let_claims_go();
    expect_exit(0);
    ck_assert_uint_eq(runs_count(), 0);
    expect_untouched(3);
}
END_TEST

/* A server that neither answers nor hangs up. */
static void freeze(int signum)
{
    long pid = testdb_long("SELECT d.backends[1] FROM outbox.dispatchers d");
    ck_assert_int_eq(kill((pid_t)pid, signum), 0);
}

START_TEST(server_that_hangs_cannot_hold_up_the_stop)
{
    start_mail("stop_timeout: 1s\nlease: 1h", wait_for_flag("go"));
    enqueue_jobs("mail", 3);
    wait_for_runs(3);
    freeze(SIGSTOP);
    flag_raise("go"); /* the results are sent, and no answer comes */
    daemon_kill(&d, SIGTERM);
    expect_exit(75);
    freeze(SIGCONT);
}
END_TEST

/* ---- --drain ---- */

static void drain(const char *config)
{
    const char *const args[] = {"--drain", "--config", config, NULL};
    daemon_start(&d, args, NULL);
    expect_exit(0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
}

START_TEST(drain_ends_when_there_is_nothing)
{
    drain(e2e_config("tasks:\n  mail: {exec: [%s]}\n", handler_script("mail", "")));
    ck_assert_uint_eq(runs_count(), 0);
}
END_TEST

/* Ready jobs of several tasks run; those scheduled for later, or without a handler, stay. */
START_TEST(drain_runs_what_is_ready_and_leaves_the_rest)
{
    enqueue_jobs("mail", 500);
    enqueue_jobs("other", 20);
    testdb_exec("SELECT outbox.enqueue('mail', delay => '1 hour')");
    testdb_exec("SELECT outbox.enqueue('nobody')");
    drain(e2e_config("concurrency: 4\npoll_interval: 1h\ntasks:\n  mail: {exec: [%s]}\n"
                     "  other: {exec: [%s], concurrency: 1}\n",
                     handler_script("mail", ""), handler_script("other", "")));
    ck_assert_uint_eq(runs_count(), 520);
    ck_assert_uint_eq(runs_distinct(), 520);
    ck_assert_str_eq(
        testdb_value(
            "SELECT string_agg(task || ' ' || state, ', ' ORDER BY task) FROM outbox.jobs"),
        "mail scheduled, nobody ready");
}
END_TEST

/* A failed job waits for its backoff: it is scheduled, and left. */
START_TEST(drain_does_not_wait_for_retries)
{
    enqueue_jobs("mail", 2);
    drain(e2e_config("tasks:\n  mail: {exec: [%s], backoff: 1h}\n",
                     handler_script("mail", "exit 1")));
    ck_assert_uint_eq(runs_count(), 2);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'scheduled'"), 2);
}
END_TEST

/* Jobs that enqueue jobs: all of the chain, whether or not the producers notify. */
static void drain_chain(const char *env)
{
    char body[1024];
    (void)snprintf(body, sizeof body,
                   "n=$(sed 's/[^0-9]//g')\n"
                   "[ $n -eq 0 ] || %s %s enqueue --database '%s' mail \"{\\\"n\\\": $((n - 1))}\"",
                   env, PROGRAM, testdb_conninfo());
    (void)enqueue_one("mail", "{\"n\": 6}");
    (void)enqueue_one("mail", "{\"n\": 2}");
    drain(e2e_config("poll_interval: 1h\nlease: 1h\ntasks:\n  mail: {exec: [%s]}\n",
                     handler_script("mail", body)));
    ck_assert_uint_eq(runs_distinct(), 10);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 0);
}

START_TEST(drain_follows_jobs_that_enqueue_jobs)
{
    drain_chain("");
}
END_TEST

START_TEST(drain_follows_jobs_that_are_enqueued_without_notify)
{
    drain_chain("env PGOPTIONS='-c outbox.notify=off'");
}
END_TEST

/* ---- USR1 ---- */

/* Quiet: due jobs become ready, so it does look, and claims nothing; then again. */
START_TEST(usr1_pauses_claims_and_goes_on)
{
    start_mail("poll_interval: 50ms", wait_for_flag("go"));
    long running = enqueue_one("mail", "{}");
    wait_for_runs(1);
    daemon_kill(&d, SIGUSR1);
    daemon_expect_log(&d, "event=quiet", E2E_WAIT_MS);
    testdb_exec("SELECT outbox.enqueue('mail', delay => '300 milliseconds')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready'") == 1,
                         E2E_WAIT_MS));
    flag_raise("go"); /* what runs goes on, and is recorded */
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, E2E_WAIT_MS));
    testdb_exec("SELECT outbox.enqueue('mail', delay => '300 milliseconds')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready'") == 2,
                         E2E_WAIT_MS));
    ck_assert_uint_eq(runs_count(), 1);
    daemon_kill(&d, SIGUSR1);
    daemon_expect_log(&d, "event=loud", E2E_WAIT_MS);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(running), 1);
    ck_assert_uint_eq(runs_count(), 3);
}
END_TEST

START_TEST(quiet_daemon_stops)
{
    start_mail("stop_timeout: 1h", "");
    daemon_kill(&d, SIGUSR1);
    daemon_expect_log(&d, "event=quiet", E2E_WAIT_MS);
    enqueue_jobs("mail", 2);
    daemon_stop(&d);
    expect_untouched(2);
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
    Suite *s = suite_create("shutdown");
    TCase *tc = server_tcase(s, "signals");
    tcase_add_loop_test(tc, running_jobs_finish_and_nothing_new_is_claimed, 0, 2);
    tcase_add_loop_test(tc, idle_daemon_stops_at_once_and_leaves_no_row, 0, 2);
    tcase_add_test(tc, jobs_that_obey_term_are_given_back_uncounted);
    tcase_add_test(tc, jobs_that_ignore_term_are_killed_and_given_back_uncounted);
    tcase_add_test(tc, job_that_succeeds_when_told_to_end_is_done);
    tcase_add_test(tc, second_term_skips_the_wait);
    tcase_add_test(tc, quit_kills_at_once);
    tcase_add_test(tc, quit_ends_a_stop_that_takes_long);
    tcase_add_test(tc, claim_under_way_at_the_stop_is_given_back);
    tcase_add_test(tc, usr1_pauses_claims_and_goes_on);
    tcase_add_test(tc, quiet_daemon_stops);
    tc = server_tcase(s, "without the database");
    tcase_add_test(tc, results_that_cannot_be_recorded_end_in_75);
    tcase_add_test(tc, quit_without_the_database_is_bounded_too);
    tcase_add_test(tc, quit_while_a_payload_cannot_be_fetched);
    tcase_add_test(tc, server_that_hangs_cannot_hold_up_the_stop);
    tcase_add_test(tc, daemon_that_never_had_a_server_stops);
    tcase_add_test(tc, results_are_recorded_when_the_server_comes_back_in_time);
    tc = server_tcase(s, "drain");
    tcase_add_test(tc, drain_ends_when_there_is_nothing);
    tcase_add_test(tc, drain_runs_what_is_ready_and_leaves_the_rest);
    tcase_add_test(tc, drain_does_not_wait_for_retries);
    tcase_add_test(tc, drain_follows_jobs_that_enqueue_jobs);
    tcase_add_test(tc, drain_follows_jobs_that_are_enqueued_without_notify);
    return s;
}
