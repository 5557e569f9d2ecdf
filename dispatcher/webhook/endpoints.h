/* endpoints.h - the endpoints of all webhook tasks, each with its holds. In memory: another
 * dispatcher, or this one after a restart, learns for itself. Used by http.c. */
#ifndef OB_WEBHOOK_ENDPOINTS_H
#define OB_WEBHOOK_ENDPOINTS_H

#include <stddef.h>

#include "webhook/endpoint.h"

struct endpoint_entry {
    struct endpoint endpoint;
    unsigned running; /* requests under way: it stays */
    char name[ENDPOINT_NAME_SIZE];
};

struct endpoints {
    struct endpoint_entry **items; /* sorted by name */
    size_t count;
};

/* NULL: no memory. Lives until endpoints_prune. */
struct endpoint_entry *endpoints_find(struct endpoints *all, const char *url);
/* Forgets those that no task of c names and no request uses. */
void endpoints_prune(struct endpoints *all, const struct config *c);
void endpoints_deinit(struct endpoints *all);

#endif
