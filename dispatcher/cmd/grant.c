/* grant.c - `outbox grant`: prints the GRANT statements that a role needs. Touches no database. */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "db/grant.h"

static const struct cmd_option options[] = {
    {"producer", '\0', "ROLE", "may enqueue, and nothing else"},
    {"dispatcher", '\0', "ROLE", "may run jobs, cancel and retry: for `outbox run`"},
    {"reader", '\0', "ROLE", "may look: outbox jobs, show, stats, dispatchers"},
    CMD_OPTIONS_END,
};

static int run(const struct cmd_args *args)
{
    static const struct {
        const char *option;
        enum grant_kind kind;
    } kinds[] = {
        {"producer", GRANT_PRODUCER}, {"dispatcher", GRANT_DISPATCHER}, {"reader", GRANT_READER}};
    if (args->given_count == 0)
        return cmd_usage(args, "say for whom: --producer ROLE, --dispatcher ROLE or --reader ROLE");
    for (size_t i = 0; i < args->given_count; i++) {
        if (args->given[i].value[0] == '\0')
            return cmd_usage(args, "--%s needs a role's name", args->given[i].option->name);
    }
    for (size_t i = 0; i < args->given_count; i++) {
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            if (strcmp(args->given[i].option->name, kinds[k].option) != 0)
                continue;
            int err = grant_print(stdout, kinds[k].kind, args->given[i].value);
            if (err == OB_EINVAL)
                return cmd_usage(args,
                                 "--%s \"%s\": expected a role's name, in one line of at most 63 "
                                 "bytes",
                                 kinds[k].option, args->given[i].value);
            if (err != 0) {
                cmd_error(args, "--%s \"%s\": %s", kinds[k].option, args->given[i].value,
                          ob_strerror(err));
                return ob_exit_code(err);
            }
        }
    }
    return OB_EXIT_OK;
}

const struct command cmd_grant_command = {
    .name = "grant",
    .group = CMD_SET_UP,
    .operands = "",
    .summary = "print the GRANTs that a role needs, for psql",
    .description = "Prints SQL and changes nothing itself; each option may come several times:\n"
                   "    outbox grant --producer shop --dispatcher outbox | psql mydb",
    .options = options,
    .run = run,
};
