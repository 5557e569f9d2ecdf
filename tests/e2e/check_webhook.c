/* check_webhook.c - the real webhook executor against a scripted server: what is sent, what each
 * answer leads to, which connections are used. */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include <outbox/outbox.h>

#include "webhook_fixture.h"

#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static const struct httpstub_answer ok = {.status = 200};

/* ---- The request ---- */

START_TEST(a_request_is_exactly_what_is_documented)
{
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &ok, 1);
    delivery_start(&f, &d);
    uint64_t started_s = d.run.started_unix_us / 1000000U;
    delivery_wait(&f, &d);
    char expected[1024];
    (void)snprintf(expected, sizeof expected,
                   "POST /hook HTTP/1.1\r\n"
                   "Host: 127.0.0.1:%d\r\n"
                   "User-Agent: pgoutbox/%d.%d.%d\r\n"
                   "Accept: */*\r\n"
                   "Content-Type: application/json\r\n"
                   "webhook-id: 42-hegozygv1x\r\n"
                   "webhook-timestamp: %" PRIu64 "\r\n"
                   "webhook-attempt: 3\r\n"
                   "Content-Length: %zu\r\n"
                   "\r\n"
                   "%s",
                   f.stub.port, OUTBOX_VERSION_MAJOR, OUTBOX_VERSION_MINOR, OUTBOX_VERSION_PATCH,
                   started_s, strlen(example_body), example_body);
    ck_assert_str_eq(httpstub_request(&f.stub, 0), expected);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_DONE);
    fixture_stop(&f);
}
END_TEST

START_TEST(configured_headers_method_and_content_type_are_sent)
{
    struct fixture f;
    char authorization[] = "Authorization: Bearer secret";
    char kind[] = "X-Kind: order; type=\"new\"";
    char *headers[] = {authorization, kind, NULL};
    char method[] = "PUT";
    char content_type[] = "application/cloudevents+json";
    fixture_start(&f, &ok, 1);
    f.task.webhook.headers = (struct strings){.items = headers, .count = 2};
    f.task.webhook.method = method;
    f.task.webhook.content_type = content_type;
    f.task.webhook.idempotency_key = true;
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_int_eq(strncmp(httpstub_request(&f.stub, 0), "PUT /hook HTTP/1.1\r\n", 20), 0);
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "Authorization"), "Bearer secret");
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "X-Kind"), "order; type=\"new\"");
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "Content-Type"), content_type);
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "Idempotency-Key"), "\"42-hegozygv1x\"");
    ck_assert_str_eq(httpstub_body(&f.stub, 0), example_body);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_jobs_traceparent_is_passed_on_and_nothing_else_of_its_headers)
{
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &ok, 1);
    delivery_init(&f, &d, "\x80", 1);
    d.job.headers = "{\"traceparent\": \"" TRACEPARENT "\", \"other\": \"not sent\"}";
    d.run.content_type = "application/msgpack";
    delivery_go(&d);
    delivery_wait(&f, &d);
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "traceparent"), TRACEPARENT);
    ck_assert_ptr_null(httpstub_header(&f.stub, 0, "other"));
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "Content-Type"), "application/msgpack");
    fixture_stop(&f);
}
END_TEST

/* Large, with every byte value: over libcurl's threshold for "Expect: 100-continue". */
START_TEST(a_body_arrives_byte_for_byte_and_without_expect)
{
    static const size_t sizes[] = {0, 1, 65536, 3 * 1024 * 1024 + 1};
    struct fixture f;
    struct delivery d;
    size_t len = sizes[_i];
    char *body = malloc(len + 1);
    ck_assert_ptr_nonnull(body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(unsigned char)((i * 7 + i / 251) % 256);
    fixture_start(&f, &ok, 1);
    delivery_init(&f, &d, body, len);
    delivery_go(&d);
    delivery_wait(&f, &d);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_DONE);
    char expected[32];
    (void)snprintf(expected, sizeof expected, "%zu", len);
    ck_assert_str_eq(httpstub_header(&f.stub, 0, "Content-Length"), expected);
    ck_assert_ptr_null(httpstub_header(&f.stub, 0, "Expect"));
    ck_assert_int_eq(memcmp(httpstub_body(&f.stub, 0), body, len), 0);
    fixture_stop(&f);
    free(body);
}
END_TEST

/* ---- The answer ---- */

/* One loop over every status a final answer can have; the answers are scripted in order. */
START_TEST(every_status_leads_to_its_outcome)
{
    enum { FIRST = 200, LAST = 599 };
    static struct httpstub_answer answers[LAST - FIRST + 1];
    struct fixture f;
    for (int status = FIRST; status <= LAST; status++)
        answers[status - FIRST] = (struct httpstub_answer){.status = status};
    fixture_start(&f, answers, LAST - FIRST + 1);
    for (int status = FIRST; status <= LAST; status++) {
        const struct outcome *o = deliver(&f);
        enum outcome_kind kind = OUTCOME_RETRY;
        if (status <= 299)
            kind = OUTCOME_DONE;
        if (status == 410)
            kind = OUTCOME_DEAD;
        bool has_floor = status == 408 || status == 425 || status == 502 || status == 504;
        ck_assert_int_eq(o->http_status, status);
        ck_assert_int_eq(o->kind, kind);
        ck_assert_uint_eq(o->delay_ms, has_floor ? 60000 : 0);
    }
    fixture_stop(&f);
}
END_TEST

START_TEST(the_head_of_a_response_is_kept)
{
    static const struct httpstub_answer refusal = {.status = 500, .body = "no such order"};
    struct fixture f;
    fixture_start(&f, &refusal, 1);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_str_eq(o->reason, "HTTP 500");
    ck_assert_str_eq(o->head, "no such order");
    ck_assert_uint_eq(o->output_bytes, strlen("no such order"));
    ck_assert_uint_gt(o->started_us, 0);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_redirect_is_recorded_and_not_followed)
{
    static const int statuses[] = {301, 302, 303, 307, 308};
    struct httpstub_answer answers[] = {
        {.status = statuses[_i], .headers = "Location: /elsewhere\r\n"}, {.status = 200}};
    struct fixture f;
    fixture_start(&f, answers, 2);
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, statuses[_i]);
    ck_assert_ptr_nonnull(strstr(o->reason, "redirect"));
    ck_assert_ptr_nonnull(strstr(o->reason, "/elsewhere"));
    ck_assert_uint_eq(httpstub_requests(&f.stub), 1);
    fixture_stop(&f);
}
END_TEST

static const struct {
    int status;
    const char *headers;
    uint64_t delay_ms;
} waits[] = {
    {429, "Retry-After: 120\r\n", 120000},
    {503, "retry-after: 0.5\r\n", 500},
    {500, "RETRY-AFTER:7\r\n", 7000},
    {404, "Retry-After: 3\r\n", 3000},
    {302, "Retry-After: 3\r\n", 3000},
    {502, "Retry-After: 5\r\n", 60000},
    {504, "Retry-After: 90\r\n", 90000},
    {429, "Retry-After: 99999999\r\n", 24 * 3600 * 1000},
    {429, "Retry-After: 5\r\nRetry-After: 50\r\n", 5000},
    {429, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 0},
    {429, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", 24 * 3600 * 1000},
    {429, "Retry-After: soon\r\n", 0},
    {429, "Retry-After: -5\r\n", 0},
    {429, "Retry-After:\r\n", 0},
    {410, "Retry-After: 3\r\n", 0},
    {200, "Retry-After: 3\r\n", 0},
};
enum { WAITS = sizeof waits / sizeof waits[0] };

START_TEST(retry_after_is_heeded_in_every_form)
{
    struct outcome o = deliver_to(
        &(struct httpstub_answer){.status = waits[_i].status, .headers = waits[_i].headers});
    ck_assert_uint_eq(o.delay_ms, waits[_i].delay_ms);
    ck_assert_int_eq(o.http_status, waits[_i].status);
}
END_TEST

START_TEST(a_date_ahead_is_waited_for)
{
    char header[96];
    time_t then = time(NULL) + 600;
    struct tm tm;
    (void)gmtime_r(&then, &tm);
    (void)strftime(header, sizeof header, "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
    struct outcome o = deliver_to(&(struct httpstub_answer){.status = 503, .headers = header});
    ck_assert_uint_gt(o.delay_ms, 0);
    ck_assert_uint_le(o.delay_ms, 600000);
}
END_TEST

START_TEST(the_operators_maximum_bounds_retry_after)
{
    static const struct httpstub_answer busy = {.status = 429, .headers = "Retry-After: 3600\r\n"};
    struct fixture f;
    fixture_start(&f, &busy, 1);
    f.task.webhook.retry_after_max_ms = 60000;
    ck_assert_uint_eq(deliver(&f)->delay_ms, 60000);
    fixture_stop(&f);
}
END_TEST

/* ---- Connections ---- */

START_TEST(one_after_the_other_share_a_connection)
{
    struct fixture f;
    fixture_start(&f, &ok, 1);
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(httpstub_connections(&f.stub), 1);
    ck_assert_uint_eq(httpstub_requests(&f.stub), 20);
    ck_assert_uint_eq(fixture_stats(&f).connections, 1);
    ck_assert_uint_eq(fixture_stats(&f).requests, 20);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_connection_that_the_server_ends_is_replaced)
{
    static const struct httpstub_answer closing = {.status = 200, .close_after = 1};
    struct fixture f;
    fixture_start(&f, &closing, 1);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(httpstub_connections(&f.stub), 5);
    ck_assert_uint_eq(fixture_stats(&f).connections, 5);
    fixture_stop(&f);
}
END_TEST

enum { MANY = 50 };

/* Every answer takes a while, so that all are under way together; then once more over the kept
 * ones. */
START_TEST(fifty_at_once_use_fifty_connections_and_keep_them)
{
    static const struct httpstub_answer slow = {.status = 200, .body = "ok", .delay_ms = 300};
    static struct delivery deliveries[MANY];
    struct fixture f;
    fixture_start(&f, &slow, 1);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < MANY; i++)
            delivery_start(&f, &deliveries[i]);
        ck_assert_uint_eq(fixture_stats(&f).running, MANY);
        for (size_t i = 0; i < MANY; i++) {
            delivery_wait(&f, &deliveries[i]);
            ck_assert_int_eq(deliveries[i].outcome.kind, OUTCOME_DONE);
            ck_assert_str_eq(deliveries[i].head_text, "ok");
        }
        ck_assert_uint_eq(fixture_stats(&f).running, 0);
    }
    ck_assert_uint_eq(httpstub_requests(&f.stub), 2 * MANY);
    ck_assert_uint_eq(httpstub_connections(&f.stub), MANY);
    ck_assert_uint_eq(fixture_stats(&f).connections, MANY);
    fixture_stop(&f);
}
END_TEST

/* The pool was made for one at a time: it grows with the configuration, or each request would close
 * another's connection. */
START_TEST(a_reload_makes_the_pool_larger)
{
    enum { PORTS = 30 };
    static struct delivery deliveries[2][PORTS];
    static struct httpstub stubs[PORTS];
    static struct task_config tasks[PORTS];
    static char urls[PORTS][64];
    struct fixture f;
    fixture_start(&f, &ok, 1);
    for (int i = 0; i < PORTS; i++) {
        httpstub_start(&stubs[i], &ok, 1);
        (void)snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%d/", stubs[i].port);
        tasks[i] = f.task;
        tasks[i].concurrency = 1;
        tasks[i].webhook.url = urls[i];
    }
    const struct config larger = {.tasks = tasks, .tasks_count = PORTS};
    f.ex->ops->configure(f.ex, &larger);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < PORTS; i++) {
            struct delivery *d = &deliveries[round][i];
            delivery_init(&f, d, example_body, strlen(example_body));
            d->run.task = &tasks[i];
            delivery_go(d);
            delivery_wait(&f, d);
            ck_assert_int_eq(d->outcome.kind, OUTCOME_DONE);
        }
    }
    ck_assert_uint_eq(fixture_stats(&f).connections, PORTS);
    fixture_close(&f);
    for (int i = 0; i < PORTS; i++)
        httpstub_stop(&stubs[i]);
    httpstub_stop(&f.stub);
}
END_TEST

/* Each run starts the next from its on_done, as core does; the last closes the executor there. */
static struct fixture *chain_fixture;
static unsigned chain_left;

static void chain_on_done(struct run *run, const struct outcome *outcome)
{
    struct outcome refused;
    ck_assert_int_eq(outcome->kind, OUTCOME_DONE);
    chain_left--;
    if (chain_left > 0)
        ck_assert_int_eq(run_start(run, &refused), 0);
    else
        chain_fixture->ex->ops->close(chain_fixture->ex, fixture_on_closed);
}

START_TEST(a_finished_run_may_start_the_next_and_close_the_executor)
{
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &ok, 1);
    chain_fixture = &f;
    chain_left = 20;
    delivery_init(&f, &d, example_body, strlen(example_body));
    d.run.on_done = chain_on_done;
    delivery_go(&d);
    (void)uv_run(&f.loop, UV_RUN_DEFAULT); /* returns when nothing is left at all */
    ck_assert_uint_eq(chain_left, 0);
    ck_assert(f.is_closed);
    ck_assert_int_eq(uv_loop_close(&f.loop), 0);
    ck_assert_uint_eq(httpstub_requests(&f.stub), 20);
    ck_assert_uint_eq(httpstub_connections(&f.stub), 1);
    httpstub_stop(&f.stub);
}
END_TEST

START_TEST(an_executor_that_never_ran_closes)
{
    struct fixture f;
    fixture_defaults(&f);
    fixture_open(&f, 0);
    fixture_close(&f);
    fixture_open(&f, 1); /* and another one in the same process works */
    fixture_close(&f);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook");
    TCase *tc = tcase_create("request");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_request_is_exactly_what_is_documented);
    tcase_add_test(tc, configured_headers_method_and_content_type_are_sent);
    tcase_add_test(tc, a_jobs_traceparent_is_passed_on_and_nothing_else_of_its_headers);
    tcase_add_loop_test(tc, a_body_arrives_byte_for_byte_and_without_expect, 0, 4);
    suite_add_tcase(s, tc);

    tc = tcase_create("answer");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, every_status_leads_to_its_outcome);
    tcase_add_test(tc, the_head_of_a_response_is_kept);
    tcase_add_loop_test(tc, a_redirect_is_recorded_and_not_followed, 0, 5);
    tcase_add_loop_test(tc, retry_after_is_heeded_in_every_form, 0, WAITS);
    tcase_add_test(tc, a_date_ahead_is_waited_for);
    tcase_add_test(tc, the_operators_maximum_bounds_retry_after);
    suite_add_tcase(s, tc);

    tc = tcase_create("connections");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, one_after_the_other_share_a_connection);
    tcase_add_test(tc, a_connection_that_the_server_ends_is_replaced);
    tcase_add_test(tc, fifty_at_once_use_fifty_connections_and_keep_them);
    tcase_add_test(tc, a_reload_makes_the_pool_larger);
    tcase_add_test(tc, a_finished_run_may_start_the_next_and_close_the_executor);
    tcase_add_test(tc, an_executor_that_never_ran_closes);
    suite_add_tcase(s, tc);
    return s;
}
