/* mem.c - see mem.h. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

OB_NORETURN static void out_of_memory(void)
{
    (void)fputs("outbox: out of memory\n", stderr);
    abort();
}

void *ob_malloc(size_t bytes)
{
    return malloc(bytes > 0 ? bytes : 1);
}

void *ob_calloc(size_t count, size_t bytes)
{
    return calloc(count > 0 ? count : 1, bytes > 0 ? bytes : 1);
}

void *ob_realloc(void *p, size_t bytes)
{
    return realloc(p, bytes > 0 ? bytes : 1);
}

char *ob_strndup(const char *s, size_t n)
{
    char *copy = ob_malloc(n + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *ob_strdup(const char *s)
{
    return s == NULL ? NULL : ob_strndup(s, strlen(s));
}

void ob_free(void *p)
{
    free(p);
}

void *ob_xcalloc(size_t count, size_t bytes)
{
    void *p = ob_calloc(count, bytes);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *ob_xrealloc(void *p, size_t bytes)
{
    void *q = ob_realloc(p, bytes);
    if (q == NULL)
        out_of_memory();
    return q;
}

char *ob_xstrdup(const char *s)
{
    char *copy = ob_strdup(s);
    if (copy == NULL && s != NULL)
        out_of_memory();
    return copy;
}

char *ob_xasprintf(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0)
        out_of_memory();
    char *s = ob_xcalloc((size_t)n + 1, 1);
    va_start(args, fmt);
    (void)vsnprintf(s, (size_t)n + 1, fmt, args);
    va_end(args);
    return s;
}
