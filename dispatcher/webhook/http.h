/* http.h - the webhook handler: libcurl's multi-socket interface on the loop. http.c is the only
 * file that includes curl; curl is initialised when the first webhook executor is made. */
#ifndef OB_WEBHOOK_HTTP_H
#define OB_WEBHOOK_HTTP_H

#include "core/handler.h"

/* connections_max: how many may be kept open (concurrency of all webhook tasks + endpoints). */
int webhook_executor_new(uv_loop_t *loop, unsigned connections_max,
                         struct executor **ret_executor) OB_MUST_CHECK;

#endif
