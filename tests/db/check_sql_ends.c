/* What may follow a success: a job that runs again, is kept, or is told of. */
#include "keys_fixture.h"

START_TEST(a_repeating_job_is_scheduled_anew_by_each_success)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '{\"n\": 1}', repeat_every => '1 h')");
    CLAIMED(conn, "1");
    BECAME(conn, 1, RETRY); /* a failure is tried again as any */
    CLAIMED(conn, "1");
    DONE(conn, 1);
    ck_rows(
        conn,
        "SELECT id, state, attempts, lost, run_at - clock_timestamp() BETWEEN interval '59 min' "
        "AND interval '60 min', outbox.payload(id) = '{\"n\": 1}'::text::bytea FROM outbox.jobs",
        "1|scheduled|0|0|t|t");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD); /* which ends it, until it is retried */
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    STATES(conn, "1|scheduled");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    PQfinish(conn);
}
END_TEST

START_TEST(it_leaves_its_key_and_gets_its_unique_key_back)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn,
            "SELECT outbox.enqueue('a', key => 'k', unique_key => 'u', repeat_every => '1 h')",
            "1");
    ck_rows(conn, "SELECT outbox.enqueue('a', key => 'k')", "2");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    STATES(conn, "1|scheduled;2|ready");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "1");
    PQfinish(conn);
}
END_TEST

START_TEST(it_merges_into_a_twin_which_repeats_then)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u', repeat_every => '1 h')", "1");
    CLAIMED(conn, "1");
    ck_rows(conn, "SELECT outbox.enqueue('a', unique_key => 'u')", "2");
    DONE(conn, 1);
    ck_rows(conn, "SELECT id, repeat_every FROM outbox.job", "2|01:00:00");
    CLAIMED(conn, "2");
    DONE(conn, 2);
    STATES(conn, "2|scheduled");
    PQfinish(conn);
}
END_TEST

START_TEST(who_waits_for_a_repeating_job_waits_for_one_success)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', repeat_every => '1 h')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    STATES(conn, "1|scheduled;2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_is_kept_where_asked_with_its_attempts)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '[7]', key => CASE WHEN i < 3 THEN 'k' END, "
                     "unique_key => 'u' || i) FROM generate_series(1, 3) AS i");
    CLAIMED(conn, "1,3");
    BECAME(conn, 1, RETRY);
    CLAIMED(conn, "1");
    BECAME(conn, 1, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    BECAME(conn, 3, "{\"outcome\": \"done\", \"keep_ms\": null}");
    ck_rows(conn,
            "SELECT id, state, attempts, finished_at >= created_at FROM outbox.jobs ORDER BY id",
            "1|done|2|t;2|ready|0|-");
    ck_rows(conn, "SELECT unique_key, outbox.payload(id) FROM outbox.done", "u1|\\x5b375d");
    ck_rows(conn, "SELECT attempt, outcome FROM outbox.attempts", "1|retry");
    ck_rows(conn, "SELECT outbox.enqueue('a', after => ARRAY[1])", "4");
    ck_rows(conn, "SELECT state FROM outbox.jobs WHERE id = 4", "ready");
    PQfinish(conn);
}
END_TEST

START_TEST(what_is_kept_goes_when_its_time_is_over)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    CLAIMED(conn, "1,2,3,4,5");
    BECAME(conn, 1, RETRY);
    CLAIMED(conn, "1");
    for (long id = 1; id <= 5; id++)
        BECAME(conn, id, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    ck_rows(conn, "SELECT outbox.mend()", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.done", "5");
    pg_exec_ok(conn, "UPDATE outbox.done SET keep_until = now() - interval '1 s' WHERE id < 4");
    PGconn *holder = begin();
    pg_exec_ok(holder, "SELECT FROM outbox.done WHERE id = 2 FOR UPDATE");
    pg_exec_ok(conn, "SELECT outbox.mend()"); /* waits for nobody */
    STATES(conn, "2|done;4|done;5|done");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    roll_back(holder);
    pg_exec_ok(conn, "SELECT outbox.mend()");
    STATES(conn, "4|done;5|done");
    PQfinish(conn);
}
END_TEST

START_TEST(purging_goes_by_age_and_task_in_batches)
{
    static const char *const kinds[] = {"done", "dead"};
    char sql[200];
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    CLAIMED(conn, "1,2,3,4,5,6");
    for (long id = 1; id <= 6; id++)
        BECAME(conn, id, _i == 0 ? "{\"outcome\": \"done\", \"keep_ms\": 60000}" : DEAD);
    (void)snprintf(sql, sizeof sql,
                   "UPDATE outbox.%s SET finished_at = now() - interval '2 days' WHERE id <> 3",
                   kinds[_i]);
    pg_exec_ok(conn, sql);
    (void)snprintf(sql, sizeof sql, "SELECT outbox.purge_%s('1 day', 3, 'a')", kinds[_i]);
    ck_rows(conn, sql, "3");
    ck_rows(conn, sql, "1");
    ck_rows(conn, sql, "0");
    ck_rows(conn, "SELECT id FROM outbox.jobs ORDER BY id", "3;6");
    (void)snprintf(sql, sizeof sql, "SELECT outbox.purge_%s('1 day')", kinds[_i]);
    ck_rows(conn, sql, "1");
    ck_rows(conn, "SELECT id FROM outbox.jobs", "3");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", _i == 0 ? "0" : "1");
    pg_exec_ok(conn, "UPDATE outbox.attempt SET started_at = now() - interval '2 days'");
    ck_rows(conn, "SELECT outbox.purge_attempts('1 day')", _i == 0 ? "0" : "1");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    pg_exec_fails(conn, "SELECT outbox.purge_dead(NULL)", "22023", "older_than");
    PQfinish(conn);
}
END_TEST

START_TEST(purging_a_dead_job_opens_its_key)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD_BLOCKS);
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, "SELECT outbox.purge_dead('0')", "0"); /* waits for nobody */
    commit(producer);
    ck_rows(conn, "SELECT outbox.purge_dead('0')", "1");
    STATES(conn, "2|ready;3|waiting");
    PQfinish(conn);
}
END_TEST

/* "channel payload;..." of what has come, sorted. Static storage. */
static const char *told(PGconn *listener)
{
    static char text[1024];
    char lines[32][64];
    size_t n = 0;
    pg_exec_ok(listener, "SELECT 1");
    for (PGnotify *p; (p = PQnotifies(listener)) != NULL; PQfreemem(p))
        (void)snprintf(lines[n++], sizeof lines[0], "%s %s", p->relname, p->extra);
    text[0] = '\0';
    for (size_t done = 0; done < n; done++) {
        size_t least = 0;
        for (size_t i = 1; i < n; i++) {
            if (lines[least][0] == '\0' ||
                (lines[i][0] != '\0' && strcmp(lines[i], lines[least]) < 0))
                least = i;
        }
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.63s",
                       done > 0 ? ";" : "", lines[least]);
        lines[least][0] = '\0';
    }
    return text;
}
#define TOLD(listener, expected) ck_assert_str_eq(told(listener), expected)

START_TEST(who_asked_is_told_of_the_end_and_of_nothing_else)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done; LISTEN outbox_dead");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', notify_done => i <> 3) FROM generate_series(1, 6) i");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true, unique_key => 'u')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', notify_done => true, after => ARRAY[2])");
    CLAIMED(conn, "1,2,3,4,5,6,7");
    BECAME(conn, 1, RETRY);
    BECAME(conn, 4, RELEASE);
    TOLD(listener, "");
    DONE(conn, 3);
    DONE(conn, 5);
    TOLD(listener, "outbox_done 5 done");
    BECAME(conn, 6, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    TOLD(listener, "outbox_done 6 done");
    BECAME(conn, 2, DEAD);
    TOLD(listener, "outbox_dead 2 a;outbox_dead 8 b;outbox_done 2 dead;outbox_done 8 dead");
    ck_rows(conn, "SELECT outbox.cancel(4)", "cancelled");
    TOLD(listener, "outbox_done 4 cancelled");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', unique_key => 'u')");
    BECAME(conn, 7, RETRY);
    TOLD(listener, "outbox_done 7 merged");
    /* Retried, it asks again. */
    ck_rows(conn, "SELECT outbox.retry(2)", "retried");
    ck_rows(conn, "SELECT outbox.cancel(2)", "cancelled");
    TOLD(listener, "outbox_done 2 cancelled");
    pg_exec_ok(conn, "SET outbox.notify = off");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    TOLD(listener, "");
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_repeating_job_is_told_of_at_its_real_end)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true, repeat_every => '1 h')");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    TOLD(listener, "");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    TOLD(listener, "outbox_done 1 cancelled");
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

/* ---- take ---- */

#define TAKE "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '-') FROM outbox.take('a', 9)"

START_TEST(what_is_taken_is_gone_with_the_commit_and_back_with_a_rollback)
{
    PGconn *conn = with_dispatcher();
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '[1]', priority => 3, headers => '{\"h\": 1}')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', '[2]')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    pg_exec_ok(conn, "BEGIN");
    ck_rows(conn,
            "SELECT id, priority, attempts, encoding, payload, headers, key FROM "
            "outbox.take('a')",
            "2|2|0|json|\\x5b325d|-|-");
    ck_rows(other, TAKE, "1"); /* the other one, without waiting */
    pg_exec_ok(conn, "ROLLBACK");
    STATES(conn, "2|ready;3|ready");
    ck_rows(conn, TAKE, "2");
    ck_rows(conn, TAKE, "-");
    STATES(conn, "3|ready");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(taking_means_for_others_what_any_success_means)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done; LISTEN outbox_dead");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', repeat_every => '1 h')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[3])");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', notify_done => true)");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a', expires_at => clock_timestamp() + interval '1 ms')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE expires_at < "
                                     "clock_timestamp()") == 1,
                         WAIT_MS));
    ck_rows(conn, TAKE, "1,3,5");
    STATES(conn, "2|ready;3|scheduled;4|ready;6|dead");
    TOLD(listener, "outbox_dead 6 a;outbox_done 5 done");
    /* While somebody holds the key, it is passed over. */
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    ck_rows(conn, TAKE, "-");
    commit(producer);
    ck_rows(conn, TAKE, "2");
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_failure_of_what_was_taken_is_counted)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', max_attempts => 2) FROM "
                     "generate_series(1, 2)");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'no luck')", "retried");
    ck_rows(conn,
            "SELECT id, state, attempts, run_at - clock_timestamp() BETWEEN interval '4 s' AND "
            "interval '5 s' FROM outbox.jobs ORDER BY id",
            "1|scheduled|1|t;2|waiting|0|-");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'no luck')", "waiting");
    pg_exec_ok(conn, "UPDATE outbox.job SET run_at = clock_timestamp() WHERE id = 1");
    ck_rows(conn, "SELECT moved FROM outbox.due()", "1");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'again')", "dead");
    STATES(conn, "1|dead;2|ready");
    ck_rows(conn, "SELECT attempt, outcome, reason FROM outbox.attempts",
            "1|retry|no luck;2|dead|again");
    ck_rows(conn, "SELECT outbox.take_failed(9, 'x')", "not found");
    CLAIMED(conn, "2");
    ck_rows(conn, "SELECT outbox.take_failed(2, 'x')", "running");
    pg_exec_fails(conn, "SELECT outbox.take_failed(2, NULL)", "22004", "the reason is NULL");
    PQfinish(conn);
}
END_TEST

START_TEST(a_failed_job_waits_twice_as_long_each_time_up_to_an_hour)
{
    static const struct {
        const char *before; /* attempts */
        const char *delay;
    } rows[] = {{"0", "5 s"},  {"1", "10 s"}, {"3", "40 s"},   {"9", "2560 s"},
                {"10", "1 h"}, {"25", "1 h"}, {"20000", "1 h"}};
    char sql[256];
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    (void)snprintf(sql, sizeof sql, "UPDATE outbox.job SET attempts = %s", rows[_i].before);
    pg_exec_ok(conn, sql);
    ck_rows(conn, "SELECT outbox.take_failed(1, 'x', max_attempts => 30000)", "retried");
    (void)snprintf(sql, sizeof sql,
                   "SELECT interval '%s' - (run_at - clock_timestamp()) BETWEEN '0' AND "
                   "interval '2 s' FROM outbox.job",
                   rows[_i].delay);
    ck_rows(conn, sql, "t");
    PQfinish(conn);
}
END_TEST

START_TEST(the_attempts_of_a_job_that_is_taken_go_with_it)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'x', '0')", "retried");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "1");
    (void)rows_of(conn, "SELECT outbox.retry(1)");
    ck_rows(conn, TAKE, "1");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    PQfinish(conn);
}
END_TEST

/* Who joins its key meanwhile is seen. */
START_TEST(a_last_failure_waits_for_who_puts_the_next_one)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', max_attempts => 1)");
    PGconn *producer = begin();
    pg_exec_ok(producer, "SELECT outbox.enqueue('a', key => 'k')");
    begin_sql(conn, "SELECT outbox.take_failed(1, 'x')");
    await_blocked(conn);
    commit(producer);
    end_sql(conn);
    STATES(conn, "1|dead;2|ready");
    PQfinish(conn);
}
END_TEST

START_TEST(a_last_failure_is_death_to_those_that_depend_on_it)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', max_attempts => 1)");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => '{1}')");
    ck_rows(conn, "SELECT outbox.take_failed(1, 'x')", "dead");
    STATES(conn, "1|dead;2|dead");
    PQfinish(conn);
}
END_TEST

/* Somebody else was faster: what becomes of it decides. */
START_TEST(a_failure_waits_for_who_has_taken_the_job_since)
{
    PGconn *conn = testdb_connect();
    PGconn *taker = begin();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_rows(taker, "SELECT id FROM outbox.take('a')", "1");
    begin_sql(conn, "SELECT outbox.take_failed(1, 'x')");
    await_blocked(conn);
    if (_i == 0)
        commit(taker);
    else
        roll_back(taker);
    end_sql(conn);
    ck_rows(conn, "SELECT count(*), sum(attempts) FROM outbox.job", _i == 0 ? "0|-" : "1|1");
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", _i == 0 ? "0" : "1");
    PQfinish(conn);
}
END_TEST

START_TEST(only_ready_jobs_are_taken)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    CLAIMED(conn, "1,2");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', delay => '1 h')");
    ck_rows(conn, TAKE, "-");
    STATES(conn, "1|running;2|running;3|scheduled");
    BECAME(conn, 2, RELEASE);
    ck_rows(conn, "SELECT count(*) FROM outbox.take('a', 0)", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.take('a', -1)", "0");
    ck_rows(conn, TAKE, "2");
    PQfinish(conn);
}
END_TEST

/* An expired job is dead to those behind it and those that wait for it, not done. */
START_TEST(the_end_of_an_expired_job_is_no_success)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k', notify_done => true, repeat_every => "
                     "'1 h', expires_at => clock_timestamp() + interval '1 ms')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[1])");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('b', after => ARRAY[1], on_failed_dependency => 'run')");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job WHERE expires_at < "
                                     "clock_timestamp()") == 1,
                         WAIT_MS));
    pg_exec_ok(conn, TAKE);
    ck_rows(conn, "SELECT id, reason FROM outbox.dead ORDER BY id",
            "1|expired;3|dependency 1 is dead");
    TOLD(listener, "outbox_done 1 dead");
    ck_rows(conn, TAKE, "2");
    STATES(conn, "1|dead;3|dead;4|ready");
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(taking_with_an_older_snapshot_is_refused_where_others_are_concerned)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    if (_i == 0)
        pg_exec_ok(conn, "SELECT outbox.enqueue('a', key => 'k')");
    else
        pg_exec_ok(conn, "SELECT outbox.enqueue('b', after => ARRAY[outbox.enqueue('a')])");
    pg_exec_ok(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    ck_rows(conn, "SELECT id FROM outbox.take('b')", "1");
    pg_exec_fails(conn, "SELECT outbox.take('a')", "0A000", "repeatable read");
    pg_exec_ok(conn, "ROLLBACK");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_ends");
    TCase *again = sql_case(suite, "again");
    tcase_add_test(again, a_repeating_job_is_scheduled_anew_by_each_success);
    tcase_add_test(again, it_leaves_its_key_and_gets_its_unique_key_back);
    tcase_add_test(again, it_merges_into_a_twin_which_repeats_then);
    tcase_add_test(again, who_waits_for_a_repeating_job_waits_for_one_success);
    TCase *kept = sql_case(suite, "kept and told");
    tcase_add_test(kept, a_job_is_kept_where_asked_with_its_attempts);
    tcase_add_test(kept, what_is_kept_goes_when_its_time_is_over);
    tcase_add_loop_test(kept, purging_goes_by_age_and_task_in_batches, 0, 2);
    tcase_add_test(kept, purging_a_dead_job_opens_its_key);
    tcase_add_test(kept, who_asked_is_told_of_the_end_and_of_nothing_else);
    tcase_add_test(kept, a_repeating_job_is_told_of_at_its_real_end);
    TCase *take = sql_case(suite, "take");
    tcase_add_test(take, what_is_taken_is_gone_with_the_commit_and_back_with_a_rollback);
    tcase_add_test(take, taking_means_for_others_what_any_success_means);
    tcase_add_test(take, a_failure_of_what_was_taken_is_counted);
    tcase_add_loop_test(take, a_failed_job_waits_twice_as_long_each_time_up_to_an_hour, 0, 7);
    tcase_add_test(take, the_attempts_of_a_job_that_is_taken_go_with_it);
    tcase_add_test(take, a_last_failure_waits_for_who_puts_the_next_one);
    tcase_add_test(take, a_last_failure_is_death_to_those_that_depend_on_it);
    tcase_add_loop_test(take, a_failure_waits_for_who_has_taken_the_job_since, 0, 2);
    tcase_add_test(take, only_ready_jobs_are_taken);
    tcase_add_test(take, the_end_of_an_expired_job_is_no_success);
    tcase_add_loop_test(take, taking_with_an_older_snapshot_is_refused_where_others_are_concerned,
                        0, 2);
    return suite;
}
