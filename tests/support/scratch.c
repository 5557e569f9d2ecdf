/* Temporary files of the tests: /tmp/obt<user>.<runner>/<test>/, see child.h and daemon.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"

enum { RING = 8, PATH_SIZE = 256 };

static char root[64];

void scratch_init(void)
{
    (void)snprintf(root, sizeof root, "/tmp/obt%d.%d", (int)getuid(), (int)getpid());
    remove_tree(root); /* ours, of a dead process that had our number */
}

void scratch_remove(void)
{
    if (getenv("OUTBOX_TEST_KEEP") == NULL)
        remove_tree(root);
}

const char *test_dir(void)
{
    static char dir[96];
    if (root[0] == '\0')
        scratch_init();
    (void)snprintf(dir, sizeof dir, "%s/%d", root, (int)getpid());
    /* Open to all: a test may look at it as another user. */
    if ((mkdir(root, 0755) != 0 && errno != EEXIST) || (mkdir(dir, 0755) != 0 && errno != EEXIST))
        ck_abort_msg("mkdir %s: %s", dir, strerror(errno));
    return dir;
}

const char *test_file(const char *name, const char *contents, unsigned mode)
{
    static char ring[RING][PATH_SIZE];
    static unsigned next;
    char *path = ring[next++ % RING];
    (void)snprintf(path, PATH_SIZE, "%s/%s", test_dir(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0 || !write_all(fd, contents, strlen(contents)) || fchmod(fd, mode) != 0)
        ck_abort_msg("%s: %s", path, strerror(errno));
    (void)close(fd);
    return path;
}

size_t count_lines(const char *path)
{
    size_t len = 0;
    size_t lines = 0;
    char *text = read_file_from(path, 0, &len);
    for (size_t i = 0; text != NULL && i < len; i++)
        lines += text[i] == '\n';
    free(text);
    return lines;
}
