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

enum {
    SCHEMA_RETRY_MS = 1000,
    NAME_RETRY_MS = 500,
    LOCK_WAIT_MS = 20000, /* a killed daemon's spawner is gone well before */
    PROOF_TIMEOUT_MS = 5000,
    PROOF_TRIES = 3,
    SAY_AGAIN_MS = 10000
};

static void ask_level(struct session *s);
static void prove(struct session *s);
static void register_name(struct session *s);
static void watch_tasks(struct session *s);

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
static bool refused(struct session *s, enum session_state expected, const struct pg_error *error,
                    const char *what)
{
    if (s->state != expected)
        return true; /* an answer of a join that has ended */
    if (error == NULL)
        return false;
    if (error->err == OB_ECONN)
        return true;
    log_error("join_failed", LOG_STR("step", what), LOG_STR("sqlstate", error->sqlstate),
              LOG_STR("err", error->message),
              LOG_STR("hint", error->hint[0] != '\0' ? error->hint : NULL),
              LOG_STR("next", pg_advice(error->sqlstate) == PG_PRIVILEGE
                                  ? "grant it (outbox grant --dispatcher ROLE); trying again"
                                  : "connecting again"));
    pgconn_fail(s->work, OB_EDB, what);
    return true;
}

static void later(struct session *s, uint64_t ms, uv_timer_cb cb)
{
    (void)uv_timer_start(&s->step, cb, ms, 0);
}

/* Logs at the first time, and every ten seconds while it goes on. */
static bool say_waiting(struct session *s, const char *key)
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
    s->previous = s->registered;
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
    if (say_waiting(s, "schema"))
        log_warn("waiting_for_schema", LOG_STR("err", why),
                 LOG_STR("next", "run `outbox migrate`; asking again every second"));
    later(s, SCHEMA_RETRY_MS, on_ask_again);
}

static void on_listen(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (refused(s, SESSION_LISTENING, error, "LISTEN"))
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
    if (refused(s, SESSION_CHECKING, error, "reading the schema's level"))
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

static void on_proof_sent(void *arg, const struct pg_error *error)
{
    (void)refused(arg, SESSION_PROVING, error, "pg_notify");
}

static void prove(struct session *s)
{
    if (s->state != SESSION_PROVING)
        session_set_state(s, SESSION_PROVING);
    (void)snprintf(s->proof, sizeof s->proof, "proof %" PRId64, rand_id());
    later(s, PROOF_TIMEOUT_MS, on_proof_timeout);
    store_notify(s->beat, s->proof, on_proof_sent, s);
}

/* ---- 3: the name's lock file ---- */

static void take_lock(struct session *s);

static void on_take_lock(uv_timer_t *timer)
{
    take_lock(timer->data);
}

static void take_lock(struct session *s)
{
    int err =
        s->lock.fd >= 0 ? 0 : name_lock_take(&s->lock, s->config->lock_dir, s->database, s->name);
    if (err == 0) {
        s->waiting_since_ms = 0;
        s->cb.on_lock(s->arg, s->lock.fd);
        session_set_state(s, SESSION_REGISTERING);
        register_name(s);
        return;
    }
    if (err != OB_EBUSY) {
        log_error("lock_failed", LOG_STR("path", s->lock.path), LOG_STR("err", ob_strerror(err)),
                  LOG_STR("next", "set lock_dir to a folder that this user may write"));
        s->cb.on_fatal(s->arg, OB_EXIT_CONFIG);
        return;
    }
    if (say_waiting(s, "lock"))
        log_warn(
            "waiting_for_name", LOG_STR("name", s->name), LOG_STR("path", s->lock.path),
            LOG_STR(
                "err",
                "another outbox run of this name, or what it started, still runs on this host"));
    if (clock_mono_ms() - s->waiting_since_ms > LOCK_WAIT_MS) {
        log_error("name_taken", LOG_STR("name", s->name), LOG_STR("host", s->host),
                  LOG_STR("path", s->lock.path),
                  LOG_STR("next", "stop it, or give this one another name (--name)"));
        s->cb.on_fatal(s->arg, OB_EXIT_TRY_AGAIN);
        return;
    }
    later(s, NAME_RETRY_MS, on_take_lock);
}

static void on_database(void *arg, const struct pg_error *error, const char *text)
{
    struct session *s = arg;
    if (refused(s, SESSION_NAMING, error, "reading the database's identity"))
        return;
    ob_free(s->database);
    s->database = ob_xstrdup(text != NULL ? text : "");
    take_lock(s);
}

void join_on_notify(struct session *s, const char *payload)
{
    if (strcmp(payload, s->proof) != 0)
        return;
    (void)uv_timer_stop(&s->step);
    session_set_state(s, SESSION_NAMING);
    store_database_identity(s->work, on_database, s);
}

/* ---- 4: the row ---- */

static void on_register_again(uv_timer_t *timer)
{
    register_name(timer->data);
}

static void on_cleared(void *arg, const struct pg_error *error, int released)
{
    struct session *s = arg;
    if (refused(s, SESSION_CLEARING, error, "taking back the claims of the daemon before"))
        return;
    if (released > 0)
        log_warn("took_over", LOG_INT("dispatcher", s->rival_id), LOG_STR("name", s->name),
                 LOG_INT("jobs", released));
    if (released >= TAKE_OVER_BATCH) {
        store_take_over(s->work, s->rival_id, s->rival_beat, true, on_cleared, s);
        return;
    }
    session_set_state(s, SESSION_REGISTERING);
    register_name(s);
}

static void on_rival_terminated(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (refused(s, SESSION_CLEARING, error, "ending the sessions of the daemon before"))
        return;
    store_take_over(s->work, s->rival_id, s->rival_beat, true, on_cleared, s);
}

static void clear_rival(struct session *s, const struct store_rival *rival)
{
    s->rival_id = rival->id;
    s->rival_beat = rival->beat;
    session_set_state(s, SESSION_CLEARING);
    store_terminate(s->work, rival->id, on_rival_terminated, s);
}

static bool is_same(const char *a, const char *b)
{
    return a != NULL && b != NULL && a[0] != '\0' && strcmp(a, b) == 0;
}

/* We hold the very lock file that the rival held: it and everything it started are gone. Otherwise
 * it is watched until it beats (then it lives, and the name is its) or until its lease is over. */
static void meet_rival(struct session *s, const struct store_rival *rival)
{
    if (is_same(rival->host, s->host) && is_same(rival->boot_id, s->boot_id) &&
        is_same(rival->lock_id, s->lock.token)) {
        clear_rival(s, rival);
        return;
    }
    bool was_watched = s->rivals.count == 1 && s->rivals.items[0].id == rival->id;
    if (was_watched && s->rivals.items[0].beat != rival->beat) {
        char since[CLOCK_RFC3339_SIZE];
        clock_rfc3339(rival->since_us, 3, since);
        log_error("name_taken", LOG_STR("name", s->name), LOG_STR("host", rival->host),
                  LOG_INT("pid", rival->pid), LOG_STR("since", since),
                  LOG_STR("next", "stop it, or give this one another name (--name)"));
        s->cb.on_fatal(s->arg, OB_EXIT_TRY_AGAIN);
        return;
    }
    peers_begin(&s->rivals);
    bool is_dead =
        peers_observe(&s->rivals, rival->id, rival->beat, rival->lease_ms, clock_mono_ms());
    peers_end(&s->rivals);
    if (is_dead) {
        clear_rival(s, rival);
        return;
    }
    if (say_waiting(s, "name"))
        log_warn("waiting_for_name", LOG_STR("name", s->name), LOG_STR("host", rival->host),
                 LOG_INT("pid", rival->pid),
                 LOG_STR("next", "watching whether it still beats, at most one lease"));
    later(s, NAME_RETRY_MS, on_register_again);
}

static void on_adopted(void *arg, const struct pg_error *error, const struct store_token *adopted,
                       size_t n);

static void on_named(void *arg, const struct pg_error *error)
{
    (void)arg;
    (void)error; /* without the name outbox.terminate() spares the session, no more */
}

static void on_registered(void *arg, const struct pg_error *error, const struct store_rival *rival)
{
    struct session *s = arg;
    if (refused(s, SESSION_REGISTERING, error, "registering"))
        return;
    if (rival != NULL) {
        meet_rival(s, rival);
        return;
    }
    s->registered = s->id;
    s->waiting_since_ms = 0;
    session_set_state(s, SESSION_ADOPTING);
    store_set_name(s->work, s->id, s->config->lease_ms, on_named, s);
    store_set_name(s->beat, s->id, s->config->lease_ms, on_named, s);
    if (s->previous == 0) {
        on_adopted(s, NULL, NULL, 0);
        return;
    }
    struct store_token *tokens = ob_xcalloc(SESSION_TOKENS_MAX, sizeof *tokens);
    size_t n = s->cb.tokens(s->arg, tokens, SESSION_TOKENS_MAX);
    store_adopt(s->work, s->id, s->previous, tokens, n, session_take_claims(s, n), on_adopted, s);
    ob_free(tokens);
}

/* The tasks of the configuration, as the array that store.h wants. Caller frees the array. */
static const char **task_names(const struct session *s)
{
    const char **names = ob_xcalloc(s->config->tasks_count, sizeof *names);
    for (size_t i = 0; i < s->config->tasks_count; i++)
        names[i] = s->config->tasks[i].name;
    return names;
}

static void register_name(struct session *s)
{
    const char **names = task_names(s);
    s->id = rand_id();
    s->register_sent_boot_ms = clock_boot_ms();
    const struct store_identity me = {
        .id = s->id,
        .previous = s->previous,
        .name = s->name,
        .host = s->host,
        .boot_id = s->boot_id,
        .lock_id = s->lock.token,
        .pid = (int)getpid(),
        .backends = {pgconn_backend_pid(s->work), pgconn_backend_pid(s->beat)},
        .tasks = names,
        .tasks_count = s->config->tasks_count,
        .lease_ms = s->config->lease_ms,
    };
    store_register(s->work, &me, on_registered, s);
    ob_free(names);
}

/* ---- 5: what still runs from the connection before ---- */

/* What the old identity still owns was claimed and never started (the answer was lost), so attempts
 * are given back. Its sessions end first: a claim of theirs may still be under way. */
static void on_previous_released(void *arg, const struct pg_error *error, int released)
{
    struct session *s = arg;
    if (refused(s, SESSION_ADOPTING, error, "releasing the claims of the connection before"))
        return;
    if (released >= TAKE_OVER_BATCH)
        store_take_over(s->work, s->previous, -1, false, on_previous_released, s);
    else
        watch_tasks(s);
}

static void on_previous_terminated(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (refused(s, SESSION_ADOPTING, error, "ending the sessions of the connection before"))
        return;
    store_take_over(s->work, s->previous, -1, false, on_previous_released, s);
}

static void on_adopted(void *arg, const struct pg_error *error, const struct store_token *adopted,
                       size_t n)
{
    struct session *s = arg;
    if (refused(s, SESSION_ADOPTING, error, "adopting"))
        return;
    s->cb.on_adopted(s->arg, adopted, n);
    session_renewed(s, s->register_sent_boot_ms);
    if (s->previous == 0)
        watch_tasks(s);
    else
        store_terminate(s->work, s->previous, on_previous_terminated, s);
}

/* ---- 6: producers may feel us ---- */

static void on_watched(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (refused(s, SESSION_WATCHING, error, "taking the tasks' locks"))
        return;
    session_set_state(s, SESSION_READY);
    s->beat_due_ms = clock_mono_ms() + s->config->lease_ms / 6;
    session_progress(s);
    log_info("ready", LOG_STR("name", s->name), LOG_INT("dispatcher", s->id),
             LOG_INT("tasks", s->config->tasks_count));
    s->cb.on_ready(s->arg);
}

static void watch_tasks(struct session *s)
{
    const char **names = task_names(s);
    session_set_state(s, SESSION_WATCHING);
    store_watch(s->work, names, s->config->tasks_count, on_watched, s);
    ob_free(names);
}

/* ---- a reload ---- */

static void on_announced(void *arg, const struct pg_error *error, bool alive)
{
    (void)arg;
    (void)error; /* a lost connection announces at its next registration */
    (void)alive;
}

static void on_rewatched(void *arg, const struct pg_error *error)
{
    (void)arg;
    (void)error; /* likewise */
}

void session_set_config(struct session *s, struct config *config)
{
    const char **before = task_names(s);
    size_t before_count = s->config->tasks_count;
    struct config *old = s->config;
    s->config = config_ref(config);
    if (s->state == SESSION_READY) {
        const char **names = task_names(s);
        /* New locks first: a task of both is never without one. */
        store_watch(s->work, names, config->tasks_count, on_rewatched, s);
        store_unwatch(s->work, before, before_count, on_rewatched, s);
        store_announce(s->work, s->id, names, config->tasks_count, on_announced, s);
        ob_free(names);
    } else if (s->state == SESSION_WATCHING) {
        pgconn_fail(s->work, OB_ECONN, "the configuration changed while joining");
    }
    ob_free(before);
    config_unref(old);
}
