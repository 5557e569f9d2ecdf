/* store_jobs.c - the daemon's statements about jobs: claim, settle, adopt, payload, due. See
 * store.h. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "db/row.h"
#include "db/store_call.h"

/* The ids, or the claims, of n tokens as a parameter. */
static void params_tokens(struct params *p, const struct store_token *tokens, size_t n)
{
    int64_t *values = ob_xcalloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = tokens[i].id;
    params_int8_array(p, values, n);
    for (size_t i = 0; i < n; i++)
        values[i] = tokens[i].claim;
    params_int8_array(p, values, n);
    ob_free(values);
}

static void parse_adopt(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    size_t n = error == NULL ? (size_t)PQntuples(res) : 0;
    struct store_token *tokens = ob_xcalloc(n, sizeof *tokens);
    for (size_t i = 0; i < n; i++) {
        tokens[i].id = row_int8(res, (int)i, 0);
        tokens[i].claim = row_int8(res, (int)i, 1);
    }
    call->cb.adopt(call->arg, error, tokens, n);
    ob_free(tokens);
}

void store_adopt(struct pgconn *c, int64_t owner, int64_t previous,
                 const struct store_token *tokens, size_t n, int64_t first_claim, store_adopt_cb cb,
                 void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, owner);
    params_int8(&p, previous);
    params_tokens(&p, tokens, n);
    params_int8(&p, first_claim);
    struct store_call *call = store_call_new(parse_adopt, arg);
    call->cb.adopt = cb;
    store_send(c, &p, "SELECT id, claim FROM outbox.adopt($1, $2, $3, $4, $5)", call);
}

static void parse_claim(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    static const struct pg_error unreadable = {
        .err = OB_EDB,
        .sqlstate = "XX000",
        .message = "outbox.claim() answered rows that this program cannot read"};
    struct batch *batch = res != NULL ? batch_parse_take(res) : NULL;
    call->keep = true;
    if (error == NULL && batch == NULL)
        error = &unreadable;
    call->cb.claim(call->arg, error, batch);
}

void store_claim(struct pgconn *c, int64_t owner, int64_t first_claim,
                 const struct store_want *wants, size_t n, store_claim_cb cb, void *arg)
{
    const char **tasks = ob_xcalloc(n, sizeof *tasks);
    int *slots = ob_xcalloc(n, sizeof *slots);
    for (size_t i = 0; i < n; i++) {
        tasks[i] = wants[i].task;
        slots[i] = wants[i].slots;
    }
    struct params p;
    params_init(&p);
    params_int8(&p, owner);
    params_int8(&p, first_claim);
    params_text_array(&p, tasks, n);
    params_int4_array(&p, slots, n);
    struct store_call *call = store_call_new(parse_claim, arg);
    call->cb.claim = cb;
    store_send(c, &p,
               "SELECT id, claim, task, priority, attempt, max_attempts, lost, encoding, payload, "
               "payload_size, headers,"
               " key, created_at, expired FROM outbox.claim($1, $2, $3, $4)",
               call);
    ob_free(tasks);
    ob_free(slots);
}

static void parse_payload(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    const char *bytes = store_has_row(res, &error) ? row_text(res, 0, 0) : NULL;
    call->cb.payload(call->arg, error, bytes, bytes != NULL ? (size_t)PQgetlength(res, 0, 0) : 0);
}

void store_payload(struct pgconn *c, int64_t id, store_payload_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_int8(&p, id);
    struct store_call *call = store_call_new(parse_payload, arg);
    call->cb.payload = cb;
    store_send(c, &p, "SELECT outbox.payload($1)", call);
}

static void parse_due(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    if (!store_has_row(res, &error))
        call->cb.due(call->arg, error, 0, -1);
    else
        call->cb.due(call->arg, NULL, row_int4(res, 0, 0), row_int8(res, 0, 1));
}

void store_due(struct pgconn *c, store_due_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    struct store_call *call = store_call_new(parse_due, arg);
    call->cb.due = cb;
    store_send(
        c, &p,
        /* greatest() passes over NULL: nothing scheduled must not read as due now. */
        "SELECT moved, CASE WHEN next_due IS NULL THEN -1 ELSE"
        " greatest(0, ceil(extract(epoch FROM next_due - clock_timestamp()) * 1000)) END::bigint"
        " FROM outbox.due()",
        call);
}

static void put_base64(struct buf *b, const char *bytes, size_t len)
{
    unsigned char chunk[3 * 256];
    unsigned char text[4 * 256 + 1];
    buf_putc(b, '"');
    for (size_t at = 0; at < len;) {
        size_t n = len - at < sizeof chunk ? len - at : sizeof chunk;
        memcpy(chunk, bytes + at, n);
        int chars = EVP_EncodeBlock(text, chunk, (int)n);
        buf_append(b, text, (size_t)chars);
        at += n;
    }
    buf_putc(b, '"');
}

/* One element of settle's `outcomes`. When you change this: sql/, outbox.settle. */
static void put_outcome(struct buf *b, const struct store_result *r)
{
    const struct outcome *o = r->outcome;
    char started[CLOCK_RFC3339_SIZE];
    clock_rfc3339((int64_t)o->started_us, 6, started);
    buf_printf(b, "{\"outcome\":\"%s\",\"delay_ms\":%" PRIu64 ",\"reason\":", outcome_name(o->kind),
               r->delay_ms);
    buf_json_string(b, o->reason, strlen(o->reason));
    if (o->uncounted)
        buf_puts(b, ",\"uncounted\":true");
    if (o->started_us > 0)
        buf_printf(b, ",\"started_at\":\"%s\",\"duration_ms\":%" PRIu64, started, o->duration_ms);
    if (o->exit_code >= 0)
        buf_printf(b, ",\"exit_code\":%d", o->exit_code);
    if (o->signal > 0)
        buf_printf(b, ",\"signal\":%d", o->signal);
    if (o->http_status > 0)
        buf_printf(b, ",\"http_status\":%d", o->http_status);
    if (o->head_len > 0) {
        buf_puts(b, ",\"head\":");
        put_base64(b, o->head, o->head_len);
    }
    if (o->tail_len > 0) {
        buf_puts(b, ",\"tail\":");
        put_base64(b, o->tail, o->tail_len);
    }
    if (o->output_bytes > 0)
        buf_printf(b, ",\"output_bytes\":%" PRIu64, o->output_bytes);
    buf_putc(b, '}');
}

static enum store_answer answer_of(const char *text)
{
    if (text != NULL && strcmp(text, "done") == 0)
        return STORE_RECORDED;
    return text != NULL && strcmp(text, "lost") == 0 ? STORE_LOST : STORE_GONE;
}

/* The rows come in no promised order: each is matched to its result by id. */
static void parse_settle(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    size_t rows = error == NULL ? (size_t)PQntuples(res) : 0;
    enum store_answer *answers = ob_xcalloc(call->count, sizeof *answers);
    for (size_t i = 0; i < call->count; i++)
        answers[i] = STORE_GONE;
    for (size_t row = 0; row < rows; row++) {
        int64_t id = row_int8(res, (int)row, 0);
        /* Usually the same order: start looking where the row is. */
        for (size_t k = 0; k < call->count; k++) {
            size_t i = (row + k) % call->count;
            if (call->tokens[i].id == id) {
                answers[i] = answer_of(row_text(res, (int)row, 1));
                break;
            }
        }
    }
    call->cb.settle(call->arg, error, answers, call->count);
    ob_free(answers);
}

enum { OUTCOMES_BYTES_MAX = 64 * 1024 * 1024 };

void store_settle(struct pgconn *c, int64_t owner, const struct store_result *results, size_t n,
                  store_settle_cb cb, void *arg)
{
    static const struct pg_error too_large = {
        .err = OB_ENOMEM,
        .sqlstate = "54000",
        .message = "the results do not fit into one statement, or memory is short"};
    struct store_call *call = store_call_new(parse_settle, arg);
    struct buf outcomes;
    bool all_done = true;
    call->cb.settle = cb;
    call->count = n;
    call->tokens = ob_xcalloc(n, sizeof *call->tokens);
    buf_init(&outcomes, OUTCOMES_BYTES_MAX);
    buf_putc(&outcomes, '[');
    for (size_t i = 0; i < n; i++) {
        bool done = results[i].outcome->kind == OUTCOME_DONE;
        call->tokens[i] = results[i].token;
        buf_puts(&outcomes, i > 0 ? "," : "");
        if (done)
            buf_puts(&outcomes, "null");
        else
            put_outcome(&outcomes, &results[i]);
        all_done = all_done && done;
    }
    buf_putc(&outcomes, ']');
    if (outcomes.err != 0) {
        buf_deinit(&outcomes);
        parse_settle(call, NULL, &too_large);
        store_call_free(call);
        return;
    }
    struct params p;
    params_init(&p);
    params_int8(&p, owner);
    params_tokens(&p, call->tokens, n);
    params_jsonb(&p, all_done ? NULL : outcomes.data);
    store_send(c, &p, "SELECT id, answer FROM outbox.settle($1, $2, $3, $4)", call);
    buf_deinit(&outcomes);
}
