/* faultmem.h - allocations that fail on command, and a count of what is alive.
 *
 * For a test linked with FAULTMEM's flags (tests/compile/CMakeLists.txt):
 *     -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=free
 * which reach the test's own objects, code inlined from headers included, and not shared libraries.
 * Armed only between faultmem_arm and faultmem_disarm, by one thread. Break on faultmem_fired_here
 * in a debugger to see who asked. */
#ifndef OB_TEST_FAULTMEM_H
#define OB_TEST_FAULTMEM_H

#include <stdbool.h>

/* The n-th allocation from now on (from 0) fails; repeat: and all after it. Counts anew. */
void faultmem_arm(unsigned n, bool repeat);
/* Everything succeeds again. Returns how many allocations failed. */
unsigned faultmem_disarm(void);
/* Allocations minus frees, between arm and disarm. */
long faultmem_alive(void);

#endif
