/* outbox.enqueue_many with keys: all jobs with one INSERT, in the lines of their keys as if they
 * had been put one by one. */
#include "keys_fixture.h"

#define MANY(jobs) "SELECT id, existing FROM outbox.enqueue_many('[" jobs "]')"
#define KEYED(key) "{\"task\": \"a\", \"key\": \"" key "\"}"
#define PLACES                                                                                     \
    "SELECT id, key, place, waiting, ready_xid IS NOT NULL, linked FROM outbox.job WHERE id > 4"   \
    " ORDER BY id"

START_TEST(each_job_joins_the_line_of_its_key)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'gone');"
                     "SELECT outbox.enqueue('a', key => 'blocked');");
    CLAIMED(conn, "1,2");
    DONE(conn, 1);
    BECAME(conn, 2, DEAD_BLOCKS);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'long') FROM generate_series(1, 2)");
    ck_rows(conn,
            MANY(KEYED("long") "," KEYED("new") "," KEYED("new") ", {\"task\": \"a\"}," KEYED(
                "gone") "," KEYED("blocked") "," KEYED("long") "," KEYED("new")),
            "5|f;6|f;7|f;8|f;9|f;10|f;11|f;12|f");
    ck_rows(conn, PLACES,
            "5|long|5|t|f|t;6|new|6|f|t|t;7|new|7|t|f|t;8|-|-|f|t|f;9|gone|9|f|t|t;"
            "10|blocked|10|t|f|t;11|long|11|t|f|t;12|new|12|t|f|t");
    CLAIMED(conn, "3,6,8,9");
    for (long id = 3; id <= 9; id += id == 3 ? 3 : id == 6 ? 2 : 1)
        DONE(conn, id);
    CLAIMED(conn, "4,7");
    DONE(conn, 4);
    DONE(conn, 7);
    CLAIMED(conn, "5,12");
    PQfinish(conn);
}
END_TEST

START_TEST(a_line_whose_head_runs_or_is_to_be_tried_again_is_joined_behind_it)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => k) FROM unnest('{running,failed}'::text[])"
                     " AS k");
    CLAIMED(conn, "1,2");
    BECAME(conn, 2, RETRY_LATER);
    pg_exec_ok(conn, MANY(KEYED("running") "," KEYED("failed") ", {\"task\": \"b\", \"key\":"
                                                               " \"running\"}"));
    STATES(conn, "1|running;2|scheduled;3|waiting;4|waiting;5|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(what_each_job_is_given_is_kept)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, MANY("{\"task\": \"a\", \"key\": \"k\", \"payload\": [1], \"priority\": 3,"
                          " \"max_attempts\": 7}, {\"task\": \"b\", \"payload\": {\"x\": 2}}"));
    pg_exec_ok(conn, "SELECT outbox.enqueue_many('[{\"task\": \"c\", \"key\": \"k\", \"encoding\":"
                     " \"msgpack\"}, {\"task\": \"d\", \"encoding\": \"json\"}]',"
                     " ARRAY['\\x8100'::bytea, '{}'])");
    ck_rows(conn,
            "SELECT id, task, key, encoding, priority, max_attempts, outbox.payload(id) FROM"
            " outbox.jobs ORDER BY id",
            "1|a|k|json|3|7|\\x5b315d;2|b|-|json|2|-|\\x7b2278223a20327d;"
            "3|c|k|msgpack|2|-|\\x8100;4|d|-|json|2|-|\\x7b7d");
    PQfinish(conn);
}
END_TEST

START_TEST(with_other_options_too_the_lines_are_right)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            MANY(KEYED("k") "," KEYED("k") ", {\"task\": \"a\", \"key\": \"k\", \"delay\": 60},"
                                           " {\"task\": \"a\", \"unique_key\": \"u\"}"),
            "1|f;2|f;3|f;4|f");
    STATES(conn, "1|ready;2|waiting;3|scheduled;4|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(bad_keys_are_refused_by_position)
{
    PGconn *conn = testdb_connect();
    pg_exec_fails(conn, MANY(KEYED("k") "," KEYED("")), "22023", "jobs[1]: ");
    pg_exec_fails(conn, MANY("{\"task\": \"a\", \"key\": 7}"), "22023", "jobs[0]: ");
    pg_exec_fails(conn,
                  "SELECT outbox.enqueue_many(jsonb_build_array(jsonb_build_object('task', 'a',"
                  " 'key', repeat('k', 1025))))",
                  "22023", "jobs[0]: ");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_fails(conn, MANY(KEYED("k")), "0A000", NULL);
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(conn);
}
END_TEST

/* ---- at the same time: each with its rule and without it ---- */

static void lock_first(bool is_off)
{
    sql_rule(is_off, "put_lines", "PERFORM outbox.lock_keys(ARRAY(", "PERFORM cardinality(ARRAY(");
}

START_TEST(who_is_put_meanwhile_is_waited_for)
{
    PGconn *conn = testdb_connect();
    lock_first(IS_OFF);
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    begin_sql(conn, MANY(KEYED("k") "," KEYED("k")));
    ck_assert_int_eq(ended_or_blocked(conn), IS_OFF);
    commit(producer);
    end_sql(conn);
    STATES(conn, IS_OFF ? "1|ready;2|ready;3|waiting" : "1|ready;2|waiting;3|waiting");
    PQfinish(conn);
}
END_TEST

START_TEST(who_ends_meanwhile_is_not_waited_for)
{
    PGconn *conn = with_dispatcher();
    lock_first(IS_OFF);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    PGconn *settler = begin();
    pg_exec_ok(settler, settle_sql(1, NULL, false));
    begin_sql(conn, MANY(KEYED("k") "," KEYED("k")));
    ck_assert_int_eq(ended_or_blocked(conn), IS_OFF);
    commit(settler);
    end_sql(conn);
    STATES(conn, IS_OFF ? "2|waiting;3|waiting" : "2|ready;3|waiting");
    PQfinish(conn);
}
END_TEST

/* Two calls with the same keys the other way round: the locks are taken in their order. */
START_TEST(two_calls_never_wait_for_each_other)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    for (int i = 0; i < 20; i++) {
        begin_sql(conn, "SELECT count(*) FROM outbox.enqueue_many((SELECT jsonb_agg("
                        "jsonb_build_object('task', 'a', 'key', 'k' || n) ORDER BY n) FROM"
                        " generate_series(1, 100) AS n))");
        begin_sql(other, "SELECT count(*) FROM outbox.enqueue_many((SELECT jsonb_agg("
                         "jsonb_build_object('task', 'a', 'key', 'k' || n) ORDER BY n DESC) FROM"
                         " generate_series(1, 100) AS n))");
        end_sql(conn);
        end_sql(other);
    }
    ck_rows(conn,
            "SELECT count(*), count(*) FILTER (WHERE ready_xid IS NOT NULL), bool_and(ready_xid IS"
            " NULL OR id = first) FROM (SELECT *, min(id) OVER (PARTITION BY key) AS first FROM"
            " outbox.job) j",
            "4000|100|t");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_many");
    TCase *tc = sql_case(suite, "lines");
    tcase_add_test(tc, each_job_joins_the_line_of_its_key);
    tcase_add_test(tc, a_line_whose_head_runs_or_is_to_be_tried_again_is_joined_behind_it);
    tcase_add_test(tc, what_each_job_is_given_is_kept);
    tcase_add_test(tc, with_other_options_too_the_lines_are_right);
    tcase_add_test(tc, bad_keys_are_refused_by_position);
    tc = sql_case(suite, "at the same time");
    tcase_add_loop_test(tc, who_is_put_meanwhile_is_waited_for, 0, 2);
    tcase_add_loop_test(tc, who_ends_meanwhile_is_not_waited_for, 0, 2);
    tcase_add_test(tc, two_calls_never_wait_for_each_other);
    return suite;
}
