/* The programs and handlers of examples/ do what they say, with the real daemon; and README.md's
 * first job, pasted block by block, gives the output that is shown there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

#define EXAMPLES   OB_TEST_BUILD_DIR "/examples/"
#define SOURCES    OB_TEST_SOURCE_DIR "/examples/"
#define PROGRAM_MS 60000

enum { TEXT_MAX = 4096 };

static struct daemon d;

#define START(...) daemon_start_ready(&d, (const char *const[]){__VA_ARGS__, NULL}, NULL)

/* ---- running programs ---- */

static const char *output_path(void)
{
    return flag_path("output");
}

/* What the last program printed, both streams; static storage. */
static const char *output(void)
{
    static char text[64 * 1024];
    char *all = read_file_from(output_path(), 0, NULL);
    (void)snprintf(text, sizeof text, "%s", all != NULL ? all : "");
    free(all);
    return text;
}

static pid_t start_program(const char *input, const char *const *argv)
{
    const char *out = output_path();
    pid_t pid = child_fork(SIGKILL);
    if (pid != 0)
        return pid;
    int in_fd = open(input != NULL ? input : "/dev/null", O_RDONLY);
    int out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    (void)dup2(in_fd, 0);
    (void)dup2(out_fd, 1);
    (void)dup2(out_fd, 2);
    (void)close_range(3, ~0U, 0);
    (void)setenv("OUTBOX_DATABASE", testdb_conninfo(), 1);
    (void)setenv("PGHOST", pgcluster_socket_dir(), 1);
    (void)setenv("PGUSER", "postgres", 1);
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int run_program(const char *input, const char *const *argv)
{
    int code = child_wait(start_program(input, argv), PROGRAM_MS);
    ck_assert_msg(code >= 0, "%s did not end:\n%s", argv[0], output());
    return code;
}

#define RUN(...)                  run_program(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_WITH_INPUT(file, ...) run_program((file), (const char *const[]){__VA_ARGS__, NULL})

static void expect_ran(int code)
{
    ck_assert_msg(code == 0, "exit code %d:\n%s", code, output());
}

static void expect_output(const char *wanted)
{
    ck_assert_msg(strstr(output(), wanted) != NULL, "no \"%s\" in:\n%s", wanted, output());
}

/* A handler that keeps the payload and one variable of each job, a line each. */
static const char *keeping(const char *task, const char *variable)
{
    static char specs[2][TEXT_MAX];
    static unsigned turn;
    char *spec = specs[turn++ % 2];
    (void)snprintf(spec, TEXT_MAX, "%s=printf '%%s %%s\\n' \"$(cat)\" \"$%s\" >> %s", task,
                   variable, flag_path("kept"));
    return spec;
}

static void expect_kept(const char *wanted)
{
    char *kept = read_file_from(flag_path("kept"), 0, NULL);
    ck_assert_msg(kept != NULL && strcmp(kept, wanted) == 0, "kept:\n%s\ninstead of:\n%s",
                  kept != NULL ? kept : "(nothing)", wanted);
    free(kept);
}

/* ---- the C and C++ programs ---- */

START_TEST(first_example_enqueues_one_job)
{
    START("--shell", keeping("send-welcome-email", "OUTBOX_ATTEMPT"));
    expect_ran(RUN(EXAMPLES "01_enqueue"));
    expect_output("enqueued job 1\n");
    wait_until_all_done();
    daemon_stop(&d);
    expect_kept("{\"user\":42,\"email\":\"ann@example.com\"} 1\n");
}
END_TEST

START_TEST(batch_example_enqueues_a_thousand_jobs)
{
    expect_ran(RUN(EXAMPLES "02_batch"));
    expect_output("enqueued 1000 jobs, 1 to 1000\n");
    ck_assert_str_eq(testdb_value("SELECT format('%s %s %s', count(*), min(task), max(priority)) "
                                  "FROM outbox.jobs WHERE state = 'ready'"),
                     "1000 resize-image 3");
    struct command_result r = OUTBOX_RUN("show", "1000", "--payload", "json");
    ck_assert_str_eq(r.out, "{\"path\":\"import/0999.jpg\",\"widths\":[320,1280]}\n");
    START("--discard", "resize-image");
    expect_all_ran(1, 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(event_loop_example_commits_the_visit_with_its_job)
{
    START("--shell", keeping("count-visit", "OUTBOX_TASK"));
    expect_ran(RUN(EXAMPLES "03_event_loop"));
    expect_output("enqueued job 1\n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM example_visits"), 1);
    wait_until_all_done();
    daemon_stop(&d);
    expect_kept("{} count-visit\n");
}
END_TEST

START_TEST(cpp_example_enqueues_with_headers)
{
    START("--shell", keeping("send-welcome-email", "OUTBOX_HEADERS"));
    expect_ran(RUN(EXAMPLES "04_cpp"));
    expect_output("enqueued job 1\n");
    wait_until_all_done();
    daemon_stop(&d);
    expect_kept("{\"user\":42,\"email\":\"ann@example.com\"} {\"campaign\": \"spring\"}\n");
}
END_TEST

START_TEST(pipeline_example_commits_the_order_with_its_job)
{
    START("--shell", keeping("order-placed", "OUTBOX_TASK"));
    expect_ran(RUN(EXAMPLES "06_pipeline"));
    expect_output("enqueued job 1\n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM example_orders"), 1);
    wait_until_all_done();
    daemon_stop(&d);
    expect_kept("{\"item\":\"tea\"} order-placed\n");
}
END_TEST

/* The order is refused: the job behind it in the pipeline is not there either. */
START_TEST(pipeline_example_keeps_no_job_without_its_order)
{
    testdb_exec("CREATE TABLE example_orders (item text NOT NULL CHECK (item <> 'tea'))");
    ck_assert_int_eq(RUN(EXAMPLES "06_pipeline"), 1);
    expect_output("INSERT: ERROR:");
    ck_assert_ptr_null(strstr(output(), "the job: "));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 0);
}
END_TEST

/* Without the schema each says what to do, and fails. */
START_TEST(examples_without_the_schema_say_what_to_do)
{
    static const char *const programs[] = {"01_enqueue", "02_batch", "03_event_loop", "04_cpp",
                                           "06_pipeline"};
    char path[512];
    (void)snprintf(path, sizeof path, EXAMPLES "%s", programs[_i]);
    ck_assert_int_eq(RUN(path), 1);
    expect_output("outbox migrate");
}
END_TEST

START_TEST(trigger_example_enqueues_for_each_row)
{
    START("--shell", recording("send-welcome-email", ""), "--shell",
          keeping("confirm-address", "OUTBOX_TASK"));
    expect_ran(RUN(OB_TEST_PG_BINDIR "/psql", "-X", "-q", testdb_conninfo(), "-f",
                   SOURCES "05_trigger.sql"));
    ck_assert(wait_until(runs_count() == 2 && count_lines(flag_path("kept")) == 1, E2E_WAIT_MS));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 1, E2E_WAIT_MS));
    ck_assert_str_eq(testdb_value("SELECT format('%s %s', task, state) FROM outbox.jobs"),
                     "send-welcome-email scheduled");
    daemon_stop(&d);
    expect_kept("{\"id\": 2, \"email\": \"bob@example.org\"} confirm-address\n");
}
END_TEST

/* ---- the shop, with the demo's handlers ---- */

START_TEST(shop_sends_what_was_ordered_and_nothing_else)
{
    char mail[TEXT_MAX];
    char hook[TEXT_MAX];
    const char *port_file = flag_path("port");
    (void)snprintf(mail, sizeof mail, "send-order-email=%shandlers/send-order-email %s", SOURCES,
                   flag_path("emails"));
    static const char program[] = EXAMPLES "receiver";
    const char *const receiver[] = {program, flag_path("hooks"), port_file, NULL};
    pid_t receiver_pid = start_program(NULL, receiver);
    ck_assert(wait_until(count_lines(port_file) == 1, E2E_WAIT_MS));
    char *port = read_file_from(port_file, 0, NULL);
    ck_assert_ptr_nonnull(port);
    (void)snprintf(hook, sizeof hook, "order-placed=http://127.0.0.1:%ld/", strtol(port, NULL, 10));
    free(port);
    START("--shell", mail, "--webhook", hook);
    static const char shop[] = EXAMPLES "shop";
    expect_ran(RUN(shop, "--orders", "50", "--rollback-every", "10"));
    expect_output("committed 45\nrolled back 5\n");
    wait_until_all_done();
    daemon_stop(&d);
    child_kill(receiver_pid);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM orders"), 45);
    ck_assert_uint_eq(count_lines(flag_path("emails")), 45);
    ck_assert_uint_eq(count_lines(flag_path("hooks")), 45);
}
END_TEST

START_TEST(shop_refuses_wrong_options)
{
    ck_assert_int_eq(RUN(EXAMPLES "shop", "--orders"), 64);
    ck_assert_int_eq(RUN(EXAMPLES "shop", "--orders", "-1"), 64);
    expect_output("usage: shop");
}
END_TEST

/* ---- the sample configuration and the handlers ---- */

START_TEST(sample_configuration_is_right_and_runs)
{
    struct command_result r = OUTBOX_RUN("check", "--config", SOURCES "outbox.yaml");
    ck_assert_msg(r.exit_code == 0, "%s", r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "send-welcome-email"));
    START("--config", SOURCES "outbox.yaml");
    (void)enqueue_one("count-visit", "{}");
    wait_until_all_done();
    daemon_stop(&d);
}
END_TEST

/* Run twice with one idempotency key, it works once. */
START_TEST(email_handler_bears_a_second_run)
{
    char spool[256];
    (void)snprintf(spool, sizeof spool, "%s", flag_path("spool")); /* flag_path's do not last */
    const char *payload = test_file("payload", "{\"user\": 7}", 0644);
    (void)setenv("OUTBOX_IDEMPOTENCY_KEY", "7-abc", 1);
    (void)setenv("OUTBOX_JOB_ID", "7", 1);
    (void)setenv("OUTBOX_ATTEMPT", "1", 1);
    (void)setenv("OUTBOX_TASK", "send-welcome-email", 1);
    for (int i = 0; i < 2; i++) {
        expect_ran(RUN_WITH_INPUT(payload, SOURCES "handlers/send-email.sh", spool));
        ck_assert_int_eq(strstr(output(), "was sent before") != NULL, i == 1);
    }
    char mail[TEXT_MAX];
    (void)snprintf(mail, sizeof mail, "%s/7-abc", spool);
    ck_assert_uint_eq(count_lines(mail), 3);
}
END_TEST

START_TEST(email_handler_works_under_the_daemon)
{
    char spec[TEXT_MAX];
    (void)snprintf(spec, sizeof spec, "mail=%shandlers/send-email.sh %s", SOURCES,
                   flag_path("spool"));
    START("--shell", spec);
    (void)enqueue_one("mail", "{\"user\": 7}");
    wait_until_all_done();
    daemon_stop(&d);
    expect_ran(RUN("/bin/sh", "-c", "cat \"$0\"/1-*", flag_path("spool")));
    expect_output("X-Job: 1, attempt 1, task mail\n\n{\"user\": 7}\n");
}
END_TEST

/* With a "convert" that copies, so that no image tools are needed here. */
START_TEST(resize_handler_tells_never_from_not_now)
{
    const char *good = test_file("good", "{\"path\": \"a.jpg\", \"widths\": [320, 1280]}", 0644);
    const char *evil = test_file("evil", "{\"path\": \"../a.jpg\", \"widths\": [320]}", 0644);
    const char *folder = test_dir();
    char path[TEXT_MAX];
    (void)snprintf(path, sizeof path, "%s:%s", folder, getenv("PATH"));
    (void)setenv("PATH", path, 1);
    (void)test_file("convert", "#!/bin/sh\nexec cp \"$1\" \"$4\"\n", 0755);
    const char *handler = SOURCES "handlers/resize.sh";
    ck_assert_int_eq(RUN_WITH_INPUT(evil, handler, folder), 65);
    int code = RUN_WITH_INPUT(good, handler, folder); /* there is no a.jpg yet: not now */
    ck_assert(code != 0 && code != 65);
    (void)test_file("a.jpg", "image\n", 0644);
    expect_ran(RUN_WITH_INPUT(good, handler, folder));
    ck_assert(flag_is_up("a.jpg.320"));
    ck_assert(flag_is_up("a.jpg.1280"));
}
END_TEST

/* The word of each payload is counted in the log; what is no text is dead. */
START_TEST(worker_example_counts_words)
{
    START("--worker", "count=" EXAMPLES "07_worker");
    long words = enqueue_one("count", "\"two words\"");
    long wrong = enqueue_one("count", "{}");
    wait_until_all_done();
    char line[80];
    (void)snprintf(line, sizeof line, "text=\"job %ld, attempt 1: 2 words\"", words);
    daemon_expect_log(&d, line, E2E_WAIT_MS);
    daemon_stop(&d);
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), wrong);
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "the payload is not a text");
}
END_TEST

START_TEST(consumer_example_works_in_one_transaction)
{
    testdb_exec("SELECT outbox.enqueue('count-visit', '{\"page\": \"home\"}') FROM"
                " generate_series(1, 3);"
                "SELECT outbox.enqueue('count-visit', '{\"page\": \"late\"}', delay => '500 ms');"
                "SELECT outbox.enqueue('count-visit', '{}', max_attempts => 1)");
    expect_ran(RUN(EXAMPLES "08_consumer"));
    expect_output("job 4: counted\n");
    expect_output("job 5: failed\n");
    ck_assert_str_eq(testdb_value("SELECT string_agg(page || ' ' || visits, ', ' ORDER BY page)"
                                  " FROM example_pages"),
                     "home 3, late 1");
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(id || ' ' || state || ' ' || reason, ', ') FROM"
                     " outbox.jobs"),
        "5 dead could not be counted");
}
END_TEST

START_TEST(claim_example_settles_by_token)
{
    testdb_exec("SELECT outbox.enqueue('shout', '\"hello\"') FROM generate_series(1, 12);"
                "SELECT outbox.enqueue('shout', '{}', max_attempts => 2);"
                "SELECT outbox.enqueue('shout', '\"late\"', expires_at => '2020-01-01')");
    expect_ran(RUN(EXAMPLES "09_claim"));
    expect_output("job 12: \"HELLO\"\n");
    ck_assert_str_eq(testdb_value("SELECT string_agg(id || ' ' || state || ' ' || attempts, ', '"
                                  " ORDER BY id) FROM outbox.jobs"),
                     "13 scheduled 1, 14 dead 1");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
}
END_TEST

START_TEST(python_consumer_claims_and_settles)
{
    testdb_exec("SELECT outbox.enqueue('greet', '{\"name\": \"Ada\"}');"
                "SELECT outbox.enqueue('greet', '{}', max_attempts => 2);"
                "SELECT outbox.enqueue_bytes('greet', '\\x80', 'msgpack', max_attempts => 1);"
                "SELECT outbox.enqueue('greet', '{\"name\": \"Bob\"}', delay => '300 ms');"
                "SELECT outbox.enqueue('greet', expires_at => '2020-01-01')");
    expect_ran(RUN("/usr/bin/python3", SOURCES "consumer.py"));
    expect_output("hello, Ada\n");
    expect_output("hello, Bob\n");
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(id || ' ' || state || ' ' || attempts || ' ' || reason,"
                     " ', ' ORDER BY id) FROM outbox.jobs"),
        "2 dead 2 KeyError: 'name', 3 dead 1 ValueError: only JSON is understood here,"
        " 5 dead 0 expired");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatchers"), 0);
}
END_TEST

START_TEST(shell_worker_appends_each_payload)
{
    const char *notes = flag_path("notes");
    const char *config =
        e2e_config("tasks: {note: {worker: [%shandlers/worker.sh, %s]}}\n", SOURCES, notes);
    START("--config", config);
    testdb_exec("SELECT outbox.enqueue('note', to_jsonb(g), headers => "
                "'{\"id\": \"1\", \"len\": 1}') FROM generate_series(1001, 1020) g");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(count_lines(notes), 20);
    expect_ran(RUN("/bin/sh", "-c", "sort -u \"$0\" | wc -l", notes));
    expect_output("20\n");
}
END_TEST

START_TEST(python_worker_keeps_notes_and_knows_what_is_hopeless)
{
    if (access("/usr/bin/python3", X_OK) != 0)
        return; /* an example for those who have it */
    const char *notes = flag_path("notes");
    const char *config =
        e2e_config("tasks: {note: {worker: [/usr/bin/python3, %shandlers/worker.py,"
                   " %s], backoff: 0}}\n",
                   SOURCES, notes);
    START("--config", config);
    (void)enqueue_one("note", "{\"name\": \"a\", \"text\": \"hello\"}");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.attempts WHERE reason LIKE "
                                     "'% is not there'") == 1,
                         E2E_WAIT_MS));
    ck_assert_int_eq(mkdir(notes, 0755), 0);
    testdb_exec("SELECT outbox.retry(id) FROM outbox.jobs");
    long evil = enqueue_one("note", "{\"name\": \"../a\", \"text\": \"x\"}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_str_eq(flag_text("notes/a"), "hello");
    ck_assert_int_eq(testdb_long("SELECT id FROM outbox.dead"), evil);
}
END_TEST

START_TEST(python_receiver_keeps_each_job_once)
{
    const char *port_file = flag_path("port");
    const char *hooks = flag_path("hooks");
    if (access("/usr/bin/python3", X_OK) != 0)
        return; /* an example for those who have it */
    static const char program[] = SOURCES "handlers/receiver.py";
    const char *const argv[] = {program, "--file", hooks, "--port-file", port_file, NULL};
    pid_t pid = start_program(NULL, argv);
    ck_assert_msg(wait_until(count_lines(port_file) == 1, E2E_WAIT_MS), "%s", output());
    char *port = read_file_from(port_file, 0, NULL);
    char hook[TEXT_MAX];
    (void)snprintf(hook, sizeof hook, "placed=http://127.0.0.1:%ld/", strtol(port, NULL, 10));
    free(port);
    START("--webhook", hook);
    enqueue_jobs("placed", 5);
    wait_until_all_done();
    daemon_stop(&d);
    child_kill(pid);
    ck_assert_uint_eq(count_lines(hooks), 5);
    expect_ran(
        RUN("/bin/sh", "-c", "sort -u \"$0\" | grep -c '^[1-5]-[0-9a-z]* {\"n\": [1-5]}$'", hooks));
    expect_output("5\n");
}
END_TEST

/* ---- README.md ---- */

/* The page becomes one bash script: blocks marked <!-- test: sh|sql|c FILE|output --> in order.
 * What is marked as output must be what the block before it printed, once no job is left to run. */
static void write_block(FILE *script, const char *kind, const char *text, unsigned n)
{
    char file[80] = "";
    if (strcmp(kind, "sh") == 0) {
        (void)fprintf(script, "{\n%s} > out 2>&1 || fail %u\nsettle\n", text, n);
    } else if (strcmp(kind, "sql") == 0) {
        (void)fprintf(script,
                      "psql -X -q -v ON_ERROR_STOP=1 shop > out 2>&1 <<'END' || fail %u\n%sEND\n"
                      "settle\n",
                      n, text);
    } else if (sscanf(kind, "c %79s", file) == 1) {
        (void)fprintf(script, "cat > %s <<'END'\n%sEND\n", file, text);
    } else {
        ck_assert_str_eq(kind, "output");
        (void)fprintf(script, "diff -u - out <<'END' || fail %u\n%sEND\n", n, text);
    }
}

static const char script_head[] =
    "set -eu\n"
    "fail() { echo \"README.md: marked block $1 failed\"; cat out; exit 1; }\n"
    "settle() {\n"
    "    for _ in $(seq 600); do\n"
    "        [ \"$(outbox jobs --state ready,running --count)\" != 0 ] || return 0\n"
    "        sleep 0.05\n"
    "    done\n"
    "    fail settle\n"
    "}\n"
    "trap 'kill %1 2>/dev/null || :; wait' EXIT\n";

/* The daemon of the page has no --lock-dir: removes what it leaves in the default one. */
static const char script_tail[] =
    "wait\n"
    "id=$(psql -XAt -c 'SELECT system_identifier FROM pg_control_system()' shop)\n"
    "rm -f /run/outbox/*@$id-*.lock \"${XDG_RUNTIME_DIR:-/nowhere}\"/outbox/*@$id-*.lock "
    "/tmp/outbox-\"$(id -u)\"/*@$id-*.lock 2> /dev/null || :\n" /* another user's folder */
    "echo done\n";

/* Returns how many blocks were marked. */
static unsigned write_script(const char *page, FILE *script)
{
    static const char mark[] = "\n<!-- test: ";
    unsigned n = 0;
    (void)fputs(script_head, script);
    for (const char *at = strstr(page, mark); at != NULL; at = strstr(at, mark)) {
        char kind[100];
        const char *fence;
        const char *text;
        const char *end;
        at += strlen(mark);
        ck_assert_int_eq(sscanf(at, "%99[^-]", kind), 1);
        kind[strcspn(kind, " ") + (strncmp(kind, "c ", 2) == 0 ? strcspn(kind + 2, " ") + 1 : 0)] =
            '\0';
        fence = strchr(at, '\n');
        ck_assert(fence != NULL && strncmp(fence, "\n```", 4) == 0);
        text = strchr(fence + 1, '\n');
        ck_assert_ptr_nonnull(text);
        end = strstr(text, "\n```");
        ck_assert_ptr_nonnull(end);
        char *block = strndup(text + 1, (size_t)(end - text));
        write_block(script, kind, block, ++n);
        free(block);
    }
    (void)fputs(script_tail, script);
    return n;
}

START_TEST(first_job_of_the_readme_works_when_pasted)
{
    char *page = read_file_from(OB_TEST_SOURCE_DIR "/README.md", 0, NULL);
    const char *script_path = flag_path("script");
    FILE *script = fopen(script_path, "w");
    char path[TEXT_MAX];
    ck_assert_ptr_nonnull(page);
    ck_assert_ptr_nonnull(script);
    ck_assert_uint_ge(write_script(page, script), 9);
    (void)fclose(script);
    free(page);
    (void)snprintf(path, sizeof path, "%s/bin:%s", OB_TEST_BUILD_DIR, getenv("PATH"));
    (void)setenv("PATH", path, 1);
    (void)unsetenv("PGDATABASE");
    /* `cc -I.` is meant for the root of the source tree. */
    ck_assert_int_eq(symlink(OB_TEST_SOURCE_DIR "/outbox", flag_path("outbox")), 0);
    ck_assert_int_eq(chdir(test_dir()), 0);
    expect_ran(RUN("/bin/bash", script_path));
    expect_output("done\n");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("examples");
    TCase *tc = tcase_create("programs and handlers");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, first_example_enqueues_one_job);
    tcase_add_test(tc, batch_example_enqueues_a_thousand_jobs);
    tcase_add_test(tc, event_loop_example_commits_the_visit_with_its_job);
    tcase_add_test(tc, cpp_example_enqueues_with_headers);
    tcase_add_test(tc, trigger_example_enqueues_for_each_row);
    tcase_add_test(tc, pipeline_example_commits_the_order_with_its_job);
    tcase_add_test(tc, pipeline_example_keeps_no_job_without_its_order);
    tcase_add_test(tc, shop_sends_what_was_ordered_and_nothing_else);
    tcase_add_test(tc, shop_refuses_wrong_options);
    tcase_add_test(tc, sample_configuration_is_right_and_runs);
    tcase_add_test(tc, email_handler_bears_a_second_run);
    tcase_add_test(tc, email_handler_works_under_the_daemon);
    tcase_add_test(tc, resize_handler_tells_never_from_not_now);
    tcase_add_test(tc, worker_example_counts_words);
    tcase_add_test(tc, consumer_example_works_in_one_transaction);
    tcase_add_test(tc, claim_example_settles_by_token);
    tcase_add_test(tc, python_consumer_claims_and_settles);
    tcase_add_test(tc, shell_worker_appends_each_payload);
    tcase_add_test(tc, python_worker_keeps_notes_and_knows_what_is_hopeless);
    tcase_add_test(tc, python_receiver_keeps_each_job_once);
    tcase_add_test(tc, first_job_of_the_readme_works_when_pasted);
    suite_add_tcase(s, tc);
    TCase *empty = tcase_create("without a schema");
    tcase_set_timeout(empty, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(empty, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(empty, testdb_create_empty, testdb_drop);
    tcase_add_loop_test(empty, examples_without_the_schema_say_what_to_do, 0, 5);
    suite_add_tcase(s, empty);
    return s;
}
