/* check_pgconn_tls.c - the same connection through TLS: what the TLS layer holds back must not be
 * waited for on the socket. The certificate is made here; the server listens on a loopback address
 * of this process's own. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pgcluster.h"
#include "pgrig.h"

static char dir[] = "/tmp/obtlsXXXXXX";
static char cert_path[64];
static char key_path[64];
static char address[32];

static void write_pem(const char *path, EVP_PKEY *key, X509 *cert)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    int ok = cert != NULL ? PEM_write_X509(f, cert)
                          : PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    ck_assert_int_eq(ok, 1);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(chmod(path, 0600), 0);
    const struct passwd *owner = getuid() == 0 ? getpwnam("postgres") : NULL;
    if (owner != NULL)
        ck_assert_int_eq(chown(path, owner->pw_uid, owner->pw_gid), 0);
}

static void make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    ck_assert_ptr_nonnull(key);
    ck_assert_ptr_nonnull(cert);
    X509_NAME *name = X509_get_subject_name(cert);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    (void)X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    (void)X509_set_pubkey(cert, key);
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                     (const unsigned char *)"pgoutbox test", -1, -1, 0);
    (void)X509_set_issuer_name(cert, name);
    ck_assert_int_gt(X509_sign(cert, key, EVP_sha256()), 0);
    write_pem(cert_path, NULL, cert);
    write_pem(key_path, key, NULL);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void start(void)
{
    static char settings[3][96];
    static const char *options[] = {"ssl=on", settings[0], settings[1], settings[2], NULL};
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chmod(dir, 0755), 0);
    (void)snprintf(cert_path, sizeof cert_path, "%s/cert.pem", dir);
    (void)snprintf(key_path, sizeof key_path, "%s/key.pem", dir);
    make_certificate();
    unsigned pid = (unsigned)getpid();
    (void)snprintf(address, sizeof address, "127.%u.%u.%u", 1 + (pid >> 16 & 63), pid >> 8 & 255,
                   1 + (pid & 127));
    (void)snprintf(settings[0], sizeof settings[0], "ssl_cert_file=%s", cert_path);
    (void)snprintf(settings[1], sizeof settings[1], "ssl_key_file=%s", key_path);
    (void)snprintf(settings[2], sizeof settings[2], "listen_addresses=%s", address);
    pgcluster_set_options(options);
    pgcluster_start();
}

static void stop(void)
{
    pgcluster_stop();
    (void)unlink(cert_path);
    (void)unlink(key_path);
    (void)rmdir(dir);
}

static struct pgrig r;

static void open_rig(void)
{
    static char text[256];
    char name[64];
    testdb_create_empty();
    FILE *hba = fopen(testdb_value("show hba_file"), "a");
    ck_assert_ptr_nonnull(hba);
    (void)fprintf(hba, "hostssl all all 127.0.0.0/8 trust\n");
    ck_assert_int_eq(fclose(hba), 0);
    testdb_exec("select pg_reload_conf()");
    ck_assert_int_eq(sscanf(strstr(testdb_conninfo(), "dbname=") + 7, "%63s", name), 1);
    (void)snprintf(text, sizeof text, "host=%s sslmode=require user=postgres dbname=%s", address,
                   name);
    rig_open_up(&r, text);
    ck_assert_str_eq(rig_value(&r, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"),
                     "t");
}

static void close_rig(void)
{
    ck_assert_uint_eq(r.downs, 0);
    rig_close(&r);
    testdb_drop();
}

START_TEST(results_of_every_size_arrive_through_tls)
{
    struct reply reply;
    for (size_t bytes = 1; bytes < (size_t)4 << 20; bytes = bytes * 3 + 1) {
        char sql[96];
        (void)snprintf(sql, sizeof sql, "select repeat('x', %zu)", bytes);
        memset(&reply, 0, sizeof reply);
        rig_send(&r, sql, &reply);
        rig_until(&r, reply.is_done);
        ck_assert_int_eq(reply.error.err, 0);
        ck_assert_int_eq(PQgetlength(reply.results[0], 0, 0), (int)bytes);
        reply_clear(&reply);
    }
}
END_TEST

START_TEST(large_parameters_and_results_cross_through_tls)
{
    enum { BYTES = 3 << 20, STATEMENTS = 8 };
    char *big = malloc(BYTES);
    ck_assert_ptr_nonnull(big);
    memset(big, 'x', BYTES);
    const char *values[] = {big};
    const int lengths[] = {BYTES};
    const int formats[] = {1};
    struct reply reply = {.is_done = false};
    struct pgbatch *b = pgbatch_new();
    for (size_t i = 0; i < STATEMENTS; i++)
        pgbatch_add(b, "select $1::bytea", true, 1, NULL, values, lengths, formats, true);
    rig_submit(&r, b, &reply);
    rig_until(&r, reply.is_done);
    ck_assert_int_eq(reply.error.err, 0);
    for (size_t i = 0; i < STATEMENTS; i++)
        ck_assert_int_eq(PQgetlength(reply.results[i], 0, 0), BYTES);
    reply_clear(&reply);
    free(big);
}
END_TEST

START_TEST(notifications_arrive_through_tls)
{
    (void)rig_value(&r, "listen jobs");
    testdb_exec("select pg_notify('jobs', n::text) from generate_series(1, 5000) n");
    rig_until(&r, r.notifies == 5000);
}
END_TEST

START_TEST(a_terminated_backend_gives_its_reason_through_tls)
{
    char sql[96];
    (void)snprintf(sql, sizeof sql, "select pg_terminate_backend(%d)", pgconn_backend_pid(r.conn));
    testdb_exec(sql);
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "57P01");
    rig_until(&r, r.is_up);
    r.downs = 0; /* as the fixture expects */
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("pgconn through TLS");
    TCase *tc = tcase_create("tls");
    tcase_add_unchecked_fixture(tc, start, stop);
    tcase_add_checked_fixture(tc, open_rig, close_rig);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_test(tc, results_of_every_size_arrive_through_tls);
    tcase_add_test(tc, large_parameters_and_results_cross_through_tls);
    tcase_add_test(tc, notifications_arrive_through_tls);
    tcase_add_test(tc, a_terminated_backend_gives_its_reason_through_tls);
    suite_add_tcase(s, tc);
    return s;
}
