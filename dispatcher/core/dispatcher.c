/* dispatcher.c - the daemon's life: beginning, signals, reload, and the end. Turns are in turn.c,
 * jobs in runner.c, the database in session.c. */
#include "core/dispatcher.h"

#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "core/discard.h"
#include "core/dispatcher_priv.h"
#include "exec/command.h"
#include "webhook/http.h"

enum {
    TERM_GRACE_MS = 5000,   /* of stop_timeout, between TERM and KILL */
    RECORD_GRACE_MS = 5000, /* after KILL: reaping, and the last results */
    GIVE_UP_MS = 10,        /* until a connection that was failed has answered everything */
    STATS_EVERY_MS = 60000
};

static const int signal_numbers[SIGNALS] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1};

/* ---- executors ---- */

/* Both kinds of commands share one executor. */
static enum handler_kind slot_of(enum handler_kind kind)
{
    return kind == HANDLER_EXEC ? HANDLER_SHELL : kind;
}

struct executor *dispatcher_executor(struct dispatcher *d, enum handler_kind kind)
{
    enum handler_kind slot = slot_of(kind);
    struct executor **ex = &d->executors[slot];
    int err = 0;
    if (*ex != NULL)
        return *ex;
    switch (slot) {
    case HANDLER_SHELL:
    case HANDLER_EXEC:
        err = command_executor_new(&d->loop, d->spawn, ex);
        break;
    case HANDLER_WEBHOOK:
        err = webhook_executor_new(&d->loop, d->lanes.config, ex);
        break;
    case HANDLER_DISCARD:
        err = discard_executor_new(&d->loop, ex);
        break;
    case HANDLER_WORKER:
        err = workers_new(d, ex);
        break;
    }
    if (err != 0)
        log_error("executor_failed", LOG_STR("handler", handler_kind_name(kind)),
                  LOG_STR("err", ob_strerror(err)));
    return err == 0 ? *ex : NULL;
}

/* Executors hear of another configuration before the one in force goes. */
static void configure_executors(struct dispatcher *d, const struct config *config)
{
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        struct executor *ex = d->executors[i];
        if (ex != NULL && ex->ops->configure != NULL)
            ex->ops->configure(ex, config);
    }
}

static unsigned room(void *arg, const struct task_config *task, uint64_t now_ms,
                     uint64_t *ret_until_ms)
{
    struct dispatcher *d = arg;
    struct executor *ex = d->executors[slot_of(task->kind)];
    if (ex == NULL && task->kind == HANDLER_WEBHOOK && task->webhook.rate.count > 0)
        ex = dispatcher_executor(d, task->kind); /* a rate bounds the first ones too */
    if (ex == NULL || ex->ops->room == NULL)
        return UINT_MAX;
    return ex->ops->room(ex, task, now_ms, ret_until_ms);
}

/* ---- the end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct dispatcher *d = handle->data;
    d->closing_handles--;
}

static void close_handle(struct dispatcher *d, uv_handle_t *handle)
{
    d->closing_handles++;
    handle->data = d;
    uv_close(handle, on_handle_closed);
}

static void on_spawn_closed(void *arg)
{
    struct dispatcher *d = arg;
    d->spawn = NULL;
}

/* The executors are gone: nothing uses the spawner any more. */
static void close_spawn(struct dispatcher *d)
{
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        if (d->executors[i] != NULL)
            return;
    }
    if (d->spawn != NULL)
        spawn_client_close(d->spawn, on_spawn_closed, d);
}

static void on_executor_closed(struct executor *ex)
{
    struct dispatcher *d = ex->owner;
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        if (d->executors[i] == ex)
            d->executors[i] = NULL;
    }
    close_spawn(d);
}

/* Some jobs are left to the lease. A harsher reason to end stays the exit code. */
static void note_rows_left(struct dispatcher *d)
{
    if (d->exit_code == OB_EXIT_OK)
        d->exit_code = OB_EXIT_TRY_AGAIN;
}

static void on_session_closed(void *arg, bool left_rows)
{
    struct dispatcher *d = arg;
    d->session = NULL;
    if (left_rows || d->is_claim_unknown)
        note_rows_left(d);
    bool has_executor = false;
    for (size_t i = 0; i < EXECUTOR_KINDS; i++) {
        struct executor *ex = d->executors[i];
        if (ex == NULL)
            continue;
        has_executor = true;
        ex->owner = d;
        ex->ops->close(ex, on_executor_closed);
    }
    if (!has_executor)
        close_spawn(d);
}

/* Whatever is left now is left to its lease: only when the database did not answer in time. */
static void drop_results(struct dispatcher *d)
{
    list_for_each (node, tmp, &d->executions) {
        struct execution *e = list_entry(node, struct execution, link);
        ob_assert(e->state == EXECUTION_FINISHED);
        note_rows_left(d);
        runner_forget(d, e);
    }
}

static void close_everything(struct dispatcher *d)
{
    d->phase = PHASE_CLOSING;
    turn_unready(d);
    close_handle(d, (uv_handle_t *)&d->turn_timer);
    close_handle(d, (uv_handle_t *)&d->turn_prepare);
    close_handle(d, (uv_handle_t *)&d->turn_idle);
    close_handle(d, (uv_handle_t *)&d->poll_timer);
    close_handle(d, (uv_handle_t *)&d->due_timer);
    close_handle(d, (uv_handle_t *)&d->look_timer);
    close_handle(d, (uv_handle_t *)&d->sweep_timer);
    close_handle(d, (uv_handle_t *)&d->ahead_timer);
    close_handle(d, (uv_handle_t *)&d->stop_timer);
    close_handle(d, (uv_handle_t *)&d->stats_timer);
    for (size_t i = 0; i < SIGNALS; i++)
        close_handle(d, (uv_handle_t *)&d->signals[i]);
    session_close(d->session, on_session_closed, d);
}

static void on_stop_timer(uv_timer_t *timer);

static void enter_phase(struct dispatcher *d, enum stop_phase phase)
{
    uint64_t stop_ms = d->lanes.config->stop_timeout_ms;
    uint64_t grace_ms = stop_ms < TERM_GRACE_MS ? stop_ms / 2 : TERM_GRACE_MS;
    uint64_t timer_ms = RECORD_GRACE_MS;
    ob_assert(phase > d->phase);
    d->phase = phase;
    if (phase == PHASE_FINISHING)
        timer_ms = stop_ms - grace_ms;
    else if (phase == PHASE_TERMINATING)
        timer_ms = grace_ms;
    (void)uv_timer_start(&d->stop_timer, on_stop_timer, timer_ms, 0);
    workers_retire(d, phase == PHASE_KILLING);
    runner_release_unstarted(d);
    if (phase == PHASE_TERMINATING)
        runner_stop_all(d, STOP_SHUTDOWN);
    else if (phase == PHASE_KILLING)
        runner_stop_all(d, STOP_KILL);
    runner_release_unstarted(d);
    dispatcher_idle(d);
}

static bool all_finished(const struct dispatcher *d)
{
    list_for_each (node, tmp, &d->executions) {
        if (list_entry(node, struct execution, link)->state != EXECUTION_FINISHED)
            return false;
    }
    return true;
}

/* What was killed is reaped or not, what is to be recorded was recorded or not: time is up. */
static void give_up(struct dispatcher *d)
{
    list_for_each (node, tmp, &d->executions) {
        if (list_entry(node, struct execution, link)->state == EXECUTION_RUNNING) {
            log_error("not_reaped", LOG_INT("running", d->executions_count),
                      LOG_STR("next", "waiting for what was killed to end"));
            (void)uv_timer_start(&d->stop_timer, on_stop_timer, RECORD_GRACE_MS, 0);
            return;
        }
    }
    if (session_is_ready(d->session)) {
        /* What is under way is answered from the loop, as lost; then nothing is. */
        session_fail(d->session, "stopping: the database does not answer");
        (void)uv_timer_start(&d->stop_timer, on_stop_timer, GIVE_UP_MS, 0);
        return;
    }
    if (d->turn_pending > 0 || !all_finished(d)) { /* the answers are on their way from the loop */
        (void)uv_timer_start(&d->stop_timer, on_stop_timer, GIVE_UP_MS, 0);
        return;
    }
    log_error("results_not_recorded", LOG_INT("jobs", d->executions_count),
              LOG_STR("next", "they run again when the lease is over"));
    drop_results(d);
    close_everything(d);
}

/* Time is up for the phase: go on to the next, harsher one. */
static void on_stop_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    if (d->phase == PHASE_FINISHING) {
        log_info("stopping", LOG_STR("step", "TERM"), LOG_INT("running", d->executions_count));
        enter_phase(d, PHASE_TERMINATING);
    } else if (d->phase == PHASE_TERMINATING) {
        log_warn("stopping", LOG_STR("step", "KILL"), LOG_INT("running", d->executions_count));
        enter_phase(d, PHASE_KILLING);
    } else if (d->phase == PHASE_KILLING) {
        give_up(d);
    }
}

static void begin_stop(struct dispatcher *d, const char *why)
{
    log_info("stopping", LOG_STR("why", why), LOG_INT("running", d->executions_count));
    enter_phase(d, PHASE_FINISHING);
}

/* Under a lease that is not renewed nothing new begins, though the work connection may be fine. */
bool dispatcher_may_start(const struct dispatcher *d)
{
    return d->phase == PHASE_RUNNING && d->lease == LEASE_GOOD;
}

void dispatcher_idle(struct dispatcher *d)
{
    if (d->phase == PHASE_CLOSING || d->turn_pending > 0 || d->executions_count > 0)
        return;
    if (d->phase != PHASE_RUNNING) {
        close_everything(d);
        return;
    }
    if (control_is_drained(d)) {
        d->exit_code = lanes_are_stuck(&d->lanes) ? OB_EXIT_TRY_AGAIN : d->exit_code;
        begin_stop(d, "drained");
    }
}

/* ---- signals ---- */

static void reload(struct dispatcher *d)
{
    struct buf errors;
    struct config *config = NULL;
    buf_init(&errors, 64 * 1024);
    int err = d->options->reload(d->options->reload_arg, &config, &errors);
    if (err != 0) {
        log_error("reload_failed",
                  LOG_STR("err", errors.data != NULL ? errors.data : ob_strerror(err)),
                  LOG_STR("next", "the configuration before stays in force"));
    } else {
        configure_executors(d, config);
        lanes_set_config(&d->lanes, config);
        workers_configure(d);
        session_set_config(d->session, config);
        log_info("reloaded", LOG_INT("tasks", config->tasks_count));
        turn_reloaded(d);
    }
    config_unref(config);
    buf_deinit(&errors);
}

static void on_stop_signal(struct dispatcher *d, int signum)
{
    if (signum == SIGQUIT) {
        if (d->phase < PHASE_KILLING)
            enter_phase(d, PHASE_KILLING);
    } else if (d->phase == PHASE_RUNNING) {
        begin_stop(d, signum == SIGTERM ? "TERM" : "INT");
    } else if (d->phase == PHASE_FINISHING) {
        enter_phase(d, PHASE_TERMINATING); /* asked twice: skip the wait */
    }
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct dispatcher *d = handle->data;
    if (signum == SIGHUP && d->phase == PHASE_RUNNING) {
        reload(d);
    } else if (signum == SIGUSR1) {
        d->is_quiet = !d->is_quiet;
        log_info(d->is_quiet ? "quiet" : "loud",
                 LOG_STR("next", d->is_quiet ? "no claims until USR1 comes again" : NULL));
        turn_look(d);
    } else if (signum == SIGTERM || signum == SIGINT || signum == SIGQUIT) {
        on_stop_signal(d, signum);
    }
}

/* ---- the session's news ---- */

static void on_ready(void *arg)
{
    struct dispatcher *d = arg;
    d->is_claim_unknown = false; /* given back while joining */
    if (d->phase == PHASE_RUNNING) {
        workers_configure(d);
        runner_fetch_again(d);
    }
    turn_ready(d);
}

static void on_unready(void *arg)
{
    turn_unready(arg);
}

static void on_wake(void *arg)
{
    wake_notified(arg);
}

static void on_fatal(void *arg, int exit_code)
{
    struct dispatcher *d = arg;
    d->exit_code = exit_code;
    if (d->phase == PHASE_RUNNING)
        begin_stop(d, "cannot go on");
}

static void on_lease(void *arg, enum session_lease lease)
{
    struct dispatcher *d = arg;
    d->lease = lease;
    switch (lease) {
    case LEASE_GOOD:
        log_info("lease_renewed", LOG_NONE);
        turn_look(d);
        break;
    case LEASE_ENDING:
        log_error(
            "lease_ending", LOG_INT("running", d->executions_count),
            LOG_STR("next", "what runs is stopped before another dispatcher may take it over"));
        runner_stop_all(d, STOP_LOST);
        break;
    case LEASE_OVER:
        log_error("lease_over", LOG_INT("running", d->executions_count),
                  LOG_STR("next", "killing what still runs"));
        runner_stop_all(d, STOP_KILL);
        break;
    }
}

static void on_renewed(void *arg, uint64_t boot_ms)
{
    struct dispatcher *d = arg;
    if (d->spawn != NULL)
        spawn_client_set_deadline(d->spawn, boot_ms);
}

static void on_lock(void *arg, int fd)
{
    struct dispatcher *d = arg;
    int err = spawn_client_hold_fd(d->spawn, fd);
    if (err != 0)
        log_warn("lock_not_held", LOG_STR("err", ob_strerror(err)),
                 LOG_STR("next", "holding it in this process alone"));
}

static struct store_token *tokens(void *arg, size_t *ret_n)
{
    return runner_tokens(arg, ret_n);
}

static bool is_clear(void *arg)
{
    return runner_is_clear(arg);
}

static void on_adopted(void *arg, const struct store_token *adopted, size_t n)
{
    runner_adopted(arg, adopted, n);
}

/* ---- the beginning ---- */

/* Every child of it is dead and has been reported; another one starts before anything else does. */
static void on_spawner_lost(void *arg)
{
    struct dispatcher *d = arg;
    int err = spawn_client_restart(d->spawn);
    log_error("spawner_died", LOG_STR("next", err == 0 ? "another one was started" : "stopping"),
              LOG_STR("err", err == 0 ? NULL : ob_strerror(err)));
    if (err != 0)
        on_fatal(d, OB_EXIT_FAILED);
}

static void on_stats_timer(uv_timer_t *timer)
{
    struct dispatcher *d = timer->data;
    if (d->stats.done + d->stats.retried + d->stats.dead + d->stats.released + d->stats.lost > 0)
        log_info("stats", LOG_INT("done", d->stats.done), LOG_INT("retried", d->stats.retried),
                 LOG_INT("dead", d->stats.dead), LOG_INT("released", d->stats.released),
                 LOG_INT("lost", d->stats.lost), LOG_INT("running", d->executions_count));
    memset(&d->stats, 0, sizeof d->stats);
}

static void start_signals(struct dispatcher *d)
{
    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < SIGNALS; i++) {
        (void)uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        (void)uv_signal_start(&d->signals[i], on_signal, signal_numbers[i]);
    }
}

static int dispatcher_init(struct dispatcher *d, const struct dispatcher_options *options)
{
    static const struct session_callbacks callbacks = {
        .on_ready = on_ready,
        .on_unready = on_unready,
        .on_wake = on_wake,
        .on_fatal = on_fatal,
        .on_lease = on_lease,
        .on_renewed = on_renewed,
        .on_lock = on_lock,
        .tokens = tokens,
        .on_adopted = on_adopted,
        .is_clear = is_clear,
        .on_orders = control_orders,
    };
    d->options = options;
    list_init(&d->executions);
    list_init(&d->results);
    int err = uv_loop_init(&d->loop);
    if (err != 0)
        return err;
    lanes_init(&d->lanes, options->config);
    d->lanes.room = room;
    d->lanes.room_arg = d;
    stream_init(&d->stream);
    turn_init(d);
    ahead_init(d);
    (void)uv_timer_init(&d->loop, &d->stop_timer);
    (void)uv_timer_init(&d->loop, &d->stats_timer);
    d->stop_timer.data = d;
    d->stats_timer.data = d;
    start_signals(d);
    err = spawn_client_new(&d->loop, &options->spawner, on_spawner_lost, d, &d->spawn);
    int session_err = session_new(&d->loop, options->config, &callbacks, d, &d->session);
    return err != 0 ? err : session_err;
}

int dispatcher_run(const struct dispatcher_options *options)
{
    struct dispatcher *d = ob_xcalloc(1, sizeof *d);
    int err = dispatcher_init(d, options);
    log_info("starting", LOG_STR("version", OB_VERSION), LOG_INT("pid", getpid()),
             LOG_INT("tasks", options->config->tasks_count));
    if (d->session == NULL) { /* no loop to close anything on */
        log_error("start_failed", LOG_STR("err", ob_strerror(err)));
        ob_free(d);
        return ob_exit_code(err);
    }
    if (err != 0) {
        log_error("start_failed", LOG_STR("err", ob_strerror(err)));
        d->exit_code = ob_exit_code(err);
        close_everything(d);
    } else {
        (void)uv_timer_start(&d->stats_timer, on_stats_timer, STATS_EVERY_MS, STATS_EVERY_MS);
        session_start(d->session);
    }
    (void)uv_run(&d->loop, UV_RUN_DEFAULT);
    ob_assert(d->executions_count == 0);
    err = uv_loop_close(&d->loop);
    ob_assert(err == 0); /* nothing was forgotten */
    int exit_code = d->exit_code;
    log_info("stopped", LOG_INT("exit", exit_code));
    lanes_deinit(&d->lanes);
    stream_deinit(&d->stream);
    wake_deinit(d);
    control_deinit(d);
    ob_free(d);
    return exit_code;
}
