/* pg_target.c - where a connection attempt goes: the connection string, the PG* variables and the
 * service file as libpq itself merges them, and our settings on top. See pgconn_state.h.
 *
 * Touches no network and resolves no name. Called by pgconn.c and pg_lookup.c. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/mem.h"
#include "db/pgconn_state.h"

/* A server that vanished without a word is noticed in 20 to 25 s; the user's own settings win. */
#define KEEPALIVES_IDLE     "10"
#define KEEPALIVES_INTERVAL "5"
#define KEEPALIVES_COUNT    "3"
#define USER_TIMEOUT_MS     "20000"

static const char *option_value(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        if (strcmp(o->keyword, keyword) == 0)
            return o->val != NULL ? o->val : "";
    }
    return "";
}

/* The i-th element of a comma list; a list of one port serves every host. NULL: out of memory. */
static char *list_item(const char *list, size_t i)
{
    for (; i > 0; i--) {
        const char *comma = strchr(list, ',');
        if (comma == NULL)
            break;
        list = comma + 1;
    }
    return ob_strndup(list, strcspn(list, ","));
}

static size_t list_count(const char *list)
{
    size_t n = 1;
    for (const char *p = list; *p != '\0'; p++)
        n += *p == ',';
    return n;
}

bool pg_host_is_name(const struct pg_host *h)
{
    unsigned char address[sizeof(struct in6_addr)];
    if (h->hostaddr[0] != '\0' || h->host[0] == '\0')
        return false;
    if (h->host[0] == '/' || h->host[0] == '@') /* a socket's folder, an abstract socket */
        return false;
    if (inet_pton(AF_INET, h->host, address) == 1)
        return false;
    return strchr(h->host, ':') == NULL; /* IPv6, perhaps with a scope; no name has a colon */
}

void pg_target_clear(struct pg_target *t)
{
    for (size_t i = 0; i < t->count; i++) {
        ob_free(t->hosts[i].host);
        ob_free(t->hosts[i].hostaddr);
        ob_free(t->hosts[i].port);
    }
    memset(t, 0, sizeof *t);
}

static int split_hosts(struct pg_target *t, const PQconninfoOption *options)
{
    const char *host = option_value(options, "host");
    const char *hostaddr = option_value(options, "hostaddr");
    const char *port = option_value(options, "port");
    size_t n = list_count(hostaddr[0] != '\0' ? hostaddr : host);
    bool is_odd = (hostaddr[0] != '\0' && host[0] != '\0' && list_count(host) != n) ||
                  (list_count(port) != 1 && list_count(port) != n) || n > PG_HOSTS_MAX;
    if (is_odd)
        return 0; /* left to libpq, which refuses it in its own words */
    for (size_t i = 0; i < n; i++) {
        struct pg_host *h = &t->hosts[t->count++];
        h->host = list_item(host, i);
        h->hostaddr = list_item(hostaddr, i);
        h->port = list_item(port, i);
        if (h->host == NULL || h->hostaddr == NULL || h->port == NULL)
            return OB_ENOMEM;
        t->has_names = t->has_names || pg_host_is_name(h);
    }
    return 0;
}

/* target_session_attrs has a compiled-in default, which hides whether somebody chose it. */
static bool attrs_chosen(const char *conninfo, const PQconninfoOption *merged)
{
    if (strcmp(option_value(merged, "target_session_attrs"), "any") != 0)
        return true;
    if (getenv("PGTARGETSESSIONATTRS") != NULL)
        return true;
    PQconninfoOption *given = PQconninfoParse(conninfo, NULL);
    bool chosen = option_value(given, "target_session_attrs")[0] != '\0';
    PQconninfoFree(given);
    return chosen;
}

/* libpq merges connection string, environment and service file only on the way to a connection. So
 * one is begun that can't start: libpq refuses this value after merging and before any socket. */
static PGconn *merge_only(const char *conninfo)
{
    const char *keywords[] = {"dbname", "channel_binding", NULL};
    const char *values[] = {conninfo, "merge-only", NULL};
    return PQconnectStartParams(keywords, values, 1);
}

int pg_target_read(struct pg_target *t, const char *conninfo, struct pg_error *reterr)
{
    memset(t, 0, sizeof *t);
    PGconn *probe = merge_only(conninfo);
    PQconninfoOption *options = probe != NULL ? PQconninfo(probe) : NULL;
    int err = 0;
    if (options == NULL) {
        err = OB_ENOMEM;
        pg_error_set(reterr, OB_ECONN, "out of memory");
    } else if (option_value(options, "port")[0] ==
               '\0') { /* has a default: so nothing was merged */
        err = OB_ECONN;
        pg_error_from_conn(reterr, probe);
    } else {
        t->set_idle = option_value(options, "keepalives_idle")[0] == '\0';
        t->set_interval = option_value(options, "keepalives_interval")[0] == '\0';
        t->set_count = option_value(options, "keepalives_count")[0] == '\0';
        t->set_user_timeout = option_value(options, "tcp_user_timeout")[0] == '\0';
        t->set_attrs = !attrs_chosen(conninfo, options);
        err = split_hosts(t, options);
        if (err != 0)
            pg_error_set(reterr, OB_ECONN, "out of memory");
    }
    PQconninfoFree(options);
    PQfinish(probe);
    if (err != 0)
        pg_target_clear(t);
    return err;
}

/* The hosts' members as comma lists, beginning behind the first `rotation` hosts. */
static void join_hosts(const struct pg_target *t, unsigned rotation, struct buf lists[3])
{
    for (size_t i = 0; i < t->count; i++) {
        const struct pg_host *h = &t->hosts[(i + rotation) % t->count];
        const char *members[3] = {h->host, h->hostaddr, h->port};
        for (size_t m = 0; m < 3; m++) {
            if (i > 0)
                buf_putc(&lists[m], ',');
            buf_puts(&lists[m], members[m]);
        }
    }
}

enum { KEYWORDS_MAX = 16 };
struct params {
    const char *keywords[KEYWORDS_MAX];
    const char *values[KEYWORDS_MAX];
    size_t count;
};

static void put(struct params *p, bool wanted, const char *keyword, const char *value)
{
    if (!wanted)
        return;
    ob_assert(p->count < KEYWORDS_MAX - 1); /* the last stays NULL */
    p->keywords[p->count] = keyword;
    p->values[p->count] = value;
    p->count++;
}

PGconn *pg_target_connect(const struct pg_target *t, const struct pgconn *c, bool use_hosts)
{
    struct buf lists[3];
    for (size_t m = 0; m < 3; m++)
        buf_init(&lists[m], (size_t)1 << 20);
    if (use_hosts)
        join_hosts(t, c->rotation, lists);
    PGconn *pq = NULL;
    if (lists[0].err != 0 || lists[1].err != 0 || lists[2].err != 0)
        goto out;
    struct params p = {.count = 0};
    put(&p, true, "dbname", c->conninfo); /* expanded; what follows overrides it */
    put(&p, use_hosts, "host", lists[0].data);
    put(&p, use_hosts, "hostaddr", lists[1].data);
    put(&p, use_hosts, "port", lists[2].data);
    put(&p, c->application_name != NULL, "application_name", c->application_name);
    put(&p, true, "client_encoding", "UTF8");
    put(&p, t->set_idle, "keepalives_idle", KEEPALIVES_IDLE);
    put(&p, t->set_interval, "keepalives_interval", KEEPALIVES_INTERVAL);
    put(&p, t->set_count, "keepalives_count", KEEPALIVES_COUNT);
    put(&p, t->set_user_timeout, "tcp_user_timeout", USER_TIMEOUT_MS);
    put(&p, t->set_attrs, "target_session_attrs", "read-write");
    pq = PQconnectStartParams(p.keywords, p.values, 1);
out:
    for (size_t m = 0; m < 3; m++)
        buf_deinit(&lists[m]);
    return pq;
}
