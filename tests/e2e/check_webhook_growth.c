/* check_webhook_growth.c - what twenty thousand webhooks leave behind in the daemon: no descriptor,
 * no memory. The server answers well and badly, keeps connections and breaks them. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "e2e.h"
#include "httpstub.h"
#include "pgcluster.h"
#include "wait.h"

enum { WARM_UP = 4000, JOBS = 20000, SCRIPT = 2000, GROWTH_KIB_MAX = 1024 };

static struct daemon d;

static size_t descriptors(void)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)d.pid);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count;
}

static long anonymous_kib(void)
{
    char path[64];
    long kib = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)d.pid);
    char line[256];
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (kib < 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0)
            kib = strtol(line + 8, NULL, 10);
    }
    (void)fclose(file);
    ck_assert_int_gt(kib, 0);
    return kib;
}

START_TEST(twenty_thousand_webhooks_leave_nothing_behind)
{
    static struct httpstub_answer answers[SCRIPT];
    struct httpstub stub;
    for (size_t i = 0; i < SCRIPT; i++) {
        answers[i] = (struct httpstub_answer){.status = 204};
        if (i % 50 == 7)
            answers[i] = (struct httpstub_answer){.status = 200, .body = "ok", .close_after = 1};
        if (i % 50 == 19)
            answers[i] = (struct httpstub_answer){.status = 500, .body = "no"};
        if (i % 50 == 33)
            answers[i] = (struct httpstub_answer){.status = 0, .reset = 1};
    }
    httpstub_start(&stub, answers, SCRIPT);
    const char *config = e2e_config(
        "tasks: {a: {webhook: \"http://127.0.0.1:%d/\", concurrency: 50, backoff: 0, breaker: off, "
        "secret_file: %s}}\n",
        stub.port, test_file("a.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0600));
    daemon_start_ready(&d, (const char *const[]){"--config", config, NULL}, NULL);
    enqueue_jobs("a", WARM_UP);
    wait_until_all_done();
    size_t fds_before = descriptors();
    long kib_before = anonymous_kib();
    for (int i = 0; i < 5; i++) {
        enqueue_jobs("a", JOBS / 5);
        wait_until_all_done();
        if (i == 2) { /* transfers, pool and credentials are made anew */
            daemon_kill(&d, SIGHUP);
            daemon_expect_log(&d, "event=reloaded", E2E_WAIT_MS);
        }
    }
    ck_assert_uint_ge(httpstub_requests(&stub), WARM_UP + JOBS);
    /* As many connections as may be kept, whatever happened to the others. */
    ck_assert_uint_le(descriptors(), fds_before + 50);
#ifndef __SANITIZE_ADDRESS__
    ck_assert_int_le(anonymous_kib() - kib_before, GROWTH_KIB_MAX);
#else
    ck_assert_int_gt(kib_before, 0);
#endif
    daemon_stop(&d);
    httpstub_stop(&stub);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook growth");
    TCase *tc = tcase_create("daemon");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_add_test(tc, twenty_thousand_webhooks_leave_nothing_behind);
    suite_add_tcase(s, tc);
    return s;
}
