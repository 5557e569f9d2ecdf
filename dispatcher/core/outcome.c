/* outcome.c - see outcome.h. Pure: no clock, no allocation, no log. Called by the executors; the
 * tables are also in docs/handlers.md and the pages beside it: change both. */
#include "core/outcome.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/assert.h"
#include "base/utf8.h"

enum { SPAWN_FAILED_DELAY_MS = 1000, OVERLOADED_DELAY_MS = 60 * 1000 };

const char *outcome_name(enum outcome_kind kind)
{
    switch (kind) {
    case OUTCOME_DONE:
        return "done";
    case OUTCOME_RETRY:
        return "retry";
    case OUTCOME_DEAD:
        return "dead";
    case OUTCOME_RELEASE:
        return "release";
    }
    return "unknown";
}

void outcome_init(struct outcome *o)
{
    memset(o, 0, sizeof *o);
    o->kind = OUTCOME_RELEASE; /* what to do when nobody says: never lose, never count */
    o->exit_code = -1;
}

/* Makes text from outside fit for a log line and a text column: one '?' for each control character
 * and for each byte that is no UTF-8 (also of a sequence that the reason's size cut in two). */
static void sanitise(char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence(text + i, len - i);
        unsigned char c = (unsigned char)text[i];
        if (n == 0 || c < 0x20 || c == 0x7f)
            text[i] = '?';
        i += n > 0 ? n : 1;
    }
}

void outcome_set(struct outcome *o, enum outcome_kind kind, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(o->reason, sizeof o->reason, fmt, args);
    va_end(args);
    ob_assert(n >= 0);
    sanitise(o->reason);
    o->kind = kind;
}

static void set_done(struct outcome *o)
{
    o->kind = OUTCOME_DONE;
    o->reason[0] = '\0';
}

static bool is_dead_exit(const struct command_config *config, int code)
{
    return (config->dead_exit[code / 8] & (1U << (code % 8))) != 0;
}

void outcome_from_command(struct outcome *o, const struct command_config *config,
                          const struct command_end *end)
{
    bool exited = WIFEXITED(end->wait_status);
    bool signalled = WIFSIGNALED(end->wait_status);
    if (exited)
        o->exit_code = WEXITSTATUS(end->wait_status);
    if (signalled)
        o->signal = WTERMSIG(end->wait_status);

    /* Success first: work that is done stays done, whoever asked the process to hurry. */
    if (exited && o->exit_code == 0) {
        set_done(o);
    } else if (end->timed_out) {
        outcome_set(o, OUTCOME_RETRY, "timeout");
    } else if (end->stopping) {
        outcome_set(o, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
    } else if (exited && is_dead_exit(config, o->exit_code)) {
        outcome_set(o, OUTCOME_DEAD, "exit %d", o->exit_code);
    } else if (exited) {
        outcome_set(o, OUTCOME_RETRY, "exit %d", o->exit_code);
    } else if (signalled) {
        outcome_set(o, OUTCOME_RETRY, "signal %d", o->signal);
    } else {
        /* Counted: a job that takes its surroundings down must not do so for ever. */
        outcome_set(o, OUTCOME_RETRY, "lost: the process left no exit status");
    }
}

/* What an operator should do about an errno of a child's set-up. */
static const char *spawn_advice(const char *stage, int errnum)
{
    bool is_exec = strncmp(stage, "exec", 4) == 0;
    switch (errnum) {
    case ENOENT:
        return is_exec ? "does it exist on this host, and the interpreter of its #! line?"
                       : "does it exist on this host?";
    case EACCES:
        return is_exec ? "is it executable (chmod +x), and may the dispatcher's user reach it?"
                       : "may the dispatcher's user reach it?";
    case ENOEXEC:
        return "not a program: a script needs a first line such as #!/bin/sh";
    case EPERM:
        return "does a security policy forbid it?";
    default:
        return "see the handler's settings";
    }
}

void outcome_from_spawn_error(struct outcome *o, const char *stage, int errnum, const char *program)
{
    switch (errnum) {
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        outcome_set(o, OUTCOME_RELEASE, "no process to be had: %s: %s", stage, strerror(errnum));
        o->spawn_failed = true;
        o->delay_ms = SPAWN_FAILED_DELAY_MS;
        break;
    default:
        outcome_set(o, OUTCOME_RELEASE, "cannot run %.100s: %s: %s: %s", program, stage,
                    strerror(errnum), spawn_advice(stage, errnum));
        o->misconfigured = true;
        break;
    }
}

/* No complete status and headers came back. */
static void from_no_response(struct outcome *o, const struct http_end *end)
{
    const char *text = end->error_text;
    if (end->stopping)
        outcome_set(o, OUTCOME_RELEASE, "stopped: the dispatcher is stopping");
    else if (text != NULL && text[0] != '\0')
        outcome_set(o, OUTCOME_RETRY, "%s: %s", end->error_class, text);
    else
        outcome_set(o, OUTCOME_RETRY, "%s", end->error_class);
}

void outcome_from_http(struct outcome *o, const struct http_end *end)
{
    ob_assert(end->status != 0 || end->error_class != NULL);
    int status = end->status;
    o->http_status = status;
    if (status == 0) {
        from_no_response(o, end);
        return;
    }
    if (status >= 200 && status <= 299) {
        set_done(o);
        return;
    }
    if (status == 410) {
        outcome_set(o, OUTCOME_DEAD, "HTTP 410");
        o->pauses_task = true;
        return;
    }
    if (status >= 300 && status <= 399 && end->location != NULL)
        outcome_set(o, OUTCOME_RETRY, "redirect: HTTP %d to %s", status, end->location);
    else if (status >= 300 && status <= 399)
        outcome_set(o, OUTCOME_RETRY, "redirect: HTTP %d", status);
    else
        outcome_set(o, OUTCOME_RETRY, "HTTP %d", status);

    /* The gentle floor for "busy, come again" answers, and what the server asked for: the later
     * wins. */
    if (status == 408 || status == 425 || status == 502 || status == 504)
        o->delay_ms = OVERLOADED_DELAY_MS;
    if (end->has_retry_after && end->retry_after_ms > o->delay_ms)
        o->delay_ms = end->retry_after_ms;
}
