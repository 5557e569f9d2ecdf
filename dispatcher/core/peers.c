/* peers.c - see peers.h. */
#include "core/peers.h"

#include <string.h>

#include "base/mem.h"

void peers_init(struct peers *p)
{
    memset(p, 0, sizeof *p);
}

void peers_deinit(struct peers *p)
{
    ob_free(p->items);
    peers_init(p);
}

void peers_forget(struct peers *p)
{
    p->count = 0;
}

void peers_begin(struct peers *p)
{
    for (size_t i = 0; i < p->count; i++)
        p->items[i].seen = false;
}

void peers_end(struct peers *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].seen)
            p->items[kept++] = p->items[i];
    }
    p->count = kept;
}

static struct peer *find(struct peers *p, int64_t id)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].id == id)
            return &p->items[i];
    }
    return NULL;
}

bool peers_observe(struct peers *p, int64_t id, int64_t beat, uint64_t lease_ms, uint64_t asked_ms,
                   uint64_t now_ms)
{
    struct peer *peer = find(p, id);
    if (peer == NULL) {
        if (p->count == p->cap) {
            p->cap = p->cap > 0 ? p->cap * 2 : 8;
            p->items = ob_xrealloc(p->items, p->cap * sizeof *p->items);
        }
        peer = &p->items[p->count++];
        *peer = (struct peer){.id = id, .beat = beat, .since_ms = now_ms};
    }
    if (peer->beat != beat) {
        peer->beat = beat;
        peer->since_ms = now_ms;
    }
    peer->lease_ms = lease_ms;
    peer->seen = true;
    return asked_ms >= peer->since_ms && asked_ms - peer->since_ms >= lease_ms;
}
