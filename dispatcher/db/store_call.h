/* store_call.h - one statement under way, for store.c and store_jobs.c alone. */
#ifndef OB_DB_STORE_CALL_H
#define OB_DB_STORE_CALL_H

#include <libpq-fe.h>

#include "db/params.h"
#include "db/store.h"

/* Which callback the answer goes to. Freed once that has returned. */
struct store_call {
    /* Exactly one of res and error is set. res is cleared afterwards unless the function sets keep.
     */
    void (*parse)(struct store_call *call, PGresult *res, const struct pg_error *error);
    void *arg;
    bool keep;
    struct pgconn *conn; /* of a turn */
    union {
        store_cb plain;
        store_level_cb level;
        store_text_cb text;
        store_register_cb registered;
        store_bool_cb boolean;
        store_peers_cb peers;
        store_count_cb count;
        store_adopt_cb adopt;
        store_payload_cb payload;
        store_turn_cb turn;
        store_seen_cb seen;
        store_xid_cb xid;
        store_xids_cb xids;
        store_orders_cb orders;
    } cb;
    struct store_token *tokens; /* of a turn's results, in their order */
    size_t count;
};

struct store_call *
store_call_new(void (*parse)(struct store_call *, PGresult *, const struct pg_error *), void *arg);
void store_call_free(struct store_call *call); /* store_send() does it, after the answer */
/* Sends one statement as a batch of its own. Takes the call, deinits the parameters. */
void store_send(struct pgconn *c, struct params *p, const char *sql, struct store_call *call);
/* The same with a second statement in its transaction, whose answer nobody reads; NULL: none. */
void store_send_two(struct pgconn *c, struct params *p, const char *sql, const char *second,
                    struct store_call *call);
/* The ids, and the claims, of n tokens as two parameters. */
void store_params_tokens(struct params *p, const struct store_token *tokens, size_t n);
/* False if the statement failed or answered no row, which none of ours does; *error then says so.
 */
bool store_has_row(PGresult *res, const struct pg_error **error);

#endif
