/* faultpq.h - libpq calls that fail on command.
 *
 * For a test linked with FAULTPQ's flags (tests/compile/CMakeLists.txt): -Wl,--wrap= for
 * PQexecParams, PQsendQueryParams, PQflush, PQconsumeInput and PQgetResult. They reach calls from
 * the test's own objects, inlined headers included, not libpq's calls of itself. */
#ifndef OB_TEST_FAULTPQ_H
#define OB_TEST_FAULTPQ_H

#include <stdbool.h>

#include <libpq-fe.h>

/* What a failing call gives back. PQsendQueryParams and PQconsumeInput: 0; PQflush: -1. */
enum faultpq_mode {
    FAULTPQ_NULL,        /* a NULL result, nothing was sent */
    FAULTPQ_NULL_AFTER,  /* the call was made, and its result lost */
    FAULTPQ_NO_SQLSTATE, /* a fatal error that libpq made itself; nothing was sent */
    FAULTPQ_EMPTY,       /* PGRES_EMPTY_QUERY */
    FAULTPQ_COMMAND_OK,  /* a result without rows */
    FAULTPQ_MODES
};

/* The n-th of those calls from now on (from 0) fails so; repeat: and all after it. */
void faultpq_arm(unsigned n, bool repeat, enum faultpq_mode mode);
/* Everything works again. Returns how many calls failed. */
unsigned faultpq_disarm(void);
/* Calls since faultpq_arm, failed or not. */
unsigned faultpq_calls(void);

#endif
