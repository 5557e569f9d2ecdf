/* walk.h - which backlogs a look walks, and what it learns of them.
 *
 * A lane's backlog is walked in the index of lanes: one descent a lane. Where many lanes of one
 * priority have free slots, the jobs that they wait for lie side by side in the stream, and one
 * walk there finds those of all. No I/O here. */
#ifndef OB_CORE_WALK_H
#define OB_CORE_WALK_H

#include "core/lane.h"
#include "db/store.h"

/* What a look is told of the lanes, and what is needed to understand its answer. */
struct lanes_asked {
    struct lanes *of;
    struct lane **lanes; /* by the index that the call has for the task */
    const char **tasks;
    int *slots;
    bool *shares;
    size_t count;
    int shared_slots;
    size_t slots_sum;
    int *codes; /* task index * 4 + priority - 1, of open backlogs with free slots */
    uint64_t *xids;
    int64_t *ids;
    int *limits; /* 0: not walked, or walked with others in the stream */
    size_t codes_count;
    bool apart;    /* what is walked takes no more slots than there are */
    int walk_rows; /* rows of the stream to read at most; 0: no lanes are walked together */
    uint64_t walk_xid;
    int64_t walk_id;
    int walk_priority;
    int *walk_slots; /* by task */
};
/* may_claim false: as if no slot were free. Freed with lanes_asked_free. */
struct lanes_asked *lanes_ask(struct lanes *l, bool may_claim, uint64_t now_ms);
void lanes_asked_free(struct lanes_asked *a); /* NULL is fine */
/* False if the server answered something that was not asked for. */
bool lanes_learn(const struct lanes_asked *a, const struct seen *seen, const struct batch *claimed);

#endif
