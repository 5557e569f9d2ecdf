/* Promises 2, 3, 5: whatever dies at whatever moment, every committed job still runs.
 *
 * The oracle after each fault: every job ran at least once, nothing is live, owned or dead, and no
 * job was run by two at once. */
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

#define START(...) daemon_start_ready(&d, (const char *const[]){__VA_ARGS__, NULL}, NULL)

/* The named places in the daemon where it may die: every OB_CRASH_POINT of dispatcher/ but the
 * spawner's. */
static const char *const crash_points[] = {
    "before_claim",      "after_claim_sent", "after_claim_before_start", "before_start",
    "after_start",       "command_exited",   "after_run_before_settle",  "before_settle",
    "after_settle_sent", "after_settle",
};
#define SLEEP_POINT "after_watch_sent" /* reached when nothing is left to do */
enum { CRASH_POINTS = sizeof crash_points / sizeof crash_points[0], JOBS = 100 };

/* Dies at the point (first and a later time), is started again with nothing changed, and finishes.
 */
static void die_and_restart(const char *point, int nth)
{
    char crash[80];
    (void)snprintf(crash, sizeof crash, "OB_CRASH=%s:%d", point, nth);
    const char *const args[] = {"--concurrency", "3", "--shell", recording("mail", ""), NULL};
    const char *const env[] = {crash, NULL};
    enqueue_jobs("mail", JOBS);
    daemon_start(&d, args, env);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 137);
    ck_assert_msg(runs_distinct() < JOBS, "the crash came after everything was over");
    daemon_start_ready(&d, args, NULL);
    expect_all_ran(1, JOBS);
    daemon_stop(&d);
    ck_assert_uint_le(runs_most(), 2); /* what ran at the crash, or was not recorded yet */
}

START_TEST(dies_at_a_point_the_first_time)
{
    die_and_restart(crash_points[_i], 1);
}
END_TEST

START_TEST(dies_at_a_point_the_third_time)
{
    die_and_restart(crash_points[_i], 3);
}
END_TEST

/* It has done everything, and holds locks that others feel, or is about to: they end with it, and
 * what comes afterwards is not lost. */
START_TEST(dies_falling_asleep)
{
    const char *const env[] = {"OB_CRASH=" SLEEP_POINT, NULL};
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    enqueue_jobs("mail", 5);
    daemon_start(&d, args, env);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 137);
    enqueue_jobs("mail", 5);
    daemon_start_ready(&d, args, NULL);
    expect_all_ran(1, 10);
    enqueue_jobs("mail", 5);
    expect_all_ran(1, 15);
    daemon_stop(&d);
    ck_assert_uint_le(runs_most(), 2); /* what ran while it fell asleep ran twice */
    ck_assert(
        wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0,
                   E2E_WAIT_MS));
}
END_TEST

static bool is_tested(const char *point)
{
    if (strcmp(point, SLEEP_POINT) == 0)
        return true;
    for (size_t i = 0; i < CRASH_POINTS; i++) {
        if (strcmp(crash_points[i], point) == 0)
            return true;
    }
    return false;
}

/* A crash point that nobody dies at proves nothing: each one that the sources have is above, or is
 * tested with the spawner (unit/check_spawner_death.c), or with workers (check_worker.c). */
START_TEST(every_crash_point_of_the_sources_is_tested)
{
    FILE *f = popen("grep -rhoE '^ +OB_CRASH_POINT\\(\"[a-z_]+\"\\);' " OB_TEST_SOURCE_DIR
                    "/dispatcher | cut -d'\"' -f2 | sort -u",
                    "r");
    char point[100];
    size_t found = 0;
    ck_assert_ptr_nonnull(f);
    while (fscanf(f, "%99s", point) == 1) {
        if (strcmp(point, "spawner_child_started") == 0 || strncmp(point, "worker_", 7) == 0)
            continue;
        ck_assert_msg(is_tested(point), "no test dies at \"%s\"", point);
        found++;
    }
    ck_assert_int_eq(pclose(f), 0);
    ck_assert_uint_eq(found, CRASH_POINTS + 1);
}
END_TEST

/* The child of `parent` that is the spawner. */
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

/* Jobs under way die with a killed daemon, also those that left its session, and run again at once
 * when it starts again: seconds, not the lease (promise 5). */
START_TEST(killed_daemon_leaves_no_process_and_restarts_at_once)
{
    char child[40];
    char handler[600];
    (void)snprintf(child, sizeof child, "sleep 601.%d", (int)getpid()); /* no other run's */
    (void)snprintf(handler, sizeof handler, "[ -e %s ] && exit 0; setsid %s & %s",
                   flag_path("second"), child, child);
    START("--lease", "1h", "--shell", recording("mail", handler));
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(processes_with(child) == 6, E2E_WAIT_MS));
    daemon_kill(&d, SIGKILL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 128 + SIGKILL);
    ck_assert(wait_until(processes_with(child) == 0, E2E_WAIT_MS));
    flag_raise("second");
    START("--lease", "1h", "--shell", recording("mail", handler));
    expect_all_ran(1, 3);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 6);
}
END_TEST

START_TEST(killed_spawner_is_replaced_and_its_jobs_run_again)
{
    char child[40];
    char handler[600];
    (void)snprintf(child, sizeof child, "sleep 602.%d", (int)getpid());
    (void)snprintf(handler, sizeof handler, "[ -e %s ] || %s", flag_path("second"), child);
    START("--shell", recording("mail", handler));
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(processes_with(child) == 3, E2E_WAIT_MS));
    flag_raise("second");
    ck_assert_int_eq(kill(spawner_of(d.pid), SIGKILL), 0);
    daemon_expect_log(&d, "event=spawner_died", E2E_WAIT_MS);
    ck_assert(wait_until(processes_with(child) == 0, E2E_WAIT_MS));
    testdb_exec("SELECT outbox.retry(id) FROM outbox.jobs WHERE state = 'scheduled'");
    expect_all_ran(1, 3);
    daemon_stop(&d);
}
END_TEST

START_TEST(killed_child_is_retried)
{
    char handler[600];
    (void)snprintf(handler, sizeof handler, "[ -e %s ] || { touch %s; kill -9 $$; }",
                   flag_path("second"), flag_path("second"));
    START("--shell", recording("mail", handler));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(
        testdb_long(
            "SELECT count(*) FROM outbox.attempts WHERE signal = 9 AND outcome = 'retry'") == 1,
        E2E_WAIT_MS));
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.attempts"), "signal 9");
    testdb_exec("SELECT outbox.retry(id) FROM outbox.jobs");
    expect_all_ran(id, id);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(id), 2);
}
END_TEST

/* Both of its sessions are ended while jobs run: they are adopted, not run again. */
START_TEST(ended_backends_cost_nothing)
{
    START("--shell", recording("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 5);
    ck_assert(wait_until(runs_count() == 5, E2E_WAIT_MS));
    testdb_exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name "
                "LIKE 'outbox %'");
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    flag_raise("go");
    expect_all_ran(1, 5);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 5);
    ck_assert_uint_eq(daemon_log_count(&d, "lost_claim"), 0);
}
END_TEST

static bool has_children(pid_t parent)
{
    char path[80];
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    bool has = fgetc(f) != EOF;
    (void)fclose(f);
    return has;
}

/* The daemon learns of its jobs' ends and that its session is gone (kill -9 of the backend) in the
 * same moment, because it is stopped while both happen: its loop goes on, and the next session
 * records the results. */
START_TEST(jobs_that_end_as_the_backend_is_killed_are_recorded_by_the_next)
{
    START("--shell", recording("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 5);
    ck_assert(wait_until(runs_count() == 5, E2E_WAIT_MS));
    pid_t spawner = spawner_of(d.pid);
    pid_t backend = (pid_t)testdb_long("SELECT backends[1] FROM outbox.dispatchers");
    daemon_kill(&d, SIGSTOP);
    flag_raise("go");
    ck_assert(wait_until(!has_children(spawner), E2E_WAIT_MS));
    ck_assert_int_eq(kill(backend, SIGKILL), 0);
    ck_assert(wait_until(kill(backend, 0) != 0, E2E_WAIT_MS));
    daemon_kill(&d, SIGCONT);
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    expect_all_ran(1, 5);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 5);
}
END_TEST

/* A result that is recorded while the server is gone is recorded when it is back. */
START_TEST(server_crash_in_the_middle_loses_nothing)
{
    START("--concurrency", "4", "--shell", recording("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 30);
    ck_assert(wait_until(runs_count() == 4, E2E_WAIT_MS));
    pgcluster_crash();
    flag_raise("go");
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    pgcluster_start_again();
    expect_all_ran(1, 30);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 30);
}
END_TEST

/* Many restarts of the server under load: each committed job at least once, and once unless lost.
 */
START_TEST(server_restarts_under_load_lose_nothing)
{
    START("--concurrency", "8", "--shell", recording("mail", ""));
    for (int round = 0; round < 3; round++) {
        enqueue_jobs("mail", 100);
        ck_assert(wait_until(runs_count() >= (size_t)(100 * round + 20), E2E_WAIT_MS));
        pgcluster_crash_and_restart();
    }
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_distinct(), 300); /* ids have gaps: a crash skips some of the sequence */
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
}
END_TEST

/* The daemon starts first: it waits for the server, then for the schema, and says so. */
START_TEST(starts_before_the_schema)
{
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start(&d, args, NULL);
    daemon_expect_log(&d, "event=waiting_for_schema", E2E_WAIT_MS);
    struct command_result r = OUTBOX_RUN("migrate");
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&d);
}
END_TEST

START_TEST(starts_before_the_server)
{
    pgcluster_crash();
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start(&d, args, NULL);
    daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
    pgcluster_start_again();
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("crash");
    TCase *tc = tcase_create("faults");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, dies_at_a_point_the_first_time, 0, CRASH_POINTS);
    tcase_add_loop_test(tc, dies_at_a_point_the_third_time, 0, CRASH_POINTS);
    tcase_add_test(tc, dies_falling_asleep);
    tcase_add_test(tc, every_crash_point_of_the_sources_is_tested);
    tcase_add_test(tc, killed_daemon_leaves_no_process_and_restarts_at_once);
    tcase_add_test(tc, killed_spawner_is_replaced_and_its_jobs_run_again);
    tcase_add_test(tc, killed_child_is_retried);
    tcase_add_test(tc, ended_backends_cost_nothing);
    tcase_add_test(tc, jobs_that_end_as_the_backend_is_killed_are_recorded_by_the_next);
    tcase_add_test(tc, server_crash_in_the_middle_loses_nothing);
    tcase_add_test(tc, server_restarts_under_load_lose_nothing);
    tcase_add_test(tc, starts_before_the_server);
    suite_add_tcase(s, tc);
    TCase *empty = tcase_create("without a schema");
    tcase_set_timeout(empty, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(empty, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(empty, testdb_create_empty, testdb_drop);
    tcase_add_test(empty, starts_before_the_schema);
    suite_add_tcase(s, empty);
    return s;
}
