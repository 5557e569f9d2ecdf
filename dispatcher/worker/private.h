/* private.h - the inside of the worker handler; for dispatcher/worker/ alone.
 *
 * executor.c  what core calls; the one timer; what is done once a turn of the loop
 * pool.c      a task's processes: how many, which one gets a job, pauses after failures
 * process.c   one process from its start to its end; its pipes are io.c's
 * io.c        writing frames, reading replies and standard error
 * frame.c, reply.c, lines.c  pure: what is written, and what is read
 *
 * Times are the loop's (uv_now). Everything with a time of its own is due at `executor->timer`,
 * which is set for the earliest: a job costs no call of the timer. */
#ifndef OB_WORKER_PRIVATE_H
#define OB_WORKER_PRIVATE_H

#include "base/buf.h"
#include "exec/capture.h"
#include "exec/command_args.h"
#include "worker/lines.h"
#include "worker/reply.h"
#include "worker/worker.h"

enum {
    WORKER_GRACE_MS = 5000,       /* between TERM and KILL */
    WORKER_DRAIN_MS = 5000,       /* from the end of file and the last result to TERM */
    WORKER_MUTE_MS = 1000,        /* from a closed pipe to the exit that explains it */
    WORKER_SPAWN_PAUSE_MS = 1000  /* no process was to be had */
};

struct pool;
struct process;

/* A run from its start to its result. */
struct flight {
    struct list link; /* in pool->waiting, process->flights or executor->doomed; unused: spare */
    struct run *run;
    struct pool *pool;
    struct process *process; /* NULL: not given to one */
    uint64_t due_ms;         /* given to a process: its timeout */
    bool is_late;
    const char *doom; /* in executor->doomed: why it is released */
};

struct worker_executor {
    struct executor base;
    struct spawn_client *client;
    worker_observer observer;
    void *observer_arg;
    const struct task_config *tasks; /* in force */
    size_t tasks_count;
    struct pool **pools_by_task; /* beside tasks; NULL: another handler's */
    struct list pools;           /* retired ones too */
    struct list dirty_pools;     /* have something to hand out, or to start */
    struct list doomed;          /* released in the next turn of the loop */
    struct list spare;           /* flights to be used again */
    size_t flights_count;        /* in use */
    uv_timer_t timer;
    uint64_t timer_at_ms; /* UINT64_MAX: not set */
    uv_idle_t turn;       /* active while something is dirty or doomed */
    bool is_closing;
    int open_handles;
    void (*close_cb)(struct executor *ex);
    char read_buffer[2 * REPLY_LINE_MAX];
};

struct pool {
    struct list link;
    struct list dirty_link;
    struct worker_executor *ex;
    char *task;
    struct worker_config config;
    char **argv;
    struct strvec env;
    char *cwd; /* NULL: unchanged */
    int umask;
    bool is_retired;
    struct list processes;
    unsigned count;    /* of processes */
    unsigned open;     /* the same, and those whose memory libuv may still use */
    unsigned starting; /* of these */
    unsigned ready;
    struct list room; /* processes that may be given a job: idle ones first, the others in turn */
    struct list waiting;
    size_t waiting_count;
    unsigned concurrency; /* of the task: in_flight never exceeds it */
    unsigned in_flight;   /* in all processes */
    unsigned failures;    /* processes in a row that ended before they did anything */
    uint64_t spawn_after_ms;
    struct line_rate rate; /* of standard error */
};

enum process_state {
    PROCESS_STARTING, /* asked for, and greeted once it has a pid; due_ms: start_timeout */
    PROCESS_READY,    /* takes jobs; in pool->room while it has room */
    PROCESS_DRAINING, /* gets no more; its input ends when all is written; due_ms once it is idle */
    PROCESS_ENDING,   /* TERM sent; due_ms: the grace */
    PROCESS_KILLED,   /* KILL sent */
    PROCESS_OVER      /* reaped; handles are closing */
};

/* Why a process was ended by us. */
enum process_cause { CAUSE_NONE, CAUSE_TIMEOUT, CAUSE_STOP, CAUSE_PROTOCOL, CAUSE_NOT_READY };

struct stream { /* one of a process's pipes */
    int fd;     /* -1: closed */
    uv_poll_t poll;
};

struct process {
    struct list link;      /* in pool->processes */
    struct list room_link; /* in pool->room */
    struct pool *pool;
    enum process_state state;
    enum process_cause cause;
    char why[OUTCOME_REASON_SIZE]; /* of CAUSE_PROTOCOL */
    struct spawn_handle *handle;   /* NULL once it is over */
    pid_t pid;                     /* -1: not known yet */
    uint64_t started_ms;
    uint64_t due_ms;
    uint64_t idle_since_ms;
    bool was_ready;
    unsigned window;
    unsigned in_flight;
    struct list flights;
    uint64_t jobs_given;
    uint64_t jobs_done;
    struct stream in;
    struct stream out;
    struct stream err;
    int open_handles;
    bool in_wants_close; /* when all is written */
    struct buf output;   /* to be written, from output_pos on */
    size_t output_pos;
    struct buf partial;   /* a reply whose line end has not come */
    struct err_line line; /* the same of standard error */
    struct capture err_tail;
};

/* executor.c */
void executor_arm(struct worker_executor *ex, uint64_t at_ms); /* something is due then */
void executor_dirty(struct pool *pool);
void flight_finish(struct flight *f, struct outcome *outcome); /* out of its list, to core */
void executor_process_freed(struct pool *pool);
void executor_tell(const struct pool *pool, const struct worker_event *event);

/* pool.c */
struct pool *pool_new(struct worker_executor *ex, const struct task_config *task);
void pool_free(struct pool *pool); /* no process, nothing waits */
bool pool_runs(const struct pool *pool, const struct task_config *task); /* as it would be now */
void pool_retire(struct pool *pool, bool is_kill);
void pool_serve(struct pool *pool); /* hands out jobs, starts processes */
/* Whatever is due; returns when the next thing is. */
uint64_t pool_tick(struct pool *pool, uint64_t now_ms);
/* A process is over, or was never to be had. outcome: what becomes of jobs that wait if no other
 * process can take them. Returns the pause before another is started. */
uint64_t pool_process_failed(struct pool *pool, struct outcome *outcome);

/* process.c */
int process_start(struct pool *pool) OB_MUST_CHECK;
/* Gives it a job, to be written by process_flush. 0, or why it could not be (OB_ENOMEM,
 * OB_ETOOBIG). */
int process_give(struct process *p, struct flight *f) OB_MUST_CHECK;
void process_drain(struct process *p);
void process_terminate(struct process *p, enum process_cause cause); /* TERM, later KILL */
void process_kill(struct process *p, enum process_cause cause);
void process_fail_protocol(struct process *p, const char *what, const char *line, size_t len);
void process_handle_line(struct process *p, const char *line, size_t len);
void process_tick(struct process *p, uint64_t now_ms);
uint64_t process_due(const struct process *p); /* the earliest; UINT64_MAX: nothing */
bool process_is_mute(const struct process *p); /* nothing more is read of its replies */

/* io.c */
int io_open(struct process *p, int ret_child_fds[3]) OB_MUST_CHECK;
void io_close(struct process *p);
void io_close_in(struct process *p);
void io_flush(struct process *p); /* writes what the pipe takes */
void io_drain(struct process *p); /* after the exit: what is in the pipes already */

#endif
