/* The receiver of the stress of lines: records when each run begins and ends in the shared mapping,
 * which outlives every dispatcher, before it answers. One poll loop. See lines_stress.h.
 *
 * A run whose dispatcher was killed, or told to drop it, ends when its connection does: that is
 * looked up before a run of the same line is recorded. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lines_stress.h"

enum { CONNECTIONS_MAX = 512, REQUEST_MAX = 8192 };

struct connection {
    int fd; /* -1: free */
    char in[REQUEST_MAX + 1];
    size_t len;
    int64_t answer_ns; /* when to answer what was received; 0: nothing to answer */
    size_t run;
};

static struct connection connections[CONNECTIONS_MAX];
static size_t connections_high;

static void close_connection(struct lines *s, struct connection *c)
{
    if (c->answer_ns != 0) {
        s->runs[c->run].status = 0;
        s->runs[c->run].end_ns = lines_now_ns();
    }
    (void)close(c->fd);
    c->fd = -1;
    c->len = 0;
    c->answer_ns = 0;
}

static void accept_all(struct lines *s, int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        size_t i = 0;
        while (i < connections_high && connections[i].fd >= 0)
            i++;
        if (i == CONNECTIONS_MAX)
            lines_fail(s, "the receiver has too many connections");
        if (i == connections_high)
            connections_high++;
        connections[i] = (struct connection){.fd = fd};
    }
}

static int64_t number_after(const char *in, const char *text)
{
    const char *at = strcasestr(in, text);
    return at != NULL ? strtoll(at + strlen(text), NULL, 10) : NOTHING;
}

static bool is_gone(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Those whose asker is gone end before another one of their line begins. */
static void end_gone(struct lines *s, const struct connection *but)
{
    for (size_t i = 0; i < connections_high; i++) {
        struct connection *c = &connections[i];
        if (c != but && c->fd >= 0 && c->answer_ns != 0 && is_gone(c->fd))
            close_connection(s, c);
    }
}

/* A complete request is in the buffer. */
static void take_request(struct lines *s, struct connection *c)
{
    int64_t token = number_after(c->in, "\"token\":");
    int64_t attempt = number_after(c->in, "\nwebhook-attempt:");
    if (token <= 0 || token >= JOBS_MAX || attempt <= 0)
        lines_fail(s, "not a request of ours: %.300s", c->in);
    struct job *j = &s->jobs[token];
    size_t i = atomic_load(&s->runs_count);
    if (i == RUNS_MAX)
        lines_fail(s, "too many runs");
    end_gone(s, c);
    /* Others may have had their success, too, and lost it with their dispatcher: again and again.
     */
    bool is_over = j->max_attempts > 0 && j->successes >= SUCCESSES_MAX;
    bool fails = j->arrivals++ < j->refusals || is_over;
    s->runs[i] = (struct run){.token = token,
                              .start_ns = lines_now_ns(),
                              .attempt = (int)attempt,
                              .status = fails ? 404 : 200}; /* no breaker counts it */
    c->run = i;
    c->answer_ns = s->runs[i].start_ns + (int64_t)j->work_ms * 1000000;
    atomic_store(&s->runs_count, i + 1);
}

static void answer(struct lines *s, struct connection *c)
{
    struct run *run = &s->runs[c->run];
    char text[128];
    if (is_gone(c->fd)) {
        close_connection(s, c);
        return;
    }
    int n =
        snprintf(text, sizeof text, "HTTP/1.1 %d Stress\r\nContent-Length: 0\r\n\r\n", run->status);
    s->jobs[run->token].successes += run->status == 200;
    run->end_ns = lines_now_ns();
    c->answer_ns = 0;
    c->len = 0;
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
        close_connection(s, c);
}

static void read_request(struct lines *s, struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, REQUEST_MAX - c->len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close_connection(s, c);
        return;
    }
    c->len += (size_t)n;
    c->in[c->len] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL || c->answer_ns != 0)
        return;
    int64_t body = number_after(c->in, "\nContent-Length:");
    if (body >= 0 && c->len >= (size_t)(end - c->in) + 4 + (size_t)body)
        take_request(s, c);
}

/* Answers what is due; returns until when poll may sleep. */
static int answer_due(struct lines *s)
{
    int64_t now = lines_now_ns();
    int wait_ms = -1;
    for (size_t i = 0; i < connections_high; i++) {
        struct connection *c = &connections[i];
        if (c->fd < 0 || c->answer_ns == 0)
            continue;
        if (c->answer_ns <= now) {
            answer(s, c);
            continue;
        }
        int left_ms = (int)((c->answer_ns - now) / 1000000) + 1;
        wait_ms = wait_ms < 0 || left_ms < wait_ms ? left_ms : wait_ms;
    }
    return wait_ms;
}

void lines_receive(struct lines *s, int listen_fd)
{
    static struct pollfd polls[1 + CONNECTIONS_MAX];
    for (;;) {
        int wait_ms = answer_due(s);
        size_t count = connections_high;
        polls[0] = (struct pollfd){listen_fd, POLLIN, 0};
        for (size_t i = 0; i < count; i++)
            polls[1 + i] = (struct pollfd){connections[i].fd, POLLIN, 0};
        (void)poll(polls, 1 + count, wait_ms);
        for (size_t i = 0; i < count; i++) {
            if (polls[1 + i].revents != 0)
                read_request(s, &connections[i]);
        }
        if (polls[0].revents != 0)
            accept_all(s, listen_fd);
    }
}
