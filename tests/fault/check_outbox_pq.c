/* Every libpq call that the helper sends with fails, in every way: never success, never a crash or
 * a leak (ASan), always a message, and the transaction is what the code says. */
#include <outbox/outbox.h>

#include "ck_main.h"
#include "faultpq.h"
#include "pgcluster.h"

static PGconn *conn;
static struct outbox_error err;

static void set_up(void)
{
    testdb_create();
    conn = testdb_connect();
}

static void tear_down(void)
{
    PQfinish(conn);
    testdb_drop();
}

static int run_single(void)
{
    struct outbox_job job = OUTBOX_JOB("t");
    int64_t id = -1;
    int rc = outbox_enqueue(conn, &job, &id, &err);

    ck_assert_int_eq(rc == OUTBOX_OK, id > 0);
    ck_assert_int_eq(rc == OUTBOX_OK, job.id > 0);
    return rc;
}

static int run_batch(void)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("a"), OUTBOX_JOB("b")};
    int64_t ids[2] = {-1, -1};
    int rc = outbox_enqueue_many(conn, jobs, 2, ids, &err);

    ck_assert_int_eq(rc == OUTBOX_OK, ids[0] > 0 && ids[1] > 0);
    return rc;
}

static int run_check_schema(void)
{
    return outbox_check_schema(conn, &err);
}

static int (*const runs[])(void) = {run_single, run_batch, run_check_schema};
enum { RUNS = 3 };

static void fail_call(int (*run)(void), enum faultpq_mode mode)
{
    pg_exec_ok(conn, "BEGIN");
    memset(&err, 0, sizeof err);
    faultpq_arm(0, false, mode);
    int rc = run();
    ck_assert_uint_eq(faultpq_disarm(), 1);
    /* an error without SQLSTATE is libpq's own: it means a lost connection */
    ck_assert_int_eq(rc, mode == FAULTPQ_NO_SQLSTATE ? OUTBOX_ECONN : OUTBOX_EDB);
    ck_assert_int_eq(err.code, rc);
    ck_assert_str_ne(err.message, "");
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 0);
}

START_TEST(failing_call_is_an_error_and_the_next_one_works)
{
    for (int mode = 0; mode < FAULTPQ_MODES; mode++) {
        fail_call(runs[_i], (enum faultpq_mode)mode);
        pg_exec_ok(conn, "BEGIN");
        faultpq_arm(1, true, FAULTPQ_NULL);
        ck_assert_int_eq(runs[_i](), OUTBOX_OK);
        ck_assert_uint_eq(faultpq_calls(), 1); /* one statement, one round trip */
        (void)faultpq_disarm();
        pg_exec_ok(conn, "ROLLBACK");
    }
}
END_TEST

START_TEST(refused_call_reaches_libpq_not_at_all)
{
    struct outbox_job job = OUTBOX_JOB("t");

    faultpq_arm(0, true, FAULTPQ_NULL);
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(outbox_enqueue_many(conn, &job, 1, NULL, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(outbox_enqueue_many(conn, NULL, 0, NULL, &err), OUTBOX_OK);
    job.priority = 9;
    job.flags = OUTBOX_ALLOW_AUTOCOMMIT;
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_EINVAL);
    ck_assert_uint_eq(faultpq_calls(), 0);
    (void)faultpq_disarm();
}
END_TEST

START_TEST(lost_connection_with_a_null_result_is_econn)
{
    char sql[80];
    struct outbox_job job = OUTBOX_JOB("t");

    pg_exec_ok(conn, "BEGIN");
    (void)snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d, 5000)", PQbackendPID(conn));
    testdb_exec(sql);
    faultpq_arm(0, false, FAULTPQ_NULL_AFTER);
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_ECONN);
    ck_assert_uint_eq(faultpq_disarm(), 1);
}
END_TEST

START_TEST(no_result_status_but_rows_is_success)
{
    static const ExecStatusType all[] = {
        PGRES_EMPTY_QUERY, PGRES_COMMAND_OK,   PGRES_TUPLES_OK,      PGRES_COPY_OUT,
        PGRES_COPY_IN,     PGRES_BAD_RESPONSE, PGRES_NONFATAL_ERROR, PGRES_FATAL_ERROR,
        PGRES_COPY_BOTH,   PGRES_SINGLE_TUPLE, PGRES_PIPELINE_SYNC,  PGRES_PIPELINE_ABORTED};
    struct outbox_job job = OUTBOX_JOB("t");

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        PGresult *res = PQmakeEmptyPGresult(NULL, all[i]);
        ck_assert_ptr_nonnull(res);
        memset(&err, 0, sizeof err);
        int rc = outbox_query_result(res, &job, 1, NULL, &err);
        ck_assert_int_lt(rc, 0);
        ck_assert_int_eq(err.code, rc);
        ck_assert_int_eq(outbox_query_result(res, &job, 1, NULL, NULL), rc);
        PQclear(res);
    }
    ck_assert_int_eq(job.id, 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox_pq");
    TCase *tc = tcase_create("libpq calls");

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, failing_call_is_an_error_and_the_next_one_works, 0, RUNS);
    tcase_add_test(tc, refused_call_reaches_libpq_not_at_all);
    tcase_add_test(tc, lost_connection_with_a_null_result_is_econn);
    tcase_add_test(tc, no_result_status_but_rows_is_success);
    suite_add_tcase(s, tc);
    return s;
}
