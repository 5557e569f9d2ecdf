/* check_sql.h - what the check_sql_*.c share: results as one string, and a dispatcher to claim
 * with. */
#ifndef OB_TEST_CHECK_SQL_H
#define OB_TEST_CHECK_SQL_H

#include <stdio.h>
#include <string.h>

#include "ck_main.h"
#include "pgcluster.h"

enum { ROWS_SIZE = 16384 };

/* All rows: columns joined by '|', rows by ';', NULL as '-'. Static storage. */
static inline const char *rows_of(PGconn *conn, const char *sql)
{
    static char text[ROWS_SIZE];
    size_t len = 0;
    text[0] = '\0';
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, sql);
    for (int row = 0; row < PQntuples(res); row++) {
        for (int col = 0; col < PQnfields(res); col++) {
            const char *value = PQgetisnull(res, row, col) ? "-" : PQgetvalue(res, row, col);
            const char *before = col > 0 ? "|" : row > 0 ? ";" : "";
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", before, value);
            ck_assert_uint_lt(len, sizeof text);
        }
    }
    PQclear(res);
    return text;
}
#define ck_rows(conn, sql, expected) ck_assert_str_eq(rows_of(conn, sql), expected)

/* Dispatcher 1 with tasks a and b, from a process of its own. */
#define REGISTER(id, name)                                                                         \
    "SELECT answer FROM outbox.register(" id ", '" name                                            \
    "', 'host', 'boot', 'lock', 42, '{}', '0.1.0', '{a,b}', '1 minute')"

static inline void register_one(PGconn *conn)
{
    ck_rows(conn, REGISTER("1", "one"), "registered");
}

/* n jobs of task a, claimed by dispatcher 1 with claim = id. */
static inline PGconn *claimed_jobs(const char *n)
{
    char sql[128];
    PGconn *conn = testdb_connect();
    register_one(conn);
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('a', '{\"n\": 1}') FROM generate_series(1, %s)", n);
    pg_exec_ok(conn, sql);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{%s}')", n);
    ck_rows(conn, sql, n);
    return conn;
}

static inline TCase *sql_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    return tc;
}

#endif
