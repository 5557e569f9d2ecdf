/* store.h - what the dispatcher says to the database: calls of the outbox.* functions, and their
 * answers.
 *
 * store.c is the only file of the daemon with SQL text. Each call sends one batch on the given
 * connection and answers through its callback exactly once, with `error` NULL when it committed. It
 * keeps no state and does not log. Views handed to a callback (peers, rival) end with it; a struct
 * batch does not. */
#ifndef OB_DB_STORE_H
#define OB_DB_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/outcome.h"
#include "db/batch.h"
#include "db/pgconn.h"
#include "db/seen.h"

/* The settings that a session needs, whatever the role or database has changed. Caller frees
 * (ob_free). */
char *store_session_sql(uint64_t lease_ms);

typedef void (*store_cb)(void *arg, const struct pg_error *error);

/* The schema's level, and the oldest program that may run against it. */
typedef void (*store_level_cb)(void *arg, const struct pg_error *error, int level, int min_level);
void store_level(struct pgconn *c, store_level_cb cb, void *arg);

/* A text that tells this database from every other one on the network: for the name's lock file. */
typedef void (*store_text_cb)(void *arg, const struct pg_error *error, const char *text);
void store_database_identity(struct pgconn *c, store_text_cb cb, void *arg);

/* LISTEN on the wake channel, STORE_CHANNEL; and a notification on it, to prove that it arrives. */
#define STORE_CHANNEL "outbox"
void store_listen(struct pgconn *c, store_cb cb, void *arg);
void store_notify(struct pgconn *c, const char *payload, store_cb cb, void *arg);

struct store_identity { /* borrowed for the call */
    int64_t id;
    int64_t previous; /* our own id of the connection before, whose row is no rival; 0: none */
    const char *name;
    const char *host;
    const char *boot_id;
    const char *lock_id;
    int pid;
    int backends[2];
    const char *const *tasks;
    size_t tasks_count;
    uint64_t lease_ms;
};
struct store_rival { /* the row that has our name */
    int64_t id;
    const char *host;
    const char *boot_id;
    const char *lock_id;
    int pid;
    int64_t beat;
    int64_t since_us;
    uint64_t lease_ms;
};
/* rival NULL: registered. */
typedef void (*store_register_cb)(void *arg, const struct pg_error *error,
                                  const struct store_rival *rival);
void store_register(struct pgconn *c, const struct store_identity *me, store_register_cb cb,
                    void *arg);

typedef void (*store_bool_cb)(void *arg, const struct pg_error *error, bool answer);
/* false: jobs are still owned, the row stays until its lease is over. */
void store_unregister(struct pgconn *c, int64_t id, store_bool_cb cb, void *arg);
/* The heartbeat, and the sessions that the row names from now on. false: taken over. */
void store_extend(struct pgconn *c, int64_t id, const int backends[2], store_bool_cb cb, void *arg);
/* Names the session after the dispatcher, so that outbox.terminate() finds it, and lets the server
 * end it when it is silent for a whole lease: not before, since a session may wait for the schema
 * or the name. */
void store_set_name(struct pgconn *c, int64_t id, uint64_t lease_ms, store_cb cb, void *arg);
/* What operators have asked for; asked when STORE_CONTROL is notified, and at each heartbeat.
 * Views.
 */
#define STORE_CONTROL "control"
struct store_orders {
    const int64_t *cancelled; /* jobs of ours that are to end */
    size_t cancelled_count;
    const char *const *paused; /* tasks that are not to be claimed */
    size_t paused_count;
    const struct store_token *requeued; /* runs of ours that are to end, and to be given back */
    size_t requeued_count;
};
typedef void (*store_orders_cb)(void *arg, const struct pg_error *error,
                                const struct store_orders *orders);
void store_orders(struct pgconn *c, int64_t id, store_orders_cb cb, void *arg);
/* No dispatcher claims jobs of the task any more. */
void store_pause(struct pgconn *c, const char *task, const char *reason, store_cb cb, void *arg);
/* New jobs of the task are refused while so many are ready. */
void store_limit(struct pgconn *c, const char *task, unsigned max_ready, store_cb cb, void *arg);
/* The tasks that we handle, for those who look. */
void store_announce(struct pgconn *c, int64_t id, const char *const *tasks, size_t n,
                    store_bool_cb cb, void *arg);
/* Asleep for these tasks: who enqueues for them notifies. Stacks. And awake: lets all of them go.
 */
void store_watch(struct pgconn *c, const char *const *tasks, size_t n, store_cb cb, void *arg);
void store_unwatch(struct pgconn *c, const char *const *tasks, size_t n, store_cb cb, void *arg);
void store_unwatch_all(struct pgconn *c, store_cb cb, void *arg);

struct store_peer {
    int64_t id;
    const char *name;
    const char *host;
    int64_t beat;
    uint64_t lease_ms;
};
typedef void (*store_peers_cb)(void *arg, const struct pg_error *error,
                               const struct store_peer *peers, size_t n);
void store_peers(struct pgconn *c, store_peers_cb cb, void *arg);

/* Ends the sessions of another dispatcher: a frozen one holds row locks that no server timeout
 * ends. */
void store_terminate(struct pgconn *c, int64_t id, store_cb cb, void *arg);
/* Takes back a batch of its jobs. beat: the one that was seen not to move; -1: any. started false:
 * nothing of it ran, attempts are given back. released: how many; -1: it has beaten since, or is
 * gone. */
typedef void (*store_count_cb)(void *arg, const struct pg_error *error, int released);
void store_take_over(struct pgconn *c, int64_t id, int64_t beat, bool started, store_count_cb cb,
                     void *arg);

struct store_token {
    int64_t id;
    int64_t claim;
};
/* Jobs of `previous` that we still run become ours, under claims from first_claim on; adopted are
 * those that could be, with their new claims. */
typedef void (*store_adopt_cb)(void *arg, const struct pg_error *error,
                               const struct store_token *adopted, size_t n);
void store_adopt(struct pgconn *c, int64_t owner, int64_t previous,
                 const struct store_token *tokens, size_t n, int64_t first_claim, store_adopt_cb cb,
                 void *arg);

/* A payload that was too large to come with its claim. bytes is a view; NULL: no such job any more.
 */
typedef void (*store_payload_cb)(void *arg, const struct pg_error *error, const char *bytes,
                                 size_t len);
void store_payload(struct pgconn *c, int64_t id, store_payload_cb cb, void *arg);

struct store_result { /* one finished attempt; its delay is already decided */
    struct store_token token;
    const struct outcome *outcome;
    uint64_t delay_ms;
};
enum store_answer {
    STORE_RECORDED,
    STORE_CANCELLED, /* recorded, and the job is gone: somebody cancelled it while it ran */
    STORE_LOST,
    STORE_GONE,
    STORE_BUSY
};

/* A look at the stream: the arguments of outbox.look(), in its order. Everything is borrowed for
 * the call, but for pending_xids and pending_ids, which store_turn() frees. */
struct store_look {
    int64_t first_claim;
    const char **tasks; /* sorted by strcmp */
    int *slots;
    bool *shares;
    size_t tasks_count;
    int shared_slots;
    bool has_position; /* false: only what comes from now on */
    uint64_t position_xid;
    int64_t position_id;
    uint64_t older;
    uint64_t *pending_xids;
    int64_t *pending_ids;
    size_t pending_count;
    int *lanes;
    uint64_t *lane_xids;
    int64_t *lane_ids;
    int *lane_limits;
    size_t lanes_count;
    bool apart;        /* what is walked takes no more slots than there are */
    int walk_rows;     /* 0: no lanes are walked together */
    uint64_t walk_xid; /* where that begins */
    int64_t walk_id;
    int walk_priority;
    const int *walk_slots; /* by task */
    bool list_running;
    const int64_t *revisit;
    size_t revisit_count;
    int64_t due_from_us; /* INT64_MIN: from the beginning */
    uint64_t oldest;     /* 0: not known */
    uint64_t newest;
};

/* What finished is recorded, then what fits is claimed: one transaction. Either may be absent. */
struct store_turn {
    const struct store_result *results;
    size_t results_count;    /* 0: none */
    bool skip_locked;        /* do not wait for a result's row that somebody locks: STORE_BUSY */
    struct store_look *look; /* NULL: none */
};
struct store_turned {
    bool is_settle_refused;           /* with an error: it was the results' */
    const enum store_answer *answers; /* answers[i] belongs to results[i]; a view */
    size_t answers_count;
    bool made_ready;     /* other jobs became ready by it, and we are not notified of that */
    struct batch *batch; /* what was claimed; the callback's. NULL: there was no look */
    struct seen *seen;   /* likewise; freed with seen_free */
};
/* More output of children than 64 MiB with base64 is refused from inside the call. */
typedef void (*store_turn_cb)(void *arg, const struct pg_error *error,
                              const struct store_turned *turned);
void store_turn(struct pgconn *c, int64_t owner, const struct store_turn *turn, store_turn_cb cb,
                void *arg);

/* The slow check of a stretch that was read long ago. */
struct store_sweep {
    const char **tasks; /* sorted by strcmp */
    size_t tasks_count;
    uint64_t from_xid;
    int64_t from_id;
    uint64_t to_xid;
    int64_t to_id;
};
typedef void (*store_seen_cb)(void *arg, const struct pg_error *error, struct seen *seen);
void store_sweep(struct pgconn *c, const struct store_sweep *sweep, store_seen_cb cb, void *arg);

/* Ready rows that carry a transaction of the future get one of today. count: how many. */
void store_restamp(struct pgconn *c, store_count_cb cb, void *arg);
/* A transaction id of our own: every one that began before is below it. */
typedef void (*store_xid_cb)(void *arg, const struct pg_error *error, uint64_t xid);
void store_take_xid(struct pgconn *c, store_xid_cb cb, void *arg);
/* Those of the transactions that may have written to outbox.job; xids is a view. */
typedef void (*store_xids_cb)(void *arg, const struct pg_error *error, const uint64_t *xids,
                              size_t n);
void store_still_writing(struct pgconn *c, const uint64_t *xids, size_t n, store_xids_cb cb,
                         void *arg);

#endif
