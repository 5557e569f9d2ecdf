/* check_address.c - private or not: the first and last address of every network, their neighbours,
 * and IPv4 in the many dresses of IPv6. */
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "ck_main.h"
#include "webhook/address.h"

static const char *const private[] = {
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.1.2.3",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.255",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.255",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::808:808",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:192.168.1.1",
    "64:ff9b::",
    "64:ff9b::808:808",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::",
    "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "100::",
    "100::ffff:ffff:ffff:ffff",
    "2001::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:0:ffff::",
    "2001:db8::",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "2002::",
    "2002:a00:1::",
    "2002:ffff::",
    "3fff::",
    "3fff:fff:ffff::",
    "5f00::",
    "5f00:ffff::",
    "fc00::",
    "fdff:ffff::1",
    "fd00:ec2::254",
    "fe80::",
    "fe80::1",
    "febf:ffff::",
    "fec0::",
    "feff:ffff::",
    "ff00::",
    "ff02::1",
    "ffff:ffff::",
};

static const char *const public[] = {
    "1.0.0.0",        "1.1.1.1",
    "8.8.8.8",        "9.255.255.255",
    "11.0.0.0",       "100.63.255.255",
    "100.128.0.0",    "126.255.255.255",
    "128.0.0.0",      "169.253.255.255",
    "169.255.0.0",    "172.15.255.255",
    "172.32.0.0",     "192.0.1.0",
    "192.0.3.0",      "192.88.98.255",
    "192.88.100.0",   "192.167.255.255",
    "192.169.0.0",    "198.17.255.255",
    "198.20.0.0",     "198.51.99.255",
    "198.51.101.0",   "203.0.112.255",
    "203.0.114.0",    "223.255.255.255",
    "::ffff:8.8.8.8", "::ffff:1.1.1.1",
    "64:ff9b:2::1",   "64:ff9a::1",
    "100:0:0:1::",    "2001:1::1",
    "2001:200::1",    "2001:db7::1",
    "2001:db9::1",    "2001:4860:4860::8888",
    "2003::1",        "2606:4700:4700::1111",
    "3ffe::1",        "3fff:1000::1",
    "5eff::1",        "5f01::1",
    "fbff::1",        "fe00::1",
    "fe7f::1",
};

/* The same by both doors. */
static bool is_private(const char *text)
{
    struct sockaddr_storage storage;
    memset(&storage, 0, sizeof storage);
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        memcpy(&storage, &in, sizeof in);
    else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        memcpy(&storage, &in6, sizeof in6);
    else
        ck_abort_msg("%s", text);
    bool by_socket = address_is_private((const struct sockaddr *)&storage);
    ck_assert_msg(address_text_is_private(text) == by_socket, "%s", text);
    return by_socket;
}

START_TEST(addresses_of_private_networks_are_private)
{
    for (size_t i = 0; i < sizeof private / sizeof private[0]; i++)
        ck_assert_msg(is_private(private[i]), "%s", private[i]);
}
END_TEST

START_TEST(their_neighbours_are_not)
{
    for (size_t i = 0; i < sizeof public / sizeof public[0]; i++)
        ck_assert_msg(!is_private(public[i]), "%s", public[i]);
}
END_TEST

START_TEST(what_is_no_address_is_private)
{
    const struct sockaddr local = {.sa_family = AF_UNIX};
    ck_assert(address_is_private(&local));
    ck_assert(address_text_is_private(""));
    ck_assert(address_text_is_private("example.com"));
    ck_assert(address_text_is_private("8.8.8.8 "));
    ck_assert(address_text_is_private("010.8.8.8"));
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("address");
    TCase *tc = tcase_create("addresses");
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_test(tc, addresses_of_private_networks_are_private);
    tcase_add_test(tc, their_neighbours_are_not);
    tcase_add_test(tc, what_is_no_address_is_private);
    suite_add_tcase(s, tc);
    return s;
}
