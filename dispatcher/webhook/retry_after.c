/* retry_after.c - see retry_after.h. Reads exactly the bytes given, knows no time zone and no
 * locale. Called by response.c for every answer that is no success. */
#include "webhook/retry_after.h"

#include <stdbool.h>
#include <string.h>

#include "base/clock.h"

struct reader {
    const char *p;
    const char *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static uint64_t clamp(uint64_t value, uint64_t max)
{
    return value < max ? value : max;
}

/* 1*DIGIT [ "." *DIGIT ], rounded up to ms: never sooner than the server asked for. */
static int parse_seconds(struct reader r, uint64_t max_ms, uint64_t *ret_ms)
{
    uint64_t ms = 0;
    const char *first = r.p;
    for (; r.p < r.end && is_digit(*r.p); r.p++) {
        if (ms > (UINT64_MAX - 9000) / 10)
            ms = (UINT64_MAX - 9000) / 10; /* more than any maximum, and stays so */
        ms = ms * 10 + (uint64_t)(*r.p - '0') * 1000;
    }
    if (r.p == first)
        return OB_ESYNTAX;
    if (r.p < r.end && *r.p == '.') {
        uint64_t fraction = 0;
        bool has_more = false;
        r.p++;
        for (uint64_t unit = 100; r.p < r.end && is_digit(*r.p); r.p++, unit /= 10) {
            fraction += (uint64_t)(*r.p - '0') * unit;
            has_more = has_more || (unit == 0 && *r.p != '0');
        }
        fraction += has_more ? 1 : 0;
        ms = ms > UINT64_MAX - fraction ? UINT64_MAX : ms + fraction;
    }
    if (r.p != r.end)
        return OB_ESYNTAX;
    *ret_ms = clamp(ms, max_ms);
    return 0;
}

/* The text must come next. */
static bool take(struct reader *r, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, text, n) != 0)
        return false;
    r->p += n;
    return true;
}

/* One of count names of three letters each; its index, or -1. */
static int take_name(struct reader *r, const char *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (r->end - r->p >= 3 && memcmp(r->p, names + (ptrdiff_t)3 * i, 3) == 0) {
            r->p += 3;
            return i;
        }
    }
    return -1;
}

/* Exactly n digits, a number from min to max; -1 if not. */
static int take_number(struct reader *r, int n, int min, int max)
{
    int value = 0;
    if (r->end - r->p < n)
        return -1;
    for (int i = 0; i < n; i++, r->p++) {
        if (!is_digit(*r->p))
            return -1;
        value = value * 10 + (*r->p - '0');
    }
    return value >= min && value <= max ? value : -1;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7). The day's name is not checked against the
 * date. */
static int parse_date(struct reader r, int64_t *ret_unix_ms)
{
    if (take_name(&r, "MonTueWedThuFriSatSun", 7) < 0 || !take(&r, ", "))
        return OB_ESYNTAX;
    int day = take_number(&r, 2, 1, 31);
    if (day < 0 || !take(&r, " "))
        return OB_ESYNTAX;
    int month = 1 + take_name(&r, "JanFebMarAprMayJunJulAugSepOctNovDec", 12);
    if (month < 1 || !take(&r, " "))
        return OB_ESYNTAX;
    int year = take_number(&r, 4, 0, 9999);
    if (year < 0 || day > clock_days_in_month(year, month) || !take(&r, " "))
        return OB_ESYNTAX;
    int hour = take_number(&r, 2, 0, 23);
    if (hour < 0 || !take(&r, ":"))
        return OB_ESYNTAX;
    int minute = take_number(&r, 2, 0, 59);
    if (minute < 0 || !take(&r, ":"))
        return OB_ESYNTAX;
    int second = take_number(&r, 2, 0, 60); /* 60: a leap second */
    if (second < 0 || !take(&r, " GMT") || r.p != r.end)
        return OB_ESYNTAX;
    int64_t seconds = clock_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *ret_unix_ms = seconds * 1000;
    return 0;
}

int retry_after_parse(const char *text, size_t len, int64_t now_unix_ms, uint64_t max_ms,
                      uint64_t *ret_ms)
{
    struct reader r = {.p = text, .end = text + len};
    while (r.p < r.end && is_space(*r.p))
        r.p++;
    while (r.p < r.end && is_space(r.end[-1]))
        r.end--;
    if (r.p == r.end)
        return OB_ESYNTAX;
    if (is_digit(*r.p))
        return parse_seconds(r, max_ms, ret_ms);

    int64_t then_ms = 0;
    int err = parse_date(r, &then_ms);
    if (err != 0)
        return err;
    /* Unsigned: the distance of two 64-bit times may not fit a signed number. */
    uint64_t wait_ms = then_ms <= now_unix_ms ? 0 : (uint64_t)then_ms - (uint64_t)now_unix_ms;
    *ret_ms = clamp(wait_ms, max_ms);
    return 0;
}
