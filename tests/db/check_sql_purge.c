/* Purging: the oldest first, no more than the batch, past what somebody holds, and nothing else
 * with it. By outbox.purge_done, purge_dead, purge_attempts, and by outbox.mend, which removes what
 * was kept for long enough. */
#include "keys_fixture.h"

#define KEPT "{\"outcome\": \"done\", \"keep_ms\": 60000}"

static const struct purge {
    const char *outcome; /* of the jobs */
    const char *age_sql; /* makes job N end so many days ago */
    const char *sql;     /* two at most */
    const char *left_sql;
    const char *hold_sql; /* the oldest */
    const char *answer;
} purges[] = {
    {KEPT, "UPDATE outbox.done SET finished_at = now() - id * interval '1 day'",
     "SELECT outbox.purge_done('1 hour', 2)", "SELECT id FROM outbox.done ORDER BY id",
     "SELECT FROM outbox.done WHERE id = 5 FOR UPDATE", "2"},
    {KEPT, "UPDATE outbox.done SET finished_at = now() - id * interval '1 day'",
     "SELECT outbox.purge_done('1 hour', 2, 'a')", "SELECT id FROM outbox.done ORDER BY id",
     "SELECT FROM outbox.done WHERE id = 5 FOR UPDATE", "2"},
    {DEAD, "UPDATE outbox.dead SET finished_at = now() - id * interval '1 day'",
     "SELECT outbox.purge_dead('1 hour', 2)", "SELECT id FROM outbox.dead ORDER BY id",
     "SELECT FROM outbox.dead WHERE id = 5 FOR UPDATE", "2"},
    {DEAD, "UPDATE outbox.dead SET finished_at = now() - id * interval '1 day'",
     "SELECT outbox.purge_dead('1 hour', 2, 'a')", "SELECT id FROM outbox.dead ORDER BY id",
     "SELECT FROM outbox.dead WHERE id = 5 FOR UPDATE", "2"},
    {DEAD, "UPDATE outbox.attempt SET started_at = now() - job_id * interval '1 day'",
     "SELECT outbox.purge_attempts('1 hour', 2)",
     "SELECT job_id FROM outbox.attempt ORDER BY job_id",
     "SELECT FROM outbox.attempt WHERE job_id = 5 FOR UPDATE", "2"},
    {KEPT, "UPDATE outbox.done SET keep_until = now() - id * interval '1 day'",
     "SELECT outbox.mend(2)", "SELECT id FROM outbox.done ORDER BY id",
     "SELECT FROM outbox.done WHERE id = 5 FOR UPDATE", "0"},
};
enum { PURGES = sizeof purges / sizeof purges[0] };

/* Five jobs that have ended, the fifth first. */
static PGconn *five_ended(const struct purge *p)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SET lock_timeout = '2s'"); /* nobody is to be waited for */
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    CLAIMED(conn, "1,2,3,4,5");
    for (long id = 1; id <= 5; id++)
        BECAME(conn, id, p->outcome);
    pg_exec_ok(conn, p->age_sql);
    return conn;
}

START_TEST(the_oldest_go_first_and_no_more_than_the_batch)
{
    PGconn *conn = five_ended(&purges[_i]);
    ck_rows(conn, purges[_i].sql, purges[_i].answer);
    ck_rows(conn, purges[_i].left_sql, "1;2;3");
    ck_rows(conn, purges[_i].sql, purges[_i].answer);
    ck_rows(conn, purges[_i].left_sql, "1");
    PQfinish(conn);
}
END_TEST

START_TEST(what_somebody_holds_is_passed_over)
{
    PGconn *conn = five_ended(&purges[_i]);
    PGconn *holder = begin();
    pg_exec_ok(holder, purges[_i].hold_sql);
    ck_rows(conn, purges[_i].sql, purges[_i].answer);
    ck_rows(conn, purges[_i].left_sql, "1;2;5");
    commit(holder);
    ck_rows(conn, purges[_i].sql, purges[_i].answer);
    ck_rows(conn, purges[_i].left_sql, "1");
    PQfinish(conn);
}
END_TEST

START_TEST(the_attempts_of_what_is_purged_go_with_it)
{
    static const char *const ends[] = {KEPT, DEAD, KEPT};
    static const char *const sql[] = {"SELECT outbox.purge_done('0')",
                                      "SELECT outbox.purge_dead('0')", "SELECT outbox.mend() + 1"};
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    CLAIMED(conn, "1,2");
    BECAME(conn, 1, RETRY);
    BECAME(conn, 2, RETRY);
    CLAIMED(conn, "1,2");
    BECAME(conn, 1, ends[_i]);
    BECAME(conn, 2, RETRY);
    pg_exec_ok(conn, "UPDATE outbox.done SET keep_until = now()");
    ck_rows(conn, sql[_i], "1");
    ck_rows(conn, "SELECT job_id FROM outbox.attempt", "2;2");
    STATES(conn, "2|ready");
    PQfinish(conn);
}
END_TEST

/* Of one job, too. */
START_TEST(attempts_go_one_by_one)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    for (int i = 0; i < 3; i++) {
        CLAIMED(conn, "1");
        BECAME(conn, 1, RETRY);
    }
    pg_exec_ok(conn, "UPDATE outbox.attempt SET started_at = now() - interval '2 days'"
                     " WHERE attempt < 3");
    ck_rows(conn, "SELECT outbox.purge_attempts('1 day', 1)", "1");
    ck_rows(conn, "SELECT outbox.purge_attempts('1 day')", "1");
    ck_rows(conn, "SELECT attempt FROM outbox.attempt", "3");
    PQfinish(conn);
}
END_TEST

/* Whoever holds its key's lock is in nobody's way then. */
START_TEST(a_dead_job_that_blocks_nobody_goes_whoever_holds_its_key)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, "SELECT outbox.purge_dead('0')", "1");
    commit(producer);
    STATES(conn, "2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(an_age_or_batch_that_makes_no_sense_is_refused)
{
    static const char *const calls[] = {
        "NULL", "'-1 s'", "'1 d', 0", "'1 d', NULL", "'1 d', -1",
    };
    static const char *const kinds[] = {"done", "dead", "attempts"};
    char sql[80];
    PGconn *conn = testdb_connect();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        (void)snprintf(sql, sizeof sql, "SELECT outbox.purge_%s(%s)", kinds[_i], calls[i]);
        pg_exec_fails(conn, sql, "22023", "older_than");
    }
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_purge");
    TCase *tc = sql_case(suite, "purge");
    tcase_add_loop_test(tc, the_oldest_go_first_and_no_more_than_the_batch, 0, PURGES);
    tcase_add_loop_test(tc, what_somebody_holds_is_passed_over, 0, PURGES);
    tcase_add_loop_test(tc, the_attempts_of_what_is_purged_go_with_it, 0, 3);
    tcase_add_test(tc, attempts_go_one_by_one);
    tcase_add_test(tc, a_dead_job_that_blocks_nobody_goes_whoever_holds_its_key);
    tcase_add_loop_test(tc, an_age_or_batch_that_makes_no_sense_is_refused, 0, 3);
    return suite;
}
