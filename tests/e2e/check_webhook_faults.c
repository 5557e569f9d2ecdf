/* check_webhook_faults.c - servers that misbehave, deadlines, stopping, and what is left
 * afterwards. The oracle: exactly one outcome a run, the one the table names, and an empty loop at
 * the end. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <netinet/in.h>

#include "child.h"
#include "webhook_fixture.h"

/* ---- Answers that are none, or half ---- */

static const struct {
    const char *what;
    struct httpstub_answer answer;
    enum outcome_kind kind;
    int status;
    const char *reason; /* begins with */
} hostile[] = {
    {"closed before the status", {.status = 0}, OUTCOME_RETRY, 0, "reset: "},
    {"reset before the status", {.status = 0, .reset = 1}, OUTCOME_RETRY, 0, "reset: "},
    {"closed within the status", {.status = 200, .cut_after_bytes = 9}, OUTCOME_RETRY, 0, ""},
    {"closed after the status line",
     {.raw = "HTTP/1.1 200 OK\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     "reset: "},
    {"reset after the status line",
     {.raw = "HTTP/1.1 200 OK\r\n", .close_after = 1, .reset = 1},
     OUTCOME_RETRY,
     0,
     ""},
    {"half a header",
     {.raw = "HTTP/1.1 200 OK\r\nContent-Le", .close_after = 1},
     OUTCOME_RETRY,
     0,
     "reset: "},
    {"no empty line",
     {.raw = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     "reset: "},
    {"2xx with a cut body",
     {.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", .close_after = 1},
     OUTCOME_DONE,
     200,
     ""},
    {"2xx with a reset in the body",
     {.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", .close_after = 1, .reset = 1},
     OUTCOME_DONE,
     200,
     ""},
    {"5xx with a cut body",
     {.raw = "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nabc", .close_after = 1},
     OUTCOME_RETRY,
     500,
     "HTTP 500"},
    {"2xx without a length",
     {.raw = "HTTP/1.1 200 OK\r\n\r\nuntil the end", .close_after = 1},
     OUTCOME_DONE,
     200,
     ""},
    {"HTTP/1.0", {.raw = "HTTP/1.0 202 Accepted\r\n\r\n", .close_after = 1}, OUTCOME_DONE, 202, ""},
    {"bare line feeds", {.raw = "HTTP/1.1 200 OK\nContent-Length: 0\n\n"}, OUTCOME_DONE, 200, ""},
    {"100-continue",
     {.raw = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"},
     OUTCOME_DONE,
     204,
     ""},
    {"early hints with a Retry-After",
     {.raw = "HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: "
             "0\r\n\r\n"},
     OUTCOME_RETRY,
     500,
     "HTTP 500"},
    {"100-continue and no more",
     {.raw = "HTTP/1.1 100 Continue\r\n\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     ""},
    {"101",
     {.raw = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", .close_after = 1},
     OUTCOME_RETRY,
     101,
     "HTTP 101"},
    {"broken chunks after 2xx",
     {.raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", .close_after = 1},
     OUTCOME_DONE,
     200,
     ""},
    {"broken chunks after 5xx",
     {.raw = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", .close_after = 1},
     OUTCOME_RETRY,
     503,
     "HTTP 503"},
    {"chunks with trailers",
     {.raw = "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nRetry-After: "
             "9\r\n\r\n"},
     OUTCOME_RETRY,
     500,
     "HTTP 500"},
    {"no HTTP",
     {.raw = "220 mail.example.org ESMTP\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     "protocol: "},
    {"HTTP of another age",
     {.raw = "HTTP/7.3 200 OK\r\nContent-Length: 0\r\n\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     ""},
    {"a status of letters",
     {.raw = "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", .close_after = 1},
     OUTCOME_RETRY,
     0,
     ""},
    {"a length of letters",
     {.raw = "HTTP/1.1 500 No\r\nContent-Length: many\r\n\r\n", .close_after = 1},
     OUTCOME_RETRY,
     -1,
     ""},
    {"a NUL of a header",
     {.raw = "HTTP/1.1 500 No\r\nX-A: b\x01\x02\r\nContent-Length: 0\r\n\r\n"},
     OUTCOME_RETRY,
     500,
     "HTTP 500"},
    {"compressed garbage",
     {.raw = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"},
     OUTCOME_DONE,
     200,
     ""},
};
enum { HOSTILE = sizeof hostile / sizeof hostile[0] };

START_TEST(a_misbehaving_server_leads_to_the_outcome_of_the_table)
{
    struct outcome o = deliver_to(&hostile[_i].answer);
    ck_assert_msg(o.kind == hostile[_i].kind, "%s: %s \"%s\"", hostile[_i].what,
                  outcome_name(o.kind), o.reason);
    ck_assert_msg(strncmp(o.reason, hostile[_i].reason, strlen(hostile[_i].reason)) == 0,
                  "%s: \"%s\"", hostile[_i].what, o.reason);
    if (hostile[_i].status >= 0)
        ck_assert_int_eq(o.http_status, hostile[_i].status);
    ck_assert_uint_eq(o.delay_ms, 0);
    if (o.http_status == 0)
        ck_assert_ptr_nonnull(strstr(o.reason, ": "));
}
END_TEST

/* What a server sends where nothing may be must not become the next job's answer. */
START_TEST(a_body_behind_204_is_not_taken_for_the_next_answer)
{
    static const struct httpstub_answer answers[] = {
        {.raw = "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n"},
        {.status = 200}};
    struct fixture f;
    fixture_start(&f, answers, 2);
    ck_assert_int_eq(deliver(&f)->http_status, 204);
    ck_assert_int_eq(deliver(&f)->http_status, 200);
    fixture_stop(&f);
}
END_TEST

/* Documented: libcurl itself sends a request again when a kept connection dies before a byte of the
 * answer. The job is delivered twice, under one webhook-id. */
START_TEST(a_kept_connection_that_dies_is_replaced_under_the_same_id)
{
    static const struct httpstub_answer answers[] = {
        {.status = 200}, {.status = 0, .reset = 1}, {.status = 200}};
    struct fixture f;
    fixture_start(&f, answers, 3);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(httpstub_requests(&f.stub), 3);
    ck_assert_str_eq(httpstub_header(&f.stub, 1, "webhook-id"),
                     httpstub_header(&f.stub, 2, "webhook-id"));
    ck_assert_uint_eq(fixture_stats(&f).requests, 2);
    ck_assert_uint_eq(fixture_stats(&f).connections, 2);
    fixture_stop(&f);
}
END_TEST

/* ---- Bounds ---- */

START_TEST(a_huge_body_is_cut_and_only_its_head_kept)
{
    static const struct httpstub_answer huge = {
        .status = 200, .body = "0123456789abcdef", .body_repeat = (size_t)1 << 36};
    struct fixture f;
    fixture_start(&f, &huge, 1);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_DONE);
    ck_assert_uint_eq(o->head_len, f.task.webhook.response_capture_bytes);
    ck_assert_int_eq(strncmp(o->head, "0123456789abcdef0123", 20), 0);
    ck_assert_uint_gt(o->output_bytes, f.task.webhook.response_drain_bytes);
    ck_assert_uint_lt(o->output_bytes, f.task.webhook.response_drain_bytes + (1 << 20));
    fixture_stop(&f);
}
END_TEST

START_TEST(a_body_within_the_bound_is_read_and_the_connection_kept)
{
    static const struct httpstub_answer large = {
        .status = 500, .body = "0123456789abcdef", .body_repeat = 64 * 1024 / 16};
    struct fixture f;
    fixture_start(&f, &large, 1);
    for (int i = 0; i < 3; i++) {
        const struct outcome *o = deliver(&f);
        ck_assert_int_eq(o->http_status, 500);
        ck_assert_uint_eq(o->output_bytes, 64 * 1024);
    }
    ck_assert_uint_eq(httpstub_connections(&f.stub), 1);
    fixture_stop(&f);
}
END_TEST

START_TEST(nothing_is_captured_when_nothing_is_asked_for)
{
    static const struct httpstub_answer answer = {.status = 500, .body = "secret"};
    struct fixture f;
    fixture_start(&f, &answer, 1);
    f.task.webhook.response_capture_bytes = 0;
    f.task.webhook.response_drain_bytes = 0;
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->http_status, 500);
    ck_assert_uint_eq(o->head_len, 0);
    fixture_stop(&f);
}
END_TEST

/* Forty thousand header lines. */
START_TEST(endless_headers_are_given_up)
{
    static const char line[] = "X-Header: 0123456789\r\n";
    enum { LINES = 40000 };
    char *raw = malloc(sizeof line * LINES + 64);
    ck_assert_ptr_nonnull(raw);
    size_t len = (size_t)snprintf(raw, 64, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < LINES; i++) {
        memcpy(raw + len, line, sizeof line);
        len += sizeof line - 1;
    }
    memcpy(raw + len, "\r\n", 3);
    struct outcome o = deliver_to(&(struct httpstub_answer){.raw = raw, .close_after = 1});
    ck_assert_int_eq(o.kind, OUTCOME_RETRY);
    ck_assert_int_eq(o.http_status, 0);
    ck_assert_int_eq(strncmp(o.reason, "protocol: ", 10), 0);
    free(raw);
}
END_TEST

/* A server that sends everybody back to itself. */
START_TEST(a_redirect_loop_is_one_request)
{
    char location[128];
    struct httpstub_answer loop = {.status = 308, .headers = location};
    struct fixture f;
    /* The port is known only to the server's parent: a relative one leads back as well. */
    (void)snprintf(location, sizeof location, "Location: /hook\r\n");
    fixture_start(&f, &loop, 1);
    for (int i = 0; i < 3; i++) {
        const struct outcome *o = deliver(&f);
        ck_assert_int_eq(o->kind, OUTCOME_RETRY);
        ck_assert_str_eq(o->reason, "redirect: HTTP 308 to /hook");
    }
    ck_assert_uint_eq(httpstub_requests(&f.stub), 3);
    fixture_stop(&f);
}
END_TEST

/* ---- No connection ---- */

START_TEST(a_refused_connection_is_retried)
{
    struct fixture f;
    int port = 0;
    int fd = listen_loopback(&port);
    (void)close(fd);
    fixture_defaults(&f);
    fixture_url(&f, "http", port);
    fixture_open(&f, 4);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(strncmp(o->reason, "connect: ", 9), 0);
    fixture_close(&f);
}
END_TEST

START_TEST(a_name_that_does_not_exist_is_retried)
{
    struct fixture f;
    fixture_defaults(&f);
    (void)snprintf(f.url, sizeof f.url, "http://no-such-host.invalid/");
    fixture_open(&f, 4);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    ck_assert_msg(strncmp(o->reason, "dns: ", 5) == 0 || strncmp(o->reason, "timeout: ", 9) == 0,
                  "%s", o->reason);
    fixture_close(&f);
}
END_TEST

/* A listener whose queue is full: the kernel drops what else wants to connect. */
START_TEST(a_connection_that_hangs_ends_by_the_connect_timeout)
{
    enum { FILLERS = 8 };
    struct fixture f;
    int fillers[FILLERS];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(fd, 0), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    for (int i = 0; i < FILLERS; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, len);
    }
    fixture_defaults(&f);
    fixture_url(&f, "http", ntohs(address.sin_port));
    f.task.webhook.connect_timeout_ms = 300;
    f.task.timeout_ms = 5000; /* would end it later, and say so */
    fixture_open(&f, 4);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_str_eq(o->reason, "timeout: no connection within 300ms (connect_timeout)");
    fixture_close(&f);
    for (int i = 0; i < FILLERS; i++)
        (void)close(fillers[i]);
    (void)close(fd);
}
END_TEST

/* ---- Deadlines ---- */

static const struct {
    struct httpstub_answer answer;
    enum outcome_kind kind;
    const char *reason;
} slow[] = {
    {{.status = 200, .delay_ms = 60000},
     OUTCOME_RETRY,
     "timeout: no complete answer within 400ms (timeout)"},
    {{.status = 200, .drip_ms = 100},
     OUTCOME_RETRY,
     "timeout: no complete answer within 400ms (timeout)"},
    /* Headers complete, the body never: the status counts. */
    {{.raw = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"}, OUTCOME_DONE, ""},
    {{.raw = "HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nabc"}, OUTCOME_RETRY, "HTTP 500"},
    {{.raw = "HTTP/1.1 410 Gone\r\nContent-Length: 10\r\n\r\nabc"}, OUTCOME_DEAD, "HTTP 410"},
};
enum { SLOW = sizeof slow / sizeof slow[0] };

START_TEST(the_timeout_ends_an_attempt)
{
    struct fixture f;
    fixture_start(&f, &slow[_i].answer, 1);
    f.task.timeout_ms = 400;
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, slow[_i].kind);
    ck_assert_str_eq(o->reason, slow[_i].reason);
    ck_assert_uint_ge(o->duration_ms, 395); /* never before; how long after is not asserted */
    fixture_stop(&f);
}
END_TEST

/* All at the same moment: the last one must be reported too. */
START_TEST(fifty_timeouts_are_all_reported)
{
    enum { MANY = 50 };
    static const struct httpstub_answer never = {.status = 200, .delay_ms = 60000};
    static struct delivery deliveries[MANY];
    struct fixture f;
    fixture_start(&f, &never, 1);
    f.task.timeout_ms = 300;
    for (size_t i = 0; i < MANY; i++)
        delivery_start(&f, &deliveries[i]);
    for (size_t i = 0; i < MANY; i++) {
        delivery_wait(&f, &deliveries[i]);
        ck_assert_int_eq(deliveries[i].outcome.kind, OUTCOME_RETRY);
    }
    ck_assert_uint_eq(fixture_stats(&f).running, 0);
    fixture_stop(&f);
}
END_TEST

/* ---- Stopping ---- */

START_TEST(a_shutdown_lets_a_transfer_finish)
{
    static const struct httpstub_answer slow_ok = {.status = 200, .delay_ms = 200};
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &slow_ok, 1);
    delivery_start(&f, &d);
    f.ex->ops->stop(f.ex, &d.run, _i == 0 ? STOP_SHUTDOWN : STOP_LOST);
    f.ex->ops->stop(f.ex, &d.run, _i == 0 ? STOP_SHUTDOWN : STOP_LOST);
    delivery_wait(&f, &d);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_DONE);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_kill_drops_the_transfer_and_releases_the_job)
{
    static const struct httpstub_answer never = {.status = 200, .delay_ms = 60000};
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &never, 1);
    delivery_start(&f, &d);
    if (_i > 0) { /* not before it is under way */
        while (httpstub_requests(&f.stub) == 0)
            (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    }
    f.ex->ops->stop(f.ex, &d.run, STOP_SHUTDOWN);
    f.ex->ops->stop(f.ex, &d.run, STOP_KILL);
    f.ex->ops->stop(f.ex, &d.run, STOP_KILL);
    ck_assert(!d.is_done); /* never from inside stop */
    delivery_wait(&f, &d);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_RELEASE);
    ck_assert_int_eq(d.outcome.http_status, 0);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_kill_after_the_status_keeps_what_was_answered)
{
    static const struct httpstub_answer half = {
        .raw = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"};
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &half, 1);
    delivery_start(&f, &d);
    while (httpstub_requests(&f.stub) == 0)
        (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    /* The answer is on its way: the transfer is killed once it has been read. */
    for (int turns = 0; turns < 50; turns++) {
        (void)uv_run(&f.loop, UV_RUN_NOWAIT);
        wait_pause();
    }
    f.ex->ops->stop(f.ex, &d.run, STOP_KILL);
    delivery_wait(&f, &d);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_DONE);
    ck_assert_str_eq(d.head_text, "abc");
    fixture_stop(&f);
}
END_TEST

/* ---- What is left ---- */

static size_t open_fds(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count;
}

/* Good, bad, cut and timed-out attempts in turn, over kept and new connections. */
START_TEST(two_thousand_requests_leak_no_descriptor)
{
    static struct httpstub_answer answers[2000];
    struct fixture f;
    for (size_t i = 0; i < 2000; i++) {
        answers[i] = (struct httpstub_answer){.status = 200};
        if (i % 7 == 3)
            answers[i].close_after = 1;
        if (i % 11 == 5)
            answers[i] =
                (struct httpstub_answer){.raw = "HTTP/1.1 500 No\r\nContent-Le", .close_after = 1};
        if (i % 13 == 6)
            answers[i] = (struct httpstub_answer){.status = 0, .reset = 1};
    }
    fixture_start(&f, answers, 2000);
    (void)deliver(&f);
    size_t before = open_fds();
    for (int i = 1; i < 2000; i++)
        (void)deliver(&f);
    ck_assert_uint_ge(httpstub_requests(&f.stub), 2000);
    ck_assert_uint_le(open_fds(), before + 1); /* one kept connection more or less */
    size_t with_executor = open_fds();
    fixture_close(&f);
    ck_assert_uint_lt(open_fds(), with_executor);
    httpstub_stop(&f.stub);
}
END_TEST

START_TEST(sockets_are_closed_on_exec)
{
    static const struct httpstub_answer never = {.status = 200, .delay_ms = 60000};
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &never, 1);
    delivery_start(&f, &d);
    while (httpstub_requests(&f.stub) == 0)
        (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    unsigned sockets = 0;
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in peer = {0};
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0 || peer.sin_family != AF_INET)
            continue;
        sockets++;
        ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    }
    ck_assert_uint_eq(sockets, 1);
    f.ex->ops->stop(f.ex, &d.run, STOP_KILL);
    delivery_wait(&f, &d);
    fixture_stop(&f);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook faults");
    TCase *tc = tcase_create("answers");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, a_misbehaving_server_leads_to_the_outcome_of_the_table, 0, HOSTILE);
    tcase_add_test(tc, a_body_behind_204_is_not_taken_for_the_next_answer);
    tcase_add_test(tc, a_kept_connection_that_dies_is_replaced_under_the_same_id);
    suite_add_tcase(s, tc);

    tc = tcase_create("bounds");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_huge_body_is_cut_and_only_its_head_kept);
    tcase_add_test(tc, a_body_within_the_bound_is_read_and_the_connection_kept);
    tcase_add_test(tc, nothing_is_captured_when_nothing_is_asked_for);
    tcase_add_test(tc, endless_headers_are_given_up);
    tcase_add_test(tc, a_redirect_loop_is_one_request);
    suite_add_tcase(s, tc);

    tc = tcase_create("no connection");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_refused_connection_is_retried);
    tcase_add_test(tc, a_name_that_does_not_exist_is_retried);
    tcase_add_test(tc, a_connection_that_hangs_ends_by_the_connect_timeout);
    suite_add_tcase(s, tc);

    tc = tcase_create("deadlines");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, the_timeout_ends_an_attempt, 0, SLOW);
    tcase_add_test(tc, fifty_timeouts_are_all_reported);
    suite_add_tcase(s, tc);

    tc = tcase_create("stopping");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, a_shutdown_lets_a_transfer_finish, 0, 2);
    tcase_add_loop_test(tc, a_kill_drops_the_transfer_and_releases_the_job, 0, 2);
    tcase_add_test(tc, a_kill_after_the_status_keeps_what_was_answered);
    suite_add_tcase(s, tc);

    tc = tcase_create("descriptors");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, two_thousand_requests_leak_no_descriptor);
    tcase_add_test(tc, sockets_are_closed_on_exec);
    suite_add_tcase(s, tc);
    return s;
}
