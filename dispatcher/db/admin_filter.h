/* admin_filter.h - which jobs a command means, as a condition on outbox.jobs j and its parameters.
 */
#ifndef OB_DB_ADMIN_FILTER_H
#define OB_DB_ADMIN_FILTER_H

#include "db/admin.h"

#define ADMIN_JOB_WHERE                                                                            \
    " WHERE ($1::text[] IS NULL OR j.task = ANY ($1::text[]))"                                     \
    " AND ($2::text[] IS NULL OR j.state = ANY ($2::text[]))"                                      \
    " AND ($3::text IS NULL OR j.key = $3::text)"                                                  \
    " AND ($4::bigint IS NULL OR j.created_at < to_timestamp(0) + $4::bigint * interval '1 us')"   \
    " AND ($5::bigint IS NULL OR j.created_at >= to_timestamp(0) + $5::bigint * interval '1 us')"  \
    " AND ($6::bigint IS NULL OR j.created_at <= clock_timestamp() - $6::bigint * interval '1 "    \
    "ms')"                                                                                         \
    " AND ($7::text IS NULL OR position(lower($7::text) IN lower(j.reason)) > 0)"                  \
    " AND ($8::bigint IS NULL OR j.finished_at <= clock_timestamp() - $8::bigint * interval '1 "   \
    "ms')"                                                                                         \
    " AND ($9::bigint IS NULL OR j.finished_at >= clock_timestamp() - $9::bigint * interval '1 "   \
    "ms')" /* tells the planner to leave the live jobs alone where none can match */               \
    " AND (($2::text[] IS NULL OR $2::text[] && '{ready,scheduled,waiting,running}')"              \
    " AND $7::text IS NULL AND $8::bigint IS NULL AND $9::bigint IS NULL"                          \
    " OR j.finished_at IS NOT NULL)"

enum { ADMIN_FILTER_PARAMS = 10, ADMIN_FILTER_NUMBERS = 6, ADMIN_NUMBER_SIZE = 24 };

/* $1 to $9 of ADMIN_JOB_WHERE, and $10, the limit; numbers are written into `numbers`. */
void admin_filter_params(const struct admin_filter *f, const char *values[ADMIN_FILTER_PARAMS],
                         char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE]);

#endif
