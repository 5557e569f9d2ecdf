/* Temporary files of the tests: /tmp/obt<user>.<runner>/<test>/, see child.h and daemon.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "daemon.h"

enum { RING = 8, PATH_SIZE = 256, GRACE_S = 3600 };

static char root[64];

/* Folders of runs that were killed. An hour's grace: the process may live in another pid namespace.
 */
static void sweep(void)
{
    DIR *tmp = opendir("/tmp");
    for (struct dirent *e = tmp != NULL ? readdir(tmp) : NULL; e != NULL; e = readdir(tmp)) {
        char path[PATH_SIZE + 8];
        char *end = e->d_name;
        struct stat st;
        long pid = strncmp(e->d_name, "obt", 3) == 0 ? strtol(e->d_name + 3, &end, 10) : 0;
        (void)snprintf(path, sizeof path, "/tmp/%s", e->d_name);
        if (pid > 0 && *end == '\0' && kill((pid_t)pid, 0) != 0 && errno == ESRCH &&
            lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_mtime < time(NULL) - GRACE_S)
            remove_tree(path);
    }
    if (tmp != NULL)
        (void)closedir(tmp);
}

void scratch_init(void)
{
    sweep();
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
