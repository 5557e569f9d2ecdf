/* check_pgconn.c - the life of a connection: attempts, hosts, session settings, closing in every
 * state. What goes through it while it is up is in check_pgpipe.c, faults are in
 * fault/check_pgconn_fault.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/admin.h"
#include "faultproxy.h"
#include "pgcluster.h"
#include "pgrig.h"

static char text[1024];

static const char *conninfo_with(const char *more)
{
    (void)snprintf(text, sizeof text, "%s %s", testdb_conninfo(), more);
    return text;
}

static const char *socket_path(void)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/.s.PGSQL.5432", pgcluster_socket_dir());
    return path;
}

static const char *dbname(void)
{
    static char name[64];
    ck_assert_int_eq(sscanf(strstr(testdb_conninfo(), "dbname=") + 7, "%63s", name), 1);
    return name;
}

/* The test's database through a proxy. */
static const char *conninfo_by(const char *host, const struct faultproxy *p)
{
    (void)snprintf(text, sizeof text, "host=%s port=%d dbname=%s user=postgres", host, p->port,
                   dbname());
    return text;
}

/* ---- coming up ---- */

START_TEST(a_connection_comes_up_with_the_settings_of_its_session)
{
    const struct pgconn_config config = {
        .conninfo = conninfo_with("application_name=theirs client_encoding=LATIN1"),
        .application_name = "ours",
        .session_sql = "set statement_timeout = '7s'; set search_path = ''; select 1",
    };
    struct pgrig r;
    rig_open_config(&r, &config);
    ck_assert(!pgconn_is_up(r.conn));
    ck_assert_int_eq(pgconn_backend_pid(r.conn), 0);
    pgconn_start(r.conn);
    ck_assert_uint_eq(r.ups + r.downs, 0); /* nothing is called back from inside */
    rig_until(&r, r.is_up);
    ck_assert_str_eq(rig_value(&r, "select current_setting('application_name')"), "ours");
    ck_assert_str_eq(rig_value(&r, "select current_setting('client_encoding')"), "UTF8");
    ck_assert_str_eq(rig_value(&r, "select current_setting('statement_timeout')"), "7s");
    ck_assert_str_eq(rig_value(&r, "select current_setting('search_path')"), "\"\"");
    char pid[32];
    (void)snprintf(pid, sizeof pid, "%d", pgconn_backend_pid(r.conn));
    ck_assert_str_eq(rig_value(&r, "select pg_backend_pid()"), pid);
    rig_close(&r);
    ck_assert_uint_eq(r.downs, 0);
}
END_TEST

START_TEST(without_a_connection_string_the_environment_decides)
{
    ck_assert_int_eq(setenv("PGHOST", pgcluster_socket_dir(), 1), 0);
    ck_assert_int_eq(setenv("PGUSER", "postgres", 1), 0);
    ck_assert_int_eq(setenv("PGDATABASE", dbname(), 1), 0);
    const char *conninfos[] = {NULL, "", dbname()};
    struct pgrig r;
    rig_open_up(&r, conninfos[_i]);
    ck_assert_str_eq(rig_value(&r, "select current_database()"), dbname());
    rig_close(&r);
}
END_TEST

START_TEST(a_uri_is_a_connection_string_too)
{
    (void)snprintf(text, sizeof text, "postgresql:///%s?host=%s&user=postgres", dbname(),
                   pgcluster_socket_dir());
    struct pgrig r;
    rig_open_up(&r, text);
    rig_close(&r);
}
END_TEST

START_TEST(a_malformed_connection_string_is_refused_at_once)
{
    static const char *const malformed[] = {"host='unclosed", "nosuchoption=1",
                                            "postgresql://[::1/x", "password=two words user=x"};
    const struct pgconn_config config = {.conninfo = malformed[_i]};
    const struct pgconn_callbacks callbacks = {.on_up = NULL};
    struct pgconn *c = NULL;
    ck_assert_int_eq(pgconn_new(uv_default_loop(), &config, &callbacks, NULL, &c), OB_ECONFIG);
    ck_assert_ptr_null(c);
}
END_TEST

/* ---- attempts that fail ---- */

static void put_first_in_hba(const char *line)
{
    static char old[16384];
    FILE *hba = fopen(testdb_value("show hba_file"), "r+");
    ck_assert_ptr_nonnull(hba);
    size_t n = fread(old, 1, sizeof old, hba);
    rewind(hba);
    (void)fprintf(hba, "%s\n%.*s", line, (int)n, old);
    ck_assert_int_eq(fclose(hba), 0);
    testdb_exec("select pg_reload_conf()");
}

START_TEST(a_wrong_password_is_told_without_the_password)
{
    testdb_exec("create role guarded login password 'right-horse'");
    put_first_in_hba("local all guarded scram-sha-256");
    (void)snprintf(text, sizeof text, "%s password=wrong-zebra", testdb_conninfo_as("guarded"));
    struct pgrig r;
    rig_open(&r, text);
    rig_until(&r, r.downs == 1);
    ck_assert_int_eq(r.why.err, OB_ECONN);
    ck_assert_str_eq(r.why.sqlstate, "28P01");
    ck_assert_ptr_nonnull(strstr(r.why.message, "guarded"));
    ck_assert_ptr_null(strstr(r.why.message, "zebra"));
    rig_close(&r);
    /* A command is told the same, though libpq gave up by itself and there is no SQLSTATE. */
    struct admin *admin = NULL;
    struct admin_error error;
    ck_assert_int_eq(admin_connect(testdb_conninfo_as("guarded"), "test", &admin, &error), OB_EDB);
    ck_assert_ptr_nonnull(strstr(error.hint, "check user and password"));
    (void)snprintf(text, sizeof text, "%s password=right-horse", testdb_conninfo_as("guarded"));
    rig_open_up(&r, text);
    rig_close(&r);
    testdb_exec("drop role guarded");
}
END_TEST

START_TEST(an_unknown_database_is_told_with_its_sqlstate)
{
    struct pgrig r;
    rig_open(&r, conninfo_with("dbname=nowhere"));
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "3D000");
    ck_assert_ptr_nonnull(strstr(r.why.message, "\"nowhere\" does not exist"));
    ck_assert_ptr_null(strchr(r.why.message, '\n'));
    rig_close(&r);
}
END_TEST

START_TEST(attempts_are_counted_and_spaced_further_and_further)
{
    struct pgrig r;
    rig_open(&r, "host=/tmp/obnosuchdir user=postgres");
    for (unsigned n = 1; n <= 3; n++) {
        rig_until(&r, r.downs == n);
        ck_assert_uint_eq(r.tries, n);
        ck_assert_uint_ge(r.retry_ms, 80U << (n - 1));
        ck_assert_uint_le(r.retry_ms, 120U << (n - 1));
        ck_assert_int_eq(r.why.err, OB_ECONN);
        ck_assert_str_eq(r.why.sqlstate, "");
        ck_assert_ptr_nonnull(strstr(r.why.message, "/tmp/obnosuchdir"));
    }
    ck_assert_uint_eq(r.ups, 0);
    rig_close(&r);
}
END_TEST

START_TEST(session_sql_that_fails_fails_the_attempt)
{
    const struct pgconn_config config = {.conninfo = testdb_conninfo(),
                                         .session_sql = "set jit = off; select * from made_later"};
    struct pgrig r;
    rig_open_config(&r, &config);
    pgconn_start(r.conn);
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "42P01");
    ck_assert_int_eq(r.why.err, OB_ESCHEMA);
    testdb_exec("create table made_later (n integer)");
    rig_until(&r, r.is_up);
    rig_close(&r);
}
END_TEST

START_TEST(a_read_only_server_is_not_connected_to)
{
    (void)snprintf(text, sizeof text, "alter database %s set default_transaction_read_only = on",
                   dbname());
    testdb_exec(text);
    struct pgrig r;
    rig_open(&r, testdb_conninfo());
    rig_until(&r, r.downs == 1);
    ck_assert_ptr_nonnull(strstr(r.why.message, "read-only"));
    (void)snprintf(text, sizeof text,
                   "set default_transaction_read_only = off; "
                   "alter database %s set default_transaction_read_only = off",
                   dbname());
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "set default_transaction_read_only = off");
    pg_exec_ok(conn, strchr(text, ';') + 2);
    PQfinish(conn);
    rig_until(&r, r.is_up);
    rig_close(&r);
}
END_TEST

START_TEST(a_read_only_server_is_fine_if_the_user_said_any)
{
    (void)snprintf(text, sizeof text, "alter database %s set default_transaction_read_only = on",
                   dbname());
    testdb_exec(text);
    struct pgrig r;
    rig_open_up(&r, conninfo_with("target_session_attrs=any"));
    rig_close(&r);
}
END_TEST

/* ---- hosts ---- */

static const char *list_of(const char *hosts, int port)
{
    (void)snprintf(text, sizeof text, "host=%s,%s port=%d,5432 dbname=%s user=postgres", hosts,
                   pgcluster_socket_dir(), port, dbname());
    return text;
}

START_TEST(a_dead_host_is_passed_over_for_the_next)
{
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    int port = p.port;
    faultproxy_stop(&p); /* nobody listens there now */
    struct pgrig r;
    rig_open_up(&r, list_of("127.0.0.1", port));
    ck_assert_uint_eq(r.downs, 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_host_that_swallows_everything_is_begun_behind_the_next_time)
{
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    faultproxy_stall(&p);
    const struct pgconn_config config = {.conninfo = list_of("127.0.0.1", p.port),
                                         .connect_timeout_ms = 300};
    struct pgrig r;
    rig_open_config(&r, &config);
    pgconn_start(r.conn);
    rig_until(&r, r.downs == 1);
    ck_assert_ptr_nonnull(strstr(r.why.message, "within 300 ms"));
    ck_assert_ptr_nonnull(strstr(r.why.message, "127.0.0.1"));
    rig_until(&r, r.is_up);
    ck_assert_uint_eq(r.downs, 1);
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

/* Refused without TLS, libpq tries with it (sslmode=allow) on a new socket, inside PQconnectPoll.
 * Its number is the old one's, or another when a lower one has become free. */
START_TEST(a_socket_that_libpq_replaces_by_another_is_watched_instead)
{
    put_first_in_hba("local nowhere all reject");
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    faultproxy_stall(&p);
    (void)snprintf(text, sizeof text,
                   "host=127.0.0.1 port=%d user=postgres dbname=nowhere sslmode=allow", p.port);
    const struct pgconn_config config = {.conninfo = text};
    struct pgrig r;
    rig_open_config(&r, &config);
    (void)uv_run(&r.loop, UV_RUN_NOWAIT); /* the loop has what descriptors it needs */
    int low = dup(STDERR_FILENO);
    ck_assert_int_ge(low, 0);
    pgconn_start(r.conn);
    for (int i = 0; i < 10; i++)
        (void)uv_run(&r.loop, UV_RUN_ONCE); /* waiting for an answer */
    if (_i == 1)
        ck_assert_int_eq(close(low), 0);
    faultproxy_pass(&p);
    rig_until(&r, r.downs == 1);
    ck_assert_str_eq(r.why.sqlstate, "28000"); /* and not that nobody answered */
    rig_close(&r);
    if (_i == 0)
        ck_assert_int_eq(close(low), 0);
    faultproxy_stop(&p);
}
END_TEST

/* libpq goes on to the next host only while a connection is being made: what fails later fails all.
 */
START_TEST(a_host_that_fails_after_accepting_is_begun_behind_the_next_time)
{
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    faultproxy_refuse(&p); /* accepts and hangs up */
    struct pgrig r;
    rig_open_up(&r, list_of("127.0.0.1", p.port));
    ck_assert_uint_le(r.downs, 1);
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

START_TEST(host_names_are_looked_up)
{
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    struct pgrig r;
    rig_open_up(&r, conninfo_by("localhost", &p));
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

START_TEST(a_name_that_nobody_knows_is_a_failed_attempt_that_names_it)
{
    struct pgrig r;
    rig_open(&r, "host=no-such-host.invalid dbname=x user=postgres");
    rig_until(&r, r.downs == 2);
    ck_assert_ptr_nonnull(strstr(r.why.message, "could not look up host \"no-such-host.invalid\""));
    ck_assert_int_eq(r.why.err, OB_ECONN);
    rig_close(&r);
}
END_TEST

START_TEST(a_name_that_nobody_knows_does_not_hide_the_other_hosts)
{
    struct pgrig r;
    rig_open_up(&r, list_of("no-such-host.invalid", 5432));
    ck_assert_uint_eq(r.downs, 0);
    rig_close(&r);
}
END_TEST

/* ---- closing ---- */

static void close_it(struct pgrig *r)
{
    pgconn_close(r->conn, rig_on_closed, r);
}

static void close_in_answer(struct reply *reply)
{
    close_it(reply->rig);
}

START_TEST(closing_before_the_start_is_fine)
{
    const struct pgconn_config config = {.conninfo = testdb_conninfo()};
    struct pgrig r;
    rig_open_config(&r, &config);
    rig_close(&r);
    rig_open_config(&r, &config);
    pgconn_start(r.conn);
    rig_close(&r); /* the attempt was asked for and has not begun */
    ck_assert_uint_eq(r.ups + r.downs, 0);
}
END_TEST

START_TEST(closing_while_a_name_is_looked_up_waits_for_the_lookup)
{
    struct pgrig r;
    rig_open(&r, "host=localhost,no-such-host.invalid dbname=x user=postgres");
    (void)uv_run(&r.loop, UV_RUN_NOWAIT); /* begins the attempt; the lookup is a thread's */
    rig_close(&r);
    ck_assert_uint_eq(r.ups + r.downs, 0);
}
END_TEST

/* A turn at a time: every point of connecting and its session is closed in. */
START_TEST(closing_after_any_number_of_turns_leaves_nothing)
{
    const struct pgconn_config config = {.conninfo = testdb_conninfo(),
                                         .session_sql = "select pg_sleep(0.01)"};
    for (int turns = 0; turns < 40; turns++) {
        struct pgrig r;
        rig_open_config(&r, &config);
        pgconn_start(r.conn);
        for (int i = 0; i < turns && !r.is_up; i++)
            (void)uv_run(&r.loop, UV_RUN_ONCE);
        rig_close(&r);
        ck_assert_uint_eq(r.downs, 0);
    }
}
END_TEST

START_TEST(closing_while_the_server_says_nothing_is_fine)
{
    struct faultproxy p;
    faultproxy_start(&p, socket_path());
    faultproxy_stall(&p);
    struct pgrig r;
    rig_open(&r, conninfo_by("127.0.0.1", &p));
    for (int i = 0; i < 10; i++)
        (void)uv_run(&r.loop, UV_RUN_ONCE);
    rig_close(&r);
    faultproxy_stop(&p);
}
END_TEST

START_TEST(closing_answers_what_is_pending)
{
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    struct reply replies[3] = {{.is_done = false}};
    rig_send(&r, "select pg_sleep(60)", &replies[0]);
    rig_send(&r, "select 1", &replies[1]);
    for (int i = 0; i < 3; i++)
        (void)uv_run(&r.loop, UV_RUN_NOWAIT);
    rig_send(&r, "select 2", &replies[2]); /* not even sent */
    rig_close(&r);
    for (size_t i = 0; i < 3; i++) {
        ck_assert(replies[i].is_done);
        ck_assert_int_eq(replies[i].error.err, OB_ECONN);
        ck_assert_uint_eq(replies[i].number, i + 1);
    }
    ck_assert_uint_eq(r.downs, 0); /* nobody lost it */
}
END_TEST

START_TEST(a_connection_may_be_closed_in_any_callback)
{
    struct pgrig r;
    rig_open(&r, testdb_conninfo());
    r.then_up = close_it;
    rig_finish(&r);

    rig_open(&r, "host=/tmp/obnosuchdir user=postgres");
    r.then_down = close_it;
    rig_finish(&r);

    rig_open_up(&r, testdb_conninfo());
    struct reply first = {.then = close_in_answer};
    struct reply second = {.is_done = false};
    rig_send(&r, "select 1", &first);
    rig_send(&r, "select 1", &second);
    rig_finish(&r);
    reply_clear(&first);
    ck_assert_int_eq(second.error.err, OB_ECONN);

    rig_open_up(&r, testdb_conninfo());
    r.then_notify = close_it;
    struct reply listen = {.is_done = false};
    struct pgbatch *b = batch_of("listen here");
    batch_add(b, "notify here, 'one'");
    batch_add(b, "notify here, 'two'");
    rig_submit(&r, b, &listen);
    rig_finish(&r);
    reply_clear(&listen);
    ck_assert_uint_eq(r.notifies, 1);

    /* While what is pending is being answered because the connection failed. */
    rig_open_up(&r, testdb_conninfo());
    struct reply failed[2] = {{.then = close_in_answer}};
    rig_send(&r, "select pg_sleep(60)", &failed[0]);
    rig_send(&r, "select 1", &failed[1]);
    pgconn_fail(r.conn, OB_ECONN, "enough");
    rig_finish(&r);
    ck_assert(failed[1].is_done);
    ck_assert_uint_eq(r.downs, 0);
}
END_TEST

START_TEST(closing_between_failing_and_the_next_attempt_is_fine)
{
    struct pgrig r;
    rig_open_up(&r, testdb_conninfo());
    pgconn_fail(r.conn, OB_ECONN, "enough");
    rig_close(&r); /* nobody was told yet */
    ck_assert_uint_eq(r.downs, 0);
    rig_open_up(&r, testdb_conninfo());
    pgconn_fail(r.conn, OB_ECONN, "enough");
    rig_until(&r, r.downs == 1);
    rig_close(&r); /* the next attempt is timed */
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("pgconn");
    TCase *tc = tcase_create("life");
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create_empty, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_test(tc, a_connection_comes_up_with_the_settings_of_its_session);
    tcase_add_loop_test(tc, without_a_connection_string_the_environment_decides, 0, 3);
    tcase_add_test(tc, a_uri_is_a_connection_string_too);
    tcase_add_loop_test(tc, a_malformed_connection_string_is_refused_at_once, 0, 4);
    tcase_add_test(tc, a_wrong_password_is_told_without_the_password);
    tcase_add_test(tc, an_unknown_database_is_told_with_its_sqlstate);
    tcase_add_test(tc, attempts_are_counted_and_spaced_further_and_further);
    tcase_add_test(tc, session_sql_that_fails_fails_the_attempt);
    tcase_add_test(tc, a_read_only_server_is_not_connected_to);
    tcase_add_test(tc, a_read_only_server_is_fine_if_the_user_said_any);
    tcase_add_test(tc, a_dead_host_is_passed_over_for_the_next);
    tcase_add_test(tc, a_host_that_swallows_everything_is_begun_behind_the_next_time);
    tcase_add_loop_test(tc, a_socket_that_libpq_replaces_by_another_is_watched_instead, 0, 2);
    tcase_add_test(tc, a_host_that_fails_after_accepting_is_begun_behind_the_next_time);
    tcase_add_test(tc, host_names_are_looked_up);
    tcase_add_test(tc, a_name_that_nobody_knows_is_a_failed_attempt_that_names_it);
    tcase_add_test(tc, a_name_that_nobody_knows_does_not_hide_the_other_hosts);
    tcase_add_test(tc, closing_before_the_start_is_fine);
    tcase_add_test(tc, closing_while_a_name_is_looked_up_waits_for_the_lookup);
    tcase_add_test(tc, closing_after_any_number_of_turns_leaves_nothing);
    tcase_add_test(tc, closing_while_the_server_says_nothing_is_fine);
    tcase_add_test(tc, closing_answers_what_is_pending);
    tcase_add_test(tc, a_connection_may_be_closed_in_any_callback);
    tcase_add_test(tc, closing_between_failing_and_the_next_attempt_is_fine);
    suite_add_tcase(s, tc);
    return s;
}
