/* verdict.h - from the end of a transfer to the outcome of its run. Pure: http.c translates
 * libcurl's codes into these words, core/outcome.c has the table for what was answered. */
#ifndef OB_WEBHOOK_VERDICT_H
#define OB_WEBHOOK_VERDICT_H

#include "core/handler.h"
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
    const char *error_class; /* "dns", "connect", "tls", "reset", "network", "protocol" */
    const char *text;
};

/* Fills o, whose head is a view into r. A complete answer counts, whatever the verdict. */
void verdict_outcome(const struct verdict *v, const struct run *run, const struct response *r,
                     int64_t now_unix_ms, struct outcome *o);

#endif
