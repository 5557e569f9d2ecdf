/* ahead.c - jobs that were claimed before they had a slot: where jobs are short, the next ones are
 * here already when a slot frees, and a turn brings and records more of them.
 *
 * How many is lane.c's to say. They begin in the order of their claims, as slots free; what has
 * waited for long is given back, uncounted, for somebody else, and so is whatever may not begin any
 * more. Jobs of resident workers, commands and webhooks alike. */
#include "base/clock.h"
#include "core/dispatcher_priv.h"

enum { AHEAD_WAIT_MS = 1000 };

static struct execution *first_of(const struct lane *lane)
{
    return list_entry(lane->ahead_list.next, struct execution, result_link);
}

static void on_timer(uv_timer_t *timer);

static void arm(struct dispatcher *d, uint64_t ms)
{
    if (d->phase != PHASE_CLOSING && !uv_is_active((uv_handle_t *)&d->ahead_timer))
        (void)uv_timer_start(&d->ahead_timer, on_timer, ms, 0);
}

void ahead_wait(struct dispatcher *d, struct execution *e)
{
    e->state = EXECUTION_WAITING;
    e->since_ms = clock_mono_ms();
    list_append(&e->lane->ahead_list, &e->result_link);
    lanes_wait(&d->lanes, e->lane, e->run.task);
    arm(d, AHEAD_WAIT_MS);
}

void ahead_remove(struct dispatcher *d, struct execution *e)
{
    list_remove(&e->result_link);
    lanes_wait_over(&d->lanes, e->lane, e->run.task);
}

/* Of those that have a slot, or are to be given back, the one that was claimed first; of the lane
 * (NULL: of all), and of any commands where it is a command's slot that freed. */
static struct execution *next_of(const struct dispatcher *d, const struct lane *lane,
                                 bool is_process)
{
    struct execution *first = NULL;
    if (lane != NULL && !is_process)
        return lane->waiting > 0 && runner_may_go_on(d, first_of(lane)) ? first_of(lane) : NULL;
    for (size_t i = 0; i < d->lanes.count; i++) {
        const struct lane *other = d->lanes.items[i];
        if (other->waiting == 0 || !runner_may_go_on(d, first_of(other)))
            continue;
        if (first == NULL || first_of(other)->job.claim < first->job.claim)
            first = first_of(other);
    }
    return first;
}

void ahead_slot_freed(struct dispatcher *d, const struct lane *lane, bool is_process)
{
    if (d->is_serving)
        return; /* one that was started ended at once: the loop that started it goes on */
    d->is_serving = true;
    struct execution *e = next_of(d, lane, is_process);
    for (; e != NULL; e = next_of(d, lane, is_process)) {
        ahead_remove(d, e);
        runner_go_on(d, e);
    }
    d->is_serving = false;
}

void ahead_review(struct dispatcher *d)
{
    ahead_slot_freed(d, NULL, false);
}

/* The first of each lane has waited longest. */
static void on_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    uint64_t now_ms = clock_mono_ms();
    uint64_t next_ms = UINT64_MAX;
    for (size_t i = 0; i < d->lanes.count; i++) {
        const struct lane *lane = d->lanes.items[i];
        while (lane->waiting > 0 && first_of(lane)->since_ms + AHEAD_WAIT_MS <= now_ms) {
            struct execution *e = first_of(lane);
            ahead_remove(d, e);
            runner_give_back(d, e, "not started: its task is busy with other jobs");
        }
        if (lane->waiting > 0 && first_of(lane)->since_ms < next_ms)
            next_ms = first_of(lane)->since_ms;
    }
    if (next_ms != UINT64_MAX)
        arm(d, next_ms + AHEAD_WAIT_MS - now_ms);
}

void ahead_init(struct dispatcher *d)
{
    (void)uv_timer_init(&d->loop, &d->ahead_timer);
    d->ahead_timer.data = d;
}
