/* admin_conn.h - what admin.c and admin_connect.c share. */
#ifndef OB_DB_ADMIN_CONN_H
#define OB_DB_ADMIN_CONN_H

#include "db/admin.h"

struct admin {
    PGconn *conn;
    char *conninfo; /* NULL: none was given */
};

/* Fills *e from a failed result (NULL: out of memory or the connection is gone). */
void admin_error_from_result(const struct admin *a, const PGresult *res, struct admin_error *e);

/* Runs one statement whose columns are all text; for the files of db/admin*.c. */
int admin_query(struct admin *a, enum admin_right right, const char *sql, int nparams,
                const char *const *values, struct admin_rows **ret_rows,
                struct admin_error *reterr) OB_MUST_CHECK;
/* The same for a statement that gives one number. */
int admin_query_number(struct admin *a, enum admin_right right, const char *sql, int nparams,
                       const char *const *values, int64_t *ret_number,
                       struct admin_error *reterr) OB_MUST_CHECK;

#endif
