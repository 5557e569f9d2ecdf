/* mend.h - cancel, requeue and retry: asking for many ids, telling each answer. */
#ifndef OB_CMD_MEND_H
#define OB_CMD_MEND_H

#include "cmd/cmd.h"
#include "db/admin.h"

struct mend_how {
    enum admin_verb verb;
    bool (*is_failure)(const char *answer);
    const char *(*explain)(const char *answer);
    const char *pending; /* an answer that is not the last: asked again until it is another one.
                          * NULL: every answer is the last */
    const char *gone;    /* what "not found" means of a job whose answer was pending */
    uint64_t timeout_ms; /* 0: as long as it takes */
};

/* Does it to every id of the command line and prints a line (or JSON) for each. Returns the exit
 * code: 1 if is_failure() is true of any answer, else 75 if one is pending still. */
int mend_operands(const struct cmd_args *args, const struct mend_how *how);

void mend_pause(uint64_t ms);

#endif
