#define _GNU_SOURCE
/* spawn_client.c - see spawn_client.h. The only file that knows whether there is a spawner; starts
 * no other one by itself. */
#include "exec/spawn_client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "exec/descent.h"
#include "exec/spawn_wire.h"

enum {
    HELD_FDS_MAX = 4,
    SURVIVORS_WAIT_MS = 2,      /* between rounds of killing what a dead spawner left */
    SURVIVORS_ROUNDS_MAX = 500, /* a set-uid program that we may not signal is left to its end */
    CLOSE_WAIT_MS = 2000
};

struct spawn_handle {
    uint64_t id;
    struct spawn_callbacks callbacks;
    void *arg;
    int pidfd;
    uint64_t pending_signals; /* a bit a number: the socket was full */
};

enum client_state {
    CLIENT_UP,     /* link is there */
    CLIENT_LOSING, /* the spawner is dead; its descent is being killed by `timer` */
    CLIENT_DOWN    /* everybody was told; no link, no handle */
};

/* One spawner. Outlives its use until libuv has closed the watchers. */
struct link {
    struct spawn_client *client; /* NULL once the client has let go of it */
    pid_t pid;
    int fd;
    int pidfd;
    uv_poll_t replies;
    uv_poll_t exit;
    int open_watchers;
};

struct spawn_client {
    uv_loop_t *loop;
    enum client_state state;
    struct link *link;
    uv_timer_t timer; /* LOSING: rounds of killing; closing: the end of patience */
    int rounds;
    void (*on_lost)(void *arg);
    void *arg;
    bool is_closing;
    void (*close_cb)(void *arg);
    void *close_arg;
    uint64_t next_id;
    size_t handles_count;
    struct spawn_handle *handles[SPAWN_CHILDREN_MAX]; /* at id % SPAWN_CHILDREN_MAX */
    bool has_pending; /* signals or the deadline wait for room in the socket */
    bool is_deadline_pending;
    uint64_t deadline_ms;
    int held_fds[HELD_FDS_MAX]; /* duplicates, for the next spawner */
    size_t held_count;
    struct wire_message message;
};

static struct spawn_handle **slot_of(struct spawn_client *c, uint64_t id)
{
    return &c->handles[id % SPAWN_CHILDREN_MAX];
}

static void handle_free(struct spawn_client *c, struct spawn_handle *handle)
{
    ob_assert(*slot_of(c, handle->id) == handle);
    *slot_of(c, handle->id) = NULL;
    c->handles_count--;
    if (handle->pidfd >= 0)
        (void)close(handle->pidfd);
    ob_free(handle);
}

/* 0, UV_EAGAIN when there is no room, OB_ESPAWN when nobody listens (its exit is seen elsewhere).
 */
static int send_message(struct spawn_client *c, const void *bytes, size_t len, const int *fds,
                        size_t fds_count)
{
    if (c->state != CLIENT_UP)
        return OB_ESPAWN;
    int err = wire_send(c->link->fd, bytes, len, fds, fds_count);
    return err == 0 || err == UV_EAGAIN ? err : OB_ESPAWN;
}

static int send_signal(struct spawn_client *c, const struct spawn_handle *handle, int signum)
{
    struct spawn_msg m = {.op = SPAWN_MSG_KILL, .id = handle->id, .signum = signum};
    return send_message(c, &m, sizeof m, NULL, 0);
}

static int send_deadline(struct spawn_client *c)
{
    struct spawn_msg m = {.op = SPAWN_MSG_DEADLINE, .boot_ms = c->deadline_ms};
    return send_message(c, &m, sizeof m, NULL, 0);
}

static void on_replies(uv_poll_t *poll, int status, int events);

static void watch_socket(struct spawn_client *c)
{
    int events = UV_READABLE | (c->has_pending ? UV_WRITABLE : 0);
    int err = uv_poll_start(&c->link->replies, events, on_replies);
    ob_assert(err == 0); /* fails only for a closing handle */
}

/* Something found no room: again when there is some. */
static void set_pending(struct spawn_client *c)
{
    c->has_pending = true;
    watch_socket(c);
}

static void flush_pending(struct spawn_client *c)
{
    if (c->is_deadline_pending) {
        if (send_deadline(c) == UV_EAGAIN)
            return;
        c->is_deadline_pending = false;
    }
    for (size_t i = 0; i < SPAWN_CHILDREN_MAX; i++) {
        struct spawn_handle *handle = c->handles[i];
        for (int signum = 1; handle != NULL && handle->pending_signals != 0; signum++) {
            uint64_t bit = UINT64_C(1) << (signum - 1);
            if ((handle->pending_signals & bit) == 0)
                continue;
            if (send_signal(c, handle, signum) == UV_EAGAIN)
                return;
            handle->pending_signals &= ~bit;
        }
    }
    c->has_pending = false;
    watch_socket(c);
}

static void handle_reply(struct spawn_client *c, const struct spawn_reply *reply, int pidfd)
{
    struct spawn_handle *handle = *slot_of(c, reply->id);
    ob_assert(handle != NULL && handle->id == reply->id);
    const struct spawn_callbacks callbacks = handle->callbacks;
    void *arg = handle->arg;
    if (reply->op == SPAWN_REPLY_STARTED) {
        ob_assert(handle->pidfd < 0);
        handle->pidfd = pidfd;
        callbacks.on_started(arg, (pid_t)reply->pid, pidfd);
        return;
    }
    ob_assert(pidfd < 0);
    handle_free(c, handle);
    if (reply->op == SPAWN_REPLY_FAILED)
        callbacks.on_failed(arg, spawn_stage_name(reply->stage), reply->errnum);
    else
        callbacks.on_exit(arg, reply->wait_status);
}

/* One message. False: none is there, or the other side has closed. */
static bool read_replies(struct spawn_client *c)
{
    struct spawn_reply replies[SPAWN_REPLIES_MAX];
    int fds[WIRE_FDS_MAX];
    size_t fds_count;
    ssize_t n = wire_receive(c->link->fd, replies, sizeof replies, fds, &fds_count);
    if (n == UV_EAGAIN)
        return false;
    if (n <= 0) {
        (void)uv_poll_stop(&c->link->replies); /* end of file stays readable */
        return false;
    }
    size_t count = (size_t)n / sizeof replies[0];
    ob_assert((size_t)n == count * sizeof replies[0] && (fds_count == 0 || count == 1));
    for (size_t i = 0; i < count; i++)
        handle_reply(c, &replies[i], fds_count > 0 ? fds[0] : -1);
    return true;
}

static void on_replies(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    struct spawn_client *c = link->client;
    ob_assert(c != NULL && c->state == CLIENT_UP);
    (void)status; /* an error is read from the socket */
    if ((events & UV_WRITABLE) != 0 && c->has_pending)
        flush_pending(c);
    /* One message: whatever else is there brings us back here at once, and mostly nothing is. */
    (void)read_replies(c);
}

static void on_watcher_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    if (--link->open_watchers == 0)
        ob_free(link);
}

static void link_close(struct link *link)
{
    link->client = NULL;
    uv_close((uv_handle_t *)&link->replies, on_watcher_closed);
    uv_close((uv_handle_t *)&link->exit, on_watcher_closed);
    (void)close(link->fd);
    (void)close(link->pidfd);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct spawn_client *c = handle->data;
    void (*cb)(void *arg) = c->close_cb;
    void *arg = c->close_arg;
    for (size_t i = 0; i < c->held_count; i++)
        (void)close(c->held_fds[i]);
    ob_free(c);
    if (cb != NULL)
        cb(arg);
}

/* Everything of the spawner is gone. Tells those who wait, last the owner. */
static void tell_lost(struct spawn_client *c)
{
    ob_assert(c->state == CLIENT_LOSING);
    for (size_t i = 0; i < SPAWN_CHILDREN_MAX && c->handles_count > 0; i++) {
        struct spawn_handle *handle = c->handles[i];
        if (handle == NULL)
            continue;
        const struct spawn_callbacks callbacks = handle->callbacks;
        void *arg = handle->arg;
        handle_free(c, handle);
        callbacks.on_exit(arg, SPAWN_EXIT_LOST);
    }
    c->state = CLIENT_DOWN;
    if (c->is_closing)
        uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    else
        c->on_lost(c->arg);
}

/* Its children died with the spawner (PDEATHSIG); what had double-forked came to us, their
 * subreaper. */
static void on_losing(uv_timer_t *timer)
{
    struct spawn_client *c = timer->data;
    ob_assert(c->state == CLIENT_LOSING);
    if (descent_kill(true) > 0 && ++c->rounds < SURVIVORS_ROUNDS_MAX)
        return;
    (void)uv_timer_stop(timer);
    tell_lost(c);
}

/* Reads what the spawner still said, and goes on without it. */
static void lose_link(struct spawn_client *c)
{
    ob_assert(c->state == CLIENT_UP);
    struct link *link = c->link;
    while (read_replies(c))
        ;
    c->state = CLIENT_LOSING;
    c->link = NULL;
    link_close(link);
    c->rounds = 0;
    int err = uv_timer_start(&c->timer, on_losing, 0, SURVIVORS_WAIT_MS);
    ob_assert(err == 0);
}

static void on_spawner_exit(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    (void)status;
    (void)events;
    ob_assert(link->client != NULL);
    if (waitpid(link->pid, NULL, WNOHANG) !=
        0) /* ECHILD: reaped by somebody else, it is gone too */
        lose_link(link->client);
}

static int send_hold(struct spawn_client *c, int fd)
{
    struct spawn_msg m = {.op = SPAWN_MSG_HOLD};
    return send_message(c, &m, sizeof m, &fd, 1);
}

/* Takes over the spawner's descriptor. On failure it is closed, which ends the spawner. */
static int link_open(struct spawn_client *c, const struct spawner *spawner)
{
    struct link *link = ob_calloc(1, sizeof *link);
    int pidfd = (int)syscall(SYS_pidfd_open, spawner->pid, 0U);
    int err = link == NULL ? OB_ENOMEM : pidfd < 0 ? -errno : 0;
    if (err == 0) {
        *link = (struct link){.client = c,
                              .pid = spawner->pid,
                              .fd = spawner->fd,
                              .pidfd = pidfd,
                              .open_watchers = 2};
        link->replies.data = link;
        link->exit.data = link;
        /* Can't fail: both descriptors are new to the loop and can be polled. */
        err = uv_poll_init(c->loop, &link->replies, link->fd);
        ob_assert(err == 0);
        err = uv_poll_init(c->loop, &link->exit, pidfd);
        ob_assert(err == 0);
        err = uv_poll_start(&link->exit, UV_READABLE, on_spawner_exit);
        ob_assert(err == 0);
        c->link = link;
        c->state = CLIENT_UP;
        watch_socket(c);
        return 0;
    }
    ob_free(link);
    if (pidfd >= 0)
        (void)close(pidfd);
    (void)close(spawner->fd);
    (void)waitpid(spawner->pid, NULL, 0);
    return err;
}

int spawn_client_new(uv_loop_t *loop, const struct spawner *spawner, void (*on_lost)(void *arg),
                     void *arg, struct spawn_client **ret_client)
{
    /* If the spawner is killed, what it adopted comes to us, to be killed too. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return -errno;
    struct spawn_client *c = ob_calloc(1, sizeof *c);
    if (c == NULL)
        return OB_ENOMEM;
    c->loop = loop;
    c->on_lost = on_lost;
    c->arg = arg;
    c->state = CLIENT_DOWN;
    int err = link_open(c, spawner);
    if (err != 0) {
        ob_free(c);
        return err;
    }
    (void)uv_timer_init(loop, &c->timer); /* never fails */
    c->timer.data = c;
    *ret_client = c;
    return 0;
}

int spawn_client_restart(struct spawn_client *c)
{
    ob_assert(c->state == CLIENT_DOWN && !c->is_closing);
    struct spawner spawner;
    int err = spawner_fork(&spawner);
    if (err == 0)
        err = link_open(c, &spawner);
    if (err != 0)
        return err;
    c->has_pending = false;
    c->is_deadline_pending = false;
    for (size_t i = 0; i < c->held_count && err == 0; i++)
        err = send_hold(c, c->held_fds[i]);
    /* A deadline that has passed has done its work; it would only end the new one too. */
    if (c->deadline_ms <= clock_boot_ms())
        c->deadline_ms = 0;
    if (err == 0 && c->deadline_ms != 0)
        err = send_deadline(c);
    ob_assert(err == 0 ||
              err == OB_ESPAWN); /* an empty socket has room; dead again: on_lost again */
    return 0;
}

static void on_close_timeout(uv_timer_t *timer)
{
    struct spawn_client *c = timer->data;
    /* It waits for something that it may not kill. It goes on doing so when we are gone. */
    struct link *link = c->link;
    c->link = NULL;
    c->state = CLIENT_LOSING;
    link_close(link);
    tell_lost(c);
}

void spawn_client_close(struct spawn_client *c, void (*cb)(void *arg), void *arg)
{
    ob_assert(!c->is_closing);
    c->is_closing = true;
    c->close_cb = cb;
    c->close_arg = arg;
    if (c->state == CLIENT_DOWN) {
        uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    } else if (c->state == CLIENT_UP) {
        (void)shutdown(c->link->fd, SHUT_RDWR); /* end of file: it kills everything and exits */
        int err = uv_timer_start(&c->timer, on_close_timeout, CLOSE_WAIT_MS, 0);
        ob_assert(err == 0);
    } /* else on_losing goes on */
}

int spawn_client_spawn(struct spawn_client *c, const struct spawn_request *request,
                       const struct spawn_callbacks *callbacks, void *arg,
                       struct spawn_handle **ret_handle)
{
    ob_assert(request->argv[0] != NULL);
    if (c->state != CLIENT_UP || c->is_closing)
        return OB_ESPAWN;
    if (c->handles_count == SPAWN_CHILDREN_MAX || c->has_pending)
        return UV_EAGAIN;
    while (*slot_of(c, c->next_id) != NULL)
        c->next_id++;
    int fds[WIRE_FDS_MAX];
    size_t fds_count;
    size_t len = wire_pack_spawn(request, c->next_id, &c->message, fds, &fds_count);
    if (len == 0)
        return OB_ETOOBIG;
    struct spawn_handle *handle = ob_calloc(1, sizeof *handle);
    if (handle == NULL)
        return OB_ENOMEM;
    int err = send_message(c, c->message.bytes, len, fds, fds_count);
    if (err != 0) {
        ob_free(handle);
        return err;
    }
    *handle =
        (struct spawn_handle){.id = c->next_id++, .callbacks = *callbacks, .arg = arg, .pidfd = -1};
    *slot_of(c, handle->id) = handle;
    c->handles_count++;
    *ret_handle = handle;
    return 0;
}

void spawn_client_kill(struct spawn_client *c, struct spawn_handle *handle, int signum)
{
    ob_assert(signum > 0 && signum <= 64);
    if (send_signal(c, handle, signum) == UV_EAGAIN) {
        handle->pending_signals |= UINT64_C(1) << (signum - 1);
        set_pending(c);
    }
}

void spawn_client_set_deadline(struct spawn_client *c, uint64_t boot_ms)
{
    c->deadline_ms = boot_ms;
    if (send_deadline(c) == UV_EAGAIN) {
        c->is_deadline_pending = true;
        set_pending(c);
    }
}

/* The same file as before: the lock of a name is told of at every reconnect. */
static bool is_held(const struct spawn_client *c, int fd)
{
    struct stat given;
    struct stat held;
    for (size_t i = 0; i < c->held_count; i++) {
        if (fstat(fd, &given) == 0 && fstat(c->held_fds[i], &held) == 0 &&
            given.st_dev == held.st_dev && given.st_ino == held.st_ino)
            return true;
    }
    return false;
}

int spawn_client_hold_fd(struct spawn_client *c, int fd)
{
    if (is_held(c, fd))
        return 0;
    if (c->held_count == HELD_FDS_MAX)
        return OB_ETOOBIG;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    int err = send_hold(c, copy);
    if (err != 0 && err != OB_ESPAWN) { /* without a spawner: the next one gets it */
        (void)close(copy);
        return err;
    }
    c->held_fds[c->held_count++] = copy;
    return 0;
}

pid_t spawn_client_pid(const struct spawn_client *c)
{
    return c->link != NULL ? c->link->pid : -1;
}
