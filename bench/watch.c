/* watch.c - how fast the jobs FIRST (excluded) to LAST leave a table while a command runs that
 * takes them away: the dispatcher, or what is measured beside it.
 *
 *   bench_watch CONNINFO TABLE FIRST LAST SERVER_PID SECONDS COMMAND [ARG...]
 *
 * Starts the command, and asks every two milliseconds, by primary key, until FIRST is gone: the
 * clock starts. It stops when the last WINDOW ids before LAST are gone too (jobs do not leave in
 * exactly the order of their ids), or after SECONDS: then what is left is counted. The command is
 * ended with TERM, and waited for. Prints one line of name=value; the command writes to standard
 * error. Beside rate and costs: start_ms, from the start of the command until FIRST was gone;
 * dead_tuples, as the server counts them afterwards; hot_percent of the row versions written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "lib.h"

enum { WINDOW = 500, PAUSE_US = 2000, STATS_MS = 3000 };

static PGconn *conn;
static pid_t command;

static void start(char **argv)
{
    command = fork();
    if (command < 0)
        bench_die("fork", strerror(errno));
    if (command > 0)
        return;
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
    (void)execvp(argv[0], argv);
    bench_die(argv[0], strerror(errno));
}

static void prepare(const char *table)
{
    char sql[400];
    /* There may be no statistics yet: whatever the planner thinks, the primary key is meant. */
    bench_exec(conn, "SET enable_seqscan = off");
    bench_exec(conn, "SET enable_bitmapscan = off");
    bench_exec(conn, "SET plan_cache_mode = force_generic_plan");
    (void)snprintf(sql, sizeof sql,
                   "PREPARE there(bigint, bigint, bigint) AS SELECT count(*) FROM"
                   " (SELECT FROM %s WHERE id BETWEEN $1 AND $2 LIMIT $3) AS j",
                   table);
    bench_exec(conn, sql);
    (void)snprintf(sql, sizeof sql,
                   "PREPARE written AS SELECT s.n_tup_upd, s.n_tup_hot_upd, s.n_dead_tup,"
                   " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                   "  AND backend_type = 'client backend')"
                   " FROM pg_stat_user_tables s WHERE s.relid = '%s'::regclass",
                   table);
    bench_exec(conn, sql);
}

/* How many of the ids low to high are there; with limit 1 only whether any is. */
static long there(long low, long high, const char *limit)
{
    char sql[100];
    (void)snprintf(sql, sizeof sql, "EXECUTE there(%ld, %ld, %s)", low, high, limit);
    PGresult *res = bench_query(conn, sql, PGRES_TUPLES_OK);
    long n = strtol(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return n;
}

struct written {
    long updated;
    long hot;
    long dead;
    long sessions; /* in the database, this one included */
};

static struct written read_written(void)
{
    PGresult *res = bench_query(conn, "EXECUTE written", PGRES_TUPLES_OK);
    struct written w = {.updated = strtol(PQgetvalue(res, 0, 0), NULL, 10),
                        .hot = strtol(PQgetvalue(res, 0, 1), NULL, 10),
                        .dead = strtol(PQgetvalue(res, 0, 2), NULL, 10),
                        .sessions = strtol(PQgetvalue(res, 0, 3), NULL, 10)};
    PQclear(res);
    return w;
}

/* A session counts what it did at the latest when it ends: those of the command are waited for. */
static struct written wait_written(const struct written *before)
{
    uint64_t end_ms = clock_mono_ms() + STATS_MS;
    struct written w = read_written();
    while (w.sessions > before->sessions && clock_mono_ms() < end_ms) {
        bench_sleep_us(PAUSE_US);
        w = read_written();
    }
    return w;
}

/* The most memory that the command has had, in kB. */
static long peak_kb(void)
{
    char path[64];
    char line[256];
    long kb = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)command);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtol(line + 6, NULL, 10);
    }
    if (file != NULL)
        (void)fclose(file);
    return kb;
}

static bool wait_gone(long low, long high, uint64_t end_us)
{
    while (there(low, high, "1") > 0) {
        if (waitpid(command, NULL, WNOHANG) != 0)
            bench_die("bench_watch", "the command has ended");
        if (clock_mono_us() > end_us)
            return false;
        bench_sleep_us(PAUSE_US);
    }
    return true;
}

static void print(const struct mark *begin, const struct mark *end, double done,
                  const struct written *before)
{
    double elapsed_us = (double)(end->mono_us - begin->mono_us);
    long rss_kb = peak_kb();
    (void)kill(command, SIGTERM);
    (void)waitpid(command, NULL, 0);
    struct written after = wait_written(before);
    long updated = after.updated - before->updated;
    (void)printf("jobs_per_s=%.0f jobs=%.0f ms=%.1f", done * 1e6 / elapsed_us, done,
                 elapsed_us / 1e3);
    bench_print_costs(begin, end, done > 0 ? done : 1);
    (void)printf(" dead_tuples=%ld rss_kb=%ld", after.dead, rss_kb);
    if (updated > 0)
        (void)printf(" hot_percent=%.1f",
                     100.0 * (double)(after.hot - before->hot) / (double)updated);
}

int main(int argc, char **argv)
{
    if (argc < 8) {
        (void)fprintf(stderr, "usage: bench_watch CONNINFO TABLE FIRST LAST SERVER_PID SECONDS "
                              "COMMAND [ARG...]\n");
        return 64;
    }
    long first = bench_number(argv[3], 1, "FIRST");
    long last = bench_number(argv[4], first + 1, "LAST");
    pid_t server = (pid_t)bench_number(argv[5], 0, "SERVER_PID");
    uint64_t limit_us = (uint64_t)bench_number(argv[6], 1, "SECONDS") * 1000000;
    conn = bench_connect(argv[1]);
    prepare(argv[2]);
    if (there(first, first, "1") == 0 || there(last, last, "1") == 0)
        bench_die("bench_watch", "no such jobs");
    struct written before = read_written();
    uint64_t start_us = clock_mono_us();
    start(argv + 7);
    if (!wait_gone(first, first, start_us + limit_us))
        bench_die("bench_watch", "nothing has happened");
    struct mark begin = bench_mark(conn, server, command);
    long low = last - first > WINDOW ? last - WINDOW : first + 1;
    bool is_complete = wait_gone(low, last, begin.mono_us + limit_us);
    struct mark end = bench_mark(conn, server, command);
    long left = is_complete ? 0 : there(first + 1, last, "NULL");
    print(&begin, &end, (double)(last - first - left), &before);
    (void)printf(" start_ms=%.1f\n", (double)(begin.mono_us - start_us) / 1e3);
    PQfinish(conn);
    return 0;
}
