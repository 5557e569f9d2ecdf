/* check_rules_random.c - the rules together: producers, holders, a rival and reloads at random, one
 * step at a time, against one dispatcher. When all of them have ended, the dispatcher, which is
 * then notified once, must find every job, without a poll and without the slow check.
 *
 * A failure prints its seed; OUTBOX_TEST_SEED=n runs those from n on. */
#include "rules_fixture.h"

enum { SEEDS = 24, STEPS = 250, OPEN_MAX = 6, END_LOOKS = 3000 };

#define BOTH                                                                                       \
    "tasks:\n  a: { discard: true, concurrency: 3 }\n  b: { discard: true, concurrency: 5 }\n"
#define MORE BOTH "  c: { discard: true, concurrency: 2 }\n"

static unsigned long long dice_;
static struct desk *desk;
static PGconn *open_[OPEN_MAX];
static int64_t rival_claim;
static bool has_more;

static unsigned dice(unsigned sides)
{
    dice_ = dice_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)((dice_ >> 33) % sides);
}

/* ---- the others ---- */

static PGconn **slot(bool is_free)
{
    for (unsigned tries = 0; tries < 20; tries++) {
        PGconn **s = &open_[dice(OPEN_MAX)];
        if ((*s == NULL) == is_free)
            return s;
    }
    return NULL;
}

static void produce(void)
{
    static const char *const tasks[] = {"a", "b", "c", "nobody"};
    static const char *const delays[] = {"NULL", "NULL", "NULL", "'3 ms'", "'15 ms'"};
    char sql[256];
    PGconn **s = slot(dice(3) > 0);
    if (s == NULL)
        return;
    if (*s == NULL)
        *s = begin();
    unsigned n = dice(25) == 0 ? 210 : 1 + dice(3);
    (void)snprintf(sql, sizeof sql,
                   "SELECT outbox.enqueue('%s', priority => %u, delay => %s)"
                   " FROM generate_series(1, %u)",
                   tasks[dice(4)], 1 + dice(4), delays[dice(5)], n);
    pg_exec_ok(*s, sql);
}

static void hold(void)
{
    char sql[256];
    PGconn **s = slot(true);
    if (s == NULL)
        return;
    *s = begin();
    int rival = RIVAL_ID + (int)(s - open_); /* one each: claiming locks the dispatcher's row */
    switch (dice(4)) {
    case 0:
        pg_exec_ok(*s, "SELECT * FROM outbox.job WHERE owner IS NULL ORDER BY id LIMIT 2"
                       " FOR UPDATE SKIP LOCKED");
        break;
    case 1:
        pg_exec_ok(*s, "UPDATE outbox.job SET headers = '{}' WHERE id IN (SELECT id FROM outbox.job"
                       " WHERE owner IS NULL ORDER BY id DESC LIMIT 2 FOR UPDATE SKIP LOCKED)");
        break;
    case 2:
        pg_exec_ok(*s, "SELECT outbox.cancel(id) FROM (SELECT id FROM outbox.job WHERE owner IS"
                       " NULL ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED) AS j");
        break;
    default:
        (void)snprintf(sql, sizeof sql,
                       "SELECT outbox.release(%d, array_agg(c.id), array_agg(c.claim), '%u ms')"
                       " FROM outbox.claim(%d, %" PRId64 ", '{a,b}', '{2,1}') AS c"
                       " HAVING count(*) > 0",
                       rival, dice(2) * 4, rival, rival_claim);
        rival_claim += 3;
        pg_exec_ok(*s, sql);
    }
}

static void end_one(void)
{
    PGconn **s = slot(false);
    if (s == NULL)
        return;
    if (dice(3) == 0)
        roll_back(*s);
    else
        commit(*s);
    *s = NULL;
}

/* ---- the dispatcher ---- */

static bool finish_one(bool is_end)
{
    static const enum outcome_kind kinds[] = {OUTCOME_DONE, OUTCOME_DONE, OUTCOME_RETRY,
                                              OUTCOME_RELEASE, OUTCOME_DEAD};
    if (desk->results_count == RESULTS_MAX)
        return false;
    for (size_t i = 0; i < desk->held_count; i++) {
        struct held *h = &desk->held[i];
        if (h->lane == NULL || (!is_end && dice(2) == 0))
            continue;
        size_t at = desk->results_count;
        int64_t id = h->id;
        desk_finish(desk, id, is_end ? OUTCOME_DONE : kinds[dice(5)]);
        if (desk->outcomes[at].kind == OUTCOME_RETRY)
            desk->results[at].delay_ms = dice(2) * 5;
        desk->held[i] = desk->held[--desk->held_count];
        return true;
    }
    return false;
}

static void look(void)
{
    desk->now_ms += dice(30);
    desk_look(desk);
}

static void reload(void)
{
    has_more = !has_more;
    struct config *config = testconfig_load(has_more ? MORE : BOTH);
    lanes_set_config(&desk->lanes, config);
    config_unref(config);
}

static void step(void)
{
    switch (dice(12)) {
    case 0:
    case 1:
    case 2:
        produce();
        break;
    case 3:
    case 4:
        end_one();
        break;
    case 5:
        hold();
        break;
    case 6:
        (void)finish_one(false);
        (void)finish_one(false);
        break;
    case 7:
        stream_note_xid(
            &desk->stream,
            (uint64_t)strtoull(rig_value(&desk->rig, "SELECT pg_current_xact_id()"), NULL, 10));
        break;
    case 8:
        if (dice(6) == 0)
            reload();
        break;
    default:
        look();
    }
}

/* Everything ends; then one notification, and what the dispatcher does by itself. */
static void end_all(void)
{
    for (int i = 0; i < OPEN_MAX; i++) {
        if (open_[i] != NULL)
            commit(open_[i]);
        open_[i] = NULL;
    }
    if (!has_more)
        reload();
    bool is_told = true;
    for (int i = 0; i < END_LOOKS; i++) {
        while (finish_one(true)) {
        }
        bool is_due = desk->stream.next_due_us != INT64_MAX;
        if (!is_told && !is_due && desk->results_count == 0 && !desk_is_restless(desk))
            break;
        is_told = false;
        look();
    }
}

START_TEST(nothing_is_lost)
{
    const char *from = getenv("OUTBOX_TEST_SEED");
    unsigned long long seed =
        (unsigned long long)_i + (from != NULL ? strtoull(from, NULL, 10) : 1);
    dice_ = seed;
    rival_claim = 1;
    has_more = false;
    desk = desk_open(BOTH);
    for (int i = 0; i < OPEN_MAX; i++)
        register_as(RIVAL_ID + i);
    for (int i = 0; i < STEPS; i++)
        step();
    end_all();
    const char *left = testdb_value(
        "SELECT string_agg(format('%s %s p%s xid %s owner %s run_at %s', id, task, priority,"
        " ready_xid, owner, run_at), E'\\n') FROM (SELECT * FROM outbox.job WHERE task <> 'nobody'"
        " ORDER BY id LIMIT 10) AS j");
    ck_assert_msg(left == NULL, "seed %llu: left behind\n%s\nposition %llu", seed,
                  left != NULL ? left : "", (unsigned long long)desk->stream.xid);
    desk_close(desk);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("rules_random");
    TCase *tc = rules_case(suite, "seeds");
    tcase_set_timeout(tc, 4 * TIMEOUT_DB_S);
    tcase_add_loop_test(tc, nothing_is_lost, 0, SEEDS);
    return suite;
}
