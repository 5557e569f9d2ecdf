/* pgtrace.h - what a connection sends, told statement by statement: for `log_sql`. Parameters are
 * counted and measured, never shown. */
#ifndef OB_DB_PGTRACE_H
#define OB_DB_PGTRACE_H

#include "db/pgconn.h"

enum pg_trace_outcome {
    PG_TRACE_OK,
    PG_TRACE_REFUSED, /* with its SQLSTATE */
    PG_TRACE_SKIPPED, /* one before it in the batch was refused */
    PG_TRACE_LOST     /* the connection went down first */
};
const char *pg_trace_outcome_name(enum pg_trace_outcome outcome);

struct pg_trace {
    const char *sql; /* "COMMIT" for the end of a batch */
    int params;
    size_t bytes; /* of the parameters' values */
    uint64_t us;  /* from when it was sent, or the answer before it came, to its own */
    int64_t rows; /* that it returned or changed */
    enum pg_trace_outcome outcome;
    char sqlstate[6]; /* "": none */
};
typedef void (*pg_trace_cb)(struct pgconn *c, const struct pg_trace *t, void *arg);

/* From now on; cb NULL: no more. */
void pgconn_trace(struct pgconn *c, pg_trace_cb cb, void *arg);

enum { PG_TRACE_NAME_SIZE = 64 };
/* What a statement is known by: the first function of ours that it calls ("outbox.look"), else how
 * it begins. On one line. */
void pg_trace_name(const char *sql, char ret_name[PG_TRACE_NAME_SIZE]);

#endif
