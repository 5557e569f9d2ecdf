/* The spawner and its client, with real children: what a child gets, how its end is told. */
#include "ck_main.h"
#include "spawn_fixture.h"

#include <sys/stat.h>

/* What the daemon may have inherited from its own parent: none of it may reach a child. */
static void open_with_a_bad_inheritance(void)
{
    int inheritable = open("/dev/zero", O_RDONLY); /* no CLOEXEC */
    ck_assert_int_ge(inheritable, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR2);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    fixture_open();
}

/* All 256 at once, so that every code is also told to the right child. */
START_TEST(every_exit_code_comes_back_to_its_own_child)
{
    static struct child_record records[256];
    for (int i = 0; i < 256; i++) {
        char script[16];
        (void)snprintf(script, sizeof script, "exit %d", i);
        child_shell(&records[i], script, -1);
    }
    for (int i = 0; i < 256; i++) {
        pump_until(records[i].is_exited, 20000);
        ck_assert(records[i].is_started);
        ck_assert(WIFEXITED(records[i].wait_status));
        ck_assert_int_eq(WEXITSTATUS(records[i].wait_status), i);
    }
}
END_TEST

START_TEST(death_by_a_signal_is_told_as_one)
{
    struct child_record r;
    child_shell(&r, "kill -SEGV $$", -1);
    pump_until(r.is_exited, 5000);
    ck_assert(WIFSIGNALED(r.wait_status));
    ck_assert_int_eq(WTERMSIG(r.wait_status), SIGSEGV);
}
END_TEST

static void expect_failure(const char *program, const char *stage, int errnum)
{
    struct child_record r;
    ck_assert_int_eq(child_spawn(&r, ARGV(program), -1), 0);
    pump_until(r.is_failed || r.is_exited, 5000);
    ck_assert_msg(r.is_failed, "%s ran", program);
    ck_assert_str_eq(r.stage, stage);
    ck_assert_int_eq(r.errnum, errnum);
}

static void write_program(const char *path, const char *text, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    ck_assert_int_eq(fchmod(fd, mode), 0);
    (void)close(fd);
}

START_TEST(a_program_that_can_not_run_is_told_as_stage_and_errno)
{
    char dir[] = "/tmp/obspXXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    char path[64];
    (void)snprintf(path, sizeof path, "%s/program", dir);
    expect_failure(path, "exec", ENOENT);
    write_program(path, "#!/bin/sh\nexit 0\n", 0644);
    expect_failure(path, "exec", EACCES);
    write_program(path, "#!/no/such/interpreter\n", 0755);
    expect_failure(path, "interpreter", ENOENT);
    write_program(path, "exit 0\n", 0755);
    expect_failure(path, "exec", ENOEXEC);
    expect_failure("/etc/passwd/program", "exec", ENOTDIR);
    (void)unlink(path);
    (void)rmdir(dir);
    /* And the next one runs. */
    ck_assert_int_eq(child_shell_run("exit 4", -1), 4);
}
END_TEST

START_TEST(a_missing_working_folder_is_told_as_such)
{
    char *envp[] = {NULL};
    const char *const argv[] = {"/bin/true", NULL};
    struct spawn_request request = {.argv = (char *const *)(uintptr_t)argv,
                                    .envp = envp,
                                    .cwd = "/no/such/folder",
                                    .umask = -1,
                                    .stdin_fd = -1,
                                    .stdout_fd = -1,
                                    .stderr_fd = -1};
    struct child_record r = {0};
    ck_assert_int_eq(spawn_client_spawn(fx.client, &request, &child_callbacks, &r, &r.handle), 0);
    pump_until(r.is_failed || r.is_exited, 5000);
    ck_assert(r.is_failed);
    ck_assert_str_eq(r.stage, "chdir");
    ck_assert_int_eq(r.errnum, ENOENT);
}
END_TEST

START_TEST(arguments_environment_folder_and_umask_are_exactly_those_asked_for)
{
    int out = scratch_file();
    static char a[] = "A=1";
    static char b[] = "B=two words";
    char *envp[] = {a, b, NULL};
    const char *const argv[] = {
        "/bin/sh", "-c", "cat /proc/$$/environ | tr '\\0' '|'; pwd; umask; echo \"$0:$1:$2:$#\"",
        "zero",    "",   "x y",
        NULL};
    struct spawn_request request = {.argv = (char *const *)(uintptr_t)argv,
                                    .envp = envp,
                                    .cwd = "/usr",
                                    .umask = 027,
                                    .stdin_fd = -1,
                                    .stdout_fd = out,
                                    .stderr_fd = out};
    struct child_record r = {0};
    ck_assert_int_eq(spawn_client_spawn(fx.client, &request, &child_callbacks, &r, &r.handle), 0);
    pump_until(r.is_exited, 5000);
    ck_assert_str_eq(fd_text(out), "A=1|B=two words|/usr\n0027\nzero::x y:2\n");
}
END_TEST

START_TEST(an_empty_environment_is_empty)
{
    int out = scratch_file();
    char *envp[] = {NULL};
    const char *const argv[] = {"/usr/bin/env", NULL};
    struct spawn_request request = {.argv = (char *const *)(uintptr_t)argv,
                                    .envp = envp,
                                    .umask = -1,
                                    .stdin_fd = -1,
                                    .stdout_fd = out,
                                    .stderr_fd = out};
    struct child_record r = {0};
    ck_assert_int_eq(spawn_client_spawn(fx.client, &request, &child_callbacks, &r, &r.handle), 0);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(r.wait_status, 0);
    ck_assert_str_eq(fd_text(out), "");
}
END_TEST

START_TEST(a_child_has_three_descriptors_and_no_more)
{
    int out = scratch_file();
    int late = open("/dev/zero", O_RDONLY); /* as a library opens one later */
    ck_assert_int_ge(late, 0);
    struct child_record r;
    ck_assert_int_eq(child_spawn(&r, ARGV("/bin/ls", "-1", "/proc/self/fd"), out), 0);
    pump_until(r.is_exited, 5000);
    ck_assert_str_eq(fd_text(out), "0\n1\n2\n3\n"); /* 3: the folder that ls reads */
}
END_TEST

START_TEST(a_child_has_default_signals_its_own_session_and_a_high_oom_score)
{
    int out = scratch_file();
    struct child_record r;
    child_shell(&r,
                "grep -E '^Sig(Blk|Ign)' /proc/self/status; cat /proc/self/oom_score_adj;"
                "set -- $(cat /proc/$$/stat); test $5 = $$ && test $6 = $$ && echo leader",
                out);
    pump_until(r.is_exited, 5000);
    ck_assert_str_eq(fd_text(out),
                     "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n500\nleader\n");
}
END_TEST

START_TEST(a_signal_reaches_the_whole_group)
{
    struct child_record r;
    child_shell(&r, "sleep 1000 & sleep 1000 & wait", -1);
    pump_until(r.is_started, 5000);
    spawn_client_kill(fx.client, r.handle, SIGTERM);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WTERMSIG(r.wait_status), SIGTERM);
    ck_assert(wait_until(kill(-r.pid, 0) == -1 && errno == ESRCH, 5000));
}
END_TEST

START_TEST(a_signal_sent_before_the_start_is_known_is_not_lost)
{
    struct child_record r;
    child_shell(&r, "exec sleep 1000", -1);
    spawn_client_kill(fx.client, r.handle, SIGKILL);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WTERMSIG(r.wait_status), SIGKILL);
}
END_TEST

START_TEST(stragglers_of_the_group_are_killed_when_the_leader_exits)
{
    struct child_record r;
    child_shell(&r, "trap '' TERM HUP; (sleep 1000) & (sleep 1000) & exit 3", -1);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(WEXITSTATUS(r.wait_status), 3);
    ck_assert(wait_until(kill(-r.pid, 0) == -1 && errno == ESRCH, 5000));
}
END_TEST

/* The spawner's list of children becomes empty although nobody but it can wait for the orphan. */
START_TEST(adopted_orphans_are_reaped)
{
    ck_assert_int_eq(child_shell_run("setsid sh -c 'sleep 0.05' & exit 0", -1), 0);
    ck_assert(wait_until(!spawner_has_children(), 5000));
}
END_TEST

START_TEST(a_request_over_the_limit_is_refused_and_one_below_runs)
{
    static char text[SPAWN_REQUEST_MAX + 1];
    memset(text, 'x', sizeof text - 1);
    struct child_record r;
    ck_assert_int_eq(child_spawn(&r, ARGV("/bin/true", text), -1), OB_ETOOBIG);
    text[SPAWN_REQUEST_MAX - 100] = '\0';
    ck_assert_int_eq(child_spawn(&r, ARGV("/bin/true", text), -1), 0);
    pump_until(r.is_exited, 5000);
    ck_assert_int_eq(r.wait_status, 0);
    static const char *many[10000];
    for (size_t i = 0; i < 9999; i++)
        many[i] = "/bin/true";
    ck_assert_int_eq(child_spawn(&r, many, -1), OB_ETOOBIG);
}
END_TEST

START_TEST(two_thousand_jobs_leave_no_descriptor_behind)
{
    static struct child_record records[50];
    int out = scratch_file();
    child_shell_run("exit 0", out);
    size_t ours = open_descriptors(getpid());
    size_t theirs = open_descriptors(fx.spawner.pid);
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < 50; i++) {
            const char *program = i % 10 == 0 ? "/no/such/program" : "/bin/true";
            ck_assert_int_eq(child_spawn(&records[i], ARGV(program), out), 0);
        }
        for (size_t i = 0; i < 50; i++)
            pump_until(records[i].is_exited || records[i].is_failed, 10000);
    }
    ck_assert_uint_eq(open_descriptors(getpid()), ours);
    ck_assert_uint_eq(open_descriptors(fx.spawner.pid), theirs);
}
END_TEST

/* The loop does not run while far more is told than a socket holds: the spawner waits for room and
 * nothing is lost. */
START_TEST(a_dispatcher_that_does_not_read_loses_nothing)
{
    enum { COUNT = 4000 };
    static struct child_record records[COUNT];
    size_t count = 0;
    uint64_t deadline = wait_now_ms() + 3000;
    while (count < COUNT && wait_now_ms() < deadline) {
        int err = child_spawn(&records[count], ARGV("/no/such/program"), -1);
        if (err == UV_EAGAIN)
            wait_pause();
        else
            ck_assert_int_eq(err, 0);
        count += err == 0 ? 1 : 0;
    }
    ck_assert_uint_gt(count, 1000);
    for (size_t i = 0; i < count; i++)
        pump_until(records[i].is_failed, 10000);
    ck_assert_int_eq(child_shell_run("exit 7", -1), 7);
}
END_TEST

START_TEST(three_hundred_children_run_at_once_and_die_on_close)
{
    static struct child_record records[300];
    for (size_t i = 0; i < 300; i++)
        ck_assert_int_eq(child_spawn(&records[i], ARGV("/bin/sleep", "1000"), -1), 0);
    for (size_t i = 0; i < 300; i++)
        pump_until(records[i].is_started, 10000);
    /* fixture_close: none is left */
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("spawner");
    TCase *tc = tcase_create("children");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, open_with_a_bad_inheritance, fixture_close);
    tcase_add_test(tc, every_exit_code_comes_back_to_its_own_child);
    tcase_add_test(tc, death_by_a_signal_is_told_as_one);
    tcase_add_test(tc, a_program_that_can_not_run_is_told_as_stage_and_errno);
    tcase_add_test(tc, a_missing_working_folder_is_told_as_such);
    tcase_add_test(tc, arguments_environment_folder_and_umask_are_exactly_those_asked_for);
    tcase_add_test(tc, an_empty_environment_is_empty);
    tcase_add_test(tc, a_child_has_three_descriptors_and_no_more);
    tcase_add_test(tc, a_child_has_default_signals_its_own_session_and_a_high_oom_score);
    tcase_add_test(tc, a_signal_reaches_the_whole_group);
    tcase_add_test(tc, a_signal_sent_before_the_start_is_known_is_not_lost);
    tcase_add_test(tc, stragglers_of_the_group_are_killed_when_the_leader_exits);
    tcase_add_test(tc, adopted_orphans_are_reaped);
    suite_add_tcase(s, tc);
    TCase *limits = tcase_create("limits");
    tcase_set_timeout(limits, 60);
    tcase_add_checked_fixture(limits, open_with_a_bad_inheritance, fixture_close);
    tcase_add_test(limits, a_request_over_the_limit_is_refused_and_one_below_runs);
    tcase_add_test(limits, two_thousand_jobs_leave_no_descriptor_behind);
    tcase_add_test(limits, a_dispatcher_that_does_not_read_loses_nothing);
    tcase_add_test(limits, three_hundred_children_run_at_once_and_die_on_close);
    suite_add_tcase(s, limits);
    return s;
}
