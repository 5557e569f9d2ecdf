/* http.c - see http.h. The only file that includes curl: sockets are in watch.c, what is sent in
 * request.c, what comes back in response.c, what follows from it in verdict.c.
 *
 * Owns the multi handle, its timer, and a struct transfer for each run. A transfer ends in
 * finish(), reached from drain() (libcurl is done with it) or from its deadline (timeout, or
 * dropped). Nothing is finished, added or removed inside one of libcurl's callbacks. Everything
 * that holds a handle of the loop counts in `handles`; the executor is freed when the last one is
 * closed. */
#include "webhook/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/version.h"
#include "webhook/request.h"
#include "webhook/response.h"
#include "webhook/verdict.h"
#include "webhook/version.h"
#include "webhook/watch.h"

/* A connection is closed at this age at the latest, so that a changed DNS record is noticed; and
 * when it was idle for so long; and names are looked up again after so long. */
enum { CONNECTION_LIFETIME_S = 600, CONNECTION_IDLE_S = 118, DNS_CACHE_S = 60 };
enum { OUT_OF_MEMORY_DELAY_MS = 1000 };

struct webhook {
    struct executor base;
    CURLM *multi;
    uv_timer_t timer; /* libcurl's one timer */
    unsigned handles; /* of the loop: the timer, watches, deadlines */
    struct webhook_stats stats;
    void (*close_cb)(struct executor *ex);
    bool closing;
};

struct transfer {
    struct webhook *owner;
    struct run *run; /* NULL: finished, only the close callback of the deadline is left */
    CURL *easy;
    struct curl_slist *headers;
    struct response response;
    uv_timer_t deadline;
    bool is_dropped; /* STOP_KILL or STOP_CANCEL; the deadline is due at once */
    char error[CURL_ERROR_SIZE];
};

static void release(struct webhook *w)
{
    ob_assert(w->handles > 0);
    w->handles--;
    if (w->handles > 0)
        return;
    ob_assert(w->closing);
    if (w->close_cb != NULL)
        w->close_cb(&w->base);
    ob_free(w);
}

/* ---- Verdicts ---- */

/* The class of a failure, in the words of docs/handlers-webhook.md. */
static const char *error_class(CURLcode code, long os_errno)
{
    switch ((int)code) { /* int: a few of its hundred values are named */
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "dns";
    case CURLE_COULDNT_CONNECT:
        return "connect";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
        return "tls";
    case CURLE_GOT_NOTHING:
        return "reset";
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        return os_errno == ECONNRESET || os_errno == EPIPE ? "reset" : "network";
    case CURLE_UNSUPPORTED_PROTOCOL: /* also: an answer that is no HTTP/1 */
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_WRITE_ERROR: /* our own refusal of endless headers */
        return "protocol";
    default:
        return "network";
    }
}

/* What libcurl's result means for the run; the text lives as long as t. */
static struct verdict verdict_of(struct transfer *t, CURLcode code)
{
    struct verdict v = {.kind = VERDICT_FAILED};
    long os_errno = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
    v.error_class = error_class(code, os_errno);
    v.text = t->error[0] != '\0' ? t->error : curl_easy_strerror(code);
    switch ((int)code) {
    case CURLE_OK:
        v.kind = VERDICT_OVER;
        break;
    case CURLE_OPERATION_TIMEDOUT: /* no other timeout of libcurl's is set */
        v.kind = VERDICT_CONNECT_TIMEOUT;
        break;
    case CURLE_WRITE_ERROR:
        v.text = "the headers of the answer do not end";
        break;
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_URL_MALFORMAT:
        v.kind = VERDICT_MISCONFIGURED;
        break;
    default:
        break;
    }
    return v;
}

/* ---- Transfers ---- */

static void on_deadline_closed(uv_handle_t *handle)
{
    struct transfer *t = handle->data;
    struct webhook *w = t->owner;
    ob_assert(t->run == NULL);
    response_deinit(&t->response);
    ob_free(t);
    release(w);
}

/* Ends the transfer and its run. The response stays until the close callback: on_done sees it. */
static void finish(struct transfer *t, const struct verdict *verdict)
{
    struct webhook *w = t->owner;
    struct run *run = t->run;
    ob_assert(run != NULL);
    t->run = NULL;
    struct outcome outcome;
    verdict_outcome(verdict, run, &t->response, clock_unix_us() / 1000, &outcome);

    long connections = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connections);
    w->stats.connections += (uint64_t)connections;
    w->stats.requests++;
    w->stats.running--;
    (void)curl_multi_remove_handle(w->multi, t->easy); /* fails only for one not there */
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    curl_slist_free_all(t->headers);
    t->headers = NULL;
    uv_close((uv_handle_t *)&t->deadline, on_deadline_closed);
    run_finish(run, &outcome);
}

/* Collects what is over. After every call into libcurl that may move transfers, whatever it says of
 * how many are running: the last one to time out would otherwise never be reported. on_done may
 * start others; they are not over before libcurl is called again, so this ends. */
static void drain(struct webhook *w)
{
    int left = 0;
    for (CURLMsg *m = curl_multi_info_read(w->multi, &left); m != NULL;
         m = curl_multi_info_read(w->multi, &left)) {
        if (m->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CURLcode code = m->data.result; /* m dies with the easy handle */
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
        struct transfer *t = (struct transfer *)(void *)private;
        const struct verdict verdict = verdict_of(t, code);
        finish(t, &verdict);
    }
}

static void on_deadline(uv_timer_t *timer)
{
    struct transfer *t = timer->data;
    const struct verdict verdict = {.kind = t->is_dropped ? VERDICT_DROPPED : VERDICT_TIMEOUT};
    finish(t, &verdict);
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    return response_header(&t->response, line, size * count) ? size * count : 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    return response_body(&t->response, bytes, size * count) ? size * count : 0;
}

/* libcurl before 8.17 opens its sockets without CLOEXEC. */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

#define SET(option, value)                                                                         \
    do {                                                                                           \
        if (code == CURLE_OK)                                                                      \
            code = curl_easy_setopt(easy, option, value);                                          \
    } while (0)

/* Where to, how, and what of the environment not to believe. */
static CURLcode set_network(CURL *easy, const struct webhook_config *config)
{
    CURLcode code = CURLE_OK;
    SET(CURLOPT_URL, config->url);
    SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    SET(CURLOPT_QUICK_EXIT, 1L); /* else removing a transfer waits for its resolver thread */
#endif
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)config->connect_timeout_ms);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_LIFETIME_S);
    SET(CURLOPT_MAXAGE_CONN, (long)CONNECTION_IDLE_S);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, (long)DNS_CACHE_S);
    /* "" and not NULL: libcurl would look into *_proxy and no_proxy. */
    SET(CURLOPT_PROXY, config->proxy != NULL ? config->proxy : "");
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* a proxy's 200 is nobody's answer */
    SET(CURLOPT_SSL_VERIFYPEER, config->tls_verify ? 1L : 0L);
    SET(CURLOPT_SSL_VERIFYHOST, config->tls_verify ? 2L : 0L);
    if (config->ca_file != NULL)
        SET(CURLOPT_CAINFO, config->ca_file);
    return code;
}

/* Fills t->headers. */
static CURLcode add_headers(struct transfer *t)
{
    struct buf lines;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    buf_init(&lines, REQUEST_HEADERS_MAX);
    if (request_headers(t->run, &lines) != 0)
        goto out;
    for (size_t at = 0; at < lines.len; at += strlen(lines.data + at) + 1) {
        struct curl_slist *longer = curl_slist_append(t->headers, lines.data + at);
        if (longer == NULL)
            goto out;
        t->headers = longer;
    }
    code = CURLE_OK;
out:
    buf_deinit(&lines);
    return code;
}

/* What is sent, and who hears of the answer. The body is not copied: it lives with the run. */
static CURLcode set_request(struct transfer *t)
{
    CURL *easy = t->easy;
    const struct run *run = t->run;
    const char *method = run->task->webhook.method;
    CURLcode code = add_headers(t);
    SET(CURLOPT_HTTPHEADER, t->headers);
    SET(CURLOPT_USERAGENT, "pgoutbox/" OB_VERSION);
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)run->body_len);
    SET(CURLOPT_POSTFIELDS, run->body_len > 0 ? (const char *)run->body : "");
    if (method != NULL && strcmp(method, "POST") != 0)
        SET(CURLOPT_CUSTOMREQUEST, method);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_ERRORBUFFER, t->error);
    SET(CURLOPT_PRIVATE, t);
    return code;
}

static void transfer_free(struct transfer *t)
{
    if (t == NULL)
        return;
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    response_deinit(&t->response);
    ob_free(t);
}

static struct transfer *transfer_new(struct webhook *w, struct run *run)
{
    struct transfer *t = ob_calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    const struct webhook_config *config = &run->task->webhook;
    t->owner = w;
    t->run = run;
    t->deadline.data = t;
    response_init(&t->response, config->response_capture_bytes, config->response_drain_bytes);
    t->easy = curl_easy_init();
    if (t->easy == NULL || set_network(t->easy, config) != CURLE_OK || set_request(t) != CURLE_OK) {
        transfer_free(t);
        return NULL;
    }
    return t;
}

/* ---- The executor ---- */

static int webhook_start(struct executor *ex, struct run *run, struct outcome *ret_outcome)
{
    struct webhook *w = (struct webhook *)ex;
    ob_assert(!w->closing);
    struct transfer *t = transfer_new(w, run);
    /* Adding only sets libcurl's timer: the first byte moves on the next turn of the loop. */
    if (t == NULL || curl_multi_add_handle(w->multi, t->easy) != CURLM_OK) {
        transfer_free(t);
        outcome_set(ret_outcome, OUTCOME_RELEASE, "out of memory for a request");
        ret_outcome->delay_ms = OUT_OF_MEMORY_DELAY_MS;
        return OB_ENOMEM;
    }
    (void)uv_timer_init(ex->loop, &t->deadline); /* always 0 */
    w->handles++;
    w->stats.running++;
    uv_update_time(ex->loop); /* the loop's clock stands still within a turn */
    (void)uv_timer_start(&t->deadline, on_deadline, run->task->timeout_ms, 0);
    run->executor_data = t;
    return 0;
}

static void webhook_stop(struct executor *ex, struct run *run, enum stop_reason reason)
{
    struct transfer *t = run->executor_data;
    ob_assert(t != NULL);
    ob_assert(t->owner == (struct webhook *)ex);
    if ((reason != STOP_KILL && reason != STOP_CANCEL) || t->is_dropped)
        return;
    t->is_dropped = true;
    (void)uv_timer_start(&t->deadline, on_deadline, 0, 0);
}

/* ---- libcurl on the loop ---- */

static void act(struct webhook *w, curl_socket_t fd, int events)
{
    int running = 0;
    (void)curl_multi_socket_action(w->multi, fd, events, &running);
    drain(w);
}

static void on_timer(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* With CURL_CSELECT_ERR alone libcurl gives up unread; with IN beside it, it reads what came before
 * the error, and then the error itself. */
static void on_ready(void *arg, int fd, int events)
{
    int curl_events = 0;
    if ((events & WATCH_READ) != 0)
        curl_events |= CURL_CSELECT_IN;
    if ((events & WATCH_WRITE) != 0)
        curl_events |= CURL_CSELECT_OUT;
    if ((events & WATCH_ERROR) != 0)
        curl_events |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
    act(arg, fd, curl_events);
}

static void on_watch_closed(void *arg)
{
    release(arg);
}

/* One timer, replaced by each call. 0 stays 0: it fires on the loop's next turn; rounding it up to
 * 1 ms would cost that on every request. */
static int on_timer_wanted(CURLM *multi, long timeout_ms, void *arg)
{
    struct webhook *w = arg;
    (void)multi;
    if (w->closing || timeout_ms < 0)
        (void)uv_timer_stop(&w->timer);
    else
        (void)uv_timer_start(&w->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

/* A socket is to be watched, or no more: idle in the pool, or about to be closed. It may be any
 * socket of libcurl's, a resolver's too: easy means nothing here. Never fails towards libcurl,
 * which would give up all transfers; one that nobody watches ends by its deadline. */
static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_data)
{
    struct webhook *w = arg;
    struct watch *watch = socket_data;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL)
            watch_close(watch);
        return 0;
    }
    if (watch == NULL) {
        if (watch_new(w->base.loop, fd, on_ready, on_watch_closed, w, &watch) != 0)
            return 0;
        w->handles++;
        (void)curl_multi_assign(w->multi, fd, watch); /* fd is known: it is being announced */
    }
    int wanted = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        wanted |= WATCH_READ;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        wanted |= WATCH_WRITE;
    watch_set(watch, wanted);
    return 0;
}

/* The kept connections go here, and with them the last watches. In a callback of the loop of its
 * own: close may have been called from on_done, below drain(). */
static void on_timer_closed(uv_handle_t *handle)
{
    struct webhook *w = handle->data;
    (void)curl_multi_cleanup(w->multi);
    w->multi = NULL;
    release(w);
}

static void webhook_close(struct executor *ex, void (*cb)(struct executor *ex))
{
    struct webhook *w = (struct webhook *)ex;
    ob_assert(!w->closing);
    ob_assert(w->stats.running == 0);
    w->closing = true;
    w->close_cb = cb;
    uv_close((uv_handle_t *)&w->timer, on_timer_closed);
}

static const struct executor_ops webhook_ops = {
    .name = "webhook", .start = webhook_start, .stop = webhook_stop, .close = webhook_close};

/* Once a process. There is no matching clean-up: it would be for the end of the process only. */
static int init_curl(void)
{
    static bool is_initialised;
    if (is_initialised)
        return 0;
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return OB_ENOMEM;
    is_initialised = true;
    return 0;
}

int webhook_executor_new(uv_loop_t *loop, unsigned connections_max, struct executor **ret_executor)
{
    if (init_curl() != 0)
        return OB_ENOMEM;
    struct webhook *w = ob_calloc(1, sizeof *w);
    if (w == NULL)
        return OB_ENOMEM;
    w->multi = curl_multi_init();
    if (w->multi == NULL) {
        ob_free(w);
        return OB_ENOMEM;
    }
    w->base.ops = &webhook_ops;
    w->base.loop = loop;
    w->timer.data = w;
    (void)uv_timer_init(loop, &w->timer); /* always 0 */
    w->handles = 1;
    /* These fail only when unknown. libcurl's own pool of four connections a transfer would close
     * and open one for nearly every request at low concurrency. */
    long pool = connections_max > 0 ? (long)connections_max : 1;
    (void)curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, pool);
    (void)curl_multi_setopt(w->multi, CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
    (void)curl_multi_setopt(w->multi, CURLMOPT_SOCKETDATA, w);
    (void)curl_multi_setopt(w->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    (void)curl_multi_setopt(w->multi, CURLMOPT_TIMERDATA, w);
    *ret_executor = &w->base;
    return 0;
}

void webhook_executor_stats(const struct executor *ex, struct webhook_stats *ret_stats)
{
    ob_assert(ex->ops == &webhook_ops);
    *ret_stats = ((const struct webhook *)ex)->stats;
}

const char *webhook_curl_version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}
