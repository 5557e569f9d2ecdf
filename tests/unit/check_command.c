/* The shell and exec handlers with real children: what they are given, and what becomes of them. */
#include "ck_main.h"
#include "command_fixture.h"

#include <inttypes.h>
#include <sys/resource.h>

START_TEST(exit_0_is_done_and_keeps_no_output)
{
    const struct run_record *r = run_shell("echo fine", "", "");
    expect(r, OUTCOME_DONE, "");
    ck_assert_int_eq(r->outcome.exit_code, 0);
    ck_assert_uint_eq(r->outcome.head_len, 0);
}
END_TEST

/* All 256 codes: 0 is done, dead_exit is dead, any other is tried again. */
START_TEST(every_other_exit_code_is_retried_or_dead)
{
    static struct run_record records[256];
    static char line[256 * 64];
    size_t len = 0;
    for (int i = 0; i < 256; i++)
        len +=
            (size_t)snprintf(line + len, sizeof line - len, "  t%d: { shell: 'exit %d' }\n", i, i);
    configure(line);
    static char names[256][8];
    for (int i = 0; i < 256; i++) {
        (void)snprintf(names[i], sizeof names[i], "t%d", i);
        run_begin(&records[i], names[i], "", 0);
    }
    for (int i = 0; i < 256; i++) {
        pump_until(records[i].is_done, 20000);
        char reason[16];
        (void)snprintf(reason, sizeof reason, "exit %d", i);
        enum outcome_kind kind = i == 65 || i == 100 ? OUTCOME_DEAD : OUTCOME_RETRY;
        expect(&records[i], i == 0 ? OUTCOME_DONE : kind, i == 0 ? "" : reason);
        ck_assert_int_eq(records[i].outcome.exit_code, i);
    }
}
END_TEST

START_TEST(dead_exit_can_be_configured)
{
    expect(run_shell("exit 3", ", dead_exit: [3]", ""), OUTCOME_DEAD, "exit 3");
    expect(run_shell("exit 65", ", dead_exit: [3]", ""), OUTCOME_RETRY, "exit 65");
}
END_TEST

START_TEST(death_by_a_signal_is_never_success)
{
    const struct run_record *r = run_shell("kill -KILL $$", "", "");
    expect(r, OUTCOME_RETRY, "signal 9");
    ck_assert_int_eq(r->outcome.signal, 9);
    ck_assert_int_eq(r->outcome.exit_code, -1);
}
END_TEST

/* It can act on TERM only because it is continued. */
START_TEST(a_child_that_stopped_itself_hears_its_timeout)
{
    const char *script = "trap \"exit 0\" TERM; kill -STOP $$; while :; do sleep 0.01; done";
    expect(run_shell(script, ", timeout: 300ms", ""), OUTCOME_DONE, "");
}
END_TEST

/* TERM is ignored by all of the group, so that only KILL after the grace ends it. */
START_TEST(a_child_deaf_to_term_is_killed_after_the_grace)
{
    const struct run_record *r =
        run_shell("trap \"\" TERM; sleep 1000 & sleep 1000; sleep 1000", ", timeout: 50ms", "");
    expect(r, OUTCOME_RETRY, "timeout");
    ck_assert_int_eq(r->outcome.signal, SIGKILL);
}
END_TEST

START_TEST(exit_0_within_the_grace_is_done)
{
    const char *script = "trap \"exit 0\" TERM; echo ready; while :; do sleep 0.01; done";
    expect(run_shell(script, ", timeout: 300ms", ""), OUTCOME_DONE, "");
}
END_TEST

START_TEST(another_exit_within_the_grace_is_a_timeout)
{
    const char *script = "trap \"exit 65\" TERM; while :; do sleep 0.01; done";
    const struct run_record *r = run_shell(script, ", timeout: 300ms", "");
    expect(r, OUTCOME_RETRY, "timeout");
    ck_assert_int_eq(r->outcome.exit_code, 65);
}
END_TEST

START_TEST(a_run_stopped_with_the_dispatcher_is_released)
{
    static struct run_record r;
    configure("  t: { shell: 'sleep 1000 & sleep 1000' }");
    run_begin(&r, "t", "", 0);
    executor->ops->stop(executor, &r.run, STOP_SHUTDOWN);
    executor->ops->stop(executor, &r.run, STOP_SHUTDOWN);
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
}
END_TEST

START_TEST(a_run_deaf_to_term_ends_when_it_is_killed)
{
    static struct run_record r;
    configure("  t: { shell: 'trap \"\" TERM; echo x; sleep 1000; sleep 1000', capture: always }");
    run_begin(&r, "t", "", 0);
    executor->ops->stop(executor, &r.run, STOP_LOST);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    executor->ops->stop(executor, &r.run, STOP_SHUTDOWN);
    pump_until(r.is_done, 4000); /* not by the grace of 5 s */
    ck_assert_int_eq(r.outcome.kind, OUTCOME_RELEASE);
}
END_TEST

START_TEST(a_timeout_stays_one_when_the_dispatcher_stops_too)
{
    static struct run_record r;
    configure(
        "  t: { shell: 'trap \"echo got it\" TERM; while :; do sleep 0.01; done', timeout: 50ms,"
        " capture: always }");
    run_begin(&r, "t", "", 0);
    uint64_t begin = wait_now_ms();
    pump_until(wait_now_ms() > begin + 500, 5000); /* well behind the timeout, well before KILL */
    executor->ops->stop(executor, &r.run, STOP_KILL);
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_RETRY, "timeout");
}
END_TEST

START_TEST(a_missing_or_forbidden_program_is_released_with_advice)
{
    configure("  shell: { shell: 'exit 0', cwd: /no/such/folder }\n"
              "  gone: { exec: [/no/such/program] }\n"
              "  text: { exec: [/etc/passwd] }");
    const struct run_record *r = run_task("shell", "");
    ck_assert_int_eq(r->outcome.kind, OUTCOME_RELEASE);
    ck_assert(r->outcome.misconfigured);
    ck_assert_ptr_nonnull(strstr(r->outcome.reason, "/no/such/folder"));
    r = run_task("gone", "");
    ck_assert(r->outcome.kind == OUTCOME_RELEASE && r->outcome.misconfigured);
    ck_assert_ptr_nonnull(strstr(r->outcome.reason, "/no/such/program"));
    r = run_task("text", "");
    ck_assert(r->outcome.kind == OUTCOME_RELEASE && r->outcome.misconfigured);
    ck_assert_ptr_nonnull(strstr(r->outcome.reason, "chmod +x"));
}
END_TEST

START_TEST(a_start_is_released_uncounted_while_there_is_no_spawner)
{
    static struct run_record running;
    static struct run_record r;
    configure("  t: { shell: 'exec sleep 1000' }");
    run_begin(&running, "t", "", 0);
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count == 1, 10000);
    expect(&running, OUTCOME_RETRY, "lost: the process left no exit status");
    struct outcome refused;
    run_prepare(&r, "t", "", 0);
    ck_assert_int_lt(run_start(&r.run, &refused), 0);
    ck_assert(refused.kind == OUTCOME_RELEASE && refused.spawn_failed && !refused.misconfigured);
    ck_assert_uint_gt(refused.delay_ms, 0);
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    expect(run_shell("exit 8", "", ""), OUTCOME_RETRY, "exit 8");
}
END_TEST

/* As with RLIMIT_NOFILE reached: nothing starts, nothing leaks, and it works again afterwards. */
START_TEST(a_start_without_descriptors_is_released_uncounted)
{
    static struct run_record r;
    configure("  t: { shell: 'cat >/dev/null' }");
    (void)run_task("t", "{}");
    size_t before = open_descriptors(getpid());
    int fds[1024] = {0};
    struct outcome refused;
    for (size_t spare = 0; spare < 3; spare++) {
        size_t count = 0;
        fds[0] = fcntl(0, F_DUPFD_CLOEXEC, 1000);
        struct rlimit limit;
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        struct rlimit low = {.rlim_cur = 256, .rlim_max = limit.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        (void)close(fds[0]);
        while (count < 1024 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
            count++;
        for (size_t i = 0; i < spare; i++)
            (void)close(fds[--count]);
        run_prepare(&r, "t", "{}", 2);
        ck_assert_int_lt(run_start(&r.run, &refused), 0);
        ck_assert(refused.kind == OUTCOME_RELEASE && refused.spawn_failed);
        while (count > 0)
            (void)close(fds[--count]);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    expect(run_task("t", "{}"), OUTCOME_DONE, "");
    ck_assert_uint_eq(open_descriptors(getpid()), before);
}
END_TEST

/* Far more at once than the socket to the spawner holds: each either runs or is released to be
 * tried again; none is lost and none runs twice. */
START_TEST(a_flood_of_starts_runs_or_is_released)
{
    enum { COUNT = 1500 };
    struct run_record *records = calloc(COUNT, sizeof *records);
    bool started[COUNT];
    ck_assert_ptr_nonnull(records);
    configure("  t: { exec: [/bin/true], capture: never }");
    for (size_t i = 0; i < COUNT; i++) {
        struct outcome refused;
        run_prepare(&records[i], "t", "", 0);
        started[i] = run_start(&records[i].run, &refused) == 0;
        ck_assert(started[i] || refused.spawn_failed);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (started[i]) {
            pump_until(records[i].is_done, 30000);
            expect(&records[i], OUTCOME_DONE, "");
        }
    }
    free(records);
}
END_TEST

START_TEST(jobs_leave_no_descriptor_behind)
{
    static struct run_record records[20];
    configure("  ok: { exec: [/bin/cat] }\n"
              "  bad: { exec: [/no/such/program] }\n"
              "  slow: { shell: 'sleep 1000', timeout: 20ms }");
    (void)run_task("ok", "{}");
    size_t before = open_descriptors(getpid());
    const char *const tasks[] = {"ok", "bad", "ok", "slow"};
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 20; i++)
            run_begin(&records[i], tasks[i % 4], "{}", 2);
        for (size_t i = 0; i < 20; i++)
            pump_until(records[i].is_done, 20000);
    }
    ck_assert_uint_eq(open_descriptors(getpid()), before);
}
END_TEST

START_TEST(the_executor_closes_while_runs_end_in_its_callbacks)
{
    static struct run_record r;
    configure("  t: { shell: 'exit 0' }");
    run_begin(&r, "t", "", 0);
    pump_until(r.is_done, 5000);
    /* run_fixture_close at once: the handles of this run are still closing */
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("command");
    TCase *tc = tcase_create("outcomes");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, command_fixture_open, run_fixture_close);
    tcase_add_test(tc, exit_0_is_done_and_keeps_no_output);
    tcase_add_test(tc, every_other_exit_code_is_retried_or_dead);
    tcase_add_test(tc, dead_exit_can_be_configured);
    tcase_add_test(tc, death_by_a_signal_is_never_success);
    tcase_add_test(tc, a_child_that_stopped_itself_hears_its_timeout);
    tcase_add_test(tc, a_child_deaf_to_term_is_killed_after_the_grace);
    tcase_add_test(tc, exit_0_within_the_grace_is_done);
    tcase_add_test(tc, another_exit_within_the_grace_is_a_timeout);
    tcase_add_test(tc, a_run_stopped_with_the_dispatcher_is_released);
    tcase_add_test(tc, a_run_deaf_to_term_ends_when_it_is_killed);
    tcase_add_test(tc, a_timeout_stays_one_when_the_dispatcher_stops_too);
    suite_add_tcase(s, tc);
    TCase *starts = tcase_create("starts");
    tcase_set_timeout(starts, 60);
    tcase_add_checked_fixture(starts, command_fixture_open, run_fixture_close);
    tcase_add_test(starts, a_missing_or_forbidden_program_is_released_with_advice);
    tcase_add_test(starts, a_start_is_released_uncounted_while_there_is_no_spawner);
    tcase_add_test(starts, a_start_without_descriptors_is_released_uncounted);
    tcase_add_test(starts, a_flood_of_starts_runs_or_is_released);
    tcase_add_test(starts, jobs_leave_no_descriptor_behind);
    tcase_add_test(starts, the_executor_closes_while_runs_end_in_its_callbacks);
    suite_add_tcase(s, starts);
    return s;
}
