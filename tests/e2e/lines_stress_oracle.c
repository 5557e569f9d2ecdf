/* What a run of the stress of lines must have come to. See lines_stress.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lines_stress.h"

enum { SHOWN_MAX = 12, CLOCKS_MS = 5 };
#define NEVER INT64_MAX

/* What the tables say of a token, and what its runs add up to. */
struct fate {
    bool is_committed;
    bool is_left; /* in outbox.job */
    bool is_dead;
    bool is_kept; /* in outbox.done */
    char reason[64];
    int64_t first_ns;   /* the start of its first run; NEVER: it has none */
    int64_t last_ns;    /* and of its last */
    int64_t end_ns;     /* of the last */
    int64_t won_ns;     /* the end of the first that succeeded */
    int64_t episode_ns; /* the start of its last run until then */
    int wins;
    const struct deed *cancelled; /* or asked for; the first that was committed */
    const struct deed *retried;
    const struct deed *deleted;
};

struct verdict {
    struct lines *s;
    PGconn *conn;
    FILE *report;
    struct fate *fates;
    int64_t *tokens; /* by id: those that were put and committed */
    int64_t ids;
    bool *deeds; /* committed */
    size_t count;
};

static double ms_of(const struct verdict *v, int64_t ns)
{
    return ns == 0 || ns == NEVER ? 0.0 : (double)(ns - v->s->begun_ns) / 1e6;
}

static void describe(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    const struct fate *f = &v->fates[token];
    int64_t id = atomic_load(&j->id);
    (void)fprintf(
        v->report,
        "  token %ld, job %ld%s: %s, key %d, unique %d, delay %d, expires %d, repeats %d, "
        "max_attempts %d, refusals %d%s%s; tx %ld, called %.2f, answered %.2f, sent %.2f, "
        "acked %.2f; %s%s%s%s; told %d %d %d %d; after",
        (long)token, (long)id, j->existing ? " (existing)" : "", lines_task_names[j->task], j->key,
        j->unique_key, j->delay_ms, j->expires_ms, j->repeat_ms, j->max_attempts, j->refusals,
        j->runs_anyway ? ", runs anyway" : "", j->by_many ? ", by many" : "", (long)j->tx,
        ms_of(v, j->called_ns), ms_of(v, j->answered_ns), ms_of(v, atomic_load(&j->sent_ns)),
        ms_of(v, atomic_load(&j->acked_ns)), f->is_committed ? "committed" : "NOT committed",
        f->is_left ? ", left" : "", f->is_dead ? ", dead: " : "",
        f->is_dead   ? f->reason
        : f->is_kept ? ", kept"
                     : "",
        j->told[0], j->told[1], j->told[2], j->told[3]);
    for (int i = 0; i < j->after_count; i++)
        (void)fprintf(v->report, " %ld", (long)j->after[i]);
    (void)fprintf(v->report, "\n");
    for (size_t i = 0; i < atomic_load(&v->s->runs_count); i++) {
        const struct run *r = &v->s->runs[i];
        if (r->token == token)
            (void)fprintf(v->report, "    run %.2f to %.2f: attempt %d, %d\n",
                          ms_of(v, r->start_ns), ms_of(v, r->end_ns), r->attempt, r->status);
    }
    for (size_t i = 0; i < atomic_load(&v->s->deeds_count); i++) {
        static const char *const names[] = {"cancel", "retry", "delete"};
        const struct deed *d = &v->s->deeds[i];
        if (d->id == id && !j->existing)
            (void)fprintf(v->report, "    %s by hand %.2f to %.2f: %s%s\n", names[d->kind],
                          ms_of(v, d->called_ns), ms_of(v, atomic_load(&d->acked_ns)), d->answer,
                          v->deeds[i] ? "" : ", rolled back");
    }
}

static void wrong(struct verdict *v, const char *what, int64_t token, int64_t other)
{
    if (v->count++ >= SHOWN_MAX)
        return;
    (void)fprintf(v->report, "%s\n", what);
    if (token > 0)
        describe(v, token);
    if (other > 0)
        describe(v, other);
}

/* ---- what the tables say ---- */

static int64_t number_at(const PGresult *res, int row, int column)
{
    return strtoll(PQgetvalue(res, row, column), NULL, 10);
}

static PGresult *rows_of(struct verdict *v, const char *sql)
{
    PGresult *res = PQexec(v->conn, sql);
    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        lines_fail(v->s, "%s: %s", sql, PQerrorMessage(v->conn));
    return res;
}

static int64_t token_of(const struct verdict *v, int64_t id)
{
    return id > 0 && id < v->ids ? v->tokens[id] : 0;
}

static void read_ledger(struct verdict *v)
{
    PGresult *res = rows_of(v, "SELECT token FROM ledger");
    for (int i = 0; i < PQntuples(res); i++) {
        int64_t token = number_at(res, i, 0);
        const struct job *j = &v->s->jobs[token];
        v->fates[token].is_committed = true;
        int64_t id = atomic_load(&j->id);
        if (j->existing || id == 0) /* 0: the answer was lost with the session */
            continue;
        if (id >= v->ids)
            lines_fail(v->s, "an id is %ld", (long)id);
        if (v->tokens[id] != 0)
            wrong(v, "two jobs have one id", token, v->tokens[id]);
        v->tokens[id] = token;
    }
    PQclear(res);
    res = rows_of(v, "SELECT deed FROM deeds");
    for (int i = 0; i < PQntuples(res); i++)
        v->deeds[number_at(res, i, 0)] = true;
    PQclear(res);
}

static void read_ends(struct verdict *v)
{
    PGresult *res = rows_of(v, "SELECT id, state, reason, convert_from(outbox.payload(id), "
                               "'UTF8')::jsonb ->> 'token' FROM outbox.jobs");
    for (int i = 0; i < PQntuples(res); i++) {
        int64_t token = number_at(res, i, 3);
        const char *state = PQgetvalue(res, i, 1);
        struct fate *f = &v->fates[token];
        int64_t id = atomic_load(&v->s->jobs[token].id);
        if (!f->is_committed || v->s->jobs[token].existing ||
            (id != 0 && id != number_at(res, i, 0))) {
            wrong(v, "a job is there that nobody put", token, 0);
            (void)fprintf(v->report, "  id %s\n", PQgetvalue(res, i, 0));
            continue;
        }
        f->is_dead = strcmp(state, "dead") == 0;
        f->is_kept = strcmp(state, "done") == 0;
        f->is_left = !f->is_dead && !f->is_kept;
        (void)snprintf(f->reason, sizeof f->reason, "%s", PQgetvalue(res, i, 2));
    }
    PQclear(res);
}

static void add_runs(struct verdict *v)
{
    for (int64_t token = 0; token < atomic_load(&v->s->next_token); token++)
        v->fates[token].first_ns = v->fates[token].won_ns = NEVER;
    for (size_t i = 0; i < atomic_load(&v->s->runs_count); i++) {
        const struct run *r = &v->s->runs[i];
        struct fate *f = &v->fates[r->token];
        if (f->first_ns == NEVER)
            f->first_ns = r->start_ns;
        if (f->wins == 0)
            f->episode_ns = r->start_ns;
        f->last_ns = r->start_ns;
        f->end_ns = r->end_ns != 0 ? r->end_ns : NEVER;
        if (r->status == 200 && f->wins++ == 0)
            f->won_ns = r->end_ns;
    }
}

static void add_deeds(struct verdict *v)
{
    for (size_t i = 0; i < atomic_load(&v->s->deeds_count); i++) {
        const struct deed *d = &v->s->deeds[i];
        struct fate *f = &v->fates[token_of(v, d->id)];
        if (!v->deeds[i])
            continue;
        if (d->kind == DEED_CANCEL && f->cancelled == NULL && strncmp(d->answer, "cancel", 6) == 0)
            f->cancelled = d;
        if (d->kind == DEED_RETRY && f->retried == NULL && strcmp(d->answer, "retried") == 0)
            f->retried = d;
        if (d->kind == DEED_DELETE && f->deleted == NULL && strcmp(d->answer, "deleted") == 0)
            f->deleted = d;
    }
}

/* ---- (a) nothing is lost, and nothing runs that must not ---- */

/* Another one with the same unique key that ran after that time, or came to another end: into such
 * a one it was merged, which may be an older one that failed, and waited again. */
static bool has_twin(const struct verdict *v, int64_t token, int64_t after_ns)
{
    const struct job *j = &v->s->jobs[token];
    for (int64_t other = 1; j->unique_key >= 0 && other < atomic_load(&v->s->next_token); other++) {
        const struct job *t = &v->s->jobs[other];
        const struct fate *f = &v->fates[other];
        if (other != token && f->is_committed && !t->existing && t->task == j->task &&
            t->unique_key == j->unique_key &&
            (f->last_ns > after_ns || f->is_dead || f->cancelled != NULL || f->deleted != NULL))
            return true;
    }
    return false;
}

static bool may_die(const struct job *j, const struct fate *f)
{
    return j->max_attempts > 0 || (j->expires_ms > 0 && strcmp(f->reason, "expired") == 0) ||
           (j->after_count > 0 && strncmp(f->reason, "dependency", 10) == 0);
}

static void judge_end(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    const struct fate *f = &v->fates[token];
    bool by_hand = f->cancelled != NULL || f->deleted != NULL;
    if (f->is_left)
        wrong(v, "it is left", token, 0);
    if (f->is_dead && !may_die(j, f))
        wrong(v, "it is dead, and was not made to die", token, 0);
    if (f->is_kept && f->wins == 0)
        wrong(v, "it is done, and never succeeded", token, 0);
    if (f->is_left || f->is_dead || f->is_kept || by_hand)
        return;
    if (f->wins == 0 && !has_twin(v, token, j->called_ns))
        wrong(v, "it was committed, and is gone without success", token, 0);
    if (j->task == TASK_PART)
        wrong(v, "it is to be kept when it is done, and is not", token, 0);
}

static void judge_runs(struct verdict *v)
{
    for (size_t i = 0; i < atomic_load(&v->s->runs_count); i++) {
        const struct run *r = &v->s->runs[i];
        if (!v->fates[r->token].is_committed || v->s->jobs[r->token].existing)
            wrong(v, "it ran, and was never put", r->token, 0);
    }
}

static void judge_times(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    const struct fate *f = &v->fates[token];
    int64_t early_ns = j->called_ns + (int64_t)(j->delay_ms - CLOCKS_MS) * 1000000;
    if (j->delay_ms > 0 && f->first_ns < early_ns && f->retried == NULL)
        wrong(v, "it ran before its time", token, 0);
    if (f->cancelled == NULL)
        return;
    /* One that is asked to end may have been claimed, and come to run. */
    int64_t acked_ns = atomic_load(&f->cancelled->acked_ns);
    bool is_asked = strcmp(f->cancelled->answer, "cancelling") == 0;
    int after = 0;
    for (size_t i = 0; acked_ns > 0 && i < atomic_load(&v->s->runs_count); i++)
        after += v->s->runs[i].token == token && v->s->runs[i].start_ns > acked_ns;
    if (after > (is_asked ? 1 : 0))
        wrong(v, "it ran after it had been cancelled", token, 0);
}

/* ---- (b) order per key ---- */

struct turn {
    int task;
    int key;
    const struct run *run;
};

static int by_line(const void *a, const void *b)
{
    const struct turn *x = a;
    const struct turn *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->run->start_ns > y->run->start_ns) - (x->run->start_ns < y->run->start_ns);
}

/* Whether somebody retried or cancelled the job between these times. */
static bool was_touched(const struct verdict *v, int64_t token, int64_t from_ns, int64_t to_ns)
{
    for (size_t i = 0; i < atomic_load(&v->s->deeds_count); i++) {
        const struct deed *d = &v->s->deeds[i];
        int64_t acked_ns = atomic_load(&d->acked_ns);
        if (v->deeds[i] && token_of(v, d->id) == token && d->called_ns < to_ns &&
            (acked_ns == 0 || acked_ns > from_ns))
            return true;
    }
    return false;
}

/* Two runs of a line, one after the other. */
static void judge_turn(struct verdict *v, const struct turn *before, const struct turn *turn)
{
    const struct run *r = before->run;
    const struct run *n = turn->run;
    const struct job *j = &v->s->jobs[r->token];
    if (r->end_ns == 0 || n->start_ns < r->end_ns)
        wrong(v, "two of one key ran at once", r->token, n->token);
    if (r->token == n->token)
        return;
    /* The last attempt of one that was made to die. */
    bool died = turn->task == TASK_WALL && r->status == 404 && j->max_attempts > 0 &&
                r->attempt >= j->max_attempts;
    if (died && !was_touched(v, r->token, r->start_ns, n->start_ns))
        wrong(v, "a dead one blocked its key, and the next one ran", r->token, n->token);
}

static bool may_come_again(const struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    return j->task == TASK_ONCE || j->repeat_ms > 0 || v->fates[token].retried != NULL;
}

static void judge_lines(struct verdict *v)
{
    size_t count = atomic_load(&v->s->runs_count);
    struct turn *turns = calloc(count + 1, sizeof *turns);
    int64_t *last = calloc(JOBS_MAX, sizeof *last); /* by token: its last run's index + 1 */
    if (turns == NULL || last == NULL)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct job *j = &v->s->jobs[v->s->runs[i].token];
        /* Who has no key has a line of his own. */
        turns[i] = (struct turn){j->task, j->key >= 0 ? j->key : 1000 + (int)v->s->runs[i].token,
                                 &v->s->runs[i]};
    }
    qsort(turns, count, sizeof *turns, by_line);
    for (size_t i = 0; i < count; i++) {
        int64_t token = turns[i].run->token;
        bool is_same =
            i > 0 && turns[i - 1].task == turns[i].task && turns[i - 1].key == turns[i].key;
        if (is_same)
            judge_turn(v, &turns[i - 1], &turns[i]);
        if (last[token] != 0 && last[token] != (int64_t)i && !may_come_again(v, token))
            wrong(v, "it ran again after another one of its key", token, turns[i - 1].run->token);
        last[token] = (int64_t)i + 1;
    }
    free(turns);
    free(last);
}

/* Whether a stood in its line before b did, for certain. */
static bool is_before(const struct verdict *v, int64_t a, int64_t b)
{
    const struct job *x = &v->s->jobs[a];
    const struct job *y = &v->s->jobs[b];
    int64_t acked_ns = atomic_load(&x->acked_ns);
    if (x->delay_ms > 0 || x->after_count > 0)
        return false;
    if (x->tx == y->tx)
        return y->delay_ms == 0 && y->after_count == 0 && x->id < y->id;
    /* Who retries one that is scheduled makes it ready at once. */
    int delay_ms =
        v->fates[b].retried == NULL && y->delay_ms > CLOCKS_MS ? y->delay_ms - CLOCKS_MS : 0;
    return acked_ns > 0 && acked_ns < y->called_ns + (int64_t)delay_ms * 1000000;
}

static void judge_order(struct verdict *v)
{
    int64_t end = atomic_load(&v->s->next_token);
    for (int64_t a = 1; a < end; a++) {
        const struct job *x = &v->s->jobs[a];
        const struct fate *f = &v->fates[a];
        if (x->key < 0 || !f->is_committed || x->existing || f->first_ns == NEVER ||
            f->retried != NULL)
            continue;
        for (int64_t b = 1; b < end; b++) {
            const struct job *y = &v->s->jobs[b];
            if (b == a || y->key != x->key || y->task != x->task || !v->fates[b].is_committed ||
                y->existing || v->fates[b].first_ns == NEVER || !is_before(v, a, b))
                continue;
            if (v->fates[b].first_ns < f->episode_ns)
                wrong(v, "the second began before the first was at its end", a, b);
        }
    }
}

/* ---- (c) uniqueness: who is told that a job is there can rely on it ---- */

static void judge_existing(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    int64_t held = token_of(v, atomic_load(&j->id));
    const struct job *h = &v->s->jobs[held];
    const struct fate *f = &v->fates[held];
    int64_t sent_ns = atomic_load(&j->sent_ns);
    if (held == 0 || h->task != j->task || h->unique_key != j->unique_key) {
        wrong(v, "it is told to be another job, which is none", token, held);
        return;
    }
    bool ran_after = false;
    for (size_t i = 0; i < atomic_load(&v->s->runs_count); i++) {
        const struct run *r = &v->s->runs[i];
        if (r->token != held || sent_ns == 0)
            continue;
        ran_after = ran_after || r->start_ns > sent_ns;
        if (r->start_ns < sent_ns && r->end_ns > j->answered_ns && r->status != 0 && h->tx != j->tx)
            wrong(v, "the job that it is told to be ran meanwhile", token, held);
    }
    if (sent_ns > 0 && !ran_after && !f->is_dead && f->cancelled == NULL && f->deleted == NULL &&
        !has_twin(v, held, sent_ns))
        wrong(v, "the job that it is told to be did not run afterwards", token, held);
}

/* ---- (d) dependencies ---- */

static bool twin_won_by(const struct verdict *v, int64_t parent, int64_t by_ns)
{
    const struct job *p = &v->s->jobs[parent];
    for (int64_t other = 1; other < atomic_load(&v->s->next_token); other++) {
        const struct job *t = &v->s->jobs[other];
        if (other != parent && t->task == p->task && t->unique_key == p->unique_key &&
            !t->existing && v->fates[other].is_committed && v->fates[other].won_ns <= by_ns)
            return true;
    }
    return false;
}

static void judge_parent(struct verdict *v, int64_t token, int64_t parent)
{
    const struct job *j = &v->s->jobs[token];
    const struct job *p = &v->s->jobs[parent];
    const struct fate *f = &v->fates[token];
    const struct fate *g = &v->fates[parent];
    const struct deed *removed = g->cancelled != NULL ? g->cancelled : g->deleted;
    int64_t acked_ns = atomic_load(&j->acked_ns);
    if (!g->is_committed || p->existing || g->won_ns <= f->first_ns)
        return;
    /* It was cancelled before, which is as if it had been done; or about then. */
    if (removed != NULL && (acked_ns == 0 || removed->called_ns <= acked_ns))
        return;
    /* Merged: likewise before, and from then on it is its twin that counts. */
    if (p->unique_key >= 0 && !g->is_dead && removed == NULL &&
        (acked_ns == 0 || g->end_ns <= acked_ns || twin_won_by(v, parent, f->first_ns)))
        return;
    if (!j->runs_anyway)
        wrong(v, "it ran, and what it waits for had not succeeded", token, parent);
    else if (g->first_ns != NEVER && !may_come_again(v, parent) &&
             (g->last_ns > f->first_ns || g->end_ns > f->first_ns))
        wrong(v, "it ran before the end of what it waits for", token, parent);
}

static void judge_dependent(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    const struct fate *f = &v->fates[token];
    bool has_failed = false;
    for (int i = 0; i < j->after_count; i++) {
        const struct fate *g = &v->fates[j->after[i]];
        if (f->first_ns != NEVER && f->retried == NULL)
            judge_parent(v, token, j->after[i]);
        has_failed = has_failed || g->is_dead || g->cancelled != NULL || g->retried != NULL ||
                     g->deleted != NULL || v->s->jobs[j->after[i]].unique_key >= 0;
    }
    if (f->is_dead && strstr(f->reason, "is gone") != NULL && !v->s->deletes)
        wrong(v, "it is dead for what it waits for, which nobody deleted", token, j->after[0]);
    if (f->is_dead && strncmp(f->reason, "dependency", 10) == 0 && (!has_failed || j->runs_anyway))
        wrong(v, "it is dead for what it waits for, which is not dead", token, j->after[0]);
}

/* ---- (e) being told ---- */

static void judge_told(struct verdict *v, int64_t token)
{
    const struct job *j = &v->s->jobs[token];
    const struct fate *f = &v->fates[token];
    int told = j->told[0] + j->told[1] + j->told[2] + j->told[3];
    if (f->retried != NULL)
        return; /* as often as it ended */
    if (told > (j->is_told ? 1 : 0))
        wrong(v, "its end was told too often", token, 0);
    if (!j->is_told || told > 1 || v->s->restarts || f->deleted != NULL)
        return;
    bool is_death_wrong = f->is_dead != (j->told[TOLD_DEAD] == 1) &&
                          (f->is_dead || f->cancelled == NULL); /* a dead one that was cancelled */
    if (told == 0)
        wrong(v, "its end was not told", token, 0);
    else if (is_death_wrong || (j->told[TOLD_CANCELLED] == 1 && f->cancelled == NULL))
        wrong(v, "its end was told wrongly", token, 0);
}

static void expect_none(struct verdict *v, const char *what, const char *sql)
{
    PGresult *res = rows_of(v, sql);
    if (number_at(res, 0, 0) != 0) {
        wrong(v, what, 0, 0);
        (void)fprintf(v->report, "  %s: %s\n", sql, PQgetvalue(res, 0, 0));
    }
    PQclear(res);
}

static void judge_remains(struct verdict *v)
{
    expect_none(v, "jobs are left", "SELECT count(*) FROM outbox.job");
    expect_none(v, "dependencies are left", "SELECT count(*) FROM outbox.dependency");
    if (!v->s->deletes) /* by hand, of the job alone */
        expect_none(v, "attempts of jobs that are gone are left",
                    "SELECT count(*) FROM outbox.attempt a WHERE NOT EXISTS (SELECT FROM "
                    "outbox.jobs j WHERE j.id = a.job_id)");
    /* 1869968491: keys; 1869968492: limits; the dispatchers' own is 1869968482. */
    expect_none(v, "advisory locks are left",
                "SELECT count(*) FROM pg_locks l WHERE locktype = 'advisory' AND (classid <> "
                "1869968482 OR NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND "
                "application_name ~ '^outbox'))");
}

size_t lines_verify(struct lines *s, PGconn *conn, FILE *report)
{
    struct verdict v = {.s = s, .conn = conn, .report = report, .ids = 2 * (int64_t)JOBS_MAX};
    long counts[4] = {0};
    v.fates = calloc(JOBS_MAX, sizeof *v.fates);
    v.tokens = calloc((size_t)v.ids, sizeof *v.tokens);
    v.deeds = calloc(DEEDS_MAX, sizeof *v.deeds);
    if (v.fates == NULL || v.tokens == NULL || v.deeds == NULL)
        abort();
    read_ledger(&v);
    read_ends(&v);
    add_runs(&v);
    add_deeds(&v);
    judge_runs(&v);
    for (int64_t token = 1; token < atomic_load(&s->next_token); token++) {
        const struct fate *f = &v.fates[token];
        if (!f->is_committed)
            continue;
        counts[0]++;
        counts[1] += s->jobs[token].existing;
        counts[2] += f->is_dead;
        counts[3] += f->cancelled != NULL;
        if (s->jobs[token].existing) {
            judge_existing(&v, token);
            continue;
        }
        if (atomic_load(&s->jobs[token].id) == 0)
            continue;
        judge_end(&v, token);
        judge_times(&v, token);
        judge_dependent(&v, token);
        judge_told(&v, token);
    }
    judge_lines(&v);
    judge_order(&v);
    judge_remains(&v);
    (void)printf(
        "  %ld jobs committed of %ld: %ld were there already, %ld dead, %ld cancelled; %zu "
        "runs\n",
        counts[0], (long)atomic_load(&s->next_token) - 1, counts[1], counts[2], counts[3],
        (size_t)atomic_load(&s->runs_count));
    free(v.fates);
    free(v.tokens);
    free(v.deeds);
    return v.count;
}
