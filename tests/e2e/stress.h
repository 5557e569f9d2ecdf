/* stress.h - what the parts of check_stress.c share: one mapping that all its processes write to.
 *
 * A job is known by its token, a number that its payload carries: the triggers of business tables
 * do not tell the ids of the jobs that they make. Whoever enqueues a token writes it into the table
 * `ledger` in the same (sub)transaction, so the ledger is the truth about what was committed,
 * whatever became of the producer. Cancels write to the table `cancelled` in the same way. */
#ifndef OB_TEST_STRESS_H
#define OB_TEST_STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <libpq-fe.h>

#include "chance.h"

enum {
    MEDDLERS = 6,
    IDLE_MEDDLER = 3, /* the one that does not rest */
    TOKENS_MAX = 1 << 20,
    RUNS_MAX = 1 << 21,
    HOLDS_MAX = 1 << 18,
    PRODUCERS_MAX = 12,
    TOKENS_PER_TX_MAX = 512,
    DAEMONS_MAX = 3
};

/* The roomy tasks have more slots than there are ever jobs: what keeps a job of theirs waiting is
 * never a slot, so their lateness means something. */
enum stress_task {
    TASK_BRISK,   /* roomy; a refused one is tried again at once */
    TASK_LATER,   /* roomy; a refused one after LATER_BACKOFF_MS; most of the delays */
    TASK_COPIED,  /* roomy; made by triggers of business tables */
    TASK_BULK,    /* few slots: backlogs */
    TASK_SCARCE,  /* one slot and a slow receiver */
    TASK_SHELLED, /* exec */
    TASK_NOBODY,  /* no handler: its jobs stay */
    TASKS
};
enum { ROOMY_TASKS = TASK_BULK, ROOMY_SLOTS = 4000, LATER_BACKOFF_MS = 5 };
extern const char *const stress_task_names[TASKS];

/* How a token came to be, for whoever reads a failure. */
enum stress_kind {
    KIND_NONE,
    KIND_ENQUEUE,
    KIND_SAVEPOINT,
    KIND_AUTOCOMMIT,
    KIND_BULK,
    KIND_MANY,
    KIND_BYTES,
    KIND_C,
    KIND_COPY_ROW,
    KIND_COPY_STATEMENT,
    KIND_UPSERT,
    KIND_CANCELLED, /* by its own transaction */
    KINDS
};
extern const char *const stress_kind_names[KINDS];
/* What its transaction came to, as the producer saw it. */
enum stress_end {
    END_UNKNOWN, /* the producer died or lost its session, or the transaction still runs */
    END_COMMITTED,
    END_ROLLED_BACK,
    END_COMMITTED_PREPARED,
    END_COMMITTED_MUTE, /* outbox.notify = off, woken by hand */
    ENDS
};
extern const char *const stress_end_names[ENDS];

struct token {
    _Atomic int64_t id;           /* of its job; 0: not told */
    _Atomic int64_t due_ns;       /* 0: at once */
    _Atomic int64_t ready_ns;     /* commit acknowledged, and a wake by hand; 0: never seen */
    _Atomic int64_t cancelled_ns; /* when the cancel that was then committed had answered */
    _Atomic int kind;
    _Atomic int task;
    _Atomic int end;
    _Atomic int producer;
    _Atomic bool is_retried; /* by hand, perhaps: then its attempts count from none */
    _Atomic bool is_mortal;  /* its one attempt is all it has; a retry by hand begins anew */
    /* The receiver's. */
    int arrivals;
    bool is_under_way;
};

struct run {
    int64_t token;
    int64_t arrived_ns;
    int64_t answered_ns; /* 0: not yet, or a command */
    int attempt;
    int status;     /* HTTP's, or 200 for a command that succeeded and 500 for one that failed */
    bool is_second; /* the token was under way already */
};

enum { ALL_TOKENS = 0, NO_TOKEN = -1 };
/* Somebody kept the dispatchers from a job, or from all of them, for that long. */
struct hold {
    int64_t token;
    int64_t from_ns;
    _Atomic int64_t to_ns;
};

struct stress {
    uint64_t seed;
    int64_t begun_ns;
    int profile; /* 0 busy, 1 mixed, 2 sparse */
    char conninfo[256];
    _Atomic bool is_quiet;    /* finish what you are at, and rest */
    _Atomic bool is_stopping; /* said when all rest */
    _Atomic bool is_resting[PRODUCERS_MAX + MEDDLERS];
    _Atomic int64_t next_token;
    _Atomic size_t runs_count;
    _Atomic size_t holds_count;
    _Atomic int backends[PRODUCERS_MAX]; /* process ids of the producers' sessions */
    _Atomic long transactions[ENDS];
    _Atomic long cancels, retries, locks, deaths, sabotages, refusals;
    bool is_stuck; /* jobs were left in a quiet, and the run broken off */
    _Atomic bool has_failed;
    char failure[1024]; /* of a process that saw what must not be */
    struct token tokens[TOKENS_MAX];
    struct run runs[RUNS_MAX];
    struct hold holds[HOLDS_MAX];
};

/* A row's token in SQL, 0 if its payload is msgpack. */
#define STRESS_TOKEN_SQL                                                                           \
    "coalesce(substring(encode(payload, 'escape') from '\"token\": ?([0-9]+)'), '0')"

/* A process of the run: its own session and its own random numbers. */
struct actor {
    struct stress *s;
    uint64_t random;
    int number;
    PGconn *conn;
    bool is_lost; /* the session was */
    char sqlstate[6];
};

/* stress_actor.c */
/* Who pauses with something open calls chance_pause_ms. */
void stress_think(const struct stress *s, unsigned ms); /* with nothing open: cut short by a rest */
void stress_rest(struct stress *s, int number);         /* returns when the quiet is over */
unsigned actor_below(struct actor *a, unsigned n);      /* 0 to n - 1 */
bool actor_chance(struct actor *a, unsigned percent);
void actor_connect(struct actor *a);
/* Runs one string of statements. False: it failed, in a way that is to be expected here (cancelled,
 * terminated, serialization, deadlock, lock timeout); anything else fails the run. *ret_value: the
 * first column of the first row of the last result, 0 for none; may be NULL. */
__attribute__((format(printf, 3, 4))) bool actor_exec(struct actor *a, int64_t *ret_value,
                                                      const char *fmt, ...);
/* The same; the result, or NULL. */
__attribute__((format(printf, 2, 3))) PGresult *actor_query(struct actor *a, const char *fmt, ...);
/* Judges a result that did not come by the two above, and clears it. */
bool actor_accept(struct actor *a, PGresult *res);
/* Ends an open or failed transaction; connects again if the session is lost. */
void actor_recover(struct actor *a);
__attribute__((format(printf, 2, 3), noreturn)) void actor_fail(struct actor *a, const char *fmt,
                                                                ...);
/* Fails the run if this session holds advisory locks. */
void actor_expect_no_locks(struct actor *a);
/* Of the job with this id; NO_TOKEN: nobody was told that id. */
int64_t stress_token_of(struct stress *s, int64_t id);
size_t stress_hold_begin(struct stress *s, int64_t token);
void stress_hold_end(struct stress *s, size_t hold);

/* stress_producer.c: both until the run stops; 0, or ended by their own SIGKILL. */
void stress_produce(struct stress *s, int number, uint64_t seed);

/* stress_meddler.c: who gets into the dispatchers' way, each in a process of its own. */
void stress_meddle(struct stress *s, int number, uint64_t seed);

/* stress_receiver.c: an HTTP server that refuses a part of the jobs at first. Never returns. */
void stress_receive(struct stress *s, int listen_fd) __attribute__((noreturn));

/* stress_oracle.c. Both write what is wrong to `report` and return how many things are wrong. */
size_t oracle_verify(struct stress *s, PGconn *conn, const char *ran_path, FILE *report);
/* Prints the distribution to stdout; late_ms 0: nothing is late. */
size_t oracle_lateness(struct stress *s, unsigned late_ms, FILE *report);
/* What is known about a token. */
void oracle_describe(struct stress *s, PGconn *conn, int64_t token, FILE *report);

#endif
