/* Nothing that the spawner started survives it, or the dispatcher: every way in which either can
 * end. */
#include "ck_main.h"
#include "spawn_fixture.h"

#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/clock.h"

/* Starts what a hostile job would: a background process that outlives its group, one in a session
 * of its own, one double-forked in another, all deaf to TERM; and says so when all of them run. */
static const char hostile[] =
    "trap '' TERM HUP INT;"
    "(trap '' TERM; sleep 1000) &"
    "setsid sh -c 'trap \"\" TERM; echo a; sleep 1000' &"
    "(setsid sh -c '(setsid sh -c \"trap : TERM; echo b; sleep 1000; :\" &) ; exit 0' &)"
    "; echo c; sleep 1000";

static void wait_for_hostile(int out)
{
    ck_assert(wait_until(strlen(fd_text(out)) == 6, 10000));
}

static bool no_child_left(void)
{
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return pid == -1 && errno == ECHILD;
}

START_TEST(a_killed_spawner_takes_its_descent_with_it_and_is_replaced)
{
    struct child_record a;
    struct child_record b;
    struct child_record c;
    int out = scratch_file();
    child_shell(&a, hostile, out);
    child_shell(&b, "exec sleep 1000", -1);
    pump_until(a.is_started && b.is_started, 5000);
    wait_for_hostile(out);
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count > 0, 10000);
    ck_assert_int_eq(fx.lost_count, 1);
    ck_assert(a.is_exited && b.is_exited);
    ck_assert_int_eq(a.wait_status, SPAWN_EXIT_LOST);
    ck_assert_int_eq(b.wait_status, SPAWN_EXIT_LOST);
    ck_assert(no_child_left());
    ck_assert_int_eq(spawn_client_pid(fx.client), -1);
    ck_assert_int_eq(child_spawn(&c, ARGV("/bin/true"), -1), OB_ESPAWN);
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    ck_assert_int_ne(spawn_client_pid(fx.client), fx.spawner.pid);
    ck_assert_int_eq(child_shell_run("exit 9", -1), 9);
}
END_TEST

/* Twenty requests are in the socket of a stopped spawner when it is killed. */
START_TEST(requests_that_a_killed_spawner_never_read_are_told_as_lost)
{
    static struct child_record records[20];
    ck_assert_int_eq(kill(fx.spawner.pid, SIGSTOP), 0);
    for (size_t i = 0; i < 20; i++)
        child_shell(&records[i], "exec sleep 1000", -1);
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count > 0, 10000);
    for (size_t i = 0; i < 20; i++)
        ck_assert(records[i].is_exited && records[i].wait_status == SPAWN_EXIT_LOST);
    ck_assert(no_child_left());
}
END_TEST

/* What it had still said before it died is heard: an exit code is not turned into a lost job. */
START_TEST(an_exit_told_before_the_spawner_died_is_not_lost)
{
    struct child_record r;
    child_shell(&r, "exit 6", -1);
    struct child_record last;
    int out = scratch_file();
    child_shell(&last, "sleep 0.3; echo x", out);
    ck_assert(wait_until(strlen(fd_text(out)) == 2, 5000)); /* the loop does not run meanwhile */
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    ck_assert(wait_until(process_is_over(fx.spawner.pid), 5000));
    pump_until(fx.lost_count > 0, 10000);
    ck_assert(r.is_exited);
    ck_assert_int_eq(WEXITSTATUS(r.wait_status), 6);
}
END_TEST

START_TEST(a_spawner_may_die_and_be_replaced_again_and_again)
{
    for (int i = 1; i <= 5; i++) {
        struct child_record r;
        child_shell(&r, "exec sleep 1000", -1);
        pump_until(r.is_started, 5000);
        ck_assert_int_eq(kill(spawn_client_pid(fx.client), SIGKILL), 0);
        pump_until(fx.lost_count == i, 10000);
        ck_assert(r.is_exited);
        ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    }
}
END_TEST

START_TEST(closing_kills_everything_that_still_runs)
{
    static struct child_record r; /* told after the test, while the client closes */
    int out = scratch_file();
    child_shell(&r, hostile, out);
    pump_until(r.is_started, 5000);
    wait_for_hostile(out);
    /* fixture_close: none is left */
}
END_TEST

/* The dispatcher does not run its loop, as if it were stopped. */
START_TEST(a_passed_deadline_kills_everything_without_the_dispatcher)
{
    struct child_record r;
    int out = scratch_file();
    child_shell(&r, hostile, out);
    pump_until(r.is_started, 5000);
    wait_for_hostile(out);
    spawn_client_set_deadline(fx.client, clock_boot_ms() + 50);
    ck_assert(wait_until(process_is_over(fx.spawner.pid), 10000));
    ck_assert(process_is_over(r.pid));
    pump_until(fx.lost_count == 1, 10000);
    ck_assert_int_eq(r.wait_status, SPAWN_EXIT_LOST);
    ck_assert(no_child_left());
    /* The next one is not bound by it. */
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    ck_assert_int_eq(child_shell_run("sleep 0.1; exit 2", -1), 2);
    ck_assert_int_eq(fx.lost_count, 1);
}
END_TEST

/* One that has not passed is handed on to the next spawner. */
START_TEST(a_deadline_outlives_the_spawner_that_knew_it)
{
    struct child_record r;
    ck_assert_int_eq(kill(fx.spawner.pid, SIGSTOP), 0);
    spawn_client_set_deadline(fx.client, clock_boot_ms() + 1500);
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count == 1, 10000);
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    child_shell(&r, "exec sleep 1000", -1);
    pump_until(fx.lost_count == 2, 10000);
    ck_assert_int_eq(r.wait_status, SPAWN_EXIT_LOST);
}
END_TEST

START_TEST(a_renewed_or_removed_deadline_kills_nothing)
{
    struct child_record r;
    spawn_client_set_deadline(fx.client, clock_boot_ms() + 400);
    child_shell(&r, "sleep 0.6; exit 5", -1);
    spawn_client_set_deadline(fx.client, clock_boot_ms() + 60000);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WEXITSTATUS(r.wait_status), 5);
    spawn_client_set_deadline(fx.client, clock_boot_ms() + 400);
    child_shell(&r, "sleep 0.6; exit 6", -1);
    spawn_client_set_deadline(fx.client, 0);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WEXITSTATUS(r.wait_status), 6);
}
END_TEST

static bool lock_is_free(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    bool is_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
    (void)close(fd);
    return is_free;
}

START_TEST(a_held_descriptor_is_kept_by_the_spawner_and_by_the_next_one)
{
    char path[] = "/tmp/obspXXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    for (int i = 0; i < 10; i++) /* as at ten reconnects */
        ck_assert_int_eq(spawn_client_hold_fd(fx.client, fd), 0);
    (void)close(fd);
    ck_assert(!lock_is_free(path));
    ck_assert_int_eq(kill(fx.spawner.pid, SIGKILL), 0);
    pump_until(fx.lost_count == 1, 10000);
    int second = open("/dev/null", O_RDONLY | O_CLOEXEC); /* given while there is no spawner */
    ck_assert_int_eq(spawn_client_hold_fd(fx.client, second), 0);
    (void)close(second);
    ck_assert_int_eq(spawn_client_restart(fx.client), 0);
    ck_assert_int_eq(child_shell_run("exit 0", -1), 0); /* the hold was read before this */
    size_t count = open_descriptors(spawn_client_pid(fx.client));
    ck_assert_uint_eq(count, 9); /* 0 1 2, socket, signals, timer, OOM score, and both */
    (void)unlink(path);
}
END_TEST

/* A "dispatcher" in a process of its own: starts a hostile job, says so on `ready`, and hangs. */
static pid_t start_dispatcher(int out, int lock_fd)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    fixture_open();
    struct child_record r;
    if (lock_fd >= 0 && spawn_client_hold_fd(fx.client, lock_fd) != 0)
        _exit(1);
    child_shell(&r, hostile, out);
    for (;;)
        (void)uv_run(&fx.loop, UV_RUN_ONCE);
}

static void be_subreaper(void)
{
    ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

static void end_dispatcher_and_expect_nothing(int signum)
{
    int out = scratch_file();
    pid_t pid = start_dispatcher(out, -1);
    wait_for_hostile(out);
    ck_assert_int_eq(kill(pid, signum), 0);
    /* Everything that loses its parents comes to us; only the spawner can have killed it. */
    ck_assert(wait_until(no_child_left(), 10000));
}

START_TEST(a_killed_dispatcher_leaves_no_survivor)
{
    end_dispatcher_and_expect_nothing(SIGKILL);
}
END_TEST

START_TEST(a_crashed_dispatcher_leaves_no_survivor)
{
    end_dispatcher_and_expect_nothing(SIGABRT);
}
END_TEST

/* Nobody is there to act: the kernel ends the commands with the spawner. */
START_TEST(commands_die_with_the_spawner_while_the_dispatcher_is_stopped)
{
    int out = scratch_file();
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        fixture_open();
        struct child_record r;
        child_shell(&r, "echo $$ $PPID; exec sleep 1000", out);
        for (;;)
            (void)uv_run(&fx.loop, UV_RUN_ONCE);
    }
    ck_assert(wait_until(strchr(fd_text(out), '\n') != NULL, 10000));
    int command = 0;
    int spawner = 0;
    ck_assert_int_eq(sscanf(fd_text(out), "%d %d", &command, &spawner), 2);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    ck_assert_int_eq(kill(spawner, SIGKILL), 0);
    ck_assert(wait_until(process_is_over(command), 5000));
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert(wait_until(no_child_left(), 10000));
}
END_TEST

START_TEST(the_lock_is_free_only_when_every_survivor_is_gone)
{
    char path[] = "/tmp/obspXXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    int out = scratch_file();
    pid_t pid = start_dispatcher(out, fd);
    (void)close(fd);
    wait_for_hostile(out);
    ck_assert(!lock_is_free(path));
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert(wait_until(lock_is_free(path), 10000));
    /* The spawner itself may take a moment to become a zombie; nobody else may be there. */
    ck_assert(wait_until(no_child_left(), 1000));
    (void)unlink(path);
}
END_TEST

/* Signals for the whole foreground group, as Ctrl-C sends them, are not for the spawner. */
START_TEST(the_spawner_ignores_the_signals_of_a_terminal)
{
    struct child_record r;
    child_shell(&r, "sleep 0.2; exit 3", -1);
    pump_until(r.is_started, 5000);
    ck_assert_int_ne(getsid(fx.spawner.pid), getsid(0));
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGPIPE, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        ck_assert_int_eq(kill(fx.spawner.pid, signals[i]), 0);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WEXITSTATUS(r.wait_status), 3);
    ck_assert_int_eq(fx.lost_count, 0);
}
END_TEST

#ifdef OB_FAULTS
/* Between the start of a child and the answer. */
START_TEST(a_spawner_that_dies_in_the_middle_of_a_start_leaves_nothing)
{
    ck_assert_int_eq(setenv("OB_CRASH", "spawner_child_started:3", 1), 0);
    fixture_open();
    static struct child_record records[5];
    for (size_t i = 0; i < 5; i++)
        child_shell(&records[i], "exec sleep 1000", -1);
    pump_until(fx.lost_count == 1, 10000);
    for (size_t i = 0; i < 5; i++) {
        ck_assert(records[i].is_exited && records[i].wait_status == SPAWN_EXIT_LOST);
        ck_assert(records[i].is_started == (i < 2));
    }
    fixture_close();
}
END_TEST
#endif

Suite *test_suite(void)
{
    Suite *s = suite_create("spawner_death");
    TCase *tc = tcase_create("spawner");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, fixture_open, fixture_close);
    tcase_add_test(tc, a_killed_spawner_takes_its_descent_with_it_and_is_replaced);
    tcase_add_test(tc, requests_that_a_killed_spawner_never_read_are_told_as_lost);
    tcase_add_test(tc, an_exit_told_before_the_spawner_died_is_not_lost);
    tcase_add_test(tc, a_spawner_may_die_and_be_replaced_again_and_again);
    tcase_add_test(tc, closing_kills_everything_that_still_runs);
    tcase_add_test(tc, a_passed_deadline_kills_everything_without_the_dispatcher);
    tcase_add_test(tc, a_deadline_outlives_the_spawner_that_knew_it);
    tcase_add_test(tc, a_renewed_or_removed_deadline_kills_nothing);
    tcase_add_test(tc, a_held_descriptor_is_kept_by_the_spawner_and_by_the_next_one);
    tcase_add_test(tc, the_spawner_ignores_the_signals_of_a_terminal);
    suite_add_tcase(s, tc);
    TCase *dispatcher = tcase_create("dispatcher");
    tcase_set_timeout(dispatcher, 60);
    tcase_add_checked_fixture(dispatcher, be_subreaper, NULL);
    tcase_add_test(dispatcher, a_killed_dispatcher_leaves_no_survivor);
    tcase_add_test(dispatcher, a_crashed_dispatcher_leaves_no_survivor);
    tcase_add_test(dispatcher, commands_die_with_the_spawner_while_the_dispatcher_is_stopped);
    tcase_add_test(dispatcher, the_lock_is_free_only_when_every_survivor_is_gone);
#ifdef OB_FAULTS
    tcase_add_test(dispatcher, a_spawner_that_dies_in_the_middle_of_a_start_leaves_nothing);
#endif
    suite_add_tcase(s, dispatcher);
    return s;
}
