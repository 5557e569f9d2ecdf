/* pgpipe.c - what goes through a connection that is up: batches out, answers and notifications in,
 * in libpq's pipeline mode. See pgconn_state.h.
 *
 * Called by pgconn.c, and by pgconn_submit, which only queues. Every callback may submit more, fail
 * or close the connection: the state is looked at again after each. Work per turn is capped. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "db/pgconn_state.h"

enum {
    ANSWERS_A_TURN = 256,
    NOTIFIES_A_TURN = 256,
    STATEMENTS_A_TURN = 512,
    FLUSH_BYTES = 64 * 1024, /* as libpq does by itself while it queues */
    ENCRYPTED_LOOK_MS = 50
};

static struct pgbatch *head_batch(const struct pgconn *c)
{
    return list_is_empty(&c->batches) ? NULL : list_entry(c->batches.next, struct pgbatch, node);
}

static struct pgbatch *next_batch(const struct pgconn *c, const struct pgbatch *b)
{
    return b->node.next == &c->batches ? NULL : list_entry(b->node.next, struct pgbatch, node);
}

/* Whatever the transport has already decrypted does not make the socket readable. */
static bool is_encrypted(const struct pgconn *c)
{
    return PQsslInUse(c->pq) || PQgssEncInUse(c->pq);
}

/* Runs the timer while something is unanswered. It is not moved with every answer: when it fires,
 * it looks how old the head is. */
static void arm_timer(struct pgconn *c)
{
    if (c->pending == 0 || c->state != PGCONN_READY || uv_is_active((uv_handle_t *)&c->timer))
        return;
    uint64_t wait_ms = c->statement_stall_ms;
    if (wait_ms > 0) {
        uint64_t age_ms = uv_now(c->loop) - c->head_since_ms;
        wait_ms = age_ms < wait_ms ? wait_ms - age_ms : 1;
    }
    if (is_encrypted(c) && (wait_ms == 0 || wait_ms > ENCRYPTED_LOOK_MS))
        wait_ms = ENCRYPTED_LOOK_MS;
    if (wait_ms > 0)
        (void)uv_timer_start(&c->timer, pgconn_on_timer, wait_ms, 0);
}

void pgpipe_begin(struct pgconn *c)
{
    ob_assert(list_is_empty(&c->batches));
    ob_assert(c->sending == NULL);
    c->want_write = false;
    c->has_more = false;
    c->prepared_count = 0;
    c->prepared_serial = 0;
}

/* ---- prepared statements ---- */

static struct pg_prepared *find_prepared(struct pgconn *c, const char *sql)
{
    for (size_t i = 0; i < c->prepared_count; i++) {
        if (c->prepared[i].sql == sql)
            return &c->prepared[i];
    }
    return NULL;
}

static void forget_prepared(struct pgconn *c, const char *sql)
{
    struct pg_prepared *p = find_prepared(c, sql);
    if (p != NULL)
        *p = c->prepared[--c->prepared_count];
}

/* How s goes out. A name that another batch is still preparing is not relied on: that batch may
 * fail before it gets there, and this one would fail with it. */
static enum pgstmt_form choose_form(struct pgconn *c, const struct pgbatch *b,
                                    const struct pgstmt *s, unsigned *ret_number)
{
    if (!s->prepare)
        return PGSTMT_UNNAMED;
    struct pg_prepared *p = find_prepared(c, s->sql);
    if (p != NULL) {
        *ret_number = p->number;
        return p->by == NULL || p->by == b ? PGSTMT_NAMED : PGSTMT_UNNAMED;
    }
    if (c->prepared_count == PG_PREPARED_MAX)
        return PGSTMT_UNNAMED;
    p = &c->prepared[c->prepared_count++];
    p->sql = s->sql;
    p->number = ++c->prepared_serial;
    p->by = b;
    *ret_number = p->number;
    return PGSTMT_PREPARES;
}

/* A batch is over. What it failed to prepare is unknown to the server; and a plan that a migration
 * made stale (0A000) or a name that somebody deallocated (26000) is made again under a new name. */
static void settle_prepared(struct pgconn *c, const struct pgbatch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct pg_prepared *p = find_prepared(c, b->stmts[i].sql);
        if (p != NULL && p->by == b)
            forget_prepared(c, p->sql);
    }
    if (strcmp(b->error.sqlstate, "0A000") == 0 || strcmp(b->error.sqlstate, "26000") == 0) {
        for (size_t i = 0; i < b->count; i++) {
            const struct pg_prepared *p = find_prepared(c, b->stmts[i].sql);
            if (p != NULL && p->by == NULL)
                forget_prepared(c, p->sql);
        }
    }
}

/* ---- sending ---- */

static bool send_stmt(struct pgconn *c, struct pgbatch *b, struct pgstmt *s)
{
    char name[24];
    unsigned number = 0;
    s->sent_ns = pgtrace_now(c);
    s->form = choose_form(c, b, s, &number);
    (void)snprintf(name, sizeof name, "ob_%u", number);
    int format = s->result_binary ? 1 : 0;
    int ok = 1;
    switch (s->form) {
    case PGSTMT_UNNAMED:
        ok = PQsendQueryParams(c->pq, s->sql, s->nparams, s->types, s->values, s->lengths,
                               s->formats, format);
        break;
    case PGSTMT_PREPARES:
        ok = PQsendPrepare(c->pq, name, s->sql, s->nparams, s->types);
        if (ok != 1)
            break;
        __attribute__((fallthrough)); /* into the bind */
    case PGSTMT_NAMED:
        ok =
            PQsendQueryPrepared(c->pq, name, s->nparams, s->values, s->lengths, s->formats, format);
        break;
    }
    pgstmt_forget_params(s);
    return ok == 1;
}

/* Pushes what libpq holds. False: the connection is down. */
static bool flush(struct pgconn *c)
{
    int left = PQflush(c->pq);
    if (left < 0) {
        pgconn_down_from_pq(c);
        return false;
    }
    c->want_write = left > 0;
    return true;
}

/* The next statement of c->sending, or its Sync. False: the connection is down. */
static bool send_next(struct pgconn *c, size_t *unflushed_bytes)
{
    struct pgbatch *b = c->sending;
    ob_assert(b != NULL);
    bool ok = true;
    if (b->sent_count < b->count) {
        struct pgstmt *s = &b->stmts[b->sent_count];
        ok = send_stmt(c, b, s);
        *unflushed_bytes += s->bytes;
        b->sent_count++;
    } else {
        b->sync_sent_ns = pgtrace_now(c);
        ok = PQpipelineSync(c->pq) == 1;
        b->is_sync_sent = true;
        c->sending = next_batch(c, b);
    }
    if (!ok)
        pgconn_down_from_pq(c);
    return ok;
}

/* Sends until everything is out, the socket takes no more, or it is enough for a turn. Large
 * parameters are thus copied into libpq's buffer one statement at a time. */
static void send_batches(struct pgconn *c)
{
    size_t unflushed_bytes = 0;
    for (unsigned n = 0; c->sending != NULL && !c->want_write; n++) {
        if (n == STATEMENTS_A_TURN) {
            c->has_more = true;
            break;
        }
        const struct pgbatch *b = c->sending;
        if (!send_next(c, &unflushed_bytes))
            return;
        if (c->sending != b || unflushed_bytes >= FLUSH_BYTES) {
            unflushed_bytes = 0;
            if (!flush(c))
                return;
        }
    }
}

/* ---- answers ---- */

/* True while the server owes us something: a sent statement's result or a sent Sync's. */
static bool expects_answer(const struct pgconn *c)
{
    const struct pgbatch *b = head_batch(c);
    return b != NULL && (b->answered_count < b->sent_count || b->is_sync_sent);
}

static void answer_batch(struct pgconn *c, struct pgbatch *b, const struct pg_error *error)
{
    ob_assert(c->pending > 0);
    if (c->sending == b)
        c->sending = next_batch(c, b);
    list_remove(&b->node);
    c->pending--;
    c->head_since_ms = uv_now(c->loop);
    b->cb(b, error, b->arg);
    pgbatch_free(b);
}

/* The batch's Sync came: what the batch did is now certain. */
static void take_sync(struct pgconn *c, struct pgbatch *b)
{
    if (!b->is_sync_sent || b->answered_count < b->count) {
        pgconn_fail(c, OB_ECONN, "protocol out of step: Sync before the last answer");
        return;
    }
    pgtrace_commit(c, b);
    settle_prepared(c, b);
    struct pg_error error = b->error;
    answer_batch(c, b, error.err != 0 ? &error : NULL);
    if (error.sqlstate[0] != '\0' && pg_advice(error.sqlstate) == PG_RECONNECT)
        pgconn_down(c, &error); /* a demoted primary goes on answering: it has to be left */
}

static void take_success(struct pgconn *c, struct pgbatch *b, PGresult *res)
{
    struct pgstmt *s = &b->stmts[b->answered_count];
    if (s->form == PGSTMT_PREPARES && !s->is_prepared) {
        struct pg_prepared *p = find_prepared(c, s->sql);
        ob_assert(p != NULL);
        p->by = NULL; /* stays, even if the batch is rolled back */
        s->is_prepared = true;
        PQclear(res);
        return;
    }
    pgtrace_success(c, s, res);
    s->result = res;
    b->answered_count++;
}

static void take_failure(struct pgconn *c, struct pgbatch *b, PGresult *res)
{
    struct pg_error e;
    pg_error_from_result(&e, res);
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    bool is_last_word = severity != NULL && strcmp(severity, "ERROR") != 0;
    bool is_skipped = PQresultStatus(res) == PGRES_PIPELINE_ABORTED;
    PQclear(res);
    if (is_last_word)
        c->fatal = e;
    if (is_last_word || (!is_skipped && e.sqlstate[0] == '\0')) {
        pgconn_down(c, &e); /* FATAL, or libpq itself: lost, out of memory */
        return;
    }
    pgtrace_failure(c, b, &e, is_skipped);
    if (b->error.err == 0) {
        b->error = e;
        b->failed_at = b->answered_count;
    }
    if (b->answered_count == b->count)
        return; /* an error at the Sync: the commit failed */
    struct pgstmt *s = &b->stmts[b->answered_count];
    if (s->form == PGSTMT_PREPARES && !s->is_prepared)
        s->is_prepared = true; /* answered; settle_prepared forgets it */
    else
        b->answered_count++;
}

static void take_result(struct pgconn *c, PGresult *res)
{
    struct pgbatch *b = head_batch(c);
    ob_assert(b != NULL); /* expects_answer() said so */
    c->head_since_ms = uv_now(c->loop);
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(res);
        take_sync(c, b);
    } else if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
               status == PGRES_EMPTY_QUERY) {
        if (b->answered_count < b->sent_count) {
            take_success(c, b, res);
        } else {
            PQclear(res);
            pgconn_fail(c, OB_ECONN, "protocol out of step: an answer too many");
        }
    } else if (status == PGRES_FATAL_ERROR || status == PGRES_PIPELINE_ABORTED) {
        take_failure(c, b, res);
    } else { /* COPY can't be used in a pipeline; the rest is not asked for */
        PQclear(res);
        pgconn_fail(c, OB_EINVAL, "a statement of a kind that a batch can't hold (COPY)");
    }
}

/* In pipeline mode NULL only separates the statements' results. Two in a row mean that libpq has
 * nothing more while we expect something. */
static void read_answers(struct pgconn *c)
{
    bool was_null = false;
    for (unsigned n = 0; c->state == PGCONN_READY && expects_answer(c); n++) {
        if (n == ANSWERS_A_TURN) {
            c->has_more = true;
            return;
        }
        if (PQisBusy(c->pq))
            return;
        PGresult *res = PQgetResult(c->pq);
        if (res != NULL) {
            was_null = false;
            take_result(c, res);
        } else if (was_null) {
            pgconn_fail(c, OB_ECONN, "protocol out of step: an answer is missing");
        } else {
            was_null = true;
        }
    }
}

static void read_notifies(struct pgconn *c)
{
    for (unsigned n = 0; c->state == PGCONN_READY; n++) {
        if (n == NOTIFIES_A_TURN) {
            c->has_more = true;
            return;
        }
        PGnotify *notify = PQnotifies(c->pq);
        if (notify == NULL)
            return;
        if (c->callbacks.on_notify != NULL)
            c->callbacks.on_notify(c, notify->relname, notify->extra, notify->be_pid, c->arg);
        PQfreemem(notify);
    }
}

/* Notifications come out of the same buffer as answers, whenever anything was parsed. */
static void read_buffered(struct pgconn *c)
{
    read_answers(c);
    read_notifies(c);
}

void pgpipe_run(struct pgconn *c)
{
    ob_assert(c->state == PGCONN_READY);
    c->has_more = false;
    if (c->want_write && !flush(c))
        return;
    read_buffered(c);
    if (c->state == PGCONN_READY)
        send_batches(c);
    /* While it waits for room to send, libpq reads: then the socket is not readable again. */
    read_buffered(c);
    if (c->state != PGCONN_READY)
        return;
    if (PQstatus(c->pq) != CONNECTION_OK) {
        pgconn_down_from_pq(c);
        return;
    }
    arm_timer(c);
    if (c->has_more)
        pgconn_kick(c);
    pgsock_watch(c, (c->has_more ? 0 : UV_READABLE) | (c->want_write ? UV_WRITABLE : 0));
}

void pgpipe_read(struct pgconn *c)
{
    ob_assert(c->state == PGCONN_READY);
    bool ok = PQconsumeInput(c->pq) == 1;
    if (ok && is_encrypted(c)) /* the rest of a record that was larger than libpq's buffer */
        ok = PQconsumeInput(c->pq) == 1;
    if (!ok) {
        read_buffered(c); /* what came before the end, the server's reason above all */
        if (c->state == PGCONN_READY)
            pgconn_down_from_pq(c);
        return;
    }
    pgpipe_run(c);
}

/* The timer in READY: the head's patience may be over; and a TLS or GSS layer may hold bytes that a
 * record brought in two pieces. */
void pgpipe_on_timer(struct pgconn *c)
{
    ob_assert(c->state == PGCONN_READY);
    if (c->pending == 0)
        return;
    if (c->statement_stall_ms > 0 && uv_now(c->loop) - c->head_since_ms >= c->statement_stall_ms) {
        char message[96];
        (void)snprintf(message, sizeof message, "no answer from the server within %llu ms",
                       (unsigned long long)c->statement_stall_ms);
        pgconn_fail(c, OB_ECONN, message);
        return;
    }
    if (is_encrypted(c))
        pgpipe_read(c);
    else
        arm_timer(c);
}

/* ---- submitting ---- */

void pgconn_submit(struct pgconn *c, struct pgbatch *b, pgbatch_cb cb, void *arg)
{
    ob_assert(cb != NULL);
    ob_assert(b->cb == NULL);
    b->cb = cb;
    b->arg = arg;
    if (b->err != 0 || c->state != PGCONN_READY) {
        if (b->err != 0)
            pg_error_set(&b->error, b->err, ob_strerror(b->err));
        else
            pg_error_set(&b->error, OB_ECONN, "not connected");
        cb(b, &b->error, arg);
        pgbatch_free(b);
        return;
    }
    if (c->pending == 0)
        c->head_since_ms = uv_now(c->loop);
    list_append(&c->batches, &b->node);
    c->pending++;
    if (c->sending == NULL)
        c->sending = b;
    pgconn_kick(c);
}

void pgpipe_abandon(struct pgconn *c)
{
    struct pg_error error = c->why;
    error.err = OB_ECONN;
    c->sending = NULL;
    while (!list_is_empty(&c->batches)) {
        struct pgbatch *b = head_batch(c);
        ob_assert(b != NULL);
        pgtrace_lost(c, b);
        b->failed_at = b->count;
        b->error = error; /* results that came without the Sync prove nothing: not to be seen */
        answer_batch(c, b, &error);
    }
}
