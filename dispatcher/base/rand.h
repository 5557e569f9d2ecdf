/* rand.h - random numbers from the kernel. */
#ifndef OB_BASE_RAND_H
#define OB_BASE_RAND_H

#include <stdint.h>

/* A random positive 63-bit number, never 0: a dispatcher's identity. */
int64_t rand_id(void);
/* Uniform in [0, bound); bound > 0. For jitter. */
uint64_t rand_below(uint64_t bound);

#endif
