#define _GNU_SOURCE
#include "child.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wait.h"

pid_t child_fork(int deathsig)
{
    (void)fflush(NULL);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        abort();
    }
    if (pid == 0 && deathsig != 0) {
        (void)prctl(PR_SET_PDEATHSIG, deathsig);
        if (getppid() != parent) /* it died before the line above */
            _exit(1);
    }
    return pid;
}

int child_exit_code(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

int child_wait(pid_t pid, unsigned ms)
{
    int status = 0;
    if (!wait_until(waitpid(pid, &status, WNOHANG) != 0, ms))
        return -1;
    return child_exit_code(status);
}

void child_kill(pid_t pid)
{
    if (pid <= 0)
        return;
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

bool write_all(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

char *read_file_from(const char *path, off_t offset, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct stat st;
    size_t size = fstat(fd, &st) == 0 && st.st_size > offset ? (size_t)(st.st_size - offset) : 0;
    char *text = malloc(size + 1);
    size_t len = 0;
    while (text != NULL && len < size) {
        ssize_t n = pread(fd, text + len, size - len, offset + (off_t)len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    (void)close(fd);
    if (text != NULL)
        text[len] = '\0';
    if (ret_len != NULL)
        *ret_len = len;
    return text;
}

static int on_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    (void)remove(path);
    return 0;
}

void remove_tree(const char *path)
{
    (void)nftw(path, on_entry, 32, FTW_DEPTH | FTW_PHYS);
}

int listen_loopback(int *ret_port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, 512) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0) {
        perror("listen on 127.0.0.1");
        abort();
    }
    *ret_port = ntohs(addr.sin_port);
    return fd;
}
