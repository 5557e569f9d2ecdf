/* admin_ids.h - which jobs a command means that names them by what they are, in portions. */
#ifndef OB_DB_ADMIN_IDS_H
#define OB_DB_ADMIN_IDS_H

#include "db/admin.h"

/* Ids above `after` of the jobs that match, ascending, at most ADMIN_IDS_MAX. The filter's
 * limit does not count; dispatcher: only what runs there, NULL: anywhere. */
int admin_ids(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
              int64_t after, struct admin_rows **ret_rows,
              struct admin_error *reterr) OB_MUST_CHECK;
int admin_ids_count(struct admin *a, const struct admin_filter *filter, const char *dispatcher,
                    int64_t *ret_count, struct admin_error *reterr) OB_MUST_CHECK;

#endif
