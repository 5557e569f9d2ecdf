/* child.h - child processes and files of the test support itself: what pgcluster.c, httpstub.c,
 * faultproxy.c and daemon.c share. Test files have no need of it. */
#ifndef OB_TEST_CHILD_H
#define OB_TEST_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* fork(); the child gets `deathsig` when its parent dies (0: none), and does not return to a parent
 * that is already dead. Aborts when there is no process to be had. */
pid_t child_fork(int deathsig);
/* The child's exit code, or 128 + signal, waiting up to ms; -1: it still runs. */
int child_wait(pid_t pid, unsigned ms);
/* SIGKILL and reap. A pid <= 0 is ignored. */
void child_kill(pid_t pid);
int child_exit_code(int wait_status);

/* Writes all of it or fails. */
bool write_all(int fd, const void *data, size_t len);
/* The file from `offset` on as a string (heap); NULL if it can't be read. */
char *read_file_from(const char *path, off_t offset, size_t *ret_len);
/* Removes a file or folder with all that is in it; what isn't there is no error. */
void remove_tree(const char *path);
/* A loopback listener on a port of its own. */
int listen_loopback(int *ret_port);

/* /tmp/obt<user>.<pid>: files of this run of the binary, a folder a test below it. Removed by
 * scratch_remove(), which main calls, unless OUTBOX_TEST_KEEP=1. */
void scratch_init(void);
void scratch_remove(void);

#endif
