/* Beside the whole of msgpack-c: after it. */
#include <msgpack.h>

#include <outbox/outbox.h>

#include "all_functions.h"

int main(void)
{
    return use_all_functions();
}
