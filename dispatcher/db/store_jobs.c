/* store_jobs.c - the daemon's statements about single jobs and transactions: see store.h. */
#include "base/mem.h"
#include "db/row.h"
#include "db/store_call.h"

/* The ids, or the claims, of n tokens as a parameter. */
void store_params_tokens(struct params *p, const struct store_token *tokens, size_t n)
{
    int64_t *values = ob_xcalloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = tokens[i].id;
    params_int8_array(p, values, n);
    for (size_t i = 0; i < n; i++)
        values[i] = tokens[i].claim;
    params_int8_array(p, values, n);
    ob_free(values);
}

static void parse_adopt(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    size_t n = error == NULL ? (size_t)PQntuples(res) : 0;
    struct store_token *tokens = ob_xcalloc(n, sizeof *tokens);
    for (size_t i = 0; i < n; i++) {
        tokens[i].id = row_int8(res, (int)i, 0);
        tokens[i].claim = row_int8(res, (int)i, 1);
    }
    call->cb.adopt(call->arg, error, tokens, n);
    ob_free(tokens);
}

void store_adopt(struct pgconn *c, int64_t owner, int64_t previous,
                 const struct store_token *tokens, size_t n, int64_t first_claim, store_adopt_cb cb,
                 void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, owner);
    params_int8(&p, previous);
    store_params_tokens(&p, tokens, n);
    params_int8(&p, first_claim);
    struct store_call *call = store_call_new(parse_adopt, arg);
    call->cb.adopt = cb;
    store_send(c, &p, "SELECT id, claim FROM outbox.adopt($1, $2, $3, $4, $5)", call);
}

static void parse_payload(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    const char *bytes = store_has_row(res, &error) ? row_text(res, 0, 0) : NULL;
    call->cb.payload(call->arg, error, bytes, bytes != NULL ? (size_t)PQgetlength(res, 0, 0) : 0);
}

void store_payload(struct pgconn *c, int64_t id, store_payload_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    struct store_call *call = store_call_new(parse_payload, arg);
    call->cb.payload = cb;
    store_send(c, &p, "SELECT outbox.payload($1)", call);
}

static void parse_xid(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    uint64_t xid = store_has_row(res, &error) ? (uint64_t)row_int8(res, 0, 0) : 0;
    call->cb.xid(call->arg, error, xid);
}

void store_take_xid(struct pgconn *c, store_xid_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_xid, arg);
    call->cb.xid = cb;
    store_send(c, &p, "SELECT pg_current_xact_id()", call);
}

static void parse_xids(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    size_t n = error == NULL ? (size_t)PQntuples(res) : 0;
    uint64_t *xids = ob_xcalloc(n + 1, sizeof *xids);
    for (size_t i = 0; i < n; i++)
        xids[i] = (uint64_t)row_int8(res, (int)i, 0);
    call->cb.xids(call->arg, error, xids, n);
    ob_free(xids);
}

void store_still_writing(struct pgconn *c, const uint64_t *xids, size_t n, store_xids_cb cb,
                         void *arg)
{
    struct params p;
    params_init(&p);
    params_xid8_array(&p, xids, n);
    struct store_call *call = store_call_new(parse_xids, arg);
    call->cb.xids = cb;
    store_send(c, &p, "SELECT x FROM unnest(outbox.still_writing($1)) AS x", call);
}
