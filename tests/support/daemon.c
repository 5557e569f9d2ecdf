/* The program under test as a child process. */
#define _GNU_SOURCE
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "pgcluster.h"
#include "wait.h"

enum {
    ARGS_MAX = 64,
    READY_MS = 30000,
    STOP_MS = 40000,
    COMMAND_MS = 60000,
    OUTPUT_MAX = 16 << 20
};

#define PROGRAM OB_TEST_BUILD_DIR "/bin/outbox"

/* In the child: nothing of the caller's PG* or OUTBOX_* settings, the test's database, extra_env.
 */
static void set_environment(const char *const *extra_env)
{
    for (size_t i = 0; environ[i] != NULL;) {
        const char *equals = strchr(environ[i], '=');
        char name[128];
        if (equals == NULL || (size_t)(equals - environ[i]) >= sizeof name ||
            (strncmp(environ[i], "PG", 2) != 0 && strncmp(environ[i], "OUTBOX_", 7) != 0)) {
            i++;
            continue;
        }
        (void)snprintf(name, sizeof name, "%.*s", (int)(equals - environ[i]), environ[i]);
        (void)unsetenv(name); /* moves the next one to i */
    }
    if (testdb_conninfo()[0] != '\0')
        (void)setenv("OUTBOX_DATABASE", testdb_conninfo(), 1);
    for (; extra_env != NULL && *extra_env != NULL; extra_env++) {
        char *copy = strdup(*extra_env);
        if (copy == NULL || putenv(copy) != 0)
            _exit(126);
    }
}

static void exec_outbox(const char *lock_dir, const char *const *args, const char *const *extra_env)
{
    const char *argv[ARGS_MAX] = {PROGRAM};
    size_t n = 1;
    if (lock_dir != NULL) { /* a test that wants another one says so later on the line */
        argv[n++] = "run";
        argv[n++] = "--lock-dir";
        argv[n++] = lock_dir;
    }
    for (; args != NULL && *args != NULL && n < ARGS_MAX - 1; args++)
        argv[n++] = *args;
    set_environment(extra_env);
    (void)execv(PROGRAM, (char *const *)(uintptr_t)argv);
    (void)fprintf(stderr, "%s: %s\n", PROGRAM, strerror(errno));
    _exit(127);
}

static void show_log(const struct daemon *d)
{
    char *text = read_file_from(d->log_path, 0, NULL);
    (void)fprintf(stderr, "--- log of outbox run\n%s---\n", text != NULL ? text : "(none)\n");
    free(text);
}

void daemon_start(struct daemon *d, const char *const *args, const char *const *extra_env)
{
    static unsigned count;
    const char *dir = test_dir(); /* the test's, not the child's */
    (void)snprintf(d->log_path, sizeof d->log_path, "%s/daemon-%u.log", dir, ++count);
    int log_fd = open(d->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0)
        ck_abort_msg("%s: %s", d->log_path, strerror(errno));
    d->pid = child_fork(SIGKILL);
    if (d->pid == 0) {
        int null_fd = open("/dev/null", O_RDONLY);
        (void)dup2(null_fd, 0);
        (void)dup2(log_fd, 1);
        (void)dup2(log_fd, 2);
        (void)close_range(3, ~0U, 0);
        exec_outbox(dir, args, extra_env);
    }
    (void)close(log_fd);
}

void daemon_start_ready(struct daemon *d, const char *const *args, const char *const *extra_env)
{
    daemon_start(d, args, extra_env);
    daemon_expect_log(d, "event=ready", READY_MS);
}

void daemon_kill(struct daemon *d, int signum)
{
    ck_assert_int_gt(d->pid, 0);
    ck_assert_int_eq(kill(d->pid, signum), 0);
}

int daemon_wait(struct daemon *d, unsigned ms)
{
    ck_assert_int_gt(d->pid, 0);
    int code = child_wait(d->pid, ms);
    if (code < 0) {
        show_log(d);
        ck_abort_msg("outbox run did not end within %u ms", ms);
    }
    d->pid = -1;
    return code;
}

void daemon_stop(struct daemon *d)
{
    daemon_kill(d, SIGTERM);
    int code = daemon_wait(d, STOP_MS);
    if (code != 0) {
        show_log(d);
        ck_abort_msg("outbox run ended with %d instead of 0", code);
    }
}

size_t daemon_log_count(const struct daemon *d, const char *text)
{
    char *log = read_file_from(d->log_path, 0, NULL);
    size_t count = 0;
    for (const char *at = log; at != NULL && (at = strstr(at, text)) != NULL; at += strlen(text))
        count++;
    free(log);
    return count;
}

bool daemon_logged(const struct daemon *d, const char *text)
{
    return daemon_log_count(d, text) > 0;
}

/* Whether the process has ended; it stays to be reaped by daemon_wait. */
static bool has_ended(const struct daemon *d)
{
    siginfo_t info = {0};
    return d->pid <= 0 || (waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                           info.si_pid != 0);
}

void daemon_expect_log(const struct daemon *d, const char *text, unsigned ms)
{
    bool ended = false;
    (void)wait_until((ended = has_ended(d)) || daemon_logged(d, text), ms);
    if (daemon_logged(d, text)) /* also what came between the two looks */
        return;
    show_log(d);
    ck_abort_msg("outbox run %s \"%s\"", ended ? "ended and had not logged" : "did not log", text);
}

struct stream { /* one pipe of a running command */
    int fd;
    char *data;
    size_t len;
};

static void stream_clear(struct stream *s)
{
    free(s->data);
    s->data = NULL;
    s->len = 0;
}

/* False at the end. */
static bool stream_read(struct stream *s)
{
    enum { STEP = 65536 };
    char *grown = realloc(s->data, s->len + STEP + 1);
    if (grown == NULL || s->len > OUTPUT_MAX)
        ck_abort_msg("the command printed too much");
    s->data = grown;
    ssize_t n = read(s->fd, s->data + s->len, STEP);
    s->len += n > 0 ? (size_t)n : 0;
    s->data[s->len] = '\0';
    return n > 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* Feeds input and collects both outputs until they end or the deadline passes. */
static bool exchange(int in_fd, const char *input, struct stream *out, struct stream *err)
{
    size_t left = input != NULL ? strlen(input) : 0;
    uint64_t deadline = wait_now_ms() + COMMAND_MS;
    if (left == 0)
        close_fd(&in_fd);
    while (out->fd >= 0 || err->fd >= 0) {
        struct pollfd polls[3] = {{in_fd, POLLOUT, 0}, {out->fd, POLLIN, 0}, {err->fd, POLLIN, 0}};
        if (wait_now_ms() > deadline)
            break;
        (void)poll(polls, 3, 100);
        if (polls[0].revents != 0) {
            ssize_t n = write(in_fd, input, left);
            input += n > 0 ? n : 0;
            left -= n > 0 ? (size_t)n : 0;
            if (left == 0 || (n < 0 && errno != EAGAIN))
                close_fd(&in_fd);
        }
        if (polls[1].revents != 0 && !stream_read(out))
            close_fd(&out->fd);
        if (polls[2].revents != 0 && !stream_read(err))
            close_fd(&err->fd);
    }
    bool ended = out->fd < 0 && err->fd < 0;
    close_fd(&in_fd);
    close_fd(&out->fd);
    close_fd(&err->fd);
    return ended;
}

struct command_result run_outbox(const char *input, const char *const *args)
{
    static struct stream out;
    static struct stream err;
    int in_pipe[2];
    int out_pipe[2];
    int err_pipe[2];
    stream_clear(&out);
    stream_clear(&err);
    if (pipe2(in_pipe, O_CLOEXEC) != 0 || pipe2(out_pipe, O_CLOEXEC) != 0 ||
        pipe2(err_pipe, O_CLOEXEC) != 0)
        ck_abort_msg("pipe: %s", strerror(errno));
    pid_t pid = child_fork(SIGKILL);
    if (pid == 0) {
        (void)dup2(in_pipe[0], 0);
        (void)dup2(out_pipe[1], 1);
        (void)dup2(err_pipe[1], 2);
        (void)signal(SIGPIPE, SIG_DFL);
        exec_outbox(NULL, args, NULL);
    }
    close_fd(&in_pipe[0]);
    close_fd(&out_pipe[1]);
    close_fd(&err_pipe[1]);
    (void)signal(SIGPIPE, SIG_IGN); /* a command need not read its input */
    (void)fcntl(in_pipe[1], F_SETFL, O_NONBLOCK);
    out.fd = out_pipe[0];
    err.fd = err_pipe[0];
    bool ended = exchange(in_pipe[1], input, &out, &err);
    int code = ended ? child_wait(pid, COMMAND_MS) : -1;
    if (code < 0) {
        child_kill(pid);
        ck_abort_msg("outbox %s did not end; it printed:\n%s%s", args[0] != NULL ? args[0] : "",
                     out.data, err.data);
    }
    return (struct command_result){.exit_code = code, .out = out.data, .err = err.data};
}
