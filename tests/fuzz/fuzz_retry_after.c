/* fuzz_retry_after.c - any bytes as a Retry-After header: the first 9 choose clock and maximum. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "webhook/retry_after.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t now_unix_ms = 0;
    if (size < sizeof now_unix_ms + 1 || size > 256)
        return 0;
    memcpy(&now_unix_ms, data, sizeof now_unix_ms);
    uint64_t max_ms = UINT64_MAX >> (data[8] % 64);
    const char *text = (const char *)data + 9;
    uint64_t ms = 0;
    int err = retry_after_parse(text, size - 9, now_unix_ms, max_ms, &ms);
    if (err != 0 && err != OB_ESYNTAX)
        abort();
    if (err == 0 && ms > max_ms)
        abort();
    if (err != 0 && ms != 0)
        abort();
    return 0;
}
