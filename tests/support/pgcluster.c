/* The cluster: where it lives, and what tests ask of it. The postmasters are pgkeeper.c's,
 * databases and queries testdb.c's. */
#define _GNU_SOURCE
#include "pgcluster.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "child.h"
#include "ck_main.h"
#include "pgkeeper.h"
#include "testdb.h"

/* Where the data go if so much is free there: a cluster takes about 100 MB, its WAL included. */
#define MEMORY_DIR       "/dev/shm"
#define MEMORY_BYTES_MIN (1ULL << 30)

static struct pgkeeper cluster;
static enum pgkeeper_node node; /* the one that tests talk to */

void pgcluster_show_log(long from)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s/server.log", cluster.dir);
    char *text = read_file_from(path, from, NULL);
    if (text != NULL && *text != '\0')
        (void)fprintf(stderr, "--- server log\n%s---\n", text);
    free(text);
}

long pgcluster_log_size(void)
{
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/server.log", cluster.dir);
    return stat(path, &st) == 0 ? (long)st.st_size : 0;
}

static void sweep(void)
{
    DIR *tmp = opendir("/tmp");
    struct dirent *e;
    while (tmp != NULL && (e = readdir(tmp)) != NULL) {
        char path[300];
        if (strncmp(e->d_name, "ob", 2) != 0 || strlen(e->d_name) != strlen("obXXXXXX"))
            continue;
        (void)snprintf(path, sizeof path, "/tmp/%s/lock", e->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            (void)snprintf(path, sizeof path, MEMORY_DIR "/%s", e->d_name);
            remove_tree(path);
            (void)snprintf(path, sizeof path, "/tmp/%s", e->d_name);
            remove_tree(path);
        }
        (void)close(fd);
    }
    if (tmp != NULL)
        (void)closedir(tmp);
}

/* Skips this binary; fails it instead under OUTBOX_TEST_REQUIRE_PG=1, which scripts/test sets. */
static __attribute__((noreturn)) void no_server(const char *why)
{
    const char *required = getenv("OUTBOX_TEST_REQUIRE_PG");
    if (required == NULL || strcmp(required, "1") != 0)
        test_skip_all(why);
    (void)fprintf(stderr, "cannot run: %s\n", why);
    exit(1);
}

static void find_programs(void)
{
    const char *bindir = getenv("OUTBOX_PG_BINDIR");
    char initdb[300];
    (void)snprintf(cluster.bindir, sizeof cluster.bindir, "%s",
                   bindir != NULL && *bindir != '\0' ? bindir : OB_TEST_PG_BINDIR);
    pgkeeper_program(&cluster, initdb, sizeof initdb, "initdb");
    if (access(initdb, X_OK) != 0)
        no_server("no initdb: install a PostgreSQL server, or set OUTBOX_PG_BINDIR");
}

void pgcluster_needs_standby(void)
{
    char program[300];
    find_programs();
    pgkeeper_program(&cluster, program, sizeof program, "pg_basebackup");
    if (access(program, X_OK) != 0)
        test_skip_all("this server comes without pg_basebackup, which makes a standby");
}

/* A database a test is hundreds of new files a test: on tmpfs that takes a tenth of the time. */
static void make_data_dir(void)
{
    struct statvfs fs;
    const char *name = strrchr(cluster.dir, '/') + 1;
    (void)snprintf(cluster.data, sizeof cluster.data, MEMORY_DIR "/%s", name);
    bool has_room = statvfs(MEMORY_DIR, &fs) == 0 &&
                    (unsigned long long)fs.f_bavail * fs.f_frsize >= MEMORY_BYTES_MIN;
    if (has_room && mkdir(cluster.data, 0700) == 0)
        return;
    (void)snprintf(cluster.data, sizeof cluster.data, "%s/data", cluster.dir);
    if (mkdir(cluster.data, 0700) != 0)
        ck_abort_msg("mkdir %s: %s", cluster.data, strerror(errno));
}

static void find_owner(void)
{
    if (geteuid() != 0)
        return;
    const struct passwd *pw = getpwnam("postgres");
    if (pw == NULL)
        pw = getpwnam("nobody");
    if (pw == NULL)
        no_server("run as root, and there is no user postgres or nobody for the server");
    cluster.owner = *pw;
    ck_assert_int_eq(chown(cluster.dir, pw->pw_uid, pw->pw_gid), 0);
    ck_assert_int_eq(chown(cluster.data, pw->pw_uid, pw->pw_gid), 0);
}

void pgcluster_set_options(const char *const *settings)
{
    cluster.options_count = 0;
    while (settings != NULL && settings[cluster.options_count] != NULL) {
        if (cluster.options_count ==
            PGKEEPER_OPTIONS_MAX) /* Check's own assertions work in tests only */
            abort();
        cluster.options[cluster.options_count] = settings[cluster.options_count];
        cluster.options_count++;
    }
}

void pgcluster_set_environment(const char *const *environment)
{
    cluster.environment = environment;
}

void pgcluster_start(void)
{
    node = PGKEEPER_PRIMARY;
    find_programs();
    sweep();
    (void)snprintf(cluster.dir, sizeof cluster.dir, "/tmp/obXXXXXX");
    if (mkdtemp(cluster.dir) == NULL)
        ck_abort_msg("mkdtemp %s: %s", cluster.dir, strerror(errno));
    make_data_dir();
    find_owner();
    pgkeeper_fork(&cluster);
    if (!pgkeeper_command(&cluster, PGKEEPER_START)) {
        pgcluster_show_log(0);
        ck_abort_msg("the cluster in %s did not start", cluster.dir);
    }
    testdb_make_template();
}

void pgcluster_stop(void)
{
    if (cluster.dir[0] == '\0')
        return;
    testdb_report_failed();
    pgkeeper_end(&cluster);
    cluster.dir[0] = '\0';
}

const char *pgcluster_socket_dir(void)
{
    return cluster.dir;
}

int pgcluster_port(void)
{
    return PGKEEPER_PORT + (int)node;
}

void pgcluster_start_standby(void)
{
    if (!pgkeeper_command(&cluster, PGKEEPER_MAKE_STANDBY)) {
        pgcluster_show_log(0);
        ck_abort_msg("the standby did not start");
    }
}

void pgcluster_use_standby(void)
{
    node = PGKEEPER_STANDBY;
}

void pgcluster_crash(void)
{
    if (!pgkeeper_command(&cluster, PGKEEPER_KILL))
        ck_abort_msg("the server could not be killed");
}

void pgcluster_start_again(void)
{
    if (!pgkeeper_command(&cluster, PGKEEPER_START)) {
        pgcluster_show_log(0);
        ck_abort_msg("the server did not start again");
    }
}

void pgcluster_crash_and_restart(void)
{
    if (!pgkeeper_command(&cluster, PGKEEPER_QUIT))
        ck_abort_msg("the server did not stop");
    pgcluster_start_again();
}
