/* spawn_child.h - what happens between vfork and execve. Called by the spawner alone. */
#ifndef OB_EXEC_SPAWN_CHILD_H
#define OB_EXEC_SPAWN_CHILD_H

#include <sys/types.h>

#include "base/err.h"
#include "exec/spawn_protocol.h"

struct spawn_plan {
    char *const *argv; /* argv[0]: the path executed */
    char *const *envp;
    const char *cwd; /* NULL: unchanged */
    int umask;       /* -1: unchanged */
    int stdio[3];    /* above 2; each becomes 0, 1, 2 */
};

struct spawn_failure {
    enum spawn_stage stage;
    int errnum;
};

/* Once, in the spawner. */
void spawn_child_set_up(void);
/* Starts the child of plan and returns its pid once it runs the program; a child that could not be
 * set up is reaped already, and -1 returned with stage and errno. All signals must be blocked and
 * have their default action in the caller: the child inherits the actions and empties the mask. */
pid_t spawn_child_start(const struct spawn_plan *plan,
                        struct spawn_failure *ret_failure) OB_MUST_CHECK;

#endif
