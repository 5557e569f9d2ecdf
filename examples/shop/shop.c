/* shop.c - a small shop that never sends an e-mail for an order that does not exist.
 *
 *   shop [--orders N] [--rollback-every N] [--database CONNINFO]
 *
 * Runs N business transactions (default 1000). Each inserts an order and, in the same transaction,
 * enqueues two jobs: send-order-email and order-placed, with the order's id in the payload. Every
 * N-th transaction (default 10; 0: none) changes its mind at the very end and rolls back. Prints
 * how many were committed and rolled back. Makes its table `orders` if it is missing.
 *
 * The database comes from --database, OUTBOX_DATABASE, or libpq's PG* variables.
 * Exit codes: 0 all went as planned, 1 the database refused or is not there, 64 wrong usage. */
#include <outbox/outbox.h>

#include <errno.h>

struct options {
    const char *conninfo;
    long orders;
    long rollback_every;
};

static const char usage[] = "usage: shop [--orders N] [--rollback-every N] [--database CONNINFO]\n";

static bool read_number(const char *text, long *ret_number)
{
    char *end;

    errno = 0;
    *ret_number = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *ret_number >= 0;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    const char *environment = getenv("OUTBOX_DATABASE");

    o->conninfo = environment ? environment : "";
    o->orders = 1000;
    o->rollback_every = 10;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return false;
        if (strcmp(argv[i], "--orders") == 0) {
            if (!read_number(argv[i + 1], &o->orders))
                return false;
        } else if (strcmp(argv[i], "--rollback-every") == 0) {
            if (!read_number(argv[i + 1], &o->rollback_every))
                return false;
        } else if (strcmp(argv[i], "--database") == 0) {
            o->conninfo = argv[i + 1];
        } else {
            return false;
        }
    }
    return true;
}

static bool exec(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    bool ok = PQresultStatus(res) == PGRES_COMMAND_OK;

    if (!ok)
        (void)fprintf(stderr, "shop: %s: %s", sql, PQerrorMessage(conn));
    PQclear(res);
    return ok;
}

/* The business part: an order, whose id comes back. */
static bool insert_order(PGconn *conn, long number, int64_t *ret_id)
{
    char customer[64];
    const char *values[] = {customer};
    PGresult *res;
    bool ok;

    (void)snprintf(customer, sizeof customer, "customer-%ld@example.com", number);
    res = PQexecParams(conn, "INSERT INTO orders (customer) VALUES ($1) RETURNING id", 1, NULL,
                       values, NULL, NULL, 0);
    ok = PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1;
    if (ok)
        *ret_id = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    else
        (void)fprintf(stderr, "shop: %s", PQerrorMessage(conn));
    PQclear(res);
    return ok;
}

/* The two jobs of an order, by one statement. */
static bool enqueue_jobs(PGconn *conn, struct outbox_payload *payload, int64_t order)
{
    struct outbox_job jobs[] = {OUTBOX_JOB("send-order-email"), OUTBOX_JOB("order-placed")};
    struct outbox_error err;

    outbox_payload_clear(payload); /* keeps the memory of the order before */
    outbox_put_int(payload, "order", order);
    jobs[0].payload = payload;
    jobs[1].payload = payload;
    if (outbox_enqueue_many(conn, jobs, 2, NULL, &err) == OUTBOX_OK)
        return true;
    (void)fprintf(stderr, "shop: %s\n", err.message);
    return false;
}

static bool place_order(PGconn *conn, struct outbox_payload *payload, long number, bool keep)
{
    int64_t order;

    return exec(conn, "BEGIN") && insert_order(conn, number, &order) &&
           enqueue_jobs(conn, payload, order) && exec(conn, keep ? "COMMIT" : "ROLLBACK");
}

static bool run_shop(PGconn *conn, const struct options *o)
{
    struct outbox_payload payload;
    long committed = 0;
    long rolled_back = 0;
    bool ok = true;

    outbox_payload_init(&payload);
    for (long n = 1; ok && n <= o->orders; n++) {
        bool keep = o->rollback_every == 0 || n % o->rollback_every != 0;
        ok = place_order(conn, &payload, n, keep);
        if (ok && keep)
            committed++;
        else if (ok)
            rolled_back++;
    }
    outbox_payload_free(&payload);
    printf("committed %ld\nrolled back %ld\n", committed, rolled_back);
    return ok;
}

int main(int argc, char **argv)
{
    struct options o;

    if (!read_options(argc, argv, &o)) {
        (void)fputs(usage, stderr);
        return 64;
    }
    PGconn *conn = PQconnectdb(o.conninfo);
    bool ok = PQstatus(conn) == CONNECTION_OK;
    if (!ok)
        (void)fprintf(stderr, "shop: %s", PQerrorMessage(conn));
    ok = ok && exec(conn, "SET client_min_messages = warning") &&
         exec(conn, "CREATE TABLE IF NOT EXISTS orders ("
                    "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
                    " customer text NOT NULL, placed_at timestamptz NOT NULL DEFAULT now())") &&
         run_shop(conn, &o);
    PQfinish(conn);
    return ok ? 0 : 1;
}
