/* command.h - the shell and exec handlers: a process a job. docs/handlers.md has the rules. */
#ifndef OB_EXEC_COMMAND_H
#define OB_EXEC_COMMAND_H

#include "core/handler.h"
#include "exec/spawn_client.h"

/* An executor for HANDLER_SHELL and HANDLER_EXEC tasks. Borrows the client, which outlives it. */
int command_executor_new(uv_loop_t *loop, struct spawn_client *client,
                         struct executor **ret_executor) OB_MUST_CHECK;

#endif
