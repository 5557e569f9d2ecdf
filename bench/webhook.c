/* webhook.c - how many webhooks a second: a bare libcurl loop (multi_socket on epoll, handles
 * prepared once and added again and again) against the whole webhook executor, both posting the
 * same body over kept connections to a server in a child process that answers 204 and does nothing
 * else.
 *
 *   bench_webhook [SECONDS=2] [CONCURRENCY=50] [BODY_BYTES=200]
 *   bench_webhook SECONDS CONCURRENCY BODY_BYTES URL [CA_FILE]   only the bare loop, once, for
 * bench/run bench_webhook serve PORT_FILE                        only the server, until it is ended
 *
 * Measured alternately in five rounds, of which the medians are printed. The ratio counts: absolute
 * figures are the machine's. */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib.h"
#include "webhook/http.h"

enum { SLOTS_MAX = 512, ROUNDS = 5, FDS_MAX = 4096, EVENTS = 64 };

static uint64_t duration_ms = 2000;
static unsigned concurrency = 50;
static size_t body_len = 200;
static char *body;
static char url[256];
static const char *ca_file; /* NULL: the system's authorities */

static void die(const char *what)
{
    (void)fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Processor time of this process: what a request costs us, whatever the server takes. */
static uint64_t cpu_us(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000U +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* ---- The server: one answer for every so many bytes, learned from the first request ---- */

static struct {
    size_t got;  /* of the request that is being read */
    size_t need; /* in all; 0: not known yet */
    char head[2048];
} conns[FDS_MAX];

static void serve_one(int fd)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    static char bytes[65536];
    ssize_t n = recv(fd, bytes, sizeof bytes - 1, 0);
    if (n <= 0) {
        (void)close(fd);
        memset(&conns[fd], 0, sizeof conns[fd]);
        return;
    }
    size_t at = conns[fd].got;
    size_t room = sizeof conns[fd].head - 1 - at;
    if (conns[fd].need == 0 && at < sizeof conns[fd].head - 1) {
        memcpy(conns[fd].head + at, bytes, (size_t)n < room ? (size_t)n : room);
        size_t kept = at + ((size_t)n < room ? (size_t)n : room);
        conns[fd].need = bench_request_len(conns[fd].head, kept);
    }
    conns[fd].got += (size_t)n;
    if (conns[fd].need > 0 && conns[fd].got >= conns[fd].need) {
        conns[fd].got = 0;
        conns[fd].need = 0;
        (void)send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    }
}

__attribute__((noreturn)) static void serve(int listen_fd)
{
    int ep = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listen_fd};
    (void)epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &wanted);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listen_fd) {
                serve_one(fd);
                continue;
            }
            int conn = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (conn < 0 || conn >= FDS_MAX)
                continue;
            wanted.data.fd = conn;
            (void)epoll_ctl(ep, EPOLL_CTL_ADD, conn, &wanted);
        }
    }
}

/* A socket that listens on loopback; sets url. */
static int server_listen(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        die("no listener");
    *ret_port = ntohs(address.sin_port);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/hook", *ret_port);
    return fd;
}

static void server_start(void)
{
    int port = 0;
    int fd = server_listen(&port);
    pid_t pid = fork();
    if (pid < 0)
        die("no process");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fd);
    }
    (void)close(fd);
}

/* ---- The bare loop ---- */

struct bare {
    CURLM *multi;
    int ep;
    long timeout_ms;
    uint64_t done;
};

static int on_bare_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct bare *b = arg;
    struct epoll_event wanted = {.data.fd = fd};
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(b->ep, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if ((what & CURL_POLL_IN) != 0)
        wanted.events |= EPOLLIN;
    if ((what & CURL_POLL_OUT) != 0)
        wanted.events |= EPOLLOUT;
    (void)epoll_ctl(b->ep, known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &wanted);
    (void)curl_multi_assign(b->multi, fd, b);
    return 0;
}

static int on_bare_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    ((struct bare *)arg)->timeout_ms = timeout_ms;
    return 0;
}

static void bare_collect(struct bare *b, bool again)
{
    int left = 0;
    for (CURLMsg *m = curl_multi_info_read(b->multi, &left); m != NULL;
         m = curl_multi_info_read(b->multi, &left)) {
        CURL *easy = m->easy_handle;
        if (m->data.result != CURLE_OK)
            die(curl_easy_strerror(m->data.result));
        b->done++;
        (void)curl_multi_remove_handle(b->multi, easy);
        if (again)
            (void)curl_multi_add_handle(b->multi, easy);
    }
}

static void bare_turn(struct bare *b)
{
    struct epoll_event events[EVENTS];
    int running = 0;
    int n = epoll_wait(b->ep, events, EVENTS, b->timeout_ms < 0 ? 1000 : (int)b->timeout_ms);
    if (n == 0 || b->timeout_ms == 0) {
        b->timeout_ms = -1;
        (void)curl_multi_socket_action(b->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    for (int i = 0; i < n; i++) {
        int what = ((events[i].events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                   ((events[i].events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0);
        (void)curl_multi_socket_action(b->multi, events[i].data.fd, what, &running);
    }
}

static CURL *bare_easy(struct curl_slist *headers)
{
    CURL *easy = curl_easy_init();
    (void)curl_easy_setopt(easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)body_len);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (ca_file != NULL)
        (void)curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
    return easy;
}

struct measure {
    double rate;
    double cpu_us;
    uint64_t done;
};

static struct measure measure_bare(void)
{
    struct bare b = {
        .multi = curl_multi_init(), .ep = epoll_create1(EPOLL_CLOEXEC), .timeout_ms = -1};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "webhook-id: 42-hegozygv1x");
    headers = curl_slist_append(headers, "webhook-timestamp: 1767323045");
    headers = curl_slist_append(headers, "webhook-attempt: 1");
    headers = curl_slist_append(headers, "Expect:");
    CURL *easies[SLOTS_MAX];
    (void)curl_multi_setopt(b.multi, CURLMOPT_MAXCONNECTS, (long)concurrency + 1);
    (void)curl_multi_setopt(b.multi, CURLMOPT_SOCKETFUNCTION, on_bare_socket);
    (void)curl_multi_setopt(b.multi, CURLMOPT_SOCKETDATA, &b);
    (void)curl_multi_setopt(b.multi, CURLMOPT_TIMERFUNCTION, on_bare_timer);
    (void)curl_multi_setopt(b.multi, CURLMOPT_TIMERDATA, &b);
    for (unsigned i = 0; i < concurrency; i++) {
        easies[i] = bare_easy(headers);
        (void)curl_multi_add_handle(b.multi, easies[i]);
    }
    uint64_t begin_us = clock_mono_us();
    uint64_t cpu_begin_us = cpu_us();
    while (clock_mono_us() - begin_us < duration_ms * 1000) {
        bare_turn(&b);
        bare_collect(&b, true);
    }
    double elapsed_us = (double)(clock_mono_us() - begin_us);
    struct measure m = {.rate = (double)b.done * 1e6 / elapsed_us,
                        .cpu_us = (double)(cpu_us() - cpu_begin_us) / (double)b.done,
                        .done = b.done};
    for (unsigned i = 0; i < concurrency; i++) {
        (void)curl_multi_remove_handle(b.multi, easies[i]);
        curl_easy_cleanup(easies[i]);
    }
    (void)curl_multi_cleanup(b.multi);
    curl_slist_free_all(headers);
    (void)close(b.ep);
    return m;
}

/* ---- The executor ---- */

static struct run runs[SLOTS_MAX];
static uint64_t runs_done;
static uint64_t end_us;

static void on_done(struct run *run, const struct outcome *outcome)
{
    struct outcome refused;
    if (outcome->kind != OUTCOME_DONE)
        die(outcome->reason);
    runs_done++;
    if (clock_mono_us() < end_us && run_start(run, &refused) != 0)
        die(refused.reason);
}

static struct measure measure_executor(void)
{
    uv_loop_t loop;
    struct executor *ex = NULL;
    struct task_config task = {.kind = HANDLER_WEBHOOK, .timeout_ms = 30000};
    struct job job = {.id = 42, .attempt = 1, .created_at_us = INT64_C(1767323045678901)};
    task.webhook.url = url;
    task.webhook.connect_timeout_ms = 5000;
    task.webhook.tls_verify = true;
    task.webhook.response_capture_bytes = (size_t)8 * 1024;
    task.webhook.response_drain_bytes = (size_t)64 * 1024;
    task.concurrency = concurrency;
    const struct config config = {.tasks = &task, .tasks_count = 1};
    if (uv_loop_init(&loop) != 0 || webhook_executor_new(&loop, &config, &ex) != 0)
        die("no executor");
    runs_done = 0;
    uint64_t begin_us = clock_mono_us();
    uint64_t cpu_begin_us = cpu_us();
    end_us = begin_us + duration_ms * 1000;
    for (unsigned i = 0; i < concurrency; i++) {
        struct outcome refused;
        runs[i] = (struct run){.job = &job,
                               .task = &task,
                               .body = body,
                               .body_len = body_len,
                               .content_type = "application/json",
                               .executor = ex,
                               .on_done = on_done};
        if (run_start(&runs[i], &refused) != 0)
            die(refused.reason);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    double elapsed_us = (double)(clock_mono_us() - begin_us);
    struct measure m = {.rate = (double)runs_done * 1e6 / elapsed_us,
                        .cpu_us = (double)(cpu_us() - cpu_begin_us) / (double)runs_done};
    ex->ops->close(ex, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0)
        die("the loop is not empty");
    return m;
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct measure *)a)->rate;
    double y = ((const struct measure *)b)->rate;
    return (x > y) - (x < y);
}

static struct measure median(struct measure *of)
{
    qsort(of, ROUNDS, sizeof *of, by_rate);
    return of[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        int port = 0;
        int fd = server_listen(&port);
        bench_tell_port(argv[2], port);
        serve(fd);
    }
    if (argc > 1)
        duration_ms = (uint64_t)(strtod(argv[1], NULL) * 1000);
    if (argc > 2)
        concurrency = (unsigned)strtoul(argv[2], NULL, 10);
    if (argc > 3)
        body_len = strtoul(argv[3], NULL, 10);
    if (duration_ms == 0 || concurrency == 0 || concurrency > SLOTS_MAX)
        die("usage: bench_webhook [SECONDS] [CONCURRENCY, at most 512] [BODY_BYTES]");
    body = ob_xcalloc(body_len + 1, 1);
    memset(body, 'x', body_len);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc > 4) {
        (void)snprintf(url, sizeof url, "%s", argv[4]);
        ca_file = argc > 5 ? argv[5] : NULL;
        struct measure m = measure_bare();
        (void)printf("jobs_per_s=%.0f jobs=%llu process_us=%.1f\n", m.rate,
                     (unsigned long long)m.done, m.cpu_us);
        ob_free(body);
        return 0;
    }
    server_start();
    struct measure bare[ROUNDS];
    struct measure ours[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        bare[i] = measure_bare();
        ours[i] = measure_executor();
    }
    struct measure a = median(bare);
    struct measure b = median(ours);
    (void)printf("%u at once, bodies of %zu bytes, medians of %d rounds\n", concurrency, body_len,
                 ROUNDS);
    (void)printf("bare libcurl loop   %8.0f requests/s  %5.1f us of processor a request\n", a.rate,
                 a.cpu_us);
    (void)printf("webhook executor    %8.0f requests/s  %5.1f us of processor a request\n", b.rate,
                 b.cpu_us);
    (void)printf("ratio               %8.2f\n", b.rate / a.rate);
    ob_free(body);
    return 0;
}
