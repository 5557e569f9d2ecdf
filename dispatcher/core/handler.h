/* handler.h - the interface between core and the executors. Vocabulary: includes base/ and
 * outcome.h.
 *
 * core owns a struct run for each claimed job that executes; an executor starts it, and calls
 * run_finish() exactly once, never from inside start(). Between the two, core may ask it to stop.
 * No executor knows the database; core knows no executor but through struct executor.
 *
 * When you change this: exec/command.c, webhook/http.c, core/lane.c and cmd/try.c. */
#ifndef OB_CORE_HANDLER_H
#define OB_CORE_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/config.h"
#include "base/list.h"
#include "core/job.h"
#include "core/outcome.h"

enum stop_reason {
    STOP_SHUTDOWN, /* TERM now, KILL when asked again or after the grace; the outcome is RELEASE */
    STOP_KILL,     /* at once */
    STOP_LOST,     /* the lease is ending: as SHUTDOWN; the outcome will be discarded */
    STOP_CANCEL    /* cancelled or requeued: TERM now, KILL after the grace; a transfer is dropped.
                    * Of the outcome only DONE counts: core makes anything else the end asked for */
};

struct run;
typedef void (*run_done_cb)(struct run *run, const struct outcome *outcome);

/* One execution. The executor's own state hangs on `executor_data`; everything else is core's. */
struct run {
    const struct job *job;
    const struct task_config *task;
    const void *body; /* the payload as the handler gets it (JSON, or the stored bytes) */
    size_t body_len;
    const char *content_type; /* "application/json", "application/msgpack" */
    uint64_t started_mono_ms; /* set by run_start */
    uint64_t started_unix_us;
    struct executor *executor;
    void *executor_data; /* NULL before start and after the end */
    run_done_cb on_done;
    void *owner; /* core's lane, or try's state */
};

struct executor_ops {
    const char *name;
    /* Begins the run. 0: run_finish() follows, later. Negative: it never will, and nothing started;
     * ret_outcome (RELEASE, usually) says why. run->task->timeout_ms is the executor's to
     * enforce. */
    int (*start)(struct executor *ex, struct run *run, struct outcome *ret_outcome);
    /* Asks a started run to end. May come several times, each time the same or harsher. */
    void (*stop)(struct executor *ex, struct run *run, enum stop_reason reason);
    /* May be NULL: any number of runs may begin at any time. How many more of the task could begin
     * now; 0: none before *ret_until_ms (clock_mono_ms; UINT64_MAX: before a run ends). What is
     * started nevertheless is refused, and its job RELEASEd. */
    unsigned (*room)(struct executor *ex, const struct task_config *task, uint64_t now_ms,
                     uint64_t *ret_until_ms);
    /* May be NULL. Another configuration is about to be in force; runs under way keep theirs. The
     * one before is not looked at any more, unless by them. */
    void (*configure)(struct executor *ex, const struct config *config);
    /* No run is left. Releases everything; cb when the loop holds nothing of it any more. */
    void (*close)(struct executor *ex, void (*cb)(struct executor *ex));
};

struct executor {
    const struct executor_ops *ops;
    uv_loop_t *loop;
    void *owner; /* whose close callback it is */
};

/* Empties ret_outcome, sets the start times and calls ops->start. */
int run_start(struct run *run, struct outcome *ret_outcome) OB_MUST_CHECK;
/* Fills duration and start time in the outcome, clears executor_data and calls on_done. Called by
 * executors, once a run. The run may be freed inside: touch nothing of it afterwards. */
void run_finish(struct run *run, struct outcome *outcome);

#endif
