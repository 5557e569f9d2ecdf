/* consumer.h - wait until jobs have ended; take jobs and do them yourself. Beside outbox.h.
 *
 * WAITING
 *
 *     #include <outbox/consumer.h>
 *
 *     struct outbox_answer answer;
 *     job.notify_done = true;                      // so that waiting needs no polling
 *     ... BEGIN, outbox_enqueue(conn, &job, &id, &err), COMMIT, then:
 *     rc = outbox_wait(conn, &id, 1, 30000, &answer, &err);
 *     if (rc == OUTBOX_OK && answer.state == OUTBOX_DEAD) ...
 *
 * TAKING (a whole program: examples/08_consumer.c)
 *
 *     while (outbox_take_wait(conn, "count-visit", -1, &err) == OUTBOX_OK) {
 *         PQclear(PQexec(conn, "BEGIN"));
 *         rc = outbox_take(conn, "count-visit", 10, &batch, &err);
 *         for (i = 0; rc == OUTBOX_OK && i < batch.count; i++) {
 *             outbox_batch_job(&batch, i, &job);
 *             ... the work, on the same connection
 *         }
 *         outbox_batch_free(&batch);
 *         PQclear(PQexec(conn, "COMMIT"));           // and only now are they done
 *     }
 *
 * WHAT IS IN HERE
 *   1 states       enum outbox_state, outbox_state_name
 *   2 waiting      outbox_wait, outbox_wait_with
 *   3 event loops  outbox_wait_query_*, outbox_wait_notify: statement and answers, without blocking
 *   4 taking       outbox_take, outbox_batch_*, outbox_take_failed, outbox_take_wait
 *
 * REQUIREMENTS
 *   Those of outbox.h, and a POSIX system (poll). Compile as gnu99 or later, or define
 *   _POSIX_C_SOURCE as 200809L: otherwise there is no monotonic clock to count with, and a step of
 *   the system's clock changes how long a call waits. To wait for the end of jobs the role needs
 *   `outbox grant --producer`, `--dispatcher` or `--reader`; to take jobs, `--dispatcher`.
 *
 * RULES
 *   Transactions  What waits refuses a connection inside a transaction (OUTBOX_EINTX): what others
 *                 commit would not be seen, and LISTEN takes effect at a commit only. So a job can
 *                 be waited for once the transaction that enqueued it has committed.
 *                 outbox_take refuses one outside (OUTBOX_ENOTX): the jobs would be done at once.
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
    OUTBOX_CANCELLED, /* somebody cancelled it */
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

/* --- 4 taking ---
 *
 * The simplest consumer: jobs leave in the transaction that does their work. Committed, they are
 * done; rolled back, or with the connection lost, they are there as before, and nothing was
 * counted. For work in the same database this is exactly once. A consumer that crashes each time,
 * though, is given the job each time: for work that may do that, claim and settle as the dispatcher
 * does (examples/09_claim.c). */

/* What outbox_take took. Views of the jobs live as long as it does. */
struct outbox_batch {
    int count;
    PGresult *res; /* private */
};

/* One job: a view into a batch. */
struct outbox_taken {
    int64_t id;
    int priority;
    int attempts;        /* failed ones, as counted by outbox_take_failed and by dispatchers */
    int max_attempts;    /* its own limit; 0: none */
    bool is_json;        /* the payload; else msgpack */
    const char *payload; /* a NUL follows it */
    size_t payload_len;
    const char *headers;   /* a JSON object, or NULL */
    const char *key;       /* or NULL */
    int64_t created_at_us; /* microseconds since 1970 UTC */
};

/* Takes up to n ready jobs off the task, by priority, then age, in the connection's open
 * transaction; what others hold is passed over. None is no failure: batch->count is 0.
 * outbox_batch_free afterwards, also then. Jobs with a key hold up those who enqueue for that key
 * until the transaction ends, unique ones those who enqueue the same: keep it short. Returns
 * OUTBOX_OK, OUTBOX_EINVAL, OUTBOX_ENOTX, or as outbox_enqueue; on failure *batch is empty, and the
 * server has aborted the transaction after OUTBOX_EDB, OUTBOX_ESCHEMA and OUTBOX_EPRIVILEGE. */
OUTBOX_API int outbox_take(PGconn *conn, const char *task, int n, struct outbox_batch *batch,
                           struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;
/* The i-th job, i from 0 to batch->count - 1. */
OUTBOX_API void outbox_batch_job(const struct outbox_batch *batch, int i,
                                 struct outbox_taken *ret_job);
/* NULL, empty, and twice are fine. */
OUTBOX_API void outbox_batch_free(struct outbox_batch *batch);

/* For event loops: the statement of outbox_take. Send it with 1 (binary) as the result format;
 * outbox_take_query_result keeps res on success: it belongs to the batch then. */
OUTBOX_API int outbox_take_query_init(struct outbox_query *q, const char *task, int n,
                                      struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;
OUTBOX_API int outbox_take_query_result(PGresult *res, struct outbox_batch *batch,
                                        struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* What became of a job whose failure was counted. */
enum outbox_failure {
    OUTBOX_WILL_RETRY, /* it is ready again after the delay */
    OUTBOX_GAVE_UP,    /* that was its last attempt: it is dead */
    OUTBOX_NOT_COUNTED /* somebody else has it, or it has ended, or is not ready any more */
};

/* Counts a failed attempt of a job that was taken, after the ROLLBACK that put it back; a
 * transaction of its own, unless you began one. reason: kept with the attempt. delay_ms: not before
 * so long from now; negative: 5 s, doubled with each attempt, up to an hour. max_attempts: for a
 * job without a limit of its own; 0: 20. ret_failure may be NULL. Waits while somebody else has
 * taken the job. */
OUTBOX_API int outbox_take_failed(PGconn *conn, int64_t id, const char *reason, int64_t delay_ms,
                                  int max_attempts, enum outbox_failure *ret_failure,
                                  struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* Waits, outside a transaction, until there is a job of the task to take: BEGIN and outbox_take
 * then; somebody else may have been faster. timeout_ms: 0 looks once; negative waits for ever.
 *
 * It LISTENs to the channel outbox and marks the session as asleep (outbox.watch), so that whoever
 * makes a job ready notifies; looks; and looks again when a notification comes, and at growing
 * intervals up to a second. Afterwards it undoes both (but listens on if it did before). Each look
 * makes scheduled jobs ready whose time has come, of all tasks. Notifications of other channels
 * that arrive meanwhile are dropped. A connection of its own: behind a transaction pooler the mark
 * would stay with a session that is not yours.
 *
 * Returns OUTBOX_OK, OUTBOX_ETIMEOUT, OUTBOX_EINTX, or as outbox_take. */
OUTBOX_API int outbox_take_wait(PGconn *conn, const char *task, int64_t timeout_ms,
                                struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

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

/* --- bodies of taking --- */

OUTBOX_API void outbox_batch_free(struct outbox_batch *batch)
{
    if (batch != NULL) {
        PQclear(batch->res);
        batch->res = NULL;
        batch->count = 0;
    }
}

/* A failure of a call that needs the dispatcher's grants. */
OUTBOX_API int outbox_priv_take_fail(const PGresult *res, const char *role,
                                     struct outbox_error *reterr)
{
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    int rc = outbox_priv_result_fail(res, role, reterr);

    if (rc == OUTBOX_EPRIVILEGE && message != NULL)
        return outbox_priv_fail(reterr, rc, "42501",
                                "%s (missing GRANT: run `outbox grant --dispatcher %s`)", message,
                                role);
    return rc;
}

OUTBOX_API int outbox_take_query_init(struct outbox_query *q, const char *task, int n,
                                      struct outbox_error *reterr)
{
    if (q == NULL || task == NULL || n < 0)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "%s",
                                q == NULL ? "no query" : (task == NULL ? "no task" : "n < 0"));
    memset(q, 0, sizeof *q);
    q->sql = "SELECT t.id, t.priority::integer, t.attempts, t.max_attempts, t.encoding, t.payload,"
             " t.headers::text, t.key,"
             " (extract(epoch FROM t.created_at) * 1000000)::bigint"
             " FROM outbox.take($1::text, $2::integer) t";
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, task, 0, false);
    outbox_priv_add_number(q, OUTBOX_PRIV_INT4, true, n, 4);
    return OUTBOX_OK;
}

/* outbox_take_query_result; role: for the message of a missing GRANT. */
OUTBOX_API int outbox_priv_take_read(PGresult *res, const char *role, struct outbox_batch *batch,
                                     struct outbox_error *reterr)
{
    batch->count = 0;
    batch->res = NULL;
    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return outbox_priv_take_fail(res, role, reterr);
    if (PQnfields(res) != 9 || (PQntuples(res) > 0 && PQfformat(res, 5) != 1))
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL,
                                "not the result of a take, or not in binary format");
    batch->res = res;
    batch->count = PQntuples(res);
    return OUTBOX_OK;
}

OUTBOX_API int outbox_take_query_result(PGresult *res, struct outbox_batch *batch,
                                        struct outbox_error *reterr)
{
    if (res == NULL || batch == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL, "no result (libpq: see PQerrorMessage)");
    return outbox_priv_take_read(res, "ROLE", batch, reterr);
}

/* An integer column in binary format; NULL is 0. */
OUTBOX_API int64_t outbox_priv_int(const PGresult *res, int row, int column)
{
    size_t len = (size_t)PQgetlength(res, row, column);
    const unsigned char *value = (const unsigned char *)PQgetvalue(res, row, column);

    return len > 8 ? 0 : (int64_t)outbox_priv_load(value, len);
}

OUTBOX_API void outbox_batch_job(const struct outbox_batch *batch, int i,
                                 struct outbox_taken *ret_job)
{
    const PGresult *res = batch->res;

    memset(ret_job, 0, sizeof *ret_job);
    ret_job->id = outbox_priv_int(res, i, 0);
    ret_job->priority = (int)outbox_priv_int(res, i, 1);
    ret_job->attempts = (int)outbox_priv_int(res, i, 2);
    ret_job->max_attempts = (int)outbox_priv_int(res, i, 3);
    ret_job->is_json = strcmp(PQgetvalue(res, i, 4), "json") == 0;
    ret_job->payload = PQgetvalue(res, i, 5);
    ret_job->payload_len = (size_t)PQgetlength(res, i, 5);
    ret_job->headers = PQgetisnull(res, i, 6) ? NULL : PQgetvalue(res, i, 6);
    ret_job->key = PQgetisnull(res, i, 7) ? NULL : PQgetvalue(res, i, 7);
    ret_job->created_at_us = outbox_priv_int(res, i, 8);
}

OUTBOX_API int outbox_take(PGconn *conn, const char *task, int n, struct outbox_batch *batch,
                           struct outbox_error *reterr)
{
    struct outbox_query q;
    PGresult *res;
    int rc;

    if (batch == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no room for a batch");
    batch->count = 0;
    batch->res = NULL;
    memset(&q, 0, sizeof q);
    rc = outbox_priv_check_conn(conn, true, reterr);
    if (rc == OUTBOX_ENOTX)
        return outbox_priv_fail(reterr, rc, NULL,
                                "not inside a transaction: BEGIN first, or the jobs would be done "
                                "before the work is");
    if (rc == OUTBOX_OK) {
        rc = outbox_take_query_init(&q, task, n, reterr);
    }
    if (rc != OUTBOX_OK)
        return rc;
    res = PQexecParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 1);
    if (res == NULL)
        return outbox_priv_fail(reterr, PQstatus(conn) == CONNECTION_OK ? OUTBOX_EDB : OUTBOX_ECONN,
                                NULL, "libpq: %s", PQerrorMessage(conn));
    rc = outbox_priv_take_read(res, PQuser(conn), batch, reterr);
    if (rc != OUTBOX_OK) {
        PQclear(res);
    }
    return rc;
}

OUTBOX_API int outbox_take_failed(PGconn *conn, int64_t id, const char *reason, int64_t delay_ms,
                                  int max_attempts, enum outbox_failure *ret_failure,
                                  struct outbox_error *reterr)
{
    struct outbox_query q;
    enum outbox_failure failure = OUTBOX_NOT_COUNTED;
    PGresult *res;
    int rc = outbox_priv_check_conn(conn, false, reterr);

    if (rc == OUTBOX_OK && (reason == NULL || delay_ms > INT64_MAX / 1000))
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "%s",
                                reason == NULL ? "no reason" : "delay_ms is too large");
    if (rc != OUTBOX_OK)
        return rc;
    memset(&q, 0, sizeof q);
    q.sql = "SELECT outbox.take_failed($1::bigint, $2::text, $3::interval, coalesce($4::integer, "
            "20))";
    outbox_priv_add_number(&q, OUTBOX_PRIV_INT8, true, id, 8);
    outbox_priv_add(&q, OUTBOX_PRIV_TEXT, reason, 0, false);
    outbox_priv_add_number(&q, OUTBOX_PRIV_INTERVAL, delay_ms >= 0, delay_ms * 1000, 16);
    outbox_priv_add_number(&q, OUTBOX_PRIV_INT4, max_attempts > 0, max_attempts, 4);
    res = outbox_priv_exec(conn, &q, &rc, reterr);
    if (res == NULL)
        return rc;
    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1) {
        rc = outbox_priv_take_fail(res, PQuser(conn), reterr);
    } else if (strcmp(PQgetvalue(res, 0, 0), "retried") == 0) {
        failure = OUTBOX_WILL_RETRY;
    } else if (strcmp(PQgetvalue(res, 0, 0), "dead") == 0) {
        failure = OUTBOX_GAVE_UP;
    }
    PQclear(res);
    if (rc == OUTBOX_OK && ret_failure != NULL) {
        *ret_failure = failure;
    }
    return rc;
}

/* A statement with the task as its parameter; *ret_yes (may be NULL) is the first column. */
OUTBOX_API int outbox_priv_ask_task(PGconn *conn, const char *sql, const char *task, bool *ret_yes,
                                    struct outbox_error *reterr)
{
    struct outbox_query q;
    PGresult *res;
    int rc = OUTBOX_OK;

    memset(&q, 0, sizeof q);
    q.sql = sql;
    outbox_priv_add(&q, OUTBOX_PRIV_TEXT, task, 0, false);
    res = outbox_priv_exec(conn, &q, &rc, reterr);
    if (res == NULL)
        return rc;
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        rc = outbox_priv_take_fail(res, PQuser(conn), reterr);
    } else if (ret_yes != NULL) {
        *ret_yes = PQntuples(res) > 0 && *PQgetvalue(res, 0, 0) == 't';
    }
    PQclear(res);
    return rc;
}

/* Drops what has arrived. Returns whether outbox was notified. */
OUTBOX_API bool outbox_priv_is_woken(PGconn *conn)
{
    bool is_woken = false;
    PGnotify *notify;

    while ((notify = PQnotifies(conn)) != NULL) {
        if (strcmp(notify->relname, "outbox") == 0) {
            is_woken = true;
        }
        PQfreemem(notify);
    }
    return is_woken;
}

/* Until there is a job or the time is up. It listens and watches already. The intervals begin
 * small: a transaction that was under way when it began to watch does not notify. */
OUTBOX_API int outbox_priv_take_loop(PGconn *conn, const char *task, int64_t deadline_ms,
                                     struct outbox_error *reterr)
{
    int64_t interval_ms = 10;

    for (;;) {
        bool is_there = false;
        int64_t look_ms;
        int rc =
            outbox_priv_ask_task(conn, "SELECT outbox.can_take($1::text)", task, &is_there, reterr);

        if (rc != OUTBOX_OK || is_there)
            return rc;
        look_ms = outbox_priv_now_ms() + interval_ms;
        interval_ms = interval_ms < 500 ? interval_ms * 2 : 1000;
        if (deadline_ms >= 0 && deadline_ms < look_ms) {
            look_ms = deadline_ms;
        }
        while (!outbox_priv_is_woken(conn) && outbox_priv_now_ms() < look_ms) {
            rc = outbox_priv_sleep(conn, look_ms, reterr);
            if (rc != OUTBOX_OK)
                return rc;
        }
        if (deadline_ms >= 0 && outbox_priv_now_ms() >= deadline_ms)
            return outbox_priv_fail(reterr, OUTBOX_ETIMEOUT, NULL, "no job of task %s in time",
                                    task);
    }
}

OUTBOX_API int outbox_take_wait(PGconn *conn, const char *task, int64_t timeout_ms,
                                struct outbox_error *reterr)
{
    int64_t deadline_ms = timeout_ms >= 0 ? outbox_priv_now_ms() + timeout_ms : -1;
    bool listened = false;
    struct outbox_error later;
    int undone = OUTBOX_OK;
    int rc = outbox_priv_check_idle(conn, reterr);

    if (rc == OUTBOX_OK && task == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no task");
    if (rc == OUTBOX_OK) {
        rc = outbox_priv_ask(conn,
                             "SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels() AS c"
                             " WHERE c = 'outbox')",
                             &listened, reterr);
    }
    if (rc == OUTBOX_OK && !listened) {
        rc = outbox_priv_ask(conn, "LISTEN outbox", NULL, reterr);
    }
    if (rc != OUTBOX_OK)
        return rc;
    rc = outbox_priv_ask_task(conn, "SELECT outbox.watch(ARRAY[$1::text])", task, NULL, reterr);
    if (rc == OUTBOX_OK) {
        rc = outbox_priv_take_loop(conn, task, deadline_ms, reterr);
        if (PQstatus(conn) == CONNECTION_OK) {
            undone = outbox_priv_ask_task(conn, "SELECT outbox.unwatch(ARRAY[$1::text])", task,
                                          NULL, &later);
        }
    }
    if (!listened && undone == OUTBOX_OK && PQstatus(conn) == CONNECTION_OK) {
        undone = outbox_priv_ask(conn, "UNLISTEN outbox", NULL, &later);
    }
    if (undone != OUTBOX_OK && rc == OUTBOX_OK)
        return outbox_priv_fail(reterr, undone, later.sqlstate, "%s", later.message);
    return rc;
}

#ifdef __cplusplus
}
#endif

#endif /* OUTBOX_CONSUMER_H */
