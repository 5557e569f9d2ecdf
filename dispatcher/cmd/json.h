/* json.h - writing JSON to a stream, piece by piece, whatever the size. Numbers and embedded JSON
 * go out exactly as they are given, which a JSON library's own types would not guarantee. */
#ifndef OB_CMD_JSON_H
#define OB_CMD_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 8 };

struct json {
    FILE *out;
    int depth;
    char closers[JSON_DEPTH_MAX];
    bool begun[JSON_DEPTH_MAX]; /* this level has an element already */
};

void json_init(struct json *j, FILE *out);
/* Ends the text with a newline; everything must be closed. */
void json_end(struct json *j);

/* key: the member's name inside an object; NULL in an array and outermost. */
void json_open_object(struct json *j, const char *key);
void json_open_array(struct json *j, const char *key);
void json_close(struct json *j);
void json_str(struct json *j, const char *key, const char *text); /* NULL: null */
void json_bytes(struct json *j, const char *key, const char *text, size_t len);
void json_int(struct json *j, const char *key, int64_t n);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);
/* text is JSON itself (a number from the server, a payload); NULL: null. */
void json_raw(struct json *j, const char *key, const char *text);

#endif
