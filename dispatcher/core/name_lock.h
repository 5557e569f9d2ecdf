/* name_lock.h - the lock file that makes a dispatcher's name exclusive on this host.
 *
 * One file a (database, name). The spawner holds a duplicate of the descriptor, so the lock frees
 * only when the old daemon and everything it started are gone. The file's token is stored in the
 * dispatcher's row: only who holds the very same file may take an earlier daemon's claims back at
 * once (two containers may share a host name and a boot id, but not a file). */
#ifndef OB_CORE_NAME_LOCK_H
#define OB_CORE_NAME_LOCK_H

#include "base/err.h"

enum { NAME_LOCK_TOKEN_SIZE = 33, NAME_LOCK_PATH_SIZE = 512 };

struct name_lock {
    int fd; /* -1: not held; CLOEXEC */
    char path[NAME_LOCK_PATH_SIZE];
    char token[NAME_LOCK_TOKEN_SIZE];
};

void name_lock_init(struct name_lock *l);
/* dir NULL: /run/outbox, else $XDG_RUNTIME_DIR/outbox, else /tmp/outbox-UID, whichever can be
 * written. Returns 0, OB_EBUSY (held by another process) or a negative errno; path is set for
 * messages. */
int name_lock_take(struct name_lock *l, const char *dir, const char *database,
                   const char *name) OB_MUST_CHECK;
void name_lock_close(struct name_lock *l);

#endif
