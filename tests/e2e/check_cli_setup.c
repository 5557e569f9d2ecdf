/* migrate, grant, check and try; and every command without schema or without privileges. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/err.h"
#include "ck_main.h"
#include "daemon.h"
#include "httpstub.h"
#include "pgcluster.h"

static void expect_text(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        ck_abort_msg("no \"%s\" in:\n%.2000s", wanted, text);
}

static void expect_ok(struct command_result r)
{
    ck_assert_msg(r.exit_code == 0, "exit code %d, stderr: %.1000s", r.exit_code, r.err);
}

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    ck_assert_msg(json != NULL, "%s in %.2000s", error.text, text);
    return json;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "(no string)";
}

/* --- migrate --- */

START_TEST(migrate_makes_the_schema_and_says_each_step)
{
    struct command_result r = OUTBOX_RUN("migrate", "--status");
    expect_ok(r);
    expect_text(r.out, "0001_tables.sql");
    expect_text(r.out, "pending");
    expect_text(r.out, "run `outbox migrate`");
    r = OUTBOX_RUN("migrate");
    expect_ok(r);
    expect_text(r.out, "applied 0001_tables.sql\n");
    expect_text(r.out, "applied views.sql\n");
    expect_text(r.out, "is up to date\n");
    r = OUTBOX_RUN("migrate");
    expect_ok(r);
    expect_text(r.out, "nothing to do");
    ck_assert_ptr_null(strstr(r.out, "applied "));
    r = OUTBOX_RUN("migrate", "--status");
    expect_ok(r);
    expect_text(r.out, "up to date\n");
    ck_assert_ptr_null(strstr(r.out, "pending"));
    expect_ok(OUTBOX_RUN("enqueue", "t"));
}
END_TEST

START_TEST(migrate_speaks_json)
{
    json_t *json = parse(OUTBOX_RUN("migrate", "--status", "--json").out);
    ck_assert_uint_gt(json_array_size(json), 2);
    ck_assert_str_eq(text_of(json_array_get(json, 0), "name"), "0001_tables.sql");
    ck_assert_str_eq(text_of(json_array_get(json, 0), "state"), "pending");
    size_t steps = json_array_size(json);
    json_decref(json);
    json = parse(OUTBOX_RUN("migrate", "--json").out);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "applied")), steps);
    json_decref(json);
    json = parse(OUTBOX_RUN("migrate", "--status", "--json").out);
    ck_assert_str_eq(text_of(json_array_get(json, 0), "state"), "applied");
    ck_assert_uint_gt(strlen(text_of(json_array_get(json, 0), "applied_at")), 15);
    json_decref(json);
}
END_TEST

START_TEST(the_printed_script_makes_the_same_schema)
{
    struct command_result r = OUTBOX_RUN("migrate", "--print", "--database", "host=/nonexistent");
    expect_ok(r);
    char *script = strdup(r.out);
    ck_assert_ptr_nonnull(script);
    testdb_exec(script);
    free(script);
    r = OUTBOX_RUN("migrate");
    expect_ok(r);
    expect_text(r.out, "nothing to do");
}
END_TEST

static const char *const needing_schema[][4] = {
    {"enqueue", "t"},   {"jobs"},        {"jobs", "--count"},      {"show", "1"},
    {"stats"},          {"dispatchers"}, {"cancel", "1"},          {"retry", "1"},
    {"retry", "--all"}, {"wait", "1"},   {"purge", "dead", "-o1d"}};

START_TEST(a_missing_schema_is_told_with_69)
{
    struct command_result r = run_outbox(NULL, needing_schema[_i]);
    ck_assert_msg(r.exit_code == OB_EXIT_INCOMPATIBLE, "exit code %d: %s", r.exit_code, r.err);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "run `outbox migrate`");
    expect_text(r.err, "database \"t_");
}
END_TEST

START_TEST(a_schema_that_needs_a_newer_program_is_told_with_69)
{
    expect_ok(OUTBOX_RUN("migrate"));
    testdb_exec("INSERT INTO outbox.migration (name, checksum, min_level) VALUES "
                "('9999_future.sql', 'x', 9999)");
    for (size_t i = 0; i < sizeof needing_schema / sizeof needing_schema[0]; i++) {
        struct command_result r = run_outbox(NULL, needing_schema[i]);
        ck_assert_msg(r.exit_code == OB_EXIT_INCOMPATIBLE, "%s: exit code %d: %s",
                      needing_schema[i][0], r.exit_code, r.err);
        expect_text(r.err, "install a newer outbox");
    }
    struct command_result r = OUTBOX_RUN("migrate");
    ck_assert_int_eq(r.exit_code, OB_EXIT_INCOMPATIBLE);
}
END_TEST

START_TEST(a_database_that_is_not_there_is_a_failure_with_a_hint)
{
    char conninfo[256];
    (void)snprintf(conninfo, sizeof conninfo,
                   "host=%s dbname=nowhere user=postgres password=hunter2", pgcluster_socket_dir());
    struct command_result r = OUTBOX_RUN("jobs", "--database", conninfo);
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "nowhere");
    expect_text(r.err, "createdb");
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
    (void)snprintf(conninfo, sizeof conninfo,
                   "postgresql://nobody_at_all:hunter2@/postgres?host=%s", pgcluster_socket_dir());
    r = OUTBOX_RUN("jobs", "--database", conninfo);
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "nobody_at_all");
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
}
END_TEST

START_TEST(a_server_in_recovery_of_a_crash_can_be_reached_afterwards)
{
    expect_ok(OUTBOX_RUN("migrate"));
    pgcluster_crash();
    struct command_result r = OUTBOX_RUN("jobs");
    ck_assert_int_eq(r.exit_code, OB_EXIT_TRY_AGAIN);
    pgcluster_start_again();
    expect_ok(OUTBOX_RUN("jobs"));
}
END_TEST

/* --- roles --- */

/* The output of `outbox grant` is run as it is. */
static void grant(const char *option, const char *role)
{
    char sql[256];
    (void)snprintf(
        sql, sizeof sql,
        "DO $$ BEGIN CREATE ROLE %s LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        role);
    testdb_exec(sql);
    if (option == NULL)
        return;
    struct command_result r = OUTBOX_RUN("grant", option, role);
    expect_ok(r);
    char *script = strdup(r.out);
    ck_assert_ptr_nonnull(script);
    testdb_exec(script);
    free(script);
}

static struct command_result as(const char *role, const char *a, const char *b, const char *c)
{
    const char *args[8] = {a};
    size_t n = 1;
    if (b != NULL)
        args[n++] = b;
    if (c != NULL)
        args[n++] = c;
    args[n++] = "--database";
    args[n] = testdb_conninfo_as(role);
    return run_outbox(NULL, args);
}

static void expect_refused(struct command_result r, const char *role, const char *option)
{
    char wanted[128];
    ck_assert_msg(r.exit_code == OB_EXIT_FAILED, "exit code %d: %s%s", r.exit_code, r.out, r.err);
    (void)snprintf(wanted, sizeof wanted, "role \"%s\" may not do this", role);
    expect_text(r.err, wanted);
    (void)snprintf(wanted, sizeof wanted, "`outbox grant %s %s`", option, role);
    expect_text(r.err, wanted);
}

START_TEST(a_role_without_privileges_is_told_which_grant_is_missing)
{
    grant(NULL, "cli_nobody");
    expect_refused(as("cli_nobody", "jobs", NULL, NULL), "cli_nobody", "--reader");
    expect_refused(as("cli_nobody", "stats", NULL, NULL), "cli_nobody", "--reader");
    expect_refused(as("cli_nobody", "show", "1", NULL), "cli_nobody", "--reader");
    expect_refused(as("cli_nobody", "enqueue", "t", NULL), "cli_nobody", "--producer");
    expect_refused(as("cli_nobody", "cancel", "1", NULL), "cli_nobody", "--dispatcher");
    expect_refused(as("cli_nobody", "retry", "1", NULL), "cli_nobody", "--dispatcher");
}
END_TEST

START_TEST(migrate_without_the_right_to_create_says_so)
{
    grant(NULL, "cli_nobody");
    testdb_exec("DROP SCHEMA outbox CASCADE");
    struct command_result r = as("cli_nobody", "migrate", NULL, NULL);
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "permission denied for database");
    ck_assert_ptr_null(strstr(r.out, "applied"));
}
END_TEST

START_TEST(a_producer_may_enqueue_and_nothing_else)
{
    grant("--producer", "cli_producer");
    expect_ok(as("cli_producer", "enqueue", "t", "{\"a\": 1}"));
    expect_refused(as("cli_producer", "jobs", NULL, NULL), "cli_producer", "--reader");
    expect_refused(as("cli_producer", "cancel", "1", NULL), "cli_producer", "--dispatcher");
}
END_TEST

START_TEST(a_reader_may_look_and_nothing_else)
{
    expect_ok(OUTBOX_RUN("enqueue", "t", "{\"a\": 1}"));
    grant("--reader", "cli_reader");
    expect_ok(as("cli_reader", "jobs", NULL, NULL));
    expect_ok(as("cli_reader", "stats", NULL, NULL));
    expect_ok(as("cli_reader", "dispatchers", NULL, NULL));
    struct command_result r = as("cli_reader", "show", "1", NULL);
    expect_ok(r); /* readers see no payloads: the rest is shown */
    expect_text(r.out, "you may not read payloads");
    json_t *json = parse(as("cli_reader", "show", "1", "--json").out);
    ck_assert(json_is_null(json_object_get(json, "payload")));
    json_decref(json);
    expect_refused(as("cli_reader", "enqueue", "t", NULL), "cli_reader", "--producer");
    expect_refused(as("cli_reader", "retry", "1", NULL), "cli_reader", "--dispatcher");
}
END_TEST

START_TEST(a_dispatcher_role_may_mend)
{
    expect_ok(OUTBOX_RUN("enqueue", "t"));
    grant("--dispatcher", "cli_dispatcher");
    expect_ok(as("cli_dispatcher", "retry", "1", NULL));
    expect_ok(as("cli_dispatcher", "cancel", "1", NULL));
}
END_TEST

/* --- check --- */

START_TEST(check_shows_what_would_run)
{
    const char *file = test_file("good.yaml",
                                 "database: postgresql://u:hunter2@h/d\n"
                                 "tasks:\n"
                                 "  mail: { shell: 'cat > /dev/null', timeout: 90s }\n"
                                 "  hook: { webhook: 'http://127.0.0.1:9/x' }\n"
                                 "  count: { exec: [/bin/echo, 'two words', '{id}'] }\n"
                                 "  drop: { discard: true }\n",
                                 0600);
    struct command_result r = OUTBOX_RUN("check", "--config", file);
    expect_ok(r);
    ck_assert_str_eq(r.err, "");
    expect_text(r.out, "/bin/sh -c 'cat > /dev/null'");
    expect_text(r.out, "POST http://127.0.0.1:9/x");
    expect_text(r.out, "/bin/echo 'two words' {id}");
    expect_text(r.out, "configuration is valid: 4 tasks, 0 warnings");
    json_t *json = parse(OUTBOX_RUN("check", "--config", file, "--json").out);
    json_t *tasks = json_object_get(json, "tasks");
    ck_assert_uint_eq(json_array_size(tasks), 4);
    ck_assert_str_eq(text_of(json_array_get(tasks, 3), "task"), "mail");
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(tasks, 3), "timeout_ms")),
                     90000);
    json_decref(json);
    r = OUTBOX_RUN("check", "--config", file, "--print");
    expect_ok(r);
    expect_text(r.out, "tasks:");
    ck_assert_ptr_null(strstr(r.out, "hunter2"));
    const char *again = test_file("again.yaml", r.out, 0600);
    expect_ok(OUTBOX_RUN("check", "--config", again));
}
END_TEST

START_TEST(check_prints_every_error_with_its_line_and_exits_78)
{
    const char *file = test_file("bad.yaml",
                                 "concurrency: many\n"
                                 "tasks:\n"
                                 "  mail: { shell: 'true', timeuot: 3s }\n"
                                 "  two words: { shell: 'true' }\n",
                                 0600);
    struct command_result r = OUTBOX_RUN("check", "--config", file);
    ck_assert_int_eq(r.exit_code, OB_EXIT_CONFIG);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "bad.yaml:1: ");
    expect_text(r.err, "bad.yaml:3: ");
    expect_text(r.err, "bad.yaml:4: ");
    ck_assert_int_eq(OUTBOX_RUN("try", "mail", "--config", file).exit_code, OB_EXIT_CONFIG);
    ck_assert_int_eq(OUTBOX_RUN("check", "--config", "/nonexistent.yaml").exit_code,
                     OB_EXIT_CONFIG);
}
END_TEST

START_TEST(check_warns_of_programs_that_cannot_run)
{
    const char *plain = test_file("plain.txt", "not a program\n", 0600);
    char exec_option[300];
    (void)snprintf(exec_option, sizeof exec_option, "plain=%s", plain);
    struct command_result r =
        OUTBOX_RUN("check", "--shell", "gone=/nonexistent/program --flag", "--exec", exec_option,
                   "--shell", "fine=/bin/true", "--shell", "unknowable=$PROGRAM");
    expect_ok(r);
    expect_text(r.err, "task gone: program /nonexistent/program: No such file");
    expect_text(r.err, "chmod +x");
    expect_text(r.out, "4 tasks, 2 warnings");
    r = OUTBOX_RUN("check");
    expect_ok(r);
    expect_text(r.err, "no task has a handler");
}
END_TEST

/* --- try --- */

START_TEST(try_runs_a_shell_handler_once)
{
    struct command_result r =
        OUTBOX_RUN("try", "t", "{\"a\": 1}", "--shell",
                   "t=cat; echo \" $OUTBOX_TASK $OUTBOX_JOB_ID $OUTBOX_ATTEMPT\"", "--id", "42",
                   "--attempt", "3");
    expect_ok(r);
    expect_text(r.out, "outcome  done\n");
    expect_text(r.out, "exit     0\n");
    expect_text(r.out, "    | {\"a\": 1} t 42 3\n");
    expect_text(r.out, "next     deleted");
}
END_TEST

START_TEST(try_says_what_would_become_of_a_job_that_fails)
{
    struct command_result r =
        OUTBOX_RUN("try", "t", "--shell", "t=echo sorry >&2; exit 3", "--json");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    json_t *json = parse(r.out);
    ck_assert_str_eq(text_of(json, "outcome"), "retry");
    ck_assert_str_eq(text_of(json, "reason"), "exit 3");
    ck_assert_int_eq(json_integer_value(json_object_get(json, "exit_code")), 3);
    ck_assert_str_eq(text_of(json, "output_head"), "sorry\n");
    ck_assert_str_eq(text_of(json, "next"), "retry in 4.0s to 6.0s, as attempt 2 of 20");
    json_decref(json);
    r = OUTBOX_RUN("try", "t", "--shell", "t=exit 3", "--attempt", "20");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "next     dead: this was attempt 20 of 20\n");
    r = OUTBOX_RUN("try", "t", "--shell", "t=exit 65");
    expect_text(r.out, "outcome  dead: exit 65\n");
    r = OUTBOX_RUN("try", "t", "--shell", "t=kill -9 $$");
    expect_text(r.out, "outcome  retry: signal 9\n");
    r = OUTBOX_RUN("try", "t", "--exec", "t=/nonexistent/program");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "outcome  release");
}
END_TEST

START_TEST(try_ends_a_handler_at_its_timeout)
{
    const char *file =
        test_file("slow.yaml", "tasks: { t: { shell: 'exec sleep 600', timeout: 200ms } }\n", 0600);
    struct command_result r = OUTBOX_RUN("try", "t", "--config", file);
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "outcome  retry: timeout");
}
END_TEST

/* The handler finds the program as its parent's (the spawner's) parent, and signals it. */
START_TEST(try_takes_a_timeout_of_its_own)
{
    struct command_result r =
        OUTBOX_RUN("try", "t", "--shell", "t=exec sleep 600", "--timeout", "50ms");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "outcome  retry: timeout\n");
    expect_text(r.out, "(timeout 50ms)\n");
    r = OUTBOX_RUN("try", "t", "--shell", "t=true", "--timeout", "0s");
    ck_assert_int_eq(r.exit_code, OB_EXIT_USAGE);
}
END_TEST

/* Everything that a job may bring with it, as the handler sees it. */
START_TEST(try_shows_a_handler_what_the_job_would)
{
    struct command_result r =
        OUTBOX_RUN("try", "t", "{\"a\": 1}", "--shell",
                   "t=echo \"$OUTBOX_JOB_ID $OUTBOX_ATTEMPT $OUTBOX_KEY $OUTBOX_HEADERS $(cat)\"",
                   "--id", "42", "--attempt", "3", "--key", "user-7", "--header", "a=b");
    expect_ok(r);
    expect_text(r.out, "    | 42 3 user-7 {\"a\":\"b\"} {\"a\": 1}\n");
}
END_TEST

START_TEST(try_says_that_an_endpoint_is_gone)
{
    struct httpstub stub;
    static const struct httpstub_answer gone = {.status = 410};
    char option[64];
    httpstub_start(&stub, &gone, 1);
    (void)snprintf(option, sizeof option, "t=http://127.0.0.1:%d/", stub.port);
    struct command_result r = OUTBOX_RUN("try", "t", "--webhook", option);
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "outcome  dead: HTTP 410\n");
    expect_text(r.out, "; the task pauses until `outbox resume`\n");
    httpstub_stop(&stub);
}
END_TEST

START_TEST(an_interrupted_try_stops_its_handler)
{
    struct command_result r =
        OUTBOX_RUN("try", "t", "--shell",
                   "t=read _ _ _ program _ </proc/$PPID/stat; kill -INT $program; exec sleep 600");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.out, "outcome  release");
    expect_text(r.out, "next     given back uncounted");
}
END_TEST

START_TEST(try_discards)
{
    struct command_result r = OUTBOX_RUN("try", "t", "--discard", "t");
    expect_ok(r);
    expect_text(r.out, "t by discard\n");
}
END_TEST

START_TEST(try_posts_to_a_webhook)
{
    static const struct httpstub_answer answers[] = {{.status = 200, .body = "thanks"},
                                                     {.status = 503, .body = "no"}};
    struct httpstub stub;
    char option[80];
    httpstub_start(&stub, answers, 2);
    (void)snprintf(option, sizeof option, "t=http://127.0.0.1:%d/hook", stub.port);
    struct command_result r = OUTBOX_RUN("try", "t", "{\"a\": 1}", "--webhook", option);
    expect_ok(r);
    expect_text(r.out, "status   200\n");
    ck_assert_str_eq(httpstub_body(&stub, 0), "{\"a\": 1}");
    r = OUTBOX_RUN("try", "t", "{\"a\": 2}", "--webhook", option, "--json");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    json_t *json = parse(r.out);
    ck_assert_int_eq(json_integer_value(json_object_get(json, "http_status")), 503);
    ck_assert_str_eq(text_of(json, "outcome"), "retry");
    ck_assert_str_eq(text_of(json, "output_head"), "no");
    json_decref(json);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(try_converts_msgpack_as_the_daemon_does)
{
    struct command_result r =
        run_outbox("\x81\xA1n\x07",
                   (const char *const[]){"try", "t", "-", "--msgpack", "--shell", "t=cat", NULL});
    expect_ok(r);
    expect_text(r.out, "    | {\"n\":7}\n");
}
END_TEST

START_TEST(try_of_an_unknown_task_lists_the_known)
{
    struct command_result r = OUTBOX_RUN("try", "x", "--discard", "t", "--discard", "u");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "no handler is registered for task \"x\"; there are: t, u");
}
END_TEST

static TCase *add_case(Suite *suite, const char *name, void (*create)(void))
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    if (create != NULL) {
        tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
        tcase_add_checked_fixture(tc, create, testdb_drop);
    }
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_setup");
    TCase *tc = add_case(suite, "migrate", testdb_create_empty);
    tcase_add_test(tc, migrate_makes_the_schema_and_says_each_step);
    tcase_add_test(tc, migrate_speaks_json);
    tcase_add_test(tc, the_printed_script_makes_the_same_schema);
    tcase_add_loop_test(tc, a_missing_schema_is_told_with_69, 0,
                        sizeof needing_schema / sizeof needing_schema[0]);
    tcase_add_test(tc, a_schema_that_needs_a_newer_program_is_told_with_69);
    tcase_add_test(tc, a_database_that_is_not_there_is_a_failure_with_a_hint);
    tcase_add_test(tc, a_server_in_recovery_of_a_crash_can_be_reached_afterwards);
    tc = add_case(suite, "roles", testdb_create);
    tcase_add_test(tc, a_role_without_privileges_is_told_which_grant_is_missing);
    tcase_add_test(tc, migrate_without_the_right_to_create_says_so);
    tcase_add_test(tc, a_producer_may_enqueue_and_nothing_else);
    tcase_add_test(tc, a_reader_may_look_and_nothing_else);
    tcase_add_test(tc, a_dispatcher_role_may_mend);
    tc = add_case(suite, "check", NULL);
    tcase_add_test(tc, check_shows_what_would_run);
    tcase_add_test(tc, check_prints_every_error_with_its_line_and_exits_78);
    tcase_add_test(tc, check_warns_of_programs_that_cannot_run);
    tc = add_case(suite, "try", NULL);
    tcase_add_test(tc, try_runs_a_shell_handler_once);
    tcase_add_test(tc, try_says_what_would_become_of_a_job_that_fails);
    tcase_add_test(tc, try_ends_a_handler_at_its_timeout);
    tcase_add_test(tc, try_takes_a_timeout_of_its_own);
    tcase_add_test(tc, try_shows_a_handler_what_the_job_would);
    tcase_add_test(tc, try_says_that_an_endpoint_is_gone);
    tcase_add_test(tc, an_interrupted_try_stops_its_handler);
    tcase_add_test(tc, try_discards);
    tcase_add_test(tc, try_posts_to_a_webhook);
    tcase_add_test(tc, try_converts_msgpack_as_the_daemon_does);
    tcase_add_test(tc, try_of_an_unknown_task_lists_the_known);
    return suite;
}
