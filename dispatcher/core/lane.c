/* lane.c - see lane.h. */
#include "core/lane.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

enum {
    SLOTS_PER_CLAIM_MAX = 1000,
    LANES_PER_LOOK = 64, /* at least so many are walked, if so many are open */
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
            open_backlogs(l->items[i]);   /* the stream passed its jobs over */
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
}

/* What the executor leaves of n slots; 0: until when. */
static unsigned room_for(const struct lanes *l, const struct lane *lane, unsigned n,
                         uint64_t now_ms, uint64_t *ret_until_ms)
{
    unsigned room = l->room != NULL ? l->room(l->room_arg, lane->config, now_ms, ret_until_ms) : n;
    return n < room ? n : room;
}

/* Free slots of the lane itself, whatever the daemon's own limit. */
static unsigned free_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms)
{
    uint64_t until_ms = 0;
    if (lane->config == NULL || now_ms < lane->paused_until_ms)
        return 0;
    if (lane->running >= lane->config->concurrency)
        return 0;
    unsigned n = lane->config->concurrency - lane->running;
    return room_for(l, lane, n < SLOTS_PER_CLAIM_MAX ? n : SLOTS_PER_CLAIM_MAX, now_ms, &until_ms);
}

static unsigned free_processes(const struct lanes *l, uint64_t now_ms)
{
    if (now_ms < l->spawn_paused_until_ms || l->process_running >= l->config->concurrency)
        return 0;
    return l->config->concurrency - l->process_running;
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
        if (l->items[i]->config != NULL && has_backlog(l->items[i]))
            return false;
    }
    return true;
}

bool lane_has_slots(const struct lanes *l, const struct lane *lane, uint64_t now_ms)
{
    return free_slots(l, lane, now_ms) > 0 &&
           (!is_process(lane->config) || free_processes(l, now_ms) > 0);
}

bool lanes_have_slots(const struct lanes *l, uint64_t now_ms)
{
    for (size_t i = 0; i < l->count; i++) {
        if (lane_has_slots(l, l->items[i], now_ms))
            return true;
    }
    return false;
}

bool lanes_have_work(const struct lanes *l, uint64_t now_ms)
{
    for (size_t i = 0; i < l->count; i++) {
        if (has_backlog(l->items[i]) && lane_has_slots(l, l->items[i], now_ms))
            return true;
    }
    return false;
}

/* ---- asking ---- */

static struct lanes_asked *new_asked(size_t lanes)
{
    struct lanes_asked *a = ob_xcalloc(1, sizeof *a);
    a->lanes = ob_xcalloc(lanes + 1, sizeof *a->lanes);
    a->tasks = ob_xcalloc(lanes + 1, sizeof *a->tasks);
    a->slots = ob_xcalloc(lanes + 1, sizeof *a->slots);
    a->shares = ob_xcalloc(lanes + 1, sizeof *a->shares);
    a->codes = ob_xcalloc(lanes * PRIORITIES + 1, sizeof *a->codes);
    a->xids = ob_xcalloc(lanes * PRIORITIES + 1, sizeof *a->xids);
    a->ids = ob_xcalloc(lanes * PRIORITIES + 1, sizeof *a->ids);
    a->limits = ob_xcalloc(lanes * PRIORITIES + 1, sizeof *a->limits);
    return a;
}

void lanes_asked_free(struct lanes_asked *a)
{
    if (a == NULL)
        return;
    ob_free(a->lanes);
    ob_free(a->tasks);
    ob_free(a->slots);
    ob_free(a->shares);
    ob_free(a->codes);
    ob_free(a->xids);
    ob_free(a->ids);
    ob_free(a->limits);
    ob_free(a);
}

struct place { /* where an open backlog begins, for sorting */
    int code;
    int priority;
    uint64_t xid;
    int64_t id;
};

/* Priority first, then age. */
static int compare_places(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;
    if (x->priority != y->priority)
        return (x->priority > y->priority) - (x->priority < y->priority);
    if (x->xid != y->xid)
        return (x->xid > y->xid) - (x->xid < y->xid);
    return (x->id > y->id) - (x->id < y->id);
}

/* The open backlogs of tasks with free slots, best first. Walked are as many as there are slots;
 * the first may fill all of them, the n-th an n-th: so one look reads few more rows than it claims.
 */
static void ask_backlogs(struct lanes_asked *a)
{
    struct place *places = ob_xcalloc(a->count * PRIORITIES + 1, sizeof *places);
    size_t n = 0;
    for (size_t i = 0; i < a->count; i++) {
        for (int p = 0; a->slots[i] > 0 && p < PRIORITIES; p++) {
            const struct backlog *b = &a->lanes[i]->backlogs[p];
            if (b->is_open)
                places[n++] =
                    (struct place){(int)i * PRIORITIES + PRIORITIES + p, p, b->xid, b->id};
        }
    }
    if (n > 1)
        qsort(places, n, sizeof *places, compare_places);
    size_t walked = a->slots_sum > LANES_PER_LOOK ? a->slots_sum : LANES_PER_LOOK;
    walked = n < walked ? n : walked;
    for (size_t i = 0; i < n; i++) {
        int slots = a->slots[places[i].code / PRIORITIES - 1];
        int share = (int)((a->slots_sum + i) / (i + 1));
        a->codes[i] = places[i].code;
        a->xids[i] = places[i].xid;
        a->ids[i] = places[i].id;
        a->limits[i] = i >= walked ? 0 : slots < share ? slots : share;
    }
    a->codes_count = n;
    ob_free(places);
}

struct lanes_asked *lanes_ask(struct lanes *l, bool may_claim, uint64_t now_ms)
{
    struct lanes_asked *a = new_asked(l->count);
    unsigned processes = may_claim ? free_processes(l, now_ms) : 0;
    size_t shared_sum = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct lane *lane = l->items[i];
        if (lane->config == NULL)
            continue;
        unsigned slots = may_claim ? free_slots(l, lane, now_ms) : 0;
        bool shares = is_process(lane->config);
        if (shares && slots > processes)
            slots = processes;
        a->lanes[a->count] = lane;
        a->tasks[a->count] = lane->task;
        a->slots[a->count] = (int)slots;
        a->shares[a->count] = shares;
        a->count++;
        if (shares)
            shared_sum += slots;
        else
            a->slots_sum += slots;
    }
    a->shared_slots = (int)processes;
    a->slots_sum += shared_sum < processes ? shared_sum : processes;
    ask_backlogs(a);
    return a;
}

/* ---- learning ---- */

static bool is_before(uint64_t xid, int64_t id, uint64_t than_xid, int64_t than_id)
{
    return xid < than_xid || (xid == than_xid && id < than_id);
}

static struct backlog *find_backlog(const struct lanes_asked *a, int code)
{
    int task = code / PRIORITIES - 1;
    if (code < PRIORITIES || (size_t)task >= a->count)
        return NULL;
    return &a->lanes[task]->backlogs[code % PRIORITIES];
}

/* Rows that were read in the stream and found no slot: their lanes are open from there on. A lane
 * that was walked in the same look has seen those that lie behind where it began. */
static bool learn_blocked(const struct lanes_asked *a, const struct seen_row *row)
{
    struct backlog *b = find_backlog(a, row->lane);
    if (b == NULL)
        return false;
    for (size_t i = 0; i < a->codes_count; i++) {
        if (a->codes[i] == row->lane && !is_before(row->xid, row->id, a->xids[i], a->ids[i]))
            return true;
    }
    if (!b->is_open || is_before(row->xid, row->id, b->xid, b->id))
        *b = (struct backlog){.is_open = true, .xid = row->xid, .id = row->id};
    return true;
}

static bool learn_walked(const struct lanes_asked *a, const struct seen_row *row)
{
    struct backlog *b = find_backlog(a, row->lane);
    if (b == NULL)
        return false;
    *b = (struct backlog){.is_open = !row->is_exhausted, .xid = row->xid, .id = row->id};
    return true;
}

static bool count_claimed(const struct lanes_asked *a, const struct batch *claimed)
{
    const struct lanes asked = {.items = a->lanes, .count = a->count};
    for (size_t i = 0; i < a->count; i++)
        a->lanes[i]->claimed = 0;
    for (size_t k = 0; k < claimed->count; k++) {
        struct lane *lane = lanes_find(&asked, claimed->jobs[k].job.task);
        if (lane == NULL)
            return false;
        lane->claimed++;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (a->lanes[i]->claimed > a->slots[i])
            return false;
    }
    return true;
}

bool lanes_learn(const struct lanes_asked *a, const struct seen *seen, const struct batch *claimed)
{
    bool is_sane = claimed == NULL || count_claimed(a, claimed);
    for (size_t i = 0; i < seen->lanes.count; i++)
        is_sane = learn_walked(a, &seen->lanes.items[i]) && is_sane;
    for (size_t i = 0; i < seen->blocked.count; i++)
        is_sane = learn_blocked(a, &seen->blocked.items[i]) && is_sane;
    return is_sane;
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
