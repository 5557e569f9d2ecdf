/* Dead jobs by command: found by what they died of and when, retried, purged. */
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
#define LIVE "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM outbox.job"
#define DEAD "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM outbox.dead"

/* Twelve jobs of a and b in turn: 1 to 8 dead, each an hour longer than the next; 9 to 12 live. The
 * reasons are HTTP 503 and exit 65, in turn by pairs. */
static void make_dead(void)
{
    testdb_exec(
        "SELECT outbox.register(1, 'one', 'h', 'b', 'l', 1, '{}', '1', '{a,b}', '1 minute');"
        "SELECT outbox.enqueue(CASE WHEN n % 2 = 0 THEN 'b' ELSE 'a' END) FROM"
        " generate_series(1, 8) n");
    testdb_exec("SELECT outbox.settle(1, ARRAY[id], ARRAY[claim], jsonb_build_array("
                "jsonb_build_object('outcome', 'dead', 'reason', CASE WHEN (id - 1) / 2 % 2 = 0"
                " THEN 'HTTP 503' ELSE 'exit 65' END)))"
                " FROM outbox.claim(1, 1, '{a,b}', '{9,9}')");
    testdb_exec("UPDATE outbox.dead SET finished_at = clock_timestamp() -"
                " (9 - id) * interval '1 hour' + interval '1 minute'");
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 4)");
}

/* The ids that `outbox jobs ARGS` lists, newest first. */
static const char *listed(const char *const *args)
{
    static char ids[256];
    struct command_result r = run_outbox(NULL, args);
    ck_assert_msg(r.exit_code == 0, "exit code %d, stderr: %s", r.exit_code, r.err);
    size_t len = 0;
    ids[0] = '\0';
    for (char *line = strchr(r.out, '\n'); line != NULL && line[1] != '\0';
         line = strchr(line + 1, '\n'))
        len += (size_t)snprintf(ids + len, sizeof ids - len, "%s%ld", len > 0 ? "," : "",
                                strtol(line + 1, NULL, 10));
    return ids;
}
#define LISTED(expected, ...)                                                                      \
    ck_assert_str_eq(listed((const char *const[]){"jobs", __VA_ARGS__, NULL}), expected)

START_TEST(dead_jobs_are_listed_by_error_and_age)
{
    make_dead();
    LISTED("8,7,6,5,4,3,2,1", "--state", "dead");
    LISTED("6,5,2,1", "--error", "http 5");
    LISTED("5,1", "--error", "503", "-t", "a");
    LISTED("4,3,2,1", "--older-than", "4h");
    LISTED("8,7", "--newer-than", "2h");
    LISTED("6,5", "--older-than", "2h", "--newer-than", "4h", "--state", "dead");
    LISTED("", "--error", "503%");
    ck_command(OUTBOX_RUN("jobs", "--count", "--error", "exit", "--json"), 0,
               "{\"count\": 4, \"estimated\": false}\n");
    ck_command(OUTBOX_RUN("jobs", "--error", ""), OB_EXIT_USAGE, "");
    ck_command(OUTBOX_RUN("jobs", "--older-than", "x"), OB_EXIT_USAGE, "");
}
END_TEST

START_TEST(dead_jobs_are_retried_by_error_and_age)
{
    make_dead();
    ck_command(OUTBOX_RUN("retry", "--error", "503"), OB_EXIT_USAGE, "");
    ck_command(OUTBOX_RUN("retry", "1", "--older-than", "1h"), OB_EXIT_USAGE, "");
    ck_command(OUTBOX_RUN("retry", "--all", "--error", "HTTP 503", "--newer-than", "4h"), 0,
               "2 retried\n");
    ck_assert_str_eq(testdb_value(LIVE), "5,6,9,10,11,12");
    ck_command(OUTBOX_RUN("retry", "--all", "--older-than", "6h", "--task", "b", "--json"), 0,
               "{\"retried\": 1}\n");
    ck_assert_str_eq(testdb_value(DEAD), "1,3,4,7,8");
    ck_command(OUTBOX_RUN("retry", "--all"), 0, "5 retried\n");
    ck_assert_str_eq(testdb_value(DEAD), "");
}
END_TEST

START_TEST(purging_removes_what_is_old_and_no_more)
{
    make_dead();
    ck_command(OUTBOX_RUN("purge", "dead", "--older-than", "5h", "--dry-run"), 0,
               "3 would be removed\n");
    ck_assert_str_eq(testdb_value(DEAD), "1,2,3,4,5,6,7,8");
    ck_command(OUTBOX_RUN("purge", "dead", "--older-than", "5h", "-t", "b"), 0, "1 removed\n");
    ck_assert_str_eq(testdb_value(DEAD), "1,3,4,5,6,7,8");
    ck_command(OUTBOX_RUN("purge", "dead", "-o", "3h", "--json"), 0, "{\"removed\": 4}\n");
    ck_assert_str_eq(testdb_value(DEAD), "6,7,8");
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempt"), 3);
    testdb_exec("UPDATE outbox.attempt SET started_at = clock_timestamp() - (9 - job_id) *"
                " interval '1 hour'");
    ck_command(OUTBOX_RUN("purge", "attempts", "--older-than", "90m", "--dry-run", "--json"), 0,
               "{\"would_remove\": 2}\n");
    ck_command(OUTBOX_RUN("purge", "attempts", "--older-than", "90m"), 0, "2 removed\n");
    ck_assert_int_eq(testdb_long("SELECT job_id FROM outbox.attempt"), 8);
    ck_assert_str_eq(testdb_value(DEAD), "6,7,8");
    ck_command(OUTBOX_RUN("purge", "dead", "--older-than", "0s"), 0, "3 removed\n");
    ck_assert_str_eq(testdb_value(LIVE), "9,10,11,12");
}
END_TEST

START_TEST(purging_goes_on_after_a_batch_and_passes_over_what_is_held)
{
    testdb_exec("INSERT INTO outbox.done (id, created_at, finished_at, attempts, lost, priority,"
                " logged, task, encoding, payload) SELECT n, now(), now() - interval '1 day', 1, 0,"
                " 2, false, 't' || n % 3, 'json', '{}' FROM generate_series(1, 2500) n");
    PGconn *holder = testdb_connect();
    pg_exec_ok(holder, "BEGIN; SELECT FROM outbox.done WHERE id IN (7, 8) FOR UPDATE");
    ck_command(OUTBOX_RUN("purge", "done", "--older-than", "1h"), 0, "2498 removed\n");
    PQfinish(holder);
    ck_command(OUTBOX_RUN("purge", "done", "--older-than", "2d"), 0, "0 removed\n");
    ck_command(OUTBOX_RUN("purge", "done", "--older-than", "1h"), 0, "2 removed\n");
}
END_TEST

static const char *const wrong[][6] = {{"purge"},
                                       {"purge", "dead"},
                                       {"purge", "ready", "--older-than", "1d"},
                                       {"purge", "dead", "--older-than", "1 day"},
                                       {"purge", "dead", "--older-than", "1d", "--task", "a b"},
                                       {"purge", "attempts", "--older-than=1d", "--task", "a"}};

START_TEST(what_is_not_said_clearly_is_not_purged)
{
    make_dead();
    ck_command(run_outbox(NULL, wrong[_i]), OB_EXIT_USAGE, "");
    ck_assert_str_eq(testdb_value(DEAD), "1,2,3,4,5,6,7,8");
}
END_TEST

/* A state that only dead and done jobs have is looked for without the live ones. */
START_TEST(looking_for_dead_jobs_reads_no_live_ones)
{
    make_dead();
    testdb_exec("SELECT outbox.enqueue('a') FROM generate_series(1, 2000)");
    testdb_exec("SELECT pg_stat_reset()");
    const char *reads = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
                        " WHERE relid = 'outbox.job'::regclass";
    LISTED("6,5,2,1", "--error", "503");
    LISTED("8,7,6,5,4,3,2,1", "--state", "dead");
    testdb_exec("SELECT pg_stat_clear_snapshot()");
    ck_assert_int_lt(testdb_long(reads), 100);
}
END_TEST

START_TEST(counts_of_large_queues_are_marked_as_estimates)
{
    testdb_exec(
        "INSERT INTO outbox.job (ready_xid, created_at, task, encoding, payload) SELECT"
        " pg_current_xact_id(), now(), 'big', 'json', '{}' FROM generate_series(1, 150000)");
    testdb_exec("ANALYZE outbox.job; SELECT outbox.enqueue('small')");
    struct command_result r = OUTBOX_RUN("stats");
    ck_assert_msg(strstr(r.out, " ~1") != NULL, "%s", r.out);
    ck_assert_msg(strstr(r.out, "small  ready        1 ") != NULL, "%s", r.out);
    r = OUTBOX_RUN("stats", "--exact");
    ck_assert_msg(strstr(r.out, " 150000 ") != NULL && strchr(r.out, '~') == NULL, "%s", r.out);
    r = OUTBOX_RUN("stats", "--json");
    ck_assert_msg(strstr(r.out, "\"estimated\": true") != NULL, "%s", r.out);
    ck_assert_msg(strstr(r.out, "\"count\": 1, \"estimated\": false") != NULL, "%s", r.out);
    r = OUTBOX_RUN("jobs", "--count");
    ck_assert_msg(strncmp(r.out, "~1", 2) == 0, "%s", r.out);
    r = OUTBOX_RUN("jobs", "--count", "--json", "--after", "2020-01-01");
    ck_assert_msg(strstr(r.out, ", \"estimated\": true}") != NULL, "%s", r.out);
    ck_command(OUTBOX_RUN("jobs", "--count", "--exact"), 0, "150001\n");
    ck_command(OUTBOX_RUN("jobs", "--count", "--exact", "--json"), 0,
               "{\"count\": 150001, \"estimated\": false}\n");
    ck_command(OUTBOX_RUN("jobs", "--count", "--task", "small"), 0, "1\n");
    ck_command(OUTBOX_RUN("jobs", "--count", "--key", "none"), 0, "0\n");
    ck_command(OUTBOX_RUN("jobs", "--exact"), OB_EXIT_USAGE, "");
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("cli_dead");
    TCase *tc = tcase_create("dead jobs");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, dead_jobs_are_listed_by_error_and_age);
    tcase_add_test(tc, dead_jobs_are_retried_by_error_and_age);
    tcase_add_test(tc, purging_removes_what_is_old_and_no_more);
    tcase_add_test(tc, purging_goes_on_after_a_batch_and_passes_over_what_is_held);
    tcase_add_loop_test(tc, what_is_not_said_clearly_is_not_purged, 0,
                        sizeof wrong / sizeof wrong[0]);
    tcase_add_test(tc, looking_for_dead_jobs_reads_no_live_ones);
    tcase_add_test(tc, counts_of_large_queues_are_marked_as_estimates);
    suite_add_tcase(suite, tc);
    return suite;
}
