/* max_age: how long a failed job is tried again. By the server's clock, as created_at is. */
#include <stdio.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "serverclock.h"
#include "wait.h"

static struct daemon d;

static void start_mail(const char *keys, const char *then)
{
    const char *config =
        e2e_config("tasks:\n  mail: {exec: [%s], backoff: 1ms, backoff_max: 1ms, %s}\n",
                   handler_script("mail", then), keys);
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

static void wait_until_dead(void)
{
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'dead'") == 1,
                         E2E_WAIT_MS);
    ck_assert(ok);
}

START_TEST(a_failed_job_that_is_older_is_dead)
{
    testdb_exec("SELECT outbox.enqueue('mail'); UPDATE outbox.job SET created_at = now() - interval"
                " '25 h'");
    start_mail("max_age: 1d", "exit 3");
    wait_until_dead();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.jobs"),
                     "exit 3 (older than max_age 1d)");
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.jobs"), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempts WHERE outcome = 'dead' AND"
                                 " exit_code = 3"),
                     1);
    ck_assert_uint_eq(runs_count(), 1);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_job_that_was_never_tried_is_run_however_old)
{
    testdb_exec("SELECT outbox.enqueue('mail'); UPDATE outbox.job SET created_at = now() - interval"
                " '1 year'");
    start_mail("max_age: 1d", "");
    wait_until_all_done();
    ck_assert_uint_eq(runs_count(), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    daemon_stop(&d);
}
END_TEST

/* Its attempts are used up first. */
START_TEST(a_younger_one_is_tried_again_up_to_its_attempts)
{
    start_mail("max_age: 1d, max_attempts: 3", "exit 3");
    enqueue_one("mail", "{}");
    wait_until_dead();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.jobs"), "exit 3 (attempt 3 of 3)");
    daemon_stop(&d);
}
END_TEST

START_TEST(it_is_tried_again_until_it_is_so_old)
{
    start_mail("max_age: 2s, max_attempts: 30000", "exit 3");
    enqueue_one("mail", "{}");
    wait_until_dead();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.jobs"),
                     "exit 3 (older than max_age 2s)");
    ck_assert_int_ge(testdb_long("SELECT extract(epoch FROM finished_at - created_at)::bigint FROM"
                                 " outbox.jobs"),
                     2);
    ck_assert_uint_gt(runs_count(), 1);
    daemon_stop(&d);
}
END_TEST

START_TEST(the_age_is_by_the_servers_clock)
{
    serverclock_set(-2L * 3600);
    start_mail("max_age: 1h, max_attempts: 3", "exit 3");
    enqueue_one("mail", "{}");
    wait_until_dead();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.jobs"), "exit 3 (attempt 3 of 3)");
    daemon_stop(&d);
    serverclock_set(0);
}
END_TEST

/* The first round comes from long ago, and succeeds; the next one fails. */
START_TEST(a_repeating_jobs_rounds_are_of_their_own_age)
{
    testdb_exec("SELECT outbox.enqueue('mail', repeat_every => '1 ms'); UPDATE outbox.job SET"
                " created_at = now() - interval '25 h'");
    start_mail("max_age: 1d, max_attempts: 3",
               "test $(wc -l < \"${0%/*}/ran\") -le 1 && exit 0; exit 3");
    wait_until_dead();
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.jobs"), "exit 3 (attempt 3 of 3)");
    ck_assert_uint_eq(runs_count(), 4);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("max_age");
    TCase *tc = tcase_create("max_age");
    tcase_add_unchecked_fixture(tc, serverclock_prepare, NULL);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, a_failed_job_that_is_older_is_dead);
    tcase_add_test(tc, a_job_that_was_never_tried_is_run_however_old);
    tcase_add_test(tc, a_younger_one_is_tried_again_up_to_its_attempts);
    tcase_add_test(tc, it_is_tried_again_until_it_is_so_old);
    tcase_add_test(tc, the_age_is_by_the_servers_clock);
    tcase_add_test(tc, a_repeating_jobs_rounds_are_of_their_own_age);
    return suite;
}
