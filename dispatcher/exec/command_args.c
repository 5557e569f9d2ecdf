#define _GNU_SOURCE
/* command_args.c - see command_args.h. Starts nothing. */
#include "exec/command_args.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "exec/spawn_client.h"
#include "exec/spawn_protocol.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3; sysctl vm.memfd_noexec may insist on it */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

void strvec_init(struct strvec *v)
{
    memset(v, 0, sizeof *v);
    buf_init(&v->text, SPAWN_REQUEST_MAX);
}

void strvec_deinit(struct strvec *v)
{
    buf_deinit(&v->text);
    ob_free(v->starts);
    ob_free(v->items);
    memset(v, 0, sizeof *v);
}

static void strvec_clear(struct strvec *v)
{
    buf_clear(&v->text);
    v->count = 0;
}

/* Begins an item at the end of text; what is appended to text until strvec_end is the item. Errors
 * stick to text. */
static void strvec_begin(struct strvec *v)
{
    if (v->count == SPAWN_STRINGS_MAX && v->text.err == 0)
        v->text.err = OB_ETOOBIG;
    if (v->text.err != 0)
        return;
    if (v->count == v->cap) {
        size_t cap = v->cap > 0 ? v->cap * 2 : 32;
        size_t *starts = ob_realloc(v->starts, cap * sizeof *starts);
        if (starts == NULL) {
            v->text.err = OB_ENOMEM;
            return;
        }
        v->starts = starts;
        char **items = ob_realloc(v->items, (cap + 1) * sizeof *items);
        if (items == NULL) {
            v->text.err = OB_ENOMEM;
            return;
        }
        v->items = items;
        v->cap = cap;
    }
    v->starts[v->count] = v->text.len;
}

static void strvec_end(struct strvec *v)
{
    buf_putc(&v->text, '\0');
    if (v->text.err == 0)
        v->count++;
}

static int strvec_finish(struct strvec *v)
{
    if (v->text.err != 0)
        return v->text.err;
    ob_assert(v->cap > v->count || v->count > 0);
    for (size_t i = 0; i < v->count; i++)
        v->items[i] = v->text.data + v->starts[i];
    v->items[v->count] = NULL;
    return 0;
}

/* An argument with {id}, {attempt} and {task} replaced. Their values hold nothing but
 * [A-Za-z0-9._:-], so they can't be mistaken for anything else, whatever the program does with
 * them. */
static void add_argument(struct strvec *v, const char *text, const struct run *run)
{
    strvec_begin(v);
    while (*text != '\0') {
        if (strncmp(text, "{id}", 4) == 0) {
            buf_printf(&v->text, "%" PRId64, run->job->id);
            text += 4;
        } else if (strncmp(text, "{attempt}", 9) == 0) {
            buf_printf(&v->text, "%d", run->job->attempt);
            text += 9;
        } else if (strncmp(text, "{task}", 6) == 0) {
            buf_puts(&v->text, run->task->name);
            text += 6;
        } else {
            size_t n = strcspn(text + 1, "{") + 1;
            buf_append(&v->text, text, n);
            text += n;
        }
    }
    strvec_end(v);
}

static void add_plain(struct strvec *v, const char *text)
{
    strvec_begin(v);
    buf_puts(&v->text, text);
    strvec_end(v);
}

int command_build_argv(const struct run *run, struct strvec *v)
{
    const struct command_config *config = &run->task->command;
    strvec_clear(v);
    if (run->task->kind == HANDLER_SHELL) {
        add_plain(v, "/bin/sh");
        add_plain(v, "-c");
        add_plain(v, config->shell);
        return strvec_finish(v);
    }
    ob_assert(run->task->kind == HANDLER_EXEC && config->argv.count > 0);
    add_plain(v, config->argv.items[0]);
    for (size_t i = 1; i < config->argv.count; i++)
        add_argument(v, config->argv.items[i], run);
    return strvec_finish(v);
}

/* Removes the variable of that name, so that a later one takes its place. */
static void drop_variable(struct strvec *v, const char *name, size_t name_len)
{
    for (size_t i = 0; i < v->count; i++) {
        const char *item = v->text.data + v->starts[i];
        if (strncmp(item, name, name_len) == 0 && item[name_len] == '=') {
            v->starts[i] = v->starts[--v->count]; /* an environment has no order */
            return;
        }
    }
}

OB_PRINTF(3, 4)
static void put_variable(struct strvec *v, const char *name, const char *fmt, ...)
{
    char text[512];
    drop_variable(v, name, strlen(name));
    strvec_begin(v);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ob_assert(n >= 0 && (size_t)n < sizeof text);
    buf_printf(&v->text, "%s=%s", name, text);
    strvec_end(v);
}

/* The same for a value of any length. NULL: the variable is left out. */
static void put_text(struct strvec *v, const char *name, const char *value)
{
    if (value == NULL)
        return;
    drop_variable(v, name, strlen(name));
    strvec_begin(v);
    buf_printf(&v->text, "%s=", name);
    buf_puts(&v->text, value);
    strvec_end(v);
}

/* The daemon's own connection and settings stay its own, even when the configuration passes them
 * on. */
static bool is_private(const char *name)
{
    return strncmp(name, "PG", 2) == 0 || strncmp(name, "OUTBOX_", 7) == 0;
}

static void put_job(struct strvec *v, const struct run *run)
{
    const struct job *job = run->job;
    char created_at[CLOCK_RFC3339_SIZE];
    char idempotency_key[JOB_IDEMPOTENCY_KEY_SIZE];
    char traceparent[JOB_TRACEPARENT_SIZE];
    clock_rfc3339(job->created_at_us, 6, created_at);
    job_idempotency_key(job, idempotency_key);
    job_traceparent(job, traceparent);
    put_variable(v, "OUTBOX_JOB_ID", "%" PRId64, job->id);
    put_text(v, "OUTBOX_TASK", run->task->name);
    put_variable(v, "OUTBOX_ATTEMPT", "%d", job->attempt);
    put_variable(v, "OUTBOX_MAX_ATTEMPTS", "%d", job->max_attempts);
    put_variable(v, "OUTBOX_LOST", "%d", job->lost);
    put_text(v, "OUTBOX_KEY", job->key);
    put_text(v, "OUTBOX_CREATED_AT", created_at);
    if (run->task->timeout_ms > 0) {
        uint64_t deadline_ms = run->started_unix_us / 1000U + run->task->timeout_ms;
        put_variable(v, "OUTBOX_DEADLINE", "%" PRIu64, deadline_ms / 1000U);
    }
    put_text(v, "OUTBOX_CONTENT_TYPE", run->content_type);
    put_text(v, "OUTBOX_HEADERS", job->headers);
    put_text(v, "OUTBOX_IDEMPOTENCY_KEY", idempotency_key);
    put_text(v, "TRACEPARENT", traceparent[0] != '\0' ? traceparent : NULL);
}

/* What every process of the task gets, whatever its job. */
static void put_common(struct strvec *v, const struct command_config *config)
{
    strvec_clear(v);
    put_text(v, "PATH", DEFAULT_PATH);
    for (size_t i = 0; i < config->env_pass.count; i++) {
        const char *name = config->env_pass.items[i];
        if (!is_private(name))
            put_text(v, name, getenv(name));
    }
    put_text(v, "PATH", config->path);
    for (size_t i = 0; i < config->env.count; i++) {
        const char *item = config->env.items[i];
        drop_variable(v, item, strcspn(item, "="));
        add_plain(v, item);
    }
}

int command_build_env(const struct run *run, struct strvec *v)
{
    put_common(v, &run->task->command);
    put_job(v, run);
    return strvec_finish(v);
}

int command_build_worker_env(const struct task_config *task, struct strvec *v)
{
    put_common(v, &task->command);
    put_text(v, "OUTBOX_TASK", task->name);
    return strvec_finish(v);
}

static int write_all(int fd, const char *bytes, size_t len)
{
    off_t at = 0;
    while (len > 0) {
        ssize_t n = pwrite(fd, bytes + at, len, at); /* leaves the offset at 0 for the reader */
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int command_open_stdin(const void *bytes, size_t len, int *ret_fd)
{
    *ret_fd = -1;
    if (len == 0)
        return 0;
    int fd = memfd_create("outbox-stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("outbox-stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int err = write_all(fd, bytes, len);
    if (err == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        err = -errno;
    if (err != 0) {
        (void)close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}
