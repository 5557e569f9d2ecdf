/* tls_fixture.h - what the tests of certificates share: `openssl s_server -WWW` with certificates
 * made here. It answers only GET. */
#ifndef OB_TEST_TLS_FIXTURE_H
#define OB_TEST_TLS_FIXTURE_H

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "child.h"
#include "daemon.h"
#include "webhook_fixture.h"

/* ---- A server with a certificate ---- */

struct tls_server {
    pid_t pid;
    int port;
    char certificate[160];
    char key[160];
    char log[160];
};

static inline void write_pem(const struct tls_server *s, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(s->certificate, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(PEM_write_X509(file, certificate), 1);
    ck_assert_int_eq(fclose(file), 0);
    file = fopen(s->key, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    ck_assert_int_eq(fclose(file), 0);
}

/* A self-signed certificate for `subject_alt_name`, valid from a day ago for so many seconds from
 * now. */
static inline void make_certificate(const struct tls_server *s, const char *subject_alt_name,
                                    long valid_s)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    ck_assert_ptr_nonnull(key);
    ck_assert_ptr_nonnull(certificate);
    (void)X509_set_version(certificate, X509_VERSION_3);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), valid_s);
    (void)X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1,
                                     -1, 0);
    (void)X509_set_issuer_name(certificate, name);
    X509_EXTENSION *extension =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, subject_alt_name);
    ck_assert_ptr_nonnull(extension);
    ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    write_pem(s, certificate, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* "ACCEPT 127.0.0.1:37459" in the server's log; 0: not yet. */
static inline int logged_port(const struct tls_server *s)
{
    char *text = read_file_from(s->log, 0, NULL);
    const char *at = text != NULL ? strstr(text, "ACCEPT 127.0.0.1:") : NULL;
    int port =
        at != NULL && strchr(at, '\n') != NULL ? (int)strtol(strchr(at, ':') + 1, NULL, 10) : 0;
    free(text);
    return port;
}

/* Another certificate and key of its own, in files named after it. */
static inline void make_identity(struct tls_server *s, const char *name)
{
    (void)snprintf(s->certificate, sizeof s->certificate, "%s/%s.pem", test_dir(), name);
    (void)snprintf(s->key, sizeof s->key, "%s/%s.key", test_dir(), name);
    make_certificate(s, "DNS:client.example.org", 3600);
}

/* client_ca: clients must show a certificate of it; NULL: nobody asks them. */
static inline void tls_server_start_asking(struct tls_server *s, const char *subject_alt_name,
                                           long valid_s, const char *client_ca)
{
    (void)snprintf(s->certificate, sizeof s->certificate, "%s/certificate.pem", test_dir());
    (void)snprintf(s->key, sizeof s->key, "%s/key.pem", test_dir());
    (void)snprintf(s->log, sizeof s->log, "%s/s_server.log", test_dir());
    (void)test_file("hook", "served", 0644);
    char dir[96]; /* the child's own test_dir() would be another */
    (void)snprintf(dir, sizeof dir, "%s", test_dir());
    make_certificate(s, subject_alt_name, valid_s);
    s->pid = child_fork(SIGKILL);
    if (s->pid == 0) {
        int fd = open(s->log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(dir) != 0)
            _exit(126);
        if (client_ca == NULL)
            (void)execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                         s->certificate, "-key", s->key, "-WWW", (char *)NULL);
        else
            (void)execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                         s->certificate, "-key", s->key, "-WWW", "-Verify", "1",
                         "-verify_return_error", "-CAfile", client_ca, (char *)NULL);
        _exit(127);
    }
    s->port = 0;
    ck_assert(wait_until((s->port = logged_port(s)) != 0, 20000));
}

static inline void tls_server_start(struct tls_server *s, const char *subject_alt_name,
                                    long valid_s)
{
    tls_server_start_asking(s, subject_alt_name, valid_s, NULL);
}

static char get[] = "GET"; /* all that s_server -WWW answers; the configuration would refuse it */

static inline void tls_fixture(struct fixture *f, const struct tls_server *s)
{
    fixture_defaults(f);
    fixture_url(f, "https", s->port);
    f->task.webhook.method = get;
    fixture_open(f, 4);
}

static inline void expect_tls_error(const struct outcome *o)
{
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    ck_assert_msg(strncmp(o->reason, "tls: ", 5) == 0, "%s", o->reason);
}

#endif
