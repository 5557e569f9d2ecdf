/* What the command line prints and reads, piece by piece: tables, JSON, times, suggestions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "ck_main.h"
#include "cmd/jout.h"
#include "cmd/suggest.h"
#include "cmd/table.h"
#include "cmd/timearg.h"
#include "db/admin.h"

/* --- tables --- */

static const char *const two_columns[] = {">COUNT", "NAME"};

static char *printed(const struct table *t)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    ck_assert_ptr_nonnull(out);
    table_print(t, out);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

START_TEST(columns_line_up_and_numbers_are_to_the_right)
{
    struct table *t = table_new(two_columns, 2);
    table_cell(t, "7");
    table_cell(t, "a");
    table_cellf(t, "%d", 123456);
    table_cell(t, NULL);
    char *text = printed(t);
    ck_assert_str_eq(text, " COUNT  NAME\n"
                           "     7  a\n"
                           "123456  -\n");
    free(text);
    table_free(t);
}
END_TEST

START_TEST(a_table_without_rows_prints_nothing)
{
    struct table *t = table_new(two_columns, 2);
    char *text = printed(t);
    ck_assert_str_eq(text, "");
    free(text);
    table_free(t);
}
END_TEST

START_TEST(columns_line_up_behind_wide_and_combining_characters)
{
    static const char *const headers[] = {"A", "B"};
    struct table *t = table_new(headers, 2);
    table_cell(t, "\xE6\x97\xA5\xE6\x9C\xAC"); /* two ideographs: four columns */
    table_cell(t, "x");
    table_cell(t, "e\xCC\x81"); /* e and a combining accent: one column */
    table_cell(t, "x");
    char *text = printed(t);
    ck_assert_str_eq(text, "A     B\n"
                           "\xE6\x97\xA5\xE6\x9C\xAC  x\n"
                           "e\xCC\x81     x\n");
    free(text);
    table_free(t);
}
END_TEST

START_TEST(a_long_last_cell_is_whole_when_not_on_a_terminal)
{
    char long_text[2001];
    memset(long_text, 'x', 2000);
    long_text[2000] = '\0';
    struct table *t = table_new(two_columns, 2);
    table_cell(t, "1");
    table_cell(t, long_text);
    char *text = printed(t);
    ck_assert_ptr_nonnull(strstr(text, long_text));
    free(text);
    table_free(t);
}
END_TEST

START_TEST(cells_cannot_drive_the_terminal)
{
    struct table *t = table_new(two_columns, 2);
    table_cell(t, "1");
    table_cell(t, "a\033[2Jb\nc\rd\xC2\x9B"
                  "e\xFF");
    char *text = printed(t);
    ck_assert_ptr_nonnull(strstr(text, "a\\x1b[2Jb\\nc\\rd\\x9be\\xff"));
    free(text);
    table_free(t);
}
END_TEST

START_TEST(output_keeps_its_lines_but_no_control_characters)
{
    struct buf b;
    buf_init(&b, 1000);
    table_escape_lines(&b, "a\n\tb\033c", 6);
    ck_assert_str_eq(b.data, "a\n\tb\\x1bc");
    buf_deinit(&b);
}
END_TEST

/* --- JSON --- */

START_TEST(json_is_what_another_parser_reads)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct jout j;
    jout_init(&j, out);
    jout_open_array(&j, NULL);
    jout_open_object(&j, NULL);
    jout_int(&j, "id", INT64_C(9007199254740993));
    jout_str(&j, "text", "quote \" back \\ \n end");
    jout_str(&j, "nothing", NULL);
    jout_bool(&j, "yes", true);
    jout_raw(&j, "exact", "{\"a\": [1, 2]}");
    jout_bytes(&j, "bytes", "\xFFz", 2);
    jout_open_array(&j, "empty");
    jout_close(&j);
    jout_close(&j);
    jout_open_object(&j, NULL);
    jout_close(&j);
    jout_close(&j);
    jout_end(&j);
    ck_assert_int_eq(fclose(out), 0);
    json_error_t error;
    json_t *array = json_loads(text, 0, &error);
    ck_assert_msg(array != NULL, "%s in %s", error.text, text);
    ck_assert_uint_eq(json_array_size(array), 2);
    json_t *o = json_array_get(array, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "id")), INT64_C(9007199254740993));
    ck_assert_str_eq(json_string_value(json_object_get(o, "text")), "quote \" back \\ \n end");
    ck_assert(json_is_null(json_object_get(o, "nothing")));
    ck_assert(json_is_true(json_object_get(o, "yes")));
    ck_assert_uint_eq(json_array_size(json_object_get(json_object_get(o, "exact"), "a")), 2);
    ck_assert_str_eq(json_string_value(json_object_get(o, "bytes")), "\xEF\xBF\xBDz");
    ck_assert_uint_eq(json_array_size(json_object_get(o, "empty")), 0);
    json_decref(array);
    free(text);
}
END_TEST

START_TEST(an_empty_json_array_is_two_brackets)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct jout j;
    jout_init(&j, out);
    jout_open_array(&j, NULL);
    jout_close(&j);
    jout_end(&j);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_str_eq(text, "[]\n");
    free(text);
}
END_TEST

/* --- suggestions --- */

static const char *const commands[] = {"migrate", "run",   "enqueue",    "jobs",
                                       "cancel",  "retry", "dispatchers"};
static const struct {
    const char *wrong, *meant;
} words[] = {{"enqeue", "enqueue"},
             {"job", "jobs"},
             {"jbos", "jobs"},
             {"cancle", "cancel"},
             {"retyr", "retry"},
             {"disp", "dispatchers"},
             {"xyzzy", NULL},
             {"q", NULL},
             {"", NULL},
             {"migration", "migrate"},
             {"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", NULL}};

START_TEST(the_name_that_was_meant_is_found)
{
    const char *found =
        suggest_name(words[_i].wrong, commands, sizeof commands / sizeof commands[0]);
    if (words[_i].meant == NULL)
        ck_assert_ptr_null(found);
    else
        ck_assert_pstr_eq(found, words[_i].meant);
}
END_TEST

/* --- times --- */

static const struct {
    const char *text;
    int64_t us;
} times[] = {
    {"1970-01-01T00:00:00Z", 0},
    {"2026-01-31T08:30:00Z", INT64_C(1769848200000000)},
    {"2026-01-31t08:30z", INT64_C(1769848200000000)},
    {"2026-01-31 10:30:00+02:00", INT64_C(1769848200000000)},
    {"2026-01-31 10:30 +02", INT64_C(1769848200000000)},
    {"2026-01-31 01:00:00 -0730", INT64_C(1769848200000000)},
    {"2026-01-31T08:30:00.25Z", INT64_C(1769848200250000)},
    {"2026-01-31T08:30:00.123456789Z", INT64_C(1769848200123456)},
    {"2024-02-29T00:00:00Z", INT64_C(1709164800000000)},
    /* local time: the test sets TZ to five hours east */
    {"2026-01-31 13:30", INT64_C(1769848200000000)},
    {"2026-01-31", INT64_C(1769799600000000)},
};

static const char *const no_times[] = {"",
                                       "now",
                                       "2026-13-01",
                                       "2026-02-30",
                                       "2025-02-29",
                                       "2026-01-31T24:00Z",
                                       "2026-1-31",
                                       "2026-01-31T8Z",
                                       "2026-01-31 08:60",
                                       "2026-01-31 08:30 +2",
                                       "2026-01-31 08:30Zx",
                                       "1969-12-31T00:00Z",
                                       "2026-01-31 08:30:00.",
                                       "2026-01-31T",
                                       "2026-01-31 08:30+16",
                                       "20260131"};

START_TEST(a_time_is_read)
{
    ck_assert_int_eq(setenv("TZ", "TEST-5", 1), 0);
    tzset();
    int64_t us = -1;
    ck_assert_int_eq(timearg_parse(times[_i].text, &us), 0);
    ck_assert_int_eq(us, times[_i].us);
}
END_TEST

START_TEST(what_is_no_time_is_refused)
{
    int64_t us = 0;
    ck_assert_int_eq(timearg_parse(no_times[_i], &us), OB_EINVAL);
}
END_TEST

/* --- passwords --- */

static const struct {
    const char *conninfo, *text, *secret;
} secrets[] = {
    {"host=h password=hunter2 dbname=d", "auth with hunter2 failed", "hunter2"},
    {"postgresql://u:hunter2@h/d", "no host hunter2", "hunter2"},
    {"postgresql://u:hun%40ter@h/d", "no host hun@ter", "hun@ter"},
    {"postgresql://u:hunter@2@h/d", "could not translate host name \"2@h\"", "2@h"},
    {"postgresql://u:hun/ter2@h/d", "invalid integer value \"hun\" for option port", "hun"},
    {"host=h password=hunter2 oops", "missing \"=\" after \"oops\"", "oops"},
    {"password=hunter zwei", "missing \"=\" after \"zwei\"", "zwei"},
};

START_TEST(a_password_is_taken_out_of_a_message)
{
    char text[200];
    (void)snprintf(text, sizeof text, "%s", secrets[_i].text);
    admin_redact(text, sizeof text, secrets[_i].conninfo);
    ck_assert_ptr_null(strstr(text, secrets[_i].secret));
    ck_assert_uint_gt(strlen(text), 0);
}
END_TEST

START_TEST(a_message_without_secrets_stays_as_it_is)
{
    char text[200] = "could not connect to server: Connection refused";
    admin_redact(text, sizeof text, "postgresql://u:hunter2@h/d?application_name=a@b");
    ck_assert_str_eq(text, "could not connect to server: Connection refused");
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_text");
    TCase *tc = tcase_create("tables");
    tcase_add_test(tc, columns_line_up_and_numbers_are_to_the_right);
    tcase_add_test(tc, a_table_without_rows_prints_nothing);
    tcase_add_test(tc, columns_line_up_behind_wide_and_combining_characters);
    tcase_add_test(tc, a_long_last_cell_is_whole_when_not_on_a_terminal);
    tcase_add_test(tc, cells_cannot_drive_the_terminal);
    tcase_add_test(tc, output_keeps_its_lines_but_no_control_characters);
    suite_add_tcase(suite, tc);
    tc = tcase_create("json");
    tcase_add_test(tc, json_is_what_another_parser_reads);
    tcase_add_test(tc, an_empty_json_array_is_two_brackets);
    suite_add_tcase(suite, tc);
    tc = tcase_create("words");
    tcase_add_loop_test(tc, the_name_that_was_meant_is_found, 0, sizeof words / sizeof words[0]);
    suite_add_tcase(suite, tc);
    tc = tcase_create("times");
    tcase_add_loop_test(tc, a_time_is_read, 0, sizeof times / sizeof times[0]);
    tcase_add_loop_test(tc, what_is_no_time_is_refused, 0, sizeof no_times / sizeof no_times[0]);
    suite_add_tcase(suite, tc);
    tc = tcase_create("passwords");
    tcase_add_loop_test(tc, a_password_is_taken_out_of_a_message, 0,
                        sizeof secrets / sizeof secrets[0]);
    tcase_add_test(tc, a_message_without_secrets_stays_as_it_is);
    suite_add_tcase(suite, tc);
    return suite;
}
