/* lane.h - the slots of each task, and the backlog of each of its lanes: how many jobs may be
 * claimed for it now, why not, and where what is waiting begins.
 *
 * One struct lane a task that has, or has had, a handler; it holds the lanes of all priorities. It
 * lives until the end (a reload may take the handler away while jobs run). No I/O here. */
#ifndef OB_CORE_LANE_H
#define OB_CORE_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/list.h"
#include "core/outcome.h"

enum { PRIORITIES = 4 };

/* Ready rows of one priority that nobody claimed yet: known to exist from (xid, id) on, in the
 * order of the stream. Everything of the lane before it was claimed, or is to be revisited; and
 * what comes after its end the stream finds. */
struct backlog {
    bool is_open;
    uint64_t xid;
    int64_t id;
};

struct run_times {     /* of runs that ended */
    uint64_t run_us;   /* how long one takes, smoothed; 0: not known */
    uint64_t bytes;    /* its payload, the same */
    uint64_t ended_us; /* when one ended last (clock_mono_us) */
};

struct lane {
    char *task;
    const struct task_config *config; /* in the lanes' configuration; NULL: no handler any more */
    unsigned running;                 /* executions that hold a slot, or wait for one */
    unsigned waiting;                 /* of these: claimed ahead, and not begun (ahead.c) */
    unsigned ahead;                   /* so many may be claimed beyond the concurrency */
    struct list ahead_list;           /* those that wait, in the order of their claims */
    struct run_times times;
    int claimed; /* what the newest look brought, while it is counted */
    struct backlog backlogs[PRIORITIES];
    bool is_watched;          /* we hold its lock: producers notify */
    bool is_paused;           /* by an operator: nothing is claimed */
    uint64_t paused_until_ms; /* misconfigured: not before (clock_mono_ms) */
    unsigned pauses;          /* in a row */
};

/* How many more runs of a task its executor could begin; 0: none before *ret_until_ms. As
 * executor_ops.room. */
typedef unsigned (*lanes_room_fn)(void *arg, const struct task_config *task, uint64_t now_ms,
                                  uint64_t *ret_until_ms);

struct lanes {
    struct config *config; /* referenced */
    lanes_room_fn room;    /* NULL: any number */
    void *room_arg;
    struct lane **items; /* sorted by task */
    size_t count;
    uint64_t walk_xid; /* where the last walk of many lanes began */
    int64_t walk_id;
    unsigned walk_pause;      /* looks until the next such walk: the last ones found little */
    unsigned walk_backoff;    /* the pause after the last one */
    unsigned process_running; /* as lane.running, of all commands */
    unsigned process_waiting;
    unsigned process_ahead;
    struct run_times process_times;
    unsigned suspects; /* executions of jobs that were lost before: they may bring us down */
    uint64_t spawn_paused_until_ms; /* no process was to be had */
};

void lanes_init(struct lanes *l, struct config *config);
void lanes_deinit(struct lanes *l);
/* Another configuration: handlers are added, changed, taken away. */
void lanes_set_config(struct lanes *l, struct config *config);
struct lane *lanes_find(const struct lanes *l, const char *task); /* NULL: unknown */
/* Another connection: every lane is open from the beginning, and none is watched. */
void lanes_forget(struct lanes *l);
/* Exactly these tasks are paused from now on. Returns true if one was let go: there may be work.
 * Each change is told. */
typedef void (*lanes_paused_cb)(const struct lane *lane, void *arg);
bool lanes_set_paused(struct lanes *l, const char *const *tasks, size_t n, lanes_paused_cb cb,
                      void *arg);
/* True when no job is known to wait for a handler that we have, and that could run it: what is
 * paused, by an operator or because its handler is misconfigured, is not waited for. */
bool lanes_are_empty(const struct lanes *l);
/* True when jobs are known to wait for a handler that cannot run: it is misconfigured. */
bool lanes_are_stuck(const struct lanes *l);
bool task_is_process(const struct task_config *t);
/* Free slots of the lane itself, whatever the daemon's own limit; and of that. */
unsigned lane_free_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms);
unsigned lanes_free_processes(const struct lanes *l, uint64_t now_ms);
/* True when a look now could claim something of a task. */
bool lane_has_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms);
bool lanes_have_slots(const struct lanes *l, uint64_t now_ms);
/* True when at least half of the slots that wait for work have some: of every lane with a backlog.
 */
bool lanes_are_busy(const struct lanes *l, uint64_t now_ms);
/* True when it would: a lane with a backlog has a free slot. */
bool lanes_have_work(const struct lanes *l, uint64_t now_ms);

/* How much may be claimed ahead from now on: what short runs that end all the time leave room for
 * until a turn has been to the server and back. */
void lanes_plan_ahead(struct lanes *l, uint64_t now_us);
/* A run took so long (microseconds), with a payload of so many bytes, and ended now. */
void lanes_note_run(struct lanes *l, struct lane *lane, const struct task_config *task,
                    uint64_t run_us, size_t bytes, uint64_t now_us);
/* True when a job of the lane may begin: fewer run than may. */
bool lanes_slot_is_free(const struct lanes *l, const struct lane *lane,
                        const struct task_config *task);
/* It waits for its slot; not any more. */
void lanes_wait(struct lanes *l, struct lane *lane, const struct task_config *task);
void lanes_wait_over(struct lanes *l, struct lane *lane, const struct task_config *task);
/* task is what the execution started with: a reload may have changed the lane's since. */
void lanes_slot_taken(struct lanes *l, struct lane *lane, const struct task_config *task);
void lanes_slot_freed(struct lanes *l, struct lane *lane, const struct task_config *task);
/* Learns from an outcome: pauses a misconfigured task (1 s doubling to 5 min) or all spawning (1
 * s). Returns the pause's length in ms if one began now, else 0. */
uint64_t lanes_note_outcome(struct lanes *l, struct lane *lane, const struct outcome *o,
                            uint64_t now_ms);
/* When the earliest pause or hold that is not over ends (clock_mono_ms); UINT64_MAX: nothing is
 * paused, or nobody knows for how long. */
uint64_t lanes_pause_end(const struct lanes *l, uint64_t now_ms);

#endif
