/* show.c - `outbox show ID`: everything about one job: fields, attempts with output, payload. */
#include "cmd/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/payload.h"
#include "cmd/jout.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "db/admin.h"

static const struct cmd_option options[] = {
    {"payload", 'p', "raw|json", "print only the payload: its stored bytes, or as JSON"},
    CMD_OPTION_JSON,
    CMD_OPTION_DATABASE,
    CMD_OPTION_CONFIG,
    CMD_OPTIONS_END,
};

enum { PAYLOAD_JSON_MAX = 256 * 1024 * 1024 };

struct shown {
    struct admin_rows *job;
    struct admin_rows *attempts;
    struct admin_rows *payload;
    bool payload_refused;                /* the role may not read payloads */
    struct buf json;                     /* the payload as JSON */
    char json_error[PAYLOAD_ERROR_SIZE]; /* why json is empty; "" when it is not */
};

/* The payload as JSON: as it is, or converted. */
static void convert(struct shown *s)
{
    const char *encoding = admin_text(s->job, 0, JOB_ENCODING);
    const char *bytes = s->payload != NULL ? admin_text(s->payload, 0, 0) : NULL;
    if (bytes == NULL) {
        (void)snprintf(s->json_error, sizeof s->json_error, "%s",
                       s->payload_refused ? "you may not read payloads" : "the job is gone by now");
        return;
    }
    size_t len = admin_length(s->payload, 0, 0);
    int err;
    if (encoding != NULL && strcmp(encoding, "msgpack") == 0) {
        err = payload_msgpack_to_json(bytes, len, &s->json, s->json_error);
    } else {
        err = payload_check_json(bytes, len, s->json_error);
        if (err == 0)
            buf_append(&s->json, bytes, len);
    }
    if (err == 0)
        s->json_error[0] = '\0';
    else if (s->json_error[0] == '\0')
        (void)snprintf(s->json_error, sizeof s->json_error, "%s", ob_strerror(err));
}

/* 0, or an exit code after a message. */
static int fetch(const struct cmd_args *args, struct admin *admin, int64_t id, struct shown *s)
{
    struct admin_error error;
    if (admin_job_by_id(admin, id, &s->job, &error) != 0)
        return cmd_db_failed(args, admin, &error);
    if (admin_count(s->job) == 0) {
        cmd_error(args,
                  "there is no job %" PRId64
                  ": it is done and was deleted, was cancelled, or never was",
                  id);
        return OB_EXIT_FAILED;
    }
    if (admin_attempts(admin, id, &s->attempts, &error) != 0)
        return cmd_db_failed(args, admin, &error);
    if (admin_payload(admin, id, &s->payload, &error) != 0) {
        s->payload_refused = error.err == OB_EPRIVILEGE;
        if (!s->payload_refused || cmd_has(args, "payload"))
            return cmd_db_failed(args, admin, &error);
    }
    convert(s);
    return 0;
}

static int print_payload_only(const struct cmd_args *args, const struct shown *s, bool raw)
{
    const char *bytes = admin_text(s->payload, 0, 0);
    if (bytes == NULL || (!raw && s->json_error[0] != '\0')) {
        cmd_error(args, "no payload to show as %s: %s", raw ? "bytes" : "JSON", s->json_error);
        return OB_EXIT_FAILED;
    }
    if (raw) {
        (void)fwrite(bytes, 1, admin_length(s->payload, 0, 0), stdout);
    } else {
        (void)fwrite(s->json.data, 1, s->json.len, stdout);
        (void)fputc('\n', stdout);
    }
    return OB_EXIT_OK;
}

static void attempt_json(struct jout *j, const struct admin_rows *rows, size_t i)
{
    jout_open_object(j, NULL);
    print_number(j, "attempt", rows, i, ATTEMPT_NUMBER);
    jout_str(j, "started_at", admin_text(rows, i, ATTEMPT_STARTED_AT));
    print_number(j, "duration_ms", rows, i, ATTEMPT_DURATION_MS);
    jout_str(j, "outcome", admin_text(rows, i, ATTEMPT_OUTCOME));
    jout_str(j, "reason", admin_text(rows, i, ATTEMPT_REASON));
    print_number(j, "exit_code", rows, i, ATTEMPT_EXIT_CODE);
    print_number(j, "signal", rows, i, ATTEMPT_SIGNAL);
    print_number(j, "http_status", rows, i, ATTEMPT_HTTP_STATUS);
    static const struct {
        const char *key;
        int column;
    } outputs[] = {{"output_head", ATTEMPT_OUTPUT_HEAD}, {"output_tail", ATTEMPT_OUTPUT_TAIL}};
    for (size_t k = 0; k < 2; k++) {
        const char *text = admin_text(rows, i, outputs[k].column);
        if (text != NULL)
            jout_bytes(j, outputs[k].key, text, admin_length(rows, i, outputs[k].column));
        else
            jout_null(j, outputs[k].key);
    }
    print_number(j, "output_bytes", rows, i, ATTEMPT_OUTPUT_BYTES);
    jout_str(j, "dispatcher", admin_text(rows, i, ATTEMPT_DISPATCHER));
    jout_close(j);
}

static void print_json(const struct shown *s)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_object(&j, NULL);
    print_job_json(&j, s->job, 0);
    jout_raw(&j, "payload", s->json_error[0] == '\0' ? s->json.data : NULL);
    if (s->json_error[0] != '\0')
        jout_str(&j, "payload_error", s->json_error);
    jout_open_array(&j, "attempts_log");
    for (size_t i = 0; i < admin_count(s->attempts); i++)
        attempt_json(&j, s->attempts, i);
    jout_close(&j);
    jout_close(&j);
    jout_end(&j);
}

static void field(const char *name, const char *value)
{
    if (value == NULL)
        return;
    struct buf b;
    buf_init(&b, 1024 * 1024);
    table_escape(&b, value, strlen(value));
    const char *colour = strcmp(name, "state") == 0 ? table_colour(value) : "";
    (void)printf("%-13s %s%s%s\n", name, colour, b.data != NULL ? b.data : "",
                 colour[0] != '\0' ? table_colour_off() : "");
    buf_deinit(&b);
}

/* A time with how far from now it is: "2026-01-02T... (3m 20s ago)". */
static void time_field(const char *name, const char *at, int64_t ago_ms)
{
    char text[128];
    char span[CLOCK_DURATION_SIZE];
    if (at == NULL)
        return;
    if (ago_ms >= 0)
        (void)snprintf(text, sizeof text, "%s (%s ago)", at, print_span(ago_ms, span));
    else
        (void)snprintf(text, sizeof text, "%s (in %s)", at, print_span(-ago_ms, span));
    field(name, text);
}

static void print_fields(const struct admin_rows *r)
{
    field("id", admin_text(r, 0, JOB_ID));
    field("task", admin_text(r, 0, JOB_TASK));
    field("state", admin_text(r, 0, JOB_STATE));
    if (admin_bool(r, 0, JOB_CANCELLING))
        field("cancelling", "its dispatcher has been told to end it");
    if (admin_bool(r, 0, JOB_PAUSED))
        field("paused", "its task is; see `outbox pause`");
    field("reason", admin_text(r, 0, JOB_REASON));
    field("priority", admin_text(r, 0, JOB_PRIORITY));
    field("key", admin_text(r, 0, JOB_KEY));
    field("attempts", admin_text(r, 0, JOB_ATTEMPTS));
    field("max attempts", admin_text(r, 0, JOB_MAX_ATTEMPTS));
    if (admin_int(r, 0, JOB_LOST, 0) > 0)
        field("lost", admin_text(r, 0, JOB_LOST));
    time_field("created", admin_text(r, 0, JOB_CREATED_AT), admin_int(r, 0, JOB_AGE_MS, 0));
    time_field("run at", admin_text(r, 0, JOB_RUN_AT), -admin_int(r, 0, JOB_RUN_IN_MS, 0));
    field("expires", admin_text(r, 0, JOB_EXPIRES_AT));
    field("finished", admin_text(r, 0, JOB_FINISHED_AT));
    field("dispatcher", admin_text(r, 0, JOB_DISPATCHER));
    field("headers", admin_text(r, 0, JOB_HEADERS));
}

/* "attempt 2     2026-01-02T..., retry after 12ms: exit 3"; what is not known is left out. */
static void print_attempt_line(const struct admin_rows *rows, size_t i)
{
    const char *reason = admin_text(rows, i, ATTEMPT_REASON);
    const char *started = admin_text(rows, i, ATTEMPT_STARTED_AT);
    int64_t duration_ms = admin_int(rows, i, ATTEMPT_DURATION_MS, -1);
    char span[CLOCK_DURATION_SIZE];
    struct buf line;
    buf_init(&line, 64 * 1024);
    buf_printf(&line, "attempt %-5s ", admin_text(rows, i, ATTEMPT_NUMBER));
    if (started != NULL)
        buf_printf(&line, "%s, ", started);
    buf_puts(&line, admin_text(rows, i, ATTEMPT_OUTCOME));
    if (duration_ms >= 0)
        buf_printf(&line, " after %s", print_span(duration_ms, span));
    if (reason != NULL && reason[0] != '\0') {
        buf_puts(&line, ": ");
        table_escape(&line, reason, strlen(reason));
    }
    (void)printf("%s\n", line.data);
    buf_deinit(&line);
}

static void print_attempts(const struct admin_rows *rows)
{
    for (size_t i = 0; i < admin_count(rows); i++) {
        print_attempt_line(rows, i);
        print_output(
            admin_text(rows, i, ATTEMPT_OUTPUT_HEAD), admin_length(rows, i, ATTEMPT_OUTPUT_HEAD),
            admin_text(rows, i, ATTEMPT_OUTPUT_TAIL), admin_length(rows, i, ATTEMPT_OUTPUT_TAIL),
            (uint64_t)admin_int(rows, i, ATTEMPT_OUTPUT_BYTES, 0));
    }
}

static void print_human(const struct shown *s)
{
    print_fields(s->job);
    print_attempts(s->attempts);
    char size[64];
    (void)snprintf(size, sizeof size, "%s bytes of %s", admin_text(s->job, 0, JOB_PAYLOAD_SIZE),
                   admin_text(s->job, 0, JOB_ENCODING));
    field("payload", size);
    if (s->json_error[0] != '\0') {
        (void)printf("    (%s)\n", s->json_error);
        return;
    }
    struct buf b;
    buf_init(&b, PAYLOAD_JSON_MAX);
    table_escape_lines(&b, s->json.data, s->json.len);
    (void)printf("%s\n", b.data != NULL ? b.data : "");
    buf_deinit(&b);
}

static int run(const struct cmd_args *args)
{
    int64_t id = 0;
    const char *payload = cmd_value(args, "payload");
    int code = cmd_id_operand(args, 0, &id);
    if (code != 0)
        return code;
    if (payload != NULL && strcmp(payload, "raw") != 0 && strcmp(payload, "json") != 0)
        return cmd_usage(args, "--payload \"%s\": expected raw or json", payload);
    if (payload != NULL && cmd_has(args, "json"))
        return cmd_usage(args, "--payload prints only the payload: it does not go with --json");
    struct admin *admin = NULL;
    code = cmd_connect_schema(args, &admin);
    if (code != 0)
        return code;
    struct shown s;
    memset(&s, 0, sizeof s);
    buf_init(&s.json, PAYLOAD_JSON_MAX);
    code = fetch(args, admin, id, &s);
    if (code == 0 && payload != NULL)
        code = print_payload_only(args, &s, strcmp(payload, "raw") == 0);
    else if (code == 0 && cmd_has(args, "json"))
        print_json(&s);
    else if (code == 0)
        print_human(&s);
    buf_deinit(&s.json);
    admin_rows_free(s.job);
    admin_rows_free(s.attempts);
    admin_rows_free(s.payload);
    admin_close(admin);
    return code;
}

const struct command cmd_show_command = {
    .name = "show",
    .group = CMD_LOOK,
    .operands = "ID",
    .operands_min = 1,
    .operands_max = 1,
    .summary = "show one job: its fields, attempts with output, and payload",
    .description = "Live and dead jobs, and done ones while they are kept. A msgpack payload is "
                   "shown as JSON.",
    .options = options,
    .run = run,
};
