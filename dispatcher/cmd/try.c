/* try.c - `outbox try`: runs a task's handler once, here and now, by the same executors as the
 * daemon and without a database, and says what would have become of the job. */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "cmd/input.h"
#include "cmd/try_report.h"
#include "core/discard.h"
#include "core/handler.h"
#include "exec/command.h"
#include "exec/spawn_client.h"
#include "webhook/http.h"
#include "worker/worker.h"

static const struct cmd_option options[] = {
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_HANDLERS,
    {"attempt", '\0', "N", "as the job's N-th attempt (default 1)"},
    {"id", '\0', "N", "as the job with this id (default 1)"},
    {"key", 'k', "KEY", "as a job with this key"},
    {"header", 'H', "NAME=VALUE", "a header of the job; repeatable"},
    {"timeout", '\0', "DURATION", "instead of the task's own"},
    {"msgpack", '\0', NULL, "standard input holds msgpack instead of JSON"},
    CMD_OPTION_JSON,
    CMD_OPTIONS_END,
};

enum { CAPTURE_BYTES = 64 * 1024, JSON_MAX = 256 * 1024 * 1024 };

struct trial {
    const struct cmd_args *args;
    const struct config *config;
    struct task_config task; /* a copy of the configuration's, with all output captured */
    struct config only;      /* what the executor is told: this task alone */
    struct job job;
    struct run run;
    uv_loop_t loop;
    uv_signal_t signals[2];
    unsigned interrupts;
    struct spawn_client *client;
    struct executor *executor;
    bool finished;
    struct buf payload;
    struct buf body; /* of a msgpack payload that is converted */
    struct buf headers;
    int code;
};

static void on_signal_closed(uv_handle_t *handle)
{
    (void)handle; /* part of the trial, which outlives the loop */
}

static void on_client_closed(void *arg)
{
    struct trial *t = arg;
    t->client = NULL;
}

static void on_executor_closed(struct executor *ex)
{
    struct trial *t = ex->owner;
    if (t->client != NULL)
        spawn_client_close(t->client, on_client_closed, t);
}

/* The run is over: nothing may keep the loop alive. */
static void finish(struct trial *t, const struct outcome *outcome)
{
    ob_assert(!t->finished);
    t->finished = true;
    t->code = try_report(t->args, &t->run, outcome);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&t->signals[i], on_signal_closed);
    t->executor->ops->close(t->executor, on_executor_closed);
}

static void on_done(struct run *run, const struct outcome *outcome)
{
    finish(run->owner, outcome);
}

static void on_spawner_lost(void *arg)
{
    (void)arg; /* the run got its on_exit before: nothing more will be started */
}

/* INT and TERM stop the handler as a stopping dispatcher would; the second one kills it. */
static void on_signal(uv_signal_t *handle, int signum)
{
    struct trial *t = handle->data;
    (void)signum;
    t->interrupts++;
    if (!t->finished)
        t->executor->ops->stop(t->executor, &t->run, t->interrupts > 1 ? STOP_KILL : STOP_SHUTDOWN);
}

static int watch_signals(struct trial *t)
{
    static const int signums[2] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < 2; i++) {
        int err = uv_signal_init(&t->loop, &t->signals[i]);
        t->signals[i].data = t;
        if (err == 0)
            err = uv_signal_start(&t->signals[i], on_signal, signums[i]);
        if (err != 0)
            return err;
    }
    return 0;
}

/* What the daemon would log. */
static void on_worker(void *arg, const struct worker_event *e)
{
    const struct trial *t = arg;
    if (e->kind == WORKER_STDERR)
        cmd_warn(t->args, "the worker says: %s", e->text);
    else if (e->kind == WORKER_PROTOCOL_ERROR)
        cmd_warn(t->args, "protocol error: %s", e->text);
}

static int make_executor(struct trial *t)
{
    int err = 0;
    switch (t->task.kind) {
    case HANDLER_SHELL:
    case HANDLER_EXEC:
        err = spawn_client_new(&t->loop, t->args->spawner, on_spawner_lost, t, &t->client);
        if (err == 0)
            err = command_executor_new(&t->loop, t->client, &t->executor);
        break;
    case HANDLER_WEBHOOK:
        err = webhook_executor_new(&t->loop, t->config, &t->executor);
        break;
    case HANDLER_DISCARD:
        err = discard_executor_new(&t->loop, &t->executor);
        break;
    case HANDLER_WORKER:
        err = spawn_client_new(&t->loop, t->args->spawner, on_spawner_lost, t, &t->client);
        if (err == 0)
            err = worker_executor_new(&t->loop, t->client, on_worker, t, &t->executor);
        break;
    }
    if (err == 0 && t->executor->ops->configure != NULL) {
        t->only = *t->config;
        t->only.tasks = &t->task;
        t->only.tasks_count = 1;
        t->executor->ops->configure(t->executor, &t->only);
    }
    if (err == 0)
        t->executor->owner = t;
    return err;
}

/* Runs the job to its end. 0, or why it could not even be begun. */
static int run_trial(struct trial *t)
{
    int err = uv_loop_init(&t->loop);
    if (err == 0)
        err = watch_signals(t);
    if (err == 0)
        err = make_executor(t);
    if (err != 0)
        return err;
    t->run.job = &t->job;
    t->run.task = &t->task;
    t->run.executor = t->executor;
    t->run.on_done = on_done;
    t->run.owner = t;
    struct outcome outcome;
    if (run_start(&t->run, &outcome) != 0)
        finish(t, &outcome);
    (void)uv_run(&t->loop, UV_RUN_DEFAULT);
    ob_assert(t->finished);
    return uv_loop_close(&t->loop);
}

/* The body as the handler gets it: the daemon's rule (JSON unless the task wants raw). */
static int make_body(struct trial *t, bool msgpack)
{
    t->run.body = t->payload.data;
    t->run.body_len = t->payload.len;
    t->run.content_type = "application/json";
    if (!msgpack)
        return 0;
    if (t->task.payload_raw) {
        t->run.content_type = "application/msgpack";
        return 0;
    }
    char why[PAYLOAD_ERROR_SIZE] = "";
    int err = payload_msgpack_to_json(t->payload.data, t->payload.len, &t->body, why);
    if (err != 0) {
        cmd_error(t->args, "the payload: %s", why[0] != '\0' ? why : ob_strerror(err));
        return OB_EXIT_FAILED;
    }
    t->run.body = t->body.data;
    t->run.body_len = t->body.len;
    return 0;
}

static int make_job(struct trial *t, const struct cmd_args *args)
{
    int64_t id = 1;
    int64_t attempt = 1;
    bool msgpack = cmd_has(args, "msgpack");
    int code = cmd_int_value(args, "id", 1, INT64_MAX, &id);
    if (code == 0)
        code = cmd_int_value(args, "attempt", 1, 32767, &attempt);
    if (code == 0)
        code = cmd_duration_value(args, "timeout", &t->task.timeout_ms);
    if (code == 0 && t->task.timeout_ms == 0)
        code = cmd_usage(args, "--timeout 0: expected a duration such as 30s");
    if (code == 0)
        code = input_headers(args, &t->headers, &t->job.headers);
    if (code == 0)
        code = input_payload(args, args->operands_count > 1 ? args->operands[1] : NULL, msgpack,
                             &t->payload);
    if (code != 0)
        return code;
    t->job.id = id;
    t->job.claim = 1;
    t->job.task = t->task.name;
    t->job.priority = 2;
    t->job.payload = t->payload.data;
    t->job.payload_len = t->payload.len;
    t->job.encoding = msgpack ? PAYLOAD_MSGPACK : PAYLOAD_JSON;
    t->job.key = cmd_value(args, "key");
    t->job.attempt = (int)attempt;
    t->job.max_attempts = (int)t->task.max_attempts;
    t->job.created_at_us = clock_unix_us();
    return make_body(t, msgpack);
}

static int unknown_task(const struct cmd_args *args, const struct config *config, const char *name)
{
    struct buf names;
    buf_init(&names, 4096);
    for (size_t i = 0; i < config->tasks_count; i++)
        buf_printf(&names, "%s%s", i > 0 ? ", " : "", config->tasks[i].name);
    cmd_error(args, "no handler is registered for task \"%s\"; there are: %s", name,
              names.len > 0 ? names.data : "none at all (see --config, --shell)");
    buf_deinit(&names);
    return OB_EXIT_FAILED;
}

static int try_task(const struct cmd_args *args, const struct config *config)
{
    const struct task_config *task = config_find_task(config, args->operands[0]);
    if (task == NULL)
        return unknown_task(args, config, args->operands[0]);
    struct trial t;
    memset(&t, 0, sizeof t);
    t.args = args;
    t.config = config;
    t.task = *task;
    t.task.command.capture = CAPTURE_ALWAYS;
    t.task.command.capture_head_bytes = CAPTURE_BYTES;
    t.task.command.capture_tail_bytes = CAPTURE_BYTES;
    t.task.worker.startup = 0;
    t.task.worker.processes = 1;
    t.task.webhook.response_capture_bytes = CAPTURE_BYTES;
    buf_init(&t.payload, 0);
    buf_init(&t.body, JSON_MAX);
    buf_init(&t.headers, 64 * 1024);
    int code = make_job(&t, args);
    if (code == 0) {
        int err = run_trial(&t);
        if (err != 0)
            cmd_error(args, "could not run it: %s", ob_strerror(err));
        code = err != 0 ? ob_exit_code(err) : t.code;
    }
    buf_deinit(&t.payload);
    buf_deinit(&t.body);
    buf_deinit(&t.headers);
    return code;
}

static int run(const struct cmd_args *args)
{
    struct config *config = NULL;
    int code = cmd_load_config(args, &config);
    if (code != 0)
        return code;
    code = try_task(args, config);
    config_unref(config);
    return code;
}

const struct command cmd_try_command = {
    .name = "try",
    .group = CMD_SET_UP,
    .operands = "TASK [JSON|-]",
    .operands_min = 1,
    .operands_max = 2,
    .summary = "run a task's handler once, here, without a database",
    .description =
        "Runs what the configuration registers for TASK with the given payload, exactly as "
        "`outbox\n"
        "run` would, and prints how it ended, its output, and what would become of the job.\n"
        "Exits with 0 if the job would be done, with 1 otherwise.",
    .options = options,
    .needs_spawner = true,
    .run = run,
};
