/* row.c - see row.h. Integers are big-endian; timestamps and intervals count microseconds, the
 * former from 2000-01-01 (integer_datetimes, the only format since PostgreSQL 10). */
#include "db/row.h"

#include <stddef.h>

static uint64_t read_be(const PGresult *res, int row, int col, size_t offset, size_t bytes)
{
    if (PQgetisnull(res, row, col) || (size_t)PQgetlength(res, row, col) < offset + bytes)
        return 0;
    const char *p = PQgetvalue(res, row, col) + offset;
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | (unsigned char)p[i];
    return value;
}

bool row_bool(const PGresult *res, int row, int col)
{
    return read_be(res, row, col, 0, 1) != 0;
}

int row_int2(const PGresult *res, int row, int col)
{
    return (int16_t)read_be(res, row, col, 0, 2);
}

int row_int4(const PGresult *res, int row, int col)
{
    return (int32_t)read_be(res, row, col, 0, 4);
}

int64_t row_int8(const PGresult *res, int row, int col)
{
    return (int64_t)read_be(res, row, col, 0, 8);
}

const char *row_text(const PGresult *res, int row, int col)
{
    return PQgetisnull(res, row, col) ? NULL : PQgetvalue(res, row, col);
}

int64_t row_timestamp_us(const PGresult *res, int row, int col)
{
    enum { SECONDS_1970_TO_2000 = 946684800 };
    if (PQgetisnull(res, row, col))
        return 0;
    return row_int8(res, row, col) + (int64_t)SECONDS_1970_TO_2000 * 1000000;
}

uint64_t row_interval_ms(const PGresult *res, int row, int col)
{
    int64_t us = (int64_t)read_be(res, row, col, 0, 8);
    int32_t days = (int32_t)read_be(res, row, col, 8, 4);
    int64_t ms = us / 1000 + (int64_t)days * 86400000;
    return ms > 0 ? (uint64_t)ms : 0;
}
