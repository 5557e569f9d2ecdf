/* progress.h - a progress bar on stderr, for work that takes a while; silent unless that is a
 * terminal. */
#ifndef OB_CMD_PROGRESS_H
#define OB_CMD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;
    int64_t total;
    uint64_t drawn_ms; /* when it was drawn last */
};

void progress_init(struct progress *p, int64_t total);
void progress_update(struct progress *p, int64_t done);
void progress_end(struct progress *p); /* wipes it */

#endif
