/* check_retry_after.c - every form of a Retry-After header, and many that are none. Each text is
 * placed right before an unreadable page, so that a byte read behind it is a crash. */
#include "ck_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "webhook/retry_after.h"

/* Wed, 21 Oct 2015 07:28:00 GMT */
static const int64_t now_ms = INT64_C(1445412480000);
enum { MAX_MS = 24 * 3600 * 1000 };

static char *guarded; /* the page before the unreadable one */
static size_t page;

static void map_guard(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    guarded = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(guarded, MAP_FAILED);
    ck_assert_int_eq(mprotect(guarded + page, page, PROT_NONE), 0);
}

static int parse_at(const char *text, size_t len, int64_t now, uint64_t max_ms, uint64_t *ret_ms)
{
    char *at = guarded + page - len;
    memcpy(at, text, len);
    return retry_after_parse(at, len, now, max_ms, ret_ms);
}

static const struct {
    const char *text;
    uint64_t expected_ms;
} good[] = {
    {"0", 0},
    {"1", 1000},
    {"120", 120000},
    {"120.6", 120600},
    {"0.5", 500},
    {"3.", 3000},
    {"1.25", 1250},
    {"1.2345", 1235},
    {"1.0000000000000000000000000000001", 1001},
    {"1.000000000000000000000000000000", 1000},
    {"0.0001", 1},
    {"007", 7000},
    {" 5\t", 5000},
    {"5\r\n", 5000},
    {"86400", MAX_MS},
    {"86401", MAX_MS},
    {"20261231", MAX_MS},
    {"18446744073709551615", MAX_MS},
    {"18446744073709551616", MAX_MS},
    {"99999999999999999999999999999999999999999999999999999999999.9", MAX_MS},
    {"Wed, 21 Oct 2015 07:28:00 GMT", 0},
    {"Wed, 21 Oct 2015 07:28:01 GMT", 1000},
    {"Wed, 21 Oct 2015 07:30:00 GMT", 120000},
    {"Wed, 21 Oct 2015 07:27:59 GMT", 0},
    {"Wed, 21 Oct 2015 07:28:60 GMT", 60000},
    {"Thu, 22 Oct 2015 07:27:59 GMT", MAX_MS - 1000},
    {"Thu, 22 Oct 2015 07:28:01 GMT", MAX_MS},
    {"Sun, 06 Nov 1994 08:49:37 GMT", 0},
    {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
    {"Sat, 01 Jan 0000 00:00:00 GMT", 0},
    {"Fri, 31 Dec 9999 23:59:59 GMT", MAX_MS},
    {"Mon, 29 Feb 2016 00:00:00 GMT", MAX_MS},
    {"  Wed, 21 Oct 2015 07:29:00 GMT  ", 60000},
};
enum { GOOD = sizeof good / sizeof good[0] };

START_TEST(good_values_give_their_delay)
{
    uint64_t ms = 4711;
    ck_assert_int_eq(parse_at(good[_i].text, strlen(good[_i].text), now_ms, MAX_MS, &ms), 0);
    ck_assert_uint_eq(ms, good[_i].expected_ms);
}
END_TEST

static const char *const bad[] = {
    "",
    " ",
    "-1",
    "+1",
    ".5",
    "1e3",
    "0x10",
    "1 2",
    "12s",
    "1,5",
    "1.2.3",
    "inf",
    "nan",
    "soon",
    "not a date",
    "2015-10-21T07:28:00Z",
    "Wed, 21 Oct 2015 07:28:00",
    "Wed, 21 Oct 2015 07:28:00 UTC",
    "Wed, 21 Oct 2015 07:28:00 +0000",
    "Wed, 21 Oct 2015 07:28:00 GMT+1",
    "Wed, 21 Oct 2015 24:00:00 GMT",
    "Wed, 21 Oct 2015 07:60:00 GMT",
    "Wed, 21 Oct 2015 07:28:61 GMT",
    "Wed, 00 Oct 2015 07:28:00 GMT",
    "Wed, 32 Oct 2015 07:28:00 GMT",
    "Wed, 31 Jun 2015 07:28:00 GMT",
    "Sun, 29 Feb 2015 07:28:00 GMT",
    "Thu, 29 Feb 1900 07:28:00 GMT",
    "Wed, 21 oct 2015 07:28:00 GMT",
    "Wed 21 Oct 2015 07:28:00 GMT",
    "Xxx, 21 Oct 2015 07:28:00 GMT",
    "21 Oct 2015 07:28:00 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT", /* the obsolete forms of RFC 850 and asctime */
    "Sun Nov  6 08:49:37 1994",
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(anything_else_is_a_syntax_error_and_changes_nothing)
{
    uint64_t ms = 4711;
    ck_assert_int_eq(parse_at(bad[_i], strlen(bad[_i]), now_ms, MAX_MS, &ms), OB_ESYNTAX);
    ck_assert_uint_eq(ms, 4711);
}
END_TEST

START_TEST(a_date_that_is_cut_anywhere_is_refused)
{
    static const char text[] = "Wed, 21 Oct 2015 07:30:00 GMT";
    uint64_t ms = 0;
    for (size_t n = 0; n < sizeof text - 1; n++)
        ck_assert_int_eq(parse_at(text, n, now_ms, MAX_MS, &ms), OB_ESYNTAX);
}
END_TEST

/* Against the C library's own calendar, one date for every week of 250 years. */
START_TEST(dates_agree_with_the_c_library)
{
    for (int64_t seconds = 86399; seconds < INT64_C(250) * 365 * 86400;
         seconds += 7 * 86400 + 3607) {
        time_t t = (time_t)seconds;
        struct tm tm;
        ck_assert_ptr_nonnull(gmtime_r(&t, &tm));
        char text[64];
        size_t len = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        uint64_t ms = 0;
        ck_assert_int_eq(parse_at(text, len, 0, UINT64_MAX, &ms), 0);
        ck_assert_uint_eq(ms, (uint64_t)seconds * 1000);
    }
}
END_TEST

START_TEST(any_clock_gives_a_sane_answer)
{
    static const char text[] = "Fri, 31 Dec 9999 23:59:59 GMT";
    uint64_t ms = 0;
    ck_assert_int_eq(parse_at(text, sizeof text - 1, INT64_MIN, UINT64_MAX, &ms), 0);
    ck_assert_uint_gt(ms, (uint64_t)INT64_MAX);
    ck_assert_int_eq(parse_at(text, sizeof text - 1, INT64_MIN, MAX_MS, &ms), 0);
    ck_assert_uint_eq(ms, MAX_MS);
    ck_assert_int_eq(parse_at(text, sizeof text - 1, INT64_MAX, MAX_MS, &ms), 0);
    ck_assert_uint_eq(ms, 0);
}
END_TEST

START_TEST(a_maximum_of_zero_ignores_every_wish)
{
    uint64_t ms = 1;
    ck_assert_int_eq(parse_at("120", 3, now_ms, 0, &ms), 0);
    ck_assert_uint_eq(ms, 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("retry_after");
    TCase *tc = tcase_create("header values");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_checked_fixture(tc, map_guard, NULL);
    tcase_add_loop_test(tc, good_values_give_their_delay, 0, GOOD);
    tcase_add_loop_test(tc, anything_else_is_a_syntax_error_and_changes_nothing, 0, BAD);
    tcase_add_test(tc, a_date_that_is_cut_anywhere_is_refused);
    tcase_add_test(tc, dates_agree_with_the_c_library);
    tcase_add_test(tc, any_clock_gives_a_sane_answer);
    tcase_add_test(tc, a_maximum_of_zero_ignores_every_wish);
    suite_add_tcase(s, tc);
    return s;
}
