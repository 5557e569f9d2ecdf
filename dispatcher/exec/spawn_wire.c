#define _GNU_SOURCE
/* spawn_wire.c - see spawn_wire.h. */
#include "exec/spawn_wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/assert.h"

/* Room for WIRE_FDS_MAX descriptors, aligned as CMSG_FIRSTHDR needs it. */
union control {
    char space[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    struct cmsghdr align;
};

const char *spawn_stage_name(uint32_t stage)
{
    static const char *const names[] = {
        [SPAWN_STAGE_NONE] = "none",
        [SPAWN_STAGE_TABLE] = "too many processes",
        [SPAWN_STAGE_DESCRIPTORS] = "descriptors",
        [SPAWN_STAGE_DEADLINE] = "deadline",
        [SPAWN_STAGE_FORK] = "fork",
        [SPAWN_STAGE_SESSION] = "session",
        [SPAWN_STAGE_STDIO] = "stdio",
        [SPAWN_STAGE_DIRECTORY] = "chdir",
        [SPAWN_STAGE_EXEC] = "exec",
        [SPAWN_STAGE_INTERPRETER] = "interpreter",
    };
    return stage < sizeof names / sizeof names[0] ? names[stage] : "unknown";
}

static bool is_passing(int errnum)
{
    return errnum == EAGAIN || errnum == EINTR || errnum == ENOBUFS || errnum == ENOMEM ||
           errnum == ETOOMANYREFS; /* descriptors in flight: RLIMIT_NOFILE bounds them */
}

int wire_send(int sock, const void *bytes, size_t len, const int *fds, size_t fds_count)
{
    ob_assert(fds_count <= WIRE_FDS_MAX);
    union control control;
    memset(&control, 0, sizeof control);
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds_count > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(fds_count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        ob_assert(cmsg != NULL);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fds_count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, fds_count * sizeof(int));
    }
    if (sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 0;
    return is_passing(errno) ? -EAGAIN : -errno;
}

ssize_t wire_receive(int sock, void *bytes, size_t size, int fds[WIRE_FDS_MAX],
                     size_t *ret_fds_count)
{
    union control control;
    struct iovec iov = {bytes, size};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    *ret_fds_count = 0;
    ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == ECONNRESET) /* it died with messages unread; its own may still be there */
        n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return is_passing(errno) ? -EAGAIN : -errno;
    const struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        *ret_fds_count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        ob_assert(*ret_fds_count <= WIRE_FDS_MAX);
        memcpy(fds, CMSG_DATA(cmsg), *ret_fds_count * sizeof(int));
    }
    return n;
}

/* Appends one string and its NUL. False: no room. */
static bool put_string(struct wire_message *message, size_t *len, const char *s)
{
    size_t n = strlen(s) + 1;
    if (n > sizeof message->bytes - *len)
        return false;
    memcpy(message->bytes + *len, s, n);
    *len += n;
    return true;
}

size_t wire_pack_spawn(const struct spawn_request *request, uint64_t id,
                       struct wire_message *ret_message, int fds[WIRE_FDS_MAX],
                       size_t *ret_fds_count)
{
    struct spawn_msg m = {.op = SPAWN_MSG_SPAWN,
                          .id = id,
                          .umask = request->umask,
                          .skips_start = request->skips_start};
    size_t len = sizeof m;
    bool ok = true;
    if (request->cwd != NULL) {
        m.has_cwd = 1;
        ok = put_string(ret_message, &len, request->cwd);
    }
    for (; ok && request->argv[m.argc] != NULL; m.argc++)
        ok = put_string(ret_message, &len, request->argv[m.argc]);
    for (; ok && request->envp[m.envc] != NULL; m.envc++)
        ok = put_string(ret_message, &len, request->envp[m.envc]);
    if (!ok || (size_t)m.argc + m.envc > SPAWN_STRINGS_MAX)
        return 0;
    const int wanted[3] = {request->stdin_fd, request->stdout_fd, request->stderr_fd};
    *ret_fds_count = 0;
    for (int i = 0; i < 3; i++) {
        m.stdio[i] = SPAWN_STDIO_NULL;
        if (wanted[i] >= 0) {
            m.stdio[i] = (int32_t)*ret_fds_count;
            fds[(*ret_fds_count)++] = wanted[i];
        }
    }
    m.strings_bytes = (uint32_t)(len - sizeof m);
    memcpy(ret_message->bytes, &m, sizeof m);
    return len;
}
