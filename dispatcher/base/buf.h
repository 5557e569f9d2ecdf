/* buf.h - a growable byte buffer with a bound. Errors stick: append freely, look at `err` once.
 *
 * The contents are always followed by a NUL that `len` does not count, so that data may be used as
 * a C string (never NULL after the first append). */
#ifndef OB_BASE_BUF_H
#define OB_BASE_BUF_H

#include <stddef.h>

#include "base/err.h"

struct buf {
    char *data;
    size_t len;
    size_t cap;
    size_t len_max; /* appending beyond it sets err = OB_ETOOBIG and changes nothing */
    int err;        /* 0, OB_ENOMEM or OB_ETOOBIG; sticky until buf_clear */
};

void buf_init(struct buf *b, size_t len_max);
void buf_deinit(struct buf *b);
void buf_clear(struct buf *b); /* empties, forgets err, keeps the memory */
void buf_append(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
OB_PRINTF(2, 3) void buf_printf(struct buf *b, const char *fmt, ...);
/* Appends s as a JSON string, quotes included. Invalid UTF-8 becomes U+FFFD. */
void buf_json_string(struct buf *b, const char *s, size_t n);
/* Hands the memory to the caller (ob_free), never NULL unless err; the buffer is empty afterwards.
 */
char *buf_take(struct buf *b) OB_MUST_CHECK;

#endif
