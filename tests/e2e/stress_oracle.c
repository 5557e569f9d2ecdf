/* What a run of the stress must have come to, and how late jobs were. See stress.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "stress.h"

enum { SHOWN_MAX = 20 };

/* What the tables say, and what the runs add up to. */
enum { MARK_COMMITTED = 1, MARK_CANCELLED = 2, MARK_LEFT = 4 };
struct fate {
    unsigned marks;
    int runs;
    int attempts; /* as the newest run should count them */
    int successes;
    int64_t last_ns; /* when its last run was answered; 0: none */
};

static struct fate *fates; /* by token */

/* Rows of token and, for those whose payload does not tell it (0), id. */
static void mark_rows(struct stress *s, PGconn *conn, unsigned mark, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    for (int i = 0; i < PQntuples(res); i++) {
        int64_t token = strtoll(PQgetvalue(res, i, 0), NULL, 10);
        if (token == 0)
            token = stress_token_of(s, strtoll(PQgetvalue(res, i, 1), NULL, 10));
        if (token > 0 && token < TOKENS_MAX)
            fates[token].marks |= mark;
    }
    PQclear(res);
}

/* What the commands wrote down: "TOKEN ATTEMPT STATUS" lines. They have no time. */
static void add_commands(struct stress *s, const char *ran_path)
{
    FILE *f = fopen(ran_path, "r");
    long token = 0;
    int attempt = 0;
    int status = 0;
    while (f != NULL && fscanf(f, "%ld %d %d", &token, &attempt, &status) == 3) {
        size_t i = atomic_load(&s->runs_count);
        if (i < RUNS_MAX && token > 0 && token < TOKENS_MAX) {
            s->runs[i] = (struct run){.token = token, .attempt = attempt, .status = status};
            atomic_store(&s->runs_count, i + 1);
        }
    }
    if (f != NULL)
        (void)fclose(f);
}

static void show_row(PGconn *conn, int64_t token, int64_t id, FILE *report)
{
    char sql[600];
    (void)snprintf(sql, sizeof sql,
                   "SELECT to_jsonb(j) - 'headers' FROM outbox.jobs j WHERE id = %ld OR %ld = 0 "
                   "AND id IN (SELECT id FROM outbox.job WHERE encode(payload, 'escape') ~ "
                   "'\"token\": ?%ld[,}]')",
                   (long)id, (long)id, (long)token);
    PGresult *res = conn != NULL ? PQexec(conn, sql) : NULL;
    (void)fprintf(report, "    row: %s\n",
                  res != NULL && PQntuples(res) > 0 ? PQgetvalue(res, 0, 0) : "none");
    PQclear(res);
}

void oracle_describe(struct stress *s, PGconn *conn, int64_t token, FILE *report)
{
    const struct token *t = &s->tokens[token];
    int64_t id = atomic_load(&t->id);
    int64_t zero = s->begun_ns;
    (void)fprintf(
        report,
        "  token %ld, job %ld: task %s, %s by producer %d, transaction %s; ms since the "
        "beginning: due %ld, ready %ld, cancelled %ld\n",
        (long)token, (long)id, stress_task_names[atomic_load(&t->task)],
        stress_kind_names[atomic_load(&t->kind)], atomic_load(&t->producer),
        stress_end_names[atomic_load(&t->end)],
        (long)(atomic_load(&t->due_ns) ? (atomic_load(&t->due_ns) - zero) / 1000000 : 0),
        (long)(atomic_load(&t->ready_ns) ? (atomic_load(&t->ready_ns) - zero) / 1000000 : 0),
        (long)(atomic_load(&t->cancelled_ns) > 1 ? (atomic_load(&t->cancelled_ns) - zero) / 1000000
                                                 : atomic_load(&t->cancelled_ns)));
    for (size_t i = 0; i < atomic_load(&s->runs_count); i++) {
        const struct run *r = &s->runs[i];
        if (r->token == token)
            (void)fprintf(report, "    run at %.1f: attempt %d, status %d%s\n",
                          r->arrived_ns > 0 ? (double)(r->arrived_ns - zero) / 1e6 : 0.0,
                          r->attempt, r->status, r->is_second ? ", while another one ran" : "");
    }
    for (size_t i = 0; i < atomic_load(&s->holds_count) && i < HOLDS_MAX; i++) {
        const struct hold *h = &s->holds[i];
        if (h->token == token)
            (void)fprintf(report, "    held by hand from %.1f to %.1f\n",
                          (double)(h->from_ns - zero) / 1e6,
                          (double)(atomic_load(&h->to_ns) - zero) / 1e6);
    }
    show_row(conn, token, id, report);
}

struct verdict {
    struct stress *s;
    PGconn *conn;
    FILE *report;
    size_t count;
};

static void wrong(struct verdict *v, int64_t token, const char *what)
{
    if (v->count++ < SHOWN_MAX) {
        (void)fprintf(v->report, "%s\n", what);
        if (token > 0)
            oracle_describe(v->s, v->conn, token, v->report);
    }
}

static void judge_runs(struct verdict *v)
{
    for (size_t i = 0; i < atomic_load(&v->s->runs_count); i++) {
        const struct run *r = &v->s->runs[i];
        const struct token *t = &v->s->tokens[r->token];
        struct fate *f = &fates[r->token];
        int64_t cancelled_ns = atomic_load(&t->cancelled_ns);
        f->runs++;
        if ((f->marks & MARK_COMMITTED) == 0)
            wrong(v, r->token, "it ran, and was never committed");
        if ((f->marks & MARK_CANCELLED) != 0 && cancelled_ns > 0 && r->arrived_ns > cancelled_ns)
            wrong(v, r->token, "it ran after it had been cancelled");
        if (f->successes > 0)
            wrong(v, r->token, "it ran again after it had succeeded");
        if (r->is_second)
            wrong(v, r->token, "it ran twice at once");
        f->attempts = r->attempt == 1 && atomic_load(&t->is_retried) ? 1 : f->attempts + 1;
        if (r->attempt != (atomic_load(&t->is_mortal) ? 1 : f->attempts))
            wrong(v, r->token, "its attempts are miscounted");
        if (atomic_load(&t->task) == TASK_NOBODY)
            wrong(v, r->token, "it ran, and nobody handles it");
        f->successes += r->status == 200;
    }
}

static void expect_none(struct verdict *v, const char *what, const char *sql)
{
    PGresult *res = PQexec(v->conn, sql);
    if (PQntuples(res) != 1 || strcmp(PQgetvalue(res, 0, 0), "0") != 0) {
        wrong(v, 0, what);
        (void)fprintf(v->report, "  %s: %s%s\n", sql,
                      PQntuples(res) == 1 ? PQgetvalue(res, 0, 0) : "", PQerrorMessage(v->conn));
    }
    PQclear(res);
}

size_t oracle_verify(struct stress *s, PGconn *conn, const char *ran_path, FILE *report)
{
    struct verdict v = {.s = s, .conn = conn, .report = report};
    size_t committed = 0;
    size_t cancelled = 0;
    fates = calloc(TOKENS_MAX, sizeof *fates);
    if (fates == NULL)
        abort();
    mark_rows(s, conn, MARK_COMMITTED, "SELECT token, 0 FROM ledger");
    mark_rows(s, conn, MARK_CANCELLED, "SELECT token, 0 FROM cancelled");
    mark_rows(s, conn, MARK_LEFT, "SELECT " STRESS_TOKEN_SQL ", id FROM outbox.job");
    add_commands(s, ran_path);
    judge_runs(&v);
    for (int64_t token = 1; token < atomic_load(&s->next_token); token++) {
        const struct fate *f = &fates[token];
        bool is_live = (f->marks & (MARK_COMMITTED | MARK_CANCELLED)) == MARK_COMMITTED;
        bool is_kept = atomic_load(&s->tokens[token].task) == TASK_NOBODY;
        committed += (f->marks & MARK_COMMITTED) != 0;
        cancelled += (f->marks & MARK_COMMITTED) != 0 && !is_live;
        bool is_dead = s->is_stuck && atomic_load(&s->tokens[token].is_mortal) && f->runs > 0;
        if (is_live && !is_kept && !is_dead && f->successes == 0)
            wrong(&v, token, "it was committed, and has not succeeded");
        if (is_live && is_kept && (f->marks & MARK_LEFT) == 0)
            wrong(&v, token, "nobody handles it, and it is gone");
        if (!is_live && (f->marks & MARK_LEFT) != 0)
            wrong(&v, token, "it is there, and was cancelled or never committed");
        if ((f->marks & MARK_COMMITTED) != 0 &&
            atomic_load(&s->tokens[token].end) == END_ROLLED_BACK)
            wrong(&v, token, "it was rolled back, and is there");
    }
    expect_none(&v, "jobs are left",
                "SELECT count(*) FROM outbox.job WHERE task <> 'nobody' OR owner IS NOT NULL");
    if (!s->is_stuck)
        expect_none(&v, "dead jobs are left", "SELECT count(*) FROM outbox.dead");
    expect_none(&v, "attempts of jobs that are gone are left",
                "SELECT count(*) FROM outbox.attempt a WHERE NOT EXISTS (SELECT FROM outbox.jobs j "
                "WHERE j.id = a.job_id)");
    (void)printf("  %zu jobs committed of %ld, %zu of them cancelled; %zu runs\n", committed,
                 (long)atomic_load(&s->next_token) - 1, cancelled,
                 (size_t)atomic_load(&s->runs_count));
    return v.count;
}

/* ---- lateness ---- */

struct sample {
    int64_t token;
    int64_t late_ns;
};

struct samples {
    struct sample *all;
    size_t count;
    size_t held; /* those that somebody kept from the dispatchers meanwhile */
};

static struct hold *holds; /* sorted: by token, then time */
static size_t holds_used;

static int by_token(const void *a, const void *b)
{
    const struct hold *x = a;
    const struct hold *y = b;
    if (x->token != y->token)
        return x->token < y->token ? -1 : 1;
    return (x->from_ns > y->from_ns) - (x->from_ns < y->from_ns);
}

static void sort_holds(struct stress *s)
{
    holds_used = atomic_load(&s->holds_count);
    holds_used = holds_used < HOLDS_MAX ? holds_used : HOLDS_MAX;
    holds = s->holds;
    qsort(holds, holds_used, sizeof *holds, by_token);
}

static size_t first_hold(int64_t token)
{
    size_t low = 0;
    size_t high = holds_used;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (holds[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What of [from, to] nobody kept the job, or all jobs, from the dispatchers. */
static int64_t unheld_ns(int64_t token, int64_t from_ns, int64_t to_ns)
{
    size_t own = first_hold(token);
    size_t common = first_hold(ALL_TOKENS);
    int64_t free_ns = 0;
    int64_t at_ns = from_ns;
    while (at_ns < to_ns) {
        bool has_own = own < holds_used && holds[own].token == token;
        bool has_common = common < holds_used && holds[common].token == ALL_TOKENS;
        const struct hold *h = NULL;
        if (has_own && (!has_common || holds[own].from_ns <= holds[common].from_ns))
            h = &holds[own++];
        else if (has_common)
            h = &holds[common++];
        if (h == NULL || h->from_ns >= to_ns)
            return free_ns + to_ns - at_ns;
        if (h->from_ns > at_ns)
            free_ns += h->from_ns - at_ns;
        if (atomic_load(&h->to_ns) > at_ns)
            at_ns = atomic_load(&h->to_ns);
    }
    return free_ns;
}

static int by_lateness(const void *a, const void *b)
{
    const struct sample *x = a;
    const struct sample *y = b;
    return (x->late_ns > y->late_ns) - (x->late_ns < y->late_ns);
}

static size_t report_samples(struct stress *s, const char *what, struct samples *samples,
                             unsigned late_ms, FILE *report)
{
    size_t n = samples->count;
    size_t late = 0;
    if (n == 0)
        return 0;
    qsort(samples->all, n, sizeof *samples->all, by_lateness);
    const struct sample *median = &samples->all[n / 2];
    const struct sample *p99 = &samples->all[n * 99 / 100];
    const struct sample *worst = &samples->all[n - 1];
    (void)printf("  %s: %zu measured, %zu of them held back by hand, late by p50 %.1f ms, p99 %.1f "
                 "ms, at most %.1f ms (job %ld, %s"
                 ", %s)\n",
                 what, n, samples->held, (double)median->late_ns / 1e6, (double)p99->late_ns / 1e6,
                 (double)worst->late_ns / 1e6, (long)atomic_load(&s->tokens[worst->token].id),
                 stress_task_names[atomic_load(&s->tokens[worst->token].task)],
                 stress_kind_names[atomic_load(&s->tokens[worst->token].kind)]);
    for (size_t i = n; late_ms > 0 && i > 0; i--) {
        if (samples->all[i - 1].late_ns <= (int64_t)late_ms * 1000000)
            break;
        if (late++ < SHOWN_MAX) {
            (void)fprintf(report, "%s was late by %.1f ms\n", what,
                          (double)samples->all[i - 1].late_ns / 1e6);
            oracle_describe(s, NULL, samples->all[i - 1].token, report);
        }
    }
    return late;
}

static void add_sample(struct samples *samples, int64_t token, int64_t from_ns, int64_t to_ns)
{
    int64_t late_ns = to_ns > from_ns ? unheld_ns(token, from_ns, to_ns) : 0;
    samples->held += to_ns > from_ns && late_ns < to_ns - from_ns;
    samples->all[samples->count++] = (struct sample){token, late_ns};
}

/* A first run is measured from when its producer knew of the commit (or had woken by hand) and its
 * time had come; a later one from the refusal and the task's own delay; in both, what people held
 * by hand does not count. */
size_t oracle_lateness(struct stress *s, unsigned late_ms, FILE *report)
{
    size_t runs = atomic_load(&s->runs_count);
    struct samples first = {.all = calloc(runs + 1, sizeof(struct sample))};
    struct samples again = {.all = calloc(runs + 1, sizeof(struct sample))};
    sort_holds(s);
    for (size_t i = 0; i < runs; i++) {
        const struct run *r = &s->runs[i];
        const struct token *t = &s->tokens[r->token];
        struct fate *f = &fates[r->token];
        int64_t ready_ns = atomic_load(&t->ready_ns);
        int64_t due_ns = atomic_load(&t->due_ns);
        bool is_first = f->last_ns == 0;
        if (atomic_load(&t->task) >= ROOMY_TASKS || r->arrived_ns == 0)
            continue;
        if (is_first && ready_ns > 0)
            add_sample(&first, r->token, due_ns > ready_ns ? due_ns : ready_ns, r->arrived_ns);
        else if (!is_first && !atomic_load(&t->is_mortal))
            add_sample(&again, r->token,
                       f->last_ns + (atomic_load(&t->task) == TASK_LATER ? LATER_BACKOFF_MS : 0) *
                                        (int64_t)1000000,
                       r->arrived_ns);
        f->last_ns = r->answered_ns;
    }
    size_t late = report_samples(s, "first runs", &first, late_ms, report);
    late += report_samples(s, "later runs", &again, late_ms, report);
    free(first.all);
    free(again.all);
    free(fates);
    fates = NULL;
    return late;
}
