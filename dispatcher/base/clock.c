/* clock.c - see clock.h. */
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
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
