/* Waking: who watches gets a NOTIFY, nobody else causes one, and no lock is left behind. */
#include "check_sql.h"

#include "wait.h"

/* Notifications that have arrived since the last call. A round trip through the channel comes last,
 * so nothing sent before it can still be under way. */
static int notifications(PGconn *listener)
{
    int count = 0;
    bool is_end = false;
    pg_exec_ok(listener, "SELECT pg_notify('outbox', 'end')");
    while (!is_end) {
        PGnotify *n;
        ck_assert_int_eq(PQconsumeInput(listener), 1);
        while ((n = PQnotifies(listener)) != NULL) {
            ck_assert_str_eq(n->relname, "outbox");
            is_end = is_end || strcmp(n->extra, "end") == 0;
            count += n->extra[0] == '\0';
            PQfreemem(n);
        }
        if (!is_end)
            pg_exec_ok(listener, "SELECT 1");
    }
    return count;
}

static PGconn *listen_to_all(void)
{
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox");
    return listener;
}

static const struct {
    const char *name;
    const char *sql;
} wakers[] = {
    {"enqueue", "SELECT outbox.enqueue('a')"},
    {"enqueue for later", "SELECT outbox.enqueue('a', delay => '1 hour')"},
    {"enqueue_bytes", "SELECT * FROM outbox.enqueue_bytes('a', '1', 'json')"},
    {"enqueue_plain", "SELECT * FROM outbox.enqueue_plain('a', '1', 'json')"},
    {"enqueue_many", "SELECT * FROM outbox.enqueue_many('[{\"task\": \"z\"}, {\"task\": \"a\"}, "
                     "{\"task\": \"a\"}]')"},
    {"enqueue_row", "INSERT INTO shop VALUES (1)"},
    {"by hand", "SELECT outbox.wake('a')"},
    {"release", "SELECT * FROM outbox.release(1, '{1}', '{1}')"},
    {"retry now", "SELECT * FROM outbox.settle(1, '{1}', '{1}', '[{\"outcome\": \"retry\", "
                  "\"reason\": \"x\"}]')"},
    {"take over", "SELECT outbox.take_over(1, 0)"},
    {"due", "SELECT * FROM outbox.due()"},
    {"retry a scheduled one", "SELECT outbox.retry(2)"},
    {"retry a dead one", "SELECT outbox.retry(3)"},
    {"another dispatcher leaves", "SELECT outbox.unregister(2)"},
    {"take over of one without jobs", "SELECT outbox.take_over(2, 0)"},
};

/* Job 1 is claimed, 2 scheduled and due, 3 dead; shop has a trigger. Dispatcher 2 has no job. */
static PGconn *stage(void)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    ck_rows(conn, REGISTER("2", "two"), "registered");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 hour')");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = '2001-01-01' WHERE id = 2");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', priority => 1)");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 2, '{a}', '{1}')");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{3}', '{2}', '[{\"outcome\": \"dead\", "
                     "\"reason\": \"x\"}]')");
    pg_exec_ok(conn,
               "CREATE TABLE shop (id int); CREATE TRIGGER t AFTER INSERT ON shop FOR EACH ROW"
               " EXECUTE FUNCTION outbox.enqueue_row('a')");
    ck_rows(conn, "SELECT id, state FROM outbox.jobs ORDER BY id", "1|running;2|scheduled;3|dead");
    return conn;
}

START_TEST(who_watches_is_woken_by_whatever_it_must_look_for)
{
    PGconn *conn = stage();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{b,a}')");
    pg_exec_ok(conn, wakers[_i].sql);
    ck_assert_msg(notifications(listener) == 1, "%s did not wake", wakers[_i].name);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

/* On the same stage; what is put gets the ids from 4 on. */
static const struct {
    const char *before;
    const char *sql;
} ends[] = {
    {"SELECT outbox.enqueue('a', after => '{1}')", "SELECT outbox.settle(1, '{1}', '{1}')"},
    {"SELECT outbox.enqueue('a', key => 'k', after => '{1}')",
     "SELECT outbox.settle(1, '{1}', '{1}')"},
    {"SELECT outbox.enqueue('a', after => '{2}', on_failed_dependency => 'run')",
     "SELECT outbox.cancel(2)"},
    {"SELECT outbox.enqueue('a', after => array_agg(id)) FROM (SELECT outbox.enqueue('z') AS id) z",
     "SELECT outbox.take('z')"},
    {"SELECT outbox.enqueue('a')", "SELECT outbox.take_failed(4, 'x')"},
    {"SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)",
     "SELECT outbox.cancel(4)"},
    {"SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2);"
     "DELETE FROM outbox.job WHERE id = 4",
     "SELECT outbox.mend()"},
    {"SELECT outbox.enqueue('a', repeat_every => '1 hour')", "SELECT outbox.take('a')"},
};

START_TEST(who_watches_is_woken_by_the_end_of_what_others_waited_for)
{
    PGconn *conn = stage();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(conn, ends[_i].before);
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, ends[_i].sql);
    ck_assert_msg(notifications(listener) > 0, "%s did not wake", ends[_i].sql);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(nobody_asleep_no_notification)
{
    PGconn *conn = stage();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{other}')");
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}'), outbox.unwatch('{a}')");
    for (size_t i = 0; i < 6; i++)
        pg_exec_ok(conn, wakers[i].sql);
    ck_assert_int_eq(notifications(listener), 0);
    pg_exec_ok(conn, "SELECT outbox.enqueue('other')");
    ck_assert_int_eq(notifications(listener), 1);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_rolled_back_job_wakes_nobody)
{
    PGconn *conn = testdb_connect();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(notifications(listener), 0);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(many_jobs_of_a_transaction_are_one_notification)
{
    PGconn *conn = testdb_connect();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a,b}')");
    pg_exec_ok(conn, "BEGIN");
    for (int i = 0; i < 50; i++)
        pg_exec_ok(conn, "SELECT outbox.enqueue('a'), outbox.enqueue('b')");
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(notifications(listener), 1);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_producer_may_opt_out_and_wake_by_hand)
{
    PGconn *conn = testdb_connect();
    PGconn *listener = listen_to_all();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, "SET outbox.notify = off");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_assert_int_eq(notifications(listener), 0);
    pg_exec_ok(conn, "SELECT outbox.wake('a')");
    ck_assert_int_eq(notifications(listener), 1);
    pg_exec_ok(conn, "SET outbox.notify = on");
    pg_exec_ok(conn, "BEGIN; SET LOCAL outbox.notify = 'off'");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(notifications(listener), 0);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_assert_int_eq(notifications(listener), 1);
    PQfinish(sleeper);
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_prepared_transaction_wakes_by_hand)
{
    PGconn *conn = testdb_connect();
    PGconn *sleeper = testdb_connect();
    PGconn *listener = listen_to_all();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, "BEGIN; SET LOCAL outbox.notify = off; SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "PREPARE TRANSACTION 'p'");
    ck_rows(sleeper, "SELECT count(*) FROM outbox.jobs", "0");
    pg_exec_ok(conn, "COMMIT PREPARED 'p'");
    pg_exec_ok(conn, "SELECT outbox.wake('a')");
    ck_assert_int_eq(notifications(listener), 1);
    ck_rows(sleeper, "SELECT state FROM outbox.jobs", "ready");
    PQfinish(listener);
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

static const char *locks(PGconn *conn)
{
    return rows_of(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
}

START_TEST(watching_is_taking_and_giving_back_locks)
{
    PGconn *conn = testdb_connect();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a,b}')");
    ck_assert_str_eq(locks(conn), "2");
    pg_exec_ok(sleeper, "SELECT outbox.watch('{b,c}')");
    pg_exec_ok(sleeper, "SELECT outbox.unwatch('{a,b}')");
    ck_assert_str_eq(locks(conn), "2");
    pg_exec_ok(sleeper, "SELECT outbox.unwatch('{b,c}')");
    ck_assert_str_eq(locks(conn), "0");
    /* They go with the session, however it ends. */
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    PQfinish(sleeper);
    ck_assert(wait_until(strcmp(locks(conn), "0") == 0, 5000));
    PQfinish(conn);
}
END_TEST

/* A producer that is cancelled again and again, at any point of its statement, while nobody sleeps.
 */
START_TEST(a_cancelled_producer_leaves_no_lock)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    PGcancel *cancel = PQgetCancel(conn);
    int cancelled = 0;
    for (int i = 0; i < 150; i++) {
        char error[128];
        ck_assert_int_eq(
            PQsendQuery(conn, "SELECT count(outbox.enqueue('a')) FROM generate_series(1, 400)"), 1);
        (void)PQflush(conn);
        /* A different moment each time: the other session's statement grows. */
        for (int k = 0; k < i % 10; k++)
            pg_exec_ok(other, "SELECT 1");
        ck_assert_int_eq(PQcancel(cancel, error, sizeof error), 1);
        PGresult *res = PQgetResult(conn);
        cancelled += PQresultStatus(res) == PGRES_FATAL_ERROR;
        PQclear(res);
        while ((res = PQgetResult(conn)) != NULL)
            PQclear(res);
        ck_assert_str_eq(locks(other), "0");
    }
    ck_assert_int_gt(cancelled, 0);
    PQfreeCancel(cancel);
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

static void start_cluster(void)
{
    static const char *const settings[] = {"max_prepared_transactions=2", NULL};
    pgcluster_set_options(settings);
    pgcluster_start();
}

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_wake");
    TCase *tc = tcase_create("wake");
    tcase_add_unchecked_fixture(tc, start_cluster, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, who_watches_is_woken_by_whatever_it_must_look_for, 0,
                        sizeof wakers / sizeof wakers[0]);
    tcase_add_loop_test(tc, who_watches_is_woken_by_the_end_of_what_others_waited_for, 0,
                        sizeof ends / sizeof ends[0]);
    tcase_add_test(tc, nobody_asleep_no_notification);
    tcase_add_test(tc, a_rolled_back_job_wakes_nobody);
    tcase_add_test(tc, many_jobs_of_a_transaction_are_one_notification);
    tcase_add_test(tc, a_producer_may_opt_out_and_wake_by_hand);
    tcase_add_test(tc, a_prepared_transaction_wakes_by_hand);
    tcase_add_test(tc, watching_is_taking_and_giving_back_locks);
    tcase_add_test(tc, a_cancelled_producer_leaves_no_lock);
    return suite;
}
