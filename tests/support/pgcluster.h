/* pgcluster.h - a throwaway PostgreSQL cluster, and a database a test.
 *
 * In test_suite(): tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop) and
 * tcase_add_checked_fixture(tc, testdb_create, testdb_drop). Never open a connection in the
 * unchecked fixture: the tests fork, and the child's exit would close the shared socket for all.
 *
 * Unix socket only; fsync off; the postmaster drops to user postgres when run as root and dies with
 * the runner (PDEATHSIG); directories of dead runs (/tmp/ob*) are swept at start. The schema is in
 * template_outbox, made once a cluster by the real `migrate_apply`. */
#ifndef OB_TEST_PGCLUSTER_H
#define OB_TEST_PGCLUSTER_H

#include <stdbool.h>

#include <libpq-fe.h>

/* initdb, postgres, template. Without a server: skips the binary, or fails it under
 * OUTBOX_TEST_REQUIRE_PG=1. */
void pgcluster_start(void);
void pgcluster_stop(void);
/* An unchecked fixture, before pgcluster_start: skips the binary where no standby can be made. */
void pgcluster_needs_standby(void);
/* Extra server settings ("name=value", NULL-terminated), to be set before pgcluster_start. */
void pgcluster_set_options(const char *const *settings);
/* Environment of the server ("NAME=value", NULL-terminated, kept), likewise. */
void pgcluster_set_environment(const char *const *environment);
const char *pgcluster_socket_dir(void);
/* SIGQUIT (as a crash) and start again; connections are lost. From a test's child process too. */
void pgcluster_crash_and_restart(void);
void pgcluster_crash(void); /* SIGKILL to the postmaster and wait until it is gone */
void pgcluster_start_again(void);

/* A streaming standby of the server: same socket folder, port 5433, ready to be read. It lives as
 * long as the cluster does; promote it by SQL. */
void pgcluster_start_standby(void);
/* From now on testdb_* talk to it instead of the server: in this process and its children only, so
 * a test that calls it has a cluster (a TCase) of its own. */
void pgcluster_use_standby(void);
int pgcluster_port(void); /* where testdb_* go: 5432 or 5433 */

void testdb_create(void);       /* database t_<n> from template_outbox */
void testdb_create_empty(void); /* the same without schema outbox */
void testdb_drop(void);
/* "host=/tmp/obXXXX dbname=t_1 user=postgres": static storage, for connecting or for
 * OUTBOX_DATABASE. */
const char *testdb_conninfo(void);
/* The same with another user (roles: create them with testdb_exec). */
const char *testdb_conninfo_as(const char *user);

PGconn *testdb_connect(void); /* fails the test if it can't; PQfinish it */
PGconn *testdb_connect_as(const char *user);
/* On a connection of its own: fails the test on error. */
void testdb_exec(const char *sql);
/* First column of the first row as a string; NULL for no row or NULL. ob: static ring of 8 buffers.
 */
const char *testdb_value(const char *sql);
long testdb_long(const char *sql); /* the same as a number; fails the test if it is none */
/* On the given connection; the result must be the expected status, else the test fails and shows
 * the server's message. */
PGresult *pg_query(PGconn *conn, ExecStatusType expected, const char *sql);
void pg_exec_ok(PGconn *conn, const char *sql);
/* Runs sql, which must fail with this SQLSTATE and a message containing `text` (NULL: any). */
void pg_exec_fails(PGconn *conn, const char *sql, const char *sqlstate, const char *text);

#endif
