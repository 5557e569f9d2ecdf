/* admin_filter.c - see admin_filter.h. */
#include "db/admin_filter.h"

#include <inttypes.h>
#include <stdio.h>

void admin_filter_params(const struct admin_filter *f, const char *values[ADMIN_FILTER_PARAMS],
                         char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE])
{
    static const int places[ADMIN_FILTER_NUMBERS] = {3, 4, 5, 7, 8, 9};
    const int64_t n[ADMIN_FILTER_NUMBERS] = {f->before_us,
                                             f->after_us,
                                             (int64_t)f->min_age_ms,
                                             (int64_t)f->ended_for_ms,
                                             (int64_t)f->ended_within_ms,
                                             f->limit};
    values[0] = f->tasks;
    values[1] = f->states;
    values[2] = f->key;
    values[6] = f->error;
    for (size_t i = 0; i < ADMIN_FILTER_NUMBERS; i++) {
        (void)snprintf(numbers[i], ADMIN_NUMBER_SIZE, "%" PRId64, n[i]);
        values[places[i]] = n[i] != 0 ? numbers[i] : NULL;
    }
}
