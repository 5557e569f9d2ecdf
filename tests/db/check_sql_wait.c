/* outbox.states: what became of jobs, in one answer, whatever table they are in by now. */
#include "keys_fixture.h"

START_TEST(every_state_is_told_and_whether_it_is_final)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 6)");
    CLAIMED(conn, "1,2,3,4,5,6");
    DONE(conn, 1);
    BECAME(conn, 2, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    BECAME(conn, 3, DEAD);
    BECAME(conn, 4, RETRY_LATER);
    BECAME(conn, 5, RETRY);
    pg_exec_ok(conn, "SELECT outbox.enqueue('c', after => '{6}')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('c')");
    ck_rows(conn, "SELECT outbox.cancel(8)", "cancelled");
    ck_rows(conn, "SELECT * FROM outbox.states('{8,7,6,5,4,3,2,1,9,0,-1,1}')",
            "8|gone|t|-;7|waiting|f|-;6|running|f|-;5|ready|f|-;4|scheduled|f|-;"
            "3|dead|t|exit 65;2|done|t|-;1|gone|t|-;9|unknown|t|-;0|unknown|t|-;"
            "-1|unknown|t|-;1|gone|t|-");
    ck_rows(conn, "SELECT * FROM outbox.states('{}')", "");
    ck_rows(conn, "SELECT * FROM outbox.states(NULL)", "");
    ck_rows(conn, "SELECT state, ended FROM outbox.states(ARRAY[NULL]::bigint[])", "unknown|t");
    PQfinish(conn);
}
END_TEST

START_TEST(no_job_was_given_out_by_a_new_schema)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT state FROM outbox.states('{1}')", "unknown");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT state FROM outbox.states('{1}')", "ready");
    PQfinish(conn);
}
END_TEST

/* A retried dead job moves back: no look may see it in neither table. */
START_TEST(a_job_that_moves_between_tables_is_never_missed)
{
    PGconn *conn = with_dispatcher();
    PGconn *reader = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "CREATE PROCEDURE move_often() LANGUAGE plpgsql AS $$ DECLARE c bigint; BEGIN "
                     "FOR i IN 1..100 LOOP SELECT claim INTO c FROM outbox.claim(1, 10 * i, '{a}', "
                     "'{1}'); PERFORM outbox.settle(1, '{1}', ARRAY[c], '[" DEAD
                     "]'); COMMIT; PERFORM outbox.retry(1); COMMIT; END LOOP; END $$");
    begin_sql(conn, "CALL move_often()");
    while (PQconsumeInput(conn) == 1 && PQisBusy(conn) != 0)
        ck_rows(reader, "SELECT count(*) FROM outbox.states('{1}') WHERE state = 'gone'", "0");
    end_sql(conn);
    PQfinish(reader);
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_wait");
    TCase *tc = sql_case(suite, "states");
    tcase_add_test(tc, every_state_is_told_and_whether_it_is_final);
    tcase_add_test(tc, no_job_was_given_out_by_a_new_schema);
    tcase_add_test(tc, a_job_that_moves_between_tables_is_never_missed);
    return suite;
}
