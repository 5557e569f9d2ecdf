/* admin_wait.c - see admin_wait.h. */
#include "db/admin_wait.h"

#include <stdio.h>
#include <string.h>

#include <outbox/consumer.h>

#include "base/mem.h"
#include "db/admin_conn.h"

static bool on_look(void *arg, size_t left)
{
    const struct admin_wait *wait = arg;
    if (wait->on_look != NULL)
        wait->on_look(wait->arg, left);
    return wait->timeout_ms != 0;
}

static int err_of(int code)
{
    switch (code) {
    case OUTBOX_ECONN:
        return OB_ECONN;
    case OUTBOX_ESCHEMA:
        return OB_ESCHEMA;
    case OUTBOX_EPRIVILEGE:
        return OB_EPRIVILEGE;
    case OUTBOX_ENOMEM:
        return OB_ENOMEM;
    default:
        return OB_EDB;
    }
}

static int fail(const struct admin *a, const struct outbox_error *error, struct admin_error *reterr)
{
    memset(reterr, 0, sizeof *reterr);
    reterr->err = err_of(error->code);
    reterr->right = ADMIN_READER;
    (void)snprintf(reterr->sqlstate, sizeof reterr->sqlstate, "%s", error->sqlstate);
    (void)snprintf(reterr->message, sizeof reterr->message, "%s", error->message);
    admin_redact(reterr->message, sizeof reterr->message, a->conninfo);
    return reterr->err;
}

int admin_wait(struct admin *a, const struct admin_wait *wait, const char **names,
               struct admin_error *reterr)
{
    struct outbox_answer *answers = ob_xcalloc(wait->count, sizeof *answers);
    struct outbox_error error = {0};
    struct admin_wait kept = *wait;
    struct outbox_wait_options options = {
        .timeout_ms = wait->timeout_ms > 0 ? wait->timeout_ms : 0,
        .on_look = on_look,
        .arg = &kept,
    };
    int code = outbox_wait_with(a->conn, wait->ids, wait->count, &options, answers, &error);
    bool unknown = false;
    for (size_t i = 0; i < wait->count; i++) {
        names[i] = outbox_state_name(answers[i].state);
        unknown = unknown || answers[i].state == OUTBOX_UNKNOWN;
    }
    ob_free(answers);
    bool told = code == OUTBOX_OK || code == OUTBOX_ETIMEOUT || (code == OUTBOX_EINVAL && unknown);
    return told ? 0 : fail(a, &error, reterr);
}
