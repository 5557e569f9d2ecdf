/* The cluster. A keeper process, child of whoever called pgcluster_start, owns the postmasters (the
 * server, perhaps its standby) and obeys commands over a socket pair; so a test's forked child can
 * crash and restart the server, and yet it ends with the runner. Databases and queries are
 * testdb.c's. */
#define _GNU_SOURCE
#include "pgcluster.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "testdb.h"
#include "wait.h"

enum { READY_MS = 60000, COMMAND_MS = 90000, OPTIONS_MAX = 32, ARGS_MAX = 2 * OPTIONS_MAX + 32 };
enum { PRIMARY, STANDBY, NODES, PORT = 5432 };

/* Where the data go if so much is free there: a cluster takes about 100 MB, its WAL included. */
#define MEMORY_DIR       "/dev/shm"
#define MEMORY_BYTES_MIN (1ULL << 30)

enum op { OP_START, OP_KILL, OP_QUIT, OP_STANDBY, OP_END };
struct message { /* a command and, with ok filled in, its answer */
    enum op op;
    pid_t from;
    unsigned number;
    int ok;
};

static struct {
    char dir[32];  /* "": no cluster; holds socket, log and lock */
    char data[48]; /* the data folder, in memory if there is room */
    char bindir[256];
    const char *options[OPTIONS_MAX];
    size_t options_count;
    const char *const *environment;
    int node; /* the one that tests talk to */
    pid_t keeper;
    int control_fd;
    unsigned commands_count;
    struct passwd owner; /* whom the server runs as when we are root */
} cluster;

/* --- the keeper's side --- */

static pid_t postmasters[NODES]; /* 0: does not run */

static void program_path(char *out, size_t size, const char *program)
{
    (void)snprintf(out, size, "%s/%s", cluster.bindir, program);
}

/* In a new child: becomes the server's user, dies with the keeper, output to the log, and runs it.
 */
static void exec_as_owner(const char *const *argv)
{
    if (geteuid() == 0 && (setgid(cluster.owner.pw_gid) != 0 || setgroups(0, NULL) != 0 ||
                           setuid(cluster.owner.pw_uid) != 0))
        _exit(126);
    /* After the change of user, which clears it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (getppid() == 1)
        _exit(126);
    char log[64];
    (void)snprintf(log, sizeof log, "%s/server.log", cluster.dir);
    int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null_fd = open("/dev/null", O_RDONLY);
    if (log_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(126);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)close_range(3, ~0U, 0);
    if (chdir(cluster.dir) != 0)
        _exit(126);
    /* The server's environment is ours, so no time zone or locale of the machine decides a test. */
    (void)setenv("LC_ALL", "C", 1);
    (void)setenv("TZ", "UTC", 1);
    for (size_t i = 0; cluster.environment != NULL && cluster.environment[i] != NULL; i++) {
        char *copy = strdup(cluster.environment[i]);
        if (copy == NULL || putenv(copy) != 0)
            _exit(126);
    }
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static bool run_initdb(void)
{
    char initdb[300];
    program_path(initdb, sizeof initdb, "initdb");
    const char *argv[] = {initdb,     "-D",        cluster.data, "-A",   "trust",      "-U",
                          "postgres", "--no-sync", "-E",         "UTF8", "--locale=C", NULL};
    pid_t pid = child_fork(0);
    if (pid == 0)
        exec_as_owner(argv);
    return child_wait(pid, READY_MS) == 0;
}

/* The standby's data need no memory: few tests have one. */
static void data_dir(int node, char *out, size_t size)
{
    if (node == PRIMARY)
        (void)snprintf(out, size, "%s", cluster.data);
    else
        (void)snprintf(out, size, "%s/standby", cluster.dir);
}

static void spawn_postmaster(int node)
{
    char program[300];
    char data[64];
    char port[32];
    program_path(program, sizeof program, "postgres");
    data_dir(node, data, sizeof data);
    (void)snprintf(port, sizeof port, "port=%d", PORT + node);
    const char *argv[ARGS_MAX] = {program,
                                  "-D",
                                  data,
                                  "-k",
                                  cluster.dir,
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
    for (size_t i = 0; i < cluster.options_count; i++) {
        argv[n++] = "-c";
        argv[n++] = cluster.options[i];
    }
    postmasters[node] = child_fork(0);
    if (postmasters[node] == 0)
        exec_as_owner(argv);
}

static bool server_answers(int node)
{
    char conninfo[96];
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=%d user=postgres dbname=postgres",
                   cluster.dir, PORT + node);
    return PQping(conninfo) == PQPING_OK;
}

static bool is_postmaster(pid_t pid)
{
    return pid > 0 && (pid == postmasters[PRIMARY] || pid == postmasters[STANDBY]);
}

/* Reaps what has ended. */
static void reap(void)
{
    for (pid_t pid = 1; pid > 0;) {
        pid = waitpid(-1, NULL, WNOHANG);
        for (int node = PRIMARY; node < NODES && pid > 0; node++)
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
    program_path(program, sizeof program, "pg_basebackup");
    data_dir(STANDBY, data, sizeof data);
    (void)snprintf(port, sizeof port, "%d", PORT);
    const char *argv[] = {program,     "-D", data,     "-h",           cluster.dir,
                          "-p",        port, "-U",     "postgres",     "--write-recovery-conf",
                          "--no-sync", "-X", "stream", "--checkpoint", "fast",
                          NULL};
    pid_t pid = child_fork(0);
    if (pid == 0)
        exec_as_owner(argv);
    return child_wait(pid, READY_MS) == 0 && ensure_started(STANDBY);
}

static void keeper_end(void)
{
    (void)stop_server(STANDBY, SIGQUIT);
    (void)stop_server(PRIMARY, SIGQUIT);
    if (getenv("OUTBOX_TEST_KEEP") == NULL) {
        remove_tree(cluster.data);
        remove_tree(cluster.dir);
    }
    _exit(0);
}

static int keeper_obey(enum op op)
{
    switch (op) {
    case OP_START:
        return ensure_started(PRIMARY);
    case OP_KILL:
        return stop_server(PRIMARY, SIGKILL);
    case OP_QUIT:
        return stop_server(PRIMARY, SIGQUIT);
    case OP_STANDBY:
        return make_standby();
    case OP_END:
        keeper_end();
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
    (void)snprintf(fresh, sizeof fresh, "%s/lock.new", cluster.dir);
    (void)snprintf(path, sizeof path, "%s/lock", cluster.dir);
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

/* --- the tests' side --- */

static bool command(enum op op)
{
    struct message m = {.op = op, .from = getpid(), .number = ++cluster.commands_count};
    struct message answer;
    struct pollfd p = {.fd = cluster.control_fd, .events = POLLIN};
    if (send(cluster.control_fd, &m, sizeof m, MSG_NOSIGNAL) != sizeof m)
        return false;
    /* A test that was killed in the middle of a command leaves its answer for us to skip. */
    do {
        if (poll(&p, 1, COMMAND_MS) <= 0 ||
            recv(cluster.control_fd, &answer, sizeof answer, 0) != sizeof answer)
            return false;
    } while (answer.from != m.from || answer.number != m.number);
    return answer.ok != 0;
}

void pgcluster_show_log(long from)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s/server.log", cluster.dir);
    char *text = read_file_from(path, from, NULL);
    if (text != NULL && *text != '\0')
        (void)fprintf(stderr, "--- server log\n%s---\n", text);
    free(text);
}

long pgcluster_log_size(void)
{
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/server.log", cluster.dir);
    return stat(path, &st) == 0 ? (long)st.st_size : 0;
}

static void sweep(void)
{
    DIR *tmp = opendir("/tmp");
    struct dirent *e;
    while (tmp != NULL && (e = readdir(tmp)) != NULL) {
        char path[300];
        if (strncmp(e->d_name, "ob", 2) != 0 || strlen(e->d_name) != strlen("obXXXXXX"))
            continue;
        (void)snprintf(path, sizeof path, "/tmp/%s/lock", e->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            (void)snprintf(path, sizeof path, MEMORY_DIR "/%s", e->d_name);
            remove_tree(path);
            (void)snprintf(path, sizeof path, "/tmp/%s", e->d_name);
            remove_tree(path);
        }
        (void)close(fd);
    }
    if (tmp != NULL)
        (void)closedir(tmp);
}

/* Skips this binary; fails it instead under OUTBOX_TEST_REQUIRE_PG=1, which scripts/test sets. */
static __attribute__((noreturn)) void no_server(const char *why)
{
    const char *required = getenv("OUTBOX_TEST_REQUIRE_PG");
    if (required == NULL || strcmp(required, "1") != 0)
        test_skip_all(why);
    (void)fprintf(stderr, "cannot run: %s\n", why);
    exit(1);
}

static void find_programs(void)
{
    const char *bindir = getenv("OUTBOX_PG_BINDIR");
    char initdb[300];
    (void)snprintf(cluster.bindir, sizeof cluster.bindir, "%s",
                   bindir != NULL && *bindir != '\0' ? bindir : OB_TEST_PG_BINDIR);
    program_path(initdb, sizeof initdb, "initdb");
    if (access(initdb, X_OK) != 0)
        no_server("no initdb: install a PostgreSQL server, or set OUTBOX_PG_BINDIR");
}

void pgcluster_needs_standby(void)
{
    char program[300];
    find_programs();
    program_path(program, sizeof program, "pg_basebackup");
    if (access(program, X_OK) != 0)
        test_skip_all("this server comes without pg_basebackup, which makes a standby");
}

/* A database a test is hundreds of new files a test: on tmpfs that takes a tenth of the time. */
static void make_data_dir(void)
{
    struct statvfs fs;
    const char *name = strrchr(cluster.dir, '/') + 1;
    (void)snprintf(cluster.data, sizeof cluster.data, MEMORY_DIR "/%s", name);
    bool has_room = statvfs(MEMORY_DIR, &fs) == 0 &&
                    (unsigned long long)fs.f_bavail * fs.f_frsize >= MEMORY_BYTES_MIN;
    if (has_room && mkdir(cluster.data, 0700) == 0)
        return;
    (void)snprintf(cluster.data, sizeof cluster.data, "%s/data", cluster.dir);
    if (mkdir(cluster.data, 0700) != 0)
        ck_abort_msg("mkdir %s: %s", cluster.data, strerror(errno));
}

static void find_owner(void)
{
    if (geteuid() != 0)
        return;
    const struct passwd *pw = getpwnam("postgres");
    if (pw == NULL)
        pw = getpwnam("nobody");
    if (pw == NULL)
        no_server("run as root, and there is no user postgres or nobody for the server");
    cluster.owner = *pw;
    ck_assert_int_eq(chown(cluster.dir, pw->pw_uid, pw->pw_gid), 0);
    ck_assert_int_eq(chown(cluster.data, pw->pw_uid, pw->pw_gid), 0);
}

void pgcluster_set_options(const char *const *settings)
{
    cluster.options_count = 0;
    while (settings != NULL && settings[cluster.options_count] != NULL) {
        if (cluster.options_count == OPTIONS_MAX) /* Check's own assertions work in tests only */
            abort();
        cluster.options[cluster.options_count] = settings[cluster.options_count];
        cluster.options_count++;
    }
}

void pgcluster_set_environment(const char *const *environment)
{
    cluster.environment = environment;
}

void pgcluster_start(void)
{
    cluster.node = PRIMARY;
    find_programs();
    sweep();
    (void)snprintf(cluster.dir, sizeof cluster.dir, "/tmp/obXXXXXX");
    if (mkdtemp(cluster.dir) == NULL)
        ck_abort_msg("mkdtemp %s: %s", cluster.dir, strerror(errno));
    make_data_dir();
    find_owner();
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cluster.keeper = child_fork(SIGTERM);
    if (cluster.keeper == 0) {
        (void)close(pair[0]);
        keeper_main(pair[1]);
    }
    (void)close(pair[1]);
    cluster.control_fd = pair[0];
    if (!command(OP_START)) {
        pgcluster_show_log(0);
        ck_abort_msg("the cluster in %s did not start", cluster.dir);
    }
    testdb_make_template();
}

void pgcluster_stop(void)
{
    if (cluster.dir[0] == '\0')
        return;
    testdb_report_failed();
    (void)close(
        cluster.control_fd); /* one of two ways to tell it; a stray test may hold the other end */
    (void)kill(cluster.keeper, SIGTERM);
    (void)waitpid(cluster.keeper, NULL, 0);
    cluster.dir[0] = '\0';
}

const char *pgcluster_socket_dir(void)
{
    return cluster.dir;
}

int pgcluster_port(void)
{
    return PORT + cluster.node;
}

void pgcluster_start_standby(void)
{
    if (!command(OP_STANDBY)) {
        pgcluster_show_log(0);
        ck_abort_msg("the standby did not start");
    }
}

void pgcluster_use_standby(void)
{
    cluster.node = STANDBY;
}

void pgcluster_crash(void)
{
    if (!command(OP_KILL))
        ck_abort_msg("the server could not be killed");
}

void pgcluster_start_again(void)
{
    if (!command(OP_START)) {
        pgcluster_show_log(0);
        ck_abort_msg("the server did not start again");
    }
}

void pgcluster_crash_and_restart(void)
{
    if (!command(OP_QUIT))
        ck_abort_msg("the server did not stop");
    pgcluster_start_again();
}
