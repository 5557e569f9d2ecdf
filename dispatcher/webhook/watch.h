/* watch.h - sockets of somebody else on the loop: one uv_poll_t a socket, closed the moment it is
 * no longer wanted, freed in the close callback.
 *
 * A descriptor's number may come back before an earlier watch of it is freed, so nothing here is
 * keyed by descriptor. Used by http.c for libcurl's sockets; knows nothing of curl. */
#ifndef OB_WEBHOOK_WATCH_H
#define OB_WEBHOOK_WATCH_H

#include <stdbool.h>

#include <uv.h>

#include "base/err.h"

enum { WATCH_READ = 1, WATCH_WRITE = 2, WATCH_ERROR = 4 };

struct watch {
    uv_poll_t poll;
    int fd;
    int wanted; /* WATCH_READ | WATCH_WRITE */
    bool closing;
    void (*on_ready)(void *arg, int fd, int events); /* may call watch_close */
    void (*on_closed)(void *arg);                    /* the last thing that is heard of it */
    void *arg;
};

/* Watches fd for nothing yet. On failure nothing exists: UV_EEXIST, UV_EPERM, ..., OB_ENOMEM. */
int watch_new(uv_loop_t *loop, int fd, void (*on_ready)(void *arg, int fd, int events),
              void (*on_closed)(void *arg), void *arg, struct watch **ret_watch) OB_MUST_CHECK;
/* Sets what is waited for; several bits may be reported at once, WATCH_ERROR always. If the kernel
 * refuses (out of memory), nothing is reported: the owner has a deadline of its own. */
void watch_set(struct watch *w, int wanted);
/* Forgets fd at once. w stays readable until on_closed, which comes from the loop. */
void watch_close(struct watch *w);

#endif
