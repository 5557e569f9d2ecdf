/* check_config_webhook.c - the webhook keys that have keys of their own: what they mean, and what
 * is said when they are wrong. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "ck_main.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static struct config *config;
static struct buf errors;

static int load(const char *keys)
{
    char text[2048];
    (void)snprintf(text, sizeof text, "tasks:\n  w:\n    webhook: https://h/\n    %s\n", keys);
    config = config_new();
    buf_init(&errors, 65536);
    return config_load_text(config, "f.yaml", text, strlen(text), &errors);
}

static const struct webhook_config *webhook(void)
{
    ck_assert_str_eq(errors.data != NULL ? errors.data : "", "");
    return &config_find_task(config, "w")->webhook;
}

static void done(void)
{
    config_unref(config);
    buf_deinit(&errors);
}

START_TEST(what_is_not_said_has_its_default)
{
    ck_assert_int_eq(load("timeout: 1s"), 0);
    const struct webhook_config *w = webhook();
    ck_assert(w->breaker.is_on);
    ck_assert_uint_eq(w->breaker.window_ms, 300000);
    ck_assert_uint_eq(w->breaker.min, 10);
    ck_assert_uint_eq(w->breaker.failure_permille, 700);
    ck_assert_uint_eq(w->breaker.open_ms, 30000);
    ck_assert_uint_eq(w->breaker.open_max_ms, 600000);
    ck_assert_uint_eq(w->rate.count, 0);
    ck_assert_uint_eq(w->secrets.count, 0);
    ck_assert_int_eq(w->private_addresses, PRIVATE_ALLOW);
    done();
}
END_TEST

START_TEST(a_breaker_keeps_the_defaults_it_does_not_name)
{
    ck_assert_int_eq(load("breaker: {failure: 1, open: 2s, open_max: 2s}"), 0);
    ck_assert(webhook()->breaker.is_on);
    ck_assert_uint_eq(webhook()->breaker.window_ms, 300000);
    ck_assert_uint_eq(webhook()->breaker.failure_permille, 1000);
    ck_assert_uint_eq(webhook()->breaker.open_ms, 2000);
    done();
    ck_assert_int_eq(load("breaker: off"), 0);
    ck_assert(!webhook()->breaker.is_on);
    done();
}
END_TEST

START_TEST(secrets_keep_their_order_and_ends)
{
    ck_assert_int_eq(
        load("secrets: [{file: /a}, {env: B, not_after: 2026-12-31}, {file: /c, not_after: "
             "2026-12-31T00:00:01Z}]"),
        0);
    const struct webhook_secrets *s = &webhook()->secrets;
    ck_assert_uint_eq(s->count, 3);
    ck_assert_str_eq(s->items[0].file, "/a");
    ck_assert_int_eq(s->items[0].not_after_us, INT64_MAX);
    ck_assert_str_eq(s->items[1].env, "B");
    ck_assert_int_eq(s->items[1].not_after_us, INT64_C(1798675200000000));
    ck_assert_int_eq(s->items[2].not_after_us, INT64_C(1798675201000000));
    done();
}
END_TEST

static const struct {
    const char *text;
    unsigned count;
    uint64_t per_ms;
} rates[] = {{"1/s", 1, 1000},
             {"10000/s", 10000, 1000},
             {"600/m", 600, 60000},
             {"5000/h", 5000, 3600000},
             {"3/d", 3, 86400000}};

START_TEST(a_rate_is_a_number_in_a_time)
{
    char keys[64];
    (void)snprintf(keys, sizeof keys, "rate: %s", rates[_i].text);
    ck_assert_int_eq(load(keys), 0);
    ck_assert_uint_eq(webhook()->rate.count, rates[_i].count);
    ck_assert_uint_eq(webhook()->rate.per_ms, rates[_i].per_ms);
    done();
}
END_TEST

#define RATE_EXPECTED                                                                              \
    "; expected a number of requests in a time such as 10/s, 600/m or 5000/h, at most 10000 a "    \
    "second"
#define SECRETS_EXPECTED                                                                           \
    "; expected a list, the current secret first, such as [{file: /etc/outbox/new.secret}, "       \
    "{file: /etc/outbox/old.secret, not_after: 2026-12-31}]"

static const struct {
    const char *keys;
    const char *message; /* behind "f.yaml:4: " */
} wrong[] = {
    {"rate: 10", "bad rate '10'" RATE_EXPECTED},
    {"rate: 0/s", "bad rate '0/s'" RATE_EXPECTED},
    {"rate: 10001/s", "bad rate '10001/s'" RATE_EXPECTED},
    {"rate: 10/w", "bad rate '10/w'" RATE_EXPECTED},
    {"rate: 18446744073709551617/s", "bad rate '18446744073709551617/s'" RATE_EXPECTED},
    {"rate: [1]", "rate is a list" RATE_EXPECTED},
    {"secrets: []", "secrets is empty" SECRETS_EXPECTED},
    {"secrets: {file: /a}", "secrets is not a list" SECRETS_EXPECTED},
    {"secrets: [/a]", "a secret is not a map" SECRETS_EXPECTED},
    {"secrets: [{file: /a, env: B}]", "bad secret; expected exactly one of file and env"},
    {"secrets: [{}]", "bad secret; expected exactly one of file and env"},
    {"secrets: [{file: a}]", "bad file 'a'; expected an absolute path"},
    {"secrets: [{file: /a, file: /b}]", "file is given twice, first in line 4"},
    {"secrets: [{file: /a, until: x}]", "unknown key 'until' in a secret"},
    {"secrets: [{env: A}, {file: /a, not_after: soon}]",
     "bad not_after 'soon'; expected a time in UTC such as 2026-12-31T12:00:00Z, or a date"},
    {"secrets: [{file: /a, not_after: 2026-12-31}]",
     "each of the secrets has a not_after: after the last, nothing could be signed"},
    {"secret_file: a", "bad secret_file 'a'; expected an absolute path"},
    {"secret_env: OUTBOX_SECRET",
     "bad secret_env 'OUTBOX_SECRET'; expected another name: those beginning with OUTBOX_ are set "
     "by the dispatcher"},
    {"client_key: /k", "client_key has no effect without client_cert"},
    {"private_addresses: maybe", "bad private_addresses 'maybe'; expected one of allow, deny"},
    {"breaker: on", "bad breaker 'on'; expected off, or a map such as {window: 5m, min: 10, "
                    "failure: 0.7, open: 30s, open_max: 10m}"},
    {"breaker: {windows: 5m}", "unknown key 'windows' in breaker (did you mean 'window'?)"},
    {"breaker: {failure: 0}", "bad failure '0'; expected a fraction over 0"},
    {"breaker: {failure: 7}", "bad failure '7'; expected a fraction from 0 to 1, such as 0.2"},
    {"breaker: {open: 1h}", "open is longer than open_max"},
    {"breaker: {min: }", "min has no value"},
};

START_TEST(what_is_wrong_is_said_with_its_place)
{
    char expected[512];
    ck_assert_int_eq(load(wrong[_i].keys), OB_ECONFIG);
    (void)snprintf(expected, sizeof expected, "f.yaml:4: %s\n", wrong[_i].message);
    ck_assert_str_eq(errors.data, expected);
    done();
}
END_TEST

START_TEST(keys_that_exclude_each_other_are_refused)
{
    ck_assert_int_eq(load("secret_file: /a\n    secret_env: B"), OB_ECONFIG);
    ck_assert_str_eq(errors.data,
                     "f.yaml:5: secret_env beside another source of secrets (line 4); expected one "
                     "of secret_file, secret_env and secrets\n");
    done();
    ck_assert_int_eq(load("private_addresses: deny\n    proxy: http://p:1"), OB_ECONFIG);
    ck_assert_str_eq(errors.data, "f.yaml:4: private_addresses has no effect beside proxy (line "
                                  "5): the proxy connects, and decides to what\n");
    done();
}
END_TEST

static const struct {
    const char *text;
    int64_t seconds; /* -1: refused */
} times[] = {
    {"1970-01-01", 0},
    {"1970-01-01T00:00:00Z", 0},
    {"2000-02-29T23:59:59Z", 951868799},
    {"2026-12-31T12:00:00Z", 1798718400},
    {"2026-02-29", -1},
    {"2026-13-01", -1},
    {"2026-00-10", -1},
    {"2026-12-31T24:00:00Z", -1},
    {"2026-12-31T12:00:00", -1},
    {"2026-12-31T12:00:00+01:00", -1},
    {"2026-12-31 12:00:00Z", -1},
    {"26-12-31", -1},
    {"", -1},
};

START_TEST(times_are_utc_and_exact)
{
    int64_t us = -7;
    int err = clock_parse_utc(times[_i].text, &us);
    ck_assert_int_eq(err, times[_i].seconds < 0 ? OB_EINVAL : 0);
    ck_assert_int_eq(us, times[_i].seconds < 0 ? -7 : times[_i].seconds * 1000000);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("config webhook");
    TCase *tc = tcase_create("keys");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, what_is_not_said_has_its_default);
    tcase_add_test(tc, a_breaker_keeps_the_defaults_it_does_not_name);
    tcase_add_test(tc, secrets_keep_their_order_and_ends);
    tcase_add_loop_test(tc, a_rate_is_a_number_in_a_time, 0, ROWS(rates));
    tcase_add_loop_test(tc, what_is_wrong_is_said_with_its_place, 0, ROWS(wrong));
    tcase_add_test(tc, keys_that_exclude_each_other_are_refused);
    tcase_add_loop_test(tc, times_are_utc_and_exact, 0, ROWS(times));
    suite_add_tcase(s, tc);
    return s;
}
