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
    BECAME(conn, 1, "{\"outcome\": \"done\", \"keep\": true}");
    BECAME(conn, 3, "{\"outcome\": \"done\", \"keep\": false}");
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
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", done > 0 ? ";" : "",
                       lines[least]);
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
    BECAME(conn, 6, "{\"outcome\": \"done\", \"keep\": true}");
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
    tcase_add_test(kept, who_asked_is_told_of_the_end_and_of_nothing_else);
    tcase_add_test(kept, a_repeating_job_is_told_of_at_its_real_end);
    return suite;
}
