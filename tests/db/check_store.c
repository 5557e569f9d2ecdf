/* check_store.c - what the dispatcher says to the database, through a real connection on a loop:
 * every call's answer, refusal, and the loss of the connection; and the batch that a claim brings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ck_main.h"
#include "db/store.h"
#include "pgcluster.h"
#include "pgrig.h"

enum { ME = 101, OTHER = 102, LEASE_MS = 60000, ITEMS_MAX = 64 };

static struct pgrig rig;

/* The newest answer, whatever the call. */
static struct {
    unsigned count;
    struct pg_error error; /* err 0: it committed */
    bool boolean;
    int number;
    int second;
    char text[256];
    bool is_null;
    size_t len;
    struct store_rival rival;
    bool has_rival;
    char rival_host[64];
    struct store_peer peers[ITEMS_MAX];
    char peer_names[ITEMS_MAX][64];
    struct store_token tokens[ITEMS_MAX];
    enum store_answer answers[ITEMS_MAX];
    size_t n;
    bool is_settle_refused;
    struct batch *batch;
    struct seen *seen;
    uint64_t xids[ITEMS_MAX];
} got;

/* What the newest look brought. */
static void let_go(void)
{
    batch_unref(got.batch);
    seen_free(got.seen);
    got.batch = NULL;
    got.seen = NULL;
}

static void note(const struct pg_error *error)
{
    got.count++;
    if (error != NULL)
        got.error = *error;
    else
        got.error.err = 0;
}

static void on_plain(void *arg, const struct pg_error *error)
{
    (void)arg;
    note(error);
}

static void on_level(void *arg, const struct pg_error *error, int level, int min_level)
{
    (void)arg;
    note(error);
    got.number = level;
    got.second = min_level;
}

static void on_text(void *arg, const struct pg_error *error, const char *text)
{
    (void)arg;
    note(error);
    got.is_null = text == NULL;
    (void)snprintf(got.text, sizeof got.text, "%s", text != NULL ? text : "");
}

static void on_registered(void *arg, const struct pg_error *error, const struct store_rival *rival)
{
    (void)arg;
    note(error);
    got.has_rival = rival != NULL;
    if (rival == NULL)
        return;
    got.rival = *rival;
    (void)snprintf(got.rival_host, sizeof got.rival_host, "%s %s %s", rival->host, rival->boot_id,
                   rival->lock_id);
}

static void on_bool(void *arg, const struct pg_error *error, bool answer)
{
    (void)arg;
    note(error);
    got.boolean = answer;
}

static void on_peers(void *arg, const struct pg_error *error, const struct store_peer *peers,
                     size_t n)
{
    (void)arg;
    note(error);
    got.n = n;
    for (size_t i = 0; i < n && i < ITEMS_MAX; i++) {
        got.peers[i] = peers[i];
        (void)snprintf(got.peer_names[i], sizeof got.peer_names[i], "%s@%s", peers[i].name,
                       peers[i].host);
    }
}

static void on_count(void *arg, const struct pg_error *error, int released)
{
    (void)arg;
    note(error);
    got.number = released;
}

static void on_adopted(void *arg, const struct pg_error *error, const struct store_token *adopted,
                       size_t n)
{
    (void)arg;
    note(error);
    got.n = n;
    for (size_t i = 0; i < n && i < ITEMS_MAX; i++)
        got.tokens[i] = adopted[i];
}

static void on_turned(void *arg, const struct pg_error *error, const struct store_turned *turned)
{
    (void)arg;
    note(error);
    ck_assert_int_eq(turned->batch == NULL, turned->seen == NULL);
    ck_assert(error == NULL || turned->batch == NULL);
    let_go();
    got.batch = turned->batch;
    got.seen = turned->seen;
    got.is_settle_refused = turned->is_settle_refused;
    got.n = turned->answers_count;
    for (size_t i = 0; i < got.n && i < ITEMS_MAX; i++)
        got.answers[i] = turned->answers[i];
}

static void on_seen(void *arg, const struct pg_error *error, struct seen *seen)
{
    (void)arg;
    note(error);
    ck_assert_int_eq(seen == NULL, error != NULL);
    let_go();
    got.seen = seen;
}

static void on_xid(void *arg, const struct pg_error *error, uint64_t xid)
{
    (void)arg;
    note(error);
    got.xids[0] = xid;
}

static void on_xids(void *arg, const struct pg_error *error, const uint64_t *xids, size_t n)
{
    (void)arg;
    note(error);
    got.n = n;
    for (size_t i = 0; i < n && i < ITEMS_MAX; i++)
        got.xids[i] = xids[i];
}

static void on_payload(void *arg, const struct pg_error *error, const char *bytes, size_t len)
{
    (void)arg;
    note(error);
    got.is_null = bytes == NULL;
    got.len = len;
    (void)snprintf(got.text, sizeof got.text, "%.*s", (int)len, bytes != NULL ? bytes : "");
}

/* Waits for the answer of the call just made, which must have committed. */
static void answered(void)
{
    rig_until(&rig, got.count == 1);
    ck_assert_msg(got.error.err == 0, "%s: %s", got.error.sqlstate, got.error.message);
    got.count = 0;
}

static void refused_with(const char *sqlstate)
{
    rig_until(&rig, got.count == 1);
    ck_assert_int_ne(got.error.err, 0);
    ck_assert_str_eq(got.error.sqlstate, sqlstate);
    got.count = 0;
}

static void open_rig(void)
{
    static char *sql;
    sql = store_session_sql(LEASE_MS);
    const struct pgconn_config config = {
        .conninfo = testdb_conninfo(), .application_name = "store", .session_sql = sql};
    let_go();
    memset(&got, 0, sizeof got);
    rig_open_config(&rig, &config);
    pgconn_start(rig.conn);
    rig_until(&rig, rig.is_up);
    ob_free(sql);
}

static void begin(void)
{
    testdb_create();
    open_rig();
}

static void end(void)
{
    let_go();
    rig_close(&rig);
    testdb_drop();
}

static struct store_identity identity(int64_t id, const char *name)
{
    static const char *const tasks[] = {"mail", "bill"};
    return (struct store_identity){.id = id,
                                   .name = name,
                                   .host = "host",
                                   .boot_id = "boot",
                                   .lock_id = "lock",
                                   .pid = 4711,
                                   .backends = {1, 2},
                                   .tasks = tasks,
                                   .tasks_count = 2,
                                   .lease_ms = LEASE_MS};
}

static void register_as(int64_t id, const char *name)
{
    const struct store_identity me = identity(id, name);
    store_register(rig.conn, &me, on_registered, NULL);
    answered();
    ck_assert(!got.has_rival);
}

/* A look at the whole stream, for bill and mail. The lists of transactions are the call's. */
static struct store_look look_for(int bill, int mail, int64_t first)
{
    static const char *tasks[] = {"bill", "mail"};
    static int slots[2];
    static bool shares[2];
    slots[0] = bill;
    slots[1] = mail;
    return (struct store_look){.first_claim = first,
                               .tasks = tasks,
                               .slots = slots,
                               .shares = shares,
                               .tasks_count = 2,
                               .has_position = true,
                               .list_running = true,
                               .due_from_us = INT64_MIN};
}

static void turn(const struct store_result *results, size_t n, struct store_look *look)
{
    const struct store_turn t = {.results = results, .results_count = n, .look = look};
    let_go();
    store_turn(rig.conn, ME, &t, on_turned, NULL);
}

static void look(int bill, int mail, int64_t first)
{
    struct store_look l = look_for(bill, mail, first);
    turn(NULL, 0, &l);
}

static void settle(const struct store_result *results, size_t n)
{
    turn(results, n, NULL);
}

/* n jobs of mail, registered as ME and claimed from claim 1 on; their ids are 1 to n. */
static void claim_jobs(int n)
{
    char sql[100];
    (void)snprintf(sql, sizeof sql, "SELECT outbox.enqueue('mail') FROM generate_series(1, %d)", n);
    testdb_exec(sql);
    register_as(ME, "me");
    look(0, n, 1);
    answered();
    ck_assert_uint_eq(got.batch->count, (size_t)n);
}

/* ---- the session ---- */

/* Whatever a role or a database has changed, the session is as the functions expect it. */
START_TEST(session_pins_its_settings)
{
    rig_close(&rig);
    testdb_exec("DO $$DECLARE setting text; BEGIN FOREACH setting IN ARRAY"
                " ARRAY['default_transaction_isolation = serializable',"
                " 'search_path = public',"
                " 'synchronous_commit = off', 'timezone = \"Asia/Tokyo\"'] LOOP"
                " EXECUTE format('ALTER DATABASE %I SET ', current_database()) || setting;"
                " END LOOP; END$$");
    open_rig();
    ck_assert_str_eq(
        rig_value(&rig, "SELECT concat_ws(' ', current_setting('transaction_isolation'),"
                        " current_setting('transaction_read_only'),"
                        " current_setting('synchronous_commit'), current_setting('search_path'),"
                        " current_setting('statement_timeout'), current_setting('lock_timeout'),"
                        " current_setting('timezone'))"),
        "read committed off on pg_catalog, pg_temp 30s 100ms UTC");
}
END_TEST

START_TEST(level_is_the_schemas)
{
    store_level(rig.conn, on_level, NULL);
    answered();
    ck_assert_int_eq(got.number, OB_SCHEMA_VERSION);
    ck_assert_int_ge(got.second, 1);
}
END_TEST

START_TEST(missing_schema_is_told_by_its_sqlstate)
{
    testdb_exec("DROP SCHEMA outbox CASCADE");
    store_level(rig.conn, on_level, NULL);
    refused_with("3F000");
    ck_assert_int_eq(pg_advice(got.error.sqlstate), PG_WAIT_SCHEMA);
}
END_TEST

START_TEST(databases_have_different_identities)
{
    char first[256];
    store_database_identity(rig.conn, on_text, NULL);
    answered();
    memcpy(first, got.text, sizeof first);
    ck_assert_uint_gt(strlen(first), 10);
    store_database_identity(rig.conn, on_text, NULL);
    answered();
    ck_assert_str_eq(got.text, first);
    end();
    begin();
    store_database_identity(rig.conn, on_text, NULL);
    answered();
    ck_assert_str_ne(got.text, first);
}
END_TEST

START_TEST(notifications_are_listened_for_and_sent)
{
    store_listen(rig.conn, on_plain, NULL);
    answered();
    store_notify(rig.conn, "proof 1", on_plain, NULL);
    answered();
    rig_until(&rig, rig.notifies == 1);
    ck_assert_str_eq(rig.channel, STORE_CHANNEL);
    ck_assert_str_eq(rig.payload, "proof 1");
}
END_TEST

START_TEST(session_is_named_and_its_silence_bounded)
{
    store_set_name(rig.conn, ME, 7000, on_plain, NULL);
    answered();
    ck_assert_str_eq(rig_value(&rig, "SELECT current_setting('application_name') || ' ' ||"
                                     " current_setting('idle_session_timeout')"),
                     "outbox 101 7s");
}
END_TEST

/* Producers feel the locks: NOTIFY is sent while a task is watched, and not otherwise. */
START_TEST(watched_tasks_wake)
{
    static const char *const tasks[] = {"mail", "bill"};
    store_listen(rig.conn, on_plain, NULL);
    answered();
    store_watch(rig.conn, tasks, 2, on_plain, NULL);
    answered();
    testdb_exec("SELECT outbox.enqueue('bill')");
    rig_until(&rig, rig.notifies == 1);
    ck_assert_str_eq(rig.payload, "");
    store_unwatch(rig.conn, tasks, 2, on_plain, NULL);
    answered();
    testdb_exec("SELECT outbox.enqueue('bill')");
    store_notify(rig.conn, "end", on_plain, NULL); /* behind it, had there been one */
    answered();
    rig_until(&rig, rig.notifies == 2);
    ck_assert_str_eq(rig.payload, "end");
}
END_TEST

/* ---- dispatchers ---- */

START_TEST(registration_writes_the_row)
{
    register_as(ME, "me");
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', id, name, host, boot_id, lock_id, pid,"
                                  " backends, tasks, extract(epoch FROM lease)::integer)"
                                  " FROM outbox.dispatcher"),
                     "101 me host boot lock 4711 {1,2} {mail,bill} 60");
}
END_TEST

START_TEST(taken_name_tells_whose_it_is)
{
    register_as(ME, "me");
    testdb_exec("UPDATE outbox.dispatcher SET beat = 5, started_at = '2020-01-02 03:04:05Z'");
    struct store_identity second = identity(OTHER, "me");
    store_register(rig.conn, &second, on_registered, NULL);
    answered();
    ck_assert(got.has_rival);
    ck_assert_int_eq(got.rival.id, ME);
    ck_assert_str_eq(got.rival_host, "host boot lock");
    ck_assert_int_eq(got.rival.pid, 4711);
    ck_assert_int_eq(got.rival.beat, 5);
    ck_assert_int_eq(got.rival.since_us, INT64_C(1577934245000000));
    ck_assert_uint_eq(got.rival.lease_ms, LEASE_MS);
    second.previous = ME;
    store_register(rig.conn, &second, on_registered, NULL);
    answered();
    ck_assert(!got.has_rival);
}
END_TEST

START_TEST(heartbeat_counts_and_tells_when_it_is_too_late)
{
    const int backends[2] = {77, 78};
    register_as(ME, "me");
    store_extend(rig.conn, ME, backends, on_bool, NULL);
    answered();
    ck_assert(got.boolean);
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', beat, backends, tasks)"
                                  " FROM outbox.dispatcher"),
                     "1 {77,78} {mail,bill}");
    store_extend(rig.conn, OTHER, backends, on_bool, NULL);
    answered();
    ck_assert(!got.boolean);
}
END_TEST

START_TEST(other_tasks_are_announced)
{
    static const char *const tasks[] = {"fax"};
    register_as(ME, "me");
    store_announce(rig.conn, ME, tasks, 1, on_bool, NULL);
    answered();
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', backends, tasks) FROM outbox.dispatcher"),
                     "{1,2} {fax}");
}
END_TEST

START_TEST(row_goes_only_without_jobs)
{
    claim_jobs(1);
    store_unregister(rig.conn, ME, on_bool, NULL);
    answered();
    ck_assert(!got.boolean);
    testdb_exec("DELETE FROM outbox.job");
    store_unregister(rig.conn, ME, on_bool, NULL);
    answered();
    ck_assert(got.boolean);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.dispatcher"), 0);
}
END_TEST

START_TEST(peers_are_listed_with_beats_and_leases)
{
    store_peers(rig.conn, on_peers, NULL);
    answered();
    ck_assert_uint_eq(got.n, 0);
    register_as(ME, "me");
    register_as(OTHER, "other");
    testdb_exec("UPDATE outbox.dispatcher SET beat = 9, lease = '1 day 90 s' WHERE id = 102");
    store_peers(rig.conn, on_peers, NULL);
    answered();
    ck_assert_uint_eq(got.n, 2);
    ck_assert_int_eq(got.peers[0].id, ME);
    ck_assert_str_eq(got.peer_names[0], "me@host");
    ck_assert_uint_eq(got.peers[0].lease_ms, LEASE_MS);
    ck_assert_int_eq(got.peers[1].beat, 9);
    ck_assert_uint_eq(got.peers[1].lease_ms, 86490000);
}
END_TEST

/* Of another dispatcher: its own sessions, and never ours. */
START_TEST(sessions_of_another_are_ended)
{
    struct pgrig victim;
    char sql[200];
    rig_open_up(&victim, testdb_conninfo());
    register_as(ME, "me");
    (void)snprintf(sql, sizeof sql,
                   "UPDATE outbox.dispatcher SET backends = '{%d,%d}'; SET application_name = ''",
                   pgconn_backend_pid(victim.conn), pgconn_backend_pid(rig.conn));
    testdb_exec(sql);
    store_set_name(rig.conn, ME, LEASE_MS, on_plain, NULL);
    answered();
    store_set_name(victim.conn, ME, LEASE_MS, on_plain, NULL);
    rig_until(&victim, got.count == 1);
    got.count = 0;
    store_terminate(rig.conn, ME, on_plain, NULL);
    answered();
    rig_until(&victim, victim.downs == 1);
    ck_assert(rig.is_up);
    rig_close(&victim);
}
END_TEST

START_TEST(take_over_needs_the_beat_that_was_seen)
{
    claim_jobs(3);
    testdb_exec("UPDATE outbox.dispatcher SET beat = 4");
    store_take_over(rig.conn, ME, 3, true, on_count, NULL);
    answered();
    ck_assert_int_eq(got.number, -1);
    store_take_over(rig.conn, ME, 4, true, on_count, NULL);
    answered();
    ck_assert_int_eq(got.number, 3);
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', count(*), min(lost), min(attempts))"
                                  " FROM outbox.job WHERE owner IS NULL"),
                     "3 1 1");
    store_take_over(rig.conn, ME, 4, true, on_count, NULL); /* gone */
    answered();
    ck_assert_int_eq(got.number, -1);
}
END_TEST

START_TEST(claims_that_never_started_are_given_back_uncounted)
{
    claim_jobs(2);
    testdb_exec("UPDATE outbox.dispatcher SET beat = 4");
    store_take_over(rig.conn, ME, -1, false, on_count, NULL);
    answered();
    ck_assert_int_eq(got.number, 2);
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', count(*), max(lost), max(attempts))"
                                  " FROM outbox.job WHERE owner IS NULL"),
                     "2 0 0");
}
END_TEST

START_TEST(adoption_is_by_token)
{
    claim_jobs(3);
    register_as(OTHER, "other");
    const struct store_token tokens[] = {{3, 3}, {2, 99}, {1, 1}, {1000, 4}};
    store_adopt(rig.conn, OTHER, ME, tokens, 4, 50, on_adopted, NULL);
    answered();
    ck_assert_uint_eq(got.n, 2);
    ck_assert_int_eq(got.tokens[0].id, 3);
    ck_assert_int_eq(got.tokens[0].claim, 50);
    ck_assert_int_eq(got.tokens[1].id, 1);
    ck_assert_int_eq(got.tokens[1].claim, 51);
    ck_assert_int_eq(testdb_long("SELECT owner FROM outbox.job WHERE id = 2"), ME);
    store_adopt(rig.conn, OTHER, ME, NULL, 0, 60, on_adopted, NULL);
    answered();
    ck_assert_uint_eq(got.n, 0);
}
END_TEST

/* ---- jobs ---- */

START_TEST(claimed_job_has_every_column)
{
    testdb_exec("SELECT outbox.enqueue('mail', '{\"n\": 7}', priority => 3, max_attempts => 9,"
                " headers => '{\"traceparent\": \"x\"}')");
    testdb_exec("UPDATE outbox.job SET lost = 2, key = 'user 1',"
                " created_at = '2020-01-02 03:04:05.678901Z'");
    register_as(ME, "me");
    look(0, 5, 41);
    answered();
    ck_assert_uint_eq(got.batch->count, 1);
    const struct claimed *c = &got.batch->jobs[0];
    ck_assert_int_eq(c->job.id, 1);
    ck_assert_int_eq(c->job.claim, 41);
    ck_assert_str_eq(c->job.task, "mail");
    ck_assert_int_eq(c->job.priority, 3);
    ck_assert_int_eq(c->job.attempt, 1);
    ck_assert_int_eq(c->job.max_attempts, 9);
    ck_assert_int_eq(c->job.lost, 2);
    ck_assert_int_eq(c->job.encoding, PAYLOAD_JSON);
    ck_assert_uint_eq(c->job.payload_len, 8);
    ck_assert_mem_eq(c->job.payload, "{\"n\": 7}", 8);
    ck_assert_int_eq(c->payload_size, 8);
    ck_assert_str_eq(c->job.headers, "{\"traceparent\": \"x\"}");
    ck_assert_str_eq(c->job.key, "user 1");
    ck_assert_int_eq(c->job.created_at_us, INT64_C(1577934245678901));
    ck_assert(!c->expired);
}
END_TEST

START_TEST(absent_columns_are_null)
{
    testdb_exec("SELECT outbox.enqueue_bytes('mail', '', 'msgpack')");
    testdb_exec("UPDATE outbox.job SET expires_at = '2020-01-01'");
    register_as(ME, "me");
    look(0, 1, 1);
    answered();
    const struct claimed *c = &got.batch->jobs[0];
    ck_assert_int_eq(c->job.max_attempts, 0);
    ck_assert_ptr_null(c->job.headers);
    ck_assert_ptr_null(c->job.key);
    ck_assert_int_eq(c->job.encoding, PAYLOAD_MSGPACK);
    ck_assert_uint_eq(c->job.payload_len, 0);
    ck_assert_int_eq(c->payload_size, 0);
    ck_assert(c->expired);
}
END_TEST

/* Jobs are views into the batch: they live until the last reference goes, beyond the connection. */
START_TEST(batch_lives_until_it_is_let_go)
{
    claim_jobs(2);
    struct batch *mine = batch_ref(got.batch);
    batch_unref(got.batch);
    got.batch = NULL;
    rig_close(&rig);
    ck_assert_str_eq(mine->jobs[1].job.task, "mail");
    ck_assert_int_eq(mine->jobs[1].job.claim, 2);
    batch_unref(mine);
    batch_unref(NULL);
    open_rig();
}
END_TEST

START_TEST(several_tasks_are_claimed_at_once)
{
    testdb_exec("SELECT outbox.enqueue(t) FROM unnest('{mail,mail,mail,bill,fax}'::text[]) AS t");
    register_as(ME, "me");
    look(5, 2, 10);
    answered();
    ck_assert_uint_eq(got.batch->count, 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(got.batch->jobs[i].job.task, i < 2 ? "mail" : "bill");
        ck_assert_int_eq(got.batch->jobs[i].job.claim, (int64_t)(10 + i));
    }
    ck_assert_uint_eq(got.seen->blocked.count, 1);
    ck_assert_int_eq(got.seen->blocked.items[0].lane, 2 * 4 + 1);
    ck_assert_int_eq(got.seen->blocked.items[0].id, 3);
    look(5, 0, 20);
    answered();
    ck_assert_uint_eq(got.batch->count, 0);
}
END_TEST

START_TEST(look_of_the_unregistered_is_refused)
{
    testdb_exec("SELECT outbox.enqueue('mail')");
    look(0, 1, 1);
    refused_with("22023");
    ck_assert_ptr_null(got.batch);
    ck_assert(!got.is_settle_refused);
}
END_TEST

START_TEST(large_payload_is_fetched_apart)
{
    testdb_exec("SELECT outbox.enqueue('mail', to_jsonb(repeat('x', 70000)))");
    register_as(ME, "me");
    look(0, 1, 1);
    answered();
    ck_assert_ptr_null(got.batch->jobs[0].job.payload);
    ck_assert_int_eq(got.batch->jobs[0].payload_size, 70002);
    store_payload(rig.conn, 1, on_payload, NULL);
    answered();
    ck_assert_uint_eq(got.len, 70002);
    ck_assert_int_eq(strncmp(got.text, "\"xxx", 4), 0);
    store_payload(rig.conn, 99, on_payload, NULL);
    answered();
    ck_assert(got.is_null);
}
END_TEST

/* Another shape than the program knows, as after a migration to come: told as an error, and the
 * connection is given up, as nobody knows what was claimed. */
START_TEST(look_with_unreadable_rows_is_an_error)
{
    static const char *const states[] = {"NULL", "'[]'", "'{\"position\": \"x\"}'"};
    char sql[1200];
    (void)snprintf(
        sql, sizeof sql,
        "CREATE FUNCTION outbox.look(bigint, bigint, text[], integer[], boolean[], integer, xid8,"
        " bigint, xid8, xid8[], bigint[], integer[], xid8[], bigint[], integer[], bigint[],"
        " timestamptz, xid8, xid8, apart boolean, list_running boolean, walk_rows integer,"
        " walk_xid xid8, walk_id bigint, walk_priority integer, walk_slots integer[],"
        " OUT id bigint, OUT claim bigint,"
        " OUT task text, OUT priority smallint, OUT attempt integer, OUT max_attempts integer,"
        " OUT lost integer, OUT encoding text, OUT payload bytea, OUT payload_size integer,"
        " OUT headers text, OUT key text, OUT created_at timestamptz, OUT expired boolean,"
        " OUT state jsonb) LANGUAGE plpgsql AS $$BEGIN state := %s; END$$",
        states[_i]);
    register_as(ME, "me");
    testdb_exec("ALTER FUNCTION outbox.look RENAME TO look_before");
    testdb_exec(sql);
    look(0, 1, 1);
    refused_with("XX000");
    ck_assert_ptr_null(got.batch);
    rig_until(&rig, rig.downs == 1);
}
END_TEST

static struct outcome outcome(enum outcome_kind kind, const char *reason)
{
    struct outcome o;
    outcome_init(&o);
    outcome_set(&o, kind, "%s", reason);
    return o;
}

START_TEST(results_are_answered_in_their_order)
{
    claim_jobs(4);
    testdb_exec("UPDATE outbox.job SET claim = 77 WHERE id = 2");
    testdb_exec("DELETE FROM outbox.job WHERE id = 3");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct store_result results[] = {
        {{4, 4}, &done, 0}, {{3, 3}, &done, 0}, {{2, 2}, &done, 0}, {{1, 1}, &done, 0}};
    settle(results, 4);
    answered();
    ck_assert_uint_eq(got.n, 4);
    ck_assert_int_eq(got.answers[0], STORE_RECORDED);
    ck_assert_int_eq(got.answers[1], STORE_GONE);
    ck_assert_int_eq(got.answers[2], STORE_LOST);
    ck_assert_int_eq(got.answers[3], STORE_RECORDED);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 1);
}
END_TEST

START_TEST(each_outcome_has_its_effect)
{
    claim_jobs(4);
    struct outcome done = outcome(OUTCOME_DONE, "");
    struct outcome retry = outcome(OUTCOME_RETRY, "exit 3");
    struct outcome dead = outcome(OUTCOME_DEAD, "a \"quoted\" reason\\");
    struct outcome release = outcome(OUTCOME_RELEASE, "stopping");
    retry.exit_code = 3;
    retry.started_us = 1577934245678901;
    retry.duration_ms = 12;
    retry.head = "he\0ad";
    retry.head_len = 5;
    retry.tail = "tail";
    retry.tail_len = 4;
    retry.output_bytes = 1000;
    dead.signal = 9;
    dead.http_status = 410;
    const struct store_result results[] = {
        {{1, 1}, &done, 0}, {{2, 2}, &retry, 3600000}, {{3, 3}, &dead, 0}, {{4, 4}, &release, 0}};
    settle(results, 4);
    answered();
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(got.answers[i], STORE_RECORDED);
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(concat_ws(' ', id, attempts, ready_xid IS NULL,"
                     " run_at > now() + interval '50 min'), ';' ORDER BY id)"
                     " FROM outbox.job"),
        "2 1 t t;4 0 f");
    ck_assert_str_eq(
        testdb_value("SELECT concat_ws(' ', outcome, reason, exit_code, signal, duration_ms,"
                     " extract(epoch FROM started_at), encode(output_head, 'escape'),"
                     " encode(output_tail, 'escape'), output_bytes, dispatcher)"
                     " FROM outbox.attempt WHERE job_id = 2"),
        "retry exit 3 3 12 1577934245.678901 he\\000ad tail 1000 me");
    ck_assert_str_eq(testdb_value("SELECT reason FROM outbox.dead"), "a \"quoted\" reason\\");
    ck_assert_str_eq(testdb_value("SELECT concat_ws(' ', signal, http_status, exit_code IS NULL)"
                                  " FROM outbox.attempt WHERE job_id = 3"),
                     "9 410 t");
}
END_TEST

START_TEST(death_without_a_run_leaves_no_attempt)
{
    claim_jobs(1);
    struct outcome dead = outcome(OUTCOME_DEAD, "expired");
    dead.uncounted = true;
    const struct store_result result = {{1, 1}, &dead, 0};
    settle(&result, 1);
    answered();
    ck_assert_int_eq(testdb_long("SELECT attempts FROM outbox.dead"), 0);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.attempt"), 0);
}
END_TEST

/* Output of every length modulo three, and longer than a piece of the encoder. */
START_TEST(output_survives_its_encoding)
{
    enum { BYTES = 5000 };
    static char bytes[BYTES];
    size_t len = _i < 4 ? (size_t)_i : BYTES - (size_t)_i;
    char expected[40];
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 7);
    claim_jobs(1);
    struct outcome o = outcome(OUTCOME_RETRY, "exit 1");
    o.head = bytes;
    o.head_len = len;
    const struct store_result result = {{1, 1}, &o, 0};
    settle(&result, 1);
    answered();
    testdb_exec("CREATE TABLE public.expected AS SELECT ''::bytea AS bytes");
    PGconn *conn = testdb_connect();
    const char *values[] = {bytes};
    const int lengths[] = {(int)len};
    const int formats[] = {1};
    PQclear(PQexecParams(conn, "UPDATE public.expected SET bytes = $1::bytea", 1, NULL, values,
                         lengths, formats, 0));
    PQfinish(conn);
    (void)snprintf(expected, sizeof expected, "%zu t", len);
    ck_assert_str_eq(testdb_value("SELECT length(bytes) || ' ' ||"
                                  " (coalesce(output_head, '') = bytes)::text::char"
                                  " FROM outbox.attempt, public.expected"),
                     expected);
}
END_TEST

/* Refused from inside the call, and nothing was sent. */
START_TEST(more_output_than_a_statement_holds_is_refused)
{
    enum { COUNT = 40, BYTES = 2 << 20 };
    char *bytes = ob_xcalloc(BYTES, 1);
    struct outcome o = outcome(OUTCOME_RETRY, "exit 1");
    struct store_result results[COUNT];
    o.head = bytes;
    o.head_len = BYTES;
    for (int i = 0; i < COUNT; i++)
        results[i] = (struct store_result){{i + 1, 1}, &o, 0};
    settle(results, COUNT);
    ck_assert_uint_eq(got.count, 1);
    ck_assert_int_ne(got.error.err, 0);
    ck_assert_int_ne(got.error.err, OB_ECONN);
    ck_assert(got.is_settle_refused);
    ck_assert_uint_eq(got.n, COUNT);
    ck_assert_uint_eq(pgconn_pending(rig.conn), 0);
    ob_free(bytes);
}
END_TEST

/* ---- turns ---- */

/* What finished is recorded and what is new is claimed: together, or not at all. */
START_TEST(turn_records_and_claims)
{
    claim_jobs(2);
    testdb_exec("SELECT outbox.enqueue('mail')");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct store_result results[] = {{{1, 1}, &done, 0}, {{2, 77}, &done, 0}};
    struct store_look l = look_for(0, 5, 3);
    turn(results, 2, &l);
    answered();
    ck_assert_uint_eq(got.n, 2);
    ck_assert_int_eq(got.answers[0], STORE_RECORDED);
    ck_assert_int_eq(got.answers[1], STORE_LOST);
    ck_assert_uint_eq(got.batch->count, 1);
    ck_assert_int_eq(got.batch->jobs[0].job.id, 3);
    ck_assert_int_eq(got.batch->jobs[0].job.claim, 3);
    ck_assert_uint_gt(got.seen->xid, 0);
    ck_assert_str_eq(testdb_value("SELECT string_agg(id || ' ' || claim, ';' ORDER BY id)"
                                  " FROM outbox.job"),
                     "2 2;3 3");
}
END_TEST

/* A retry at once is ready for the look of its own turn. */
START_TEST(turn_claims_what_it_has_just_given_back)
{
    claim_jobs(1);
    const struct outcome release = outcome(OUTCOME_RELEASE, "stopping");
    const struct store_result result = {{1, 1}, &release, 0};
    struct store_look l = look_for(0, 5, 9);
    turn(&result, 1, &l);
    answered();
    ck_assert_int_eq(got.answers[0], STORE_RECORDED);
    ck_assert_uint_eq(got.batch->count, 1);
    ck_assert_int_eq(got.batch->jobs[0].job.claim, 9);
    ck_assert_int_eq(got.batch->jobs[0].job.attempt, 1);
}
END_TEST

START_TEST(failing_look_takes_the_results_back)
{
    claim_jobs(2);
    testdb_exec("DELETE FROM outbox.dispatcher");
    testdb_exec("SELECT outbox.enqueue('mail')");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct store_result results[] = {{{1, 1}, &done, 0}, {{2, 2}, &done, 0}};
    struct store_look l = look_for(0, 5, 3);
    turn(results, 2, &l);
    refused_with("22023");
    ck_assert(!got.is_settle_refused);
    ck_assert_uint_eq(got.n, 2);
    ck_assert_ptr_null(got.batch);
    ck_assert_str_eq(testdb_value("SELECT string_agg(id || ' ' || coalesce(claim, 0), ';'"
                                  " ORDER BY id) FROM outbox.job"),
                     "1 1;2 2;3 0");
}
END_TEST

/* Without skip_locked it waits for as long as the session's lock_timeout; the look does not come
 * to its turn. */
START_TEST(refused_results_are_told_from_a_refused_look)
{
    PGconn *human = testdb_connect();
    claim_jobs(2);
    testdb_exec("SELECT outbox.enqueue('mail')");
    pg_exec_ok(human, "BEGIN; SELECT FROM outbox.job WHERE id = 2 FOR UPDATE");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct store_result results[] = {{{1, 1}, &done, 0}, {{2, 2}, &done, 0}};
    struct store_look l = look_for(0, 5, 3);
    turn(results, 2, &l);
    refused_with("55P03");
    ck_assert(got.is_settle_refused);
    ck_assert_ptr_null(got.batch);
    ck_assert_int_eq(testdb_long("SELECT count(*) FROM outbox.job"), 3);
    PQfinish(human);
}
END_TEST

START_TEST(locked_row_is_busy_and_the_others_are_recorded)
{
    PGconn *human = testdb_connect();
    claim_jobs(3);
    pg_exec_ok(human, "BEGIN; SELECT FROM outbox.job WHERE id = 2 FOR UPDATE");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct outcome retry = outcome(OUTCOME_RETRY, "exit 1");
    const struct store_result results[] = {
        {{2, 2}, &done, 0}, {{1, 1}, _i == 0 ? &done : &retry, 60000}, {{3, 3}, &done, 0}};
    const struct store_turn t = {.results = results, .results_count = 3, .skip_locked = true};
    store_turn(rig.conn, ME, &t, on_turned, NULL);
    answered();
    ck_assert_int_eq(got.answers[0], STORE_BUSY);
    ck_assert_int_eq(got.answers[1], STORE_RECORDED);
    ck_assert_int_eq(got.answers[2], STORE_RECORDED);
    ck_assert_str_eq(
        testdb_value("SELECT string_agg(concat_ws(' ', id, owner, claim), ';' ORDER BY id)"
                     " FROM outbox.job"),
        _i == 0 ? "2 101 2" : "1;2 101 2");
    pg_exec_ok(human, "ROLLBACK");
    PQfinish(human);
    store_turn(rig.conn, ME, &t, on_turned, NULL); /* again: it is free now, the others are gone */
    answered();
    ck_assert_int_eq(got.answers[0], STORE_RECORDED);
    ck_assert_int_eq(got.answers[1], _i == 0 ? STORE_GONE : STORE_LOST);
    ck_assert_int_eq(got.answers[2], STORE_GONE);
}
END_TEST

/* Each argument has its effect: the lists that the stream and the lanes hand in. */
START_TEST(every_argument_of_a_look_arrives)
{
    testdb_exec("SELECT outbox.enqueue('mail') FROM generate_series(1, 5)");
    testdb_exec("SELECT outbox.enqueue('bill') FROM generate_series(1, 2)");
    testdb_exec("SELECT outbox.enqueue('bill', delay => '1 hour')");
    testdb_exec("UPDATE outbox.job SET run_at = '2020-01-02 03:04:05.678901Z' WHERE id = 8");
    uint64_t mails = (uint64_t)testdb_long("SELECT ready_xid FROM outbox.job WHERE id = 1");
    uint64_t bills = (uint64_t)testdb_long("SELECT ready_xid FROM outbox.job WHERE id = 6");
    register_as(ME, "me");

    /* Nothing but what comes from now on; not even what is due: that is one microsecond before. */
    struct store_look l = look_for(9, 9, 1);
    l.has_position = false;
    l.due_from_us = INT64_C(1577934245678902);
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.batch->count, 0);
    ck_assert_int_eq(got.seen->next_due_us, INT64_MAX);

    /* A pending transaction from its first job on; a job to revisit; shared slots for one of them,
     * and for mail's only lane. */
    bool shares[] = {true, false};
    int lanes[] = {2 * 4 + 1};
    uint64_t lane_xids[] = {mails};
    int64_t lane_ids[] = {4};
    int limits[] = {1};
    const int64_t revisit[] = {7};
    l = look_for(9, 1, 1);
    l.has_position = false;
    l.shares = shares;
    l.shared_slots = 1;
    l.pending_xids = ob_xcalloc(1, sizeof *l.pending_xids);
    l.pending_ids = ob_xcalloc(1, sizeof *l.pending_ids);
    l.pending_xids[0] = bills;
    l.pending_ids[0] = 5;
    l.pending_count = 1;
    l.lanes = lanes;
    l.lane_xids = lane_xids;
    l.lane_ids = lane_ids;
    l.lane_limits = limits;
    l.lanes_count = 1;
    l.revisit = revisit;
    l.revisit_count = 1;
    l.due_from_us = INT64_C(1577934245678902);
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.batch->count, 2);
    ck_assert_int_eq(got.batch->jobs[0].job.id, 4); /* mail, the older one */
    ck_assert_int_eq(got.batch->jobs[1].job.id, 6);
    ck_assert_uint_eq(got.seen->ended.count, 1);
    ck_assert_uint_eq(got.seen->ended.items[0], bills);
    ck_assert_uint_eq(got.seen->lanes.count, 1);
    ck_assert_int_eq(got.seen->lanes.items[0].lane, 9);
    ck_assert_int_eq(got.seen->lanes.items[0].id, 5);
    ck_assert_uint_eq(got.seen->blocked.count, 1);
    ck_assert_int_eq(got.seen->blocked.items[0].lane, 5);
    ck_assert_int_eq(got.seen->blocked.items[0].id, 7);

    /* A position, and what was due. */
    l = look_for(9, 9, 3);
    l.position_xid = bills;
    l.position_id = 6;
    l.due_from_us = INT64_C(1577934245678901);
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.batch->count, 2);
    ck_assert_int_eq(got.batch->jobs[0].job.id, 7);
    ck_assert_int_eq(got.batch->jobs[1].job.id, 8);

    /* A walk of many lanes: two rows, from the second on. */
    const int walk_slots[] = {0, 9};
    testdb_exec("SELECT outbox.enqueue('mail') FROM generate_series(1, 4)");
    limits[0] = 0;
    l = look_for(9, 9, 5);
    l.has_position = false;
    l.lanes = lanes;
    l.lane_xids = lane_xids;
    l.lane_ids = lane_ids;
    l.lane_limits = limits;
    l.lanes_count = 1;
    l.apart = true;
    l.walk_rows = 2;
    l.walk_xid = (uint64_t)testdb_long("SELECT ready_xid FROM outbox.job WHERE id = 10");
    l.walk_id = 10;
    l.walk_priority = 2;
    l.walk_slots = walk_slots;
    l.list_running = false;
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.batch->count, 2);
    ck_assert_int_eq(got.batch->jobs[0].job.id, 10);
    ck_assert_int_eq(got.batch->jobs[1].job.id, 11);
    ck_assert_uint_eq(got.seen->walked.count, 1);
    ck_assert_int_eq(got.seen->walked.items[0].id, 11);
}
END_TEST

START_TEST(older_transactions_are_told_as_pending)
{
    PGconn *writer = testdb_connect();
    pg_exec_ok(writer, "BEGIN; SELECT outbox.enqueue('mail')");
    store_take_xid(rig.conn, on_xid, NULL);
    answered();
    uint64_t xid = got.xids[0];
    struct store_look l = look_for(9, 9, 1);
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.seen->pending.count, 0);
    ck_assert_uint_eq(got.seen->running.count, 1);
    ck_assert_uint_lt(got.seen->position_xid, got.seen->running.items[0]);
    l = look_for(9, 9, 1);
    l.older = xid;
    turn(NULL, 0, &l);
    answered();
    ck_assert_uint_eq(got.seen->pending.count, 1);
    ck_assert_uint_eq(got.seen->pending.items[0], got.seen->running.items[0]);
    ck_assert_uint_eq(got.seen->position_xid, xid);
    PQfinish(writer);
}
END_TEST

START_TEST(sweep_tells_of_lanes)
{
    static const char *tasks[] = {"bill", "mail"};
    testdb_exec("SELECT outbox.enqueue('mail'), outbox.enqueue('fax'), outbox.enqueue('bill')");
    uint64_t xid = (uint64_t)testdb_long("SELECT ready_xid FROM outbox.job WHERE id = 1");
    struct store_sweep sweep = {
        .tasks = tasks, .tasks_count = 2, .from_xid = xid, .from_id = 1, .to_xid = xid, .to_id = 9};
    store_sweep(rig.conn, &sweep, on_seen, NULL);
    answered();
    ck_assert(got.seen->is_done);
    ck_assert_uint_eq(got.seen->position_xid, xid);
    ck_assert_int_eq(got.seen->position_id, 9);
    ck_assert_uint_eq(got.seen->blocked.count, 1);
    ck_assert_int_eq(got.seen->blocked.items[0].lane, 5);
    ck_assert_int_eq(got.seen->blocked.items[0].id, 3);
}
END_TEST

START_TEST(rows_of_the_future_are_restamped)
{
    testdb_exec("SELECT outbox.enqueue('mail') FROM generate_series(1, 3)");
    testdb_exec("UPDATE outbox.job SET ready_xid = '1000000000000' WHERE id < 3");
    store_restamp(rig.conn, on_count, NULL);
    answered();
    ck_assert_int_eq(got.number, 2);
    store_restamp(rig.conn, on_count, NULL);
    answered();
    ck_assert_int_eq(got.number, 0);
}
END_TEST

START_TEST(transaction_ids_grow)
{
    store_take_xid(rig.conn, on_xid, NULL);
    answered();
    uint64_t first = got.xids[0];
    ck_assert_uint_gt(first, 0);
    store_take_xid(rig.conn, on_xid, NULL);
    answered();
    ck_assert_uint_gt(got.xids[0], first);
}
END_TEST

START_TEST(writers_are_told_from_others)
{
    PGconn *writer = testdb_connect();
    PGconn *reader = testdb_connect();
    uint64_t xids[2];
    pg_exec_ok(writer, "BEGIN; SELECT outbox.enqueue('mail')");
    pg_exec_ok(reader, "BEGIN; SELECT count(*) FROM outbox.job");
    PGresult *res = pg_query(reader, PGRES_TUPLES_OK, "SELECT pg_current_xact_id()");
    xids[0] = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    res = pg_query(writer, PGRES_TUPLES_OK, "SELECT pg_current_xact_id()");
    xids[1] = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    store_still_writing(rig.conn, xids, 2, on_xids, NULL);
    answered();
    ck_assert_uint_eq(got.n, 1);
    ck_assert_uint_eq(got.xids[0], xids[1]);
    pg_exec_ok(writer, "ROLLBACK");
    PQfinish(writer);
    store_still_writing(rig.conn, xids, 2, on_xids, NULL);
    answered();
    ck_assert_uint_eq(got.n, 0);
    PQfinish(reader);
}
END_TEST

START_TEST(all_locks_are_let_go_at_once)
{
    static const char *const tasks[] = {"mail", "bill"};
    static const char locks[] = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    store_watch(rig.conn, tasks, 2, on_plain, NULL);
    answered();
    store_watch(rig.conn, tasks, 1, on_plain, NULL); /* they stack */
    answered();
    ck_assert_int_eq(testdb_long(locks), 2);
    store_unwatch_all(rig.conn, on_plain, NULL);
    answered();
    ck_assert_int_eq(testdb_long(locks), 0);
}
END_TEST

/* ---- connection loss ---- */

enum { CALLS = 23 };

/* Every call once. */
static void call(int i)
{
    static const char *const tasks[] = {"mail"};
    static const int backends[2] = {1, 2};
    static const struct store_token token = {1, 1};
    static const char *names[] = {"mail"};
    static const struct store_sweep sweep = {.tasks = names, .tasks_count = 1};
    static const uint64_t xid = 3;
    const struct store_identity me = identity(ME, "me");
    const struct outcome done = outcome(OUTCOME_DONE, "");
    const struct store_result result = {token, &done, 0};
    struct pgconn *c = rig.conn;
    switch (i) {
    case 0:
        store_level(c, on_level, NULL);
        break;
    case 1:
        store_database_identity(c, on_text, NULL);
        break;
    case 2:
        store_listen(c, on_plain, NULL);
        break;
    case 3:
        store_notify(c, "x", on_plain, NULL);
        break;
    case 4:
        store_register(c, &me, on_registered, NULL);
        break;
    case 5:
        store_unregister(c, ME, on_bool, NULL);
        break;
    case 6:
        store_extend(c, ME, backends, on_bool, NULL);
        break;
    case 7:
        store_set_name(c, ME, 1, on_plain, NULL);
        break;
    case 8:
        store_announce(c, ME, tasks, 1, on_bool, NULL);
        break;
    case 9:
        store_watch(c, tasks, 1, on_plain, NULL);
        break;
    case 10:
        store_unwatch(c, tasks, 1, on_plain, NULL);
        break;
    case 11:
        store_peers(c, on_peers, NULL);
        break;
    case 12:
        store_terminate(c, ME, on_plain, NULL);
        break;
    case 13:
        store_take_over(c, ME, 1, true, on_count, NULL);
        break;
    case 14:
        store_adopt(c, ME, OTHER, &token, 1, 1, on_adopted, NULL);
        break;
    case 15:
        look(0, 1, 1);
        break;
    case 16:
        settle(&result, 1);
        break;
    case 17:
        store_sweep(c, &sweep, on_seen, NULL);
        break;
    case 18:
        store_restamp(c, on_count, NULL);
        break;
    case 19:
        store_take_xid(c, on_xid, NULL);
        break;
    case 20:
        store_still_writing(c, &xid, 1, on_xids, NULL);
        break;
    case 21:
        store_unwatch_all(c, on_plain, NULL);
        break;
    default:
        store_payload(c, 1, on_payload, NULL);
        break;
    }
}

/* Lost while the server works on it: told once, as a lost connection, with nothing else set. */
START_TEST(call_is_told_of_a_lost_connection)
{
    struct reply sleeping = {0};
    rig_send(&rig, "SELECT pg_sleep(600)", &sleeping);
    call(_i);
    ck_assert_uint_eq(got.count, 0);
    pgconn_fail(rig.conn, OB_ECONN, "test");
    ck_assert_uint_eq(got.count, 0); /* from the loop */
    rig_until(&rig, rig.downs == 1);
    ck_assert_uint_eq(got.count, 1);
    ck_assert_int_eq(got.error.err, OB_ECONN);
    ck_assert_ptr_null(got.batch);
    ck_assert_int_eq(sleeping.error.err, OB_ECONN);
}
END_TEST

START_TEST(call_without_a_connection_is_answered_at_once)
{
    pgconn_fail(rig.conn, OB_ECONN, "test");
    rig_until(&rig, rig.downs == 1);
    call(_i);
    ck_assert_uint_eq(got.count, 1);
    ck_assert_int_eq(got.error.err, OB_ECONN);
    ck_assert_ptr_null(got.batch);
}
END_TEST

/* Without a right: told by its SQLSTATE, and nothing is done. */
START_TEST(call_without_the_right_is_refused)
{
    rig_close(&rig);
    testdb_exec("DROP ROLE IF EXISTS nobody_special");
    testdb_exec("CREATE ROLE nobody_special LOGIN");
    let_go();
    memset(&got, 0, sizeof got);
    rig_open_up(&rig, testdb_conninfo_as("nobody_special"));
    call(_i);
    refused_with("42501");
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, TIMEOUT_DB_S);
    tcase_add_unchecked_fixture(tc, pgcluster_start, pgcluster_stop);
    tcase_add_checked_fixture(tc, begin, end);
    suite_add_tcase(s, tc);
    return tc;
}

Suite *test_suite(void)
{
    Suite *s = suite_create("store");
    TCase *tc = add_case(s, "the session");
    tcase_add_test(tc, session_pins_its_settings);
    tcase_add_test(tc, level_is_the_schemas);
    tcase_add_test(tc, missing_schema_is_told_by_its_sqlstate);
    tcase_add_test(tc, databases_have_different_identities);
    tcase_add_test(tc, notifications_are_listened_for_and_sent);
    tcase_add_test(tc, session_is_named_and_its_silence_bounded);
    tcase_add_test(tc, watched_tasks_wake);
    tc = add_case(s, "dispatchers");
    tcase_add_test(tc, registration_writes_the_row);
    tcase_add_test(tc, taken_name_tells_whose_it_is);
    tcase_add_test(tc, heartbeat_counts_and_tells_when_it_is_too_late);
    tcase_add_test(tc, other_tasks_are_announced);
    tcase_add_test(tc, row_goes_only_without_jobs);
    tcase_add_test(tc, peers_are_listed_with_beats_and_leases);
    tcase_add_test(tc, sessions_of_another_are_ended);
    tcase_add_test(tc, take_over_needs_the_beat_that_was_seen);
    tcase_add_test(tc, claims_that_never_started_are_given_back_uncounted);
    tcase_add_test(tc, adoption_is_by_token);
    tc = add_case(s, "jobs");
    tcase_add_test(tc, claimed_job_has_every_column);
    tcase_add_test(tc, absent_columns_are_null);
    tcase_add_test(tc, batch_lives_until_it_is_let_go);
    tcase_add_test(tc, several_tasks_are_claimed_at_once);
    tcase_add_test(tc, look_of_the_unregistered_is_refused);
    tcase_add_test(tc, large_payload_is_fetched_apart);
    tcase_add_loop_test(tc, look_with_unreadable_rows_is_an_error, 0, 3);
    tcase_add_test(tc, results_are_answered_in_their_order);
    tcase_add_test(tc, each_outcome_has_its_effect);
    tcase_add_test(tc, death_without_a_run_leaves_no_attempt);
    tcase_add_loop_test(tc, output_survives_its_encoding, 0, 7);
    tcase_add_test(tc, more_output_than_a_statement_holds_is_refused);
    tc = add_case(s, "turns");
    tcase_add_test(tc, turn_records_and_claims);
    tcase_add_test(tc, turn_claims_what_it_has_just_given_back);
    tcase_add_test(tc, failing_look_takes_the_results_back);
    tcase_add_test(tc, refused_results_are_told_from_a_refused_look);
    tcase_add_loop_test(tc, locked_row_is_busy_and_the_others_are_recorded, 0, 2);
    tcase_add_test(tc, every_argument_of_a_look_arrives);
    tcase_add_test(tc, older_transactions_are_told_as_pending);
    tcase_add_test(tc, sweep_tells_of_lanes);
    tcase_add_test(tc, rows_of_the_future_are_restamped);
    tcase_add_test(tc, transaction_ids_grow);
    tcase_add_test(tc, writers_are_told_from_others);
    tcase_add_test(tc, all_locks_are_let_go_at_once);
    tc = add_case(s, "connection loss");
    tcase_add_loop_test(tc, call_is_told_of_a_lost_connection, 0, CALLS);
    tcase_add_loop_test(tc, call_without_a_connection_is_answered_at_once, 0, CALLS);
    tcase_add_loop_test(tc, call_without_the_right_is_refused, 4, 7);
    tcase_add_loop_test(tc, call_without_the_right_is_refused, 15, 19);
    return s;
}
