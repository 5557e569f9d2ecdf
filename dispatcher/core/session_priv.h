/* session_priv.h - the inside of struct session, for session.c, join.c and join_name.c alone. */
#ifndef OB_CORE_SESSION_PRIV_H
#define OB_CORE_SESSION_PRIV_H

#include <stdio.h>

#include "core/name_lock.h"
#include "core/peers.h"
#include "core/session.h"

/* As outbox.take_over()'s own default: a full batch means that there may be more. */
enum { TAKE_OVER_BATCH = 1000 };

enum session_state {
    SESSION_DOWN,        /* a connection is missing; `step` is stopped */
    SESSION_CHECKING,    /* the level is asked, or `step` waits to ask again */
    SESSION_LISTENING,   /* LISTEN is sent */
    SESSION_PROVING,     /* our own notification is awaited; `step` bounds it */
    SESSION_NAMING,      /* the database's identity is asked; then `step` waits for the lock file */
    SESSION_REGISTERING, /* register is sent, or `step` waits while a rival is watched */
    SESSION_CLEARING,    /* the claims of a dead daemon of our name are being taken back */
    SESSION_ADOPTING,    /* adopt is sent, then what the old identity still owns is released */
    SESSION_RESTAMPING,  /* jobs from the future are being given a transaction of today */
    SESSION_ASKING,      /* orders are asked for, the first time */
    SESSION_READY,       /* `tick` beats */
    SESSION_CLOSING      /* session_close was called */
};

struct session {
    uv_loop_t *loop;
    struct config *config;
    struct session_callbacks cb;
    void *arg;
    enum session_state state;
    struct pgconn *work;
    struct pgconn *beat;
    char *session_sql;
    uv_timer_t tick; /* heartbeat and lease; runs from start to close */
    uv_timer_t step; /* the pause or the bound of the step in progress */

    /* identity */
    int64_t id;            /* this connection's; 0 before the first registration */
    int64_t registered;    /* the one that what runs is claimed under; adoption is from it */
    int64_t adopting_id;   /* its adoption was sent and not answered: perhaps it owns what runs */
    int64_t unreleased_id; /* one before, whose unstarted claims are not given back yet */
    int64_t next_claim;
    char host[256];
    char boot_id[64];
    struct name_lock lock;
    char *name;

    /* lease */
    uint64_t lease_ms; /* for life: the others expire us by what our row says */
    enum session_lease lease;
    uint64_t renewed_boot_ms; /* when the last acknowledged renewal was sent; 0: never */
    uint64_t register_sent_boot_ms;
    uint64_t register_sent_ms; /* the same by the monotonic clock, for watching a rival */
    uint64_t beat_due_ms;
    uint64_t beat_sent_boot_ms;
    int64_t beat_id; /* the identity that the beat under way is for */
    bool beat_under_way;
    uint64_t progress_ms;

    /* joining */
    char proof[64];
    unsigned proof_tries;
    bool is_row_stale;   /* a reload came after the registration was sent */
    char *database;      /* its identity, once known */
    struct peers rivals; /* the one rival of our name, watched like a peer */
    int64_t rival_id;
    int64_t rival_beat;
    int64_t cleared_id; /* in this join: its jobs were taken back, as far as nobody locks them */
    int64_t excused_id; /* ... and what is left of it does not keep us from registering */
    uint64_t waiting_since_ms; /* since when the name or the schema is waited for */

    /* peers */
    struct peers peers;
    uint64_t peers_asked_ms; /* when the newest list was asked for; one at a time is */
    struct {
        int64_t id; /* being taken over; 0: nobody */
        int64_t beat;
        char name[128];
        char host[128];
    } dying;

    /* orders */
    bool orders_wanted;    /* told, and not asked since */
    bool orders_under_way; /* asked on the heartbeat connection */
    int64_t orders_id;     /* for this identity */

    /* the end */
    void (*on_closed)(void *arg, bool left_rows);
    void *closed_arg;
    unsigned open_handles;
    bool is_closing_handles;
    bool left_rows;
};

void session_set_state(struct session *s, enum session_state state);
void session_renewed(struct session *s, uint64_t sent_boot_ms);

/* orders.c */
void orders_ask(struct session *s);                            /* if ready */
void orders_on_notify(struct session *s, const char *payload); /* in any state */
void orders_first(struct session *s);                          /* while joining */

/* join.c */
void join_init(struct session *s);
void join_deinit(struct session *s);
void join_begin(struct session *s); /* both connections are up */
void join_end(struct session *s);   /* one was lost: back to SESSION_DOWN */
void join_on_notify(struct session *s, const char *payload);
/* True when the step's answer is not to be looked at further. */
bool join_refused(struct session *s, enum session_state expected, const struct pg_error *error,
                  const char *what);
void join_later(struct session *s, uint64_t ms, uv_timer_cb cb);
/* Whether to log that it waits: the first time, and every ten seconds while it goes on. */
bool join_say_waiting(struct session *s, const char *key);
/* The tasks of the configuration, as the array that store.h wants. Caller frees the array. */
const char **join_task_names(const struct session *s);
void join_adopt(struct session *s);    /* registered: go on with what still runs */
void join_be_ready(struct session *s); /* orders are known */

/* join_name.c */
void join_take_name(struct session *s); /* ends in join_adopt() */

#endif
