/* e2e.h - what the end-to-end tests share: handlers that record their runs, and the oracle that
 * counts them. A run is a line "ID ATTEMPT" that the handler appends to the file `ran`. */
#ifndef OB_TEST_E2E_H
#define OB_TEST_E2E_H

#include <stdbool.h>
#include <stddef.h>

enum { E2E_WAIT_MS = 60000 };

/* "TASK=COMMAND" for --shell: records the run, then does `then` (shell text; "" for nothing). */
const char *recording(const char *task, const char *then);
const char *ran_path(void);
size_t runs_count(void);    /* lines so far */
size_t runs_of(long id);    /* of this job */
size_t runs_most(void);     /* of any job */
size_t runs_distinct(void); /* jobs that ran at least once */
/* A path in the test's folder; handlers wait for such a file or make it. */
const char *flag_path(const char *name);
void flag_raise(const char *name);
bool flag_is_up(const char *name);
/* Shell text that waits until the flag is up. */
const char *wait_for_flag(const char *name);

/* An executable in the test's folder, the same as a program: records the run, then does `body`.
 * Static ring of 16. */
const char *handler_script(const char *name, const char *body);
/* outbox.yaml in the test's folder, written anew (printf); returns its path. */
__attribute__((format(printf, 1, 2))) const char *e2e_config(const char *fmt, ...);
/* The file's contents with its last line end cut off, "" if it is not there; static ring. */
const char *flag_text(const char *name);

/* How many processes of this machine have a command line that begins with the text. */
size_t processes_with(const char *text);

/* Enqueues n jobs of the task in one transaction; payload {"n": 1...n}. */
void enqueue_jobs(const char *task, long n);
long enqueue_one(const char *task, const char *payload); /* its id */
/* From now on claims succeed but are not answered, until they are let go: what happens meanwhile
 * happens while a claim is under way. */
void hold_claims(void);
void wait_for_held_claim(void);
void let_claims_go(void);
/* Waits until no job is live (state other than dead), or fails and shows what is left. */
void wait_until_all_done(void);
/* The oracle: each job from first to last ran at least once, nothing is live, owned or dead. */
void expect_all_ran(long first, long last);

#endif
