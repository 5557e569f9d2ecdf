/* check_peers.c - who is dead: the same beat for a whole lease of theirs, on our clock, over one
 * connection; and by when we asked, not by when the answer was read. */
#include "ck_main.h"
#include "core/peers.h"

static struct peers peers;

static void init(void)
{
    peers_init(&peers);
}

static void deinit(void)
{
    peers_deinit(&peers);
}

/* One list with one row, asked for and read at the same moment. */
static bool observe(int64_t id, int64_t beat, uint64_t now_ms)
{
    peers_begin(&peers);
    bool is_dead = peers_observe(&peers, id, beat, 1000, now_ms, now_ms);
    peers_end(&peers);
    return is_dead;
}

START_TEST(silence_for_a_whole_lease_is_death)
{
    ck_assert(!observe(1, 7, 5000));
    ck_assert(!observe(1, 7, 5999));
    ck_assert(observe(1, 7, 6000));
    ck_assert(observe(1, 7, 9000));
}
END_TEST

START_TEST(every_beat_begins_the_lease_anew)
{
    ck_assert(!observe(1, 7, 5000));
    ck_assert(!observe(1, 8, 5999));
    ck_assert(!observe(1, 8, 6998));
    ck_assert(observe(1, 8, 6999));
    ck_assert(!observe(1, 7, 7000)); /* any other number is a beat: a restored database */
}
END_TEST

START_TEST(lease_is_the_peers_own)
{
    peers_begin(&peers);
    ck_assert(!peers_observe(&peers, 1, 1, 60000, 0, 0));
    ck_assert(!peers_observe(&peers, 2, 1, 500, 0, 0));
    peers_end(&peers);
    peers_begin(&peers);
    ck_assert(!peers_observe(&peers, 1, 1, 60000, 500, 500));
    ck_assert(peers_observe(&peers, 2, 1, 500, 500, 500));
    peers_end(&peers);
}
END_TEST

START_TEST(lost_connection_forgets_what_was_seen)
{
    ck_assert(!observe(1, 7, 0));
    peers_forget(&peers);
    ck_assert(!observe(1, 7, 100000));
    ck_assert(!observe(1, 7, 100999));
    ck_assert(observe(1, 7, 101000));
}
END_TEST

START_TEST(who_left_the_list_is_new_when_it_comes_back)
{
    ck_assert(!observe(1, 7, 0));
    ck_assert(!observe(2, 7, 500)); /* the list without 1 */
    ck_assert_uint_eq(peers.count, 1);
    ck_assert(!observe(1, 7, 1000));
}
END_TEST

/* We were stopped while the answer lay in the socket: it says nothing about now. */
START_TEST(answer_read_late_counts_from_when_it_was_asked_for)
{
    ck_assert(!observe(1, 7, 0));
    peers_begin(&peers);
    ck_assert(!peers_observe(&peers, 1, 7, 1000, 170, 50000));
    peers_end(&peers);
    ck_assert(!observe(1, 8, 50001));
}
END_TEST

/* A beat first seen late was perhaps beaten late: counting begins when it was read. */
START_TEST(beat_first_seen_late_counts_from_when_it_was_read)
{
    peers_begin(&peers);
    ck_assert(!peers_observe(&peers, 1, 7, 1000, 0, 5000));
    peers_end(&peers);
    ck_assert(!observe(1, 7, 5999));
    ck_assert(observe(1, 7, 6000));
}
END_TEST

START_TEST(many_are_kept_apart)
{
    for (uint64_t now = 0; now <= 1000; now += 500) {
        peers_begin(&peers);
        for (int64_t id = 1; id <= 100; id++) {
            int64_t beat = id % 2 == 0 ? (int64_t)now : 1; /* the even ones live */
            bool is_dead = peers_observe(&peers, id, beat, 1000, now, now);
            ck_assert_int_eq(is_dead, now == 1000 && id % 2 == 1);
        }
        peers_end(&peers);
        ck_assert_uint_eq(peers.count, 100);
    }
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("peers");
    TCase *tc = tcase_create("death");
    tcase_add_checked_fixture(tc, init, deinit);
    tcase_add_test(tc, silence_for_a_whole_lease_is_death);
    tcase_add_test(tc, every_beat_begins_the_lease_anew);
    tcase_add_test(tc, lease_is_the_peers_own);
    tcase_add_test(tc, lost_connection_forgets_what_was_seen);
    tcase_add_test(tc, who_left_the_list_is_new_when_it_comes_back);
    tcase_add_test(tc, answer_read_late_counts_from_when_it_was_asked_for);
    tcase_add_test(tc, beat_first_seen_late_counts_from_when_it_was_read);
    tcase_add_test(tc, many_are_kept_apart);
    suite_add_tcase(s, tc);
    return s;
}
