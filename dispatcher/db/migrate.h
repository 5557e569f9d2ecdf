/* migrate.h - bringing the schema to this program's level: what `outbox migrate` does. Synchronous;
 * for commands, not for the daemon.
 *
 * sql/NNNN_*.sql are applied once each, in order; every other file of sql/ (functions, views) is
 * applied again when its checksum (SHA-256) changed. Each file in a transaction with its row of
 * outbox.migration, all under one advisory lock, so that two runs at once are safe. */
#ifndef OB_DB_MIGRATE_H
#define OB_DB_MIGRATE_H

#include <stddef.h>
#include <stdio.h>

#include <libpq-fe.h>

#include "base/err.h"

struct sql_file {
    const char *name;
    const char *text;
    size_t len;
};
/* sql/ as it was at build time, in name order: the generated embedded_sql.c. */
extern const struct sql_file sql_files[];
extern const size_t sql_files_count;

enum { MIGRATE_ERROR_SIZE = 512 };

struct migrate_step {
    const char *name;
    enum { MIGRATE_APPLIED, MIGRATE_PENDING, MIGRATE_CHANGED, MIGRATE_DONE_NOW } state;
    char applied_at[40]; /* RFC 3339, "" if never */
};

/* Applies what is missing. on_step is told of each file, before and after. OB_EDB, OB_EINCOMPAT
 * (the database is newer), OB_ESCHEMA (a schema outbox that is not ours, or a numbered file that
 * changed after it was applied): reterr says what to do. */
int migrate_apply(PGconn *conn, void (*on_step)(const struct migrate_step *step, void *arg),
                  void *arg, char reterr[MIGRATE_ERROR_SIZE]) OB_MUST_CHECK;
int migrate_status(PGconn *conn, void (*on_step)(const struct migrate_step *step, void *arg),
                   void *arg, char reterr[MIGRATE_ERROR_SIZE]) OB_MUST_CHECK;
/* The whole as one script fit for `psql -1`, for a fresh database. */
int migrate_print(FILE *out) OB_MUST_CHECK;

#endif
