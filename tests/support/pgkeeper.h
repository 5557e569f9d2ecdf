/* pgkeeper.h - the process that owns the postmasters of a test cluster: the server, perhaps its
 * standby. For pgcluster.c alone.
 *
 * A child of the runner, it obeys commands over a socket pair; so a test's forked child can crash
 * and restart the server, and yet it ends with the runner, with its files. */
#ifndef OB_TEST_PGKEEPER_H
#define OB_TEST_PGKEEPER_H

#include <pwd.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PGKEEPER_OPTIONS_MAX = 32, PGKEEPER_PORT = 5432 };
enum pgkeeper_node { PGKEEPER_PRIMARY, PGKEEPER_STANDBY, PGKEEPER_NODES };

struct pgkeeper {
    /* What it needs to know, before pgkeeper_fork. */
    char dir[32];  /* "": no cluster; holds socket, log and lock */
    char data[48]; /* the data folder, in memory if there is room */
    char bindir[256];
    const char *options[PGKEEPER_OPTIONS_MAX];
    size_t options_count;
    const char *const *environment;
    struct passwd owner; /* whom the server runs as when we are root */
    /* Its own. */
    pid_t pid;
    int control_fd;
    unsigned commands_count;
};

enum pgkeeper_op {
    PGKEEPER_START, /* and wait until it answers */
    PGKEEPER_KILL,  /* SIGKILL, and wait until it is gone */
    PGKEEPER_QUIT,  /* likewise SIGQUIT */
    PGKEEPER_MAKE_STANDBY,
};

/* BINDIR/program. */
void pgkeeper_program(const struct pgkeeper *k, char *out, size_t size, const char *program);
void pgkeeper_fork(struct pgkeeper *k);
/* From the process that forked it, and from its forked children. False: it could not be done. */
bool pgkeeper_command(struct pgkeeper *k, enum pgkeeper_op op);
/* Ends it and all that it owns. */
void pgkeeper_end(struct pgkeeper *k);

#endif
