/* pool.c - the processes of one task: how many there are, which one gets a job, and how long to
 * wait after failures. See private.h. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "worker/private.h"

/* ---- its life ---- */

static char **copy_strings(const struct strings *from)
{
    char **items = ob_xcalloc(from->count + 1, sizeof *items);
    for (size_t i = 0; i < from->count; i++)
        items[i] = ob_xstrdup(from->items[i]);
    return items;
}

/* At start-up and at a reload: dies when memory is short. */
struct pool *pool_new(struct worker_executor *ex, const struct task_config *task)
{
    ob_assert(task->kind == HANDLER_WORKER);
    ob_assert(task->command.argv.count > 0);
    struct pool *pool = ob_xcalloc(1, sizeof *pool);
    pool->ex = ex;
    pool->task = ob_xstrdup(task->name);
    pool->config = task->worker;
    pool->concurrency = task->concurrency;
    pool->argv = copy_strings(&task->command.argv);
    pool->cwd = task->command.cwd != NULL ? ob_xstrdup(task->command.cwd) : NULL;
    pool->umask = task->command.umask;
    list_init(&pool->link);
    list_init(&pool->dirty_link);
    list_init(&pool->processes);
    list_init(&pool->room);
    list_init(&pool->waiting);
    strvec_init(&pool->env);
    int err = command_build_worker_env(task, &pool->env);
    ob_assert(err == 0); /* its size was checked at load */
    return pool;
}

void pool_free(struct pool *pool)
{
    ob_assert(pool->count == 0);
    ob_assert(list_is_empty(&pool->waiting));
    list_remove(&pool->link);
    list_remove(&pool->dirty_link);
    for (size_t i = 0; pool->argv[i] != NULL; i++)
        ob_free(pool->argv[i]);
    ob_free(pool->argv);
    strvec_deinit(&pool->env);
    ob_free(pool->cwd);
    ob_free(pool->task);
    ob_free(pool);
}

static bool same_strings(char *const *a, char *const *b)
{
    while (*a != NULL && *b != NULL && strcmp(*a, *b) == 0) {
        a++;
        b++;
    }
    return *a == NULL && *b == NULL;
}

static bool same_config(const struct worker_config *a, const struct worker_config *b)
{
    return a->processes == b->processes && a->startup == b->startup &&
           a->idle_timeout_ms == b->idle_timeout_ms && a->max_jobs == b->max_jobs &&
           a->max_lifetime_ms == b->max_lifetime_ms && a->window == b->window &&
           a->start_timeout_ms == b->start_timeout_ms &&
           a->restart_backoff_ms == b->restart_backoff_ms;
}

bool pool_runs(const struct pool *pool, const struct task_config *task)
{
    const struct command_config *command = &task->command;
    if (pool->is_retired || task->kind != HANDLER_WORKER || strcmp(pool->task, task->name) != 0 ||
        pool->umask != command->umask || !same_config(&pool->config, &task->worker) ||
        !same_strings(pool->argv, command->argv.items) ||
        (pool->cwd == NULL) != (command->cwd == NULL) ||
        (pool->cwd != NULL && strcmp(pool->cwd, command->cwd) != 0))
        return false;
    struct strvec env;
    strvec_init(&env);
    bool is_same =
        command_build_worker_env(task, &env) == 0 && same_strings(pool->env.items, env.items);
    strvec_deinit(&env);
    return is_same;
}

void pool_retire(struct pool *pool, bool is_kill)
{
    pool->is_retired = true;
    list_for_each (node, tmp, &pool->processes) {
        struct process *p = list_entry(node, struct process, link);
        if (is_kill)
            process_kill(p, CAUSE_STOP);
        else
            process_drain(p);
    }
    list_for_each (waiting, next, &pool->waiting) {
        struct flight *f = list_entry(waiting, struct flight, link);
        list_remove(&f->link);
        f->doom = "not started: the handler was changed, or the dispatcher stops";
        list_append(&pool->ex->doomed, &f->link);
    }
    pool->waiting_count = 0;
    executor_dirty(pool); /* to be freed */
}

/* ---- jobs ---- */

/* Ends the first of those that wait with the outcome. */
static void finish_waiting(struct pool *pool, struct outcome *outcome)
{
    struct flight *f = list_entry(pool->waiting.next, struct flight, link);
    pool->waiting_count--;
    flight_finish(f, outcome);
}

static void refuse(struct pool *pool, int err)
{
    struct outcome o;
    outcome_init(&o);
    if (err == OB_ETOOBIG) {
        outcome_set(&o, OUTCOME_DEAD, "its key and headers are too long for a worker: 64 KiB");
    } else {
        outcome_set(&o, OUTCOME_RELEASE, "no memory for a job of this size");
        o.delay_ms = WORKER_SPAWN_PAUSE_MS;
    }
    finish_waiting(pool, &o);
}

/* Gives what waits to processes that have room, and has it written. */
static void hand_out(struct pool *pool)
{
    while (!list_is_empty(&pool->waiting) && !list_is_empty(&pool->room) &&
           pool->in_flight < pool->concurrency) {
        struct process *p = list_entry(pool->room.next, struct process, room_link);
        struct flight *f = list_entry(pool->waiting.next, struct flight, link);
        int err = process_give(p, f);
        if (err != 0) {
            refuse(pool, err);
            continue;
        }
        pool->waiting_count--;
        OB_CRASH_POINT("worker_job_given");
    }
    list_for_each (node, tmp, &pool->processes) {
        struct process *p = list_entry(node, struct process, link);
        if (p->output_pos == 0 && p->output.len > 0)
            io_flush(p);
    }
}

/* ---- processes ---- */

/* True when another process is wanted now. */
static bool wants_process(const struct pool *pool)
{
    if (pool->count >= pool->config.processes)
        return false;
    return pool->ready + pool->starting < pool->config.startup ||
           pool->waiting_count > (size_t)pool->starting * pool->config.window;
}

static void start_processes(struct pool *pool)
{
    uint64_t now_ms = uv_now(pool->ex->base.loop);
    while (!pool->is_retired && wants_process(pool)) {
        if (now_ms < pool->spawn_after_ms) {
            executor_arm(pool->ex, pool->spawn_after_ms);
            return;
        }
        int err = process_start(pool);
        if (err == 0)
            continue;
        /* No spawner for a moment, a full queue, no memory or descriptors: soon again. */
        pool->spawn_after_ms = now_ms + WORKER_SPAWN_PAUSE_MS;
        executor_arm(pool->ex, pool->spawn_after_ms);
        if (pool->ready + pool->starting > 0 || err == OB_ESPAWN || err == UV_EAGAIN)
            return;
        struct outcome o;
        outcome_init(&o);
        outcome_from_spawn_error(&o, "worker", err == OB_ENOMEM ? ENOMEM : -err, pool->argv[0]);
        while (!list_is_empty(&pool->waiting))
            finish_waiting(pool, &o);
        return;
    }
}

void pool_serve(struct pool *pool)
{
    hand_out(pool);
    start_processes(pool);
}

uint64_t pool_process_failed(struct pool *pool, struct outcome *outcome)
{
    uint64_t pause_ms = pool->config.restart_backoff_ms;
    for (unsigned i = 0; i < pool->failures && pause_ms < WORKER_RESTART_MAX_MS; i++)
        pause_ms *= 2;
    if (pause_ms > WORKER_RESTART_MAX_MS)
        pause_ms = WORKER_RESTART_MAX_MS;
    pool->failures++;
    pool->spawn_after_ms = uv_now(pool->ex->base.loop) + pause_ms;
    if (outcome != NULL && pool->ready + pool->starting == 0) {
        while (!list_is_empty(&pool->waiting))
            finish_waiting(pool, outcome);
    }
    return pause_ms;
}

uint64_t pool_tick(struct pool *pool, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    list_for_each (node, tmp, &pool->processes)
        process_tick(list_entry(node, struct process, link), now_ms);
    if (wants_process(pool) && !pool->is_retired) {
        if (pool->spawn_after_ms <= now_ms)
            executor_dirty(pool);
        else if (pool->spawn_after_ms < due_ms)
            due_ms = pool->spawn_after_ms;
    }
    list_for_each (again, next, &pool->processes) {
        uint64_t at_ms = process_due(list_entry(again, struct process, link));
        if (at_ms < due_ms)
            due_ms = at_ms;
    }
    return due_ms;
}
