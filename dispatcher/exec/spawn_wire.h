/* spawn_wire.h - one message with its descriptors over the pair between spawn_client.c and
 * spawner.c. Never blocks, never allocates. */
#ifndef OB_EXEC_SPAWN_WIRE_H
#define OB_EXEC_SPAWN_WIRE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "exec/spawn_client.h"
#include "exec/spawn_protocol.h"

enum { WIRE_FDS_MAX = 3 };

/* A request as large as it may get. */
struct wire_message {
    _Alignas(struct spawn_msg) char bytes[sizeof(struct spawn_msg) + SPAWN_REQUEST_MAX];
};

/* 0; -EAGAIN: no room now; another negative errno: nobody listens any more. */
int wire_send(int sock, const void *bytes, size_t len, const int *fds,
              size_t fds_count) OB_MUST_CHECK;
/* Length of the message; 0: the other side is gone; -EAGAIN: none there; another negative errno.
 * The descriptors are CLOEXEC and the caller's; fewer than were sent if there was no room for them.
 */
ssize_t wire_receive(int sock, void *bytes, size_t size, int fds[WIRE_FDS_MAX],
                     size_t *ret_fds_count) OB_MUST_CHECK;

/* Writes a SPAWN into *ret_message and its descriptors into fds. Returns its length, 0 if too
 * large. */
size_t wire_pack_spawn(const struct spawn_request *request, uint64_t id,
                       struct wire_message *ret_message, int fds[WIRE_FDS_MAX],
                       size_t *ret_fds_count) OB_MUST_CHECK;

#endif
