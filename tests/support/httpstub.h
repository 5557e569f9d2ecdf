/* httpstub.h - a scripted HTTP server in a child process, on a loopback port of its own.
 *
 * Answers are taken in order from the script, the last repeats. Requests are recorded whole in a
 * file (httpstub_request). */
#ifndef OB_TEST_HTTPSTUB_H
#define OB_TEST_HTTPSTUB_H

#include <stddef.h>
#include <sys/types.h>

struct httpstub_answer {
    int status;             /* 0: close the connection without an answer */
    const char *headers;    /* extra lines "A: b\r\n", or NULL */
    const char *body;       /* NULL: empty */
    unsigned delay_ms;      /* before the first byte */
    size_t cut_after_bytes; /* close after so many bytes of the answer; 0: whole */
    unsigned drip_ms;       /* between single bytes; 0: at once */
    const char *raw;        /* sent as is instead of all the above */
    int close_after;        /* close the connection after the answer (else keep-alive) */
    int reset;              /* whatever closes it, closes it with RST */
    size_t
        body_repeat; /* the body is sent so many times over (0: once): bodies larger than memory */
};

struct httpstub {
    pid_t pid;
    int port;
    char record_path[128];
};

void httpstub_start(struct httpstub *s, const struct httpstub_answer *answers, size_t count);
void httpstub_stop(struct httpstub *s);
size_t httpstub_requests(const struct httpstub *s);    /* complete requests so far */
size_t httpstub_connections(const struct httpstub *s); /* accepted so far */
/* The i-th request's head and body as received; static storage. NULL if there is none. */
const char *httpstub_request(const struct httpstub *s, size_t i);
/* A header's value in the i-th request, or NULL. */
const char *httpstub_header(const struct httpstub *s, size_t i, const char *name);
const char *httpstub_body(const struct httpstub *s, size_t i);

#endif
