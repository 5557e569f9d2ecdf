/* Beside the whole of msgpack-c: before it. */
#include <outbox/outbox.h>

#include <msgpack.h>

#include "all_functions.h"

int main(void)
{
    return use_all_functions();
}
