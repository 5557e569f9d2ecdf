/* wait.h - waiting for a condition under a deadline. A bare sleep in a test is a review error. */
#ifndef OB_TEST_WAIT_H
#define OB_TEST_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* Evaluates cond every 10 ms until it is true or ms have passed; the value is the last one. */
#define wait_until(cond, ms)                                                                       \
    __extension__({                                                                                \
        uint64_t wait_deadline_ = wait_now_ms() + (uint64_t)(ms);                                  \
        bool wait_ok_ = false;                                                                     \
        while (!(wait_ok_ = (cond)) && wait_now_ms() < wait_deadline_)                             \
            wait_pause();                                                                          \
        wait_ok_;                                                                                  \
    })

uint64_t wait_now_ms(void);
void wait_pause(void); /* 10 ms */

#endif
