/* The worker handler on the whole path: PostgreSQL, the dispatcher, resident processes that live,
 * die, hang and lie. The worker is tests/support/worker: payloads tell it what to do. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

/* "PATH TAG", which no other run has among its processes. */
static const char *worker_line(void)
{
    static char text[300];
    (void)snprintf(text, sizeof text, "%s tag%d", OB_TEST_WORKER, (int)getpid());
    return text;
}

static size_t workers(void)
{
    return processes_with(worker_line());
}

/* A configuration with the task "w": arguments (", greedy") and keys (", window: 3"). */
static const char *config_with(const char *arguments, const char *keys)
{
    return e2e_config("tasks:\n  w: {worker: [%s, tag%d%s]%s, backoff: 0}\n", OB_TEST_WORKER,
                      (int)getpid(), arguments, keys);
}

static void start(const char *arguments, const char *keys)
{
    const char *const args[] = {"--config", config_with(arguments, keys), NULL};
    daemon_start_ready(&d, args, NULL);
}

static void reload(void)
{
    size_t before = daemon_log_count(&d, "event=reloaded");
    daemon_kill(&d, SIGHUP);
    ck_assert(wait_until(daemon_log_count(&d, "event=reloaded") > before, E2E_WAIT_MS));
}

/* A payload: a JSON string. */
static const char *order(const char *verb, const char *rest)
{
    static char texts[4][300];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    (void)snprintf(text, sizeof texts[0], "\"%s %s\"", verb, rest);
    return text;
}

static void enqueue_records(const char *task, long n)
{
    char sql[600];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(outbox.enqueue('%s', '%s')) FROM generate_series(1, %ld)", task,
                   order("record", ran_path()), n);
    ck_assert_int_eq(testdb_long(sql), n);
}

static void wait_for_reason(const char *reason, long n)
{
    char sql[400];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.attempts WHERE reason = '%s'",
                   reason);
    bool ok = wait_until(testdb_long(sql) >= n, E2E_WAIT_MS);
    ck_assert_msg(ok, "no \"%s\" but %s", reason,
                  testdb_value("SELECT string_agg(reason, '; ') FROM outbox.attempts"));
}

/* ---- what goes well ---- */

START_TEST(jobs_run_in_resident_processes)
{
    start("", ", processes: 2, startup: 2");
    ck_assert(wait_until(workers() == 2, E2E_WAIT_MS)); /* before there is a job */
    enqueue_records("w", 500);
    expect_all_ran(1, 500);
    ck_assert_uint_eq(runs_count(), 500);
    ck_assert_uint_eq(workers(), 2);
    daemon_stop(&d);
    ck_assert_uint_eq(workers(), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "level=warn"), 0);
}
END_TEST

START_TEST(option_worker_registers_a_handler)
{
    char spec[300];
    (void)snprintf(spec, sizeof spec, "w=%s", OB_TEST_WORKER);
    const char *const args[] = {"--worker", spec, NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_records("w", 5);
    expect_all_ran(1, 5);
    daemon_stop(&d);
}
END_TEST

START_TEST(answers_are_recorded)
{
    start("", ", max_attempts: 2");
    long id = enqueue_one(
        "w", "\"answer \\\"status\\\":\\\"dead\\\",\\\"error\\\":\\\"no such customer\\\"\"");
    wait_until_all_done();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "no such customer");
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), id);
    (void)enqueue_one("w", "\"answer \\\"status\\\":\\\"retry\\\",\\\"after\\\":3600\"");
    wait_for_reason("retry", 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'scheduled' AND "
                                 "run_at > now() + interval '50 minutes'"),
                     1);
    daemon_stop(&d);
}
END_TEST

START_TEST(payload_of_16_mib_arrives_whole)
{
    start("", "");
    testdb_exec("SELECT outbox.enqueue('w', to_jsonb('size ' || repeat('x', 16777209)))");
    wait_until_all_done();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "size 16777214");
    daemon_stop(&d);
}
END_TEST

START_TEST(window_is_never_exceeded)
{
    start(", greedy, window=3", ", window: 5, processes: 1, concurrency: 50");
    enqueue_jobs("w", 40);
    wait_until_all_done();
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead WHERE reason LIKE 'batch %'"),
                     40);
    ck_assert_int_eq(testdb_long("SELECT max(substr(reason, 7)::int) FROM outbox.dead"), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(workers_are_recycled_without_losing_a_job)
{
    start("", ", processes: 2, max_jobs: 7");
    enqueue_records("w", 200);
    expect_all_ran(1, 200);
    ck_assert_uint_eq(runs_count(), 200);
    daemon_stop(&d);
    ck_assert_uint_eq(daemon_log_count(&d, "event=worker_died"), 0);
}
END_TEST

START_TEST(idle_workers_above_startup_end)
{
    start("", ", processes: 4, startup: 1, idle_timeout: 300ms");
    for (int i = 0; i < 8; i++)
        (void)enqueue_one("w", "\"touch 30\"");
    ck_assert(wait_until(workers() == 4, E2E_WAIT_MS));
    wait_until_all_done();
    ck_assert(wait_until(workers() == 1, E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

START_TEST(standard_error_is_in_the_log)
{
    start("", "");
    (void)enqueue_one("w", "\"err 3\"");
    wait_until_all_done();
    daemon_expect_log(&d, "event=worker_stderr task=w pid=", E2E_WAIT_MS);
    daemon_expect_log(&d, "text=\"line 2\"", E2E_WAIT_MS);
    daemon_stop(&d);
}
END_TEST

/* ---- deaths ---- */

static const char *const crash_points[] = {"worker_started", "worker_job_given", "worker_replied",
                                           "worker_exited"};

START_TEST(dispatcher_that_dies_at_a_point_loses_nothing)
{
    char crash[80];
    (void)snprintf(crash, sizeof crash, "OB_CRASH=%s:2", crash_points[_i]);
    const char *const args[] = {
        "--config", config_with(", window=4", ", processes: 2, window: 4, max_jobs: 5"), NULL};
    const char *const env[] = {crash, NULL};
    enqueue_records("w", 60);
    daemon_start(&d, args, env);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 137);
    ck_assert(wait_until(workers() == 0, E2E_WAIT_MS));
    long held = testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL");
    daemon_start_ready(&d, args, NULL);
    expect_all_ran(1, 60);
    daemon_stop(&d);
    ck_assert_uint_le(runs_count(), 60 + (size_t)held);
}
END_TEST

START_TEST(killed_dispatcher_leaves_no_worker)
{
    start("", ", processes: 3, startup: 3");
    for (int i = 0; i < 3; i++)
        (void)enqueue_one("w", "\"deaf\"");
    ck_assert(wait_until(workers() == 3, E2E_WAIT_MS));
    daemon_kill(&d, SIGKILL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 128 + SIGKILL);
    ck_assert(wait_until(workers() == 0, E2E_WAIT_MS));
    testdb_exec("UPDATE outbox.job SET payload = convert_to('{}', 'UTF8')");
    start("", "");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

static pid_t spawner_of(pid_t parent)
{
    char path[80];
    long child = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%ld", &child), 1);
    (void)fclose(f);
    return (pid_t)child;
}

START_TEST(killed_spawner_is_replaced_and_so_are_its_workers)
{
    start("", ", processes: 2, startup: 2, max_attempts: 1");
    (void)enqueue_one("w", "\"hold\"");
    ck_assert(wait_until(workers() == 2, E2E_WAIT_MS));
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS));
    ck_assert_int_eq(kill(spawner_of(d.pid), SIGKILL), 0);
    daemon_expect_log(&d, "event=spawner_died", E2E_WAIT_MS);
    wait_until_all_done();
    ck_assert_ptr_nonnull(strstr(testdb_value("SELECT reason FROM outbox.dead"), "worker died"));
    enqueue_records("w", 20);
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 20);
    ck_assert(wait_until(workers() == 2, E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

/* Promise 6: bounded, and the others get through. */
START_TEST(job_that_kills_its_worker_ends_dead)
{
    start("", ", processes: 1, max_attempts: 3, restart_backoff: 10ms");
    long poison = enqueue_one("w", order("poison", ran_path()));
    enqueue_records("w", 20);
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(poison), 3);
    ck_assert_uint_eq(runs_distinct(), 21);
    ck_assert_uint_eq(runs_count(), 23);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), poison);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"),
                     "worker died: signal 9 (attempt 3 of 3)");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts WHERE signal = 9"), 3);
    daemon_expect_log(&d, "event=worker_died", E2E_WAIT_MS);
    daemon_stop(&d);
}
END_TEST

/* ---- time ---- */

START_TEST(late_job_is_tried_again_and_its_neighbours_are_not_counted)
{
    start(", window=4", ", processes: 1, window: 4, timeout: 700ms, max_attempts: 1");
    long late = enqueue_one("w", "\"hold\"");
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS));
    wait_for_reason("timeout (attempt 1 of 1)", 1);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), late);
    daemon_expect_log(&d, "event=worker_timed_out task=w pid=", E2E_WAIT_MS);
    enqueue_records("w", 3);
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(touched_job_may_exceed_its_timeout)
{
    start("", ", timeout: 400ms, max_attempts: 1");
    (void)enqueue_one("w", "\"touch 30\"");
    wait_until_all_done();
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(worker_that_ignores_term_is_killed)
{
    start("", ", timeout: 300ms, max_attempts: 1");
    (void)enqueue_one("w", "\"deaf\"");
    wait_for_reason("timeout (attempt 1 of 1)", 1);
    daemon_stop(&d);
    ck_assert_uint_eq(workers(), 0);
}
END_TEST

/* ---- lies ---- */

static const char *const lies[][2] = {
    {"\"raw hello\"", "worker protocol error: not one JSON object in a line: hello"},
    {"\"raw {\\\"id\\\":\\\"999999\\\",\\\"status\\\":\\\"ok\\\"}\"",
     "worker protocol error: no job of this id is in its hands: "
     "{\"id\":\"999999\",\"status\":\"ok\"}"},
    {"\"nul\"", "worker protocol error: not one JSON object in a line: {\"id\":\"1?\"}"},
    {"\"long\"", "worker protocol error: a line of more than 64 KiB"},
    {"\"closeout\"", "worker protocol error: it closed its standard input or output"},
};

START_TEST(broken_protocol_costs_one_worker_and_one_attempt)
{
    start("", ", processes: 1, max_attempts: 1, restart_backoff: 10ms");
    (void)enqueue_one("w", lies[_i][0]);
    enqueue_records("w", 5);
    wait_until_all_done();
    const char *reason = testdb_value("SELECT reason FROM outbox.dead");
    ck_assert_msg(strncmp(reason, lies[_i][1], strlen(lies[_i][1])) == 0, "%s", reason);
    ck_assert_uint_eq(runs_count(), 5);
    daemon_expect_log(&d, "level=error event=worker_protocol_error task=w pid=", E2E_WAIT_MS);
    daemon_stop(&d);
}
END_TEST

/* ---- beginnings ---- */

static const char *const beginnings[][2] = {
    {", exit=1", "was not ready: exit 1"},
    {", garbage", "was not ready: not one JSON object in a line: Traceback"},
    {", mute", "was not ready: it did not say so within start_timeout"},
};

/* No attempt is used up; when the worker is mended, the jobs run without anybody's help. */
START_TEST(worker_that_cannot_begin_costs_no_attempt)
{
    start(beginnings[_i][0], ", start_timeout: 300ms");
    enqueue_records("w", 3);
    daemon_expect_log(&d, beginnings[_i][1], E2E_WAIT_MS);
    daemon_expect_log(&d, "event=handler_misconfigured task=w", E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    (void)config_with("", "");
    reload();
    expect_all_ran(1, 3);
    ck_assert_uint_eq(runs_count(), 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(missing_program_is_named_and_found_when_it_is_there)
{
    const char *path = flag_path("worker");
    const char *const args[] = {
        "--config", e2e_config("tasks:\n  w: {worker: [%s], restart_backoff: 50ms}\n", path), NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_records("w", 3);
    daemon_expect_log(&d, "event=handler_misconfigured task=w", E2E_WAIT_MS);
    daemon_expect_log(&d, "No such file or directory", E2E_WAIT_MS);
    ck_assert_int_eq(symlink(OB_TEST_WORKER, path), 0);
    expect_all_ran(1, 3);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
    daemon_stop(&d);
}
END_TEST

/* ---- reload and stop ---- */

START_TEST(reload_replaces_changed_workers_and_no_others)
{
    start("", ", processes: 1");
    enqueue_records("w", 2);
    expect_all_ran(1, 2);
    ck_assert_uint_eq(workers(), 1);
    (void)config_with("", ", processes: 1, max_attempts: 7");
    reload();
    enqueue_records("w", 2);
    expect_all_ran(1, 4);
    (void)e2e_config("tasks:\n  w: {worker: [%s, other%d]}\n", OB_TEST_WORKER, (int)getpid());
    reload();
    ck_assert(wait_until(workers() == 0, E2E_WAIT_MS));
    enqueue_records("w", 2);
    expect_all_ran(1, 6);
    ck_assert_uint_eq(runs_count(), 6);
    daemon_stop(&d);
}
END_TEST

START_TEST(stop_lets_jobs_finish_and_gives_the_others_back)
{
    start("", ", processes: 1, concurrency: 10");
    for (int i = 0; i < 5; i++)
        (void)enqueue_one("w", "\"touch 30\"");
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 5, E2E_WAIT_MS));
    daemon_stop(&d);
    ck_assert_uint_eq(workers(), 0);
    ck_assert_int_ge(testdb_long("SELECT count(*) FROM outbox.job WHERE attempts = 0"), 3);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL"), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
}
END_TEST

START_TEST(stop_ends_workers_that_never_answer_and_never_end)
{
    const char *config = e2e_config("stop_timeout: 1s\ntasks:\n  w: {worker: [%s, tag%d, deaf], "
                                    "processes: 2, startup: 2}\n",
                                    OB_TEST_WORKER, (int)getpid());
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    (void)enqueue_one("w", "\"hold\"");
    ck_assert(wait_until(workers() == 2 && testdb_long("SELECT count(*) FROM outbox.jobs WHERE "
                                                       "state = 'running'") == 1,
                         E2E_WAIT_MS));
    daemon_stop(&d);
    ck_assert_uint_eq(workers(), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NULL"), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 0);
}
END_TEST

START_TEST(quit_kills_all_at_once)
{
    start(", deaf", ", processes: 2, startup: 2");
    (void)enqueue_one("w", "\"deaf\"");
    ck_assert(wait_until(workers() == 2 && testdb_long("SELECT count(*) FROM outbox.jobs WHERE "
                                                       "state = 'running'") == 1,
                         E2E_WAIT_MS));
    daemon_kill(&d, SIGQUIT);
    ck_assert_int_eq(daemon_wait(&d, 4000), 0); /* not by the grace of 5 s */
    ck_assert_uint_eq(workers(), 0);
}
END_TEST

/* ---- outbox try ---- */

START_TEST(try_runs_a_worker_once)
{
    const char *config = config_with("", "");
    struct command_result r = OUTBOX_RUN("try", "--config", config, "w", "\"pid\"");
    ck_assert_msg(strstr(r.out, "outcome  dead: pid ") != NULL, "%s%s", r.out, r.err);
    r = OUTBOX_RUN("try", "--config", config, "w", "{}");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "w by worker"));
    r = OUTBOX_RUN("try", "--config", config, "w", "\"say oops\"");
    ck_assert_int_eq(r.exit_code, 1);
    ck_assert_ptr_nonnull(strstr(r.out, "worker died: exit 9"));
    ck_assert_ptr_nonnull(strstr(r.err, "oops"));
    r = OUTBOX_RUN("check", "--config", config);
    ck_assert_ptr_nonnull(strstr(r.out, worker_line()));
    ck_assert_uint_eq(workers(), 0);
}
END_TEST

static void add_cases(Suite *s, TCase *tc)
{
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    suite_add_tcase(s, tc);
}

Suite *test_suite(void)
{
    Suite *s = suite_create("worker");
    TCase *well = tcase_create("well");
    add_cases(s, well);
    tcase_add_test(well, jobs_run_in_resident_processes);
    tcase_add_test(well, option_worker_registers_a_handler);
    tcase_add_test(well, answers_are_recorded);
    tcase_add_test(well, payload_of_16_mib_arrives_whole);
    tcase_add_test(well, window_is_never_exceeded);
    tcase_add_test(well, workers_are_recycled_without_losing_a_job);
    tcase_add_test(well, idle_workers_above_startup_end);
    tcase_add_test(well, standard_error_is_in_the_log);
    tcase_add_test(well, try_runs_a_worker_once);
    TCase *ill = tcase_create("ill");
    add_cases(s, ill);
    tcase_add_loop_test(ill, dispatcher_that_dies_at_a_point_loses_nothing, 0,
                        (int)(sizeof crash_points / sizeof crash_points[0]));
    tcase_add_test(ill, killed_dispatcher_leaves_no_worker);
    tcase_add_test(ill, killed_spawner_is_replaced_and_so_are_its_workers);
    tcase_add_test(ill, job_that_kills_its_worker_ends_dead);
    tcase_add_test(ill, late_job_is_tried_again_and_its_neighbours_are_not_counted);
    tcase_add_test(ill, touched_job_may_exceed_its_timeout);
    tcase_add_test(ill, worker_that_ignores_term_is_killed);
    tcase_add_loop_test(ill, broken_protocol_costs_one_worker_and_one_attempt, 0,
                        (int)(sizeof lies / sizeof lies[0]));
    tcase_add_loop_test(ill, worker_that_cannot_begin_costs_no_attempt, 0,
                        (int)(sizeof beginnings / sizeof beginnings[0]));
    tcase_add_test(ill, missing_program_is_named_and_found_when_it_is_there);
    tcase_add_test(ill, reload_replaces_changed_workers_and_no_others);
    tcase_add_test(ill, stop_lets_jobs_finish_and_gives_the_others_back);
    tcase_add_test(ill, stop_ends_workers_that_never_answer_and_never_end);
    tcase_add_test(ill, quit_kills_all_at_once);
    return s;
}
