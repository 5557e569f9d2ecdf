/* run.c - `outbox run`: puts the configuration together and hands over to core/dispatcher.c. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "core/dispatcher.h"

enum { ERRORS_MAX = 256 * 1024 };

static void replace(char **text, const char *value)
{
    if (value == NULL)
        return;
    ob_free(*text);
    *text = ob_xstrdup(value);
}

/* Options of the command line win over the file, at every reload too. Wrong ones have been said. */
static int apply_options(const struct cmd_args *args, struct config *c, struct buf *reterr)
{
    int64_t concurrency = c->concurrency;
    const char *level = cmd_value(args, "log-level");
    const char *format = cmd_value(args, "log-format");
    int err = cmd_int_value(args, "concurrency", 1, 10000, &concurrency);
    if (err == 0)
        err = cmd_duration_value(args, "lease", &c->lease_ms);
    if (err != 0)
        return OB_EUSAGE;
    c->concurrency = (unsigned)concurrency;
    c->log_sql = c->log_sql || cmd_has(args, "log-sql");
    replace(&c->name, cmd_value(args, "name"));
    replace(&c->lock_dir, cmd_value(args, "lock-dir"));
    replace(&c->database, getenv("OUTBOX_DATABASE"));
    replace(&c->database, cmd_value(args, "database"));
    if (level != NULL && log_level_parse(level, &c->log_level) != 0)
        buf_printf(reterr, "--log-level %s: expected error, warn, info or debug\n", level);
    else if (format != NULL && log_format_parse(format, &c->log_format) != 0)
        buf_printf(reterr, "--log-format %s: expected logfmt or json\n", format);
    else
        return 0;
    return OB_EUSAGE;
}

static int on_reload(void *arg, struct config **ret_config, struct buf *reterr)
{
    int err = cmd_build_config(arg, apply_options, ret_config, reterr);
    if (err != 0)
        return err;
    if ((*ret_config)->tasks_count == 0) {
        buf_printf(reterr, "no task has a handler any more\n");
        config_unref(*ret_config);
        *ret_config = NULL;
        return OB_ECONFIG;
    }
    log_setup((*ret_config)->log_level, (*ret_config)->log_format, STDERR_FILENO);
    return 0;
}

int cmd_run(const struct cmd_args *args)
{
    struct buf errors;
    struct config *config = NULL;
    buf_init(&errors, ERRORS_MAX);
    int err = cmd_build_config(args, apply_options, &config, &errors);
    if (errors.len > 0)
        (void)fprintf(stderr, "%s", errors.data);
    buf_deinit(&errors);
    if (err != 0)
        return ob_exit_code(err);
    if (config->tasks_count == 0) {
        config_unref(config);
        return cmd_usage(args,
                         "no task has a handler: name a configuration (--config FILE) or a handler "
                         "(--shell NAME=CMD)");
    }
    log_setup(config->log_level, config->log_format, STDERR_FILENO);
    struct cmd_args reload_args =
        *args; /* on_reload reads it; the options themselves are borrowed */
    const struct dispatcher_options options = {
        .config = config,
        .spawner = *args->spawner,
        .drain = cmd_has(args, "drain"),
        .reload = on_reload,
        .reload_arg = &reload_args,
    };
    int exit_code = dispatcher_run(&options);
    config_unref(config);
    return exit_code;
}
