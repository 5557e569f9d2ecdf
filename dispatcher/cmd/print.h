/* print.h - a job on the screen and in JSON: shared by jobs and show. */
#ifndef OB_CMD_PRINT_H
#define OB_CMD_PRINT_H

#include "base/clock.h"
#include "cmd/jout.h"
#include "db/admin.h"

/* The members of a job, into an object that is open. */
void print_job_json(struct jout *j, const struct admin_rows *rows, size_t row);

/* A span in milliseconds for people: "3m 20s"; "-" for a negative one. */
const char *print_span(int64_t ms, char text[CLOCK_DURATION_SIZE]);

/* A text column as a JSON number, or null. */
void print_number(struct jout *j, const char *key, const struct admin_rows *rows, size_t row,
                  int column);

/* A command's output or a response, from its head and tail, as indented lines: control characters
 * are made visible, and what was left out between the two (of total bytes) is said. NULL and 0:
 * none. */
void print_output(const char *head, size_t head_len, const char *tail, size_t tail_len,
                  uint64_t total);

#endif
