/* consumer.h against a real server: taking jobs, and waiting for one to take. Written in the common
 * part of C99 and C++11: tests/compile builds the same file as C++ too. */
#include <outbox/consumer.h>

#include <signal.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "child.h"
#include "ck_main.h"
#include "pgcluster.h"
#include "wait.h"
#ifdef __cplusplus
}
#endif

enum { FAR_MS = 600000, CHILD_MS = 20000, TEXT_SIZE = 512 };

static PGconn *conn;
static PGconn *other;
static struct outbox_error err;
static struct outbox_batch batch;

static void set_up_on(void)
{
    conn = testdb_connect();
    other = testdb_connect();
    memset(&err, 0, sizeof err);
    memset(&batch, 0, sizeof batch);
}

static void set_up(void)
{
    testdb_create();
    set_up_on();
}

static void set_up_empty(void)
{
    testdb_create_empty();
    set_up_on();
}

static void tear_down(void)
{
    outbox_batch_free(&batch);
    PQfinish(conn);
    PQfinish(other);
    testdb_drop();
}

#define ck_code(expr, expected)                                                                    \
    do {                                                                                           \
        int code_ = (expr);                                                                        \
        ck_assert_msg(code_ == (expected), "%d instead of %d: %s", code_, (expected),              \
                      err.message);                                                                \
    } while (0)

static void expect_message(const char *text)
{
    ck_assert_msg(strstr(err.message, text) != NULL, "no \"%s\" in: %s", text, err.message);
}

/* "ID ID ..." of the batch; static storage. */
static const char *ids(void)
{
    static char text[TEXT_SIZE];
    size_t len = 0;
    int i;

    text[0] = '\0';
    for (i = 0; i < batch.count; i++) {
        struct outbox_taken job;

        outbox_batch_job(&batch, i, &job);
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%lld", i > 0 ? " " : "",
                                (long long)job.id);
    }
    return text;
}

/* Takes n of task a within the transaction that is open on c, and compares the ids. */
static void take(PGconn *c, int n, const char *expected)
{
    outbox_batch_free(&batch);
    ck_code(outbox_take(c, "a", n, &batch, &err), OUTBOX_OK);
    ck_assert_str_eq(ids(), expected);
}

static void expect_value(const char *sql, const char *expected)
{
    const char *value = testdb_value(sql);

    ck_assert_str_eq(value != NULL ? value : "(null)", expected);
}

#define STATES "SELECT string_agg(id || ' ' || state, ', ' ORDER BY id) FROM outbox.jobs"

/* --- take --- */

START_TEST(a_taken_job_has_all_that_was_put)
{
    struct outbox_taken job;

    testdb_exec("SELECT outbox.enqueue('a', '{\"n\": 1}', priority => 1, key => 'k',"
                " headers => '{\"h\": 2}', max_attempts => 7);"
                "SELECT outbox.enqueue_bytes('a', '\\x8100', 'msgpack')");
    testdb_exec("UPDATE outbox.job SET attempts = 3, created_at = '2026-01-02 03:04:05.000006+00'"
                " WHERE id = 1");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 10, "1 2");
    outbox_batch_job(&batch, 0, &job);
    ck_assert_int_eq(job.priority, 1);
    ck_assert_int_eq(job.attempts, 3);
    ck_assert_int_eq(job.max_attempts, 7);
    ck_assert(job.is_json);
    ck_assert_str_eq(job.payload, "{\"n\": 1}");
    ck_assert_uint_eq(job.payload_len, 8);
    ck_assert_str_eq(job.headers, "{\"h\": 2}");
    ck_assert_str_eq(job.key, "k");
    ck_assert_int_eq(job.created_at_us, 1767323045000006);
    outbox_batch_job(&batch, 1, &job);
    ck_assert_int_eq(job.priority, 2);
    ck_assert_int_eq(job.max_attempts, 0);
    ck_assert(!job.is_json);
    ck_assert_uint_eq(job.payload_len, 2);
    ck_assert_int_eq(memcmp(job.payload, "\x81\0", 2), 0);
    ck_assert_ptr_null(job.headers);
    ck_assert_ptr_null(job.key);
}
END_TEST

START_TEST(committed_they_are_gone_and_rolled_back_they_are_there)
{
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 1, "1");
    pg_exec_ok(conn, "SAVEPOINT s");
    take(conn, 1, "2");
    pg_exec_ok(conn, "ROLLBACK TO s");
    pg_exec_ok(conn, "COMMIT");
    expect_value(STATES, "2 ready, 3 ready");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 5, "2 3");
    pg_exec_ok(conn, "ROLLBACK");
    expect_value("SELECT string_agg(id || ' ' || state || ' ' || attempts, ', ' ORDER BY id)"
                 " FROM outbox.jobs",
                 "2 ready 0, 3 ready 0");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 5, "2 3");
    PQfinish(conn);
    conn = testdb_connect();
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.can_take('a') c WHERE c") == 1,
                         CHILD_MS));
    expect_value(STATES, "2 ready, 3 ready");
}
END_TEST

START_TEST(outside_a_transaction_nothing_is_taken)
{
    testdb_exec("SELECT outbox.enqueue('a')");
    ck_code(outbox_take(conn, "a", 1, &batch, &err), OUTBOX_ENOTX);
    expect_message("BEGIN first");
    expect_value(STATES, "1 ready");
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_take(conn, NULL, 1, &batch, &err), OUTBOX_EINVAL);
    ck_code(outbox_take(conn, "a", -1, &batch, &err), OUTBOX_EINVAL);
    ck_code(outbox_take(conn, "a", 1, NULL, &err), OUTBOX_EINVAL);
    ck_code(outbox_take(NULL, "a", 1, &batch, &err), OUTBOX_EINVAL);
    ck_code(outbox_take(conn, "a", 0, &batch, &err), OUTBOX_OK);
    ck_assert_int_eq(batch.count, 0);
    outbox_batch_free(&batch);
    ck_code(outbox_take(conn, "none", 9, &batch, &err), OUTBOX_OK);
    ck_assert_int_eq(batch.count, 0);
    outbox_batch_free(&batch);
    outbox_batch_free(&batch);
    outbox_batch_free(NULL);
    pg_exec_fails(conn, "SELECT 1/0", "22012", NULL);
    ck_code(outbox_take(conn, "a", 1, &batch, &err), OUTBOX_EABORTED);
}
END_TEST

START_TEST(several_consumers_take_different_jobs_by_priority)
{
    testdb_exec("SELECT outbox.enqueue('a', priority => p) FROM unnest('{3,2,1,2}'::int[]) p;"
                "SELECT outbox.enqueue('b')");
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(other, "BEGIN");
    take(conn, 2, "3 2");
    take(other, 9, "4 1");
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(other, "COMMIT");
    expect_value(STATES, "2 ready, 3 ready, 5 ready");
}
END_TEST

START_TEST(of_a_key_only_the_first_is_taken_and_the_next_after_the_commit)
{
    testdb_exec("SELECT outbox.enqueue('a', key => 'k') FROM generate_series(1, 2);"
                "SELECT outbox.enqueue('a', after => '{2}')");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 9, "1");
    pg_exec_ok(other, "BEGIN");
    take(other, 9, "");
    pg_exec_ok(other, "ROLLBACK");
    pg_exec_ok(conn, "COMMIT");
    expect_value(STATES, "2 ready, 3 waiting");
    pg_exec_ok(other, "BEGIN");
    take(other, 9, "2");
    pg_exec_ok(other, "COMMIT");
    expect_value(STATES, "3 ready");
}
END_TEST

START_TEST(an_expired_job_is_not_taken_but_dead)
{
    testdb_exec(
        "SELECT outbox.enqueue('a', expires_at => '2020-01-01'); SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 9, "2");
    pg_exec_ok(conn, "COMMIT");
    expect_value(STATES, "1 dead");
}
END_TEST

START_TEST(query_form_takes_in_binary_format_only)
{
    struct outbox_query q;
    PGresult *res;

    testdb_exec("SELECT outbox.enqueue('a', '[7]')");
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_take_query_init(&q, "a", 5, &err), OUTBOX_OK);
    res = PQexecParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0);
    ck_code(outbox_take_query_result(res, &batch, &err), OUTBOX_EDB);
    PQclear(res);
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(conn, "BEGIN");
    res = PQexecParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 1);
    outbox_query_free(&q);
    ck_code(outbox_take_query_result(res, &batch, &err), OUTBOX_OK);
    ck_assert_str_eq(ids(), "1");
    ck_code(outbox_take_query_result(NULL, &batch, &err), OUTBOX_EDB);
}
END_TEST

/* --- failures --- */

/* The time has come that a failed one waits for. */
#define MAKE_DUE                                                                                   \
    "UPDATE outbox.job SET run_at = clock_timestamp() WHERE ready_xid IS NULL; SELECT "            \
    "outbox.due()"

START_TEST(a_failure_is_counted_delayed_and_the_last_is_dead)
{
    enum outbox_failure failure = OUTBOX_NOT_COUNTED;

    testdb_exec("SELECT outbox.enqueue('a', max_attempts => 3)");
    ck_code(outbox_take_failed(conn, 1, "no paper", -1, 0, &failure, &err), OUTBOX_OK);
    ck_assert_int_eq(failure, OUTBOX_WILL_RETRY);
    expect_value("SELECT state || ' ' || attempts || ' ' || (run_at BETWEEN now() + '4 s' AND"
                 " now() + '5 s') FROM outbox.jobs",
                 "scheduled 1 true");
    ck_code(outbox_take_failed(conn, 1, "no paper", 0, 0, &failure, &err), OUTBOX_OK);
    ck_assert_int_eq(failure, OUTBOX_NOT_COUNTED); /* it waits */
    testdb_exec(MAKE_DUE);
    ck_code(outbox_take_failed(conn, 1, "no ink", 3600000, 0, NULL, &err), OUTBOX_OK);
    expect_value("SELECT state || ' ' || (run_at BETWEEN now() + '59 min' AND now() + '60 min')"
                 " FROM outbox.jobs",
                 "scheduled true");
    testdb_exec(MAKE_DUE);
    ck_code(outbox_take_failed(conn, 1, "no hope", 0, 99, &failure, &err), OUTBOX_OK);
    ck_assert_int_eq(failure, OUTBOX_GAVE_UP);
    expect_value("SELECT state || ' ' || attempts || ' ' || reason FROM outbox.jobs",
                 "dead 3 no hope");
    expect_value("SELECT string_agg(outcome || ' ' || reason, ', ' ORDER BY attempt) FROM"
                 " outbox.attempts",
                 "retry no paper, retry no ink, dead no hope");
    ck_code(outbox_take_failed(conn, 1, "again", 0, 0, &failure, &err), OUTBOX_OK);
    ck_assert_int_eq(failure, OUTBOX_NOT_COUNTED);
    ck_code(outbox_take_failed(conn, 1, NULL, 0, 0, &failure, &err), OUTBOX_EINVAL);
    ck_code(outbox_take_failed(conn, 1, "x", INT64_MAX, 0, &failure, &err), OUTBOX_EINVAL);
}
END_TEST

START_TEST(without_a_limit_of_its_own_the_call_gives_one)
{
    enum outbox_failure failure = OUTBOX_NOT_COUNTED;
    int i;

    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    ck_code(outbox_take_failed(conn, 1, "x", 0, 1, &failure, &err), OUTBOX_OK);
    ck_assert_int_eq(failure, OUTBOX_GAVE_UP);
    for (i = 1; i <= 20; i++) {
        ck_code(outbox_take_failed(conn, 2, "x", 0, 0, &failure, &err), OUTBOX_OK);
        ck_assert_int_eq(failure, i < 20 ? OUTBOX_WILL_RETRY : OUTBOX_GAVE_UP);
        testdb_exec("SELECT outbox.due()");
    }
}
END_TEST

/* --- waiting for one --- */

/* What conn holds of a wait: channels and advisory locks. */
static void expect_restored(const char *channels)
{
    char sql[TEXT_SIZE];
    PGresult *res = pg_query(
        conn, PGRES_TUPLES_OK,
        "SELECT coalesce(string_agg(c, ',' ORDER BY c), '') FROM pg_listening_channels() c");

    ck_assert_str_eq(PQgetvalue(res, 0, 0), channels);
    PQclear(res);
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %d",
                   PQbackendPID(conn));
    ck_assert_int_eq(testdb_long(sql), 0);
}

START_TEST(a_job_that_is_there_is_told_at_once)
{
    testdb_exec("SELECT outbox.enqueue('a'); SELECT outbox.enqueue('c', key => 'k')");
    ck_code(outbox_take_wait(conn, "a", 0, &err), OUTBOX_OK);
    ck_code(outbox_take_wait(conn, "c", 0, &err), OUTBOX_OK);
    expect_restored("");
    ck_code(outbox_take_wait(conn, "b", 0, &err), OUTBOX_ETIMEOUT);
    ck_code(outbox_take_wait(conn, "b", 30, &err), OUTBOX_ETIMEOUT);
    expect_message("no job of task b");
    expect_restored("");
    pg_exec_ok(conn, "LISTEN outbox");
    ck_code(outbox_take_wait(conn, "b", 0, &err), OUTBOX_ETIMEOUT);
    expect_restored("outbox");
}
END_TEST

/* Else who waits would turn and turn: told of a job that take then passes over. */
START_TEST(a_job_that_somebody_has_is_not_told)
{
    testdb_exec("SELECT outbox.enqueue('a')");
    pg_exec_ok(other, "BEGIN");
    take(other, 1, "1");
    ck_code(outbox_take_wait(conn, "a", 30, &err), OUTBOX_ETIMEOUT);
    pg_exec_ok(other, "COMMIT");
    testdb_exec("SELECT outbox.enqueue('a', key => 'k')");
    pg_exec_ok(other, "BEGIN; SELECT outbox.enqueue('a', key => 'k')"); /* holds the key */
    ck_code(outbox_take_wait(conn, "a", 30, &err), OUTBOX_ETIMEOUT);
    pg_exec_ok(conn, "BEGIN");
    take(conn, 9, "");
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(other, "ROLLBACK");
    ck_code(outbox_take_wait(conn, "a", 0, &err), OUTBOX_OK);
    testdb_exec("SELECT outbox.register(1, 'n', 'h', 'b', 'l', 1, '{}', '1', '{a}', '1 minute')");
    testdb_exec("SELECT outbox.claim(1, 1, '{a}', '{5}')");
    ck_code(outbox_take_wait(conn, "a", 30, &err), OUTBOX_ETIMEOUT);
}
END_TEST

START_TEST(a_scheduled_job_is_told_when_its_time_has_come)
{
    testdb_exec("SELECT outbox.enqueue('a', delay => '200 ms')");
    ck_code(outbox_take_wait(conn, "a", FAR_MS, &err), OUTBOX_OK);
    pg_exec_ok(conn, "BEGIN");
    take(conn, 1, "1");
}
END_TEST

/* A child does this when conn is seen to be asleep; exits with 0 if that sent a notification. */
static int when_asleep(int pid, const char *what)
{
    char sql[TEXT_SIZE];
    PGconn *c = PQconnectdb(testdb_conninfo());
    PGresult *res;
    PGnotify *notify;
    bool asleep = false;
    int n = 0;

    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_locks WHERE pid = %d AND locktype = 'advisory' AND"
                   " classid = 1869968482 AND mode = 'ShareLock'",
                   pid);
    PQclear(PQexec(c, "LISTEN outbox"));
    for (; !asleep && n < CHILD_MS / 10; n++) {
        res = PQexec(c, sql);
        asleep = *PQgetvalue(res, 0, 0) == '1';
        PQclear(res);
        wait_pause();
    }
    res = PQexec(c, what);
    asleep = asleep && PQresultStatus(res) == PGRES_TUPLES_OK;
    PQclear(res);
    notify = PQnotifies(c);
    asleep = asleep && notify != NULL;
    PQfreemem(notify);
    PQfinish(c);
    return asleep ? 0 : 1;
}

START_TEST(who_waits_is_woken_by_who_enqueues)
{
    int own = PQbackendPID(conn);
    pid_t pid = child_fork(SIGKILL);

    if (pid == 0)
        _exit(when_asleep(own, "SELECT outbox.enqueue('a')"));
    ck_code(outbox_take_wait(conn, "a", FAR_MS, &err), OUTBOX_OK);
    ck_assert_int_eq(child_wait(pid, CHILD_MS), 0);
    expect_restored("");
    pg_exec_ok(conn, "BEGIN");
    take(conn, 1, "1");
}
END_TEST

START_TEST(who_waits_for_a_paused_task_is_woken_when_it_is_resumed)
{
    int own = PQbackendPID(conn);
    pid_t pid;

    testdb_exec("SELECT outbox.enqueue('a'); SELECT outbox.pause('a')");
    ck_code(outbox_take_wait(conn, "a", 30, &err), OUTBOX_ETIMEOUT);
    pid = child_fork(SIGKILL);
    if (pid == 0)
        _exit(when_asleep(own, "SELECT outbox.resume('a')"));
    ck_code(outbox_take_wait(conn, "a", FAR_MS, &err), OUTBOX_OK);
    ck_assert_int_eq(child_wait(pid, CHILD_MS), 0);
}
END_TEST

START_TEST(inside_a_transaction_it_does_not_wait)
{
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_take_wait(conn, "a", FAR_MS, &err), OUTBOX_EINTX);
    pg_exec_ok(conn, "ROLLBACK");
    ck_code(outbox_take_wait(conn, NULL, FAR_MS, &err), OUTBOX_EINVAL);
    ck_code(outbox_take_wait(NULL, "a", FAR_MS, &err), OUTBOX_EINVAL);
    expect_restored("");
}
END_TEST

/* --- rights --- */

START_TEST(a_missing_grant_is_named)
{
    testdb_exec("DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA outbox TO"
                " app");
    PQfinish(conn);
    conn = testdb_connect_as("app");
    ck_code(outbox_take_wait(conn, "a", 0, &err), OUTBOX_EPRIVILEGE);
    expect_message("`outbox grant --dispatcher app`");
    expect_restored("");
    ck_code(outbox_take_failed(conn, 1, "x", 0, 0, NULL, &err), OUTBOX_EPRIVILEGE);
    expect_message("`outbox grant --dispatcher app`");
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_take(conn, "a", 1, &batch, &err), OUTBOX_EPRIVILEGE);
    expect_message("`outbox grant --dispatcher app`");
    ck_assert_str_eq(err.sqlstate, "42501");
}
END_TEST

START_TEST(a_missing_schema_is_named)
{
    ck_code(outbox_take_wait(conn, "a", 0, &err), OUTBOX_ESCHEMA);
    expect_message("outbox migrate");
    pg_exec_ok(conn, "BEGIN");
    ck_code(outbox_take(conn, "a", 1, &batch, &err), OUTBOX_ESCHEMA);
    ck_assert_int_eq(batch.count, 0);
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
    Suite *s = suite_create("take");
    TCase *tc = add_tcase(s, "take", set_up);

    tcase_add_test(tc, a_taken_job_has_all_that_was_put);
    tcase_add_test(tc, committed_they_are_gone_and_rolled_back_they_are_there);
    tcase_add_test(tc, outside_a_transaction_nothing_is_taken);
    tcase_add_test(tc, several_consumers_take_different_jobs_by_priority);
    tcase_add_test(tc, of_a_key_only_the_first_is_taken_and_the_next_after_the_commit);
    tcase_add_test(tc, an_expired_job_is_not_taken_but_dead);
    tcase_add_test(tc, query_form_takes_in_binary_format_only);
    tc = add_tcase(s, "failures", set_up);
    tcase_add_test(tc, a_failure_is_counted_delayed_and_the_last_is_dead);
    tcase_add_test(tc, without_a_limit_of_its_own_the_call_gives_one);
    tc = add_tcase(s, "waiting for one", set_up);
    tcase_add_test(tc, a_job_that_is_there_is_told_at_once);
    tcase_add_test(tc, a_job_that_somebody_has_is_not_told);
    tcase_add_test(tc, a_scheduled_job_is_told_when_its_time_has_come);
    tcase_add_test(tc, who_waits_is_woken_by_who_enqueues);
    tcase_add_test(tc, who_waits_for_a_paused_task_is_woken_when_it_is_resumed);
    tcase_add_test(tc, inside_a_transaction_it_does_not_wait);
    tcase_add_test(tc, a_missing_grant_is_named);
    tc = add_tcase(s, "without the schema", set_up_empty);
    tcase_add_test(tc, a_missing_schema_is_named);
    return s;
}
