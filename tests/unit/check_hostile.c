/* Children that do their worst, those that the other tests of commands and of the spawner leave
 * out: floods of output, fork bombs, programs that we may not kill, deafness of what a shell left
 * behind; and 20,000 ordinary ones, that leave nothing behind. */
#include "ck_main.h"
#include "command_fixture.h"

#include <dirent.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { BOMBER = 54321, JOBS = 20000, AT_ONCE = 16, WARM_UP = 2000, SLACK_KIB = 1024 };

static char folder[] = "/tmp/obhoXXXXXX"; /* for all users */

static void make_folder(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chmod(folder, 0777), 0);
}

static const char *path_in(const char *name)
{
    static char path[4][64];
    static unsigned i;
    i = (i + 1) % 4;
    (void)snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

/* After everything is over. */
static void remove_folder(void)
{
    static const char *const names[] = {"pid", "up", "go", "b", "root"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unlink(path_in(names[i]));
    (void)rmdir(folder);
}

/* A sanitizer keeps what was freed: only descriptors are counted then. */
#if defined __SANITIZE_ADDRESS__
enum { IS_SANITIZED = 1 };
#elif defined __has_feature
#if __has_feature(address_sanitizer)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif
#else
enum { IS_SANITIZED = 0 };
#endif

static long resident_kib(pid_t pid)
{
    if (IS_SANITIZED)
        return 0;
    char path[64];
    long pages = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%*d %ld", &pages), 1);
    (void)fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Processes of a user that are not zombies. */
static size_t processes_of(uid_t uid)
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    ck_assert_ptr_nonnull(proc);
    for (const struct dirent *e = readdir(proc); e != NULL; e = readdir(proc)) {
        char path[300];
        struct stat st;
        (void)snprintf(path, sizeof path, "/proc/%s", e->d_name);
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && stat(path, &st) == 0 &&
            st.st_uid == uid && !process_is_over((pid_t)strtol(e->d_name, NULL, 10)))
            count++;
    }
    (void)closedir(proc);
    return count;
}

START_TEST(a_gigabyte_of_output_takes_no_memory)
{
    long before = resident_kib(getpid());
    const struct run_record *r =
        run_shell("head -c 1073741824 /dev/zero; exit 3", ", timeout: 100s", "");
    expect(r, OUTCOME_RETRY, "exit 3");
    ck_assert_uint_eq(r->outcome.output_bytes, 1073741824);
    ck_assert_int_le(resident_kib(getpid()) - before, SLACK_KIB);
}
END_TEST

/* More than a pipe holds, before anybody reads. */
START_TEST(a_burst_of_output_is_kept_whole)
{
    const struct run_record *r = run_shell("head -c 1000000 /dev/zero | tr \"\\\\0\" x; echo end",
                                           ", capture: always, capture_tail: 8", "");
    expect(r, OUTCOME_DONE, "");
    ck_assert_uint_eq(r->outcome.output_bytes, 1000004);
    ck_assert_str_eq(r->tail, "xxxxend\n");
}
END_TEST

/* ---- what a shell leaves behind when it is told to end ---- */

/* A shell without a trap dies by the TERM at once; the program that it waited for has its five
 * seconds all the same. */
START_TEST(the_grace_is_that_of_the_whole_group)
{
    const struct run_record *r =
        run_shell("sh -c \"trap \\\"sleep 0.3; echo saved; exit 0\\\" TERM; echo on;"
                  " while :; do sleep 0.05; done\"; true",
                  ", timeout: 500ms", "");
    expect(r, OUTCOME_RETRY, "timeout");
    ck_assert_int_eq(r->outcome.signal, SIGTERM);
    ck_assert_msg(strstr(r->head, "\nsaved\n") != NULL, "%s", r->head);
}
END_TEST

/* Nobody is left: nobody is waited for. */
START_TEST(a_group_that_ends_with_its_leader_is_over_at_once)
{
    const struct run_record *r = run_shell("sleep 600 & sleep 600 & wait", ", timeout: 100ms", "");
    expect(r, OUTCOME_RETRY, "timeout");
    ck_assert_uint_lt(r->outcome.duration_ms, 4000);
}
END_TEST

START_TEST(what_is_deaf_to_term_is_killed_after_the_leader)
{
    char script[256];
    (void)snprintf(
        script, sizeof script,
        "sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > %s; while :; do sleep 0.05; done\"; true",
        path_in("pid"));
    const struct run_record *r = run_shell(script, ", timeout: 500ms", "");
    expect(r, OUTCOME_RETRY, "timeout");
    ck_assert_uint_ge(r->outcome.duration_ms, 5000);
    FILE *f = fopen(path_in("pid"), "re");
    int pid = 0;
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%d", &pid), 1);
    (void)fclose(f);
    bool ok = wait_until(process_is_over(pid), 5000);
    ck_assert(ok);
}
END_TEST

/* Its leader is gone, the rest is deaf: the second, harsher word ends it at once. */
START_TEST(a_kill_ends_what_outlived_its_leader)
{
    static struct run_record r;
    char tasks[400];
    (void)snprintf(
        tasks, sizeof tasks,
        "  t: { shell: 'sh -c \"trap \\\"\\\" TERM; : > %s; while :; do sleep 0.05; done\";"
        " true' }",
        path_in("up"));
    configure(tasks);
    run_begin(&r, "t", "", 0);
    pump_until(access(path_in("up"), F_OK) == 0, 10000);
    executor->ops->stop(executor, &r.run, STOP_CANCEL);
    static struct run_record other; /* when it is over, the TERM was heard */
    run_begin(&other, "t", "", 0);
    executor->ops->stop(executor, &other.run, STOP_KILL);
    pump_until(other.is_done, 10000);
    ck_assert(!r.is_done);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    pump_until(r.is_done, 4000);
    expect(&r, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
}
END_TEST

/* ---- bombs ---- */

static const char *const bombs[] = {
    "bomb() { bomb | bomb & }; bomb; sleep 0.2",               /* within its group */
    "bomb() { bomb | bomb & }; bomb; wait; sleep 600",         /* until it is stopped */
    "cat > $D/b; setsid sh $D/b & setsid sh $D/b & sleep 0.2", /* each a session of its own */
};

/* Needs root: another user's limit of processes, so that it is not ours. */
START_TEST(a_fork_bomb_under_a_limit_leaves_nothing)
{
    static const char body[] = "while :; do setsid sh $D/b & setsid sh $D/b & done\n";
    static struct run_record r;
    char tasks[700];
    if (geteuid() != 0)
        return;
    (void)snprintf(tasks, sizeof tasks,
                   "  t: { exec: [/usr/bin/setpriv, --reuid=%d, --clear-groups, /usr/bin/prlimit,"
                   " --nproc=40, /bin/sh, -c, '%s'], timeout: 1s, env: {D: %s} }",
                   BOMBER, bombs[_i], folder);
    configure(tasks);
    run_begin(&r, "t", body, sizeof body - 1);
    pump_until(r.is_done, 20000);
    if (_i < 2) /* it never left its group */
        ck_assert(wait_until(processes_of(BOMBER) == 0, 10000));
    expect(run_shell("exit 0", "", ""), OUTCOME_DONE, ""); /* the others are served */
}
END_TEST

static void expect_no_bomber(void)
{
    remove_folder();
    ck_assert_uint_eq(processes_of(BOMBER), 0);
}

/* ---- programs that we may not kill ---- */

static bool is_nosuid(void)
{
    struct statvfs st;
    return statvfs(folder, &st) != 0 || (st.f_flag & ST_NOSUID) != 0;
}

/* A set-uid root program of an unprivileged dispatcher: it goes on, its slot is kept, and its end
 * is what counts. */
START_TEST(a_set_uid_program_is_waited_for)
{
    static struct run_record r;
    char tasks[512];
    char copy[128];
    make_folder();
    if (geteuid() != 0 || is_nosuid())
        return;
    (void)snprintf(copy, sizeof copy, "cp /usr/bin/setpriv %s/root && chmod 4755 %s/root", folder,
                   folder);
    fixture_open();
    ck_assert_int_eq(child_shell_run(copy, -1), 0);
    fixture_close();
    ck_assert_int_eq(setgroups(0, NULL), 0);
    ck_assert_int_eq(setresgid(65534, 65534, 65534), 0);
    ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
    command_fixture_open();
    (void)snprintf(tasks, sizeof tasks,
                   "  t: { exec: [%s/root, --reuid=0, --regid=0, --clear-groups, /bin/sh, -c,"
                   " ': > %s/up; while [ ! -e %s/go ]; do sleep 0.05; done'] }\n"
                   "  u: { exec: [/bin/true] }",
                   folder, folder, folder);
    configure(tasks);
    run_begin(&r, "t", "", 0);
    pump_until(access(path_in("up"), F_OK) == 0, 10000);
    executor->ops->stop(executor, &r.run, STOP_KILL);
    expect(run_task("u", ""), OUTCOME_DONE, ""); /* after it: the KILL was sent */
    ck_assert(!r.is_done);
    int fd = open(path_in("go"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
    pump_until(r.is_done, 10000);
    expect(&r, OUTCOME_DONE, "");
    run_fixture_close();
}
END_TEST

/* ---- 20,000 ordinary ones ---- */

static unsigned begun;
static unsigned over;

static void on_ordinary_done(struct run *run, const struct outcome *outcome)
{
    struct outcome refused;
    struct run_record *r = (struct run_record *)run;
    ck_assert_int_eq(outcome->kind, OUTCOME_DONE);
    over++;
    if (begun == JOBS)
        return;
    begun++;
    run_prepare(r, "t", "{\"n\": 1}", 8);
    r->run.on_done = on_ordinary_done;
    ck_assert_int_eq(run_start(&r->run, &refused), 0);
}

START_TEST(twenty_thousand_jobs_leave_no_descriptor_and_no_memory_behind)
{
    static struct run_record runs[AT_ONCE];
    struct outcome refused;
    configure("  t: { exec: [/bin/true], timeout: 100s }");
    for (size_t i = 0; i < AT_ONCE; i++) {
        begun++;
        run_prepare(&runs[i], "t", "{\"n\": 1}", 8);
        runs[i].run.on_done = on_ordinary_done;
        ck_assert_int_eq(run_start(&runs[i].run, &refused), 0);
    }
    pump_until(over >= WARM_UP, 100000);
    long ours = resident_kib(getpid());
    long theirs = resident_kib(fx.spawner.pid);
    pump_until(over == JOBS, 300000);
    ck_assert_int_le(resident_kib(getpid()) - ours, SLACK_KIB);
    ck_assert_int_le(resident_kib(fx.spawner.pid) - theirs, SLACK_KIB / 4);
    size_t fds = open_descriptors(getpid());
    size_t spawner_fds = open_descriptors(fx.spawner.pid);
    expect(run_shell("exit 0", "", ""), OUTCOME_DONE, "");
    ck_assert_uint_le(fds, 20);
    ck_assert_uint_le(spawner_fds, 8);
    ck_assert(!spawner_has_children());
}
END_TEST

static TCase *add_case(Suite *suite, const char *name, unsigned timeout_s)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, timeout_s);
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_checked_fixture(tc, command_fixture_open, run_fixture_close);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *suite = suite_create("hostile");
    TCase *tc = add_case(suite, "output", 120);
    tcase_add_test(tc, a_gigabyte_of_output_takes_no_memory);
    tcase_add_test(tc, a_burst_of_output_is_kept_whole);
    tc = add_case(suite, "grace", 60);
    tcase_add_test(tc, the_grace_is_that_of_the_whole_group);
    tcase_add_test(tc, a_group_that_ends_with_its_leader_is_over_at_once);
    tcase_add_test(tc, what_is_deaf_to_term_is_killed_after_the_leader);
    tcase_add_test(tc, a_kill_ends_what_outlived_its_leader);
    tc = tcase_create("bombs");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, make_folder, expect_no_bomber);
    tcase_add_checked_fixture(tc, command_fixture_open, run_fixture_close);
    tcase_add_loop_test(tc, a_fork_bomb_under_a_limit_leaves_nothing, 0, 3);
    suite_add_tcase(suite, tc);
    tc = tcase_create("set-uid");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_set_uid_program_is_waited_for);
    suite_add_tcase(suite, tc);
    tc = add_case(suite, "growth", 400);
    tcase_add_test(tc, twenty_thousand_jobs_leave_no_descriptor_and_no_memory_behind);
    return suite;
}
