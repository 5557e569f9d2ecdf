/* The linker sends malloc and its family here: see faultmem.h. */
#include "faultmem.h"

#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);
void faultmem_fired_here(void);

static bool is_armed;
static bool repeats;
static unsigned countdown;
static unsigned fired;
static long alive;

void faultmem_arm(unsigned n, bool repeat)
{
    countdown = n;
    repeats = repeat;
    fired = 0;
    alive = 0;
    is_armed = true;
}

unsigned faultmem_disarm(void)
{
    is_armed = false;
    return fired;
}

long faultmem_alive(void)
{
    return alive;
}

void faultmem_fired_here(void)
{
    fired++;
}

static bool must_fail(void)
{
    if (!is_armed || (fired > 0 && !repeats))
        return false;
    if (countdown > 0) {
        countdown--;
        return false;
    }
    faultmem_fired_here();
    return true;
}

static void *counted(void *p, bool is_new)
{
    if (is_armed && p != NULL && is_new)
        alive++;
    return p;
}

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : counted(__real_malloc(size), true);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : counted(__real_calloc(n, size), true);
}

void *__wrap_realloc(void *p, size_t size)
{
    bool is_new = p == NULL;
    return must_fail() ? NULL : counted(__real_realloc(p, size), is_new);
}

void __wrap_free(void *p)
{
    if (is_armed && p != NULL)
        alive--;
    __real_free(p);
}
