/* What the tests of other queues' workers ask of a daemon, where no other test here does:
 * arguments, who runs a job that two could run, a worker that stops in the middle, jobs that
 * outlast a lease, completions, and (which none of theirs ask) a listener that was away. A comment
 * above each test names the one of theirs that it takes up. */
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

enum { LONG_JOBS = 10, LEASE_BEATS = 6, INPUT_MAX = 8192 };

static struct daemon a;
static struct daemon b;

/* Each a jsonb expression. */
static const char *const arguments[] = {
    "'null'",
    "'\"x\"'",
    "'1'",
    "'true'",
    "'[]'",
    "'{}'",
    "'[[1, [2, {\"deep\": [null]}]], \"\\u2603 \\\\ \\\" \\n\"]'",
    "'{\"a\": 1, \"b\": \"two\", \"c\": [3.50]}'",
    "(SELECT jsonb_agg(n) FROM generate_series(1, 1000) AS n)",
};

/* asyncpg-queue's test_..._input_none, _single_input, _list, _map: as it was put, exactly once. */
START_TEST(input_of_any_shape_arrives_as_it_was_put)
{
    static char input[INPUT_MAX];
    char text[600];
    (void)snprintf(text, sizeof text, "cat > %s", flag_path("input"));
    FLEET(&a, "a", NULL, "--shell", recording("mail", text));
    PGconn *conn = testdb_connect();
    (void)snprintf(text, sizeof text, "SELECT outbox.enqueue('mail', %s)", arguments[_i]);
    pg_exec_ok(conn, text);
    fleet_finish_all(1, 1);
    (void)snprintf(text, sizeof text, "SELECT (%s)::jsonb", arguments[_i]);
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, text);
    FILE *f = fopen(flag_path("input"), "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_lt(fread(input, 1, sizeof input - 1, f), sizeof input - 1);
    (void)fclose(f);
    ck_assert_str_eq(input, PQgetvalue(res, 0, 0));
    ck_assert_uint_eq(runs_count(), 1);
    PQclear(res);
    PQfinish(conn);
    daemon_stop(&a);
}
END_TEST

/* asyncpg-queue's test_multiple_workers_single_call, test_worker_sleeps, ..._wakes_from_sleep: both
 * sleep, both are woken by each job, and one of them runs it. */
START_TEST(multiple_workers_that_sleep_run_a_single_call_once)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\n");
    FLEET(&a, "a", NULL, "--config", config, "--shell", exclusive("mail", ""));
    FLEET(&b, "b", NULL, "--config", config, "--shell", exclusive("mail", ""));
    for (long id = 1; id <= 20; id++) {
        ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                                         " AND classid = 1869968482 AND granted") == 2,
                             E2E_WAIT_MS));
        ck_assert_int_eq(enqueue_one("mail", "{}"), id);
        fleet_finish();
    }
    fleet_finish_all(1, 20);
    ck_assert_uint_eq(runs_count(), 20);
    ck_assert_uint_eq(twice_at_once(), 0);
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

static size_t runs_of_first_attempts(void)
{
    FILE *f = fopen(ran_path(), "r");
    size_t first = 0;
    long id = 0;
    int attempt = 0;
    ck_assert_ptr_nonnull(f);
    while (fscanf(f, "%ld %d", &id, &attempt) == 2)
        first += attempt == 1;
    (void)fclose(f);
    return first;
}

/* asyncpg-queue's test_worker_shutdown, test_worker_cancellation_task_resume: ten jobs of ten
 * minutes. The stop is not held up by them and leaves no process; another worker finishes them, and
 * none was counted. */
START_TEST(worker_shutdown_leaves_its_jobs_to_another)
{
    char child[40];
    char text[600];
    (void)snprintf(child, sizeof child, "sleep 600.%d", (int)getpid()); /* no other run's */
    (void)snprintf(text, sizeof text, "[ -e %s ] || exec %s", flag_path("second"), child);
    const char *config = e2e_config("stop_timeout: 1s\nconcurrency: %d\nlease: 1h\n", LONG_JOBS);
    FLEET(&a, "a", NULL, "--config", config, "--shell", exclusive("mail", text));
    enqueue_jobs("mail", LONG_JOBS);
    ck_assert(wait_until(processes_with(child) == LONG_JOBS, E2E_WAIT_MS));
    flag_raise("second");
    FLEET(&b, "b", NULL, "--config", config, "--shell", exclusive("mail", text));
    daemon_stop(&a);
    ck_assert_uint_eq(processes_with(child), 0);
    fleet_finish_all(1, LONG_JOBS);
    ck_assert_uint_eq(runs_count(), (size_t)2 * LONG_JOBS);
    ck_assert_uint_eq(runs_of_first_attempts(), (size_t)2 * LONG_JOBS);
    ck_assert_uint_eq(twice_at_once(), 0);
    daemon_stop(&b);
}
END_TEST

static long beats(const char *name)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "SELECT beat FROM outbox.dispatchers WHERE name = '%s'", name);
    return testdb_long(sql);
}

/* pgjobq's test_worker_takes_longer_than_ack_interval, test_concurrent_worker_pull_atomic_delivery:
 * a job may outlast its lease by far, as long as its worker lives; another one is there, and idle.
 */
START_TEST(worker_takes_longer_than_its_lease_and_keeps_the_job)
{
    FLEET(&a, "a", NULL, "--lease", "5s", "--shell", exclusive("mail", wait_for_flag("go")));
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(id) == 1, E2E_WAIT_MS));
    FLEET(&b, "b", NULL, "--lease", "5s", "--shell", exclusive("mail", wait_for_flag("go")));
    long mine = beats("a");
    long others = beats("b");
    ck_assert(wait_until(beats("a") >= mine + 2 * LEASE_BEATS + 1 &&
                             beats("b") >= others + 2 * LEASE_BEATS + 1,
                         E2E_WAIT_MS));
    ck_assert_uint_eq(runs_of(id), 1);
    ck_assert_str_eq(testdb_value("SELECT dispatcher FROM outbox.jobs"), "a");
    flag_raise("go");
    fleet_finish_all(id, id);
    ck_assert_uint_eq(runs_count(), 1);
    ck_assert(!daemon_logged(&a, "event=lost_claim"));
    ck_assert(!daemon_logged(&b, "event=took_over"));
    daemon_stop(&a);
    daemon_stop(&b);
}
END_TEST

/* What was told to this connection, one after the other: "5 done;..." */
static const char *told(PGconn *listener)
{
    static char text[256];
    static size_t len;
    pg_exec_ok(listener, "SELECT 1");
    ck_assert_int_eq(PQconsumeInput(listener), 1);
    for (PGnotify *n = PQnotifies(listener); n != NULL; n = PQnotifies(listener)) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s;", n->extra);
        ck_assert_uint_lt(len, sizeof text);
        PQfreemem(n);
    }
    return text;
}

/* pgjobq's test_completion_handle_awaited, ..._ignored: sent, received, completed, in this order;
 * told once, by the run that succeeded and not by the one that failed (theirs told then, too). */
START_TEST(completion_is_told_by_the_run_that_succeeds)
{
    char text[600];
    (void)snprintf(text, sizeof text, "[ $OUTBOX_ATTEMPT -eq 2 ] || exit 1; %s",
                   wait_for_flag("go"));
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done");
    FLEET(&a, "a", NULL, "--config",
          e2e_config("tasks:\n  mail: {exec: [%s], backoff: 10ms}\n",
                     handler_script("second-time", text)),
          "--discard", "quick");
    testdb_exec("SELECT outbox.enqueue('mail', notify_done => true)");
    testdb_exec("SELECT outbox.enqueue('quick')");
    ck_assert(wait_until(runs_of(1) == 2, E2E_WAIT_MS));
    testdb_exec("SELECT outbox.enqueue('quick', notify_done => true)");
    ck_assert(wait_until(strcmp(told(listener), "") != 0, E2E_WAIT_MS));
    ck_assert_str_eq(told(listener), "3 done;");
    flag_raise("go");
    ck_assert(wait_until(strcmp(told(listener), "3 done;") != 0, E2E_WAIT_MS));
    ck_assert_str_eq(told(listener), "3 done;1 done;");
    ck_assert_uint_eq(runs_count(), 2);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
    PQfinish(listener);
    daemon_stop(&a);
}
END_TEST

/* None of the five: what was enqueued, and notified of, while nobody could listen is found when the
 * connection is back, and what comes then wakes again. No poll is near. */
START_TEST(listener_that_was_away_finds_what_it_missed)
{
    struct faultproxy proxy;
    fleet_proxy(&proxy);
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 1h\nlease: 1h\n");
    FLEET(&a, "a", fleet_proxy_conninfo(&proxy), "--config", config, "--shell",
          recording("mail", ""));
    for (long id = 1; id <= 10; id += 5) {
        (void)enqueue_one("mail", "{}");
        fleet_finish_all(1, id);
        faultproxy_refuse(&proxy);
        faultproxy_reset(&proxy);
        daemon_expect_log(&a, "event=database_down connection=work", E2E_WAIT_MS);
        ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                                         " AND classid = 1869968482") == 0,
                             E2E_WAIT_MS));
        enqueue_jobs("mail", 4);
        faultproxy_pass(&proxy);
        fleet_finish_all(1, id + 4);
    }
    (void)enqueue_one("mail", "{}");
    fleet_finish_all(1, 11);
    ck_assert_uint_eq(runs_count(), 11);
    daemon_stop(&a);
    faultproxy_stop(&proxy);
}
END_TEST

/* And a notification that is never sent, or lost on a connection that lives, is made up for by the
 * poll. */
START_TEST(notification_that_is_lost_is_made_up_for_by_the_poll)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 100ms\nlease: 1h\n");
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SET outbox.notify = off");
    FLEET(&a, "a", NULL, "--config", config, "--shell", recording("mail", ""));
    for (long id = 1; id <= 5; id++) {
        pg_exec_ok(conn, "SELECT outbox.enqueue('mail')");
        fleet_finish_all(1, id);
    }
    ck_assert_uint_eq(runs_count(), 5);
    PQfinish(conn);
    daemon_stop(&a);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("predecessors");
    TCase *tc = tcase_create("workers");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, input_of_any_shape_arrives_as_it_was_put, 0,
                        (int)(sizeof arguments / sizeof arguments[0]));
    tcase_add_test(tc, multiple_workers_that_sleep_run_a_single_call_once);
    tcase_add_test(tc, worker_shutdown_leaves_its_jobs_to_another);
    tcase_add_test(tc, worker_takes_longer_than_its_lease_and_keeps_the_job);
    tcase_add_test(tc, completion_is_told_by_the_run_that_succeeds);
    tcase_add_test(tc, listener_that_was_away_finds_what_it_missed);
    tcase_add_test(tc, notification_that_is_lost_is_made_up_for_by_the_poll);
    suite_add_tcase(s, tc);
    return s;
}
