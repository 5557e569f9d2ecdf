/* Must NOT compile: the table takes no payload over 16 MiB. */
#define OUTBOX_PAYLOAD_BYTES_MAX 16777217
#include <outbox/outbox.h>

int main(void)
{
    return 0;
}
