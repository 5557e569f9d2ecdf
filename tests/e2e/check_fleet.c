/* Several dispatchers on one database: they share lanes, each job is run by one of them, and what
 * happens to one is no matter to the others. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "e2e.h"
#include "fleet.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon a;
static struct daemon b;
static struct daemon c;

/* Also notes which daemon ran it, in a file of that name. */
static const char *noting(const char *task, const char *who, const char *then)
{
    char text[900];
    int n = snprintf(text, sizeof text, "echo 1 >> %s; %s", flag_path(who), then);
    ck_assert_int_lt(n, (int)sizeof text);
    return exclusive(task, text);
}

static size_t noted(const char *who)
{
    return count_lines(flag_path(who));
}

START_TEST(three_daemons_share_a_lane_and_each_job_runs_once)
{
    FLEET(&a, "a", NULL, "--concurrency", "3", "--shell", noting("mail", "by-a", "sleep 0.02"));
    FLEET(&b, "b", NULL, "--concurrency", "3", "--shell", noting("mail", "by-b", "sleep 0.02"));
    FLEET(&c, "c", NULL, "--concurrency", "3", "--shell", noting("mail", "by-c", "sleep 0.02"));
    enqueue_jobs("mail", 300);
    for (int i = 0; i < 100; i++)
        (void)enqueue_one("mail", "{}");
    fleet_finish_all(1, 400);
    ck_assert_uint_eq(runs_count(), 400);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_uint_gt(noted("by-a"), 0);
    ck_assert_uint_gt(noted("by-b"), 0);
    ck_assert_uint_gt(noted("by-c"), 0);
    ck_assert_uint_eq(noted("by-a") + noted("by-b") + noted("by-c"), 400);
    daemon_stop(&a);
    daemon_stop(&b);
    daemon_stop(&c);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatcher"), 0);
}
END_TEST

/* Every slot of one is taken for long, and more jobs wait than the two could claim at once: none of
 * them may be kept by the busy one. */
START_TEST(idle_daemon_takes_the_work_of_a_busy_one)
{
    FLEET(&a, "a", NULL, "--concurrency", "2", "--shell",
          noting("mail", "by-a", wait_for_flag("go")));
    enqueue_jobs("mail", 20);
    ck_assert(wait_until(noted("by-a") == 2, E2E_WAIT_MS));
    FLEET(&b, "b", NULL, "--concurrency", "2", "--shell", noting("mail", "by-b", ""));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 2, FLEET_WAIT_MS));
    enqueue_jobs("mail", 10); /* and what comes while one is full */
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 2, FLEET_WAIT_MS));
    ck_assert_uint_eq(noted("by-a"), 2);
    ck_assert_uint_eq(noted("by-b"), 28);
    flag_raise("go");
    fleet_finish_all(1, 30);
    ck_assert_uint_eq(runs_count(), 30);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

/* Each runs what it has handlers for, woken by NOTIFY alone: nobody looks within the test. */
START_TEST(daemons_with_different_tasks_leave_each_other_alone)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\n");
    FLEET(&a, "a", NULL, "--config", config, "--shell", noting("mail", "by-a", ""), "--shell",
          noting("both", "by-a", ""));
    FLEET(&b, "b", NULL, "--config", config, "--shell", noting("image", "by-b", ""), "--shell",
          noting("both", "by-b", ""));
    (void)enqueue_one("nobody", "{}");
    for (int i = 1; i <= 3; i++) {
        enqueue_jobs("mail", 5);
        enqueue_jobs("image", 7);
        ck_assert(wait_until(noted("by-a") == 5 * (size_t)i, FLEET_WAIT_MS));
        ck_assert(wait_until(noted("by-b") == 7 * (size_t)i, FLEET_WAIT_MS));
    }
    enqueue_jobs("both", 10);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, FLEET_WAIT_MS));
    ck_assert_uint_eq(noted("by-a") + noted("by-b"), 36 + 10);
    ck_assert_str_eq(testdb_value("SELECT task FROM outbox.job"), "nobody");
    ck_assert_uint_eq(runs_count(), 46);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

/* A daemon that is frozen while it sleeps, or has no slot free, or is gone, makes nobody deaf. */
START_TEST(daemon_that_does_not_hear_makes_no_other_one_deaf)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\n");
    FLEET(&a, "a", NULL, "--config", config, "--shell", noting("mail", "by-a", ""));
    FLEET(&c, "c", NULL, "--config", config, "--concurrency", "1", "--shell",
          noting("mail", "by-c", wait_for_flag("go")), "--shell",
          noting("image", "by-c", wait_for_flag("go")));
    (void)enqueue_one("image", "{}");
    ck_assert(wait_until(noted("by-c") == 1, FLEET_WAIT_MS)); /* full */
    daemon_kill(&a, SIGSTOP);
    FLEET(&b, "b", NULL, "--config", config, "--shell", noting("mail", "by-b", ""));
    for (size_t i = 1; i <= 5; i++) {
        (void)enqueue_one("mail", "{}");
        ck_assert(wait_until(noted("by-b") == i, FLEET_WAIT_MS));
    }
    daemon_kill(&a, SIGKILL);
    ck_assert_int_eq(daemon_wait(&a, E2E_WAIT_MS), 128 + SIGKILL);
    for (size_t i = 6; i <= 10; i++) {
        (void)enqueue_one("mail", "{}");
        ck_assert(wait_until(noted("by-b") == i, FLEET_WAIT_MS));
    }
    flag_raise("go");
    fleet_finish();
    ck_assert_uint_eq(runs_count(), 11);
    daemon_stop(&b);
    daemon_stop(&c);
}
END_TEST

/* Enqueues one job after another until the flag `enough` is up. Returns the child. */
static pid_t start_producer(void)
{
    const char *enough = flag_path("enough"); /* a folder belongs to a process */
    pid_t pid = child_fork(SIGKILL);
    if (pid != 0)
        return pid;
    PGconn *conn = testdb_connect();
    while (access(enough, F_OK) != 0) {
        PQclear(PQexec(conn, "SELECT outbox.enqueue('mail')"));
        PQclear(PQexec(conn, "SELECT pg_sleep(0.003)"));
    }
    PQfinish(conn);
    _exit(0);
}

/* Under load a daemon is stopped and started anew, killed and started anew; the others go on
 * meanwhile, it gets its share again each time, and no job is lost or runs twice but for those that
 * ran when it was killed. */
START_TEST(restart_of_one_under_load_loses_nothing_and_starves_nobody)
{
    const char *third = noting("mail", "by-c", "sleep 0.01");
    FLEET(&a, "a", NULL, "--concurrency", "2", "--shell", noting("mail", "by-a", "sleep 0.01"));
    FLEET(&b, "b", NULL, "--concurrency", "2", "--shell", noting("mail", "by-b", "sleep 0.01"));
    FLEET(&c, "c", NULL, "--concurrency", "2", "--shell", third);
    pid_t producer = start_producer();
    size_t kills = 0;
    for (int round = 0; round < 4; round++) {
        size_t before[3] = {noted("by-a"), noted("by-b"), noted("by-c")};
        ck_assert(wait_until(noted("by-a") > before[0] + 5 && noted("by-b") > before[1] + 5 &&
                                 noted("by-c") > before[2] + 5,
                             FLEET_WAIT_MS));
        bool is_kill = round % 2 == 1;
        if (is_kill) {
            kills++;
            daemon_kill(&c, SIGKILL);
            ck_assert_int_eq(daemon_wait(&c, E2E_WAIT_MS), 128 + SIGKILL);
        } else {
            daemon_stop(&c);
        }
        before[0] = noted("by-a");
        before[1] = noted("by-b");
        ck_assert(wait_until(noted("by-a") > before[0] + 5 && noted("by-b") > before[1] + 5,
                             FLEET_WAIT_MS));
        FLEET(&c, "c", NULL, "--concurrency", "2", "--shell", third);
    }
    flag_raise("enough");
    ck_assert_int_eq(child_wait(producer, E2E_WAIT_MS), 0);
    long jobs = testdb_long("SELECT last_value FROM outbox.job_id_seq");
    fleet_finish_all(1, jobs);
    ck_assert_uint_le(runs_most(), 1 + kills);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert(!daemon_logged(&a, "event=lost_claim"));
    ck_assert(!daemon_logged(&b, "event=lost_claim"));
    daemon_stop(&a);
    daemon_stop(&b);
    daemon_stop(&c);
}
END_TEST

/* Two slots, one of them taken for as long as the test lasts: everything else goes through the
 * other one, whether it is of the same task or of another one. */
START_TEST(long_job_blocks_nothing_beyond_its_slot)
{
    static const char *const short_tasks[] = {"mail", "image"};
    char handler[600];
    (void)snprintf(handler, sizeof handler, "grep -q long || exit 0; touch %s; %s",
                   flag_path("began"), wait_for_flag("go"));
    FLEET(&a, "a", NULL, "--concurrency", "2", "--shell", exclusive("mail", handler), "--shell",
          exclusive("image", ""));
    long id = enqueue_one("mail", "{\"n\": \"long\"}");
    ck_assert(wait_until(flag_is_up("began"), FLEET_WAIT_MS));
    enqueue_jobs(short_tasks[_i], 100);
    for (int i = 0; i < 20; i++)
        (void)enqueue_one(short_tasks[_i], "{}");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, FLEET_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.job"), id);
    ck_assert_uint_eq(runs_count(), 121);
    flag_raise("go");
    fleet_finish_all(id, id + 120);
    daemon_stop(&a);
    ck_assert_uint_eq(runs_count(), 121);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("fleet");
    TCase *tc = tcase_create("several dispatchers");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, three_daemons_share_a_lane_and_each_job_runs_once);
    tcase_add_test(tc, idle_daemon_takes_the_work_of_a_busy_one);
    tcase_add_test(tc, daemons_with_different_tasks_leave_each_other_alone);
    tcase_add_test(tc, daemon_that_does_not_hear_makes_no_other_one_deaf);
    tcase_add_test(tc, restart_of_one_under_load_loses_nothing_and_starves_nobody);
    tcase_add_loop_test(tc, long_job_blocks_nothing_beyond_its_slot, 0, 2);
    suite_add_tcase(s, tc);
    return s;
}
