/* json.c - see json.h. */
#include "cmd/json.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

void json_init(struct json *j, FILE *out)
{
    memset(j, 0, sizeof *j);
    j->out = out;
}

void json_end(struct json *j)
{
    ob_assert(j->depth == 0);
    (void)fputc('\n', j->out);
}

static void put_string(struct json *j, const char *text, size_t len)
{
    struct buf b;
    buf_init(&b, SIZE_MAX / 2);
    buf_json_string(&b, text, len);
    ob_assert(b.err == 0);
    (void)fwrite(b.data, 1, b.len, j->out);
    buf_deinit(&b);
}

/* The comma, the line break and the key that come before an element. */
static void before(struct json *j, const char *key)
{
    if (j->depth > 0) {
        bool *begun = &j->begun[j->depth - 1];
        ob_assert((key != NULL) == (j->closers[j->depth - 1] == '}'));
        if (*begun)
            (void)fputs(j->depth == 1 ? "," : ", ", j->out);
        /* One row a line: what a person skims and grep finds. */
        if (j->depth == 1)
            (void)fputs(j->closers[0] == ']' ? "\n" : "\n  ", j->out);
        *begun = true;
    }
    if (key != NULL) {
        put_string(j, key, strlen(key));
        (void)fputs(": ", j->out);
    }
}

static void open_level(struct json *j, const char *key, char opener, char closer)
{
    before(j, key);
    ob_assert(j->depth < JSON_DEPTH_MAX);
    (void)fputc(opener, j->out);
    j->closers[j->depth] = closer;
    j->begun[j->depth] = false;
    j->depth++;
}

void json_open_object(struct json *j, const char *key)
{
    open_level(j, key, '{', '}');
}

void json_open_array(struct json *j, const char *key)
{
    open_level(j, key, '[', ']');
}

void json_close(struct json *j)
{
    ob_assert(j->depth > 0);
    j->depth--;
    if (j->depth == 0 && j->begun[0])
        (void)fputc('\n', j->out);
    (void)fputc(j->closers[j->depth], j->out);
}

void json_bytes(struct json *j, const char *key, const char *text, size_t len)
{
    before(j, key);
    put_string(j, text, len);
}

void json_str(struct json *j, const char *key, const char *text)
{
    if (text == NULL)
        json_null(j, key);
    else
        json_bytes(j, key, text, strlen(text));
}

void json_int(struct json *j, const char *key, int64_t n)
{
    before(j, key);
    (void)fprintf(j->out, "%" PRId64, n);
}

void json_bool(struct json *j, const char *key, bool value)
{
    before(j, key);
    (void)fputs(value ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key)
{
    before(j, key);
    (void)fputs("null", j->out);
}

void json_raw(struct json *j, const char *key, const char *text)
{
    before(j, key);
    (void)fputs(text != NULL ? text : "null", j->out);
}
