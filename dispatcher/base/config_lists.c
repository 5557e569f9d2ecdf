/* config_lists.c - reading and printing the values that are lists and maps: programs with
 * arguments, variables, headers, exit codes, delays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config_private.h"
#include "base/mem.h"

/* --- lists --- */

/* How many items the list has; -1 after a message. */
static long list_length(struct loader *l, const struct key *k, const yaml_node_t *node,
                        const char *expected)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        loader_error(l, node_line(node), expected, "%s is not a list", k->name);
        return -1;
    }
    long n = node->data.sequence.items.top - node->data.sequence.items.start;
    if (n <= CONFIG_LIST_MAX)
        return n;
    loader_error(l, node_line(node), NULL, "%s has more than %d items", k->name, CONFIG_LIST_MAX);
    return -1;
}

static yaml_node_t *list_item(struct loader *l, const yaml_node_t *node, long i)
{
    return node_at(l, node->data.sequence.items.start[i]);
}

static void read_list(struct loader *l, const struct key *k, const yaml_node_t *node,
                      struct strings *target, const char *expected,
                      const char *(*check)(size_t i, const char *text))
{
    long n = list_length(l, k, node, expected);
    if (n < 0)
        return;
    struct strings list = {0};
    for (long i = 0; i < n; i++) {
        yaml_node_t *item = list_item(l, node, i);
        const char *text = node_text(l, item, k->name, expected);
        if (text == NULL)
            continue;
        const char *wanted = check((size_t)i, text);
        char shown[QUOTED_SIZE];
        if (wanted != NULL) {
            loader_error(l, node_line(item), wanted, "bad item %s in %s", quoted(text, shown),
                         k->name);
            continue;
        }
        if (!strings_append(l, &list, loader_strdup(l, text)))
            break;
    }
    strings_free(target);
    *target = list;
}

static const char *check_env_pass_item(size_t i, const char *text)
{
    (void)i;
    return check_env_pass_name(text);
}

static const char *check_argv_item(size_t i, const char *text)
{
    return i == 0 ? check_program(text) : check_argument(text);
}

static void read_strings(struct loader *l, const struct key *k, const yaml_node_t *node,
                         void *target)
{
    read_list(l, k, node, target, "a list of names such as [PATH, LANG]", check_env_pass_item);
}

static void read_argv(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    static const char expected[] = "a list of program and arguments such as [/bin/cp, -p, a, b]";
    unsigned before = l->errors;
    read_list(l, k, node, target, expected, check_argv_item);
    if (l->errors == before && ((struct strings *)target)->count == 0)
        loader_error(l, node_line(node), expected, "%s is empty", k->name);
}

static void print_strings(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const struct strings *list = value;
    print_key(indent, k->name, out);
    buf_putc(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        buf_puts(out, i > 0 ? ", " : "");
        print_scalar(list->items[i], out);
    }
    buf_puts(out, "]\n");
}

const struct key_type type_strings = {read_strings, print_strings};
const struct key_type type_argv = {read_argv, print_strings};

static void read_exit_codes(struct loader *l, const struct key *k, const yaml_node_t *node,
                            void *target)
{
    static const char expected[] = "a list of exit codes from 1 to 255 such as [65, 100]";
    uint8_t *bits = target;
    long n = list_length(l, k, node, expected);
    if (n < 0)
        return;
    memset(bits, 0, sizeof((struct command_config *)0)->dead_exit);
    for (long i = 0; i < n; i++) {
        yaml_node_t *item = list_item(l, node, i);
        const char *text = node_text(l, item, k->name, expected);
        if (text == NULL)
            continue;
        size_t digits = strspn(text, "0123456789");
        long code = strtol(text, NULL, 10);
        char shown[QUOTED_SIZE];
        if (digits == 0 || digits > 3 || text[digits] != '\0' || code < 1 || code > 255)
            loader_error(l, node_line(item), expected, "bad item %s in %s", quoted(text, shown),
                         k->name);
        else
            bits[code / 8] = (uint8_t)(bits[code / 8] | 1U << (code % 8));
    }
}

static void print_exit_codes(const struct key *k, const void *value, unsigned indent,
                             struct buf *out)
{
    const uint8_t *bits = value;
    const char *separator = "";
    print_key(indent, k->name, out);
    buf_putc(out, '[');
    for (unsigned code = 1; code < 256; code++) {
        if ((bits[code / 8] >> (code % 8) & 1) == 0)
            continue;
        buf_printf(out, "%s%u", separator, code);
        separator = ", ";
    }
    buf_puts(out, "]\n");
}

const struct key_type type_exit_codes = {read_exit_codes, print_exit_codes};

static void read_schedule(struct loader *l, const struct key *k, const yaml_node_t *node,
                          void *target)
{
    static const char expected[] = "a list of delays such as [10s, 1m, 10m]";
    struct backoff_config *backoff = target;
    long n = list_length(l, k, node, expected);
    if (n < 0)
        return;
    if (n == 0) {
        loader_error(l, node_line(node), expected, "%s is empty", k->name);
        return;
    }
    uint64_t *delays = ob_calloc((size_t)n, sizeof *delays);
    if (delays == NULL) {
        l->no_memory = true;
        return;
    }
    for (long i = 0; i < n; i++) {
        yaml_node_t *item = list_item(l, node, i);
        type_duration.read(l, k, item, &delays[i]);
    }
    ob_free(backoff->schedule_ms);
    backoff->schedule_ms = delays;
    backoff->schedule_count = (size_t)n;
}

static void print_schedule(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const struct backoff_config *backoff = value;
    if (backoff->schedule_ms == NULL)
        return;
    print_key(indent, k->name, out);
    for (size_t i = 0; i < backoff->schedule_count; i++) {
        char text[32];
        format_duration(backoff->schedule_ms[i], text);
        buf_printf(out, "%s%s", i > 0 ? ", " : "[", text);
    }
    buf_puts(out, "]\n");
}

const struct key_type type_schedule = {read_schedule, print_schedule};

/* --- maps of names to texts, kept as "name<separator>value" --- */

struct map_rules {
    const char *separator;
    const char *expected;
    const char *(*check_name)(const char *name);
    const char *(*check_value)(const char *text);
    int (*compare)(const char *a, const char *b, size_t n);
};

static const char *anything(const char *text)
{
    (void)text;
    return NULL;
}

static const struct map_rules env_rules = {"=", "a map of variables such as {LANG: C.UTF-8}",
                                           check_env_name, anything, strncmp};
static const struct map_rules header_rules = {": ", "a map of headers such as {X-Source: shop}",
                                              check_header_name, check_header_value, strncasecmp};

/* True after a message if the list has the name already. */
static bool is_repeated(struct loader *l, const struct map_rules *rules, const struct strings *list,
                        const yaml_node_t *node, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < list->count; i++) {
        if (rules->compare(list->items[i], name, n) != 0 ||
            strncmp(list->items[i] + n, rules->separator, strlen(rules->separator)) != 0)
            continue;
        char shown[QUOTED_SIZE];
        loader_error(l, node_line(node), NULL, "%s is given twice", quoted(name, shown));
        return true;
    }
    return false;
}

static void read_pair(struct loader *l, const struct key *k, const struct map_rules *rules,
                      const yaml_node_pair_t *pair, struct strings *list)
{
    yaml_node_t *name_node = node_at(l, pair->key);
    yaml_node_t *value_node = node_at(l, pair->value);
    const char *name = node_text(l, name_node, k->name, rules->expected);
    if (name == NULL)
        return;
    char shown[QUOTED_SIZE];
    const char *expected = rules->check_name(name);
    if (expected != NULL) {
        loader_error(l, node_line(name_node), expected, "bad name %s in %s", quoted(name, shown),
                     k->name);
        return;
    }
    const char *value = node_text(l, value_node, name, "a text, in quotes if it is empty");
    if (value == NULL || is_repeated(l, rules, list, name_node, name))
        return;
    expected = rules->check_value(value);
    if (expected != NULL) { /* the value may be a secret: not shown */
        loader_error(l, node_line(value_node), expected, "bad value of %s in %s",
                     quoted(name, shown), k->name);
        return;
    }
    size_t size = strlen(name) + strlen(rules->separator) + strlen(value) + 1;
    char *text = ob_calloc(size, 1);
    if (text == NULL) {
        l->no_memory = true;
        return;
    }
    (void)snprintf(text, size, "%s%s%s", name, rules->separator, value);
    char *copy = loader_strdup(l, text); /* counts it */
    ob_free(text);
    (void)strings_append(l, list, copy); /* a failure is in l */
}

static void read_map(struct loader *l, const struct key *k, const yaml_node_t *node,
                     struct strings *target, const struct map_rules *rules)
{
    if (node->type != YAML_MAPPING_NODE) {
        loader_error(l, node_line(node), rules->expected, "%s is not a map", k->name);
        return;
    }
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    if (node->data.mapping.pairs.top - pair > CONFIG_LIST_MAX) {
        loader_error(l, node_line(node), NULL, "%s has more than %d entries", k->name,
                     CONFIG_LIST_MAX);
        return;
    }
    strings_free(target);
    for (; pair < node->data.mapping.pairs.top; pair++)
        read_pair(l, k, rules, pair, target);
}

static void print_map(const struct key *k, const struct strings *list, const char *separator,
                      unsigned indent, struct buf *out)
{
    if (list->count == 0)
        return;
    buf_printf(out, "%*s%s:\n", (int)indent, "", k->name);
    for (size_t i = 0; i < list->count; i++) {
        const char *value = strstr(list->items[i], separator);
        char name[257];
        (void)snprintf(name, sizeof name, "%.*s", (int)(value - list->items[i]), list->items[i]);
        buf_printf(out, "%*s", (int)indent + 2, "");
        print_scalar(name, out);
        buf_puts(out, ": ");
        print_scalar(sounds_secret(name) ? "***" : value + strlen(separator), out);
        buf_putc(out, '\n');
    }
}

static void read_env(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    read_map(l, k, node, target, &env_rules);
}

static void print_env(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_map(k, value, env_rules.separator, indent, out);
}

static void read_headers(struct loader *l, const struct key *k, const yaml_node_t *node,
                         void *target)
{
    read_map(l, k, node, target, &header_rules);
}

static void print_headers(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_map(k, value, header_rules.separator, indent, out);
}

const struct key_type type_env = {read_env, print_env};
const struct key_type type_headers = {read_headers, print_headers};
