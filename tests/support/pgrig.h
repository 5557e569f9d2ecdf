/* pgrig.h - a pgconn under test: its loop, what its callbacks said, and batches with their answers.
 *
 * Everything is counted and nothing is expected here; waiting is turning the loop until a condition
 * holds. */
#ifndef OB_TEST_PGRIG_H
#define OB_TEST_PGRIG_H

#include <libpq-fe.h>

#include "ck_main.h"
#include "db/pgconn.h"
#include "wait.h"

enum { RIG_MS = 20000, RIG_RESULTS_MAX = 8 };

struct pgrig {
    uv_loop_t loop;
    uv_timer_t pulse; /* wakes the loop, so that a deadline is seen */
    struct pgconn *conn;
    unsigned ups;
    unsigned downs;
    bool is_up; /* between on_up and on_down */
    struct pg_error why;
    unsigned tries;
    uint64_t retry_ms;
    unsigned answers; /* of every batch */
    unsigned notifies;
    char channel[64];
    char payload[64];
    int notify_pid;
    bool is_closed;
    /* Called in the callbacks; set after rig_open. */
    void (*then_up)(struct pgrig *r);
    void (*then_down)(struct pgrig *r);
    void (*then_notify)(struct pgrig *r);
};

struct reply { /* zero it, give it to rig_submit */
    struct pgrig *rig;
    bool is_done;
    unsigned number;       /* its place among the rig's answers, from 1 */
    struct pg_error error; /* err 0: committed */
    PGresult *results[RIG_RESULTS_MAX];
    bool was_up; /* pgconn_is_up at the answer */
    void (*then)(struct reply *reply);
};

void rig_open_config(struct pgrig *r, const struct pgconn_config *config);
/* With the conninfo alone, started. */
void rig_open(struct pgrig *r, const char *conninfo);
/* The same, and waits until it is up. */
void rig_open_up(struct pgrig *r, const char *conninfo);
/* Closes, turns the loop until that is done; the loop must then be empty. */
void rig_close(struct pgrig *r);
/* For a connection that a callback has closed with rig_on_closed. */
void rig_finish(struct pgrig *r);
void rig_on_closed(void *arg);

/* Turns the loop until cond is true; fails the test after RIG_MS. */
#define rig_until(r, cond)                                                                         \
    do {                                                                                           \
        uint64_t rig_deadline_ = wait_now_ms() + RIG_MS;                                           \
        while (!(cond)) {                                                                          \
            ck_assert_msg(wait_now_ms() < rig_deadline_, "waited in vain for %s", #cond);          \
            (void)uv_run(&(r)->loop, UV_RUN_ONCE);                                                 \
        }                                                                                          \
    } while (0)

void rig_submit(struct pgrig *r, struct pgbatch *b, struct reply *reply);
/* One statement without parameters, text results. */
struct pgbatch *batch_of(const char *sql);
void batch_add(struct pgbatch *b, const char *sql);
void rig_send(struct pgrig *r, const char *sql, struct reply *reply);
/* Sends it and waits: first column of the first row, "" for none. Must succeed. Static storage. */
const char *rig_value(struct pgrig *r, const char *sql);
/* Sends it and waits: the error. */
struct pg_error rig_error(struct pgrig *r, const char *sql);
void reply_clear(struct reply *reply);

#endif
