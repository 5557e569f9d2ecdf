/* progress.c - see progress.h. */
#include "cmd/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 40, REDRAW_MS = 100 };

void progress_init(struct progress *p, int64_t total)
{
    memset(p, 0, sizeof *p);
    p->shown = isatty(STDERR_FILENO) != 0;
    p->total = total > 0 ? total : 1;
}

void progress_update(struct progress *p, int64_t done)
{
    if (!p->shown)
        return;
    uint64_t now = clock_mono_ms();
    if (p->drawn_ms != 0 && now - p->drawn_ms < REDRAW_MS)
        return;
    p->drawn_ms = now;
    int64_t part = done < p->total ? done : p->total;
    int filled = (int)(part * BAR_WIDTH / p->total);
    char bar[BAR_WIDTH + 1];
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)filled);
    bar[BAR_WIDTH] = '\0';
    (void)fprintf(stderr, "\r[%s] %" PRId64 " of %" PRId64 " ", bar, done, p->total);
    (void)fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->drawn_ms != 0)
        (void)fprintf(stderr, "\r\033[K");
    p->drawn_ms = 0;
}
