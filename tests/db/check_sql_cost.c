/* What looks cost, in buffers: the same whatever the statistics say, whatever is dead, waits, runs
 * or has been done. And claims as HOT updates. Buffers are counted, time is not. */
#include "look.h"

#include "wait.h"

enum { MANY = 200000, RUNNING = 200, TIMEOUT_S = 300, DEAREST = 3500 };

static PGconn *conn;
static PGconn *other;

static void begin(void)
{
    testdb_create();
    conn = testdb_connect();
    other = testdb_connect();
    register_one(conn);
    pg_exec_ok(conn, "ALTER TABLE outbox.job SET (autovacuum_enabled = off)");
}

static void end(void)
{
    seen_free(saw.seen);
    saw.seen = NULL;
    PQfinish(other);
    PQfinish(conn);
    testdb_drop();
}

/* n jobs of a in one transaction. */
static void put(PGconn *c, int n)
{
    char sql[250];
    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)"
                   " SELECT 'a', 'json', '{}', now(), pg_current_xact_id()"
                   " FROM generate_series(1, %d)",
                   n);
    pg_exec_ok(c, sql);
}

static long number_after(const char *json, const char *label)
{
    const char *at = strstr(json, label);
    ck_assert_ptr_nonnull(at);
    return strtol(at + strlen(label), NULL, 10);
}

/* Buffers touched by a statement with so many rows, which is undone. The least of some tries: a
 * session's first ones read catalogs. */
static long buffers(PGconn *c, const char *sql, long rows)
{
    static char explain[61000];
    long least = -1;
    (void)snprintf(explain, sizeof explain,
                   "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) %s", sql);
    for (int i = 0; i < 3; i++) {
        pg_exec_ok(c, "BEGIN");
        const char *json = rows_of(c, explain);
        long n = number_after(json, "\"Shared Hit Blocks\": ") +
                 number_after(json, "\"Shared Read Blocks\": ");
        ck_assert_int_eq(number_after(json, "\"Actual Rows\": "), rows);
        least = least < 0 || n < least ? n : least;
        pg_exec_ok(c, "ROLLBACK");
    }
    return least;
}

/* Of a look that claims so many. */
static long cost(PGconn *c, const struct look *l, long claims)
{
    static char sql[61000];
    (void)snprintf(sql, sizeof sql, "SELECT id FROM %s", look_call(l));
    return buffers(c, sql, claims + 1);
}

/* A hundred from the stream, and a hundred of a backlog that begins at xid. */
static long stream_cost(const char *position)
{
    return cost(conn,
                &(struct look){.position = position,
                               .slots = "'{100,0}'",
                               .rest = ", 100",
                               .due_from = "'2100-01-01'"},
                100);
}

static long lane_cost(const char *xid)
{
    char lanes[100];
    (void)snprintf(lanes, sizeof lanes, "'{5}', '{%s}', '{0}', '{100}'", xid);
    return cost(conn,
                &(struct look){.position = "NULL, NULL",
                               .lanes = lanes,
                               .slots = "'{100,0}'",
                               .due_from = "'2100-01-01'"},
                100);
}

static const char *newest_xid(void)
{
    static char text[32];
    (void)snprintf(text, sizeof text, "%s",
                   rows_of(conn, "SELECT ready_xid FROM outbox.job ORDER BY id DESC LIMIT 1"));
    return text;
}

static void ck_alike(const char *what, long now, long before)
{
    ck_assert_msg(now <= before + before / 2 + 20, "%s: %ld buffers, were %ld", what, now, before);
}

/* ---- statistics ---- */

START_TEST(cost_does_not_follow_the_statistics)
{
    put(conn, 20000); /* none: never analysed */
    long stream = stream_cost("'0', 0");
    long lane = lane_cost("0");
    ck_assert_int_lt(stream, 1500); /* a claim of one row touches some ten */
    ck_assert_int_lt(lane, 1500);
    end();

    begin();
    pg_exec_ok(conn, "VACUUM ANALYZE outbox.job"); /* of an empty table */
    put(conn, 20000);
    ck_alike("stream, analysed when empty", stream_cost("'0', 0"), stream);
    ck_alike("lane, analysed when empty", lane_cost("0"), lane);

    pg_exec_ok(conn, "UPDATE outbox.job SET owner = 1, claim = id");
    pg_exec_ok(conn, "ANALYZE outbox.job"); /* everything is owned */
    look(conn, &(struct look){.position = "NULL, NULL"});
    put(conn, 200);
    ck_alike("stream, analysed when owned", stream_cost(here()), stream);
    ck_alike("lane, analysed when owned", lane_cost(newest_xid()), lane);

    pg_exec_ok(conn, "DELETE FROM outbox.job WHERE owner = 1");
    pg_exec_ok(conn, "VACUUM ANALYZE outbox.job");
    put(conn, 20000);
    pg_exec_ok(conn, "VACUUM ANALYZE outbox.job"); /* everything is ready */
    ck_alike("stream, analysed when ready", stream_cost("'0', 0"), stream);
    ck_alike("lane, analysed when ready", lane_cost("0"), lane);
}
END_TEST

/* Vacuumed while it was empty, and then came a backlog: the planner believes that there is one row
 * at most, as it would of most tables of a healthy system, and that any way to find it is as good
 * as any other. */
static const struct {
    const char *name;
    const char *sql;
    long rows;
} calls[] = {
    {"stream",
     "SELECT id FROM outbox.look(1, 900, '{a}', '{100}', '{f}', 0, (SELECT xid FROM mine),"
     " 0, '0', '{}', '{}', '{}', '{}', '{}', '{}',"
     " '{}', '2100-01-01', NULL, NULL, 100)",
     101},
    {"lane",
     "SELECT id FROM outbox.look(1, 900, '{a}', '{100}', '{f}', 0, NULL, NULL, '0', '{}',"
     " '{}', '{5}', '{0}', '{0}', '{100}', '{}', '2100-01-01', NULL, NULL)",
     101},
    {"pending",
     "SELECT id FROM outbox.look(1, 900, '{a}', '{100}', '{f}', 0, NULL, NULL, '0',"
     " ARRAY(SELECT xid FROM mine), '{0}', '{}', '{}', '{}',"
     " '{}', '{}', '2100-01-01', NULL, NULL)",
     101},
    {"revisit",
     "SELECT id FROM outbox.look(1, 900, '{a}', '{100}', '{f}', 0, NULL, NULL, '0',"
     " '{}', '{}', '{}', '{}', '{}', '{}', ARRAY(SELECT ids[100] + n FROM mine,"
     " generate_series(1, 100) AS n), '2100-01-01', NULL, NULL)",
     101},
    {"claim", "SELECT id FROM outbox.claim(1, 900, '{a}', '{100}')", 100},
    {"take", "SELECT id FROM outbox.take('a', 100)", 100},
    {"take one", "SELECT id FROM outbox.take('a')", 1},
    {"can take", "SELECT outbox.can_take('a')", 1},
    {"done", "SELECT s.id FROM mine, outbox.settle(1, ids, claims) AS s", 100},
    {"done, no waiting", "SELECT s.id FROM mine, outbox.settle(1, ids, claims, NULL, true) AS s",
     100},
    {"lost", "SELECT s.id FROM mine, outbox.settle(2, ids, claims) AS s", 100},
    {"retry",
     "SELECT s.id FROM mine, outbox.settle(1, ids, claims, array_to_json(array_fill("
     "'{\"outcome\": \"retry\", \"reason\": \"x\"}'::json, ARRAY[100]))::jsonb) AS s",
     100},
    {"dead",
     "SELECT s.id FROM mine, outbox.settle(1, ids, claims, array_to_json(array_fill("
     "'{\"outcome\": \"dead\", \"reason\": \"x\"}'::json, ARRAY[100]))::jsonb) AS s",
     100},
    {"release", "SELECT s.id FROM mine, outbox.release(1, ids, claims) AS s", 100},
    {"adopt", "SELECT s.id FROM mine, outbox.adopt(1, 1, ids, claims, 900) AS s", 100},
    {"take over", "SELECT outbox.take_over(1, NULL)", 1},
    {"owned", "SELECT outbox.owned(1)", 1},
    {"due", "SELECT moved FROM outbox.due()", 1},
    {"restamp", "SELECT outbox.restamp()", 1},
    {"sweep", "SELECT outbox.sweep('{a}', '0', 0, '999999999', 0, 100)", 1},
    {"cancel", "SELECT outbox.cancel((SELECT ids[1] FROM mine))", 1},
    {"payload", "SELECT outbox.payload((SELECT ids[1] FROM mine))", 1},
};

START_TEST(cost_does_not_follow_a_backlog_that_the_statistics_do_not_know)
{
    put(conn, 2000);
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    pg_exec_ok(conn, "VACUUM ANALYZE outbox.job");
    ck_rows(conn, "SELECT relpages > 0, reltuples FROM pg_class WHERE oid = 'outbox.job'::regclass",
            "t|0");
    put(conn, 250000);
    pg_exec_ok(conn, "UPDATE outbox.job SET task = 'x'");
    put(conn, 1000);
    pg_exec_ok(conn, "INSERT INTO outbox.job (task, encoding, payload, created_at, run_at)"
                     " SELECT 'a', 'json', '{}', now(), '2001-01-01' FROM generate_series(1, 10)");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 1, '{a}', '{100}')", "100");
    pg_exec_ok(conn, "CREATE TABLE mine AS SELECT array_agg(id ORDER BY id) AS ids,"
                     " array_agg(claim ORDER BY id) AS claims, min(ready_xid::text)::xid8"
                     " AS xid FROM outbox.job WHERE owner = 1");
    ck_assert_int_gt(testdb_long("SELECT pg_relation_size('outbox.job') / 8192"), DEAREST * 3 / 2);
    /* The dearest are those by which a hundred jobs become ready again. Each is read by its id
     * (three levels of an index, a page of the table, and once more to lock it: 6), gets an
     * attempt's row (5), and a new version, which is in three indexes of three levels, and mostly
     * on another page (14): 2,500 in all. Reading the whole table takes more than DEAREST. */
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        long n = buffers(conn, calls[i].sql, calls[i].rows);
        ck_assert_msg(n < DEAREST, "%s: %ld buffers", calls[i].name, n);
    }
}
END_TEST

/* ---- the dead ---- */

/* Somebody's old snapshot keeps vacuum from removing what was done since. */
START_TEST(cost_does_not_follow_the_finished_jobs)
{
    put(conn, 200);
    long stream = stream_cost("'0', 0");
    long lane = lane_cost("0");
    pg_exec_ok(other, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    put(conn, MANY);
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    pg_exec_ok(conn, "VACUUM outbox.job");
    look(conn, &(struct look){.position = "NULL, NULL"});
    const char *from = here();
    put(conn, 200);
    ck_alike("stream", stream_cost(from), stream);
    put(conn, 200); /* what is undone fills the pages of the others: nothing may be pruned now */
    ck_alike("lane", lane_cost(newest_xid()), lane);
    pg_exec_ok(other, "COMMIT");
}
END_TEST

START_TEST(cost_does_not_follow_what_was_scheduled)
{
    const struct look empty = {.position = "NULL, NULL", .due_from = "'2030-01-01'"};
    long before = cost(conn, &empty, 0);
    pg_exec_ok(other, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    pg_exec_ok(conn, "INSERT INTO outbox.job (task, encoding, payload, created_at, run_at)"
                     " SELECT 'a', 'json', '{}', now(), '2020-01-01Z'::timestamptz + n * interval"
                     " '1 s' FROM generate_series(1, 50000) AS n");
    pg_exec_ok(conn, "DELETE FROM outbox.job");
    ck_alike("scheduled and done", cost(conn, &empty, 0), before);
    pg_exec_ok(other, "COMMIT");
}
END_TEST

/* ---- a long line ---- */

/* Jobs of one key: only the first of them is to be seen where others are looked for, and when it
 * ends, the next one is found from there. */
START_TEST(cost_does_not_follow_the_length_of_a_line)
{
    static const char claim[] = "SELECT id FROM outbox.claim(1, 900, '{a}', '{100}')";
    static const char take[] = "SELECT id FROM outbox.take('a', 100)";
    static const char done[] = "SELECT s.id FROM line, outbox.settle(1, ids, claims) AS s";
    static const char enqueue[] = "SELECT outbox.enqueue('a', key => 'k')";
    pg_exec_ok(conn, "SELECT * FROM outbox.enqueue_many(jsonb_build_array("
                     "'{\"task\": \"a\", \"key\": \"k\"}'::jsonb,"
                     "'{\"task\": \"a\", \"key\": \"k\"}'::jsonb))");
    ck_rows(conn, "SELECT id FROM outbox.claim(1, 1, '{a}', '{1}')", "1");
    pg_exec_ok(conn,
               "CREATE TABLE line AS SELECT '{1}'::bigint[] AS ids, '{1}'::bigint[] AS claims");
    put(conn, 200);
    long stream = stream_cost("'0', 0");
    long lane = lane_cost("0");
    long claiming = buffers(conn, claim, 100);
    long taking = buffers(conn, take, 100);
    long ending = buffers(conn, done, 1);
    long putting = buffers(conn, enqueue, 1);
    pg_exec_ok(conn, "SELECT count(*) FROM outbox.enqueue_many((SELECT jsonb_agg("
                     "'{\"task\": \"a\", \"key\": \"k\"}'::jsonb)"
                     " FROM generate_series(1, 100000)))");
    ck_rows(conn, "SELECT count(*) FROM outbox.job WHERE key = 'k' AND ready_xid IS NULL",
            "100001");
    ck_alike("stream", stream_cost("'0', 0"), stream);
    ck_alike("lane", lane_cost("0"), lane);
    ck_alike("claim", buffers(conn, claim, 100), claiming);
    ck_alike("take", buffers(conn, take, 100), taking);
    ck_alike("end of the first", buffers(conn, done, 1), ending);
    ck_alike("one more at its end", buffers(conn, enqueue, 1), putting);
}
END_TEST

/* ---- one large transaction ---- */

/* It was committed while the dispatcher was awake: its looks read it batch by batch, from where
 * they stand. */
START_TEST(cost_does_not_follow_the_size_of_a_transaction)
{
    struct look l = {.slots = "'{100,0}'", .due_from = "'2100-01-01'"};
    put(conn, 1000);
    l.position = "'0', 0";
    long small = cost(conn, &l, 100);
    look(conn, &(struct look){.position = "NULL, NULL"});
    l.position = here();
    put(other, MANY);
    ck_alike("its beginning", cost(conn, &l, 100), small);
    for (int i = 0; i < MANY / 1000 / 2; i++) {
        look(conn, &(struct look){.position = here(), .slots = "'{0,0}'"});
        ck_assert(saw.seen->is_full);
    }
    l.position = here();
    ck_alike("its middle", cost(conn, &l, 100), small);
    while (saw.seen->is_full)
        look(conn, &(struct look){.position = here(), .slots = "'{0,0}'"});
    ck_assert_int_eq(saw.seen->position_id, INT64_MAX);
    char xid[32];
    (void)snprintf(xid, sizeof xid, "%s", newest_xid());
    put(conn, 1000);
    l.position = here();
    ck_alike("what comes behind it", cost(conn, &l, 100), small);
    ck_alike("its backlog", lane_cost(xid), small);
}
END_TEST

/* ---- empty looks ---- */

START_TEST(empty_look_does_not_follow_the_number_of_tasks)
{
    look(conn, &(struct look){0});
    const char *from = here();
    long one = cost(
        conn,
        &(struct look){.position = from, .tasks = "'{a}'", .slots = "'{9}'", .shares = "'{f}'"}, 0);
    long hundred =
        cost(conn,
             &(struct look){
                 .position = from,
                 .tasks = "ARRAY(SELECT 't' || lpad(n::text, 3, '0') FROM generate_series(1, 100)"
                          " AS n)",
                 .slots = "array_fill(9, ARRAY[100])",
                 .shares = "array_fill(true, ARRAY[100])",
                 .shared = "50"},
             0);
    ck_assert_int_eq(hundred, one);
    ck_assert_int_lt(one, 30);
}
END_TEST

/* RUNNING transactions with ids of their own, and what each does. */
static void run_many(const char *sql)
{
    char name[60];
    for (int i = 0; i < RUNNING; i++) {
        pg_exec_ok(other, "BEGIN");
        pg_exec_ok(other, sql);
        (void)snprintf(name, sizeof name, "PREPARE TRANSACTION 'p%d'", i);
        pg_exec_ok(other, name);
    }
    pg_exec_ok(other, "SELECT pg_current_xact_id()"); /* so that all are listed as running */
}

static void end_many(void)
{
    char name[60];
    for (int i = 0; i < RUNNING; i++) {
        (void)snprintf(name, sizeof name, "ROLLBACK PREPARED 'p%d'", i);
        pg_exec_ok(other, name);
    }
}

START_TEST(empty_look_does_not_follow_the_number_of_transactions)
{
    look(conn, &(struct look){0});
    struct look l = {.position = here()};
    long none = cost(conn, &l, 0);
    run_many("SELECT pg_current_xact_id()");
    look(conn, &l);
    ck_assert_uint_eq(saw.seen->running.count, RUNNING);
    ck_assert_int_eq(cost(conn, &l, 0), none);
    end_many();
}
END_TEST

/* They have enqueued, and go on for longer than others: the position passes them, and the pending
 * list is not probed while they run. */
START_TEST(pending_transactions_cost_nothing_while_they_run)
{
    static char list[RUNNING * 16];
    size_t len;
    look(conn, &(struct look){0});
    long none = cost(conn, &(struct look){.position = here()}, 0);
    run_many("SELECT outbox.enqueue('a')");
    look(conn, &(struct look){.position = here(), .older = "'99999999'"});
    ck_assert_uint_eq(saw.seen->pending.count, RUNNING);
    len = (size_t)snprintf(list, sizeof list, "'{%" PRIu64, saw.seen->pending.items[0]);
    for (size_t i = 1; i < RUNNING; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, ",%" PRIu64,
                                saw.seen->pending.items[i]);
    (void)snprintf(list + len, sizeof list - len, "}', array_fill(0::bigint, ARRAY[%d])", RUNNING);
    const struct look l = {.position = here(), .pending = list};
    look(conn, &l);
    ck_assert_uint_eq(saw.seen->pending.count + saw.seen->ended.count, 0);
    ck_alike("pending", cost(conn, &l, 0), none);
    end_many();
}
END_TEST

/* ---- take-over ---- */

static void lose_a_hundred(void)
{
    char position[64];
    put(conn, 100);
    (void)snprintf(position, sizeof position, "'%s', 0", newest_xid());
    look(conn, &(struct look){.position = position, .slots = "'{100,0}'"});
    ck_assert_uint_eq(saw.count, 100);
}

START_TEST(take_over_does_not_search_what_it_never_owned)
{
    lose_a_hundred();
    long alone = buffers(conn, "SELECT outbox.take_over(1, NULL)", 1);
    end();

    begin();
    put(conn, MANY / 2);
    lose_a_hundred();
    /* The upper bound is raised by twenty thousand more than needed. */
    pg_exec_ok(other, "DO $$BEGIN FOR i IN 1..20100 LOOP PERFORM pg_current_xact_id(); COMMIT;"
                      " END LOOP; END$$");
    put(conn, MANY / 2);
    /* Each row is put into indexes that are a level deeper. */
    ck_assert_int_lt(buffers(conn, "SELECT outbox.take_over(1, NULL)", 1), 2 * alone);
    ck_rows(conn, "SELECT outbox.take_over(1, NULL)", "100");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatcher", "0");
}
END_TEST

/* ---- purging ---- */

/* Those of task b are older than all of a. */
static void fill_ended(int of_b, int of_a)
{
    static const char *const columns =
        "id, created_at, finished_at, attempts, lost, priority, logged, task, encoding, payload";
    char sql[600];
    for (int i = 0; i < 2; i++) {
        (void)snprintf(
            sql, sizeof sql,
            "INSERT INTO outbox.%s (%s%s) SELECT n, now(), now() - interval '30 days' +"
            " n * interval '1 s', 1, 0, 2, true, CASE WHEN n <= %d THEN 'b' ELSE 'a' END,"
            " 'json', '{}'%s FROM generate_series(1, %d) AS n",
            i == 0 ? "done" : "dead", columns, i == 0 ? ", keep_until" : ", reason, blocks, key",
            of_b,
            i == 0 ? ", now() - interval '20 days' + n * interval '1 s'"
                   : ", 'x', n % 10 = 0, 'k' || n",
            of_b + of_a);
        pg_exec_ok(conn, sql);
    }
    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO outbox.attempt (job_id, started_at, attempt, outcome, reason)"
                   " SELECT n, now() - interval '30 days' + n * interval '1 s', 1, 'dead', 'x'"
                   " FROM generate_series(1, %d) AS n",
                   of_b + of_a);
    pg_exec_ok(conn, sql);
}

static const char *const purges[] = {
    "SELECT outbox.purge_done('1 day', 100)",     "SELECT outbox.purge_done('1 day', 100, 'a')",
    "SELECT outbox.purge_dead('1 day', 100)",     "SELECT outbox.purge_dead('1 day', 100, 'a')",
    "SELECT outbox.purge_attempts('1 day', 100)", "SELECT outbox.purge_kept(100)",
    "SELECT outbox.purge_dead('90 days', 100)",   "SELECT outbox.purge_done('90 days', 100, 'a')",
    "SELECT outbox.purge_attempts('90 days')",
};
enum { PURGES = sizeof purges / sizeof purges[0] };

START_TEST(cost_of_purging_does_not_follow_what_is_kept)
{
    long small[PURGES];
    fill_ended(200, 200);
    for (int i = 0; i < PURGES; i++)
        small[i] = buffers(conn, purges[i], 1);
    end();

    begin();
    if (_i > 0)
        pg_exec_ok(conn, "VACUUM ANALYZE"); /* of empty tables */
    fill_ended(MANY * 3 / 4, MANY / 4);
    if (_i > 1)
        pg_exec_ok(conn, "VACUUM ANALYZE");
    for (int i = 0; i < PURGES; i++) {
        long n = buffers(conn, purges[i], 1);
        ck_assert_msg(n <= 2 * small[i] + 20, "%s: %ld buffers, %ld of a small table", purges[i], n,
                      small[i]);
    }
}
END_TEST

/* ---- HOT ---- */

static long updates(const char *which)
{
    char sql[160];
    (void)snprintf(
        sql, sizeof sql,
        "SELECT n_tup_%supd FROM pg_stat_user_tables WHERE relid = 'outbox.job'::regclass", which);
    return strtol(rows_of(other, sql), NULL, 10);
}

START_TEST(every_claim_is_a_hot_update)
{
    enum { JOBS = 20000, AT_ONCE = 500 };
    char first[16];
    put(conn, JOBS);
    look(conn, &(struct look){.position = "'0', 0", .slots = "'{0,0}'", .rest = ", 1"});
    saw.seen->position_id = 0;
    for (int i = 0; i < JOBS / AT_ONCE; i++) {
        (void)snprintf(first, sizeof first, "%d", 1 + i * AT_ONCE);
        look(conn,
             &(struct look){
                 .position = here(), .slots = "'{500,0}'", .rest = ", 500", .first_claim = first});
        ck_assert_uint_eq(saw.count, AT_ONCE);
    }
    ck_rows(conn, "SELECT count(*), count(DISTINCT claim) FROM outbox.job WHERE owner = 1",
            "20000|20000");
    PQfinish(conn); /* a session's counters are sent at the latest when it ends */
    conn = testdb_connect();
    ck_assert(wait_until(updates("") >= JOBS, 10000));
    ck_assert_int_eq(updates(""), JOBS);
    ck_assert_int_eq(updates("hot_"), JOBS);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, begin, end);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    static const char *const settings[] = {"max_prepared_transactions=210", NULL};
    pgcluster_set_options(settings);
    Suite *s = suite_create("sql_cost");
    TCase *tc = add_case(s, "statistics");
    tcase_add_test(tc, cost_does_not_follow_the_statistics);
    tcase_add_test(tc, cost_does_not_follow_a_backlog_that_the_statistics_do_not_know);
    tc = add_case(s, "the dead");
    tcase_add_test(tc, cost_does_not_follow_the_finished_jobs);
    tcase_add_test(tc, cost_does_not_follow_what_was_scheduled);
    tc = add_case(s, "one large transaction");
    tcase_add_test(tc, cost_does_not_follow_the_length_of_a_line);
    tcase_add_test(tc, cost_does_not_follow_the_size_of_a_transaction);
    tc = add_case(s, "empty looks");
    tcase_add_test(tc, empty_look_does_not_follow_the_number_of_tasks);
    tcase_add_test(tc, empty_look_does_not_follow_the_number_of_transactions);
    tcase_add_test(tc, pending_transactions_cost_nothing_while_they_run);
    tc = add_case(s, "take-over");
    tcase_add_test(tc, take_over_does_not_search_what_it_never_owned);
    tc = add_case(s, "purging");
    tcase_add_loop_test(tc, cost_of_purging_does_not_follow_what_is_kept, 0, 3);
    tc = add_case(s, "HOT");
    tcase_add_test(tc, every_claim_is_a_hot_update);
    return s;
}
