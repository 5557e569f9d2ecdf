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

#endif
