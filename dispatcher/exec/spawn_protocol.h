/* spawn_protocol.h - the messages between spawn_client.c and spawner.c, which are always of one
 * build.
 *
 * SOCK_SEQPACKET: a datagram is one message, native byte order. A request is struct spawn_msg, for
 * SPAWN_MSG_SPAWN followed by NUL-terminated strings: the working folder (if has_cwd), argc
 * arguments, envc variables. Descriptors travel beside it (SCM_RIGHTS). An answer is one or several
 * struct spawn_reply; SPAWN_REPLY_STARTED comes alone, with the pidfd.
 *
 * When you change this: spawn_client.c, spawner.c, and spawn_stage_name() for a new stage. */
#ifndef OB_EXEC_SPAWN_PROTOCOL_H
#define OB_EXEC_SPAWN_PROTOCOL_H

#include <stdint.h>

enum spawn_msg_op {
    SPAWN_MSG_SPAWN = 1, /* 0 to 3 descriptors, as stdio[] refers to them */
    SPAWN_MSG_KILL,      /* id, signum: to the group, while anything is left of it. After a TERM the
                          * child's end is told when its whole group has ended */
    SPAWN_MSG_HOLD,      /* 1 descriptor, kept open until the spawner's end */
    SPAWN_MSG_DEADLINE   /* boot_ms */
};

enum { SPAWN_STDIO_NULL = -1 }; /* in stdio[]: /dev/null */

struct spawn_msg {
    uint32_t op;
    int32_t signum;
    uint64_t id;
    uint64_t boot_ms;
    int32_t stdio[3]; /* which passed descriptor becomes 0, 1 and 2 */
    int32_t umask;    /* -1: unchanged */
    uint32_t argc;
    uint32_t envc;
    uint32_t has_cwd;
    uint32_t strings_bytes;
    uint32_t skips_start; /* 1: SPAWN_REPLY_STARTED is not wanted */
    uint32_t unused;      /* no padding: the struct goes over a socket as it is */
};

enum spawn_reply_op { SPAWN_REPLY_STARTED = 1, SPAWN_REPLY_FAILED, SPAWN_REPLY_EXITED };

enum spawn_stage {
    SPAWN_STAGE_NONE,
    SPAWN_STAGE_TABLE,       /* SPAWN_CHILDREN_MAX run already */
    SPAWN_STAGE_DESCRIPTORS, /* the descriptors of the request did not arrive */
    SPAWN_STAGE_DEADLINE,    /* the deadline has passed */
    SPAWN_STAGE_FORK,
    SPAWN_STAGE_SESSION,
    SPAWN_STAGE_STDIO,
    SPAWN_STAGE_DIRECTORY,
    SPAWN_STAGE_EXEC,
    SPAWN_STAGE_INTERPRETER /* execve: ENOENT though the program exists: its #! line */
};

struct spawn_reply {
    uint32_t op;
    int32_t pid;
    uint64_t id;
    int32_t wait_status;
    int32_t errnum;
    uint32_t stage;
    uint32_t unused; /* no padding: the struct goes over a socket as it is */
};

enum {
    SPAWN_CHILDREN_MAX = 4096, /* running at once; a power of two */
    SPAWN_STRINGS_MAX = 8192,  /* arguments and variables of one child */
    SPAWN_REPLIES_MAX = 32     /* in one message */
};

_Static_assert(sizeof(struct spawn_msg) == 64, "no padding");
_Static_assert(sizeof(struct spawn_reply) == 32, "no padding");

/* "session", "exec", ...: for outcome_from_spawn_error(). */
const char *spawn_stage_name(uint32_t stage);

#endif
