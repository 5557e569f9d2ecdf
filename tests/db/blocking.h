/* blocking.h - statements of one session that wait for another one's locks. */
#ifndef OB_TEST_BLOCKING_H
#define OB_TEST_BLOCKING_H

#include "ck_main.h"
#include "pgcluster.h"
#include "wait.h"

enum { BLOCKED_MS = 20000 };

static inline void begin_sql(PGconn *conn, const char *sql)
{
    ck_assert_int_eq(PQsendQuery(conn, sql), 1);
}

static inline bool is_blocked(PGconn *conn)
{
    char sql[160];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_locks WHERE pid = %d AND NOT granted",
                   PQbackendPID(conn));
    return testdb_long(sql) > 0;
}

static inline void await_blocked(PGconn *conn)
{
    ck_assert(wait_until(is_blocked(conn), BLOCKED_MS));
}

/* Waits for the end of what begin_sql began, which must succeed. */
static inline void end_sql(PGconn *conn)
{
    PGresult *res;
    while ((res = PQgetResult(conn)) != NULL) {
        ck_assert_msg(PQresultStatus(res) == PGRES_TUPLES_OK ||
                          PQresultStatus(res) == PGRES_COMMAND_OK,
                      "%s", PQresultErrorMessage(res));
        PQclear(res);
    }
}

/* True if it ended by itself, false if it waits for a lock. */
static inline bool ended_or_blocked(PGconn *conn)
{
    ck_assert(wait_until((PQconsumeInput(conn) == 1 && PQisBusy(conn) == 0) || is_blocked(conn),
                         BLOCKED_MS));
    return PQisBusy(conn) == 0;
}

#endif
