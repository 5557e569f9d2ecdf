/* lib.c - see lib.h. Times of living processes are the scheduler's own, in nanoseconds; of children
 * that have been waited for, the kernel tells ticks of 10 ms in all. */
#define _GNU_SOURCE
#include "lib.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

void bench_die(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

long bench_number(const char *text, long min, const char *name)
{
    char *end = NULL;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < min) {
        (void)fprintf(stderr, "%s: a number from %ld on, not \"%s\"\n", name, min, text);
        exit(64);
    }
    return n;
}

PGconn *bench_connect(const char *conninfo)
{
    PGconn *conn = PQconnectdb(conninfo);
    if (PQstatus(conn) != CONNECTION_OK)
        bench_die("connect", PQerrorMessage(conn));
    return conn;
}

PGresult *bench_query(PGconn *conn, const char *sql, ExecStatusType expected)
{
    PGresult *res = PQexec(conn, sql);
    if (PQresultStatus(res) != expected)
        bench_die(sql, PQerrorMessage(conn));
    return res;
}

void bench_exec(PGconn *conn, const char *sql)
{
    PQclear(bench_query(conn, sql, PGRES_COMMAND_OK));
}

void bench_sleep_us(uint64_t us)
{
    struct timespec ts = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    (void)nanosleep(&ts, NULL);
}

void bench_tell_port(const char *path, int port)
{
    char fresh[4096];
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "we");
    if (file == NULL || fprintf(file, "%d\n", port) < 0 || fclose(file) != 0 ||
        rename(fresh, path) != 0)
        bench_die(path, strerror(errno));
}

/* Ticks of the children that a process has waited for; *ret_parent is its parent. */
static uint64_t reaped_ticks(const char *pid, pid_t *ret_parent)
{
    char path[300];
    char text[1024] = "";
    *ret_parent = 0;
    (void)snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    (void)!fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    /* The name may hold anything, so fields are counted from the last parenthesis: state, the
     * parent, 9 others, user and system ticks, and the same of children. */
    char *at = strrchr(text, ')');
    if (at == NULL || strlen(at) < 4)
        return 0;
    at += 3;
    uint64_t ticks = 0;
    for (int field = 4; field <= 17; field++) {
        char *end = NULL;
        long long value = strtoll(at, &end, 10);
        if (end == at)
            return 0;
        if (field == 4)
            *ret_parent = (pid_t)value;
        if (field >= 16)
            ticks += (uint64_t)value;
        at = end;
    }
    return ticks;
}

static bool is_number(const char *name)
{
    return isdigit((unsigned char)name[0]) != 0;
}

/* Nanoseconds of all threads of a process. */
static uint64_t own_ns(const char *pid)
{
    char path[600];
    uint64_t ns = 0;
    (void)snprintf(path, sizeof path, "/proc/%s/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return 0; /* it has ended */
    for (const struct dirent *e = readdir(tasks); e != NULL; e = readdir(tasks)) {
        char text[128] = "";
        if (!is_number(e->d_name))
            continue;
        (void)snprintf(path, sizeof path, "/proc/%s/task/%s/schedstat", pid, e->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            continue;
        (void)!fread(text, 1, sizeof text - 1, file);
        (void)fclose(file);
        ns += strtoull(text, NULL, 10);
    }
    (void)closedir(tasks);
    return ns;
}

static uint64_t tree_cpu_us(pid_t pid)
{
    char name[16];
    pid_t parent;
    if (pid == 0)
        return 0;
    (void)snprintf(name, sizeof name, "%d", (int)pid);
    uint64_t ticks = reaped_ticks(name, &parent);
    uint64_t ns = own_ns(name);
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        bench_die("/proc", strerror(errno));
    for (const struct dirent *e = readdir(proc); e != NULL; e = readdir(proc)) {
        if (!is_number(e->d_name))
            continue;
        uint64_t of_child = reaped_ticks(e->d_name, &parent);
        if (parent != pid)
            continue;
        ticks += of_child;
        ns += own_ns(e->d_name);
    }
    (void)closedir(proc);
    return ticks * (1000000U / (uint64_t)sysconf(_SC_CLK_TCK)) + ns / 1000;
}

struct mark bench_mark(PGconn *conn, pid_t server, pid_t process)
{
    struct mark m = {.mono_us = clock_mono_us()};
    PGresult *res =
        bench_query(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn", PGRES_TUPLES_OK);
    m.wal_bytes = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    m.server_cpu_us = tree_cpu_us(server);
    m.process_cpu_us = tree_cpu_us(process);
    return m;
}

void bench_print_costs(const struct mark *begin, const struct mark *end, double count)
{
    (void)printf(" wal_bytes=%.0f server_us=%.1f process_us=%.1f",
                 (double)(end->wal_bytes - begin->wal_bytes) / count,
                 (double)(end->server_cpu_us - begin->server_cpu_us) / count,
                 (double)(end->process_cpu_us - begin->process_cpu_us) / count);
}

static int compare(const void *a, const void *b)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    return (*x > *y) - (*x < *y);
}

uint32_t bench_percentile(uint32_t *values, size_t count, double part)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare);
    size_t at = (size_t)(part * (double)count);
    return values[at < count ? at : count - 1];
}

size_t bench_request_len(const char *head, size_t got)
{
    static const char name[] = "\r\nContent-Length: "; /* some clients write it small */
    const char *end = memmem(head, got, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    for (const char *at = head; at + sizeof name - 1 < end; at++) {
        if (strncasecmp(at, name, sizeof name - 1) == 0)
            return (size_t)(end - head) + 4 + strtoul(at + sizeof name - 1, NULL, 10);
    }
    return 0;
}
