/* outbox.h - enqueue jobs in PostgreSQL inside your own transaction. v0.1.0
 *
 * A job is a row: it exists if and only if the transaction that enqueued it commits. The dispatcher
 * (`outbox run`) then executes it, at least once, by the handler registered for its task.
 *
 * QUICK EXAMPLE (a whole program: examples/01_enqueue.c)
 *
 *     #include <outbox/outbox.h>
 *
 *     struct outbox_payload args;
 *     struct outbox_job job = OUTBOX_JOB("send-welcome-email");
 *     struct outbox_error err;
 *     int64_t id;
 *
 *     outbox_payload_init(&args);
 *     outbox_put_int(&args, "user", 42);                 // no need to check each: the first
 *     outbox_put_str(&args, "email", "ann@example.com"); // failure sticks, and enqueue reports it
 *     job.payload = &args;
 *     if (outbox_enqueue(conn, &job, &id, &err) != OUTBOX_OK)  // between your BEGIN and COMMIT
 *         fprintf(stderr, "%s\n", err.message);                // roll back
 *     outbox_payload_free(&args);
 *
 * WHAT IS IN HERE
 *   1 errors       struct outbox_error, outbox_strerror
 *   2 payload      outbox_payload_*, outbox_put_*, outbox_begin_*, outbox_end
 *   3 job          struct outbox_job, OUTBOX_JOB
 *   4 enqueue      outbox_enqueue, outbox_enqueue_many, outbox_check_schema
 *   5 query form   outbox_query_*: statement and parameters, for event loops, pipelines, libpqxx
 *
 * REQUIREMENTS
 *   C99 or C++11; libpq 14 or later; the headers of msgpack-c (its library is not linked); the
 *   schema `outbox` in the database (`outbox migrate`) and, for your role, `outbox grant --producer
 *   ROLE`.
 *   Flags:  pkg-config --cflags --libs pgoutbox
 *   CMake:  find_package(pgoutbox) and pgoutbox::pgoutbox
 *   by hand:  cc -I$(pg_config --includedir) program.c -lpq
 *
 * COMPILE-TIME OPTIONS (define before including, the same in all units of a program)
 *   OUTBOX_API                what stands before every function; default: static inline
 *   OUTBOX_PAYLOAD_BYTES_MAX  the largest payload; default and maximum: 16777216 (16 MiB)
 *
 * RULES
 *   Transactions  Nothing here begins, commits or rolls back. The blocking calls refuse a
 *                 connection that is not inside a transaction block (OUTBOX_ENOTX) unless the job
 *                 carries OUTBOX_ALLOW_AUTOCOMMIT; the query form cannot check. A savepoint decides
 *                 about the jobs enqueued in it. When the server refused a job, it has aborted the
 *                 transaction: roll back.
 *   Threads       No state: anything may be used from several threads, but one PGconn, one payload,
 *                 one job and one query by one thread at a time (libpq's own rule).
 *   Memory        Pointers are borrowed for the call, unless a comment says longer. A payload owns
 *                 its bytes until outbox_payload_free; a query may own memory until
 *                 outbox_query_free. Nothing else allocates; nothing is logged, printed, or kept.
 *   Text          Strings are in the connection's client_encoding and end with a NUL; inside a
 *                 payload they are UTF-8 whatever that is (a job outlives the connection).
 *   Poolers       No prepared statements, no LISTEN, no session state: any pooler will do.
 *
 * ERRORS (negative; OUTBOX_OK is 0)
 *   nothing was sent, and the transaction is as it was:
 *     OUTBOX_EINVAL      an argument is wrong: the message says which
 *     OUTBOX_ENOMEM      out of memory
 *     OUTBOX_ETOOBIG     a payload over 16 MiB, or a batch over 1 GB
 *     OUTBOX_ENOTX       not inside a transaction
 *     OUTBOX_EBUSY       results of an earlier query are to be read first, or pipeline mode is on
 *     OUTBOX_EABORTED    the transaction has failed before: roll back first
 *   the server refused, and has aborted the transaction (roll back, to a savepoint if you set one):
 *     OUTBOX_EDB         see sqlstate and message; without a sqlstate, libpq had no answer to give
 *     OUTBOX_ESCHEMA     the schema is missing or of another version: run `outbox migrate`
 *     OUTBOX_EPRIVILEGE  the role may not enqueue: run `outbox grant --producer ROLE`
 *   the transaction is gone with its connection (rolled back; with OUTBOX_ALLOW_AUTOCOMMIT it is
 *   unknown whether the job exists):
 *     OUTBOX_ECONN       there is no connection, or it was lost
 *
 * It writes to the table outbox.job, through the functions outbox.enqueue_plain,
 * outbox.enqueue_bytes and outbox.enqueue_many alone: one statement a call. License: MIT (see
 * LICENSE). */
#ifndef OUTBOX_H
#define OUTBOX_H

/* Plain integers: usable in #if, and read by CMake. */
#define OUTBOX_VERSION_MAJOR 0
#define OUTBOX_VERSION_MINOR 1
#define OUTBOX_VERSION_PATCH 0
/* 1002003 is version 1.2.3. */
#define OUTBOX_VERSION_NUM                                                                         \
    (OUTBOX_VERSION_MAJOR * 1000000 + OUTBOX_VERSION_MINOR * 1000 + OUTBOX_VERSION_PATCH)
#define OUTBOX_PRIV_STRING_(x) #x
#define OUTBOX_PRIV_STRING(x)  OUTBOX_PRIV_STRING_(x)
#define OUTBOX_VERSION_STRING                                                                      \
    OUTBOX_PRIV_STRING(OUTBOX_VERSION_MAJOR)                                                       \
    "." OUTBOX_PRIV_STRING(OUTBOX_VERSION_MINOR) "." OUTBOX_PRIV_STRING(OUTBOX_VERSION_PATCH)
/* #if OUTBOX_AT_LEAST(0, 2, 0) */
#define OUTBOX_AT_LEAST(major, minor, patch)                                                       \
    (OUTBOX_VERSION_NUM >= (major)*1000000 + (minor)*1000 + (patch))

/* The level of the schema that this header needs: outbox_check_schema. */
#define OUTBOX_SCHEMA_VERSION 1

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>
#include <msgpack/pack.h> /* not <msgpack.h>: it does not compile beside <msgpack.hpp> */
#include <msgpack/sbuffer.h>

#ifndef OUTBOX_API
#define OUTBOX_API static inline
#endif

#ifndef OUTBOX_PAYLOAD_BYTES_MAX
#define OUTBOX_PAYLOAD_BYTES_MAX 16777216
#endif
#if OUTBOX_PAYLOAD_BYTES_MAX > 16777216
#error "OUTBOX_PAYLOAD_BYTES_MAX: the table takes no more than 16777216 bytes (16 MiB)"
#endif

#if defined(__GNUC__)
#define OUTBOX_PRIV_MUST_CHECK         __attribute__((warn_unused_result))
#define OUTBOX_PRIV_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define OUTBOX_PRIV_MUST_CHECK
#define OUTBOX_PRIV_PRINTF(fmt, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --- 1 errors --- */

/* The top of this file says what each means for the transaction. */
enum outbox_code {
    OUTBOX_OK = 0,
    OUTBOX_EINVAL = -1,
    OUTBOX_ENOMEM = -2,
    OUTBOX_ENOTX = -3,
    OUTBOX_EABORTED = -4,
    OUTBOX_EBUSY = -5,
    OUTBOX_ETOOBIG = -6,
    OUTBOX_EDB = -7,
    OUTBOX_ECONN = -8,
    OUTBOX_ESCHEMA = -9,
    OUTBOX_EPRIVILEGE = -10,
    OUTBOX_EINTX = -11,   /* of consumer.h */
    OUTBOX_ETIMEOUT = -12 /* of consumer.h */
};

/* Written on failure only; every function that takes one takes NULL too. */
struct outbox_error {
    int code;          /* what the function returned */
    char sqlstate[6];  /* the server's, or "" */
    char message[256]; /* one or two sentences, cut if longer; never a payload, never a password */
};

/* A short description of any code, never NULL; static storage. */
OUTBOX_API const char *outbox_strerror(int code);

/* --- 2 payload ---
 *
 * What the handler gets. Usually a map, built member by member, without a count in advance:
 *
 *     outbox_put_int(&p, "order", 1001);          {"order": 1001,
 *     outbox_begin_array(&p, "items");             "items": [
 *     outbox_put_str(&p, NULL, "book");                "book",
 *     outbox_put_str(&p, NULL, "pen");                 "pen"],
 *     outbox_end(&p);
 *     outbox_begin_map(&p, "address");             "address": {
 *     outbox_put_str(&p, "city", "Ghent");             "city": "Ghent"}
 *     outbox_end(&p);                             }
 *
 * `key` is the member's name inside a map and NULL inside an array. A first put with a key makes
 * the root a map, which is not ended; a first put (or begin) without one is the root itself: a
 * scalar, an array, or a map that is ended. Duplicate keys are not looked for. The bytes are
 * msgpack in its shortest form, the same that msgpack-c packs when it is told the counts.
 *
 * Every call returns OUTBOX_OK or the payload's first error, which sticks: later calls change
 * nothing and enqueueing reports it. OUTBOX_EINVAL: wrong use (a key missing or too many, invalid
 * UTF-8, ...); OUTBOX_ETOOBIG: larger than OUTBOX_PAYLOAD_BYTES_MAX; OUTBOX_ENOMEM. The call that
 * failed left the bytes as they were. */

/* Maps and arrays within each other, raw msgpack included. */
enum { OUTBOX_PAYLOAD_DEPTH_MAX = 64 };

struct outbox_priv_level {
    size_t header; /* offset of the header byte */
    uint32_t count;
    bool is_map;
};

struct outbox_payload {
    /* all private; all zero is the same as outbox_payload_init */
    msgpack_sbuffer buffer;
    int error;
    const char *reason;
    bool is_json;
    bool has_open_root; /* the root map was opened by a first put with a key */
    unsigned depth;
    struct outbox_priv_level level[OUTBOX_PAYLOAD_DEPTH_MAX];
};

/* Empty; allocates nothing. An empty payload is enqueued as {}. */
OUTBOX_API void outbox_payload_init(struct outbox_payload *p);
/* Empty again, error included; keeps the memory for the next job. */
OUTBOX_API void outbox_payload_clear(struct outbox_payload *p);
/* Releases the memory; the payload is empty and may be used again. NULL is fine. */
OUTBOX_API void outbox_payload_free(struct outbox_payload *p);
/* OUTBOX_OK when complete and fit to be enqueued; else its first error, or OUTBOX_EINVAL while a
 * map or an array is not ended. */
OUTBOX_API int outbox_payload_error(const struct outbox_payload *p);
/* The encoded bytes so far and their number: a view, valid until the next call that changes p. NULL
 * and 0 while empty. */
OUTBOX_API const char *outbox_payload_bytes(const struct outbox_payload *p, size_t *ret_len);

/* The payload is this JSON text, copied as it is (UTF-8; the server checks it: 22P02). Only for an
 * empty payload, and nothing can be put after it. */
OUTBOX_API int outbox_payload_set_json(struct outbox_payload *p, const char *json, size_t len);

OUTBOX_API int outbox_put_int(struct outbox_payload *p, const char *key, int64_t value);
OUTBOX_API int outbox_put_uint(struct outbox_payload *p, const char *key, uint64_t value);
OUTBOX_API int outbox_put_bool(struct outbox_payload *p, const char *key, bool value);
/* NaN and the infinities are kept in msgpack and become null where the handler gets JSON. */
OUTBOX_API int outbox_put_double(struct outbox_payload *p, const char *key, double value);
/* NULL text is put as null. Text must be UTF-8: bytes go with outbox_put_bin. */
OUTBOX_API int outbox_put_str(struct outbox_payload *p, const char *key, const char *text);
OUTBOX_API int outbox_put_strn(struct outbox_payload *p, const char *key, const char *text,
                               size_t len);
/* Base64 where the handler gets JSON. */
OUTBOX_API int outbox_put_bin(struct outbox_payload *p, const char *key, const void *bytes,
                              size_t len);
OUTBOX_API int outbox_put_null(struct outbox_payload *p, const char *key);
/* Seconds since 1970 UTC, and nanoseconds below 1,000,000,000. RFC 3339 where the handler gets
 * JSON. */
OUTBOX_API int outbox_put_timestamp(struct outbox_payload *p, const char *key, int64_t seconds,
                                    uint32_t nanoseconds);
/* One value that is msgpack already (of your own packer; with key NULL first: the whole payload).
 * Its structure and depth are checked, its strings are not. */
OUTBOX_API int outbox_put_msgpack(struct outbox_payload *p, const char *key, const void *bytes,
                                  size_t len);
OUTBOX_API int outbox_begin_map(struct outbox_payload *p, const char *key);
OUTBOX_API int outbox_begin_array(struct outbox_payload *p, const char *key);
/* Ends the innermost map or array that was begun. */
OUTBOX_API int outbox_end(struct outbox_payload *p);

/* --- 3 job --- */

/* Flags of a job. */
enum {
    OUTBOX_ALLOW_AUTOCOMMIT = 1 /* outside a transaction too: the job is then committed by itself */
};

/* Initialise with OUTBOX_JOB("task-name"), then set what you need: zero and NULL mean "not given".
 * What it points at is borrowed. May be used again for the next job. */
struct outbox_job {
    const char *task;                     /* required: [A-Za-z0-9_][A-Za-z0-9._:-]*, at most 128 */
    const struct outbox_payload *payload; /* NULL: {} */
    const char *key;                      /* jobs of one task and key run one at a time, in order */
    const char *unique_key;               /* at most one waiting job of this task and unique_key */
    int priority;                         /* 1 (first) to 4; 0: the default, 2 */
    int max_attempts;                     /* 1 to 32767; 0: the task's */
    int64_t run_at_us;                    /* not before: microseconds since 1970 UTC */
    int64_t delay_ms;                     /* not before now + delay; not together with run_at_us */
    int64_t expires_at_us;                /* not started after: microseconds since 1970 UTC */
    int64_t repeat_every_ms;              /* so long after each success it runs again */
    const char *headers;  /* a JSON object (a trace context, ...) of <= 8 KiB for the handler */
    const int64_t *after; /* ids of jobs that have to be done before */
    size_t after_count;
    const char *on_failed_dependency; /* when one of them is dead: "run"; NULL: dead too */
    bool notify_done;                 /* NOTIFY outbox_done when it has ended */
    unsigned flags;                   /* OUTBOX_ALLOW_AUTOCOMMIT */
    /* written by a successful enqueue */
    int64_t id;    /* the job's; for an existing one, its id */
    bool existing; /* unique_key: a waiting job had it already, and nothing was added */
};

/* Every member, by position: complete in C99 and in C++11, without warnings. */
#define OUTBOX_JOB(task_name)                                                                      \
    {                                                                                              \
        (task_name), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, NULL, false, 0, 0, false   \
    }

/* --- 4 enqueue: blocking --- */

/* Enqueues one job in the connection's open transaction: one statement, one round trip.
 * ret_id: the job's id (also in job->id); may be NULL. Returns OUTBOX_OK or a code of the list at
 * the top; on failure *ret_id and *job are unchanged and *reterr says why. After OUTBOX_EDB the
 * caller's transaction is aborted by the server. */
OUTBOX_API int outbox_enqueue(PGconn *conn, struct outbox_job *job, int64_t *ret_id,
                              struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* Enqueues n jobs by one statement: all or none. ret_ids: room for n ids, in the order of jobs
 * (also in jobs[i].id), or NULL. n = 0 is fine and sends nothing. OUTBOX_ALLOW_AUTOCOMMIT has to be
 * on every job. Copies payloads and options into one allocation for the time of the call; a total
 * over 1 GB is OUTBOX_ETOOBIG (a few thousand a call are fastest). Failure as outbox_enqueue. */
OUTBOX_API int outbox_enqueue_many(PGconn *conn, struct outbox_job *jobs, size_t n,
                                   int64_t *ret_ids,
                                   struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* Whether this header and the database's schema fit: for your start-up, on demand, outside
 * transactions best (a failure inside one aborts it). Never needed for enqueueing. Returns
 * OUTBOX_OK, OUTBOX_ESCHEMA ("run `outbox migrate`", or "built against an older outbox.h"), or as
 * enqueue. */
OUTBOX_API int outbox_check_schema(PGconn *conn,
                                   struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* --- 5 query form: never blocks, never touches a connection ---
 *
 *     struct outbox_query q;
 *     if (outbox_query_init(&q, &job, &err) != OUTBOX_OK) ...
 *     PQsendQueryParams(conn, q.sql, q.nparams, q.types, q.values, q.lengths, q.formats, 0);
 *     outbox_query_free(&q);                          // libpq has copied it
 *     ... later, with the PGresult:
 *     outbox_query_result(res, &job, 1, &id, &err)
 *
 * Nobody checks the transaction: sent outside one, the job commits by itself. */

enum { OUTBOX_QUERY_PARAMS_MAX = 15 };

/* Points into itself and borrows from the jobs and their payloads: do not copy it, and free it
 * first. */
struct outbox_query {
    const char *sql; /* static storage */
    int nparams;
    Oid types[OUTBOX_QUERY_PARAMS_MAX];
    const char *values[OUTBOX_QUERY_PARAMS_MAX];
    int lengths[OUTBOX_QUERY_PARAMS_MAX];
    int formats[OUTBOX_QUERY_PARAMS_MAX];
    /* private */
    char scratch[64];
    size_t scratch_used;
    void *heap;
};

/* Fills *q for one job. Returns OUTBOX_OK, OUTBOX_EINVAL, OUTBOX_ETOOBIG or OUTBOX_ENOMEM; on
 * failure there is nothing to free. */
OUTBOX_API int outbox_query_init(struct outbox_query *q, const struct outbox_job *job,
                                 struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* The same for n jobs in one statement, n at least 1. client_encoding: PQclientEncoding(conn); 0
 * will do for UTF-8 and all encodings but SJIS, BIG5, GBK, UHC, JOHAB and GB18030. */
OUTBOX_API int outbox_query_init_many(struct outbox_query *q, const struct outbox_job *jobs,
                                      size_t n, int client_encoding,
                                      struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* Releases what init allocated (a batch, or job.after); NULL and twice are fine. */
OUTBOX_API void outbox_query_free(struct outbox_query *q);

/* Reads the result of either form (text or binary format): ids to jobs[i].id and ret_ids[i], in
 * order; either may be NULL. Does not clear res. NULL res is a failure. Returns OUTBOX_OK,
 * OUTBOX_EDB, OUTBOX_ECONN, OUTBOX_ESCHEMA, OUTBOX_EPRIVILEGE, or OUTBOX_EABORTED (the transaction,
 * or the pipeline, had failed before). */
OUTBOX_API int outbox_query_result(const PGresult *res, struct outbox_job *jobs, size_t n,
                                   int64_t *ret_ids,
                                   struct outbox_error *reterr) OUTBOX_PRIV_MUST_CHECK;

/* --- bodies: nothing below is part of the interface --- */

OUTBOX_API const char *outbox_strerror(int code)
{
    static const char *const texts[] = {
        "success",
        "invalid argument",
        "out of memory",
        "not inside a transaction",
        "the transaction has failed: roll back first",
        "the connection is busy: collect results first",
        "too large",
        "the database refused",
        "no connection to the database",
        "the schema is missing or of another version: run `outbox migrate`",
        "the role may not enqueue: run `outbox grant --producer ROLE`",
        "inside a transaction, where one cannot wait: commit first",
        "the time was up",
    };

    return code > 0 || code < OUTBOX_ETIMEOUT ? "unknown error" : texts[-code];
}

OUTBOX_API int outbox_priv_fail(struct outbox_error *reterr, int code, const char *sqlstate,
                                const char *format, ...) OUTBOX_PRIV_PRINTF(4, 5);

/* Writes *reterr, if there is one; returns code. */
OUTBOX_API int outbox_priv_fail(struct outbox_error *reterr, int code, const char *sqlstate,
                                const char *format, ...)
{
    va_list args;
    int len;
    size_t end;

    if (reterr == NULL)
        return code;
    reterr->code = code;
    (void)snprintf(reterr->sqlstate, sizeof reterr->sqlstate, "%s", sqlstate ? sqlstate : "");
    va_start(args, format);
    len = vsnprintf(reterr->message, sizeof reterr->message, format, args);
    va_end(args);
    if (len < 0)
        reterr->message[0] = '\0';
    end = strlen(reterr->message);
    if (len >= (int)sizeof reterr->message) {
        /* never end inside a UTF-8 character: back to its first byte, and drop that one too */
        while (end > 0 && ((unsigned char)reterr->message[end - 1] & 0xc0) == 0x80) {
            end--;
        }
        if (end > 0 && ((unsigned char)reterr->message[end - 1] & 0x80) != 0) {
            end--;
        }
    }
    while (end > 0 && (unsigned char)reterr->message[end - 1] <= ' ') {
        end--; /* libpq's messages end with a newline */
    }
    reterr->message[end] = '\0';
    for (; end > 0; end--) {
        if ((unsigned char)reterr->message[end - 1] < ' ') {
            reterr->message[end - 1] = ' '; /* and have more: one line is what logs want */
        }
    }
    return code;
}

/* The len low bytes of value, big-endian: as in msgpack and in PostgreSQL's binary formats. */
OUTBOX_API void outbox_priv_store(char *out, uint64_t value, size_t len)
{
    while (len > 0) {
        len--;
        out[len] = (char)(unsigned char)(value & 0xff);
        value >>= 8;
    }
}

/* --- payload bodies --- */

OUTBOX_API void outbox_payload_init(struct outbox_payload *p)
{
    memset(p, 0, sizeof *p);
}

OUTBOX_API void outbox_payload_clear(struct outbox_payload *p)
{
    msgpack_sbuffer_clear(&p->buffer);
    p->error = OUTBOX_OK;
    p->reason = NULL;
    p->is_json = false;
    p->has_open_root = false;
    p->depth = 0;
}

OUTBOX_API void outbox_payload_free(struct outbox_payload *p)
{
    if (p != NULL) {
        msgpack_sbuffer_destroy(&p->buffer);
        outbox_payload_init(p);
    }
}

OUTBOX_API int outbox_payload_error(const struct outbox_payload *p)
{
    if (p->error != OUTBOX_OK)
        return p->error;
    return p->depth == (p->has_open_root ? 1u : 0u) ? OUTBOX_OK : OUTBOX_EINVAL;
}

OUTBOX_API const char *outbox_payload_bytes(const struct outbox_payload *p, size_t *ret_len)
{
    *ret_len = p->buffer.size;
    return p->buffer.size > 0 ? p->buffer.data : NULL;
}

/* Sets the sticky error, unless there is one. */
OUTBOX_API int outbox_priv_payload_fail(struct outbox_payload *p, int code, const char *reason)
{
    if (p == NULL)
        return OUTBOX_EINVAL;
    if (p->error == OUTBOX_OK) {
        p->error = code;
        p->reason = reason;
    }
    return p->error;
}

/* The packer's write callback. It keeps refusing after a failure, because msgpack_pack_timestamp
 * goes on after one. */
OUTBOX_API int outbox_priv_write(void *data, const char *bytes, size_t len)
{
    struct outbox_payload *p = (struct outbox_payload *)data;

    if (p == NULL || p->error != OUTBOX_OK)
        return -1;
    if (len == 0)
        return 0;
    if (p->buffer.size > OUTBOX_PAYLOAD_BYTES_MAX ||
        len > (size_t)OUTBOX_PAYLOAD_BYTES_MAX - p->buffer.size) {
        (void)outbox_priv_payload_fail(p, OUTBOX_ETOOBIG, "larger than OUTBOX_PAYLOAD_BYTES_MAX");
        return -1;
    }
    if (msgpack_sbuffer_write(&p->buffer, bytes, len) != 0) {
        (void)outbox_priv_payload_fail(p, OUTBOX_ENOMEM, "out of memory");
        return -1;
    }
    return 0;
}

/* Unicode's table of well-formed byte sequences: no overlong forms, no surrogates. */
OUTBOX_API bool outbox_priv_is_utf8(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;

    while (i < len) {
        unsigned char c = s[i];
        unsigned char low = 0x80;
        unsigned char high = 0xbf;
        size_t more;

        i++;
        if (c < 0x80) {
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf) {
            more = 1;
        } else if (c >= 0xe0 && c <= 0xef) {
            more = 2;
            low = c == 0xe0 ? 0xa0 : 0x80;
            high = c == 0xed ? 0x9f : 0xbf;
        } else if (c >= 0xf0 && c <= 0xf4) {
            more = 3;
            low = c == 0xf0 ? 0x90 : 0x80;
            high = c == 0xf4 ? 0x8f : 0xbf;
        } else {
            return false;
        }
        for (; more > 0; more--, i++) {
            if (i >= len || s[i] < low || s[i] > high)
                return false;
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

OUTBOX_API msgpack_packer outbox_priv_packer(struct outbox_payload *p)
{
    msgpack_packer pk;

    msgpack_packer_init(&pk, p, outbox_priv_write);
    return pk;
}

OUTBOX_API void outbox_priv_pack_str(struct outbox_payload *p, const char *text, size_t len)
{
    msgpack_packer pk = outbox_priv_packer(p);

    if (len > OUTBOX_PAYLOAD_BYTES_MAX) {
        (void)outbox_priv_payload_fail(p, OUTBOX_ETOOBIG, "larger than OUTBOX_PAYLOAD_BYTES_MAX");
    } else if (!outbox_priv_is_utf8(text, len)) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL,
                                       "text is not UTF-8 (outbox_put_bin takes any bytes)");
    } else {
        (void)msgpack_pack_str_with_body(&pk, text, len);
    }
}

/* Opens a level whose header byte has just been written. */
OUTBOX_API void outbox_priv_push(struct outbox_payload *p, bool is_map)
{
    p->level[p->depth].header = p->buffer.size - 1;
    p->level[p->depth].count = 0;
    p->level[p->depth].is_map = is_map;
    p->depth++;
}

/* What comes before a value: checks, and the key. Errors stick in p. Returns the size before, for
 * outbox_priv_after. */
OUTBOX_API size_t outbox_priv_before(struct outbox_payload *p, const char *key)
{
    size_t mark;

    if (p == NULL || p->error != OUTBOX_OK)
        return p ? p->buffer.size : 0;
    mark = p->buffer.size;
    if (p->is_json) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, "nothing can be put after JSON text");
    } else if (p->depth == 0 && mark > 0) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, "the root value is complete already");
    } else if (p->depth == 0 && key != NULL && outbox_priv_write(p, "\x80", 1) == 0) {
        outbox_priv_push(p, true);
        p->has_open_root = true;
    }
    if (p->depth > 0 && p->level[p->depth - 1].is_map != (key != NULL)) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL,
                                       key ? "a key inside an array" : "no key inside a map");
    }
    if (key != NULL) {
        outbox_priv_pack_str(p, key, strlen(key));
    }
    return mark;
}

/* Counts one more member in the innermost level and keeps its header right, in the shortest form:
 * one byte up to 15 members, three up to 65535, then five. The header grows twice in a level's life
 * at most; nothing deeper is open then, so that no other offset moves. */
OUTBOX_API void outbox_priv_count(struct outbox_payload *p)
{
    struct outbox_priv_level *level;
    uint32_t count;
    char *header;

    if (p->depth == 0) {
        return;
    }
    level = &p->level[p->depth - 1];
    count = level->count + 1;
    if (count == 16 || count == 65536) {
        size_t head_len = count == 16 ? 1 : 3;
        size_t body_len = p->buffer.size - level->header - head_len;

        if (outbox_priv_write(p, "\0\0", 2) != 0) {
            return;
        }
        header = p->buffer.data + level->header;
        memmove(header + head_len + 2, header + head_len, body_len);
    }
    header = p->buffer.data + level->header;
    if (count < 16) {
        outbox_priv_store(header, (level->is_map ? 0x80u : 0x90u) | count, 1);
    } else if (count < 65536) {
        outbox_priv_store(header, level->is_map ? 0xdeu : 0xdcu, 1);
        outbox_priv_store(header + 1, count, 2);
    } else {
        outbox_priv_store(header, level->is_map ? 0xdfu : 0xddu, 1);
        outbox_priv_store(header + 1, count, 4);
    }
    level->count = count;
}

/* What comes after a value: counts it, or takes back what a failed call wrote since `mark`. */
OUTBOX_API int outbox_priv_after(struct outbox_payload *p, size_t mark)
{
    if (p == NULL)
        return OUTBOX_EINVAL;
    if (p->error == OUTBOX_OK) {
        outbox_priv_count(p);
    }
    if (p->error != OUTBOX_OK) {
        p->buffer.size = mark;
    }
    return p->error;
}

OUTBOX_API int outbox_payload_set_json(struct outbox_payload *p, const char *json, size_t len)
{
    if (p == NULL || json == NULL || len == 0)
        return outbox_priv_payload_fail(p, OUTBOX_EINVAL, "no JSON text");
    if (p->buffer.size > 0)
        return outbox_priv_payload_fail(p, OUTBOX_EINVAL, "JSON text after other values");
    p->is_json = outbox_priv_write(p, json, len) == 0;
    return p->error;
}

OUTBOX_API int outbox_put_int(struct outbox_payload *p, const char *key, int64_t value)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    (void)msgpack_pack_int64(&pk, value);
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_uint(struct outbox_payload *p, const char *key, uint64_t value)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    (void)msgpack_pack_uint64(&pk, value);
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_double(struct outbox_payload *p, const char *key, double value)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    (void)msgpack_pack_double(&pk, value);
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_bool(struct outbox_payload *p, const char *key, bool value)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    (void)(value ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_null(struct outbox_payload *p, const char *key)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    (void)msgpack_pack_nil(&pk);
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_strn(struct outbox_payload *p, const char *key, const char *text,
                               size_t len)
{
    size_t mark = outbox_priv_before(p, key);

    if (text == NULL && len > 0) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, "no text, but a length");
    } else {
        outbox_priv_pack_str(p, text ? text : "", len);
    }
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_str(struct outbox_payload *p, const char *key, const char *text)
{
    return text ? outbox_put_strn(p, key, text, strlen(text)) : outbox_put_null(p, key);
}

OUTBOX_API int outbox_put_bin(struct outbox_payload *p, const char *key, const void *bytes,
                              size_t len)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);

    if (bytes == NULL && len > 0) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, "no bytes, but a length");
    } else if (len > OUTBOX_PAYLOAD_BYTES_MAX) {
        (void)outbox_priv_payload_fail(p, OUTBOX_ETOOBIG, "larger than OUTBOX_PAYLOAD_BYTES_MAX");
    } else {
        (void)msgpack_pack_bin_with_body(&pk, bytes, len);
    }
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_put_timestamp(struct outbox_payload *p, const char *key, int64_t seconds,
                                    uint32_t nanoseconds)
{
    msgpack_packer pk = outbox_priv_packer(p);
    size_t mark = outbox_priv_before(p, key);
    msgpack_timestamp ts;

    ts.tv_sec = seconds;
    ts.tv_nsec = nanoseconds;
    if (nanoseconds > 999999999) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, "nanoseconds of a second or more");
    }
    (void)msgpack_pack_timestamp(&pk, &ts);
    return outbox_priv_after(p, mark);
}

/* The number in the len bytes at s, big-endian. */
OUTBOX_API uint64_t outbox_priv_load(const unsigned char *s, size_t len)
{
    uint64_t value = 0;

    while (len > 0) {
        value = (value << 8) | *s;
        s++;
        len--;
    }
    return value;
}

/* One msgpack header at s (left > 0 bytes): its own length, the bytes and the values that follow
 * it. False if it is none or cut short. */
OUTBOX_API bool outbox_priv_msgpack_header(const unsigned char *s, size_t left, size_t *ret_header,
                                           uint64_t *ret_bytes, uint64_t *ret_values)
{
    /* length of the number behind 0xc4..0xdf, bodies of fixed size counted in it where there is one
     */
    static const unsigned char number_len[28] = {1, 2, 4, 1, 2, 4, 4,  8, 1, 2, 4, 8, 1, 2,
                                                 4, 8, 2, 3, 5, 9, 17, 1, 2, 4, 2, 4, 2, 4};
    unsigned char tag = s[0];
    size_t len;
    uint64_t number;

    *ret_header = 1;
    *ret_bytes = 0;
    *ret_values = 0;
    if (tag <= 0x7f || tag >= 0xe0 || tag == 0xc0 || tag == 0xc2 || tag == 0xc3) {
        return true; /* small integers, nil, booleans */
    }
    if (tag <= 0x8f) {
        *ret_values = 2u * (tag & 0x0fu);
        return true;
    }
    if (tag <= 0x9f) {
        *ret_values = tag & 0x0fu;
        return true;
    }
    if (tag <= 0xbf) {
        *ret_bytes = tag & 0x1fu;
        return true;
    }
    if (tag < 0xc4) {
        return false; /* 0xc1: never used */
    }
    len = number_len[tag - 0xc4];
    if (left - 1 < len)
        return false;
    *ret_header = 1 + len;
    if (tag >= 0xca && tag <= 0xd8) {
        return true; /* numbers, and ext of fixed size: nothing follows */
    }
    number = outbox_priv_load(s + 1, len);
    if (tag >= 0xde) {
        *ret_values = 2 * number;
    } else if (tag >= 0xdc) {
        *ret_values = number;
    } else {
        *ret_bytes = number + (tag >= 0xc7 && tag <= 0xc9 ? 1 : 0); /* ext: and its type */
    }
    return true;
}

/* NULL if the bytes are one msgpack value, not deeper than depth_max; else what is wrong. */
OUTBOX_API const char *outbox_priv_msgpack_check(const void *bytes, size_t len, size_t depth_max)
{
    const unsigned char *s = (const unsigned char *)bytes;
    uint64_t left[OUTBOX_PAYLOAD_DEPTH_MAX]; /* values still to come, of each open map or array */
    size_t open = 0;
    size_t pos = 0;

    for (;;) {
        size_t header;
        uint64_t body;
        uint64_t values;

        if (pos >= len ||
            !outbox_priv_msgpack_header(s + pos, len - pos, &header, &body, &values) ||
            body > len - pos - header)
            return "raw msgpack is invalid or cut short";
        pos += header + (size_t)body;
        if (values > 0) {
            if (open >= depth_max)
                return "maps and arrays nested deeper than OUTBOX_PAYLOAD_DEPTH_MAX";
            left[open] = values;
            open++;
            continue;
        }
        while (open > 0) {
            left[open - 1]--;
            if (left[open - 1] > 0) {
                break;
            }
            open--;
        }
        if (open == 0)
            return pos == len ? NULL : "raw msgpack has bytes behind its value";
    }
}

OUTBOX_API int outbox_put_msgpack(struct outbox_payload *p, const char *key, const void *bytes,
                                  size_t len)
{
    size_t mark = outbox_priv_before(p, key);
    const char *wrong = outbox_priv_msgpack_check(bytes, bytes ? len : 0,
                                                  OUTBOX_PAYLOAD_DEPTH_MAX - (p ? p->depth : 0));

    if (wrong != NULL) {
        (void)outbox_priv_payload_fail(p, OUTBOX_EINVAL, wrong);
    }
    (void)outbox_priv_write(p, (const char *)bytes, len);
    return outbox_priv_after(p, mark);
}

OUTBOX_API int outbox_priv_begin(struct outbox_payload *p, const char *key, bool is_map)
{
    size_t mark = outbox_priv_before(p, key);
    int rc;

    if (p != NULL && p->depth >= OUTBOX_PAYLOAD_DEPTH_MAX) {
        (void)outbox_priv_payload_fail(
            p, OUTBOX_EINVAL, "maps and arrays nested deeper than OUTBOX_PAYLOAD_DEPTH_MAX");
    }
    (void)outbox_priv_write(p, is_map ? "\x80" : "\x90", 1);
    rc = outbox_priv_after(p, mark);
    if (rc == OUTBOX_OK) {
        outbox_priv_push(p, is_map); /* only now: counting in the outer level may have moved it */
    }
    return rc;
}

OUTBOX_API int outbox_begin_map(struct outbox_payload *p, const char *key)
{
    return outbox_priv_begin(p, key, true);
}

OUTBOX_API int outbox_begin_array(struct outbox_payload *p, const char *key)
{
    return outbox_priv_begin(p, key, false);
}

OUTBOX_API int outbox_end(struct outbox_payload *p)
{
    if (p == NULL)
        return OUTBOX_EINVAL;
    if (p->error == OUTBOX_OK && p->depth == (p->has_open_root ? 1u : 0u))
        return outbox_priv_payload_fail(p, OUTBOX_EINVAL, "outbox_end without a begin");
    if (p->error == OUTBOX_OK) {
        p->depth--;
    }
    return p->error;
}

/* --- query bodies --- */

/* Type OIDs of pg_type.dat: fixed for ever. */
enum {
    OUTBOX_PRIV_BOOL = 16,
    OUTBOX_PRIV_BYTEA = 17,
    OUTBOX_PRIV_INT4 = 23,
    OUTBOX_PRIV_INT8 = 20,
    OUTBOX_PRIV_TEXT = 25,
    OUTBOX_PRIV_BYTEA_ARRAY = 1001,
    OUTBOX_PRIV_INT8_ARRAY = 1016,
    OUTBOX_PRIV_TIMESTAMPTZ = 1184,
    OUTBOX_PRIV_INTERVAL = 1186,
    OUTBOX_PRIV_JSONB = 3802
};

/* 2000-01-01, PostgreSQL's epoch, in Unix microseconds; 1000 years, the longest delay, in ms (so
 * that every form of an interval holds it); what fits into one message to the server, with room for
 * the rest of it. */
#define OUTBOX_PRIV_EPOCH_US ((int64_t)946684800 * 1000000)
#define OUTBOX_PRIV_MS_MAX   ((int64_t)365250 * 86400 * 1000)
#define OUTBOX_PRIV_SEND_MAX ((size_t)0x3ffffc00)

/* Checks what can be checked without the server, so that the transaction survives. `i` of n, for
 * the message of a batch. */
OUTBOX_API int outbox_priv_check_job(const struct outbox_job *job, size_t i, size_t n,
                                     struct outbox_error *reterr)
{
    const char *wrong = NULL;
    char where[32] = "";
    int rc;

    if (n > 1) {
        (void)snprintf(where, sizeof where, "jobs[%lu]: ", (unsigned long)i);
    }
    if (job->task == NULL || job->task[0] == '\0') {
        wrong = "no task";
    } else if (job->priority < 0 || job->priority > 4) {
        wrong = "priority must be 1 to 4, or 0 for the default";
    } else if (job->max_attempts < 0 || job->max_attempts > 32767) {
        wrong = "max_attempts must be 1 to 32767, or 0 for the task's";
    } else if (job->run_at_us < 0 || job->expires_at_us < 0) {
        wrong = "run_at_us and expires_at_us must not be negative";
    } else if (job->delay_ms < 0 || job->delay_ms > OUTBOX_PRIV_MS_MAX ||
               job->repeat_every_ms < 0 || job->repeat_every_ms > OUTBOX_PRIV_MS_MAX) {
        wrong = "delay_ms and repeat_every_ms must be 0 to 1000 years";
    } else if (job->run_at_us > 0 && job->delay_ms > 0) {
        wrong = "run_at_us and delay_ms together";
    } else if (job->after == NULL && job->after_count > 0) {
        wrong = "after_count without after";
    } else if ((job->flags & ~(unsigned)OUTBOX_ALLOW_AUTOCOMMIT) != 0) {
        wrong = "unknown flags";
    } else if (job->headers != NULL && job->headers[strspn(job->headers, " \t\r\n")] != '{') {
        wrong = "headers is no JSON object";
    }
    if (wrong != NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "%s%s", where, wrong);
    if (job->payload != NULL) {
        rc = outbox_payload_error(job->payload);
        if (rc != OUTBOX_OK)
            return outbox_priv_fail(reterr, rc, NULL, "%spayload: %s", where,
                                    job->payload->reason ? job->payload->reason
                                                         : "a map or an array was not ended");
    }
    return OUTBOX_OK;
}

OUTBOX_API bool outbox_priv_is_json(const struct outbox_job *job)
{
    return job->payload == NULL || job->payload->buffer.size == 0 || job->payload->is_json;
}

/* The bytes to store; an absent or an empty payload is {}. */
OUTBOX_API const char *outbox_priv_bytes(const struct outbox_job *job, size_t *ret_len)
{
    if (job->payload == NULL || job->payload->buffer.size == 0) {
        *ret_len = 2;
        return "{}";
    }
    return outbox_payload_bytes(job->payload, ret_len);
}

/* The next parameter; value NULL is SQL's NULL, len is of binary values. */
OUTBOX_API void outbox_priv_add(struct outbox_query *q, Oid type, const char *value, size_t len,
                                bool is_binary)
{
    q->types[q->nparams] = type;
    q->values[q->nparams] = value;
    q->lengths[q->nparams] = (int)len; /* bounded by the callers, far below INT_MAX */
    q->formats[q->nparams] = is_binary ? 1 : 0;
    q->nparams++;
}

/* The next parameter, a number of len bytes in binary format, kept in q->scratch; not `given`:
 * NULL. */
OUTBOX_API void outbox_priv_add_number(struct outbox_query *q, Oid type, bool given, int64_t value,
                                       size_t len)
{
    char *out = q->scratch + q->scratch_used;

    if (!given) {
        outbox_priv_add(q, type, NULL, 0, true);
        return;
    }
    memset(out, 0, len);
    /* an interval is int8 microseconds, int4 days, int4 months */
    outbox_priv_store(out, (uint64_t)value, len > 8 ? 8 : len);
    outbox_priv_add(q, type, out, len, true);
    q->scratch_used += len;
}

/* Header of a one-dimensional array in binary format: 20 bytes. */
OUTBOX_API char *outbox_priv_array_header(char *out, Oid type, size_t n)
{
    outbox_priv_store(out, 1, 4);     /* dimensions */
    outbox_priv_store(out + 4, 0, 4); /* no NULLs */
    outbox_priv_store(out + 8, type, 4);
    outbox_priv_store(out + 12, n, 4); /* length */
    outbox_priv_store(out + 16, 1, 4); /* lower bound */
    return out + 20;
}

OUTBOX_API int outbox_priv_add_after(struct outbox_query *q, const struct outbox_job *job,
                                     struct outbox_error *reterr)
{
    char *out;
    size_t i;

    if (job->after_count == 0) {
        outbox_priv_add(q, OUTBOX_PRIV_INT8_ARRAY, NULL, 0, true);
        return OUTBOX_OK;
    }
    if (job->after_count > (OUTBOX_PRIV_SEND_MAX - OUTBOX_PAYLOAD_BYTES_MAX - 20) / 12)
        return outbox_priv_fail(reterr, OUTBOX_ETOOBIG, NULL, "too many ids in after");
    q->heap = malloc(20 + 12 * job->after_count);
    if (q->heap == NULL)
        return outbox_priv_fail(reterr, OUTBOX_ENOMEM, NULL, "out of memory");
    out = outbox_priv_array_header((char *)q->heap, OUTBOX_PRIV_INT8, job->after_count);
    for (i = 0; i < job->after_count; i++, out += 12) {
        outbox_priv_store(out, 8, 4);
        outbox_priv_store(out + 4, (uint64_t)job->after[i], 8);
    }
    outbox_priv_add(q, OUTBOX_PRIV_INT8_ARRAY, (char *)q->heap, 20 + 12 * job->after_count, true);
    return OUTBOX_OK;
}

/* True when every option is the function's default. */
OUTBOX_API bool outbox_priv_is_plain(const struct outbox_query *q, const struct outbox_job *job)
{
    int i;
    for (i = 3; i < q->nparams; i++) {
        if (q->values[i] != NULL && i != 5)
            return false;
    }
    return job->priority == 0 || job->priority == 2;
}

OUTBOX_API int outbox_query_init(struct outbox_query *q, const struct outbox_job *job,
                                 struct outbox_error *reterr)
{
    const char *bytes;
    size_t len;
    int rc;

    if (q == NULL || job == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no %s", q ? "job" : "query");
    memset(q, 0, sizeof *q);
    rc = outbox_priv_check_job(job, 0, 1, reterr);
    if (rc != OUTBOX_OK)
        return rc;
    q->sql = "SELECT id, existing FROM outbox.enqueue_bytes("
             "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    bytes = outbox_priv_bytes(job, &len);
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, job->task, 0, false);
    outbox_priv_add(q, OUTBOX_PRIV_BYTEA, bytes, len, true);
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, outbox_priv_is_json(job) ? "json" : "msgpack", 0, false);
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, job->key, 0, false);
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, job->unique_key, 0, false);
    outbox_priv_add_number(q, OUTBOX_PRIV_INT4, true, job->priority ? job->priority : 2, 4);
    outbox_priv_add_number(q, OUTBOX_PRIV_TIMESTAMPTZ, job->run_at_us > 0,
                           job->run_at_us - OUTBOX_PRIV_EPOCH_US, 8);
    outbox_priv_add_number(q, OUTBOX_PRIV_INTERVAL, job->delay_ms > 0, job->delay_ms * 1000, 16);
    outbox_priv_add_number(q, OUTBOX_PRIV_TIMESTAMPTZ, job->expires_at_us > 0,
                           job->expires_at_us - OUTBOX_PRIV_EPOCH_US, 8);
    outbox_priv_add_number(q, OUTBOX_PRIV_INT4, job->max_attempts > 0, job->max_attempts, 4);
    outbox_priv_add(q, OUTBOX_PRIV_JSONB, job->headers, 0, false);
    outbox_priv_add_number(q, OUTBOX_PRIV_INTERVAL, job->repeat_every_ms > 0,
                           job->repeat_every_ms * 1000, 16);
    rc = outbox_priv_add_after(q, job, reterr);
    if (rc != OUTBOX_OK)
        return rc;
    outbox_priv_add(q, OUTBOX_PRIV_TEXT, job->on_failed_dependency, 0, false);
    outbox_priv_add_number(q, OUTBOX_PRIV_BOOL, job->notify_done, 1, 1);
    if (outbox_priv_is_plain(q, job)) { /* parsing and planning 15 costs as much as the insert */
        q->sql = "SELECT outbox.enqueue_plain($1, $2, $3) AS id, false AS existing";
        q->nparams = 3;
    }
    return OUTBOX_OK;
}

OUTBOX_API void outbox_query_free(struct outbox_query *q)
{
    if (q != NULL) {
        free(q->heap);
        memset(q, 0, sizeof *q);
    }
}

/* A text that is measured first (out NULL) and then written by the same code. */
struct outbox_priv_text {
    char *out;
    size_t len;
    bool is_too_big;
    int encoding; /* the client's */
};

OUTBOX_API void outbox_priv_text_add(struct outbox_priv_text *t, const char *bytes, size_t len)
{
    if (t->is_too_big || len > OUTBOX_PRIV_SEND_MAX - t->len) {
        t->is_too_big = true;
        return;
    }
    if (t->out != NULL) {
        memcpy(t->out + t->len, bytes, len);
    }
    t->len += len;
}

OUTBOX_API void outbox_priv_text_lit(struct outbox_priv_text *t, const char *text)
{
    outbox_priv_text_add(t, text, strlen(text));
}

/* Length of the character at s, which is not its end. In some client encodings (SJIS, GBK, ...) the
 * later bytes of a character may look like a backslash, never like a quote or a control code. */
OUTBOX_API size_t outbox_priv_char_len(const struct outbox_priv_text *t, const char *s)
{
    int claimed;
    int len = 1;

    if ((unsigned char)*s < 0x80)
        return 1;
    claimed = PQmblen(s, t->encoding);
    while (len < claimed && (unsigned char)s[len] >= 0x30) {
        len++;
    }
    return (size_t)len;
}

/* A JSON string. */
OUTBOX_API void outbox_priv_text_quoted(struct outbox_priv_text *t, const char *s)
{
    char escaped[8];

    outbox_priv_text_add(t, "\"", 1);
    while (*s != '\0') {
        size_t len = outbox_priv_char_len(t, s);

        if (*s == '"' || *s == '\\') {
            outbox_priv_text_add(t, "\\", 1);
        }
        if ((unsigned char)*s < 0x20) {
            (void)snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)*s);
            outbox_priv_text_lit(t, escaped);
        } else {
            outbox_priv_text_add(t, s, len);
        }
        s += len;
    }
    outbox_priv_text_add(t, "\"", 1);
}

/* `,"name":"value"`; nothing for a NULL value. */
OUTBOX_API void outbox_priv_text_option(struct outbox_priv_text *t, const char *name,
                                        const char *value)
{
    if (value == NULL)
        return;
    outbox_priv_text_lit(t, ",");
    outbox_priv_text_quoted(t, name);
    outbox_priv_text_lit(t, ":");
    outbox_priv_text_quoted(t, value);
}

/* `,"name":7`; nothing for 0. */
OUTBOX_API void outbox_priv_text_number(struct outbox_priv_text *t, const char *name, int value)
{
    char text[64];

    if (value == 0)
        return;
    (void)snprintf(text, sizeof text, ",\"%s\":%d", name, value);
    outbox_priv_text_lit(t, text);
}

/* `,"name":"2024-05-06T07:08:09.000010Z"`: read the same under every DateStyle; nothing for 0. */
OUTBOX_API void outbox_priv_text_time(struct outbox_priv_text *t, const char *name, int64_t unix_us)
{
    char text[64];
    int64_t second = unix_us / 1000000;
    /* days since 1 March 0000, then eras of 400 years: the civil calendar without tables */
    int64_t days = second / 86400 + 719468;
    int64_t in_era = days % 146097;
    int64_t year_of_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * in_year + 2) / 153;
    int64_t day = in_year - (153 * month + 2) / 5 + 1;
    int64_t year = days / 146097 * 400 + year_of_era + (month >= 10 ? 1 : 0);

    if (unix_us == 0)
        return;
    month = month < 10 ? month + 3 : month - 9;
    second %= 86400;
    (void)snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", (int)year, (int)month,
                   (int)day, (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60),
                   (int)(unix_us % 1000000));
    outbox_priv_text_option(t, name, text);
}

/* `,"name":"hours:minutes:seconds"`: no unit that a version of the server would overflow. */
OUTBOX_API void outbox_priv_text_interval(struct outbox_priv_text *t, const char *name, int64_t ms)
{
    char text[64];

    if (ms == 0)
        return;
    (void)snprintf(text, sizeof text, "%d:%02d:%02d.%03d", (int)(ms / 3600000),
                   (int)(ms / 60000 % 60), (int)(ms / 1000 % 60), (int)(ms % 1000));
    outbox_priv_text_option(t, name, text);
}

/* Copies the caller's JSON object as it is. False if it does not end where it must: then it could
 * reach into what is written behind it. All else that may be wrong with it is for the server to
 * refuse. */
OUTBOX_API bool outbox_priv_text_object(struct outbox_priv_text *t, const char *s)
{
    const char *start = s;
    size_t depth = 0;
    bool in_string = false;

    s += strspn(s, " \t\r\n");
    if (*s != '{') {
        return false;
    }
    do {
        if (*s == '\0')
            return false;
        if (in_string && *s == '\\' && s[1] != '\0') {
            s++;
        } else if (*s == '"') {
            in_string = !in_string;
        } else if (!in_string && (*s == '{' || *s == '[')) {
            depth++;
        } else if (!in_string && (*s == '}' || *s == ']')) {
            depth--;
        }
        s += outbox_priv_char_len(t, s);
    } while (depth > 0);
    s += strspn(s, " \t\r\n");
    outbox_priv_text_add(t, start, (size_t)(s - start));
    return *s == '\0';
}

/* One job as a JSON object, without its payload. False if job->headers is no JSON object. */
OUTBOX_API bool outbox_priv_text_job(struct outbox_priv_text *t, const struct outbox_job *job)
{
    char id[32];
    size_t i;

    outbox_priv_text_lit(t, "{\"task\":");
    outbox_priv_text_quoted(t, job->task);
    outbox_priv_text_option(t, "encoding", outbox_priv_is_json(job) ? "json" : "msgpack");
    outbox_priv_text_option(t, "key", job->key);
    outbox_priv_text_option(t, "unique_key", job->unique_key);
    outbox_priv_text_number(t, "priority", job->priority);
    outbox_priv_text_number(t, "max_attempts", job->max_attempts);
    outbox_priv_text_time(t, "run_at", job->run_at_us);
    outbox_priv_text_time(t, "expires_at", job->expires_at_us);
    outbox_priv_text_interval(t, "delay", job->delay_ms);
    outbox_priv_text_interval(t, "repeat_every", job->repeat_every_ms);
    for (i = 0; i < job->after_count; i++) {
        (void)snprintf(id, sizeof id, "%s%lld", i == 0 ? ",\"after\":[" : ",",
                       (long long)job->after[i]);
        outbox_priv_text_lit(t, id);
    }
    outbox_priv_text_lit(t, job->after_count > 0 ? "]" : "");
    outbox_priv_text_option(t, "on_failed_dependency", job->on_failed_dependency);
    outbox_priv_text_lit(t, job->notify_done ? ",\"notify_done\":true" : "");
    if (job->headers != NULL) {
        outbox_priv_text_lit(t, ",\"headers\":");
        if (!outbox_priv_text_object(t, job->headers))
            return false;
    }
    outbox_priv_text_lit(t, "}");
    return true;
}

/* All options as one JSON text, NUL included. Returns n, or the index of a job whose headers are
 * bad. */
OUTBOX_API size_t outbox_priv_text_jobs(struct outbox_priv_text *t, const struct outbox_job *jobs,
                                        size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        outbox_priv_text_lit(t, i == 0 ? "[" : ",");
        if (!outbox_priv_text_job(t, &jobs[i]))
            return i;
    }
    outbox_priv_text_add(t, "]", 2);
    return n;
}

/* Checks all jobs and measures both parameters: the text in t->len, the array in *ret_array. */
OUTBOX_API int outbox_priv_measure(struct outbox_priv_text *t, const struct outbox_job *jobs,
                                   size_t n, size_t *ret_array, struct outbox_error *reterr)
{
    size_t array = 20;
    size_t i;

    for (i = 0; i < n; i++) {
        int rc = outbox_priv_check_job(&jobs[i], i, n, reterr);
        size_t len;

        if (rc != OUTBOX_OK)
            return rc;
        (void)outbox_priv_bytes(&jobs[i], &len);
        if (array > OUTBOX_PRIV_SEND_MAX - 4 - len) {
            t->is_too_big = true;
            break;
        }
        array += 4 + len;
    }
    if (!t->is_too_big) {
        i = outbox_priv_text_jobs(t, jobs, n);
        if (i < n)
            return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL,
                                    "jobs[%lu]: headers is no JSON object", (unsigned long)i);
    }
    if (t->is_too_big || t->len > OUTBOX_PRIV_SEND_MAX - array)
        return outbox_priv_fail(reterr, OUTBOX_ETOOBIG, NULL,
                                "%lu jobs are more than 1 GB together: use several calls",
                                (unsigned long)n);
    *ret_array = array;
    return OUTBOX_OK;
}

OUTBOX_API int outbox_query_init_many(struct outbox_query *q, const struct outbox_job *jobs,
                                      size_t n, int client_encoding, struct outbox_error *reterr)
{
    struct outbox_priv_text text;
    size_t array_len = 0;
    char *array;
    char *out;
    size_t i;
    int rc;

    if (q == NULL || jobs == NULL || n == 0)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no %s", q ? "jobs" : "query");
    memset(q, 0, sizeof *q);
    memset(&text, 0, sizeof text);
    text.encoding = client_encoding;
    rc = outbox_priv_measure(&text, jobs, n, &array_len, reterr);
    if (rc != OUTBOX_OK)
        return rc;
    q->heap = malloc(array_len + text.len + 1);
    if (q->heap == NULL)
        return outbox_priv_fail(reterr, OUTBOX_ENOMEM, NULL, "out of memory");
    array = (char *)q->heap;
    out = outbox_priv_array_header(array, OUTBOX_PRIV_BYTEA, n);
    for (i = 0; i < n; i++) {
        size_t len;
        const char *bytes = outbox_priv_bytes(&jobs[i], &len);

        outbox_priv_store(out, len, 4);
        memcpy(out + 4, bytes, len);
        out += 4 + len;
    }
    text.out = out;
    text.len = 0;
    (void)outbox_priv_text_jobs(&text, jobs, n);
    q->sql = "SELECT id, existing FROM outbox.enqueue_many($1::jsonb, $2::bytea[])";
    outbox_priv_add(q, OUTBOX_PRIV_JSONB, out, 0, false);
    outbox_priv_add(q, OUTBOX_PRIV_BYTEA_ARRAY, array, array_len, true);
    return OUTBOX_OK;
}

/* The code of a SQLSTATE; NULL: an error that libpq made itself, which is a lost connection. */
OUTBOX_API int outbox_priv_code_of(const char *sqlstate)
{
    if (sqlstate == NULL || strncmp(sqlstate, "08", 2) == 0 || strncmp(sqlstate, "57P", 3) == 0)
        return OUTBOX_ECONN;
    if (strcmp(sqlstate, "42501") == 0)
        return OUTBOX_EPRIVILEGE;
    if (strcmp(sqlstate, "3F000") == 0 || strcmp(sqlstate, "42883") == 0 ||
        strcmp(sqlstate, "42P01") == 0)
        return OUTBOX_ESCHEMA;
    if (strcmp(sqlstate, "25P02") == 0)
        return OUTBOX_EABORTED;
    return OUTBOX_EDB;
}

/* Describes a result that is no row: server's message and hint, and what to do. */
OUTBOX_API int outbox_priv_result_fail(const PGresult *res, const char *role,
                                       struct outbox_error *reterr)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
    int code = outbox_priv_code_of(sqlstate);

    if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED)
        return outbox_priv_fail(reterr, OUTBOX_EABORTED, NULL,
                                "an earlier query of the pipeline failed");
    if (PQresultStatus(res) != PGRES_FATAL_ERROR)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL, "not the result of an enqueue: %s",
                                PQresStatus(PQresultStatus(res)));
    if (message == NULL) {
        message = PQresultErrorMessage(res);
        message = *message != '\0' ? message : "libpq gave an error without a message";
    }
    if (code == OUTBOX_EPRIVILEGE)
        return outbox_priv_fail(reterr, code, sqlstate,
                                "%s (missing GRANT: run `outbox grant --producer %s`)", message,
                                role);
    if (code == OUTBOX_ESCHEMA)
        return outbox_priv_fail(reterr, code, sqlstate, "%s (run `outbox migrate`)", message);
    return outbox_priv_fail(reterr, code, sqlstate, "%s%s%s", message, hint ? "; " : "",
                            hint ? hint : "");
}

/* An int8 or a bool in either format. */
OUTBOX_API int64_t outbox_priv_value(const PGresult *res, int row, int column)
{
    const char *value = PQgetvalue(res, row, column);
    int len = PQgetlength(res, row, column);

    if (PQfformat(res, column) == 1)
        return (int64_t)outbox_priv_load((const unsigned char *)value, len > 8 ? 8 : (size_t)len);
    return *value == 't' ? 1 : (int64_t)strtoll(value, NULL, 10);
}

/* outbox_query_result; role: for the message of a missing GRANT. */
OUTBOX_API int outbox_priv_read(const PGresult *res, const char *role, struct outbox_job *jobs,
                                size_t n, int64_t *ret_ids, struct outbox_error *reterr)
{
    size_t i;

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return outbox_priv_result_fail(res, role, reterr);
    if (n > INT_MAX || PQntuples(res) != (int)n || PQnfields(res) != 2)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL,
                                "%d rows of %d columns came back for %lu jobs", PQntuples(res),
                                PQnfields(res), (unsigned long)n);
    for (i = 0; i < n; i++) {
        int64_t id = outbox_priv_value(res, (int)i, 0);

        if (ret_ids != NULL) {
            ret_ids[i] = id;
        }
        if (jobs != NULL) {
            jobs[i].id = id;
            jobs[i].existing = outbox_priv_value(res, (int)i, 1) != 0;
        }
    }
    return OUTBOX_OK;
}

OUTBOX_API int outbox_query_result(const PGresult *res, struct outbox_job *jobs, size_t n,
                                   int64_t *ret_ids, struct outbox_error *reterr)
{
    if (res == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EDB, NULL, "no result (libpq: see PQerrorMessage)");
    return outbox_priv_read(res, "ROLE", jobs, n, ret_ids, reterr);
}

/* --- blocking bodies --- */

/* Whether a blocking call may be sent now. */
OUTBOX_API int outbox_priv_check_conn(PGconn *conn, bool needs_transaction,
                                      struct outbox_error *reterr)
{
    if (conn == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no connection given");
    if (PQstatus(conn) != CONNECTION_OK)
        return outbox_priv_fail(reterr, OUTBOX_ECONN, NULL, "the connection is not open");
    if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF)
        return outbox_priv_fail(reterr, OUTBOX_EBUSY, NULL,
                                "the connection is in pipeline mode: use outbox_query_init");
    switch (PQtransactionStatus(conn)) {
    case PQTRANS_INTRANS:
        return OUTBOX_OK;
    case PQTRANS_IDLE:
        if (!needs_transaction)
            return OUTBOX_OK;
        return outbox_priv_fail(reterr, OUTBOX_ENOTX, NULL,
                                "not inside a transaction: BEGIN first, or set "
                                "OUTBOX_ALLOW_AUTOCOMMIT");
    case PQTRANS_INERROR:
        return outbox_priv_fail(reterr, OUTBOX_EABORTED, NULL,
                                "the transaction has failed: roll back first");
    case PQTRANS_ACTIVE:
        return outbox_priv_fail(reterr, OUTBOX_EBUSY, NULL,
                                "a query is under way: collect its results first");
    case PQTRANS_UNKNOWN:
    default:
        return outbox_priv_fail(reterr, OUTBOX_ECONN, NULL, "the connection is lost");
    }
}

/* Sends and waits. NULL with *reterr and *ret_code written if libpq had no result to give;
 * otherwise a result to be cleared. */
OUTBOX_API PGresult *outbox_priv_exec(PGconn *conn, const struct outbox_query *q, int *ret_code,
                                      struct outbox_error *reterr)
{
    PGresult *res =
        PQexecParams(conn, q->sql, q->nparams, q->types, q->values, q->lengths, q->formats, 0);

    if (res == NULL) {
        *ret_code =
            outbox_priv_fail(reterr, PQstatus(conn) == CONNECTION_OK ? OUTBOX_EDB : OUTBOX_ECONN,
                             NULL, "libpq: %s", PQerrorMessage(conn));
    }
    return res;
}

/* Runs q, reads the result, frees both. */
OUTBOX_API int outbox_priv_run(PGconn *conn, struct outbox_query *q, struct outbox_job *jobs,
                               size_t n, int64_t *ret_ids, struct outbox_error *reterr)
{
    int rc = OUTBOX_EDB;
    PGresult *res = outbox_priv_exec(conn, q, &rc, reterr);

    if (res != NULL) {
        rc = outbox_priv_read(res, PQuser(conn), jobs, n, ret_ids, reterr);
        PQclear(res);
    }
    outbox_query_free(q);
    return rc;
}

OUTBOX_API int outbox_enqueue(PGconn *conn, struct outbox_job *job, int64_t *ret_id,
                              struct outbox_error *reterr)
{
    struct outbox_query q;
    int64_t id = 0; /* so that optimising compilers see it set, in the caller too */
    int rc;

    if (job == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no job");
    rc = outbox_priv_check_conn(conn, (job->flags & OUTBOX_ALLOW_AUTOCOMMIT) == 0, reterr);
    if (rc == OUTBOX_OK) {
        rc = outbox_query_init(&q, job, reterr);
    }
    if (rc == OUTBOX_OK) {
        rc = outbox_priv_run(conn, &q, job, 1, &id, reterr);
    }
    if (rc == OUTBOX_OK && ret_id != NULL) {
        *ret_id = id;
    }
    return rc;
}

OUTBOX_API int outbox_enqueue_many(PGconn *conn, struct outbox_job *jobs, size_t n,
                                   int64_t *ret_ids, struct outbox_error *reterr)
{
    struct outbox_query q;
    unsigned flags = OUTBOX_ALLOW_AUTOCOMMIT;
    size_t i;
    int rc;

    if (n == 0)
        return OUTBOX_OK;
    if (jobs == NULL)
        return outbox_priv_fail(reterr, OUTBOX_EINVAL, NULL, "no jobs");
    for (i = 0; i < n; i++) {
        flags &= jobs[i].flags;
    }
    rc = outbox_priv_check_conn(conn, flags == 0, reterr);
    if (rc == OUTBOX_OK) {
        rc = outbox_query_init_many(&q, jobs, n, PQclientEncoding(conn), reterr);
    }
    return rc == OUTBOX_OK ? outbox_priv_run(conn, &q, jobs, n, ret_ids, reterr) : rc;
}

OUTBOX_API int outbox_check_schema(PGconn *conn, struct outbox_error *reterr)
{
    struct outbox_query q;
    PGresult *res;
    int rc = outbox_priv_check_conn(conn, false, reterr);

    if (rc != OUTBOX_OK)
        return rc;
    memset(&q, 0, sizeof q);
    q.sql = "SELECT level, min_level FROM outbox.level()";
    res = outbox_priv_exec(conn, &q, &rc, reterr);
    if (res == NULL)
        return rc;
    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1) {
        rc = outbox_priv_result_fail(res, PQuser(conn), reterr);
    } else if (outbox_priv_value(res, 0, 0) < OUTBOX_SCHEMA_VERSION) {
        rc =
            outbox_priv_fail(reterr, OUTBOX_ESCHEMA, NULL,
                             "the schema has level %s, this program needs %d: run `outbox migrate`",
                             PQgetvalue(res, 0, 0), OUTBOX_SCHEMA_VERSION);
    } else if (outbox_priv_value(res, 0, 1) > OUTBOX_SCHEMA_VERSION) {
        rc =
            outbox_priv_fail(reterr, OUTBOX_ESCHEMA, NULL,
                             "the schema asks for programs of level %s, this one was built against "
                             "an older outbox.h, of level %d",
                             PQgetvalue(res, 0, 1), OUTBOX_SCHEMA_VERSION);
    }
    PQclear(res);
    return rc;
}

#ifdef __cplusplus
}
#endif

#endif /* OUTBOX_H */
