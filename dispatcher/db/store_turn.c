/* store_turn.c - turns: recording what finished and looking for more, in one transaction. See
 * store.h. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "db/row.h"
#include "db/store_call.h"

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
    if (o->kind == OUTCOME_DONE && o->keep_ms > 0)
        buf_printf(b, ",\"keep_ms\":%" PRIu64, o->keep_ms);
    if (o->kind == OUTCOME_DEAD && o->blocks_key)
        buf_puts(b, ",\"block\":true");
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
    if (text != NULL && strcmp(text, "cancelled") == 0)
        return STORE_CANCELLED;
    if (text != NULL && strcmp(text, "busy") == 0)
        return STORE_BUSY;
    return text != NULL && strcmp(text, "lost") == 0 ? STORE_LOST : STORE_GONE;
}

/* ---- settle ---- */

/* Only what was not recorded is answered; in no promised order. And perhaps (0, 'more'). */
static enum store_answer *read_answers(const struct store_call *call, const PGresult *res,
                                       bool *ret_more)
{
    enum store_answer *answers = ob_xcalloc(call->count + 1, sizeof *answers);
    int rows = res != NULL ? PQntuples(res) : 0;
    for (size_t i = 0; i < call->count; i++)
        answers[i] = res != NULL ? STORE_RECORDED : STORE_GONE;
    for (int row = 0; row < rows; row++) {
        int64_t id = row_int8(res, row, 0);
        if (id == 0)
            *ret_more = true;
        for (size_t i = 0; i < call->count; i++) {
            if (call->tokens[i].id == id)
                answers[i] = answer_of(row_text(res, row, 1));
        }
    }
    return answers;
}

enum { OUTCOMES_BYTES_MAX = 64 * 1024 * 1024 };

static bool is_plain_done(const struct outcome *o)
{
    return o->kind == OUTCOME_DONE && o->keep_ms == 0;
}

/* `outcomes` of outbox.settle(); empty if all succeeded. */
static void put_outcomes(struct buf *b, const struct store_result *results, size_t n)
{
    bool all_done = true;
    for (size_t i = 0; i < n; i++)
        all_done = all_done && is_plain_done(results[i].outcome);
    if (all_done)
        return;
    for (size_t i = 0; i < n; i++) {
        buf_putc(b, i == 0 ? '[' : ',');
        if (is_plain_done(results[i].outcome))
            buf_puts(b, "null");
        else
            put_outcome(b, &results[i]);
    }
    buf_putc(b, ']');
}

static int add_settle(struct pgbatch *b, int64_t owner, const struct store_turn *turn,
                      const struct store_call *call)
{
    struct buf outcomes;
    struct params p;
    buf_init(&outcomes, OUTCOMES_BYTES_MAX);
    put_outcomes(&outcomes, turn->results, turn->results_count);
    int err = outcomes.err;
    if (err == 0) {
        params_init(&p);
        params_int8(&p, owner);
        store_params_tokens(&p, call->tokens, call->count);
        params_jsonb(&p, outcomes.len > 0 ? outcomes.data : NULL);
        params_bool(&p, turn->skip_locked);
        params_add(&p, b, "SELECT id, answer FROM outbox.settle($1, $2, $3, $4, $5, true)");
        params_deinit(&p);
    }
    buf_deinit(&outcomes);
    return err;
}

/* ---- look ---- */

static void add_look(struct pgbatch *b, int64_t owner, const struct store_look *l)
{
    struct params p;
    params_init(&p);
    params_int8(&p, owner);
    params_int8(&p, l->first_claim);
    params_text_array(&p, l->tasks, l->tasks_count);
    params_int4_array(&p, l->slots, l->tasks_count);
    params_bool_array(&p, l->shares, l->tasks_count);
    params_int4(&p, l->shared_slots);
    if (l->has_position)
        params_xid8(&p, l->position_xid);
    else
        params_xid8_or_null(&p, 0);
    params_int8(&p, l->position_id);
    params_xid8(&p, l->older);
    params_xid8_array(&p, l->pending_xids, l->pending_count);
    params_int8_array(&p, l->pending_ids, l->pending_count);
    params_int4_array(&p, l->lanes, l->lanes_count);
    params_xid8_array(&p, l->lane_xids, l->lanes_count);
    params_int8_array(&p, l->lane_ids, l->lanes_count);
    params_int4_array(&p, l->lane_limits, l->lanes_count);
    params_int8_array(&p, l->revisit, l->revisit_count);
    params_timestamp_us(&p, l->due_from_us);
    params_xid8_or_null(&p, l->oldest);
    params_xid8_or_null(&p, l->newest);
    params_bool(&p, l->apart);
    params_bool(&p, l->list_running);
    params_int4(&p, l->walk_rows);
    params_xid8(&p, l->walk_xid);
    params_int8(&p, l->walk_id);
    params_int4(&p, l->walk_priority);
    params_int4_array(&p, l->walk_slots, l->walk_rows > 0 ? l->tasks_count : 0);
    params_add(&p, b,
               "SELECT id, claim, task, priority, attempt, max_attempts, lost, encoding, payload, "
               "payload_size, headers, key, created_at, expired, state::text"
               " FROM outbox.look($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
               " $16, $17, $18, $19, apart => $20, list_running => $21, walk_rows => $22,"
               " walk_xid => $23, walk_id => $24, walk_priority => $25, walk_slots => $26)");
    params_deinit(&p);
}

static bool read_look(struct pgbatch *b, size_t at, struct store_turned *turned)
{
    turned->batch = batch_parse_take(pgbatch_take_result(b, at));
    if (turned->batch == NULL)
        return false;
    turned->seen = seen_parse(turned->batch->state, turned->batch->state_len);
    if (turned->seen == NULL) {
        batch_unref(turned->batch);
        turned->batch = NULL;
    }
    return turned->seen != NULL;
}

static void on_turned(struct pgbatch *b, const struct pg_error *error, void *arg)
{
    static const struct pg_error unreadable = {
        .err = OB_EDB,
        .sqlstate = "XX000",
        .message = "outbox.look() answered rows that this program cannot read"};
    struct store_call *call = arg;
    struct store_turned turned = {.answers_count = call->count};
    bool has_settle = call->count > 0;
    size_t look_at = has_settle ? 1 : 0;
    if (error == NULL && pgbatch_count(b) > look_at && !read_look(b, look_at, &turned)) {
        error = &unreadable; /* it committed all the same: the results are recorded */
        pgconn_fail(call->conn, OB_ECONN, unreadable.message);
    }
    PGresult *settled = has_settle ? pgbatch_result(b, 0) : NULL; /* NULL after an error */
    enum store_answer *answers = read_answers(call, settled, &turned.made_ready);
    turned.answers = answers;
    turned.is_settle_refused = has_settle && error != NULL && pgbatch_failed_at(b) == 0;
    call->cb.turn(call->arg, error, &turned);
    ob_free(answers);
    store_call_free(call);
}

static void refuse_turn(struct store_call *call)
{
    static const struct pg_error too_large = {
        .err = OB_ENOMEM,
        .sqlstate = "54000",
        .message = "the results do not fit into one statement, or memory is short"};
    struct store_turned turned = {.answers_count = call->count, .is_settle_refused = true};
    turned.answers = read_answers(call, NULL, &turned.made_ready);
    call->cb.turn(call->arg, &too_large, &turned);
    ob_free((void *)(uintptr_t)turned.answers);
    store_call_free(call);
}

void store_turn(struct pgconn *c, int64_t owner, const struct store_turn *turn, store_turn_cb cb,
                void *arg)
{
    struct store_call *call = store_call_new(NULL, arg);
    struct pgbatch *b = pgbatch_new();
    int err = 0;
    call->cb.turn = cb;
    call->conn = c;
    call->count = turn->results_count;
    call->tokens = ob_xcalloc(call->count + 1, sizeof *call->tokens);
    for (size_t i = 0; i < call->count; i++)
        call->tokens[i] = turn->results[i].token;
    if (call->count > 0)
        err = add_settle(b, owner, turn, call);
    if (turn->look != NULL) {
        add_look(b, owner, turn->look);
        ob_free(turn->look->pending_xids);
        ob_free(turn->look->pending_ids);
    }
    if (err != 0) {
        pgbatch_free(b);
        refuse_turn(call);
        return;
    }
    pgconn_submit(c, b, on_turned, call);
}

/* ---- the slow check ---- */

static void parse_sweep(struct store_call *call, PGresult *res, const struct pg_error *error)
{
    static const struct pg_error unreadable = {
        .err = OB_EDB,
        .sqlstate = "XX000",
        .message = "outbox.sweep() answered what this program cannot read"};
    struct seen *seen = NULL;
    if (store_has_row(res, &error) && row_text(res, 0, 0) != NULL)
        seen = seen_parse(row_text(res, 0, 0), (size_t)PQgetlength(res, 0, 0));
    if (error == NULL && seen == NULL)
        error = &unreadable;
    call->cb.seen(call->arg, error, seen);
}

void store_sweep(struct pgconn *c, const struct store_sweep *sweep, store_seen_cb cb, void *arg)
{
    struct params p;
    params_init(&p);
    params_text_array(&p, sweep->tasks, sweep->tasks_count);
    params_xid8(&p, sweep->from_xid);
    params_int8(&p, sweep->from_id);
    params_xid8(&p, sweep->to_xid);
    params_int8(&p, sweep->to_id);
    struct store_call *call = store_call_new(parse_sweep, arg);
    call->cb.seen = cb;
    store_send_two(c, &p, "SELECT outbox.sweep($1, $2, $3, $4, $5)::text", "SELECT outbox.mend()",
                   call);
}
