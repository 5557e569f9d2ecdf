/* peers.h - watching the other dispatchers, and taking over from those that died.
 *
 * Dead means: the same beat counter seen unchanged for a whole lease (theirs) on our own monotonic
 * clock, over one unbroken connection. Clock steps, failovers and outages therefore expire nobody
 * wrongly. Pure but for memory: the session asks, sends and logs. */
#ifndef OB_CORE_PEERS_H
#define OB_CORE_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer {
    int64_t id;
    int64_t beat;
    uint64_t since_ms; /* when this beat was first seen */
    uint64_t lease_ms;
    bool seen; /* in the newest list */
};

struct peers {
    struct peer *items;
    size_t count;
    size_t cap;
};

void peers_init(struct peers *p);
void peers_deinit(struct peers *p);
/* The connection broke: what was seen proves nothing any more. */
void peers_forget(struct peers *p);
/* Before a new list: marks everybody unseen. After it: drops those that were not in it. */
void peers_begin(struct peers *p);
void peers_end(struct peers *p);
/* One row of a list that was asked for at asked_ms and came at now_ms. True if that dispatcher's
 * lease is over: its beat was the same at a moment when it was first seen and no earlier than
 * asked_ms, which is a whole lease later. The answer may have lain in a socket while we were
 * stopped. */
bool peers_observe(struct peers *p, int64_t id, int64_t beat, uint64_t lease_ms, uint64_t asked_ms,
                   uint64_t now_ms);

#endif
