/* predecessors_fixture.h - what the check_predecessors_*.c share: consumers that claim in order,
 * and what was told. A comment above each test names the one of theirs that it takes up. */
#ifndef OB_TEST_PREDECESSORS_FIXTURE_H
#define OB_TEST_PREDECESSORS_FIXTURE_H

#include "keys_fixture.h"

/* "id,..." in the order in which they are handed out; claim numbers go up from `first_claim`. */
static inline const char *claim_as(PGconn *conn, int owner, int first_claim, int n)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT coalesce(string_agg(c.id::text, ',' ORDER BY c.claim), '') FROM"
                   " outbox.claim(%d, %d, '{a}', '{%d}') AS c",
                   owner, first_claim, n);
    return rows_of(conn, sql);
}
#define CLAIM(conn, owner, first_claim, n, expected)                                               \
    ck_assert_str_eq(claim_as(conn, owner, first_claim, n), expected)

/* Ids of task a that a take hands out, in order; '-' for none. */
#define TAKEN(conn, n, expected)                                                                   \
    ck_rows(conn,                                                                                  \
            "SELECT coalesce(string_agg(id::text, ',' ORDER BY ordinality), '-') FROM"             \
            " outbox.take('a', " n ") WITH ORDINALITY",                                            \
            expected)

/* "channel payload;..." of what came since the last call. A round trip through each channel comes
 * last, so nothing sent before it can be under way. */
static inline const char *heard(PGconn *listener)
{
    static char text[ROWS_SIZE];
    size_t len = 0;
    bool is_end = false;
    text[0] = '\0';
    pg_exec_ok(listener, "LISTEN heard_end");
    pg_exec_ok(listener, "NOTIFY heard_end");
    while (!is_end) {
        PGnotify *n;
        ck_assert_int_eq(PQconsumeInput(listener), 1);
        while ((n = PQnotifies(listener)) != NULL) {
            is_end = strcmp(n->relname, "heard_end") == 0;
            if (!is_end)
                len += (size_t)snprintf(text + len, sizeof text - len, "%s%s %s",
                                        len > 0 ? ";" : "", n->relname, n->extra);
            ck_assert_uint_lt(len, sizeof text);
            PQfreemem(n);
        }
        if (!is_end)
            pg_exec_ok(listener, "SELECT 1");
    }
    return text;
}
#define HEARD(listener, expected) ck_assert_str_eq(heard(listener), expected)

static inline PGconn *listening(const char *sql)
{
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, sql);
    return listener;
}

#endif
