/* worker_fixture.h - the real worker executor over a real spawner, with the worker of
 * tests/support/worker; runs whose outcome is recorded, and what the observer is told. */
#ifndef OB_TEST_WORKER_FIXTURE_H
#define OB_TEST_WORKER_FIXTURE_H

#include "spawn_fixture.h"

#include "base/buf.h"
#include "base/config.h"
#include "worker/worker.h"

enum { EVENT_KINDS = WORKER_STDERR + 1, KEPT_MAX = 20480 };

struct run_record {
    struct run run; /* first: on_done gets it back */
    struct job job;
    bool is_done;
    struct outcome outcome; /* head and tail point into the two below */
    char head[KEPT_MAX];
    char tail[KEPT_MAX];
};

static struct executor *workers;
static struct config *config;
static bool is_executor_closed;
static struct {
    unsigned counts[EVENT_KINDS];
    char texts[EVENT_KINDS][2048]; /* the newest of each kind */
    uint64_t retry_ms[EVENT_KINDS];
    uint64_t suppressed;
    pid_t ready_pid; /* the newest */
} seen;

static inline void on_event(void *arg, const struct worker_event *e)
{
    ck_assert_ptr_eq(arg, &seen);
    ck_assert_ptr_nonnull(e->task);
    seen.counts[e->kind]++;
    seen.retry_ms[e->kind] = e->retry_ms;
    seen.suppressed += e->suppressed;
    if (e->kind == WORKER_READY)
        seen.ready_pid = e->pid;
    (void)snprintf(seen.texts[e->kind], sizeof seen.texts[0], "%s", e->text != NULL ? e->text : "");
}

static inline void worker_fixture_open(void)
{
    fixture_open();
    config = NULL;
    is_executor_closed = false;
    memset(&seen, 0, sizeof seen);
    ck_assert_int_eq(worker_executor_new(&fx.loop, fx.client, on_event, &seen, &workers), 0);
}

static inline void on_executor_close(struct executor *ex)
{
    ck_assert_ptr_eq(ex, workers);
    is_executor_closed = true;
}

static inline void worker_close_executor(void)
{
    workers->ops->close(workers, on_executor_close);
    pump_until(is_executor_closed, 20000);
}

static inline void worker_fixture_close(void)
{
    if (!is_executor_closed)
        worker_close_executor();
    config_unref(config);
    fixture_close();
}

/* Tasks as they stand under `tasks:` of a configuration file, in force from now on. */
static inline void configure(const char *tasks)
{
    struct buf errors;
    struct buf text;
    buf_init(&errors, 65536);
    buf_init(&text, 65536);
    buf_printf(&text, "tasks:\n%s\n", tasks);
    struct config *old = config;
    config = config_new();
    int err = config_load_text(config, "test", text.data, text.len, &errors);
    if (err == 0)
        err = config_finish(config, &errors);
    ck_assert_msg(err == 0, "%s", errors.data != NULL ? errors.data : "");
    worker_executor_configure(workers, config->tasks, config->tasks_count);
    config_unref(old);
    buf_deinit(&errors);
    buf_deinit(&text);
}

/* One task "t" of the test's worker: its arguments (", window=4"; "" for none) and further keys
 * (", processes: 2"). */
static inline void configure_worker(const char *arguments, const char *keys)
{
    char text[1024];
    (void)snprintf(text, sizeof text, "  t: { worker: [%s%s]%s }", OB_TEST_WORKER, arguments, keys);
    configure(text);
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

static inline void run_prepare(struct run_record *r, int64_t id, const void *body, size_t len)
{
    memset(r, 0, sizeof *r);
    r->job = (struct job){.id = id,
                          .claim = 1,
                          .task = "t",
                          .priority = 2,
                          .payload = body,
                          .payload_len = len,
                          .attempt = 2,
                          .max_attempts = 20,
                          .created_at_us = INT64_C(1767323045678901)};
    r->run = (struct run){.job = &r->job,
                          .task = config_find_task(config, "t"),
                          .body = body,
                          .body_len = len,
                          .content_type = "application/json",
                          .executor = workers,
                          .on_done = on_run_done};
    ck_assert_ptr_nonnull(r->run.task);
}

static inline void run_begin(struct run_record *r, int64_t id, const char *body)
{
    struct outcome refused;
    run_prepare(r, id, body, strlen(body));
    ck_assert_int_eq(run_start(&r->run, &refused), 0);
}

/* A job to its end; static storage. */
static inline struct run_record *run_job(const char *body)
{
    static struct run_record r;
    run_begin(&r, 42, body);
    pump_until(r.is_done, 20000);
    return &r;
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
