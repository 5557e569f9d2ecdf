/* executor.c - the worker handler as core sees it; the timer, and what is done once a turn of the
 * loop: jobs are handed out and written together. See worker.h and private.h. */
#include <signal.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "worker/private.h"

static void on_turn(uv_idle_t *idle);
static void on_timer(uv_timer_t *timer);

static struct worker_executor *executor_of(struct executor *ex)
{
    return (struct worker_executor *)(void *)ex; /* base is the first member */
}

/* The loop does not sleep before on_turn. */
static void wake(struct worker_executor *ex)
{
    if (ex->open_handles > 0)
        (void)uv_idle_start(&ex->turn, on_turn); /* harmless when active; fails when closing */
}

void executor_dirty(struct pool *pool)
{
    if (list_is_empty(&pool->dirty_link))
        list_append(&pool->ex->dirty_pools, &pool->dirty_link);
    wake(pool->ex);
}

void executor_tell(const struct pool *pool, const struct worker_event *event)
{
    struct worker_event told = *event;
    told.task = pool->task;
    if (pool->ex->observer != NULL)
        pool->ex->observer(pool->ex->observer_arg, &told);
}

/* ---- flights ---- */

static struct flight *flight_new(struct worker_executor *ex)
{
    struct list *node = list_pop(&ex->spare);
    struct flight *f = node != NULL ? list_entry(node, struct flight, link) : ob_malloc(sizeof *f);
    if (f == NULL)
        return NULL;
    *f = (struct flight){.run = NULL};
    list_init(&f->link);
    ex->flights_count++;
    return f;
}

void flight_finish(struct flight *f, struct outcome *outcome)
{
    struct worker_executor *ex = f->pool->ex;
    struct run *run = f->run;
    list_remove(&f->link);
    list_append(&ex->spare, &f->link);
    ex->flights_count--;
    run_finish(run, outcome);
}

static void finish_doomed(struct worker_executor *ex)
{
    while (!list_is_empty(&ex->doomed)) {
        struct flight *f = list_entry(ex->doomed.next, struct flight, link);
        struct outcome o;
        outcome_init(&o);
        outcome_set(&o, OUTCOME_RELEASE, "%s", f->doom);
        flight_finish(f, &o);
    }
}

/* ---- time ---- */

void executor_arm(struct worker_executor *ex, uint64_t at_ms)
{
    if (at_ms >= ex->timer_at_ms || ex->open_handles == 0)
        return;
    uint64_t now_ms = uv_now(ex->base.loop);
    ex->timer_at_ms = at_ms;
    (void)uv_timer_start(&ex->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct worker_executor *ex = timer->data;
    uint64_t now_ms = uv_now(ex->base.loop);
    ex->timer_at_ms = UINT64_MAX;
    list_for_each (node, tmp, &ex->pools)
        executor_arm(ex, pool_tick(list_entry(node, struct pool, link), now_ms));
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct worker_executor *ex = handle->data;
    if (--ex->open_handles > 0)
        return;
    void (*cb)(struct executor * base) = ex->close_cb;
    cb(&ex->base);
    struct list *node = list_pop(&ex->spare);
    for (; node != NULL; node = list_pop(&ex->spare))
        ob_free(list_entry(node, struct flight, link));
    ob_free(ex->pools_by_task);
    ob_free(ex);
}

static void close_if_idle(struct worker_executor *ex)
{
    if (!ex->is_closing || !list_is_empty(&ex->pools) || !list_is_empty(&ex->doomed) ||
        uv_is_closing((uv_handle_t *)&ex->timer))
        return;
    ob_assert(ex->flights_count == 0);
    uv_close((uv_handle_t *)&ex->timer, on_closed);
    uv_close((uv_handle_t *)&ex->turn, on_closed);
}

void executor_process_freed(struct pool *pool)
{
    ob_assert(pool->open > 0);
    pool->open--;
    wake(pool->ex); /* the last one may have been what the end waits for */
}

static void on_turn(uv_idle_t *idle)
{
    struct worker_executor *ex = idle->data;
    (void)uv_idle_stop(idle);
    finish_doomed(ex);
    struct list *node = list_pop(&ex->dirty_pools);
    for (; node != NULL; node = list_pop(&ex->dirty_pools)) {
        struct pool *pool = list_entry(node, struct pool, dirty_link);
        pool_serve(pool);
    }
    list_for_each (entry, tmp, &ex->pools) {
        struct pool *pool = list_entry(entry, struct pool, link);
        if (pool->is_retired && pool->open == 0 && list_is_empty(&pool->waiting))
            pool_free(pool);
    }
    close_if_idle(ex);
}

/* ---- what core calls ---- */

static struct pool *find_pool(const struct worker_executor *ex, const struct task_config *task)
{
    uintptr_t first = (uintptr_t)ex->tasks;
    uintptr_t at = (uintptr_t)task;
    if (at < first || at >= first + ex->tasks_count * sizeof *ex->tasks)
        return NULL; /* of a configuration that is not in force any more */
    return ex->pools_by_task[(size_t)(task - ex->tasks)];
}

static int worker_start(struct executor *base, struct run *run, struct outcome *ret_outcome)
{
    struct worker_executor *ex = executor_of(base);
    ob_assert(!ex->is_closing);
    struct pool *pool = find_pool(ex, run->task);
    if (pool == NULL) {
        outcome_set(ret_outcome, OUTCOME_RELEASE,
                    "not started: the handler was changed, or the dispatcher stops");
        return OB_ECONFIG;
    }
    struct flight *f = flight_new(ex);
    if (f == NULL) {
        outcome_set(ret_outcome, OUTCOME_RELEASE, "out of memory");
        ret_outcome->delay_ms = WORKER_SPAWN_PAUSE_MS;
        return OB_ENOMEM;
    }
    f->run = run;
    f->pool = pool;
    run->executor_data = f;
    list_append(&pool->waiting, &f->link);
    pool->waiting_count++;
    executor_dirty(pool);
    return 0;
}

static void worker_stop(struct executor *base, struct run *run, enum stop_reason reason)
{
    struct worker_executor *ex = executor_of(base);
    struct flight *f = run->executor_data;
    ob_assert(f != NULL && f->run == run);
    if (f->doom != NULL)
        return;
    if (f->process != NULL && reason == STOP_KILL) {
        process_kill(f->process, CAUSE_STOP);
    } else if (f->process != NULL) {
        process_terminate(f->process, CAUSE_STOP);
    } else { /* never finished from inside this call */
        f->doom = "stopped: the dispatcher is stopping";
        list_remove(&f->link);
        f->pool->waiting_count--;
        list_append(&ex->doomed, &f->link);
        wake(ex);
    }
}

static struct pool *pool_for(struct worker_executor *ex, const struct task_config *task)
{
    list_for_each (node, tmp, &ex->pools) {
        struct pool *pool = list_entry(node, struct pool, link);
        if (pool_runs(pool, task))
            return pool;
    }
    struct pool *pool = pool_new(ex, task);
    list_append(&ex->pools, &pool->link);
    executor_dirty(pool); /* starts what is to run without jobs */
    return pool;
}

void worker_executor_configure(struct executor *base, const struct task_config *tasks, size_t count)
{
    struct worker_executor *ex = executor_of(base);
    ob_assert(!ex->is_closing);
    ob_free(ex->pools_by_task);
    ex->pools_by_task = ob_xcalloc(count + 1, sizeof(struct pool *));
    ex->tasks = tasks;
    ex->tasks_count = count;
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].kind != HANDLER_WORKER)
            continue;
        ex->pools_by_task[i] = pool_for(ex, &tasks[i]);
        ex->pools_by_task[i]->concurrency = tasks[i].concurrency;
    }
    list_for_each (node, tmp, &ex->pools) {
        struct pool *pool = list_entry(node, struct pool, link);
        bool is_used = false;
        for (size_t i = 0; i < count && !is_used; i++)
            is_used = ex->pools_by_task[i] == pool;
        if (!is_used && !pool->is_retired)
            pool_retire(pool, false);
    }
}

void worker_executor_retire(struct executor *base, bool is_kill)
{
    struct worker_executor *ex = executor_of(base);
    ex->tasks = NULL;
    ex->tasks_count = 0;
    list_for_each (node, tmp, &ex->pools)
        pool_retire(list_entry(node, struct pool, link), is_kill);
    wake(ex);
}

static void worker_close(struct executor *base, void (*cb)(struct executor *ex))
{
    struct worker_executor *ex = executor_of(base);
    ob_assert(!ex->is_closing);
    ex->is_closing = true;
    ex->close_cb = cb;
    worker_executor_retire(base, false);
}

int worker_executor_new(uv_loop_t *loop, struct spawn_client *client, worker_observer observer,
                        void *arg, struct executor **ret_executor)
{
    static const struct executor_ops ops = {
        .name = "worker", .start = worker_start, .stop = worker_stop, .close = worker_close};
    struct worker_executor *ex = ob_calloc(1, sizeof *ex);
    if (ex == NULL)
        return OB_ENOMEM;
    (void)signal(SIGPIPE, SIG_IGN); /* a worker that reads no more is met as EPIPE */
    ex->base.ops = &ops;
    ex->base.loop = loop;
    ex->client = client;
    ex->observer = observer;
    ex->observer_arg = arg;
    list_init(&ex->pools);
    list_init(&ex->dirty_pools);
    list_init(&ex->doomed);
    list_init(&ex->spare);
    ex->timer_at_ms = UINT64_MAX;
    (void)uv_timer_init(loop, &ex->timer); /* these two never fail */
    (void)uv_idle_init(loop, &ex->turn);
    ex->timer.data = ex;
    ex->turn.data = ex;
    ex->open_handles = 2;
    *ret_executor = &ex->base;
    return 0;
}
