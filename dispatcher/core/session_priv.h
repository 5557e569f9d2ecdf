/* session_priv.h - the inside of struct session, for session.c and join.c alone. */
#ifndef OB_CORE_SESSION_PRIV_H
#define OB_CORE_SESSION_PRIV_H

#include <stdio.h>

#include "core/name_lock.h"
#include "core/peers.h"
#include "core/session.h"

/* As outbox.take_over()'s own default: a full batch means that there may be more. */
enum { TAKE_OVER_BATCH = 1000, SESSION_TOKENS_MAX = 65536 };

enum session_state {
    SESSION_DOWN,        /* a connection is missing; `step` is stopped */
    SESSION_CHECKING,    /* the level is asked, or `step` waits to ask again */
    SESSION_LISTENING,   /* LISTEN is sent */
    SESSION_PROVING,     /* our own notification is awaited; `step` bounds it */
    SESSION_NAMING,      /* the database's identity is asked; then `step` waits for the lock file */
    SESSION_REGISTERING, /* register is sent, or `step` waits while a rival is watched */
    SESSION_CLEARING,    /* the claims of a dead daemon of our name are being taken back */
    SESSION_ADOPTING,    /* adopt is sent, then what the old identity still owns is released */
    SESSION_WATCHING,    /* the tasks' locks are being taken */
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
    int64_t id;         /* this connection's; 0 before the first registration */
    int64_t registered; /* the newest id that was registered; adoption is from it */
    int64_t next_claim;
    char host[256];
    char boot_id[64];
    struct name_lock lock;
    char *name;

    /* lease */
    enum session_lease lease;
    uint64_t renewed_boot_ms; /* when the last acknowledged renewal was sent; 0: never */
    uint64_t register_sent_boot_ms;
    uint64_t beat_due_ms;
    uint64_t beat_sent_boot_ms;
    int64_t beat_id; /* the identity that the beat under way is for */
    bool beat_under_way;
    uint64_t progress_ms;

    /* joining */
    char proof[64];
    unsigned proof_tries;
    char *database;      /* its identity, once known */
    int64_t previous;    /* to adopt from in this join; 0: nothing */
    struct peers rivals; /* the one rival of our name, watched like a peer */
    int64_t rival_id;
    int64_t rival_beat;
    uint64_t waiting_since_ms; /* since when the name or the schema is waited for */

    /* peers */
    struct peers peers;
    struct {
        int64_t id; /* being taken over; 0: nobody */
        int64_t beat;
        char name[128];
        char host[128];
    } dying;

    /* the end */
    void (*on_closed)(void *arg, bool left_rows);
    void *closed_arg;
    unsigned open_handles;
    bool is_closing_handles;
    bool left_rows;
};

void session_set_state(struct session *s, enum session_state state);
void session_renewed(struct session *s, uint64_t sent_boot_ms);

/* join.c */
void join_init(struct session *s);
void join_deinit(struct session *s);
void join_begin(struct session *s); /* both connections are up */
void join_end(struct session *s);   /* one was lost: back to SESSION_DOWN */
void join_on_notify(struct session *s, const char *payload);

#endif
