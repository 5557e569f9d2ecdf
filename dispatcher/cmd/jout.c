/* jout.c - see jout.h. */
#include "cmd/jout.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

void jout_init(struct jout *j, FILE *out)
{
    memset(j, 0, sizeof *j);
    j->out = out;
}

void jout_end(struct jout *j)
{
    ob_assert(j->depth == 0);
    (void)fputc('\n', j->out);
}

static void put_string(struct jout *j, const char *text, size_t len)
{
    struct buf b;
    buf_init(&b, SIZE_MAX / 2);
    buf_json_string(&b, text, len);
    ob_assert(b.err == 0);
    (void)fwrite(b.data, 1, b.len, j->out);
    buf_deinit(&b);
}

/* The comma, the line break and the key that come before an element. */
static void before(struct jout *j, const char *key)
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

static void open_level(struct jout *j, const char *key, char opener, char closer)
{
    before(j, key);
    ob_assert(j->depth < JOUT_DEPTH_MAX);
    (void)fputc(opener, j->out);
    j->closers[j->depth] = closer;
    j->begun[j->depth] = false;
    j->depth++;
}

void jout_open_object(struct jout *j, const char *key)
{
    open_level(j, key, '{', '}');
}

void jout_open_array(struct jout *j, const char *key)
{
    open_level(j, key, '[', ']');
}

void jout_close(struct jout *j)
{
    ob_assert(j->depth > 0);
    j->depth--;
    if (j->depth == 0 && j->begun[0])
        (void)fputc('\n', j->out);
    (void)fputc(j->closers[j->depth], j->out);
}

void jout_bytes(struct jout *j, const char *key, const char *text, size_t len)
{
    before(j, key);
    put_string(j, text, len);
}

void jout_str(struct jout *j, const char *key, const char *text)
{
    if (text == NULL)
        jout_null(j, key);
    else
        jout_bytes(j, key, text, strlen(text));
}

void jout_int(struct jout *j, const char *key, int64_t n)
{
    before(j, key);
    (void)fprintf(j->out, "%" PRId64, n);
}

void jout_bool(struct jout *j, const char *key, bool value)
{
    before(j, key);
    (void)fputs(value ? "true" : "false", j->out);
}

void jout_null(struct jout *j, const char *key)
{
    before(j, key);
    (void)fputs("null", j->out);
}

void jout_raw(struct jout *j, const char *key, const char *text)
{
    before(j, key);
    (void)fputs(text != NULL ? text : "null", j->out);
}
