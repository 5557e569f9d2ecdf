/* check_pgconn_pq.c - every call of libpq that can fail fails, once, at its n-th call, for every n
 * until none is left to fail; then the same for ever until it is lifted. The connection must answer
 * every batch once, come back, and leak nothing (the sanitizers' build).
 *
 * The functions below stand before libpq's own for the whole program: its symbols come first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "pgcluster.h"
#include "pgrig.h"

enum fault {
    CONNECT_START,
    CONNECT_POLL,
    SET_NONBLOCKING,
    SEND_QUERY,
    ENTER_PIPELINE,
    SEND_PARAMS,
    SEND_PREPARE,
    SEND_PREPARED,
    PIPELINE_SYNC,
    FLUSH,
    CONSUME,
    GET_RESULT,      /* NULL, and the result comes later */
    GET_RESULT_LOST, /* NULL, and the result is gone */
    FAULTS
};

static enum fault armed;
static unsigned calls;
static unsigned fail_at; /* 0: never */
static bool for_ever;
static unsigned fired;

static bool fires(enum fault fault)
{
    if (fault != armed || fail_at == 0)
        return false;
    calls++;
    bool now = for_ever ? calls >= fail_at : calls == fail_at;
    fired += now;
    return now;
}

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (f == NULL)
        ck_abort_msg("libpq has no %s", name);
    return f;
}

/* ISO C has no cast from void * to a function's address; copying the bytes is POSIX's way. */
#define CALL_REAL(name, ...)                                                                       \
    __typeof__(&name) real_##name = NULL;                                                          \
    void *address = real(#name);                                                                   \
    memcpy(&real_##name, &address, sizeof address);                                                \
    return real_##name(__VA_ARGS__)

PGconn *PQconnectStartParams(const char *const *keywords, const char *const *values, int expand)
{
    if (fires(CONNECT_START))
        return NULL;
    CALL_REAL(PQconnectStartParams, keywords, values, expand);
}

PostgresPollingStatusType PQconnectPoll(PGconn *conn)
{
    if (fires(CONNECT_POLL))
        return PGRES_POLLING_FAILED;
    CALL_REAL(PQconnectPoll, conn);
}

int PQsetnonblocking(PGconn *conn, int arg)
{
    if (fires(SET_NONBLOCKING))
        return -1;
    CALL_REAL(PQsetnonblocking, conn, arg);
}

int PQsendQuery(PGconn *conn, const char *query)
{
    if (fires(SEND_QUERY))
        return 0;
    CALL_REAL(PQsendQuery, conn, query);
}

int PQenterPipelineMode(PGconn *conn)
{
    if (fires(ENTER_PIPELINE))
        return 0;
    CALL_REAL(PQenterPipelineMode, conn);
}

int PQsendQueryParams(PGconn *conn, const char *command, int n, const Oid *types,
                      const char *const *values, const int *lengths, const int *formats,
                      int result_format)
{
    if (fires(SEND_PARAMS))
        return 0;
    CALL_REAL(PQsendQueryParams, conn, command, n, types, values, lengths, formats, result_format);
}

int PQsendPrepare(PGconn *conn, const char *name, const char *query, int n, const Oid *types)
{
    if (fires(SEND_PREPARE))
        return 0;
    CALL_REAL(PQsendPrepare, conn, name, query, n, types);
}

int PQsendQueryPrepared(PGconn *conn, const char *name, int n, const char *const *values,
                        const int *lengths, const int *formats, int result_format)
{
    if (fires(SEND_PREPARED))
        return 0;
    CALL_REAL(PQsendQueryPrepared, conn, name, n, values, lengths, formats, result_format);
}

int PQpipelineSync(PGconn *conn)
{
    if (fires(PIPELINE_SYNC))
        return 0;
    CALL_REAL(PQpipelineSync, conn);
}

int PQflush(PGconn *conn)
{
    if (fires(FLUSH))
        return -1;
    CALL_REAL(PQflush, conn);
}

int PQconsumeInput(PGconn *conn)
{
    if (fires(CONSUME))
        return 0;
    CALL_REAL(PQconsumeInput, conn);
}

static PGresult *real_result(PGconn *conn)
{
    CALL_REAL(PQgetResult, conn);
}

PGresult *PQgetResult(PGconn *conn)
{
    if (fires(GET_RESULT))
        return NULL;
    PGresult *res = real_result(conn);
    if (res != NULL && fires(GET_RESULT_LOST)) {
        PQclear(res);
        return NULL;
    }
    return res;
}

/* ---- the exchange ---- */

enum { BATCHES = 4 };
static struct reply replies[BATCHES];
static const char insert[] = "insert into t values ($1)";

static void run_exchange(struct pgrig *r)
{
    const char *values[] = {"1"};
    memset(replies, 0, sizeof replies);
    rig_send(r, "select 1", &replies[0]);
    for (size_t i = 1; i < 3; i++) {
        struct pgbatch *b = pgbatch_new();
        pgbatch_add(b, insert, true, 1, NULL, values, NULL, NULL, false);
        batch_add(b, "notify jobs");
        rig_submit(r, b, &replies[i]);
    }
    rig_send(r, "select 1/0", &replies[3]);
    rig_until(r,
              replies[0].is_done && replies[1].is_done && replies[2].is_done && replies[3].is_done);
    for (size_t i = 0; i < BATCHES; i++)
        reply_clear(&replies[i]);
}

static void open_with_stall(struct pgrig *r)
{
    const struct pgconn_config config = {
        .conninfo = testdb_conninfo(),
        .session_sql = "set jit = off; listen jobs",
        .connect_timeout_ms = 2000,
        /* a lost result may look like a server that says nothing */
        .statement_stall_ms = 300};
    rig_open_config(r, &config);
    pgconn_start(r->conn);
}

static void check_exchange(unsigned *ret_committed)
{
    static const char *const expected[BATCHES] = {"", "", "", "22012"};
    for (size_t i = 0; i < BATCHES; i++) {
        if (replies[i].error.err != OB_ECONN)
            ck_assert_str_eq(replies[i].error.sqlstate, expected[i]);
        if ((i == 1 || i == 2) && replies[i].error.err == 0)
            (*ret_committed)++;
    }
}

/* One failure at the n-th call, for every n. */
START_TEST(one_failure_of_libpq_costs_at_most_the_connection)
{
    testdb_exec("create table t (n integer)");
    armed = (enum fault)_i;
    unsigned committed = 0;
    unsigned n = 0;
    do {
        n++;
        struct pgrig r;
        calls = 0;
        fired = 0;
        fail_at = n;
        open_with_stall(&r);
        rig_until(&r, r.is_up);
        run_exchange(&r);
        check_exchange(&committed);
        fail_at = 0;
        /* A connection that was broken may notice it only now. */
        rig_until(&r, r.is_up);
        run_exchange(&r);
        if (replies[0].error.err != 0) {
            rig_until(&r, r.is_up);
            check_exchange(&committed);
            run_exchange(&r);
        }
        check_exchange(&committed);
        ck_assert_int_eq(replies[0].error.err, 0);
        ck_assert_str_eq(replies[3].error.sqlstate, "22012");
        ck_assert_uint_le(r.downs, 2);
        rig_close(&r);
    } while (fired > 0);
    ck_assert_uint_gt(n, 1); /* the call is made at all */
    ck_assert_int_ge(testdb_long("select count(*) from t"), committed); /* a success is a commit */
}
END_TEST

/* It fails from the n-th call on until it is lifted: attempts are made, none is answered wrongly.
 */
START_TEST(a_lasting_failure_of_libpq_is_waited_out)
{
    testdb_exec("create table t (n integer)");
    armed = (enum fault)_i;
    for (unsigned n = 1; n <= 4; n++) {
        struct pgrig r;
        calls = 0;
        fired = 0;
        for_ever = true;
        fail_at = n;
        open_with_stall(&r);
        rig_until(&r, r.is_up || r.downs >= 2);
        unsigned committed = 0;
        run_exchange(&r); /* refused at once if it is down */
        check_exchange(&committed);
        rig_until(&r, r.is_up || r.downs >= 2);
        fail_at = 0;
        for_ever = false;
        rig_until(&r, r.is_up);
        run_exchange(&r);
        while (replies[0].error.err != 0) {
            rig_until(&r, r.is_up);
            run_exchange(&r);
        }
        ck_assert_str_eq(replies[3].error.sqlstate, "22012");
        rig_close(&r);
    }
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("pgconn with a failing libpq");
    TCase *tc = tcase_create("calls");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create_empty, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, one_failure_of_libpq_costs_at_most_the_connection, 0, FAULTS);
    tcase_add_loop_test(tc, a_lasting_failure_of_libpq_is_waited_out, 0, FAULTS);
    suite_add_tcase(s, tc);
    return s;
}
