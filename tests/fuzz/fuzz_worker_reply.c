/* fuzz_worker_reply.c - any bytes as a line that a worker wrote. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same result written plainly must be read alike: the short way to read an ok and the long one
 * agree. */
static void check_ok(int64_t id)
{
    char line[96];
    struct worker_reply r;
    const char *why = NULL;
    int n = snprintf(line, sizeof line, "{\"status\":\"ok\",\"id\":\"%lld\"}", (long long)id);
    if (worker_reply_parse(line, (size_t)n, &r, &why) != 0 || r.kind != REPLY_OK || r.id != id)
        abort();
    worker_reply_clear(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct worker_reply r;
    const char *why = NULL;
    if (size >= REPLY_LINE_MAX)
        return 0;
    int err = worker_reply_parse((const char *)data, size, &r, &why);
    if (err != 0 && (err != OB_ESYNTAX || why == NULL || r.doc != NULL))
        abort();
    if (err != 0)
        return 0;
    if (r.kind == REPLY_READY ? r.window < 1 : r.id < 1)
        abort();
    if (r.error != NULL && strlen(r.error) != r.error_len)
        abort();
    if (r.kind == REPLY_OK)
        check_ok(r.id);
    worker_reply_clear(&r);
    return 0;
}
