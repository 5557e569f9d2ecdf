/* load_private.h - what load.c and load_report.c share. */
#ifndef OB_CMD_LOAD_PRIVATE_H
#define OB_CMD_LOAD_PRIVATE_H

#include "cmd/jobline.h"
#include "cmd/lines.h"
#include "cmd/load.h"
#include "cmd/progress.h"
#include "db/admin_bulk.h"

/* Measured: with 200 or with 5,000 jobs a chunk a load takes a tenth longer. */
enum { CHUNK_JOBS = 1000, CHUNK_BYTES = 1024 * 1024 };
/* One at the server, one on its way to it, one being filled. */
enum { IN_FLIGHT_MAX = 2, CHUNKS = IN_FLIGHT_MAX + 1 };

struct chunk {
    struct buf text; /* "[{...},\n{...}]" */
    size_t count;
    uint64_t lines[CHUNK_JOBS];    /* of the file, from 1 */
    size_t starts[CHUNK_JOBS + 1]; /* offsets of the elements in text; behind the last, its end */
};

struct load_sum {
    int64_t jobs;
    int64_t existing;
    int64_t first_id;
    int64_t last_id;
    uint64_t line; /* the last one that is in it */
};

struct load {
    const struct cmd_args *args;
    const char *path;
    struct lines lines;
    struct jobline_defaults defaults;
    struct admin *admin;
    struct admin_bulk bulk;
    struct chunk chunks[CHUNKS];
    unsigned sent; /* chunks; the next to be filled is sent % CHUNKS */
    unsigned in_flight;
    bool is_at_end;
    int64_t batch;    /* jobs a transaction; 0: all in one */
    int64_t in_batch; /* jobs in chunks since the last commit */
    struct load_sum answered;
    struct load_sum committed;
    int64_t seen;    /* jobs read */
    bool is_unknown; /* the connection was lost in a COMMIT */
    struct progress progress;
    uint64_t began_ms;
    char problem[JOBLINE_ERROR_SIZE]; /* of the line read last; "": none */
};

/* The number of the signal that asked to stop, or 0. */
int load_stop_signal(void);

/* All print to stderr and return an exit code. */
int load_bad_line(struct load *l, uint64_t line, const char *message, const char *hint);
/* The server refused the oldest chunk in flight. */
int load_refused(struct load *l, const struct chunk *c, int64_t element,
                 const struct admin_error *error);
int load_commit_failed(struct load *l, const struct admin_error *error);
/* What is there now, after a failure; code becomes the exit code. */
int load_say_rest(struct load *l, int code);
/* The last line, or the JSON. */
void load_summary(struct load *l, int code);
const char *load_name(const struct load *l); /* of the file, for messages */

#endif
