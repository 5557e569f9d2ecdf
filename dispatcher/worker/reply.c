/* reply.c - see reply.h. Called by process.c for every line of a worker. */
#include "worker/reply.h"

#include <string.h>

#include <jansson.h>

#include "base/assert.h"

static const double seconds_max = 365.0 * 24 * 3600;

/* The decimal number of a job's id as we write it: no sign, no leading zero, 1 to 19 digits. */
static bool parse_id(const char *s, size_t len, int64_t *ret_id)
{
    int64_t id = 0;
    if (len == 0 || len > 19 || s[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        int digit = s[i] - '0';
        if (digit < 0 || digit > 9 || id > (INT64_MAX - digit) / 10)
            return false;
        id = id * 10 + digit;
    }
    *ret_id = id;
    return true;
}

static const char *skip_blanks(const char *s, const char *end)
{
    while (s < end && (*s == ' ' || *s == '\t' || *s == '\r'))
        s++;
    return s;
}

/* Behind the token if it is next, else NULL. */
static const char *expect(const char *s, const char *end, const char *token, size_t len)
{
    if (s == NULL)
        return NULL;
    s = skip_blanks(s, end);
    if ((size_t)(end - s) < len || memcmp(s, token, len) != 0)
        return NULL;
    return s + len;
}
#define EXPECT(s, end, token) expect(s, end, token, sizeof(token) - 1)

/* {"id":"123","status":"ok"}, by far the most frequent line, without building a document. False:
 * the long way decides, to the same result. */
static bool parse_plain_ok(const char *line, size_t len, struct worker_reply *ret)
{
    const char *end = line + len;
    const char *s = EXPECT(line, end, "{");
    s = EXPECT(s, end, "\"id\"");
    s = EXPECT(s, end, ":");
    s = EXPECT(s, end, "\"");
    if (s == NULL)
        return false;
    const char *id = s;
    while (s < end && *s >= '0' && *s <= '9')
        s++;
    size_t digits = (size_t)(s - id);
    if (s == end || *s != '"' || !parse_id(id, digits, &ret->id))
        return false;
    s = EXPECT(s + 1, end, ",");
    s = EXPECT(s, end, "\"status\"");
    s = EXPECT(s, end, ":");
    s = EXPECT(s, end, "\"ok\"");
    s = EXPECT(s, end, "}");
    if (s == NULL || skip_blanks(s, end) != end)
        return false;
    ret->kind = REPLY_OK;
    return true;
}

/* ret_ms is unchanged when the member is absent or null. */
static const char *read_seconds(const json_t *object, const char *name, const char *wrong,
                                uint64_t *ret_ms)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL || json_is_null(value))
        return NULL;
    if (!json_is_number(value))
        return wrong;
    double seconds = json_number_value(value);
    if (!(seconds >= 0)) /* NaN, too */
        return wrong;
    double ms = (seconds < seconds_max ? seconds : seconds_max) * 1000;
    *ret_ms = (uint64_t)ms;
    if ((double)*ret_ms < ms) /* never sooner than asked for */
        (*ret_ms)++;
    return NULL;
}

static const char *read_ready(const json_t *object, struct worker_reply *ret)
{
    const json_t *proto = json_object_get(object, "proto");
    const json_t *window = json_object_get(object, "window");
    ret->kind = REPLY_READY;
    ret->window = 1;
    if (!json_is_integer(proto) || json_integer_value(proto) != WORKER_PROTO)
        return "ready without \"proto\":1";
    if (window == NULL)
        return NULL;
    if (!json_is_integer(window) || json_integer_value(window) < 1)
        return "\"window\" is not a whole number from 1 on";
    json_int_t n = json_integer_value(window);
    ret->window = n < 1000000 ? (unsigned)n : 1000000U;
    return NULL;
}

static const char *read_id(const json_t *object, struct worker_reply *ret)
{
    const json_t *id = json_object_get(object, "id");
    if (id == NULL)
        return "no \"id\"";
    if (!json_is_string(id) || !parse_id(json_string_value(id), json_string_length(id), &ret->id))
        return "\"id\" is not the id of a job, as it was given, in quotes";
    return NULL;
}

static const char *read_touch(const json_t *object, struct worker_reply *ret)
{
    static const char wrong[] = "\"extend\" is not a number of seconds";
    ret->kind = REPLY_TOUCH;
    const char *why = read_id(object, ret);
    if (why == NULL && !json_is_number(json_object_get(object, "extend")))
        why = wrong;
    return why != NULL ? why : read_seconds(object, "extend", wrong, &ret->delay_ms);
}

static const char *read_error(const json_t *object, struct worker_reply *ret)
{
    const json_t *error = json_object_get(object, "error");
    if (error == NULL || json_is_null(error))
        return NULL;
    if (!json_is_string(error))
        return "\"error\" is not a string";
    ret->error = json_string_value(error);
    ret->error_len = json_string_length(error);
    return NULL;
}

static const char *read_result(const json_t *object, struct worker_reply *ret)
{
    const char *status = json_string_value(json_object_get(object, "status"));
    const char *why = read_id(object, ret);
    if (why != NULL)
        return why;
    if (status != NULL && strcmp(status, "ok") == 0)
        ret->kind = REPLY_OK;
    else if (status != NULL && strcmp(status, "retry") == 0)
        ret->kind = REPLY_RETRY;
    else if (status != NULL && strcmp(status, "dead") == 0)
        ret->kind = REPLY_DEAD;
    else
        return "\"status\" is none of ok, retry and dead";
    if (ret->kind == REPLY_OK)
        return NULL;
    if (ret->kind == REPLY_RETRY)
        why = read_seconds(object, "after", "\"after\" is not a number of seconds", &ret->delay_ms);
    return why != NULL ? why : read_error(object, ret);
}

static const char *read_object(const json_t *object, struct worker_reply *ret)
{
    const json_t *op = json_object_get(object, "op");
    const char *name = json_string_value(op);
    if (!json_is_object(object))
        return "not a JSON object";
    if (op == NULL)
        return read_result(object, ret);
    if (name != NULL && strcmp(name, "ready") == 0)
        return read_ready(object, ret);
    if (name != NULL && strcmp(name, "touch") == 0)
        return read_touch(object, ret);
    return "\"op\" is neither ready nor touch";
}

int worker_reply_parse(const char *line, size_t len, struct worker_reply *ret,
                       const char **reterr_why)
{
    *ret = (struct worker_reply){.kind = REPLY_OK};
    if (parse_plain_ok(line, len, ret))
        return 0;
    *ret = (struct worker_reply){.kind = REPLY_OK};
    json_error_t error;
    json_t *doc = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    if (doc == NULL && json_error_code(&error) == json_error_out_of_memory)
        return OB_ENOMEM;
    const char *why = doc == NULL ? "not one JSON object in a line" : read_object(doc, ret);
    ret->doc = doc;
    if (why == NULL)
        return 0;
    worker_reply_clear(ret);
    *reterr_why = why;
    return OB_ESYNTAX;
}

void worker_reply_clear(struct worker_reply *r)
{
    json_decref(r->doc);
    *r = (struct worker_reply){.kind = REPLY_OK};
}
