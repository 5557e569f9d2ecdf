/* mem.h - the only place of dispatcher/ that calls malloc and free.
 *
 * ob_x* die when memory is short (start-up only); the others return NULL and must be checked. */
#ifndef OB_BASE_MEM_H
#define OB_BASE_MEM_H

#include <stddef.h>

#include "base/err.h"

void *ob_malloc(size_t bytes) OB_MUST_CHECK;
void *ob_calloc(size_t count, size_t bytes) OB_MUST_CHECK;
void *ob_realloc(void *p, size_t bytes) OB_MUST_CHECK;   /* on failure p is unchanged */
char *ob_strdup(const char *s) OB_MUST_CHECK;            /* NULL in, NULL out */
char *ob_strndup(const char *s, size_t n) OB_MUST_CHECK; /* exactly n bytes, then a NUL */
void ob_free(void *p);                                   /* NULL is fine */

void *ob_xcalloc(size_t count, size_t bytes);
void *ob_xrealloc(void *p, size_t bytes);
char *ob_xstrdup(const char *s);
OB_PRINTF(1, 2) char *ob_xasprintf(const char *fmt, ...);

#endif
