/* check_backoff.c - delays: the doubling, its limits, jitter's bounds, the schedule, no wrapping.
 */
#include "ck_main.h"

#include "base/backoff.h"

static const struct backoff_config defaults = {
    .base_ms = 5000, .max_ms = 3600000, .jitter_permille = 200};

static struct backoff_config without_jitter(uint64_t base_ms, uint64_t max_ms)
{
    return (struct backoff_config){.base_ms = base_ms, .max_ms = max_ms};
}

START_TEST(delays_double_up_to_the_maximum)
{
    static const uint64_t expected[] = {5000,   10000,  20000,   40000,   80000,   160000,
                                        320000, 640000, 1280000, 2560000, 3600000, 3600000};
    const struct backoff_config b = without_jitter(5000, 3600000);
    ck_assert_uint_eq(backoff_delay_ms(&b, (unsigned)_i + 1, 0, 0), expected[_i]);
    ck_assert_uint_eq(backoff_delay_ms(&b, (unsigned)_i + 1, UINT32_MAX, 0), expected[_i]);
}
END_TEST

START_TEST(high_attempts_stay_at_the_maximum)
{
    static const unsigned attempts[] = {65, 66, 1000, 32767, 100000};
    const struct backoff_config b = without_jitter(5000, 3600000);
    ck_assert_uint_eq(backoff_delay_ms(&b, attempts[_i], 0, 0), 3600000);
    const struct backoff_config huge = without_jitter(1, UINT64_MAX);
    ck_assert_uint_eq(backoff_delay_ms(&huge, attempts[_i], 0, 0), UINT64_MAX);
}
END_TEST

START_TEST(an_attempt_of_zero_counts_as_the_first)
{
    const struct backoff_config b = without_jitter(5000, 3600000);
    ck_assert_uint_eq(backoff_delay_ms(&b, 0, 0, 0), 5000);
}
END_TEST

START_TEST(a_base_above_the_maximum_is_cut)
{
    const struct backoff_config b = without_jitter(10000, 7000);
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, 0, 0), 7000);
}
END_TEST

START_TEST(jitter_spans_exactly_its_range)
{
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, 0, 0), 4000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, UINT32_MAX, 0), 6000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, 0x80000000U, 0), 5000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 20, 0, 0), 2880000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 20, UINT32_MAX, 0), 4320000);
}
END_TEST

START_TEST(jitter_grows_with_the_random_number)
{
    uint64_t last = 0;
    for (uint64_t random = 0; random <= UINT32_MAX; random += 65537) {
        uint64_t delay = backoff_delay_ms(&defaults, 3, (uint32_t)random, 0);
        ck_assert_uint_ge(delay, last);
        ck_assert_uint_ge(delay, 16000);
        ck_assert_uint_le(delay, 24000);
        last = delay;
    }
}
END_TEST

START_TEST(small_delays_jitter_both_ways_and_never_vanish)
{
    const struct backoff_config five = {.base_ms = 5, .max_ms = 1000, .jitter_permille = 200};
    ck_assert_uint_eq(backoff_delay_ms(&five, 1, 0, 0), 4);
    ck_assert_uint_eq(backoff_delay_ms(&five, 1, UINT32_MAX, 0), 6);
    const struct backoff_config full = {.base_ms = 1, .max_ms = 1000, .jitter_permille = 1000};
    ck_assert_uint_eq(backoff_delay_ms(&full, 1, 0, 0), 1);
    ck_assert_uint_eq(backoff_delay_ms(&full, 1, UINT32_MAX, 0), 2);
    const struct backoff_config none = {.jitter_permille = 200};
    ck_assert_uint_eq(backoff_delay_ms(&none, 7, UINT32_MAX, 0), 0);
}
END_TEST

START_TEST(too_much_jitter_counts_as_all_of_it)
{
    const struct backoff_config b = {.base_ms = 1000, .max_ms = 1000, .jitter_permille = 5000};
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, 0, 0), 1);
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, UINT32_MAX, 0), 2000);
}
END_TEST

START_TEST(nothing_wraps_at_the_ends_of_the_integers)
{
    const struct backoff_config b = {
        .base_ms = UINT64_MAX, .max_ms = UINT64_MAX, .jitter_permille = 1000};
    ck_assert_uint_eq(backoff_delay_ms(&b, UINT32_MAX, 0, 0), 1);
    ck_assert_uint_ge(backoff_delay_ms(&b, UINT32_MAX, UINT32_MAX, 0),
                      UINT64_MAX - UINT64_C(0x200000000));
    const struct backoff_config half = {
        .base_ms = UINT64_MAX, .max_ms = UINT64_MAX, .jitter_permille = 500};
    ck_assert_uint_ge(backoff_delay_ms(&half, 1, 0, 0), UINT64_MAX / 2);
    ck_assert_uint_eq(backoff_delay_ms(&half, 1, UINT32_MAX, 0), UINT64_MAX);
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, 0, UINT64_MAX), UINT64_MAX);
}
END_TEST

START_TEST(a_schedule_replaces_the_doubling_and_its_last_entry_repeats)
{
    uint64_t entries[] = {5000, 300000, 1800000, 0, 7200000};
    const struct backoff_config b = {
        .base_ms = 1, .max_ms = 10, .schedule_ms = entries, .schedule_count = 5};
    static const uint64_t expected[] = {5000, 300000, 1800000, 0, 7200000, 7200000, 7200000};
    ck_assert_uint_eq(backoff_delay_ms(&b, (unsigned)_i + 1, 0, 0), expected[_i]);
    ck_assert_uint_eq(backoff_delay_ms(&b, UINT32_MAX, 0, 0), 7200000);
}
END_TEST

START_TEST(a_schedule_is_jittered_too)
{
    uint64_t entries[] = {1000};
    const struct backoff_config b = {
        .jitter_permille = 100, .schedule_ms = entries, .schedule_count = 1};
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, 0, 0), 900);
    ck_assert_uint_eq(backoff_delay_ms(&b, 1, UINT32_MAX, 0), 1100);
}
END_TEST

START_TEST(a_wish_for_later_is_a_lower_bound)
{
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, 0, 60000), 60000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, UINT32_MAX, 6000), 6000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 1, UINT32_MAX, 5999), 6000);
    ck_assert_uint_eq(backoff_delay_ms(&defaults, 20, 0, 60000), 2880000);
}
END_TEST

START_TEST(reconnecting_waits_from_a_tenth_to_five_seconds)
{
    ck_assert_uint_eq(backoff_reconnect_ms(1, 0x80000000U), 100);
    ck_assert_uint_eq(backoff_reconnect_ms(2, 0x80000000U), 200);
    ck_assert_uint_eq(backoff_reconnect_ms(6, 0x80000000U), 3200);
    ck_assert_uint_eq(backoff_reconnect_ms(7, 0x80000000U), 5000);
    ck_assert_uint_eq(backoff_reconnect_ms(UINT32_MAX, 0), 4000);
    ck_assert_uint_eq(backoff_reconnect_ms(UINT32_MAX, UINT32_MAX), 6000);
    ck_assert_uint_eq(backoff_reconnect_ms(1, 0), 80);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("backoff");
    TCase *tc = tcase_create("exponential");
    tcase_add_loop_test(tc, delays_double_up_to_the_maximum, 0, 12);
    tcase_add_loop_test(tc, high_attempts_stay_at_the_maximum, 0, 5);
    tcase_add_test(tc, an_attempt_of_zero_counts_as_the_first);
    tcase_add_test(tc, a_base_above_the_maximum_is_cut);
    tcase_add_test(tc, nothing_wraps_at_the_ends_of_the_integers);
    suite_add_tcase(s, tc);

    tc = tcase_create("jitter");
    tcase_add_test(tc, jitter_spans_exactly_its_range);
    tcase_add_test(tc, jitter_grows_with_the_random_number);
    tcase_add_test(tc, small_delays_jitter_both_ways_and_never_vanish);
    tcase_add_test(tc, too_much_jitter_counts_as_all_of_it);
    suite_add_tcase(s, tc);

    tc = tcase_create("schedule and bounds");
    tcase_add_loop_test(tc, a_schedule_replaces_the_doubling_and_its_last_entry_repeats, 0, 7);
    tcase_add_test(tc, a_schedule_is_jittered_too);
    tcase_add_test(tc, a_wish_for_later_is_a_lower_bound);
    suite_add_tcase(s, tc);

    tc = tcase_create("connecting");
    tcase_add_test(tc, reconnecting_waits_from_a_tenth_to_five_seconds);
    suite_add_tcase(s, tc);
    return s;
}
