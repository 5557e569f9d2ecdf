/* dispatcher_priv.h - the inside of struct dispatcher, for dispatcher.c, turn.c and runner.c alone.
 */
#ifndef OB_CORE_DISPATCHER_PRIV_H
#define OB_CORE_DISPATCHER_PRIV_H

#include <uv.h>

#include "core/dispatcher.h"
#include "core/execution.h"
#include "core/lane.h"
#include "core/session.h"
#include "exec/spawn_client.h"

enum stop_phase {
    PHASE_RUNNING,
    PHASE_FINISHING,   /* no claims; what runs may finish; `stop_timer` is set for TERMINATING */
    PHASE_TERMINATING, /* what runs was told to end; `stop_timer` is set for KILLING */
    PHASE_KILLING,     /* what runs was killed; `stop_timer` is set for giving up on the database */
    PHASE_CLOSING      /* nothing runs; handles are being closed */
};

enum { EXECUTOR_KINDS = HANDLER_DISCARD + 1, SIGNALS = 5 };

struct dispatcher {
    uv_loop_t loop;
    const struct dispatcher_options *options;
    struct session *session;
    struct lanes lanes;
    struct spawn_client *spawn;
    struct executor
        *executors[EXECUTOR_KINDS]; /* made when first needed; shell and exec share one */

    struct list executions; /* all of them */
    struct list results;    /* FINISHED, waiting for the next turn */
    size_t executions_count;

    /* turns */
    uv_timer_t turn_timer; /* coalesces reasons for a turn within one loop iteration */
    uv_timer_t poll_timer; /* the look that needs no notification */
    uv_timer_t due_timer;  /* a scheduled job falls due */
    unsigned
        turn_pending; /* answers that the turn under way still waits for; 0: none is under way */
    bool look_wanted; /* somebody enqueued, or it is time: every lane may have jobs */
    bool due_wanted;
    bool is_quiet; /* USR1: no claims */
    enum session_lease lease;
    uint64_t due_at_ms;       /* what due_timer is set for; UINT64_MAX: nothing */
    struct store_want *wants; /* what the claim under way asked for */
    size_t wants_count;
    struct config *wants_config; /* referenced: what it brings runs as configured when asked for */
    bool is_claim_unknown; /* the connection was lost with a claim under way: it may own jobs */

    /* stopping */
    enum stop_phase phase;
    uv_timer_t stop_timer;
    uv_timer_t stats_timer;
    uv_signal_t signals[SIGNALS];
    int exit_code;
    unsigned closing_handles;

    struct { /* since the last line of figures */
        uint64_t done;
        uint64_t retried;
        uint64_t dead;
        uint64_t released;
        uint64_t lost;
    } stats;
};

/* turn.c */
void turn_init(struct dispatcher *d);
void turn_kick(struct dispatcher *d);     /* there is something to say or to ask */
void turn_look(struct dispatcher *d);     /* ... and every lane may have jobs */
void turn_ready(struct dispatcher *d);    /* the session is ready: look, and look for due jobs */
void turn_reloaded(struct dispatcher *d); /* another configuration is in force */
void turn_unready(
    struct dispatcher *d); /* the session is not: what was under way is answered already */

/* runner.c */
/* Starts what a claim brought; its tasks are d->wants_config's, its lanes are known. */
void runner_begin(struct dispatcher *d, struct batch *batch);
void runner_fetch_again(struct dispatcher *d);      /* payloads whose fetch was cut off */
void runner_release_fetching(struct dispatcher *d); /* the dispatcher stops: gives them back */
void runner_stop_all(struct dispatcher *d, enum stop_reason reason);
/* The claims that are still ours, after a reconnect. */
void runner_adopted(struct dispatcher *d, const struct store_token *adopted, size_t n);
struct store_token *runner_tokens(struct dispatcher *d, size_t *ret_n);
bool runner_is_clear(const struct dispatcher *d);              /* nothing lost still runs */
void runner_forget(struct dispatcher *d, struct execution *e); /* recorded, or lost: frees it */

/* dispatcher.c */
bool dispatcher_may_start(const struct dispatcher *d); /* a job that was claimed */
struct executor *dispatcher_executor(struct dispatcher *d,
                                     enum handler_kind kind); /* NULL: can't be made */
void dispatcher_idle(
    struct dispatcher *d); /* an execution ended or a turn is over: perhaps the end is reached */

#endif
