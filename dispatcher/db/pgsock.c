/* pgsock.c - the socket that libpq has just now, watched on the loop. See pgconn_state.h.
 *
 * One handle a socket, with a changing mask: a second handle on the same socket is refused by libuv
 * (UV_EEXIST). Knows nothing of states; called by pgconn.c and pgpipe.c. */
#include "base/assert.h"
#include "base/mem.h"
#include "db/pgconn_state.h"

static void on_closed(uv_handle_t *handle)
{
    struct pgsock *s = handle->data;
    struct pgconn *c = s->conn;
    ob_free(s);
    pgconn_handle_closed(c);
}

void pgsock_close(struct pgconn *c)
{
    if (c->sock == NULL)
        return;
    (void)uv_poll_stop(&c->sock->poll);
    uv_close((uv_handle_t *)&c->sock->poll, on_closed);
    c->sock = NULL;
}

void pgsock_stop(struct pgconn *c)
{
    if (c->sock == NULL)
        return;
    (void)uv_poll_stop(&c->sock->poll);
    c->sock->events = 0;
}

static int sock_open(struct pgconn *c, int fd)
{
    struct pgsock *s = ob_calloc(1, sizeof *s);
    if (s == NULL)
        return OB_ENOMEM;
    int err = uv_poll_init(c->loop, &s->poll, fd);
    if (err != 0) {
        ob_free(s);
        return err;
    }
    s->poll.data = s;
    s->conn = c;
    s->fd = fd;
    c->sock = s;
    c->handles_open++;
    return 0;
}

void pgsock_watch(struct pgconn *c, int events)
{
    ob_assert(c->pq != NULL);
    if (events == 0) {
        pgsock_stop(c);
        return;
    }
    int fd = PQsocket(c->pq);
    if (fd < 0) {
        pgconn_down_from_pq(c);
        return;
    }
    int err = 0;
    if (c->sock != NULL && c->sock->fd != fd)
        pgsock_close(c);
    if (c->sock == NULL)
        err = sock_open(c, fd);
    if (err == 0 && c->sock->events != events) {
        c->sock->events = events;
        err = uv_poll_start(&c->sock->poll, events, pgconn_on_socket);
    }
    if (err != 0)
        pgconn_fail(c, err, ob_strerror(err));
}
