/* Every allocation of the helper fails, once and for ever: each run ends with OUTBOX_ENOMEM or
 * success, leaks nothing, and leaves the caller's transaction usable. */
#include <outbox/consumer.h>

#include "ck_main.h"
#include "faultmem.h"
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

/* More than the buffer's first size, and more than 15 members: buffer and header have to grow. */
static void fill(struct outbox_payload *p)
{
    static char text[9000];
    char key[16];

    memset(text, 'x', sizeof text);
    for (int i = 0; i < 20; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        (void)outbox_put_int(p, key, i);
    }
    (void)outbox_put_timestamp(p, "at", 1700000000, 1);
    (void)outbox_begin_array(p, "list");
    (void)outbox_put_strn(p, NULL, text, sizeof text);
    (void)outbox_put_bin(p, NULL, text, sizeof text);
    (void)outbox_end(p);
}

static int run_single(void)
{
    struct outbox_payload p;
    struct outbox_job job = OUTBOX_JOB("t");

    outbox_payload_init(&p);
    fill(&p);
    job.payload = &p;
    int rc = outbox_enqueue(conn, &job, NULL, &err);
    outbox_payload_free(&p);
    return rc;
}

static int run_batch(void)
{
    struct outbox_payload p;
    struct outbox_job jobs[3] = {OUTBOX_JOB("a"), OUTBOX_JOB("b"), OUTBOX_JOB("c")};

    outbox_payload_init(&p);
    (void)outbox_payload_set_json(&p, "[1]", 3);
    jobs[0].payload = &p;
    jobs[1].headers = "{\"a\": 1}";
    int rc = outbox_enqueue_many(conn, jobs, 3, NULL, &err);
    outbox_payload_free(&p);
    return rc;
}

static int run_query_with_dependencies(void)
{
    static const int64_t after[] = {1, 2, 3};
    struct outbox_job job = OUTBOX_JOB("t");
    struct outbox_query q;

    job.after = after;
    job.after_count = 3;
    int rc = outbox_query_init(&q, &job, &err);
    if (rc == OUTBOX_OK)
        outbox_query_free(&q);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(void);
    unsigned allocations_min; /* that it makes: the test is worth nothing if it makes none */
} runs[] = {
    {"single", run_single, 3},
    {"batch", run_batch, 2},
    {"query", run_query_with_dependencies, 1},
};

/* One run with the n-th allocation failing. False once none failed any more. */
static bool run_with_failure(int i, unsigned n, bool repeat)
{
    pg_exec_ok(conn, "BEGIN");
    memset(&err, 0, sizeof err);
    faultmem_arm(n, repeat);
    int rc = runs[i].run();
    unsigned fired = faultmem_disarm();
    ck_assert_int_eq(faultmem_alive(), 0);
    if (fired > 0) {
        ck_assert_int_eq(rc, OUTBOX_ENOMEM);
        ck_assert_int_eq(err.code, OUTBOX_ENOMEM);
        ck_assert_ptr_nonnull(strstr(err.message, "out of memory"));
    } else {
        ck_assert_msg(rc == OUTBOX_OK, "%s: %s", runs[i].name, err.message);
    }
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_INTRANS);
    ck_assert_int_eq(runs[i].run(), OUTBOX_OK);
    pg_exec_ok(conn, "ROLLBACK");
    return fired > 0;
}

START_TEST(failing_allocation_leaves_the_transaction_usable)
{
    int i = _i / 2;
    bool repeat = _i % 2 != 0;
    unsigned n = 0;

    while (run_with_failure(i, n, repeat))
        n++;
    ck_assert_uint_ge(n, runs[i].allocations_min);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 0);
}
END_TEST

START_TEST(failing_allocation_ends_a_wait_and_what_it_began)
{
    static const int64_t ids[] = {1, 2};
    struct outbox_answer answers[2];
    pg_exec_ok(conn, "SELECT outbox.cancel(outbox.enqueue('a')) FROM generate_series(1, 2)");
    faultmem_arm(0, _i != 0);
    int rc = outbox_wait(conn, ids, 2, -1, answers, &err);
    ck_assert_uint_gt(faultmem_disarm(), 0);
    ck_assert_int_eq(faultmem_alive(), 0);
    ck_assert_int_eq(rc, OUTBOX_ENOMEM);
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, "SELECT count(*) FROM pg_listening_channels()");
    ck_assert_str_eq(PQgetvalue(res, 0, 0), "0");
    PQclear(res);
    ck_assert_int_eq(outbox_wait(conn, ids, 2, -1, answers, &err), OUTBOX_OK);
    ck_assert_int_eq(answers[1].state, OUTBOX_GONE);
}
END_TEST

START_TEST(payload_can_be_cleared_and_built_again)
{
    struct outbox_payload p;

    outbox_payload_init(&p);
    faultmem_arm(1, true); /* the first block is granted, growing it is not */
    fill(&p);
    ck_assert_uint_gt(faultmem_disarm(), 0);
    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_ENOMEM);
    outbox_payload_clear(&p);
    fill(&p);
    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_OK);
    outbox_payload_free(&p);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox_oom");
    TCase *tc = tcase_create("allocations");

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, failing_allocation_leaves_the_transaction_usable, 0,
                        2 * (int)(sizeof runs / sizeof *runs));
    tcase_add_loop_test(tc, failing_allocation_ends_a_wait_and_what_it_began, 0, 2);
    tcase_add_test(tc, payload_can_be_cleared_and_built_again);
    suite_add_tcase(s, tc);
    return s;
}
