/* check_pgpipe.c - batches through a connection that is up: atomicity, order, parameters, prepared
 * statements, notifications, sizes. */
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgcluster.h"
#include "pgrig.h"

static struct pgrig r;

static void open_rig(void)
{
    testdb_create_empty();
    rig_open_up(&r, testdb_conninfo());
}

static void close_rig(void)
{
    rig_close(&r);
    testdb_drop();
}

static const char *value_of(const struct reply *reply, size_t i)
{
    ck_assert_ptr_nonnull(reply->results[i]);
    ck_assert_int_eq(PQntuples(reply->results[i]), 1);
    return PQgetvalue(reply->results[i], 0, 0);
}

static void await(struct reply *reply)
{
    rig_until(&r, reply->is_done);
    ck_assert_msg(reply->error.err == 0, "%s", reply->error.message);
}

static void await_error(struct reply *reply, const char *sqlstate)
{
    rig_until(&r, reply->is_done);
    ck_assert_str_eq(reply->error.sqlstate, sqlstate);
    for (size_t i = 0; i < RIG_RESULTS_MAX; i++)
        ck_assert_ptr_null(reply->results[i]);
}

/* ---- batches ---- */

START_TEST(a_batch_commits_as_one_and_gives_every_result)
{
    struct pgbatch *b = batch_of("create table t (n integer primary key)");
    batch_add(b, "insert into t values (1), (2)");
    batch_add(b, "select count(*) from t");
    batch_add(b, ""); /* an empty statement has an empty answer */
    ck_assert_uint_eq(pgbatch_count(b), 4);
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    ck_assert_uint_eq(pgconn_pending(r.conn), 1);
    ck_assert(!reply.is_done); /* never from inside the call */
    await(&reply);
    ck_assert_str_eq(value_of(&reply, 2), "2");
    ck_assert_uint_eq(pgconn_pending(r.conn), 0);
    ck_assert_int_eq(testdb_long("select count(*) from t"), 2);
    reply_clear(&reply);
}
END_TEST

START_TEST(an_error_in_the_middle_rolls_back_all_and_the_next_batch_works)
{
    testdb_exec("create table t (n integer primary key)");
    struct pgbatch *b = batch_of("insert into t values (1)");
    batch_add(b, "insert into t values (1)");
    batch_add(b, "insert into t values (2)");
    batch_add(b, "select 1/0"); /* skipped: the first error is the one told */
    struct reply failed = {.is_done = false};
    struct reply next = {.is_done = false};
    rig_submit(&r, b, &failed);
    rig_send(&r, "select count(*) from t", &next);
    await_error(&failed, "23505");
    ck_assert_int_eq(failed.error.err, OB_EDB);
    ck_assert_ptr_nonnull(strstr(failed.error.message, "t_pkey"));
    await(&next);
    ck_assert_str_eq(value_of(&next, 0), "0");
    ck_assert_uint_eq(r.downs, 0);
    reply_clear(&next);
}
END_TEST

START_TEST(errors_are_told_by_class_and_with_their_hint)
{
    struct pg_error e = rig_error(&r, "select * from nowhere");
    ck_assert_int_eq(e.err, OB_ESCHEMA);
    ck_assert_str_eq(e.sqlstate, "42P01");
    e = rig_error(&r, "do $$ begin raise exception E'line one\\nline two' using hint = 'try that', "
                      "errcode = '53100'; end $$");
    ck_assert_int_eq(e.err, OB_EDB);
    ck_assert_str_eq(e.message, "line one line two");
    ck_assert_str_eq(e.hint, "try that");
}
END_TEST

/* The rows arrive, and only then does the COMMIT fail. */
START_TEST(an_error_at_the_commit_fails_the_batch_after_its_rows_arrived)
{
    testdb_exec(
        "create table parent (id integer primary key);"
        "create table child (parent integer references parent deferrable initially deferred)");
    struct pgbatch *b = batch_of("insert into child values (7) returning parent");
    struct reply failed = {.is_done = false};
    struct reply next = {.is_done = false};
    rig_submit(&r, b, &failed);
    rig_send(&r, "select count(*) from child", &next);
    await_error(&failed, "23503");
    await(&next);
    ck_assert_str_eq(value_of(&next, 0), "0");
    reply_clear(&next);
}
END_TEST

START_TEST(an_empty_batch_is_answered_by_its_sync)
{
    struct reply reply = {.is_done = false};
    rig_submit(&r, pgbatch_new(), &reply);
    await(&reply);
}
END_TEST

START_TEST(a_thousand_pipelined_batches_are_answered_in_order)
{
    enum { BATCHES = 1000 };
    testdb_exec("create table t (n integer)");
    struct reply *replies = calloc(BATCHES, sizeof *replies);
    ck_assert_ptr_nonnull(replies);
    for (unsigned i = 0; i < BATCHES; i++) {
        char n[16];
        (void)snprintf(n, sizeof n, "%u", i);
        const char *values[] = {n};
        struct pgbatch *b = pgbatch_new();
        /* Every tenth fails: what follows must not be touched by it. */
        pgbatch_add(b,
                    i % 10 == 3 ? "insert into t values (1 / ($1::integer * 0))"
                                : "insert into t values ($1) returning n",
                    i % 2 == 0, 1, NULL, values, NULL, NULL, false);
        rig_submit(&r, b, &replies[i]);
    }
    ck_assert_uint_eq(pgconn_pending(r.conn), BATCHES);
    rig_until(&r, pgconn_pending(r.conn) == 0);
    for (unsigned i = 0; i < BATCHES; i++) {
        ck_assert_uint_eq(replies[i].number, i + 1);
        ck_assert_str_eq(replies[i].error.sqlstate, i % 10 == 3 ? "22012" : "");
        if (i % 10 != 3)
            ck_assert_int_eq(strtol(value_of(&replies[i], 0), NULL, 10), i);
        reply_clear(&replies[i]);
    }
    ck_assert_int_eq(testdb_long("select count(*) from t"), 900);
    free(replies);
}
END_TEST

static unsigned chained;
static struct reply chain_replies[50];

static void submit_next(struct reply *reply)
{
    ck_assert_int_eq(reply->error.err, 0);
    reply_clear(reply);
    if (++chained < 50) {
        chain_replies[chained].then = submit_next;
        rig_send(&r, "select 1", &chain_replies[chained]);
    }
}

START_TEST(a_callback_may_submit_the_next_batch)
{
    chain_replies[0].then = submit_next;
    rig_send(&r, "select 1", &chain_replies[0]);
    rig_until(&r, chained == 50);
}
END_TEST

START_TEST(a_batch_submitted_while_down_is_refused_at_once)
{
    pgconn_fail(r.conn, OB_ECONN, "for a test");
    struct reply reply = {.is_done = false};
    rig_send(&r, "select 1", &reply);
    ck_assert(reply.is_done);
    ck_assert_int_eq(reply.error.err, OB_ECONN);
    ck_assert_uint_eq(pgconn_pending(r.conn), 0);
}
END_TEST

START_TEST(copy_is_refused_and_the_connection_begun_anew)
{
    struct reply reply = {.is_done = false};
    rig_send(&r, "copy (select 1) to stdout", &reply);
    rig_until(&r, r.downs == 1);
    ck_assert_int_eq(reply.error.err, OB_ECONN);
    rig_until(&r, r.is_up);
}
END_TEST

/* ---- parameters ---- */

START_TEST(parameters_and_results_go_as_text_or_binary)
{
    static const char bytes[] = {'a', '\0', '\xff', '\n'};
    uint32_t number = htonl(123456);
    const char *values[] = {bytes, (const char *)&number, "text", NULL};
    const int lengths[] = {sizeof bytes, sizeof number, 0, 0};
    const int formats[] = {1, 1, 0, 0};
    const Oid types[] = {17, 23, 0, 25};
    struct pgbatch *b = pgbatch_new();
    pgbatch_add(b, "select $1::bytea, $2::integer, $3::text, $4::text", false, 4, types, values,
                lengths, formats, true);
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    number = 0; /* parameters were copied */
    await(&reply);
    const PGresult *res = reply.results[0];
    ck_assert_int_eq(PQgetlength(res, 0, 0), sizeof bytes);
    ck_assert_mem_eq(PQgetvalue(res, 0, 0), bytes, sizeof bytes);
    ck_assert_int_eq(PQfformat(res, 1), 1);
    memcpy(&number, PQgetvalue(res, 0, 1), sizeof number);
    ck_assert_uint_eq(ntohl(number), 123456);
    ck_assert_str_eq(PQgetvalue(res, 0, 2), "text");
    ck_assert(PQgetisnull(res, 0, 3));
    reply_clear(&reply);
}
END_TEST

START_TEST(twenty_megabytes_go_there_and_come_back)
{
    enum { BYTES = 20 << 20 };
    char *big = malloc(BYTES);
    ck_assert_ptr_nonnull(big);
    for (size_t i = 0; i < BYTES; i++)
        big[i] = (char)(i * 2654435761U >> 13);
    const char *values[] = {big};
    const int lengths[] = {BYTES};
    const int formats[] = {1};
    struct pgbatch *b = pgbatch_new();
    pgbatch_add(b, "select $1::bytea", false, 1, NULL, values, lengths, formats, true);
    struct reply reply = {.is_done = false};
    struct reply next = {.is_done = false};
    rig_submit(&r, b, &reply);
    rig_send(&r, "select 1", &next);
    await(&reply);
    ck_assert_int_eq(PQgetlength(reply.results[0], 0, 0), BYTES);
    ck_assert_mem_eq(PQgetvalue(reply.results[0], 0, 0), big, BYTES);
    await(&next);
    reply_clear(&reply);
    reply_clear(&next);
    free(big);
}
END_TEST

/* Both sides have more to say than the sockets hold: whoever only wrote would wait for ever. */
START_TEST(many_large_parameters_and_results_cross_without_a_deadlock)
{
    enum { BYTES = 3 << 20, STATEMENTS = 8, BATCHES = 3 };
    char *big = malloc(BYTES);
    ck_assert_ptr_nonnull(big);
    memset(big, 'x', BYTES);
    const char *values[] = {big};
    const int lengths[] = {BYTES};
    const int formats[] = {1};
    struct reply replies[BATCHES] = {{.is_done = false}};
    for (size_t n = 0; n < BATCHES; n++) {
        struct pgbatch *b = pgbatch_new();
        for (size_t i = 0; i < STATEMENTS; i++)
            pgbatch_add(b, "select $1::bytea", true, 1, NULL, values, lengths, formats, true);
        rig_submit(&r, b, &replies[n]);
    }
    for (size_t n = 0; n < BATCHES; n++) {
        await(&replies[n]);
        for (size_t i = 0; i < STATEMENTS; i++)
            ck_assert_int_eq(PQgetlength(replies[n].results[i], 0, 0), BYTES);
        reply_clear(&replies[n]);
    }
    free(big);
}
END_TEST

START_TEST(parameters_beyond_the_protocol_are_refused_at_once)
{
    const char *values[] = {"", "", ""};
    const int lengths[] = {INT_MAX / 2, INT_MAX / 2, INT_MAX / 2};
    const int formats[] = {1, 1, 1};
    struct pgbatch *b = pgbatch_new();
    pgbatch_add(b, "select $1, $2, $3", false, 3, NULL, values, lengths, formats, true);
    struct reply reply = {.is_done = false};
    rig_submit(&r, b, &reply);
    ck_assert(reply.is_done);
    ck_assert_int_eq(reply.error.err, OB_ETOOBIG);
    ck_assert_str_eq(rig_value(&r, "select 1"), "1");
}
END_TEST

/* ---- prepared statements ---- */

static const char plus_one[] = "select $1::integer + 1";
static const char from_t[] = "select * from t where $1::integer > 0";

static void add_prepared(struct pgbatch *b, const char *sql, const char *value)
{
    const char *values[] = {value};
    pgbatch_add(b, sql, true, 1, NULL, values, NULL, NULL, false);
}

static void send_prepared(const char *sql, const char *value, struct reply *reply)
{
    struct pgbatch *b = pgbatch_new();
    add_prepared(b, sql, value);
    rig_submit(&r, b, reply);
}

static const char *uses(void)
{
    return rig_value(&r, "select coalesce(string_agg(name || ':' || (generic_plans + "
                         "custom_plans), ' ' order by name), '')"
                         " from pg_prepared_statements");
}

START_TEST(a_statement_is_prepared_once_and_then_bound_by_name)
{
    struct pgbatch *b = pgbatch_new();
    add_prepared(b, plus_one, "1");
    add_prepared(b, plus_one, "2"); /* in the same batch */
    struct reply first = {.is_done = false};
    struct reply second = {.is_done = false};
    rig_submit(&r, b, &first);
    await(&first);
    ck_assert_str_eq(value_of(&first, 0), "2");
    ck_assert_str_eq(value_of(&first, 1), "3");
    send_prepared(plus_one, "3", &second);
    await(&second);
    ck_assert_str_eq(value_of(&second, 0), "4");
    ck_assert_str_eq(uses(), "ob_1:3");
    reply_clear(&first);
    reply_clear(&second);
}
END_TEST

START_TEST(what_a_failed_batch_did_not_prepare_is_prepared_later)
{
    struct pgbatch *b = batch_of("select 1/0");
    add_prepared(b, plus_one, "1");
    struct reply failed = {.is_done = false};
    struct reply behind = {.is_done = false};
    struct reply later = {.is_done = false};
    rig_submit(&r, b, &failed);
    send_prepared(plus_one, "2", &behind); /* already on its way when the first fails */
    await_error(&failed, "22012");
    await(&behind);
    ck_assert_str_eq(value_of(&behind, 0), "3");
    ck_assert_str_eq(uses(), "");
    send_prepared(plus_one, "3", &later);
    await(&later);
    ck_assert_str_eq(value_of(&later, 0), "4");
    ck_assert_str_eq(uses(), "ob_2:1");
    reply_clear(&behind);
    reply_clear(&later);
}
END_TEST

START_TEST(a_statement_that_cannot_be_prepared_fails_its_batch_until_it_can)
{
    struct reply failed = {.is_done = false};
    struct reply later = {.is_done = false};
    send_prepared(from_t, "1", &failed);
    await_error(&failed, "42P01");
    testdb_exec("create table t (n integer); insert into t values (5)");
    send_prepared(from_t, "1", &later);
    await(&later);
    ck_assert_str_eq(value_of(&later, 0), "5");
    reply_clear(&later);
}
END_TEST

START_TEST(preparing_survives_the_rollback_of_its_batch)
{
    struct pgbatch *b = pgbatch_new();
    add_prepared(b, plus_one, "1");
    batch_add(b, "select 1/0");
    struct reply failed = {.is_done = false};
    struct reply later = {.is_done = false};
    rig_submit(&r, b, &failed);
    await_error(&failed, "22012");
    send_prepared(plus_one, "3", &later);
    await(&later);
    ck_assert_str_eq(uses(), "ob_1:2");
    reply_clear(&later);
}
END_TEST

START_TEST(a_plan_that_a_migration_made_stale_is_made_again)
{
    testdb_exec("create table t (n integer); insert into t values (5)");
    struct reply before = {.is_done = false};
    struct reply stale = {.is_done = false};
    struct reply after = {.is_done = false};
    send_prepared(from_t, "1", &before);
    await(&before);
    testdb_exec("alter table t add column more text default 'm'");
    send_prepared(from_t, "1", &stale);
    await_error(&stale, "0A000");
    send_prepared(from_t, "1", &after);
    await(&after);
    ck_assert_int_eq(PQnfields(after.results[0]), 2);
    reply_clear(&before);
    reply_clear(&after);
}
END_TEST

START_TEST(a_name_that_was_deallocated_is_made_again)
{
    struct reply replies[3] = {{.is_done = false}};
    send_prepared(plus_one, "1", &replies[0]);
    await(&replies[0]);
    (void)rig_value(&r, "deallocate all");
    send_prepared(plus_one, "1", &replies[1]);
    await_error(&replies[1], "26000");
    send_prepared(plus_one, "1", &replies[2]);
    await(&replies[2]);
    reply_clear(&replies[0]);
    reply_clear(&replies[2]);
}
END_TEST

START_TEST(more_texts_than_are_prepared_work_too)
{
    enum { TEXTS = 80 };
    static char texts[TEXTS][64];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < TEXTS; i++) {
            struct reply reply = {.is_done = false};
            (void)snprintf(texts[i], sizeof texts[i], "select $1::integer + %u", i);
            send_prepared(texts[i], "1000", &reply);
            await(&reply);
            ck_assert_int_eq(strtol(value_of(&reply, 0), NULL, 10), 1000 + i);
            reply_clear(&reply);
        }
    }
    ck_assert_str_eq(rig_value(&r, "select count(*) from pg_prepared_statements"), "64");
}
END_TEST

START_TEST(a_new_connection_prepares_anew)
{
    struct reply before = {.is_done = false};
    struct reply after = {.is_done = false};
    send_prepared(plus_one, "1", &before);
    await(&before);
    pgconn_fail(r.conn, OB_ECONN, "for a test");
    rig_until(&r, r.downs == 1 && r.is_up);
    send_prepared(plus_one, "1", &after);
    await(&after);
    ck_assert_str_eq(uses(), "ob_1:1");
    reply_clear(&before);
    reply_clear(&after);
}
END_TEST

/* ---- notifications ---- */

START_TEST(a_notification_of_another_session_arrives_while_idle)
{
    (void)rig_value(&r, "listen jobs");
    PGconn *other = testdb_connect();
    pg_exec_ok(other, "notify jobs, 'hello'");
    rig_until(&r, r.notifies == 1);
    ck_assert_str_eq(r.channel, "jobs");
    ck_assert_str_eq(r.payload, "hello");
    ck_assert_int_eq(r.notify_pid, PQbackendPID(other));
    PQfinish(other);
}
END_TEST

START_TEST(two_connections_notify_each_other)
{
    struct pgrig second;
    rig_open_up(&second, testdb_conninfo());
    (void)rig_value(&r, "listen ping");
    (void)rig_value(&second, "listen pong");
    (void)rig_value(&second, "notify ping");
    rig_until(&r, r.notifies == 1);
    (void)rig_value(&r, "notify pong, '2'");
    rig_until(&second, second.notifies == 1);
    ck_assert_str_eq(second.payload, "2");
    rig_close(&second);
}
END_TEST

/* Read together with a result, a notification leaves nothing on the socket to wake us. */
START_TEST(a_notification_that_comes_with_results_is_not_left_in_the_buffer)
{
    struct pgbatch *b = batch_of("listen jobs");
    struct reply listen = {.is_done = false};
    rig_submit(&r, b, &listen);
    await(&listen);
    reply_clear(&listen);
    for (unsigned n = 1; n <= 50; n++) {
        struct reply reply = {.is_done = false};
        b = batch_of("notify jobs");
        batch_add(b, "select repeat('x', 1000)");
        rig_submit(&r, b, &reply);
        await(&reply);
        rig_until(&r, r.notifies == n);
        reply_clear(&reply);
    }
}
END_TEST

START_TEST(notifications_read_by_the_session_sql_come_after_on_up)
{
    const struct pgconn_config config = {.conninfo = testdb_conninfo(),
                                         .session_sql = "listen early; notify early, 'me'"};
    struct pgrig second;
    rig_open_config(&second, &config);
    pgconn_start(second.conn);
    rig_until(&second, second.notifies == 1); /* the rig's callback asserts that it is up */
    rig_close(&second);
}
END_TEST

START_TEST(a_flood_of_notifications_arrives_whole_and_starves_nobody)
{
    enum { MANY = 20000 };
    (void)rig_value(&r, "listen flood");
    PGconn *other = testdb_connect();
    pg_exec_ok(other, "select pg_notify('flood', n::text) from generate_series(1, 20000) n");
    PQfinish(other);
    struct reply during = {.is_done = false};
    while (r.notifies < MANY) {
        unsigned before = r.notifies;
        rig_until(&r, r.notifies > before);
        ck_assert_uint_le(r.notifies - before, 512); /* a bounded number a turn of the loop */
        if (before == 0)
            rig_send(&r, "select 1", &during);
    }
    ck_assert_str_eq(r.payload, "20000");
    await(&during);
    reply_clear(&during);
}
END_TEST

START_TEST(notices_are_of_no_interest)
{
    (void)rig_value(
        &r, "do $$ begin for i in 1..100 loop raise warning 'noise %', i; end loop; end $$");
    ck_assert_uint_eq(r.downs, 0);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, open_rig, close_rig);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("pgpipe");
    TCase *tc = add_case(s, "batches and parameters");
    tcase_add_test(tc, a_batch_commits_as_one_and_gives_every_result);
    tcase_add_test(tc, an_error_in_the_middle_rolls_back_all_and_the_next_batch_works);
    tcase_add_test(tc, errors_are_told_by_class_and_with_their_hint);
    tcase_add_test(tc, an_error_at_the_commit_fails_the_batch_after_its_rows_arrived);
    tcase_add_test(tc, an_empty_batch_is_answered_by_its_sync);
    tcase_add_test(tc, a_thousand_pipelined_batches_are_answered_in_order);
    tcase_add_test(tc, a_callback_may_submit_the_next_batch);
    tcase_add_test(tc, a_batch_submitted_while_down_is_refused_at_once);
    tcase_add_test(tc, copy_is_refused_and_the_connection_begun_anew);
    tcase_add_test(tc, parameters_and_results_go_as_text_or_binary);
    tcase_add_test(tc, twenty_megabytes_go_there_and_come_back);
    tcase_add_test(tc, many_large_parameters_and_results_cross_without_a_deadlock);
    tcase_add_test(tc, parameters_beyond_the_protocol_are_refused_at_once);

    tc = add_case(s, "prepared statements and notifications");
    tcase_add_test(tc, a_statement_is_prepared_once_and_then_bound_by_name);
    tcase_add_test(tc, what_a_failed_batch_did_not_prepare_is_prepared_later);
    tcase_add_test(tc, a_statement_that_cannot_be_prepared_fails_its_batch_until_it_can);
    tcase_add_test(tc, preparing_survives_the_rollback_of_its_batch);
    tcase_add_test(tc, a_plan_that_a_migration_made_stale_is_made_again);
    tcase_add_test(tc, a_name_that_was_deallocated_is_made_again);
    tcase_add_test(tc, more_texts_than_are_prepared_work_too);
    tcase_add_test(tc, a_new_connection_prepares_anew);
    tcase_add_test(tc, a_notification_of_another_session_arrives_while_idle);
    tcase_add_test(tc, two_connections_notify_each_other);
    tcase_add_test(tc, a_notification_that_comes_with_results_is_not_left_in_the_buffer);
    tcase_add_test(tc, notifications_read_by_the_session_sql_come_after_on_up);
    tcase_add_test(tc, a_flood_of_notifications_arrives_whole_and_starves_nobody);
    tcase_add_test(tc, notices_are_of_no_interest);
    return s;
}
