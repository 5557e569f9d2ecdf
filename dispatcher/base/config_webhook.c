/* config_webhook.c - the webhook keys whose values have keys of their own, or a form of their own
 * (secrets, breaker, rate), and what a webhook's keys mean together. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/config_private.h"
#include "base/mem.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(a)[0])

enum { SECRETS_MAX = 10, MEMBERS_MAX = 8 };
#define MS_DAY (UINT64_C(86400) * 1000)

/* --- a map with keys of its own --- */

/* Reads the map's keys into base; lines[] remembers which were given. False: it is no map. */
static bool read_members(struct loader *l, const char *name, const yaml_node_t *node,
                         const struct key *keys, size_t count, const char *expected, void *base,
                         size_t lines[MEMBERS_MAX])
{
    if (node->type != YAML_MAPPING_NODE) {
        loader_error(l, node_line(node), expected, "%s is not a map", name);
        return false;
    }
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key_node = node_at(l, pair->key);
        yaml_node_t *value = node_at(l, pair->value);
        char shown[QUOTED_SIZE];
        char suggestion[SUGGESTION_SIZE];
        const char *member = node_text(l, key_node, name, expected);
        if (member == NULL)
            continue;
        const struct key *k = find_key(keys, count, member);
        if (k == NULL)
            loader_error(l, node_line(key_node), NULL, "unknown key %s in %s%s",
                         quoted(member, shown), name,
                         suggest_key(keys, count, KIND(HANDLER_WEBHOOK), member, suggestion));
        else if (lines[k - keys] > 0)
            loader_error(l, node_line(key_node), NULL, "%s is given twice, first in line %zu",
                         member, lines[k - keys]);
        else if (node_is_null(value))
            loader_error(l, node_line(key_node), NULL, "%s has no value", member);
        else
            k->type->read(l, k, value, (char *)base + k->offset);
        if (k != NULL)
            lines[k - keys] = node_line(key_node);
    }
    return true;
}

/* --- a point in time --- */

static void read_time(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    static const char expected[] = "a time in UTC such as 2026-12-31T12:00:00Z, or a date";
    const char *text = node_text(l, node, k->name, expected);
    char shown[QUOTED_SIZE];
    if (text != NULL && clock_parse_utc(text, target) != 0)
        loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
}

static void print_time(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    char text[CLOCK_RFC3339_SIZE];
    int64_t us = *(const int64_t *)value;
    if (us == INT64_MAX)
        return;
    clock_rfc3339(us, 0, text);
    print_key(indent, k->name, out);
    print_scalar(text, out);
    buf_putc(out, '\n');
}

static const struct key_type type_time = {read_time, print_time};

/* --- secrets --- */

#define SECRET(member) offsetof(struct webhook_secret, member)
static const struct key secret_keys[] = {
    {"file", &type_string, SECRET(file), KIND(HANDLER_WEBHOOK), .check = check_absolute},
    {"env", &type_string, SECRET(env), KIND(HANDLER_WEBHOOK), .check = check_env_name},
    {"not_after", &type_time, SECRET(not_after_us), KIND(HANDLER_WEBHOOK), .min = 0},
};
static const char secrets_expected[] =
    "a list, the current secret first, such as [{file: /etc/outbox/new.secret}, {file: "
    "/etc/outbox/old.secret, not_after: 2026-12-31}]";

void secrets_free(struct webhook_secrets *s)
{
    for (size_t i = 0; i < s->count; i++) {
        ob_free(s->items[i].file);
        ob_free(s->items[i].env);
    }
    ob_free(s->items);
    *s = (struct webhook_secrets){0};
}

static void read_secret(struct loader *l, const yaml_node_t *node, struct webhook_secret *secret)
{
    size_t lines[MEMBERS_MAX] = {0};
    unsigned before = l->errors;
    secret->not_after_us = INT64_MAX;
    if (!read_members(l, "a secret", node, secret_keys, ARRAY_SIZE(secret_keys), secrets_expected,
                      secret, lines))
        return;
    if (l->errors == before && (secret->file != NULL) == (secret->env != NULL))
        loader_error(l, node_line(node), "exactly one of file and env", "bad secret");
}

static void read_secrets(struct loader *l, const struct key *k, const yaml_node_t *node,
                         void *target)
{
    struct webhook_secrets list = {0};
    bool is_list = node->type == YAML_SEQUENCE_NODE;
    size_t n =
        is_list ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start) : 0;
    if (n < 1 || n > SECRETS_MAX) {
        loader_error(l, node_line(node), secrets_expected, "%s is %s", k->name,
                     !is_list ? "not a list"
                     : n == 0 ? "empty"
                              : "a list of more than 10");
        return;
    }
    list.items = ob_calloc(n, sizeof *list.items);
    if (list.items == NULL) {
        l->no_memory = true;
        return;
    }
    bool has_one_that_stays = false;
    for (; list.count < n; list.count++) {
        struct webhook_secret *secret = &list.items[list.count];
        read_secret(l, node_at(l, node->data.sequence.items.start[list.count]), secret);
        has_one_that_stays = has_one_that_stays || secret->not_after_us == INT64_MAX;
    }
    if (!has_one_that_stays)
        loader_error(
            l, node_line(node), NULL,
            "each of the secrets has a not_after: after the last, nothing could be signed");
    secrets_free(target);
    *(struct webhook_secrets *)target = list;
}

static void print_secrets(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const struct webhook_secrets *list = value;
    if (list->count > 0)
        buf_printf(out, "%*s%s:\n", (int)indent, "", k->name);
    for (size_t i = 0; i < list->count; i++) {
        buf_printf(out, "%*s-\n", (int)indent + 2, "");
        for (size_t m = 0; m < ARRAY_SIZE(secret_keys); m++)
            secret_keys[m].type->print(&secret_keys[m],
                                       (const char *)&list->items[i] + secret_keys[m].offset,
                                       indent + 4, out);
    }
}

const struct key_type type_secrets = {read_secrets, print_secrets};

/* --- breaker --- */

#define BREAKER(member) offsetof(struct breaker_config, member)
static const struct key breaker_keys[] = {
    {"window", &type_duration, BREAKER(window_ms), KIND(HANDLER_WEBHOOK), .min = 1000,
     .max = MS_DAY},
    {"min", &type_count, BREAKER(min), KIND(HANDLER_WEBHOOK), .min = 1, .max = 1000000},
    {"failure", &type_jitter, BREAKER(failure_permille), KIND(HANDLER_WEBHOOK), .min = 0},
    {"open", &type_duration, BREAKER(open_ms), KIND(HANDLER_WEBHOOK), .min = 1, .max = MS_DAY},
    {"open_max", &type_duration, BREAKER(open_max_ms), KIND(HANDLER_WEBHOOK), .min = 1,
     .max = MS_DAY},
};

static void read_breaker(struct loader *l, const struct key *k, const yaml_node_t *node,
                         void *target)
{
    static const char expected[] =
        "off, or a map such as {window: 5m, min: 10, failure: 0.7, open: 30s, open_max: 10m}";
    struct breaker_config *b = target;
    size_t lines[MEMBERS_MAX] = {0};
    unsigned before = l->errors;
    if (node->type == YAML_SCALAR_NODE) {
        const char *text = node_text(l, node, k->name, expected);
        char shown[QUOTED_SIZE];
        if (text != NULL && strcmp(text, "off") != 0)
            loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
        b->is_on = false;
        return;
    }
    if (!read_members(l, k->name, node, breaker_keys, ARRAY_SIZE(breaker_keys), expected, b, lines))
        return;
    b->is_on = true;
    if (l->errors > before)
        return;
    if (b->failure_permille == 0)
        loader_error(l, node_line(node), "a fraction over 0", "bad failure '0'");
    else if (b->open_ms > b->open_max_ms)
        loader_error(l, node_line(node), NULL, "open is longer than open_max");
}

static void print_breaker(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const struct breaker_config *b = value;
    buf_printf(out, "%*s%s:%s\n", (int)indent, "", k->name, b->is_on ? "" : " off");
    for (size_t m = 0; b->is_on && m < ARRAY_SIZE(breaker_keys); m++)
        breaker_keys[m].type->print(&breaker_keys[m], (const char *)b + breaker_keys[m].offset,
                                    indent + 2, out);
}

const struct key_type type_breaker = {read_breaker, print_breaker};

/* --- rate --- */

static const struct {
    const char *name;
    uint64_t ms;
} rate_units[] = {{"/s", 1000}, {"/m", 60000}, {"/h", 3600000}, {"/d", MS_DAY}};

static void read_rate(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    static const char expected[] = "a number of requests in a time such as 10/s, 600/m or 5000/h, "
                                   "at most 10000 a second";
    struct rate_config *rate = target;
    const char *text = node_text(l, node, k->name, expected);
    char shown[QUOTED_SIZE];
    if (text == NULL)
        return;
    size_t digits = strspn(text, "0123456789");
    uint64_t count = 0;
    for (size_t i = 0; i < digits && digits <= 9; i++)
        count = count * 10 + (uint64_t)(text[i] - '0');
    for (size_t i = 0; i < ARRAY_SIZE(rate_units); i++) {
        if (count == 0 || strcmp(text + digits, rate_units[i].name) != 0 ||
            count > rate_units[i].ms * 10)
            continue;
        *rate = (struct rate_config){.count = (unsigned)count, .per_ms = rate_units[i].ms};
        return;
    }
    loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
}

static void print_rate(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const struct rate_config *rate = value;
    for (size_t i = 0; rate->count > 0 && i < ARRAY_SIZE(rate_units); i++) {
        if (rate_units[i].ms != rate->per_ms)
            continue;
        print_key(indent, k->name, out);
        buf_printf(out, "%u%s\n", rate->count, rate_units[i].name);
    }
}

const struct key_type type_rate = {read_rate, print_rate};

/* --- rules between keys --- */

void check_webhook(struct loader *l, const struct webhook_config *w, const size_t *lines)
{
    static const char *const sources[] = {"secret_file", "secret_env", "secrets"};
    size_t first = 0;
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
        size_t at = key_line(lines, sources[i]);
        if (at > 0 && first > 0)
            loader_error(l, at, "one of secret_file, secret_env and secrets",
                         "%s beside another source of secrets (line %zu)", sources[i], first);
        first = first > 0 ? first : at;
    }
    if (w->client_key != NULL && w->client_cert == NULL)
        loader_error(l, key_line(lines, "client_key"), NULL,
                     "client_key has no effect without client_cert");
    if (w->private_addresses == PRIVATE_DENY && w->proxy != NULL)
        loader_error(l, key_line(lines, "private_addresses"), NULL,
                     "private_addresses has no effect beside proxy (line %zu): the proxy connects, "
                     "and decides to what",
                     key_line(lines, "proxy"));
}
