/* transfer.c - see transfer.h: libcurl's options, and the meaning of its results. What is sent is
 * in request.c, what comes back in response.c, what follows from it in verdict.c. */
#include "webhook/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/version.h"
#include "webhook/address.h"
#include "webhook/credentials.h"
#include "webhook/request.h"

/* A connection is closed at this age at the latest, so that a changed DNS record is noticed; and
 * when it was idle for so long; and names are looked up again after so long. */
enum { CONNECTION_LIFETIME_S = 600, CONNECTION_IDLE_S = 118, DNS_CACHE_S = 60 };

/* ---- verdicts ---- */

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

struct verdict transfer_verdict(struct transfer *t, CURLcode code)
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
    if (t->denied[0] != '\0' && !t->has_socket &&
        (code == CURLE_COULDNT_CONNECT || code == CURLE_ABORTED_BY_CALLBACK)) {
        (void)snprintf(t->error, sizeof t->error, "%s is a private address (private_addresses)",
                       t->denied);
        v.error_class = "address";
        v.text = t->error;
    }
    return v;
}

/* ---- libcurl's callbacks ---- */

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

/* Behind the name's resolution: what a name means now, and what it meant a moment ago, may differ.
 */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *t = arg;
    const struct webhook_config *config = &t->task->webhook;
    (void)purpose;
    if (config->private_addresses == PRIVATE_DENY && address_is_private(&address->addr)) {
        const char *at = (const char *)&address->addr;
        at += address->family == AF_INET ? offsetof(struct sockaddr_in, sin_addr)
                                         : offsetof(struct sockaddr_in6, sin6_addr);
        if (inet_ntop(address->family, at, t->denied, sizeof t->denied) == NULL)
            (void)snprintf(t->denied, sizeof t->denied, "it");
        return CURL_SOCKET_BAD;
    }
    t->has_socket = true;
    return multi_open_socket(t->multi, address);
}

/* A kept connection was opened for whom it may: by the task that uses it now it is judged anew.
 * The signature is libcurl's. */
// NOLINTNEXTLINE(readability-non-const-parameter)
static int on_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    struct transfer *t = arg;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    if (!address_text_is_private(remote_ip))
        return CURL_PREREQFUNC_OK;
    (void)snprintf(t->denied, sizeof t->denied, "%s", remote_ip);
    t->has_socket = false;
    return CURL_PREREQFUNC_ABORT;
}

/* ---- settings ---- */

#define SET(option, value)                                                                         \
    do {                                                                                           \
        if (code == CURLE_OK)                                                                      \
            code = curl_easy_setopt(easy, option, value);                                          \
    } while (0)

/* Where to, how, and what of the environment not to believe. */
static CURLcode set_network(struct transfer *t, const struct webhook_config *config)
{
    CURL *easy = t->easy;
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
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_CLOSESOCKETFUNCTION, multi_close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, t->multi); /* the connection keeps it, and outlives t */
    SET(CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_LIFETIME_S);
    SET(CURLOPT_MAXAGE_CONN, (long)CONNECTION_IDLE_S);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, (long)DNS_CACHE_S);
    /* "" and not NULL: libcurl would look into *_proxy and no_proxy. */
    SET(CURLOPT_PROXY, config->proxy != NULL ? config->proxy : "");
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* a proxy's 200 is nobody's answer */
    if (config->private_addresses == PRIVATE_DENY) {
        SET(CURLOPT_PREREQFUNCTION, on_request);
        SET(CURLOPT_PREREQDATA, t);
    }
    return code;
}

static CURLcode set_blob(CURL *easy, CURLoption option, const struct pem *pem)
{
    struct curl_blob blob = {.flags = CURL_BLOB_NOCOPY}; /* lives as long as the task's settings */
    blob.data = pem->data;
    blob.len = pem->len;
    return curl_easy_setopt(easy, option, &blob);
}

static CURLcode set_tls(CURL *easy, const struct webhook_config *config)
{
    const struct pem *ca = credentials_ca(config->credentials);
    const struct pem *cert = credentials_client_cert(config->credentials);
    const struct pem *key = credentials_client_key(config->credentials);
    CURLcode code = CURLE_OK;
    SET(CURLOPT_SSL_VERIFYPEER, config->tls_verify ? 1L : 0L);
    SET(CURLOPT_SSL_VERIFYHOST, config->tls_verify ? 2L : 0L);
    if (ca != NULL) {
        SET(CURLOPT_CAPATH, NULL); /* the system's folder would be trusted beside it */
        if (code == CURLE_OK)
            code = set_blob(easy, CURLOPT_CAINFO_BLOB, ca);
    }
    if (code == CURLE_OK && cert != NULL)
        code = set_blob(easy, CURLOPT_SSLCERT_BLOB, cert);
    if (code == CURLE_OK && key != NULL)
        code = set_blob(easy, CURLOPT_SSLKEY_BLOB, key);
    return code;
}

static CURLcode set_handlers(struct transfer *t, const struct webhook_config *config)
{
    CURL *easy = t->easy;
    CURLcode code = CURLE_OK;
    SET(CURLOPT_USERAGENT, "pgoutbox/" OB_VERSION);
    SET(CURLOPT_POST, 1L);
    if (config->method != NULL && strcmp(config->method, "POST") != 0)
        SET(CURLOPT_CUSTOMREQUEST, config->method);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_ERRORBUFFER, t->error);
    SET(CURLOPT_PRIVATE, t);
    return code;
}

/* All that is the same for every run of the task. */
static int set_task(struct transfer *t, const struct task_config *task)
{
    if (t->task == task)
        return 0;
    curl_easy_reset(t->easy);
    t->task = task;
    const struct webhook_config *config = &task->webhook;
    if (set_network(t, config) == CURLE_OK && set_tls(t->easy, config) == CURLE_OK &&
        set_handlers(t, config) == CURLE_OK)
        return 0;
    t->task = NULL;
    return OB_ENOMEM;
}

/* The header list, of nodes of our own: libcurl reads it, and would copy each line. */
static int set_headers(struct transfer *t)
{
    size_t count = 0;
    for (size_t at = 0; at < t->lines.len; at += strlen(t->lines.data + at) + 1)
        count++;
    ob_assert(count > 0);
    if (count > t->nodes_count) {
        struct curl_slist *nodes = ob_realloc(t->nodes, count * sizeof *nodes);
        if (nodes == NULL)
            return OB_ENOMEM;
        t->nodes = nodes;
        t->nodes_count = count;
    }
    char *line = t->lines.data;
    for (size_t i = 0; i < count; i++, line += strlen(line) + 1)
        t->nodes[i] =
            (struct curl_slist){.data = line, .next = i + 1 < count ? &t->nodes[i + 1] : NULL};
    return 0;
}

int transfer_prepare(struct transfer *t, struct run *run)
{
    CURL *easy = t->easy;
    ob_assert(t->run == NULL);
    int err = set_task(t, run->task);
    if (err != 0)
        return err;
    const struct webhook_config *config = &run->task->webhook;
    t->response.head.len_max = config->response_capture_bytes;
    t->response.body_bytes_max = config->response_drain_bytes;
    buf_clear(&t->lines);
    err = request_headers(run, &t->lines);
    if (err == 0)
        err = set_headers(t);
    if (err != 0)
        return err;
    /* The body is not copied: it lives with the run. */
    CURLcode code = CURLE_OK;
    SET(CURLOPT_HTTPHEADER, t->nodes);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)run->body_len);
    SET(CURLOPT_POSTFIELDS, run->body_len > 0 ? (const char *)run->body : "");
    if (code != CURLE_OK)
        return OB_ENOMEM;
    t->run = run;
    return 0;
}

/* ---- life ---- */

struct transfer *transfer_new(struct webhook *owner, struct multi *multi)
{
    struct transfer *t = ob_calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->owner = owner;
    t->multi = multi;
    list_init(&t->link);
    buf_init(&t->lines, REQUEST_HEADERS_MAX);
    response_init(&t->response, 0, 0);
    t->deadline.data = t;
    t->easy = curl_easy_init();
    if (t->easy == NULL) {
        transfer_free(t);
        return NULL;
    }
    return t;
}

void transfer_free(struct transfer *t)
{
    if (t == NULL)
        return;
    curl_easy_cleanup(t->easy);
    buf_deinit(&t->lines);
    response_deinit(&t->response);
    ob_free(t->nodes);
    ob_free(t);
}

uint64_t transfer_connections(const struct transfer *t)
{
    long connections = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connections);
    return connections > 0 ? (uint64_t)connections : 0;
}

void transfer_clear(struct transfer *t)
{
    t->run = NULL;
    t->endpoint = NULL;
    t->is_probe = false;
    t->is_dropped = false;
    t->has_socket = false;
    t->denied[0] = '\0';
    t->error[0] = '\0';
    response_clear(&t->response);
}
