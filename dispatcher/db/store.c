/* store.c - the daemon's statements for joining, leases and peers: see store.h. Each store_X()
 * sends, each parse_X() reads. Those about jobs are in store_jobs.c. */
#include "db/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/version.h"
#include "db/params.h"
#include "db/row.h"
#include "db/store_call.h"

char *store_session_sql(uint64_t lease_ms)
{
    return ob_xasprintf("SET default_transaction_isolation = 'read committed';"
                        "SET default_transaction_read_only = off;"
                        "SET default_transaction_deferrable = off;"
                        "SET search_path = pg_catalog, pg_temp;"
                        "SET lock_timeout = '100ms';"
                        "SET statement_timeout = '%" PRIu64 "ms';"
                        "SET idle_in_transaction_session_timeout = '%" PRIu64 "ms';"
                        "SET synchronous_commit = on;"
                        "SET jit = off;"
                        "SET client_min_messages = warning;"
                        "SET TimeZone = 'UTC'",
                        lease_ms / 2, lease_ms);
}

static void parse_plain(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    (void)res;
    call->cb.plain(call->arg, error);
}

static void parse_bool(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    bool answer = store_has_row(res, &error) && row_bool(res, 0, 0);
    call->cb.boolean(call->arg, error, answer);
}

static void parse_count(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    int count = store_has_row(res, &error) ? row_int4(res, 0, 0) : -1;
    call->cb.count(call->arg, error, count);
}

static void parse_level(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    if (store_has_row(res, &error))
        call->cb.level(call->arg, NULL, row_int4(res, 0, 0), row_int4(res, 0, 1));
    else
        call->cb.level(call->arg, error, 0, 0);
}

void store_level(struct pgconn *c, store_level_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_level, arg);
    call->cb.level = cb;
    store_send(c, &p, "SELECT level, min_level FROM outbox.level()", call);
}

static void parse_text(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    const char *text = store_has_row(res, &error) ? row_text(res, 0, 0) : NULL;
    call->cb.text(call->arg, error, text);
}

void store_database_identity(struct pgconn *c, store_text_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_text, arg);
    call->cb.text = cb;
    store_send(c, &p,
               "SELECT s.system_identifier::text || '-' || d.oid::text FROM pg_control_system() s, "
               "pg_database d"
               " WHERE d.datname = current_database()",
               call);
}

void store_listen(struct pgconn *c, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "LISTEN " STORE_CHANNEL, call);
}

void store_notify(struct pgconn *c, const char *payload, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_text(&p, payload);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "SELECT pg_notify('" STORE_CHANNEL "', $1)", call);
}

static void parse_register(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    if (!store_has_row(res, &error)) {
        call->cb.registered(call->arg, error, NULL);
        return;
    }
    const char *answer = row_text(res, 0, 0);
    if (answer != NULL && strcmp(answer, "registered") == 0) {
        call->cb.registered(call->arg, NULL, NULL);
        return;
    }
    const struct store_rival rival = {
        .id = row_int8(res, 0, 1),
        .host = row_text(res, 0, 2),
        .boot_id = row_text(res, 0, 3),
        .lock_id = row_text(res, 0, 4),
        .pid = row_int4(res, 0, 5),
        .beat = row_int8(res, 0, 6),
        .since_us = row_timestamp_us(res, 0, 7),
        .lease_ms = row_interval_ms(res, 0, 8),
    };
    call->cb.registered(call->arg, NULL, &rival);
}

void store_register(struct pgconn *c, const struct store_identity *me, store_register_cb cb,
                    void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, me->id);
    params_text(&p, me->name);
    params_text(&p, me->host);
    params_text(&p, me->boot_id);
    params_text(&p, me->lock_id);
    params_int4(&p, me->pid);
    params_int4_array(&p, me->backends, 2);
    params_text(&p, OB_VERSION);
    params_text_array(&p, me->tasks, me->tasks_count);
    params_interval_ms(&p, me->lease_ms);
    params_int8(&p, me->previous);
    struct store_call *call = store_call_new(parse_register, arg);
    call->cb.registered = cb;
    store_send(c, &p,
               "SELECT answer, other_id, other_host, other_boot_id, other_lock_id, other_pid, "
               "other_beat, other_since,"
               " other_lease FROM outbox.register($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
               call);
}

void store_unregister(struct pgconn *c, int64_t id, store_bool_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    struct store_call *call = store_call_new(parse_bool, arg);
    call->cb.boolean = cb;
    store_send(c, &p, "SELECT outbox.unregister($1)", call);
}

void store_extend(struct pgconn *c, int64_t id, const int backends[2], store_bool_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    params_int4_array(&p, backends, 2);
    struct store_call *call = store_call_new(parse_bool, arg);
    call->cb.boolean = cb;
    store_send(c, &p, "SELECT outbox.extend($1, NULL, $2)", call);
}

void store_announce(struct pgconn *c, int64_t id, const char *const *tasks, size_t n,
                    store_bool_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    params_text_array(&p, tasks, n);
    struct store_call *call = store_call_new(parse_bool, arg);
    call->cb.boolean = cb;
    store_send(c, &p, "SELECT outbox.extend($1, $2)", call);
}

static void send_tasks(struct pgconn *c, const char *sql, const char *const *tasks, size_t n,
                       store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_text_array(&p, tasks, n);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, sql, call);
}

void store_watch(struct pgconn *c, const char *const *tasks, size_t n, store_cb cb, void *arg)
{
    send_tasks(c, "SELECT outbox.watch($1)", tasks, n, cb, arg);
}

void store_unwatch(struct pgconn *c, const char *const *tasks, size_t n, store_cb cb, void *arg)
{
    send_tasks(c, "SELECT outbox.unwatch($1)", tasks, n, cb, arg);
}

void store_unwatch_all(struct pgconn *c, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "SELECT pg_advisory_unlock_all()", call);
}

void store_restamp(struct pgconn *c, store_count_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_count, arg);
    call->cb.count = cb;
    store_send(c, &p, "SELECT outbox.restamp()", call);
}

void store_set_name(struct pgconn *c, int64_t id, uint64_t lease_ms, store_cb cb, void *arg)
{
    char timeout[32];
    struct params p;
    (void)snprintf(timeout, sizeof timeout, "%" PRIu64 "ms", lease_ms);
    params_init(&p);
    params_int8(&p, id);
    params_text(&p, timeout);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p,
               "SELECT set_config('application_name', 'outbox ' || $1::text, false),"
               " set_config('idle_session_timeout', $2, false)",
               call);
}

static void parse_peers(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    size_t n = error == NULL ? (size_t)PQntuples(res) : 0;
    struct store_peer *peers = ob_xcalloc(n, sizeof *peers);
    for (size_t i = 0; i < n; i++) {
        int row = (int)i;
        peers[i] = (struct store_peer){
            .id = row_int8(res, row, 0),
            .name = row_text(res, row, 1),
            .host = row_text(res, row, 2),
            .beat = row_int8(res, row, 3),
            .lease_ms = row_interval_ms(res, row, 4),
        };
    }
    call->cb.peers(call->arg, error, peers, n);
    ob_free(peers);
}

void store_peers(struct pgconn *c, store_peers_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_peers, arg);
    call->cb.peers = cb;
    store_send(c, &p,
               "SELECT id, name, host, beat, lease FROM outbox.dispatchers ORDER BY id LIMIT 10000",
               call);
}

void store_terminate(struct pgconn *c, int64_t id, store_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    struct store_call *call = store_call_new(parse_plain, arg);
    call->cb.plain = cb;
    store_send(c, &p, "SELECT outbox.terminate($1)", call);
}

void store_take_over(struct pgconn *c, int64_t id, int64_t beat, bool started, store_count_cb cb,
                     void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    params_int8(&p, beat);
    params_bool(&p, started);
    struct store_call *call = store_call_new(parse_count, arg);
    call->cb.count = cb;
    store_send(c, &p, "SELECT outbox.take_over($1, nullif($2, -1), started => $3)", call);
}
