/* verdict.c - see verdict.h. Called by http.c at the end of every transfer. */
#include "webhook/verdict.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"

enum { TEXT_SIZE = 96 };

/* "no connection within 5.0s (connect_timeout)": which setting it was. */
static void limit_text(char text[TEXT_SIZE], const char *what, uint64_t limit_ms,
                       const char *setting)
{
    char limit[CLOCK_DURATION_SIZE];
    clock_duration(limit_ms, limit);
    (void)snprintf(text, TEXT_SIZE, "%s within %s (%s)", what, limit, setting);
}

/* Says in `end` why there is no answer. text: where a sentence may be written. */
static void explain(const struct verdict *v, const struct task_config *task, struct http_end *end,
                    char text[TEXT_SIZE])
{
    end->error_text = text;
    switch (v->kind) {
    case VERDICT_OVER:
        end->error_class = "reset";
        end->error_text = "the connection was closed before the end of the answer's headers";
        break;
    case VERDICT_TIMEOUT:
        end->error_class = "timeout";
        limit_text(text, "no complete answer", task->timeout_ms, "timeout");
        break;
    case VERDICT_CONNECT_TIMEOUT:
        end->error_class = "timeout";
        limit_text(text, "no connection", task->webhook.connect_timeout_ms, "connect_timeout");
        break;
    case VERDICT_DROPPED:
        end->error_class = "stopped";
        end->stopping = true;
        break;
    case VERDICT_MISCONFIGURED:
    case VERDICT_FAILED:
        end->error_class = v->error_class;
        end->error_text = v->text;
        break;
    }
}

static enum endpoint_result result_of(int status)
{
    if (status >= 200 && status <= 299)
        return ENDPOINT_GOOD;
    if (status >= 500 || status == 408 || status == 425)
        return ENDPOINT_BAD;
    return ENDPOINT_ANSWER;
}

/* What an answer asks of everybody: the time of its Retry-After; without one, 429 and 503 mean the
 * task's first backoff. 410 speaks of the task, and is core's to heed. */
static uint64_t hold_of(const struct http_end *end, const struct backoff_config *backoff)
{
    int status = end->status;
    if ((status >= 200 && status <= 299) || status == 410)
        return 0;
    if (end->has_retry_after)
        return end->retry_after_ms;
    if (status != 429 && status != 503)
        return 0;
    return backoff->schedule_count > 0 ? backoff->schedule_ms[0] : backoff->base_ms;
}

struct verdict_effect verdict_outcome(const struct verdict *v, const struct run *run,
                                      const struct response *r, int64_t now_unix_ms,
                                      struct outcome *o)
{
    struct verdict_effect effect = {.result = ENDPOINT_UNKNOWN};
    struct http_end end = {0};
    char text[TEXT_SIZE] = "";
    outcome_init(o);
    response_end(r, now_unix_ms, run->task->webhook.retry_after_max_ms, &end);
    if (end.status == 0 && v->kind == VERDICT_MISCONFIGURED) {
        outcome_set(o, OUTCOME_RELEASE, "misconfigured: %s", v->text);
        o->misconfigured = true;
        return effect;
    }
    if (end.status == 0) {
        explain(v, run->task, &end, text);
        effect.result = v->kind == VERDICT_DROPPED ? ENDPOINT_UNKNOWN : ENDPOINT_BAD;
    } else {
        effect.result = result_of(end.status);
        effect.hold_ms = hold_of(&end, &run->task->backoff);
    }
    outcome_from_http(o, &end);
    o->head = r->head.data;
    o->head_len = r->head.len;
    o->output_bytes = r->body_bytes;
    return effect;
}
