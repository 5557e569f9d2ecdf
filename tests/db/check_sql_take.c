/* outbox.take: finds what is there whatever stands before it, waits for nobody, strands nobody. */
#include "keys_fixture.h"

static PGconn *conn;
static PGconn *other;

static void set_up(void)
{
    testdb_create();
    conn = testdb_connect();
    other = testdb_connect();
    pg_exec_ok(conn, "SET lock_timeout = '5s'"); /* for who waits all the same */
}

static void tear_down(void)
{
    PQfinish(other);
    PQfinish(conn);
    testdb_drop();
}

#define TAKEN(n)                                                                                   \
    "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM outbox.take('a', " #n ")"

/* Whoever enqueues holds the locks of its keys: here of all keys. */
#define HOLD_ALL_KEYS                                                                              \
    "BEGIN; SELECT count(pg_advisory_xact_lock(1869968491, b)) FROM generate_series(0, 1023) AS b"

/* ---- reading on ---- */

START_TEST(jobs_of_busy_keys_do_not_count)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k' || n) FROM generate_series(1, 30) n;"
                     "SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    pg_exec_ok(other, HOLD_ALL_KEYS);
    ck_rows(conn, "SELECT outbox.can_take('a')", "t");
    ck_rows(conn, TAKEN(1), "31");
    ck_rows(conn, TAKEN(9), "32,33");
    ck_rows(conn, "SELECT outbox.can_take('a')", "f");
    pg_exec_ok(other, "ROLLBACK");
    ck_rows(conn, TAKEN(2), "1,2");
}
END_TEST

START_TEST(jobs_of_busy_keys_stay_free_for_others)
{
    PGconn *third = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k'); SELECT outbox.enqueue('a')");
    pg_exec_ok(other, HOLD_ALL_KEYS);
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn, TAKEN(1), "2");
    pg_exec_ok(other, "ROLLBACK");
    ck_rows(third, TAKEN(1), "1"); /* while the transaction that passed over it is open */
    pg_exec_ok(conn, "COMMIT");
    PQfinish(third);
}
END_TEST

START_TEST(expired_jobs_do_not_count_and_are_dead)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', expires_at => '2020-01-01', key => 'k')"
                     " FROM generate_series(1, 2);"
                     "SELECT outbox.enqueue('a', expires_at => '2020-01-01')"
                     " FROM generate_series(3, 20);"
                     "SELECT outbox.enqueue('a');"
                     "SELECT outbox.enqueue('a', expires_at => '2020-01-01');"
                     "SELECT outbox.enqueue('a', expires_at => '2120-01-01')");
    ck_rows(conn, TAKEN(1), "21");
    ck_rows(conn, "SELECT state, count(*), min(id), max(id) FROM outbox.jobs GROUP BY 1 ORDER BY 3",
            "dead|19|1|20;ready|3|2|23");
    ck_rows(conn, TAKEN(9), "23");
    ck_rows(conn, "SELECT state, count(*), min(id), max(id) FROM outbox.jobs GROUP BY 1",
            "dead|21|1|22");
    ck_rows(conn, "SELECT outbox.can_take('a')", "f");
}
END_TEST

START_TEST(expired_jobs_are_put_aside_a_thousand_a_call)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', expires_at => '2020-01-01')"
                     " FROM generate_series(1, 1500); SELECT outbox.enqueue('a')");
    ck_rows(conn, TAKEN(1), "1501");
    ck_rows(conn, "SELECT count(*) FROM outbox.dead", "1000");
    ck_rows(conn, "SELECT outbox.can_take('a')", "t"); /* there are some to put aside */
    ck_rows(conn, TAKEN(1), "");
    ck_rows(conn, "SELECT count(*) FROM outbox.dead", "1500");
    ck_rows(conn, "SELECT outbox.can_take('a')", "f");
}
END_TEST

START_TEST(an_expired_job_of_a_busy_key_is_left)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', expires_at => '2020-01-01', key => 'k')");
    pg_exec_ok(other, HOLD_ALL_KEYS);
    ck_rows(conn, TAKEN(1), "");
    pg_exec_ok(other, "ROLLBACK");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "ready");
    ck_rows(conn, TAKEN(1), "");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "dead");
}
END_TEST

/* ---- waiting for nobody ---- */

START_TEST(jobs_whose_next_or_dependents_are_held_do_not_count)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2);"
                     "SELECT outbox.enqueue('a');"
                     "SELECT outbox.enqueue('b', after => '{3}');"
                     "SELECT outbox.enqueue('a')");
    pg_exec_ok(other, "BEGIN; SELECT FROM outbox.job WHERE id IN (2, 4) FOR UPDATE");
    ck_rows(conn, TAKEN(1), "5");
    ck_rows(conn, TAKEN(9), "");
    ck_rows(conn, "SELECT outbox.can_take('a')", "f");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, TAKEN(1), "1");
    ck_rows(conn, TAKEN(1), "3");
    STATES(conn, "2|ready;4|ready");
}
END_TEST

/* An expired job takes its dependents with it, and theirs. */
START_TEST(expired_jobs_whose_dependents_dependents_are_held_are_left)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', expires_at => '2020-01-01');"
                     "SELECT outbox.enqueue('b', after => '{1}');"
                     "SELECT outbox.enqueue('b', after => '{2}');"
                     "SELECT outbox.enqueue('a')");
    pg_exec_ok(other, "BEGIN; SELECT FROM outbox.job WHERE id = 3 FOR UPDATE");
    ck_rows(conn, TAKEN(9), "4");
    STATES(conn, "1|ready;2|waiting;3|waiting");
    pg_exec_ok(other, "COMMIT");
    ck_rows(conn, TAKEN(9), "");
    ck_rows(conn, "SELECT count(*) FROM outbox.dead", "3");
}
END_TEST

/* ---- paused tasks ---- */

START_TEST(of_a_paused_task_no_job_is_taken)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'); SELECT outbox.enqueue('a', expires_at =>"
                     " '2020-01-01'); SELECT outbox.pause('a')");
    ck_rows(conn, TAKEN(9), "");
    ck_rows(conn, "SELECT outbox.can_take('a')", "f");
    STATES(conn, "1|ready;2|ready");
    pg_exec_ok(conn, "SELECT outbox.resume('a')");
    ck_rows(conn, "SELECT outbox.can_take('a')", "t");
    ck_rows(conn, TAKEN(9), "1");
}
END_TEST

START_TEST(of_a_paused_task_no_job_is_claimed)
{
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue(t) FROM unnest('{a,b,c,a}'::text[]) AS t");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    pg_exec_ok(conn, "SELECT outbox.pause('a'); SELECT outbox.pause('c')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 2, '{c,a,b}', '{9,9,9}')", "2");
    ck_rows(conn, "SELECT answer FROM outbox.settle(1, '{1}', '{1}')", "done"); /* it goes on */
    pg_exec_ok(conn, "SELECT outbox.resume('a')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 9, '{c,a,b}', '{9,9,9}')", "4");
}
END_TEST

/* ---- races: each with its rule and without it ---- */

/* Somebody puts a dependent while take has read the row and not locked it yet. */
START_TEST(a_dependent_put_between_reading_and_locking_goes_on)
{
    gates_make();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    sql_rule(IS_OFF, "hold_ready", "j.ready_xid, j.linked,",
             "j.ready_xid, (SELECT x.linked FROM outbox.job x WHERE x.id = j.id) AS linked,");
    sql_replace("hold_ready", "passes_expired AND j.expires_at <= now_at",
                "NOT public.gate(1) OR passes_expired AND j.expires_at <= now_at");
    PGconn *keeper = gate_close(1);
    begin_sql(conn, TAKEN(1));
    gate_wait(1);
    pg_exec_ok(other, "SELECT outbox.enqueue('b', after => '{1}')");
    gate_open(keeper);
    end_sql(conn);
    STATES(conn, IS_OFF ? "2|waiting" : "2|ready");
}
END_TEST

/* Who puts a dependent of a job that has others already changes nothing in its row: holds it FOR
 * KEY SHARE, and no more. */
START_TEST(a_job_that_gets_a_dependent_just_now_is_passed_over)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true)");
    sql_rule(IS_OFF, "hold_ready", "LIMIT n - cardinality(ids)\n            FOR UPDATE SKIP LOCKED",
             "LIMIT n - cardinality(ids)\n            FOR NO KEY UPDATE SKIP LOCKED");
    pg_exec_ok(other, "BEGIN; SELECT outbox.enqueue('b', after => '{1}')");
    begin_sql(conn, TAKEN(1));
    ck_assert_int_eq(ended_or_blocked(conn), !IS_OFF);
    pg_exec_ok(other, "COMMIT");
    end_sql(conn);
    STATES(conn, IS_OFF ? "2|waiting" : "1|ready;2|waiting");
    if (!IS_OFF) {
        ck_rows(conn, TAKEN(1), "1");
        STATES(conn, "2|ready");
    }
}
END_TEST

/* Who is claimed between reading and locking is not taken, too. */
START_TEST(a_job_claimed_between_reading_and_locking_is_passed_over)
{
    gates_make();
    register_one(other);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    sql_replace("hold_ready", "passes_expired AND j.expires_at <= now_at",
                "NOT public.gate(1) OR passes_expired AND j.expires_at <= now_at");
    if (IS_OFF) {
        sql_replace("hold_ready",
                    "AND j.ready_xid IS NOT NULL AND j.owner IS NULL\n"
                    "              AND CASE WHEN j.owner IS NOT NULL OR NOT",
                    "AND j.ready_xid IS NOT NULL AND CASE WHEN NOT");
    }
    PGconn *keeper = gate_close(1);
    begin_sql(conn, TAKEN(1));
    gate_wait(1);
    ck_rows(other, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    gate_open(keeper);
    end_sql(conn);
    ck_rows(conn, "SELECT count(*) FROM outbox.job WHERE owner = 1", IS_OFF ? "0" : "1");
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("sql_take");
    TCase *tc = add_case(s, "reading on");
    tcase_add_test(tc, jobs_of_busy_keys_do_not_count);
    tcase_add_test(tc, jobs_of_busy_keys_stay_free_for_others);
    tcase_add_test(tc, expired_jobs_do_not_count_and_are_dead);
    tcase_add_test(tc, expired_jobs_are_put_aside_a_thousand_a_call);
    tcase_add_test(tc, an_expired_job_of_a_busy_key_is_left);
    tc = add_case(s, "waiting for nobody");
    tcase_add_test(tc, jobs_whose_next_or_dependents_are_held_do_not_count);
    tcase_add_test(tc, expired_jobs_whose_dependents_dependents_are_held_are_left);
    tc = add_case(s, "paused tasks");
    tcase_add_test(tc, of_a_paused_task_no_job_is_taken);
    tcase_add_test(tc, of_a_paused_task_no_job_is_claimed);
    tc = add_case(s, "races");
    tcase_add_loop_test(tc, a_dependent_put_between_reading_and_locking_goes_on, 0, 2);
    tcase_add_loop_test(tc, a_job_that_gets_a_dependent_just_now_is_passed_over, 0, 2);
    tcase_add_loop_test(tc, a_job_claimed_between_reading_and_locking_is_passed_over, 0, 2);
    return s;
}
