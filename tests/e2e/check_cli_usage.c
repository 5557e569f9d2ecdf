/* The program without a database: help, versions, usage errors, and what it says when there is no
 * server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <outbox/outbox.h>

#include "base/err.h"
#include "ck_main.h"
#include "cmd/cmd.h"
#include "daemon.h"

static const char *const commands[] = {
    "migrate",     "grant",  "check", "try",   "run",    "enqueue", "jobs",  "show",   "stats",
    "dispatchers", "cancel", "retry", "pause", "resume", "wait",    "purge", "requeue"};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void expect_text(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        ck_abort_msg("no \"%s\" in:\n%.2000s", wanted, text);
}

/* A usage error: 64, nothing on stdout, one line on stderr that says where help is. */
static void expect_usage(struct command_result r, const char *wanted)
{
    ck_assert_msg(r.exit_code == OB_EXIT_USAGE, "exit code %d, stderr: %s", r.exit_code, r.err);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, wanted);
    expect_text(r.err, "--help`");
    ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
}

START_TEST(help_lists_every_command_in_its_group)
{
    struct command_result r = OUTBOX_RUN("--help");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_str_eq(r.err, "");
    static const char *const groups[] = {"Set up:", "Run:", "Enqueue:", "Look:", "Mend:"};
    const char *at = r.out;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        at = strstr(at, groups[i]);
        ck_assert_msg(at != NULL, "%s is not there or not in order", groups[i]);
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        char line[40];
        (void)snprintf(line, sizeof line, "\n  %s ", commands[i]);
        expect_text(r.out, line);
    }
}
END_TEST

START_TEST(each_command_explains_itself)
{
    struct command_result r = OUTBOX_RUN(commands[_i], "--help");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_str_eq(r.err, "");
    char usage[60];
    (void)snprintf(usage, sizeof usage, "Usage: outbox %s [OPTION...]", commands[_i]);
    expect_text(r.out, usage);
    expect_text(r.out, "--help");
    char *first = strdup(r.out);
    ck_assert_ptr_nonnull(first);
    r = OUTBOX_RUN("help", commands[_i]);
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_str_eq(r.out, first);
    free(first);
}
END_TEST

static char *read_document(const char *path)
{
    char full[512];
    (void)snprintf(full, sizeof full, "%s/%s", OB_TEST_SOURCE_DIR, path);
    FILE *f = fopen(full, "r");
    ck_assert_msg(f != NULL, "%s is not there", full);
    enum { SIZE = 1 << 20 };
    char *text = calloc(1, SIZE);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_gt(fread(text, 1, SIZE - 1, f), 0);
    (void)fclose(f);
    return text;
}

/* The program's own tables against the pages: every command and every option is documented. */
START_TEST(every_option_is_in_the_documentation_and_in_the_manual)
{
    char *page = read_document("docs/cli.md");
    char *manual = read_document("docs/man/outbox.1");
    const struct command *c = cmd_commands[_i];
    char wanted[80];
    (void)snprintf(wanted, sizeof wanted, "## outbox %s", c->name);
    expect_text(page, wanted);
    for (size_t i = 0; c->options[i].name != NULL; i++) {
        (void)snprintf(wanted, sizeof wanted, "`--%s", c->options[i].name);
        expect_text(page, wanted);
        /* roff writes a literal hyphen as \- */
        size_t n = (size_t)snprintf(wanted, sizeof wanted, "\\-\\-");
        for (const char *p = c->options[i].name; *p != '\0' && n + 3 < sizeof wanted; p++)
            n += (size_t)snprintf(wanted + n, sizeof wanted - n, *p == '-' ? "\\-" : "%c", *p);
        expect_text(manual, wanted);
    }
    free(page);
    free(manual);
}
END_TEST

START_TEST(version_names_program_schema_and_libraries)
{
    struct command_result r = OUTBOX_RUN("--version");
    ck_assert_int_eq(r.exit_code, 0);
    char program[40];
    (void)snprintf(program, sizeof program, "outbox %d.%d.%d\n", OUTBOX_VERSION_MAJOR,
                   OUTBOX_VERSION_MINOR, OUTBOX_VERSION_PATCH);
    expect_text(r.out, program);
    char level[40];
    (void)snprintf(level, sizeof level, "schema level %d\n", OUTBOX_SCHEMA_VERSION);
    expect_text(r.out, level);
    expect_text(r.out, "libpq ");
    expect_text(r.out, "libuv 1.");
    expect_text(r.out, "libcurl ");
}
END_TEST

START_TEST(no_command_is_a_usage_error)
{
    expect_usage(run_outbox(NULL, (const char *const[]){NULL}), "no command given");
}
END_TEST

START_TEST(a_mistyped_command_gets_a_suggestion)
{
    expect_usage(OUTBOX_RUN("enqeue", "t"),
                 "unknown command \"enqeue\" (did you mean \"enqueue\"?)");
    expect_usage(OUTBOX_RUN("help", "jbos"), "did you mean \"jobs\"?");
    expect_usage(OUTBOX_RUN("--version", "x"), "one argument too many behind --version");
    expect_usage(OUTBOX_RUN("help", "jobs", "x"), "one argument too many behind help");
    expect_usage(OUTBOX_RUN("xyzzy"), "unknown command \"xyzzy\"; see");
    expect_usage(OUTBOX_RUN("--database", "x", "jobs"), "options come after the command");
}
END_TEST

static const struct {
    const char *args[7];
    const char *wanted;
} bad_usage[] = {
    {{"jobs", "--taks", "x"}, "unknown option --taks (did you mean --task?)"},
    {{"jobs", "--taks=x"}, "unknown option --taks (did you mean --task?)"},
    {{"jobs", "--zzz"}, "unknown option --zzz;"},
    {{"jobs", "-Z"}, "unknown option -Z"},
    {{"jobs", "--json=yes"}, "option --json takes no value"},
    {{"jobs", "--task"}, "option --task needs a value"},
    {{"jobs", "-n"}, "option -n needs a value"},
    {{"jobs", "--be", "x"}, "--before \"x\": expected a time"},
    {{"enqueue", "t", "--run", "x"}, "--run-at \"x\": expected a time"},
    {{"enqueue", "t", "--h", "x"}, "could mean several"},
    {{"jobs", "--limit", "many"}, "--limit \"many\": expected a number from 0"},
    {{"jobs", "--limit", "-1"}, "expected a number"},
    {{"jobs", "--limit", "7x"}, "expected a number"},
    {{"jobs", "--state", "raedy"}, "did you mean ready?"},
    {{"jobs", "--state", "dead,zzz"}, "expected ready, scheduled"},
    {{"jobs", "--state", ""}, "--state \"\": expected ready, scheduled"},
    {{"jobs", "--state", "dead,"}, "--state \"\": expected ready, scheduled"},
    {{"jobs", "--task", ""}, "\"\" is not a task's name"},
    {{"jobs", "--task", "res\"{}"}, "is not a task's name"},
    {{"jobs", "--task", "a,no such name"}, "\"no such name\" is not a task's name"},
    {{"jobs", "--min-age", "old"}, "expected a duration such as 30s"},
    {{"jobs", "--after", "yesterday"}, "expected a time such as"},
    {{"jobs", "extra"}, "\"extra\" is one argument too many"},
    {{"show"}, "usage is `outbox show ID`"},
    {{"show", "seven"}, "\"seven\" is not a job's id"},
    {{"show", "0"}, "\"0\" is not a job's id"},
    {{"show", "99999999999999999999"}, "is not a job's id"},
    {{"show", "1", "2"}, "one argument too many"},
    {{"show", "1", "--payload", "xml"}, "expected raw or json"},
    {{"cancel"}, "say which: ids, --running, or --state STATE"},
    {{"cancel", "1", "x"}, "\"x\" is not a job's id"},
    {{"cancel", "1", "--timeout", "1s"}, "--timeout needs --wait"},
    {{"cancel", "1", "--wait", "--timeout", "soon"}, "expected a duration"},
    {{"pause", "no such name"}, "is not a task's name"},
    {{"pause", "--reason", "because"}, "say which task"},
    {{"resume"}, "usage is `outbox resume TASK...`"},
    {{"resume", "t", "no such name"}, "is not a task's name"},
    {{"retry"}, "say which"},
    {{"retry", "--task", "t"}, "--task needs --all"},
    {{"retry", "1", "--all"}, "not both"},
    {{"retry", "--all", "--task", "no such name"}, "is not a task's name"},
    {{"enqueue"}, "usage is `outbox enqueue TASK [JSON|-]`"},
    {{"enqueue", "no spaces please"}, "is not a task's name"},
    {{"enqueue", "t", "{}", "--priority", "5"}, "expected a number from 1 to 4"},
    {{"enqueue", "t", "{}", "--max-attempts", "0"}, "expected a number from 1 to 32767"},
    {{"enqueue", "t", "{}", "--delay", "soon"}, "expected a duration"},
    {{"enqueue", "t", "{}", "--header", "novalue"}, "expected NAME=VALUE"},
    {{"enqueue", "t", "{}", "--header=a=\xff"}, "expected UTF-8"},
    {{"enqueue", "t", "{}", "-Ha=1", "-Hab=2", "-Ha=3"}, "\"a=3\": a header of this name is given"},
    {{"enqueue", "t", "{}", "--after", "x"}, "--after \"x\": expected a job's id"},
    {{"enqueue", "t", "--delay=1s", "--run-at", "2030-01-01"}, "give one of them"},
    {{"enqueue", "t", "{}", "--msgpack"}, "from standard input"},
    {{"grant"}, "say for whom"},
    {{"grant", "--reader", "two\nlines"}, "expected a role's name, in one line"},
    {{"grant", "--reader", "a-name-of-64-bytes-is-cut-by-the-server-and-would-be-another-one"},
     "at most 63 bytes"},
    {{"migrate", "--print", "--status"}, "goes with neither"},
    {{"run", "--discard", "t", "--concurrency", "many"}, "expected a number from 1"},
    {{"run", "--discard", "t", "--concurrency", "10001"}, "expected a number from 1 to 10000"},
    {{"run", "--discard", "t", "--lease", "long"}, "expected a duration"},
    {{"run", "--frobnicate"}, "unknown option"},
    {{"try"}, "usage is `outbox try TASK [JSON|-]`"},
    {{"check", "--print", "--json"}, "--print"},
};

START_TEST(bad_usage_is_told_in_one_line)
{
    expect_usage(run_outbox(NULL, bad_usage[_i].args), bad_usage[_i].wanted);
}
END_TEST

START_TEST(control_characters_of_an_argument_are_not_printed)
{
    struct command_result r = OUTBOX_RUN("show", "\033[2J");
    ck_assert_int_eq(r.exit_code, OB_EXIT_USAGE);
    ck_assert_ptr_null(strchr(r.err, '\033'));
    expect_text(r.err, "\\x1b[2J");
}
END_TEST

static const struct {
    const char *json, *wanted;
} bad_json[] = {{"{\"a\": 1,\n \"b\" 2}", "line 2"},
                {"", "JSON"},
                {"{\"a\":1} x", "line 1"},
                {"{'a': 1}", "line 1, column 2"}};

/* The server does not exist: the payload is refused before anybody is asked. */
START_TEST(json_that_is_none_is_refused_before_connecting)
{
    struct command_result r =
        OUTBOX_RUN("enqueue", "t", bad_json[_i].json, "--database", "host=/nonexistent");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "not valid JSON");
    expect_text(r.err, bad_json[_i].wanted);
}
END_TEST

static const char *const asking[][4] = {
    {"jobs"},         {"jobs", "--count"}, {"show", "1"},           {"stats"},
    {"dispatchers"},  {"cancel", "1"},     {"retry", "1"},          {"retry", "--all"},
    {"enqueue", "t"}, {"migrate"},         {"migrate", "--status"}, {"pause"},
    {"pause", "t"},   {"resume", "t"},     {"wait", "1"},           {"purge", "dead", "-o1d"},
    {"requeue", "1"}, {"requeue", "-r"}};

START_TEST(a_server_that_is_not_there_is_told_with_75)
{
    const char *args[8] = {NULL};
    size_t n = 0;
    for (; asking[_i][n] != NULL; n++)
        args[n] = asking[_i][n];
    args[n++] = "--database";
    args[n++] = "host=/nonexistent user=u password=hunter2 dbname=d";
    struct command_result r = run_outbox(NULL, args);
    ck_assert_msg(r.exit_code == OB_EXIT_TRY_AGAIN, "exit code %d: %s", r.exit_code, r.err);
    expect_text(r.err, "no connection to the database");
    expect_text(r.err, "check that the server runs");
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
    ck_assert_str_eq(r.out, "");
}
END_TEST

static const char *const odd_strings[] = {
    "postgresql://u:hunter2@ho:st/d", "password=hunter2 nonsense",
    "postgresql://u:hun@ter2@127.0.0.1:1/d", "postgresql://u:hunter2@127.0.0.1:99999/d",
    "postgresql://u:hunter2@127.0.0.1:1/d?frobnicate=ter2"};

START_TEST(a_broken_connection_string_shows_no_password)
{
    struct command_result r = OUTBOX_RUN("jobs", "--database", odd_strings[_i]);
    ck_assert_int_ne(r.exit_code, 0);
    ck_assert_ptr_null(strstr(r.err, "ter2"));
    ck_assert_str_eq(r.out, "");
    ck_assert_uint_gt(strlen(r.err), 20);
}
END_TEST

/* No OUTBOX_DATABASE here: there is no cluster. The message shows whom libpq tried to reach. */
START_TEST(the_configuration_names_the_database_unless_the_command_line_does)
{
    const char *file =
        test_file("database.yaml", "database: host=/from-the-file password=hunter2\n", 0600);
    struct command_result r = OUTBOX_RUN("jobs", "--config", file);
    ck_assert_int_eq(r.exit_code, OB_EXIT_TRY_AGAIN);
    expect_text(r.err, "/from-the-file/");
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
    r = OUTBOX_RUN("jobs", "--config", file, "--database", "host=/from-the-line");
    expect_text(r.err, "/from-the-line/");
    file = test_file("broken.yaml", "database: [\n", 0600);
    r = OUTBOX_RUN("jobs", "--config", file);
    ck_assert_int_eq(r.exit_code, OB_EXIT_CONFIG);
    expect_text(r.err, "broken.yaml:");
    r = OUTBOX_RUN("jobs", "--config", "/nonexistent.yaml");
    ck_assert_int_eq(r.exit_code, OB_EXIT_CONFIG);
}
END_TEST

/* Options of run whose values are judged by the rules of the file. */
static const struct {
    const char *args[6];
    const char *wanted;
} bad_values[] = {
    {{"run", "--discard", "t", "--lease", "1s"}, "lease 1s is out of range"},
    {{"run", "--discard", "t", "--name", "a/b"}, "bad name 'a/b'"},
    {{"run", "--discard", "t", "--lock-dir", "here"}, "bad lock_dir 'here'"},
    {{"run", "--discard", "t", "--log-level", "loud"}, "--log-level loud: expected error"},
    {{"run", "--discard", "t", "--database", "hots=x password=hunter2"}, "bad database: "},
    {{"run", "--discard", "t", "--database", "hots=x"}, "invalid connection option \"hots\""},
    {{"run", "--discard", "t", "--database", "postgresql://u:hunter2@[::1/d"}, "bad database: "},
};

START_TEST(a_bad_value_of_run_is_wrong_usage)
{
    struct command_result r = run_outbox(NULL, bad_values[_i].args);
    ck_assert_msg(r.exit_code == OB_EXIT_USAGE, "exit code %d: %s", r.exit_code, r.err);
    expect_text(r.err, bad_values[_i].wanted);
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
    ck_assert_ptr_null(strstr(r.err, "event=")); /* it did not begin */
}
END_TEST

static const char *const readers[][4] = {
    {"check"}, {"check", "--print"}, {"run", "--discard", "t"}, {"jobs"}};

/* Before anything is connected to, and without the password. */
START_TEST(a_database_that_cannot_be_right_is_a_configuration_error)
{
    const char *args[8] = {NULL};
    size_t n = 0;
    for (; readers[_i][n] != NULL; n++)
        args[n] = readers[_i][n];
    args[n++] = "--config";
    args[n++] = test_file("bad.yaml", "database: postgresql://u:hunter2@h/d?frobnicate=1\n", 0600);
    struct command_result r = run_outbox(NULL, args);
    ck_assert_msg(r.exit_code == OB_EXIT_CONFIG, "exit code %d: %s", r.exit_code, r.err);
    expect_text(r.err, "the connection string is malformed");
    ck_assert_ptr_null(strstr(r.err, "hunter2"));
    ck_assert_str_eq(r.out, "");
}
END_TEST

START_TEST(a_full_disk_is_a_failure)
{
    char line[512];
    (void)snprintf(line, sizeof line, "%s/bin/outbox --help 2>&1 >/dev/full", OB_TEST_BUILD_DIR);
    FILE *shell = popen(line, "r"); /* NOLINT: fixed text */
    ck_assert_ptr_nonnull(shell);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, shell));
    expect_text(line, "could not write the output");
    ck_assert_int_eq(pclose(shell), OB_EXIT_FAILED << 8);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_usage");
    TCase *tc = tcase_create("help");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, help_lists_every_command_in_its_group);
    tcase_add_loop_test(tc, each_command_explains_itself, 0, COMMANDS);
    tcase_add_loop_test(tc, every_option_is_in_the_documentation_and_in_the_manual, 0, COMMANDS);
    tcase_add_test(tc, version_names_program_schema_and_libraries);
    suite_add_tcase(suite, tc);
    tc = tcase_create("usage errors");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, no_command_is_a_usage_error);
    tcase_add_test(tc, a_mistyped_command_gets_a_suggestion);
    tcase_add_loop_test(tc, bad_usage_is_told_in_one_line, 0,
                        sizeof bad_usage / sizeof bad_usage[0]);
    tcase_add_test(tc, control_characters_of_an_argument_are_not_printed);
    tcase_add_loop_test(tc, json_that_is_none_is_refused_before_connecting, 0,
                        sizeof bad_json / sizeof bad_json[0]);
    tcase_add_test(tc, a_full_disk_is_a_failure);
    suite_add_tcase(suite, tc);
    tc = tcase_create("no server");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, a_server_that_is_not_there_is_told_with_75, 0,
                        sizeof asking / sizeof asking[0]);
    tcase_add_test(tc, the_configuration_names_the_database_unless_the_command_line_does);
    tcase_add_loop_test(tc, a_bad_value_of_run_is_wrong_usage, 0,
                        (int)(sizeof bad_values / sizeof bad_values[0]));
    tcase_add_loop_test(tc, a_database_that_cannot_be_right_is_a_configuration_error, 0,
                        (int)(sizeof readers / sizeof readers[0]));
    tcase_add_loop_test(tc, a_broken_connection_string_shows_no_password, 0,
                        sizeof odd_strings / sizeof odd_strings[0]);
    suite_add_tcase(suite, tc);
    return suite;
}
