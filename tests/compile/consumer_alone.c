/* outbox/consumer.h before anything else, twice, and beside the others; every function linked. No
 * server is needed: every call on a missing connection is refused. */
#include <outbox/consumer.h>

#include <outbox/consumer.h>
#include <outbox/outbox.h>
#include <outbox/worker.h>

int main(void)
{
    static const int64_t ids[2] = {1, 2};
    static char channel[] = "outbox_done";
    static char extra[] = "2 cancelled";
    struct outbox_wait_options options;
    struct outbox_answer answers[2];
    struct outbox_batch batch;
    struct outbox_taken job;
    struct outbox_error err;
    struct outbox_query q;
    PGnotify notify;
    int bad = 0;
    int i;

    memset(&options, 0, sizeof options);
    memset(answers, 0, sizeof answers);
    memset(&notify, 0, sizeof notify);
    notify.relname = channel;
    notify.extra = extra;
    bad += outbox_wait(NULL, ids, 2, 0, answers, &err) != OUTBOX_EINVAL;
    bad += outbox_wait_with(NULL, ids, 2, &options, answers, &err) != OUTBOX_EINVAL;
    bad += outbox_wait_query_init(&q, ids, answers, 2, false, &err) != OUTBOX_OK || q.nparams != 1;
    outbox_query_free(&q);
    bad += outbox_wait_query_result(NULL, answers, 2, NULL, &err) != OUTBOX_EDB;
    bad += !outbox_wait_notify(&notify, ids, answers, 2);
    bad += outbox_take(NULL, "a", 1, &batch, &err) != OUTBOX_EINVAL || batch.count != 0;
    bad += outbox_take_failed(NULL, 1, "x", -1, 0, NULL, &err) != OUTBOX_EINVAL;
    bad += outbox_take_wait(NULL, "a", 0, &err) != OUTBOX_EINVAL;
    bad += outbox_take_query_init(&q, "a", 1, &err) != OUTBOX_OK || q.nparams != 2;
    outbox_query_free(&q);
    bad += outbox_take_query_result(NULL, &batch, &err) != OUTBOX_EDB;
    for (i = 0; i < batch.count; i++)
        outbox_batch_job(&batch, i, &job);
    outbox_batch_free(&batch);
    bad += strcmp(outbox_state_name(OUTBOX_CANCELLED), "cancelled") != 0;
    return bad;
}
