/* pgbatch.c - statements that go out together: built by store.c, sent by pgpipe.c. See pgconn.h.
 *
 * No connection is known here. Parameters are copied, one allocation a statement. */
#include "db/pgbatch.h"

#include <limits.h>
#include <stdalign.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

enum {
    PARAMS_MAX = 65535,         /* the protocol's Int16, which libpq checks */
    VALUES_BYTES_MAX = 1 << 30, /* the server refuses messages over 1 GB */
    STATEMENTS_FIRST = 4
};

struct pgbatch *pgbatch_new(void)
{
    struct pgbatch *b = ob_xcalloc(1, sizeof *b);
    list_init(&b->node);
    return b;
}

void pgstmt_forget_params(struct pgstmt *s)
{
    ob_free(s->block);
    s->block = NULL;
    s->types = NULL;
    s->values = NULL;
    s->lengths = NULL;
    s->formats = NULL;
}

void pgbatch_free(struct pgbatch *b)
{
    if (b == NULL)
        return;
    ob_assert(list_is_empty(&b->node));
    for (size_t i = 0; i < b->count; i++) {
        pgstmt_forget_params(&b->stmts[i]);
        PQclear(b->stmts[i].result);
    }
    ob_free(b->stmts);
    ob_free(b);
}

static struct pgstmt *new_stmt(struct pgbatch *b)
{
    if (b->count == b->cap) {
        size_t cap = b->cap > 0 ? b->cap * 2 : STATEMENTS_FIRST;
        struct pgstmt *stmts = ob_realloc(b->stmts, cap * sizeof *stmts);
        if (stmts == NULL)
            return NULL;
        b->stmts = stmts;
        b->cap = cap;
    }
    struct pgstmt *s = &b->stmts[b->count];
    memset(s, 0, sizeof *s);
    return s;
}

/* Bytes of the i-th value. libpq wants the lengths of binary values only. */
static size_t value_bytes(const char *const *values, const int *lengths, const int *formats,
                          size_t i)
{
    if (values[i] == NULL)
        return 0;
    if (formats != NULL && formats[i] == 1) {
        ob_assert(lengths != NULL);
        ob_assert(lengths[i] >= 0);
        return (size_t)lengths[i];
    }
    return strlen(values[i]);
}

/* Lays out the arrays in the block: pointers first, so that everything is aligned. */
static char *lay_out(struct pgstmt *s, size_t n)
{
    _Static_assert(alignof(const char *) >= alignof(int), "ints follow pointers");
    _Static_assert(alignof(int) >= alignof(Oid), "oids follow ints");
    s->values = (const char **)(void *)s->block;
    s->lengths = (int *)(void *)(s->block + n * sizeof *s->values);
    s->formats = s->lengths + n;
    s->types = (Oid *)(void *)(s->formats + n);
    return (char *)(s->types + n);
}

/* Copies the parameters. The values are followed by a NUL each, as libpq wants text. */
static int copy_params(struct pgstmt *s, size_t n, const Oid *types, const char *const *values,
                       const int *lengths, const int *formats)
{
    for (size_t i = 0; i < n; i++) {
        s->bytes += value_bytes(values, lengths, formats, i);
        if (s->bytes > VALUES_BYTES_MAX)
            return OB_ETOOBIG;
    }
    size_t row = sizeof *s->values + sizeof *s->lengths + sizeof *s->formats + sizeof *s->types + 1;
    s->block = ob_malloc(n * row + s->bytes);
    if (s->block == NULL)
        return OB_ENOMEM;
    char *out = lay_out(s, n);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = value_bytes(values, lengths, formats, i);
        s->types[i] = types != NULL ? types[i] : 0;
        s->formats[i] = formats != NULL ? formats[i] : 0;
        s->lengths[i] = (int)bytes;
        s->values[i] = values[i] != NULL ? out : NULL;
        if (values[i] == NULL)
            continue;
        memcpy(out, values[i], bytes);
        out[bytes] = '\0';
        out += bytes + 1;
    }
    return 0;
}

void pgbatch_add(struct pgbatch *b, const char *sql, bool prepare, size_t nparams, const Oid *types,
                 const char *const *values, const int *lengths, const int *formats,
                 bool result_binary)
{
    ob_assert(sql != NULL);
    ob_assert(nparams <= PARAMS_MAX);
    ob_assert(b->cb == NULL); /* not submitted yet */
    if (b->err != 0)
        return;
    struct pgstmt *s = new_stmt(b);
    if (s == NULL) {
        b->err = OB_ENOMEM;
        return;
    }
    s->sql = sql;
    s->prepare = prepare;
    s->nparams = (int)nparams;
    s->result_binary = result_binary;
    if (nparams > 0)
        b->err = copy_params(s, nparams, types, values, lengths, formats);
    b->count++;
}

size_t pgbatch_count(const struct pgbatch *b)
{
    return b->count;
}

PGresult *pgbatch_result(struct pgbatch *b, size_t i)
{
    ob_assert(i < b->count);
    return b->error.err == 0 ? b->stmts[i].result : NULL;
}

PGresult *pgbatch_take_result(struct pgbatch *b, size_t i)
{
    PGresult *res = pgbatch_result(b, i);
    if (res != NULL)
        b->stmts[i].result = NULL;
    return res;
}

size_t pgbatch_failed_at(const struct pgbatch *b)
{
    return b->failed_at;
}
