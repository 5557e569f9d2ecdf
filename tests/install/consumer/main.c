/* Uses the installed headers and libpq; prints the header's version. Built as C++ by main.cpp. */
#include <outbox/consumer.h>

int main(void)
{
    struct outbox_payload payload;
    struct outbox_job job = OUTBOX_JOB("task");
    struct outbox_error err;
    PGconn *conn = PQconnectdb("host=/nonexistent");
    int rc;

    outbox_payload_init(&payload);
    (void)outbox_put_int(&payload, "a", 1);
    job.payload = &payload;
    rc = outbox_enqueue(conn, &job, NULL, &err);
    outbox_payload_free(&payload);
    PQfinish(conn);
    puts(OUTBOX_VERSION_STRING);
    return rc == OUTBOX_ECONN ? 0 : 1;
}
