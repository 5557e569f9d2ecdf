/* matching.c - see matching.h. */
#include "cmd/matching.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/input.h"
#include "cmd/jout.h"
#include "cmd/progress.h"
#include "db/admin_ids.h"

enum { ANSWERS_MAX = 8, FILTER_TEXT_MAX = 64 * 1024 };

struct sweep {
    const struct matching *m;
    struct admin_filter filter;
    const char *dispatcher;
    struct buf tasks;
    struct buf states;
    int64_t counts[ANSWERS_MAX];
    int64_t *found;
    size_t found_count;
    size_t asked; /* of those */
    int64_t *pending;
    size_t pending_count;
    struct progress progress;
};

static const char *const filters[] = {"running",    "state",      "task",    "key",
                                      "min-age",    "dispatcher", "dry-run", "error",
                                      "older-than", "newer-than", NULL};

bool matching_is_asked(const struct cmd_args *args)
{
    for (size_t i = 0; filters[i] != NULL; i++) {
        if (cmd_has(args, filters[i]))
            return true;
    }
    return false;
}

static int check_words(const struct cmd_args *args, const char *option)
{
    static const char *const states[] = {"ready", "scheduled", "waiting", "running", "dead"};
    bool is_state = strcmp(option, "state") == 0;
    size_t pos = 0;
    for (const char *v = cmd_next_value(args, option, &pos); v != NULL;
         v = cmd_next_value(args, option, &pos)) {
        for (bool more = true; more;) {
            char word[160]; /* a name is shorter: one that is cut is refused all the same */
            size_t len = strcspn(v, ",");
            (void)snprintf(word, sizeof word, "%.*s", (int)len, v);
            bool known = !is_state;
            for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
                known = known || strcmp(states[i], word) == 0;
            int code = is_state ? 0 : input_check_task(args, word);
            if (!known)
                code = cmd_usage(
                    args, "--state \"%s\": expected ready, scheduled, waiting, running or dead",
                    word);
            if (code != 0)
                return code;
            more = v[len] == ',';
            v += len + (more ? 1 : 0);
        }
    }
    return 0;
}

static int read_filter(const struct cmd_args *args, struct sweep *s)
{
    bool running =
        cmd_has(args, "running") || (cmd_has(args, "dispatcher") && !cmd_has(args, "state"));
    if (args->operands_count > 0)
        return cmd_usage(args, "give ids, or say which by --running and the like, not both");
    if (cmd_has(args, "running") && cmd_has(args, "state"))
        return cmd_usage(args, "--running is a --state: give one of them");
    if (!running && !cmd_has(args, "state"))
        return cmd_usage(args, "say in which state: --running, or --state STATE");
    int code = check_words(args, "state");
    if (code == 0)
        code = check_words(args, "task");
    s->filter.tasks = input_array(args, "task", &s->tasks);
    s->filter.states = running ? "{running}" : input_array(args, "state", &s->states);
    s->filter.key = cmd_value(args, "key");
    s->dispatcher = cmd_value(args, "dispatcher");
    if (code == 0)
        code = cmd_duration_value(args, "min-age", &s->filter.min_age_ms);
    return code == 0 ? input_ended(args, &s->filter) : code;
}

static void count(struct sweep *s, int64_t id, const char *answer)
{
    size_t i = 0;
    while (s->m->answers[i] != NULL && strcmp(s->m->answers[i], answer) != 0)
        i++;
    ob_assert(i < ANSWERS_MAX);
    if (s->m->how.pending != NULL && strcmp(answer, s->m->how.pending) == 0) {
        s->pending = ob_xrealloc(s->pending, (s->pending_count + 1) * sizeof *s->pending);
        s->pending[s->pending_count++] = id;
    } else {
        s->counts[i]++;
    }
}

/* One statement, hence a transaction of its own. */
static int ask(struct admin *admin, struct sweep *s, const int64_t *ids, size_t n, bool is_again,
               struct admin_error *error)
{
    struct admin_rows *rows = NULL;
    int err = admin_answer(admin, s->m->how.verb, ids, n, &rows, error);
    if (err != 0)
        return err;
    for (size_t i = 0; i < admin_count(rows); i++) {
        const char *answer = admin_text(rows, i, 1);
        if (answer == NULL)
            answer = "not found";
        if (is_again && strcmp(answer, "not found") == 0)
            answer = s->m->how.gone;
        count(s, admin_int(rows, i, 0, 0), answer);
    }
    admin_rows_free(rows);
    return 0;
}

/* All of them before the first is asked for: what only matches because of that is not meant. */
static int find_all(struct admin *admin, struct sweep *s, struct admin_error *error)
{
    size_t room = 0;
    for (;;) {
        int64_t last = s->found_count > 0 ? s->found[s->found_count - 1] : 0;
        struct admin_rows *rows = NULL;
        int err = admin_ids(admin, &s->filter, s->dispatcher, last, &rows, error);
        if (err != 0)
            return err;
        size_t n = admin_count(rows);
        if (room < s->found_count + n) {
            room = 2 * (s->found_count + n);
            s->found = ob_xrealloc(s->found, room * sizeof *s->found);
        }
        for (size_t i = 0; i < n; i++)
            s->found[s->found_count++] = admin_int(rows, i, 0, 0);
        admin_rows_free(rows);
        if (n == 0)
            return 0;
    }
}

static int ask_all(struct admin *admin, struct sweep *s, struct admin_error *error)
{
    int err = find_all(admin, s, error);
    progress_init(&s->progress, (int64_t)s->found_count);
    while (err == 0 && s->asked < s->found_count) {
        size_t n = s->found_count - s->asked;
        n = n < ADMIN_IDS_MAX ? n : ADMIN_IDS_MAX;
        err = ask(admin, s, s->found + s->asked, n, false, error);
        s->asked += err == 0 ? n : 0;
        progress_update(&s->progress, (int64_t)s->asked);
    }
    progress_end(&s->progress);
    return err;
}

/* Until those that were told to end have ended, or time is up. */
static int wait_for_pending(struct admin *admin, struct sweep *s, struct admin_error *error)
{
    uint64_t until = clock_mono_ms() + s->m->how.timeout_ms;
    uint64_t step_ms = 20;
    int err = 0;
    while (err == 0 && s->pending_count > 0 &&
           (s->m->how.timeout_ms == 0 || clock_mono_ms() + step_ms < until)) {
        mend_pause(step_ms);
        step_ms = step_ms * 2 < 500 ? step_ms * 2 : 500;
        int64_t *ids = s->pending;
        size_t n = s->pending_count;
        s->pending = NULL;
        s->pending_count = 0;
        for (size_t from = 0; err == 0 && from < n; from += ADMIN_IDS_MAX)
            err = ask(admin, s, ids + from, n - from < ADMIN_IDS_MAX ? n - from : ADMIN_IDS_MAX,
                      true, error);
        ob_free(ids);
    }
    return err;
}

/* "3 cancelled, 1 not found", or the same as JSON: every answer that came, the wanted one always.
 */
static void print_counts(const struct cmd_args *args, struct sweep *s)
{
    bool json = cmd_has(args, "json");
    for (size_t i = 0; s->m->answers[i] != NULL; i++) {
        const char *name = s->m->answers[i];
        int64_t n = s->counts[i];
        if (s->m->how.pending != NULL && strcmp(name, s->m->how.pending) == 0)
            n += (int64_t)s->pending_count;
        if (i > 0 && n == 0)
            continue;
        const char *before = i > 0 ? ", " : json ? "{" : "";
        if (json)
            (void)printf("%s\"%s\": %" PRId64, before, name, n);
        else
            (void)printf("%s%" PRId64 " %s", before, n, name);
    }
    (void)printf(json ? "}\n" : "\n");
}

static int sweep(const struct cmd_args *args, struct admin *admin, struct sweep *s)
{
    struct admin_error error;
    int64_t total = 0;
    int err = 0;
    if (cmd_has(args, "dry-run")) {
        err = admin_ids_count(admin, &s->filter, s->dispatcher, &total, &error);
        if (err == 0 && cmd_has(args, "json"))
            (void)printf("{\"would_match\": %" PRId64 "}\n", total);
        else if (err == 0)
            (void)printf("%" PRId64 " would be %s\n", total, s->m->past);
        return err != 0 ? cmd_db_failed(args, admin, &error) : OB_EXIT_OK;
    }
    err = ask_all(admin, s, &error);
    if (err == 0 && s->m->how.gone != NULL)
        err = wait_for_pending(admin, s, &error);
    if (err == 0 || s->asked > 0)
        print_counts(args, s);
    if (err != 0)
        return cmd_db_failed(args, admin, &error);
    return s->m->how.gone != NULL && s->pending_count > 0 ? OB_EXIT_TRY_AGAIN : OB_EXIT_OK;
}

int matching_run(const struct cmd_args *args, const struct matching *m)
{
    struct admin *admin = NULL;
    struct sweep s;
    memset(&s, 0, sizeof s);
    s.m = m;
    buf_init(&s.tasks, FILTER_TEXT_MAX);
    buf_init(&s.states, FILTER_TEXT_MAX);
    int code = read_filter(args, &s);
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0)
        code = sweep(args, admin, &s);
    admin_close(admin);
    ob_free(s.found);
    ob_free(s.pending);
    buf_deinit(&s.tasks);
    buf_deinit(&s.states);
    return code;
}
