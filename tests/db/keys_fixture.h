/* keys_fixture.h - what the check_sql_* about jobs that have to do with each other share: claims
 * and results in one line, rules that are cut out. */
#ifndef OB_TEST_KEYS_FIXTURE_H
#define OB_TEST_KEYS_FIXTURE_H

#include "blocking.h"
#include "check_sql.h"
#include "rules_fixture.h"

/* "id task state;..." of the live jobs. */
#define STATES(conn, expected)                                                                     \
    ck_rows(conn, "SELECT id, state FROM outbox.jobs ORDER BY id", expected)

/* Claims up to nine jobs of a and b by dispatcher 1, with claim = 1000 * attempt + id; "id,..." */
static inline const char *claim_all(PGconn *conn)
{
    static char text[ROWS_SIZE];
    static int first_claim = 1;
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM"
                   " outbox.claim(1, %d, '{a,b}', '{9,9}')",
                   first_claim);
    first_claim += 18;
    (void)snprintf(text, sizeof text, "%s", rows_of(conn, sql));
    return text;
}
#define CLAIMED(conn, expected) ck_assert_str_eq(claim_all(conn), expected)

/* outbox.settle of the job that dispatcher 1 owns, whatever its claim is; outcome: JSON or NULL. */
static inline const char *settle_sql(long id, const char *outcome, bool skip_locked)
{
    static char sql[1024];
    (void)snprintf(sql, sizeof sql,
                   "SELECT s.* FROM (SELECT array_agg(claim) AS claims FROM outbox.job WHERE id = "
                   "%ld) AS j, outbox.settle(1, '{%ld}', j.claims, %s%s%s, %s) AS s",
                   id, id, outcome != NULL ? "'[" : "NULL", outcome != NULL ? outcome : "",
                   outcome != NULL ? "]'" : "", skip_locked ? "true" : "false");
    return sql;
}

static inline const char *settle(PGconn *conn, long id, const char *outcome)
{
    static char text[256];
    (void)snprintf(text, sizeof text, "%s", rows_of(conn, settle_sql(id, outcome, false)));
    const char *answer = strchr(text, '|');
    return answer != NULL ? answer + 1 : text;
}
#define DONE(conn, id)            ck_assert_str_eq(settle(conn, id, NULL), "done")
#define RETRY                     "{\"outcome\": \"retry\", \"reason\": \"exit 1\", \"delay_ms\": 0}"
#define RETRY_LATER               "{\"outcome\": \"retry\", \"reason\": \"exit 1\", \"delay_ms\": 60000}"
#define RELEASE                   "{\"outcome\": \"release\"}"
#define DEAD                      "{\"outcome\": \"dead\", \"reason\": \"exit 65\"}"
#define DEAD_BLOCKS               "{\"outcome\": \"dead\", \"reason\": \"exit 65\", \"block\": true}"
#define BECAME(conn, id, outcome) ck_assert_str_eq(settle(conn, id, outcome), "done")

static inline PGconn *with_dispatcher(void)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    return conn;
}

#endif
