/* grant.h - the GRANTs that a role needs: what `outbox grant` prints. Called by cmd/grant.c;
 * connects to nothing. Roles are made by the DBA; docs/dba.md has the steps. */
#ifndef OB_DB_GRANT_H
#define OB_DB_GRANT_H

#include <stdio.h>

#include "base/err.h"

enum grant_kind {
    GRANT_PRODUCER,   /* enqueue and wake; reads nothing */
    GRANT_DISPATCHER, /* what `outbox run`, a pull consumer, cancel and retry need; enqueues nothing
                       */
    GRANT_READER      /* the views; no payloads */
};

/* Writes the statements for a role, fit for psql, as one transaction; repeating them is harmless.
 * role is taken as it is (case matters) and quoted. OB_EINVAL: an empty role, one of more than 63
 * bytes or with a line break; a negative errno: writing failed. */
int grant_print(FILE *out, enum grant_kind kind, const char *role) OB_MUST_CHECK;

#endif
