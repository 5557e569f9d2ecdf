/* config_task.c - one task: defaults, what its keys mean together, handlers given on the command
 * line, and programs found in their path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/config_private.h"
#include "base/mem.h"

enum {
    CONCURRENCY_WEBHOOK = 10,
    CONCURRENCY_DISCARD = 100,
    CONCURRENCY_MAX = 10000,
    PROCESSES_MAX = 1000
};
/* Less than the spawner takes in one request (128 KiB), so that the job's own variables fit too. */
enum { COMMAND_BYTES_MAX = 96 * 1024 };

const char *handler_kind_name(enum handler_kind kind)
{
    switch (kind) {
    case HANDLER_SHELL:
        return "shell";
    case HANDLER_EXEC:
        return "exec";
    case HANDLER_WORKER:
        return "worker";
    case HANDLER_WEBHOOK:
        return "webhook";
    case HANDLER_DISCARD:
        return "discard";
    }
    return "?";
}

static int set_env_pass(struct strings *list)
{
    static const char *const names[] = {"PATH", "LANG", "TZ", "HOME"};
    enum { COUNT = sizeof names / sizeof names[0] };
    list->items = ob_calloc(COUNT + 1, sizeof *list->items);
    if (list->items == NULL)
        return OB_ENOMEM;
    for (size_t i = 0; i < COUNT; i++) {
        list->items[i] = ob_strdup(names[i]);
        if (list->items[i] == NULL)
            return OB_ENOMEM;
        list->count++;
    }
    return 0;
}

int task_init_defaults(struct task_config *t, enum handler_kind kind)
{
    t->kind = kind;
    t->timeout_ms = kind == HANDLER_WEBHOOK ? 30000 : 60000;
    t->max_attempts = 20;
    t->max_lost = 5;
    t->backoff.base_ms = 5000;
    t->backoff.max_ms = 3600000;
    t->backoff.jitter_permille = 200;
    t->command.umask = -1;
    t->command.dead_exit[65 / 8] |= 1U << 65 % 8;
    t->command.dead_exit[100 / 8] |= 1U << 100 % 8;
    t->command.capture = CAPTURE_ON_FAILURE;
    t->command.capture_head_bytes = (size_t)4 * 1024;
    t->command.capture_tail_bytes = (size_t)12 * 1024;
    t->worker.startup = 1;
    t->worker.idle_timeout_ms = 60000;
    t->worker.max_jobs = 1000;
    t->worker.window = 1;
    t->worker.start_timeout_ms = 10000;
    t->worker.restart_backoff_ms = 1000;
    t->webhook.connect_timeout_ms = 5000;
    t->webhook.tls_verify = true;
    t->webhook.response_capture_bytes = (size_t)8 * 1024;
    t->webhook.response_drain_bytes = (size_t)64 * 1024;
    t->webhook.retry_after_max_ms = (uint64_t)24 * 3600 * 1000;
    t->webhook.breaker = (struct breaker_config){.is_on = true,
                                                 .window_ms = 300000,
                                                 .min = 10,
                                                 .failure_permille = 700,
                                                 .open_ms = 30000,
                                                 .open_max_ms = 600000};
    if (kind == HANDLER_WEBHOOK) {
        t->webhook.method = ob_strdup("POST");
        if (t->webhook.method == NULL)
            return OB_ENOMEM;
    }
    return set_env_pass(&t->command.env_pass);
}

void task_free_members(struct task_config *t)
{
    ob_free(t->name);
    ob_free(t->source);
    ob_free(t->backoff.schedule_ms);
    ob_free(t->command.shell);
    strings_free(&t->command.argv);
    ob_free(t->command.cwd);
    strings_free(&t->command.env);
    strings_free(&t->command.env_pass);
    ob_free(t->command.path);
    ob_free(t->webhook.url);
    ob_free(t->webhook.method);
    strings_free(&t->webhook.headers);
    ob_free(t->webhook.content_type);
    ob_free(t->webhook.ca_file);
    ob_free(t->webhook.proxy);
    ob_free(t->webhook.secret_file);
    ob_free(t->webhook.secret_env);
    secrets_free(&t->webhook.secrets);
    ob_free(t->webhook.client_cert);
    ob_free(t->webhook.client_key);
    if (t->webhook.credentials != NULL)
        t->webhook.credentials_free(t->webhook.credentials);
    *t = (struct task_config){0};
}

bool config_insert_task(struct config *c, struct task_config *t_take)
{
    struct task_config *tasks = ob_realloc(c->tasks, (c->tasks_count + 1) * sizeof *tasks);
    if (tasks == NULL) {
        task_free_members(t_take);
        return false;
    }
    c->tasks = tasks;
    size_t i = c->tasks_count;
    while (i > 0 && strcmp(tasks[i - 1].name, t_take->name) > 0)
        i--;
    memmove(&tasks[i + 1], &tasks[i], (c->tasks_count - i) * sizeof *tasks);
    tasks[i] = *t_take;
    c->tasks_count++;
    return true;
}

static int compare_name(const void *key, const void *task)
{
    return strcmp(key, ((const struct task_config *)task)->name);
}

const struct task_config *config_find_task(const struct config *c, const char *name)
{
    if (c->tasks_count == 0)
        return NULL;
    return bsearch(name, c->tasks, c->tasks_count, sizeof c->tasks[0], compare_name);
}

/* --- rules between keys --- */

size_t key_line(const size_t *lines, const char *name)
{
    const struct key *k = find_key(task_keys, task_keys_count, name);
    ob_assert(k != NULL);
    return lines[k - task_keys];
}

static size_t strings_bytes(const struct strings *list)
{
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++)
        n += strlen(list->items[i]) + 1;
    return n;
}

static void check_worker(struct loader *l, const struct task_config *t, const size_t *lines)
{
    static const char *const placeholders[] = {"{id}", "{attempt}", "{task}"};
    const struct worker_config *w = &t->worker;
    for (size_t i = 0; i < t->command.argv.count; i++) {
        for (size_t k = 0; k < sizeof placeholders / sizeof placeholders[0]; k++) {
            if (strstr(t->command.argv.items[i], placeholders[k]) != NULL)
                loader_error(l, key_line(lines, "worker"), "arguments without placeholders",
                             "%s in a worker, which is one process for many jobs", placeholders[k]);
        }
    }
    if (w->processes > 0 && w->startup > w->processes)
        loader_error(l, key_line(lines, key_line(lines, "startup") > 0 ? "startup" : "processes"),
                     NULL, "startup %u is more than processes %u", w->startup, w->processes);
}

void check_task(struct loader *l, const struct task_config *t, const size_t *lines)
{
    size_t schedule = key_line(lines, "retry_schedule");
    size_t base = key_line(lines, "backoff");
    size_t max = key_line(lines, "backoff_max");
    if (schedule > 0 && (base > 0 || max > 0))
        loader_error(l, base > 0 ? base : max, NULL,
                     "%s has no effect beside retry_schedule (line %zu)",
                     base > 0 ? "backoff" : "backoff_max", schedule);
    else if (t->backoff.base_ms > t->backoff.max_ms) {
        char text[2][32];
        format_duration(t->backoff.base_ms, text[0]);
        format_duration(t->backoff.max_ms, text[1]);
        loader_error(l, base > 0 ? base : max, NULL, "backoff %s is longer than backoff_max %s",
                     text[0], text[1]);
    }
    if (t->kind == HANDLER_WEBHOOK)
        check_webhook(l, &t->webhook, lines);
    if (t->kind == HANDLER_WORKER)
        check_worker(l, t, lines);
    size_t bytes = strings_bytes(&t->command.argv) + strings_bytes(&t->command.env) +
                   (t->command.shell != NULL ? strlen(t->command.shell) : 0);
    size_t line = key_line(lines, handler_kind_name(t->kind));
    if (bytes > COMMAND_BYTES_MAX)
        loader_error(l, line, NULL, "command and env have %zu bytes, more than %d", bytes,
                     COMMAND_BYTES_MAX);
}

/* --- the command line --- */

/* Copies value into the task as its handler, if it is a good one. */
static void set_handler(struct loader *l, struct task_config *t, const char *value)
{
    char shown[QUOTED_SIZE];
    const char *expected = NULL;
    char **target = NULL;
    switch (t->kind) {
    case HANDLER_SHELL:
        expected = check_not_empty(value);
        target = &t->command.shell;
        break;
    case HANDLER_WEBHOOK:
        expected = check_url(value);
        target = &t->webhook.url;
        break;
    case HANDLER_EXEC:
    case HANDLER_WORKER:
        expected = check_program(value);
        break;
    case HANDLER_DISCARD:
        return;
    }
    if (expected != NULL && t->kind == HANDLER_WEBHOOK && strchr(value, '@') != NULL)
        loader_error(l, 0, expected, "bad webhook"); /* it may hold a password */
    else if (expected != NULL)
        loader_error(l, 0, expected, "bad %s %s", handler_kind_name(t->kind), quoted(value, shown));
    else if (target != NULL)
        *target = loader_strdup(l, value);
    else
        (void)strings_append(l, &t->command.argv, loader_strdup(l, value)); /* a failure is in l */
    if (expected == NULL && strlen(value) > COMMAND_BYTES_MAX)
        loader_error(l, 0, NULL, "the command has more than %d bytes", COMMAND_BYTES_MAX);
}

/* The task named by spec's first n bytes, with its handler; reports what is wrong with it. */
static void add_task(struct loader *l, enum handler_kind kind, const char *spec, size_t n)
{
    char name[129];
    char shown[QUOTED_SIZE];
    (void)snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : 0, spec);
    if (n >= sizeof name || !task_name_is_valid(name)) {
        loader_error(l, 0, "1 to 128 of A-Z a-z 0-9 . _ : -, beginning with a letter, a digit or _",
                     "bad task name in %s", quoted(spec, shown));
        return;
    }
    const struct task_config *earlier = config_find_task(l->config, name);
    if (earlier != NULL) {
        loader_error(l, 0, NULL, "task '%s' is given twice, first in %s", name, earlier->source);
        return;
    }
    struct task_config t = {.name = loader_strdup(l, name), .source = loader_strdup(l, l->file)};
    if (t.name == NULL || t.source == NULL || task_init_defaults(&t, kind) != 0) {
        l->no_memory = true;
        task_free_members(&t);
        return;
    }
    set_handler(l, &t, kind == HANDLER_DISCARD ? "" : spec + n + 1);
    if (l->errors > 0 || l->no_memory)
        task_free_members(&t);
    else if (!config_insert_task(l->config, &t))
        l->no_memory = true;
}

int config_add_task(struct config *c, enum handler_kind kind, const char *spec, struct buf *reterr)
{
    char option[16];
    (void)snprintf(option, sizeof option, "--%s", handler_kind_name(kind));
    struct loader l = {.config = c, .file = option, .err = reterr};
    char shown[QUOTED_SIZE];
    const char *equals = strchr(spec, '=');
    if (kind == HANDLER_DISCARD)
        add_task(&l, kind, spec, strlen(spec));
    else if (equals == NULL)
        loader_error(&l, 0, kind == HANDLER_WEBHOOK ? "NAME=URL" : "NAME=COMMAND", "no '=' in %s",
                     quoted(spec, shown));
    else
        add_task(&l, kind, spec, (size_t)(equals - spec));
    if (l.no_memory)
        return OB_ENOMEM;
    return l.errors > 0 ? OB_ECONFIG : 0;
}

/* --- programs --- */

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* The first program of that name in the folders of path, to be freed; NULL and *ret_err = 0: none.
 */
static char *find_program(const char *path, const char *name, int *ret_err)
{
    struct buf candidate;
    buf_init(&candidate, 8192);
    char *found = NULL;
    *ret_err = 0;
    while (found == NULL && path != NULL && *path != '\0') {
        size_t n = strcspn(path, ":");
        buf_clear(&candidate);
        buf_append(&candidate, path, n);
        buf_printf(&candidate, "/%s", name);
        if (candidate.err == OB_ENOMEM)
            break;
        /* Relative folders of the daemon's own PATH are passed over. */
        if (candidate.err == 0 && path[0] == '/' && is_program(candidate.data))
            found = buf_take(&candidate);
        path += path[n] == ':' ? n + 1 : n;
    }
    *ret_err = candidate.err == OB_ENOMEM ? OB_ENOMEM : 0;
    buf_deinit(&candidate);
    return found;
}

/* Makes argv[0] of an exec or worker task absolute. */
static int resolve_program(struct task_config *t, struct buf *reterr)
{
    char **program = &t->command.argv.items[0];
    if ((*program)[0] == '/')
        return 0;
    const char *path = t->command.path != NULL ? t->command.path : getenv("PATH");
    if (path == NULL)
        path =
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; /* a child's default */
    int err = 0;
    char *found = find_program(path, *program, &err);
    if (found != NULL) {
        ob_free(*program);
        *program = found;
        return 0;
    }
    char shown[QUOTED_SIZE];
    if (err == 0)
        buf_printf(
            reterr,
            "%s: task '%s': no program %s in %s; expected an absolute path, or a folder in path\n",
            t->source, t->name, quoted(*program, shown), path);
    return err != 0 ? err : OB_ECONFIG;
}

/* What all of the task's processes may hold at once. */
static unsigned worker_places(const struct worker_config *w)
{
    unsigned places = w->processes * w->window; /* at most 1000 of each */
    return places < CONCURRENCY_MAX ? places : CONCURRENCY_MAX;
}

/* One process a processor, unless more are kept running anyway. */
static void resolve_processes(struct worker_config *w)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (w->processes == 0)
        w->processes = cpus > 0 && cpus < PROCESSES_MAX ? (unsigned)cpus : 1;
    if (w->processes < w->startup)
        w->processes = w->startup;
}

int task_finish(struct task_config *t, const struct config *c, struct buf *reterr)
{
    resolve_processes(&t->worker);
    if (t->concurrency == 0 && t->kind == HANDLER_WEBHOOK)
        t->concurrency = CONCURRENCY_WEBHOOK;
    else if (t->concurrency == 0 && t->kind == HANDLER_DISCARD)
        t->concurrency = CONCURRENCY_DISCARD;
    else if (t->concurrency == 0 && t->kind == HANDLER_WORKER)
        t->concurrency = worker_places(&t->worker);
    else if (t->concurrency == 0)
        t->concurrency = c->concurrency;
    bool has_program = t->kind == HANDLER_EXEC || t->kind == HANDLER_WORKER;
    return has_program ? resolve_program(t, reterr) : 0;
}
