/* log: what a line looks like. Lines are read back from a pipe; JSON ones are parsed with jansson.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "ck_main.h"
#include "wait.h"

static int pipe_fds[2];
static char line[2 * LOG_LINE_MAX];

static void open_pipe(void)
{
    ck_assert_int_eq(pipe(pipe_fds), 0);
}

/* What was written since the last call, all of it. */
static size_t read_line(void)
{
    ck_assert_int_eq(fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK), 0);
    ssize_t n = read(pipe_fds[0], line, sizeof line - 1);
    if (n < 0)
        n = 0;
    line[n] = '\0';
    return (size_t)n;
}

/* The line behind ts=... level=info event=e and its space; without the newline. */
static const char *fields_of_line(void)
{
    ck_assert_uint_gt(read_line(), 0);
    char *end = strchr(line, '\n');
    ck_assert_ptr_nonnull(end);
    ck_assert_str_eq(end, "\n");
    *end = '\0';
    const char *fields = strstr(line, " event=e");
    ck_assert_ptr_nonnull(fields);
    fields += strlen(" event=e");
    return *fields == ' ' ? fields + 1 : fields;
}

START_TEST(line_has_time_level_and_event_first)
{
    log_setup(LOG_INFO, LOG_LOGFMT, pipe_fds[1]);
    log_warn("took_over", LOG_STR("task", "mail"), LOG_INT("id", -7), LOG_UINT("n", UINT64_MAX));
    ck_assert_uint_gt(read_line(), 0);
    int end = 0;
    int year, month, day, hour, minute, second, ms;
    int got = sscanf(line, "ts=%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute,
                     &second, &ms, &end);
    ck_assert_int_eq(got, 7);
    ck_assert_int_gt(year, 2020);
    ck_assert_str_eq(line + end,
                     " level=warn event=took_over task=mail id=-7 n=18446744073709551615\n");
}
END_TEST

static const struct {
    const char *value;
    const char *logfmt;
} quoting[] = {
    {"plain", "plain"},
    {"a/b:c.d-e_f@g,h", "a/b:c.d-e_f@g,h"},
    {"", "\"\""},
    {"two words", "\"two words\""},
    {"a=b", "\"a=b\""},
    {"say \"hi\"", "\"say \\\"hi\\\"\""},
    {"back\\slash", "\"back\\\\slash\""},
    {"a\nb\rc\td", "\"a\\nb\\rc\\td\""},
    {"\x01\x1b[31m\x7f", "\"\\u0001\\u001b[31m\\u007f\""},
    {"\xC2\x9B", "\"\\u009b\""},
    {"\xC2\xA0", "\xC2\xA0"},
    {"\xE2\x80\xA8\xE2\x80\xA9", "\"\\u2028\\u2029\""},
    {"gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80", "\"gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\""},
    {"\xFF\xC3", "\"\\ufffd\\ufffd\""},
};

START_TEST(values_are_quoted_and_escaped)
{
    char wanted[128];
    log_setup(LOG_INFO, LOG_LOGFMT, pipe_fds[1]);
    log_info("e", LOG_STR("v", quoting[_i].value), LOG_INT("n", 1));
    (void)snprintf(wanted, sizeof wanted, "v=%s n=1", quoting[_i].logfmt);
    ck_assert_str_eq(fields_of_line(), wanted);
}
END_TEST

START_TEST(json_lines_parse_and_keep_the_value)
{
    log_setup(LOG_INFO, LOG_JSON, pipe_fds[1]);
    log_info("e", LOG_STR("v", quoting[_i].value), LOG_STR("none", NULL), LOG_INT("n", -1));
    (void)read_line();
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(o);
    ck_assert_uint_eq(json_object_size(o), 5);
    ck_assert_str_eq(json_string_value(json_object_get(o, "level")), "info");
    ck_assert_str_eq(json_string_value(json_object_get(o, "event")), "e");
    ck_assert_int_eq(json_integer_value(json_object_get(o, "n")), -1);
    const char *v = json_string_value(json_object_get(o, "v"));
    if ((unsigned char)quoting[_i].value[0] == 0xFF)
        ck_assert_str_eq(v, "\xEF\xBF\xBD\xEF\xBF\xBD");
    else
        ck_assert_str_eq(v, quoting[_i].value);
    json_decref(o);
}
END_TEST

START_TEST(null_strings_are_left_out)
{
    log_setup(LOG_INFO, LOG_LOGFMT, pipe_fds[1]);
    log_info("e", LOG_STR("a", NULL), LOG_INT("b", 2));
    ck_assert_str_eq(fields_of_line(), "b=2");
    log_info("e", LOG_NONE);
    ck_assert_str_eq(fields_of_line(), "");
}
END_TEST

/* Values of every length around the bound, of 1, 2 and 6 bytes a character, in both formats. */
START_TEST(overlong_lines_are_cut_and_stay_valid)
{
    static const char *const units[] = {"x", "\xC3\xBC", "\x01"};
    static char value[LOG_LINE_MAX + 8];
    for (size_t chars = LOG_LINE_MAX / 6 - 40; chars < LOG_LINE_MAX;
         chars += chars < 700 ? 1 : 37) {
        value[0] = '\0';
        size_t unit = strlen(units[_i / 2]);
        for (size_t i = 0; (i + 1) * unit < sizeof value && i < chars; i++)
            memcpy(value + i * unit, units[_i / 2], unit + 1);
        log_setup(LOG_INFO, _i % 2 == 0 ? LOG_LOGFMT : LOG_JSON, pipe_fds[1]);
        log_info("e", LOG_STR("v", value), LOG_INT("next", INT64_MIN), LOG_STR("last", value));
        size_t n = read_line();
        ck_assert_uint_gt(n, 0);
        ck_assert_uint_le(n, LOG_LINE_MAX);
        ck_assert_int_eq(line[n - 1], '\n');
        ck_assert_ptr_eq(strchr(line, '\n'), &line[n - 1]);
        if (_i % 2 == 1) {
            json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
            ck_assert_ptr_nonnull(o);
            bool whole = json_object_get(o, "last") != NULL &&
                         strcmp(json_string_value(json_object_get(o, "last")), value) == 0;
            ck_assert_int_eq(json_is_true(json_object_get(o, "truncated")), !whole);
            json_decref(o);
        } else if (strstr(line, "truncated=true") != NULL)
            ck_assert_str_eq(line + n - 16, " truncated=true\n");
        else
            ck_assert_uint_lt(n, LOG_LINE_MAX - 16);
    }
}
END_TEST

START_TEST(levels_below_the_set_one_are_not_written)
{
    log_setup(LOG_WARN, LOG_LOGFMT, pipe_fds[1]);
    ck_assert(!log_enabled(LOG_INFO));
    ck_assert(log_enabled(LOG_WARN));
    log_info("e", LOG_NONE);
    log_debug("e", LOG_NONE);
    ck_assert_uint_eq(read_line(), 0);
    log_error("e", LOG_NONE);
    ck_assert_uint_gt(read_line(), 0);
}
END_TEST

START_TEST(errno_survives_a_failed_write)
{
    log_setup(LOG_INFO, LOG_LOGFMT, 1000);
    errno = ENOTTY;
    log_info("e", LOG_NONE);
    ck_assert_int_eq(errno, ENOTTY);
}
END_TEST

/* A full non-blocking pipe takes nothing; once it is read, the next line tells how many were lost.
 */
START_TEST(lines_a_full_pipe_refuses_are_counted)
{
    log_setup(LOG_INFO, LOG_LOGFMT, pipe_fds[1]);
    ck_assert_int_eq(fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK), 0);
    while (write(pipe_fds[1], "x", 1) == 1)
        ;
    log_info("e", LOG_INT("n", 1));
    log_info("e", LOG_INT("n", 2));
    while (read_line() > 0)
        ;
    log_info("e", LOG_INT("n", 3));
    ck_assert_str_eq(fields_of_line(), "n=3 log_dropped=2");
    log_info("e", LOG_INT("n", 4));
    ck_assert_str_eq(fields_of_line(), "n=4");
}
END_TEST

START_TEST(repeated_keys_are_suppressed_and_counted)
{
    uint64_t suppressed = 99;
    ck_assert(log_allow("a", 3600000, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
    ck_assert(!log_allow("a", 3600000, &suppressed));
    ck_assert(!log_allow("a", 3600000, &suppressed));
    ck_assert(log_allow("b", 3600000, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
    ck_assert(log_allow("a", 0, &suppressed));
    ck_assert_uint_eq(suppressed, 2);
    uint64_t swallowed = 0;
    ck_assert(wait_until(log_allow("a", 30, &swallowed), 5000));
}
END_TEST

START_TEST(suppression_table_is_bounded)
{
    char key[32];
    uint64_t suppressed = 0;
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof key, "task-%d", i);
        ck_assert(log_allow(key, 3600000, &suppressed));
        ck_assert(!log_allow(key, 3600000, &suppressed));
    }
}
END_TEST

START_TEST(level_and_format_names_are_parsed)
{
    enum log_level level = LOG_ERROR;
    enum log_format format = LOG_LOGFMT;
    ck_assert_int_eq(log_level_parse("debug", &level), 0);
    ck_assert_int_eq(level, LOG_DEBUG);
    ck_assert_int_eq(log_level_parse("DEBUG", &level), OB_EINVAL);
    ck_assert_int_eq(log_level_parse("", &level), OB_EINVAL);
    ck_assert_int_eq(log_format_parse("json", &format), 0);
    ck_assert_int_eq(format, LOG_JSON);
    ck_assert_int_eq(log_format_parse("xml", &format), OB_EINVAL);
}
END_TEST

/* The events that the sources name, and the page that lists them. */
START_TEST(every_event_is_in_the_documentation)
{
    FILE *f = popen("cd " OB_TEST_SOURCE_DIR " && grep -rhzoE 'log_(error|warn|info|debug)"
                    "\\([[:space:]]*\"[a-z_]+\"' dispatcher | tr '\\0' '\\n' | grep -oE "
                    "'\"[a-z_]+\"' | tr -d '\"' | sort -u | while read -r event; do "
                    "grep -q \"^|.*\\`$event\\`\" docs/logging.md && echo ok || echo $event; done",
                    "r");
    char event[100];
    int found = 0;
    ck_assert_ptr_nonnull(f);
    for (; fscanf(f, "%99s", event) == 1; found++)
        ck_assert_msg(strcmp(event, "ok") == 0, "docs/logging.md has no event %s", event);
    ck_assert_int_eq(pclose(f), 0);
    ck_assert_int_ge(found, 30);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("log");
    TCase *lines = tcase_create("lines");
    int rows = (int)(sizeof quoting / sizeof quoting[0]);
    tcase_add_checked_fixture(lines, open_pipe, NULL);
    tcase_add_test(lines, line_has_time_level_and_event_first);
    tcase_add_loop_test(lines, values_are_quoted_and_escaped, 0, rows);
    tcase_add_loop_test(lines, json_lines_parse_and_keep_the_value, 0, rows);
    tcase_add_test(lines, null_strings_are_left_out);
    tcase_add_loop_test(lines, overlong_lines_are_cut_and_stay_valid, 0, 6);
    tcase_add_test(lines, levels_below_the_set_one_are_not_written);
    tcase_add_test(lines, errno_survives_a_failed_write);
    tcase_add_test(lines, lines_a_full_pipe_refuses_are_counted);
    suite_add_tcase(suite, lines);
    TCase *rest = tcase_create("suppression and names");
    tcase_add_test(rest, repeated_keys_are_suppressed_and_counted);
    tcase_add_test(rest, suppression_table_is_bounded);
    tcase_add_test(rest, level_and_format_names_are_parsed);
    tcase_add_test(rest, every_event_is_in_the_documentation);
    suite_add_tcase(suite, rest);
    return suite;
}
