/* input.c - see input.h. */
#include "cmd/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/payload.h"
#include "base/utf8.h"
#include "db/admin.h"

int input_check_task(const struct cmd_args *args, const char *task)
{
    if (task_name_is_valid(task))
        return 0;
    return cmd_usage(
        args,
        "\"%s\" is not a task's name: 1 to 128 of A-Z a-z 0-9 . _ : -, beginning with a letter, "
        "a digit or _",
        task);
}

/* Reads standard input to its end. */
static int read_stdin(const struct cmd_args *args, struct buf *out)
{
    char chunk[64 * 1024];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            cmd_error(args, "could not read standard input: %s", strerror(errno));
            return OB_EXIT_FAILED;
        }
        if (n == 0)
            return 0;
        buf_append(out, chunk, (size_t)n);
        if (out->err != 0) {
            cmd_error(args, "the payload is larger than %d MiB", PAYLOAD_BYTES_MAX / 1024 / 1024);
            return OB_EXIT_FAILED;
        }
    }
}

/* Something is piped or redirected into us: not a terminal, not /dev/null, not whatever a service
 * has. */
static bool stdin_has_data(void)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) != 0)
        return false;
    return S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode);
}

static int check(const struct cmd_args *args, bool msgpack, const struct buf *out)
{
    char why[PAYLOAD_ERROR_SIZE] = "";
    int err;
    if (msgpack) {
        struct buf json;
        buf_init(&json, SIZE_MAX / 2);
        err = payload_msgpack_to_json(out->data, out->len, &json, why);
        buf_deinit(&json);
    } else {
        err = payload_check_json(out->data, out->len, why);
    }
    if (err == 0)
        return 0;
    cmd_error(args, "the payload is not valid %s: %s", msgpack ? "msgpack" : "JSON",
              why[0] != '\0' ? why : ob_strerror(err));
    return OB_EXIT_FAILED;
}

int input_payload(const struct cmd_args *args, const char *operand, bool msgpack, struct buf *out)
{
    buf_init(out, PAYLOAD_BYTES_MAX);
    bool from_stdin = operand != NULL ? strcmp(operand, "-") == 0 : stdin_has_data();
    if (from_stdin) {
        int code = read_stdin(args, out);
        if (code != 0)
            return code;
        buf_append(out, "", 0);
        /* A pipe with nothing in it, as in a cron job: the default, unless "-" asked for input. */
        if (out->len == 0 && operand == NULL)
            buf_puts(out, msgpack ? "\x80" : "{}");
    } else if (msgpack && operand != NULL) {
        return cmd_usage(args, "a msgpack payload comes from standard input, as \"-\"");
    } else {
        buf_puts(out, operand != NULL ? operand : msgpack ? "\x80" : "{}");
    }
    if (out->err != 0) {
        cmd_error(args, "the payload: %s", ob_strerror(out->err));
        return OB_EXIT_FAILED;
    }
    return check(args, msgpack, out);
}

void input_array_element(struct buf *out, const char *text)
{
    if (out->len > 1)
        buf_putc(out, ',');
    buf_putc(out, '"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            buf_putc(out, '\\');
        buf_putc(out, *p);
    }
    buf_putc(out, '"');
}

const char *input_array(const struct cmd_args *args, const char *option, struct buf *out)
{
    size_t pos = 0;
    const char *value = cmd_next_value(args, option, &pos);
    if (value == NULL)
        return NULL;
    buf_putc(out, '{');
    for (; value != NULL; value = cmd_next_value(args, option, &pos)) {
        while (*value != '\0') {
            char element[256];
            size_t len = strcspn(value, ",");
            (void)snprintf(element, sizeof element, "%.*s", (int)len, value);
            if (len > 0)
                input_array_element(out, element);
            value += len + (value[len] == ',' ? 1 : 0);
        }
    }
    buf_putc(out, '}');
    return out->data;
}

static bool is_utf8(const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        size_t len = utf8_sequence(text, n);
        if (len == 0)
            return false;
        text += len;
        n -= len;
    }
    return true;
}

/* Whether a --header before position `end` has the same name, n bytes long. */
static bool is_repeated(const struct cmd_args *args, size_t end, const char *name, size_t n)
{
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, "header", &pos); v != NULL && pos < end;
         v = cmd_next_value(args, "header", &pos)) {
        if (strncmp(v, name, n + 1) == 0) /* with its '=' */
            return true;
    }
    return false;
}

int input_headers(const struct cmd_args *args, struct buf *out, const char **ret)
{
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, "header", &pos); v != NULL;
         v = cmd_next_value(args, "header", &pos)) {
        const char *equals = strchr(v, '=');
        if (equals == NULL || equals == v)
            return cmd_usage(args, "--header \"%s\": expected NAME=VALUE", v);
        if (!is_utf8(v))
            return cmd_usage(args, "--header \"%s\": expected UTF-8", v);
        if (is_repeated(args, pos, v, (size_t)(equals - v)))
            return cmd_usage(args, "--header \"%s\": a header of this name is given before", v);
        buf_putc(out, out->len == 0 ? '{' : ',');
        buf_json_string(out, v, (size_t)(equals - v));
        buf_putc(out, ':');
        buf_json_string(out, equals + 1, strlen(equals + 1));
    }
    if (out->len > 0) {
        buf_putc(out, '}');
        *ret = out->data;
    }
    return out->err == 0 ? 0 : cmd_usage(args, "--header: more than 8 KiB in all");
}

int input_ended(const struct cmd_args *args, struct admin_filter *filter)
{
    const char *error = cmd_value(args, "error");
    if (error != NULL && error[0] == '\0')
        return cmd_usage(args, "--error: expected a part of the reason");
    filter->error = error;
    int code = cmd_duration_value(args, "older-than", &filter->ended_for_ms);
    return code == 0 ? cmd_duration_value(args, "newer-than", &filter->ended_within_ms) : code;
}
