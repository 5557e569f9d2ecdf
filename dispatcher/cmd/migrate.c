/* migrate.c - `outbox migrate`: brings the schema to this program's level, or shows what is
 * missing. */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "cmd/jout.h"
#include "cmd/table.h"
#include "db/admin.h"
#include "db/migrate.h"

static const struct cmd_option options[] = {
    {"status", 's', NULL, "show each step and whether it is applied; change nothing"},
    {"print", 'p', NULL,
     "print the whole schema as one script for `psql -1`;\n"
     "no database is needed"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

static const char *state_name(const struct migrate_step *step)
{
    switch (step->state) {
    case MIGRATE_APPLIED:
        return "applied";
    case MIGRATE_PENDING:
        return "pending";
    case MIGRATE_CHANGED:
        return "changed";
    case MIGRATE_DONE_NOW:
        return "applied now";
    }
    return "";
}

struct report {
    struct jout *json;   /* NULL: for people */
    struct table *table; /* of --status */
    size_t pending;
    size_t applied;
};

/* migrate_status tells each file once. */
static void on_status(const struct migrate_step *step, void *arg)
{
    struct report *r = arg;
    if (step->state == MIGRATE_PENDING || step->state == MIGRATE_CHANGED)
        r->pending++;
    if (r->json != NULL) {
        jout_open_object(r->json, NULL);
        jout_str(r->json, "name", step->name);
        jout_str(r->json, "state", state_name(step));
        jout_str(r->json, "applied_at", step->applied_at[0] != '\0' ? step->applied_at : NULL);
        jout_close(r->json);
        return;
    }
    table_cell(r->table, step->name);
    table_cell(r->table, state_name(step));
    table_cell(r->table, step->applied_at);
}

/* migrate_apply tells each file before (pending or changed) and after (done now). */
static void on_applied(const struct migrate_step *step, void *arg)
{
    struct report *r = arg;
    if (step->state != MIGRATE_DONE_NOW)
        return;
    r->applied++;
    if (r->json != NULL) {
        jout_str(r->json, NULL, step->name);
        return;
    }
    (void)printf("applied %s\n", step->name);
    (void)fflush(stdout);
}

static int failed(const struct cmd_args *args, const struct admin *admin, int err, const char *why)
{
    if (err == OB_EPRIVILEGE)
        cmd_error(args, "role \"%s\" may not do this in database \"%s\": %s", admin_user(admin),
                  admin_database(admin), why);
    else
        cmd_error(args, "%s", why[0] != '\0' ? why : ob_strerror(err));
    return ob_exit_code(err);
}

static int show_status(const struct cmd_args *args, struct admin *admin, struct jout *json)
{
    static const char *const headers[] = {"STEP", "STATE", "APPLIED AT"};
    char why[MIGRATE_ERROR_SIZE] = "";
    struct report r = {.json = json, .table = table_new(headers, 3)};
    if (json != NULL)
        jout_open_array(json, NULL);
    int err = migrate_status(admin_pgconn(admin), on_status, &r, why);
    if (json != NULL) {
        jout_close(json);
        jout_end(json);
    } else if (err == 0) {
        table_print(r.table, stdout);
        if (r.pending > 0)
            (void)printf("%zu to apply: run `outbox migrate`\n", r.pending);
        else
            (void)printf("up to date\n");
    }
    table_free(r.table);
    return err == 0 ? OB_EXIT_OK : failed(args, admin, err, why);
}

static int apply(const struct cmd_args *args, struct admin *admin, struct jout *json)
{
    char why[MIGRATE_ERROR_SIZE] = "";
    struct report r = {.json = json};
    if (json != NULL) {
        jout_open_object(json, NULL);
        jout_open_array(json, "applied");
    }
    int err = migrate_apply(admin_pgconn(admin), on_applied, &r, why);
    if (json != NULL) {
        jout_close(json);
        jout_close(json);
        jout_end(json);
    } else if (err == 0) {
        (void)printf(r.applied > 0 ? "database \"%s\" is up to date\n"
                                   : "database \"%s\" was up to date: nothing to do\n",
                     admin_database(admin));
    }
    return err == 0 ? OB_EXIT_OK : failed(args, admin, err, why);
}

static int run(const struct cmd_args *args)
{
    bool status = cmd_has(args, "status");
    if (cmd_has(args, "print") && (status || cmd_has(args, "json")))
        return cmd_usage(args, "--print goes with neither --status nor --json");
    if (cmd_has(args, "print")) {
        int err = migrate_print(stdout);
        if (err != 0)
            cmd_error(args, "%s", ob_strerror(err));
        return ob_exit_code(err);
    }
    struct admin *admin = NULL;
    int code = cmd_connect(args, &admin);
    if (code != 0)
        return code;
    struct jout json;
    jout_init(&json, stdout);
    struct jout *wanted = cmd_has(args, "json") ? &json : NULL;
    code = status ? show_status(args, admin, wanted) : apply(args, admin, wanted);
    admin_close(admin);
    return code;
}

const struct command cmd_migrate_command = {
    .name = "migrate",
    .group = CMD_SET_UP,
    .operands = "",
    .summary = "create the schema outbox, or bring it up to date",
    .description =
        "Applies the steps that the database lacks, each in a transaction, under a lock: running "
        "it\n"
        "twice, or twice at once, is safe. Upgrade in the order: migrate, dispatchers, "
        "applications.\n"
        "The role that runs it becomes the schema's owner and may otherwise be without privileges.",
    .options = options,
    .run = run,
};
