/* The keeper of the postmasters, see pgkeeper.h. */
#define _GNU_SOURCE
#include "pgkeeper.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "child.h"
#include "ck_main.h"
#include "wait.h"

enum { READY_MS = 60000, COMMAND_MS = 90000, ARGS_MAX = 2 * PGKEEPER_OPTIONS_MAX + 32 };

struct message { /* a command and, with ok filled in, its answer */
    enum pgkeeper_op op;
    pid_t from;
    unsigned number;
    int ok;
};

/* ---- in the keeper ---- */

static const struct pgkeeper *keeper;
static pid_t postmasters[PGKEEPER_NODES]; /* 0: does not run */

void pgkeeper_program(const struct pgkeeper *k, char *out, size_t size, const char *program)
{
    (void)snprintf(out, size, "%s/%s", k->bindir, program);
}

/* In a new child: becomes the server's user, dies with the keeper, output to the log, and runs it.
 */
static void exec_as_owner(const char *const *argv)
{
    if (geteuid() == 0 && (setgid(keeper->owner.pw_gid) != 0 || setgroups(0, NULL) != 0 ||
                           setuid(keeper->owner.pw_uid) != 0))
        _exit(126);
    /* After the change of user, which clears it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (getppid() == 1)
        _exit(126);
    char log[64];
    (void)snprintf(log, sizeof log, "%s/server.log", keeper->dir);
    int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null_fd = open("/dev/null", O_RDONLY);
    if (log_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(126);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)close_range(3, ~0U, 0);
    if (chdir(keeper->dir) != 0)
        _exit(126);
    /* The server's environment is ours, so no time zone or locale of the machine decides a test. */
    (void)setenv("LC_ALL", "C", 1);
    (void)setenv("TZ", "UTC", 1);
    for (size_t i = 0; keeper->environment != NULL && keeper->environment[i] != NULL; i++) {
        char *copy = strdup(keeper->environment[i]);
        if (copy == NULL || putenv(copy) != 0)
            _exit(126);
    }
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static bool run_initdb(void)
{
    char initdb[300];
    pgkeeper_program(keeper, initdb, sizeof initdb, "initdb");
    const char *argv[] = {initdb,     "-D",        keeper->data, "-A",   "trust",      "-U",
                          "postgres", "--no-sync", "-E",         "UTF8", "--locale=C", NULL};
    pid_t pid = child_fork(0);
    if (pid == 0)
        exec_as_owner(argv);
    return child_wait(pid, READY_MS) == 0;
}

/* The standby's data need no memory: few tests have one. */
static void data_dir(int node, char *out, size_t size)
{
    if (node == PGKEEPER_PRIMARY)
        (void)snprintf(out, size, "%s", keeper->data);
    else
        (void)snprintf(out, size, "%s/standby", keeper->dir);
}

static void spawn_postmaster(int node)
{
    char program[300];
    char data[64];
    char port[32];
    pgkeeper_program(keeper, program, sizeof program, "postgres");
    data_dir(node, data, sizeof data);
    (void)snprintf(port, sizeof port, "port=%d", PGKEEPER_PORT + node);
    const char *argv[ARGS_MAX] = {program,
                                  "-D",
                                  data,
                                  "-k",
                                  keeper->dir,
                                  "-c",
                                  port,
                                  "-c",
                                  "listen_addresses=",
                                  "-c",
                                  "fsync=off",
                                  "-c",
                                  "shared_buffers=16MB",
                                  "-c",
                                  "log_line_prefix=%m [%p] %a ",
                                  "-c",
                                  "max_connections=100",
                                  "-c",
                                  "max_wal_size=128MB",
                                  "-c",
                                  "min_wal_size=32MB",
                                  "-c",
                                  "timezone=UTC"};
    size_t n = 0;
    while (argv[n] != NULL)
        n++;
    for (size_t i = 0; i < keeper->options_count; i++) {
        argv[n++] = "-c";
        argv[n++] = keeper->options[i];
    }
    postmasters[node] = child_fork(0);
    if (postmasters[node] == 0)
        exec_as_owner(argv);
}

static bool server_answers(int node)
{
    char conninfo[96];
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=%d user=postgres dbname=postgres",
                   keeper->dir, PGKEEPER_PORT + node);
    return PQping(conninfo) == PQPING_OK;
}

static bool is_postmaster(pid_t pid)
{
    return pid > 0 &&
           (pid == postmasters[PGKEEPER_PRIMARY] || pid == postmasters[PGKEEPER_STANDBY]);
}

/* Reaps what has ended. */
static void reap(void)
{
    for (pid_t pid = 1; pid > 0;) {
        pid = waitpid(-1, NULL, WNOHANG);
        for (int node = PGKEEPER_PRIMARY; node < PGKEEPER_NODES && pid > 0; node++)
            postmasters[node] = postmasters[node] == pid ? 0 : postmasters[node];
    }
}

static bool postmaster_gone(int node)
{
    reap();
    return postmasters[node] == 0;
}

/* Backends that outlive their postmaster for a moment: the keeper is a subreaper, so they are its
 * children. Sends them the signal (0: none); returns how many there are. */
static size_t orphans(int signum)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    char pids[4096] = "";
    size_t n = 0;
    reap();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    (void)!read(fd, pids, sizeof pids - 1);
    (void)close(fd);
    char *end = pids;
    for (long pid = strtol(pids, &end, 10); pid > 0; pid = strtol(end, &end, 10)) {
        if (is_postmaster((pid_t)pid))
            continue;
        n++;
        if (signum != 0)
            (void)kill((pid_t)pid, signum);
    }
    return n;
}

static bool ensure_started(int node)
{
    if (postmaster_gone(node))
        spawn_postmaster(node);
    bool ended = false;
    bool answers = false;
    (void)wait_until((answers = server_answers(node)) || (ended = postmaster_gone(node)), READY_MS);
    return answers && !ended;
}

static bool stop_server(int node, int signum)
{
    if (!postmaster_gone(node))
        (void)kill(postmasters[node], signum);
    /* Its children notice by themselves; those that are busy don't. A new postmaster refuses to
     * start while one of them holds the shared memory. */
    if (!wait_until(postmaster_gone(node) && orphans(0) == 0, signum == SIGKILL ? 500 : 6000))
        (void)orphans(SIGKILL);
    return wait_until(postmaster_gone(node) && orphans(0) == 0, 5000);
}

static bool make_standby(void)
{
    char program[300];
    char data[64];
    char port[16];
    pgkeeper_program(keeper, program, sizeof program, "pg_basebackup");
    data_dir(PGKEEPER_STANDBY, data, sizeof data);
    (void)snprintf(port, sizeof port, "%d", PGKEEPER_PORT);
    const char *argv[] = {program,     "-D", data,     "-h",           keeper->dir,
                          "-p",        port, "-U",     "postgres",     "--write-recovery-conf",
                          "--no-sync", "-X", "stream", "--checkpoint", "fast",
                          NULL};
    pid_t pid = child_fork(0);
    if (pid == 0)
        exec_as_owner(argv);
    return child_wait(pid, READY_MS) == 0 && ensure_started(PGKEEPER_STANDBY);
}

static void keeper_end(void)
{
    (void)stop_server(PGKEEPER_STANDBY, SIGQUIT);
    (void)stop_server(PGKEEPER_PRIMARY, SIGQUIT);
    if (getenv("OUTBOX_TEST_KEEP") == NULL) {
        remove_tree(keeper->data);
        remove_tree(keeper->dir);
    }
    _exit(0);
}

static int keeper_obey(enum pgkeeper_op op)
{
    switch (op) {
    case PGKEEPER_START:
        return ensure_started(PGKEEPER_PRIMARY);
    case PGKEEPER_KILL:
        return stop_server(PGKEEPER_PRIMARY, SIGKILL);
    case PGKEEPER_QUIT:
        return stop_server(PGKEEPER_PRIMARY, SIGQUIT);
    case PGKEEPER_MAKE_STANDBY:
        return make_standby();
    }
    return 0;
}

/* A lock on <dir>/lock says that the folder is in use, as long as the keeper lives, in any pid
 * namespace. It is there under its name only once it is held, so that a sweep never takes a new
 * one. */
static bool lock_dir(void)
{
    char fresh[64];
    char path[64];
    (void)snprintf(fresh, sizeof fresh, "%s/lock.new", keeper->dir);
    (void)snprintf(path, sizeof path, "%s/lock", keeper->dir);
    int fd = open(fresh, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && rename(fresh, path) == 0;
}

static void keeper_main(int fd)
{
    sigset_t mask;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGTERM);
    (void)sigaddset(&mask, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &mask, NULL);
    (void)setsid(); /* Ctrl-C is for the runner, whose end is ours */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    struct pollfd polls[2] = {{.fd = fd, .events = POLLIN},
                              {.fd = signalfd(-1, &mask, SFD_CLOEXEC), .events = POLLIN}};
    if (!lock_dir())
        _exit(1);
    bool usable = run_initdb();
    for (;;) {
        (void)poll(polls, 2, -1);
        struct message m;
        if (polls[1].revents != 0)
            keeper_end();
        if (polls[0].revents == 0)
            continue;
        if (recv(fd, &m, sizeof m, 0) != sizeof m)
            keeper_end();
        m.ok = usable && keeper_obey(m.op);
        (void)send(fd, &m, sizeof m, MSG_NOSIGNAL);
    }
}

/* ---- in the tests ---- */

void pgkeeper_fork(struct pgkeeper *k)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    k->pid = child_fork(SIGTERM);
    if (k->pid == 0) {
        keeper = k;
        (void)close(pair[0]);
        keeper_main(pair[1]);
    }
    (void)close(pair[1]);
    k->control_fd = pair[0];
}

bool pgkeeper_command(struct pgkeeper *k, enum pgkeeper_op op)
{
    struct message m = {.op = op, .from = getpid(), .number = ++k->commands_count};
    struct message answer;
    struct pollfd p = {.fd = k->control_fd, .events = POLLIN};
    if (send(k->control_fd, &m, sizeof m, MSG_NOSIGNAL) != sizeof m)
        return false;
    /* A test that was killed in the middle of a command leaves its answer for us to skip. */
    do {
        if (poll(&p, 1, COMMAND_MS) <= 0 ||
            recv(k->control_fd, &answer, sizeof answer, 0) != sizeof answer)
            return false;
    } while (answer.from != m.from || answer.number != m.number);
    return answer.ok != 0;
}

void pgkeeper_end(struct pgkeeper *k)
{
    (void)close(
        k->control_fd); /* one of two ways to tell it; a stray test may hold the other end */
    (void)kill(k->pid, SIGTERM);
    (void)waitpid(k->pid, NULL, 0);
}
