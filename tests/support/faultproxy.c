/* A proxy that fails on command: one child, one poll loop. */
#define _GNU_SOURCE
#include "faultproxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"

enum { LINKS_MAX = 64, BUFFER = 16384, COMMAND_MS = 10000 };

enum action {
    PASS,
    STALL,
    CUT,
    RESET,
    REFUSE,
    HALF_CLOSE,
    HOLD_SYNCS,
    LET_SYNCS_GO,
    ABANDON,
    DELIVER
};
struct order {
    enum action action;
    size_t bytes;
};

struct pipe_end { /* bytes on their way from one side to the other */
    char data[BUFFER];
    size_t len;
    bool ended; /* the source has said all */
    bool shut;  /* and the sink was told */
};

struct framing {   /* where in the client's messages the bytes that may pass end */
    size_t passed; /* of up.data */
    size_t body_left;
    unsigned char header[5];
    size_t header_len;
    bool is_typed; /* the startup message, which has no type, is over */
    bool is_held;  /* at a Sync */
    bool let_one_go;
};

struct link {
    int client;           /* -1: free, or abandoned */
    int server;           /* -1: free */
    struct pipe_end up;   /* client to server */
    struct pipe_end down; /* server to client */
    struct framing framing;
};

static struct {
    struct link links[LINKS_MAX];
    struct sockaddr_storage target;
    socklen_t target_len;
    enum action mode; /* PASS, STALL, REFUSE or HOLD_SYNCS */
    bool is_cutting;
    size_t cut_left; /* bytes from the servers until the cut */
} proxy;

static bool is_free(const struct link *l)
{
    return l->client < 0 && l->server < 0;
}

static void link_close(struct link *l, bool with_reset)
{
    if (l->client < 0)
        return;
    if (with_reset) {
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(l->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        (void)setsockopt(l->server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    (void)close(l->client);
    (void)close(l->server);
    l->client = -1;
    l->server = -1;
}

static void close_all(bool with_reset)
{
    for (size_t i = 0; i < LINKS_MAX; i++)
        link_close(&proxy.links[i], with_reset);
}

static void set_target(const char *target)
{
    if (target[0] == '/') {
        struct sockaddr_un *un = (struct sockaddr_un *)&proxy.target;
        un->sun_family = AF_UNIX;
        (void)snprintf(un->sun_path, sizeof un->sun_path, "%s", target);
        proxy.target_len = sizeof *un;
        return;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)&proxy.target;
    const char *colon = strchr(target, ':');
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in->sin_port = htons((uint16_t)strtol(colon != NULL ? colon + 1 : target, NULL, 10));
    proxy.target_len = sizeof *in;
}

static void accept_one(int listen_fd)
{
    int client = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0)
        return;
    struct link *l = NULL;
    for (size_t i = 0; i < LINKS_MAX && l == NULL; i++)
        if (is_free(&proxy.links[i]))
            l = &proxy.links[i];
    int server = socket(proxy.target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (proxy.mode == REFUSE || l == NULL || server < 0 ||
        connect(server, (struct sockaddr *)&proxy.target, proxy.target_len) != 0) {
        (void)close(client);
        if (server >= 0)
            (void)close(server);
        return;
    }
    (void)fcntl(server, F_SETFL, O_NONBLOCK);
    *l = (struct link){.client = client, .server = server};
}

/* Takes what is there; from the server no more than may pass before the cut. False: the source
 * failed. */
static bool fill(struct pipe_end *p, int from, bool is_server)
{
    size_t room = BUFFER - p->len;
    if (is_server && proxy.is_cutting && proxy.cut_left < room)
        room = proxy.cut_left;
    if (room == 0)
        return true;
    ssize_t n = recv(from, p->data + p->len, room, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        p->ended = true;
    p->len += (size_t)n;
    if (is_server && proxy.is_cutting)
        proxy.cut_left -= (size_t)n;
    return true;
}

/* Sends at most so many bytes of it. */
static bool drain(struct pipe_end *p, int to, size_t most)
{
    while (most > 0) {
        ssize_t n = send(to, p->data, most, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->len -= (size_t)n;
        most -= (size_t)n;
        memmove(p->data, p->data + n, p->len);
    }
    if (p->ended && !p->shut && p->len == 0) {
        (void)shutdown(to, SHUT_WR);
        p->shut = true;
    }
    return true;
}

/* The length that a complete header tells, without the length itself. */
static size_t body_bytes(const struct framing *f)
{
    const unsigned char *at = f->header + f->header_len - 4;
    return ((size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3]) - 4;
}

/* Follows the client's messages (type, length, body), up to the Sync that is held if there is one.
 * Other protocols come to no harm: nothing is held for them. */
static void frame(struct link *l)
{
    struct framing *f = &l->framing;
    f->is_held = false;
    while (f->passed < l->up.len && !f->is_held) {
        size_t left = l->up.len - f->passed;
        if (f->body_left > 0) {
            size_t n = f->body_left < left ? f->body_left : left;
            f->passed += n;
            f->body_left -= n;
            continue;
        }
        bool is_sync = f->is_typed && f->header_len == 0 && l->up.data[f->passed] == 'S';
        if (is_sync && proxy.mode == HOLD_SYNCS && !f->let_one_go) {
            f->is_held = true;
            continue;
        }
        if (is_sync)
            f->let_one_go = false;
        f->header[f->header_len++] = (unsigned char)l->up.data[f->passed++];
        if (f->header_len == (f->is_typed ? 5U : 4U)) {
            f->body_left = body_bytes(f);
            f->header_len = 0;
            f->is_typed = true;
        }
    }
}

static bool drain_up(struct link *l)
{
    frame(l);
    size_t before = l->up.len;
    bool ok = drain(&l->up, l->server, l->framing.passed);
    l->framing.passed -= before - l->up.len;
    return ok;
}

static void link_move(struct link *l, short client_events, short server_events)
{
    bool ok = true;
    if ((client_events & (POLLIN | POLLHUP | POLLERR)) != 0 && !l->up.ended)
        ok = fill(&l->up, l->client, false);
    if (ok && (server_events & (POLLIN | POLLHUP | POLLERR)) != 0 && !l->down.ended)
        ok = fill(&l->down, l->server, true);
    ok = ok && drain_up(l) && drain(&l->down, l->client, l->down.len);
    if (!ok || (l->up.shut && l->down.shut))
        link_close(l, !ok);
}

/* The cut comes once the last byte that may pass has left. */
static void cut_if_due(void)
{
    if (!proxy.is_cutting || proxy.cut_left > 0)
        return;
    for (size_t i = 0; i < LINKS_MAX; i++)
        if (proxy.links[i].client >= 0 && proxy.links[i].down.len > 0)
            return;
    close_all(false);
    proxy.is_cutting = false;
}

static void half_close(struct link *l)
{
    if (l->client < 0)
        return;
    (void)shutdown(l->client, SHUT_WR);
    l->down.len = 0; /* what the server still says is not passed on */
    l->down.ended = true;
    l->down.shut = true;
}

/* Returns how many were held. */
static size_t let_syncs_go(void)
{
    size_t n = 0;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct link *l = &proxy.links[i];
        if (l->client < 0 || !l->framing.is_held)
            continue;
        n++;
        l->framing.let_one_go = true;
        if (!drain_up(l))
            link_close(l, true);
    }
    return n;
}

static void abandon(void)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct link *l = &proxy.links[i];
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        if (l->client < 0)
            continue;
        (void)setsockopt(l->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        (void)close(l->client);
        l->client = -1;
    }
}

/* What the server says to it nobody hears. */
static void deliver(void)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct link *l = &proxy.links[i];
        if (l->client >= 0 || l->server < 0)
            continue;
        (void)drain(&l->up, l->server, l->up.len);
        (void)shutdown(l->server, SHUT_WR);
    }
}

static size_t obey(const struct order *o)
{
    switch (o->action) {
    case PASS:
    case STALL:
    case REFUSE:
    case HOLD_SYNCS:
        proxy.mode = o->action;
        if (o->action == PASS)
            (void)let_syncs_go();
        break;
    case LET_SYNCS_GO:
        return let_syncs_go();
    case ABANDON:
        abandon();
        break;
    case DELIVER:
        deliver();
        break;
    case CUT:
        proxy.is_cutting = true;
        proxy.cut_left = o->bytes;
        cut_if_due();
        break;
    case RESET:
        close_all(true);
        break;
    case HALF_CLOSE:
        for (size_t i = 0; i < LINKS_MAX; i++)
            half_close(&proxy.links[i]);
        break;
    }
    return 0;
}

/* Of the source of one direction; out_len bytes of the other one may be sent there. */
static short interest(const struct pipe_end *in, size_t out_len)
{
    short events = 0;
    if (!in->ended && in->len < BUFFER)
        events |= POLLIN;
    if (out_len > 0)
        events |= POLLOUT;
    return events;
}

static void proxy_loop(int listen_fd, int control_fd)
{
    for (;;) {
        struct pollfd polls[2 + 2 * LINKS_MAX] = {{control_fd, POLLIN, 0}, {listen_fd, POLLIN, 0}};
        for (size_t i = 0; i < LINKS_MAX; i++) {
            struct link *l = &proxy.links[i];
            bool idle = l->client < 0 || proxy.mode == STALL;
            short client_events = idle ? 0 : interest(&l->up, l->down.len);
            short server_events = idle ? 0 : interest(&l->down, l->framing.passed);
            /* With nothing to ask for, a hang-up would be told again and again. */
            polls[2 + 2 * i] =
                (struct pollfd){client_events != 0 ? l->client : -1, client_events, 0};
            polls[3 + 2 * i] =
                (struct pollfd){server_events != 0 ? l->server : -1, server_events, 0};
        }
        (void)poll(polls, 2 + 2 * LINKS_MAX, -1);
        if (polls[0].revents != 0) {
            struct order o;
            if (recv(control_fd, &o, sizeof o, 0) != sizeof o)
                _exit(0);
            size_t answer = obey(&o);
            (void)send(control_fd, &answer, sizeof answer, MSG_NOSIGNAL);
            continue; /* what poll said may be out of date */
        }
        for (size_t i = 0; i < LINKS_MAX; i++) {
            struct link *l = &proxy.links[i];
            if (l->client >= 0 && (polls[2 + 2 * i].revents | polls[3 + 2 * i].revents) != 0)
                link_move(l, polls[2 + 2 * i].revents, polls[3 + 2 * i].revents);
        }
        cut_if_due();
        if (polls[1].revents != 0)
            accept_one(listen_fd);
    }
}

void faultproxy_start(struct faultproxy *p, const char *target)
{
    int pair[2];
    int listen_fd = listen_loopback(&p->port);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    p->pid = child_fork(SIGKILL);
    if (p->pid == 0) {
        (void)close(pair[0]);
        (void)signal(SIGPIPE, SIG_IGN);
        set_target(target);
        for (size_t i = 0; i < LINKS_MAX; i++)
            proxy.links[i].client = proxy.links[i].server = -1;
        proxy_loop(listen_fd, pair[1]);
    }
    (void)close(pair[1]);
    (void)close(listen_fd);
    p->control_fd = pair[0];
}

void faultproxy_stop(struct faultproxy *p)
{
    (void)close(p->control_fd);
    child_kill(p->pid);
    p->pid = -1;
}

/* Returns once it is done. */
static size_t order(struct faultproxy *p, enum action action, size_t bytes)
{
    struct order o = {.action = action, .bytes = bytes};
    struct pollfd answer = {p->control_fd, POLLIN, 0};
    size_t value = 0;
    if (send(p->control_fd, &o, sizeof o, MSG_NOSIGNAL) != sizeof o ||
        poll(&answer, 1, COMMAND_MS) <= 0 ||
        recv(p->control_fd, &value, sizeof value, 0) != sizeof value)
        ck_abort_msg("the fault proxy does not answer");
    return value;
}

void faultproxy_pass(struct faultproxy *p)
{
    (void)order(p, PASS, 0);
}

void faultproxy_stall(struct faultproxy *p)
{
    (void)order(p, STALL, 0);
}

void faultproxy_cut_after(struct faultproxy *p, size_t server_bytes)
{
    (void)order(p, CUT, server_bytes);
}

void faultproxy_reset(struct faultproxy *p)
{
    (void)order(p, RESET, 0);
}

void faultproxy_refuse(struct faultproxy *p)
{
    (void)order(p, REFUSE, 0);
}

void faultproxy_half_close(struct faultproxy *p)
{
    (void)order(p, HALF_CLOSE, 0);
}

void faultproxy_hold_syncs(struct faultproxy *p)
{
    (void)order(p, HOLD_SYNCS, 0);
}

size_t faultproxy_let_syncs_go(struct faultproxy *p)
{
    return order(p, LET_SYNCS_GO, 0);
}

void faultproxy_abandon(struct faultproxy *p)
{
    (void)order(p, ABANDON, 0);
}

void faultproxy_deliver(struct faultproxy *p)
{
    (void)order(p, DELIVER, 0);
}
