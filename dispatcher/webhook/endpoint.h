/* endpoint.h - when requests to an endpoint (scheme, host and port) may begin: "not before T",
 * written by Retry-After, by the breaker and by the rate. A pure state machine: times are passed
 * in, nothing is allocated.
 *
 * closed -> open: too many of the window's answers were failures; nothing begins before T.
 * open -> probing: T has come, and one request has begun; nothing else does before its end.
 * probing -> closed: it was answered. probing -> open: it failed; T is twice as far away.
 * The settings are those of the task that asks or whose request ended. */
#ifndef OB_WEBHOOK_ENDPOINT_H
#define OB_WEBHOOK_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"

enum { ENDPOINT_BUCKETS = 10 };

enum endpoint_state {
    ENDPOINT_CLOSED, /* as a circuit is: requests flow, unless held_until_ms lies ahead */
    ENDPOINT_OPEN,   /* held_until_ms: when one may be tried */
    ENDPOINT_PROBING /* that one is under way */
};

enum endpoint_hold { HOLD_NONE, HOLD_RETRY_AFTER, HOLD_BREAKER, HOLD_PROBE, HOLD_RATE };
/* "Retry-After", "too many failures", ...: for a sentence. Static storage. */
const char *endpoint_hold_text(enum endpoint_hold hold);

struct endpoint {
    enum endpoint_state state;
    uint64_t held_until_ms;
    enum endpoint_hold hold; /* who wrote it */
    unsigned trips;          /* probes that failed in a row */
    uint64_t bucket_ms;      /* a tenth of the window */
    struct {
        uint64_t number; /* time / bucket_ms */
        unsigned good;
        unsigned bad;
    } buckets[ENDPOINT_BUCKETS];
    uint64_t rate_us; /* when the next request is due, if they come evenly */
};

void endpoint_init(struct endpoint *e);

/* How many requests could begin now, by the task's rate; UINT_MAX: any number. 0: why not, and not
 * before *ret_until_ms (UINT64_MAX: not before a request under way has ended). */
unsigned endpoint_room(const struct endpoint *e, const struct rate_config *rate, uint64_t now_ms,
                       uint64_t *ret_until_ms, enum endpoint_hold *ret_hold);
/* One begins, for which there is room. True: it is the probe; endpoint_end is told so. */
bool endpoint_begin(struct endpoint *e, const struct rate_config *rate, uint64_t now_ms);

enum endpoint_result {
    ENDPOINT_GOOD,   /* 2xx */
    ENDPOINT_BAD,    /* no answer, or one that says that the receiver is in trouble */
    ENDPOINT_ANSWER, /* an answer that says nothing of its health */
    ENDPOINT_UNKNOWN /* it was dropped by us */
};
enum endpoint_news {
    ENDPOINT_SAME,
    ENDPOINT_HELD, /* nothing held it before, or the breaker (re)opened: see held_until_ms */
    ENDPOINT_BACK  /* the probe was answered */
};
/* One that began has ended. hold_ms: what the answer asks all for, 0 for nothing. */
enum endpoint_news endpoint_end(struct endpoint *e, const struct breaker_config *breaker,
                                enum endpoint_result result, bool is_probe, uint64_t hold_ms,
                                uint64_t now_ms);

/* "https://example.com:443": scheme, host and port of a URL, in lower case, the port always; cut if
 * it is longer. */
enum { ENDPOINT_NAME_SIZE = 280 };
void endpoint_name(const char *url, char ret_name[ENDPOINT_NAME_SIZE]);

#endif
