/* capture.h - the head and the tail of what a child writes, in bounded memory however much it is.
 * Pure but for the allocation. Owned by a run of command.c. */
#ifndef OB_EXEC_CAPTURE_H
#define OB_EXEC_CAPTURE_H

#include <stddef.h>
#include <stdint.h>

struct capture {
    size_t head_max;
    size_t tail_max;
    char *head; /* allocated with the first byte */
    size_t head_len;
    char *tail; /* a ring; allocated when the head is full */
    size_t tail_len;
    size_t tail_next;    /* where the ring's next byte goes */
    uint64_t bytes_seen; /* in all, kept or not */
};

void capture_init(struct capture *c, size_t head_max, size_t tail_max);
void capture_deinit(struct capture *c);
/* Short of memory it keeps less, and goes on counting. */
void capture_add(struct capture *c, const char *bytes, size_t n);
/* Turns the ring so that tail holds its tail_len bytes in order. Nothing may be added afterwards.
 */
void capture_finish(struct capture *c);

#endif
