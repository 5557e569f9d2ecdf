#define _GNU_SOURCE
/* io.c - a worker's three pipes: frames out, replies and standard error in. Decides nothing about
 * jobs: lines go to process.c. See private.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "worker/private.h"

enum {
    READS_PER_TURN = 4,            /* then other descriptors have their turn */
    DRAIN_BYTES_MAX = 1024 * 1024, /* after the exit: what the largest pipe can hold */
    OUTPUT_KEPT_MAX = 256 * 1024   /* memory that is kept when all is written */
};

static void on_in(uv_poll_t *poll, int status, int events);
static void on_out(uv_poll_t *poll, int status, int events);
static void on_err(uv_poll_t *poll, int status, int events);

static void on_stream_closed(uv_handle_t *handle)
{
    struct process *p = handle->data;
    if (--p->open_handles > 0 || p->state != PROCESS_OVER)
        return;
    struct pool *pool = p->pool;
    buf_deinit(&p->output);
    buf_deinit(&p->partial);
    capture_deinit(&p->err_tail);
    ob_free(p);
    executor_process_freed(pool);
}

static void stream_close(struct stream *s)
{
    if (s->fd < 0)
        return;
    uv_close((uv_handle_t *)&s->poll, on_stream_closed);
    (void)close(s->fd);
    s->fd = -1;
}

static int stream_open(struct process *p, struct stream *s, bool we_write, int *ret_child_fd)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    int ours = we_write ? 1 : 0;
    int err = 0;
    if (fcntl(fds[ours], F_SETFL, O_NONBLOCK) != 0) /* ours alone: programs expect blocking pipes */
        err = -errno;
    if (err == 0)
        err = uv_poll_init(p->pool->ex->base.loop, &s->poll, fds[ours]);
    if (err != 0) {
        (void)close(fds[0]);
        (void)close(fds[1]);
        return err;
    }
    s->fd = fds[ours];
    s->poll.data = p;
    p->open_handles++;
    *ret_child_fd = fds[1 - ours];
    return 0;
}

int io_open(struct process *p, int ret_child_fds[3])
{
    for (int i = 0; i < 3; i++)
        ret_child_fds[i] = -1;
    int err = stream_open(p, &p->in, true, &ret_child_fds[0]);
    if (err == 0)
        err = stream_open(p, &p->out, false, &ret_child_fds[1]);
    if (err == 0)
        err = stream_open(p, &p->err, false, &ret_child_fds[2]);
    if (err != 0)
        return err;
    err = uv_poll_start(&p->out.poll, UV_READABLE, on_out);
    ob_assert(err == 0); /* fails only for closing handles, like the next */
    err = uv_poll_start(&p->err.poll, UV_READABLE, on_err);
    ob_assert(err == 0);
    return 0;
}

void io_close(struct process *p)
{
    ob_assert(p->state == PROCESS_OVER);
    if (p->open_handles == 0) { /* not even the first pipe was to be had: as if one was closed */
        struct pool *pool = p->pool;
        ob_free(p);
        executor_process_freed(pool);
        return;
    }
    stream_close(&p->in);
    stream_close(&p->out);
    stream_close(&p->err);
}

/* ---- to the worker ---- */

void io_close_in(struct process *p)
{
    stream_close(&p->in);
    buf_clear(&p->output);
    p->output_pos = 0;
}

static void written(struct process *p)
{
    p->output_pos = 0;
    if (p->output.cap > OUTPUT_KEPT_MAX) {
        buf_deinit(&p->output);
        buf_init(&p->output, SIZE_MAX);
    } else {
        buf_clear(&p->output);
    }
    if (p->in_wants_close)
        io_close_in(p);
    else
        (void)uv_poll_stop(&p->in.poll);
}

void io_flush(struct process *p)
{
    if (p->in.fd < 0)
        return;
    while (p->output_pos < p->output.len) {
        ssize_t n = write(p->in.fd, p->output.data + p->output_pos, p->output.len - p->output_pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            int err = uv_poll_start(&p->in.poll, UV_WRITABLE, on_in);
            ob_assert(err == 0);
            return;
        }
        if (n < 0) { /* EPIPE: it reads no more; usually it is about to exit */
            io_close_in(p);
            p->due_ms = uv_now(p->pool->ex->base.loop) + WORKER_MUTE_MS;
            executor_arm(p->pool->ex, p->due_ms);
            return;
        }
        p->output_pos += (size_t)n;
    }
    written(p);
}

static void on_in(uv_poll_t *poll, int status, int events)
{
    (void)status; /* an error is met by the write */
    (void)events;
    io_flush(poll->data);
}

/* ---- from the worker: replies ---- */

/* The lines of the executor's buffer, n bytes of it, are handled; what has no end yet is kept. */
static void take_lines(struct process *p, char *bytes, size_t n)
{
    char *end = bytes + n;
    while (!process_is_mute(p)) {
        char *line_end = memchr(bytes, '\n', (size_t)(end - bytes));
        if (line_end == NULL)
            break;
        process_handle_line(p, bytes, (size_t)(line_end - bytes));
        bytes = line_end + 1;
    }
    if (process_is_mute(p))
        return;
    size_t rest = (size_t)(end - bytes);
    if (rest >= REPLY_LINE_MAX) {
        process_fail_protocol(p, "a line of more than 64 KiB", bytes, rest);
        return;
    }
    buf_clear(&p->partial);
    buf_append(&p->partial, bytes, rest);
    if (p->partial.err != 0)
        process_fail_protocol(p, "no memory for its line", bytes, rest);
}

/* Reads once. False: nothing is there, or nothing will come. */
static bool read_replies(struct process *p)
{
    char *buffer = p->pool->ex->read_buffer;
    size_t kept = p->partial.len;
    ob_assert(kept < REPLY_LINE_MAX);
    if (kept > 0)
        memcpy(buffer, p->partial.data, kept);
    ssize_t n = 0;
    do {
        n = read(p->out.fd, buffer + kept, REPLY_LINE_MAX);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        if (n == 0 && p->state != PROCESS_OVER) { /* it can tell nothing any more */
            (void)uv_poll_stop(&p->out.poll);
            p->due_ms = uv_now(p->pool->ex->base.loop) + WORKER_MUTE_MS;
            executor_arm(p->pool->ex, p->due_ms);
        }
        return false;
    }
    if (!process_is_mute(p))
        take_lines(p, buffer, kept + (size_t)n);
    return n == REPLY_LINE_MAX;
}

static void on_out(uv_poll_t *poll, int status, int events)
{
    struct process *p = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < READS_PER_TURN && read_replies(p); i++)
        ;
}

/* ---- from the worker: standard error ---- */

static void on_err_line(void *arg, const char *text)
{
    struct process *p = arg;
    uint64_t suppressed = 0;
    if (!line_rate_allows(&p->pool->rate, uv_now(p->pool->ex->base.loop), &suppressed))
        return;
    const struct worker_event event = {
        .kind = WORKER_STDERR, .pid = p->pid, .text = text, .suppressed = suppressed};
    executor_tell(p->pool, &event);
}

static bool read_err(struct process *p)
{
    char *buffer = p->pool->ex->read_buffer;
    ssize_t n = 0;
    do {
        n = read(p->err.fd, buffer, sizeof p->pool->ex->read_buffer);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        (void)uv_poll_stop(&p->err.poll); /* end of file stays readable; it ends nothing else */
    if (n <= 0)
        return false;
    capture_add(&p->err_tail, buffer, (size_t)n);
    err_line_add(&p->line, buffer, (size_t)n, on_err_line, p);
    return true;
}

static void on_err(uv_poll_t *poll, int status, int events)
{
    struct process *p = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < READS_PER_TURN && read_err(p); i++)
        ;
}

void io_drain(struct process *p)
{
    size_t reads = DRAIN_BYTES_MAX / REPLY_LINE_MAX;
    if (p->out.fd >= 0) {
        for (size_t i = 0; i < reads && read_replies(p); i++)
            ;
    }
    if (p->err.fd < 0)
        return;
    for (size_t i = 0; i < reads && read_err(p); i++)
        ;
    err_line_end(&p->line, on_err_line, p);
}
