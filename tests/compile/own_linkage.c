/* OUTBOX_API and OUTBOX_PAYLOAD_BYTES_MAX may be set by the program. */
#define OUTBOX_API               static inline __attribute__((unused))
#define OUTBOX_PAYLOAD_BYTES_MAX (64 * 1024)
#include <outbox/outbox.h>

#include "all_functions.h"

int main(void)
{
    static char big[64 * 1024];
    struct outbox_payload p;
    int bad = use_all_functions();

    outbox_payload_init(&p);
    bad += outbox_put_bin(&p, "k", big, sizeof big) != OUTBOX_ETOOBIG;
    outbox_payload_free(&p);
    return bad;
}
