/* mend.c - see mend.h. */
#include "cmd/mend.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/jout.h"

enum { POLL_FIRST_MS = 20, POLL_MAX_MS = 500 };

struct mending {
    const struct mend_how *how;
    struct jout *json; /* NULL: for people */
    bool failed;
    int64_t *ids; /* to ask for; those that are pending are kept, at the front */
    size_t count;
    size_t pending_count;
};

static void tell(struct mending *m, int64_t id, const char *answer)
{
    char number[24];
    (void)snprintf(number, sizeof number, "%lld", (long long)id);
    m->failed = m->failed || m->how->is_failure(answer);
    if (m->json != NULL) {
        jout_open_object(m->json, NULL);
        jout_raw(m->json, "id", number);
        jout_str(m->json, "answer", answer);
        jout_close(m->json);
    } else {
        (void)printf("%s: %s\n", number, m->how->explain(answer));
    }
}

static void take_answer(struct mending *m, int64_t id, const char *answer, bool is_asked_again)
{
    if (answer == NULL)
        answer = "not found";
    if (is_asked_again && strcmp(answer, "not found") == 0)
        answer = m->how->gone;
    if (m->how->pending != NULL && strcmp(answer, m->how->pending) == 0)
        m->ids[m->pending_count++] = id;
    else
        tell(m, id, answer);
}

/* In portions, each a statement and hence a transaction of its own. */
static int ask(struct admin *admin, struct mending *m, bool is_asked_again,
               struct admin_error *reterr)
{
    size_t count = m->count;
    m->pending_count = 0;
    for (size_t from = 0; from < count; from += ADMIN_IDS_MAX) {
        size_t n = count - from < ADMIN_IDS_MAX ? count - from : ADMIN_IDS_MAX;
        struct admin_rows *rows = NULL;
        int err = admin_answer(admin, m->how->verb, m->ids + from, n, &rows, reterr);
        if (err != 0)
            return err;
        for (size_t i = 0; i < admin_count(rows); i++)
            take_answer(m, admin_int(rows, i, 0, 0), admin_text(rows, i, 1), is_asked_again);
        admin_rows_free(rows);
    }
    m->count = m->pending_count;
    (void)fflush(stdout); /* who waits shall see what is known */
    return 0;
}

void mend_pause(uint64_t ms)
{
    const struct timespec t = {.tv_sec = (time_t)(ms / 1000),
                               .tv_nsec = (long)(ms % 1000) * 1000000L};
    (void)nanosleep(&t, NULL);
}

/* Asks until every answer is the last, or time is up: what is pending then is told as such. */
static int ask_all(const struct cmd_args *args, struct admin *admin, struct mending *m)
{
    struct admin_error error;
    uint64_t until = clock_mono_ms() + m->how->timeout_ms;
    uint64_t step_ms = POLL_FIRST_MS;
    int err = ask(admin, m, false, &error);
    while (err == 0 && m->count > 0 &&
           (m->how->timeout_ms == 0 || clock_mono_ms() + step_ms < until)) {
        mend_pause(step_ms);
        step_ms = step_ms * 2 < POLL_MAX_MS ? step_ms * 2 : POLL_MAX_MS;
        err = ask(admin, m, true, &error);
    }
    if (err != 0)
        return cmd_db_failed(args, admin, &error);
    for (size_t i = 0; i < m->count; i++)
        tell(m, m->ids[i], m->how->pending);
    if (m->failed)
        return OB_EXIT_FAILED;
    return m->count > 0 ? OB_EXIT_TRY_AGAIN : OB_EXIT_OK;
}

int mend_operands(const struct cmd_args *args, const struct mend_how *how)
{
    size_t count = (size_t)args->operands_count;
    struct mending m = {.how = how, .count = count};
    m.ids = ob_xcalloc(count, sizeof *m.ids);
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++)
        code = cmd_id_operand(args, (int)i, &m.ids[i]);
    struct admin *admin = NULL;
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0) {
        struct jout json;
        jout_init(&json, stdout);
        if (cmd_has(args, "json")) {
            m.json = &json;
            jout_open_array(&json, NULL);
        }
        code = ask_all(args, admin, &m);
        if (m.json != NULL) {
            jout_close(&json);
            jout_end(&json);
        }
    }
    admin_close(admin);
    ob_free(m.ids);
    return code;
}
