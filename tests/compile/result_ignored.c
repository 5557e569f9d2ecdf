/* Must NOT compile: ignoring the result of an enqueue is a warning, and here an error. */
#include <outbox/outbox.h>

int main(void)
{
    struct outbox_job job = OUTBOX_JOB("task");

    outbox_enqueue(NULL, &job, NULL, NULL);
    return 0;
}
