/* name_lock.c - see name_lock.h. */
#define _GNU_SOURCE /* flock and O_NOFOLLOW under a strict _POSIX_C_SOURCE */
#include "core/name_lock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
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

/* Makes the folder if it can, and wants it to be ours or root's, writable, and such that nobody
 * else can replace our files in it: /tmp is everybody's. */
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
    if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0)
        return -EPERM;
    return access(dir, W_OK | X_OK) == 0 ? 0 : -errno;
}

static int choose_dir(const char *configured, char *dir, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (configured != NULL) {
        int n = snprintf(dir, size, "%s", configured);
        return n >= 0 && (size_t)n < size ? use_dir(dir) : -ENAMETOOLONG;
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
    errno = 0;
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

static int file_name(char *out, size_t size, const char *database, const char *name)
{
    int n = snprintf(out, size, "%s@%s.lock", name, database);
    if (n < 0 || (size_t)n >= size)
        return -ENAMETOOLONG;
    for (char *p = out; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p) && strchr("._-@", *p) == NULL)
            *p = '_';
    }
    return 0;
}

/* A file that somebody else has put there, or can write, is no lock of ours. */
static int check_file(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    bool is_ours = S_ISREG(st.st_mode) && (st.st_uid == geteuid() || st.st_uid == 0) &&
                   (st.st_mode & S_IWOTH) == 0;
    return is_ours ? 0 : -EPERM;
}

int name_lock_take(struct name_lock *l, const char *dir, const char *database, const char *name)
{
    char folder[256];
    char file[200];
    int err = choose_dir(dir, folder, sizeof folder);
    int name_err = file_name(file, sizeof file, database, name);
    (void)snprintf(l->path, sizeof l->path, "%s/%s", folder, file);
    if (err != 0 || name_err != 0)
        return err != 0 ? err : name_err;
    int fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        return -errno;
    err = check_file(fd);
    if (err == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0)
        err = errno == EWOULDBLOCK ? OB_EBUSY : -errno;
    if (err != 0) {
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
