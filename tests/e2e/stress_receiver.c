/* The receiver of the webhooks: records token, attempt and time of each request in the shared
 * mapping, refuses a part of the jobs at first, and answers some late. See stress.h, receiver.h.
 *
 * What it does with a job depends on the seed and the token alone. */
#include <unistd.h>

#include "receiver.h"
#include "stress.h"

static void give_up(void *arg, const char *what)
{
    struct stress *s = arg;
    (void)snprintf(s->failure, sizeof s->failure, "the receiver: %s", what);
    atomic_store(&s->has_failed, true);
    _exit(3);
}

/* How often this job is refused; half of them once or more. */
static int refusals_of(const struct stress *s, int64_t token)
{
    unsigned dice = (unsigned)(chance_derive(s->seed, (uint64_t)token) % 100);
    return dice < 50 ? 0 : dice < 90 ? 1 : dice < 98 ? 2 : 3;
}

static unsigned delay_ms_of(const struct stress *s, int64_t token, int task)
{
    unsigned dice = (unsigned)(chance_derive(s->seed, (uint64_t)token) >> 32) % 1000;
    if (task == TASK_SCARCE)
        return dice % 7;
    if (task == TASK_BULK)
        return dice < 100 ? 3 : 0;
    return dice < 100 ? dice % 20 : 0;
}

static int64_t take(void *arg, const char *request, size_t *ret_run)
{
    struct stress *s = arg;
    int64_t token = receiver_number(request, "\"token\":");
    int64_t attempt = receiver_number(request, "\nwebhook-attempt:");
    if (token <= 0 || token >= TOKENS_MAX || attempt <= 0)
        give_up(s, request);
    struct token *t = &s->tokens[token];
    size_t i = atomic_load(&s->runs_count);
    if (i == RUNS_MAX)
        give_up(s, "too many runs");
    struct run *run = &s->runs[i];
    int refusals = refusals_of(s, token);
    *run = (struct run){.token = token,
                        .arrived_ns = chance_now_ns(),
                        .attempt = (int)attempt,
                        .is_second = t->is_under_way};
    run->status = t->arrivals++ >= refusals ? 200
                  : refusals % 2 == 0       ? 409
                                            : 404; /* no breaker counts these */
    t->is_under_way = true;
    *ret_run = i;
    int64_t answer_ns =
        run->arrived_ns + (int64_t)delay_ms_of(s, token, atomic_load(&t->task)) * 1000000;
    atomic_store(&s->runs_count, i + 1);
    return answer_ns;
}

static int answer(void *arg, size_t i, const char **ret_header)
{
    struct stress *s = arg;
    struct run *run = &s->runs[i];
    s->tokens[run->token].is_under_way = false;
    run->answered_ns = chance_now_ns();
    *ret_header = run->status == 409 ? "Retry-After: 0\r\n" : NULL;
    return run->status;
}

void stress_receive(struct stress *s, int listen_fd)
{
    const struct receiver r = {.arg = s, .take = take, .answer = answer, .fail = give_up};
    receiver_serve(&r, listen_fd);
}
