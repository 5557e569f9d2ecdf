/* check_outcome.c - the tables from "how it ended" to "what happens to the job". */
#include "ck_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/outcome.h"

/* The defaults: 65 and 100 mean "never again". */
static struct command_config command_config(void)
{
    struct command_config c;
    memset(&c, 0, sizeof c);
    c.dead_exit[65 / 8] |= 1U << (65 % 8);
    c.dead_exit[100 / 8] |= 1U << (100 % 8);
    return c;
}

/* A wait status as the kernel really makes it. */
static int status_of_exit(int code)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(code);
    int status = -1;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static int status_of_signal(int signum)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(signum, SIG_DFL);
        (void)raise(signum);
        (void)raise(SIGKILL); /* for signals that are ignored by default: not used below */
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static struct outcome from_command(int wait_status, bool timed_out, bool stopping)
{
    const struct command_config config = command_config();
    const struct command_end end = {
        .wait_status = wait_status, .timed_out = timed_out, .stopping = stopping};
    struct outcome o;
    outcome_init(&o);
    outcome_from_command(&o, &config, &end);
    return o;
}

START_TEST(every_exit_code_has_its_outcome)
{
    const int code = _i;
    struct outcome o = from_command(status_of_exit(code), false, false);
    char reason[32];
    (void)snprintf(reason, sizeof reason, "exit %d", code);
    if (code == 0) {
        ck_assert_int_eq(o.kind, OUTCOME_DONE);
        ck_assert_str_eq(o.reason, "");
    } else {
        ck_assert_int_eq(o.kind, code == 65 || code == 100 ? OUTCOME_DEAD : OUTCOME_RETRY);
        ck_assert_str_eq(o.reason, reason);
    }
    ck_assert_int_eq(o.exit_code, code);
    ck_assert_int_eq(o.signal, 0);
    ck_assert_uint_eq(o.delay_ms, 0);
    ck_assert(!o.misconfigured && !o.spawn_failed && !o.uncounted);
}
END_TEST

START_TEST(dead_exits_are_the_configured_ones)
{
    for (int dead = 1; dead < 256; dead++) {
        struct command_config config;
        memset(&config, 0, sizeof config);
        config.dead_exit[dead / 8] = (uint8_t)(1U << (dead % 8));
        for (int code = 1; code < 256; code++) {
            const struct command_end end = {.wait_status = code << 8};
            struct outcome o;
            outcome_init(&o);
            outcome_from_command(&o, &config, &end);
            ck_assert_int_eq(o.kind, code == dead ? OUTCOME_DEAD : OUTCOME_RETRY);
        }
    }
}
END_TEST

/* Every signal number the kernel can report, with and without the core-dump bit. */
START_TEST(death_by_a_signal_is_never_success)
{
    for (int signum = 1; signum <= 64; signum++) {
        for (int core = 0; core <= 0x80; core += 0x80) {
            struct outcome o = from_command(signum | core, false, false);
            char reason[32];
            (void)snprintf(reason, sizeof reason, "signal %d", signum);
            ck_assert_int_eq(o.kind, OUTCOME_RETRY);
            ck_assert_str_eq(o.reason, reason);
            ck_assert_int_eq(o.signal, signum);
            ck_assert_int_eq(o.exit_code, -1);
        }
    }
}
END_TEST

START_TEST(a_real_signal_death_is_recognised)
{
    static const int signals[] = {SIGTERM, SIGKILL, SIGSEGV, SIGHUP, SIGPIPE};
    struct outcome o = from_command(status_of_signal(signals[_i]), false, false);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_int_eq(o.signal, signals[_i]);
}
END_TEST

START_TEST(timeout_is_a_counted_retry_unless_the_work_was_done)
{
    struct outcome o = from_command(SIGTERM, true, false);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_str_eq(o.reason, "timeout");
    ck_assert_int_eq(o.signal, SIGTERM);

    o = from_command(100 << 8, true, false); /* said under our TERM: no verdict on the job */
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_str_eq(o.reason, "timeout");
    ck_assert_int_eq(o.exit_code, 100);

    o = from_command(0, true, false);
    ck_assert_int_eq(o.kind, OUTCOME_DONE);
    ck_assert_str_eq(o.reason, "");
}
END_TEST

START_TEST(our_shutdown_releases_unless_the_work_was_done)
{
    ck_assert_int_eq(from_command(SIGTERM, false, true).kind, OUTCOME_RELEASE);
    ck_assert_int_eq(from_command(SIGKILL, false, true).kind, OUTCOME_RELEASE);
    ck_assert_int_eq(from_command(1 << 8, false, true).kind, OUTCOME_RELEASE);
    ck_assert_int_eq(from_command(100 << 8, false, true).kind, OUTCOME_RELEASE);
    ck_assert_int_eq(from_command(0, false, true).kind, OUTCOME_DONE);
    /* The timeout came first: that the dispatcher stops as well does not give the attempt back. */
    ck_assert_int_eq(from_command(SIGKILL, true, true).kind, OUTCOME_RETRY);
}
END_TEST

START_TEST(a_missing_exit_status_is_counted)
{
    struct outcome o = from_command(-1, false, false);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_int_eq(o.exit_code, -1);
    ck_assert_int_eq(o.signal, 0);
    ck_assert_ptr_nonnull(strstr(o.reason, "lost"));
}
END_TEST

static struct outcome from_spawn_error(const char *stage, int errnum)
{
    struct outcome o;
    outcome_init(&o);
    outcome_from_spawn_error(&o, stage, errnum, "/usr/bin/convert-job");
    return o;
}

START_TEST(lack_of_processes_releases_and_pauses_spawning)
{
    static const int scarce[] = {EAGAIN, ENOMEM, EMFILE, ENFILE};
    struct outcome o = from_spawn_error("vfork", scarce[_i]);
    ck_assert_int_eq(o.kind, OUTCOME_RELEASE);
    ck_assert(o.spawn_failed);
    ck_assert(!o.misconfigured);
    ck_assert_uint_eq(o.delay_ms, 1000);
    ck_assert_ptr_nonnull(strstr(o.reason, strerror(scarce[_i])));
}
END_TEST

START_TEST(a_handler_that_cannot_run_releases_as_misconfigured)
{
    static const int wrong[] = {ENOENT, EACCES, ENOEXEC, ENOTDIR, ELOOP,
                                EPERM,  E2BIG,  EINVAL,  EIO,     ETXTBSY};
    struct outcome o = from_spawn_error("exec", wrong[_i]);
    ck_assert_int_eq(o.kind, OUTCOME_RELEASE);
    ck_assert(o.misconfigured);
    ck_assert(!o.spawn_failed);
    ck_assert_ptr_nonnull(strstr(o.reason, "/usr/bin/convert-job"));
    ck_assert_ptr_nonnull(strstr(o.reason, strerror(wrong[_i])));
}
END_TEST

START_TEST(the_reason_of_a_spawn_error_says_what_to_do)
{
    ck_assert_ptr_nonnull(strstr(from_spawn_error("exec", EACCES).reason, "chmod +x"));
    ck_assert_ptr_null(strstr(from_spawn_error("chdir", EACCES).reason, "chmod +x"));
    ck_assert_ptr_nonnull(strstr(from_spawn_error("chdir", EACCES).reason, "chdir"));
    ck_assert_ptr_nonnull(strstr(from_spawn_error("exec", ENOEXEC).reason, "#!"));
    ck_assert_ptr_nonnull(strstr(from_spawn_error("exec", ENOENT).reason, "exist"));
}
END_TEST

static struct outcome from_status(int status, bool has_retry_after, uint64_t retry_after_ms)
{
    const struct http_end end = {
        .status = status, .has_retry_after = has_retry_after, .retry_after_ms = retry_after_ms};
    struct outcome o;
    outcome_init(&o);
    outcome_from_http(&o, &end);
    return o;
}

START_TEST(every_status_has_its_outcome)
{
    const int status = _i;
    struct outcome o = from_status(status, false, 0);
    enum outcome_kind kind = OUTCOME_RETRY;
    if (status >= 200 && status <= 299)
        kind = OUTCOME_DONE;
    if (status == 410)
        kind = OUTCOME_DEAD;
    bool overloaded = status == 408 || status == 425 || status == 502 || status == 504;
    char reason[32];
    (void)snprintf(reason, sizeof reason, "%sHTTP %d", status / 100 == 3 ? "redirect: " : "",
                   status);
    ck_assert_int_eq(o.kind, kind);
    ck_assert_int_eq(o.http_status, status);
    ck_assert_str_eq(o.reason, kind == OUTCOME_DONE ? "" : reason);
    ck_assert_uint_eq(o.delay_ms, overloaded ? 60000 : 0);
    ck_assert_int_eq(o.exit_code, -1);
}
END_TEST

START_TEST(retry_after_delays_every_answer_that_is_retried)
{
    const int status = _i;
    struct outcome o = from_status(status, true, 90000);
    ck_assert_uint_eq(o.delay_ms, o.kind == OUTCOME_RETRY ? 90000 : 0);
    o = from_status(status, true, 0);
    ck_assert_uint_eq(o.delay_ms, from_status(status, false, 0).delay_ms);
    o = from_status(status, true, 1000); /* below the floor of 408, 425, 502 and 504 */
    bool has_floor = from_status(status, false, 0).delay_ms > 0;
    ck_assert_uint_eq(o.delay_ms, o.kind != OUTCOME_RETRY ? 0U : has_floor ? 60000U : 1000U);
}
END_TEST

START_TEST(a_status_out_of_the_range_is_retried)
{
    static const int odd[] = {1, 42, 99, 600, 999};
    struct outcome o = from_status(odd[_i], false, 0);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
}
END_TEST

START_TEST(a_redirect_names_its_location)
{
    const struct http_end end = {.status = 308, .location = "https://example.org/new"};
    struct outcome o;
    outcome_init(&o);
    outcome_from_http(&o, &end);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_str_eq(o.reason, "redirect: HTTP 308 to https://example.org/new");
}
END_TEST

START_TEST(no_response_is_retried_with_its_class)
{
    static const char *const classes[] = {"dns",     "connect", "tls",     "reset",
                                          "timeout", "network", "protocol"};
    struct http_end end = {.error_class = classes[_i]};
    struct outcome o;
    outcome_init(&o);
    outcome_from_http(&o, &end);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_str_eq(o.reason, classes[_i]);
    ck_assert_int_eq(o.http_status, 0);

    end.error_text = "it broke";
    outcome_from_http(&o, &end);
    ck_assert_uint_eq(strlen(o.reason), strlen(classes[_i]) + strlen(": it broke"));
    ck_assert_ptr_nonnull(strstr(o.reason, ": it broke"));
}
END_TEST

START_TEST(a_transfer_that_we_dropped_is_released)
{
    const struct http_end end = {.error_class = "stopped", .stopping = true};
    struct outcome o;
    outcome_init(&o);
    outcome_from_http(&o, &end);
    ck_assert_int_eq(o.kind, OUTCOME_RELEASE);

    struct http_end answered = {.status = 204, .stopping = true};
    outcome_from_http(&o, &answered);
    ck_assert_int_eq(o.kind, OUTCOME_DONE);
    answered.status = 500;
    outcome_from_http(&o, &answered);
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
}
END_TEST

START_TEST(a_reason_is_always_printable_utf8)
{
    struct outcome o;
    outcome_init(&o);
    outcome_set(&o, OUTCOME_RETRY, "%s", "a\r\nb\x01\x7f\xff\xc3\xa9");
    ck_assert_str_eq(o.reason, "a??b???\xc3\xa9");

    /* A sequence that the limit would cut in two: 254 bytes, then the first byte of "é". */
    char text[OUTCOME_REASON_SIZE + 8];
    memset(text, 'x', sizeof text);
    memcpy(text + 254, "\xc3\xa9", 3);
    outcome_set(&o, OUTCOME_RETRY, "%s", text);
    ck_assert_uint_eq(strlen(o.reason), OUTCOME_REASON_SIZE - 1);
    ck_assert_int_eq(o.reason[254], '?');
}
END_TEST

START_TEST(kinds_have_the_names_that_the_database_knows)
{
    ck_assert_str_eq(outcome_name(OUTCOME_DONE), "done");
    ck_assert_str_eq(outcome_name(OUTCOME_RETRY), "retry");
    ck_assert_str_eq(outcome_name(OUTCOME_DEAD), "dead");
    ck_assert_str_eq(outcome_name(OUTCOME_RELEASE), "release");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outcome");
    TCase *tc = tcase_create("commands");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, every_exit_code_has_its_outcome, 0, 256);
    tcase_add_test(tc, dead_exits_are_the_configured_ones);
    tcase_add_test(tc, death_by_a_signal_is_never_success);
    tcase_add_loop_test(tc, a_real_signal_death_is_recognised, 0, 5);
    tcase_add_test(tc, timeout_is_a_counted_retry_unless_the_work_was_done);
    tcase_add_test(tc, our_shutdown_releases_unless_the_work_was_done);
    tcase_add_test(tc, a_missing_exit_status_is_counted);
    suite_add_tcase(s, tc);

    tc = tcase_create("spawn errors");
    tcase_add_loop_test(tc, lack_of_processes_releases_and_pauses_spawning, 0, 4);
    tcase_add_loop_test(tc, a_handler_that_cannot_run_releases_as_misconfigured, 0, 10);
    tcase_add_test(tc, the_reason_of_a_spawn_error_says_what_to_do);
    suite_add_tcase(s, tc);

    tc = tcase_create("http");
    tcase_add_loop_test(tc, every_status_has_its_outcome, 100, 600);
    tcase_add_loop_test(tc, retry_after_delays_every_answer_that_is_retried, 100, 600);
    tcase_add_loop_test(tc, a_status_out_of_the_range_is_retried, 0, 5);
    tcase_add_test(tc, a_redirect_names_its_location);
    tcase_add_loop_test(tc, no_response_is_retried_with_its_class, 0, 7);
    tcase_add_test(tc, a_transfer_that_we_dropped_is_released);
    suite_add_tcase(s, tc);

    tc = tcase_create("texts");
    tcase_add_test(tc, a_reason_is_always_printable_utf8);
    tcase_add_test(tc, kinds_have_the_names_that_the_database_knows);
    suite_add_tcase(s, tc);
    return s;
}
