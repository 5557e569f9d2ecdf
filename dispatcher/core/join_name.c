/* join_name.c - joining, steps 3 and 4: the name's lock file, and the row in outbox.dispatcher;
 * what becomes of a row that has our name already. See join.c for the rest. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "core/session_priv.h"

enum {
    NAME_RETRY_MS = 500,
    LOCK_WAIT_MS = 20000 /* a killed daemon's spawner is gone well before */
};

/* ---- 3: the name's lock file ---- */

static void take_lock(struct session *s);
static void register_name(struct session *s);

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
                  LOG_STR("next", "set lock_dir to a folder that this user may write, and that "
                                  "belongs to this user or to root"));
        s->cb.on_fatal(s->arg, OB_EXIT_CONFIG);
        return;
    }
    if (join_say_waiting(s, "lock"))
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
    join_later(s, NAME_RETRY_MS, on_take_lock);
}

static void on_database(void *arg, const struct pg_error *error, const char *text)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_NAMING, error, "reading the database's identity"))
        return;
    ob_free(s->database);
    s->database = ob_xstrdup(text != NULL ? text : "");
    take_lock(s);
}

void join_take_name(struct session *s)
{
    store_database_identity(s->work, on_database, s);
}

/* ---- 4: the row ---- */

static void on_register_again(uv_timer_t *timer)
{
    register_name(timer->data);
}

static void take_over_rival(struct session *s);

static void on_cleared(void *arg, const struct pg_error *error, int released)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_CLEARING, error, "taking back the claims of the daemon before"))
        return;
    if (released > 0)
        log_warn("took_over", LOG_INT("dispatcher", s->rival_id), LOG_STR("name", s->name),
                 LOG_INT("jobs", released));
    if (released >= TAKE_OVER_BATCH) {
        take_over_rival(s);
        return;
    }
    s->cleared_id = s->rival_id;
    session_set_state(s, SESSION_REGISTERING);
    register_name(s);
}

/* Claims that an identity of our own left behind, after what ran was adopted, never started. */
static void take_over_rival(struct session *s)
{
    bool has_started = s->rival_id != s->unreleased_id;
    store_take_over(s->work, s->rival_id, s->rival_beat, has_started, on_cleared, s);
}

/* Whether it adopted is now told by whether it owns jobs. If so, they are those that run here,
 * under claims that nobody knows: they end before they are given back. */
static void on_doubt_unregistered(void *arg, const struct pg_error *error, bool gone)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_CLEARING, error, "asking what the connection before had adopted"))
        return;
    if (!gone)
        s->cb.on_adopted(s->arg, NULL, 0);
    if (s->state != SESSION_CLEARING)
        return; /* it was the last thing to wait for: closed */
    if (!gone && !s->cb.is_clear(s->arg)) {
        session_set_state(s, SESSION_REGISTERING);
        join_later(s, NAME_RETRY_MS, on_register_again);
        return;
    }
    s->adopting_id = 0;
    session_set_state(s, SESSION_REGISTERING);
    register_name(s);
}

static void on_rival_terminated(void *arg, const struct pg_error *error)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_CLEARING, error, "ending the sessions of the daemon before"))
        return;
    if (s->rival_id == s->adopting_id)
        store_unregister(s->work, s->rival_id, on_doubt_unregistered, s);
    else
        take_over_rival(s);
}

static void clear_rival(struct session *s, const struct store_rival *rival)
{
    s->rival_id = rival->id;
    s->rival_beat = rival->beat;
    session_set_state(s, SESSION_CLEARING);
    store_terminate(s->work, rival->id, on_rival_terminated, s);
}

/* It is gone, and its row is still there: some job of it is locked by somebody's transaction. The
 * other dispatchers, or we when we are ready, take that one back later. */
static void pass_over_rival(struct session *s, const struct store_rival *rival)
{
    if (s->registered != 0 || s->excused_id != 0) {
        join_later(s, NAME_RETRY_MS, on_register_again);
        return;
    }
    s->excused_id = rival->id;
    register_name(s);
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
        if (rival->id == s->cleared_id)
            pass_over_rival(s, rival);
        else
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
    bool is_dead = peers_observe(&s->rivals, rival->id, rival->beat, rival->lease_ms,
                                 s->register_sent_ms, clock_mono_ms());
    peers_end(&s->rivals);
    if (is_dead) {
        clear_rival(s, rival);
        return;
    }
    if (join_say_waiting(s, "name"))
        log_warn("waiting_for_name", LOG_STR("name", s->name), LOG_STR("host", rival->host),
                 LOG_INT("pid", rival->pid),
                 LOG_STR("next", "watching whether it still beats, at most one lease"));
    join_later(s, NAME_RETRY_MS, on_register_again);
}

static void on_named(void *arg, const struct pg_error *error)
{
    (void)arg;
    (void)error; /* without the name outbox.terminate() spares the session, no more */
}

static void on_registered(void *arg, const struct pg_error *error, const struct store_rival *rival)
{
    struct session *s = arg;
    if (join_refused(s, SESSION_REGISTERING, error, "registering"))
        return;
    if (rival != NULL) {
        meet_rival(s, rival);
        return;
    }
    s->waiting_since_ms = 0;
    store_set_name(s->work, s->id, s->lease_ms, on_named, s);
    store_set_name(s->beat, s->id, s->lease_ms, on_named, s);
    join_adopt(s);
}

static void register_name(struct session *s)
{
    const char **names = join_task_names(s);
    s->id = rand_id();
    s->register_sent_boot_ms = clock_boot_ms();
    s->register_sent_ms = clock_mono_ms();
    s->is_row_stale = false;
    const struct store_identity me = {
        .id = s->id,
        .previous = s->registered != 0 ? s->registered : s->excused_id,
        .name = s->name,
        .host = s->host,
        .boot_id = s->boot_id,
        .lock_id = s->lock.token,
        .pid = (int)getpid(),
        .backends = {pgconn_backend_pid(s->work), pgconn_backend_pid(s->beat)},
        .tasks = names,
        .tasks_count = s->config->tasks_count,
        .lease_ms = s->lease_ms,
    };
    store_register(s->work, &me, on_registered, s);
    ob_free(names);
}
