/* check_endpoint.c - holds, breaker and rate of an endpoint, with a clock of our own; and a random
 * walk whose every step keeps the promises. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ck_main.h"
#include "webhook/endpoint.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static const struct rate_config no_rate = {0};
static const struct breaker_config breaker = {.is_on = true,
                                              .window_ms = 10000,
                                              .min = 4,
                                              .failure_permille = 500,
                                              .open_ms = 1000,
                                              .open_max_ms = 5000};
static const struct breaker_config off = {0};

static struct endpoint e;
static uint64_t now;

static void begin(void)
{
    endpoint_init(&e);
    now = 1000000;
}

static unsigned room(void)
{
    uint64_t until = 0;
    enum endpoint_hold hold = HOLD_NONE;
    return endpoint_room(&e, &no_rate, now, &until, &hold);
}

/* 0: it is not held. */
static uint64_t held_ms(enum endpoint_hold expected)
{
    uint64_t until = 0;
    enum endpoint_hold hold = HOLD_NONE;
    unsigned n = endpoint_room(&e, &no_rate, now, &until, &hold);
    ck_assert_int_eq(hold, n > 0 ? HOLD_NONE : expected);
    return n > 0 ? 0 : until - now;
}

static enum endpoint_news end(enum endpoint_result result, bool is_probe)
{
    return endpoint_end(&e, &breaker, result, is_probe, 0, now);
}

/* A request that ends as soon as it began. */
static enum endpoint_news once(enum endpoint_result result)
{
    bool is_probe = endpoint_begin(&e, &no_rate, now);
    return end(result, is_probe);
}

/* Four failures of four. */
static void trip(void)
{
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_HELD);
}

START_TEST(an_answer_holds_the_endpoint_for_as_long_as_it_says)
{
    begin();
    ck_assert_uint_eq(room(), UINT_MAX);
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_ANSWER, false, 3000, now), ENDPOINT_HELD);
    ck_assert_uint_eq(held_ms(HOLD_RETRY_AFTER), 3000);
    now += 2999;
    ck_assert_uint_eq(held_ms(HOLD_RETRY_AFTER), 1);
    now += 1;
    ck_assert_uint_eq(room(), UINT_MAX);
}
END_TEST

/* The longest of several counts, and only the first is news. */
START_TEST(a_hold_is_made_longer_and_never_shorter)
{
    begin();
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_ANSWER, false, 3000, now), ENDPOINT_HELD);
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_ANSWER, false, 1000, now), ENDPOINT_SAME);
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_GOOD, false, 0, now), ENDPOINT_SAME);
    ck_assert_uint_eq(held_ms(HOLD_RETRY_AFTER), 3000);
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_ANSWER, false, 9000, now), ENDPOINT_SAME);
    ck_assert_uint_eq(held_ms(HOLD_RETRY_AFTER), 9000);
    now += 9000;
    ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_ANSWER, false, UINT64_MAX, now),
                     ENDPOINT_HELD);
    ck_assert_uint_eq(room(), 0);
}
END_TEST

START_TEST(too_few_answers_open_nothing)
{
    begin();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    ck_assert_uint_eq(room(), UINT_MAX);
}
END_TEST

START_TEST(the_share_of_failures_opens_it)
{
    begin();
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(once(ENDPOINT_GOOD), ENDPOINT_SAME);
    for (int i = 0; i < 9; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_HELD); /* ten of twenty */
    ck_assert_uint_eq(held_ms(HOLD_BREAKER), 1000);
}
END_TEST

START_TEST(answers_that_say_nothing_of_health_do_not_count)
{
    begin();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(once(ENDPOINT_ANSWER), ENDPOINT_SAME);
        ck_assert_int_eq(once(ENDPOINT_UNKNOWN), ENDPOINT_SAME);
    }
    ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_HELD);
}
END_TEST

START_TEST(what_is_older_than_the_window_is_forgotten)
{
    begin();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    now += breaker.window_ms;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    now += breaker.window_ms / 2;
    ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_HELD);
}
END_TEST

START_TEST(a_breaker_that_is_off_opens_nothing)
{
    begin();
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(endpoint_end(&e, &off, ENDPOINT_BAD, false, 0, now), ENDPOINT_SAME);
    ck_assert_uint_eq(room(), UINT_MAX);
}
END_TEST

START_TEST(one_probe_decides)
{
    begin();
    trip();
    ck_assert_uint_eq(held_ms(HOLD_BREAKER), 1000);
    now += 1000;
    ck_assert_uint_eq(room(), 1);
    ck_assert(endpoint_begin(&e, &no_rate, now));
    ck_assert_uint_eq(held_ms(HOLD_PROBE), UINT64_MAX - now); /* nobody else meanwhile */
    now += 60000;
    ck_assert_uint_eq(room(), 0);
    ck_assert_int_eq(end(_i == 0 ? ENDPOINT_GOOD : ENDPOINT_ANSWER, true), ENDPOINT_BACK);
    ck_assert_uint_eq(room(), UINT_MAX);
    /* It begins anew: what failed before does not count any more. */
    ck_assert_int_eq(once(ENDPOINT_BAD), ENDPOINT_SAME);
    ck_assert_uint_eq(room(), UINT_MAX);
}
END_TEST

START_TEST(each_failed_probe_doubles_the_wait_up_to_its_maximum)
{
    static const uint64_t waits[] = {2000, 4000, 5000, 5000};
    begin();
    trip();
    now += 1000;
    for (size_t i = 0; i < 4; i++) {
        ck_assert(endpoint_begin(&e, &no_rate, now));
        ck_assert_int_eq(end(ENDPOINT_BAD, true), ENDPOINT_HELD);
        ck_assert_uint_eq(held_ms(HOLD_BREAKER), waits[i]);
        now += waits[i];
    }
    ck_assert_int_eq(once(ENDPOINT_GOOD), ENDPOINT_BACK);
    trip();
    ck_assert_uint_eq(held_ms(HOLD_BREAKER), 1000); /* and the next time from the beginning */
}
END_TEST

START_TEST(a_probe_that_we_dropped_is_tried_again_at_once)
{
    begin();
    trip();
    now += 1000;
    ck_assert(endpoint_begin(&e, &no_rate, now));
    ck_assert_int_eq(end(ENDPOINT_UNKNOWN, true), ENDPOINT_SAME);
    ck_assert_uint_eq(room(), 1);
    ck_assert(endpoint_begin(&e, &no_rate, now));
    ck_assert_int_eq(end(ENDPOINT_GOOD, true), ENDPOINT_BACK);
}
END_TEST

/* Fifty were under way when it opened: none of them closes it, or makes it wait longer. */
START_TEST(what_began_before_it_opened_decides_nothing)
{
    begin();
    trip();
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(end(i % 2 == 0 ? ENDPOINT_BAD : ENDPOINT_GOOD, false), ENDPOINT_SAME);
    ck_assert_uint_eq(held_ms(HOLD_BREAKER), 1000);
    now += 1000;
    ck_assert(endpoint_begin(&e, &no_rate, now));
    ck_assert_int_eq(end(ENDPOINT_GOOD, false), ENDPOINT_SAME);
    ck_assert_int_eq(end(ENDPOINT_BAD, false), ENDPOINT_SAME);
    ck_assert_uint_eq(room(), 0);
    ck_assert_int_eq(end(ENDPOINT_GOOD, true), ENDPOINT_BACK);
}
END_TEST

START_TEST(a_probe_that_is_asked_to_wait_closes_and_holds)
{
    begin();
    trip();
    now += 1000;
    ck_assert(endpoint_begin(&e, &no_rate, now));
    ck_assert_int_eq(endpoint_end(&e, &breaker, ENDPOINT_ANSWER, true, 7000, now), ENDPOINT_HELD);
    ck_assert_uint_eq(held_ms(HOLD_RETRY_AFTER), 7000);
    now += 7000;
    ck_assert_uint_eq(room(), UINT_MAX);
}
END_TEST

/* ---- rate ---- */

/* How many begin in ms, if all that may do. */
static unsigned begun_in(const struct rate_config *rate, uint64_t ms)
{
    unsigned n = 0;
    for (uint64_t end_ms = now + ms; now < end_ms; now++) {
        uint64_t until = 0;
        enum endpoint_hold hold = HOLD_NONE;
        unsigned may = endpoint_room(&e, rate, now, &until, &hold);
        ck_assert(may > 0 || (hold == HOLD_RATE && until > now));
        for (unsigned i = 0; i < may; i++, n++)
            ck_assert(!endpoint_begin(&e, rate, now));
        ck_assert_uint_eq(endpoint_room(&e, rate, now, &until, &hold), 0);
    }
    return n;
}

static const struct {
    struct rate_config rate;
    uint64_t ms;
    unsigned least;
    unsigned most;
} rates[] = {
    {{10, 1000}, 10000, 99, 101},       {{1, 1000}, 10000, 9, 11},
    {{100, 1000}, 10000, 999, 1010},    {{5000, 1000}, 2000, 9999, 10500},
    {{6, 60000}, 600000, 59, 61},       {{7, 1000}, 10000, 69, 71},
    {{10000, 1000}, 1000, 9990, 11010}, {{3, 86400000}, 86400000, 3, 4},
};

START_TEST(a_rate_is_kept_and_used)
{
    begin();
    if (rates[_i].ms > 1000000)
        now = 86400000;
    unsigned n = begun_in(&rates[_i].rate, rates[_i].ms > 1000000 ? 1000000 : rates[_i].ms);
    if (rates[_i].ms > 1000000) {
        ck_assert_uint_eq(n, 1);
        return;
    }
    ck_assert_uint_ge(n, rates[_i].least);
    ck_assert_uint_le(n, rates[_i].most);
}
END_TEST

START_TEST(an_idle_hour_is_not_saved_up)
{
    static const struct rate_config rate = {100, 1000};
    begin();
    (void)begun_in(&rate, 1000);
    now += 3600000;
    ck_assert_uint_le(begun_in(&rate, 1000), 111);
}
END_TEST

START_TEST(a_rate_says_when_the_next_may_begin)
{
    static const struct rate_config rate = {2, 1000};
    uint64_t until = 0;
    enum endpoint_hold hold = HOLD_NONE;
    begin();
    ck_assert_uint_eq(endpoint_room(&e, &rate, now, &until, &hold), 1);
    ck_assert(!endpoint_begin(&e, &rate, now));
    ck_assert_uint_eq(endpoint_room(&e, &rate, now, &until, &hold), 0);
    ck_assert_uint_eq(until, now + 500);
    ck_assert_uint_eq(endpoint_room(&e, &no_rate, now, &until, &hold), UINT_MAX);
}
END_TEST

/* ---- the whole ---- */

/* Whatever comes: while it is held nothing begins, at most one probe runs, and it never stays held
 * for longer than the longest wait that somebody wrote. */
START_TEST(a_random_walk_keeps_every_promise)
{
    unsigned plain = 0;
    bool probe = false;
    begin();
    srandom(7);
    for (int step = 0; step < 200000; step++) {
        uint64_t until = 0;
        enum endpoint_hold hold = HOLD_NONE;
        now += (uint64_t)(random() % 50);
        unsigned may = endpoint_room(&e, &no_rate, now, &until, &hold);
        ck_assert_int_eq(may == 0, hold != HOLD_NONE);
        ck_assert(!probe || may == 0);
        ck_assert(may > 0 || hold == HOLD_PROBE || until - now <= 5000);
        long what = random() % 10;
        if (what < 5 && may > 0) {
            bool is_probe = endpoint_begin(&e, &no_rate, now);
            ck_assert(!is_probe || !probe);
            probe = probe || is_probe;
            plain += is_probe ? 0 : 1;
        } else if (what < 9 && plain > 0) {
            (void)endpoint_end(&e, &breaker, (enum endpoint_result)(random() % 4), false,
                               random() % 20 == 0 ? 700 : 0, now);
            plain--;
        } else if (probe) {
            (void)endpoint_end(&e, &breaker, (enum endpoint_result)(random() % 4), true, 0, now);
            probe = false;
        }
    }
}
END_TEST

static const struct {
    const char *url;
    const char *name;
} names[] = {
    {"http://h/", "http://h:80"},
    {"HTTPS://Example.COM/Hook?a=B", "https://example.com:443"},
    {"https://example.com:8443/x:y", "https://example.com:8443"},
    {"https://example.com:443", "https://example.com:443"},
    {"http://example.com?x", "http://example.com:80"},
    {"http://[2001:DB8::1]/", "http://[2001:db8::1]:80"},
    {"http://[2001:db8::1]:81/", "http://[2001:db8::1]:81"},
};

START_TEST(an_endpoint_is_scheme_host_and_port)
{
    char name[ENDPOINT_NAME_SIZE];
    endpoint_name(names[_i].url, name);
    ck_assert_str_eq(name, names[_i].name);
}
END_TEST

START_TEST(a_long_host_is_cut)
{
    char url[5000] = "https://";
    char name[ENDPOINT_NAME_SIZE];
    for (size_t i = 8; i < sizeof url - 1; i++)
        url[i] = 'a';
    url[sizeof url - 1] = '\0';
    endpoint_name(url, name);
    ck_assert_uint_eq(strlen(name), ENDPOINT_NAME_SIZE - 1);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("endpoint");
    TCase *tc = tcase_create("holds");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, an_answer_holds_the_endpoint_for_as_long_as_it_says);
    tcase_add_test(tc, a_hold_is_made_longer_and_never_shorter);
    suite_add_tcase(s, tc);

    tc = tcase_create("breaker");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, too_few_answers_open_nothing);
    tcase_add_test(tc, the_share_of_failures_opens_it);
    tcase_add_test(tc, answers_that_say_nothing_of_health_do_not_count);
    tcase_add_test(tc, what_is_older_than_the_window_is_forgotten);
    tcase_add_test(tc, a_breaker_that_is_off_opens_nothing);
    tcase_add_loop_test(tc, one_probe_decides, 0, 2);
    tcase_add_test(tc, each_failed_probe_doubles_the_wait_up_to_its_maximum);
    tcase_add_test(tc, a_probe_that_we_dropped_is_tried_again_at_once);
    tcase_add_test(tc, what_began_before_it_opened_decides_nothing);
    tcase_add_test(tc, a_probe_that_is_asked_to_wait_closes_and_holds);
    suite_add_tcase(s, tc);

    tc = tcase_create("rate");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, a_rate_is_kept_and_used, 0, ROWS(rates));
    tcase_add_test(tc, an_idle_hour_is_not_saved_up);
    tcase_add_test(tc, a_rate_says_when_the_next_may_begin);
    suite_add_tcase(s, tc);

    tc = tcase_create("whole");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, a_random_walk_keeps_every_promise);
    tcase_add_loop_test(tc, an_endpoint_is_scheme_host_and_port, 0, ROWS(names));
    tcase_add_test(tc, a_long_host_is_cut);
    suite_add_tcase(s, tc);
    return s;
}
