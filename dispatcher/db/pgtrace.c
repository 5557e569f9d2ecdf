/* pgtrace.c - see pgtrace.h. Called by pgpipe.c and pgconn.c where a statement goes out and where
 * its answer is; does nothing unless somebody listens. */
#include "db/pgtrace.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/pgconn_state.h"

const char *pg_trace_outcome_name(enum pg_trace_outcome outcome)
{
    static const char *const names[] = {"ok", "refused", "skipped", "lost"};
    ob_assert(outcome <= PG_TRACE_LOST);
    return names[outcome];
}

void pgconn_trace(struct pgconn *c, pg_trace_cb cb, void *arg)
{
    c->trace = cb;
    c->trace_arg = arg;
}

static bool is_word(char ch)
{
    return ch == '_' || ch == '.' || isalnum((unsigned char)ch) != 0;
}

void pg_trace_name(const char *sql, char ret_name[PG_TRACE_NAME_SIZE])
{
    static const char schema[] = "outbox.";
    for (const char *at = strstr(sql, schema); at != NULL; at = strstr(at + 1, schema)) {
        size_t len = 0;
        while (is_word(at[len]))
            len++;
        if (at[len] == '(' && (at == sql || !is_word(at[-1]))) {
            (void)snprintf(ret_name, PG_TRACE_NAME_SIZE, "%.*s", (int)len, at);
            return;
        }
    }
    size_t n = 0;
    for (; *sql != '\0' && n < PG_TRACE_NAME_SIZE - 1; sql++) {
        bool is_space = isspace((unsigned char)*sql) != 0;
        if (!is_space)
            ret_name[n++] = *sql;
        else if (n > 0 && ret_name[n - 1] != ' ')
            ret_name[n++] = ' ';
    }
    while (n > 0 && ret_name[n - 1] == ' ')
        n--;
    ret_name[n] = '\0';
}

static void tell(struct pgconn *c, struct pg_trace *t, uint64_t sent_ns)
{
    uint64_t now = uv_hrtime();
    uint64_t from = sent_ns > c->traced_ns ? sent_ns : c->traced_ns;
    t->us = sent_ns > 0 && now > from ? (now - from) / 1000 : 0;
    c->traced_ns = now;
    c->trace(c, t, c->trace_arg);
}

uint64_t pgtrace_now(const struct pgconn *c)
{
    return c->trace != NULL ? uv_hrtime() : 0;
}

void pgtrace_session(struct pgconn *c)
{
    struct pg_trace t = {.sql = c->session_sql};
    if (c->trace != NULL && c->session_sql != NULL)
        tell(c, &t, c->session_sent_ns);
}

static void tell_stmt(struct pgconn *c, const struct pgstmt *s, struct pg_trace *t)
{
    t->sql = s->sql;
    t->params = s->nparams;
    t->bytes = s->bytes;
    tell(c, t, s->sent_ns);
}

void pgtrace_success(struct pgconn *c, const struct pgstmt *s, PGresult *res)
{
    struct pg_trace t = {.outcome = PG_TRACE_OK};
    if (c->trace == NULL)
        return;
    t.rows = PQresultStatus(res) == PGRES_TUPLES_OK ? PQntuples(res)
                                                    : strtoll(PQcmdTuples(res), NULL, 10);
    tell_stmt(c, s, &t);
}

void pgtrace_failure(struct pgconn *c, const struct pgbatch *b, const struct pg_error *error,
                     bool is_skipped)
{
    struct pg_trace t = {.sql = "COMMIT", .outcome = PG_TRACE_REFUSED};
    if (c->trace == NULL)
        return;
    if (is_skipped)
        t.outcome = PG_TRACE_SKIPPED;
    else
        (void)snprintf(t.sqlstate, sizeof t.sqlstate, "%s", error->sqlstate);
    if (b->answered_count < b->count)
        tell_stmt(c, &b->stmts[b->answered_count], &t);
    else
        tell(c, &t, b->sync_sent_ns);
}

void pgtrace_commit(struct pgconn *c, const struct pgbatch *b)
{
    struct pg_trace t = {.sql = "COMMIT", .outcome = PG_TRACE_OK};
    if (c->trace != NULL && b->error.err == 0) /* else it was none */
        tell(c, &t, b->sync_sent_ns);
}

void pgtrace_lost(struct pgconn *c, const struct pgbatch *b)
{
    for (size_t i = b->answered_count; c->trace != NULL && i < b->sent_count; i++) {
        struct pg_trace t = {.outcome = PG_TRACE_LOST};
        tell_stmt(c, &b->stmts[i], &t);
    }
}
