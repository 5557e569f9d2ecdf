/* What pgjobq's tests, and asyncpg-queue's of its tables, ask of a queue: put right where theirs
 * assert what was wrong. */
#include "predecessors_fixture.h"

enum { BULK = 2000 };

/* ---- asyncpg-queue ---- */

/* test_put, test_pop: jobs of one transaction in the order of the calls; several queues at once. */
START_TEST(pop_keeps_the_order_of_a_transaction)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "BEGIN");
    for (int i = 0; i < 30; i++)
        pg_exec_ok(conn, i % 3 == 2 ? "SELECT outbox.enqueue('b')" : "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(conn,
            "SELECT count(*), bool_and(rising) FROM (SELECT task, id > lag(id) OVER (PARTITION BY"
            " task ORDER BY claim) IS NOT FALSE AS rising FROM outbox.claim(1, 1, '{a,b}',"
            " '{99,99}')) AS c",
            "30|t");
    PQfinish(conn);
}
END_TEST

/* test_pop_empty_queue */
START_TEST(pop_empty_queue_is_no_row)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('another')");
    CLAIM(conn, 1, 1, 9, "");
    TAKEN(conn, "9", "-");
    TAKEN(conn, "0", "-");
    PQfinish(conn);
}
END_TEST

/* ---- pgjobq ---- */

/* crud: a name is all that a queue is, and it may be a long one: its waking does not depend on it.
 */
START_TEST(queue_names_may_be_long_and_have_no_channel)
{
    PGconn *conn = testdb_connect();
    PGconn *sleeper = testdb_connect();
    PGconn *listener = listening("LISTEN outbox");
    pg_exec_ok(sleeper, "SELECT outbox.watch(ARRAY[repeat('x', 128)])");
    pg_exec_ok(conn, "SELECT outbox.enqueue(repeat('x', 127) || 'y')");
    HEARD(listener, "");
    pg_exec_ok(conn, "SELECT outbox.enqueue(repeat('x', 128))");
    HEARD(listener, "outbox ");
    pg_exec_fails(conn, "SELECT outbox.enqueue(repeat('x', 129))", "22023", "task");
    PQfinish(listener);
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

/* test_batched_send, test_batched_rcv, ..._can_be_interrupted: what was not begun is there at once,
 * and nothing was counted. */
START_TEST(batched_rcv_can_be_interrupted)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn,
               "SELECT * FROM outbox.enqueue_many((SELECT jsonb_agg(jsonb_build_object('task',"
               " 'a', 'payload', i)) FROM generate_series(1, 9) AS i))");
    CLAIM(conn, 1, 1, 4, "1,2,3,4");
    CLAIM(conn, 1, 5, 5, "5,6,7,8,9");
    DONE(conn, 1);
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{2,3,4}', '{2,3,4}')", "2|done;3|done;4|done");
    ck_rows(conn, "SELECT id, attempts FROM outbox.jobs WHERE state = 'ready' ORDER BY id",
            "2|0;3|0;4|0");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    CLAIM(conn, 2, 1, 9, "2,3,4");
    PQfinish(conn);
}
END_TEST

/* test_queue_statistics */
START_TEST(queue_statistics_follow_each_step)
{
    static const char count[] = "SELECT count(*) FROM outbox.jobs";
    PGconn *conn = with_dispatcher();
    ck_rows(conn, count, "0");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    ck_rows(conn, "SELECT state, count FROM outbox.stats", "ready|2");
    CLAIM(conn, 1, 1, 1, "1");
    ck_rows(conn, "SELECT state, count FROM outbox.stats ORDER BY state", "ready|1;running|1");
    DONE(conn, 1);
    ck_rows(conn, count, "1");
    CLAIM(conn, 1, 2, 1, "2");
    DONE(conn, 2);
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{2}', '{2}')", "2|gone"); /* counted once */
    ck_rows(conn, count, "0");
    PQfinish(conn);
}
END_TEST

/* test_get_completed_jobs_in_flight, test_wait_for_completion_instant_poll: listen, look, wait; one
 * had finished before the look, one does after it. */
START_TEST(completed_jobs_are_seen_by_the_look_or_told)
{
    static const char left[] = "SELECT string_agg(id::text, ',' ORDER BY id) FROM outbox.jobs"
                               " WHERE id IN (1, 2, 3)";
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true) FROM generate_series(1, 3)");
    CLAIM(conn, 1, 1, 9, "1,2,3");
    DONE(conn, 1);
    PGconn *waiter = listening("LISTEN outbox_done");
    DONE(conn, 2);
    ck_rows(waiter, left, "3");
    HEARD(waiter, "outbox_done 2 done");
    DONE(conn, 3);
    HEARD(waiter, "outbox_done 3 done");
    ck_rows(waiter, left, "-");
    PQfinish(waiter);
    PQfinish(conn);
}
END_TEST

/* Theirs told of a completion after a stale acknowledgement, and after a failure. */
START_TEST(completion_is_not_told_of_for_stale_results_nor_failures)
{
    PGconn *conn = with_dispatcher();
    PGconn *waiter = listening("LISTEN outbox_done");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true)");
    CLAIM(conn, 1, 1, 1, "1");
    BECAME(conn, 1, RETRY);
    CLAIM(conn, 1, 2, 1, "1");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|lost");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{2}')", "1|lost");
    CLAIM(conn, 2, 1, 1, "1");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1}', '{2}', '[{\"outcome\": \"dead\","
            " \"reason\": \"x\"}]')",
            "1|lost");
    HEARD(waiter, "");
    ck_rows(conn, "SELECT * FROM outbox.settle(2, '{1}', '{1}')", "1|done");
    HEARD(waiter, "outbox_done 1 done");
    PQfinish(waiter);
    PQfinish(conn);
}
END_TEST

/* Marks the ids that it hears of as cancelled, each once; returns how many those were. */
static int hear_cancelled(PGconn *listener, char *told)
{
    int count = 0;
    pg_exec_ok(listener, "SELECT 1");
    ck_assert_int_eq(PQconsumeInput(listener), 1);
    for (PGnotify *n = PQnotifies(listener); n != NULL; n = PQnotifies(listener)) {
        char *end;
        long id = strtol(n->extra, &end, 10);
        ck_assert_str_eq(end, " cancelled");
        ck_assert(id >= 1 && id <= BULK && told[id] == 0);
        told[id] = 1;
        count++;
        PQfreemem(n);
    }
    return count;
}

/* test_cancellation_bulk: more ids than a notification has room for. */
START_TEST(cancellation_bulk_of_two_thousand_tells_of_each)
{
    char told[BULK + 1] = {0};
    int count = 0;
    PGconn *conn = testdb_connect();
    PGconn *waiter = listening("LISTEN outbox_done");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', notify_done => true) FROM generate_series(1, 2000)");
    ck_rows(conn,
            "SELECT answer, count(*) FROM (SELECT outbox.cancel(id) AS answer FROM outbox.jobs) AS"
            " c GROUP BY answer",
            "cancelled|2000");
    ck_assert(wait_until((count += hear_cancelled(waiter, told)) == BULK, WAIT_MS));
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(waiter);
    PQfinish(conn);
}
END_TEST

/* test_send_with_attributes, test_cancellation_with_filter */
START_TEST(cancellation_with_filter_of_headers)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', headers => jsonb_build_object('n', n, 'odd',"
                     " n % 2 = 1)) FROM generate_series(1, 6) AS n");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT id, headers FROM outbox.claim(1, 1, '{a}', '{1}')",
            "1|{\"n\": 1, \"odd\": true}");
    ck_rows(conn,
            "SELECT id, outbox.cancel(id) FROM outbox.jobs WHERE headers @> '{\"odd\": true}'"
            " AND (headers ->> 'n')::int < 5 ORDER BY id",
            "1|cancelling;3|cancelled");
    STATES(conn, "1|running;2|ready;4|ready;5|ready;6|ready;7|ready");
    PQfinish(conn);
}
END_TEST

/* test_dlq_max_delivery_attempts_expired: a crash is an attempt, too; theirs went on for ever. */
START_TEST(dlq_attempts_count_crashes)
{
    static const struct {
        const char *join;
        const char *claim;
        const char *claimed;
        const char *lose;
    } turns[] = {
        {REGISTER("1", "one"), "1", "1|3|0", "SELECT outbox.take_over(1, NULL)"},
        {REGISTER("2", "two"), "2", "2|3|1", "SELECT outbox.take_over(2, NULL)"},
        {REGISTER("3", "three"), "3", "3|3|2", "SELECT outbox.take_over(3, NULL)"},
    };
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', max_attempts => 3)");
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        char sql[128];
        (void)snprintf(sql, sizeof sql,
                       "SELECT attempt, max_attempts, lost FROM outbox.claim(%s, 1, '{a}', '{1}')",
                       turns[i].claim);
        ck_rows(conn, turns[i].join, "registered");
        ck_rows(conn, sql, turns[i].claimed);
        ck_rows(conn, turns[i].lose, "1");
    }
    ck_rows(conn, "SELECT attempt, outcome, dispatcher FROM outbox.attempts ORDER BY attempt",
            "1|lost|one;2|lost|two;3|lost|three");
    PQfinish(conn);
}
END_TEST

/* A dead letter keeps all that it was, and whoever listens for dead ones hears of it. */
START_TEST(dlq_keeps_every_field_and_wakes_who_listens)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = listening("LISTEN outbox_dead");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '{\"n\": 1}', headers => '{\"h\": \"v\"}', key =>"
                     " 'k', unique_key => 'u', priority => 3, max_attempts => 9, expires_at =>"
                     " '2100-01-01 00:00+00')");
    CLAIM(conn, 1, 1, 1, "1");
    BECAME(conn, 1, DEAD);
    HEARD(listener, "outbox_dead 1 a");
    ck_rows(conn,
            "SELECT task, state, headers, key, priority, max_attempts, attempts, reason, encoding,"
            " expires_at = '2100-01-01 00:00+00', convert_from(outbox.payload(id), 'UTF8') FROM"
            " outbox.jobs",
            "a|dead|{\"h\": \"v\"}|k|3|9|1|exit 65|json|t|{\"n\": 1}");
    ck_rows(conn, "SELECT attempt, outcome, reason FROM outbox.attempts", "1|dead|exit 65");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn, "SELECT id, attempt, headers, key FROM outbox.claim(1, 2, '{a}', '{1}')",
            "1|1|{\"h\": \"v\"}|k");
    ck_rows(conn, "SELECT claimed_unique_key FROM outbox.job", "u");
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

/* test_dependencies, the right way round: the new job waits for the one it names. One that is done
 * already counts as met; theirs was refused. */
START_TEST(dependencies_make_the_new_job_wait_for_the_old_one)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, "SELECT outbox.enqueue('a')", "1");
    ck_rows(conn, "SELECT outbox.enqueue('a', after => ARRAY[1])", "2");
    CLAIM(conn, 1, 1, 9, "1");
    CLAIM(conn, 1, 2, 9, "");
    DONE(conn, 1);
    CLAIM(conn, 1, 2, 9, "2");
    DONE(conn, 2);
    ck_rows(conn, "SELECT outbox.enqueue('a', after => ARRAY[1, 2])", "3");
    CLAIM(conn, 1, 3, 9, "3");
    PQfinish(conn);
}
END_TEST

/* ---- none of the five ---- */

/* A job that is taken back to a savepoint never was, and sends nothing. */
START_TEST(savepoint_that_is_rolled_back_leaves_no_job_and_wakes_nobody)
{
    PGconn *conn = testdb_connect();
    PGconn *sleeper = testdb_connect();
    PGconn *listener = listening("LISTEN outbox; LISTEN outbox_done");
    pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
    pg_exec_ok(conn, "BEGIN; SAVEPOINT s");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true)");
    pg_exec_ok(conn, "ROLLBACK TO s; COMMIT");
    HEARD(listener, "");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true)");
    HEARD(listener, "outbox ");
    pg_exec_ok(conn, "BEGIN; SAVEPOINT s");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    pg_exec_ok(conn, "ROLLBACK TO s; COMMIT");
    HEARD(listener, "");
    STATES(conn, "2|ready");
    PQfinish(listener);
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

/* Every time has its zone, and no session's zone means anything. */
START_TEST(times_have_zones_whatever_the_sessions_is)
{
    static const char *const zones[] = {"UTC", "Asia/Tokyo", "America/St_Johns", "Europe/Berlin"};
    PGconn *conn = testdb_connect();
    ck_rows(
        conn,
        "SELECT format_type(a.atttypid, NULL), count(*) > 20 FROM pg_attribute AS a JOIN pg_class"
        " AS c ON c.oid = a.attrelid JOIN pg_type AS t ON t.oid = a.atttypid WHERE"
        " c.relnamespace = 'outbox'::regnamespace AND a.attnum > 0 AND c.relkind IN ('r', 'v')"
        " AND t.typcategory = 'D' GROUP BY 1",
        "timestamp with time zone|t");
    for (size_t i = 0; i < sizeof zones / sizeof zones[0]; i++) {
        char sql[128];
        (void)snprintf(sql, sizeof sql, "SET timezone = '%s'", zones[i]);
        pg_exec_ok(conn, sql);
        pg_exec_ok(conn, "SELECT outbox.enqueue('a', run_at => '2100-01-01T00:00:00Z')");
        pg_exec_ok(conn, "SELECT * FROM outbox.enqueue_many('[{\"task\": \"a\", \"run_at\":"
                         " \"2100-01-01T00:00:00Z\"}]')");
        pg_exec_ok(conn, "SELECT outbox.enqueue('b', delay => '1 day')");
    }
    ck_rows(conn,
            "SELECT count(*), count(DISTINCT run_at), min(run_at) = '2100-01-01 00:00+00' FROM"
            " outbox.jobs WHERE task = 'a'",
            "8|1|t");
    ck_rows(conn,
            "SELECT count(*) FROM outbox.jobs WHERE task = 'b' AND run_at - created_at BETWEEN"
            " interval '23 h 59 min 59 s' AND interval '24 h 1 s'",
            "4");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("predecessors_pgjobq");
    TCase *tables = sql_case(suite, "asyncpg-queue");
    tcase_add_test(tables, pop_keeps_the_order_of_a_transaction);
    tcase_add_test(tables, pop_empty_queue_is_no_row);
    TCase *tc = sql_case(suite, "pgjobq");
    tcase_add_test(tc, queue_names_may_be_long_and_have_no_channel);
    tcase_add_test(tc, batched_rcv_can_be_interrupted);
    tcase_add_test(tc, queue_statistics_follow_each_step);
    tcase_add_test(tc, completed_jobs_are_seen_by_the_look_or_told);
    tcase_add_test(tc, completion_is_not_told_of_for_stale_results_nor_failures);
    tcase_add_test(tc, cancellation_bulk_of_two_thousand_tells_of_each);
    tcase_add_test(tc, cancellation_with_filter_of_headers);
    tcase_add_test(tc, dlq_attempts_count_crashes);
    tcase_add_test(tc, dlq_keeps_every_field_and_wakes_who_listens);
    tcase_add_test(tc, dependencies_make_the_new_job_wait_for_the_old_one);
    TCase *none = sql_case(suite, "none of the five");
    tcase_add_test(none, savepoint_that_is_rolled_back_leaves_no_job_and_wakes_nobody);
    tcase_add_test(none, times_have_zones_whatever_the_sessions_is);
    return suite;
}
