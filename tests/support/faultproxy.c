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

enum action { PASS, STALL, CUT, RESET, REFUSE, HALF_CLOSE };
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

struct link {
    int client; /* -1: free */
    int server;
    struct pipe_end up;   /* client to server */
    struct pipe_end down; /* server to client */
};

static struct {
    struct link links[LINKS_MAX];
    struct sockaddr_storage target;
    socklen_t target_len;
    enum action mode; /* PASS, STALL or REFUSE */
    bool is_cutting;
    size_t cut_left; /* bytes from the servers until the cut */
} proxy;

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
        if (proxy.links[i].client < 0)
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

static bool drain(struct pipe_end *p, int to)
{
    while (p->len > 0) {
        ssize_t n = send(to, p->data, p->len, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->len -= (size_t)n;
        memmove(p->data, p->data + n, p->len);
    }
    if (p->ended && !p->shut) {
        (void)shutdown(to, SHUT_WR);
        p->shut = true;
    }
    return true;
}

static void link_move(struct link *l, short client_events, short server_events)
{
    bool ok = true;
    if ((client_events & (POLLIN | POLLHUP | POLLERR)) != 0 && !l->up.ended)
        ok = fill(&l->up, l->client, false);
    if (ok && (server_events & (POLLIN | POLLHUP | POLLERR)) != 0 && !l->down.ended)
        ok = fill(&l->down, l->server, true);
    ok = ok && drain(&l->up, l->server) && drain(&l->down, l->client);
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

static void obey(const struct order *o)
{
    switch (o->action) {
    case PASS:
    case STALL:
    case REFUSE:
        proxy.mode = o->action;
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
}

static short interest(const struct pipe_end *in, const struct pipe_end *out)
{
    short events = 0;
    if (!in->ended && in->len < BUFFER)
        events |= POLLIN;
    if (out->len > 0)
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
            short client_events = idle ? 0 : interest(&l->up, &l->down);
            short server_events = idle ? 0 : interest(&l->down, &l->up);
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
            obey(&o);
            (void)send(control_fd, "", 1, MSG_NOSIGNAL);
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
            proxy.links[i].client = -1;
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
static void order(struct faultproxy *p, enum action action, size_t bytes)
{
    struct order o = {.action = action, .bytes = bytes};
    struct pollfd answer = {p->control_fd, POLLIN, 0};
    char byte;
    if (send(p->control_fd, &o, sizeof o, MSG_NOSIGNAL) != sizeof o ||
        poll(&answer, 1, COMMAND_MS) <= 0 || recv(p->control_fd, &byte, 1, 0) != 1)
        ck_abort_msg("the fault proxy does not answer");
}

void faultproxy_pass(struct faultproxy *p)
{
    order(p, PASS, 0);
}

void faultproxy_stall(struct faultproxy *p)
{
    order(p, STALL, 0);
}

void faultproxy_cut_after(struct faultproxy *p, size_t server_bytes)
{
    order(p, CUT, server_bytes);
}

void faultproxy_reset(struct faultproxy *p)
{
    order(p, RESET, 0);
}

void faultproxy_refuse(struct faultproxy *p)
{
    order(p, REFUSE, 0);
}

void faultproxy_half_close(struct faultproxy *p)
{
    order(p, HALF_CLOSE, 0);
}
