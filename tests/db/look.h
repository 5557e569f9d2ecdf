/* look.h - calling outbox.look() in tests: its arguments with defaults, its answer parsed. */
#ifndef OB_TEST_LOOK_H
#define OB_TEST_LOOK_H

#include <inttypes.h>
#include <stdlib.h>

#include "check_sql.h"
#include "db/seen.h"

/* As SQL; NULL: the default, by which dispatcher 1 looks at the whole stream for a and b with nine
 * slots each, and numbers its claims from 1. */
struct look {
    const char *owner;
    const char *first_claim;
    const char *tasks;
    const char *slots;
    const char *shares;
    const char *shared;
    const char *position; /* "'700', 3" */
    const char *older;
    const char *pending; /* "'{700}', '{0}'" */
    const char *lanes;   /* "'{5}', '{700}', '{3}', '{9}'" */
    const char *revisit;
    const char *due_from;
    const char *rest; /* ", 1000, 65536" */
};

static inline const char *or_default(const char *value, const char *otherwise)
{
    return value != NULL ? value : otherwise;
}

/* "outbox.look(...)". Static storage. */
static inline const char *look_call(const struct look *l)
{
    static char sql[60000];
    int len = snprintf(
        sql, sizeof sql,
        "outbox.look(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, NULL, NULL%s)",
        or_default(l->owner, "1"), or_default(l->first_claim, "1"), or_default(l->tasks, "'{a,b}'"),
        or_default(l->slots, "'{9,9}'"), or_default(l->shares, "'{f,f}'"),
        or_default(l->shared, "0"), or_default(l->position, "'0', 0"), or_default(l->older, "'0'"),
        or_default(l->pending, "'{}', '{}'"), or_default(l->lanes, "'{}', '{}', '{}', '{}'"),
        or_default(l->revisit, "'{}'"), or_default(l->due_from, "'-infinity'"),
        or_default(l->rest, ""));
    ck_assert_int_lt(len, (int)sizeof sql);
    return sql;
}

/* The newest look's answer: ids of what it claimed, in their order, and what it saw. */
static struct {
    char ids[4000];
    size_t count;
    struct seen *seen;
    char state[200000];
} saw;

static inline void look(PGconn *conn, const struct look *l)
{
    static char sql[61000];
    size_t len = 0;
    (void)snprintf(sql, sizeof sql, "SELECT id, state FROM %s", look_call(l));
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, sql);
    int last = PQntuples(res) - 1;
    ck_assert_int_ge(last, 0);
    ck_assert(PQgetisnull(res, last, 0));
    saw.ids[0] = '\0';
    saw.count = (size_t)last;
    for (int i = 0; i < last; i++) {
        ck_assert(PQgetisnull(res, i, 1));
        if (len < sizeof saw.ids)
            len += (size_t)snprintf(saw.ids + len, sizeof saw.ids - len, "%s%s", i > 0 ? " " : "",
                                    PQgetvalue(res, i, 0));
    }
    (void)snprintf(saw.state, sizeof saw.state, "%s", PQgetvalue(res, last, 1));
    PQclear(res);
    seen_free(saw.seen);
    saw.seen = seen_parse(saw.state, strlen(saw.state));
    ck_assert_msg(saw.seen != NULL, "unreadable: %s", saw.state);
}

/* Where the newest look ended, for the next one's position. Static storage. */
static inline const char *here(void)
{
    static char text[80];
    (void)snprintf(text, sizeof text, "'%" PRIu64 "', %" PRId64, saw.seen->position_xid,
                   saw.seen->position_id);
    return text;
}

/* One part of the state, as text; "-" when it is absent. Static storage. */
static inline const char *said(const char *member)
{
    static char text[8000];
    const struct seen *s = saw.seen;
    const struct seen_rows *rows = strcmp(member, "blocked") == 0  ? &s->blocked
                                   : strcmp(member, "lanes") == 0  ? &s->lanes
                                   : strcmp(member, "walked") == 0 ? &s->walked
                                                                   : NULL;
    const struct seen_xids *xids = strcmp(member, "running") == 0   ? &s->running
                                   : strcmp(member, "pending") == 0 ? &s->pending
                                   : strcmp(member, "ended") == 0   ? &s->ended
                                   : strcmp(member, "held") == 0    ? &s->held
                                                                    : &s->missed;
    size_t len = 0;
    (void)snprintf(text, sizeof text, "-");
    for (size_t i = 0; rows != NULL && i < rows->count && len < sizeof text; i++) {
        const struct seen_row *r = &rows->items[i];
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%d:%" PRId64, i > 0 ? " " : "",
                                r->lane, r->id);
    }
    for (size_t i = 0; rows == NULL && i < xids->count && len < sizeof text; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%" PRIu64, i > 0 ? " " : "",
                                xids->items[i]);
    return text;
}

/* BEGIN, with a transaction id of its own, which is returned. */
static inline uint64_t begin_writing(PGconn *conn)
{
    pg_exec_ok(conn, "BEGIN");
    return strtoull(rows_of(conn, "SELECT pg_current_xact_id()"), NULL, 10);
}

/* A transaction's id as text: static ring of 4. */
static inline const char *xid_text(uint64_t xid)
{
    static char ring[4][32];
    static unsigned at;
    at = (at + 1) % 4;
    (void)snprintf(ring[at], sizeof ring[at], "%" PRIu64, xid);
    return ring[at];
}

#endif
