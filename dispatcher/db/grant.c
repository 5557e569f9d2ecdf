/* grant.c - prints GRANTs. Owns the lists of who may call what; when a function is added to sql/,
 * it goes on a list here, or nobody but the owner may call it (tests/db/check_grants.c compares).
 */
#include "db/grant.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

enum { ROLE_BYTES_MAX = 63 }; /* NAMEDATALEN - 1: longer names are cut by the server */

static const char *const producer[] = {
    "EXECUTE ON FUNCTION outbox.enqueue",
    "EXECUTE ON FUNCTION outbox.enqueue_bytes",
    "EXECUTE ON FUNCTION outbox.enqueue_plain",
    "EXECUTE ON FUNCTION outbox.enqueue_many",
    "EXECUTE ON FUNCTION outbox.enqueue_row",
    "EXECUTE ON FUNCTION outbox.wake",
    "EXECUTE ON FUNCTION outbox.states",
    "EXECUTE ON FUNCTION outbox.level",
    NULL,
};

static const char *const dispatcher[] = {
    "EXECUTE ON FUNCTION outbox.level",
    "EXECUTE ON FUNCTION outbox.register",
    "EXECUTE ON FUNCTION outbox.unregister",
    "EXECUTE ON FUNCTION outbox.extend",
    "EXECUTE ON FUNCTION outbox.watch",
    "EXECUTE ON FUNCTION outbox.unwatch",
    "EXECUTE ON FUNCTION outbox.wake",
    "EXECUTE ON FUNCTION outbox.claim",
    "EXECUTE ON FUNCTION outbox.settle",
    "EXECUTE ON FUNCTION outbox.release",
    "EXECUTE ON FUNCTION outbox.adopt",
    "EXECUTE ON FUNCTION outbox.take_over",
    "EXECUTE ON FUNCTION outbox.terminate",
    "EXECUTE ON FUNCTION outbox.due",
    "EXECUTE ON FUNCTION outbox.restamp",
    "EXECUTE ON FUNCTION outbox.look",
    "EXECUTE ON FUNCTION outbox.sweep",
    "EXECUTE ON FUNCTION outbox.mend",
    "EXECUTE ON FUNCTION outbox.still_writing",
    "EXECUTE ON FUNCTION outbox.payload",
    "EXECUTE ON FUNCTION outbox.purge_done",
    "EXECUTE ON FUNCTION outbox.purge_dead",
    "EXECUTE ON FUNCTION outbox.purge_attempts",
    "EXECUTE ON FUNCTION outbox.take",
    "EXECUTE ON FUNCTION outbox.take_failed",
    "EXECUTE ON FUNCTION outbox.set_task",
    "EXECUTE ON FUNCTION outbox.cancel",
    "EXECUTE ON FUNCTION outbox.retry",
    "EXECUTE ON FUNCTION outbox.requeue",
    "EXECUTE ON FUNCTION outbox.states",
    "EXECUTE ON FUNCTION outbox.count_jobs",
    "EXECUTE ON FUNCTION outbox.count_matching",
    "EXECUTE ON FUNCTION outbox.can_take",
    "EXECUTE ON FUNCTION outbox.orders",
    "EXECUTE ON FUNCTION outbox.pause",
    "EXECUTE ON FUNCTION outbox.resume",
    "SELECT ON outbox.jobs, outbox.stats, outbox.attempts, outbox.dispatchers, outbox.pauses",
    NULL,
};

static const char *const reader[] = {
    "EXECUTE ON FUNCTION outbox.level",
    "EXECUTE ON FUNCTION outbox.states",
    "EXECUTE ON FUNCTION outbox.count_jobs",
    "EXECUTE ON FUNCTION outbox.count_matching",
    "SELECT ON outbox.jobs, outbox.stats, outbox.attempts, outbox.dispatchers, outbox.pauses",
    NULL,
};

static const char *const *privileges_of(enum grant_kind kind)
{
    switch (kind) {
    case GRANT_PRODUCER:
        return producer;
    case GRANT_DISPATCHER:
        return dispatcher;
    case GRANT_READER:
        return reader;
    }
    return NULL;
}

/* The role as a quoted identifier, at least 2 * ROLE_BYTES_MAX + 3 bytes. */
static void quote_identifier(const char *name, char *ret_quoted)
{
    char *p = ret_quoted;
    *p++ = '"';
    for (; *name != '\0'; name++) {
        if (*name == '"')
            *p++ = '"';
        *p++ = *name;
    }
    *p++ = '"';
    *p = '\0';
}

int grant_print(FILE *out, enum grant_kind kind, const char *role)
{
    const char *const *privileges = privileges_of(kind);
    if (privileges == NULL || role == NULL || role[0] == '\0' || strlen(role) > ROLE_BYTES_MAX ||
        strpbrk(role, "\r\n") != NULL)
        return OB_EINVAL;
    char quoted[2 * ROLE_BYTES_MAX + 3];
    quote_identifier(role, quoted);
    errno = 0;
    int written = fprintf(out, "BEGIN;\nGRANT USAGE ON SCHEMA outbox TO %s;\n", quoted);
    for (; written >= 0 && *privileges != NULL; privileges++)
        written = fprintf(out, "GRANT %s TO %s;\n", *privileges, quoted);
    if (written >= 0)
        written = fputs("COMMIT;\n", out);
    if (written < 0 || fflush(out) != 0)
        return errno != 0 ? -errno : -EIO;
    return 0;
}
