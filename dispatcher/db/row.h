/* row.h - reading columns of a binary PGresult. A NULL column reads as 0, false or NULL. */
#ifndef OB_DB_ROW_H
#define OB_DB_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include <libpq-fe.h>

bool row_bool(const PGresult *res, int row, int col);
int row_int2(const PGresult *res, int row, int col);
int row_int4(const PGresult *res, int row, int col);
int64_t row_int8(const PGresult *res, int row, int col);
/* A view, NUL-terminated; for bytea PQgetlength says how long. NULL for NULL. */
const char *row_text(const PGresult *res, int row, int col);
/* timestamptz as microseconds since 1970. */
int64_t row_timestamp_us(const PGresult *res, int row, int col);
/* An interval without months as milliseconds; negative ones as 0. */
uint64_t row_interval_ms(const PGresult *res, int row, int col);

#endif
