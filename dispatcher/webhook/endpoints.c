/* endpoints.c - see endpoints.h. */
#include "webhook/endpoints.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

/* Where the name is, or would be. */
static size_t place_of(const struct endpoints *all, const char *name)
{
    size_t low = 0;
    size_t high = all->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(all->items[mid]->name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct endpoint_entry *endpoints_find(struct endpoints *all, const char *url)
{
    char name[ENDPOINT_NAME_SIZE];
    endpoint_name(url, name);
    size_t at = place_of(all, name);
    if (at < all->count && strcmp(all->items[at]->name, name) == 0)
        return all->items[at];
    struct endpoint_entry **items = ob_realloc(all->items, (all->count + 1) * sizeof *items);
    if (items == NULL)
        return NULL;
    all->items = items;
    struct endpoint_entry *e = ob_calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    endpoint_init(&e->endpoint);
    memcpy(e->name, name, sizeof name);
    memmove(&items[at + 1], &items[at], (all->count - at) * sizeof *items);
    items[at] = e;
    all->count++;
    return e;
}

static bool is_named(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->tasks_count; i++) {
        char of_task[ENDPOINT_NAME_SIZE];
        if (c->tasks[i].kind != HANDLER_WEBHOOK)
            continue;
        endpoint_name(c->tasks[i].webhook.url, of_task);
        if (strcmp(of_task, name) == 0)
            return true;
    }
    return false;
}

void endpoints_prune(struct endpoints *all, const struct config *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct endpoint_entry *e = all->items[i];
        if (e->running > 0 || is_named(c, e->name))
            all->items[kept++] = e;
        else
            ob_free(e);
    }
    all->count = kept;
}

void endpoints_deinit(struct endpoints *all)
{
    for (size_t i = 0; i < all->count; i++) {
        ob_assert(all->items[i]->running == 0);
        ob_free(all->items[i]);
    }
    ob_free(all->items);
    *all = (struct endpoints){0};
}
