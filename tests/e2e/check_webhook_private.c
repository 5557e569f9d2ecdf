/* check_webhook_private.c - private_addresses: deny, with every way to write down this machine's
 * own address. The oracle: the server, which is at such an address, hears nothing. */
#include "webhook_fixture.h"

static const struct httpstub_answer ok = {.status = 204};

/* Port in the place of %d. All of them reach the server when nothing is denied. */
static const char *const urls[] = {
    "http://127.0.0.1:%d/",          "http://localhost:%d/",  "http://2130706433:%d/",
    "http://0x7f000001:%d/",         "http://0177.0.0.1:%d/", "http://127.1:%d/",
    "http://[::ffff:127.0.0.1]:%d/", "http://0:%d/",          "http://127.0.0.1.:%d/",
};
enum { URLS = sizeof urls / sizeof urls[0] };

static void set_url(struct fixture *f, const char *url)
{
    const char *port = strstr(url, "%d");
    (void)snprintf(f->url, sizeof f->url, "%.*s%d%s", (int)(port - url), url, f->stub.port,
                   port + 2);
}

START_TEST(this_machine_is_refused_however_it_is_written)
{
    struct fixture f;
    fixture_start(&f, &ok, 1);
    set_url(&f, urls[_i]);
    f.task.webhook.private_addresses = PRIVATE_DENY;
    const struct outcome *o = deliver(&f);
    ck_assert_int_eq(o->kind, OUTCOME_RETRY);
    ck_assert_int_eq(o->http_status, 0);
    bool is_denied = strncmp(o->reason, "address: ", 9) == 0 &&
                     strstr(o->reason, "is a private address (private_addresses)") != NULL;
    /* Some resolvers do not take every spelling. */
    ck_assert_msg(is_denied || strncmp(o->reason, "dns: ", 5) == 0, "%s", o->reason);
    ck_assert_msg(is_denied || _i > 1, "%s", o->reason);
    ck_assert_uint_eq(httpstub_connections(&f.stub), 0);
    fixture_stop(&f);
}
END_TEST

START_TEST(it_is_reached_when_nothing_is_denied)
{
    struct fixture f;
    fixture_start(&f, &ok, 1);
    set_url(&f, urls[_i]);
    const struct outcome *o = deliver(&f);
    ck_assert_msg(o->kind == OUTCOME_DONE, "%s", o->reason);
    fixture_stop(&f);
}
END_TEST

/* One task may go there, and its connection is kept: another that may not does not get it. */
START_TEST(a_kept_connection_is_judged_anew)
{
    struct fixture f;
    struct delivery d;
    fixture_start(&f, &ok, 1);
    struct task_config denied = f.task;
    denied.webhook.private_addresses = PRIVATE_DENY;
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    delivery_init(&f, &d, example_body, strlen(example_body));
    d.run.task = &denied;
    delivery_go(&d);
    delivery_wait(&f, &d);
    ck_assert_int_eq(d.outcome.kind, OUTCOME_RETRY);
    ck_assert_msg(strcmp(d.outcome.reason,
                         "address: 127.0.0.1 is a private address (private_addresses)") == 0,
                  "%s", d.outcome.reason);
    ck_assert_int_eq(deliver(&f)->kind, OUTCOME_DONE);
    ck_assert_uint_eq(httpstub_requests(&f.stub), 2);
    fixture_stop(&f);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("webhook private");
    TCase *tc = tcase_create("addresses");
    tcase_set_timeout(tc, TIMEOUT_E2E_S);
    tcase_add_loop_test(tc, this_machine_is_refused_however_it_is_written, 0, URLS);
    tcase_add_loop_test(tc, it_is_reached_when_nothing_is_denied, 0, 2);
    tcase_add_test(tc, a_kept_connection_is_judged_anew);
    suite_add_tcase(s, tc);
    return s;
}
