/* `outbox wait` beside the real dispatcher. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "ck_main.h"
#include "daemon.h"
#include "pgcluster.h"

#define ck_command(r, code, text)                                                                  \
    do {                                                                                           \
        struct command_result r_ = (r);                                                            \
        ck_assert_msg(r_.exit_code == (code), "exit code %d, stderr: %s", r_.exit_code, r_.err);   \
        ck_assert_str_eq(r_.out, text);                                                            \
    } while (0)

START_TEST(it_ends_when_all_jobs_have_and_says_how)
{
    struct daemon d;
    const char *args[] = {"--shell", "good=true", "--shell", "bad=exit 65", NULL};
    daemon_start_ready(&d, args, NULL);
    testdb_exec("SELECT outbox.enqueue(t, delay => '300 ms', notify_done => n) FROM"
                " unnest('{good,bad}'::text[]) AS t, unnest('{t,f}'::boolean[]) AS n");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job WHERE task = 'bad' AND id > 2"),
                     2);
    ck_command(OUTBOX_RUN("wait", "3", "1", "4", "--timeout", "1m"), OB_EXIT_FAILED,
               "3: dead\n1: done\n4: dead\n");
    ck_command(OUTBOX_RUN("wait", "2", "1"), OB_EXIT_OK,
               "2: gone: done, or cancelled\n1: gone: done, or cancelled\n");
    ck_command(OUTBOX_RUN("wait", "--json", "1", "3"), OB_EXIT_FAILED,
               "[\n{\"id\": 1, \"state\": \"gone\"},\n{\"id\": 3, \"state\": \"dead\"}\n]\n");
    daemon_stop(&d);
}
END_TEST

START_TEST(a_retry_is_waited_out)
{
    struct daemon d;
    char text[512];
    (void)snprintf(text, sizeof text,
                   "tasks: {flaky: {backoff: 100ms, shell: 'test -e %s/once || { touch %s/once; "
                   "exit 1; }'}}\n",
                   test_dir(), test_dir());
    const char *args[] = {"--config", test_file("outbox.yaml", text, 0600), NULL};
    daemon_start_ready(&d, args, NULL);
    testdb_exec("SELECT outbox.enqueue('flaky', delay => '200 ms', notify_done => true)");
    ck_command(OUTBOX_RUN("wait", "1", "-t", "1m"), OB_EXIT_OK, "1: done\n");
    daemon_stop(&d);
}
END_TEST

START_TEST(when_the_time_is_up_it_exits_with_75)
{
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 3)");
    ck_command(OUTBOX_RUN("wait", "1", "--timeout", "0s"), OB_EXIT_TRY_AGAIN, "1: not ended\n");
    ck_command(OUTBOX_RUN("wait", "1", "--timeout", "50ms", "--json"), OB_EXIT_TRY_AGAIN,
               "[\n{\"id\": 1, \"state\": \"live\"}\n]\n");
    testdb_exec("SELECT outbox.cancel(2)");
    ck_command(OUTBOX_RUN("wait", "2", "1", "--timeout", "50ms"), OB_EXIT_TRY_AGAIN,
               "2: gone: done, or cancelled\n1: not ended\n");
    ck_command(OUTBOX_RUN("wait", "1", "99"), OB_EXIT_FAILED,
               "1: not ended\n99: there is no such job\n");
    ck_command(OUTBOX_RUN("wait", "x"), OB_EXIT_USAGE, "");
    ck_command(OUTBOX_RUN("wait", "1", "--timeout", "soon"), OB_EXIT_USAGE, "");
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_wait");
    TCase *tc = tcase_create("wait");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, it_ends_when_all_jobs_have_and_says_how);
    tcase_add_test(tc, a_retry_is_waited_out);
    tcase_add_test(tc, when_the_time_is_up_it_exits_with_75);
    suite_add_tcase(suite, tc);
    return suite;
}
