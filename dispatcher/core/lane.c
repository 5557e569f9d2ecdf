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
    SPAWN_PAUSE_MS = 1000
};

static bool is_process(const struct task_config *t)
{
    return t->kind == HANDLER_SHELL || t->kind == HANDLER_EXEC || t->kind == HANDLER_WORKER;
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

void lanes_set_config(struct lanes *l, struct config *config)
{
    struct config *old = l->config;
    size_t known = l->count;
    l->config = config_ref(config);
    for (size_t i = 0; i < known; i++) {
        l->items[i]->config = config_find_task(config, l->items[i]->task);
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
        l->items[l->count++] = lane;
    }
    if (l->count > 1)
        qsort(l->items, l->count, sizeof *l->items, compare_lanes);
    config_unref(old);
}

void lanes_wet_all(struct lanes *l)
{
    for (size_t i = 0; i < l->count; i++)
        l->items[i]->is_dry = false;
}

/* Free slots of the lane itself, whatever the daemon's own limit. */
static unsigned free_slots(const struct lane *lane, uint64_t now_ms)
{
    if (lane->config == NULL || lane->is_dry || now_ms < lane->paused_until_ms)
        return 0;
    if (lane->running >= lane->config->concurrency)
        return 0;
    unsigned n = lane->config->concurrency - lane->running;
    return n < SLOTS_PER_CLAIM_MAX ? n : SLOTS_PER_CLAIM_MAX;
}

static unsigned free_processes(const struct lanes *l, uint64_t now_ms)
{
    if (now_ms < l->spawn_paused_until_ms || l->process_running >= l->config->concurrency)
        return 0;
    return l->config->concurrency - l->process_running;
}

bool lanes_are_dry(const struct lanes *l, uint64_t now_ms)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i]->config != NULL && !l->items[i]->is_dry)
            return false;
    }
    return now_ms >= l->spawn_paused_until_ms;
}

bool lanes_have_room(const struct lanes *l, uint64_t now_ms)
{
    bool has_process = free_processes(l, now_ms) > 0;
    for (size_t i = 0; i < l->count; i++) {
        if (free_slots(l->items[i], now_ms) > 0 &&
            (has_process || !is_process(l->items[i]->config)))
            return true;
    }
    return false;
}

size_t lanes_wants(struct lanes *l, uint64_t now_ms, struct store_want *wants)
{
    unsigned processes = free_processes(l, now_ms);
    unsigned askers = 0;
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (free_slots(l->items[i], now_ms) > 0 && is_process(l->items[i]->config))
            askers++;
    }
    /* An even share each: who has less to run than its share turns out dry and is left out next
     * time. */
    unsigned share = askers > 0 && processes > askers ? processes / askers : 1;
    for (size_t k = 0; k < l->count; k++) {
        struct lane *lane = l->items[(l->turn + k) % l->count];
        unsigned slots = free_slots(lane, now_ms);
        if (slots == 0)
            continue;
        if (is_process(lane->config)) {
            slots = slots < share ? slots : share;
            slots = slots < processes ? slots : processes;
            processes -= slots;
        }
        if (slots > 0)
            wants[n++] = (struct store_want){.task = lane->task, .slots = (int)slots};
    }
    l->turn = l->count > 0 ? (l->turn + 1) % l->count : 0;
    return n;
}

void lane_claimed(struct lane *lane, int asked, int got)
{
    lane->is_dry = got < asked;
}

void lanes_slot_taken(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    lane->running++;
    if (is_process(task))
        l->process_running++;
}

void lanes_slot_freed(struct lanes *l, struct lane *lane, const struct task_config *task)
{
    ob_assert(lane->running > 0);
    lane->running--;
    if (!is_process(task))
        return;
    ob_assert(l->process_running > 0);
    l->process_running--;
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
        uint64_t until = l->items[i]->paused_until_ms;
        if (l->items[i]->config != NULL && until > now_ms && until < end)
            end = until;
    }
    return end;
}
