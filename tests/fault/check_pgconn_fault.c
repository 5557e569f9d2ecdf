/* check_pgconn_fault.c - connections that are lost: by the server, by the network, by us. The
 * oracle is always the same: every batch is answered once, on_down comes once a loss and after
 * them, a success is a commit, and the connection comes back. */
#include <stdio.h>
#include <string.h>

#include "faultproxy.h"
#include "pgcluster.h"
#include "pgrig.h"

static char text[1024];

static const char *conninfo_by(const struct faultproxy *p)
{
    char name[64];
    ck_assert_int_eq(sscanf(strstr(testdb_conninfo(), "dbname=") + 7, "%63s", name), 1);
    (void)snprintf(text, sizeof text, "host=127.0.0.1 port=%d dbname=%s user=postgres", p->port,
                   name);
    return text;
}

static void start_proxy(struct faultproxy *p)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/.s.PGSQL.5432", pgcluster_socket_dir());
    faultproxy_start(p, path);
}

static void check_before_down(struct reply *reply)
{
    ck_assert_uint_eq(reply->rig->downs, 0); /* on_down comes after every answer */
    ck_assert(!reply->was_up);
}

static void terminate(struct pgrig *r)
{
    (void)snprintf(text, sizeof text, "select pg_terminate_backend(%d)",
                   pgconn_backend_pid(r->conn));
    testdb_exec(text);
}

/* ---- the server ---- */

START_TEST(a_terminated_backend_answers_every_batch_with_the_reason)
{
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    int pid = pgconn_backend_pid(r.conn);
    struct reply replies[3];
    memset(replies, 0, sizeof replies);
    for (size_t i = 0; i < 3; i++) {
        replies[i].then = check_before_down;
        rig_send(&r, "select pg_sleep(60)", &replies[i]);
    }
    for (int i = 0; i < 5; i++)
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    terminate(&r);
    rig_until(&r, r.downs == 1);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(replies[i].number, i + 1);
        ck_assert_int_eq(replies[i].error.err, OB_ECONN);
        ck_assert_str_eq(replies[i].error.sqlstate, "57P01");
    }
    ck_assert_str_eq(r.why.sqlstate, "57P01");
    ck_assert_ptr_nonnull(strstr(r.why.message, "administrator command"));
    ck_assert_uint_eq(r.tries, 1);
    rig_until(&r, r.is_up);
    ck_assert_int_ne(pgconn_backend_pid(r.conn), pid);
    ck_assert_str_eq(rig_value(&r, "select 1"), "1");
    rig_close(&r);
    ck_assert_uint_eq(r.downs, 1);
}
END_TEST

START_TEST(a_backend_terminated_while_idle_is_noticed_with_its_reason)
{
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    ck_assert_str_eq(rig_value(&r, "select 1"), "1");
    terminate(&r);
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "57P01");
    rig_until(&r, r.is_up);
    rig_close(&r);
}
END_TEST

START_TEST(a_crashed_server_is_waited_for)
{
    testdb_exec("create table t (n integer)");
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    struct reply committed = {.is_done = false};
    struct reply lost = {.is_done = false};
    rig_send(&r, "insert into t values (1)", &committed);
    rig_until(&r, committed.is_done);
    rig_send(&r, "insert into t select 2 from pg_sleep(60)", &lost);
    for (int i = 0; i < 5; i++)
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    pgcluster_crash();
    rig_until(&r, r.downs >= 2); /* the loss, and an attempt that found nobody */
    ck_assert_int_eq(lost.error.err, OB_ECONN);
    ck_assert_uint_eq(r.tries, r.downs);
    pgcluster_start_again();
    rig_until(&r, r.is_up);
    ck_assert_str_eq(rig_value(&r, "select n from t"), "1");
    rig_close(&r);
    reply_clear(&committed);
}
END_TEST

/* A demoted primary goes on answering: the batch is told why, and the connection is left. */
START_TEST(a_server_that_turned_read_only_is_left)
{
    testdb_exec("create table t (n integer)");
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    (void)rig_value(&r, "set default_transaction_read_only = on");
    struct pg_error e = rig_error(&r, "insert into t values (1)");
    ck_assert_str_eq(e.sqlstate, "25006");
    ck_assert_int_eq(e.err, OB_ECONN);
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "25006");
    rig_until(&r, r.is_up);
    ck_assert_str_eq(rig_value(&r, "insert into t values (1) returning n"), "1");
    rig_close(&r);
}
END_TEST

/* ---- the network ---- */

START_TEST(a_stalled_network_is_noticed_by_the_oldest_unanswered_batch)
{
    struct faultproxy p;
    start_proxy(&p);
    const struct pgconn_config config = {.conninfo = conninfo_by(&p), .statement_stall_ms = 200};
    struct pgrig r;
    rig_open_config(&r, &config);
    pgconn_start(r.conn);
    rig_until(&r, r.is_up);
    faultproxy_stall(&p);
    struct reply replies[2];
    memset(replies, 0, sizeof replies);
    rig_send(&r, "select 1", &replies[0]);
    rig_send(&r, "select 2", &replies[1]);
    rig_until(&r, r.downs == 1);
    ck_assert_ptr_nonnull(strstr(r.why.message, "no answer"));
    ck_assert_int_eq(replies[0].error.err, OB_ECONN);
    ck_assert_int_eq(replies[1].error.err, OB_ECONN);
    faultproxy_pass(&p);
    rig_until(&r, r.is_up);
    ck_assert_str_eq(rig_value(&r, "select 1"), "1");
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

START_TEST(batches_that_follow_each_other_slowly_are_no_stall)
{
    enum { BATCHES = 8 };
    const struct pgconn_config config = {.conninfo = testdb_conninfo(), .statement_stall_ms = 1500};
    struct pgrig r;
    rig_open_config(&r, &config);
    pgconn_start(r.conn);
    rig_until(&r, r.is_up);
    struct reply replies[BATCHES];
    memset(replies, 0, sizeof replies);
    for (size_t i = 0; i < BATCHES; i++)
        rig_send(&r, "select pg_sleep(0.3)", &replies[i]); /* 2.4 s in all */
    rig_until(&r, pgconn_pending(r.conn) == 0);
    for (size_t i = 0; i < BATCHES; i++) {
        ck_assert_int_eq(replies[i].error.err, 0);
        reply_clear(&replies[i]);
    }
    rig_close(&r);
    ck_assert_uint_eq(r.downs, 0);
}
END_TEST

START_TEST(a_reset_a_half_close_and_refusals_are_survived)
{
    struct faultproxy p;
    start_proxy(&p);
    struct pgrig r;
    rig_open_up(&r, conninfo_by(&p));
    for (unsigned round = 0; round < 3; round++) {
        unsigned downs = r.downs;
        struct reply reply = {.is_done = false};
        rig_send(&r, "select pg_sleep(60)", &reply);
        for (int i = 0; i < 5; i++)
            (void)uv_run(&r.loop, UV_RUN_NOWAIT);
        if (round == 0) {
            faultproxy_reset(&p);
        } else if (round == 1) {
            faultproxy_half_close(&p);
        } else {
            faultproxy_refuse(&p);
            faultproxy_reset(&p);
        }
        rig_until(&r, r.downs >= downs + (round == 2 ? 3 : 1));
        ck_assert_int_eq(reply.error.err, OB_ECONN);
        faultproxy_pass(&p);
        rig_until(&r, r.is_up);
        ck_assert_str_eq(rig_value(&r, "select 1"), "1");
    }
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

/* What a dispatcher does with a connection, in small: three batches, a notification, a prepared
 * statement, a result of some size. */
struct exchange {
    struct reply replies[3];
};

static void begin_exchange(struct pgrig *r, struct exchange *x)
{
    static const char insert[] = "insert into t values ($1) returning n";
    char number[16];
    memset(x, 0, sizeof *x);
    struct pgbatch *b = batch_of("listen jobs");
    batch_add(b, "notify jobs, 'cut'");
    rig_submit(r, b, &x->replies[0]);
    (void)snprintf(number, sizeof number, "%ld",
                   testdb_long("select coalesce(max(n), 0) + 1 from t"));
    const char *values[] = {number};
    b = pgbatch_new();
    pgbatch_add(b, insert, true, 1, NULL, values, NULL, NULL, false);
    rig_submit(r, b, &x->replies[1]);
    rig_send(r, "select repeat('x', 1500)", &x->replies[2]);
}

/* True: every batch was a success. */
static bool end_exchange(struct pgrig *r, struct exchange *x)
{
    rig_until(r, x->replies[0].is_done && x->replies[1].is_done && x->replies[2].is_done);
    bool is_success = true;
    for (size_t i = 0; i < 3; i++)
        is_success = is_success && x->replies[i].error.err == 0;
    if (x->replies[1].error.err == 0) {
        (void)snprintf(text, sizeof text, "select count(*) from t where n = %s",
                       PQgetvalue(x->replies[1].results[0], 0, 0));
        ck_assert_int_eq(testdb_long(text), 1); /* a success is a commit */
    }
    for (size_t i = 0; i < 3; i++)
        reply_clear(&x->replies[i]);
    return is_success;
}

/* The server's bytes end after k, for every 37th k until the exchange gets through. */
START_TEST(a_connection_cut_at_any_byte_is_noticed_and_comes_back)
{
    enum { STEP = 37, BYTES_MAX = 20000 };
    testdb_exec("create table t (n integer)");
    struct faultproxy p;
    start_proxy(&p);
    char conninfo[256];
    (void)snprintf(conninfo, sizeof conninfo, "%s", conninfo_by(&p));
    const struct pgconn_config config = {
        .conninfo = conninfo, .session_sql = "set jit = off; set statement_timeout = '30s'"};
    bool got_through = false;
    unsigned losses = 0;
    for (size_t k = 1; !got_through; k += STEP) {
        ck_assert_uint_lt(k, BYTES_MAX);
        struct pgrig r;
        struct exchange x;
        rig_open_config(&r, &config);
        faultproxy_cut_after(&p, k);
        pgconn_start(r.conn);
        rig_until(&r, r.is_up || r.downs > 0);
        if (r.is_up) {
            begin_exchange(&r, &x);
            got_through = end_exchange(&r, &x);
        }
        if (!got_through && k / STEP % 4 == 0) { /* now and then all the way back */
            rig_until(&r, r.downs == 1);
            rig_until(&r, r.is_up);
            begin_exchange(&r, &x);
            ck_assert(end_exchange(&r, &x));
            ck_assert_uint_eq(r.downs, 1);
        }
        losses += got_through ? 0 : 1;
        rig_close(&r);
    }
    ck_assert_uint_gt(losses, 50);
    faultproxy_stop(&p);
}
END_TEST

/* ---- ourselves ---- */

static struct reply after_fail;

static void submit_again(struct reply *reply)
{
    check_before_down(reply);
    rig_send(reply->rig, "select 1", &after_fail);
    ck_assert(after_fail.is_done); /* refused at once */
}

START_TEST(a_connection_declared_dead_answers_what_is_pending_then_says_so)
{
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    struct reply sent = {.then = check_before_down};
    struct reply queued = {.then = submit_again};
    rig_send(&r, "select pg_sleep(60)", &sent);
    for (int i = 0; i < 5; i++)
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    rig_send(&r, "select 1", &queued);
    pgconn_fail(r.conn, OB_EINCOMPAT, "the schema\nis too new");
    pgconn_fail(r.conn, OB_EBUSY, "the second reason does not count");
    ck_assert(!sent.is_done); /* callbacks come from the loop */
    ck_assert(!pgconn_is_up(r.conn));
    rig_until(&r, r.downs == 1);
    ck_assert_int_eq(sent.error.err, OB_ECONN);
    ck_assert_int_eq(queued.error.err, OB_ECONN);
    ck_assert_int_eq(r.why.err, OB_EINCOMPAT);
    ck_assert_str_eq(r.why.message, "the schema is too new");
    pgconn_fail(r.conn, OB_EBUSY, "it is down already");
    rig_until(&r, r.is_up);
    ck_assert_uint_eq(r.downs, 1);
    rig_close(&r);
}
END_TEST

static void fail_it(struct pgrig *r)
{
    if (r->ups < 3)
        pgconn_fail(r->conn, OB_ECONN, "in a callback");
}

static void fail_in_answer(struct reply *reply)
{
    pgconn_fail(reply->rig->conn, OB_ECONN, "in an answer");
}

START_TEST(a_connection_may_be_declared_dead_in_any_callback)
{
    struct pgrig r;
    rig_open(&r, testdb_conninfo());
    r.then_up = fail_it;
    rig_until(&r, r.ups == 3);
    ck_assert_uint_eq(r.downs, 2);
    ck_assert_uint_eq(r.tries, 2); /* it was never up for long */
    struct reply first = {.then = fail_in_answer};
    struct reply second = {.is_done = false};
    rig_send(&r, "select 1", &first);
    rig_send(&r, "select 2", &second);
    rig_until(&r, r.downs == 3);
    ck_assert_int_eq(first.error.err, 0);
    ck_assert_int_eq(second.error.err, OB_ECONN);
    rig_until(&r, r.is_up);
    rig_close(&r);
    reply_clear(&first);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("pgconn faults");
    TCase *tc = tcase_create("losses");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create_empty, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_terminated_backend_answers_every_batch_with_the_reason);
    tcase_add_test(tc, a_backend_terminated_while_idle_is_noticed_with_its_reason);
    tcase_add_test(tc, a_crashed_server_is_waited_for);
    tcase_add_test(tc, a_server_that_turned_read_only_is_left);
    tcase_add_test(tc, a_stalled_network_is_noticed_by_the_oldest_unanswered_batch);
    tcase_add_test(tc, batches_that_follow_each_other_slowly_are_no_stall);
    tcase_add_test(tc, a_reset_a_half_close_and_refusals_are_survived);
    tcase_add_test(tc, a_connection_cut_at_any_byte_is_noticed_and_comes_back);
    tcase_add_test(tc, a_connection_declared_dead_answers_what_is_pending_then_says_so);
    tcase_add_test(tc, a_connection_may_be_declared_dead_in_any_callback);
    suite_add_tcase(s, tc);
    return s;
}
