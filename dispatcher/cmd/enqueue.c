/* enqueue.c - `outbox enqueue`: one job, in a transaction of its own; or a file of them (load.h).
 */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cmd/input.h"
#include "cmd/jout.h"
#include "cmd/load.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    {"file", 'f', "FILE",
     "a job a line, each a JSON object {\"task\": ..., \"payload\": ...};\n\"-\": standard input"},
    {"batch", '\0', "N", "with --file: commit every N jobs (default: all or nothing)"},
    {"dry-run", 'n', NULL, "with --file: check every line, without a database"},
    {"quiet", 'q', NULL, "with --file: no progress bar, no last line"},
    {"priority", 'p', "1-4", "1 first, 4 last (default 2)"},
    {"delay", '\0', "DURATION", "not before so long from now: 30s, 5m, 2h, 7d"},
    {"run-at", '\0', "TIME",
     "not before this time: 2026-01-31T08:30:00Z, or local\n"
     "\"2026-01-31 08:30\""},
    {"expires-at", '\0', "TIME", "dead instead of run from this time on"},
    {"max-attempts", '\0', "N", "dead after so many failed attempts (default: the task's)"},
    {"key", 'k', "KEY", "jobs of one task and key run one at a time, in order"},
    {"unique-key", 'u', "KEY", "no second job of the task while one with this key waits"},
    {"header", 'H', "NAME=VALUE", "a header, handed to the handler; repeatable"},
    {"repeat-every", '\0', "DURATION", "again, so long after each success"},
    {"after", '\0', "ID", "only after this job is done; repeatable"},
    {"on-failed-dependency", '\0', "WHAT", "when that job is dead: dead (default) or run"},
    {"notify-done", '\0', NULL, "NOTIFY outbox_done when it has ended"},
    {"msgpack", '\0', NULL, "standard input holds msgpack instead of JSON"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

enum { TEXT_SIZE = 40 };

/* Memory behind the texts of a struct admin_job. */
struct texts {
    struct buf headers;
    struct buf after;
    char priority[TEXT_SIZE];
    char max_attempts[TEXT_SIZE];
    char delay[TEXT_SIZE];
    char repeat[TEXT_SIZE];
    char run_at[CLOCK_RFC3339_SIZE];
    char expires_at[CLOCK_RFC3339_SIZE];
};

static int number(const struct cmd_args *args, const char *name, int64_t max, char *text,
                  const char **ret)
{
    int64_t n = 0;
    int code = cmd_int_value(args, name, 1, max, &n);
    if (code != 0 || n == 0)
        return code;
    (void)snprintf(text, TEXT_SIZE, "%" PRId64, n);
    *ret = text;
    return 0;
}

static int duration(const struct cmd_args *args, const char *name, char *text, const char **ret)
{
    uint64_t ms = 0;
    int code = cmd_duration_value(args, name, &ms);
    if (code != 0 || !cmd_has(args, name))
        return code;
    (void)snprintf(text, TEXT_SIZE, "%" PRIu64 " milliseconds", ms);
    *ret = text;
    return 0;
}

static int moment(const struct cmd_args *args, const char *name, char *text, const char **ret)
{
    int64_t us = 0;
    int code = cmd_time_value(args, name, &us);
    if (code != 0 || !cmd_has(args, name))
        return code;
    clock_rfc3339(us, 6, text);
    *ret = text;
    return 0;
}

/* Every --after must be a job's id. */
static int check_after(const struct cmd_args *args)
{
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, "after", &pos); v != NULL;
         v = cmd_next_value(args, "after", &pos)) {
        if (v[0] == '\0' || v[strspn(v, "0123456789,")] != '\0' || strlen(v) > 200)
            return cmd_usage(args, "--after \"%s\": expected a job's id", v);
    }
    return 0;
}

/* Everything but the payload, from the options. */
static int read_options(const struct cmd_args *args, struct texts *t, struct admin_job *job)
{
    job->task = args->operands_count > 0 ? args->operands[0] : NULL;
    job->key = cmd_value(args, "key");
    job->unique_key = cmd_value(args, "unique-key");
    job->on_failed_dependency = cmd_value(args, "on-failed-dependency");
    job->notify_done = cmd_has(args, "notify-done") ? "true" : NULL;
    job->encoding = cmd_has(args, "msgpack") ? "msgpack" : "json";
    job->after = input_array(args, "after", &t->after);
    if (cmd_has(args, "delay") && cmd_has(args, "run-at"))
        return cmd_usage(args, "--delay and --run-at say the same thing twice: give one of them");
    int code = job->task != NULL ? input_check_task(args, job->task) : 0;
    if (code == 0)
        code = check_after(args);
    if (code == 0)
        code = number(args, "priority", 4, t->priority, &job->priority);
    if (code == 0)
        code = number(args, "max-attempts", 32767, t->max_attempts, &job->max_attempts);
    if (code == 0)
        code = duration(args, "delay", t->delay, &job->delay);
    if (code == 0)
        code = duration(args, "repeat-every", t->repeat, &job->repeat_every);
    if (code == 0)
        code = moment(args, "run-at", t->run_at, &job->run_at);
    if (code == 0)
        code = moment(args, "expires-at", t->expires_at, &job->expires_at);
    if (code == 0)
        code = input_headers(args, &t->headers, &job->headers);
    return code;
}

static int enqueue(const struct cmd_args *args, const struct admin_job *job)
{
    struct admin *admin = NULL;
    struct admin_error error;
    int64_t id = 0;
    bool existing = false;
    int code = cmd_connect_schema(args, &admin);
    if (code != 0)
        return code;
    int err = admin_enqueue(admin, job, &id, &existing, &error);
    if (err != 0) {
        code = cmd_db_failed(args, admin, &error);
    } else if (cmd_has(args, "json")) {
        struct jout j;
        jout_init(&j, stdout);
        jout_open_object(&j, NULL);
        jout_int(&j, "id", id);
        jout_bool(&j, "existing", existing);
        jout_close(&j);
        jout_end(&j);
    } else {
        (void)printf("%" PRId64 "\n", id);
    }
    admin_close(admin);
    return code;
}

/* Which operands and options go together. */
static int check_form(const struct cmd_args *args)
{
    static const char *const of_file[] = {"batch", "dry-run", "quiet"};
    size_t pos = 0;
    if (cmd_has(args, "file")) {
        (void)cmd_next_value(args, "file", &pos);
        if (cmd_next_value(args, "file", &pos) != NULL)
            return cmd_usage(args, "--file is given twice: one file a command");
        if (args->operands_count > 1)
            return cmd_usage(args, "payloads come from the file: leave \"%s\" out",
                             args->operands[1]);
        if (cmd_has(args, "msgpack"))
            return cmd_usage(args, "--msgpack and --file exclude each other: its lines are JSON");
        return 0;
    }
    if (args->operands_count == 0)
        return cmd_usage(args, "something is missing: usage is `outbox enqueue TASK [JSON|-]` or "
                               "`outbox enqueue [TASK] --file FILE`");
    for (size_t i = 0; i < sizeof of_file / sizeof of_file[0]; i++) {
        if (cmd_has(args, of_file[i]))
            return cmd_usage(args, "--%s needs --file", of_file[i]);
    }
    return 0;
}

static int enqueue_one(const struct cmd_args *args, struct admin_job *job)
{
    struct buf payload;
    buf_init(&payload, 0);
    int code = input_payload(args, args->operands_count > 1 ? args->operands[1] : NULL,
                             cmd_has(args, "msgpack"), &payload);
    if (code == 0) {
        job->payload = payload.data;
        job->payload_len = payload.len;
        code = enqueue(args, job);
    }
    buf_deinit(&payload);
    return code;
}

static int run(const struct cmd_args *args)
{
    struct texts t;
    memset(&t, 0, sizeof t);
    buf_init(&t.headers, 64 * 1024);
    buf_init(&t.after, 64 * 1024);
    struct admin_job job;
    memset(&job, 0, sizeof job);
    int code = check_form(args);
    if (code == 0)
        code = read_options(args, &t, &job);
    if (code == 0)
        code = cmd_has(args, "file") ? load_file(args, &job) : enqueue_one(args, &job);
    buf_deinit(&t.headers);
    buf_deinit(&t.after);
    return code;
}

const struct command cmd_enqueue_command = {
    .name = "enqueue",
    .group = CMD_ENQUEUE,
    .operands = "TASK [JSON|-]",
    .operands_min = 0,
    .operands_max = 2,
    .summary = "put a job under TASK, or those of a file, and print ids",
    .description =
        "       outbox enqueue [OPTION...] [TASK] --file FILE\n"
        "\n"
        "The payload is the JSON given, or what standard input holds when it is \"-\" or "
        "something\n"
        "is piped in, or {}. Applications enqueue inside their own transactions instead: with\n"
        "<outbox/outbox.h>, or SELECT outbox.enqueue('task', '{\"id\": 7}').\n"
        "\n"
        "A file holds a job a line, with the names of outbox.enqueue's options. TASK and the "
        "options\n"
        "below are for lines that do not say it themselves. All jobs are enqueued, or none.",
    .options = options,
    .run = run,
};
