/* listing.c - see listing.h. */
#include "cmd/listing.h"

#include <stdio.h>

int cmd_list(const struct cmd_args *args, const struct cmd_listing *listing)
{
    struct admin *admin = NULL;
    struct admin_rows *rows = NULL;
    struct admin_error error;
    int code = cmd_connect_schema(args, &admin);
    if (code != 0)
        return code;
    if (listing->ask(admin, &rows, &error) != 0)
        code = cmd_db_failed(args, admin, &error);
    else if (cmd_has(args, "json"))
        listing->print_json(rows);
    else if (admin_count(rows) > 0)
        listing->print_table(rows);
    else
        (void)fprintf(stderr, "%s\n", listing->none);
    admin_rows_free(rows);
    admin_close(admin);
    return code;
}
