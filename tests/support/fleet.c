/* See fleet.h. */
#define _GNU_SOURCE
#include "fleet.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "child.h"
#include "e2e.h"
#include "pgcluster.h"
#include "testdb.h"
#include "wait.h"

enum { ARGS_MAX = 48, TEXT_MAX = 1024, TOKENS_MAX = 20000 };

void fleet_finish(void)
{
    if (wait_until(testdb_long("SELECT count(*) FROM outbox.job") == 0, FLEET_WAIT_MS))
        return;
    ck_abort_msg("jobs left: %s",
                 testdb_value("SELECT string_agg(format('%s %s %s', id, task, state), E'\\n')"
                              " FROM (SELECT * FROM outbox.jobs ORDER BY id LIMIT 20) j"));
}

void fleet_finish_all(long first, long last)
{
    fleet_finish();
    expect_all_ran(first, last);
}

static bool has_config(const char *const *args)
{
    for (; *args != NULL; args++) {
        if (strcmp(*args, "--config") == 0)
            return true;
    }
    return false;
}

void fleet_start(struct daemon *d, const char *name, const char *database, const char *const *args)
{
    char dir[256];
    char setting[400];
    const char *argv[ARGS_MAX] = {"--name", name, "--lock-dir", dir};
    const char *const env[] = {setting, NULL};
    size_t n = 4;
    if (!has_config(args)) {
        argv[n++] = "--config";
        argv[n++] = test_file("fleet.yaml", "sweep_interval: 1h\n", 0644);
    }
    (void)snprintf(dir, sizeof dir, "%s/host-%s", test_dir(), name);
    (void)mkdir(dir, 0700);
    for (; *args != NULL; args++) {
        ck_assert_uint_lt(n, ARGS_MAX - 1);
        argv[n++] = *args;
    }
    (void)snprintf(setting, sizeof setting, "OUTBOX_DATABASE=%s",
                   database != NULL ? database : testdb_conninfo());
    daemon_start(d, argv, env);
}

void fleet_start_ready(struct daemon *d, const char *name, const char *database,
                       const char *const *args)
{
    fleet_start(d, name, database, args);
    daemon_expect_log(d, "event=ready", E2E_WAIT_MS);
}

const char *exclusive(const char *task, const char *then)
{
    char text[TEXT_MAX];
    int n = snprintf(text, sizeof text,
                     "exec 9> %s/lock-$OUTBOX_JOB_ID; flock -n 9 || echo $OUTBOX_JOB_ID >> %s; %s",
                     test_dir(), flag_path("twice"), then);
    ck_assert_int_lt(n, (int)sizeof text);
    return recording(task, text);
}

size_t twice_at_once(void)
{
    return count_lines(flag_path("twice"));
}

void fleet_proxy(struct faultproxy *p)
{
    char target[160];
    (void)snprintf(target, sizeof target, "%s/.s.PGSQL.%d", pgcluster_socket_dir(),
                   pgcluster_port());
    faultproxy_start(p, target);
}

const char *fleet_proxy_conninfo(const struct faultproxy *p)
{
    static char texts[4][200];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    (void)snprintf(text, sizeof texts[0],
                   "host=127.0.0.1 port=%d user=postgres sslmode=disable gssencmode=disable"
                   " dbname=%s",
                   p->port, testdb_value("SELECT current_database()"));
    return text;
}

static long log_from; /* where in the server's log this test began to record */

void tokens_record(void)
{
    log_from = pgcluster_log_size();
    testdb_exec("CREATE FUNCTION public.token() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                " RAISE LOG 'issued token % %', new.owner, new.claim; RETURN NULL; END$$;"
                "CREATE TRIGGER token AFTER UPDATE ON outbox.job FOR EACH ROW"
                " WHEN (new.owner IS NOT NULL AND"
                "  (old.owner IS NULL OR old.owner <> new.owner OR old.claim <> new.claim))"
                " EXECUTE FUNCTION public.token()");
}

struct token {
    int64_t owner;
    int64_t claim;
};

static int compare(const void *a, const void *b)
{
    const struct token *x = a;
    const struct token *y = b;
    if (x->owner != y->owner)
        return x->owner < y->owner ? -1 : 1;
    return (x->claim > y->claim) - (x->claim < y->claim);
}

size_t tokens_expect_unique(void)
{
    static struct token tokens[TOKENS_MAX];
    static const char marker[] = "LOG:  issued token ";
    char path[64];
    size_t n = 0;
    (void)snprintf(path, sizeof path, "%s/server.log", pgcluster_socket_dir());
    char *log = read_file_from(path, log_from, NULL);
    ck_assert_ptr_nonnull(log);
    for (const char *at = strstr(log, marker); at != NULL; at = strstr(at, marker)) {
        at += sizeof marker - 1;
        ck_assert_uint_lt(n, TOKENS_MAX);
        ck_assert_int_eq(sscanf(at, "%" SCNd64 " %" SCNd64, &tokens[n].owner, &tokens[n].claim), 2);
        n++;
    }
    free(log);
    qsort(tokens, n, sizeof tokens[0], compare);
    for (size_t i = 1; i < n; i++) {
        if (compare(&tokens[i - 1], &tokens[i]) == 0)
            ck_abort_msg("token %" PRId64 " %" PRId64 " was issued twice", tokens[i].owner,
                         tokens[i].claim);
    }
    return n;
}

long mid_transaction(const char *name, enum turn_part part)
{
    char sql[500];
    (void)snprintf(sql, sizeof sql,
                   "SELECT coalesce(min(j.id), 0) FROM outbox.dispatcher d"
                   " JOIN pg_stat_activity a ON a.pid = d.backends[1]"
                   " JOIN outbox.job j ON j.xmax = a.backend_xid"
                   " WHERE d.name = '%s' AND a.wait_event = 'ClientRead' AND j.owner IS %s",
                   name, part == TURN_CLAIM ? "NULL" : "NOT NULL");
    return testdb_long(sql);
}

long hold_in_transaction(struct faultproxy *p, const char *name, enum turn_part part)
{
    long id = 0;
    faultproxy_hold_syncs(p);
    ck_assert(
        wait_until((id = mid_transaction(name, part)) > 0 || (faultproxy_let_syncs_go(p), false),
                   FLEET_WAIT_MS));
    return id;
}
