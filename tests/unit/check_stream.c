/* check_stream.c - where the dispatcher stands: position, pending transactions, rows to revisit,
 * times of scheduled jobs, the slow check. Looks are what outbox.look() would answer, as JSON. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ck_main.h"
#include "core/stream.h"

enum { FIRST = 1000, MS = 1000 };

static struct stream stream;
static uint64_t now_ms = 1000000; /* our own clock */

static void begin(void)
{
    stream_init(&stream);
}

static void end(void)
{
    stream_deinit(&stream);
}

static struct store_look asked;

/* The next look, as it would be sent. Its lists are freed, as the store does. */
static void ask(void)
{
    memset(&asked, 0, sizeof asked);
    stream_ask(&stream, &asked, 0);
}

static void sent(void)
{
    ob_free(asked.pending_xids);
    ob_free(asked.pending_ids);
    asked.pending_xids = NULL;
    asked.pending_ids = NULL;
}

/* The look's answer; of the jobs tried, those with these claim numbers were obtained. */
static void answer(const char *json, const int64_t *ids, size_t n)
{
    struct seen *seen = seen_parse(json, strlen(json));
    ck_assert_msg(seen != NULL, "%s", json);
    struct batch *claimed = ob_xcalloc(1, sizeof *claimed + n * sizeof claimed->jobs[0]);
    for (size_t i = 0; i < n; i++)
        claimed->jobs[i].job.id = ids[i];
    claimed->count = n;
    stream_learn(&stream, seen, claimed, now_ms);
    ob_free(claimed);
    seen_free(seen);
}

__attribute__((format(printf, 1, 2))) static void look(const char *format, ...)
{
    static char json[200000];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(json, sizeof json, format, args);
    va_end(args);
    ask();
    sent();
    answer(json, NULL, 0);
}

/* "xid:id xid:id" of the next look's pending list. Static storage. */
static const char *pending(void)
{
    static char text[400];
    size_t len = 0;
    ask();
    text[0] = '\0';
    for (size_t i = 0; i < asked.pending_count; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%" PRIu64 ":%" PRId64,
                                i > 0 ? " " : "", asked.pending_xids[i], asked.pending_ids[i]);
    sent();
    return text;
}

/* The ids of the next look's revisit list. Static storage. */
static const char *revisits(void)
{
    static char text[400];
    size_t len = 0;
    ask();
    text[0] = '\0';
    for (size_t i = 0; i < asked.revisit_count && i < 40; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%" PRId64, i > 0 ? " " : "",
                                asked.revisit[i]);
    sent();
    return text;
}

static int64_t due_from(void)
{
    ask();
    sent();
    if (asked.due_from_us == INT64_MIN)
        return INT64_MIN;
    return asked.due_from_us + 100 * MS; /* as far as a step of the clock may go unseen */
}

/* ---- position ---- */

static void ck_fresh(void)
{
    ask();
    sent();
    ck_assert(!asked.has_position);
    ck_assert_uint_eq(asked.pending_count, 0);
    ck_assert_uint_eq(asked.revisit_count, 0);
    ck_assert_uint_eq(asked.older, 0);
    ck_assert_int_eq(asked.due_from_us, INT64_MIN);
}

START_TEST(first_look_has_no_position_and_looks_at_all_that_is_scheduled)
{
    ck_fresh();
}
END_TEST

START_TEST(position_is_what_the_last_look_said)
{
    look("{\"position\": 700, \"position_id\": 12, \"full\": true}");
    ask();
    sent();
    ck_assert(asked.has_position);
    ck_assert_uint_eq(asked.position_xid, 700);
    ck_assert_int_eq(asked.position_id, 12);
    ck_assert(stream.is_full);
    look("{\"position\": 800, \"position_id\": 9223372036854775807}");
    ask();
    sent();
    ck_assert_uint_eq(asked.position_xid, 800);
    ck_assert_int_eq(asked.position_id, INT64_MAX);
    ck_assert(!stream.is_full);
}
END_TEST

/* Nothing that was known on a connection is true on another: xids may have gone back. */
START_TEST(other_connection_knows_nothing)
{
    look("{\"position\": 700, \"position_id\": 1, \"full\": true, \"pending\": [690],"
         " \"missed\": [5], \"xmax\": 701, \"now\": 1000000, \"next_due\": 2000000}");
    now_ms += 1000;
    look("{\"position\": 710, \"position_id\": 1, \"xid\": 711, \"cut\": 711, \"xmax\": 712,"
         " \"now\": 2000000, \"missed\": [6]}");
    stream_begin_sweep(&stream);
    stream_reset(&stream);
    ck_fresh();
    ck_assert(!stream.is_full);
    ck_assert(!stream.is_sweeping);
    ck_assert(!stream_is_uneasy(&stream));
    ck_assert_int_eq(stream.next_due_us, INT64_MAX);
    /* Also the server's clock: another server's may be behind. */
    stream_note_xid(&stream, 5);
    ck_assert_uint_eq(stream.samples_count, 0);
}
END_TEST

/* ---- pending transactions ---- */

START_TEST(pending_transaction_is_asked_for_until_it_has_ended_and_is_read)
{
    look("{\"position\": 700, \"position_id\": 1, \"pending\": [600, 650]}");
    ck_assert_str_eq(pending(), "600:0 650:0");
    look("{\"position\": 700, \"position_id\": 1}"); /* both still run */
    ck_assert_str_eq(pending(), "600:0 650:0");
    look("{\"position\": 710, \"position_id\": 1, \"partial\": [[650, 77]], \"pending\": [705]}");
    ck_assert_str_eq(pending(), "600:0 650:77 705:0");
    look("{\"position\": 710, \"position_id\": 1, \"partial\": [[650, 99]], \"ended\": [600]}");
    ck_assert_str_eq(pending(), "650:99 705:0"); /* in the order of their xids */
    look("{\"position\": 710, \"position_id\": 1, \"ended\": [650, 705]}");
    ck_assert_str_eq(pending(), "");
}
END_TEST

START_TEST(pending_list_is_as_long_as_it_must_be)
{
    enum { COUNT = 300 };
    char json[COUNT * 8 + 100];
    size_t len = (size_t)snprintf(json, sizeof json, "{\"position\": 9000, \"pending\": [");
    for (int i = 0; i < COUNT; i++)
        len += (size_t)snprintf(json + len, sizeof json - len, "%s%d", i > 0 ? "," : "", 1000 + i);
    (void)snprintf(json + len, sizeof json - len, "]}");
    look("%s", json);
    ask();
    ck_assert_uint_eq(asked.pending_count, COUNT);
    for (int i = 0; i < COUNT; i++)
        ck_assert_uint_eq(asked.pending_xids[i], (uint64_t)(1000 + i));
    sent();
}
END_TEST

START_TEST(answer_about_an_unknown_transaction_is_passed_over)
{
    look("{\"position\": 700, \"pending\": [600]}");
    look("{\"position\": 700, \"ended\": [601], \"partial\": [[602, 1]]}");
    ck_assert_str_eq(pending(), "600:0");
}
END_TEST

/* It holds the position back for a moment, then no longer. */
START_TEST(older_transactions_are_those_of_twenty_milliseconds_ago)
{
    look("{\"position\": 700, \"xmax\": 710}");
    ask();
    sent();
    ck_assert_uint_eq(asked.older, 0);
    now_ms += 19;
    look("{\"position\": 700, \"xmax\": 720}"); /* too soon */
    now_ms += 1;
    look("{\"position\": 700, \"xmax\": 730}");
    ask();
    sent();
    ck_assert_uint_eq(asked.older, 710);
    now_ms += 10;
    look("{\"position\": 700, \"xmax\": 740}");
    ask();
    sent();
    ck_assert_uint_eq(asked.older, 710);
    now_ms += 500;
    look("{\"position\": 700, \"xmax\": 750}");
    ask();
    sent();
    ck_assert_uint_eq(asked.older, 730);
}
END_TEST

/* ---- rows to revisit ---- */

/* Those that came are ours, the others are revisited. */
START_TEST(rows_that_were_not_obtained_are_revisited)
{
    static const int64_t came[] = {30, 50, 60};
    look("{\"position\": 1}");
    ck_assert(!stream_is_uneasy(&stream));
    ask();
    sent();
    answer("{\"position\": 1, \"missed\": [50, 40, 60, 30]}", came, 2);
    ck_assert_str_eq(revisits(), "40 60");
    ck_assert(stream_is_uneasy(&stream));
    ask();
    sent();
    answer("{\"position\": 1, \"missed\": [60, 40]}", came + 2, 1);
    ck_assert_str_eq(revisits(), "40");
    look("{\"position\": 1}"); /* gone, owned, or obtained */
    ck_assert_str_eq(revisits(), "");
    ck_assert(!stream_is_uneasy(&stream));
}
END_TEST

START_TEST(nothing_is_revisited_when_all_came)
{
    static const int64_t came[] = {FIRST, FIRST + 1};
    ask();
    sent();
    answer("{\"position\": 1}", came, 2);
    ck_assert_str_eq(revisits(), "");
}
END_TEST

/* What was not tried proves nothing of what was. */
START_TEST(jobs_that_were_not_tried_are_not_taken_for_answers)
{
    static const int64_t came[] = {1, 9, INT64_MAX, 0};
    ask();
    sent();
    answer("{\"position\": 1, \"missed\": [7, 8]}", came, 4);
    ck_assert_str_eq(revisits(), "7 8");
}
END_TEST

static void miss(int from, int count)
{
    static char json[100000];
    size_t len = (size_t)snprintf(json, sizeof json,
                                  "{\"position\": 900, \"position_id\": 3, \"missed\": [");
    for (int i = 0; i < count; i++)
        len += (size_t)snprintf(json + len, sizeof json - len, "%s%d", i > 0 ? "," : "", from + i);
    (void)snprintf(json + len, sizeof json - len, "]}");
    answer(json, NULL, 0);
}

/* A look asks for the first 200; the others keep their place before those missed again. */
START_TEST(long_revisit_list_is_asked_for_in_turns)
{
    look("{\"position\": 900}");
    ask();
    sent();
    miss(1, 450);
    ask();
    sent();
    ck_assert_uint_eq(asked.revisit_count, 200);
    ck_assert_int_eq(asked.revisit[0], 1);
    ck_assert_int_eq(asked.revisit[199], 200);
    miss(7, 1); /* and 199 of them were not missed again */
    ask();
    sent();
    ck_assert_uint_eq(asked.revisit_count, 200);
    ck_assert_int_eq(asked.revisit[0], 201);
    miss(1000, 0);
    ask();
    sent();
    ck_assert_uint_eq(asked.revisit_count, 51);
    ck_assert_int_eq(asked.revisit[0], 401);
    ck_assert_int_eq(asked.revisit[50], 7);
}
END_TEST

/* A look that failed has answered nothing. */
START_TEST(revisits_of_a_failed_look_are_asked_for_again)
{
    look("{\"position\": 900, \"missed\": [1, 2, 3]}");
    ask();
    sent();
    ck_assert_str_eq(revisits(), "1 2 3");
    look("{\"position\": 900}");
    ck_assert_str_eq(revisits(), "");
}
END_TEST

/* What does not fit is behind the position: the slow check begins from the beginning for it. */
START_TEST(overfull_revisit_list_is_left_to_the_slow_check)
{
    struct store_sweep sweep = {0};
    look("{\"position\": 900, \"position_id\": 3}");
    ask();
    sent();
    miss(1, 4096);
    stream_ask_sweep(&stream, &sweep);
    ck_assert_uint_eq(sweep.from_xid, 900);
    ck_assert_uint_eq(stream.revisit_count, 4096);
    ask();
    sent();
    miss(5000, 201);
    ck_assert_uint_eq(stream.revisit_count, 4096);
    stream_ask_sweep(&stream, &sweep);
    ck_assert_uint_eq(sweep.from_xid, 0);
    ck_assert_int_eq(sweep.from_id, 0);
}
END_TEST

/* ---- scheduled jobs ---- */

/* Samples: our transaction 720 began after the look of 1000 ms. Once everything below it has ended,
 * whoever comes began later, and so do its jobs. */
START_TEST(scheduled_jobs_are_looked_for_from_what_all_transactions_have_passed)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 700, \"cut\": 701, \"now\": %d, \"xid\": 720}", 1100 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN); /* 701 and others may go on */
    look("{\"position\": 718, \"cut\": 719, \"now\": %d}", 1200 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 719, \"cut\": 720, \"now\": %d}", 1300 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
    look("{\"position\": 719, \"cut\": 720, \"now\": %d}", 1400 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS); /* without a transaction of ours, nothing is learnt */
    stream_note_xid(&stream, 740);           /* on going to sleep: after the look of 1400 ms */
    look("{\"position\": 740, \"cut\": 741, \"now\": %d}", 1500 * MS);
    ck_assert_int_eq(due_from(), 1400 * MS);
}
END_TEST

START_TEST(transaction_before_the_first_look_proves_nothing)
{
    stream_note_xid(&stream, 500);
    look("{\"position\": 700, \"cut\": 701, \"now\": %d, \"xid\": 700}", 1000 * MS);
    look("{\"position\": 800, \"cut\": 801, \"now\": %d}", 1100 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN);
}
END_TEST

/* A few samples are enough for any number of looks: the oldest, and some in between. */
START_TEST(samples_thin_out_while_a_transaction_holds_everything_back)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    for (int i = 1; i <= 1000; i++) {
        look("{\"position\": 700, \"cut\": 701, \"now\": %d, \"xid\": %d}", (1000 + 25 * i) * MS,
             710 + i);
        ck_assert_uint_le(stream.samples_count, STREAM_SAMPLES);
        for (size_t k = 1; k < stream.samples_count; k++) {
            ck_assert_uint_lt(stream.samples[k - 1].xid, stream.samples[k].xid);
            ck_assert_int_lt(stream.samples[k - 1].at_us, stream.samples[k].at_us);
        }
    }
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 1709, \"cut\": 1710, \"now\": %d}", 27000 * MS);
    ck_assert_int_gt(due_from(), 13000 * MS); /* one of the later half */
    ck_assert_int_le(due_from(), 25975 * MS); /* before transaction 1710 began */
}
END_TEST

/* More looks than samples are worth: one in twenty milliseconds. */
START_TEST(samples_are_not_taken_at_every_look)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    for (int i = 1; i <= 20; i++)
        look("{\"position\": 700, \"cut\": 701, \"now\": %d, \"xid\": %d}", (1000 + i) * MS,
             710 + i);
    ck_assert_uint_eq(stream.samples_count, 1);
    look("{\"position\": 700, \"cut\": 701, \"now\": %d, \"xid\": 800}", 1100 * MS);
    ck_assert_uint_eq(stream.samples_count, 2);
}
END_TEST

START_TEST(next_due_is_told)
{
    look("{\"position\": 700, \"now\": %d, \"next_due\": %d}", 1000 * MS, 1500 * MS);
    ck_assert_int_eq(stream.next_due_us, 1500 * MS);
    ck_assert_int_eq(stream.now_us, 1000 * MS);
    look("{\"position\": 700, \"now\": %d}", 1600 * MS);
    ck_assert_int_eq(stream.next_due_us, INT64_MAX);
}
END_TEST

/* Due, and somebody holds it locked (or there were more than one look moves): it is not passed. */
START_TEST(due_job_that_is_left_is_looked_for_again)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 720, \"next_due\": %d}",
         2000 * MS, 900 * MS);
    ck_assert_int_eq(due_from(), 900 * MS);
    look("{\"position\": 730, \"cut\": 731, \"now\": %d, \"next_due\": %d}", 3000 * MS, 900 * MS);
    ck_assert_int_eq(due_from(), 900 * MS);
}
END_TEST

/* The position is below the cut: those between them that still run are not on the list yet. */
START_TEST(full_look_has_passed_no_more_than_it_has_read)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 705, \"cut\": 730, \"full\": true, \"now\": %d, \"xid\": 720}", 1100 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 729, \"cut\": 730, \"now\": %d, \"pending\": [710]}", 1200 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
    look("{\"position\": 729, \"cut\": 730, \"now\": %d, \"ended\": [710]}", 1300 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN); /* 710 began before what we know */
}
END_TEST

/* Its jobs may be due from when it became pending on: once it has ended, they are looked for from
 * there, once. */
START_TEST(end_of_a_pending_transaction_is_a_reason_to_look_back)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 720}", 1100 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
    look("{\"position\": 730, \"cut\": 731, \"now\": %d, \"pending\": [725]}", 1200 * MS);
    look("{\"position\": 740, \"cut\": 741, \"now\": %d, \"xid\": 740}", 1300 * MS);
    look("{\"position\": 750, \"cut\": 751, \"now\": %d, \"xid\": 750}", 1400 * MS);
    ck_assert_int_eq(due_from(), 1300 * MS);
    ck_assert(!stream_is_uneasy(&stream));
    look("{\"position\": 750, \"cut\": 751, \"now\": %d, \"ended\": [725]}", 1500 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
    ck_assert(stream_is_uneasy(&stream));
    look("{\"position\": 750, \"cut\": 751, \"now\": %d}", 1600 * MS);
    ck_assert_int_eq(due_from(), 1300 * MS);
    ck_assert(!stream_is_uneasy(&stream));
}
END_TEST

START_TEST(clock_that_was_set_back_has_proved_nothing)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 720}", 1100 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 730}", 1200 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
    ck_assert_uint_eq(stream.samples_count, 1);
    look("{\"position\": 740, \"cut\": 741, \"now\": %d, \"xid\": 740}", 500 * MS);
    ck_assert_int_eq(due_from(), INT64_MIN);
    ck_assert_uint_eq(stream.samples_count, 0);
    ck_assert_int_eq(stream.now_us, 500 * MS);
    look("{\"position\": 750, \"cut\": 751, \"now\": %d, \"xid\": 750}", 600 * MS);
    ck_assert_int_eq(due_from(), 500 * MS);
}
END_TEST

/* ---- the slow check ---- */

START_TEST(slow_check_waits_for_a_position)
{
    stream_begin_sweep(&stream);
    ck_assert(!stream.is_sweeping);
    look("{\"position\": 700, \"position_id\": 5}");
    stream_begin_sweep(&stream);
    ck_assert(stream.is_sweeping);
}
END_TEST

static void swept(const char *json)
{
    struct seen *seen = seen_parse(json, strlen(json));
    ck_assert_ptr_nonnull(seen);
    stream_swept(&stream, seen);
    seen_free(seen);
}

static void ck_sweep(uint64_t from_xid, int64_t from_id, uint64_t to_xid, int64_t to_id)
{
    struct store_sweep sweep = {0};
    stream_ask_sweep(&stream, &sweep);
    ck_assert_uint_eq(sweep.from_xid, from_xid);
    ck_assert_int_eq(sweep.from_id, from_id);
    ck_assert_uint_eq(sweep.to_xid, to_xid);
    ck_assert_int_eq(sweep.to_id, to_id);
}

/* What lay before the first look, the backlogs hold. Each stretch is checked once, an interval or
 * more after it was read. */
START_TEST(each_stretch_is_checked_once)
{
    look("{\"position\": 700, \"position_id\": 5}");
    look("{\"position\": 800, \"position_id\": 6}");
    stream_begin_sweep(&stream);
    ck_sweep(700, 5, 700, 5);
    swept("{\"position\": 700, \"position_id\": 5, \"done\": true}");
    ck_assert(!stream.is_sweeping);
    look("{\"position\": 900, \"position_id\": 7}");
    stream_begin_sweep(&stream);
    ck_sweep(700, 5, 800, 6);
    swept("{\"position\": 750, \"position_id\": 1, \"done\": false}");
    ck_assert(stream.is_sweeping);
    stream_begin_sweep(&stream); /* the timer again: it goes on */
    ck_sweep(750, 1, 800, 6);
    swept("{\"position\": 800, \"position_id\": 6, \"done\": true}");
    ck_assert(!stream.is_sweeping);
    stream_begin_sweep(&stream);
    ck_sweep(800, 6, 900, 7);
}
END_TEST

START_TEST(slow_check_looks_at_all_that_is_scheduled_once)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 720}", 1100 * MS);
    stream_begin_sweep(&stream);
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d}", 1200 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
}
END_TEST

/* The revisit list overflows while a stretch is being checked: the answer does not undo it. */
START_TEST(overflow_during_a_slow_check_is_not_forgotten)
{
    look("{\"position\": 900, \"position_id\": 3}");
    stream_begin_sweep(&stream);
    ck_sweep(900, 3, 900, 3);
    ask();
    sent();
    miss(1, 4097);
    swept("{\"position\": 900, \"position_id\": 3, \"done\": true}");
    ck_assert(!stream.is_sweeping);
    stream_begin_sweep(&stream);
    ck_sweep(0, 0, 900, 3);
}
END_TEST

/* The look under way was asked for less. */
START_TEST(slow_check_that_begins_during_a_look_looks_at_all_that_is_scheduled)
{
    look("{\"position\": 700, \"cut\": 701, \"now\": %d}", 1000 * MS);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d, \"xid\": 720}", 1100 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS); /* under way */
    stream_begin_sweep(&stream);
    answer("{\"position\": 720, \"cut\": 721, \"now\": 1200000}", NULL, 0);
    ck_assert_int_eq(due_from(), INT64_MIN);
    look("{\"position\": 720, \"cut\": 721, \"now\": %d}", 1300 * MS);
    ck_assert_int_eq(due_from(), 1000 * MS);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_add_checked_fixture(tc, begin, end);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("stream");
    TCase *tc = add_case(s, "position");
    tcase_add_test(tc, first_look_has_no_position_and_looks_at_all_that_is_scheduled);
    tcase_add_test(tc, position_is_what_the_last_look_said);
    tcase_add_test(tc, other_connection_knows_nothing);
    tc = add_case(s, "pending");
    tcase_add_test(tc, pending_transaction_is_asked_for_until_it_has_ended_and_is_read);
    tcase_add_test(tc, pending_list_is_as_long_as_it_must_be);
    tcase_add_test(tc, answer_about_an_unknown_transaction_is_passed_over);
    tcase_add_test(tc, older_transactions_are_those_of_twenty_milliseconds_ago);
    tc = add_case(s, "revisit");
    tcase_add_test(tc, rows_that_were_not_obtained_are_revisited);
    tcase_add_test(tc, nothing_is_revisited_when_all_came);
    tcase_add_test(tc, jobs_that_were_not_tried_are_not_taken_for_answers);
    tcase_add_test(tc, long_revisit_list_is_asked_for_in_turns);
    tcase_add_test(tc, revisits_of_a_failed_look_are_asked_for_again);
    tcase_add_test(tc, overfull_revisit_list_is_left_to_the_slow_check);
    tc = add_case(s, "scheduled");
    tcase_add_test(tc, scheduled_jobs_are_looked_for_from_what_all_transactions_have_passed);
    tcase_add_test(tc, transaction_before_the_first_look_proves_nothing);
    tcase_add_test(tc, samples_thin_out_while_a_transaction_holds_everything_back);
    tcase_add_test(tc, samples_are_not_taken_at_every_look);
    tcase_add_test(tc, next_due_is_told);
    tcase_add_test(tc, due_job_that_is_left_is_looked_for_again);
    tcase_add_test(tc, full_look_has_passed_no_more_than_it_has_read);
    tcase_add_test(tc, end_of_a_pending_transaction_is_a_reason_to_look_back);
    tcase_add_test(tc, clock_that_was_set_back_has_proved_nothing);
    tc = add_case(s, "sweep");
    tcase_add_test(tc, slow_check_waits_for_a_position);
    tcase_add_test(tc, each_stretch_is_checked_once);
    tcase_add_test(tc, slow_check_looks_at_all_that_is_scheduled_once);
    tcase_add_test(tc, overflow_during_a_slow_check_is_not_forgotten);
    tcase_add_test(tc, slow_check_that_begins_during_a_look_looks_at_all_that_is_scheduled);
    return s;
}
