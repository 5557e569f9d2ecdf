/* The worker handler with processes that die, lie, flood, hang and ignore: row by row. After each,
 * the fixture finds no process and no descriptor of it. */
#define _GNU_SOURCE
#include "ck_main.h"
#include "worker_fixture.h"

#include <sys/resource.h>

/* ---- replies that break the protocol ---- */

static const struct {
    const char *body;
    const char *reason;
} lies[] = {
    {"raw hello", "worker protocol error: not one JSON object in a line: hello"},
    {"raw [1]", "worker protocol error: not a JSON object: [1]"},
    {"raw {}", "worker protocol error: no \"id\": {}"},
    {"raw ", "worker protocol error: not one JSON object in a line"},
    {"raw {\"id\":\"999\",\"status\":\"ok\"}",
     "worker protocol error: no job of this id is in its hands: "
     "{\"id\":\"999\",\"status\":\"ok\"}"},
    {"raw {\"id\":42,\"status\":\"ok\"}",
     "worker protocol error: \"id\" is not the id of a job, as it was given, in quotes: "
     "{\"id\":42,\"status\":\"ok\"}"},
    {"raw {\"id\":\"42\",\"status\":\"fine\"}",
     "worker protocol error: \"status\" is none of ok, retry and dead: "
     "{\"id\":\"42\",\"status\":\"fine\"}"},
    {"raw {\"id\":\"42\",\"status\":\"retry\",\"after\":-1}",
     "worker protocol error: \"after\" is not a number of seconds: "
     "{\"id\":\"42\",\"status\":\"retry\",\"after\":-1}"},
    {"raw {\"op\":\"ready\",\"proto\":1}",
     "worker protocol error: ready once more: {\"op\":\"ready\",\"proto\":1}"},
    {"raw {\"op\":\"touch\",\"id\":\"43\",\"extend\":1}",
     "worker protocol error: no job of this id is in its hands: "
     "{\"op\":\"touch\",\"id\":\"43\",\"extend\":1}"},
    {"nul", "worker protocol error: not one JSON object in a line: {\"id\":\"1?\"}"},
    {"closeout", "worker protocol error: it closed its standard input or output"},
};

START_TEST(a_worker_that_breaks_the_protocol_is_killed_and_replaced)
{
    configure_worker("", ", processes: 1, restart_backoff: 10ms");
    expect(run_job(lies[_i].body), OUTCOME_RETRY, lies[_i].reason);
    ck_assert_uint_eq(seen.counts[WORKER_PROTOCOL_ERROR], 1);
    ck_assert_str_eq(seen.texts[WORKER_PROTOCOL_ERROR],
                     lies[_i].reason + strlen("worker protocol error: "));
    expect(run_job("ok"), OUTCOME_DONE, "");
    ck_assert_uint_eq(seen.counts[WORKER_READY], 2);
}
END_TEST

START_TEST(a_line_without_end_is_a_protocol_error)
{
    configure_worker("", ", processes: 1, restart_backoff: 10ms");
    expect_reason_with(run_job("long"), OUTCOME_RETRY,
                       "worker protocol error: a line of more than 64 KiB: xxxx");
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

/* The first answer counted; the second is to a job that it has no more. */
START_TEST(an_answer_given_twice_is_a_protocol_error)
{
    configure_worker("", ", processes: 1, restart_backoff: 10ms");
    expect(run_job("twice"), OUTCOME_DONE, "");
    pump_until(seen.counts[WORKER_PROTOCOL_ERROR] == 1, 10000);
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

START_TEST(all_jobs_of_a_lying_worker_are_tried_again)
{
    static struct run_record records[3];
    configure_worker(", window=3", ", window: 3, processes: 1, restart_backoff: 10ms");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&records[0], 1, "hold");
    run_begin(&records[1], 2, "hold");
    run_begin(&records[2], 3, "raw x");
    for (int i = 0; i < 3; i++) {
        pump_until(records[i].is_done, 10000);
        expect_reason_with(&records[i], OUTCOME_RETRY, "worker protocol error");
    }
}
END_TEST

/* ---- deaths ---- */

START_TEST(a_worker_that_dies_says_how_and_what_it_said)
{
    configure_worker("", ", processes: 1, restart_backoff: 10ms");
    const struct run_record *r = run_job("say ImportError: no module");
    expect(r, OUTCOME_RETRY, "worker died: exit 9");
    ck_assert_int_eq(r->outcome.exit_code, 9);
    ck_assert_str_eq(r->tail, "ImportError: no module\n");
    ck_assert_str_eq(seen.texts[WORKER_STDERR], "ImportError: no module");
    r = run_job("kill 9");
    expect(r, OUTCOME_RETRY, "worker died: signal 9");
    ck_assert_int_eq(r->outcome.signal, 9);
    ck_assert_int_eq(r->outcome.exit_code, -1);
    expect(run_job("exit 0"), OUTCOME_RETRY, "worker died: exit 0");
    ck_assert_uint_eq(seen.counts[WORKER_DIED], 3);
}
END_TEST

START_TEST(all_jobs_of_a_dead_worker_are_tried_again)
{
    static struct run_record records[3];
    configure_worker(", window=3", ", window: 3, processes: 1, restart_backoff: 10ms");
    for (int i = 0; i < 2; i++)
        run_begin(&records[i], i + 1, "hold");
    run_begin(&records[2], 3, "kill 15");
    for (int i = 0; i < 3; i++) {
        pump_until(records[i].is_done, 10000);
        expect(&records[i], OUTCOME_RETRY, "worker died: signal 15");
    }
}
END_TEST

/* The pause doubles while they do nothing, and is over when one has done a job. */
START_TEST(workers_that_die_early_are_started_more_and_more_slowly)
{
    configure_worker("", ", processes: 1, restart_backoff: 20ms");
    for (uint64_t pause = 20; pause <= 80; pause *= 2) {
        expect(run_job("exit 7"), OUTCOME_RETRY, "worker died: exit 7");
        ck_assert_uint_eq(seen.retry_ms[WORKER_DIED], pause);
    }
    expect(run_job("ok"), OUTCOME_DONE, "");
    expect(run_job("exit 7"), OUTCOME_RETRY, "worker died: exit 7");
    ck_assert_uint_eq(seen.retry_ms[WORKER_DIED], 0);
    expect(run_job("exit 7"), OUTCOME_RETRY, "worker died: exit 7");
    ck_assert_uint_eq(seen.retry_ms[WORKER_DIED], 20);
}
END_TEST

START_TEST(a_killed_spawner_costs_its_workers_jobs_an_attempt)
{
    static struct run_record r;
    configure_worker("", ", processes: 1, restart_backoff: 10ms");
    run_begin(&r, 1, "hold");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    pid_t pid = seen.ready_pid;
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count == 1, 10000);
    ck_assert(process_is_over(pid));
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_RETRY, "worker died: lost with the process that starts commands");
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

/* ---- beginnings ---- */

/* Nobody's jobs are used up by a worker that can't begin: they are released, and the task pauses.
 */
static void expect_not_ready(const char *arguments, const char *keys, const char *part)
{
    configure_worker(arguments, keys);
    const struct run_record *r = run_job("ok");
    expect_reason_with(r, OUTCOME_RELEASE, part);
    ck_assert(r->outcome.misconfigured);
}

START_TEST(a_worker_that_exits_at_once_is_misconfigured)
{
    expect_not_ready(", exit=1", ", restart_backoff: 20ms", "was not ready: exit 1");
    pump_until(seen.counts[WORKER_NOT_READY] == 3, 10000);
    ck_assert_uint_eq(seen.retry_ms[WORKER_NOT_READY], 80);
}
END_TEST

START_TEST(a_worker_that_never_says_ready_is_misconfigured)
{
    expect_not_ready(", mute", ", start_timeout: 100ms",
                     "was not ready: it did not say so within start_timeout");
}
END_TEST

START_TEST(a_worker_that_says_something_else_is_misconfigured)
{
    expect_not_ready(", garbage", "", "was not ready: not one JSON object in a line: Traceback");
    ck_assert_uint_eq(seen.counts[WORKER_PROTOCOL_ERROR], 1);
}
END_TEST

START_TEST(a_worker_that_quits_when_it_is_ready_is_started_more_slowly)
{
    configure_worker(", quit", ", restart_backoff: 20ms");
    pump_until(seen.counts[WORKER_DIED] == 3, 10000);
    ck_assert_str_eq(seen.texts[WORKER_DIED], "exit 3");
    ck_assert_uint_eq(seen.retry_ms[WORKER_DIED], 80);
}
END_TEST

START_TEST(a_missing_or_forbidden_program_is_released_with_advice)
{
    static const char *const wrong[][2] = {
        {"  t: { worker: [/no/such/program] }", "/no/such/program: exec: No such file"},
        {"  t: { worker: [/etc/passwd] }", "chmod +x"},
        {"  t: { worker: [/bin/true], cwd: /no/such/folder }", "/no/such/folder"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        configure(wrong[i][0]);
        const struct run_record *r = run_job("ok");
        expect_reason_with(r, OUTCOME_RELEASE, wrong[i][1]);
        ck_assert(r->outcome.misconfigured && !r->outcome.spawn_failed);
    }
}
END_TEST

START_TEST(without_descriptors_jobs_are_released_until_there_are_some)
{
    static struct run_record r;
    configure_worker("", ", startup: 0, processes: 1, idle_timeout: 0");
    expect(run_job("ok"), OUTCOME_DONE, "");
    pump_until(seen.counts[WORKER_ENDED] == 1, 10000);
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    size_t before = open_descriptors(getpid());
    struct rlimit low = {.rlim_cur = 4, .rlim_max = limit.rlim_max}; /* all of them are taken */
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    run_begin(&r, 1, "ok");
    pump_until(r.is_done, 10000);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert(r.outcome.kind == OUTCOME_RELEASE && r.outcome.spawn_failed);
    ck_assert_uint_le(open_descriptors(getpid()), before);
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

/* ---- deafness ---- */

START_TEST(a_late_worker_deaf_to_term_is_killed_after_the_grace)
{
    configure_worker("", ", processes: 1, timeout: 100ms");
    expect(run_job("deaf"), OUTCOME_RETRY, "timeout");
}
END_TEST

START_TEST(a_run_of_a_deaf_worker_ends_when_it_is_killed)
{
    static struct run_record r;
    configure_worker("", ", processes: 1");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    run_begin(&r, 1, "deaf");
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 100, 5000);
    executor->ops->stop(executor, &r.run, STOP_LOST);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    executor->ops->stop(executor, &r.run, STOP_SHUTDOWN);
    pump_until(r.is_done, 4000); /* not by the grace of 5 s */
    ck_assert_int_eq(r.outcome.kind, OUTCOME_RELEASE);
}
END_TEST

/* It is asked by the end of its input, then by TERM, then killed. */
START_TEST(an_idle_worker_deaf_to_everything_does_not_hold_up_the_end)
{
    configure_worker(", deaf", "");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    pid_t pid = seen.ready_pid;
    close_executor();
    ck_assert(process_is_over(pid));
}
END_TEST

START_TEST(killing_all_takes_deaf_workers_at_once)
{
    configure_worker(", deaf", "");
    pump_until(seen.counts[WORKER_READY] == 1, 10000);
    worker_executor_retire(executor, true);
    pump_until(seen.counts[WORKER_ENDED] == 1, 4000);
}
END_TEST

START_TEST(a_worker_that_never_reads_is_ended_by_the_timeout)
{
    static struct run_record r;
    size_t len = (size_t)4 * 1024 * 1024;
    char *body = calloc(1, len);
    ck_assert_ptr_nonnull(body);
    configure_worker(", noread", ", processes: 1, timeout: 300ms");
    struct outcome refused;
    run_prepare(&r, 1, body, len);
    ck_assert_int_eq(run_start(&r.run, &refused), 0);
    pump_until(r.is_done, 20000);
    expect(&r, OUTCOME_RETRY, "timeout");
    free(body);
}
END_TEST

START_TEST(a_flood_on_standard_error_delays_nobody)
{
    configure_worker("", ", processes: 1");
    expect(run_job("flood"), OUTCOME_DONE, "");
    ck_assert_uint_le(seen.counts[WORKER_STDERR], 200);
    expect(run_job("ok"), OUTCOME_DONE, "");
}
END_TEST

START_TEST(standard_error_is_told_line_by_line)
{
    configure_worker("", ", processes: 1");
    expect(run_job("err 60"), OUTCOME_DONE, "");
    pump_until(seen.counts[WORKER_STDERR] == 60, 10000);
    ck_assert_str_eq(seen.texts[WORKER_STDERR], "line 59");
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("worker_faults");
    TCase *tc = tcase_create("lies and deaths");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, worker_fixture_open, run_fixture_close);
    tcase_add_loop_test(tc, a_worker_that_breaks_the_protocol_is_killed_and_replaced, 0,
                        (int)(sizeof lies / sizeof lies[0]));
    tcase_add_test(tc, a_line_without_end_is_a_protocol_error);
    tcase_add_test(tc, an_answer_given_twice_is_a_protocol_error);
    tcase_add_test(tc, all_jobs_of_a_lying_worker_are_tried_again);
    tcase_add_test(tc, a_worker_that_dies_says_how_and_what_it_said);
    tcase_add_test(tc, all_jobs_of_a_dead_worker_are_tried_again);
    tcase_add_test(tc, workers_that_die_early_are_started_more_and_more_slowly);
    tcase_add_test(tc, a_killed_spawner_costs_its_workers_jobs_an_attempt);
    suite_add_tcase(s, tc);
    TCase *starts = tcase_create("beginnings and deafness");
    tcase_set_timeout(starts, 60);
    tcase_add_checked_fixture(starts, worker_fixture_open, run_fixture_close);
    tcase_add_test(starts, a_worker_that_exits_at_once_is_misconfigured);
    tcase_add_test(starts, a_worker_that_never_says_ready_is_misconfigured);
    tcase_add_test(starts, a_worker_that_says_something_else_is_misconfigured);
    tcase_add_test(starts, a_worker_that_quits_when_it_is_ready_is_started_more_slowly);
    tcase_add_test(starts, a_missing_or_forbidden_program_is_released_with_advice);
    tcase_add_test(starts, without_descriptors_jobs_are_released_until_there_are_some);
    tcase_add_test(starts, a_late_worker_deaf_to_term_is_killed_after_the_grace);
    tcase_add_test(starts, a_run_of_a_deaf_worker_ends_when_it_is_killed);
    tcase_add_test(starts, an_idle_worker_deaf_to_everything_does_not_hold_up_the_end);
    tcase_add_test(starts, killing_all_takes_deaf_workers_at_once);
    tcase_add_test(starts, a_worker_that_never_reads_is_ended_by_the_timeout);
    tcase_add_test(starts, a_flood_on_standard_error_delays_nobody);
    tcase_add_test(starts, standard_error_is_told_line_by_line);
    suite_add_tcase(s, starts);
    return s;
}
