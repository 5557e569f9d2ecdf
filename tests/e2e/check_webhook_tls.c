/* check_webhook_tls.c - certificates and proxies. The TLS server is `openssl s_server -WWW` with
 * certificates made here; it answers only GET, which the configuration would refuse. */
#include <stdlib.h>

#include "tls_fixture.h"

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
