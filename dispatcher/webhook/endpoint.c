/* endpoint.c - see endpoint.h. Called by endpoints.c and http.c. */
#include "webhook/endpoint.h"

#include <limits.h>
#include <string.h>

#include "base/assert.h"

/* Of requests that a rate spaces more closely, those of so long may begin together. */
enum { RATE_BURST_US = 100000 };

const char *endpoint_hold_text(enum endpoint_hold hold)
{
    switch (hold) {
    case HOLD_NONE:
        break;
    case HOLD_RETRY_AFTER:
        return "it asked to wait";
    case HOLD_BREAKER:
        return "too many failures";
    case HOLD_PROBE:
        return "too many failures, and one request is trying";
    case HOLD_RATE:
        return "rate";
    }
    return "nothing";
}

void endpoint_init(struct endpoint *e)
{
    memset(e, 0, sizeof *e);
}

static void set_state(struct endpoint *e, enum endpoint_state state)
{
    static const bool edges[3][3] = {
        [ENDPOINT_CLOSED] = {[ENDPOINT_OPEN] = true},
        [ENDPOINT_OPEN] = {[ENDPOINT_PROBING] = true},
        [ENDPOINT_PROBING] = {[ENDPOINT_CLOSED] = true, [ENDPOINT_OPEN] = true},
    };
    ob_assert(edges[e->state][state]);
    e->state = state;
}

/* ---- rate ---- */

static uint64_t rate_interval_us(const struct rate_config *rate)
{
    uint64_t us = rate->per_ms * 1000 / rate->count;
    return us > 0 ? us : 1;
}

/* What is due counts from here on: unused time is not saved up beyond the burst. */
static uint64_t rate_due_us(const struct endpoint *e, uint64_t now_us)
{
    uint64_t earliest = now_us > RATE_BURST_US ? now_us - RATE_BURST_US : 0;
    return e->rate_us > earliest ? e->rate_us : earliest;
}

static unsigned rate_room(const struct endpoint *e, const struct rate_config *rate, uint64_t now_ms,
                          uint64_t *ret_until_ms)
{
    uint64_t now_us = now_ms * 1000;
    uint64_t interval_us = rate_interval_us(rate);
    uint64_t due_us = rate_due_us(e, now_us);
    if (interval_us > RATE_BURST_US && e->rate_us < now_us)
        due_us = now_us; /* one at a time */
    if (due_us > now_us) {
        *ret_until_ms = (due_us + 999) / 1000;
        return 0;
    }
    return (unsigned)((now_us - due_us) / interval_us + 1);
}

/* ---- beginning ---- */

unsigned endpoint_room(const struct endpoint *e, const struct rate_config *rate, uint64_t now_ms,
                       uint64_t *ret_until_ms, enum endpoint_hold *ret_hold)
{
    *ret_hold = HOLD_NONE;
    if (e->state == ENDPOINT_PROBING) {
        *ret_until_ms = UINT64_MAX;
        *ret_hold = HOLD_PROBE;
        return 0;
    }
    if (now_ms < e->held_until_ms) {
        *ret_until_ms = e->held_until_ms;
        *ret_hold = e->hold;
        return 0;
    }
    unsigned room = UINT_MAX;
    if (rate->count > 0)
        room = rate_room(e, rate, now_ms, ret_until_ms);
    if (room == 0)
        *ret_hold = HOLD_RATE;
    return room > 1 && e->state == ENDPOINT_OPEN ? 1 : room;
}

bool endpoint_begin(struct endpoint *e, const struct rate_config *rate, uint64_t now_ms)
{
    ob_assert(e->state != ENDPOINT_PROBING);
    ob_assert(now_ms >= e->held_until_ms);
    if (rate->count > 0) {
        uint64_t interval_us = rate_interval_us(rate);
        uint64_t due_us = rate_due_us(e, now_ms * 1000);
        if (interval_us > RATE_BURST_US && e->rate_us < now_ms * 1000)
            due_us = now_ms * 1000;
        e->rate_us = due_us + interval_us;
    }
    if (e->state != ENDPOINT_OPEN)
        return false;
    set_state(e, ENDPOINT_PROBING);
    return true;
}

/* ---- ending ---- */

static void forget_answers(struct endpoint *e)
{
    memset(e->buckets, 0, sizeof e->buckets);
}

/* Notes the answer. True: by the window's answers the endpoint is in trouble. */
static bool note_answer(struct endpoint *e, const struct breaker_config *b, bool is_bad,
                        uint64_t now_ms)
{
    uint64_t bucket_ms = b->window_ms / ENDPOINT_BUCKETS;
    if (bucket_ms != e->bucket_ms)
        forget_answers(e); /* counted by another measure */
    e->bucket_ms = bucket_ms;
    uint64_t number = now_ms / bucket_ms;
    size_t at = number % ENDPOINT_BUCKETS;
    if (e->buckets[at].number != number) {
        e->buckets[at].number = number;
        e->buckets[at].good = 0;
        e->buckets[at].bad = 0;
    }
    if (is_bad)
        e->buckets[at].bad++;
    else
        e->buckets[at].good++;
    uint64_t all = 0;
    uint64_t bad = 0;
    for (size_t i = 0; i < ENDPOINT_BUCKETS; i++) {
        if (e->buckets[i].number + ENDPOINT_BUCKETS <= number)
            continue;
        all += e->buckets[i].good + e->buckets[i].bad;
        bad += e->buckets[i].bad;
    }
    return is_bad && all >= b->min && bad * 1000 >= (uint64_t)b->failure_permille * all;
}

static void hold_until(struct endpoint *e, uint64_t until_ms, enum endpoint_hold hold)
{
    if (until_ms <= e->held_until_ms)
        return;
    e->held_until_ms = until_ms;
    e->hold = hold;
}

static uint64_t open_for_ms(const struct endpoint *e, const struct breaker_config *b)
{
    uint64_t ms = b->open_ms;
    for (unsigned i = 0; i < e->trips && ms < b->open_max_ms; i++)
        ms *= 2;
    return ms < b->open_max_ms ? ms : b->open_max_ms;
}

static enum endpoint_news end_probe(struct endpoint *e, const struct breaker_config *breaker,
                                    enum endpoint_result result, uint64_t now_ms)
{
    if (result == ENDPOINT_UNKNOWN) {
        set_state(e, ENDPOINT_OPEN); /* the next one tries */
        return ENDPOINT_SAME;
    }
    if (result == ENDPOINT_BAD && breaker->is_on) {
        set_state(e, ENDPOINT_OPEN);
        if (e->trips < UINT_MAX)
            e->trips++;
        hold_until(e, now_ms + open_for_ms(e, breaker), HOLD_BREAKER);
        return ENDPOINT_HELD;
    }
    set_state(e, ENDPOINT_CLOSED);
    e->trips = 0;
    forget_answers(e);
    return ENDPOINT_BACK;
}

enum endpoint_news endpoint_end(struct endpoint *e, const struct breaker_config *breaker,
                                enum endpoint_result result, bool is_probe, uint64_t hold_ms,
                                uint64_t now_ms)
{
    enum endpoint_news news = ENDPOINT_SAME;
    bool was_held = now_ms < e->held_until_ms;
    bool counts = breaker->is_on && (result == ENDPOINT_GOOD || result == ENDPOINT_BAD);
    if (hold_ms > 0) {
        hold_until(e, hold_ms < UINT64_MAX - now_ms ? now_ms + hold_ms : UINT64_MAX - 1,
                   HOLD_RETRY_AFTER);
        news = was_held ? ENDPOINT_SAME : ENDPOINT_HELD;
    }
    if (is_probe) {
        ob_assert(e->state == ENDPOINT_PROBING);
        enum endpoint_news of_probe = end_probe(e, breaker, result, now_ms);
        return of_probe == ENDPOINT_SAME || hold_ms > 0 ? news : of_probe;
    }
    /* What began before it opened says nothing new. */
    if (e->state != ENDPOINT_CLOSED || !counts ||
        !note_answer(e, breaker, result == ENDPOINT_BAD, now_ms))
        return news;
    set_state(e, ENDPOINT_OPEN);
    e->trips = 0;
    forget_answers(e);
    hold_until(e, now_ms + open_for_ms(e, breaker), HOLD_BREAKER);
    return ENDPOINT_HELD;
}

/* ---- names ---- */

void endpoint_name(const char *url, char ret_name[ENDPOINT_NAME_SIZE])
{
    const char *host = strstr(url, "://");
    size_t scheme_len = host != NULL ? (size_t)(host - url) + 3 : 0;
    size_t len = scheme_len + strcspn(url + scheme_len, "/?#");
    const char *default_port = scheme_len == 8 ? ":443" : ":80";
    if (len > ENDPOINT_NAME_SIZE - sizeof ":443")
        len = ENDPOINT_NAME_SIZE - sizeof ":443";
    bool has_port = false;
    for (size_t i = 0; i < len; i++) {
        char c = url[i];
        ret_name[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        if (i >= scheme_len)
            has_port = c == ':' || (has_port && c != ']'); /* behind the last ] of an address */
    }
    ret_name[len] = '\0';
    if (!has_port)
        memcpy(ret_name + len, default_port, strlen(default_port) + 1);
}
