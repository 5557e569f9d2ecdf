/* Jobs that wait for others: they run when all of those have succeeded, and whatever ends while
 * they are put is seen. */
#include "keys_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#define REASONS(conn, expected)                                                                    \
    ck_rows(conn, "SELECT id, reason FROM outbox.dead ORDER BY id", expected)
/* Ended, nothing is left of who waited for whom. */
#define NO_EDGES(conn) ck_rows(conn, "SELECT count(*) FROM outbox.dependency", "0")

static PGconn *parents(int n)
{
    char sql[128];
    PGconn *conn = with_dispatcher();
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('a') FROM generate_series(1, %d)", n);
    pg_exec_ok(conn, sql);
    return conn;
}

START_TEST(it_runs_when_all_have_succeeded)
{
    PGconn *conn = parents(3);
    ck_rows(conn, "SELECT outbox.enqueue('b', after => '{1,2,2}')", "4");
    ck_rows(conn, "SELECT outbox.enqueue('b', after => '{}')", "5");
    STATES(conn, "1|ready;2|ready;3|ready;4|waiting;5|ready");
    CLAIMED(conn, "1,2,3,5");
    DONE(conn, 3);
    BECAME(conn, 1, RETRY);
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 4", "waiting");
    DONE(conn, 2);
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 4", "waiting");
    ck_rows(conn, "SELECT outbox.retry(4)", "waiting");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    CLAIMED(conn, "4");
    NO_EDGES(conn);
    PQfinish(conn);
}
END_TEST

START_TEST(what_is_done_already_counts_as_met)
{
    PGconn *conn = parents(2);
    CLAIMED(conn, "1,2");
    DONE(conn, 1);
    ck_rows(conn, "SELECT outbox.enqueue('b', after => '{1}')", "3");
    ck_rows(conn, "SELECT outbox.enqueue('b', after => '{1,2}')", "4");
    STATES(conn, "2|running;3|ready;4|waiting");
    DONE(conn, 2);
    STATES(conn, "3|ready;4|ready");
    pg_exec_fails(conn, "SELECT outbox.enqueue('b', after => '{7}')", "23503", "there is no job 7");
    pg_exec_fails(conn, "SELECT outbox.enqueue('b', after => '{6}')", "23503", "there is no job 6");
    PQfinish(conn);
}
END_TEST

START_TEST(with_a_dead_or_cancelled_one_it_is_dead_too)
{
    PGconn *conn = parents(2);
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1, 2])");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[3])");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', after => ARRAY[1], on_failed_dependency => 'run')");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', after => ARRAY[4], on_failed_dependency => 'run')");
    if (_i == 0) {
        CLAIMED(conn, "1,2");
        BECAME(conn, 1, DEAD);
        DONE(conn, 2);
    } else {
        ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
        ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    }
    if (_i == 0)
        REASONS(conn, "1|exit 65;3|dependency 1 is dead;4|dependency 3 is dead");
    else
        REASONS(conn, "3|dependency 1 was cancelled;4|dependency 3 is dead");
    ck_rows(conn, "SELECT id, state FROM outbox.jobs WHERE id > 4 ORDER BY id", "5|ready;6|ready");
    NO_EDGES(conn);
    /* And who comes later. */
    ck_rows(conn, "SELECT outbox.enqueue('b', after => ARRAY[3, 5])", "7");
    ck_rows(conn,
            "SELECT outbox.enqueue('b', '[]', after => ARRAY[3], on_failed_dependency => 'run')",
            "8");
    ck_rows(conn, "SELECT state, reason, attempts FROM outbox.jobs WHERE id IN (7, 8) ORDER BY id",
            "dead|dependency 3 is dead|0;ready|-|0");
    /* A dead one that is retried runs at once, whatever became of the other. */
    ck_rows(conn, "SELECT outbox.retry(3)", "retried");
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 3", "ready");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt WHERE job_id > 2", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(a_cancelled_child_leaves_nothing)
{
    PGconn *conn = parents(1);
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    NO_EDGES(conn);
    CLAIMED(conn, "1");
    DONE(conn, 1);
    ck_rows(conn, "SELECT count(*) FROM outbox.job", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(it_keeps_its_time_and_its_key)
{
    PGconn *conn = parents(1);
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1], delay => '1 h')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1], key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1], key => 'l')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', key => 'k')");
    STATES(conn, "1|ready;2|waiting;3|waiting;4|waiting;5|ready"); /* it blocks no key */
    CLAIMED(conn, "1,5");
    DONE(conn, 1);
    STATES(conn, "2|scheduled;3|scheduled;4|scheduled;5|running");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "2");
    STATES(conn, "2|scheduled;3|waiting;4|ready;5|running");
    DONE(conn, 5);
    CLAIMED(conn, "3,4");
    PQfinish(conn);
}
END_TEST

START_TEST(a_long_chain_dies_to_its_end)
{
    PGconn *conn = parents(1);
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', after => ARRAY[i]) FROM generate_series(1, 200) AS i");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    ck_rows(conn, "SELECT count(*), count(DISTINCT reason) FROM outbox.dead", "201|201");
    NO_EDGES(conn);
    PQfinish(conn);
}
END_TEST

START_TEST(one_may_wait_for_many_and_many_for_one)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 1000)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => (SELECT array_agg(i) FROM "
                     "generate_series(1, 1000) AS i)) FROM generate_series(1, 20)");
    pg_exec_ok(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{1000}')");
    ck_rows(conn,
            "SELECT count(*) FROM (SELECT array_agg(id ORDER BY id DESC) AS ids, array_agg(claim "
            "ORDER BY id DESC) AS claims FROM outbox.job WHERE owner = 1) AS j,"
            " outbox.settle(1, ids, claims) AS s WHERE s.answer = 'done'",
            "1000");
    ck_rows(conn, "SELECT count(*) FROM outbox.job WHERE ready_xid IS NOT NULL AND unmet IS NULL",
            "20");
    NO_EDGES(conn);
    PQfinish(conn);
}
END_TEST

START_TEST(an_array_of_jobs_may_wait)
{
    PGconn *conn = parents(2);
    ck_rows(conn,
            "SELECT id FROM outbox.enqueue_many('[{\"task\": \"b\", \"after\": [1, 2]}, {\"task\": "
            "\"b\", \"after\": []}, {\"task\": \"b\", \"after\": [2], \"on_failed_dependency\": "
            "\"run\"}]')",
            "3;4;5");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    STATES(conn, "1|ready;3|dead;4|ready;5|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(who_waits_for_a_merged_job_waits_for_its_twin)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => 'u')");
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "3");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1, 3])");
    BECAME(conn, 1, RETRY);
    ck_rows(conn, "SELECT id, unmet FROM outbox.job ORDER BY id", "2|1;3|-;4|1");
    CLAIMED(conn, "3");
    DONE(conn, 3);
    CLAIMED(conn, "2,4");
    NO_EDGES(conn);
    PQfinish(conn);
}
END_TEST

START_TEST(dependents_of_what_was_deleted_by_hand_die)
{
    PGconn *conn = parents(3);
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', after => ARRAY[i]) FROM generate_series(1, 3) AS i");
    pg_exec_ok(conn, "DELETE FROM outbox.job WHERE id IN (1, 3)");
    ck_rows(conn, "SELECT outbox.mend(2)", "1"); /* two at a time */
    ck_rows(conn, "SELECT outbox.mend(2)", "1");
    REASONS(conn, "4|dependency 1 is gone;6|dependency 3 is gone");
    STATES(conn, "2|ready;4|dead;5|waiting;6|dead");
    ck_rows(conn, "SELECT outbox.mend(2)", "0");
    PQfinish(conn);
}
END_TEST

/* ---- together ---- */

#define LOCK_PARENT "WHERE j.id = p.id FOR KEY SHARE) AS r)"

/* It ends while its dependent is put: the end waits for that, and sees it. */
START_TEST(an_end_sees_who_is_being_put)
{
    PGconn *conn = parents(1);
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "UPDATE outbox.job SET linked = true"); /* not by this lock alone */
    sql_rule(IS_OFF, "depend", LOCK_PARENT, "WHERE j.id = p.id) AS r)");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    begin_sql(conn, settle_sql(1, _i / 2 == 0 ? NULL : DEAD, false));
    ck_assert_int_eq(ended_or_blocked(conn), IS_OFF);
    commit(producer);
    end_sql(conn);
    if (IS_OFF)
        ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 2", "waiting"); /* for ever */
    else
        ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 2", _i / 2 == 0 ? "ready" : "dead");
    PQfinish(conn);
}
END_TEST

/* The first that depends on a job marks it, so that its end is more than a deletion. */
START_TEST(the_mark_is_seen_by_an_end_that_waited_for_it)
{
    PGconn *conn = parents(1);
    CLAIMED(conn, "1");
    sql_rule(IS_OFF, "settle", "AND NOT j.linked", "");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    begin_sql(conn, settle_sql(1, NULL, false));
    await_blocked(conn);
    commit(producer);
    end_sql(conn);
    STATES(conn, IS_OFF ? "2|waiting" : "2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(who_is_put_sees_an_end_that_it_waited_for)
{
    PGconn *conn = parents(1);
    PGconn *producer = testdb_connect();
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "BEGIN");
    BECAME(conn, 1, _i == 0 ? NULL : DEAD);
    begin_sql(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    await_blocked(producer);
    pg_exec_ok(conn, _i == 2 ? "ROLLBACK" : "COMMIT");
    end_sql(producer);
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 2",
            _i == 0   ? "ready"
            : _i == 1 ? "dead"
                      : "waiting");
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* A dead one is retried between the two looks at it. */
START_TEST(a_job_that_comes_back_meanwhile_is_waited_for)
{
    PGconn *conn = parents(1);
    PGconn *producer = testdb_connect();
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    gates_make();
    sql_replace("depend", "SELECT (SELECT d.id", "PERFORM public.gate(1); SELECT (SELECT d.id");
    sql_rule(IS_OFF, "depend", "EXIT WHEN NOT moved;", "EXIT;");
    PGconn *gate = gate_close(1);
    begin_sql(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    gate_wait(1);
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    gate_open(gate);
    end_sql(producer);
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 2", IS_OFF ? "ready" : "waiting");
    PQfinish(producer);
    PQfinish(conn);
}
END_TEST

/* Two parents end at once: the second waits for the first's change to the child, and counts on. */
START_TEST(two_that_end_at_once_are_both_counted)
{
    PGconn *conn = parents(2);
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1, 2])");
    CLAIMED(conn, "1,2");
    pg_exec_ok(conn, "BEGIN");
    DONE(conn, 1);
    begin_sql(other, settle_sql(2, NULL, false));
    await_blocked(other);
    pg_exec_ok(conn, "COMMIT");
    end_sql(other);
    STATES(conn, "3|ready");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(a_dispatcher_need_not_wait_for_who_puts)
{
    PGconn *conn = parents(2);
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[2])");
    CLAIMED(conn, "1,2");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    ck_rows(conn, settle_sql(1, NULL, true), "1|busy");
    roll_back(producer);
    ck_rows(conn, settle_sql(1, NULL, true), "1|done");
    /* Nor for who holds the child. */
    producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('b', after => ARRAY[3])");
    ck_rows(conn, settle_sql(2, DEAD, true), "2|busy");
    commit(producer);
    ck_rows(conn, settle_sql(2, DEAD, true), "2|done");
    ck_rows(conn, "SELECT count(*) FROM outbox.dead", "3");
    PQfinish(conn);
}
END_TEST

START_TEST(an_older_snapshot_is_refused)
{
    PGconn *conn = parents(1);
    PGconn *producer = testdb_connect();
    pg_exec_ok(producer, _i == 0 ? "BEGIN ISOLATION LEVEL REPEATABLE READ"
                                 : "BEGIN ISOLATION LEVEL SERIALIZABLE");
    pg_exec_fails(producer, "SELECT outbox.enqueue('b', after => ARRAY[1])", "0A000",
                  "isolation level");
    roll_back(producer);
    PQfinish(conn);
}
END_TEST

/* Nothing of it is paid by who has no dependents. */
START_TEST(who_has_none_pays_nothing)
{
    PGconn *conn = parents(5);
    pg_exec_ok(conn, "ALTER TABLE outbox.dependency RENAME TO away");
    CLAIMED(conn, "1,2,3,4,5");
    DONE(conn, 1);
    BECAME(conn, 2, RETRY);
    BECAME(conn, 3, DEAD);
    PQfinish(conn);
}
END_TEST

/* ---- stress ---- */

enum { WORKERS = 4, ROUNDS = 60 };

/* As dispatchers do it that found a lock: it does not wait for producers who hold what depends on
 * a job while they wait for another job. What is busy stays for the next time. */
static void settle_at_random(PGconn *conn, unsigned owner, uint32_t dice)
{
    char sql[1024];
    (void)snprintf(sql, sizeof sql,
                   "SELECT s.* FROM (SELECT array_agg(id) AS ids, array_agg(claim) AS claims, "
                   "count(*) AS n FROM outbox.job WHERE owner = %u) AS m, outbox.settle(%u, ids, "
                   "claims, (SELECT jsonb_agg(CASE (%u + i) %% 5 WHEN 0 THEN '" RETRY
                   "' WHEN 1 THEN '" DEAD
                   "' END::jsonb) FROM generate_series(1, m.n) AS i), true) AS s WHERE m.n > 0",
                   owner, owner, dice >> 12);
    pg_exec_ok(conn, sql);
}

static bool owns_nothing(PGconn *conn, unsigned owner)
{
    char sql[100];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.job WHERE owner = %u", owner);
    return strcmp(rows_of(conn, sql), "0") == 0;
}

static void work(unsigned n)
{
    char sql[1024];
    PGconn *conn = testdb_connect();
    uint32_t dice = 104729 * (n + 1);
    (void)snprintf(
        sql, sizeof sql,
        "SELECT answer FROM outbox.register(%u, 'w%u', 'h', 'b', 'l', 1, '{}', '1', '{a}',"
        " '1 minute')",
        100 + n, n);
    pg_exec_ok(conn, sql);
    for (int round = 0; round < ROUNDS; round++) {
        dice = dice * 1664525 + 1013904223;
        pg_exec_ok(conn, "BEGIN");
        (void)snprintf(
            sql, sizeof sql,
            "SELECT outbox.enqueue('a', after => (SELECT array_agg(x.id) FROM (SELECT id "
            "FROM outbox.jobs ORDER BY hashint8(id + %u) LIMIT %u) AS x))",
            dice >> 8, (dice >> 20) % 4);
        pg_exec_ok(conn, sql);
        pg_exec_ok(conn, "COMMIT");
        (void)snprintf(
            sql, sizeof sql,
            "WITH mine AS MATERIALIZED (SELECT array_agg(id) AS ids, array_agg(claim) AS "
            "claims, count(*) AS n FROM outbox.claim(%u, %d, '{a}', '{2}'))"
            " SELECT ids, claims, n FROM mine",
            100 + n, 1 + 2 * round);
        pg_exec_ok(conn, sql);
        settle_at_random(conn, 100 + n, dice);
    }
    ck_assert(
        wait_until((settle_at_random(conn, 100 + n, dice), owns_nothing(conn, 100 + n)), 20000));
    PQfinish(conn);
}

START_TEST(many_at_once_lose_nobody)
{
    pid_t workers[WORKERS];
    for (unsigned n = 0; n < WORKERS; n++) {
        workers[n] = fork();
        if (workers[n] == 0) {
            if (freopen("/dev/null", "w", stdout) == NULL)
                _exit(1);
            work(n);
            _exit(0);
        }
    }
    for (unsigned n = 0; n < WORKERS; n++) {
        int status = 0;
        ck_assert_int_eq(waitpid(workers[n], &status, 0), workers[n]);
        ck_assert_int_eq(status, 0);
    }
    PGconn *conn = with_dispatcher();
    for (int i = 0; i < 2 * WORKERS * ROUNDS && claim_all(conn)[0] != '\0'; i++)
        pg_exec_ok(conn,
                   "SELECT s.* FROM (SELECT array_agg(id) AS ids, array_agg(claim) AS claims "
                   "FROM outbox.job WHERE owner = 1) AS j, outbox.settle(1, ids, claims) AS s");
    ck_rows(conn, "SELECT count(*) FROM outbox.job", "0");
    NO_EDGES(conn);
    ck_rows(conn,
            "SELECT count(*) > 20, count(*) FILTER (WHERE reason LIKE 'dependency%') > 5 FROM "
            "outbox.dead",
            "t|t");
    PQfinish(conn);
}
END_TEST

/* ---- who holds what depends on a dependent ---- */

/* 1 runs; 2 depends on it, and 3 on 2: with 1, they all die. Who puts one that depends on 3 holds 3
 * until the transaction ends, and must not hold up a dispatcher meanwhile. */
static PGconn *hold_the_third(PGconn *conn)
{
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'); SELECT outbox.enqueue('a', after => '{1}');"
                     "SELECT outbox.enqueue('a', after => '{2}')");
    CLAIMED(conn, "1");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', after => '{3}')");
    return producer;
}

static void run_without_waiting(PGconn *conn, const char *sql)
{
    begin_sql(conn, sql);
    ck_assert_msg(ended_or_blocked(conn), "waits: %s", sql);
    end_sql(conn);
}

#define ALL_DEAD "1|dead|exit 65;2|dead|dependency 1 is dead;3|dead|dependency 2 is dead;" FOURTH
#define FOURTH   "4|dead|dependency 3 is dead"

START_TEST(a_death_whose_dependents_dependents_are_held_is_recorded_later)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = hold_the_third(conn);
    run_without_waiting(conn, settle_sql(1, DEAD, true));
    STATES(conn, "1|running;2|waiting;3|waiting");
    commit(producer);
    ck_rows(conn, settle_sql(1, DEAD, true), "1|done");
    ck_rows(conn, "SELECT id, state, reason FROM outbox.jobs ORDER BY id", ALL_DEAD);
    PQfinish(conn);
}
END_TEST

START_TEST(a_success_is_recorded_whoever_holds_the_dependents_dependents)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = hold_the_third(conn);
    ck_rows(conn, settle_sql(1, NULL, true), "1|done");
    STATES(conn, "2|ready;3|waiting");
    commit(producer);
    PQfinish(conn);
}
END_TEST

/* One that runs all the same does not die, and those behind it do not either. */
START_TEST(a_death_is_recorded_whoever_holds_what_does_not_die_of_it)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'); SELECT outbox.enqueue('a', after => '{1}',"
                     " on_failed_dependency => 'run'); SELECT outbox.enqueue('a', after => '{2}')");
    CLAIMED(conn, "1");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', after => '{3}')");
    ck_rows(conn, settle_sql(1, DEAD, true), "1|done");
    STATES(conn, "1|dead;2|ready;3|waiting");
    commit(producer);
    PQfinish(conn);
}
END_TEST

START_TEST(a_take_over_leaves_the_cancelled_whose_dependents_dependents_are_held)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = hold_the_third(conn);
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelling");
    run_without_waiting(conn, "SELECT outbox.take_over(1, NULL)");
    STATES(conn, "1|running;2|waiting;3|waiting");
    commit(producer);
    pg_exec_ok(conn, "SELECT outbox.take_over(1, NULL)");
    STATES(conn, "2|dead;3|dead;4|dead");
    PQfinish(conn);
}
END_TEST

START_TEST(mending_leaves_what_is_held)
{
    PGconn *conn = with_dispatcher();
    PGconn *producer = hold_the_third(conn);
    pg_exec_ok(conn, "DELETE FROM outbox.job WHERE id = 1");
    run_without_waiting(conn, "SELECT outbox.mend()");
    STATES(conn, "2|waiting;3|waiting");
    commit(producer);
    ck_rows(conn, "SELECT outbox.mend()", "1");
    STATES(conn, "2|dead;3|dead;4|dead");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_after");
    TCase *alone = sql_case(suite, "alone");
    tcase_add_test(alone, it_runs_when_all_have_succeeded);
    tcase_add_test(alone, what_is_done_already_counts_as_met);
    tcase_add_loop_test(alone, with_a_dead_or_cancelled_one_it_is_dead_too, 0, 2);
    tcase_add_test(alone, a_cancelled_child_leaves_nothing);
    tcase_add_test(alone, it_keeps_its_time_and_its_key);
    tcase_add_test(alone, a_long_chain_dies_to_its_end);
    tcase_add_test(alone, one_may_wait_for_many_and_many_for_one);
    tcase_add_test(alone, an_array_of_jobs_may_wait);
    tcase_add_test(alone, who_waits_for_a_merged_job_waits_for_its_twin);
    tcase_add_test(alone, dependents_of_what_was_deleted_by_hand_die);
    TCase *together = sql_case(suite, "together");
    tcase_add_loop_test(together, an_end_sees_who_is_being_put, 0, 4);
    tcase_add_loop_test(together, the_mark_is_seen_by_an_end_that_waited_for_it, 0, 2);
    tcase_add_loop_test(together, who_is_put_sees_an_end_that_it_waited_for, 0, 3);
    tcase_add_loop_test(together, a_job_that_comes_back_meanwhile_is_waited_for, 0, 2);
    tcase_add_test(together, two_that_end_at_once_are_both_counted);
    tcase_add_test(together, a_dispatcher_need_not_wait_for_who_puts);
    tcase_add_loop_test(together, an_older_snapshot_is_refused, 0, 2);
    tcase_add_test(together, who_has_none_pays_nothing);
    TCase *stress = sql_case(suite, "stress");
    tcase_set_timeout(stress, 60);
    tcase_add_test(stress, many_at_once_lose_nobody);
    TCase *tc = sql_case(suite, "who holds what depends on a dependent");
    tcase_add_test(tc, a_death_whose_dependents_dependents_are_held_is_recorded_later);
    tcase_add_test(tc, a_success_is_recorded_whoever_holds_the_dependents_dependents);
    tcase_add_test(tc, a_death_is_recorded_whoever_holds_what_does_not_die_of_it);
    tcase_add_test(tc, a_take_over_leaves_the_cancelled_whose_dependents_dependents_are_held);
    tcase_add_test(tc, mending_leaves_what_is_held);
    return suite;
}
