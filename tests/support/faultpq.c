/* The linker sends some calls of libpq here: see faultpq.h. */
#include "faultpq.h"

#include <stddef.h>

PGresult *__real_PQexecParams(PGconn *conn, const char *sql, int n, const Oid *types,
                              const char *const *values, const int *lengths, const int *formats,
                              int result_format);
int __real_PQsendQueryParams(PGconn *conn, const char *sql, int n, const Oid *types,
                             const char *const *values, const int *lengths, const int *formats,
                             int result_format);
int __real_PQflush(PGconn *conn);
int __real_PQconsumeInput(PGconn *conn);
PGresult *__real_PQgetResult(PGconn *conn);
PGresult *__wrap_PQexecParams(PGconn *conn, const char *sql, int n, const Oid *types,
                              const char *const *values, const int *lengths, const int *formats,
                              int result_format);
int __wrap_PQsendQueryParams(PGconn *conn, const char *sql, int n, const Oid *types,
                             const char *const *values, const int *lengths, const int *formats,
                             int result_format);
int __wrap_PQflush(PGconn *conn);
int __wrap_PQconsumeInput(PGconn *conn);
PGresult *__wrap_PQgetResult(PGconn *conn);

static bool is_armed;
static bool repeats;
static unsigned countdown;
static unsigned fired;
static unsigned calls;
static enum faultpq_mode mode;

void faultpq_arm(unsigned n, bool repeat, enum faultpq_mode how)
{
    countdown = n;
    repeats = repeat;
    mode = how;
    fired = 0;
    calls = 0;
    is_armed = true;
}

unsigned faultpq_disarm(void)
{
    is_armed = false;
    return fired;
}

unsigned faultpq_calls(void)
{
    return calls;
}

static bool must_fail(void)
{
    if (!is_armed)
        return false;
    calls++;
    if (fired > 0 && !repeats)
        return false;
    if (countdown > 0) {
        countdown--;
        return false;
    }
    fired++;
    return true;
}

/* What the failing call returns in place of `real`, a result that it takes over (or NULL). */
static PGresult *failed_result(PGconn *conn, PGresult *real)
{
    PQclear(real);
    switch (mode) {
    case FAULTPQ_NO_SQLSTATE:
        return PQmakeEmptyPGresult(conn, PGRES_FATAL_ERROR);
    case FAULTPQ_EMPTY:
        return PQmakeEmptyPGresult(conn, PGRES_EMPTY_QUERY);
    case FAULTPQ_COMMAND_OK:
        return PQmakeEmptyPGresult(conn, PGRES_COMMAND_OK);
    case FAULTPQ_NULL:
    case FAULTPQ_NULL_AFTER:
    case FAULTPQ_MODES:
        break;
    }
    return NULL;
}

PGresult *__wrap_PQexecParams(PGconn *conn, const char *sql, int n, const Oid *types,
                              const char *const *values, const int *lengths, const int *formats,
                              int result_format)
{
    bool fails = must_fail();
    PGresult *res = NULL;
    if (!fails || mode == FAULTPQ_NULL_AFTER)
        res = __real_PQexecParams(conn, sql, n, types, values, lengths, formats, result_format);
    return fails ? failed_result(conn, res) : res;
}

PGresult *__wrap_PQgetResult(PGconn *conn)
{
    bool fails = must_fail();
    PGresult *res = NULL;
    if (!fails || mode == FAULTPQ_NULL_AFTER)
        res = __real_PQgetResult(conn);
    return fails ? failed_result(conn, res) : res;
}

int __wrap_PQsendQueryParams(PGconn *conn, const char *sql, int n, const Oid *types,
                             const char *const *values, const int *lengths, const int *formats,
                             int result_format)
{
    if (must_fail())
        return 0;
    return __real_PQsendQueryParams(conn, sql, n, types, values, lengths, formats, result_format);
}

int __wrap_PQflush(PGconn *conn)
{
    return must_fail() ? -1 : __real_PQflush(conn);
}

int __wrap_PQconsumeInput(PGconn *conn)
{
    return must_fail() ? 0 : __real_PQconsumeInput(conn);
}
