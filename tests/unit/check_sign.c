/* check_sign.c - signatures against published vectors of Standard Webhooks (and RFC 4231 for the
 * primitive), secrets in every form, and the credentials of a task from files and variables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "ck_main.h"
#include "daemon.h"
#include "testconfig.h"
#include "webhook/credentials.h"
#include "webhook/sign.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static const char *const first_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
static const char *const second_secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/* ---- signatures ---- */

static const struct {
    const char *secret;
    const char *id;
    uint64_t timestamp_s;
    const char *body;
    const char *signature;
} vectors[] = {
    {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
     "{\"test\": 2432232314}", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
    {"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553,
     "{\"email\":\"test@example.com\",\"username\":\"test_user\"}",
     "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="},
};

static struct signer *signer_of(const char *secret)
{
    unsigned char key[SECRET_KEY_MAX];
    size_t len = 0;
    const char *why = NULL;
    struct signer *s = NULL;
    ck_assert_int_eq(secret_parse(secret, strlen(secret), key, &len, &why), 0);
    ck_assert_int_eq(signer_new(key, len, &s), 0);
    return s;
}

/* Several times, with others between: each signature begins anew. */
START_TEST(signatures_are_those_of_the_published_vectors)
{
    struct signer *s = signer_of(vectors[_i].secret);
    char text[SIGNATURE_SIZE];
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(signer_sign(s, "another", 1, "body", 4, text), 0);
        ck_assert_str_ne(text, vectors[_i].signature);
        ck_assert_int_eq(signer_sign(s, vectors[_i].id, vectors[_i].timestamp_s, vectors[_i].body,
                                     strlen(vectors[_i].body), text),
                         0);
        ck_assert_str_eq(text, vectors[_i].signature);
    }
    signer_free(s);
}
END_TEST

/* Whatever of the signed content changes, the signature does. */
START_TEST(every_part_is_signed)
{
    char right[SIGNATURE_SIZE];
    char other[SIGNATURE_SIZE];
    struct signer *s = signer_of(first_secret);
    struct signer *second = signer_of(second_secret);
    ck_assert_int_eq(signer_sign(s, "42-a", 1700000000, "{}", 2, right), 0);
    ck_assert_int_eq(signer_sign(s, "42-b", 1700000000, "{}", 2, other), 0);
    ck_assert_str_ne(other, right);
    ck_assert_int_eq(signer_sign(s, "42-a", 1700000001, "{}", 2, other), 0);
    ck_assert_str_ne(other, right);
    ck_assert_int_eq(signer_sign(s, "42-a", 1700000000, "{} ", 3, other), 0);
    ck_assert_str_ne(other, right);
    ck_assert_int_eq(signer_sign(s, "42-a", 1700000000, "", 0, other), 0);
    ck_assert_str_ne(other, right);
    ck_assert_int_eq(signer_sign(second, "42-a", 1700000000, "{}", 2, other), 0);
    ck_assert_str_ne(other, right);
    ck_assert_int_eq(signer_sign(s, "42-a", 1700000000, "{}", 2, other), 0);
    ck_assert_str_eq(other, right);
    signer_free(s);
    signer_free(second);
    signer_free(NULL);
}
END_TEST

/* ---- secrets ---- */

/* 24, 32 and 64 bytes. */
#define S24 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define S32 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define S64                                                                                        \
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="

static const struct {
    const char *text;
    size_t len;
} good[] = {
    {"whsec_" S24, 24},      {"whsec_" S32, 32},        {"whsec_" S64, 64},
    {"whsec_" S24 "\n", 24}, {"whsec_" S24 "\r\n", 24}, {" \twhsec_" S24 " \n\n", 24},
};

START_TEST(a_secret_is_whsec_and_the_base64_of_24_to_64_bytes)
{
    unsigned char key[SECRET_KEY_MAX] = {0};
    size_t len = 0;
    const char *why = "unset";
    ck_assert_int_eq(secret_parse(good[_i].text, strlen(good[_i].text), key, &len, &why), 0);
    ck_assert_uint_eq(len, good[_i].len);
    for (size_t i = 0; i < len; i++)
        ck_assert_uint_eq(key[i], i);
}
END_TEST

static const struct {
    const char *text;
    const char *why;
} bad[] = {
    {"", "empty"},
    {" \n", "empty"},
    {S24, "begin with whsec_"},
    {"WHSEC_" S24, "begin with whsec_"},
    {"whsk_" S24, "begin with whsec_"},
    {"whsec_", "fewer than 24"},
    {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=", "fewer than 24"}, /* 23 */
    {"whsec_" S64 "QA==", "more than 64"},
    {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0"
     "A=",
     "more than 64"},                                                 /* 65 */
    {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "base64"},  /* no padding */
    {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", "base64"}, /* loose bits */
    {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMU-RYX", "base64"},             /* the other alphabet */
    {"whsec_AAECAwQFBgcICQoL DA0ODxAREhMUFRYX", "base64"},
    {"whsec_ " S24, "base64"},
    {"whsec_" S24 "\nwhsec_" S24, "base64"},
    {"whsec_====================================", "base64"},
};

START_TEST(anything_else_is_refused_and_leaves_nothing_behind)
{
    unsigned char key[SECRET_KEY_MAX];
    size_t len = 7;
    const char *why = NULL;
    memset(key, 0xee, sizeof key);
    ck_assert_int_eq(secret_parse(bad[_i].text, strlen(bad[_i].text), key, &len, &why), OB_ESYNTAX);
    ck_assert_ptr_nonnull(strstr(why, bad[_i].why));
    ck_assert_uint_eq(len, 0);
    for (size_t i = 0; i < sizeof key; i++)
        ck_assert_uint_eq(key[i], 0);
}
END_TEST

START_TEST(a_nul_within_a_secret_is_refused)
{
    static const char text[] = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY\0";
    unsigned char key[SECRET_KEY_MAX];
    size_t len = 0;
    const char *why = NULL;
    ck_assert_int_eq(secret_parse(text, sizeof text - 1, key, &len, &why), OB_ESYNTAX);
}
END_TEST

/* ---- a task's credentials ---- */

static struct buf errors;

/* The configuration of one task w with these keys, its credentials read. */
static int read_config(const char *keys, struct config **ret_config)
{
    char text[2048];
    (void)snprintf(text, sizeof text, "tasks: {w: {webhook: \"https://h\", %s}, s: {shell: x}}",
                   keys);
    *ret_config = testconfig_load(text);
    buf_init(&errors, 65536);
    return credentials_read(*ret_config, &errors);
}

static void done(struct config *c)
{
    config_unref(c);
    buf_deinit(&errors);
}

/* The value of webhook-signature for the first vector; static storage. */
static const char *signature_at(const struct config *c, uint64_t timestamp_s)
{
    static char text[256];
    struct buf out;
    buf_init(&out, sizeof text - 1);
    const struct task_config *t = config_find_task(c, "w");
    ck_assert(credentials_can_sign(t->webhook.credentials));
    ck_assert_int_eq(credentials_sign(t->webhook.credentials, vectors[0].id, timestamp_s,
                                      vectors[0].body, strlen(vectors[0].body), &out),
                     0);
    (void)snprintf(text, sizeof text, "%s", out.data);
    buf_deinit(&out);
    return text;
}

START_TEST(a_secret_comes_from_a_file_or_a_variable)
{
    char keys[256];
    struct config *c = NULL;
    if (_i == 0)
        (void)snprintf(keys, sizeof keys, "secret_file: %s",
                       test_file("a.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0600));
    else
        (void)snprintf(keys, sizeof keys,
                       _i == 1 ? "secret_env: HOOK_SECRET" : "secrets: [{env: HOOK_SECRET}]");
    ck_assert_int_eq(setenv("HOOK_SECRET", first_secret, 1), 0);
    ck_assert_int_eq(read_config(keys, &c), 0);
    ck_assert_str_eq(signature_at(c, vectors[0].timestamp_s), vectors[0].signature);
    done(c);
}
END_TEST

START_TEST(no_secret_no_signature)
{
    struct config *c = NULL;
    ck_assert_int_eq(read_config("timeout: 1s", &c), 0);
    ck_assert(!credentials_can_sign(config_find_task(c, "w")->webhook.credentials));
    ck_assert(!credentials_can_sign(NULL));
    done(c);
}
END_TEST

/* 1614265330 is 2021-02-25T15:02:10Z. */
START_TEST(secrets_sign_in_their_order_until_they_end)
{
    struct config *c = NULL;
    char single[3][SIGNATURE_SIZE];
    char both[256];
    ck_assert_int_eq(setenv("NEW", first_secret, 1), 0);
    ck_assert_int_eq(setenv("OLD", second_secret, 1), 0);
    ck_assert_int_eq(read_config("secrets: [{env: NEW}, {env: OLD, not_after: "
                                 "\"2021-02-25T15:02:10Z\"}, {env: NEW, not_after: 2021-02-25}]",
                                 &c),
                     0);
    struct signer *old = signer_of(second_secret);
    ck_assert_int_eq(signer_sign(old, vectors[0].id, vectors[0].timestamp_s, vectors[0].body,
                                 strlen(vectors[0].body), single[0]),
                     0);
    signer_free(old);
    (void)snprintf(both, sizeof both, "%s %s", vectors[0].signature, single[0]);
    ck_assert_str_eq(signature_at(c, 1614265330), both);
    /* A second later the old one has ended; a day before, the third still signed too. */
    ck_assert_ptr_null(strchr(signature_at(c, 1614265331), ' '));
    const char *blank = strchr(signature_at(c, 1614200000), ' ');
    ck_assert_ptr_nonnull(blank);
    ck_assert_ptr_nonnull(strchr(blank + 1, ' '));
    done(c);
}
END_TEST

static const struct {
    const char *name; /* of the file; NULL: none is made */
    const char *contents;
    const char *message; /* behind "f.yaml:1: task 'w': secret_file PATH: " */
} bad_files[] = {
    {NULL, NULL, "No such file or directory\n"},
    {"empty", "", "not a secret: it is empty; expected whsec_ and the base64 of 24 to 64 bytes\n"},
    {"plain", "hunter2hunter2hunter2hunter2hunter2",
     "not a secret: it does not begin with whsec_; expected whsec_ and the base64 of 24 to 64 "
     "bytes\n"},
    {"short", "whsec_aHVudGVyMg==",
     "not a secret: it has fewer than 24 bytes; expected whsec_ and the base64 of 24 to 64 "
     "bytes\n"},
};

START_TEST(a_bad_secret_file_is_named_and_not_shown)
{
    char keys[256];
    char expected[512];
    char path[192];
    struct config *c = NULL;
    (void)snprintf(path, sizeof path, "%s/none", test_dir());
    if (bad_files[_i].name != NULL)
        (void)snprintf(path, sizeof path, "%s",
                       test_file(bad_files[_i].name, bad_files[_i].contents, 0600));
    (void)snprintf(keys, sizeof keys, "secret_file: %s", path);
    ck_assert_int_eq(read_config(keys, &c), OB_ECONFIG);
    (void)snprintf(expected, sizeof expected, "f.yaml:1: task 'w': secret_file %s: %s", path,
                   bad_files[_i].message);
    ck_assert_str_eq(errors.data, expected);
    ck_assert_ptr_null(strstr(errors.data, "hunter2"));
    ck_assert_ptr_null(strstr(errors.data, "aHVudGVy"));
    done(c);
}
END_TEST

/* A pipe would be waited for, a directory or device read without end. */
START_TEST(a_secret_is_read_from_a_regular_file_alone)
{
    char keys[256];
    char fifo[192];
    struct config *c = NULL;
    const char *paths[] = {"/dev/zero", "/tmp", fifo};
    (void)snprintf(fifo, sizeof fifo, "%s/fifo", test_dir());
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    (void)snprintf(keys, sizeof keys, "secret_file: %s", paths[_i]);
    ck_assert_int_eq(read_config(keys, &c), OB_ECONFIG);
    ck_assert_ptr_nonnull(strstr(errors.data, "not a regular file"));
    done(c);
}
END_TEST

START_TEST(a_variable_that_is_not_set_is_named)
{
    struct config *c = NULL;
    (void)unsetenv("HOOK_SECRET");
    ck_assert_int_eq(read_config("secrets: [{env: HOOK_SECRET}, {file: /nonexistent}]", &c),
                     OB_ECONFIG);
    ck_assert_str_eq(errors.data,
                     "f.yaml:1: task 'w': secrets HOOK_SECRET: the variable is not set\n"
                     "f.yaml:1: task 'w': secrets /nonexistent: No such file or directory\n");
    done(c);
}
END_TEST

START_TEST(a_secrets_variable_is_not_passed_to_a_command)
{
    static const char text[] = "tasks:\n"
                               "  w: {webhook: \"https://h\", secret_env: HOOK_SECRET}\n"
                               "  s: {shell: x, env_pass: [PATH, HOOK_SECRET]}\n";
    struct config *c = config_new();
    buf_init(&errors, 65536);
    ck_assert_int_eq(setenv("HOOK_SECRET", first_secret, 1), 0);
    ck_assert_int_eq(config_load_text(c, "f.yaml", text, strlen(text), &errors), 0);
    ck_assert_int_eq(credentials_read(c, &errors), OB_ECONFIG);
    ck_assert_str_eq(errors.data,
                     "f.yaml:3: task 's': env_pass HOOK_SECRET: it holds a secret of task 'w'\n");
    done(c);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("sign");
    TCase *tc = tcase_create("signatures");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, signatures_are_those_of_the_published_vectors, 0, ROWS(vectors));
    tcase_add_test(tc, every_part_is_signed);
    suite_add_tcase(s, tc);

    tc = tcase_create("secrets");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, a_secret_is_whsec_and_the_base64_of_24_to_64_bytes, 0, ROWS(good));
    tcase_add_loop_test(tc, anything_else_is_refused_and_leaves_nothing_behind, 0, ROWS(bad));
    tcase_add_test(tc, a_nul_within_a_secret_is_refused);
    suite_add_tcase(s, tc);

    tc = tcase_create("credentials");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, a_secret_comes_from_a_file_or_a_variable, 0, 3);
    tcase_add_test(tc, no_secret_no_signature);
    tcase_add_test(tc, secrets_sign_in_their_order_until_they_end);
    tcase_add_loop_test(tc, a_bad_secret_file_is_named_and_not_shown, 0, ROWS(bad_files));
    tcase_add_loop_test(tc, a_secret_is_read_from_a_regular_file_alone, 0, 3);
    tcase_add_test(tc, a_variable_that_is_not_set_is_named);
    tcase_add_test(tc, a_secrets_variable_is_not_passed_to_a_command);
    suite_add_tcase(s, tc);
    return s;
}
