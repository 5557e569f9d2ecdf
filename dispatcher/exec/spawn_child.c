#define _GNU_SOURCE
/* spawn_child.c - see spawn_child.h. Shares its memory with the spawner until execve. */
#include "exec/spawn_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Written by the child, read by its suspended parent: vfork shares the memory, so a failure needs
 * no pipe and is never mistaken for an exit code. */
static volatile struct spawn_failure child_failure;

OB_NORETURN static void child_fail(enum spawn_stage stage)
{
    child_failure.errnum = errno;
    child_failure.stage = stage;
    _exit(127);
}

/* The kernel's first victim when memory is short should be a job, not the daemon. Best effort. */
static void prefer_as_oom_victim(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = write(fd, "500", 3);
    (void)n;
    (void)close(fd);
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
    prefer_as_oom_victim();
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
    pid_t pid = vfork();
    if (pid == 0)
        child_run(plan, spawner);
    if (pid < 0) {
        *ret_failure = (struct spawn_failure){SPAWN_STAGE_FORK, errno};
        return -1;
    }
    if (child_failure.stage == SPAWN_STAGE_NONE)
        return pid;
    *ret_failure = (struct spawn_failure){child_failure.stage, child_failure.errnum};
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return -1;
}
