/* See serverclock.h. */
#define _GNU_SOURCE
#include "serverclock.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ck_main.h"
#include "daemon.h"
#include "pgcluster.h"

static volatile int64_t *offset_ns; /* shared with the server, and with the tests forked from us */

void serverclock_prepare(void)
{
    static char path[160];
    static char preload[300];
    static const char *environment[] = {preload, path, NULL};
    (void)snprintf(path, sizeof path, "OB_TEST_CLOCK=%s/server-clock", test_dir());
    (void)snprintf(preload, sizeof preload, "LD_PRELOAD=%s", OB_TEST_CLOCK_LIBRARY);
    int fd = open(path + sizeof "OB_TEST_CLOCK", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fchmod(fd, 0644), 0); /* the server is another user */
    ck_assert_int_eq(ftruncate(fd, sizeof *offset_ns), 0);
    void *page = mmap(NULL, sizeof *offset_ns, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(page, MAP_FAILED);
    (void)close(fd);
    offset_ns = page;
    pgcluster_set_environment(environment);
}

void serverclock_set(long seconds)
{
    ck_assert_ptr_nonnull((const void *)(uintptr_t)offset_ns);
    *offset_ns = (int64_t)seconds * 1000000000;
}
