/* transfer.h - one attempt as libcurl knows it: an easy handle, what it sends, and what came back.
 *
 * A transfer is used again and again: all that a task says of its requests is set once, and each
 * run only brings its body and headers. Made and owned by http.c. */
#ifndef OB_WEBHOOK_TRANSFER_H
#define OB_WEBHOOK_TRANSFER_H

#include <curl/curl.h>

#include "core/handler.h"
#include "webhook/endpoints.h"
#include "webhook/multi.h"
#include "webhook/response.h"
#include "webhook/verdict.h"

struct webhook;

enum { DENIED_SIZE = 48 };

struct transfer {
    struct webhook *owner;
    struct multi *multi;
    struct run *run; /* NULL: idle */
    struct endpoint_entry *endpoint;
    bool is_probe;
    bool is_dropped; /* STOP_KILL or STOP_CANCEL; the deadline is due at once */
    uv_timer_t deadline;
    struct list link; /* of the idle ones, or of those that run */

    CURL *easy;
    const struct task_config *task; /* whose settings the handle has; NULL: none yet */
    unsigned generation;            /* of the configuration that task is of; the owner's */
    struct buf lines;               /* header lines, a NUL after each */
    struct curl_slist *nodes;       /* of the header list, views into lines */
    size_t nodes_count;
    struct response response;
    bool has_socket;          /* one was opened for this attempt */
    char denied[DENIED_SIZE]; /* the address that private_addresses refused */
    char error[CURL_ERROR_SIZE];
};

/* NULL: no memory. Its deadline is the owner's to initialise, and to close before transfer_free. */
struct transfer *transfer_new(struct webhook *owner, struct multi *multi) OB_MUST_CHECK;
void transfer_free(struct transfer *t);

/* Makes it ready to be added for the run. OB_ENOMEM, OB_ETOOBIG. */
int transfer_prepare(struct transfer *t, struct run *run) OB_MUST_CHECK;
/* What libcurl's result means for the run; the text lives until the next attempt. */
struct verdict transfer_verdict(struct transfer *t, CURLcode code);
/* How many connections libcurl opened for it. */
uint64_t transfer_connections(const struct transfer *t);
/* Forgets the run and what came back, keeps the settings. */
void transfer_clear(struct transfer *t);

#endif
