#define _GNU_SOURCE
/* command.c - see command.h. Owns a struct command_run a job: its pipe, its timer, its outcome.
 * Knows no database and writes no log. */
#include "exec/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "exec/capture.h"
#include "exec/command_args.h"

enum {
    GRACE_MS = 5000,              /* between TERM and KILL */
    READ_BYTES = 64 * 1024,       /* at once */
    READS_PER_TURN = 4,           /* then other descriptors have their turn */
    WATCH_AFTER_MS = 10,          /* until then a pipe holds what a child says */
    DRAIN_BYTES_MAX = 1024 * 1024 /* after the exit: what the largest pipe can hold */
};

struct command_executor {
    struct executor base;
    struct spawn_client *client;
    size_t open_runs; /* runs whose memory libuv may still use */
    bool is_closing;
    void (*close_cb)(struct executor *ex);
    struct list unwatched;  /* runs whose output nobody reads yet, the oldest first */
    uv_timer_t watch_timer; /* while there are any; closed last */
    struct strvec argv;
    struct strvec env;
    char read_buffer[READ_BYTES];
};

enum command_state {
    COMMAND_RUNNING, /* asked for; handle, timer for the timeout; with a pipe, in `unwatched` or
                      * watched */
    COMMAND_ENDING,  /* TERM sent; timer for the grace */
    COMMAND_KILLED,  /* KILL sent; timer stopped */
    COMMAND_OVER     /* the run is finished; handles are closing */
};

struct command_run {
    struct command_executor *ex;
    struct run *run; /* NULL in COMMAND_OVER */
    enum command_state state;
    struct spawn_handle *handle;
    bool is_timed_out;
    bool is_stopping;
    int out_fd; /* our end of the pipe for stdout and stderr; -1: not captured */
    struct capture capture;
    struct list unwatched_link;
    bool is_watched; /* `out` is open */
    uv_poll_t out;
    uv_timer_t timer;
    int open_handles;
};

static struct command_executor *executor_of(struct executor *ex)
{
    return (struct command_executor *)(void *)ex; /* base is the first member */
}

static const struct command_config *config_of(const struct command_run *cr)
{
    return &cr->run->task->command;
}

static void set_state(struct command_run *cr, enum command_state state)
{
    /* Only forward: a run is never less stopped than it was. */
    ob_assert(state > cr->state);
    cr->state = state;
}

/* ---- the end of a run's memory ---- */

static void on_executor_closed(uv_handle_t *handle)
{
    struct command_executor *ex = handle->data;
    void (*cb)(struct executor * ex) = ex->close_cb;
    cb(&ex->base);
    strvec_deinit(&ex->argv);
    strvec_deinit(&ex->env);
    ob_free(ex);
}

static void close_if_idle(struct command_executor *ex)
{
    if (ex->is_closing && ex->open_runs == 0)
        uv_close((uv_handle_t *)&ex->watch_timer, on_executor_closed);
}

static void run_free(struct command_run *cr)
{
    struct command_executor *ex = cr->ex;
    ob_free(cr);
    ex->open_runs--;
    close_if_idle(ex);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct command_run *cr = handle->data;
    ob_assert(cr->state == COMMAND_OVER);
    if (--cr->open_handles == 0)
        run_free(cr);
}

/* Gives back descriptors at once and the memory when libuv lets go of it. */
static void run_close(struct command_run *cr)
{
    set_state(cr, COMMAND_OVER);
    cr->run = NULL;
    cr->handle = NULL;
    list_remove(&cr->unwatched_link);
    if (cr->is_watched)
        uv_close((uv_handle_t *)&cr->out, on_handle_closed);
    if (cr->out_fd >= 0)
        (void)close(cr->out_fd);
    cr->out_fd = -1;
    uv_close((uv_handle_t *)&cr->timer, on_handle_closed);
    capture_deinit(&cr->capture);
}

/* ---- output ---- */

/* Reads at most bytes_max. False: nothing will come any more, or nothing is there. */
static bool read_output(struct command_run *cr, size_t bytes_max)
{
    char *buffer = cr->ex->read_buffer;
    while (bytes_max > 0) {
        ssize_t n = read(cr->out_fd, buffer, READ_BYTES < bytes_max ? READ_BYTES : bytes_max);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 && cr->is_watched)
            (void)uv_poll_stop(&cr->out); /* end of file stays readable; it ends nothing else */
        if (n <= 0)
            return false;
        capture_add(&cr->capture, buffer, (size_t)n);
        bytes_max -= (size_t)n;
    }
    return true;
}

static void on_output(uv_poll_t *poll, int status, int events)
{
    struct command_run *cr = poll->data;
    (void)status;
    (void)events;
    ob_assert(cr->state != COMMAND_OVER);
    (void)read_output(cr, (size_t)READ_BYTES * READS_PER_TURN);
}

/* Most jobs end soon and say little: what they say is read once, at their end. The others are
 * watched from their tenth millisecond on; a child that fills its pipe before waits so long. */
static void on_watch_timer(uv_timer_t *timer)
{
    struct command_executor *ex = timer->data;
    uint64_t now = clock_mono_ms();
    list_for_each (node, tmp, &ex->unwatched) {
        struct command_run *cr = list_entry(node, struct command_run, unwatched_link);
        uint64_t age_ms = now - cr->run->started_mono_ms;
        if (age_ms < WATCH_AFTER_MS) {
            (void)uv_timer_start(timer, on_watch_timer, WATCH_AFTER_MS - age_ms, 0);
            return;
        }
        int err = uv_poll_init(ex->base.loop, &cr->out, cr->out_fd);
        if (err != 0) { /* memory is short: a little later */
            (void)uv_timer_start(timer, on_watch_timer, WATCH_AFTER_MS, 0);
            return;
        }
        list_remove(node);
        cr->out.data = cr;
        cr->is_watched = true;
        cr->open_handles++;
        err = uv_poll_start(&cr->out, UV_READABLE, on_output);
        ob_assert(err == 0); /* fails only for a closing handle */
    }
}

static void watch_later(struct command_run *cr)
{
    struct command_executor *ex = cr->ex;
    if (list_is_empty(&ex->unwatched))
        (void)uv_timer_start(&ex->watch_timer, on_watch_timer, WATCH_AFTER_MS, 0);
    list_append(&ex->unwatched, &cr->unwatched_link);
}

static void attach_output(struct command_run *cr, struct outcome *outcome)
{
    enum capture_when when = config_of(cr)->capture;
    if (when == CAPTURE_NEVER || (when == CAPTURE_ON_FAILURE && outcome->kind == OUTCOME_DONE))
        return;
    capture_finish(&cr->capture);
    outcome->head = cr->capture.head;
    outcome->head_len = cr->capture.head_len;
    outcome->tail = cr->capture.tail;
    outcome->tail_len = cr->capture.tail_len;
    outcome->output_bytes = cr->capture.bytes_seen;
}

/* ---- ending a child ---- */

static void on_grace_over(uv_timer_t *timer)
{
    struct command_run *cr = timer->data;
    set_state(cr, COMMAND_KILLED);
    spawn_client_kill(cr->ex->client, cr->handle, SIGKILL);
}

/* TERM, and CONT so that a stopped process hears it; KILL after the grace. */
static void ask_to_end(struct command_run *cr)
{
    set_state(cr, COMMAND_ENDING);
    spawn_client_kill(cr->ex->client, cr->handle, SIGTERM);
    spawn_client_kill(cr->ex->client, cr->handle, SIGCONT);
    int err = uv_timer_start(&cr->timer, on_grace_over, GRACE_MS, 0);
    ob_assert(err == 0);
}

static void on_timeout(uv_timer_t *timer)
{
    struct command_run *cr = timer->data;
    ob_assert(cr->state == COMMAND_RUNNING);
    cr->is_timed_out = true;
    ask_to_end(cr);
}

static void command_stop(struct executor *base, struct run *run, enum stop_reason reason)
{
    struct command_run *cr = run->executor_data;
    ob_assert(cr != NULL && &cr->ex->base == base && cr->state != COMMAND_OVER);
    if (!cr->is_timed_out)
        cr->is_stopping = true;
    if (reason != STOP_KILL && cr->state == COMMAND_RUNNING) {
        ask_to_end(cr);
    } else if (reason == STOP_KILL && cr->state != COMMAND_KILLED) {
        set_state(cr, COMMAND_KILLED);
        (void)uv_timer_stop(&cr->timer);
        spawn_client_kill(cr->ex->client, cr->handle, SIGKILL);
    }
}

/* ---- what the spawner tells ---- */

/* What a failure at that stage is about. */
static const char *subject_of(const struct run *run, const char *stage)
{
    const struct command_config *config = &run->task->command;
    if (strcmp(stage, "chdir") == 0)
        return config->cwd;
    return run->task->kind == HANDLER_SHELL ? "/bin/sh" : config->argv.items[0];
}

static void on_failed(void *arg, const char *stage, int errnum)
{
    struct command_run *cr = arg;
    struct outcome outcome;
    outcome_init(&outcome);
    outcome_from_spawn_error(&outcome, stage, errnum, subject_of(cr->run, stage));
    struct run *run = cr->run;
    run_close(cr);
    run_finish(run, &outcome);
}

/* Over is when the leader is: not at the end of the output, which a survivor may hold open. */
static void on_exit_told(void *arg, int wait_status)
{
    struct command_run *cr = arg;
    OB_CRASH_POINT("command_exited");
    if (cr->out_fd >= 0)
        (void)read_output(cr, DRAIN_BYTES_MAX);
    struct outcome outcome;
    outcome_init(&outcome);
    const struct command_end end = {
        .wait_status = wait_status, .timed_out = cr->is_timed_out, .stopping = cr->is_stopping};
    outcome_from_command(&outcome, config_of(cr), &end);
    attach_output(cr, &outcome);
    /* The output belongs to the run until on_done returns. */
    struct capture capture = cr->capture;
    capture_init(&cr->capture, 0, 0);
    struct run *run = cr->run;
    run_close(cr);
    run_finish(run, &outcome);
    capture_deinit(&capture);
}

/* ---- start ---- */

/* Pipe for stdout and stderr both, so that their order is kept. Returns 0 or a negative errno. */
static int open_output(struct command_run *cr, int *ret_child_fd)
{
    *ret_child_fd = -1;
    if (config_of(cr)->capture == CAPTURE_NEVER)
        return 0;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) { /* ours alone: children expect blocking pipes */
        int err = -errno;
        (void)close(fds[0]);
        (void)close(fds[1]);
        return err;
    }
    cr->out_fd = fds[0];
    *ret_child_fd = fds[1];
    return 0;
}

static int send_request(struct command_run *cr, int stdin_fd, int out_fd)
{
    static const struct spawn_callbacks callbacks = {.on_failed = on_failed,
                                                     .on_exit = on_exit_told};
    struct command_executor *ex = cr->ex;
    const struct command_config *config = config_of(cr);
    int err = command_build_argv(cr->run, &ex->argv);
    if (err == 0)
        err = command_build_env(cr->run, &ex->env);
    if (err != 0)
        return err;
    const struct spawn_request request = {.argv = ex->argv.items,
                                          .envp = ex->env.items,
                                          .cwd = config->cwd,
                                          .umask = config->umask,
                                          .skips_start = true,
                                          .stdin_fd = stdin_fd,
                                          .stdout_fd = out_fd,
                                          .stderr_fd = out_fd};
    return spawn_client_spawn(ex->client, &request, &callbacks, cr, &cr->handle);
}

/* Says in the outcome why nothing was started. */
static void explain(const struct run *run, const char *stage, int err, struct outcome *ret_outcome)
{
    int errnum = -err;
    if (err == OB_ETOOBIG)
        errnum = E2BIG;
    else if (err == OB_ENOMEM)
        errnum = ENOMEM;
    else if (err == OB_ESPAWN)
        errnum = EAGAIN; /* another spawner is on its way */
    outcome_from_spawn_error(ret_outcome, stage, errnum, subject_of(run, stage));
}

static int command_start(struct executor *base, struct run *run, struct outcome *ret_outcome)
{
    struct command_executor *ex = executor_of(base);
    ob_assert(!ex->is_closing);
    struct command_run *cr = ob_calloc(1, sizeof *cr);
    if (cr == NULL) {
        explain(run, "memory", OB_ENOMEM, ret_outcome);
        return OB_ENOMEM;
    }
    const struct command_config *config = &run->task->command;
    *cr = (struct command_run){.ex = ex, .run = run, .out_fd = -1, .open_handles = 1};
    list_init(&cr->unwatched_link);
    capture_init(&cr->capture, config->capture_head_bytes, config->capture_tail_bytes);
    (void)uv_timer_init(base->loop, &cr->timer); /* never fails */
    cr->timer.data = cr;
    ex->open_runs++;

    int stdin_fd = -1;
    int out_fd = -1;
    const char *stage = "stdin";
    int err = command_open_stdin(run->body, run->body_len, &stdin_fd);
    if (err == 0) {
        stage = "stdout";
        err = open_output(cr, &out_fd);
    }
    if (err == 0) {
        stage = "spawn";
        err = send_request(cr, stdin_fd, out_fd);
    }
    if (stdin_fd >= 0)
        (void)close(stdin_fd);
    if (out_fd >= 0)
        (void)close(out_fd);
    if (err != 0) {
        run_close(cr);
        explain(run, stage, err, ret_outcome);
        return err;
    }
    if (cr->out_fd >= 0)
        watch_later(cr);
    if (run->task->timeout_ms > 0)
        err = uv_timer_start(&cr->timer, on_timeout, run->task->timeout_ms, 0);
    ob_assert(err == 0); /* fails only for a closing handle */
    run->executor_data = cr;
    return 0;
}

static void command_close(struct executor *base, void (*cb)(struct executor *ex))
{
    struct command_executor *ex = executor_of(base);
    ob_assert(!ex->is_closing);
    ex->is_closing = true;
    ex->close_cb = cb;
    close_if_idle(ex);
}

int command_executor_new(uv_loop_t *loop, struct spawn_client *client,
                         struct executor **ret_executor)
{
    static const struct executor_ops ops = {
        .name = "command", .start = command_start, .stop = command_stop, .close = command_close};
    struct command_executor *ex = ob_calloc(1, sizeof *ex);
    if (ex == NULL)
        return OB_ENOMEM;
    ex->base.ops = &ops;
    ex->base.loop = loop;
    ex->client = client;
    strvec_init(&ex->argv);
    strvec_init(&ex->env);
    list_init(&ex->unwatched);
    (void)uv_timer_init(loop, &ex->watch_timer); /* never fails */
    ex->watch_timer.data = ex;
    *ret_executor = &ex->base;
    return 0;
}
