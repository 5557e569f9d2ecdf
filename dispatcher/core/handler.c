/* handler.c - see handler.h: the two ends of a run, and what a job's handlers are told of it. */
#include "core/handler.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"

int run_start(struct run *run, struct outcome *ret_outcome)
{
    ob_assert(run->executor != NULL);
    ob_assert(run->on_done != NULL);
    ob_assert(run->executor_data == NULL);
    run->started_mono_ms = clock_mono_ms();
    run->started_unix_us = (uint64_t)clock_unix_us();
    outcome_init(ret_outcome);
    int err = run->executor->ops->start(run->executor, run, ret_outcome);
    ob_assert(err <= 0);
    if (err < 0) {
        run->executor_data = NULL;
        ret_outcome->started_us = run->started_unix_us;
    }
    return err;
}

void run_finish(struct run *run, struct outcome *outcome)
{
    ob_assert(run->started_unix_us > 0);
    outcome->started_us = run->started_unix_us;
    outcome->duration_ms = clock_mono_ms() - run->started_mono_ms;
    run->executor_data = NULL;
    run->on_done(run, outcome);
}

/* The digits of value in base 36, lower case, into the end of text; returns where they begin. */
static const char *base36(uint64_t value, char text[16])
{
    char *p = text + 15;
    *p = '\0';
    do {
        *--p = "0123456789abcdefghijklmnopqrstuvwxyz"[value % 36];
        value /= 36;
    } while (value > 0); /* 2^64 has 13 digits */
    return p;
}

void job_idempotency_key(const struct job *job, char ret_text[JOB_IDEMPOTENCY_KEY_SIZE])
{
    char digits[16];
    (void)snprintf(ret_text, JOB_IDEMPOTENCY_KEY_SIZE, "%" PRId64 "-%s", job->id,
                   base36((uint64_t)job->created_at_us, digits));
}

/* n lower-case hex digits at s that are not all zero. */
static bool is_hex_id(const char *s, size_t n)
{
    return strspn(s, "0123456789abcdef") >= n && strspn(s, "0") < n;
}

/* "00-<32 hex>-<16 hex>-<2 hex>" (W3C Trace Context, 3.2), version ff excluded. */
static bool is_traceparent(const char *s, size_t len)
{
    return len == JOB_TRACEPARENT_SIZE - 1 && strspn(s, "0123456789abcdef") == 2 &&
           strncmp(s, "ff", 2) != 0 && s[2] == '-' && is_hex_id(s + 3, 32) && s[35] == '-' &&
           is_hex_id(s + 36, 16) && s[52] == '-' && strspn(s + 53, "0123456789abcdef") >= 2;
}

/* The first byte behind the JSON string whose opening quote is at s: behind its closing quote, or
 * the end of a text that is cut. */
static const char *skip_string(const char *s)
{
    for (s++; *s != '\0' && *s != '"'; s++) {
        if (*s == '\\' && s[1] != '\0')
            s++;
    }
    return *s == '"' ? s + 1 : s;
}

static const char *skip_space(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    return s;
}

/* Headers are JSON that PostgreSQL or payload_check_json has checked, at most 8 KiB, and the value
 * asked for has no escapes when it is well-formed: a walk over the text is all it takes. */
void job_traceparent(const struct job *job, char ret_text[JOB_TRACEPARENT_SIZE])
{
    static const char name[] = "\"traceparent\"";
    ret_text[0] = '\0';
    const char *s = job->headers;
    int depth = 0;
    while (s != NULL && *s != '\0') {
        if (*s == '{' || *s == '[')
            depth++;
        if (*s == '}' || *s == ']')
            depth--;
        if (*s != '"') {
            s++;
            continue;
        }
        const char *end = skip_string(s);
        const char *value = skip_space(end);
        bool is_name = depth == 1 && *value == ':' && strncmp(s, name, sizeof name - 1) == 0;
        s = end;
        if (!is_name)
            continue;
        value = skip_space(value + 1);
        if (*value != '"')
            return;
        const char *value_end = skip_string(value);
        size_t len = (size_t)(value_end - value) - 2;
        if (!is_traceparent(value + 1, len))
            return;
        memcpy(ret_text, value + 1, len);
        ret_text[len] = '\0';
        return;
    }
}
