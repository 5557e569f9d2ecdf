/* hold.c - keeps transactions open: an old snapshot, or writers that have not committed.
 *
 *   bench_hold CONNINFO COUNT SQL
 *
 * Runs SQL (which begins a transaction) on COUNT connections, prints "held", and keeps them until
 * it is ended. */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "lib.h"

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: bench_hold CONNINFO COUNT SQL\n");
        return 64;
    }
    for (long left = bench_number(argv[2], 1, "COUNT"); left > 0; left--) {
        PGconn *conn = bench_connect(argv[1]); /* ended with the program, by the server */
        PGresult *res = PQexec(conn, argv[3]);
        if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
            bench_die(argv[3], PQerrorMessage(conn));
        PQclear(res);
    }
    (void)puts("held");
    (void)fflush(stdout);
    for (;;)
        (void)pause();
}
