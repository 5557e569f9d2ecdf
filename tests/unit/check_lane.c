/* check_lane.c - slots: never more than are free, kept through reloads; pauses; and the backlog of
 * each lane: opened, walked, closed, in the order of priority and age. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ck_main.h"
#include "core/walk.h"
#include "testconfig.h"

enum { NOW = 1000000, TOGETHER = 40 };

static struct lanes lanes;
static struct config *config;

static void begin(const char *text)
{
    config = testconfig_load(text);
    lanes_init(&lanes, config);
}

static void end(void)
{
    lanes_deinit(&lanes);
    config_unref(config);
    config = NULL;
}

static void reload(const char *text)
{
    struct config *next = testconfig_load(text);
    lanes_set_config(&lanes, next);
    config_unref(config);
    config = next;
}

/* The slots that a look now would offer for the task; 0: none, or it is not in the call. */
static int wanted_at(const char *task, uint64_t now_ms)
{
    struct lanes_asked *a = lanes_ask(&lanes, true, now_ms);
    int slots = 0;
    for (size_t i = 0; i < a->count; i++) {
        ck_assert_int_ge(a->slots[i], 0);
        if (strcmp(a->tasks[i], task) == 0)
            slots = a->slots[i];
    }
    lanes_asked_free(a);
    return slots;
}

static int wanted(const char *task)
{
    return wanted_at(task, NOW);
}

static struct lane *lane(const char *task)
{
    struct lane *l = lanes_find(&lanes, task);
    ck_assert_ptr_nonnull(l);
    return l;
}

static void take(const char *task, unsigned n)
{
    struct lane *l = lane(task);
    while (n-- > 0)
        lanes_slot_taken(&lanes, l, l->config);
}

static void give_back(const char *task, unsigned n)
{
    struct lane *l = lane(task);
    while (n-- > 0)
        lanes_slot_freed(&lanes, l, config_find_task(config, task));
}

/* What an executor leaves of a's slots, and until when. */
static unsigned room_left;
static uint64_t room_until;

static unsigned room(void *arg, const struct task_config *task, uint64_t now_ms,
                     uint64_t *ret_until_ms)
{
    ck_assert_ptr_eq(arg, &room_left);
    ck_assert_uint_ge(now_ms, NOW);
    *ret_until_ms = room_until;
    return strcmp(task->name, "a") == 0 ? room_left : 1000;
}

START_TEST(a_lane_offers_what_its_executor_has_room_for)
{
    begin("tasks:\n  a: {discard: true, concurrency: 3}\n  b: {discard: true, concurrency: 2}\n");
    lanes.room = room;
    lanes.room_arg = &room_left;
    room_left = 1000;
    ck_assert_int_eq(wanted("a"), 3);
    room_left = 2;
    ck_assert_int_eq(wanted("a"), 2);
    ck_assert_uint_eq(lanes_pause_end(&lanes, NOW), UINT64_MAX);
    room_left = 0;
    room_until = NOW + 700;
    ck_assert_int_eq(wanted("a"), 0);
    ck_assert(!lane_has_slots(&lanes, lane("a"), NOW));
    ck_assert_int_eq(wanted("b"), 2);
    ck_assert_uint_eq(lanes_pause_end(&lanes, NOW), NOW + 700); /* it is looked at again */
    room_until = UINT64_MAX; /* until a run ends: no timer would help */
    ck_assert_uint_eq(lanes_pause_end(&lanes, NOW), UINT64_MAX);
    end();
}
END_TEST

START_TEST(only_free_slots_are_asked_for)
{
    begin("tasks:\n  a: {discard: true, concurrency: 3}\n");
    ck_assert_int_eq(wanted("a"), 3);
    take("a", 2);
    ck_assert_int_eq(wanted("a"), 1);
    take("a", 1);
    ck_assert_int_eq(wanted("a"), 0);
    ck_assert(!lanes_have_slots(&lanes, NOW));
    ck_assert(!lane_has_slots(&lanes, lane("a"), NOW));
    give_back("a", 1);
    ck_assert_int_eq(wanted("a"), 1);
    ck_assert(lanes_have_slots(&lanes, NOW));
    ck_assert(lane_has_slots(&lanes, lane("a"), NOW));
    end();
}
END_TEST

START_TEST(one_claim_is_bounded)
{
    begin("tasks:\n  a: {discard: true, concurrency: 10000}\n");
    ck_assert_int_eq(wanted("a"), 1000);
    end();
}
END_TEST

/* What a look is told of slots: "a 5 shared, c 50; shared 10, sum 60". Static storage. */
static const char *offer(bool may_claim)
{
    static char text[400];
    struct lanes_asked *a = lanes_ask(&lanes, may_claim, NOW);
    size_t len = 0;
    for (size_t i = 0; i < a->count; i++) {
        ck_assert_ptr_eq(a->lanes[i], lane(a->tasks[i]));
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s %d%s", i > 0 ? ", " : "",
                                a->tasks[i], a->slots[i], a->shares[i] ? " shared" : "");
    }
    (void)snprintf(text + len, sizeof text - len, "; shared %d, sum %zu", a->shared_slots,
                   a->slots_sum);
    lanes_asked_free(a);
    return text;
}

/* Each may have all of them: who gets how many, the look decides, by priority and age. */
START_TEST(processes_share_the_daemons_limit)
{
    begin("concurrency: 10\ntasks:\n  a: {shell: a, concurrency: 10}\n  b: {exec: [/bin/true], "
          "concurrency: 3}\n  c: {discard: true, concurrency: 50}\n");
    ck_assert_str_eq(offer(true), "a 10 shared, b 3 shared, c 50; shared 10, sum 60");
    take("a", 9);
    ck_assert_str_eq(offer(true), "a 1 shared, b 1 shared, c 50; shared 1, sum 51");
    take("b", 1);
    ck_assert_str_eq(offer(true), "a 0 shared, b 0 shared, c 50; shared 0, sum 50");
    ck_assert(!lane_has_slots(&lanes, lane("b"), NOW));
    ck_assert(lane_has_slots(&lanes, lane("c"), NOW));
    ck_assert(lanes_have_slots(&lanes, NOW));
    take("c", 50);
    ck_assert(!lanes_have_slots(&lanes, NOW));
    end();
}
END_TEST

START_TEST(workers_have_slots_of_their_own)
{
    begin("concurrency: 1\ntasks:\n  a: {shell: a}\n  w: {worker: [/bin/true], processes: 3, "
          "window: 4}\n");
    ck_assert_str_eq(offer(true), "a 1 shared, w 12; shared 1, sum 13");
    take("a", 1);
    take("w", 12);
    ck_assert(!lanes_have_slots(&lanes, NOW));
    end();
}
END_TEST

/* ---- ahead ---- */

enum { NOW_US = 1000000000, AHEAD_US = 50000 };

static void note_run(const char *task, uint64_t run_us, size_t bytes, uint64_t now_us)
{
    lanes_note_run(&lanes, lane(task), lane(task)->config, run_us, bytes, now_us);
}

static void plan(uint64_t now_us)
{
    lanes_plan_ahead(&lanes, now_us);
}

/* As many as the slots get through in 50 ms, whatever the handler. */
START_TEST(short_jobs_are_claimed_ahead)
{
    begin("tasks:\n  h: {webhook: 'http://127.0.0.1:1/', concurrency: 2}\n"
          "  w: {worker: [/bin/true], processes: 1}\n");
    plan(NOW_US);
    ck_assert_int_eq(wanted("h"), 2); /* nothing is known of them */
    note_run("h", 5000, 10, NOW_US);
    note_run("w", 1, 10, NOW_US);
    plan(NOW_US);
    ck_assert_int_eq(wanted("h"), 21);
    ck_assert_uint_eq(lane("w")->ahead, 980); /* with the others, at most 1000 */
    take("h", 21);
    ck_assert_int_eq(wanted("h"), 0);
    for (int i = 0; i < 200; i++)
        note_run("h", 200000, 10, NOW_US); /* they take longer now */
    plan(NOW_US);
    ck_assert_uint_eq(lane("h")->ahead, 0);
    reload("tasks:\n  h: {webhook: 'http://127.0.0.1:2/'}\n  w: {worker: [/bin/true]}\n");
    plan(NOW_US);
    ck_assert_uint_eq(lane("w")->ahead, 0); /* nothing is known of another handler */
    end();
}
END_TEST

/* What runs may hang: the next ones are for somebody else. */
START_TEST(nothing_is_claimed_ahead_while_no_run_ends)
{
    begin("tasks:\n  a: {webhook: 'http://127.0.0.1:1/', concurrency: 2}\n");
    note_run("a", 1000, 10, NOW_US);
    plan(NOW_US + AHEAD_US);
    ck_assert_uint_gt(lane("a")->ahead, 0);
    plan(NOW_US + AHEAD_US + 1);
    ck_assert_uint_eq(lane("a")->ahead, 0);
    end();
}
END_TEST

START_TEST(commands_are_claimed_ahead_of_the_slots_that_they_share)
{
    begin("concurrency: 4\ntasks:\n  a: {shell: a}\n  b: {shell: b}\n");
    note_run("a", 10000, 10, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 20); /* four at once, each 10 ms */
    ck_assert_str_eq(offer(true), "a 24 shared, b 4 shared; shared 24, sum 24");
    take("a", 24);
    ck_assert_str_eq(offer(true), "a 0 shared, b 0 shared; shared 0, sum 0");
    give_back("a", 24);
    note_run("b", 1000, 10, NOW_US); /* then neither has more of what they share */
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, lane("b")->ahead);
    ck_assert_uint_eq(lane("a")->ahead, lanes.process_ahead);
    ck_assert_uint_gt(lane("a")->ahead, 20);
    note_run("b", 60000000, 10, NOW_US); /* long ones are not claimed ahead beside short ones */
    for (int i = 0; i < 100; i++)
        note_run("a", 1000, 10, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("b")->ahead, 0);
    ck_assert_uint_gt(lane("a")->ahead, 0);
    end();
}
END_TEST

/* A crash would take an attempt from each of them, or make a job dead that never ran. */
START_TEST(what_a_crash_would_cost_bounds_what_is_claimed_ahead)
{
    begin("tasks:\n  once: {webhook: 'http://127.0.0.1:1/', max_attempts: 1}\n"
          "  a: {webhook: 'http://127.0.0.1:1/'}\n");
    note_run("once", 1000, 10, NOW_US);
    note_run("a", 1000, 1024 * 1024, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("once")->ahead, 0);
    ck_assert_uint_eq(lane("a")->ahead, 4); /* 4 MiB of payloads */
    lanes.suspects = 1;                     /* something here has brought a dispatcher down */
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 0);
    lanes.suspects = 0;
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 4);
    end();
}
END_TEST

/* The bounds are the dispatcher's: tasks share them. */
START_TEST(tasks_share_what_is_claimed_ahead)
{
    begin("tasks:\n  a: {discard: true}\n  b: {discard: true}\n  c: {discard: true}\n"
          "  large: {discard: true}\n");
    note_run("a", 1, 10, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 1000);
    note_run("b", 1, 10, NOW_US);
    note_run("c", 1, 10, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 333);
    ck_assert_uint_eq(lane("b")->ahead, 333);
    note_run("large", 1, 1024 * 1024, NOW_US);
    plan(NOW_US);
    ck_assert_uint_eq(lane("a")->ahead, 250);
    ck_assert_uint_eq(lane("large")->ahead, 1);
    plan(NOW_US + 60000); /* none has ended for so long */
    ck_assert_uint_eq(lane("a")->ahead, 0);
    end();
}
END_TEST

/* Slots are those that run; what waits has been counted, and takes its part of what the executor
 * has room for. */
START_TEST(what_waits_has_no_slot)
{
    begin("concurrency: 2\ntasks:\n  a: {webhook: 'http://127.0.0.1:1/', concurrency: 2}\n"
          "  c: {shell: c}\n  d: {shell: d}\n");
    note_run("a", 10000, 10, NOW_US);
    plan(NOW_US);
    take("a", 2);
    ck_assert(!lanes_slot_is_free(&lanes, lane("a"), lane("a")->config));
    take("a", 3);
    for (int i = 0; i < 3; i++)
        lanes_wait(&lanes, lane("a"), lane("a")->config);
    ck_assert(!lanes_slot_is_free(&lanes, lane("a"), lane("a")->config));
    lanes.room = room;
    lanes.room_arg = &room_left;
    room_left = 5;
    ck_assert_int_eq(wanted("a"), 2);
    room_left = 2;
    ck_assert_int_eq(wanted("a"), 0);
    give_back("a", 1);
    ck_assert(lanes_slot_is_free(&lanes, lane("a"), lane("a")->config));
    lanes_wait_over(&lanes, lane("a"), lane("a")->config);
    ck_assert(!lanes_slot_is_free(&lanes, lane("a"), lane("a")->config));
    take("c", 2); /* one command's slot is as good as another's */
    ck_assert(!lanes_slot_is_free(&lanes, lane("d"), lane("d")->config));
    lanes_wait(&lanes, lane("c"), lane("c")->config);
    ck_assert(lanes_slot_is_free(&lanes, lane("d"), lane("d")->config));
    end();
}
END_TEST

/* Fewer tasks' slots than the daemon has: no more claim numbers are taken than can be used. */
START_TEST(sum_of_slots_is_what_can_be_claimed_at_once)
{
    begin("concurrency: 100\ntasks:\n  a: {shell: a, concurrency: 2}\n  b: {shell: b, "
          "concurrency: 3}\n");
    ck_assert_str_eq(offer(true), "a 2 shared, b 3 shared; shared 100, sum 5");
    end();
}
END_TEST

START_TEST(look_that_may_not_claim_is_offered_no_slots)
{
    begin("tasks:\n  a: {shell: a, concurrency: 2}\n  b: {discard: true}\n");
    ck_assert_str_eq(offer(false), "a 0 shared, b 0; shared 0, sum 0");
    end();
}
END_TEST

/* As the functions of the database compare them: bytes. */
START_TEST(tasks_are_told_in_byte_order)
{
    begin("concurrency: 1\ntasks:\n  b: {discard: true, concurrency: 1}\n  a-b: {discard: true, "
          "concurrency: 1}\n  B: {discard: true, concurrency: 1}\n  a.b: {discard: true, "
          "concurrency: 1}\n");
    ck_assert_str_eq(offer(true), "B 1, a-b 1, a.b 1, b 1; shared 1, sum 4");
    end();
}
END_TEST

START_TEST(lanes_are_found_by_name)
{
    begin("tasks:\n  b: {discard: true}\n  a: {discard: true}\n  a.b: {discard: true}\n");
    ck_assert_str_eq(lane("a")->task, "a");
    ck_assert_str_eq(lane("a.b")->task, "a.b");
    ck_assert_str_eq(lane("b")->task, "b");
    ck_assert_ptr_null(lanes_find(&lanes, "a."));
    ck_assert_ptr_null(lanes_find(&lanes, ""));
    end();
}
END_TEST

/* ---- reloads ---- */

START_TEST(handler_that_is_gone_is_not_claimed_for_and_its_jobs_end_in_peace)
{
    begin("concurrency: 4\ntasks:\n  a: {shell: x}\n  b: {shell: x}\n");
    struct config *old = config_ref(config);
    struct lane *a = lane("a");
    take("a", 2);
    reload("concurrency: 4\ntasks:\n  b: {shell: x}\n");
    ck_assert_ptr_eq(lane("a"), a);
    ck_assert_int_eq(wanted("a"), 0);
    ck_assert_int_eq(wanted("b"), 2);
    ck_assert_str_eq(offer(true), "b 2 shared; shared 2, sum 2");
    lanes_slot_freed(&lanes, a, config_find_task(old, "a"));
    lanes_slot_freed(&lanes, a, config_find_task(old, "a"));
    ck_assert_uint_eq(lanes.process_running, 0);
    config_unref(old);
    reload("concurrency: 4\ntasks:\n  a: {shell: x}\n  b: {shell: x}\n");
    ck_assert_ptr_eq(lane("a"), a);
    ck_assert_int_gt(wanted("a"), 0);
    end();
}
END_TEST

/* A slot is freed as what it was taken as. */
START_TEST(handler_of_another_kind_counts_from_its_own_start)
{
    begin("concurrency: 4\ntasks:\n  a: {shell: x, concurrency: 4}\n");
    struct config *old = config_ref(config);
    take("a", 3);
    reload("concurrency: 4\ntasks:\n  a: {discard: true, concurrency: 4}\n");
    take("a", 1);
    ck_assert_uint_eq(lanes.process_running, 3);
    ck_assert_int_eq(wanted("a"), 0);
    lanes_slot_freed(&lanes, lane("a"), config_find_task(old, "a"));
    ck_assert_uint_eq(lanes.process_running, 2);
    give_back("a", 1);
    ck_assert_uint_eq(lanes.process_running, 2);
    ck_assert_int_eq(wanted("a"), 2);
    config_unref(old);
    end();
}
END_TEST

START_TEST(smaller_limits_wait_until_enough_have_ended)
{
    begin("concurrency: 8\ntasks:\n  a: {shell: x, concurrency: 8}\n");
    take("a", 8);
    reload("concurrency: 2\ntasks:\n  a: {shell: x, concurrency: 2}\n");
    ck_assert_int_eq(wanted("a"), 0);
    give_back("a", 6);
    ck_assert_int_eq(wanted("a"), 0);
    give_back("a", 1);
    ck_assert_int_eq(wanted("a"), 1);
    end();
}
END_TEST

START_TEST(many_reloads_keep_every_lane_once)
{
    begin("tasks:\n  m: {discard: true}\n");
    for (int i = 0; i < 20; i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "tasks:\n  t%d: {discard: true}\n  m: {discard: true}\n",
                       i % 5);
        reload(text);
    }
    ck_assert_uint_eq(lanes.count, 6);
    for (size_t i = 1; i < lanes.count; i++)
        ck_assert_int_lt(strcmp(lanes.items[i - 1]->task, lanes.items[i]->task), 0);
    ck_assert_int_gt(wanted("t4"), 0);
    ck_assert_int_eq(wanted("t3"), 0);
    end();
}
END_TEST

/* ---- pauses ---- */

static struct outcome misconfigured(void)
{
    struct outcome o;
    outcome_init(&o);
    o.misconfigured = true;
    return o;
}

static unsigned told_count;

static void on_paused(const struct lane *l, void *arg)
{
    ck_assert_ptr_eq(l, lane("b"));
    ck_assert_ptr_eq(arg, &lanes);
    told_count++;
}

START_TEST(paused_task_has_no_slots_and_keeps_no_drain)
{
    static const char *const names[] = {"b", "unknown"};
    begin("tasks:\n  a: {discard: }\n  b: {discard: , concurrency: 3}\n");
    told_count = 0;
    ck_assert(!lanes_set_paused(&lanes, names, 2, on_paused, &lanes));
    ck_assert(!lanes_set_paused(&lanes, names, 2, on_paused, &lanes)); /* as it was */
    ck_assert_uint_eq(told_count, 1);
    ck_assert_int_eq(wanted("b"), 0);
    ck_assert_int_gt(wanted("a"), 0);
    ck_assert(!lanes_are_empty(&lanes)); /* a's backlog is not known */
    memset(lane("a")->backlogs, 0, sizeof lane("a")->backlogs);
    ck_assert(lanes_are_empty(&lanes));
    ck_assert(!lanes_are_stuck(&lanes));
    ck_assert(lanes_set_paused(&lanes, names + 1, 1, on_paused, &lanes));
    ck_assert_uint_eq(told_count, 2);
    ck_assert_int_eq(wanted("b"), 3);
    ck_assert(!lanes_are_empty(&lanes));
    end();
}
END_TEST

/* The pace of turns: half of the slots that wait for work have some. */
START_TEST(slots_are_busy_while_half_of_them_are)
{
    begin("tasks:\n  a: {discard: , concurrency: 4}\n");
    ck_assert(!lanes_are_busy(&lanes, NOW));
    take("a", 1);
    ck_assert(!lanes_are_busy(&lanes, NOW));
    take("a", 1);
    ck_assert(lanes_are_busy(&lanes, NOW));
    take("a", 2);
    ck_assert(lanes_are_busy(&lanes, NOW));
    give_back("a", 4);
    memset(lane("a")->backlogs, 0, sizeof lane("a")->backlogs);
    ck_assert(lanes_are_busy(&lanes, NOW)); /* nothing waits for them */
    end();
}
END_TEST

START_TEST(misconfigured_task_pauses_longer_each_time)
{
    static const uint64_t expected[] = {1000,  2000,   4000,   8000,   16000, 32000,
                                        64000, 128000, 256000, 300000, 300000};
    begin("tasks:\n  a: {discard: true}\n  b: {discard: true}\n");
    struct outcome o = misconfigured();
    uint64_t now = NOW;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &o, now), expected[i]);
        ck_assert_int_eq(wanted_at("a", now + expected[i] - 1), 0);
        ck_assert_int_gt(wanted_at("b", now), 0);
        now += expected[i];
        ck_assert_int_gt(wanted_at("a", now), 0);
    }
    end();
}
END_TEST

START_TEST(jobs_of_one_pause_count_once)
{
    begin("tasks:\n  a: {discard: true}\n");
    struct outcome o = misconfigured();
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &o, NOW), 1000);
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &o, NOW + 1), 0);
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &o, NOW + 1000), 2000);
    end();
}
END_TEST

START_TEST(run_or_reload_ends_the_row_of_pauses)
{
    begin("tasks:\n  a: {discard: true}\n");
    struct outcome bad = misconfigured();
    struct outcome ran;
    outcome_init(&ran);
    outcome_set(&ran, OUTCOME_RETRY, "exit 1");
    (void)lanes_note_outcome(&lanes, lane("a"), &bad, NOW);
    (void)lanes_note_outcome(&lanes, lane("a"), &bad, NOW + 1000);
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &ran, NOW + 3000), 0);
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &bad, NOW + 3000), 1000);
    ck_assert_int_eq(wanted_at("a", NOW + 3001), 0);
    reload("tasks:\n  a: {discard: true}\n");
    ck_assert_int_gt(wanted_at("a", NOW + 3001), 0);
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &bad, NOW + 3001), 1000);
    end();
}
END_TEST

START_TEST(no_process_to_be_had_pauses_processes_alone)
{
    begin("tasks:\n  a: {shell: x}\n  b: {discard: true}\n");
    struct outcome o;
    outcome_init(&o);
    o.spawn_failed = true;
    ck_assert_uint_eq(lanes_note_outcome(&lanes, lane("a"), &o, NOW), 0);
    ck_assert_int_eq(wanted_at("a", NOW + 999), 0);
    ck_assert_int_gt(wanted_at("b", NOW + 999), 0);
    ck_assert(!lane_has_slots(&lanes, lane("a"), NOW + 999));
    ck_assert_uint_eq(lanes_pause_end(&lanes, NOW + 999), NOW + 1000);
    ck_assert_int_gt(wanted_at("a", NOW + 1000), 0);
    end();
}
END_TEST

/* ---- backlogs ---- */

static struct lanes_asked *call; /* the look under way */

static void ask(bool may_claim)
{
    lanes_asked_free(call);
    call = lanes_ask(&lanes, may_claim, NOW);
}

static int code_of(const char *task, int priority)
{
    for (size_t i = 0; i < call->count; i++) {
        if (strcmp(call->tasks[i], task) == 0)
            return (int)(i + 1) * PRIORITIES + priority - 1;
    }
    return 0;
}

/* The backlogs that the look is told of: "a1 from 700:5 limit 3, ...", best first; a1 is task a of
 * priority 1. Static storage. */
static const char *told(void)
{
    static char text[4000];
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < call->codes_count; i++) {
        int code = call->codes[i];
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s%d from %u:%d limit %d",
                                i > 0 ? ", " : "", call->tasks[code / PRIORITIES - 1],
                                code % PRIORITIES + 1, (unsigned)call->xids[i], (int)call->ids[i],
                                call->limits[i]);
        ck_assert_uint_lt(len, sizeof text);
    }
    return text;
}

static const char *next(void)
{
    ask(true);
    return told();
}

/* The answer of the look under way, which claimed n jobs of the task. */
static bool answer_claimed(const char *json, const char *task, size_t n)
{
    struct seen *seen = seen_parse(json, strlen(json));
    ck_assert_msg(seen != NULL, "%s", json);
    struct batch *claimed = ob_xcalloc(1, sizeof *claimed + n * sizeof claimed->jobs[0]);
    for (size_t i = 0; i < n; i++)
        claimed->jobs[i].job.task = task;
    claimed->count = n;
    bool is_sane = lanes_learn(call, seen, claimed);
    ob_free(claimed);
    seen_free(seen);
    return is_sane;
}

static bool answer(const char *json)
{
    return answer_claimed(json, "", 0);
}

/* Every lane that is told of is exhausted; the next look is under way. */
static void exhaust(void)
{
    for (ask(true); call->codes_count > 0; ask(true))
        ck_assert(answer("{\"position\": 1}"));
}

static void row(char *json, size_t size, const char *list, int code, int xid, int id)
{
    (void)snprintf(json, size, "{\"position\": 1, \"%s\": [[%d, %d, %d]]}", list, code, xid, id);
}

/* A look that walked nothing: the stream had a row of this lane that found no slot. */
static void block(const char *task, int priority, int xid, int id)
{
    char json[100];
    ask(false);
    row(json, sizeof json, "blocked", code_of(task, priority), xid, id);
    ck_assert(answer(json));
}

/* The lane continues there. */
static void walk(const char *task, int priority, int xid, int id)
{
    char json[100];
    row(json, sizeof json, "lanes", code_of(task, priority), xid, id);
    ck_assert(answer(json));
}

static void end_look(void)
{
    lanes_asked_free(call);
    call = NULL;
    end();
}

/* Before the first look: what was there before us. */
START_TEST(lanes_are_open_from_the_beginning)
{
    begin("tasks:\n  a: {discard: true, concurrency: 3}\n");
    ck_assert(!lanes_are_empty(&lanes));
    ck_assert(lanes_have_work(&lanes, NOW));
    ck_assert_str_eq(next(), "a1 from 0:0 limit 3, a2 from 0:0 limit 2, a3 from 0:0 limit 1, "
                             "a4 from 0:0 limit 1");
    end_look();
}
END_TEST

START_TEST(exhausted_lanes_close)
{
    char json[100];
    begin("tasks:\n  a: {discard: true, concurrency: 3}\n");
    ask(true);
    row(json, sizeof json, "lanes", code_of("a", 3), 0, 0);
    ck_assert(answer(json));
    ck_assert_str_eq(next(), "a3 from 0:0 limit 3");
    ck_assert(!lanes_are_empty(&lanes));
    exhaust();
    ck_assert_str_eq(next(), "");
    ck_assert(lanes_are_empty(&lanes));
    ck_assert(!lanes_have_work(&lanes, NOW));
    ck_assert(lanes_have_slots(&lanes, NOW)); /* for what is to come */
    end_look();
}
END_TEST

START_TEST(walked_lane_continues_where_it_is_said_to)
{
    begin("tasks:\n  a: {discard: true, concurrency: 3}\n");
    exhaust();
    block("a", 2, 700, 5);
    ck_assert_str_eq(next(), "a2 from 700:5 limit 3");
    walk("a", 2, 720, 1);
    ck_assert_str_eq(next(), "a2 from 720:1 limit 3");
    end_look();
}
END_TEST

START_TEST(row_without_a_slot_opens_its_lane)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    exhaust();
    take("b", 1);
    ask(true);
    block("b", 3, 800, 4);
    ck_assert(!lanes_are_empty(&lanes));
    ck_assert(!lanes_have_work(&lanes, NOW)); /* no slot */
    ck_assert_str_eq(next(), "");
    give_back("b", 1);
    ck_assert(lanes_have_work(&lanes, NOW));
    ck_assert_str_eq(next(), "b3 from 800:4 limit 1");
    end_look();
}
END_TEST

/* Of several, the first counts; and a later one tells nothing new about an open lane. */
START_TEST(lane_is_open_from_its_first_row)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n");
    exhaust();
    take("a", 1);
    ask(true);
    block("a", 1, 800, 4);
    ask(true);
    block("a", 1, 900, 1);
    block("a", 1, 800, 5);
    give_back("a", 1);
    ck_assert_str_eq(next(), "a1 from 800:4 limit 1");
    end_look();
}
END_TEST

/* As of a transaction that ended late: the lane goes back to it. */
START_TEST(earlier_row_rewinds_its_lane)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n");
    exhaust();
    take("a", 1);
    ask(true);
    block("a", 1, 800, 4);
    block("a", 1, 800, 3);
    block("a", 1, 799, 9);
    give_back("a", 1);
    ck_assert_str_eq(next(), "a1 from 799:9 limit 1");
    end_look();
}
END_TEST

/* The walk of the same look came after the stream: it has seen what lies behind its beginning. */
START_TEST(row_that_the_walk_has_seen_opens_nothing)
{
    char json[200];
    begin("tasks:\n  a: {discard: true, concurrency: 5}\n");
    exhaust();
    block("a", 1, 800, 4);
    ck_assert_str_eq(next(), "a1 from 800:4 limit 5");
    (void)snprintf(json, sizeof json, "{\"position\": 1, \"blocked\": [[%d, 810, 1]]}",
                   code_of("a", 1));
    ck_assert(answer(json));
    ck_assert(lanes_are_empty(&lanes));
    /* One before that beginning, it has not. */
    ask(true);
    block("a", 1, 900, 1);
    ck_assert_str_eq(next(), "a1 from 900:1 limit 5");
    (void)snprintf(json, sizeof json,
                   "{\"position\": 1, \"lanes\": [[%d, 950, 1]], \"blocked\": [[%d, 850, 1]]}",
                   code_of("a", 1), code_of("a", 1));
    ck_assert(answer(json));
    ck_assert_str_eq(next(), "a1 from 850:1 limit 5");
    end_look();
}
END_TEST

START_TEST(priority_comes_first_then_age)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    exhaust();
    take("a", 1);
    take("b", 1);
    ask(true);
    block("a", 3, 100, 1);
    block("b", 1, 900, 1);
    block("b", 2, 500, 2);
    block("a", 2, 500, 1);
    block("a", 1, 800, 7);
    give_back("a", 1);
    give_back("b", 1);
    ck_assert_str_eq(next(), "a1 from 800:7 limit 1, b1 from 900:1 limit 1, a2 from 500:1 limit 1,"
                             " b2 from 500:2 limit 1, a3 from 100:1 limit 1");
    end_look();
}
END_TEST

/* The first lane may fill all slots, the n-th an n-th of them; none more than its task has. */
START_TEST(limits_follow_the_slots)
{
    begin("concurrency: 60\ntasks:\n  a: {discard: true, concurrency: 40}\n  b: {shell: b, "
          "concurrency: 60}\n");
    exhaust();
    block("a", 1, 1, 1);
    ck_assert_str_eq(next(), "a1 from 1:1 limit 40");
    block("b", 1, 1, 2);
    block("b", 2, 1, 3);
    block("b", 3, 1, 4);
    ck_assert_str_eq(next(), "a1 from 1:1 limit 40, b1 from 1:2 limit 50, b2 from 1:3 limit 34,"
                             " b3 from 1:4 limit 25");
    take("a", 30);
    ck_assert_str_eq(next(), "a1 from 1:1 limit 10, b1 from 1:2 limit 35, b2 from 1:3 limit 24,"
                             " b3 from 1:4 limit 18");
    end_look();
}
END_TEST

/* Not every one of many lanes is walked for a single slot, but each is known to be open. */
START_TEST(many_lanes_are_not_all_walked)
{
    enum { TASKS = 100, WALKED = 64 };
    static char text[TASKS * 60 + 100];
    size_t len = (size_t)snprintf(text, sizeof text, "concurrency: 1\ntasks:\n");
    for (int i = 0; i < TASKS; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "  t%02d: {shell: x}\n", i);
    begin(text);
    lanes.walk_pause = 1;
    ask(true);
    ck_assert_uint_eq(call->codes_count, TASKS * PRIORITIES);
    ck_assert_int_eq(call->walk_rows, 0);
    for (size_t i = 0; i < call->codes_count; i++)
        ck_assert_int_eq(call->limits[i], i < WALKED ? 1 : 0);
    for (size_t i = 0; i < WALKED; i++)
        ck_assert_int_eq(call->codes[i] % PRIORITIES, 0); /* the first priority */
    end_look();
}
END_TEST

/* ---- lanes that are walked together ---- */

/* TASKS tasks with slots, whose second priorities are open from 100:1, 101:1 and so on. */
static void begin_many_with(const char *handler, int slots)
{
    static char text[TOGETHER * 60 + 100];
    size_t len = (size_t)snprintf(text, sizeof text, "concurrency: 4\ntasks:\n");
    for (int i = 0; i < TOGETHER; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "  t%02d: {%s, concurrency: %d}\n",
                                i, handler, slots);
    begin(text);
    exhaust();
    for (int i = 0; i < TOGETHER; i++) {
        (void)snprintf(text, sizeof text, "t%02d", i);
        block(text, 2, 100 + i, 1);
    }
}

static void begin_many(const char *handler)
{
    begin_many_with(handler, 2);
}

/* Of the look under way: "from 125:1, 90 rows of priority 2; 75 together, 25 alone". */
static const char *together(void)
{
    static char text[200];
    int all = 0;
    int alone = 0;
    for (size_t i = 0; i < call->count; i++)
        all += call->walk_slots[i] > 0 ? 1 : 0;
    for (size_t i = 0; i < call->codes_count; i++)
        alone += call->limits[i] > 0 ? 1 : 0;
    (void)snprintf(text, sizeof text, "from %u:%d, %d rows of priority %d; %d together, %d alone%s",
                   (unsigned)call->walk_xid, (int)call->walk_id, call->walk_rows,
                   call->walk_priority, all, alone, call->apart ? "" : ", not apart");
    return text;
}

START_TEST(many_lanes_are_walked_together)
{
    begin_many("discard: true");
    ask(true);
    ck_assert_str_eq(together(), "from 100:1, 98 rows of priority 2; 40 together, 0 alone");
    ck_assert_int_eq(call->walk_slots[12], 2);
    end_look();
}
END_TEST

START_TEST(lanes_that_share_slots_are_weighed_together)
{
    begin_many("shell: x");
    ask(true);
    ck_assert_str_eq(together(),
                     "from 100:1, 12 rows of priority 2; 40 together, 0 alone, not apart");
    end_look();
}
END_TEST

START_TEST(walk_that_came_to_the_end_closes_its_lanes)
{
    begin_many("discard: true");
    ask(true);
    ck_assert(answer("{\"position\": 1}"));
    ck_assert(lanes_are_empty(&lanes));
    end_look();
}
END_TEST

/* Of t20 one row was left; t35 lies behind the end. */
START_TEST(lanes_go_on_behind_the_walk)
{
    char json[200];
    begin_many("discard: true");
    ask(true);
    (void)snprintf(json, sizeof json,
                   "{\"position\": 1, \"walked\": [[60, 130, 7]], \"lanes\": [[%d, 125, 3]]}",
                   code_of("t20", 2));
    ck_assert(answer_claimed(json, "t30", 2));
    ck_assert_uint_eq(lane("t10")->backlogs[1].xid, 130);
    ck_assert_int_eq(lane("t10")->backlogs[1].id, 8);
    ck_assert_uint_eq(lane("t20")->backlogs[1].xid, 125);
    ck_assert_uint_eq(lane("t35")->backlogs[1].xid, 135);
    end_look();
}
END_TEST

START_TEST(walk_goes_on_at_the_first_row_that_was_left)
{
    char json[200];
    begin_many("discard: true");
    ask(true);
    (void)snprintf(json, sizeof json,
                   "{\"position\": 1, \"walked\": [[60, 130, 7]], \"lanes\": [[%d, 125, 3]]}",
                   code_of("t20", 2));
    ck_assert(answer_claimed(json, "t30", 2));
    ask(true);
    ck_assert_str_eq(together(), "from 125:3, 98 rows of priority 2; 40 together, 0 alone");
    end_look();
}
END_TEST

/* A walk never begins before the one before it did: what lies there is dead, for the most part.
 * Those of whom something does are walked alone until they have caught up. */
START_TEST(lanes_that_have_fallen_behind_are_walked_alone)
{
    begin_many("discard: true");
    lanes.walk_xid = 105;
    ask(true);
    ck_assert_str_eq(together(), "from 110:1, 75 rows of priority 2; 30 together, 10 alone");
    lanes.walk_xid = 115;
    ask(true);
    ck_assert_str_eq(together(), "from 115:0, 64 rows of priority 2; 25 together, 15 alone");
    ck_assert(answer("{\"position\": 1, \"walked\": [[50, 200, 7]]}"));
    ck_assert(!lane("t14")->backlogs[1].is_open); /* alone, and exhausted */
    ck_assert(lane("t15")->backlogs[1].is_open);
    ask(true);
    ck_assert_str_eq(together(), "from 200:8, 64 rows of priority 2; 25 together, 0 alone");
    end_look();
}
END_TEST

/* Looks without a walk after this one, which read 98 rows. */
static int paused_after(int found)
{
    char answer[100];
    int n = 0;
    (void)snprintf(answer, sizeof answer, "{\"position\": 1, \"walked\": [[%d, 105, 7]]}", found);
    ask(true);
    ck_assert_int_eq(call->walk_rows, 98);
    ck_assert(answer_claimed(answer, "t30", 2));
    for (ask(true); call->walk_rows == 0 && n < 100; n++)
        ask(true);
    return n;
}

/* Of the rows that it read less than half were wanted. The first time it may be chance, and lanes
 * that are walked alone get out of step. */
START_TEST(walk_that_finds_little_pauses_longer_each_time)
{
    static const int pauses[] = {1, 2, 4, 8, 16, 16};
    begin_many("discard: true");
    for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++)
        ck_assert_int_eq(paused_after(37), pauses[i]);
    ck_assert_int_eq(paused_after(90), 0);
    ck_assert_int_eq(paused_after(37), 1);
    end_look();
}
END_TEST

/* For a few that are ahead, no walk of many. */
START_TEST(when_most_have_fallen_behind_all_are_walked_alone)
{
    begin_many("discard: true");
    lanes.walk_xid = 134;
    ask(true);
    ck_assert_str_eq(together(), "from 0:0, 0 rows of priority 0; 0 together, 40 alone");
    lanes.walk_xid = 132;
    ask(true);
    ck_assert_str_eq(together(), "from 132:0, 26 rows of priority 2; 8 together, 32 alone");
    end_look();
}
END_TEST

START_TEST(walk_of_many_has_an_end)
{
    begin_many_with("discard: true", 50);
    ask(true);
    ck_assert_str_eq(together(), "from 100:1, 1000 rows of priority 2; 40 together, 0 alone");
    end_look();
}
END_TEST

START_TEST(lanes_of_one_transaction_go_by_their_ids)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    exhaust();
    block("a", 2, 500, 9);
    block("b", 2, 500, 3);
    ck_assert_str_eq(next(), "b2 from 500:3 limit 1, a2 from 500:9 limit 1");
    end_look();
}
END_TEST

START_TEST(what_an_earlier_look_claimed_does_not_count_again)
{
    begin("tasks:\n  a: {discard: true, concurrency: 2}\n");
    exhaust();
    for (int i = 0; i < 2; i++) {
        ask(true);
        ck_assert(answer_claimed("{\"position\": 1}", "a", 2));
        ck_assert_int_eq(lane("a")->claimed, 2);
    }
    ask(true);
    ck_assert(answer("{\"position\": 1}"));
    ck_assert_int_eq(lane("a")->claimed, 0);
    end_look();
}
END_TEST

/* Two lanes of one task have its slots between them. */
START_TEST(lanes_of_a_task_are_weighed_together)
{
    begin("tasks:\n  a: {discard: true, concurrency: 2}\n");
    exhaust();
    block("a", 1, 500, 1);
    ck_assert_str_eq(next(), "a1 from 500:1 limit 2");
    ck_assert(call->apart);
    block("a", 2, 500, 2);
    ck_assert_str_eq(next(), "a1 from 500:1 limit 2, a2 from 500:2 limit 1");
    ck_assert(!call->apart);
    end_look();
}
END_TEST

/* The slots are one pool: another task's process takes one from this. */
START_TEST(lanes_of_processes_share_slots)
{
    begin("concurrency: 2\ntasks:\n  a: {shell: a, concurrency: 2}\n  b: {shell: b, concurrency: "
          "2}\n");
    exhaust();
    block("a", 1, 1, 1);
    block("b", 1, 1, 2);
    ck_assert_str_eq(next(), "a1 from 1:1 limit 2, b1 from 1:2 limit 1");
    take("b", 1);
    ck_assert_str_eq(next(), "a1 from 1:1 limit 1, b1 from 1:2 limit 1");
    take("b", 1);
    ck_assert_str_eq(next(), "");
    ck_assert(!lanes_have_work(&lanes, NOW));
    ck_assert(!lanes_are_empty(&lanes));
    end_look();
}
END_TEST

START_TEST(paused_task_is_not_asked_for)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    struct outcome bad = misconfigured();
    exhaust();
    block("a", 1, 1, 1);
    block("b", 1, 1, 2);
    (void)lanes_note_outcome(&lanes, lane("a"), &bad, NOW);
    ck_assert_str_eq(next(), "b1 from 1:2 limit 1");
    ck_assert_int_eq(call->slots[0], 0);
    ck_assert(!lane_has_slots(&lanes, lane("a"), NOW));
    ck_assert(!lanes_are_empty(&lanes));
    lanes_asked_free(call);
    call = lanes_ask(&lanes, true, NOW + 1000);
    ck_assert_str_eq(told(), "a1 from 1:1 limit 1, b1 from 1:2 limit 1");
    end_look();
}
END_TEST

/* A look that may claim nothing walks nothing, and still opens lanes. */
START_TEST(look_that_may_not_claim_is_told_of_no_backlog)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n");
    exhaust();
    ask(false);
    ck_assert_str_eq(told(), "");
    block("a", 4, 7, 7);
    ask(false);
    ck_assert_str_eq(told(), "");
    ck_assert_str_eq(next(), "a4 from 7:7 limit 1");
    end_look();
}
END_TEST

START_TEST(other_connection_begins_at_the_beginning)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n");
    exhaust();
    block("a", 2, 700, 5);
    lane("a")->is_watched = true;
    lanes_forget(&lanes);
    ck_assert(!lane("a")->is_watched);
    ck_assert_str_eq(next(), "a1 from 0:0 limit 1, a2 from 0:0 limit 1, a3 from 0:0 limit 1, "
                             "a4 from 0:0 limit 1");
    end_look();
}
END_TEST

/* While a task had no handler, the stream passed its jobs over. */
START_TEST(handler_that_comes_or_comes_back_has_its_lanes_open)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n");
    exhaust();
    reload("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    ck_assert_str_eq(next(), "b1 from 0:0 limit 1, b2 from 0:0 limit 1, b3 from 0:0 limit 1, "
                             "b4 from 0:0 limit 1");
    exhaust();
    reload("tasks:\n  b: {discard: true, concurrency: 1}\n");
    ck_assert_str_eq(next(), "");
    ck_assert(lanes_are_empty(&lanes));
    reload("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    ck_assert_str_eq(next(), "a1 from 0:0 limit 1, a2 from 0:0 limit 1, a3 from 0:0 limit 1, "
                             "a4 from 0:0 limit 1");
    end_look();
}
END_TEST

/* Its jobs wait for nobody: a drain does not wait for them either. */
START_TEST(backlog_without_a_handler_is_none)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    exhaust();
    block("a", 2, 700, 5);
    reload("tasks:\n  b: {discard: true, concurrency: 1}\n");
    ck_assert(lanes_are_empty(&lanes));
    ck_assert(!lanes_have_work(&lanes, NOW));
    end_look();
}
END_TEST

/* A reload while a look is under way: its answer is of the tasks it asked for. */
START_TEST(answer_is_understood_as_it_was_asked)
{
    begin("tasks:\n  b: {discard: true, concurrency: 1}\n");
    exhaust();
    int code = code_of("b", 1);
    reload("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    char json[100];
    row(json, sizeof json, "blocked", code, 700, 5);
    ck_assert(answer_claimed(json, "b", 1));
    ck_assert_str_eq(next(), "a1 from 0:0 limit 1, b1 from 700:5 limit 1, a2 from 0:0 limit 1, "
                             "a3 from 0:0 limit 1, a4 from 0:0 limit 1");
    end_look();
}
END_TEST

/* ---- answers to what was not asked ---- */

static const char *const insane[] = {
    "{\"position\": 1, \"lanes\": [[12, 1, 1]]}",
    "{\"position\": 1, \"lanes\": [[-1, 1, 1]]}",
    "{\"position\": 1, \"lanes\": [[3, 1, 1]]}",
    "{\"position\": 1, \"blocked\": [[12, 1, 1]]}",
    "{\"position\": 1, \"blocked\": [[0, 1, 1]]}",
    "{\"position\": 1, \"blocked\": [[-4, 1, 1]]}",
    "{\"position\": 1, \"blocked\": [[\"x\", 1, 1]]}",
};

START_TEST(unknown_lane_is_not_believed)
{
    begin("tasks:\n  a: {discard: true, concurrency: 1}\n  b: {discard: true, concurrency: 1}\n");
    reload("tasks:\n  a: {discard: true, concurrency: 1}\n");
    ask(true);
    ck_assert_msg(!answer(insane[_i]), "believed: %s", insane[_i]);
    end_look();
}
END_TEST

START_TEST(jobs_beyond_the_slots_are_not_believed)
{
    begin("tasks:\n  a: {discard: true, concurrency: 2}\n  b: {discard: true, concurrency: 1}\n");
    ask(true);
    ck_assert(answer_claimed("{\"position\": 1}", "a", 2));
    ck_assert(!answer_claimed("{\"position\": 1}", "a", 3));
    ck_assert(!answer_claimed("{\"position\": 1}", "b", 2));
    ck_assert(!answer_claimed("{\"position\": 1}", "c", 1));
    ask(false);
    ck_assert(!answer_claimed("{\"position\": 1}", "a", 1));
    end_look();
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("lane");
    TCase *tc = tcase_create("slots");
    tcase_add_test(tc, only_free_slots_are_asked_for);
    tcase_add_test(tc, a_lane_offers_what_its_executor_has_room_for);
    tcase_add_test(tc, one_claim_is_bounded);
    tcase_add_test(tc, processes_share_the_daemons_limit);
    tcase_add_test(tc, workers_have_slots_of_their_own);
    tcase_add_test(tc, sum_of_slots_is_what_can_be_claimed_at_once);
    tcase_add_test(tc, look_that_may_not_claim_is_offered_no_slots);
    tcase_add_test(tc, tasks_are_told_in_byte_order);
    tcase_add_test(tc, lanes_are_found_by_name);
    suite_add_tcase(s, tc);
    tc = tcase_create("reloads");
    tcase_add_test(tc, handler_that_is_gone_is_not_claimed_for_and_its_jobs_end_in_peace);
    tcase_add_test(tc, handler_of_another_kind_counts_from_its_own_start);
    tcase_add_test(tc, smaller_limits_wait_until_enough_have_ended);
    tcase_add_test(tc, many_reloads_keep_every_lane_once);
    suite_add_tcase(s, tc);
    tc = tcase_create("ahead");
    tcase_add_test(tc, short_jobs_are_claimed_ahead);
    tcase_add_test(tc, nothing_is_claimed_ahead_while_no_run_ends);
    tcase_add_test(tc, commands_are_claimed_ahead_of_the_slots_that_they_share);
    tcase_add_test(tc, what_a_crash_would_cost_bounds_what_is_claimed_ahead);
    tcase_add_test(tc, tasks_share_what_is_claimed_ahead);
    tcase_add_test(tc, what_waits_has_no_slot);
    suite_add_tcase(s, tc);
    tc = tcase_create("pauses");
    tcase_add_test(tc, paused_task_has_no_slots_and_keeps_no_drain);
    tcase_add_test(tc, slots_are_busy_while_half_of_them_are);
    tcase_add_test(tc, misconfigured_task_pauses_longer_each_time);
    tcase_add_test(tc, jobs_of_one_pause_count_once);
    tcase_add_test(tc, run_or_reload_ends_the_row_of_pauses);
    tcase_add_test(tc, no_process_to_be_had_pauses_processes_alone);
    suite_add_tcase(s, tc);
    tc = tcase_create("backlogs");
    tcase_add_test(tc, lanes_are_open_from_the_beginning);
    tcase_add_test(tc, exhausted_lanes_close);
    tcase_add_test(tc, walked_lane_continues_where_it_is_said_to);
    tcase_add_test(tc, row_without_a_slot_opens_its_lane);
    tcase_add_test(tc, lane_is_open_from_its_first_row);
    tcase_add_test(tc, earlier_row_rewinds_its_lane);
    tcase_add_test(tc, row_that_the_walk_has_seen_opens_nothing);
    tcase_add_test(tc, priority_comes_first_then_age);
    tcase_add_test(tc, limits_follow_the_slots);
    tcase_add_test(tc, many_lanes_are_not_all_walked);
    tcase_add_test(tc, many_lanes_are_walked_together);
    tcase_add_test(tc, lanes_that_share_slots_are_weighed_together);
    tcase_add_test(tc, walk_that_came_to_the_end_closes_its_lanes);
    tcase_add_test(tc, lanes_go_on_behind_the_walk);
    tcase_add_test(tc, walk_goes_on_at_the_first_row_that_was_left);
    tcase_add_test(tc, lanes_that_have_fallen_behind_are_walked_alone);
    tcase_add_test(tc, walk_that_finds_little_pauses_longer_each_time);
    tcase_add_test(tc, when_most_have_fallen_behind_all_are_walked_alone);
    tcase_add_test(tc, walk_of_many_has_an_end);
    tcase_add_test(tc, lanes_of_one_transaction_go_by_their_ids);
    tcase_add_test(tc, what_an_earlier_look_claimed_does_not_count_again);
    tcase_add_test(tc, lanes_of_a_task_are_weighed_together);
    tcase_add_test(tc, lanes_of_processes_share_slots);
    tcase_add_test(tc, paused_task_is_not_asked_for);
    tcase_add_test(tc, look_that_may_not_claim_is_told_of_no_backlog);
    tcase_add_test(tc, other_connection_begins_at_the_beginning);
    tcase_add_test(tc, handler_that_comes_or_comes_back_has_its_lanes_open);
    tcase_add_test(tc, backlog_without_a_handler_is_none);
    tcase_add_test(tc, answer_is_understood_as_it_was_asked);
    suite_add_tcase(s, tc);
    tc = tcase_create("answers");
    tcase_add_loop_test(tc, unknown_lane_is_not_believed, 0, sizeof insane / sizeof insane[0]);
    tcase_add_test(tc, jobs_beyond_the_slots_are_not_believed);
    suite_add_tcase(s, tc);
    return s;
}
