/* lines.h - a worker's standard error as lines for the log: cut at a length, held to a rate. Pure.
 */
#ifndef OB_WORKER_LINES_H
#define OB_WORKER_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ERR_LINE_MAX = 1024, /* what is longer is cut */
    ERR_LINES_MAX = 100, /* of a task, in ERR_LINES_MS */
    ERR_LINES_MS = 10000
};

struct err_line {
    char text[ERR_LINE_MAX + 1];
    size_t len;
};

struct line_rate {
    uint64_t since_ms;
    unsigned count;
    uint64_t suppressed;
};

typedef void (*err_line_cb)(void *arg, const char *text);

/* Calls cb for each line that ends within bytes; the rest is kept. Empty lines are left out, NULs
 * become '?'. */
void err_line_add(struct err_line *l, const char *bytes, size_t n, err_line_cb cb, void *arg);
/* Nothing more comes: what was kept is a line. */
void err_line_end(struct err_line *l, err_line_cb cb, void *arg);

/* False, and counted: too many. *ret_suppressed: how many were left out before this one. */
bool line_rate_allows(struct line_rate *r, uint64_t now_ms, uint64_t *ret_suppressed);

#endif
