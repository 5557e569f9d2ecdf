/* buf: bounds, sticky errors, the NUL behind the contents, JSON strings. */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "ck_main.h"

START_TEST(contents_grow_and_end_in_a_nul)
{
    struct buf b;
    buf_init(&b, 100000);
    for (int i = 0; i < 10000; i++) {
        buf_putc(&b, (char)('a' + i % 26));
        ck_assert_uint_eq(b.len, (size_t)i + 1);
        ck_assert_int_eq(b.data[b.len], '\0');
    }
    buf_append(&b, "x\0y", 3);
    ck_assert_mem_eq(b.data + 10000, "x\0y", 4);
    buf_printf(&b, "%d-%s", 42, "z");
    ck_assert_str_eq(b.data + 10003, "42-z");
    ck_assert_int_eq(b.err, 0);
    buf_deinit(&b);
    ck_assert_ptr_null(b.data);
}
END_TEST

START_TEST(the_bound_is_exact_and_its_error_sticks)
{
    struct buf b;
    buf_init(&b, 4);
    buf_puts(&b, "1234");
    ck_assert_int_eq(b.err, 0);
    buf_putc(&b, '5');
    ck_assert_int_eq(b.err, OB_ETOOBIG);
    ck_assert_str_eq(b.data, "1234");
    buf_clear(&b);
    ck_assert_int_eq(b.err, 0);
    ck_assert_str_eq(b.data, "");
    buf_puts(&b, "12345");
    ck_assert_int_eq(b.err, OB_ETOOBIG);
    buf_puts(&b, "1");
    ck_assert_uint_eq(b.len, 0); /* nothing is appended behind what is missing */
    buf_deinit(&b);
}
END_TEST

START_TEST(an_unbounded_buffer_does_not_wrap)
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_puts(&b, "x");
    buf_append(&b, "", SIZE_MAX / 2);
    ck_assert_int_eq(b.err, OB_ETOOBIG);
    buf_deinit(&b);
}
END_TEST

START_TEST(take_hands_over_the_memory)
{
    struct buf b;
    buf_init(&b, 10);
    char *empty = buf_take(&b);
    ck_assert_str_eq(empty, "");
    ob_free(empty);
    buf_puts(&b, "abc");
    char *text = buf_take(&b);
    ck_assert_str_eq(text, "abc");
    ob_free(text);
    ck_assert_ptr_null(b.data);
    ck_assert_uint_eq(b.len, 0);
    buf_puts(&b, "12345678901");
    ck_assert_ptr_null(buf_take(&b));
    buf_deinit(&b);
}
END_TEST

static const struct {
    const char *text;
    size_t len;
    const char *json;
} strings[] = {
    {"", 0, "\"\""},
    {"plain", 5, "\"plain\""},
    {"\"\\/", 3, "\"\\\"\\\\/\""},
    {"\n\r\t", 3, "\"\\n\\r\\t\""},
    {"\0\x1f\x7f", 3, "\"\\u0000\\u001f\\u007f\""},
    {"a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z", 11, "\"a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z\""},
    {"a\xc3", 2, "\"a\xef\xbf\xbd\""},
    {"\xff\xfe", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
    {"\xe2\x82x", 3, "\"\xef\xbf\xbd\xef\xbf\xbdx\""},
};

START_TEST(json_strings_are_escaped)
{
    struct buf b;
    buf_init(&b, 1000);
    buf_json_string(&b, strings[_i].text, strings[_i].len);
    ck_assert_str_eq(b.data, strings[_i].json);
    buf_deinit(&b);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("buf");
    TCase *tcase = tcase_create("buf");
    tcase_add_test(tcase, contents_grow_and_end_in_a_nul);
    tcase_add_test(tcase, the_bound_is_exact_and_its_error_sticks);
    tcase_add_test(tcase, an_unbounded_buffer_does_not_wrap);
    tcase_add_test(tcase, take_hands_over_the_memory);
    tcase_add_loop_test(tcase, json_strings_are_escaped, 0,
                        (int)(sizeof strings / sizeof strings[0]));
    suite_add_tcase(suite, tcase);
    return suite;
}
