/* check_handler.c - what a handler is told of its job, the ends of a run, and the discard executor
 * on a real loop. */
#include "ck_main.h"

#include <stdlib.h>
#include <string.h>

#include "core/discard.h"

static void expect_key(int64_t id, int64_t created_at_us, const char *expected)
{
    const struct job job = {.id = id, .created_at_us = created_at_us};
    char key[JOB_IDEMPOTENCY_KEY_SIZE];
    job_idempotency_key(&job, key);
    ck_assert_str_eq(key, expected);
}

START_TEST(an_idempotency_key_is_the_id_and_the_time_in_base_36)
{
    expect_key(1, 0, "1-0");
    expect_key(42, 35, "42-z");
    expect_key(42, 36, "42-10");
    expect_key(7, INT64_C(1767323045678901), "7-hegozygv1x");
    expect_key(INT64_MAX, INT64_MAX, "9223372036854775807-1y2p0ij32e8e7");
}
END_TEST

START_TEST(an_idempotency_key_has_no_dot_and_fits_for_any_numbers)
{
    const struct job job = {.id = INT64_MIN, .created_at_us = INT64_MIN};
    char key[JOB_IDEMPOTENCY_KEY_SIZE];
    job_idempotency_key(&job, key);
    ck_assert_uint_lt(strlen(key), JOB_IDEMPOTENCY_KEY_SIZE - 1);
    ck_assert_ptr_null(strchr(key, '.'));
}
END_TEST

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static const struct {
    const char *headers;
    const char *expected;
} traceparents[] = {
    {NULL, ""},
    {"{}", ""},
    {"{\"traceparent\": \"" GOOD "\"}", GOOD},
    {"{\"traceparent\":\"" GOOD "\"}", GOOD},
    {"{\"a\": 1, \"b\": [\"traceparent\", {}], \"traceparent\" : \"" GOOD "\", \"z\": null}", GOOD},
    {"{\"note\": \"\\\"traceparent\\\": \\\"" GOOD "\\\"\"}", ""},
    {"{\"inner\": {\"traceparent\": \"" GOOD "\"}}", ""},
    {"{\"x\": \"traceparent\", \"y\": \"" GOOD "\"}", ""},
    {"{\"xtraceparent\": \"" GOOD "\"}", ""},
    {"{\"traceparent\": 1}", ""},
    {"{\"traceparent\": null, \"y\": \"" GOOD "\"}", ""},
    {"{\"traceparent\": \"\"}", ""},
    {"{\"traceparent\": \"" GOOD "0\"}", ""},
    {"{\"traceparent\": \"" GOOD "\\n\"}", ""},
    {"{\"traceparent\": \"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}", ""},
    {"{\"traceparent\": \"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01\"}", ""},
    {"{\"traceparent\": \"00-00000000000000000000000000000000-00f067aa0ba902b7-01\"}", ""},
    {"{\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01\"}", ""},
    {"{\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x\"}", ""},
    {"{\"traceparent\": \"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}", ""},
    {"{\"traceparent\": \"" GOOD, ""},
    {"{\"traceparent\": \"", ""},
    {"{\"traceparent", ""},
    {"{\"traceparent\\", ""},
};
enum { TRACEPARENTS = sizeof traceparents / sizeof traceparents[0] };

START_TEST(a_well_formed_traceparent_is_found_and_no_other)
{
    /* In an exact allocation, so that a sanitizer sees a read behind the end. */
    char *headers = traceparents[_i].headers == NULL ? NULL : strdup(traceparents[_i].headers);
    const struct job job = {.headers = headers};
    char text[JOB_TRACEPARENT_SIZE];
    job_traceparent(&job, text);
    ck_assert_str_eq(text, traceparents[_i].expected);
    free(headers);
}
END_TEST

/* An executor that refuses or accepts, as told. */
static int start_result;

static int start_as_told(struct executor *ex, struct run *run, struct outcome *ret_outcome)
{
    run->executor_data = ex;
    if (start_result != 0)
        outcome_set(ret_outcome, OUTCOME_RELEASE, "refused");
    return start_result;
}

static struct outcome last_outcome;
static unsigned done_count;

static void on_done(struct run *run, const struct outcome *outcome)
{
    ck_assert_ptr_null(run->executor_data);
    last_outcome = *outcome;
    done_count++;
}

START_TEST(a_run_is_timed_from_its_start_to_its_end)
{
    static const struct executor_ops ops = {.name = "told", .start = start_as_told};
    struct executor ex = {.ops = &ops};
    struct run run = {.executor = &ex, .on_done = on_done};
    struct outcome outcome;
    start_result = 0;
    ck_assert_int_eq(run_start(&run, &outcome), 0);
    ck_assert_uint_gt(run.started_unix_us, UINT64_C(1600000000) * 1000000);
    run.started_mono_ms -= 1500; /* as if it had begun earlier */
    outcome_init(&outcome);
    run_finish(&run, &outcome);
    ck_assert_uint_eq(done_count, 1);
    ck_assert_uint_ge(last_outcome.duration_ms, 1500);
    ck_assert_uint_eq(last_outcome.started_us, run.started_unix_us);
}
END_TEST

START_TEST(a_run_that_is_refused_leaves_its_outcome_and_nothing_else)
{
    static const struct executor_ops ops = {.name = "told", .start = start_as_told};
    struct executor ex = {.ops = &ops};
    struct run run = {.executor = &ex, .on_done = on_done};
    struct outcome outcome;
    start_result = OB_ESPAWN;
    ck_assert_int_eq(run_start(&run, &outcome), OB_ESPAWN);
    ck_assert_int_eq(outcome.kind, OUTCOME_RELEASE);
    ck_assert_str_eq(outcome.reason, "refused");
    ck_assert_ptr_null(run.executor_data);
    ck_assert_uint_eq(done_count, 0);
}
END_TEST

enum { RUNS = 1000 };
static struct run runs[RUNS];
static size_t order[2 * RUNS + 1];
static bool is_closed;

static void on_discarded(struct run *run, const struct outcome *outcome)
{
    ck_assert_int_eq(outcome->kind, OUTCOME_DONE);
    ck_assert_ptr_null(run->executor_data);
    order[done_count++] = (size_t)(run - runs);
    if (done_count <= RUNS) { /* again, once: as jobs that were claimed ahead */
        struct outcome ignored;
        ck_assert_int_eq(run_start(run, &ignored), 0);
    }
}

static void on_closed(struct executor *ex)
{
    ck_assert_ptr_nonnull(ex);
    is_closed = true;
}

START_TEST(discarded_jobs_are_done_on_the_next_turn_in_order)
{
    uv_loop_t loop;
    ck_assert_int_eq(uv_loop_init(&loop), 0);
    struct executor *ex = NULL;
    ck_assert_int_eq(discard_executor_new(&loop, &ex), 0);
    for (size_t i = 0; i < RUNS; i++) {
        struct outcome outcome;
        runs[i] = (struct run){.executor = ex, .on_done = on_discarded};
        ck_assert_int_eq(run_start(&runs[i], &outcome), 0);
        ex->ops->stop(ex, &runs[i], STOP_KILL); /* changes nothing: it is as good as done */
    }
    ck_assert_uint_eq(done_count, 0); /* never from inside start() */
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    ck_assert_uint_eq(done_count, 2 * RUNS); /* with what was started meanwhile */
    (void)uv_run(&loop, UV_RUN_DEFAULT);     /* returns: nothing is active once all is done */
    ck_assert_uint_eq(done_count, 2 * RUNS);
    for (size_t i = 0; i < 2 * RUNS; i++)
        ck_assert_uint_eq(order[i], i % RUNS);
    ex->ops->close(ex, on_closed);
    ck_assert(!is_closed);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert(is_closed);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("handler");
    TCase *tc = tcase_create("what a handler is told");
    tcase_add_test(tc, an_idempotency_key_is_the_id_and_the_time_in_base_36);
    tcase_add_test(tc, an_idempotency_key_has_no_dot_and_fits_for_any_numbers);
    tcase_add_loop_test(tc, a_well_formed_traceparent_is_found_and_no_other, 0, TRACEPARENTS);
    suite_add_tcase(s, tc);

    tc = tcase_create("runs");
    tcase_add_test(tc, a_run_is_timed_from_its_start_to_its_end);
    tcase_add_test(tc, a_run_that_is_refused_leaves_its_outcome_and_nothing_else);
    suite_add_tcase(s, tc);

    tc = tcase_create("discard");
    tcase_add_test(tc, discarded_jobs_are_done_on_the_next_turn_in_order);
    suite_add_tcase(s, tc);
    return s;
}
