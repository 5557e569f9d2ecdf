/* check_pgtrace.c - the statements of a connection, told one by one: each once, with what came of
 * it, and nothing of its parameters but their number and size. */
#include <stdio.h>
#include <string.h>

#include "db/pgtrace.h"
#include "pgcluster.h"
#include "pgrig.h"

static struct pgrig r;
static char told[4096]; /* a line a statement */
static uint64_t us_sum;

static void on_trace(struct pgconn *c, const struct pg_trace *t, void *arg)
{
    char name[PG_TRACE_NAME_SIZE];
    size_t len = strlen(told);
    ck_assert_ptr_eq(arg, &r);
    ck_assert_ptr_eq(c, r.conn);
    pg_trace_name(t->sql, name);
    us_sum += t->us;
    (void)snprintf(told + len, sizeof told - len, "%s %s %lld %d/%zu %s\n", name,
                   pg_trace_outcome_name(t->outcome), (long long)t->rows, t->params, t->bytes,
                   t->sqlstate);
}

static void open_rig(void)
{
    testdb_create_empty();
    rig_open_up(&r, testdb_conninfo());
    told[0] = '\0';
    us_sum = 0;
    pgconn_trace(r.conn, on_trace, &r);
}

static void close_rig(void)
{
    rig_close(&r);
    testdb_drop();
}

START_TEST(each_statement_is_told_with_its_rows_and_its_commit)
{
    struct pgbatch *b = batch_of("create table t (n integer)");
    batch_add(b, "insert into t values (1), (2)");
    batch_add(b, "select * from t");
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    rig_until(&r, reply.is_done);
    ck_assert_str_eq(told, "create table t (n integer) ok 0 0/0 \n"
                           "insert into t values (1), (2) ok 2 0/0 \n"
                           "select * from t ok 2 0/0 \n"
                           "COMMIT ok 0 0/0 \n");
    ck_assert_uint_gt(us_sum, 0);
    reply_clear(&reply);
}
END_TEST

START_TEST(a_refused_statement_is_told_with_its_sqlstate_and_those_behind_it_are_skipped)
{
    struct pgbatch *b = batch_of("select 1");
    batch_add(b, "select 1/0");
    batch_add(b, "select 2");
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    rig_until(&r, reply.is_done);
    ck_assert_str_eq(told, "select 1 ok 1 0/0 \n"
                           "select 1/0 refused 0 0/0 22012\n"
                           "select 2 skipped 0 0/0 \n");
    reply_clear(&reply);
}
END_TEST

START_TEST(a_commit_that_fails_is_told_as_one)
{
    (void)rig_value(&r, "create table t (n integer unique deferrable initially deferred)");
    told[0] = '\0';
    struct pg_error error = rig_error(&r, "insert into t values (1), (1)");
    ck_assert_str_eq(error.sqlstate, "23505");
    ck_assert_str_eq(told, "insert into t values (1), (1) ok 2 0/0 \nCOMMIT refused 0 0/0 23505\n");
}
END_TEST

START_TEST(parameters_are_counted_and_measured)
{
    const char *const values[] = {"secret", NULL};
    const int lengths[] = {6, 0};
    struct pgbatch *b = pgbatch_new();
    pgbatch_add(b, "select $1::text, $2::text", true, 2, NULL, values, lengths, NULL, false);
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    rig_until(&r, reply.is_done);
    ck_assert_str_eq(told, "select $1::text, $2::text ok 1 2/6 \nCOMMIT ok 0 0/0 \n");
    reply_clear(&reply);
}
END_TEST

START_TEST(what_is_under_way_when_the_connection_is_lost_is_told_as_lost)
{
    struct reply reply = {.is_done = false};
    (void)rig_value(&r, "select 1");
    told[0] = '\0';
    rig_send(&r, "select pg_terminate_backend(pg_backend_pid())", &reply);
    rig_until(&r, reply.is_done);
    ck_assert_str_eq(told, "select pg_terminate_backend(pg_backend_pid()) lost 0 0/0 \n");
    reply_clear(&reply);
}
END_TEST

START_TEST(who_no_longer_listens_is_told_nothing)
{
    pgconn_trace(r.conn, NULL, NULL);
    (void)rig_value(&r, "select 1");
    ck_assert_str_eq(told, "");
}
END_TEST

static const struct {
    const char *sql;
    const char *name;
} names[] = {
    {"SELECT * FROM outbox.look($1)", "outbox.look"},
    {"SELECT u.id FROM outbox.orders($1) AS o, outbox.jobs", "outbox.orders"},
    {"SELECT count(*) FROM outbox.jobs WHERE outbox.level() > 0", "outbox.level"},
    {"SELECT myoutbox.look(1)", "SELECT myoutbox.look(1)"},
    {"  LISTEN\n\toutbox  ", "LISTEN outbox"},
    {"", ""},
    {"SELECT 1234567890123456789012345678901234567890123456789012345678901234567890",
     "SELECT 12345678901234567890123456789012345678901234567890123456"},
};

START_TEST(a_statement_is_known_by_its_function_or_its_beginning)
{
    char name[PG_TRACE_NAME_SIZE];
    pg_trace_name(names[_i].sql, name);
    ck_assert_str_eq(name, names[_i].name);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("pgtrace");
    TCase *tc = tcase_create("trace");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, open_rig, close_rig);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, each_statement_is_told_with_its_rows_and_its_commit);
    tcase_add_test(tc,
                   a_refused_statement_is_told_with_its_sqlstate_and_those_behind_it_are_skipped);
    tcase_add_test(tc, a_commit_that_fails_is_told_as_one);
    tcase_add_test(tc, parameters_are_counted_and_measured);
    tcase_add_test(tc, what_is_under_way_when_the_connection_is_lost_is_told_as_lost);
    tcase_add_test(tc, who_no_longer_listens_is_told_nothing);
    tc = tcase_create("names");
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, a_statement_is_known_by_its_function_or_its_beginning, 0,
                        sizeof names / sizeof names[0]);
    return suite;
}
