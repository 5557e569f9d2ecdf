/* execution.c - see execution.h. Decisions about one job; nothing here talks to the loop. */
#include "core/execution.h"

#include <string.h>

#include "base/assert.h"
#include "base/backoff.h"
#include "base/mem.h"
#include "base/rand.h"

/* JSON is at most some times as long as msgpack (a byte may become "\u00XX"), and payloads are at
 * most 16 MiB. */
enum { BODY_BYTES_MAX = 128 * 1024 * 1024, CAPTURED_BYTES_MAX = 8 * 1024 * 1024 };

struct execution *execution_new(struct lane *lane, struct config *config,
                                const struct task_config *task, struct batch *batch,
                                const struct claimed *c)
{
    struct execution *e = ob_xcalloc(1, sizeof *e);
    list_init(&e->link);
    list_init(&e->result_link);
    e->lane = lane;
    e->config = config_ref(config);
    e->batch = batch_ref(batch);
    e->job = c->job;
    e->payload_size = c->payload_size;
    if (e->job.max_attempts <= 0)
        e->job.max_attempts = (int)task->max_attempts;
    e->run.job = &e->job;
    e->run.task = task;
    buf_init(&e->body, BODY_BYTES_MAX);
    buf_init(&e->fetched, BODY_BYTES_MAX);
    buf_init(&e->captured, CAPTURED_BYTES_MAX);
    outcome_init(&e->outcome);
    return e;
}

void execution_free(struct execution *e)
{
    ob_assert(e->state != EXECUTION_RUNNING);
    list_remove(&e->link);
    list_remove(&e->result_link);
    buf_deinit(&e->body);
    buf_deinit(&e->fetched);
    buf_deinit(&e->captured);
    batch_unref(e->batch);
    config_unref(e->config);
    ob_free(e);
}

bool execution_is_dead_already(struct execution *e, const struct claimed *c)
{
    struct outcome *o = &e->outcome;
    unsigned max_lost = e->run.task->max_lost;
    if (c->expired)
        outcome_set(o, OUTCOME_DEAD, "expired");
    else if (e->job.attempt > e->job.max_attempts)
        outcome_set(o, OUTCOME_DEAD, "attempts exhausted (%d), %d of them ended without a result",
                    e->job.max_attempts, e->job.lost);
    else if ((unsigned)e->job.lost >= max_lost)
        outcome_set(o, OUTCOME_DEAD,
                    "lost %d times: each time its dispatcher or its process died before a result",
                    e->job.lost);
    else
        return false;
    o->uncounted = true;
    return true;
}

static int convert_msgpack(struct execution *e)
{
    char why[PAYLOAD_ERROR_SIZE] = "";
    int err = payload_msgpack_to_json(e->job.payload, e->job.payload_len, &e->body, why);
    if (err == OB_ENOMEM) {
        outcome_set(&e->outcome, OUTCOME_RELEASE, "out of memory while converting the payload");
        e->outcome.delay_ms = 1000;
    } else if (err != 0) {
        outcome_set(&e->outcome, OUTCOME_DEAD, "payload is not valid msgpack: %s", why);
    }
    return err;
}

int execution_prepare_body(struct execution *e)
{
    if (e->fetched.data != NULL) {
        e->job.payload = e->fetched.data;
        e->job.payload_len = e->fetched.len;
    }
    e->run.body = e->job.payload;
    e->run.body_len = e->job.payload_len;
    e->run.content_type =
        e->job.encoding == PAYLOAD_JSON ? "application/json" : "application/msgpack";
    if (e->run.task->payload_raw || e->job.encoding == PAYLOAD_JSON)
        return 0;
    int err = convert_msgpack(e);
    e->run.body = e->body.data;
    e->run.body_len = e->body.len;
    e->run.content_type = "application/json";
    return err;
}

void execution_drop_payload(struct execution *e)
{
    buf_deinit(&e->body);
    buf_deinit(&e->fetched);
    e->job.payload = NULL;
    e->job.payload_len = 0;
    e->run.body = NULL;
    e->run.body_len = 0;
}

static void keep_output(struct execution *e, const struct outcome *outcome)
{
    buf_append(&e->captured, outcome->head, outcome->head_len);
    buf_append(&e->captured, outcome->tail, outcome->tail_len);
    bool is_kept = e->captured.err == 0 && e->captured.data != NULL;
    e->outcome.head = is_kept ? e->captured.data : NULL;
    e->outcome.head_len = is_kept ? outcome->head_len : 0;
    e->outcome.tail = is_kept ? e->captured.data + outcome->head_len : NULL;
    e->outcome.tail_len = is_kept ? outcome->tail_len : 0;
}

void execution_keep_outcome(struct execution *e, const struct outcome *outcome)
{
    const struct backoff_config *backoff = &e->run.task->backoff;
    if (outcome != &e->outcome) {
        e->outcome = *outcome;
        e->outcome.endpoint = NULL; /* the executor's */
        keep_output(e, outcome);
    }
    e->outcome.keep_ms = e->run.task->keep_ms;
    e->outcome.blocks_key = e->run.task->dead_blocks;
    e->delay_ms = outcome->delay_ms;
    if (e->outcome.kind != OUTCOME_RETRY)
        return;
    if (e->job.attempt >= e->job.max_attempts) {
        char reason[OUTCOME_REASON_SIZE];
        memcpy(reason, e->outcome.reason, sizeof reason);
        outcome_set(&e->outcome, OUTCOME_DEAD, "%.180s (attempt %d of %d)", reason, e->job.attempt,
                    e->job.max_attempts);
        e->delay_ms = 0;
        return;
    }
    e->delay_ms = backoff_delay_ms(backoff, (unsigned)e->job.attempt,
                                   (uint32_t)rand_below(UINT64_C(1) << 32), outcome->delay_ms);
}

void execution_check_age(struct execution *e, int64_t now_us)
{
    uint64_t max_ms = e->run.task->max_age_ms;
    char reason[OUTCOME_REASON_SIZE];
    char text[32];
    if (e->outcome.kind != OUTCOME_RETRY || max_ms == 0 ||
        now_us - e->job.created_at_us <= (int64_t)max_ms * 1000)
        return;
    memcpy(reason, e->outcome.reason, sizeof reason);
    format_duration(max_ms, text);
    outcome_set(&e->outcome, OUTCOME_DEAD, "%.180s (older than max_age %s)", reason, text);
    e->delay_ms = 0;
}
