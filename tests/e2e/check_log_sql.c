/* log_sql: what the dispatcher sends to the server, in its log, without what is secret. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "pgcluster.h"
#include "wait.h"

static struct daemon d;

START_TEST(statements_of_both_connections_are_logged_and_no_payload)
{
    const char *const args[] = {"--log-sql", "--shell", recording("mail", "exit 1"), NULL};
    daemon_start_ready(&d, args, NULL);
    daemon_expect_log(&d, "event=sql connection=heartbeat statement=", E2E_WAIT_MS);
    daemon_expect_log(&d, "event=sql connection=work statement=outbox.register outcome=ok us=", 0);
    testdb_exec("SELECT outbox.enqueue('mail', '{\"card\": \"4111-1111\"}', headers =>"
                " '{\"h\": \"hush-hush\"}')");
    daemon_expect_log(&d, "statement=outbox.look outcome=ok", E2E_WAIT_MS);
    daemon_expect_log(&d, "statement=outbox.settle outcome=ok", E2E_WAIT_MS);
    daemon_expect_log(&d, "event=sql connection=work statement=COMMIT outcome=ok", 0);
    ck_assert_uint_eq(daemon_log_count(&d, "4111"), 0);
    ck_assert_uint_eq(daemon_log_count(&d, "hush"), 0);
    daemon_stop(&d);
}
END_TEST

START_TEST(a_refused_statement_is_logged_with_its_sqlstate)
{
    const char *const args[] = {"--log-sql", "--shell", recording("mail", ""), NULL};
    daemon_start_ready(&d, args, NULL);
    testdb_exec("ALTER FUNCTION outbox.orders(bigint) RENAME TO orders_away");
    testdb_exec("NOTIFY outbox, 'control'");
    daemon_expect_log(&d, "event=sql connection=heartbeat statement=outbox.orders outcome=refused",
                      E2E_WAIT_MS);
    daemon_expect_log(&d, "sqlstate=42883", 0);
    testdb_exec("ALTER FUNCTION outbox.orders_away(bigint) RENAME TO orders");
    daemon_stop(&d);
}
END_TEST

START_TEST(it_is_off_and_a_reload_turns_it_on_and_off)
{
    const char *config = e2e_config("tasks:\n  mail: {shell: 'true'}\n");
    const char *const args[] = {"--config", config, NULL};
    daemon_start_ready(&d, args, NULL);
    enqueue_one("mail", "{}");
    wait_until_all_done();
    ck_assert_uint_eq(daemon_log_count(&d, "event=sql"), 0);
    (void)e2e_config("log_sql: true\nlog_format: json\ntasks:\n  mail: {shell: 'true'}\n");
    daemon_kill(&d, SIGHUP);
    enqueue_one("mail", "{}");
    daemon_expect_log(&d, "\"event\":\"sql\",\"connection\":\"work\",\"statement\":\"outbox.look\"",
                      E2E_WAIT_MS);
    (void)e2e_config("tasks:\n  mail: {shell: 'true'}\n");
    daemon_kill(&d, SIGHUP);
    daemon_expect_log(&d, "event=reloaded", E2E_WAIT_MS);
    enqueue_one("mail", "{}");
    wait_until_all_done();
    ck_assert_uint_eq(daemon_log_count(&d, "event=sql"), 0); /* in this format: none since */
    daemon_stop(&d);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("log_sql");
    TCase *tc = tcase_create("log_sql");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, statements_of_both_connections_are_logged_and_no_payload);
    tcase_add_test(tc, a_refused_statement_is_logged_with_its_sqlstate);
    tcase_add_test(tc, it_is_off_and_a_reload_turns_it_on_and_off);
    return suite;
}
