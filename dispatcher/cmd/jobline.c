/* jobline.c - see jobline.h. */
#include "cmd/jobline.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/payload.h"
#include "cmd/suggest.h"

enum kind {
    KIND_TASK,
    KIND_ANY,
    KIND_TEXT,
    KIND_TIME,
    KIND_SPAN,
    KIND_COUNT,
    KIND_OBJECT,
    KIND_ARRAY,
    KIND_FLAG
};

static const struct {
    const char *name;
    enum kind kind;
    long max; /* of a KIND_COUNT, from 1 */
} members[] = {
    {"task", KIND_TASK, 0},
    {"payload", KIND_ANY, 0},
    {"priority", KIND_COUNT, 4},
    {"run_at", KIND_TIME, 0},
    {"delay", KIND_SPAN, 0},
    {"expires_at", KIND_TIME, 0},
    {"max_attempts", KIND_COUNT, 32767},
    {"headers", KIND_OBJECT, 0},
    {"key", KIND_TEXT, 0},
    {"unique_key", KIND_TEXT, 0},
    {"repeat_every", KIND_SPAN, 0},
    {"after", KIND_ARRAY, 0},
    {"on_failed_dependency", KIND_TEXT, 0},
    {"notify_done", KIND_FLAG, 0},
};
enum { MEMBERS = sizeof members / sizeof members[0], TASK = 0, RUN_AT = 3, DELAY = 4 };
_Static_assert(MEMBERS <= 32, "a bit each");

#define EXPECTED_TASK                                                                              \
    "expected 1 to 128 of A-Z a-z 0-9 . _ : -, beginning with a letter, a digit or _"

/* --- defaults --- */

static void put_raw(struct buf *b, const char *name, const char *json)
{
    if (json != NULL)
        buf_printf(b, "\"%s\":%s,", name, json);
}

static void put_text(struct buf *b, const char *name, const char *text)
{
    if (text == NULL)
        return;
    buf_printf(b, "\"%s\":", name);
    buf_json_string(b, text, strlen(text));
    buf_putc(b, ',');
}

/* {"1","2"} as [1,2]: digits and commas are what the command line lets through. */
static void put_ids(struct buf *b, const char *name, const char *array)
{
    if (array == NULL)
        return;
    buf_printf(b, "\"%s\":[", name);
    for (const char *p = array; *p != '\0'; p++) {
        if (isdigit((unsigned char)*p) || *p == ',')
            buf_putc(b, *p);
    }
    buf_puts(b, "],");
}

int jobline_defaults_init(struct jobline_defaults *d, const struct admin_job *job)
{
    struct buf *b = &d->members;
    buf_init(b, 256 * 1024);
    buf_init(&d->time, 1024);
    d->has_task = job->task != NULL;
    put_text(b, "task", job->task);
    put_raw(b, "priority", job->priority);
    put_raw(b, "max_attempts", job->max_attempts);
    put_text(b, "expires_at", job->expires_at);
    put_raw(b, "headers", job->headers);
    put_text(b, "key", job->key);
    put_text(b, "unique_key", job->unique_key);
    put_text(b, "repeat_every", job->repeat_every);
    put_ids(b, "after", job->after);
    put_text(b, "on_failed_dependency", job->on_failed_dependency);
    put_raw(b, "notify_done", job->notify_done);
    put_text(&d->time, "delay", job->delay);
    put_text(&d->time, "run_at", job->run_at);
    return b->err != 0 ? b->err : d->time.err;
}

void jobline_defaults_deinit(struct jobline_defaults *d)
{
    buf_deinit(&d->members);
    buf_deinit(&d->time);
}

/* --- checks --- */

static const char *kind_of_json(const char *value)
{
    switch (value[0]) {
    case '{':
        return "an object";
    case '[':
        return "an array";
    case '"':
        return "a string";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return "a number";
    }
}

static const char *expected(enum kind kind)
{
    switch (kind) {
    case KIND_TASK:
    case KIND_TEXT:
        return "a string";
    case KIND_TIME:
        return "a string such as \"2030-01-02T03:04:05Z\"";
    case KIND_SPAN:
        return "a number of seconds, or a string such as \"90 seconds\"";
    case KIND_COUNT:
        return "a whole number";
    case KIND_OBJECT:
        return "an object";
    case KIND_ARRAY:
        return "an array";
    case KIND_FLAG:
        return "true or false";
    case KIND_ANY:
        break;
    }
    return "any value";
}

/* By the first byte of the value, which is JSON. null is "not given", but a task must be. */
static bool has_kind(const char *value, enum kind kind)
{
    char c = value[0];
    bool is_number = c == '-' || isdigit((unsigned char)c);
    if (c == 'n' && kind != KIND_TASK)
        return true;
    switch (kind) {
    case KIND_TASK:
    case KIND_TEXT:
    case KIND_TIME:
        return c == '"';
    case KIND_SPAN:
        return c == '"' || is_number;
    case KIND_COUNT:
        return is_number;
    case KIND_OBJECT:
        return c == '{';
    case KIND_ARRAY:
        return c == '[';
    case KIND_FLAG:
        return c == 't' || c == 'f';
    case KIND_ANY:
        break;
    }
    return true;
}

static int check_task(const struct payload_member *m, char reterr[JOBLINE_ERROR_SIZE])
{
    char name[160];
    size_t len = m->value_len - 2; /* without its quotes */
    (void)snprintf(name, sizeof name, "%.*s", len < sizeof name ? (int)len : (int)sizeof name - 1,
                   m->value + 1);
    /* One with escapes is left to the server, which resolves them. */
    if (memchr(m->value, '\\', m->value_len) != NULL ||
        (len < sizeof name && task_name_is_valid(name)))
        return 0;
    (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "\"%s\" is not a task's name; " EXPECTED_TASK, name);
    return OB_ESYNTAX;
}

/* Only plain digits are judged; 2.0 and 2e0 are whole numbers too, as the server knows. */
static int check_count(const struct payload_member *m, long max, char reterr[JOBLINE_ERROR_SIZE])
{
    bool is_plain = m->value_len > 0;
    for (size_t i = m->value[0] == '-' ? 1 : 0; i < m->value_len; i++)
        is_plain = is_plain && isdigit((unsigned char)m->value[i]);
    if (!is_plain)
        return 0;
    char text[16];
    (void)snprintf(text, sizeof text, "%.*s", m->value_len < sizeof text ? (int)m->value_len : 15,
                   m->value);
    long n = strtol(text, NULL, 10); /* long has 64 bits, the text at most 15 digits */
    if (n >= 1 && n <= max)
        return 0;
    (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "\"%.*s\" is %s; expected a number from 1 to %ld",
                   (int)m->name_len, m->name, text, max);
    return OB_ESYNTAX;
}

static int unknown_name(const struct payload_member *m, char reterr[JOBLINE_ERROR_SIZE])
{
    const char *names[MEMBERS];
    char wrong[65];
    for (size_t i = 0; i < MEMBERS; i++)
        names[i] = members[i].name;
    (void)snprintf(wrong, sizeof wrong, "%.*s", m->name_len < 64 ? (int)m->name_len : 64, m->name);
    const char *near = suggest_name(wrong, names, MEMBERS);
    if (strcmp(wrong, "encoding") == 0)
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE,
                       "\"encoding\" is not for files: the payload is JSON");
    else if (near != NULL)
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "unknown key \"%s\" (did you mean \"%s\"?)",
                       wrong, near);
    else
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE,
                       "unknown key \"%s\"; expected task, payload, priority, run_at, delay, "
                       "expires_at, max_attempts, headers or another option of outbox.enqueue",
                       wrong);
    return OB_ESYNTAX;
}

static size_t find_member(const struct payload_member *m)
{
    size_t i = 0;
    while (i < MEMBERS && (strlen(members[i].name) != m->name_len ||
                           memcmp(members[i].name, m->name, m->name_len) != 0))
        i++;
    return i;
}

/* Adds the member's bit to *given. */
static int check_member(const struct payload_member *m, uint32_t *given,
                        char reterr[JOBLINE_ERROR_SIZE])
{
    size_t i = find_member(m);
    if (i == MEMBERS)
        return unknown_name(m, reterr);
    if ((*given & UINT32_C(1) << i) != 0) {
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "\"%s\" is given twice", members[i].name);
        return OB_ESYNTAX;
    }
    *given |= UINT32_C(1) << i;
    if (!has_kind(m->value, members[i].kind)) {
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "\"%s\" is %s; expected %s", members[i].name,
                       kind_of_json(m->value), expected(members[i].kind));
        return OB_ESYNTAX;
    }
    if (members[i].kind == KIND_TASK)
        return check_task(m, reterr);
    return members[i].kind == KIND_COUNT && m->value[0] != 'n'
               ? check_count(m, members[i].max, reterr)
               : 0;
}

static int check_json(const char *text, size_t len, char reterr[JOBLINE_ERROR_SIZE])
{
    static const char line[] = "line 1, "; /* it is one; which, says the caller */
    char why[PAYLOAD_ERROR_SIZE];
    size_t at = 0;
    if (payload_check_jsonb(text, len, why) != 0) {
        size_t skip = strncmp(why, line, sizeof line - 1) == 0 ? sizeof line - 1 : 0;
        char ignored[PAYLOAD_ERROR_SIZE];
        bool is_json = payload_check_json(text, len, ignored) == 0;
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE, "%s: %s",
                       is_json ? "cannot be stored" : "not valid JSON", why + skip);
        return OB_ESYNTAX;
    }
    while (text[at] == ' ' || text[at] == '\t' || text[at] == '\r')
        at++;
    if (text[at] == '{')
        return 0;
    (void)snprintf(reterr, JOBLINE_ERROR_SIZE,
                   "not an object but %s; expected {\"task\": ..., \"payload\": ...}",
                   kind_of_json(text + at));
    return OB_ESYNTAX;
}

int jobline_append(const char *text, size_t len, const struct jobline_defaults *d, struct buf *out,
                   char reterr[JOBLINE_ERROR_SIZE])
{
    uint32_t given = 0;
    bool has_escaped_names = false;
    struct payload_member m;
    int err = check_json(text, len, reterr);
    for (size_t pos = 0; err == 0 && payload_next_member(text, len, &pos, &m);) {
        if (memchr(m.name, '\\', m.name_len) != NULL)
            has_escaped_names = true; /* what they are, the server finds out */
        else
            err = check_member(&m, &given, reterr);
    }
    if (err != 0)
        return err;
    if ((given & UINT32_C(1) << TASK) == 0 && !d->has_task && !has_escaped_names) {
        (void)snprintf(reterr, JOBLINE_ERROR_SIZE,
                       "no \"task\"; expected one, or a TASK on the command line");
        return OB_ESYNTAX;
    }
    const char *open = memchr(text, '{', len);
    size_t before = (size_t)(open - text) + 1;
    /* Of two members of one name jsonb keeps the last: the line's own wins. */
    buf_putc(out, '{');
    buf_append(out, d->members.data, d->members.len);
    if ((given & (UINT32_C(1) << RUN_AT | UINT32_C(1) << DELAY)) == 0)
        buf_append(out, d->time.data, d->time.len);
    size_t added = d->members.len + d->time.len;
    if (given == 0 && !has_escaped_names && added > 0 && out->err == 0)
        out->len--; /* {} has nothing that the last comma could stand before */
    buf_append(out, text + before, len - before);
    return 0;
}

bool jobline_is_blank(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && (text[n] == ' ' || text[n] == '\t' || text[n] == '\r'))
        n++;
    return n == len;
}
