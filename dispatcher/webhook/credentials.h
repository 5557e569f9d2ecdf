/* credentials.h - the secrets and certificates of a webhook task, as they were when the
 * configuration was loaded: read once, checked, kept in memory, wiped when the configuration goes.
 *
 * So a file that is replaced counts from the next reload on, whole or not at all: a reload that
 * can't read one of them fails, and what was read before stays in force. Nothing here is ever
 * printed or logged but the names of files and variables. Called while a configuration is loaded
 * (cmd/), and by request.c and transfer.c. */
#ifndef OB_WEBHOOK_CREDENTIALS_H
#define OB_WEBHOOK_CREDENTIALS_H

#include "base/buf.h"
#include "base/config.h"

/* Fills the credentials of every webhook task of c, which is loaded and finished; what is wrong is
 * appended to reterr, a line each. OB_ECONFIG, OB_ENOMEM. */
int credentials_read(struct config *c, struct buf *reterr) OB_MUST_CHECK;
/* The same for one task. */
int credentials_read_task(struct task_config *t, struct buf *reterr) OB_MUST_CHECK;

/* False: the task has no secrets, and its requests are not signed. */
bool credentials_can_sign(const struct credentials *c);
/* Appends the value of webhook-signature: one signature for each secret that has not ended by
 * timestamp_s, the current one's first, with blanks between. OB_ENOMEM, OB_ETOOBIG. */
int credentials_sign(const struct credentials *c, const char *id, uint64_t timestamp_s,
                     const void *body, size_t body_len, struct buf *out) OB_MUST_CHECK;

/* A file's contents, PEM. data NULL: none. */
struct pem {
    char *data;
    size_t len;
};
/* NULL: the system's authorities; no certificate of ours. c may be NULL. */
const struct pem *credentials_ca(const struct credentials *c);
const struct pem *credentials_client_cert(const struct credentials *c);
const struct pem *credentials_client_key(const struct credentials *c);

#endif
