/* session.c - see session.h. The steps of joining are in join.c; here: connections, beats, lease,
 * end. */
#include "core/session.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/session_priv.h"
#include "core/trace.h"

enum { TICKS_PER_LEASE = 60, BEATS_PER_LEASE = 6, UNREGISTER_TIMEOUT_MS = 5000 };

/* Which edges there are: row from, bit to. Everything may fall to DOWN, and be closed. */
static const unsigned edges[] = {
    [SESSION_DOWN] = 1U << SESSION_CHECKING,
    [SESSION_CHECKING] = 1U << SESSION_LISTENING | 1U << SESSION_CHECKING,
    [SESSION_LISTENING] = 1U << SESSION_PROVING,
    [SESSION_PROVING] = 1U << SESSION_NAMING,
    [SESSION_NAMING] = 1U << SESSION_REGISTERING,
    [SESSION_REGISTERING] = 1U << SESSION_CLEARING | 1U << SESSION_ADOPTING,
    [SESSION_CLEARING] = 1U << SESSION_REGISTERING,
    [SESSION_ADOPTING] = 1U << SESSION_RESTAMPING,
    [SESSION_RESTAMPING] = 1U << SESSION_ASKING,
    [SESSION_ASKING] = 1U << SESSION_READY,
    [SESSION_READY] = 0,
    [SESSION_CLOSING] = 0,
};

void session_set_state(struct session *s, enum session_state state)
{
    bool is_legal =
        state == SESSION_DOWN || state == SESSION_CLOSING || (edges[s->state] & 1U << state) != 0;
    ob_assert(is_legal);
    ob_assert(s->state != SESSION_CLOSING);
    s->state = state;
}

/* A connection that failed is told from the loop, a moment later: until then nothing may be sent on
 * it, or each refusal would be answered by another try, with the loop never getting there. */
bool session_is_ready(const struct session *s)
{
    return s->state == SESSION_READY && pgconn_is_up(s->work);
}

struct pgconn *session_conn(struct session *s)
{
    ob_assert(s->state == SESSION_READY);
    return s->work;
}

int64_t session_id(const struct session *s)
{
    return s->id;
}

int64_t session_take_claims(struct session *s, size_t n)
{
    int64_t first = s->next_claim;
    s->next_claim += (int64_t)n;
    return first;
}

void session_progress(struct session *s)
{
    s->progress_ms = clock_mono_ms();
}

void session_fail(struct session *s, const char *reason)
{
    pgconn_fail(s->work, OB_ECONN, reason);
}

static uint64_t over_after_ms(const struct session *s)
{
    return s->lease_ms * 11 / 12;
}

void session_renewed(struct session *s, uint64_t sent_boot_ms)
{
    s->renewed_boot_ms = sent_boot_ms;
    if (s->lease != LEASE_GOOD) {
        s->lease = LEASE_GOOD;
        s->cb.on_lease(s->arg, LEASE_GOOD);
    }
    s->cb.on_renewed(s->arg, sent_boot_ms + over_after_ms(s));
}

/* ---- beats and peers: on the second connection ---- */

static void on_extend(void *arg, const struct pg_error *error, bool alive)
{
    struct session *s = arg;
    if (error != NULL || s->state != SESSION_READY || s->beat_id != s->id)
        return; /* a lost connection has its own way; a refused beat is sent again at the next tick
                 */
    if (alive) {
        session_renewed(s, s->beat_sent_boot_ms);
        return;
    }
    log_warn(
        "identity_lost", LOG_INT("dispatcher", s->id),
        LOG_STR("reason", "another dispatcher took over: this one did not beat for a whole lease"));
    session_fail(s, "taken over by another dispatcher");
}

/* True while turns are stuck: a lease that is renewed without progress would keep jobs from
 * everybody. */
static bool is_stuck(const struct session *s, uint64_t now)
{
    return pgconn_pending(s->work) > 0 && now - s->progress_ms > s->lease_ms / 3;
}

static void beat(struct session *s)
{
    const int backends[2] = {pgconn_backend_pid(s->work), pgconn_backend_pid(s->beat)};
    s->beat_id = s->id;
    s->beat_sent_boot_ms = clock_boot_ms();
    s->beat_due_ms = clock_mono_ms() + s->lease_ms / BEATS_PER_LEASE;
    store_extend(s->beat, s->id, backends, on_extend, s);
    orders_ask(s);
}

static void on_take_over(void *arg, const struct pg_error *error, int released)
{
    struct session *s = arg;
    if (error != NULL)
        log_warn("take_over_failed", LOG_INT("dispatcher", s->dying.id),
                 LOG_STR("sqlstate", error->sqlstate), LOG_STR("err", error->message),
                 LOG_STR("next", "again at the next beat"));
    else if (released >= 0)
        log_warn("took_over", LOG_INT("dispatcher", s->dying.id), LOG_STR("name", s->dying.name),
                 LOG_STR("host", s->dying.host), LOG_INT("jobs", released));
    if (error == NULL && released >= TAKE_OVER_BATCH && pgconn_is_up(s->beat)) {
        store_take_over(s->beat, s->dying.id, s->dying.beat, true, on_take_over, s);
        return;
    }
    s->dying.id = 0;
}

static void on_terminated(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (error != NULL) {
        s->dying.id = 0;
        return;
    }
    store_take_over(s->beat, s->dying.id, s->dying.beat, true, on_take_over, s);
}

static void on_peers(void *arg, const struct pg_error *error, const struct store_peer *peers,
                     size_t n)
{
    struct session *s = arg;
    s->beat_under_way = false;
    if (error != NULL || s->state != SESSION_READY)
        return;
    uint64_t now = clock_mono_ms();
    const struct store_peer *dead = NULL;
    peers_begin(&s->peers);
    for (size_t i = 0; i < n; i++) {
        if (peers[i].id == s->id)
            continue;
        /* Who had our name and lock file before us is gone: a job of it was locked, no more. */
        if (peers[i].id == s->excused_id ||
            peers_observe(&s->peers, peers[i].id, peers[i].beat, peers[i].lease_ms,
                          s->peers_asked_ms, now))
            dead = &peers[i];
    }
    peers_end(&s->peers);
    if (dead == NULL || s->dying.id != 0)
        return; /* one at a time; the others are still dead at the next beat */
    s->dying.id = dead->id;
    s->dying.beat = dead->beat;
    (void)snprintf(s->dying.name, sizeof s->dying.name, "%s", dead->name != NULL ? dead->name : "");
    (void)snprintf(s->dying.host, sizeof s->dying.host, "%s", dead->host != NULL ? dead->host : "");
    store_terminate(s->beat, s->dying.id, on_terminated, s);
}

static void check_lease(struct session *s)
{
    if (s->renewed_boot_ms == 0 || s->lease == LEASE_OVER)
        return;
    uint64_t age = clock_boot_ms() - s->renewed_boot_ms;
    enum session_lease lease = s->lease;
    if (age >= over_after_ms(s))
        lease = LEASE_OVER;
    else if (age >= s->lease_ms * 2 / 3)
        lease = LEASE_ENDING;
    if (lease == s->lease)
        return;
    s->lease = lease;
    s->cb.on_lease(s->arg, lease);
}

static void on_tick(uv_timer_t *timer)
{
    struct session *s = timer->data;
    uint64_t now = clock_mono_ms();
    check_lease(s);
    if (s->state != SESSION_READY || !pgconn_is_up(s->beat) || s->beat_under_way ||
        now < s->beat_due_ms)
        return;
    if (is_stuck(s, now)) {
        log_warn("no_progress", LOG_INT("ms", now - s->progress_ms),
                 LOG_STR("next", "no heartbeat until the database answers again"));
        s->beat_due_ms = now + s->lease_ms / BEATS_PER_LEASE;
        return;
    }
    s->beat_under_way = true; /* until both are answered */
    s->peers_asked_ms = now;
    beat(s);
    store_peers(s->beat, on_peers, s);
}

/* ---- connections ---- */

static void on_named(void *arg, const struct pg_error *error)
{
    (void)arg;
    (void)error; /* without the name outbox.terminate() spares the session, no more */
}

static void on_up(struct pgconn *c, void *arg)
{
    struct session *s = arg;
    if (s->state == SESSION_CLOSING)
        return; /* the row's removal is still awaited */
    if (s->state == SESSION_READY) {
        s->beat_due_ms = 0; /* the beat connection is back: renew at once */
        store_set_name(s->beat, s->id, s->lease_ms, on_named, s);
        on_tick(&s->tick);
        return;
    }
    (void)c;
    if (pgconn_is_up(s->work) && pgconn_is_up(s->beat))
        join_begin(s);
}

static void on_down(struct pgconn *c, const struct pg_error *why, unsigned tries, uint64_t retry_ms,
                    void *arg)
{
    struct session *s = arg;
    bool is_work = c == s->work;
    uint64_t swallowed = 0;
    if (s->state == SESSION_CLOSING)
        return;
    if (log_allow(is_work ? "work_down" : "beat_down", 10000, &swallowed))
        log_warn("database_down", LOG_STR("connection", is_work ? "work" : "heartbeat"),
                 LOG_STR("err", why->message),
                 LOG_STR("sqlstate", why->sqlstate[0] != '\0' ? why->sqlstate : NULL),
                 LOG_INT("tries", tries), LOG_INT("retry_ms", retry_ms));
    peers_forget(&s->peers);
    if (s->state == SESSION_READY && !is_work)
        return; /* the lease runs on */
    bool was_ready = s->state == SESSION_READY;
    join_end(s);
    if (was_ready)
        s->cb.on_unready(s->arg);
}

static void on_notify(struct pgconn *c, const char *channel, const char *payload, int backend_pid,
                      void *arg)
{
    struct session *s = arg;
    (void)backend_pid;
    if (c != s->work || strcmp(channel, STORE_CHANNEL) != 0)
        return;
    orders_on_notify(s, payload);
    if (s->state == SESSION_PROVING)
        join_on_notify(s, payload);
    else if (s->state == SESSION_READY && payload[0] == '\0')
        s->cb.on_wake(s->arg);
}

static int open_connection(struct session *s, const char *role, struct pgconn **ret_conn)
{
    static const struct pgconn_callbacks callbacks = {on_up, on_down, on_notify};
    /* The name under which outbox.terminate() finds this dispatcher's sessions is set at
     * registration. */
    const struct pgconn_config config = {
        .conninfo = s->config->database,
        .application_name = role,
        .session_sql = s->session_sql,
        .statement_stall_ms = s->lease_ms / 2,
        .reconnect_max_ms = s->lease_ms / 6, /* soon enough to find what still runs ours */
    };
    return pgconn_new(s->loop, &config, &callbacks, s, ret_conn);
}

int session_new(uv_loop_t *loop, struct config *config, const struct session_callbacks *callbacks,
                void *arg, struct session **ret_session)
{
    struct session *s = ob_xcalloc(1, sizeof *s);
    s->loop = loop;
    s->config = config_ref(config);
    s->lease_ms = config->lease_ms;
    s->cb = *callbacks;
    s->arg = arg;
    s->next_claim = 1;
    s->session_sql = store_session_sql(config->lease_ms);
    peers_init(&s->peers);
    name_lock_init(&s->lock);
    join_init(s);
    (void)uv_timer_init(loop, &s->tick);
    (void)uv_timer_init(loop, &s->step);
    s->tick.data = s;
    s->step.data = s;
    int err = open_connection(s, "outbox work", &s->work);
    if (err == 0)
        err = open_connection(s, "outbox heartbeat", &s->beat);
    if (err == OB_ECONFIG) /* it may hold a password: not quoted */
        log_error("bad_database", LOG_STR("err", "the connection string is malformed"),
                  LOG_STR("next",
                          "write \"host=... dbname=...\" or postgresql://user@host/database, "
                          "special characters of a password in a URI as %XX"));
    *ret_session = s; /* half-built: session_close frees it */
    return err;
}

void session_start(struct session *s)
{
    trace_connection(s->work, "work", s->config->log_sql);
    trace_connection(s->beat, "heartbeat", s->config->log_sql);
    uint64_t tick_ms = s->lease_ms / TICKS_PER_LEASE;
    (void)uv_timer_start(&s->tick, on_tick, tick_ms, tick_ms > 0 ? tick_ms : 1);
    pgconn_start(s->work);
    pgconn_start(s->beat);
}

/* ---- the end ---- */

static void free_if_closed(struct session *s)
{
    if (--s->open_handles > 0)
        return;
    void (*cb)(void *, bool) = s->on_closed;
    void *arg = s->closed_arg;
    bool left_rows = s->left_rows;
    name_lock_close(&s->lock);
    peers_deinit(&s->peers);
    join_deinit(s);
    config_unref(s->config);
    ob_free(s->session_sql);
    ob_free(s);
    cb(arg, left_rows);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free_if_closed(handle->data);
}

static void on_conn_closed(void *arg)
{
    free_if_closed(arg);
}

static void close_all(struct session *s)
{
    if (s->is_closing_handles)
        return;
    s->is_closing_handles = true;
    s->open_handles = 2 + (s->work != NULL ? 1U : 0) + (s->beat != NULL ? 1U : 0);
    (void)uv_timer_stop(&s->step);
    uv_close((uv_handle_t *)&s->tick, on_timer_closed);
    uv_close((uv_handle_t *)&s->step, on_timer_closed);
    if (s->work != NULL)
        pgconn_close(s->work, on_conn_closed, s);
    if (s->beat != NULL)
        pgconn_close(s->beat, on_conn_closed, s);
}

static void on_unregistered(void *arg, const struct pg_error *error, bool gone)
{
    struct session *s = arg;
    s->left_rows = error == NULL && !gone;
    close_all(s);
}

/* The server does not answer: the row is left to its lease. */
static void on_unregister_timeout(uv_timer_t *timer)
{
    close_all(timer->data);
}

void session_close(struct session *s, void (*cb)(void *arg, bool left_rows), void *arg)
{
    bool was_ready = s->state == SESSION_READY;
    session_set_state(s, SESSION_CLOSING);
    s->on_closed = cb;
    s->closed_arg = arg;
    if (!was_ready) {
        close_all(s);
        return;
    }
    (void)uv_timer_start(&s->step, on_unregister_timeout, UNREGISTER_TIMEOUT_MS, 0);
    store_unregister(s->work, s->id, on_unregistered, s);
}
