/* store_call.c - see store_call.h. */
#include "db/store_call.h"

#include "base/mem.h"

struct store_call *
store_call_new(void (*parse)(struct store_call *, PGresult *, const struct pg_error *), void *arg)
{
    struct store_call *call = ob_xcalloc(1, sizeof *call);
    call->parse = parse;
    call->arg = arg;
    return call;
}

void store_call_free(struct store_call *call)
{
    ob_free(call->tokens);
    ob_free(call);
}

static void on_batch(struct pgbatch *b, const struct pg_error *error, void *arg)
{
    struct store_call *call = arg;
    PGresult *res = error == NULL ? pgbatch_take_result(b, 0) : NULL;
    call->parse(call, res, error);
    if (!call->keep)
        PQclear(res);
    store_call_free(call);
}

void store_send(struct pgconn *c, struct params *p, const char *sql, struct store_call *call)
{
    store_send_two(c, p, sql, NULL, call);
}

void store_send_two(struct pgconn *c, struct params *p, const char *sql, const char *second,
                    struct store_call *call)
{
    struct pgbatch *b = pgbatch_new();
    struct params none;
    params_add(p, b, sql);
    params_deinit(p);
    if (second != NULL) {
        params_init(&none);
        params_add(&none, b, second);
        params_deinit(&none);
    }
    pgconn_submit(c, b, on_batch, call);
}

bool store_has_row(PGresult *res, const struct pg_error **error)
{
    static const struct pg_error unexpected = {
        .err = OB_EDB, .sqlstate = "XX000", .message = "the server's answer has no row"};
    if (*error == NULL && PQntuples(res) == 0)
        *error = &unexpected;
    return *error == NULL;
}
