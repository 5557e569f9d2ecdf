/* The server goes away, for longer than the leases and again and again: nobody is expired wrongly,
 * nothing is lost, and no token is issued twice whatever the server forgot. */
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

enum { DAEMONS = 3 };

static struct daemon daemons[DAEMONS];
static const char *const names[DAEMONS] = {"a", "b", "c"};

static long first_beat(void)
{
    return testdb_long("SELECT min(beat) FROM outbox.dispatcher WHERE name IN ('a', 'b')");
}

/* Each of three daemons runs a job that ends while the server is away, in good time, and one that
 * would not: the result of the first is recorded when the server is back, the second is stopped and
 * runs again. Nobody takes anything over, since none was silent to a server that could hear; not
 * even the one that was stopped meanwhile and comes back after the others have looked around. */
START_TEST(outage_longer_than_the_lease_expires_nobody)
{
    char handler[700];
    int n = snprintf(handler, sizeof handler, "if grep -q long; then [ -e %s ] || sleep 600;",
                     flag_path("second"));
    (void)snprintf(handler + n, sizeof handler - (size_t)n, "else %s; fi", wait_for_flag("go"));
    tokens_record();
    for (int i = 0; i < DAEMONS; i++) {
        FLEET(&daemons[i], names[i], NULL, "--lease", "5s", "--concurrency", "2", "--shell",
              exclusive("mail", handler));
        (void)enqueue_one("mail", "{}");
        (void)enqueue_one("mail", "{\"n\": \"long\"}");
        ck_assert(wait_until(runs_count() == 2 * (size_t)(i + 1), E2E_WAIT_MS));
    }
    enqueue_jobs("mail", 50);
    daemon_kill(&daemons[2], SIGSTOP);
    long beat = first_beat();
    ck_assert(wait_until(first_beat() >= beat + 2, E2E_WAIT_MS)); /* they know its last one */
    pgcluster_crash();
    flag_raise("go");
    daemon_expect_log(&daemons[0], "event=lease_over", E2E_WAIT_MS);
    daemon_expect_log(&daemons[1], "event=lease_over", E2E_WAIT_MS);
    flag_raise("second");
    ck_assert_uint_eq(runs_count(), 6);
    pgcluster_start_again();
    for (int i = 0; i < 2; i++)
        ck_assert(wait_until(daemon_log_count(&daemons[i], "event=ready") == 2, E2E_WAIT_MS));
    ck_assert(wait_until(testdb_long("SELECT min(beat) FROM (SELECT beat FROM outbox.dispatcher"
                                     " ORDER BY started_at DESC LIMIT 2) AS d") > 0,
                         E2E_WAIT_MS));
    daemon_kill(&daemons[2], SIGCONT);
    fleet_finish();
    for (long id = 1; id <= 6; id++) {
        ck_assert_uint_eq(runs_of(id), id % 2 == 1 ? 1 : 2);
        ck_assert(!daemon_logged(&daemons[(id - 1) / 2], "event=took_over"));
    }
    ck_assert_uint_eq(runs_distinct(), 56);
    ck_assert_uint_eq(runs_count(), 56 + 3);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatcher"), 3);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    for (int i = 0; i < DAEMONS; i++)
        daemon_stop(&daemons[i]);
    ck_assert_uint_ge(tokens_expect_unique(), 56 + 3);
}
END_TEST

static void start_one(int i, const char *handler)
{
    FLEET(&daemons[i], names[i], NULL, "--concurrency", "3", "--shell", handler);
}

/* Restarts of daemons, kills of daemons, ends of sessions and crashes of the server, all under load
 * and with a job each that goes on through whatever lets it. */
START_TEST(no_token_is_ever_issued_twice)
{
    char text[600];
    (void)snprintf(text, sizeof text, "grep -q long || exec sleep 0.02; %s", wait_for_flag("go"));
    const char *handler = exclusive("mail", text);
    tokens_record();
    for (int i = 0; i < DAEMONS; i++) {
        start_one(i, handler);
        (void)enqueue_one("mail", "{\"n\": \"long\"}");
    }
    for (size_t round = 0; round < 3; round++) {
        enqueue_jobs("mail", 200);
        size_t before = runs_count();
        ck_assert(wait_until(runs_count() >= before + 30, E2E_WAIT_MS));
        testdb_exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'outbox %'");
        ck_assert(
            wait_until(daemon_log_count(&daemons[0], "event=ready") == 2 * round + 2, E2E_WAIT_MS));
        daemon_kill(&daemons[1], SIGKILL);
        ck_assert_int_eq(daemon_wait(&daemons[1], E2E_WAIT_MS), 128 + SIGKILL);
        start_one(1, handler);
        enqueue_jobs("mail", 200); /* those before may be over */
        before = runs_count();
        ck_assert(wait_until(runs_count() >= before + 30, E2E_WAIT_MS));
        pgcluster_crash_and_restart();
        ck_assert(
            wait_until(daemon_log_count(&daemons[0], "event=ready") == 2 * round + 3, E2E_WAIT_MS));
    }
    flag_raise("go");
    fleet_finish();
    for (int i = 0; i < DAEMONS; i++)
        daemon_stop(&daemons[i]);
    ck_assert_uint_eq(runs_distinct(), 3 + 3 * 400);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_uint_ge(tokens_expect_unique(), runs_count());
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outage");
    TCase *tc = tcase_create("server away");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, outage_longer_than_the_lease_expires_nobody);
    tcase_add_test(tc, no_token_is_ever_issued_twice);
    suite_add_tcase(s, tc);
    return s;
}
