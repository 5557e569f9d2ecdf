/* payload.h - what is inside a job's payload: msgpack to JSON, and checks of JSON. Pure; fuzzed.
 *
 * bin -> base64 string; timestamp ext -> RFC 3339 string; other ext -> {"ext": type, "data":
 * base64}; a map key that is no string -> its JSON text as a string; integers exact to 64 bits; NaN
 * and the infinities -> null; invalid UTF-8 -> U+FFFD; nesting at most PAYLOAD_DEPTH_MAX. One
 * value, nothing behind it. The table for users is in docs/handlers.md: change both. */
#ifndef OB_BASE_PAYLOAD_H
#define OB_BASE_PAYLOAD_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

enum { PAYLOAD_DEPTH_MAX = 128 };
enum payload_encoding { PAYLOAD_JSON, PAYLOAD_MSGPACK };

enum { PAYLOAD_ERROR_SIZE = 160 };

/* Appends the JSON text of a msgpack value to out. Returns 0, OB_ESYNTAX (not msgpack, cut short,
 * too deep, bytes left over: *reterr says what, and at which byte), OB_ETOOBIG (out's bound) or
 * OB_ENOMEM. */
int payload_msgpack_to_json(const void *bytes, size_t len, struct buf *out,
                            char reterr[PAYLOAD_ERROR_SIZE]) OB_MUST_CHECK;

/* 0 if the text is one JSON value in UTF-8, else OB_ESYNTAX, and *reterr names line and column. */
int payload_check_json(const char *text, size_t len, char reterr[PAYLOAD_ERROR_SIZE]) OB_MUST_CHECK;

#endif
