/* orders.c - a session's ear for operators: which jobs of ours are to end, which tasks are paused.
 *
 * Asked while joining, with each heartbeat, and when a notification says that there is something
 * new: never by turns. The heartbeat connection asks, which no turn holds up; one question is under
 * way at a time, so that no answer is older than the one before. */
#include <string.h>

#include "base/log.h"
#include "core/session_priv.h"

static void on_orders(void *arg, const struct pg_error *error, const struct store_orders *orders)
{
    struct session *s = arg;
    s->orders_under_way = false;
    if (s->state != SESSION_READY)
        return;
    if (error == NULL && s->orders_id == s->id)
        s->cb.on_orders(s->arg, orders);
    if (s->orders_wanted)
        orders_ask(s);
}

void orders_ask(struct session *s)
{
    if (s->state != SESSION_READY || s->orders_under_way || !pgconn_is_up(s->beat))
        return; /* the next heartbeat asks; one that is answered asks again if it has to */
    s->orders_wanted = false;
    s->orders_under_way = true;
    s->orders_id = s->id;
    store_orders(s->beat, s->id, on_orders, s);
}

void orders_on_notify(struct session *s, const char *payload)
{
    if (strcmp(payload, STORE_CONTROL) != 0)
        return;
    s->orders_wanted = true;
    orders_ask(s);
}

static void on_first(void *arg, const struct pg_error *error, const struct store_orders *orders)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_ASKING, error, "asking for orders"))
        return;
    s->cb.on_orders(s->arg, orders);
    join_be_ready(s);
    if (s->orders_wanted)
        orders_ask(s);
}

/* Before anything is claimed: pauses survive a restart. */
void orders_first(struct session *s)
{
    s->orders_wanted = false; /* LISTEN came before: what comes from now on is told */
    session_set_state(s, SESSION_ASKING);
    store_orders(s->work, s->id, on_first, s);
}

static void on_paused(void *arg, const struct pg_error *error)
{
    (void)arg;
    uint64_t swallowed = 0;
    if (error != NULL && log_allow("pause", 10000, &swallowed))
        log_warn("pause_failed", LOG_STR("sqlstate", error->sqlstate),
                 LOG_STR("err", error->message), LOG_INT("suppressed", swallowed),
                 LOG_STR("next", "the next job that finds nobody there asks again"));
}

void session_pause(struct session *s, const char *task, const char *reason)
{
    if (session_is_ready(s))
        store_pause(s->work, task, reason, on_paused, s);
}

static void on_limited(void *arg, const struct pg_error *error)
{
    (void)arg;
    uint64_t swallowed = 0;
    if (error != NULL && log_allow("limit", 10000, &swallowed))
        log_warn("limit_failed", LOG_STR("sqlstate", error->sqlstate),
                 LOG_STR("err", error->message), LOG_INT("suppressed", swallowed),
                 LOG_STR("next", "max_ready is as it was; the next connection tries again"));
}

void session_limit(struct session *s, const char *task, unsigned max_ready)
{
    if (session_is_ready(s))
        store_limit(s->work, task, max_ready, on_limited, s);
}
