/* 02_batch.c - many jobs by one statement: 1,000 thumbnails of an import, all or none.
 *
 * The database comes from the argument, OUTBOX_DATABASE, or libpq's PG* variables. */
#include <outbox/outbox.h>

enum { JOBS = 1000 };

static struct outbox_job jobs[JOBS];
static struct outbox_payload payloads[JOBS];
static int64_t ids[JOBS];

static int exec(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    int ok = PQresultStatus(res) == PGRES_COMMAND_OK;

    if (!ok)
        fprintf(stderr, "%s: %s", sql, PQerrorMessage(conn));
    PQclear(res);
    return ok;
}

static void fill(int i)
{
    struct outbox_job job = OUTBOX_JOB("resize-image");
    struct outbox_payload *p = &payloads[i];
    char path[32];

    (void)snprintf(path, sizeof path, "import/%04d.jpg", i);
    outbox_payload_init(p);
    outbox_put_str(p, "path", path);
    outbox_begin_array(p, "widths"); /* no counts in advance */
    outbox_put_int(p, NULL, 320);
    outbox_put_int(p, NULL, 1280);
    outbox_end(p);
    job.payload = p;
    job.priority = 3; /* behind what customers wait for */
    jobs[i] = job;
}

static int enqueue_all(PGconn *conn)
{
    struct outbox_error err;

    for (int i = 0; i < JOBS; i++)
        fill(i);
    if (outbox_enqueue_many(conn, jobs, JOBS, ids, &err) != OUTBOX_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    printf("enqueued %d jobs, %lld to %lld\n", JOBS, (long long)ids[0], (long long)ids[JOBS - 1]);
    return 1;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    PGconn *conn = PQconnectdb(conninfo ? conninfo : "");
    int ok = PQstatus(conn) == CONNECTION_OK;

    if (!ok)
        fprintf(stderr, "%s", PQerrorMessage(conn));
    ok = ok && exec(conn, "BEGIN") && enqueue_all(conn) && exec(conn, "COMMIT");
    for (int i = 0; i < JOBS; i++)
        outbox_payload_free(&payloads[i]);
    PQfinish(conn);
    return ok ? 0 : 1;
}
