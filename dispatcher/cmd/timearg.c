/* timearg.c - see timearg.h. */
#include "cmd/timearg.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

/* Reads exactly n digits. False: they are not there. */
static bool digits(const char **p, int n, int *ret)
{
    int value = 0;
    for (int i = 0; i < n; i++) {
        char c = (*p)[i];
        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (c - '0');
    }
    *p += n;
    *ret = value;
    return true;
}

static bool accept_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar. */
static int64_t days_from_civil(int64_t year, int month, int day)
{
    year -= month <= 2 ? 1 : 0;
    int64_t era = year / 400;
    int64_t yoe = year - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static bool is_date(const struct tm *tm)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = tm->tm_year + 1900;
    int month = tm->tm_mon + 1;
    if (year < 1970 || month < 1 || month > 12 || tm->tm_mday < 1)
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int length = lengths[month - 1] + (leap && month == 2 ? 1 : 0);
    return tm->tm_mday <= length && tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

/* The time of day behind the date: "08:30", "08:30:05", "08:30:05.25". */
static bool parse_clock(const char **p, struct tm *tm, int64_t *ret_us)
{
    if (!digits(p, 2, &tm->tm_hour) || !accept_char(p, ':') || !digits(p, 2, &tm->tm_min))
        return false;
    if (!accept_char(p, ':'))
        return true;
    if (!digits(p, 2, &tm->tm_sec))
        return false;
    if (!accept_char(p, '.'))
        return true;
    int64_t scale = 100000;
    if (**p < '0' || **p > '9')
        return false;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        *ret_us += (**p - '0') * scale;
        scale /= 10;
    }
    return true;
}

/* "Z", "+02", "+02:00", "-0700". *ret_has is false when there is nothing. False: malformed. */
static bool parse_offset(const char **p, bool *ret_has, int64_t *ret_seconds)
{
    *ret_has = false;
    *ret_seconds = 0;
    if (**p == '\0')
        return true;
    *ret_has = true;
    if (accept_char(p, 'Z') || accept_char(p, 'z'))
        return true;
    bool minus = **p == '-';
    if (!minus && **p != '+')
        return false;
    (*p)++;
    int hours = 0;
    int minutes = 0;
    if (!digits(p, 2, &hours))
        return false;
    bool colon = accept_char(p, ':');
    if ((colon || **p != '\0') && !digits(p, 2, &minutes))
        return false;
    if (hours > 15 || minutes > 59)
        return false;
    *ret_seconds = (hours * 3600 + minutes * 60) * (minus ? -1 : 1);
    return true;
}

int timearg_parse(const char *text, int64_t *ret_unix_us)
{
    const char *p = text;
    struct tm tm;
    memset(&tm, 0, sizeof tm);
    int64_t us = 0;
    int64_t offset = 0;
    bool has_offset = false;
    if (!digits(&p, 4, &tm.tm_year) || !accept_char(&p, '-') || !digits(&p, 2, &tm.tm_mon) ||
        !accept_char(&p, '-') || !digits(&p, 2, &tm.tm_mday))
        return OB_EINVAL;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (*p != '\0') {
        if (!accept_char(&p, 'T') && !accept_char(&p, 't') && !accept_char(&p, ' '))
            return OB_EINVAL;
        if (!parse_clock(&p, &tm, &us))
            return OB_EINVAL;
        (void)accept_char(&p, ' ');
        if (!parse_offset(&p, &has_offset, &offset) || *p != '\0')
            return OB_EINVAL;
    }
    if (!is_date(&tm))
        return OB_EINVAL;
    int64_t seconds = 0;
    if (has_offset) {
        seconds = days_from_civil(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday) * 86400 +
                  tm.tm_hour * 3600 + tm.tm_min * 60 + tm.tm_sec - offset;
    } else {
        tm.tm_isdst = -1;
        seconds = mktime(&tm);
    }
    if (seconds < 0)
        return OB_EINVAL;
    *ret_unix_us = seconds * 1000000 + us;
    return 0;
}
