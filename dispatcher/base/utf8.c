/* utf8.c - see utf8.h. */
#include "base/utf8.h"

static int is_cont(unsigned char c)
{
    return (c & 0xC0) == 0x80;
}

size_t utf8_sequence(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    if (u[0] >= 0xC2 && u[0] <= 0xDF)
        return n >= 2 && is_cont(u[1]) ? 2 : 0;
    if (u[0] >= 0xE0 && u[0] <= 0xEF) {
        if (n < 3 || !is_cont(u[1]) || !is_cont(u[2]))
            return 0;
        if (u[0] == 0xE0 && u[1] < 0xA0)
            return 0; /* overlong */
        if (u[0] == 0xED && u[1] > 0x9F)
            return 0; /* surrogate */
        return 3;
    }
    if (u[0] >= 0xF0 && u[0] <= 0xF4) {
        if (n < 4 || !is_cont(u[1]) || !is_cont(u[2]) || !is_cont(u[3]))
            return 0;
        if (u[0] == 0xF0 && u[1] < 0x90)
            return 0;
        if (u[0] == 0xF4 && u[1] > 0x8F)
            return 0;
        return 4;
    }
    return 0;
}
