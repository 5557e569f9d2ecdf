/* The receiver of the stress of lines: records when each run begins and ends in the shared mapping,
 * which outlives every dispatcher, before it answers. See lines_stress.h, receiver.h.
 *
 * A run whose dispatcher was killed, or told to drop it, ends when its connection does: that is
 * looked up before a run of the same line is recorded. */
#include "lines_stress.h"
#include "receiver.h"

static void fail(void *arg, const char *what)
{
    lines_fail(arg, "%s", what);
}

static int64_t take(void *arg, const char *request, size_t *ret_run)
{
    struct lines *s = arg;
    int64_t token = receiver_number(request, "\"token\":");
    int64_t attempt = receiver_number(request, "\nwebhook-attempt:");
    if (token <= 0 || token >= JOBS_MAX || attempt <= 0)
        lines_fail(s, "not a request of ours: %.300s", request);
    struct job *j = &s->jobs[token];
    size_t i = atomic_load(&s->runs_count);
    if (i == RUNS_MAX)
        lines_fail(s, "too many runs");
    /* Others may have had their success, too, and lost it with their dispatcher: again and again.
     */
    bool is_over = j->max_attempts > 0 && j->successes >= SUCCESSES_MAX;
    bool fails = j->arrivals++ < j->refusals || is_over;
    s->runs[i] = (struct run){.token = token,
                              .start_ns = chance_now_ns(),
                              .attempt = (int)attempt,
                              .status = fails ? 404 : 200}; /* no breaker counts it */
    *ret_run = i;
    int64_t answer_ns = s->runs[i].start_ns + (int64_t)j->work_ms * 1000000;
    atomic_store(&s->runs_count, i + 1);
    return answer_ns;
}

static int answer(void *arg, size_t i, const char **ret_header)
{
    struct lines *s = arg;
    struct run *run = &s->runs[i];
    s->jobs[run->token].successes += run->status == 200;
    run->end_ns = chance_now_ns();
    *ret_header = NULL;
    return run->status;
}

static void lost(void *arg, size_t i)
{
    struct lines *s = arg;
    s->runs[i].status = 0;
    s->runs[i].end_ns = chance_now_ns();
}

void lines_receive(struct lines *s, int listen_fd)
{
    const struct receiver r = {
        .arg = s, .take = take, .answer = answer, .lost = lost, .fail = fail};
    receiver_serve(&r, listen_fd);
}
