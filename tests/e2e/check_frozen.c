/* A daemon that is stopped (SIGSTOP: a debugger, a suspended machine, a stuck disk) at each kind of
 * bad moment. Another one takes over within its lease; continued, it neither runs nor records
 * anything a second time, and goes on working. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ck_main.h"
#include "e2e.h"
#include "fleet.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon a;
static struct daemon b;
static struct daemon c;

#define LEASE "--lease", "5s"

/* The sessions of all dispatchers. */
static long sessions(void)
{
    return testdb_long("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                       " AND application_name LIKE 'outbox %'");
}

/* Continues it and waits until it has noticed. */
static void thaw(struct daemon *d)
{
    daemon_kill(d, SIGCONT);
    ck_assert(wait_until(daemon_log_count(d, "event=ready") == 2, E2E_WAIT_MS));
}

/* It alone is left, and does what comes. */
static void expect_works(struct daemon *d, struct daemon *other, const char *task)
{
    daemon_stop(other);
    long id = enqueue_one(task, "{}");
    fleet_finish_all(id, id);
    daemon_stop(d);
}

START_TEST(frozen_asleep_its_place_is_taken)
{
    FLEET(&a, "a", NULL, LEASE, "--shell", exclusive("mail", ""));
    FLEET(&b, "b", NULL, LEASE, "--shell", exclusive("mail", ""));
    enqueue_jobs("mail", 10);
    fleet_finish();
    daemon_kill(&a, SIGSTOP);
    enqueue_jobs("mail", 10);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.dispatcher") == 1, E2E_WAIT_MS));
    ck_assert(wait_until(sessions() == 2, E2E_WAIT_MS)); /* its own were ended with its row */
    fleet_finish();
    thaw(&a);
    enqueue_jobs("mail", 10);
    fleet_finish_all(1, 30);
    expect_works(&a, &b, "mail");
    ck_assert_uint_eq(runs_count(), 31);
    ck_assert_uint_eq(twice_at_once(), 0);
}
END_TEST

/* Its children outlive the freeze but not the lease: the spawner's deadline sees to that before
 * anybody else may start their jobs. */
START_TEST(frozen_under_load_its_jobs_run_elsewhere)
{
    char child[40];
    char handler[600];
    (void)snprintf(child, sizeof child, "sleep 610.%d", (int)getpid()); /* no other run's */
    (void)snprintf(handler, sizeof handler, "[ -e %s ] || ! grep -q long || %s",
                   flag_path("second"), child);
    FLEET(&a, "a", NULL, LEASE, "--concurrency", "4", "--shell", exclusive("mail", handler));
    for (int i = 0; i < 2; i++)
        (void)enqueue_one("mail", "{\"n\": \"long\"}");
    ck_assert(wait_until(processes_with(child) == 2, E2E_WAIT_MS));
    FLEET(&b, "b", NULL, LEASE, "--concurrency", "4", "--shell", exclusive("mail", handler));
    enqueue_jobs("mail", 400);
    ck_assert(wait_until(runs_count() > 50, E2E_WAIT_MS));
    flag_raise("second");
    daemon_kill(&a, SIGSTOP);
    ck_assert_uint_eq(processes_with(child), 2);
    fleet_finish_all(1, 402);
    ck_assert_uint_eq(processes_with(child), 0);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_uint_eq(runs_of(1), 2);
    ck_assert_uint_eq(runs_of(2), 2);
    size_t runs = runs_count();
    ck_assert_uint_eq(runs_most(), 2); /* again: what it held, or had not recorded */
    thaw(&a);
    ck_assert_uint_eq(runs_count(), runs);
    expect_works(&a, &b, "mail");
    ck_assert_uint_eq(runs_count(), runs + 1);
}
END_TEST

/* One in the middle of recording, one in the middle of claiming: the server's sessions hold row
 * locks that no timeout of the server ends. */
START_TEST(frozen_in_the_middle_of_a_turn_it_holds_nobody_up)
{
    struct faultproxy a_proxy;
    struct faultproxy b_proxy;
    fleet_proxy(&a_proxy);
    fleet_proxy(&b_proxy);
    FLEET(&a, "a", fleet_proxy_conninfo(&a_proxy), LEASE, "--concurrency", "2", "--shell",
          exclusive("mail", ""));
    FLEET(&b, "b", fleet_proxy_conninfo(&b_proxy), LEASE, "--concurrency", "2", "--shell",
          exclusive("image", ""));
    enqueue_jobs("mail", 60);
    long settled = hold_in_transaction(&a_proxy, "a", TURN_SETTLE);
    daemon_kill(&a, SIGSTOP);
    enqueue_jobs("image", 60);
    long claimed = hold_in_transaction(&b_proxy, "b", TURN_CLAIM);
    daemon_kill(&b, SIGSTOP);
    ck_assert_int_gt(mid_transaction("a", TURN_SETTLE), 0);
    ck_assert_int_gt(mid_transaction("b", TURN_CLAIM), 0);
    FLEET(&c, "c", NULL, LEASE, "--shell", exclusive("mail", ""), "--shell",
          exclusive("image", ""));
    fleet_finish_all(1, 120);
    ck_assert_uint_eq(runs_of(settled), 2); /* its success was never committed */
    ck_assert_uint_eq(runs_of(claimed), 1); /* and this was never its own */
    ck_assert_uint_eq(twice_at_once(), 0);
    size_t runs = runs_count();
    ck_assert_uint_eq(runs_most(), 2);
    faultproxy_pass(&a_proxy);
    faultproxy_pass(&b_proxy);
    thaw(&a);
    thaw(&b);
    ck_assert_uint_eq(runs_count(), runs);
    ck_assert_uint_ge(daemon_log_count(&c, "event=took_over"), 2);
    daemon_stop(&b);
    expect_works(&a, &c, "mail");
    faultproxy_stop(&a_proxy);
    faultproxy_stop(&b_proxy);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("frozen");
    TCase *tc = tcase_create("stopped daemons");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, frozen_asleep_its_place_is_taken);
    tcase_add_test(tc, frozen_under_load_its_jobs_run_elsewhere);
    tcase_add_test(tc, frozen_in_the_middle_of_a_turn_it_holds_nobody_up);
    suite_add_tcase(s, tc);
    return s;
}
