/* grant_print: each of the three roles can do its part after it, and nothing else. */
#include <stdlib.h>

#include "check_sql.h"
#include "db/grant.h"

static char *printed(enum grant_kind kind, const char *role)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(grant_print(out, kind, role), 0);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

static void grant(enum grant_kind kind, const char *role)
{
    char sql[160];
    char *text = printed(kind, role);
    (void)snprintf(
        sql, sizeof sql,
        "DO $$BEGIN CREATE ROLE \"%s\" LOGIN; EXCEPTION WHEN duplicate_object THEN END$$", role);
    testdb_exec(sql);
    testdb_exec(text);
    testdb_exec(text); /* again is harmless */
    free(text);
}

/* Functions and views that a role may use, from the catalog. */
static const char *allowed(PGconn *conn, const char *role)
{
    char sql[512];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace ="
        " 'outbox'::regnamespace AND has_function_privilege('%s', oid, 'execute') UNION ALL"
        " SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace ="
        " 'outbox'::regnamespace AND relkind IN ('r', 'v', 'S') AND has_table_privilege('%s', oid,"
        " 'select, insert, update, delete, truncate, references, trigger')",
        role, role);
    return rows_of(conn, sql);
}

#define DENIED(conn, sql) pg_exec_fails(conn, sql, "42501", "permission denied")

START_TEST(a_stranger_may_do_nothing)
{
    testdb_exec(
        "DO $$BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN END$$");
    PGconn *conn = testdb_connect_as("stranger");
    DENIED(conn, "SELECT outbox.enqueue('a')");
    DENIED(conn, "SELECT * FROM outbox.jobs");
    DENIED(conn, "SELECT * FROM outbox.level()");
    ck_assert_str_eq(allowed(conn, "stranger"), "-;-");
    PQfinish(conn);
}
END_TEST

START_TEST(a_producer_enqueues_and_wakes)
{
    grant(GRANT_PRODUCER, "producer");
    testdb_exec("CREATE TABLE shop (id int); GRANT ALL ON shop TO producer; GRANT CREATE ON SCHEMA "
                "public TO producer");
    PGconn *conn = testdb_connect_as("producer");
    ck_assert_str_eq(
        allowed(conn, "producer"),
        "enqueue enqueue_bytes enqueue_many enqueue_plain enqueue_row level states wake;-");
    ck_rows(conn, "SELECT outbox.enqueue('a', '{}', priority => 1, delay => '1s', headers => '{}')",
            "1");
    ck_rows(conn, "SELECT * FROM outbox.enqueue_bytes('a', '1', 'json')", "2|f");
    ck_rows(conn, "SELECT * FROM outbox.enqueue_many('[{\"task\": \"a\", \"delay\": 5}]')", "3|f");
    pg_exec_ok(conn, "CREATE TRIGGER t AFTER INSERT ON shop FOR EACH ROW EXECUTE FUNCTION "
                     "outbox.enqueue_row('a')");
    pg_exec_ok(conn, "INSERT INTO shop VALUES (1)");
    pg_exec_ok(conn, "SELECT outbox.wake('a')");
    ck_rows(conn, "SELECT level FROM outbox.level()", "1");
    pg_exec_fails(conn, "SELECT outbox.enqueue('a b')", "22023", "not a task name");
    DENIED(conn, "SELECT * FROM outbox.jobs");
    DENIED(conn, "SELECT * FROM outbox.job");
    DENIED(conn, "INSERT INTO outbox.job (task, encoding, payload, created_at) VALUES ('a', "
                 "'json', '1', now())");
    DENIED(conn, "SELECT outbox.payload(1)");
    DENIED(conn, "SELECT outbox.cancel(1)");
    DENIED(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')");
    DENIED(conn, "SELECT * FROM outbox.wake_tasks('{a}', true)");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.jobs"), 4);
    PQfinish(conn);
}
END_TEST

/* Whoever may call a function that runs as the owner may also say where names are looked up. */
static const char a_search_path_of_traps[] =
    "CREATE SCHEMA traps; GRANT USAGE ON SCHEMA traps TO producer;"
    "CREATE FUNCTION traps.spring() RETURNS boolean LANGUAGE plpgsql AS"
    " $$BEGIN RAISE 'a trap, sprung as %', current_user; END$$;"
    "DO $do$ DECLARE t text; o text; BEGIN"
    " FOREACH t IN ARRAY '{text,bytea,integer,bigint,boolean,timestamptz,xid8,regclass}'::text[] "
    "LOOP"
    "  EXECUTE format('CREATE FUNCTION traps.spring(%1$s, %1$s) RETURNS boolean LANGUAGE sql AS"
    "   $$SELECT traps.spring()$$', t);"
    "  FOREACH o IN ARRAY '{=,<>,<,>,<=,>=,~,||,+,-}'::text[] LOOP"
    "   EXECUTE format('CREATE OPERATOR traps.%s (LEFTARG = %s, RIGHTARG = %2$s,"
    "    FUNCTION = traps.spring)', o, t);"
    "  END LOOP;"
    " END LOOP;"
    " FOREACH t IN ARRAY ARRAY['clock_timestamp()', 'octet_length(bytea)', 'hashtext(text)',"
    "  'lower(text)', 'current_setting(text, boolean)', 'pg_current_xact_id()',"
    "  'pg_try_advisory_lock(integer, integer)', 'pg_advisory_unlock(integer, integer)',"
    "  'pg_sequence_last_value(regclass)', 'pg_notify(text, text)', 'unnest(anyarray)'] LOOP"
    "  EXECUTE format('CREATE FUNCTION traps.%s RETURNS boolean LANGUAGE sql AS"
    "   $$SELECT traps.spring()$$', t);"
    " END LOOP;"
    " FOREACH t IN ARRAY '{text,int8,bigint,int4,timestamptz,jsonb,bytea,regclass}'::text[] LOOP"
    "  EXECUTE format('CREATE DOMAIN traps.%I AS pg_catalog.text CHECK (traps.spring())', t);"
    " END LOOP; END $do$";

START_TEST(a_callers_search_path_decides_nothing)
{
    static const char *const calls[] = {
        "SELECT outbox.enqueue_plain('a', '{}', 'json')",
        "SELECT outbox.enqueue_plain('a', '\\x01', 'msgpack')",
        "SELECT outbox.enqueue_plain('a', '1', 'json')",
        "SELECT outbox.enqueue_bytes('a', '1', 'json', key => 'k')",
        "SELECT outbox.enqueue('a', '{}', unique_key => 'u', delay => '1s')",
        "SELECT outbox.enqueue_many('[{\"task\": \"a\"}, {\"task\": \"a\", \"key\": \"k\"}]')",
        "SELECT outbox.wake('a')",
        "SELECT outbox.level()",
        "SELECT outbox.states('{1}')",
    };
    grant(GRANT_PRODUCER, "producer");
    testdb_exec(a_search_path_of_traps);
    PGconn *sleeper = testdb_connect();
    for (size_t i = 0; i < 2 * (sizeof calls / sizeof calls[0]); i++) {
        PGconn *conn = testdb_connect_as("producer"); /* with nothing parsed yet */
        pg_exec_ok(conn, "SET search_path = traps, pg_catalog");
        pg_exec_fails(conn, "SELECT 1 = 1", "P0001", "sprung as producer");
        pg_exec_ok(conn, calls[i / 2]);
        PQfinish(conn);
        if (i % 2 == 0)
            pg_exec_ok(sleeper, "SELECT outbox.watch('{a}')");
        else
            pg_exec_ok(sleeper, "SELECT outbox.unwatch('{a}')");
    }
    PQfinish(sleeper);
}
END_TEST

START_TEST(a_dispatcher_does_all_that_the_daemon_does)
{
    grant(GRANT_DISPATCHER, "dispatcher");
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 5)");
    PGconn *conn = testdb_connect_as("dispatcher");
    PGconn *frozen = testdb_connect_as("dispatcher");
    char sql[200];
    ck_assert_str_eq(
        allowed(conn, "dispatcher"),
        "adopt can_take cancel claim count_jobs count_matching due extend level look mend orders "
        "pause payload "
        "purge_attempts purge_dead purge_done register release requeue restamp "
        "resume retry set_task settle states still_writing sweep take take_failed take_over "
        "terminate"
        " unregister unwatch wake watch;attempts dispatchers jobs pauses stats");
    pg_exec_ok(conn, "LISTEN outbox");
    ck_rows(conn, "SELECT level FROM outbox.level()", "1");
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.watch('{a}'), outbox.unwatch('{a}'), outbox.wake('a')");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{4}')", "1;2;3;4");
    ck_rows(conn, "SELECT convert_from(outbox.payload(1), 'UTF8')", "{}");
    ck_rows(conn, "SELECT outbox.extend(1)", "t");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}', '[null, {\"outcome\": \"dead\", "
            "\"reason\": \"x\"}]')",
            "1|done;2|done");
    ck_rows(conn, "SELECT * FROM outbox.release(1, '{3}', '{3}')", "3|done");
    ck_rows(conn, "SELECT * FROM outbox.due()", "0|-");
    ck_rows(conn, "SELECT outbox.restamp(), outbox.still_writing('{3}')", "0|{}");
    ck_rows(conn, "SELECT outbox.sweep('{a}', '0', 0, '3', 0) -> 'done'", "true");
    ck_rows(conn,
            "SELECT id FROM outbox.look(1, 5, '{b}', '{1}', '{f}', 0, '0', 0, '0', '{}', '{}',"
            " '{}', '{}', '{}', '{}', '{}', '-infinity', NULL, NULL)",
            "-");
    ck_rows(conn, "SELECT outbox.retry(2), outbox.cancel(3)", "retried|cancelled");
    (void)snprintf(sql, sizeof sql,
                   "SELECT answer FROM outbox.register(2, 'one', 'h', 'b', 'l', 1, '{%d}', '', "
                   "'{a}', '1m', 1)",
                   PQbackendPID(frozen));
    ck_rows(conn, sql, "registered");
    ck_rows(conn, "SELECT id FROM outbox.adopt(2, 1, '{4}', '{4}', 1)", "4");
    ck_rows(conn, "SELECT outbox.unregister(1)", "t");
    pg_exec_ok(frozen, "SET application_name = 'outbox 2'");
    ck_rows(conn, "SELECT outbox.terminate(2), outbox.take_over(2, 0)", "1|1");
    pg_exec_ok(
        conn,
        "SELECT * FROM outbox.jobs; SELECT * FROM outbox.stats; SELECT * FROM outbox.attempts;"
        "SELECT * FROM outbox.dispatchers");
    DENIED(conn, "SELECT outbox.enqueue('a')");
    DENIED(conn, "SELECT * FROM outbox.job");
    DENIED(conn, "DELETE FROM outbox.dispatcher");
    DENIED(conn, "SELECT * FROM outbox.migration");
    DENIED(conn, "SELECT outbox.bury('{1}', '{}')");
    PQfinish(frozen);
    PQfinish(conn);
}
END_TEST

/* Another role's session may not be ended: said, not an error that stops the take-over. */
START_TEST(ending_a_stranger_s_session_is_a_warning)
{
    char sql[200];
    grant(GRANT_DISPATCHER, "dispatcher");
    PGconn *conn = testdb_connect_as("dispatcher");
    PGconn *frozen = testdb_connect();
    pg_exec_ok(frozen, "SET application_name = 'outbox 2'");
    (void)snprintf(
        sql, sizeof sql,
        "SELECT answer FROM outbox.register(2, 'one', 'h', 'b', 'l', 1, '{%d}', '', '{a}', '1m')",
        PQbackendPID(frozen));
    ck_rows(conn, sql, "registered");
    ck_rows(conn, "SELECT outbox.terminate(2)", "0");
    ck_rows(frozen, "SELECT 1", "1");
    PQfinish(frozen);
    PQfinish(conn);
}
END_TEST

START_TEST(a_reader_looks_and_sees_no_payload)
{
    grant(GRANT_READER, "reader");
    testdb_exec("SELECT outbox.enqueue('a')");
    PGconn *conn = testdb_connect_as("reader");
    ck_assert_str_eq(
        allowed(conn, "reader"),
        "count_jobs count_matching level states;attempts dispatchers jobs pauses stats");
    ck_rows(conn, "SELECT id, task, state FROM outbox.jobs", "1|a|ready");
    ck_rows(conn, "SELECT task, count, handlers FROM outbox.stats", "a|1|0");
    pg_exec_ok(conn, "SELECT * FROM outbox.attempts; SELECT * FROM outbox.dispatchers; SELECT * "
                     "FROM outbox.level()");
    DENIED(conn, "SELECT outbox.payload(1)");
    DENIED(conn, "SELECT payload FROM outbox.job");
    DENIED(conn, "SELECT outbox.enqueue('a')");
    DENIED(conn, "SELECT outbox.cancel(1)");
    PQfinish(conn);
}
END_TEST

/* A function that is on no list could be called by the owner alone: on purpose, or forgotten? */
START_TEST(every_function_is_granted_or_internal)
{
    grant(GRANT_PRODUCER, "producer");
    grant(GRANT_DISPATCHER, "dispatcher");
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT proname FROM pg_proc p WHERE pronamespace = 'outbox'::regnamespace"
            " AND NOT has_function_privilege('producer', oid, 'execute')"
            " AND NOT has_function_privilege('dispatcher', oid, 'execute')"
            " AND obj_description(oid, 'pg_proc') NOT LIKE 'internal: %' AND prorettype <> "
            "'trigger'::regtype",
            "");
    PQfinish(conn);
}
END_TEST

START_TEST(any_role_name_is_quoted)
{
    static const char name[] = "Shop \"1\"; DROP TABLE x";
    char *text = printed(GRANT_READER, name);
    ck_assert_ptr_nonnull(strstr(text, "TO \"Shop \"\"1\"\"; DROP TABLE x\";\n"));
    testdb_exec("DO $$BEGIN CREATE ROLE \"Shop \"\"1\"\"; DROP TABLE x\"; EXCEPTION WHEN "
                "duplicate_object THEN END$$");
    testdb_exec(text);
    free(text);
    ck_assert_int_eq(
        testdb_long(
            "SELECT count(*) FROM pg_class c, aclexplode(relacl) a JOIN pg_roles r ON r.oid ="
            " a.grantee WHERE rolname LIKE 'Shop %' AND privilege_type = 'SELECT'"),
        5);
}
END_TEST

START_TEST(a_role_that_cannot_be_is_refused)
{
    char long_name[65];
    FILE *out = tmpfile();
    memset(long_name, 'x', 64);
    long_name[64] = '\0';
    ck_assert_int_eq(grant_print(out, GRANT_READER, ""), OB_EINVAL);
    ck_assert_int_eq(grant_print(out, GRANT_READER, NULL), OB_EINVAL);
    ck_assert_int_eq(grant_print(out, GRANT_READER, "a\nb"), OB_EINVAL);
    ck_assert_int_eq(grant_print(out, GRANT_READER, long_name), OB_EINVAL);
    ck_assert_int_eq(ftell(out), 0);
    long_name[63] = '\0';
    ck_assert_int_eq(grant_print(out, GRANT_READER, long_name), 0);
    (void)fclose(out);
    out = fopen("/dev/full", "w");
    ck_assert_int_lt(grant_print(out, GRANT_READER, "r"), 0);
    (void)fclose(out);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("grants");
    TCase *tc = sql_case(suite, "grants");
    tcase_add_test(tc, a_stranger_may_do_nothing);
    tcase_add_test(tc, a_producer_enqueues_and_wakes);
    tcase_add_test(tc, a_callers_search_path_decides_nothing);
    tcase_add_test(tc, a_dispatcher_does_all_that_the_daemon_does);
    tcase_add_test(tc, ending_a_stranger_s_session_is_a_warning);
    tcase_add_test(tc, a_reader_looks_and_sees_no_payload);
    tcase_add_test(tc, every_function_is_granted_or_internal);
    tcase_add_test(tc, any_role_name_is_quoted);
    tcase_add_test(tc, a_role_that_cannot_be_is_refused);
    return suite;
}
