/* http.h - the webhook handler: requests by libcurl on the loop. curl is initialised when the first
 * webhook executor is made, and SIGPIPE ignored from then on.
 *
 * Stopping: after STOP_SHUTDOWN and STOP_LOST a transfer goes on, since what the receiver makes of
 * it can no longer be taken back; STOP_KILL drops it on the loop's next turn, and without an answer
 * the job is RELEASEd: it may be delivered twice. */
#ifndef OB_WEBHOOK_HTTP_H
#define OB_WEBHOOK_HTTP_H

#include "core/handler.h"

/* As many connections are kept open as the webhook tasks of config may use at once, and some more.
 */
int webhook_executor_new(uv_loop_t *loop, const struct config *config,
                         struct executor **ret_executor) OB_MUST_CHECK;

struct webhook_stats {
    uint64_t requests;    /* attempts that ended */
    uint64_t connections; /* opened for them; libcurl re-sends by itself on a new connection when a
                             kept one dies before a byte of the answer */
    uint64_t holds;       /* how often an endpoint was held */
    unsigned running;     /* now */
};
/* ex: made by webhook_executor_new. */
void webhook_executor_stats(const struct executor *ex, struct webhook_stats *ret_stats);

#endif
