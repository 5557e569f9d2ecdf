/* turn.c - turns: record what finished (results.c), make ready what fell due, claim what fits; in
 * one transaction and one flight.
 *
 * A turn is under way while turn_pending > 0; reasons for another one collect meanwhile. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/dispatcher_priv.h"

enum { SLOW_DOWN_MS = 1000, LOCKED_RETRY_MS = 20, PACE_MS = 5 };

struct turn { /* under way: freed with its answer */
    struct dispatcher *d;
    struct lanes_asked *asked; /* NULL: no look */
    struct config *config;     /* referenced: what it brings runs as configured when asked for */
    size_t count;
    struct execution *executions[]; /* whose results it records */
};

static void on_turn_timer(uv_timer_t *timer);
static void on_turn_prepare(uv_prepare_t *prepare);

static void set_turn_timer(struct dispatcher *d, uint64_t ms)
{
    if (d->phase != PHASE_CLOSING)
        (void)uv_timer_start(&d->turn_timer, on_turn_timer, ms, 0);
}

static void on_turn_idle(uv_idle_t *idle)
{
    (void)idle; /* keeps the loop from waiting before `turn_prepare` comes */
}

/* Under load turns keep a pace: each of them costs a commit, and has more to say a moment later.
 * With jobs known to wait, only as long as most slots have something to do. */
static uint64_t pause_before_turn(struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    bool has_work = d->stream.is_full || lanes_have_work(&d->lanes, now);
    if (now - d->turn_ms >= PACE_MS || d->phase != PHASE_RUNNING || !wake_is_busy(d) ||
        (has_work && !lanes_are_busy(&d->lanes, now)))
        return 0;
    return PACE_MS - (now - d->turn_ms);
}

/* The turn begins later in this iteration of the loop, or in the next, once what is ready to end
 * has ended: what comes together goes together. */
void turn_kick(struct dispatcher *d)
{
    bool is_set = uv_is_active((uv_handle_t *)&d->turn_timer);
    if (d->turn_pending > 0 || (is_set && !d->is_pacing) || d->phase == PHASE_CLOSING)
        return;
    uint64_t pause_ms = pause_before_turn(d);
    if (pause_ms > 0) {
        d->is_pacing = true;
        if (!is_set)
            set_turn_timer(d, pause_ms);
        return;
    }
    if (is_set)
        (void)uv_timer_stop(&d->turn_timer);
    (void)uv_prepare_start(&d->turn_prepare, on_turn_prepare);
    (void)uv_idle_start(&d->turn_idle, on_turn_idle);
}

void turn_look(struct dispatcher *d)
{
    d->look_wanted = true;
    turn_kick(d);
}

static void on_due_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    d->due_at_ms = UINT64_MAX;
    turn_look(d);
}

/* A job falls due, or a pause ends, in ms: the timer keeps the earliest. The poll looks too, so the
 * far future is left to it. */
void turn_look_in(struct dispatcher *d, uint64_t ms)
{
    uint64_t at = clock_mono_ms() + ms;
    if (ms > d->lanes.config->poll_interval_ms * 2 || at >= d->due_at_ms ||
        d->phase == PHASE_CLOSING)
        return;
    d->due_at_ms = at;
    (void)uv_timer_start(&d->due_timer, on_due_timer, ms, 0);
}

/* A task that is paused is looked at again when its pause ends. */
static void await_pauses(struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    uint64_t end = lanes_pause_end(&d->lanes, now);
    if (end != UINT64_MAX)
        turn_look_in(d, end - now);
}

/* True when a look now is wanted, and could claim something. */
static bool wants_look(struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    lanes_plan_ahead(&d->lanes, clock_mono_us());
    if (!dispatcher_may_start(d) || d->is_quiet || !lanes_have_slots(&d->lanes, now))
        return false;
    return d->look_wanted || d->stream.is_full || lanes_have_work(&d->lanes, now);
}

void turn_answered(struct dispatcher *d)
{
    ob_assert(d->turn_pending > 0);
    if (--d->turn_pending > 0)
        return;
    session_progress(d->session);
    await_pauses(d);
    results_await(d);
    if (results_wait(d) || wants_look(d) || d->stream.is_sweeping)
        turn_kick(d);
    else if (dispatcher_may_start(d) && !d->is_quiet && session_is_ready(d->session))
        wake_settle(d);
    dispatcher_idle(d);
}

static void stop_turn(struct dispatcher *d)
{
    (void)uv_timer_stop(&d->turn_timer);
    (void)uv_prepare_stop(&d->turn_prepare);
    (void)uv_idle_stop(&d->turn_idle);
}

/* The server refused: logs once in a while, and tries again a little later. */
static void refused(struct dispatcher *d, const char *what, const struct pg_error *error)
{
    uint64_t swallowed = 0;
    if (error->err == OB_ECONN)
        return;
    enum pg_advice advice = pg_advice(error->sqlstate);
    if (log_allow(what, 10000, &swallowed))
        log_error("refused", LOG_STR("what", what), LOG_STR("sqlstate", error->sqlstate),
                  LOG_STR("err", error->message),
                  LOG_STR("hint", error->hint[0] != '\0' ? error->hint : NULL),
                  LOG_INT("suppressed", swallowed),
                  LOG_STR("next", advice == PG_PRIVILEGE
                                      ? "grant it: outbox grant --dispatcher ROLE"
                                      : "trying again"));
    stop_turn(d);
    d->is_pacing = false;
    set_turn_timer(d, advice == PG_RETRY_SOON ? 10 : SLOW_DOWN_MS);
}

/* ---- look ---- */

/* When the next scheduled job falls due. Due, and still there: more than one look moves, or
 * somebody holds the row locked. */
static void await_due(struct dispatcher *d, int64_t due_before_us)
{
    const struct stream *s = &d->stream;
    if (s->next_due_us == INT64_MAX)
        return;
    if (s->next_due_us > s->now_us)
        turn_look_in(d, (uint64_t)(s->next_due_us - s->now_us) / 1000 + 1);
    else if (s->next_due_us != due_before_us)
        d->look_wanted = true;
    else
        turn_look_in(d, LOCKED_RETRY_MS);
}

static void looked(struct dispatcher *d, const struct turn *t, const struct pg_error *error,
                   const struct store_turned *turned)
{
    if (error != NULL) {
        d->is_claim_unknown = d->is_claim_unknown || error->err == OB_ECONN;
        d->look_wanted = true; /* nothing is known: the next turn asks again */
        return;
    }
    int64_t due_before_us = d->stream.next_due_us;
    if (!lanes_learn(t->asked, turned->seen, turned->batch)) {
        session_fail(d->session, "outbox.look() answered what was not asked for");
    } else {
        stream_learn(&d->stream, turned->seen, turned->batch, clock_mono_ms());
        await_due(d, due_before_us);
        wake_looked(d, turned->seen, turned->batch->count);
        d->begin_config = t->config;
        runner_begin(d, turned->batch);
        d->begin_config = NULL;
    }
    batch_unref(turned->batch);
    seen_free(turned->seen);
}

static void on_turned(void *arg, const struct pg_error *error, const struct store_turned *turned)
{
    struct turn *t = arg;
    struct dispatcher *d = t->d;
    results_settled(d, t->executions, t->count, error, turned);
    if (t->asked != NULL)
        looked(d, t, error, turned);
    if (error != NULL)
        refused(d, turned->is_settle_refused ? "settle" : "look", error);
    lanes_asked_free(t->asked);
    config_unref(t->config);
    ob_free(t);
    turn_answered(d);
}

static void ask_look(struct dispatcher *d, struct turn *t, struct store_look *look)
{
    bool may_claim = dispatcher_may_start(d) && !d->is_quiet;
    t->asked = lanes_ask(&d->lanes, may_claim, clock_mono_ms());
    t->config = config_ref(d->lanes.config);
    *look = (struct store_look){
        .first_claim = session_take_claims(d->session, t->asked->slots_sum),
        .tasks = t->asked->tasks,
        .slots = t->asked->slots,
        .shares = t->asked->shares,
        .tasks_count = t->asked->count,
        .shared_slots = t->asked->shared_slots,
        .lanes = t->asked->codes,
        .lane_xids = t->asked->xids,
        .lane_ids = t->asked->ids,
        .lane_limits = t->asked->limits,
        .lanes_count = t->asked->codes_count,
        .apart = t->asked->apart,
        .walk_rows = t->asked->walk_rows,
        .walk_xid = t->asked->walk_xid,
        .walk_id = t->asked->walk_id,
        .walk_priority = t->asked->walk_priority,
        .walk_slots = t->asked->walk_slots,
        .list_running = wake_wants_running(d),
    };
    stream_ask(&d->stream, look, clock_mono_ms());
}

static void send_turn(struct dispatcher *d, bool with_look)
{
    size_t room = with_look || results_wait(d) ? RESULTS_PER_TURN : 0;
    struct turn *t = ob_xcalloc(1, sizeof *t + room * sizeof t->executions[0]);
    struct store_look look;
    t->d = d;
    t->count = results_take(d, t->executions);
    if (with_look)
        ask_look(d, t, &look);
    d->turn_skips_locked = results_skip_locked(d);
    struct store_result *results = ob_xcalloc(t->count + 1, sizeof *results);
    for (size_t i = 0; i < t->count; i++) {
        struct execution *e = t->executions[i];
        results[i] = (struct store_result){.token = {.id = e->job.id, .claim = e->job.claim},
                                           .outcome = &e->outcome,
                                           .delay_ms = e->delay_ms};
    }
    const struct store_turn turn = {.results = results,
                                    .results_count = t->count,
                                    .skip_locked = d->turn_skips_locked,
                                    .look = with_look ? &look : NULL};
    bool has_results = t->count > 0;
    d->turn_pending++;
    if (has_results)
        OB_CRASH_POINT("before_settle");
    if (with_look)
        OB_CRASH_POINT("before_claim");
    store_turn(session_conn(d->session), session_id(d->session), &turn, on_turned, t);
    ob_free(results);
    if (has_results)
        OB_CRASH_POINT("after_settle_sent");
    if (with_look)
        OB_CRASH_POINT("after_claim_sent");
}

/* ---- the slow check ---- */

static void on_swept(void *arg, const struct pg_error *error, struct seen *seen)
{
    struct dispatcher *d = arg;
    struct lanes_asked *asked = d->sweep_asked;
    d->sweep_asked = NULL;
    if (error != NULL) {
        refused(d, "sweep", error);
        d->stream.is_sweeping = false; /* the same stretch at the next */
    } else if (!lanes_learn(asked, seen, NULL)) {
        session_fail(d->session, "outbox.sweep() answered what was not asked for");
    } else {
        stream_swept(&d->stream, seen);
    }
    seen_free(seen);
    lanes_asked_free(asked);
    turn_answered(d);
}

static void send_sweep(struct dispatcher *d)
{
    struct store_sweep sweep;
    d->sweep_asked = lanes_ask(&d->lanes, false, clock_mono_ms());
    sweep.tasks = d->sweep_asked->tasks;
    sweep.tasks_count = d->sweep_asked->count;
    stream_ask_sweep(&d->stream, &sweep);
    d->turn_pending++;
    store_sweep(session_conn(d->session), &sweep, on_swept, d);
}

static void on_sweep_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    stream_begin_sweep(&d->stream);
    turn_look(d);
}

/* ---- sending ---- */

/* A look goes with a turn when somebody asks for one that could claim, when we are awake (nobody
 * would tell), and at the poll, even if no slot is free: a session that says nothing for a lease is
 * ended by the server. */
static void take_turn(struct dispatcher *d)
{
    stop_turn(d);
    if (!session_is_ready(d->session) || d->turn_pending > 0)
        return;
    bool may_claim = dispatcher_may_start(d) && !d->is_quiet;
    bool with_look =
        wants_look(d) || d->poll_wanted || (may_claim && results_wait(d) && !wake_is_asleep(d));
    if (d->stream.is_sweeping || with_look || results_wait(d))
        session_progress(d->session);
    d->turn_ms = clock_mono_ms();
    d->turn_pending = 1; /* held until everything is sent: an answer may come from inside a call */
    if (with_look) {
        d->look_wanted = false;
        d->poll_wanted = false;
        if (may_claim && OB_RULE("locks_first"))
            wake_before_turn(d);
    }
    if (session_is_ready(d->session) && (with_look || results_wait(d)))
        send_turn(d, with_look);
    if (session_is_ready(d->session) && with_look && may_claim && !OB_RULE("locks_first"))
        wake_before_turn(d);
    if (session_is_ready(d->session) && d->stream.is_sweeping)
        send_sweep(d);
    turn_answered(d);
}

static void on_turn_timer(uv_timer_t *timer)
{
    take_turn(timer->data);
}

static void on_turn_prepare(uv_prepare_t *prepare)
{
    take_turn(prepare->data);
}

static void on_poll_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    d->poll_wanted = true;
    turn_look(d);
}

void turn_init(struct dispatcher *d)
{
    (void)uv_timer_init(&d->loop, &d->turn_timer);
    (void)uv_prepare_init(&d->loop, &d->turn_prepare);
    (void)uv_idle_init(&d->loop, &d->turn_idle);
    d->turn_prepare.data = d;
    (void)uv_timer_init(&d->loop, &d->poll_timer);
    (void)uv_timer_init(&d->loop, &d->due_timer);
    d->turn_timer.data = d;
    d->poll_timer.data = d;
    (void)uv_timer_init(&d->loop, &d->look_timer);
    (void)uv_timer_init(&d->loop, &d->sweep_timer);
    d->due_timer.data = d;
    d->look_timer.data = d;
    d->sweep_timer.data = d;
    d->due_at_ms = UINT64_MAX;
}

/* Polls within each third of the lease at the latest: the server ends a session that is idle for a
 * lease. (The lease is the one of the start, whatever a reload says.) */
static void start_poll_timers(struct dispatcher *d)
{
    uint64_t sweep = d->lanes.config->sweep_interval_ms;
    (void)uv_timer_start(&d->sweep_timer, on_sweep_timer, sweep, sweep);
    uint64_t most = d->options->config->lease_ms / 3;
    uint64_t interval = d->lanes.config->poll_interval_ms;
    interval = interval < most ? interval : most;
    (void)uv_timer_start(&d->poll_timer, on_poll_timer, interval, interval);
}

void turn_ready(struct dispatcher *d)
{
    start_poll_timers(d);
    stream_reset(&d->stream);
    lanes_forget(&d->lanes);
    wake_reset(d);
    d->poll_wanted = true;
    control_limits(d);
    turn_look(d);
}

void turn_reloaded(struct dispatcher *d)
{
    control_limits(d);
    control_reloaded(d); /* before the first look with it */
    if (uv_is_active((uv_handle_t *)&d->poll_timer))
        start_poll_timers(d);
    if (session_is_ready(d->session))
        wake_unwatch_all(d); /* of tasks that are gone, too */
    turn_look(d);
}

void turn_unready(struct dispatcher *d)
{
    (void)uv_timer_stop(&d->poll_timer);
    (void)uv_timer_stop(&d->sweep_timer);
    (void)uv_timer_stop(&d->due_timer);
    stop_turn(d);
    wake_reset(d);
    d->due_at_ms = UINT64_MAX;
}
