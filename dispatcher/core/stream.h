/* stream.h - where the dispatcher stands in the stream of committed jobs, on one connection: the
 * position, what the position passed and did not get, and what is scheduled.
 *
 * It holds what outbox.look() wants to be told, and learns from what that saw. The backlogs are in
 * the lanes (lane.h). No I/O here. */
#ifndef OB_CORE_STREAM_H
#define OB_CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "db/store.h"

struct lanes;

enum { STREAM_REVISITS_PER_LOOK = 200, STREAM_SAMPLES = 8 };

struct stream_pending { /* it was running when the position passed it */
    uint64_t xid;
    int64_t id;          /* the last of its rows that was read */
    int64_t due_from_us; /* none of its scheduled jobs is due before */
};

struct stream_sample { /* transactions from xid on began after at_us of the server's clock */
    uint64_t xid;
    int64_t at_us;
};

struct stream {
    bool has_position; /* false: the next look sets it to the end, and the backlogs hold the rest */
    uint64_t xid;      /* the position */
    int64_t id;
    bool is_full;   /* the stream had more than one look reads */
    uint64_t older; /* transactions below it become pending rather than hold the position back */
    uint64_t older_next; /* xmax at older_ms: what `older` becomes when that is some time ago */
    uint64_t older_ms;

    uint64_t oldest; /* all our jobs became ready in transactions from this ... */
    uint64_t newest; /* ... to this; 0: not known */

    struct stream_pending *pending; /* in the order of their xids, as the look wants them */
    size_t pending_count;
    size_t pending_cap;
    int64_t *revisit; /* read and not obtained: somebody held them locked */
    size_t revisit_count;
    size_t revisit_cap;
    size_t revisit_asked; /* how many of the first were in the look under way */

    /* scheduled jobs */
    int64_t now_us;    /* the server's clock at the last look; 0: never */
    uint64_t asked_ms; /* ours, when it was asked for */
    int64_t ahead_us;  /* how far the server's clock was ahead of ours */
    struct stream_sample samples[STREAM_SAMPLES];
    size_t samples_count;
    int64_t due_from_us;  /* no scheduled job lies before; INT64_MIN: nothing is known */
    int64_t due_again_us; /* a pending transaction ended: look from here once; INT64_MAX: no */
    int64_t due_asked_us; /* what the newest look was told */
    int64_t next_due_us;  /* INT64_MAX: nothing is scheduled */

    /* the slow check */
    uint64_t swept_xid;
    int64_t swept_id;
    uint64_t sweep_to_xid;
    int64_t sweep_to_id;
    bool is_sweeping;
    bool sweep_again; /* from the beginning, whatever the call under way finds */
};

void stream_init(struct stream *s);
void stream_deinit(struct stream *s);
/* Another connection: everything from the beginning. */
void stream_reset(struct stream *s);
/* Fills in what the stream has to say; the arrays are borrowed until the stream learns. */
void stream_ask(struct stream *s, struct store_look *look, uint64_t now_ms);
/* The look's answer, and what it claimed. */
void stream_learn(struct stream *s, const struct seen *seen, const struct batch *claimed,
                  uint64_t now_ms);
/* Our own transaction xid began after the last look. */
void stream_note_xid(struct stream *s, uint64_t xid);
/* Something must be read again soon, though nobody will notify. */
bool stream_is_uneasy(const struct stream *s);
/* The slow check: begins one unless it goes on; what it asks for; what it found. */
void stream_begin_sweep(struct stream *s);
void stream_ask_sweep(const struct stream *s, struct store_sweep *sweep);
void stream_swept(struct stream *s, const struct seen *seen);

#endif
