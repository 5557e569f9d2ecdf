/* connect.c - which configuration and which database a command uses, and what it says when that
 * fails. */
#include "cmd/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/version.h"
#include "db/admin.h"
#include "webhook/credentials.h"

enum { ERRORS_MAX = 256 * 1024 };

/* --config, or the default file if it can be read; NULL: none. */
static const char *config_path(const struct cmd_args *args)
{
    const char *path = cmd_value(args, "config");
    if (path != NULL)
        return path;
    if (access(CMD_CONFIG_PATH, R_OK) == 0)
        return CMD_CONFIG_PATH;
    if (errno == EACCES)
        cmd_warn(args, "%s is not readable by you and not used", CMD_CONFIG_PATH);
    return NULL;
}

static int add_handlers(const struct cmd_args *args, struct config *c, struct buf *errors)
{
    static const struct {
        const char *option;
        enum handler_kind kind;
    } kinds[] = {{"shell", HANDLER_SHELL},
                 {"exec", HANDLER_EXEC},
                 {"worker", HANDLER_WORKER},
                 {"webhook", HANDLER_WEBHOOK},
                 {"discard", HANDLER_DISCARD}};
    int first = 0;
    for (size_t i = 0; i < args->given_count; i++) {
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            if (strcmp(args->given[i].option->name, kinds[k].option) != 0)
                continue;
            int err = config_add_task(c, kinds[k].kind, args->given[i].value, errors);
            if (err == OB_ECONFIG)
                err = OB_EUSAGE; /* it is the command line that is wrong */
            first = first != 0 ? first : err;
        }
    }
    return first;
}

/* A `database` that nobody could connect to is wrong before anybody tries. is_file: it was read
 * from path, and not given on the command line or in the environment. */
static int check_database(const struct config *c, const char *path, bool is_file,
                          struct buf *reterr)
{
    struct admin_error error;
    if (admin_check_conninfo(c->database, &error) == 0)
        return 0;
    buf_printf(reterr, "%s: bad database: %s; %s\n",
               is_file ? path : "--database or OUTBOX_DATABASE", error.message, error.hint);
    return is_file ? OB_ECONFIG : OB_EUSAGE;
}

/* Loads the file and, if `whole`, adds what the command line says and checks everything together.
 */
static int build(const struct cmd_args *args, bool whole, cmd_override override,
                 struct config **ret_config, struct buf *reterr)
{
    struct config *c = config_new();
    const char *path = config_path(args);
    int err = path != NULL ? config_load(c, path, reterr) : 0;
    if (whole) {
        int more = add_handlers(args, c, reterr);
        err = err != 0 ? err : more;
        char *from_file = c->database != NULL ? ob_xstrdup(c->database) : NULL;
        if (err == 0 && override != NULL)
            err = override(args, c, reterr);
        bool is_file = from_file != NULL && strcmp(from_file, c->database) == 0;
        ob_free(from_file);
        if (err == 0)
            err = check_database(c, path, is_file, reterr);
        if (err == 0)
            err = config_finish(c, reterr);
        if (err == 0)
            err = credentials_read(c, reterr);
    }
    if (err != 0 && err != OB_EUSAGE &&
        reterr->len == 0) /* usage errors were said as they were found */
        buf_printf(reterr, "%s: %s\n", path != NULL ? path : "configuration", ob_strerror(err));
    if (err == 0)
        *ret_config = c;
    else
        config_unref(c);
    return err;
}

int cmd_build_config(const struct cmd_args *args, cmd_override override, struct config **ret_config,
                     struct buf *reterr)
{
    return build(args, true, override, ret_config, reterr);
}

static int load(const struct cmd_args *args, bool whole, struct config **ret_config)
{
    struct buf errors;
    buf_init(&errors, ERRORS_MAX);
    int err = build(args, whole, NULL, ret_config, &errors);
    if (err != 0 && errors.len > 0) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s%s", errors.data, errors.data[errors.len - 1] == '\n' ? "" : "\n");
    }
    buf_deinit(&errors);
    return err == 0 ? 0 : ob_exit_code(err);
}

int cmd_load_config(const struct cmd_args *args, struct config **ret_config)
{
    return load(args, true, ret_config);
}

int cmd_load_config_file(const struct cmd_args *args, struct config **ret_config)
{
    return load(args, false, ret_config);
}

static const char *right_option(enum admin_right right)
{
    switch (right) {
    case ADMIN_READER:
        return "--reader";
    case ADMIN_PRODUCER:
        return "--producer";
    case ADMIN_DISPATCHER:
        return "--dispatcher";
    case ADMIN_OWNER:
        break;
    }
    return NULL;
}

int cmd_db_failed(const struct cmd_args *args, const struct admin *admin,
                  const struct admin_error *error)
{
    const char *database = admin != NULL ? admin_database(admin) : "";
    const char *user = admin != NULL ? admin_user(admin) : "";
    const char *option = right_option(error->right);
    if (error->err == OB_ESCHEMA) {
        cmd_error(args,
                  "database \"%s\" has no schema outbox, or an older one than this program needs "
                  "(%s): run "
                  "`outbox migrate`",
                  database, error->message);
    } else if (error->err == OB_EPRIVILEGE && option != NULL) {
        cmd_error(args,
                  "role \"%s\" may not do this in database \"%s\" (%s): the missing GRANTs are "
                  "printed by `outbox "
                  "grant %s %s`",
                  user, database, error->message, option, user);
    } else {
        const char *between = ". "; /* the server's hints are sentences, ours are not */
        if (error->hint[0] < 'A' || error->hint[0] > 'Z')
            between = error->hint[0] != '\0' ? "; " : "";
        cmd_error(args, "%s%s%s%s", error->err == OB_ECONN ? "no connection to the database: " : "",
                  error->message, between, error->hint);
    }
    return ob_exit_code(error->err);
}

int cmd_connect(const struct cmd_args *args, struct admin **ret_admin)
{
    const char *conninfo = cmd_value(args, "database");
    if (conninfo == NULL)
        conninfo = getenv("OUTBOX_DATABASE");
    struct config *config = NULL;
    if (conninfo == NULL) {
        int code = cmd_load_config_file(args, &config);
        if (code != 0)
            return code;
        ob_assert(config != NULL);
        conninfo = config->database;
    }
    struct admin_error error;
    char name[40];
    (void)snprintf(name, sizeof name, "outbox %s", args->command->name);
    int err = admin_connect(conninfo, name, ret_admin, &error);
    if (err == OB_EUSAGE && config != NULL)
        error.err = OB_ECONFIG; /* the string is the configuration's */
    config_unref(config);
    return err == 0 ? 0 : cmd_db_failed(args, NULL, &error);
}

int cmd_connect_schema(const struct cmd_args *args, struct admin **ret_admin)
{
    int code = cmd_connect(args, ret_admin);
    if (code != 0)
        return code;
    int level = 0;
    int min_level = 0;
    struct admin_error error;
    int err = admin_level(*ret_admin, &level, &min_level, &error);
    /* Whoever may not ask for the level is told about the privilege by what was actually wanted. */
    if (err == 0 && min_level > OB_SCHEMA_VERSION) {
        cmd_error(args,
                  "database \"%s\" has schema level %d, which needs a program of level %d or "
                  "newer; this one has "
                  "level %d: install a newer outbox",
                  admin_database(*ret_admin), level, min_level, OB_SCHEMA_VERSION);
        code = OB_EXIT_INCOMPATIBLE;
    } else if (err != 0 && err != OB_EPRIVILEGE) {
        code = cmd_db_failed(args, *ret_admin, &error);
    }
    if (code != 0) {
        admin_close(*ret_admin);
        *ret_admin = NULL;
    }
    return code;
}
