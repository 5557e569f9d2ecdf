/* retry.c - `outbox retry`: dead jobs are jobs again; scheduled ones run now. */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/input.h"
#include "cmd/mend.h"
#include "cmd/progress.h"
#include "db/admin_ids.h"

static const struct cmd_option options[] = {
    {"task", 't', "TASK", "with --all: only dead jobs of this task"},
    {"error", 'e', "TEXT", "with --all: only with this text in their reason, in any case"},
    {"older-than", 'o', "DURATION", "with --all: only those that died so long ago"},
    {"newer-than", '\0', "DURATION", "with --all: only those that died since"},
    {"all", 'a', NULL, "every dead job that there is now"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

static bool is_failure(const char *answer)
{
    return strcmp(answer, "not found") == 0;
}

static const char *explain(const char *answer)
{
    if (strcmp(answer, "ready") == 0)
        return "ready already";
    if (strcmp(answer, "waiting") == 0)
        return "waiting for another job";
    if (strcmp(answer, "exists") == 0)
        return "not retried: a job with its unique key waits";
    return strcmp(answer, "running") == 0 ? "running already" : answer;
}

struct sweep {
    int64_t retried;
    int64_t others; /* gone or revived by somebody else meanwhile */
};

static size_t read_ids(const struct admin_rows *rows, int64_t *ids)
{
    size_t count = admin_count(rows);
    for (size_t i = 0; i < count; i++)
        ids[i] = admin_int(rows, i, 0, 0);
    return count;
}

/* By id upwards, in portions: a job that dies again meanwhile is not taken a second time. */
static int sweep_dead(struct admin *admin, const struct admin_filter *filter, struct progress *p,
                      struct sweep *s, struct admin_error *error)
{
    int64_t last = 0;
    for (;;) {
        int64_t ids[ADMIN_IDS_MAX];
        struct admin_rows *rows = NULL;
        int err = admin_ids(admin, filter, NULL, last, &rows, error);
        if (err != 0)
            return err;
        size_t count = read_ids(rows, ids);
        admin_rows_free(rows);
        if (count == 0)
            return 0;
        last = ids[count - 1];
        rows = NULL;
        err = admin_answer(admin, ADMIN_RETRY, ids, count, &rows, error);
        if (err != 0)
            return err;
        for (size_t i = 0; i < admin_count(rows); i++) {
            const char *answer = admin_text(rows, i, 1);
            bool retried = answer != NULL && strcmp(answer, "retried") == 0;
            *(retried ? &s->retried : &s->others) += 1;
        }
        admin_rows_free(rows);
        progress_update(p, s->retried + s->others);
    }
}

static int retry_all(const struct cmd_args *args, const char *task)
{
    struct admin *admin = NULL;
    struct admin_error error;
    char tasks[160];
    (void)snprintf(tasks, sizeof tasks, "{\"%s\"}", task != NULL ? task : "");
    struct admin_filter filter = {.states = "{dead}", .tasks = task != NULL ? tasks : NULL};
    int code = task != NULL ? input_check_task(args, task) : 0;
    if (code == 0)
        code = input_ended(args, &filter);
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code != 0)
        return code;
    int64_t total = 0;
    struct sweep s = {0, 0};
    int err = admin_jobs_count(admin, &filter, &total, &error);
    if (err == 0) {
        struct progress p;
        progress_init(&p, total);
        err = sweep_dead(admin, &filter, &p, &s, &error);
        progress_end(&p);
    }
    if (cmd_has(args, "json"))
        (void)printf("{\"retried\": %" PRId64 "}\n", s.retried);
    else if (err == 0 || s.retried > 0)
        (void)printf("%" PRId64 " retried\n", s.retried);
    if (err != 0)
        code = cmd_db_failed(args, admin, &error);
    admin_close(admin);
    return code;
}

static int run(const struct cmd_args *args)
{
    const char *task = cmd_value(args, "task");
    bool all = cmd_has(args, "all");
    if (all && args->operands_count > 0)
        return cmd_usage(args, "give ids, or --all, not both");
    if (!all && task != NULL)
        return cmd_usage(args, "--task needs --all: every dead job of the task is retried");
    if (!all &&
        (cmd_has(args, "error") || cmd_has(args, "older-than") || cmd_has(args, "newer-than")))
        return cmd_usage(args, "--error, --older-than and --newer-than need --all");
    if (!all && args->operands_count == 0)
        return cmd_usage(args, "say which: ids, or --task TASK --all");
    const struct mend_how how = {.verb = ADMIN_RETRY, .is_failure = is_failure, .explain = explain};
    return all ? retry_all(args, task) : mend_operands(args, &how);
}

const struct command cmd_retry_command = {
    .name = "retry",
    .group = CMD_MEND,
    .operands = "[ID...]",
    .operands_min = 0,
    .operands_max = -1,
    .summary = "run dead jobs again, scheduled ones now",
    .description =
        "A dead job becomes a job again, with its id; a scheduled one runs now. Its failures are\n"
        "forgotten: it has all its attempts before it. Says for each what became of it, and exits\n"
        "with 1 if any was not found.\n"
        "    outbox retry 17 18\n"
        "    outbox retry --task resize-image --all\n"
        "    outbox retry --all --error 'HTTP 503' --newer-than 2h",
    .options = options,
    .run = run,
};
