/* worker_fixture.h - the real worker executor over a real spawner, with the worker of
 * tests/support/worker; what the observer is told. */
#ifndef OB_TEST_WORKER_FIXTURE_H
#define OB_TEST_WORKER_FIXTURE_H

#include "run_fixture.h"

#include "worker/worker.h"

enum { EVENT_KINDS = WORKER_STDERR + 1 };

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
    run_fixture_open();
    memset(&seen, 0, sizeof seen);
    ck_assert_int_eq(worker_executor_new(&fx.loop, fx.client, on_event, &seen, &executor), 0);
}

/* The tasks of config_of_tasks, from now on; the old ones are needed until they are. */
static inline void configure(const char *tasks)
{
    struct config *old = config;
    config = config_of_tasks(tasks);
    worker_executor_configure(executor, config->tasks, config->tasks_count);
    config_unref(old);
}

/* One task "t" of the test's worker: its arguments (", window=4"; "" for none) and further keys
 * (", processes: 2"). */
static inline void configure_worker(const char *arguments, const char *keys)
{
    char text[1024];
    (void)snprintf(text, sizeof text, "  t: { worker: [%s%s]%s }", OB_TEST_WORKER, arguments, keys);
    configure(text);
}

/* Fills r with attempt 2 of a job of "t". */
static inline void run_prepare(struct run_record *r, int64_t id, const void *body, size_t len)
{
    record_prepare(r, id, "t", body, len);
}

static inline void run_begin(struct run_record *r, int64_t id, const char *body)
{
    run_prepare(r, id, body, strlen(body));
    record_start(r);
}

/* A job to its end; static storage. */
static inline struct run_record *run_job(const char *body)
{
    static struct run_record r;
    run_begin(&r, 42, body);
    pump_until(r.is_done, 20000);
    return &r;
}

#endif
