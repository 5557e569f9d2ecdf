/* Jobs claimed ahead of their slots: short ones follow each other without waiting for the database,
 * limits and order hold all the same, and what has not begun is given back uncounted by whatever
 * keeps it from beginning. */
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

enum { JOBS = 60, BLOCKS = 30, TRIES = 100 };

static struct daemon d;
static long blocking; /* the job that does not end */

#define OWNED "SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL"

static void start(void)
{
    char then[600];
    /* The one that blocks says so, and goes on when it may. */
    (void)snprintf(then, sizeof then,
                   "[ \"$OUTBOX_JOB_ID\" != \"$(cat %s)\" ] || { : > %s; while [ -e %s ]; do sleep "
                   "0.02; done; }",
                   flag_path("which"), flag_path("here"), flag_path("block"));
    const char *const args[] = {
        "--shell", recording("t", then), "--concurrency", "1", "--log-level", "debug", NULL};
    daemon_start_ready(&d, args, NULL);
}

static void let_go(void)
{
    ck_assert_int_eq(unlink(flag_path("block")), 0);
}

static void one_try(long first)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%ld", blocking = first + BLOCKS);
    (void)test_file("which", text, 0644);
    (void)unlink(flag_path("here"));
    flag_raise("block");
    enqueue_jobs("t", JOBS);
    bool ok = wait_until(flag_is_up("here"), E2E_WAIT_MS);
    ck_assert(ok);
}

/* Short jobs, and one among them that blocks the only slot while others wait behind it, claimed.
 * On a machine that is slow just then none may be: then once more. */
static void block_with_some_ahead(void)
{
    for (int i = 0; i < TRIES; i++) {
        one_try(1 + i * JOBS);
        if (testdb_long(OWNED) > 1)
            return;
        let_go();
        wait_until_all_done();
    }
    ck_abort_msg("nothing was claimed ahead in %d tries", TRIES);
}

/* All but the one that blocks are back, as if they had never been claimed. */
static void expect_given_back(const char *reason)
{
    daemon_expect_log(&d, reason, E2E_WAIT_MS);
    bool ok = wait_until(testdb_long(OWNED) == 1, E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NULL AND "
                                 "(attempts > 0 OR lost > 0 OR ready_xid IS NULL)"),
                     0);
    ck_assert_uint_eq(runs_count() % JOBS, BLOCKS + 1);
}

static void expect_each_ran_once(void)
{
    wait_until_all_done();
    expect_all_ran(blocking - BLOCKS, blocking - BLOCKS + JOBS - 1);
    ck_assert_uint_eq(runs_count(), runs_distinct());
}

START_TEST(what_waits_for_too_long_is_given_back)
{
    start();
    block_with_some_ahead();
    expect_given_back("its task is busy with other jobs");
    let_go();
    expect_each_ran_once();
    daemon_stop(&d);
}
END_TEST

START_TEST(when_the_dispatcher_stops_what_has_not_begun_is_given_back)
{
    start();
    block_with_some_ahead();
    daemon_kill(&d, SIGTERM);
    expect_given_back("the dispatcher stops");
    let_go();
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 0);
    ck_assert_uint_eq(runs_count() % JOBS, BLOCKS + 1);
    flag_raise("block");
    start();
    expect_each_ran_once();
    daemon_stop(&d);
}
END_TEST

START_TEST(of_a_paused_task_nothing_begins)
{
    start();
    block_with_some_ahead();
    testdb_exec("SELECT outbox.pause('t')");
    expect_given_back("the task was paused");
    let_go();
    bool ok = wait_until(testdb_long(OWNED) == 0, E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert_uint_eq(runs_count() % JOBS, BLOCKS + 1);
    testdb_exec("SELECT outbox.resume('t')");
    expect_each_ran_once();
    daemon_stop(&d);
}
END_TEST

START_TEST(one_that_waits_can_be_cancelled)
{
    start();
    block_with_some_ahead();
    char sql[200];
    (void)snprintf(sql, sizeof sql, "SELECT outbox.cancel(%ld)", blocking + 1);
    testdb_exec(sql);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.job WHERE id = %ld", blocking + 1);
    bool ok = wait_until(testdb_long(sql) == 0, E2E_WAIT_MS);
    ck_assert(ok);
    ck_assert(testdb_long(OWNED) >= 1); /* the one that blocks goes on */
    let_go();
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(blocking + 1), 0);
    ck_assert_uint_eq(runs_count() % JOBS, JOBS - 1);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_crash_loses_none_of_them)
{
    start();
    block_with_some_ahead();
    daemon_kill(&d, SIGKILL);
    (void)daemon_wait(&d, E2E_WAIT_MS);
    let_go();
    start();
    wait_until_all_done();
    expect_all_ran(blocking - BLOCKS, blocking - BLOCKS + JOBS - 1);
    ck_assert_uint_eq(runs_of(blocking), 2);
    daemon_stop(&d);
}
END_TEST

START_TEST(they_begin_in_the_order_in_which_they_were_claimed)
{
    start();
    enqueue_jobs("t", 300);
    wait_until_all_done();
    FILE *f = fopen(ran_path(), "re");
    ck_assert_ptr_nonnull(f);
    long id = 0;
    long expected = 1;
    while (fscanf(f, "%ld %*d", &id) == 1)
        ck_assert_int_eq(id, expected++);
    (void)fclose(f);
    ck_assert_int_eq(expected, 301);
    daemon_stop(&d);
}
END_TEST

/* Each run makes a folder for itself, and says how many there are. */
START_TEST(no_more_run_at_once_than_may)
{
    char command[600];
    (void)snprintf(command, sizeof command,
                   "t=mkdir %s.$OUTBOX_JOB_ID; ls -d %s.* | wc -l >> %s; rmdir %s.$OUTBOX_JOB_ID",
                   flag_path("run"), flag_path("run"), flag_path("at-once"), flag_path("run"));
    const char *const args[] = {"--shell", command, "--concurrency", "3", NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_jobs("t", 500);
    wait_until_all_done();
    FILE *f = fopen(flag_path("at-once"), "re");
    ck_assert_ptr_nonnull(f);
    int n = 0;
    int lines = 0;
    for (; fscanf(f, "%d", &n) == 1; lines++)
        ck_assert_int_le(n, 3);
    (void)fclose(f);
    ck_assert_int_eq(lines, 500);
    daemon_stop(&d);
}
END_TEST

/* They do not come with their claims. */
START_TEST(large_payloads_arrive_whole)
{
    char command[400];
    (void)snprintf(command, sizeof command, "t=wc -c >> %s", flag_path("sizes"));
    const char *const args[] = {"--shell", command, "--concurrency", "1", NULL};
    daemon_start_ready(&d, args, NULL);
    testdb_exec("SELECT outbox.enqueue('t', to_jsonb(repeat('x', 99998)))"
                " FROM generate_series(1, 60)");
    wait_until_all_done();
    FILE *f = fopen(flag_path("sizes"), "re");
    ck_assert_ptr_nonnull(f);
    long n = 0;
    int lines = 0;
    for (; fscanf(f, "%ld", &n) == 1; lines++)
        ck_assert_int_eq(n, 100000);
    (void)fclose(f);
    ck_assert_int_eq(lines, 60);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("ahead");
    TCase *tc = tcase_create("ahead");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, what_waits_for_too_long_is_given_back);
    tcase_add_test(tc, when_the_dispatcher_stops_what_has_not_begun_is_given_back);
    tcase_add_test(tc, of_a_paused_task_nothing_begins);
    tcase_add_test(tc, one_that_waits_can_be_cancelled);
    tcase_add_test(tc, a_crash_loses_none_of_them);
    tcase_add_test(tc, they_begin_in_the_order_in_which_they_were_claimed);
    tcase_add_test(tc, no_more_run_at_once_than_may);
    tcase_add_test(tc, large_payloads_arrive_whole);
    return suite;
}
