/* http.c - see http.h: the executor. libcurl's connections are in multi.c, its options and results
 * in transfer.c, when requests may begin in endpoint.c.
 *
 * A transfer runs, or is idle and waits for the next run. It ends in finish(), reached when libcurl
 * is done with it (on_over) or from its deadline (timeout, or dropped). Everything that holds a
 * handle of the loop counts in `handles`; the executor is freed when the last one is closed. */
#include "webhook/http.h"

#include <limits.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "webhook/endpoints.h"
#include "webhook/multi.h"
#include "webhook/transfer.h"
#include "webhook/verdict.h"

/* Idle transfers hold some ten KiB each. */
enum { IDLE_MAX = 128, IDLE_LOOKED_AT = 16, OUT_OF_MEMORY_DELAY_MS = 1000, PROBE_DELAY_MS = 1000 };
enum { CONNECTIONS_SPARE = 16 };

struct webhook {
    struct executor base;
    struct multi *multi;
    struct endpoints endpoints;
    struct list idle; /* the one used last first */
    unsigned idle_count;
    unsigned generation; /* of the configuration */
    unsigned handles;    /* of the loop: the multi, and each transfer */
    struct webhook_stats stats;
    void (*close_cb)(struct executor *ex);
    bool closing;
};

static void release(struct webhook *w)
{
    ob_assert(w->handles > 0);
    w->handles--;
    if (w->handles > 0)
        return;
    ob_assert(w->closing);
    endpoints_deinit(&w->endpoints);
    if (w->close_cb != NULL)
        w->close_cb(&w->base);
    ob_free(w);
}

/* ---- transfers, running and idle ---- */

static void on_deadline_closed(uv_handle_t *handle)
{
    struct transfer *t = handle->data;
    struct webhook *w = t->owner;
    transfer_free(t);
    release(w);
}

static void discard(struct transfer *t)
{
    ob_assert(t->run == NULL);
    list_remove(&t->link);
    uv_close((uv_handle_t *)&t->deadline, on_deadline_closed);
}

static void discard_idle(struct webhook *w)
{
    list_for_each (node, tmp, &w->idle)
        discard(list_entry(node, struct transfer, link));
    w->idle_count = 0;
}

/* One that has the task's settings, if it is among the last used; else any. NULL: no memory. */
static struct transfer *take(struct webhook *w, const struct task_config *task)
{
    struct transfer *found = NULL;
    unsigned looked_at = 0;
    list_for_each (node, tmp, &w->idle) {
        struct transfer *t = list_entry(node, struct transfer, link);
        if (found == NULL || t->task == task)
            found = t;
        if (t->task == task || ++looked_at == IDLE_LOOKED_AT)
            break;
    }
    if (found != NULL) {
        list_remove(&found->link);
        w->idle_count--;
        return found;
    }
    found = transfer_new(w, w->multi);
    if (found == NULL)
        return NULL;
    (void)uv_timer_init(w->base.loop, &found->deadline); /* always 0 */
    found->generation = w->generation;
    w->handles++;
    return found;
}

static void put_back(struct webhook *w, struct transfer *t)
{
    transfer_clear(t);
    if (w->closing || t->generation != w->generation || w->idle_count == IDLE_MAX) {
        discard(t);
        return;
    }
    list_append(w->idle.next, &t->link); /* before the first */
    w->idle_count++;
}

/* ---- the end of a run ---- */

static void note_end(struct webhook *w, struct transfer *t, const struct verdict_effect *effect,
                     struct outcome *o)
{
    struct endpoint_entry *entry = t->endpoint;
    if (entry == NULL)
        return;
    const struct breaker_config *breaker = &t->run->task->webhook.breaker;
    uint64_t now_ms = clock_mono_ms();
    enum endpoint_news news = endpoint_end(&entry->endpoint, breaker, effect->result, t->is_probe,
                                           effect->hold_ms, now_ms);
    ob_assert(entry->running > 0);
    entry->running--;
    if (news == ENDPOINT_SAME)
        return;
    o->endpoint = entry->name;
    o->endpoint_held_ms = news == ENDPOINT_HELD ? entry->endpoint.held_until_ms - now_ms : 0;
    w->stats.holds += news == ENDPOINT_HELD ? 1 : 0;
}

static void finish(struct transfer *t, const struct verdict *verdict)
{
    struct webhook *w = t->owner;
    struct run *run = t->run;
    struct outcome outcome;
    ob_assert(run != NULL);
    struct verdict_effect effect =
        verdict_outcome(verdict, run, &t->response, clock_unix_us() / 1000, &outcome);
    note_end(w, t, &effect, &outcome);
    w->stats.connections += transfer_connections(t);
    w->stats.requests++;
    w->stats.running--;
    (void)uv_timer_stop(&t->deadline);
    multi_remove(w->multi, t->easy);
    t->run = NULL;
    run_finish(run, &outcome); /* may start others, and close the executor */
    put_back(w, t);
}

static void on_over(void *arg, CURL *easy, CURLcode code)
{
    char *private = NULL;
    (void)arg;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    struct transfer *t = (struct transfer *)(void *)private;
    const struct verdict verdict = transfer_verdict(t, code);
    finish(t, &verdict);
}

static void on_deadline(uv_timer_t *timer)
{
    struct transfer *t = timer->data;
    const struct verdict verdict = {.kind = t->is_dropped ? VERDICT_DROPPED : VERDICT_TIMEOUT};
    finish(t, &verdict);
}

/* ---- the executor ---- */

/* 0, or a refusal: the endpoint is held. entry NULL (no memory): nothing is known of it. */
static int admit(const struct endpoint_entry *entry, const struct run *run,
                 struct outcome *ret_outcome)
{
    uint64_t until_ms = 0;
    enum endpoint_hold hold = HOLD_NONE;
    uint64_t now_ms = clock_mono_ms();
    if (entry == NULL ||
        endpoint_room(&entry->endpoint, &run->task->webhook.rate, now_ms, &until_ms, &hold) > 0)
        return 0;
    outcome_set(ret_outcome, OUTCOME_RELEASE, "endpoint %.120s is held: %s", entry->name,
                endpoint_hold_text(hold));
    ret_outcome->delay_ms = until_ms == UINT64_MAX ? PROBE_DELAY_MS : until_ms - now_ms;
    return OB_EBUSY;
}

static int webhook_start(struct executor *ex, struct run *run, struct outcome *ret_outcome)
{
    struct webhook *w = (struct webhook *)ex;
    ob_assert(!w->closing);
    struct endpoint_entry *entry = endpoints_find(&w->endpoints, run->task->webhook.url);
    int err = admit(entry, run, ret_outcome);
    if (err != 0)
        return err;
    struct transfer *t = take(w, run->task);
    err = t != NULL ? transfer_prepare(t, run) : OB_ENOMEM;
    if (err == 0)
        err = multi_add(w->multi, t->easy);
    if (err != 0) {
        if (t != NULL)
            put_back(w, t);
        outcome_set(ret_outcome, OUTCOME_RELEASE, "out of memory for a request");
        ret_outcome->delay_ms = OUT_OF_MEMORY_DELAY_MS;
        return err;
    }
    t->endpoint = entry;
    if (entry != NULL) {
        entry->running++;
        t->is_probe = endpoint_begin(&entry->endpoint, &run->task->webhook.rate, clock_mono_ms());
    }
    w->stats.running++;
    uv_update_time(ex->loop); /* the loop's clock stands still within a turn */
    (void)uv_timer_start(&t->deadline, on_deadline, run->task->timeout_ms, 0);
    run->executor_data = t;
    return 0;
}

static void webhook_stop(struct executor *ex, struct run *run, enum stop_reason reason)
{
    struct transfer *t = run->executor_data;
    ob_assert(t != NULL);
    ob_assert(t->owner == (struct webhook *)ex);
    if ((reason != STOP_KILL && reason != STOP_CANCEL) || t->is_dropped)
        return;
    t->is_dropped = true;
    (void)uv_timer_start(&t->deadline, on_deadline, 0, 0);
}

static unsigned webhook_room(struct executor *ex, const struct task_config *task, uint64_t now_ms,
                             uint64_t *ret_until_ms)
{
    struct webhook *w = (struct webhook *)ex;
    enum endpoint_hold hold = HOLD_NONE;
    const struct endpoint_entry *entry = endpoints_find(&w->endpoints, task->webhook.url);
    if (entry == NULL)
        return UINT_MAX;
    return endpoint_room(&entry->endpoint, &task->webhook.rate, now_ms, ret_until_ms, &hold);
}

/* The pool holds a connection for each request that may run at once, and some for the endpoints. */
static void webhook_configure(struct executor *ex, const struct config *config)
{
    struct webhook *w = (struct webhook *)ex;
    unsigned connections = CONNECTIONS_SPARE;
    for (size_t i = 0; i < config->tasks_count; i++) {
        if (config->tasks[i].kind == HANDLER_WEBHOOK)
            connections += config->tasks[i].concurrency + 1;
    }
    multi_keep(w->multi, connections);
    w->generation++;
    discard_idle(w);
    endpoints_prune(&w->endpoints, config);
}

static void on_multi_closed(void *arg)
{
    release(arg);
}

static void webhook_close(struct executor *ex, void (*cb)(struct executor *ex))
{
    struct webhook *w = (struct webhook *)ex;
    ob_assert(!w->closing);
    ob_assert(w->stats.running == 0);
    w->closing = true;
    w->close_cb = cb;
    discard_idle(w);
    multi_close(w->multi, on_multi_closed);
}

static const struct executor_ops webhook_ops = {.name = "webhook",
                                                .start = webhook_start,
                                                .stop = webhook_stop,
                                                .room = webhook_room,
                                                .configure = webhook_configure,
                                                .close = webhook_close};

int webhook_executor_new(uv_loop_t *loop, const struct config *config,
                         struct executor **ret_executor)
{
    struct webhook *w = ob_calloc(1, sizeof *w);
    if (w == NULL)
        return OB_ENOMEM;
    int err = multi_new(loop, on_over, w, &w->multi);
    if (err != 0) {
        ob_free(w);
        return err;
    }
    w->base.ops = &webhook_ops;
    w->base.loop = loop;
    w->handles = 1;
    list_init(&w->idle);
    webhook_configure(&w->base, config);
    *ret_executor = &w->base;
    return 0;
}

void webhook_executor_stats(const struct executor *ex, struct webhook_stats *ret_stats)
{
    ob_assert(ex->ops == &webhook_ops);
    *ret_stats = ((const struct webhook *)ex)->stats;
}
