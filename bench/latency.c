/* latency.c - from COMMIT to the start of the handler, when nothing else is going on.
 *
 *   bench_latency CONNINFO webhook COUNT PAUSE_MS PORT_FILE
 *   bench_latency CONNINFO bare COUNT PAUSE_MS
 *
 * webhook: this program enqueues a job a time, and is itself the server that the dispatcher posts
 * to: one process, one clock. The time is from the arrival of COMMIT's answer to the arrival of
 * the request's first byte, so it includes the notification, the claim with its flush, and libcurl
 * on a kept connection over loopback. PORT_FILE receives the port once it listens.
 * bare: the limit: a second connection LISTENs, and when notified claims the row by one UPDATE; the
 * time ends with the UPDATE's answer.
 *
 * Between two jobs it pauses PAUSE_MS and up to half as much again, so that the dispatcher is
 * asleep. The first tenth is not counted. Prints one line of name=value. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <outbox/outbox.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib.h"

enum { CONNS_MAX = 16, ANSWER_MS = 60000, HEAD_MAX = 8192 };

static PGconn *producer;

static struct {
    char bytes[HEAD_MAX];
    size_t got;
} requests[CONNS_MAX];
static struct pollfd polls[CONNS_MAX]; /* the first is the listener */
static nfds_t polls_count = 1;

static void listen_and_tell(const char *port_file)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        bench_die("listen", strerror(errno));
    polls[0] = (struct pollfd){.fd = fd, .events = POLLIN};
    bench_tell_port(port_file, ntohs(address.sin_port));
}

static void accept_one(void)
{
    int fd = accept4(polls[0].fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || polls_count == CONNS_MAX)
        bench_die("accept", fd < 0 ? strerror(errno) : "too many connections");
    requests[polls_count].got = 0;
    polls[polls_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* Reads what has come on connection i; true once a request is whole, which is then answered. */
static bool serve_one(nfds_t i)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    size_t got = requests[i].got;
    ssize_t n = recv(polls[i].fd, requests[i].bytes + got, HEAD_MAX - got, 0);
    if (n <= 0) {
        (void)close(polls[i].fd);
        polls[i].fd = -1; /* poll passes over it */
        return false;
    }
    requests[i].got = got + (size_t)n;
    size_t need = bench_request_len(requests[i].bytes, requests[i].got);
    if (need == 0 || requests[i].got < need)
        return false;
    requests[i].got = 0;
    (void)send(polls[i].fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    return true;
}

/* When the next request's first byte arrived. */
static uint64_t wait_request(void)
{
    uint64_t end_ms = clock_mono_ms() + ANSWER_MS;
    uint64_t arrived_us = 0;
    while (clock_mono_ms() < end_ms) {
        (void)poll(polls, polls_count, 1000);
        uint64_t now_us = clock_mono_us();
        for (nfds_t i = 1; i < polls_count; i++) {
            if (polls[i].revents == 0)
                continue;
            if (arrived_us == 0)
                arrived_us = now_us;
            if (serve_one(i))
                return arrived_us;
        }
        if (polls[0].revents != 0)
            accept_one();
    }
    bench_die("bench_latency", "the dispatcher does not call");
}

/* Returns when COMMIT's answer came. */
static uint64_t enqueue(void)
{
    struct outbox_job job = OUTBOX_JOB("bench");
    struct outbox_error err;
    bench_exec(producer, "BEGIN");
    if (outbox_enqueue(producer, &job, NULL, &err) != OUTBOX_OK)
        bench_die("outbox_enqueue", err.message);
    bench_exec(producer, "COMMIT");
    return clock_mono_us();
}

static PGconn *listener;

static void bare_open(const char *conninfo)
{
    listener = bench_connect(conninfo);
    bench_exec(listener, "LISTEN bare");
    bench_exec(producer, "CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
                         " owner bigint) WITH (fillfactor = 50)");
}

static uint64_t bare_enqueue(void)
{
    bench_exec(producer, "BEGIN");
    bench_exec(producer, "INSERT INTO bare DEFAULT VALUES");
    PQclear(bench_query(producer, "SELECT pg_notify('bare', '')", PGRES_TUPLES_OK));
    bench_exec(producer, "COMMIT");
    return clock_mono_us();
}

static uint64_t bare_wait(void)
{
    struct pollfd p = {.fd = PQsocket(listener), .events = POLLIN};
    PGnotify *notification = NULL;
    while (notification == NULL) {
        if (poll(&p, 1, ANSWER_MS) <= 0 || PQconsumeInput(listener) != 1)
            bench_die("bench_latency", "no notification");
        notification = PQnotifies(listener);
    }
    PQfreemem(notification);
    PGresult *res =
        bench_query(listener,
                    "UPDATE bare SET owner = 1 WHERE id IN (SELECT id FROM bare WHERE owner IS NULL"
                    " ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) RETURNING id",
                    PGRES_TUPLES_OK);
    uint64_t now_us = clock_mono_us();
    if (PQntuples(res) != 1)
        bench_die("bench_latency", "notified, and nothing is there");
    PQclear(res);
    bench_exec(listener, "DELETE FROM bare WHERE owner = 1");
    return now_us;
}

int main(int argc, char **argv)
{
    bool is_bare = argc == 5 && strcmp(argv[2], "bare") == 0;
    if (!is_bare && (argc != 6 || strcmp(argv[2], "webhook") != 0)) {
        (void)fprintf(stderr, "usage: bench_latency CONNINFO webhook COUNT PAUSE_MS PORT_FILE\n"
                              "       bench_latency CONNINFO bare COUNT PAUSE_MS\n");
        return 64;
    }
    size_t count = (size_t)bench_number(argv[3], 1, "COUNT");
    uint64_t pause_us = (uint64_t)bench_number(argv[4], 0, "PAUSE_MS") * 1000;
    producer = bench_connect(argv[1]);
    if (is_bare)
        bare_open(argv[1]);
    else
        listen_and_tell(argv[5]);
    uint32_t *times_us = ob_xcalloc(count, sizeof *times_us);
    size_t warm_up = count / 10;
    for (size_t i = 0; i < warm_up + count; i++) {
        uint64_t committed_us = is_bare ? bare_enqueue() : enqueue();
        uint64_t started_us = is_bare ? bare_wait() : wait_request();
        /* The request may be there before COMMIT's answer has been read. */
        if (i >= warm_up)
            times_us[i - warm_up] =
                started_us > committed_us ? (uint32_t)(started_us - committed_us) : 0;
        bench_sleep_us(pause_us + pause_us * (i % 16) / 32);
    }
    double p50 = bench_percentile(times_us, count, 0.5); /* sorts */
    (void)printf("jobs=%zu p50_ms=%.3f p90_ms=%.3f p99_ms=%.3f max_ms=%.3f\n", count, p50 / 1e3,
                 bench_percentile(times_us, count, 0.9) / 1e3,
                 bench_percentile(times_us, count, 0.99) / 1e3, times_us[count - 1] / 1e3);
    ob_free(times_us);
    PQfinish(listener);
    PQfinish(producer);
    return 0;
}
