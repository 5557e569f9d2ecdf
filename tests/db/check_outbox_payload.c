/* The payload builder of outbox.h. No server: the oracle is msgpack-c, told the counts in advance,
 * and its unpacker. */
#include <outbox/outbox.h>

#include <msgpack.h>

#include "ck_main.h"

static struct outbox_payload p;
static msgpack_sbuffer want_bytes;
static msgpack_packer want;

static void set_up(void)
{
    outbox_payload_init(&p);
    msgpack_sbuffer_init(&want_bytes);
    msgpack_packer_init(&want, &want_bytes, msgpack_sbuffer_write);
}

static void tear_down(void)
{
    outbox_payload_free(&p);
    msgpack_sbuffer_destroy(&want_bytes);
}

static void want_str(const char *text)
{
    msgpack_pack_str_with_body(&want, text, strlen(text));
}

static void expect_same(void)
{
    size_t len;
    const char *bytes = outbox_payload_bytes(&p, &len);

    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_OK);
    ck_assert_uint_eq(len, want_bytes.size);
    ck_assert_mem_eq(bytes, want_bytes.data, len);
}

/* --- forms --- */

static const size_t counts[] = {0, 1, 15, 16, 17, 255, 65535, 65536, 65540};

START_TEST(map_of_any_count_is_what_msgpack_packs)
{
    size_t n = counts[_i];
    char key[32];

    ck_assert_int_eq(outbox_begin_map(&p, NULL), OUTBOX_OK);
    msgpack_pack_map(&want, n);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "k%zu", i);
        ck_assert_int_eq(outbox_put_uint(&p, key, i), OUTBOX_OK);
        want_str(key);
        msgpack_pack_uint64(&want, i);
    }
    ck_assert_int_eq(outbox_end(&p), OUTBOX_OK);
    expect_same();
}
END_TEST

START_TEST(array_of_any_count_is_what_msgpack_packs)
{
    size_t n = counts[_i];

    ck_assert_int_eq(outbox_begin_array(&p, "items"), OUTBOX_OK);
    msgpack_pack_map(&want, 1);
    want_str("items");
    msgpack_pack_array(&want, n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_int_eq(outbox_put_int(&p, NULL, -(int64_t)i), OUTBOX_OK);
        msgpack_pack_int64(&want, -(int64_t)i);
    }
    ck_assert_int_eq(outbox_end(&p), OUTBOX_OK);
    expect_same();
}
END_TEST

START_TEST(every_scalar_is_what_msgpack_packs)
{
    static const int64_t ints[] = {
        0,   1,     -1,    127,    128,     -32,     -33,       -128,      -129,       255,
        256, 65535, 65536, -32769, INT_MAX, INT_MIN, INT64_MAX, INT64_MIN, 4294967295, 4294967296};
    static const struct {
        int64_t seconds;
        uint32_t nanoseconds;
    } times[] = {{0, 0}, {1700000000, 0}, {1700000000, 999999999}, {17179869184, 1}, {-1, 5}};

    ck_assert_int_eq(outbox_begin_array(&p, NULL), OUTBOX_OK);
    msgpack_pack_array(&want, 2 * 20 + 5 + 8);
    for (size_t i = 0; i < 20; i++) {
        (void)outbox_put_int(&p, NULL, ints[i]);
        msgpack_pack_int64(&want, ints[i]);
        (void)outbox_put_uint(&p, NULL, (uint64_t)ints[i]);
        msgpack_pack_uint64(&want, (uint64_t)ints[i]);
    }
    for (size_t i = 0; i < 5; i++) {
        msgpack_timestamp ts = {times[i].seconds, times[i].nanoseconds};
        (void)outbox_put_timestamp(&p, NULL, times[i].seconds, times[i].nanoseconds);
        msgpack_pack_timestamp(&want, &ts);
    }
    (void)outbox_put_bool(&p, NULL, true);
    msgpack_pack_true(&want);
    (void)outbox_put_bool(&p, NULL, false);
    msgpack_pack_false(&want);
    (void)outbox_put_null(&p, NULL);
    msgpack_pack_nil(&want);
    (void)outbox_put_str(&p, NULL, NULL);
    msgpack_pack_nil(&want);
    (void)outbox_put_double(&p, NULL, -0.25);
    msgpack_pack_double(&want, -0.25);
    (void)outbox_put_strn(&p, NULL, "a\0b", 3);
    msgpack_pack_str_with_body(&want, "a\0b", 3);
    (void)outbox_put_bin(&p, NULL, "\xff\0", 2);
    msgpack_pack_bin_with_body(&want, "\xff\0", 2);
    (void)outbox_put_bin(&p, NULL, NULL, 0);
    msgpack_pack_bin(&want, 0);
    (void)outbox_end(&p);
    expect_same();
}
END_TEST

/* A random tree, built twice: by the builder, and by msgpack-c with the counts known. */
static uint32_t seed;

static uint32_t next_random(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void build_random(const char *key, unsigned depth)
{
    static const unsigned sizes[] = {0, 1, 3, 14, 15, 16, 17, 20};
    uint32_t kind = next_random(depth > 4 ? 3 : 5);
    char name[16];

    if (kind < 3) {
        int64_t value = (int64_t)next_random(1u << 20) - 1000;
        ck_assert_int_eq(outbox_put_int(&p, key, value), OUTBOX_OK);
        msgpack_pack_int64(&want, value);
        return;
    }
    unsigned n = sizes[next_random(8)];
    if (kind == 3) {
        ck_assert_int_eq(outbox_begin_map(&p, key), OUTBOX_OK);
        msgpack_pack_map(&want, n);
    } else {
        ck_assert_int_eq(outbox_begin_array(&p, key), OUTBOX_OK);
        msgpack_pack_array(&want, n);
    }
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(name, sizeof name, "m%u", i);
        if (kind == 3)
            want_str(name);
        build_random(kind == 3 ? name : NULL, depth + 1);
    }
    ck_assert_int_eq(outbox_end(&p), OUTBOX_OK);
}

START_TEST(random_trees_are_what_msgpack_packs)
{
    for (uint32_t round = 0; round < 200; round++) {
        seed = round * 7919;
        outbox_payload_clear(&p);
        msgpack_sbuffer_clear(&want_bytes);
        build_random(NULL, 0);
        expect_same();
    }
}
END_TEST

START_TEST(bytes_are_complete_after_every_put_into_the_root_map)
{
    for (int i = 0; i < 40; i++) {
        char key[16];
        size_t len;
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(outbox_put_int(&p, key, i), OUTBOX_OK);
        ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_OK);
        const char *bytes = outbox_payload_bytes(&p, &len);
        msgpack_unpacked u;
        size_t off = 0;
        msgpack_unpacked_init(&u);
        ck_assert_int_eq(msgpack_unpack_next(&u, bytes, len, &off), MSGPACK_UNPACK_SUCCESS);
        ck_assert_uint_eq(off, len);
        ck_assert_int_eq(u.data.type, MSGPACK_OBJECT_MAP);
        ck_assert_uint_eq(u.data.via.map.size, (unsigned)i + 1);
        msgpack_unpacked_destroy(&u);
    }
}
END_TEST

START_TEST(cleared_payload_starts_anew)
{
    ck_assert_int_eq(outbox_put_int(&p, NULL, 1), OUTBOX_OK);
    ck_assert_int_eq(outbox_put_int(&p, NULL, 1), OUTBOX_EINVAL);
    outbox_payload_clear(&p);
    ck_assert_int_eq(outbox_put_int(&p, "a", 1), OUTBOX_OK);
    msgpack_pack_map(&want, 1);
    want_str("a");
    msgpack_pack_int(&want, 1);
    expect_same();
}
END_TEST

START_TEST(freeing_nothing_or_twice_is_fine)
{
    outbox_payload_free(NULL);
    (void)outbox_put_int(&p, "a", 1);
    outbox_payload_free(&p);
    outbox_payload_free(&p);
    ck_assert_int_eq(outbox_put_int(&p, "a", 1), OUTBOX_OK);
}
END_TEST

/* --- errors --- */

static int put_root_map(void)
{
    return outbox_put_int(&p, "a", 1);
}
static int wrong_key_in_array(void)
{
    (void)outbox_begin_array(&p, "a");
    return outbox_put_int(&p, "k", 1);
}
static int wrong_no_key_in_map(void)
{
    (void)put_root_map();
    return outbox_put_int(&p, NULL, 1);
}
static int wrong_begin_without_key_in_map(void)
{
    (void)put_root_map();
    return outbox_begin_map(&p, NULL);
}
static int wrong_second_root(void)
{
    (void)outbox_put_int(&p, NULL, 1);
    return outbox_put_int(&p, NULL, 1);
}
static int wrong_key_after_scalar_root(void)
{
    (void)outbox_put_int(&p, NULL, 1);
    return outbox_put_int(&p, "a", 1);
}
static int wrong_put_after_ended_root(void)
{
    (void)outbox_begin_map(&p, NULL);
    (void)outbox_end(&p);
    return outbox_put_int(&p, "a", 1);
}
static int wrong_end_of_nothing(void)
{
    return outbox_end(&p);
}
static int wrong_end_of_root_map(void)
{
    (void)put_root_map();
    return outbox_end(&p);
}
static int wrong_utf8_text(void)
{
    return outbox_put_str(&p, "a", "caf\xe9");
}
static int wrong_utf8_key(void)
{
    return outbox_put_str(&p, "\xff", "x");
}
static int wrong_nanoseconds(void)
{
    return outbox_put_timestamp(&p, "t", 1, 1000000000u);
}
static int wrong_null_text(void)
{
    return outbox_put_strn(&p, "a", NULL, 3);
}
static int wrong_null_bytes(void)
{
    return outbox_put_bin(&p, "a", NULL, 3);
}
static int wrong_json_after_values(void)
{
    (void)put_root_map();
    return outbox_payload_set_json(&p, "{}", 2);
}
static int wrong_json_empty(void)
{
    return outbox_payload_set_json(&p, "", 0);
}
static int wrong_put_after_json(void)
{
    (void)outbox_payload_set_json(&p, "{}", 2);
    return outbox_put_int(&p, "a", 1);
}
static int wrong_raw_nothing(void)
{
    return outbox_put_msgpack(&p, "a", NULL, 0);
}
static int wrong_raw_two_values(void)
{
    return outbox_put_msgpack(&p, "a", "\x01\x02", 2);
}

static int (*const wrongs[])(void) = {
    wrong_key_in_array,
    wrong_no_key_in_map,
    wrong_begin_without_key_in_map,
    wrong_second_root,
    wrong_end_of_nothing,
    wrong_key_after_scalar_root,
    wrong_put_after_ended_root,
    wrong_end_of_root_map,
    wrong_utf8_text,
    wrong_utf8_key,
    wrong_nanoseconds,
    wrong_null_text,
    wrong_null_bytes,
    wrong_json_after_values,
    wrong_json_empty,
    wrong_put_after_json,
    wrong_raw_nothing,
    wrong_raw_two_values,
};

START_TEST(wrong_use_is_refused_sticks_and_enqueueing_says_why)
{
    struct outbox_job job = OUTBOX_JOB("task");
    struct outbox_error err;
    struct outbox_query q;
    size_t before;
    size_t after;

    ck_assert_int_eq(wrongs[_i](), OUTBOX_EINVAL);
    (void)outbox_payload_bytes(&p, &before);
    ck_assert_int_eq(outbox_put_str(&p, "later", "x"), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_begin_array(&p, "later"), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_EINVAL);
    (void)outbox_payload_bytes(&p, &after);
    ck_assert_uint_eq(before, after);
    job.payload = &p;
    ck_assert_int_eq(outbox_query_init(&q, &job, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(strncmp(err.message, "payload: ", 9), 0);
    ck_assert_uint_gt(strlen(err.message), 9);
}
END_TEST

START_TEST(failed_put_leaves_the_bytes_as_they_were)
{
    size_t before;
    size_t after;

    for (int i = 0; i < 15; i++)
        (void)outbox_put_int(&p, "key", i);
    (void)outbox_payload_bytes(&p, &before);
    ck_assert_int_eq(outbox_put_str(&p, "bad", "\xc0\x80"), OUTBOX_EINVAL);
    const char *bytes = outbox_payload_bytes(&p, &after);
    ck_assert_uint_eq(before, after);
    ck_assert_int_eq((unsigned char)bytes[0], 0x8f);
}
END_TEST

START_TEST(payload_with_an_open_array_is_refused)
{
    struct outbox_job job = OUTBOX_JOB("task");
    struct outbox_error err;
    struct outbox_query q;

    (void)outbox_begin_array(&p, "a");
    job.payload = &p;
    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_query_init(&q, &job, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.message, "not ended"));
}
END_TEST

START_TEST(null_payload_is_an_error_not_a_crash)
{
    ck_assert_int_eq(outbox_put_int(NULL, "a", 1), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_put_str(NULL, "a", "b"), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_put_bin(NULL, "a", "b", 1), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_put_msgpack(NULL, "a", "\xc0", 1), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_put_timestamp(NULL, "a", 1, 1), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_begin_map(NULL, "a"), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_end(NULL), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_payload_set_json(NULL, "{}", 2), OUTBOX_EINVAL);
}
END_TEST

/* --- limits --- */

START_TEST(payload_of_16_mib_fits_and_a_byte_more_does_not)
{
    enum { MAX = OUTBOX_PAYLOAD_BYTES_MAX, HEAD = 1 + 2 + 5 }; /* map, "k", bin32 */
    char *big = calloc(1, MAX);

    ck_assert_ptr_nonnull(big);
    ck_assert_int_eq(outbox_put_bin(&p, "k", big, MAX - HEAD), OUTBOX_OK);
    size_t len;
    (void)outbox_payload_bytes(&p, &len);
    ck_assert_uint_eq(len, MAX);
    ck_assert_int_eq(outbox_put_null(&p, ""), OUTBOX_ETOOBIG);
    ck_assert_int_eq(outbox_payload_error(&p), OUTBOX_ETOOBIG);
    outbox_payload_clear(&p);
    ck_assert_int_eq(outbox_put_bin(&p, "k", big, MAX - HEAD + 1), OUTBOX_ETOOBIG);
    outbox_payload_clear(&p);
    ck_assert_int_eq(outbox_put_strn(&p, "k", big, (size_t)MAX + 1), OUTBOX_ETOOBIG);
    free(big);
}
END_TEST

START_TEST(growing_header_counts_towards_the_limit)
{
    enum { MAX = OUTBOX_PAYLOAD_BYTES_MAX };
    char *big = calloc(1, MAX);

    ck_assert_ptr_nonnull(big);
    (void)outbox_begin_array(&p, NULL);
    ck_assert_int_eq(outbox_put_bin(&p, NULL, big, MAX - 1 - 5 - 15), OUTBOX_OK);
    for (int i = 0; i < 14; i++)
        ck_assert_int_eq(outbox_put_null(&p, NULL), OUTBOX_OK);
    /* one byte is left: the sixteenth member would fit, but not the larger header */
    ck_assert_int_eq(outbox_put_null(&p, NULL), OUTBOX_ETOOBIG);
    free(big);
}
END_TEST

START_TEST(depth_is_bounded)
{
    for (int i = 0; i < OUTBOX_PAYLOAD_DEPTH_MAX; i++)
        ck_assert_int_eq(outbox_begin_array(&p, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_begin_array(&p, NULL), OUTBOX_EINVAL);
}
END_TEST

START_TEST(depth_counts_raw_msgpack_in_its_place)
{
    char nested[OUTBOX_PAYLOAD_DEPTH_MAX + 2];

    memset(nested, '\x91', sizeof nested);
    nested[OUTBOX_PAYLOAD_DEPTH_MAX] = '\xc0';
    ck_assert_int_eq(outbox_put_msgpack(&p, NULL, nested, OUTBOX_PAYLOAD_DEPTH_MAX + 1), OUTBOX_OK);
    outbox_payload_clear(&p);
    ck_assert_int_eq(outbox_put_msgpack(&p, "k", nested, OUTBOX_PAYLOAD_DEPTH_MAX + 1),
                     OUTBOX_EINVAL);
    outbox_payload_clear(&p);
    ck_assert_int_eq(outbox_put_msgpack(&p, "k", nested + 1, OUTBOX_PAYLOAD_DEPTH_MAX), OUTBOX_OK);
}
END_TEST

/* --- parsers --- */

/* The oracle knows no depth limit that inputs this short could reach. */
static bool library_accepts(const char *bytes, size_t len)
{
    msgpack_unpacked u;
    size_t off = 0;

    msgpack_unpacked_init(&u);
    bool accepted = msgpack_unpack_next(&u, bytes, len, &off) == MSGPACK_UNPACK_SUCCESS;
    msgpack_unpacked_destroy(&u);
    return accepted && off == len;
}

START_TEST(raw_msgpack_is_accepted_exactly_when_the_library_does)
{
    unsigned accepted = 0;

    seed = 42;
    for (unsigned round = 0; round < 200000; round++) {
        size_t len = 1 + next_random(24);
        char *bytes = malloc(len); /* exactly as long, so that ASan sees a read behind it */
        ck_assert_ptr_nonnull(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] =
                (char)(next_random(4) ? 0x80 + (int)next_random(0x60) : (int)next_random(256));
        for (size_t i = 0; i < len; i++) /* the library would allocate for the count at once */
            if (bytes[i] == '\xdd' || bytes[i] == '\xdf')
                bytes[i] = '\x91';
        if (round % 2 == 0)
            bytes[len - 1] = 1;
        bool want_ok = library_accepts(bytes, len);
        bool is_ok = outbox_priv_msgpack_check(bytes, len, OUTBOX_PAYLOAD_DEPTH_MAX) == NULL;
        ck_assert_msg(is_ok == want_ok, "round %u: %d, library %d", round, is_ok, want_ok);
        accepted += is_ok;
        free(bytes);
    }
    ck_assert_uint_gt(accepted, 1000);
}
END_TEST

START_TEST(raw_msgpack_of_every_tag_is_measured_right)
{
    char bytes[512];

    for (int tag = 0; tag < 256; tag++) {
        memset(bytes, 0, sizeof bytes);
        bytes[0] = (char)tag;
        for (size_t len = 1; len <= 64; len++)
            ck_assert_int_eq(outbox_priv_msgpack_check(bytes, len, 8) == NULL,
                             library_accepts(bytes, len));
    }
}
END_TEST

static const struct {
    const char *text;
    bool is_utf8;
} utf8[] = {
    {"", true},
    {"plain", true},
    {"\xc3\xa9", true},
    {"\xe2\x82\xac", true},
    {"\xf0\x9f\x98\x80", true},
    {"\xf4\x8f\xbf\xbf", true},
    {"\xed\x9f\xbf", true},
    {"\xef\xbf\xbf", true},
    {"\x80", false},
    {"\xc3", false},
    {"\xc0\x80", false},
    {"\xc1\xbf", false},
    {"\xe0\x80\x80", false},
    {"\xe0\x9f\xbf", false},
    {"\xed\xa0\x80", false},
    {"\xf0\x8f\xbf\xbf", false},
    {"\xf4\x90\x80\x80", false},
    {"\xf5\x80\x80\x80", false},
    {"\xe2\x82", false},
    {"\xe2\x28\xa1", false},
    {"a\xff", false},
};

START_TEST(text_must_be_utf8)
{
    int want_rc = utf8[_i].is_utf8 ? OUTBOX_OK : OUTBOX_EINVAL;

    ck_assert_int_eq(outbox_put_str(&p, "k", utf8[_i].text), want_rc);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("outbox_payload");
    TCase *forms = tcase_create("forms");
    TCase *errors = tcase_create("errors");
    TCase *limits = tcase_create("limits");
    TCase *parsers = tcase_create("parsers");
    TCase *all[] = {forms, errors, limits, parsers};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        tcase_set_timeout(all[i], TIMEOUT_DB_S);
        tcase_add_checked_fixture(all[i], set_up, tear_down);
        suite_add_tcase(s, all[i]);
    }
    tcase_add_loop_test(forms, map_of_any_count_is_what_msgpack_packs, 0, 9);
    tcase_add_loop_test(forms, array_of_any_count_is_what_msgpack_packs, 0, 9);
    tcase_add_test(forms, every_scalar_is_what_msgpack_packs);
    tcase_add_test(forms, random_trees_are_what_msgpack_packs);
    tcase_add_test(forms, bytes_are_complete_after_every_put_into_the_root_map);
    tcase_add_test(forms, cleared_payload_starts_anew);
    tcase_add_test(forms, freeing_nothing_or_twice_is_fine);
    tcase_add_loop_test(errors, wrong_use_is_refused_sticks_and_enqueueing_says_why, 0,
                        sizeof wrongs / sizeof *wrongs);
    tcase_add_test(errors, failed_put_leaves_the_bytes_as_they_were);
    tcase_add_test(errors, payload_with_an_open_array_is_refused);
    tcase_add_test(errors, null_payload_is_an_error_not_a_crash);
    tcase_add_test(limits, payload_of_16_mib_fits_and_a_byte_more_does_not);
    tcase_add_test(limits, growing_header_counts_towards_the_limit);
    tcase_add_test(limits, depth_is_bounded);
    tcase_add_test(limits, depth_counts_raw_msgpack_in_its_place);
    tcase_add_test(parsers, raw_msgpack_is_accepted_exactly_when_the_library_does);
    tcase_add_test(parsers, raw_msgpack_of_every_tag_is_measured_right);
    tcase_add_loop_test(parsers, text_must_be_utf8, 0, sizeof utf8 / sizeof *utf8);
    return s;
}
