/* input.h - what several commands read from their command line: payloads, task names, lists. */
#ifndef OB_CMD_INPUT_H
#define OB_CMD_INPUT_H

#include "base/buf.h"
#include "cmd/cmd.h"

enum { PAYLOAD_BYTES_MAX = 16 * 1024 * 1024 };

/* The payload: the operand itself; standard input when the operand is "-", or when there is none
 * and something is piped in; "{}" otherwise. JSON is checked (line and column in the message), and
 * so is msgpack. 0, or an exit code after a message. out must be deinitialised in any case. */
int input_payload(const struct cmd_args *args, const char *operand, bool msgpack,
                  struct buf *out) OB_MUST_CHECK;

/* 0, or OB_EXIT_USAGE after a message. */
int input_check_task(const struct cmd_args *args, const char *task) OB_MUST_CHECK;

/* --header NAME=VALUE ... as a JSON object of strings in out; *ret is unchanged when there are
 * none. 0, or OB_EXIT_USAGE after a message. */
int input_headers(const struct cmd_args *args, struct buf *out, const char **ret) OB_MUST_CHECK;

/* Appends a text as an element of a PostgreSQL array literal: call with "{" before and "}" after.
 */
void input_array_element(struct buf *out, const char *text);
/* The values of a repeatable option, commas separating too, as an array literal; NULL when it was
 * not given. The memory is the buffer's. */
const char *input_array(const struct cmd_args *args, const char *option, struct buf *out);

struct admin_filter;
/* --error, --older-than and --newer-than of `outbox jobs` and `outbox retry` into the filter: 0, or
 * OB_EXIT_USAGE after a message. */
int input_ended(const struct cmd_args *args, struct admin_filter *filter) OB_MUST_CHECK;

#endif
