/* faultproxy.h - a proxy in a child process between a client and a server (PostgreSQL's Unix
 * socket, or a TCP port), that fails on command. */
#ifndef OB_TEST_FAULTPROXY_H
#define OB_TEST_FAULTPROXY_H

#include <stddef.h>
#include <sys/types.h>

struct faultproxy {
    pid_t pid;
    int port; /* listens on 127.0.0.1 */
    int control_fd;
};

/* target: "/tmp/obXXXX/.s.PGSQL.5432" or "127.0.0.1:PORT". Passes everything through. */
void faultproxy_start(struct faultproxy *p, const char *target);
void faultproxy_stop(struct faultproxy *p);
void faultproxy_pass(struct faultproxy *p);
void faultproxy_stall(struct faultproxy *p); /* keeps connections, moves no byte */
void faultproxy_cut_after(struct faultproxy *p,
                          size_t server_bytes); /* closes every connection once so many bytes came
                                                   from the server from now on */
void faultproxy_reset(struct faultproxy *p);    /* RST on all connections now */
void faultproxy_refuse(struct faultproxy *p);   /* new connections are closed at once */
/* PostgreSQL only, without encryption. No Sync message passes from now on, all before it does: the
 * server is left in the middle of a pipeline's transaction. Connections made before this call
 * count too. Ends with faultproxy_pass. */
void faultproxy_hold_syncs(struct faultproxy *p);
/* Lets one Sync go on each connection that is held at one; returns how many were. */
size_t faultproxy_let_syncs_go(struct faultproxy *p);
/* The clients of all connections are reset; the server's side of each stays, with what is held back
 * for it, and the server notices nothing until faultproxy_deliver. */
void faultproxy_abandon(struct faultproxy *p);
void faultproxy_deliver(struct faultproxy *p);    /* what was held for them goes to the server */
void faultproxy_half_close(struct faultproxy *p); /* shutdown(SHUT_WR) towards the client */

#endif
