/* lines_stress.h - what the parts of check_lines_stress.c share: one mapping that all its processes
 * write to.
 *
 * A job is known by its token, a number that its payload carries. Whoever enqueues a token writes
 * it into the table `ledger` in the same (sub)transaction, and whoever changes a job by hand writes
 * the number of that deed into the table `deeds`: so the tables are the truth about what was
 * committed, and the mapping tells the rest, with times of one clock (CLOCK_MONOTONIC). */
#ifndef OB_TEST_LINES_STRESS_H
#define OB_TEST_LINES_STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

#include "chance.h"

enum {
    PRODUCERS = 5,
    MEDDLERS = 2,
    ACTORS = PRODUCERS + MEDDLERS,
    DISPATCHERS = 3,
    JOBS_MAX = 1 << 18,
    RUNS_MAX = 1 << 19,
    DEEDS_MAX = 1 << 17,
    RECENT_MAX = 64,
    AFTER_MAX = 3,
    SUCCESSES_MAX = 3, /* then one that may die is refused for good: who repeats ends */
    NOTHING = -1
};

#define READY_MAX_TEXT "3" /* max_ready of TASK_FEW */

enum lines_task {
    TASK_LINE, /* with a key; the next goes on behind a dead one */
    TASK_WALL, /* with a key; a dead one blocks it */
    TASK_ONCE, /* unique; some have a key, some repeat */
    TASK_PART, /* others depend on them, or they on others; kept when done */
    TASK_FEW,  /* few of them may be ready */
    TASKS
};
extern const char *const lines_task_names[TASKS];

struct job {
    /* What it was put with. Written before it is. */
    int task;
    int key;        /* NOTHING: none */
    int unique_key; /* the same */
    int delay_ms;
    int expires_ms;
    int repeat_ms;
    int64_t after[AFTER_MAX]; /* tokens */
    int after_count;
    bool runs_anyway;
    bool is_told; /* notify_done */
    /* What the receiver does with it. */
    int refusals; /* so often; with max_attempts no more, it dies */
    int max_attempts;
    int work_ms;
    /* How that went. */
    int64_t tx;
    _Atomic int64_t id;
    bool existing; /* id is that of another one */
    bool by_many;
    int64_t called_ns;
    int64_t answered_ns;
    _Atomic int64_t sent_ns;  /* COMMIT */
    _Atomic int64_t acked_ns; /* 0: not known to the producer */
    /* The receiver's. */
    int arrivals;
    int successes;
    /* The listener's: how often which end was told. */
    int told[4];
};
enum { TOLD_DONE, TOLD_DEAD, TOLD_CANCELLED, TOLD_MERGED };
extern const char *const lines_told_names[4];

struct run {
    int64_t token;
    int64_t start_ns;
    int64_t end_ns; /* 0: under way */
    int attempt;
    int status; /* 0: whoever asked was gone */
};

enum deed_kind { DEED_CANCEL, DEED_RETRY, DEED_DELETE };
struct deed {
    int kind;
    int64_t id;
    char answer[16];
    int64_t called_ns;
    _Atomic int64_t acked_ns;
};

struct lines {
    uint64_t seed;
    int64_t begun_ns;
    bool restarts; /* of the server */
    bool deletes;  /* of rows by hand */
    char conninfo[256];
    _Atomic bool is_stopping;
    _Atomic int64_t next_token;
    _Atomic int64_t next_tx;
    _Atomic size_t runs_count;
    _Atomic size_t deeds_count;
    _Atomic int64_t recent[RECENT_MAX]; /* tokens of jobs, committed */
    _Atomic size_t recent_count;
    _Atomic long commits, rollbacks, refusals, limits, isolations, kills, restarts_done;
    _Atomic bool has_failed;
    char failure[1024]; /* of a process that saw what must not be */
    struct job jobs[JOBS_MAX];
    struct run runs[RUNS_MAX];
    struct deed deeds[DEEDS_MAX];
};

/* A process of the run: its own session and its own random numbers. */
struct actor {
    struct lines *s;
    uint64_t random;
    PGconn *conn;
    bool is_lost;
    char sqlstate[6];
};

/* lines_stress_actor.c */
unsigned lines_below(struct actor *a, unsigned n);
bool lines_chance(struct actor *a, unsigned percent);
void lines_connect(struct actor *a);
/* The result of one string of statements; NULL: it failed in a way that is to be expected here,
 * a->sqlstate says how. Anything else fails the run. */
__attribute__((format(printf, 2, 3))) PGresult *lines_query(struct actor *a, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) bool lines_exec(struct actor *a, const char *fmt, ...);
/* Ends an open or failed transaction; connects again if the session is lost. */
void lines_recover(struct actor *a);
__attribute__((format(printf, 2, 3), noreturn)) void lines_fail(struct lines *s, const char *fmt,
                                                                ...);

/* lines_stress_producer.c: both until the run stops. */
void lines_produce(struct lines *s, unsigned number);
void lines_meddle(struct lines *s, unsigned number);

/* lines_stress_receiver.c: an HTTP server that records each run, and refuses some. Never returns.
 */
void lines_receive(struct lines *s, int listen_fd) __attribute__((noreturn));

/* lines_stress_oracle.c: writes what is wrong to `report`; returns how many things are. */
size_t lines_verify(struct lines *s, PGconn *conn, FILE *report);

#endif
