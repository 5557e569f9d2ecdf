/* stream.c - see stream.h. */
#include "core/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    OLDER_AFTER_MS = 20, /* how long a running transaction may hold the position back */
    REVISITS_MAX = 4096, /* beyond, the slow check finds them */
    SAMPLE_EVERY_US = 20000,
    STEP_MIN_US = 100000,  /* the server's clock falls back against ours by more: it was set back */
    PENDING_PER_LOOK = 100 /* as outbox.look() has it */
};

void stream_init(struct stream *s)
{
    memset(s, 0, sizeof *s);
    stream_reset(s);
}

void stream_deinit(struct stream *s)
{
    ob_free(s->pending);
    ob_free(s->revisit);
    memset(s, 0, sizeof *s);
}

static void forget_times(struct stream *s)
{
    s->samples_count = 0;
    s->due_from_us = INT64_MIN;
    s->due_again_us = INT64_MAX;
    s->due_asked_us = INT64_MIN;
}

void stream_reset(struct stream *s)
{
    s->has_position = false;
    s->is_full = false;
    s->older = 0;
    s->older_next = 0;
    s->older_ms = 0;
    s->oldest = 0;
    s->newest = 0;
    s->pending_count = 0;
    s->revisit_count = 0;
    s->revisit_asked = 0;
    s->now_us = 0;
    s->next_due_us = INT64_MAX;
    s->is_sweeping = false;
    s->sweep_again = false;
    forget_times(s);
}

/* ---- asking ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void stream_ask(struct stream *s, struct store_look *look, uint64_t now_ms)
{
    s->asked_ms = now_ms;
    size_t n =
        s->revisit_count < STREAM_REVISITS_PER_LOOK ? s->revisit_count : STREAM_REVISITS_PER_LOOK;
    look->has_position = s->has_position;
    look->position_xid = s->xid;
    look->position_id = s->id;
    look->older = s->older;
    look->pending_count = s->pending_count;
    look->pending_xids = ob_xcalloc(s->pending_count + 1, sizeof *look->pending_xids);
    look->pending_ids = ob_xcalloc(s->pending_count + 1, sizeof *look->pending_ids);
    for (size_t i = 0; i < s->pending_count; i++) {
        look->pending_xids[i] = s->pending[i].xid;
        look->pending_ids[i] = s->pending[i].id;
    }
    look->revisit = s->revisit;
    look->revisit_count = n;
    s->revisit_asked = n;
    look->oldest = s->oldest;
    look->newest = s->newest;
    look->due_from_us = earlier(s->due_from_us, s->due_again_us);
    s->due_asked_us = look->due_from_us;
    if (look->due_from_us != INT64_MIN)
        look->due_from_us -= STEP_MIN_US;
}

/* ---- what a look saw: the position and the lists ---- */

static struct stream_pending *find_pending(struct stream *s, uint64_t xid)
{
    for (size_t i = 0; i < s->pending_count; i++) {
        if (s->pending[i].xid == xid)
            return &s->pending[i];
    }
    return NULL;
}

static void add_pending(struct stream *s, uint64_t xid, int64_t due_from_us)
{
    if (s->pending_count == s->pending_cap) {
        s->pending_cap = s->pending_cap > 0 ? s->pending_cap * 2 : 16;
        s->pending = ob_xrealloc(s->pending, s->pending_cap * sizeof *s->pending);
    }
    s->pending[s->pending_count++] =
        (struct stream_pending){.xid = xid, .due_from_us = due_from_us};
}

/* due_from_us: what was known before this look, when those that are pending now were not yet. */
static void learn_pending(struct stream *s, const struct seen *seen, int64_t due_from_us)
{
    for (size_t i = 0; i < seen->partial.count; i++) {
        struct stream_pending *p = find_pending(s, seen->partial.items[i].xid);
        if (p != NULL)
            p->id = seen->partial.items[i].id;
    }
    for (size_t i = 0; i < seen->ended.count; i++) {
        struct stream_pending *p = find_pending(s, seen->ended.items[i]);
        if (p == NULL)
            continue;
        s->due_again_us = earlier(s->due_again_us, p->due_from_us);
        s->pending_count--;
        memmove(p, p + 1, (size_t)(&s->pending[s->pending_count] - p) * sizeof *p);
    }
    for (size_t i = 0; i < seen->pending.count; i++)
        add_pending(s, seen->pending.items[i], due_from_us);
}

static bool is_revisited(const struct stream *s, int64_t id)
{
    for (size_t i = 0; i < s->revisit_count; i++) {
        if (s->revisit[i] == id)
            return true;
    }
    return false;
}

static void add_revisit(struct stream *s, int64_t id)
{
    if (is_revisited(s, id))
        return; /* held, and missed by the walk of its lane, too */
    if (s->revisit_count == REVISITS_MAX) {
        s->swept_xid = 0; /* the slow check finds it */
        s->swept_id = 0;
        s->sweep_again = s->is_sweeping; /* the answer under way is of another stretch */
        return;
    }
    if (s->revisit_count == s->revisit_cap) {
        s->revisit_cap = s->revisit_cap > 0 ? s->revisit_cap * 2 : 16;
        s->revisit = ob_xrealloc(s->revisit, s->revisit_cap * sizeof *s->revisit);
    }
    s->revisit[s->revisit_count++] = id;
}

static int compare_ids(const void *a, const void *b)
{
    const int64_t *x = a;
    const int64_t *y = b;
    return (*x > *y) - (*x < *y);
}

/* Of those that were tried, the ones that were not obtained. */
static void learn_missed(struct stream *s, const struct seen *seen, const struct batch *claimed)
{
    int64_t *ours = ob_xcalloc(claimed->count + 1, sizeof *ours);
    for (size_t i = 0; i < claimed->count; i++)
        ours[i] = claimed->jobs[i].job.id;
    qsort(ours, claimed->count, sizeof *ours, compare_ids);
    for (size_t i = 0; i < seen->missed.count; i++) {
        int64_t id = (int64_t)seen->missed.items[i];
        if (bsearch(&id, ours, claimed->count, sizeof *ours, compare_ids) == NULL)
            add_revisit(s, id);
    }
    ob_free(ours);
}

/* Those that were asked for are answered: they go, unless they were missed again. */
static void learn_revisit(struct stream *s, const struct seen *seen, const struct batch *claimed)
{
    s->revisit_count -= s->revisit_asked;
    if (s->revisit_count > 0)
        memmove(s->revisit, s->revisit + s->revisit_asked, s->revisit_count * sizeof *s->revisit);
    s->revisit_asked = 0;
    for (size_t i = 0; i < seen->held.count; i++)
        add_revisit(s, (int64_t)seen->held.items[i]);
    if (seen->missed.count > 0)
        learn_missed(s, seen, claimed);
}

/* A transaction that goes on for longer than others holds the position back for no more than a
 * moment: what lies behind it would be read again and again. */
static void learn_older(struct stream *s, const struct seen *seen, uint64_t now_ms)
{
    if (now_ms - s->older_ms < OLDER_AFTER_MS)
        return;
    s->older = s->older_next;
    s->older_next = seen->xmax;
    s->older_ms = now_ms;
}

/* ---- scheduled jobs ---- */

void stream_note_xid(struct stream *s, uint64_t xid)
{
    if (s->now_us == 0 || xid == 0)
        return;
    if (s->samples_count > 0 &&
        s->now_us - s->samples[s->samples_count - 1].at_us < SAMPLE_EVERY_US)
        return;
    if (s->samples_count == STREAM_SAMPLES) { /* every other one */
        for (size_t i = 0; i < STREAM_SAMPLES / 2; i++)
            s->samples[i] = s->samples[2 * i + 1];
        s->samples_count = STREAM_SAMPLES / 2;
    }
    s->samples[s->samples_count++] = (struct stream_sample){.xid = xid, .at_us = s->now_us};
}

/* It was set back: what was known by it is not true any more. */
static void forget_clock(struct stream *s)
{
    forget_times(s);
    s->now_us = 0;
    s->due_again_us = INT64_MIN;
    for (size_t i = 0; i < s->pending_count; i++)
        s->pending[i].due_from_us = INT64_MIN;
}

/* A job is scheduled for a time after its transaction began. So when all transactions have ended
 * that had begun by a time, but for the pending ones, no new job can turn up before that time. */
static void learn_due(struct stream *s, const struct seen *seen)
{
    size_t passed = 0;
    /* A full look has not come to those below the cut that still run: they are not pending yet. */
    uint64_t decided = seen->position_xid < seen->cut ? seen->position_xid + 1 : seen->cut;
    if (s->due_again_us >= s->due_asked_us)
        s->due_again_us = INT64_MAX; /* looked at just now */
    int64_t ahead_us = seen->now_us - (int64_t)s->asked_ms * 1000;
    if (seen->now_us < s->now_us || (s->now_us != 0 && ahead_us < s->ahead_us - STEP_MIN_US))
        forget_clock(s);
    s->ahead_us = ahead_us;
    stream_note_xid(s, seen->xid);
    while (passed < s->samples_count && s->samples[passed].xid <= decided)
        s->due_from_us = s->samples[passed++].at_us;
    s->samples_count -= passed;
    memmove(s->samples, s->samples + passed, s->samples_count * sizeof s->samples[0]);
    s->next_due_us = seen->next_due_us;
    s->now_us = seen->now_us;
    if (s->next_due_us <= s->now_us) /* locked, or more than one look moves: not passed yet */
        s->due_from_us = earlier(s->due_from_us, s->next_due_us);
}

void stream_learn(struct stream *s, const struct seen *seen, const struct batch *claimed,
                  uint64_t now_ms)
{
    bool is_first = !s->has_position;
    int64_t due_from_us = s->due_from_us;
    s->has_position = true;
    s->xid = seen->position_xid;
    s->id = seen->position_id;
    s->is_full = seen->is_full || seen->partial.count > 0 ||
                 seen->ended.count + seen->partial.count >= PENDING_PER_LOOK;
    s->oldest = seen->oldest;
    s->newest = seen->newest;
    learn_due(s, seen);
    learn_pending(s, seen, earlier(due_from_us, s->due_from_us));
    learn_revisit(s, seen, claimed);
    learn_older(s, seen, now_ms);
    if (is_first) {
        s->swept_xid = s->xid;
        s->swept_id = s->id;
        s->sweep_to_xid = s->xid;
        s->sweep_to_id = s->id;
    }
}

bool stream_is_uneasy(const struct stream *s)
{
    return s->revisit_count > 0 || s->due_again_us != INT64_MAX;
}

/* ---- the slow check ---- */

void stream_begin_sweep(struct stream *s)
{
    if (!s->has_position || s->is_sweeping)
        return;
    s->is_sweeping = true;
    s->due_again_us = INT64_MIN; /* and of what is scheduled */
}

void stream_ask_sweep(const struct stream *s, struct store_sweep *sweep)
{
    sweep->from_xid = s->swept_xid;
    sweep->from_id = s->swept_id;
    sweep->to_xid = s->sweep_to_xid;
    sweep->to_id = s->sweep_to_id;
}

void stream_swept(struct stream *s, const struct seen *seen)
{
    if (!s->sweep_again) {
        s->swept_xid = seen->position_xid;
        s->swept_id = seen->position_id;
    }
    s->sweep_again = false;
    if (!seen->is_done)
        return;
    s->is_sweeping = false;
    s->sweep_to_xid = s->xid; /* the next one: what was read since */
    s->sweep_to_id = s->id;
}
