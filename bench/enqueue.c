/* enqueue.c - how many business transactions a second with a job in each.
 *
 *   bench_enqueue CONNINFO MODE CLIENTS MS TEXT_BYTES SERVER_PID DISPATCHER_PID
 *
 * Each of CLIENTS connections repeats BEGIN; INSERT INTO business …; the job; COMMIT, one statement
 * a round trip, all from one thread, for MS milliseconds. MODE outbox: the statement of outbox.h.
 * Anything else is the name of a table of the same shape, into which the job is put by a plain
 * INSERT. The payload holds a text of TEXT_BYTES, which can't be compressed. A third of the time,
 * half a second at most, goes first, uncounted. Prints one line of name=value. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <outbox/outbox.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib.h"

enum { CLIENTS_MAX = 512, TIMES_MAX = 4 * 1024 * 1024, WARM_UP_MAX_MS = 500 };

enum step { STEP_BEGIN, STEP_BUSINESS, STEP_JOB, STEP_COMMIT };

struct client {
    PGconn *conn;
    enum step step;
    uint64_t begin_us;
    int64_t order;
};

static struct client clients[CLIENTS_MAX];
static struct pollfd polls[CLIENTS_MAX];
static size_t clients_count;
static bool is_outbox;
static char insert_sql[512];
static char *text;
static uint32_t *times_us;
static size_t times_count;
static bool is_counting;
static int64_t orders_count;

static void send_job(struct client *c)
{
    struct outbox_payload payload;
    struct outbox_job job = OUTBOX_JOB("bench");
    struct outbox_error err;
    int sent = 0;
    outbox_payload_init(&payload);
    (void)outbox_put_int(&payload, "order", c->order);
    (void)outbox_put_str(&payload, "email", "ann@example.com");
    (void)outbox_put_str(&payload, "text", text);
    if (is_outbox) {
        struct outbox_query q;
        job.payload = &payload;
        if (outbox_query_init(&q, &job, &err) != OUTBOX_OK)
            bench_die("outbox_query_init", err.message);
        sent = PQsendQueryParams(c->conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats,
                                 0);
        outbox_query_free(&q);
    } else {
        size_t len = 0;
        const char *values[1] = {outbox_payload_bytes(&payload, &len)};
        int lengths[1] = {(int)len};
        int formats[1] = {1};
        sent = PQsendQueryParams(c->conn, insert_sql, 1, NULL, values, lengths, formats, 0);
    }
    outbox_payload_free(&payload);
    if (sent != 1)
        bench_die("the job", PQerrorMessage(c->conn));
}

static void send_step(struct client *c)
{
    static const char business_sql[] =
        "INSERT INTO business (number, customer, amount) VALUES ($1, 'ann@example.com', 12.5)";
    char number[24];
    const char *values[1] = {number};
    int sent = 1;
    switch (c->step) {
    case STEP_BEGIN:
        c->begin_us = clock_mono_us();
        c->order = ++orders_count;
        sent = PQsendQuery(c->conn, "BEGIN");
        break;
    case STEP_BUSINESS:
        (void)snprintf(number, sizeof number, "%lld", (long long)c->order);
        sent = PQsendQueryParams(c->conn, business_sql, 1, NULL, values, NULL, NULL, 0);
        break;
    case STEP_JOB:
        send_job(c);
        break;
    case STEP_COMMIT:
        sent = PQsendQuery(c->conn, "COMMIT");
        break;
    }
    if (sent != 1)
        bench_die("send", PQerrorMessage(c->conn));
}

/* Reads what has come; with the whole answer there, the next statement goes. */
static void receive(struct client *c)
{
    if (PQconsumeInput(c->conn) != 1)
        bench_die("receive", PQerrorMessage(c->conn));
    while (PQisBusy(c->conn) == 0) {
        PGresult *res = PQgetResult(c->conn);
        if (res == NULL) {
            if (c->step == STEP_COMMIT && is_counting && times_count < TIMES_MAX)
                times_us[times_count++] = (uint32_t)(clock_mono_us() - c->begin_us);
            c->step = c->step == STEP_COMMIT ? STEP_BEGIN : (enum step)(c->step + 1);
            send_step(c);
            return;
        }
        ExecStatusType status = PQresultStatus(res);
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
            bench_die("refused", PQresultErrorMessage(res));
        PQclear(res);
    }
}

static void serve_until(uint64_t end_us)
{
    while (clock_mono_us() < end_us) {
        int n = poll(polls, clients_count, 100);
        if (n < 0 && errno != EINTR)
            bench_die("poll", strerror(errno));
        for (size_t i = 0; i < clients_count; i++) {
            if (polls[i].revents != 0)
                receive(&clients[i]);
        }
    }
}

static char *make_text(size_t len)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint64_t state = 1;
    char *made = ob_xcalloc(len + 1, 1);
    for (size_t i = 0; i < len; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        made[i] = letters[state >> 58];
    }
    return made;
}

static void open_clients(const char *conninfo, long count)
{
    clients_count = (size_t)count;
    for (size_t i = 0; i < clients_count; i++) {
        clients[i].conn = bench_connect(conninfo);
        polls[i] = (struct pollfd){.fd = PQsocket(clients[i].conn), .events = POLLIN};
    }
    for (size_t i = 0; i < clients_count; i++)
        send_step(&clients[i]);
}

static void print(PGconn *observer, const struct mark *begin, const struct mark *end,
                  size_t text_bytes)
{
    double done = (double)times_count;
    double tps = done * 1e6 / (double)(end->mono_us - begin->mono_us);
    (void)printf("tps=%.0f jobs=%.0f mb_per_s=%.2f p50_ms=%.2f p99_ms=%.2f", tps, done,
                 tps * (double)text_bytes / 1e6, bench_percentile(times_us, times_count, 0.5) / 1e3,
                 bench_percentile(times_us, times_count, 0.99) / 1e3);
    bench_print_costs(begin, end, done > 0 ? done : 1);
    PGresult *res = bench_query(observer,
                                "SELECT count(*), (SELECT n_dead_tup FROM pg_stat_user_tables"
                                " WHERE relid = 'outbox.job'::regclass) FROM outbox.job",
                                PGRES_TUPLES_OK);
    (void)printf(" left=%s dead_tuples=%s\n", PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1));
    PQclear(res);
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        (void)fprintf(stderr, "usage: bench_enqueue CONNINFO outbox|TABLE CLIENTS MS TEXT_BYTES "
                              "SERVER_PID DISPATCHER_PID\n");
        return 64;
    }
    long count = bench_number(argv[3], 1, "CLIENTS");
    uint64_t ms = (uint64_t)bench_number(argv[4], 1, "MS");
    size_t text_bytes = (size_t)bench_number(argv[5], 1, "TEXT_BYTES");
    pid_t server = (pid_t)bench_number(argv[6], 0, "SERVER_PID");
    pid_t dispatcher = (pid_t)bench_number(argv[7], 0, "DISPATCHER_PID");
    if (count > CLIENTS_MAX)
        bench_die("CLIENTS", "at most 512");
    is_outbox = strcmp(argv[2], "outbox") == 0;
    (void)snprintf(insert_sql, sizeof insert_sql,
                   "INSERT INTO %s (task, priority, encoding, payload, created_at, ready_xid)"
                   " VALUES ('bench', 2, 'msgpack', $1, clock_timestamp(), pg_current_xact_id())"
                   " RETURNING id",
                   argv[2]);
    text = make_text(text_bytes);
    times_us = ob_xcalloc(TIMES_MAX, sizeof *times_us);
    PGconn *observer = bench_connect(argv[1]);
    open_clients(argv[1], count);
    serve_until(clock_mono_us() + (ms / 3 < WARM_UP_MAX_MS ? ms / 3 : WARM_UP_MAX_MS) * 1000);
    is_counting = true;
    struct mark begin = bench_mark(observer, server, dispatcher);
    serve_until(begin.mono_us + ms * 1000);
    struct mark end = bench_mark(observer, server, dispatcher);
    print(observer, &begin, &end, text_bytes);
    for (size_t i = 0; i < clients_count; i++)
        PQfinish(clients[i].conn);
    PQfinish(observer);
    ob_free(times_us);
    ob_free(text);
    return 0;
}
