/* Contact between a daemon and the server is lost, for less than a lease and for longer, and at the
 * worst moment: when a turn is committed that its dispatcher has given up. */
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

/* Connections are refused, or nothing moves on them: the other one meanwhile works, and takes
 * nothing away. */
START_TEST(contact_regained_within_the_lease_costs_no_job_its_run)
{
    struct faultproxy proxy;
    bool is_refused = _i == 0;
    fleet_proxy(&proxy);
    FLEET(&a, "a", fleet_proxy_conninfo(&proxy), "--shell", exclusive("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    FLEET(&b, "b", NULL, "--shell", exclusive("mail", ""));
    if (is_refused) {
        faultproxy_refuse(&proxy);
        faultproxy_reset(&proxy);
        daemon_expect_log(&a, "event=database_down connection=work", E2E_WAIT_MS);
        daemon_expect_log(&a, "event=database_down connection=heartbeat", E2E_WAIT_MS);
    } else {
        faultproxy_stall(&proxy);
    }
    for (int i = 0; i < 20; i++)
        (void)enqueue_one("mail", "{}");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 3, E2E_WAIT_MS));
    faultproxy_pass(&proxy);
    if (is_refused)
        ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL"), 3);
    flag_raise("go");
    fleet_finish_all(1, 23);
    daemon_stop(&a);
    daemon_stop(&b);
    ck_assert_uint_eq(runs_count(), 23);
    ck_assert(!daemon_logged(&a, "event=lost_claim"));
    ck_assert(!daemon_logged(&b, "event=took_over"));
    faultproxy_stop(&proxy);
}
END_TEST

/* One daemon's connections are refused, another one's fall silent. What they run is gone before
 * their leases are, runs on the third one, and when contact is back nothing is recorded twice. */
START_TEST(contact_lost_beyond_the_lease_moves_jobs_elsewhere)
{
    struct faultproxy refusing;
    struct faultproxy silent;
    char handler[600];
    (void)snprintf(handler, sizeof handler,
                   "grep -q long && ! [ -e %s-$OUTBOX_JOB_ID ] || exit 0;"
                   " touch %s-$OUTBOX_JOB_ID; sleep 600",
                   flag_path("began"), flag_path("began"));
    fleet_proxy(&refusing);
    fleet_proxy(&silent);
    FLEET(&a, "a", fleet_proxy_conninfo(&refusing), "--lease", "5s", "--shell",
          exclusive("mail", handler));
    FLEET(&b, "b", fleet_proxy_conninfo(&silent), "--lease", "5s", "--shell",
          exclusive("image", handler));
    for (int i = 0; i < 4; i++)
        (void)enqueue_one(i % 2 == 0 ? "mail" : "image", "{\"n\": \"long\"}");
    ck_assert(wait_until(runs_count() == 4, E2E_WAIT_MS));
    FLEET(&c, "c", NULL, "--lease", "5s", "--shell", exclusive("mail", handler), "--shell",
          exclusive("image", handler));
    faultproxy_refuse(&refusing);
    faultproxy_reset(&refusing);
    faultproxy_stall(&silent);
    daemon_expect_log(&a, "event=lease_ending", E2E_WAIT_MS);
    daemon_expect_log(&b, "event=lease_ending", E2E_WAIT_MS);
    fleet_finish_all(1, 4);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_uint_eq(runs_count(), 8);
    faultproxy_pass(&refusing);
    faultproxy_pass(&silent);
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert(wait_until(daemon_log_count(&b, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert_uint_eq(runs_count(), 8);
    daemon_stop(&c);
    (void)enqueue_one("mail", "{}");
    (void)enqueue_one("image", "{}");
    fleet_finish_all(5, 6);
    daemon_stop(&a);
    daemon_stop(&b);
    ck_assert_uint_eq(runs_count(), 10);
    faultproxy_stop(&refusing);
    faultproxy_stop(&silent);
}
END_TEST

/* The daemon loses its connection while the server is in the middle of its turn, which is then
 * committed before the daemon is back, or tried after. Each of its jobs runs once and has its one
 * result recorded once. */
START_TEST(turn_that_commits_after_it_was_given_up_does_no_harm)
{
    static const enum turn_part parts[] = {TURN_CLAIM, TURN_SETTLE};
    bool is_before = _i / 2 == 0;
    struct faultproxy proxy;
    fleet_proxy(&proxy);
    FLEET(&a, "a", fleet_proxy_conninfo(&proxy), "--concurrency", "2", "--shell",
          exclusive("mail", "exit 65"));
    enqueue_jobs("mail", 60);
    long id = hold_in_transaction(&proxy, "a", parts[_i % 2]);
    faultproxy_refuse(&proxy);
    faultproxy_abandon(&proxy);
    daemon_expect_log(&a, "event=database_down connection=work", E2E_WAIT_MS);
    if (is_before) {
        faultproxy_deliver(&proxy);
        ck_assert(wait_until(mid_transaction("a", parts[_i % 2]) == 0, E2E_WAIT_MS));
    }
    faultproxy_pass(&proxy);
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    faultproxy_deliver(&proxy);
    fleet_finish();
    daemon_stop(&a);
    ck_assert_uint_eq(runs_of(id), 1);
    ck_assert_uint_eq(runs_count(), 60);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead WHERE attempts = 1"
                                 " AND lost = 0 AND reason = 'exit 65'"),
                     60);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts"), 60);
    faultproxy_stop(&proxy);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("contact");
    TCase *tc = tcase_create("lost contact");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, contact_regained_within_the_lease_costs_no_job_its_run, 0, 2);
    tcase_add_test(tc, contact_lost_beyond_the_lease_moves_jobs_elsewhere);
    tcase_add_loop_test(tc, turn_that_commits_after_it_was_given_up_does_no_harm, 0, 4);
    suite_add_tcase(s, tc);
    return s;
}
