/* check_rules_locks.c - asking to be woken, as far as it is SQL and the connection's: each rule by
 * the one interleaving that needs it, with the rule and without. See rules_fixture.h; the daemon's
 * part is tests/e2e/check_rules_wake.c. */
#include <poll.h>

#include "rules_fixture.h"

#define ONE_TASK "tasks:\n  a: { discard: true, concurrency: 10 }\n"

enum { STORM_PRODUCERS = 4, STORM_CANCELS = 400 };

static const char ONE_TRY[] = "    SELECT CASE WHEN pg_catalog.pg_try";
static const char TWO_TRIES[] = "outbox.sleeps(t) AND outbox.sleeps(t)";

static long task_locks(void)
{
    return testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = "
                       "1869968482 AND granted");
}

static void cancel_backend(const PGconn *conn)
{
    char error[256];
    PGcancel *cancel = PQgetCancel((PGconn *)(uintptr_t)conn);
    ck_assert_msg(PQcancel(cancel, error, sizeof error) == 1, "%s", error);
    PQfreeCancel(cancel);
}

/* The session's own notifications that came so far. */
static int notifies_of(PGconn *conn)
{
    int n = 0;
    pg_exec_ok(conn, "SELECT 1");
    for (PGnotify *notify = PQnotifies(conn); notify != NULL; notify = PQnotifies(conn)) {
        PQfreemem(notify);
        n++;
    }
    return n;
}

/* All that were sent before now. */
static int notifies_until_now(PGconn *listener)
{
    int n = 0;
    testdb_exec("NOTIFY outbox, 'now'");
    for (bool is_over = false; !is_over;) {
        pg_exec_ok(listener, "SELECT 1");
        for (PGnotify *notify = PQnotifies(listener); notify != NULL;
             notify = PQnotifies(listener)) {
            is_over = strcmp(notify->extra, "now") == 0;
            n += !is_over;
            PQfreemem(notify);
        }
    }
    return n;
}

/* ---- producers ---- */

/* A producer that is cancelled between trying the lock and releasing it would keep it for as long
 * as its session lives: everybody who enqueues would notify, and no dispatcher could hold it. */
START_TEST(cancelled_producer_leaves_no_lock)
{
    gates_make();
    if (IS_OFF) {
        sql_replace("sleeps", ONE_TRY,
                    "SELECT pg_catalog.pg_try_advisory_lock(1869968482, pg_catalog.hashtext(task));"
                    " SELECT public.gate(1);"
                    " SELECT pg_catalog.pg_advisory_unlock(1869968482, pg_catalog.hashtext(task));"
                    " SELECT CASE WHEN pg_catalog.pg_try");
    } else {
        sql_replace("sleeps", ONE_TRY, "SELECT public.gate(1); SELECT CASE WHEN pg_catalog.pg_try");
    }
    PGconn *producer = testdb_connect();
    PGconn *gate = gate_close(1);
    ck_assert_int_eq(PQsendQuery(producer, "SELECT outbox.enqueue('a')"), 1);
    gate_wait(1);
    cancel_backend(producer);
    PGresult *res = PQgetResult(producer);
    ck_assert_str_eq(PQresultErrorField(res, PG_DIAG_SQLSTATE), "57014");
    PQclear(res);
    ck_assert_ptr_null(PQgetResult(producer));
    ck_assert_int_eq(task_locks(), IS_OFF ? 1 : 0);
    gate_open(gate);
    PQfinish(producer);
}
END_TEST

/* The same wherever it is hit: producers that enqueue as fast as they can, all cancelled all the
 * time. */
START_TEST(storm_of_cancels_leaves_no_lock)
{
    static const char enqueue[] = "SELECT count(outbox.enqueue('a')) FROM generate_series(1, 2000)";
    PGconn *producers[STORM_PRODUCERS];
    unsigned cancelled = 0;
    unsigned done = 0;
    for (int i = 0; i < STORM_PRODUCERS; i++) {
        producers[i] = testdb_connect();
        ck_assert_int_eq(PQsendQuery(producers[i], enqueue), 1);
    }
    for (int n = 0; n < STORM_CANCELS; n++) {
        PGconn *conn = producers[n % STORM_PRODUCERS];
        cancel_backend(conn);
        PGresult *res = PQgetResult(conn);
        if (PQresultStatus(res) == PGRES_TUPLES_OK)
            done++;
        else
            cancelled++;
        PQclear(res);
        while ((res = PQgetResult(conn)) != NULL)
            PQclear(res);
        ck_assert_int_eq(PQsendQuery(conn, enqueue), 1);
    }
    for (int i = 0; i < STORM_PRODUCERS; i++) {
        PGresult *res = NULL;
        while ((res = PQgetResult(producers[i])) != NULL)
            PQclear(res);
    }
    ck_assert_uint_gt(cancelled, 0);
    ck_assert_uint_gt(done + cancelled, STORM_CANCELS - 1);
    ck_assert_int_eq(task_locks(), 0);
    for (int i = 0; i < STORM_PRODUCERS; i++)
        PQfinish(producers[i]);
}
END_TEST

/* Two producers try at the same moment: the one that comes second tries again, and nobody is woken,
 * as nobody sleeps. */
START_TEST(second_producer_tries_again_before_it_notifies)
{
    gates_make();
    sql_replace("wake_tasks", TWO_TRIES,
                IS_OFF ? "public.gate(1)"
                       : "CASE WHEN public.gate(1) THEN outbox.sleeps(t) AND outbox.sleeps(t) END");
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox");
    PGconn *first = testdb_connect();
    pg_exec_ok(first, "SELECT pg_advisory_lock(1869968482, hashtext('a'))"); /* as its try does */
    PGconn *gate = gate_close(1);
    PGconn *second = testdb_connect();
    ck_assert_int_eq(PQsendQuery(second, "SELECT outbox.enqueue('a')"), 1);
    gate_wait(1);
    pg_exec_ok(first, "SELECT pg_advisory_unlock_all()");
    gate_open(gate);
    PGresult *res = PQgetResult(second);
    ck_assert_int_eq(PQresultStatus(res), PGRES_TUPLES_OK);
    PQclear(res);
    ck_assert_ptr_null(PQgetResult(second));
    ck_assert_int_eq(notifies_until_now(listener), IS_OFF ? 1 : 0);
    PQfinish(second);
    PQfinish(first);
    PQfinish(listener);
}
END_TEST

/* ---- the way to sleep ---- */

static const char LOOK[] =
    "SELECT state::text FROM outbox.look(101, 1, '{a}', '{10}', '{f}', 0, '0', 0, '0', '{}', '{}',"
    " '{}', '{}', '{}', '{}', '{}', '-infinity', NULL, NULL) WHERE state IS NOT NULL";

static bool is_in_running(const char *state, uint64_t xid)
{
    struct seen *seen = seen_parse(state, strlen(state));
    bool is_in = false;
    ck_assert_ptr_nonnull(seen);
    for (size_t i = 0; i < seen->running.count; i++)
        is_in = is_in || seen->running.items[i] == xid;
    seen_free(seen);
    return is_in;
}

/* A producer with the newest xid has tried the lock before it was taken, and runs. The look after
 * must see it running: what else would read its job? _i: 0 three commits; 1 all in one; 2 without
 * an xid of one's own. */
START_TEST(look_before_sleep_sees_who_may_have_missed_the_lock)
{
    static const char watch[] = "SELECT outbox.watch('{a}')";
    static const char take_xid[] = "SELECT pg_current_xact_id()";
    register_as(DESK_ID);
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "LISTEN outbox");
    PGconn *producer = begin();
    (void)put(producer, "a", 1); /* nobody sleeps: no NOTIFY */
    uint64_t xid = xid_of(producer);
    if (_i == 1)
        pg_exec_ok(sleeper, "BEGIN");
    pg_exec_ok(sleeper, watch);
    if (_i < 2)
        pg_exec_ok(sleeper, take_xid);
    PGresult *res = pg_query(sleeper, PGRES_TUPLES_OK, LOOK);
    ck_assert_int_eq(is_in_running(PQgetvalue(res, 0, 0), xid), _i == 0);
    PQclear(res);
    if (_i == 1)
        pg_exec_ok(sleeper, "COMMIT");
    commit(producer);
    ck_assert_int_eq(notifies_of(sleeper), 0); /* it is the list that the job depends on */
    PQfinish(sleeper);
}
END_TEST

/* Locks first, then the look: who commits between the two is seen by the look or notifies. */
START_TEST(look_before_the_lock_misses_who_commits_between)
{
    static const char watch[] = "SELECT outbox.watch('{a}')";
    register_as(DESK_ID);
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(sleeper, "LISTEN outbox");
    bool is_found = false;
    for (int step = 0; step < 3; step++) {
        if (step == 1) {
            (void)put_one("a");
        } else if ((step == 0) != IS_OFF) {
            pg_exec_ok(sleeper, watch);
        } else {
            PGresult *res = pg_query(sleeper, PGRES_TUPLES_OK,
                                     "SELECT id FROM outbox.look(101, 1, '{a}', '{10}', '{f}', 0,"
                                     " '0', 0, '0', '{}', '{}', '{}', '{}', '{}', '{}', '{}',"
                                     " '-infinity', NULL, NULL) WHERE id IS NOT NULL");
            is_found = PQntuples(res) == 1;
            PQclear(res);
        }
    }
    ck_assert_int_eq(is_found || notifies_of(sleeper) > 0, !IS_OFF);
    PQfinish(sleeper);
}
END_TEST

/* ---- pruning ---- */

static bool is_still_writing(uint64_t xid)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql,
                   "SELECT (cardinality(outbox.still_writing('{%" PRIu64 "}')) > 0)::integer", xid);
    return testdb_long(sql) == 1;
}

/* Of the watched transactions, those that wrote to outbox.job may have skipped their NOTIFY. */
START_TEST(only_writers_of_jobs_stay_watched)
{
    testdb_exec("CREATE TABLE public.orders (id integer)");
    PGconn *elsewhere = begin();
    pg_exec_ok(elsewhere, "INSERT INTO public.orders VALUES (1)");
    PGconn *reader = begin();
    pg_exec_ok(reader, "SELECT count(*) FROM outbox.job");
    uint64_t reader_xid = xid_of(reader);
    PGconn *producer = begin();
    (void)put(producer, "a", 1);
    PGconn *nested = begin();
    pg_exec_ok(nested, "INSERT INTO public.orders VALUES (1); SAVEPOINT s");
    (void)put(nested, "a", 1);
    ck_assert(!is_still_writing(xid_of(elsewhere)));
    ck_assert(!is_still_writing(reader_xid));
    ck_assert(is_still_writing(xid_of(producer)));
    ck_assert(is_still_writing(xid_of(nested)));
    uint64_t ended = xid_of(producer);
    commit(producer);
    ck_assert(!is_still_writing(ended));
    roll_back(nested);
    roll_back(reader);
    roll_back(elsewhere);
}
END_TEST

/* ---- the connection ---- */

static bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* It comes with the answer of a query of one's own, and the socket is not readable again. Without
 * the rule: a client that asks libpq only when the socket is readable. */
START_TEST(notification_that_comes_with_an_answer_is_seen)
{
    if (IS_OFF) {
        PGconn *conn = testdb_connect();
        pg_exec_ok(conn, "LISTEN outbox");
        pg_exec_ok(conn, "SELECT pg_notify('outbox', '')");
        ck_assert(!is_readable(PQsocket(conn))); /* it would wait for ever */
        PGnotify *notify = PQnotifies(conn);
        ck_assert_ptr_nonnull(notify);
        PQfreemem(notify);
        PQfinish(conn);
        return;
    }
    struct pgrig rig;
    rig_open_up(&rig, testdb_conninfo());
    (void)rig_value(&rig, "LISTEN outbox");
    unsigned before = rig.notifies;
    (void)rig_value(&rig, "SELECT pg_notify('outbox', '')");
    rig_until(&rig, rig.notifies > before);
    rig_close(&rig);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("rules_locks");
    TCase *tc = rules_case(suite, "producers");
    tcase_add_loop_test(tc, cancelled_producer_leaves_no_lock, 0, 2);
    tcase_add_test(tc, storm_of_cancels_leaves_no_lock);
    tcase_add_loop_test(tc, second_producer_tries_again_before_it_notifies, 0, 2);
    tc = rules_case(suite, "going to sleep");
    tcase_add_loop_test(tc, look_before_sleep_sees_who_may_have_missed_the_lock, 0, 3);
    tcase_add_loop_test(tc, look_before_the_lock_misses_who_commits_between, 0, 2);
    tcase_add_test(tc, only_writers_of_jobs_stay_watched);
    tc = rules_case(suite, "connection");
    tcase_add_loop_test(tc, notification_that_comes_with_an_answer_is_seen, 0, 2);
    return suite;
}
