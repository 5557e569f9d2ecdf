/* migrate_apply, migrate_status, migrate_print against real databases, one of them at a time and
 * two at once; every refusal. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <outbox/outbox.h>

#include "check_sql.h"
#include "db/migrate.h"

struct steps {
    int count[4]; /* by state */
    int all;
    char last[64];
};

static void on_step(const struct migrate_step *step, void *arg)
{
    struct steps *steps = arg;
    steps->count[step->state]++;
    steps->all++;
    (void)snprintf(steps->last, sizeof steps->last, "%s", step->name);
    ck_assert_int_eq(step->applied_at[0] == '\0', step->state == MIGRATE_PENDING);
}

static int apply_as(const char *user, struct steps *steps, char reterr[MIGRATE_ERROR_SIZE])
{
    PGconn *conn = testdb_connect_as(user);
    memset(steps, 0, sizeof *steps);
    int err = migrate_apply(conn, on_step, steps, reterr);
    /* The lock is free again, whatever happened. */
    ck_rows(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0");
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
    PQfinish(conn);
    return err;
}

static void expect_applied(void)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    int err = apply_as("postgres", &steps, why);
    ck_assert_msg(err == 0, "%s", why);
}

static void expect_refused(int expected, const char *text)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    ck_assert_int_eq(apply_as("postgres", &steps, why), expected);
    ck_assert_msg(strstr(why, text) != NULL, "\"%s\" is not in: %s", text, why);
}

/* Everything that migrate made, as one text: objects, their definitions and comments, and its rows.
 */
static const char *fingerprint(void)
{
    return testdb_value(
        "SELECT string_agg(x, E'\\n' ORDER BY x) FROM ("
        " SELECT concat_ws(' ', version, name, checksum, min_level) FROM outbox.migration"
        " UNION ALL SELECT pg_get_functiondef(oid) || coalesce(proacl::text, '') FROM pg_proc"
        "  WHERE pronamespace = 'outbox'::regnamespace"
        " UNION ALL SELECT concat_ws(' ', c.relname, c.relkind, c.reloptions, "
        "pg_get_viewdef(c.oid),"
        "  obj_description(c.oid), CASE c.relkind WHEN 'i' THEN pg_get_indexdef(c.oid) END)"
        "  FROM pg_class c WHERE relnamespace = 'outbox'::regnamespace AND c.relkind IN ('r', 'v', "
        "'S')"
        " UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = "
        "indrelid"
        "  WHERE relnamespace = 'outbox'::regnamespace"
        " UNION ALL SELECT concat_ws(' ', attrelid::regclass, attnum, attname, "
        "format_type(atttypid, atttypmod),"
        "  attnotnull, col_description(attrelid, attnum)) FROM pg_attribute JOIN pg_class c ON "
        "c.oid = attrelid"
        "  WHERE relnamespace = 'outbox'::regnamespace AND attnum > 0"
        " UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = "
        "tgrelid"
        "  WHERE relnamespace = 'outbox'::regnamespace AND NOT t.tgisinternal"
        " UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        "  WHERE connamespace = 'outbox'::regnamespace) AS t(x)");
}

/* The texts are too long for an assertion's message: shows where they part. */
static void check_same(const char *got, const char *expected)
{
    size_t same = 0;
    while (got[same] == expected[same] && got[same] != '\0')
        same++;
    size_t from = same < 100 ? 0 : same - 100;
    ck_assert_msg(got[same] == expected[same], "got ...%.200s\nexpected ...%.200s", got + from,
                  expected + from);
}

START_TEST(an_empty_database_is_brought_to_the_programs_level)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    ck_assert_int_eq(apply_as("postgres", &steps, why), 0);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_PENDING], sql_files_count);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_DONE_NOW], sql_files_count);
    ck_assert_str_eq(steps.last, sql_files[sql_files_count - 1].name);
    ck_assert_int_eq(testdb_long("SELECT level FROM outbox.level()"), OUTBOX_SCHEMA_VERSION);
    ck_assert_int_le(testdb_long("SELECT min_level FROM outbox.level()"), OUTBOX_SCHEMA_VERSION);
    ck_assert_uint_eq((size_t)testdb_long("SELECT count(*) FROM outbox.migration"),
                      sql_files_count);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.migration WHERE version IS NULL"
                                 " AND name LIKE '0%'"),
                     0);
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM outbox.migration WHERE checksum !~ '^[0-9a-f]{64}$'"), 0);
}
END_TEST

START_TEST(a_second_run_finds_nothing_to_do)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    expect_applied();
    const char *before =
        testdb_value("SELECT string_agg(xmin || ' ' || applied_at, ' ') FROM outbox.migration");
    ck_assert_int_eq(apply_as("postgres", &steps, why), 0);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_APPLIED], sql_files_count);
    ck_assert_uint_eq((size_t)steps.all, sql_files_count);
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(xmin || ' ' || applied_at, ' ') FROM outbox.migration"),
        before);
}
END_TEST

/* As a newer program does with a changed functions file, beside data and grants that must stay. */
START_TEST(a_changed_repeatable_file_is_applied_again)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    expect_applied();
    const char *whole = fingerprint();
    testdb_exec(
        "SELECT outbox.enqueue('a');"
        "UPDATE outbox.migration SET checksum = 'old', applied_at = '2001-01-01' WHERE name LIKE "
        "'functions%'"
        " OR name = 'views.sql';"
        "CREATE ROLE keeps_grant; GRANT EXECUTE ON FUNCTION outbox.wake TO keeps_grant;"
        "CREATE OR REPLACE FUNCTION outbox.wake(task text) RETURNS void LANGUAGE sql AS ''");
    ck_assert_int_eq(apply_as("postgres", &steps, why), 0);
    ck_assert_int_eq(steps.count[MIGRATE_APPLIED], OUTBOX_SCHEMA_VERSION);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_CHANGED],
                      sql_files_count - OUTBOX_SCHEMA_VERSION);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_DONE_NOW],
                      sql_files_count - OUTBOX_SCHEMA_VERSION);
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM outbox.migration WHERE applied_at < '2002-01-01'"), 0);
    ck_assert_str_eq(
        testdb_value(
            "SELECT has_function_privilege('keeps_grant', 'outbox.wake(text)', 'execute')"),
        "t");
    testdb_exec("REVOKE EXECUTE ON FUNCTION outbox.wake FROM keeps_grant; DROP ROLE keeps_grant");
    check_same(fingerprint(), whole);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 1);
}
END_TEST

/* Locks on outbox.job would keep producers waiting at every upgrade. */
START_TEST(applying_again_does_not_wait_for_an_open_producer)
{
    expect_applied();
    PGconn *producer = testdb_connect();
    pg_exec_ok(producer, "BEGIN");
    pg_exec_ok(producer, "SELECT outbox.enqueue('a')");
    testdb_exec("UPDATE outbox.migration SET checksum = 'old' WHERE version IS NULL");
    expect_applied();
    pg_exec_ok(producer, "COMMIT");
    PQfinish(producer);
}
END_TEST

START_TEST(status_tells_what_apply_would_do_and_changes_nothing)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    PGconn *conn = testdb_connect();
    memset(&steps, 0, sizeof steps);
    ck_assert_int_eq(migrate_status(conn, on_step, &steps, why), 0);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_PENDING], sql_files_count);
    ck_rows(conn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'outbox'", "0");
    ck_assert_int_eq(migrate_apply(conn, NULL, NULL, why), 0);
    pg_exec_ok(conn, "UPDATE outbox.migration SET checksum = 'old' WHERE name = 'views.sql'");
    memset(&steps, 0, sizeof steps);
    ck_assert_int_eq(migrate_status(conn, on_step, &steps, why), 0);
    ck_assert_int_eq(steps.count[MIGRATE_CHANGED], 1);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_APPLIED], sql_files_count - 1);
    ck_rows(conn, "SELECT checksum FROM outbox.migration WHERE name = 'views.sql'", "old");
    PQfinish(conn);
}
END_TEST

START_TEST(a_foreign_schema_of_that_name_is_refused_and_left_alone)
{
    testdb_exec("CREATE SCHEMA outbox; CREATE TABLE outbox.messages (id int)");
    expect_refused(OB_ESCHEMA, "a schema named outbox that pgoutbox did not make");
    testdb_exec("CREATE TABLE outbox.migration (id int)");
    expect_refused(OB_ESCHEMA, "a schema named outbox that pgoutbox did not make");
    ck_assert_int_eq(
        testdb_long("SELECT count(*) FROM pg_class WHERE relnamespace = 'outbox'::regnamespace"),
        2);
}
END_TEST

START_TEST(a_numbered_file_that_changed_is_refused)
{
    expect_applied();
    testdb_exec("UPDATE outbox.migration SET checksum = repeat('0', 64) WHERE version = 1;"
                "UPDATE outbox.migration SET checksum = 'old' WHERE name = 'views.sql'");
    expect_refused(OB_ESCHEMA, "0001_tables.sql was applied at 2");
    ck_assert_str_eq(testdb_value("SELECT checksum FROM outbox.migration WHERE name = 'views.sql'"),
                     "old");
}
END_TEST

START_TEST(a_database_that_needs_a_newer_program_is_refused)
{
    struct steps steps = {0};
    char why[MIGRATE_ERROR_SIZE];
    expect_applied();
    testdb_exec("INSERT INTO outbox.migration VALUES (999, '0999_future.sql', 'x', now(), 999)");
    expect_refused(OB_EINCOMPAT, "upgrade it");
    PGconn *conn = testdb_connect();
    ck_assert_int_eq(migrate_status(conn, on_step, &steps, why), OB_EINCOMPAT);
    ck_assert_int_eq(steps.all, 0);
    PQfinish(conn);
}
END_TEST

/* A rolling upgrade: an old program's migrate must not put its old functions back. */
START_TEST(a_newer_database_that_still_takes_this_program_is_left_alone)
{
    expect_applied();
    testdb_exec("INSERT INTO outbox.migration VALUES (999, '0999_future.sql', 'x', now(), 1);"
                "UPDATE outbox.migration SET checksum = 'newer' WHERE name = 'views.sql'");
    expect_applied();
    ck_assert_str_eq(testdb_value("SELECT checksum FROM outbox.migration WHERE name = 'views.sql'"),
                     "newer");
}
END_TEST

/* The first file fails half-way: its statements and its row are gone together. */
START_TEST(a_file_that_fails_leaves_nothing)
{
    testdb_exec(
        "CREATE FUNCTION no_functions() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'not today'; END$$;"
        "CREATE EVENT TRIGGER no_functions ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION')"
        " EXECUTE FUNCTION no_functions()");
    expect_refused(OB_EDB, "functions_check.sql: not today");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.migration"), 1);
    testdb_exec("DROP EVENT TRIGGER no_functions");
    expect_applied();
    testdb_exec("DROP FUNCTION no_functions");
}
END_TEST

START_TEST(two_runs_at_once_are_as_good_as_one)
{
    enum { RUNS = 4 };
    pid_t pids[RUNS];
    for (int i = 0; i < RUNS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            char why[MIGRATE_ERROR_SIZE];
            PGconn *conn = PQconnectdb(testdb_conninfo());
            int err = migrate_apply(conn, NULL, NULL, why);
            if (err != 0)
                (void)fprintf(stderr, "run: %s\n", why);
            _exit(err == 0 ? 0 : 1);
        }
    }
    for (int i = 0; i < RUNS; i++) {
        int status = -1;
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_int_eq(status, 0);
    }
    ck_assert_uint_eq((size_t)testdb_long("SELECT count(*) FROM outbox.migration"),
                      sql_files_count);
}
END_TEST

START_TEST(the_owner_needs_only_create_on_the_database)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    char sql[128];
    testdb_exec(
        "DO $$BEGIN CREATE ROLE plain_owner LOGIN; EXCEPTION WHEN duplicate_object THEN END$$");
    ck_assert_int_eq(apply_as("plain_owner", &steps, why), OB_EPRIVILEGE);
    ck_assert_ptr_nonnull(strstr(why, "CREATE on the database"));
    (void)snprintf(sql, sizeof sql, "GRANT CREATE ON DATABASE %s TO plain_owner",
                   testdb_value("SELECT current_database()"));
    testdb_exec(sql);
    int err = apply_as("plain_owner", &steps, why);
    ck_assert_msg(err == 0, "%s", why);
    PGconn *conn = testdb_connect_as("plain_owner");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    register_one(conn);
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    ck_rows(conn, "SELECT answer FROM outbox.settle(1, '{1}', '{1}')", "done");
    PQfinish(conn);
}
END_TEST

/* What a role or database has set must not change what is made. */
START_TEST(the_sessions_settings_make_no_difference)
{
    expect_applied();
    const char *whole = fingerprint();
    testdb_exec("DROP SCHEMA outbox CASCADE; CREATE SCHEMA trap; CREATE DOMAIN trap.text AS "
                "pg_catalog.text;"
                "CREATE DOMAIN trap.jsonb AS pg_catalog.jsonb");
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "ALTER DATABASE %s SET search_path = trap, pg_catalog;"
                   "ALTER DATABASE %s SET default_transaction_read_only = on;"
                   "ALTER DATABASE %s SET standard_conforming_strings = off",
                   testdb_value("SELECT current_database()"),
                   testdb_value("SELECT current_database()"),
                   testdb_value("SELECT current_database()"));
    testdb_exec(sql);
    expect_applied();
    (void)snprintf(sql, sizeof sql, "SET transaction_read_only = off; ALTER DATABASE %s RESET ALL",
                   testdb_value("SELECT current_database()"));
    testdb_exec(sql);
    check_same(fingerprint(), whole);
}
END_TEST

START_TEST(the_printed_script_leaves_what_apply_leaves)
{
    struct steps steps;
    char why[MIGRATE_ERROR_SIZE];
    char path[] = "/tmp/migrate_print_XXXXXX";
    char command[600];
    expect_applied();
    const char *whole = fingerprint();
    testdb_exec("DROP SCHEMA outbox CASCADE");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    FILE *out = fdopen(fd, "w");
    ck_assert_int_eq(migrate_print(out), 0);
    ck_assert_int_eq(fclose(out), 0);
    (void)snprintf(command, sizeof command, "%s/psql -X -q -1 -v ON_ERROR_STOP=1 -d '%s' -f - <%s",
                   OB_TEST_PG_BINDIR, testdb_conninfo(), path);
    FILE *psql = popen(command, "r");
    char line[256] = "";
    while (fgets(line, sizeof line, psql) != NULL)
        (void)fputs(line, stderr);
    ck_assert_int_eq(pclose(psql), 0);
    (void)unlink(path);
    check_same(fingerprint(), whole);
    ck_assert_int_eq(apply_as("postgres", &steps, why), 0);
    ck_assert_uint_eq((size_t)steps.count[MIGRATE_APPLIED], sql_files_count);
}
END_TEST

START_TEST(a_script_that_cannot_be_written_is_an_error)
{
    FILE *full = fopen("/dev/full", "w");
    ck_assert_ptr_nonnull(full);
    ck_assert_int_lt(migrate_print(full), 0);
    (void)fclose(full);
}
END_TEST

START_TEST(a_lost_connection_is_told_as_such)
{
    char why[MIGRATE_ERROR_SIZE];
    PGconn *conn = testdb_connect();
    char sql[64];
    (void)snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d, 5000)", PQbackendPID(conn));
    testdb_exec(sql);
    ck_assert_int_ne(migrate_apply(conn, NULL, NULL, why), 0);
    ck_assert_int_eq(migrate_apply(conn, NULL, NULL, why), OB_ECONN);
    ck_assert_ptr_nonnull(strstr(why, "connection"));
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("migrations");
    TCase *tc = tcase_create("migrations");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create_empty, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, an_empty_database_is_brought_to_the_programs_level);
    tcase_add_test(tc, a_second_run_finds_nothing_to_do);
    tcase_add_test(tc, a_changed_repeatable_file_is_applied_again);
    tcase_add_test(tc, applying_again_does_not_wait_for_an_open_producer);
    tcase_add_test(tc, status_tells_what_apply_would_do_and_changes_nothing);
    tcase_add_test(tc, a_foreign_schema_of_that_name_is_refused_and_left_alone);
    tcase_add_test(tc, a_numbered_file_that_changed_is_refused);
    tcase_add_test(tc, a_database_that_needs_a_newer_program_is_refused);
    tcase_add_test(tc, a_newer_database_that_still_takes_this_program_is_left_alone);
    tcase_add_test(tc, a_file_that_fails_leaves_nothing);
    tcase_add_test(tc, two_runs_at_once_are_as_good_as_one);
    tcase_add_test(tc, the_owner_needs_only_create_on_the_database);
    tcase_add_test(tc, the_sessions_settings_make_no_difference);
    tcase_add_test(tc, the_printed_script_leaves_what_apply_leaves);
    tcase_add_test(tc, a_script_that_cannot_be_written_is_an_error);
    tcase_add_test(tc, a_lost_connection_is_told_as_such);
    return suite;
}
