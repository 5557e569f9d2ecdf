/* batch.c - see batch.h, and row.h for the binary format. */
#include "db/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "db/row.h"

/* The columns of outbox.look(), in order. When you change this: sql/, outbox.look. */
enum column {
    COL_ID,
    COL_CLAIM,
    COL_TASK,
    COL_PRIORITY,
    COL_ATTEMPT,
    COL_MAX_ATTEMPTS,
    COL_LOST,
    COL_ENCODING,
    COL_PAYLOAD,
    COL_PAYLOAD_SIZE,
    COL_HEADERS,
    COL_KEY,
    COL_CREATED_AT,
    COL_EXPIRED,
    COL_STATE,
    COL_COUNT
};

static bool parse_row(const PGresult *res, int row, struct claimed *c)
{
    struct job *job = &c->job;
    const char *encoding = row_text(res, row, COL_ENCODING);
    job->id = row_int8(res, row, COL_ID);
    job->claim = row_int8(res, row, COL_CLAIM);
    job->task = row_text(res, row, COL_TASK);
    job->priority = row_int2(res, row, COL_PRIORITY);
    job->attempt = row_int4(res, row, COL_ATTEMPT);
    job->max_attempts = row_int4(res, row, COL_MAX_ATTEMPTS); /* NULL -> 0: the task's */
    job->lost = row_int4(res, row, COL_LOST);
    job->payload = row_text(res, row, COL_PAYLOAD);
    job->payload_len = job->payload != NULL ? (size_t)PQgetlength(res, row, COL_PAYLOAD) : 0;
    job->headers = row_text(res, row, COL_HEADERS);
    job->key = row_text(res, row, COL_KEY);
    job->created_at_us = row_timestamp_us(res, row, COL_CREATED_AT);
    c->payload_size = row_int4(res, row, COL_PAYLOAD_SIZE);
    c->expired = row_bool(res, row, COL_EXPIRED);
    if (encoding == NULL || job->task == NULL)
        return false;
    job->encoding = strcmp(encoding, "msgpack") == 0 ? PAYLOAD_MSGPACK : PAYLOAD_JSON;
    return job->id > 0 && job->attempt > 0 && job->lost >= 0 && c->payload_size >= 0;
}

static int compare_claimed(const void *a, const void *b)
{
    const struct job *x = &((const struct claimed *)a)->job;
    const struct job *y = &((const struct claimed *)b)->job;
    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* They begin in this order, and come in that of their places on disk: mostly the same. */
static void sort_claimed(struct batch *b)
{
    for (size_t i = 1; i < b->count; i++) {
        if (compare_claimed(&b->jobs[i - 1], &b->jobs[i]) > 0) {
            qsort(b->jobs, b->count, sizeof b->jobs[0], compare_claimed);
            return;
        }
    }
}

struct batch *batch_parse_take(PGresult *result)
{
    int rows = PQntuples(result);
    struct batch *b = NULL;
    if (PQnfields(result) != COL_COUNT || rows == 0 || PQgetisnull(result, rows - 1, COL_STATE))
        goto fail;
    rows--; /* the last one is the state */
    b = ob_calloc(1, sizeof *b + (size_t)rows * sizeof b->jobs[0]);
    if (b == NULL)
        goto fail;
    b->result = result;
    b->refs = 1;
    b->state = PQgetvalue(result, rows, COL_STATE);
    b->state_len = (size_t)PQgetlength(result, rows, COL_STATE);
    for (int i = 0; i < rows; i++) {
        if (!parse_row(result, i, &b->jobs[i]))
            goto fail;
        b->count++;
    }
    sort_claimed(b);
    return b;
fail:
    ob_free(b);
    PQclear(result);
    return NULL;
}

struct batch *batch_ref(struct batch *b)
{
    ob_assert(b->refs > 0);
    b->refs++;
    return b;
}

void batch_unref(struct batch *b)
{
    if (b == NULL)
        return;
    ob_assert(b->refs > 0);
    if (--b->refs > 0)
        return;
    PQclear(b->result);
    ob_free(b);
}
