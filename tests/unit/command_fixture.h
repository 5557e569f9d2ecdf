/* command_fixture.h - the real command executor over a real spawner. */
#ifndef OB_TEST_COMMAND_FIXTURE_H
#define OB_TEST_COMMAND_FIXTURE_H

#include "run_fixture.h"

#include "exec/command.h"

static inline void command_fixture_open(void)
{
    run_fixture_open();
    ck_assert_int_eq(command_executor_new(&fx.loop, fx.client, &executor), 0);
}

/* The tasks of config_of_tasks, from now on. */
static inline void configure(const char *tasks)
{
    config_unref(config);
    config = config_of_tasks(tasks);
}

/* Fills r with attempt 2 of job 42 of the task, body as given. */
static inline void run_prepare(struct run_record *r, const char *task, const void *body, size_t len)
{
    record_prepare(r, 42, task, body, len);
}

static inline void run_begin(struct run_record *r, const char *task, const void *body, size_t len)
{
    run_prepare(r, task, body, len);
    record_start(r);
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

#endif
