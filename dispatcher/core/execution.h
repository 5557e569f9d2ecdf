/* execution.h - one claimed job from its claim to its recorded result. Owned by the dispatcher;
 * counted against its lane's slots while it is fetched or runs. */
#ifndef OB_CORE_EXECUTION_H
#define OB_CORE_EXECUTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "core/handler.h"
#include "db/store.h"

struct lane;

enum execution_state {
    EXECUTION_WAITING,  /* claimed ahead: it has no slot yet */
    EXECUTION_FETCHING, /* its payload was too large for the claim: asked for, or to be asked again
                         */
    EXECUTION_RUNNING,  /* the executor has it */
    EXECUTION_FINISHED, /* its result waits to be sent; in the dispatcher's list of results */
    EXECUTION_SETTLING  /* its result is under way */
};

struct execution {
    struct list link;        /* in the dispatcher's list of all */
    struct list result_link; /* while WAITING, FINISHED or SETTLING */
    enum execution_state state;
    struct lane *lane;
    struct config *config; /* what it started with; referenced */
    struct batch *batch;
    struct job job;
    int payload_size; /* of the row; job.payload is NULL when it did not come with the claim */
    struct run run;
    struct buf
        body; /* the converted or fetched payload; unused when job.payload is passed as it is */
    struct buf fetched;
    struct outcome outcome; /* head and tail are copies, in `captured` */
    struct buf captured;
    uint64_t delay_ms;
    uint64_t since_ms; /* while WAITING: since when (clock_mono_ms) */
    uint64_t begun_us; /* clock_mono_us */
    bool is_fetch_under_way;
    bool is_lost;             /* the claim is gone: the result will be dropped */
    bool is_cancelled;        /* somebody asked for its end: unless it is done, it is cancelled */
    bool is_requeued;         /* ... for the end of this run: unless it is done, it is given back */
    size_t settle_group;      /* the server refused a batch with it: at most so many. 0: any */
    uint64_t settle_after_ms; /* it was refused alone: not before (clock_mono_ms) */
    unsigned refusals;
};

/* A new execution of c, which is a view into batch; takes a reference of both batch and config. */
struct execution *execution_new(struct lane *lane, struct config *config,
                                const struct task_config *task, struct batch *batch,
                                const struct claimed *c);
void execution_free(struct execution *e);

/* DEAD without a run: expired, attempts exhausted by claims without a result, lost too often. True
 * if so; e->outcome is set. */
bool execution_is_dead_already(struct execution *e, const struct claimed *c);
/* Prepares the body by the task's `payload` setting. Returns 0; otherwise e->outcome says what
 * became of the job (DEAD for malformed msgpack). */
int execution_prepare_body(struct execution *e) OB_MUST_CHECK;
/* It has run: what was fetched or converted is not needed while the result waits. */
void execution_drop_payload(struct execution *e);
/* Keeps the outcome, with copies of its output, and decides retry delay and death by max_attempts.
 */
void execution_keep_outcome(struct execution *e, const struct outcome *outcome);
/* And by max_age: one that would be tried again is dead if it is too old by now, which is the
 * server's clock as the job's created_at is. */
void execution_check_age(struct execution *e, int64_t now_us);

#endif
