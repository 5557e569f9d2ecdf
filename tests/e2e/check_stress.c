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
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "stress.h"
#include "wait.h"

enum {
    SEEDS_MAX = 1000,
    ROUND_MAX_MS = 900,
    SECONDS_DEFAULT = 6,
    SEEDS_DEFAULT = 3,
    STUCK_MS = 20000
};

static uint64_t seeds[SEEDS_MAX];
static unsigned seeds_count;
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

static const char *setting(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : fallback;
}

static unsigned setting_number(const char *name, unsigned fallback)
{
    const char *value = setting(name, NULL);
    return value != NULL ? (unsigned)strtoul(value, NULL, 10) : fallback;
}

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
    daemons_count = 1 + (unsigned)(stress_random(&random_state) % DAEMONS_MAX);
    bool are_same = stress_random(&random_state) % 2 == 0;
    for (unsigned task = 0; task < TASK_NOBODY; task++) {
        has[stress_random(&random_state) % daemons_count][task] = true;
        for (unsigned i = 0; i < daemons_count; i++)
            has[i][task] |= are_same || stress_random(&random_state) % 2 == 0;
    }
    (void)printf("  %u dispatchers", daemons_count);
    for (unsigned i = 0; i < daemons_count; i++) {
        char text[4096];
        char name[32];
        size_t n = (size_t)snprintf(
            text, sizeof text, "name: s%u\nlease: 1h\npoll_interval: %s\n%slog_level: %s\ntasks:\n",
            i, setting("OUTBOX_STRESS_POLL", "1h"), sweep, setting("OUTBOX_STRESS_LOG", "info"));
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
    uint64_t seed = stress_derive(s->seed, 1000 + producers_begun++);
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
        stress_meddle(s, (int)number, stress_derive(s->seed, 500 + number));
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
                       stress_random(&random_state) % 2 == 0 ? "COMMIT" : "ROLLBACK", gid);
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
    s->begun_ns = stress_now_ns();
    for (unsigned i = 0; i < producers_count; i++)
        producers[i] = start_producer(i);
    for (unsigned i = 0; i < MEDDLERS; i++)
        meddlers[i] = start_meddler(i);
    for (;;) {
        unsigned round_ms = 100 + (unsigned)(stress_random(&random_state) % ROUND_MAX_MS);
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

static void copy_file(const char *from, const char *dir, const char *name)
{
    char to[400];
    size_t len = 0;
    char *text = read_file_from(from, 0, &len);
    (void)snprintf(to, sizeof to, "%s/%s", dir, name);
    FILE *f = fopen(to, "w");
    if (f != NULL && text != NULL)
        (void)fwrite(text, 1, len, f);
    if (f != NULL)
        (void)fclose(f);
    free(text);
}

static void show_table(FILE *report, const char *what, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    (void)fprintf(report, "%s:\n", what);
    for (int i = 0; i < PQntuples(res); i++)
        (void)fprintf(report, "  %s\n", PQgetvalue(res, i, 0));
    PQclear(res);
}

/* What remains to be looked at when the test's own folder is gone. */
static _Noreturn void leave_evidence(size_t wrong, FILE *report, char *const *text)
{
    char dir[300];
    char path[400];
    show_table(report, "locks",
               "SELECT format('%s %s (%s): %s %s %s %s%s', pid, application_name, state, locktype, "
               "mode, relation::regclass, objid, CASE WHEN NOT granted THEN ' waits' END) FROM "
               "pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE l.database IS NOT NULL "
               "AND pid IS DISTINCT FROM pg_backend_pid() LIMIT 60");
    show_table(report, "dispatchers", "SELECT to_jsonb(d) FROM outbox.dispatchers d");
    show_table(report, "jobs left",
               "SELECT to_jsonb(j) - 'headers' || jsonb_build_object('ready_xid', i.ready_xid) "
               "FROM outbox.jobs j JOIN outbox.job i USING (id) WHERE j.task <> 'nobody' ORDER BY "
               "id LIMIT 50");
    (void)fflush(report);
    (void)snprintf(dir, sizeof dir, "%s/stress-%lu", OB_TEST_BUILD_DIR, (unsigned long)s->seed);
    (void)mkdir(dir, 0755);
    for (unsigned i = 0; i < daemons_count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%u.log", i);
        copy_file(daemons[i].log_path, dir, name);
        (void)snprintf(name, sizeof name, "s%u.yaml", i);
        copy_file(flag_path(name), dir, name);
    }
    (void)snprintf(path, sizeof path, "%s/server.log", pgcluster_socket_dir());
    copy_file(path, dir, "server.log");
    copy_file(ran_path(), dir, "ran");
    FILE *f = fopen(test_file("report", *text, 0644), "r");
    if (f != NULL)
        (void)fclose(f);
    copy_file(flag_path("report"), dir, "report");
    ck_abort_msg("seed %lu (OUTBOX_STRESS_SEED): %zu things are wrong; more in %s\n%.2500s",
                 (unsigned long)s->seed, wrong, dir, *text);
}

/* Errors that its log should not hold. A dead job is an error to it, and none to us; nor is that
 * somebody locked a row or the table for longer than it waits. */
static size_t judge_log(const struct daemon *d, FILE *report)
{
    char *log = read_file_from(d->log_path, 0, NULL);
    char *next = NULL;
    size_t wrong = 0;
    for (char *line = log; line != NULL && *line != '\0'; line = next) {
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        if (strstr(line, "level=error") != NULL && strstr(line, "event=dead") == NULL &&
            strstr(line, "sqlstate=55P03") == NULL && strstr(line, "sqlstate=40P01") == NULL &&
            wrong++ < 3)
            (void)fprintf(report, "a dispatcher logged: %s\n", line);
    }
    free(log);
    if (daemon_log_count(d, "event=ready") != 1) {
        (void)fprintf(report, "a dispatcher lost contact\n");
        wrong++;
    }
    return wrong;
}

static void judge(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *report = open_memstream(&text, &len);
    ck_assert_ptr_nonnull(report);
    size_t wrong = oracle_verify(s, conn, ran_path(), report);
    wrong += oracle_lateness(s, setting_number("OUTBOX_STRESS_LATE_MS", 0), report);
    for (unsigned i = 0; i < daemons_count; i++)
        wrong += judge_log(&daemons[i], report);
    (void)printf(
        "  %u rounds; transactions: %ld committed, %ld mute, %ld prepared, %ld rolled back, %ld "
        "unknown; %ld refusals, %ld deaths, %ld sabotages, %ld locks, %ld cancels, %ld "
        "retries\n",
        rounds, s->transactions[END_COMMITTED], s->transactions[END_COMMITTED_MUTE],
        s->transactions[END_COMMITTED_PREPARED], s->transactions[END_ROLLED_BACK],
        s->transactions[END_UNKNOWN], s->refusals, s->deaths, s->sabotages, s->locks, s->cancels,
        s->retries);
    if (wrong > 0)
        leave_evidence(wrong, report, &text);
    (void)fclose(report);
    free(text);
}

START_TEST(every_committed_job_succeeds_once_and_no_other_runs)
{
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    ck_assert_ptr_ne(s, MAP_FAILED);
    s->seed = seeds[_i];
    s->next_token = 1;
    s->profile = (int)(s->seed % 3);
    random_state = stress_derive(s->seed, 0);
    (void)snprintf(s->conninfo, sizeof s->conninfo, "%s", testdb_conninfo());
    (void)printf("stress: OUTBOX_STRESS_SEED=%lu\n", (unsigned long)s->seed);
    conn = testdb_connect();
    make_tables();
    pg_exec_ok(conn, setting("OUTBOX_STRESS_SQL", ""));
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

/* New seeds are of every profile in turn. */
static void choose_seeds(void)
{
    seeds_count = setting_number("OUTBOX_STRESS_SEEDS", SEEDS_DEFAULT);
    seeds_count = seeds_count > 0 && seeds_count <= SEEDS_MAX ? seeds_count : SEEDS_DEFAULT;
    for (unsigned i = 0; i < seeds_count; i++) {
        uint32_t bits = 0;
        if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
            bits = (uint32_t)stress_now_ns();
        seeds[i] = 3 + (uint64_t)(bits % 1000000) * 3 + i % 3;
    }
    const char *seed = setting("OUTBOX_STRESS_SEED", NULL);
    if (seed != NULL) {
        seeds[0] = strtoull(seed, NULL, 10);
        seeds_count = 1;
    }
}

Suite *test_suite(void)
{
    static const char *const options[] = {"max_prepared_transactions=64", "deadlock_timeout=50ms",
                                          NULL};
    Suite *suite = suite_create("stress");
    TCase *tc = tcase_create("seeds");
    choose_seeds();
    produce_seconds = setting_number("OUTBOX_STRESS_SECONDS", SECONDS_DEFAULT);
    pgcluster_set_options(options);
    tcase_set_timeout(tc, TIMEOUT_E2E_S + produce_seconds);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_loop_test(tc, every_committed_job_succeeds_once_and_no_other_runs, 0,
                        (int)seeds_count);
    suite_add_tcase(suite, tc);
    return suite;
}
