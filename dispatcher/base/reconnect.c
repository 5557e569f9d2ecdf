/* reconnect.c - see reconnect.h. Called by db/pgconn.c. */
#include "base/reconnect.h"

#include "base/assert.h"

enum { BASE_MS = 100, MAX_MS = 30000, JITTER_PERMILLE = 200 };

uint64_t backoff_reconnect_ms(unsigned n, uint32_t random)
{
    ob_assert(n > 0);
    uint64_t delay_ms = BASE_MS;
    for (unsigned i = 1; i < n && delay_ms < MAX_MS; i++)
        delay_ms *= 2;
    if (delay_ms > MAX_MS)
        delay_ms = MAX_MS;
    uint64_t spread = 2 * JITTER_PERMILLE + 1;
    uint64_t permille = 1000 - JITTER_PERMILLE + ((spread * random) >> 32);
    return delay_ms * permille / 1000;
}
