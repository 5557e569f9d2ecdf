/* worker.h - write a resident worker for the dispatcher's `worker` handler. v0.1.0
 *
 * A worker is a program that the dispatcher (`outbox run`) starts once and then gives many jobs,
 * one after another, over its standard input; it answers on its standard output.
 *
 * QUICK EXAMPLE (a whole program: examples/07_worker.c)
 *
 *     #include <outbox/worker.h>
 *
 *     static void handle(const struct outbox_worker_job *job, struct outbox_worker_reply *reply)
 *     {
 *         if (job->payload_len == 0)
 *             outbox_worker_dead(reply, "no payload");       // kept, not tried again
 *         else if (!send_mail(job->payload, job->payload_len))
 *             outbox_worker_retry(reply, 30, "mail server busy"); // in 30 seconds at the earliest
 *     }                                                      // nothing said: the job is done
 *
 *     int main(void)
 *     {
 *         return outbox_worker_run(handle, NULL);
 *     }
 *
 *     # outbox.yaml
 *     tasks: { send-welcome-email: { worker: [/usr/local/bin/mail-worker] } }
 *
 * WHAT IS IN HERE
 *   1 types      struct outbox_worker_job, outbox_worker_options, outbox_worker_reply
 *   2 run        outbox_worker_run: the whole loop, for one job at a time
 *   3 answers    outbox_worker_ok, _retry, _dead, _touch
 *   4 by hand    outbox_worker_open, _next, _answer, _close: several jobs at once, answered in any
 *                order (one statement for sixteen jobs, threads, an event loop)
 *
 * REQUIREMENTS
 *   C99 or C++11, a POSIX system, nothing else.
 *
 * RULES
 *   Output    Standard output belongs to the protocol. From outbox_worker_open on, what the program
 *             prints goes to standard error instead, which the dispatcher writes to its log;
 *             standard input reads as empty. Programs that the worker starts get the same.
 *   Twice     A job may come twice, also after it was answered (the answer was lost). Its
 *             idempotency_key is the same each time and no other job's.
 *   Time      A job that is not answered by its deadline ends the worker: TERM, and KILL five
 *             seconds later. outbox_worker_touch puts the deadline off.
 *   End       End of file is how the dispatcher ends a worker: outbox_worker_run returns 0.
 *   Crash     A worker may die at any time: its jobs are tried again.
 *   Threads   One thread at a time for one struct outbox_worker; with threads, put a lock round the
 *             answers and call outbox_worker_next in one thread.
 *   Memory    What a job points to is valid until the next outbox_worker_next of its worker, or for
 *             the call of the handler.
 *
 * The protocol itself is in docs/handlers-worker.md. License: MIT (see LICENSE). */
#ifndef OUTBOX_WORKER_H
#define OUTBOX_WORKER_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef OUTBOX_API
#define OUTBOX_API static inline
#endif

#if defined(__GNUC__)
#define OUTBOX_PRIV_WORKER_CHECK __attribute__((warn_unused_result))
#else
#define OUTBOX_PRIV_WORKER_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --- 1 types --- */

#define OUTBOX_WORKER_PROTO 1

/* What the functions return, and outbox_worker_run as the exit code (after sysexits.h). */
enum outbox_worker_code {
    OUTBOX_WORKER_OK = 0,
    OUTBOX_WORKER_ENOMEM = 71, /* out of memory */
    OUTBOX_WORKER_EIO = 74,    /* a pipe to the dispatcher broke: errno says how */
    OUTBOX_WORKER_EPROTO = 76  /* not what a dispatcher of this protocol sends */
};

/* One job. Strings end with a NUL; never NULL unless it says so. */
struct outbox_worker_job {
    const char *id;      /* to be given back with the answer */
    const char *task;    /* the task it was enqueued under */
    const void *payload; /* followed by a NUL that payload_len does not count */
    size_t payload_len;
    const char *content_type;    /* "application/json", or "application/msgpack" */
    const char *headers;         /* a JSON object: "{}" */
    const char *key;             /* NULL: it has none */
    const char *idempotency_key; /* the same for every attempt of this job, and of no other */
    const char *created_at;      /* "2026-01-02T03:04:05.678901Z" */
    int64_t deadline;            /* when the timeout strikes, in unix seconds; 0: unknown */
    int attempt;                 /* from 1 */
    int max_attempts;
    int lost;  /* attempts that ended without a result, because the dispatcher died */
    void *arg; /* of the options */
};

struct outbox_worker_options {
    /* How many jobs the dispatcher may hand over before the first is answered; the task's own
     * `window` counts if it is smaller. outbox_worker_run still handles one at a time: more than 1
     * only saves the time between two jobs. 0 is 1. */
    unsigned window;
    void *arg; /* for job->arg */
};

/* A worker's pipes and memory. Its members are nobody's business. */
struct outbox_worker {
    int in;
    int out;
    unsigned window;
    char *bytes; /* what was read: from `start` to `end` */
    size_t cap;
    size_t start;
    size_t end;
    size_t payload_end; /* where `hidden` is replaced by a NUL while is_hidden */
    char hidden;
    bool is_hidden;
    char *line; /* the header of the job last returned, its strings decoded in place */
};

/* Where a handler's answer goes; made by outbox_worker_run. */
struct outbox_worker_reply {
    struct outbox_worker *worker;
    const char *id;
    bool is_answered;
    int code;
};

typedef void (*outbox_worker_handler)(const struct outbox_worker_job *job,
                                      struct outbox_worker_reply *reply);

/* --- 2 run --- */

/* Handles jobs until the dispatcher ends the worker. options may be NULL. Returns 0, or one of
 * outbox_worker_code after a line on standard error: return it from main. */
OUTBOX_API int outbox_worker_run(outbox_worker_handler handler,
                                 const struct outbox_worker_options *options);

/* --- 3 answers, within a handler: the first one counts --- */

/* The job is done. The same as saying nothing, but at once. */
OUTBOX_API void outbox_worker_ok(struct outbox_worker_reply *reply);
/* It failed, and may go better later: it is tried again after the task's backoff, and not before
 * after_s seconds. error says why (UTF-8; NULL: nothing); of a long one about 60,000 bytes are
 * kept. */
OUTBOX_API void outbox_worker_retry(struct outbox_worker_reply *reply, unsigned after_s,
                                    const char *error);
/* It failed, and trying again is no use: it is kept for a person to look at. */
OUTBOX_API void outbox_worker_dead(struct outbox_worker_reply *reply, const char *error);
/* It goes on: the timeout strikes extend_s seconds from now, or when it would have if that is
 * later. */
OUTBOX_API void outbox_worker_touch(struct outbox_worker_reply *reply, unsigned extend_s);

/* --- 4 by hand --- */

/* Takes standard input and output. window as in the options. Returns OUTBOX_WORKER_OK, ENOMEM or
 * EIO; on failure nothing is held. Ownership: outbox_worker_close. */
OUTBOX_API int outbox_worker_open(struct outbox_worker *w,
                                  unsigned window) OUTBOX_PRIV_WORKER_CHECK;
/* Waits for a job. Returns 1 and the job; 0: the dispatcher ends the worker, after all that is
 * unanswered; or a negative outbox_worker_code, and then the worker should exit. */
OUTBOX_API int outbox_worker_next(struct outbox_worker *w,
                                  struct outbox_worker_job *ret_job) OUTBOX_PRIV_WORKER_CHECK;
/* Descriptor to wait on in an event loop. It may be silent while a job has been read already: call
 * outbox_worker_next while outbox_worker_has_input says true. */
OUTBOX_API int outbox_worker_fd(const struct outbox_worker *w);
OUTBOX_API bool outbox_worker_has_input(const struct outbox_worker *w);
enum outbox_worker_status { OUTBOX_WORKER_DONE, OUTBOX_WORKER_RETRY, OUTBOX_WORKER_DEAD };
/* Answers the job of that id (a copy of job->id will do). after_s is for OUTBOX_WORKER_RETRY.
 * Returns OUTBOX_WORKER_OK, ENOMEM or EIO. */
OUTBOX_API int outbox_worker_answer(struct outbox_worker *w, const char *id,
                                    enum outbox_worker_status status, unsigned after_s,
                                    const char *error) OUTBOX_PRIV_WORKER_CHECK;
OUTBOX_API int outbox_worker_extend(struct outbox_worker *w, const char *id,
                                    unsigned extend_s) OUTBOX_PRIV_WORKER_CHECK;
OUTBOX_API void outbox_worker_close(struct outbox_worker *w);

/* --- bodies --- */

#define OUTBOX_PRIV_WORKER_LINE_MAX 65536
#define OUTBOX_PRIV_WORKER_ERROR_MAX                                                               \
    61440 /* of an error as JSON: the line stays below its limit                                   \
           */
#define OUTBOX_PRIV_WORKER_DEPTH_MAX 64
#define OUTBOX_PRIV_WORKER_LEN_MAX   1073741824 /* far beyond any payload */

/* --- reading a header line: strict JSON, strings decoded where they stand --- */

struct outbox_priv_worker_header {
    const char *op;
    int64_t proto;
    int64_t len; /* -1: not given */
    struct outbox_worker_job job;
};

struct outbox_priv_worker_reader {
    char *s;
    char *end;
};

static inline void outbox_priv_worker_blanks(struct outbox_priv_worker_reader *r)
{
    while (r->s < r->end && (*r->s == ' ' || *r->s == '\t' || *r->s == '\r'))
        r->s++;
}

/* The token, and the blanks before it. */
static inline bool outbox_priv_worker_char(struct outbox_priv_worker_reader *r, char c)
{
    outbox_priv_worker_blanks(r);
    if (r->s == r->end || *r->s != c)
        return false;
    r->s++;
    return true;
}

/* Four hex digits; -1: they are not. */
static inline long outbox_priv_worker_hex(const char *s, const char *end)
{
    long value = 0;
    int i;
    if (end - s < 4)
        return -1;
    for (i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static inline char *outbox_priv_worker_utf8(char *to, unsigned long code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

/* The escape behind a backslash at r->s - 1. What it stands for is never longer than it is. NULL:
 * it is none, or stands for NUL or half a character. */
static inline char *outbox_priv_worker_escape(struct outbox_priv_worker_reader *r, char *to)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    const char *name;
    long code;
    long low;
    if (r->s == r->end)
        return NULL;
    name = *r->s != '\0' ? strchr(names, *r->s) : NULL;
    if (name != NULL) {
        *to++ = values[name - names];
        r->s++;
        return to;
    }
    if (*r->s != 'u')
        return NULL;
    code = outbox_priv_worker_hex(r->s + 1, r->end);
    if (code <= 0 || (code >= 0xDC00 && code <= 0xDFFF))
        return NULL;
    r->s += 5;
    if (code < 0xD800 || code > 0xDBFF)
        return outbox_priv_worker_utf8(to, (unsigned long)code);
    if (r->end - r->s < 6 || r->s[0] != '\\' || r->s[1] != 'u')
        return NULL;
    low = outbox_priv_worker_hex(r->s + 2, r->end);
    if (low < 0xDC00 || low > 0xDFFF)
        return NULL;
    r->s += 6;
    return outbox_priv_worker_utf8(to, 0x10000UL + ((unsigned long)(code - 0xD800) << 10) +
                                           (unsigned long)(low - 0xDC00));
}

/* A string, decoded in place and ended with a NUL; NULL: it is none. */
static inline char *outbox_priv_worker_string(struct outbox_priv_worker_reader *r)
{
    char *text;
    char *to;
    if (!outbox_priv_worker_char(r, '"'))
        return NULL;
    text = r->s;
    to = text;
    while (r->s < r->end && *r->s != '"') {
        if ((unsigned char)*r->s < 0x20)
            return NULL;
        if (*r->s != '\\') {
            *to++ = *r->s++;
            continue;
        }
        r->s++;
        to = outbox_priv_worker_escape(r, to);
        if (to == NULL)
            return NULL;
    }
    if (r->s == r->end)
        return NULL;
    r->s++;
    *to = '\0';
    return text;
}

/* A whole number that fits. */
static inline bool outbox_priv_worker_int(struct outbox_priv_worker_reader *r, int64_t *ret)
{
    int64_t value = 0;
    bool is_negative;
    char *first;
    outbox_priv_worker_blanks(r);
    is_negative = r->s < r->end && *r->s == '-';
    if (is_negative)
        r->s++;
    first = r->s;
    while (r->s < r->end && *r->s >= '0' && *r->s <= '9') {
        int digit = *r->s - '0';
        if (value > (INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
        r->s++;
    }
    if (r->s == first || (*first == '0' && r->s - first > 1))
        return false;
    if (r->s < r->end && (*r->s == '.' || *r->s == 'e' || *r->s == 'E'))
        return false;
    *ret = is_negative ? -value : value;
    return true;
}

/* Over a string that nobody decodes. */
static inline bool outbox_priv_worker_skip_string(struct outbox_priv_worker_reader *r)
{
    if (!outbox_priv_worker_char(r, '"'))
        return false;
    while (r->s < r->end && *r->s != '"') {
        if ((unsigned char)*r->s < 0x20)
            return false;
        r->s += *r->s == '\\' && r->end - r->s > 1 ? 2 : 1;
    }
    if (r->s == r->end)
        return false;
    r->s++;
    return true;
}

/* A number, true, false, null: whatever stands until the next sign of structure. */
static inline bool outbox_priv_worker_skip_word(struct outbox_priv_worker_reader *r)
{
    char *first = r->s;
    while (r->s < r->end &&
           ((*r->s >= '0' && *r->s <= '9') || (*r->s >= 'a' && *r->s <= 'z') ||
            (*r->s >= 'A' && *r->s <= 'Z') || *r->s == '-' || *r->s == '+' || *r->s == '.'))
        r->s++;
    return r->s > first;
}

/* Over a value of any kind, whose inside is not looked at closely: only where it ends. */
static inline bool outbox_priv_worker_skip(struct outbox_priv_worker_reader *r)
{
    char closing[OUTBOX_PRIV_WORKER_DEPTH_MAX];
    int depth = 0;
    do {
        outbox_priv_worker_blanks(r);
        if (r->s == r->end)
            return false;
        if (*r->s == '{' || *r->s == '[') {
            if (depth == OUTBOX_PRIV_WORKER_DEPTH_MAX)
                return false;
            closing[depth++] = *r->s++ == '{' ? '}' : ']';
        } else if (depth > 0 && *r->s == closing[depth - 1]) {
            depth--;
            r->s++;
        } else if (depth > 0 && (*r->s == ',' || *r->s == ':')) {
            r->s++;
        } else if (*r->s == '"' ? !outbox_priv_worker_skip_string(r)
                                : !outbox_priv_worker_skip_word(r)) {
            return false;
        }
    } while (depth > 0);
    return true;
}

/* The member's place among the strings of a header; NULL: it is another kind, or unknown. */
static inline const char **outbox_priv_worker_string_of(struct outbox_priv_worker_header *h,
                                                        const char *name)
{
    if (strcmp(name, "op") == 0)
        return &h->op;
    if (strcmp(name, "id") == 0)
        return &h->job.id;
    if (strcmp(name, "task") == 0)
        return &h->job.task;
    if (strcmp(name, "key") == 0)
        return &h->job.key;
    if (strcmp(name, "content_type") == 0)
        return &h->job.content_type;
    if (strcmp(name, "idempotency_key") == 0)
        return &h->job.idempotency_key;
    if (strcmp(name, "created_at") == 0)
        return &h->job.created_at;
    return NULL;
}

static inline bool outbox_priv_worker_number(struct outbox_priv_worker_header *h, const char *name,
                                             struct outbox_priv_worker_reader *r, bool *ret_ok)
{
    int64_t value = 0;
    int64_t max = INT64_MAX;
    int64_t *wide = NULL;
    int *narrow = NULL;
    if (strcmp(name, "proto") == 0)
        wide = &h->proto;
    else if (strcmp(name, "len") == 0)
        wide = &h->len;
    else if (strcmp(name, "deadline") == 0)
        wide = &h->job.deadline;
    else if (strcmp(name, "attempt") == 0)
        narrow = &h->job.attempt;
    else if (strcmp(name, "max_attempts") == 0)
        narrow = &h->job.max_attempts;
    else if (strcmp(name, "lost") == 0)
        narrow = &h->job.lost;
    else
        return false;
    if (narrow != NULL)
        max = 1000000000;
    *ret_ok = outbox_priv_worker_int(r, &value) && value >= 0 && value <= max;
    if (*ret_ok && narrow != NULL)
        *narrow = (int)value;
    else if (*ret_ok)
        *wide = value;
    return true;
}

/* One "name": value. headers_end: where the text of "headers" ends, to be cut off at the end. */
static inline bool outbox_priv_worker_member(struct outbox_priv_worker_header *h,
                                             struct outbox_priv_worker_reader *r,
                                             char **headers_end)
{
    bool is_ok = false;
    const char **string;
    const char *name = outbox_priv_worker_string(r);
    if (name == NULL || !outbox_priv_worker_char(r, ':'))
        return false;
    string = outbox_priv_worker_string_of(h, name);
    if (string != NULL) {
        *string = outbox_priv_worker_string(r);
        return *string != NULL;
    }
    if (outbox_priv_worker_number(h, name, r, &is_ok))
        return is_ok;
    outbox_priv_worker_blanks(r);
    if (strcmp(name, "headers") == 0) {
        h->job.headers = r->s;
        if (r->s == r->end || *r->s != '{' || !outbox_priv_worker_skip(r))
            return false;
        *headers_end = r->s;
        return true;
    }
    return outbox_priv_worker_skip(r);
}

/* line: len bytes and one more that may be written. False: not a header of this protocol. */
static inline bool outbox_priv_worker_parse(char *line, size_t len,
                                            struct outbox_priv_worker_header *h)
{
    struct outbox_priv_worker_reader r;
    char *headers_end = NULL;
    memset(h, 0, sizeof *h);
    h->len = -1;
    h->job.task = h->job.content_type = h->job.idempotency_key = h->job.created_at = "";
    h->job.headers = "{}";
    r.s = line;
    r.end = line + len;
    if (!outbox_priv_worker_char(&r, '{'))
        return false;
    if (!outbox_priv_worker_char(&r, '}')) {
        do {
            if (!outbox_priv_worker_member(h, &r, &headers_end))
                return false;
        } while (outbox_priv_worker_char(&r, ','));
        if (!outbox_priv_worker_char(&r, '}'))
            return false;
    }
    outbox_priv_worker_blanks(&r);
    if (r.s != r.end || h->op == NULL)
        return false;
    if (headers_end != NULL)
        *headers_end = '\0';
    if (strcmp(h->op, "hello") == 0)
        return h->proto >= OUTBOX_WORKER_PROTO;
    return strcmp(h->op, "job") == 0 && h->job.id != NULL && h->job.id[0] != '\0' && h->len >= 0 &&
           h->len <= OUTBOX_PRIV_WORKER_LEN_MAX;
}

/* --- the pipes --- */

static inline int outbox_priv_worker_write(const struct outbox_worker *w, const char *bytes,
                                           size_t len)
{
    while (len > 0) {
        ssize_t n = write(w->out, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return OUTBOX_WORKER_EIO;
        bytes += n;
        len -= (size_t)n;
    }
    return OUTBOX_WORKER_OK;
}

/* Reads at least one byte more; there is room for `want` from w->start on, and one byte. Returns 1,
 * 0 at the end of file, or a negative code. */
static inline int outbox_priv_worker_read(struct outbox_worker *w, size_t want)
{
    ssize_t n;
    if (w->start > 0 && (w->start == w->end || w->cap - w->start <= want)) {
        memmove(w->bytes, w->bytes + w->start, w->end - w->start);
        w->end -= w->start;
        w->start = 0;
    }
    if (w->cap <= want) {
        size_t cap = want + OUTBOX_PRIV_WORKER_LINE_MAX + 1;
        char *bytes = (char *)realloc(w->bytes, cap);
        if (bytes == NULL)
            return -OUTBOX_WORKER_ENOMEM;
        w->bytes = bytes;
        w->cap = cap;
    }
    do {
        n = read(w->in, w->bytes + w->end, w->cap - w->end - 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -OUTBOX_WORKER_EIO;
    w->end += (size_t)n;
    return n > 0 ? 1 : 0;
}

/* The next line, in w->line with a NUL at its end. Returns its length, 0 at the end of file (an
 * empty line is no header), or a negative code. */
static inline int outbox_priv_worker_line(struct outbox_worker *w)
{
    size_t seen = 0;
    for (;;) {
        size_t have = w->end - w->start;
        const char *first = w->bytes + w->start;
        const char *found =
            have > seen ? (const char *)memchr(first + seen, '\n', have - seen) : NULL;
        int rc;
        if (found != NULL) {
            size_t len = (size_t)(found - first);
            if (len == 0 || len >= OUTBOX_PRIV_WORKER_LINE_MAX)
                return -OUTBOX_WORKER_EPROTO;
            memcpy(w->line, first, len);
            w->line[len] = '\0';
            w->start += len + 1;
            return (int)len;
        }
        if (have >= OUTBOX_PRIV_WORKER_LINE_MAX)
            return -OUTBOX_WORKER_EPROTO;
        seen = have;
        rc = outbox_priv_worker_read(w, OUTBOX_PRIV_WORKER_LINE_MAX);
        if (rc == 0 && have > 0)
            return -OUTBOX_WORKER_EPROTO; /* it ended within a line */
        if (rc <= 0)
            return rc;
    }
}

static inline int outbox_priv_worker_payload(struct outbox_worker *w, size_t len,
                                             struct outbox_worker_job *job)
{
    while (w->end - w->start < len) {
        int rc = outbox_priv_worker_read(w, len);
        if (rc <= 0)
            return rc < 0 ? rc : -OUTBOX_WORKER_EPROTO;
    }
    job->payload = w->bytes + w->start;
    job->payload_len = len;
    w->start += len;
    w->payload_end = w->start;
    w->hidden = w->bytes[w->payload_end];
    w->bytes[w->payload_end] = '\0';
    w->is_hidden = true;
    return 1;
}

/* --- answers --- */

/* How many bytes the UTF-8 sequence at s has; 0: it is none. */
static inline size_t outbox_priv_worker_sequence(const unsigned char *s)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
               : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
               : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                             : 0;
    size_t i;
    for (i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
        (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return n;
}

/* Appends text as a JSON string of at most max bytes without its quotes. */
static inline char *outbox_priv_worker_quote(char *to, const char *text, size_t max)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *s = (const unsigned char *)text;
    char *limit = to + max - 6;
    *to++ = '"';
    while (*s != '\0' && to < limit) {
        size_t n = outbox_priv_worker_sequence(s);
        if (*s == '"' || *s == '\\') {
            *to++ = '\\';
            *to++ = (char)*s++;
        } else if (*s < 0x20 || *s == 0x7F) {
            to[0] = '\\';
            to[1] = 'u';
            to[2] = '0';
            to[3] = '0';
            to[4] = digits[*s >> 4];
            to[5] = digits[*s & 15];
            to += 6;
            s++;
        } else if (n == 0) {
            *to++ = '?';
            s++;
        } else {
            memcpy(to, s, n);
            to += n;
            s += n;
        }
    }
    *to++ = '"';
    return to;
}

#define OUTBOX_PRIV_WORKER_PUT(to, text)                                                           \
    (memcpy((to), (text), sizeof(text) - 1), (to) + sizeof(text) - 1)

OUTBOX_API int outbox_worker_answer(struct outbox_worker *w, const char *id,
                                    enum outbox_worker_status status, unsigned after_s,
                                    const char *error)
{
    char small[512];
    bool is_long = error != NULL && strlen(error) > 48;
    char *text = is_long ? (char *)malloc(OUTBOX_PRIV_WORKER_LINE_MAX) : small;
    char *to = text;
    int code;
    if (text == NULL)
        return OUTBOX_WORKER_ENOMEM;
    to = OUTBOX_PRIV_WORKER_PUT(to, "{\"id\":");
    to = outbox_priv_worker_quote(to, id, 64);
    if (status == OUTBOX_WORKER_DONE) {
        to = OUTBOX_PRIV_WORKER_PUT(to, ",\"status\":\"ok\"");
    } else if (status == OUTBOX_WORKER_RETRY) {
        to = OUTBOX_PRIV_WORKER_PUT(to, ",\"status\":\"retry\"");
        to += snprintf(to, 32, ",\"after\":%u", after_s);
    } else {
        to = OUTBOX_PRIV_WORKER_PUT(to, ",\"status\":\"dead\"");
    }
    if (error != NULL && status != OUTBOX_WORKER_DONE) {
        to = OUTBOX_PRIV_WORKER_PUT(to, ",\"error\":");
        to = outbox_priv_worker_quote(to, error, is_long ? OUTBOX_PRIV_WORKER_ERROR_MAX : 320);
    }
    to = OUTBOX_PRIV_WORKER_PUT(to, "}\n");
    code = outbox_priv_worker_write(w, text, (size_t)(to - text));
    if (is_long)
        free(text);
    return code;
}

OUTBOX_API int outbox_worker_extend(struct outbox_worker *w, const char *id, unsigned extend_s)
{
    char text[160];
    char *to = OUTBOX_PRIV_WORKER_PUT(text, "{\"op\":\"touch\",\"id\":");
    to = outbox_priv_worker_quote(to, id, 64);
    to += snprintf(to, 32, ",\"extend\":%u}\n", extend_s);
    return outbox_priv_worker_write(w, text, (size_t)(to - text));
}

static inline void outbox_priv_worker_reply(struct outbox_worker_reply *reply,
                                            enum outbox_worker_status status, unsigned after_s,
                                            const char *error)
{
    if (reply->is_answered)
        return;
    reply->is_answered = true;
    reply->code = outbox_worker_answer(reply->worker, reply->id, status, after_s, error);
}

OUTBOX_API void outbox_worker_ok(struct outbox_worker_reply *reply)
{
    outbox_priv_worker_reply(reply, OUTBOX_WORKER_DONE, 0, NULL);
}

OUTBOX_API void outbox_worker_retry(struct outbox_worker_reply *reply, unsigned after_s,
                                    const char *error)
{
    outbox_priv_worker_reply(reply, OUTBOX_WORKER_RETRY, after_s, error);
}

OUTBOX_API void outbox_worker_dead(struct outbox_worker_reply *reply, const char *error)
{
    outbox_priv_worker_reply(reply, OUTBOX_WORKER_DEAD, 0, error);
}

OUTBOX_API void outbox_worker_touch(struct outbox_worker_reply *reply, unsigned extend_s)
{
    if (!reply->is_answered && reply->code == OUTBOX_WORKER_OK)
        reply->code = outbox_worker_extend(reply->worker, reply->id, extend_s);
}

/* --- by hand --- */

/* A private copy of descriptor fd, in whose place `instead` is put. Negative: errno. */
static inline int outbox_priv_worker_take(int fd, int instead)
{
    int copy = dup(fd);
    if (copy >= 0 && (fcntl(copy, F_SETFD, FD_CLOEXEC) != 0 || dup2(instead, fd) < 0)) {
        (void)close(copy);
        return -1;
    }
    return copy;
}

OUTBOX_API int outbox_worker_open(struct outbox_worker *w, unsigned window)
{
    int null = open("/dev/null", O_RDONLY);
    memset(w, 0, sizeof *w);
    w->window = window > 0 ? window : 1;
    w->in = -1;
    w->out = -1;
    w->cap = 2 * OUTBOX_PRIV_WORKER_LINE_MAX;
    w->bytes = (char *)malloc(w->cap);
    w->line = (char *)malloc(OUTBOX_PRIV_WORKER_LINE_MAX);
    if (w->bytes == NULL || w->line == NULL) {
        if (null >= 0)
            (void)close(null);
        outbox_worker_close(w);
        return OUTBOX_WORKER_ENOMEM;
    }
    if (null >= 0) {
        w->out = outbox_priv_worker_take(STDOUT_FILENO, STDERR_FILENO);
        w->in = w->out >= 0 ? outbox_priv_worker_take(STDIN_FILENO, null) : -1;
        (void)close(null);
    }
    if (w->in >= 0)
        return OUTBOX_WORKER_OK;
    outbox_worker_close(w);
    return OUTBOX_WORKER_EIO;
}

OUTBOX_API int outbox_worker_next(struct outbox_worker *w, struct outbox_worker_job *ret_job)
{
    struct outbox_priv_worker_header header;
    char ready[64];
    int len;
    int code;
    if (w->is_hidden)
        w->bytes[w->payload_end] = w->hidden;
    w->is_hidden = false;
    for (;;) {
        len = outbox_priv_worker_line(w);
        if (len <= 0)
            return len;
        if (!outbox_priv_worker_parse(w->line, (size_t)len, &header))
            return -OUTBOX_WORKER_EPROTO;
        if (strcmp(header.op, "job") == 0)
            break;
        len = snprintf(ready, sizeof ready, "{\"op\":\"ready\",\"proto\":%d,\"window\":%u}\n",
                       OUTBOX_WORKER_PROTO, w->window);
        code = outbox_priv_worker_write(w, ready, (size_t)len);
        if (code != OUTBOX_WORKER_OK)
            return -code;
    }
    *ret_job = header.job;
    return outbox_priv_worker_payload(w, (size_t)header.len, ret_job);
}

OUTBOX_API int outbox_worker_fd(const struct outbox_worker *w)
{
    return w->in;
}

OUTBOX_API bool outbox_worker_has_input(const struct outbox_worker *w)
{
    return w->end > w->start;
}

OUTBOX_API void outbox_worker_close(struct outbox_worker *w)
{
    if (w->in >= 0)
        (void)close(w->in);
    if (w->out >= 0)
        (void)close(w->out);
    free(w->bytes);
    free(w->line);
    memset(w, 0, sizeof *w);
    w->in = -1;
    w->out = -1;
}

/* --- run --- */

OUTBOX_API int outbox_worker_run(outbox_worker_handler handler,
                                 const struct outbox_worker_options *options)
{
    struct outbox_worker worker;
    struct outbox_worker_job job;
    struct outbox_worker_reply reply;
    int rc = outbox_worker_open(&worker, options != NULL ? options->window : 1);
    int code = rc;
    if (rc == OUTBOX_WORKER_OK) {
        memset(&job, 0, sizeof job);
        while ((rc = outbox_worker_next(&worker, &job)) > 0) {
            job.arg = options != NULL ? options->arg : NULL;
            memset(&reply, 0, sizeof reply);
            reply.worker = &worker;
            reply.id = job.id;
            handler(&job, &reply);
            outbox_worker_ok(&reply); /* unless it was answered */
            if (reply.code != OUTBOX_WORKER_OK) {
                rc = -reply.code;
                break;
            }
        }
        code = -rc;
        outbox_worker_close(&worker);
    }
    if (code == OUTBOX_WORKER_EPROTO)
        (void)fputs("worker: the dispatcher does not speak this protocol\n", stderr);
    else if (code == OUTBOX_WORKER_ENOMEM)
        (void)fputs("worker: out of memory\n", stderr);
    else if (code != OUTBOX_WORKER_OK)
        perror("worker: the pipe to the dispatcher");
    return code;
}

#ifdef __cplusplus
}
#endif

#undef OUTBOX_PRIV_WORKER_PUT
#undef OUTBOX_PRIV_WORKER_CHECK
#undef OUTBOX_PRIV_WORKER_LINE_MAX
#undef OUTBOX_PRIV_WORKER_ERROR_MAX
#undef OUTBOX_PRIV_WORKER_DEPTH_MAX
#undef OUTBOX_PRIV_WORKER_LEN_MAX

#endif
