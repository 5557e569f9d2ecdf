/* consumer.h against a real server: waiting for the end of jobs.
 *
 * What happens while a call waits is done by on_look, on a connection of its own: so each step
 * comes after a look, and nothing is timed. Written in the common part of C99 and C++11:
 * tests/compile builds the same file as C++ too. */
#include <outbox/consumer.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "ck_main.h"
#include "pgcluster.h"
#ifdef __cplusplus
}
#endif

enum { FAR_MS = 600000, STEPS_MAX = 6, TEXT_SIZE = 512 };

static PGconn *conn;  /* the one that waits */
static PGconn *actor; /* who lets jobs end */
static struct outbox_error err;
static struct outbox_answer answers[1000];

/* The statements of each look in turn, and what was seen. */
static struct script {
    const char *steps[STEPS_MAX];
    size_t looks;
    size_t left[64];
    bool stop_after; /* on_look says so when the steps are over */
    size_t notified;
    char channel[64];
    char extra[64];
} script;

static bool on_look(void *arg, size_t left)
{
    struct script *s = (struct script *)arg;

    if (s->looks < 64)
        s->left[s->looks] = left;
    if (s->looks < STEPS_MAX && s->steps[s->looks] != NULL)
        pg_exec_ok(actor, s->steps[s->looks]);
    s->looks++;
    return !s->stop_after || s->looks < STEPS_MAX;
}

static void on_notify(void *arg, const PGnotify *notify)
{
    struct script *s = (struct script *)arg;

    s->notified++;
    (void)snprintf(s->channel, sizeof s->channel, "%s", notify->relname);
    (void)snprintf(s->extra, sizeof s->extra, "%s", notify->extra);
}

static void set_up_on(void)
{
    conn = testdb_connect();
    actor = testdb_connect();
    memset(&err, 0, sizeof err);
    memset(&script, 0, sizeof script);
}

static void set_up(void)
{
    testdb_create();
    set_up_on();
    pg_exec_ok(actor, "SELECT outbox.register(1, 'one', 'host', 'boot', 'lock', 42, '{}', '0.1.0',"
                      " '{a,b}', '1 minute')");
}

static void set_up_empty(void)
{
    testdb_create_empty();
    set_up_on();
}

static void tear_down(void)
{
    PQfinish(conn);
    PQfinish(actor);
    testdb_drop();
}

/* n jobs of task a, claimed; their ids are 1 to n, and their claims too. */
static void running_jobs(int n, bool notify_done)
{
    char sql[TEXT_SIZE];

    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('a', notify_done => %s) FROM generate_series(1, %d)",
                   notify_done ? "true" : "false", n);
    pg_exec_ok(actor, sql);
    (void)snprintf(sql, sizeof sql, "SELECT outbox.claim(1, 1, '{a}', '{%d}')", n);
    pg_exec_ok(actor, sql);
}

/* Settles one that runs; outcome: JSON, or NULL: done. Static storage, four of them. */
static const char *settle(int id, const char *outcome)
{
    static char sql[4][TEXT_SIZE];
    static int next;
    char *text = sql[next++ % 4];

    (void)snprintf(text, TEXT_SIZE,
                   "SELECT outbox.settle(1, '{%d}', (SELECT array_agg(claim) FROM outbox.job WHERE"
                   " id = %d), %s%s%s)",
                   id, id, outcome ? "'[" : "NULL", outcome ? outcome : "", outcome ? "]'" : "");
    return text;
}

#define KEEP  "{\"outcome\": \"done\", \"keep_ms\": 60000}"
#define DEAD  "{\"outcome\": \"dead\", \"reason\": \"exit 65\"}"
#define RETRY "{\"outcome\": \"retry\", \"reason\": \"exit 1\"}"

/* Waits by the script; poll_ms: FAR_MS: only notifications make it look again. */
static int wait_for(const int64_t *ids, size_t n, int64_t poll_ms)
{
    struct outbox_wait_options options;

    memset(&options, 0, sizeof options);
    options.timeout_ms = FAR_MS;
    options.poll_ms = poll_ms;
    options.on_look = on_look;
    options.on_notify = on_notify;
    options.arg = &script;
    return outbox_wait_with(conn, ids, n, &options, answers, &err);
}

#define ck_code(expr, expected)                                                                    \
    do {                                                                                           \
        int code_ = (expr);                                                                        \
        ck_assert_msg(code_ == (expected), "%d instead of %d: %s", code_, (expected),              \
                      err.message);                                                                \
    } while (0)
#define ck_state(i, expected)                                                                      \
    ck_assert_str_eq(outbox_state_name(answers[i].state), outbox_state_name(expected))

/* The channels that conn listens to. */
static const char *channels(void)
{
    static char text[TEXT_SIZE];
    PGresult *res = pg_query(
        conn, PGRES_TUPLES_OK,
        "SELECT coalesce(string_agg(c, ',' ORDER BY c), '') FROM pg_listening_channels() c");

    (void)snprintf(text, sizeof text, "%s", PQgetvalue(res, 0, 0));
    PQclear(res);
    return text;
}

static void expect_message(const char *text)
{
    ck_assert_msg(strstr(err.message, text) != NULL, "no \"%s\" in: %s", text, err.message);
}

/* --- what ended before --- */

START_TEST(jobs_that_ended_before_the_call_are_told_at_once)
{
    static const int64_t ids[5] = {1, 2, 3, 4, 3};

    running_jobs(3, true);
    pg_exec_ok(actor, settle(1, NULL));
    pg_exec_ok(actor, settle(2, KEEP));
    pg_exec_ok(actor, settle(3, DEAD));
    pg_exec_ok(actor, "SELECT outbox.cancel(outbox.enqueue('a'))");
    ck_code(outbox_wait(conn, ids, 5, 0, answers, &err), OUTBOX_OK);
    ck_state(0, OUTBOX_GONE);
    ck_state(1, OUTBOX_DONE);
    ck_state(2, OUTBOX_DEAD);
    ck_state(3, OUTBOX_GONE);
    ck_state(4, OUTBOX_DEAD);
    ck_code(outbox_wait(conn, ids, 0, 0, answers, &err), OUTBOX_OK);
    ck_code(outbox_wait(conn, NULL, 0, 0, NULL, &err), OUTBOX_OK);
}
END_TEST

START_TEST(when_the_time_is_up_the_answers_say_who_ended)
{
    static const int64_t ids[3] = {2, 1, 3};
    int timeout_ms;

    running_jobs(3, false);
    pg_exec_ok(actor, settle(1, DEAD));
    for (timeout_ms = 0; timeout_ms < 100; timeout_ms += 50) {
        memset(answers, 0x7f, sizeof answers);
        ck_code(outbox_wait(conn, ids, 3, timeout_ms, answers, &err), OUTBOX_ETIMEOUT);
        expect_message("2 of 3 jobs");
        ck_state(0, OUTBOX_LIVE);
        ck_state(1, OUTBOX_DEAD);
        ck_state(2, OUTBOX_LIVE);
        ck_assert_str_eq(channels(), "");
    }
}
END_TEST

START_TEST(an_id_that_was_never_given_out_is_an_error)
{
    static const int64_t ids[2] = {1, 77};

    running_jobs(1, false);
    ck_code(outbox_wait(conn, ids, 2, FAR_MS, answers, &err), OUTBOX_EINVAL);
    expect_message("there is no job 77");
    ck_state(0, OUTBOX_LIVE);
    ck_state(1, OUTBOX_UNKNOWN);
    ck_assert_str_eq(channels(), "");
}
END_TEST

/* --- what ends meanwhile --- */

START_TEST(a_notification_tells_of_each_kind_of_end)
{
    static const int64_t ids[4] = {1, 2, 3, 4};

    running_jobs(3, true);
    pg_exec_ok(actor, "SELECT outbox.enqueue('b', unique_key => 'u', notify_done => true)");
    script.steps[0] = settle(2, DEAD);
    script.steps[1] = settle(1, NULL);
    script.steps[2] = "SELECT outbox.cancel(4)";
    script.steps[3] = settle(3, KEEP);
    ck_code(wait_for(ids, 4, FAR_MS), OUTBOX_OK);
    ck_state(0, OUTBOX_DONE);
    ck_state(1, OUTBOX_DEAD);
    ck_state(2, OUTBOX_DONE);
    ck_state(3, OUTBOX_CANCELLED);
    ck_assert_uint_eq(script.looks, 5);
    ck_assert_uint_eq(script.left[0], 4);
    ck_assert_uint_eq(script.left[3], 1);
    ck_assert_uint_eq(script.left[4], 0);
    ck_assert_uint_eq(script.notified, 4);
    ck_assert_str_eq(channels(), "");
}
END_TEST

START_TEST(a_job_merged_into_its_twin_is_told_as_merged)
{
    static const int64_t ids[1] = {1};

    pg_exec_ok(actor, "SELECT outbox.enqueue('a', unique_key => 'u', notify_done => true)");
    pg_exec_ok(actor, "SELECT outbox.claim(1, 1, '{a}', '{1}')");
    pg_exec_ok(actor, "SELECT outbox.enqueue('a', unique_key => 'u')");
    script.steps[0] = settle(1, RETRY);
    ck_code(wait_for(ids, 1, FAR_MS), OUTBOX_OK);
    ck_state(0, OUTBOX_MERGED);
}
END_TEST

START_TEST(a_retry_is_no_end)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, true);
    script.steps[0] = settle(1, RETRY);
    script.steps[2] = "SELECT outbox.claim(1, 2, '{a}', '{1}')";
    script.steps[3] = settle(1, NULL);
    ck_code(wait_for(ids, 1, 20), OUTBOX_OK);
    ck_state(0, OUTBOX_DONE);
    ck_assert_uint_ge(script.looks, 5);
    ck_assert_uint_eq(script.left[1], 1);
    ck_assert_uint_eq(script.left[3], 1);
    ck_assert_uint_eq(script.notified, 1);
}
END_TEST

START_TEST(a_success_of_a_job_that_repeats_is_no_end)
{
    static const int64_t ids[1] = {1};

    pg_exec_ok(actor, "SELECT outbox.enqueue('a', repeat_every => '1 h', notify_done => true)");
    pg_exec_ok(actor, "SELECT outbox.claim(1, 1, '{a}', '{1}')");
    script.steps[0] = settle(1, NULL);
    script.steps[2] = "SELECT outbox.cancel(1)";
    ck_code(wait_for(ids, 1, 20), OUTBOX_OK);
    ck_state(0, OUTBOX_CANCELLED);
    ck_assert_uint_eq(script.left[1], 1);
}
END_TEST

START_TEST(a_job_that_did_not_ask_is_found_by_the_poll)
{
    static const int64_t ids[2] = {2, 1};

    running_jobs(2, false);
    script.steps[0] = settle(2, NULL);
    script.steps[1] = settle(1, DEAD);
    ck_code(wait_for(ids, 2, 20), OUTBOX_OK);
    ck_state(0, OUTBOX_GONE);
    ck_state(1, OUTBOX_DEAD);
    ck_assert_uint_eq(script.notified, 0);
}
END_TEST

START_TEST(a_forged_notification_ends_nothing)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, true);
    script.steps[0] = "SELECT pg_notify('outbox_done', '1 done')";
    script.steps[1] = "SELECT pg_notify('outbox_done', x) FROM unnest(ARRAY['', '1', '1done', 'x',"
                      " '1 nonsense', '99999999999999999999 done', '2 done', '1 dead']) AS x";
    script.steps[2] = settle(1, NULL);
    ck_code(wait_for(ids, 1, FAR_MS), OUTBOX_OK);
    ck_state(0, OUTBOX_DONE);
    ck_assert_uint_eq(script.looks, 4);
    ck_assert_uint_eq(script.left[2], 1);
}
END_TEST

START_TEST(ids_in_any_order_and_twice_are_found)
{
    int64_t ids[1000];
    int i;

    running_jobs(500, true);
    for (i = 0; i < 1000; i++)
        ids[i] = 1 + (i * 7) % 500;
    script.steps[0] =
        "SELECT outbox.settle(1, array_agg(id), array_agg(claim)) FROM outbox.job WHERE id <= 250";
    script.steps[1] = "SELECT outbox.settle(1, array_agg(id), array_agg(claim)) FROM outbox.job";
    ck_code(wait_for(ids, 1000, 50), OUTBOX_OK);
    for (i = 0; i < 1000; i++)
        ck_assert(answers[i].state == OUTBOX_DONE || answers[i].state == OUTBOX_GONE);
    ck_assert_uint_eq(script.notified, 500);
}
END_TEST

START_TEST(on_look_can_end_the_wait)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, false);
    script.stop_after = true;
    ck_code(wait_for(ids, 1, 5), OUTBOX_ETIMEOUT);
    ck_assert_uint_eq(script.looks, STEPS_MAX);
    ck_state(0, OUTBOX_LIVE);
}
END_TEST

/* --- the connection --- */

static bool never_more(void *arg, size_t left)
{
    (void)left;
    ++*(int *)arg;
    return false;
}

/* There is nothing to stop any more. */
START_TEST(who_stops_a_wait_that_is_over_has_the_answers)
{
    static const int64_t ids[1] = {1};
    struct outbox_wait_options options;
    int looks = 0;

    running_jobs(1, false);
    pg_exec_ok(conn, settle(1, NULL));
    memset(&options, 0, sizeof options);
    options.on_look = never_more;
    options.arg = &looks;
    ck_code(outbox_wait_with(conn, ids, 1, &options, answers, &err), OUTBOX_OK);
    ck_assert_int_eq(looks, 1);
    ck_state(0, OUTBOX_GONE);
}
END_TEST

static bool fifty(void *arg, size_t left)
{
    (void)left;
    return ++*(int *)arg < 50;
}

/* Each within the test's time limit, or not at all. */
START_TEST(looks_and_the_end_are_as_soon_as_asked_for)
{
    static const int64_t ids[1] = {1};
    struct outbox_wait_options options;
    int looks = 0;

    running_jobs(1, false);
    memset(&options, 0, sizeof options);
    options.poll_ms = _i == 0 ? 1 : FAR_MS;
    options.timeout_ms = _i == 0 ? FAR_MS : 50;
    options.on_look = fifty;
    options.arg = &looks;
    ck_code(outbox_wait_with(conn, ids, 1, &options, answers, &err), OUTBOX_ETIMEOUT);
    ck_assert_int_eq(looks, _i == 0 ? 50 : 1);
}
END_TEST

START_TEST(notifications_of_other_channels_are_handed_on)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, false);
    pg_exec_ok(conn, "LISTEN other");
    script.steps[0] = "SELECT pg_notify('other', 'hello')";
    script.steps[1] = settle(1, NULL);
    ck_code(wait_for(ids, 1, 100), OUTBOX_OK);
    ck_assert_uint_eq(script.notified, 1);
    ck_assert_str_eq(script.channel, "other");
    ck_assert_str_eq(script.extra, "hello");
    ck_assert_str_eq(channels(), "other");
}
END_TEST

START_TEST(a_connection_that_listened_before_still_does)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, true);
    pg_exec_ok(conn, "LISTEN outbox_done");
    script.steps[0] = settle(1, NULL);
    ck_code(wait_for(ids, 1, FAR_MS), OUTBOX_OK);
    ck_state(0, OUTBOX_DONE);
    ck_assert_str_eq(channels(), "outbox_done");
}
END_TEST

START_TEST(inside_a_transaction_it_refuses)
{
    static const int64_t ids[1] = {1};
    PGresult *res;

    running_jobs(1, false);
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_wait(conn, ids, 1, FAR_MS, answers, &err), OUTBOX_EINTX);
    expect_message("commit it");
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_INTRANS);
    pg_exec_ok(conn, "SELECT 1");
    pg_exec_fails(conn, "SELECT 1/0", "22012", NULL);
    ck_code(outbox_wait(conn, ids, 1, FAR_MS, answers, &err), OUTBOX_EABORTED);
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_str_eq(channels(), "");
    ck_assert_int_eq(PQsendQuery(conn, "SELECT 1"), 1);
    ck_code(outbox_wait(conn, ids, 1, FAR_MS, answers, &err), OUTBOX_EBUSY);
    while ((res = PQgetResult(conn)) != NULL)
        PQclear(res);
    ck_code(outbox_wait(NULL, ids, 1, FAR_MS, answers, &err), OUTBOX_EINVAL);
    ck_code(outbox_wait(conn, NULL, 1, FAR_MS, answers, &err), OUTBOX_EINVAL);
    ck_code(outbox_wait(conn, ids, 1, FAR_MS, NULL, &err), OUTBOX_EINVAL);
}
END_TEST

START_TEST(a_lost_connection_ends_the_wait)
{
    static const int64_t ids[1] = {1};
    char sql[TEXT_SIZE];

    running_jobs(1, false);
    (void)snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d)", PQbackendPID(conn));
    script.steps[0] = sql;
    ck_code(wait_for(ids, 1, FAR_MS), OUTBOX_ECONN);
    ck_assert_int_eq(PQstatus(conn), CONNECTION_BAD);
}
END_TEST

START_TEST(a_missing_grant_is_named)
{
    static const int64_t ids[1] = {1};

    running_jobs(1, false);
    testdb_exec("DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA outbox TO"
                " app");
    PQfinish(conn);
    conn = testdb_connect_as("app");
    ck_code(outbox_wait(conn, ids, 1, FAR_MS, answers, &err), OUTBOX_EPRIVILEGE);
    ck_assert_str_eq(err.sqlstate, "42501");
    expect_message("outbox grant");
    ck_assert_str_eq(channels(), "");
}
END_TEST

START_TEST(a_missing_schema_is_named)
{
    static const int64_t ids[1] = {1};

    ck_code(outbox_wait(conn, ids, 1, FAR_MS, answers, &err), OUTBOX_ESCHEMA);
    expect_message("outbox migrate");
}
END_TEST

/* --- query form --- */

static size_t ask(const int64_t *ids, size_t n, bool only_told, int format)
{
    struct outbox_query q;
    size_t left = 99;
    PGresult *res;

    ck_code(outbox_wait_query_init(&q, ids, answers, n, only_told, &err), OUTBOX_OK);
    ck_assert_ptr_nonnull(q.sql);
    res = PQexecParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, format);
    outbox_query_free(&q);
    ck_code(outbox_wait_query_result(res, answers, n, &left, &err), OUTBOX_OK);
    PQclear(res);
    return left;
}

START_TEST(query_form_tells_the_same_in_either_format)
{
    static const int64_t ids[3] = {3, 1, 2};
    struct outbox_query q;
    PGnotify *notify;

    running_jobs(3, true);
    pg_exec_ok(conn, "LISTEN outbox_done");
    memset(answers, 0, sizeof answers);
    ck_assert_uint_eq(ask(ids, 3, false, _i), 3);
    pg_exec_ok(actor, settle(1, DEAD));
    ck_assert_uint_eq(ask(ids, 3, false, _i), 2);
    ck_state(1, OUTBOX_DEAD);
    ck_code(outbox_wait_query_init(&q, ids, answers, 3, true, &err), OUTBOX_OK);
    ck_assert_ptr_null(q.sql); /* nobody was told of */
    outbox_query_free(&q);
    pg_exec_ok(actor, settle(2, NULL));
    pg_exec_ok(conn, "SELECT 1");
    notify = PQnotifies(conn);
    ck_assert(!outbox_wait_notify(notify, ids, answers, 3)); /* 1 is known to be dead */
    PQfreemem(notify);
    notify = PQnotifies(conn);
    ck_assert(outbox_wait_notify(notify, ids, answers, 3));
    PQfreemem(notify);
    ck_assert_uint_eq(ask(ids, 3, true, _i), 1);
    ck_state(2, OUTBOX_DONE);
    ck_state(0, OUTBOX_LIVE);
}
END_TEST

START_TEST(query_form_refuses_what_is_no_answer)
{
    static const int64_t ids[1] = {1};
    struct outbox_query q;
    PGresult *res;

    memset(answers, 0, sizeof answers);
    ck_code(outbox_wait_query_init(NULL, ids, answers, 1, false, &err), OUTBOX_EINVAL);
    ck_code(outbox_wait_query_init(&q, NULL, answers, 1, false, &err), OUTBOX_EINVAL);
    ck_code(outbox_wait_query_init(&q, ids, NULL, 1, false, &err), OUTBOX_EINVAL);
    ck_code(outbox_wait_query_init(&q, ids, answers, 1, false, &err), OUTBOX_OK);
    outbox_query_free(&q);
    ck_code(outbox_wait_query_result(NULL, answers, 1, NULL, &err), OUTBOX_EDB);
    res = PQexec(conn, "SELECT 'done' FROM generate_series(1, 2)");
    ck_code(outbox_wait_query_result(res, answers, 1, NULL, &err), OUTBOX_EDB);
    PQclear(res);
    res = PQexec(conn, "SELECT 1/0");
    ck_code(outbox_wait_query_result(res, answers, 1, NULL, &err), OUTBOX_EDB);
    PQclear(res);
    ck_state(0, OUTBOX_LIVE);
    ck_assert_str_eq(outbox_state_name((enum outbox_state)OUTBOX_UNKNOWN), "unknown");
    ck_assert_str_eq(outbox_state_name(OUTBOX_LIVE), "live");
}
END_TEST

static TCase *add_tcase(Suite *s, const char *name, void (*set_up_each)(void))
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up_each, tear_down);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("consumer");
    TCase *tc = add_tcase(s, "wait", set_up);

    tcase_add_test(tc, jobs_that_ended_before_the_call_are_told_at_once);
    tcase_add_test(tc, when_the_time_is_up_the_answers_say_who_ended);
    tcase_add_test(tc, an_id_that_was_never_given_out_is_an_error);
    tcase_add_test(tc, a_notification_tells_of_each_kind_of_end);
    tcase_add_test(tc, a_job_merged_into_its_twin_is_told_as_merged);
    tcase_add_test(tc, a_retry_is_no_end);
    tcase_add_test(tc, a_success_of_a_job_that_repeats_is_no_end);
    tcase_add_test(tc, a_job_that_did_not_ask_is_found_by_the_poll);
    tcase_add_test(tc, a_forged_notification_ends_nothing);
    tcase_add_test(tc, ids_in_any_order_and_twice_are_found);
    tcase_add_test(tc, on_look_can_end_the_wait);
    tcase_add_test(tc, who_stops_a_wait_that_is_over_has_the_answers);
    tcase_add_loop_test(tc, looks_and_the_end_are_as_soon_as_asked_for, 0, 2);
    tcase_add_test(tc, notifications_of_other_channels_are_handed_on);
    tcase_add_test(tc, a_connection_that_listened_before_still_does);
    tcase_add_test(tc, inside_a_transaction_it_refuses);
    tcase_add_test(tc, a_lost_connection_ends_the_wait);
    tcase_add_test(tc, a_missing_grant_is_named);
    tcase_add_loop_test(tc, query_form_tells_the_same_in_either_format, 0, 2);
    tcase_add_test(tc, query_form_refuses_what_is_no_answer);
    tc = add_tcase(s, "without the schema", set_up_empty);
    tcase_add_test(tc, a_missing_schema_is_named);
    return s;
}
