/* try_report.c - see try_report.h. */
#include "cmd/try_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "cmd/jout.h"
#include "cmd/print.h"

/* "4s to 6s", or one of them when they look the same. */
static void span_text(const struct task_config *task, unsigned attempt, uint64_t at_least_ms,
                      char *text, size_t size)
{
    char low[CLOCK_DURATION_SIZE];
    char high[CLOCK_DURATION_SIZE];
    clock_duration(backoff_delay_ms(&task->backoff, attempt, 0, at_least_ms), low);
    clock_duration(backoff_delay_ms(&task->backoff, attempt, UINT32_MAX, at_least_ms), high);
    if (strcmp(low, high) == 0)
        (void)snprintf(text, size, "%s", low);
    else
        (void)snprintf(text, size, "%s to %s", low, high);
}

void try_next(const struct task_config *task, const struct job *job, const struct outcome *outcome,
              char ret_text[TRY_NEXT_SIZE])
{
    char span[2 * CLOCK_DURATION_SIZE + 8];
    switch (outcome->kind) {
    case OUTCOME_DONE:
        (void)snprintf(ret_text, TRY_NEXT_SIZE, "deleted: the job is done");
        break;
    case OUTCOME_DEAD:
        (void)snprintf(ret_text, TRY_NEXT_SIZE,
                       "dead: kept until `outbox retry` or `outbox cancel`%s",
                       outcome->pauses_task ? "; the task pauses until `outbox resume`" : "");
        break;
    case OUTCOME_RETRY:
        if (job->attempt >= job->max_attempts) {
            (void)snprintf(ret_text, TRY_NEXT_SIZE, "dead: this was attempt %d of %d", job->attempt,
                           job->max_attempts);
            break;
        }
        span_text(task, (unsigned)job->attempt, outcome->delay_ms, span, sizeof span);
        (void)snprintf(ret_text, TRY_NEXT_SIZE, "retry in %s, as attempt %d of %d", span,
                       job->attempt + 1, job->max_attempts);
        break;
    case OUTCOME_RELEASE:
        if (outcome->misconfigured)
            (void)snprintf(ret_text, TRY_NEXT_SIZE,
                           "given back uncounted, and the task paused: its handler cannot "
                           "run until this is put right");
        else
            (void)snprintf(ret_text, TRY_NEXT_SIZE, "given back uncounted, for another run");
        break;
    }
}

static void json_output(struct jout *j, const char *key, const char *text, size_t len)
{
    if (text != NULL && len > 0)
        jout_bytes(j, key, text, len);
    else
        jout_null(j, key);
}

static void report_json(const struct run *run, const struct outcome *o, const char *next)
{
    struct jout j;
    jout_init(&j, stdout);
    jout_open_object(&j, NULL);
    jout_str(&j, "task", run->task->name);
    jout_str(&j, "handler", handler_kind_name(run->task->kind));
    jout_int(&j, "attempt", run->job->attempt);
    jout_str(&j, "outcome", outcome_name(o->kind));
    jout_str(&j, "reason", o->reason[0] != '\0' ? o->reason : NULL);
    jout_int(&j, "duration_ms", (int64_t)o->duration_ms);
    jout_int(&j, "timeout_ms", (int64_t)run->task->timeout_ms);
    if (o->exit_code >= 0)
        jout_int(&j, "exit_code", o->exit_code);
    else
        jout_null(&j, "exit_code");
    if (o->signal != 0)
        jout_int(&j, "signal", o->signal);
    else
        jout_null(&j, "signal");
    if (o->http_status != 0)
        jout_int(&j, "http_status", o->http_status);
    else
        jout_null(&j, "http_status");
    json_output(&j, "output_head", o->head, o->head_len);
    json_output(&j, "output_tail", o->tail, o->tail_len);
    jout_int(&j, "output_bytes", (int64_t)o->output_bytes);
    jout_str(&j, "next", next);
    jout_close(&j);
    jout_end(&j);
}

static void report_text(const struct run *run, const struct outcome *o, const char *next)
{
    char span[CLOCK_DURATION_SIZE];
    char limit[CLOCK_DURATION_SIZE];
    clock_duration(o->duration_ms, span);
    clock_duration(run->task->timeout_ms, limit);
    (void)printf("%-8s %s by %s\n", "task", run->task->name, handler_kind_name(run->task->kind));
    (void)printf("%-8s %s%s%s\n", "outcome", outcome_name(o->kind),
                 o->reason[0] != '\0' ? ": " : "", o->reason);
    (void)printf("%-8s %s (timeout %s)\n", "took", span, limit);
    if (o->exit_code >= 0)
        (void)printf("%-8s %d\n", "exit", o->exit_code);
    if (o->signal != 0)
        (void)printf("%-8s %d\n", "signal", o->signal);
    if (o->http_status != 0)
        (void)printf("%-8s %d\n", "status", o->http_status);
    (void)printf("%-8s %s\n", "next", next);
    if (o->output_bytes > 0) {
        (void)printf("%-8s %" PRIu64 " bytes\n", "output", o->output_bytes);
        print_output(o->head, o->head_len, o->tail, o->tail_len, o->output_bytes);
    }
}

int try_report(const struct cmd_args *args, const struct run *run, const struct outcome *outcome)
{
    char next[TRY_NEXT_SIZE];
    try_next(run->task, run->job, outcome, next);
    if (cmd_has(args, "json"))
        report_json(run, outcome, next);
    else
        report_text(run, outcome, next);
    return outcome->kind == OUTCOME_DONE ? OB_EXIT_OK : OB_EXIT_FAILED;
}
