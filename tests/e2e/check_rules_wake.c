/* check_rules_wake.c - sleeping and being woken, by the real daemon: each rule by the one
 * interleaving that needs it, with the rule and without (OUTBOX_TEST_RULE_OFF names it). What
 * happens between the steps is held up by gates in the database. Nothing else makes it look: the
 * poll and the slow check are far away. */
#include "../db/rules_fixture.h"
#include "daemon.h"
#include "e2e.h"

enum { LOST_MS = 700, QUIET_MS = 600, STILL_LOOKING = 25, IDLE_LOOKS = 4, TASKS = 100 };

#define FAR "poll_interval: 1h\nlease: 1h\nsweep_interval: 1d\n"

static struct daemon daemon_;

/* The daemon with the configuration, without the rule in the odd runs. */
static void start(bool is_off, const char *rule, const char *config)
{
    char off[64];
    (void)snprintf(off, sizeof off, "OUTBOX_TEST_RULE_OFF=%s", is_off ? rule : "");
    daemon_start_ready(&daemon_, (const char *const[]){"--config", config, NULL},
                       (const char *const[]){off, NULL});
}

static const char *one_task(void)
{
    return e2e_config(FAR "tasks:\n  a: { discard: true }\n");
}

/* Its way to sleep is held up before it takes the locks. */
static PGconn *hold_up_the_watch(void)
{
    gates_make();
    sql_replace("watch", "PERFORM pg_advisory_lock_shared(",
                "PERFORM public.gate(1); PERFORM pg_advisory_lock_shared(");
    return gate_close(1);
}

#define OURS "starts_with(application_name, 'outbox ') AND datname = current_database()"

static bool holds_lock(const char *task)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = "
                   "1869968482 AND objid = (hashtext('%s')::bigint & 4294967295)::oid AND granted",
                   task);
    return testdb_long(sql) > 0;
}

static long server_time(void)
{
    return testdb_long("SELECT (1000000 * extract(epoch FROM clock_timestamp()))::bigint");
}

static bool has_looked_since(long time)
{
    char sql[320];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_stat_activity WHERE " OURS
                   " AND query LIKE '%%outbox.look(%%' AND state = 'idle' AND 1000000 * "
                   "extract(epoch FROM query_start) > %ld",
                   time);
    return testdb_long(sql) > 0;
}

/* The locks are held, and a look came after them. */
static void let_it_sleep(PGconn *gate)
{
    long time = server_time();
    gate_open(gate);
    ck_assert(wait_until(holds_lock("a") && has_looked_since(time), E2E_WAIT_MS));
}

static bool is_done(int64_t id)
{
    char sql[96];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.job WHERE id = %" PRId64, id);
    return testdb_long(sql) == 0;
}

/* With the rule the job is done; without it the daemon sleeps on. */
static void expect_done(int64_t id, bool is_off)
{
    if (!is_off) {
        ck_assert(wait_until(is_done(id), E2E_WAIT_MS));
        return;
    }
    ck_assert_msg(!wait_until(is_done(id), LOST_MS), "the interleaving does not need the rule");
    testdb_exec("SELECT outbox.wake('a')"); /* and it was only asleep */
    ck_assert(wait_until(is_done(id), E2E_WAIT_MS));
}

static bool was_active_since(long time)
{
    char sql[192];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM pg_stat_activity WHERE " OURS
                   " AND 1000000 * extract(epoch FROM query_start) > %ld",
                   time);
    return testdb_long(sql) > 0;
}

static bool is_quiet(void)
{
    long time = server_time();
    return !wait_until(was_active_since(time), QUIET_MS);
}

/* ---- the way to sleep ---- */

/* Who commits before the locks are held does not notify: the look comes after them. */
START_TEST(locks_are_taken_before_the_last_look)
{
    PGconn *gate = hold_up_the_watch();
    start(IS_OFF, "locks_first", one_task());
    gate_wait(1);
    int64_t id = put_one("a");
    gate_open(gate);
    ck_assert(wait_until(holds_lock("a"), E2E_WAIT_MS));
    expect_done(id, IS_OFF);
    daemon_stop(&daemon_);
}
END_TEST

/* Who tried the lock before it was held, and commits when we sleep, does not notify. */
START_TEST(transactions_that_may_have_missed_the_lock_are_watched)
{
    PGconn *gate = hold_up_the_watch();
    start(IS_OFF, "watch_set", one_task());
    gate_wait(1);
    PGconn *producer = begin();
    int64_t id = put(producer, "a", 1);
    testdb_exec("SELECT pg_current_xact_id()"); /* so that it is in every list */
    let_it_sleep(gate);
    commit(producer);
    expect_done(id, IS_OFF);
    daemon_stop(&daemon_);
}
END_TEST

/* The same with the newest xid of all, which is in no list unless a later one has ended. */
START_TEST(transaction_with_the_newest_xid_is_watched)
{
    PGconn *gate = hold_up_the_watch();
    start(IS_OFF, "own_xid", one_task());
    gate_wait(1);
    PGconn *producer = begin();
    int64_t id = put(producer, "a", 1);
    let_it_sleep(gate);
    commit(producer);
    expect_done(id, IS_OFF);
    daemon_stop(&daemon_);
}
END_TEST

/* ---- asleep ---- */

/* A row that somebody holds locked is not notified again when he rolls back. */
START_TEST(held_rows_are_asked_for_while_asleep)
{
    start(IS_OFF, "uneasy", one_task());
    ck_assert(wait_until(holds_lock("a") && is_quiet(), E2E_WAIT_MS));
    gates_make();
    sql_replace("look", "PERFORM outbox.hold_dispatcher(owner);",
                "PERFORM public.gate(2); PERFORM outbox.hold_dispatcher(owner);");
    PGconn *gate = gate_close(2);
    int64_t id = put_one("a");
    gate_wait(2); /* it has read the row, and not locked it */
    PGconn *holder = begin();
    pg_exec_ok(holder, "SELECT * FROM outbox.job FOR UPDATE");
    gate_open(gate);
    ck_assert(wait_until(!gate_is_reached(2) && is_quiet() == IS_OFF, E2E_WAIT_MS));
    roll_back(holder);
    expect_done(id, IS_OFF);
    daemon_stop(&daemon_);
}
END_TEST

/* A long transaction that has nothing to do with jobs does not keep it looking. */
START_TEST(transactions_that_write_elsewhere_are_dropped)
{
    testdb_exec("CREATE TABLE public.orders (id integer)");
    PGconn *elsewhere = begin();
    pg_exec_ok(elsewhere, "INSERT INTO public.orders VALUES (1)");
    testdb_exec("SELECT pg_current_xact_id()");
    start(IS_OFF, "prune", one_task());
    ck_assert(wait_until(holds_lock("a"), E2E_WAIT_MS));
    if (IS_OFF) {
        for (int i = 0; i < STILL_LOOKING; i++) {
            long time = server_time();
            ck_assert(wait_until(was_active_since(time), E2E_WAIT_MS));
        }
    } else {
        ck_assert(wait_until(is_quiet(), E2E_WAIT_MS));
    }
    roll_back(elsewhere);
    daemon_stop(&daemon_);
}
END_TEST

static bool was_notified(PGconn *listener)
{
    pg_exec_ok(listener, "SELECT 1");
    PGnotify *notify = PQnotifies(listener);
    PQfreemem(notify);
    return notify != NULL;
}

/* But one that wrote jobs is watched for as long as it goes on. */
START_TEST(transactions_that_wrote_jobs_stay_watched)
{
    PGconn *gate = hold_up_the_watch();
    sql_rule(IS_OFF, "still_writing", "AND r.mode = 'RowExclusiveLock' AND r.granted",
             "AND r.mode = 'RowExclusiveLock' AND NOT r.granted");
    sql_replace("still_writing", "RETURN ARRAY(", "PERFORM pg_notify('asked', ''); RETURN ARRAY(");
    PGconn *listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN asked");
    start(false, "", one_task());
    gate_wait(1);
    PGconn *producer = begin();
    int64_t id = put(producer, "a", 1);
    let_it_sleep(gate);
    ck_assert(wait_until(was_notified(listener), E2E_WAIT_MS));
    if (IS_OFF)
        ck_assert(wait_until(is_quiet(), E2E_WAIT_MS));
    commit(producer);
    expect_done(id, IS_OFF);
    PQfinish(listener);
    daemon_stop(&daemon_);
}
END_TEST

/* A task without a free slot: whoever enqueues for it has nobody to wake. */
START_TEST(locks_of_saturated_tasks_are_let_go)
{
    start(IS_OFF, "saturated",
          e2e_config(FAR "tasks:\n  a: { shell: '%s', concurrency: 1 }\n"
                         "  b: { discard: true }\n",
                     wait_for_flag("go")));
    ck_assert(wait_until(holds_lock("a") && holds_lock("b"), E2E_WAIT_MS));
    (void)put_one("a");
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS));
    long time = server_time();
    int64_t second = put_one("a"); /* it is told once more */
    if (IS_OFF) {
        ck_assert(wait_until(has_looked_since(time), E2E_WAIT_MS));
        ck_assert(!wait_until(!holds_lock("a"), LOST_MS));
    } else {
        ck_assert(wait_until(!holds_lock("a"), E2E_WAIT_MS));
    }
    ck_assert(holds_lock("b"));
    flag_raise("go");
    ck_assert(wait_until(is_done(second), E2E_WAIT_MS));
    ck_assert(wait_until(holds_lock("a"), E2E_WAIT_MS));
    daemon_stop(&daemon_);
}
END_TEST

/* Nor when there is no free slot at all, so that nothing is there to look for. */
START_TEST(locks_of_a_saturated_daemon_are_let_go)
{
    start(false, "",
          e2e_config(FAR "tasks:\n  a: { shell: '%s', concurrency: 1 }\n", wait_for_flag("go")));
    ck_assert(wait_until(holds_lock("a"), E2E_WAIT_MS));
    (void)put_one("a");
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.jobs WHERE state = 'running'") == 1, E2E_WAIT_MS));
    int64_t second = put_one("a");
    ck_assert(wait_until(!holds_lock("a"), E2E_WAIT_MS / 6));
    flag_raise("go");
    ck_assert(wait_until(is_done(second), E2E_WAIT_MS));
    ck_assert(wait_until(holds_lock("a"), E2E_WAIT_MS));
    daemon_stop(&daemon_);
}
END_TEST

/* ---- the cost of sleeping ---- */

static void count_statements(void)
{
    testdb_exec("CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
}

/* Top-level statements of the daemon since the last reset: all, or looks alone. */
static long statements(const char *like)
{
    char sql[320];
    (void)snprintf(sql, sizeof sql,
                   "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d"
                   " ON d.oid = s.dbid WHERE d.datname = current_database() AND query LIKE '%s'"
                   " AND query NOT LIKE '%%pg_stat_statements%%'",
                   like);
    return testdb_long(sql);
}

/* 100 tasks, asleep, everything as it comes: a look a poll, a heartbeat now and then, and nothing
 * else, however many tasks there are. */
START_TEST(sleeping_daemon_asks_once_a_poll)
{
    char tasks[8192] = "";
    size_t len = 0;
    for (int i = 0; i < TASKS; i++)
        len += (size_t)snprintf(tasks + len, sizeof tasks - len, "  t%d: { discard: true }\n", i);
    ck_assert_uint_lt(len, sizeof tasks - 1);
    count_statements();
    start(false, "", e2e_config("tasks:\n%s", tasks));
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND"
                                     " classid = 1869968482") == TASKS,
                         E2E_WAIT_MS));
    ck_assert(wait_until(is_quiet(), E2E_WAIT_MS)); /* between two polls */
    testdb_exec("SELECT pg_stat_statements_reset()");
    ck_assert(wait_until(statements("%outbox.look(%") >= IDLE_LOOKS, E2E_WAIT_MS));
    long looks = statements("%outbox.look(%");
    long all = statements("%");
    ck_assert_int_le(all - looks, 2); /* a heartbeat may fall into it, and a look at the others */
    daemon_stop(&daemon_);
}
END_TEST

static TCase *daemon_case(Suite *suite, const char *name)
{
    static const char *const settings[] = {"autovacuum=off",
                                           "shared_preload_libraries=pg_stat_statements", NULL};
    TCase *tc = rules_case(suite, name);
    pgcluster_set_options(settings);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    return tc;
}

Suite *test_suite(void)
{
    Suite *suite = suite_create("rules_wake");
    TCase *tc = daemon_case(suite, "going to sleep");
    tcase_add_loop_test(tc, locks_are_taken_before_the_last_look, 0, 2);
    tcase_add_loop_test(tc, transactions_that_may_have_missed_the_lock_are_watched, 0, 2);
    tcase_add_loop_test(tc, transaction_with_the_newest_xid_is_watched, 0, 2);
    tc = daemon_case(suite, "asleep");
    tcase_add_loop_test(tc, held_rows_are_asked_for_while_asleep, 0, 2);
    tcase_add_loop_test(tc, transactions_that_write_elsewhere_are_dropped, 0, 2);
    tcase_add_loop_test(tc, transactions_that_wrote_jobs_stay_watched, 0, 2);
    tcase_add_loop_test(tc, locks_of_saturated_tasks_are_let_go, 0, 2);
    tcase_add_test(tc, locks_of_a_saturated_daemon_are_let_go);
    tc = daemon_case(suite, "cost");
    tcase_add_test(tc, sleeping_daemon_asks_once_a_poll);
    return suite;
}
