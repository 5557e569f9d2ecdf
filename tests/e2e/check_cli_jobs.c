/* enqueue, jobs, show, stats, dispatchers, cancel, retry and migrate against a real server. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <jansson.h>

#include "base/err.h"
#include "ck_main.h"
#include "daemon.h"
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

/* A command's standard output as JSON; fails the test if it is none. json_decref it. */
static json_t *parsed(struct command_result r)
{
    json_error_t error;
    expect_ok(r);
    json_t *json = json_loads(r.out, 0, &error);
    ck_assert_msg(json != NULL, "%s in %.2000s", error.text, r.out);
    return json;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "(no string)";
}

/* Enqueues with `outbox enqueue` and returns the id. */
static long enqueue(const char *task, const char *payload)
{
    struct command_result r = OUTBOX_RUN("enqueue", task, payload);
    expect_ok(r);
    return strtol(r.out, NULL, 10);
}

/* What a dispatcher does with one ready job of `task`, by the functions that it calls. */
static void claim_one(const char *task)
{
    char sql[512];
    testdb_exec("SELECT outbox.register(77, 'web\033one', 'host', 'boot', 'lock', 42, '{}', '9.9',"
                " '{boom,resize}', '60s')");
    (void)snprintf(sql, sizeof sql, "SELECT outbox.claim(77, 1, '{%s}', '{1}')", task);
    testdb_exec(sql);
}

static void kill_one(const char *task)
{
    claim_one(task);
    testdb_exec(
        "SELECT outbox.settle(77, ARRAY[(SELECT max(id) FROM outbox.jobs WHERE state = "
        "'running')], '{1}',"
        " '[{\"outcome\": \"dead\", \"reason\": \"exit 65\", \"exit_code\": 65, \"duration_ms\": "
        "12,"
        " \"started_at\": \"2026-01-02T03:04:05Z\", \"head\": \"aGVsbG8KG1sySg==\", \"tail\": null,"
        " \"output_bytes\": 1000}]')");
}

static const char *number(long n)
{
    static char text[4][24];
    static unsigned i;
    i = (i + 1) % 4;
    (void)snprintf(text[i], sizeof text[i], "%ld", n);
    return text[i];
}

/* --- enqueue --- */

START_TEST(enqueue_stores_the_payload_byte_for_byte_and_prints_the_id)
{
    long id = enqueue("resize",
                      "{\"big\": 123456789012345678901234567890,  \"z\": 1.0, \"a\":\"\\u00e9\"}");
    ck_assert_int_gt(id, 0);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.jobs"), id);
    ck_assert_str_eq(testdb_value("SELECT convert_from(payload, 'UTF8') FROM outbox.job"),
                     "{\"big\": 123456789012345678901234567890,  \"z\": 1.0, \"a\":\"\\u00e9\"}");
    ck_assert_str_eq(
        testdb_value("SELECT task || ' ' || state || ' ' || priority FROM outbox.jobs"),
        "resize ready 2");
}
END_TEST

START_TEST(enqueue_reads_a_payload_that_is_piped_in)
{
    expect_ok(run_outbox("[1, 2]\n", (const char *const[]){"enqueue", "t", NULL}));
    expect_ok(run_outbox("{\"via\": \"dash\"}", (const char *const[]){"enqueue", "t", "-", NULL}));
    expect_ok(OUTBOX_RUN("enqueue", "t"));
    ck_assert_str_eq(
        testdb_value(
            "SELECT string_agg(btrim(convert_from(payload, 'UTF8'), E'\\n'), '|' ORDER BY id)"
            " FROM outbox.job"),
        "[1, 2]|{\"via\": \"dash\"}|{}");
    struct command_result r = OUTBOX_RUN("enqueue", "t", "-");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "not valid JSON");
}
END_TEST

START_TEST(every_option_of_enqueue_reaches_the_job)
{
    json_t *json =
        parsed(OUTBOX_RUN("enqueue", "resize", "{}", "--priority", "1", "--run-at",
                          "2099-01-31T08:30:00Z", "--expires-at", "2099-02-01 00:00:00+00:00",
                          "--max-attempts", "7", "--header", "a=b=c", "-H", "quote=\"", "--json"));
    ck_assert_int_gt(json_integer_value(json_object_get(json, "id")), 0);
    ck_assert(json_is_false(json_object_get(json, "existing")));
    json_decref(json);
    ck_assert_str_eq(
        testdb_value("SELECT format('%s %s %s %s %s', state, priority, max_attempts,"
                     " run_at = '2099-01-31 08:30+00', expires_at = '2099-02-01 00:00+00')"
                     " FROM outbox.jobs"),
        "scheduled 1 7 t t");
    ck_assert_str_eq(testdb_value("SELECT headers::jsonb ->> 'a' FROM outbox.jobs"), "b=c");
    ck_assert_str_eq(testdb_value("SELECT headers::jsonb ->> 'quote' FROM outbox.jobs"), "\"");
    expect_ok(OUTBOX_RUN("enqueue", "later", "--delay", "90m"));
    ck_assert_str_eq(
        testdb_value("SELECT run_at - created_at BETWEEN '89 min' AND '91 min' FROM outbox.jobs"
                     " WHERE task = 'later'"),
        "t");
}
END_TEST

/* A job that never was: the server's words arrive, nothing is enqueued. */
START_TEST(what_the_server_refuses_is_said_with_its_hint)
{
    struct command_result r = OUTBOX_RUN("enqueue", "t", "{}", "--after", "4711");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "4711");
    expect_text(r.err, ". ");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 0);
}
END_TEST

START_TEST(a_msgpack_payload_is_stored_raw_and_shown_as_json)
{
    struct command_result r = run_outbox(
        "\x82\xA1n\x07\xA1s\xA2hi", (const char *const[]){"enqueue", "t", "-", "--msgpack", NULL});
    expect_ok(r);
    const char *id = number(strtol(r.out, NULL, 10));
    ck_assert_str_eq(
        testdb_value("SELECT encoding || ' ' || encode(payload, 'hex') FROM outbox.job"),
        "msgpack 82a16e07a173a26869");
    r = OUTBOX_RUN("show", id, "--payload", "json");
    expect_ok(r);
    ck_assert_str_eq(r.out, "{\"n\":7,\"s\":\"hi\"}\n");
    r = OUTBOX_RUN("show", id, "--payload", "raw");
    expect_ok(r);
    ck_assert_int_eq(memcmp(r.out, "\x82\xA1n\x07\xA1s\xA2hi", 9), 0);
    json_t *json = parsed(OUTBOX_RUN("show", id, "--json"));
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(json, "payload"), "n")), 7);
    ck_assert_str_eq(text_of(json, "encoding"), "msgpack");
    json_decref(json);
    expect_text(OUTBOX_RUN("show", id).out, "{\"n\":7,\"s\":\"hi\"}");
    r = run_outbox("\x82\xA1n", (const char *const[]){"enqueue", "t", "-", "--msgpack", NULL});
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    expect_text(r.err, "not valid msgpack");
}
END_TEST

/* --- jobs --- */

/* Five jobs: resize 1 (an hour old), resize 2 (scheduled), boom 3 (dead), mail 4 (running), mail 5.
 */
static void make_jobs(void)
{
    (void)enqueue("resize", "{}");
    testdb_exec("UPDATE outbox.job SET created_at = created_at - interval '1 hour'");
    expect_ok(OUTBOX_RUN("enqueue", "resize", "{}", "--delay", "1h"));
    (void)enqueue("boom", "{}");
    kill_one("boom");
    (void)enqueue("mail", "{}");
    claim_one("mail");
    (void)enqueue("mail", "{}");
}

/* The ids that `outbox jobs ARGS --json` lists, as "3 1". */
static const char *listed(const char *const *args)
{
    static char text[256];
    const char *all[12] = {"jobs", "--json"};
    size_t n = 2;
    for (; *args != NULL; args++)
        all[n++] = *args;
    json_t *json = parsed(run_outbox(NULL, all));
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(json); i++)
        len += (size_t)snprintf(
            text + len, sizeof text - len, "%s%lld", i > 0 ? " " : "",
            (long long)json_integer_value(json_object_get(json_array_get(json, i), "id")));
    json_decref(json);
    return text;
}

static const struct {
    const char *args[6];
    const char *ids;
} filters[] = {{{NULL}, "5 4 3 2 1"},
               {{"--task", "resize"}, "2 1"},
               {{"--task", "resize", "-t", "boom"}, "3 2 1"},
               {{"--task", "resize,boom"}, "3 2 1"},
               {{"--state", "dead"}, "3"},
               {{"--state", "ready,running"}, "5 4 1"},
               {{"--state", "scheduled", "--state", "done"}, "2"},
               {{"--limit", "2"}, "5 4"},
               {{"--limit", "0"}, "5 4 3 2 1"},
               {{"--min-age", "30m"}, "1"},
               {{"--min-age", "2h"}, ""},
               {{"--before", "2020-01-01"}, ""},
               {{"--after", "2020-01-01"}, "5 4 3 2 1"},
               {{"--after", "2099-01-01T00:00Z"}, ""},
               {{"--task", "mail", "--state", "ready"}, "5"},
               {{"--key", "none"}, ""}};

START_TEST(jobs_are_filtered)
{
    make_jobs();
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
        ck_assert_msg(strcmp(listed(filters[i].args), filters[i].ids) == 0,
                      "filter %zu: %s instead of %s", i, listed(filters[i].args), filters[i].ids);
}
END_TEST

START_TEST(jobs_are_counted)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("jobs", "--count");
    expect_ok(r);
    ck_assert_str_eq(r.out, "5\n");
    ck_assert_str_eq(OUTBOX_RUN("jobs", "--count", "--task", "mail").out, "2\n");
    json_t *json =
        parsed(OUTBOX_RUN("jobs", "--count", "--json", "--state", "dead", "--limit", "0"));
    ck_assert_int_eq(json_integer_value(json_object_get(json, "count")), 1);
    json_decref(json);
}
END_TEST

START_TEST(jobs_are_shown_as_a_table_that_cannot_drive_the_terminal)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("jobs");
    expect_ok(r);
    ck_assert_str_eq(r.err, "");
    expect_text(r.out, "ID  TASK    STATE      PRI  TRIES");
    expect_text(r.out, " 3  boom    dead         2      1");
    expect_text(r.out, "exit 65");
    expect_text(r.out, "due in 59m");
    expect_text(r.out, "on web\\x1bone");
    ck_assert_ptr_null(strchr(r.out, '\033'));
}
END_TEST

START_TEST(a_limit_that_hides_jobs_is_told_on_stderr)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("jobs", "--limit", "4");
    expect_ok(r);
    expect_text(r.err, "there are more");
    ck_assert_ptr_null(strstr(r.out, "more"));
    ck_assert_str_eq(OUTBOX_RUN("jobs", "--limit", "5").err, "");
}
END_TEST

START_TEST(no_jobs_is_no_error)
{
    struct command_result r = OUTBOX_RUN("jobs");
    expect_ok(r);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "no such jobs");
    ck_assert_str_eq(OUTBOX_RUN("jobs", "--json").out, "[]\n");
    expect_ok(OUTBOX_RUN("stats"));
    ck_assert_str_eq(OUTBOX_RUN("stats", "--json").out, "[]\n");
    ck_assert_str_eq(OUTBOX_RUN("dispatchers", "--json").out, "[]\n");
}
END_TEST

START_TEST(a_job_in_json_has_every_field)
{
    make_jobs();
    json_t *json = parsed(OUTBOX_RUN("jobs", "--json", "--state", "running"));
    json_t *job = json_array_get(json, 0);
    static const char *const keys[] = {"id",           "task",     "state",        "priority",
                                       "key",          "run_at",   "expires_at",   "attempts",
                                       "max_attempts", "lost",     "created_at",   "finished_at",
                                       "reason",       "encoding", "payload_size", "owner",
                                       "dispatcher",   "headers",  "cancelling",   "paused"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        ck_assert_msg(json_object_get(job, keys[i]) != NULL, "%s is not there", keys[i]);
    ck_assert_uint_eq(json_object_size(job), sizeof keys / sizeof keys[0]);
    ck_assert_str_eq(text_of(job, "owner"), "77");
    ck_assert_str_eq(text_of(job, "dispatcher"), "web\033one");
    ck_assert_int_eq(json_integer_value(json_object_get(job, "attempts")), 1);
    ck_assert(json_is_null(json_object_get(job, "key")));
    ck_assert_uint_eq(strlen(text_of(job, "created_at")), strlen("2026-01-02T03:04:05.123456Z"));
    json_decref(json);
}
END_TEST

/* --- show --- */

START_TEST(a_dead_job_is_shown_with_its_attempt_and_output)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("show", "3");
    expect_ok(r);
    expect_text(r.out, "state         dead\n");
    expect_text(r.out, "reason        exit 65\n");
    expect_text(r.out, "attempt 1     2026-01-02T03:04:05.000000Z, dead after 12ms: exit 65\n");
    expect_text(r.out, "    | hello\n    | \\x1b[2J\n    ... 990 bytes left out ...\n");
    expect_text(r.out, "payload       2 bytes of json\n{}\n");
    ck_assert_ptr_null(strchr(r.out, '\033'));
    json_t *json = parsed(OUTBOX_RUN("show", "3", "--json"));
    json_t *attempt = json_array_get(json_object_get(json, "attempts_log"), 0);
    ck_assert_str_eq(text_of(attempt, "output_head"), "hello\n\033[2J");
    ck_assert_int_eq(json_integer_value(json_object_get(attempt, "exit_code")), 65);
    ck_assert_int_eq(json_integer_value(json_object_get(attempt, "output_bytes")), 1000);
    ck_assert(json_is_null(json_object_get(attempt, "http_status")));
    ck_assert(json_is_object(json_object_get(json, "payload")));
    json_decref(json);
}
END_TEST

START_TEST(attempts_are_shown_in_the_order_in_which_they_happened)
{
    (void)enqueue("boom", "{}");
    testdb_exec("SELECT outbox.register(77, 'w', 'h', 'b', 'l', 1, '{}', '9', '{boom}', '60s')");
    testdb_exec(
        "DO $$ BEGIN FOR i IN 1..12 LOOP"
        " PERFORM outbox.claim(77, i, '{boom}', '{1}');"
        " PERFORM outbox.settle(77, '{1}', ARRAY[i::bigint], jsonb_build_array(jsonb_build_object("
        "'outcome', 'retry', 'reason', 'try ' || i, 'delay_ms', 0)));"
        " END LOOP; END $$");
    json_t *json = parsed(OUTBOX_RUN("show", "1", "--json"));
    json_t *log = json_object_get(json, "attempts_log");
    ck_assert_uint_eq(json_array_size(log), 12);
    for (size_t i = 0; i < 12; i++)
        ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(log, i), "attempt")),
                         (long)i + 1);
    json_decref(json);
    expect_text(OUTBOX_RUN("show", "1").out,
                "\nattempt 12    retry: try 12\n"); /* no times were recorded */
}
END_TEST

START_TEST(a_job_that_is_not_there_is_told_with_1)
{
    struct command_result r = OUTBOX_RUN("show", "4711");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "");
    expect_text(r.err, "there is no job 4711");
    ck_assert_int_eq(OUTBOX_RUN("show", "4711", "--json").exit_code, OB_EXIT_FAILED);
}
END_TEST

/* --- stats, dispatchers --- */

START_TEST(stats_mark_tasks_that_nobody_handles)
{
    make_jobs(); /* dispatcher 77 lists boom and resize, not mail */
    struct command_result r = OUTBOX_RUN("stats");
    expect_ok(r);
    expect_text(r.out, "TASK    STATE      COUNT");
    const char *mail = strstr(r.out, "\nmail    ready");
    ck_assert_ptr_nonnull(mail);
    expect_text(mail, "no dispatcher handles it\n");
    json_t *json = parsed(OUTBOX_RUN("stats", "--json"));
    ck_assert_uint_eq(json_array_size(json), 5);
    for (size_t i = 0; i < json_array_size(json); i++) {
        json_t *row = json_array_get(json, i);
        ck_assert_int_eq(json_integer_value(json_object_get(row, "count")), 1);
        ck_assert_int_eq(json_is_true(json_object_get(row, "unhandled")),
                         strcmp(text_of(row, "task"), "mail") == 0);
        ck_assert_int_ge(json_integer_value(json_object_get(row, "oldest_age_ms")), 0);
    }
    json_decref(json);
}
END_TEST

START_TEST(dispatchers_are_listed)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("dispatchers");
    expect_ok(r);
    expect_text(r.out, "web\\x1bone");
    expect_text(r.out, "live");
    expect_text(r.out, "boom, resize");
    json_t *json = parsed(OUTBOX_RUN("dispatchers", "--json"));
    json_t *row = json_array_get(json, 0);
    ck_assert_str_eq(text_of(row, "id"), "77");
    ck_assert_int_eq(json_integer_value(json_object_get(row, "running")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(row, "lease_ms")), 60000);
    ck_assert(json_is_true(json_object_get(row, "live")));
    ck_assert_uint_eq(json_array_size(json_object_get(row, "tasks")), 2);
    json_decref(json);
}
END_TEST

/* --- cancel, retry --- */

START_TEST(cancel_answers_for_each_id)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("cancel", "1", "2", "3");
    expect_ok(r);
    ck_assert_str_eq(r.out, "1: cancelled\n2: cancelled\n3: cancelled\n");
    ck_assert_str_eq(listed((const char *const[]){NULL}), "5 4");
    r = OUTBOX_RUN("cancel", "4", "5", "1");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "4: cancelling: its dispatcher has been told to end it\n5: cancelled\n"
                            "1: not found\n");
    ck_assert_str_eq(listed((const char *const[]){NULL}), "4");
}
END_TEST

START_TEST(cancel_answers_in_json)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("cancel", "5", "99", "--json");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    r.exit_code = 0;
    json_t *json = parsed(r);
    ck_assert_uint_eq(json_array_size(json), 2);
    ck_assert_str_eq(text_of(json_array_get(json, 0), "answer"), "cancelled");
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(json, 1), "id")), 99);
    ck_assert_str_eq(text_of(json_array_get(json, 1), "answer"), "not found");
    json_decref(json);
}
END_TEST

START_TEST(retry_answers_for_each_id)
{
    make_jobs();
    struct command_result r = OUTBOX_RUN("retry", "3", "2", "5", "4");
    expect_ok(r);
    ck_assert_str_eq(r.out, "3: retried\n2: retried\n5: ready already\n4: running already\n");
    ck_assert_str_eq(listed((const char *const[]){"--state", "ready", NULL}), "5 3 2 1");
    r = OUTBOX_RUN("retry", "3", "99");
    ck_assert_int_eq(r.exit_code, OB_EXIT_FAILED);
    ck_assert_str_eq(r.out, "3: ready already\n99: not found\n");
}
END_TEST

START_TEST(retry_all_revives_the_dead_jobs_of_a_task_and_no_others)
{
    testdb_exec("SELECT outbox.enqueue('boom') FROM generate_series(1, 1201)");
    (void)enqueue("resize", "{}");
    testdb_exec(
        "SELECT outbox.register(77, 'w', 'h', 'b', 'l', 1, '{}', '9', '{boom,resize}', '60s')");
    testdb_exec("SELECT count(*) FROM outbox.claim(77, 1, '{boom,resize}', '{1201,1}')");
    testdb_exec("SELECT count(*) FROM (SELECT (outbox.settle(77, array_agg(id ORDER BY id),"
                " array_agg(claim ORDER BY id), jsonb_agg('{\"outcome\": \"dead\", \"reason\": "
                "\"x\"}'::jsonb))).*"
                " FROM outbox.job) AS s");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'dead'"), 1202);
    struct command_result r = OUTBOX_RUN("retry", "--task", "boom", "--all");
    expect_ok(r);
    ck_assert_str_eq(r.out, "1201 retried\n");
    ck_assert_str_eq(r.err, ""); /* no progress bar: that is no terminal */
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'ready' AND task = 'boom'"),
        1201);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'dead'"), 1);
    json_t *json = parsed(OUTBOX_RUN("retry", "--all", "--json"));
    ck_assert_int_eq(json_integer_value(json_object_get(json, "retried")), 1);
    json_decref(json);
    ck_assert_str_eq(OUTBOX_RUN("retry", "--all").out, "0 retried\n");
}
END_TEST

/* Runs `outbox ARGS` with a terminal 60 columns wide as its stdout and stderr; returns what it
 * printed. */
static char *on_terminal(const char *args, const char *environment)
{
    enum { SIZE = 1 << 16 };
    char command[512];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    struct winsize size = {.ws_row = 24, .ws_col = 60};
    ck_assert_int_eq(ioctl(master, TIOCSWINSZ, &size), 0);
    (void)snprintf(command, sizeof command,
                   "%s TERM=xterm OUTBOX_DATABASE='%s' %s/bin/outbox %s >%s 2>&1 </dev/null",
                   environment, testdb_conninfo(), OB_TEST_BUILD_DIR, args, ptsname(master));
    int slave = open(ptsname(master),
                     O_RDWR | O_NOCTTY | O_CLOEXEC); /* keeps what is written until it is read */
    FILE *shell = popen(command, "r");               /* NOLINT: fixed text */
    ck_assert_ptr_nonnull(shell);
    ck_assert_int_eq(pclose(shell), 0);
    char *text = calloc(1, SIZE);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    size_t len = 0;
    for (ssize_t n = read(master, text, SIZE - 1); n > 0;
         n = read(master, text + len, SIZE - 1 - len))
        len += (size_t)n;
    (void)close(slave);
    (void)close(master);
    return text;
}

START_TEST(a_terminal_gets_colour_and_lines_that_fit)
{
    make_jobs();
    testdb_exec("UPDATE outbox.dead SET reason = repeat('long ', 50)");
    char *text = on_terminal("jobs", "NO_COLOR=");
    expect_text(text, "\033[31mdead\033[0m");
    expect_text(text, "long lo");
    expect_text(text, "\xE2\x80\xA6"); /* the ellipsis */
    ck_assert_ptr_null(strstr(text, "long long long long long long"));
    free(text);
    text = on_terminal("jobs", "NO_COLOR=1");
    ck_assert_ptr_null(strchr(text, '\033'));
    expect_text(text, "dead");
    free(text);
}
END_TEST

START_TEST(retrying_many_shows_progress_on_a_terminal)
{
    make_jobs();
    char *text = on_terminal("retry --all", "NO_COLOR=1");
    expect_text(text, "########] 1 of 1 ");
    expect_text(text, "1 retried");
    free(text);
}
END_TEST

static void add(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
}
#define ADD(suite, name, ...)                                                                      \
    do {                                                                                           \
        const TTest *const tests_[] = {__VA_ARGS__};                                               \
        add(suite, name, tests_, sizeof tests_ / sizeof tests_[0]);                                \
    } while (0)

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_jobs");
    ADD(suite, "enqueue", enqueue_stores_the_payload_byte_for_byte_and_prints_the_id,
        enqueue_reads_a_payload_that_is_piped_in, every_option_of_enqueue_reaches_the_job,
        what_the_server_refuses_is_said_with_its_hint,
        a_msgpack_payload_is_stored_raw_and_shown_as_json);
    ADD(suite, "jobs", jobs_are_filtered, jobs_are_counted,
        jobs_are_shown_as_a_table_that_cannot_drive_the_terminal,
        a_limit_that_hides_jobs_is_told_on_stderr, no_jobs_is_no_error,
        a_job_in_json_has_every_field);
    ADD(suite, "show", a_dead_job_is_shown_with_its_attempt_and_output,
        attempts_are_shown_in_the_order_in_which_they_happened,
        a_job_that_is_not_there_is_told_with_1);
    ADD(suite, "stats and dispatchers", stats_mark_tasks_that_nobody_handles,
        dispatchers_are_listed);
    ADD(suite, "cancel and retry", cancel_answers_for_each_id, cancel_answers_in_json,
        retry_answers_for_each_id, retry_all_revives_the_dead_jobs_of_a_task_and_no_others);
    ADD(suite, "on a terminal", a_terminal_gets_colour_and_lines_that_fit,
        retrying_many_shows_progress_on_a_terminal);
    return suite;
}
