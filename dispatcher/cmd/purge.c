/* purge.c - `outbox purge`: removes for good what was kept: dead jobs, finished ones, attempts. */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/input.h"
#include "cmd/progress.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    {"older-than", 'o', "DURATION",
     "required: ended (attempts: begun) so long ago: 30d, 12h; 0s: all"},
    {"task", 't', "TASK", "only of this task; not for attempts"},
    {"dry-run", 'n', NULL, "only count what would be removed"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

struct purge {
    enum admin_purge what;
    const char *task; /* NULL: every task */
    uint64_t older_than_ms;
    int64_t removed;
    struct progress progress;
};

static int count_old(struct admin *admin, const struct purge *p, int64_t *ret_count,
                     struct admin_error *error)
{
    if (p->what == ADMIN_PURGE_ATTEMPTS)
        return admin_old_attempts(admin, p->older_than_ms, ret_count, error);
    char tasks[160];
    (void)snprintf(tasks, sizeof tasks, "{\"%s\"}", p->task != NULL ? p->task : "");
    struct admin_filter filter = {
        .states = p->what == ADMIN_PURGE_DEAD ? "{dead}" : "{done}",
        .tasks = p->task != NULL ? tasks : NULL,
        .ended_for_ms = p->older_than_ms,
    };
    return admin_jobs_count(admin, &filter, ret_count, error);
}

/* Batches until one finds nothing, or nothing but what somebody holds. */
static int purge_task(struct admin *admin, struct purge *p, const char *task,
                      struct admin_error *error)
{
    for (;;) {
        int64_t n = 0;
        int err = admin_purge(admin, p->what, task, p->older_than_ms, &n, error);
        if (err != 0 || n == 0)
            return err;
        p->removed += n;
        progress_update(&p->progress, p->removed);
    }
}

static int purge_all(struct admin *admin, struct purge *p, struct admin_error *error)
{
    if (p->task != NULL)
        return purge_task(admin, p, p->task, error);
    struct admin_rows *tasks = NULL;
    int err = admin_purge_tasks(admin, p->what, &tasks, error);
    for (size_t i = 0; err == 0 && i < admin_count(tasks); i++)
        err = purge_task(admin, p, admin_text(tasks, i, 0), error);
    admin_rows_free(tasks);
    return err;
}

static int purge(const struct cmd_args *args, struct admin *admin, struct purge *p)
{
    struct admin_error error;
    int64_t total = 0;
    bool dry = cmd_has(args, "dry-run");
    int err = count_old(admin, p, &total, &error);
    if (err == 0 && !dry) {
        progress_init(&p->progress, total);
        err = purge_all(admin, p, &error);
        progress_end(&p->progress);
    }
    int64_t n = dry ? total : p->removed;
    if (err == 0 && cmd_has(args, "json"))
        (void)printf("{\"%s\": %" PRId64 "}\n", dry ? "would_remove" : "removed", n);
    else if (err == 0 || n > 0)
        (void)printf("%" PRId64 " %s\n", n, dry ? "would be removed" : "removed");
    return err != 0 ? cmd_db_failed(args, admin, &error) : OB_EXIT_OK;
}

static int read_purge(const struct cmd_args *args, struct purge *p)
{
    static const char *const names[] = {"dead", "done", "attempts"};
    const char *word = args->operands[0];
    size_t i = 0;
    while (i < 3 && strcmp(word, names[i]) != 0)
        i++;
    if (i == 3)
        return cmd_usage(args, "\"%s\": expected dead, done or attempts", word);
    p->what = (enum admin_purge)i;
    p->task = cmd_value(args, "task");
    if (p->task != NULL && p->what == ADMIN_PURGE_ATTEMPTS)
        return cmd_usage(args, "--task: attempts are removed by age alone");
    if (!cmd_has(args, "older-than"))
        return cmd_usage(args, "--older-than is missing: it says what may go; 0s is everything");
    int code = cmd_duration_value(args, "older-than", &p->older_than_ms);
    return code == 0 && p->task != NULL ? input_check_task(args, p->task) : code;
}

static int run(const struct cmd_args *args)
{
    struct purge p;
    memset(&p, 0, sizeof p);
    struct admin *admin = NULL;
    int code = read_purge(args, &p);
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0)
        code = purge(args, admin, &p);
    admin_close(admin);
    return code;
}

const struct command cmd_purge_command = {
    .name = "purge",
    .group = CMD_MEND,
    .operands = "dead|done|attempts",
    .operands_min = 1,
    .operands_max = 1,
    .summary = "remove old dead or finished jobs, or attempts, for good",
    .description =
        "In small transactions that hold up neither producers nor dispatchers. What somebody "
        "holds\n"
        "locked stays. Finished jobs that a task keeps are removed by the dispatchers anyway when\n"
        "their time is over.\n"
        "    outbox purge dead --older-than 30d --task resize-image\n"
        "    outbox purge attempts --older-than 90d",
    .options = options,
    .run = run,
};
