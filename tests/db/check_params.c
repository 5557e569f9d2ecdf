/* check_params.c - parameters as the server reads them: each kind goes there and comes back as
 * text. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/params.h"
#include "pgcluster.h"
#include "pgrig.h"

static struct pgrig rig;

static void begin(void)
{
    testdb_create();
    rig_open_up(&rig, testdb_conninfo());
}

static void end(void)
{
    rig_close(&rig);
    testdb_drop();
}

/* What the statement makes of the parameters. "NULL" for NULL. Static storage. */
static const char *answer(struct params *p, const char *sql)
{
    static char text[400];
    struct reply reply = {0};
    struct pgbatch *b = pgbatch_new();
    params_add(p, b, sql);
    params_deinit(p);
    rig_submit(&rig, b, &reply);
    rig_until(&rig, reply.is_done);
    ck_assert_msg(reply.error.err == 0, "%s", reply.error.message);
    const PGresult *res = reply.results[0];
    (void)snprintf(text, sizeof text, "%s",
                   PQgetisnull(res, 0, 0) ? "NULL" : PQgetvalue(res, 0, 0));
    reply_clear(&reply);
    return text;
}

START_TEST(integers_arrive_whole)
{
    static const int64_t values[] = {0, 1, -1, INT32_MIN, INT64_MAX, INT64_MIN};
    char expected[64];
    struct params p;
    params_init(&p);
    params_int8(&p, values[_i]);
    params_int4(&p, (int)(values[_i] % 1000000));
    (void)snprintf(expected, sizeof expected, "%" PRId64 " %d", values[_i],
                   (int)(values[_i] % 1000000));
    ck_assert_str_eq(answer(&p, "SELECT $1::text || ' ' || $2::text"), expected);
}
END_TEST

START_TEST(types_are_the_declared_ones)
{
    struct params p;
    params_init(&p);
    params_int8(&p, 1);
    params_int4(&p, 1);
    params_bool(&p, true);
    params_text(&p, "x");
    params_jsonb(&p, "{}");
    params_interval_ms(&p, 1);
    params_int8_array(&p, NULL, 0);
    params_int4_array(&p, NULL, 0);
    params_text_array(&p, NULL, 0);
    ck_assert_str_eq(
        answer(&p, "SELECT concat_ws(' ', pg_typeof($1), pg_typeof($2), pg_typeof($3),"
                   " pg_typeof($4), pg_typeof($5), pg_typeof($6), pg_typeof($7), pg_typeof($8),"
                   " pg_typeof($9))"),
        "bigint integer boolean text jsonb interval bigint[] integer[] text[]");
}
END_TEST

START_TEST(texts_and_null_arrive_as_they_are)
{
    struct params p;
    params_init(&p);
    params_text(&p, "a 'quote' \\ \xc3\xa4");
    params_text(&p, NULL);
    params_text(&p, "");
    params_jsonb(&p, "[1, {\"a\": null}]");
    params_jsonb(&p, NULL);
    params_bool(&p, false);
    ck_assert_str_eq(answer(&p, "SELECT concat_ws('|', $1, $2 IS NULL, $3 = '', $4->1,"
                                " $5 IS NULL, $6)"),
                     "a 'quote' \\ \xc3\xa4|t|t|{\"a\": null}|t|f");
}
END_TEST

START_TEST(intervals_are_milliseconds)
{
    static const struct {
        uint64_t ms;
        const char *epoch;
    } rows[] = {{0, "0.000000"},
                {1, "0.001000"},
                {60000, "60.000000"},
                {UINT64_C(86400000) * 400, "34560000.000000"}};
    struct params p;
    params_init(&p);
    params_interval_ms(&p, rows[_i].ms);
    ck_assert_str_eq(answer(&p, "SELECT extract(epoch FROM $1)::text"), rows[_i].epoch);
}
END_TEST

START_TEST(arrays_keep_values_and_order)
{
    static const int64_t eights[] = {1, -1, INT64_MAX, INT64_MIN, 0};
    static const int fours[] = {7, INT32_MIN, INT32_MAX};
    static const char *const texts[] = {"a", "", "with,comma {}\"\\", "\xe2\x82\xac"};
    struct params p;
    params_init(&p);
    params_int8_array(&p, eights, 5);
    params_int4_array(&p, fours, 3);
    params_text_array(&p, texts, 4);
    ck_assert_str_eq(answer(&p,
                            "SELECT array_to_string($1, ' ') || '|' || array_to_string($2, ' ') ||"
                            " '|' || array_to_string($3, ';') || '|' || array_lower($1, 1)"),
                     "1 -1 9223372036854775807 -9223372036854775808 0|7 -2147483648 2147483647|"
                     "a;;with,comma {}\"\\;\xe2\x82\xac|1");
}
END_TEST

START_TEST(empty_arrays_are_empty_and_not_null)
{
    struct params p;
    params_init(&p);
    params_int8_array(&p, NULL, 0);
    params_int4_array(&p, NULL, 0);
    params_text_array(&p, NULL, 0);
    ck_assert_str_eq(answer(&p, "SELECT concat(cardinality($1), cardinality($2), cardinality($3))"),
                     "000");
}
END_TEST

START_TEST(large_arrays_arrive_whole)
{
    enum { COUNT = 100000 };
    int64_t *values = ob_xcalloc(COUNT, sizeof *values);
    for (int i = 0; i < COUNT; i++)
        values[i] = i;
    struct params p;
    params_init(&p);
    params_int8_array(&p, values, COUNT);
    ob_free(values); /* copied */
    ck_assert_str_eq(answer(&p, "SELECT concat(count(*), ' ', sum(v), ' ', bool_and(v = n - 1))"
                                " FROM unnest($1) WITH ORDINALITY AS u(v, n)"),
                     "100000 4999950000 t");
}
END_TEST

START_TEST(as_many_as_there_may_be)
{
    struct params p;
    params_init(&p);
    for (int i = 0; i < PARAMS_MAX; i++)
        params_int4(&p, i);
    ck_assert_str_eq(
        answer(&p, "SELECT concat_ws(' ', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"),
        "0 1 2 3 4 5 6 7 8 9 10 11");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("params");
    TCase *tc = tcase_create("round trips");
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, begin, end);
    tcase_add_loop_test(tc, integers_arrive_whole, 0, 6);
    tcase_add_test(tc, types_are_the_declared_ones);
    tcase_add_test(tc, texts_and_null_arrive_as_they_are);
    tcase_add_loop_test(tc, intervals_are_milliseconds, 0, 4);
    tcase_add_test(tc, arrays_keep_values_and_order);
    tcase_add_test(tc, empty_arrays_are_empty_and_not_null);
    tcase_add_test(tc, large_arrays_arrive_whole);
    tcase_add_test(tc, as_many_as_there_may_be);
    suite_add_tcase(s, tc);
    return s;
}
