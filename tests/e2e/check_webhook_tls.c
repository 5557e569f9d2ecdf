/* check_webhook_tls.c - certificates and proxies. The TLS server is `openssl s_server -WWW` with
 * certificates made here; it answers only GET, which the configuration would refuse. */
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

static void write_pem(const struct tls_server *s, X509 *certificate, EVP_PKEY *key)
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
static void make_certificate(const struct tls_server *s, const char *subject_alt_name, long valid_s)
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
static int logged_port(const struct tls_server *s)
{
    char *text = read_file_from(s->log, 0, NULL);
    const char *at = text != NULL ? strstr(text, "ACCEPT 127.0.0.1:") : NULL;
    int port =
        at != NULL && strchr(at, '\n') != NULL ? (int)strtol(strchr(at, ':') + 1, NULL, 10) : 0;
    free(text);
    return port;
}

static void tls_server_start(struct tls_server *s, const char *subject_alt_name, long valid_s)
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
        (void)execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                     s->certificate, "-key", s->key, "-WWW", (char *)NULL);
        _exit(127);
    }
    s->port = 0;
    ck_assert(wait_until((s->port = logged_port(s)) != 0, 20000));
}

static char get[] = "GET";

static void tls_fixture(struct fixture *f, const struct tls_server *s)
{
    fixture_defaults(f);
    fixture_url(f, "https", s->port);
    f->task.webhook.method = get;
    fixture_open(f, 4);
}

static void expect_tls_error(const struct outcome *o)
{
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    ck_assert_msg(strncmp(o->reason, "tls: ", 5) == 0, "%s", o->reason);
}

START_TEST(a_certificate_is_refused_unless_its_authority_is_known)
{
    struct tls_server server = {.pid = -1};
    struct fixture f;
    tls_server_start(&server, "IP:127.0.0.1", 3600);
    tls_fixture(&f, &server);
    expect_tls_error(deliver(&f));
    f.task.webhook.ca_file = server.certificate;
    fixture_reload(&f);
    const struct outcome *o = deliver(&f);
    ck_assert_msg(o->kind == OUTCOME_DONE, "%s", o->reason);
    ck_assert_str_eq(o->head, "served");
    /* Trust given to one task is not another's. */
    f.task.webhook.ca_file = NULL;
    fixture_reload(&f);
    expect_tls_error(deliver(&f));
    fixture_close(&f);
    child_kill(server.pid);
}
END_TEST

START_TEST(a_certificate_of_another_host_is_refused)
{
    struct tls_server server = {.pid = -1};
    struct fixture f;
    tls_server_start(&server, "DNS:other.example.org", 3600);
    tls_fixture(&f, &server);
    f.task.webhook.ca_file = server.certificate;
    fixture_reload(&f);
    expect_tls_error(deliver(&f));
    fixture_close(&f);
    child_kill(server.pid);
}
END_TEST

START_TEST(an_expired_certificate_is_refused_unless_nothing_is_verified)
{
    struct tls_server server = {.pid = -1};
    struct fixture f;
    tls_server_start(&server, "IP:127.0.0.1", -3600);
    tls_fixture(&f, &server);
    f.task.webhook.ca_file = server.certificate;
    fixture_reload(&f);
    expect_tls_error(deliver(&f));
    f.task.webhook.tls_verify = false;
    fixture_reconfigure(&f);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    f.task.webhook.tls_verify = true;
    fixture_reconfigure(&f);
    expect_tls_error(deliver(&f));
    fixture_close(&f);
    child_kill(server.pid);
}
END_TEST

START_TEST(a_server_that_speaks_no_tls_is_retried)
{
    static const struct httpstub_answer answer = {.raw = "HTTP/1.1 200 OK\r\n\r\n",
                                                  .close_after = 1};
    struct fixture f;
    fixture_start(&f, &answer, 1);
    fixture_url(&f, "https", f.stub.port);
    f.task.timeout_ms = 500; /* the stub waits for the end of a request that never comes */
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    fixture_stop(&f);
}
END_TEST

/* ---- Proxies ---- */

START_TEST(proxies_of_the_environment_are_ignored)
{
    static const struct httpstub_answer ok = {.status = 200};
    static const char *const names[] = {"http_proxy",  "HTTP_PROXY", "https_proxy",
                                        "HTTPS_PROXY", "all_proxy",  "ALL_PROXY"};
    struct fixture f;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        ck_assert_int_eq(setenv(names[i], "http://127.0.0.1:1/", 1), 0);
    fixture_start(&f, &ok, 1);
    const struct outcome *o = deliver(&f);
    ck_assert_msg(o->kind == OUTCOME_DONE, "%s", o->reason);
    fixture_stop(&f);
}
END_TEST

/* The stub is the proxy: it is asked for the whole URL of a host that nobody resolves. */
START_TEST(a_configured_proxy_is_used_whatever_the_environment_says)
{
    static const struct httpstub_answer ok = {.status = 202};
    struct fixture f;
    char proxy[64];
    ck_assert_int_eq(setenv("no_proxy", "*", 1), 0);
    ck_assert_int_eq(setenv("NO_PROXY", "*", 1), 0);
    fixture_start(&f, &ok, 1);
    (void)snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", f.stub.port);
    (void)snprintf(f.url, sizeof f.url, "http://no-such-host.invalid/hook");
    f.task.webhook.proxy = proxy;
    const struct outcome *o = deliver(&f);
    ck_assert_msg(o->http_status == 202, "%s", o->reason);
    static const char expected[] = "POST http://no-such-host.invalid/hook HTTP/1.1\r\n";
    ck_assert_int_eq(strncmp(httpstub_request(&f.stub, 0), expected, sizeof expected - 1), 0);
    fixture_stop(&f);
}
END_TEST

/* What a proxy says to CONNECT is no answer to the job. */
START_TEST(the_answer_of_a_proxy_to_connect_counts_for_nothing)
{
    static const struct httpstub_answer answers[] = {
        {.raw = "HTTP/1.1 200 Connection established\r\n\r\n", .close_after = 1},
        {.raw = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", .close_after = 1},
        {.raw = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", .close_after = 1},
    };
    struct fixture f;
    char proxy[64];
    fixture_start(&f, &answers[_i], 1);
    (void)snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", f.stub.port);
    (void)snprintf(f.url, sizeof f.url, "https://no-such-host.invalid/hook");
    f.task.webhook.proxy = proxy;
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    ck_assert_int_eq(strncmp(httpstub_request(&f.stub, 0), "CONNECT no-such-host.invalid:443 ", 33),
                     0);
    fixture_stop(&f);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook tls");
    TCase *tc = tcase_create("certificates");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_certificate_is_refused_unless_its_authority_is_known);
    tcase_add_test(tc, a_certificate_of_another_host_is_refused);
    tcase_add_test(tc, an_expired_certificate_is_refused_unless_nothing_is_verified);
    tcase_add_test(tc, a_server_that_speaks_no_tls_is_retried);
    suite_add_tcase(s, tc);

    tc = tcase_create("proxies");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, proxies_of_the_environment_are_ignored);
    tcase_add_test(tc, a_configured_proxy_is_used_whatever_the_environment_says);
    tcase_add_loop_test(tc, the_answer_of_a_proxy_to_connect_counts_for_nothing, 0, 3);
    suite_add_tcase(s, tc);
    return s;
}
