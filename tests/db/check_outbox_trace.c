/* What the helper sends, message by message, as libpq traces it: one statement, one round trip,
 * values as parameters, nothing prepared, and nothing at all when it refuses. And in a pipeline:
 * BEGIN, a business write, the job and COMMIT in one round trip together, all or nothing. */
#include <outbox/outbox.h>

#include "ck_main.h"
#include "pgcluster.h"
#include "wait.h"

static PGconn *conn;
static struct outbox_error err;
static char *trace_text;
static size_t trace_len;
static FILE *trace;

static void set_up(void)
{
    testdb_create();
    conn = testdb_connect();
    pg_exec_ok(conn, "BEGIN");
    trace = open_memstream(&trace_text, &trace_len);
    ck_assert_ptr_nonnull(trace);
    PQtrace(conn, trace);
    PQsetTraceFlags(conn, PQTRACE_SUPPRESS_TIMESTAMPS | PQTRACE_REGRESS_MODE);
}

static void tear_down(void)
{
    PQfinish(conn);
    testdb_drop();
    free(trace_text);
}

/* Ends the trace and compares it: what we send whole and in order, of the answer the messages'
 * names. */
static void expect_trace(const char *expected)
{
    char got[4096] = "";
    size_t len = 0;

    PQuntrace(conn);
    (void)fclose(trace);
    for (const char *line = trace_text; *line != '\0';) {
        int line_len = (int)strcspn(line, "\n");
        if (*line == 'B') { /* B, tab, length, tab, name, ... */
            const char *name = strchr(line + 2, '\t') + 1;
            len += (size_t)snprintf(got + len, sizeof got - len, "B %.*s\n",
                                    (int)strcspn(name, "\t\n"), name);
        } else {
            len += (size_t)snprintf(got + len, sizeof got - len, "%.*s\n", line_len, line);
        }
        ck_assert_uint_lt(len, sizeof got);
        line += line_len + 1;
    }
    ck_assert_str_eq(got, expected);
}

#define ASKS_AND_WAITS                                                                             \
    "F\t6\tDescribe\t P \"\"\n"                                                                    \
    "F\t9\tExecute\t \"\" 0\n"                                                                     \
    "F\t4\tSync\n"                                                                                 \
    "B ParseComplete\nB BindComplete\nB RowDescription\nB DataRow\nB CommandComplete\n"            \
    "B ReadyForQuery\n"

START_TEST(enqueue_is_one_statement_with_its_values_as_parameters)
{
    struct outbox_payload p;
    struct outbox_job job = OUTBOX_JOB("t");

    outbox_payload_init(&p);
    (void)outbox_put_int(&p, "a", 1);
    job.payload = &p;
    job.delay_ms = 1;
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_OK);
    outbox_payload_free(&p);
    expect_trace(
        "F\t179\tParse\t \"\" \"SELECT id, existing FROM outbox.enqueue_bytes($1, $2, $3, $4, $5, "
        "$6, "
        "$7, $8, $9, $10, $11, $12, $13, $14, $15)\" 15 NNNN NNNN NNNN NNNN NNNN NNNN NNNN NNNN "
        "NNNN NNNN NNNN NNNN NNNN NNNN NNNN\n"
        "F\t136\tBind\t \"\" \"\" 15 0 1 0 0 0 1 1 1 1 1 0 1 1 0 1 15 1 't' 4 '\\x81\\xa1a\\x01' 7 "
        "'msgpack' -1 -1 4 '\\x00\\x00\\x00\\x02' -1 16 '\\x00\\x00\\x00\\x00\\x00\\x00\\x03"
        "\\xe8\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' -1 -1 -1 -1 -1 -1 -1 1 0\n" ASKS_AND_WAITS);
}
END_TEST

START_TEST(job_without_options_has_three_parameters)
{
    struct outbox_job job = OUTBOX_JOB("t");

    job.priority = 2; /* the default */
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_OK);
    expect_trace(
        "F\t84\tParse\t \"\" \"SELECT outbox.enqueue_plain($1, $2, $3) AS id, false AS existing\" "
        "3 NNNN NNNN NNNN\n"
        "F\t39\tBind\t \"\" \"\" 3 0 1 0 3 1 't' 2 '{}' 4 'json' 1 0\n" ASKS_AND_WAITS);
}
END_TEST

START_TEST(batch_is_one_statement_too)
{
    struct outbox_job job = OUTBOX_JOB("t");

    job.priority = 1;
    ck_assert_int_eq(outbox_enqueue_many(conn, &job, 1, NULL, &err), OUTBOX_OK);
    expect_trace(
        "F\t84\tParse\t \"\" \"SELECT id, existing FROM outbox.enqueue_many($1::jsonb, "
        "$2::bytea[])\""
        " 2 NNNN NNNN\n"
        "F\t97\tBind\t \"\" \"\" 2 0 1 2 45 "
        "'[{\"task\":\"t\",\"encoding\":\"json\",\"priority\":1}]'"
        " 26 '\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x11\\x00\\x00\\x00\\x01"
        "\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x02{}' 1 0\n" ASKS_AND_WAITS);
}
END_TEST

START_TEST(refusals_send_nothing)
{
    struct outbox_job job = OUTBOX_JOB("t");

    ck_assert_int_eq(outbox_enqueue_many(conn, &job, 0, NULL, &err), OUTBOX_OK);
    job.priority = 9;
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_enqueue_many(conn, &job, 1, NULL, &err), OUTBOX_EINVAL);
    expect_trace("");
}
END_TEST

START_TEST(schema_check_is_one_statement)
{
    ck_assert_int_eq(outbox_check_schema(conn, &err), OUTBOX_OK);
    expect_trace("F\t51\tParse\t \"\" \"SELECT level, min_level FROM outbox.level()\" 0\n"
                 "F\t14\tBind\t \"\" \"\" 0 0 1 0\n" ASKS_AND_WAITS);
}
END_TEST

/* --- in a pipeline --- */

enum { WAIT_MS = 10000 };

static void set_up_pipeline(void)
{
    testdb_create();
    testdb_exec("CREATE TABLE public.orders (id bigint PRIMARY KEY)");
    conn = testdb_connect();
    trace = open_memstream(&trace_text, &trace_len);
    ck_assert_ptr_nonnull(trace);
    PQtrace(conn, trace);
    PQsetTraceFlags(conn, PQTRACE_SUPPRESS_TIMESTAMPS | PQTRACE_REGRESS_MODE);
}

static void tear_down_pipeline(void)
{
    PQuntrace(conn);
    (void)fclose(trace);
    tear_down();
}

static void send_sql(const char *sql)
{
    ck_assert_int_eq(PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0), 1);
}

/* By outbox_query_init, or by outbox_query_init_many. */
static void send_jobs(const struct outbox_job *jobs, size_t n, bool as_batch)
{
    struct outbox_query q;
    int rc = as_batch ? outbox_query_init_many(&q, jobs, n, PQclientEncoding(conn), &err)
                      : outbox_query_init(&q, jobs, &err);

    ck_assert_int_eq(rc, OUTBOX_OK);
    ck_assert_int_eq(
        PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0), 1);
    outbox_query_free(&q);
}

/* The result of the next statement of the pipeline. */
static PGresult *next_result(void)
{
    PGresult *res = PQgetResult(conn);

    ck_assert_ptr_nonnull(res);
    ck_assert_ptr_null(PQgetResult(conn));
    return res;
}

static void expect_status(ExecStatusType wanted)
{
    PGresult *res = next_result();

    ck_assert_str_eq(PQresStatus(PQresultStatus(res)), PQresStatus(wanted));
    PQclear(res);
}

static void expect_sync(void)
{
    PGresult *res = PQgetResult(conn);

    ck_assert_int_eq(PQresultStatus(res), PGRES_PIPELINE_SYNC);
    PQclear(res);
}

static long count_of(const char *table)
{
    char sql[80];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    return testdb_long(sql);
}

/* How often the direction changed from us to the server and back, so far. */
static unsigned round_trips(void)
{
    unsigned count = 0;
    char before = 'B';

    (void)fflush(trace);
    for (const char *line = trace_text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        count += before == 'F' && *line == 'B' ? 1 : 0;
        before = *line;
    }
    return count;
}

/* The names of the messages so far, in order, as one letter for each direction and one word each:
 * "F Parse Bind ... B ParseComplete ...". */
static const char *message_names(void)
{
    static char text[4096];
    size_t len = 0;
    char direction = '\0';

    (void)fflush(trace);
    text[0] = '\0';
    for (const char *line = trace_text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const char *name = strchr(line + 2, '\t') + 1;
        if (*line != direction)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%c:", len > 0 ? "\n" : "",
                                    *line);
        direction = *line;
        len += (size_t)snprintf(text + len, sizeof text - len, " %.*s", (int)strcspn(name, "\t\n"),
                                name);
        ck_assert_uint_lt(len, sizeof text);
    }
    return text;
}

#define SENT    " Parse Bind Describe Execute"
#define DONE    " ParseComplete BindComplete NoData CommandComplete"
#define A_ROW   " ParseComplete BindComplete RowDescription DataRow CommandComplete"
#define TWO_ROW " ParseComplete BindComplete RowDescription DataRow DataRow CommandComplete"

/* Everything is sent, and committed by the server, before one byte of an answer is read. */
START_TEST(order_and_job_are_begun_written_and_committed_in_one_round_trip)
{
    bool as_batch = _i == 1;
    struct outbox_job jobs[2] = {OUTBOX_JOB("send-invoice"), OUTBOX_JOB("ship")};
    size_t n = as_batch ? 2 : 1;
    int64_t ids[2] = {0, 0};
    PGresult *res;

    ck_assert_int_eq(PQenterPipelineMode(conn), 1);
    send_sql("BEGIN");
    send_sql("INSERT INTO orders VALUES (7)");
    send_jobs(jobs, n, as_batch);
    send_sql("COMMIT");
    ck_assert_int_eq(PQpipelineSync(conn), 1);
    ck_assert_int_eq(PQflush(conn), 0); /* nothing is left to be sent */
    ck_assert(wait_until(count_of("outbox.job") == (long)n, WAIT_MS));
    ck_assert_int_eq(count_of("orders"), 1);
    ck_assert_str_eq(message_names(), "F:" SENT SENT SENT SENT " Sync");

    expect_status(PGRES_COMMAND_OK);
    expect_status(PGRES_COMMAND_OK);
    res = next_result();
    ck_assert_int_eq(outbox_query_result(res, jobs, n, ids, &err), OUTBOX_OK);
    PQclear(res);
    ck_assert_int_eq(ids[n - 1], testdb_long("SELECT max(id) FROM outbox.job"));
    expect_status(PGRES_COMMAND_OK);
    expect_sync();
    ck_assert_str_eq(message_names(), as_batch ? "F:" SENT SENT SENT SENT " Sync\n"
                                                 "B:" DONE DONE TWO_ROW DONE " ReadyForQuery"
                                               : "F:" SENT SENT SENT SENT " Sync\n"
                                                 "B:" DONE DONE A_ROW DONE " ReadyForQuery");
    ck_assert_uint_eq(round_trips(), 1);
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
}
END_TEST

/* What the pipeline saves: the blocking form waits for each answer. */
START_TEST(blocking_form_takes_a_round_trip_a_statement)
{
    struct outbox_job job = OUTBOX_JOB("send-invoice");

    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "INSERT INTO orders VALUES (7)");
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    ck_assert_uint_eq(round_trips(), 4);
}
END_TEST

/* Several transactions, each with its Sync, sent before the first answer is read. */
START_TEST(many_transactions_may_share_a_round_trip)
{
    struct outbox_job job = OUTBOX_JOB("send-invoice");
    char insert[80];
    int i;

    ck_assert_int_eq(PQenterPipelineMode(conn), 1);
    for (i = 0; i < 3; i++) {
        (void)snprintf(insert, sizeof insert, "INSERT INTO orders VALUES (%d)", i == 2 ? 0 : i);
        send_sql(insert);
        send_jobs(&job, 1, false);
        ck_assert_int_eq(PQpipelineSync(conn), 1);
    }
    ck_assert_int_eq(PQflush(conn), 0);
    for (i = 0; i < 3; i++) {
        expect_status(i < 2 ? PGRES_COMMAND_OK : PGRES_FATAL_ERROR); /* order 0 is there already */
        expect_status(i < 2 ? PGRES_TUPLES_OK : PGRES_PIPELINE_ABORTED);
        expect_sync();
    }
    ck_assert_str_eq(message_names(),
                     "F:" SENT SENT " Sync" SENT SENT " Sync" SENT SENT " Sync\n"
                     "B:" DONE A_ROW " ReadyForQuery" DONE A_ROW " ReadyForQuery"
                     " ParseComplete BindComplete NoData ErrorResponse ReadyForQuery");
    ck_assert_int_eq(count_of("orders"), 2);
    ck_assert_int_eq(count_of("outbox.job"), 2);
}
END_TEST

/* What goes wrong, where; and what the server says to the four statements between BEGIN and COMMIT,
 * of which the third is the job. */
static const struct {
    const char *task;
    const char *statements[3];
    int failing; /* which of the four */
    int enqueued;
} broken[] = {
    {"t",
     {"INSERT INTO orders VALUES (7)", "INSERT INTO orders VALUES (7)", "SELECT 1"},
     1,
     OUTBOX_EABORTED},
    {"t", {"INSERT INTO nowhere VALUES (7)", "SELECT 1", "SELECT 1"}, 0, OUTBOX_EABORTED},
    {"not a name", {"INSERT INTO orders VALUES (7)", "SELECT 1", "SELECT 1"}, 2, OUTBOX_EDB},
    {"t", {"INSERT INTO orders VALUES (7)", "SELECT 1", "SELECT 1/0"}, 3, OUTBOX_OK},
};
enum { BROKEN = sizeof broken / sizeof broken[0] };

/* Sends it all, with BEGIN and COMMIT around it or without, and compares the answers. */
static void run_broken(int row, bool with_begin, bool as_batch)
{
    struct outbox_job job = OUTBOX_JOB(broken[row].task);
    int i;

    ck_assert_int_eq(PQenterPipelineMode(conn), 1);
    if (with_begin)
        send_sql("BEGIN");
    send_sql(broken[row].statements[0]);
    send_sql(broken[row].statements[1]);
    send_jobs(&job, 1, as_batch);
    send_sql(broken[row].statements[2]);
    if (with_begin)
        send_sql("COMMIT");
    ck_assert_int_eq(PQpipelineSync(conn), 1);
    if (with_begin)
        expect_status(PGRES_COMMAND_OK);
    for (i = 0; i < 4; i++) {
        PGresult *res = next_result();
        ExecStatusType status = PQresultStatus(res);
        if (i == 2)
            ck_assert_int_eq(outbox_query_result(res, &job, 1, NULL, &err), broken[row].enqueued);
        if (i == broken[row].failing)
            ck_assert_int_eq(status, PGRES_FATAL_ERROR);
        else if (i > broken[row].failing)
            ck_assert_int_eq(status, PGRES_PIPELINE_ABORTED);
        else
            ck_assert(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK);
        PQclear(res);
    }
    if (with_begin)
        expect_status(PGRES_PIPELINE_ABORTED);
    expect_sync();
    ck_assert_uint_eq(round_trips(), 1);
    ck_assert_int_eq(PQexitPipelineMode(conn), 1);
    ck_assert_int_eq(count_of("outbox.job"), 0);
    ck_assert_int_eq(count_of("orders"), 0);
}

/* The COMMIT was skipped with the rest: the transaction is open, has failed, and wants ROLLBACK. */
START_TEST(an_error_anywhere_between_begin_and_commit_leaves_nothing)
{
    struct outbox_job job = OUTBOX_JOB("t");

    run_broken(_i / 2, true, _i % 2 == 1);
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_INERROR);
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_EABORTED);
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(count_of("outbox.job"), 0);
    ck_assert_int_eq(count_of("orders"), 0);
}
END_TEST

/* The server has rolled back by the Sync. */
START_TEST(an_error_in_a_pipeline_without_begin_leaves_nothing_to_roll_back)
{
    run_broken(_i / 2, false, _i % 2 == 1);
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox_trace");
    TCase *tc = tcase_create("messages");

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, enqueue_is_one_statement_with_its_values_as_parameters);
    tcase_add_test(tc, job_without_options_has_three_parameters);
    tcase_add_test(tc, batch_is_one_statement_too);
    tcase_add_test(tc, refusals_send_nothing);
    tcase_add_test(tc, schema_check_is_one_statement);
    suite_add_tcase(s, tc);
    tc = tcase_create("in a pipeline");
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up_pipeline, tear_down_pipeline);
    tcase_add_loop_test(tc, order_and_job_are_begun_written_and_committed_in_one_round_trip, 0, 2);
    tcase_add_test(tc, blocking_form_takes_a_round_trip_a_statement);
    tcase_add_test(tc, many_transactions_may_share_a_round_trip);
    tcase_add_loop_test(tc, an_error_anywhere_between_begin_and_commit_leaves_nothing, 0,
                        2 * BROKEN);
    tcase_add_loop_test(tc, an_error_in_a_pipeline_without_begin_leaves_nothing_to_roll_back, 0,
                        2 * BROKEN);
    suite_add_tcase(s, tc);
    return s;
}
