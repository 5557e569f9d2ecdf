/* How many jobs run at once, of which tasks, and that none stands in another's way.
 *
 * Handlers append "S TASK" when they begin and "E TASK" when they end, in one file: lines are in
 * the order of events, and the oracle replays them. */
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

static void start_config(const char *config)
{
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
}

/* A handler between its two lines. */
static const char *spanning(const char *name, const char *body)
{
    char text[900];
    (void)snprintf(text, sizeof text,
                   "echo \"S $OUTBOX_TASK\" >> %s\n%s\necho \"E $OUTBOX_TASK\" >> %s",
                   flag_path("spans"), body, flag_path("spans"));
    return handler_script(name, text);
}

/* The most that ever ran at once of the task; NULL: of all. */
static int most_at_once(const char *task)
{
    FILE *f = fopen(flag_path("spans"), "r");
    char edge = 0;
    char name[64];
    int now = 0;
    int most = 0;
    ck_assert_ptr_nonnull(f);
    while (fscanf(f, " %c %63s", &edge, name) == 2) {
        if (task != NULL && strcmp(task, name) != 0)
            continue;
        now += edge == 'S' ? 1 : -1;
        ck_assert_int_ge(now, 0);
        most = now > most ? now : most;
    }
    (void)fclose(f);
    ck_assert_int_eq(now, 0);
    return most;
}

START_TEST(limits_are_reached_and_never_exceeded)
{
    const char *one = spanning("one", wait_for_flag("go"));
    const char *any = spanning("any", wait_for_flag("go"));
    start_config(e2e_config("concurrency: 6\ntasks:\n"
                            "  one: {exec: [%s], concurrency: 1}\n"
                            "  two: {exec: [%s], concurrency: 2}\n"
                            "  any: {exec: [%s]}\n",
                            one, one, any));
    enqueue_jobs("one", 30);
    enqueue_jobs("two", 30);
    enqueue_jobs("any", 30);
    ck_assert(wait_until(runs_count() == 6, E2E_WAIT_MS));
    flag_raise("go");
    expect_all_ran(1, 90);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 90);
    ck_assert_int_eq(most_at_once("one"), 1);
    ck_assert_int_le(most_at_once("two"), 2);
    ck_assert_int_eq(most_at_once(NULL), 6);
}
END_TEST

/* Webhooks and discarded jobs are no processes: they do not count against `concurrency`. */
START_TEST(processes_do_not_hold_up_other_handlers)
{
    start_config(e2e_config("concurrency: 1\ntasks:\n  slow: {exec: [%s]}\n  none: {discard: }\n",
                            spanning("slow", wait_for_flag("go"))));
    enqueue_jobs("slow", 2);
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    enqueue_jobs("none", 100);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE task = 'none'") == 0,
                         E2E_WAIT_MS));
    flag_raise("go");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* A job that takes for ever holds its own slot and no other. */
START_TEST(long_job_does_not_hold_up_other_tasks)
{
    start_config(e2e_config("concurrency: 2\ntasks:\n  slow: {exec: [%s], concurrency: 1}\n"
                            "  fast: {exec: [%s]}\n",
                            spanning("slow", wait_for_flag("go")), spanning("fast", "")));
    enqueue_jobs("slow", 20); /* older than the others */
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    enqueue_jobs("fast", 100);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE task = 'fast'") == 0,
                         E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 20);
    flag_raise("go");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_int_eq(most_at_once("slow"), 1);
    ck_assert_int_le(most_at_once(NULL), 2);
}
END_TEST

/* Three tasks with a backlog each, one older than the other: the oldest jobs go first, but for
 * those that the first looks take before they know how old each backlog is, and which jobs are
 * short: the task whose job ends first has some claimed ahead. */
START_TEST(older_jobs_go_first_whatever_their_task)
{
    const char *handler = spanning("handler", "");
    enqueue_jobs("a", 100);
    enqueue_jobs("b", 100);
    enqueue_jobs("c", 100);
    start_config(e2e_config("concurrency: %d\ntasks:\n  a: {exec: [%s]}\n  b: {exec: [%s]}\n"
                            "  c: {exec: [%s]}\n",
                            _i, handler, handler, handler));
    expect_all_ran(1, 300);
    daemon_stop(&d);
    FILE *f = fopen(ran_path(), "r");
    int early = 0;
    ck_assert_ptr_nonnull(f);
    for (int n = 1; n <= 300; n++) {
        long id = 0;
        ck_assert_int_eq(fscanf(f, "%ld %*d", &id), 1);
        early += id > n + 3 * _i ? 1 : 0;
    }
    (void)fclose(f);
    ck_assert_int_le(early, 60); /* of the 200 that are not the oldest task's */
    ck_assert_int_le(most_at_once(NULL), _i);
}
END_TEST

/* A task whose jobs all fail and come back does not starve the rest. */
START_TEST(failing_task_does_not_hold_up_others)
{
    start_config(e2e_config("concurrency: 2\ntasks:\n"
                            "  bad: {exec: [%s], backoff: 0, max_attempts: 32767}\n"
                            "  good: {exec: [%s]}\n",
                            handler_script("bad", "exit 1"), spanning("good", "")));
    enqueue_jobs("bad", 10);
    ck_assert(wait_until(runs_count() > 10, E2E_WAIT_MS));
    enqueue_jobs("good", 50);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE task = 'good'") == 0,
                         E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

/* What the configuration says of it is in the database once the dispatcher is ready. */
START_TEST(max_ready_of_the_configuration_refuses_new_jobs)
{
    start_config(e2e_config("tasks:\n  a: { discard: true, max_ready: 2 }\n"));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.task") == 1, E2E_WAIT_MS));
    testdb_exec("SELECT outbox.pause('a')");
    daemon_expect_log(&d, "event=paused task=a", E2E_WAIT_MS);
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    PGresult *res = PQexec(conn, "SELECT outbox.enqueue('a')");
    ck_assert_str_eq(PQresultErrorField(res, PG_DIAG_SQLSTATE), "53400");
    PQclear(res);
    (void)e2e_config("tasks:\n  a: { discard: true, max_ready: 3 }\n");
    daemon_kill(&d, SIGHUP);
    ck_assert(wait_until(testdb_long("SELECT max_ready FROM outbox.task") == 3, E2E_WAIT_MS));
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    PQfinish(conn);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("limits");
    TCase *tc = tcase_create("slots");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, limits_are_reached_and_never_exceeded);
    tcase_add_test(tc, processes_do_not_hold_up_other_handlers);
    tcase_add_test(tc, long_job_does_not_hold_up_other_tasks);
    tcase_add_loop_test(tc, older_jobs_go_first_whatever_their_task, 1, 5);
    tcase_add_test(tc, failing_task_does_not_hold_up_others);
    tcase_add_test(tc, max_ready_of_the_configuration_refuses_new_jobs);
    suite_add_tcase(s, tc);
    return s;
}
