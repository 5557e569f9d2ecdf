/* config.h - the configuration: YAML files and command-line handlers, checked, in memory.
 *
 * Loaded by config_load() (tables of keys in config_keys.c; libyaml). Every error names file:line,
 * what is wrong and what was expected, and all of a file's errors are collected. Immutable once
 * loaded: a reload makes a new one, running jobs keep the old one by reference (config_ref,
 * config_unref). */
#ifndef OB_BASE_CONFIG_H
#define OB_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

enum handler_kind { HANDLER_SHELL, HANDLER_EXEC, HANDLER_WORKER, HANDLER_WEBHOOK, HANDLER_DISCARD };
const char *handler_kind_name(enum handler_kind kind);

struct strings { /* a list of strings, NULL-terminated so that it may serve as argv or envp */
    char **items;
    size_t count;
};

enum capture_when { CAPTURE_ON_FAILURE, CAPTURE_ALWAYS, CAPTURE_NEVER };

struct command_config {  /* shell and exec; of a worker argv, cwd, umask, env, env_pass, path */
    char *shell;         /* shell: the string given to /bin/sh -c; NULL for exec */
    struct strings argv; /* exec, worker: argv[0] absolute after load; exec's may hold {id}
                            {attempt} {task} */
    char *cwd;           /* NULL: the daemon's */
    int umask;           /* -1: the daemon's */
    struct strings env;  /* "NAME=value", in the file's order */
    struct strings env_pass;
    char *path; /* PATH of the child, and where argv[0] is looked up; NULL: the daemon's */
    uint8_t dead_exit[256 / 8]; /* a bit an exit code; default 65 and 100 */
    enum capture_when capture;
    size_t capture_head_bytes;
    size_t capture_tail_bytes;
};

struct worker_config {
    unsigned processes; /* at most; 0: one a processor; resolved at load, never 0 afterwards */
    unsigned startup;   /* kept running without jobs; at most processes */
    uint64_t idle_timeout_ms;
    unsigned max_jobs;        /* 0: no limit */
    uint64_t max_lifetime_ms; /* 0: no limit */
    unsigned window;          /* jobs at once in one process, at most */
    uint64_t start_timeout_ms;
    uint64_t restart_backoff_ms; /* the first pause; doubles up to WORKER_RESTART_MAX_MS */
};
enum { WORKER_RESTART_MAX_MS = 30000 };

struct webhook_secret {
    char *file;           /* absolute path; or */
    char *env;            /* a variable of the dispatcher's own environment */
    int64_t not_after_us; /* unix time; INT64_MAX: no end */
};
struct webhook_secrets { /* the current one first */
    struct webhook_secret *items;
    size_t count;
};

struct breaker_config {
    bool is_on;
    uint64_t window_ms;
    unsigned min;              /* answers in the window before anything follows from them */
    unsigned failure_permille; /* of them, from which on the endpoint is held */
    uint64_t open_ms;
    uint64_t open_max_ms;
};

struct rate_config { /* at most count requests begin in per_ms; count 0: no bound */
    unsigned count;
    uint64_t per_ms;
};

enum private_addresses { PRIVATE_ALLOW, PRIVATE_DENY };

struct credentials; /* what the files and variables held when it was loaded: webhook/'s */

struct webhook_config {
    char *url;
    char *method;           /* POST */
    struct strings headers; /* "Name: value" */
    char *content_type;     /* NULL: by the payload */
    uint64_t connect_timeout_ms;
    bool tls_verify;
    char *ca_file;
    char *proxy;       /* NULL: none; the environment's proxies are never used */
    char *secret_file; /* at most one of the three is set */
    char *secret_env;
    struct webhook_secrets secrets;
    char *client_cert;
    char *client_key; /* NULL: in client_cert */
    enum private_addresses private_addresses;
    struct breaker_config breaker;
    struct rate_config rate;
    struct credentials *credentials; /* NULL: none are needed, or not read yet */
    void (*credentials_free)(struct credentials *credentials);
    bool idempotency_key;
    size_t response_capture_bytes;
    size_t response_drain_bytes;
    uint64_t retry_after_max_ms;
};

struct backoff_config {
    uint64_t base_ms;
    uint64_t max_ms;
    unsigned jitter_permille; /* 200 = ±20 % */
    uint64_t *schedule_ms;    /* retry_schedule; NULL: exponential */
    size_t schedule_count;
};

struct task_config {
    char *name;
    char *source; /* "/etc/outbox/outbox.yaml:12" or "--shell": where it was registered */
    enum handler_kind kind;
    unsigned concurrency; /* 0: the daemon's for processes; resolved at load, never 0 afterwards */
    uint64_t timeout_ms;
    unsigned max_attempts;
    uint64_t max_age_ms; /* one that failed is tried again until it is so old; 0: always */
    unsigned max_lost;
    bool payload_raw;
    unsigned
        max_ready;    /* new jobs are refused while so many are ready; 0: as the database has it */
    uint64_t keep_ms; /* finished jobs are kept for so long; 0: not */
    bool dead_blocks; /* on_dead: the jobs of a dead job's key wait for it */
    struct backoff_config backoff;
    struct command_config command;
    struct worker_config worker;
    struct webhook_config webhook;
};

struct config {
    unsigned refs;
    char *database; /* connection string, NULL: libpq's own (PG* variables) */
    char *name;     /* the dispatcher's; NULL: the host name */
    char *lock_dir; /* NULL: /run/outbox, else $XDG_RUNTIME_DIR/outbox, else /tmp/outbox-UID */
    unsigned concurrency; /* processes at once, all tasks together */
    uint64_t lease_ms;
    uint64_t stop_timeout_ms;
    uint64_t poll_interval_ms;  /* the look that needs no NOTIFY; default 1s */
    uint64_t sweep_interval_ms; /* the slow check of what was read; default 1min */
    enum log_level log_level;
    enum log_format log_format;
    bool log_sql;              /* each statement that goes to the server */
    struct task_config *tasks; /* sorted by name */
    size_t tasks_count;
};

/* A new configuration with every default and no tasks. Dies when memory is short. */
struct config *config_new(void);
struct config *config_ref(struct config *c);
void config_unref(struct config *c); /* frees with the last reference; NULL is fine */

/* Reads path, then every *.yaml of the folder tasks.d beside it, in name order; a task or key given
 * twice is an error that names both places. Errors (one a line, "file:line: text") are appended to
 * reterr. Returns 0, OB_ECONFIG or OB_ENOMEM; on failure c must only be unreferenced. */
int config_load(struct config *c, const char *path, struct buf *reterr) OB_MUST_CHECK;
/* The same from memory, without tasks.d; name stands for the file in messages. Fuzzed. */
int config_load_text(struct config *c, const char *name, const char *text, size_t len,
                     struct buf *reterr) OB_MUST_CHECK;
/* Registers `spec`, "NAME=CMD" as given to --shell, --exec, --webhook (or "NAME" for --discard). */
int config_add_task(struct config *c, enum handler_kind kind, const char *spec,
                    struct buf *reterr) OB_MUST_CHECK;
/* Resolves what depends on the whole: concurrency, and exec's argv[0] (a bare name that `path` does
 * not have is an error; an absolute one that does not exist is not, it may come later). Checks what
 * was set past the loader (name, lock_dir, lease) by the file's rules (OB_EUSAGE). Call once, last.
 */
int config_finish(struct config *c, struct buf *reterr) OB_MUST_CHECK;

/* NULL if no handler is registered. The tasks are sorted at any time. */
const struct task_config *config_find_task(const struct config *c, const char *name);

/* Appends the effective configuration as YAML that config_load_text would take. Passwords of
 * database and proxy, and headers and variables whose name sounds like a secret, are printed as
 * ***. */
void config_print(const struct config *c, struct buf *out);

/* A task's name: 1 to 128 of A-Z a-z 0-9 . _ : - beginning with a letter, a digit or _. The same
 * rule as the CHECK in sql/. */
bool task_name_is_valid(const char *name);

/* "250ms" "30s" "5m" "2h" "7d" "0" -> ms. "64KiB" "1MiB" "100" -> bytes. OB_EINVAL if not so. */
int parse_duration(const char *text, uint64_t *ret_ms) OB_MUST_CHECK;
int parse_size(const char *text, uint64_t *ret_bytes) OB_MUST_CHECK;
void format_duration(uint64_t ms, char ret_text[32]); /* as parse_duration takes it, exact */

#endif
