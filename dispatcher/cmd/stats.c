/* stats.c - `outbox stats`: how many jobs each task has in each state, how old, and who handles it.
 */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "cmd/jout.h"
#include "cmd/listing.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    {"exact", 'x', NULL, "count every row, however many there are"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

/* Work is there, or will be, and no live dispatcher lists its task. */
static bool is_unhandled(const struct admin_rows *rows, size_t i)
{
    const char *state = admin_text(rows, i, STATS_STATE);
    bool over = strcmp(state, "dead") == 0 || strcmp(state, "done") == 0;
    return !over && admin_int(rows, i, STATS_HANDLERS, 0) == 0;
}

static void note_cell(struct table *t, const struct admin_rows *rows, size_t i)
{
    const char *reason = admin_text(rows, i, STATS_PAUSED_REASON);
    bool is_paused = admin_text(rows, i, STATS_PAUSED_SINCE) != NULL;
    if (is_paused && reason != NULL)
        table_cellf(t, "paused: %s", reason);
    else if (is_paused)
        table_cell(t, "paused");
    else
        table_cell(t, is_unhandled(rows, i) ? "no dispatcher handles it" : "");
}

static void print_json(const struct admin_rows *rows)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_array(&j, NULL);
    for (size_t i = 0; i < admin_count(rows); i++) {
        jout_open_object(&j, NULL);
        jout_str(&j, "task", admin_text(rows, i, STATS_TASK));
        jout_str(&j, "state", admin_text(rows, i, STATS_STATE));
        print_number(&j, "count", rows, i, STATS_COUNT);
        jout_bool(&j, "estimated", admin_bool(rows, i, STATS_ESTIMATED));
        print_number(&j, "oldest_age_ms", rows, i, STATS_OLDEST_MS);
        print_number(&j, "handlers", rows, i, STATS_HANDLERS);
        jout_bool(&j, "unhandled", is_unhandled(rows, i));
        jout_str(&j, "paused_since", admin_text(rows, i, STATS_PAUSED_SINCE));
        jout_str(&j, "paused_reason", admin_text(rows, i, STATS_PAUSED_REASON));
        jout_close(&j);
    }
    jout_close(&j);
    jout_end(&j);
}

static void print_table(const struct admin_rows *rows)
{
    static const char *const headers[] = {"TASK",    "STATE",     ">COUNT",
                                          ">OLDEST", ">HANDLERS", "NOTE"};
    struct table *t = table_new(headers, sizeof headers / sizeof headers[0]);
    char text[CLOCK_DURATION_SIZE];
    for (size_t i = 0; i < admin_count(rows); i++) {
        table_cell(t, admin_text(rows, i, STATS_TASK));
        table_cell(t, admin_text(rows, i, STATS_STATE));
        table_cellf(t, "%s%s", admin_bool(rows, i, STATS_ESTIMATED) ? "~" : "",
                    admin_text(rows, i, STATS_COUNT));
        table_cell(t, print_span(admin_int(rows, i, STATS_OLDEST_MS, -1), text));
        table_cell(t, admin_text(rows, i, STATS_HANDLERS));
        note_cell(t, rows, i);
    }
    table_print(t, stdout);
    table_free(t);
}

static int run(const struct cmd_args *args)
{
    const struct cmd_listing listing = {
        .ask = cmd_has(args, "exact") ? admin_stats_exact : admin_stats,
        .print_json = print_json,
        .print_table = print_table,
        .none = "no jobs",
    };
    return cmd_list(args, &listing);
}

const struct command cmd_stats_command = {
    .name = "stats",
    .group = CMD_LOOK,
    .operands = "",
    .summary = "count jobs per task and state, the oldest, and who handles them",
    .description =
        "HANDLERS is how many live dispatchers have a handler for the task. Jobs of a task that\n"
        "nobody handles stay where they are, and are marked; so are those of a task that is\n"
        "paused. Of many jobs not all are read: a count with a ~ is an estimate, unless --exact\n"
        "is given.",
    .options = options,
    .run = run,
};
