/* join.c - the steps by which a session becomes ready; see session.h for their order.
 *
 * A step that fails because the connection broke ends here: on_down follows. One that the server
 * refused fails the work connection, so that everything starts again after a backoff; only the
 * schema and the name are waited for on the connection that is there. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/version.h"
#include "core/session_priv.h"
#include "core/trace.h"

enum { SCHEMA_RETRY_MS = 1000, PROOF_TIMEOUT_MS = 5000, PROOF_TRIES = 3, SAY_AGAIN_MS = 10000 };

static void ask_level(struct session *s);
static void prove(struct session *s);
static void restamp(struct session *s);

void join_init(struct session *s)
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f != NULL) {
        if (fscanf(f, "%63s", s->boot_id) != 1)
            s->boot_id[0] = '\0';
        (void)fclose(f);
    }
    if (gethostname(s->host, sizeof s->host - 1) != 0)
        (void)snprintf(s->host, sizeof s->host, "unknown");
    s->name = ob_xstrdup(s->config->name != NULL ? s->config->name : s->host);
    peers_init(&s->rivals);
}

void join_deinit(struct session *s)
{
    peers_deinit(&s->rivals);
    ob_free(s->name);
    ob_free(s->database);
}

void join_end(struct session *s)
{
    (void)uv_timer_stop(&s->step);
    peers_forget(&s->rivals);
    if (s->state != SESSION_DOWN)
        session_set_state(s, SESSION_DOWN);
}

/* True when the step's answer is not to be looked at further. */
bool join_refused(struct session *s, enum session_state expected, const struct pg_error *error,
                  const char *what)
{
    if (s->state != expected)
        return true; /* an answer of a join that has ended */
    if (error == NULL)
        return false;
    if (error->err == OB_ECONN)
        return true;
    uint64_t swallowed = 0;
    if (log_allow(what, SAY_AGAIN_MS, &swallowed))
        log_error("join_failed", LOG_STR("step", what), LOG_STR("sqlstate", error->sqlstate),
                  LOG_STR("err", error->message),
                  LOG_STR("hint", error->hint[0] != '\0' ? error->hint : NULL),
                  LOG_INT("suppressed", swallowed),
                  LOG_STR("next", pg_advice(error->sqlstate) == PG_PRIVILEGE
                                      ? "grant it (outbox grant --dispatcher ROLE); trying again"
                                      : "connecting again"));
    pgconn_fail(s->work, OB_EDB, what);
    return true;
}

void join_later(struct session *s, uint64_t ms, uv_timer_cb cb)
{
    (void)uv_timer_start(&s->step, cb, ms, 0);
}

/* Logs at the first time, and every ten seconds while it goes on. */
bool join_say_waiting(struct session *s, const char *key)
{
    uint64_t swallowed = 0;
    if (s->waiting_since_ms == 0)
        s->waiting_since_ms = clock_mono_ms();
    return log_allow(key, SAY_AGAIN_MS, &swallowed);
}

/* ---- 1: the schema ---- */

void join_begin(struct session *s)
{
    session_set_state(s, SESSION_CHECKING);
    s->cleared_id = 0;
    s->excused_id = 0;
    s->proof_tries = 0;
    s->waiting_since_ms = 0;
    ask_level(s);
}

static void on_ask_again(uv_timer_t *timer)
{
    ask_level(timer->data);
}

static void wait_for_schema(struct session *s, const char *why)
{
    if (join_say_waiting(s, "schema"))
        log_warn("waiting_for_schema", LOG_STR("err", why),
                 LOG_STR("next", "run `outbox migrate`; asking again every second"));
    join_later(s, SCHEMA_RETRY_MS, on_ask_again);
}

static void on_listen(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_LISTENING, error, "LISTEN"))
        return;
    prove(s);
}

static void on_level(void *arg, const struct pg_error *error, int level, int min_level)
{
    struct session *s = arg;
    if (s->state == SESSION_CHECKING && error != NULL &&
        pg_advice(error->sqlstate) == PG_WAIT_SCHEMA) {
        wait_for_schema(s, "the schema outbox is not there");
        return;
    }
    if (join_refused(s, SESSION_CHECKING, error, "reading the schema's level"))
        return;
    if (min_level > OB_SCHEMA_VERSION) {
        log_error("schema_incompatible", LOG_INT("level", level), LOG_INT("needs", min_level),
                  LOG_INT("have", OB_SCHEMA_VERSION), LOG_STR("next", "upgrade this program"));
        s->cb.on_fatal(s->arg, OB_EXIT_INCOMPATIBLE);
        return;
    }
    if (level < OB_SCHEMA_VERSION) {
        wait_for_schema(s, "the schema outbox is older than this program");
        return;
    }
    s->waiting_since_ms = 0;
    session_set_state(s, SESSION_LISTENING);
    store_listen(s->work, on_listen, s);
}

static void ask_level(struct session *s)
{
    store_level(s->work, on_level, s);
}

/* ---- 2: notifications really arrive ---- */

static void on_proof_timeout(uv_timer_t *timer)
{
    struct session *s = timer->data;
    if (++s->proof_tries < PROOF_TRIES) {
        prove(s);
        return;
    }
    log_error(
        "listen_not_proved",
        LOG_STR(
            "err",
            "a notification from one connection does not arrive on the other: this looks like a "
            "connection pooler in transaction mode, and outbox run needs direct connections"),
        LOG_STR("next",
                "point `database` at the server itself; producers may go on using the pooler"));
    s->cb.on_fatal(s->arg, OB_EXIT_CONFIG);
}

/* Only what was sent can fail to arrive: a server that does not answer proves nothing. */
static void on_proof_sent(void *arg, const struct pg_error *error)
{
    if (!join_refused(arg, SESSION_PROVING, error, "pg_notify"))
        join_later(arg, PROOF_TIMEOUT_MS, on_proof_timeout);
}

static void prove(struct session *s)
{
    if (s->state != SESSION_PROVING)
        session_set_state(s, SESSION_PROVING);
    (void)snprintf(s->proof, sizeof s->proof, "proof %" PRId64, rand_id());
    store_notify(s->beat, s->proof, on_proof_sent, s);
}

void join_on_notify(struct session *s, const char *payload)
{
    if (strcmp(payload, s->proof) != 0)
        return;
    (void)uv_timer_stop(&s->step);
    session_set_state(s, SESSION_NAMING);
    join_take_name(s);
}

/* The tasks of the configuration, as the array that store.h wants. Caller frees the array. */
const char **join_task_names(const struct session *s)
{
    const char **names = ob_xcalloc(s->config->tasks_count, sizeof *names);
    for (size_t i = 0; i < s->config->tasks_count; i++)
        names[i] = s->config->tasks[i].name;
    return names;
}

/* ---- 5: what still runs from the connection before ---- */

/* What the old identity still owns was claimed and never started (the answer was lost), so attempts
 * are given back. */
static void on_previous_released(void *arg, const struct pg_error *error, int released)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_ADOPTING, error, "releasing the claims of the connection before"))
        return;
    if (released >= TAKE_OVER_BATCH) {
        store_take_over(s->work, s->unreleased_id, -1, false, on_previous_released, s);
        return;
    }
    s->unreleased_id = 0;
    restamp(s);
}

/* From now on the claims are the new identity's, even if the join that asked for it has ended. */
static void become(struct session *s, int64_t id, const struct store_token *adopted, size_t n)
{
    s->unreleased_id = s->registered;
    s->registered = id;
    s->adopting_id = 0;
    s->cb.on_adopted(s->arg, adopted, n);
}

static void on_adopted(void *arg, const struct pg_error *error, const struct store_token *adopted,
                       size_t n)
{
    struct session *s = arg;
    if (error == NULL)
        become(s, s->adopting_id, adopted, n);
    else if (error->err != OB_ECONN)
        s->adopting_id = 0; /* refused: nothing was adopted. Lost: nobody knows */
    if (join_refused(s, SESSION_ADOPTING, error, "adopting"))
        return;
    session_renewed(s, s->register_sent_boot_ms);
    store_take_over(s->work, s->unreleased_id, -1, false, on_previous_released, s);
}

/* The old identity's sessions are ended first: one that was cut off in the middle of a turn holds
 * the rows that it was at, and a claim of it may still be under way. */
static void on_previous_terminated(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_ADOPTING, error, "ending the sessions of the connection before"))
        return;
    size_t n = 0;
    struct store_token *tokens = s->cb.tokens(s->arg, &n);
    s->adopting_id = s->id;
    store_adopt(s->work, s->id, s->registered, tokens, n, session_take_claims(s, n), on_adopted, s);
    ob_free(tokens);
}

void join_adopt(struct session *s)
{
    session_set_state(s, SESSION_ADOPTING);
    if (s->registered == 0) {
        become(s, s->id, NULL, 0);
        session_renewed(s, s->register_sent_boot_ms);
        restamp(s);
        return;
    }
    store_terminate(s->work, s->registered, on_previous_terminated, s);
}

/* ---- 6: jobs from the future ---- */

static void on_announced(void *arg, const struct pg_error *error, bool alive)
{
    (void)arg;
    (void)error; /* a lost connection announces at its next registration */
    (void)alive;
}

/* Writes the tasks of the configuration into our row. */
static void announce(struct session *s)
{
    const char **names = join_task_names(s);
    store_announce(s->work, s->id, names, s->config->tasks_count, on_announced, s);
    ob_free(names);
}

/* Nothing is missing any more. */
void join_be_ready(struct session *s)
{
    session_set_state(s, SESSION_READY);
    if (s->is_row_stale)
        announce(s);
    s->beat_due_ms = clock_mono_ms() + s->lease_ms / 6;
    session_progress(s);
    log_info("ready", LOG_STR("name", s->name), LOG_INT("dispatcher", s->id),
             LOG_INT("tasks", s->config->tasks_count));
    s->cb.on_ready(s->arg);
}

static void on_restamped(void *arg, const struct pg_error *error, int count)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_RESTAMPING, error, "restamping"))
        return;
    if (count > 0)
        log_warn("restamped", LOG_INT("jobs", count),
                 LOG_STR("reason", "they came from a server with later transaction ids"));
    orders_first(s);
}

static void restamp(struct session *s)
{
    session_set_state(s, SESSION_RESTAMPING);
    store_restamp(s->work, on_restamped, s);
}

/* ---- a reload ---- */

static bool differ(const char *a, const char *b)
{
    return (a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0);
}

static void say_needs_restart(const struct config *before, const struct config *after)
{
    const struct {
        const char *key;
        bool has_changed;
    } settings[] = {{"lease", before->lease_ms != after->lease_ms},
                    {"name", differ(before->name, after->name)},
                    {"lock_dir", differ(before->lock_dir, after->lock_dir)},
                    {"database", differ(before->database, after->database)}};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (settings[i].has_changed)
            log_warn("needs_restart", LOG_STR("setting", settings[i].key),
                     LOG_STR("next", "the value before stays in force until the next start"));
    }
}

void session_set_config(struct session *s, struct config *config)
{
    say_needs_restart(s->config, config);
    struct config *old = s->config;
    s->config = config_ref(config);
    trace_connection(s->work, "work", config->log_sql);
    trace_connection(s->beat, "heartbeat", config->log_sql);
    s->is_row_stale = true; /* until the next registration, if one is under way */
    if (s->state == SESSION_READY)
        announce(s);
    config_unref(old);
}
