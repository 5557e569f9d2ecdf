/* store_control.c - the daemon's statements about what operators ask for: see store.h. */
#include "base/mem.h"
#include "db/row.h"
#include "db/store_call.h"

/* A row an order: the id of a job that is to end, with its claim if it is to be given back; or the
 * name of a task that is paused. */
static void parse_orders(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    if (error != NULL) {
        call->cb.orders(call->arg, error, NULL);
        return;
    }
    size_t n = (size_t)PQntuples(res);
    int64_t *cancelled = ob_xcalloc(n + 1, sizeof *cancelled);
    const char **paused = ob_xcalloc(n + 1, sizeof *paused);
    struct store_token *requeued = ob_xcalloc(n + 1, sizeof *requeued);
    struct store_orders orders = {.cancelled = cancelled, .paused = paused, .requeued = requeued};
    for (size_t i = 0; i < n; i++) {
        const char *task = row_text(res, (int)i, 2);
        if (task != NULL)
            paused[orders.paused_count++] = task;
        else if (PQgetisnull(res, (int)i, 1))
            cancelled[orders.cancelled_count++] = row_int8(res, (int)i, 0);
        else
            requeued[orders.requeued_count++] = (struct store_token){
                .id = row_int8(res, (int)i, 0), .claim = row_int8(res, (int)i, 1)};
    }
    call->cb.orders(call->arg, NULL, &orders);
    ob_free(requeued);
    ob_free(cancelled);
    ob_free(paused);
}

void store_orders(struct pgconn *c, int64_t id, store_orders_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    struct store_call *call = store_call_new(parse_orders, arg);
    call->cb.orders = cb;
    store_send(
        c, &p,
        "SELECT u.id, u.claim, u.task FROM outbox.orders($1) AS o CROSS JOIN LATERAL ("
        "SELECT c.id, NULL::bigint AS claim, NULL AS task FROM unnest(o.cancelled) AS c (id) "
        "UNION ALL SELECT r.id, r.claim, NULL "
        "FROM unnest(o.requeued, o.requeued_claims) AS r (id, claim) "
        "UNION ALL SELECT NULL, NULL, p.task FROM unnest(o.paused) AS p (task)) AS u",
        call);
}

static void parse_plain(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    (void)res;
    call->cb.plain(call->arg, error);
}

void store_pause(struct pgconn *c, const char *task, const char *reason, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_text(&p, task);
    params_text(&p, reason);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "SELECT outbox.pause($1, $2)", call);
}

void store_limit(struct pgconn *c, const char *task, unsigned max_ready, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_text(&p, task);
    params_int4(&p, (int)max_ready);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "SELECT outbox.set_task($1, $2)", call);
}
