/* cancel.c - `outbox cancel ID...`: takes jobs away before they run, or dead ones for good. */
#include "cmd/cmd.h"

#include <string.h>

#include "cmd/mend.h"

static const struct cmd_option options[] = {
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

/* A running job goes on, and that is not what was asked for. */
static bool is_failure(const char *answer)
{
    return strcmp(answer, "cancelled") != 0 && strcmp(answer, "cancelling") != 0;
}

static const char *explain(const char *answer)
{
    return strcmp(answer, "running") == 0 ? "running: not cancelled" : answer;
}

static int run(const struct cmd_args *args)
{
    return mend_operands(args, ADMIN_CANCEL, is_failure, explain);
}

const struct command cmd_cancel_command = {
    .name = "cancel",
    .group = CMD_MEND,
    .operands = "ID...",
    .operands_min = 1,
    .operands_max = -1,
    .summary = "delete jobs that have not started, or are dead",
    .description =
        "Says for each job what became of it. Exits with 1 if any was not found or is running:\n"
        "a running job is left alone.",
    .options = options,
    .run = run,
};
