/* clock: texts of times and durations; clocks that do not go back. */
#include <inttypes.h>

#include "base/clock.h"
#include "ck_main.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static const struct {
    int64_t us;
    int digits;
    const char *text;
} times[] = {
    {0, 0, "1970-01-01T00:00:00Z"},
    {0, 3, "1970-01-01T00:00:00.000Z"},
    {1767323045678901, 3, "2026-01-02T03:04:05.678Z"},
    {1767323045678901, 6, "2026-01-02T03:04:05.678901Z"},
    {1767323045678901, 0, "2026-01-02T03:04:05Z"},
    {-1, 6, "1969-12-31T23:59:59.999999Z"},
    {-1000000, 3, "1969-12-31T23:59:59.000Z"},
    {INT64_C(1709164800) * 1000000, 0, "2024-02-29T00:00:00Z"},
    {INT64_C(-62135596800) * 1000000, 0, "0001-01-01T00:00:00Z"},
    {INT64_C(253402300799) * 1000000, 0, "9999-12-31T23:59:59Z"},
    {INT64_MAX, 6, "294247-01-10T04:00:54.775807Z"},
    {INT64_MIN, 6, "-290308-12-21T19:59:05.224192Z"},
};

START_TEST(times_are_printed_as_rfc_3339)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(times[_i].us, times[_i].digits, text);
    ck_assert_str_eq(text, times[_i].text);
}
END_TEST

static const struct {
    uint64_t ms;
    const char *text;
} durations[] = {
    {0, "0ms"},
    {450, "450ms"},
    {999, "999ms"},
    {1000, "1.0s"},
    {1299, "1.2s"},
    {59999, "59.9s"},
    {60000, "1m 0s"},
    {200000, "3m 20s"},
    {3600000, "1h 0m"},
    {7500000, "2h 5m"},
    {86400000, "1d 0h"},
    {90000000, "1d 1h"},
    {UINT64_MAX, "213503982334d 14h"},
};

START_TEST(durations_are_printed_for_people)
{
    char text[CLOCK_DURATION_SIZE];
    clock_duration(durations[_i].ms, text);
    ck_assert_str_eq(text, durations[_i].text);
}
END_TEST

START_TEST(clocks_do_not_go_back)
{
    uint64_t mono_us = clock_mono_us();
    uint64_t mono_ms = clock_mono_ms();
    uint64_t boot_ms = clock_boot_ms();
    for (int i = 0; i < 1000; i++) {
        ck_assert_uint_ge(clock_mono_us(), mono_us);
        ck_assert_uint_ge(clock_mono_ms(), mono_ms);
        ck_assert_uint_ge(clock_boot_ms(), boot_ms);
        mono_us = clock_mono_us();
        mono_ms = clock_mono_ms();
        boot_ms = clock_boot_ms();
    }
    ck_assert_uint_ge(mono_ms, mono_us / 1000);
    ck_assert_int_gt(clock_unix_us(), INT64_C(1700000000) * 1000000);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("clock");
    TCase *tcase = tcase_create("clock");
    tcase_add_loop_test(tcase, times_are_printed_as_rfc_3339, 0, ROWS(times));
    tcase_add_loop_test(tcase, durations_are_printed_for_people, 0, ROWS(durations));
    tcase_add_test(tcase, clocks_do_not_go_back);
    suite_add_tcase(suite, tcase);
    return suite;
}
