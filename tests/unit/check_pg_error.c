/* check_pg_error.c - what SQLSTATEs advise, and how libpq's texts become one line. No server is
 * needed: results are made, connections fail on the way. */
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "ck_main.h"
#include "db/pgconn.h"

static const struct {
    const char *sqlstate;
    enum pg_advice advice;
} advices[] = {
    {"08006", PG_RECONNECT},
    {"08P01", PG_RECONNECT},
    {"57P01", PG_RECONNECT},
    {"57P02", PG_RECONNECT},
    {"57P03", PG_RECONNECT},
    {"57P05", PG_RECONNECT},
    {"25006", PG_RECONNECT},
    {"25P03", PG_RECONNECT},
    {"40001", PG_RETRY_SOON},
    {"40P01", PG_RETRY_SOON},
    {"55P03", PG_RETRY_SOON},
    {"53100", PG_SLOW_DOWN},
    {"53300", PG_SLOW_DOWN},
    {"42501", PG_PRIVILEGE},
    {"42P01", PG_WAIT_SCHEMA},
    {"42883", PG_WAIT_SCHEMA},
    {"3F000", PG_WAIT_SCHEMA},
    {"40003", PG_GO_ON},
    {"57014", PG_GO_ON},
    {"25001", PG_GO_ON},
    {"23505", PG_GO_ON},
    {"XX000", PG_GO_ON},
    {"", PG_GO_ON},
};
enum { ADVICES = sizeof advices / sizeof advices[0] };

START_TEST(a_sqlstate_advises_by_its_code_or_class)
{
    ck_assert_int_eq(pg_advice(advices[_i].sqlstate), advices[_i].advice);
}
END_TEST

START_TEST(a_message_becomes_one_line_that_fits)
{
    struct pg_error e;
    pg_error_set(&e, OB_EDB,
                 "  one\n\ttwo \r\n three\x7f\x01"
                 "four\xff.");
    ck_assert_str_eq(e.message, "one two three four?.");
    ck_assert_int_eq(e.err, OB_EDB);
    ck_assert_str_eq(e.sqlstate, "");
    ck_assert_str_eq(e.hint, "");
    pg_error_set(&e, OB_EDB, NULL);
    ck_assert_str_eq(e.message, "");
}
END_TEST

START_TEST(a_long_message_is_cut_between_characters)
{
    char text[600];
    struct pg_error e;
    memset(text, 'a', sizeof text);
    memcpy(text + 253, "\xE2\x82\xAC", 3); /* would end at byte 256, where the NUL must be */
    text[sizeof text - 1] = '\0';
    pg_error_set(&e, OB_EDB, text);
    ck_assert_uint_eq(strlen(e.message), 253);
    memcpy(text + 252,
           "\xE2\x82\xAC"
           "aa",
           5);
    pg_error_set(&e, OB_EDB, text);
    ck_assert_uint_eq(strlen(e.message), 255);
    ck_assert_str_eq(e.message + 252, "\xE2\x82\xAC");
}
END_TEST

START_TEST(a_missing_result_is_a_lost_connection)
{
    struct pg_error e;
    pg_error_from_result(&e, NULL);
    ck_assert_int_eq(e.err, OB_ECONN);
    ck_assert_str_eq(e.message, "out of memory");
}
END_TEST

START_TEST(a_skipped_statement_is_said_to_be_skipped)
{
    PGresult *res = PQmakeEmptyPGresult(NULL, PGRES_PIPELINE_ABORTED);
    struct pg_error e;
    pg_error_from_result(&e, res);
    PQclear(res);
    ck_assert_int_eq(e.err, OB_EDB);
    ck_assert_ptr_nonnull(strstr(e.message, "not executed"));
}
END_TEST

START_TEST(a_failed_connection_gives_every_host_and_no_advice)
{
    PGconn *conn =
        PQconnectdb("host=/tmp/obnone1,/tmp/obnone2 user=u password=secret-zebra dbname=x");
    struct pg_error e;
    pg_error_from_conn(&e, conn);
    PQfinish(conn);
    ck_assert_int_eq(e.err, OB_ECONN);
    ck_assert_str_eq(e.sqlstate, "");
    ck_assert_ptr_nonnull(strstr(e.message, "/tmp/obnone1"));
    ck_assert_ptr_nonnull(strstr(e.message, "; "));
    ck_assert_ptr_null(strstr(e.message, "Is the server running"));
    ck_assert_ptr_null(strstr(e.message, "zebra"));
    ck_assert_ptr_null(strchr(e.message, '\n'));
}
END_TEST

START_TEST(a_connection_without_a_message_is_a_lost_one)
{
    struct pg_error e;
    pg_error_from_conn(&e, NULL); /* libpq: "connection pointer is NULL" */
    ck_assert_int_eq(e.err, OB_ECONN);
    ck_assert_str_ne(e.message, "");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("pg_error");
    TCase *tc = tcase_create("sqlstates and messages");
    tcase_add_loop_test(tc, a_sqlstate_advises_by_its_code_or_class, 0, ADVICES);
    tcase_add_test(tc, a_message_becomes_one_line_that_fits);
    tcase_add_test(tc, a_long_message_is_cut_between_characters);
    tcase_add_test(tc, a_missing_result_is_a_lost_connection);
    tcase_add_test(tc, a_skipped_statement_is_said_to_be_skipped);
    tcase_add_test(tc, a_failed_connection_gives_every_host_and_no_advice);
    tcase_add_test(tc, a_connection_without_a_message_is_a_lost_one);
    suite_add_tcase(s, tc);
    return s;
}
