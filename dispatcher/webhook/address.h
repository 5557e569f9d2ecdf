/* address.h - which addresses are nobody's on the public internet: what private_addresses: deny
 * refuses. Pure. */
#ifndef OB_WEBHOOK_ADDRESS_H
#define OB_WEBHOOK_ADDRESS_H

#include <stdbool.h>

#include <sys/socket.h>

/* Loopback, private, link-local, shared, documentation, benchmark, multicast and reserved networks
 * of IPv4 and IPv6, and IPv6 addresses that carry an IPv4 address by way of a translator or tunnel.
 * Any other family is private. */
bool address_is_private(const struct sockaddr *address);
/* The same of "10.0.0.1" or "fe80::1"; what is no address is private. */
bool address_text_is_private(const char *text);

#endif
