/* outbox.count_jobs: the same as outbox.stats up to its bound, near to it above, and cheap. */
#include "keys_fixture.h"

#define DEAD_KEPT "{\"outcome\": \"done\", \"keep_ms\": 600000}"
#define COMPARE                                                                                    \
    "SELECT count(*) FROM (SELECT task, state, count FROM outbox.stats) s FULL JOIN"               \
    " outbox.count_jobs(%d) c USING (task, state) WHERE s.count IS DISTINCT FROM c.count OR"       \
    " c.estimated"

/* Jobs in each state, of several tasks. */
static PGconn *mixed(void)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue(t, priority => p) FROM unnest('{a,a,a,b,x,Y}'::text[])"
                     " t, generate_series(1, 4) p");
    pg_exec_ok(conn, "SELECT outbox.claim(1, 1, '{a,b}', '{5,2}')");
    pg_exec_ok(conn,
               "SELECT outbox.settle(1, array_agg(id), array_agg(claim), '[" DEAD ", " DEAD_KEPT
               "]') FROM (SELECT id, claim FROM outbox.job WHERE owner = 1 ORDER BY id LIMIT 2) j");
    pg_exec_ok(conn, "SELECT outbox.enqueue(t, delay => '1 h') FROM unnest('{a,s}'::text[]) t");
    pg_exec_ok(conn, "SELECT outbox.enqueue('k', key => 'k') FROM generate_series(1, 4)");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('d', after => ARRAY[min(id), max(id)]) FROM outbox.job");
    return conn;
}

START_TEST(up_to_the_bound_it_counts_exactly)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT count(*) FROM outbox.count_jobs()", "0");
    PQfinish(conn);
    conn = mixed();
    char sql[512];
    (void)snprintf(sql, sizeof sql, COMPARE, 10000);
    ck_rows(conn, sql, "0");
    (void)snprintf(sql, sizeof sql, COMPARE, 1); /* a small table is sampled as a whole */
    ck_rows(conn, sql, "0");
    ck_rows(conn, "SELECT count(*) > 8 FROM outbox.count_jobs()", "t");
    ck_rows(
        conn,
        "SELECT bool_and(abs(extract(epoch FROM clock_timestamp() - c.oldest - s.oldest_age)) < 5)"
        " FROM outbox.stats s JOIN outbox.count_jobs() c USING (task, state)",
        "t");
    pg_exec_fails(conn, "SELECT outbox.count_jobs(0)", "22023", "bound");
    pg_exec_fails(conn, "SELECT outbox.count_jobs(NULL)", "22023", "bound");
    PQfinish(conn);
}
END_TEST

/* 400,000 rows in all: what is above the bound is near to the truth and says that it is an
 * estimate; what is below stays exact. */
START_TEST(above_the_bound_it_estimates_and_says_so)
{
    PGconn *conn = mixed();
    pg_exec_ok(conn,
               "INSERT INTO outbox.job (ready_xid, created_at, run_at, task, encoding, payload)"
               " SELECT CASE WHEN n % 4 < 3 THEN pg_current_xact_id() END, now(),"
               " CASE WHEN n % 4 = 3 THEN now() + '1 day' END, 'big' || n % 4 / 2, 'json', '{}'"
               " FROM generate_series(1, 300000) n");
    pg_exec_ok(conn,
               "INSERT INTO outbox.dead (id, created_at, finished_at, attempts, lost, priority,"
               " logged, task, reason, encoding, payload) SELECT n + 1000000, now(), now(), 1, 0,"
               " 2, false, 'big', 'x', 'json', '{}' FROM generate_series(1, 100000) n");
    pg_exec_ok(conn, "ANALYZE outbox.job, outbox.dead");
    ck_rows(conn,
            "SELECT task, state, estimated, count BETWEEN 0.8 * n AND 1.2 * n FROM"
            " outbox.count_jobs() JOIN (VALUES ('big0', 'ready', 150000), ('big1', 'ready', 75000),"
            " ('big1', 'scheduled', 75000), ('big', 'dead', 100000)) v(task, state, n)"
            " USING (task, state) ORDER BY 1, 2",
            "big|dead|t|t;big0|ready|t|t;big1|ready|t|t;big1|scheduled|t|t");
    pg_exec_ok(conn,
               "CREATE FUNCTION blocks_read() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE j"
               " json; BEGIN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM"
               " outbox.count_jobs(100)' INTO j; RETURN (j -> 0 -> 'Plan' ->> 'Shared Hit"
               " Blocks')::bigint + (j -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint; END $$");
    ck_rows(conn, "SELECT blocks_read() < pg_relation_size('outbox.job') / 8192 / 2", "t");
    ck_rows(
        conn,
        "SELECT count(*) FROM outbox.stats s FULL JOIN outbox.count_jobs() c USING (task, state)"
        " WHERE task NOT LIKE 'big_' AND task <> 'big' AND state <> 'scheduled' AND"
        " (s.count IS DISTINCT FROM c.count OR c.estimated)",
        "0");
    PQfinish(conn);
}
END_TEST

/* ---- with conditions ---- */

/* What outbox.count_matching says, and what is there. */
static void ck_matching(PGconn *conn, const char *arguments, const char *where)
{
    char sql[512];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT m.count = c.count, m.estimated, c.count > 0 FROM outbox.count_matching(%s)"
        " m, (SELECT count(*) FROM outbox.jobs WHERE %s) c",
        arguments, where);
    ck_assert_msg(strcmp(rows_of(conn, sql), "t|f|t") == 0, "%s: %s", arguments,
                  rows_of(conn, sql));
}

START_TEST(each_condition_is_counted)
{
    PGconn *conn = mixed();
    pg_exec_ok(conn,
               "UPDATE outbox.job SET created_at = created_at - interval '1 day' WHERE id < 9");
    pg_exec_ok(conn, "UPDATE outbox.dead SET finished_at = finished_at - interval '1 day'");
    ck_matching(conn, "", "true");
    ck_matching(conn, "tasks => '{a,b}'", "task IN ('a', 'b')");
    ck_matching(conn, "states => '{ready,dead}'", "state IN ('ready', 'dead')");
    ck_matching(conn, "'{a}', '{running}'", "task = 'a' AND state = 'running'");
    for (int bound = 1; bound <= 10000; bound += 9999) { /* small tables are sampled as a whole */
        char arguments[200];
        (void)snprintf(arguments, sizeof arguments, "key => 'k', bound => %d", bound);
        ck_matching(conn, arguments, "key = 'k'");
        (void)snprintf(arguments, sizeof arguments,
                       "created_before => now() - interval '1 hour', bound => %d", bound);
        ck_matching(conn, arguments, "created_at < now() - interval '1 hour'");
        (void)snprintf(arguments, sizeof arguments,
                       "'{a}', '{ready}', created_since => now() - interval '1 hour', bound => %d",
                       bound);
        ck_matching(conn, arguments,
                    "task = 'a' AND state = 'ready' AND created_at > now() - interval '1 hour'");
        (void)snprintf(arguments, sizeof arguments, "error => 'EXIT', bound => %d", bound);
        ck_matching(conn, arguments, "reason LIKE '%exit%'");
        (void)snprintf(arguments, sizeof arguments,
                       "ended_before => now() - interval '1 hour', bound => %d", bound);
        ck_matching(conn, arguments, "state = 'dead'");
        (void)snprintf(arguments, sizeof arguments,
                       "ended_since => now() - interval '1 hour', bound => %d", bound);
        ck_matching(conn, arguments, "state = 'done'");
    }
    ck_rows(conn, "SELECT * FROM outbox.count_matching('{none}')", "0|f");
    ck_rows(conn, "SELECT * FROM outbox.count_matching(key => 'none')", "0|f");
    pg_exec_fails(conn, "SELECT outbox.count_matching(bound => 0)", "22023", "bound");
    PQfinish(conn);
}
END_TEST

START_TEST(many_that_match_are_estimated)
{
    PGconn *conn = mixed();
    pg_exec_ok(conn,
               "INSERT INTO outbox.dead (id, created_at, finished_at, attempts, lost, priority,"
               " logged, task, encoding, reason, payload) SELECT 1000 + n, now(), now(), 1, 0,"
               " 2, false, 'big', 'json', CASE n % 3 WHEN 0 THEN 'exit 3' ELSE 'HTTP 500' END,"
               " '{}' FROM generate_series(1, 150000) AS n");
    pg_exec_ok(conn, "ANALYZE outbox.dead");
    ck_rows(conn,
            "SELECT count BETWEEN 80000 AND 120000, estimated FROM outbox.count_matching("
            "error => 'http')",
            "t|t");
    ck_rows(conn,
            "SELECT count BETWEEN 120000 AND 180000, estimated FROM outbox.count_matching('{big}')",
            "t|t");
    ck_rows(conn, "SELECT * FROM outbox.count_matching(error => 'exit 65')", "1|f");
    ck_rows(conn, "SELECT * FROM outbox.count_matching(error => 'exit', bound => 60000)",
            "50001|f");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_count");
    TCase *tc = sql_case(suite, "counts");
    tcase_add_test(tc, up_to_the_bound_it_counts_exactly);
    tcase_add_test(tc, above_the_bound_it_estimates_and_says_so);
    tcase_add_test(tc, each_condition_is_counted);
    tcase_add_test(tc, many_that_match_are_estimated);
    return suite;
}
