/* lines.h - a file or standard input, line by line, in bounded memory.
 *
 * A line ends with LF or CR LF, or with the end of the file; the end is not part of it, nor is a
 * byte order mark before the first one. Prints nothing. */
#ifndef OB_CMD_LINES_H
#define OB_CMD_LINES_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct lines {
    int fd;
    bool can_block; /* no regular file: a pipe, a terminal */
    bool is_at_end; /* nothing more to read */
    size_t len_max; /* of a line */
    const volatile sig_atomic_t *stop;
    char *data; /* data[at..end): read, not handed out; up to `seen` without a line's end */
    size_t cap;
    size_t at;
    size_t seen;
    size_t end;
    int64_t size;    /* of the whole file; 0: not known */
    int64_t bytes;   /* handed out so far, line ends included */
    uint64_t number; /* of the line handed out last, from 1 */
};

/* path "-" is standard input. *stop is set by a signal's handler, which must have no SA_RESTART:
 * waiting for input ends then. 0, or a negative errno; lines_close in any case. */
int lines_open(struct lines *l, const char *path, size_t len_max,
               const volatile sig_atomic_t *stop) OB_MUST_CHECK;
void lines_close(struct lines *l);
/* 1: a line, valid until the next call; 0: there are no more; OB_ETOOBIG: the line `number` is over
 * len_max; -EINTR: *stop is set; OB_ENOMEM; another negative errno: it cannot be read. */
int lines_next(struct lines *l, const char **ret_text, size_t *ret_len) OB_MUST_CHECK;

#endif
