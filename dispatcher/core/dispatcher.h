/* dispatcher.h - the daemon itself: `outbox run`. Owns the loop, the session, the executors, and
 * every job from claim to recorded result. */
#ifndef OB_CORE_DISPATCHER_H
#define OB_CORE_DISPATCHER_H

#include <stdbool.h>

#include "base/config.h"
#include "exec/spawner.h"

struct dispatcher_options {
    struct config *config;  /* referenced */
    struct spawner spawner; /* taken over */
    bool drain;             /* stop when nothing is ready and nothing runs */
    /* Loads the configuration again, for SIGHUP; errors go to reterr. */
    int (*reload)(void *arg, struct config **ret_config, struct buf *reterr);
    void *reload_arg;
};

/* Runs until told to stop; returns the exit code (base/err.h): 0 when every row was written, 75
 * when some were left to their lease. */
int dispatcher_run(const struct dispatcher_options *options);

#endif
