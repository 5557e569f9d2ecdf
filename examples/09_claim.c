/* 09_claim.c - a consumer with claims, as the dispatcher has them: no transaction is open while a
 * job runs, a crash gives the job to somebody else after the lease, and attempts are counted at the
 * claim, so that a job that kills its consumer ends dead. Ends when nothing is ready.
 *
 *   outbox enqueue shout '"hello"'
 *   09_claim [CONNINFO]
 *
 * docs/sql.md, "Claims, as the dispatcher does it", has the rules. */
#include <outbox/outbox.h>

#include <ctype.h>
#include <time.h>
#include <unistd.h>

enum { ATTEMPTS_MAX = 3 };

struct consumer {
    PGconn *conn;
    char id[24];          /* registered under: random, never used before */
    long long next_claim; /* only goes up: (id, claim number) is the token of a claim */
};

/* A statement with text parameters; NULL after a message. */
static PGresult *ask(struct consumer *c, const char *sql, int n, const char *const *values)
{
    PGresult *res = PQexecParams(c->conn, sql, n, NULL, values, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK)
        return res;
    fprintf(stderr, "%s", PQresultErrorMessage(res));
    PQclear(res);
    return NULL;
}

/* The first column of the only row is `wanted`. */
static int says(struct consumer *c, const char *sql, int n, const char *const *values,
                const char *wanted)
{
    PGresult *res = ask(c, sql, n, values);
    int ok = res != NULL && PQntuples(res) == 1 && strcmp(PQgetvalue(res, 0, 0), wanted) == 0;

    if (res != NULL && !ok)
        fprintf(stderr, "%s\n", PQntuples(res) == 1 ? PQgetvalue(res, 0, 0) : "no answer");
    PQclear(res);
    return ok;
}

/* The work. False: it failed. Takes far less than the lease: a longer one beats meanwhile, by
 * outbox.extend on a second connection. */
static int shout(const char *id, const char *payload)
{
    size_t i;

    if (payload[0] != '"')
        return 0;
    printf("job %s: ", id);
    for (i = 0; payload[i] != '\0'; i++)
        putchar(toupper((unsigned char)payload[i]));
    putchar('\n');
    return 1;
}

/* Says what became of a job. Any answer but done: the claim no longer holds, and nothing was
 * changed; somebody else runs the job, or it was cancelled. */
static int settle(struct consumer *c, const char *id, const char *claim, int ok, int attempt)
{
    const char *values[4];

    values[0] = c->id;
    values[1] = id;
    values[2] = claim;
    values[3] = "[null]";
    if (!ok)
        values[3] = attempt < ATTEMPTS_MAX
                        ? "[{\"outcome\": \"retry\", \"reason\": \"no text\", \"delay_ms\": 100}]"
                        : "[{\"outcome\": \"dead\", \"reason\": \"no text\"}]";
    return says(c,
                "SELECT answer FROM outbox.settle($1, ARRAY[$2::bigint], ARRAY[$3::bigint],"
                " $4::jsonb)",
                4, values, "done");
}

/* Claims up to ten jobs and runs them: each statement is a transaction, so the claim has committed
 * before the first runs. Returns how many there were, negative after a message. */
static int turn(struct consumer *c)
{
    char first[24];
    const char *values[2];
    PGresult *jobs;
    int count;
    int i;

    (void)snprintf(first, sizeof first, "%lld", c->next_claim);
    values[0] = c->id;
    values[1] = first;
    jobs = ask(
        c,
        "SELECT id, claim, attempt, convert_from(coalesce(payload, outbox.payload(id)), 'UTF8'),"
        " expired FROM outbox.claim($1, $2, '{shout}', '{10}')",
        2, values);
    count = jobs != NULL ? PQntuples(jobs) : -1;
    for (i = 0; i < count; i++) {
        const char *id = PQgetvalue(jobs, i, 0);
        int attempt = (int)strtol(PQgetvalue(jobs, i, 2), NULL, 10);
        int is_expired = *PQgetvalue(jobs, i, 4) == 't';
        int ok = !is_expired && shout(id, PQgetvalue(jobs, i, 3));

        if (!settle(c, id, PQgetvalue(jobs, i, 1), ok, is_expired ? ATTEMPTS_MAX : attempt))
            printf("job %s: not ours any more\n", id);
    }
    c->next_claim += count > 0 ? count : 0;
    PQclear(jobs);
    return count;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : getenv("OUTBOX_DATABASE");
    struct consumer c;
    const char *values[1];
    int count = -1;

    c.conn = PQconnectdb(conninfo != NULL ? conninfo : "");
    c.next_claim = 1;
    if (PQstatus(c.conn) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(c.conn));
        PQfinish(c.conn);
        return 1;
    }
    (void)snprintf(c.id, sizeof c.id, "%lld",
                   (long long)time(NULL) * 1000003LL + (long long)getpid());
    values[0] = c.id;
    if (says(&c,
             "SELECT answer FROM outbox.register($1, 'shouter', 'this-host', '', '', 1, '{}',"
             " 'example', '{shout}', '1 minute')",
             1, values, "registered")) {
        do { /* the heartbeat; false: taken over */
            count = says(&c, "SELECT outbox.extend($1)", 1, values, "t") ? turn(&c) : -1;
        } while (count > 0);
        (void)says(&c, "SELECT outbox.unregister($1)", 1, values, "t");
    }
    PQfinish(c.conn);
    return count == 0 ? 0 : 1;
}
