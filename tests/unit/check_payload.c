/* payload: msgpack to JSON against a table; every result must be JSON. Input ends at
 * a page that faults when read, so one byte too many fails the test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <jansson.h>
#include <msgpack/pack.h>
#include <msgpack/sbuffer.h>

#include "base/payload.h"
#include "ck_main.h"

enum { OUT_MAX = 64 * 1024 * 1024 };

/* A copy that ends at a PROT_NONE page. */
static char *guarded_copy(const void *bytes, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (len + page - 1) / page * page;
    char *area =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(area, MAP_FAILED);
    ck_assert_int_eq(mprotect(area + room, page, PROT_NONE), 0);
    if (len > 0)
        memcpy(area + room - len, bytes, len);
    return area + room - len;
}

static void guarded_free(char *at, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (len + page - 1) / page * page;
    ck_assert_int_eq(munmap(at + len - room, room + page), 0);
}

static int convert(const void *bytes, size_t len, struct buf *out, char *reterr)
{
    char *at = guarded_copy(bytes, len);
    int err = payload_msgpack_to_json(at, len, out, reterr);
    guarded_free(at, len);
    return err;
}

#define B(literal) (literal), sizeof(literal) - 1
static const struct {
    const char *bytes;
    size_t len;
    const char *json;
} values[] = {
    {B("\xc0"), "null"},
    {B("\xc2"), "false"},
    {B("\xc3"), "true"},
    {B("\x00"), "0"},
    {B("\x7f"), "127"},
    {B("\xe0"), "-32"},
    {B("\xff"), "-1"},
    {B("\xcc\xff"), "255"},
    {B("\xcd\xff\xff"), "65535"},
    {B("\xce\xff\xff\xff\xff"), "4294967295"},
    {B("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615"},
    {B("\xd0\x80"), "-128"},
    {B("\xd1\x80\x00"), "-32768"},
    {B("\xd2\x80\x00\x00\x00"), "-2147483648"},
    {B("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), "-9223372036854775808"},
    {B("\xd3\x7f\xff\xff\xff\xff\xff\xff\xff"), "9223372036854775807"},
    {B("\xca\x3f\x80\x00\x00"), "1.0"},
    {B("\xca\x3d\xcc\xcc\xcd"), "0.10000000149011612"},
    {B("\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"), "0.1"},
    {B("\xcb\x80\x00\x00\x00\x00\x00\x00\x00"), "-0.0"},
    {B("\xcb\x44\x4b\x1a\xe4\xd6\xe2\xef\x50"), "1e+21"},
    {B("\xcb\x7f\xef\xff\xff\xff\xff\xff\xff"), "1.7976931348623157e+308"},
    {B("\xcb\x00\x00\x00\x00\x00\x00\x00\x01"), "4.94065645841247e-324"},
    {B("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "null"},
    {B("\xcb\xff\xf0\x00\x00\x00\x00\x00\x00"), "null"},
    {B("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), "null"},
    {B("\xca\x7f\xc0\x00\x00"), "null"},
    {B("\xa0"), "\"\""},
    {B("\xa3\"\\\n"), "\"\\\"\\\\\\n\""},
    {B("\xa2\x00\x1f"), "\"\\u0000\\u001f\""},
    {B("\xd9\x02\xc3\xbc"), "\"\xc3\xbc\""},
    {B("\xda\x00\x01x"), "\"x\""},
    {B("\xdb\x00\x00\x00\x01x"), "\"x\""},
    {B("\xa3\xff\x61\xc3"), "\"\xef\xbf\xbd\x61\xef\xbf\xbd\""},
    {B("\xa3\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {B("\xc4\x00"), "\"\""},
    {B("\xc4\x01\x00"), "\"AA==\""},
    {B("\xc5\x00\x02\x00\xff"), "\"AP8=\""},
    {B("\xc6\x00\x00\x00\x03\xfb\xef\xff"), "\"++//\""},
    {B("\x90"), "[]"},
    {B("\x93\x01\xa1x\x90"), "[1,\"x\",[]]"},
    {B("\xdc\x00\x01\xc0"), "[null]"},
    {B("\xdd\x00\x00\x00\x02\x01\x02"), "[1,2]"},
    {B("\x80"), "{}"},
    {B("\x82\xa1\x61\x01\xa1\x62\x91\xc3"), "{\"a\":1,\"b\":[true]}"},
    {B("\xde\x00\x01\xa1\x61\x01"), "{\"a\":1}"},
    {B("\xdf\x00\x00\x00\x01\xa1\x61\x01"), "{\"a\":1}"},
    {B("\x81\x07\x01"), "{\"7\":1}"},
    {B("\x81\xc0\x01"), "{\"null\":1}"},
    {B("\x81\xc3\x01"), "{\"true\":1}"},
    {B("\x81\xca\x3f\xc0\x00\x00\x01"), "{\"1.5\":1}"},
    {B("\x81\xc4\x01\x00\x01"), "{\"AA==\":1}"},
    {B("\x81\x92\x01\xa1x\x01"), "{\"[1,\\\"x\\\"]\":1}"},
    {B("\x81\x81\xa1\x61\x01\xc0"), "{\"{\\\"a\\\":1}\":null}"},
    {B("\x81\xd6\xff\x00\x00\x00\x00\x01"), "{\"1970-01-01T00:00:00Z\":1}"},
    {B("\x81\xd4\x05\x00\x01"), "{\"{\\\"ext\\\":5,\\\"data\\\":\\\"AA==\\\"}\":1}"},
    {B("\xd6\xff\x65\x92\x00\x80"), "\"2024-01-01T00:00:00Z\""},
    {B("\xd7\xff\x77\x35\x93\xfc\x65\x92\x00\x80"), "\"2024-01-01T00:00:00.499999999Z\""},
    {B("\xd7\xff\x07\x27\x0e\x00\x65\x92\x00\x80"), "\"2024-01-01T00:00:00.030Z\""},
    {B("\xc7\x0c\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"), "\"1969-12-31T23:59:59Z\""},
    {B("\xc7\x0c\xff\x00\x00\x03\xe8\xff\xff\xff\xf1\x86\x8b\x84\x00"),
     "\"0000-01-01T00:00:00.000001Z\""},
    {B("\xc7\x0c\xff\x00\x00\x00\x00\x00\x00\x00\x3a\xff\xf4\x41\x7f"), "\"9999-12-31T23:59:59Z\""},
    {B("\xc7\x0c\xff\x00\x00\x00\x00\x00\x00\x00\x3a\xff\xf4\x41\x80"),
     "{\"ext\":-1,\"data\":\"AAAAAAAAADr/9EGA\"}"},
    {B("\xc7\x0c\xff\x3b\x9a\xca\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
     "{\"ext\":-1,\"data\":\"O5rKAAAAAAAAAAAA\"}"},
    {B("\xd5\xff\x00\x00"), "{\"ext\":-1,\"data\":\"AAA=\"}"},
    {B("\xd4\x05\x2a"), "{\"ext\":5,\"data\":\"Kg==\"}"},
    {B("\xd8\x80"
       "0123456789abcdef"),
     "{\"ext\":-128,\"data\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"}"},
    {B("\xc7\x00\x7f"), "{\"ext\":127,\"data\":\"\"}"},
    {B("\xc8\x00\x01\x01\x00"), "{\"ext\":1,\"data\":\"AA==\"}"},
    {B("\xc9\x00\x00\x00\x01\x01\x00"), "{\"ext\":1,\"data\":\"AA==\"}"},
};

START_TEST(msgpack_becomes_json)
{
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    buf_init(&out, OUT_MAX);
    ck_assert_int_eq(convert(values[_i].bytes, values[_i].len, &out, error), 0);
    ck_assert_str_eq(out.data, values[_i].json);
    ck_assert_str_eq(error, "");
    ck_assert_int_eq(payload_check_json(out.data, out.len, error), 0);
    buf_deinit(&out);
}
END_TEST

/* Every beginning of every value of the table is cut short, and nothing is read behind its end. */
START_TEST(truncated_values_are_refused)
{
    char error[PAYLOAD_ERROR_SIZE];
    char wanted[64];
    for (size_t len = 0; len < values[_i].len; len++) {
        struct buf out;
        buf_init(&out, OUT_MAX);
        ck_assert_int_eq(convert(values[_i].bytes, len, &out, error), OB_ESYNTAX);
        (void)snprintf(wanted, sizeof wanted, "msgpack is cut short at byte %zu", len);
        ck_assert_str_eq(error, wanted);
        buf_deinit(&out);
    }
}
END_TEST

static const struct {
    const char *bytes;
    size_t len;
    const char *error;
} bad[] = {
    {B("\xc1"), "0xc1 is not msgpack at byte 0"},
    {B("\x92\x01\xc1"), "0xc1 is not msgpack at byte 2"},
    {B("\x01\x02\x03"), "2 bytes left over at byte 1"},
    {B("\xdd\xff\xff\xff\xff"), "msgpack is cut short at byte 5"},
    {B("\xdf\xff\xff\xff\xff\x01\x02"), "msgpack is cut short at byte 7"},
    {B("\xdb\xff\xff\xff\xffx"), "msgpack is cut short at byte 6"},
    {B("\xc6\xff\xff\xff\xff"), "msgpack is cut short at byte 5"},
    {B("\xc9\xff\xff\xff\xff\x01"), "msgpack is cut short at byte 6"},
};

START_TEST(malformed_msgpack_is_refused_with_its_place)
{
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    buf_init(&out, OUT_MAX);
    ck_assert_int_eq(convert(bad[_i].bytes, bad[_i].len, &out, error), OB_ESYNTAX);
    ck_assert_str_eq(error, bad[_i].error);
    ck_assert_uint_lt(out.cap, 1024); /* what the header claimed was not reserved */
    buf_deinit(&out);
}
END_TEST

/* Arrays, and maps within values and within keys. */
START_TEST(nesting_is_bounded)
{
    static const struct {
        const char *open;
        const char *inner;
    } kinds[] = {{"\x91", "\x01"}, {"\x81\x01", "\x01"}, {"\x81", "\x01"}};
    char error[PAYLOAD_ERROR_SIZE];
    for (int extra = 0; extra < 2; extra++) {
        struct buf in;
        struct buf out;
        buf_init(&in, OUT_MAX);
        buf_init(&out, OUT_MAX);
        for (int i = 0; i < PAYLOAD_DEPTH_MAX + extra; i++)
            buf_puts(&in, kinds[_i].open);
        buf_puts(&in, kinds[_i].inner);
        for (int i = 0; _i == 2 && i < PAYLOAD_DEPTH_MAX + extra; i++)
            buf_puts(&in, "\x01");
        int err = convert(in.data, in.len, &out, error);
        if (_i < 2 && extra == 0)
            ck_assert_int_eq(err, 0);
        else
            ck_assert_int_eq(err, OB_ESYNTAX);
        if (_i < 2 && extra == 1)
            ck_assert_ptr_nonnull(strstr(error, "nested more than 128 deep at byte"));
        buf_deinit(&in);
        buf_deinit(&out);
    }
}
END_TEST

/* Maps in keys double the backslashes with every level: few are fine, many are refused, none
 * explode. */
START_TEST(maps_in_keys_do_not_explode)
{
    char error[PAYLOAD_ERROR_SIZE];
    for (int depth = 1; depth < 100; depth++) {
        struct buf in;
        struct buf out;
        buf_init(&in, OUT_MAX);
        buf_init(&out, OUT_MAX);
        for (int i = 0; i < depth; i++)
            buf_puts(&in, "\x81");
        for (int i = 0; i <= depth; i++)
            buf_puts(&in, "\x01");
        int err = convert(in.data, in.len, &out, error);
        if (depth <= 10)
            ck_assert_int_eq(err, 0);
        if (depth >= 20) {
            ck_assert_int_eq(err, OB_ESYNTAX);
            ck_assert_ptr_nonnull(strstr(error, "map key of more than 65536 bytes"));
        }
        if (err == 0)
            ck_assert_int_eq(payload_check_json(out.data, out.len, error), 0);
        buf_deinit(&in);
        buf_deinit(&out);
    }
}
END_TEST

START_TEST(output_is_bounded)
{
    static char nils[1000];
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    memset(nils, '\xc0', sizeof nils);
    memcpy(nils, "\xdc\x03\xe5", 3); /* 997 */
    buf_init(&out, 4985 + 1);
    ck_assert_int_eq(convert(nils, sizeof nils, &out, error), 0);
    buf_deinit(&out);
    buf_init(&out, 4985);
    ck_assert_int_eq(convert(nils, sizeof nils, &out, error), OB_ETOOBIG);
    ck_assert_str_eq(error, ob_strerror(OB_ETOOBIG));
    buf_deinit(&out);
}
END_TEST

/* A number sequence through all exponents: what is printed reads back as the same double. */
START_TEST(doubles_read_back_as_they_were)
{
    uint64_t state = 88172645463325252U;
    for (int i = 0; i < 20000; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        unsigned char bytes[9] = {0xcb};
        for (int j = 0; j < 8; j++)
            bytes[1 + j] = (unsigned char)(state >> (56 - 8 * j));
        double value = 0;
        memcpy(&value, &state, sizeof value);
        char error[PAYLOAD_ERROR_SIZE];
        struct buf out;
        buf_init(&out, OUT_MAX);
        ck_assert_int_eq(payload_msgpack_to_json(bytes, sizeof bytes, &out, error), 0);
        if (value - value == 0)
            ck_assert(strtod(out.data, NULL) == value);
        else
            ck_assert_str_eq(out.data, "null");
        buf_deinit(&out);
    }
}
END_TEST

/* What msgpack-c packs is what we read. */
START_TEST(values_packed_by_msgpack_c_are_read)
{
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    (void)msgpack_pack_map(&packer, 2);
    (void)msgpack_pack_str(&packer, 2);
    (void)msgpack_pack_str_body(&packer, "id", 2);
    (void)msgpack_pack_int64(&packer, INT64_MIN);
    (void)msgpack_pack_str(&packer, 4);
    (void)msgpack_pack_str_body(&packer, "list", 4);
    (void)msgpack_pack_array(&packer, 70000);
    for (int i = 0; i < 70000; i++)
        (void)msgpack_pack_int(&packer, i);
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    buf_init(&out, OUT_MAX);
    ck_assert_int_eq(convert(packed.data, packed.size, &out, error), 0);
    json_t *o = json_loadb(out.data, out.len, 0, NULL);
    ck_assert_ptr_nonnull(o);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "id")), INT64_MIN);
    json_t *list = json_object_get(o, "list");
    ck_assert_uint_eq(json_array_size(list), 70000);
    ck_assert_int_eq(json_integer_value(json_array_get(list, 69999)), 69999);
    json_decref(o);
    buf_deinit(&out);
    msgpack_sbuffer_destroy(&packed);
}
END_TEST

static const struct {
    const char *text;
    const char *error; /* "": good */
} json[] = {
    {"{}", ""},
    {"[]", ""},
    {" [1, -2.5e3, 0.1E+4, -0, null,true ,\r\n\tfalse]\n", ""},
    {"7", ""},
    {"\"x\"", ""},
    {"{\"a\":{\"b\":[{}, []]},\"\":[[1],{}]}", ""},
    {"123456789012345678901234567890", ""},
    {"1e400", ""},
    {"{\"a\":1,\"a\":2}", ""},
    {"{\"\\u0000\":\"\\u0000\\ud800\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", ""},
    {"\"\xc3\xbc\xf0\x9f\x98\x80\x7f\"", ""},
    {"", "line 1, column 1: expected a value, not the end"},
    {" \n ", "line 2, column 2: expected a value, not the end"},
    {"{\"a\":1,\n \"b\" 2}", "line 2, column 6: expected ':'"},
    {"[1,]", "line 1, column 4: expected a value"},
    {"[1 2]", "line 1, column 4: expected ',' or ']'"},
    {"[1}", "line 1, column 3: expected ',' or ']'"},
    {"[", "line 1, column 2: expected a value, not the end"},
    {"{\"a\":1]", "line 1, column 7: expected ',' or '}'"},
    {"{\"a\":1,}", "line 1, column 8: expected a name in double quotes"},
    {"{a:1}", "line 1, column 2: expected a name in double quotes"},
    {"{\"\xc3\xbc\":}", "line 1, column 6: expected a value"},
    {"{} {}", "line 1, column 4: expected nothing behind the value"},
    {"01", "line 1, column 2: expected nothing behind the value"},
    {"-", "line 1, column 2: expected a digit, not the end"},
    {"1.", "line 1, column 3: expected a digit, not the end"},
    {"1ex", "line 1, column 3: expected a digit"},
    {"+1", "line 1, column 1: expected a value"},
    {"nul", "line 1, column 1: expected a value"},
    {"NaN", "line 1, column 1: expected a value"},
    {"'a'", "line 1, column 1: expected a value"},
    {"\"a", "line 1, column 3: expected the closing quote, not the end"},
    {"\"a\nb\"", "line 1, column 3: expected control characters escaped"},
    {"\"\xff\"", "line 1, column 2: expected UTF-8"},
    {"\"\\x\"", "line 1, column 3: expected an escape: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX"},
    {"\"\\u12g4\"", "line 1, column 6: expected four hexadecimal digits"},
    {"\xef\xbb\xbf{}", "line 1, column 1: expected a value"},
};

/* The text ends at the unreadable page, so a check that looks further faults. */
START_TEST(json_is_checked_with_line_and_column)
{
    char error[PAYLOAD_ERROR_SIZE];
    size_t len = strlen(json[_i].text);
    char *at = guarded_copy(json[_i].text, len);
    int err = payload_check_json(at, len, error);
    ck_assert_str_eq(error, json[_i].error);
    ck_assert_int_eq(err, json[_i].error[0] == '\0' ? 0 : OB_ESYNTAX);
    guarded_free(at, len);
}
END_TEST

/* Every beginning of good JSON that is not JSON itself is refused without reading on. */
START_TEST(truncated_json_is_refused)
{
    static const char text[] = "{\"a\\u00e4\":[1.5e1,\"\xc3\xbc\",{\"b\":null},true],\"c\":false}";
    char error[PAYLOAD_ERROR_SIZE];
    for (size_t len = 0; len <= strlen(text); len++) {
        char *at = guarded_copy(text, len);
        ck_assert_int_eq(payload_check_json(at, len, error), len < strlen(text) ? OB_ESYNTAX : 0);
        guarded_free(at, len);
    }
}
END_TEST

START_TEST(json_nesting_is_bounded)
{
    static char text[2 * PAYLOAD_JSON_DEPTH_MAX + 2];
    char error[PAYLOAD_ERROR_SIZE];
    for (int extra = 0; extra < 2; extra++) {
        size_t depth = PAYLOAD_JSON_DEPTH_MAX + (size_t)extra;
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        int err = payload_check_json(text, 2 * depth, error);
        ck_assert_int_eq(err, extra == 0 ? 0 : OB_ESYNTAX);
    }
    ck_assert_str_eq(error, "line 1, column 2049: expected no deeper nesting");
}
END_TEST

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static const struct {
    const char *text, *error;
} jsonb[] = {
    {"\"\\u0001\\uD7FF\\uE000\\uffff\"", ""},
    {"\"\\ud800\\udc00 \\uDBFF\\uDFFF\"", ""},
    {"{\"a\\u0000b\": 1}",
     "line 1, column 10: expected no \\u0000, which PostgreSQL does not store"},
    {"\"\\\\u0000\"", ""}, /* an escaped backslash */
    {"\"\\ud800\"", "line 1, column 8: expected a whole surrogate pair"},
    {"\"\\udc00\\ud800\"", "line 1, column 8: expected a whole surrogate pair"},
    {"\"\\ud800\\ud800\"", "line 1, column 14: expected a whole surrogate pair"},
    {"\"\\ud800\\n12345\"", "line 1, column 8: expected a whole surrogate pair"},
    {"\"\\ud800\\u12g4\"", "line 1, column 12: expected a whole surrogate pair"},
    {"\"\\ud800\\u", "line 1, column 8: expected a whole surrogate pair"},
    {"[1,]", "line 1, column 4: expected a value"},
};

/* What is refused beyond JSON is exactly what jsonb refuses: as JSON it passes. */
START_TEST(jsonb_has_no_null_character_and_no_half_characters)
{
    char error[PAYLOAD_ERROR_SIZE];
    size_t len = strlen(jsonb[_i].text);
    char *at = guarded_copy(jsonb[_i].text, len);
    int err = payload_check_jsonb(at, len, error);
    ck_assert_str_eq(error, jsonb[_i].error);
    ck_assert_int_eq(err, jsonb[_i].error[0] == '\0' ? 0 : OB_ESYNTAX);
    guarded_free(at, len);
}
END_TEST

START_TEST(members_of_an_object_come_one_by_one)
{
    static const char text[] =
        " {\"a\" : {\"x\":[\"}\\\"\",{}]} ,\"b\\\"\":-1.5e3,\n\"\":\"s,}\", \"d\":[ ] }";
    static const char *const wanted[][2] = {
        {"a", "{\"x\":[\"}\\\"\",{}]}"}, {"b\\\"", "-1.5e3"}, {"", "\"s,}\""}, {"d", "[ ]"}};
    struct payload_member m;
    size_t len = strlen(text);
    char *at = guarded_copy(text, len);
    size_t pos = 0;
    for (size_t i = 0; i < 4; i++) {
        ck_assert(payload_next_member(at, len, &pos, &m));
        ck_assert_uint_eq(m.name_len, strlen(wanted[i][0]));
        ck_assert_int_eq(memcmp(m.name, wanted[i][0], m.name_len), 0);
        ck_assert_uint_eq(m.value_len, strlen(wanted[i][1]));
        ck_assert_int_eq(memcmp(m.value, wanted[i][1], m.value_len), 0);
    }
    ck_assert(!payload_next_member(at, len, &pos, &m));
    guarded_free(at, len);
    pos = 0;
    ck_assert(!payload_next_member("{ }", 3, &pos, &m));
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("payload");
    TCase *msgpack = tcase_create("msgpack");
    tcase_set_timeout(msgpack, TIMEOUT_UNIT_S);
    tcase_add_loop_test(msgpack, msgpack_becomes_json, 0, ROWS(values));
    tcase_add_loop_test(msgpack, truncated_values_are_refused, 0, ROWS(values));
    tcase_add_loop_test(msgpack, malformed_msgpack_is_refused_with_its_place, 0, ROWS(bad));
    tcase_add_loop_test(msgpack, nesting_is_bounded, 0, 3);
    tcase_add_test(msgpack, maps_in_keys_do_not_explode);
    tcase_add_test(msgpack, output_is_bounded);
    tcase_add_test(msgpack, doubles_read_back_as_they_were);
    tcase_add_test(msgpack, values_packed_by_msgpack_c_are_read);
    suite_add_tcase(suite, msgpack);
    TCase *text = tcase_create("json");
    tcase_add_loop_test(text, json_is_checked_with_line_and_column, 0, ROWS(json));
    tcase_add_test(text, truncated_json_is_refused);
    tcase_add_test(text, json_nesting_is_bounded);
    tcase_add_loop_test(text, jsonb_has_no_null_character_and_no_half_characters, 0, ROWS(jsonb));
    tcase_add_test(text, members_of_an_object_come_one_by_one);
    suite_add_tcase(suite, text);
    return suite;
}
