/* progress.h - a progress bar on stderr, for work that takes a while; silent unless that is a
 * terminal. */
#ifndef OB_CMD_PROGRESS_H
#define OB_CMD_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    bool shown; /* may be cleared after progress_init */
    int64_t total;
    uint64_t began_ms;
    uint64_t drawn_ms; /* when it was drawn last */
};

/* total: of what progress_update counts, or the bytes of a load; 0: not known. */
void progress_init(struct progress *p, int64_t total);
void progress_update(struct progress *p, int64_t done);
/* A load: bytes of the input that are read, jobs that the database has. */
void progress_load(struct progress *p, int64_t bytes, int64_t jobs);
void progress_end(struct progress *p); /* wipes it */

/* "[####......] 1.5 of 3.0 MB, 5000 jobs, 2500/s, 2.0s left" after ms; without the bar and what is
 * left when the total is 0. Pure. */
void progress_load_text(char *text, size_t size, int64_t total, int64_t bytes, int64_t jobs,
                        uint64_t ms);

#endif
