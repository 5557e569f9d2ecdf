/* cmd.h - the program's commands: one table, one way to read options, one way to complain.
 *
 * A command is a struct command in its own file, listed in cmd.c. Its option table is what
 * getopt_long is fed with and what --help prints, so the two cannot disagree. Commands return exit
 * codes (enum ob_exit), write results to stdout and everything else to stderr, and hold no SQL:
 * that is db/admin.c's.
 *
 * When you add a command or an option: docs/cli.md, docs/man/outbox.1, tests/e2e/check_cli*.c. */
#ifndef OB_CMD_CMD_H
#define OB_CMD_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "exec/spawner.h"

struct cmd_option {
    const char *name;  /* the long name; NULL ends a table */
    char letter;       /* '\0': no short form */
    const char *value; /* what help calls its value; NULL: a switch */
    const char *help;  /* '\n' breaks a line */
};

/* What several commands share. */
#define CMD_OPTION_DATABASE                                                                        \
    {                                                                                              \
        "database", 'd', "CONNINFO",                                                               \
            "connection string or URI of the database (default:\n"                                 \
            "OUTBOX_DATABASE, the configuration's, the PG* variables)"                             \
    }
#define CMD_OPTION_CONFIG                                                                          \
    {                                                                                              \
        "config", 'c', "FILE", "configuration (default: " CMD_CONFIG_PATH ", if it is there)"      \
    }
#define CMD_OPTION_JSON                                                                            \
    {                                                                                              \
        "json", '\0', NULL, "print JSON, for programs"                                             \
    }
#define CMD_OPTIONS_HANDLERS                                                                       \
    {"shell", '\0', "NAME=CMD", "handle task NAME by the shell command CMD"},                      \
        {"exec", '\0', "NAME=PATH", "handle task NAME by the program PATH"},                       \
        {"worker", '\0', "NAME=PATH", "handle task NAME by resident processes of PATH"},           \
        {"webhook", '\0', "NAME=URL", "handle task NAME by a POST to URL"},                        \
    {                                                                                              \
        "discard", '\0', "NAME", "let jobs of task NAME count as done at once"                     \
    }
#define CMD_OPTIONS_END                                                                            \
    {"help", 'h', NULL, "show this help"},                                                         \
    {                                                                                              \
        NULL, '\0', NULL, NULL                                                                     \
    }
#define CMD_CONFIG_PATH "/etc/outbox/outbox.yaml"

enum cmd_group { CMD_SET_UP, CMD_RUN, CMD_ENQUEUE, CMD_LOOK, CMD_MEND };

struct cmd_args;

struct command {
    const char *name;
    enum cmd_group group;
    const char *operands; /* as help shows them: "TASK [JSON|-]"; "": none */
    int operands_min;
    int operands_max;        /* -1: any number */
    const char *summary;     /* its line of `outbox --help` */
    const char *description; /* the paragraphs of its own help, broken by hand */
    const struct cmd_option *options;
    bool needs_spawner; /* it runs handlers: main() forks the spawner before anything else */
    int (*run)(const struct cmd_args *args);
};

struct cmd_given { /* one option of the command line, in its order */
    const struct cmd_option *option;
    const char *value; /* NULL for a switch */
};

struct cmd_args {
    const struct command *command;
    struct cmd_given *given;
    size_t given_count;
    char **operands;
    int operands_count;
    struct spawner *spawner; /* NULL unless command->needs_spawner */
};

/* --- cmd.c: the table ------------------------------------------------------------------------- */

extern const struct command *const cmd_commands[]; /* NULL-terminated, in the order of help */
const struct command *cmd_find(const char *name);  /* NULL: none */
/* The whole program after main() has forked what must be forked first. Returns the exit code. */
int cmd_main(int argc, char **argv, struct spawner *spawner);

/* --- options.c: reading the command line ------------------------------------------------------ */

/* Parses what follows the command's name (argv[0] is the name). Returns 0; -1 when help was asked
 * for; or OB_EXIT_USAGE, said on stderr in one line. cmd_args_deinit in any case. */
int cmd_args_parse(struct cmd_args *args, const struct command *command, int argc, char **argv);
void cmd_args_deinit(struct cmd_args *args);
void cmd_print_help(const struct command *command);

bool cmd_has(const struct cmd_args *args, const char *name);
/* The option's value; the last one counts. NULL: not given. */
const char *cmd_value(const struct cmd_args *args, const char *name);
/* Each value of a repeatable option in turn: start with *pos = 0; NULL when there are no more. */
const char *cmd_next_value(const struct cmd_args *args, const char *name, size_t *pos);
/* Options with typed values: 0, or OB_EXIT_USAGE after a message. *ret is unchanged when not given.
 */
int cmd_int_value(const struct cmd_args *args, const char *name, int64_t min, int64_t max,
                  int64_t *ret) OB_MUST_CHECK;
int cmd_duration_value(const struct cmd_args *args, const char *name,
                       uint64_t *ret_ms) OB_MUST_CHECK;
int cmd_time_value(const struct cmd_args *args, const char *name,
                   int64_t *ret_unix_us) OB_MUST_CHECK;
/* The operand as a job's id. */
int cmd_id_operand(const struct cmd_args *args, int i, int64_t *ret_id) OB_MUST_CHECK;

/* "outbox jobs: TEXT" on stderr, one line, control characters escaped. */
OB_PRINTF(2, 3) void cmd_error(const struct cmd_args *args, const char *fmt, ...);
OB_PRINTF(2, 3) void cmd_warn(const struct cmd_args *args, const char *fmt, ...);
/* cmd_error and where help is; returns OB_EXIT_USAGE. */
OB_PRINTF(2, 3) int cmd_usage(const struct cmd_args *args, const char *fmt, ...);

/* --- connect.c: configuration and connection -------------------------------------------------- */

/* --config or the default file, then --shell, --exec, --worker, --webhook, --discard in their
 * order; checked as a whole. All errors go to stderr. Returns 0, or an exit code (78); *ret_config
 * needs config_unref. */
int cmd_load_config(const struct cmd_args *args, struct config **ret_config) OB_MUST_CHECK;
/* The same with the errors in *reterr and an error code, for a daemon that reloads. override (may
 * be NULL) puts what the command line says over what the file said, before everything is checked.
 */
typedef int (*cmd_override)(const struct cmd_args *args, struct config *c, struct buf *reterr);
int cmd_build_config(const struct cmd_args *args, cmd_override override, struct config **ret_config,
                     struct buf *reterr) OB_MUST_CHECK;
/* Only the file, for the sake of its `database`; handlers are not resolved. No file: defaults. */
int cmd_load_config_file(const struct cmd_args *args, struct config **ret_config) OB_MUST_CHECK;

struct admin;
struct admin_error;
/* Connects as --database, OUTBOX_DATABASE, the configuration or PG* say. 0, or an exit code after a
 * message. admin_close afterwards. */
int cmd_connect(const struct cmd_args *args, struct admin **ret_admin) OB_MUST_CHECK;
/* The same, and refuses a schema that needs a newer program: for everything but migrate. */
int cmd_connect_schema(const struct cmd_args *args, struct admin **ret_admin) OB_MUST_CHECK;
/* Says on stderr what the database refused and what to do; returns the exit code. */
int cmd_db_failed(const struct cmd_args *args, const struct admin *admin,
                  const struct admin_error *error);

/* --- the commands, one file each -------------------------------------------------------------- */

extern const struct command cmd_migrate_command;
extern const struct command cmd_grant_command;
extern const struct command cmd_check_command;
extern const struct command cmd_try_command;
extern const struct command cmd_enqueue_command;
extern const struct command cmd_jobs_command;
extern const struct command cmd_show_command;
extern const struct command cmd_wait_command;
extern const struct command cmd_stats_command;
extern const struct command cmd_dispatchers_command;
extern const struct command cmd_cancel_command;
extern const struct command cmd_retry_command;
extern const struct command cmd_requeue_command;
extern const struct command cmd_purge_command;
extern const struct command cmd_pause_command;
extern const struct command cmd_resume_command;

/* run.c: the daemon. Its options are in cmd.c's table entry. */
int cmd_run(const struct cmd_args *args);

#endif
