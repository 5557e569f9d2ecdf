/* Order per key by real dispatchers: in order and one at a time, across three of them, failures and
 * kills; nothing waits for a poll; and what becomes of a key behind a dead job. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "child.h"
#include "ck_main.h"
#include "e2e.h"
#include "fleet.h"
#include "pgcluster.h"
#include "wait.h"

enum { JOBS = 240, KEYS = 6 };

static struct daemon a;
static struct daemon b;
static struct daemon c;

/* Job id is of key k(id % KEYS). The first attempt of every fifth fails, a little later. Two of one
 * key at the same time meet at the key's lock. */
static const char *keyed_config(void)
{
    char body[700];
    (void)snprintf(body, sizeof body,
                   "exec 9> %s/key-$OUTBOX_KEY; flock -n 9 || echo $OUTBOX_JOB_ID >> %s\n"
                   "sleep 0.00$((OUTBOX_JOB_ID %% 7))\n"
                   "[ $((OUTBOX_JOB_ID %% 5)) -ne 0 ] || [ $OUTBOX_ATTEMPT -ne 1 ]",
                   test_dir(), flag_path("twice"));
    return e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\ntasks:\n"
                      "  mail: {exec: [%s], backoff: 5ms}\n",
                      handler_script("keyed", body));
}

/* The runs of each key are in the order of its jobs, a job's own runs together. */
static void expect_order(void)
{
    long last[KEYS] = {0};
    FILE *f = fopen(ran_path(), "r");
    ck_assert_ptr_nonnull(f);
    long id = 0;
    long attempt = 0;
    while (fscanf(f, "%ld %ld", &id, &attempt) == 2) {
        ck_assert_msg(id >= last[id % KEYS], "job %ld of key %ld ran after %ld", id, id % KEYS,
                      last[id % KEYS]);
        last[id % KEYS] = id;
    }
    (void)fclose(f);
    ck_assert_uint_eq(count_lines(flag_path("twice")), 0);
}

START_TEST(keys_keep_their_order_across_dispatchers_failures_and_kills)
{
    const char *config = keyed_config();
    FLEET(&a, "a", NULL, "--config", config, "--concurrency", "3");
    FLEET(&b, "b", NULL, "--config", config, "--concurrency", "3");
    FLEET(&c, "c", NULL, "--config", config, "--concurrency", "3");
    PGconn *conn = testdb_connect();
    for (long id = 1; id <= JOBS; id++) {
        char sql[128];
        (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('mail', key => 'k%ld')", id % KEYS);
        pg_exec_ok(conn, sql);
        if (id % 80 == 0) {
            ck_assert(wait_until(runs_distinct() > (size_t)id / 2, FLEET_WAIT_MS));
            daemon_kill(&c, SIGKILL);
            ck_assert_int_eq(daemon_wait(&c, E2E_WAIT_MS), 128 + SIGKILL);
            FLEET(&c, "c", NULL, "--config", config, "--concurrency", "3");
        }
    }
    fleet_finish_all(1, JOBS);
    expect_order();
    ck_assert_uint_ge(runs_count(), JOBS + JOBS / 5);
    ck_assert_int_eq(testdb_long("SELECT deadlocks FROM pg_stat_database WHERE datname ="
                                 " current_database()"),
                     0);
    PQfinish(conn);
    daemon_stop(&a);
    daemon_stop(&b);
    daemon_stop(&c);
}
END_TEST

/* A long line and one dispatcher that falls asleep behind each of its jobs: the end of one begins
 * the next, though nobody else is there to send a notification. */
START_TEST(a_line_goes_on_without_a_poll)
{
    FLEET(&a, "a", NULL, "--config", keyed_config());
    testdb_exec("SELECT outbox.enqueue('mail', key => 'k') FROM generate_series(1, 30)");
    fleet_finish_all(1, 30);
    ck_assert_uint_eq(runs_count(), 36);
    daemon_stop(&a);
}
END_TEST

START_TEST(a_dead_job_holds_its_key_where_the_task_says_so)
{
    const char *config =
        e2e_config("tasks:\n  mail: {exec: [%s], on_dead: %s}\n",
                   handler_script("fails-first", "[ $OUTBOX_JOB_ID -ne 1 ] || exit "
                                                 "65"),
                   _i == 0 ? "skip" : "block");
    FLEET(&a, "a", NULL, "--config", config);
    testdb_exec("SELECT outbox.enqueue('mail', key => 'k') FROM generate_series(1, 3)");
    testdb_exec("SELECT outbox.enqueue('mail', key => 'other')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE NOT waiting") == 0 &&
                             runs_of(1) == 1 && runs_of(4) == 1,
                         E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 1);
    if (_i == 1) {
        ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 2);
        testdb_exec("SELECT outbox.cancel(1)");
    }
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 0, E2E_WAIT_MS));
    ck_assert_uint_eq(runs_count(), 4);
    daemon_stop(&a);
}
END_TEST

/* What others wait for, and what repeats, goes on without a poll and without a notification, too.
 */
START_TEST(dependents_and_repetitions_go_on_without_a_poll)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\ntasks:\n"
                                    "  part: {exec: [%s]}\n  whole: {exec: [%s]}\n"
                                    "  again: {exec: [%s]}\n",
                                    handler_script("part", "sleep 0.05"),
                                    handler_script("whole", "true"), handler_script("again", ""));
    FLEET(&a, "a", NULL, "--config", config);
    testdb_exec(
        "WITH p AS (SELECT array_agg(outbox.enqueue('part')) AS ids FROM generate_series(1, "
        "3)) SELECT outbox.enqueue('whole', after => ids) FROM p");
    fleet_finish_all(1, 4);
    ck_assert_uint_eq(runs_count(), 4);
    testdb_exec("SELECT outbox.enqueue('again', repeat_every => '30 ms', unique_key => 'u')");
    ck_assert(wait_until(runs_of(5) >= 4, E2E_WAIT_MS));
    testdb_exec("DO $$ BEGIN WHILE outbox.cancel(5) = 'running' LOOP END LOOP; END $$");
    fleet_finish();
    daemon_stop(&a);
}
END_TEST

/* What is kept stays until its time is over, and goes with the slow check. */
START_TEST(finished_jobs_are_kept_for_the_time_that_the_task_says)
{
    const char *config = e2e_config("sweep_interval: 1s\ntasks:\n"
                                    "  long: {exec: [%s], keep: 7d}\n"
                                    "  short: {exec: [%s], keep: 1ms}\n"
                                    "  none: {exec: [%s]}\n",
                                    handler_script("long", ""), handler_script("short", ""),
                                    handler_script("none", ""));
    FLEET(&a, "a", NULL, "--config", config);
    testdb_exec("SELECT outbox.enqueue(t) FROM unnest('{long,short,none}'::text[]) AS t,"
                " generate_series(1, 5)");
    ck_assert(wait_until(runs_count() == 15 && testdb_long("SELECT count(*) FROM outbox.job") == 0,
                         E2E_WAIT_MS));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.done WHERE task <> 'long'") == 0,
                         E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'done'"), 5);
    daemon_stop(&a);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("keys");
    TCase *tc = tcase_create("order");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, keys_keep_their_order_across_dispatchers_failures_and_kills);
    tcase_add_test(tc, a_line_goes_on_without_a_poll);
    tcase_add_test(tc, dependents_and_repetitions_go_on_without_a_poll);
    tcase_add_test(tc, finished_jobs_are_kept_for_the_time_that_the_task_says);
    tcase_add_loop_test(tc, a_dead_job_holds_its_key_where_the_task_says_so, 0, 2);
    suite_add_tcase(s, tc);
    return s;
}
