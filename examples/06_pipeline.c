/* 06_pipeline.c - a business write and its job between BEGIN and COMMIT, in one round trip: the
 * query form in libpq's pipeline mode, on an ordinary, blocking connection. On a network with 1 ms
 * between program and server that is 1 ms instead of 4.
 *
 * All four statements are sent before the first answer is read. When one fails, the server skips
 * the rest, COMMIT included: neither order nor job is there, and what is left to do is ROLLBACK.
 *
 * The database comes from the argument, OUTBOX_DATABASE, or libpq's PG* variables. */
#include <outbox/outbox.h>

static int exec(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    int ok = PQresultStatus(res) == PGRES_COMMAND_OK;

    if (!ok)
        fprintf(stderr, "%s: %s", sql, PQerrorMessage(conn));
    PQclear(res);
    return ok;
}

static int send_sql(PGconn *conn, const char *sql)
{
    return PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0);
}

static int send_job(PGconn *conn, const struct outbox_job *job)
{
    struct outbox_query q;
    struct outbox_error err;
    int ok;

    if (outbox_query_init(&q, job, &err) != OUTBOX_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    ok = PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0);
    outbox_query_free(&q); /* libpq has copied it */
    return ok;
}

/* The answer to the next statement; its other results (there are none) and the NULL that ends them
 * are read as well. */
static PGresult *next_answer(PGconn *conn)
{
    PGresult *answer = PQgetResult(conn);
    PGresult *more;

    if (answer != NULL && PQresultStatus(answer) != PGRES_PIPELINE_SYNC)
        while ((more = PQgetResult(conn)) != NULL)
            PQclear(more);
    return answer;
}

/* Reads the answers to BEGIN, INSERT, the job and COMMIT, and to the Sync. 1: it is committed. */
static int read_answers(PGconn *conn, struct outbox_job *job)
{
    static const char *const names[] = {"BEGIN", "INSERT", "the job", "COMMIT"};
    struct outbox_error err;
    int ok = 1;

    for (int i = 0; i < 4; i++) {
        PGresult *res = next_answer(conn);
        ExecStatusType status = PQresultStatus(res);
        if (i == 2 && outbox_query_result(res, job, 1, NULL, &err) != OUTBOX_OK) {
            if (err.code != OUTBOX_EABORTED) /* skipped: what failed before has been told */
                fprintf(stderr, "%s: %s\n", names[i], err.message);
            ok = 0;
        } else if (i != 2 && status != PGRES_COMMAND_OK) {
            if (status != PGRES_PIPELINE_ABORTED)
                fprintf(stderr, "%s: %s", names[i], PQresultErrorMessage(res));
            ok = 0;
        }
        PQclear(res);
    }
    PQclear(next_answer(conn)); /* of the Sync */
    return ok;
}

static int order(PGconn *conn, struct outbox_job *job)
{
    int ok = PQenterPipelineMode(conn) && send_sql(conn, "BEGIN") &&
             send_sql(conn, "INSERT INTO example_orders (item) VALUES ('tea')") &&
             send_job(conn, job) && send_sql(conn, "COMMIT") && PQpipelineSync(conn);

    if (!ok) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
        return 0; /* half a pipeline is queued: the connection is of no more use */
    }
    ok = read_answers(conn, job);
    if (!PQexitPipelineMode(conn))
        return 0;
    if (PQtransactionStatus(conn) == PQTRANS_INERROR)
        (void)exec(conn, "ROLLBACK");
    return ok;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    PGconn *conn = PQconnectdb(conninfo ? conninfo : "");
    struct outbox_job job = OUTBOX_JOB("order-placed");
    struct outbox_payload args;
    int ok = PQstatus(conn) == CONNECTION_OK;

    if (!ok)
        fprintf(stderr, "%s", PQerrorMessage(conn));
    outbox_payload_init(&args);
    outbox_put_str(&args, "item", "tea");
    job.payload = &args;
    ok = ok && exec(conn, "CREATE TABLE IF NOT EXISTS example_orders (item text NOT NULL)") &&
         order(conn, &job);
    if (ok)
        printf("enqueued job %lld\n", (long long)job.id);
    outbox_payload_free(&args);
    PQfinish(conn);
    return ok ? 0 : 1;
}
