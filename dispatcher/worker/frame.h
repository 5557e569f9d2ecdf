/* frame.h - what is written to a worker: the greeting, and jobs. Pure. docs/handlers-worker.md has
 * the protocol; change both, and outbox/worker.h. */
#ifndef OB_WORKER_FRAME_H
#define OB_WORKER_FRAME_H

#include <stdint.h>

#include "base/buf.h"
#include "core/handler.h"

enum { FRAME_HEADER_MAX = 64 * 1024 }; /* with its line end */

void frame_hello(struct buf *out);
/* Appends the job's header line and payload. Returns 0; OB_ENOMEM, or OB_ETOOBIG for a header over
 * FRAME_HEADER_MAX, and then out is as it was. */
int frame_job(struct buf *out, const struct run *run, uint64_t deadline_unix_s) OB_MUST_CHECK;

#endif
