/* What the helper sends, message by message, as libpq traces it: one statement, one round trip,
 * values as parameters, nothing prepared, and nothing at all when it refuses. */
#include <outbox/outbox.h>

#include "ck_main.h"
#include "pgcluster.h"

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

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox_trace");
    TCase *tc = tcase_create("messages");

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, enqueue_is_one_statement_with_its_values_as_parameters);
    tcase_add_test(tc, batch_is_one_statement_too);
    tcase_add_test(tc, refusals_send_nothing);
    tcase_add_test(tc, schema_check_is_one_statement);
    suite_add_tcase(s, tc);
    return s;
}
