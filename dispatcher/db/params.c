/* params.c - see params.h. The array format is that of array_send() in PostgreSQL: dimensions, "has
 * nulls", element type, then per dimension its length and lower bound, then length-prefixed
 * elements. */
#include "db/params.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"

enum {
    OID_BOOL = 16,
    OID_INT8 = 20,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_INT4_ARRAY = 1007,
    OID_BOOL_ARRAY = 1000,
    OID_TEXT_ARRAY = 1009,
    OID_INT8_ARRAY = 1016,
    OID_TIMESTAMPTZ = 1184,
    OID_INTERVAL = 1186,
    OID_JSONB = 3802,
    OID_XID8 = 5069,
    OID_XID8_ARRAY = 271
};
enum { ARRAY_BYTES_MAX = 64 * 1024 * 1024 };

void params_init(struct params *p)
{
    memset(p, 0, sizeof *p);
}

void params_deinit(struct params *p)
{
    for (size_t i = 0; i < p->count; i++)
        buf_deinit(&p->arrays[i]);
}

static size_t next(struct params *p, Oid type)
{
    ob_assert(p->count < PARAMS_MAX);
    p->types[p->count] = type;
    return p->count++;
}

static void add_text(struct params *p, Oid type, const char *value)
{
    p->values[next(p, type)] = value;
}

void params_int8(struct params *p, int64_t value)
{
    size_t i = next(p, OID_INT8);
    (void)snprintf(p->scratch[i], PARAMS_SCRATCH, "%" PRId64, value);
    p->values[i] = p->scratch[i];
}

void params_xid8(struct params *p, uint64_t value)
{
    size_t i = next(p, OID_XID8);
    (void)snprintf(p->scratch[i], PARAMS_SCRATCH, "%" PRIu64, value);
    p->values[i] = p->scratch[i];
}

void params_xid8_or_null(struct params *p, uint64_t value)
{
    if (value != 0)
        params_xid8(p, value);
    else
        add_text(p, OID_XID8, NULL);
}

void params_timestamp_us(struct params *p, int64_t us)
{
    if (us == INT64_MIN) {
        add_text(p, OID_TIMESTAMPTZ, "-infinity");
        return;
    }
    size_t i = next(p, OID_TIMESTAMPTZ);
    clock_rfc3339(us, 6, p->scratch[i]);
    p->values[i] = p->scratch[i];
}

void params_int4(struct params *p, int value)
{
    size_t i = next(p, OID_INT4);
    (void)snprintf(p->scratch[i], PARAMS_SCRATCH, "%d", value);
    p->values[i] = p->scratch[i];
}

void params_bool(struct params *p, bool value)
{
    add_text(p, OID_BOOL, value ? "t" : "f");
}

void params_text(struct params *p, const char *value)
{
    add_text(p, OID_TEXT, value);
}

void params_jsonb(struct params *p, const char *value)
{
    add_text(p, OID_JSONB, value);
}

void params_interval_ms(struct params *p, uint64_t ms)
{
    size_t i = next(p, OID_INTERVAL);
    /* Hours, because a field of an interval is an int before PostgreSQL 15. */
    (void)snprintf(p->scratch[i], PARAMS_SCRATCH, "%" PRIu64 ":%02u:%02u.%03u", ms / 3600000,
                   (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
    p->values[i] = p->scratch[i];
}

static void put_u32(struct buf *b, uint32_t value)
{
    uint32_t wire = htonl(value);
    buf_append(b, &wire, sizeof wire);
}

static void put_u64(struct buf *b, uint64_t value)
{
    put_u32(b, (uint32_t)(value >> 32));
    put_u32(b, (uint32_t)value);
}

static struct buf *begin_array(struct params *p, Oid array_type, Oid element_type, size_t n)
{
    size_t i = next(p, array_type);
    struct buf *b = &p->arrays[i];
    buf_init(b, ARRAY_BYTES_MAX);
    p->formats[i] = 1;
    put_u32(b, n > 0 ? 1 : 0);
    put_u32(b, 0);
    put_u32(b, element_type);
    if (n > 0) {
        put_u32(b, (uint32_t)n);
        put_u32(b, 1);
    }
    return b;
}

/* Arrays are bounded by slots and tasks, far below the limit; only memory can fail here. */
static void end_array(struct params *p, struct buf *b)
{
    ob_assert(b->err == 0);
    ob_assert(b->len <= INT_MAX);
    size_t i = (size_t)(b - p->arrays);
    p->values[i] = b->data;
    p->lengths[i] = (int)b->len;
}

void params_int8_array(struct params *p, const int64_t *values, size_t n)
{
    struct buf *b = begin_array(p, OID_INT8_ARRAY, OID_INT8, n);
    for (size_t i = 0; i < n; i++) {
        put_u32(b, 8);
        put_u64(b, (uint64_t)values[i]);
    }
    end_array(p, b);
}

void params_xid8_array(struct params *p, const uint64_t *values, size_t n)
{
    struct buf *b = begin_array(p, OID_XID8_ARRAY, OID_XID8, n);
    for (size_t i = 0; i < n; i++) {
        put_u32(b, 8);
        put_u64(b, values[i]);
    }
    end_array(p, b);
}

void params_bool_array(struct params *p, const bool *values, size_t n)
{
    struct buf *b = begin_array(p, OID_BOOL_ARRAY, OID_BOOL, n);
    for (size_t i = 0; i < n; i++) {
        char byte = values[i] ? 1 : 0;
        put_u32(b, 1);
        buf_append(b, &byte, 1);
    }
    end_array(p, b);
}

void params_int4_array(struct params *p, const int *values, size_t n)
{
    struct buf *b = begin_array(p, OID_INT4_ARRAY, OID_INT4, n);
    for (size_t i = 0; i < n; i++) {
        put_u32(b, 4);
        put_u32(b, (uint32_t)values[i]);
    }
    end_array(p, b);
}

void params_text_array(struct params *p, const char *const *values, size_t n)
{
    struct buf *b = begin_array(p, OID_TEXT_ARRAY, OID_TEXT, n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(values[i]);
        put_u32(b, (uint32_t)len);
        buf_append(b, values[i], len);
    }
    end_array(p, b);
}

void params_add(struct params *p, struct pgbatch *b, const char *sql)
{
    pgbatch_add(b, sql, true, p->count, p->types, p->values, p->lengths, p->formats, true);
}
