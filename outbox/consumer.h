/* consumer.h - wait until jobs have ended. Beside outbox.h.
 *
 * QUICK EXAMPLE
 *
 *     #include <outbox/consumer.h>
 *
 *     struct outbox_answer answer;
 *     job.notify_done = true;                      // so that waiting needs no polling
 *     ... BEGIN, outbox_enqueue(conn, &job, &id, &err), COMMIT, then:
 *     rc = outbox_wait(conn, &id, 1, 30000, &answer, &err);
 *     if (rc == OUTBOX_OK && answer.state == OUTBOX_DEAD) ...
 *
 * WHAT IS IN HERE
 *   1 states       enum outbox_state, outbox_state_name
 *   2 waiting      outbox_wait, outbox_wait_with
 *   3 event loops  outbox_wait_query_*, outbox_wait_notify: statement and answers, without blocking
 *
 * REQUIREMENTS
 *   Those of outbox.h, and a POSIX system (poll). Compile as gnu99 or later, or define
 *   _POSIX_C_SOURCE as 200809L: otherwise there is no monotonic clock to count with, and a step of
 *   the system's clock changes how long a call waits. The role needs `outbox grant --producer`,
 *   `--dispatcher` or `--reader`.
 *
 * RULES
 *   Transactions  outbox_wait refuses a connection inside a transaction (OUTBOX_EINTX): what others
 *                 commit would not be seen, and LISTEN takes effect at a commit only. So a job can
 *                 be waited for once the transaction that enqueued it has committed.
 *   Poolers       LISTEN needs a session of its own: through a transaction pooler the notifications
 *                 do not arrive, and it is the look a second that ends the wait.
 *   Threads, memory, text: as outbox.h.
 *
 * ERRORS (of enum outbox_code, in outbox.h), besides those that outbox.h describes
 *   OUTBOX_EINTX     the connection is inside a transaction; nothing was sent
 *   OUTBOX_ETIMEOUT  the time was up: the answers say which jobs had ended by then
 *
 * License: MIT (see LICENSE). */
#ifndef OUTBOX_CONSUMER_H
#define OUTBOX_CONSUMER_H

#include <errno.h>
#include <poll.h>
#include <sys/time.h>
#include <time.h>

#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- 1 states --- */

enum outbox_state {
    OUTBOX_LIVE = 0,  /* not ended: ready, scheduled, waiting, running, or to be tried again */
    OUTBOX_DONE,      /* it succeeded */
    OUTBOX_DEAD,      /* it was given up: `outbox show ID` says why */
    OUTBOX_CANCELLED, /* it was taken away before it ran */
    OUTBOX_MERGED,    /* into a newer job with its unique_key, which is it from then on */
    OUTBOX_GONE,   /* one of done, cancelled and merged: its row has left, and nothing was told */
    OUTBOX_UNKNOWN /* its id was never given out */
};

/* "live", "done", ...; never NULL; static storage. */
OUTBOX_API const char *outbox_state_name(enum outbox_state state);

/* --- 2 waiting --- */

/* What became of one job. All zero (memset) at the beginning. */
struct outbox_answer {
    enum outbox_state state;
    /* private */
    enum outbox_state told; /* by a notification; to be confirmed by a look */
    bool is_asked;          /* the query that is under way asks for it */
};

/* Waits until all n jobs have ended: on a retry, or when a job that repeats succeeded, none has.
 * answers: room for n, written in the order of ids also on OUTBOX_ETIMEOUT.
 * timeout_ms: 0 looks once; negative waits for ever.
 *
 * It LISTENs to the channel outbox_done, looks, and looks again when a notification comes and once
 * a second. Jobs that ended before the call are told at once. Only jobs enqueued with notify_done
 * notify; the others are found by the look a second. A job that is not kept after success (`keep`
 * of its task) leaves no row: OUTBOX_DONE when its notification was seen, or it is kept, else
 * OUTBOX_GONE.
 *
 * Afterwards it UNLISTENs, unless the connection listened to outbox_done before. Notifications of
 * other channels that arrive meanwhile are dropped: outbox_wait_with hands them on.
 *
 * Returns OUTBOX_OK; OUTBOX_ETIMEOUT; OUTBOX_EINTX; OUTBOX_EINVAL (no ids, or an id that was never
 * given out: its answer is OUTBOX_UNKNOWN, and nothing was waited for); OUTBOX_EBUSY,
 * OUTBOX_EABORTED, OUTBOX_ENOMEM, OUTBOX_ECONN, OUTBOX_EDB, OUTBOX_ESCHEMA, OUTBOX_EPRIVILEGE as
 * outbox_enqueue. n = 0 is fine. On failure *reterr says why. */
OUTBOX_API int outbox_wait(PGconn *conn, const int64_t *ids, size_t n, int64_t timeout_ms,
                           struct outbox_answer *answers,
                           struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* All zero is: wait for ever, a look a second, no calls. */
struct outbox_wait_options {
    int64_t timeout_ms; /* 0 is no limit here; for one look: outbox_wait */
    int64_t poll_ms;    /* how often to look without a notification; 0: 1000 */
    /* Gets every notification that arrives meanwhile, those of outbox_done too; borrowed for the
     * call. It must not use the connection. NULL: they are dropped. */
    void (*on_notify)(void *arg, const PGnotify *notify);
    /* Called after each look with the number of jobs that have not ended; answers are as they are
     * by now. false: stop waiting (OUTBOX_ETIMEOUT). It must not use the connection. May be NULL.
     */
    bool (*on_look)(void *arg, size_t left);
    void *arg;
};

/* outbox_wait with more to choose. options NULL: all zero. */
OUTBOX_API int outbox_wait_with(PGconn *conn, const int64_t *ids, size_t n,
                                const struct outbox_wait_options *options,
                                struct outbox_answer *answers,
                                struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* --- 3 event loops: never blocks, never touches a connection ---
 *
 *     LISTEN outbox_done, outside a transaction, and only then:
 *     memset(answers, 0, n * sizeof answers[0]);
 *  look:
 *     if (outbox_wait_query_init(&q, ids, answers, n, false, &err) != OUTBOX_OK) ...
 *     PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0);
 *     outbox_query_free(&q);
 *     ... with the PGresult:
 *     outbox_wait_query_result(res, answers, n, &left, &err)      // left == 0: all have ended
 *     ... after every PQconsumeInput, for each PGnotify:
 *     if (outbox_wait_notify(notify, ids, answers, n)) look again, with only_told true
 *     ... and once a second: look again, with only_told false */

/* Fills *q with a question for the jobs that are OUTBOX_LIVE; only_told: of them, only those that a
 * notification named. With nothing to ask for, q->sql is NULL. One query at a time an array of
 * answers. Returns OUTBOX_OK, OUTBOX_EINVAL, OUTBOX_ETOOBIG, OUTBOX_ENOMEM; outbox_query_free
 * afterwards. */
OUTBOX_API int outbox_wait_query_init(struct outbox_query *q, const int64_t *ids,
                                      struct outbox_answer *answers, size_t n, bool only_told,
                                      struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;
/* Reads its result (text or binary format) into the answers; *ret_left: how many have not ended;
 * may be NULL. Does not clear res. Returns OUTBOX_OK or a code as outbox_query_result. */
OUTBOX_API int outbox_wait_query_result(const PGresult *res, struct outbox_answer *answers,
                                        size_t n, size_t *ret_left,
                                        struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;
/* Notes what a notification says. Returns whether it tells the end of one of these jobs, which is
 * to be looked for then: anybody may send notifications. Fast when the ids are in ascending order.
 */
OUTBOX_API bool outbox_wait_notify(const PGnotify *notify, const int64_t *ids,
                                   struct outbox_answer *answers, size_t n);

/* --- bodies: nothing below is part of the interface --- */

#define OUTBOX_PRIV_STATES (OUTBOX_UNKNOWN + 1)

OUTBOX_API const char *outbox_state_name(enum outbox_state state)
{
    static const char *const names[OUTBOX_PRIV_STATES] = {"live",   "done", "dead",   "cancelled",
                                                          "merged", "gone", "unknown"};

    return (int)state < 0 || (int)state >= OUTBOX_PRIV_STATES ? "unknown" : names[state];
}

/* The state of that name; anything else (ready, running, ...) is live. */
OUTBOX_API enum outbox_state outbox_priv_state_of(const char *name)
{
    static const enum outbox_state states[] = {OUTBOX_DONE,   OUTBOX_DEAD, OUTBOX_CANCELLED,
                                               OUTBOX_MERGED, OUTBOX_GONE, OUTBOX_UNKNOWN};
    size_t i;

    for (i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(name, outbox_state_name(states[i])) == 0)
            return states[i];
    }
    return OUTBOX_LIVE;
}

/* Milliseconds of a clock, from an arbitrary beginning. */
OUTBOX_API int64_t outbox_priv_now_ms(void)
{
#ifdef CLOCK_MONOTONIC
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + (int64_t)(ts.tv_nsec / 1000000);
#else
    struct timeval tv;

    (void)gettimeofday(&tv, NULL);
    return (int64_t)tv.tv_sec * 1000 + (int64_t)(tv.tv_usec / 1000);
#endif
}

OUTBOX_API int outbox_wait_query_init(struct outbox_query *q, const int64_t *ids,
                                      struct outbox_answer *answers, size_t n, bool only_told,
                                      struct outbox_error *reterr)
{
    size_t asked = 0;
    char *out;
    size_t i;

    if (q == NULL || ids == NULL || answers == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no %s",
                                q == NULL ? "query" : (ids == NULL ? "ids" : "answers"));
    memset(q, 0, sizeof *q);
    for (i = 0; i < n; i++) {
        answers[i].is_asked =
            answers[i].state == OUTBOX_LIVE && (!only_told || answers[i].told != OUTBOX_LIVE);
        asked += answers[i].is_asked ? 1 : 0;
    }
    if (asked == 0)
        return OUTBOX_OK;
    if (asked > (OUTBOX_PRIV_SEND_MAX - 20) / 12)
        return outbox_priv_fail(reterr, OUTBOX_ETOOBIG, NULL, "too many ids: use several calls");
    q->heap = malloc(20 + 12 * asked);
    if (q->heap == NULL)
        return outbox_priv_fail(reterr, OUTBOX_ENOMEM, NULL, "out of memory");
    out = outbox_priv_array_header((char *)q->heap, OUTBOX_PRIV_INT8, asked);
    for (i = 0; i < n; i++) {
        if (answers[i].is_asked) {
            outbox_priv_store(out, 8, 4);
            outbox_priv_store(out + 4, (uint64_t)ids[i], 8);
            out += 12;
        }
    }
    q->sql = "SELECT s.state FROM outbox.states($1::bigint[]) s";
    outbox_priv_add(q, OUTBOX_PRIV_INT8_ARRAY, (char *)q->heap, 20 + 12 * asked, true);
    return OUTBOX_OK;
}

/* How many have not ended, or, with asked, are asked for. */
OUTBOX_API size_t outbox_priv_count_left(const struct outbox_answer *answers, size_t n, bool asked)
{
    size_t left = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        left += (asked ? answers[i].is_asked : answers[i].state == OUTBOX_LIVE) ? 1 : 0;
    }
    return left;
}

/* outbox_wait_query_result; role: for the message of a missing GRANT. */
OUTBOX_API int outbox_priv_read_states(const PGresult *res, const char *role,
                                       struct outbox_answer *answers, size_t n,
                                       struct outbox_error *reterr)
{
    size_t asked = outbox_priv_count_left(answers, n, true);
    int row = 0;
    size_t i;

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return outbox_priv_result_fail(res, role, reterr);
    if (PQnfields(res) != 1 || (size_t)PQntuples(res) != asked)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL,
                                "%d rows of %d columns came back for %lu jobs", PQntuples(res),
                                PQnfields(res), (unsigned long)asked);
    for (i = 0; i < n; i++) {
        struct outbox_answer *a = &answers[i];

        if (a->is_asked) {
            a->state = outbox_priv_state_of(PQgetvalue(res, row, 0));
            /* the row has left, and its notification says how */
            if (a->state == OUTBOX_GONE && a->told != OUTBOX_LIVE && a->told != OUTBOX_DEAD) {
                a->state = a->told;
            }
            a->told = OUTBOX_LIVE;
            a->is_asked = false;
            row++;
        }
    }
    return OUTBOX_OK;
}

OUTBOX_API int outbox_wait_query_result(const PGresult *res, struct outbox_answer *answers,
                                        size_t n, size_t *ret_left, struct outbox_error *reterr)
{
    int rc;

    if (res == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL, "no result (libpq: see PQerrorMessage)");
    rc = outbox_priv_read_states(res, "ROLE", answers, n, reterr);
    if (rc == OUTBOX_OK && ret_left != NULL) {
        *ret_left = outbox_priv_count_left(answers, n, false);
    }
    return rc;
}

/* Index of id among ids; n: it is not there. By halves, and if that fails one by one: the ids may
 * be in any order. */
OUTBOX_API size_t outbox_priv_find(int64_t id, const int64_t *ids, size_t n)
{
    size_t low = 0;
    size_t high = n;
    size_t i;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (ids[mid] == id)
            return mid;
        if (ids[mid] < id) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (i = 0; i < n && ids[i] != id; i++) {
    }
    return i;
}

OUTBOX_API bool outbox_wait_notify(const PGnotify *notify, const int64_t *ids,
                                   struct outbox_answer *answers, size_t n)
{
    enum outbox_state told;
    char *end = NULL;
    int64_t id;
    size_t i;

    if (strcmp(notify->relname, "outbox_done") != 0)
        return false;
    id = (int64_t)strtoll(notify->extra, &end, 10);
    told = *end == ' ' ? outbox_priv_state_of(end + 1) : OUTBOX_LIVE;
    i = outbox_priv_find(id, ids, n);
    if (i == n || answers[i].state != OUTBOX_LIVE || told == OUTBOX_LIVE)
        return false;
    answers[i].told = told;
    return true;
}

/* --- blocking bodies --- */

/* One wait: what outbox_wait_with's parts share. */
struct outbox_priv_wait {
    PGconn *conn;
    const int64_t *ids;
    struct outbox_answer *answers;
    size_t n;
    const struct outbox_wait_options *options;
    struct outbox_error *reterr;
    int64_t deadline_ms; /* negative: never */
    int64_t look_ms;     /* when all are to be looked for again */
};

/* Whether a blocking call that waits may be made now. */
OUTBOX_API int outbox_priv_check_idle(PGconn *conn, struct outbox_error *reterr)
{
    int rc = outbox_priv_check_conn(conn, false, reterr);

    if (rc == OUTBOX_OK && PQtransactionStatus(conn) != PQTRANS_IDLE)
        return outbox_priv_fail(reterr, OUTBOX_EINTX, NULL,
                                "inside a transaction: commit it before waiting");
    return rc;
}

/* A statement without parameters that gives one row or none: *ret_yes is its first column. */
OUTBOX_API int outbox_priv_ask(PGconn *conn, const char *sql, bool *ret_yes,
                               struct outbox_error *reterr)
{
    struct outbox_query q;
    PGresult *res;
    int rc = OUTBOX_OK;

    memset(&q, 0, sizeof q);
    q.sql = sql;
    res = outbox_priv_exec(conn, &q, &rc, reterr);
    if (res == NULL)
        return rc;
    if (PQresultStatus(res) != PGRES_TUPLES_OK && PQresultStatus(res) != PGRES_COMMAND_OK) {
        rc = outbox_priv_result_fail(res, PQuser(conn), reterr);
    } else if (ret_yes != NULL) {
        *ret_yes = PQntuples(res) > 0 && *PQgetvalue(res, 0, 0) == 't';
    }
    PQclear(res);
    return rc;
}

/* Hands on what has arrived. Returns whether one of our jobs was told of. */
OUTBOX_API bool outbox_priv_wait_drain(struct outbox_priv_wait *w)
{
    bool is_told = false;
    PGnotify *notify;

    while ((notify = PQnotifies(w->conn)) != NULL) {
        if (outbox_wait_notify(notify, w->ids, w->answers, w->n)) {
            is_told = true;
        }
        if (w->options->on_notify != NULL) {
            w->options->on_notify(w->options->arg, notify);
        }
        PQfreemem(notify);
    }
    return is_told;
}

/* Looks; *ret_left: how many have not ended. */
OUTBOX_API int outbox_priv_wait_look(struct outbox_priv_wait *w, bool only_told, size_t *ret_left)
{
    struct outbox_query q;
    PGresult *res;
    size_t i;
    int rc = outbox_wait_query_init(&q, w->ids, w->answers, w->n, only_told, w->reterr);

    if (rc == OUTBOX_OK && q.sql != NULL) {
        res = outbox_priv_exec(w->conn, &q, &rc, w->reterr);
        if (res != NULL) {
            rc = outbox_priv_read_states(res, PQuser(w->conn), w->answers, w->n, w->reterr);
            PQclear(res);
        }
    }
    outbox_query_free(&q);
    for (i = 0; i < w->n && rc == OUTBOX_OK; i++) {
        if (w->answers[i].state == OUTBOX_UNKNOWN)
            rc = outbox_priv_fail(w->reterr, OUTBOX_EINVAL, NULL, "there is no job %lld",
                                  (long long)w->ids[i]);
    }
    *ret_left = outbox_priv_count_left(w->answers, w->n, false);
    return rc;
}

/* Sleeps until something arrives on the connection, or `until_ms`. */
OUTBOX_API int outbox_priv_sleep(PGconn *conn, int64_t until_ms, struct outbox_error *reterr)
{
    int64_t ms = until_ms - outbox_priv_now_ms();
    struct pollfd fd;
    int rc;

    fd.fd = PQsocket(conn);
    fd.events = POLLIN;
    fd.revents = 0;
    rc = poll(&fd, 1, ms > 60000 ? 60000 : (ms > 0 ? (int)ms : 0));
    if ((rc < 0 && errno != EINTR) || PQconsumeInput(conn) == 0)
        return outbox_priv_fail(reterr, OUTBOX_ECONN, NULL, "libpq: %s", PQerrorMessage(conn));
    return OUTBOX_OK;
}

/* Waits for a reason to look again. *ret_only_told: no more than what notifications said. */
OUTBOX_API int outbox_priv_wait_more(struct outbox_priv_wait *w, size_t left, bool *ret_only_told)
{
    /* they arrive with other results too, and then the socket is not readable again */
    bool is_told = outbox_priv_wait_drain(w);

    for (;;) {
        int64_t now_ms = outbox_priv_now_ms();
        int64_t until_ms = w->look_ms;
        int rc;

        if (w->deadline_ms >= 0 && now_ms >= w->deadline_ms)
            return outbox_priv_fail(w->reterr, OUTBOX_ETIMEOUT, NULL,
                                    "%lu of %lu jobs have not ended in time", (unsigned long)left,
                                    (unsigned long)w->n);
        *ret_only_told = is_told && now_ms < w->look_ms;
        if (is_told || now_ms >= w->look_ms)
            return OUTBOX_OK;
        if (w->deadline_ms >= 0 && w->deadline_ms < until_ms) {
            until_ms = w->deadline_ms;
        }
        rc = outbox_priv_sleep(w->conn, until_ms, w->reterr);
        if (rc != OUTBOX_OK)
            return rc;
        is_told = outbox_priv_wait_drain(w);
    }
}

/* Until all have ended, or the time is up. It listens already. */
OUTBOX_API int outbox_priv_wait_loop(struct outbox_priv_wait *w)
{
    int64_t poll_ms = w->options->poll_ms > 0 ? w->options->poll_ms : 1000;
    bool only_told = false;

    for (;;) {
        size_t left;
        int rc = outbox_priv_wait_look(w, only_told, &left);

        if (rc != OUTBOX_OK)
            return rc;
        if (!only_told) {
            w->look_ms = outbox_priv_now_ms() + poll_ms;
        }
        if (w->options->on_look != NULL && !w->options->on_look(w->options->arg, left) && left > 0)
            return outbox_priv_fail(w->reterr, OUTBOX_ETIMEOUT, NULL, "stopped by on_look");
        if (left == 0)
            return OUTBOX_OK;
        rc = outbox_priv_wait_more(w, left, &only_told);
        if (rc != OUTBOX_OK)
            return rc;
    }
}

/* Listens, waits, and stops listening. */
OUTBOX_API int outbox_priv_wait_run(struct outbox_priv_wait *w)
{
    bool listened = false;
    struct outbox_error later;
    int rc = outbox_priv_check_idle(w->conn, w->reterr);

    if (rc == OUTBOX_OK && w->n > 0 && (w->ids == NULL || w->answers == NULL))
        return outbox_priv_fail(w->reterr, OUTBOX_EINVAL, NULL, "no ids, or no room for answers");
    if (rc != OUTBOX_OK || w->n == 0)
        return rc;
    memset(w->answers, 0, w->n * sizeof *w->answers);
    rc = outbox_priv_ask(w->conn,
                         "SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels() AS c"
                         " WHERE c = 'outbox_done')",
                         &listened, w->reterr);
    if (rc == OUTBOX_OK && !listened) {
        rc = outbox_priv_ask(w->conn, "LISTEN outbox_done", NULL, w->reterr);
    }
    if (rc != OUTBOX_OK)
        return rc;
    rc = outbox_priv_wait_loop(w);
    if (!listened && PQstatus(w->conn) == CONNECTION_OK) {
        int undone = outbox_priv_ask(w->conn, "UNLISTEN outbox_done", NULL, &later);

        if (undone != OUTBOX_OK && rc == OUTBOX_OK)
            return outbox_priv_fail(w->reterr, undone, later.sqlstate, "%s", later.message);
    }
    (void)outbox_priv_wait_drain(w);
    return rc;
}

OUTBOX_API int outbox_wait_with(PGconn *conn, const int64_t *ids, size_t n,
                                const struct outbox_wait_options *options,
                                struct outbox_answer *answers, struct outbox_error *reterr)
{
    static const struct outbox_wait_options none = {0, 0, NULL, NULL, NULL};
    struct outbox_priv_wait w;

    memset(&w, 0, sizeof w);
    w.conn = conn;
    w.ids = ids;
    w.answers = answers;
    w.n = n;
    w.options = options != NULL ? options : &none;
    w.reterr = reterr;
    w.deadline_ms = w.options->timeout_ms > 0 ? outbox_priv_now_ms() + w.options->timeout_ms : -1;
    return outbox_priv_wait_run(&w);
}

OUTBOX_API int outbox_wait(PGconn *conn, const int64_t *ids, size_t n, int64_t timeout_ms,
                           struct outbox_answer *answers, struct outbox_error *reterr)
{
    static const struct outbox_wait_options none = {0, 0, NULL, NULL, NULL};
    struct outbox_priv_wait w;

    memset(&w, 0, sizeof w);
    w.conn = conn;
    w.ids = ids;
    w.answers = answers;
    w.n = n;
    w.options = &none;
    w.reterr = reterr;
    w.deadline_ms = timeout_ms >= 0 ? outbox_priv_now_ms() + timeout_ms : -1;
    return outbox_priv_wait_run(&w);
}

#ifdef __cplusplus
}
#endif

#endif /* OUTBOX_CONSUMER_H */
