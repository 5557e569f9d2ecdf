/* 01_enqueue.c - the smallest program: one job, inside one transaction.
 *
 *   cc -I.. $(pkg-config --cflags libpq) 01_enqueue.c -lpq -o 01_enqueue
 *   ./01_enqueue dbname=shop
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

static int enqueue(PGconn *conn)
{
    struct outbox_payload args;
    struct outbox_job job = OUTBOX_JOB("send-welcome-email");
    struct outbox_error err;
    int64_t id;
    int rc;

    outbox_payload_init(&args);
    outbox_put_int(&args, "user", 42); /* the first failure sticks, and outbox_enqueue reports it */
    outbox_put_str(&args, "email", "ann@example.com");
    job.payload = &args;
    rc = outbox_enqueue(conn, &job, &id, &err);
    outbox_payload_free(&args);
    if (rc == OUTBOX_OK)
        printf("enqueued job %lld\n", (long long)id);
    else
        fprintf(stderr, "%s\n", err.message);
    return rc == OUTBOX_OK;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    PGconn *conn = PQconnectdb(conninfo ? conninfo : "");
    int ok = PQstatus(conn) == CONNECTION_OK;

    if (!ok)
        fprintf(stderr, "%s", PQerrorMessage(conn));
    /* your own INSERTs and UPDATEs go between BEGIN and COMMIT too: that is the point */
    ok = ok && exec(conn, "BEGIN") && enqueue(conn) && exec(conn, "COMMIT");
    PQfinish(conn); /* without the COMMIT, the job never existed */
    return ok ? 0 : 1;
}
