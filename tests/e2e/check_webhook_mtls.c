/* check_webhook_mtls.c - certificates of ours, and authorities of the operator's: shown, refused,
 * replaced; and what is said of files that will not do. */
#include "tls_fixture.h"

#include "base/config.h"

struct world {
    struct tls_server server;
    struct tls_server client; /* its certificate is the authority of the clients */
    struct fixture f;
};

static void copy_file(const char *from, const char *to)
{
    char *text = read_file_from(from, 0, NULL);
    FILE *file = fopen(to, "w");
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
    free(text);
}

static void world_start(struct world *w)
{
    make_identity(&w->client, "client");
    tls_server_start_asking(&w->server, "IP:127.0.0.1", 3600, w->client.certificate);
    tls_fixture(&w->f, &w->server);
    w->f.task.webhook.ca_file = w->server.certificate;
    w->f.task.webhook.client_cert = w->client.certificate;
    w->f.task.webhook.client_key = w->client.key;
    fixture_reload(&w->f);
}

static void world_stop(struct world *w)
{
    fixture_close(&w->f);
    child_kill(w->server.pid);
}

static void expect_served(struct fixture *f)
{
    const struct outcome *o = deliver(f);
    ck_assert_msg(o->kind == OUTCOME_DONE, "%s", o->reason);
    ck_assert_str_eq(o->head, "served");
}

/* TLS 1.3 hears of a refusal only when it reads: as an alert, or as a reset. */
static void expect_turned_away(struct fixture *f)
{
    const struct outcome *o = deliver(f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    ck_assert(!o->misconfigured);
}

START_TEST(a_client_certificate_is_shown_to_who_asks)
{
    struct world w;
    world_start(&w);
    expect_served(&w.f);
    w.f.task.webhook.client_cert = NULL;
    w.f.task.webhook.client_key = NULL;
    fixture_reload(&w.f);
    expect_turned_away(&w.f);
    world_stop(&w);
}
END_TEST

START_TEST(certificate_and_key_may_share_a_file)
{
    struct world w;
    char both[160];
    world_start(&w);
    char *certificate = read_file_from(w.client.certificate, 0, NULL);
    char *key = read_file_from(w.client.key, 0, NULL);
    char text[8192];
    (void)snprintf(text, sizeof text, "%s%s", key, certificate);
    (void)snprintf(both, sizeof both, "%s", test_file("both.pem", text, 0600));
    free(certificate);
    free(key);
    w.f.task.webhook.client_cert = both;
    w.f.task.webhook.client_key = NULL;
    fixture_reload(&w.f);
    expect_served(&w.f);
    world_stop(&w);
}
END_TEST

/* The files of another identity, copied over ours: nothing changes before the reload, and then the
 * next connection shows them. No kept connection of before is used for what is configured now. */
START_TEST(replaced_files_count_from_the_reload_on)
{
    struct world w;
    struct tls_server stranger;
    char kept_certificate[200];
    char kept_key[200];
    world_start(&w);
    make_identity(&stranger, "stranger");
    (void)snprintf(kept_certificate, sizeof kept_certificate, "%s.kept", w.client.certificate);
    (void)snprintf(kept_key, sizeof kept_key, "%s.kept", w.client.key);
    copy_file(w.client.certificate, kept_certificate);
    copy_file(w.client.key, kept_key);

    copy_file(stranger.certificate, w.client.certificate);
    copy_file(stranger.key, w.client.key);
    expect_served(&w.f); /* s_server ends each connection: this is a new handshake, with the old */
    fixture_reload(&w.f);
    expect_turned_away(&w.f);
    copy_file(kept_certificate, w.client.certificate);
    copy_file(kept_key, w.client.key);
    expect_turned_away(&w.f);
    fixture_reload(&w.f);
    expect_served(&w.f);

    copy_file(stranger.certificate, w.server.certificate); /* the authority's file, too */
    expect_served(&w.f);
    fixture_reload(&w.f);
    const struct outcome *o = deliver(&w.f);
    expect_tls_error(o);
    world_stop(&w);
}
END_TEST

/* ---- files that will not do ---- */

static const struct {
    const char *what;
    const char *keys; /* C certificate, K its key, O another key, E an empty file, X none, P text */
    const char *message;
} bad[] = {
    {"no authority", "ca_file: X", "ca_file %s: No such file or directory"},
    {"an authority without a certificate", "ca_file: P", "ca_file %s: no certificate (PEM) in it"},
    {"an empty authority", "ca_file: E", "ca_file %s: no certificate (PEM) in it"},
    {"a key as an authority", "ca_file: K", "ca_file %s: no certificate (PEM) in it"},
    {"no certificate", "client_cert: X", "client_cert %s: No such file or directory"},
    {"a key as certificate", "client_cert: K", "client_cert %s: no certificate (PEM) in it"},
    {"no key", "client_cert: C, client_key: X", "client_key %s: No such file or directory"},
    {"no key beside it", "client_cert: C",
     "client_cert %s: no private key (PEM, without a passphrase) beside the certificate; name one "
     "with client_key"},
    {"a certificate as key", "client_cert: C, client_key: C",
     "client_key %s: no private key (PEM, without a passphrase) in it"},
    {"another's key", "client_cert: C, client_key: O",
     "client_key %s: the private key is not the certificate's"},
};

START_TEST(a_file_that_will_not_do_is_refused_with_its_name)
{
    struct tls_server identity;
    struct tls_server other;
    char text[1024] = "tasks: {w: {webhook: \"https://h\", ";
    char path[200] = "";
    char expected[400];
    char where[300];
    struct buf errors;
    make_identity(&identity, "client");
    make_identity(&other, "other");
    for (const char *p = bad[_i].keys; *p != '\0'; p++) {
        const char *file = NULL;
        if (*p == 'C')
            file = identity.certificate;
        else if (*p == 'K')
            file = identity.key;
        else if (*p == 'O')
            file = other.key;
        else if (*p == 'E')
            file = test_file("empty", "", 0600);
        else if (*p == 'P')
            file = test_file("text", "plain text\n", 0600);
        else if (*p == 'X')
            file = "/nonexistent/file.pem";
        size_t n = strlen(text);
        if (file != NULL)
            (void)snprintf(path, sizeof path, "%s", file);
        (void)snprintf(text + n, sizeof text - n, file != NULL ? "%s" : "%.1s",
                       file != NULL ? file : p);
    }
    size_t n = strlen(text);
    (void)snprintf(text + n, sizeof text - n, "}}");
    struct config *c = config_new();
    buf_init(&errors, 65536);
    ck_assert_int_eq(config_load_text(c, "f.yaml", text, strlen(text), &errors), 0);
    ck_assert_int_eq(credentials_read(c, &errors), OB_ECONFIG);
    const char *mark = strstr(bad[_i].message, "%s");
    (void)snprintf(where, sizeof where, "%.*s%s%s", (int)(mark - bad[_i].message), bad[_i].message,
                   path, mark + 2);
    (void)snprintf(expected, sizeof expected, "f.yaml:1: task 'w': %s\n", where);
    ck_assert_msg(strcmp(errors.data, expected) == 0, "%s: %s", bad[_i].what, errors.data);
    config_unref(c);
    buf_deinit(&errors);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook mtls");
    TCase *tc = tcase_create("certificates");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_test(tc, a_client_certificate_is_shown_to_who_asks);
    tcase_add_test(tc, certificate_and_key_may_share_a_file);
    tcase_add_test(tc, replaced_files_count_from_the_reload_on);
    tcase_add_loop_test(tc, a_file_that_will_not_do_is_refused_with_its_name, 0,
                        (int)(sizeof bad / sizeof bad[0]));
    suite_add_tcase(s, tc);
    return s;
}
