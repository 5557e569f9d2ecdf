/* batch.h - what one look brought: jobs as views into its PGresult, which lives until the last of
 * them is let go. */
#ifndef OB_DB_BATCH_H
#define OB_DB_BATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/job.h"

typedef struct pg_result PGresult; /* as libpq-fe.h has it */

struct claimed { /* one row of outbox.look() */
    struct job job;
    int payload_size; /* job.payload is NULL when it was too large to come with the claim */
    bool expired;     /* expires_at has passed */
};

struct batch {
    PGresult *result;
    size_t refs;
    const char *state; /* the look's account of itself, as JSON; a view */
    size_t state_len;
    size_t count;
    struct claimed jobs[]; /* by priority, then by id */
};

/* Takes the result of outbox.look() (binary format). NULL: a row is not as expected, or no memory;
 * the result is then cleared. The caller holds the one reference. */
struct batch *batch_parse_take(PGresult *result);
struct batch *batch_ref(struct batch *b);
void batch_unref(struct batch *b); /* NULL is fine */

#endif
