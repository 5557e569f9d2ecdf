/* Promises 3 and 5: leases, names and tokens among several dispatchers.
 *
 * "Another host" is another lock folder and another name: without the same lock file nothing tells
 * a dispatcher that the other one is gone but its silent heartbeat. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon a;
static struct daemon b;

#define SHORT_LEASE "5s"

static void start_as(struct daemon *d, const char *name, const char *host, const char *handler)
{
    const char *dir = flag_path(host);
    (void)mkdir(dir, 0700);
    const char *const args[] = {"--name",    name,      "--lock-dir", dir, "--lease",
                                SHORT_LEASE, "--shell", handler,      NULL};
    daemon_start(d, args, NULL);
}

static void start_ready_as(struct daemon *d, const char *name, const char *host,
                           const char *handler)
{
    start_as(d, name, host, handler);
    daemon_expect_log(d, "event=ready", E2E_WAIT_MS);
}

START_TEST(jobs_of_a_dead_dispatcher_are_taken_over_elsewhere)
{
    char handler[600];
    (void)snprintf(handler, sizeof handler, "[ -e %s ] || sleep 600", flag_path("second"));
    start_ready_as(&a, "a", "host1", recording("mail", handler));
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    start_ready_as(&b, "b", "host2", recording("mail", handler));
    flag_raise("second");
    daemon_kill(&a, SIGKILL);
    ck_assert_int_eq(daemon_wait(&a, E2E_WAIT_MS), 128 + SIGKILL);
    expect_all_ran(1, 3);
    daemon_expect_log(&b, "event=took_over", E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 1);
    daemon_stop(&b);
    ck_assert_uint_eq(runs_count(), 6);
}
END_TEST

/* Frozen beyond its lease, with a job under way: its child is killed by the spawner before the
 * lease ends, the job runs elsewhere once, and when it thaws its late result is refused. */
START_TEST(frozen_dispatcher_loses_its_claims_and_its_children)
{
    char child[40];
    char handler[600];
    (void)snprintf(child, sizeof child, "sleep 600.%d", (int)getpid()); /* no other run's */
    (void)snprintf(handler, sizeof handler, "[ -e %s ] || { %s; touch %s; }", flag_path("second"),
                   child, flag_path("late"));
    start_ready_as(&a, "a", "host1", recording("mail", handler));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    start_ready_as(&b, "b", "host2", recording("mail", handler));
    flag_raise("second");
    daemon_kill(&a, SIGSTOP);
    wait_until_all_done();
    ck_assert_uint_eq(runs_of(id), 2);
    ck_assert_uint_eq(processes_with(child), 0); /* its spawner saw to that, before */
    daemon_kill(&a, SIGCONT);
    ck_assert(
        wait_until(daemon_logged(&a, "event=lost_claim") || daemon_logged(&a, "event=spawner_died"),
                   E2E_WAIT_MS));
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert(!flag_is_up("late"));
    long next = enqueue_one("mail", "{}");
    expect_all_ran(next, next);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    daemon_stop(&a);
    daemon_stop(&b);
    ck_assert_uint_eq(runs_of(id), 2);
}
END_TEST

/* Without contact, what runs is told to end while the lease still holds; when contact comes back in
 * time, nobody took the job over, and it runs again. */
START_TEST(job_is_told_to_end_before_the_lease_does)
{
    char handler[900];
    (void)snprintf(handler, sizeof handler,
                   "[ -e %s ] && exit 0; trap 'touch %s; exit 75' TERM; sleep 600 & wait",
                   flag_path("second"), flag_path("told"));
    start_ready_as(&a, "a", "host1", recording("mail", handler));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 1, E2E_WAIT_MS));
    pgcluster_crash();
    ck_assert(wait_until(flag_is_up("told"), E2E_WAIT_MS));
    ck_assert(daemon_logged(&a, "event=lease_ending"));
    flag_raise("second");
    pgcluster_start_again();
    expect_all_ran(id, id);
    daemon_stop(&a);
    ck_assert_uint_eq(runs_of(id), 2);
}
END_TEST

/* A second daemon of the name on the same host is refused while the first one lives. */
START_TEST(name_is_exclusive_on_one_host)
{
    start_ready_as(&a, "same", "host1", recording("mail", ""));
    start_as(&b, "same", "host1", recording("mail", ""));
    ck_assert_int_eq(daemon_wait(&b, E2E_WAIT_MS), 75);
    ck_assert(daemon_logged(&b, "event=name_taken"));
    daemon_stop(&a);
}
END_TEST

/* Likewise on another host: told by the heartbeat, with where and since when. */
START_TEST(name_is_exclusive_across_hosts)
{
    start_ready_as(&a, "same", "host1", recording("mail", ""));
    start_as(&b, "same", "host2", recording("mail", ""));
    ck_assert_int_eq(daemon_wait(&b, E2E_WAIT_MS), 75);
    daemon_expect_log(&b, "event=name_taken", 0);
    daemon_expect_log(&b, "since=", 0);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&a);
}
END_TEST

/* The name of a dead daemon elsewhere is free once its lease is over. */
START_TEST(name_of_the_dead_is_taken_after_the_lease)
{
    start_ready_as(&a, "same", "host1", recording("mail", wait_for_flag("second")));
    enqueue_jobs("mail", 2);
    ck_assert(wait_until(runs_count() == 2, E2E_WAIT_MS));
    daemon_kill(&a, SIGKILL);
    ck_assert_int_eq(daemon_wait(&a, E2E_WAIT_MS), 128 + SIGKILL);
    flag_raise("second");
    start_as(&b, "same", "host2", recording("mail", wait_for_flag("second")));
    daemon_expect_log(&b, "event=waiting_for_name", E2E_WAIT_MS);
    expect_all_ran(1, 2);
    daemon_stop(&b);
}
END_TEST

/* A cancelled job that runs on under a stale token: the result is refused, and said so. */
START_TEST(stale_result_is_refused)
{
    start_ready_as(&a, "a", "host1", recording("mail", wait_for_flag("go")));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 1, E2E_WAIT_MS));
    /* As a take-over does, by the very function, but with the daemon none the wiser. */
    testdb_exec("SELECT outbox.take_over(id, NULL) FROM outbox.dispatchers");
    testdb_exec(
        "SELECT outbox.register(42, 'thief', 'h', '', '', 1, '{}', '', '{mail}', '1 hour')");
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.claim(42, 1, '{mail}', '{1}')"), id);
    flag_raise("go");
    daemon_expect_log(&a, "event=lost_claim", E2E_WAIT_MS);
    ck_assert_int_eq(testdb_long("SELECT owner FROM outbox.jobs"), 42);
    testdb_exec("SELECT outbox.settle(42, ARRAY[id], ARRAY[1::bigint]) FROM outbox.jobs");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 0);
    daemon_kill(&a, SIGTERM);
    (void)daemon_wait(&a, E2E_WAIT_MS);
}
END_TEST

/* Its identity is in order, but the job has another claim by now, or is no longer there: told by
 * settling alone. */
START_TEST(result_of_another_claim_is_refused)
{
    static const char *const meanwhile[] = {"UPDATE outbox.job SET claim = claim + 1000000",
                                            "DELETE FROM outbox.job"};
    static const char *const reason[] = {"the job was claimed anew by another dispatcher",
                                         "the job is gone"};
    start_ready_as(&a, "a", "host1", recording("mail", wait_for_flag("go")));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 1, E2E_WAIT_MS));
    testdb_exec(meanwhile[_i]);
    flag_raise("go");
    daemon_expect_log(&a, "event=lost_claim", E2E_WAIT_MS);
    daemon_expect_log(&a, reason[_i], 0);
    ck_assert_uint_eq(daemon_log_count(&a, "event=ready"), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), _i == 0 ? 1 : 0);
    daemon_kill(&a, SIGTERM);
    ck_assert_int_eq(daemon_wait(&a, E2E_WAIT_MS), _i == 0 ? 75 : 0); /* it is told of the row */
}
END_TEST

/* Two daemons on one database, 10,000 jobs: none lost, none run by two at once (a lock file a job
 * would be met by the second). */
START_TEST(two_daemons_share_ten_thousand_jobs)
{
    char handler[900];
    (void)snprintf(handler, sizeof handler,
                   "mkdir %s/$OUTBOX_JOB_ID || { echo $OUTBOX_JOB_ID >> %s/twice; exit 1; }; rmdir "
                   "%s/$OUTBOX_JOB_ID",
                   test_dir(), test_dir(), test_dir());
    enqueue_jobs("mail", 10000);
    start_ready_as(&a, "a", "host1", recording("mail", handler));
    start_ready_as(&b, "b", "host2", recording("mail", handler));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 0, 2 * E2E_WAIT_MS));
    ck_assert_uint_eq(count_lines(flag_path("twice")), 0);
    const char *dead = testdb_value("SELECT string_agg(DISTINCT reason, '; ') FROM outbox.dead");
    ck_assert_msg(dead == NULL, "dead jobs: %s", dead);
    ck_assert_uint_eq(runs_distinct(), 10000);
    ck_assert_uint_eq(runs_count(), 10000);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("lease");
    TCase *tc = tcase_create("several dispatchers");
    tcase_set_timeout(tc, 2 * TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, jobs_of_a_dead_dispatcher_are_taken_over_elsewhere);
    tcase_add_test(tc, frozen_dispatcher_loses_its_claims_and_its_children);
    tcase_add_test(tc, job_is_told_to_end_before_the_lease_does);
    tcase_add_test(tc, name_is_exclusive_on_one_host);
    tcase_add_test(tc, name_is_exclusive_across_hosts);
    tcase_add_test(tc, name_of_the_dead_is_taken_after_the_lease);
    tcase_add_test(tc, stale_result_is_refused);
    tcase_add_loop_test(tc, result_of_another_claim_is_refused, 0, 2);
    tcase_add_test(tc, two_daemons_share_ten_thousand_jobs);
    suite_add_tcase(s, tc);
    return s;
}
