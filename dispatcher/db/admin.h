/* admin.h - what the commands ask the database: one synchronous connection, one call a question.
 *
 * For the commands of cmd/ alone; the daemon uses pgconn and store. All SQL of the commands is in
 * admin.c. Results are text, as PostgreSQL writes it; times are RFC 3339 in UTC, spans are
 * milliseconds; bytea columns are raw bytes. It prints nothing: errors come back with a message, a
 * hint and what kind of user may do what was asked, and never hold a password. */
#ifndef OB_DB_ADMIN_H
#define OB_DB_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "base/err.h"

enum { ADMIN_MESSAGE_SIZE = 1024 };

/* Who may do it: which `outbox grant` a missing privilege asks for. */
enum admin_right { ADMIN_READER, ADMIN_PRODUCER, ADMIN_DISPATCHER, ADMIN_OWNER };

struct admin_error {
    int err; /* OB_ECONN, OB_EDB, OB_ESCHEMA, OB_EPRIVILEGE, OB_EUSAGE (connection string) */
    char sqlstate[6]; /* "": the server did not speak */
    char message[ADMIN_MESSAGE_SIZE];
    char hint[ADMIN_MESSAGE_SIZE / 2];
    enum admin_right right;
};

struct admin;
struct admin_rows; /* a result */

/* Whether libpq can read it at all: 0, or OB_EUSAGE and why, without the passwords in it. */
int admin_check_conninfo(const char *conninfo, struct admin_error *reterr) OB_MUST_CHECK;
/* conninfo: a connection string or URI; NULL or "": the PG* variables. name: the application_name
 * unless something else sets one. Waits at most connect_timeout (10 s by default). */
int admin_connect(const char *conninfo, const char *name, struct admin **ret_admin,
                  struct admin_error *reterr) OB_MUST_CHECK;
void admin_close(struct admin *a);
PGconn *admin_pgconn(struct admin *a); /* for migrate.h; stays the admin's */
const char *admin_user(const struct admin *a);
const char *admin_database(const struct admin *a);
int admin_libpq_version(void);

/* Replaces in text what a connection string must not show (passwords) by "***"; a text that might
 * hold a part of one is replaced as a whole. */
void admin_redact(char *text, size_t size, const char *conninfo);

size_t admin_count(const struct admin_rows *rows);
/* NULL for SQL NULL. Lives as long as the rows. */
const char *admin_text(const struct admin_rows *rows, size_t row, int column);
size_t admin_length(const struct admin_rows *rows, size_t row, int column);
int64_t admin_int(const struct admin_rows *rows, size_t row, int column, int64_t if_null);
bool admin_bool(const struct admin_rows *rows, size_t row, int column);
void admin_rows_free(struct admin_rows *rows); /* NULL is fine */

/* The schema's level, and the oldest program's level that may use it. */
int admin_level(struct admin *a, int *ret_level, int *ret_min_level,
                struct admin_error *reterr) OB_MUST_CHECK;

struct admin_job { /* outbox.enqueue_bytes; NULL or 0: not given */
    const char *task;
    const char *payload;
    size_t payload_len;
    const char *encoding; /* "json", "msgpack" */
    const char *priority; /* numbers as text; NULL: the default */
    const char *max_attempts;
    const char *delay;  /* interval */
    const char *run_at; /* timestamptz */
    const char *expires_at;
    const char *headers; /* JSON object */
    const char *key;
    const char *unique_key;
    const char *repeat_every; /* interval */
    const char *after;        /* "{1,2}" */
    const char *on_failed_dependency;
    const char *notify_done; /* "true" */
};
int admin_enqueue(struct admin *a, const struct admin_job *job, int64_t *ret_id, bool *ret_existing,
                  struct admin_error *reterr) OB_MUST_CHECK;

struct admin_filter {   /* of jobs; NULL, 0: no condition */
    const char *tasks;  /* "{a,b}" */
    const char *states; /* "{ready,dead}" */
    const char *key;
    int64_t before_us; /* created before, unix time */
    int64_t after_us;
    uint64_t min_age_ms;
    const char *error;        /* in the reason, in any case of letters */
    uint64_t ended_for_ms;    /* dead or done at least so long */
    uint64_t ended_within_ms; /* and at most so long */
    int64_t limit;            /* rows; 0: all */
};
/* Columns of a job, also for admin_job_by_id. */
enum admin_job_column {
    JOB_ID,
    JOB_TASK,
    JOB_STATE,
    JOB_PRIORITY,
    JOB_KEY,
    JOB_RUN_AT,
    JOB_RUN_IN_MS, /* negative: past; NULL as run_at */
    JOB_EXPIRES_AT,
    JOB_ATTEMPTS,
    JOB_MAX_ATTEMPTS,
    JOB_LOST,
    JOB_CREATED_AT,
    JOB_AGE_MS,
    JOB_FINISHED_AT,
    JOB_REASON,
    JOB_ENCODING,
    JOB_PAYLOAD_SIZE,
    JOB_OWNER,
    JOB_DISPATCHER,
    JOB_HEADERS,
    JOB_CANCELLING,
    JOB_PAUSED,
    JOB_COLUMNS
};
/* Newest first. */
int admin_jobs(struct admin *a, const struct admin_filter *filter, struct admin_rows **ret_rows,
               struct admin_error *reterr) OB_MUST_CHECK;
/* All are read. */
int admin_jobs_count(struct admin *a, const struct admin_filter *filter, int64_t *ret_count,
                     struct admin_error *reterr) OB_MUST_CHECK;
/* Of more than 10,000 an estimate is made. */
int admin_jobs_estimate(struct admin *a, const struct admin_filter *filter, int64_t *ret_count,
                        bool *ret_is_estimate, struct admin_error *reterr) OB_MUST_CHECK;
/* One row, or none. */
int admin_job_by_id(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                    struct admin_error *reterr) OB_MUST_CHECK;
/* One row, one column of raw bytes (NULL when there is no such job). */
int admin_payload(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                  struct admin_error *reterr) OB_MUST_CHECK;

enum admin_attempt_column {
    ATTEMPT_NUMBER,
    ATTEMPT_STARTED_AT,
    ATTEMPT_DURATION_MS,
    ATTEMPT_OUTCOME,
    ATTEMPT_REASON,
    ATTEMPT_EXIT_CODE,
    ATTEMPT_SIGNAL,
    ATTEMPT_HTTP_STATUS,
    ATTEMPT_OUTPUT_HEAD, /* raw bytes */
    ATTEMPT_OUTPUT_TAIL, /* raw bytes */
    ATTEMPT_OUTPUT_BYTES,
    ATTEMPT_DISPATCHER
};
int admin_attempts(struct admin *a, int64_t id, struct admin_rows **ret_rows,
                   struct admin_error *reterr) OB_MUST_CHECK;

enum admin_stats_column {
    STATS_TASK,
    STATS_STATE,
    STATS_COUNT,
    STATS_OLDEST_MS,
    STATS_HANDLERS,
    STATS_PAUSED_SINCE,
    STATS_PAUSED_REASON,
    STATS_ESTIMATED
};
/* Counts above some 10,000 are estimates (STATS_ESTIMATED); exact: every row is read. */
int admin_stats(struct admin *a, struct admin_rows **ret_rows,
                struct admin_error *reterr) OB_MUST_CHECK;
int admin_stats_exact(struct admin *a, struct admin_rows **ret_rows,
                      struct admin_error *reterr) OB_MUST_CHECK;

enum admin_dispatcher_column {
    DISPATCHER_ID,
    DISPATCHER_NAME,
    DISPATCHER_HOST,
    DISPATCHER_PID,
    DISPATCHER_VERSION,
    DISPATCHER_TASKS,      /* a JSON array */
    DISPATCHER_TASK_NAMES, /* "a, b" */
    DISPATCHER_STARTED_AT,
    DISPATCHER_UP_MS,
    DISPATCHER_BEAT_AT,
    DISPATCHER_SINCE_BEAT_MS,
    DISPATCHER_LEASE_MS,
    DISPATCHER_LIVE,
    DISPATCHER_RUNNING
};
int admin_dispatchers(struct admin *a, struct admin_rows **ret_rows,
                      struct admin_error *reterr) OB_MUST_CHECK;

/* outbox.cancel, outbox.retry or outbox.requeue of each id, in one statement; rows (id, answer) in
 * the ids' order.
 */
enum admin_verb { ADMIN_CANCEL, ADMIN_RETRY, ADMIN_REQUEUE };
enum { ADMIN_IDS_MAX = 500 };
int admin_answer(struct admin *a, enum admin_verb verb, const int64_t *ids, size_t count,
                 struct admin_rows **ret_rows, struct admin_error *reterr) OB_MUST_CHECK;

enum admin_pause_column { PAUSE_TASK, PAUSE_SINCE, PAUSE_MS, PAUSE_BY, PAUSE_REASON };
int admin_pauses(struct admin *a, struct admin_rows **ret_rows,
                 struct admin_error *reterr) OB_MUST_CHECK;
/* outbox.pause, outbox.resume: one row, the answer. reason may be NULL. */
int admin_pause(struct admin *a, const char *task, const char *reason, struct admin_rows **ret_rows,
                struct admin_error *reterr) OB_MUST_CHECK;
int admin_resume(struct admin *a, const char *task, struct admin_rows **ret_rows,
                 struct admin_error *reterr) OB_MUST_CHECK;

/* What can be purged. */
enum admin_purge { ADMIN_PURGE_DEAD, ADMIN_PURGE_DONE, ADMIN_PURGE_ATTEMPTS };
enum { ADMIN_PURGE_BATCH = 1000 };
/* The tasks that have any (not of attempts: one row, NULL): a batch goes by task, whose rows an
 * index has in the order of their age. */
int admin_purge_tasks(struct admin *a, enum admin_purge what, struct admin_rows **ret_rows,
                      struct admin_error *reterr) OB_MUST_CHECK;
/* How many attempts are so old. */
int admin_old_attempts(struct admin *a, uint64_t older_than_ms, int64_t *ret_count,
                       struct admin_error *reterr) OB_MUST_CHECK;
/* One batch, a transaction of its own; *ret_count: how many were removed. task NULL: of all. */
int admin_purge(struct admin *a, enum admin_purge what, const char *task, uint64_t older_than_ms,
                int64_t *ret_count, struct admin_error *reterr) OB_MUST_CHECK;

#endif
