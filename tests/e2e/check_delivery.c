/* Promises 1, 2, 4, 10 and 11, undisturbed: what commits runs once, what rolls back never does. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <outbox/outbox.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

#define START(...) daemon_start_ready(&d, (const char *const[]){__VA_ARGS__, NULL}, NULL)

static int64_t enqueue_from_c(PGconn *conn, const char *task, int64_t order)
{
    struct outbox_payload args;
    struct outbox_job job = OUTBOX_JOB(task);
    struct outbox_error err;
    int64_t id = 0;
    outbox_payload_init(&args);
    outbox_put_int(&args, "order", order);
    job.payload = &args;
    if (outbox_enqueue(conn, &job, &id, &err) != OUTBOX_OK)
        ck_abort_msg("outbox_enqueue: %s", err.message);
    outbox_payload_free(&args);
    return id;
}

/* The whole path: a C program's transaction, the daemon, a child that gets JSON on stdin. */
START_TEST(committed_job_runs_once)
{
    char handler[512];
    (void)snprintf(handler, sizeof handler, "cat > %s", flag_path("payload"));
    START("--shell", recording("mail", handler));
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "CREATE TABLE orders (id bigint PRIMARY KEY)");
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "INSERT INTO orders VALUES (1001)");
    int64_t id = enqueue_from_c(conn, "mail", 1001);
    ck_assert_uint_eq(runs_count(), 0);
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 1);
    ck_assert_uint_eq(runs_of((long)id), 1);
    FILE *f = fopen(flag_path("payload"), "r");
    char text[64] = "";
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(text, sizeof text, f));
    (void)fclose(f);
    ck_assert_str_eq(text, "{\"order\":1001}");
}
END_TEST

/* Rolled back as a whole, to a savepoint, aborted by an error, or by a lost connection: never runs.
 */
START_TEST(rolled_back_jobs_never_run)
{
    START("--shell", recording("mail", ""));
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    int64_t rolled_back = enqueue_from_c(conn, "mail", 1);
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(conn, "BEGIN");
    int64_t before = enqueue_from_c(conn, "mail", 2);
    pg_exec_ok(conn, "SAVEPOINT s");
    int64_t in_savepoint = enqueue_from_c(conn, "mail", 3);
    pg_exec_ok(conn, "ROLLBACK TO s");
    int64_t after = enqueue_from_c(conn, "mail", 4);
    pg_exec_ok(conn, "COMMIT");
    pg_exec_ok(conn, "BEGIN");
    int64_t aborted = enqueue_from_c(conn, "mail", 5);
    pg_exec_fails(conn, "SELECT 1/0", "22012", NULL);
    pg_exec_ok(conn, "COMMIT"); /* which rolls back */
    pg_exec_ok(conn, "BEGIN");
    int64_t cut_off = enqueue_from_c(conn, "mail", 6);
    PQfinish(conn);
    long last = enqueue_one("mail", "{}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of((long)before), 1);
    ck_assert_uint_eq(runs_of((long)after), 1);
    ck_assert_uint_eq(runs_of(last), 1);
    ck_assert_uint_eq(runs_of((long)rolled_back), 0);
    ck_assert_uint_eq(runs_of((long)in_savepoint), 0);
    ck_assert_uint_eq(runs_of((long)aborted), 0);
    ck_assert_uint_eq(runs_of((long)cut_off), 0);
    ck_assert_uint_eq(runs_count(), 3);
}
END_TEST

/* A transaction that commits late, with an id lower than ids already done, loses nothing (promise
 * 4). */
START_TEST(late_commit_with_a_lower_id_runs)
{
    START("--shell", recording("mail", ""));
    PGconn *slow = testdb_connect();
    pg_exec_ok(slow, "BEGIN");
    int64_t low = enqueue_from_c(slow, "mail", 1);
    enqueue_jobs("mail", 20);
    ck_assert(wait_until(runs_count() == 20, E2E_WAIT_MS));
    ck_assert_uint_eq(runs_of((long)low), 0);
    pg_exec_ok(slow, "COMMIT");
    PQfinish(slow);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of((long)low), 1);
    ck_assert_uint_eq(runs_count(), 21);
}
END_TEST

/* Nobody handles it: it stays, and is shown as such; a handler that comes later runs it (promise
 * 10). */
START_TEST(task_without_a_handler_is_left_alone_and_shown)
{
    START("--shell", recording("mail", ""));
    long orphan = enqueue_one("nobody", "{}");
    long mine = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(mine) == 1, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT handlers FROM outbox.stats WHERE task = 'nobody'"), 0);
    struct command_result r = OUTBOX_RUN("stats");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "nobody"));
    ck_assert_ptr_nonnull(strstr(r.out, "no dispatcher handles it"));
    daemon_stop(&d);
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.job WHERE task = 'nobody'"), 0);
    START("--shell", recording("nobody", ""));
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_of(orphan), 1);
}
END_TEST

START_TEST(scheduled_job_waits_for_its_time)
{
    START("--shell", recording("mail", ""));
    long later = testdb_long("SELECT outbox.enqueue('mail', delay => '1 hour')");
    long soon = testdb_long("SELECT outbox.enqueue('mail', delay => '1500 milliseconds')");
    long now = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(now) == 1, E2E_WAIT_MS));
    ck_assert(wait_until(runs_of(soon) == 1, E2E_WAIT_MS));
    ck_assert_uint_eq(runs_of(later), 0);
    ck_assert_str_eq(testdb_value("SELECT state FROM outbox.jobs"), "scheduled");
    daemon_stop(&d);
}
END_TEST

/* One slot: what waits is taken by priority, then age. */
START_TEST(priority_comes_first_then_age)
{
    testdb_exec("SELECT outbox.enqueue('mail', priority => p) FROM unnest(ARRAY[4, 3, 2, 1, 2]) p");
    START("--concurrency", "1", "--shell", recording("mail", ""));
    wait_until_all_done();
    daemon_stop(&d);
    FILE *f = fopen(ran_path(), "r");
    long ids[5] = {0};
    ck_assert_ptr_nonnull(f);
    for (size_t i = 0; i < 5; i++)
        ck_assert_int_eq(fscanf(f, "%ld %*d", &ids[i]), 1);
    (void)fclose(f);
    const long expected[5] = {4, 3, 5, 2, 1};
    for (size_t i = 0; i < 5; i++)
        ck_assert_int_eq(ids[i], expected[i]);
}
END_TEST

START_TEST(expired_job_is_put_aside_unrun)
{
    testdb_exec(
        "SELECT outbox.enqueue('mail', expires_at => clock_timestamp() + '20 ms'), pg_sleep(0.05)");
    START("--shell", recording("mail", ""));
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 0);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "expired");
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.dead"), 0);
}
END_TEST

/* Payloads over 64 KiB do not come with the claim; 1 MiB arrives whole, byte for byte. */
START_TEST(large_payload_arrives_whole)
{
    char handler[512];
    (void)snprintf(handler, sizeof handler, "sha256sum | cut -d' ' -f1 > %s", flag_path("sum"));
    START("--shell", recording("big", handler));
    testdb_exec("SELECT id FROM outbox.enqueue_bytes('big', convert_to(to_json(repeat('x', "
                "1000000))::text, 'UTF8'), 'json')");
    wait_until_all_done();
    daemon_stop(&d);
    FILE *f = fopen(flag_path("sum"), "r");
    char sum[80] = "";
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%79s", sum), 1);
    (void)fclose(f);
    ck_assert_str_eq(sum, testdb_value("SELECT encode(sha256(convert_to(to_json(repeat('x', "
                                       "1000000))::text, 'UTF8')), 'hex')"));
}
END_TEST

START_TEST(malformed_msgpack_ends_dead_with_the_reason)
{
    START("--shell", recording("mail", ""));
    testdb_exec("SELECT id FROM outbox.enqueue_bytes('mail', '\\xc1', 'msgpack')");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 0);
    ck_assert_ptr_nonnull(
        strstr(testdb_value("SELECT reason FROM outbox.dead"), "payload is not valid msgpack"));
}
END_TEST

START_TEST(webhook_receives_the_payload_and_an_identity)
{
    struct httpstub stub;
    const struct httpstub_answer ok = {.status = 204};
    char spec[128];
    httpstub_start(&stub, &ok, 1);
    (void)snprintf(spec, sizeof spec, "placed=http://127.0.0.1:%d/hook", stub.port);
    START("--webhook", spec);
    long id = enqueue_one("placed", "{\"order\": 7}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 1);
    ck_assert_str_eq(httpstub_body(&stub, 0), "{\"order\": 7}");
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "%ld-", id);
    ck_assert_ptr_nonnull(httpstub_header(&stub, 0, "webhook-id"));
    ck_assert_int_eq(strncmp(httpstub_header(&stub, 0, "webhook-id"), prefix, strlen(prefix)), 0);
    httpstub_stop(&stub);
}
END_TEST

/* Promise 11: a row can name a task, never a command, a URL, an environment name or a user. */
START_TEST(a_row_decides_nothing_but_its_task)
{
    char handler[512];
    (void)snprintf(handler, sizeof handler, "env > %s", flag_path("env"));
    const char *const args[] = {"--shell", recording("mail", handler), NULL};
    const char *const env[] = {"PGPASSWORD=secret", "OUTBOX_SECRET=secret", NULL};
    daemon_start_ready(&d, args, env);
    testdb_exec("SELECT outbox.enqueue('mail', '{\"LD_PRELOAD\": \"/tmp/evil.so\", \"x\": "
                "\"$(touch /tmp/evil)\"}',"
                " headers => '{\"LD_PRELOAD\": \"/tmp/evil.so\", \"PATH\": \"/tmp\", \"shell\": "
                "\"touch /tmp/evil\"}')");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 1);
    FILE *f = fopen(flag_path("env"), "r");
    char line[9000];
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f) != NULL) {
        ck_assert_msg(strncmp(line, "PG", 2) != 0, "%s", line);
        ck_assert_msg(strncmp(line, "LD_PRELOAD", 10) != 0, "%s", line);
        ck_assert_msg(strstr(line, "secret") == NULL, "%s", line);
        ck_assert_msg(strncmp(line, "PATH=/tmp\n", 10) != 0, "%s", line);
    }
    (void)fclose(f);
}
END_TEST

/* Other languages: plain SQL, the trigger, a batch. */
START_TEST(sql_trigger_and_batch_enqueue_too)
{
    START("--shell", recording("placed", ""));
    testdb_exec("CREATE TABLE orders (id bigint PRIMARY KEY);"
                "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION "
                "outbox.enqueue_row('placed');"
                "INSERT INTO orders SELECT generate_series(1, 5);"
                "SELECT outbox.enqueue('placed');"
                "SELECT * FROM outbox.enqueue_many('[{\"task\": \"placed\"}, {\"task\": "
                "\"placed\", \"payload\": [1]}]')");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 8);
    ck_assert_uint_eq(runs_distinct(), 8);
}
END_TEST

/* A new job is told, not polled for: with the next look twenty minutes away it still starts. */
START_TEST(enqueue_wakes_the_daemon)
{
    const char *config = test_file("outbox.yaml", "poll_interval: 1h\nlease: 1h\n", 0644);
    START("--config", config, "--shell", recording("mail", ""));
    for (int i = 0; i < 5; i++) {
        long id = enqueue_one("mail", "{}");
        ck_assert(wait_until(runs_of(id) == 1, E2E_WAIT_MS));
        wait_until_all_done();
    }
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("delivery");
    TCase *tc = tcase_create("undisturbed");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, committed_job_runs_once);
    tcase_add_test(tc, rolled_back_jobs_never_run);
    tcase_add_test(tc, late_commit_with_a_lower_id_runs);
    tcase_add_test(tc, task_without_a_handler_is_left_alone_and_shown);
    tcase_add_test(tc, scheduled_job_waits_for_its_time);
    tcase_add_test(tc, priority_comes_first_then_age);
    tcase_add_test(tc, expired_job_is_put_aside_unrun);
    tcase_add_test(tc, large_payload_arrives_whole);
    tcase_add_test(tc, malformed_msgpack_ends_dead_with_the_reason);
    tcase_add_test(tc, webhook_receives_the_payload_and_an_identity);
    tcase_add_test(tc, a_row_decides_nothing_but_its_task);
    tcase_add_test(tc, sql_trigger_and_batch_enqueue_too);
    tcase_add_test(tc, enqueue_wakes_the_daemon);
    suite_add_tcase(s, tc);
    return s;
}
