/* What async-pq's tests ask of a queue. Its request over a batch is a consumer's claims here. */
#include "predecessors_fixture.h"

static PGconn *with_four(void)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn,
            "SELECT id FROM outbox.enqueue_many('[{\"task\": \"a\", \"payload\": 1},"
            " {\"task\": \"a\", \"payload\": 2}, {\"task\": \"a\", \"payload\": 3},"
            " {\"task\": \"a\", \"payload\": 4}]')",
            "1;2;3;4");
    return conn;
}

/* test_fabric: there is nothing to make before the first job. */
START_TEST(fabric_needs_no_queue_to_be_made)
{
    static const char relations[] =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'outbox'::regnamespace";
    PGconn *conn = testdb_connect();
    long before = testdb_long(relations);
    ck_rows(conn, "SELECT outbox.enqueue('never-heard-of')", "1");
    ck_rows(conn, "SELECT task, state, count, handlers FROM outbox.stats",
            "never-heard-of|ready|1|0");
    ck_assert_int_eq(testdb_long(relations), before);
    PQfinish(conn);
}
END_TEST

/* test_put_pop */
START_TEST(put_pop_gives_the_first_two_in_order)
{
    PGconn *conn = with_four();
    ck_rows(conn,
            "SELECT id, convert_from(payload, 'UTF8') FROM outbox.claim(1, 1, '{a}', '{2}')"
            " ORDER BY claim",
            "1|1;2|2");
    STATES(conn, "1|running;2|running;3|ready;4|ready");
    CLAIM(conn, 1, 3, 9, "3,4");
    CLAIM(conn, 1, 5, 9, "");
    PQfinish(conn);
}
END_TEST

/* test_ack, and what it can't do: each job has its own end. */
START_TEST(ack_ends_one_job_of_a_batch_and_not_the_others)
{
    PGconn *conn = with_four();
    CLAIM(conn, 1, 1, 2, "1,2");
    DONE(conn, 1);
    STATES(conn, "2|running;3|ready;4|ready");
    BECAME(conn, 2, RETRY_LATER);
    STATES(conn, "2|scheduled;3|ready;4|ready");
    PQfinish(conn);
}
END_TEST

/* test_ack_for_no_acked */
START_TEST(ack_for_no_acked_is_told_that_it_is_gone)
{
    PGconn *conn = with_four();
    TAKEN(conn, "2", "1,2"); /* committed: done */
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}')", "1|gone;2|gone");
    STATES(conn, "3|ready;4|ready");
    PQfinish(conn);
}
END_TEST

/* test_ack_with_delete_request */
START_TEST(ack_leaves_no_row_anywhere)
{
    PGconn *conn = with_four();
    CLAIM(conn, 1, 1, 9, "1,2,3,4");
    BECAME(conn, 3, RETRY);
    CLAIM(conn, 1, 5, 9, "3");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1,2,3,4}', '{1,2,5,4}')",
            "1|done;2|done;3|done;4|done");
    ck_rows(conn,
            "SELECT (SELECT count(*) FROM outbox.jobs), (SELECT count(*) FROM outbox.attempts)",
            "0|0");
    PQfinish(conn);
}
END_TEST

/* test_double_ack, test_wrong_ack: never told that it was done when it was not. */
START_TEST(double_and_wrong_ack_are_told_from_a_right_one)
{
    PGconn *conn = with_four();
    CLAIM(conn, 1, 1, 1, "1");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|gone");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{99,2}', '{1,1}')", "99|gone;2|lost");
    STATES(conn, "2|ready;3|ready;4|ready");
    PQfinish(conn);
}
END_TEST

/* test_return_unacked, and the late acknowledgement that it guards against, with both alive. */
START_TEST(return_unacked_gives_all_back_and_refuses_who_had_them)
{
    PGconn *conn = with_four();
    ck_rows(conn, REGISTER("2", "two"), "registered");
    CLAIM(conn, 1, 1, 9, "1,2,3,4");
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "4");
    STATES(conn, "1|ready;2|ready;3|ready;4|ready");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|lost");
    CLAIM(conn, 2, 1, 9, "1,2,3,4");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}')", "1|lost;2|lost");
    ck_rows(conn, "SELECT * FROM outbox.settle(2, '{1}', '{1}')", "1|done");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|gone");
    STATES(conn, "2|running;3|running;4|running");
    PQfinish(conn);
}
END_TEST

/* test_return_unacked_with_limit; and nothing is counted that holds no job. */
START_TEST(return_unacked_with_limit_gives_back_so_many)
{
    PGconn *conn = with_four();
    ck_rows(conn, REGISTER("2", "two"), "registered");
    CLAIM(conn, 1, 1, 3, "1,2,3");
    CLAIM(conn, 2, 1, 9, "4");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL, 2)", "2");
    STATES(conn, "1|ready;2|ready;3|running;4|running");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL, 2)", "1");
    ck_rows(conn, "SELECT outbox.take_over(1, NULL, 2)", "-1");
    STATES(conn, "1|ready;2|ready;3|ready;4|running");
    PQfinish(conn);
}
END_TEST

/* unack, which has no test there. */
START_TEST(unack_counts_nothing_and_only_for_who_holds_it)
{
    PGconn *conn = with_four();
    CLAIM(conn, 1, 1, 2, "1,2");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{2,3}', '{2,2}')", "2|done;3|lost");
    ck_rows(conn, "SELECT id, state, attempts FROM outbox.jobs ORDER BY id",
            "1|running|1;2|ready|0;3|ready|0;4|ready|0");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{2}', '{2}')", "2|lost");
    PQfinish(conn);
}
END_TEST

/* test_clean_acked, test_clean_acked_with_limit: and what is not finished stays. */
START_TEST(clean_acked_removes_so_many_and_nothing_unfinished)
{
    PGconn *conn = with_four();
    CLAIM(conn, 1, 1, 9, "1,2,3,4");
    for (long id = 1; id <= 4; id++)
        BECAME(conn, id, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(5, 7)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')");
    CLAIM(conn, 1, 5, 2, "5,6");
    BECAME(conn, 5, DEAD);
    ck_rows(conn, "SELECT outbox.purge_done('0', 2)", "2");
    ck_rows(conn, "SELECT count(*) FROM outbox.done", "2");
    ck_rows(conn, "SELECT outbox.purge_done('0', 1000)", "2");
    ck_rows(conn, "SELECT outbox.purge_done('0', 1000)", "0");
    STATES(conn, "5|dead;6|running;7|ready;8|scheduled");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("predecessors_async_pq");
    TCase *tc = sql_case(suite, "queue");
    tcase_add_test(tc, fabric_needs_no_queue_to_be_made);
    tcase_add_test(tc, put_pop_gives_the_first_two_in_order);
    tcase_add_test(tc, ack_ends_one_job_of_a_batch_and_not_the_others);
    tcase_add_test(tc, ack_for_no_acked_is_told_that_it_is_gone);
    tcase_add_test(tc, ack_leaves_no_row_anywhere);
    tcase_add_test(tc, double_and_wrong_ack_are_told_from_a_right_one);
    tcase_add_test(tc, return_unacked_gives_all_back_and_refuses_who_had_them);
    tcase_add_test(tc, return_unacked_with_limit_gives_back_so_many);
    tcase_add_test(tc, unack_counts_nothing_and_only_for_who_holds_it);
    tcase_add_test(tc, clean_acked_removes_so_many_and_nothing_unfinished);
    return suite;
}
