/* config_types.c - reading and printing a value of each type. What a value may be is in the key's
 * entry (min, max, words, check); what is said when it is not, here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_private.h"
#include "base/mem.h"

/* --- single texts --- */

/* The text of a scalar that passes the key's check, or NULL after a message. */
static const char *checked_text(struct loader *l, const struct key *k, const yaml_node_t *node)
{
    const char *text = node_text(l, node, k->name, "a text");
    if (text == NULL || k->check == NULL)
        return text;
    const char *expected = k->check(text);
    if (expected == NULL)
        return text;
    char shown[QUOTED_SIZE];
    bool may_hold_password = k->check == check_url && strchr(text, '@') != NULL;
    if (may_hold_password)
        loader_error(l, node_line(node), expected, "bad %s", k->name);
    else
        loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
    return NULL;
}

static void read_string(struct loader *l, const struct key *k, const yaml_node_t *node,
                        void *target)
{
    char **string = target;
    const char *text = checked_text(l, k, node);
    if (text == NULL)
        return;
    char *copy = loader_strdup(l, text);
    if (copy == NULL)
        return;
    ob_free(*string);
    *string = copy;
}

static void print_string(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    const char *text = *(char *const *)value;
    if (text == NULL)
        return;
    print_key(indent, k->name, out);
    print_scalar(text, out);
    buf_putc(out, '\n');
}

const struct key_type type_string = {read_string, print_string};

/* A connection string may hold a password, also when it is malformed: it is never shown whole. */
static void read_secretive(struct loader *l, const struct key *k, const yaml_node_t *node,
                           void *target)
{
    const char *text = node_text(l, node, k->name, "a text");
    if (text == NULL)
        return;
    const char *expected = k->check(text);
    if (expected != NULL)
        loader_error(l, node_line(node), expected, "bad %s", k->name);
    else
        read_string(l, k, node, target);
}

static void print_masked(const struct key *k, const void *value, unsigned indent, struct buf *out,
                         void (*mask)(const char *, struct buf *))
{
    const char *text = *(char *const *)value;
    if (text == NULL)
        return;
    struct buf masked;
    buf_init(&masked, CONFIG_FILE_MAX * 4);
    mask(text, &masked);
    print_key(indent, k->name, out);
    if (masked.err == 0)
        print_scalar(masked.data != NULL ? masked.data : "", out);
    else
        out->err = masked.err;
    buf_putc(out, '\n');
    buf_deinit(&masked);
}

static void print_database(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_masked(k, value, indent, out, mask_conninfo);
}

static void print_proxy(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_masked(k, value, indent, out, mask_url);
}

const struct key_type type_database = {read_secretive, print_database};
const struct key_type type_proxy = {read_secretive, print_proxy};

/* --- numbers --- */

typedef int (*parse_fn)(const char *text, uint64_t *ret);
typedef void (*format_fn)(uint64_t value, char ret_text[32]);

static void format_count(uint64_t value, char ret_text[32])
{
    (void)snprintf(ret_text, 32, "%" PRIu64, value);
}

static int parse_count(const char *text, uint64_t *ret)
{
    size_t n = strlen(text);
    if (n == 0 || n > 18 || strspn(text, "0123456789") != n)
        return OB_EINVAL;
    *ret = strtoull(text, NULL, 10);
    return 0;
}

static bool read_number(struct loader *l, const struct key *k, const yaml_node_t *node,
                        parse_fn parse, format_fn format, const char *what, uint64_t *ret)
{
    char min[32];
    char max[32];
    char expected[160];
    format(k->min, min);
    format(k->max, max);
    (void)snprintf(expected, sizeof expected, "%s, from %s to %s", what, min, max);
    const char *text = node_text(l, node, k->name, expected);
    if (text == NULL)
        return false;
    char shown[QUOTED_SIZE];
    if (parse(text, ret) != 0)
        loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
    else if (*ret < k->min || *ret > k->max)
        loader_error(l, node_line(node), expected, "%s %s is out of range", k->name,
                     quoted(text, shown));
    else
        return true;
    return false;
}

static const char duration_expected[] = "a duration such as 250ms, 30s, 5m, 2h or 7d";

static void read_duration(struct loader *l, const struct key *k, const yaml_node_t *node,
                          void *target)
{
    uint64_t ms = 0;
    if (read_number(l, k, node, parse_duration, format_duration, duration_expected, &ms))
        *(uint64_t *)target = ms;
}

static void read_size(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    uint64_t bytes = 0;
    if (read_number(l, k, node, parse_size, format_size, "a size such as 512, 64KiB or 1MiB",
                    &bytes))
        *(size_t *)target = (size_t)bytes;
}

static void read_count(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    uint64_t n = 0;
    if (read_number(l, k, node, parse_count, format_count, "a whole number", &n))
        *(unsigned *)target = (unsigned)n;
}

static void print_number(const struct key *k, uint64_t value, format_fn format, unsigned indent,
                         struct buf *out)
{
    char text[32];
    format(value, text);
    print_key(indent, k->name, out);
    buf_puts(out, text);
    buf_putc(out, '\n');
}

static void print_duration(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_number(k, *(const uint64_t *)value, format_duration, indent, out);
}

static void print_size(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_number(k, *(const size_t *)value, format_size, indent, out);
}

static void print_count(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    unsigned n = *(const unsigned *)value;
    if (n >= k->min) /* 0: the daemon's, not known before config_finish */
        print_number(k, n, format_count, indent, out);
}

const struct key_type type_duration = {read_duration, print_duration};
const struct key_type type_size = {read_size, print_size};
const struct key_type type_count = {read_count, print_count};

/* 0 to 1 with at most three decimals, kept in thousandths. */
static void read_jitter(struct loader *l, const struct key *k, const yaml_node_t *node,
                        void *target)
{
    static const char expected[] = "a fraction from 0 to 1, such as 0.2";
    const char *text = node_text(l, node, k->name, expected);
    if (text == NULL)
        return;
    size_t decimals = text[0] != '\0' && text[1] == '.' ? strspn(text + 2, "0123456789") : 0;
    size_t length = 1 + (decimals > 0 ? 1 + decimals : 0);
    unsigned permille = text[0] == '1' ? 1000 : 0;
    unsigned place = 100;
    for (size_t i = 0; i < decimals && i < 3; i++, place /= 10)
        permille += (unsigned)(text[2 + i] - '0') * place;
    if ((text[0] == '0' || text[0] == '1') && strlen(text) == length && decimals <= 3 &&
        permille <= 1000) {
        *(unsigned *)target = permille;
        return;
    }
    char shown[QUOTED_SIZE];
    loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
}

static void print_jitter(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    unsigned permille = *(const unsigned *)value;
    int digits = 3;
    unsigned fraction = permille % 1000;
    for (; digits > 1 && fraction % 10 == 0; digits--)
        fraction /= 10;
    print_key(indent, k->name, out);
    buf_printf(out, "%u.%0*u\n", permille / 1000, digits, fraction);
}

const struct key_type type_jitter = {read_jitter, print_jitter};

static void read_umask(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    static const char expected[] = "an octal mask from 0000 to 0777, such as 0027";
    const char *text = node_text(l, node, k->name, expected);
    if (text == NULL)
        return;
    size_t n = strlen(text);
    long mask = strtol(text, NULL, 8);
    if (n >= 1 && n <= 4 && strspn(text, "01234567") == n && mask <= 0777) {
        *(int *)target = (int)mask;
        return;
    }
    char shown[QUOTED_SIZE];
    loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
}

static void print_umask(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    int mask = *(const int *)value;
    if (mask < 0)
        return;
    print_key(indent, k->name, out);
    buf_printf(out, "%04o\n", (unsigned)mask);
}

const struct key_type type_umask = {read_umask, print_umask};

/* --- words --- */

/* The text's index in the key's words, or -1 after a message. */
static int read_index(struct loader *l, const struct key *k, const yaml_node_t *node)
{
    char expected[96] = "one of";
    for (size_t i = 0; k->words[i] != NULL; i++) {
        size_t n = strlen(expected);
        (void)snprintf(expected + n, sizeof expected - n, "%s %s", i > 0 ? "," : "", k->words[i]);
    }
    const char *text = node_text(l, node, k->name, expected);
    if (text == NULL)
        return -1;
    for (int i = 0; k->words[i] != NULL; i++) {
        if (strcmp(text, k->words[i]) == 0)
            return i;
    }
    char shown[QUOTED_SIZE];
    loader_error(l, node_line(node), expected, "bad %s %s", k->name, quoted(text, shown));
    return -1;
}

static void print_index(const struct key *k, unsigned i, unsigned indent, struct buf *out)
{
    print_key(indent, k->name, out);
    buf_puts(out, k->words[i]);
    buf_putc(out, '\n');
}

/* The target is an enum, which gcc and clang store as unsigned int. */
static void read_word(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    int i = read_index(l, k, node);
    if (i >= 0)
        *(unsigned *)target = (unsigned)i;
}

static void print_word(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_index(k, *(const unsigned *)value, indent, out);
}

/* Words in pairs, the even ones false: {"false", "true"}, {"json", "raw"}, and "no", "yes" for
 * free. */
static void read_bool(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    int i = read_index(l, k, node);
    if (i >= 0)
        *(bool *)target = i % 2 == 1;
}

static void print_bool(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    print_index(k, *(const bool *)value ? 1 : 0, indent, out);
}

static void read_discard(struct loader *l, const struct key *k, const yaml_node_t *node,
                         void *target)
{
    (void)target;
    const char *text = node_is_null(node) ? "true" : node_text(l, node, k->name, "true");
    if (text != NULL && strcmp(text, "true") != 0)
        loader_error(l, node_line(node), "true", "bad discard");
}

static void print_discard(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    (void)value;
    print_key(indent, k->name, out);
    buf_puts(out, "true\n");
}

const struct key_type type_word = {read_word, print_word};
const struct key_type type_bool = {read_bool, print_bool};
const struct key_type type_discard = {read_discard, print_discard};
