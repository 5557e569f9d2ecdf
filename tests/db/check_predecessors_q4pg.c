/* What py-q4pg's tests ask of a queue from which a job is taken in the consumer's transaction. */
#include "predecessors_fixture.h"

enum { CONSUMERS = 30, BREAK_EVERY = 97 };

/* test enqueue, dequeue, dequeue_line, show_list */
START_TEST(enqueue_dequeue_and_show_list)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT outbox.enqueue('a', to_jsonb(n)) FROM generate_series(10, 14) n",
            "1;2;3;4;5");
    ck_rows(conn, "SELECT id, task, state FROM outbox.jobs ORDER BY id",
            "1|a|ready;2|a|ready;3|a|ready;4|a|ready;5|a|ready");
    ck_rows(conn, "SELECT id, convert_from(payload, 'UTF8') FROM outbox.take('a')", "1|10");
    ck_rows(conn, "SELECT id FROM outbox.take('another')", "");
    ck_rows(conn,
            "SELECT id, priority, attempts, max_attempts, encoding, payload, headers, key,"
            " created_at <= clock_timestamp() FROM outbox.take('a')",
            "2|2|0|-|json|\\x3131|-|-|t");
    STATES(conn, "3|ready;4|ready;5|ready");
    TAKEN(conn, "9", "3,4,5"); /* dequeue_listen: what is there, in order */
    TAKEN(conn, "9", "-");
    PQfinish(conn);
}
END_TEST

/* test dequeue_transaction, dequeue_transaction_none */
START_TEST(dequeue_transaction_keeps_the_job_and_counts_its_failure)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "BEGIN");
    TAKEN(conn, "1", "1");
    pg_exec_fails(conn, "SELECT 1 / 0", "22012", NULL);
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, "SELECT id, state, attempts FROM outbox.jobs ORDER BY id", "1|ready|0;2|ready|0");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'division by zero')", "retried");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = clock_timestamp() WHERE id = 1");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "1");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, "SELECT id FROM outbox.take('nothing')", "");
    pg_exec_fails(conn, "SELECT 1 / 0", "22012", NULL);
    pg_exec_ok(conn, "ROLLBACK"); /* nothing was taken: nothing has failed */
    ck_rows(conn, "SELECT id, state, attempts FROM outbox.jobs ORDER BY id", "1|ready|1;2|ready|0");
    TAKEN(conn, "9", "2,1"); /* it has gone to the end: it does not spin at the head */
    PQfinish(conn);
}
END_TEST

/* test dequeue_item_immediate */
START_TEST(dequeue_item_immediate_is_gone_at_once)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    TAKEN(conn, "1", "1");
    STATES(other, "2|ready");
    PQfinish(conn); /* whatever becomes of its consumer */
    STATES(other, "2|ready");
    PQfinish(other);
}
END_TEST

/* test count_item; and counting, in an open transaction, takes nothing from anybody. */
START_TEST(count_item_hides_nothing_from_others)
{
    PGconn *conn = testdb_connect();
    PGconn *counter = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(counter, "BEGIN");
    ck_rows(counter, "SELECT count FROM outbox.stats", "1");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(counter, "SELECT count FROM outbox.stats", "2");
    ck_rows(counter, "SELECT count(*) FROM outbox.jobs", "2");
    ck_rows(counter, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0");
    TAKEN(conn, "9", "1,2");
    pg_exec_ok(counter, "COMMIT");
    PQfinish(counter);
    PQfinish(conn);
}
END_TEST

/* test cancel: its three outcomes, and what is being taken is cancelled only if it comes back. */
START_TEST(cancel_tells_live_from_consumed_and_waits_for_who_consumes)
{
    PGconn *conn = testdb_connect();
    PGconn *consumer = testdb_connect();
    PGconn *canceller = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    TAKEN(conn, "1", "1");
    ck_rows(conn, "SELECT outbox.cancel(1), outbox.cancel(2), outbox.cancel(3)",
            "not found|cancelled|cancelled");
    for (int is_kept = 0; is_kept <= 1; is_kept++) {
        pg_exec_ok(consumer, "BEGIN");
        TAKEN(consumer, "1", is_kept != 0 ? "5" : "4");
        begin_sql(canceller, is_kept != 0 ? "CREATE TEMP TABLE kept AS SELECT outbox.cancel(5)"
                                          : "CREATE TEMP TABLE gone AS SELECT outbox.cancel(4)");
        await_blocked(canceller);
        pg_exec_ok(consumer, is_kept != 0 ? "ROLLBACK" : "COMMIT");
        end_sql(canceller);
    }
    ck_rows(canceller, "SELECT * FROM gone, kept", "not found|cancelled");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(canceller);
    PQfinish(consumer);
    PQfinish(conn);
}
END_TEST

/* test excepted_times_to_ignore, ..._listen: after its last failure it is in nobody's way, and
 * kept. */
START_TEST(excepted_times_to_ignore_puts_it_aside_and_goes_on)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '\"bad\"', max_attempts => 2, priority => 1)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '\"good\"')");
    for (int i = 0; i < 2; i++) {
        pg_exec_ok(conn, "BEGIN");
        TAKEN(conn, "1", "1");
        pg_exec_ok(conn, "ROLLBACK");
        ck_rows(conn, "SELECT outbox.take_failed(1, 'bad', '0')", i == 0 ? "retried" : "dead");
        ck_rows(conn, "SELECT moved FROM outbox.due()", i == 0 ? "1" : "0");
    }
    TAKEN(conn, "9", "2");
    ck_rows(conn,
            "SELECT id, state, reason, convert_from(outbox.payload(id), 'UTF8') FROM"
            " outbox.jobs",
            "1|dead|bad|\"bad\"");
    PQfinish(conn);
}
END_TEST

static const struct {
    const char *task;
    bool is_refused;
} names[] = {
    {"my-tag", false}, {"1abc", false}, {"select", false},     {"MixedCase", false},
    {"a+b", true},     {"a b", true},   {"a'; DROP --", true}, {"", true},
};

/* test dangerous_data_sanitizing; and every name that is taken can be woken for. */
START_TEST(dangerous_data_is_data_and_dangerous_names_are_refused)
{
    static const char text[] = "'; DROP TABLE outbox.job; --\\\"$1 %s \xe2\x98\x83";
    PGconn *conn = testdb_connect();
    PGconn *sleeper = testdb_connect();
    PGconn *listener = listening("LISTEN outbox");
    char sql[256];
    char *task = PQescapeLiteral(conn, names[_i].task, strlen(names[_i].task));
    char *literal = PQescapeLiteral(conn, text, strlen(text));
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue(%s, to_jsonb(%s::text))", task, literal);
    if (names[_i].is_refused) {
        pg_exec_fails(conn, sql, "22023", "task");
    } else {
        char watch[256];
        (void)snprintf(watch, sizeof watch, "SELECT outbox.watch(ARRAY[%s])", task);
        pg_exec_ok(sleeper, watch);
        pg_exec_ok(conn, sql);
        HEARD(listener, "outbox ");
        (void)snprintf(sql, sizeof sql,
                       "SELECT convert_from(payload, 'UTF8')::jsonb #>> '{}' FROM outbox.take(%s)",
                       task);
        ck_rows(conn, sql, text);
    }
    PQfreemem(literal);
    PQfreemem(task);
    PQfinish(listener);
    PQfinish(sleeper);
    PQfinish(conn);
}
END_TEST

/* test enqueue2 */
START_TEST(numbers_come_back_as_they_were)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '[0, -1, 9223372036854775808, 1.50, -0.1e-7,"
                     " 12345678901234567890.123456789]')");
    ck_rows(conn,
            "SELECT convert_from(payload, 'UTF8')::jsonb = '[0, -1, 9223372036854775808, 1.50,"
            " -0.1e-7, 12345678901234567890.123456789]' FROM outbox.take('a')",
            "t");
    PQfinish(conn);
}
END_TEST

/* test scheduling: not before its time; what falls due together in order; by time before id; and
 * seen, but not counted as ready. */
START_TEST(scheduling_by_time_then_id_and_hidden_until_due)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h') FROM generate_series(1, 10)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '2 h') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '30 min')");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "0");
    TAKEN(conn, "99", "-");
    ck_rows(conn, "SELECT state, count FROM outbox.stats", "scheduled|13");
    for (int i = 0; i < 4; i++) { /* half an hour goes by */
        pg_exec_ok(conn, "UPDATE outbox.job SET run_at = run_at - interval '30 min'"
                         " WHERE ready_xid IS NULL");
        pg_exec_ok(conn, "SELECT FROM outbox.due()");
    }
    ck_rows(conn, "SELECT state, count FROM outbox.stats", "ready|13");
    TAKEN(conn, "99", "13,1,2,3,4,5,6,7,8,9,10,11,12");
    PQfinish(conn);
}
END_TEST

/* One turn of a consumer: BEGIN and a take; when it has an item, the mark in `seen`, and the end.
 */
struct consumer {
    PGconn *conn;
    int turns;
    int in_a_row; /* looks that found nothing */
    bool is_done;
};

static void begin_turn(struct consumer *c)
{
    /* A failing body now and then: its mark and its take are taken back together. */
    c->turns++;
    begin_sql(c->conn, c->turns % BREAK_EVERY == 0
                           ? "BEGIN; INSERT INTO seen SELECT id FROM outbox.take('a', 1);"
                             " SELECT count(*) FROM seen WHERE false; ROLLBACK"
                           : "BEGIN; INSERT INTO seen SELECT id FROM outbox.take('a', 1); COMMIT");
}

static void end_turn(struct consumer *c)
{
    PGresult *res;
    bool is_empty = false;
    while ((res = PQgetResult(c->conn)) != NULL) {
        ck_assert_msg(PQresultStatus(res) == PGRES_COMMAND_OK ||
                          PQresultStatus(res) == PGRES_TUPLES_OK,
                      "%s", PQresultErrorMessage(res));
        is_empty = is_empty || strcmp(PQcmdStatus(res), "INSERT 0 0") == 0;
        PQclear(res);
    }
    c->in_a_row = is_empty ? c->in_a_row + 1 : 0;
    c->is_done = is_empty && c->in_a_row > 1 && testdb_long("SELECT count(*) FROM outbox.job") == 0;
    if (!c->is_done)
        begin_turn(c);
}

/* test_multiprocess_tasks: 10,000 items, 30 consumers at once, each item exactly once. */
START_TEST(multiprocess_tasks_take_each_of_ten_thousand_once)
{
    struct consumer consumers[CONSUMERS] = {0};
    testdb_exec("CREATE TABLE seen (id bigint)");
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 10000)");
    for (int i = 0; i < CONSUMERS; i++) {
        consumers[i].conn = testdb_connect();
        consumers[i].turns = i;
        begin_turn(&consumers[i]);
    }
    for (int done = 0; done < CONSUMERS;) {
        for (int i = 0; i < CONSUMERS; i++) {
            struct consumer *c = &consumers[i];
            if (c->is_done)
                continue;
            ck_assert_int_eq(PQconsumeInput(c->conn), 1);
            if (PQisBusy(c->conn) == 0)
                end_turn(c);
            done += c->is_done;
        }
    }
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM seen",
            "10000|10000|1|10000");
    for (int i = 0; i < CONSUMERS; i++)
        PQfinish(consumers[i].conn);
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("predecessors_q4pg");
    TCase *tc = sql_case(suite, "queue");
    tcase_add_test(tc, enqueue_dequeue_and_show_list);
    tcase_add_test(tc, dequeue_transaction_keeps_the_job_and_counts_its_failure);
    tcase_add_test(tc, dequeue_item_immediate_is_gone_at_once);
    tcase_add_test(tc, count_item_hides_nothing_from_others);
    tcase_add_test(tc, cancel_tells_live_from_consumed_and_waits_for_who_consumes);
    tcase_add_test(tc, excepted_times_to_ignore_puts_it_aside_and_goes_on);
    tcase_add_loop_test(tc, dangerous_data_is_data_and_dangerous_names_are_refused, 0,
                        (int)(sizeof names / sizeof names[0]));
    tcase_add_test(tc, numbers_come_back_as_they_were);
    tcase_add_test(tc, scheduling_by_time_then_id_and_hidden_until_due);
    TCase *many = sql_case(suite, "many");
    tcase_set_timeout(many, TIMEOUT_E2E_S);
    tcase_add_test(many, multiprocess_tasks_take_each_of_ten_thousand_once);
    return suite;
}
