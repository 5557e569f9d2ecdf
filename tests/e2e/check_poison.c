/* Promise 6: a job that kills its process, its spawner or the whole dispatcher ends dead after a
 * bounded number of tries, and takes no other job with it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

enum { STARTS_MAX = 12 };

static void start(const char *config)
{
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

/* Shell text: kills the daemon, whose number the test leaves in the file `pid`. */
static const char *kill_the_daemon(void)
{
    static char text[600];
    (void)snprintf(text, sizeof text, "while [ ! -s %s ]; do sleep 0.02; done\nkill -9 $(cat %s)",
                   flag_path("pid"), flag_path("pid"));
    return text;
}

static void tell_pid(void)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%d", (int)d.pid);
    (void)test_file("pid.new", text, 0644);
    ck_assert_int_eq(rename(flag_path("pid.new"), flag_path("pid")), 0);
}

static bool has_died(void)
{
    if (testdb_long("SELECT count(*) FROM outbox.job WHERE task <> 'poison'") == 0)
        flag_raise("bystanders-done");
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)d.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/* As systemd does: starts the daemon again whenever it dies, until nothing is live. Returns how
 * often it died. */
static unsigned supervise(const char *config)
{
    unsigned deaths = 0;
    for (;;) {
        bool died = false;
        bool is_over = false;
        start(config);
        tell_pid();
        ck_assert(wait_until((died = has_died()) ||
                                 (is_over = testdb_long("SELECT count(*) FROM outbox.job") == 0),
                             E2E_WAIT_MS));
        if (is_over)
            return deaths;
        ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 128 + SIGKILL);
        ck_assert_int_eq(unlink(flag_path("pid")), 0);
        ck_assert_uint_lt(++deaths, STARTS_MAX);
    }
}

START_TEST(job_that_kills_the_dispatcher_ends_dead)
{
    const char *config =
        e2e_config("lease: 1h\ntasks:\n"
                   "  poison: {shell: %s, max_lost: 3}\n"
                   "  mail: {shell: %s}\n",
                   handler_script("poison", kill_the_daemon()), handler_script("mail", ""));
    long poison = enqueue_one("poison", "{\"n\": 13}");
    enqueue_jobs("mail", 20);
    ck_assert_uint_eq(supervise(config), 3);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(poison), 3);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), poison);
    ck_assert_ptr_nonnull(strstr(testdb_value("SELECT reason FROM outbox.dead"), "lost 3 times"));
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.dead"), 3);
    ck_assert_int_eq(testdb_long("SELECT lost FROM outbox.dead"), 3);
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM outbox.attempts WHERE outcome = 'lost' AND reason <> ''"),
        3);
    ck_assert_uint_eq(runs_distinct(), 21); /* the others all ran */
}
END_TEST

/* The default bound holds too, and what ran beside it at two deaths is not condemned with it. */
START_TEST(bystanders_of_a_poisonous_job_finish)
{
    char body[1500];
    /* At the first two deaths the others are under way; from the third on they are done. */
    (void)snprintf(body, sizeof body,
                   "if [ $OUTBOX_ATTEMPT -le 2 ]; then\n"
                   "while [ $(grep -c \" $OUTBOX_ATTEMPT\\$\" %s) -lt 4 ]; do sleep 0.02; done\n"
                   "else %s\nfi\n%s",
                   ran_path(), wait_for_flag("bystanders-done"), kill_the_daemon());
    const char *config =
        e2e_config("lease: 1h\ntasks:\n"
                   "  poison: {shell: %s}\n"
                   "  mail: {shell: %s}\n",
                   handler_script("poison", body),
                   handler_script("mail", "[ $OUTBOX_ATTEMPT -ge 3 ] || exec sleep 600"));
    long poison = enqueue_one("poison", "{}");
    enqueue_jobs("mail", 3);
    ck_assert_uint_eq(supervise(config), 5);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(poison), 5);
    ck_assert_uint_eq(runs_count(), 5 + 3 * 3);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 1);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), poison);
}
END_TEST

/* An attempt that was lost is an attempt: with one allowed, there is no second run. */
START_TEST(single_attempt_that_was_lost_is_not_run_again)
{
    const char *config = e2e_config("lease: 1h\ntasks:\n  poison: {shell: %s, max_attempts: 1}\n",
                                    handler_script("poison", kill_the_daemon()));
    long id = enqueue_one("poison", "{}");
    ck_assert_uint_eq(supervise(config), 1);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(id), 1);
    const char *reason = testdb_value("SELECT reason FROM outbox.dead");
    ck_assert_ptr_nonnull(strstr(reason, "attempts exhausted (1)"));
    ck_assert_ptr_nonnull(strstr(reason, "without a result"));
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.dead"), 1);
    ck_assert_str_eq(testdb_value("SELECT outcome FROM outbox.attempts"), "lost");
}
END_TEST

/* The spawner is the parent of every handler. */
START_TEST(job_that_kills_the_spawner_ends_dead)
{
    start(e2e_config("poll_interval: 50ms\ntasks:\n"
                     "  poison: {exec: [%s], max_attempts: 3, backoff: 20ms}\n"
                     "  mail: {exec: [%s], backoff: 20ms}\n",
                     handler_script("poison", "kill -9 $PPID\nexec sleep 600"),
                     handler_script("mail", "")));
    long poison = enqueue_one("poison", "{}");
    enqueue_jobs("mail", 20);
    wait_until_all_done();
    ck_assert_uint_eq(daemon_log_count(&d, "event=spawner_died"), 3);
    long after = enqueue_one("mail", "{}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(poison), 3);
    ck_assert_uint_eq(runs_of(after), 1);
    ck_assert_uint_eq(runs_distinct(), 22);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), poison);
    ck_assert_ptr_nonnull(strstr(testdb_value("SELECT reason FROM outbox.dead"), "lost"));
}
END_TEST

START_TEST(job_that_kills_its_process_group_ends_dead)
{
    start(e2e_config("poll_interval: 50ms\ntasks:\n"
                     "  poison: {shell: %s, max_attempts: 2, backoff: 20ms}\n"
                     "  mail: {shell: %s}\n",
                     handler_script("poison", "kill -9 0"), handler_script("mail", "")));
    long poison = enqueue_one("poison", "{}");
    enqueue_jobs("mail", 5);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(poison), 2);
    ck_assert_uint_eq(runs_distinct(), 6);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "signal 9 (attempt 2 of 2)");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("poison");
    TCase *tc = tcase_create("one bad job");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, job_that_kills_the_dispatcher_ends_dead);
    tcase_add_test(tc, bystanders_of_a_poisonous_job_finish);
    tcase_add_test(tc, single_attempt_that_was_lost_is_not_run_again);
    tcase_add_test(tc, job_that_kills_the_spawner_ends_dead);
    tcase_add_test(tc, job_that_kills_its_process_group_ends_dead);
    suite_add_tcase(s, tc);
    return s;
}
