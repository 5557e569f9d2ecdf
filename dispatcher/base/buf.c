/* buf.c - see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/utf8.h"

void buf_init(struct buf *b, size_t len_max)
{
    memset(b, 0, sizeof *b);
    b->len_max = len_max < SIZE_MAX / 2 ? len_max : SIZE_MAX / 2; /* sums below cannot wrap */
}

void buf_deinit(struct buf *b)
{
    ob_free(b->data);
    memset(b, 0, sizeof *b);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->err = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

/* Makes room for n more bytes and the NUL. False sets err. */
static int reserve(struct buf *b, size_t n)
{
    if (b->err != 0)
        return b->err;
    if (n > b->len_max || b->len > b->len_max - n) {
        b->err = OB_ETOOBIG;
        return b->err;
    }
    size_t need = b->len + n + 1;
    if (need <= b->cap)
        return 0;
    size_t cap = b->cap > 0 ? b->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *data = ob_realloc(b->data, cap);
    if (data == NULL) {
        b->err = OB_ENOMEM;
        return b->err;
    }
    b->data = data;
    b->cap = cap;
    return 0;
}

void buf_append(struct buf *b, const void *bytes, size_t n)
{
    if (reserve(b, n) != 0)
        return;
    ob_assert(b->data != NULL);
    if (n > 0)
        memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ob_assert(n >= 0);
    if (reserve(b, (size_t)n) != 0)
        return;
    va_start(args, fmt);
    (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
}

/* Appends the escape of one byte below 0x80. */
static void put_json_ascii(struct buf *b, char c)
{
    switch (c) {
    case '"':
        buf_puts(b, "\\\"");
        break;
    case '\\':
        buf_puts(b, "\\\\");
        break;
    case '\n':
        buf_puts(b, "\\n");
        break;
    case '\r':
        buf_puts(b, "\\r");
        break;
    case '\t':
        buf_puts(b, "\\t");
        break;
    default:
        buf_printf(b, "\\u%04x", (unsigned)(unsigned char)c);
    }
}

/* How many bytes from s on need no escape. */
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            break;
        size_t len = c < 0x80 ? 1 : utf8_sequence(s + i, n - i);
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

void buf_json_string(struct buf *b, const char *s, size_t n)
{
    buf_putc(b, '"');
    for (size_t i = 0; i < n && b->err == 0;) {
        size_t run = plain_run(s + i, n - i);
        if (run > 0) {
            buf_append(b, s + i, run);
            i += run;
            continue;
        }
        if ((unsigned char)s[i] < 0x80)
            put_json_ascii(b, s[i]);
        else
            buf_puts(b, "\xEF\xBF\xBD");
        i++;
    }
    buf_putc(b, '"');
}

char *buf_take(struct buf *b)
{
    if (b->err == 0 && b->data == NULL)
        buf_append(b, "", 0);
    char *data = b->err == 0 ? b->data : NULL;
    if (data == NULL)
        ob_free(b->data);
    b->data = NULL;
    b->len = 0;
    b->cap = 0;
    return data;
}
