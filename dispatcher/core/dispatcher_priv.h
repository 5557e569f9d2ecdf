/* dispatcher_priv.h - the inside of struct dispatcher, for dispatcher.c, turn.c, results.c,
 * wake.c, runner.c, ahead.c, control.c, executors.c and workers.c alone. */
#ifndef OB_CORE_DISPATCHER_PRIV_H
#define OB_CORE_DISPATCHER_PRIV_H

#include <uv.h>

#include "core/dispatcher.h"
#include "core/execution.h"
#include "core/session.h"
#include "core/stream.h"
#include "core/walk.h"
#include "exec/spawn_client.h"

enum stop_phase {
    PHASE_RUNNING,
    PHASE_FINISHING,   /* no claims; what runs may finish; `stop_timer` is set for TERMINATING */
    PHASE_TERMINATING, /* what runs was told to end; `stop_timer` is set for KILLING */
    PHASE_KILLING,     /* what runs was killed; `stop_timer` is set for giving up on the database */
    PHASE_CLOSING      /* nothing runs; handles are being closed */
};

enum { EXECUTOR_KINDS = HANDLER_DISCARD + 1, SIGNALS = 5 };

struct wake {
    uint64_t *watch; /* running transactions that may not have felt our locks */
    size_t watch_count;
    uint64_t watch_since_ms;
    uint64_t pruned_ms;
    uint64_t step_ms;       /* until the next look at them */
    uint64_t fall_after_ms; /* a lock was refused: not before */
    unsigned load;          /* jobs that came lately, decaying */
    uint64_t load_ms;
    bool is_busy;      /* by that load: awake without being asked */
    bool wants_sleep;  /* the next turn takes the locks */
    bool is_falling;   /* the look under way comes after them */
    bool was_notified; /* since the last look */
};

struct control {
    int64_t *cancelled; /* jobs of ours that are to end, as the newest orders say */
    size_t cancelled_count;
    struct store_token *requeued; /* runs that are to end, and to be given back */
    size_t requeued_count;
    char **paused; /* tasks, handled here or not */
    size_t paused_count;
};

struct dispatcher {
    uv_loop_t loop;
    const struct dispatcher_options *options;
    struct session *session;
    struct lanes lanes;
    struct stream stream;
    struct wake wake;
    struct control control;
    struct spawn_client *spawn;
    struct executor
        *executors[EXECUTOR_KINDS]; /* by kind; shell and exec share one. NULL: not configured */

    struct list executions; /* all of them */
    struct list results;    /* FINISHED, waiting for the next turn */
    size_t executions_count;

    /* turns */
    uv_prepare_t turn_prepare; /* coalesces reasons for a turn within one loop iteration */
    uv_idle_t turn_idle;
    uv_timer_t turn_timer; /* after a refusal: not before */
    uv_timer_t poll_timer; /* the look that needs no notification */
    uv_timer_t due_timer;  /* a scheduled job falls due, or a pause ends */
    uv_timer_t look_timer; /* the next look while awake, or while something is watched */
    uv_timer_t sweep_timer;
    uv_timer_t ahead_timer; /* something has waited for its slot for too long */
    unsigned
        turn_pending; /* answers that the turn under way still waits for; 0: none is under way */
    uint64_t turn_ms; /* when the newest one began */
    bool turn_skips_locked;     /* it does not wait for locked rows */
    uint64_t locks_expected_ms; /* until then none does */
    bool is_pacing;   /* turn_timer is set for the pace: not needed if slots are free before */
    bool look_wanted; /* somebody enqueued, or it is time */
    bool poll_wanted; /* a look even without a slot */
    bool is_quiet;    /* USR1: no claims */
    bool is_serving;  /* slots that freed are being given away */
    enum session_lease lease;
    uint64_t due_at_ms;              /* what due_timer is set for; UINT64_MAX: nothing */
    struct lanes_asked *sweep_asked; /* what the slow check under way was told */
    struct config *begin_config;     /* while runner_begin() runs: what its jobs run as */
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
void turn_look(struct dispatcher *d);     /* ... in the stream */
void turn_ready(struct dispatcher *d);    /* the session is ready: look, and look for due jobs */
void turn_reloaded(struct dispatcher *d); /* another configuration is in force */
void turn_unready(
    struct dispatcher *d); /* the session is not: what was under way is answered already */

void turn_answered(struct dispatcher *d); /* one of the answers that the turn waits for came */

void turn_look_in(struct dispatcher *d, uint64_t ms); /* the earliest such time is kept */

/* results.c */
enum { RESULTS_PER_TURN = 1000 };
bool results_wait(const struct dispatcher *d); /* some may be sent now */
void results_await(struct dispatcher *d);      /* sets a turn for those whose pause goes on */
/* Takes some for a turn: as many as fit; fewer with one that was refused before. The rest has its
 * turn at once. executions has room for RESULTS_PER_TURN. */
size_t results_take(struct dispatcher *d, struct execution **executions);
bool results_skip_locked(const struct dispatcher *d);
void results_settled(struct dispatcher *d, struct execution *const *executions, size_t n,
                     const struct pg_error *error, const struct store_turned *turned);

/* wake.c */
void wake_notified(struct dispatcher *d);
bool wake_is_busy(struct dispatcher *d);         /* jobs come fast: awake without being asked */
bool wake_is_asleep(const struct dispatcher *d); /* who enqueues for a free slot will notify */
void wake_before_turn(struct dispatcher *d); /* sends what sleeping, or staying awake, asks for */
/* Whether a look should say which transactions were running. */
bool wake_wants_running(const struct dispatcher *d);
void wake_looked(struct dispatcher *d, const struct seen *seen, size_t claimed);
void wake_settle(struct dispatcher *d); /* nothing is left to do: sleep, or look again soon */
void wake_unwatch_all(struct dispatcher *d);
void wake_reset(struct dispatcher *d); /* the connection is another one, or gone */
void wake_deinit(struct dispatcher *d);

/* runner.c */
/* Starts what a look brought; its tasks are d->begin_config's, its lanes are known. */
void runner_begin(struct dispatcher *d, struct batch *batch);
void runner_fetch_again(struct dispatcher *d); /* payloads whose fetch was cut off */
/* Gives back what has not begun: the dispatcher stops, or its lease ends. */
void runner_release_unstarted(struct dispatcher *d);
/* One that waited for its slot: it has one, or may not begin any more; begins, or is given back. */
bool runner_may_go_on(const struct dispatcher *d, const struct execution *e);
void runner_go_on(struct dispatcher *d, struct execution *e);
void runner_give_back(struct dispatcher *d, struct execution *e, const char *why);
void runner_stop_all(struct dispatcher *d, enum stop_reason reason);
/* Ends what runs of this job, if anything does: somebody cancelled it. */
void runner_cancel(struct dispatcher *d, int64_t id);
/* Ends this run, if it goes on still: its job is to be ready again. */
void runner_requeue(struct dispatcher *d, const struct store_token *token);
/* The claims that are still ours, after a reconnect. */
void runner_adopted(struct dispatcher *d, const struct store_token *adopted, size_t n);
struct store_token *runner_tokens(struct dispatcher *d, size_t *ret_n);
bool runner_is_clear(const struct dispatcher *d);              /* nothing lost still runs */
void runner_forget(struct dispatcher *d, struct execution *e); /* recorded, or lost: frees it */

/* control.c */
/* What operators ask for: ends jobs, pauses tasks, lets others go. */
void control_orders(void *arg, const struct store_orders *orders);
void control_reloaded(struct dispatcher *d); /* tasks that are new here may be paused */
void control_limits(struct dispatcher *d);   /* writes max_ready of the tasks that have one */
bool control_is_cancelled(const struct dispatcher *d, int64_t id); /* it is not to begin */
bool control_is_requeued(const struct dispatcher *d, const struct job *job); /* nor this run */
/* An outcome says that the whole task shall rest. */
void control_pause(struct dispatcher *d, const struct execution *e);
/* Of a run that an operator ended: what it is recorded as, unless it is done. */
void control_ended_outcome(struct outcome *o, const char *why);
/* Asked to drain, and nothing is left that could run. Logs if it could not all. */
bool control_is_drained(const struct dispatcher *d);
void control_deinit(struct dispatcher *d);

/* ahead.c */
void ahead_init(struct dispatcher *d);
void ahead_wait(struct dispatcher *d, struct execution *e); /* it has no slot yet */
void ahead_remove(struct dispatcher *d, struct execution *e);
void ahead_slot_freed(struct dispatcher *d, const struct lane *lane, bool is_process);
void ahead_review(struct dispatcher *d); /* something may not begin any more */

/* executors.c */
/* Another configuration is about to be in force, or the first one is: makes what is missing. */
void executors_configure(struct dispatcher *d, const struct config *config);
struct executor *executors_find(const struct dispatcher *d,
                                enum handler_kind kind); /* NULL: it could not be made */
unsigned executors_room(void *arg, const struct task_config *task, uint64_t now_ms,
                        uint64_t *ret_until_ms); /* arg: struct dispatcher; as lanes_room_fn */
void executors_retire(struct dispatcher *d, bool is_kill); /* the dispatcher stops */
void executors_close(struct dispatcher *d);                /* and then the spawner */

/* workers.c */
int workers_new(struct dispatcher *d, struct executor **ret_executor) OB_MUST_CHECK;

/* dispatcher.c */
bool dispatcher_may_start(const struct dispatcher *d); /* a job that was claimed */
void dispatcher_idle(
    struct dispatcher *d); /* an execution ended or a turn is over: perhaps the end is reached */

#endif
