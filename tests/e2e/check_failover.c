/* The server that comes back is not the one that went: a promoted standby, which has every commit
 * or lags behind, and a server whose crash forgot commits that were not flushed. Transaction ids
 * may go back, and so may job ids. What the server has is run, and what comes is run.
 *
 * A standby takes the server's place for good, so each such test has a cluster of its own. */
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

/* Of both servers: the daemons find the one that takes writes. */
static const char *both_servers(void)
{
    static char conninfo[300];
    const char *dir = pgcluster_socket_dir();
    (void)snprintf(conninfo, sizeof conninfo, "host=%s,%s port=5432,5433 user=postgres dbname=%s",
                   dir, dir, testdb_value("SELECT current_database()"));
    return conninfo;
}

/* Also notes the run in the file `after`: job ids may come again. */
static const char *noting(const char *task)
{
    char text[300];
    (void)snprintf(text, sizeof text, "echo 1 >> %s", flag_path("after"));
    return recording(task, text);
}

static size_t noted(void)
{
    return count_lines(flag_path("after"));
}

/* One more than the highest transaction id that the server knows of. */
static long xmax(void)
{
    return testdb_long("SELECT pg_snapshot_xmax(pg_current_snapshot())");
}

static void await_standby(void)
{
    testdb_exec("SELECT pg_current_xact_id()"); /* something to replay, after all before */
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_replication"
                                     " WHERE replay_lsn >= pg_current_wal_insert_lsn()") == 1,
                         E2E_WAIT_MS));
}

static void fail_over(void)
{
    pgcluster_crash();
    pgcluster_use_standby();
    ck_assert_str_eq(testdb_value("SELECT pg_promote(true, 60)"), "t");
}

static void expect_flow(const char *task, size_t n)
{
    size_t before = noted();
    for (size_t i = 1; i <= n; i++) {
        (void)enqueue_one(task, "{}");
        ck_assert_msg(wait_until(noted() >= before + i, FLEET_WAIT_MS),
                      "job %zu after the failure did not run", i);
    }
    ck_assert_uint_eq(noted(), before + n);
}

/* A standby that has what was committed: nothing is lost, and not even the jobs that ran meanwhile
 * run again. */
START_TEST(promoted_standby_goes_on_where_the_server_was)
{
    char text[500];
    (void)snprintf(text, sizeof text, "grep -q long || exec sleep 0.02; %s", wait_for_flag("go"));
    const char *handler = exclusive("mail", text);
    tokens_record();
    pgcluster_start_standby();
    testdb_exec("ALTER SYSTEM SET synchronous_standby_names = '*'");
    testdb_exec("SELECT pg_reload_conf()");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_replication"
                                     " WHERE sync_state = 'sync'") == 1,
                         E2E_WAIT_MS));
    FLEET(&a, "a", both_servers(), "--concurrency", "3", "--shell", handler);
    FLEET(&b, "b", both_servers(), "--concurrency", "3", "--shell", handler);
    for (int i = 0; i < 2; i++)
        (void)enqueue_one("mail", "{\"n\": \"long\"}");
    ck_assert(wait_until(runs_count() == 2, E2E_WAIT_MS));
    enqueue_jobs("mail", 300);
    ck_assert(wait_until(runs_count() >= 100, E2E_WAIT_MS));
    fail_over();
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert(wait_until(daemon_log_count(&b, "event=ready") == 2, E2E_WAIT_MS));
    for (int i = 0; i < 50; i++)
        (void)enqueue_one("mail", "{}");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 2, FLEET_WAIT_MS));
    flag_raise("go");
    fleet_finish();
    daemon_stop(&a);
    daemon_stop(&b);
    ck_assert_uint_eq(runs_distinct(), 352);
    ck_assert_uint_eq(runs_count(), 352);
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    ck_assert_uint_ge(tokens_expect_unique(), 352);
}
END_TEST

static void cut_off_standby(void)
{
    char conninfo[200];
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=5433 user=postgres dbname=postgres",
                   pgcluster_socket_dir());
    PGconn *standby = PQconnectdb(conninfo);
    ck_assert_int_eq(PQstatus(standby), CONNECTION_OK);
    pg_exec_ok(standby, "ALTER SYSTEM SET primary_conninfo = ''");
    pg_exec_ok(standby, "SELECT pg_reload_conf()");
    PQfinish(standby);
    ck_assert(
        wait_until(testdb_long("SELECT count(*) FROM pg_stat_replication") == 0, E2E_WAIT_MS));
}

static void use_up_xids(long n)
{
    PGconn *conn = testdb_connect();
    for (long i = 0; i < n; i++)
        pg_exec_ok(conn, "SELECT pg_current_xact_id()");
    PQfinish(conn);
}

/* A standby that lags: it does not know of transactions that the daemons have seen, nor of claims
 * that they hold. What it has is run, however far their cursors had come; what they run that it
 * does not know as theirs is stopped. */
START_TEST(promoted_standby_that_lags_has_its_jobs_run_and_new_ones)
{
    char early[500];
    char late[500];
    (void)snprintf(early, sizeof early, "echo 1 >> %s; %s", flag_path("early"),
                   wait_for_flag("go"));
    (void)snprintf(late, sizeof late, "trap 'touch %s; exit 1' TERM; sleep 600 & wait",
                   flag_path("stopped"));
    tokens_record();
    FLEET(&a, "a", both_servers(), "--concurrency", "2", "--shell", recording("mail", early),
          "--shell", recording("late", late), "--shell", noting("after"));
    enqueue_jobs("mail", 30);
    ck_assert(wait_until(runs_count() == 2, E2E_WAIT_MS));
    pgcluster_start_standby();
    await_standby();
    cut_off_standby();
    flag_raise("go");
    fleet_finish();
    use_up_xids(300);
    enqueue_jobs("after", 30);
    fleet_finish();
    (void)enqueue_one("late", "{}");
    ck_assert(wait_until(runs_count() == 61, E2E_WAIT_MS));
    long before = xmax();
    fail_over();
    ck_assert_int_lt(xmax(), before);
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    expect_flow("after", 50);
    ck_assert(wait_until(flag_is_up("stopped"), FLEET_WAIT_MS));
    fleet_finish();
    ck_assert_uint_eq(count_lines(flag_path("early")), 60); /* again, as the standby has them */
    ck_assert(wait_until(xmax() >= before || (use_up_xids(100), false), E2E_WAIT_MS));
    expect_flow("after", 20); /* past where the cursor had been */
    daemon_stop(&a);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
    ck_assert_uint_ge(tokens_expect_unique(), 30 + 30 + 1 + 30 + 70);
}
END_TEST

/* The daemon has looked at what is there now. */
static void await_looks(void)
{
    for (int i = 0; i < 3; i++) {
        char sql[300];
        (void)snprintf(sql, sizeof sql,
                       "SELECT count(*) FROM outbox.dispatcher d"
                       " JOIN pg_stat_activity a ON a.pid = d.backends[1]"
                       " WHERE a.state = 'idle' AND a.query_start > '%s'",
                       testdb_value("SELECT clock_timestamp()"));
        ck_assert(wait_until(testdb_long(sql) == 1, E2E_WAIT_MS));
    }
}

/* Producers that do not wait for the flush: the server crashes and knows nothing of them, and hands
 * out their transaction ids once more, which the daemon's cursor has passed. */
START_TEST(crash_that_forgets_transactions_hides_no_later_job)
{
    const char *config = e2e_config("sweep_interval: 1h\npoll_interval: 100ms\nlease: 1h\n");
    FLEET(&a, "a", NULL, "--config", config, "--shell", noting("mail"));
    expect_flow("mail", 5);
    ck_assert_int_eq(kill((pid_t)testdb_long("SELECT pid FROM pg_stat_activity"
                                             " WHERE backend_type = 'walwriter'"),
                          SIGSTOP),
                     0);
    PGconn *producer = testdb_connect();
    pg_exec_ok(producer, "SET synchronous_commit = off");
    for (int i = 0; i < 200; i++)
        pg_exec_ok(producer, "SELECT outbox.enqueue('nobody')");
    PQfinish(producer);
    await_looks();
    long before = xmax();
    pgcluster_crash();
    pgcluster_start_again();
    ck_assert_int_lt(xmax(), before - 100);
    ck_assert(wait_until(daemon_log_count(&a, "event=ready") == 2, E2E_WAIT_MS));
    expect_flow("mail", 100);
    ck_assert_int_lt(xmax(), before + 1000); /* and past it, in small steps */
    ck_assert(wait_until(xmax() >= before || (use_up_xids(20), false), E2E_WAIT_MS));
    expect_flow("mail", 50);
    daemon_stop(&a);
}
END_TEST

/* Rows from a dump of a cluster that was further on. They are run, and hold up neither those that
 * come with lower transaction ids nor each other. */
START_TEST(jobs_restored_with_higher_transaction_ids_are_run_and_hide_none)
{
    enqueue_jobs("mail", 20);
    testdb_exec("UPDATE outbox.job"
                " SET ready_xid = (ready_xid::text::bigint + 1000000)::text::xid8");
    FLEET(&a, "a", NULL, "--concurrency", "2", "--shell", noting("mail"));
    for (int i = 0; i < 20; i++)
        (void)enqueue_one("mail", "{}");
    fleet_finish_all(1, 40);
    expect_flow("mail", 20);
    daemon_stop(&a);
    ck_assert_uint_eq(runs_count(), 60);
}
END_TEST

/* What would flush the log behind the test's back. */
static void forgetful_start(void)
{
    static const char *const options[] = {"wal_writer_delay=10s",    "full_page_writes=off",
                                          "autovacuum=off",          "checkpoint_timeout=1h",
                                          "bgwriter_lru_maxpages=0", NULL};
    pgcluster_set_options(options);
    pgcluster_start();
    pgcluster_set_options(NULL);
}

static void add_case(Suite *s, const char *name, void (*start)(void), const TTest *test)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_needs_standby, NULL);
    tcase_add_unchecked_fixture(tc, start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, test);
    suite_add_tcase(s, tc);
}

Suite *test_suite(void)
{
    Suite *s = suite_create("failover");
    add_case(s, "standby", pgcluster_start, promoted_standby_goes_on_where_the_server_was);
    add_case(s, "standby behind", pgcluster_start,
             promoted_standby_that_lags_has_its_jobs_run_and_new_ones);
    add_case(s, "forgetful", forgetful_start, crash_that_forgets_transactions_hides_no_later_job);
    add_case(s, "restored", pgcluster_start,
             jobs_restored_with_higher_transaction_ids_are_run_and_hide_none);
    return s;
}
