/* jobline.h - one line of `outbox enqueue --file`: a job as a JSON object, the element of
 * outbox.enqueue_many's `jobs`. Pure: what only the server can judge (times, intervals, sizes) is
 * left to it.
 *
 * The names and their types are those of outbox.check_job in sql/functions_many.sql: change
 * both, and docs/cli.md. */
#ifndef OB_CMD_JOBLINE_H
#define OB_CMD_JOBLINE_H

#include "base/buf.h"
#include "db/admin.h"

enum { JOBLINE_ERROR_SIZE = 512, JOBLINE_BYTES_MAX = 17 * 1024 * 1024 };

/* What the command line says of every line that does not say it itself: members as JSON, each with
 * its comma behind it. */
struct jobline_defaults {
    struct buf members; /* all but the next; the job's task first, if there is one */
    struct buf time;    /* "delay" or "run_at": not for a line that has either */
    bool has_task;
};
/* From the fields of *job, its payload excepted. jobline_defaults_deinit in any case. */
int jobline_defaults_init(struct jobline_defaults *d, const struct admin_job *job) OB_MUST_CHECK;
void jobline_defaults_deinit(struct jobline_defaults *d);

/* 0 if the text is a job as far as can be told without the server. Else OB_ESYNTAX, and *reterr
 * says what is wrong and what was expected. On success the object with the defaults is appended to
 * out, on one line; see out->err. */
int jobline_append(const char *text, size_t len, const struct jobline_defaults *d, struct buf *out,
                   char reterr[JOBLINE_ERROR_SIZE]) OB_MUST_CHECK;

/* Nothing but blanks. */
bool jobline_is_blank(const char *text, size_t len);

#endif
