/* config: printing. What is printed loads again and prints the same; no secret is printed.
 * Durations and sizes, both ways. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/config_private.h"
#include "base/mem.h"
#include "ck_main.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static struct buf printed;
static struct buf errors;

static void setup(void)
{
    buf_init(&printed, 1024 * 1024);
    buf_init(&errors, 1024 * 1024);
}

static void teardown(void)
{
    buf_deinit(&printed);
    buf_deinit(&errors);
}

static void load_and_print(const char *text, bool finish)
{
    struct config *c = config_new();
    int err = config_load_text(c, "f.yaml", text, strlen(text), &errors);
    if (err == 0 && finish)
        err = config_finish(c, &errors);
    ck_assert_str_eq(errors.data != NULL ? errors.data : "", "");
    ck_assert_int_eq(err, 0);
    buf_clear(&printed);
    config_print(c, &printed);
    ck_assert_int_eq(printed.err, 0);
    config_unref(c);
}

static const char every_key[] = "database: host=/tmp dbname=shop\n"
                                "name: web-1\n"
                                "lock_dir: /run/x\n"
                                "concurrency: 3\n"
                                "lease: 90s\n"
                                "stop_timeout: 0\n"
                                "poll_interval: 250ms\n"
                                "log_level: debug\n"
                                "log_format: json\n"
                                "log_sql: true\n"
                                "tasks:\n"
                                "  \"10:c\":\n"
                                "    exec: [/bin/echo, \"{id}\", \"\", \" a \\\" \\\\ "
                                "\\n\\t\\e\\x80\\u2028\\ufeff\\uffff\\U0001F600\", \"null\", "
                                "\"~\", \"-\", \"a: b #\", \"'\", \"%\", \"@\", \"[\"]\n"
                                "    concurrency: 7\n"
                                "    max_age: 1d\n"
                                "    max_lost: 1\n"
                                "    backoff_jitter: 0.05\n"
                                "    retry_schedule: [1s, 0, 90s]\n"
                                "    payload: raw\n"
                                "    cwd: /srv\n"
                                "    umask: 7\n"
                                "    env: {A: \"1 2\", B_2: \"\", C: \"a=b\"}\n"
                                "    env_pass: []\n"
                                "    path: /opt/bin:/bin\n"
                                "    dead_exit: []\n"
                                "    capture: always\n"
                                "    capture_head: 1000\n"
                                "    capture_tail: 0\n"
                                "  null:\n"
                                "    webhook: https://[::1]:8443/hook?a=b\n"
                                "    backoff: 100ms\n"
                                "    method: PUT\n"
                                "    headers: {X-A: \"b: c\", X-B: \"\\u00fc\"}\n"
                                "    content_type: text/plain; charset=utf-8\n"
                                "    idempotency_key: yes\n"
                                "    ca_file: /etc/ca.pem\n"
                                "    tls_verify: no\n"
                                "    proxy: http://p:3128\n"
                                "    secrets: [{env: NEW_SECRET}, {file: /etc/old.secret, "
                                "not_after: 2026-12-31T23:59:59Z}, {env: OLDER, not_after: "
                                "2026-01-01}]\n"
                                "    client_cert: /etc/c.pem\n"
                                "    client_key: /etc/k.pem\n"
                                "    breaker: {window: 1m, min: 3, failure: 0.25, open: 1s, "
                                "open_max: 1h}\n"
                                "    rate: 90/m\n"
                                "  w:\n"
                                "    webhook: http://h\n"
                                "    secret_file: /etc/one.secret\n"
                                "    private_addresses: deny\n"
                                "    breaker: off\n"
                                "  s: {shell: \"cat | x\"}\n"
                                "  d: {discard: }\n";

START_TEST(what_is_printed_loads_and_prints_the_same)
{
    bool finish = _i == 1;
    load_and_print(every_key, finish);
    char *first = buf_take(&printed);
    load_and_print(first, finish);
    ck_assert_str_eq(printed.data, first);
    ob_free(first);
}
END_TEST

START_TEST(print_shows_every_key_of_a_task)
{
    load_and_print(
        "name: me\ntasks: {a: {shell: \"echo hi\", retry_schedule: [5s, 90s], env: {A: b}}}", true);
    ck_assert_str_eq(printed.data, "name: me\n"
                                   "concurrency: 16\n"
                                   "lease: 1m\n"
                                   "stop_timeout: 25s\n"
                                   "poll_interval: 1s\n"
                                   "sweep_interval: 1m\n"
                                   "log_level: info\n"
                                   "log_format: logfmt\n"
                                   "log_sql: false\n"
                                   "tasks:\n"
                                   "  a:\n"
                                   "    shell: \"echo hi\"\n"
                                   "    concurrency: 16\n"
                                   "    timeout: 1m\n"
                                   "    max_attempts: 20\n"
                                   "    max_age: 0\n"
                                   "    max_lost: 5\n"
                                   "    backoff_jitter: 0.2\n"
                                   "    retry_schedule: [5s, 90s]\n"
                                   "    payload: json\n"
                                   "    max_ready: 0\n"
                                   "    keep: 0\n"
                                   "    on_dead: skip\n"
                                   "    env:\n"
                                   "      A: b\n"
                                   "    env_pass: [PATH, LANG, TZ, HOME]\n"
                                   "    dead_exit: [65, 100]\n"
                                   "    capture: on_failure\n"
                                   "    capture_head: 4KiB\n"
                                   "    capture_tail: 12KiB\n");
}
END_TEST

static const struct {
    const char *conninfo;
    const char *masked;
} databases[] = {
    {"dbname=shop", "dbname=shop"},
    {"password=secret", "password=***"},
    {"user=me password=secret dbname=shop", "user=me password=*** dbname=shop"},
    {"password = secret dbname=x", "password =*** dbname=x"},
    {"password='se cret' dbname=x", "password=*** dbname=x"},
    {"password='se\\'secret' dbname=x", "password=*** dbname=x"},
    {"password=se\\ cret dbname=x", "password=*** dbname=x"},
    {"password='secret", "password=***"},
    {"sslpassword=secret\tx=y", "sslpassword=***\tx=y"},
    {"PassWord=secret", "PassWord=***"},
    {"dbname=x secret", "dbname=x ***"},
    {"password=a'secret", "password=***"},
    {"password='a'secret", "password=*** ***"},
    {"postgresql:///shop", "postgresql:///shop"},
    {"postgres://me@h:5432/shop", "postgres://me@h:5432/shop"},
    {"postgresql://me:secret@h:5432/shop?a=b", "postgresql://me:***@h:5432/shop?a=b"},
    {"postgresql://:secret@h/", "postgresql://:***@h/"},
    {"postgresql://me:sec@secret@h/", "postgresql://me:***@h/"},
    {"postgresql://me:sec/secret@h/", "postgresql://me:***@h/"},
    {"postgresql://[::1]:5432/x", "postgresql://[::1]:5432/x"},
    {"postgresql:///x?password=secret", "postgresql:///x?password=***"},
    {"postgresql:///x?a=b&sslpassword=secret&c=d", "postgresql:///x?a=b&sslpassword=***&c=d"},
    {"postgresql:///x?pass%77ord=secret", "postgresql:///x?pass%77ord=***"},
};

START_TEST(passwords_of_the_database_are_not_printed)
{
    mask_conninfo(databases[_i].conninfo, &printed);
    ck_assert_str_eq(printed.data, databases[_i].masked);
    ck_assert_ptr_null(strstr(printed.data, "secret"));
}
END_TEST

START_TEST(secrets_of_tasks_are_not_printed)
{
    load_and_print(
        "database: password=hidden\n"
        "tasks:\n"
        "  w:\n"
        "    webhook: http://h\n"
        "    proxy: http://me:hidden@p:1\n"
        "    headers: {Authorization: hidden, X-Api-Key: hidden, Cookie: hidden, X-Plain: shown}\n"
        "  s: {shell: x, env: {DB_PASSWORD: hidden, api_token: hidden, AWS_SECRET_ACCESS_KEY: "
        "hidden, "
        "PLAIN: shown}}\n",
        true);
    ck_assert_ptr_null(strstr(printed.data, "hidden"));
    ck_assert_ptr_nonnull(strstr(printed.data, "proxy: \"http://me:***@p:1\"\n"));
    ck_assert_ptr_nonnull(strstr(printed.data, "X-Plain: shown\n"));
    ck_assert_ptr_nonnull(strstr(printed.data, " PLAIN: shown\n"));
    ck_assert_ptr_nonnull(strstr(printed.data, "Authorization: \"***\"\n"));
}
END_TEST

static const struct {
    const char *text;
    bool is_good;
    uint64_t value;
    const char *back; /* NULL: as it was */
} durations[] = {
    {"0", true, 0, NULL},
    {"250ms", true, 250, NULL},
    {"30s", true, 30000, NULL},
    {"5m", true, 300000, NULL},
    {"2h", true, 7200000, NULL},
    {"7d", true, 604800000, NULL},
    {"0s", true, 0, "0"},
    {"90s", true, 90000, NULL},
    {"60s", true, 60000, "1m"},
    {"1000ms", true, 1000, "1s"},
    {"18446744073709551615ms", true, UINT64_MAX, NULL},
    {"18446744073709551616ms", false, 0, NULL},
    {"18446744073709551615s", false, 0, NULL},
    {"", false, 0, NULL},
    {"5", false, 0, NULL},
    {"s", false, 0, NULL},
    {"-5s", false, 0, NULL},
    {"5 s", false, 0, NULL},
    {"5S", false, 0, NULL},
    {"1.5s", false, 0, NULL},
    {"1h30m", false, 0, NULL},
    {"5sec", false, 0, NULL},
};

START_TEST(durations_are_parsed_and_printed)
{
    uint64_t ms = 7;
    int err = parse_duration(durations[_i].text, &ms);
    ck_assert_int_eq(err, durations[_i].is_good ? 0 : OB_EINVAL);
    if (err != 0)
        return;
    ck_assert_uint_eq(ms, durations[_i].value);
    char text[32];
    format_duration(ms, text);
    ck_assert_str_eq(text, durations[_i].back != NULL ? durations[_i].back : durations[_i].text);
}
END_TEST

START_TEST(sizes_are_parsed_and_printed)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},
                {"100", 100},
                {"64KiB", 65536},
                {"1MiB", 1048576},
                {"3GiB", UINT64_C(3221225472)}};
    static const char *const bad[] = {"",       "KiB", "64KB",           "64kib", "64 KiB",
                                      "1.5MiB", "-1",  "17179869184GiB", "64K"};
    char text[32];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes = 7;
        ck_assert_int_eq(parse_size(good[i].text, &bytes), 0);
        ck_assert_uint_eq(bytes, good[i].value);
        format_size(bytes, text);
        ck_assert_str_eq(text, good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 7;
        ck_assert_int_eq(parse_size(bad[i], &bytes), OB_EINVAL);
    }
}
END_TEST

START_TEST(task_names_follow_the_rule)
{
    char name[131];
    static const char *const good[] = {"a", "0", "_", "a.b", "a:b-c_d", "send-welcome-email", "Z9"};
    static const char *const bad[] = {"",    ".a",  "-a",       ":a",  "a b",
                                      "a/b", "a\n", "\xc3\xbc", "a=b", "a,b"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert(task_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert(!task_name_is_valid(bad[i]));
    memset(name, 'a', sizeof name);
    name[128] = '\0';
    ck_assert(task_name_is_valid(name));
    memset(name, 'a', sizeof name);
    name[129] = '\0';
    ck_assert(!task_name_is_valid(name));
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("config print");
    TCase *print = tcase_create("print");
    tcase_add_checked_fixture(print, setup, teardown);
    tcase_add_loop_test(print, what_is_printed_loads_and_prints_the_same, 0, 2);
    tcase_add_test(print, print_shows_every_key_of_a_task);
    tcase_add_loop_test(print, passwords_of_the_database_are_not_printed, 0, ROWS(databases));
    tcase_add_test(print, secrets_of_tasks_are_not_printed);
    suite_add_tcase(suite, print);
    TCase *values = tcase_create("values");
    tcase_add_loop_test(values, durations_are_parsed_and_printed, 0, ROWS(durations));
    tcase_add_test(values, sizes_are_parsed_and_printed);
    tcase_add_test(values, task_names_follow_the_rule);
    suite_add_tcase(suite, values);
    return suite;
}
