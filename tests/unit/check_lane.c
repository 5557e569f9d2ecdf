/* check_lane.c - slots: never more than are free, shared fairly, kept through reloads; pauses. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ck_main.h"
#include "core/lane.h"

enum { NOW = 1000000, WANTS_MAX = 64 };

static struct lanes lanes;
static struct config *config;
static struct store_want wants[WANTS_MAX];

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

/* What is asked for now for the task; 0: nothing. */
static int wanted_at(const char *task, uint64_t now_ms)
{
    size_t turn = lanes.turn; /* looking changes nothing */
    size_t n = lanes_wants(&lanes, now_ms, wants);
    lanes.turn = turn;
    for (size_t i = 0; i < n; i++) {
        ck_assert_int_gt(wants[i].slots, 0);
        if (strcmp(wants[i].task, task) == 0)
            return wants[i].slots;
    }
    return 0;
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
    ck_assert(!lanes_have_room(&lanes, NOW));
    give_back("a", 1);
    ck_assert_int_eq(wanted("a"), 1);
    ck_assert(lanes_have_room(&lanes, NOW));
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

START_TEST(processes_share_the_daemons_limit)
{
    begin("concurrency: 10\ntasks:\n  a: {shell: a, concurrency: 10}\n  b: {shell: b, concurrency: "
          "10}\n  c: {discard: true, concurrency: 50}\n");
    ck_assert_int_eq(wanted("a"), 5);
    ck_assert_int_eq(wanted("b"), 5);
    ck_assert_int_eq(wanted("c"), 50); /* no process */
    take("a", 9);
    ck_assert_int_eq(wanted("a") + wanted("b"), 1);
    take("b", 1);
    ck_assert_int_eq(wanted("a") + wanted("b"), 0);
    ck_assert_int_eq(wanted("c"), 50);
    end();
}
END_TEST

/* Fewer processes than tasks: each has its turn. */
START_TEST(nobody_starves_when_processes_are_few)
{
    begin("concurrency: 2\ntasks:\n  a: {shell: x}\n  b: {shell: x}\n  c: {shell: x}\n  d: {shell: "
          "x}\n  e: {shell: x}\n");
    unsigned turns[5] = {0};
    for (int i = 0; i < 10; i++) {
        size_t n = lanes_wants(&lanes, NOW, wants);
        ck_assert_uint_eq(n, 2);
        for (size_t k = 0; k < n; k++)
            turns[wants[k].task[0] - 'a'] += (unsigned)wants[k].slots;
    }
    for (int i = 0; i < 5; i++)
        ck_assert_uint_eq(turns[i], 4);
    end();
}
END_TEST

START_TEST(dry_lanes_are_left_out_until_a_look_begins)
{
    begin("tasks:\n  a: {discard: true}\n  b: {discard: true}\n");
    int asked = wanted("a");
    lane_claimed(lane("a"), asked, asked);
    ck_assert_int_eq(wanted("a"), asked); /* there may be more */
    lane_claimed(lane("a"), asked, asked - 1);
    ck_assert_int_eq(wanted("a"), 0);
    ck_assert(!lanes_are_dry(&lanes, NOW));
    lane_claimed(lane("b"), asked, 0);
    ck_assert(lanes_are_dry(&lanes, NOW));
    ck_assert(!lanes_have_room(&lanes, NOW));
    lanes_wet_all(&lanes);
    ck_assert_int_eq(wanted("a"), asked);
    ck_assert(!lanes_are_dry(&lanes, NOW));
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
    lane_claimed(lane("b"), 4, 0);
    ck_assert(lanes_are_dry(&lanes, NOW)); /* whatever is wet of a */
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
    ck_assert(!lanes_are_dry(&lanes, NOW + 999));
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
    tcase_add_test(tc, nobody_starves_when_processes_are_few);
    tcase_add_test(tc, dry_lanes_are_left_out_until_a_look_begins);
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
