/* How durable a commit is, is the caller's to say: by its synchronous_commit, whatever way the job
 * is enqueued. Shown against a streaming standby of the server: one whose replay stands still, and
 * one that takes the server's place while producers commit.
 *
 * A standby takes the server's place for good, so each test has a cluster of its own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <outbox/outbox.h>

#include "ck_main.h"
#include "e2e.h"
#include "fleet.h"
#include "pgcluster.h"
#include "wait.h"

enum { PRODUCERS = 4, BEFORE_CRASH = 300, ORDERS_MAX = 100000 };

static struct daemon d;

static PGconn *connect_standby(void)
{
    char conninfo[300];
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=5433 user=postgres dbname=%s",
                   pgcluster_socket_dir(), testdb_value("SELECT current_database()"));
    PGconn *conn = PQconnectdb(conninfo);
    ck_assert_msg(PQstatus(conn) == CONNECTION_OK, "%s", PQerrorMessage(conn));
    return conn;
}

static void start_synchronous_standby(void)
{
    testdb_exec("CREATE TABLE orders (n bigint PRIMARY KEY)");
    pgcluster_start_standby();
    testdb_exec("ALTER SYSTEM SET synchronous_standby_names = '*'");
    testdb_exec("SELECT pg_reload_conf()");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_replication"
                                     " WHERE sync_state = 'sync'") == 1,
                         E2E_WAIT_MS));
}

/* "orders|jobs" of the numbers from `first` on, as the standby sees them now. */
static const char *seen_by(PGconn *standby)
{
    static char text[64];
    PGresult *res = pg_query(standby, PGRES_TUPLES_OK,
                             "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM"
                             " outbox.job)");
    (void)snprintf(text, sizeof text, "%s|%s", PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1));
    PQclear(res);
    return text;
}

static void enqueue_by_sql(PGconn *conn)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('mail')");
}

static void enqueue_by_array(PGconn *conn)
{
    pg_exec_ok(conn, "SELECT * FROM outbox.enqueue_many('[{\"task\": \"mail\", \"key\": \"k\"}]')");
}

static void enqueue_by_header(PGconn *conn)
{
    struct outbox_job job = OUTBOX_JOB("mail");
    struct outbox_error err;
    job.notify_done = true;
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_OK);
}

static void enqueue_by_trigger(PGconn *conn)
{
    pg_exec_ok(conn, "INSERT INTO shop VALUES (1)");
}

static void (*const ways[])(PGconn *) = {enqueue_by_sql, enqueue_by_array, enqueue_by_header,
                                         enqueue_by_trigger};

/* A business write and a job, and the COMMIT sent. */
static PGconn *begin_commit(const char *synchronous_commit, size_t way, int n)
{
    char sql[128];
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    (void)snprintf(sql, sizeof sql, "SET LOCAL synchronous_commit = %s", synchronous_commit);
    pg_exec_ok(conn, sql);
    (void)snprintf(sql, sizeof sql, "INSERT INTO orders VALUES (%d)", n);
    pg_exec_ok(conn, sql);
    ways[way](conn);
    ck_assert_int_eq(PQsendQuery(conn, "COMMIT"), 1);
    return conn;
}

static bool waits_for_standby(PGconn *conn)
{
    char sql[160];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event = 'SyncRep'",
        PQbackendPID(conn));
    return testdb_long(sql) == 1;
}

static void end_commit(PGconn *conn)
{
    PGresult *res;
    while ((res = PQgetResult(conn)) != NULL) {
        ck_assert_str_eq(PQcmdStatus(res), "COMMIT");
        PQclear(res);
    }
    PQfinish(conn);
}

/* The standby has all in its log, and shows nothing of it: `on` is content with that,
 * `remote_apply` is not. When it returns, the standby shows the business write and the job. */
START_TEST(commit_waits_for_the_standby_as_the_caller_says)
{
    int n = 0;
    testdb_exec("CREATE TABLE shop (n bigint)");
    testdb_exec("CREATE TRIGGER shop_enqueues AFTER INSERT ON shop FOR EACH ROW EXECUTE FUNCTION"
                " outbox.enqueue_row('mail')");
    start_synchronous_standby();
    PGconn *standby = connect_standby();
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        char before[64];
        char after[64];
        (void)snprintf(before, sizeof before, "%d|%d", n, n);
        pg_exec_ok(standby, "SELECT pg_wal_replay_pause()");
        end_commit(begin_commit("on", way, ++n));
        PGconn *waiting = begin_commit("remote_apply", way, ++n);
        ck_assert(wait_until(waits_for_standby(waiting), E2E_WAIT_MS));
        ck_assert_str_eq(seen_by(standby), before);
        pg_exec_ok(standby, "SELECT pg_wal_replay_resume()");
        end_commit(waiting);
        (void)snprintf(after, sizeof after, "%d|%d", n, n);
        ck_assert_str_eq(seen_by(standby), after);
    }
    PQfinish(standby);
}
END_TEST

/* ---- promotion while producers commit ---- */

static bool is_acknowledged[ORDERS_MAX];
static bool has_run[ORDERS_MAX];

struct producer {
    PGconn *conn;
    int n;
    bool is_over;
};

static void place_order(struct producer *p, int n)
{
    char sql[256];
    ck_assert_int_lt(n, ORDERS_MAX);
    p->n = n;
    (void)snprintf(sql, sizeof sql,
                   "BEGIN; SET LOCAL synchronous_commit = %s; INSERT INTO orders VALUES (%d);"
                   " SELECT outbox.enqueue('mail', '%d'); COMMIT",
                   n % 2 == 0 ? "remote_apply" : "on", n, n);
    ck_assert_int_eq(PQsendQuery(p->conn, sql), 1);
}

/* Reads the answer, if it is there: acknowledged, or cut off, and nobody knows. */
static void read_answer(struct producer *p, int *acknowledged)
{
    PGresult *res;
    bool is_committed = false;
    p->is_over = PQconsumeInput(p->conn) == 0 || PQisBusy(p->conn) == 0;
    while (p->is_over && (res = PQgetResult(p->conn)) != NULL) {
        is_committed = strcmp(PQcmdStatus(res), "COMMIT") == 0;
        PQclear(res);
        if (PQstatus(p->conn) == CONNECTION_BAD)
            break;
    }
    if (is_committed) {
        is_acknowledged[p->n] = true;
        (*acknowledged)++;
    }
}

/* Producers commit all the time; the server is killed in the middle of what they do. Returns how
 * many commits were acknowledged. */
static int produce_until_crash(void)
{
    struct producer producers[PRODUCERS] = {0};
    int acknowledged = 0;
    int next = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i].conn = testdb_connect();
        place_order(&producers[i], next++);
    }
    while (acknowledged < BEFORE_CRASH) {
        for (int i = 0; i < PRODUCERS; i++) {
            read_answer(&producers[i], &acknowledged);
            if (producers[i].is_over)
                place_order(&producers[i], next++);
        }
    }
    pgcluster_crash();
    for (int i = 0; i < PRODUCERS; i++) {
        ck_assert(wait_until((read_answer(&producers[i], &acknowledged), producers[i].is_over),
                             E2E_WAIT_MS));
        PQfinish(producers[i].conn);
    }
    return acknowledged;
}

static void read_what_ran(void)
{
    FILE *f = fopen(flag_path("numbers"), "r");
    int n = 0;
    ck_assert_ptr_nonnull(f);
    while (fscanf(f, "%d", &n) == 1) {
        ck_assert(n >= 0 && n < ORDERS_MAX);
        has_run[n] = true;
    }
    (void)fclose(f);
}

/* Every order whose commit was acknowledged is there on the promoted standby, and for every order
 * that is there, acknowledged or not, its job runs; for no other one. */
START_TEST(promotion_while_producers_commit_loses_no_job)
{
    char conninfo[300];
    char text[300];
    const char *dir = pgcluster_socket_dir();
    start_synchronous_standby();
    (void)snprintf(conninfo, sizeof conninfo, "host=%s,%s port=5432,5433 user=postgres dbname=%s",
                   dir, dir, testdb_value("SELECT current_database()"));
    (void)snprintf(text, sizeof text, "echo $(cat) >> %s", flag_path("numbers"));
    FLEET(&d, "a", conninfo, "--concurrency", "3", "--shell", exclusive("mail", text));
    int acknowledged = produce_until_crash();
    pgcluster_use_standby();
    ck_assert_str_eq(testdb_value("SELECT pg_promote(true, 60)"), "t");
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    fleet_finish();
    daemon_stop(&d);
    read_what_ran();
    PGconn *conn = testdb_connect();
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, "SELECT n FROM orders");
    ck_assert_int_ge(PQntuples(res), acknowledged);
    for (int row = 0; row < PQntuples(res); row++) {
        int n = (int)strtol(PQgetvalue(res, row, 0), NULL, 10);
        ck_assert_msg(has_run[n], "order %d is there, and its job did not run", n);
        has_run[n] = false;
        is_acknowledged[n] = false;
    }
    PQclear(res);
    PQfinish(conn);
    for (int n = 0; n < ORDERS_MAX; n++) {
        ck_assert_msg(!has_run[n], "the job of order %d ran, and there is no such order", n);
        ck_assert_msg(!is_acknowledged[n], "order %d was acknowledged, and is lost", n);
    }
    ck_assert_uint_eq(twice_at_once(), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
}
END_TEST

static void add_case(Suite *s, const char *name, const TTest *test)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_needs_standby, NULL);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, test);
    suite_add_tcase(s, tc);
}

Suite *test_suite(void)
{
    Suite *s = suite_create("durability");
    add_case(s, "remote apply", commit_waits_for_the_standby_as_the_caller_says);
    add_case(s, "promotion", promotion_while_producers_commit_loses_no_job);
    return s;
}
