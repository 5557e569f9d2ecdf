/* print.c - see print.h. */
#include "cmd/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cmd/table.h"

const char *print_span(int64_t ms, char text[CLOCK_DURATION_SIZE])
{
    if (ms < 0)
        return "-";
    clock_duration((uint64_t)ms, text);
    return text;
}

void print_number(struct jout *j, const char *key, const struct admin_rows *rows, size_t row,
                  int column)
{
    jout_raw(j, key, admin_text(rows, row, column));
}

void print_job_json(struct jout *j, const struct admin_rows *rows, size_t row)
{
    print_number(j, "id", rows, row, JOB_ID);
    jout_str(j, "task", admin_text(rows, row, JOB_TASK));
    jout_str(j, "state", admin_text(rows, row, JOB_STATE));
    print_number(j, "priority", rows, row, JOB_PRIORITY);
    jout_str(j, "key", admin_text(rows, row, JOB_KEY));
    jout_str(j, "run_at", admin_text(rows, row, JOB_RUN_AT));
    jout_str(j, "expires_at", admin_text(rows, row, JOB_EXPIRES_AT));
    print_number(j, "attempts", rows, row, JOB_ATTEMPTS);
    print_number(j, "max_attempts", rows, row, JOB_MAX_ATTEMPTS);
    print_number(j, "lost", rows, row, JOB_LOST);
    jout_str(j, "created_at", admin_text(rows, row, JOB_CREATED_AT));
    jout_str(j, "finished_at", admin_text(rows, row, JOB_FINISHED_AT));
    jout_str(j, "reason", admin_text(rows, row, JOB_REASON));
    jout_str(j, "encoding", admin_text(rows, row, JOB_ENCODING));
    print_number(j, "payload_size", rows, row, JOB_PAYLOAD_SIZE);
    /* A string: 63 random bits, more than a JSON reader's doubles hold. */
    jout_str(j, "owner", admin_text(rows, row, JOB_OWNER));
    jout_str(j, "dispatcher", admin_text(rows, row, JOB_DISPATCHER));
    print_number(j, "headers", rows, row, JOB_HEADERS);
    jout_bool(j, "cancelling", admin_bool(rows, row, JOB_CANCELLING));
    jout_bool(j, "paused", admin_bool(rows, row, JOB_PAUSED));
}

static void print_lines(const struct buf *text)
{
    const char *line = text->data != NULL ? text->data : "";
    while (*line != '\0') {
        size_t n = strcspn(line, "\n");
        (void)printf("    | %.*s\n", (int)n, line);
        line += n + (line[n] == '\n' ? 1 : 0);
    }
}

void print_output(const char *head, size_t head_len, const char *tail, size_t tail_len,
                  uint64_t total)
{
    struct buf b;
    buf_init(&b, SIZE_MAX / 2);
    if (head_len > 0)
        table_escape_lines(&b, head, head_len);
    if (total > head_len + tail_len) {
        print_lines(&b);
        (void)printf("    ... %" PRIu64 " bytes left out ...\n", total - head_len - tail_len);
        buf_clear(&b);
    }
    if (tail_len > 0)
        table_escape_lines(&b, tail, tail_len);
    print_lines(&b);
    buf_deinit(&b);
}
