/* serverclock.h - sets the wall clock of the test's PostgreSQL server, and of nothing else.
 *
 * A library of the tests, loaded into the server, adds an offset to its clock. */
#ifndef OB_TEST_SERVERCLOCK_H
#define OB_TEST_SERVERCLOCK_H

/* An unchecked fixture, added before pgcluster_start. */
void serverclock_prepare(void);
/* The server's clock is from now on so many seconds ahead of the machine's (negative: behind). */
void serverclock_set(long seconds);

#endif
