/* list: order, removal while walking, nodes that are in no list. */
#include "base/list.h"
#include "ck_main.h"

struct item {
    int number;
    struct list node;
};

static struct list head;
static struct item items[5];

static void setup(void)
{
    list_init(&head);
    for (int i = 0; i < 5; i++) {
        items[i].number = i;
        list_init(&items[i].node);
        list_append(&head, &items[i].node);
    }
}

START_TEST(items_come_out_in_the_order_they_went_in)
{
    for (int i = 0; i < 5; i++) {
        ck_assert(!list_is_empty(&head));
        struct list *node = list_pop(&head);
        ck_assert_ptr_nonnull(node);
        ck_assert_int_eq(list_entry(node, struct item, node)->number, i);
        ck_assert(list_is_empty(node)); /* it is in none now */
    }
    ck_assert(list_is_empty(&head));
    ck_assert_ptr_null(list_pop(&head));
}
END_TEST

START_TEST(the_current_item_may_be_removed_while_walking)
{
    int seen = 0;
    list_for_each (node, next, &head) {
        struct item *item = list_entry(node, struct item, node);
        ck_assert_int_eq(item->number, seen);
        seen++;
        if (item->number % 2 == 0)
            list_remove(node);
    }
    ck_assert_int_eq(seen, 5);
    ck_assert_int_eq(list_entry(list_pop(&head), struct item, node)->number, 1);
    ck_assert_int_eq(list_entry(list_pop(&head), struct item, node)->number, 3);
    ck_assert(list_is_empty(&head));
}
END_TEST

START_TEST(removing_twice_is_harmless)
{
    list_remove(&items[2].node);
    list_remove(&items[2].node);
    list_append(&head, &items[2].node);
    int last = -1;
    list_for_each (node, next, &head) {
        last = list_entry(node, struct item, node)->number;
    }
    ck_assert_int_eq(last, 2);
}
END_TEST

START_TEST(an_empty_list_is_walked_not_at_all)
{
    struct list empty;
    list_init(&empty);
    list_for_each (node, next, &empty) {
        ck_abort_msg("there is no item");
    }
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("list");
    TCase *tcase = tcase_create("list");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, items_come_out_in_the_order_they_went_in);
    tcase_add_test(tcase, the_current_item_may_be_removed_while_walking);
    tcase_add_test(tcase, removing_twice_is_harmless);
    tcase_add_test(tcase, an_empty_list_is_walked_not_at_all);
    suite_add_tcase(suite, tcase);
    return suite;
}
