/* lines.c - see lines.h. */
#include "cmd/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"

enum { BLOCK = 256 * 1024 };

int lines_open(struct lines *l, const char *path, size_t len_max, const volatile sig_atomic_t *stop)
{
    struct stat st;
    memset(l, 0, sizeof *l);
    l->fd = STDIN_FILENO;
    l->len_max = len_max;
    l->stop = stop;
    if (strcmp(path, "-") != 0)
        l->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0 || fstat(l->fd, &st) != 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    l->can_block = !S_ISREG(st.st_mode);
    l->size = S_ISREG(st.st_mode) ? (int64_t)st.st_size : 0;
    return 0;
}

void lines_close(struct lines *l)
{
    if (l->fd > STDIN_FILENO)
        (void)close(l->fd);
    ob_free(l->data);
    memset(l, 0, sizeof *l);
    l->fd = -1;
}

/* Waits until there is something to read, or *stop is set. The signals are let through in the wait
 * alone: one that comes between the look at *stop and the wait would not end it. */
static int wait_for_input(const struct lines *l)
{
    sigset_t ours;
    sigset_t before;
    fd_set set;
    (void)sigemptyset(&ours);
    (void)sigaddset(&ours, SIGINT);
    (void)sigaddset(&ours, SIGTERM);
    FD_ZERO(&set);
    ob_assert(l->fd < FD_SETSIZE);
    FD_SET(l->fd, &set);
    (void)sigprocmask(SIG_BLOCK, &ours, &before);
    int n = 0;
    if (*l->stop == 0)
        n = pselect(l->fd + 1, &set, NULL, NULL, NULL, &before);
    int err = n < 0 ? -errno : 0;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return *l->stop != 0 ? -EINTR : err;
}

/* Room for another block behind what is there. */
static int make_room(struct lines *l)
{
    if (l->at > 0) {
        memmove(l->data, l->data + l->at, l->end - l->at);
        l->end -= l->at;
        l->seen -= l->at;
        l->at = 0;
    }
    if (l->cap - l->end >= BLOCK)
        return 0;
    size_t cap = l->cap * 2 > l->end + BLOCK ? l->cap * 2 : l->end + BLOCK;
    char *data = ob_realloc(l->data, cap);
    if (data == NULL)
        return OB_ENOMEM;
    l->data = data;
    l->cap = cap;
    return 0;
}

static int read_block(struct lines *l)
{
    int err = make_room(l);
    while (err == 0) {
        if (l->can_block)
            err = wait_for_input(l);
        else if (*l->stop != 0)
            err = -EINTR;
        if (err == -EINTR && *l->stop == 0)
            err = 0; /* some other signal */
        if (err != 0)
            return err;
        ssize_t n = read(l->fd, l->data + l->end, BLOCK);
        if (n >= 0) {
            l->end += (size_t)n;
            l->is_at_end = n == 0;
            return 0;
        }
        if (errno != EINTR && errno != EAGAIN)
            err = -errno;
    }
    return err;
}

/* The line data[at..at + len), with `ended` bytes of line end behind it. */
static int hand_out(struct lines *l, size_t len, size_t ended, const char **ret_text,
                    size_t *ret_len)
{
    static const char mark[] = "\xEF\xBB\xBF";
    const char *text = l->data + l->at;
    l->at += len + ended;
    l->seen = l->at;
    l->bytes += (int64_t)(len + ended);
    l->number++;
    if (len > 0 && text[len - 1] == '\r')
        len--;
    if (l->number == 1 && len >= 3 && memcmp(text, mark, 3) == 0) {
        text += 3;
        len -= 3;
    }
    *ret_text = text;
    *ret_len = len;
    return len <= l->len_max ? 1 : OB_ETOOBIG;
}

int lines_next(struct lines *l, const char **ret_text, size_t *ret_len)
{
    for (;;) {
        const char *end =
            l->seen < l->end ? memchr(l->data + l->seen, '\n', l->end - l->seen) : NULL;
        if (end != NULL)
            return hand_out(l, (size_t)(end - l->data) - l->at, 1, ret_text, ret_len);
        l->seen = l->end;
        if (l->end - l->at > l->len_max + 4) /* a mark and a CR are not counted */
            return hand_out(l, l->end - l->at, 0, ret_text, ret_len);
        if (l->is_at_end)
            return l->end > l->at ? hand_out(l, l->end - l->at, 0, ret_text, ret_len) : 0;
        int err = read_block(l);
        if (err != 0)
            return err;
    }
}
