/* receiver.c - a small webhook receiver: answers 204 to every POST, and appends a line with the
 * webhook-id and the payload's "order" to a file.
 *
 *   receiver FILE PORT_FILE     listens on a free port of 127.0.0.1 and writes its number to
 * PORT_FILE
 *
 * It shows what a receiver of pgoutbox's webhooks sees, and no more: a real one has an HTTP
 * library, and checks the webhook-signature. Serves until it is killed. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, REQUEST_MAX = 65536 };

struct client {
    int fd; /* -1: free */
    size_t len;
    char in[REQUEST_MAX + 1];
};

static struct client clients[CLIENTS_MAX];
static int out_fd;

/* The value of a header, without blanks before it; NULL if the head has none of that name. */
static const char *header(const char *head, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " ");
    }
    return NULL;
}

/* One line a request, in one write, so that lines never mix. */
static void note(const char *id, const char *body)
{
    char line[256];
    const char *order = strstr(body, "\"order\"");
    long number = order != NULL
                      ? strtol(order + strlen("\"order\"") + strspn(order + 7, ": "), NULL, 10)
                      : -1;
    int id_len = id != NULL ? (int)strcspn(id, "\r\n ") : 0;
    int n = snprintf(line, sizeof line, "%.*s %ld\n", id_len, id != NULL ? id : "", number);
    if (n > 0 && (size_t)n < sizeof line && write(out_fd, line, (size_t)n) != n)
        perror("receiver: write");
}

/* Serves the request at the front of the buffer, if it is all there; 0: more is needed. */
static int serve_one(struct client *c)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL)
        return 0;
    end[2] = '\0'; /* headers are looked for in the head alone */
    const char *length = header(c->in, "content-length");
    size_t head_len = (size_t)(end - c->in) + 4;
    size_t body_len = length != NULL ? strtoul(length, NULL, 10) : 0;
    if (body_len > REQUEST_MAX - head_len)
        return -1;
    if (c->len < head_len + body_len) {
        end[2] = '\r';
        return 0;
    }
    char *body = c->in + head_len;
    char after = body[body_len];
    body[body_len] = '\0';
    note(header(c->in, "webhook-id"), body);
    body[body_len] = after;
    c->len -= head_len + body_len;
    memmove(c->in, body + body_len, c->len + 1);
    /* Only once it is written down: a request that is not answered comes again. */
    return send(c->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) == (ssize_t)sizeof answer - 1 ? 1
                                                                                              : -1;
}

static void client_read(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, REQUEST_MAX - c->len, 0);
    int served = n > 0 ? 1 : -1;
    if (n > 0) {
        c->len += (size_t)n;
        c->in[c->len] = '\0';
    }
    while (served == 1)
        served = serve_one(c);
    if (served < 0 || c->len == REQUEST_MAX) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

static void accept_one(int listen_fd)
{
    int fd = accept(listen_fd, NULL, NULL);
    for (size_t i = 0; fd >= 0 && i < CLIENTS_MAX; i++) {
        if (clients[i].fd < 0) {
            clients[i].fd = fd;
            clients[i].len = 0;
            return;
        }
    }
    if (fd >= 0)
        (void)close(fd);
}

static int listen_somewhere(const char *port_file)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0) {
        perror("receiver: listen");
        exit(1);
    }
    FILE *f = fopen(port_file, "w");
    if (f == NULL || fprintf(f, "%d\n", ntohs(addr.sin_port)) < 0 || fclose(f) != 0) {
        perror(port_file);
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        (void)fprintf(stderr, "usage: receiver FILE PORT_FILE\n");
        return 64;
    }
    out_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (out_fd < 0) {
        perror(argv[1]);
        return 1;
    }
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        clients[i].fd = -1;
    int listen_fd = listen_somewhere(argv[2]);
    for (;;) {
        struct pollfd polls[1 + CLIENTS_MAX] = {{listen_fd, POLLIN, 0}};
        for (size_t i = 0; i < CLIENTS_MAX; i++)
            polls[1 + i] = (struct pollfd){clients[i].fd, POLLIN, 0};
        if (poll(polls, 1 + CLIENTS_MAX, -1) < 0 && errno != EINTR)
            return 1;
        for (size_t i = 0; i < CLIENTS_MAX; i++) {
            if (clients[i].fd >= 0 && polls[1 + i].revents != 0)
                client_read(&clients[i]);
        }
        if (polls[0].revents != 0)
            accept_one(listen_fd);
    }
}
