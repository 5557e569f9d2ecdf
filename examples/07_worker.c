/* 07_worker.c - a resident worker: counts the words of the texts it is given.
 *
 *   tasks: { count-words: { worker: [/path/to/07_worker] } }
 *   outbox enqueue count-words '"two words"' */
#include <ctype.h>
#include <stdio.h>

#include <outbox/worker.h>

static void handle(const struct outbox_worker_job *job, struct outbox_worker_reply *reply)
{
    const char *text = (const char *)job->payload;
    int words = 0;
    if (job->payload_len < 2 || text[0] != '"') {
        outbox_worker_dead(reply, "the payload is not a text"); /* again would not help */
        return;
    }
    for (size_t i = 1; i < job->payload_len; i++) {
        if (isalnum((unsigned char)text[i]) && !isalnum((unsigned char)text[i - 1]))
            words++;
    }
    (void)printf("job %s, attempt %d: %d words\n", job->id, job->attempt, words); /* to the log */
    (void)fflush(stdout);
} /* nothing said: the job is done */

int main(void)
{
    return outbox_worker_run(handle, NULL);
}
