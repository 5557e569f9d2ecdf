/* Randomness, see chance.h. */
#define _GNU_SOURCE
#include "chance.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

int64_t chance_now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void chance_pause_ms(unsigned ms)
{
    const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&ts, NULL);
}

/* splitmix64 */
uint64_t chance_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

uint64_t chance_derive(uint64_t seed, uint64_t n)
{
    uint64_t state = seed ^ (n * 0xD1342543DE82EF95U);
    return chance_random(&state);
}

unsigned chance_below(uint64_t *state, unsigned n)
{
    return (unsigned)(chance_random(state) % n);
}

const char *chance_setting(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : fallback;
}

unsigned chance_setting_number(const char *name, unsigned fallback)
{
    const char *value = chance_setting(name, NULL);
    return value != NULL ? (unsigned)strtoul(value, NULL, 10) : fallback;
}

unsigned chance_seeds(unsigned count, const uint64_t **ret_seeds)
{
    static uint64_t seeds[CHANCE_SEEDS_MAX];
    unsigned asked = chance_setting_number("OUTBOX_STRESS_SEEDS", count);
    count = asked > 0 && asked <= CHANCE_SEEDS_MAX ? asked : count;
    for (unsigned i = 0; i < count; i++) {
        uint32_t bits = 0;
        if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
            bits = (uint32_t)chance_now_ns();
        seeds[i] = 3 + (uint64_t)(bits % 1000000) * 3 + i % 3;
    }
    const char *seed = chance_setting("OUTBOX_STRESS_SEED", NULL);
    *ret_seeds = seeds;
    if (seed == NULL)
        return count;
    seeds[0] = strtoull(seed, NULL, 10);
    return 1;
}
