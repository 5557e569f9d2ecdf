/* lane.h - the slots of each task: how many jobs may be claimed for it now, and why not.
 *
 * One struct lane a task that has, or has had, a handler. Lanes live until the end (a reload may
 * take the handler away while jobs run). No I/O here. */
#ifndef OB_CORE_LANE_H
#define OB_CORE_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/list.h"
#include "core/outcome.h"
#include "db/store.h"

struct lane {
    char *task;
    const struct task_config *config; /* in the lanes' configuration; NULL: no handler any more */
    unsigned running;                 /* executions that hold a slot */
    int claimed;                      /* what the newest claim brought, while it is counted */
    bool is_dry;                      /* the last claim brought less than was asked for */
    uint64_t paused_until_ms;         /* misconfigured: not before (clock_mono_ms) */
    unsigned pauses;                  /* in a row */
};

struct lanes {
    struct config *config; /* referenced */
    struct lane **items;   /* sorted by task */
    size_t count;
    size_t turn; /* where the next handing-out of slots begins: rotates, so that nobody starves */
    unsigned process_running;
    uint64_t spawn_paused_until_ms; /* no process was to be had */
};

void lanes_init(struct lanes *l, struct config *config);
void lanes_deinit(struct lanes *l);
/* Another configuration: handlers are added, changed, taken away. */
void lanes_set_config(struct lanes *l, struct config *config);
struct lane *lanes_find(const struct lanes *l, const char *task); /* NULL: unknown */
/* Forget that lanes were empty: a look begins. */
void lanes_wet_all(struct lanes *l);
/* True when no lane with free slots may still have jobs. */
bool lanes_are_dry(const struct lanes *l, uint64_t now_ms);
/* True when a claim now could bring something: a lane that may have jobs has a free slot. */
bool lanes_have_room(const struct lanes *l, uint64_t now_ms);
/* Fills wants (room for l->count) with the slots to claim for, and returns how many tasks. */
size_t lanes_wants(struct lanes *l, uint64_t now_ms, struct store_want *wants);
/* What a claim brought for a task it was asked for. */
void lane_claimed(struct lane *lane, int asked, int got);
/* task is what the execution started with: a reload may have changed the lane's since. */
void lanes_slot_taken(struct lanes *l, struct lane *lane, const struct task_config *task);
void lanes_slot_freed(struct lanes *l, struct lane *lane, const struct task_config *task);
/* Learns from an outcome: pauses a misconfigured task (1 s doubling to 5 min) or all spawning (1
 * s). Returns the pause's length in ms if one began now, else 0. */
uint64_t lanes_note_outcome(struct lanes *l, struct lane *lane, const struct outcome *o,
                            uint64_t now_ms);
/* When the earliest pause that is not over ends (clock_mono_ms); UINT64_MAX: nothing is paused. */
uint64_t lanes_pause_end(const struct lanes *l, uint64_t now_ms);

#endif
