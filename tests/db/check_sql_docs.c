/* The examples of docs/sql.md, docs/dba.md and docs/operations.md: every block fenced as sql is
 * run, in order, on an empty database. */
#include "check_sql.h"

#include <stdlib.h>

/* The page, whole. */
static char *read_page(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/docs/%s", OB_TEST_SOURCE_DIR, name);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "cannot open %s", path);
    enum { PAGE_MAX = 256 * 1024 };
    char *text = calloc(1, PAGE_MAX);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_lt(fread(text, 1, PAGE_MAX - 1, f), PAGE_MAX - 1);
    (void)fclose(f);
    return text;
}

/* The end of the statement that begins at sql: behind its ';' outside quotes, $$ and comments. */
static char *statement_end(char *sql)
{
    bool quoted = false;
    bool body = false;
    for (; *sql != '\0'; sql++) {
        if (!quoted && strncmp(sql, "$$", 2) == 0)
            body = !body;
        else if (!body && *sql == '\'')
            quoted = !quoted;
        else if (!quoted && !body && strncmp(sql, "--", 2) == 0)
            sql += strcspn(sql, "\n") - 1;
        else if (!quoted && !body && *sql == ';')
            return sql + 1;
    }
    return sql;
}

/* Statement by statement, as psql does. */
static void run_block(PGconn *conn, const char *name, char *sql)
{
    while (*sql != '\0') {
        char *end = statement_end(sql);
        char kept = *end;
        *end = '\0';
        PGresult *res = PQexec(conn, sql);
        if (PQresultStatus(res) == PGRES_FATAL_ERROR)
            ck_abort_msg("docs/%s:\n%s\n%s", name, sql, PQresultErrorMessage(res));
        PQclear(res);
        *end = kept;
        sql = end;
    }
    ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
}

/* Runs all blocks of a page; returns how many there were. */
static int run_blocks(PGconn *conn, const char *name)
{
    static const char opening[] = "\n```sql\n";
    int blocks = 0;
    char *page = read_page(name);
    for (char *at = strstr(page, opening); at != NULL; at = strstr(at, opening)) {
        char *sql = at + strlen(opening);
        char *end = strstr(sql, "\n```");
        ck_assert_ptr_nonnull(end);
        *end = '\0';
        run_block(conn, name, sql);
        blocks++;
        at = end + 1;
    }
    free(page);
    return blocks;
}

START_TEST(every_example_for_users_runs)
{
    PGconn *conn = testdb_connect();
    ck_assert_int_gt(run_blocks(conn, "sql.md"), 15);
    /* And did what the page says. */
    ck_rows(conn,
            "SELECT task, convert_from(outbox.payload(id), 'UTF8') FROM outbox.jobs WHERE id = 1",
            "send-welcome-email|{\"customer\": 7}");
    ck_rows(conn,
            "SELECT count(*) FROM outbox.jobs WHERE task IN ('kept', 'not-kept', 'two-phase')",
            "2");
    ck_rows(conn,
            "SELECT task, count(*) FROM outbox.jobs WHERE task LIKE 'purchase-%' OR task = "
            "'check-purchase'"
            " GROUP BY 1 ORDER BY 1",
            "purchase-changed|1;purchase-placed|1");
    ck_rows(conn,
            "SELECT state, a.reason FROM outbox.jobs j JOIN outbox.attempts a ON job_id = id"
            " ORDER BY id",
            "scheduled|HTTP 503;scheduled|no such page");
    ck_rows(conn, "SELECT count(*) FROM outbox.jobs WHERE state = 'running'", "0");
    ck_rows(conn, "SELECT count(*) FROM outbox.dispatchers", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(every_statement_for_the_dba_runs)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_assert_int_gt(run_blocks(conn, "dba.md"), 5);
    ck_rows(conn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'outbox'", "0");
    PQfinish(conn);
}
END_TEST

START_TEST(every_statement_for_operators_runs)
{
    PGconn *conn = testdb_connect();
    pg_exec_ok(conn, "SELECT outbox.enqueue('a')");
    ck_assert_int_gt(run_blocks(conn, "operations.md"), 0);
    PQfinish(conn);
}
END_TEST

/* A state in which a copy's jobs are safe from every daemon. */
START_TEST(a_defused_copy_offers_nothing)
{
    PGconn *conn = testdb_connect();
    register_one(conn);
    pg_exec_ok(
        conn,
        "SELECT outbox.enqueue('a'), outbox.enqueue('a'), outbox.enqueue('a', delay => '1s')");
    pg_exec_ok(conn, "SELECT * FROM outbox.claim(1, 1, '{a}', '{1}')");
    pg_exec_ok(conn,
               "DELETE FROM outbox.dispatcher;"
               "UPDATE outbox.job SET owner = NULL, claim = NULL, ready_xid = NULL, run_at = NULL");
    register_one(conn);
    ck_rows(conn, "SELECT * FROM outbox.due()", "0|-");
    ck_rows(conn, "SELECT count(*) FROM outbox.claim(1, 9, '{a}', '{9}')", "0");
    ck_rows(conn, "SELECT state, count FROM outbox.stats", "waiting|3");
    PQfinish(conn);
}
END_TEST

static void start_cluster(void)
{
    static const char *const settings[] = {"max_prepared_transactions=2", NULL};
    pgcluster_set_options(settings);
    pgcluster_start();
}

Suite *test_suite(void)
{
    Suite *suite = suite_create("sql_docs");
    TCase *tc = tcase_create("docs");
    tcase_add_unchecked_fixture(tc, start_cluster, pgcluster_stop);
    tcase_add_checked_fixture(tc, testdb_create, testdb_drop);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, every_example_for_users_runs);
    tcase_add_test(tc, every_statement_for_the_dba_runs);
    tcase_add_test(tc, every_statement_for_operators_runs);
    tcase_add_test(tc, a_defused_copy_offers_nothing);
    return suite;
}
