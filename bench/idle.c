/* idle.c - what a dispatcher costs while it waits: memory, statements, processor time.
 *
 *   bench_idle CONNINFO DATABASE SERVER_PID DISPATCHER_PID SECONDS
 *
 * CONNINFO is of another database than DATABASE, so that only the dispatcher's statements count
 * there (from pg_stat_statements, if the server has it). Memory is read at the end: of the
 * dispatcher, and of its child, the spawner. Prints one line of name=value. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

struct memory {
    long rss_kb;
    long pss_kb;
    long private_kb;
};

/* Private: pages of no other program. Those which dispatcher and spawner share since the fork are
 * anonymous, and count in each. */
static struct memory memory_of(long pid)
{
    struct memory m = {0};
    long clean_kb = 0;
    long dirty_kb = 0;
    long anonymous_kb = 0;
    char path[64];
    char line[256];
    (void)snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        bench_die(path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        if (value == NULL)
            continue;
        long kb = strtol(value + 1, NULL, 10);
        if (strncmp(line, "Rss:", 4) == 0)
            m.rss_kb = kb;
        if (strncmp(line, "Pss:", 4) == 0)
            m.pss_kb = kb;
        if (strncmp(line, "Private_Clean:", 14) == 0)
            clean_kb = kb;
        if (strncmp(line, "Private_Dirty:", 14) == 0)
            dirty_kb = kb;
        if (strncmp(line, "Anonymous:", 10) == 0)
            anonymous_kb = kb;
    }
    (void)fclose(file);
    m.private_kb = clean_kb + (anonymous_kb > dirty_kb ? anonymous_kb : dirty_kb);
    return m;
}

static long first_child(long pid)
{
    char path[64];
    char text[256] = "";
    (void)snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", pid, pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    (void)!fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    return strtol(text, NULL, 10);
}

/* Nanoseconds of processor time of a process that has one thread. */
static double cpu_ns(long pid)
{
    char path[64];
    char text[128] = "";
    (void)snprintf(path, sizeof path, "/proc/%ld/schedstat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    (void)!fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    return strtod(text, NULL);
}

static double statements(PGconn *conn, const char *database)
{
    const char *values[1] = {database};
    PGresult *res = PQexecParams(conn,
                                 "SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements s"
                                 " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1",
                                 1, NULL, values, NULL, NULL, 0);
    double n = PQresultStatus(res) == PGRES_TUPLES_OK ? strtod(PQgetvalue(res, 0, 0), NULL) : -1;
    PQclear(res);
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        (void)fprintf(stderr,
                      "usage: bench_idle CONNINFO DATABASE SERVER_PID DISPATCHER_PID SECONDS\n");
        return 64;
    }
    pid_t server = (pid_t)bench_number(argv[3], 1, "SERVER_PID");
    pid_t dispatcher = (pid_t)bench_number(argv[4], 1, "DISPATCHER_PID");
    long seconds = bench_number(argv[5], 1, "SECONDS");
    PGconn *conn = bench_connect(argv[1]);
    double statements_begin = statements(conn, argv[2]);
    long child = first_child(dispatcher);
    double cpu_begin_ns = cpu_ns(dispatcher) + cpu_ns(child);
    struct mark begin = bench_mark(conn, server, dispatcher);
    bench_sleep_us((uint64_t)seconds * 1000000);
    struct mark end = bench_mark(conn, server, dispatcher);
    double cpu_end_ns = cpu_ns(dispatcher) + cpu_ns(child);
    double statements_end = statements(conn, argv[2]);
    struct memory own = memory_of(dispatcher);
    struct memory spawner = child > 0 ? memory_of(child) : (struct memory){0};
    double elapsed_us = (double)(end.mono_us - begin.mono_us);
    (void)printf(
        "rss_kb=%ld private_kb=%ld spawner_rss_kb=%ld spawner_private_kb=%ld both_pss_kb=%ld",
        own.rss_kb, own.private_kb, spawner.rss_kb, spawner.private_kb,
        own.pss_kb + spawner.pss_kb);
    (void)printf(" cpu_percent=%.3f server_cpu_percent=%.3f",
                 (cpu_end_ns - cpu_begin_ns) / 10 / elapsed_us,
                 (double)(end.server_cpu_us - begin.server_cpu_us) * 100 / elapsed_us);
    if (statements_begin >= 0)
        (void)printf(" statements_per_s=%.2f",
                     (statements_end - statements_begin) * 1e6 / elapsed_us);
    (void)printf("\n");
    PQfinish(conn);
    return 0;
}
