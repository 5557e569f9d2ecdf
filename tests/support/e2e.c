/* See e2e.h. */
#define _GNU_SOURCE
#include "e2e.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "pgcluster.h"
#include "wait.h"

enum { IDS_MAX = 200000, TEXT_MAX = 1024 };

const char *flag_path(const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, 256, "%s/%s", test_dir(), name);
    return path;
}

const char *ran_path(void)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/ran", test_dir());
    return path;
}

const char *recording(const char *task, const char *then)
{
    static char specs[4][TEXT_MAX];
    static unsigned turn;
    char *spec = specs[turn++ % 4];
    int n = snprintf(spec, TEXT_MAX, "%s=echo \"$OUTBOX_JOB_ID $OUTBOX_ATTEMPT\" >> %s; %s", task,
                     ran_path(), then);
    ck_assert_int_lt(n, TEXT_MAX);
    return spec;
}

void flag_raise(const char *name)
{
    int fd = open(flag_path(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
}

bool flag_is_up(const char *name)
{
    return access(flag_path(name), F_OK) == 0;
}

const char *wait_for_flag(const char *name)
{
    static char texts[4][TEXT_MAX];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    (void)snprintf(text, TEXT_MAX, "while [ ! -e %s ]; do sleep 0.02; done", flag_path(name));
    return text;
}

const char *handler_script(const char *name, const char *body)
{
    char text[2 * TEXT_MAX];
    int n = snprintf(text, sizeof text,
                     "#!/bin/sh\necho \"$OUTBOX_JOB_ID $OUTBOX_ATTEMPT\" >> %s\n%s\n", ran_path(),
                     body);
    ck_assert_int_lt(n, (int)sizeof text);
    static char paths[16][256]; /* not test_file's own: tests keep them while they write others */
    static unsigned turn;
    char *path = paths[turn++ % 16];
    (void)snprintf(path, sizeof paths[0], "%s", test_file(name, text, 0755));
    return path;
}

const char *e2e_config(const char *fmt, ...)
{
    char text[8 * TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_int_lt(n, (int)sizeof text);
    return test_file("outbox.yaml", text, 0644);
}

const char *flag_text(const char *name)
{
    static char texts[4][TEXT_MAX];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    FILE *f = fopen(flag_path(name), "r");
    size_t len = f != NULL ? fread(text, 1, TEXT_MAX - 1, f) : 0;
    if (f != NULL)
        (void)fclose(f);
    text[len] = '\0';
    if (len > 0 && text[len - 1] == '\n')
        text[len - 1] = '\0';
    return text;
}

/* Counts the runs of each id; returns the number of lines. */
static size_t read_runs(unsigned *counts)
{
    FILE *f = fopen(ran_path(), "r");
    size_t lines = 0;
    long id = 0;
    int attempt = 0;
    if (counts != NULL)
        memset(counts, 0, IDS_MAX * sizeof *counts);
    while (f != NULL && fscanf(f, "%ld %d", &id, &attempt) == 2) {
        ck_assert_int_gt(id, 0);
        ck_assert_int_lt(id, IDS_MAX);
        if (counts != NULL)
            counts[id]++;
        lines++;
    }
    if (f != NULL)
        (void)fclose(f);
    return lines;
}

static unsigned *counts(void)
{
    static unsigned all[IDS_MAX];
    (void)read_runs(all);
    return all;
}

size_t runs_count(void)
{
    return read_runs(NULL);
}

size_t runs_of(long id)
{
    return counts()[id];
}

size_t runs_most(void)
{
    const unsigned *all = counts();
    size_t most = 0;
    for (size_t i = 0; i < IDS_MAX; i++)
        most = all[i] > most ? all[i] : most;
    return most;
}

size_t runs_distinct(void)
{
    const unsigned *all = counts();
    size_t n = 0;
    for (size_t i = 0; i < IDS_MAX; i++)
        n += all[i] > 0;
    return n;
}

void enqueue_jobs(const char *task, long n)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(outbox.enqueue('%s', jsonb_build_object('n', g))) FROM "
                   "generate_series(1, %ld) g",
                   task, n);
    ck_assert_int_eq(testdb_long(sql), n);
}

long enqueue_one(const char *task, const char *payload)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('%s', '%s')", task, payload);
    return testdb_long(sql);
}

void hold_claims(void)
{
    /* Under its own name, which its body uses. */
    testdb_exec(
        "CREATE TABLE public.hold AS SELECT 1; CREATE SCHEMA held;"
        "ALTER FUNCTION outbox.look SET SCHEMA held;"
        "CREATE FUNCTION outbox.look(a bigint, b bigint, c text[], d integer[], e boolean[],"
        " f integer, g xid8, h bigint, i xid8, j xid8[], k bigint[], l integer[], m xid8[],"
        " n bigint[], o integer[], p bigint[], q timestamptz, r xid8, s xid8, apart boolean,"
        " list_running boolean, walk_rows integer, walk_xid xid8, walk_id bigint,"
        " walk_priority integer, walk_slots integer[]) RETURNS TABLE(id bigint, claim bigint, task "
        "text, priority smallint, attempt integer,"
        " max_attempts integer, lost integer, encoding text, payload bytea,"
        " payload_size integer, headers text, key text, created_at timestamptz,"
        " expired boolean, state jsonb) LANGUAGE plpgsql AS $$ DECLARE rows integer; BEGIN "
        "RETURN QUERY SELECT * FROM held.look(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o,"
        " p, q, r, s, 1000, 65536, apart, list_running, walk_rows, walk_xid, walk_id,"
        " walk_priority, walk_slots); GET DIAGNOSTICS rows = ROW_COUNT; "
        "WHILE rows > 1 AND EXISTS (SELECT FROM public.hold) LOOP"
        " PERFORM pg_sleep(0.02); END LOOP; END $$");
    /* A turn that began before may call the old function yet, when there are jobs. */
    testdb_exec("CREATE TABLE public.held_since AS SELECT clock_timestamp() AS at");
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_activity, public.held_since"
                                     " WHERE datname = current_database() AND xact_start < at"
                                     " AND pid <> pg_backend_pid()") == 0,
                         E2E_WAIT_MS));
}

void wait_for_held_claim(void)
{
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_activity WHERE wait_event = "
                                     "'PgSleep' AND datname = current_database()") > 0,
                         E2E_WAIT_MS));
}

void let_claims_go(void)
{
    testdb_exec("DELETE FROM public.hold");
}

void wait_until_all_done(void)
{
    bool ok = wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 0, E2E_WAIT_MS);
    if (!ok)
        ck_abort_msg(
            "jobs left: %s",
            testdb_value("SELECT string_agg(format('%s %s %s attempts %s owner %s', id, task, "
                         "state, attempts, owner), "
                         "E'\\n') FROM (SELECT * FROM outbox.jobs ORDER BY id LIMIT 20) j"));
}

void expect_all_ran(long first, long last)
{
    wait_until_all_done();
    const unsigned *all = counts();
    for (long id = first; id <= last; id++) {
        if (all[id] == 0)
            ck_abort_msg("job %ld never ran", id);
    }
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dead"), 0);
}

size_t processes_with(const char *text)
{
    DIR *proc = opendir("/proc");
    size_t n = 0;
    ck_assert_ptr_nonnull(proc);
    for (struct dirent *e = readdir(proc); e != NULL; e = readdir(proc)) {
        char path[300];
        char line[4096] = "";
        (void)snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        FILE *f = fopen(path, "r");
        if (f == NULL)
            continue;
        size_t len = fread(line, 1, sizeof line - 1, f);
        (void)fclose(f);
        for (size_t i = 0; i < len; i++)
            line[i] = line[i] == '\0' ? ' ' : line[i];
        n += strncmp(line, text, strlen(text)) == 0;
    }
    (void)closedir(proc);
    return n;
}
