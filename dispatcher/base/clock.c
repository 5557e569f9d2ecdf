/* clock.c - see clock.h. */
#include "base/clock.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef CLOCK_BOOTTIME
#define CLOCK_BOOTTIME 7 /* Linux; hidden by a strict _POSIX_C_SOURCE */
#endif

static uint64_t read_us(clockid_t id)
{
    struct timespec ts = {0};
    (void)clock_gettime(id, &ts); /* fails only for an unknown clock */
    return (uint64_t)ts.tv_sec * 1000000U + (uint64_t)ts.tv_nsec / 1000U;
}

uint64_t clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000U;
}

uint64_t clock_boot_ms(void)
{
    return read_us(CLOCK_BOOTTIME) / 1000U;
}

int64_t clock_unix_us(void)
{
    return (int64_t)read_us(CLOCK_REALTIME);
}

void clock_rfc3339(int64_t unix_us, int digits, char ret_text[CLOCK_RFC3339_SIZE])
{
    int64_t seconds = unix_us / 1000000;
    int64_t fraction = unix_us % 1000000;
    if (fraction < 0) {
        fraction += 1000000;
        seconds--;
    }
    time_t t = (time_t)seconds;
    struct tm tm = {0};
    (void)gmtime_r(&t, &tm);
    char year[12];
    char rest[24];
    (void)snprintf(year, sizeof year, "%04d", tm.tm_year + 1900);
    (void)strftime(rest, sizeof rest, "-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(ret_text, CLOCK_RFC3339_SIZE, "%s%s", year, rest);
    char *end = ret_text + n;
    size_t room = CLOCK_RFC3339_SIZE - (size_t)n;
    if (digits == 0)
        (void)snprintf(end, room, "Z");
    else if (digits == 3)
        (void)snprintf(end, room, ".%03" PRId64 "Z", fraction / 1000);
    else
        (void)snprintf(end, room, ".%06" PRId64 "Z", fraction);
}

/* Years begin in March, so that the leap day is the last of its year. */
int64_t clock_days(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year;
    int era = (y >= 0 ? y : y - 399) / 400;
    int year_of_era = y - era * 400;
    int day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

int clock_days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* The number of n digits at text. */
static int number_at(const char *text, int n)
{
    int value = 0;
    for (int i = 0; i < n; i++)
        value = value * 10 + (text[i] - '0');
    return value;
}

int clock_parse_utc(const char *text, int64_t *ret_unix_us)
{
    static const char form[] = "0000-00-00T00:00:00Z";
    size_t len = strlen(text);
    if (len != sizeof form - 1 && len != 10)
        return OB_EINVAL;
    for (size_t i = 0; i < len; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        if (form[i] == '0' ? !is_digit : text[i] != form[i])
            return OB_EINVAL;
    }
    int year = number_at(text, 4);
    int month = number_at(text + 5, 2);
    int day = number_at(text + 8, 2);
    int hour = len > 10 ? number_at(text + 11, 2) : 0;
    int minute = len > 10 ? number_at(text + 14, 2) : 0;
    int second = len > 10 ? number_at(text + 17, 2) : 0;
    if (month < 1 || month > 12 || day < 1 || day > clock_days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 59)
        return OB_EINVAL;
    int64_t s = clock_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *ret_unix_us = s * 1000000;
    return 0;
}

void clock_duration(uint64_t ms, char ret_text[CLOCK_DURATION_SIZE])
{
    uint64_t s = ms / 1000;
    if (ms < 1000)
        (void)snprintf(ret_text, CLOCK_DURATION_SIZE, "%" PRIu64 "ms", ms);
    else if (s < 60)
        (void)snprintf(ret_text, CLOCK_DURATION_SIZE, "%" PRIu64 ".%" PRIu64 "s", s,
                       ms % 1000 / 100);
    else if (s < 3600)
        (void)snprintf(ret_text, CLOCK_DURATION_SIZE, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(ret_text, CLOCK_DURATION_SIZE, "%" PRIu64 "h %" PRIu64 "m", s / 3600,
                       s % 3600 / 60);
    else
        (void)snprintf(ret_text, CLOCK_DURATION_SIZE, "%" PRIu64 "d %" PRIu64 "h", s / 86400,
                       s % 86400 / 3600);
}
