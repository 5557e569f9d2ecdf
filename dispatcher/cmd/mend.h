/* mend.h - cancel and retry: asking for many ids, telling each answer. */
#ifndef OB_CMD_MEND_H
#define OB_CMD_MEND_H

#include "cmd/cmd.h"
#include "db/admin.h"

/* Does `verb` to every id of the command line and prints a line (or JSON) for each. Returns the
 * exit code: 1 if is_failure() is true of any answer. */
int mend_operands(const struct cmd_args *args, enum admin_verb verb,
                  bool (*is_failure)(const char *answer),
                  const char *(*explain)(const char *answer));

#endif
