/* backoff.c - see backoff.h. Integers saturate: a delay may become long, never short by wrapping.
 */
#include "base/backoff.h"

#include "base/assert.h"

enum { PERMILLE = 1000 };

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* base doubled (attempt - 1) times, at most max. */
static uint64_t exponential(uint64_t base, uint64_t max, unsigned attempt)
{
    uint64_t delay = base < max ? base : max;
    for (unsigned n = 1; n < attempt && delay > 0 && delay < max; n++)
        delay = delay > max / 2 ? max : delay * 2;
    return delay;
}

/* value * random / 2^32, without a wider type. */
static uint64_t scale(uint64_t value, uint32_t random)
{
    uint64_t low = value & UINT32_MAX;
    return (value >> 32) * random + ((low * random) >> 32);
}

/* delay ± delay * permille / 1000, placed by random; an integer, both ends included. */
static uint64_t jittered(uint64_t delay, unsigned permille, uint32_t random)
{
    if (permille > PERMILLE)
        permille = PERMILLE;
    uint64_t spread = delay / PERMILLE * permille + delay % PERMILLE * permille / PERMILLE;
    ob_assert(spread <= delay);
    uint64_t width = add_saturated(add_saturated(spread, spread), 1);
    return add_saturated(delay - spread, scale(width, random));
}

uint64_t backoff_delay_ms(const struct backoff_config *b, unsigned attempt, uint32_t random,
                          uint64_t at_least_ms)
{
    if (attempt == 0)
        attempt = 1;
    uint64_t planned = 0;
    if (b->schedule_count > 0) {
        size_t i = attempt - 1U;
        planned = b->schedule_ms[i < b->schedule_count ? i : b->schedule_count - 1];
    } else {
        planned = exponential(b->base_ms, b->max_ms, attempt);
    }
    uint64_t delay = jittered(planned, b->jitter_permille, random);
    if (delay == 0 && planned > 0)
        delay = 1;
    return delay > at_least_ms ? delay : at_least_ms;
}

uint64_t backoff_reconnect_ms(unsigned n, uint32_t random)
{
    static const struct backoff_config reconnect = {
        .base_ms = 100, .max_ms = 5000, .jitter_permille = 200};
    ob_assert(n > 0);
    return backoff_delay_ms(&reconnect, n, random, 0);
}
