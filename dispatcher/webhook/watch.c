/* watch.c - see watch.h. */
#include "webhook/watch.h"

#include "base/assert.h"
#include "base/mem.h"

static void on_poll(uv_poll_t *poll, int status, int uv_events);

static void start(struct watch *w)
{
    int events = 0;
    if ((w->wanted & WATCH_READ) != 0)
        events |= UV_READABLE;
    if ((w->wanted & WATCH_WRITE) != 0)
        events |= UV_WRITABLE;
    if (events == 0)
        (void)uv_poll_stop(&w->poll);
    else
        (void)uv_poll_start(&w->poll, events, on_poll);
}

static void on_poll(uv_poll_t *poll, int status, int uv_events)
{
    struct watch *w = poll->data;
    ob_assert(!w->closing);
    int events = 0;
    if ((uv_events & UV_READABLE) != 0)
        events |= WATCH_READ;
    if ((uv_events & UV_WRITABLE) != 0)
        events |= WATCH_WRITE;
    if (status < 0)
        events |= WATCH_ERROR;
    w->on_ready(w->arg, w->fd, events);
    /* libuv stops the handle when it reports an error (POLLERR comes as UV_EBADF, src/unix/poll.c).
     * Who still wants the socket would otherwise never hear of it again. */
    if (status < 0 && !w->closing)
        start(w);
}

int watch_new(uv_loop_t *loop, int fd, void (*on_ready)(void *arg, int fd, int events),
              void (*on_closed)(void *arg), void *arg, struct watch **ret_watch)
{
    struct watch *w = ob_calloc(1, sizeof *w);
    if (w == NULL)
        return OB_ENOMEM;
    w->fd = fd;
    w->on_ready = on_ready;
    w->on_closed = on_closed;
    w->arg = arg;
    w->poll.data = w;
    int err = uv_poll_init_socket(loop, &w->poll, fd);
    if (err != 0) {
        ob_free(w); /* a handle whose init failed is in no list of the loop */
        return err;
    }
    *ret_watch = w;
    return 0;
}

void watch_set(struct watch *w, int wanted)
{
    ob_assert(!w->closing);
    ob_assert((wanted & ~(WATCH_READ | WATCH_WRITE)) == 0);
    w->wanted = wanted;
    start(w);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    void (*on_closed)(void *arg) = w->on_closed;
    void *arg = w->arg;
    ob_free(w);
    on_closed(arg);
}

void watch_close(struct watch *w)
{
    ob_assert(!w->closing);
    w->closing = true;
    uv_close((uv_handle_t *)&w->poll, on_handle_closed); /* takes fd out of the poll set at once */
}
