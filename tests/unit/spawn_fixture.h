/* spawn_fixture.h - a loop, a spawner and its client for one test; children whose fate is recorded.
 *
 * The test process is a subreaper (spawn_client_new makes it one), so whatever survives the spawner
 * becomes its child: fixture_close fails the test unless no child at all is left. */
#ifndef OB_TEST_SPAWN_FIXTURE_H
#define OB_TEST_SPAWN_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "exec/spawn_client.h"
#include "exec/spawner.h"
#include "wait.h"

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick; /* so that uv_run returns to look at conditions */
    struct spawner spawner;
    struct spawn_client *client;
    int lost_count;
    bool is_closed;
};

struct child_record {
    struct spawn_handle *handle;
    bool is_started;
    bool is_failed;
    bool is_exited;
    pid_t pid;
    int wait_status;
    int errnum;
    char stage[32];
};

static struct fixture fx;

/* Runs the loop until cond holds or ms have passed; fails the test if it never does. */
#define pump_until(cond, ms)                                                                       \
    do {                                                                                           \
        uint64_t pump_deadline_ = wait_now_ms() + (uint64_t)(ms);                                  \
        while (!(cond) && wait_now_ms() < pump_deadline_)                                          \
            (void)uv_run(&fx.loop, UV_RUN_ONCE);                                                   \
        ck_assert_msg((cond), "not in time: %s", #cond);                                           \
    } while (0)

static inline void on_fixture_tick(uv_timer_t *timer)
{
    (void)timer;
}

static inline void on_fixture_lost(void *arg)
{
    struct fixture *f = arg;
    f->lost_count++;
}

static inline void fixture_open(void)
{
    memset(&fx, 0, sizeof fx);
    ck_assert_int_eq(spawner_fork(&fx.spawner), 0);
    ck_assert_int_eq(uv_loop_init(&fx.loop), 0);
    ck_assert_int_eq(uv_timer_init(&fx.loop, &fx.tick), 0);
    ck_assert_int_eq(uv_timer_start(&fx.tick, on_fixture_tick, 10, 10), 0);
    ck_assert_int_eq(spawn_client_new(&fx.loop, &fx.spawner, on_fixture_lost, &fx, &fx.client), 0);
}

static inline void on_fixture_closed(void *arg)
{
    struct fixture *f = arg;
    f->is_closed = true;
}

static inline void fixture_close(void)
{
    spawn_client_close(fx.client, on_fixture_closed, &fx);
    pump_until(fx.is_closed, 10000);
    uv_close((uv_handle_t *)&fx.tick, NULL);
    (void)uv_run(&fx.loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&fx.loop), 0);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
}

static inline void on_child_started(void *arg, pid_t pid, int pidfd)
{
    struct child_record *r = arg;
    ck_assert(!r->is_started && !r->is_failed && !r->is_exited);
    ck_assert_int_ge(pidfd, 0);
    r->is_started = true;
    r->pid = pid;
}

static inline void on_child_failed(void *arg, const char *stage, int errnum)
{
    struct child_record *r = arg;
    ck_assert(!r->is_started && !r->is_failed && !r->is_exited);
    r->is_failed = true;
    r->errnum = errnum;
    (void)snprintf(r->stage, sizeof r->stage, "%s", stage);
}

static inline void on_child_exit(void *arg, int wait_status)
{
    struct child_record *r = arg;
    ck_assert(!r->is_exited);
    ck_assert(r->is_started || wait_status == SPAWN_EXIT_LOST);
    r->is_exited = true;
    r->wait_status = wait_status;
}

static const struct spawn_callbacks child_callbacks = {
    .on_started = on_child_started, .on_failed = on_child_failed, .on_exit = on_child_exit};

/* Asks for argv (NULL-terminated) with an empty environment but PATH; out_fd: stdout and stderr, or
 * -1. */
static inline int child_spawn(struct child_record *r, const char *const *argv, int out_fd)
{
    static char path[] = "PATH=/usr/bin:/bin";
    char *envp[] = {path, NULL};
    struct spawn_request request = {.argv = (char *const *)(uintptr_t)argv,
                                    .envp = envp,
                                    .umask = -1,
                                    .stdin_fd = -1,
                                    .stdout_fd = out_fd,
                                    .stderr_fd = out_fd};
    memset(r, 0, sizeof *r);
    return spawn_client_spawn(fx.client, &request, &child_callbacks, r, &r->handle);
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* `sh -c script`, which must be accepted. */
static inline void child_shell(struct child_record *r, const char *script, int out_fd)
{
    ck_assert_int_eq(child_spawn(r, ARGV("/bin/sh", "-c", script), out_fd), 0);
}

/* The same to its end; its exit code. */
static inline int child_shell_run(const char *script, int out_fd)
{
    struct child_record r;
    child_shell(&r, script, out_fd);
    pump_until(r.is_exited || r.is_failed, 10000);
    ck_assert(r.is_exited && WIFEXITED(r.wait_status));
    return WEXITSTATUS(r.wait_status);
}

/* What was written to a file so far, as a string; static storage. */
static inline const char *fd_text(int fd)
{
    static char text[16384];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    return text;
}

/* O_APPEND: the kernel does not serialize the offset that writers of one memfd share, so two
 * children that write at once would overwrite each other. */
static inline int scratch_file(void)
{
    int fd = memfd_create("scratch", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_APPEND), 0);
    return fd;
}

static inline size_t open_descriptors(pid_t pid)
{
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[96];
        char target[16];
        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        count += readlink(path, target, sizeof target) >= 0 ? 1 : 0;
    }
    return count;
}

static inline bool spawner_has_children(void)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)fx.spawner.pid,
                   (int)fx.spawner.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    bool has = fd_text(fd)[0] != '\0';
    (void)close(fd);
    return has;
}

/* The process is gone, or a zombie. */
static inline bool process_is_over(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    char text[512];
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0)
        return true;
    text[n] = '\0';
    const char *state = strrchr(text, ')');
    return state == NULL || state[2] == 'Z' || state[2] == 'X';
}

#endif
