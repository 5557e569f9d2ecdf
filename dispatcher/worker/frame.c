/* frame.c - see frame.h. Called by process.c for every job: printf would be a good part of its
 * cost. */
#include "worker/frame.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "worker/reply.h"

void frame_hello(struct buf *out)
{
    buf_printf(out, "{\"op\":\"hello\",\"proto\":%d}\n", WORKER_PROTO);
}

#define PUT(out, literal) buf_append(out, literal, sizeof(literal) - 1)

static void put_number(struct buf *out, uint64_t n)
{
    char text[20];
    char *p = text + sizeof text;
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    buf_append(out, p, (size_t)(text + sizeof text - p));
}

/* Headers are JSON that was checked before; line ends can only stand between its tokens. */
static void put_headers(struct buf *out, const char *headers)
{
    if (headers == NULL) {
        PUT(out, "{}");
        return;
    }
    while (*headers != '\0') {
        size_t n = strcspn(headers, "\r\n");
        buf_append(out, headers, n);
        headers += n;
        if (*headers != '\0') {
            PUT(out, " ");
            headers++;
        }
    }
}

static void put_header(struct buf *out, const struct run *run, uint64_t deadline_unix_s)
{
    const struct job *job = run->job;
    char created_at[CLOCK_RFC3339_SIZE];
    char idempotency_key[JOB_IDEMPOTENCY_KEY_SIZE];
    clock_rfc3339(job->created_at_us, 6, created_at);
    job_idempotency_key(job, idempotency_key);
    PUT(out, "{\"op\":\"job\",\"id\":\"");
    put_number(out, (uint64_t)job->id);
    PUT(out, "\",\"task\":\""); /* its name needs no escapes */
    buf_puts(out, run->task->name);
    PUT(out, "\",\"attempt\":");
    put_number(out, (uint64_t)job->attempt);
    PUT(out, ",\"max_attempts\":");
    put_number(out, (uint64_t)job->max_attempts);
    PUT(out, ",\"lost\":");
    put_number(out, (uint64_t)job->lost);
    PUT(out, ",\"deadline\":");
    put_number(out, deadline_unix_s);
    if (job->key != NULL) {
        PUT(out, ",\"key\":");
        buf_json_string(out, job->key, strlen(job->key));
    }
    PUT(out, ",\"created_at\":\"");
    buf_puts(out, created_at);
    PUT(out, "\",\"idempotency_key\":\"");
    buf_puts(out, idempotency_key);
    PUT(out, "\",\"content_type\":\"");
    buf_puts(out, run->content_type);
    PUT(out, "\",\"headers\":");
    put_headers(out, job->headers);
    PUT(out, ",\"len\":");
    put_number(out, run->body_len);
    PUT(out, "}\n");
}

int frame_job(struct buf *out, const struct run *run, uint64_t deadline_unix_s)
{
    size_t before = out->len;
    ob_assert(out->err == 0);
    ob_assert(run->job->id > 0);
    put_header(out, run, deadline_unix_s);
    if (out->err == 0 && out->len - before > FRAME_HEADER_MAX)
        out->err = OB_ETOOBIG;
    buf_append(out, run->body, run->body_len);
    int err = out->err;
    if (err != 0) {
        out->len = before;
        out->err = 0;
    }
    return err;
}
