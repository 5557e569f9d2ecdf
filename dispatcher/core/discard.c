/* discard.c - see discard.h. Needs no memory a run: the runs that wait for the next loop turn are
 * linked through their executor_data. */
#include "core/discard.h"

#include "base/assert.h"
#include "base/mem.h"

struct discard {
    struct executor base;
    uv_idle_t idle; /* active while runs wait: the loop then does not sleep */
    struct run *first;
    struct run *last; /* its executor_data is the discard itself: the end of the list */
    void (*close_cb)(struct executor *ex);
    bool closing;
};

/* What on_done starts meanwhile too: jobs that were claimed ahead, not more than one claim brings.
 */
static void on_idle(uv_idle_t *idle)
{
    struct discard *d = idle->data;
    ob_assert(!d->closing);
    while (d->first != NULL) {
        struct run *run = d->first;
        struct outcome outcome;
        d->first = run->executor_data == d ? NULL : run->executor_data;
        if (d->first == NULL)
            d->last = NULL;
        outcome_init(&outcome);
        outcome.kind = OUTCOME_DONE;
        run_finish(run, &outcome);
    }
    (void)uv_idle_stop(idle);
}

static int start(struct executor *ex, struct run *run, struct outcome *ret_outcome)
{
    struct discard *d = (struct discard *)ex;
    (void)ret_outcome; /* never fails */
    ob_assert(!d->closing);
    run->executor_data = d;
    if (d->last != NULL)
        d->last->executor_data = run;
    else
        d->first = run;
    d->last = run;
    return uv_idle_start(&d->idle, on_idle); /* harmless when active */
}

static void stop(struct executor *ex, struct run *run, enum stop_reason reason)
{
    (void)ex; /* it is over within this turn of the loop anyway */
    (void)run;
    (void)reason;
}

static void on_closed(uv_handle_t *handle)
{
    struct discard *d = handle->data;
    if (d->close_cb != NULL)
        d->close_cb(&d->base);
    ob_free(d);
}

static void discard_close(struct executor *ex, void (*cb)(struct executor *ex))
{
    struct discard *d = (struct discard *)ex;
    ob_assert(!d->closing);
    ob_assert(d->first == NULL);
    d->closing = true;
    d->close_cb = cb;
    uv_close((uv_handle_t *)&d->idle, on_closed);
}

static const struct executor_ops discard_ops = {
    .name = "discard", .start = start, .stop = stop, .close = discard_close};

int discard_executor_new(uv_loop_t *loop, struct executor **ret_executor)
{
    struct discard *d = ob_calloc(1, sizeof *d);
    if (d == NULL)
        return OB_ENOMEM;
    d->base.ops = &discard_ops;
    d->base.loop = loop;
    d->idle.data = d;
    int err = uv_idle_init(loop, &d->idle);
    if (err != 0) {
        ob_free(d);
        return err;
    }
    *ret_executor = &d->base;
    return 0;
}
