/* multi.h - libcurl's multi-socket interface on the loop: its connections, its timer, its sockets.
 *
 * Nothing is added, removed or reported inside one of libcurl's callbacks. Used by http.c and
 * transfer.c; of the three, multi.c and transfer.c alone include curl. */
#ifndef OB_WEBHOOK_MULTI_H
#define OB_WEBHOOK_MULTI_H

#include <curl/curl.h>
#include <uv.h>

#include "base/err.h"

struct multi;

/* on_over: a transfer that was added is over; it is to be removed. Initialises curl, once a
 * process, and ignores SIGPIPE from then on: OpenSSL writes without MSG_NOSIGNAL. */
int multi_new(uv_loop_t *loop, void (*on_over)(void *arg, CURL *easy, CURLcode code), void *arg,
              struct multi **ret_multi) OB_MUST_CHECK;
/* No transfer is left. Ends the kept connections; cb when the loop holds nothing of it any more,
 * the last thing that is heard of it. */
void multi_close(struct multi *m, void (*cb)(void *arg));

/* How many connections may be kept open. */
void multi_keep(struct multi *m, unsigned connections);

/* Adding only sets a timer: the first byte moves on the next turn of the loop. OB_ENOMEM. */
int multi_add(struct multi *m, CURL *easy) OB_MUST_CHECK;
void multi_remove(struct multi *m, CURL *easy);

/* A socket for a connection, which the multi hears of, and of its end: for OPENSOCKETFUNCTION and
 * CLOSESOCKETFUNCTION, with the multi as their data. */
curl_socket_t multi_open_socket(struct multi *m, const struct curl_sockaddr *address);
int multi_close_socket(void *multi, curl_socket_t fd);

#endif
