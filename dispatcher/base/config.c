/* config.c - see config.h. Life of a configuration, and the files it is read from. */
#include "base/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/config_private.h"
#include "base/mem.h"

struct config *config_new(void)
{
    struct config *c = ob_xcalloc(1, sizeof *c);
    c->refs = 1;
    c->concurrency = 16;
    c->lease_ms = 60000;
    c->stop_timeout_ms = 25000;
    c->poll_interval_ms = 1000;
    c->sweep_interval_ms = 60000;
    c->log_level = LOG_INFO;
    c->log_format = LOG_LOGFMT;
    return c;
}

struct config *config_ref(struct config *c)
{
    ob_assert(c->refs > 0);
    c->refs++;
    return c;
}

void config_unref(struct config *c)
{
    if (c == NULL)
        return;
    ob_assert(c->refs > 0);
    c->refs--;
    if (c->refs > 0)
        return;
    for (size_t i = 0; i < c->tasks_count; i++)
        task_free_members(&c->tasks[i]);
    ob_free(c->tasks);
    ob_free(c->database);
    ob_free(c->name);
    ob_free(c->lock_dir);
    ob_free(c);
}

/* --- files --- */

/* The whole file into `text`. 0, OB_ENOMEM, OB_ETOOBIG or a negative errno. */
static int read_file(const char *path, struct buf *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = 0;
    char chunk[8192];
    ssize_t n = 1;
    while (n != 0 && err == 0) {
        n = read(fd, chunk, sizeof chunk);
        if (n > 0) {
            buf_append(text, chunk, (size_t)n);
            err = text->err;
        } else if (n < 0 && errno != EINTR)
            err = -errno;
    }
    (void)close(fd);
    return err;
}

static int load_file(struct config *c, const char *path, bool tasks_only, struct buf *reterr)
{
    struct buf text;
    buf_init(&text, CONFIG_FILE_MAX);
    int err = read_file(path, &text);
    if (err == 0)
        err = config_load_document(c, path, text.data != NULL ? text.data : "", text.len,
                                   tasks_only, reterr);
    else if (err == OB_ETOOBIG)
        buf_printf(reterr, "%s: larger than %d bytes\n", path, CONFIG_FILE_MAX);
    else if (err != OB_ENOMEM)
        buf_printf(reterr, "%s: cannot be read: %s\n", path, strerror(-err));
    buf_deinit(&text);
    return err == 0 || err == OB_ENOMEM ? err : OB_ECONFIG;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name);
    size_t m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

/* Paths of the folder's *.yaml, sorted. *.yml would be passed over in silence: an error instead. */
static int list_folder(struct loader *l, DIR *dir, struct strings *ret_paths)
{
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        if (has_suffix(name, ".yml"))
            loader_error(l, 0, "a name that ends in .yaml", "%s is not read", name);
        if (!has_suffix(name, ".yaml"))
            continue;
        struct buf path;
        buf_init(&path, 8192);
        buf_printf(&path, "%s/%s", l->file, name);
        char *text = buf_take(&path);
        if (!strings_append(l, ret_paths, text))
            return OB_ENOMEM;
    }
    if (ret_paths->count > 1)
        qsort(ret_paths->items, ret_paths->count, sizeof ret_paths->items[0], compare_names);
    return l->errors > 0 ? OB_ECONFIG : 0;
}

static int load_folder(struct config *c, const char *folder, struct buf *reterr)
{
    DIR *dir = opendir(folder);
    if (dir == NULL && errno == ENOENT)
        return 0;
    if (dir == NULL) {
        buf_printf(reterr, "%s: cannot be read: %s\n", folder, strerror(errno));
        return OB_ECONFIG;
    }
    struct loader l = {.config = c, .file = folder, .err = reterr};
    struct strings paths = {0};
    int result = list_folder(&l, dir, &paths);
    (void)closedir(dir);
    for (size_t i = 0; i < paths.count && result != OB_ENOMEM; i++) {
        int err = load_file(c, paths.items[i], true, reterr);
        result = err != 0 ? err : result;
    }
    strings_free(&paths);
    return result;
}

int config_load(struct config *c, const char *path, struct buf *reterr)
{
    int result = load_file(c, path, false, reterr);
    if (result == OB_ENOMEM)
        return result;
    const char *slash = strrchr(path, '/');
    struct buf folder;
    buf_init(&folder, 8192);
    buf_append(&folder, path, slash != NULL ? (size_t)(slash - path) + 1 : 0);
    buf_puts(&folder, "tasks.d");
    int err = folder.err != 0 ? folder.err : load_folder(c, folder.data, reterr);
    buf_deinit(&folder);
    return err != 0 ? err : result;
}

/* --- the whole --- */

/* Options of the command line are put into the struct past the loader: what a file may not say,
 * they may not either. (database may come from the environment in any form that libpq takes.) */
static void check_options(struct loader *l, const struct key *k)
{
    const char *value = (const char *)l->config + k->offset;
    char shown[QUOTED_SIZE];
    char text[3][32];
    if (k->type == &type_string) {
        const char *string = *(char *const *)(const void *)value;
        const char *expected = string != NULL ? k->check(string) : NULL;
        if (expected != NULL)
            loader_error(l, 0, expected, "bad %s %s", k->name, quoted(string, shown));
    } else if (k->type == &type_duration) {
        uint64_t ms = *(const uint64_t *)(const void *)value;
        format_duration(ms, text[0]);
        format_duration(k->min, text[1]);
        format_duration(k->max, text[2]);
        if (ms < k->min || ms > k->max)
            loader_error(l, 0, NULL, "%s %s is out of range; expected %s to %s", k->name, text[0],
                         text[1], text[2]);
    }
}

int config_finish(struct config *c, struct buf *reterr)
{
    struct loader l = {.config = c, .file = "command line", .err = reterr};
    for (size_t i = 0; i < top_keys_count; i++)
        check_options(&l, &top_keys[i]);
    int result = l.errors > 0 ? OB_EUSAGE : 0; /* a file's values were checked as they were read */
    for (size_t i = 0; i < c->tasks_count; i++) {
        int err = task_finish(&c->tasks[i], c, reterr);
        if (err == OB_ENOMEM)
            return err;
        if (err != 0)
            result = err;
    }
    return result;
}
