/* admin_ids.c - which jobs a command means that names them by what they are: see admin_ids.h. */
#include "db/admin_ids.h"

#include <inttypes.h>
#include <stdio.h>

#include "db/admin_conn.h"
#include "db/admin_filter.h"

enum { PARAMS = ADMIN_FILTER_PARAMS + 2 };

#define IDS_WHERE                                                                                  \
    " FROM outbox.jobs j" ADMIN_JOB_WHERE                                                          \
    " AND ($11::text IS NULL OR j.dispatcher = $11::text) AND j.id > $12::bigint"

struct ids_params {
    const char *values[PARAMS];
    char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE];
    char after[ADMIN_NUMBER_SIZE];
};

static void fill(struct ids_params *p, const struct admin_filter *filter, const char *dispatcher,
                 int64_t after, int64_t limit)
{
    struct admin_filter limited = *filter;
    limited.limit = limit;
    admin_filter_params(&limited, p->values, p->numbers);
    (void)snprintf(p->after, sizeof p->after, "%" PRId64, after);
    p->values[ADMIN_FILTER_PARAMS] = dispatcher;
    p->values[ADMIN_FILTER_PARAMS + 1] = p->after;
}

int admin_ids(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
              int64_t after, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    struct ids_params p;
    fill(&p, filter, dispatcher, after, ADMIN_IDS_MAX);
    return admin_query(a, ADMIN_READER,
                       "SELECT j.id::text" IDS_WHERE " ORDER BY j.id LIMIT $10::bigint", PARAMS,
                       p.values, ret_rows, reterr);
}

int admin_ids_count(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
                    int64_t *ret_count, struct admin_error *reterr)
{
    struct ids_params p;
    fill(&p, filter, dispatcher, 0, 0);
    return admin_query_number(a, ADMIN_READER,
                              "SELECT count(*)::text FROM (SELECT" IDS_WHERE
                              " LIMIT $10::bigint) AS m", /* NULL: all */
                              PARAMS, p.values, ret_count, reterr);
}
