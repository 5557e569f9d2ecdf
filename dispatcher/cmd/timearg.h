/* timearg.h - points in time as people type them on a command line. Pure but for the time zone
 * (TZ). */
#ifndef OB_CMD_TIMEARG_H
#define OB_CMD_TIMEARG_H

#include <stdint.h>

#include "base/err.h"

/* "2026-01-31", "2026-01-31 08:30", "2026-01-31T08:30:05.25Z", "... +02:00", "... -0700". Without
 * an offset the time is this machine's local time. OB_EINVAL if it is not so, or no such date
 * exists. */
int timearg_parse(const char *text, int64_t *ret_unix_us) OB_MUST_CHECK;

#endif
