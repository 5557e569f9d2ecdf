/* The daemon as a guest of the database: roles and grants, settings that others made, secrets, and
 * what it costs while there is nothing to do. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

static void start_as(const char *user, const char *const *args)
{
    char database[300];
    (void)snprintf(database, sizeof database, "OUTBOX_DATABASE=%s", testdb_conninfo_as(user));
    const char *const env[] = {database, NULL};
    daemon_start(&d, args, env);
}

/* Makes the role and what `outbox grant OPTION role` prints. Roles belong to the cluster: dropped
 * first, with what an earlier test left in another database gone with it. */
static void grant(const char *option, const char *role)
{
    char sql[200];
    (void)snprintf(sql, sizeof sql, "CREATE ROLE %s LOGIN", role);
    testdb_exec(sql);
    struct command_result r = OUTBOX_RUN("grant", option, role);
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    testdb_exec(r.out);
}

static void drop_role(const char *role)
{
    char sql[200];
    (void)snprintf(sql, sizeof sql, "DROP OWNED BY %s; DROP ROLE %s", role, role);
    testdb_exec(sql);
}

/* ---- roles ---- */

/* Neither is a superuser or the owner; neither may touch the tables. */
START_TEST(granted_roles_are_enough)
{
    grant("--dispatcher", "runner");
    grant("--producer", "shop");
    const char *const args[] = {
        "--config",
        e2e_config("tasks:\n  mail: {exec: [%s], backoff: 20ms}\n",
                   handler_script("mail", "[ $OUTBOX_ATTEMPT -ge 2 ] || exit 1")),
        NULL};
    start_as("runner", args);
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    PGconn *shop = testdb_connect_as("shop");
    pg_exec_ok(shop, "BEGIN");
    for (int i = 0; i < 10; i++)
        pg_exec_ok(shop, "SELECT outbox.enqueue('mail', '{\"n\": 1}')");
    pg_exec_ok(shop, "SELECT outbox.enqueue('mail', to_jsonb(repeat('x', 100000)))");
    pg_exec_ok(shop, "COMMIT");
    pg_exec_fails(shop, "SELECT * FROM outbox.job", "42501", NULL);
    pg_exec_fails(shop, "SELECT outbox.cancel(1)", "42501", NULL);
    PQfinish(shop);
    expect_all_ran(1, 11);
    /* Its sessions end: it takes up again. */
    testdb_exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runner'");
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&d);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "42501"), 0);
    drop_role("runner");
    drop_role("shop");
}
END_TEST

/* What is missing has a name, and the daemon goes on as soon as it is there. */
START_TEST(missing_grant_is_named_and_waited_for)
{
    testdb_exec("CREATE ROLE nobody_yet LOGIN");
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    start_as("nobody_yet", args);
    daemon_expect_log(&d, "sqlstate=42501", E2E_WAIT_MS);
    daemon_expect_log(&d, "outbox grant --dispatcher", 0);
    struct command_result r = OUTBOX_RUN("grant", "--dispatcher", "nobody_yet");
    testdb_exec(r.out);
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    daemon_stop(&d);
    drop_role("nobody_yet");
}
END_TEST

/* A right that goes away while the daemon runs: said, and nothing is lost. */
START_TEST(revoked_grant_is_named_and_waited_for)
{
    grant("--dispatcher", "runner");
    const char *const args[] = {"--shell", recording("mail", wait_for_flag("go")), NULL};
    start_as("runner", args);
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    testdb_exec("REVOKE EXECUTE ON FUNCTION outbox.settle FROM runner");
    flag_raise("go");
    daemon_expect_log(&d, "sqlstate=42501", E2E_WAIT_MS);
    daemon_expect_log(&d, "outbox grant --dispatcher", 0);
    testdb_exec("GRANT EXECUTE ON FUNCTION outbox.settle TO runner");
    expect_all_ran(1, 3);
    daemon_stop(&d);
    ck_assert_uint_eq(runs_count(), 3);
    drop_role("runner");
}
END_TEST

/* ---- settings ---- */

/* Whatever the database or the role sets, by intent or by accident, the session sets its own. */
static const char *const hostile_settings[] = {
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "search_path = nowhere",
    "lock_timeout = '1ms'",
    "statement_timeout = '20ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '200ms'",
    "synchronous_commit = off",
    "bytea_output = escape",
    "DateStyle = 'German'",
    "IntervalStyle = 'iso_8601'",
    "TimeZone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "client_encoding = LATIN1",
    "client_min_messages = debug5",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "row_security = off",
    "plan_cache_mode = force_custom_plan",
    "jit_above_cost = 0",
    "enable_indexscan = off",
    "transform_null_equals = on",
};
enum { HOSTILE = sizeof hostile_settings / sizeof hostile_settings[0] };

START_TEST(settings_of_the_database_do_not_matter)
{
    char sql[300];
    (void)snprintf(sql, sizeof sql,
                   "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s', current_database()); "
                   "END $$",
                   hostile_settings[_i]);
    /* A quote within the quotes of format(). */
    char doubled[400];
    size_t n = 0;
    const char *setting = strstr(sql, hostile_settings[_i]);
    for (const char *s = sql; *s != '\0'; s++) {
        doubled[n++] = *s;
        if (*s == '\'' && s >= setting && s < setting + strlen(hostile_settings[_i]))
            doubled[n++] = '\'';
    }
    doubled[n] = '\0';
    const char *handler = handler_script("mail", "[ $OUTBOX_ATTEMPT -ge 2 ] || { echo \"été\"; "
                                                 "exit 1; }");
    enqueue_jobs("mail", 20);
    testdb_exec("SELECT outbox.enqueue('mail', delay => '100 ms'), outbox.enqueue('mail', "
                "to_jsonb(repeat('é', 100000)), key => NULL, headers => '{\"é\": \"\\\\\"}')");
    testdb_exec(doubled);
    const char *const args[] = {
        "--config", e2e_config("tasks:\n  mail: {exec: [%s], backoff: 20ms}\n", handler), NULL};
    daemon_start_ready(&d, args, NULL);
    /* Through the daemon's own sessions alone: ours may be as badly set. */
    ck_assert(wait_until(runs_count() == 44, E2E_WAIT_MS));
    daemon_stop(&d);
    ck_assert_uint_eq(runs_distinct(), 22);
    ck_assert_uint_eq(daemon_log_count(&d, "level=error"), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "event=ready"), 1);
}
END_TEST

/* Somebody made the database read-only: that is respected, said, and waited for. */
START_TEST(read_only_database_is_waited_for)
{
    static const char alter[] = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET "
                                "default_transaction_read_only = %s', current_database()); END $$";
    char sql[200];
    (void)snprintf(sql, sizeof sql, alter, "on");
    testdb_exec(sql);
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start(&d, args, NULL);
    daemon_expect_log(&d, "session is read-only", E2E_WAIT_MS);
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SET default_transaction_read_only = off");
    (void)snprintf(sql, sizeof sql, alter, "off");
    pg_exec_ok(conn, sql);
    PQfinish(conn);
    daemon_expect_log(&d, "event=ready", E2E_WAIT_MS);
    daemon_stop(&d);
}
END_TEST

/* ---- secrets ---- */

static void expect_no_secret(void)
{
    ck_assert_uint_eq(daemon_log_count(&d, "hunter2"), 0);
    ck_assert_uint_gt(daemon_log_count(&d, "event="), 0);
}

START_TEST(password_is_never_logged)
{
    char database[400];
    (void)snprintf(database, sizeof database, "OUTBOX_DATABASE=%s password=hunter2",
                   testdb_conninfo());
    const char *const args[] = {"--log-level", "debug", "--shell", recording("mail", ""), NULL};
    const char *const env[] = {database, NULL};
    daemon_start_ready(&d, args, env);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    testdb_exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name "
                "LIKE 'outbox %'");
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    daemon_stop(&d);
    expect_no_secret();
}
END_TEST

/* Connection strings that lead nowhere, and some that are none. */
static const char *const bad_databases[] = {
    "OUTBOX_DATABASE=postgresql://outbox:hunter2@127.0.0.1:1/shop",
    "OUTBOX_DATABASE=host=/nowhere user=outbox password=hunter2",
    "OUTBOX_DATABASE=host=127.0.0.1 port=1 password='hunter2",
    "OUTBOX_DATABASE=postgresql://outbox:hunter2@[::1/shop",
    "OUTBOX_DATABASE=host=/nowhere pasword=hunter2",
};
enum { UNREACHABLE = 2, BAD_DATABASES = sizeof bad_databases / sizeof bad_databases[0] };

START_TEST(password_of_a_bad_database_is_never_logged)
{
    const char *const args[] = {"--log-level", "debug", "--shell", recording("mail", ""), NULL};
    const char *const env[] = {bad_databases[_i], NULL};
    daemon_start(&d, args, env);
    if (_i < UNREACHABLE) { /* waited for */
        daemon_expect_log(&d, "event=database_down", E2E_WAIT_MS);
        daemon_kill(&d, SIGTERM);
        ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 0);
    } else {
        ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 64); /* told before anything is begun */
        daemon_expect_log(&d, "bad database", 0);
    }
    ck_assert_uint_eq(daemon_log_count(&d, "hunter2"), 0);
}
END_TEST

/* ---- while there is nothing to do ---- */

/* Statements of the daemon's sessions so far, by the server's own log. */
static long statements(void)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/server.log", pgcluster_socket_dir());
    char *log = read_file_from(path, 0, NULL);
    long n = 0;
    ck_assert_ptr_nonnull(log);
    for (char *line = log; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        n += strstr(line, "] outbox ") != NULL && strstr(line, " ms  execute ") != NULL;
        line = end != NULL ? end + 1 : NULL;
    }
    free(log);
    return n;
}

START_TEST(idle_daemon_asks_little)
{
    enum { COUNTED = 12, PER_SECOND_MAX = 3 };
    testdb_exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET log_min_duration_statement = "
                "0', current_database()); END $$");
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start_ready(&d, args, NULL);
    long id = enqueue_one("mail", "{}");
    expect_all_ran(id, id);
    long before = statements();
    ck_assert_int_gt(before, 0);
    ck_assert(wait_until(statements() >= before + 4, E2E_WAIT_MS)); /* settled down */
    before = statements();
    uint64_t since_ms = wait_now_ms();
    ck_assert(wait_until(statements() >= before + COUNTED, E2E_WAIT_MS));
    uint64_t ms = wait_now_ms() - since_ms;
    ck_assert_msg(ms >= COUNTED * 1000 / PER_SECOND_MAX, "%d statements in %lu ms", COUNTED,
                  (unsigned long)ms);
    daemon_stop(&d);
}
END_TEST

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_MEASURABLE = 0 };
#else
enum { IS_MEASURABLE = 1 };
#endif

/* Sum of the smaps_rollup lines that begin with the text, in kB. */
static long memory_kb(const char *name)
{
    char path[64];
    char line[256];
    long sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)d.pid);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, name, strlen(name)) == 0 && colon != NULL)
            sum += strtol(colon + 1, NULL, 10);
    }
    (void)fclose(f);
    return sum;
}

START_TEST(idle_daemon_is_small)
{
    const char *const args[] = {"--shell", recording("mail", ""), NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_jobs("mail", 20);
    expect_all_ran(1, 20);
    if (IS_MEASURABLE) {
        ck_assert_int_gt(memory_kb("Rss:"), 0);
        ck_assert_int_le(memory_kb("Private_"), 4 * 1024);
        ck_assert_int_le(memory_kb("Rss:"), 16 * 1024);
    }
    daemon_stop(&d);
}
END_TEST

/* Its sessions stay although the server ends those that idle for a lease. */
START_TEST(idle_daemon_keeps_its_sessions)
{
    const char *const args[] = {
        "--config",
        e2e_config("lease: 12s\npoll_interval: 1h\ntasks:\n  mail: {exec: [%s]}\n",
                   handler_script("mail", "")),
        NULL};
    daemon_start_ready(&d, args, NULL);
    ck_assert(wait_until(testdb_long("SELECT coalesce(max(beat), 0) FROM outbox.dispatchers") >= 8,
                         E2E_WAIT_MS));
    ck_assert_uint_eq(daemon_log_count(&d, "event=database_down"), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "event=ready"), 1);
    daemon_stop(&d);
}
END_TEST

static TCase *server_tcase(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("standing");
    TCase *tc = server_tcase(s, "roles");
    tcase_add_test(tc, granted_roles_are_enough);
    tcase_add_test(tc, missing_grant_is_named_and_waited_for);
    tcase_add_test(tc, revoked_grant_is_named_and_waited_for);
    tc = server_tcase(s, "settings");
    tcase_add_loop_test(tc, settings_of_the_database_do_not_matter, 0, HOSTILE);
    tcase_add_test(tc, read_only_database_is_waited_for);
    tc = server_tcase(s, "secrets");
    tcase_add_test(tc, password_is_never_logged);
    tcase_add_loop_test(tc, password_of_a_bad_database_is_never_logged, 0, BAD_DATABASES);
    tc = server_tcase(s, "idle");
    tcase_add_test(tc, idle_daemon_asks_little);
    tcase_add_test(tc, idle_daemon_is_small);
    tcase_add_test(tc, idle_daemon_keeps_its_sessions);
    return s;
}
