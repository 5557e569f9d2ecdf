/* params.h - building a statement's parameters: scalars as text, arrays in PostgreSQL's binary
 * format. For store.c. A params lives on the stack for one pgbatch_add, which copies everything. */
#ifndef OB_DB_PARAMS_H
#define OB_DB_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "db/pgconn.h"

enum { PARAMS_MAX = 32, PARAMS_SCRATCH = 40 };

struct params {
    size_t count;
    Oid types[PARAMS_MAX];
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX];
    int formats[PARAMS_MAX];
    char scratch[PARAMS_MAX][PARAMS_SCRATCH];
    struct buf arrays[PARAMS_MAX];
};

void params_init(struct params *p);
void params_deinit(struct params *p);
void params_int8(struct params *p, int64_t value);
void params_int4(struct params *p, int value);
void params_bool(struct params *p, bool value);
void params_text(struct params *p,
                 const char *value); /* NULL: SQL NULL; borrowed until pgbatch_add */
void params_jsonb(struct params *p, const char *value); /* likewise */
void params_interval_ms(struct params *p, uint64_t ms);
void params_xid8(struct params *p, uint64_t value);
void params_xid8_or_null(struct params *p, uint64_t value); /* 0, which no transaction has: NULL */
/* Microseconds since 1970; INT64_MIN: -infinity. */
void params_timestamp_us(struct params *p, int64_t us);
void params_xid8_array(struct params *p, const uint64_t *values, size_t n);
void params_bool_array(struct params *p, const bool *values, size_t n);
void params_int8_array(struct params *p, const int64_t *values, size_t n);
void params_int4_array(struct params *p, const int *values, size_t n);
void params_text_array(struct params *p, const char *const *values, size_t n);
/* Adds the statement with these parameters to b: prepared, binary results. */
void params_add(struct params *p, struct pgbatch *b, const char *sql);

#endif
