/* See pgrig.h. */
#include "pgrig.h"

#include <stdio.h>
#include <string.h>

static void on_up(struct pgconn *c, void *arg)
{
    struct pgrig *r = arg;
    ck_assert_ptr_eq(c, r->conn);
    ck_assert(!r->is_up);
    ck_assert(pgconn_is_up(c));
    r->is_up = true;
    r->ups++;
    if (r->then_up != NULL)
        r->then_up(r);
}

static void on_down(struct pgconn *c, const struct pg_error *why, unsigned tries, uint64_t retry_ms,
                    void *arg)
{
    struct pgrig *r = arg;
    ck_assert(!pgconn_is_up(c));
    ck_assert_uint_eq(pgconn_pending(c), 0);
    ck_assert_int_ne(why->err, 0);
    ck_assert_str_ne(why->message, "");
    r->is_up = false;
    r->downs++;
    r->why = *why;
    r->tries = tries;
    r->retry_ms = retry_ms;
    if (r->then_down != NULL)
        r->then_down(r);
}

static void on_notify(struct pgconn *c, const char *channel, const char *payload, int backend_pid,
                      void *arg)
{
    struct pgrig *r = arg;
    ck_assert(pgconn_is_up(c));
    r->notifies++;
    r->notify_pid = backend_pid;
    (void)snprintf(r->channel, sizeof r->channel, "%s", channel);
    (void)snprintf(r->payload, sizeof r->payload, "%s", payload);
    if (r->then_notify != NULL)
        r->then_notify(r);
}

static void on_pulse(uv_timer_t *timer)
{
    (void)timer;
}

void rig_open_config(struct pgrig *r, const struct pgconn_config *config)
{
    static const struct pgconn_callbacks callbacks = {on_up, on_down, on_notify};
    memset(r, 0, sizeof *r);
    ck_assert_int_eq(uv_loop_init(&r->loop), 0);
    (void)uv_timer_init(&r->loop, &r->pulse);
    (void)uv_timer_start(&r->pulse, on_pulse, 20, 20);
    ck_assert_int_eq(pgconn_new(&r->loop, config, &callbacks, r, &r->conn), 0);
}

void rig_open(struct pgrig *r, const char *conninfo)
{
    const struct pgconn_config config = {.conninfo = conninfo, .application_name = "pgrig"};
    rig_open_config(r, &config);
    pgconn_start(r->conn);
}

void rig_open_up(struct pgrig *r, const char *conninfo)
{
    rig_open(r, conninfo);
    rig_until(r, r->is_up);
}

void rig_on_closed(void *arg)
{
    struct pgrig *r = arg;
    ck_assert(!r->is_closed);
    r->is_closed = true;
}

void rig_finish(struct pgrig *r)
{
    rig_until(r, r->is_closed);
    uv_close((uv_handle_t *)&r->pulse, NULL);
    ck_assert_int_eq(uv_run(&r->loop, UV_RUN_NOWAIT), 0);
    ck_assert_int_eq(uv_loop_close(&r->loop), 0);
}

void rig_close(struct pgrig *r)
{
    pgconn_close(r->conn, rig_on_closed, r);
    ck_assert(!r->is_closed); /* callbacks come from the loop */
    rig_finish(r);
}

static void on_reply(struct pgbatch *b, const struct pg_error *error, void *arg)
{
    struct reply *reply = arg;
    ck_assert(!reply->is_done);
    reply->is_done = true;
    reply->number = ++reply->rig->answers;
    reply->was_up = pgconn_is_up(reply->rig->conn);
    if (error != NULL)
        reply->error = *error;
    for (size_t i = 0; i < pgbatch_count(b) && i < RIG_RESULTS_MAX; i++) {
        if (error != NULL)
            ck_assert_ptr_null(pgbatch_result(b, i));
        else
            reply->results[i] = pgbatch_take_result(b, i);
    }
    if (reply->then != NULL)
        reply->then(reply);
}

void rig_submit(struct pgrig *r, struct pgbatch *b, struct reply *reply)
{
    reply->rig = r;
    pgconn_submit(r->conn, b, on_reply, reply);
}

void batch_add(struct pgbatch *b, const char *sql)
{
    pgbatch_add(b, sql, false, 0, NULL, NULL, NULL, NULL, false);
}

struct pgbatch *batch_of(const char *sql)
{
    struct pgbatch *b = pgbatch_new();
    batch_add(b, sql);
    return b;
}

void rig_send(struct pgrig *r, const char *sql, struct reply *reply)
{
    rig_submit(r, batch_of(sql), reply);
}

const char *rig_value(struct pgrig *r, const char *sql)
{
    static char value[256];
    struct reply reply = {.is_done = false};
    rig_send(r, sql, &reply);
    rig_until(r, reply.is_done);
    ck_assert_msg(reply.error.err == 0, "%s: %s", sql, reply.error.message);
    value[0] = '\0';
    if (PQntuples(reply.results[0]) > 0 && PQnfields(reply.results[0]) > 0)
        (void)snprintf(value, sizeof value, "%s", PQgetvalue(reply.results[0], 0, 0));
    reply_clear(&reply);
    return value;
}

struct pg_error rig_error(struct pgrig *r, const char *sql)
{
    struct reply reply = {.is_done = false};
    rig_send(r, sql, &reply);
    rig_until(r, reply.is_done);
    reply_clear(&reply);
    return reply.error;
}

void reply_clear(struct reply *reply)
{
    for (size_t i = 0; i < RIG_RESULTS_MAX; i++) {
        PQclear(reply->results[i]);
        reply->results[i] = NULL;
    }
}
