#define _GNU_SOURCE
/* spawn_child.c - see spawn_child.h. Shares its memory with the spawner until execve. */
#include "exec/spawn_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Written by the child, read by its suspended parent: vfork shares the memory, so a failure needs
 * no pipe and is never mistaken for an exit code. */
static volatile struct spawn_failure child_failure;

/* The kernel's first victim when memory is short should be a job, not the daemon. Children inherit
 * what is the spawner's while they are started: that costs less than each opening a file of its own
 * in /proc. */
static const char child_oom_score[] = "500";

static struct {
    int fd;        /* our /proc/self/oom_score_adj; -1: children keep what is ours */
    char text[16]; /* ours */
} oom_score = {.fd = -1};

void spawn_child_set_up(void)
{
    char *own = oom_score.text;
    oom_score.fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    ssize_t n = oom_score.fd >= 0 ? pread(oom_score.fd, own, sizeof oom_score.text - 1, 0) : 0;
    own[n > 0 ? n : 0] = '\0';
    if (n > 0 && strtol(own, NULL, 10) < strtol(child_oom_score, NULL, 10))
        return;
    if (oom_score.fd >= 0)
        (void)close(oom_score.fd);
    oom_score.fd = -1;
}

/* Best effort. It may always be lowered again to what it was, also without privileges. */
static void set_oom_score(const char *text)
{
    ssize_t n = oom_score.fd >= 0 ? pwrite(oom_score.fd, text, strlen(text), 0) : 0;
    (void)n;
}

OB_NORETURN static void child_fail(enum spawn_stage stage)
{
    child_failure.errnum = errno;
    child_failure.stage = stage;
    _exit(127);
}

/* The child's side: only async-signal-safe calls, no memory of the parent's changed but
 * child_failure. */
OB_NORETURN static void child_run(const struct spawn_plan *plan, pid_t spawner)
{
    if (setsid() < 0)
        child_fail(SPAWN_STAGE_SESSION);
    /* The signal goes out when the parent dies; if it died before this line, nobody would send it.
     * Compared with the known pid, not with 1: orphans go to a subreaper. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != spawner)
        child_fail(SPAWN_STAGE_SESSION);
    for (int i = 0; i < 3; i++) {
        if (dup2(plan->stdio[i], i) < 0)
            child_fail(SPAWN_STAGE_STDIO);
    }
    /* Everything of the spawner is CLOEXEC; this is the second lock on the door, and may be
     * forbidden by a seccomp filter. */
    (void)syscall(SYS_close_range, 3U, ~0U, 0U);
    if (plan->umask >= 0)
        (void)umask((mode_t)plan->umask);
    if (plan->cwd != NULL && chdir(plan->cwd) != 0)
        child_fail(SPAWN_STAGE_DIRECTORY);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execve(plan->argv[0], plan->argv, plan->envp);
    if (errno == ENOENT && access(plan->argv[0], F_OK) == 0) {
        errno = ENOENT;
        child_fail(SPAWN_STAGE_INTERPRETER);
    }
    child_fail(SPAWN_STAGE_EXEC);
}

pid_t spawn_child_start(const struct spawn_plan *plan, struct spawn_failure *ret_failure)
{
    pid_t spawner = getpid();
    child_failure.stage = SPAWN_STAGE_NONE;
    child_failure.errnum = 0;
    set_oom_score(child_oom_score);
    pid_t pid = vfork();
    if (pid == 0)
        child_run(plan, spawner);
    int err = errno;
    set_oom_score(oom_score.text);
    if (pid < 0) {
        *ret_failure = (struct spawn_failure){SPAWN_STAGE_FORK, err};
        return -1;
    }
    if (child_failure.stage == SPAWN_STAGE_NONE)
        return pid;
    *ret_failure = (struct spawn_failure){child_failure.stage, child_failure.errnum};
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return -1;
}
