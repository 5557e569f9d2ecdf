/* name_lock.c - see name_lock.h. */
#define _GNU_SOURCE /* flock and O_NOFOLLOW under a strict _POSIX_C_SOURCE */
#include "core/name_lock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rand.h"

void name_lock_init(struct name_lock *l)
{
    memset(l, 0, sizeof *l);
    l->fd = -1;
}

/* Makes the folder if it can, and wants it to be ours and writable: /tmp is everybody's. */
static int use_dir(const char *dir)
{
    struct stat st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return -errno;
    if (lstat(dir, &st) != 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return -EACCES;
    return access(dir, W_OK | X_OK) == 0 ? 0 : -errno;
}

static int choose_dir(const char *configured, char *dir, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (configured != NULL) {
        (void)snprintf(dir, size, "%s", configured);
        return use_dir(dir);
    }
    (void)snprintf(dir, size, "/run/outbox");
    if (use_dir(dir) == 0)
        return 0;
    if (runtime != NULL && runtime[0] == '/') {
        (void)snprintf(dir, size, "%s/outbox", runtime);
        if (use_dir(dir) == 0)
            return 0;
    }
    (void)snprintf(dir, size, "/tmp/outbox-%u", (unsigned)geteuid());
    return use_dir(dir);
}

/* Reads the file's token, or writes a new one into a file that has none. */
static int load_token(struct name_lock *l)
{
    char text[NAME_LOCK_TOKEN_SIZE] = "";
    ssize_t n = pread(l->fd, text, sizeof text - 1, 0);
    if (n == NAME_LOCK_TOKEN_SIZE - 1 && strspn(text, "0123456789abcdef") == (size_t)n) {
        memcpy(l->token, text, sizeof text);
        return 0;
    }
    (void)snprintf(l->token, sizeof l->token, "%016" PRIx64 "%016" PRIx64, (uint64_t)rand_id(),
                   (uint64_t)rand_id());
    if (ftruncate(l->fd, 0) != 0)
        return -errno;
    if (pwrite(l->fd, l->token, sizeof l->token - 1, 0) != (ssize_t)(sizeof l->token - 1))
        return errno != 0 ? -errno : -EIO;
    return 0;
}

static void file_name(char *out, size_t size, const char *database, const char *name)
{
    (void)snprintf(out, size, "%s@%s.lock", name, database);
    for (char *p = out; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p) && strchr("._-@", *p) == NULL)
            *p = '_';
    }
}

int name_lock_take(struct name_lock *l, const char *dir, const char *database, const char *name)
{
    char folder[256];
    char file[200];
    int err = choose_dir(dir, folder, sizeof folder);
    file_name(file, sizeof file, database, name);
    (void)snprintf(l->path, sizeof l->path, "%s/%s", folder, file);
    if (err != 0)
        return err;
    int fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err = errno == EWOULDBLOCK ? OB_EBUSY : -errno;
        (void)close(fd);
        return err;
    }
    l->fd = fd;
    err = load_token(l);
    if (err != 0)
        name_lock_close(l);
    return err;
}

void name_lock_close(struct name_lock *l)
{
    if (l->fd >= 0)
        (void)close(l->fd);
    l->fd = -1;
}
