/* pgconn_state.h - the inside of a connection. Private to pgconn.c (its life), pgpipe.c (what goes
 * through it while it is up), pgsock.c (its socket on the loop), pg_target.c (where it goes) and
 * pg_lookup.c (host names). */
#ifndef OB_DB_PGCONN_STATE_H
#define OB_DB_PGCONN_STATE_H

#include "db/pgbatch.h"
#include "db/pgconn.h"
#include "db/pgtrace.h"

/* What is live in each state. `timer` has one meaning a state; `kick` may be armed in any. */
enum pgconn_state {
    PGCONN_NEW,        /* nothing */
    PGCONN_RESOLVING,  /* lookup (or just passing through); timer: the attempt's end */
    PGCONN_CONNECTING, /* pq, sock; timer: the attempt's end */
    PGCONN_SESSION,    /* pq, sock, the session's SQL under way; timer: the attempt's end */
    PGCONN_READY,      /* pq in pipeline mode, sock, batches; timer: the oldest batch's patience */
    PGCONN_FAILING,    /* why; kick will close pq and tell everybody; batches are still listed */
    PGCONN_BACKOFF,    /* timer: the next attempt; a lookup may still be running */
    PGCONN_CLOSING,    /* kick will close everything; then only close callbacks come */
    PGCONN_STATES
};

/* The watched socket. Owned by its connection, freed in its close callback: libpq changes sockets
 * while it connects, and each needs a handle of its own. */
struct pgsock {
    uv_poll_t poll;
    struct pgconn *conn;
    int fd;
    int events; /* what uv_poll_start was given; 0: stopped */
};

enum { PG_PREPARED_MAX = 64 }; /* statement texts a connection prepares; store.c has fewer */

struct pg_prepared {
    const char *sql;          /* by address */
    unsigned number;          /* the name is "ob_NUMBER" */
    const struct pgbatch *by; /* the batch that prepares it now; NULL: the server has it */
};

struct pg_lookup;

struct pgconn {
    uv_loop_t *loop;
    struct pgconn_callbacks callbacks;
    void *arg;
    char *conninfo;
    char *application_name;
    char *session_sql;
    uint64_t connect_timeout_ms;
    uint64_t statement_stall_ms;
    uint64_t reconnect_max_ms;

    enum pgconn_state state;
    PGconn *pq;
    struct pgsock *sock;
    uv_timer_t timer;
    uv_idle_t kick; /* armed: pgconn's own work waits for the next turn of the loop */
    unsigned handles_open;
    struct pg_lookup *lookup;
    unsigned
        rotation; /* attempts that failed: each begins behind the host that the last began with */
    unsigned tries;
    uint64_t up_since_ms;
    struct pg_error why;   /* of going down */
    struct pg_error fatal; /* the server's last words on this connection; err 0: none */

    struct list batches;     /* in the order of submission; the head is answered first */
    struct pgbatch *sending; /* first that is not wholly sent; NULL: none */
    size_t pending;
    uint64_t head_since_ms; /* when the head became it, or its last statement was answered */
    bool want_write;        /* PQflush left something */
    bool has_more;          /* a cap was reached: go on in the next turn, read nothing meanwhile */
    struct pg_prepared prepared[PG_PREPARED_MAX];
    size_t prepared_count;
    unsigned prepared_serial;

    pg_trace_cb trace; /* NULL: nobody listens */
    void *trace_arg;
    uint64_t traced_ns; /* when the last statement was answered */
    uint64_t session_sent_ns;

    void (*close_cb)(void *arg);
    void *close_arg;
};

/* pgconn.c, for the others */
void pgconn_down(struct pgconn *c, const struct pg_error *why); /* the funnel, with a whole error */
void pgconn_down_from_pq(struct pgconn *c); /* the same, why from libpq's message */
void pgconn_kick(struct pgconn *c);
void pgconn_handle_closed(struct pgconn *c); /* a handle's close callback: the last one frees c */
void pgconn_on_socket(uv_poll_t *poll, int status, int events);
void pgconn_on_timer(uv_timer_t *timer);
void pgconn_on_lookup(struct pgconn *c); /* pg_lookup.c: the lookup is done */

/* pgsock.c */
/* Watches the socket for events (UV_READABLE | UV_WRITABLE, 0: nothing), with a new handle if libpq
 * has another socket now. Goes down when that fails. */
void pgsock_watch(struct pgconn *c, int events);
/* Before libpq may close the socket (PQconnectPoll, PQfinish): libuv aborts the process if a handle
 * is started on a socket that was closed meanwhile. */
void pgsock_stop(struct pgconn *c);
void pgsock_close(struct pgconn *c);

/* pgpipe.c */
void pgpipe_begin(struct pgconn *c); /* a connection has come up: nothing sent, nothing prepared */
void pgpipe_run(struct pgconn *c);   /* answers, notifications, sending; READY on entry */
void pgpipe_read(struct pgconn *c);  /* the same after the socket became readable */
void pgpipe_abandon(struct pgconn *c); /* answers every batch with OB_ECONN */
void pgpipe_on_timer(struct pgconn *c);

/* pgtrace.c */
uint64_t pgtrace_now(const struct pgconn *c); /* 0 unless somebody listens */
void pgtrace_session(struct pgconn *c);       /* the session's SQL was done */
/* The next statement of a batch, or its Sync, was answered; before that is counted. */
void pgtrace_success(struct pgconn *c, const struct pgstmt *s, PGresult *res);
void pgtrace_failure(struct pgconn *c, const struct pgbatch *b, const struct pg_error *error,
                     bool is_skipped);
void pgtrace_commit(struct pgconn *c, const struct pgbatch *b);
void pgtrace_lost(struct pgconn *c, const struct pgbatch *b); /* it will not be answered */

/* pg_target.c: where an attempt goes. Reads the connection string, the PG* variables and the
 * service file as libpq does, without touching the network. */
enum { PG_HOSTS_MAX = 64 };
struct pg_host {
    char *host; /* never NULL; "" is libpq's default */
    char *hostaddr;
    char *port;
};
struct pg_target {
    struct pg_host hosts[PG_HOSTS_MAX];
    size_t count;   /* 0: libpq's default alone */
    bool has_names; /* some host has to be looked up */
    bool set_idle, set_interval, set_count, set_user_timeout, set_attrs; /* the user did not */
};
int pg_target_read(struct pg_target *t, const char *conninfo,
                   struct pg_error *reterr) OB_MUST_CHECK;
void pg_target_clear(struct pg_target *t);
bool pg_host_is_name(const struct pg_host *h);
/* PQconnectStartParams; hosts override the connection string's when `use_hosts`. NULL: out of
 * memory. */
PGconn *pg_target_connect(const struct pg_target *t, const struct pgconn *c, bool use_hosts);

/* pg_lookup.c: host names to addresses, by libuv's threads. One lookup a connection at a time; it
 * outlives an attempt that gave up on it, and serves the next. */
int pg_lookup_start(struct pgconn *c, const struct pg_target *t) OB_MUST_CHECK;
/* Replaces the names of t by what was found; a name without an address is dropped. OB_ECONN when no
 * host is left. */
int pg_lookup_apply(const struct pg_lookup *l, struct pg_target *t,
                    struct pg_error *reterr) OB_MUST_CHECK;
void pg_lookup_cancel(struct pg_lookup *l);
void pg_lookup_free(struct pg_lookup *l);

#endif
