/* config_print.c - the effective configuration as YAML that config_load_text takes, secrets masked.
 */
#include <string.h>
#include <strings.h>

#include "base/config_private.h"
#include "base/utf8.h"

/* --- scalars --- */

static bool is_plain(const char *text)
{
    if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.+%@-") !=
        strlen(text))
        return false;
    if (text[0] == '\0' || strchr(".+%@-", text[0]) != NULL)
        return false;
    return strcasecmp(text, "null") != 0;
}

/* One character in double quotes; returns how many bytes it had. What libyaml does not read back
 * raw (controls, its own line breaks, the byte order mark, U+FFFE and U+FFFF) is escaped. */
static size_t print_character(const char *s, size_t n, struct buf *out)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t len = utf8_sequence(s, n);
    unsigned code = u[0];
    if (len == 2)
        code = (u[0] & 0x1FU) << 6 | (u[1] & 0x3FU);
    else if (len == 3)
        code = (u[0] & 0x0FU) << 12 | (u[1] & 0x3FU) << 6 | (u[2] & 0x3FU);
    bool odd = len == 1 ? code < 0x20 || code == 0x7f
                        : len < 4 && (code < 0xA0 || code == 0x2028 || code == 0x2029 ||
                                      code == 0xFEFF || code >= 0xFFFE);
    if (len == 0)
        buf_puts(out, "\\uFFFD");
    else if (code == '"' || code == '\\')
        buf_printf(out, "\\%c", (int)code);
    else if (code == '\n')
        buf_puts(out, "\\n");
    else if (odd)
        buf_printf(out, "\\u%04X", code);
    else
        buf_append(out, s, len);
    return len > 0 ? len : 1;
}

void print_scalar(const char *text, struct buf *out)
{
    if (is_plain(text)) {
        buf_puts(out, text);
        return;
    }
    size_t n = strlen(text);
    buf_putc(out, '"');
    for (size_t i = 0; i < n && out->err == 0;)
        i += print_character(text + i, n - i, out);
    buf_putc(out, '"');
}

void print_key(unsigned indent, const char *name, struct buf *out)
{
    buf_printf(out, "%*s%s: ", (int)indent, "", name);
}

/* --- secrets --- */

bool sounds_secret(const char *name)
{
    static const char *const parts[] = {"auth",       "token",   "secret",    "passw",
                                        "cookie",     "api-key", "apikey",    "api_key",
                                        "credential", "private", "signature", "_key"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t n = strlen(parts[i]);
        for (const char *p = name; *p != '\0'; p++) {
            if (strncasecmp(p, parts[i], n) == 0)
                return true;
        }
    }
    return false;
}

/* scheme://user:password@rest, and passwords among the query's parameters. The last @ of the
 * authority counts, so that a malformed one shows too little rather than too much. */
void mask_url(const char *url, struct buf *out)
{
    const char *authority = strstr(url, "://");
    authority = authority != NULL ? authority + 3 : url;
    const char *end = authority + strcspn(authority, "?");
    const char *at = NULL;
    for (const char *p = authority; p < end; p++)
        at = *p == '@' ? p : at;
    size_t user = strcspn(authority, ":@");
    if (at != NULL && authority + user < at && authority[user] == ':') {
        buf_append(out, url, (size_t)(authority - url) + user);
        buf_puts(out, ":***");
        buf_append(out, at, (size_t)(end - at));
    } else
        buf_append(out, url, (size_t)(end - url));
    while (*end != '\0') { /* at ? or & */
        size_t name = strcspn(end + 1, "=&");
        size_t whole = strcspn(end + 1, "&");
        bool masked = false;
        for (size_t i = 0; i < name; i++) /* a % may hide a letter of the name */
            masked = masked || end[1 + i] == '%' || strncasecmp(end + 1 + i, "passw", 5) == 0;
        buf_append(out, end, 1 + (masked ? name : whole));
        buf_puts(out, masked ? "=***" : "");
        end += 1 + whole;
    }
}

/* The end of a value of name=value: a blank, or the closing quote; backslashes escape. */
static const char *skip_value(const char *p)
{
    bool in_quotes = *p == '\'';
    p += in_quotes ? 1 : 0;
    while (*p != '\0' && (in_quotes ? *p != '\'' : strchr(" \t\r\n\f\v", *p) == NULL))
        p += *p == '\\' && p[1] != '\0' ? 2 : 1;
    return in_quotes && *p == '\'' ? p + 1 : p;
}

void mask_conninfo(const char *conninfo, struct buf *out)
{
    if (strstr(conninfo, "://") != NULL && strncmp(conninfo, "postgres", 8) == 0) {
        mask_url(conninfo, out);
        return;
    }
    const char *p = conninfo;
    while (*p != '\0') {
        size_t name = strcspn(p, "=");
        if (p[name] == '\0') { /* malformed, or blanks at the end: no more letters are shown */
            size_t blanks = strspn(p, " \t\r\n\f\v");
            buf_append(out, p, blanks);
            buf_puts(out, p[blanks] != '\0' ? "***" : "");
            return;
        }
        const char *value = p + name + 1;
        value += strspn(value, " \t\r\n\f\v");
        const char *end = skip_value(value);
        bool masked = false;
        for (size_t i = 0; i < name; i++)
            masked = masked || strncasecmp(p + i, "passw", 5) == 0;
        buf_append(out, p, masked ? name + 1 : (size_t)(end - p));
        if (masked)
            buf_puts(out, *end == '\0' || strchr(" \t\r\n\f\v", *end) != NULL ? "***" : "*** ");
        p = end;
    }
}

/* --- the whole --- */

static void print_task(const struct task_config *t, struct buf *out)
{
    buf_puts(out, "  ");
    print_scalar(t->name, out);
    buf_puts(out, ":\n");
    for (size_t i = 0; i < task_keys_count; i++) {
        const struct key *k = &task_keys[i];
        bool beside_schedule =
            t->backoff.schedule_ms != NULL &&
            (strcmp(k->name, "backoff") == 0 || strcmp(k->name, "backoff_max") == 0);
        if (k->type != NULL && (k->kinds & KIND(t->kind)) != 0 && !beside_schedule)
            k->type->print(k, (const char *)t + k->offset, 4, out);
    }
}

void config_print(const struct config *c, struct buf *out)
{
    for (size_t i = 0; i < top_keys_count; i++)
        top_keys[i].type->print(&top_keys[i], (const char *)c + top_keys[i].offset, 0, out);
    if (c->tasks_count > 0)
        buf_puts(out, "tasks:\n");
    for (size_t i = 0; i < c->tasks_count; i++)
        print_task(&c->tasks[i], out);
}
