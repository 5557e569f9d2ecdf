/* options.c - the command line of a command: parsing, --help, typed values, complaints. The option
 * table of struct command drives both getopt_long and the help. */
#include "cmd/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "cmd/suggest.h"
#include "cmd/table.h"
#include "cmd/timearg.h"

enum { OPTIONS_MAX = 40, LONG_BASE = 256, HELP_COLUMN = 28 };

OB_PRINTF(4, 0)
static void complain(const struct cmd_args *args, const char *prefix, const char *suffix,
                     const char *fmt, va_list ap)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    va_list copy;
    va_copy(copy, ap);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    ob_assert(n >= 0);
    char *raw = ob_xcalloc((size_t)n + 1, 1);
    (void)vsnprintf(raw, (size_t)n + 1, fmt, ap);
    table_escape(&text, raw, (size_t)n);
    ob_free(raw);
    (void)fflush(stdout);
    (void)fprintf(stderr, "outbox %s: %s%s%s\n", args->command->name, prefix,
                  text.data != NULL ? text.data : "", suffix);
    buf_deinit(&text);
}

void cmd_error(const struct cmd_args *args, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(args, "", "", fmt, ap);
    va_end(ap);
}

void cmd_warn(const struct cmd_args *args, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(args, "warning: ", "", fmt, ap);
    va_end(ap);
}

int cmd_usage(const struct cmd_args *args, const char *fmt, ...)
{
    char suffix[80];
    (void)snprintf(suffix, sizeof suffix, "; see `outbox %s --help`", args->command->name);
    va_list ap;
    va_start(ap, fmt);
    complain(args, "", suffix, fmt, ap);
    va_end(ap);
    return OB_EXIT_USAGE;
}

static size_t count_options(const struct command *command)
{
    size_t n = 0;
    while (command->options[n].name != NULL)
        n++;
    ob_assert(n < OPTIONS_MAX);
    return n;
}

/* Builds getopt_long's two tables from ours. ':' first: a missing value comes as ':' and not as
 * '?'. */
static void build_tables(const struct command *command, struct option *longs, char *shorts)
{
    size_t n = count_options(command);
    *shorts++ = ':';
    for (size_t i = 0; i < n; i++) {
        const struct cmd_option *o = &command->options[i];
        longs[i] = (struct option){o->name, o->value != NULL ? required_argument : no_argument,
                                   NULL, LONG_BASE + (int)i};
        if (o->letter != '\0') {
            *shorts++ = o->letter;
            if (o->value != NULL)
                *shorts++ = ':';
        }
    }
    *shorts = '\0';
    longs[n] = (struct option){NULL, 0, NULL, 0};
}

static const struct cmd_option *option_of(const struct command *command, int code)
{
    size_t n = count_options(command);
    if (code >= LONG_BASE && (size_t)(code - LONG_BASE) < n)
        return &command->options[code - LONG_BASE];
    for (size_t i = 0; i < n; i++) {
        if (command->options[i].letter != '\0' && command->options[i].letter == code)
            return &command->options[i];
    }
    return NULL;
}

static int unknown_option(const struct cmd_args *args, const char *word)
{
    const struct cmd_option *options = args->command->options;
    const char *names[OPTIONS_MAX];
    size_t n = count_options(args->command);
    size_t len = strcspn(word, "=");
    for (size_t i = 0; i < n; i++)
        names[i] = options[i].name;
    char *wrong = ob_xcalloc(len + 1, 1);
    memcpy(wrong, word, len);
    const char *bare = wrong + strspn(wrong, "-");
    size_t prefixed = 0;
    for (size_t i = 0; i < n; i++)
        prefixed += strncmp(names[i], bare, strlen(bare)) == 0 ? 1 : 0;
    const char *near = suggest_name(bare, names, n);
    int code;
    if (prefixed > 1)
        code = cmd_usage(args, "option %s could mean several; write it in full", wrong);
    else if (near != NULL)
        code = cmd_usage(args, "unknown option %s (did you mean --%s?)", wrong, near);
    else
        code = cmd_usage(args, "unknown option %s", wrong);
    ob_free(wrong);
    return code;
}

/* getopt_long said '?': an unknown option, long or short, or a switch that was given a value. */
static int refuse_option(const struct cmd_args *args, char **argv)
{
    const struct cmd_option *o = option_of(args->command, optopt);
    if (optopt >= LONG_BASE && o != NULL)
        return cmd_usage(args, "option --%s takes no value", o->name);
    if (optopt != 0)
        return cmd_usage(args, "unknown option -%c", optopt);
    return unknown_option(args, argv[optind - 1]);
}

static int check_operands(const struct cmd_args *args)
{
    const struct command *c = args->command;
    if (args->operands_count < c->operands_min)
        return cmd_usage(args, "something is missing: usage is `outbox %s %s`", c->name,
                         c->operands);
    if (c->operands_max >= 0 && args->operands_count > c->operands_max)
        return cmd_usage(args, "\"%s\" is one argument too many", args->operands[c->operands_max]);
    return 0;
}

int cmd_args_parse(struct cmd_args *args, const struct command *command, int argc, char **argv)
{
    memset(args, 0, sizeof *args);
    args->command = command;
    struct option longs[OPTIONS_MAX];
    char shorts[2 * OPTIONS_MAX + 2];
    build_tables(command, longs, shorts);
    args->given = ob_xcalloc((size_t)argc + 1, sizeof *args->given);
    opterr = 0;
    optind = 1;
    for (;;) {
        int code = getopt_long(argc, argv, shorts, longs, NULL);
        if (code == -1)
            break;
        if (code == '?')
            return refuse_option(args, argv);
        if (code == ':')
            return cmd_usage(args, "option %s needs a value", argv[optind - 1]);
        const struct cmd_option *o = option_of(command, code);
        ob_assert(o != NULL);
        if (strcmp(o->name, "help") == 0)
            return -1;
        args->given[args->given_count++] = (struct cmd_given){o, o->value != NULL ? optarg : NULL};
    }
    args->operands = argv + optind;
    args->operands_count = argc - optind;
    return check_operands(args);
}

void cmd_args_deinit(struct cmd_args *args)
{
    ob_free(args->given);
    args->given = NULL;
    args->given_count = 0;
}

static void print_option(const struct cmd_option *o)
{
    char left[80];
    char letter[8] = "    ";
    if (o->letter != '\0')
        (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
    int n = snprintf(left, sizeof left, "  %s--%s%s%s", letter, o->name,
                     o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
    (void)printf("%s", left);
    if (n >= HELP_COLUMN - 1) {
        (void)printf("\n");
        n = 0;
    }
    const char *line = o->help;
    for (;;) {
        size_t len = strcspn(line, "\n");
        (void)printf("%*s%.*s\n", HELP_COLUMN - n, "", (int)len, line);
        if (line[len] == '\0')
            return;
        line += len + 1;
        n = 0;
    }
}

void cmd_print_help(const struct command *command)
{
    (void)printf("Usage: outbox %s [OPTION...]%s%s\n\n%s\n\nOptions:\n", command->name,
                 command->operands[0] != '\0' ? " " : "", command->operands, command->description);
    for (size_t i = 0; command->options[i].name != NULL; i++)
        print_option(&command->options[i]);
}

const char *cmd_next_value(const struct cmd_args *args, const char *name, size_t *pos)
{
    while (*pos < args->given_count) {
        const struct cmd_given *g = &args->given[(*pos)++];
        if (strcmp(g->option->name, name) == 0)
            return g->value != NULL ? g->value : "";
    }
    return NULL;
}

const char *cmd_value(const struct cmd_args *args, const char *name)
{
    const char *last = NULL;
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, name, &pos); v != NULL;
         v = cmd_next_value(args, name, &pos))
        last = v;
    return last;
}

bool cmd_has(const struct cmd_args *args, const char *name)
{
    return cmd_value(args, name) != NULL;
}

/* A whole decimal number, nothing around it. */
static bool parse_integer(const char *text, int64_t *ret)
{
    if (text[0] != '-' && (text[0] < '0' || text[0] > '9'))
        return false;
    char *end = NULL;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text)
        return false;
    *ret = n;
    return true;
}

int cmd_int_value(const struct cmd_args *args, const char *name, int64_t min, int64_t max,
                  int64_t *ret)
{
    const char *text = cmd_value(args, name);
    if (text == NULL)
        return 0;
    int64_t n = 0;
    if (!parse_integer(text, &n) || n < min || n > max)
        return cmd_usage(args, "--%s \"%s\": expected a number from %lld to %lld", name, text,
                         (long long)min, (long long)max);
    *ret = n;
    return 0;
}

int cmd_duration_value(const struct cmd_args *args, const char *name, uint64_t *ret_ms)
{
    const char *text = cmd_value(args, name);
    if (text == NULL)
        return 0;
    if (parse_duration(text, ret_ms) != 0)
        return cmd_usage(args, "--%s \"%s\": expected a duration such as 30s, 5m, 2h or 7d", name,
                         text);
    return 0;
}

int cmd_time_value(const struct cmd_args *args, const char *name, int64_t *ret_unix_us)
{
    const char *text = cmd_value(args, name);
    if (text == NULL)
        return 0;
    if (timearg_parse(text, ret_unix_us) != 0)
        return cmd_usage(
            args,
            "--%s \"%s\": expected a time such as 2026-01-31T08:30:00Z, or \"2026-01-31 08:30\" "
            "(local time)",
            name, text);
    return 0;
}

int cmd_id_operand(const struct cmd_args *args, int i, int64_t *ret_id)
{
    int64_t id = 0;
    if (!parse_integer(args->operands[i], &id) || id <= 0)
        return cmd_usage(args, "\"%s\" is not a job's id: expected a number from 1",
                         args->operands[i]);
    *ret_id = id;
    return 0;
}
