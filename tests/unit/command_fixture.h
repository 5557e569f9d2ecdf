/* command_fixture.h - the real command executor over a real spawner; runs whose outcome is
 * recorded. */
#ifndef OB_TEST_COMMAND_FIXTURE_H
#define OB_TEST_COMMAND_FIXTURE_H

#include "spawn_fixture.h"

#include "base/buf.h"
#include "base/config.h"
#include "exec/command.h"

struct run_record {
    struct run run; /* first: on_done gets it back */
    struct job job;
    bool is_done;
    struct outcome outcome; /* head and tail point into the two below */
    char head[64 * 1024];
    char tail[64 * 1024];
};

static struct executor *commands;
static struct config *config;
static bool is_executor_closed;

static inline void command_fixture_open(void)
{
    fixture_open();
    config = NULL;
    is_executor_closed = false;
    ck_assert_int_eq(command_executor_new(&fx.loop, fx.client, &commands), 0);
}

static inline void on_executor_close(struct executor *ex)
{
    ck_assert_ptr_eq(ex, commands);
    is_executor_closed = true;
}

static inline void command_fixture_close(void)
{
    commands->ops->close(commands, on_executor_close);
    pump_until(is_executor_closed, 10000);
    config_unref(config);
    fixture_close();
}

/* Tasks as they stand under `tasks:` of a configuration file, one a line. */
static inline void configure(const char *tasks)
{
    struct buf errors;
    struct buf text;
    buf_init(&errors, 65536);
    buf_init(&text, 65536);
    buf_printf(&text, "tasks:\n%s\n", tasks);
    config_unref(config);
    config = config_new();
    int err = config_load_text(config, "test", text.data, text.len, &errors);
    if (err == 0)
        err = config_finish(config, &errors);
    ck_assert_msg(err == 0, "%s", errors.data != NULL ? errors.data : "");
    buf_deinit(&errors);
    buf_deinit(&text);
}

static inline void on_run_done(struct run *run, const struct outcome *outcome)
{
    struct run_record *r = (struct run_record *)run;
    ck_assert(!r->is_done);
    r->is_done = true;
    r->outcome = *outcome;
    ck_assert_uint_lt(outcome->head_len, sizeof r->head);
    ck_assert_uint_lt(outcome->tail_len, sizeof r->tail);
    if (outcome->head_len > 0)
        memcpy(r->head, outcome->head, outcome->head_len);
    if (outcome->tail_len > 0)
        memcpy(r->tail, outcome->tail, outcome->tail_len);
    r->head[outcome->head_len] = '\0';
    r->tail[outcome->tail_len] = '\0';
}

/* Fills r with attempt 2 of job 42 of the task, body as given. */
static inline void run_prepare(struct run_record *r, const char *task, const void *body, size_t len)
{
    r->is_done = false;
    r->job = (struct job){.id = 42,
                          .claim = 1,
                          .task = task,
                          .priority = 2,
                          .payload = body,
                          .payload_len = len,
                          .attempt = 2,
                          .max_attempts = 20,
                          .created_at_us = INT64_C(1767323045678901)};
    r->run = (struct run){.job = &r->job,
                          .task = config_find_task(config, task),
                          .body = body,
                          .body_len = len,
                          .content_type = "application/json",
                          .executor = commands,
                          .on_done = on_run_done};
    ck_assert_ptr_nonnull(r->run.task);
}

static inline void run_begin(struct run_record *r, const char *task, const void *body, size_t len)
{
    struct outcome refused;
    run_prepare(r, task, body, len);
    ck_assert_int_eq(run_start(&r->run, &refused), 0);
}

/* A run of the task to its end; static storage. */
static inline struct run_record *run_task(const char *task, const char *body)
{
    static struct run_record r;
    run_begin(&r, task, body, strlen(body));
    pump_until(r.is_done, 20000);
    return &r;
}

/* Configures one shell task "t" with further keys ("" or ", key: value") and runs it. The script
 * stands in a YAML single-quoted string. */
static inline struct run_record *run_shell(const char *script, const char *keys, const char *body)
{
    struct buf text;
    buf_init(&text, 65536);
    buf_printf(&text, "  t: { shell: '%s'%s }", script, keys);
    configure(text.data);
    buf_deinit(&text);
    return run_task("t", body);
}

static inline void expect(const struct run_record *r, enum outcome_kind kind, const char *reason)
{
    ck_assert_str_eq(outcome_name(r->outcome.kind), outcome_name(kind));
    ck_assert_str_eq(r->outcome.reason, reason);
}

#endif
