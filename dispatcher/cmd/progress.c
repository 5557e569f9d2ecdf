/* progress.c - see progress.h. */
#include "cmd/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 40, LOAD_BAR_WIDTH = 20, REDRAW_MS = 100, TEXT_SIZE = 200 };

void progress_init(struct progress *p, int64_t total)
{
    memset(p, 0, sizeof *p);
    p->shown = isatty(STDERR_FILENO) != 0;
    p->total = total > 0 ? total : 0;
    p->began_ms = clock_mono_ms();
}

/* Whether it is time to draw. */
static bool is_due(struct progress *p)
{
    if (!p->shown)
        return false;
    uint64_t now = clock_mono_ms();
    if (p->drawn_ms != 0 && now - p->drawn_ms < REDRAW_MS)
        return false;
    p->drawn_ms = now;
    return true;
}

static void draw_bar(char *bar, int width, int64_t done, int64_t total)
{
    int64_t part = done < total ? done : total;
    memset(bar, '.', (size_t)width);
    memset(bar, '#', total > 0 ? (size_t)((double)part * width / (double)total) : (size_t)width);
    bar[width] = '\0';
}

void progress_update(struct progress *p, int64_t done)
{
    char bar[BAR_WIDTH + 1];
    if (!is_due(p))
        return;
    draw_bar(bar, BAR_WIDTH, done, p->total);
    (void)fprintf(stderr, "\r[%s] %" PRId64 " of %" PRId64 " ", bar, done, p->total);
    (void)fflush(stderr);
}

void progress_load_text(char *text, size_t size, int64_t total, int64_t bytes, int64_t jobs,
                        uint64_t ms)
{
    char bar[LOAD_BAR_WIDTH + 1];
    char left[CLOCK_DURATION_SIZE];
    double megabytes = (double)bytes / 1e6;
    double rate = ms > 0 ? (double)jobs * 1000.0 / (double)ms : 0.0;
    if (total <= 0 || bytes <= 0) {
        (void)snprintf(text, size, "%.1f MB, %" PRId64 " jobs, %.0f/s", megabytes, jobs, rate);
        return;
    }
    double rest = bytes < total ? (double)(total - bytes) / (double)bytes : 0.0;
    draw_bar(bar, LOAD_BAR_WIDTH, bytes, total);
    clock_duration((uint64_t)((double)ms * rest), left);
    (void)snprintf(text, size, "[%s] %.1f of %.1f MB, %" PRId64 " jobs, %.0f/s, %s left", bar,
                   megabytes, (double)total / 1e6, jobs, rate, left);
}

/* Columns of the terminal: a line that does not fit would not be drawn over, but below. */
static size_t width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col;
    return 80;
}

void progress_load(struct progress *p, int64_t bytes, int64_t jobs)
{
    char text[TEXT_SIZE];
    if (!is_due(p))
        return;
    progress_load_text(text, sizeof text, p->total, bytes, jobs, p->drawn_ms - p->began_ms);
    (void)fprintf(stderr, "\r%.*s\033[K", (int)width() - 1, text);
    (void)fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->drawn_ms != 0)
        (void)fprintf(stderr, "\r\033[K");
    p->drawn_ms = 0;
}
