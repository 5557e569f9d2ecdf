/* address.c - see address.h. Called by transfer.c when a socket opens, and when one is used again.
 */
#include "webhook/address.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

struct net4 {
    uint8_t bytes[4];
    unsigned bits;
};
static const struct net4 nets4[] = {
    {{0, 0, 0, 0}, 8},       /* this network */
    {{10, 0, 0, 0}, 8},      /* private */
    {{100, 64, 0, 0}, 10},   /* shared, behind a carrier's NAT */
    {{127, 0, 0, 0}, 8},     /* loopback */
    {{169, 254, 0, 0}, 16},  /* link-local, and the clouds' metadata */
    {{172, 16, 0, 0}, 12},   /* private */
    {{192, 0, 0, 0}, 24},    /* protocol assignments */
    {{192, 0, 2, 0}, 24},    /* documentation */
    {{192, 88, 99, 0}, 24},  /* 6to4 relays */
    {{192, 168, 0, 0}, 16},  /* private */
    {{198, 18, 0, 0}, 15},   /* benchmarks */
    {{198, 51, 100, 0}, 24}, /* documentation */
    {{203, 0, 113, 0}, 24},  /* documentation */
    {{224, 0, 0, 0}, 4},     /* multicast */
    {{240, 0, 0, 0}, 4},     /* reserved, and broadcast */
};

struct net6 {
    uint8_t bytes[16];
    unsigned bits;
};
static const struct net6 nets6[] = {
    {{0}, 96},                                  /* ::, ::1, and the old IPv4-compatible ones */
    {{0x00, 0x64, 0xff, 0x9b}, 96},             /* NAT64 */
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48}, /* NAT64, local */
    {{0x01, 0x00}, 64},                         /* discard */
    {{0x20, 0x01, 0x00, 0x00}, 32},             /* Teredo */
    {{0x20, 0x01, 0x0d, 0xb8}, 32},             /* documentation */
    {{0x20, 0x02}, 16},                         /* 6to4 */
    {{0x3f, 0xff}, 20},                         /* documentation */
    {{0x5f, 0x00}, 16},                         /* segment routing */
    {{0xfc, 0x00}, 7},                          /* unique local */
    {{0xfe, 0x80}, 10},                         /* link-local */
    {{0xfe, 0xc0}, 10},                         /* site-local */
    {{0xff, 0x00}, 8},                          /* multicast */
};

static bool is_in(const uint8_t *address, const uint8_t *net, unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(address, net, whole) != 0)
        return false;
    unsigned mask = rest > 0 ? 0xffU << (8 - rest) & 0xffU : 0;
    return rest == 0 || (address[whole] & mask) == (net[whole] & mask);
}

static bool is_private4(const uint8_t *address)
{
    for (size_t i = 0; i < sizeof nets4 / sizeof nets4[0]; i++) {
        if (is_in(address, nets4[i].bytes, nets4[i].bits))
            return true;
    }
    return false;
}

static bool is_private6(const uint8_t *address)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(address, mapped, sizeof mapped) == 0)
        return is_private4(address + sizeof mapped);
    for (size_t i = 0; i < sizeof nets6 / sizeof nets6[0]; i++) {
        if (is_in(address, nets6[i].bytes, nets6[i].bits))
            return true;
    }
    return false;
}

bool address_is_private(const struct sockaddr *address)
{
    /* Copied: the bytes that libraries hand over need not be aligned as their type would be. */
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return is_private4((const uint8_t *)&in.sin_addr);
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        return is_private6((const uint8_t *)&in6.sin6_addr);
    }
    return true;
}

bool address_text_is_private(const char *text)
{
    uint8_t bytes[16];
    if (inet_pton(AF_INET, text, bytes) == 1)
        return is_private4(bytes);
    if (inet_pton(AF_INET6, text, bytes) == 1)
        return is_private6(bytes);
    return true;
}
