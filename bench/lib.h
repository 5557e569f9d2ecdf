/* lib.h - what the benchmark programs share: connections that end the program when something fails,
 * and marks: the clock, the WAL and the processor time so far, two of which make a measurement. */
#ifndef BENCH_LIB_H
#define BENCH_LIB_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <libpq-fe.h>

/* Prints "what: why" and ends the program with 1. */
__attribute__((noreturn)) void bench_die(const char *what, const char *why);

/* A whole number from the command line, from min on; ends the program with 64 otherwise. */
long bench_number(const char *text, long min, const char *name);

PGconn *bench_connect(const char *conninfo);
/* Runs sql; any outcome but `expected` ends the program. The caller clears. */
PGresult *bench_query(PGconn *conn, const char *sql, ExecStatusType expected);
void bench_exec(PGconn *conn, const char *sql);

void bench_sleep_us(uint64_t us);

/* Writes the port into a new file at path, which is there only once it is whole. */
void bench_tell_port(const char *path, int port);

struct mark {
    uint64_t mono_us;
    uint64_t wal_bytes;      /* written by the whole server */
    uint64_t server_cpu_us;  /* of the postmaster, its children and those it has waited for */
    uint64_t process_cpu_us; /* of one process, its children and those they have waited for */
};

/* process 0: none. */
struct mark bench_mark(PGconn *conn, pid_t server, pid_t process);
/* Prints " wal_bytes=… server_us=… process_us=…", each divided by count; no line end. */
void bench_print_costs(const struct mark *begin, const struct mark *end, double count);

/* Sorts, and gives the value that `part` (0 to 1) of them do not exceed. */
uint32_t bench_percentile(uint32_t *values, size_t count, double part);

/* Bytes of a whole HTTP request, once its head is within the first `got` bytes; else 0. */
size_t bench_request_len(const char *head, size_t got);

#endif
