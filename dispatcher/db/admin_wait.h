/* admin_wait.h - waiting for the end of jobs, for `outbox wait`: outbox/consumer.h does it. */
#ifndef OB_DB_ADMIN_WAIT_H
#define OB_DB_ADMIN_WAIT_H

#include "db/admin.h"

enum { ADMIN_WAIT_FOR_EVER = -1 };

struct admin_wait {
    const int64_t *ids;
    size_t count;
    int64_t timeout_ms; /* 0: one look */
    /* After each look: how many have not ended. May be NULL. */
    void (*on_look)(void *arg, size_t left);
    void *arg;
};

/* Waits until all have ended or the time is up; names: room for so many, written with the state of
 * each: "live" (not ended), "done", "dead", "cancelled", "merged", "gone" or "unknown", static
 * storage. An id that was never given out (unknown) ends the wait at once. */
int admin_wait(struct admin *a, const struct admin_wait *wait, const char **names,
               struct admin_error *reterr) OB_MUST_CHECK;

#endif
