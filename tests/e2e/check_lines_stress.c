/* Promises 2, 3, 7 and what goes with them against chance: jobs with keys, unique keys, times,
 * repetitions and dependencies on three dispatchers, of which one is killed now and then, people
 * who cancel, retry and delete meanwhile, and an oracle that knows what was committed and what ran
 * when.
 *
 * Each run has a seed, which is printed and decides what every process does, though not how they
 * interleave. OUTBOX_STRESS_SEED=N runs that one, OUTBOX_STRESS_SEEDS=N so many new ones,
 * OUTBOX_STRESS_SECONDS=N lets each take about so long. OUTBOX_STRESS_SQL breaks something
 * beforehand, to see that it is found. What a failure leaves is in lines-stress-SEED/ of the build
 * folder. */
#define _GNU_SOURCE
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
#include "lines_stress.h"
#include "pgcluster.h"
#include "wait.h"

enum { SEEDS_DEFAULT = 3, SECONDS_DEFAULT = 5, STUCK_MS = 25000, LOGS_MAX = 1000 };

static const uint64_t *seeds;
static unsigned produce_seconds;

static struct lines *s;
static PGconn *conn;     /* the test's own */
static PGconn *listener; /* LISTEN outbox_done */
static struct daemon daemons[DISPATCHERS];
static char logs[LOGS_MAX][128]; /* of all that were started */
static unsigned logs_count;
static pid_t receiver;
static pid_t actors[ACTORS];
static bool was_all_heard; /* of the notifications */
static uint64_t random_state;

static unsigned below(unsigned n)
{
    return chance_below(&random_state, n);
}

static long number_of(const char *sql)
{
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, sql);
    long number = strtol(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return number;
}

/* ---- the scene ---- */

static void connect_both(void)
{
    PQfinish(conn);
    PQfinish(listener);
    conn = testdb_connect();
    listener = testdb_connect();
    pg_exec_ok(listener, "LISTEN outbox_done");
}

static void start_daemon(unsigned i)
{
    static int port;
    char text[2048];
    char name[32];
    if (port == 0) {
        int listen_fd = listen_loopback(&port);
        receiver = child_fork(SIGKILL);
        if (receiver == 0)
            lines_receive(s, listen_fd);
        (void)close(listen_fd);
    }
    size_t n = (size_t)snprintf(
        text, sizeof text,
        "name: l%u\nlease: 6s\npoll_interval: 1h\nsweep_interval: %s\nlog_level: %s\ntasks:\n", i,
        s->deletes ? "1s" : "1h", chance_setting("OUTBOX_STRESS_LOG", "info"));
    for (unsigned task = 0; task < TASKS; task++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "  %s: {webhook: 'http://127.0.0.1:%d/', concurrency: %d, backoff: "
                              "%ums, backoff_max: 20ms, max_attempts: 1000, max_lost: 1000%s%s}\n",
                              lines_task_names[task], port, task == TASK_FEW ? 1 : 4, 1 + 4 * task,
                              task == TASK_WALL ? ", on_dead: block" : "",
                              task == TASK_PART ? ", keep: 1h" : "");
    (void)snprintf(name, sizeof name, "l%u.yaml", i);
    const char *const args[] = {"--config", test_file(name, text, 0644), NULL};
    daemon_start(&daemons[i], args, NULL);
    if (logs_count < LOGS_MAX)
        (void)snprintf(logs[logs_count++], sizeof logs[0], "%s", daemons[i].log_path);
}

static void set_scene(uint64_t seed)
{
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    ck_assert_ptr_ne(s, MAP_FAILED);
    s->seed = seed;
    s->begun_ns = chance_now_ns();
    s->next_token = 1;
    s->next_tx = 1;
    s->deletes = s->seed % 3 == 1;
    s->restarts = s->seed % 3 == 2;
    random_state = chance_derive(s->seed, 0);
    (void)snprintf(s->conninfo, sizeof s->conninfo, "%s", testdb_conninfo());
    (void)printf("lines stress: OUTBOX_STRESS_SEED=%lu%s\n", (unsigned long)s->seed,
                 s->deletes    ? " (rows are deleted by hand)"
                 : s->restarts ? " (the server crashes)"
                               : "");
    connect_both();
    pg_exec_ok(conn, "CREATE TABLE ledger (token bigint PRIMARY KEY); CREATE TABLE deeds (deed "
                     "bigint PRIMARY KEY); SELECT outbox.set_task('few', " READY_MAX_TEXT ")");
    pg_exec_ok(conn, chance_setting("OUTBOX_STRESS_SQL", ""));
    for (unsigned i = 0; i < DISPATCHERS; i++)
        start_daemon(i);
    for (unsigned i = 0; i < DISPATCHERS; i++)
        daemon_expect_log(&daemons[i], "event=ready", E2E_WAIT_MS);
    for (unsigned i = 0; i < ACTORS; i++) {
        actors[i] = child_fork(SIGKILL);
        if (actors[i] == 0) {
            if (i < PRODUCERS)
                lines_produce(s, i);
            else
                lines_meddle(s, i - PRODUCERS);
            _exit(0);
        }
    }
}

/* ---- what is wrong ---- */

/* What remains to be looked at when the test's own folder is gone. */
static _Noreturn void leave_evidence(struct evidence *e, size_t wrong)
{
    evidence_table(e, conn, "jobs left",
                   "SELECT to_jsonb(j) - 'headers' FROM outbox.job j ORDER BY id LIMIT 50");
    evidence_table(e, conn, "dead jobs that block",
                   "SELECT to_jsonb(d) - 'headers' FROM outbox.dead d WHERE blocks LIMIT 50");
    evidence_table(e, conn, "dependencies", "SELECT to_jsonb(d) FROM outbox.dependency d LIMIT 50");
    evidence_server(e, conn);
    for (unsigned i = 0; i < logs_count; i++)
        evidence_file(e, logs[i]);
    evidence_fail(e, wrong);
}

/* ---- what happens meanwhile ---- */

static void take_notification(const PGnotify *n)
{
    char *state = NULL;
    int64_t id = strtoll(n->extra, &state, 10);
    was_all_heard = was_all_heard || id == 0;
    for (int64_t token = 1; token < atomic_load(&s->next_token); token++) {
        struct job *j = &s->jobs[token];
        if (atomic_load(&j->id) != id || j->existing)
            continue;
        for (unsigned i = 0; i < 4; i++)
            j->told[i] += strcmp(state + strspn(state, " "), lines_told_names[i]) == 0;
    }
}

static void listen_on(void)
{
    (void)PQconsumeInput(listener);
    for (PGnotify *n = PQnotifies(listener); n != NULL; n = PQnotifies(listener)) {
        take_notification(n);
        PQfreemem(n);
    }
}

static void supervise(void)
{
    int status = 0;
    for (unsigned i = 0; i < ACTORS; i++) {
        if (actors[i] > 0 && waitpid(actors[i], &status, WNOHANG) == actors[i]) {
            actors[i] = 0;
            if (child_exit_code(status) != 0)
                ck_abort_msg("seed %lu: a process of the stress ended with %d: %s",
                             (unsigned long)s->seed, child_exit_code(status), s->failure);
        }
    }
    ck_assert_msg(!atomic_load(&s->has_failed), "seed %lu: %s", (unsigned long)s->seed, s->failure);
    listen_on();
}

static void kill_one(void)
{
    unsigned i = below(DISPATCHERS);
    daemon_kill(&daemons[i], SIGKILL);
    ck_assert_int_eq(daemon_wait(&daemons[i], E2E_WAIT_MS), 128 + SIGKILL);
    if (below(2) == 0)
        (void)wait_until((supervise(), false), below(200));
    start_daemon(i);
    atomic_fetch_add(&s->kills, 1);
}

static void restart_server(void)
{
    pgcluster_crash_and_restart();
    connect_both();
    atomic_fetch_add(&s->restarts_done, 1);
}

static bool all_ended(void)
{
    supervise();
    for (unsigned i = 0; i < ACTORS; i++) {
        if (actors[i] > 0)
            return false;
    }
    return true;
}

/* Cancels those who block their keys. */
static void unblock(void)
{
    char sql[128];
    PGresult *res = pg_query(conn, PGRES_TUPLES_OK, "SELECT id FROM outbox.dead WHERE blocks");
    for (int row = 0; row < PQntuples(res); row++) {
        size_t i = atomic_fetch_add(&s->deeds_count, 1);
        ck_assert_uint_lt(i, DEEDS_MAX);
        struct deed *d = &s->deeds[i];
        *d = (struct deed){.kind = DEED_CANCEL, .answer = "cancelled"};
        d->id = strtoll(PQgetvalue(res, row, 0), NULL, 10);
        d->called_ns = chance_now_ns();
        (void)snprintf(sql, sizeof sql, "INSERT INTO deeds VALUES (%zu); SELECT outbox.cancel(%ld)",
                       i, (long)d->id);
        pg_exec_ok(conn, sql);
        atomic_store(&d->acked_ns, chance_now_ns());
    }
    PQclear(res);
}

/* Jobs, and what a row that was deleted by hand left to the slow check. */
#define LEFT_SQL                                                                                   \
    "SELECT (SELECT count(*) FROM outbox.job) + (SELECT count(*) FROM outbox.dependency)"

/* Nobody puts anything any more: all that is there has to come to its end, but for those behind a
 * dead job that blocks them. False when nothing has changed for long. */
static bool drain(void)
{
    long left = -1;
    size_t runs = 0;
    for (;;) {
        long left_before = left;
        size_t runs_before = runs;
        bool changed =
            wait_until((supervise(), unblock(), left = number_of(LEFT_SQL)) != left_before ||
                           (runs = atomic_load(&s->runs_count)) != runs_before || left == 0,
                       STUCK_MS);
        if (left == 0 || !changed)
            return left == 0;
    }
}

/* What must hold at any time, in one snapshot. Where rows are deleted by hand, those behind wait
 * for the slow check. The limit counts what was put; what is tried again comes on top. */
static void look(void)
{
    static const struct {
        const char *what;
        bool despite_deletes;
        const char *sql;
    } rules[] = {
        {"two jobs wait with one unique key, or a waiting one has lost it", true,
         "SELECT FROM outbox.job WHERE owner IS NULL AND coalesce(unique_key, claimed_unique_key) "
         "IS NOT NULL GROUP BY task, coalesce(unique_key, claimed_unique_key) HAVING count(*) > 1 "
         "OR count(claimed_unique_key) > 0"},
        {"two jobs are at the head of one line", true,
         "SELECT FROM outbox.job WHERE key IS NOT NULL AND place IS NOT NULL AND NOT waiting GROUP "
         "BY task, key HAVING count(*) > 1"},
        {"a line has no head", false,
         "SELECT FROM outbox.job j WHERE place IS NOT NULL AND NOT EXISTS (SELECT FROM outbox.dead "
         "d WHERE d.task = j.task AND d.key = j.key AND d.blocks) GROUP BY task, key HAVING "
         "bool_and(waiting)"},
        {"a line goes on behind a dead job that blocks it", true,
         "SELECT FROM outbox.job j JOIN outbox.dead d ON d.task = j.task AND d.key = j.key AND "
         "d.blocks AND j.place IS NOT NULL AND NOT j.waiting"},
        {"a job waits for nobody", false,
         "SELECT FROM outbox.job j WHERE waiting AND place IS NULL AND unmet IS DISTINCT FROM "
         "(SELECT count(*) FROM outbox.dependency d WHERE d.job_id = j.id)"},
        {"a job waits for one that is gone", false,
         "SELECT FROM outbox.dependency d WHERE NOT EXISTS (SELECT FROM outbox.job j WHERE j.id = "
         "d.after_id)"},
        {"more jobs are ready than may be", true,
         "SELECT FROM outbox.job WHERE task = 'few' AND ready_xid IS NOT NULL AND owner IS NULL "
         "AND "
         "attempts = 0 AND lost = 0 HAVING count(*) > " READY_MAX_TEXT},
    };
    char sql[800];
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM (%s) AS wrong", rules[i].sql);
        if ((s->deletes && !rules[i].despite_deletes) || number_of(sql) == 0)
            continue;
        struct evidence e;
        evidence_open(&e, "lines-stress", s->seed);
        (void)fprintf(e.report, "%s\n", rules[i].what);
        leave_evidence(&e, 1);
    }
}

static void perform(void)
{
    uint64_t begun_ms = wait_now_ms();
    uint64_t end_ms = begun_ms + produce_seconds * 1000;
    uint64_t crash_ms = begun_ms + 1000 + below(produce_seconds * 700);
    while (wait_now_ms() < end_ms) {
        (void)wait_until((supervise(), look(), false), 100 + below(600));
        if (s->restarts && wait_now_ms() > crash_ms) {
            restart_server();
            crash_ms = wait_now_ms() + 3000 + below(10000);
        }
        kill_one();
    }
    atomic_store(&s->is_stopping, true);
    ck_assert_msg(wait_until(all_ended(), E2E_WAIT_MS), "a producer or meddler does not end");
    kill_one();
}

/* ---- the verdict ---- */

static void judge(bool is_drained)
{
    /* A dead job is an error to a dispatcher, and none to us; nor is that a producer held a lock
     * for longer than it waits. */
    static const char *const expected[] = {"event=dead", "event=refused what=settle sqlstate=55P03",
                                           NULL};
    struct evidence e;
    evidence_open(&e, "lines-stress", s->seed);
    if (!is_drained)
        (void)fprintf(e.report, "nothing happens any more, and jobs are left\n");
    size_t wrong = lines_verify(s, conn, e.report) + !is_drained;
    for (unsigned i = 0; i < logs_count; i++)
        wrong += evidence_judge_log(&e, logs[i], expected);
    (void)printf("  transactions: %ld committed, %ld rolled back, %ld refused, %ld for their "
                 "isolation level, %ld for max_ready; %ld kills, %ld crashes of the server, %zu "
                 "deeds by hand\n",
                 s->commits, s->rollbacks, s->refusals, s->isolations, s->limits, s->kills,
                 s->restarts_done, atomic_load(&s->deeds_count));
    if (wrong > 0)
        leave_evidence(&e, wrong);
    evidence_discard(&e);
}

START_TEST(lines_twins_and_dependents_keep_their_rules)
{
    set_scene(seeds[_i]);
    perform();
    bool is_drained = drain();
    pg_exec_ok(conn, "SELECT pg_notify('outbox_done', '0 end')"); /* after all others */
    ck_assert(wait_until((listen_on(), was_all_heard), E2E_WAIT_MS));
    judge(is_drained);
    for (unsigned i = 0; i < DISPATCHERS; i++)
        daemon_stop(&daemons[i]);
    ck_assert_int_eq(number_of("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0);
    child_kill(receiver);
    PQfinish(conn);
    PQfinish(listener);
    (void)munmap(s, sizeof *s);
}
END_TEST

Suite *test_suite(void)
{
    static const char *const options[] = {"deadlock_timeout=250ms", NULL};
    Suite *suite = suite_create("lines_stress");
    TCase *tc = tcase_create("seeds");
    unsigned seeds_count = chance_seeds(SEEDS_DEFAULT, &seeds); /* of every kind in turn */
    produce_seconds = chance_setting_number("OUTBOX_STRESS_SECONDS", SECONDS_DEFAULT);
    pgcluster_set_options(options);
    tcase_set_timeout(tc, TIMEOUT_E2E_S + 2 * produce_seconds);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, lines_twins_and_dependents_keep_their_rules, 0, (int)seeds_count);
    suite_add_tcase(suite, tc);
    return suite;
}
