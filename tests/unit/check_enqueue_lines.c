/* What `outbox enqueue --file` is made of, without a server: lines, jobs in lines, the text of the
 * progress bar. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/payload.h"
#include "child.h"
#include "ck_main.h"
#include "cmd/jobline.h"
#include "cmd/lines.h"
#include "cmd/progress.h"
#include "daemon.h"

static volatile sig_atomic_t stop;

/* --- lines --- */

enum { BLOCK = 256 * 1024, LONGEST = 3 * BLOCK };

static void open_text(struct lines *l, const char *text, size_t len_max)
{
    stop = 0;
    ck_assert_int_eq(lines_open(l, test_file("lines", text, 0644), len_max, &stop), 0);
}

static void expect_line(struct lines *l, const char *wanted)
{
    const char *text = NULL;
    size_t len = 0;
    ck_assert_int_eq(lines_next(l, &text, &len), 1);
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_int_eq(memcmp(text, wanted, len), 0);
}

static void expect_end(struct lines *l, uint64_t number, int64_t bytes)
{
    const char *text = NULL;
    size_t len = 0;
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(lines_next(l, &text, &len), 0);
    ck_assert_uint_eq(l->number, number);
    ck_assert_int_eq(l->bytes, bytes);
    lines_close(l);
}

START_TEST(lines_end_with_lf_or_crlf_or_the_file)
{
    struct lines l;
    open_text(&l, "\xEF\xBB\xBFone\n\ntwo\r\n\r\nth\rree\r\n\xEF\xBB\xBFx", 100);
    ck_assert_int_eq(l.size, 27);
    expect_line(&l, "one");
    expect_line(&l, "");
    expect_line(&l, "two");
    expect_line(&l, "");
    expect_line(&l, "th\rree");
    expect_line(&l, "\xEF\xBB\xBFx");
    expect_end(&l, 6, 27);
    open_text(&l, "", 100);
    expect_end(&l, 0, 0);
    open_text(&l, "\n", 100);
    expect_line(&l, "");
    expect_end(&l, 1, 1);
}
END_TEST

/* Line lengths around the size of a block, so that ends fall on both of its sides. */
START_TEST(lines_of_any_length_are_whole)
{
    char *text = calloc(1, 12 * (size_t)LONGEST);
    char *wanted = calloc(1, LONGEST + 1);
    static const size_t sizes[] = {BLOCK - 1, BLOCK, 1, BLOCK + 1, 0, LONGEST, 2 * BLOCK - 1, 7};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(wanted);
    size_t at = 0;
    for (size_t i = 0; i < COUNT; i++) {
        memset(text + at, (int)('a' + i), sizes[i]);
        at += sizes[i];
        text[at++] = '\n';
    }
    struct lines l;
    open_text(&l, text, LONGEST);
    for (size_t i = 0; i < COUNT; i++) {
        memset(wanted, (int)('a' + i), sizes[i]);
        wanted[sizes[i]] = '\0';
        expect_line(&l, wanted);
    }
    expect_end(&l, COUNT, (int64_t)at);
    free(text);
    free(wanted);
}
END_TEST

/* With its end in the file or not, and at once when the rest is not read yet. */
START_TEST(a_line_over_the_limit_is_refused_with_its_number)
{
    static const char *const texts[] = {"12345\n123456\n1\n", "12345\r\n123456",
                                        "12345\n1234567890123"};
    struct lines l;
    const char *text = NULL;
    size_t len = 0;
    open_text(&l, texts[_i], 5);
    expect_line(&l, "12345");
    ck_assert_int_eq(lines_next(&l, &text, &len), OB_ETOOBIG);
    ck_assert_uint_eq(l.number, 2);
    lines_close(&l);
}
END_TEST

START_TEST(memory_does_not_grow_with_the_file)
{
    enum { COUNT = 8 * LONGEST / 1024 };
    char *text = calloc(1, 8 * (size_t)LONGEST + 1);
    char line[1024] = "";
    ck_assert_ptr_nonnull(text);
    memset(line, 'x', sizeof line - 1);
    memset(text, 'x', 8 * (size_t)LONGEST);
    for (size_t i = 1; i <= COUNT; i++)
        text[1024 * i - 1] = '\n';
    struct lines l;
    open_text(&l, text, LONGEST);
    for (size_t i = 0; i < COUNT; i++)
        expect_line(&l, line);
    ck_assert_uint_le(l.cap, 2 * BLOCK);
    expect_end(&l, COUNT, 8 * (int64_t)LONGEST);
    free(text);
}
END_TEST

START_TEST(what_cannot_be_opened_is_told)
{
    struct lines l;
    ck_assert_int_eq(lines_open(&l, "/nonexistent", 5, &stop), -ENOENT);
    lines_close(&l);
    ck_assert_int_eq(lines_open(&l, "/tmp", 5, &stop), -EISDIR);
    lines_close(&l);
}
END_TEST

static void on_signal(int signum)
{
    stop = signum;
}

/* The signal came before the wait for input began: nothing else would end it. */
START_TEST(a_signal_ends_the_wait_for_input)
{
    struct lines l;
    const char *text = NULL;
    size_t len = 0;
    int fds[2];
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    ck_assert_int_eq(sigaction(SIGINT, &action, NULL), 0);
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(dup2(fds[0], 0), 0);
    ck_assert_int_eq(lines_open(&l, "-", 100, &stop), 0);
    ck_assert(write_all(fds[1], "one\ntw", 6));
    expect_line(&l, "one");
    ck_assert_int_eq(raise(SIGINT), 0);
    ck_assert_int_eq(lines_next(&l, &text, &len), -EINTR);
    lines_close(&l);
}
END_TEST

/* --- jobs --- */

static struct jobline_defaults no_defaults;

static json_t *appended(const char *text, const struct jobline_defaults *d)
{
    char why[JOBLINE_ERROR_SIZE] = "";
    struct buf out;
    buf_init(&out, 1 << 20);
    int err = jobline_append(text, strlen(text), d, &out, why);
    ck_assert_msg(err == 0 && out.err == 0, "%s: %s", text, why);
    json_error_t error;
    json_t *json = json_loadb(out.data, out.len, 0, &error);
    ck_assert_msg(json != NULL, "%s: %s", out.data, error.text);
    buf_deinit(&out);
    return json;
}

START_TEST(defaults_go_before_what_the_line_says)
{
    struct jobline_defaults d;
    struct admin_job job;
    memset(&job, 0, sizeof job);
    job.task = "t";
    job.priority = "4";
    job.delay = "90000 milliseconds";
    job.headers = "{\"a\":\"1\"}";
    job.key = "k\"ey";
    job.after = "{\"1\",\"23\"}";
    job.notify_done = "true";
    ck_assert_int_eq(jobline_defaults_init(&d, &job), 0);
    static const char *const lines[] = {"{}", " { } ", "{\"payload\":{\"x\":[1,\"}\"]}}"};
    for (size_t i = 0; i < 3; i++) {
        json_t *json = appended(lines[i], &d);
        char *text = json_dumps(json, JSON_COMPACT);
        char wanted[512];
        (void)snprintf(
            wanted, sizeof wanted,
            "{\"task\":\"t\",\"priority\":4,\"headers\":{\"a\":\"1\"},\"key\":\"k\\\"ey\","
            "\"after\":[1,23],\"notify_done\":true,\"delay\":\"90000 milliseconds\"%s}",
            i == 2 ? ",\"payload\":{\"x\":[1,\"}\"]}" : "");
        ck_assert_str_eq(text, wanted);
        free(text);
        json_decref(json);
    }
    json_t *json = appended("{\"run_at\": \"x\", \"priority\": 1, \"task\": \"own\"}", &d);
    ck_assert_ptr_null(json_object_get(json, "delay"));
    ck_assert_int_eq(json_integer_value(json_object_get(json, "priority")), 1); /* the last wins */
    ck_assert_str_eq(json_string_value(json_object_get(json, "task")), "own");
    json_decref(json);
    jobline_defaults_deinit(&d);
}
END_TEST

START_TEST(names_inside_a_payload_are_not_looked_at)
{
    json_decref(appended("{\"payload\": {\"task\": 7, \"x\\\"}\": [{\"delay\": {}}]}, \"task\": "
                         "\"t\", \"headers\": {\"prio\": \"{\"}}",
                         &no_defaults));
    json_decref(
        appended("{\"task\":\"a.b:c_d-1\",\"priority\":4,\"max_attempts\":32767,\"key\":null}",
                 &no_defaults));
}
END_TEST

/* The longest names and values that can be wrong leave the message whole and ended. */
START_TEST(messages_are_cut_and_not_overrun)
{
    enum { LONG = 100000 };
    static const char *const before[] = {"{\"", "{\"task\":\"", "{\"priority\":1",
                                         "{\"task\":\"t\",\"x\":\""};
    static const char *const after[] = {"\":1}", " \"}", "}", "\"}"};
    char *text = calloc(1, LONG + 100);
    ck_assert_ptr_nonnull(text);
    size_t n = (size_t)snprintf(text, 40, "%s", before[_i]);
    memset(text + n, '9', LONG);
    (void)snprintf(text + n + LONG, 40, "%s", after[_i]);
    struct buf out;
    char why[JOBLINE_ERROR_SIZE] = "";
    buf_init(&out, 1 << 20);
    ck_assert_int_eq(jobline_append(text, strlen(text), &no_defaults, &out, why), OB_ESYNTAX);
    ck_assert_uint_gt(strlen(why), 10);
    ck_assert_uint_eq(out.len, 0);
    buf_deinit(&out);
    free(text);
}
END_TEST

START_TEST(a_blank_line_has_blanks_only)
{
    ck_assert(jobline_is_blank("", 0));
    ck_assert(jobline_is_blank(" \t\r", 3));
    ck_assert(!jobline_is_blank(" \t{", 3));
    ck_assert(!jobline_is_blank("\0", 1));
}
END_TEST

/* --- the bar --- */

static const struct {
    int64_t total, bytes, jobs;
    uint64_t ms;
    const char *wanted;
} bars[] = {
    {3000000, 1500000, 5000, 2000,
     "[##########..........] 1.5 of 3.0 MB, 5000 jobs, 2500/s, 2.0s left"},
    {3000000, 3000000, 10000, 4000,
     "[####################] 3.0 of 3.0 MB, 10000 jobs, 2500/s, 0ms left"},
    {1000000, 3000000, 10, 0, "[####################] 3.0 of 1.0 MB, 10 jobs, 0/s, 0ms left"},
    {0, 1500000, 5000, 2000, "1.5 MB, 5000 jobs, 2500/s"},
    {3000000, 0, 0, 0, "0.0 MB, 0 jobs, 0/s"},
};

START_TEST(the_bar_says_how_far_how_fast_and_how_long)
{
    char text[200];
    progress_load_text(text, sizeof text, bars[_i].total, bars[_i].bytes, bars[_i].jobs,
                       bars[_i].ms);
    ck_assert_str_eq(text, bars[_i].wanted);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("enqueue_lines");
    TCase *tc = tcase_create("lines");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, lines_end_with_lf_or_crlf_or_the_file);
    tcase_add_test(tc, lines_of_any_length_are_whole);
    tcase_add_loop_test(tc, a_line_over_the_limit_is_refused_with_its_number, 0, 3);
    tcase_add_test(tc, memory_does_not_grow_with_the_file);
    tcase_add_test(tc, what_cannot_be_opened_is_told);
    tcase_add_test(tc, a_signal_ends_the_wait_for_input);
    suite_add_tcase(s, tc);
    tc = tcase_create("jobs");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, defaults_go_before_what_the_line_says);
    tcase_add_test(tc, names_inside_a_payload_are_not_looked_at);
    tcase_add_loop_test(tc, messages_are_cut_and_not_overrun, 0, 4);
    tcase_add_test(tc, a_blank_line_has_blanks_only);
    suite_add_tcase(s, tc);
    tc = tcase_create("the bar");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, the_bar_says_how_far_how_fast_and_how_long, 0, 5);
    suite_add_tcase(s, tc);
    return s;
}
