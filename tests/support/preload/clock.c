/* Loaded into the test's server by LD_PRELOAD: its wall clock is the machine's plus an offset that
 * lies in a file (OB_TEST_CLOCK, eight bytes, nanoseconds), which serverclock.c writes. Clocks that
 * only run forward stay as they are, as on a machine whose time somebody sets. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { NS = 1000000000 };

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void find_offset(void)
{
    const char *path = getenv("OB_TEST_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, sizeof *offset_ns, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        (void)close(fd);
    if (page != MAP_FAILED)
        offset_ns = page;
}

static int real_time(clockid_t id, struct timespec *ts)
{
    return (int)syscall(SYS_clock_gettime, id, ts);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = real_time(id, ts);
    bool is_wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    if (rc != 0 || !is_wall || offset_ns == NULL)
        return rc;
    int64_t ns = (int64_t)ts->tv_sec * NS + ts->tv_nsec + *offset_ns;
    ts->tv_sec = ns / NS;
    ts->tv_nsec = ns % NS;
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts = {0};
    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *ret_now)
{
    struct timespec ts = {0};
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (ret_now != NULL)
        *ret_now = ts.tv_sec;
    return ts.tv_sec;
}
