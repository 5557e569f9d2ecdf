/* dispatchers.c - `outbox dispatchers`: who runs jobs of this database. */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "cmd/jout.h"
#include "cmd/listing.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

static void print_json(const struct admin_rows *rows)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_array(&j, NULL);
    for (size_t i = 0; i < admin_count(rows); i++) {
        jout_open_object(&j, NULL);
        /* A string: 63 random bits, more than a JSON reader's doubles hold. */
        jout_str(&j, "id", admin_text(rows, i, DISPATCHER_ID));
        jout_str(&j, "name", admin_text(rows, i, DISPATCHER_NAME));
        jout_str(&j, "host", admin_text(rows, i, DISPATCHER_HOST));
        print_number(&j, "pid", rows, i, DISPATCHER_PID);
        jout_str(&j, "version", admin_text(rows, i, DISPATCHER_VERSION));
        print_number(&j, "tasks", rows, i, DISPATCHER_TASKS);
        jout_str(&j, "started_at", admin_text(rows, i, DISPATCHER_STARTED_AT));
        jout_str(&j, "beat_at", admin_text(rows, i, DISPATCHER_BEAT_AT));
        print_number(&j, "lease_ms", rows, i, DISPATCHER_LEASE_MS);
        jout_bool(&j, "live", admin_bool(rows, i, DISPATCHER_LIVE));
        print_number(&j, "running", rows, i, DISPATCHER_RUNNING);
        jout_close(&j);
    }
    jout_close(&j);
    jout_end(&j);
}

static void print_table(const struct admin_rows *rows)
{
    static const char *const headers[] = {"NAME",     "HOST", ">PID",  "VERSION", "STATE",
                                          ">RUNNING", ">UP",  ">BEAT", "TASKS"};
    struct table *t = table_new(headers, sizeof headers / sizeof headers[0]);
    char text[CLOCK_DURATION_SIZE];
    for (size_t i = 0; i < admin_count(rows); i++) {
        table_cell(t, admin_text(rows, i, DISPATCHER_NAME));
        table_cell(t, admin_text(rows, i, DISPATCHER_HOST));
        table_cell(t, admin_text(rows, i, DISPATCHER_PID));
        table_cell(t, admin_text(rows, i, DISPATCHER_VERSION));
        table_cell(t, admin_bool(rows, i, DISPATCHER_LIVE) ? "live" : "silent");
        table_cell(t, admin_text(rows, i, DISPATCHER_RUNNING));
        table_cell(t, print_span(admin_int(rows, i, DISPATCHER_UP_MS, -1), text));
        table_cellf(t, "%s ago", print_span(admin_int(rows, i, DISPATCHER_SINCE_BEAT_MS, 0), text));
        table_cell(t, admin_text(rows, i, DISPATCHER_TASK_NAMES));
    }
    table_print(t, stdout);
    table_free(t);
}

static int run(const struct cmd_args *args)
{
    static const struct cmd_listing listing = {
        .ask = admin_dispatchers,
        .print_json = print_json,
        .print_table = print_table,
        .none = "no dispatcher runs",
    };
    return cmd_list(args, &listing);
}

const struct command cmd_dispatchers_command = {
    .name = "dispatchers",
    .group = CMD_LOOK,
    .operands = "",
    .summary = "list the dispatchers of this database",
    .description =
        "A dispatcher is live while its heartbeat is younger than its lease. The jobs of a silent\n"
        "one are taken over by the others, or by itself when it starts again.",
    .options = options,
    .run = run,
};
