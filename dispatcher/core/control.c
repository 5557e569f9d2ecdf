/* control.c - what operators ask of a dispatcher: to end a running job, or a run of it, to leave a
 * task alone. The session asks the database (orders.c); here is what becomes of its answers. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/dispatcher_priv.h"

static void on_pause_changed(const struct lane *lane, void *arg)
{
    (void)arg;
    log_info(lane->is_paused ? "paused" : "resumed", LOG_STR("task", lane->task),
             LOG_INT("running", lane->running),
             LOG_STR("next",
                     lane->is_paused ? "no claims until outbox.resume; what runs goes on" : NULL));
}

/* Kept: a job that is to end may be on its way to us, in the answer to a claim. */
static void keep_cancelled(struct control *c, const struct store_orders *orders)
{
    size_t n = orders->cancelled_count;
    c->cancelled = ob_xrealloc(c->cancelled, (n + 1) * sizeof *c->cancelled);
    if (n > 0)
        memcpy(c->cancelled, orders->cancelled, n * sizeof *c->cancelled);
    c->cancelled_count = n;
}

/* Kept for the same reason. By claim: the job's next run is another matter. */
static void keep_requeued(struct control *c, const struct store_orders *orders)
{
    size_t n = orders->requeued_count;
    c->requeued = ob_xrealloc(c->requeued, (n + 1) * sizeof *c->requeued);
    if (n > 0)
        memcpy(c->requeued, orders->requeued, n * sizeof *c->requeued);
    c->requeued_count = n;
}

static void forget_paused(struct control *c)
{
    for (size_t i = 0; i < c->paused_count; i++)
        ob_free(c->paused[i]);
    ob_free(c->paused);
    c->paused = NULL;
    c->paused_count = 0;
}

/* Kept for tasks that get a handler by a reload. */
static void keep_paused(struct control *c, const struct store_orders *orders)
{
    forget_paused(c);
    c->paused = ob_xcalloc(orders->paused_count + 1, sizeof *c->paused);
    for (size_t i = 0; i < orders->paused_count; i++)
        c->paused[c->paused_count++] = ob_xstrdup(orders->paused[i]);
}

void control_reloaded(struct dispatcher *d)
{
    (void)lanes_set_paused(&d->lanes, (const char *const *)d->control.paused,
                           d->control.paused_count, on_pause_changed, d);
    ahead_review(d);
}

void control_limits(struct dispatcher *d)
{
    const struct config *c = d->lanes.config;
    for (size_t i = 0; i < c->tasks_count; i++) {
        if (c->tasks[i].max_ready > 0)
            session_limit(d->session, c->tasks[i].name, c->tasks[i].max_ready);
    }
}

void control_orders(void *arg, const struct store_orders *orders)
{
    struct dispatcher *d = arg;
    keep_cancelled(&d->control, orders);
    keep_requeued(&d->control, orders);
    keep_paused(&d->control, orders);
    for (size_t i = 0; i < d->control.cancelled_count; i++)
        runner_cancel(d, d->control.cancelled[i]);
    for (size_t i = 0; i < d->control.requeued_count; i++)
        runner_requeue(d, &d->control.requeued[i]);
    if (lanes_set_paused(&d->lanes, orders->paused, orders->paused_count, on_pause_changed, d))
        turn_look(d);
    ahead_review(d);
}

bool control_is_cancelled(const struct dispatcher *d, int64_t id)
{
    for (size_t i = 0; i < d->control.cancelled_count; i++) {
        if (d->control.cancelled[i] == id)
            return true;
    }
    return false;
}

bool control_is_requeued(const struct dispatcher *d, const struct job *job)
{
    for (size_t i = 0; i < d->control.requeued_count; i++) {
        const struct store_token *token = &d->control.requeued[i];
        if (token->id == job->id && token->claim == job->claim)
            return true;
    }
    return false;
}

/* RELEASE, which outbox.settle turns into the job's end if a request to cancel is really there. */
void control_ended_outcome(struct outcome *o, const char *why)
{
    outcome_set(o, OUTCOME_RELEASE, "%s", why);
    o->delay_ms = 0;
    o->misconfigured = false;
    o->spawn_failed = false;
    o->pauses_task = false;
}

void control_pause(struct dispatcher *d, const struct execution *e)
{
    if (e->lane->is_paused)
        return;
    e->lane->is_paused = true; /* at once; what the database says counts from its next answer on */
    log_error("task_paused", LOG_STR("task", e->job.task), LOG_STR("reason", e->outcome.reason),
              LOG_STR("next", "its jobs wait; `outbox resume` when they have somewhere to go"));
    session_pause(d->session, e->job.task, e->outcome.reason);
}

bool control_is_drained(const struct dispatcher *d)
{
    bool is_drained = d->options->drain && session_is_ready(d->session) && !d->look_wanted &&
                      !d->stream.is_full && d->stream.revisit_count == 0 &&
                      lanes_are_empty(&d->lanes);
    if (is_drained && lanes_are_stuck(&d->lanes)) /* it was told of, and would be tried for ever */
        log_error("drain_incomplete", LOG_STR("reason", "a handler cannot run"),
                  LOG_STR("next", "its jobs are left; mend it, and drain again"));
    return is_drained;
}

void control_deinit(struct dispatcher *d)
{
    ob_free(d->control.cancelled);
    d->control.cancelled = NULL;
    ob_free(d->control.requeued);
    d->control.requeued = NULL;
    forget_paused(&d->control);
}
