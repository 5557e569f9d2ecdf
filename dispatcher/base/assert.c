/* assert.c - see assert.h. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void ob_assert_failed(const char *file, int line, const char *func, const char *cond)
{
    (void)fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, func, cond);
    (void)fflush(stderr);
    abort();
}

#ifdef OB_FAULTS
void ob_crash_point(const char *name)
{
    static long hits;
    const char *wanted = getenv("OB_CRASH");
    if (wanted == NULL)
        return;
    size_t n = strlen(name);
    if (strncmp(wanted, name, n) != 0 || (wanted[n] != '\0' && wanted[n] != ':'))
        return;
    long nth = wanted[n] == ':' ? strtol(wanted + n + 1, NULL, 10) : 1;
    hits++;
    if (hits == nth)
        _exit(137); /* what a shell reports for kill -9 */
}

bool ob_rule_is_on(const char *name)
{
    const char *off = getenv("OUTBOX_TEST_RULE_OFF");
    return off == NULL || strcmp(off, name) != 0;
}
#endif
