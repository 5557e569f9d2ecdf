/* command_args.h - what a command is started with: arguments, environment, standard input.
 *
 * The rules are those of docs/handlers-commands.md: change both. Nothing of a job's becomes a name
 * of a variable, a program or part of a shell's text. */
#ifndef OB_EXEC_COMMAND_ARGS_H
#define OB_EXEC_COMMAND_ARGS_H

#include "base/buf.h"
#include "base/err.h"
#include "core/handler.h"

/* A NULL-terminated list of strings that is built again and again in the same memory. */
struct strvec {
    struct buf text;
    size_t *starts; /* of the items in text, which may move while it grows */
    char **items;   /* valid after a successful build */
    size_t count;
    size_t cap;
};

void strvec_init(struct strvec *v);
void strvec_deinit(struct strvec *v);

/* All return 0, OB_ETOOBIG (over SPAWN_REQUEST_MAX) or OB_ENOMEM. */
int command_build_argv(const struct run *run, struct strvec *v) OB_MUST_CHECK;
int command_build_env(const struct run *run, struct strvec *v) OB_MUST_CHECK;
/* The same for a worker: without the variables that belong to a job. */
int command_build_worker_env(const struct task_config *task, struct strvec *v) OB_MUST_CHECK;

/* *ret_fd: a sealed file in memory with the bytes, to be read from its beginning; -1 if there are
 * none. Returns 0 or a negative errno. */
int command_open_stdin(const void *bytes, size_t len, int *ret_fd) OB_MUST_CHECK;

#endif
