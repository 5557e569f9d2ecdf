/* worker.h - the worker handler: resident processes that are given many jobs each, over pipes.
 * docs/handlers-worker.md has the rules and the protocol.
 *
 * The executor owns a pool of processes for each task it was told of. Like every executor it writes
 * no log: what an operator should hear goes to the observer. */
#ifndef OB_WORKER_WORKER_H
#define OB_WORKER_WORKER_H

#include <sys/types.h>

#include "core/handler.h"
#include "exec/spawn_client.h"

enum worker_event_kind {
    WORKER_READY,          /* it takes jobs; ms since it was started */
    WORKER_ENDED,          /* as it was told to; text: how */
    WORKER_DIED,           /* by itself; text: how; retry_ms: no other is started before */
    WORKER_NOT_READY,      /* ended, or was killed, before it was ready; text, retry_ms */
    WORKER_TIMED_OUT,      /* a job was late: it is being ended */
    WORKER_PROTOCOL_ERROR, /* it was killed; text: what was wrong, and the head of its line */
    WORKER_STDERR          /* text: a line of its standard error */
};

struct worker_event {
    enum worker_event_kind kind;
    const char *task;
    pid_t pid;           /* -1: not known yet */
    const char *text;    /* NULL: none */
    uint64_t ms;         /* how long it has run */
    uint64_t jobs;       /* that it was given */
    uint64_t retry_ms;   /* 0: none */
    uint64_t suppressed; /* lines that were left out before this one */
};
/* May not call the executor. */
typedef void (*worker_observer)(void *arg, const struct worker_event *event);

/* Borrows the client, which outlives it. Ignores SIGPIPE for the process. */
int worker_executor_new(uv_loop_t *loop, struct spawn_client *client, worker_observer observer,
                        void *arg, struct executor **ret_executor) OB_MUST_CHECK;

/* The tasks that are in force, those of other handlers among them; borrowed until the next call.
 * Starts what is to run without jobs. Processes of a task that is gone, or would be run otherwise
 * now, finish what they have and end; what they were not given yet is released. Runs of any other
 * task are released at their start. */
void worker_executor_configure(struct executor *ex, const struct task_config *tasks, size_t count);
/* As if there were no tasks: the dispatcher stops. is_kill: and everything is killed at once. */
void worker_executor_retire(struct executor *ex, bool is_kill);

#endif
