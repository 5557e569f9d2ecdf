/* process.c - one worker process: its states, its jobs, its end. See private.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "worker/frame.h"
#include "worker/private.h"

enum {
    LINE_HEAD_MAX = 120,       /* of a line that is shown */
    ERROR_HEAD_MAX = 4 * 1024, /* of a job's error: as much as of a command's output */
    ERROR_TAIL_MAX = 12 * 1024,
    ERR_TAIL_MAX = 4 * 1024 /* of standard error, kept with the jobs of a worker that died */
};

static uint64_t now_of(const struct process *p)
{
    return uv_now(p->pool->ex->base.loop);
}

static void leave_state(struct process *p)
{
    struct pool *pool = p->pool;
    if (p->state == PROCESS_STARTING)
        pool->starting--;
    else if (p->state == PROCESS_READY)
        pool->ready--;
    list_remove(&p->room_link);
}

/* Only forward: a process is never less stopped than it was. due_ms: UINT64_MAX for none. */
static void set_state(struct process *p, enum process_state state, uint64_t due_ms)
{
    ob_assert(state > p->state);
    leave_state(p);
    p->state = state;
    if (state == PROCESS_READY)
        p->pool->ready++;
    p->due_ms = due_ms;
    if (due_ms != UINT64_MAX)
        executor_arm(p->pool->ex, due_ms);
}

bool process_is_mute(const struct process *p)
{
    return p->cause == CAUSE_PROTOCOL || p->cause == CAUSE_NOT_READY;
}

static void tell(const struct process *p, enum worker_event_kind kind, const char *text,
                 uint64_t retry_ms)
{
    const struct worker_event event = {.kind = kind,
                                       .pid = p->pid,
                                       .text = text,
                                       .ms = now_of(p) - p->started_ms,
                                       .jobs = p->jobs_given,
                                       .retry_ms = retry_ms};
    executor_tell(p->pool, &event);
}

/* ---- ending it ---- */

void process_kill(struct process *p, enum process_cause cause)
{
    if (p->state >= PROCESS_KILLED)
        return;
    if (p->cause == CAUSE_NONE)
        p->cause = cause;
    set_state(p, PROCESS_KILLED, UINT64_MAX);
    io_close_in(p);
    spawn_client_kill(p->pool->ex->client, p->handle, SIGKILL);
}

void process_terminate(struct process *p, enum process_cause cause)
{
    if (p->state >= PROCESS_ENDING)
        return;
    p->cause = cause;
    set_state(p, PROCESS_ENDING, now_of(p) + WORKER_GRACE_MS);
    io_close_in(p);
    spawn_client_kill(p->pool->ex->client, p->handle, SIGTERM);
    spawn_client_kill(p->pool->ex->client, p->handle, SIGCONT); /* a stopped one hears it, too */
}

void process_drain(struct process *p)
{
    if (p->state >= PROCESS_DRAINING)
        return;
    set_state(p, PROCESS_DRAINING, p->in_flight == 0 ? now_of(p) + WORKER_DRAIN_MS : UINT64_MAX);
    p->in_wants_close = true;
    io_flush(p);
}

void process_fail_protocol(struct process *p, const char *what, const char *line, size_t len)
{
    char head[LINE_HEAD_MAX + 1];
    size_t n = len < LINE_HEAD_MAX ? len : LINE_HEAD_MAX;
    for (size_t i = 0; i < n; i++)
        head[i] = line[i] == '\0' ? '?' : line[i];
    head[n] = '\0';
    if (p->state >= PROCESS_ENDING)
        return; /* it is on its way out */
    (void)snprintf(p->why, sizeof p->why, "%s%s%s", what, n > 0 ? ": " : "", head);
    process_kill(p, CAUSE_PROTOCOL);
}

/* ---- jobs ---- */

/* What is written already goes from the buffer when it is the greater part. */
static void make_room(struct process *p)
{
    size_t left = p->output.len - p->output_pos;
    if (p->output_pos < left || p->output_pos == 0)
        return;
    memmove(p->output.data, p->output.data + p->output_pos, left);
    p->output.len = left;
    p->output_pos = 0;
}

int process_give(struct process *p, struct flight *f)
{
    struct run *run = f->run;
    ob_assert(p->state == PROCESS_READY);
    ob_assert(p->in_flight < p->window);
    uint64_t now_us = (uint64_t)clock_unix_us();
    uint64_t timeout_ms = run->task->timeout_ms;
    make_room(p);
    int err = frame_job(&p->output, run, (now_us / 1000U + timeout_ms) / 1000U);
    if (err != 0)
        return err;
    run->started_unix_us = now_us; /* what it waited for a process is not its own time */
    run->started_mono_ms = clock_mono_ms();
    f->process = p;
    f->due_ms = now_of(p) + timeout_ms;
    executor_arm(p->pool->ex, f->due_ms);
    list_remove(&f->link);
    list_append(&p->flights, &f->link);
    p->in_flight++;
    p->pool->in_flight++;
    p->jobs_given++;
    list_remove(&p->room_link);
    if (p->in_flight < p->window)
        list_append(&p->pool->room, &p->room_link);
    if (p->pool->config.max_jobs > 0 && p->jobs_given >= p->pool->config.max_jobs)
        process_drain(p);
    return 0;
}

/* A job of it has ended. */
static void note_room(struct process *p)
{
    struct pool *pool = p->pool;
    if (p->state == PROCESS_DRAINING && p->in_flight == 0) {
        p->due_ms = now_of(p) + WORKER_DRAIN_MS;
        executor_arm(pool->ex, p->due_ms);
    }
    if (p->state != PROCESS_READY)
        return;
    if (p->in_flight == 0) {
        /* In front: the one that worked last is used again, so that those too many get idle. */
        list_remove(&p->room_link);
        list_append(pool->room.next, &p->room_link);
        p->idle_since_ms = now_of(p);
        executor_arm(pool->ex, process_due(p));
    } else if (list_is_empty(&p->room_link)) {
        list_append(&pool->room, &p->room_link);
    }
    if (pool->waiting_count > 0)
        executor_dirty(pool);
}

static struct flight *find_flight(const struct process *p, int64_t id)
{
    list_for_each (node, tmp, &p->flights) { /* mostly answered in their order */
        struct flight *f = list_entry(node, struct flight, link);
        if (f->run->job->id == id)
            return f;
    }
    return NULL;
}

static void attach_error(struct outcome *o, const struct worker_reply *reply)
{
    size_t head = reply->error_len < ERROR_HEAD_MAX ? reply->error_len : ERROR_HEAD_MAX;
    size_t rest = reply->error_len - head;
    size_t tail = rest < ERROR_TAIL_MAX ? rest : ERROR_TAIL_MAX;
    o->head = reply->error;
    o->head_len = head;
    o->tail = reply->error + reply->error_len - tail;
    o->tail_len = tail;
    o->output_bytes = reply->error_len;
}

static void finish_job(struct process *p, struct flight *f, const struct worker_reply *reply)
{
    struct outcome o;
    outcome_init(&o);
    if (reply->kind == REPLY_OK) {
        o.kind = OUTCOME_DONE;
    } else {
        bool is_dead = reply->kind == REPLY_DEAD;
        const char *error = reply->error_len > 0 ? reply->error : is_dead ? "dead" : "retry";
        outcome_set(&o, is_dead ? OUTCOME_DEAD : OUTCOME_RETRY, "%s", error);
        o.delay_ms = reply->delay_ms;
        if (reply->error_len >= OUTCOME_REASON_SIZE)
            attach_error(&o, reply);
    }
    p->jobs_done++;
    p->in_flight--;
    p->pool->in_flight--;
    p->pool->failures = 0;
    OB_CRASH_POINT("worker_replied");
    flight_finish(f, &o);
    note_room(p);
}

static void touch(struct process *p, struct flight *f, uint64_t extend_ms)
{
    uint64_t due_ms = now_of(p) + extend_ms;
    if (due_ms > f->due_ms && !f->is_late)
        f->due_ms = due_ms; /* never sooner; the timer finds out when it is due */
}

static void make_ready(struct process *p, unsigned window)
{
    struct pool *pool = p->pool;
    if (p->state != PROCESS_STARTING)
        return; /* it was told to end meanwhile */
    p->was_ready = true;
    p->window = window < pool->config.window ? window : pool->config.window;
    set_state(p, PROCESS_READY, UINT64_MAX);
    tell(p, WORKER_READY, NULL, 0);
    note_room(p);
}

void process_handle_line(struct process *p, const char *line, size_t len)
{
    struct worker_reply reply;
    const char *why = "no memory to read it";
    if (worker_reply_parse(line, len, &reply, &why) != 0) {
        process_fail_protocol(p, why, line, len);
        return;
    }
    struct flight *f = NULL;
    if (reply.kind != REPLY_READY)
        f = find_flight(p, reply.id);
    if (reply.kind == REPLY_READY && p->was_ready)
        process_fail_protocol(p, "ready once more", line, len);
    else if (reply.kind == REPLY_READY)
        make_ready(p, reply.window);
    else if (f == NULL)
        process_fail_protocol(p, "no job of this id is in its hands", line, len);
    else if (reply.kind == REPLY_TOUCH)
        touch(p, f, reply.delay_ms);
    else
        finish_job(p, f, &reply);
    worker_reply_clear(&reply);
}

/* ---- time ---- */

static bool is_surplus(const struct process *p)
{
    const struct pool *pool = p->pool;
    return p->in_flight == 0 && pool->waiting_count == 0 &&
           (pool->is_retired || pool->ready + pool->starting > pool->config.startup);
}

uint64_t process_due(const struct process *p)
{
    const struct worker_config *config = &p->pool->config;
    uint64_t due_ms = p->due_ms;
    if (p->state == PROCESS_READY && config->max_lifetime_ms > 0 &&
        p->started_ms + config->max_lifetime_ms < due_ms)
        due_ms = p->started_ms + config->max_lifetime_ms;
    if (p->state == PROCESS_READY && is_surplus(p) &&
        p->idle_since_ms + config->idle_timeout_ms < due_ms)
        due_ms = p->idle_since_ms + config->idle_timeout_ms;
    return due_ms;
}

/* Jobs whose time is up; *ret_due: the earliest of the others. */
static bool find_late(struct process *p, uint64_t now_ms, uint64_t *ret_due_ms)
{
    bool found = false;
    list_for_each (node, tmp, &p->flights) {
        struct flight *f = list_entry(node, struct flight, link);
        if (f->due_ms <= now_ms) {
            f->is_late = true;
            found = true;
        } else if (f->due_ms < *ret_due_ms) {
            *ret_due_ms = f->due_ms;
        }
    }
    return found;
}

void process_tick(struct process *p, uint64_t now_ms)
{
    uint64_t job_due_ms = UINT64_MAX;
    if (p->state < PROCESS_ENDING && find_late(p, now_ms, &job_due_ms)) {
        tell(p, WORKER_TIMED_OUT, NULL, 0);
        process_terminate(p, CAUSE_TIMEOUT);
    }
    if (process_due(p) <= now_ms) {
        switch (p->state) {
        case PROCESS_STARTING:
            process_kill(p, CAUSE_NOT_READY);
            break;
        case PROCESS_READY:
            if (p->due_ms <= now_ms)
                process_fail_protocol(p, "it closed its standard input or output", "", 0);
            else
                process_drain(p);
            break;
        case PROCESS_DRAINING:
            process_terminate(p, CAUSE_NONE);
            break;
        case PROCESS_ENDING:
            process_kill(p, p->cause);
            break;
        case PROCESS_KILLED:
        case PROCESS_OVER:
            p->due_ms = UINT64_MAX;
            break;
        }
    }
    if (p->state < PROCESS_ENDING && job_due_ms != UINT64_MAX)
        executor_arm(p->pool->ex, job_due_ms);
}

/* ---- what the spawner tells ---- */

static void on_started(void *arg, pid_t pid, int pidfd)
{
    struct process *p = arg;
    (void)pidfd;
    p->pid = pid;
    if (p->state == PROCESS_STARTING) { /* not before: whoever is ready has a pid */
        frame_hello(&p->output);
        io_flush(p);
    }
    OB_CRASH_POINT("worker_started");
}

static void describe_end(int wait_status, char *text, size_t size)
{
    if (WIFEXITED(wait_status))
        (void)snprintf(text, size, "exit %d", WEXITSTATUS(wait_status));
    else if (WIFSIGNALED(wait_status))
        (void)snprintf(text, size, "signal %d", WTERMSIG(wait_status));
    else
        (void)snprintf(text, size, "lost with the process that starts commands");
}

/* What becomes of a job that its worker did not answer. */
static void judge(const struct process *p, const struct flight *f, int wait_status, const char *how,
                  struct outcome *o)
{
    outcome_init(o);
    if (f->is_late) {
        outcome_set(o, OUTCOME_RETRY, "timeout");
    } else if (p->cause == CAUSE_PROTOCOL) {
        outcome_set(o, OUTCOME_RETRY, "worker protocol error: %s", p->why);
    } else if (p->cause == CAUSE_TIMEOUT) {
        outcome_set(o, OUTCOME_RELEASE, "its worker was ended: another job exceeded its timeout");
    } else if (p->cause == CAUSE_STOP) {
        outcome_set(o, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
    } else {
        outcome_set(o, OUTCOME_RETRY, "worker died: %s", how);
        o->exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
        o->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    }
    if (o->kind == OUTCOME_RETRY) {
        o->tail = p->err_tail.tail;
        o->tail_len = p->err_tail.tail_len;
        o->output_bytes = p->err_tail.bytes_seen;
    }
}

static void finish_flights(struct process *p, int wait_status, const char *how)
{
    capture_finish(&p->err_tail);
    while (!list_is_empty(&p->flights)) {
        struct flight *f = list_entry(p->flights.next, struct flight, link);
        struct outcome o;
        judge(p, f, wait_status, how, &o);
        p->in_flight--;
        p->pool->in_flight--;
        flight_finish(f, &o);
    }
}

/* Tells the observer how it ended, and the pool if it never did anything. */
static void report_end(struct process *p, int wait_status, unsigned unanswered)
{
    char how[64];
    describe_end(wait_status, how, sizeof how);
    /* One that exits with 0 when it has done its work recycles itself. */
    bool is_own_end = wait_status == 0 && p->jobs_done > 0;
    bool is_wanted =
        p->cause == CAUSE_STOP || p->cause == CAUSE_TIMEOUT ||
        (p->cause == CAUSE_NONE && unanswered == 0 && (p->in_wants_close || is_own_end));
    struct outcome waiting;
    outcome_init(&waiting);
    waiting.misconfigured = true;
    uint64_t retry_ms = 0;
    if (!p->was_ready && !is_wanted) {
        const char *what = p->cause == CAUSE_PROTOCOL ? p->why : how;
        if (p->cause == CAUSE_NOT_READY)
            what = "it did not say so within start_timeout";
        outcome_set(&waiting, OUTCOME_RELEASE, "worker %.100s was not ready: %s", p->pool->argv[0],
                    what);
        retry_ms = pool_process_failed(p->pool, &waiting);
        tell(p, p->cause == CAUSE_PROTOCOL ? WORKER_PROTOCOL_ERROR : WORKER_NOT_READY, what,
             retry_ms);
        return;
    }
    if (!is_wanted && p->jobs_done == 0)
        retry_ms = pool_process_failed(p->pool, NULL);
    if (p->cause == CAUSE_PROTOCOL)
        tell(p, WORKER_PROTOCOL_ERROR, p->why, retry_ms);
    else
        tell(p, is_wanted ? WORKER_ENDED : WORKER_DIED, how, retry_ms);
}

static void on_exit_told(void *arg, int wait_status)
{
    struct process *p = arg;
    struct pool *pool = p->pool;
    char how[64];
    describe_end(wait_status, how, sizeof how);
    OB_CRASH_POINT("worker_exited");
    io_drain(p); /* results that it wrote before count */
    if (p->state != PROCESS_OVER)
        set_state(p, PROCESS_OVER, UINT64_MAX);
    p->handle = NULL;
    list_remove(&p->link);
    pool->count--;
    unsigned unanswered = p->in_flight;
    finish_flights(p, wait_status, how);
    report_end(p, wait_status, unanswered);
    executor_dirty(pool);
    io_close(p);
}

static void on_failed(void *arg, const char *stage, int errnum)
{
    struct process *p = arg;
    struct pool *pool = p->pool;
    struct outcome waiting;
    outcome_init(&waiting);
    outcome_from_spawn_error(&waiting, stage, errnum,
                             strcmp(stage, "chdir") == 0 ? pool->cwd : pool->argv[0]);
    set_state(p, PROCESS_OVER, UINT64_MAX);
    p->handle = NULL;
    list_remove(&p->link);
    pool->count--;
    tell(p, WORKER_NOT_READY, waiting.reason, pool_process_failed(pool, &waiting));
    executor_dirty(pool);
    io_close(p);
}

/* ---- start ---- */

static int send_request(struct process *p, const int child_fds[3])
{
    static const struct spawn_callbacks callbacks = {
        .on_started = on_started, .on_failed = on_failed, .on_exit = on_exit_told};
    struct pool *pool = p->pool;
    const struct spawn_request request = {.argv = pool->argv,
                                          .envp = pool->env.items,
                                          .cwd = pool->cwd,
                                          .umask = pool->umask,
                                          .stdin_fd = child_fds[0],
                                          .stdout_fd = child_fds[1],
                                          .stderr_fd = child_fds[2]};
    return spawn_client_spawn(pool->ex->client, &request, &callbacks, p, &p->handle);
}

int process_start(struct pool *pool)
{
    struct worker_executor *ex = pool->ex;
    struct process *p = ob_calloc(1, sizeof *p);
    if (p == NULL)
        return OB_ENOMEM;
    uint64_t now_ms = uv_now(ex->base.loop);
    *p = (struct process){.pool = pool, .pid = -1, .started_ms = now_ms, .idle_since_ms = now_ms};
    p->in.fd = p->out.fd = p->err.fd = -1;
    list_init(&p->link);
    list_init(&p->room_link);
    list_init(&p->flights);
    buf_init(&p->output, SIZE_MAX);
    buf_init(&p->partial, REPLY_LINE_MAX);
    capture_init(&p->err_tail, 0, ERR_TAIL_MAX);
    pool->open++;
    pool->starting++;
    int child_fds[3];
    int err = io_open(p, child_fds);
    if (err == 0)
        err = send_request(p, child_fds);
    for (int i = 0; i < 3; i++) {
        if (child_fds[i] >= 0)
            (void)close(child_fds[i]);
    }
    if (err != 0) {
        set_state(p, PROCESS_OVER, UINT64_MAX);
        io_close(p);
        return err;
    }
    list_append(&pool->processes, &p->link);
    pool->count++;
    p->due_ms = now_ms + pool->config.start_timeout_ms;
    executor_arm(ex, p->due_ms);
    return 0;
}
