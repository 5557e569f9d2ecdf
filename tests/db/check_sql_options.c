/* Options of jobs: each counts by itself, whichever way the job is put, and all of them stay with
 * the job wherever it goes. */
#include "keys_fixture.h"

/* Job 1 is there, to be depended on. */
static const struct {
    const char *named;
    const char *json;
    const char *is_kept; /* of outbox.job */
} options[] = {
    {"key => 'k'", "\"key\": \"k\"", "key = 'k' AND linked AND place = id AND NOT waiting"},
    {"unique_key => 'u'", "\"unique_key\": \"u\"", "unique_key = 'u'"},
    {"priority => 3", "\"priority\": 3", "priority = 3"},
    {"run_at => '2100-01-01Z'", "\"run_at\": \"2100-01-01Z\"",
     "run_at = '2100-01-01Z' AND ready_xid IS NULL"},
    {"delay => '1 h'", "\"delay\": 3600",
     "run_at = created_at + interval '1 h' AND ready_xid IS NULL"},
    {"expires_at => '2100-01-01Z'", "\"expires_at\": \"2100-01-01Z\"",
     "expires_at = '2100-01-01Z'"},
    {"max_attempts => 7", "\"max_attempts\": 7", "max_attempts = 7"},
    {"headers => '{\"h\": 1}'", "\"headers\": {\"h\": 1}", "headers = '{\"h\": 1}'"},
    {"repeat_every => '1 h'", "\"repeat_every\": 3600", "repeat_every = '1 h' AND linked"},
    {"after => '{1}'", "\"after\": [1]", "unmet = 1 AND waiting AND runs_anyway IS NULL"},
    {"after => '{1}', on_failed_dependency => 'run'",
     "\"after\": [1], \"on_failed_dependency\": \"run\"", "unmet = 1 AND waiting AND runs_anyway"},
    {"notify_done => true", "\"notify_done\": true", "notify_done AND linked"},
};
enum { OPTIONS = sizeof options / sizeof options[0] };

static const struct {
    const char *before; /* the option */
    const char *behind;
    bool is_array;
    const char *encoding;
} ways[] = {
    {"SELECT outbox.enqueue('a', '1', ", ")", false, "json"},
    {"SELECT id FROM outbox.enqueue_bytes('a', '1', 'json', ", ")", false, "json"},
    {"SELECT id FROM outbox.enqueue_bytes('a', '\\x01', 'msgpack', ", ")", false, "msgpack"},
    {"SELECT id FROM outbox.enqueue_many('[{\"task\": \"a\", \"payload\": 1, ", "}]')", true,
     "json"},
    {"SELECT id FROM outbox.enqueue_many('[{\"task\": \"a\", \"encoding\": \"msgpack\", ",
     "}]', ARRAY['\\x01'::bytea])", true, "msgpack"},
};
enum { WAYS = sizeof ways / sizeof ways[0] };

/* Alone, and with another that makes it a job that has to do with others. */
START_TEST(each_option_counts_whichever_way_it_is_put)
{
    static const char *const beside[2][2] = {
        {"", ""},
        {", max_attempts => 9, unique_key => 'x'", ", \"max_attempts\": 9, \"unique_key\": \"x\""}};
    char put[512];
    char sql[512];
    bool has_beside = strncmp(options[_i].named, "max_attempts", 12) != 0 &&
                      strncmp(options[_i].named, "unique_key", 10) != 0;
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    for (int more = 0; more <= (int)has_beside; more++) {
        for (size_t way = 0; way < WAYS; way++) {
            bool is_array = ways[way].is_array;
            (void)snprintf(put, sizeof put, "%s%s%s%s", ways[way].before,
                           is_array ? options[_i].json : options[_i].named, beside[more][is_array],
                           ways[way].behind);
            pg_exec_ok(conn, put);
            (void)snprintf(sql, sizeof sql,
                           "SELECT %s AND %s AND encoding = '%s' FROM outbox.job WHERE task = 'a'",
                           options[_i].is_kept,
                           more ? "unique_key = 'x' AND max_attempts = 9" : "true",
                           ways[way].encoding);
            ck_assert_msg(strcmp(rows_of(conn, sql), "t") == 0, "%s: %s", put,
                          rows_of(conn, "SELECT * FROM outbox.job WHERE task = 'a'"));
            pg_exec_ok(conn, "DELETE FROM outbox.job WHERE task = 'a';"
                             "DELETE FROM outbox.dependency");
        }
    }
    PQfinish(conn);
}
END_TEST

/* What a job was put with, in any of the tables; outbox.done keeps no more than concerns it. */
#define WITH_ALL                                                                                   \
    "SELECT outbox.enqueue('a', '[7]', key => 'k', unique_key => 'u', priority => 3, expires_at "  \
    "=>"                                                                                           \
    " '2100-01-01Z', max_attempts => 7, headers => '{\"h\": 1}', run_at => '2001-01-01Z', "        \
    "repeat_every => '1 h', notify_done => true"
#define KEPT_BY_ALL                                                                                \
    "task, convert_from(payload, 'UTF8'), encoding, key, priority, run_at, expires_at, "           \
    "max_attempts, headers"
#define KEPT_VALUES "a|[7]|json|k|3|2001-01-01 00:00:00+00|2100-01-01 00:00:00+00|7|{\"h\": 1}"
#define AS_DEAD                                                                                    \
    "SELECT " KEPT_BY_ALL ", unique_key, repeat_every, notify_done, created_at < finished_at"      \
    " FROM outbox.dead"

START_TEST(a_dead_job_keeps_its_options_and_has_them_when_it_is_retried)
{
    PGconn *conn = with_dispatcher();
    pg_exec_ok(conn, WITH_ALL ")");
    CLAIMED(conn, "1");
    BECAME(conn, 1, RETRY);
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "UPDATE outbox.job SET lost = 1");
    BECAME(conn, 1, _i == 0 ? DEAD : DEAD_BLOCKS);
    ck_rows(conn, AS_DEAD, KEPT_VALUES "|u|01:00:00|t|t");
    ck_rows(conn, "SELECT attempts, lost, logged, place IS NOT NULL FROM outbox.dead",
            _i == 0 ? "2|1|t|f" : "2|1|t|t");
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn,
            "SELECT " KEPT_BY_ALL ", unique_key, repeat_every, notify_done, attempts, lost, linked,"
            " logged, ready_xid IS NOT NULL, place IS NOT NULL FROM outbox.job",
            KEPT_VALUES "|u|01:00:00|t|0|0|t|t|t|t");
    PQfinish(conn);
}
END_TEST

/* Its attempts are removed with it, and it has to do with others as before. */
START_TEST(a_retried_job_is_as_linked_as_before)
{
    static const char *const links[] = {"key => 'k'", "repeat_every => '1 h'",
                                        "notify_done => true"};
    char sql[128];
    PGconn *conn = with_dispatcher();
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('a', %s)", links[_i]);
    pg_exec_ok(conn, sql);
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    ck_rows(conn, "SELECT outbox.retry(1)", "retried");
    ck_rows(conn, "SELECT linked, logged FROM outbox.job", "t|t");
    CLAIMED(conn, "1");
    DONE(conn, 1);
    ck_rows(conn, "SELECT count(*) FROM outbox.attempt", "0");
    ck_rows(conn, "SELECT state FROM outbox.jobs", _i == 1 ? "scheduled" : "");
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_that_is_put_dead_has_all_that_it_was_put_with)
{
    PGconn *conn = with_dispatcher();
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done; LISTEN outbox_dead");
    pg_exec_ok(conn, "SELECT outbox.enqueue('b')");
    CLAIMED(conn, "1");
    BECAME(conn, 1, DEAD);
    ck_rows(conn, WITH_ALL ", after => '{1}')", "2");
    ck_rows(conn, AS_DEAD " WHERE id = 2", KEPT_VALUES "|u|01:00:00|t|t");
    ck_rows(conn, "SELECT reason, attempts, lost, logged, blocks FROM outbox.dead WHERE id = 2",
            "dependency 1 is dead|0|0|f|f");
    pg_exec_ok(listener, "SELECT 1");
    int told = 0;
    for (PGnotify *n = PQnotifies(listener); n != NULL; n = PQnotifies(listener)) {
        told += strncmp(n->extra, "2 ", 2) == 0;
        PQfreemem(n);
    }
    ck_assert_int_eq(told, 2); /* on both channels */
    PQfinish(listener);
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_that_is_kept_has_what_it_was_put_with)
{
    PGconn *conn = with_dispatcher();
    ck_rows(conn,
            "SELECT outbox.enqueue('a', '[7]', key => 'k', unique_key => 'u', priority => 3,"
            " expires_at => '2100-01-01Z', max_attempts => 7, headers => '{\"h\": 1}', run_at =>"
            " '2001-01-01Z')",
            "1");
    CLAIMED(conn, "1");
    pg_exec_ok(conn, "UPDATE outbox.job SET lost = 1");
    BECAME(conn, 1, "{\"outcome\": \"done\", \"keep_ms\": 60000}");
    ck_rows(conn,
            "SELECT " KEPT_BY_ALL ", unique_key, attempts, lost, logged, keep_until - finished_at "
            "BETWEEN interval '59 s' AND interval '60 s' FROM outbox.done",
            KEPT_VALUES "|u|1|1|f|t");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_options");
    TCase *tc = sql_case(suite, "options");
    tcase_add_loop_test(tc, each_option_counts_whichever_way_it_is_put, 0, OPTIONS);
    tcase_add_loop_test(tc, a_dead_job_keeps_its_options_and_has_them_when_it_is_retried, 0, 2);
    tcase_add_loop_test(tc, a_retried_job_is_as_linked_as_before, 0, 3);
    tcase_add_test(tc, a_job_that_is_put_dead_has_all_that_it_was_put_with);
    tcase_add_test(tc, a_job_that_is_kept_has_what_it_was_put_with);
    return suite;
}
