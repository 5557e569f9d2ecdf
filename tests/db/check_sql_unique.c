/* Unique jobs: one that waits is not put twice, whoever puts it, and however those who put it,
 * claim it and give it back meet. */
#include "keys_fixture.h"

#define PUT(conn, unique_key, expected)                                                            \
    ck_rows(conn,                                                                                  \
            "SELECT * FROM outbox.enqueue_bytes('a', '1', 'json', unique_key => '" unique_key      \
            "')",                                                                                  \
            expected)

START_TEST(a_waiting_job_is_not_put_twice)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    PUT(conn, "u", "1|t");
    ck_rows(conn, "SELECT outbox.enqueue('a', '{\"n\": 2}', unique_key => 'u', delay => '1 h')",
            "1");
    ck_rows(conn, "SELECT outbox.payload(1)", "\\x31");
    PUT(conn, "other", "4|f");
    ck_rows(conn, "SELECT outbox.enqueue('b', unique_key => 'u')", "5"); /* of another task */
    STATES(conn, "1|ready;4|ready;5|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(scheduled_and_in_line_it_waits_too)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u', delay => '1 h')", "1");
    PUT(conn, "u", "1|t");
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k')", "3");
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k', unique_key => 'v')", "4");
    PUT(conn, "v", "4|t");
    STATES(conn, "1|scheduled;3|ready;4|waiting");
    PQfinish(conn);
}
END_TEST

START_TEST(while_it_runs_it_can_be_put_again)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    CLAIMED(conn, "1");
    PUT(conn, "u", "2|f");
    PUT(conn, "u", "2|t");
    CLAIMED(conn, "2"); /* side by side, if there is no key */
    PUT(conn, "u", "4|f");
    DONE(conn, 1);
    DONE(conn, 2);
    STATES(conn, "4|ready");
    ck_rows(conn, "SELECT outbox.cancel(4)", "cancelled");
    PUT(conn, "u", "5|f");
    PQfinish(conn);
}
END_TEST

/* By a dispatcher's look as by a consumer's claim. */
START_TEST(a_look_sets_the_key_aside_too)
{
    struct desk *d = desk_open("tasks:\n  a: {discard: true}\n");
    desk_look(d);
    int64_t id = strtoll(testdb_value("SELECT outbox.enqueue('a', unique_key => 'u')"), NULL, 10);
    desk_look(d);
    ck_assert(desk_has(d, id));
    ck_assert_int_gt(testdb_long("SELECT outbox.enqueue('a', unique_key => 'u')"), id);
    desk_close(d);
}
END_TEST

START_TEST(given_back_it_keeps_others_out_again)
{
    static const char *const outcomes[] = {RETRY, RETRY_LATER, RELEASE};
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT unique_key, claimed_unique_key FROM outbox.job", "-|u");
    if (_i == 3)
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    else
        BECAME(conn, 1, outcomes[_i]);
    ck_rows(conn, "SELECT unique_key, claimed_unique_key FROM outbox.job", "u|-");
    PUT(conn, "u", "1|t");
    PQfinish(conn);
}
END_TEST

START_TEST(a_retry_merges_into_its_newer_twin)
{
    static const char *const outcomes[] = {RETRY, RETRY_LATER, RELEASE};
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    PUT(conn, "v", "2|f");
    CLAIMED(conn, "1,2");
    BECAME(conn, 1, RETRY);
    CLAIMED(conn, "1");
    PUT(conn, "u", "3|f");
    if (_i == 3)
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "2");
    else
        BECAME(conn, 1, outcomes[_i]);
    STATES(conn, _i == 3 ? "2|ready;3|ready" : "2|running;3|ready");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt WHERE job_id = 1", "0");
    PUT(conn, "u", "3|t");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatcher", _i == 3 ? "0" : "1");
    PQfinish(conn);
}
END_TEST

/* A unique key is its task's own. */
START_TEST(another_tasks_job_is_no_twin)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue(t, unique_key => 'u') FROM unnest('{0,a}'::text[]) t");
    pg_exec_ok(conn, "SELECT outbox.enqueue('z', after => '{2}')");
    CLAIMED(conn, "2");
    pg_exec_ok(conn, "SELECT outbox.enqueue(t, unique_key => 'u') FROM unnest('{a,z}'::text[]) t");
    BECAME(conn, 2, RETRY);
    STATES(conn, "1|ready;3|waiting;4|ready;5|ready");
    ck_rows(conn, "SELECT after_id, job_id FROM outbox.dependency", "4|3");
    PQfinish(conn);
}
END_TEST

START_TEST(a_merged_job_hands_its_key_over)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k', unique_key => 'u')", "1");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k')", "2");
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k', unique_key => 'u')", "3");
    if (_i == 1)
        ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1");
    else
        BECAME(conn, 1, RETRY_LATER);
    STATES(conn, "2|ready;3|waiting");
    PQfinish(conn);
}
END_TEST

START_TEST(dead_it_keeps_nobody_out_and_does_not_come_back_beside_another)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    ck_rows(conn, "SELECT unique_key FROM outbox.dead", "u");
    PUT(conn, "u", "2|f");
    ck_rows(conn, "SELECT outbox.retry(1)", "exists");
    STATES(conn, "1|dead;2|ready");
    CLAIMED(conn, "2");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    PUT(conn, "u", "1|t");
    PQfinish(conn);
}
END_TEST

START_TEST(an_array_says_which_were_there)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
#define U(u) "{\"task\": \"a\", \"unique_key\": \"" u "\"}"
    ck_rows(conn,
            "SELECT existing, id = lag(id) OVER () FROM outbox.enqueue_many('[" U("z") ", " U(
                "u") ","
                     " {\"task\": \"a\"}, " U("z") ", " U("b") "]')",
            "f|-;t|f;f|f;t|f;f|f");
    ck_rows(conn, "SELECT unique_key, count(*) FROM outbox.job GROUP BY 1 ORDER BY 1",
            "b|1;u|1;z|1;-|1");
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    /* And the order of a key is the array's, whatever the unique keys are. */
#define KU(u) "{\"task\": \"a\", \"key\": \"k\", \"unique_key\": \"" u "\"}"
    ck_rows(conn,
            "SELECT id > lag(id) OVER (), existing FROM outbox.enqueue_many('[" KU("z") ", " KU(
                "b") ", {\"task\": \"a\", \"key\": \"k\"}, " KU("c") "]')",
            "-|f;t|f;t|f;t|f");
    ck_rows(
        conn,
        "SELECT unique_key, waiting, ready_xid IS NOT NULL, place = id FROM outbox.job ORDER BY "
        "id",
        "z|f|t|t;b|t|f|t;-|t|f|t;c|t|f|t");
    PQfinish(conn);
}
END_TEST

/* ---- together ---- */

/* Two at once: the second waits for the first, and has its job or none. */
START_TEST(who_puts_the_same_waits_for_the_first)
{
    PGconn *first = begin();
    PGconn *second = testdb_connect();
    pg_exec_ok(first, "SELECT outbox.enqueue('a', unique_key => 'u')");
    begin_sql(second, "SELECT outbox.enqueue('a', unique_key => 'u')");
    await_blocked(second);
    if (_i == 0)
        commit(first);
    else
        roll_back(first);
    end_sql(second);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 1);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.job"), 1 + _i);
    PQfinish(second);
}
END_TEST

/* Who got an existing job changed something for it to see: it does not run before that is
 * committed. */
START_TEST(an_existing_job_is_not_begun_before_the_caller_has_ended)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    sql_rule(IS_OFF, "put", "AND j.unique_key = put.unique_key FOR SHARE;",
             "AND j.unique_key = put.unique_key;");
    PGconn *first = begin();
    PGconn *second = begin();
    PUT(first, "u", "1|t");
    PUT(second, "u", "1|t"); /* they do not wait for each other */
    CLAIMED(conn, IS_OFF ? "1" : "");
    commit(first);
    CLAIMED(conn, "");
    roll_back(second);
    CLAIMED(conn, IS_OFF ? "" : "1");
    PQfinish(conn);
}
END_TEST

/* It is claimed between "there is one" and the look at it: a new one is put. */
START_TEST(a_job_that_is_claimed_meanwhile_is_put_again)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = testdb_connect();
    PUT(conn, "u", "1|f");
    gates_make();
    sql_replace("put", "EXIT WHEN FOUND;\n        SELECT j.id INTO id",
                "EXIT WHEN FOUND; PERFORM public.gate(1);\n        SELECT j.id INTO id");
    PGconn *gate = gate_close(1);
    begin_sql(producer, "SELECT outbox.enqueue('a', unique_key => 'u')");
    gate_wait(1);
    CLAIMED(conn, "1");
    gate_open(gate);
    end_sql(producer);
    STATES(conn, "1|running;3|ready");
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* And by a claim that has not committed yet. */
START_TEST(a_claim_under_way_is_waited_for)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = testdb_connect();
    PUT(conn, "u", "1|f");
    pg_exec_ok(conn, "BEGIN");
    CLAIMED(conn, "1");
    begin_sql(producer, "SELECT outbox.enqueue('a', unique_key => 'u')");
    await_blocked(producer);
    pg_exec_ok(conn, _i == 0 ? "COMMIT" : "ROLLBACK");
    end_sql(producer);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), _i == 0 ? 2 : 1);
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* A twin that has not committed yet: a result that may not wait is busy until it has. */
START_TEST(giving_back_does_not_wait_for_a_twin_under_way)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    CLAIMED(conn, "1");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', unique_key => 'u')");
    ck_rows(conn, settle_sql(1, RETRY, true), "1|busy");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "1"); /* left for later */
    STATES(conn, "1|running");
    if (_i == 0) {
        commit(producer);
        ck_rows(conn, settle_sql(1, RETRY, true), "1|done");
        STATES(conn, "2|ready");
    } else {
        roll_back(producer);
        ck_rows(conn, settle_sql(1, RETRY, true), "1|done");
        STATES(conn, "1|ready");
    }
    PQfinish(conn);
}
END_TEST

START_TEST(a_success_that_is_to_be_repeated_does_not_wait_either)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => 'u', repeat_every => '1 h')");
    CLAIMED(conn, "1");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', unique_key => 'u')");
    ck_rows(conn, settle_sql(1, NULL, true), "1|busy");
    STATES(conn, "1|running");
    commit(producer);
    ck_rows(conn, settle_sql(1, NULL, true), "1|done");
    ck_rows(conn, "SELECT id, repeat_every FROM outbox.job", "2|01:00:00");
    PQfinish(conn);
}
END_TEST

/* Merging: who holds the twin, where that is to inherit, or puts another one that depends on the
 * job, is waited for by nobody; and that one is not stranded. */
START_TEST(merging_neither_waits_nor_strands_a_dependent)
{
    PGconn *conn = with_dispatcher();
    PGconn *other = testdb_connect();
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u', notify_done => true)", "1");
    if (_i == 0)
        pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => '{1}')");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT existing FROM outbox.enqueue_bytes('a', '1', 'json', unique_key => 'u')",
            "f");
    pg_exec_ok(conn, "SET lock_timeout = '5s'");
    pg_exec_ok(other, "BEGIN");
    pg_exec_ok(other, _i == 0 ? "SELECT outbox.enqueue('a', unique_key => 'u')"
                              : "SELECT outbox.enqueue('b', after => '{1}')");
    ck_rows(conn, settle_sql(1, RETRY, true), "1|busy");
    pg_exec_ok(conn, "SELECT outbox.take_over(1, NULL)");
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 1", "running");
    pg_exec_ok(other, "COMMIT");
    pg_exec_ok(conn, "SELECT outbox.take_over(1, NULL)");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs WHERE id = 1", "0");
    ck_rows(conn,
            "SELECT count(*), count(j.id) FROM outbox.dependency d LEFT JOIN outbox.job j ON j.id "
            "= d.after_id AND j.unique_key = 'u'",
            "1|1");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

/* Without that permission it waits. */
START_TEST(giving_back_may_wait_for_a_twin_under_way)
{
    PGconn *conn = with_dispatcher();
    PUT(conn, "u", "1|f");
    CLAIMED(conn, "1");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', unique_key => 'u')");
    begin_sql(conn, settle_sql(1, RETRY, false));
    await_blocked(conn);
    commit(producer);
    end_sql(conn);
    STATES(conn, "2|ready");
    PQfinish(conn);
}
END_TEST

/* Two arrays that have the same keys in another order never wait for each other. */
START_TEST(arrays_in_any_order_do_not_deadlock)
{
    PGconn *first = testdb_connect();
    PGconn *second = testdb_connect();
    gates_make();
    /* The first stops after it has put the first of its jobs. */
    testdb_exec("CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF "
                "new.payload = '1' THEN PERFORM public.gate(1); END IF; RETURN NULL; END $$;"
                "CREATE TRIGGER stop AFTER INSERT ON outbox.job FOR EACH ROW EXECUTE FUNCTION "
                "public.stop()");
#define UP(u, p) "{\"task\": \"a\", \"unique_key\": \"" u "\", \"payload\": " p "}"
    sql_rule(IS_OFF, "put_many", "ORDER BY i.unique_key COLLATE \"C\",", "ORDER BY");
    sql_rule(IS_OFF, "put_many",
             "CASE WHEN i.unique_key IS NOT NULL THEN i.job ->> 'task' END COLLATE \"C\",", "");
    PGconn *gate = gate_close(1);
    begin_sql(first, "SELECT * FROM outbox.enqueue_many('[" UP("u", "1") ", " UP("v", "1") "]')");
    gate_wait(1);
    begin_sql(second, "SET deadlock_timeout = '50ms'; SELECT * FROM outbox.enqueue_many('[" UP(
                          "v", "2") ", " UP("u", "2") "]')");
    await_blocked(second);
    gate_open(gate);
    if (!IS_OFF) {
        end_sql(first);
        end_sql(second);
    } else {
        bool failed = false;
        PGconn *both[] = {first, second};
        for (int i = 0; i < 2; i++) {
            PGresult *res;
            while ((res = PQgetResult(both[i])) != NULL) {
                failed = failed || PQresultStatus(res) == PGRES_FATAL_ERROR;
                PQclear(res);
            }
        }
        ck_assert(failed);
    }
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 2);
    PQfinish(first);
    PQfinish(second);
}
END_TEST

/* ---- cost ---- */

static long updates(PGconn *conn, const char *kind)
{
    char sql[160];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT n_tup_%supd FROM pg_stat_user_tables WHERE relid = 'outbox.job'::regclass", kind);
    return strtol(rows_of(conn, sql), NULL, 10);
}

START_TEST(only_claims_of_unique_jobs_are_not_hot)
{
    PGconn *conn = with_dispatcher();
    PGconn *watcher = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 300)");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', unique_key => i::text) FROM generate_series(1, 50) "
               "AS i");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', key => i::text) FROM generate_series(1, 100) AS i");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a,b}', '{500,500}')", "450");
    PQfinish(conn);
    ck_assert(wait_until(updates(watcher, "") >= 450, 10000));
    ck_assert_int_eq(updates(watcher, ""), 450);
    ck_assert_int_eq(updates(watcher, "hot_"), 400);
    PQfinish(watcher);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_unique");
    TCase *alone = sql_case(suite, "alone");
    tcase_add_test(alone, a_waiting_job_is_not_put_twice);
    tcase_add_test(alone, scheduled_and_in_line_it_waits_too);
    tcase_add_test(alone, while_it_runs_it_can_be_put_again);
    tcase_add_test(alone, a_look_sets_the_key_aside_too);
    tcase_add_loop_test(alone, given_back_it_keeps_others_out_again, 0, 4);
    tcase_add_loop_test(alone, a_retry_merges_into_its_newer_twin, 0, 4);
    tcase_add_test(alone, another_tasks_job_is_no_twin);
    tcase_add_loop_test(alone, a_merged_job_hands_its_key_over, 0, 2);
    tcase_add_test(alone, dead_it_keeps_nobody_out_and_does_not_come_back_beside_another);
    tcase_add_test(alone, an_array_says_which_were_there);
    TCase *together = sql_case(suite, "together");
    tcase_add_loop_test(together, who_puts_the_same_waits_for_the_first, 0, 2);
    tcase_add_loop_test(together, an_existing_job_is_not_begun_before_the_caller_has_ended, 0, 2);
    tcase_add_test(together, a_job_that_is_claimed_meanwhile_is_put_again);
    tcase_add_loop_test(together, a_claim_under_way_is_waited_for, 0, 2);
    tcase_add_loop_test(together, giving_back_does_not_wait_for_a_twin_under_way, 0, 2);
    tcase_add_test(together, a_success_that_is_to_be_repeated_does_not_wait_either);
    tcase_add_test(together, giving_back_may_wait_for_a_twin_under_way);
    tcase_add_loop_test(together, merging_neither_waits_nor_strands_a_dependent, 0, 2);
    tcase_add_loop_test(together, arrays_in_any_order_do_not_deadlock, 0, 2);
    TCase *cost = sql_case(suite, "cost");
    tcase_add_test(cost, only_claims_of_unique_jobs_are_not_hot);
    return suite;
}
