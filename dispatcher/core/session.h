/* session.h - the dispatcher's standing with the database: two connections, its identity, its
 * lease.
 *
 * Joining, step by step: both connections up; the schema's level; LISTEN, proved by a notification
 * from the other connection; the name's lock file; the row in outbox.dispatcher; jobs that still
 * run from the connection before adopted under the new identity; jobs from the future restamped;
 * what operators have asked for. Then it is ready, until the work connection is lost. It beats
 * every lease/6, watches the other dispatchers, and takes over from the dead. It owns no job: it
 * asks for the tokens of those that run. It logs.
 */
#ifndef OB_CORE_SESSION_H
#define OB_CORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/config.h"
#include "db/store.h"

struct session;

enum session_lease {
    LEASE_GOOD,   /* renewed less than 2/3 of the lease ago */
    LEASE_ENDING, /* from 2/3 on: what runs must end */
    LEASE_OVER    /* from 11/12 on: what runs must be gone */
};

struct session_callbacks { /* none is called from inside a call of this header */
    void (*on_ready)(void *arg);
    /* The identity is gone, and with it every claim that is not adopted later. Jobs may run on. */
    void (*on_unready)(void *arg);
    void (*on_wake)(void *arg);                 /* somebody enqueued */
    void (*on_fatal)(void *arg, int exit_code); /* logged; end the program */
    void (*on_lease)(void *arg, enum session_lease lease);
    /* A renewal was acknowledged: LEASE_OVER is now at boot_ms (clock_boot_ms), unless renewed. */
    void (*on_renewed)(void *arg, uint64_t boot_ms);
    void (*on_lock)(void *arg, int fd); /* the name's lock is held: give the spawner a duplicate */
    /* The tokens of jobs that run or wait to be recorded; freed (ob_free) by the session. */
    struct store_token *(*tokens)(void *arg, size_t *ret_n);
    /* Those that are ours again, with new claims; every other one is lost. Before on_ready, and
     * perhaps before another attempt to join. */
    void (*on_adopted)(void *arg, const struct store_token *adopted, size_t n);
    bool (*is_clear)(void *arg); /* nothing that was lost runs any more */
    /* What operators ask for, whole: before on_ready, with each heartbeat, and when told. */
    void (*on_orders)(void *arg, const struct store_orders *orders);
};

/* The configuration is referenced. */
int session_new(uv_loop_t *loop, struct config *config, const struct session_callbacks *callbacks,
                void *arg, struct session **ret_session) OB_MUST_CHECK;
void session_start(struct session *s);
/* Another set of tasks, after a reload. Name, lease, lock folder and database stay as they were;
 * what of them changed is logged. */
void session_set_config(struct session *s, struct config *config);
/* Joined, and the work connection is up: turns may be sent. False as soon as it fails, before
 * on_unready tells. */
bool session_is_ready(const struct session *s);
/* The connection for turns, and the identity to claim under; only while ready. */
struct pgconn *session_conn(struct session *s);
int64_t session_id(const struct session *s);
/* Reserves n claim numbers, never issued before under this identity; returns the first. */
int64_t session_take_claims(struct session *s, size_t n);
/* A turn begins or was answered: heartbeats go on only while turns progress. */
void session_progress(struct session *s);
/* Pauses the task for all dispatchers, if the database can be asked. */
void session_pause(struct session *s, const char *task, const char *reason);
/* New jobs of the task are refused while so many are ready: asks the database for it. */
void session_limit(struct session *s, const char *task, unsigned max_ready);
/* Gives up the identity because the server answered something impossible. */
void session_fail(struct session *s, const char *reason);
/* Deletes the row (if no job is left), closes both connections, frees s; then cb. */
void session_close(struct session *s, void (*cb)(void *arg, bool left_rows), void *arg);

#endif
