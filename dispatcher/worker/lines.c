/* lines.c - see lines.h. */
#include "worker/lines.h"

#include <string.h>

static void emit(struct err_line *l, err_line_cb cb, void *arg)
{
    if (l->len > 0 && l->text[l->len - 1] == '\r')
        l->len--;
    l->text[l->len] = '\0';
    for (size_t i = 0; i < l->len; i++)
        l->text[i] = l->text[i] == '\0' ? '?' : l->text[i];
    if (l->len > 0)
        cb(arg, l->text);
    l->len = 0;
}

void err_line_add(struct err_line *l, const char *bytes, size_t n, err_line_cb cb, void *arg)
{
    while (n > 0) {
        const char *end = memchr(bytes, '\n', n);
        size_t part = end != NULL ? (size_t)(end - bytes) : n;
        size_t room = ERR_LINE_MAX - l->len;
        size_t kept = part < room ? part : room;
        memcpy(l->text + l->len, bytes, kept);
        l->len += kept;
        if (end == NULL)
            return;
        emit(l, cb, arg);
        bytes += part + 1;
        n -= part + 1;
    }
}

void err_line_end(struct err_line *l, err_line_cb cb, void *arg)
{
    emit(l, cb, arg);
}

bool line_rate_allows(struct line_rate *r, uint64_t now_ms, uint64_t *ret_suppressed)
{
    *ret_suppressed = 0;
    if (r->since_ms == 0 || now_ms - r->since_ms >= ERR_LINES_MS) {
        r->since_ms = now_ms > 0 ? now_ms : 1;
        r->count = 0;
    }
    if (r->count >= ERR_LINES_MAX) {
        r->suppressed++;
        return false;
    }
    r->count++;
    *ret_suppressed = r->suppressed;
    r->suppressed = 0;
    return true;
}
