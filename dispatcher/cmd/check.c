/* check.c - `outbox check`: is the configuration right, and what would run? Touches no database. */
#include "cmd/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/jout.h"
#include "cmd/table.h"

static const struct cmd_option options[] = {
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_HANDLERS,
    {"print", 'p', NULL, "print the effective configuration as YAML, without passwords"},
    CMD_OPTION_JSON,
    CMD_OPTIONS_END,
};

enum { WARNING_SIZE = 512, RUNS_MAX = 64 * 1024, YAML_MAX = 64 * 1024 * 1024 };

/* Why path cannot be executed; false when it can. */
static bool program_problem(const char *path, char warning[WARNING_SIZE])
{
    struct stat st;
    if (stat(path, &st) != 0)
        (void)snprintf(warning, WARNING_SIZE, "program %s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        (void)snprintf(warning, WARNING_SIZE, "program %s is a directory", path);
    else if (!S_ISREG(st.st_mode) || access(path, X_OK) != 0)
        (void)snprintf(warning, WARNING_SIZE, "program %s is not executable: chmod +x %s", path,
                       path);
    else
        return false;
    return true;
}

/* The first word of a shell command, when it is plainly a program's absolute path. */
static char *shell_program(const char *shell)
{
    size_t len = strcspn(shell, " \t\n;&|<>()$`\\\"'*?[]{}~#=");
    char end = shell[len];
    bool plain = end == '\0' || strchr(" \t\n;&|<>", end) != NULL;
    if (shell[0] != '/' || !plain)
        return NULL;
    char *path = ob_xcalloc(len + 1, 1);
    memcpy(path, shell, len);
    return path;
}

/* A secret, or a key, that every user of the machine can read. */
static bool open_problem(const char *what, const char *path, char warning[WARNING_SIZE])
{
    struct stat st;
    if (path == NULL || stat(path, &st) != 0 || (st.st_mode & S_IROTH) == 0)
        return false;
    (void)snprintf(warning, WARNING_SIZE, "%s %s can be read by everybody: chmod o= %s", what, path,
                   path);
    return true;
}

static bool webhook_problem(const struct webhook_config *w, char warning[WARNING_SIZE])
{
    for (size_t i = 0; i < w->secrets.count; i++) {
        if (open_problem("secret", w->secrets.items[i].file, warning))
            return true;
    }
    const char *key = w->client_key != NULL ? w->client_key : w->client_cert;
    return open_problem("secret_file", w->secret_file, warning) ||
           open_problem("client_key", key, warning);
}

static bool file_problem(const char *what, const char *path, int mode, char warning[WARNING_SIZE])
{
    if (path == NULL || access(path, mode) == 0)
        return false;
    (void)snprintf(warning, WARNING_SIZE, "%s %s: %s", what, path, strerror(errno));
    return true;
}

/* What would go wrong as soon as the task runs, seen from here; false when nothing. */
static bool find_warning(const struct task_config *t, char warning[WARNING_SIZE])
{
    if (t->kind == HANDLER_WEBHOOK)
        return webhook_problem(&t->webhook, warning);
    if (t->kind == HANDLER_DISCARD)
        return false;
    if (file_problem("cwd", t->command.cwd, X_OK, warning))
        return true;
    if (t->kind != HANDLER_SHELL)
        return program_problem(t->command.argv.items[0], warning);
    char *path = shell_program(t->command.shell);
    bool found = path != NULL && program_problem(path, warning);
    ob_free(path);
    return found;
}

/* A URL without the user and password that it may hold. */
static void put_url(struct buf *out, const char *url)
{
    const char *scheme = strstr(url, "://");
    const char *host = scheme != NULL ? scheme + 3 : url;
    size_t authority = strcspn(host, "/?#");
    size_t credentials = 0;
    for (size_t i = 0; i < authority; i++) {
        if (host[i] == '@')
            credentials = i + 1;
    }
    buf_append(out, url, (size_t)(host - url));
    if (credentials > 0)
        buf_puts(out, "***@");
    buf_puts(out, host + credentials);
}

/* An argument as a shell would need it, so that borders show. */
static void put_argument(struct buf *out, const char *arg)
{
    bool plain = arg[0] != '\0' && strpbrk(arg, " \t\n\"'\\$`|&;<>()*?[]#~") == NULL;
    if (plain) {
        buf_puts(out, arg);
        return;
    }
    buf_putc(out, '\'');
    for (; *arg != '\0'; arg++) {
        if (*arg == '\'')
            buf_puts(out, "'\\''");
        else
            buf_putc(out, *arg);
    }
    buf_putc(out, '\'');
}

/* What runs, in one line. */
static void put_runs(struct buf *out, const struct task_config *t)
{
    switch (t->kind) {
    case HANDLER_SHELL:
        buf_puts(out, "/bin/sh -c ");
        put_argument(out, t->command.shell);
        break;
    case HANDLER_EXEC:
    case HANDLER_WORKER:
        for (size_t i = 0; i < t->command.argv.count; i++) {
            if (i > 0)
                buf_putc(out, ' ');
            put_argument(out, t->command.argv.items[i]);
        }
        break;
    case HANDLER_WEBHOOK:
        buf_printf(out, "%s ", t->webhook.method);
        put_url(out, t->webhook.url);
        break;
    case HANDLER_DISCARD:
        buf_puts(out, "nothing: done at once");
        break;
    }
}

static void print_json(const struct config *c)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_object(&j, NULL);
    jout_str(&j, "name", c->name);
    jout_int(&j, "concurrency", c->concurrency);
    jout_open_array(&j, "tasks");
    for (size_t i = 0; i < c->tasks_count; i++) {
        const struct task_config *t = &c->tasks[i];
        char warning[WARNING_SIZE];
        struct buf runs;
        buf_init(&runs, RUNS_MAX);
        put_runs(&runs, t);
        jout_open_object(&j, NULL);
        jout_str(&j, "task", t->name);
        jout_str(&j, "handler", handler_kind_name(t->kind));
        jout_str(&j, "runs", runs.data);
        jout_int(&j, "concurrency", t->concurrency);
        jout_int(&j, "timeout_ms", (int64_t)t->timeout_ms);
        jout_int(&j, "max_attempts", t->max_attempts);
        jout_str(&j, "source", t->source);
        jout_str(&j, "warning", find_warning(t, warning) ? warning : NULL);
        jout_close(&j);
        buf_deinit(&runs);
    }
    jout_close(&j);
    jout_close(&j);
    jout_end(&j);
}

static void print_table(const struct cmd_args *args, const struct config *c)
{
    static const char *const headers[] = {"TASK",   "HANDLER", ">AT ONCE", ">TIMEOUT",
                                          ">TRIES", "FROM",    "RUNS"};
    struct table *table = table_new(headers, sizeof headers / sizeof headers[0]);
    for (size_t i = 0; i < c->tasks_count; i++) {
        const struct task_config *t = &c->tasks[i];
        char span[CLOCK_DURATION_SIZE];
        struct buf runs;
        buf_init(&runs, RUNS_MAX);
        put_runs(&runs, t);
        clock_duration(t->timeout_ms, span);
        table_cell(table, t->name);
        table_cell(table, handler_kind_name(t->kind));
        table_cellf(table, "%u", t->concurrency);
        table_cell(table, span);
        table_cellf(table, "%u", t->max_attempts);
        table_cell(table, t->source);
        table_cell(table, runs.data);
        buf_deinit(&runs);
    }
    table_print(table, stdout);
    table_free(table);
    size_t warnings = 0;
    for (size_t i = 0; i < c->tasks_count; i++) {
        char warning[WARNING_SIZE];
        if (find_warning(&c->tasks[i], warning)) {
            cmd_warn(args, "%s: task %s: %s", c->tasks[i].source, c->tasks[i].name, warning);
            warnings++;
        }
    }
    (void)printf("configuration is valid: %zu task%s, %zu warning%s\n", c->tasks_count,
                 c->tasks_count == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
}

static int print_yaml(const struct cmd_args *args, const struct config *c)
{
    struct buf yaml;
    buf_init(&yaml, YAML_MAX);
    config_print(c, &yaml);
    int err = yaml.err;
    if (err == 0)
        (void)fwrite(yaml.data, 1, yaml.len, stdout);
    else
        cmd_error(args, "%s", ob_strerror(err));
    buf_deinit(&yaml);
    return ob_exit_code(err);
}

static int run(const struct cmd_args *args)
{
    if (cmd_has(args, "print") && cmd_has(args, "json"))
        return cmd_usage(args, "--print goes not with --json");
    struct config *config = NULL;
    int code = cmd_load_config(args, &config);
    if (code != 0)
        return code;
    if (cmd_has(args, "print"))
        code = print_yaml(args, config);
    else if (cmd_has(args, "json"))
        print_json(config);
    else
        print_table(args, config);
    if (config->tasks_count == 0)
        cmd_warn(args,
                 "no task has a handler: nothing would run; write %s, or see --config and --shell",
                 CMD_CONFIG_PATH);
    config_unref(config);
    return code;
}

const struct command cmd_check_command = {
    .name = "check",
    .group = CMD_SET_UP,
    .operands = "",
    .summary = "check the configuration, and show what each task would run",
    .description =
        "Prints every error of the configuration and exits with 78, or shows what would run and\n"
        "warns of programs and files that are missing here. Reads the configuration as `outbox\n"
        "run` with the same options would.",
    .options = options,
    .run = run,
};
