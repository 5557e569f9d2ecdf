/* check_webhook_signed.c - the real daemon's deliveries verified by somebody else's code: the
 * receiver of examples/handlers, in Python; secrets rotated, reloaded, and missing. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

static const char *const old_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
static const char *const new_secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n";

static struct daemon d;

struct receiver {
    pid_t pid;
    long port;
    char file[160]; /* a line for each job that was believed */
};

static bool has_python(void)
{
    return access("/usr/bin/python3", X_OK) == 0;
}

static void receiver_start(struct receiver *r, const char *name, const char *secret_file)
{
    static const char program[] = OB_TEST_SOURCE_DIR "/examples/handlers/receiver.py";
    char port_file[176];
    (void)snprintf(r->file, sizeof r->file, "%s", flag_path(name));
    (void)snprintf(port_file, sizeof port_file, "%s.port", r->file);
    r->pid = child_fork(SIGKILL);
    if (r->pid == 0) {
        (void)close_range(3, ~0U, 0);
        (void)execl(program, program, "--file", r->file, "--secret-file", secret_file,
                    "--port-file", port_file, (char *)NULL);
        _exit(127);
    }
    ck_assert(wait_until(count_lines(port_file) == 1, E2E_WAIT_MS));
    char *text = read_file_from(port_file, 0, NULL);
    r->port = strtol(text, NULL, 10);
    free(text);
}

static void start(const char *config)
{
    daemon_start_ready(&d, (const char *const[]){"--config", config, NULL}, NULL);
}

static void reload_and_expect(const char *event)
{
    size_t before = daemon_log_count(&d, event);
    daemon_kill(&d, SIGHUP);
    ck_assert_msg(wait_until(daemon_log_count(&d, event) > before, E2E_WAIT_MS), "no %s", event);
}

START_TEST(a_real_delivery_is_believed_by_an_independent_verifier)
{
    struct receiver ours;
    struct receiver other;
    if (!has_python())
        return;
    const char *right = test_file("right.secret", old_secret, 0600);
    receiver_start(&ours, "ours", right);
    receiver_start(&other, "other", test_file("wrong.secret", new_secret, 0600));
    start(e2e_config("tasks:\n"
                     "  a: {webhook: \"http://127.0.0.1:%ld/\", secret_file: %s}\n"
                     "  b: {webhook: \"http://127.0.0.1:%ld/\", secret_file: %s, max_attempts: 1}\n"
                     "  c: {webhook: \"http://127.0.0.1:%ld/\", max_attempts: 1}\n",
                     ours.port, right, other.port, right, ours.port));
    enqueue_jobs("a", 20);
    (void)enqueue_one("a", "{\"text\": \"\\u00fc\\u4e16\\ud83d\\ude00 \\\"quoted\\\"\"}");
    (void)enqueue_one("b", "{}"); /* verified with another secret */
    (void)enqueue_one("c", "{}"); /* not signed */
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(count_lines(ours.file), 21);
    ck_assert_uint_eq(count_lines(other.file), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "HTTP 401"), 2);
    child_kill(ours.pid);
    child_kill(other.pid);
}
END_TEST

/* While both secrets are named, a receiver needs only one of them; which one is its own matter. */
START_TEST(a_rotation_interrupts_nobody)
{
    struct receiver before;
    struct receiver after;
    if (!has_python())
        return;
    char old[160];
    char new[160];
    (void)snprintf(old, sizeof old, "%s", test_file("old.secret", old_secret, 0600));
    (void)snprintf(new, sizeof new, "%s", test_file("new.secret", new_secret, 0600));
    receiver_start(&before, "before", old);
    receiver_start(&after, "after", new);
    static const char tasks[] = "tasks:\n"
                                "  before: {webhook: \"http://127.0.0.1:%ld/\", secrets: %s}\n"
                                "  after: {webhook: \"http://127.0.0.1:%ld/\", secrets: %s}\n";
    char both[400];
    (void)snprintf(both, sizeof both, "[{file: %s}, {file: %s, not_after: 2099-01-01}]", new, old);
    char one[200];
    (void)snprintf(one, sizeof one, "[{file: %s}]", old);
    const char *config = e2e_config(tasks, before.port, one, after.port, one);
    start(config);
    (void)enqueue_one("before", "{}");
    wait_until_all_done();
    (void)e2e_config(tasks, before.port, both, after.port, both);
    reload_and_expect("event=reloaded");
    (void)enqueue_one("before", "{}");
    (void)enqueue_one("after", "{}");
    wait_until_all_done();
    ck_assert_uint_eq(count_lines(before.file), 2);
    ck_assert_uint_eq(count_lines(after.file), 1);
    daemon_stop(&d);
    child_kill(before.pid);
    child_kill(after.pid);
}
END_TEST

/* The file's new contents count from the reload on; contents that are no secret change nothing. */
START_TEST(a_bad_file_at_a_reload_leaves_the_old_secret_in_force)
{
    static const struct httpstub_answer ok = {.status = 204};
    struct httpstub stub;
    char file[160];
    char first[128];
    httpstub_start(&stub, &ok, 1);
    (void)snprintf(file, sizeof file, "%s", test_file("a.secret", old_secret, 0600));
    start(e2e_config("tasks: {a: {webhook: \"http://127.0.0.1:%d/\", secret_file: %s}}\n",
                     stub.port, file));
    long id = enqueue_one("a", "{}");
    wait_until_all_done();
    (void)snprintf(first, sizeof first, "%s", httpstub_header(&stub, 0, "webhook-signature"));
    ck_assert_int_eq(strncmp(first, "v1,", 3), 0);

    (void)test_file("a.secret", "hunter2 is not a secret", 0600);
    reload_and_expect("event=reload_failed");
    ck_assert(daemon_logged(&d, file));
    ck_assert(daemon_logged(&d, "does not begin with whsec_"));
    ck_assert(!daemon_logged(&d, "hunter2"));
    (void)enqueue_one("a", "{}");
    wait_until_all_done();
    ck_assert_int_eq(strncmp(httpstub_header(&stub, 1, "webhook-signature"), "v1,", 3), 0);

    (void)test_file("a.secret", new_secret, 0600);
    reload_and_expect("event=reloaded");
    (void)enqueue_one("a", "{}");
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 3);
    ck_assert_int_gt(id, 0);
    ck_assert(!daemon_logged(&d, "MfKQ9r8G"));
    ck_assert(!daemon_logged(&d, "C2FVsBQI"));
    httpstub_stop(&stub);
}
END_TEST

/* The openssl program makes the same signature from what was received. */
START_TEST(the_openssl_program_computes_the_same_signature)
{
    static const struct httpstub_answer ok = {.status = 204};
    struct httpstub stub;
    char command[1024];
    char line[128] = "";
    httpstub_start(&stub, &ok, 1);
    start(e2e_config("tasks: {a: {webhook: \"http://127.0.0.1:%d/\", secret_file: %s}}\n",
                     stub.port, test_file("a.secret", old_secret, 0600)));
    (void)enqueue_one("a", "{\"test\": 2432232314}");
    wait_until_all_done();
    daemon_stop(&d);
    char body[64]; /* a header's value is kept, the body only until the next is asked for */
    (void)snprintf(body, sizeof body, "%s", httpstub_body(&stub, 0));
    /* The hex of the key's 24 bytes, by `base64 -d | od`. */
    (void)snprintf(command, sizeof command,
                   "key=$(printf MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw | base64 -d | od -An -v -tx1 | "
                   "tr -d ' \\n'); printf %%s '%s.%s.%s' | openssl dgst -sha256 -mac HMAC -macopt "
                   "hexkey:$key -binary | base64",
                   httpstub_header(&stub, 0, "webhook-id"),
                   httpstub_header(&stub, 0, "webhook-timestamp"), body);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, pipe));
    ck_assert_int_eq(pclose(pipe), 0);
    line[strcspn(line, "\n")] = '\0';
    ck_assert_str_eq(httpstub_header(&stub, 0, "webhook-signature") + 3, line);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(a_secret_that_cannot_be_read_refuses_the_start)
{
    const char *config =
        e2e_config("tasks: {a: {webhook: \"http://127.0.0.1:1/\", secret_file: /nonexistent}}\n");
    static const char *const commands[] = {"run", "check"};
    struct command_result r = OUTBOX_RUN(commands[_i], "--config", config);
    ck_assert_int_eq(r.exit_code, 78);
    ck_assert_ptr_nonnull(
        strstr(r.err, "task 'a': secret_file /nonexistent: No such file or directory"));
}
END_TEST

START_TEST(a_check_names_the_secret_and_does_not_show_it)
{
    const char *secret = test_file("a.secret", old_secret, 0644);
    const char *config =
        e2e_config("tasks: {a: {webhook: \"http://127.0.0.1:1/\", secret_file: %s}}\n", secret);
    struct command_result r = OUTBOX_RUN("check", "--config", config, "--print");
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_ptr_nonnull(strstr(r.out, secret));
    ck_assert_ptr_null(strstr(r.out, "MfKQ9r8G"));
    r = OUTBOX_RUN("check", "--config", config);
    ck_assert_int_eq(r.exit_code, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "can be read by everybody: chmod o="));
    ck_assert_ptr_null(strstr(r.out, "MfKQ9r8G"));
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook signed");
    TCase *tc = tcase_create("daemon");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, a_real_delivery_is_believed_by_an_independent_verifier);
    tcase_add_test(tc, a_rotation_interrupts_nobody);
    tcase_add_test(tc, a_bad_file_at_a_reload_leaves_the_old_secret_in_force);
    tcase_add_test(tc, the_openssl_program_computes_the_same_signature);
    tcase_add_loop_test(tc, a_secret_that_cannot_be_read_refuses_the_start, 0, 2);
    tcase_add_test(tc, a_check_names_the_secret_and_does_not_show_it);
    suite_add_tcase(s, tc);
    return s;
}
