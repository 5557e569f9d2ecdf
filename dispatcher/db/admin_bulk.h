/* admin_bulk.h - many jobs in few transactions, without waiting for each answer: what
 * `outbox enqueue --file` asks the database.
 *
 * Between admin_bulk_start and admin_bulk_end the connection is in pipeline mode and for these
 * calls alone. A transaction begins with the first chunk after the start or after a commit. The
 * first failure is final: afterwards only admin_bulk_end. */
#ifndef OB_DB_ADMIN_BULK_H
#define OB_DB_ADMIN_BULK_H

#include "db/admin.h"

struct admin_bulk {
    struct admin *admin;
    bool in_transaction; /* BEGIN was sent, and no COMMIT that succeeded */
    unsigned unread;     /* Syncs whose answer was not read */
};

struct admin_bulk_answer { /* of one chunk */
    int64_t enqueued;      /* ids were given to so many */
    int64_t existing;      /* of them: there already, by their unique key */
    int64_t first_id;      /* 0: none */
    int64_t last_id;
};

int admin_bulk_start(struct admin_bulk *b, struct admin *a,
                     struct admin_error *reterr) OB_MUST_CHECK;
/* Sends a JSON array of jobs, len bytes and a NUL; the text is copied. Does not wait for the
 * answer, but until the server takes what does not fit into the socket. */
int admin_bulk_send(struct admin_bulk *b, const char *jobs,
                    struct admin_error *reterr) OB_MUST_CHECK;
/* Waits for the answer to the oldest chunk that has none. On failure *ret_element is the refused
 * element's position in its array, from 0, if the server named it (the message then does not), or
 * -1. */
int admin_bulk_receive(struct admin_bulk *b, struct admin_bulk_answer *ret_answer,
                       int64_t *ret_element, struct admin_error *reterr) OB_MUST_CHECK;
/* Commits; every chunk must have been answered. On failure *ret_unknown says that the connection
 * was lost so late that the server may have committed. */
int admin_bulk_commit(struct admin_bulk *b, bool *ret_unknown,
                      struct admin_error *reterr) OB_MUST_CHECK;
/* Reads what is left to be read, rolls back what was not committed, and leaves pipeline mode. */
void admin_bulk_end(struct admin_bulk *b);

/* Whether the server takes the text as jsonb: 0, or why not. Not between start and end. */
int admin_check_jsonb(struct admin *a, const char *text, struct admin_error *reterr) OB_MUST_CHECK;

/* From now on admin_cancel_now() asks the server to cancel what it does for this connection; it may
 * be called by a signal's handler. One connection a process; NULL: none from now on. */
void admin_cancel_prepare(struct admin *a);
void admin_cancel_now(void);

#endif
