/* admin_bulk.c - see admin_bulk.h. Each chunk ends with a Sync of its own: libpq sends it at once,
 * and the server answers it at once, while the next one is on its way. */
#include "db/admin_bulk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/admin_conn.h"

static PGcancel *cancel;

static int failed(struct admin_bulk *b, const PGresult *res, struct admin_error *reterr)
{
    admin_error_from_result(b->admin, res, reterr);
    reterr->right = ADMIN_PRODUCER;
    return reterr->err;
}

int admin_bulk_start(struct admin_bulk *b, struct admin *a, struct admin_error *reterr)
{
    memset(b, 0, sizeof *b);
    b->admin = a;
    return PQenterPipelineMode(a->conn) == 1 ? 0 : failed(b, NULL, reterr);
}

static bool send(struct admin_bulk *b, const char *sql, const char *param)
{
    const char *values[] = {param};
    return PQsendQueryParams(b->admin->conn, sql, param != NULL ? 1 : 0, NULL, values, NULL, NULL,
                             0) == 1;
}

static bool sync(struct admin_bulk *b)
{
    if (PQpipelineSync(b->admin->conn) != 1)
        return false;
    b->unread++;
    return true;
}

int admin_bulk_send(struct admin_bulk *b, const char *jobs, struct admin_error *reterr)
{
    /* READ COMMITTED whatever the role's default is: enqueueing reads nothing. */
    if (!b->in_transaction && !send(b, "BEGIN ISOLATION LEVEL READ COMMITTED", NULL))
        return failed(b, NULL, reterr);
    b->in_transaction = true;
    if (!send(b, /* aggregated: a row comes back, not one a job */
              "SELECT count(*), count(*) FILTER (WHERE existing), coalesce(min(id), 0),"
              " coalesce(max(id), 0) FROM outbox.enqueue_many($1::jsonb)",
              jobs) ||
        !sync(b))
        return failed(b, NULL, reterr);
    return 0;
}

static void read_answer(const PGresult *res, struct admin_bulk_answer *ret)
{
    int64_t *to[] = {&ret->enqueued, &ret->existing, &ret->first_id, &ret->last_id};
    ob_assert(PQntuples(res) == 1 && PQnfields(res) == 4);
    for (int i = 0; i < 4; i++)
        *to[i] = strtoll(PQgetvalue(res, 0, i), NULL, 10);
}

/* Reads to the next Sync. The first failure is the one that counts; what the server skipped after
 * it is none of its own. ret_answer may be NULL. */
static int read_to_sync(struct admin_bulk *b, struct admin_bulk_answer *ret_answer,
                        struct admin_error *reterr)
{
    int err = 0;
    ob_assert(b->unread > 0);
    b->unread--;
    for (;;) {
        PGresult *res = PQgetResult(b->admin->conn);
        ExecStatusType status = PQresultStatus(res); /* NULL: PGRES_FATAL_ERROR */
        bool is_lost = res == NULL && PQstatus(b->admin->conn) != CONNECTION_OK;
        if (is_lost || (res != NULL && status == PGRES_FATAL_ERROR))
            err = err != 0 ? err : failed(b, res, reterr);
        /* The answer to the COMMIT of a failed transaction: callers do not come so far. */
        ob_assert(status != PGRES_COMMAND_OK || strcmp(PQcmdStatus(res), "ROLLBACK") != 0);
        if (status == PGRES_TUPLES_OK && ret_answer != NULL)
            read_answer(res, ret_answer);
        PQclear(res);
        if (is_lost || (res != NULL && status == PGRES_PIPELINE_SYNC))
            return err;
    }
}

/* "jobs[7]: unknown key" in the message becomes 7 and "unknown key". */
static int64_t take_element(struct admin_error *e)
{
    static const char prefix[] = "jobs[";
    if (strncmp(e->message, prefix, sizeof prefix - 1) != 0)
        return -1;
    char *end = NULL;
    long long n = strtoll(e->message + sizeof prefix - 1, &end, 10);
    if (n < 0 || strncmp(end, "]: ", 3) != 0)
        return -1;
    memmove(e->message, end + 3, strlen(end + 3) + 1);
    return n;
}

int admin_bulk_receive(struct admin_bulk *b, struct admin_bulk_answer *ret_answer,
                       int64_t *ret_element, struct admin_error *reterr)
{
    memset(ret_answer, 0, sizeof *ret_answer);
    int err = read_to_sync(b, ret_answer, reterr);
    *ret_element = err != 0 ? take_element(reterr) : -1;
    return err;
}

int admin_bulk_commit(struct admin_bulk *b, bool *ret_unknown, struct admin_error *reterr)
{
    *ret_unknown = false;
    if (!b->in_transaction)
        return 0;
    if (!send(b, "COMMIT", NULL) || !sync(b)) {
        *ret_unknown = PQstatus(b->admin->conn) != CONNECTION_OK;
        return failed(b, NULL, reterr);
    }
    int err = read_to_sync(b, NULL, reterr);
    b->in_transaction = err != 0;
    /* A refusal is an answer; out of resources (class 53) is one too. */
    *ret_unknown = err == OB_ECONN && strncmp(reterr->sqlstate, "53", 2) != 0;
    return err;
}

void admin_bulk_end(struct admin_bulk *b)
{
    PGconn *conn = b->admin->conn;
    struct admin_error told; /* the failure that ended the load was reported */
    while (b->unread > 0)
        (void)read_to_sync(b, NULL, &told);
    /* What cannot be ended in order, the server rolls back when the connection is closed. */
    if (PQexitPipelineMode(conn) == 1 && b->in_transaction)
        PQclear(PQexec(conn, "ROLLBACK"));
    b->in_transaction = false;
}

int admin_check_jsonb(struct admin *a, const char *text, struct admin_error *reterr)
{
    const char *values[] = {text};
    PGresult *res =
        PQexecParams(a->conn, "SELECT jsonb_typeof($1::jsonb)", 1, NULL, values, NULL, NULL, 0);
    int err = 0;
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        admin_error_from_result(a, res, reterr);
        err = reterr->err;
    }
    PQclear(res);
    return err;
}

void admin_cancel_prepare(struct admin *a)
{
    PGcancel *old = cancel;
    cancel = NULL;
    PQfreeCancel(old);
    cancel = a != NULL ? PQgetCancel(a->conn) : NULL;
}

void admin_cancel_now(void)
{
    char why[256];
    if (cancel != NULL)
        (void)PQcancel(cancel, why, (int)sizeof why); /* nobody to tell it to */
}
