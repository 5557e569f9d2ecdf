/* webhook_fixture.h - what check_webhook*.c share: a loop, the real executor, a scripted server,
 * and runs whose outcomes are kept. Everything is made in the test's own process, the server first.
 */
#ifndef OB_TEST_WEBHOOK_FIXTURE_H
#define OB_TEST_WEBHOOK_FIXTURE_H

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "ck_main.h"
#include "httpstub.h"
#include "wait.h"
#include "webhook/credentials.h"
#include "webhook/http.h"

enum { HEAD_KEPT = 256 };

/* One delivery and what became of it. */
struct delivery {
    struct run run;
    struct job job;
    struct outcome outcome; /* head points into head_text */
    char head_text[HEAD_KEPT];
    bool is_done;
};

struct fixture {
    uv_loop_t loop;
    struct executor *ex;
    struct httpstub stub;
    struct task_config task;
    struct config config; /* of this one task */
    char url[256];
    bool is_closed;
};

static const char *const example_body = "{\"order\": 1001}";

/* The configuration's defaults, with a timeout that a broken test does not wait for in vain. */
static inline void fixture_defaults(struct fixture *f)
{
    memset(&f->task, 0, sizeof f->task);
    f->task.kind = HANDLER_WEBHOOK;
    f->task.timeout_ms = 20000;
    f->task.webhook.url = f->url;
    f->task.webhook.connect_timeout_ms = 5000;
    f->task.webhook.tls_verify = true;
    f->task.webhook.response_capture_bytes = 64;
    f->task.webhook.response_drain_bytes = 64 * 1024;
    f->task.webhook.retry_after_max_ms = 24 * 3600 * 1000;
}

/* What the fixture's task says was changed after a delivery: as a reload tells the executor. */
static inline void fixture_reconfigure(struct fixture *f)
{
    f->ex->ops->configure(f->ex, &f->config);
}

static inline void fixture_forget_credentials(struct fixture *f)
{
    if (f->task.webhook.credentials != NULL)
        f->task.webhook.credentials_free(f->task.webhook.credentials);
    f->task.webhook.credentials = NULL;
}

/* Secrets and certificates are read anew, as by a reload. */
static inline void fixture_reload(struct fixture *f)
{
    struct buf errors;
    buf_init(&errors, 4096);
    fixture_forget_credentials(f);
    ck_assert_msg(credentials_read_task(&f->task, &errors) == 0, "%s", errors.data);
    buf_deinit(&errors);
    fixture_reconfigure(f);
}

static inline void fixture_open(struct fixture *f, unsigned concurrency)
{
    f->is_closed = false;
    f->task.concurrency = concurrency;
    f->config = (struct config){.tasks = &f->task, .tasks_count = 1};
    ck_assert_int_eq(uv_loop_init(&f->loop), 0);
    ck_assert_int_eq(webhook_executor_new(&f->loop, &f->config, &f->ex), 0);
    f->ex->owner = f;
}

static inline void fixture_url(struct fixture *f, const char *scheme, int port)
{
    (void)snprintf(f->url, sizeof f->url, "%s://127.0.0.1:%d/hook", scheme, port);
}

static inline void fixture_start(struct fixture *f, const struct httpstub_answer *answers,
                                 size_t count)
{
    httpstub_start(&f->stub, answers, count);
    fixture_defaults(f);
    fixture_url(f, "http", f->stub.port);
    fixture_open(f, 64);
}

static inline void fixture_on_closed(struct executor *ex)
{
    ((struct fixture *)ex->owner)->is_closed = true;
}

/* The executor leaves nothing on the loop. */
static inline void fixture_close(struct fixture *f)
{
    f->ex->ops->close(f->ex, fixture_on_closed);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    ck_assert(f->is_closed);
    ck_assert_int_eq(uv_loop_close(&f->loop), 0);
    fixture_forget_credentials(f);
}

static inline void fixture_stop(struct fixture *f)
{
    fixture_close(f);
    httpstub_stop(&f->stub);
}

static inline void delivery_on_done(struct run *run, const struct outcome *outcome)
{
    struct delivery *d = run->owner;
    ck_assert(!d->is_done); /* exactly once */
    d->is_done = true;
    d->outcome = *outcome;
    ck_assert_uint_lt(outcome->head_len, HEAD_KEPT);
    if (outcome->head_len > 0)
        memcpy(d->head_text, outcome->head, outcome->head_len);
    d->head_text[outcome->head_len] = '\0';
    d->outcome.head = d->head_text;
}

/* Fills in a delivery that is not started yet. */
static inline void delivery_init(struct fixture *f, struct delivery *d, const char *body,
                                 size_t body_len)
{
    memset(d, 0, sizeof *d);
    d->job.id = 42;
    d->job.task = "order-placed";
    d->job.attempt = 3;
    d->job.max_attempts = 20;
    d->job.created_at_us = INT64_C(1767323045678901);
    d->run.job = &d->job;
    d->run.task = &f->task;
    d->run.body = body;
    d->run.body_len = body_len;
    d->run.content_type = "application/json";
    d->run.executor = f->ex;
    d->run.on_done = delivery_on_done;
    d->run.owner = d;
}

static inline void delivery_go(struct delivery *d)
{
    struct outcome refused;
    ck_assert_int_eq(run_start(&d->run, &refused), 0);
    ck_assert(!d->is_done); /* never from inside start */
}

static inline void delivery_start(struct fixture *f, struct delivery *d)
{
    delivery_init(f, d, example_body, strlen(example_body));
    delivery_go(d);
}

/* Turns the loop until cond. */
#define LOOP_UNTIL(f, cond)                                                                        \
    do {                                                                                           \
        while (!(cond))                                                                            \
            (void)uv_run(&(f)->loop, UV_RUN_ONCE);                                                 \
    } while (0)

static inline void delivery_wait(struct fixture *f, struct delivery *d)
{
    LOOP_UNTIL(f, d->is_done);
}

/* Delivers the example body once and waits for the outcome; static storage. */
static inline const struct outcome *deliver(struct fixture *f)
{
    static struct delivery d;
    delivery_start(f, &d);
    delivery_wait(f, &d);
    return &d.outcome;
}

/* The whole story for tests of one answer: server, executor, one delivery, everything down again.
 */
static inline struct outcome deliver_to(const struct httpstub_answer *answer)
{
    struct fixture f;
    fixture_start(&f, answer, 1);
    struct outcome outcome = *deliver(&f);
    fixture_stop(&f);
    return outcome;
}

static inline struct webhook_stats fixture_stats(const struct fixture *f)
{
    struct webhook_stats stats;
    webhook_executor_stats(f->ex, &stats);
    return stats;
}

#endif
