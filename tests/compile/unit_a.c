/* One of two units of a program that both include outbox.h: see unit_main.c, also built as C++. */
#include <outbox/outbox.h>

#include "all_functions.h"

int unit_a(void);

int unit_a(void)
{
    return use_all_functions();
}
