/* verdict.h - from the end of a transfer to the outcome of its run, and to what it means for
 * the endpoint. Pure: transfer.c translates libcurl's codes into these words, core/outcome.c has
 * the table for what was answered. */
#ifndef OB_WEBHOOK_VERDICT_H
#define OB_WEBHOOK_VERDICT_H

#include "core/handler.h"
#include "webhook/endpoint.h"
#include "webhook/response.h"

enum verdict_kind {
    VERDICT_OVER,            /* the connection's story is told: answered, or closed before that */
    VERDICT_TIMEOUT,         /* the task's timeout passed */
    VERDICT_CONNECT_TIMEOUT, /* its connect_timeout did */
    VERDICT_DROPPED,         /* we dropped it: the dispatcher stops */
    VERDICT_MISCONFIGURED,   /* no attempt was possible before the operator mends it: see text */
    VERDICT_FAILED           /* see error_class and text */
};

struct verdict {
    enum verdict_kind kind;
    /* "dns", "connect", "tls", "reset", "network", "protocol", "address" */
    const char *error_class;
    const char *text;
};

/* What it means for the endpoint's other jobs. */
struct verdict_effect {
    enum endpoint_result result;
    uint64_t hold_ms; /* it is to be left alone for so long; 0: it is not */
};

/* Fills o, whose head is a view into r. A complete answer counts, whatever the verdict. */
struct verdict_effect verdict_outcome(const struct verdict *v, const struct run *run,
                                      const struct response *r, int64_t now_unix_ms,
                                      struct outcome *o);

#endif
