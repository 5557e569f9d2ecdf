/* Allocation failures: loading, printing and converting are repeated with the n-th allocation
 * failing, once and from there on, for n = 0, 1, 2 ... until none failed. Each run says OB_ENOMEM
 * or succeeds, and leaves nothing behind. malloc is replaced in this program, libyaml's calls
 * included. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/payload.h"
#include "ck_main.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif

#ifdef HAS_ASAN
Suite *test_suite(void)
{
    test_skip_all("AddressSanitizer has the allocator");
    return NULL;
}
#else

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static long countdown = -1; /* allocations left until one fails; -1: none fails */
static bool for_ever;
static bool fired;
static bool fired_in_libyaml;
static long live;

static bool is_libyaml(void *caller)
{
    Dl_info info;
    return dladdr(caller, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "libyaml") != NULL;
}

static bool fails(void *caller)
{
    if (countdown < 0)
        return false;
    if (countdown > 0) {
        countdown--;
        return false;
    }
    fired = true;
    fired_in_libyaml = fired_in_libyaml || is_libyaml(caller);
    if (!for_ever)
        countdown = -1;
    return true;
}

void *malloc(size_t n)
{
    void *p = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
    live += p != NULL ? 1 : 0;
    return p;
}

void *calloc(size_t count, size_t n)
{
    void *p = fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, n);
    live += p != NULL ? 1 : 0;
    return p;
}

void *realloc(void *old, size_t n)
{
    void *p = fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, n);
    live += p != NULL && old == NULL ? 1 : 0;
    return p;
}

void free(void *p)
{
    live -= p != NULL ? 1 : 0;
    __libc_free(p);
}

static const char text[] =
    "database: dbname=shop password=x\n"
    "name: me\n"
    "tasks:\n"
    "  a: {exec: [sh, \"{id}\"], path: \"/usr/bin:/bin\", env: {A: b, C: d}, retry_schedule: [1s, "
    "2s]}\n"
    "  b: {webhook: \"http://h\", headers: {X: y}, proxy: \"http://u:p@h:1\"}\n"
    "  c: {shell: x}\n";

/* 0 or the error of the first step that failed. */
static int load_and_print(void)
{
    struct buf errors;
    struct buf out;
    long before = live;
    buf_init(&errors, 65536);
    buf_init(&out, 65536);
    long saved = countdown;
    countdown = -1;
    struct config *c = config_new(); /* dies without memory, as documented */
    countdown = saved;
    int err = config_load_text(c, "f.yaml", text, strlen(text), &errors);
    if (err == 0)
        err = config_add_task(c, HANDLER_EXEC, "d=/bin/true", &errors);
    if (err == 0)
        err = config_finish(c, &errors);
    if (err == 0) {
        config_print(c, &out);
        err = out.err;
    }
    countdown = -1;
    config_unref(c);
    buf_deinit(&errors);
    buf_deinit(&out);
    /* libyaml 0.2.5 itself forgets a node's tag when its document cannot grow. */
    if (!fired_in_libyaml)
        ck_assert_int_eq(live, before);
    return err;
}

static int convert(void)
{
    static const char packed[] =
        "\x82\x92\x01\xa1x\x93\x01\xc4\x03xyz\xa3one\x81\x81\x01\x02\xcb\x3f\xb9\x99\x99\x99"
        "\x99\x99\x9a\x07";
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    long before = live;
    buf_init(&out, 65536);
    int err = payload_msgpack_to_json(packed, sizeof packed - 1, &out, error);
    countdown = -1;
    buf_deinit(&out);
    ck_assert_int_eq(live, before);
    return err;
}

static void fail_each(int (*run)(void))
{
    ck_assert_int_eq(run(), 0);
    for (int repeat = 0; repeat < 2; repeat++) {
        long n = 0;
        do {
            for_ever = repeat == 1;
            fired = false;
            fired_in_libyaml = false;
            countdown = n++;
            int err = run();
            countdown = -1;
            ck_assert_int_eq(err, fired ? OB_ENOMEM : 0);
        } while (fired && n < 10000);
        ck_assert_int_gt(n, 2);
        ck_assert_int_lt(n, 10000);
    }
}

START_TEST(a_configuration_survives_every_allocation_failure)
{
    fail_each(load_and_print);
}
END_TEST

START_TEST(a_conversion_survives_every_allocation_failure)
{
    fail_each(convert);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("base without memory");
    TCase *tcase = tcase_create("failing allocations");
    tcase_set_timeout(tcase, TIMEOUT_UNIT_S);
    tcase_add_test(tcase, a_configuration_survives_every_allocation_failure);
    tcase_add_test(tcase, a_conversion_survives_every_allocation_failure);
    suite_add_tcase(suite, tcase);
    return suite;
}
#endif
