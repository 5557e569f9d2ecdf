/* outbox.h against a real server: transactions, errors, and that what arrives is what was put in.
 *
 * Written in the common part of C99 and C++11: tests/compile builds the same file as C++ too. */
#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "ck_main.h"
#include "pgcluster.h"
#ifdef __cplusplus
}
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static PGconn *conn;
static struct outbox_payload args;
static struct outbox_error err;

static void set_up_on(void)
{
    conn = testdb_connect();
    outbox_payload_init(&args);
    memset(&err, 0, sizeof err);
}

static void set_up(void)
{
    testdb_create();
    set_up_on();
}

static void set_up_empty(void)
{
    testdb_create_empty();
    set_up_on();
}

static void tear_down(void)
{
    outbox_payload_free(&args);
    PQfinish(conn);
    testdb_drop();
}

static struct outbox_job job_of(const char *task)
{
    struct outbox_job job = OUTBOX_JOB(task);
    return job;
}

static int64_t enqueue_ok(struct outbox_job *job)
{
    int64_t id = -1;
    int rc = outbox_enqueue(conn, job, &id, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%s: %s", outbox_strerror(rc), err.message);
    ck_assert_int_gt(id, 0);
    ck_assert_int_eq(job->id, id);
    return id;
}

/* Enqueues, which must fail so; `text` has to be in the message. */
static void enqueue_fails(struct outbox_job *job, int code, const char *sqlstate, const char *text)
{
    int64_t id = -1;
    int rc = outbox_enqueue(conn, job, &id, &err);

    ck_assert_msg(rc == code, "%d instead of %d: %s", rc, code, err.message);
    ck_assert_int_eq(err.code, code);
    ck_assert_str_eq(err.sqlstate, sqlstate);
    ck_assert_msg(strstr(err.message, text) != NULL, "no \"%s\" in: %s", text, err.message);
    ck_assert_int_eq(id, -1);
}

static void many_fails(struct outbox_job *jobs, size_t n, int code, const char *sqlstate,
                       const char *text)
{
    int rc = outbox_enqueue_many(conn, jobs, n, NULL, &err);

    ck_assert_msg(rc == code, "%d instead of %d: %s", rc, code, err.message);
    ck_assert_str_eq(err.sqlstate, sqlstate);
    ck_assert_msg(strstr(err.message, text) != NULL, "no \"%s\" in: %s", text, err.message);
}

static void expect_value(const char *sql, const char *expected)
{
    const char *value = testdb_value(sql);

    ck_assert_ptr_nonnull(value);
    ck_assert_str_eq(value, expected);
}

static long jobs_count(void)
{
    return testdb_long("SELECT count(*) FROM outbox.job");
}

/* --- transactions --- */

START_TEST(job_exists_from_the_commit_on)
{
    struct outbox_job job = job_of("send-welcome-email");

    (void)outbox_put_int(&args, "user", 42);
    job.payload = &args;
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    ck_assert_int_eq(jobs_count(), 0);
    pg_exec_ok(conn, "COMMIT");
    expect_value(
        "SELECT task || ' ' || encoding || ' ' || encode(payload, 'hex') || ' ' || priority"
        " FROM outbox.job",
        "send-welcome-email msgpack 81a4757365722a 2");
    ck_assert(!job.existing);
}
END_TEST

START_TEST(rolled_back_job_never_exists)
{
    struct outbox_job job = job_of("t");

    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(savepoint_decides_about_its_own_jobs)
{
    struct outbox_job a = job_of("a");
    struct outbox_job b = job_of("b");
    struct outbox_job c = job_of("c");

    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&a);
    pg_exec_ok(conn, "SAVEPOINT s");
    (void)enqueue_ok(&b);
    pg_exec_ok(conn, "ROLLBACK TO SAVEPOINT s");
    (void)enqueue_ok(&c);
    pg_exec_ok(conn, "COMMIT");
    expect_value("SELECT string_agg(task, ',' ORDER BY id) FROM outbox.job", "a,c");
}
END_TEST

START_TEST(enqueue_outside_a_transaction_is_refused)
{
    struct outbox_job job = job_of("t");

    enqueue_fails(&job, OUTBOX_ENOTX, "", "BEGIN first");
    many_fails(&job, 1, OUTBOX_ENOTX, "", "OUTBOX_ALLOW_AUTOCOMMIT");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(autocommit_is_allowed_when_asked_for)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("t"), OUTBOX_JOB("t")};

    jobs[0].flags = OUTBOX_ALLOW_AUTOCOMMIT;
    (void)enqueue_ok(&jobs[0]);
    ck_assert_int_eq(jobs_count(), 1);
    /* a batch asks for it on every job */
    many_fails(jobs, 2, OUTBOX_ENOTX, "", "BEGIN first");
    jobs[1].flags = OUTBOX_ALLOW_AUTOCOMMIT;
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 2, NULL, &err), OUTBOX_OK);
    ck_assert_int_eq(jobs_count(), 3);
}
END_TEST

START_TEST(autocommit_flag_does_not_commit_an_open_transaction)
{
    struct outbox_job job = job_of("t");

    job.flags = OUTBOX_ALLOW_AUTOCOMMIT;
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(aborted_transaction_is_refused_and_told_to_roll_back)
{
    struct outbox_job job = job_of("t");

    pg_exec_ok(conn, "BEGIN");
    pg_exec_ok(conn, "SAVEPOINT s");
    pg_exec_fails(conn, "SELECT 1/0", "22012", NULL);
    enqueue_fails(&job, OUTBOX_EABORTED, "", "roll back first");
    many_fails(&job, 1, OUTBOX_EABORTED, "", "roll back first");
    pg_exec_ok(conn, "ROLLBACK TO SAVEPOINT s");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(jobs_count(), 1);
}
END_TEST

START_TEST(busy_connection_is_refused_and_keeps_its_results)
{
    struct outbox_job job = job_of("t");
    PGresult *res;

    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(PQsendQuery(conn, "SELECT 7"), 1);
    enqueue_fails(&job, OUTBOX_EBUSY, "", "collect its results");
    res = PQgetResult(conn);
    ck_assert_int_eq(PQresultStatus(res), PGRES_TUPLES_OK);
    ck_assert_str_eq(PQgetvalue(res, 0, 0), "7");
    PQclear(res);
    enqueue_fails(&job, OUTBOX_EBUSY, "", "collect its results"); /* the NULL at the end is due */
    ck_assert_ptr_null(PQgetResult(conn));
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(jobs_count(), 1);
}
END_TEST

START_TEST(pipeline_mode_is_refused_by_the_blocking_form)
{
    struct outbox_job job = job_of("t");

    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(PQenterPipelineMode(conn), 1);
    enqueue_fails(&job, OUTBOX_EBUSY, "", "outbox_query_init");
    ck_assert_int_eq(PQexitPipelineMode(conn), 1);
    (void)enqueue_ok(&job);
}
END_TEST

START_TEST(lost_connection_is_told_from_a_refusal)
{
    struct outbox_job job = job_of("t");
    char sql[80];

    pg_exec_ok(conn, "BEGIN");
    (void)snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d, 5000)", PQbackendPID(conn));
    testdb_exec(sql);
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, &err), OUTBOX_ECONN);
    ck_assert_str_ne(err.message, "");
    ck_assert_ptr_null(strchr(err.message, '\n'));
    enqueue_fails(&job, OUTBOX_ECONN, "", "not open");
    many_fails(&job, 1, OUTBOX_ECONN, "", "not open");
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

/* --- arguments --- */

START_TEST(missing_arguments_are_refused)
{
    struct outbox_job job = job_of("t");
    struct outbox_job nameless = job_of(NULL);
    struct outbox_query q;

    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(outbox_enqueue(NULL, &job, NULL, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_enqueue(conn, NULL, NULL, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_enqueue_many(NULL, &job, 1, NULL, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_enqueue_many(conn, NULL, 1, NULL, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_query_init(NULL, &job, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_query_init(&q, NULL, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_query_init_many(&q, &job, 0, 0, NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_check_schema(NULL, NULL), OUTBOX_EINVAL);
    enqueue_fails(&nameless, OUTBOX_EINVAL, "", "no task");
    ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, NULL), OUTBOX_OK);
    outbox_query_free(NULL);
}
END_TEST

static void set_nothing(struct outbox_job *job)
{
    job->task = "";
}
static void set_priority_5(struct outbox_job *job)
{
    job->priority = 5;
}
static void set_priority_negative(struct outbox_job *job)
{
    job->priority = -1;
}
static void set_attempts_too_many(struct outbox_job *job)
{
    job->max_attempts = 32768;
}
static void set_run_at_negative(struct outbox_job *job)
{
    job->run_at_us = -1;
}
static void set_expires_negative(struct outbox_job *job)
{
    job->expires_at_us = -1;
}
static void set_delay_negative(struct outbox_job *job)
{
    job->delay_ms = -1;
}
static void set_delay_too_long(struct outbox_job *job)
{
    job->delay_ms = INT64_MAX;
}
static void set_repeat_negative(struct outbox_job *job)
{
    job->repeat_every_ms = -1;
}
static void set_run_at_and_delay(struct outbox_job *job)
{
    job->run_at_us = 1;
    job->delay_ms = 1;
}
static void set_after_missing(struct outbox_job *job)
{
    job->after_count = 1;
}
static void set_unknown_flag(struct outbox_job *job)
{
    job->flags = 0x100;
}

static void set_headers_array(struct outbox_job *job)
{
    job->headers = " [1]";
}
static void set_headers_empty(struct outbox_job *job)
{
    job->headers = "";
}

static const struct {
    void (*set)(struct outbox_job *);
    const char *text;
} wrongs[] = {
    {set_nothing, "no task"},
    {set_priority_5, "priority"},
    {set_priority_negative, "priority"},
    {set_attempts_too_many, "max_attempts"},
    {set_run_at_negative, "run_at_us"},
    {set_expires_negative, "expires_at_us"},
    {set_delay_negative, "delay_ms"},
    {set_delay_too_long, "delay_ms"},
    {set_repeat_negative, "repeat_every_ms"},
    {set_run_at_and_delay, "together"},
    {set_after_missing, "after_count"},
    {set_unknown_flag, "flags"},
    {set_headers_array, "headers is no JSON object"},
    {set_headers_empty, "headers is no JSON object"},
};

START_TEST(wrong_option_is_refused_before_anything_is_sent)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("good"), OUTBOX_JOB("bad")};
    int i;

    pg_exec_ok(conn, "BEGIN");
    for (i = 0; i < COUNT(wrongs); i++) {
        jobs[1] = job_of("bad");
        wrongs[i].set(&jobs[1]);
        enqueue_fails(&jobs[1], OUTBOX_EINVAL, "", wrongs[i].text);
        many_fails(jobs, 2, OUTBOX_EINVAL, "", wrongs[i].text);
        ck_assert_int_eq(strncmp(err.message, "jobs[1]: ", 9), 0);
    }
    (void)enqueue_ok(&jobs[0]); /* the transaction is as it was */
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(jobs_count(), 1);
}
END_TEST

START_TEST(payload_error_is_reported_by_enqueue)
{
    struct outbox_job job = job_of("t");

    (void)outbox_put_str(&args, "name", "\xff");
    job.payload = &args;
    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_EINVAL, "", "payload: text is not UTF-8");
    outbox_payload_clear(&args);
    (void)outbox_put_str(&args, "name", "\xc3\xbf");
    (void)enqueue_ok(&job);
}
END_TEST

/* --- what arrives --- */

START_TEST(absent_and_empty_payloads_are_an_empty_object)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("a"), OUTBOX_JOB("b")};

    jobs[1].payload = &args;
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&jobs[0]);
    (void)enqueue_ok(&jobs[1]);
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 2, NULL, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    ck_assert_int_eq(jobs_count(), 4);
    expect_value("SELECT string_agg(DISTINCT encoding || ' ' || convert_from(payload, 'UTF8'), ';')"
                 " FROM outbox.job",
                 "json {}");
}
END_TEST

START_TEST(bytes_with_nuls_arrive_unchanged)
{
    struct outbox_job jobs[1] = {OUTBOX_JOB("t")};
    char all[256];
    PGresult *res;
    size_t len;
    const char *bytes;
    int i;

    for (i = 0; i < 256; i++) {
        all[i] = (char)i;
    }
    (void)outbox_put_bin(&args, "bin", all, sizeof all);
    (void)outbox_put_strn(&args, "str", "a\0b", 3);
    jobs[0].payload = &args;
    bytes = outbox_payload_bytes(&args, &len);
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&jobs[0]);
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 1, NULL, &err), OUTBOX_OK);
    res = PQexecParams(conn, "SELECT payload FROM outbox.job", 0, NULL, NULL, NULL, NULL, 1);
    ck_assert_int_eq(PQntuples(res), 2);
    for (i = 0; i < 2; i++) {
        ck_assert_uint_eq((size_t)PQgetlength(res, i, 0), len);
        ck_assert_int_eq(memcmp(PQgetvalue(res, i, 0), bytes, len), 0);
    }
    PQclear(res);
}
END_TEST

START_TEST(payload_of_16_mib_is_stored_whole)
{
    struct outbox_job job = job_of("t");
    size_t len = OUTBOX_PAYLOAD_BYTES_MAX - 8;
    char *big = (char *)malloc(len);

    ck_assert_ptr_nonnull(big);
    memset(big, 'x', len);
    big[len - 1] = 'y';
    ck_assert_int_eq(outbox_put_bin(&args, "k", big, len), OUTBOX_OK);
    free(big);
    job.payload = &args;
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "COMMIT");
    expect_value(
        "SELECT octet_length(payload) || ' ' || encode(substr(payload, 16777215), 'escape')"
        " FROM outbox.job",
        "16777216 xy");
}
END_TEST

START_TEST(json_text_is_stored_as_it_is_and_checked)
{
    struct outbox_job job = job_of("t");
    static const char good[] = " {\"a\": [1, null], \"a\": \"\\u00e9\"}";

    ck_assert_int_eq(outbox_payload_set_json(&args, good, sizeof good - 1), OUTBOX_OK);
    job.payload = &args;
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "COMMIT");
    expect_value("SELECT encoding || convert_from(payload, 'UTF8') FROM outbox.job",
                 "json {\"a\": [1, null], \"a\": \"\\u00e9\"}");
    outbox_payload_clear(&args);
    ck_assert_int_eq(outbox_payload_set_json(&args, "{oops", 5), OUTBOX_OK);
    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_EDB, "22P02", "not JSON");
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_INERROR);
    pg_exec_ok(conn, "ROLLBACK");
    outbox_payload_clear(&args);
    ck_assert_int_eq(outbox_payload_set_json(&args, "\"\xff\"", 3), OUTBOX_OK);
    pg_exec_ok(conn, "BEGIN");
    many_fails(&job, 1, OUTBOX_EDB, "22P02", "jobs[0]");
}
END_TEST

START_TEST(options_take_effect_in_both_forms)
{
    struct outbox_job jobs[1] = {OUTBOX_JOB("t")};

    jobs[0].priority = 4;
    jobs[0].max_attempts = 7;
    jobs[0].run_at_us = INT64_C(4102444800123456);     /* 2100-01-01 */
    jobs[0].expires_at_us = INT64_C(4133980799999999); /* the end of that year */
    jobs[0].headers = "{\"traceparent\": \"00-ab\"}";
    pg_exec_ok(conn, "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/New_York'");
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&jobs[0]);
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 1, NULL, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    expect_value("SELECT string_agg(concat_ws(' ', priority, max_attempts,"
                 " to_char(run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),"
                 " to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),"
                 " headers::jsonb->>'traceparent'), ';') FROM outbox.job",
                 "4 7 2100-01-01 00:00:00.123456 2100-12-31 23:59:59.999999 00-ab;"
                 "4 7 2100-01-01 00:00:00.123456 2100-12-31 23:59:59.999999 00-ab");
}
END_TEST

START_TEST(delay_counts_from_now_in_both_forms)
{
    struct outbox_job jobs[1] = {OUTBOX_JOB("t")};

    jobs[0].delay_ms = INT64_C(90061001); /* a day, an hour, a minute, a second, a millisecond */
    pg_exec_ok(conn, "SET IntervalStyle = 'sql_standard'");
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&jobs[0]);
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 1, NULL, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    expect_value("SELECT string_agg(extract(epoch FROM run_at - created_at)::text, ' ')"
                 " FROM outbox.job",
                 "90061.001000 90061.001000");
}
END_TEST

/* One of each, singly and in an array. */
START_TEST(options_about_other_jobs_arrive)
{
    struct outbox_job job = job_of("t");
    int64_t parent;
    int64_t after[1];

    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(outbox_enqueue(conn, &job, &parent, NULL), OUTBOX_OK);
    after[0] = parent;
    job.key = "k";
    job.unique_key = "u";
    job.repeat_every_ms = 60000;
    job.after = after;
    job.after_count = 1;
    job.on_failed_dependency = "run";
    job.notify_done = true;
    if (_i == 0)
        ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, NULL), OUTBOX_OK);
    else
        ck_assert_int_eq(outbox_enqueue_many(conn, &job, 1, NULL, NULL), OUTBOX_OK);
    ck_assert(!job.existing);
    pg_exec_ok(conn, "COMMIT");
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', key, unique_key, repeat_every, unmet, "
                                  "runs_anyway, notify_done) FROM outbox.job WHERE key = 'k'"),
                     "k u 00:01:00 1 t t");
    pg_exec_ok(conn, "BEGIN");
    if (_i == 0)
        ck_assert_int_eq(outbox_enqueue(conn, &job, NULL, NULL), OUTBOX_OK);
    else
        ck_assert_int_eq(outbox_enqueue_many(conn, &job, 1, NULL, NULL), OUTBOX_OK);
    ck_assert(job.existing);
    pg_exec_ok(conn, "COMMIT");
}
END_TEST

static void set_all(struct outbox_job *job)
{
    static const int64_t after[] = {1, -2, INT64_MAX};

    job->key = "k\"\\\n\x01\x7f \xc3\xa9";
    job->unique_key = "u";
    job->priority = 3;
    job->max_attempts = 32767;
    job->run_at_us = INT64_C(951782399000001); /* 2000-02-28 23:59:59.000001 */
    job->delay_ms = 0;
    job->expires_at_us = INT64_C(951868799000001);  /* the 29th */
    job->repeat_every_ms = INT64_C(31557600000000); /* 1000 years */
    job->headers = "{\"a\": \"]}\\\"\"}";
    job->after = after;
    job->after_count = 3;
    job->on_failed_dependency = "run";
    job->notify_done = true;
}

START_TEST(parameters_mean_what_the_job_says)
{
    struct outbox_job job = job_of("t");
    struct outbox_query q;
    PGresult *res;
    int i;
    static const char *const expected[] = {"t",
                                           "\\x7b7d",
                                           "json",
                                           "k\"\\\n\x01\x7f \xc3\xa9",
                                           "u",
                                           "3",
                                           "2000-02-28 23:59:59.000001+00",
                                           "",
                                           "2000-02-29 23:59:59.000001+00",
                                           "32767",
                                           "{\"a\": \"]}\\\"\"}",
                                           "8766000:00:00",
                                           "{1,-2,9223372036854775807}",
                                           "run",
                                           "t"};

    set_all(&job);
    ck_assert_int_eq(outbox_query_init(&q, &job, &err), OUTBOX_OK);
    ck_assert_int_eq(q.nparams, 15);
    pg_exec_ok(conn, "SET TimeZone = 'UTC'");
    res = PQexecParams(conn, "SELECT $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15", q.nparams,
                       q.types, q.values, q.lengths, q.formats, 0);
    outbox_query_free(&q);
    ck_assert_msg(PQresultStatus(res) == PGRES_TUPLES_OK, "%s", PQerrorMessage(conn));
    for (i = 0; i < 15; i++) {
        ck_assert_str_eq(PQgetvalue(res, 0, i), expected[i]);
    }
    ck_assert_int_eq(PQgetisnull(res, 0, 7), 1);
    PQclear(res);
}
END_TEST

START_TEST(batch_json_means_what_the_job_says)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("t"), OUTBOX_JOB("plain")};
    struct outbox_query q;
    PGresult *res;

    set_all(&jobs[0]);
    ck_assert_int_eq(outbox_query_init_many(&q, jobs, 2, PQclientEncoding(conn), &err), OUTBOX_OK);
    pg_exec_ok(conn, "SET TimeZone = 'UTC'");
    res = PQexecParams(
        conn,
        "SELECT $1->0->>'key', ($1->0) - 'key' = '{\"task\": \"t\", \"encoding\": \"json\","
        "\"unique_key\": \"u\", \"priority\": 3, \"max_attempts\": 32767,"
        "\"run_at\": \"2000-02-28T23:59:59.000001Z\", \"expires_at\": "
        "\"2000-02-29T23:59:59.000001Z\","
        "\"repeat_every\": \"8766000:00:00.000\", \"after\": [1, -2, 9223372036854775807],"
        "\"on_failed_dependency\": \"run\", \"notify_done\": true, \"headers\": {\"a\": "
        "\"]}\\\"\"}}',"
        "$1->1, $2::text, ($1->0->>'repeat_every')::interval = interval '8766000:00:00'",
        q.nparams, q.types, q.values, q.lengths, q.formats, 0);
    outbox_query_free(&q);
    ck_assert_msg(PQresultStatus(res) == PGRES_TUPLES_OK, "%s", PQerrorMessage(conn));
    ck_assert_str_eq(PQgetvalue(res, 0, 0), jobs[0].key);
    ck_assert_str_eq(PQgetvalue(res, 0, 1), "t");
    ck_assert_str_eq(PQgetvalue(res, 0, 2), "{\"task\": \"plain\", \"encoding\": \"json\"}");
    ck_assert_str_eq(PQgetvalue(res, 0, 3), "{\"\\\\x7b7d\",\"\\\\x7b7d\"}");
    ck_assert_str_eq(PQgetvalue(res, 0, 4), "t");
    PQclear(res);
}
END_TEST

static const int64_t times_us[] = {
    1,
    INT64_C(951782400000000),     /* 2000-02-29 */
    INT64_C(951868800000000),     /* 2000-03-01 */
    INT64_C(978307199999999),     /* the last microsecond of 2000 */
    INT64_C(1709164800000000),    /* 2024-02-29 */
    INT64_C(1735689600000000),    /* 2025-01-01 */
    INT64_C(4107542399999999),    /* 2100-02-28, no leap year */
    INT64_C(253402300799999999),  /* the last of 9999 */
    INT64_C(253402300800000000),  /* a year of five digits */
    INT64_C(9000000000000000000), /* 287167 */
};

START_TEST(batch_writes_any_time_exactly)
{
    struct outbox_job job = job_of("t");
    struct outbox_query q;
    char sql[256];
    PGresult *res;
    int i;

    for (i = 0; i < COUNT(times_us); i++) {
        job.run_at_us = times_us[i];
        ck_assert_int_eq(outbox_query_init_many(&q, &job, 1, 0, &err), OUTBOX_OK);
        (void)snprintf(sql, sizeof sql,
                       "SELECT ($1->0->>'run_at')::timestamptz = 'epoch'::timestamptz"
                       " + %lld * interval '1 second' + %lld * interval '1 microsecond',"
                       " $1::text, $2",
                       (long long)(times_us[i] / 1000000), (long long)(times_us[i] % 1000000));
        res = PQexecParams(conn, sql, 2, q.types, q.values, q.lengths, q.formats, 0);
        outbox_query_free(&q);
        ck_assert_msg(PQresultStatus(res) == PGRES_TUPLES_OK, "%s", PQerrorMessage(conn));
        ck_assert_msg(*PQgetvalue(res, 0, 0) == 't', "%s", PQgetvalue(res, 0, 1));
        PQclear(res);
    }
}
END_TEST

/* --- text --- */

START_TEST(bad_utf8_is_refused_by_the_server_with_its_code)
{
    struct outbox_job jobs[1] = {OUTBOX_JOB("caf\xe9")};

    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&jobs[0], OUTBOX_EDB, "22021", "");
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(conn, "BEGIN");
    many_fails(jobs, 1, OUTBOX_EDB, "22021", "");
}
END_TEST

static const struct {
    const char *encoding;
    const char *headers; /* {"k": "..."} in that encoding */
    const char *codes;   /* what arrives, as code points */
} encodings[] = {
    {"UTF8", "{\"k\": \"\xe3\x82\xbd\\\\\"}", "12477 92"},
    {"LATIN1", "{\"k\": \"\xe9\\\"\"}", "233 34"},
    {"SJIS", "{\"k\": \"\x83\x5c\"}", "12477"}, /* the second byte looks like a backslash */
    {"SJIS", "{\"k\": \"\x83\x7d\"}", "12510"}, /* ... like a closing brace */
    {"GBK", "{\"k\": \"\x81\x5c\\\\\"}", "20055 92"},
    {"GB18030", "{\"k\": \"\x81\x30\x81\x30\"}", "128"},
};

START_TEST(text_is_in_the_client_encoding_in_both_forms)
{
    char expected[64];
    int i;

    for (i = 0; i < COUNT(encodings); i++) {
        struct outbox_job jobs[1] = {OUTBOX_JOB("t")};
        jobs[0].headers = encodings[i].headers;
        ck_assert_int_eq(PQsetClientEncoding(conn, encodings[i].encoding), 0);
        pg_exec_ok(conn, "BEGIN; DELETE FROM outbox.job");
        (void)enqueue_ok(&jobs[0]);
        ck_assert_msg(outbox_enqueue_many(conn, jobs, 1, NULL, &err) == OUTBOX_OK, "%s",
                      err.message);
        pg_exec_ok(conn, "COMMIT");
        (void)snprintf(expected, sizeof expected, "%s;%s", encodings[i].codes, encodings[i].codes);
        expect_value("SELECT string_agg((SELECT string_agg(ascii(c)::text, ' ')"
                     " FROM regexp_split_to_table(headers::jsonb->>'k', '') c), ';')"
                     " FROM outbox.job",
                     expected);
    }
}
END_TEST

/* What the batch's JSON is made of must not reach out of its place. */
static const char *const bad_headers[] = {
    "",
    "null",
    "[]",
    "{",
    "{}}",
    "{}, \"task\": \"evil\"",
    "{}},{\"task\": \"evil\"",
    "{\"a\": \"}",
    "{\"a\": \"\\\"}",
    "{\"a\": \"\\",
    "{\"a\": {}",
    "  {} x",
};

START_TEST(headers_that_are_no_object_are_refused_in_a_batch)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("t"), OUTBOX_JOB("t")};
    int i;

    pg_exec_ok(conn, "BEGIN");
    for (i = 0; i < COUNT(bad_headers); i++) {
        jobs[1].headers = bad_headers[i];
        many_fails(jobs, 2, OUTBOX_EINVAL, "", "jobs[1]: headers is no JSON object");
    }
    jobs[1].headers = " {\"a\": {\"}\": [\"\\\\\"]}} \n";
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, 2, NULL, &err), OUTBOX_OK);
}
END_TEST

START_TEST(headers_that_are_not_json_are_refused_by_the_server)
{
    struct outbox_job jobs[1] = {OUTBOX_JOB("t")};

    jobs[0].headers = "{]";
    pg_exec_ok(conn, "BEGIN");
    many_fails(jobs, 1, OUTBOX_EDB, "22P02", "");
    pg_exec_ok(conn, "ROLLBACK");
    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&jobs[0], OUTBOX_EDB, "22P02", "");
}
END_TEST

/* --- batch --- */

START_TEST(batch_of_none_sends_nothing)
{
    ck_assert_int_eq(outbox_enqueue_many(conn, NULL, 0, NULL, &err), OUTBOX_OK);
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
}
END_TEST

enum { BATCH = 1000 };

START_TEST(batch_keeps_its_order)
{
    static struct outbox_job jobs[BATCH];
    static struct outbox_payload payloads[BATCH];
    static int64_t ids[BATCH];
    PGresult *res;
    int i;

    for (i = 0; i < BATCH; i++) {
        jobs[i] = job_of(i % 2 ? "odd" : "even");
        outbox_payload_init(&payloads[i]);
        (void)outbox_put_int(&payloads[i], NULL, i % 100);
        jobs[i].payload = &payloads[i];
    }
    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(outbox_enqueue_many(conn, jobs, BATCH, ids, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    res = pg_query(conn, PGRES_TUPLES_OK,
                   "SELECT id, task, get_byte(payload, 0) FROM outbox.job ORDER BY id");
    ck_assert_int_eq(PQntuples(res), BATCH);
    for (i = 0; i < BATCH; i++) {
        ck_assert_int_eq(strtoll(PQgetvalue(res, i, 0), NULL, 10), ids[i]);
        ck_assert_int_eq(jobs[i].id, ids[i]);
        ck_assert_str_eq(PQgetvalue(res, i, 1), jobs[i].task);
        ck_assert_int_eq(strtol(PQgetvalue(res, i, 2), NULL, 10), i % 100);
        outbox_payload_free(&payloads[i]);
    }
    PQclear(res);
}
END_TEST

START_TEST(batch_is_all_or_none)
{
    struct outbox_job jobs[3] = {OUTBOX_JOB("good"), OUTBOX_JOB("not a task name"),
                                 OUTBOX_JOB("good")};

    pg_exec_ok(conn, "BEGIN");
    many_fails(jobs, 3, OUTBOX_EDB, "22023", "jobs[1]: not a task name");
    pg_exec_ok(conn, "COMMIT"); /* which the server turns into a rollback */
    ck_assert_int_eq(jobs_count(), 0);
    ck_assert_int_eq(jobs[0].id, 0);
}
END_TEST

START_TEST(batch_over_1_gb_is_refused_before_anything_is_sent)
{
    static struct outbox_job jobs[64];
    struct outbox_job small = job_of("t");
    size_t len = OUTBOX_PAYLOAD_BYTES_MAX - 8;
    char *big = (char *)calloc(1, len);
    int i;

    ck_assert_ptr_nonnull(big);
    ck_assert_int_eq(outbox_put_bin(&args, "k", big, len), OUTBOX_OK);
    free(big);
    for (i = 0; i < 64; i++) {
        jobs[i] = job_of("t");
        jobs[i].payload = &args;
    }
    pg_exec_ok(conn, "BEGIN");
    many_fails(jobs, 64, OUTBOX_ETOOBIG, "", "1 GB");
    (void)enqueue_ok(&small);
}
END_TEST

/* --- the server refuses --- */

START_TEST(refusal_carries_sqlstate_message_and_hint)
{
    struct outbox_job job = job_of("not a task name");

    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_EDB, "22023", "A task name has 1 to 128 characters");
    ck_assert_ptr_nonnull(strstr(err.message, "not a task name: "));
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_INERROR);
}
END_TEST

START_TEST(long_message_is_cut_between_characters)
{
    char task[420] = "";
    struct outbox_job job = job_of(task);
    size_t len;
    size_t i;

    for (i = 0; i + 2 < sizeof task - 1; i += 2) {
        memcpy(task + i, "\xc3\xa9", 3);
    }
    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_EDB, "22023", "\xc3\xa9");
    len = strlen(err.message);
    ck_assert_uint_ge(len, sizeof err.message - 4);
    ck_assert(outbox_priv_is_utf8(err.message, len));
}
END_TEST

START_TEST(missing_schema_says_migrate)
{
    struct outbox_job job = job_of("t");

    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_ESCHEMA, "3F000", "`outbox migrate`");
    pg_exec_ok(conn, "ROLLBACK");
    ck_assert_int_eq(outbox_check_schema(conn, &err), OUTBOX_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.message, "`outbox migrate`"));
    pg_exec_ok(conn, "CREATE SCHEMA outbox");
    pg_exec_ok(conn, "BEGIN");
    many_fails(&job, 1, OUTBOX_ESCHEMA, "42883", "`outbox migrate`");
}
END_TEST

START_TEST(schema_level_is_compared_both_ways)
{
    ck_assert_msg(outbox_check_schema(conn, &err) == OUTBOX_OK, "%s", err.message);
    pg_exec_ok(conn, "BEGIN");
    ck_assert_int_eq(outbox_check_schema(conn, &err), OUTBOX_OK);
    pg_exec_ok(conn, "COMMIT");
    testdb_exec("CREATE OR REPLACE FUNCTION outbox.level(OUT level integer, OUT min_level integer)"
                " LANGUAGE sql AS 'SELECT 9, 2'");
    ck_assert_int_eq(outbox_check_schema(conn, &err), OUTBOX_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.message, "older outbox.h"));
    testdb_exec("CREATE OR REPLACE FUNCTION outbox.level(OUT level integer, OUT min_level integer)"
                " LANGUAGE sql AS 'SELECT 0, 0'");
    ck_assert_int_eq(outbox_check_schema(conn, &err), OUTBOX_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.message, "outbox migrate"));
}
END_TEST

START_TEST(missing_grant_is_named)
{
    struct outbox_job job = job_of("t");
    PGconn *own = conn;

    testdb_exec("DROP ROLE IF EXISTS app");
    testdb_exec("CREATE ROLE app LOGIN");
    conn = testdb_connect_as("app");
    pg_exec_ok(conn, "BEGIN");
    enqueue_fails(&job, OUTBOX_EPRIVILEGE, "42501", "`outbox grant --producer app`");
    pg_exec_ok(conn, "ROLLBACK");
    testdb_exec("GRANT USAGE ON SCHEMA outbox TO app");
    pg_exec_ok(conn, "BEGIN");
    many_fails(&job, 1, OUTBOX_EPRIVILEGE, "42501", "enqueue_many");
    pg_exec_ok(conn, "ROLLBACK");
    testdb_exec("GRANT EXECUTE ON FUNCTION outbox.enqueue_plain TO app");
    pg_exec_ok(conn, "BEGIN");
    (void)enqueue_ok(&job);
    pg_exec_ok(conn, "COMMIT");
    PQfinish(conn);
    conn = own;
    testdb_exec("REVOKE ALL ON SCHEMA outbox FROM app;"
                "REVOKE ALL ON FUNCTION outbox.enqueue_plain FROM app; DROP ROLE app");
}
END_TEST

START_TEST(read_only_transaction_is_the_servers_refusal)
{
    struct outbox_job job = job_of("t");

    pg_exec_ok(conn, "BEGIN READ ONLY");
    enqueue_fails(&job, OUTBOX_EDB, "25006", "");
}
END_TEST

START_TEST(every_code_has_its_text)
{
    int a;
    int b;

    for (a = OUTBOX_OK; a >= OUTBOX_ETIMEOUT; a--) {
        ck_assert_str_ne(outbox_strerror(a), outbox_strerror(1));
        for (b = OUTBOX_OK; b > a; b--) {
            ck_assert_str_ne(outbox_strerror(a), outbox_strerror(b));
        }
    }
    ck_assert_str_eq(outbox_strerror(OUTBOX_ETIMEOUT - 1), outbox_strerror(1));
}
END_TEST

/* --- query form --- */

START_TEST(query_form_works_in_either_result_format)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("a"), OUTBOX_JOB("b")};
    struct outbox_query q;
    int64_t ids[2] = {0, 0};
    PGresult *res;

    ck_assert_int_eq(outbox_query_init_many(&q, jobs, 2, 0, &err), OUTBOX_OK);
    ck_assert_int_eq(
        PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, _i), 1);
    outbox_query_free(&q);
    outbox_query_free(&q);
    res = PQgetResult(conn);
    ck_assert_msg(outbox_query_result(res, jobs, 2, ids, &err) == OUTBOX_OK, "%s", err.message);
    ck_assert_int_eq(outbox_query_result(res, NULL, 1, NULL, &err), OUTBOX_EDB); /* not one row */
    PQclear(res);
    ck_assert_ptr_null(PQgetResult(conn));
    ck_assert_int_gt(ids[0], 0);
    ck_assert_int_eq(ids[1], ids[0] + 1);
    ck_assert_int_eq(jobs[1].id, ids[1]);
    ck_assert(!jobs[1].existing);
    ck_assert_int_eq(testdb_long("SELECT min(id) FROM outbox.job"), ids[0]);
}
END_TEST

START_TEST(query_form_works_without_the_parameter_types)
{
    struct outbox_job job = job_of("a");
    struct outbox_query q;
    PGresult *res;

    job.delay_ms = 1000;
    ck_assert_int_eq(outbox_query_init(&q, &job, &err), OUTBOX_OK);
    res = PQexecParams(conn, q.sql, q.nparams, NULL, q.values, q.lengths, q.formats, 0);
    outbox_query_free(&q);
    ck_assert_msg(outbox_query_result(res, &job, 1, NULL, &err) == OUTBOX_OK, "%s", err.message);
    PQclear(res);
}
END_TEST

START_TEST(existing_job_is_told_from_a_new_one)
{
    struct outbox_job jobs[2] = {OUTBOX_JOB("a"), OUTBOX_JOB("a")};
    PGresult *res;
    int format;

    for (format = 0; format < 2; format++) {
        res = PQexecParams(conn,
                           "SELECT id, existing FROM (VALUES (7::int8, true), (8, false))"
                           " AS v(id, existing)",
                           0, NULL, NULL, NULL, NULL, format);
        jobs[0].existing = false;
        jobs[1].existing = true;
        ck_assert_int_eq(outbox_query_result(res, jobs, 2, NULL, &err), OUTBOX_OK);
        ck_assert_int_eq(jobs[0].id, 7);
        ck_assert(jobs[0].existing);
        ck_assert(!jobs[1].existing);
        PQclear(res);
    }
}
END_TEST

START_TEST(pipeline_reports_what_failed_and_what_was_skipped)
{
    struct outbox_job jobs[3] = {OUTBOX_JOB("a"), OUTBOX_JOB("not a task name"), OUTBOX_JOB("c")};
    static const int expected[3] = {OUTBOX_OK, OUTBOX_EDB, OUTBOX_EABORTED};
    struct outbox_query q;
    PGresult *res;
    int i;

    ck_assert_int_eq(PQenterPipelineMode(conn), 1);
    for (i = 0; i < 3; i++) {
        ck_assert_int_eq(outbox_query_init(&q, &jobs[i], &err), OUTBOX_OK);
        ck_assert_int_eq(
            PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0),
            1);
        outbox_query_free(&q);
    }
    ck_assert_int_eq(PQpipelineSync(conn), 1);
    for (i = 0; i < 3; i++) {
        res = PQgetResult(conn);
        ck_assert_int_eq(outbox_query_result(res, &jobs[i], 1, NULL, &err), expected[i]);
        PQclear(res);
        ck_assert_ptr_null(PQgetResult(conn));
    }
    res = PQgetResult(conn);
    ck_assert_int_eq(PQresultStatus(res), PGRES_PIPELINE_SYNC);
    PQclear(res);
    ck_assert_int_eq(PQexitPipelineMode(conn), 1);
    ck_assert_int_eq(jobs_count(), 0);
}
END_TEST

START_TEST(failed_transaction_is_eaborted_in_the_query_form_too)
{
    struct outbox_job job = job_of("a");
    struct outbox_query q;
    PGresult *res;

    pg_exec_ok(conn, "BEGIN");
    pg_exec_fails(conn, "SELECT 1/0", "22012", NULL);
    ck_assert_int_eq(outbox_query_init(&q, &job, &err), OUTBOX_OK);
    res = PQexecParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0);
    outbox_query_free(&q);
    ck_assert_int_eq(outbox_query_result(res, &job, 1, NULL, &err), OUTBOX_EABORTED);
    ck_assert_str_eq(err.sqlstate, "25P02");
    PQclear(res);
    ck_assert_int_eq(outbox_query_result(NULL, &job, 1, NULL, &err), OUTBOX_EDB);
}
END_TEST

static TCase *add_tcase(Suite *s, const char *name, void (*set_up_each)(void))
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, set_up_each, tear_down);
    suite_add_tcase(s, tc);
    return tc;
}

static void add_arriving(Suite *s)
{
    TCase *tc = add_tcase(s, "what arrives", set_up);

    tcase_add_test(tc, absent_and_empty_payloads_are_an_empty_object);
    tcase_add_test(tc, bytes_with_nuls_arrive_unchanged);
    tcase_add_test(tc, payload_of_16_mib_is_stored_whole);
    tcase_add_test(tc, json_text_is_stored_as_it_is_and_checked);
    tcase_add_test(tc, options_take_effect_in_both_forms);
    tcase_add_test(tc, delay_counts_from_now_in_both_forms);
    tcase_add_loop_test(tc, options_about_other_jobs_arrive, 0, 2);
    tcase_add_test(tc, parameters_mean_what_the_job_says);
    tcase_add_test(tc, batch_json_means_what_the_job_says);
    tcase_add_test(tc, batch_writes_any_time_exactly);
    tcase_add_test(tc, bad_utf8_is_refused_by_the_server_with_its_code);
    tcase_add_test(tc, text_is_in_the_client_encoding_in_both_forms);
    tcase_add_test(tc, headers_that_are_no_object_are_refused_in_a_batch);
    tcase_add_test(tc, headers_that_are_not_json_are_refused_by_the_server);
}

static void add_errors(Suite *s)
{
    TCase *tc = add_tcase(s, "errors", set_up);

    tcase_add_test(tc, missing_arguments_are_refused);
    tcase_add_test(tc, wrong_option_is_refused_before_anything_is_sent);
    tcase_add_test(tc, payload_error_is_reported_by_enqueue);
    tcase_add_test(tc, refusal_carries_sqlstate_message_and_hint);
    tcase_add_test(tc, long_message_is_cut_between_characters);
    tcase_add_test(tc, schema_level_is_compared_both_ways);
    tcase_add_test(tc, missing_grant_is_named);
    tcase_add_test(tc, read_only_transaction_is_the_servers_refusal);
    tcase_add_test(tc, every_code_has_its_text);
    tc = add_tcase(s, "without the schema", set_up_empty);
    tcase_add_test(tc, missing_schema_says_migrate);
}

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox");
    TCase *tc = add_tcase(s, "transactions", set_up);

    tcase_add_test(tc, job_exists_from_the_commit_on);
    tcase_add_test(tc, rolled_back_job_never_exists);
    tcase_add_test(tc, savepoint_decides_about_its_own_jobs);
    tcase_add_test(tc, enqueue_outside_a_transaction_is_refused);
    tcase_add_test(tc, autocommit_is_allowed_when_asked_for);
    tcase_add_test(tc, autocommit_flag_does_not_commit_an_open_transaction);
    tcase_add_test(tc, aborted_transaction_is_refused_and_told_to_roll_back);
    tcase_add_test(tc, busy_connection_is_refused_and_keeps_its_results);
    tcase_add_test(tc, pipeline_mode_is_refused_by_the_blocking_form);
    tcase_add_test(tc, lost_connection_is_told_from_a_refusal);
    add_arriving(s);
    add_errors(s);
    tc = add_tcase(s, "batch", set_up);
    tcase_add_test(tc, batch_of_none_sends_nothing);
    tcase_add_test(tc, batch_keeps_its_order);
    tcase_add_test(tc, batch_is_all_or_none);
    tcase_add_test(tc, batch_over_1_gb_is_refused_before_anything_is_sent);
    tc = add_tcase(s, "query form", set_up);
    tcase_add_loop_test(tc, query_form_works_in_either_result_format, 0, 2);
    tcase_add_test(tc, query_form_works_without_the_parameter_types);
    tcase_add_test(tc, existing_job_is_told_from_a_new_one);
    tcase_add_test(tc, pipeline_reports_what_failed_and_what_was_skipped);
    tcase_add_test(tc, failed_transaction_is_eaborted_in_the_query_form_too);
    return s;
}
