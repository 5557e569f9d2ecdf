/* evidence.h - what a randomized run says of itself, and leaves in the build folder when it fails:
 * its own folder and its server are gone by the time somebody looks. */
#ifndef OB_TEST_EVIDENCE_H
#define OB_TEST_EVIDENCE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

struct evidence {
    FILE *report; /* what is wrong, for people */
    char *text;   /* the same, once it was flushed */
    size_t len;
    uint64_t seed;
    char dir[300];
};

/* kind-SEED of the build folder is where it goes. */
void evidence_open(struct evidence *e, const char *kind, uint64_t seed);
/* Nothing was wrong. */
void evidence_discard(struct evidence *e);

/* Reports the lines of level error that contain none of these texts (NULL-terminated), the first
 * three of them; returns how many there are. */
size_t evidence_judge_log(struct evidence *e, const char *path, const char *const *expected);
/* Reports the first column of the result. */
void evidence_table(struct evidence *e, PGconn *conn, const char *what, const char *sql);
/* Who holds and waits for which lock, and the dispatchers' rows. */
void evidence_server(struct evidence *e, PGconn *conn);
/* Keeps a copy. */
void evidence_file(struct evidence *e, const char *path);
/* Keeps the report and the server's log, and fails the test. */
void evidence_fail(struct evidence *e, size_t wrong) __attribute__((noreturn));

#endif
