/* requeue.c - `outbox requeue`: ends runs whose jobs are to run again from the beginning. */
#include "cmd/cmd.h"

#include <string.h>

#include "cmd/matching.h"

static const struct cmd_option options[] = {
    CMD_OPTIONS_MATCHING, CMD_OPTION_JSON, CMD_OPTION_DATABASE, CMD_OPTION_CONFIG, CMD_OPTIONS_END,
};

static bool is_failure(const char *answer)
{
    return strcmp(answer, "not found") == 0 || strcmp(answer, "dead") == 0 ||
           strcmp(answer, "cancelling") == 0;
}

static const char *explain(const char *answer)
{
    if (strcmp(answer, "requeueing") == 0)
        return "requeueing: its dispatcher has been told to end the run";
    if (strcmp(answer, "silent") == 0)
        return "its dispatcher is silent: ready again when that is back, or its lease is over";
    if (strcmp(answer, "cancelling") == 0)
        return "not requeued: it is being cancelled";
    return strcmp(answer, "dead") == 0 ? "dead: `outbox retry` runs it again" : answer;
}

static int run(const struct cmd_args *args)
{
    static const char *const answers[] = {"requeueing", "silent",    "cancelling", "not running",
                                          "dead",       "not found", NULL};
    const struct matching m = {
        .how = {.verb = ADMIN_REQUEUE, .is_failure = is_failure, .explain = explain},
        .answers = answers,
        .past = "requeued",
    };
    if (matching_is_asked(args))
        return matching_run(args, &m);
    if (args->operands_count == 0)
        return cmd_usage(args, "say which: ids, or --running");
    return mend_operands(args, &m.how);
}

const struct command cmd_requeue_command = {
    .name = "requeue",
    .group = CMD_MEND,
    .operands = "[ID...]",
    .operands_min = 0,
    .operands_max = -1,
    .summary = "end runs, and run their jobs again",
    .description =
        "The dispatcher that runs a job ends that run (TERM, five seconds later KILL); then the "
        "job\n"
        "is ready again, and the attempt is not counted. Says for each id what became of it, and\n"
        "exits with 1 if any was not found, is dead, or is being cancelled.\n"
        "    outbox requeue 17 18\n"
        "    outbox requeue --running --task resize-image\n"
        "    outbox requeue --running --dispatcher host-7",
    .options = options,
    .run = run,
};
