/* runner.c - jobs on their way through the dispatcher: from a claim to an executor, from its
 * outcome to the list of results, and out when recorded or lost. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/dispatcher_priv.h"

enum { LOG_EVERY_MS = 10000 };

/* A job that was claimed is to begin, or to be given back: meanwhile the dispatcher was told to
 * stop, its lease is ending, or an operator cancelled or requeued the job or paused its task. */
static bool may_begin(const struct dispatcher *d, const struct execution *e)
{
    return dispatcher_may_start(d) && !e->is_lost && !e->is_cancelled && !e->is_requeued &&
           !e->lane->is_paused;
}

static const char not_started[] =
    "not started: the dispatcher stops, its lease ends, or the task was paused";

#define execution_of(node) list_entry(node, struct execution, link)

static void log_outcome(struct dispatcher *d, struct execution *e)
{
    const struct outcome *o = &e->outcome;
    uint64_t swallowed = 0;
    char key[160];
    enum log_level level = LOG_DEBUG;
    if (o->kind == OUTCOME_DEAD) {
        level = LOG_ERROR;
        d->stats.dead++;
    } else if (o->kind == OUTCOME_RETRY) {
        level = o->exit_code == 75 || o->exit_code == 111 ? LOG_INFO : LOG_WARN;
        d->stats.retried++;
    } else if (o->kind == OUTCOME_RELEASE) {
        d->stats.released++;
    } else {
        d->stats.done++;
    }
    (void)snprintf(key, sizeof key, "%s %s", outcome_name(o->kind), e->job.task);
    if (level != LOG_DEBUG && !log_enabled(LOG_DEBUG) && !log_allow(key, LOG_EVERY_MS, &swallowed))
        return;
    const struct log_field fields[] = {
        LOG_STR("task", e->job.task),
        LOG_INT("id", e->job.id),
        LOG_INT("attempt", e->job.attempt),
        LOG_INT("ms", o->duration_ms),
        LOG_STR("reason", o->reason[0] != '\0' ? o->reason : NULL),
        o->kind == OUTCOME_RETRY ? LOG_INT("retry_ms", e->delay_ms) : LOG_NONE,
        swallowed > 0 ? LOG_INT("suppressed", swallowed) : LOG_NONE,
        LOG_END,
    };
    log_write(level, o->kind == OUTCOME_RELEASE ? "released" : outcome_name(o->kind), fields);
}

static void note_pause(struct dispatcher *d, struct execution *e)
{
    uint64_t ms = lanes_note_outcome(&d->lanes, e->lane, &e->outcome, clock_mono_ms());
    if (ms > 0)
        log_error(
            "handler_misconfigured", LOG_STR("task", e->job.task),
            LOG_STR("source", e->run.task->source), LOG_STR("reason", e->outcome.reason),
            LOG_INT("paused_ms", ms),
            LOG_STR("next", "the job waits uncounted; mend the handler, then `kill -HUP` or wait"));
}

/* An answer spoke of its endpoint: the other jobs that go there wait, or go on. */
static void log_endpoint(const struct execution *e, const struct outcome *o)
{
    if (o->endpoint_held_ms > 0)
        log_warn("endpoint_held", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_STR("endpoint", o->endpoint), LOG_INT("held_ms", o->endpoint_held_ms),
                 LOG_STR("reason", o->reason), LOG_STR("next", "its other jobs wait, uncounted"));
    else
        log_info("endpoint_back", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_STR("endpoint", o->endpoint));
}

/* The server's clock, as the newest look knows it. */
static int64_t server_now_us(const struct dispatcher *d)
{
    return d->stream.now_us != 0 ? d->stream.ahead_us + (int64_t)clock_mono_ms() * 1000
                                 : (int64_t)clock_unix_us();
}

/* The outcome is known: the result waits for the next turn, or is dropped with a lost claim. */
static void finish(struct dispatcher *d, struct execution *e, const struct outcome *outcome)
{
    execution_keep_outcome(e, outcome);
    execution_check_age(e, server_now_us(d));
    if ((e->is_cancelled || e->is_requeued) && outcome->kind != OUTCOME_DONE) {
        control_ended_outcome(&e->outcome, e->is_cancelled ? "cancelled" : "requeued");
        e->delay_ms = 0;
    }
    execution_drop_payload(e);
    e->state = EXECUTION_FINISHED;
    lanes_slot_freed(&d->lanes, e->lane, e->run.task);
    const struct lane *lane = e->lane;
    bool is_process = task_is_process(e->run.task);
    if (e->is_lost) {
        log_warn("lost_claim", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt),
                 LOG_STR("outcome", outcome_name(e->outcome.kind)),
                 LOG_STR("next", "the result is discarded"));
        d->stats.lost++;
        runner_forget(d, e);
    } else {
        log_outcome(d, e);
        note_pause(d, e);
        if (e->outcome.pauses_task)
            control_pause(d, e);
        list_append(&d->results, &e->result_link);
    }
    ahead_slot_freed(d, lane, is_process);
    OB_CRASH_POINT("after_run_before_settle");
    turn_kick(d);
    dispatcher_idle(d);
}

void runner_give_back(struct dispatcher *d, struct execution *e, const char *why)
{
    outcome_set(&e->outcome, OUTCOME_RELEASE, "%s", why);
    finish(d, e, &e->outcome);
}

static void on_run_done(struct run *run, const struct outcome *outcome)
{
    struct execution *e = list_entry(run, struct execution, run);
    struct dispatcher *d = run->owner;
    uint64_t now_us = clock_mono_us();
    lanes_note_run(&d->lanes, e->lane, run->task, now_us - e->begun_us, run->body_len, now_us);
    if (outcome->endpoint != NULL)
        log_endpoint(e, outcome);
    finish(d, e, outcome);
}

static void start(struct dispatcher *d, struct execution *e)
{
    struct executor *ex = executors_find(d, e->run.task->kind);
    struct outcome outcome;
    outcome_init(&outcome);
    if (execution_prepare_body(e) != 0) {
        finish(d, e, &e->outcome);
        return;
    }
    e->run.executor = ex;
    e->run.on_done = on_run_done;
    e->run.owner = d;
    log_debug("started", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
              LOG_INT("attempt", e->job.attempt));
    OB_CRASH_POINT("before_start");
    e->state = EXECUTION_RUNNING;
    e->begun_us = clock_mono_us();
    if (ex == NULL) { /* logged; the task pauses, or its jobs would be claimed again at once */
        outcome_set(&outcome, OUTCOME_RELEASE, "the handler's executor could not be made");
        outcome.misconfigured = true;
        finish(d, e, &outcome);
        return;
    }
    int err = run_start(&e->run, &outcome);
    if (err == 0) {
        OB_CRASH_POINT("after_start");
        return;
    }
    if (outcome.reason[0] == '\0')
        outcome_set(&outcome, OUTCOME_RELEASE, "could not start: %s", ob_strerror(err));
    finish(d, e, &outcome);
}

/* ---- payloads that did not come with the claim ---- */

static void on_payload(void *arg, const struct pg_error *error, const char *bytes, size_t len)
{
    struct execution *e = arg;
    struct dispatcher *d = e->run.owner;
    e->is_fetch_under_way = false;
    if (!may_begin(d, e)) {
        runner_give_back(d, e, not_started);
        return;
    }
    if (error != NULL && error->err == OB_ECONN)
        return; /* runner_fetch_again, once the session is ready */
    if (error == NULL && bytes != NULL)
        buf_append(&e->fetched, bytes, len);
    if (error != NULL || bytes == NULL || e->fetched.err != 0) {
        outcome_set(&e->outcome, OUTCOME_RELEASE, "payload could not be fetched: %s",
                    error != NULL ? error->message : "the job is gone, or memory is short");
        e->outcome.delay_ms = 1000;
        finish(d, e, &e->outcome);
        return;
    }
    start(d, e);
}

static void fetch(struct dispatcher *d, struct execution *e)
{
    e->is_fetch_under_way = true;
    store_payload(session_conn(d->session), e->job.id, on_payload, e);
}

void runner_fetch_again(struct dispatcher *d)
{
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (e->state == EXECUTION_FETCHING && !e->is_fetch_under_way)
            fetch(d, e);
    }
}

/* ---- from a claim ---- */

static void fetch_or_start(struct dispatcher *d, struct execution *e)
{
    e->state = EXECUTION_FETCHING;
    if (e->job.payload == NULL && e->payload_size > 0)
        fetch(d, e);
    else
        start(d, e);
}

/* Its task, or every command, pauses: what was not begun is not tried. */
static bool is_paused(const struct dispatcher *d, const struct execution *e)
{
    uint64_t now_ms = clock_mono_ms();
    return now_ms < e->lane->paused_until_ms ||
           (task_is_process(e->run.task) && now_ms < d->lanes.spawn_paused_until_ms);
}

bool runner_may_go_on(const struct dispatcher *d, const struct execution *e)
{
    return lanes_slot_is_free(&d->lanes, e->lane, e->run.task) || !may_begin(d, e) ||
           is_paused(d, e);
}

void runner_go_on(struct dispatcher *d, struct execution *e)
{
    if (may_begin(d, e) && !is_paused(d, e))
        fetch_or_start(d, e);
    else
        runner_give_back(d, e, not_started);
}

static void begin(struct dispatcher *d, struct batch *batch, const struct claimed *c)
{
    struct lane *lane = lanes_find(&d->lanes, c->job.task);
    const struct task_config *task = config_find_task(d->begin_config, c->job.task);
    ob_assert(lane != NULL); /* both checked by the caller of runner_begin */
    ob_assert(task != NULL);
    struct execution *e = execution_new(lane, d->begin_config, task, batch, c);
    e->run.owner = d;
    list_append(&d->executions, &e->link);
    d->executions_count++;
    d->lanes.suspects += e->job.lost > 0 ? 1 : 0;
    bool has_slot = lanes_slot_is_free(&d->lanes, lane, task);
    lanes_slot_taken(&d->lanes, lane, task);
    e->is_cancelled = control_is_cancelled(d, e->job.id);
    e->is_requeued = control_is_requeued(d, &e->job);
    if (!may_begin(d, e)) {
        runner_give_back(d, e, not_started);
    } else if (execution_is_dead_already(e, c)) {
        finish(d, e, &e->outcome);
    } else if (!has_slot) {
        ahead_wait(d, e);
    } else {
        fetch_or_start(d, e);
    }
}

void runner_begin(struct dispatcher *d, struct batch *batch)
{
    OB_CRASH_POINT("after_claim_before_start");
    for (size_t i = 0; i < batch->count; i++)
        begin(d, batch, &batch->jobs[i]);
}

/* ---- stopping, losing, adopting ---- */

void runner_release_unstarted(struct dispatcher *d)
{
    ahead_review(d);
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (e->state == EXECUTION_FETCHING && !e->is_fetch_under_way)
            runner_give_back(d, e, not_started);
    }
}

void runner_stop_all(struct dispatcher *d, enum stop_reason reason)
{
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (e->state == EXECUTION_RUNNING)
            e->run.executor->ops->stop(e->run.executor, &e->run, reason);
    }
}

/* An operator wants no more of it. What was not begun is given back; what ends by itself may. */
static void end_run(struct dispatcher *d, struct execution *e)
{
    if (e->state == EXECUTION_RUNNING) {
        e->run.executor->ops->stop(e->run.executor, &e->run, STOP_CANCEL);
    } else if (e->state == EXECUTION_WAITING) {
        ahead_remove(d, e);
        runner_give_back(d, e, not_started);
    }
}

void runner_cancel(struct dispatcher *d, int64_t id)
{
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (e->job.id != id || e->is_lost || e->is_cancelled)
            continue;
        e->is_cancelled = true; /* finished already: the statement that records it knows too */
        log_info("cancelling", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt));
        if (!e->is_requeued) /* else it is ending */
            end_run(d, e);
    }
}

void runner_requeue(struct dispatcher *d, const struct store_token *token)
{
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        bool is_over = e->state == EXECUTION_FINISHED || e->state == EXECUTION_SETTLING;
        if (e->job.id != token->id || e->job.claim != token->claim || is_over || e->is_lost ||
            e->is_cancelled || e->is_requeued)
            continue;
        e->is_requeued = true;
        log_info("requeueing", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt));
        end_run(d, e);
    }
}

struct store_token *runner_tokens(struct dispatcher *d, size_t *ret_n)
{
    struct store_token *tokens = ob_xcalloc(d->executions_count, sizeof *tokens);
    size_t n = 0;
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (!e->is_lost)
            tokens[n++] = (struct store_token){.id = e->job.id, .claim = e->job.claim};
    }
    *ret_n = n;
    return tokens;
}

bool runner_is_clear(const struct dispatcher *d)
{
    list_for_each (node, tmp, &d->executions) {
        if (execution_of(node)->is_lost)
            return false;
    }
    return true;
}

static void lose(struct dispatcher *d, struct execution *e)
{
    e->is_lost = true;
    log_warn(
        "lost_claim", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
        LOG_INT("attempt", e->job.attempt),
        LOG_STR("next", e->state == EXECUTION_RUNNING ? "stopping it" : "the result is discarded"));
    if (e->state == EXECUTION_RUNNING) {
        /* A request has no grace to use: it would go on until its timeout. */
        bool has_grace = e->run.task->kind != HANDLER_WEBHOOK;
        e->run.executor->ops->stop(e->run.executor, &e->run, has_grace ? STOP_LOST : STOP_KILL);
        return;
    }
    d->stats.lost++;
    ob_assert(!e->is_fetch_under_way); /* a lost connection has answered every fetch */
    if (e->state == EXECUTION_WAITING)
        ahead_remove(d, e);
    if (e->state == EXECUTION_FETCHING || e->state == EXECUTION_WAITING)
        lanes_slot_freed(&d->lanes, e->lane, e->run.task);
    runner_forget(d, e);
}

static int compare_ids(const void *a, const void *b)
{
    const struct store_token *x = a;
    const struct store_token *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

void runner_adopted(struct dispatcher *d, const struct store_token *adopted, size_t n)
{
    struct store_token *sorted = ob_xcalloc(n, sizeof *sorted);
    if (n > 0)
        memcpy(sorted, adopted, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_ids);
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = execution_of(node);
        if (e->is_lost)
            continue; /* it was lost before, and still runs */
        const struct store_token key = {.id = e->job.id};
        const struct store_token *ours = bsearch(&key, sorted, n, sizeof *sorted, compare_ids);
        if (ours != NULL)
            e->job.claim = ours->claim;
        else
            lose(d, e);
    }
    ob_free(sorted);
}

void runner_forget(struct dispatcher *d, struct execution *e)
{
    ob_assert(d->executions_count > 0);
    d->executions_count--;
    d->lanes.suspects -= e->job.lost > 0 ? 1 : 0;
    execution_free(e);
}
