// Beside msgpack for C++: after it.
#include <msgpack.hpp>

#include <outbox/outbox.h>

#include "all_functions.h"

int main()
{
    msgpack::sbuffer buffer;
    msgpack::pack(buffer, 1);
    return use_all_functions() + (buffer.size() == 1 ? 0 : 1);
}
