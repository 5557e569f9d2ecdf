/* job.h - a claimed job, as every part of the dispatcher sees it. Vocabulary: includes base/ only.
 */
#ifndef OB_CORE_JOB_H
#define OB_CORE_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/payload.h"

/* A claimed job. Strings and bytes are views (into the batch's PGresult, or into try's arguments):
 * they live as long as the run. Not NUL-terminated: payload. */
struct job {
    int64_t id;
    int64_t claim;
    const char *task;
    int priority;
    const char *payload;
    size_t payload_len;
    enum payload_encoding encoding;
    const char *headers; /* JSON object, or NULL */
    const char *key;     /* NULL: none */
    int attempt;         /* from 1, this run included */
    int max_attempts;    /* the job's own or the task's */
    int lost;
    int64_t created_at_us;
};

enum { JOB_IDEMPOTENCY_KEY_SIZE = 48 };
/* "<id>-<created_at in us, base 36>": the webhook-id and OUTBOX_IDEMPOTENCY_KEY. */
void job_idempotency_key(const struct job *job, char ret_text[JOB_IDEMPOTENCY_KEY_SIZE]);
/* The traceparent of the job's headers, if it has one that is well-formed (W3C, 55 bytes), else "".
 */
enum { JOB_TRACEPARENT_SIZE = 56 };
void job_traceparent(const struct job *job, char ret_text[JOB_TRACEPARENT_SIZE]);

#endif
