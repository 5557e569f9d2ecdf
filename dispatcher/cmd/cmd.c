/* cmd.c - the table of commands, `outbox --help`, `outbox help`, `outbox --version`. */
#include "cmd/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "base/version.h"
#include "cmd/suggest.h"
#include "db/admin.h"
#include "webhook/version.h"

static const struct cmd_option run_options[] = {
    CMD_OPTION_CONFIG,
    CMD_OPTION_DATABASE,
    CMD_OPTIONS_HANDLERS,
    {"name", 'n', "NAME", "this dispatcher's name, exclusive (default: the host name)"},
    {"concurrency", 'j', "N", "processes at once, all tasks together"},
    {"lease", '\0', "DURATION", "how long this dispatcher may be silent (default: 60s)"},
    {"lock-dir", '\0', "DIR", "folder of the name's lock file"},
    {"drain", '\0', NULL, "stop when nothing is ready and nothing runs"},
    {"log-level", '\0', "LEVEL", "error, warn, info or debug"},
    {"log-format", '\0', "FORMAT", "logfmt or json"},
    {"log-sql", '\0', NULL, "log each statement that is sent to the server, without its values"},
    CMD_OPTIONS_END,
};

static const struct command cmd_run_command = {
    .name = "run",
    .group = CMD_RUN,
    .operands = "",
    .summary = "run jobs as they are committed: the dispatcher",
    .description =
        "Waits for committed jobs and runs each by the handler that the configuration, or the\n"
        "options below, register for its task. TERM or INT stops it: running jobs may finish\n"
        "within stop_timeout; a second signal does not wait. HUP reloads the configuration.",
    .options = run_options,
    .needs_spawner = true,
    .run = cmd_run,
};

const struct command *const cmd_commands[] = {
    &cmd_migrate_command, &cmd_grant_command,       &cmd_check_command,
    &cmd_try_command,     &cmd_run_command,         &cmd_enqueue_command,
    &cmd_jobs_command,    &cmd_show_command,        &cmd_wait_command,
    &cmd_stats_command,   &cmd_dispatchers_command, &cmd_cancel_command,
    &cmd_retry_command,   &cmd_requeue_command,     &cmd_purge_command,
    &cmd_pause_command,   &cmd_resume_command,      NULL,
};

static const struct {
    enum cmd_group group;
    const char *title;
} groups[] = {
    {CMD_SET_UP, "Set up"}, {CMD_RUN, "Run"},   {CMD_ENQUEUE, "Enqueue"},
    {CMD_LOOK, "Look"},     {CMD_MEND, "Mend"},
};

const struct command *cmd_find(const char *name)
{
    for (size_t i = 0; cmd_commands[i] != NULL; i++) {
        if (strcmp(cmd_commands[i]->name, name) == 0)
            return cmd_commands[i];
    }
    return NULL;
}

static void print_help(void)
{
    (void)printf(
        "outbox - jobs that commit with your PostgreSQL transactions, and run afterwards\n\n"
        "Usage: outbox COMMAND [OPTION...]\n");
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        (void)printf("\n%s:\n", groups[g].title);
        for (size_t i = 0; cmd_commands[i] != NULL; i++) {
            if (cmd_commands[i]->group == groups[g].group)
                (void)printf("  %-12s %s\n", cmd_commands[i]->name, cmd_commands[i]->summary);
        }
    }
    (void)printf(
        "\n`outbox COMMAND --help` tells more; `outbox --version` shows versions; man outbox.\n"
        "Exit codes: 0 done, 1 failed or not found, 64 usage, 69 schema missing or\n"
        "incompatible, 75 try again, 78 configuration.\n");
}

static void print_version(void)
{
    (void)printf("outbox %s\nschema level %d\n", OB_VERSION, OB_SCHEMA_VERSION);
    int pq = admin_libpq_version();
    (void)printf("libpq %d.%d, libuv %s, libcurl %s\n", pq / 10000, pq % 10000, uv_version_string(),
                 webhook_curl_version());
}

/* One line for a first word that is no command. */
static int unknown_command(const char *word)
{
    if (word[0] == '-') {
        (void)fprintf(stderr,
                      "outbox: options come after the command: outbox COMMAND %s; see "
                      "`outbox --help`\n",
                      word);
        return OB_EXIT_USAGE;
    }
    enum { COMMANDS = sizeof cmd_commands / sizeof cmd_commands[0] - 1 }; /* NULL is the last */
    const char *names[COMMANDS + 1];
    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = cmd_commands[i]->name;
    names[COMMANDS] = "help";
    const char *near = suggest_name(word, names, COMMANDS + 1);
    if (near != NULL)
        (void)fprintf(
            stderr, "outbox: unknown command \"%s\" (did you mean \"%s\"?); see `outbox --help`\n",
            word, near);
    else
        (void)fprintf(stderr, "outbox: unknown command \"%s\"; see `outbox --help`\n", word);
    return OB_EXIT_USAGE;
}

/* 0, or OB_EXIT_USAGE when there are more than n words. */
static int check_words(int argc, char **argv, int n)
{
    if (argc <= n)
        return OB_EXIT_OK;
    (void)fprintf(stderr, "outbox: there is one argument too many behind %s; see `outbox --help`\n",
                  argv[1]);
    return OB_EXIT_USAGE;
}

static int help_command(int argc, char **argv)
{
    int code = check_words(argc, argv, 3);
    if (code != OB_EXIT_OK)
        return code;
    if (argc < 3) {
        print_help();
        return OB_EXIT_OK;
    }
    const struct command *command = cmd_find(argv[2]);
    if (command == NULL)
        return unknown_command(argv[2]);
    cmd_print_help(command);
    return OB_EXIT_OK;
}

static int run_command(const struct command *command, int argc, char **argv,
                       struct spawner *spawner)
{
    struct cmd_args args;
    int code = cmd_args_parse(&args, command, argc - 1, argv + 1);
    args.spawner = spawner;
    if (code == 0) {
        code = command->run(&args);
    } else if (code < 0) {
        cmd_print_help(command);
        code = OB_EXIT_OK;
    }
    cmd_args_deinit(&args);
    return code;
}

/* Results that could not be written are a failure: a full disk must not look like success. */
static int finish_output(int code)
{
    errno = 0;
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return code;
    (void)fprintf(stderr, "outbox: could not write the output: %s\n",
                  strerror(errno != 0 ? errno : EIO));
    return code != OB_EXIT_OK ? code : OB_EXIT_FAILED;
}

int cmd_main(int argc, char **argv, struct spawner *spawner)
{
    if (argc < 2) {
        (void)fprintf(stderr, "outbox: no command given; see `outbox --help`\n");
        return OB_EXIT_USAGE;
    }
    const char *word = argv[1];
    int code = OB_EXIT_OK;
    const struct command *command = cmd_find(word);
    bool is_help =
        strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
    if (command != NULL) {
        code = run_command(command, argc, argv, spawner);
    } else if (is_help) {
        code = help_command(argc, argv);
    } else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        code = check_words(argc, argv, 2);
        if (code == OB_EXIT_OK)
            print_version();
    } else {
        code = unknown_command(word);
    }
    return finish_output(code);
}
