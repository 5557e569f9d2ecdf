/* seen.c - see seen.h. */
#include "db/seen.h"

#include <jansson.h>

#include "base/mem.h"

static json_int_t integer(const json_t *object, const char *key, json_int_t otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static bool parse_xids(const json_t *object, const char *key, struct seen_xids *out)
{
    const json_t *array = json_object_get(object, key);
    size_t n = json_array_size(array); /* 0 when absent */
    out->items = ob_calloc(n + 1, sizeof *out->items);
    if (out->items == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value))
            return false;
        out->items[out->count++] = (uint64_t)json_integer_value(value);
    }
    return true;
}

/* Rows of [lane, xid, id] or, without lanes, [xid, id]. */
static bool parse_rows(const json_t *object, const char *key, bool has_lane, struct seen_rows *out)
{
    const json_t *array = json_object_get(object, key);
    size_t n = json_array_size(array);
    out->items = ob_calloc(n + 1, sizeof *out->items);
    if (out->items == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        struct seen_row *row = &out->items[out->count++];
        size_t at = has_lane ? 1 : 0;
        if (json_array_size(value) != at + 2)
            return false;
        if (has_lane)
            row->lane = (int)json_integer_value(json_array_get(value, 0));
        row->xid = (uint64_t)json_integer_value(json_array_get(value, at));
        row->id = json_integer_value(json_array_get(value, at + 1));
    }
    return true;
}

static bool parse(const json_t *o, struct seen *s)
{
    s->position_xid = (uint64_t)integer(o, "position", -1);
    s->position_id = integer(o, "position_id", -1);
    s->cut = (uint64_t)integer(o, "cut", 0);
    s->xmax = (uint64_t)integer(o, "xmax", 0);
    s->xid = (uint64_t)integer(o, "xid", 0);
    s->oldest = (uint64_t)integer(o, "oldest", 0);
    s->newest = (uint64_t)integer(o, "newest", 0);
    s->is_full = json_is_true(json_object_get(o, "full"));
    s->is_done = json_is_true(json_object_get(o, "done"));
    s->now_us = integer(o, "now", 0);
    s->next_due_us = integer(o, "next_due", INT64_MAX);
    return s->position_xid != UINT64_MAX && parse_xids(o, "running", &s->running) &&
           parse_xids(o, "pending", &s->pending) && parse_xids(o, "ended", &s->ended) &&
           parse_xids(o, "missed", &s->missed) && parse_xids(o, "held", &s->held) &&
           parse_rows(o, "partial", false, &s->partial) &&
           parse_rows(o, "blocked", true, &s->blocked) && parse_rows(o, "lanes", true, &s->lanes) &&
           parse_rows(o, "walked", true, &s->walked);
}

struct seen *seen_parse(const char *json, size_t len)
{
    json_t *root = json_loadb(json, len, 0, NULL);
    struct seen *s = ob_calloc(1, sizeof *s);
    if (s != NULL && !(json_is_object(root) && parse(root, s))) {
        seen_free(s);
        s = NULL;
    }
    json_decref(root);
    return s;
}

void seen_free(struct seen *s)
{
    if (s == NULL)
        return;
    ob_free(s->running.items);
    ob_free(s->pending.items);
    ob_free(s->ended.items);
    ob_free(s->missed.items);
    ob_free(s->held.items);
    ob_free(s->partial.items);
    ob_free(s->blocked.items);
    ob_free(s->lanes.items);
    ob_free(s->walked.items);
    ob_free(s);
}
