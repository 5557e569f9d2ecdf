/* check_webhook_holds.c - endpoints that are held: the real executor alone, then the real daemon.
 * The oracle is what the server saw: nothing while it is held, one probe, no attempt counted for
 * those that waited. */
#include <limits.h>
#include <stdlib.h>

#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "webhook_fixture.h"

/* ---- the executor ---- */

static unsigned room(struct fixture *f, uint64_t *ret_until_ms)
{
    *ret_until_ms = 0;
    return f->ex->ops->room(f->ex, &f->task, clock_mono_ms(), ret_until_ms);
}

static void expect_refused(struct fixture *f, const char *why)
{
    struct delivery d;
    struct outcome refused;
    size_t before = httpstub_requests(&f->stub);
    unsigned running = fixture_stats(f).running;
    delivery_init(f, &d, example_body, strlen(example_body));
    ck_assert_int_eq(run_start(&d.run, &refused), OB_EBUSY);
    ck_assert_int_eq(refused.kind, OUTCOME_RELEASE);
    ck_assert_uint_gt(refused.delay_ms, 0);
    ck_assert_msg(strstr(refused.reason, why) != NULL, "%s", refused.reason);
    ck_assert(!refused.misconfigured);
    ck_assert_uint_eq(httpstub_requests(&f->stub), before);
    ck_assert_uint_eq(fixture_stats(f).running, running);
}

static const struct {
    struct httpstub_answer answer;
    uint64_t held_ms; /* at most; 0: it is not held */
} answers[] = {
    {{.status = 429, .headers = "Retry-After: 60\r\n"}, 60000},
    {{.status = 503, .headers = "Retry-After: 60\r\n"}, 60000},
    {{.status = 500, .headers = "Retry-After: 60\r\n"}, 60000},
    {{.status = 404, .headers = "Retry-After: 60\r\n"}, 60000},
    {{.status = 302, .headers = "Retry-After: 60\r\n"}, 60000},
    {{.status = 429, .headers = "Retry-After: 999999\r\n"}, 90000}, /* the task's maximum */
    {{.status = 429, .headers = "Retry-After: soon\r\n"}, 7000},    /* its first backoff */
    {{.status = 429}, 7000},
    {{.status = 503}, 7000},
    {{.status = 503, .headers = "Retry-After: 0\r\n"}, 0},
    {{.status = 503, .headers = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n"}, 0},
    {{.status = 200, .headers = "Retry-After: 60\r\n"}, 0},
    {{.status = 410, .headers = "Retry-After: 60\r\n"}, 0},
    {{.status = 500}, 0},
    {{.status = 404}, 0},
    {{.status = 408}, 0},
    {{.status = 0}, 0},
};
enum { ANSWERS = sizeof answers / sizeof answers[0] };

START_TEST(an_answer_holds_its_endpoint_or_not)
{
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, &answers[_i].answer, 1);
    f.task.backoff.base_ms = 7000;
    f.task.webhook.retry_after_max_ms = 90000;
    ck_assert_uint_eq(room(&f, &until), UINT_MAX);
    const struct outcome *o = deliver(&f);
    ck_assert_uint_eq(o->endpoint != NULL, answers[_i].held_ms > 0);
    uint64_t now = clock_mono_ms();
    if (answers[_i].held_ms == 0) {
        ck_assert_uint_eq(room(&f, &until), UINT_MAX);
    } else {
        ck_assert_uint_eq(room(&f, &until), 0);
        ck_assert_uint_gt(until, now);
        ck_assert_uint_le(until, now + answers[_i].held_ms);
        ck_assert_uint_gt(until, now + answers[_i].held_ms - 5000);
        expect_refused(&f, "asked to wait");
    }
    fixture_stop(&f);
}
END_TEST

/* The endpoint is scheme, host and port: another path waits too, another port does not. */
START_TEST(a_hold_is_of_the_endpoint_and_not_of_the_task)
{
    static const struct httpstub_answer busy = {.status = 429, .headers = "Retry-After: 60\r\n"};
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, &busy, 1);
    struct task_config other = f.task;
    char url[128];
    other.webhook.url = url;
    (void)deliver(&f);
    (void)snprintf(url, sizeof url, "HTTP://127.0.0.1:%d/another?path", f.stub.port);
    ck_assert_uint_eq(f.ex->ops->room(f.ex, &other, clock_mono_ms(), &until), 0);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/hook", f.stub.port ^ 1);
    ck_assert_uint_eq(f.ex->ops->room(f.ex, &other, clock_mono_ms(), &until), UINT_MAX);
    (void)snprintf(url, sizeof url, "https://127.0.0.1:%d/hook", f.stub.port);
    ck_assert_uint_eq(f.ex->ops->room(f.ex, &other, clock_mono_ms(), &until), UINT_MAX);
    fixture_stop(&f);
}
END_TEST

/* A reload is no pardon, unless nobody names the endpoint any more. */
START_TEST(a_hold_survives_a_reload_that_keeps_the_endpoint)
{
    static const struct httpstub_answer busy = {.status = 429, .headers = "Retry-After: 60\r\n"};
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, &busy, 1);
    (void)deliver(&f);
    fixture_reconfigure(&f);
    ck_assert_uint_eq(room(&f, &until), 0);
    const struct config none = {0};
    f.ex->ops->configure(f.ex, &none);
    ck_assert_uint_eq(room(&f, &until), UINT_MAX);
    fixture_stop(&f);
}
END_TEST

START_TEST(too_many_failures_open_the_breaker_and_one_probe_closes_it)
{
    static const struct httpstub_answer script[] = {{.status = 0},
                                                    {.status = 500},
                                                    {.status = 502},
                                                    {.status = 500, .delay_ms = 200},
                                                    {.status = 404, .delay_ms = 200},
                                                    {.status = 200}};
    static struct delivery probe;
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, script, 6);
    f.task.webhook.breaker = (struct breaker_config){.is_on = true,
                                                     .window_ms = 60000,
                                                     .min = 3,
                                                     .failure_permille = 1000,
                                                     .open_ms = 150,
                                                     .open_max_ms = 1000};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(deliver(&f)->kind, OUTCOME_RETRY);
    expect_refused(&f, "too many failures");
    for (int i = 0; i < 2; i++) { /* the first probe fails, the second is answered */
        ck_assert(wait_until(room(&f, &until) == 1, 20000));
        delivery_start(&f, &probe);
        ck_assert_uint_eq(room(&f, &until), 0);
        ck_assert_uint_eq(until, UINT64_MAX);
        expect_refused(&f, "one request is trying");
        delivery_wait(&f, &probe);
        ck_assert_ptr_nonnull(probe.outcome.endpoint);
        ck_assert_uint_eq(probe.outcome.endpoint_held_ms > 0, i == 0);
    }
    ck_assert_uint_eq(room(&f, &until), UINT_MAX);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(httpstub_requests(&f.stub), 6);
    ck_assert_uint_eq(fixture_stats(&f).holds, 2);
    fixture_stop(&f);
}
END_TEST

/* A stopping dispatcher drops the probe: that says nothing of the endpoint. */
START_TEST(a_dropped_probe_leaves_room_for_another)
{
    static const struct httpstub_answer script[] = {{.status = 500},
                                                    {.status = 200, .delay_ms = 60000}};
    static struct delivery probe;
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, script, 2);
    f.task.webhook.breaker = (struct breaker_config){.is_on = true,
                                                     .window_ms = 60000,
                                                     .min = 1,
                                                     .failure_permille = 1000,
                                                     .open_ms = 1,
                                                     .open_max_ms = 1};
    (void)deliver(&f);
    ck_assert(wait_until(room(&f, &until) == 1, 20000));
    delivery_start(&f, &probe);
    f.ex->ops->stop(f.ex, &probe.run, _i == 0 ? STOP_KILL : STOP_CANCEL);
    delivery_wait(&f, &probe);
    ck_assert_int_eq(probe.outcome.kind, OUTCOME_RELEASE);
    ck_assert_uint_eq(room(&f, &until), 1);
    fixture_stop(&f);
}
END_TEST

START_TEST(a_rate_leaves_room_for_as_many_as_it_says)
{
    static const struct httpstub_answer ok = {.status = 200};
    struct fixture f;
    uint64_t until = 0;
    fixture_start(&f, &ok, 1);
    f.task.webhook.rate = (struct rate_config){.count = 1, .per_ms = 3600000};
    ck_assert_uint_eq(room(&f, &until), 1);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(room(&f, &until), 0);
    ck_assert_uint_gt(until, clock_mono_ms() + 3000000);
    expect_refused(&f, "rate");
    fixture_stop(&f);
}
END_TEST

START_TEST(a_task_that_is_gone_is_dead_and_says_that_it_pauses)
{
    static const struct httpstub_answer gone = {.status = 410};
    struct outcome o = deliver_to(&gone);
    ck_assert_int_eq(o.kind, OUTCOME_DEAD);
    ck_assert(o.pauses_task);
    static const struct httpstub_answer refused = {.status = 404};
    o = deliver_to(&refused);
    ck_assert(!o.pauses_task);
}
END_TEST

/* ---- the daemon ---- */

static struct daemon d;

static void start(const char *config)
{
    daemon_start_ready(&d, (const char *const[]){"--config", config, NULL}, NULL);
}

static long number_of(const struct httpstub *s, size_t i, const char *name)
{
    const char *text = httpstub_header(s, i, name);
    ck_assert_ptr_nonnull(text);
    return strtol(text, NULL, 10);
}

/* Ten jobs, and the first answer asks for two seconds: nobody knocks meanwhile, and only the one
 * that was answered has used up an attempt. */
START_TEST(jobs_of_a_held_endpoint_wait_and_lose_no_attempt)
{
    static const struct httpstub_answer script[] = {
        {.status = 429, .headers = "Retry-After: 2\r\n"}, {.status = 204}};
    struct httpstub stub;
    httpstub_start(&stub, script, 2);
    start(e2e_config("tasks:\n"
                     "  a: {webhook: \"http://127.0.0.1:%d/a\", concurrency: 1, backoff: 0}\n"
                     "  b: {webhook: \"http://127.0.0.1:%d/b\", concurrency: 1, backoff: 0}\n",
                     stub.port, stub.port));
    (void)enqueue_one("a", "{}");
    daemon_expect_log(&d, "event=endpoint_held", E2E_WAIT_MS);
    enqueue_jobs("a", 5);
    enqueue_jobs("b", 5);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 12);
    ck_assert_uint_eq(daemon_log_count(&d, "event=endpoint_held"), 1);
    long answered = number_of(&stub, 0, "webhook-timestamp");
    long repeated = 0;
    for (size_t i = 1; i < 12; i++) {
        ck_assert_int_ge(number_of(&stub, i, "webhook-timestamp"), answered + 1);
        repeated += number_of(&stub, i, "webhook-attempt") - 1;
    }
    ck_assert_int_eq(repeated, 1);
    httpstub_stop(&stub);
}
END_TEST

/* All ten are claimed and on their way at once; the answers of the others still count. */
START_TEST(a_held_endpoint_with_many_claimed_is_released_and_used_again)
{
    static const struct httpstub_answer script[] = {
        {.status = 503, .headers = "Retry-After: 1\r\n"}, {.status = 204, .delay_ms = 50}};
    struct httpstub stub;
    httpstub_start(&stub, script, 2);
    start(e2e_config("tasks:\n  a: {webhook: \"http://127.0.0.1:%d/a\", concurrency: 5, backoff: "
                     "0}\n",
                     stub.port));
    enqueue_jobs("a", 40);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 41);
    httpstub_stop(&stub);
}
END_TEST

/* Four failures open it; the first probe fails, the second is answered; twenty jobs, one at a time,
 * are five requests more than there are jobs. */
START_TEST(a_broken_endpoint_is_tried_by_one_request_at_a_time)
{
    static const struct httpstub_answer script[] = {{.status = 500}, {.status = 500},
                                                    {.status = 500}, {.status = 500},
                                                    {.status = 500}, {.status = 204}};
    struct httpstub stub;
    httpstub_start(&stub, script, 6);
    start(e2e_config("tasks:\n  a: {webhook: \"http://127.0.0.1:%d/a\", concurrency: 1, backoff: "
                     "0, breaker: {min: 4, open: 300ms}}\n",
                     stub.port));
    enqueue_jobs("a", 20);
    wait_until_all_done();
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 25);
    ck_assert_uint_eq(daemon_log_count(&d, "event=endpoint_held"), 2);
    ck_assert_uint_eq(daemon_log_count(&d, "event=endpoint_back"), 1);
    httpstub_stop(&stub);
}
END_TEST

START_TEST(a_rate_is_kept_without_claiming_in_vain)
{
    static const struct httpstub_answer ok = {.status = 204};
    struct httpstub stub;
    httpstub_start(&stub, &ok, 1);
    start(e2e_config("log_level: debug\n"
                     "tasks:\n  a: {webhook: \"http://127.0.0.1:%d/a\", rate: 20/s}\n",
                     stub.port));
    uint64_t began_ms = wait_now_ms();
    enqueue_jobs("a", 30);
    wait_until_all_done();
    ck_assert_uint_ge(wait_now_ms() - began_ms, 1000); /* never sooner */
    daemon_stop(&d);
    ck_assert_uint_eq(httpstub_requests(&stub), 30);
    ck_assert_uint_eq(daemon_log_count(&d, "event=released"), 0);
    httpstub_stop(&stub);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook holds");
    TCase *tc = tcase_create("executor");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, an_answer_holds_its_endpoint_or_not, 0, ANSWERS);
    tcase_add_test(tc, a_hold_is_of_the_endpoint_and_not_of_the_task);
    tcase_add_test(tc, a_hold_survives_a_reload_that_keeps_the_endpoint);
    tcase_add_test(tc, too_many_failures_open_the_breaker_and_one_probe_closes_it);
    tcase_add_loop_test(tc, a_dropped_probe_leaves_room_for_another, 0, 2);
    tcase_add_test(tc, a_rate_leaves_room_for_as_many_as_it_says);
    tcase_add_test(tc, a_task_that_is_gone_is_dead_and_says_that_it_pauses);
    suite_add_tcase(s, tc);

    tc = tcase_create("daemon");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, jobs_of_a_held_endpoint_wait_and_lose_no_attempt);
    tcase_add_test(tc, a_held_endpoint_with_many_claimed_is_released_and_used_again);
    tcase_add_test(tc, a_broken_endpoint_is_tried_by_one_request_at_a_time);
    tcase_add_test(tc, a_rate_is_kept_without_claiming_in_vain);
    suite_add_tcase(s, tc);
    return s;
}
