/* request.h - what a webhook's request says of its job. Pure. */
#ifndef OB_WEBHOOK_REQUEST_H
#define OB_WEBHOOK_REQUEST_H

#include "base/buf.h"
#include "core/handler.h"

/* Header lines together; a bound for what an operator writes. */
enum { REQUEST_HEADERS_MAX = 1024 * 1024 };

/* Appends the request's header lines, each followed by a NUL. "Expect:" among them keeps
 * libcurl from sending its own. The run has been started: its start is the webhook-timestamp.
 * Returns 0, OB_ENOMEM or OB_ETOOBIG. */
int request_headers(const struct run *run, struct buf *out) OB_MUST_CHECK;

#endif
