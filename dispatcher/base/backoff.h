/* backoff.h - how long to wait before the next attempt, of a job or at connecting. Pure: the
 * randomness is an argument. */
#ifndef OB_BASE_BACKOFF_H
#define OB_BASE_BACKOFF_H

#include <stdint.h>

#include "base/config.h"

/* Delay before attempt n+1 after attempt n (from 1) failed: min(max, base * 2^(n-1)), or the
 * schedule's n-th entry (the last repeats); times 1 ± jitter, where random in [0, 2^32) places it;
 * then at least at_least_ms (Retry-After). Saturating; never 0 unless base is 0. */
uint64_t backoff_delay_ms(const struct backoff_config *b, unsigned attempt, uint32_t random,
                          uint64_t at_least_ms);
/* Before connecting to the server again: 100 ms doubling to 5 s, times 1 ± 20 %: often
 * enough for a waiting daemon to say so every ten seconds. n counts the attempts that failed in a
 * row, from 1. */
uint64_t backoff_reconnect_ms(unsigned n, uint32_t random);

#endif
