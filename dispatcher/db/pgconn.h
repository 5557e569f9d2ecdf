/* pgconn.h - one PostgreSQL connection on the libuv loop: connecting, pipelined statements,
 * notifications, reconnecting. Never blocks the loop (host names are resolved by uv_getaddrinfo).
 *
 * It knows no SQL of ours: store.c builds the batches. It does not log; it tells. All callbacks
 * come from the loop, never from inside a call of this header, except on_done for a batch refused
 * at once (see pgconn_submit).
 *
 * Life: pgconn_new -> connecting -> (session SQL) -> on_up -> ready -> on_down -> backoff ->
 * connecting -> ... -> pgconn_close. There is one way down, pgconn_fail(): every batch in flight
 * gets OB_ECONN first, then on_down comes, then the next attempt is timed. Every callback may
 * submit, fail or close. */
#ifndef OB_DB_PGCONN_H
#define OB_DB_PGCONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "base/list.h"

/* libpq's names, as libpq-fe.h has them: who only passes results on needs no libpq. */
typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef unsigned int Oid;

struct pgconn;

struct pg_error {      /* why a statement or a connection failed */
    int err;           /* OB_EDB, OB_ECONN, OB_EPRIVILEGE, OB_ESCHEMA; 0: none */
    char sqlstate[6];  /* "" when the server did not speak */
    char message[256]; /* primary message, one line, never a password */
    char hint[128];
};

/* Statements that go out together and commit together: one Sync, hence one implicit transaction.
 * The first failing statement rolls back all of it. Owned by who made it until pgconn_submit. */
struct pgbatch;
typedef void (*pgbatch_cb)(struct pgbatch *b, const struct pg_error *error, void *arg);

struct pgbatch *pgbatch_new(void); /* dies when memory is short (small, at most a few a turn) */
void pgbatch_free(struct pgbatch *b);
/* Adds a statement. The SQL text is borrowed (static); parameters are copied. A statement that
 * comes often may be prepared: `prepare` true lets pgconn parse it once a connection and then bind
 * by name. types may be NULL (the server infers); formats: 0 text, 1 binary, NULL all text; values
 * may be NULL pointers (SQL NULL). result_binary asks for binary results. */
void pgbatch_add(struct pgbatch *b, const char *sql, bool prepare, size_t nparams, const Oid *types,
                 const char *const *values, const int *lengths, const int *formats,
                 bool result_binary);
size_t pgbatch_count(const struct pgbatch *b);
/* The i-th statement's result inside the callback, NULL after an error. The batch owns it, unless
 * taken (PQclear it then). */
PGresult *pgbatch_result(struct pgbatch *b, size_t i);
/* Inside the callback, with an error: which statement failed, from 0. */
size_t pgbatch_failed_at(const struct pgbatch *b);
PGresult *pgbatch_take_result(struct pgbatch *b, size_t i);

struct pgconn_callbacks {
    void (*on_up)(struct pgconn *c, void *arg); /* connected and session SQL done */
    /* Lost or could not connect; once a loss or failed attempt, never after pgconn_close. retry_ms:
     * when the next attempt is made. tries: how many in a row, from 1 again once a connection
     * lasted 10 s. */
    void (*on_down)(struct pgconn *c, const struct pg_error *why, unsigned tries, uint64_t retry_ms,
                    void *arg);
    void (*on_notify)(struct pgconn *c, const char *channel, const char *payload, int backend_pid,
                      void *arg);
};

/* Borrowed for pgconn_new only. Hosts of a list are tried in turn; each attempt after a failed one
 * begins with the next, as libpq itself never gets behind a host that accepts and then fails or is
 * silent. Unless the user set them: keepalives and tcp_user_timeout that notice a vanished server
 * in about 20 s, and target_session_attrs=read-write. */
struct pgconn_config {
    const char *conninfo; /* connection string, URI or database name; NULL, "": PG* variables */
    const char *application_name; /* overrides the conninfo's */
    const char *session_sql;      /* after each connect, before on_up; several statements; NULL */
    uint64_t connect_timeout_ms;  /* of one attempt, all hosts and TLS included; 0: 10 s */
    /* The oldest batch unanswered for so long (since it became the oldest, or its last statement
     * was answered) means the connection is dead; 0: never. */
    uint64_t statement_stall_ms;
    uint64_t reconnect_max_ms; /* no pause between attempts is longer; 0: about 5 s */
};

/* Returns OB_ECONFIG for a connection string that libpq does not understand. Without more words:
 * libpq's own quote the string, and with it the password. */
int pgconn_new(uv_loop_t *loop, const struct pgconn_config *config,
               const struct pgconn_callbacks *callbacks, void *arg,
               struct pgconn **ret_conn) OB_MUST_CHECK;
/* Begins the first attempt. */
void pgconn_start(struct pgconn *c);
/* Queues the batch, which is the connection's from now on and freed after its callback. cb is
 * called exactly once: after the Sync's answer (error NULL: committed), after a refused statement
 * (rolled back), or with OB_ECONN when the connection is or goes down (whether it committed is then
 * unknown). When the connection is not up, cb is called from inside this call. */
void pgconn_submit(struct pgconn *c, struct pgbatch *b, pgbatch_cb cb, void *arg);
size_t pgconn_pending(const struct pgconn *c); /* batches submitted and not answered */
bool pgconn_is_up(const struct pgconn *c);
int pgconn_backend_pid(const struct pgconn *c);
/* Declares the connection dead: the one funnel. Reconnects after a backoff. reason is for on_down.
 * Harmless when it is down already. A batch that failed with a SQLSTATE of PG_RECONNECT (a demoted
 * primary says 25006) has this done after its callback. */
void pgconn_fail(struct pgconn *c, int err, const char *reason);
/* Answers what is pending with OB_ECONN, closes the socket, frees c; cb (may be NULL) when done.
 * Once, in any state; a host name being looked up is waited for. */
void pgconn_close(struct pgconn *c, void (*cb)(void *arg), void *arg);

/* An error of our own, without a SQLSTATE; the message is copied as one line. */
void pg_error_set(struct pg_error *e, int err, const char *message);
/* A failed result or connection as pg_error, by the table of SQLSTATEs. A result without a SQLSTATE
 * comes from libpq itself (connection lost, out of memory) and is OB_ECONN. */
void pg_error_from_result(struct pg_error *e, const PGresult *res);
void pg_error_from_conn(struct pg_error *e, const PGconn *conn);

/* What a SQLSTATE means for who sent the statement. One table. */
enum pg_advice {
    PG_RECONNECT,   /* 08, 57P, 25006, 25P03: the connection or the server's role is gone */
    PG_RETRY_SOON,  /* 40001 40P01 55P03: again at once, with jitter */
    PG_SLOW_DOWN,   /* 53: out of something */
    PG_PRIVILEGE,   /* 42501 */
    PG_WAIT_SCHEMA, /* 42, 3F: a migration may be running, or never ran */
    PG_GO_ON        /* anything else: an error of this statement alone */
};
enum pg_advice pg_advice(const char *sqlstate);

#endif
