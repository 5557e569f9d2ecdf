/* pause.c - `outbox pause` and `outbox resume`: a task whose jobs wait until further notice. */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "cmd/input.h"
#include "cmd/jout.h"
#include "cmd/listing.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "db/admin.h"

static const struct cmd_option pause_options[] = {
    {"reason", 'r', "TEXT", "why, for those who look"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

static const struct cmd_option resume_options[] = {
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

/* ---- which are paused ---- */

static void print_json(const struct admin_rows *rows)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_array(&j, NULL);
    for (size_t i = 0; i < admin_count(rows); i++) {
        jout_open_object(&j, NULL);
        jout_str(&j, "task", admin_text(rows, i, PAUSE_TASK));
        jout_str(&j, "since", admin_text(rows, i, PAUSE_SINCE));
        jout_str(&j, "paused_by", admin_text(rows, i, PAUSE_BY));
        jout_str(&j, "reason", admin_text(rows, i, PAUSE_REASON));
        jout_close(&j);
    }
    jout_close(&j);
    jout_end(&j);
}

static void print_table(const struct admin_rows *rows)
{
    static const char *const headers[] = {"TASK", ">PAUSED", "BY", "REASON"};
    struct table *t = table_new(headers, sizeof headers / sizeof headers[0]);
    char text[CLOCK_DURATION_SIZE];
    for (size_t i = 0; i < admin_count(rows); i++) {
        table_cell(t, admin_text(rows, i, PAUSE_TASK));
        table_cell(t, print_span(admin_int(rows, i, PAUSE_MS, -1), text));
        table_cell(t, admin_text(rows, i, PAUSE_BY));
        table_cell(t, admin_text(rows, i, PAUSE_REASON));
    }
    table_print(t, stdout);
    table_free(t);
}

static int list(const struct cmd_args *args)
{
    static const struct cmd_listing listing = {
        .ask = admin_pauses,
        .print_json = print_json,
        .print_table = print_table,
        .none = "no task is paused",
    };
    return cmd_list(args, &listing);
}

/* ---- pausing, resuming ---- */

static void tell(struct jout *json, const char *task, const char *answer)
{
    if (json == NULL) {
        (void)printf("%s: %s\n", task, answer);
        return;
    }
    jout_open_object(json, NULL);
    jout_str(json, "task", task);
    jout_str(json, "answer", answer);
    jout_close(json);
}

/* One statement a task: each counts as soon as it is told. reason NULL: none. */
static int ask(const struct cmd_args *args, struct admin *admin, bool pauses, struct jout *json)
{
    int code = OB_EXIT_OK;
    for (int i = 0; i < args->operands_count; i++) {
        const char *task = args->operands[i];
        struct admin_rows *rows = NULL;
        struct admin_error error;
        int err = pauses ? admin_pause(admin, task, cmd_value(args, "reason"), &rows, &error)
                         : admin_resume(admin, task, &rows, &error);
        if (err != 0)
            return cmd_db_failed(args, admin, &error);
        const char *answer = admin_text(rows, 0, 0);
        tell(json, task, answer);
        if (strcmp(answer, "not paused") == 0)
            code = OB_EXIT_FAILED;
        admin_rows_free(rows);
    }
    return code;
}

static int run(const struct cmd_args *args, bool pauses)
{
    int code = 0;
    for (int i = 0; i < args->operands_count && code == 0; i++)
        code = input_check_task(args, args->operands[i]);
    struct admin *admin = NULL;
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code != 0)
        return code;
    struct jout json;
    bool is_json = cmd_has(args, "json");
    jout_init(&json, stdout);
    if (is_json)
        jout_open_array(&json, NULL);
    code = ask(args, admin, pauses, is_json ? &json : NULL);
    if (is_json) {
        jout_close(&json);
        jout_end(&json);
    }
    admin_close(admin);
    return code;
}

static int run_pause(const struct cmd_args *args)
{
    if (args->operands_count > 0)
        return run(args, true);
    if (cmd_has(args, "reason"))
        return cmd_usage(args, "say which task: --reason is for one that is to be paused");
    return list(args);
}

static int run_resume(const struct cmd_args *args)
{
    return run(args, false);
}

const struct command cmd_pause_command = {
    .name = "pause",
    .group = CMD_MEND,
    .operands = "[TASK...]",
    .operands_min = 0,
    .operands_max = -1,
    .summary = "let the jobs of a task wait; which tasks do",
    .description =
        "No dispatcher claims jobs of TASK any more, from within a second on, until it is "
        "resumed:\n"
        "restarts change nothing. What runs goes on, and jobs are enqueued as before. Without a\n"
        "task: lists those that are paused.\n"
        "    outbox pause send-welcome-email --reason 'the mail server is being moved'",
    .options = pause_options,
    .run = run_pause,
};

const struct command cmd_resume_command = {
    .name = "resume",
    .group = CMD_MEND,
    .operands = "TASK...",
    .operands_min = 1,
    .operands_max = -1,
    .summary = "let the jobs of a paused task run again",
    .description = "Exits with 1 if any of the tasks was not paused.",
    .options = resume_options,
    .run = run_resume,
};
