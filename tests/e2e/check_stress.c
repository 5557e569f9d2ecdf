/* Promises 2, 3, 4, 10 against chance: producers and meddlers of every kind, one to three
 * dispatchers that never look by the clock, and an oracle that knows what was committed.
 *
 * Each run has a seed, which is printed and decides what every process does, though not how they
 * interleave. OUTBOX_STRESS_SEED=N runs that one, OUTBOX_STRESS_SEEDS=N so many new ones,
 * OUTBOX_STRESS_SECONDS=N lets each take about so long. OUTBOX_STRESS_LATE_MS=N fails a run in
 * which a job of a roomy task was later than that: for a quiet machine. OUTBOX_STRESS_POLL=1s sets
 * poll_interval, OUTBOX_STRESS_LOG=debug the dispatchers' log level, OUTBOX_STRESS_SQL breaks
 * something beforehand, to see that it is found. What a failure leaves is in
 * stress-SEED/ of the build folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "evidence.h"
#include "pgcluster.h"
#include "stress.h"
#include "wait.h"

enum { ROUND_MAX_MS = 900, SECONDS_DEFAULT = 6, SEEDS_DEFAULT = 3, STUCK_MS = 20000 };

static const uint64_t *seeds;
static unsigned produce_seconds;

static struct stress *s;
static PGconn *conn; /* the test's own */
static struct daemon daemons[DAEMONS_MAX];
static unsigned daemons_count;
static pid_t receiver;
static pid_t producers[PRODUCERS_MAX];
static unsigned producers_count;
static unsigned producers_begun;
static unsigned rounds;
static pid_t meddlers[MEDDLERS];
static uint64_t random_state;

/* ---- the scene ---- */

static void make_tables(void)
{
    pg_exec_ok(conn, "CREATE TABLE ledger (token bigint PRIMARY KEY);"
                     "CREATE TABLE cancelled (token bigint);"
                     "CREATE TABLE account (k integer PRIMARY KEY, n bigint);"
                     "CREATE TABLE elsewhere (n bigint);"
                     "CREATE TABLE item (k integer PRIMARY KEY, token bigint);"
                     "CREATE TABLE copied_row (token bigint PRIMARY KEY, note text);"
                     "CREATE TABLE copied_statement (token bigint PRIMARY KEY, note text);"
                     "CREATE TRIGGER t AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE "
                     "FUNCTION outbox.enqueue_row('copied');"
                     "CREATE TRIGGER t AFTER INSERT ON copied_row FOR EACH ROW EXECUTE FUNCTION "
                     "outbox.enqueue_row('copied');"
                     "CREATE TRIGGER t AFTER INSERT ON copied_statement REFERENCING NEW TABLE AS "
                     "new_rows FOR EACH STATEMENT EXECUTE FUNCTION outbox.enqueue_row('bulk')");
}

static int start_receiver(void)
{
    int port = 0;
    int listen_fd = listen_loopback(&port);
    receiver = child_fork(SIGKILL);
    if (receiver == 0)
        stress_receive(s, listen_fd);
    (void)close(listen_fd);
    return port;
}

/* Writes what the command did, by the job's token: every second one fails at first. */
static const char *shelled_handler(void)
{
    char body[900];
    (void)snprintf(body, sizeof body,
                   "#!/bin/sh\nread -r line\ntoken=${line##*: }\ntoken=${token%%%%\\}*}\n"
                   "if [ $((token %% 2)) = 1 ] && [ \"$OUTBOX_ATTEMPT\" = 1 ] && [ ! -e %s.$token "
                   "]; then\n: > %s.$token\necho \"$token $OUTBOX_ATTEMPT 500\" >> %s\nexit 1\nfi\n"
                   "echo \"$token $OUTBOX_ATTEMPT 200\" >> %s\n",
                   flag_path("refused"), flag_path("refused"), ran_path(), ran_path());
    return test_file("shelled", body, 0755);
}

static size_t add_task(char *text, size_t size, enum stress_task task, int port,
                       const char *handler)
{
    static const int slots[TASKS] = {ROOMY_SLOTS, ROOMY_SLOTS, ROOMY_SLOTS, 6, 1, 2, 0};
    const char *name = stress_task_names[task];
    char what[320];
    if (task == TASK_SHELLED)
        (void)snprintf(what, sizeof what, "exec: [%s]", handler);
    else
        (void)snprintf(what, sizeof what, "webhook: 'http://127.0.0.1:%d/%s'", port, name);
    return (size_t)snprintf(text, size,
                            "  %s: {%s, concurrency: %d, backoff: %dms, backoff_jitter: 0}\n", name,
                            what, slots[task], task == TASK_LATER ? LATER_BACKOFF_MS : 0);
}

/* A key that this program may not know yet. */
static const char *sweep_line(void)
{
    static const char line[] = "sweep_interval: 1h\n";
    const char *config = test_file("sweep.yaml", line, 0644);
    struct command_result r = OUTBOX_RUN("check", "--config", config);
    return r.exit_code == 0 ? line : "";
}

/* Nothing that they do by the clock comes round in time to help: neither looks nor heartbeats.
 *
 * The same tasks for all, or for each some of them; every task is somebody's. */
static void start_daemons(int port)
{
    char handler[300];
    bool has[DAEMONS_MAX][TASKS] = {{false}};
    const char *sweep = sweep_line();
    (void)snprintf(handler, sizeof handler, "%s", shelled_handler());
    daemons_count = 1 + (unsigned)(chance_random(&random_state) % DAEMONS_MAX);
    bool are_same = chance_random(&random_state) % 2 == 0;
    for (unsigned task = 0; task < TASK_NOBODY; task++) {
        has[chance_random(&random_state) % daemons_count][task] = true;
        for (unsigned i = 0; i < daemons_count; i++)
            has[i][task] |= are_same || chance_random(&random_state) % 2 == 0;
    }
    (void)printf("  %u dispatchers", daemons_count);
    for (unsigned i = 0; i < daemons_count; i++) {
        char text[4096];
        char name[32];
        size_t n = (size_t)snprintf(
            text, sizeof text, "name: s%u\nlease: 1h\npoll_interval: %s\n%slog_level: %s\ntasks:\n",
            i, chance_setting("OUTBOX_STRESS_POLL", "1h"), sweep,
            chance_setting("OUTBOX_STRESS_LOG", "info"));
        (void)printf("%s", i == 0 ? ": " : "; ");
        for (unsigned task = 0; task < TASK_NOBODY; task++) {
            if (!has[i][task])
                continue;
            n += add_task(text + n, sizeof text - n, task, port, handler);
            (void)printf(" %s", stress_task_names[task]);
        }
        (void)snprintf(name, sizeof name, "s%u.yaml", i);
        const char *const args[] = {"--config", test_file(name, text, 0644), NULL};
        daemon_start(&daemons[i], args, NULL);
    }
    (void)printf("\n");
    for (unsigned i = 0; i < daemons_count; i++)
        daemon_expect_log(&daemons[i], "event=ready", E2E_WAIT_MS);
}

/* ---- the cast ---- */

static pid_t start_producer(unsigned number)
{
    uint64_t seed = chance_derive(s->seed, 1000 + producers_begun++);
    pid_t pid = child_fork(SIGKILL);
    if (pid == 0) {
        stress_produce(s, (int)number, seed);
        _exit(0);
    }
    return pid;
}

static pid_t start_meddler(unsigned number)
{
    pid_t pid = child_fork(SIGKILL);
    if (pid == 0) {
        stress_meddle(s, (int)number, chance_derive(s->seed, 500 + number));
        _exit(0);
    }
    return pid;
}

/* True if it has ended, which only a producer may do, by its own hand. */
static bool has_ended(pid_t *pid, bool may_die)
{
    int status = 0;
    if (*pid <= 0 || waitpid(*pid, &status, WNOHANG) != *pid)
        return *pid <= 0;
    int code = child_exit_code(status);
    *pid = 0;
    if (code != 0 && !(may_die && code == 128 + SIGKILL))
        ck_abort_msg("seed %lu: a process of the stress ended with %d: %s", (unsigned long)s->seed,
                     code, s->failure);
    return true;
}

static bool is_producer(pid_t pid)
{
    for (unsigned i = 0; i < producers_count; i++) {
        if (producers[i] == pid)
            return true;
    }
    return false;
}

/* Ends the prepared transactions of dead producers, and wakes. */
static void adopt_prepared(void)
{
    char sql[200];
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK,
                             "SELECT gid FROM pg_prepared_xacts WHERE database = "
                             "current_database()");
    for (int i = 0; i < PQntuples(res); i++) {
        const char *gid = PQgetvalue(res, i, 0);
        if (is_producer((pid_t)strtol(gid + strlen("stress "), NULL, 10)))
            continue;
        (void)snprintf(sql, sizeof sql, "%s PREPARED '%s'",
                       chance_random(&random_state) % 2 == 0 ? "COMMIT" : "ROLLBACK", gid);
        pg_exec_ok(conn, sql);
        pg_exec_ok(conn, "SELECT outbox.wake(unnest(ARRAY['brisk', 'later', 'copied', 'bulk', "
                         "'scarce', 'shelled', 'nobody']))");
    }
    PQclear(res);
}

static void supervise(void)
{
    if (atomic_load(&s->has_failed))
        ck_abort_msg("seed %lu: %s", (unsigned long)s->seed, s->failure);
    for (unsigned i = 0; i < producers_count; i++) {
        if (has_ended(&producers[i], true) && !atomic_load(&s->is_stopping)) {
            atomic_store(&s->backends[i], 0);
            atomic_store(&s->is_resting[i], false);
            producers[i] = start_producer(i);
        }
    }
    for (unsigned i = 0; i < MEDDLERS; i++)
        (void)has_ended(&meddlers[i], false);
    adopt_prepared();
}

static bool all_ended(void)
{
    bool ended = true;
    supervise();
    for (unsigned i = 0; i < producers_count; i++)
        ended = producers[i] == 0 && ended;
    for (unsigned i = 0; i < MEDDLERS; i++)
        ended = meddlers[i] == 0 && ended;
    return ended;
}

static bool all_rest(void)
{
    supervise();
    for (unsigned i = 0; i < producers_count; i++) {
        if (!atomic_load(&s->is_resting[i]))
            return false;
    }
    for (unsigned i = 0; i < MEDDLERS; i++) {
        if (i != IDLE_MEDDLER && !atomic_load(&s->is_resting[PRODUCERS_MAX + i]))
            return false;
    }
    return true;
}

static long number_of(const char *sql)
{
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, sql);
    long number = strtol(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return number;
}

/* Nobody commits anything, so nobody wakes: whatever is left behind now stays behind. True when
 * nothing is left; false when that has not changed for long. */
static bool drain(void)
{
    long left = -1;
    size_t runs = 0;
    for (;;) {
        long left_before = left;
        size_t runs_before = runs;
        bool changed =
            wait_until((left = number_of("SELECT count(*) FROM outbox.job WHERE task <> "
                                         "'nobody'")) != left_before ||
                           (runs = atomic_load(&s->runs_count)) != runs_before || left == 0,
                       STUCK_MS);
        if (left == 0 || !changed)
            return left == 0;
    }
}

/* Rounds of work, each with a quiet at its end in which everything has to be done by itself. */
static bool perform(void)
{
    static const unsigned counts[3] = {PRODUCERS_MAX, 8, 4};
    uint64_t end_ms = wait_now_ms() + produce_seconds * 1000;
    producers_count = counts[s->profile];
    s->begun_ns = chance_now_ns();
    for (unsigned i = 0; i < producers_count; i++)
        producers[i] = start_producer(i);
    for (unsigned i = 0; i < MEDDLERS; i++)
        meddlers[i] = start_meddler(i);
    for (;;) {
        unsigned round_ms = 100 + (unsigned)(chance_random(&random_state) % ROUND_MAX_MS);
        (void)wait_until((supervise(), false), round_ms);
        atomic_store(&s->is_quiet, true);
        ck_assert_msg(wait_until(all_rest(), E2E_WAIT_MS), "a producer or meddler does not end");
        if (!drain())
            return false;
        rounds++;
        if (wait_now_ms() >= end_ms)
            return true;
        atomic_store(&s->is_quiet, false);
    }
}

static void end_all(void)
{
    atomic_store(&s->is_quiet, true);
    atomic_store(&s->is_stopping, true);
    ck_assert_msg(wait_until(all_ended(), E2E_WAIT_MS), "a producer or meddler does not end");
}

/* Those whose only attempt was refused get others. */
static void raise_the_dead(void)
{
    while (!s->is_stuck && number_of("SELECT count(outbox.retry(id)) FROM outbox.dead") > 0)
        s->is_stuck = !drain();
}

/* What remains to be looked at when the test's own folder is gone. */
static _Noreturn void leave_evidence(struct evidence *e, size_t wrong)
{
    evidence_server(e, conn);
    evidence_table(
        e, conn, "jobs left",
        "SELECT to_jsonb(j) - 'headers' || jsonb_build_object('ready_xid', i.ready_xid) FROM"
        " outbox.jobs j JOIN outbox.job i USING (id) WHERE j.task <> 'nobody' ORDER BY id LIMIT "
        "50");
    for (unsigned i = 0; i < daemons_count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%u.yaml", i);
        evidence_file(e, daemons[i].log_path);
        evidence_file(e, flag_path(name));
    }
    evidence_file(e, ran_path());
    evidence_fail(e, wrong);
}

/* Errors that its log should not hold. A dead job is an error to it, and none to us; nor is that
 * somebody locked a row or the table for longer than it waits. */
static size_t judge_log(const struct daemon *d, struct evidence *e)
{
    static const char *const expected[] = {"event=dead", "sqlstate=55P03", "sqlstate=40P01", NULL};
    size_t wrong = evidence_judge_log(e, d->log_path, expected);
    if (daemon_log_count(d, "event=ready") == 1)
        return wrong;
    (void)fprintf(e->report, "a dispatcher lost contact\n");
    return wrong + 1;
}

static void judge(void)
{
    struct evidence e;
    evidence_open(&e, "stress", s->seed);
    size_t wrong = oracle_verify(s, conn, ran_path(), e.report);
    wrong += oracle_lateness(s, chance_setting_number("OUTBOX_STRESS_LATE_MS", 0), e.report);
    for (unsigned i = 0; i < daemons_count; i++)
        wrong += judge_log(&daemons[i], &e);
    (void)printf(
        "  %u rounds; transactions: %ld committed, %ld mute, %ld prepared, %ld rolled back, %ld "
        "unknown; %ld refusals, %ld deaths, %ld sabotages, %ld locks, %ld cancels, %ld "
        "retries\n",
        rounds, s->transactions[END_COMMITTED], s->transactions[END_COMMITTED_MUTE],
        s->transactions[END_COMMITTED_PREPARED], s->transactions[END_ROLLED_BACK],
        s->transactions[END_UNKNOWN], s->refusals, s->deaths, s->sabotages, s->locks, s->cancels,
        s->retries);
    if (wrong > 0)
        leave_evidence(&e, wrong);
    evidence_discard(&e);
}

START_TEST(every_committed_job_succeeds_once_and_no_other_runs)
{
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    ck_assert_ptr_ne(s, MAP_FAILED);
    s->seed = seeds[_i];
    s->next_token = 1;
    s->profile = (int)(s->seed % 3);
    random_state = chance_derive(s->seed, 0);
    (void)snprintf(s->conninfo, sizeof s->conninfo, "%s", testdb_conninfo());
    (void)printf("stress: OUTBOX_STRESS_SEED=%lu\n", (unsigned long)s->seed);
    conn = testdb_connect();
    make_tables();
    pg_exec_ok(conn, chance_setting("OUTBOX_STRESS_SQL", ""));
    start_daemons(start_receiver());
    s->is_stuck = !perform();
    end_all();
    raise_the_dead();
    judge();
    for (unsigned i = 0; i < daemons_count; i++)
        daemon_stop(&daemons[i]);
    child_kill(receiver);
    PQfinish(conn);
    (void)munmap(s, sizeof *s);
}
END_TEST

Suite *test_suite(void)
{
    static const char *const options[] = {"max_prepared_transactions=64", "deadlock_timeout=50ms",
                                          NULL};
    Suite *suite = suite_create("stress");
    TCase *tc = tcase_create("seeds");
    unsigned seeds_count = chance_seeds(SEEDS_DEFAULT, &seeds); /* of every profile in turn */
    produce_seconds = chance_setting_number("OUTBOX_STRESS_SECONDS", SECONDS_DEFAULT);
    pgcluster_set_options(options);
    tcase_set_timeout(tc, TIMEOUT_E2E_S + produce_seconds);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, every_committed_job_succeeds_once_and_no_other_runs, 0,
                        (int)seeds_count);
    suite_add_tcase(suite, tc);
    return suite;
}
