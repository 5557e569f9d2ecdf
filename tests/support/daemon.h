/* daemon.h - the real `outbox` program under test: the daemon, and commands.
 *
 * A daemon's stderr is collected in a file that daemon_log() reads. Every process started here dies
 * with the test (PDEATHSIG). The program is bin/outbox of this build. */
#ifndef OB_TEST_DAEMON_H
#define OB_TEST_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct daemon {
    pid_t pid;
    char log_path[128];
};

/* `outbox run ARGS...` with OUTBOX_DATABASE = testdb_conninfo() (NULL-terminated args; extra_env is
 * "NAME=value" strings, or NULL). */
void daemon_start(struct daemon *d, const char *const *args, const char *const *extra_env);
/* The same, and waits until its log says event=ready. */
void daemon_start_ready(struct daemon *d, const char *const *args, const char *const *extra_env);
void daemon_kill(struct daemon *d, int signum);
/* Waits for its end: the exit code, or 128 + signal; fails the test after ms. */
int daemon_wait(struct daemon *d, unsigned ms);
/* TERM and wait; fails the test unless it exits 0. */
void daemon_stop(struct daemon *d);
/* True when the log so far contains the text. */
bool daemon_logged(const struct daemon *d, const char *text);
/* Waits for it; on failure prints the log and fails the test. */
void daemon_expect_log(const struct daemon *d, const char *text, unsigned ms);
size_t daemon_log_count(const struct daemon *d, const char *text);

struct command_result {
    int exit_code; /* or 128 + signal */
    char *out;     /* static storage, overwritten by the next run_outbox */
    char *err;
};
/* `outbox ARGS...` to its end, stdin from `input` (NULL: /dev/null), with OUTBOX_DATABASE set. */
struct command_result run_outbox(const char *input, const char *const *args);
#define OUTBOX_RUN(...) run_outbox(NULL, (const char *const[]){__VA_ARGS__, NULL})

/* A file of the test's temporary folder, with these contents and mode; returns its path (static
 * ring). */
const char *test_file(const char *name, const char *contents, unsigned mode);
const char *test_dir(void);
/* Lines in a file (0 if absent). Handlers append a line a job to such files. */
size_t count_lines(const char *path);

#endif
