/* claim.c - the limit of claiming: nothing but a pipelined loop that deletes the jobs of the turn
 * before and claims BATCH others, in one transaction and one round trip.
 *
 *   bench_claim CONNINFO BATCH
 *
 * No functions, no tokens to check, no tasks, no leases; the cursor is the last row it saw. It goes
 * on until it is ended, so that bench_watch can read its processor time. */
#define _GNU_SOURCE
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "lib.h"

enum { INT8_OID = 20, IDLE_US = 5000, ARRAY_HEAD = 20, ARRAY_ITEM = 12 };

static const char settings[] =
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;"
    "SET enable_mergejoin = off; SET enable_sort = off; SET jit = off;"
    "SET plan_cache_mode = force_generic_plan";
static const char claim_sql[] =
    "WITH t AS MATERIALIZED (SELECT id, ready_xid FROM outbox.job"
    "  WHERE ready_xid IS NOT NULL AND owner IS NULL AND (ready_xid, id) > ($1::text::xid8, $2)"
    "  ORDER BY ready_xid, id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED)"
    " UPDATE outbox.job j SET owner = 1, claim = j.id, attempts = j.attempts + 1 FROM t"
    " WHERE j.id = t.id RETURNING j.id, t.ready_xid::text, j.task, j.attempts, j.payload";
static const char delete_sql[] =
    "DELETE FROM outbox.job WHERE id = ANY ($1::bigint[]) AND owner = 1";

static PGconn *conn;
static char batch_text[24];
static char last_xid[24] = "0"; /* the cursor */
static char last_id[24] = "0";
static char *array; /* ids of the turn before, as a binary bigint[] */
static uint32_t array_count;

static void put32(char *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static void array_finish(void)
{
    put32(array, 1); /* one dimension */
    put32(array + 4, 0);
    put32(array + 8, INT8_OID);
    put32(array + 12, array_count);
    put32(array + 16, 1);
}

static void array_add(const char *id)
{
    uint64_t value = htobe64(strtoull(id, NULL, 10));
    char *at = array + ARRAY_HEAD + (size_t)array_count * ARRAY_ITEM;
    put32(at, sizeof value);
    memcpy(at + 4, &value, sizeof value);
    array_count++;
}

static void send_turn(void)
{
    int ok = 1;
    if (array_count > 0) {
        array_finish();
        const char *values[1] = {array};
        int lengths[1] = {(int)(ARRAY_HEAD + array_count * ARRAY_ITEM)};
        int formats[1] = {1};
        ok &= PQsendQueryPrepared(conn, "done", 1, values, lengths, formats, 0);
    }
    const char *values[3] = {last_xid, last_id, batch_text};
    ok &= PQsendQueryPrepared(conn, "claim", 3, values, NULL, NULL, 0);
    ok &= PQpipelineSync(conn);
    if (ok != 1)
        bench_die("send", PQerrorMessage(conn));
    array_count = 0;
}

static void take(const PGresult *res)
{
    int rows = PQntuples(res);
    for (int i = 0; i < rows; i++)
        array_add(PQgetvalue(res, i, 0));
    if (rows == 0)
        return;
    (void)snprintf(last_id, sizeof last_id, "%s", PQgetvalue(res, rows - 1, 0));
    (void)snprintf(last_xid, sizeof last_xid, "%s", PQgetvalue(res, rows - 1, 1));
}

static void receive_turn(void)
{
    for (;;) {
        PGresult *res = PQgetResult(conn);
        if (res == NULL)
            continue; /* between the answers of two statements */
        ExecStatusType status = PQresultStatus(res);
        if (status == PGRES_TUPLES_OK)
            take(res);
        else if (status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC)
            bench_die("refused", PQresultErrorMessage(res));
        PQclear(res);
        if (status == PGRES_PIPELINE_SYNC)
            return;
    }
}

static void prepare(const char *name, const char *sql, int nparams, const Oid *types)
{
    PGresult *res = PQprepare(conn, name, sql, nparams, types);
    if (PQresultStatus(res) != PGRES_COMMAND_OK)
        bench_die(name, PQerrorMessage(conn));
    PQclear(res);
}

int main(int argc, char **argv)
{
    static const Oid claim_types[3] = {0, INT8_OID, INT8_OID};
    if (argc != 3) {
        (void)fprintf(stderr, "usage: bench_claim CONNINFO BATCH\n");
        return 64;
    }
    long batch = bench_number(argv[2], 1, "BATCH");
    (void)snprintf(batch_text, sizeof batch_text, "%ld", batch);
    array = ob_xcalloc((size_t)batch + 2, ARRAY_ITEM);
    conn = bench_connect(argv[1]);
    bench_exec(conn, settings);
    prepare("claim", claim_sql, 3, claim_types);
    prepare("done", delete_sql, 0, NULL);
    if (PQenterPipelineMode(conn) != 1)
        bench_die("pipeline", PQerrorMessage(conn));
    for (;;) {
        send_turn();
        receive_turn();
        if (array_count == 0)
            bench_sleep_us(IDLE_US);
    }
}
