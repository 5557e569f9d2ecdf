/* pollset.c - see pollset.h. */
#include "webhook/pollset.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"

enum { EVENTS_PER_CALL = 128, CALLS_PER_TURN = 8 };

struct pollset_fd {
    unsigned char wanted;
    unsigned char armed; /* what the kernel waits for, POLL_*; 0: not in the set */
    bool is_announced;   /* we hear of its end: it may stay in the set while nobody wants it */
};

static struct pollset_fd *slot(struct pollset *p, int fd)
{
    size_t at = (size_t)fd;
    if (at >= p->fds_count) {
        size_t count = at + 64;
        struct pollset_fd *fds = ob_realloc(p->fds, count * sizeof *fds);
        if (fds == NULL)
            return NULL;
        memset(fds + p->fds_count, 0, (count - p->fds_count) * sizeof *fds);
        p->fds = fds;
        p->fds_count = count;
    }
    return &p->fds[at];
}

/* The kernel is told what to wait for. What it knows of the number may differ from what we think,
 * if a socket was closed behind our back: it says so, and the other call is the right one. */
static void arm(struct pollset *p, struct pollset_fd *s, int fd, unsigned char wanted)
{
    struct epoll_event event = {.data.fd = fd};
    event.events = ((wanted & POLL_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
                   ((wanted & POLL_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0);
    int op = s->armed != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int err = epoll_ctl(p->epoll_fd, op, fd, &event);
    if (err != 0 && (errno == ENOENT || errno == EEXIST)) {
        op = op == EPOLL_CTL_MOD ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        err = epoll_ctl(p->epoll_fd, op, fd, &event);
    }
    s->armed = err == 0 ? wanted : 0;
}

static void disarm(struct pollset *p, struct pollset_fd *s, int fd)
{
    if (s->armed != 0)
        (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL); /* closed meanwhile: not there */
    s->armed = 0;
}

void pollset_opened(struct pollset *p, int fd)
{
    struct pollset_fd *s = slot(p, fd);
    if (s != NULL)
        *s = (struct pollset_fd){.is_announced = true};
}

void pollset_closed(struct pollset *p, int fd)
{
    struct pollset_fd *s = slot(p, fd);
    if (s == NULL)
        return;
    disarm(p, s, fd);
    *s = (struct pollset_fd){0};
}

void pollset_set(struct pollset *p, int fd, int wanted)
{
    ob_assert(fd >= 0);
    ob_assert((wanted & ~(POLL_READ | POLL_WRITE)) == 0);
    struct pollset_fd *s = slot(p, fd);
    if (s == NULL)
        return;
    s->wanted = (unsigned char)wanted;
    if (wanted == 0 && !s->is_announced)
        disarm(p, s, fd);
    else if (wanted != 0 && (wanted != s->armed || !s->is_announced))
        arm(p, s, fd, (unsigned char)wanted);
}

static void handle(struct pollset *p, const struct epoll_event *event)
{
    int fd = event->data.fd;
    struct pollset_fd *s = slot(p, fd);
    ob_assert(s != NULL); /* it was there when it was armed */
    int events = 0;
    if (s->wanted == 0) { /* an idle connection that the other side ends */
        disarm(p, s, fd);
        return;
    }
    if ((event->events & EPOLLIN) != 0)
        events |= POLL_READ;
    if ((event->events & EPOLLOUT) != 0)
        events |= POLL_WRITE;
    if ((event->events & EPOLLHUP) != 0) /* whoever reads or writes finds out */
        events |= s->wanted;
    if ((event->events & EPOLLERR) != 0)
        events |= POLL_ERROR;
    p->on_ready(p->arg, fd, events);
}

static void on_poll(uv_poll_t *poll, int status, int uv_events)
{
    struct pollset *p = poll->data;
    struct epoll_event events[EVENTS_PER_CALL];
    (void)status; /* an epoll instance has no errors of its own */
    (void)uv_events;
    for (int call = 0; call < CALLS_PER_TURN; call++) {
        int n = epoll_wait(p->epoll_fd, events, EVENTS_PER_CALL, 0);
        for (int i = 0; i < n && p->close_cb == NULL; i++)
            handle(p, &events[i]);
        if (n < EVENTS_PER_CALL || p->close_cb != NULL)
            return;
    }
}

int pollset_open(struct pollset *p, uv_loop_t *loop,
                 void (*on_ready)(void *arg, int fd, int events), void *arg)
{
    memset(p, 0, sizeof *p);
    p->on_ready = on_ready;
    p->arg = arg;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0)
        return -errno;
    int err = uv_poll_init(loop, &p->poll, p->epoll_fd);
    if (err != 0) {
        (void)close(p->epoll_fd);
        return err;
    }
    p->poll.data = p;
    (void)uv_poll_start(&p->poll, UV_READABLE, on_poll); /* fails only on a closing handle */
    uv_unref((uv_handle_t *)&p->poll);                   /* kept connections keep no loop running */
    return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct pollset *p = handle->data;
    (void)close(p->epoll_fd);
    ob_free(p->fds);
    p->fds = NULL;
    p->fds_count = 0;
    p->close_cb(p);
}

void pollset_close(struct pollset *p, void (*cb)(struct pollset *p))
{
    ob_assert(p->close_cb == NULL);
    p->close_cb = cb;
    uv_close((uv_handle_t *)&p->poll, on_handle_closed);
}
