/* listing.h - commands that ask the database once and show what it says: stats, dispatchers. */
#ifndef OB_CMD_LISTING_H
#define OB_CMD_LISTING_H

#include "cmd/cmd.h"
#include "db/admin.h"

struct cmd_listing {
    int (*ask)(struct admin *a, struct admin_rows **ret_rows, struct admin_error *reterr);
    void (*print_json)(const struct admin_rows *rows);
    void (*print_table)(const struct admin_rows *rows);
    const char *none; /* said on stderr, instead of an empty table */
};

/* Connects, asks, and prints as --json says. Returns the exit code. */
int cmd_list(const struct cmd_args *args, const struct cmd_listing *listing);

#endif
