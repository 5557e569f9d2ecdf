/* spawner.h - the spawner: a small process that starts every command, and outlives none of them.
 *
 * Forked first thing in main(), before any connection, thread or large allocation, so that vfork
 * costs the same whatever the dispatcher's memory. It is a subreaper; it vforks on request over a
 * SOCK_SEQPACKET pair, and when that pair ends (the dispatcher died, in whatever way) or its
 * deadline passes, it kills everything of its descent and exits. No libuv, no libpq, no log in that
 * process. */
#ifndef OB_EXEC_SPAWNER_H
#define OB_EXEC_SPAWNER_H

#include <sys/types.h>

#include "base/err.h"

struct spawner {
    pid_t pid;
    int fd; /* our end of the pair: CLOEXEC, non-blocking */
};

/* Forks the spawner. Returns 0 or a negative errno. The child never returns from it. */
int spawner_fork(struct spawner *ret_spawner) OB_MUST_CHECK;

#endif
