/* rand.c - see rand.h. */
#include "base/rand.h"

#include <errno.h>
#include <sys/random.h>

#include "base/assert.h"

static uint64_t rand_u64(void)
{
    uint64_t value = 0;
    ssize_t n = 0;
    do {
        n = getrandom(&value, sizeof value, 0);
    } while (n < 0 && errno == EINTR);     /* a signal before the kernel's pool is ready */
    ob_assert(n == (ssize_t)sizeof value); /* 8 bytes are never cut short (getrandom(2)) */
    return value;
}

int64_t rand_id(void)
{
    int64_t id = 0;
    while (id == 0)
        id = (int64_t)(rand_u64() & (uint64_t)INT64_MAX);
    return id;
}

uint64_t rand_below(uint64_t bound)
{
    ob_assert(bound > 0);
    return rand_u64() % bound; /* the bias of 2^64 mod bound does not matter for jitter */
}
