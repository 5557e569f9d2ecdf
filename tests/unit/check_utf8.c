/* utf8: every code point is accepted in its one encoding, and every other two- and three-byte start
 * is refused, against an encoder written apart. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"
#include "ck_main.h"

static size_t encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(marks[n] | c);
    return n;
}

START_TEST(every_code_point_is_accepted_once)
{
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char text[4];
        size_t n = encode(c, text);
        bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        size_t wanted = surrogate ? 0 : n;
        if (utf8_sequence(text, n) != wanted)
            ck_abort_msg("U+%04X", c);
        if (n > 1 && utf8_sequence(text, n - 1) != 0)
            ck_abort_msg("U+%04X cut short", c);
    }
}
END_TEST

/* Counting: of all sequences of three bytes, as many begin a character of each length as there are.
 */
START_TEST(nothing_else_is_accepted)
{
    size_t found[5] = {0};
    for (uint32_t bits = 0; bits < 1U << 24; bits++) {
        char text[3] = {(char)(bits >> 16), (char)(bits >> 8 & 0xFF), (char)(bits & 0xFF)};
        found[utf8_sequence(text, 3)]++;
    }
    ck_assert_uint_eq(found[1], (size_t)128 * 65536);
    ck_assert_uint_eq(found[2], (size_t)1920 * 256);
    ck_assert_uint_eq(found[3], (size_t)(65536 - 2048 - 2048));
    ck_assert_uint_eq(found[4], 0);
}
END_TEST

START_TEST(odd_beginnings_of_four_bytes_are_refused)
{
    static const char *const bad[] = {"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                                      "\xf0\x90\x80\x41", "\xf0\x90\x41\x80", "\xf8\x88\x80\x80",
                                      "\xfe\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_uint_eq(utf8_sequence(bad[i], 4), 0);
    ck_assert_uint_eq(utf8_sequence("", 0), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("utf8");
    TCase *tcase = tcase_create("utf8");
    tcase_set_timeout(tcase, TIMEOUT_UNIT_S);
    tcase_add_test(tcase, every_code_point_is_accepted_once);
    tcase_add_test(tcase, nothing_else_is_accepted);
    tcase_add_test(tcase, odd_beginnings_of_four_bytes_are_refused);
    suite_add_tcase(suite, tcase);
    return suite;
}
