/* run_fixture.h - what the tests of the executors that start processes share: an executor over a
 * real spawner, tasks from YAML, runs whose outcome is recorded. */
#ifndef OB_TEST_RUN_FIXTURE_H
#define OB_TEST_RUN_FIXTURE_H

#include "spawn_fixture.h"

#include "base/buf.h"
#include "core/execution.h"
#include "testconfig.h"

enum { KEPT_MAX = 64 * 1024 };

struct run_record {
    struct run run; /* first: on_done gets it back */
    struct job job;
    bool is_done;
    struct outcome outcome; /* head and tail point into the two below */
    char head[KEPT_MAX];
    char tail[KEPT_MAX];
};

static struct executor *executor;
static struct config *config;
static bool is_executor_closed;

/* The caller makes the executor. */
static inline void run_fixture_open(void)
{
    fixture_open();
    config = NULL;
    executor = NULL;
    is_executor_closed = false;
}

static inline void on_executor_close(struct executor *ex)
{
    ck_assert_ptr_eq(ex, executor);
    is_executor_closed = true;
}

static inline void close_executor(void)
{
    executor->ops->close(executor, on_executor_close);
    pump_until(is_executor_closed, 20000);
}

static inline void run_fixture_close(void)
{
    if (!is_executor_closed)
        close_executor();
    config_unref(config);
    fixture_close();
}

/* Tasks as they stand under `tasks:` of a configuration file, one a line. */
static inline struct config *config_of_tasks(const char *tasks)
{
    struct buf text;
    buf_init(&text, 65536);
    buf_printf(&text, "tasks:\n%s\n", tasks);
    struct config *c = testconfig_load(text.data);
    buf_deinit(&text);
    return c;
}

static inline void on_run_done(struct run *run, const struct outcome *outcome)
{
    struct run_record *r = (struct run_record *)run;
    ck_assert(!r->is_done);
    r->is_done = true;
    r->outcome = *outcome;
    ck_assert_uint_lt(outcome->head_len, sizeof r->head);
    ck_assert_uint_lt(outcome->tail_len, sizeof r->tail);
    if (outcome->head_len > 0)
        memcpy(r->head, outcome->head, outcome->head_len);
    if (outcome->tail_len > 0)
        memcpy(r->tail, outcome->tail, outcome->tail_len);
    r->head[outcome->head_len] = '\0';
    r->tail[outcome->tail_len] = '\0';
}

/* Fills r with attempt 2 of a job of the task, body as given. */
static inline void record_prepare(struct run_record *r, int64_t id, const char *task,
                                  const void *body, size_t len)
{
    r->is_done = false;
    r->job = (struct job){.id = id,
                          .claim = 1,
                          .task = task,
                          .priority = 2,
                          .payload = body,
                          .payload_len = len,
                          .attempt = 2,
                          .max_attempts = 20,
                          .created_at_us = INT64_C(1767323045678901)};
    r->run = (struct run){.job = &r->job,
                          .task = config_find_task(config, task),
                          .body = body,
                          .body_len = len,
                          .content_type = "application/json",
                          .executor = executor,
                          .on_done = on_run_done};
    ck_assert_ptr_nonnull(r->run.task);
}

static inline void record_start(struct run_record *r)
{
    struct outcome refused;
    ck_assert_int_eq(run_start(&r->run, &refused), 0);
}

static inline void expect(const struct run_record *r, enum outcome_kind kind, const char *reason)
{
    ck_assert_str_eq(r->outcome.reason, reason);
    ck_assert_str_eq(outcome_name(r->outcome.kind), outcome_name(kind));
}

static inline void expect_reason_with(const struct run_record *r, enum outcome_kind kind,
                                      const char *part)
{
    ck_assert_str_eq(outcome_name(r->outcome.kind), outcome_name(kind));
    ck_assert_msg(strstr(r->outcome.reason, part) != NULL, "%s", r->outcome.reason);
}

#endif
