/* Order per key: one at a time, in order, whatever becomes of each; and the locks that make it so,
 * each case of which is run with its rule and without. */
#include "keys_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

/* ---- lines ---- */

START_TEST(jobs_of_a_key_run_one_at_a_time_in_order)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 3)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'other')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    STATES(conn, "1|ready;2|waiting;3|waiting;4|ready;5|ready;6|ready");
    CLAIMED(conn, "1,4,5,6");
    CLAIMED(conn, "");
    DONE(conn, 1);
    CLAIMED(conn, "2");
    DONE(conn, 2);
    DONE(conn, 4);
    CLAIMED(conn, "3");
    pg_exec_ok(conn, "SELECT id FROM outbox.enqueue_bytes('a', '1', 'json', key => 'k')");
    CLAIMED(conn, "");
    DONE(conn, 3);
    CLAIMED(conn, "7");
    DONE(conn, 7);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "8");
    PQfinish(conn);
}
END_TEST

START_TEST(an_array_of_jobs_keeps_its_order)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn,
            "SELECT id, existing FROM outbox.enqueue_many('[{\"task\": \"a\", \"key\": \"k\"},"
            " {\"task\": \"a\"}, {\"task\": \"a\", \"key\": \"l\", \"delay\": 3600},"
            " {\"task\": \"a\", \"key\": \"k\", \"payload\": {\"n\": 1}},"
            " {\"task\": \"a\", \"key\": \"l\", \"priority\": 1, \"headers\": {\"h\": 1}},"
            " {\"task\": \"a\", \"key\": \"k\"}]')",
            "1|f;2|f;3|f;4|f;5|f;6|f");
    STATES(conn, "1|ready;2|ready;3|scheduled;4|waiting;5|ready;6|waiting");
    ck_rows(conn,
            "SELECT priority, headers, convert_from(payload, 'UTF8') FROM outbox.job ORDER BY id",
            "2|-|{};2|-|{};2|-|{};2|-|{\"n\": 1};1|{\"h\": 1}|{};2|-|{}");
    ck_rows(conn,
            "SELECT id FROM outbox.enqueue_many('[{\"task\": \"a\", \"key\": \"k\", \"encoding\":"
            " \"msgpack\"}]', ARRAY['\\x81a2696407'::bytea])",
            "7");
    ck_rows(conn, "SELECT state, encoding, payload_size FROM outbox.jobs WHERE id = 7",
            "waiting|msgpack|5");
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_that_is_tried_again_keeps_its_place)
{
    static const char *const outcomes[] = {RETRY, RETRY_LATER, RELEASE,
                                           "{\"outcome\": \"release\", \"delay_ms\": 60000}"};
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    BECAME(conn, 1, outcomes[_i]);
    STATES(conn, _i % 2 == 0 ? "1|ready;2|waiting" : "1|scheduled;2|waiting");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    if (_i % 2 == 1) {
        CLAIMED(conn, "");
        ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    }
    CLAIMED(conn, "1");
    DONE(conn, 1);
    CLAIMED(conn, "2");
    PQfinish(conn);
}
END_TEST

START_TEST(a_lost_dispatchers_job_keeps_its_place)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    STATES(conn, "1|ready;2|waiting");
    PQfinish(conn);
}
END_TEST

START_TEST(behind_a_dead_job_the_next_goes_on)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 3)");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    STATES(conn, "1|dead;2|ready;3|waiting");
    /* Retried, it joins at the end; its id stays. */
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn, "SELECT outbox.retry(1)", "waiting");
    STATES(conn, "1|waiting;2|ready;3|waiting");
    CLAIMED(conn, "2");
    DONE(conn, 2);
    CLAIMED(conn, "3");
    DONE(conn, 3);
    CLAIMED(conn, "1");
    PQfinish(conn);
}
END_TEST

START_TEST(where_asked_for_a_dead_job_blocks_its_key)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    CLAIMED(conn, "1,3");
    BECAME(conn, 1, DEAD_BLOCKS);
    BECAME(conn, 3, DEAD_BLOCKS); /* no key: nothing to block */
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, "SELECT outbox.mend()", "0");
    STATES(conn, "1|dead;2|waiting;3|dead;4|waiting");
    CLAIMED(conn, "");
    if (_i == 0) { /* retried, it is where it was */
        ck_rows(conn, "SELECT outbox.retry(1)", "retried");
        CLAIMED(conn, "1");
        DONE(conn, 1);
    } else {
        ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    }
    CLAIMED(conn, "2");
    DONE(conn, 2);
    CLAIMED(conn, "4");
    PQfinish(conn);
}
END_TEST

START_TEST(cancelling_the_first_lets_the_next_go_on)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 4)");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled"); /* one in the middle: nobody moves */
    STATES(conn, "1|ready;3|waiting;4|waiting");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    STATES(conn, "3|ready;4|waiting");
    CLAIMED(conn, "3");
    BECAME(conn, 3, RETRY_LATER);
    ck_rows(conn, "SELECT outbox.retry(3)", "retried");
    CLAIMED(conn, "3");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', after => ARRAY[3])");
    ck_rows(conn, "SELECT outbox.cancel(3)",
            "cancelling"); /* it runs: the next waits for its end */
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 4", "waiting");
    if (_i == 0)
        ck_assert_str_eq(settle(conn, 3, RETRY_LATER), "cancelled");
    else if (_i == 1)
        ck_assert_str_eq(settle(conn, 3, DEAD), "cancelled");
    else
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    ck_rows(conn, "SELECT reason FROM outbox.dead", "dependency 3 was cancelled");
    pg_exec_ok(conn, "DELETE FROM outbox.dead");
    STATES(conn, "4|ready");
    PQfinish(conn);
}
END_TEST

#define FALL_DUE(conn, ids)                                                                        \
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = clock_timestamp() - interval '1 s' +"         \
                     " id * interval '1 ms' WHERE id IN (" ids ")")

START_TEST(a_job_for_later_blocks_nobody_until_it_is_due)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')"
                     " FROM generate_series(1, 3)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    STATES(conn, "1|scheduled;2|scheduled;3|scheduled;4|ready;5|waiting");
    CLAIMED(conn, "4");
    FALL_DUE(conn, "1, 2");
    ck_rows(conn, "SELECT moved, next_due > now() FROM outbox.due()", "2|t");
    STATES(conn, "1|waiting;2|waiting;3|scheduled;4|running;5|waiting");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    DONE(conn, 4); /* in the order in which they came to the line */
    CLAIMED(conn, "5");
    DONE(conn, 5);
    CLAIMED(conn, "1");
    DONE(conn, 1);
    CLAIMED(conn, "2");
    DONE(conn, 2);
    CLAIMED(conn, "8"); /* places come from the sequence of the ids */
    DONE(conn, 8);
    FALL_DUE(conn, "3");
    ck_rows(conn, "SELECT moved, next_due FROM outbox.due()", "1|-");
    CLAIMED(conn, "3");
    PQfinish(conn);
}
END_TEST

START_TEST(several_that_fall_due_together_begin_a_line)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')"
                     " FROM generate_series(1, 3)");
    ck_rows(conn, "SELECT outbox.retry(2)", "retried");
    STATES(conn, "1|scheduled;2|ready;3|scheduled");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    FALL_DUE(conn, "1, 3");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "2");
    STATES(conn, "1|ready;3|waiting");
    PQfinish(conn);
}
END_TEST

START_TEST(the_slow_check_repairs_what_was_deleted_by_hand)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => k) FROM generate_series(1, 2), "
                     "unnest('{k,l,m}'::text[]) AS k");
    CLAIMED(conn, "1,2,3");
    ck_rows(conn, "SELECT outbox.mend()", "0");
    pg_exec_ok(conn, "DELETE FROM outbox.job WHERE id IN (1, 3)");
    STATES(conn, "2|running;4|waiting;5|waiting;6|waiting");
    ck_rows(conn, "SELECT outbox.mend(1)", "1"); /* a line at a time */
    ck_rows(conn, "SELECT outbox.mend(1)", "0");
    ck_rows(conn, "SELECT outbox.mend(1)", "1");
    STATES(conn, "2|running;4|ready;5|waiting;6|ready");
    ck_rows(conn, "SELECT outbox.mend(1)", "0"); /* from the beginning again */
    ck_rows(conn, "SELECT task, key FROM outbox.mended", "|");
    pg_exec_ok(conn, "DELETE FROM outbox.job WHERE id = 2");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'l')");
    ck_rows(conn, "SELECT outbox.mend()", "0"); /* waits for nobody */
    commit(producer);
    ck_rows(conn, "SELECT outbox.mend()", "1");
    CLAIMED(conn, "4,5,6");
    PQfinish(conn);
}
END_TEST

START_TEST(a_rolled_back_job_leaves_no_trace_in_the_line)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = begin();
    pg_exec_ok(producer, "SAVEPOINT s");
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(producer, "ROLLBACK TO s");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')"); /* its lock went with it */
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    roll_back(producer);
    STATES(conn, "2|ready");
    PQfinish(conn);
}
END_TEST

/* ---- locks ---- */

#define LOCK_AT_ENQUEUE "PERFORM outbox.lock_keys(ARRAY[outbox.key_bucket(task, key)]);"
#define LOCK_AT_END     "PERFORM outbox.lock_keys(buckets);"

/* The first ends while the second is being enqueued: whichever comes first waits for the other. */
START_TEST(the_last_of_a_line_sees_the_next_one_come)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    sql_rule(IS_OFF, "put", LOCK_AT_ENQUEUE, "");
    sql_rule(IS_OFF, "settle_mixed", LOCK_AT_END, "");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    begin_sql(conn, settle_sql(1, NULL, false));
    ck_assert_int_eq(ended_or_blocked(conn), IS_OFF);
    commit(producer);
    end_sql(conn);
    STATES(conn, IS_OFF ? "2|waiting" : "2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(who_comes_sees_that_the_last_has_gone)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    sql_rule(IS_OFF, "put", LOCK_AT_ENQUEUE, "");
    pg_exec_ok(conn, "BEGIN");
    DONE(conn, 1);
    begin_sql(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_assert_int_eq(ended_or_blocked(producer), IS_OFF);
    pg_exec_ok(conn, "COMMIT");
    end_sql(producer);
    STATES(conn, IS_OFF ? "2|waiting" : "2|ready");
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* The lock and the look in one statement: it looks at what was there before it waited. */
START_TEST(the_lock_is_a_statement_of_its_own)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    sql_rule(IS_OFF, "put", LOCK_AT_ENQUEUE, "");
    sql_rule(IS_OFF, "put", "waits := outbox.key_is_taken(task, key);",
             "waits := EXISTS (SELECT FROM (SELECT outbox.lock_keys(ARRAY[outbox.key_bucket(task, "
             "key)]) OFFSET 0) AS l, outbox.job j WHERE j.task = put.task AND j.key = put.key);");
    pg_exec_ok(conn, "BEGIN");
    DONE(conn, 1);
    begin_sql(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_assert(!ended_or_blocked(producer));
    pg_exec_ok(conn, "COMMIT");
    end_sql(producer);
    STATES(conn, IS_OFF ? "2|waiting" : "2|ready");
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* An older snapshot shows a first that has long ended. */
START_TEST(other_isolation_levels_are_refused)
{
    static const char *const levels[] = {"REPEATABLE READ", "SERIALIZABLE"};
    char sql[96];
    PGconn *conn = with_dispatcher();
    PGconn *producer = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    sql_rule(IS_OFF, "check_isolation", "NOT IN ('read committed', 'read uncommitted')",
             "= 'none'");
    (void)snprintf(sql, sizeof sql, "BEGIN ISOLATION LEVEL %s", levels[_i / 2]);
    pg_exec_ok(producer, sql);
    pg_exec_ok(producer, "SELECT count(*) FROM pg_class");
    DONE(conn, 1);
    if (IS_OFF) {
        pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
        commit(producer);
        STATES(conn, "2|waiting");
        CLAIMED(conn, ""); /* for ever */
        PQfinish(conn);
        return;
    }
    pg_exec_ok(producer, "SELECT outbox.enqueue('a')"); /* without a key it is allowed */
    static const char *const refused[] = {
        "SELECT outbox.enqueue('a', key => 'k')",
        "SELECT outbox.enqueue_bytes('a', '1', 'json', key => 'k', delay => '1 h')",
        "SELECT outbox.enqueue_many('[{\"task\": \"a\", \"key\": \"k\"}]')"};
    pg_exec_ok(producer, "SAVEPOINT s");
    for (int i = 0; i < 3; i++) {
        pg_exec_fails(producer, refused[i], "0A000", "isolation level");
        pg_exec_ok(producer, "ROLLBACK TO s");
    }
    commit(producer);
    STATES(conn, "2|ready");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL READ UNCOMMITTED");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')"); /* which is READ COMMITTED */
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
}
END_TEST

/* Who ends jobs of a key must see its line too. */
START_TEST(results_are_refused_at_other_isolation_levels)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    CLAIMED(conn, "1,2");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    DONE(conn, 2);
    pg_exec_fails(conn, settle_sql(1, NULL, false), "0A000", "isolation level repeatable read");
    pg_exec_ok(conn, "ROLLBACK");
    BECAME(conn, 1, RETRY);
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_fails(conn, "SELECT outbox.cancel(1)", "0A000", "isolation level repeatable read");
    pg_exec_ok(conn, "ROLLBACK");
    PQfinish(conn);
}
END_TEST

START_TEST(a_dispatcher_need_not_wait_for_a_producer)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'l')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    CLAIMED(conn, "1,2,3");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn,
            "SELECT s.* FROM (SELECT array_agg(id ORDER BY id) AS ids, array_agg(claim ORDER BY id)"
            " AS claims FROM outbox.job WHERE owner = 1) AS j,"
            " outbox.settle(1, ids, claims, NULL, true, true) AS s",
            "1|busy");
    ck_rows(conn, settle_sql(1, DEAD, true), "1|busy");
    commit(producer);
    ck_rows(conn, settle_sql(1, NULL, true), "1|done");
    STATES(conn, "4|ready");
    PQfinish(conn);
}
END_TEST

/* One that runs and is to be cancelled: neither its end nor a take-over waits for the producer, nor
 * for who holds, or puts, one that depends on it. */
START_TEST(nor_does_the_end_of_a_cancelled_one)
{
    PGconn *conn = with_dispatcher();
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => '{1}')");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    pg_exec_ok(conn, "SET lock_timeout = '5s'");
    pg_exec_ok(other, "BEGIN");
    pg_exec_ok(other, _i == 0   ? "SELECT outbox.enqueue('a', key => 'k')"
                      : _i == 1 ? "SELECT FROM outbox.job WHERE id = 2 FOR UPDATE"
                                : "SELECT outbox.enqueue('b', after => '{1}')");
    ck_rows(conn,
            "SELECT s.answer FROM outbox.job j CROSS JOIN LATERAL outbox.settle(1, ARRAY[j.id], "
            "ARRAY[j.claim], '[{\"outcome\": \"release\"}]', skip_locked => true) s WHERE j.id = 1",
            "busy");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "0");
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 1", "running");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs WHERE id = 1", "0");
    ck_rows(conn, "SELECT DISTINCT reason FROM outbox.dead", "dependency 1 was cancelled");
    ck_rows(conn, "SELECT count(*) FROM outbox.dependency", "0");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(nor_for_who_holds_the_next_job)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    PGconn *holder = begin();
    pg_exec_ok(holder, "SELECT FROM outbox.job WHERE id = 2 FOR UPDATE");
    ck_rows(conn, settle_sql(1, NULL, true), "1|busy");
    ck_rows(conn, settle_sql(1, RETRY, true), "1|done"); /* which keeps its place */
    CLAIMED(conn, "1");
    roll_back(holder);
    ck_rows(conn, settle_sql(1, NULL, true), "1|done");
    STATES(conn, "2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(a_due_job_waits_for_no_producer)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', delay => '1 h')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')");
    FALL_DUE(conn, "1, 2");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, "SELECT moved, next_due < now() FROM outbox.due()", "1|t");
    STATES(conn, "1|scheduled;2|ready");
    commit(producer);
    ck_rows(conn, "SELECT moved, next_due FROM outbox.due()", "1|-");
    STATES(conn, "1|waiting;2|ready;3|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(the_caller_is_told_that_more_is_ready)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    ck_rows(conn,
            "SELECT s.* FROM outbox.job j, outbox.settle(1, ARRAY[j.id], ARRAY[j.claim], NULL, "
            "false, true) AS s WHERE j.id = 1",
            "0|more");
    CLAIMED(conn, "2");
    ck_rows(conn,
            "SELECT s.* FROM outbox.job j, outbox.settle(1, ARRAY[j.id], ARRAY[j.claim], NULL, "
            "false, true) AS s WHERE j.id = 2",
            "");
    PQfinish(conn);
}
END_TEST

/* Who sleeps is woken by a hand-over. */
START_TEST(a_hand_over_wakes)
{
    PGconn *conn = with_dispatcher();
    PGconn *sleeper = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    pg_exec_ok(sleeper, "LISTEN outbox; SELECT outbox.watch('{a}')");
    DONE(conn, 1);
    pg_exec_ok(sleeper, "SELECT 1");
    PGnotify *notify = PQnotifies(sleeper);
    ck_assert_ptr_nonnull(notify);
    PQfreemem(notify);
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

/* ---- cost ---- */

static long buffers_of(PGconn *conn, const char *sql)
{
    char explain[1200];
    (void)snprintf(explain, sizeof explain,
                   "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) %s", sql);
    const char *text = rows_of(conn, explain);
    const char *hit = strstr(text, "\"Shared Hit Blocks\": ");
    const char *read = strstr(text, "\"Shared Read Blocks\": ");
    ck_assert(hit != NULL && read != NULL);
    return strtol(hit + 21, NULL, 10) + strtol(read + 22, NULL, 10);
}

/* Of claiming from a lane beside it, of ending the first of the line, and of joining it. */
static void line_costs(PGconn *conn, const char *lines, long *ret_claim, long *ret_end,
                       long *ret_join)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('a', key => 'k') FROM "
                   "generate_series(1, %s)",
                   lines);
    pg_exec_ok(conn, sql);
    pg_exec_ok(conn, "SELECT outbox.enqueue('b') FROM generate_series(1, 30)");
    for (int warm = 0; warm < 2; warm++) {
        *ret_claim =
            buffers_of(conn, warm == 0 ? "SELECT id FROM outbox.claim(1, 900001, '{b}', '{10}')"
                                       : "SELECT id FROM outbox.claim(1, 910001, '{b}', '{10}')");
        ck_rows(conn,
                warm == 0 ? "SELECT count(*) FROM outbox.claim(1, 900011, '{a}', '{9}')"
                          : "SELECT count(*) FROM outbox.claim(1, 910011, '{a}', '{9}')",
                "1");
        char end[1024];
        (void)snprintf(
            end, sizeof end, "%s",
            settle_sql(testdb_long("SELECT id FROM outbox.job WHERE task = 'a' AND owner "
                                   "= 1"),
                       NULL, false));
        *ret_end = buffers_of(conn, end);
        *ret_join = buffers_of(conn, "SELECT outbox.enqueue('a', key => 'k')");
    }
}

START_TEST(a_long_line_costs_nobody_anything)
{
    long few[3];
    long many[3];
    PGconn *conn = with_dispatcher();
    line_costs(conn, "20", &few[0], &few[1], &few[2]);
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    pg_exec_ok(conn, "VACUUM ANALYZE outbox.job"); /* the statistics know of an empty table */
    line_costs(conn, "20000", &many[0], &many[1], &many[2]);
    for (int i = 0; i < 3; i++)
        ck_assert_msg(many[i] <= few[i] * 2 + 20, "%d: %ld buffers with few, %ld with many", i,
                      few[i], many[i]);
    PQfinish(conn);
}
END_TEST

/* Under an old snapshot, what has ended stays in the indexes: the end does not step over it. */
START_TEST(the_end_does_not_follow_what_has_ended)
{
    PGconn *conn = with_dispatcher();
    PGconn *old = testdb_connect();
    pg_exec_ok(old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    pg_exec_ok(old, "SELECT count(*) FROM outbox.job");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 1002)");
    long first = 0;
    for (int n = 1; n <= 1000; n++) {
        char sql[1024];
        ck_assert_str_ne(claim_all(conn), "");
        (void)snprintf(sql, sizeof sql, "%s", settle_sql(n, NULL, false));
        if (n == 5 || n == 1000) {
            long cost = buffers_of(conn, sql);
            if (n == 5)
                first = cost;
            else
                ck_assert_msg(cost <= first * 2 + 20, "%ld buffers, then %ld", first, cost);
        } else {
            pg_exec_ok(conn, sql);
        }
    }
    PQfinish(old);
    PQfinish(conn);
}
END_TEST

/* ---- stress ---- */

enum { WORKERS = 4, ROUNDS = 60, KEYS = 5 };

/* Claims, writes down, ends in one of the ways, enqueues; all in its own order. */
static void work(unsigned n)
{
    char sql[1024];
    PGconn *conn = testdb_connect();
    uint32_t dice = 7919 * (n + 1);
    (void)snprintf(
        sql, sizeof sql,
        "SELECT answer FROM outbox.register(%u, 'w%u', 'h', 'b', 'l', 1, '{}', '1', '{a}',"
        " '1 minute')",
        100 + n, n);
    pg_exec_ok(conn, sql);
    for (int round = 0; round < ROUNDS; round++) {
        dice = dice * 1664525 + 1013904223;
        (void)snprintf(sql, sizeof sql,
                       "SELECT outbox.enqueue('a', key => 'k%u', delay => CASE WHEN %u = 0 THEN"
                       " interval '1 ms' END)",
                       (dice >> 9) % KEYS, (dice >> 20) % 5);
        pg_exec_ok(conn, sql);
        (void)snprintf(
            sql, sizeof sql,
            "WITH c AS (SELECT * FROM outbox.claim(%u, %d, '{a}', '{3}')) INSERT INTO "
            "began (id, claim, key, place, worker) SELECT c.id, c.claim, c.key, j.place, "
            "%u FROM c JOIN outbox.job j USING (id)",
            100 + n, 1 + 3 * round, n);
        pg_exec_ok(conn, "SELECT outbox.due()");
        pg_exec_ok(conn, sql);
        (void)snprintf(
            sql, sizeof sql,
            "WITH mine AS (SELECT array_agg(id) AS ids, array_agg(claim) AS claims, "
            "count(*) AS n FROM (SELECT * FROM began WHERE worker = %u AND NOT ended LIMIT "
            "%u) AS b), s AS (SELECT s.id FROM mine, outbox.settle(%u, ids, claims, (SELECT"
            " jsonb_agg(CASE (%u + i) %% 4 WHEN 0 THEN '" RETRY "' WHEN 1 THEN '" DEAD
            "' END::jsonb) FROM generate_series(1, mine.n) AS i)) AS s WHERE mine.n > 0)"
            " UPDATE began SET ended = true FROM s WHERE began.id = s.id AND worker = %u",
            n, 1 + (dice >> 5) % 3, 100 + n, dice >> 12, n);
        pg_exec_ok(conn, sql);
    }
    PQfinish(conn);
}

/* No two of a key at once is told by the claims themselves: one that is begun while another of its
 * key has an owner violates `began_alone`. Order, afterwards: by place. */
START_TEST(many_at_once_keep_the_order_and_lose_nobody)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn,
               "CREATE TABLE began (seq bigserial PRIMARY KEY, id bigint, claim bigint, key text,"
               " place bigint, worker integer, ended boolean DEFAULT false);"
               "CREATE FUNCTION alone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
               " IF (SELECT count(*) FROM outbox.job j WHERE j.key = new.key AND"
               " (j.owner IS NOT NULL OR j.ready_xid IS NOT NULL)) <> 1 THEN"
               " RAISE 'two of key % at once', new.key; END IF; RETURN new; END $$;"
               "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
               " PERFORM pg_sleep(0.002); RETURN NULL; END $$;"
               "CREATE TRIGGER pause AFTER INSERT ON outbox.job FOR EACH ROW WHEN (new.waiting)"
               " EXECUTE FUNCTION pause();" /* between reading the line and committing */
               "CREATE TRIGGER alone BEFORE INSERT ON began FOR EACH ROW EXECUTE FUNCTION alone()");
    if (IS_OFF)
        pg_exec_ok(conn,
                   "CREATE OR REPLACE FUNCTION outbox.lock_keys(buckets integer[]) RETURNS void"
                   " LANGUAGE plpgsql AS 'BEGIN END'");
    PQfinish(conn);
    pid_t workers[WORKERS];
    for (unsigned n = 0; n < WORKERS; n++) {
        workers[n] = fork();
        if (workers[n] == 0) {
            if (freopen("/dev/null", "w", stdout) == NULL ||
                (IS_OFF && freopen("/dev/null", "w", stderr) == NULL))
                _exit(1);
            work(n);
            _exit(0);
        }
    }
    bool all_well = true;
    for (unsigned n = 0; n < WORKERS; n++) {
        int status = 0;
        ck_assert_int_eq(waitpid(workers[n], &status, 0), workers[n]);
        all_well = all_well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    conn = testdb_connect();
    for (unsigned n = 0; n < WORKERS; n++) { /* what is left in hand is given back */
        char sql[96];
        (void)snprintf(sql, sizeof sql, "SELECT outbox.take_over(%u, NULL)", 100 + n);
        pg_exec_ok(conn, sql);
    }
    pg_exec_ok(conn, "SELECT outbox.due()");
    for (int i = 0; i < 10 * WORKERS * ROUNDS && claim_all(conn)[0] != '\0'; i++)
        pg_exec_ok(conn,
                   "SELECT s.* FROM (SELECT array_agg(id) AS ids, array_agg(claim) AS claims "
                   "FROM outbox.job WHERE owner = 1) AS j, outbox.settle(1, ids, claims) AS s");
    long left = testdb_long("SELECT count(*) FROM outbox.job");
    long unordered = testdb_long("SELECT count(*) FROM (SELECT place < max(place) OVER (PARTITION "
                                 "BY key ORDER BY seq) AS bad"
                                 " FROM began) AS b WHERE bad");
    if (IS_OFF) {
        ck_assert(!all_well || left > 0 || unordered > 0);
    } else {
        ck_assert(all_well);
        ck_assert_int_eq(left, 0);
        ck_assert_int_eq(unordered, 0);
        ck_assert_int_gt(testdb_long("SELECT count(*) FROM began"), WORKERS * ROUNDS / 2);
    }
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_keys");
    TCase *lines = sql_case(suite, "lines");
    tcase_add_test(lines, jobs_of_a_key_run_one_at_a_time_in_order);
    tcase_add_test(lines, an_array_of_jobs_keeps_its_order);
    tcase_add_loop_test(lines, a_job_that_is_tried_again_keeps_its_place, 0, 4);
    tcase_add_test(lines, a_lost_dispatchers_job_keeps_its_place);
    tcase_add_test(lines, behind_a_dead_job_the_next_goes_on);
    tcase_add_loop_test(lines, where_asked_for_a_dead_job_blocks_its_key, 0, 2);
    tcase_add_loop_test(lines, cancelling_the_first_lets_the_next_go_on, 0, 3);
    tcase_add_test(lines, a_job_for_later_blocks_nobody_until_it_is_due);
    tcase_add_test(lines, several_that_fall_due_together_begin_a_line);
    tcase_add_test(lines, the_slow_check_repairs_what_was_deleted_by_hand);
    tcase_add_test(lines, a_rolled_back_job_leaves_no_trace_in_the_line);
    TCase *locks = sql_case(suite, "locks");
    tcase_add_loop_test(locks, the_last_of_a_line_sees_the_next_one_come, 0, 2);
    tcase_add_loop_test(locks, who_comes_sees_that_the_last_has_gone, 0, 2);
    tcase_add_loop_test(locks, the_lock_is_a_statement_of_its_own, 0, 2);
    tcase_add_loop_test(locks, other_isolation_levels_are_refused, 0, 4);
    tcase_add_test(locks, results_are_refused_at_other_isolation_levels);
    tcase_add_test(locks, a_dispatcher_need_not_wait_for_a_producer);
    tcase_add_loop_test(locks, nor_does_the_end_of_a_cancelled_one, 0, 3);
    tcase_add_test(locks, nor_for_who_holds_the_next_job);
    tcase_add_test(locks, a_due_job_waits_for_no_producer);
    tcase_add_test(locks, the_caller_is_told_that_more_is_ready);
    tcase_add_test(locks, a_hand_over_wakes);
    TCase *cost = sql_case(suite, "cost");
    tcase_set_timeout(cost, 60);
    tcase_add_test(cost, a_long_line_costs_nobody_anything);
    tcase_add_test(cost, the_end_does_not_follow_what_has_ended);
    TCase *stress = sql_case(suite, "stress");
    tcase_set_timeout(stress, 60);
    tcase_add_loop_test(stress, many_at_once_keep_the_order_and_lose_nobody, 0, 2);
    return suite;
}
