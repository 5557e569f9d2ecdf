/* multi.c - see multi.h. */
#include "webhook/multi.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "webhook/pollset.h"
#include "webhook/version.h"

struct multi {
    CURLM *curlm;
    uv_timer_t timer; /* libcurl's one timer */
    struct pollset pollset;
    void (*on_over)(void *arg, CURL *easy, CURLcode code);
    void *arg;
    void (*close_cb)(void *arg);
    bool closing;
};

/* ---- what is over ---- */

/* After every call into libcurl that may move transfers, whatever it says of how many are running:
 * the last one to time out would otherwise never be reported. on_over may start others; they are
 * not over before libcurl is called again, so this ends. */
static void drain(struct multi *m)
{
    int left = 0;
    for (CURLMsg *msg = curl_multi_info_read(m->curlm, &left); msg != NULL;
         msg = curl_multi_info_read(m->curlm, &left)) {
        if (msg->msg == CURLMSG_DONE)
            m->on_over(m->arg, msg->easy_handle, msg->data.result); /* msg dies with the handle */
    }
}

static void act(struct multi *m, curl_socket_t fd, int events)
{
    int running = 0;
    (void)curl_multi_socket_action(m->curlm, fd, events, &running);
    drain(m);
}

/* ---- libcurl's wishes ---- */

static void on_timer(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* With CURL_CSELECT_ERR alone libcurl gives up unread; with IN beside it, it reads what came before
 * the error, and then the error itself. */
static void on_ready(void *arg, int fd, int events)
{
    int curl_events = 0;
    if ((events & POLL_READ) != 0)
        curl_events |= CURL_CSELECT_IN;
    if ((events & POLL_WRITE) != 0)
        curl_events |= CURL_CSELECT_OUT;
    if ((events & POLL_ERROR) != 0)
        curl_events |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
    act(arg, fd, curl_events);
}

/* One timer, replaced by each call. 0 stays 0: it fires on the loop's next turn; rounding it up to
 * 1 ms would cost that on every request. */
static int on_timer_wanted(CURLM *curlm, long timeout_ms, void *arg)
{
    struct multi *m = arg;
    (void)curlm;
    if (m->closing || timeout_ms < 0)
        (void)uv_timer_stop(&m->timer);
    else
        (void)uv_timer_start(&m->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

/* A socket is to be watched, or no more: idle in the pool, or about to be closed. It may be any
 * socket of libcurl's, a resolver's too: easy means nothing here. Never fails towards libcurl,
 * which would give up all transfers; one that nobody watches ends by its deadline. */
static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_data)
{
    struct multi *m = arg;
    int wanted = 0;
    (void)easy;
    (void)socket_data;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        wanted |= POLL_READ;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        wanted |= POLL_WRITE;
    pollset_set(&m->pollset, fd, wanted);
    return 0;
}

/* libcurl before 8.17 opens its sockets without CLOEXEC. */
curl_socket_t multi_open_socket(struct multi *m, const struct curl_sockaddr *address)
{
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    pollset_opened(&m->pollset, fd);
    return fd;
}

int multi_close_socket(void *multi, curl_socket_t fd)
{
    struct multi *m = multi;
    pollset_closed(&m->pollset, fd);
    (void)close(fd);
    return 0;
}

/* ---- life ---- */

/* There is no matching clean-up: it would be for the end of the process only. */
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

int multi_new(uv_loop_t *loop, void (*on_over)(void *arg, CURL *easy, CURLcode code), void *arg,
              struct multi **ret_multi)
{
    if (init_curl() != 0)
        return OB_ENOMEM;
    struct multi *m = ob_calloc(1, sizeof *m);
    if (m == NULL)
        return OB_ENOMEM;
    m->on_over = on_over;
    m->arg = arg;
    m->curlm = curl_multi_init();
    int err = m->curlm != NULL ? pollset_open(&m->pollset, loop, on_ready, m) : OB_ENOMEM;
    if (err != 0) {
        (void)curl_multi_cleanup(m->curlm);
        ob_free(m);
        return err;
    }
    m->timer.data = m;
    (void)uv_timer_init(loop, &m->timer); /* always 0 */
    /* These fail only when unknown. */
    (void)curl_multi_setopt(m->curlm, CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
    (void)curl_multi_setopt(m->curlm, CURLMOPT_SOCKETDATA, m);
    (void)curl_multi_setopt(m->curlm, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    (void)curl_multi_setopt(m->curlm, CURLMOPT_TIMERDATA, m);
    *ret_multi = m;
    return 0;
}

static void on_pollset_closed(struct pollset *p)
{
    struct multi *m = (struct multi *)((char *)p - offsetof(struct multi, pollset));
    void (*cb)(void *arg) = m->close_cb;
    void *arg = m->arg;
    ob_free(m);
    cb(arg);
}

/* The kept connections go here, and with them the last sockets. In a callback of the loop of its
 * own: close may have been called from on_over, below drain(). */
static void on_timer_closed(uv_handle_t *handle)
{
    struct multi *m = handle->data;
    (void)curl_multi_cleanup(m->curlm);
    m->curlm = NULL;
    pollset_close(&m->pollset, on_pollset_closed);
}

void multi_close(struct multi *m, void (*cb)(void *arg))
{
    ob_assert(!m->closing);
    m->closing = true;
    m->close_cb = cb;
    uv_close((uv_handle_t *)&m->timer, on_timer_closed);
}

/* libcurl's own pool of four connections a transfer would close and open one for nearly every
 * request at low concurrency. */
void multi_keep(struct multi *m, unsigned connections)
{
    (void)curl_multi_setopt(m->curlm, CURLMOPT_MAXCONNECTS,
                            connections > 0 ? (long)connections : 1L);
}

int multi_add(struct multi *m, CURL *easy)
{
    ob_assert(!m->closing);
    return curl_multi_add_handle(m->curlm, easy) == CURLM_OK ? 0 : OB_ENOMEM;
}

void multi_remove(struct multi *m, CURL *easy)
{
    (void)curl_multi_remove_handle(m->curlm, easy); /* fails only for one not there */
}

const char *webhook_curl_version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}
