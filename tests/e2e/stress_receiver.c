/* The receiver of the webhooks: records token, attempt and time of each request in the shared
 * mapping, refuses a part of the jobs at first, and answers some late. One poll loop. See stress.h.
 *
 * What it does with a job depends on the seed and the token alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stress.h"

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

static _Noreturn void give_up(struct stress *s, const char *why, const char *detail)
{
    (void)snprintf(s->failure, sizeof s->failure, "the receiver: %s: %s", why, detail);
    atomic_store(&s->has_failed, true);
    _exit(3);
}

static void close_connection(struct connection *c)
{
    (void)close(c->fd);
    c->fd = -1;
    c->len = 0;
    c->answer_ns = 0;
}

static void accept_all(struct stress *s, int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        size_t i = 0;
        while (i < connections_high && connections[i].fd >= 0)
            i++;
        if (i == CONNECTIONS_MAX)
            give_up(s, "too many connections", "");
        if (i == connections_high)
            connections_high++;
        connections[i] = (struct connection){.fd = fd};
    }
}

/* The number behind the text, or -1. */
static int64_t number_after(const char *in, const char *text)
{
    const char *at = strcasestr(in, text);
    return at != NULL ? strtoll(at + strlen(text), NULL, 10) : -1;
}

/* How often this job is refused; half of them once or more. */
static int refusals_of(const struct stress *s, int64_t token)
{
    unsigned dice = (unsigned)(stress_derive(s->seed, (uint64_t)token) % 100);
    return dice < 50 ? 0 : dice < 90 ? 1 : dice < 98 ? 2 : 3;
}

static unsigned delay_ms_of(const struct stress *s, int64_t token, int task)
{
    unsigned dice = (unsigned)(stress_derive(s->seed, (uint64_t)token) >> 32) % 1000;
    if (task == TASK_SCARCE)
        return dice % 7;
    if (task == TASK_BULK)
        return dice < 100 ? 3 : 0;
    return dice < 100 ? dice % 20 : 0;
}

/* A complete request is in the buffer. */
static void take_request(struct stress *s, struct connection *c)
{
    int64_t token = number_after(c->in, "\"token\":");
    int64_t attempt = number_after(c->in, "\nwebhook-attempt:");
    if (token <= 0 || token >= TOKENS_MAX || attempt <= 0)
        give_up(s, "not a request of ours", c->in);
    struct token *t = &s->tokens[token];
    size_t i = atomic_load(&s->runs_count);
    if (i == RUNS_MAX)
        give_up(s, "too many runs", "");
    struct run *run = &s->runs[i];
    int refusals = refusals_of(s, token);
    *run = (struct run){.token = token,
                        .arrived_ns = stress_now_ns(),
                        .attempt = (int)attempt,
                        .is_second = t->is_under_way};
    run->status = t->arrivals++ >= refusals ? 200
                  : refusals % 2 == 0       ? 409
                                            : 404; /* no breaker counts these */
    t->is_under_way = true;
    c->run = i;
    c->answer_ns =
        run->arrived_ns + (int64_t)delay_ms_of(s, token, atomic_load(&t->task)) * 1000000;
    atomic_store(&s->runs_count, i + 1);
}

static void answer(struct stress *s, struct connection *c)
{
    struct run *run = &s->runs[c->run];
    char text[128];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %d Stress\r\nContent-Length: 0\r\n%s\r\n",
                     run->status, run->status == 409 ? "Retry-After: 0\r\n" : "");
    s->tokens[run->token].is_under_way = false;
    run->answered_ns = stress_now_ns();
    c->answer_ns = 0;
    c->len = 0;
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
        close_connection(c);
}

static void read_request(struct stress *s, struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, REQUEST_MAX - c->len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close_connection(c);
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
static int answer_due(struct stress *s)
{
    int64_t now = stress_now_ns();
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

void stress_receive(struct stress *s, int listen_fd)
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
