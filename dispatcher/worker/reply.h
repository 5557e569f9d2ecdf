/* reply.h - one line that a worker wrote, read. Pure but for jansson's allocations; fuzzed.
 *
 * The protocol is docs/handlers-worker.md's: change both, and outbox/worker.h. */
#ifndef OB_WORKER_REPLY_H
#define OB_WORKER_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    WORKER_PROTO = 1,
    REPLY_LINE_MAX = 64 * 1024 /* with its line end */
};

enum reply_kind {
    REPLY_READY, /* window */
    REPLY_OK,    /* id; in this and the next three */
    REPLY_RETRY, /* delay_ms, error */
    REPLY_DEAD,  /* error */
    REPLY_TOUCH  /* delay_ms */
};

struct worker_reply {
    enum reply_kind kind;
    unsigned window;
    int64_t id;
    uint64_t delay_ms;
    const char *error; /* NULL: none; NUL-terminated, and without other NULs */
    size_t error_len;
    void *doc; /* what error points into */
};

/* line: len bytes, its '\n' not among them. Returns 0 and a reply that wants worker_reply_clear(),
 * OB_ENOMEM, or OB_ESYNTAX with *reterr_why saying what is wrong (static storage). */
int worker_reply_parse(const char *line, size_t len, struct worker_reply *ret,
                       const char **reterr_why) OB_MUST_CHECK;
void worker_reply_clear(struct worker_reply *r);

#endif
