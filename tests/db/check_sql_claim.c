/* outbox.claim, adopt, due: order, locks, tokens, HOT updates, and cost that does not follow the
 * backlog. */
#include "check_sql.h"

#include <stdlib.h>

#include "wait.h"

START_TEST(claims_come_by_task_then_priority_then_age)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', priority => 3)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b'), outbox.enqueue('b')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', priority => 1)");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', priority => 4), outbox.enqueue('a', priority => 1)");
    ck_rows(conn, "SELECT id, claim, task, priority FROM outbox.claim(1, 10, '{b,a}', '{5,3}')",
            "2|10|b|2;3|11|b|2;4|12|a|1;6|13|a|1;1|14|a|3");
    ck_rows(conn, "SELECT id, state, owner, dispatcher, attempts FROM outbox.jobs ORDER BY id",
            "1|running|1|one|1;2|running|1|one|1;3|running|1|one|1;4|running|1|one|1;5|ready|-|-|0;"
            "6|running|1|one|1");
    PQfinish(conn);
}
END_TEST

/* Ids are handed out before commits: the transaction that made the row ready decides, not the id.
 */
START_TEST(a_late_commit_with_a_lower_id_is_claimed_too)
{
    PGconn *slow = testdb_connect();
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(slow, "BEGIN");
    pg_exec_ok(slow, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{9}')", "2");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{9}')", "");
    pg_exec_ok(slow, "COMMIT");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{9}')", "1");
    PQfinish(conn);
    PQfinish(slow);
}
END_TEST

START_TEST(slots_limit_each_task)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{2}')", "2");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 3, '{a}', '{0}')", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 3, '{a}', '{-1}')", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 3, '{b}', '{9}')", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 3, '{}', '{}')", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 3, '{b,a}', '{9,9}')", "3");
    PQfinish(conn);
}
END_TEST

START_TEST(a_claim_carries_what_the_handler_needs)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '\"12345678\"', headers => '{\"h\": \"v\"}', "
                     "max_attempts => 7)");
    pg_exec_ok(conn, "SELECT * FROM outbox.enqueue_bytes('a', '\\x00', 'msgpack', expires_at => "
                     "now() - interval '1s')");
    ck_rows(conn,
            "SELECT id, attempt, max_attempts, lost, encoding, convert_from(payload, 'UTF8'), "
            "payload_size, headers, key,"
            " created_at <= clock_timestamp(), expired FROM outbox.claim(1, 1, '{a}', '{1}')",
            "1|1|7|0|json|\"12345678\"|10|{\"h\": \"v\"}|-|t|f");
    ck_rows(conn, "SELECT id, encoding, payload, expired FROM outbox.claim(1, 2, '{a}', '{1}')",
            "2|msgpack|\\x00|t");
    PQfinish(conn);
}
END_TEST

START_TEST(a_large_payload_is_fetched_separately)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', to_jsonb(repeat('x', n))) FROM "
                     "unnest('{65534,65535}'::int[]) n");
    ck_rows(conn, "SELECT id, length(payload), payload_size FROM outbox.claim(1, 1, '{a}', '{2}')",
            "1|65536|65536;2|-|65537");
    ck_rows(conn, "SELECT length(outbox.payload(2)), outbox.payload(99)", "65537|-");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', '\"1234\"')");
    ck_rows(conn, "SELECT payload, payload_size FROM outbox.claim(1, 3, '{b}', '{1}', 5)", "-|6");
    PQfinish(conn);
}
END_TEST

START_TEST(a_locked_row_is_passed_over)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, REGISTER("2", "two"));
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 4)");
    pg_exec_ok(other, "BEGIN");
    ck_rows(other, "SELECT id FROM outbox.claim(2, 1, '{a}', '{2}')", "1;2");
    pg_exec_ok(conn, "SET statement_timeout = '5s'");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "3");
    pg_exec_ok(other, "ROLLBACK");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{9}')", "1;2;4");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

/* Two sessions drain one backlog: every job is claimed exactly once. */
START_TEST(rivals_never_share_a_job)
{
    enum { RIVALS = 4, JOBS = 400 };
    PGconn *rivals[RIVALS];
    PGconn *conn = testdb_connect();
    pg_exec_ok(
        conn,
        "SELECT outbox.enqueue('a') FROM generate_series(1, 400); CREATE TABLE seen (id bigint)");
    for (int i = 0; i < RIVALS; i++) {
        char sql[256];
        rivals[i] = testdb_connect();
        (void)snprintf(
            sql, sizeof sql,
            "SELECT * FROM outbox.register(%d, 'r%d', 'h', 'b', 'l', 1, '{}', '', '{a}', '1m')",
            i + 1, i);
        pg_exec_ok(rivals[i], sql);
    }
    for (int round = 0; round < JOBS / 20; round++) {
        for (int i = 0; i < RIVALS; i++) {
            char sql[160];
            (void)snprintf(sql, sizeof sql,
                           "INSERT INTO seen SELECT id FROM outbox.claim(%d, %d, '{a}', '{7}')",
                           i + 1, 1 + round * 7);
            ck_assert_int_eq(PQsendQuery(rivals[i], sql), 1);
        }
        for (int i = 0; i < RIVALS; i++) {
            PGresult *res;
            while ((res = PQgetResult(rivals[i])) != NULL) {
                ck_assert_int_eq(PQresultStatus(res), PGRES_COMMAND_OK);
                PQclear(res);
            }
        }
    }
    ck_rows(conn, "SELECT count(*), count(DISTINCT id) FROM seen", "400|400");
    ck_rows(conn, "SELECT count(*), count(DISTINCT (owner, claim)), max(attempts) FROM outbox.job",
            "400|400|1");
    for (int i = 0; i < RIVALS; i++)
        PQfinish(rivals[i]);
    PQfinish(conn);
}
END_TEST

START_TEST(only_a_registered_dispatcher_may_claim)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')", "22023",
                  "no dispatcher 1 is registered");
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(1, 1, '{b}', '{1}')", "22023",
                  "no dispatcher 1 is registered");
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(NULL, 1, '{a}', '{1}')", "22023",
                  "no dispatcher NULL");
    register_one(conn);
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1,2}')", "22023",
                  "differ in length");
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(1, NULL, '{a}', '{1}')", "22023",
                  "something is NULL");
    pg_exec_fails(conn, "SELECT * FROM outbox.claim(1, 1, NULL, NULL)", "22023",
                  "something is NULL");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "ready");
    PQfinish(conn);
}
END_TEST

/* Else a claim could be committed for a dispatcher whose row is gone, and nobody would ever release
 * it. */
START_TEST(a_dispatcher_is_not_removed_under_an_open_claim)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    /* The first one, and then one in a few thousand, writes the bounds into the row. */
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')", "1|done");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{a}', '{1}')", "1");
    pg_exec_ok(other, "SET lock_timeout = '100ms'");
    pg_exec_fails(other, "SELECT outbox.take_over(1, 0)", "55P03", NULL);
    pg_exec_fails(other, "SELECT outbox.unregister(1)", "55P03", NULL);
    ck_rows(other, "SELECT outbox.extend(1)", "t");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(other, "SELECT outbox.unregister(1)", "f");
    ck_rows(other, "SELECT outbox.take_over(1, 1)", "1");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

/* What a take-over searches: every job it owns became ready between them. */
START_TEST(the_bounds_of_a_dispatcher_enclose_what_it_owns)
{
    static const char between[] =
        "SELECT count(*), bool_and(d.oldest_claim <= j.ready_xid AND j.ready_xid <= d.newest_claim)"
        " FROM outbox.job j JOIN outbox.dispatcher d ON d.id = j.owner";
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', priority => 4)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    ck_rows(conn, "SELECT num_nulls(oldest_claim, newest_claim) FROM outbox.dispatcher", "2");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{5}')", "2;3;4;5;6");
    ck_rows(conn, between, "5|t");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 6, '{a}', '{5}')", "1"); /* an older one */
    ck_rows(conn, between, "6|t");
    /* A later one widens them only when it lies beyond. */
    ck_rows(conn,
            "SELECT newest_claim::text::bigint - ready_xid::text::bigint > 4000"
            " FROM outbox.dispatcher, outbox.job WHERE job.id = 6",
            "t");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "CREATE TABLE before AS SELECT xmin AS version FROM outbox.dispatcher");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 7, '{a}', '{5}')", "7");
    ck_rows(conn, "SELECT d.xmin = b.version FROM outbox.dispatcher d, before b", "t");
    ck_rows(conn, between, "7|t");
    pg_exec_ok(conn, "UPDATE outbox.dispatcher SET newest_claim = oldest_claim");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 8, '{a}', '{5}')", "8");
    ck_rows(conn,
            "SELECT j.ready_xid <= d.newest_claim FROM outbox.job j, outbox.dispatcher d"
            " WHERE j.id = 8",
            "t");
    PQfinish(conn);
}
END_TEST

/* Two sessions of one consumer widen them at the same time: each sees what the other has made of
 * them. */
START_TEST(bounds_are_widened_by_all_sessions_of_a_dispatcher)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    PGconn *watcher = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    ck_assert_int_eq(PQsendQuery(other, "SELECT count(*) FROM outbox.claim(1, 2, '{b}', '{1}')"),
                     1);
    ck_assert(wait_until(
        strcmp(rows_of(watcher, "SELECT count(*) FROM pg_locks WHERE NOT granted"), "1") == 0,
        10000));
    pg_exec_ok(conn, "COMMIT");
    PGresult *res;
    while ((res = PQgetResult(other)) != NULL) {
        ck_assert_int_eq(PQresultStatus(res), PGRES_TUPLES_OK);
        PQclear(res);
    }
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "2");
    PQfinish(watcher);
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(looking_in_vain_writes_nothing)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('other'), outbox.enqueue('a', delay => '1h')");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a,b}', '{5,5}')", "0");
    ck_rows(conn, "SELECT moved, next_due IS NULL FROM outbox.due()", "0|f");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{99}', '{1}')", "99|gone");
    ck_rows(conn, "SELECT pg_current_xact_id_if_assigned()", "-");
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
}
END_TEST

static long hot_updates(PGconn *conn, const char *which)
{
    char sql[160];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT n_tup_%supd FROM pg_stat_user_tables WHERE relid = 'outbox.job'::regclass", which);
    return strtol(rows_of(conn, sql), NULL, 10);
}

START_TEST(a_claim_is_a_hot_update)
{
    PGconn *conn = testdb_connect();
    PGconn *watcher = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '{\"order\": 1}') FROM generate_series(1, 2000)");
    for (int claim = 0; claim < 2000; claim += 500) {
        char sql[96];
        (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.claim(1, %d, '{a}', '{500}')",
                       claim + 1);
        ck_rows(conn, sql, "500");
    }
    PQfinish(conn); /* a session's counters are sent at the latest when it ends */
    ck_assert(wait_until(hot_updates(watcher, "") >= 2000, 10000));
    ck_assert_int_eq(hot_updates(watcher, ""), 2000);
    ck_assert_int_eq(hot_updates(watcher, "hot_"), 2000);
    /* The rule behind it. */
    ck_rows(watcher,
            "SELECT count(*) FROM pg_index WHERE indrelid = 'outbox.job'::regclass AND "
            "pg_get_indexdef(indexrelid)"
            " ~ '\\m(owner|claim|attempts|lost)\\M'",
            "0");
    ck_rows(watcher, "SELECT count(*) FROM pg_index WHERE indrelid = 'outbox.job'::regclass", "7");
    PQfinish(watcher);
}
END_TEST

/* Buffers touched by a claim of 20, with so many jobs behind them. */
static long claim_buffers(PGconn *conn, const char *prepare)
{
    pg_exec_ok(conn, prepare);
    pg_exec_ok(conn, "BEGIN");
    const char *text =
        rows_of(conn, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON)"
                      " SELECT id FROM outbox.claim(1, 1, '{a}', '{20}')");
    const char *hit = strstr(text, "\"Shared Hit Blocks\": ");
    const char *read = strstr(text, "\"Shared Read Blocks\": ");
    ck_assert(hit != NULL && read != NULL);
    long buffers = strtol(hit + strlen("\"Shared Hit Blocks\": "), NULL, 10) +
                   strtol(read + strlen("\"Shared Read Blocks\": "), NULL, 10);
    ck_assert_ptr_nonnull(strstr(text, "\"Actual Rows\": 20"));
    pg_exec_ok(conn, "ROLLBACK");
    return buffers;
}

/* Statistics of an empty table, of the full one, of one where everything is owned, and none. */
START_TEST(the_cost_of_a_claim_follows_neither_the_backlog_nor_the_statistics)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "ALTER TABLE outbox.job SET (autovacuum_enabled = off)");
    pg_exec_ok(conn,
               "SELECT * FROM outbox.enqueue_many((SELECT jsonb_agg('{\"task\": \"a\"}'::jsonb)"
               " FROM generate_series(1, 100)))");
    /* A session's first call reads catalogs. */
    (void)claim_buffers(conn, "SELECT 1");
    long small = claim_buffers(conn, "SELECT 1");
    const char *more =
        "INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)"
        " SELECT CASE WHEN n % 2 = 0 THEN 'a' ELSE 'x' || n % 50 END, 'json', '{}', now(),"
        " pg_current_xact_id() FROM generate_series(1, 40000) n";
    ck_assert_int_lt(claim_buffers(conn, more), small + 100);
    ck_assert_int_lt(claim_buffers(conn, "VACUUM ANALYZE outbox.job"), small + 100);
    PGconn *fresh = testdb_connect();
    (void)claim_buffers(fresh, "SELECT 1");
    ck_assert_int_lt(claim_buffers(fresh, "SELECT 1"), small + 100);
    PQfinish(fresh);
    PQfinish(conn);
}
END_TEST

/* ---- adopt ---- */

START_TEST(running_jobs_are_adopted_by_token)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 4)");
    ck_rows(conn, "SELECT id, claim FROM outbox.claim(1, 5, '{a}', '{4}')", "1|5;2|6;3|7;4|8");
    pg_exec_fails(conn, "SELECT * FROM outbox.adopt(2, 1, '{1}', '{5}', 1)", "22023",
                  "no dispatcher 2");
    ck_rows(conn,
            "SELECT answer FROM outbox.register(2, 'one', 'h', 'b', 'l', 1, '{}', '', '{a}', '1m', "
            "previous => 1)",
            "registered");
    /* 3 with another claim, 9 unknown. */
    ck_rows(conn, "SELECT * FROM outbox.adopt(2, 1, '{4,3,9,1}', '{8,1,1,5}', 100)", "4|100;1|101");
    ck_rows(conn, "SELECT id, owner, claim, attempts FROM outbox.job ORDER BY id",
            "1|2|101|1;2|1|6|1;3|1|7|1;4|2|100|1");
    ck_rows(conn,
            "SELECT d.oldest_claim <= j.ready_xid AND j.ready_xid <= d.newest_claim"
            " FROM outbox.job j JOIN outbox.dispatcher d ON d.id = j.owner WHERE d.id = 2",
            "t;t");
    ck_rows(conn, "SELECT * FROM outbox.adopt(2, 1, '{4}', '{8}', 200)", "");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{5}')", "1|lost");
    ck_rows(conn, "SELECT * FROM outbox.settle(2, '{1}', '{101}')", "1|done");
    pg_exec_fails(conn, "SELECT * FROM outbox.adopt(2, 1, '{4,1}', '{8}', 1)", "22023",
                  "differ in length");
    PQfinish(conn);
}
END_TEST

/* ---- due ---- */

START_TEST(due_jobs_become_ready_in_batches)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 3)");
    ck_rows(conn, "SELECT moved, next_due = (SELECT min(run_at) FROM outbox.job) FROM outbox.due()",
            "0|t");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = now() - interval '1 min' * id");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', run_at => '2100-01-01')");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{9}')", "0");
    ck_rows(conn, "SELECT moved, next_due < now() FROM outbox.due(2)", "2|t");
    ck_rows(conn, "SELECT moved, next_due FROM outbox.due(2)", "1|2100-01-01 00:00:00+00");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{9}')", "3");
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    ck_rows(conn, "SELECT * FROM outbox.due()", "0|-");
    PQfinish(conn);
}
END_TEST

START_TEST(a_due_row_that_is_locked_is_left_for_later)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    pg_exec_ok(
        conn,
        "SELECT outbox.enqueue('a', delay => '1 hour'), outbox.enqueue('a', delay => '1 hour')");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = now() - interval '1 min'");
    pg_exec_ok(other, "BEGIN; SELECT 1 FROM outbox.job WHERE id = 1 FOR UPDATE");
    ck_rows(conn, "SELECT moved, next_due < now() FROM outbox.due()", "1|t");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, "SELECT * FROM outbox.due()", "1|-");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_claim");
    TCase *tc = sql_case(suite, "claim");
    tcase_add_test(tc, claims_come_by_task_then_priority_then_age);
    tcase_add_test(tc, a_late_commit_with_a_lower_id_is_claimed_too);
    tcase_add_test(tc, slots_limit_each_task);
    tcase_add_test(tc, a_claim_carries_what_the_handler_needs);
    tcase_add_test(tc, a_large_payload_is_fetched_separately);
    tcase_add_test(tc, a_locked_row_is_passed_over);
    tcase_add_test(tc, rivals_never_share_a_job);
    tcase_add_test(tc, only_a_registered_dispatcher_may_claim);
    tcase_add_test(tc, a_dispatcher_is_not_removed_under_an_open_claim);
    tcase_add_test(tc, the_bounds_of_a_dispatcher_enclose_what_it_owns);
    tcase_add_test(tc, bounds_are_widened_by_all_sessions_of_a_dispatcher);
    tc = sql_case(suite, "cost");
    tcase_add_test(tc, looking_in_vain_writes_nothing);
    tcase_add_test(tc, a_claim_is_a_hot_update);
    tcase_add_test(tc, the_cost_of_a_claim_follows_neither_the_backlog_nor_the_statistics);
    tc = sql_case(suite, "adopt and due");
    tcase_add_test(tc, running_jobs_are_adopted_by_token);
    tcase_add_test(tc, due_jobs_become_ready_in_batches);
    tcase_add_test(tc, a_due_row_that_is_locked_is_left_for_later);
    return suite;
}
