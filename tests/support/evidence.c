/* What a failed run leaves, see evidence.h. */
#include "evidence.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "child.h"
#include "ck_main.h"
#include "pgcluster.h"

void evidence_open(struct evidence *e, const char *kind, uint64_t seed)
{
    memset(e, 0, sizeof *e);
    e->seed = seed;
    (void)snprintf(e->dir, sizeof e->dir, "%s/%s-%lu", OB_TEST_BUILD_DIR, kind,
                   (unsigned long)seed);
    e->report = open_memstream(&e->text, &e->len);
    ck_assert_ptr_nonnull(e->report);
}

void evidence_discard(struct evidence *e)
{
    (void)fclose(e->report);
    free(e->text);
}

static bool is_expected(const char *line, const char *const *expected)
{
    for (; *expected != NULL; expected++) {
        if (strstr(line, *expected) != NULL)
            return true;
    }
    return false;
}

size_t evidence_judge_log(struct evidence *e, const char *path, const char *const *expected)
{
    char *log = read_file_from(path, 0, NULL);
    char *next = NULL;
    size_t wrong = 0;
    for (char *line = log; line != NULL && *line != '\0'; line = next) {
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        if (strstr(line, "level=error") != NULL && !is_expected(line, expected) && wrong++ < 3)
            (void)fprintf(e->report, "a dispatcher logged: %s\n", line);
    }
    free(log);
    return wrong;
}

void evidence_table(struct evidence *e, PGconn *conn, const char *what, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    (void)fprintf(e->report, "%s:\n", what);
    for (int i = 0; i < PQntuples(res); i++)
        (void)fprintf(e->report, "  %s\n", PQgetvalue(res, i, 0));
    PQclear(res);
}

void evidence_server(struct evidence *e, PGconn *conn)
{
    evidence_table(
        e, conn, "locks",
        "SELECT format('%s %s (%s): %s %s %s %s %s%s', pid, application_name, state, locktype,"
        " mode, relation::regclass, classid, objid, CASE WHEN NOT granted THEN ' waits' END) FROM"
        " pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE l.database IS NOT NULL AND"
        " pid IS DISTINCT FROM pg_backend_pid() LIMIT 60");
    evidence_table(e, conn, "dispatchers", "SELECT to_jsonb(d) FROM outbox.dispatchers d");
}

static void keep(struct evidence *e, const char *name, const char *text, size_t len)
{
    char path[400];
    (void)mkdir(e->dir, 0755);
    (void)snprintf(path, sizeof path, "%s/%s", e->dir, name);
    FILE *f = fopen(path, "w");
    if (f == NULL)
        return;
    (void)fwrite(text, 1, len, f);
    (void)fclose(f);
}

void evidence_file(struct evidence *e, const char *path)
{
    size_t len = 0;
    char *text = read_file_from(path, 0, &len);
    if (text != NULL)
        keep(e, strrchr(path, '/') + 1, text, len);
    free(text);
}

void evidence_fail(struct evidence *e, size_t wrong)
{
    char server_log[400];
    (void)snprintf(server_log, sizeof server_log, "%s/server.log", pgcluster_socket_dir());
    evidence_file(e, server_log);
    (void)fflush(e->report);
    keep(e, "report", e->text, e->len);
    ck_abort_msg("seed %lu (OUTBOX_STRESS_SEED): %zu things are wrong; more in %s\n%.2500s",
                 (unsigned long)e->seed, wrong, e->dir, e->text);
}
