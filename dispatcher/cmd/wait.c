/* wait.c - `outbox wait ID...`: until jobs have ended. */
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cmd/jout.h"
#include "cmd/progress.h"
#include "db/admin_wait.h"

static const struct cmd_option options[] = {
    {"timeout", 't', "DURATION", "at most so long: 30s, 5m, 2h; 0s looks once (default: for ever)"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

struct waiting {
    struct progress progress;
    size_t count;
};

static void on_look(void *arg, size_t left)
{
    struct waiting *w = arg;
    progress_update(&w->progress, (int64_t)(w->count - left));
}

static const char *explain(const char *name)
{
    if (strcmp(name, "live") == 0)
        return "not ended";
    if (strcmp(name, "gone") == 0)
        return "gone: done, or cancelled";
    if (strcmp(name, "merged") == 0)
        return "merged into a newer job with its unique key";
    return strcmp(name, "unknown") == 0 ? "there is no such job" : name;
}

static void print_json(const int64_t *ids, const char *const *names, size_t count)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_array(&j, NULL);
    for (size_t i = 0; i < count; i++) {
        jout_open_object(&j, NULL);
        jout_int(&j, "id", ids[i]);
        jout_str(&j, "state", names[i]);
        jout_close(&j);
    }
    jout_close(&j);
    jout_end(&j);
}

/* A failure that is known says more than a wait that was too short. */
static int exit_code_of(const char *const *names, size_t count)
{
    int code = OB_EXIT_OK;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], "live") == 0)
            code = OB_EXIT_TRY_AGAIN;
        else if (strcmp(names[i], "done") != 0 && strcmp(names[i], "gone") != 0)
            return OB_EXIT_FAILED;
    }
    return code;
}

static int wait_for(const struct cmd_args *args, struct admin *admin, const int64_t *ids,
                    size_t count, int64_t timeout_ms)
{
    const char **names = ob_xcalloc(count, sizeof *names);
    struct waiting w = {.count = count};
    struct admin_wait wait = {
        .ids = ids, .count = count, .timeout_ms = timeout_ms, .on_look = on_look, .arg = &w};
    struct admin_error error;
    progress_init(&w.progress, (int64_t)count);
    int err = admin_wait(admin, &wait, names, &error);
    progress_end(&w.progress);
    int code = err != 0 ? cmd_db_failed(args, admin, &error) : exit_code_of(names, count);
    if (err == 0 && cmd_has(args, "json"))
        print_json(ids, names, count);
    for (size_t i = 0; i < count && err == 0 && !cmd_has(args, "json"); i++)
        (void)printf("%lld: %s\n", (long long)ids[i], explain(names[i]));
    ob_free(names);
    return code;
}

static int run(const struct cmd_args *args)
{
    size_t count = (size_t)args->operands_count;
    uint64_t limit_ms = 0;
    int code = cmd_duration_value(args, "timeout", &limit_ms);
    int64_t timeout_ms = cmd_has(args, "timeout") ? (int64_t)limit_ms : ADMIN_WAIT_FOR_EVER;
    int64_t *ids = ob_xcalloc(count, sizeof *ids);
    for (size_t i = 0; i < count && code == 0; i++)
        code = cmd_id_operand(args, (int)i, &ids[i]);
    struct admin *admin = NULL;
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0)
        code = wait_for(args, admin, ids, count, timeout_ms);
    admin_close(admin);
    ob_free(ids);
    return code;
}

const struct command cmd_wait_command = {
    .name = "wait",
    .group = CMD_LOOK,
    .operands = "ID...",
    .operands_min = 1,
    .operands_max = -1,
    .summary = "wait until jobs have ended",
    .description =
        "An attempt that is to be tried again is no end. Says for each job what became of it.\n"
        "Exits with 0 if all are done, 1 if any is dead, cancelled or was never there, and 75\n"
        "if the time was up before. The row of a job that is done leaves, unless its task keeps\n"
        "it: `gone` counts as done. Jobs enqueued with --notify-done are told of at once, others\n"
        "within a second.\n"
        "    outbox wait --timeout 5m $(outbox enqueue --notify-done resize-image '{\"id\": 7}')",
    .options = options,
    .run = run,
};
