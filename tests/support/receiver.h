/* receiver.h - an HTTP server for webhooks that answers when its owner says, from a process of its
 * own and one poll loop. What a request means, and what is recorded of it, is the owner's.
 *
 * For the randomized tests, which count on what it has recorded after every dispatcher is gone;
 * httpstub.h is the one that misbehaves on request. */
#ifndef OB_TEST_RECEIVER_H
#define OB_TEST_RECEIVER_H

#include <stddef.h>
#include <stdint.h>

/* A run is what one request begins; its number is the owner's. arg is given to each. */
struct receiver {
    void *arg;
    /* A complete request has arrived. Returns when to answer it (chance_now_ns). */
    int64_t (*take)(void *arg, const char *request, size_t *ret_run);
    /* That time has come. Returns the status; *ret_header: further header lines, or NULL. */
    int (*answer)(void *arg, size_t run, const char **ret_header);
    /* NULL, or: the asker of a run that was not answered is gone. Always told before the next run
     * is taken, and instead of an answer. */
    void (*lost)(void *arg, size_t run);
    /* Something is wrong with the test; does not return. */
    void (*fail)(void *arg, const char *what);
};

/* Serves for ever. */
void receiver_serve(const struct receiver *r, int listen_fd) __attribute__((noreturn));

/* The number behind the text, whatever its case, or -1. */
int64_t receiver_number(const char *request, const char *text);

#endif
