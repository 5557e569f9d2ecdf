/* pg_lookup.c - host names to addresses by uv_getaddrinfo, one name after the other, so that
 * PQconnectPoll never waits for a name server. See pgconn_state.h.
 *
 * The names of one attempt; called by pgconn.c alone. libuv's threads can't be interrupted: the
 * lookup lives until its callback, and pgconn_close waits for that. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/mem.h"
#include "db/pgconn_state.h"

enum { ADDRESSES_MAX = 8 }; /* of one name */
enum { ADDRESS_SIZE = 64 }; /* numeric IPv6 with a scope */

struct name {
    char *host;
    int err; /* libuv's, of the lookup */
    size_t count;
    char addresses[ADDRESSES_MAX][ADDRESS_SIZE];
};

struct pg_lookup {
    uv_getaddrinfo_t req;
    struct pgconn *conn;
    struct name names[PG_HOSTS_MAX];
    size_t count;
    size_t current;
};

void pg_lookup_free(struct pg_lookup *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->count; i++)
        ob_free(l->names[i].host);
    ob_free(l);
}

static const struct name *find_name(const struct pg_lookup *l, const char *host)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->names[i].host, host) == 0)
            return &l->names[i];
    }
    return NULL;
}

static void keep_addresses(struct name *name, const struct addrinfo *list)
{
    for (const struct addrinfo *a = list; a != NULL && name->count < ADDRESSES_MAX;
         a = a->ai_next) {
        char *out = name->addresses[name->count];
        int err =
            getnameinfo(a->ai_addr, a->ai_addrlen, out, ADDRESS_SIZE, NULL, 0, NI_NUMERICHOST);
        if (err == 0)
            name->count++;
    }
    if (name->count == 0)
        name->err = UV_EAI_NODATA;
}

static int look_up_current(struct pg_lookup *l);

static void on_addresses(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct pg_lookup *l = req->data;
    struct name *name = &l->names[l->current];
    name->err = status;
    if (status == 0)
        keep_addresses(name, list);
    uv_freeaddrinfo(list);
    l->current++;
    if (status != UV_ECANCELED && l->conn->state != PGCONN_CLOSING && l->current < l->count) {
        int err = look_up_current(l);
        if (err == 0)
            return;
        for (; l->current < l->count; l->current++)
            l->names[l->current].err = err;
    }
    pgconn_on_lookup(l->conn);
}

static int look_up_current(struct pg_lookup *l)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    l->req.data = l;
    return uv_getaddrinfo(l->conn->loop, &l->req, on_addresses, l->names[l->current].host, NULL,
                          &hints);
}

int pg_lookup_start(struct pgconn *c, const struct pg_target *t)
{
    ob_assert(c->lookup == NULL);
    ob_assert(t->has_names);
    struct pg_lookup *l = ob_calloc(1, sizeof *l);
    if (l == NULL)
        return OB_ENOMEM;
    l->conn = c;
    int err = 0;
    for (size_t i = 0; i < t->count && err == 0; i++) {
        if (!pg_host_is_name(&t->hosts[i]) || find_name(l, t->hosts[i].host) != NULL)
            continue;
        l->names[l->count].host = ob_strdup(t->hosts[i].host);
        if (l->names[l->count].host == NULL)
            err = OB_ENOMEM;
        else
            l->count++;
    }
    if (err == 0)
        err = look_up_current(l);
    if (err != 0) {
        pg_lookup_free(l);
        return err;
    }
    c->lookup = l;
    return 0;
}

/* Appends h under an address (NULL: as it is). More than fit are left out. */
static int add_host(struct pg_target *t, const struct pg_host *h, const char *address)
{
    if (t->count == PG_HOSTS_MAX)
        return 0;
    struct pg_host *to = &t->hosts[t->count++];
    to->host = ob_strdup(h->host);
    to->hostaddr = ob_strdup(address != NULL ? address : h->hostaddr);
    to->port = ob_strdup(h->port);
    return to->host != NULL && to->hostaddr != NULL && to->port != NULL ? 0 : OB_ENOMEM;
}

static int add_name(struct pg_target *t, const struct pg_lookup *l, const struct pg_host *h,
                    struct pg_error *reterr)
{
    const struct name *name = find_name(l, h->host);
    if (name == NULL || name->count == 0) {
        char message[sizeof reterr->message];
        (void)snprintf(message, sizeof message, "could not look up host \"%.100s\": %s", h->host,
                       name != NULL ? ob_strerror(name->err) : "not tried");
        pg_error_set(reterr, OB_ECONN, message);
        return 0;
    }
    int err = 0;
    for (size_t i = 0; i < name->count && err == 0; i++)
        err = add_host(t, h, name->addresses[i]);
    return err;
}

int pg_lookup_apply(const struct pg_lookup *l, struct pg_target *t, struct pg_error *reterr)
{
    struct pg_target found = *t;
    found.count = 0;
    found.has_names = false;
    int err = 0;
    for (size_t i = 0; i < t->count && err == 0; i++) {
        const struct pg_host *h = &t->hosts[i];
        err = pg_host_is_name(h) ? add_name(&found, l, h, reterr) : add_host(&found, h, NULL);
    }
    if (err != 0) {
        pg_error_set(reterr, OB_ECONN, "out of memory");
        pg_target_clear(&found);
        return err;
    }
    pg_target_clear(t);
    *t = found;
    return t->count > 0 ? 0 : OB_ECONN;
}

void pg_lookup_cancel(struct pg_lookup *l)
{
    (void)uv_cancel(
        (uv_req_t *)&l->req); /* fails if a thread is at it: then its callback comes later */
}
