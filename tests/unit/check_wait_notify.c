/* What a wait makes of notifications and of states, without a server: which it believes, for which
 * jobs, and what it looks for then. */
#include <stdio.h>
#include <string.h>

#include "ck_main.h"
#include "outbox/consumer.h"

enum { JOBS = 5 };
static const int64_t ids[JOBS] = {17, 3, 900, 4, 1}; /* in no order */
static struct outbox_answer answers[JOBS];

static bool told(const char *channel, const char *text)
{
    char relname[32];
    char extra[64];
    PGnotify notify;
    memset(&notify, 0, sizeof notify);
    (void)snprintf(relname, sizeof relname, "%s", channel);
    (void)snprintf(extra, sizeof extra, "%s", text);
    notify.relname = relname;
    notify.extra = extra;
    return outbox_wait_notify(&notify, ids, answers, JOBS);
}

static void setup(void)
{
    memset(answers, 0, sizeof answers);
}

START_TEST(each_job_is_told_of_whatever_the_order_of_the_ids)
{
    char text[32];
    for (int i = 0; i < JOBS; i++) {
        (void)snprintf(text, sizeof text, "%lld done", (long long)ids[i]);
        ck_assert(told("outbox_done", text));
        ck_assert_int_eq(answers[i].told, OUTBOX_DONE);
        ck_assert_int_eq(answers[i].state, OUTBOX_LIVE); /* until it was looked for */
    }
}
END_TEST

START_TEST(what_is_no_end_of_a_job_of_ours_is_not_believed)
{
    static const char *const texts[] = {"2 done", "17",      "17 running", "17 ready",
                                        "17done", "done",    "",           "17  done",
                                        "0 done", "-3 done", "seven done", "17 DONE"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        ck_assert_msg(!told("outbox_done", texts[i]), "%s", texts[i]);
    ck_assert(!told("outbox", "17 done"));
    ck_assert(!told("outbox_dead", "17 done"));
    for (int i = 0; i < JOBS; i++)
        ck_assert_int_eq(answers[i].told, OUTBOX_LIVE);
    answers[0].state = OUTBOX_DEAD;
    ck_assert(!told("outbox_done", "17 done"));
}
END_TEST

/* The answer of outbox.states for those that are asked for. */
static PGresult *states(const char *const *names, int count)
{
    static char name[] = "state";
    PGresAttDesc column;
    memset(&column, 0, sizeof column);
    column.name = name;
    PGresult *res = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    ck_assert_int_eq(PQsetResultAttrs(res, 1, &column), 1);
    for (int i = 0; i < count; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%s", names[i]);
        ck_assert_int_eq(PQsetvalue(res, i, 0, value, (int)strlen(value)), 1);
    }
    return res;
}

static int asked_for(bool only_told)
{
    struct outbox_query q;
    int asked = 0;
    ck_assert_int_eq(outbox_wait_query_init(&q, ids, answers, JOBS, only_told, NULL), OUTBOX_OK);
    for (int i = 0; i < JOBS; i++)
        asked += answers[i].is_asked;
    ck_assert_int_eq(q.sql != NULL, asked > 0);
    outbox_query_free(&q);
    return asked;
}

START_TEST(a_row_that_has_left_ended_as_was_told)
{
    static const char *const gone[] = {"gone", "gone", "gone", "gone", "ready"};
    size_t left = 99;
    ck_assert(told("outbox_done", "17 cancelled"));
    ck_assert(told("outbox_done", "3 merged"));
    ck_assert(told("outbox_done", "900 dead")); /* which leaves a row: a lie */
    ck_assert(told("outbox_done", "1 done"));   /* another one */
    ck_assert_int_eq(asked_for(false), JOBS);
    PGresult *res = states(gone, JOBS);
    ck_assert_int_eq(outbox_wait_query_result(res, answers, JOBS, &left, NULL), OUTBOX_OK);
    PQclear(res);
    static const enum outbox_state expected[JOBS] = {OUTBOX_CANCELLED, OUTBOX_MERGED, OUTBOX_GONE,
                                                     OUTBOX_GONE, OUTBOX_LIVE};
    for (int i = 0; i < JOBS; i++)
        ck_assert_int_eq(answers[i].state, expected[i]);
    ck_assert_uint_eq(left, 1);
}
END_TEST

START_TEST(only_those_told_of_are_asked_for_and_only_once)
{
    static const char *const live[] = {"running", "running"};
    ck_assert(told("outbox_done", "3 done"));
    ck_assert(told("outbox_done", "1 done"));
    ck_assert_int_eq(asked_for(true), 2);
    PGresult *res = states(live, 2);
    ck_assert_int_eq(outbox_wait_query_result(res, answers, JOBS, NULL, NULL), OUTBOX_OK);
    PQclear(res);
    ck_assert_int_eq(asked_for(true), 0); /* it was a lie: they live */
    ck_assert_int_eq(asked_for(false), JOBS);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("wait_notify");
    TCase *tc = tcase_create("notifications");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, each_job_is_told_of_whatever_the_order_of_the_ids);
    tcase_add_test(tc, what_is_no_end_of_a_job_of_ours_is_not_believed);
    tcase_add_test(tc, a_row_that_has_left_ended_as_was_told);
    tcase_add_test(tc, only_those_told_of_are_asked_for_and_only_once);
    suite_add_tcase(s, tc);
    return s;
}
