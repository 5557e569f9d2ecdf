/* wake.c - sleeping and being woken. See docs/architecture.md, "Waking".
 *
 * Asleep for a task means: we hold its lock, so that producers notify us, and have looked once more
 * since. That look was preceded by a transaction id of our own, so that every transaction that had
 * begun before is either visible to it or in its list of running ones: those may have tried the
 * lock before we held it, and are watched until they have ended. The three steps are three commits.
 * Jobs may run, be claimed and be recorded while we sleep; only under load are the locks let go,
 * and looks made every few milliseconds instead. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/dispatcher_priv.h"

enum {
    LINGER_MS = 2,         /* between looks under load */
    STEP_MAX_MS = 50,      /* between looks while something is watched */
    PRUNE_AFTER_MS = 1000, /* then only transactions that wrote to the table stay watched */
    FALL_AGAIN_MS = 200,   /* after a refused lock */
    LOAD_HALVES_MS = 40,   /* of the count of jobs that came lately ... */
    LOAD_UNIT = 16,        /* ... in sixteenths; so 20 and 6 are about 350 and 100 jobs a second */
    LOAD_BUSY = 20 * LOAD_UNIT,
    LOAD_CALM = 6 * LOAD_UNIT,
    LOAD_MAX = 40 * LOAD_UNIT
};

static void on_look_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    turn_look(d);
}

static void look_in(struct dispatcher *d, uint64_t ms)
{
    if (d->phase != PHASE_CLOSING)
        (void)uv_timer_start(&d->look_timer, on_look_timer, ms, 0);
}

/* ---- load ---- */

static void decay(struct wake *w, uint64_t now)
{
    while (w->load > 0 && now - w->load_ms >= LOAD_HALVES_MS) {
        w->load /= 2;
        w->load_ms += LOAD_HALVES_MS;
    }
    if (w->load == 0)
        w->load_ms = now;
}

static void add_load(struct dispatcher *d, unsigned sixteenths)
{
    struct wake *w = &d->wake;
    decay(w, clock_mono_ms());
    w->load += sixteenths;
    if (w->load > LOAD_MAX)
        w->load = LOAD_MAX;
}

bool wake_is_busy(struct dispatcher *d)
{
    struct wake *w = &d->wake;
    decay(w, clock_mono_ms());
    w->is_busy = w->load >= (w->is_busy ? LOAD_CALM : LOAD_BUSY);
    return w->is_busy;
}

/* ---- the locks ---- */

static bool is_any_watched(const struct dispatcher *d)
{
    for (size_t i = 0; i < d->lanes.count; i++) {
        if (d->lanes.items[i]->is_watched)
            return true;
    }
    return false;
}

bool wake_is_asleep(const struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    for (size_t i = 0; i < d->lanes.count; i++) {
        const struct lane *lane = d->lanes.items[i];
        if (!lane->is_watched && lane_has_slots(&d->lanes, lane, now))
            return false;
    }
    return true;
}

/* Session locks do not end with a failed transaction: a refused call may have left some. */
static void on_unwatched(void *arg, const struct pg_error *error)
{
    struct dispatcher *d = arg;
    if (error != NULL && error->err != OB_ECONN && session_is_ready(d->session))
        session_fail(d->session, "the locks of tasks could not be let go");
}

void wake_unwatch_all(struct dispatcher *d)
{
    if (!is_any_watched(d))
        return;
    for (size_t i = 0; i < d->lanes.count; i++)
        d->lanes.items[i]->is_watched = false;
    store_unwatch_all(session_conn(d->session), on_unwatched, d);
}

/* The names of lanes that are watched, or not; the caller frees the array. */
static const char **lane_names(struct dispatcher *d, bool is_watched, bool has_slots, size_t *ret_n)
{
    const char **names = ob_xcalloc(d->lanes.count + 1, sizeof *names);
    uint64_t now = clock_mono_ms();
    size_t n = 0;
    for (size_t i = 0; i < d->lanes.count; i++) {
        struct lane *lane = d->lanes.items[i];
        if (lane->is_watched != is_watched || lane_has_slots(&d->lanes, lane, now) != has_slots)
            continue;
        lane->is_watched = !is_watched; /* as the caller will have it */
        names[n++] = lane->task;
    }
    *ret_n = n;
    return names;
}

/* We were notified of jobs that no slot is free for: nobody shall notify us again. */
static void unwatch_saturated(struct dispatcher *d)
{
    size_t n = 0;
    const char **names = lane_names(d, true, false, &n);
    if (n > 0)
        store_unwatch(session_conn(d->session), names, n, on_unwatched, d);
    ob_free(names);
}

void wake_notified(struct dispatcher *d)
{
    d->wake.was_notified = true;
    add_load(d, LOAD_UNIT / 4);
    if (!lanes_have_slots(&d->lanes, clock_mono_ms()) && session_is_ready(d->session))
        unwatch_saturated(d);
    turn_look(d);
}

/* ---- falling asleep ---- */

static void on_watched(void *arg, const struct pg_error *error)
{
    struct dispatcher *d = arg;
    if (error != NULL && error->err != OB_ECONN) {
        uint64_t swallowed = 0;
        if (log_allow("watch", 10000, &swallowed))
            log_warn("watch_refused", LOG_STR("sqlstate", error->sqlstate),
                     LOG_STR("err", error->message), LOG_INT("suppressed", swallowed),
                     LOG_STR("next", "looking every few moments instead of being woken"));
        d->wake.fall_after_ms = clock_mono_ms() + FALL_AGAIN_MS;
        wake_unwatch_all(d);
    }
    turn_answered(d);
}

static void on_xid(void *arg, const struct pg_error *error, uint64_t xid)
{
    struct dispatcher *d = arg;
    if (error == NULL)
        stream_note_xid(&d->stream, xid);
    turn_answered(d);
}

void wake_before_turn(struct dispatcher *d)
{
    struct wake *w = &d->wake;
    if (wake_is_busy(d)) {
        w->wants_sleep = false;
        wake_unwatch_all(d);
        return;
    }
    if (!w->wants_sleep)
        return;
    size_t n = 0;
    const char **names = lane_names(d, false, true, &n);
    w->wants_sleep = false;
    if (n > 0) {
        w->is_falling = true;
        d->turn_pending += 2;
        store_watch(session_conn(d->session), names, n, on_watched, d);
        OB_CRASH_POINT("after_watch_sent");
        if (session_is_ready(d->session) && OB_RULE("own_xid"))
            store_take_xid(session_conn(d->session), on_xid, d);
        else
            turn_answered(d);
    }
    ob_free(names);
}

/* ---- the watch set ---- */

static bool has_xid(const uint64_t *xids, size_t n, uint64_t xid)
{
    for (size_t i = 0; i < n; i++) {
        if (xids[i] == xid)
            return true;
    }
    return false;
}

static void keep_watched(struct wake *w, const uint64_t *xids, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->watch_count; i++) {
        if (has_xid(xids, n, w->watch[i]))
            w->watch[kept++] = w->watch[i];
    }
    w->watch_count = kept;
}

bool wake_wants_running(const struct dispatcher *d)
{
    return d->wake.is_falling || d->wake.watch_count > 0;
}

void wake_looked(struct dispatcher *d, const struct seen *seen, size_t claimed)
{
    struct wake *w = &d->wake;
    add_load(d, claimed < 64 ? (unsigned)claimed * LOAD_UNIT : LOAD_MAX);
    keep_watched(w, seen->running.items, seen->running.count);
    if (w->is_falling) {
        w->is_falling = false;
        w->watch = ob_xrealloc(w->watch, (seen->running.count + 1) * sizeof *w->watch);
        for (size_t i = 0; i < seen->running.count; i++)
            w->watch[i] = seen->running.items[i];
        w->watch_count = OB_RULE("watch_set") ? seen->running.count : 0;
        w->watch_since_ms = clock_mono_ms();
        w->step_ms = LINGER_MS;
    }
    if (w->was_notified && !wake_is_busy(d) && session_is_ready(d->session) && OB_RULE("saturated"))
        unwatch_saturated(d);
    w->was_notified = false;
}

static void on_still_writing(void *arg, const struct pg_error *error, const uint64_t *xids,
                             size_t n)
{
    struct dispatcher *d = arg;
    if (error == NULL)
        keep_watched(&d->wake, xids, n);
}

static void prune(struct dispatcher *d)
{
    struct wake *w = &d->wake;
    uint64_t now = clock_mono_ms();
    if (w->watch_count == 0 || now - w->watch_since_ms < PRUNE_AFTER_MS ||
        now - w->pruned_ms < PRUNE_AFTER_MS || !OB_RULE("prune"))
        return;
    w->pruned_ms = now;
    store_still_writing(session_conn(d->session), w->watch, w->watch_count, on_still_writing, d);
}

/* ---- what next ---- */

void wake_settle(struct dispatcher *d)
{
    struct wake *w = &d->wake;
    uint64_t now = clock_mono_ms();
    bool is_uneasy = w->watch_count > 0 || (stream_is_uneasy(&d->stream) && OB_RULE("uneasy"));
    (void)uv_timer_stop(&d->look_timer);
    if (!lanes_have_slots(&d->lanes, now))
        return; /* a slot that is freed has its turn */
    if (wake_is_busy(d)) {
        look_in(d, LINGER_MS);
    } else if (!wake_is_asleep(d)) {
        if (now < w->fall_after_ms) {
            look_in(d, FALL_AGAIN_MS / 4);
            return;
        }
        w->wants_sleep = true;
        turn_look(d);
    } else if (is_uneasy) {
        prune(d);
        look_in(d, w->step_ms);
        w->step_ms = w->step_ms * 3 / 2 < STEP_MAX_MS ? w->step_ms * 3 / 2 + 1 : STEP_MAX_MS;
    } else {
        w->step_ms = LINGER_MS;
    }
}

void wake_reset(struct dispatcher *d)
{
    struct wake *w = &d->wake;
    (void)uv_timer_stop(&d->look_timer);
    w->watch_count = 0;
    w->wants_sleep = false;
    w->is_falling = false;
    w->was_notified = false;
    w->fall_after_ms = 0;
    w->step_ms = LINGER_MS;
}

void wake_deinit(struct dispatcher *d)
{
    ob_free(d->wake.watch);
    d->wake.watch = NULL;
}
