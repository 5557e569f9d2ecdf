/* outbox.enqueue, enqueue_bytes, enqueue_many: what is stored, in whose transaction, and every
 * refusal. */
#include "check_sql.h"

START_TEST(enqueue_stores_the_defaults)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT outbox.enqueue('send-mail')", "1");
    ck_rows(conn, "SELECT outbox.enqueue('send-mail', '{\"to\": \"ä\"}')", "2");
    ck_rows(
        conn,
        "SELECT id, task, state, priority, key, run_at, expires_at, attempts, max_attempts, lost, "
        "encoding,"
        " payload_size, headers, created_at BETWEEN now() - interval '1 minute' AND "
        "clock_timestamp()"
        " FROM outbox.jobs ORDER BY id",
        "1|send-mail|ready|2|-|-|-|0|-|0|json|2|-|t;2|send-mail|ready|2|-|-|-|0|-|0|json|12|-|t");
    ck_rows(conn, "SELECT convert_from(outbox.payload(2), 'UTF8')", "{\"to\": \"ä\"}");
    PQfinish(conn);
}
END_TEST

START_TEST(enqueue_stores_every_option)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn,
               "SELECT outbox.enqueue('t', 'null', priority => 4, run_at => '2100-01-01T00:00:00Z',"
               " expires_at => '2100-01-02T00:00:00Z', max_attempts => 32767,"
               " headers => '{\"traceparent\": \"00-1\"}', notify_done => false)");
    ck_rows(conn,
            "SELECT state, priority, run_at, expires_at, max_attempts, headers, payload_size FROM "
            "outbox.jobs",
            "scheduled|4|2100-01-01 00:00:00+00|2100-01-02 00:00:00+00|32767|{\"traceparent\": "
            "\"00-1\"}|4");
    PQfinish(conn);
}
END_TEST

START_TEST(null_options_mean_the_defaults)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('t', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, "
                     "NULL, NULL, NULL, NULL,"
                     " NULL), * FROM outbox.enqueue_bytes('t', '1', 'json', NULL, NULL, NULL, "
                     "NULL, NULL, NULL, NULL,"
                     " NULL, NULL, NULL, NULL, NULL)");
    ck_rows(conn, "SELECT state, priority, run_at FROM outbox.jobs", "ready|2|-;ready|2|-");
    PQfinish(conn);
}
END_TEST

START_TEST(a_delay_schedules_and_none_or_a_past_time_does_not)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('later', delay => '1 hour')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('now', delay => '0')");
    pg_exec_ok(conn, "SELECT outbox.enqueue('past', run_at => '2000-01-01')");
    ck_rows(conn, "SELECT task, state FROM outbox.jobs ORDER BY id",
            "later|scheduled;now|ready;past|ready");
    ck_rows(conn, "SELECT run_at - created_at FROM outbox.job WHERE task = 'later'", "01:00:00");
    PQfinish(conn);
}
END_TEST

START_TEST(a_job_exists_if_and_only_if_its_transaction_commits)
{
    PGconn *conn = testdb_connect();
    PGconn *other = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SELECT outbox.enqueue('kept')");
    pg_exec_ok(conn, "SAVEPOINT s");
    pg_exec_ok(conn, "SELECT outbox.enqueue('undone')");
    pg_exec_ok(conn, "SELECT * FROM outbox.enqueue_many('[{\"task\": \"undone\"}]')");
    pg_exec_ok(conn, "ROLLBACK TO s");
    ck_rows(other, "SELECT count(*) FROM outbox.jobs", "0");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(other, "SELECT task FROM outbox.jobs", "kept");
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SELECT outbox.enqueue('rolled-back')");
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(other, "SELECT task FROM outbox.jobs", "kept");
    PQfinish(other);
    PQfinish(conn);
}
END_TEST

START_TEST(a_refused_job_leaves_a_savepoint_to_go_back_to)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    pg_exec_ok(conn, "SAVEPOINT s");
    pg_exec_fails(conn, "SELECT outbox.enqueue('no good')", "22023", "not a task name");
    pg_exec_ok(conn, "ROLLBACK TO s");
    pg_exec_ok(conn, "COMMIT");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "1");
    PQfinish(conn);
}
END_TEST

START_TEST(a_row_is_stamped_with_the_transaction_that_made_it_ready)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SAVEPOINT s");
    pg_exec_ok(conn, "SELECT outbox.enqueue('a'), outbox.enqueue('b', delay => '1s')");
    ck_rows(conn, "SELECT ready_xid = pg_current_xact_id() FROM outbox.job ORDER BY id", "t;-");
    PQfinish(conn);
}
END_TEST

static const struct refusal {
    const char *sql;
    const char *sqlstate;
    const char *message;
} refusals[] = {
    {"SELECT outbox.enqueue(NULL)", "22023", "the task is NULL"},
    {"SELECT outbox.enqueue('')", "22023", "not a task name: \"\""},
    {"SELECT outbox.enqueue('-x')", "22023", "not a task name: \"-x\""},
    {"SELECT outbox.enqueue(E'a\\n')", "22023", "not a task name: \"a\\n\""},
    {"SELECT outbox.enqueue(repeat('x', 129))", "22023", "not a task name"},
    {"SELECT outbox.enqueue('a', NULL)", "22004", "the payload is NULL"},
    {"SELECT outbox.enqueue('a', to_jsonb(repeat('x', 16777215)))", "54000",
     "the payload has 16777217 bytes"},
    {"SELECT outbox.enqueue('a', priority => 0)", "22023", "priority is 0"},
    {"SELECT outbox.enqueue('a', priority => 5)", "22023", "priority is 5"},
    {"SELECT outbox.enqueue('a', max_attempts => 0)", "22023", "max_attempts is 0"},
    {"SELECT outbox.enqueue('a', max_attempts => 32768)", "22023", "max_attempts is 32768"},
    {"SELECT outbox.enqueue('a', headers => '[]')", "22023", "headers is a JSON array"},
    {"SELECT outbox.enqueue('a', headers => jsonb_build_object('h', repeat('x', 8192)))", "54000",
     "headers has"},
    {"SELECT outbox.enqueue('a', run_at => now(), delay => '1s')", "22023",
     "run_at and delay are both given"},
    {"SELECT outbox.enqueue('a', run_at => 'infinity')", "22023", "run_at is not finite"},
    {"SELECT outbox.enqueue('a', delay => '-1s')", "22023", "delay is negative"},
    {"SELECT outbox.enqueue('a', delay => '290000 years')", "22023", "delay is over 1000 years"},
    {"SELECT outbox.enqueue('a', expires_at => 'infinity')", "22023", "expires_at is not finite"},
    {"SELECT outbox.enqueue('a', delay => '1h', expires_at => now())", "22023",
     "would expire before"},
    {"SELECT outbox.enqueue('a', key => '')", "22023", "key has 0 bytes"},
    {"SELECT outbox.enqueue('a', key => repeat('ä', 513))", "22023", "key has 1026 bytes"},
    {"SELECT outbox.enqueue('a', unique_key => '')", "22023", "unique_key has 0 bytes"},
    {"SELECT outbox.enqueue('a', repeat_every => '0')", "22023", "repeat_every is 00:00:00"},
    {"SELECT outbox.enqueue('a', repeat_every => '2000 years')", "22023", "repeat_every is"},
    {"SELECT outbox.enqueue('a', after => '{999}')", "23503", "after: there is no job 999"},
    {"SELECT outbox.enqueue('a', after => '{1}')", "23503", "after: there is no job 1"},
    {"SELECT outbox.enqueue('a', after => '{0}')", "23503", "after: there is no job 0"},
    {"SELECT outbox.enqueue('a', after => '{1,NULL}')", "22023", "after is not a list"},
    {"SELECT outbox.enqueue('a', after => '{{1},{2}}')", "22023", "after is not a list"},
    {"SELECT outbox.enqueue('a', after => array_fill(1::bigint, ARRAY[1001]))", "22023",
     "after is not a list of up to 1000 ids"},
    {"SELECT outbox.enqueue('a', on_failed_dependency => 'cancel')", "22023",
     "unknown on_failed_dependency \"cancel\""},
    {"SELECT * FROM outbox.enqueue_bytes('a', NULL, 'json')", "22004", "the payload is NULL"},
    {"SELECT * FROM outbox.enqueue_bytes('a', '1', NULL)", "22023", "unknown encoding NULL"},
    {"SELECT * FROM outbox.enqueue_bytes('a', '1', 'xml')", "22023", "unknown encoding \"xml\""},
    {"SELECT * FROM outbox.enqueue_bytes('a', '{', 'json')", "22P02",
     "the payload is not JSON in UTF-8"},
    {"SELECT * FROM outbox.enqueue_bytes('a', '', 'json')", "22P02",
     "the payload is not JSON in UTF-8"},
    {"SELECT * FROM outbox.enqueue_bytes('a', '\\x22ff22', 'json')", "22P02",
     "invalid byte sequence"},
    {"SELECT * FROM outbox.enqueue_bytes('a b', '1', 'msgpack')", "22023",
     "not a task name: \"a b\""},
    {"SELECT * FROM outbox.enqueue_bytes('a', convert_to(repeat('x', 16777217), 'UTF8'), "
     "'msgpack')",
     "54000", "the payload has 16777217 bytes, the limit is 16777216 (16 MiB)"},
    {"SELECT * FROM outbox.enqueue_plain('a', NULL, 'msgpack')", "22004", "the payload is NULL"},
    {"SELECT * FROM outbox.enqueue_plain('a', '1', NULL)", "22023", "unknown encoding NULL"},
    {"SELECT * FROM outbox.enqueue_plain('a', '{', 'json')", "22P02",
     "the payload is not JSON in UTF-8"},
    {"SELECT * FROM outbox.enqueue_plain('a b', '1', 'msgpack')", "22023",
     "not a task name: \"a b\""},
    {"SELECT * FROM outbox.enqueue_plain('a', convert_to(repeat('x', 16777217), 'UTF8'), "
     "'msgpack')",
     "54000", "16777217"},
    {"SELECT * FROM outbox.enqueue_bytes('a', '1', 'msgpack', key => '')", "22023",
     "key has 0 bytes"},
    {"SELECT outbox.wake('a b')", "22023", "not a task name: \"a b\""},
};

/* Each has its SQLSTATE, its message and a hint, and enqueues nothing. */
static void check_refusals(const struct refusal *all, size_t count)
{
    PGconn *conn = testdb_connect();
    for (const struct refusal *r = all; r < all + count; r++) {
        PGresult *res = PQexec(conn, r->sql);
        const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
        ck_assert_msg(hint != NULL && hint[0] != '\0', "no hint: %s", r->sql);
        PQclear(res);
        pg_exec_fails(conn, r->sql, r->sqlstate, r->message);
    }
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    PQfinish(conn);
}

START_TEST(what_is_wrong_is_refused_by_name)
{
    check_refusals(refusals, sizeof refusals / sizeof refusals[0]);
}
END_TEST

START_TEST(the_largest_payload_and_the_longest_name_are_taken)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue(repeat('x', 128), to_jsonb(repeat('x', 16777214)))");
    pg_exec_ok(conn, "SELECT outbox.enqueue('_A.b:c-9', priority => 1, max_attempts => 1)");
    ck_rows(conn, "SELECT length(task), payload_size FROM outbox.jobs ORDER BY id",
            "128|16777216;8|2");
    PQfinish(conn);
}
END_TEST

START_TEST(bytes_are_stored_as_they_are)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn, "SELECT * FROM outbox.enqueue_bytes('a', '\\x00ff', 'msgpack')", "1|f");
    ck_rows(conn,
            "SELECT * FROM outbox.enqueue_bytes('a', ' {\"b\":1, \"a\":2}', 'json', priority => 3)",
            "2|f");
    ck_rows(conn, "SELECT encoding, priority, outbox.payload(id) FROM outbox.jobs ORDER BY id",
            "msgpack|2|\\x00ff;json|3|\\x207b2262223a312c202261223a327d");
    PQfinish(conn);
}
END_TEST

/* Whichever way is taken within. */
START_TEST(plain_jobs_are_the_same_as_others_without_options)
{
    static const char *const payloads[] = {"'\\x00ff', 'msgpack'", "'{}', 'json'",
                                           "' [1] ', 'json'"};
    PGconn *conn = testdb_connect();
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        for (int is_plain = 0; is_plain < 2; is_plain++) {
            char sql[100];
            (void)snprintf(sql, sizeof sql, "SELECT * FROM outbox.enqueue_%s('a', %s)",
                           is_plain ? "plain" : "bytes", payloads[i]);
            pg_exec_ok(conn, sql);
        }
    }
    ck_rows(conn,
            "SELECT count(*), min(id), max(id) FROM outbox.job WHERE created_at BETWEEN"
            " clock_timestamp() - interval '1 min' AND clock_timestamp() AND ready_xid IS NOT NULL",
            "6|1|6");
    ck_rows(
        conn,
        "SELECT DISTINCT count(*) FROM (SELECT to_jsonb(j) - '{id,created_at,ready_xid}'::text[]"
        " AS job FROM outbox.job j) s GROUP BY job",
        "2");
    PQfinish(conn);
}
END_TEST

START_TEST(many_jobs_get_ids_in_order)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT * FROM outbox.enqueue_many('[{\"task\": \"a\"},"
            " {\"task\": \"b\", \"payload\": [1, \"x\"], \"priority\": 1, \"max_attempts\": 3},"
            " {\"task\": \"c\", \"payload\": null, \"delay\": 90, \"headers\": {\"h\": \"v\"}, "
            "\"key\": null},"
            " {\"task\": \"d\", \"delay\": \"1 hour\", \"expires_at\": \"2100-01-01T00:00:00Z\", "
            "\"priority\": null},"
            " {\"task\": \"e\", \"run_at\": \"2100-01-01T00:00:00Z\", \"notify_done\": false}]')",
            "1|f;2|f;3|f;4|f;5|f");
    ck_rows(
        conn,
        "SELECT task, state, priority, max_attempts, headers, run_at - created_at < '2 hours', "
        "expires_at,"
        " convert_from(outbox.payload(id), 'UTF8') FROM outbox.jobs ORDER BY id",
        "a|ready|2|-|-|-|-|{};b|ready|1|3|-|-|-|[1, \"x\"];c|scheduled|2|-|{\"h\": \"v\"}|t|-|null;"
        "d|scheduled|2|-|-|t|2100-01-01 00:00:00+00|{};e|scheduled|2|-|-|f|-|{}");
    ck_rows(conn, "SELECT * FROM outbox.enqueue_many('[]')", "");
    ck_rows(
        conn,
        "SELECT count(*), bool_and(id > before) FROM (SELECT id, lag(id, 1, 5) OVER () AS before "
        "FROM"
        " outbox.enqueue_many((SELECT jsonb_agg(jsonb_build_object('task', 'm', 'payload', n)) FROM"
        " generate_series(1, 1000) n))) r",
        "1000|t");
    ck_rows(conn,
            "SELECT bool_and(convert_from(payload, 'UTF8')::bigint = id - 5) FROM outbox.job WHERE "
            "task = 'm'",
            "t");
    PQfinish(conn);
}
END_TEST

START_TEST(many_jobs_may_come_with_encoded_payloads)
{
    PGconn *conn = testdb_connect();
    ck_rows(conn,
            "SELECT * FROM outbox.enqueue_many('[{\"task\": \"a\", \"encoding\": \"msgpack\"},"
            " {\"task\": \"b\", \"encoding\": \"json\", \"priority\": 4}]', '{\"\\\\x80\", "
            "\"\\\\x5b5d\"}')",
            "1|f;2|f");
    ck_rows(conn, "SELECT task, encoding, outbox.payload(id) FROM outbox.jobs ORDER BY id",
            "a|msgpack|\\x80;b|json|\\x5b5d");
    PQfinish(conn);
}
END_TEST

#define MANY(jobs)              "SELECT * FROM outbox.enqueue_many('" jobs "')"
#define MANY_BYTES(jobs, bytes) "SELECT * FROM outbox.enqueue_many('" jobs "', " bytes ")"
static const struct refusal many_refusals[] = {
    {"SELECT * FROM outbox.enqueue_many(NULL)", "22023", "jobs is not a JSON array but NULL"},
    {MANY("{\"task\": \"a\"}"), "22023", "jobs is not a JSON array but object"},
    {MANY("[{\"task\": \"a\"}, 7]"), "22023", "jobs[1]: not an object but number"},
    {MANY("[{\"task\": \"a\"}, {\"task\": \"a\"}, {\"task\": \"a\"}, {\"task\": \"a\", \"prio\": "
          "1}]"),
     "22023", "jobs[3]: unknown key \"prio\""},
    {MANY("[{}]"), "22023", "jobs[0]: the task is NULL"},
    {MANY("[{\"task\": 7}]"), "22023", "jobs[0]: \"task\" is a JSON number"},
    {MANY("[{\"task\": \"a b\"}]"), "22023", "jobs[0]: not a task name: \"a b\""},
    {MANY("[{\"task\": \"a\", \"priority\": \"1\"}]"), "22023",
     "jobs[0]: \"priority\" is a JSON string"},
    {MANY("[{\"task\": \"a\", \"priority\": 1.5}]"), "22023", "jobs[0]: priority is 1.5"},
    {MANY("[{\"task\": \"a\", \"priority\": 9}]"), "22023", "jobs[0]: priority is 9"},
    {MANY("[{\"task\": \"a\", \"priority\": 1e300}]"), "22023", "jobs[0]: priority is 1"},
    {MANY("[{\"task\": \"a\", \"max_attempts\": 40000}]"), "22023",
     "jobs[0]: max_attempts is 40000"},
    {MANY("[{\"task\": \"a\", \"max_attempts\": true}]"), "22023",
     "jobs[0]: \"max_attempts\" is a JSON boolean"},
    {MANY("[{\"task\": \"a\", \"delay\": \"soon\"}]"), "22023",
     "jobs[0]: \"delay\" is not an interval: \"soon\""},
    {MANY("[{\"task\": \"a\", \"delay\": -1}]"), "22023", "jobs[0]: delay is negative"},
    {MANY("[{\"task\": \"a\", \"delay\": 1e300}]"), "22023",
     "jobs[0]: \"delay\" is not an interval"},
    {MANY("[{\"task\": \"a\", \"run_at\": \"soon\"}]"), "22023",
     "jobs[0]: \"run_at\" is not a time: \"soon\""},
    {MANY("[{\"task\": \"a\", \"run_at\": 7}]"), "22023", "jobs[0]: \"run_at\" is a JSON number"},
    {MANY("[{\"task\": \"a\", \"expires_at\": \"13:99\"}]"), "22023",
     "jobs[0]: \"expires_at\" is not a time"},
    {MANY("[{\"task\": \"a\", \"headers\": \"x\"}]"), "22023",
     "jobs[0]: \"headers\" is a JSON string"},
    {MANY("[{\"task\": \"a\", \"run_at\": \"2100-01-01\", \"delay\": 1}]"), "22023",
     "jobs[0]: run_at and delay are both given"},
    {MANY("[{\"task\": \"a\"}, {\"task\": \"a\", \"key\": \"\"}]"), "22023",
     "jobs[1]: key has 0 bytes"},
    {MANY("[{\"task\": \"a\", \"after\": [999]}]"), "23503", "jobs[0]: after: there is no job 999"},
    {MANY("[{\"task\": \"a\", \"after\": [\"x\"]}]"), "22023",
     "jobs[0]: \"after\" is not an array of ids: [\"x\"]"},
    {MANY("[{\"task\": \"a\", \"after\": [1.5]}]"), "22023",
     "jobs[0]: \"after\" is not an array of ids"},
    {MANY("[{\"task\": \"a\", \"repeat_every\": 0}]"), "22023",
     "jobs[0]: repeat_every is 00:00:00"},
    {MANY("[{\"task\": \"a\", \"encoding\": \"json\"}]"), "22023",
     "jobs[0]: the key \"encoding\" is given without payloads"},
    {MANY_BYTES("[{\"task\": \"a\", \"encoding\": \"json\"}]", "'{}'"), "22023",
     "payloads has 0 elements, jobs has 1"},
    {MANY_BYTES("[{\"task\": \"a\", \"encoding\": \"json\"}]", "ARRAY[NULL::bytea]"), "22004",
     "jobs[0]: the payload is NULL"},
    {MANY_BYTES("[{\"task\": \"a\"}]", "ARRAY['1'::bytea]"), "22023",
     "jobs[0]: unknown encoding NULL"},
    {MANY_BYTES("[{\"task\": \"a\", \"encoding\": \"xml\"}]", "ARRAY['1'::bytea]"), "22023",
     "jobs[0]: unknown encoding \"xml\""},
    {MANY_BYTES("[{\"task\": \"a\", \"encoding\": \"json\"}]", "ARRAY['{'::bytea]"), "22P02",
     "jobs[0]: the payload is not JSON in UTF-8"},
    {MANY_BYTES("[{\"task\": \"a\", \"encoding\": \"json\", \"payload\": 1}]", "ARRAY['1'::bytea]"),
     "22023", "jobs[0]: the key \"payload\" is given beside payloads"},
    {"SELECT * FROM outbox.enqueue_many(jsonb_build_array(jsonb_build_object('task', 'a', "
     "'payload',"
     " repeat('x', 16777215))))",
     "54000", "jobs[0]: the payload has 16777217 bytes"},
    {"SELECT * FROM outbox.enqueue_many('[{\"task\": \"a\", \"encoding\": \"msgpack\"}]',"
     " ARRAY[convert_to(repeat('x', 16777217), 'UTF8')])",
     "54000", "jobs[0]: the payload has 16777217 bytes"},
};

START_TEST(one_wrong_element_refuses_all_by_position)
{
    check_refusals(many_refusals, sizeof many_refusals / sizeof many_refusals[0]);
}
END_TEST

/* ---- the trigger function ---- */

static const char *const events[] = {"INSERT", "UPDATE", "DELETE"};
static const char *const changes[] = {"INSERT INTO shop VALUES (3, 'z'), (4, 'ü')",
                                      "UPDATE shop SET name = upper(name)", "DELETE FROM shop"};
static const char *const payloads[] = {"{\"id\": 3, \"name\": \"z\"};{\"id\": 4, \"name\": \"ü\"}",
                                       "{\"id\": 1, \"name\": \"X\"};{\"id\": 2, \"name\": \"Y\"}",
                                       "{\"id\": 1, \"name\": \"x\"};{\"id\": 2, \"name\": \"y\"}"};

static PGconn *shop(void)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn,
               "CREATE TABLE shop (id int, name text); INSERT INTO shop VALUES (1, 'x'), (2, 'y')");
    return conn;
}

static void fire(PGconn *conn, int event)
{
    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, changes[event]);
    pg_exec_ok(conn, "ROLLBACK");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs", "0");
    pg_exec_ok(conn, changes[event]);
    ck_rows(conn, "SELECT convert_from(payload, 'UTF8') FROM outbox.job ORDER BY id",
            payloads[event]);
    ck_rows(conn, "SELECT DISTINCT task, state FROM outbox.jobs", "row-changed|ready");
}

START_TEST(a_row_trigger_enqueues_each_row)
{
    PGconn *conn = shop();
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "CREATE TRIGGER t AFTER %s ON shop FOR EACH ROW EXECUTE FUNCTION "
                   "outbox.enqueue_row('row-changed')",
                   events[_i]);
    pg_exec_ok(conn, sql);
    fire(conn, _i);
    PQfinish(conn);
}
END_TEST

START_TEST(a_statement_trigger_enqueues_all_rows_with_one_insert)
{
    PGconn *conn = shop();
    char sql[256];
    (void)snprintf(
        sql, sizeof sql,
        "CREATE TRIGGER t AFTER %s ON shop REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION"
        " outbox.enqueue_row('row-changed')",
        events[_i], _i == 2 ? "OLD TABLE AS old_rows" : "NEW TABLE AS new_rows");
    pg_exec_ok(conn, sql);
    /* Counts the INSERT statements on outbox.job. */
    pg_exec_ok(conn, "CREATE TABLE inserts (n int);"
                     "CREATE FUNCTION count_insert() RETURNS trigger LANGUAGE plpgsql AS"
                     " 'BEGIN INSERT INTO public.inserts VALUES (1); RETURN NULL; END';"
                     "CREATE TRIGGER c AFTER INSERT ON outbox.job FOR EACH STATEMENT EXECUTE "
                     "FUNCTION count_insert()");
    fire(conn, _i);
    ck_rows(conn, "SELECT count(*) FROM inserts", "1");
    PQfinish(conn);
}
END_TEST

START_TEST(one_trigger_function_serves_tables_of_different_shapes)
{
    PGconn *conn = shop();
    pg_exec_ok(
        conn,
        "CREATE TABLE other (code text);"
        "CREATE TRIGGER t AFTER INSERT ON shop REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"
        " EXECUTE FUNCTION outbox.enqueue_row('a');"
        "CREATE TRIGGER t AFTER INSERT ON other REFERENCING NEW TABLE AS new_rows FOR EACH "
        "STATEMENT"
        " EXECUTE FUNCTION outbox.enqueue_row('b')");
    pg_exec_ok(conn, "INSERT INTO shop VALUES (5, 'q')");
    pg_exec_ok(conn, "INSERT INTO other VALUES ('q')");
    pg_exec_ok(conn, "INSERT INTO shop SELECT 6 WHERE false");
    ck_rows(conn, "SELECT task, convert_from(payload, 'UTF8') FROM outbox.job ORDER BY id",
            "a|{\"id\": 5, \"name\": \"q\"};b|{\"code\": \"q\"}");
    PQfinish(conn);
}
END_TEST

static const struct refusal trigger_refusals[] = {
    {"BEFORE INSERT ON shop FOR EACH ROW EXECUTE FUNCTION outbox.enqueue_row('a')", "39P01",
     "is used wrongly"},
    {"AFTER INSERT ON shop FOR EACH ROW EXECUTE FUNCTION outbox.enqueue_row()", "39P01",
     "is used wrongly"},
    {"AFTER INSERT ON shop FOR EACH ROW EXECUTE FUNCTION outbox.enqueue_row('a', 'b')", "39P01",
     "is used wrongly"},
    {"AFTER INSERT ON shop FOR EACH STATEMENT EXECUTE FUNCTION outbox.enqueue_row('a')", "39P01",
     "trigger t has no transition table new_rows"},
    {"AFTER INSERT ON shop REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION "
     "outbox.enqueue_row('a')",
     "39P01", "trigger t has no transition table new_rows"},
    {"AFTER INSERT ON shop FOR EACH ROW EXECUTE FUNCTION outbox.enqueue_row('a b')", "22023",
     "trigger t: not a task name: \"a b\""},
};

START_TEST(a_wrong_trigger_says_what_is_wrong)
{
    PGconn *conn = shop();
    char sql[256];
    (void)snprintf(sql, sizeof sql, "CREATE TRIGGER t %s", trigger_refusals[_i].sql);
    pg_exec_ok(conn, sql);
    pg_exec_fails(conn, "INSERT INTO shop VALUES (9, 'n')", trigger_refusals[_i].sqlstate,
                  trigger_refusals[_i].message);
    PQfinish(conn);
}
END_TEST

static const char *const large_row_triggers[] = {
    "AFTER INSERT ON shop FOR EACH ROW",
    "AFTER INSERT ON shop REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT",
    "AFTER DELETE ON shop REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT",
};

START_TEST(a_row_that_is_too_large_is_refused_as_such)
{
    PGconn *conn = shop();
    char sql[256];
    if (_i == 2)
        pg_exec_ok(conn, "INSERT INTO shop VALUES (9, repeat('x', 16777216))");
    (void)snprintf(sql, sizeof sql, "CREATE TRIGGER t %s EXECUTE FUNCTION outbox.enqueue_row('a')",
                   large_row_triggers[_i]);
    pg_exec_ok(conn, sql);
    pg_exec_fails(
        conn, _i == 2 ? "DELETE FROM shop" : "INSERT INTO shop VALUES (9, repeat('x', 16777216))",
        "54000", "trigger t: the payload has");
    PQfinish(conn);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_enqueue");
    TCase *tc = sql_case(suite, "enqueue");
    tcase_add_test(tc, enqueue_stores_the_defaults);
    tcase_add_test(tc, enqueue_stores_every_option);
    tcase_add_test(tc, null_options_mean_the_defaults);
    tcase_add_test(tc, a_delay_schedules_and_none_or_a_past_time_does_not);
    tcase_add_test(tc, a_row_is_stamped_with_the_transaction_that_made_it_ready);
    tcase_add_test(tc, bytes_are_stored_as_they_are);
    tcase_add_test(tc, plain_jobs_are_the_same_as_others_without_options);
    tcase_add_test(tc, many_jobs_get_ids_in_order);
    tcase_add_test(tc, many_jobs_may_come_with_encoded_payloads);
    tcase_add_test(tc, the_largest_payload_and_the_longest_name_are_taken);
    tc = sql_case(suite, "transactions");
    tcase_add_test(tc, a_job_exists_if_and_only_if_its_transaction_commits);
    tcase_add_test(tc, a_refused_job_leaves_a_savepoint_to_go_back_to);
    tc = sql_case(suite, "refusals");
    tcase_add_test(tc, what_is_wrong_is_refused_by_name);
    tcase_add_test(tc, one_wrong_element_refuses_all_by_position);
    tc = sql_case(suite, "triggers");
    tcase_add_loop_test(tc, a_row_trigger_enqueues_each_row, 0, 3);
    tcase_add_loop_test(tc, a_statement_trigger_enqueues_all_rows_with_one_insert, 0, 3);
    tcase_add_test(tc, one_trigger_function_serves_tables_of_different_shapes);
    tcase_add_loop_test(tc, a_row_that_is_too_large_is_refused_as_such, 0, 3);
    tcase_add_loop_test(tc, a_wrong_trigger_says_what_is_wrong, 0,
                        sizeof trigger_refusals / sizeof trigger_refusals[0]);
    return suite;
}
