/* pgconn.c - the life of one connection: attempts, the watched socket, going down, closing. See
 * pgconn.h.
 *
 * What goes through a connection that is up is pgpipe.c's. Everything that ends in a callback is
 * done from the loop: calls of the header set the state and arm `kick`, whose callback does the
 * work. */
#include "db/pgconn.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/backoff.h"
#include "base/mem.h"
#include "base/rand.h"
#include "db/pgconn_state.h"

enum { CONNECT_TIMEOUT_MS = 10000 };
/* A connection that was up for so long was good: the next failure is the first of a row again. */
enum { STABLE_MS = 10000 };

/* The edges. Every state but CLOSING may lead to CLOSING. */
static const bool edges[PGCONN_STATES][PGCONN_STATES] = {
    [PGCONN_NEW] = {[PGCONN_RESOLVING] = true, [PGCONN_CLOSING] = true},
    [PGCONN_RESOLVING] =
        {[PGCONN_CONNECTING] = true, [PGCONN_FAILING] = true, [PGCONN_CLOSING] = true},
    [PGCONN_CONNECTING] =
        {[PGCONN_SESSION] = true, [PGCONN_FAILING] = true, [PGCONN_CLOSING] = true},
    [PGCONN_SESSION] = {[PGCONN_READY] = true, [PGCONN_FAILING] = true, [PGCONN_CLOSING] = true},
    [PGCONN_READY] = {[PGCONN_FAILING] = true, [PGCONN_CLOSING] = true},
    [PGCONN_FAILING] = {[PGCONN_BACKOFF] = true, [PGCONN_CLOSING] = true},
    [PGCONN_BACKOFF] = {[PGCONN_RESOLVING] = true, [PGCONN_CLOSING] = true},
};

static void set_state(struct pgconn *c, enum pgconn_state state)
{
    ob_assert(edges[c->state][state]);
    c->state = state;
}

static bool is_attempt(const struct pgconn *c)
{
    return c->state == PGCONN_RESOLVING || c->state == PGCONN_CONNECTING ||
           c->state == PGCONN_SESSION;
}

/* ---- attempts ---- */

/* What the server says outside of an answer: a FATAL before it hangs up is why the connection is
 * lost, anything else is of no interest here. */
static void on_notice(void *arg, const PGresult *res)
{
    struct pgconn *c = arg;
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
        pg_error_from_result(&c->fatal, res);
}

static void come_up(struct pgconn *c)
{
    if (PQenterPipelineMode(c->pq) != 1) {
        pgconn_down_from_pq(c);
        return;
    }
    set_state(c, PGCONN_READY);
    (void)uv_timer_stop(&c->timer);
    c->up_since_ms = uv_now(c->loop);
    pgpipe_begin(c);
    if (c->callbacks.on_up != NULL)
        c->callbacks.on_up(c, c->arg);
    pgconn_kick(c); /* notifications may have been read together with the last answer */
}

/* Sends what is left and reads the answers of the session's SQL: simple protocol, any number of
 * statements. */
static void step_session(struct pgconn *c)
{
    int left = PQflush(c->pq);
    if (left < 0) {
        pgconn_down_from_pq(c);
        return;
    }
    while (!PQisBusy(c->pq)) {
        PGresult *res = PQgetResult(c->pq);
        if (res == NULL) {
            pgtrace_session(c);
            come_up(c);
            if (c->state == PGCONN_READY)
                pgsock_watch(c, UV_READABLE);
            return;
        }
        ExecStatusType status = PQresultStatus(res);
        struct pg_error e;
        pg_error_from_result(&e, res);
        PQclear(res);
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK &&
            status != PGRES_EMPTY_QUERY) {
            pgconn_down(c, &e);
            return;
        }
    }
    pgsock_watch(c, left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void begin_session(struct pgconn *c)
{
    set_state(c, PGCONN_SESSION);
    if (PQsetnonblocking(c->pq, 1) != 0) {
        pgconn_down_from_pq(c);
        return;
    }
    c->session_sent_ns = pgtrace_now(c);
    if (c->session_sql != NULL && PQsendQuery(c->pq, c->session_sql) != 1) {
        pgconn_down_from_pq(c);
        return;
    }
    step_session(c);
}

static void step_connect(struct pgconn *c)
{
    pgsock_stop(c);
    switch (PQconnectPoll(c->pq)) {
    case PGRES_POLLING_READING:
        pgsock_watch(c, UV_READABLE);
        break;
    case PGRES_POLLING_WRITING:
        pgsock_watch(c, UV_WRITABLE);
        break;
    case PGRES_POLLING_OK:
        begin_session(c);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE: /* unused by libpq */
    default:
        pgconn_down_from_pq(c);
    }
}

void pgconn_on_socket(uv_poll_t *poll, int status, int events)
{
    struct pgsock *s = poll->data;
    struct pgconn *c = s->conn;
    ob_assert(c->sock == s);
    if (status != 0) /* libuv stopped it; what happened is libpq's to find: it has the words */
        s->events = 0;
    switch (c->state) {
    case PGCONN_CONNECTING:
        step_connect(c);
        break;
    case PGCONN_SESSION:
        if (PQconsumeInput(c->pq) != 1)
            pgconn_down_from_pq(c);
        else
            step_session(c);
        break;
    case PGCONN_READY:
        if (status != 0 || (events & UV_READABLE) != 0)
            pgpipe_read(c);
        else
            pgpipe_run(c);
        break;
    case PGCONN_NEW:
    case PGCONN_RESOLVING:
    case PGCONN_FAILING:
    case PGCONN_BACKOFF:
    case PGCONN_CLOSING:
    case PGCONN_STATES:
    default:
        ob_assert(c->sock == NULL); /* nothing is watched in these */
    }
}

static void connect_to(struct pgconn *c, const struct pg_target *t, bool use_hosts)
{
    set_state(c, PGCONN_CONNECTING);
    memset(&c->fatal, 0, sizeof c->fatal);
    c->pq = pg_target_connect(t, c, use_hosts);
    if (c->pq == NULL) {
        pgconn_fail(c, OB_ENOMEM, "out of memory");
        return;
    }
    (void)PQsetNoticeReceiver(c->pq, on_notice, c);
    (void)PQsetErrorVerbosity(c->pq,
                              PQERRORS_VERBOSE); /* with the SQLSTATE, see pg_error_from_conn */
    if (PQstatus(c->pq) == CONNECTION_BAD)
        pgconn_down_from_pq(c);
    else
        pgsock_watch(c, UV_WRITABLE); /* as if PQconnectPoll had asked for it (libpq's manual) */
}

/* From RESOLVING on: looks names up if there are any, connects if not or if that is done. */
static void try_connect(struct pgconn *c, bool is_looked_up)
{
    struct pg_target t;
    struct pg_error e = {.err = 0};
    int err = pg_target_read(&t, c->conninfo, &e);
    if (err != 0) {
        pgconn_down(c, &e);
        return;
    }
    bool use_hosts = t.has_names || (c->rotation > 0 && t.count > 1);
    if (t.has_names && is_looked_up) {
        err = pg_lookup_apply(c->lookup, &t, &e);
    } else if (t.has_names && c->lookup == NULL) {
        err = pg_lookup_start(c, &t);
        if (err != 0)
            pg_error_set(&e, err, ob_strerror(err));
    }
    if (err != 0)
        pgconn_down(c, &e);
    else if (!t.has_names)
        connect_to(c, &t, use_hosts);
    pg_target_clear(&t);
}

static void begin_attempt(struct pgconn *c)
{
    set_state(c, PGCONN_RESOLVING);
    (void)uv_timer_start(&c->timer, pgconn_on_timer, c->connect_timeout_ms, 0);
    try_connect(c, false);
}

static void describe_timeout(const struct pgconn *c, char *text, size_t size)
{
    unsigned long long ms = c->connect_timeout_ms;
    const char *host = c->pq != NULL ? PQhost(c->pq) : NULL;
    if (c->state == PGCONN_RESOLVING)
        (void)snprintf(text, size, "the host's name was not looked up within %llu ms", ms);
    else if (host != NULL && host[0] != '\0')
        (void)snprintf(text, size, "no connection within %llu ms, host %.100s is silent", ms, host);
    else
        (void)snprintf(text, size, "no connection within %llu ms", ms);
}

void pgconn_on_timer(uv_timer_t *timer)
{
    struct pgconn *c = timer->data;
    if (is_attempt(c)) {
        char message[160];
        describe_timeout(c, message, sizeof message);
        pgconn_fail(c, OB_ECONN, message);
    } else if (c->state == PGCONN_BACKOFF) {
        begin_attempt(c);
    } else {
        ob_assert(c->state == PGCONN_READY);
        pgpipe_on_timer(c);
    }
}

/* ---- going down, closing ---- */

static void drop_socket(struct pgconn *c)
{
    pgsock_close(c);
    PQfinish(c->pq);
    c->pq = NULL;
    (void)uv_timer_stop(&c->timer);
}

static void go_down(struct pgconn *c)
{
    drop_socket(c);
    if (c->up_since_ms == 0)
        c->rotation++; /* a host that accepts and fails, or swallows packets, ends libpq's walk */
    bool was_good = c->up_since_ms != 0 && uv_now(c->loop) - c->up_since_ms >= STABLE_MS;
    c->up_since_ms = 0;
    c->tries = was_good ? 1 : c->tries + 1;
    uint64_t retry_ms = backoff_reconnect_ms(c->tries, (uint32_t)rand_below((uint64_t)1 << 32));
    if (c->reconnect_max_ms > 0 && retry_ms > c->reconnect_max_ms)
        retry_ms = c->reconnect_max_ms;
    pgpipe_abandon(c);
    if (c->state == PGCONN_FAILING && c->callbacks.on_down != NULL)
        c->callbacks.on_down(c, &c->why, c->tries, retry_ms, c->arg);
    if (c->state != PGCONN_FAILING)
        return; /* closed by a callback */
    set_state(c, PGCONN_BACKOFF);
    (void)uv_timer_start(&c->timer, pgconn_on_timer, retry_ms, 0);
}

/* Frees the connection when nothing can call back any more. */
static void try_free(struct pgconn *c)
{
    if (c->handles_open > 0 || c->lookup != NULL)
        return;
    ob_assert(c->state == PGCONN_CLOSING);
    ob_assert(c->pq == NULL);
    ob_assert(c->pending == 0);
    void (*cb)(void *arg) = c->close_cb;
    void *arg = c->close_arg;
    ob_free(c->conninfo);
    ob_free(c->application_name);
    ob_free(c->session_sql);
    ob_free(c);
    if (cb != NULL)
        cb(arg);
}

void pgconn_handle_closed(struct pgconn *c)
{
    ob_assert(c->handles_open > 0);
    c->handles_open--;
    try_free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
    pgconn_handle_closed(handle->data);
}

void pgconn_on_lookup(struct pgconn *c)
{
    if (c->state == PGCONN_RESOLVING)
        try_connect(c, true);
    /* else the attempt that wanted to know has ended */
    pg_lookup_free(c->lookup);
    c->lookup = NULL;
    try_free(c);
}

static void close_all(struct pgconn *c)
{
    drop_socket(c);
    pg_error_set(&c->why, OB_ECONN, "the connection is being closed");
    pgpipe_abandon(c);
    if (c->lookup != NULL)
        pg_lookup_cancel(c->lookup);
    uv_close((uv_handle_t *)&c->kick, on_handle_closed);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

static void on_kick(uv_idle_t *kick)
{
    struct pgconn *c = kick->data;
    (void)uv_idle_stop(kick);
    if (c->state == PGCONN_CLOSING)
        close_all(c);
    else if (c->state == PGCONN_FAILING)
        go_down(c);
    else if (c->state == PGCONN_NEW)
        begin_attempt(c);
    else if (c->state == PGCONN_READY)
        pgpipe_run(c);
}

void pgconn_kick(struct pgconn *c)
{
    (void)uv_idle_start(&c->kick, on_kick); /* an armed idle handle makes the loop not wait */
}

void pgconn_down(struct pgconn *c, const struct pg_error *why)
{
    if (!is_attempt(c) && c->state != PGCONN_READY)
        return; /* down already, or never up */
    c->why = c->fatal.err != 0 ? c->fatal : *why;
    if (c->why.err == OB_OK)
        c->why.err = OB_ECONN;
    pgsock_stop(c);
    (void)uv_timer_stop(&c->timer);
    set_state(c, PGCONN_FAILING);
    pgconn_kick(c);
}

void pgconn_down_from_pq(struct pgconn *c)
{
    struct pg_error e;
    pg_error_from_conn(&e, c->pq);
    pgconn_down(c, &e);
}

void pgconn_fail(struct pgconn *c, int err, const char *reason)
{
    struct pg_error e;
    pg_error_set(&e, err, reason);
    pgconn_down(c, &e);
}

/* ---- the rest of the header ---- */

/* True for what libpq would take for a connection string; anything else is a database's name. */
static bool is_conninfo(const char *text)
{
    return strncmp(text, "postgresql://", 13) == 0 || strncmp(text, "postgres://", 11) == 0 ||
           strchr(text, '=') != NULL;
}

int pgconn_new(uv_loop_t *loop, const struct pgconn_config *config,
               const struct pgconn_callbacks *callbacks, void *arg, struct pgconn **ret_conn)
{
    const char *conninfo = config->conninfo != NULL ? config->conninfo : "";
    if (is_conninfo(conninfo)) {
        PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
        if (options == NULL)
            return OB_ECONFIG; /* libpq's message may quote the password: it is not passed on */
        PQconninfoFree(options);
    }
    struct pgconn *c = ob_xcalloc(1, sizeof *c);
    c->loop = loop;
    c->callbacks = *callbacks;
    c->arg = arg;
    c->conninfo = ob_xstrdup(conninfo);
    c->application_name = ob_xstrdup(config->application_name);
    c->session_sql = ob_xstrdup(config->session_sql);
    c->connect_timeout_ms =
        config->connect_timeout_ms > 0 ? config->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    c->statement_stall_ms = config->statement_stall_ms;
    c->reconnect_max_ms = config->reconnect_max_ms;
    c->state = PGCONN_NEW;
    list_init(&c->batches);
    (void)uv_timer_init(loop, &c->timer);
    (void)uv_idle_init(loop, &c->kick);
    c->timer.data = c;
    c->kick.data = c;
    c->handles_open = 2;
    *ret_conn = c;
    return 0;
}

void pgconn_start(struct pgconn *c)
{
    ob_assert(c->state == PGCONN_NEW);
    pgconn_kick(c);
}

bool pgconn_is_up(const struct pgconn *c)
{
    return c->state == PGCONN_READY;
}

size_t pgconn_pending(const struct pgconn *c)
{
    return c->pending;
}

int pgconn_backend_pid(const struct pgconn *c)
{
    return c->state == PGCONN_READY ? PQbackendPID(c->pq) : 0;
}

void pgconn_close(struct pgconn *c, void (*cb)(void *arg), void *arg)
{
    ob_assert(c->state != PGCONN_CLOSING);
    pgsock_stop(c);
    (void)uv_timer_stop(&c->timer);
    set_state(c, PGCONN_CLOSING);
    c->close_cb = cb;
    c->close_arg = arg;
    pgconn_kick(c);
}
