/* descent.h - killing what descends from this process, however it tried to get away.
 *
 * Works in a subreaper: whatever double-forks and makes sessions of its own becomes our child when
 * its parent dies. Called by the spawner at its end, and by spawn_client.c when the spawner was
 * killed. */
#ifndef OB_EXEC_DESCENT_H
#define OB_EXEC_DESCENT_H

#include <stdbool.h>

/* One round: SIGKILL to every child of this process's main thread and to the group it leads; what
 * is dead already is reaped. other_sessions_only spares the children of our own session. Returns
 * how many it saw (reaping shifts the list, and their own children may be next: call again until
 * 0), or a negative errno when the kernel has no list of children (/proc not mounted). */
int descent_kill(bool other_sessions_only);

#endif
