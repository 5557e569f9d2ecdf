/* claim.c - the limit of claiming: nothing but a pipelined loop that deletes the jobs of the turn
 * before and claims BATCH others, in one transaction and one round trip.
 *
 *   bench_claim CONNINFO BATCH
 *
 * As fast as it can be made: prepared statements, all binary; rows are found behind the last one
 * seen, claimed and deleted by their place in the table (ctid), so that no index is asked twice;
 * no row is locked first, because nobody else is there. No functions, tokens, tasks or leases. It
 * goes on until it is ended, so that bench_watch can read its processor time. */
#define _GNU_SOURCE
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "lib.h"

enum {
    INT8_OID = 20,
    TID_OID = 27,
    XID8_OID = 5069,
    IDLE_US = 5000,
    ARRAY_HEAD = 20,
    TID_BYTES = 6,
    ARRAY_ITEM = 4 + TID_BYTES
};

static const char settings[] = "SET enable_seqscan = off; SET enable_bitmapscan = off;"
                               "SET enable_sort = off; SET jit = off;"
                               "SET plan_cache_mode = force_generic_plan";
static const char claim_sql[] =
    "UPDATE outbox.job SET owner = 1, claim = id, attempts = attempts + 1"
    " WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox.job"
    "  WHERE ready_xid IS NOT NULL AND owner IS NULL AND (ready_xid, id) > ($1, $2)"
    "  ORDER BY ready_xid, id LIMIT $3)) AND owner IS NULL"
    " RETURNING id, ready_xid, ctid, task, attempts, payload";
static const char delete_sql[] =
    "DELETE FROM outbox.job WHERE ctid = ANY ($1::tid[]) AND owner = 1";

static PGconn *conn;
static uint64_t batch_be;
static uint64_t last_xid; /* the cursor */
static uint64_t last_id;
static char *array; /* places of the turn before, as a binary tid[] */
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
    put32(array + 8, TID_OID);
    put32(array + 12, array_count);
    put32(array + 16, 1);
}

static void array_add(const char *tid)
{
    char *at = array + ARRAY_HEAD + (size_t)array_count * ARRAY_ITEM;
    put32(at, TID_BYTES);
    memcpy(at + 4, tid, TID_BYTES);
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
        ok &= PQsendQueryPrepared(conn, "done", 1, values, lengths, formats, 1);
    }
    uint64_t xid_be = htobe64(last_xid);
    uint64_t id_be = htobe64(last_id);
    const char *values[3] = {(const char *)&xid_be, (const char *)&id_be, (const char *)&batch_be};
    int lengths[3] = {8, 8, 8};
    int formats[3] = {1, 1, 1};
    ok &= PQsendQueryPrepared(conn, "claim", 3, values, lengths, formats, 1);
    ok &= PQpipelineSync(conn);
    if (ok != 1)
        bench_die("send", PQerrorMessage(conn));
    array_count = 0;
}

static uint64_t get64(const PGresult *res, int row, int column)
{
    uint64_t value = 0;
    memcpy(&value, PQgetvalue(res, row, column), sizeof value);
    return be64toh(value);
}

static void take(const PGresult *res)
{
    int rows = PQntuples(res);
    for (int i = 0; i < rows; i++) {
        uint64_t id = get64(res, i, 0);
        uint64_t xid = get64(res, i, 1);
        array_add(PQgetvalue(res, i, 2));
        if (xid > last_xid || (xid == last_xid && id > last_id)) {
            last_xid = xid;
            last_id = id;
        }
    }
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
    static const Oid claim_types[3] = {XID8_OID, INT8_OID, INT8_OID};
    if (argc != 3) {
        (void)fprintf(stderr, "usage: bench_claim CONNINFO BATCH\n");
        return 64;
    }
    long batch = bench_number(argv[2], 1, "BATCH");
    batch_be = htobe64((uint64_t)batch);
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
