/* check_session.c - the daemon's standing with the database when something breaks at a bad moment:
 * in the middle of a statement, of joining again, of stopping, of a reload.
 *
 * The moment is held by a gate: a trigger on outbox.job in which the statement waits until the test
 * opens it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "faultproxy.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

#define START(...) daemon_start_ready(&d, (const char *const[]){__VA_ARGS__, NULL}, NULL)

enum gate_place { AT_CLAIM, AT_SETTLE, AT_ADOPT, AT_UNREGISTER };

static void gate_close(enum gate_place place)
{
    static const char *const events[] = {
        [AT_CLAIM] = "UPDATE ON outbox.job FOR EACH ROW WHEN (old.owner IS NULL)",
        [AT_SETTLE] = "DELETE ON outbox.job FOR EACH ROW",
        [AT_ADOPT] = ("UPDATE ON outbox.job FOR EACH ROW WHEN"
                      " (old.owner IS NOT NULL AND new.owner IS NOT NULL)"),
        [AT_UNREGISTER] = "DELETE ON outbox.dispatcher FOR EACH ROW",
    };
    char sql[256];
    testdb_exec("CREATE TABLE public.gate AS SELECT true AS closed");
    testdb_exec("CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
                " 'BEGIN WHILE (SELECT closed FROM public.gate) LOOP PERFORM pg_sleep(0.01);"
                " END LOOP; RETURN coalesce(new, old); END'");
    (void)snprintf(sql, sizeof sql, "CREATE TRIGGER gate BEFORE %s EXECUTE FUNCTION public.gate()",
                   events[place]);
    testdb_exec(sql);
}

static bool is_at_gate(void)
{
    return testdb_long("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0;
}

static void gate_await(void)
{
    ck_assert(wait_until(is_at_gate(), E2E_WAIT_MS));
}

static void gate_open(void)
{
    testdb_exec("UPDATE public.gate SET closed = false");
}

/* Ends the daemon's session of that kind: 1 work, 2 heartbeat. */
static void terminate(int backend)
{
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "SELECT pg_terminate_backend(backends[%d]) FROM outbox.dispatcher"
                   " ORDER BY started_at DESC LIMIT 1",
                   backend);
    ck_assert_str_eq(testdb_value(sql), "t");
}

/* A session of ours that stays while nobody else may connect. */
static void shut_out(PGconn *admin, bool is_out)
{
    pg_exec_ok(admin, is_out ? "UPDATE pg_database SET datallowconn = false"
                               " WHERE datname = current_database()"
                             : "UPDATE pg_database SET datallowconn = true"
                               " WHERE datname = current_database()");
}

static const char *config_file(const char *text)
{
    return test_file("outbox.yaml", text, 0644);
}

/* The row's removal takes long, and meanwhile the heartbeat connection is lost and comes back. */
START_TEST(heartbeat_that_comes_back_while_stopping_is_harmless)
{
    START("--shell", recording("mail", ""));
    gate_close(AT_UNREGISTER);
    daemon_kill(&d, SIGTERM);
    gate_await();
    terminate(2);
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM pg_stat_activity"
                                     " WHERE application_name = 'outbox heartbeat'") == 1,
                         E2E_WAIT_MS));
    gate_open();
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 0);
}
END_TEST

/* A result that the database does not take while stopping: given up, said so, exit 75. */
START_TEST(results_that_cannot_be_recorded_end_with_75)
{
    const char *config = config_file("stop_timeout: 1s\n");
    START("--config", config, "--shell", recording("mail", ""));
    gate_close(AT_SETTLE);
    (void)enqueue_one("mail", "{}");
    gate_await();
    daemon_kill(&d, SIGTERM);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 75);
    daemon_expect_log(&d, "event=results_not_recorded", 0);
    gate_open();
}
END_TEST

/* QUIT while a large payload's fetch was cut off and the server is away. */
START_TEST(quitting_while_a_payload_is_awaited_is_orderly)
{
    PGconn *admin = testdb_connect();
    START("--shell", recording("mail", ""));
    gate_close(AT_SETTLE); /* for its table and function */
    testdb_exec(
        "CREATE OR REPLACE FUNCTION outbox.payload(id bigint) RETURNS bytea LANGUAGE plpgsql"
        " AS 'BEGIN WHILE (SELECT closed FROM public.gate) LOOP PERFORM pg_sleep(0.01);"
        " END LOOP; RETURN NULL; END'");
    testdb_exec("SELECT outbox.enqueue('mail', to_jsonb(repeat(md5('x'), 4000)))");
    gate_await();
    shut_out(admin, true);
    pg_exec_ok(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                      " WHERE application_name LIKE 'outbox %'");
    daemon_expect_log(&d, "event=database_down connection=work", E2E_WAIT_MS);
    daemon_kill(&d, SIGQUIT);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 75);
    shut_out(admin, false);
    PQfinish(admin);
    ck_assert_uint_eq(runs_count(), 0);
}
END_TEST

/* A claim under way when its task's handler goes away: the job still has a decent end. */
START_TEST(reload_that_takes_a_handler_away_during_its_claim_is_harmless)
{
    const char *config = config_file("tasks:\n  mail: {discard: true}\n  other: {discard: true}\n");
    START("--config", config);
    gate_close(AT_CLAIM);
    (void)enqueue_one("mail", "{}");
    gate_await();
    (void)config_file("tasks:\n  other: {discard: true}\n");
    daemon_kill(&d, SIGHUP);
    daemon_expect_log(&d, "event=reloaded", E2E_WAIT_MS);
    gate_open();
    ck_assert(wait_until(
        testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL") == 0, E2E_WAIT_MS));
    long other = enqueue_one("other", "{}");
    ck_assert(wait_until(testdb_value("SELECT 1 FROM outbox.job WHERE task = 'other'") == NULL &&
                             other > 0,
                         E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

/* The work connection is fine and the heartbeat can't come back: nothing new starts once the lease
 * nears its end, since another dispatcher may soon take it over. */
START_TEST(nothing_starts_under_a_lease_that_is_not_renewed)
{
    PGconn *admin = testdb_connect();
    START("--lease", "5s", "--shell", recording("mail", ""));
    shut_out(admin, true);
    pg_exec_ok(admin, "SELECT pg_terminate_backend(backends[2]) FROM outbox.dispatcher");
    daemon_expect_log(&d, "event=lease_ending", E2E_WAIT_MS);
    pg_exec_ok(admin, "SELECT outbox.enqueue('mail')");
    daemon_expect_log(&d, "event=lease_over", E2E_WAIT_MS); /* more than a second: a look or two */
    ck_assert_uint_eq(runs_count(), 0);
    pg_exec_ok(admin, "DO $$BEGIN ASSERT (SELECT attempts = 0 FROM outbox.job); END$$");
    shut_out(admin, false);
    daemon_expect_log(&d, "event=lease_renewed", E2E_WAIT_MS);
    wait_until_all_done();
    PQfinish(admin);
    ck_assert_uint_eq(runs_count(), 1);
    daemon_stop(&d);
}
END_TEST

/* A lease that a reload changes is for the next start: the others expire us by the one that is in
 * our row. */
START_TEST(reload_keeps_the_lease_that_the_others_know)
{
    const char *config = config_file("lease: 5s\ntasks:\n  mail: {discard: true}\n");
    START("--config", config);
    (void)config_file("lease: 1h\ntasks:\n  mail: {discard: true}\n");
    daemon_kill(&d, SIGHUP);
    daemon_expect_log(&d, "event=needs_restart", E2E_WAIT_MS);
    daemon_expect_log(&d, "event=reloaded", E2E_WAIT_MS);
    long beat = testdb_long("SELECT beat FROM outbox.dispatcher");
    ck_assert(
        wait_until(testdb_long("SELECT beat FROM outbox.dispatcher") >= beat + 3, E2E_WAIT_MS));
    daemon_stop(&d);
}
END_TEST

/* The connection breaks again while running jobs are being adopted, before that is committed: they
 * run on, once. */
START_TEST(jobs_run_on_when_their_adoption_is_cut_off)
{
    START("--shell", recording("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    gate_close(AT_ADOPT);
    terminate(1);
    gate_await();
    terminate(1);
    ck_assert(wait_until(!is_at_gate(), E2E_WAIT_MS));
    gate_open();
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE owner IS NOT NULL"), 3);
    flag_raise("go");
    expect_all_ran(1, 3);
    ck_assert_uint_eq(runs_count(), 3);
    ck_assert(!daemon_logged(&d, "event=lost_claim"));
    daemon_stop(&d);
}
END_TEST

/* A session of the connection before was cut off in the middle of a turn and holds a job's row: it
 * is ended before the job is adopted, not waited for. */
START_TEST(session_cut_off_in_a_turn_does_not_hold_up_adoption)
{
    char sql[300];
    START("--shell", recording("mail", wait_for_flag("go")));
    enqueue_jobs("mail", 1);
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    PGconn *cut_off = testdb_connect(); /* as the server sees it */
    (void)snprintf(sql, sizeof sql, "SET application_name = 'outbox %s'",
                   testdb_value("SELECT id FROM outbox.dispatcher"));
    pg_exec_ok(cut_off, sql);
    pg_exec_ok(cut_off, "BEGIN");
    pg_exec_ok(cut_off, "SELECT FROM outbox.job FOR UPDATE");
    (void)snprintf(sql, sizeof sql,
                   "WITH ended AS (SELECT pg_terminate_backend(backends[1]) FROM outbox.dispatcher)"
                   " UPDATE outbox.dispatcher SET backends = ARRAY[%d] FROM ended",
                   PQbackendPID(cut_off));
    testdb_exec(sql);
    ck_assert(wait_until(daemon_log_count(&d, "event=ready") == 2, E2E_WAIT_MS));
    flag_raise("go");
    expect_all_ran(1, 1);
    ck_assert_uint_eq(runs_count(), 1);
    PQfinish(cut_off);
    daemon_stop(&d);
}
END_TEST

/* An adoption is committed and its answer is lost: whose the jobs are is not known,
 * so they are stopped before they are given back; never two at once. */
START_TEST(jobs_never_run_twice_at_once_when_an_adoption_is_in_doubt)
{
    struct faultproxy proxy;
    char target[160];
    char database[300];
    char handler[700];
    (void)snprintf(target, sizeof target, "%s/.s.PGSQL.5432", pgcluster_socket_dir());
    faultproxy_start(&proxy, target);
    (void)snprintf(database, sizeof database,
                   "OUTBOX_DATABASE=host=127.0.0.1 port=%d user=postgres dbname=%s", proxy.port,
                   testdb_value("SELECT current_database()"));
    (void)snprintf(handler, sizeof handler,
                   "[ -e %s ] && exit; mkdir %s/$OUTBOX_JOB_ID || echo 1 >> %s; trap 'sleep 1;"
                   " rmdir %s/$OUTBOX_JOB_ID; exit 1' TERM; while :; do sleep 0.05; done",
                   flag_path("second"), test_dir(), flag_path("twice"), test_dir());
    const char *const args[] = {"--shell", recording("mail", handler), NULL};
    const char *const env[] = {database, NULL};
    daemon_start_ready(&d, args, env);
    enqueue_jobs("mail", 3);
    ck_assert(wait_until(runs_count() == 3, E2E_WAIT_MS));
    gate_close(AT_ADOPT);
    terminate(1);
    gate_await();
    faultproxy_stall(&proxy);
    gate_open();
    ck_assert(wait_until(testdb_long("SELECT count(DISTINCT owner) FROM outbox.job j WHERE owner ="
                                     " (SELECT id FROM outbox.dispatcher"
                                     "  ORDER BY started_at DESC LIMIT 1)") == 1,
                         E2E_WAIT_MS));
    faultproxy_reset(&proxy);
    faultproxy_pass(&proxy);
    ck_assert(wait_until(runs_count() == 6, E2E_WAIT_MS)); /* again, after they had ended */
    ck_assert_uint_eq(count_lines(flag_path("twice")), 0);
    flag_raise("second");
    daemon_kill(&d, SIGKILL); /* nothing of interest is left */
    (void)daemon_wait(&d, E2E_WAIT_MS);
    faultproxy_stop(&proxy);
}
END_TEST

/* Many failures at once, each with all the output that may be kept. */
START_TEST(much_output_of_many_failures_is_recorded_in_pieces)
{
    char text[800];
    (void)snprintf(text, sizeof text,
                   "concurrency: 40\n"
                   "tasks:\n"
                   "  ok: {discard: true}\n"
                   "  loud:\n"
                   "    shell: '%s; head -c 2500000 /dev/zero | tr \"\\0\" x; exit 1'\n"
                   "    max_attempts: 1\n"
                   "    capture_head: 1MiB\n"
                   "    capture_tail: 1MiB\n",
                   wait_for_flag("go"));
    START("--config", config_file(text), "--log-level", "debug");
    enqueue_jobs("loud", 40);
    ck_assert(wait_until(daemon_log_count(&d, "event=started") == 40, E2E_WAIT_MS));
    gate_close(AT_SETTLE);
    (void)enqueue_one("ok", "{}");
    gate_await();
    flag_raise("go");
    ck_assert(wait_until(daemon_log_count(&d, "event=dead") == 40, E2E_WAIT_MS));
    gate_open();
    ck_assert(wait_until(testdb_long("SELECT count(*) FROM outbox.dead") == 40, E2E_WAIT_MS));
    ck_assert_int_eq(testdb_long("SELECT min(length(output_head) + length(output_tail))"
                                 " FROM outbox.attempt"),
                     2 << 20);
    daemon_stop(&d);
}
END_TEST

/* A job of the daemon that died is locked by somebody's open transaction: the next one does not
 * wait for it. */
START_TEST(restart_does_not_wait_for_a_locked_job)
{
    const char *handler = recording("mail", wait_for_flag("go"));
    START("--shell", handler);
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    PGconn *human = testdb_connect();
    pg_exec_ok(human, "BEGIN");
    pg_exec_ok(human, "SELECT FROM outbox.job FOR UPDATE");
    daemon_kill(&d, SIGKILL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 128 + SIGKILL);
    flag_raise("go");
    START("--shell", handler);
    long next = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_of(next) == 1, E2E_WAIT_MS));
    pg_exec_ok(human, "COMMIT");
    PQfinish(human);
    ck_assert_int_gt(id, 0);
    daemon_stop(&d);
}
END_TEST

/* ... and takes that job back as soon as it is let go, not when the dead one's lease is over. */
START_TEST(restart_takes_a_locked_job_back_when_it_is_let_go)
{
    enum { LEASE_S = 30, BEAT_MS = LEASE_S * 1000 / 6 };
    const char *config = e2e_config("lease: %ds\n", LEASE_S);
    const char *handler = recording("mail", wait_for_flag("go"));
    START("--config", config, "--shell", handler);
    long id = enqueue_one("mail", "{}");
    ck_assert(wait_until(runs_count() == 1, E2E_WAIT_MS));
    PGconn *human = testdb_connect();
    pg_exec_ok(human, "BEGIN");
    pg_exec_ok(human, "SELECT FROM outbox.job FOR UPDATE");
    daemon_kill(&d, SIGKILL);
    ck_assert_int_eq(daemon_wait(&d, E2E_WAIT_MS), 128 + SIGKILL);
    flag_raise("go");
    START("--config", config, "--shell", handler);
    pg_exec_ok(human, "COMMIT");
    PQfinish(human);
    ck_assert(wait_until(runs_of(id) == 2, 4 * BEAT_MS));
    daemon_stop(&d);
}
END_TEST

static bool is_gone(long id)
{
    char sql[80];
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM outbox.job WHERE id = %ld", id);
    return testdb_long(sql) == 0;
}

static long rollbacks(void)
{
    return testdb_long("SELECT xact_rollback FROM pg_stat_database"
                       " WHERE datname = current_database()");
}

/* A failed job that somebody keeps locked: the others are recorded meanwhile, and it is, with its
 * reason, once it is let go. */
START_TEST(locked_job_holds_nobody_up_and_keeps_its_reason)
{
    char bad[800];
    (void)snprintf(bad, sizeof bad, "bad=%s; exit 65", wait_for_flag("go"));
    START("--shell", bad, "--shell", recording("quick", ""), "--log-level", "debug");
    long id = enqueue_one("bad", "{}");
    daemon_expect_log(&d, "event=started", E2E_WAIT_MS);
    PGconn *human = testdb_connect();
    pg_exec_ok(human, "BEGIN");
    pg_exec_ok(human, "LOCK TABLE outbox.dead"); /* settle may delete the job, not bury it */
    long before = rollbacks();
    flag_raise("go");
    ck_assert(wait_until(rollbacks() >= before + 6, E2E_WAIT_MS));
    for (int i = 0; i < 3; i++) {
        long quick = enqueue_one("quick", "{}");
        ck_assert(wait_until(is_gone(quick), E2E_WAIT_MS));
    }
    ck_assert(!is_gone(id));
    pg_exec_ok(human, "COMMIT");
    PQfinish(human);
    ck_assert(wait_until(is_gone(id), E2E_WAIT_MS));
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "exit 65");
    daemon_stop(&d);
}
END_TEST

/* The turn waits once for a row that somebody locks. From then on it asks without waiting, also
 * for other rows, and when others were recorded meanwhile. */
START_TEST(a_locked_row_is_waited_for_once)
{
    START("--shell", recording("slow", wait_for_flag("go")), "--shell",
          recording("later", wait_for_flag("then")), "--shell", recording("quick", ""),
          "--log-sql");
    long id = enqueue_one("slow", "{}");
    long other = enqueue_one("later", "{}");
    ck_assert(wait_until(runs_of(id) == 1 && runs_of(other) == 1, E2E_WAIT_MS));
    PGconn *human = testdb_connect();
    pg_exec_ok(human, "BEGIN");
    pg_exec_ok(human, "SELECT FROM outbox.job FOR UPDATE");
    flag_raise("go");
    daemon_expect_log(&d, "sqlstate=55P03", E2E_WAIT_MS);
    for (int i = 0; i < 30; i++) {
        long quick = enqueue_one("quick", "{}");
        ck_assert(wait_until(is_gone(quick), E2E_WAIT_MS));
        if (i == 10)
            flag_raise("then");
    }
    ck_assert(!is_gone(id));
    ck_assert(!is_gone(other));
    pg_exec_ok(human, "COMMIT");
    PQfinish(human);
    ck_assert(wait_until(is_gone(id) && is_gone(other), E2E_WAIT_MS));
    ck_assert_uint_eq(daemon_log_count(&d, "statement=outbox.settle outcome=refused"), 1);
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("session");
    TCase *tc = tcase_create("bad moments");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, heartbeat_that_comes_back_while_stopping_is_harmless);
    tcase_add_test(tc, results_that_cannot_be_recorded_end_with_75);
    tcase_add_test(tc, quitting_while_a_payload_is_awaited_is_orderly);
    tcase_add_test(tc, reload_that_takes_a_handler_away_during_its_claim_is_harmless);
    tcase_add_test(tc, nothing_starts_under_a_lease_that_is_not_renewed);
    tcase_add_test(tc, reload_keeps_the_lease_that_the_others_know);
    tcase_add_test(tc, jobs_run_on_when_their_adoption_is_cut_off);
    tcase_add_test(tc, session_cut_off_in_a_turn_does_not_hold_up_adoption);
    tcase_add_test(tc, jobs_never_run_twice_at_once_when_an_adoption_is_in_doubt);
    tcase_add_test(tc, much_output_of_many_failures_is_recorded_in_pieces);
    tcase_add_test(tc, restart_does_not_wait_for_a_locked_job);
    tcase_add_test(tc, restart_takes_a_locked_job_back_when_it_is_let_go);
    tcase_add_test(tc, locked_job_holds_nobody_up_and_keeps_its_reason);
    tcase_add_test(tc, a_locked_row_is_waited_for_once);
    suite_add_tcase(s, tc);
    return s;
}
