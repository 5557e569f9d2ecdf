/* outbox/worker.h before anything else, twice, and beside outbox.h; every function linked. Without
 * a dispatcher on its standard input a worker ends at once. */
#include <outbox/worker.h>

#include <outbox/outbox.h>

static void handle(const struct outbox_worker_job *job, struct outbox_worker_reply *reply)
{
    outbox_worker_touch(reply, 30);
    if (job->payload_len == 0)
        outbox_worker_dead(reply, "no payload");
    else if (job->attempt > 1)
        outbox_worker_retry(reply, 30, "once is enough");
    else
        outbox_worker_ok(reply);
}

static int by_hand(void)
{
    struct outbox_worker w;
    struct outbox_worker_job job;
    int rc = outbox_worker_open(&w, 4);
    while (rc == OUTBOX_WORKER_OK && outbox_worker_next(&w, &job) > 0) {
        rc = outbox_worker_extend(&w, job.id, 30);
        if (rc == OUTBOX_WORKER_OK)
            rc = outbox_worker_answer(&w, job.id, OUTBOX_WORKER_DONE, 0, NULL);
    }
    if (outbox_worker_fd(&w) < 0 || outbox_worker_has_input(&w))
        rc = OUTBOX_WORKER_EIO;
    outbox_worker_close(&w);
    return rc;
}

int main(void)
{
    struct outbox_worker_options options;
    memset(&options, 0, sizeof options);
    options.window = 2;
    (void)outbox_strerror(OUTBOX_OK);
    if (freopen("/dev/null", "r", stdin) == NULL || outbox_worker_run(handle, &options) != 0)
        return 1;
    return by_hand();
}
