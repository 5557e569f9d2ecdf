/* HUP: another configuration without an end, and a bad one without a change.
 *
 * poll_interval and lease are an hour where a test must see that nothing waits for the next look.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

#define HOURS "poll_interval: 1h\nlease: 1h\n"

static void start_config(const char *config)
{
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

static void reload(void)
{
    size_t before = daemon_log_count(&d, "event=reloaded");
    daemon_kill(&d, SIGHUP);
    bool ok = wait_until(daemon_log_count(&d, "event=reloaded") > before, E2E_WAIT_MS);
    if (!ok)
        daemon_expect_log(&d, "event=reloaded", 0);
    ck_assert(ok);
}

static void wait_for_run(long id)
{
    ck_assert_msg(wait_until(runs_of(id) == 1, E2E_WAIT_MS), "job %ld did not run", id);
}

/* Handlers leave a word in the file `said`. */
static const char *saying(const char *name, const char *before, const char *word)
{
    char body[700];
    (void)snprintf(body, sizeof body, "%s\necho %s >> %s", before, word, flag_path("said"));
    return handler_script(name, body);
}

START_TEST(changed_handler_is_for_new_jobs)
{
    const char *first = saying("first", wait_for_flag("go"), "first");
    const char *second = saying("second", "", "second");
    start_config(e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n", first));
    long running = enqueue_one("mail", "{}");
    wait_for_run(running);
    (void)e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n", second);
    reload();
    long next = enqueue_one("mail", "{}");
    ck_assert(wait_until(strcmp(flag_text("said"), "second") == 0, E2E_WAIT_MS));
    flag_raise("go");
    wait_until_all_done();
    ck_assert_str_eq(flag_text("said"), "second\nfirst");
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(next), 1);
    ck_assert_uint_eq(runs_count(), 2);
}
END_TEST

/* What a job started with includes how its failure is judged. */
START_TEST(running_job_is_judged_by_what_it_started_with)
{
    char body[600];
    (void)snprintf(body, sizeof body, "%s\nexit 1", wait_for_flag("go"));
    const char *handler = handler_script("mail", body);
    start_config(e2e_config("tasks:\n  mail: {exec: [%s], max_attempts: 1}\n", handler));
    long id = enqueue_one("mail", "{}");
    wait_for_run(id);
    (void)e2e_config("tasks:\n  mail: {exec: [%s], max_attempts: 9}\n", handler);
    reload();
    flag_raise("go");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "exit 1 (attempt 1 of 1)");
}
END_TEST

/* Its waiting jobs start, and NOTIFY wakes for it from then on. */
START_TEST(added_task_is_served_and_woken_for)
{
    const char *mail = handler_script("mail", "");
    const char *other = handler_script("other", "");
    start_config(e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n", mail));
    long waiting = enqueue_one("other", "{}");
    long served = enqueue_one("mail", "{}");
    wait_for_run(served);
    ck_assert_uint_eq(runs_of(waiting), 0);
    (void)e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail, other);
    reload();
    wait_for_run(waiting);
    for (int i = 0; i < 3; i++) {
        wait_until_all_done();
        wait_for_run(enqueue_one(i % 2 == 0 ? "other" : "mail", "{}"));
    }
    wait_until_all_done();
    ck_assert_int_eq(testdb_long("SELECT cardinality(tasks) FROM outbox.dispatchers"), 2);
    daemon_stop(&d);
}
END_TEST

/* Its jobs stay, and are shown as nobody's; one that runs is finished; it may come back. */
START_TEST(jobs_of_a_removed_task_stay)
{
    const char *mail = handler_script("mail", "");
    const char *other = handler_script("other", wait_for_flag("go"));
    start_config(
        e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail, other));
    long running = enqueue_one("other", "{}");
    wait_for_run(running);
    (void)e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n", mail);
    reload();
    long staying = enqueue_one("other", "{}");
    wait_for_run(enqueue_one("mail", "{}"));
    flag_raise("go");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.jobs WHERE state = 'ready'"), staying);
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.jobs"), 0);
    ck_assert_int_eq(testdb_long("SELECT handlers FROM outbox.stats WHERE task = 'other'"), 0);
    (void)e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail, other);
    reload();
    wait_for_run(staying);
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* Claimed in the very moment: what was asked for before the reload runs as it was configured then;
 * what comes later stays. */
START_TEST(task_removed_while_its_claim_is_under_way)
{
    const char *mail = handler_script("mail", "");
    hold_claims();
    enqueue_jobs("other", 3);
    start_config(e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail,
                            handler_script("other", "")));
    wait_for_held_claim();
    (void)e2e_config(HOURS "tasks:\n  mail: {exec: [%s]}\n", mail);
    reload();
    long later = enqueue_one("other", "{}");
    let_claims_go();
    wait_for_run(enqueue_one("mail", "{}"));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, E2E_WAIT_MS));
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 4);
    ck_assert_uint_eq(runs_of(later), 0);
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready' AND attempts = 0"), 1);
}
END_TEST

START_TEST(bad_file_changes_nothing)
{
    const char *mail = handler_script("mail", "");
    start_config(e2e_config("tasks:\n  mail: {exec: [%s]}\n", mail));
    wait_for_run(enqueue_one("mail", "{}"));
    const char *path =
        e2e_config("concurrency: 2\ntasks:\n  mail: {exec: [%s], timeuot: 5s}\n", mail);
    char place[300];
    (void)snprintf(place, sizeof place, "%s:3", path);
    daemon_kill(&d, SIGHUP);
    daemon_expect_log(&d, "event=reload_failed", E2E_WAIT_MS);
    daemon_expect_log(&d, place, 0);
    daemon_expect_log(&d, "timeuot", 0);
    wait_for_run(enqueue_one("mail", "{}"));
    ck_assert_uint_eq(daemon_log_count(&d, "event=reloaded"), 0);
    (void)e2e_config("tasks:\n  mail: {exec: [%s]}\n", mail); /* mended */
    reload();
    wait_for_run(enqueue_one("mail", "{}"));
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

START_TEST(concurrency_and_log_level_change)
{
    const char *mail = handler_script("mail", wait_for_flag("go"));
    start_config(e2e_config(HOURS "concurrency: 1\ntasks:\n  mail: {exec: [%s]}\n", mail));
    enqueue_jobs("mail", 4);
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    (void)e2e_config(HOURS "concurrency: 3\nlog_level: debug\ntasks:\n  mail: {exec: [%s]}\n",
                     mail);
    reload();
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    daemon_expect_log(&d, "level=debug event=started", E2E_WAIT_MS);
    flag_raise("go");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* Others judge us by the lease that is in our row: another one is for the next start, and said. */
START_TEST(lease_and_identity_do_not_change)
{
    const char *mail = handler_script("mail", "");
    start_config(e2e_config("lease: 30s\nname: one\ntasks:\n  mail: {exec: [%s]}\n", mail));
    (void)e2e_config("lease: 1h\nname: two\ntasks:\n  mail: {exec: [%s]}\n", mail);
    reload();
    daemon_expect_log(&d, "event=needs_restart setting=lease", 0);
    daemon_expect_log(&d, "event=needs_restart setting=name", 0);
    /* It goes on beating as its row says: in a lease of 30 s every five. */
    ck_assert(wait_until(testdb_long("SELECT beat FROM outbox.dispatchers WHERE name = 'one' AND "
                                     "lease = '30 s'") > 2,
                         E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

/* Signals that come in a heap, under load: nothing is lost or run twice. */
START_TEST(reloads_under_load_lose_nothing)
{
    const char *mail = handler_script("mail", "");
    const char *other = handler_script("other", "");
    start_config(e2e_config("tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail, other));
    enqueue_jobs("mail", 300);
    enqueue_jobs("other", 300);
    for (int i = 0; i < 20; i++) {
        if (i % 2 == 0)
            (void)e2e_config("tasks:\n  mail: {exec: [%s]}\n", mail);
        else
            (void)e2e_config("tasks:\n  mail: {exec: [%s]}\n  other: {exec: [%s]}\n", mail, other);
        reload();
    }
    expect_all_ran(1, 600);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 600);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("reload");
    TCase *tc = tcase_create("hup");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, changed_handler_is_for_new_jobs);
    tcase_add_test(tc, running_job_is_judged_by_what_it_started_with);
    tcase_add_test(tc, added_task_is_served_and_woken_for);
    tcase_add_test(tc, jobs_of_a_removed_task_stay);
    tcase_add_test(tc, task_removed_while_its_claim_is_under_way);
    tcase_add_test(tc, bad_file_changes_nothing);
    tcase_add_test(tc, concurrency_and_log_level_change);
    tcase_add_test(tc, lease_and_identity_do_not_change);
    tcase_add_test(tc, reloads_under_load_lose_nothing);
    suite_add_tcase(s, tc);
    return s;
}
