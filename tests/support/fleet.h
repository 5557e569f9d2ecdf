/* fleet.h - several daemons at once, as if each ran on a host of its own: another name, another
 * lock folder, so that nothing but its silent heartbeat tells that one of them is gone. And the
 * oracles for them: no job runs twice at a time, no token is issued twice. */
#ifndef OB_TEST_FLEET_H
#define OB_TEST_FLEET_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon.h"
#include "faultproxy.h"

/* What may take a while although nothing is wrong. Less than the time limit of a handler, so that a
 * job that hangs is one that is left. */
enum { FLEET_WAIT_MS = 30000 };

/* Waits until no job is live, no longer than that. */
void fleet_finish(void);
/* And the jobs from first to last have run, as expect_all_ran() asks. */
void fleet_finish_all(long first, long last);

/* `outbox run --name NAME ARGS...` with its own lock folder, and, unless
 * args name a --config, the sweep at an hour's distance; database: NULL or a conninfo. */
void fleet_start(struct daemon *d, const char *name, const char *database, const char *const *args);
void fleet_start_ready(struct daemon *d, const char *name, const char *database,
                       const char *const *args);
#define FLEET(d, name, database, ...)                                                              \
    fleet_start_ready(d, name, database, (const char *const[]){__VA_ARGS__, NULL})

/* "TASK=COMMAND" for --shell: as recording(), and holds a lock of the job's while it runs; a second
 * run at the same time is counted by twice_at_once(). The lock goes with the last process of a run.
 */
const char *exclusive(const char *task, const char *then);
size_t twice_at_once(void);

/* A proxy in front of the server, and the conninfo of the test's database through it. */
void fleet_proxy(struct faultproxy *p);
const char *fleet_proxy_conninfo(const struct faultproxy *p);

/* From now on each claim number that the server is given is written to its log, which no crash of
 * it forgets. */
void tokens_record(void);
/* No (owner, claim) was issued twice; returns how many there were. */
size_t tokens_expect_unique(void);

enum turn_part { TURN_CLAIM, TURN_SETTLE };

/* A job whose row the server session of the dispatcher of this name has locked in order to claim or
 * to settle it, inside a transaction whose end it waits for its client to ask for; 0: none. */
long mid_transaction(const char *name, enum turn_part part);
/* Under load (it is a matter of several tries): lets one Sync after another go, until the server is
 * left in the middle of such a transaction. Returns that job. */
long hold_in_transaction(struct faultproxy *p, const char *name, enum turn_part part);

#endif
