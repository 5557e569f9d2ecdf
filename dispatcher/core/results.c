/* results.c - results on their way into a turn, and what became of them: recorded, lost, or to be
 * said again. */
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/dispatcher_priv.h"

enum {
    OUTPUT_BYTES_PER_TURN = 8 * 1024 * 1024, /* of children, or the first result's if it has more */
    REFUSALS_MAX = 3,
    BUSY_PAUSE_MS = 50, /* of a result whose row somebody locks: asking again waits for nobody */
    LOCKS_EXPECTED_MS = 1000, /* after a lock was met: others are likely */
    REFUSED_PAUSE_MS = 200    /* of one that was refused alone: each try holds up the turn */
};

#define result_of(node) list_entry(node, struct execution, result_link)

bool results_wait(const struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    list_for_each (node, tmp, &d->results) {
        if (now >= result_of(node)->settle_after_ms)
            return true;
    }
    return false;
}

void results_await(struct dispatcher *d)
{
    uint64_t now = clock_mono_ms();
    uint64_t end = UINT64_MAX;
    list_for_each (node, tmp, &d->results) {
        uint64_t after = result_of(node)->settle_after_ms;
        if (after > now && after < end)
            end = after;
    }
    if (end != UINT64_MAX)
        turn_look_in(d, end - now);
}

/* Somebody was seen to lock rows, or a row that is asked for again and again: waiting for the next
 * one would hold up the turn as long. */
bool results_skip_locked(const struct dispatcher *d)
{
    return clock_mono_ms() < d->locks_expected_ms;
}

static void expect_locks(struct dispatcher *d)
{
    d->locks_expected_ms = clock_mono_ms() + LOCKS_EXPECTED_MS;
}

/* A statement is refused because of one job in it (somebody locks its row, or its text cannot be
 * stored), or for reasons that say nothing about the jobs. */
static void back_to_results(struct dispatcher *d, struct execution *e, const struct pg_error *error,
                            size_t n)
{
    enum pg_advice advice = pg_advice(error->sqlstate);
    bool is_refused = error->err != OB_ECONN && (advice == PG_GO_ON || advice == PG_RETRY_SOON);
    e->state = EXECUTION_FINISHED;
    list_append(&d->results, &e->result_link);
    if (!is_refused)
        return;
    if (advice == PG_RETRY_SOON && !d->turn_skips_locked)
        return; /* a lock, or a deadlock: the next turn does not wait for rows */
    bool was_alone = e->settle_group == 1;
    e->settle_group = (n + 1) / 2; /* by halves: each alone would take as many turns */
    if (n > 1)
        return;
    if (was_alone)
        e->settle_after_ms = clock_mono_ms() + REFUSED_PAUSE_MS;
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
    if (answer_ == STORE_BUSY) {
        e->state = EXECUTION_FINISHED;
        e->settle_after_ms = clock_mono_ms() + BUSY_PAUSE_MS;
        expect_locks(d);
        list_append(&d->results, &e->result_link);
        return;
    }
    if (answer_ == STORE_CANCELLED) {
        log_info("cancelled", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt), LOG_INT("ms", e->outcome.duration_ms));
    } else if (answer_ != STORE_RECORDED) {
        log_warn("lost_claim", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt),
                 LOG_STR("outcome", outcome_name(e->outcome.kind)),
                 LOG_STR("reason", answer_ == STORE_LOST
                                       ? "the job was claimed anew by another dispatcher"
                                       : "the job is gone"));
        d->stats.lost++;
    } else if (e->is_requeued && e->outcome.kind == OUTCOME_RELEASE) {
        log_info("requeued", LOG_STR("task", e->job.task), LOG_INT("id", e->job.id),
                 LOG_INT("attempt", e->job.attempt), LOG_INT("ms", e->outcome.duration_ms));
        d->look_wanted = true;
    } else if (e->delay_ms > 0) {
        turn_look_in(d, e->delay_ms);
    } else if (e->outcome.kind == OUTCOME_RETRY || e->outcome.kind == OUTCOME_RELEASE) {
        d->look_wanted =
            true; /* it is ready again; our own lock does not make us notify ourselves */
    }
    /* A drain ends with a look that began after the last result: the job may have enqueued others,
     * and producers may have NOTIFY switched off. */
    if (d->options->drain)
        d->look_wanted = true;
    runner_forget(d, e);
}

void results_settled(struct dispatcher *d, struct execution *const *executions, size_t n,
                     const struct pg_error *error, const struct store_turned *turned)
{
    static const struct pg_error not_ours = {.err = OB_ECONN};
    if (n > 0)
        OB_CRASH_POINT("after_settle");
    if (n > 0 && turned->is_settle_refused && pg_advice(error->sqlstate) == PG_RETRY_SOON)
        expect_locks(d);
    for (size_t i = 0; i < n; i++) {
        struct execution *e = executions[i];
        list_remove(&e->result_link);
        if (error != NULL) {
            back_to_results(d, e, turned->is_settle_refused ? error : &not_ours, n);
            continue;
        }
        recorded(d, e, turned->answers[i]);
    }
    if (error == NULL && turned->made_ready)
        d->look_wanted =
            true; /* a key's next job: our own lock does not make us notify ourselves */
}

size_t results_take(struct dispatcher *d, struct execution **executions)
{
    uint64_t now = clock_mono_ms();
    size_t output_bytes = 0;
    size_t most = RESULTS_PER_TURN;
    size_t n = 0;
    list_for_each (node, tmp, &d->results) {
        struct execution *e = result_of(node);
        size_t group = e->settle_group > 0 ? e->settle_group : most;
        if (now < e->settle_after_ms)
            continue;
        output_bytes += e->outcome.head_len + e->outcome.tail_len;
        most = group < most ? group : most;
        if (n > 0 && (n >= most || output_bytes > OUTPUT_BYTES_PER_TURN))
            break;
        list_remove(&e->result_link);
        e->state = EXECUTION_SETTLING;
        executions[n++] = e;
    }
    return n;
}
