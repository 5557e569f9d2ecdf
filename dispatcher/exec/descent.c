#define _GNU_SOURCE
/* descent.c - see descent.h. */
#include "exec/descent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* True if it is one of those meant. A pid from the list is ours and not reaped, so it can't be
 * reused under our hands, nor can the group of that number belong to anybody else. */
static bool kill_child(pid_t pid, bool other_sessions_only)
{
    if (other_sessions_only && getsid(pid) == getsid(0))
        return false;
    (void)kill(-pid, SIGKILL); /* ESRCH: it leads no group */
    (void)kill(pid, SIGKILL);  /* EPERM: set-uid; wait for its end */
    (void)waitpid(pid, NULL, WNOHANG);
    return true;
}

/* No stdio and no malloc: also called in a process forked from one with threads. */
int descent_kill(bool other_sessions_only)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int seen = 0;
    pid_t pid = 0;
    char text[4096];
    ssize_t n;
    while ((n = read(fd, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = pid * 10 + (text[i] - '0');
            } else if (pid > 0) {
                seen += kill_child(pid, other_sessions_only) ? 1 : 0;
                pid = 0;
            }
        }
    }
    (void)close(fd);
    return seen;
}
