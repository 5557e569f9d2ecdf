/* What a worker writes, and what it is read as: every kind of line, and many that are none. Each
 * text stands right before an unreadable page. And its standard error as lines. */
#include "ck_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/lines.h"
#include "worker/reply.h"

static char *guarded;
static size_t room;

static void map_guard(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    room = 2 * page;
    guarded = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(guarded, MAP_FAILED);
    ck_assert_int_eq(mprotect(guarded + room, page, PROT_NONE), 0);
}

static int parse(const char *text, size_t len, struct worker_reply *ret, const char **reterr_why)
{
    char *at = guarded + room - len;
    memcpy(at, text, len);
    return worker_reply_parse(at, len, ret, reterr_why);
}

static const struct {
    const char *text;
    enum reply_kind kind;
    int64_t id;
    uint64_t number; /* window, or delay_ms */
    const char *error;
} good[] = {
    {"{\"op\":\"ready\",\"proto\":1,\"window\":16}", REPLY_READY, 0, 16, NULL},
    {"{\"op\":\"ready\",\"proto\":1}", REPLY_READY, 0, 1, NULL},
    {"{\"op\":\"ready\",\"proto\":1,\"window\":99999999999}", REPLY_READY, 0, 1000000, NULL},
    {"{\"id\":\"7\",\"status\":\"ok\"}", REPLY_OK, 7, 0, NULL},
    {"{\"id\":\"9223372036854775807\",\"status\":\"ok\"}", REPLY_OK, INT64_MAX, 0, NULL},
    {" { \"id\" : \"7\" ,\t\"status\" : \"ok\" } \r", REPLY_OK, 7, 0, NULL},
    {"{\"status\":\"ok\",\"id\":\"7\"}", REPLY_OK, 7, 0, NULL},
    {"{\"id\":\"7\",\"status\":\"ok\",\"took\":{\"ms\":[1,2]}}", REPLY_OK, 7, 0, NULL},
    {"{\"id\":\"7\",\"status\":\"ok\",\"error\":5}", REPLY_OK, 7, 0, NULL},
    {"{\"id\":\"7\",\"status\":\"retry\"}", REPLY_RETRY, 7, 0, NULL},
    {"{\"id\":\"7\",\"status\":\"retry\",\"after\":30,\"error\":\"busy\"}", REPLY_RETRY, 7, 30000,
     "busy"},
    {"{\"id\":\"7\",\"status\":\"retry\",\"after\":0.0015}", REPLY_RETRY, 7, 2, NULL},
    {"{\"id\":\"7\",\"status\":\"retry\",\"after\":null,\"error\":null}", REPLY_RETRY, 7, 0, NULL},
    {"{\"id\":\"7\",\"status\":\"retry\",\"after\":1e300}", REPLY_RETRY, 7,
     UINT64_C(365) * 24 * 3600 * 1000, NULL},
    {"{\"id\":\"7\",\"status\":\"dead\",\"error\":\"\\u00e9\\n\"}", REPLY_DEAD, 7, 0, "é\n"},
    {"{\"op\":\"touch\",\"id\":\"7\",\"extend\":30}", REPLY_TOUCH, 7, 30000, NULL},
};

START_TEST(every_kind_of_line_is_read)
{
    struct worker_reply r;
    const char *why = "";
    int err = parse(good[_i].text, strlen(good[_i].text), &r, &why);
    ck_assert_msg(err == 0, "%s: %s", good[_i].text, why);
    ck_assert_int_eq(r.kind, good[_i].kind);
    ck_assert_int_eq(r.id, good[_i].id);
    ck_assert_uint_eq(r.kind == REPLY_READY ? r.window : r.delay_ms, good[_i].number);
    if (good[_i].error == NULL)
        ck_assert_ptr_null(r.error);
    else
        ck_assert_str_eq(r.error, good[_i].error);
    ck_assert_uint_eq(r.error_len, good[_i].error != NULL ? strlen(good[_i].error) : 0);
    worker_reply_clear(&r);
}
END_TEST

static const char *const bad[] = {
    "",
    " ",
    "ok",
    "{",
    "{}",
    "[]",
    "\"ok\"",
    "{\"id\":\"7\",\"status\":\"ok\"",
    "{\"id\":\"7\",\"status\":\"ok\"}}",
    "{\"id\":\"7\",\"status\":\"ok\"} {}",
    "{\"id\":\"7\",\"status\":\"ok\",}",
    "{\"id\":\"7\",\"id\":\"8\",\"status\":\"ok\"}",
    "{\"id\":\"7\"}",
    "{\"status\":\"ok\"}",
    "{\"id\":7,\"status\":\"ok\"}",
    "{\"id\":\"\",\"status\":\"ok\"}",
    "{\"id\":\"0\",\"status\":\"ok\"}",
    "{\"id\":\"07\",\"status\":\"ok\"}",
    "{\"id\":\"-7\",\"status\":\"ok\"}",
    "{\"id\":\" 7\",\"status\":\"ok\"}",
    "{\"id\":\"7x\",\"status\":\"ok\"}",
    "{\"id\":\"9223372036854775808\",\"status\":\"ok\"}",
    "{\"id\":\"99999999999999999999\",\"status\":\"ok\"}",
    "{\"id\":\"7\",\"status\":\"OK\"}",
    "{\"id\":\"7\",\"status\":null}",
    "{\"id\":\"7\",\"status\":\"retry\",\"after\":\"30\"}",
    "{\"id\":\"7\",\"status\":\"retry\",\"after\":-0.5}",
    "{\"id\":\"7\",\"status\":\"dead\",\"error\":{}}",
    "{\"id\":\"7\",\"status\":\"dead\",\"error\":\"\xff\"}",
    "{\"id\":\"7\",\"status\":\"dead\",\"error\":\"\\u0000\"}",
    "{\"op\":\"touch\",\"id\":\"7\"}",
    "{\"op\":\"touch\",\"id\":\"7\",\"extend\":null}",
    "{\"op\":\"touch\",\"extend\":30}",
    "{\"op\":\"ready\"}",
    "{\"op\":\"ready\",\"proto\":2}",
    "{\"op\":\"ready\",\"proto\":\"1\"}",
    "{\"op\":\"ready\",\"proto\":1,\"window\":0}",
    "{\"op\":\"ready\",\"proto\":1,\"window\":1.5}",
    "{\"op\":\"job\",\"id\":\"7\"}",
    "{\"op\":1,\"id\":\"7\",\"status\":\"ok\"}",
};

START_TEST(anything_else_is_refused_with_a_reason)
{
    struct worker_reply r;
    const char *why = "";
    ck_assert_int_eq(parse(bad[_i], strlen(bad[_i]), &r, &why), OB_ESYNTAX);
    ck_assert_str_ne(why, "");
    ck_assert_ptr_null(r.doc);
}
END_TEST

START_TEST(a_nul_is_refused)
{
    static const char in_id[] = "{\"id\":\"7\0\",\"status\":\"ok\"}";
    static const char behind[] = "{\"id\":\"7\",\"status\":\"ok\"}";
    struct worker_reply r;
    const char *why = "";
    ck_assert_int_eq(parse(in_id, sizeof in_id - 1, &r, &why), OB_ESYNTAX);
    ck_assert_int_eq(parse(behind, sizeof behind, &r, &why), OB_ESYNTAX); /* its own NUL */
}
END_TEST

START_TEST(every_cut_of_a_line_is_refused)
{
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t whole = strcspn(good[i].text, "}") + 1; /* at least so much is needed */
        for (size_t len = 0; len < whole - 1; len++) {
            struct worker_reply r;
            const char *why = "";
            ck_assert_int_eq(parse(good[i].text, len, &r, &why), OB_ESYNTAX);
        }
    }
}
END_TEST

/* ---- standard error ---- */

static char collected[8192];

static void collect(void *arg, const char *text)
{
    size_t *count = arg;
    (*count)++;
    size_t len = strlen(collected);
    (void)snprintf(collected + len, sizeof collected - len, "<%s>", text);
}

START_TEST(standard_error_is_cut_into_lines)
{
    static const char bytes[] = "one\ntwo\r\n\n\0x\nthree";
    struct err_line l = {.len = 0};
    size_t count = 0;
    collected[0] = '\0';
    for (size_t i = 0; i < sizeof bytes - 1; i++) /* however it arrives */
        err_line_add(&l, bytes + i, 1, collect, &count);
    ck_assert_str_eq(collected, "<one><two><?x>");
    err_line_end(&l, collect, &count);
    err_line_end(&l, collect, &count);
    ck_assert_str_eq(collected, "<one><two><?x><three>");
}
END_TEST

START_TEST(a_long_line_is_cut)
{
    static char bytes[5000];
    struct err_line l = {.len = 0};
    size_t count = 0;
    collected[0] = '\0';
    memset(bytes, 'x', sizeof bytes);
    bytes[4999] = '\n';
    err_line_add(&l, bytes, sizeof bytes, collect, &count);
    err_line_add(&l, "y\n", 2, collect, &count);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(strlen(collected), ERR_LINE_MAX + 2 + 3);
}
END_TEST

START_TEST(a_flood_of_lines_is_counted_not_told)
{
    struct line_rate rate = {.count = 0};
    uint64_t suppressed = 1;
    unsigned told = 0;
    for (int i = 0; i < 1000; i++)
        told += line_rate_allows(&rate, 5000, &suppressed) ? 1 : 0;
    ck_assert_uint_eq(told, ERR_LINES_MAX);
    ck_assert(!line_rate_allows(&rate, 5000 + ERR_LINES_MS - 1, &suppressed));
    ck_assert(line_rate_allows(&rate, 5000 + ERR_LINES_MS, &suppressed));
    ck_assert_uint_eq(suppressed, 1000 - ERR_LINES_MAX + 1);
    ck_assert(line_rate_allows(&rate, 5000 + ERR_LINES_MS, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("worker_reply");
    TCase *tc = tcase_create("lines");
    tcase_add_unchecked_fixture(tc, map_guard, NULL);
    tcase_add_loop_test(tc, every_kind_of_line_is_read, 0, (int)(sizeof good / sizeof good[0]));
    tcase_add_loop_test(tc, anything_else_is_refused_with_a_reason, 0,
                        (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(tc, a_nul_is_refused);
    tcase_add_test(tc, every_cut_of_a_line_is_refused);
    suite_add_tcase(s, tc);
    TCase *err = tcase_create("standard error");
    tcase_add_test(err, standard_error_is_cut_into_lines);
    tcase_add_test(err, a_long_line_is_cut);
    tcase_add_test(err, a_flood_of_lines_is_counted_not_told);
    suite_add_tcase(s, err);
    return s;
}
