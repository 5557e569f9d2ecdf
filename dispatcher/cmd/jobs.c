/* jobs.c - `outbox jobs`: lists or counts jobs. */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cmd/input.h"
#include "cmd/jout.h"
#include "cmd/print.h"
#include "cmd/suggest.h"
#include "cmd/table.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    {"task", 't', "TASK", "only of this task; repeatable, or a,b"},
    {"state", 's', "STATE", "ready, scheduled, waiting, running, dead or done; repeatable"},
    {"key", 'k', "KEY", "only with this key"},
    {"before", '\0', "TIME", "created before this time"},
    {"after", '\0', "TIME", "created at this time or later"},
    {"min-age", '\0', "DURATION", "created at least so long ago: 30s, 5m, 2h, 7d"},
    {"error", 'e', "TEXT", "only dead ones with this text in their reason, in any case"},
    {"older-than", 'o', "DURATION", "only dead or done ones that ended so long ago"},
    {"newer-than", '\0', "DURATION", "only dead or done ones that ended since"},
    {"limit", 'n', "N", "at most so many, the newest (default 50; 0: all)"},
    {"count", '\0', NULL, "print only how many there are; of many, an estimate (~)"},
    {"exact", 'x', NULL, "with --count: count every row, however many there are"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

enum { LIMIT_DEFAULT = 50, FILTER_TEXT_MAX = 64 * 1024 };

static const char *const states[] = {"ready", "scheduled", "waiting", "running", "dead", "done"};

/* Every word of every --state must be a state. */
static int check_states(const struct cmd_args *args)
{
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, "state", &pos); v != NULL;
         v = cmd_next_value(args, "state", &pos)) {
        for (bool more = true; more;) {
            char word[32];
            size_t len = strcspn(v, ",");
            (void)snprintf(word, sizeof word, "%.*s", (int)len, v);
            bool known = false;
            for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
                known = known || (strlen(states[i]) == len && memcmp(states[i], v, len) == 0);
            const char *near = suggest_name(word, states, sizeof states / sizeof states[0]);
            if (!known && near != NULL)
                return cmd_usage(args, "--state \"%s\" is no state (did you mean %s?)", word, near);
            if (!known)
                return cmd_usage(
                    args,
                    "--state \"%s\": expected ready, scheduled, waiting, running, dead or done",
                    word);
            more = v[len] == ',';
            v += len + (more ? 1 : 0);
        }
    }
    return 0;
}

/* Every word of every --task must be a task's name: another one can have no jobs. */
static int check_tasks(const struct cmd_args *args)
{
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, "task", &pos); v != NULL;
         v = cmd_next_value(args, "task", &pos)) {
        for (bool more = true; more;) {
            char word[160]; /* a name is shorter: one that is cut is refused all the same */
            size_t len = strcspn(v, ",");
            (void)snprintf(word, sizeof word, "%.*s", (int)len, v);
            int code = input_check_task(args, word);
            if (code != 0)
                return code;
            more = v[len] == ',';
            v += len + (more ? 1 : 0);
        }
    }
    return 0;
}

static int read_filter(const struct cmd_args *args, struct buf *tasks, struct buf *state_list,
                       struct admin_filter *f)
{
    int code = check_states(args);
    if (code == 0 && cmd_has(args, "exact") && !cmd_has(args, "count"))
        code = cmd_usage(args, "--exact goes with --count");
    if (code == 0)
        code = check_tasks(args);
    f->tasks = input_array(args, "task", tasks);
    f->states = input_array(args, "state", state_list);
    f->key = cmd_value(args, "key");
    f->limit = LIMIT_DEFAULT;
    if (code == 0)
        code = cmd_int_value(args, "limit", 0, 1000000000, &f->limit);
    if (code == 0)
        code = cmd_time_value(args, "before", &f->before_us);
    if (code == 0)
        code = cmd_time_value(args, "after", &f->after_us);
    if (code == 0)
        code = cmd_duration_value(args, "min-age", &f->min_age_ms);
    return code == 0 ? input_ended(args, f) : code;
}

/* What a person wants to know beside the state: when it is due, why it died, who runs it. */
static void note_cell(struct table *t, const struct admin_rows *rows, size_t row)
{
    char text[CLOCK_DURATION_SIZE];
    const char *state = admin_text(rows, row, JOB_STATE);
    const char *reason = admin_text(rows, row, JOB_REASON);
    const char *dispatcher = admin_text(rows, row, JOB_DISPATCHER);
    if (strcmp(state, "scheduled") == 0) {
        int64_t in_ms = admin_int(rows, row, JOB_RUN_IN_MS, 0);
        if (in_ms > 0)
            table_cellf(t, "due in %s", print_span(in_ms, text));
        else
            table_cell(t, admin_bool(rows, row, JOB_PAUSED) ? "due now, paused" : "due now");
    } else if (strcmp(state, "running") == 0 && dispatcher != NULL) {
        table_cellf(t, admin_bool(rows, row, JOB_CANCELLING) ? "cancelling on %s" : "on %s",
                    dispatcher);
    } else if (admin_bool(rows, row, JOB_PAUSED)) {
        table_cell(t, "paused");
    } else {
        table_cell(t, reason);
    }
}

static void print_rows(const struct admin_rows *rows, size_t count)
{
    static const char *const headers[] = {">ID",    "TASK", "STATE", ">PRI",
                                          ">TRIES", ">AGE", "KEY",   "NOTE"};
    struct table *t = table_new(headers, sizeof headers / sizeof headers[0]);
    char text[CLOCK_DURATION_SIZE];
    for (size_t i = 0; i < count; i++) {
        table_cell(t, admin_text(rows, i, JOB_ID));
        table_cell(t, admin_text(rows, i, JOB_TASK));
        table_cell(t, admin_text(rows, i, JOB_STATE));
        table_cell(t, admin_text(rows, i, JOB_PRIORITY));
        table_cell(t, admin_text(rows, i, JOB_ATTEMPTS));
        table_cell(t, print_span(admin_int(rows, i, JOB_AGE_MS, 0), text));
        table_cell(t, admin_text(rows, i, JOB_KEY));
        note_cell(t, rows, i);
    }
    table_print(t, stdout);
    table_free(t);
}

static void print_json(const struct admin_rows *rows, size_t count)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_array(&j, NULL);
    for (size_t i = 0; i < count; i++) {
        jout_open_object(&j, NULL);
        print_job_json(&j, rows, i);
        jout_close(&j);
    }
    jout_close(&j);
    jout_end(&j);
}

static int list(const struct cmd_args *args, struct admin *admin, struct admin_filter *filter)
{
    struct admin_rows *rows = NULL;
    struct admin_error error;
    int64_t limit = filter->limit;
    filter->limit = limit > 0 ? limit + 1 : 0; /* one more tells that there is more */
    if (admin_jobs(admin, filter, &rows, &error) != 0)
        return cmd_db_failed(args, admin, &error);
    size_t count = admin_count(rows);
    bool more = limit > 0 && count > (size_t)limit;
    if (more)
        count = (size_t)limit;
    if (cmd_has(args, "json"))
        print_json(rows, count);
    else if (count > 0)
        print_rows(rows, count);
    else
        (void)fprintf(stderr, "no such jobs\n");
    (void)fflush(stdout);
    if (more)
        (void)fprintf(stderr, "there are more: --limit 0 lists all, --count counts them\n");
    admin_rows_free(rows);
    return OB_EXIT_OK;
}

static int count_jobs(const struct cmd_args *args, struct admin *admin,
                      const struct admin_filter *filter)
{
    int64_t count = 0;
    bool is_estimate = false;
    struct admin_error error;
    int err = cmd_has(args, "exact")
                  ? admin_jobs_count(admin, filter, &count, &error)
                  : admin_jobs_estimate(admin, filter, &count, &is_estimate, &error);
    if (err != 0)
        return cmd_db_failed(args, admin, &error);
    if (cmd_has(args, "json"))
        (void)printf("{\"count\": %" PRId64 ", \"estimated\": %s}\n", count,
                     is_estimate ? "true" : "false");
    else
        (void)printf("%s%" PRId64 "\n", is_estimate ? "~" : "", count);
    return OB_EXIT_OK;
}

static int run(const struct cmd_args *args)
{
    struct admin_filter filter;
    memset(&filter, 0, sizeof filter);
    struct buf tasks;
    struct buf state_list;
    buf_init(&tasks, FILTER_TEXT_MAX);
    buf_init(&state_list, FILTER_TEXT_MAX);
    struct admin *admin = NULL;
    int code = read_filter(args, &tasks, &state_list, &filter);
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0)
        code =
            cmd_has(args, "count") ? count_jobs(args, admin, &filter) : list(args, admin, &filter);
    admin_close(admin);
    buf_deinit(&tasks);
    buf_deinit(&state_list);
    return code;
}

const struct command cmd_jobs_command = {
    .name = "jobs",
    .group = CMD_LOOK,
    .operands = "",
    .summary = "list jobs by task, state, key or age, or count them",
    .description =
        "The newest first. Looking locks nothing and disturbs nobody. Of more than 10,000,\n"
        "--count makes an estimate, with a ~, unless --exact is given.",
    .options = options,
    .run = run,
};
