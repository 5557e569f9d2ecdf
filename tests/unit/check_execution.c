/* check_execution.c - decisions about one job: dead without a run, its body, the delay before the
 * next attempt, its end by max_attempts, and what is kept of its output. The batch is a real result
 * of libpq's, made by hand. */
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "base/mem.h"
#include "ck_main.h"
#include "core/execution.h"
#include "core/lane.h"
#include "testconfig.h"

static struct config *config;
static struct batch *batch;
static struct claimed *claimed;

static void init(void)
{
    batch = ob_xcalloc(1, sizeof *batch + sizeof batch->jobs[0]);
    batch->result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    batch->refs = 1;
    batch->count = 1;
    claimed = &batch->jobs[0];
    claimed->job = (struct job){.id = 5, .claim = 1, .task = "mail", .attempt = 1};
}

static void deinit(void)
{
    ck_assert_uint_eq(batch->refs, 1); /* every execution has let go */
    batch_unref(batch);
    config_unref(config);
}

/* Of the task that the YAML calls mail. */
static struct execution *begin(const char *yaml)
{
    config_unref(config);
    config = testconfig_load(yaml);
    struct execution *e =
        execution_new(NULL, config, config_find_task(config, "mail"), batch, claimed);
    ck_assert_uint_eq(batch->refs, 2);
    ck_assert_uint_eq(config->refs, 2);
    return e;
}

static const char plain[] = "tasks:\n  mail: {discard: true, max_attempts: 3, max_lost: 2}\n";

static struct outcome failed(void)
{
    struct outcome o;
    outcome_init(&o);
    outcome_set(&o, OUTCOME_RETRY, "exit 3");
    o.exit_code = 3;
    return o;
}

/* ---- dead without a run ---- */

static const struct {
    int attempt, max_attempts, lost;
    bool expired;
    const char *reason; /* NULL: it runs */
} fates[] = {
    {1, 0, 0, false, NULL},
    {3, 0, 1, false, NULL},
    {4, 0, 1, false, "attempts exhausted (3), 1 of them ended without a result"},
    {4, 5, 1, false, NULL}, /* the job's own maximum wins */
    {2, 1, 0, false, "attempts exhausted (1), 0 of them ended without a result"},
    {3, 0, 2, false, "lost 2 times: each time its dispatcher or its process died before a result"},
    {1, 0, 0, true, "expired"},
    {4, 0, 9, true, "expired"},
};

START_TEST(job_that_must_not_run_is_dead_already)
{
    claimed->job.attempt = fates[_i].attempt;
    claimed->job.max_attempts = fates[_i].max_attempts;
    claimed->job.lost = fates[_i].lost;
    claimed->expired = fates[_i].expired;
    struct execution *e = begin(plain);
    ck_assert_int_eq(execution_is_dead_already(e, claimed), fates[_i].reason != NULL);
    if (fates[_i].reason != NULL) {
        ck_assert_int_eq(e->outcome.kind, OUTCOME_DEAD);
        ck_assert_str_eq(e->outcome.reason, fates[_i].reason);
        ck_assert(e->outcome.uncounted);
    }
    execution_free(e);
}
END_TEST

/* ---- the body ---- */

START_TEST(json_is_passed_as_it_is)
{
    claimed->job.payload = "{\"a\": 1}";
    claimed->job.payload_len = 8;
    struct execution *e = begin(plain);
    ck_assert_int_eq(execution_prepare_body(e), 0);
    ck_assert_ptr_eq(e->run.body, claimed->job.payload);
    ck_assert_uint_eq(e->run.body_len, 8);
    ck_assert_str_eq(e->run.content_type, "application/json");
    execution_free(e);
}
END_TEST

START_TEST(msgpack_becomes_json)
{
    claimed->job.payload = "\x81\xa1n\x07";
    claimed->job.payload_len = 4;
    claimed->job.encoding = PAYLOAD_MSGPACK;
    struct execution *e = begin(plain);
    ck_assert_int_eq(execution_prepare_body(e), 0);
    ck_assert_uint_eq(e->run.body_len, 7);
    ck_assert_mem_eq(e->run.body, "{\"n\":7}", 7);
    ck_assert_str_eq(e->run.content_type, "application/json");
    execution_free(e);
}
END_TEST

START_TEST(raw_payloads_stay_msgpack)
{
    claimed->job.payload = "\x81\xa1n\x07";
    claimed->job.payload_len = 4;
    claimed->job.encoding = PAYLOAD_MSGPACK;
    struct execution *e = begin("tasks:\n  mail: {discard: true, payload: raw}\n");
    ck_assert_int_eq(execution_prepare_body(e), 0);
    ck_assert_ptr_eq(e->run.body, claimed->job.payload);
    ck_assert_uint_eq(e->run.body_len, 4);
    ck_assert_str_eq(e->run.content_type, "application/msgpack");
    execution_free(e);
}
END_TEST

START_TEST(payload_that_is_no_msgpack_is_dead)
{
    claimed->job.payload = "\xc1";
    claimed->job.payload_len = 1;
    claimed->job.encoding = PAYLOAD_MSGPACK;
    struct execution *e = begin(plain);
    ck_assert_int_ne(execution_prepare_body(e), 0);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_DEAD);
    ck_assert_ptr_nonnull(strstr(e->outcome.reason, "payload is not valid msgpack"));
    execution_keep_outcome(e, &e->outcome);
    ck_assert_uint_eq(e->delay_ms, 0);
    execution_free(e);
}
END_TEST

START_TEST(fetched_payload_takes_the_place_of_the_missing_one)
{
    claimed->payload_size = 9;
    struct execution *e = begin(plain);
    buf_puts(&e->fetched, "[1, 2, 3]");
    ck_assert_int_eq(execution_prepare_body(e), 0);
    ck_assert_uint_eq(e->run.body_len, 9);
    ck_assert_mem_eq(e->run.body, "[1, 2, 3]", 9);
    execution_drop_payload(e);
    ck_assert_ptr_null(e->run.body);
    ck_assert_uint_eq(e->run.body_len, 0);
    execution_free(e);
}
END_TEST

/* ---- outcomes ---- */

START_TEST(retry_waits_by_the_tasks_backoff)
{
    claimed->job.attempt = 2;
    struct execution *e =
        begin("tasks:\n  mail: {discard: true, backoff: 1s, backoff_jitter: 0}\n");
    struct outcome o = failed();
    execution_keep_outcome(e, &o);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_RETRY);
    ck_assert_uint_eq(e->delay_ms, 2000);
    o.delay_ms = 60000; /* Retry-After */
    execution_keep_outcome(e, &o);
    ck_assert_uint_eq(e->delay_ms, 60000);
    execution_free(e);
}
END_TEST

START_TEST(last_attempt_is_dead_with_the_reason_and_the_count)
{
    claimed->job.attempt = 3;
    struct execution *e = begin(plain);
    struct outcome o = failed();
    o.delay_ms = 60000;
    execution_keep_outcome(e, &o);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_DEAD);
    ck_assert_str_eq(e->outcome.reason, "exit 3 (attempt 3 of 3)");
    ck_assert_int_eq(e->outcome.exit_code, 3);
    ck_assert(!e->outcome.uncounted);
    ck_assert_uint_eq(e->delay_ms, 0);
    execution_free(e);
}
END_TEST

START_TEST(long_reason_leaves_room_for_the_count)
{
    claimed->job.attempt = 3;
    struct execution *e = begin(plain);
    struct outcome o = failed();
    memset(o.reason, 'x', sizeof o.reason - 1);
    o.reason[sizeof o.reason - 1] = '\0';
    execution_keep_outcome(e, &o);
    ck_assert_ptr_nonnull(strstr(e->outcome.reason, "x (attempt 3 of 3)"));
    execution_free(e);
}
END_TEST

START_TEST(release_is_never_the_last_attempt)
{
    claimed->job.attempt = 3;
    struct execution *e = begin(plain);
    struct outcome o;
    outcome_init(&o);
    outcome_set(&o, OUTCOME_RELEASE, "the dispatcher stops");
    o.delay_ms = 1000;
    execution_keep_outcome(e, &o);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_RELEASE);
    ck_assert_uint_eq(e->delay_ms, 1000);
    execution_free(e);
}
END_TEST

START_TEST(output_is_copied_from_the_executors_memory)
{
    char head[] = "begin";
    char tail[] = "end";
    struct execution *e = begin(plain);
    struct outcome o = failed();
    o.head = head;
    o.head_len = 5;
    o.tail = tail;
    o.tail_len = 3;
    o.output_bytes = 100;
    execution_keep_outcome(e, &o);
    memset(head, '?', sizeof head);
    memset(tail, '?', sizeof tail);
    ck_assert_uint_eq(e->outcome.head_len, 5);
    ck_assert_mem_eq(e->outcome.head, "begin", 5);
    ck_assert_uint_eq(e->outcome.tail_len, 3);
    ck_assert_mem_eq(e->outcome.tail, "end", 3);
    ck_assert_uint_eq(e->outcome.output_bytes, 100);
    execution_free(e);
}
END_TEST

/* Death by max_attempts writes the reason anew, not the output. */
START_TEST(output_of_the_last_attempt_is_kept)
{
    claimed->job.attempt = 3;
    struct execution *e = begin(plain);
    struct outcome o = failed();
    o.head = "words";
    o.head_len = 5;
    execution_keep_outcome(e, &o);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_DEAD);
    ck_assert_uint_eq(e->outcome.head_len, 5);
    ck_assert_mem_eq(e->outcome.head, "words", 5);
    ck_assert_uint_eq(e->outcome.tail_len, 0);
    execution_free(e);
}
END_TEST

/* ---- age ---- */

static const char aged[] = "tasks:\n  mail: {discard: true, max_attempts: 3, max_age: 1d}\n";
#define DAY_US (INT64_C(86400) * 1000 * 1000)

static const struct {
    const char *yaml;
    int attempt;
    int64_t age_us;
    const char *reason; /* of a death; NULL: tried again */
} ages[] = {
    {aged, 1, DAY_US, NULL},
    {aged, 1, DAY_US + 1, "exit 3 (older than max_age 1d)"},
    {aged, 3, DAY_US + 1, "exit 3 (attempt 3 of 3)"},
    {aged, 1, -DAY_US, NULL},
    {plain, 1, 1000 * DAY_US, NULL},
};

START_TEST(a_failed_job_that_is_too_old_is_dead)
{
    claimed->job.attempt = ages[_i].attempt;
    claimed->job.created_at_us = 1000;
    struct execution *e = begin(ages[_i].yaml);
    struct outcome o = failed();
    execution_keep_outcome(e, &o);
    execution_check_age(e, 1000 + ages[_i].age_us);
    ck_assert_int_eq(e->outcome.kind, ages[_i].reason != NULL ? OUTCOME_DEAD : OUTCOME_RETRY);
    ck_assert_str_eq(e->outcome.reason, ages[_i].reason != NULL ? ages[_i].reason : "exit 3");
    ck_assert(ages[_i].reason == NULL || e->delay_ms == 0);
    execution_free(e);
}
END_TEST

START_TEST(age_ends_no_job_that_did_not_fail)
{
    struct outcome o;
    outcome_init(&o);
    claimed->job.created_at_us = 0;
    struct execution *e = begin(aged);
    outcome_set(&o, OUTCOME_RELEASE, "stopped");
    execution_keep_outcome(e, &o);
    execution_check_age(e, 1000 * DAY_US);
    ck_assert_int_eq(e->outcome.kind, OUTCOME_RELEASE);
    execution_free(e);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("execution");
    TCase *tc = tcase_create("dead without a run");
    tcase_add_checked_fixture(tc, init, deinit);
    tcase_add_loop_test(tc, job_that_must_not_run_is_dead_already, 0,
                        sizeof fates / sizeof fates[0]);
    suite_add_tcase(s, tc);

    tc = tcase_create("body");
    tcase_add_checked_fixture(tc, init, deinit);
    tcase_add_test(tc, json_is_passed_as_it_is);
    tcase_add_test(tc, msgpack_becomes_json);
    tcase_add_test(tc, raw_payloads_stay_msgpack);
    tcase_add_test(tc, payload_that_is_no_msgpack_is_dead);
    tcase_add_test(tc, fetched_payload_takes_the_place_of_the_missing_one);
    suite_add_tcase(s, tc);

    tc = tcase_create("outcome");
    tcase_add_checked_fixture(tc, init, deinit);
    tcase_add_loop_test(tc, a_failed_job_that_is_too_old_is_dead, 0, sizeof ages / sizeof ages[0]);
    tcase_add_test(tc, age_ends_no_job_that_did_not_fail);
    tcase_add_test(tc, retry_waits_by_the_tasks_backoff);
    tcase_add_test(tc, last_attempt_is_dead_with_the_reason_and_the_count);
    tcase_add_test(tc, long_reason_leaves_room_for_the_count);
    tcase_add_test(tc, release_is_never_the_last_attempt);
    tcase_add_test(tc, output_is_copied_from_the_executors_memory);
    tcase_add_test(tc, output_of_the_last_attempt_is_kept);
    suite_add_tcase(s, tc);
    return s;
}
