/* matching.h - cancel and requeue of all jobs that match: asking in portions, counting answers. */
#ifndef OB_CMD_MATCHING_H
#define OB_CMD_MATCHING_H

#include "cmd/mend.h"

/* The options that say which; the first is for commands that take any state. */
#define CMD_OPTION_STATE                                                                           \
    {                                                                                              \
        "state", 's', "STATE", "ready, scheduled, waiting, running or dead; repeatable, or a,b"    \
    }
#define CMD_OPTIONS_MATCHING                                                                       \
    {"running", 'r', NULL, "all jobs that run now"},                                               \
        {"task", 't', "TASK", "with it: only of this task; repeatable, or a,b"},                   \
        {"key", 'k', "KEY", "only with this key"},                                                 \
        {"dispatcher", '\0', "NAME", "only what this dispatcher runs"},                            \
        {"min-age", '\0', "DURATION", "created at least so long ago: 30s, 5m, 2h, 7d"},            \
    {                                                                                              \
        "dry-run", 'n', NULL, "only count what matches"                                            \
    }

struct matching {
    struct mend_how how;
    const char *const *answers; /* every answer there is; the first is what is wanted; NULL ends */
    const char *past;           /* "cancelled", for --dry-run */
};

/* Whether the command line says which jobs by what they are; else it gives ids. */
bool matching_is_asked(const struct cmd_args *args);
/* Does it to all that match, and prints how many got which answer. Returns the exit code: 75 if
 * how.pending was still the answer for any at the end of how.timeout_ms. */
int matching_run(const struct cmd_args *args, const struct matching *m);

#endif
