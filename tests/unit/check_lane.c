/* check_lane.c - slots: never more than are free, kept through reloads; pauses; and the backlog of
 * each lane: opened, walked, closed, in the order of priority and age. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ck_main.h"
#include "core/lane.h"

enum { NOW = 1000000 };

static struct lanes lanes;
static struct config *config;

/* From YAML, as it is loaded. */
static struct config *load(const char *text)
{
    struct config *c = config_new();
    struct buf errors;
    buf_init(&errors, 4096);
    int err = config_load_text(c, "test", text, strlen(text), &errors);
    if (err == 0)
        err = config_finish(c, &errors);
    ck_assert_msg(err == 0, "%s", errors.data);
    buf_deinit(&errors);
    return c;
}

static void begin(const char *text)
{
    config = load(text);
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
    struct config *next = load(text);
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

Suite *test_suite(void)
{
    Suite *s = suite_create("lane");
    TCase *tc = tcase_create("slots");
    tcase_add_test(tc, only_free_slots_are_asked_for);
    tcase_add_test(tc, one_claim_is_bounded);
    tcase_add_test(tc, processes_share_the_daemons_limit);
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
    tc = tcase_create("pauses");
    tcase_add_test(tc, misconfigured_task_pauses_longer_each_time);
    tcase_add_test(tc, jobs_of_one_pause_count_once);
    tcase_add_test(tc, run_or_reload_ends_the_row_of_pauses);
    tcase_add_test(tc, no_process_to_be_had_pauses_processes_alone);
    suite_add_tcase(s, tc);
    return s;
}
