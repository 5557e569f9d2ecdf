/* seen.h - what a look saw: the state row of outbox.look(), and the answer of outbox.sweep().
 *
 * A lane is (index of the task in the call) * 4 + priority - 1. Transaction ids are 64 bits. */
#ifndef OB_DB_SEEN_H
#define OB_DB_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seen_row { /* a place in the stream; of a lane, where there is one */
    int lane;
    uint64_t xid;
    int64_t id;
};

struct seen_xids {
    uint64_t *items;
    size_t count;
};

struct seen_rows {
    struct seen_row *items;
    size_t count;
};

struct seen { /* as documented at outbox.look() */
    uint64_t position_xid;
    int64_t position_id;
    uint64_t cut;
    uint64_t xmax;
    uint64_t xid; /* 0: the turn had none */
    bool is_full;
    bool is_done;        /* of a sweep */
    int64_t now_us;      /* the server's clock, since 1970 */
    int64_t next_due_us; /* INT64_MAX: nothing is scheduled */
    struct seen_xids running;
    struct seen_xids pending;
    struct seen_xids ended;
    struct seen_xids missed; /* ids of jobs, not transactions */
    struct seen_xids held;   /* likewise */
    uint64_t oldest;         /* 0: not known */
    uint64_t newest;
    struct seen_rows partial;
    struct seen_rows blocked;
    struct seen_rows lanes;
    struct seen_rows walked; /* one, or none; `lane` is how many rows were wanted */
};

/* NULL: not such a text, or no memory. Freed with seen_free. */
struct seen *seen_parse(const char *json, size_t len);
void seen_free(struct seen *s); /* NULL is fine */

#endif
