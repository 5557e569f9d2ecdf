/* list.h - an intrusive doubly linked list. A node is in at most one list; list_init makes a head
 * or a node that is in none. Nothing here allocates. */
#ifndef OB_BASE_LIST_H
#define OB_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

/* The struct of `type` that holds `node` as its member `member`. */
#define list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* For every node; the current one may be removed inside. */
#define list_for_each(node, tmp, head)                                                             \
    for (struct list *node = (head)->next, *tmp = node->next; node != (head);                      \
         node = tmp, tmp = node->next)

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Harmless for a node that is in no list. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* First node, removed; NULL if the list is empty. */
static inline struct list *list_pop(struct list *head)
{
    if (list_is_empty(head))
        return NULL;
    struct list *node = head->next;
    list_remove(node);
    return node;
}

#endif
