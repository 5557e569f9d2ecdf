/* fuzz_worker_header.c - any bytes as a header line that a worker by outbox/worker.h gets, and any
 * text as an error that it answers with. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <outbox/worker.h>

#include "worker/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const char *text)
{
    if (text != NULL && strlen(text) > 65536)
        abort();
}

static void parse(const uint8_t *data, size_t size)
{
    char *line = (char *)malloc(size + 1); /* of exactly that size: a byte behind it is a crash */
    struct outbox_priv_worker_header h;
    if (line == NULL)
        return;
    memcpy(line, data, size);
    line[size] = '\0';
    if (outbox_priv_worker_parse(line, size, &h)) {
        read_all(h.op);
        read_all(h.job.id);
        read_all(h.job.task);
        read_all(h.job.key);
        read_all(h.job.headers);
        read_all(h.job.content_type);
        read_all(h.job.created_at);
        read_all(h.job.idempotency_key);
    }
    free(line);
}

/* What is quoted is JSON that the dispatcher takes. */
static void quote(const uint8_t *data, size_t size)
{
    static char line[8192];
    static const char begin[] = "{\"id\":\"1\",\"status\":\"dead\",\"error\":";
    char *text = (char *)malloc(size + 1);
    struct worker_reply r;
    const char *why = NULL;
    if (text == NULL)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    memcpy(line, begin, sizeof begin - 1);
    char *end = outbox_priv_worker_quote(line + sizeof begin - 1, text, 4096);
    if (end - line > (long)(sizeof begin + 4096))
        abort();
    *end++ = '}';
    if (worker_reply_parse(line, (size_t)(end - line), &r, &why) != 0)
        abort();
    worker_reply_clear(&r);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 65536)
        return 0;
    parse(data, size);
    quote(data, size);
    return 0;
}
