/* migrate.c - applies the files of sql/ that are built into the program; see migrate.h. Called by
 * cmd/migrate.c and by the tests' cluster. Owns table outbox.migration's contents. Logs nothing.
 *
 * When you change what is written to outbox.migration: migrate_print() must leave the same rows as
 * migrate_apply(), so that either may follow the other (tests/db/check_migrations.c compares). */
#include "db/migrate.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/assert.h"

/* Held by a run from its first look to its end; (class, 0), see functions_wake.sql for the others.
 */
#define LOCK_KEY "1869968484, 0"

/* What a role or a database may have set, and what must not wait long: the lock that a change of a
 * table waits for keeps producers waiting behind it. */
#define SETTINGS                                                                                   \
    "SET LOCAL search_path = pg_catalog, pg_temp;"                                                 \
    "SET LOCAL standard_conforming_strings = on;"                                                  \
    "SET LOCAL check_function_bodies = on;"                                                        \
    "SET LOCAL client_min_messages = warning;"

enum { CHECKSUM_SIZE = 2 * EVP_MAX_MD_SIZE + 1 };

struct known {   /* what this program knows of a file */
    int version; /* 0: not numbered, applied again when it changes */
    int min_level;
    char checksum[CHECKSUM_SIZE];
};

OB_PRINTF(3, 4) static int refuse(char *reterr, int err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(reterr, MIGRATE_ERROR_SIZE, fmt, args);
    va_end(args);
    return err;
}

/* Reports a failed result. `what` says what was being done. */
static int refuse_result(char *reterr, PGconn *conn, const PGresult *res, const char *what)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(conn) != CONNECTION_OK || sqlstate == NULL)
        return refuse(reterr, OB_ECONN, "%s: lost the connection: %s", what, PQerrorMessage(conn));
    if (strcmp(sqlstate, "42501") == 0)
        return refuse(
            reterr, OB_EPRIVILEGE,
            "%s: %s; run it as the role that owns the schema, which to begin with needs CREATE "
            "on the database",
            what, message);
    if (strcmp(sqlstate, "55P03") == 0)
        return refuse(reterr, OB_EDB,
                      "%s: %s: a long transaction holds the table; nothing changed, run it again",
                      what, message);
    return refuse(reterr, OB_EDB, "%s: %s (SQLSTATE %s)", what, message, sqlstate);
}

/* Runs one or more statements without parameters; on success *ret_res is the last one's result, or
 * freed if ret_res is NULL. */
static int run(PGconn *conn, const char *sql, const char *what, PGresult **ret_res, char *reterr)
{
    PGresult *res = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);
    int err = 0;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        err = refuse_result(reterr, conn, res, what);
    if (err == 0 && ret_res != NULL)
        *ret_res = res;
    else
        PQclear(res);
    return err;
}

/* ---- what the program knows ---- */

static int file_version(const struct sql_file *file)
{
    char digits[5] = "";
    if (strspn(file->name, "0123456789") != 4 || file->name[4] != '_')
        return 0;
    memcpy(digits, file->name, 4);
    return (int)strtol(digits, NULL, 10);
}

/* The number of the line "-- min_level: N", which every file has. */
static int file_min_level(const struct sql_file *file)
{
    static const char mark[] = "\n-- min_level: ";
    const char *line = strstr(file->text, mark);
    ob_assert(line != NULL);
    return (int)strtol(line + sizeof mark - 1, NULL, 10);
}

static int know(const struct sql_file *file, struct known *ret_known)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(file->text, file->len, digest, &len, EVP_sha256(), NULL) != 1)
        return OB_ENOMEM;
    for (unsigned i = 0; i < len; i++)
        (void)snprintf(ret_known->checksum + 2 * i, 3, "%02x", digest[i]);
    ret_known->version = file_version(file);
    ret_known->min_level = file_min_level(file);
    return 0;
}

static int program_level(void)
{
    int level = 0;
    for (size_t i = 0; i < sql_files_count; i++) {
        int version = file_version(&sql_files[i]);
        level = version > level ? version : level;
    }
    return level;
}

/* ---- what the database says ---- */

enum { COL_NAME, COL_VERSION, COL_CHECKSUM, COL_APPLIED_AT, COL_MIN_LEVEL };

/* The rows of outbox.migration; *ret_rows is NULL when there is no schema yet. */
static int read_applied(PGconn *conn, PGresult **ret_rows, char *reterr)
{
    static const char what[] = "reading outbox.migration";
    PGresult *res = NULL;
    *ret_rows = NULL;
    int err = run(conn,
                  "SELECT count(*) FILTER (WHERE nspname = 'outbox'),"
                  " (SELECT count(*) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON "
                  "c.oid = a.attrelid"
                  " WHERE c.relnamespace = max(n.oid::int8) FILTER (WHERE nspname = 'outbox')"
                  " AND c.relname = 'migration' AND c.relkind = 'r'"
                  " AND a.attname IN ('version', 'name', 'checksum', 'applied_at', 'min_level'))"
                  " FROM pg_catalog.pg_namespace n",
                  what, &res, reterr);
    if (err != 0)
        return err;
    bool has_schema = strcmp(PQgetvalue(res, 0, 0), "1") == 0;
    bool is_ours = strcmp(PQgetvalue(res, 0, 1), "5") == 0;
    PQclear(res);
    if (!has_schema)
        return 0;
    if (!is_ours)
        return refuse(reterr, OB_ESCHEMA,
                      "this database has a schema named outbox that pgoutbox did not make (no "
                      "table outbox.migration); "
                      "rename or drop that schema, or use another database");
    return run(conn,
               "SELECT name, version, checksum, pg_catalog.to_char(applied_at AT TIME ZONE 'UTC',"
               " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), min_level FROM outbox.migration ORDER BY name",
               what, ret_rows, reterr);
}

static int find_row(const PGresult *rows, const char *name)
{
    for (int i = 0; rows != NULL && i < PQntuples(rows); i++) {
        if (strcmp(PQgetvalue(rows, i, COL_NAME), name) == 0)
            return i;
    }
    return -1;
}

static int max_of(const PGresult *rows, int column)
{
    int max = 0;
    for (int i = 0; rows != NULL && i < PQntuples(rows); i++) {
        int value = (int)strtol(PQgetvalue(rows, i, column), NULL, 10);
        max = value > max ? value : max;
    }
    return max;
}

static int check_level(const PGresult *rows, char *reterr)
{
    int needs = max_of(rows, COL_MIN_LEVEL);
    if (needs > program_level())
        return refuse(reterr, OB_EINCOMPAT,
                      "the schema outbox is at level %d and needs programs of level %d; this "
                      "program has level %d: "
                      "upgrade it",
                      max_of(rows, COL_VERSION), needs, program_level());
    return 0;
}

/* Compares a file with its row. */
static int examine(const PGresult *rows, const struct sql_file *file, const struct known *known,
                   struct migrate_step *ret_step, char *reterr)
{
    int row = find_row(rows, file->name);
    *ret_step = (struct migrate_step){.name = file->name, .state = MIGRATE_PENDING};
    if (row < 0)
        return 0;
    (void)snprintf(ret_step->applied_at, sizeof ret_step->applied_at, "%s",
                   PQgetvalue(rows, row, COL_APPLIED_AT));
    bool is_same = strcmp(PQgetvalue(rows, row, COL_CHECKSUM), known->checksum) == 0;
    ret_step->state = is_same ? MIGRATE_APPLIED : MIGRATE_CHANGED;
    if (!is_same && known->version > 0)
        return refuse(reterr, OB_ESCHEMA,
                      "%s was applied at %s with other contents than this program's (checksum "
                      "%.12s..., here %.12s...); "
                      "use the version of the program that applied it, or a newer one",
                      file->name, ret_step->applied_at, PQgetvalue(rows, row, COL_CHECKSUM),
                      known->checksum);
    return 0;
}

/* ---- applying ---- */

/* One file and its row, in a transaction that is rolled back on failure. */
static int apply_file(PGconn *conn, const struct sql_file *file, const struct known *known,
                      struct migrate_step *step, char *reterr)
{
    char version[12];
    char min_level[12];
    (void)snprintf(version, sizeof version, "%d", known->version);
    (void)snprintf(min_level, sizeof min_level, "%d", known->min_level);
    const char *const values[] = {known->version > 0 ? version : NULL, file->name, known->checksum,
                                  min_level};
    int err = run(conn,
                  "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;" SETTINGS
                  "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'",
                  file->name, NULL, reterr);
    if (err == 0)
        err = run(conn, file->text, file->name, NULL, reterr);
    if (err == 0) {
        PGresult *res = PQexecParams(
            conn,
            "INSERT INTO outbox.migration AS m (version, name, checksum, min_level)"
            " VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE SET checksum = "
            "excluded.checksum,"
            " applied_at = excluded.applied_at, min_level = excluded.min_level"
            " RETURNING to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
            4, NULL, values, NULL, NULL, 0);
        if (PQresultStatus(res) == PGRES_TUPLES_OK)
            (void)snprintf(step->applied_at, sizeof step->applied_at, "%s", PQgetvalue(res, 0, 0));
        else
            err = refuse_result(reterr, conn, res, file->name);
        PQclear(res);
    }
    if (err == 0)
        err = run(conn, "COMMIT", file->name, NULL, reterr);
    if (err != 0)
        PQclear(PQexec(conn, "ROLLBACK")); /* the first error is the one to report */
    else
        step->state = MIGRATE_DONE_NOW;
    return err;
}

/* Every file in order; apply: brings it up to date. */
static int walk(PGconn *conn, bool apply,
                void (*on_step)(const struct migrate_step *step, void *arg), void *arg,
                char *reterr)
{
    PGresult *rows = NULL;
    int err = read_applied(conn, &rows, reterr);
    if (err == 0)
        err = check_level(rows, reterr);
    /* A newer schema that still takes us: its functions are newer than ours, leave them. */
    bool is_newer = max_of(rows, COL_VERSION) > program_level();
    for (size_t i = 0; i < sql_files_count && err == 0 && !is_newer; i++) {
        const struct sql_file *file = &sql_files[i];
        struct known known;
        struct migrate_step step;
        err = know(file, &known);
        if (err == 0)
            err = examine(rows, file, &known, &step, reterr);
        else
            (void)refuse(reterr, err, "%s: no checksum", file->name);
        if (err != 0)
            break;
        if (on_step != NULL)
            on_step(&step, arg);
        if (!apply || step.state == MIGRATE_APPLIED)
            continue;
        err = apply_file(conn, file, &known, &step, reterr);
        if (err == 0 && on_step != NULL)
            on_step(&step, arg);
    }
    PQclear(rows);
    return err;
}

int migrate_apply(PGconn *conn, void (*on_step)(const struct migrate_step *step, void *arg),
                  void *arg, char reterr[MIGRATE_ERROR_SIZE])
{
    reterr[0] = '\0';
    int err = run(conn, "SELECT pg_catalog.pg_advisory_lock(" LOCK_KEY ")",
                  "waiting for another migration", NULL, reterr);
    if (err != 0)
        return err;
    err = walk(conn, true, on_step, arg, reterr);
    /* A connection that is gone took the lock with it. */
    PQclear(PQexec(conn, "SELECT pg_catalog.pg_advisory_unlock(" LOCK_KEY ")"));
    return err;
}

int migrate_status(PGconn *conn, void (*on_step)(const struct migrate_step *step, void *arg),
                   void *arg, char reterr[MIGRATE_ERROR_SIZE])
{
    reterr[0] = '\0';
    return walk(conn, false, on_step, arg, reterr);
}

int migrate_print(FILE *out)
{
    errno = 0;
    (void)fprintf(out,
                  "-- The schema of pgoutbox, level %d, for a database that does not have it yet.\n"
                  "-- Run it as the role that shall own the schema, in one transaction:\n"
                  "--   outbox migrate --print | psql -1 -v ON_ERROR_STOP=1 -f -\n\n",
                  program_level());
    (void)fputs(SETTINGS "\n", out);
    for (size_t i = 0; i < sql_files_count; i++) {
        const struct sql_file *file = &sql_files[i];
        struct known known;
        int err = know(file, &known);
        if (err != 0)
            return err;
        (void)fputc('\n', out);
        (void)fwrite(file->text, 1, file->len, out);
        if (known.version > 0)
            (void)fprintf(out,
                          "INSERT INTO outbox.migration (version, name, checksum, min_level) "
                          "VALUES (%d, '%s', '%s', %d);\n",
                          known.version, file->name, known.checksum, known.min_level);
        else
            (void)fprintf(out,
                          "INSERT INTO outbox.migration (name, checksum, min_level) VALUES ('%s', "
                          "'%s', %d);\n",
                          file->name, known.checksum, known.min_level);
    }
    if (fflush(out) != 0 || ferror(out))
        return errno != 0 ? -errno : -EIO;
    return 0;
}
