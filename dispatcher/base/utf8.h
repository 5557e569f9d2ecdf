/* utf8.h - what is and is not UTF-8 (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF).
 */
#ifndef OB_BASE_UTF8_H
#define OB_BASE_UTF8_H

#include <stddef.h>

/* Length of the valid sequence at s (1-4), or 0 if the bytes at s begin none. n is what may be
 * read. */
size_t utf8_sequence(const char *s, size_t n);

#endif
