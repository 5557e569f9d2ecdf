/* err, assert, mem, rand: every code has a text and an exit code; programmer errors abort. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/rand.h"
#include "ck_main.h"

START_TEST(every_code_of_ours_has_its_own_text)
{
    for (int err = OB_ENOMEM; err >= OB_EUSAGE; err--) {
        ck_assert_str_ne(ob_strerror(err), "unknown error");
        for (int other = OB_ENOMEM; other > err; other--)
            ck_assert_str_ne(ob_strerror(err), ob_strerror(other));
    }
    ck_assert_str_eq(ob_strerror(OB_OK), "success");
}
END_TEST

START_TEST(codes_of_libuv_and_errno_have_texts)
{
    ck_assert_str_eq(ob_strerror(UV_ECONNREFUSED), uv_strerror(UV_ECONNREFUSED));
    ck_assert_str_eq(ob_strerror(UV_EOF), "end of file");
    ck_assert_str_eq(ob_strerror(-ECHILD), strerror(ECHILD));
    ck_assert_str_eq(ob_strerror(-5999), "unknown error");
    ck_assert_str_eq(ob_strerror(1), "unknown error");
}
END_TEST

START_TEST(exit_codes_are_those_of_the_manual)
{
    ck_assert_int_eq(ob_exit_code(OB_OK), 0);
    ck_assert_int_eq(ob_exit_code(OB_ENOTFOUND), 1);
    ck_assert_int_eq(ob_exit_code(OB_EUSAGE), 64);
    ck_assert_int_eq(ob_exit_code(OB_EINCOMPAT), 69);
    ck_assert_int_eq(ob_exit_code(OB_EBUSY), 75);
    ck_assert_int_eq(ob_exit_code(OB_ECONN), 75);
    ck_assert_int_eq(ob_exit_code(OB_ECONFIG), 78);
    ck_assert_int_eq(ob_exit_code(UV_EIO), 1);
    ck_assert_int_eq(ob_exit_code(-5999), 1);
}
END_TEST

START_TEST(a_failed_assertion_aborts)
{
    ob_assert(1 == 2);
}
END_TEST

#ifdef OB_FAULTS
START_TEST(a_named_crash_point_ends_the_process)
{
    ck_assert_int_eq(setenv("OB_CRASH", "other", 1), 0);
    OB_CRASH_POINT("here");
    ck_assert_int_eq(setenv("OB_CRASH", "heretic", 1), 0);
    OB_CRASH_POINT("here");
    ck_assert_int_eq(setenv("OB_CRASH", "here:3", 1), 0);
    OB_CRASH_POINT("here");
    OB_CRASH_POINT("here");
    ck_assert_int_eq(setenv("OB_CRASH", "other", 1), 0);
    OB_CRASH_POINT("here");
    ck_assert_int_eq(setenv("OB_CRASH", "here:3", 1), 0);
    OB_CRASH_POINT("here");
    ck_abort_msg("the third time was survived");
}
END_TEST
#endif

START_TEST(memory_is_given_for_zero_bytes)
{
    void *p = ob_malloc(0);
    ck_assert_ptr_nonnull(p);
    p = ob_xrealloc(p, 0);
    ck_assert_ptr_nonnull(p);
    ob_free(p);
    ob_free(NULL);
    ck_assert_ptr_null(ob_strdup(NULL));
    ck_assert_ptr_null(ob_xstrdup(NULL));
    char *text = ob_strndup("abcdef", 3);
    ck_assert_str_eq(text, "abc");
    ob_free(text);
    text = ob_xasprintf("%d %s", 7, "seven");
    ck_assert_str_eq(text, "7 seven");
    ob_free(text);
}
END_TEST

START_TEST(random_numbers_are_in_range_and_differ)
{
    int64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t id = rand_id();
        ck_assert_int_gt(id, 0);
        ck_assert_int_ne(id, last);
        last = id;
        ck_assert_uint_lt(rand_below(7), 7);
        ck_assert_uint_eq(rand_below(1), 0);
    }
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("err");
    TCase *tcase = tcase_create("err");
    tcase_add_test(tcase, every_code_of_ours_has_its_own_text);
    tcase_add_test(tcase, codes_of_libuv_and_errno_have_texts);
    tcase_add_test(tcase, exit_codes_are_those_of_the_manual);
    tcase_add_test_raise_signal(tcase, a_failed_assertion_aborts, SIGABRT);
#ifdef OB_FAULTS
    tcase_add_exit_test(tcase, a_named_crash_point_ends_the_process, 137);
#endif
    tcase_add_test(tcase, memory_is_given_for_zero_bytes);
    tcase_add_test(tcase, random_numbers_are_in_range_and_differ);
    suite_add_tcase(suite, tcase);
    return suite;
}
