/* pgbatch.h - what a batch is made of. Private to db/pgbatch.c (building) and db/pgpipe.c (sending
 * and answering); everybody else sees the functions of pgconn.h. */
#ifndef OB_DB_PGBATCH_H
#define OB_DB_PGBATCH_H

#include <libpq-fe.h>

#include "db/pgconn.h"

/* How a statement goes out; decided when it is sent. */
enum pgstmt_form {
    PGSTMT_UNNAMED,  /* parsed, bound and executed at once */
    PGSTMT_PREPARES, /* parsed under a name first: one answer more */
    PGSTMT_NAMED     /* bound to the name */
};

struct pgstmt {
    const char *sql; /* borrowed; its address is what prepared statements are found by */
    bool prepare;
    bool result_binary;
    int nparams;
    char *block; /* one allocation: the arrays below, then the values; freed once sent */
    Oid *types;
    const char **values;
    int *lengths;
    int *formats;
    size_t bytes;     /* of the values */
    uint64_t sent_ns; /* while somebody traces; 0 */
    enum pgstmt_form form;
    bool is_prepared; /* PGSTMT_PREPARES: the first of the two answers came */
    PGresult *result;
};

struct pgbatch {
    struct list node; /* in pgconn.batches */
    struct pgstmt *stmts;
    size_t count;
    size_t cap;
    int err;           /* sticky: OB_ENOMEM, OB_ETOOBIG */
    size_t sent_count; /* statements that went out */
    size_t answered_count;
    bool is_sync_sent;
    uint64_t sync_sent_ns;
    struct pg_error error; /* the first failure; err 0: none */
    size_t failed_at;      /* which statement that was; count: the commit, or the connection */
    pgbatch_cb cb;
    void *arg;
};

/* Frees a statement's parameters, which nobody needs once libpq has copied them. */
void pgstmt_forget_params(struct pgstmt *s);

#endif
