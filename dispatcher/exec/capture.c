/* capture.c - see capture.h. */
#include "exec/capture.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

void capture_init(struct capture *c, size_t head_max, size_t tail_max)
{
    *c = (struct capture){.head_max = head_max, .tail_max = tail_max};
}

void capture_deinit(struct capture *c)
{
    ob_free(c->head);
    ob_free(c->tail);
    *c = (struct capture){0};
}

/* The memory of size *max at *ret, made when it is first needed. Out of memory sets *max to 0. */
static void provide(char **ret, size_t *max)
{
    if (*ret != NULL || *max == 0)
        return;
    *ret = ob_malloc(*max);
    if (*ret == NULL)
        *max = 0;
}

static void add_to_tail(struct capture *c, const char *bytes, size_t n)
{
    provide(&c->tail, &c->tail_max);
    if (c->tail_max == 0)
        return;
    if (n > c->tail_max) { /* all but the end would be overwritten */
        bytes += n - c->tail_max;
        n = c->tail_max;
    }
    size_t first = c->tail_max - c->tail_next;
    if (first > n)
        first = n;
    memcpy(c->tail + c->tail_next, bytes, first);
    memcpy(c->tail, bytes + first, n - first);
    c->tail_next = (c->tail_next + n) % c->tail_max;
    c->tail_len = c->tail_len + n < c->tail_max ? c->tail_len + n : c->tail_max;
}

void capture_add(struct capture *c, const char *bytes, size_t n)
{
    if (n == 0)
        return;
    c->bytes_seen += n;
    provide(&c->head, &c->head_max);
    size_t taken = c->head_max - c->head_len;
    if (taken > n)
        taken = n;
    if (taken > 0)
        memcpy(c->head + c->head_len, bytes, taken);
    c->head_len += taken;
    if (n > taken)
        add_to_tail(c, bytes + taken, n - taken);
}

static void reverse(char *bytes, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        char c = bytes[i];
        bytes[i] = bytes[n - 1 - i];
        bytes[n - 1 - i] = c;
    }
}

void capture_finish(struct capture *c)
{
    if (c->tail_len < c->tail_max || c->tail_next == 0)
        return; /* never went round: it is in order */
    ob_assert(c->tail_len == c->tail_max);
    /* Rotation in place: reverse both parts, then the whole. */
    reverse(c->tail, c->tail_next);
    reverse(c->tail + c->tail_next, c->tail_len - c->tail_next);
    reverse(c->tail, c->tail_len);
    c->tail_next = 0;
}
