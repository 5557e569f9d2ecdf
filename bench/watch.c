/* watch.c - how fast the jobs FIRST (excluded) to LAST leave outbox.job while a command runs that
 * takes them away: the dispatcher, or a bare loop.
 *
 *   bench_watch CONNINFO FIRST LAST SERVER_PID SECONDS COMMAND [ARG...]
 *
 * Starts the command, and asks once a millisecond, by primary key, until FIRST is gone: the clock
 * starts. It stops when the last WINDOW ids before LAST are gone too (jobs do not leave in exactly
 * the order of their ids), or after SECONDS: then what is left is counted. The command is ended
 * with TERM, and waited for. Prints one line of name=value; the command writes to standard error.
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

enum { WINDOW = 500, PAUSE_US = 1000 };

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

/* How many of the ids low to high are there; with limit 1 only whether any is. */
static long there(long low, long high, const char *limit)
{
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM (SELECT FROM outbox.job WHERE id BETWEEN %ld AND %ld"
                   " LIMIT %s) AS j",
                   low, high, limit);
    PGresult *res = bench_query(conn, sql, PGRES_TUPLES_OK);
    long n = strtol(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return n;
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

int main(int argc, char **argv)
{
    if (argc < 7) {
        (void)fprintf(stderr, "usage: bench_watch CONNINFO FIRST LAST SERVER_PID SECONDS "
                              "COMMAND [ARG...]\n");
        return 64;
    }
    long first = bench_number(argv[2], 1, "FIRST");
    long last = bench_number(argv[3], first + 1, "LAST");
    pid_t server = (pid_t)bench_number(argv[4], 0, "SERVER_PID");
    uint64_t limit_us = (uint64_t)bench_number(argv[5], 1, "SECONDS") * 1000000;
    conn = bench_connect(argv[1]);
    /* There are no statistics yet: whatever the planner thinks, the primary key is meant. */
    bench_exec(conn, "SET enable_seqscan = off");
    bench_exec(conn, "SET enable_bitmapscan = off");
    if (there(first, first, "1") == 0 || there(last, last, "1") == 0)
        bench_die("bench_watch", "no such jobs");
    start(argv + 6);
    if (!wait_gone(first, first, clock_mono_us() + limit_us))
        bench_die("bench_watch", "nothing has happened");
    struct mark begin = bench_mark(conn, server, command);
    long low = last - first > WINDOW ? last - WINDOW : first + 1;
    bool is_complete = wait_gone(low, last, begin.mono_us + limit_us);
    struct mark end = bench_mark(conn, server, command);
    long left = is_complete ? 0 : there(first + 1, last, "ALL");
    (void)kill(command, SIGTERM);
    (void)waitpid(command, NULL, 0);
    double done = (double)(last - first - left);
    double elapsed_us = (double)(end.mono_us - begin.mono_us);
    (void)printf("jobs_per_s=%.0f jobs=%.0f ms=%.1f", done * 1e6 / elapsed_us, done,
                 elapsed_us / 1e3);
    bench_print_costs(&begin, &end, done > 0 ? done : 1);
    (void)printf("\n");
    PQfinish(conn);
    return 0;
}
