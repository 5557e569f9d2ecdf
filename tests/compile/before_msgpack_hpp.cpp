// Beside msgpack for C++: before it.
#include <outbox/outbox.h>

#include <msgpack.hpp>

#include "all_functions.h"

int main()
{
    msgpack::sbuffer buffer;
    msgpack::pack(buffer, 1);
    return use_all_functions() + (buffer.size() == 1 ? 0 : 1);
}
