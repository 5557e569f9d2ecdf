/* cancel.c - `outbox cancel`: takes jobs away before they run, while they run, or dead ones for
 * good. */
#include "cmd/cmd.h"

#include <string.h>

#include "cmd/matching.h"

static const struct cmd_option options[] = {
    CMD_OPTIONS_MATCHING,
    CMD_OPTION_STATE,
    {"error", 'e', "TEXT", "only dead ones with this text in their reason, in any case"},
    {"older-than", 'o', "DURATION", "only dead ones that died so long ago"},
    {"newer-than", '\0', "DURATION", "only dead ones that died since"},
    {"wait", 'w', NULL, "wait until jobs that run have ended"},
    {"timeout", '\0', "DURATION", "with --wait: no longer than that"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

/* A job that was done in spite of it is not what was asked for. */
static bool is_failure(const char *answer)
{
    return strcmp(answer, "cancelled") != 0 && strcmp(answer, "cancelling") != 0;
}

static const char *explain(const char *answer)
{
    if (strcmp(answer, "cancelling") == 0)
        return "cancelling: its dispatcher has been told to end it";
    return strcmp(answer, "done") == 0 ? "done: it succeeded before it could be ended" : answer;
}

static int run(const struct cmd_args *args)
{
    static const char *const answers[] = {"cancelled", "cancelling", "done", "not found", NULL};
    struct mend_how how = {.verb = ADMIN_CANCEL, .is_failure = is_failure, .explain = explain};
    int code = cmd_duration_value(args, "timeout", &how.timeout_ms);
    if (code != 0)
        return code;
    if (cmd_has(args, "timeout") && !cmd_has(args, "wait"))
        return cmd_usage(args, "--timeout needs --wait");
    if (cmd_has(args, "wait")) {
        how.pending = "cancelling";
        how.gone = "done";
    }
    if (matching_is_asked(args)) {
        how.pending = "cancelling";
        const struct matching m = {.how = how, .answers = answers, .past = "cancelled"};
        return matching_run(args, &m);
    }
    if (args->operands_count == 0)
        return cmd_usage(args, "say which: ids, --running, or --state STATE");
    return mend_operands(args, &how);
}

const struct command cmd_cancel_command = {
    .name = "cancel",
    .group = CMD_MEND,
    .operands = "[ID...]",
    .operands_min = 0,
    .operands_max = -1,
    .summary = "delete jobs: waiting, running or dead",
    .description =
        "Says for each job what became of it. One that runs is \"cancelling\": its dispatcher "
        "ends\n"
        "it (TERM, five seconds later KILL) and it never runs again; --wait waits for that.\n"
        "Exits with 1 if any was not found, or was done before it could be ended, and with 75 if\n"
        "--timeout passed first. All that match, instead of ids, are counted:\n"
        "    outbox cancel 17 18\n"
        "    outbox cancel --running --task resize-image --wait\n"
        "    outbox cancel --state ready,scheduled --task resize-image",
    .options = options,
    .run = run,
};
