/* 03_event_loop.c - without blocking: statement and parameters from outbox_query_init, sent in
 * libpq's pipeline mode, the socket waited for by poll() (libuv, libev, epoll: the same two steps).
 *
 * A pipeline without BEGIN is one transaction up to its Sync: the order and its job are committed
 * together, in one round trip. Nobody checks that in the query form: it is up to you.
 *
 * The database comes from the argument, OUTBOX_DATABASE, or libpq's PG* variables. */
#include <outbox/outbox.h>

#include <poll.h>

static const char business[] =
    "CREATE TABLE IF NOT EXISTS example_visits (at timestamptz NOT NULL)";

/* Queues the statements; nothing is waited for. */
static int send_all(PGconn *conn)
{
    struct outbox_job job = OUTBOX_JOB("count-visit");
    struct outbox_error err;
    struct outbox_query q;
    int ok;

    job.delay_ms = 1000;
    if (outbox_query_init(&q, &job, &err) != OUTBOX_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    ok = PQsendQueryParams(conn, business, 0, NULL, NULL, NULL, NULL, 0) &&
         PQsendQueryParams(conn, "INSERT INTO example_visits VALUES (now())", 0, NULL, NULL, NULL,
                           NULL, 0) &&
         PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0) &&
         PQpipelineSync(conn);
    outbox_query_free(&q); /* libpq has copied it */
    return ok;
}

/* Waits for the socket; a real program's loop does this, for all its sockets at once. */
static int wait_for_socket(PGconn *conn)
{
    int unsent = PQflush(conn); /* 1: not all could be sent */
    struct pollfd fd;

    fd.fd = PQsocket(conn);
    fd.events = (short)(unsent == 1 ? POLLIN | POLLOUT : POLLIN);
    fd.revents = 0;
    if (unsent < 0 || poll(&fd, 1, -1) < 0)
        return 0;
    return PQconsumeInput(conn);
}

/* The result of the i-th statement. */
static int on_result(int i, const PGresult *res)
{
    struct outbox_error err;
    int64_t id = 0;

    if (i < 2) {
        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            fprintf(stderr, "%s", PQresultErrorMessage(res));
        return PQresultStatus(res) == PGRES_COMMAND_OK;
    }
    if (outbox_query_result(res, NULL, 1, &id, &err) != OUTBOX_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    printf("enqueued job %lld\n", (long long)id);
    return 1;
}

/* Reads until the Sync. Only then is anything committed. */
static int read_all(PGconn *conn)
{
    int ok = 1;
    int i = 0;

    for (;;) {
        PGresult *res;

        while (PQisBusy(conn))
            if (!wait_for_socket(conn))
                return 0;
        res = PQgetResult(conn);
        if (PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
            PQclear(res);
            return ok;
        }
        if (res != NULL)
            ok = on_result(i, res) && ok;
        else if (PQstatus(conn) != CONNECTION_OK)
            return 0;
        else
            i++; /* NULL ends a statement's results */
        PQclear(res);
    }
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    PGconn *conn = PQconnectdb(conninfo ? conninfo : "");
    int ok = PQstatus(conn) == CONNECTION_OK && PQsetnonblocking(conn, 1) == 0 &&
             PQenterPipelineMode(conn) && send_all(conn) && read_all(conn);

    if (PQstatus(conn) != CONNECTION_OK)
        fprintf(stderr, "%s", PQerrorMessage(conn));
    PQfinish(conn);
    return ok ? 0 : 1;
}
