/* The worker handler with real processes that keep to the protocol: what they are given, what
 * becomes of their jobs, how many of them there are. */
#include "ck_main.h"
#include "worker_fixture.h"

START_TEST(answers_become_outcomes)
{
    configure_worker("", "");
    expect(run_job("ok"), OUTCOME_DONE, "");
    const struct run_record *r =
        run_job("answer \"status\":\"retry\",\"after\":30,\"error\":\"busy\"");
    expect(r, OUTCOME_RETRY, "busy");
    ck_assert_uint_eq(r->outcome.delay_ms, 30000);
    r = run_job("answer \"status\":\"retry\"");
    expect(r, OUTCOME_RETRY, "retry");
    ck_assert_uint_eq(r->outcome.delay_ms, 0);
    expect(run_job("answer \"status\":\"dead\",\"error\":\"no use\""), OUTCOME_DEAD, "no use");
    expect(run_job("answer \"status\":\"dead\""), OUTCOME_DEAD, "dead");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 1); /* all by one process */
}
END_TEST

/* What does not fit into the reason is kept as output. */
START_TEST(a_long_error_is_kept_with_its_attempt)
{
    static char body[40000];
    configure_worker("", "");
    size_t n = (size_t)snprintf(body, sizeof body, "answer \"status\":\"dead\",\"error\":\"begin");
    memset(body + n, 'x', 30000);
    (void)snprintf(body + n + 30000, 16, "end\"");
    const struct run_record *r = run_job(body);
    ck_assert_int_eq(r->outcome.kind, OUTCOME_DEAD);
    ck_assert_uint_eq(r->outcome.output_bytes, 30008);
    ck_assert_uint_eq(r->outcome.head_len, 4096);
    ck_assert_uint_eq(r->outcome.tail_len, 12288);
    ck_assert_int_eq(strncmp(r->head, "beginx", 6), 0);
    ck_assert_str_eq(r->tail + 12285, "end");
}
END_TEST

START_TEST(the_header_tells_about_the_job)
{
    static struct run_record r;
    struct outcome refused;
    configure_worker("", ", timeout: 1h");
    run_prepare(&r, INT64_MAX, "header", 6);
    r.job.headers = "{\"a\": \"b\"\n}";
    r.job.key = "k \"1\"";
    r.job.lost = 3;
    ck_assert_int_eq(run_start(&r.run, &refused), 0);
    pump_until(r.is_done, 10000);
    ck_assert_ptr_nonnull(strstr(r.head, "{'op':'job','id':'9223372036854775807','task':'t',"
                                         "'attempt':2,'max_attempts':20,'lost':3,'deadline':"));
    ck_assert_ptr_nonnull(strstr(r.head,
                                 ",'key':'k /'1/'','created_at':'2026-01-02T03:04:05.678901Z'"
                                 ",'idempotency_key':'9223372036854775807-"));
    ck_assert_ptr_nonnull(
        strstr(r.head, "','content_type':'application/json','headers':{'a': 'b' },'len':6}"));
}
END_TEST

START_TEST(the_environment_is_a_commands_without_the_job)
{
    configure_worker("", ", env: {COLOUR: red}, env_pass: [SHINE], path: /bin:/usr/bin");
    (void)setenv("SHINE", "bright", 1); /* passed on from the next configuration on */
    (void)setenv("PGPASSWORD", "secret", 1);
    configure_worker("", ", env: {COLOUR: blue}, env_pass: [SHINE], path: /bin:/usr/bin");
    const struct run_record *r = run_job("env");
    expect(r, OUTCOME_DEAD, "SHINE=bright;PATH=/bin:/usr/bin;COLOUR=blue;OUTBOX_TASK=t;");
}
END_TEST

START_TEST(a_payload_of_16_mib_arrives_whole)
{
    static struct run_record r;
    size_t len = (size_t)16 * 1024 * 1024;
    char *body = malloc(len);
    ck_assert_ptr_nonnull(body);
    memset(body, 'x', len);
    memcpy(body, "size ", 5);
    configure_worker("", "");
    struct outcome refused;
    run_prepare(&r, 1, body, len);
    ck_assert_int_eq(run_start(&r.run, &refused), 0);
    pump_until(r.is_done, 20000);
    expect(&r, OUTCOME_DEAD, "size 16777216");
    run_prepare(&r, 1, "", 0);
    ck_assert_int_eq(run_start(&r.run, &refused), 0);
    pump_until(r.is_done, 20000);
    expect(&r, OUTCOME_DONE, "");
    free(body);
}
END_TEST

/* Each answer says how many jobs were there before the first was answered. */
static void expect_batches(const char *arguments, const char *keys, unsigned most)
{
    enum { COUNT = 10 };
    static struct run_record records[COUNT];
    unsigned largest = 0;
    configure_worker(arguments, keys);
    for (int i = 0; i < COUNT; i++)
        run_begin(&records[i], i + 1, "");
    for (int i = 0; i < COUNT; i++) {
        unsigned batch = 0;
        pump_until(records[i].is_done, 20000);
        ck_assert_int_eq(sscanf(records[i].outcome.reason, "batch %u", &batch), 1);
        largest = batch > largest ? batch : largest;
    }
    ck_assert_uint_eq(largest, most);
}

START_TEST(never_more_than_the_window_is_under_way)
{
    expect_batches(", greedy, window=8", ", window: 3, processes: 1, concurrency: 10", 3);
    expect_batches(", greedy, window=2", ", window: 5, processes: 1, concurrency: 10", 2);
    expect_batches(", greedy, window=9", ", processes: 1, concurrency: 10", 1);
    expect_batches(", greedy, window=9", ", window: 9, processes: 1, concurrency: 10", 9);
}
END_TEST

START_TEST(the_tasks_concurrency_holds_for_all_its_processes)
{
    static struct run_record records[6];
    configure_worker(", greedy, window=4", ", window: 4, processes: 1, concurrency: 2");
    for (int i = 0; i < 6; i++)
        run_begin(&records[i], i + 1, "");
    for (int i = 0; i < 6; i++) {
        pump_until(records[i].is_done, 20000);
        if (records[i].outcome.kind != OUTCOME_RELEASE) /* it waited too long on a busy machine */
            ck_assert_str_le(records[i].outcome.reason, "batch 2");
    }
}
END_TEST

START_TEST(answers_may_come_in_any_order)
{
    static struct run_record records[4];
    configure_worker(", window=4", ", window: 4, processes: 1");
    for (int i = 0; i < 3; i++)
        run_begin(&records[i], i + 1, "hold");
    run_begin(&records[3], 4, "release");
    for (int i = 0; i < 4; i++) {
        pump_until(records[i].is_done, 10000);
        expect(&records[i], OUTCOME_DONE, "");
    }
}
END_TEST

START_TEST(processes_are_added_while_jobs_wait_and_end_when_idle)
{
    static struct run_record records[5];
    configure_worker("", ", processes: 3, startup: 1, idle_timeout: 100ms, concurrency: 5");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    for (int i = 0; i < 5; i++)
        run_begin(&records[i], i + 1, "touch 30"); /* takes a while */
    pump_until(seen.counts[WORKER_READY] == 3, 10000);
    for (int i = 0; i < 5; i++) {
        pump_until(records[i].is_done, 10000);
        expect(&records[i], OUTCOME_DONE, "");
    }
    pump_until(seen.counts[WORKER_ENDED] == 2, 10000);
    expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 3); /* one was left */
    ck_assert_uint_eq(seen.counts[WORKER_ENDED], 2);
}
END_TEST

START_TEST(nothing_is_started_ahead_with_startup_0)
{
    configure_worker("", ", processes: 2, startup: 0, idle_timeout: 0");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 100, 5000);
    ck_assert_uint_eq(seen.counts[WORKER_READY], 0);
    expect(run_job("ok"), OUTCOME_DONE, "");
    pump_until(seen.counts[WORKER_ENDED] == 1, 10000);
    expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 2);
}
END_TEST

START_TEST(a_process_is_replaced_after_max_jobs)
{
    configure_worker("", ", processes: 1, max_jobs: 2");
    for (int i = 0; i < 5; i++)
        expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_ge(seen.counts[WORKER_READY], 3);
    ck_assert_uint_ge(seen.counts[WORKER_ENDED], 2);
    ck_assert_uint_eq(seen.counts[WORKER_DIED], 0);
}
END_TEST

START_TEST(a_process_is_replaced_after_max_lifetime)
{
    configure_worker("", ", processes: 1, max_lifetime: 200ms");
    pump_until(seen.counts[WORKER_READY] == 3, 20000);
    ck_assert_uint_ge(seen.counts[WORKER_ENDED], 2);
    ck_assert_uint_eq(seen.counts[WORKER_DIED], 0);
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

START_TEST(a_process_that_ends_itself_when_idle_is_replaced_without_ado)
{
    configure_worker("", ", processes: 1, restart_backoff: 30s");
    expect(run_job("ok"), OUTCOME_DONE, "");
    static struct run_record r;
    run_begin(&r, 1, "exit 0");
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_RETRY, "worker died: exit 0"); /* it owed an answer */
    expect(run_job("ok"), OUTCOME_DONE, "");          /* at once: it had worked before */
}
END_TEST

START_TEST(a_touched_job_may_take_longer)
{
    configure_worker("", ", processes: 1, timeout: 300ms");
    expect(run_job("touch 30"), OUTCOME_DONE, "");
    expect(run_job("touch 0"), OUTCOME_RETRY, "timeout");
}
END_TEST

/* The late one is tried again, the others were not at fault. */
START_TEST(a_timeout_ends_the_worker_and_releases_its_other_jobs)
{
    static struct run_record late;
    static struct run_record other;
    configure_worker(", window=2", ", processes: 1, window: 2, timeout: 400ms");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&late, 1, "hold");
    pump_until(wait_now_ms() - late.run.started_mono_ms > 100, 5000);
    run_begin(&other, 2, "hold");
    pump_until(late.is_done && other.is_done, 20000);
    expect(&late, OUTCOME_RETRY, "timeout");
    expect(&other, OUTCOME_RELEASE, "its worker was ended: another job exceeded its timeout");
    ck_assert_uint_eq(seen.counts[WORKER_TIMED_OUT], 1);
    expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 2);
}
END_TEST

START_TEST(an_answer_within_the_grace_counts)
{
    configure_worker("", ", processes: 1, timeout: 200ms");
    expect(run_job("grace"), OUTCOME_DONE, "");
}
END_TEST

START_TEST(a_run_stopped_with_the_dispatcher_is_released)
{
    static struct run_record running;
    static struct run_record waiting;
    configure_worker("", ", processes: 1");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&running, 1, "hold");
    run_begin(&waiting, 2, "ok");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 100, 5000);
    executor->ops->stop(executor, &waiting.run, STOP_SHUTDOWN);
    executor->ops->stop(executor, &running.run, STOP_SHUTDOWN);
    executor->ops->stop(executor, &running.run, STOP_SHUTDOWN);
    ck_assert(!waiting.is_done && !running.is_done); /* never from inside stop */
    pump_until(running.is_done && waiting.is_done, 10000);
    expect(&running, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
    expect(&waiting, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
}
END_TEST

START_TEST(what_a_stopped_run_still_answers_counts)
{
    static struct run_record r;
    configure_worker("", ", processes: 1");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&r, 1, "grace");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 200, 5000);
    executor->ops->stop(executor, &r.run, STOP_LOST);
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_DONE, "");
}
END_TEST

/* Retired as when the dispatcher stops: what runs may finish, what waits is given back. */
START_TEST(a_retired_pool_finishes_what_it_has)
{
    static struct run_record running;
    static struct run_record waiting;
    static struct run_record after;
    configure_worker("", ", processes: 1");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&running, 1, "touch 30");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 100, 5000);
    run_begin(&waiting, 2, "ok");
    worker_executor_retire(executor, false);
    pump_until(running.is_done && waiting.is_done, 10000);
    expect(&running, OUTCOME_DONE, "");
    ck_assert_int_eq(waiting.outcome.kind, OUTCOME_RELEASE);
    pump_until(seen.counts[WORKER_ENDED] == 1, 10000);
    struct outcome refused;
    run_prepare(&after, 3, "ok", 2);
    ck_assert_int_lt(run_start(&after.run, &refused), 0);
    ck_assert_int_eq(refused.kind, OUTCOME_RELEASE);
}
END_TEST

START_TEST(a_reload_leaves_unchanged_workers_alone)
{
    configure_worker("", ", processes: 1");
    expect(run_job("ok"), OUTCOME_DONE, "");
    pid_t before = seen.ready_pid;
    configure_worker("", ", processes: 1, timeout: 5m, max_attempts: 3");
    expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 1);
    configure_worker("", ", processes: 1, env: {A: b}");
    expect(run_job("ok"), OUTCOME_DONE, "");
    pump_until(seen.counts[WORKER_ENDED] == 1, 10000);
    ck_assert_int_ne(seen.ready_pid, before);
    configure("  other: { discard: true }");
    pump_until(seen.counts[WORKER_ENDED] == 2, 10000);
}
END_TEST

/* A job that runs while its task is changed keeps its process, and the new ones do not wait. */
START_TEST(a_reload_lets_running_jobs_finish)
{
    static struct run_record old;
    configure_worker("", ", processes: 1");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&old, 1, "touch 30");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 100, 5000);
    struct config *kept = config_ref(config);
    configure_worker("", ", processes: 1, umask: \"0077\"");
    expect(run_job("ok"), OUTCOME_DONE, "");
    pump_until(old.is_done, 10000);
    expect(&old, OUTCOME_DONE, "");
    config_unref(kept);
}
END_TEST

START_TEST(thousands_of_jobs_leave_nothing_behind)
{
    enum { SLOTS = 32, ROUNDS = 200 };
    static struct run_record records[SLOTS];
    configure_worker(", window=16", ", processes: 2, startup: 2, window: 16, max_jobs: 500");
    pump_until(seen.counts[WORKER_READY] == 2, 10000);
    size_t before = open_descriptors(getpid());
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SLOTS; i++)
            run_begin(&records[i], round * SLOTS + i + 1, "ok");
        for (int i = 0; i < SLOTS; i++) {
            pump_until(records[i].is_done, 20000);
            expect(&records[i], OUTCOME_DONE, "");
        }
    }
    pump_until(seen.counts[WORKER_READY] - seen.counts[WORKER_ENDED] == 2, 10000);
    ck_assert_uint_ge(seen.counts[WORKER_ENDED], 10);
    ck_assert_uint_le(open_descriptors(getpid()), before);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("worker_pool");
    TCase *tc = tcase_create("jobs");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, worker_fixture_open, run_fixture_close);
    tcase_add_test(tc, answers_become_outcomes);
    tcase_add_test(tc, a_long_error_is_kept_with_its_attempt);
    tcase_add_test(tc, the_header_tells_about_the_job);
    tcase_add_test(tc, the_environment_is_a_commands_without_the_job);
    tcase_add_test(tc, a_payload_of_16_mib_arrives_whole);
    tcase_add_test(tc, never_more_than_the_window_is_under_way);
    tcase_add_test(tc, the_tasks_concurrency_holds_for_all_its_processes);
    tcase_add_test(tc, answers_may_come_in_any_order);
    tcase_add_test(tc, a_touched_job_may_take_longer);
    tcase_add_test(tc, a_timeout_ends_the_worker_and_releases_its_other_jobs);
    tcase_add_test(tc, an_answer_within_the_grace_counts);
    suite_add_tcase(s, tc);
    TCase *pools = tcase_create("pools");
    tcase_set_timeout(pools, 60);
    tcase_add_checked_fixture(pools, worker_fixture_open, run_fixture_close);
    tcase_add_test(pools, processes_are_added_while_jobs_wait_and_end_when_idle);
    tcase_add_test(pools, nothing_is_started_ahead_with_startup_0);
    tcase_add_test(pools, a_process_is_replaced_after_max_jobs);
    tcase_add_test(pools, a_process_is_replaced_after_max_lifetime);
    tcase_add_test(pools, a_process_that_ends_itself_when_idle_is_replaced_without_ado);
    tcase_add_test(pools, a_run_stopped_with_the_dispatcher_is_released);
    tcase_add_test(pools, what_a_stopped_run_still_answers_counts);
    tcase_add_test(pools, a_retired_pool_finishes_what_it_has);
    tcase_add_test(pools, a_reload_leaves_unchanged_workers_alone);
    tcase_add_test(pools, a_reload_lets_running_jobs_finish);
    tcase_add_test(pools, thousands_of_jobs_leave_nothing_behind);
    suite_add_tcase(s, pools);
    return s;
}
