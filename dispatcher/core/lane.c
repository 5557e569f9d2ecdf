/* lane.c - see lane.h. */
#include "core/lane.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

enum {
    SLOTS_PER_CLAIM_MAX = 1000,
    PAUSE_FIRST_MS = 1000,
    PAUSE_MAX_MS = 300000,
    SPAWN_PAUSE_MS = 1000,
    AHEAD_US = 50000,              /* work for so long is claimed ahead, */
    AHEAD_MAX = 1000,              /* at most so many jobs of all tasks, */
    AHEAD_BYTES = 4 * 1024 * 1024, /* and so much payload */
    WHOLE = 1000000
};

bool task_is_process(const struct task_config *t)
{
    return t->kind == HANDLER_SHELL || t->kind == HANDLER_EXEC; /* a worker counts its own */
}

static int compare_lanes(const void *a, const void *b)
{
    const struct lane *const *x = a;
    const struct lane *const *y = b;
    return strcmp((*x)->task, (*y)->task);
}

struct lane *lanes_find(const struct lanes *l, const char *task)
{
    size_t low = 0;
    size_t high = l->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(task, l->items[mid]->task);
        if (order == 0)
            return l->items[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

void lanes_init(struct lanes *l, struct config *config)
{
    memset(l, 0, sizeof *l);
    lanes_set_config(l, config);
}

void lanes_deinit(struct lanes *l)
{
    for (size_t i = 0; i < l->count; i++) {
        ob_free(l->items[i]->task);
        ob_free(l->items[i]);
    }
    ob_free(l->items);
    config_unref(l->config);
    memset(l, 0, sizeof *l);
}

static void open_backlogs(struct lane *lane)
{
    for (size_t i = 0; i < PRIORITIES; i++)
        lane->backlogs[i] = (struct backlog){.is_open = true};
}

void lanes_set_config(struct lanes *l, struct config *config)
{
    struct config *old = l->config;
    size_t known = l->count;
    l->config = config_ref(config);
    for (size_t i = 0; i < known; i++) {
        bool had_handler = l->items[i]->config != NULL;
        l->items[i]->config = config_find_task(config, l->items[i]->task);
        if (!had_handler && l->items[i]->config != NULL)
            open_backlogs(l->items[i]); /* the stream passed its jobs over */
        l->items[i]->ahead = 0;
        l->items[i]->times.run_us = 0;    /* another handler, perhaps */
        l->items[i]->paused_until_ms = 0; /* the reload may be the repair */
        l->items[i]->pauses = 0;
    }
    l->items = ob_xrealloc(l->items, (known + config->tasks_count) * sizeof *l->items);
    for (size_t i = 0; i < config->tasks_count; i++) {
        const struct task_config *t = &config->tasks[i];
        struct lanes before = {.items = l->items, .count = known};
        if (lanes_find(&before, t->name) != NULL)
            continue;
        struct lane *lane = ob_xcalloc(1, sizeof *lane);
        lane->task = ob_xstrdup(t->name);
        lane->config = t;
        list_init(&lane->ahead_list);
        open_backlogs(lane);
        l->items[l->count++] = lane;
    }
    if (l->count > 1)
        qsort(l->items, l->count, sizeof *l->items, compare_lanes);
    config_unref(old);
}

void lanes_forget(struct lanes *l)
{
    for (size_t i = 0; i < l->count; i++) {
        open_backlogs(l->items[i]);
        l->items[i]->is_watched = false;
    }
    l->walk_xid = 0;
    l->walk_id = 0;
    l->walk_pause = 0;
    l->walk_backoff = 0;
}

/* What the executor leaves of n slots; 0: until when. */
static unsigned room_for(const struct lanes *l, const struct lane *lane, unsigned n,
                         uint64_t now_ms, uint64_t *ret_until_ms)
{
    unsigned room = l->room != NULL ? l->room(l->room_arg, lane->config, now_ms, ret_until_ms) : n;
    return n < room ? n : room;
}

unsigned lane_free_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms)
{
    uint64_t until_ms = 0;
    if (lane->config == NULL || lane->is_paused || now_ms < lane->paused_until_ms)
        return 0;
    unsigned limit = lane->config->concurrency + lane->ahead;
    if (lane->running >= limit)
        return 0;
    /* What waits already will take its share of the executor's room. */
    unsigned n = limit - lane->running + lane->waiting;
    n = room_for(l, lane, n, now_ms, &until_ms);
    n = n > lane->waiting ? n - lane->waiting : 0;
    return n < SLOTS_PER_CLAIM_MAX ? n : SLOTS_PER_CLAIM_MAX;
}

unsigned lanes_free_processes(const struct lanes *l, uint64_t now_ms)
{
    unsigned limit = l->config->concurrency + l->process_ahead;
    if (now_ms < l->spawn_paused_until_ms || l->process_running >= limit)
        return 0;
    return limit - l->process_running;
}

static bool has_backlog(const struct lane *lane)
{
    for (size_t i = 0; i < PRIORITIES; i++) {
        if (lane->backlogs[i].is_open)
            return true;
    }
    return false;
}

bool lanes_are_empty(const struct lanes *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct lane *lane = l->items[i];
        if (lane->config != NULL && !lane->is_paused && lane->pauses == 0 && has_backlog(lane))
            return false;
    }
    return true;
}

bool lanes_are_stuck(const struct lanes *l)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i]->config != NULL && l->items[i]->pauses > 0 && has_backlog(l->items[i]))
            return true;
    }
    return false;
}

static bool has_name(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

bool lanes_set_paused(struct lanes *l, const char *const *tasks, size_t n, lanes_paused_cb cb,
                      void *arg)
{
    bool is_any_resumed = false;
    for (size_t i = 0; i < l->count; i++) {
        struct lane *lane = l->items[i];
        bool is_paused = has_name(tasks, n, lane->task);
        if (is_paused == lane->is_paused)
            continue;
        lane->is_paused = is_paused;
        is_any_resumed = is_any_resumed || !is_paused;
        cb(lane, arg);
    }
    return is_any_resumed;
}

bool lane_has_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms)
{
    return lane_free_slots(l, lane, now_ms) > 0 &&
           (!task_is_process(lane->config) || lanes_free_processes(l, now_ms) > 0);
}

bool lanes_have_slots(const struct lanes *l, uint64_t now_ms)
{
    for (size_t i = 0; i < l->count; i++) {
        if (lane_has_slots(l, l->items[i], now_ms))
            return true;
    }
    return false;
}

bool lanes_are_busy(const struct lanes *l, uint64_t now_ms)
{
    unsigned processes = lanes_free_processes(l, now_ms);
    for (size_t i = 0; i < l->count; i++) {
        const struct lane *lane = l->items[i];
        unsigned slots = lane_free_slots(l, lane, now_ms);
        if (slots == 0)
            continue; /* no handler, paused, or all in use */
        bool shares = task_is_process(lane->config);
        unsigned of = lane->config->concurrency + lane->ahead;
        if (shares && l->config->concurrency + l->process_ahead < of)
            of = l->config->concurrency + l->process_ahead;
        if (shares && processes < slots)
            slots = processes;
        if (has_backlog(lane) && slots > of / 2)
            return false;
    }
    return true;
}

bool lanes_have_work(const struct lanes *l, uint64_t now_ms)
{
    for (size_t i = 0; i < l->count; i++) {
        if (has_backlog(l->items[i]) && lane_has_slots(l, l->items[i], now_ms))
            return true;
    }
    return false;
}

void lanes_slot_taken(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    lane->running++;
    if (task_is_process(task))
        l->process_running++;
}

void lanes_slot_freed(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    ob_assert(lane->running > 0);
    lane->running--;
    if (!task_is_process(task))
        return;
    ob_assert(l->process_running > 0);
    l->process_running--;
}

bool lanes_slot_is_free(const struct lanes *l, const struct lane *lane,
                        const struct task_config *task)
{
    if (lane->running - lane->waiting >= task->concurrency)
        return false;
    return !task_is_process(task) ||
           l->process_running - l->process_waiting < l->config->concurrency;
}

void lanes_wait(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    lane->waiting++;
    if (task_is_process(task))
        l->process_waiting++;
}

void lanes_wait_over(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    ob_assert(lane->waiting > 0);
    lane->waiting--;
    if (!task_is_process(task))
        return;
    ob_assert(l->process_waiting > 0);
    l->process_waiting--;
}

/* ---- ahead ---- */

static void note_run(struct run_times *t, uint64_t run_us, size_t bytes, uint64_t now_us)
{
    bool is_first = t->run_us == 0;
    run_us = run_us > 0 ? run_us : 1;
    t->run_us = is_first ? run_us : (t->run_us * 15 + run_us + 15) / 16;
    t->bytes = is_first ? bytes : (t->bytes * 15 + bytes + 15) / 16;
    t->ended_us = now_us;
}

void lanes_note_run(struct lanes *l, struct lane *lane, const struct task_config *task,
                    uint64_t run_us, size_t bytes, uint64_t now_us)
{
    note_run(&lane->times, run_us, bytes, now_us);
    if (task_is_process(task))
        note_run(&l->process_times, run_us, bytes, now_us);
}

/* What so many slots get through in AHEAD_US; nothing when no run has ended for so long: what runs
 * now may hang. */
static unsigned plan_ahead(const struct run_times *t, unsigned slots, uint64_t now_us)
{
    if (t->run_us == 0 || now_us - t->ended_us > AHEAD_US)
        return 0;
    uint64_t n = (uint64_t)slots * AHEAD_US / t->run_us;
    uint64_t most = t->bytes > 0 ? AHEAD_BYTES / t->bytes : AHEAD_MAX;
    most = most < AHEAD_MAX ? most : AHEAD_MAX;
    return (unsigned)(n < most ? n : most);
}

/* A lane that shares slots has its part of what they all get through together: as much as the
 * others if it may have all of the slots, or those of another task would be taken for its own. */
static unsigned plan_lane(const struct lanes *l, const struct lane *lane, uint64_t now_us)
{
    const struct task_config *task = lane->config;
    if (l->suspects > 0 || task == NULL ||
        task->max_attempts == 1) /* it is not to lose that one before it has begun */
        return 0;
    unsigned own = plan_ahead(&lane->times, task->concurrency, now_us);
    if (own == 0 || !task_is_process(task))
        return own;
    unsigned all = l->config->concurrency;
    unsigned slots = task->concurrency < all ? task->concurrency : all;
    return (unsigned)((uint64_t)l->process_ahead * slots / all);
}

/* How much of what may be claimed ahead is this lane's, of a WHOLE. */
static uint64_t part_of(const struct lane *lane)
{
    uint64_t of_jobs = (uint64_t)lane->ahead * WHOLE / AHEAD_MAX;
    uint64_t of_bytes = lane->ahead * lane->times.bytes * WHOLE / AHEAD_BYTES;
    return of_jobs > of_bytes ? of_jobs : of_bytes;
}

void lanes_plan_ahead(struct lanes *l, uint64_t now_us)
{
    uint64_t sum = 0;
    l->process_ahead =
        l->suspects > 0 ? 0 : plan_ahead(&l->process_times, l->config->concurrency, now_us);
    for (size_t i = 0; i < l->count; i++) {
        l->items[i]->ahead = plan_lane(l, l->items[i], now_us);
        sum += part_of(l->items[i]);
    }
    for (size_t i = 0; i < l->count && sum > WHOLE; i++)
        l->items[i]->ahead = (unsigned)(l->items[i]->ahead * (uint64_t)WHOLE / sum);
}

uint64_t lanes_note_outcome(struct lanes *l, struct lane *lane, const struct outcome *o,
                            uint64_t now_ms)
{
    if (o->spawn_failed)
        l->spawn_paused_until_ms = now_ms + SPAWN_PAUSE_MS;
    if (!o->misconfigured) {
        if (o->kind != OUTCOME_RELEASE)
            lane->pauses = 0;
        return 0;
    }
    if (now_ms < lane->paused_until_ms)
        return 0;
    uint64_t ms = lane->pauses < 9 ? (uint64_t)PAUSE_FIRST_MS << lane->pauses : PAUSE_MAX_MS;
    ms = ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
    lane->pauses++;
    lane->paused_until_ms = now_ms + ms;
    return ms;
}

uint64_t lanes_pause_end(const struct lanes *l, uint64_t now_ms)
{
    uint64_t end = l->spawn_paused_until_ms > now_ms ? l->spawn_paused_until_ms : UINT64_MAX;
    for (size_t i = 0; i < l->count; i++) {
        const struct lane *lane = l->items[i];
        uint64_t until = lane->paused_until_ms;
        if (lane->config == NULL)
            continue;
        if (until <= now_ms && room_for(l, lane, 1, now_ms, &until) > 0)
            continue;
        if (until > now_ms && until < end)
            end = until;
    }
    return end;
}
