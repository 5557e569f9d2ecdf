/* pollset.h - many sockets of somebody else on the loop, by one epoll instance of our own that the
 * loop watches: a change of what is waited for costs one system call at most, and a socket that is
 * let go and wanted again costs none (a uv_poll_t costs five each time).
 *
 * For that the owner tells when a socket is opened and closed: the kernel takes closed ones out of
 * the set by itself. Sockets that it is not told of are taken out when they are let go. Used by
 * multi.c for libcurl's sockets; knows nothing of curl. */
#ifndef OB_WEBHOOK_POLLSET_H
#define OB_WEBHOOK_POLLSET_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "base/err.h"

enum { POLL_READ = 1, POLL_WRITE = 2, POLL_ERROR = 4 };

struct pollset {
    uv_poll_t poll;
    int epoll_fd;
    struct pollset_fd *fds; /* by descriptor */
    size_t fds_count;
    void (*on_ready)(void *arg, int fd, int events);
    void *arg;
    void (*close_cb)(struct pollset *p);
};

/* on_ready: one is ready for some of what is waited for, or POLL_ERROR. It may be called for a
 * socket that was closed a moment ago and whose number is another's now. Fails as epoll_create1
 * and uv_poll_init do. */
int pollset_open(struct pollset *p, uv_loop_t *loop,
                 void (*on_ready)(void *arg, int fd, int events), void *arg) OB_MUST_CHECK;
void pollset_close(struct pollset *p, void (*cb)(struct pollset *p));

/* fd was just opened, and pollset_closed will be called before it is closed. */
void pollset_opened(struct pollset *p, int fd);
void pollset_closed(struct pollset *p, int fd);
/* What is waited for: POLL_READ and POLL_WRITE; 0: nothing any more. If the kernel refuses (out of
 * memory), nothing is reported: the owner has a deadline of its own. */
void pollset_set(struct pollset *p, int fd, int wanted);

#endif
