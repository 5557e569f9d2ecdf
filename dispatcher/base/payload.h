/* payload.h - what is inside a job's payload: msgpack to JSON, and checks of JSON. Pure; fuzzed.
 *
 * nil, true, false, str, array, map -> their JSON; integers exact to 64 bits; floats by the
 * shortest text that reads back as the same double, always with a point or an exponent; NaN and the
 * infinities -> null; invalid UTF-8 -> U+FFFD; bin -> base64 string; timestamp ext -> RFC 3339
 * string (years 0 to 9999); other ext -> {"ext": type, "data": base64}. A map key that is no string
 * -> its JSON text as a string (bin and timestamps, which are strings in JSON, as they are).
 * Nesting at most PAYLOAD_DEPTH_MAX. One value, nothing behind it. The table for users is in
 * docs/handlers.md: change both.
 *
 * Our own reader, not msgpack-c's: that one believes the length in a header (4.0.0 asks for 4 GB
 * for a 5-byte array32) and builds a tree of 24 bytes a value. This one needs the output and a
 * stack. */
#ifndef OB_BASE_PAYLOAD_H
#define OB_BASE_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    PAYLOAD_DEPTH_MAX = 128,
    PAYLOAD_JSON_DEPTH_MAX = 2048,
    PAYLOAD_KEY_MAX = 64 * 1024 /* JSON text of a map key that is a map, an array or an ext */
};
enum payload_encoding { PAYLOAD_JSON, PAYLOAD_MSGPACK };

enum { PAYLOAD_ERROR_SIZE = 160 };

/* Appends the JSON text of a msgpack value to out. Returns 0, OB_ESYNTAX (not msgpack, cut short,
 * too deep, bytes left over: *reterr says what, and at which byte, from 0), OB_ETOOBIG (out's
 * bound) or OB_ENOMEM. On failure out has the beginning of the text. */
int payload_msgpack_to_json(const void *bytes, size_t len, struct buf *out,
                            char reterr[PAYLOAD_ERROR_SIZE]) OB_MUST_CHECK;

/* 0 if the text is one JSON value in UTF-8 (RFC 8259), else OB_ESYNTAX, and *reterr says what was
 * expected, in which line and column. Allocates nothing. Repeated names, \u0000 and numbers beyond
 * a double are let through: the text itself is what is handed on. Nesting at most
 * PAYLOAD_JSON_DEPTH_MAX. */
int payload_check_json(const char *text, size_t len, char reterr[PAYLOAD_ERROR_SIZE]) OB_MUST_CHECK;
/* The same, and refuses the escapes that PostgreSQL's jsonb cannot hold: \u0000 and halves of
 * surrogate pairs. Numbers beyond its numeric are let through. */
int payload_check_jsonb(const char *text, size_t len,
                        char reterr[PAYLOAD_ERROR_SIZE]) OB_MUST_CHECK;

struct payload_member {
    const char *name; /* as it is written, without its quotes */
    size_t name_len;
    const char *value; /* its JSON, without the blanks around it */
    size_t value_len;
};
/* The members of an object, one a call, in the order of the text, which payload_check_json has
 * accepted: start with *pos = 0. False: there are no more. */
bool payload_next_member(const char *text, size_t len, size_t *pos, struct payload_member *ret);

#endif
