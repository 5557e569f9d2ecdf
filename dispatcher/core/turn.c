/* turn.c - turns: record what finished, make ready what fell due, claim what fits; all in one
 * flight.
 *
 * A turn is under way while turn_pending > 0; reasons for another one collect meanwhile. A look
 * goes on, turn after turn, until every lane with free slots turned out dry. */
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/dispatcher_priv.h"

enum {
    RESULTS_PER_TURN = 1000,
    OUTPUT_BYTES_PER_TURN = 8 * 1024 * 1024, /* of children, or the first result's if it has more */
    REFUSALS_MAX = 3,
    SLOW_DOWN_MS = 1000,
    LOCKED_RETRY_MS = 20,
    LOCKED_PAUSE_MS = 200 /* of a result whose row somebody locks: each try holds up the turn */
};

#define result_of(node) list_entry(node, struct execution, result_link)

struct settling { /* a settle under way: freed with its answer */
    struct dispatcher *d;
    size_t count;
    struct execution *executions[];
};

static void on_turn_timer(uv_timer_t *timer);

static void set_turn_timer(struct dispatcher *d, uint64_t ms)
{
    if (d->phase != PHASE_CLOSING)
        (void)uv_timer_start(&d->turn_timer, on_turn_timer, ms, 0);
}

void turn_kick(struct dispatcher *d)
{
    if (d->turn_pending == 0 && !uv_is_active((uv_handle_t *)&d->turn_timer))
        set_turn_timer(d, 0);
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
    d->due_wanted = true;
    turn_look(d);
}

/* A job falls due, or a pause ends, in ms: the timer keeps the earliest. The poll looks too, so the
 * far future is left to it. */
static void due_in(struct dispatcher *d, uint64_t ms)
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
        due_in(d, end - now);
}

/* Results that may be sent now; for the others a turn is set. */
static bool has_results(const struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    list_for_each (node, tmp, &d->results) {
        if (now >= result_of(node)->settle_after_ms)
            return true;
    }
    return false;
}

static void answer(struct dispatcher *d)
{
    ob_assert(d->turn_pending > 0);
    if (--d->turn_pending > 0)
        return;
    session_progress(d->session);
    await_pauses(d);
    bool may_claim = dispatcher_may_start(d) && !d->is_quiet;
    if (has_results(d) || (may_claim && (d->look_wanted || d->due_wanted)) ||
        (may_claim && lanes_have_room(&d->lanes, clock_mono_ms())))
        turn_kick(d);
    dispatcher_idle(d);
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
    (void)uv_timer_stop(&d->turn_timer);
    set_turn_timer(d, advice == PG_RETRY_SOON ? 10 : SLOW_DOWN_MS);
}

/* ---- settle ---- */

/* A statement is refused because of one job in it (somebody locks its row, or its text cannot be
 * stored), or for reasons that say nothing about the jobs. */
static void back_to_results(struct dispatcher *d, struct execution *e, const struct pg_error *error)
{
    enum pg_advice advice = pg_advice(error->sqlstate);
    bool is_refused = error->err != OB_ECONN && (advice == PG_GO_ON || advice == PG_RETRY_SOON);
    e->state = EXECUTION_FINISHED;
    list_append(&d->results, &e->result_link);
    if (!is_refused)
        return;
    if (e->settle_alone) {
        e->settle_after_ms = clock_mono_ms() + LOCKED_PAUSE_MS;
        due_in(d, LOCKED_PAUSE_MS);
    }
    e->settle_alone = true;
    if (advice != PG_GO_ON || ++e->refusals != REFUSALS_MAX || e->outcome.kind == OUTCOME_DONE)
        return;
    /* Perhaps it is the text that the server can't store: keep the outcome, drop what the child
     * said. */
    (void)snprintf(e->outcome.reason, sizeof e->outcome.reason, "(the reason could not be stored)");
    e->outcome.head_len = 0;
    e->outcome.tail_len = 0;
}

static void recorded(struct dispatcher *d, struct execution *e, enum store_answer answer_)
{
    if (answer_ != STORE_RECORDED) {
        log_warn("lost_claim", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt),
                 LOG_STR("outcome", outcome_name(e->outcome.kind)),
                 LOG_STR("reason", answer_ == STORE_LOST
                                       ? "the job was claimed anew by another dispatcher"
                                       : "the job is gone"));
        d->stats.lost++;
    } else if (e->delay_ms > 0) {
        due_in(d, e->delay_ms);
    }
    /* A drain ends with a look that began after the last result: the job may have enqueued others,
     * and producers may have NOTIFY switched off. */
    if (d->options->drain)
        d->look_wanted = true;
    runner_forget(d, e);
}

static void on_settled(void *arg, const struct pg_error *error, const enum store_answer *answers,
                       size_t n)
{
    struct settling *s = arg;
    struct dispatcher *d = s->d;
    OB_CRASH_POINT("after_settle");
    for (size_t i = 0; i < n; i++) {
        struct execution *e = s->executions[i];
        list_remove(&e->result_link);
        if (error != NULL)
            back_to_results(d, e, error);
        else
            recorded(d, e, answers[i]);
    }
    ob_free(s);
    if (error != NULL)
        refused(d, "settle", error);
    answer(d);
}

/* Takes results for one settle: as many as fit, or one alone that was refused before. The rest has
 * its turn at once. */
static struct settling *take_results(struct dispatcher *d)
{
    struct settling *s = ob_xcalloc(1, sizeof *s + RESULTS_PER_TURN * sizeof s->executions[0]);
    uint64_t now = clock_mono_ms();
    size_t output_bytes = 0;
    s->d = d;
    list_for_each (node, tmp, &d->results) {
        struct execution *e = result_of(node);
        if (now < e->settle_after_ms)
            continue;
        output_bytes += e->outcome.head_len + e->outcome.tail_len;
        bool is_too_much = s->count == RESULTS_PER_TURN || output_bytes > OUTPUT_BYTES_PER_TURN;
        if (s->count > 0 && (is_too_much || e->settle_alone))
            break;
        list_remove(&e->result_link);
        e->state = EXECUTION_SETTLING;
        s->executions[s->count++] = e;
        if (e->settle_alone)
            break;
    }
    return s;
}

static void send_settle(struct dispatcher *d)
{
    if (!has_results(d))
        return;
    struct settling *s = take_results(d);
    struct store_result *results = ob_xcalloc(s->count, sizeof *results);
    for (size_t i = 0; i < s->count; i++) {
        struct execution *e = s->executions[i];
        results[i] = (struct store_result){.token = {.id = e->job.id, .claim = e->job.claim},
                                           .outcome = &e->outcome,
                                           .delay_ms = e->delay_ms};
    }
    d->turn_pending++;
    OB_CRASH_POINT("before_settle");
    store_settle(session_conn(d->session), session_id(d->session), results, s->count, on_settled,
                 s);
    ob_free(results);
    OB_CRASH_POINT("after_settle_sent");
}

/* ---- due ---- */

static void on_due(void *arg, const struct pg_error *error, int moved, int64_t next_ms)
{
    struct dispatcher *d = arg;
    if (error != NULL) {
        refused(d, "due", error);
    } else {
        if (moved > 0)
            d->look_wanted = true;
        /* Due, and not moved: somebody holds the row locked. */
        if (next_ms >= 0)
            due_in(d,
                   moved == 0 && next_ms < LOCKED_RETRY_MS ? LOCKED_RETRY_MS : (uint64_t)next_ms);
    }
    answer(d);
}

static void send_due(struct dispatcher *d)
{
    if (!d->due_wanted || d->phase != PHASE_RUNNING)
        return;
    d->due_wanted = false;
    d->turn_pending++;
    store_due(session_conn(d->session), on_due, d);
}

/* ---- claim ---- */

/* Counts what came for each want; false if the server answered something that was not asked for. */
static bool count_claimed(struct dispatcher *d, const struct batch *batch)
{
    size_t expected = 0;
    for (size_t i = 0; i < d->wants_count; i++)
        lanes_find(&d->lanes, d->wants[i].task)->claimed = 0;
    for (size_t k = 0; k < batch->count; k++) {
        struct lane *lane = lanes_find(&d->lanes, batch->jobs[k].job.task);
        if (lane == NULL)
            return false;
        lane->claimed++;
    }
    for (size_t i = 0; i < d->wants_count; i++) {
        struct lane *lane = lanes_find(&d->lanes, d->wants[i].task);
        if (lane->claimed > d->wants[i].slots)
            return false;
        lane_claimed(lane, d->wants[i].slots, lane->claimed);
        expected += (size_t)lane->claimed;
    }
    return expected == batch->count;
}

static void forget_wants(struct dispatcher *d)
{
    ob_free(d->wants);
    d->wants = NULL;
    config_unref(d->wants_config);
    d->wants_config = NULL;
}

static void on_claimed(void *arg, const struct pg_error *error, struct batch *batch)
{
    struct dispatcher *d = arg;
    if (error != NULL) {
        d->is_claim_unknown = d->is_claim_unknown || error->err == OB_ECONN;
        refused(d, "claim", error);
        /* Nothing is known: lanes stay wet, and the next turn asks again. */
    } else if (!count_claimed(d, batch)) {
        session_fail(d->session, "outbox.claim() answered jobs that were not asked for");
        batch_unref(batch);
    } else {
        runner_begin(d, batch);
        batch_unref(batch);
    }
    forget_wants(d);
    answer(d);
}

static void send_claim(struct dispatcher *d)
{
    if (!dispatcher_may_start(d) || d->is_quiet || d->lanes.count == 0)
        return;
    d->wants = ob_xcalloc(d->lanes.count, sizeof *d->wants);
    d->wants_count = lanes_wants(&d->lanes, clock_mono_ms(), d->wants);
    d->wants_config = config_ref(d->lanes.config);
    size_t slots = 0;
    for (size_t i = 0; i < d->wants_count; i++)
        slots += (size_t)d->wants[i].slots;
    if (slots == 0) {
        forget_wants(d);
        return;
    }
    d->turn_pending++;
    OB_CRASH_POINT("before_claim");
    store_claim(session_conn(d->session), session_id(d->session),
                session_take_claims(d->session, slots), d->wants, d->wants_count, on_claimed, d);
    OB_CRASH_POINT("after_claim_sent");
}

static void on_turn_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    if (!session_is_ready(d->session) || d->turn_pending > 0)
        return;
    if (d->look_wanted)
        lanes_wet_all(&d->lanes);
    d->look_wanted = false;
    session_progress(d->session);
    d->turn_pending = 1; /* held until everything is sent: an answer may come from inside a call */
    send_settle(d);
    if (session_is_ready(d->session))
        send_due(d);
    if (session_is_ready(d->session))
        send_claim(d);
    answer(d);
}

static void on_poll_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    d->due_wanted = true;
    turn_look(d);
}

void turn_init(struct dispatcher *d)
{
    (void)uv_timer_init(&d->loop, &d->turn_timer);
    (void)uv_timer_init(&d->loop, &d->poll_timer);
    (void)uv_timer_init(&d->loop, &d->due_timer);
    d->turn_timer.data = d;
    d->poll_timer.data = d;
    d->due_timer.data = d;
    d->due_at_ms = UINT64_MAX;
}

/* Polls within each third of the lease at the latest: the server ends a session that is idle for a
 * lease. (The lease is the one of the start, whatever a reload says.) */
static void start_poll_timer(struct dispatcher *d)
{
    uint64_t most = d->options->config->lease_ms / 3;
    uint64_t interval = d->lanes.config->poll_interval_ms;
    interval = interval < most ? interval : most;
    (void)uv_timer_start(&d->poll_timer, on_poll_timer, interval, interval);
}

void turn_ready(struct dispatcher *d)
{
    start_poll_timer(d);
    d->due_wanted = true;
    turn_look(d);
}

void turn_reloaded(struct dispatcher *d)
{
    if (uv_is_active((uv_handle_t *)&d->poll_timer))
        start_poll_timer(d);
    turn_look(d);
}

void turn_unready(struct dispatcher *d)
{
    (void)uv_timer_stop(&d->poll_timer);
    (void)uv_timer_stop(&d->due_timer);
    (void)uv_timer_stop(&d->turn_timer);
    d->due_at_ms = UINT64_MAX;
}
