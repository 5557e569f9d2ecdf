/* executors.c - what runs the jobs: one executor for each kind of handler that is configured, made
 * when the first configuration with one is in force. */
#include <limits.h>

#include "base/log.h"
#include "core/discard.h"
#include "core/dispatcher_priv.h"
#include "exec/command.h"
#include "webhook/http.h"

/* Both kinds of commands share one executor. */
static enum handler_kind slot_of(enum handler_kind kind)
{
    return kind == HANDLER_EXEC ? HANDLER_SHELL : kind;
}

static int make(struct dispatcher *d, enum handler_kind slot, const struct config *config,
                struct executor **ret_executor)
{
    switch (slot) {
    case HANDLER_SHELL:
    case HANDLER_EXEC:
        return command_executor_new(&d->loop, d->spawn, ret_executor);
    case HANDLER_WEBHOOK:
        return webhook_executor_new(&d->loop, config, ret_executor);
    case HANDLER_WORKER:
        return workers_new(d, ret_executor);
    case HANDLER_DISCARD:
        return discard_executor_new(&d->loop, ret_executor);
    }
    return OB_EINVAL;
}

void executors_configure(struct dispatcher *d, const struct config *config)
{
    for (size_t i = 0; i < config->tasks_count; i++) {
        enum handler_kind kind = config->tasks[i].kind;
        struct executor **ex = &d->executors[slot_of(kind)];
        int err = *ex == NULL ? make(d, slot_of(kind), config, ex) : 0;
        /* Without one its jobs are given back, and the task pauses; next time it is tried again. */
        if (err != 0)
            log_error("executor_failed", LOG_STR("handler", handler_kind_name(kind)),
                      LOG_STR("err", ob_strerror(err)));
    }
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        struct executor *ex = d->executors[i];
        if (ex != NULL && ex->ops->configure != NULL)
            ex->ops->configure(ex, config);
    }
}

struct executor *executors_find(const struct dispatcher *d, enum handler_kind kind)
{
    return d->executors[slot_of(kind)];
}

unsigned executors_room(void *arg, const struct task_config *task, uint64_t now_ms,
                        uint64_t *ret_until_ms)
{
    struct executor *ex = executors_find(arg, task->kind);
    return ex != NULL && ex->ops->room != NULL ? ex->ops->room(ex, task, now_ms, ret_until_ms)
                                               : UINT_MAX;
}

void executors_retire(struct dispatcher *d, bool is_kill)
{
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        struct executor *ex = d->executors[i];
        if (ex != NULL && ex->ops->retire != NULL)
            ex->ops->retire(ex, is_kill);
    }
}

/* ---- the end ---- */

static void on_spawn_closed(void *arg)
{
    struct dispatcher *d = arg;
    d->spawn = NULL;
}

/* The executors are gone: nothing uses the spawner any more. */
static void close_spawn(struct dispatcher *d)
{
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        if (d->executors[i] != NULL)
            return;
    }
    if (d->spawn != NULL)
        spawn_client_close(d->spawn, on_spawn_closed, d);
}

static void on_executor_closed(struct executor *ex)
{
    struct dispatcher *d = ex->owner;
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        if (d->executors[i] == ex)
            d->executors[i] = NULL;
    }
    close_spawn(d);
}

void executors_close(struct dispatcher *d)
{
    bool has_executor = false;
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        struct executor *ex = d->executors[i];
        if (ex == NULL)
            continue;
        has_executor = true;
        ex->owner = d;
        ex->ops->close(ex, on_executor_closed);
    }
    if (!has_executor)
        close_spawn(d);
}
