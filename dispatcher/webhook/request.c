/* request.c - see request.h. Called by transfer.c once an attempt. The headers are documented in
 * docs/handlers-webhook.md: change both. */
#include "webhook/request.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "webhook/credentials.h"

static void put(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s: %s", name, value);
    buf_putc(out, '\0');
}

/* The operator's own headers. What may not be there (ours, Host, lengths, line breaks) the
 * configuration refused when it was loaded. */
static void put_configured(struct buf *out, const struct strings *headers)
{
    for (size_t i = 0; i < headers->count; i++)
        buf_append(out, headers->items[i], strlen(headers->items[i]) + 1);
}

int request_headers(const struct run *run, struct buf *out)
{
    ob_assert(run->started_unix_us > 0);
    const struct webhook_config *config = &run->task->webhook;
    const char *content_type =
        config->content_type != NULL ? config->content_type : run->content_type;
    put(out, "Content-Type", content_type != NULL ? content_type : "application/octet-stream");

    char key[JOB_IDEMPOTENCY_KEY_SIZE];
    job_idempotency_key(run->job, key);
    put(out, "webhook-id", key);
    buf_printf(out, "webhook-timestamp: %" PRIu64, run->started_unix_us / 1000000U);
    buf_putc(out, '\0');
    if (credentials_can_sign(config->credentials)) {
        buf_puts(out, "webhook-signature: ");
        int err = credentials_sign(config->credentials, key, run->started_unix_us / 1000000U,
                                   run->body, run->body_len, out);
        if (err != 0)
            return err;
        buf_putc(out, '\0');
    }
    buf_printf(out, "webhook-attempt: %d", run->job->attempt);
    buf_putc(out, '\0');
    if (config->idempotency_key) { /* a string of RFC 9651: quoted */
        buf_printf(out, "Idempotency-Key: \"%s\"", key);
        buf_putc(out, '\0');
    }
    char traceparent[JOB_TRACEPARENT_SIZE];
    job_traceparent(run->job, traceparent);
    if (traceparent[0] != '\0')
        put(out, "traceparent", traceparent);
    /* libcurl would send "Expect: 100-continue" with bodies over 1 MiB, and wait a second. */
    buf_append(out, "Expect:", sizeof "Expect:");
    put_configured(out, &config->headers);
    return out->err;
}
