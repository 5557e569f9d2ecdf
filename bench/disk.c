/* disk.c - how long a flush takes here: every commit waits for one.
 *
 *   bench_disk FOLDER
 *
 * Writes a page and flushes it with fdatasync, as PostgreSQL does with its log, two hundred times
 * over in a file that has its full length. Prints the median and the slowest tenth. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "lib.h"

enum { PAGE_BYTES = 8192, FLUSHES = 200 };

int main(int argc, char **argv)
{
    static char page[PAGE_BYTES];
    static uint32_t times_us[FLUSHES];
    char path[4096];
    if (argc != 2) {
        (void)fprintf(stderr, "usage: bench_disk FOLDER\n");
        return 64;
    }
    (void)snprintf(path, sizeof path, "%s/flushes", argv[1]);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        bench_die(path, strerror(errno));
    memset(page, 1, sizeof page);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < FLUSHES; i++) {
            uint64_t begin_us = clock_mono_us();
            if (pwrite(fd, page, sizeof page, (off_t)i * PAGE_BYTES) != PAGE_BYTES ||
                (pass == 1 && fdatasync(fd) != 0))
                bench_die(path, strerror(errno));
            times_us[i] = (uint32_t)(clock_mono_us() - begin_us);
        }
        if (fsync(fd) != 0)
            bench_die(path, strerror(errno));
    }
    (void)printf("flush_us=%u flush_p90_us=%u\n", bench_percentile(times_us, FLUSHES, 0.5),
                 bench_percentile(times_us, FLUSHES, 0.9));
    (void)close(fd);
    (void)unlink(path);
    return 0;
}
