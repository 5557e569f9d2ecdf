/* load.h - `outbox enqueue --file`: many jobs from newline-delimited JSON.
 *
 * The file is one transaction, or with --batch one for so many jobs. Lines are checked here (see
 * jobline.h) and go to the server in chunks; while it works on one, the next is read. Memory is
 * bounded by a few chunks, whatever the file's size. */
#ifndef OB_CMD_LOAD_H
#define OB_CMD_LOAD_H

#include "cmd/cmd.h"
#include "db/admin.h"

/* defaults: what lines have that do not say it themselves; its payload is not used. Returns the
 * exit code, everything having been said. */
int load_file(const struct cmd_args *args, const struct admin_job *defaults);

#endif
