/* 08_consumer.c - takes jobs and does their work in the same transaction: both are committed, or
 * neither. No dispatcher is needed. Ends when there was nothing to do for two seconds.
 *
 *   outbox enqueue count-visit '{"page": "home"}'
 *   08_consumer [CONNINFO]
 *
 * The database comes from the argument, OUTBOX_DATABASE, or libpq's PG* variables. */
#include <outbox/consumer.h>

static const char task[] = "count-visit";

static int run(PGconn *conn, const char *sql, const char *payload)
{
    const char *values[1];
    PGresult *res;
    int ok;

    values[0] = payload;
    res = PQexecParams(conn, sql, payload != NULL ? 1 : 0, NULL, values, NULL, NULL, 0);
    ok = PQresultStatus(res) == PGRES_COMMAND_OK;
    if (!ok)
        fprintf(stderr, "%s", PQresultErrorMessage(res));
    PQclear(res);
    return ok;
}

/* The work itself: an ordinary write. False: the server refused, and the transaction has failed. */
static int count_visit(PGconn *conn, const struct outbox_taken *job)
{
    return job->is_json &&
           run(conn,
               "INSERT INTO example_pages VALUES ($1::jsonb ->> 'page', 1)"
               " ON CONFLICT (page) DO UPDATE SET visits = example_pages.visits + 1",
               job->payload);
}

/* One job in a transaction of its own: one that fails takes no other with it. 0, or an error. */
static int take_one(PGconn *conn, struct outbox_error *err)
{
    struct outbox_batch batch;
    struct outbox_taken job;
    int rc;
    int ok = 1;

    if (!run(conn, "BEGIN", NULL))
        return OUTBOX_ECONN;
    rc = outbox_take(conn, task, 1, &batch, err);
    if (rc == OUTBOX_OK && batch.count == 1) {
        outbox_batch_job(&batch, 0, &job);
        ok = count_visit(conn, &job) && run(conn, "COMMIT", NULL);
        if (ok) {
            printf("job %lld: counted\n", (long long)job.id);
        } else if (run(conn, "ROLLBACK", NULL)) { /* it is there again: count the failure */
            rc = outbox_take_failed(conn, job.id, "could not be counted", -1, 3, NULL, err);
            printf("job %lld: failed\n", (long long)job.id);
        }
    } else {
        (void)run(conn, "ROLLBACK", NULL); /* somebody was faster, or an error */
    }
    outbox_batch_free(&batch);
    return rc;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    PGconn *conn = PQconnectdb(conninfo != NULL ? conninfo : "");
    struct outbox_error err;
    int rc;

    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
        PQfinish(conn);
        return 1;
    }
    rc = run(conn,
             "CREATE TABLE IF NOT EXISTS example_pages (page text NOT NULL PRIMARY KEY,"
             " visits integer)",
             NULL)
             ? OUTBOX_OK
             : OUTBOX_EDB;
    while (rc == OUTBOX_OK) {
        rc = outbox_take_wait(conn, task, 2000, &err);
        if (rc == OUTBOX_OK)
            rc = take_one(conn, &err);
    }
    if (rc != OUTBOX_ETIMEOUT && rc != OUTBOX_EDB)
        fprintf(stderr, "%s\n", err.message);
    PQfinish(conn);
    return rc == OUTBOX_ETIMEOUT ? 0 : 1;
}
