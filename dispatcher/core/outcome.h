/* outcome.h - what became of an attempt: data, not errors. Pure; the tables of docs/handlers.md.
 *
 * Executors build outcomes (from exit statuses, from HTTP results); core adds the backoff and
 * records them. Vocabulary shared with exec/ and webhook/: includes base/ only. */
#ifndef OB_CORE_OUTCOME_H
#define OB_CORE_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"

enum outcome_kind {
    OUTCOME_DONE,   /* delete the job */
    OUTCOME_RETRY,  /* counted; again after the backoff, and not before delay_ms */
    OUTCOME_DEAD,   /* kept in outbox.dead, replayable */
    OUTCOME_RELEASE /* not counted: our shutdown, spawn failure, misconfigured handler */
};
const char *outcome_name(enum outcome_kind kind); /* "done" "retry" "dead" "release" */

enum { OUTCOME_REASON_SIZE = 256 };

struct outcome {
    enum outcome_kind kind;
    uint64_t delay_ms;                /* RETRY: at least this long; RELEASE: not before; else 0 */
    char reason[OUTCOME_REASON_SIZE]; /* "" for DONE; "exit 3", "signal 9", "timeout", "HTTP 503" */
    int exit_code;                    /* -1: none */
    int signal;                       /* 0: none */
    int http_status;                  /* 0: none */
    bool uncounted;     /* DEAD without a run (expired, attempts exhausted by lost claims) */
    uint64_t keep_ms;   /* DONE: to be kept for so long; 0: not */
    bool blocks_key;    /* DEAD: the jobs of its key wait until it is retried or cancelled */
    bool misconfigured; /* RELEASE: the handler cannot run at all; the task pauses */
    bool pauses_task;   /* DEAD: nobody is there for any job of the task any more (HTTP 410): it is
                         * paused until `outbox resume` */
    bool spawn_failed; /* RELEASE: no process to be had (EAGAIN, ENOMEM, EMFILE); spawning pauses */
    uint64_t started_us; /* unix time */
    uint64_t duration_ms;
    /* Head and tail of the child's output, or of the response. Owned by the executor, valid during
     * the run's on_done only. */
    const char *head;
    size_t head_len;
    const char *tail;
    size_t tail_len;
    /* What the answer means for the receiving endpoint ("https://host:443"): it is held from now
     * on, for so long; or it is back. NULL: nothing new. As head. */
    const char *endpoint;
    uint64_t endpoint_held_ms; /* 0: it is back */
    uint64_t output_bytes;     /* in all; more than head_len + tail_len: the middle was dropped */
};

/* Empty, and RELEASE until somebody says otherwise. */
void outcome_init(struct outcome *o);
/* Sets kind and reason (printf); what is no printable UTF-8 becomes '?', what is too long is cut.
 */
OB_PRINTF(3, 4) void outcome_set(struct outcome *o, enum outcome_kind kind, const char *fmt, ...);

/* How a command ended. */
struct command_end {
    int wait_status; /* as waitpid(2) gives it */
    bool timed_out;  /* we sent TERM because of the timeout */
    bool stopping;   /* we sent TERM because the dispatcher stops */
};
/* exit 0 -> DONE, also in the grace after our TERM; exit in dead_exit -> DEAD; other exits and
 * signals
 * -> RETRY; timed out -> RETRY "timeout"; stopping -> RELEASE (but exit 0 is DONE). */
void outcome_from_command(struct outcome *o, const struct command_config *config,
                          const struct command_end *end);

/* A setup failure of a child, as stage + errno: EAGAIN ENOMEM EMFILE ENFILE -> RELEASE
 * spawn_failed, 1 s; ENOENT EACCES ENOEXEC ENOTDIR ELOOP EPERM and the rest -> RELEASE
 * misconfigured. The reason says what to do ("chmod +x" included). program is what was to be run.
 */
void outcome_from_spawn_error(struct outcome *o, const char *stage, int errnum,
                              const char *program);

/* How an HTTP attempt ended. */
struct http_end {
    int status; /* 0: no complete status and headers */
    const char
        *error_class; /* when status is 0: "dns", "connect", "tls", "reset", "timeout", ... */
    const char *error_text;
    bool has_retry_after;
    uint64_t retry_after_ms; /* already clamped to retry_after_max */
    const char *location;    /* of a redirect; NULL */
    bool stopping;           /* we dropped it because the dispatcher stops */
};
/* The response table of docs/handlers.md: 2xx DONE; none RETRY; 3xx RETRY "redirect"; 410 DEAD, and
 * the task pauses; 429, 503 and any non-2xx with Retry-After: RETRY at least that long; 408 425 502
 * 504: RETRY at least 60 s; other 5xx and 4xx: RETRY. */
void outcome_from_http(struct outcome *o, const struct http_end *end);

#endif
