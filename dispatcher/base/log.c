/* log.c - see log.h. Formats a line on the stack and writes it with one write(2); allocates
 * nothing. For one thread: the loop's. errno is left as it was. */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/utf8.h"

static struct {
    enum log_level level;
    enum log_format format;
    int fd;
    uint64_t dropped; /* lines a full pipe did not take; told with the next one that it does */
} state = {.level = LOG_INFO, .format = LOG_LOGFMT, .fd = STDERR_FILENO};

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};
static const char *const format_names[] = {[LOG_LOGFMT] = "logfmt", [LOG_JSON] = "json"};

/* What put() leaves free: a closing quote, the two closing fields, a brace and the newline. */
enum { TAIL_MAX = 80 };
_Static_assert(LOG_LINE_MAX <= 4096, "a pipe takes a line whole up to PIPE_BUF");

struct line {
    char data[LOG_LINE_MAX];
    size_t len;
    bool is_cut;
};

/* Appends all of it, or nothing and marks the line as cut. Nothing is appended behind a cut. */
static bool put(struct line *l, const char *bytes, size_t n)
{
    if (l->is_cut || l->len + n > LOG_LINE_MAX - TAIL_MAX) {
        l->is_cut = true;
        return false;
    }
    memcpy(l->data + l->len, bytes, n);
    l->len += n;
    return true;
}

/* The closing parts, which always fit. */
static void put_tail(struct line *l, const char *s)
{
    size_t n = strlen(s);
    ob_assert(n <= LOG_LINE_MAX - l->len);
    memcpy(l->data + l->len, s, n);
    l->len += n;
}

/* The length of the character at s (n bytes to read) that is printed as it is; 0 if it must be
 * escaped: control characters of ASCII and of Latin-1 (a terminal obeys both), line separators, no
 * UTF-8. */
static size_t plain_character(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t len = utf8_sequence(s, n);
    if (len == 1 && (u[0] < 0x20 || u[0] == 0x7f || u[0] == '"' || u[0] == '\\'))
        return 0;
    if (len == 2 && u[0] == 0xC2 && u[1] < 0xA0)
        return 0;
    if (len == 3 && u[0] == 0xE2 && u[1] == 0x80 && (u[2] == 0xA8 || u[2] == 0xA9))
        return 0;
    return len;
}

/* Appends the escape for what plain_character refused; returns how many bytes of s it stands for.
 */
static size_t put_escape(struct line *l, const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t len = utf8_sequence(s, n);
    unsigned code = u[0];
    if (len == 0)
        code = 0xFFFD;
    else if (len == 2)
        code = u[1]; /* U+0080 to U+009F */
    else if (len == 3)
        code = 0x2000U | (u[2] & 0x3FU);
    char text[8];
    if (code == '"' || code == '\\')
        (void)snprintf(text, sizeof text, "\\%c", (int)code);
    else if (code == '\n' || code == '\r' || code == '\t')
        (void)snprintf(text, sizeof text, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    else
        (void)snprintf(text, sizeof text, "\\u%04x", code);
    (void)put(l, text, strlen(text));
    return len > 0 ? len : 1;
}

static bool needs_quotes(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        size_t len = plain_character(s + i, n - i);
        if (len == 0 || s[i] == ' ' || s[i] == '=')
            return true;
        i += len;
    }
    return n == 0;
}

static void put_string(struct line *l, const char *s)
{
    bool quoted = state.format == LOG_JSON || needs_quotes(s);
    if (quoted && !put(l, "\"", 1))
        return;
    size_t n = strlen(s);
    for (size_t i = 0; i < n && !l->is_cut;) {
        size_t len = plain_character(s + i, n - i);
        if (len > 0)
            (void)put(l, s + i, len);
        else
            len = put_escape(l, s + i, n - i);
        i += len;
    }
    if (quoted)
        put_tail(l, "\"");
}

/* ` key=` or `,"key":`. */
static void put_key(struct line *l, const char *key)
{
    if (state.format == LOG_JSON) {
        (void)put(l, l->len == 0 ? "{\"" : ",\"", 2);
        (void)put(l, key, strlen(key));
        (void)put(l, "\":", 2);
        return;
    }
    if (l->len > 0)
        (void)put(l, " ", 1);
    (void)put(l, key, strlen(key));
    (void)put(l, "=", 1);
}

/* A field that does not fit leaves its beginning if it is a string, and nothing otherwise. */
static void put_field(struct line *l, const struct log_field *f)
{
    if (l->is_cut || (f->type == LOG_FIELD_STR && f->str == NULL))
        return;
    size_t start = l->len;
    put_key(l, f->key);
    size_t value = l->len;
    if (l->is_cut) {
        l->len = start;
        return;
    }
    char number[24];
    switch (f->type) {
    case LOG_FIELD_STR:
        put_string(l, f->str);
        break;
    case LOG_FIELD_INT:
        (void)snprintf(number, sizeof number, "%" PRId64, f->num);
        (void)put(l, number, strlen(number));
        break;
    case LOG_FIELD_UINT:
        (void)snprintf(number, sizeof number, "%" PRIu64, (uint64_t)f->num);
        (void)put(l, number, strlen(number));
        break;
    case LOG_FIELD_END:
        break;
    }
    if (l->len == value)
        l->len = start;
}

static void finish_line(struct line *l)
{
    bool json = state.format == LOG_JSON;
    if (l->is_cut)
        put_tail(l, json ? ",\"truncated\":true" : " truncated=true");
    if (state.dropped > 0) {
        char text[48];
        (void)snprintf(text, sizeof text,
                       json ? ",\"log_dropped\":%" PRIu64 : " log_dropped=%" PRIu64, state.dropped);
        put_tail(l, text);
    }
    put_tail(l, json ? "}\n" : "\n");
}

void log_setup(enum log_level level, enum log_format format, int fd)
{
    ob_assert(level <= LOG_DEBUG && format <= LOG_JSON && fd >= 0);
    state.level = level;
    state.format = format;
    state.fd = fd;
    state.dropped = 0;
}

bool log_enabled(enum log_level level)
{
    return level <= state.level;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if (!log_enabled(level))
        return;
    int saved_errno = errno;
    struct line l;
    l.len = 0;
    l.is_cut = false;
    char now[CLOCK_RFC3339_SIZE];
    clock_rfc3339(clock_unix_us(), 3, now);
    put_field(&l, &LOG_STR("ts", now));
    put_field(&l, &LOG_STR("level", level_names[level]));
    put_field(&l, &LOG_STR("event", event));
    for (const struct log_field *f = fields; f->type != LOG_FIELD_END; f++)
        put_field(&l, f);
    finish_line(&l);
    ssize_t n = 0;
    do {
        n = write(state.fd, l.data, l.len);
    } while (n < 0 && errno == EINTR);
    /* A log that nobody reads must not stop the jobs: the line is dropped, and counted. */
    state.dropped = n < 0 ? state.dropped + 1 : 0;
    errno = saved_errno;
}

/* Keys are remembered by their 64-bit FNV-1a hash; when the table is full the one let through
 * longest ago is forgotten, which at worst lets a message through early. */
enum { ALLOW_SLOTS = 128 };
static struct allow_slot {
    uint64_t hash; /* 0: free */
    uint64_t last_ms;
    uint64_t suppressed;
} slots[ALLOW_SLOTS];

static uint64_t hash_key(const char *key)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *key != '\0'; key++)
        h = (h ^ (unsigned char)*key) * UINT64_C(1099511628211);
    return h != 0 ? h : 1;
}

bool log_allow(const char *key, uint64_t interval_ms, uint64_t *ret_suppressed)
{
    uint64_t now = clock_mono_ms();
    uint64_t hash = hash_key(key);
    struct allow_slot *slot = &slots[0];
    for (size_t i = 0; i < ALLOW_SLOTS; i++) {
        if (slots[i].hash == hash) {
            slot = &slots[i];
            break;
        }
        if (slots[i].last_ms < slot->last_ms)
            slot = &slots[i];
    }
    if (slot->hash != hash)
        *slot = (struct allow_slot){.hash = hash};
    else if (now - slot->last_ms < interval_ms) {
        slot->suppressed++;
        *ret_suppressed = 0;
        return false;
    }
    *ret_suppressed = slot->suppressed;
    slot->suppressed = 0;
    slot->last_ms = now;
    return true;
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return OB_EINVAL;
}

int log_format_parse(const char *text, enum log_format *ret_format)
{
    for (size_t i = 0; i < sizeof format_names / sizeof format_names[0]; i++) {
        if (strcmp(text, format_names[i]) == 0) {
            *ret_format = (enum log_format)i;
            return 0;
        }
    }
    return OB_EINVAL;
}
