/* workers.c - the worker handler within the dispatcher: it is told of configurations and of the
 * end, and what its processes do is written to the log. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/dispatcher_priv.h"
#include "worker/worker.h"

enum { LOG_EVERY_MS = 10000 };

/* A worker that works is the end of its task's pause, if there was one. */
static void end_pause(struct dispatcher *d, const char *task)
{
    struct lane *lane = lanes_find(&d->lanes, task);
    if (lane == NULL || lane->paused_until_ms <= clock_mono_ms())
        return;
    lane->paused_until_ms = 0;
    lane->pauses = 0;
    turn_look(d);
}

static void log_event(enum log_level level, const char *name, const struct worker_event *e,
                      const char *next)
{
    uint64_t swallowed = 0;
    char key[200];
    (void)snprintf(key, sizeof key, "%s %s", name, e->task);
    if (level != LOG_DEBUG && e->kind != WORKER_STDERR && !log_enabled(LOG_DEBUG) &&
        !log_allow(key, LOG_EVERY_MS, &swallowed))
        return;
    const struct log_field fields[] = {
        LOG_STR("task", e->task),
        e->pid > 0 ? LOG_INT("pid", e->pid) : LOG_NONE,
        e->kind != WORKER_STDERR ? LOG_UINT("ms", e->ms) : LOG_NONE,
        e->kind != WORKER_STDERR ? LOG_UINT("jobs", e->jobs) : LOG_NONE,
        LOG_STR(e->kind == WORKER_STDERR ? "text" : "reason", e->text),
        e->retry_ms > 0 ? LOG_UINT("retry_ms", e->retry_ms) : LOG_NONE,
        LOG_STR("next", next),
        swallowed + e->suppressed > 0 ? LOG_UINT("suppressed", swallowed + e->suppressed)
                                      : LOG_NONE,
        LOG_END,
    };
    log_write(level, name, fields);
}

static void on_worker(void *arg, const struct worker_event *e)
{
    switch (e->kind) {
    case WORKER_READY:
        log_event(LOG_DEBUG, "worker_ready", e, NULL);
        end_pause(arg, e->task);
        break;
    case WORKER_ENDED:
        log_event(LOG_DEBUG, "worker_ended", e, NULL);
        break;
    case WORKER_DIED:
        log_event(LOG_WARN, "worker_died", e, "its jobs are retried, another one is started");
        break;
    case WORKER_NOT_READY:
        log_event(LOG_WARN, "worker_not_ready", e, "another one is started");
        break;
    case WORKER_TIMED_OUT:
        log_event(LOG_WARN, "worker_timed_out", e, "it gets TERM, then KILL");
        break;
    case WORKER_PROTOCOL_ERROR:
        log_event(LOG_ERROR, "worker_protocol_error", e,
                  "it was killed, its jobs are retried; mend the worker");
        break;
    case WORKER_STDERR:
        log_event(LOG_INFO, "worker_stderr", e, NULL);
        break;
    }
}

int workers_new(struct dispatcher *d, struct executor **ret_executor)
{
    return worker_executor_new(&d->loop, d->spawn, on_worker, d, ret_executor);
}

void workers_configure(struct dispatcher *d)
{
    const struct config *c = d->lanes.config;
    bool is_needed = d->executors[HANDLER_WORKER] != NULL;
    for (size_t i = 0; i < c->tasks_count && !is_needed; i++)
        is_needed = c->tasks[i].kind == HANDLER_WORKER;
    struct executor *ex = is_needed ? dispatcher_executor(d, HANDLER_WORKER) : NULL;
    if (ex != NULL)
        worker_executor_configure(ex, c->tasks, c->tasks_count);
}

void workers_retire(struct dispatcher *d, bool is_kill)
{
    if (d->executors[HANDLER_WORKER] != NULL)
        worker_executor_retire(d->executors[HANDLER_WORKER], is_kill);
}
