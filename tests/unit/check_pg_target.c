/* check_pg_target.c - where an attempt goes: connection string, PG* variables and service file
 * merged, our own settings on top, hosts told from names. No server is needed: the connections are
 * begun and dropped. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ck_main.h"
#include "daemon.h"
#include "db/pgconn_state.h"

static struct pg_target target;
static struct pg_error error;

static void read_target(const char *conninfo)
{
    memset(&error, 0, sizeof error);
    ck_assert_msg(pg_target_read(&target, conninfo, &error) == 0, "%s", error.message);
}

static const struct {
    const char *host;
    const char *hostaddr;
    bool is_name;
} hosts[] = {
    {"db.example.com", "", true},
    {"localhost", "", true},
    {"db1", "", true},
    {"10.0.0.1", "", false},
    {"::1", "", false},
    {"fe80::1%eth0", "", false},
    {"/run/postgresql", "", false},
    {"@abstract", "", false},
    {"", "", false},
    {"db.example.com", "10.0.0.1", false},
    {"10.0.0", "", true},
};
enum { HOSTS = sizeof hosts / sizeof hosts[0] };

START_TEST(a_name_is_told_from_addresses_and_sockets)
{
    char host[64];
    char hostaddr[64];
    (void)snprintf(host, sizeof host, "%s", hosts[_i].host);
    (void)snprintf(hostaddr, sizeof hostaddr, "%s", hosts[_i].hostaddr);
    const struct pg_host h = {.host = host, .hostaddr = hostaddr, .port = NULL};
    ck_assert_int_eq(pg_host_is_name(&h), hosts[_i].is_name);
}
END_TEST

START_TEST(lists_of_hosts_are_split_with_their_ports)
{
    read_target("host=a,/tmp,10.0.0.1 port=1,2,3 dbname=x");
    ck_assert_uint_eq(target.count, 3);
    ck_assert(target.has_names);
    ck_assert_str_eq(target.hosts[0].host, "a");
    ck_assert_str_eq(target.hosts[2].port, "3");
    pg_target_clear(&target);
    read_target("postgresql://10.0.0.1,[::1]:77/x");
    ck_assert_uint_eq(target.count, 2);
    ck_assert(!target.has_names);
    ck_assert_str_eq(target.hosts[1].host, "::1");
    ck_assert_str_eq(target.hosts[1].port, "77");
    pg_target_clear(&target);
    read_target("host=a,b port=99");
    ck_assert_str_eq(target.hosts[1].port, "99");
    pg_target_clear(&target);
}
END_TEST

START_TEST(lists_that_do_not_match_are_left_to_libpq)
{
    read_target("host=a,b,c port=1,2 dbname=x");
    ck_assert_uint_eq(target.count, 0);
    ck_assert(!target.has_names);
    pg_target_clear(&target);
}
END_TEST

START_TEST(hosts_come_from_the_environment_and_the_service_file_too)
{
    ck_assert_int_eq(setenv("PGHOST", "from-env", 1), 0);
    read_target("dbname=x");
    ck_assert_str_eq(target.hosts[0].host, "from-env");
    ck_assert(target.has_names);
    pg_target_clear(&target);
    const char *file = test_file("services", "[shop]\nhost=from-service\nport=77\n", 0600);
    ck_assert_int_eq(setenv("PGSERVICEFILE", file, 1), 0);
    read_target("service=shop dbname=x");
    ck_assert_str_eq(target.hosts[0].host, "from-service");
    ck_assert_str_eq(target.hosts[0].port, "77");
    pg_target_clear(&target);
    ck_assert_int_ne(pg_target_read(&target, "service=nosuch", &error), 0);
    ck_assert_ptr_nonnull(strstr(error.message, "nosuch"));
}
END_TEST

static const char *option(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, keyword) == 0)
            return options->val != NULL ? options->val : "";
    }
    ck_abort_msg("no option %s", keyword);
}

/* The options that libpq ends up with. Nothing listens where the strings below point to. */
static PQconninfoOption *options_of(const char *conninfo, unsigned rotation, bool use_hosts)
{
    char info[256];
    char name[] = "outbox work";
    (void)snprintf(info, sizeof info, "%s", conninfo);
    const struct pgconn c = {.conninfo = info, .application_name = name, .rotation = rotation};
    read_target(conninfo);
    PGconn *pq = pg_target_connect(&target, &c, use_hosts);
    ck_assert_ptr_nonnull(pq);
    PQconninfoOption *options = PQconninfo(pq);
    PQfinish(pq);
    pg_target_clear(&target);
    return options;
}

START_TEST(our_settings_are_put_on_top)
{
    PQconninfoOption *o =
        options_of("host=/tmp/obnone application_name=theirs client_encoding=LATIN1", 0, false);
    ck_assert_str_eq(option(o, "application_name"), "outbox work");
    ck_assert_str_eq(option(o, "client_encoding"), "UTF8");
    ck_assert_str_eq(option(o, "keepalives_idle"), "10");
    ck_assert_str_eq(option(o, "keepalives_interval"), "5");
    ck_assert_str_eq(option(o, "keepalives_count"), "3");
    ck_assert_str_eq(option(o, "tcp_user_timeout"), "20000");
    ck_assert_str_eq(option(o, "target_session_attrs"), "read-write");
    ck_assert_str_ne(option(o, "channel_binding"), "merge-only");
    PQconninfoFree(o);
}
END_TEST

START_TEST(what_the_user_set_stays)
{
    PQconninfoOption *o =
        options_of("host=/tmp/obnone keepalives_idle=77 tcp_user_timeout=5 "
                   "target_session_attrs=any channel_binding=disable sslmode=disable",
                   0, false);
    ck_assert_str_eq(option(o, "keepalives_idle"), "77");
    ck_assert_str_eq(option(o, "keepalives_interval"), "5");
    ck_assert_str_eq(option(o, "tcp_user_timeout"), "5");
    ck_assert_str_eq(option(o, "target_session_attrs"), "any");
    ck_assert_str_eq(option(o, "channel_binding"), "disable");
    ck_assert_str_eq(option(o, "sslmode"), "disable");
    PQconninfoFree(o);
    ck_assert_int_eq(setenv("PGTARGETSESSIONATTRS", "any", 1), 0);
    o = options_of("host=/tmp/obnone", 0, false);
    ck_assert_str_eq(option(o, "target_session_attrs"), "any");
    PQconninfoFree(o);
}
END_TEST

START_TEST(hosts_are_rotated_behind_those_that_were_too_slow)
{
    PQconninfoOption *o = options_of("host=/tmp/obn1,/tmp/obn2,/tmp/obn3 port=1,2,3", 4, true);
    ck_assert_str_eq(option(o, "host"), "/tmp/obn2,/tmp/obn3,/tmp/obn1");
    ck_assert_str_eq(option(o, "port"), "2,3,1");
    PQconninfoFree(o);
}
END_TEST

static void clear_environment(void)
{
    static const char *const names[] = {"PGHOST",    "PGHOSTADDR",    "PGPORT",
                                        "PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unsetenv(names[i]);
}

Suite *test_suite(void)
{
    Suite *s = suite_create("pg_target");
    TCase *tc = tcase_create("hosts and settings");
    tcase_add_checked_fixture(tc, clear_environment, NULL);
    tcase_set_timeout(tc, TIMEOUT_UNIT_S);
    tcase_add_loop_test(tc, a_name_is_told_from_addresses_and_sockets, 0, HOSTS);
    tcase_add_test(tc, lists_of_hosts_are_split_with_their_ports);
    tcase_add_test(tc, lists_that_do_not_match_are_left_to_libpq);
    tcase_add_test(tc, hosts_come_from_the_environment_and_the_service_file_too);
    tcase_add_test(tc, our_settings_are_put_on_top);
    tcase_add_test(tc, what_the_user_set_stays);
    tcase_add_test(tc, hosts_are_rotated_behind_those_that_were_too_slow);
    suite_add_tcase(s, tc);
    return s;
}
