/* jout.h - writing JSON to a stream, piece by piece, whatever the size. Numbers and embedded JSON
 * go out exactly as they are given, which a JSON library's own types would not guarantee. */
#ifndef OB_CMD_JOUT_H
#define OB_CMD_JOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JOUT_DEPTH_MAX = 8 };

struct jout {
    FILE *out;
    int depth;
    char closers[JOUT_DEPTH_MAX];
    bool begun[JOUT_DEPTH_MAX]; /* this level has an element already */
};

void jout_init(struct jout *j, FILE *out);
/* Ends the text with a newline; everything must be closed. */
void jout_end(struct jout *j);

/* key: the member's name inside an object; NULL in an array and outermost. */
void jout_open_object(struct jout *j, const char *key);
void jout_open_array(struct jout *j, const char *key);
void jout_close(struct jout *j);
void jout_str(struct jout *j, const char *key, const char *text); /* NULL: null */
void jout_bytes(struct jout *j, const char *key, const char *text, size_t len);
void jout_int(struct jout *j, const char *key, int64_t n);
void jout_bool(struct jout *j, const char *key, bool value);
void jout_null(struct jout *j, const char *key);
/* text is JSON itself (a number from the server, a payload); NULL: null. */
void jout_raw(struct jout *j, const char *key, const char *text);

#endif
