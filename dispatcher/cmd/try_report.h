/* try_report.h - what `outbox try` says of a run that ended. */
#ifndef OB_CMD_TRY_REPORT_H
#define OB_CMD_TRY_REPORT_H

#include "cmd/cmd.h"
#include "core/handler.h"

enum { TRY_NEXT_SIZE = 256 };

/* What the dispatcher would do with the job now, in words. Pure. */
void try_next(const struct task_config *task, const struct job *job, const struct outcome *outcome,
              char ret_text[TRY_NEXT_SIZE]);

/* Prints it, with the output; as JSON with --json. Returns the exit code: 0 for done, else 1. */
int try_report(const struct cmd_args *args, const struct run *run, const struct outcome *outcome);

#endif
