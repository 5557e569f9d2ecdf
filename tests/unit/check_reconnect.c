/* check_reconnect.c - delays between attempts to connect: the doubling, its limit, jitter's bounds.
 */
#include "ck_main.h"

#include "base/reconnect.h"

START_TEST(reconnecting_waits_from_a_tenth_to_thirty_seconds)
{
    ck_assert_uint_eq(backoff_reconnect_ms(1, 0x80000000U), 100);
    ck_assert_uint_eq(backoff_reconnect_ms(2, 0x80000000U), 200);
    ck_assert_uint_eq(backoff_reconnect_ms(9, 0x80000000U), 25600);
    ck_assert_uint_eq(backoff_reconnect_ms(10, 0x80000000U), 30000);
    ck_assert_uint_eq(backoff_reconnect_ms(UINT32_MAX, 0), 24000);
    ck_assert_uint_eq(backoff_reconnect_ms(UINT32_MAX, UINT32_MAX), 36000);
    ck_assert_uint_eq(backoff_reconnect_ms(1, 0), 80);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("reconnect");
    TCase *tc = tcase_create("delays");
    tcase_add_test(tc, reconnecting_waits_from_a_tenth_to_thirty_seconds);
    suite_add_tcase(s, tc);
    return s;
}
