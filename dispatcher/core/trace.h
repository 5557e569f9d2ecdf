/* trace.h - `log_sql`: the statements of a connection, in the log. */
#ifndef OB_CORE_TRACE_H
#define OB_CORE_TRACE_H

#include <stdbool.h>

#include "db/pgconn.h"

/* From now on, or no more. name: of the connection, a constant; it is in each line. */
void trace_connection(struct pgconn *c, const char *name, bool is_on);

#endif
