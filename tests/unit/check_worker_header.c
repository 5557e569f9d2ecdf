/* outbox/worker.h: what it makes of a dispatcher's bytes, and what it answers. Over real pipes, as
 * the worker process sees them. */
#include "ck_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <outbox/worker.h>

#include "worker/reply.h"

static char answers[200000];

/* Forks a worker that runs `body`, gives it the bytes and end of file; its answers are in
 * `answers`. Returns its exit code. */
static int with_worker(int (*body)(void), const char *bytes, size_t len)
{
    int down[2];
    int up[2];
    ck_assert_int_eq(pipe(down), 0);
    ck_assert_int_eq(pipe(up), 0);
    pid_t writer = fork();
    if (writer == 0) { /* the dispatcher's side: whatever the pipe can hold */
        (void)close(down[0]);
        (void)close(up[0]);
        (void)close(up[1]);
        while (len > 0) {
            ssize_t n = write(down[1], bytes, len < 1000 ? len : 1000);
            if (n <= 0)
                _exit(1);
            bytes += n;
            len -= (size_t)n;
        }
        _exit(0);
    }
    pid_t worker = fork();
    if (worker == 0) {
        (void)dup2(down[0], STDIN_FILENO);
        (void)dup2(up[1], STDOUT_FILENO);
        for (int fd = 3; fd < 64; fd++)
            (void)close(fd);
        _exit(body());
    }
    (void)close(down[0]);
    (void)close(down[1]);
    (void)close(up[1]);
    size_t have = 0;
    for (;;) {
        ssize_t n = read(up[0], answers + have, sizeof answers - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    answers[have] = '\0';
    (void)close(up[0]);
    int status = 0;
    ck_assert_int_eq(waitpid(writer, NULL, 0), writer);
    ck_assert_int_eq(waitpid(worker, &status, 0), worker);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Answers by the payload. */
static void handle(const struct outbox_worker_job *job, struct outbox_worker_reply *reply)
{
    static char text[70000];
    const char *payload = (const char *)job->payload;
    if (payload == NULL || payload[job->payload_len] != '\0')
        exit(99);
    if (strcmp(payload, "retry") == 0) {
        outbox_worker_retry(reply, 30, "a \"quoted\"\n\xff error");
        outbox_worker_dead(reply, "the first one counts");
    } else if (strcmp(payload, "dead") == 0) {
        outbox_worker_dead(reply, NULL);
    } else if (strcmp(payload, "touch") == 0) {
        outbox_worker_touch(reply, 60);
    } else if (strcmp(payload, "long") == 0) {
        memset(text, '"', sizeof text - 1);
        outbox_worker_dead(reply, text);
    } else if (strcmp(payload, "print") == 0) {
        (void)printf("must not be taken for an answer\n");
        (void)fflush(stdout);
    } else if (strcmp(payload, "show") == 0) {
        (void)snprintf(text, sizeof text, "%s %s %d/%d %d %ld %s %s %s %s %s", job->id, job->task,
                       job->attempt, job->max_attempts, job->lost, (long)job->deadline,
                       job->key != NULL ? job->key : "-", job->created_at, job->idempotency_key,
                       job->content_type, job->headers);
        outbox_worker_dead(reply, text);
    } else if (strncmp(payload, "size", 4) == 0) {
        (void)snprintf(text, sizeof text, "%zu", job->payload_len);
        outbox_worker_dead(reply, text);
    }
}

static int run_default(void)
{
    return outbox_worker_run(handle, NULL);
}

static int run_window(void)
{
    const struct outbox_worker_options options = {.window = 16, .arg = NULL};
    return outbox_worker_run(handle, &options);
}

#define HELLO "{\"op\":\"hello\",\"proto\":1}\n"
#define READY "{\"op\":\"ready\",\"proto\":1,\"window\":1}\n"

static int run_text(const char *bytes)
{
    return with_worker(run_default, bytes, strlen(bytes));
}

START_TEST(a_worker_answers_by_the_protocol)
{
    ck_assert_int_eq(run_text(HELLO "{\"op\":\"job\",\"id\":\"1\",\"len\":2}\nok"
                                    "{\"op\":\"job\",\"id\":\"2\",\"len\":5}\nretry"
                                    "{\"op\":\"job\",\"id\":\"3\",\"len\":4}\ndead"
                                    "{\"op\":\"job\",\"id\":\"4\",\"len\":5}\ntouch"
                                    "{\"op\":\"job\",\"id\":\"5\",\"len\":0}\n"
                                    "{\"op\":\"job\",\"id\":\"6\",\"len\":5}\nprint"),
                     0);
    ck_assert_str_eq(answers, READY "{\"id\":\"1\",\"status\":\"ok\"}\n"
                                    "{\"id\":\"2\",\"status\":\"retry\",\"after\":30,\"error\":"
                                    "\"a \\\"quoted\\\"\\u000a? error\"}\n"
                                    "{\"id\":\"3\",\"status\":\"dead\"}\n"
                                    "{\"op\":\"touch\",\"id\":\"4\",\"extend\":60}\n"
                                    "{\"id\":\"4\",\"status\":\"ok\"}\n"
                                    "{\"id\":\"5\",\"status\":\"ok\"}\n"
                                    "{\"id\":\"6\",\"status\":\"ok\"}\n");
}
END_TEST

START_TEST(the_window_is_offered)
{
    ck_assert_int_eq(with_worker(run_window, HELLO, strlen(HELLO)), 0);
    ck_assert_str_eq(answers, "{\"op\":\"ready\",\"proto\":1,\"window\":16}\n");
}
END_TEST

START_TEST(every_member_of_a_header_is_read)
{
    ck_assert_int_eq(
        run_text(
            HELLO
            "{ \"new\":[{\"a\":[]},1.5e3,null,\"\\\"]\"], \"op\":\"job\",\"id\":\"7\",\"task\":"
            "\"t\",\"attempt\":2,\"max_attempts\":20,\"lost\":1,\"deadline\":1700000000,"
            "\"key\":\"k\\u00e9\\ud83d\\ude00\\\\\\/\",\"created_at\":\"then\","
            "\"idempotency_key\":\"7-x\",\"content_type\":\"application/json\","
            "\"headers\":{\"a\":\"}\",\"b\":{}},\"len\":4 }\r\nshow"),
        0);
    ck_assert_str_eq(answers, READY
                     "{\"id\":\"7\",\"status\":\"dead\",\"error\":\"7 t 2/20 1 1700000000 "
                     "ké😀\\\\/ then 7-x application/json {\\\"a\\\":\\\"}\\\",\\\"b\\\":{}}\"}\n");
}
END_TEST

START_TEST(large_payloads_and_errors_pass)
{
    static char bytes[300000];
    size_t n = (size_t)snprintf(bytes, sizeof bytes,
                                HELLO "{\"op\":\"job\",\"id\":\"1\",\"len\":200000}\nsize");
    memset(bytes + n, 'x', 199996);
    n += 199996;
    n += (size_t)snprintf(bytes + n, sizeof bytes - n,
                          "{\"op\":\"job\",\"id\":\"2\",\"len\":4}\nlong");
    ck_assert_int_eq(with_worker(run_default, bytes, n), 0);
    static const char first[] = READY "{\"id\":\"1\",\"status\":\"dead\",\"error\":\"200000\"}\n";
    ck_assert_int_eq(strncmp(answers, first, sizeof first - 1), 0);
    const char *line = answers + sizeof first - 1;
    struct worker_reply reply;
    const char *why = "";
    size_t len = strcspn(line, "\n");
    ck_assert_uint_lt(len, REPLY_LINE_MAX);
    ck_assert_int_eq(worker_reply_parse(line, len, &reply, &why),
                     0); /* whole, and within the limit */
    ck_assert_uint_gt(reply.error_len, 30000);
    worker_reply_clear(&reply);
}
END_TEST

static const char *const wrong[] = {
    "hello\n",
    "\n",
    "{}\n",
    "{\"op\":\"hello\"}\n",
    "{\"op\":\"hello\",\"proto\":0}\n",
    "{\"op\":\"stop\"}\n",
    "{\"op\":\"job\",\"id\":\"1\"}\n",
    "{\"op\":\"job\",\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"\",\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":-1}\n",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":1.5}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":\"1\"}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":99999999999999999999}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":4}\nxy",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":1}",
    "{\"op\":\"job\",\"id\":1,\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"\\u0000\",\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"\\ud800\",\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"headers\":[],\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"x\":[[}],\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"attempt\":9999999999,\"len\":1}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":1,}\nx",
    "{\"op\":\"job\",\"id\":\"1\",\"len\":1} x\nx",
};

START_TEST(other_bytes_end_the_worker_with_76)
{
    ck_assert_int_eq(run_text(wrong[_i]), OUTBOX_WORKER_EPROTO);
    ck_assert_str_eq(answers, "");
}
END_TEST

START_TEST(a_header_line_without_end_is_refused)
{
    static char bytes[150000];
    memset(bytes, ' ', sizeof bytes);
    ck_assert_int_eq(with_worker(run_default, bytes, sizeof bytes), OUTBOX_WORKER_EPROTO);
}
END_TEST

/* Sixteen at once, answered from the last to the first. */
static int run_by_hand(void)
{
    struct outbox_worker w;
    struct outbox_worker_job job;
    char ids[16][32];
    size_t n = 0;
    int rc = outbox_worker_open(&w, 16);
    if (rc != OUTBOX_WORKER_OK)
        return rc;
    while (n < 3 && (rc = outbox_worker_next(&w, &job)) > 0)
        (void)snprintf(ids[n++], sizeof ids[0], "%s", job.id);
    while (n > 0 && rc > 0)
        rc = outbox_worker_answer(&w, ids[--n], OUTBOX_WORKER_DONE, 0, NULL) == 0 ? 1 : -1;
    bool is_as_expected = outbox_worker_fd(&w) >= 3 && !outbox_worker_has_input(&w) && rc == 1;
    rc = is_as_expected ? outbox_worker_next(&w, &job) : 98;
    outbox_worker_close(&w);
    return rc;
}

START_TEST(several_jobs_can_be_taken_and_answered_in_any_order)
{
    static const char bytes[] = HELLO "{\"op\":\"job\",\"id\":\"1\",\"len\":1}\na"
                                      "{\"op\":\"job\",\"id\":\"2\",\"len\":1}\nb"
                                      "{\"op\":\"job\",\"id\":\"3\",\"len\":1}\nc";
    ck_assert_int_eq(with_worker(run_by_hand, bytes, sizeof bytes - 1), 0);
    ck_assert_str_eq(answers, "{\"op\":\"ready\",\"proto\":1,\"window\":16}\n"
                              "{\"id\":\"3\",\"status\":\"ok\"}\n"
                              "{\"id\":\"2\",\"status\":\"ok\"}\n"
                              "{\"id\":\"1\",\"status\":\"ok\"}\n");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("worker_header");
    TCase *tc = tcase_create("workers");
    tcase_set_timeout(tc, 20);
    tcase_add_test(tc, a_worker_answers_by_the_protocol);
    tcase_add_test(tc, the_window_is_offered);
    tcase_add_test(tc, every_member_of_a_header_is_read);
    tcase_add_test(tc, large_payloads_and_errors_pass);
    tcase_add_loop_test(tc, other_bytes_end_the_worker_with_76, 0,
                        (int)(sizeof wrong / sizeof wrong[0]));
    tcase_add_test(tc, a_header_line_without_end_is_refused);
    tcase_add_test(tc, several_jobs_can_be_taken_and_answered_in_any_order);
    suite_add_tcase(s, tc);
    return s;
}
