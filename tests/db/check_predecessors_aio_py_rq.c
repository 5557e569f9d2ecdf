/* What aio-py-rq's tests ask of a queue, of one without duplicates, and of a pool of periodic work.
 */
#include "predecessors_fixture.h"

static void enqueue_n(PGconn *conn, int n)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('a', '\"x\"') FROM generate_series(1, %d)", n);
    pg_exec_ok(conn, sql);
}

/* ---- Queue ---- */

/* test_add_items, test_get_items */
START_TEST(queue_keeps_order_across_gets_and_duplicates)
{
    PGconn *conn = with_dispatcher();
    enqueue_n(conn, 5);
    CLAIM(conn, 1, 1, 2, "1,2");
    CLAIM(conn, 1, 3, 2, "3,4");
    CLAIM(conn, 1, 5, 2, "5");
    CLAIM(conn, 1, 6, 2, "");
    PQfinish(conn);
}
END_TEST

/* test_integration */
START_TEST(integration_of_get_ack_and_reject)
{
    PGconn *conn = with_dispatcher();
    enqueue_n(conn, 5);
    CLAIM(conn, 1, 1, 5, "1,2,3,4,5");
    CLAIM(conn, 1, 6, 5, "");
    DONE(conn, 1);
    DONE(conn, 3);
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{5,2,4}', '{5,2,4}')", "5|done;2|done;4|done");
    CLAIM(conn, 1, 6, 5, "2,4,5");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{2,4,5}', '{6,7,8}')", "2|done;4|done;5|done");
    STATES(conn, "");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempts", "0");
    PQfinish(conn);
}
END_TEST

/* test_reject_items: the rejected keep their order, behind what is ready by now; in a line they
 * keep their place. An unknown one is a no-op that says so. */
START_TEST(reject_items_keep_their_order)
{
    PGconn *conn = with_dispatcher();
    enqueue_n(conn, 4);
    CLAIM(conn, 1, 1, 3, "1,2,3");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{3,1,2,77}', '{3,1,2,1}')",
            "3|done;1|done;2|done;77|gone");
    CLAIM(conn, 1, 4, 9, "4,1,2,3");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIM(conn, 1, 10, 9, "5");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{5}', '{10}')", "5|done");
    CLAIM(conn, 1, 11, 9, "5");
    PQfinish(conn);
}
END_TEST

/* test_delete_item, ..._one_occurrence, ..._several_occurrences: what waits, and only that. */
START_TEST(delete_items_takes_away_what_waits_by_key)
{
    static const char delete_some[] =
        "SELECT string_agg(outbox.cancel(id), ',') FROM (SELECT id FROM"
        " outbox.jobs WHERE key = '%s' AND state <> 'running'"
        " ORDER BY id LIMIT %s) AS j";
    static const struct {
        const char *key;
        const char *limit;
        const char *answers;
        const char *left;
    } steps[] = {
        {"x", "1", "cancelled", "1|running;3|ready;4|waiting;5|waiting;6|waiting"},
        {"y", "2", "cancelled,cancelled", "1|running;5|waiting;6|ready"},
        {"x", "ALL", "cancelled", "1|running;6|ready"},
        {"x", "ALL", "-", "1|running;6|ready"},
    };
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => k) FROM unnest('{x,x,y,y,x,y}'::text[]) k");
    CLAIM(conn, 1, 1, 1, "1");
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        char sql[256];
        (void)snprintf(sql, sizeof sql, delete_some, steps[i].key, steps[i].limit);
        ck_rows(conn, sql, steps[i].answers);
        STATES(conn, steps[i].left);
    }
    PQfinish(conn);
}
END_TEST

/* test_re_enqueue_timeout_items: only those of who is silent, in their order; whoever is at work
 * keeps what it has, however long it has had it. */
START_TEST(re_enqueue_timeout_items_are_those_of_the_silent)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, REGISTER("2", "two"), "registered");
    enqueue_n(conn, 6);
    CLAIM(conn, 1, 1, 2, "1,2");
    CLAIM(conn, 2, 1, 2, "3,4");
    CLAIM(conn, 1, 3, 1, "5");
    ck_rows(conn, "SELECT outbox.extend(2)", "t");
    ck_rows(conn, "SELECT outbox.take_over(1, 0), outbox.take_over(2, 0)", "3|-1");
    STATES(conn, "1|ready;2|ready;3|running;4|running;5|ready;6|ready");
    CLAIM(conn, 2, 3, 9, "6,1,2,5");
    PQfinish(conn);
}
END_TEST

/* test_drop_all_items: what runs is gone, however it ends. */
START_TEST(drop_all_items_ends_what_runs)
{
    PGconn *conn = with_dispatcher();
    enqueue_n(conn, 3);
    CLAIM(conn, 1, 1, 2, "1,2");
    ck_rows(conn,
            "SELECT id, outbox.cancel(id) FROM outbox.jobs WHERE state = 'running' ORDER BY id",
            "1|cancelling;2|cancelling");
    ck_rows(conn, "SELECT cancelled FROM outbox.orders(1)", "{1,2}");
    ck_assert_str_eq(settle(conn, 1, RETRY), "cancelled");
    ck_assert_str_eq(settle(conn, 2, RELEASE), "cancelled");
    STATES(conn, "3|ready");
    PQfinish(conn);
}
END_TEST

/* test_rollback_timeout: some failures in a short time are not the end, as each makes the job wait
 * longer; an item that did not fail is not touched; and reset_blocked_item. */
START_TEST(can_rollback_item_until_it_has_failed_often_and_for_long)
{
    char sql[64];
    PGconn *conn = with_dispatcher();
    enqueue_n(conn, 2);
    long seconds = 0;
    for (int n = 1; n < 20; n++) {
        ck_rows(conn, "SELECT outbox.take_failed(1, 'no')", "retried");
        (void)snprintf(sql, sizeof sql, "%d|scheduled", n);
        ck_rows(conn, "SELECT attempts, state FROM outbox.jobs WHERE id = 1", sql);
        seconds += testdb_long("SELECT ceil(extract(epoch FROM run_at - clock_timestamp()))::int"
                               " FROM outbox.jobs WHERE id = 1");
        pg_exec_ok(conn, "UPDATE outbox.job SET run_at = clock_timestamp() WHERE id = 1");
        ck_rows(conn, "SELECT moved FROM outbox.due()", "1"); /* it has waited */
    }
    ck_assert_int_ge(seconds, 10 * 3600);
    ck_rows(conn, "SELECT outbox.take_failed(1, 'no')", "dead");
    STATES(conn, "1|dead;2|ready");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn, "SELECT id, state, attempts FROM outbox.jobs ORDER BY id", "1|ready|0;2|ready|0");
    PQfinish(conn);
}
END_TEST

/* ---- UniqueQueue ---- */

/* test_add_items_with_multiple_chunks, and with duplicates */
START_TEST(unique_add_items_of_many_stores_each_once)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn,
            "SELECT count(*), count(DISTINCT m.id), count(*) FILTER (WHERE m.existing) FROM (SELECT"
            " jsonb_agg(jsonb_build_object('task', 'a', 'unique_key', 'u' || i % 37) ORDER BY i)"
            " AS jobs FROM generate_series(1, 1000) AS i) AS j, outbox.enqueue_many(j.jobs) AS m",
            "1000|37|963");
    ck_rows(conn, "SELECT count(*), count(DISTINCT unique_key) FROM outbox.job", "37|37");
    PQfinish(conn);
}
END_TEST

/* test_re_enqueue_all_times, test_drop_timeout_items of unique ones: what was lost merges with what
 * was put meanwhile, and each runs once more. */
START_TEST(unique_put_again_while_it_runs_runs_once_more)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, REGISTER("2", "two"), "registered");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => 'u'),"
                     " outbox.enqueue('a', unique_key => 'v')");
    CLAIM(conn, 1, 1, 9, "1,2");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "3");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "3");
    DONE(conn, 1);
    CLAIM(conn, 1, 3, 9, "3");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "5");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "2");
    CLAIM(conn, 2, 1, 9, "5,2");
    PQfinish(conn);
}
END_TEST

/* ---- Pool ---- */

#define POOL(name) "outbox.enqueue('a', unique_key => '" name "', repeat_every => '36 h')"

/* test_get_items: what is leased is not handed out again, however long it had been due. */
START_TEST(pool_never_repeats_what_is_leased)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT " POOL("x") ", " POOL("y"));
    CLAIM(conn, 1, 1, 9, "1,2");
    DONE(conn, 1);
    DONE(conn, 2);
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = clock_timestamp() - interval '9 days'");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "2");
    CLAIM(conn, 1, 3, 1, "1");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "0");
    CLAIM(conn, 1, 4, 9, "2");
    CLAIM(conn, 1, 5, 9, "");
    PQfinish(conn);
}
END_TEST

/* test_ack_item: next due so long from now; one that is leased, or never was, is left alone. */
START_TEST(pool_ack_item_makes_it_due_from_now_on)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT " POOL("x") ", " POOL("y") ", " POOL("z"));
    CLAIM(conn, 1, 1, 2, "1,2");
    const char *before = testdb_value("SELECT clock_timestamp()");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1,3}', '{1,3}')", "1|done;3|lost");
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT id, state, run_at BETWEEN timestamptz '%s' + interval '36 h'"
                   " AND clock_timestamp() + interval '36 h' FROM outbox.jobs ORDER BY id",
                   before);
    ck_rows(conn, sql, "1|scheduled|t;2|running|-;3|ready|-");
    PQfinish(conn);
}
END_TEST

/* test_real_use_case_example */
START_TEST(pool_real_use_case_example)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT " POOL("1") ", " POOL("2") ", " POOL("3") ", " POOL("4"));
    pg_exec_ok(conn, "SELECT " POOL("5") ", " POOL("6"));
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => '7', repeat_every => '36 h', run_at"
                     " => now() + interval '1 h')");
    ck_rows(conn, "SELECT " POOL("2") ", " POOL("7"), "2|7");
    ck_rows(conn, "SELECT state, count FROM outbox.stats ORDER BY state", "ready|6;scheduled|1");
    CLAIM(conn, 1, 1, 3, "1,2,3");
    CLAIM(conn, 1, 4, 3, "4,5,6");
    CLAIM(conn, 1, 7, 3, "");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1,2,4}', '{1,2,4}')", "1|done;2|done;4|done");
    ck_assert_str_eq(settle(conn, 7, NULL), "lost"); /* it is not leased */
    ck_rows(conn, "SELECT outbox.cancel(1), outbox.cancel(3)", "cancelled|cancelling");
    STATES(conn, "2|scheduled;3|running;4|scheduled;5|running;6|running;7|scheduled");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "3"); /* of which 3 is gone */
    STATES(conn, "2|scheduled;4|scheduled;5|ready;6|ready;7|scheduled");
    ck_rows(conn, "SELECT outbox.retry(7)", "retried");
    ck_rows(conn, "SELECT state, count FROM outbox.stats ORDER BY state", "ready|3;scheduled|2");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("predecessors_aio_py_rq");
    TCase *queue = sql_case(suite, "queue");
    tcase_add_test(queue, queue_keeps_order_across_gets_and_duplicates);
    tcase_add_test(queue, integration_of_get_ack_and_reject);
    tcase_add_test(queue, reject_items_keep_their_order);
    tcase_add_test(queue, delete_items_takes_away_what_waits_by_key);
    tcase_add_test(queue, re_enqueue_timeout_items_are_those_of_the_silent);
    tcase_add_test(queue, drop_all_items_ends_what_runs);
    tcase_add_test(queue, can_rollback_item_until_it_has_failed_often_and_for_long);
    TCase *unique = sql_case(suite, "unique");
    tcase_add_test(unique, unique_add_items_of_many_stores_each_once);
    tcase_add_test(unique, unique_put_again_while_it_runs_runs_once_more);
    TCase *pool = sql_case(suite, "pool");
    tcase_add_test(pool, pool_never_repeats_what_is_leased);
    tcase_add_test(pool, pool_ack_item_makes_it_due_from_now_on);
    tcase_add_test(pool, pool_real_use_case_example);
    return suite;
}
