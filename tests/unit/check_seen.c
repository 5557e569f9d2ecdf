/* check_seen.c - what a look says of itself: every member read, the absent ones as they are said to
 * mean, and nothing taken from a text that is something else. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "ck_main.h"
#include "db/seen.h"

static struct seen *parse(const char *json)
{
    struct seen *s = seen_parse(json, strlen(json));
    ck_assert_msg(s != NULL, "refused: %s", json);
    return s;
}

static void ck_row(const struct seen_row *row, int lane, uint64_t xid, int64_t id)
{
    ck_assert_int_eq(row->lane, lane);
    ck_assert_uint_eq(row->xid, xid);
    ck_assert_int_eq(row->id, id);
}

START_TEST(every_member_is_read)
{
    struct seen *s = parse(
        "{\"position\": 4294967999, \"position_id\": 9223372036854775807, \"cut\": 4294968000,"
        " \"xmax\": 4294968100, \"full\": true, \"running\": [4294968000, 4294968099],"
        " \"pending\": [700, 701], \"ended\": [600], \"partial\": [[500, 7], [501, 8]],"
        " \"blocked\": [[9, 4294967998, 12]], \"lanes\": [[4, 1, 2], [6, 3, 4]],"
        " \"walked\": [[9, 4294967997, 11]],"
        " \"missed\": [21, 22, 23], \"now\": 1577934245678901, \"next_due\": 1577934245678902,"
        " \"xid\": 4294968001, \"done\": true}");
    ck_assert_uint_eq(s->position_xid, UINT64_C(4294967999));
    ck_assert_int_eq(s->position_id, INT64_MAX);
    ck_assert_uint_eq(s->cut, UINT64_C(4294968000));
    ck_assert_uint_eq(s->xmax, UINT64_C(4294968100));
    ck_assert_uint_eq(s->xid, UINT64_C(4294968001));
    ck_assert(s->is_full);
    ck_assert(s->is_done);
    ck_assert_int_eq(s->now_us, INT64_C(1577934245678901));
    ck_assert_int_eq(s->next_due_us, INT64_C(1577934245678902));
    ck_assert_uint_eq(s->running.count, 2);
    ck_assert_uint_eq(s->running.items[1], UINT64_C(4294968099));
    ck_assert_uint_eq(s->pending.count, 2);
    ck_assert_uint_eq(s->pending.items[0], 700);
    ck_assert_uint_eq(s->ended.count, 1);
    ck_assert_uint_eq(s->ended.items[0], 600);
    ck_assert_uint_eq(s->missed.count, 3);
    ck_assert_uint_eq(s->missed.items[2], 23);
    ck_assert_uint_eq(s->partial.count, 2);
    ck_row(&s->partial.items[1], 0, 501, 8);
    ck_assert_uint_eq(s->blocked.count, 1);
    ck_row(&s->blocked.items[0], 9, UINT64_C(4294967998), 12);
    ck_assert_uint_eq(s->lanes.count, 2);
    ck_row(&s->lanes.items[0], 4, 1, 2);
    ck_row(&s->lanes.items[1], 6, 3, 4);
    ck_assert_uint_eq(s->walked.count, 1);
    ck_row(&s->walked.items[0], 9, UINT64_C(4294967997), 11);
    seen_free(s);
}
END_TEST

START_TEST(absent_members_are_nothing)
{
    struct seen *s = parse("{\"position\": 3, \"position_id\": 0}");
    ck_assert_uint_eq(s->position_xid, 3);
    ck_assert_int_eq(s->position_id, 0);
    ck_assert_uint_eq(s->xid, 0);
    ck_assert(!s->is_full);
    ck_assert(!s->is_done);
    ck_assert_int_eq(s->next_due_us, INT64_MAX);
    ck_assert_uint_eq(s->running.count + s->pending.count + s->ended.count + s->missed.count +
                          s->partial.count + s->blocked.count + s->lanes.count + s->walked.count,
                      0);
    seen_free(s);
    seen_free(NULL);
}
END_TEST

/* A later schema may say more. */
START_TEST(unknown_members_are_passed_over)
{
    struct seen *s =
        parse("{\"news\": {\"a\": [1]}, \"position\": 1, \"running\": [], \"full\": false}");
    ck_assert_uint_eq(s->position_xid, 1);
    ck_assert(!s->is_full);
    seen_free(s);
}
END_TEST

static const char *const malformed[] = {
    "",
    " ",
    "x",
    "null",
    "[]",
    "7",
    "{}",
    "{\"position\": 1",
    "{\"position\": 1}}",
    "{\"position\": null}",
    "{\"position\": \"1\"}",
    "{\"position\": 1.5}",
    "{\"position\": 18446744073709551616}",
    "{\"position\": 1, \"running\": [\"2\"]}",
    "{\"position\": 1, \"pending\": [1, null]}",
    "{\"position\": 1, \"ended\": [[1]]}",
    "{\"position\": 1, \"missed\": [1.5]}",
    "{\"position\": 1, \"partial\": [1]}",
    "{\"position\": 1, \"partial\": [[1]]}",
    "{\"position\": 1, \"partial\": [[1, 2, 3]]}",
    "{\"position\": 1, \"blocked\": [[1, 2]]}",
    "{\"position\": 1, \"blocked\": [[1, 2, 3, 4]]}",
    "{\"position\": 1, \"lanes\": [[]]}",
    "{\"position\": 1, \"lanes\": [[1, 2, 3], {}]}",
    "{\"position\": 1, \"lanes\": [[1, 2, 3], null]}",
};

START_TEST(anything_else_is_refused)
{
    const char *json = malformed[_i];
    ck_assert_msg(seen_parse(json, strlen(json)) == NULL, "taken: %s", json);
}
END_TEST

/* The length counts, not a terminator. */
START_TEST(text_ends_where_it_is_said_to)
{
    static const char text[] = "{\"position\": 1}garbage";
    struct seen *s = seen_parse(text, strlen("{\"position\": 1}"));
    ck_assert_ptr_nonnull(s);
    seen_free(s);
    ck_assert_ptr_null(seen_parse(text, sizeof text - 1));
    ck_assert_ptr_null(seen_parse(text, 5));
}
END_TEST

/* As many as a look may bring. */
START_TEST(long_lists_are_read_whole)
{
    enum { COUNT = 5000 };
    static char text[COUNT * 24 + 100];
    size_t len = (size_t)snprintf(text, sizeof text, "{\"position\": 1, \"blocked\": [");
    for (int i = 0; i < COUNT; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s[%d,%d,%d]", i > 0 ? "," : "",
                                i + 4, i + 100, i);
    (void)snprintf(text + len, sizeof text - len, "]}");
    struct seen *s = parse(text);
    ck_assert_uint_eq(s->blocked.count, COUNT);
    for (int i = 0; i < COUNT; i++)
        ck_row(&s->blocked.items[i], i + 4, (uint64_t)i + 100, i);
    seen_free(s);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("seen");
    TCase *tc = tcase_create("parsing");
    tcase_add_test(tc, every_member_is_read);
    tcase_add_test(tc, absent_members_are_nothing);
    tcase_add_test(tc, unknown_members_are_passed_over);
    tcase_add_loop_test(tc, anything_else_is_refused, 0, sizeof malformed / sizeof malformed[0]);
    tcase_add_test(tc, text_ends_where_it_is_said_to);
    tcase_add_test(tc, long_lists_are_read_whole);
    suite_add_tcase(s, tc);
    return s;
}
