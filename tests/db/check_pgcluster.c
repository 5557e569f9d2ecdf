/* The cluster fixture itself. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ck_main.h"
#include "pgcluster.h"
#include "wait.h"

START_TEST(a_test_has_a_database_of_its_own)
{
    testdb_exec("create table only_here (n integer); insert into only_here values (42)");
    ck_assert_int_eq(testdb_long("select n from only_here"), 42);
    ck_assert_str_eq(testdb_value("select current_database() like 't\\_%'"), "t");
}
END_TEST

START_TEST(the_next_test_sees_nothing_of_it)
{
    ck_assert_int_eq(testdb_long("select count(*) from pg_class where relname = 'only_here'"), 0);
    ck_assert_ptr_null(testdb_value("select null"));
}
END_TEST

START_TEST(a_crash_ends_connections_and_keeps_commits)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "create table t (n integer); insert into t values (7)");
    pgcluster_crash_and_restart();
    PQclear(pg_query(conn, PGRES_FATAL_ERROR, "select 1"));
    PQfinish(conn);
    ck_assert_int_eq(testdb_long("select n from t"), 7);
}
END_TEST

/* A backend in a loop does not notice that its postmaster is gone; the next start needs it gone. */
START_TEST(a_killed_server_starts_again_though_a_backend_was_busy)
{
    PGconn *conn = testdb_connect();
    ck_assert_int_eq(PQsendQuery(conn, "do $$ begin loop end loop; end $$"), 1);
    ck_assert(wait_until(
        testdb_long("select count(*) from pg_stat_activity where query like 'do %'") == 1, 5000));
    pgcluster_crash();
    ck_assert_int_ne(PQping(testdb_conninfo()), PQPING_OK);
    pgcluster_start_again();
    ck_assert_int_eq(PQping(testdb_conninfo()), PQPING_OK);
    PQfinish(conn);
}
END_TEST

START_TEST(a_refused_statement_is_checked_by_sqlstate_and_text)
{
    PGconn *conn = testdb_connect();
    pg_exec_fails(conn, "select 1/0", "22012", "division by zero");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    static const char *const settings[] = {"work_mem=1234kB", NULL};
    Suite *s = suite_create("pgcluster");
    TCase *tc = tcase_create("cluster");
    pgcluster_set_options(settings);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, a_test_has_a_database_of_its_own);
    tcase_add_test(tc, the_next_test_sees_nothing_of_it);
    tcase_add_test(tc, a_crash_ends_connections_and_keeps_commits);
    tcase_add_test(tc, a_killed_server_starts_again_though_a_backend_was_busy);
    tcase_add_test(tc, a_refused_statement_is_checked_by_sqlstate_and_text);
    suite_add_tcase(s, tc);
    return s;
}
