/* Building a payload needs no library of msgpack: the bytes are the shortest msgpack. */
#include <outbox/outbox.h>

int main(void)
{
    static const char expected[] = "\x82\xa1"
                                   "a\x01\xa1"
                                   "b\x92\xa1"
                                   "x\xc0";
    struct outbox_payload p;
    size_t len;
    const char *bytes;
    int bad;

    outbox_payload_init(&p);
    (void)outbox_put_int(&p, "a", 1);
    (void)outbox_begin_array(&p, "b");
    (void)outbox_put_str(&p, NULL, "x");
    (void)outbox_put_null(&p, NULL);
    (void)outbox_end(&p);
    bytes = outbox_payload_bytes(&p, &len);
    bad = outbox_payload_error(&p) != OUTBOX_OK || len != sizeof expected - 1 ||
          memcmp(bytes, expected, len) != 0;
    outbox_payload_free(&p);
    return bad;
}
