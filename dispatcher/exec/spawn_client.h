/* spawn_client.h - the dispatcher's side of the spawner's protocol, on the loop.
 *
 * One spawn_client a daemon. When the spawner dies, every child of it is dead (it is their
 * subreaper and PDEATHSIG's parent): running processes get on_exit with SPAWN_EXIT_LOST, on_lost is
 * called, and spawn_client_restart() forks another before anything else is started. */
#ifndef OB_EXEC_SPAWN_CLIENT_H
#define OB_EXEC_SPAWN_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "base/err.h"
#include "exec/spawner.h"

struct spawn_client;

struct spawn_request { /* all borrowed for the call */
    char *const *argv; /* argv[0] is the path that is executed */
    char *const *envp;
    const char *cwd;  /* NULL: unchanged */
    int umask;        /* -1: unchanged */
    bool skips_start; /* on_started is not wanted: a message and a descriptor less */
    int stdin_fd;     /* -1: /dev/null, here and in the next two */
    int stdout_fd;    /* the child's ends; duplicated, the caller keeps and closes its own */
    int stderr_fd;
};

struct spawn_handle; /* one child; embedded by nobody, owned by the client until after on_exit */

enum { SPAWN_EXIT_LOST = -1 };

struct spawn_callbacks {
    /* The child runs. pidfd is owned by the client; -1 if there was no descriptor left. */
    void (*on_started)(void *arg, pid_t pid, int pidfd);
    /* It never ran: where and why. Nothing else follows. */
    void (*on_failed)(void *arg, const char *stage, int errnum);
    /* The leader exited and was reaped, the stragglers of its group are killed: at once, or, if it
     * was sent a TERM before, when they have ended or a KILL is sent. wait_status, the leader's, as
     * waitpid(2) has it, or SPAWN_EXIT_LOST when the spawner died. Nothing else follows. */
    void (*on_exit)(void *arg, int wait_status);
};

/* Takes over the spawner. on_lost: it died; called once, after the last on_exit. */
int spawn_client_new(uv_loop_t *loop, const struct spawner *spawner, void (*on_lost)(void *arg),
                     void *arg, struct spawn_client **ret_client) OB_MUST_CHECK;
/* Forks another spawner for a client whose spawner was lost. */
int spawn_client_restart(struct spawn_client *c) OB_MUST_CHECK;
/* Ends the spawner (it kills what is left) and frees c; cb when that is done. */
void spawn_client_close(struct spawn_client *c, void (*cb)(void *arg), void *arg);

/* Sends the request. 0: on_started or on_failed follows. OB_ESPAWN: no spawner; UV_EAGAIN: its
 * queue is full, try later; OB_ETOOBIG: argv and environment over SPAWN_REQUEST_MAX. */
enum { SPAWN_REQUEST_MAX = 128 * 1024 };
int spawn_client_spawn(struct spawn_client *c, const struct spawn_request *request,
                       const struct spawn_callbacks *callbacks, void *arg,
                       struct spawn_handle **ret_handle) OB_MUST_CHECK;
/* Signals the child's group, exactly it: through the spawner, which knows whether it is still
 * there. */
void spawn_client_kill(struct spawn_client *c, struct spawn_handle *handle, int signum);

/* After boot_ms (clock_boot_ms) without a later deadline the spawner kills everything by itself: a
 * stopped dispatcher can't. 0: no deadline. */
void spawn_client_set_deadline(struct spawn_client *c, uint64_t boot_ms);
/* Gives the spawner, and each that replaces it, a duplicate of fd to hold until it and all its
 * descent are gone: the name's lock. Given again it stays held once; at most four
 * files in a client's life. */
int spawn_client_hold_fd(struct spawn_client *c, int fd) OB_MUST_CHECK;
pid_t spawn_client_pid(const struct spawn_client *c);

#endif
