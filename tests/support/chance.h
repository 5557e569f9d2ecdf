/* chance.h - what the randomized tests share: random numbers that a seed decides, the seeds and
 * settings of a run, times of one clock. Pure C, without Check: child processes use it too. */
#ifndef OB_TEST_CHANCE_H
#define OB_TEST_CHANCE_H

#include <stdint.h>

enum { CHANCE_SEEDS_MAX = 1000 };

int64_t chance_now_ns(void); /* CLOCK_MONOTONIC: the same in all processes */
void chance_pause_ms(unsigned ms);

uint64_t chance_random(uint64_t *state);
/* The n-th independent beginning for chance_random that the seed gives. */
uint64_t chance_derive(uint64_t seed, uint64_t n);
unsigned chance_below(uint64_t *state, unsigned n); /* 0 to n - 1 */

/* Environment variables; unset or empty: the fallback. */
const char *chance_setting(const char *name, const char *fallback);
unsigned chance_setting_number(const char *name, unsigned fallback);

/* The seeds to run, in static storage; their number is returned: the one of OUTBOX_STRESS_SEED, or
 * new ones, as many as OUTBOX_STRESS_SEEDS says; each is 0, 1 and 2 modulo 3 in turn. */
unsigned chance_seeds(unsigned count, const uint64_t **ret_seeds);

#endif
