/* outbox enqueue --file: what is enqueued, what is refused and how it is told, that it is all or
 * nothing (or whole batches), and that nothing interrupts it half-way. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <jansson.h>

#include "base/err.h"
#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

#define NOWHERE "--database", "host=/nonexistent"

enum { WAIT_MS = 30000, MIB = 1024 * 1024 };

static void expect_text(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        ck_abort_msg("no \"%s\" in:\n%.2000s", wanted, text);
}

static void expect_exit(struct command_result r, int code)
{
    ck_assert_msg(r.exit_code == code, "exit code %d, stderr: %.1000s", r.exit_code, r.err);
}

static long jobs_count(void)
{
    return testdb_long("SELECT count(*) FROM outbox.job");
}

static const char *jobs_file(const char *lines)
{
    return test_file("jobs.ndjson", lines, 0644);
}

/* n lines {"task": "t", "payload": k}, k from 1; line `odd` (0: none) is `text` instead. */
static const char *many_lines(int n, int odd, const char *text)
{
    const char *path = jobs_file("");
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    for (int i = 1; i <= n; i++) {
        if (i == odd)
            (void)fprintf(f, "%s\n", text);
        else
            (void)fprintf(f, "{\"task\": \"t\", \"payload\": %d}\n", i);
    }
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

/* Without the number of seconds, which are never the same. */
static void expect_summary(struct command_result r, const char *wanted)
{
    expect_exit(r, 0);
    ck_assert_str_eq(r.err, "");
    ck_assert_msg(strncmp(r.out, wanted, strlen(wanted)) == 0, "%s", r.out);
    expect_text(r.out, " s\n");
}

static json_t *parsed(struct command_result r)
{
    json_error_t error;
    json_t *json = json_loads(r.out, 0, &error);
    ck_assert_msg(json != NULL, "%s in %.2000s%.2000s", error.text, r.out, r.err);
    return json;
}

static long long integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* --- what is enqueued --- */

START_TEST(each_line_becomes_a_job_in_order_with_its_options)
{
    const char *path =
        jobs_file("{\"task\": \"first\", \"payload\": {\"n\": 1}}\n"
                  "{\"task\": \"second\", \"priority\": 1, \"max_attempts\": 7,"
                  " \"run_at\": \"2099-01-31T08:30:00Z\", \"expires_at\": \"2099-02-01T00:00:00Z\","
                  " \"headers\": {\"trace\": \"x\"}, \"payload\": [\"a b\", null]}\n"
                  "{\"payload\": \"\\u00e9\", \"delay\": 5400, \"task\": \"third\"}\n"
                  "{\"task\": \"fourth\"}\n");
    expect_summary(OUTBOX_RUN("enqueue", "--file", path),
                   "enqueued 4 jobs (first id 1, last id 4) in ");
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(format('%s %s %s', j.id, j.task,"
                     " convert_from(j.payload, 'UTF8')), '|' ORDER BY j.id) FROM outbox.job j"),
        "1 first {\"n\": 1}|2 second [\"a b\", null]|3 third \"\xC3\xA9\"|4 fourth {}");
    ck_assert_str_eq(testdb_value("SELECT format('%s %s %s %s %s %s', state, priority,"
                                  " max_attempts, run_at = '2099-01-31 08:30+00',"
                                  " expires_at = '2099-02-01 00:00+00', headers ->> 'trace')"
                                  " FROM outbox.jobs WHERE id = 2"),
                     "scheduled 1 7 t t x");
    ck_assert_str_eq(testdb_value("SELECT run_at - created_at BETWEEN '89 min' AND '91 min'"
                                  " FROM outbox.jobs WHERE id = 3"),
                     "t");
}
END_TEST

START_TEST(standard_input_with_any_line_ends_will_do)
{
    struct command_result r = run_outbox("\xEF\xBB\xBF{\"task\": \"bom\"}\r\n"
                                         "\n"
                                         " \t \r\n"
                                         "  {\"task\": \"spaced\"}  \n"
                                         "{\"task\": \"last\"}",
                                         (const char *const[]){"enqueue", "--file", "-", NULL});
    expect_summary(r, "enqueued 3 jobs (first id 1, last id 3) in ");
    ck_assert_str_eq(testdb_value("SELECT string_agg(task, ' ' ORDER BY id) FROM outbox.job"),
                     "bom spaced last");
}
END_TEST

START_TEST(nothing_to_enqueue_is_no_error)
{
    expect_summary(OUTBOX_RUN("enqueue", "--file", jobs_file("")), "enqueued 0 jobs in ");
    expect_summary(OUTBOX_RUN("enqueue", "--file", "/dev/null"), "enqueued 0 jobs in ");
    expect_summary(OUTBOX_RUN("enqueue", "--file", jobs_file("\n\r\n")), "enqueued 0 jobs in ");
    expect_summary(OUTBOX_RUN("enqueue", "--file", jobs_file("{\"task\": \"t\"}")),
                   "enqueued 1 job (first id 1, last id 1) in ");
}
END_TEST

START_TEST(task_and_options_are_for_lines_that_do_not_say_it_themselves)
{
    const char *path = jobs_file("{}\n"
                                 "{ }\n"
                                 "{\"payload\": 3}\n"
                                 "{\"task\": \"own\", \"priority\": 1, \"headers\": {\"b\": \"2\"},"
                                 " \"max_attempts\": null}\n"
                                 "{\"run_at\": \"2099-01-31T08:30:00Z\"}\n");
    expect_summary(OUTBOX_RUN("enqueue", "given", "--file", path, "--priority", "4", "--delay",
                              "2h", "-H", "a=1", "--max-attempts", "3"),
                   "enqueued 5 jobs ");
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(format('%s %s %s %s %s', task, priority, headers,"
                     " max_attempts, CASE WHEN run_at = '2099-01-31 08:30+00' THEN 'own'"
                     " WHEN run_at > now() THEN 'in 2h' END), '|' ORDER BY id) FROM outbox.jobs"),
        "given 4 {\"a\": \"1\"} 3 in 2h|given 4 {\"a\": \"1\"} 3 in 2h|"
        "given 4 {\"a\": \"1\"} 3 in 2h|own 1 {\"b\": \"2\"}  in 2h|"
        "given 4 {\"a\": \"1\"} 3 own");
}
END_TEST

START_TEST(escaped_names_are_resolved_by_the_server)
{
    const char *path = jobs_file("{\"\\u0074ask\": \"t\\u0032\", \"payload\": 7}\n");
    expect_summary(OUTBOX_RUN("enqueue", "--file", path), "enqueued 1 job ");
    ck_assert_str_eq(testdb_value("SELECT task FROM outbox.job"), "t2");
    expect_summary(OUTBOX_RUN("enqueue", "given", "--file", path), "enqueued 1 job ");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE task = 't2'"), 2);
}
END_TEST

START_TEST(many_chunks_are_one_transaction_and_keep_their_order)
{
    expect_summary(OUTBOX_RUN("enqueue", "--file", many_lines(12345, 0, "")),
                   "enqueued 12345 jobs (first id 1, last id 12345) in ");
    ck_assert_int_eq(testdb_long("SELECT count(DISTINCT ready_xid) FROM outbox.job"), 1);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"
                                 " WHERE convert_from(payload, 'UTF8') = id::text"),
                     12345);
}
END_TEST

/* A file with one line whose payload is a string of so many bytes, the quotes included. */
static const char *large_line(size_t bytes)
{
    char *text = calloc(1, bytes + 100);
    ck_assert_ptr_nonnull(text);
    size_t n = (size_t)snprintf(text, 100, "{\"task\": \"t\"}\n{\"task\": \"t\", \"payload\": \"");
    memset(text + n, 'x', bytes - 2);
    (void)snprintf(text + n + bytes - 2, 20, "\"}\n{\"task\": \"t\"}\n");
    const char *path = jobs_file(text);
    free(text);
    return path;
}

START_TEST(a_line_may_be_as_large_as_a_payload)
{
    expect_summary(OUTBOX_RUN("enqueue", "--file", large_line(16 * MIB)), "enqueued 3 jobs ");
    ck_assert_int_eq(testdb_long("SELECT max(octet_length(payload)) FROM outbox.job"), 16 * MIB);
    struct command_result r = OUTBOX_RUN("enqueue", "--file", large_line(16 * MIB + 1));
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:2: the payload has 16777217 bytes, the limit is 16777216");
    r = OUTBOX_RUN("enqueue", "--file", large_line(18 * MIB));
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:2: the line is longer than 17 MiB");
    ck_assert_int_eq(jobs_count(), 3);
}
END_TEST

START_TEST(a_producer_needs_nothing_but_its_grants)
{
    testdb_exec("CREATE ROLE file_producer LOGIN");
    testdb_exec("GRANT USAGE ON SCHEMA outbox TO file_producer");
    const char *path = jobs_file("{\"task\": \"t\"}\n");
    const char *conninfo = testdb_conninfo_as("file_producer");
    struct command_result r = OUTBOX_RUN("enqueue", "--file", path, "--database", conninfo);
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "`outbox grant --producer file_producer`");
    expect_text(r.err, "outbox enqueue: nothing was enqueued\n");
    testdb_exec("GRANT EXECUTE ON FUNCTION outbox.enqueue_many TO file_producer");
    r = OUTBOX_RUN("enqueue", "--file", path, "--database", conninfo);
    testdb_exec("DROP OWNED BY file_producer; DROP ROLE file_producer");
    expect_summary(r, "enqueued 1 job ");
}
END_TEST

/* --- what is refused --- */

#define KNOWN "{\"task\": \"t\"}"
static const struct {
    const char *line, *wanted;
    bool by_server; /* only it can tell */
} wrong[] = {
    {"{\"task\": \"t\",}", "not valid JSON: column 14: expected a name in double quotes", false},
    {"{\"task\": \"t\"", "not valid JSON: column 13: expected ',' or '}', not the end", false},
    {KNOWN " " KNOWN, "not valid JSON: column 15: expected nothing behind the value", false},
    {"{\"task\": \"t\", \"payload\": \"\xff\"}", "not valid JSON: column 27: expected UTF-8",
     false},
    {"{\"task\": \"t\", \"payload\": \"\xed\xa0\x80\"}",
     "not valid JSON: column 27: expected UTF-8", false},
    {"{\"task\": \"t\", \"payload\": \"\\u0000\"}",
     "cannot be stored: column 33: expected no \\u0000, which PostgreSQL", false},
    {"{\"task\": \"t\", \"payload\": \"\\ud800x\"}",
     "cannot be stored: column 33: expected a whole", false},
    {"[" KNOWN "]", "not an object but an array; expected {\"task\": ...", false},
    {"\"t\"", "not an object but a string", false},
    {"null", "not an object but null", false},
    {"{\"payload\": 1}", "no \"task\"; expected one, or a TASK on the command line", false},
    {"{\"task\": null}", "\"task\" is null; expected a string", false},
    {"{\"task\": 7}", "\"task\" is a number; expected a string", false},
    {"{\"task\": \"no name\"}", "\"no name\" is not a task's name; expected 1 to 128", false},
    {"{\"task\": \"\"}", "\"\" is not a task's name", false},
    {"{\"task\": \"a\", \"task\": \"b\"}", "\"task\" is given twice", false},
    {"{\"task\": \"t\", \"prio\": 1}", "unknown key \"prio\" (did you mean \"priority\"?)", false},
    {"{\"task\": \"t\", \"xyzzy\": 1}", "unknown key \"xyzzy\"; expected task, payload", false},
    {"{\"task\": \"t\", \"encoding\": \"json\"}", "\"encoding\" is not for files", false},
    {"{\"task\": \"t\", \"priority\": 5}", "\"priority\" is 5; expected a number from 1 to 4",
     false},
    {"{\"task\": \"t\", \"priority\": -1}", "\"priority\" is -1; expected", false},
    {"{\"task\": \"t\", \"priority\": \"1\"}", "\"priority\" is a string; expected a whole number",
     false},
    {"{\"task\": \"t\", \"max_attempts\": 99999999999999999999}", "\"max_attempts\" is 9999",
     false},
    {"{\"task\": \"t\", \"headers\": []}", "\"headers\" is an array; expected an object", false},
    {"{\"task\": \"t\", \"run_at\": 7}", "\"run_at\" is a number; expected a string such as",
     false},
    {"{\"task\": \"t\", \"delay\": true}", "\"delay\" is a boolean; expected a number of seconds",
     false},
    {"{\"task\": \"t\", \"priority\": 1.5}", "priority is 1.5. A priority is 1 (first)", true},
    {"{\"task\": \"t\", \"run_at\": \"soon\"}", "\"run_at\" is not a time: \"soon\". Write it",
     true},
    {"{\"task\": \"t\", \"delay\": -1}", "delay is negative. Give an interval", true},
    {"{\"task\": \"t\", \"delay\": 1, \"run_at\": \"2099-01-01\"}",
     "run_at and delay are both given", true},
    {"{\"task\": \"t\", \"repeat_every\": 0}", "repeat_every is 00:00:00", true},
    {"{\"task\": \"t\", \"after\": [99999]}", "after: there is no job 99999", true},
    {"{\"\\u0074ask\": \"no name\"}", "not a task name: \"no name\"", true},
    {"{\"task\": \"t\", \"payload\": [1, 1e200000]}", "value overflows numeric format", true},
};
enum { WRONG = sizeof wrong / sizeof wrong[0] };

/* The fifth line of the file is wrong, the fourth job. */
START_TEST(a_wrong_line_is_named_and_nothing_is_enqueued)
{
    char text[512];
    char wanted[256];
    (void)snprintf(text, sizeof text, KNOWN "\n" KNOWN "\n\n" KNOWN "\n%s\n" KNOWN "\n",
                   wrong[_i].line);
    (void)snprintf(wanted, sizeof wanted, "jobs.ndjson:5: %s", wrong[_i].wanted);
    struct command_result r = OUTBOX_RUN("enqueue", "--file", jobs_file(text));
    expect_exit(r, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, wanted);
    expect_text(r.err, "outbox enqueue: nothing was enqueued\n");
    ck_assert_int_eq(jobs_count(), 0);
    r = OUTBOX_RUN("enqueue", "--dry-run", "--file", jobs_file(text), NOWHERE);
    expect_exit(r, wrong[_i].by_server ? 0 : OB_EXIT_FAILED);
    expect_text(wrong[_i].by_server ? r.out : r.err, wrong[_i].by_server ? "5 jobs would" : wanted);
}
END_TEST

/* In the third chunk; the two before it are at the server. */
START_TEST(a_wrong_line_far_behind_rolls_everything_back)
{
    struct command_result r = OUTBOX_RUN("enqueue", "--file", many_lines(5000, 2500, "{"));
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:2500: not valid JSON");
    r = OUTBOX_RUN("enqueue", "--file",
                   many_lines(5000, 4999, "{\"task\": \"t\", \"delay\": \"soon\"}"));
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:4999: \"delay\" is not an interval");
    r = OUTBOX_RUN("enqueue", "--file",
                   many_lines(5000, 3456, "{\"task\":\"t\",\"payload\":1e200000}"));
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:3456: value overflows");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

/* Line 999 goes to the server before line 1001 is read: the first error of the file is told. */
START_TEST(the_first_wrong_line_is_told_whoever_finds_it)
{
    char *text = read_file_from(many_lines(1000, 999, "{\"task\": \"t\", \"delay\": -1}"), 0, NULL);
    size_t len = strlen(text) + 10;
    char *whole = calloc(1, len);
    (void)snprintf(whole, len, "%s{\n", text);
    struct command_result r = OUTBOX_RUN("enqueue", "--file", jobs_file(whole));
    free(whole);
    free(text);
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:999: delay is negative");
    ck_assert_ptr_null(strstr(r.err, ":1001:"));
}
END_TEST

START_TEST(standard_input_is_named_in_errors)
{
    struct command_result r =
        run_outbox("\n{\n", (const char *const[]){"enqueue", "--file", "-", NULL});
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "outbox enqueue: standard input:2: not valid JSON");
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_told_before_connecting)
{
    struct command_result r = OUTBOX_RUN("enqueue", "--file", "/nonexistent/jobs", NOWHERE);
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "/nonexistent/jobs: cannot be opened: No such file");
    r = OUTBOX_RUN("enqueue", "--file", "/", NOWHERE);
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "/: cannot be opened: Is a directory");
    r = OUTBOX_RUN("enqueue", "--file", jobs_file(KNOWN), NOWHERE);
    expect_exit(r, OB_EXIT_TRY_AGAIN);
    expect_text(r.err, "no connection to the database");
}
END_TEST

START_TEST(a_missing_schema_is_told)
{
    struct command_result r = OUTBOX_RUN("enqueue", "--file", jobs_file(KNOWN));
    expect_exit(r, OB_EXIT_INCOMPATIBLE);
    expect_text(r.err, "run `outbox migrate`");
}
END_TEST

/* The list of names here and the one in the schema are the same. */
START_TEST(every_key_that_the_server_knows_is_known_here)
{
    char names[1024];
    (void)snprintf(names, sizeof names, "%s",
                   testdb_value("SELECT string_agg(m[1], ' ') FROM regexp_matches((SELECT prosrc"
                                " FROM pg_proc WHERE proname = 'check_job'),"
                                " '\"(\\w+)\": \"(?:string|any|integer|time|interval|object|array|"
                                "boolean)\"', 'g') AS m WHERE m[1] <> 'encoding'"));
    unsigned count = 0;
    char *rest = names;
    for (char *name = strtok_r(rest, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest)) {
        char line[128];
        bool is_task = strcmp(name, "task") == 0;
        (void)snprintf(line, sizeof line, "{%s\"%s\": null}", is_task ? "" : "\"task\": \"t\", ",
                       name);
        struct command_result r = OUTBOX_RUN("enqueue", "--file", jobs_file(line), "--dry-run");
        if (is_task)
            expect_text(r.err, "\"task\" is null");
        else
            expect_exit(r, 0);
        count++;
    }
    ck_assert_uint_eq(count, 14);
}
END_TEST

static const struct {
    const char *args[7];
    const char *wanted;
} usage[] = {
    {{"enqueue", "t", "{}", "--file", "x"}, "payloads come from the file: leave \"{}\" out"},
    {{"enqueue", "--file", "x", "--msgpack"}, "--msgpack and --file exclude each other"},
    {{"enqueue", "--file", "x", "--file", "y"}, "--file is given twice"},
    {{"enqueue", "--file", "x", "--batch", "0"}, "--batch \"0\": expected a number from 1"},
    {{"enqueue", "no name", "--file", "x"}, "\"no name\" is not a task's name"},
    {{"enqueue", "t", "--batch", "7"}, "--batch needs --file"},
    {{"enqueue", "t", "--dry-run"}, "--dry-run needs --file"},
    {{"enqueue", "t", "--quiet"}, "--quiet needs --file"},
    {{"enqueue"}, "`outbox enqueue [TASK] --file FILE`"},
};
enum { USAGE = sizeof usage / sizeof usage[0] };

START_TEST(wrong_usage_is_told_with_64)
{
    struct command_result r = run_outbox(NULL, usage[_i].args);
    expect_exit(r, OB_EXIT_USAGE);
    expect_text(r.err, usage[_i].wanted);
    ck_assert_str_eq(r.out, "");
}
END_TEST

/* --- batches --- */

START_TEST(batches_before_a_wrong_line_stay_and_the_rest_can_follow)
{
    const char *path = many_lines(2600, 2345, "{\"task\": \"t\", \"delay\": \"soon\"}");
    struct command_result r = OUTBOX_RUN("enqueue", "--file", path, "--batch", "500", "--json");
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:2345: \"delay\" is not an interval");
    expect_text(r.err, "lines 1 to 2000 are enqueued and committed (2000 jobs), nothing after "
                       "them; go on with `tail -n +2001`");
    json_t *json = parsed(r);
    ck_assert_int_eq(integer(json, "enqueued"), 2000);
    ck_assert_int_eq(integer(json, "lines"), 2000);
    ck_assert_int_eq(integer(json, "first_id"), 1);
    ck_assert_int_eq(integer(json, "last_id"), 2000);
    ck_assert(json_is_false(json_object_get(json, "complete")));
    json_decref(json);
    ck_assert_int_eq(jobs_count(), 2000);
    ck_assert_int_eq(testdb_long("SELECT count(DISTINCT ready_xid) FROM outbox.job"), 4);
}
END_TEST

START_TEST(batches_may_be_small_or_larger_than_chunks)
{
    expect_summary(OUTBOX_RUN("enqueue", "--file", many_lines(7, 0, ""), "--batch", "1"),
                   "enqueued 7 jobs ");
    ck_assert_int_eq(testdb_long("SELECT count(DISTINCT ready_xid) FROM outbox.job"), 7);
    expect_summary(OUTBOX_RUN("enqueue", "--file", many_lines(5500, 0, ""), "--batch", "2500"),
                   "enqueued 5500 jobs ");
    ck_assert_str_eq(testdb_value("SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM"
                                  " outbox.job WHERE id > 7 GROUP BY ready_xid ORDER BY min(id)) "
                                  "AS b"),
                     "2500 2500 500");
}
END_TEST

/* --- how it is told --- */

START_TEST(json_is_one_summary_and_quiet_says_nothing)
{
    const char *path = many_lines(3, 0, "");
    struct command_result r = OUTBOX_RUN("enqueue", "--file", path, "--json");
    expect_exit(r, 0);
    json_t *json = parsed(r);
    ck_assert_int_eq(integer(json, "enqueued"), 3);
    ck_assert_int_eq(integer(json, "existing"), 0);
    ck_assert_int_eq(integer(json, "first_id"), 1);
    ck_assert_int_eq(integer(json, "last_id"), 3);
    ck_assert_int_eq(integer(json, "lines"), 3);
    ck_assert(json_is_integer(json_object_get(json, "ms")));
    ck_assert(json_is_true(json_object_get(json, "complete")));
    json_decref(json);
    r = OUTBOX_RUN("enqueue", "--file", path, "--quiet");
    expect_exit(r, 0);
    ck_assert_str_eq(r.out, "");
    ck_assert_str_eq(r.err, "");
    json = parsed(OUTBOX_RUN("enqueue", "--file", jobs_file("{"), "--json"));
    ck_assert_int_eq(integer(json, "enqueued"), 0);
    ck_assert(json_is_null(json_object_get(json, "first_id")));
    json_decref(json);
    ck_assert_int_eq(jobs_count(), 6);
}
END_TEST

START_TEST(dry_run_reports_every_wrong_line_and_enqueues_nothing)
{
    const char *path =
        jobs_file("{\"payload\": 1}\n" KNOWN "\n{\n\n{\"task\": \"t\", \"prio\": 1}\n");
    struct command_result r = OUTBOX_RUN("enqueue", "--file", path, "-n", "--json", NOWHERE);
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:1: no \"task\"");
    expect_text(r.err, "jobs.ndjson:3: not valid JSON");
    expect_text(r.err, "jobs.ndjson:5: unknown key");
    json_t *json = parsed(r);
    ck_assert(json_is_true(json_object_get(json, "dry_run")));
    ck_assert_int_eq(integer(json, "jobs"), 1);
    ck_assert_int_eq(integer(json, "lines"), 5);
    ck_assert_int_eq(integer(json, "errors"), 3);
    json_decref(json);
    r = OUTBOX_RUN("enqueue", "--file", path, "-n");
    ck_assert_str_eq(r.out, "");
    r = OUTBOX_RUN("enqueue", "--file", many_lines(5, 0, ""), "--dry-run");
    expect_exit(r, 0);
    ck_assert_str_eq(r.out, "5 jobs would be enqueued\n");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(dry_run_counts_the_errors_that_are_too_many_to_show)
{
    char text[256] = "";
    for (size_t i = 0; i < 23; i++)
        (void)snprintf(text + 2 * i, sizeof text - 2 * i, "{\n");
    struct command_result r = OUTBOX_RUN("enqueue", "--file", jobs_file(text), "-n");
    expect_exit(r, OB_EXIT_FAILED);
    expect_text(r.err, "jobs.ndjson:20: ");
    ck_assert_ptr_null(strstr(r.err, "jobs.ndjson:21: "));
    expect_text(r.err, "jobs.ndjson: 3 more lines are wrong");
}
END_TEST

/* --- a process of its own: signals, terminals, faults --- */

struct running {
    pid_t pid;
    int input; /* its standard input; -1: none */
};

static const char *said_path(void)
{
    return flag_path("said");
}

/* `outbox enqueue --file FILE [--batch N]`, both outputs into said_path(), or to the terminal
 * `tty`. */
static struct running start(const char *file, const char *batch, const char *tty)
{
    static const char program[] = OB_TEST_BUILD_DIR "/bin/outbox";
    char out[128];
    int fds[2];
    (void)snprintf(out, sizeof out, "%s", tty != NULL ? tty : said_path());
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    struct running r = {.pid = child_fork(SIGKILL), .input = fds[1]};
    if (r.pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_NOCTTY | (tty != NULL ? 0 : O_TRUNC), 0644);
        (void)dup2(fds[0], 0);
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)setenv("OUTBOX_DATABASE", testdb_conninfo(), 1);
        (void)execl(program, program, "enqueue", "--file", file, batch != NULL ? "--batch" : NULL,
                    batch, (char *)NULL);
        _exit(127);
    }
    (void)close(fds[0]);
    return r;
}

static void feed(const struct running *r, const char *text)
{
    ck_assert(write_all(r->input, text, strlen(text)));
}

/* Waits for its end and compares the exit code and a part of what it said. */
static void expect_end(struct running *r, int code, const char *wanted)
{
    int got = child_wait(r->pid, WAIT_MS);
    char *said = read_file_from(said_path(), 0, NULL);
    ck_assert_ptr_nonnull(said);
    ck_assert_msg(got == code, "ended with %d: %s", got, said);
    expect_text(said, wanted);
    free(said);
    (void)close(r->input);
}

static bool session_is(const char *condition)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outbox enqueue'"
                   " AND datname = current_database() AND %s",
                   condition);
    return testdb_long(sql) == 1;
}

static void wait_for_session(const char *condition)
{
    ck_assert_msg(wait_until(session_is(condition), WAIT_MS), "no session that is %s", condition);
}

/* More than two chunks, so that one was answered, and then it waits for more. */
static void feed_chunks(const struct running *r)
{
    char *text = read_file_from(many_lines(3000, 0, ""), 0, NULL);
    ck_assert_ptr_nonnull(text);
    feed(r, text);
    free(text);
    wait_for_session("state = 'idle in transaction'");
}

START_TEST(an_interrupt_while_it_waits_for_input_rolls_back)
{
    struct running r = start("-", NULL, NULL);
    int signals[] = {SIGINT, SIGTERM};
    feed_chunks(&r);
    ck_assert_int_eq(kill(r.pid, signals[_i]), 0);
    expect_end(&r, 128 + signals[_i], "outbox enqueue: interrupted: nothing was enqueued\n");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

/* Nothing else would end the statement, which waits for a lock. */
START_TEST(an_interrupt_while_the_server_works_cancels_and_rolls_back)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "LOCK TABLE outbox.job IN SHARE MODE");
    struct running r = start(many_lines(5000, 0, ""), NULL, NULL);
    wait_for_session("wait_event_type = 'Lock'");
    ck_assert_int_eq(kill(r.pid, SIGINT), 0);
    expect_end(&r, 128 + SIGINT, "interrupted: nothing was enqueued");
    PQfinish(conn);
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(an_interrupt_keeps_the_batches_that_are_committed)
{
    struct running r = start("-", "2", NULL);
    feed(&r, KNOWN "\n" KNOWN "\n" KNOWN "\n");
    ck_assert(wait_until(jobs_count() == 2, WAIT_MS));
    ck_assert_int_eq(kill(r.pid, SIGINT), 0);
    expect_end(&r, 128 + SIGINT, "interrupted: lines 1 to 2 are enqueued and committed (2 jobs)");
    ck_assert_int_eq(jobs_count(), 2);
}
END_TEST

START_TEST(a_killed_load_leaves_nothing)
{
    struct running r = start("-", NULL, NULL);
    feed_chunks(&r);
    child_kill(r.pid);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_activity WHERE"
                                     " application_name = 'outbox enqueue'"
                                     " AND datname = current_database()") == 0,
                         WAIT_MS));
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

static const char terminate[] =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
    " 'outbox enqueue' AND datname = current_database()";

START_TEST(a_lost_connection_leaves_nothing_and_says_try_again)
{
    struct running r = start("-", NULL, NULL);
    feed_chunks(&r);
    testdb_exec(terminate);
    feed(&r, KNOWN "\n");
    (void)close(r.input);
    r.input = -1;
    expect_end(&r, OB_EXIT_TRY_AGAIN, "nothing was enqueued");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(a_lost_connection_after_a_batch_is_not_to_be_tried_again_blindly)
{
    struct running r = start("-", "2", NULL);
    feed(&r, KNOWN "\n" KNOWN "\n" KNOWN "\n");
    ck_assert(wait_until(jobs_count() == 2, WAIT_MS));
    testdb_exec(terminate);
    feed(&r, KNOWN "\n");
    (void)close(r.input);
    r.input = -1;
    expect_end(&r, OB_EXIT_FAILED, "lines 1 to 2 are enqueued and committed");
    ck_assert_int_eq(jobs_count(), 2);
}
END_TEST

/* The commit waits for a lock when its session is ended. */
START_TEST(a_connection_lost_in_the_commit_is_told_as_unknown)
{
    PGconn *conn = testdb_connect();
    testdb_exec("CREATE TABLE public.gate ()");
    testdb_exec("CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
                " 'BEGIN LOCK TABLE public.gate; RETURN NULL; END'");
    testdb_exec("CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON outbox.job DEFERRABLE INITIALLY"
                " DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait()");
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "LOCK TABLE public.gate");
    struct running r = start(jobs_file(KNOWN "\n" KNOWN "\n"), NULL, NULL);
    wait_for_session("query = 'COMMIT' AND wait_event_type = 'Lock'");
    testdb_exec(terminate);
    expect_end(&r, OB_EXIT_FAILED,
               "the connection was lost while lines 1 to 2 were being committed");
    PQfinish(conn);
}
END_TEST

/* A chunk is answered while the terminal is there: the bar is drawn, and wiped at the end. */
START_TEST(a_terminal_gets_a_progress_bar_that_fits)
{
    enum { SIZE = 1 << 16 };
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    struct winsize size = {.ws_row = 24, .ws_col = 40};
    ck_assert_int_eq(ioctl(master, TIOCSWINSZ, &size), 0);
    const char *tty = ptsname(master);
    int slave = open(tty, O_RDWR | O_NOCTTY | O_CLOEXEC); /* keeps what is written */
    struct running r = start(many_lines(3000, 0, ""), NULL, tty);
    ck_assert_int_eq(child_wait(r.pid, WAIT_MS), 0);
    char *text = calloc(1, SIZE);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    size_t len = 0;
    for (ssize_t n = read(master, text, SIZE - 1); n > 0;
         n = read(master, text + len, SIZE - 1 - len))
        len += (size_t)n;
    expect_text(text, "\r[####");
    expect_text(text, "] 0.1 of 0.1 MB, ");
    expect_text(text, "\r\033[Kenqueued 3000 jobs (first id 1");
    const char *bar = strstr(text, "\r[");
    ck_assert_uint_lt(strcspn(bar + 1, "\033"), 40);
    free(text);
    (void)close(slave);
    (void)close(master);
    (void)close(r.input);
}
END_TEST

static TCase *add_case(Suite *s, const char *name, void (*set_up)(void))
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, testdb_drop);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("cli_enqueue_file");
    TCase *tc = add_case(s, "what is enqueued", testdb_create);
    tcase_add_test(tc, each_line_becomes_a_job_in_order_with_its_options);
    tcase_add_test(tc, standard_input_with_any_line_ends_will_do);
    tcase_add_test(tc, nothing_to_enqueue_is_no_error);
    tcase_add_test(tc, task_and_options_are_for_lines_that_do_not_say_it_themselves);
    tcase_add_test(tc, escaped_names_are_resolved_by_the_server);
    tcase_add_test(tc, many_chunks_are_one_transaction_and_keep_their_order);
    tcase_add_test(tc, a_line_may_be_as_large_as_a_payload);
    tcase_add_test(tc, a_producer_needs_nothing_but_its_grants);
    tc = add_case(s, "what is refused", testdb_create);
    tcase_add_loop_test(tc, a_wrong_line_is_named_and_nothing_is_enqueued, 0, WRONG);
    tcase_add_test(tc, a_wrong_line_far_behind_rolls_everything_back);
    tcase_add_test(tc, the_first_wrong_line_is_told_whoever_finds_it);
    tcase_add_test(tc, standard_input_is_named_in_errors);
    tcase_add_test(tc, a_file_that_cannot_be_read_is_told_before_connecting);
    tcase_add_test(tc, every_key_that_the_server_knows_is_known_here);
    tcase_add_loop_test(tc, wrong_usage_is_told_with_64, 0, USAGE);
    tc = add_case(s, "no schema", testdb_create_empty);
    tcase_add_test(tc, a_missing_schema_is_told);
    tc = add_case(s, "batches", testdb_create);
    tcase_add_test(tc, batches_before_a_wrong_line_stay_and_the_rest_can_follow);
    tcase_add_test(tc, batches_may_be_small_or_larger_than_chunks);
    tc = add_case(s, "how it is told", testdb_create);
    tcase_add_test(tc, json_is_one_summary_and_quiet_says_nothing);
    tcase_add_test(tc, dry_run_reports_every_wrong_line_and_enqueues_nothing);
    tcase_add_test(tc, dry_run_counts_the_errors_that_are_too_many_to_show);
    tcase_add_test(tc, a_terminal_gets_a_progress_bar_that_fits);
    tc = add_case(s, "interruptions", testdb_create);
    tcase_add_loop_test(tc, an_interrupt_while_it_waits_for_input_rolls_back, 0, 2);
    tcase_add_test(tc, an_interrupt_while_the_server_works_cancels_and_rolls_back);
    tcase_add_test(tc, an_interrupt_keeps_the_batches_that_are_committed);
    tcase_add_test(tc, a_killed_load_leaves_nothing);
    tcase_add_test(tc, a_lost_connection_leaves_nothing_and_says_try_again);
    tcase_add_test(tc, a_lost_connection_after_a_batch_is_not_to_be_tried_again_blindly);
    tcase_add_test(tc, a_connection_lost_in_the_commit_is_told_as_unknown);
    return s;
}
