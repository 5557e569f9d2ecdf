/* A scripted HTTP server: one child, one poll loop. The record is a file of entries, each a line
 * and its bytes: "C 0\n" for a connection, "R <bytes>\n<request>" for a request. */
#define _GNU_SOURCE
#include "httpstub.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "wait.h"

enum { CONNECTIONS_MAX = 256, READ_STEP = 65536, HEAD_SIZE = 4096 };

/* --- the server's side --- */

struct text {
    char *data;
    size_t len;
    size_t size;
};

struct connection {
    int fd; /* -1: free */
    struct text in;
    bool is_answering;
    const struct httpstub_answer *answer;
    char head[HEAD_SIZE];
    size_t head_len;
    size_t body_len;
    unsigned long long total; /* bytes to send in all: the end, or the cut */
    unsigned long long sent;
    uint64_t not_before_ms;
};

static struct {
    const struct httpstub_answer *answers;
    size_t answers_count;
    size_t next; /* answer */
    int record_fd;
    struct connection connections[CONNECTIONS_MAX];
} stub;

static void record(char kind, const char *data, size_t len)
{
    char line[32];
    int n = snprintf(line, sizeof line, "%c %zu\n", kind, len);
    /* The reader counts only what is there whole. */
    (void)(write_all(stub.record_fd, line, (size_t)n) && write_all(stub.record_fd, data, len));
}

static void connection_close(struct connection *c, bool with_reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (with_reset)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    (void)close(c->fd);
    free(c->in.data);
    *c = (struct connection){.fd = -1};
}

static void accept_one(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (stub.connections[i].fd < 0) {
            stub.connections[i] = (struct connection){.fd = fd};
            record('C', "", 0);
            return;
        }
    }
    (void)close(fd);
}

/* The value of a header in a head, up to its line's end; NULL if it is not there. */
static const char *find_header(const char *head, const char *name, size_t *ret_len)
{
    const char *end = strstr(head, "\r\n\r\n");
    for (const char *line = strstr(head, "\r\n"); line != NULL && line != end;
         line = strstr(line, "\r\n")) {
        line += 2;
        size_t n = strlen(name);
        if (strncasecmp(line, name, n) != 0 || line[n] != ':')
            continue;
        const char *value = line + n + 1;
        value += strspn(value, " \t");
        *ret_len = strcspn(value, "\r");
        return value;
    }
    return NULL;
}

/* Bytes of a chunked body, its last chunk included; 0: not all there yet. */
static size_t chunked_len(const char *body, size_t available)
{
    size_t at = 0;
    while (at < available && memchr(body + at, '\n', available - at) != NULL) {
        size_t chunk = strtoul(body + at, NULL, 16);
        const char *line_end = memchr(body + at, '\n', available - at);
        at = (size_t)(line_end - body) + 1 + chunk + 2;
        if (at > available)
            return 0;
        if (chunk == 0)
            return at;
    }
    return 0;
}

/* The length of the complete request at the front of what was received; 0: not complete. */
static size_t request_len(const struct text *in)
{
    const char *end = in->data != NULL ? strstr(in->data, "\r\n\r\n") : NULL;
    size_t n = 0;
    if (end == NULL)
        return 0;
    size_t head_len = (size_t)(end - in->data) + 4;
    if (find_header(in->data, "Transfer-Encoding", &n) != NULL) {
        size_t body = chunked_len(in->data + head_len, in->len - head_len);
        return body == 0 ? 0 : head_len + body;
    }
    const char *length = find_header(in->data, "Content-Length", &n);
    size_t whole = head_len + (length != NULL ? strtoul(length, NULL, 10) : 0);
    return in->len >= whole ? whole : 0;
}

static bool has_own_framing(const char *headers)
{
    return headers != NULL && (strcasestr(headers, "content-length:") != NULL ||
                               strcasestr(headers, "transfer-encoding:") != NULL);
}

static void answer_begin(struct connection *c)
{
    const struct httpstub_answer *a = &stub.answers[stub.next];
    char length[48] = "";
    size_t repeat = a->body_repeat > 0 ? a->body_repeat : 1;
    if (stub.next + 1 < stub.answers_count)
        stub.next++;
    c->answer = a;
    c->is_answering = true;
    c->sent = 0;
    c->not_before_ms = wait_now_ms() + a->delay_ms;
    c->body_len = a->raw != NULL ? strlen(a->raw) : a->body != NULL ? strlen(a->body) : 0;
    c->head_len = 0;
    if (a->raw == NULL && a->status != 0) {
        /* A 1xx, 204 or 304 says no length unless the script has a body that should not be there.
         */
        bool is_bare = a->status < 200 || a->status == 204 || a->status == 304;
        if (!has_own_framing(a->headers) && (!is_bare || c->body_len > 0))
            (void)snprintf(length, sizeof length, "Content-Length: %zu\r\n", c->body_len * repeat);
        int n = snprintf(c->head, sizeof c->head, "HTTP/1.1 %d Scripted\r\n%s%s%s\r\n", a->status,
                         length, a->headers != NULL ? a->headers : "",
                         a->close_after ? "Connection: close\r\n" : "");
        if (n < 0 || (size_t)n >= sizeof c->head)
            abort();
        c->head_len = (size_t)n;
    }
    c->total = c->head_len + (unsigned long long)c->body_len * repeat;
    if (a->cut_after_bytes > 0 && a->cut_after_bytes < c->total)
        c->total = a->cut_after_bytes;
}

static void answer_end(struct connection *c)
{
    const struct httpstub_answer *a = c->answer;
    c->is_answering = false;
    if (a->close_after || a->cut_after_bytes > 0 || (a->status == 0 && a->raw == NULL))
        connection_close(c, a->reset != 0);
}

/* Sends what is due; false: the connection is gone. */
static void answer_go_on(struct connection *c)
{
    const struct httpstub_answer *a = c->answer;
    const char *body = a->raw != NULL ? a->raw : a->body;
    while (c->sent < c->total && wait_now_ms() >= c->not_before_ms) {
        bool in_head = c->sent < c->head_len;
        size_t at = in_head ? (size_t)c->sent : (size_t)((c->sent - c->head_len) % c->body_len);
        const char *from = in_head ? c->head + at : body + at;
        size_t len = (in_head ? c->head_len : c->body_len) - at;
        if (len > c->total - c->sent)
            len = (size_t)(c->total - c->sent);
        if (a->drip_ms > 0) {
            len = 1;
            c->not_before_ms = wait_now_ms() + a->drip_ms;
        }
        ssize_t n = send(c->fd, from, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            connection_close(c, false);
            return;
        }
        c->sent += (unsigned long long)n;
    }
    if (c->sent >= c->total && wait_now_ms() >= c->not_before_ms)
        answer_end(c);
}

static void take_request(struct connection *c)
{
    size_t len = c->is_answering ? 0 : request_len(&c->in);
    if (len == 0)
        return;
    record('R', c->in.data, len);
    c->in.len -= len;
    memmove(c->in.data, c->in.data + len, c->in.len + 1);
    answer_begin(c);
}

static void connection_read(struct connection *c)
{
    struct text *in = &c->in;
    if (in->size - in->len < READ_STEP + 1) {
        in->size = in->size * 2 + READ_STEP + 1;
        in->data = realloc(in->data, in->size);
        if (in->data == NULL)
            abort();
    }
    ssize_t n = recv(c->fd, in->data + in->len, READ_STEP, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        connection_close(c, false);
        return;
    }
    in->len += n > 0 ? (size_t)n : 0;
    in->data[in->len] = '\0';
    take_request(c);
}

/* Until when poll may sleep for this connection, -1: for ever. */
static int connection_wait_ms(const struct connection *c)
{
    uint64_t now = wait_now_ms();
    if (c->fd < 0 || !c->is_answering)
        return -1;
    return c->not_before_ms > now ? (int)(c->not_before_ms - now) : -1;
}

static void serve(int listen_fd)
{
    for (;;) {
        struct pollfd polls[1 + CONNECTIONS_MAX] = {{listen_fd, POLLIN, 0}};
        int timeout = -1;
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
            const struct connection *c = &stub.connections[i];
            int wait_ms = connection_wait_ms(c);
            bool is_due = c->is_answering && wait_ms < 0;
            polls[1 + i] = (struct pollfd){c->fd, (short)(is_due ? POLLIN | POLLOUT : POLLIN), 0};
            if (wait_ms >= 0 && (timeout < 0 || wait_ms < timeout))
                timeout = wait_ms;
        }
        (void)poll(polls, 1 + CONNECTIONS_MAX, timeout);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
            struct connection *c = &stub.connections[i];
            if (c->fd >= 0 && (polls[1 + i].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
                connection_read(c);
            if (c->fd >= 0 && c->is_answering)
                answer_go_on(c);
            if (c->fd >= 0)
                take_request(c); /* a pipelined one */
        }
        if (polls[0].revents != 0)
            accept_one(listen_fd);
    }
}

/* --- the tests' side --- */

void httpstub_start(struct httpstub *s, const struct httpstub_answer *answers, size_t count)
{
    static unsigned started;
    ck_assert_uint_gt(count, 0);
    int listen_fd = listen_loopback(&s->port);
    (void)snprintf(s->record_path, sizeof s->record_path, "%s/http-%u", test_dir(), ++started);
    int record_fd = open(s->record_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    if (record_fd < 0)
        ck_abort_msg("%s: %s", s->record_path, strerror(errno));
    s->pid = child_fork(SIGKILL);
    if (s->pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        stub.answers = answers;
        stub.answers_count = count;
        stub.record_fd = record_fd;
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
            stub.connections[i].fd = -1;
        serve(listen_fd);
    }
    (void)close(record_fd);
    (void)close(listen_fd);
}

void httpstub_stop(struct httpstub *s)
{
    child_kill(s->pid);
    s->pid = -1;
}

/* How many entries of a kind the record holds whole; the nth one's place when there are so many. */
static size_t scan_record(const struct httpstub *s, char kind, size_t nth, off_t *ret_at,
                          size_t *ret_len)
{
    size_t count = 0;
    off_t at = 0;
    int fd = open(s->record_path, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    for (;;) {
        char line[33] = "";
        char *end = NULL;
        if (fd < 0 || pread(fd, line, sizeof line - 1, at) <= 2)
            break;
        unsigned long len = strtoul(line + 2, &end, 10);
        off_t data = at + (end - line) + 1;
        if (*end != '\n' || data + (off_t)len > size)
            break;
        if (line[0] == kind && count++ == nth) {
            *ret_at = data;
            *ret_len = len;
        }
        at = data + (off_t)len;
    }
    if (fd >= 0)
        (void)close(fd);
    return count;
}

size_t httpstub_requests(const struct httpstub *s)
{
    off_t at = 0;
    size_t len = 0;
    return scan_record(s, 'R', SIZE_MAX, &at, &len);
}

size_t httpstub_connections(const struct httpstub *s)
{
    off_t at = 0;
    size_t len = 0;
    return scan_record(s, 'C', SIZE_MAX, &at, &len);
}

const char *httpstub_request(const struct httpstub *s, size_t i)
{
    static char *request;
    off_t at = 0;
    size_t len = 0;
    free(request);
    request = NULL;
    if (scan_record(s, 'R', i, &at, &len) <= i)
        return NULL;
    request = read_file_from(s->record_path, at, NULL);
    if (request != NULL)
        request[len] = '\0';
    return request;
}

const char *httpstub_header(const struct httpstub *s, size_t i, const char *name)
{
    enum { RING = 8 };
    static char ring[RING][HEAD_SIZE];
    static unsigned next;
    const char *request = httpstub_request(s, i);
    size_t len = 0;
    const char *value = request != NULL ? find_header(request, name, &len) : NULL;
    if (value == NULL)
        return NULL;
    char *out = ring[next++ % RING];
    (void)snprintf(out, HEAD_SIZE, "%.*s", (int)len, value);
    return out;
}

const char *httpstub_body(const struct httpstub *s, size_t i)
{
    const char *request = httpstub_request(s, i);
    const char *end = request != NULL ? strstr(request, "\r\n\r\n") : NULL;
    return end != NULL ? end + 4 : NULL;
}
