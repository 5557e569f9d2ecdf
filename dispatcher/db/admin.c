/* admin.c - the commands' questions to the database: see admin.h. Connecting is in admin_connect.c.
 */
#include "db/admin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/mem.h"
#include "db/admin_conn.h"
#include "db/admin_filter.h"

struct admin_rows {
    PGresult *res;
};

size_t admin_count(const struct admin_rows *rows)
{
    return (size_t)PQntuples(rows->res);
}

const char *admin_text(const struct admin_rows *rows, size_t row, int column)
{
    ob_assert(rows != NULL);
    return PQgetisnull(rows->res, (int)row, column) ? NULL
                                                    : PQgetvalue(rows->res, (int)row, column);
}

size_t admin_length(const struct admin_rows *rows, size_t row, int column)
{
    return (size_t)PQgetlength(rows->res, (int)row, column);
}

int64_t admin_int(const struct admin_rows *rows, size_t row, int column, int64_t if_null)
{
    const char *text = admin_text(rows, row, column);
    return text != NULL ? strtoll(text, NULL, 10) : if_null;
}

bool admin_bool(const struct admin_rows *rows, size_t row, int column)
{
    const char *text = admin_text(rows, row, column);
    return text != NULL && text[0] == 't';
}

void admin_rows_free(struct admin_rows *rows)
{
    if (rows == NULL)
        return;
    PQclear(rows->res);
    ob_free(rows);
}

/* Runs one statement. ORDER BY needs qualified columns: a bare name is the output column, which is
 * text. Every column of `sql` is text or bytea, so that the binary format yields strings (with
 * libpq's own NUL behind them) and raw bytes at once. */
static int query(struct admin *a, enum admin_right right, const char *sql, int nparams,
                 const char *const *values, const int *lengths, const int *formats,
                 struct admin_rows **ret_rows, struct admin_error *reterr)
{
    PGresult *res = PQexecParams(a->conn, sql, nparams, NULL, values, lengths, formats, 1);
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        admin_error_from_result(a, res, reterr);
        reterr->right = right;
        PQclear(res);
        return reterr->err;
    }
    struct admin_rows *rows = ob_xcalloc(1, sizeof *rows);
    rows->res = res;
    *ret_rows = rows;
    return 0;
}

int admin_query(struct admin *a, enum admin_right right, const char *sql, int nparams,
                const char *const *values, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    return query(a, right, sql, nparams, values, NULL, NULL, ret_rows, reterr);
}

int admin_query_number(struct admin *a, enum admin_right right, const char *sql, int nparams,
                       const char *const *values, int64_t *ret_number, struct admin_error *reterr)
{
    struct admin_rows *rows = NULL;
    int err = admin_query(a, right, sql, nparams, values, &rows, reterr);
    if (err != 0)
        return err;
    *ret_number = admin_int(rows, 0, 0, 0);
    admin_rows_free(rows);
    return 0;
}

int admin_level(struct admin *a, int *ret_level, int *ret_min_level, struct admin_error *reterr)
{
    struct admin_rows *rows = NULL;
    int err =
        admin_query(a, ADMIN_READER, "SELECT level::text, min_level::text FROM outbox.level()", 0,
                    NULL, &rows, reterr);
    if (err != 0)
        return err;
    *ret_level = (int)admin_int(rows, 0, 0, 0);
    *ret_min_level = (int)admin_int(rows, 0, 1, 0);
    admin_rows_free(rows);
    return 0;
}

int admin_enqueue(struct admin *a, const struct admin_job *job, int64_t *ret_id, bool *ret_existing,
                  struct admin_error *reterr)
{
    static const char sql[] =
        "SELECT id::text, existing::text FROM outbox.enqueue_bytes(task => $1::text, payload => "
        "$2::bytea,"
        " encoding => $3::text, priority => coalesce($4::integer, 2), max_attempts => $5::integer,"
        " delay => $6::interval, run_at => $7::timestamptz, expires_at => $8::timestamptz,"
        " headers => $9::jsonb, key => $10::text, unique_key => $11::text, repeat_every => "
        "$12::interval,"
        " after => $13::bigint[], on_failed_dependency => $14::text, notify_done => $15::boolean)";
    const char *values[] = {job->task,         job->payload,
                            job->encoding,     job->priority,
                            job->max_attempts, job->delay,
                            job->run_at,       job->expires_at,
                            job->headers,      job->key,
                            job->unique_key,   job->repeat_every,
                            job->after,        job->on_failed_dependency,
                            job->notify_done};
    enum { COUNT = sizeof values / sizeof values[0] };
    int lengths[COUNT] = {0};
    int formats[COUNT] = {0};
    ob_assert(job->payload_len <= INT32_MAX);
    lengths[1] = (int)job->payload_len;
    formats[1] = 1;
    struct admin_rows *rows = NULL;
    int err = query(a, ADMIN_PRODUCER, sql, COUNT, values, lengths, formats, &rows, reterr);
    if (err != 0)
        return err;
    *ret_id = admin_int(rows, 0, 0, 0);
    *ret_existing = admin_bool(rows, 0, 1);
    admin_rows_free(rows);
    return 0;
}

/* clang-format cannot lay out strings with macros among them. */
/* clang-format off */

/* RFC 3339 in UTC with microseconds. */
#define UTC(column) "to_char(" column " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
#define MILLISECONDS(span) "floor(extract(epoch FROM " span ") * 1000)::bigint::text"

#define JOB_SELECT                                                                                 \
    "SELECT j.id::text, j.task, j.state, j.priority::text, j.key, "                                \
    UTC("j.run_at") ", " MILLISECONDS("j.run_at - clock_timestamp()") ", "                         \
    UTC("j.expires_at") ", j.attempts::text, j.max_attempts::text, j.lost::text, "                 \
    UTC("j.created_at") ", " MILLISECONDS("clock_timestamp() - j.created_at") ", "                 \
    UTC("j.finished_at") ", j.reason, j.encoding::text, j.payload_size::text, j.owner::text,"      \
    " j.dispatcher::text, j.headers::text, j.cancelling::text, j.paused::text FROM outbox.jobs j"


static const char count_matching_sql[] =
    "SELECT m.count::text, m.estimated::text FROM outbox.count_matching($1::text[], $2::text[],"
    " $3::text, least(to_timestamp(0) + $4::bigint * interval '1 us',"
    " clock_timestamp() - $6::bigint * interval '1 ms'),"
    " to_timestamp(0) + $5::bigint * interval '1 us', $7::text,"
    " clock_timestamp() - $8::bigint * interval '1 ms',"
    " clock_timestamp() - $9::bigint * interval '1 ms') AS m";

/* In the view's order, the one in which they were recorded: numbers begin again with a retry by
 * hand. */
static const char attempts_sql[] =
    "SELECT t.attempt::text, " UTC("t.started_at") ","
    " t.duration_ms::text, t.outcome, t.reason, t.exit_code::text, t.signal::text,"
    " t.http_status::text, t.output_head, t.output_tail, t.output_bytes::text, t.dispatcher::text"
    " FROM outbox.attempts t WHERE t.job_id = $1::bigint";

#define STATES_ORDER                                                                               \
    " ORDER BY s.task, array_position("                                                            \
    "ARRAY['ready', 'running', 'waiting', 'scheduled', 'dead', 'done'], s.state)"

static const char stats_sql[] =
    "SELECT s.task, s.state, s.count::text, " MILLISECONDS("s.oldest_age") ", s.handlers::text, "
    UTC("s.paused_since") ", s.paused_reason, 'false' FROM outbox.stats s" STATES_ORDER;

static const char stats_estimated_sql[] =
    "SELECT s.task, s.state, s.count::text, " MILLISECONDS("clock_timestamp() - s.oldest") ","
    " (SELECT count(DISTINCT d.name) FROM outbox.dispatchers d WHERE d.live"
    " AND s.task = ANY (d.tasks))::text, "
    UTC("p.since") ", p.reason, s.estimated::text"
    " FROM outbox.count_jobs() s LEFT JOIN outbox.pauses p ON p.task = s.task" STATES_ORDER;

static const char pauses_sql[] =
    "SELECT p.task, " UTC("p.since") ", " MILLISECONDS("clock_timestamp() - p.since") ","
    " p.paused_by, p.reason FROM outbox.pauses p ORDER BY p.task";

static const char dispatchers_sql[] =
    "SELECT d.id::text, d.name, d.host, d.pid::text, d.version, to_json(d.tasks)::text,"
    " array_to_string(d.tasks, ', '), "
    UTC("d.started_at") ", " MILLISECONDS("clock_timestamp() - d.started_at") ", "
    UTC("d.beat_at") ", " MILLISECONDS("clock_timestamp() - d.beat_at") ", "
    MILLISECONDS("d.lease") ", d.live::text, d.running::text"
    " FROM outbox.dispatchers d ORDER BY d.name, d.started_at";

/* clang-format on */

int admin_jobs(struct admin *a, const struct admin_filter *filter, struct admin_rows **ret_rows,
               struct admin_error *reterr)
{
    const char *values[ADMIN_FILTER_PARAMS];
    char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE];
    admin_filter_params(filter, values, numbers);
    return admin_query(a, ADMIN_READER,
                       JOB_SELECT ADMIN_JOB_WHERE " ORDER BY j.id DESC LIMIT $10::bigint",
                       ADMIN_FILTER_PARAMS, values, ret_rows, reterr);
}

int admin_jobs_count(struct admin *a, const struct admin_filter *filter, int64_t *ret_count,
                     struct admin_error *reterr)
{
    const char *values[ADMIN_FILTER_PARAMS];
    char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE];
    admin_filter_params(filter, values, numbers);
    return admin_query_number(a, ADMIN_READER,
                              "SELECT count(*)::text FROM outbox.jobs j" ADMIN_JOB_WHERE,
                              ADMIN_FILTER_PARAMS - 1, values, ret_count, reterr);
}

int admin_jobs_estimate(struct admin *a, const struct admin_filter *filter, int64_t *ret_count,
                        bool *ret_is_estimate, struct admin_error *reterr)
{
    const char *values[ADMIN_FILTER_PARAMS];
    char numbers[ADMIN_FILTER_NUMBERS][ADMIN_NUMBER_SIZE];
    struct admin_rows *rows = NULL;
    admin_filter_params(filter, values, numbers);
    int err = admin_query(a, ADMIN_READER, count_matching_sql, ADMIN_FILTER_PARAMS - 1, values,
                          &rows, reterr);
    if (err != 0)
        return err;
    *ret_count = admin_int(rows, 0, 0, 0);
    *ret_is_estimate = admin_bool(rows, 0, 1);
    admin_rows_free(rows);
    return 0;
}

static int query_id(struct admin *a, const char *sql, int64_t id, struct admin_rows **ret_rows,
                    struct admin_error *reterr)
{
    char number[ADMIN_NUMBER_SIZE];
    (void)snprintf(number, sizeof number, "%" PRId64, id);
    const char *values[] = {number};
    return admin_query(a, ADMIN_READER, sql, 1, values, ret_rows, reterr);
}

int admin_job_by_id(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                    struct admin_error *reterr)
{
    return query_id(a, JOB_SELECT " WHERE j.id = $1::bigint", id, ret_rows, reterr);
}

int admin_payload(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                  struct admin_error *reterr)
{
    return query_id(a, "SELECT outbox.payload($1::bigint)", id, ret_rows, reterr);
}

int admin_attempts(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                   struct admin_error *reterr)
{
    return query_id(a, attempts_sql, id, ret_rows, reterr);
}

int admin_stats_exact(struct admin *a, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    return admin_query(a, ADMIN_READER, stats_sql, 0, NULL, ret_rows, reterr);
}

int admin_stats(struct admin *a, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    return admin_query(a, ADMIN_READER, stats_estimated_sql, 0, NULL, ret_rows, reterr);
}

int admin_dispatchers(struct admin *a, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    return admin_query(a, ADMIN_READER, dispatchers_sql, 0, NULL, ret_rows, reterr);
}

#define EACH_ID " FROM unnest($1::bigint[]) WITH ORDINALITY AS i (id, n) ORDER BY i.n"

int admin_answer(struct admin *a, enum admin_verb verb, const int64_t *ids, size_t count,
                 struct admin_rows **ret_rows, struct admin_error *reterr)
{
    ob_assert(count <= ADMIN_IDS_MAX);
    struct buf array;
    buf_init(&array, ADMIN_IDS_MAX * ADMIN_NUMBER_SIZE);
    buf_putc(&array, '{');
    for (size_t i = 0; i < count; i++)
        buf_printf(&array, "%s%" PRId64, i > 0 ? "," : "", ids[i]);
    buf_putc(&array, '}');
    ob_assert(array.err == 0);
    const char *values[] = {array.data};
    const char *const calls[] = {
        [ADMIN_CANCEL] = "SELECT i.id::text, outbox.cancel(i.id)" EACH_ID,
        [ADMIN_RETRY] = "SELECT i.id::text, outbox.retry(i.id)" EACH_ID,
        [ADMIN_REQUEUE] = "SELECT i.id::text, outbox.requeue(i.id)" EACH_ID,
    };
    const char *sql = calls[verb];
    int err = admin_query(a, ADMIN_DISPATCHER, sql, 1, values, ret_rows, reterr);
    buf_deinit(&array);
    return err;
}

int admin_pauses(struct admin *a, struct admin_rows **ret_rows, struct admin_error *reterr)
{
    return admin_query(a, ADMIN_READER, pauses_sql, 0, NULL, ret_rows, reterr);
}

int admin_pause(struct admin *a, const char *task, const char *reason, struct admin_rows **ret_rows,
                struct admin_error *reterr)
{
    const char *values[] = {task, reason};
    return admin_query(a, ADMIN_DISPATCHER, "SELECT outbox.pause($1::text, $2::text)", 2, values,
                       ret_rows, reterr);
}

int admin_resume(struct admin *a, const char *task, struct admin_rows **ret_rows,
                 struct admin_error *reterr)
{
    const char *values[] = {task};
    return admin_query(a, ADMIN_DISPATCHER, "SELECT outbox.resume($1::text)", 1, values, ret_rows,
                       reterr);
}
