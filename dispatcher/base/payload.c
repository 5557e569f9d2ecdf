/* payload.c - see payload.h. Reads with a cursor that every byte is asked of, writes into the
 * caller's bounded buffer; what a header claims is never believed, only counted down. */
#include "base/payload.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"

struct reader {
    const unsigned char *bytes;
    size_t len;
    size_t at;
    unsigned depth;
    char *reterr; /* PAYLOAD_ERROR_SIZE */
};

static int read_value(struct reader *r, struct buf *out);

OB_PRINTF(3, 4) static int malformed(struct reader *r, size_t at, const char *fmt, ...)
{
    char text[PAYLOAD_ERROR_SIZE - 40];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    (void)snprintf(r->reterr, PAYLOAD_ERROR_SIZE, "%s at byte %zu", text, at);
    return OB_ESYNTAX;
}

/* The next n bytes, or NULL: cut short. */
static const unsigned char *take(struct reader *r, uint64_t n)
{
    if (n > r->len - r->at)
        return NULL;
    const unsigned char *p = r->bytes + r->at;
    r->at += (size_t)n;
    return p;
}

static int cut_short(struct reader *r)
{
    return malformed(r, r->len, "msgpack is cut short");
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static int take_number(struct reader *r, unsigned bytes, uint64_t *ret)
{
    const unsigned char *p = take(r, bytes);
    if (p == NULL)
        return cut_short(r);
    *ret = 0;
    for (unsigned i = 0; i < bytes; i++)
        *ret = *ret << 8 | p[i];
    return 0;
}

/* --- values of one piece --- */

static void put_base64(struct buf *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_putc(out, '"');
    for (size_t i = 0; i < n && out->err == 0; i += 3) {
        size_t left = n - i;
        uint32_t bits = (uint32_t)p[i] << 16 | (uint32_t)(left > 1 ? p[i + 1] : 0) << 8 |
                        (uint32_t)(left > 2 ? p[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                        left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        buf_append(out, four, sizeof four);
    }
    buf_putc(out, '"');
}

/* The process runs in the C locale, so that the point is a point. */
static void put_double(struct buf *out, double value)
{
    if (!isfinite(value)) {
        buf_puts(out, "null");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_puts(out, text);
    if (strpbrk(text, ".e") == NULL)
        buf_puts(out, ".0");
}

static int read_float(struct reader *r, unsigned bytes, struct buf *out)
{
    uint64_t bits = 0;
    int err = take_number(r, bytes, &bits);
    if (err != 0)
        return err;
    double value = 0;
    if (bytes == 4) {
        uint32_t bits32 = (uint32_t)bits;
        float f = 0;
        memcpy(&f, &bits32, sizeof f);
        value = (double)f;
    } else
        memcpy(&value, &bits, sizeof value);
    put_double(out, value);
    return 0;
}

static int read_unsigned(struct reader *r, unsigned bytes, struct buf *out)
{
    uint64_t n = 0;
    int err = take_number(r, bytes, &n);
    if (err == 0)
        buf_printf(out, "%" PRIu64, n);
    return err;
}

static int read_signed(struct reader *r, unsigned bytes, struct buf *out)
{
    uint64_t n = 0;
    int err = take_number(r, bytes, &n);
    if (err != 0)
        return err;
    ob_assert(bytes >= 1 && bytes <= 8);
    uint64_t sign = UINT64_C(1) << (8 * bytes - 1);
    n = (n ^ sign) - sign; /* extends the sign to 64 bits */
    int64_t value = 0;
    memcpy(&value, &n, sizeof value);
    buf_printf(out, "%" PRId64, value);
    return 0;
}

static int read_string(struct reader *r, uint64_t n, struct buf *out)
{
    const unsigned char *p = take(r, n);
    if (p == NULL)
        return cut_short(r);
    buf_json_string(out, (const char *)p, (size_t)n);
    return 0;
}

static int read_bin(struct reader *r, uint64_t n, struct buf *out)
{
    const unsigned char *p = take(r, n);
    if (p == NULL)
        return cut_short(r);
    put_base64(out, p, (size_t)n);
    return 0;
}

/* --- ext --- */

static uint64_t number_at(const unsigned char *p, unsigned bytes)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < bytes; i++)
        n = n << 8 | p[i];
    return n;
}

/* False, and nothing written, if the bytes are no timestamp, or one that RFC 3339 can't say. */
static bool put_timestamp(struct buf *out, const unsigned char *p, size_t n)
{
    int64_t seconds = 0;
    uint64_t ns = 0;
    if (n == 4)
        seconds = (int64_t)number_at(p, 4);
    else if (n == 8) {
        uint64_t both = number_at(p, 8);
        seconds = (int64_t)(both & UINT64_C(0x3ffffffff));
        ns = both >> 34;
    } else if (n == 12) {
        uint64_t bits = number_at(p + 4, 8);
        memcpy(&seconds, &bits, sizeof seconds);
        ns = number_at(p, 4);
    } else
        return false;
    if (seconds < INT64_C(-62167219200) || seconds > INT64_C(253402300799) || ns > 999999999)
        return false;
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(seconds * 1000000, 0, text);
    int date = (int)strlen(text) - 1; /* without the Z */
    int digits = 9;
    for (; digits > 0 && ns % 1000 == 0; digits -= 3)
        ns /= 1000;
    if (digits > 0)
        buf_printf(out, "\"%.*s.%0*" PRIu64 "Z\"", date, text, digits, ns);
    else
        buf_printf(out, "\"%s\"", text);
    return true;
}

static int read_ext(struct reader *r, uint64_t n, struct buf *out)
{
    const unsigned char *type = take(r, 1);
    const unsigned char *p = type != NULL ? take(r, n) : NULL;
    if (p == NULL)
        return cut_short(r);
    int number = *type < 128 ? *type : *type - 256;
    if (number == -1 && put_timestamp(out, p, (size_t)n))
        return 0;
    buf_printf(out, "{\"ext\":%d,\"data\":", number);
    put_base64(out, p, (size_t)n);
    buf_putc(out, '}');
    return 0;
}

/* --- arrays and maps --- */

static int enter(struct reader *r)
{
    if (r->depth == PAYLOAD_DEPTH_MAX)
        return malformed(r, r->at - 1, "nested more than %d deep", PAYLOAD_DEPTH_MAX);
    r->depth++;
    return 0;
}

static int read_array(struct reader *r, uint64_t n, struct buf *out)
{
    int err = enter(r);
    buf_putc(out, '[');
    for (uint64_t i = 0; i < n && err == 0; i++) {
        if (i > 0)
            buf_putc(out, ',');
        err = read_value(r, out);
    }
    buf_putc(out, ']');
    r->depth--;
    return err;
}

static bool is_container(unsigned char c)
{
    return (c >= 0x80 && c <= 0x9f) || (c >= 0xdc && c <= 0xdf);
}

static bool is_ext(unsigned char c)
{
    return (c >= 0xc7 && c <= 0xc9) || (c >= 0xd4 && c <= 0xd8);
}

static bool is_text(unsigned char c) /* str or bin: a string in JSON */
{
    return (c >= 0xa0 && c <= 0xbf) || (c >= 0xc4 && c <= 0xc6) || (c >= 0xd9 && c <= 0xdb);
}

/* A key that may need escapes: its text first, apart. The bound keeps the time linear, as every
 * level of maps within keys doubles the backslashes. */
static int read_complex_key(struct reader *r, struct buf *out)
{
    struct buf text;
    size_t start = r->at;
    buf_init(&text, PAYLOAD_KEY_MAX);
    int err = read_value(r, &text);
    if (err == OB_ETOOBIG)
        err = malformed(r, start, "map key of more than %d bytes", PAYLOAD_KEY_MAX);
    else if (err == 0 && text.data[0] == '"') /* a timestamp */
        buf_append(out, text.data, text.len);
    else if (err == 0)
        buf_json_string(out, text.data, text.len);
    buf_deinit(&text);
    return err;
}

static int read_key(struct reader *r, struct buf *out)
{
    if (r->at == r->len)
        return cut_short(r);
    unsigned char c = r->bytes[r->at];
    if (is_text(c))
        return read_value(r, out);
    if (is_container(c) || is_ext(c))
        return read_complex_key(r, out);
    buf_putc(out, '"'); /* nil, booleans and numbers hold nothing to escape */
    int err = read_value(r, out);
    buf_putc(out, '"');
    return err;
}

static int read_map(struct reader *r, uint64_t n, struct buf *out)
{
    int err = enter(r);
    buf_putc(out, '{');
    for (uint64_t i = 0; i < n && err == 0; i++) {
        if (i > 0)
            buf_putc(out, ',');
        err = read_key(r, out);
        buf_putc(out, ':');
        if (err == 0)
            err = read_value(r, out);
    }
    buf_putc(out, '}');
    r->depth--;
    return err;
}

/* --- one value by its first byte --- */

/* The types whose length is a number of its own: bin 8-32, ext 8-32, str 8-32, array and map 16-32.
 */
static int read_sized(struct reader *r, unsigned char c, struct buf *out)
{
    static const struct {
        unsigned char first;
        unsigned char bytes;
        int (*read)(struct reader *r, uint64_t n, struct buf *out);
    } types[] = {{0xc4, 1, read_bin},    {0xc5, 2, read_bin},    {0xc6, 4, read_bin},
                 {0xc7, 1, read_ext},    {0xc8, 2, read_ext},    {0xc9, 4, read_ext},
                 {0xd9, 1, read_string}, {0xda, 2, read_string}, {0xdb, 4, read_string},
                 {0xdc, 2, read_array},  {0xdd, 4, read_array},  {0xde, 2, read_map},
                 {0xdf, 4, read_map}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].first != c)
            continue;
        uint64_t n = 0;
        int err = take_number(r, types[i].bytes, &n);
        return err != 0 ? err : types[i].read(r, n, out);
    }
    return malformed(r, r->at - 1, "0x%02x is not msgpack", c);
}

static int read_typed(struct reader *r, unsigned char c, struct buf *out)
{
    if (c < 0x80)
        buf_printf(out, "%d", c);
    else if (c < 0x90)
        return read_map(r, c & 0x0fU, out);
    else if (c < 0xa0)
        return read_array(r, c & 0x0fU, out);
    else if (c < 0xc0)
        return read_string(r, c & 0x1fU, out);
    else if (c >= 0xe0)
        buf_printf(out, "%d", c - 256);
    else if (c == 0xc0)
        buf_puts(out, "null");
    else if (c == 0xc2 || c == 0xc3)
        buf_puts(out, c == 0xc3 ? "true" : "false");
    else if (c == 0xca || c == 0xcb)
        return read_float(r, c == 0xca ? 4 : 8, out);
    else if (c >= 0xcc && c <= 0xcf)
        return read_unsigned(r, 1U << (c - 0xcc), out);
    else if (c >= 0xd0 && c <= 0xd3)
        return read_signed(r, 1U << (c - 0xd0), out);
    else if (c >= 0xd4 && c <= 0xd8)
        return read_ext(r, 1U << (c - 0xd4), out);
    else
        return read_sized(r, c, out);
    return 0;
}

static int read_value(struct reader *r, struct buf *out)
{
    if (out->err != 0) /* a full buffer ends the reading, not only the writing */
        return out->err;
    const unsigned char *first = take(r, 1);
    if (first == NULL)
        return cut_short(r);
    int err = read_typed(r, *first, out);
    return err != 0 ? err : out->err;
}

int payload_msgpack_to_json(const void *bytes, size_t len, struct buf *out,
                            char reterr[PAYLOAD_ERROR_SIZE])
{
    struct reader r = {.bytes = bytes, .len = len, .reterr = reterr};
    reterr[0] = '\0';
    int err = read_value(&r, out);
    if (err == 0 && r.at < len)
        err = malformed(&r, r.at, "%zu bytes left over", len - r.at);
    if (err != 0 && reterr[0] == '\0')
        (void)snprintf(reterr, PAYLOAD_ERROR_SIZE, "%s", ob_strerror(err));
    return err;
}
