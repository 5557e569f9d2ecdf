/* The views, and the rules that hold for every object of the schema. */
#include "check_sql.h"

START_TEST(jobs_shows_every_state)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 2)");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{2}')");
    pg_exec_ok(conn, "SELECT * FROM outbox.settle(1, '{2}', '{2}', '[{\"outcome\": \"dead\", "
                     "\"reason\": \"x\"}]')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'), outbox.enqueue('a', delay => '1h')");
    /* Waiting and done jobs come with later options: by hand. */
    pg_exec_ok(conn, "INSERT INTO outbox.job (task, encoding, payload, created_at) VALUES ('a', "
                     "'json', '1', now())");
    pg_exec_ok(conn,
               "INSERT INTO outbox.done SELECT 6, created_at, run_at, expires_at, now(), NULL, 1, "
               "0, max_attempts,"
               " priority, false, task, encoding, key, unique_key, headers, payload FROM "
               "outbox.job WHERE id = 3");
    ck_rows(conn,
            "SELECT id, state, dispatcher, finished_at IS NOT NULL, reason FROM outbox.jobs ORDER "
            "BY id",
            "1|running|one|f|-;2|dead|-|t|x;3|ready|-|f|-;4|scheduled|-|f|-;5|waiting|-|f|-;6|done|"
            "-|t|-");
    ck_rows(conn, "SELECT convert_from(outbox.payload(6), 'UTF8')", "{}");
    ck_rows(conn, "SELECT state, count, handlers FROM outbox.stats ORDER BY state",
            "dead|1|1;done|1|1;ready|1|1;running|1|1;scheduled|1|1;waiting|1|1");
    PQfinish(conn);
}
END_TEST

START_TEST(stats_tells_who_handles_a_task)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, REGISTER("1", "one"));
    pg_exec_ok(conn, REGISTER("2", "two"));
    pg_exec_ok(conn, REGISTER("3", "gone"));
    pg_exec_ok(conn, "UPDATE outbox.dispatcher SET beat_at = now() - interval '61s' WHERE id = 3");
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('a'), outbox.enqueue('nobodys'), outbox.enqueue('nobodys')");
    pg_exec_ok(conn,
               "UPDATE outbox.job SET created_at = created_at - interval '1 hour' WHERE id = 3");
    ck_rows(conn,
            "SELECT task, state, count, date_trunc('minute', oldest_age), handlers FROM "
            "outbox.stats ORDER BY task",
            "a|ready|1|00:00:00|2;nobodys|ready|2|01:00:00|0");
    PQfinish(conn);
}
END_TEST

START_TEST(the_views_have_the_columns_that_readers_rely_on)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY "
            "ordinal_position)"
            " FROM information_schema.columns WHERE table_schema = 'outbox' AND table_name IN"
            " (SELECT viewname FROM pg_views WHERE schemaname = 'outbox') GROUP BY 1 ORDER BY 1",
            "attempts|job_id bigint, attempt integer, started_at timestamp with time zone, "
            "duration_ms bigint,"
            " outcome text, reason text, exit_code integer, signal integer, http_status integer, "
            "output_head bytea,"
            " output_tail bytea, output_bytes bigint, dispatcher text;"
            "dispatchers|id bigint, name text, host text, pid integer, version text, tasks ARRAY,"
            " started_at timestamp with time zone, beat bigint, beat_at timestamp with time zone, "
            "lease interval,"
            " live boolean, running bigint, boot_id text, lock_id text, backends ARRAY;"
            "jobs|id bigint, task text, state text, priority smallint, key text, run_at timestamp "
            "with time zone,"
            " expires_at timestamp with time zone, attempts integer, max_attempts smallint, lost "
            "integer,"
            " created_at timestamp with time zone, finished_at timestamp with time zone, reason "
            "text, encoding text,"
            " payload_size integer, owner bigint, dispatcher text, headers jsonb, cancelling "
            "boolean, paused boolean;"
            "pauses|task text, since timestamp with time zone, paused_by text, reason text;"
            "stats|task text, state text, count bigint, oldest_age interval, handlers integer,"
            " paused_since timestamp with time zone, paused_reason text");
    PQfinish(conn);
}
END_TEST

/* Readers must never stand in anybody's way. */
START_TEST(looking_takes_no_row_lock)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(other, "BEGIN");
    pg_exec_ok(
        other,
        "SELECT * FROM outbox.jobs; SELECT * FROM outbox.stats; SELECT * FROM outbox.dispatchers;"
        "SELECT * FROM outbox.attempts");
    ck_rows(
        other,
        "SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
        " AND relation::regclass::text LIKE 'outbox.%'",
        "AccessShareLock");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    ck_rows(conn, "SELECT * FROM outbox.settle(1, '{1}', '{1}')", "1|done");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(everything_has_a_comment)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT c.relname FROM pg_class c WHERE relnamespace = 'outbox'::regnamespace AND "
            "relkind IN ('r', 'v')"
            " AND obj_description(oid, 'pg_class') IS NULL",
            "");
    ck_rows(
        conn,
        "SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
        " WHERE relnamespace = 'outbox'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND "
        "NOT "
        "attisdropped"
        " AND col_description(attrelid, attnum) IS NULL",
        "");
    ck_rows(conn,
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace"
            " AND obj_description(oid, 'pg_proc') IS NULL",
            "");
    ck_rows(conn, "SELECT obj_description('outbox'::regnamespace, 'pg_namespace') IS NULL", "f");
    /* The queries above do find objects. */
    ck_rows(conn, "SELECT count(*) > 30 FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace",
            "t");
    PQfinish(conn);
}
END_TEST

START_TEST(every_function_pins_its_search_path)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT proname FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace"
            " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
            " ORDER BY 1",
            "enqueue_plain;has_limits;is_awaited;key_bucket;may_notify;sleeps"); /* which say where
                                                                                    every name is
                                                                                    from */
    ck_rows(
        conn,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace AND NOT prosecdef"
        " ORDER BY 1",
        "has_limits;is_awaited;key_bucket;may_notify;sleeps;terminate");
    /* One name, one function: an overload would make today's calls ambiguous. */
    ck_rows(conn,
            "SELECT proname FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace GROUP BY 1 "
            "HAVING count(*) > 1",
            "");
    PQfinish(conn);
}
END_TEST

START_TEST(public_may_do_nothing)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(proacl, "
            "acldefault('f', proowner))) a"
            " WHERE pronamespace = 'outbox'::regnamespace AND a.grantee = 0",
            "");
    ck_rows(conn,
            "SELECT c.relname FROM pg_class c, aclexplode(relacl) a"
            " WHERE relnamespace = 'outbox'::regnamespace AND a.grantee = 0",
            "");
    ck_rows(conn,
            "SELECT nspname FROM pg_namespace n, aclexplode(coalesce(nspacl, acldefault('n', "
            "nspowner))) a"
            " WHERE nspname = 'outbox' AND a.grantee = 0",
            "");
    PQfinish(conn);
}
END_TEST

/* A temporary object of the caller's must not be taken for one of the system's or ours. */
START_TEST(a_callers_temporary_objects_are_not_used)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "CREATE TEMP TABLE job (LIKE outbox.job); CREATE TEMP TABLE text (a int);"
                     "CREATE TEMP TABLE timestamptz (a int); CREATE TEMP TABLE jsonb (a int)");
    pg_exec_ok(
        conn,
        "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS pg_catalog.timestamptz LANGUAGE sql AS"
        " 'SELECT 1/0; SELECT pg_catalog.now()'");
    pg_exec_ok(conn, "SET search_path = pg_temp, outbox, pg_catalog");
    register_one(conn);
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'); SELECT * FROM outbox.enqueue_many('[{\"task\": "
                     "\"a\", \"delay\": \"0\"}]')");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{5}')", "2");
    ck_rows(conn,
            "SELECT * FROM outbox.settle(1, '{1,2}', '{1,2}', '[null, {\"outcome\": \"retry\", "
            "\"reason\": \"x\","
            " \"started_at\": \"2024-01-01T00:00:00Z\"}]')",
            "1|done;2|done");
    PQfinish(conn);
}
END_TEST

/* Names and options that a DBA was told about (docs/dba.md). */
START_TEST(the_work_table_is_stored_as_it_needs_to_be)
{
    PGconn *conn = testdb_connect();
    ck_rows(
        conn,
        "SELECT reloptions @> '{autovacuum_vacuum_scale_factor=0,autovacuum_vacuum_threshold=5000,"
        "autovacuum_vacuum_cost_delay=0,vacuum_truncate=off,fillfactor=45}' FROM pg_class"
        " WHERE oid = 'outbox.job'::regclass",
        "t");
    pg_exec_fails(conn,
                  "INSERT INTO outbox.job (task, encoding, payload, created_at, priority)"
                  " VALUES ('a', 'json', '1', now(), 5)",
                  "23514", "job_priority");
    pg_exec_fails(conn,
                  "INSERT INTO outbox.job (task, encoding, payload, created_at, owner)"
                  " VALUES ('a', 'json', '1', now(), 5)",
                  "23514", "job_claim");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_views");
    TCase *tc = sql_case(suite, "views");
    tcase_add_test(tc, jobs_shows_every_state);
    tcase_add_test(tc, stats_tells_who_handles_a_task);
    tcase_add_test(tc, the_views_have_the_columns_that_readers_rely_on);
    tcase_add_test(tc, looking_takes_no_row_lock);
    tc = sql_case(suite, "rules");
    tcase_add_test(tc, everything_has_a_comment);
    tcase_add_test(tc, every_function_pins_its_search_path);
    tcase_add_test(tc, public_may_do_nothing);
    tcase_add_test(tc, a_callers_temporary_objects_are_not_used);
    tcase_add_test(tc, the_work_table_is_stored_as_it_needs_to_be);
    return suite;
}
