/* The receiver's poll loop, see receiver.h. */
#define _GNU_SOURCE
#include "receiver.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chance.h"

enum { CONNECTIONS_MAX = 1024, REQUEST_MAX = 8192 };

struct connection {
    int fd; /* -1: free */
    char in[REQUEST_MAX + 1];
    size_t len;
    int64_t answer_ns; /* when to answer what was received; 0: nothing to answer */
    size_t run;
};

static struct connection connections[CONNECTIONS_MAX];
static size_t connections_high; /* beyond it none was ever used */

static void close_connection(const struct receiver *r, struct connection *c)
{
    if (c->answer_ns != 0 && r->lost != NULL)
        r->lost(r->arg, c->run);
    (void)close(c->fd);
    c->fd = -1;
    c->len = 0;
    c->answer_ns = 0;
}

static void accept_all(const struct receiver *r, int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        size_t i = 0;
        while (i < connections_high && connections[i].fd >= 0)
            i++;
        if (i == CONNECTIONS_MAX)
            r->fail(r->arg, "the receiver has too many connections");
        if (i == connections_high)
            connections_high++;
        connections[i] = (struct connection){.fd = fd};
    }
}

int64_t receiver_number(const char *request, const char *text)
{
    const char *at = strcasestr(request, text);
    return at != NULL ? strtoll(at + strlen(text), NULL, 10) : -1;
}

static bool is_gone(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Those whose asker is gone end before another run begins. */
static void end_gone(const struct receiver *r, const struct connection *but)
{
    for (size_t i = 0; i < connections_high && r->lost != NULL; i++) {
        struct connection *c = &connections[i];
        if (c != but && c->fd >= 0 && c->answer_ns != 0 && is_gone(c->fd))
            close_connection(r, c);
    }
}

static void answer(const struct receiver *r, struct connection *c)
{
    char text[256];
    const char *header = NULL;
    if (r->lost != NULL && is_gone(c->fd)) {
        close_connection(r, c);
        return;
    }
    int status = r->answer(r->arg, c->run, &header);
    int n = snprintf(text, sizeof text, "HTTP/1.1 %d Test\r\nContent-Length: 0\r\n%s\r\n", status,
                     header != NULL ? header : "");
    c->answer_ns = 0;
    c->len = 0;
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
        close_connection(r, c);
}

static void read_request(const struct receiver *r, struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, REQUEST_MAX - c->len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close_connection(r, c);
        return;
    }
    c->len += (size_t)n;
    c->in[c->len] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL || c->answer_ns != 0)
        return;
    int64_t body = receiver_number(c->in, "\nContent-Length:");
    if (body < 0 || c->len < (size_t)(end - c->in) + 4 + (size_t)body)
        return;
    end_gone(r, c);
    c->answer_ns = r->take(r->arg, c->in, &c->run);
}

/* Answers what is due; returns until when poll may sleep. */
static int answer_due(const struct receiver *r)
{
    int64_t now = chance_now_ns();
    int wait_ms = -1;
    for (size_t i = 0; i < connections_high; i++) {
        struct connection *c = &connections[i];
        if (c->fd < 0 || c->answer_ns == 0)
            continue;
        if (c->answer_ns <= now) {
            answer(r, c);
            continue;
        }
        int left_ms = (int)((c->answer_ns - now) / 1000000) + 1;
        wait_ms = wait_ms < 0 || left_ms < wait_ms ? left_ms : wait_ms;
    }
    return wait_ms;
}

void receiver_serve(const struct receiver *r, int listen_fd)
{
    static struct pollfd polls[1 + CONNECTIONS_MAX];
    for (;;) {
        int wait_ms = answer_due(r);
        size_t count = connections_high;
        polls[0] = (struct pollfd){listen_fd, POLLIN, 0};
        for (size_t i = 0; i < count; i++)
            polls[1 + i] = (struct pollfd){connections[i].fd, POLLIN, 0};
        (void)poll(polls, 1 + count, wait_ms);
        for (size_t i = 0; i < count; i++) {
            if (polls[1 + i].revents != 0)
                read_request(r, &connections[i]);
        }
        if (polls[0].revents != 0)
            accept_all(r, listen_fd);
    }
}
