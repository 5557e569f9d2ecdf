#define _GNU_SOURCE
/* spawner.c - see spawner.h. Everything here but spawner_fork() runs in the small process: no
 * allocation, no libuv, no log. Its only correspondent is spawn_client.c. */
#include "exec/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/list.h"
#include "exec/descent.h"
#include "exec/spawn_child.h"
#include "exec/spawn_wire.h"

/* The spawner's whole state is static: nothing here allocates, so that it may be forked again from
 * a process with threads, and pages never used cost nothing. */

enum {
    REQUESTS_PER_TURN = 16, /* then exits are looked at */
    KILL_WAIT_MS_MAX = 100
};

enum child_state {
    CHILD_FREE,    /* in the free list, or never used */
    CHILD_FAILED,  /* no process; waits in `unsent` */
    CHILD_STARTED, /* runs; waits in `unsent`, pidfd open */
    CHILD_RUNNING, /* runs, and nothing is to be told; in no list */
    CHILD_LEAVING, /* the leader is reaped, its group was sent a TERM and has not ended; in `unsent`
                    * only if owes_start */
    CHILD_EXITED   /* reaped; waits in `unsent`, pidfd open if owes_start */
};

struct child {
    struct list node;
    uint64_t id;
    pid_t pid;
    int pidfd;       /* -1 once passed on, or not to be had */
    bool owes_start; /* its start is still to be told */
    bool has_grace;  /* it was sent a TERM: its group may end by itself */
    int wait_status;
    struct spawn_failure failure;
    enum child_state state;
};

static struct {
    int sock;
    int signals; /* signalfd: SIGCHLD */
    int timer;
    uint64_t deadline_ms;                          /* CLOCK_BOOTTIME; 0: none */
    struct child children[SPAWN_CHILDREN_MAX + 1]; /* one more, to tell that it is full */
    size_t used_count;                             /* of children[], ever */
    size_t live_count;                             /* of these, not CHILD_FREE */
    size_t leaving_count;                          /* of these, CHILD_LEAVING */
    struct list unused;                            /* below used_count, CHILD_FREE */
    struct list unsent; /* in the order in which the dispatcher must hear of them */
    struct wire_message message;
    char *strings[SPAWN_STRINGS_MAX + 2]; /* argv, NULL, envp, NULL */
} spawner;

static bool deadline_passed(void)
{
    return spawner.deadline_ms != 0 && clock_boot_ms() >= spawner.deadline_ms;
}

/* Whether anything is left of a group whose leader is reaped. What the leader left behind is our
 * child by now; as long as one of them is not reaped, no other group can have the number. */
static bool has_group(const struct child *ch)
{
    siginfo_t info;
    return waitid(P_PGID, (id_t)ch->pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0;
}

/* The end: nothing that we started survives. What we may not signal (set-uid) is waited for, so
 * that the descriptors we hold are not free before everything is gone. */
OB_NORETURN static void kill_all_and_exit(void)
{
    /* First by group, while the leaders still pin their numbers. */
    for (size_t i = 0; i < spawner.used_count; i++) {
        const struct child *ch = &spawner.children[i];
        if (ch->state == CHILD_STARTED || ch->state == CHILD_RUNNING ||
            (ch->state == CHILD_LEAVING && has_group(ch)))
            (void)kill(-ch->pid, SIGKILL);
    }
    int wait_ms = 1;
    for (;;) {
        int seen = descent_kill(false);
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            wait_ms = 1;
        if (pid < 0 && errno == ECHILD)
            _exit(0);
        if (seen < 0) /* no list of children: PDEATHSIG takes the rest with us */
            _exit(1);
        struct pollfd wait = {.fd = spawner.signals, .events = POLLIN};
        if (poll(&wait, 1, wait_ms) > 0) {
            struct signalfd_siginfo info;
            ssize_t n = read(spawner.signals, &info, sizeof info);
            (void)n;
        }
        wait_ms = wait_ms * 2 < KILL_WAIT_MS_MAX ? wait_ms * 2 : KILL_WAIT_MS_MAX;
    }
}

static struct child *child_new(uint64_t id)
{
    ob_assert(spawner.live_count <= SPAWN_CHILDREN_MAX);
    struct list *node = list_pop(&spawner.unused);
    struct child *ch = node != NULL ? list_entry(node, struct child, node)
                                    : &spawner.children[spawner.used_count++];
    spawner.live_count++;
    *ch = (struct child){.id = id, .pid = -1, .pidfd = -1};
    list_init(&ch->node);
    return ch;
}

static void child_free(struct child *ch)
{
    ob_assert(ch->pidfd < 0);
    list_remove(&ch->node);
    ch->state = CHILD_FREE;
    list_append(&spawner.unused, &ch->node);
    spawner.live_count--;
}

static struct spawn_reply reply_of(const struct child *ch, enum spawn_reply_op op)
{
    return (struct spawn_reply){.op = op,
                                .pid = ch->pid,
                                .id = ch->id,
                                .wait_status = ch->wait_status,
                                .errnum = ch->failure.errnum,
                                .stage = ch->failure.stage};
}

/* True when it is sent; false: the socket is full. A dispatcher that is gone reads as EOF soon. */
static bool send_start(struct child *ch)
{
    struct spawn_reply reply = reply_of(ch, SPAWN_REPLY_STARTED);
    if (wire_send(spawner.sock, &reply, sizeof reply, &ch->pidfd, ch->pidfd >= 0 ? 1 : 0) ==
        -EAGAIN)
        return false;
    ch->owes_start = false;
    if (ch->pidfd >= 0)
        (void)close(ch->pidfd);
    ch->pidfd = -1;
    if (ch->state == CHILD_STARTED)
        ch->state = CHILD_RUNNING;
    if (ch->state != CHILD_EXITED)
        list_remove(&ch->node);
    return true;
}

/* Those at the front of `unsent` whose end is all that is to be told, in one message. */
static bool send_ends(void)
{
    struct spawn_reply replies[SPAWN_REPLIES_MAX] = {{0}};
    size_t n = 0;
    list_for_each (node, tmp, &spawner.unsent) {
        const struct child *ch = list_entry(node, struct child, node);
        if (ch->owes_start || n == SPAWN_REPLIES_MAX)
            break;
        replies[n++] =
            reply_of(ch, ch->state == CHILD_FAILED ? SPAWN_REPLY_FAILED : SPAWN_REPLY_EXITED);
    }
    if (wire_send(spawner.sock, replies, n * sizeof replies[0], NULL, 0) == -EAGAIN)
        return false;
    for (; n > 0; n--) {
        struct child *ch = list_entry(list_pop(&spawner.unsent), struct child, node);
        child_free(ch);
    }
    return true;
}

/* Tells what is to be told, oldest first, until the socket is full. */
static void flush_unsent(void)
{
    bool has_room = true;
    while (has_room && !list_is_empty(&spawner.unsent)) {
        struct child *first = list_entry(spawner.unsent.next, struct child, node);
        has_room = first->owes_start ? send_start(first) : send_ends();
    }
}

static void child_ended(struct child *ch)
{
    ch->state = CHILD_EXITED;
    if (!ch->owes_start) /* else it is in `unsent` already, to be told as started and exited */
        list_append(&spawner.unsent, &ch->node);
}

static void leave(struct child *ch)
{
    spawner.leaving_count--;
    child_ended(ch);
}

static void look_for_left(void)
{
    for (size_t i = 0; i < spawner.used_count && spawner.leaving_count > 0; i++) {
        struct child *ch = &spawner.children[i];
        if (ch->state == CHILD_LEAVING && !has_group(ch))
            leave(ch);
    }
}

static struct child *find_leader(pid_t pid)
{
    for (size_t i = 0; i < spawner.used_count; i++) {
        struct child *ch = &spawner.children[i];
        if (ch->pid == pid && (ch->state == CHILD_STARTED || ch->state == CHILD_RUNNING))
            return ch;
    }
    return NULL;
}

/* The leader is observed, not reaped, until its group is killed: until then no other process can
 * have its number. Pids that we don't know are adopted orphans. */
static void reap_exited(void)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | WNOHANG) != 0 || info.si_pid == 0)
            break;
        struct child *found = find_leader(info.si_pid);
        if (found != NULL && !found->has_grace)
            (void)kill(-found->pid, SIGKILL);
        int status = 0;
        if (waitpid(info.si_pid, &status, 0) != info.si_pid || found == NULL)
            continue;
        found->wait_status = status;
        if (found->has_grace) {
            found->state = CHILD_LEAVING;
            spawner.leaving_count++;
        } else {
            child_ended(found);
        }
    }
    look_for_left();
}

/* Splits the strings of a SPAWN into cwd, argv and envp. False: not what the client writes. */
static bool parse_strings(const struct spawn_msg *m, char *text, struct spawn_plan *ret_plan)
{
    size_t left = m->strings_bytes;
    size_t expected = (size_t)m->argc + m->envc;
    if (m->argc == 0 || expected > SPAWN_STRINGS_MAX || left == 0 || text[left - 1] != '\0')
        return false;
    size_t count = 0;
    if (m->has_cwd != 0) {
        ret_plan->cwd = text;
        size_t n = strlen(text) + 1;
        text += n;
        left -= n;
    }
    for (size_t i = 0; i < expected; i++) {
        if (left == 0)
            return false;
        if (i == m->argc)
            spawner.strings[count++] = NULL;
        spawner.strings[count++] = text;
        size_t n = strlen(text) + 1;
        text += n;
        left -= n;
    }
    if (m->envc == 0)
        spawner.strings[count++] = NULL;
    spawner.strings[count] = NULL;
    ret_plan->argv = spawner.strings;
    ret_plan->envp = spawner.strings + m->argc + 1;
    ret_plan->umask = m->umask;
    return left == 0;
}

static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0U);
}

static void start_child(struct child *ch, const struct spawn_msg *m, char *text, const int *fds,
                        size_t fds_count)
{
    struct spawn_plan plan = {.umask = -1};
    bool is_ours = parse_strings(m, text, &plan);
    ob_assert(is_ours);
    for (int i = 0; i < 3; i++) {
        plan.stdio[i] = STDIN_FILENO; /* our own: /dev/null, for reading and writing */
        if (m->stdio[i] == SPAWN_STDIO_NULL)
            continue;
        if (m->stdio[i] < 0 || (size_t)m->stdio[i] >= fds_count) {
            /* The kernel drops what does not fit into our table of descriptors. */
            ch->failure = (struct spawn_failure){SPAWN_STAGE_DESCRIPTORS, EMFILE};
            return;
        }
        plan.stdio[i] = fds[m->stdio[i]];
    }
    ch->pid = spawn_child_start(&plan, &ch->failure);
    OB_CRASH_POINT("spawner_child_started");
    ch->owes_start = ch->pid > 0 && m->skips_start == 0;
    if (ch->owes_start)
        ch->pidfd = open_pidfd(ch->pid); /* -1 (EMFILE) is passed on as no pidfd: the job runs */
}

static void handle_spawn(const struct spawn_msg *m, char *text, const int *fds, size_t fds_count)
{
    struct child *ch = child_new(m->id);
    if (spawner.live_count > SPAWN_CHILDREN_MAX)
        ch->failure = (struct spawn_failure){SPAWN_STAGE_TABLE, EAGAIN};
    else if (deadline_passed())
        ch->failure = (struct spawn_failure){SPAWN_STAGE_DEADLINE, EAGAIN};
    else
        start_child(ch, m, text, fds, fds_count);
    ch->state = ch->pid < 0 ? CHILD_FAILED : ch->owes_start ? CHILD_STARTED : CHILD_RUNNING;
    if (ch->state == CHILD_RUNNING)
        return;
    list_append(&spawner.unsent, &ch->node);
    flush_unsent();
}

static void handle_kill(const struct spawn_msg *m)
{
    for (size_t i = 0; i < spawner.used_count; i++) {
        struct child *ch = &spawner.children[i];
        bool is_led = ch->state == CHILD_STARTED || ch->state == CHILD_RUNNING;
        if (ch->id != m->id || (!is_led && ch->state != CHILD_LEAVING))
            continue;
        ch->has_grace = ch->has_grace || m->signum == SIGTERM;
        if (is_led || has_group(ch))
            (void)kill(-ch->pid, m->signum); /* ESRCH, EPERM: its exit will tell */
        if (m->signum == SIGKILL) {
            ch->has_grace = false;
            if (!is_led) /* as far as it may be killed it is; the rest is not waited for */
                leave(ch);
        }
        return;
    }
}

static void handle_deadline(const struct spawn_msg *m)
{
    spawner.deadline_ms = m->boot_ms;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(m->boot_ms / 1000U),
                                           .tv_nsec = (long)(m->boot_ms % 1000U) * 1000000L}};
    int err = timerfd_settime(spawner.timer, TFD_TIMER_ABSTIME, &when, NULL);
    ob_assert(err == 0);
}

/* One request. False: there is none. Does not return when the dispatcher is gone. */
static bool read_request(void)
{
    char *bytes = spawner.message.bytes;
    int fds[WIRE_FDS_MAX];
    size_t fds_count;
    ssize_t n = wire_receive(spawner.sock, bytes, sizeof spawner.message.bytes, fds, &fds_count);
    if (n == -EAGAIN)
        return false;
    if (n <= 0)
        kill_all_and_exit();
    const struct spawn_msg *m = (const struct spawn_msg *)(const void *)bytes;
    ob_assert((size_t)n >= sizeof *m && (size_t)n == sizeof *m + m->strings_bytes);
    if (m->op == SPAWN_MSG_SPAWN)
        handle_spawn(m, bytes + sizeof *m, fds, fds_count);
    else if (m->op == SPAWN_MSG_KILL)
        handle_kill(m);
    else if (m->op == SPAWN_MSG_DEADLINE)
        handle_deadline(m);
    if (m->op != SPAWN_MSG_HOLD) {
        for (size_t i = 0; i < fds_count; i++)
            (void)close(fds[i]);
    }
    return true;
}

/* Everything inherited goes but stderr (for a failed assertion) and the socket, which becomes 3. */
static void close_inherited(int sock)
{
    int high = fcntl(sock, F_DUPFD_CLOEXEC, 4);
    int null =
        open("/dev/null", O_RDWR); /* 0 to 3 if the daemon was started without some of them */
    ob_assert(high >= 4 && null >= 0);
    int err = dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0;
    if (fcntl(STDERR_FILENO, F_GETFD) < 0)
        (void)dup2(null, STDERR_FILENO);
    spawner.sock = dup3(high, 3, O_CLOEXEC);
    ob_assert(err == 0 && spawner.sock == 3);
    if (syscall(SYS_close_range, 4U, ~0U, 0U) == 0)
        return;
    for (int fd = 4; fd < (int)sysconf(_SC_OPEN_MAX); fd++)
        (void)close(fd);
}

static void set_up(int sock)
{
    (void)setsid();
    (void)prctl(PR_SET_NAME, "outbox-spawner");
    int err = prctl(PR_SET_CHILD_SUBREAPER, 1);
    ob_assert(err == 0);
    /* Blocked for good, with default actions: signals of a terminal or a service manager don't
     * reach us, and children inherit the actions. Blocked SIGCHLDs are read from the signalfd. */
    sigset_t set;
    (void)sigfillset(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int signum = 1; signum <= SIGRTMAX; signum++)
        (void)sigaction(signum, &action, NULL);
    close_inherited(sock);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    spawner.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    spawner.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    ob_assert(spawner.signals >= 0 && spawner.timer >= 0);
    spawn_child_set_up();
    spawner.used_count = 0;
    spawner.live_count = 0;
    spawner.leaving_count = 0;
    spawner.deadline_ms = 0;
    list_init(&spawner.unused);
    list_init(&spawner.unsent);
}

OB_NORETURN static void spawner_main(int sock)
{
    set_up(sock);
    for (;;) {
        /* While something is unsent nothing is read: what we owe stays bounded by the table. */
        bool is_full = !list_is_empty(&spawner.unsent);
        struct pollfd fds[] = {{.fd = spawner.sock, .events = is_full ? POLLOUT : POLLIN},
                               {.fd = spawner.signals, .events = POLLIN},
                               {.fd = spawner.timer, .events = POLLIN}};
        (void)poll(fds, sizeof fds / sizeof fds[0], -1);
        if ((fds[1].revents & POLLIN) != 0) {
            struct signalfd_siginfo info;
            ssize_t n = read(spawner.signals, &info, sizeof info);
            (void)n;
            reap_exited();
        }
        flush_unsent();
        if ((fds[0].revents & (POLLHUP | POLLERR)) != 0 && (fds[0].revents & POLLIN) == 0)
            kill_all_and_exit();
        for (int i = 0; i < REQUESTS_PER_TURN && list_is_empty(&spawner.unsent); i++) {
            if (!read_request())
                break;
        }
        /* After the requests: among them may be a later deadline. */
        if (deadline_passed())
            kill_all_and_exit();
    }
}

int spawner_fork(struct spawner *ret_spawner)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return -errno;
    /* Room for several of the largest requests; the kernel may allow less. */
    int bytes = 4 * (int)sizeof spawner.message;
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    (void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    pid_t pid = fork();
    if (pid < 0) {
        int err = -errno;
        (void)close(pair[0]);
        (void)close(pair[1]);
        return err;
    }
    if (pid == 0) {
        (void)close(pair[0]);
        spawner_main(pair[1]);
    }
    (void)close(pair[1]);
    *ret_spawner = (struct spawner){.pid = pid, .fd = pair[0]};
    return 0;
}
