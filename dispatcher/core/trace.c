/* trace.c - see trace.h. The text of a statement is a constant of ours; of its parameters the log
 * has the number and the size alone, of an error the SQLSTATE: its message may quote them. */
#include "core/trace.h"

#include "base/log.h"
#include "db/pgtrace.h"

static void on_statement(struct pgconn *c, const struct pg_trace *t, void *arg)
{
    (void)c;
    char name[PG_TRACE_NAME_SIZE];
    pg_trace_name(t->sql, name);
    log_info("sql", LOG_STR("connection", (const char *)arg), LOG_STR("statement", name),
             LOG_STR("outcome", pg_trace_outcome_name(t->outcome)), LOG_UINT("us", t->us),
             LOG_INT("rows", t->rows), LOG_INT("params", t->params), LOG_UINT("bytes", t->bytes),
             LOG_STR("sqlstate", t->sqlstate[0] != '\0' ? t->sqlstate : NULL));
}

void trace_connection(struct pgconn *c, const char *name, bool is_on)
{
    pgconn_trace(c, is_on ? on_statement : NULL, (void *)(uintptr_t)name);
}
