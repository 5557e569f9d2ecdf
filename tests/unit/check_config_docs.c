/* config: the manual names every key, and each of its YAML examples loads. */
#include <stdio.h>
#include <string.h>

#include "base/config_private.h"
#include "ck_main.h"

static char manual[64 * 1024];

static void setup(void)
{
    FILE *f = fopen(OB_TEST_SOURCE_DIR "/docs/configuration.md", "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(manual, 1, sizeof manual - 1, f);
    manual[n] = '\0';
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_uint_lt(n, sizeof manual - 1);
}

static void expect_named(const char *name)
{
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "`%s`", name);
    if (strstr(manual, wanted) == NULL)
        ck_abort_msg("docs/configuration.md does not name %s", wanted);
}

START_TEST(the_manual_names_every_key)
{
    for (size_t i = 0; i < top_keys_count; i++)
        expect_named(top_keys[i].name);
    for (size_t i = 0; i < task_keys_count; i++)
        expect_named(task_keys[i].name);
}
END_TEST

START_TEST(the_examples_of_the_manual_load)
{
    int examples = 0;
    const char *p = strstr(manual, "```yaml\n");
    for (; p != NULL; p = strstr(p, "```yaml\n")) {
        p += strlen("```yaml\n");
        const char *end = strstr(p, "```\n");
        ck_assert_ptr_nonnull(end);
        struct config *c = config_new();
        struct buf errors;
        buf_init(&errors, 65536);
        int err = config_load_text(c, "example", p, (size_t)(end - p), &errors);
        ck_assert_str_eq(errors.data != NULL ? errors.data : "", "");
        ck_assert_int_eq(err, 0);
        config_unref(c);
        buf_deinit(&errors);
        examples++;
        p = end + 4;
    }
    ck_assert_int_ge(examples, 6);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("config docs");
    TCase *tcase = tcase_create("manual");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, the_manual_names_every_key);
    tcase_add_test(tcase, the_examples_of_the_manual_load);
    suite_add_tcase(suite, tcase);
    return suite;
}
