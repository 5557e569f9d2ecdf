/* reconnect.h - how long to wait before connecting to the server again. Pure: the randomness is an
 * argument. */
#ifndef OB_BASE_RECONNECT_H
#define OB_BASE_RECONNECT_H

#include <stdint.h>

/* 100 ms doubling to 30 s, times 1 ± 20 %, where random in [0, 2^32) places it. n counts the
 * attempts that failed in a row, from 1. */
uint64_t backoff_reconnect_ms(unsigned n, uint32_t random);

#endif
