/* Replays a corpus through a fuzz target without libFuzzer: every file of the folders and files
 * named on the command line, and the empty input. It fails by crashing, as the target does. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 20 };

static unsigned replayed;

static int replay_file(const char *path)
{
    static uint8_t buf[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return -1;
    }
    size_t len = fread(buf, 1, sizeof buf, f);
    (void)fclose(f);
    /* A copy of exactly its size, so that a sanitizer sees a read past its end. */
    uint8_t *data = malloc(len > 0 ? len : 1);
    if (data == NULL)
        return -1;
    memcpy(data, buf, len);
    (void)printf("%s\n", path); /* the last one printed is the one that crashed */
    (void)fflush(stdout);
    (void)LLVMFuzzerTestOneInput(data, len);
    free(data);
    replayed++;
    return 0;
}

static int replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    int rc = 0;
    if (folder == NULL)
        return 0; /* no corpus yet */
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        char file[4096];
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (replay_file(file) != 0)
            rc = -1;
    }
    (void)closedir(folder);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        int is_file = stat(argv[i], &st) == 0 && S_ISREG(st.st_mode);
        if ((is_file ? replay_file(argv[i]) : replay_folder(argv[i])) != 0)
            rc = -1;
    }
    (void)printf("%u inputs replayed\n", replayed);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
