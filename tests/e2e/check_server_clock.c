/* The server's clock is set forwards and backwards by hours while daemons run. Leases are measured
 * on the daemons' own clocks and expire nobody; what is ready runs; what is scheduled runs when the
 * server's clock says so. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ck_main.h"
#include "e2e.h"
#include "fleet.h"
#include "pgcluster.h"
#include "serverclock.h"
#include "wait.h"

enum { HOUR = 3600 };

static struct daemon a;
static struct daemon b;

static void create(void)
{
    serverclock_set(0);
    testdb_create();
}

static long beats_min(void)
{
    return testdb_long("SELECT min(beat) FROM outbox.dispatcher");
}

/* Each dispatcher has beaten some more, and looked at the others. */
static void await_beats(void)
{
    long before = beats_min();
    ck_assert(wait_until(beats_min() >= before + 2, E2E_WAIT_MS));
}

static long server_ahead_s(void)
{
    return testdb_long("SELECT round(extract(epoch FROM clock_timestamp()))") - (long)time(NULL);
}

static void step_to(long seconds)
{
    serverclock_set(seconds);
    long ahead = server_ahead_s(); /* the seam works, or nothing is shown */
    ck_assert_int_ge(ahead, seconds - 5);
    ck_assert_int_le(ahead, seconds + 5);
}

static long enqueue_in(const char *delay)
{
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('mail', run_at => clock_timestamp() + interval '%s')",
                   delay);
    return testdb_long(sql);
}

/* Leases of seconds, steps of hours: nobody takes anything from anybody, until one really dies,
 * right after a step, and that is noticed. */
START_TEST(step_expires_nobody_and_spares_nobody)
{
    char handler[500];
    (void)snprintf(handler, sizeof handler, "grep -q long || exit 0; %s", wait_for_flag("go"));
    FLEET(&a, "a", NULL, "--lease", "5s", "--shell", exclusive("mail", handler));
    for (int i = 0; i < 3; i++)
        (void)enqueue_one("mail", "{\"n\": \"long\"}");
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    FLEET(&b, "b", NULL, "--lease", "5s", "--shell", exclusive("mail", handler));
    static const long steps[] = {5 * HOUR, -7 * HOUR, 0};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        step_to(steps[i]);
        await_beats();
        enqueue_jobs("mail", 5);
        ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 3, FLEET_WAIT_MS));
    }
    ck_assert(!daemon_logged(&a, "event=lease_ending"));
    ck_assert(!daemon_logged(&b, "event=lease_ending"));
    ck_assert(!daemon_logged(&a, "event=took_over"));
    ck_assert(!daemon_logged(&b, "event=took_over"));
    /* The server's own timeouts know its wall clock only: a step forwards may end a session of
     * ours as idle too long, and the jobs are adopted by the next. */
    ck_assert(!daemon_logged(&a, "event=lost_claim"));
    ck_assert_uint_eq(runs_count(), 18);
    flag_raise("go");
    fleet_finish();
    (void)unlink(flag_path("go"));
    long last = enqueue_one("mail", "{\"n\": \"long\"}");
    ck_assert(wait_until(runs_count() == 19, E2E_WAIT_MS));
    step_to(-9 * HOUR);
    bool is_at_a = testdb_long("SELECT count(*) FROM outbox.job j JOIN outbox.dispatcher d"
                               " ON d.id = j.owner WHERE d.name = 'a'") == 1;
    struct daemon *victim = is_at_a ? &a : &b;
    daemon_kill(victim, SIGKILL);
    ck_assert_int_eq(daemon_wait(victim, E2E_WAIT_MS), 128 + SIGKILL);
    flag_raise("go");
    fleet_finish_all(last, last);
    ck_assert_uint_eq(runs_of(last), 2);
    ck_assert_uint_eq(twice_at_once(), 0);
    daemon_stop(is_at_a ? &b : &a);
}
END_TEST

START_TEST(ready_jobs_run_whatever_the_clock_does)
{
    static const long steps[] = {2 * HOUR, -2 * HOUR, 30 * HOUR, 0, -40 * HOUR, HOUR, 0};
    FLEET(&a, "a", NULL, "--shell", recording("mail", ""));
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        step_to(steps[i]);
        for (size_t n = 1; n <= 5; n++) {
            (void)enqueue_one("mail", "{}");
            ck_assert(wait_until(runs_count() == 5 * i + n, FLEET_WAIT_MS));
        }
    }
    fleet_finish();
    daemon_stop(&a);
    ck_assert_uint_eq(runs_count(), 35);
}
END_TEST

/* A job that falls due in hours runs when a step brings its time, one that falls due in a moment
 * runs after steps back to a time that the daemon has long seen pass, and one whose time a step
 * back has put off runs when the clock is there again. */
START_TEST(scheduled_jobs_run_when_the_server_says_so)
{
    FLEET(&a, "a", NULL, "--shell", recording("mail", ""));
    long in_hours = enqueue_in("1 hour");
    long now = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(now) == 1, FLEET_WAIT_MS));
    ck_assert_uint_eq(runs_of(in_hours), 0);
    step_to(2 * HOUR);
    ck_assert(wait_until(runs_of(in_hours) == 1, FLEET_WAIT_MS));
    step_to(-3 * HOUR);
    for (int i = 0; i < 3; i++) {
        long soon = enqueue_in("300 ms");
        ck_assert(wait_until(runs_of(soon) == 1, FLEET_WAIT_MS));
    }
    long put_off = enqueue_in("300 ms");
    step_to(-5 * HOUR);
    long soon = enqueue_in("300 ms");
    ck_assert(wait_until(runs_of(soon) == 1, FLEET_WAIT_MS));
    step_to(-3 * HOUR + 60);
    ck_assert(wait_until(runs_of(put_off) == 1, FLEET_WAIT_MS));
    long later = enqueue_in("300 ms");
    ck_assert(wait_until(runs_of(later) == 1, FLEET_WAIT_MS));
    fleet_finish();
    daemon_stop(&a);
    ck_assert_uint_eq(runs_count(), 8);
}
END_TEST

/* The clock is set back by less than the time between two looks, so that no look sees it run
 * backwards; meanwhile a job is scheduled, in a transaction that ends only when the clock has come
 * past the look before. */
START_TEST(step_back_that_no_look_sees_hides_no_scheduled_job)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\n");
    FLEET(&a, "a", NULL, "--config", config, "--shell", recording("mail", ""));
    for (size_t i = 1; i <= 3; i++) { /* looks enough to have learned something */
        long id = enqueue_in("10 ms");
        ck_assert(wait_until(runs_of(id) == 1, FLEET_WAIT_MS));
    }
    fleet_finish();
    char sql[160];
    (void)snprintf(sql, sizeof sql, "SELECT (clock_timestamp() > '%s')::integer",
                   testdb_value("SELECT clock_timestamp()"));
    serverclock_set(-2);
    PGconn *producer = testdb_connect();
    pg_exec_ok(producer, "BEGIN");
    pg_exec_ok(producer, "SELECT outbox.enqueue('mail', delay => interval '10 ms')");
    ck_assert(wait_until(testdb_long(sql) == 1, FLEET_WAIT_MS));
    pg_exec_ok(producer, "COMMIT");
    PQfinish(producer);
    fleet_finish();
    daemon_stop(&a);
    ck_assert_uint_eq(runs_count(), 4);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("server_clock");
    TCase *tc = tcase_create("steps");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, serverclock_prepare, NULL);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, create, testdb_drop);
    tcase_add_test(tc, step_expires_nobody_and_spares_nobody);
    tcase_add_test(tc, ready_jobs_run_whatever_the_clock_does);
    tcase_add_test(tc, scheduled_jobs_run_when_the_server_says_so);
    tcase_add_test(tc, step_back_that_no_look_sees_hides_no_scheduled_job);
    suite_add_tcase(s, tc);
    return s;
}
