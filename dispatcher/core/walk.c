/* walk.c - see walk.h. */
#include "core/walk.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    LANES_PER_LOOK = 64,  /* at least so many are walked, if so many are open */
    TOGETHER_MIN = 8,     /* fewer lanes are walked one by one */
    TOGETHER_ROWS = 1000, /* read at most by one walk of the stream */
    TOGETHER_PAUSE = 16   /* looks without one at most, after some that found little */
};

/* ---- asking ---- */

static struct lanes_asked *new_asked(struct lanes *l)
{
    size_t backlogs = l->count * PRIORITIES + 1;
    struct lanes_asked *a = ob_xcalloc(1, sizeof *a);
    a->of = l;
    a->lanes = ob_xcalloc(l->count + 1, sizeof *a->lanes);
    a->tasks = ob_xcalloc(l->count + 1, sizeof *a->tasks);
    a->slots = ob_xcalloc(l->count + 1, sizeof *a->slots);
    a->shares = ob_xcalloc(l->count + 1, sizeof *a->shares);
    a->walk_slots = ob_xcalloc(l->count + 1, sizeof *a->walk_slots);
    a->codes = ob_xcalloc(backlogs, sizeof *a->codes);
    a->xids = ob_xcalloc(backlogs, sizeof *a->xids);
    a->ids = ob_xcalloc(backlogs, sizeof *a->ids);
    a->limits = ob_xcalloc(backlogs, sizeof *a->limits);
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
    ob_free(a->walk_slots);
    ob_free(a->codes);
    ob_free(a->xids);
    ob_free(a->ids);
    ob_free(a->limits);
    ob_free(a);
}

static bool is_before(uint64_t xid, int64_t id, uint64_t than_xid, int64_t than_id)
{
    return xid < than_xid || (xid == than_xid && id < than_id);
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

static size_t task_of(int code)
{
    return (size_t)(code / PRIORITIES - 1);
}

static bool is_walked_together(const struct lanes_asked *a, int code)
{
    return a->walk_rows > 0 && code % PRIORITIES == a->walk_priority - 1 &&
           a->walk_slots[task_of(code)] > 0;
}

/* The lanes of the best priority, where they are many, but for those that have fallen behind where
 * the last such walk began: to reach their rows this one would step over what others have passed
 * long ago. Each of them is walked alone until it has caught up. */
static void walk_together(struct lanes *l, struct lanes_asked *a, const struct place *places,
                          size_t n)
{
    size_t same = 0;
    size_t ahead = 0;
    size_t slots = 0;
    while (same < n && places[same].priority == places[0].priority)
        same++;
    if (same < TOGETHER_MIN)
        return;
    if (l->walk_pause > 0) {
        l->walk_pause--;
        return;
    }
    const struct place *start = &places[0];
    if (is_before(start->xid, start->id, l->walk_xid, l->walk_id))
        start = &places[same / 4];
    bool is_further = is_before(start->xid, start->id, l->walk_xid, l->walk_id);
    uint64_t xid = is_further ? l->walk_xid : start->xid;
    int64_t id = is_further ? l->walk_id : start->id;
    for (size_t i = 0; i < same; i++)
        ahead += is_before(places[i].xid, places[i].id, xid, id) ? 0 : 1;
    if (ahead < TOGETHER_MIN)
        return;
    for (size_t i = 0; i < same; i++) {
        if (is_before(places[i].xid, places[i].id, xid, id))
            continue;
        size_t task = task_of(places[i].code);
        a->walk_slots[task] = a->slots[task];
        slots += (size_t)a->slots[task];
    }
    slots = slots < a->slots_sum ? slots : a->slots_sum;
    size_t rows = slots * 9 / 8 + TOGETHER_MIN;
    a->walk_rows = (int)(rows < TOGETHER_ROWS ? rows : TOGETHER_ROWS);
    a->walk_xid = xid;
    a->walk_id = id;
    a->walk_priority = places[0].priority + 1;
}

/* True when each row that is asked for can have a slot, whatever else is found. */
static bool takes_what_is_free(const struct lanes_asked *a)
{
    size_t shared = 0;
    int *wanted = ob_xcalloc(a->count + 1, sizeof *wanted);
    bool is_enough = true;
    for (size_t i = 0; i < a->codes_count; i++)
        wanted[task_of(a->codes[i])] += a->limits[i];
    for (size_t i = 0; i < a->count; i++) {
        wanted[i] += a->walk_slots[i];
        is_enough = is_enough && wanted[i] <= a->slots[i];
        shared += a->shares[i] ? (size_t)wanted[i] : 0;
    }
    ob_free(wanted);
    return is_enough && shared <= (size_t)a->shared_slots;
}

/* The open backlogs of tasks with free slots, best first. Walked are as many as there are slots;
 * the first may fill all of them, the n-th an n-th: so one look reads few more rows than it claims.
 */
static void ask_backlogs(struct lanes *l, struct lanes_asked *a)
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
    walk_together(l, a, places, n);
    size_t walked = a->slots_sum > LANES_PER_LOOK ? a->slots_sum : LANES_PER_LOOK;
    walked = n < walked ? n : walked;
    for (size_t i = 0; i < n; i++) {
        int slots = a->slots[task_of(places[i].code)];
        int share = (int)((a->slots_sum + i) / (i + 1));
        bool is_walked = i < walked && !is_walked_together(a, places[i].code);
        a->codes[i] = places[i].code;
        a->xids[i] = places[i].xid;
        a->ids[i] = places[i].id;
        a->limits[i] = !is_walked ? 0 : slots < share ? slots : share;
    }
    a->codes_count = n;
    a->apart = takes_what_is_free(a);
    ob_free(places);
}

struct lanes_asked *lanes_ask(struct lanes *l, bool may_claim, uint64_t now_ms)
{
    struct lanes_asked *a = new_asked(l);
    unsigned processes = may_claim ? lanes_free_processes(l, now_ms) : 0;
    size_t shared_sum = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct lane *lane = l->items[i];
        if (lane->config == NULL)
            continue;
        unsigned slots = may_claim ? lane_free_slots(l, lane, now_ms) : 0;
        bool shares = task_is_process(lane->config);
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
    ask_backlogs(l, a);
    return a;
}

/* ---- learning ---- */

static struct backlog *find_backlog(const struct lanes_asked *a, int code)
{
    if (code < PRIORITIES || task_of(code) >= a->count)
        return NULL;
    return &a->lanes[task_of(code)]->backlogs[code % PRIORITIES];
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

/* What was walked is exhausted, or goes on behind where the walk of many ended; but for the lanes
 * of which a row was left. */
static void learn_walk(const struct lanes_asked *a, const struct seen *seen)
{
    struct lanes *l = a->of;
    const struct seen_row *end = seen->walked.count > 0 ? &seen->walked.items[0] : NULL;
    for (size_t i = 0; i < a->codes_count; i++) {
        struct backlog *b = find_backlog(a, a->codes[i]);
        bool is_together = is_walked_together(a, a->codes[i]);
        if (b == NULL)
            continue;
        if (a->limits[i] > 0 || (is_together && end == NULL))
            b->is_open = false;
        else if (is_together && is_before(b->xid, b->id, end->xid, end->id + 1))
            *b = (struct backlog){.is_open = true, .xid = end->xid, .id = end->id + 1};
    }
    if (a->walk_rows > 0) {
        l->walk_xid = a->walk_xid;
        l->walk_id = a->walk_id;
    }
    if (end == NULL)
        return;
    if (end->lane * 2 >= a->walk_rows) {
        l->walk_backoff = 0;
        return;
    }
    /* What lies there is mostly of other lanes. Not for long at first: lanes that are walked alone
     * get out of step. */
    l->walk_backoff = l->walk_backoff == 0 ? 1 : l->walk_backoff * 2;
    if (l->walk_backoff > TOGETHER_PAUSE)
        l->walk_backoff = TOGETHER_PAUSE;
    l->walk_pause = l->walk_backoff;
}

static bool learn_left(const struct lanes_asked *a, const struct seen_row *row)
{
    struct backlog *b = find_backlog(a, row->lane);
    if (b == NULL)
        return false;
    *b = (struct backlog){.is_open = true, .xid = row->xid, .id = row->id};
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
    learn_walk(a, seen);
    for (size_t i = 0; i < seen->lanes.count; i++)
        is_sane = learn_left(a, &seen->lanes.items[i]) && is_sane;
    for (size_t i = 0; i < seen->blocked.count; i++)
        is_sane = learn_blocked(a, &seen->blocked.items[i]) && is_sane;
    return is_sane;
}
