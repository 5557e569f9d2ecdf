/* The test support's servers, as their users see them: over sockets. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ck_main.h"
#include "daemon.h"
#include "faultproxy.h"
#include "httpstub.h"
#include "wait.h"

static int connect_to(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static const char POST[] =
    "POST /hook HTTP/1.1\r\nHost: x\r\nWebhook-Id: 7\r\nContent-Length: 5\r\n\r\nhello";

/* Reads until the text has come; what came, or NULL when the connection ended before. */
static const char *hear(int fd, const char *until)
{
    static char buf[8192];
    size_t len = 0;
    while (len < sizeof buf - 1) {
        ssize_t n = recv(fd, buf + len, 1, 0);
        if (n <= 0)
            return NULL;
        len += (size_t)n;
        buf[len] = '\0';
        if (strstr(buf, until) != NULL)
            return buf;
    }
    return NULL;
}

START_TEST(stub_answers_by_its_script_and_repeats_the_last)
{
    static const struct httpstub_answer script[] = {
        {.status = 503, .headers = "Retry-After: 9\r\n", .body = "later"}, {.status = 204}};
    struct httpstub s;
    httpstub_start(&s, script, 2);
    int fd = connect_to(s.port);
    say(fd, POST);
    const char *first = hear(fd, "later");
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_nonnull(strstr(first, "HTTP/1.1 503 "));
    ck_assert_ptr_nonnull(strstr(first, "Retry-After: 9\r\n"));
    for (int i = 0; i < 2; i++) {
        say(fd, POST);
        const char *answer = hear(fd, "\r\n\r\n");
        ck_assert_ptr_nonnull(answer);
        ck_assert_ptr_nonnull(strstr(answer, "HTTP/1.1 204 "));
    }
    ck_assert_uint_eq(httpstub_connections(&s), 1);
    ck_assert_uint_eq(httpstub_requests(&s), 3);
    (void)close(fd);
    httpstub_stop(&s);
}
END_TEST

START_TEST(stub_records_what_it_was_sent)
{
    static const struct httpstub_answer script[] = {{.status = 200}};
    struct httpstub s;
    httpstub_start(&s, script, 1);
    int fd = connect_to(s.port);
    say(fd, "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    ck_assert_ptr_nonnull(hear(fd, "\r\n\r\n"));
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "\r\n\r\n"));
    ck_assert_uint_eq(httpstub_requests(&s), 2);
    ck_assert_str_eq(httpstub_request(&s, 1), POST);
    ck_assert_str_eq(httpstub_header(&s, 1, "webhook-id"), "7");
    ck_assert_str_eq(httpstub_body(&s, 1), "hello");
    ck_assert_ptr_null(httpstub_header(&s, 1, "absent"));
    ck_assert_ptr_null(httpstub_request(&s, 2));
    (void)close(fd);
    httpstub_stop(&s);
}
END_TEST

START_TEST(stub_closes_where_the_script_says)
{
    static const struct httpstub_answer script[] = {
        {.status = 0},
        {.status = 200, .body = "whole", .cut_after_bytes = 12},
        {.status = 200, .body = "bye", .close_after = 1}};
    struct httpstub s;
    char rest[64] = "";
    httpstub_start(&s, script, 3);
    int fd = connect_to(s.port);
    say(fd, POST);
    ck_assert_int_eq(recv(fd, rest, sizeof rest, 0), 0);
    (void)close(fd);
    fd = connect_to(s.port);
    say(fd, POST);
    ck_assert_int_eq(recv(fd, rest, sizeof rest, MSG_WAITALL), 12);
    ck_assert_int_eq(memcmp(rest, "HTTP/1.1 200", 12), 0);
    (void)close(fd);
    fd = connect_to(s.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "bye"));
    ck_assert_int_eq(recv(fd, rest, sizeof rest, 0), 0);
    (void)close(fd);
    httpstub_stop(&s);
}
END_TEST

START_TEST(stub_sends_raw_dripping_delayed_and_endless_answers)
{
    static const struct httpstub_answer script[] = {
        {.raw = "HTTP/1.1 2"},
        {.status = 200, .body = "drip", .drip_ms = 1, .delay_ms = 5},
        {.status = 200, .body = "0123456789", .body_repeat = 100000, .close_after = 1}};
    struct httpstub s;
    char buf[65536];
    size_t total = 0;
    ssize_t n;
    httpstub_start(&s, script, 3);
    int fd = connect_to(s.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "HTTP/1.1 2"));
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "drip"));
    say(fd, POST);
    const char *head = hear(fd, "\r\n\r\n");
    ck_assert_ptr_nonnull(head);
    ck_assert_ptr_nonnull(strstr(head, "Content-Length: 1000000\r\n"));
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
        total += (size_t)n;
    ck_assert_uint_eq(total, 1000000);
    (void)close(fd);
    httpstub_stop(&s);
}
END_TEST

/* --- the proxy, in front of the stub --- */

static struct httpstub behind;
static struct faultproxy proxy;
static char answer_start[] = "HTTP/1.1 200";

static void proxy_setup(void)
{
    static const struct httpstub_answer script[] = {{.status = 200, .body = "fine"}};
    char target[32];
    httpstub_start(&behind, script, 1);
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", behind.port);
    faultproxy_start(&proxy, target);
}

static void proxy_teardown(void)
{
    faultproxy_stop(&proxy);
    httpstub_stop(&behind);
}

START_TEST(proxy_passes_both_ways)
{
    int fd = connect_to(proxy.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    (void)close(fd);
}
END_TEST

START_TEST(proxy_that_stalls_moves_nothing_and_then_everything)
{
    char byte;
    int fd = connect_to(proxy.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    faultproxy_stall(&proxy);
    say(fd, POST);
    ck_assert(!wait_until(httpstub_requests(&behind) > 1, 100));
    ck_assert_int_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    faultproxy_pass(&proxy);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    (void)close(fd);
}
END_TEST

START_TEST(proxy_cuts_after_exactly_so_many_bytes)
{
    char buf[256];
    int fd = connect_to(proxy.port);
    faultproxy_cut_after(&proxy, strlen(answer_start));
    say(fd, POST);
    ck_assert_int_eq(recv(fd, buf, sizeof buf, MSG_WAITALL), (ssize_t)strlen(answer_start));
    ck_assert_int_eq(memcmp(buf, answer_start, strlen(answer_start)), 0);
    (void)close(fd);
    fd = connect_to(proxy.port); /* the cut was one */
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    (void)close(fd);
}
END_TEST

START_TEST(proxy_resets_refuses_and_half_closes)
{
    char buf[16];
    int fd = connect_to(proxy.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    faultproxy_reset(&proxy);
    ck_assert_int_eq(recv(fd, buf, sizeof buf, 0), -1); /* ECONNRESET */
    (void)close(fd);
    fd = connect_to(proxy.port);
    say(fd, POST);
    ck_assert_ptr_nonnull(hear(fd, "fine"));
    faultproxy_half_close(&proxy);
    ck_assert_int_eq(recv(fd, buf, sizeof buf, 0), 0);
    say(fd, POST); /* the other direction still works */
    ck_assert(wait_until(httpstub_requests(&behind) == 3, 5000));
    (void)close(fd);
    faultproxy_refuse(&proxy);
    fd = connect_to(proxy.port);
    ck_assert_int_le(recv(fd, buf, sizeof buf, 0), 0);
    (void)close(fd);
}
END_TEST

START_TEST(files_of_a_test_are_its_own)
{
    const char *path = test_file("lines", "one\ntwo\n", 0600);
    ck_assert_uint_eq(count_lines(path), 2);
    ck_assert_uint_eq(count_lines("/nonexistent"), 0);
    ck_assert_ptr_eq(strstr(path, test_dir()), path);
}
END_TEST

START_TEST(each_test_starts_with_an_empty_folder)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s/lines", test_dir());
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("support");
    TCase *stub = tcase_create("http stub");
    tcase_set_timeout(stub, TIMEOUT_UNIT_S);
    tcase_add_test(stub, stub_answers_by_its_script_and_repeats_the_last);
    tcase_add_test(stub, stub_records_what_it_was_sent);
    tcase_add_test(stub, stub_closes_where_the_script_says);
    tcase_add_test(stub, stub_sends_raw_dripping_delayed_and_endless_answers);
    suite_add_tcase(s, stub);
    TCase *faults = tcase_create("fault proxy");
    tcase_set_timeout(faults, TIMEOUT_UNIT_S);
    tcase_add_checked_fixture(faults, proxy_setup, proxy_teardown);
    tcase_add_test(faults, proxy_passes_both_ways);
    tcase_add_test(faults, proxy_that_stalls_moves_nothing_and_then_everything);
    tcase_add_test(faults, proxy_cuts_after_exactly_so_many_bytes);
    tcase_add_test(faults, proxy_resets_refuses_and_half_closes);
    suite_add_tcase(s, faults);
    TCase *files = tcase_create("files");
    tcase_add_test(files, files_of_a_test_are_its_own);
    tcase_add_test(files, each_test_starts_with_an_empty_folder);
    suite_add_tcase(s, files);
    return s;
}
