/* response.h - an answer as it arrives: status, the headers that matter, the beginning of the body.
 * Pure: fed with header lines and pieces of body, knows neither sockets nor curl. */
#ifndef OB_WEBHOOK_RESPONSE_H
#define OB_WEBHOOK_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "core/outcome.h"

/* Header lines of one attempt together, 100-continue and trailers included. */
enum { RESPONSE_HEADERS_MAX = 256 * 1024 };
enum { RESPONSE_RETRY_AFTER_MAX = 64, RESPONSE_LOCATION_MAX = 200 };

struct response {
    int status;       /* of the header block that is being read; 0: none yet */
    bool is_complete; /* that status is the last word: its headers have ended */
    size_t header_bytes;
    uint64_t body_bytes;     /* received, not kept */
    uint64_t body_bytes_max; /* beyond it the rest is not read */
    struct buf head;         /* the first bytes of the body, at most its len_max */
    char retry_after[RESPONSE_RETRY_AFTER_MAX];
    char location[RESPONSE_LOCATION_MAX];
};

void response_init(struct response *r, size_t capture_bytes, uint64_t body_bytes_max);
void response_deinit(struct response *r);
/* As after response_init; the memory is kept. */
void response_clear(struct response *r);

/* One header line, its line end included; the empty line too. False: too many, give up. */
bool response_header(struct response *r, const char *line, size_t len) OB_MUST_CHECK;
/* A piece of the body. False: enough was read. */
bool response_body(struct response *r, const char *bytes, size_t len) OB_MUST_CHECK;

/* Fills status, location and Retry-After (clamped to retry_after_max_ms) of end, if the answer got
 * that far. Views into r. */
void response_end(const struct response *r, int64_t now_unix_ms, uint64_t retry_after_max_ms,
                  struct http_end *end);

#endif
