/* admin_purge.c - removing what was kept, for `outbox purge`: see admin.h. */
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "db/admin_conn.h"

int admin_purge_tasks(struct admin *a, enum admin_purge what, struct admin_rows **ret_rows,
                      struct admin_error *reterr)
{
    static const char *const sql[] = {
        "SELECT DISTINCT j.task FROM outbox.jobs j WHERE j.state = 'dead'"
        " AND j.finished_at IS NOT NULL ORDER BY 1",
        "SELECT DISTINCT j.task FROM outbox.jobs j WHERE j.state = 'done'"
        " AND j.finished_at IS NOT NULL ORDER BY 1",
        "SELECT NULL::text",
    };
    return admin_query(a, ADMIN_READER, sql[what], 0, NULL, ret_rows, reterr);
}

int admin_old_attempts(struct admin *a, uint64_t older_than_ms, int64_t *ret_count,
                       struct admin_error *reterr)
{
    char number[24];
    (void)snprintf(number, sizeof number, "%" PRIu64, older_than_ms);
    const char *values[] = {number};
    return admin_query_number(a, ADMIN_READER,
                              "SELECT count(*)::text FROM outbox.attempts t WHERE t.started_at <"
                              " clock_timestamp() - $1::bigint * interval '1 ms'",
                              1, values, ret_count, reterr);
}

int admin_purge(struct admin *a, enum admin_purge what, const char *task, uint64_t older_than_ms,
                int64_t *ret_count, struct admin_error *reterr)
{
    static const char *const sql[] = {
        "SELECT outbox.purge_dead($1::bigint * interval '1 ms', $2::integer, $3::text)::text",
        "SELECT outbox.purge_done($1::bigint * interval '1 ms', $2::integer, $3::text)::text",
        "SELECT outbox.purge_attempts($1::bigint * interval '1 ms', $2::integer)::text",
    };
    char number[24];
    char batch[24];
    (void)snprintf(number, sizeof number, "%" PRIu64, older_than_ms);
    (void)snprintf(batch, sizeof batch, "%d", ADMIN_PURGE_BATCH);
    const char *values[] = {number, batch, task};
    ob_assert(what != ADMIN_PURGE_ATTEMPTS || task == NULL);
    return admin_query_number(a, ADMIN_DISPATCHER, sql[what], what == ADMIN_PURGE_ATTEMPTS ? 2 : 3,
                              values, ret_count, reterr);
}
