/* admin_ids.c - which jobs a command means that names them by what they are: see admin_ids.h. */
#include "db/admin_ids.h"

#include <inttypes.h>
#include <stdio.h>

#include "db/admin_conn.h"

enum { PARAMS = 10, NUMBER_SIZE = 24 };

/* $1 to $9, in the order of params(). The last condition leaves the live jobs alone where none can
 * match. */
#define IDS_WHERE                                                                                  \
    " FROM outbox.jobs j WHERE ($1::text[] IS NULL OR j.task = ANY ($1::text[]))"                  \
    " AND ($2::text[] IS NULL OR j.state = ANY ($2::text[]))"                                      \
    " AND ($3::text IS NULL OR j.key = $3::text)"                                                  \
    " AND ($4::text IS NULL OR j.dispatcher = $4::text)"                                           \
    " AND ($5::bigint IS NULL OR"                                                                  \
    " j.created_at <= clock_timestamp() - $5::bigint * interval '1 ms')"                           \
    " AND ($6::text IS NULL OR position(lower($6::text) IN lower(j.reason)) > 0)"                  \
    " AND ($7::bigint IS NULL OR"                                                                  \
    " j.finished_at <= clock_timestamp() - $7::bigint * interval '1 ms')"                          \
    " AND ($8::bigint IS NULL OR"                                                                  \
    " j.finished_at >= clock_timestamp() - $8::bigint * interval '1 ms')"                          \
    " AND j.id > coalesce($9::bigint, 0)"

static void params(const struct admin_filter *f, const char *dispatcher, int64_t after,
                   const char *values[PARAMS], char numbers[PARAMS][NUMBER_SIZE])
{
    const int64_t n[PARAMS] = {[4] = (int64_t)f->min_age_ms,
                               [6] = (int64_t)f->ended_for_ms,
                               [7] = (int64_t)f->ended_within_ms,
                               [8] = after,
                               [9] = ADMIN_IDS_MAX};
    for (int i = 0; i < PARAMS; i++) {
        (void)snprintf(numbers[i], NUMBER_SIZE, "%" PRId64, n[i]);
        values[i] = n[i] != 0 ? numbers[i] : NULL;
    }
    values[0] = f->tasks;
    values[1] = f->states;
    values[2] = f->key;
    values[3] = dispatcher;
    values[5] = f->error;
}

int admin_ids(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
              int64_t after, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    const char *values[PARAMS];
    char numbers[PARAMS][NUMBER_SIZE];
    params(filter, dispatcher, after, values, numbers);
    return admin_query(a, ADMIN_READER,
                       "SELECT j.id::text" IDS_WHERE " ORDER BY j.id LIMIT $10::bigint", PARAMS,
                       values, ret_rows, reterr);
}

int admin_ids_count(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
                    int64_t *ret_count, struct admin_error *reterr)
{
    const char *values[PARAMS];
    char numbers[PARAMS][NUMBER_SIZE];
    params(filter, dispatcher, 0, values, numbers);
    return admin_query_number(a, ADMIN_READER, "SELECT count(*)::text" IDS_WHERE, PARAMS - 1,
                              values, ret_count, reterr);
}
