/* outbox.look: what is claimed, what is told of the rest, and where the reading stands. */
#include "look.h"

#include <stdarg.h>

static PGconn *conn; /* the dispatcher's */
static PGconn *other;

static void begin(void)
{
    testdb_create();
    conn = testdb_connect();
    other = testdb_connect();
    register_one(conn);
}

static void end(void)
{
    seen_free(saw.seen);
    saw.seen = NULL;
    PQfinish(other);
    PQfinish(conn);
    testdb_drop();
}

/* Static ring of 32. */
__attribute__((format(printf, 1, 2))) static const char *text(const char *format, ...)
{
    static char ring[32][1000];
    static unsigned at;
    va_list args;
    at = (at + 1) % 32;
    va_start(args, format);
    (void)vsnprintf(ring[at], sizeof ring[at], format, args);
    va_end(args);
    return ring[at];
}

static void exec(PGconn *c, const char *sql)
{
    pg_exec_ok(c, sql);
}

static void enqueue(PGconn *c, const char *tasks)
{
    exec(c, text("SELECT outbox.enqueue(t) FROM unnest('{%s}'::text[]) AS t", tasks));
}

static uint64_t ready_xid(int id)
{
    return strtoull(rows_of(conn, text("SELECT ready_xid FROM outbox.job WHERE id = %d", id)), NULL,
                    10);
}

enum { A2 = 1 * 4 + 1, B2 = 2 * 4 + 1 }; /* lanes of a and b with the default priority */

/* ---- slots ---- */

START_TEST(each_task_has_its_slots)
{
    enqueue(conn, "a,b,a,a,b,a");
    look(conn, &(struct look){.slots = "'{2,1}'"});
    ck_assert_str_eq(saw.ids, "1 2 3");
    ck_assert_str_eq(said("blocked"), text("%d:4 %d:5", A2, B2));
    look(conn, &(struct look){.slots = "'{0,9}'", .first_claim = "4"});
    ck_assert_str_eq(saw.ids, "5");
    ck_assert_str_eq(said("blocked"), text("%d:4", A2));
}
END_TEST

START_TEST(shared_slots_are_for_all_who_share)
{
    enqueue(conn, "b,a,c,b,a,c");
    look(conn,
         &(struct look){
             .tasks = "'{a,b,c}'", .slots = "'{9,9,1}'", .shares = "'{t,t,f}'", .shared = "3"});
    ck_assert_str_eq(saw.ids, "1 2 3 4"); /* b a c b */
    ck_assert_str_eq(said("blocked"), text("%d:5 %d:6", A2, B2 + 4));
    look(conn, &(struct look){.tasks = "'{a,b,c}'", .shares = "'{t,t,f}'", .slots = "'{9,9,9}'"});
    ck_assert_str_eq(saw.ids, "6");
}
END_TEST

/* A row whose task has no slot left takes none of the shared ones. */
START_TEST(shared_slots_are_not_spent_on_a_task_that_is_full)
{
    enqueue(conn, "a,a,a,b,b");
    look(conn, &(struct look){.slots = "'{1,9}'", .shares = "'{t,t}'", .shared = "3"});
    ck_assert_str_eq(saw.ids, "1 4 5");
}
END_TEST

START_TEST(priority_comes_first_then_age)
{
    PGconn *slow = testdb_connect();
    (void)begin_writing(slow);
    exec(slow, "SELECT outbox.enqueue('a')"); /* 1 */
    exec(conn, "SELECT outbox.enqueue('a', priority => 3)");
    exec(conn, "SELECT outbox.enqueue('b', priority => 1)");
    exec(conn, "SELECT outbox.enqueue('b')");
    exec(slow, "SELECT outbox.enqueue('a', priority => 1)"); /* 5, of the first transaction */
    exec(slow, "COMMIT");
    exec(conn, "SELECT outbox.enqueue('a', priority => 4)");
    look(conn, &(struct look){.slots = "'{4,4}'", .shares = "'{t,t}'", .shared = "4"});
    ck_assert_str_eq(saw.ids, "1 3 4 5");
    ck_rows(conn, "SELECT id FROM outbox.job WHERE owner = 1 ORDER BY claim", "1;3;4;5");
    ck_assert_str_eq(said("blocked"), "6:2 7:6"); /* a of priority 3, and of 4 */
    PQfinish(slow);
}
END_TEST

START_TEST(claims_are_numbered_from_the_first_on)
{
    enqueue(conn, "a,a,b");
    look(conn, &(struct look){.first_claim = "40"});
    ck_rows(conn, "SELECT id, owner, claim, attempts FROM outbox.job ORDER BY id",
            "1|1|40|1;2|1|41|1;3|1|42|1");
    ck_assert_str_eq(said("missed"), "-");
}
END_TEST

START_TEST(job_comes_with_all_that_a_handler_needs)
{
    exec(conn, "SELECT outbox.enqueue('a', '\"12345678\"', headers => '{\"h\": \"v\"}',"
               " max_attempts => 7, priority => 1)");
    exec(conn, "SELECT * FROM outbox.enqueue_bytes('b', '\\x00', 'msgpack',"
               " expires_at => now() - interval '1s')");
    exec(conn, "UPDATE outbox.job SET lost = 3, key = 'k' WHERE id = 2");
    ck_rows(conn,
            text("SELECT id, claim, task, priority, attempt, max_attempts, lost, encoding,"
                 " convert_from(payload, 'UTF8'), payload_size, headers, key,"
                 " created_at <= clock_timestamp(), expired FROM %s WHERE task = 'a'",
                 look_call(&(struct look){.slots = "'{9,0}'"})),
            "1|1|a|1|1|7|0|json|\"12345678\"|10|{\"h\": \"v\"}|-|t|f");
    ck_rows(conn,
            text("SELECT id, encoding, payload, lost, key, expired, max_attempts FROM %s"
                 " WHERE task IS NOT NULL",
                 look_call(&(struct look){.first_claim = "2"})),
            "2|msgpack|\\x00|3|k|t|-");
}
END_TEST

START_TEST(large_payload_does_not_come_along)
{
    exec(conn, "SELECT outbox.enqueue('a', to_jsonb(repeat('x', n)))"
               " FROM unnest('{65534,65535}'::int[]) n");
    ck_rows(conn,
            text("SELECT id, length(payload), payload_size FROM %s WHERE id > 0",
                 look_call(&(struct look){0})),
            "1|65536|65536;2|-|65537");
    exec(conn, "SELECT outbox.enqueue('b', '\"1234\"')");
    ck_rows(conn,
            text("SELECT payload, payload_size FROM %s WHERE id > 0",
                 look_call(&(struct look){.rest = ", 1000, 5", .first_claim = "3"})),
            "-|6");
}
END_TEST

START_TEST(tasks_without_a_handler_are_passed_over)
{
    enqueue(conn, "A,a,a.,ab,b,ba,z,c");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "2 5");
    ck_assert_str_eq(said("blocked"), "-");
    ck_assert_uint_ge(saw.seen->position_xid, ready_xid(8)); /* and not read again */
    look(conn, &(struct look){.tasks = "'{}'", .slots = "'{}'", .shares = "'{}'"});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("blocked"), "-");
}
END_TEST

/* By bytes, whatever the database's collation thinks of case and punctuation. */
START_TEST(tasks_are_told_apart_by_their_bytes)
{
    enqueue(conn, "b,B,a-b,a.b,a_b,ab,a:b,0");
    look(conn, &(struct look){.tasks = "'{0,B,a-b,a.b,a:b,a_b,ab,b}'",
                              .slots = "'{1,1,1,1,1,1,1,1}'",
                              .shares = "'{f,f,f,f,f,f,f,f}'"});
    ck_assert_uint_eq(saw.count, 8);
    ck_assert_str_eq(said("blocked"), "-");
}
END_TEST

START_TEST(unregistered_dispatcher_claims_nothing)
{
    enqueue(conn, "a");
    exec(conn, "BEGIN");
    pg_exec_fails(conn, text("SELECT * FROM %s", look_call(&(struct look){.owner = "7"})), "22023",
                  "no dispatcher 7 is registered");
    exec(conn, "ROLLBACK");
    ck_rows(conn, "SELECT state FROM outbox.jobs", "ready");
}
END_TEST

/* Else a take-over would not find what is owned. */
START_TEST(bounds_enclose_what_is_claimed)
{
    enqueue(conn, "a");
    enqueue(conn, "a");
    enqueue(conn, "a");
    look(conn, &(struct look){.position = text("'%s', 0", xid_text(ready_xid(3)))});
    ck_assert_str_eq(saw.ids, "3");
    look(conn, &(struct look){.slots = "'{1,0}'", .first_claim = "2"});
    ck_assert_str_eq(saw.ids, "1");
    ck_rows(conn,
            "SELECT bool_and(d.oldest_claim <= j.ready_xid AND j.ready_xid <= d.newest_claim)"
            " FROM outbox.job j JOIN outbox.dispatcher d ON d.id = j.owner",
            "t");
    ck_rows(conn, "SELECT outbox.unregister(1)", "f");
    ck_rows(conn, "SELECT outbox.take_over(1, 0)", "2");
}
END_TEST

START_TEST(looking_in_vain_writes_nothing)
{
    enqueue(conn, "c");
    exec(conn, "SELECT outbox.enqueue('a', delay => '1 hour')");
    exec(conn, "BEGIN");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_uint_eq(saw.seen->xid, 0);
    ck_rows(conn, "SELECT pg_current_xact_id_if_assigned()", "-");
    exec(conn, "COMMIT");
}
END_TEST

/* ---- position ---- */

START_TEST(position_is_behind_all_that_was_read)
{
    enqueue(conn, "a,b");
    look(conn, &(struct look){0});
    ck_assert(!saw.seen->is_full);
    ck_assert_uint_ge(saw.seen->position_xid, ready_xid(2));
    ck_assert_uint_eq(saw.seen->position_xid + 1, saw.seen->cut);
    ck_assert_int_eq(saw.seen->position_id, INT64_MAX);
    exec(conn, "SELECT * FROM outbox.release(1, '{1,2}', '{1,2}')"); /* ready again, and new */
    look(conn, &(struct look){.position = here(), .first_claim = "3"});
    ck_assert_str_eq(saw.ids, "1 2");
    look(conn, &(struct look){.position = here()});
    ck_assert_str_eq(saw.ids, "");
}
END_TEST

START_TEST(no_position_means_from_now_on)
{
    enqueue(conn, "a");
    look(conn, &(struct look){.position = "NULL, NULL"});
    ck_assert_str_eq(saw.ids, "");
    enqueue(conn, "b");
    look(conn, &(struct look){.position = here()});
    ck_assert_str_eq(saw.ids, "2");
}
END_TEST

/* The backlog of the beginning is walked in the same look. */
START_TEST(first_look_finds_what_was_there)
{
    enqueue(conn, "a,b");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{9,9}'", A2, B2)});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_str_eq(said("lanes"), "-"); /* both are exhausted */
}
END_TEST

/* What was there is the backlogs'; the position need not go through it, whoever still runs. */
START_TEST(first_look_has_running_transactions_pending)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a')");
    enqueue(conn, "a,b");
    look(conn, &(struct look){.position = "NULL, NULL"});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("pending"), xid_text(xid));
    ck_assert_uint_gt(saw.seen->position_xid, xid);
    const char *list = text("'{%s}', '{0}'", xid_text(xid));
    look(conn, &(struct look){.position = here(), .pending = list});
    ck_assert_str_eq(saw.ids, ""); /* 2 and 3 are not read again */
    exec(other, "COMMIT");
    look(conn, &(struct look){.position = here(), .pending = list});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_str_eq(said("ended"), xid_text(xid));
}
END_TEST

/* Ids and transactions are handed out before commits: whoever still runs may put rows there. */
START_TEST(position_stays_below_running_transactions)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a')");
    enqueue(conn, "a");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "2");
    ck_assert_uint_lt(saw.seen->position_xid, xid);
    ck_assert_uint_eq(saw.seen->cut, xid);
    ck_assert_uint_gt(saw.seen->xmax, xid);
    ck_assert_str_eq(said("running"), xid_text(xid));
    ck_assert_str_eq(said("pending"), "-");
    exec(other, "COMMIT");
    look(conn, &(struct look){.position = here(), .first_claim = "2"});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_str_eq(said("running"), "-");
    ck_assert_uint_gt(saw.seen->position_xid, xid);
}
END_TEST

/* Our own: what this transaction makes ready may lie behind its other rows. */
START_TEST(position_stays_below_our_own_transaction)
{
    enqueue(conn, "a,a");
    look(conn, &(struct look){0});
    exec(conn, "BEGIN");
    exec(conn, "SELECT * FROM outbox.release(1, '{1}', '{1}')");
    uint64_t own = strtoull(rows_of(conn, "SELECT pg_current_xact_id()"), NULL, 10);
    look(conn, &(struct look){.first_claim = "3"});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_uint_eq(saw.seen->xid, own);
    ck_assert_uint_lt(saw.seen->position_xid, own);
    exec(conn, "SELECT * FROM outbox.release(1, '{2}', '{2}')");
    exec(conn, "COMMIT");
    look(conn, &(struct look){.position = here(), .first_claim = "4"});
    ck_assert_str_eq(saw.ids, "2");
}
END_TEST

/* Rows of a restored dump carry any number: they are claimed, and the position is not theirs. */
START_TEST(position_is_not_taken_from_a_row_of_the_future)
{
    enqueue(conn, "a,a");
    exec(conn, "UPDATE outbox.job SET ready_xid = '1000000000000'");
    look(conn, &(struct look){.slots = "'{1,0}'", .rest = ", 1"});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_uint_lt(saw.seen->position_xid, saw.seen->xmax);
    enqueue(conn, "b");
    look(conn, &(struct look){.position = here(), .first_claim = "2"});
    ck_assert_str_eq(saw.ids, "2 3");
}
END_TEST

/* A batch of it is read: the position is its last row, in the middle of a transaction. */
START_TEST(full_look_goes_on_behind_its_last_row)
{
    exec(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 10)");
    look(conn, &(struct look){.rest = ", 4", .slots = "'{2,0}'"});
    ck_assert(saw.seen->is_full);
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_str_eq(said("blocked"), text("%d:3", A2));
    ck_assert_uint_eq(saw.seen->position_xid, ready_xid(1));
    ck_assert_int_eq(saw.seen->position_id, 4);
    look(conn, &(struct look){.rest = ", 4", .position = here(), .first_claim = "3"});
    ck_assert_str_eq(saw.ids, "5 6 7 8");
    ck_assert(saw.seen->is_full);
    look(conn, &(struct look){.rest = ", 4", .position = here(), .first_claim = "7"});
    ck_assert_str_eq(saw.ids, "9 10");
    ck_assert(!saw.seen->is_full);
    ck_assert_int_eq(saw.seen->position_id, INT64_MAX);
}
END_TEST

/* What lies between a running transaction and the end is read again, as long as a look can hold it:
 * beyond that, the transaction becomes pending. */
START_TEST(full_look_passes_running_transactions)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a')");
    for (int i = 0; i < 6; i++)
        enqueue(conn, "b");
    look(conn, &(struct look){.rest = ", 4", .slots = "'{9,0}'"});
    ck_assert(saw.seen->is_full);
    ck_assert_int_eq(saw.seen->position_id, 5);
    ck_assert_uint_gt(saw.seen->position_xid, xid);
    ck_assert_str_eq(said("pending"), xid_text(xid));
    look(conn, &(struct look){.rest = ", 4",
                              .position = here(),
                              .pending = text("'{%s}', '{0}'", xid_text(xid)),
                              .slots = "'{9,0}'"});
    ck_assert(!saw.seen->is_full);
    ck_assert_str_eq(said("pending"), "-"); /* it is on the list already */
    ck_assert_str_eq(said("ended"), "-");
    exec(other, "COMMIT");
}
END_TEST

/* ---- pending ---- */

/* Below `older`, a running transaction does not hold the position back any more. */
START_TEST(old_transactions_become_pending)
{
    PGconn *third = testdb_connect();
    uint64_t first = begin_writing(other);
    uint64_t second = begin_writing(third);
    exec(other, "SELECT outbox.enqueue('a'), outbox.enqueue('a')");
    exec(third, "SELECT outbox.enqueue('b')");
    exec(conn, "SELECT pg_current_xact_id()"); /* a snapshot lists those that began before one that
                                                  has ended */
    look(conn, &(struct look){.older = text("'%s'", xid_text(second))});
    ck_assert_str_eq(said("pending"), xid_text(first));
    ck_assert_uint_eq(saw.seen->cut, second);
    const char *list = text("'{%s}', '{0}'", xid_text(first));
    exec(third, "COMMIT");
    look(conn, &(struct look){.position = here(), .pending = list});
    ck_assert_str_eq(saw.ids, "3");
    ck_assert_str_eq(said("ended"), "-"); /* it still runs */
    exec(other, "COMMIT");
    look(conn, &(struct look){.position = here(), .pending = list, .first_claim = "2"});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_str_eq(said("ended"), xid_text(first));
    PQfinish(third);
}
END_TEST

START_TEST(pending_transaction_that_was_rolled_back_has_ended)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a')");
    const char *list = text("'{%s}', '{0}'", xid_text(xid));
    exec(other, "ROLLBACK");
    look(conn, &(struct look){.pending = list});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("ended"), xid_text(xid));
}
END_TEST

/* 200 rows a look, each list with its own place. */
START_TEST(pending_transaction_is_read_in_parts)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a') FROM generate_series(1, 450)");
    exec(other, "COMMIT");
    exec(conn, "SELECT pg_current_xact_id()");
    look(conn, &(struct look){.position = "NULL, NULL"});
    const char *from = text("%s", here());
    look(conn, &(struct look){.position = from,
                              .slots = "'{1,0}'",
                              .pending = text("'{%s}', '{0}'", xid_text(xid))});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_str_eq(said("ended"), "-");
    ck_assert_uint_eq(saw.seen->partial.count, 1);
    ck_assert_uint_eq(saw.seen->partial.items[0].xid, xid);
    ck_assert_int_eq(saw.seen->partial.items[0].id, 200);
    ck_assert_str_eq(said("blocked"), text("%d:2", A2));
    look(conn, &(struct look){.position = from,
                              .slots = "'{0,0}'",
                              .pending = text("'{%s}', '{400}'", xid_text(xid))});
    ck_assert_str_eq(said("ended"), xid_text(xid));
    ck_assert_uint_eq(saw.seen->partial.count, 0);
    ck_assert_str_eq(said("blocked"), text("%d:401", A2));
}
END_TEST

/* Its rows may lie before those of a lane that is open. */
START_TEST(late_row_of_an_open_lane_is_told_of)
{
    uint64_t xid = begin_writing(other);
    exec(other, "SELECT outbox.enqueue('a')");
    enqueue(conn, "a");
    exec(other, "COMMIT");
    look(conn,
         &(struct look){.position = "NULL, NULL",
                        .pending = text("'{%s}', '{0}'", xid_text(xid)),
                        .lanes = text("'{%d}', '{%s}', '{2}', '{1}'", A2, xid_text(ready_xid(2)))});
    ck_assert_str_eq(saw.ids, "2");
    ck_assert_str_eq(said("blocked"), text("%d:1", A2));
    ck_assert_str_eq(said("lanes"), "-");
}
END_TEST

/* ---- lanes ---- */

START_TEST(backlog_is_walked_from_where_it_continues)
{
    exec(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 10)");
    exec(conn, "SELECT outbox.enqueue('a', priority => 1)");
    look(conn,
         &(struct look){.position = "NULL, NULL",
                        .slots = "'{3,0}'",
                        .lanes = text("'{%d}', '{%s}', '{4}', '{3}'", A2, xid_text(ready_xid(4)))});
    ck_assert_str_eq(saw.ids, "4 5 6");
    ck_assert_str_eq(said("lanes"), text("%d:7", A2)); /* the first that was not claimed */
    look(conn,
         &(struct look){.position = "NULL, NULL",
                        .slots = "'{5,0}'",
                        .first_claim = "4",
                        .lanes = text("'{%d}', '{%s}', '{7}', '{5}'", A2, xid_text(ready_xid(7)))});
    ck_assert_str_eq(saw.ids, "7 8 9 10");
    ck_assert_str_eq(said("lanes"), "-"); /* exhausted */
}
END_TEST

/* More slots than it may have read: it goes on, though everything read was claimed. */
START_TEST(limit_of_a_lane_bounds_what_is_read)
{
    exec(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 10)");
    exec(conn, "SELECT outbox.enqueue('b') FROM generate_series(1, 10)");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .slots = "'{9,9}'",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{3,0}'", A2, B2)});
    ck_assert_str_eq(saw.ids, "1 2 3");
    ck_assert_str_eq(said("lanes"), text("%d:4", A2)); /* nothing is said of b */
}
END_TEST

START_TEST(row_of_a_lane_without_slots_is_where_it_continues)
{
    enqueue(conn, "a,b,a,b");
    exec(conn, "SELECT outbox.enqueue('b', priority => 1)");
    look(conn, &(struct look){
                   .position = "NULL, NULL",
                   .slots = "'{3,3}'",
                   .shares = "'{t,t}'",
                   .shared = "3",
                   .lanes = text("'{%d,%d,%d}', '{0,0,0}', '{0,0,0}', '{3,3,3}'", B2 - 1, A2, B2)});
    ck_assert_str_eq(saw.ids, "1 2 5");
    ck_assert_str_eq(said("lanes"), text("%d:3 %d:4", A2, B2));
}
END_TEST

/* The stream's row of an open lane waits behind the backlog: the walk comes to it. */
START_TEST(stream_does_not_overtake_a_backlog)
{
    enqueue(conn, "a,a");
    look(conn, &(struct look){.position = "NULL, NULL", .slots = "'{0,0}'"});
    const char *from = text("%s", here());
    enqueue(conn, "a,b");
    look(conn, &(struct look){.position = from,
                              .slots = "'{1,9}'",
                              .lanes = text("'{%d}', '{0}', '{0}', '{1}'", A2)});
    ck_assert_str_eq(saw.ids, "1 4");
    ck_assert_str_eq(said("blocked"), text("%d:3", A2));
    ck_assert_str_eq(said("lanes"), text("%d:2", A2));
    /* Only known to be open: not walked, and not overtaken either. */
    look(conn, &(struct look){.position = from,
                              .first_claim = "3",
                              .lanes = text("'{%d}', '{0}', '{0}', '{0}'", A2)});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("lanes"), "-");
    ck_assert_str_eq(said("blocked"), text("%d:3", A2));
}
END_TEST

/* A full look in the middle of a backlog: the stream passes it, the walk claims. */
START_TEST(stream_goes_on_while_backlogs_are_open)
{
    exec(conn, "SELECT outbox.enqueue('a') FROM generate_series(1, 20)");
    exec(conn, "SELECT outbox.enqueue('b')");
    look(conn, &(struct look){.rest = ", 7", .slots = "'{2,1}'"});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert(saw.seen->is_full);
    look(conn, &(struct look){.rest = ", 7", .slots = "'{0,1}'", .position = here()});
    ck_assert(saw.seen->is_full);
    look(conn,
         &(struct look){.rest = ", 7", .slots = "'{0,1}'", .position = here(), .first_claim = "3"});
    ck_assert_str_eq(saw.ids, "21");
}
END_TEST

/* ---- lanes that are walked together ---- */

/* From id FROM on, ROWS rows of the second priority; SLOTS by task; apart or not. Static storage.
 */
static const char *walk_of(int rows, int from, const char *slots, bool apart)
{
    static char sql[200];
    (void)snprintf(sql, sizeof sql, ", 1000, 65536, %s, true, %d, '%s', %d, 2, '%s'",
                   apart ? "true" : "false", rows, xid_text(ready_xid(from)), from, slots);
    return sql;
}

START_TEST(lanes_are_walked_together_in_the_order_of_the_stream)
{
    exec(conn, "SELECT outbox.enqueue(t) FROM unnest('{a,b,a,b,a,b,a,b}'::text[]) AS t");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .slots = "'{2,1}'",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{0,0}'", A2, B2),
                              .rest = walk_of(5, 2, "{2,1}", true)});
    ck_assert_str_eq(saw.ids, "2 3 5");
    ck_assert_str_eq(said("lanes"), text("%d:4", B2)); /* the first that was left */
    ck_assert_str_eq(said("walked"), "3:6");
    ck_assert_str_eq(said("blocked"), "-");
}
END_TEST

START_TEST(walk_that_comes_to_the_end_says_nothing_of_it)
{
    enqueue(conn, "a,b,a");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{0,0}'", A2, B2),
                              .rest = walk_of(9, 1, "{9,9}", true)});
    ck_assert_str_eq(saw.ids, "1 2 3");
    ck_assert_str_eq(said("lanes"), "-");
    ck_assert_str_eq(said("walked"), "-");
}
END_TEST

/* Of another priority, another task, a task without a place in the walk, or owned. */
START_TEST(walk_passes_over_other_lanes)
{
    enqueue(conn, "a,b,c,a");
    exec(conn, "SELECT outbox.enqueue('a', priority => p) FROM unnest('{1,3}'::int[]) AS p");
    ck_rows(conn, REGISTER("2", "two"), "registered");
    ck_rows(conn, "SELECT id FROM outbox.claim(2, 1, '{a}', '{1}')", "5");
    ck_rows(conn, "SELECT id FROM outbox.claim(2, 2, '{a}', '{1}')", "1");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .lanes = text("'{%d}', '{0}', '{0}', '{0}'", A2),
                              .rest = walk_of(9, 1, "{9,0}", true)});
    ck_assert_str_eq(saw.ids, "4");
    ck_assert_str_eq(said("lanes"), "-");
    ck_assert_str_eq(said("blocked"), "-");
}
END_TEST

/* What shares slots is weighed by age, and what loses is left. */
START_TEST(walked_lanes_that_share_slots_have_them_by_age)
{
    enqueue(conn, "b,a,b,a");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .slots = "'{3,3}'",
                              .shares = "'{t,t}'",
                              .shared = "3",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{0,0}'", A2, B2),
                              .rest = walk_of(9, 1, "{3,3}", false)});
    ck_assert_str_eq(saw.ids, "1 2 3");
    ck_assert_str_eq(said("lanes"), text("%d:4", A2));
}
END_TEST

/* One lane has fallen behind: it is walked alone in the same look. */
START_TEST(lanes_are_walked_alone_and_together_in_one_look)
{
    enqueue(conn, "a,b,a,b,a");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .slots = "'{2,2}'",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{2,0}'", A2, B2),
                              .rest = walk_of(2, 3, "{0,2}", true)});
    ck_assert_str_eq(saw.ids, "1 3 4");
    ck_assert_str_eq(said("lanes"), text("%d:5", A2));
    ck_assert_str_eq(said("walked"), "1:4");
}
END_TEST

START_TEST(locked_row_of_a_walk_is_missed)
{
    enqueue(conn, "a,b");
    exec(other, "BEGIN; SELECT FROM outbox.job WHERE id = 1 FOR UPDATE");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{0,0}'", A2, B2),
                              .rest = walk_of(9, 1, "{9,9}", true)});
    ck_assert_str_eq(saw.ids, "2");
    ck_assert_uint_eq(saw.seen->missed.count, 2); /* both were tried */
    exec(other, "ROLLBACK");
}
END_TEST

START_TEST(running_transactions_are_named_on_request)
{
    uint64_t xid = begin_writing(other);
    enqueue(conn, "c"); /* a newer transaction: the newest that runs is in no snapshot's list */
    look(conn, &(struct look){.rest = ", 1000, 65536, false, true"});
    ck_assert_ptr_nonnull(strstr(said("running"), xid_text(xid)));
    look(conn, &(struct look){.rest = ", 1000, 65536, false, false"});
    ck_assert_str_eq(said("running"), "-");
    exec(other, "ROLLBACK");
}
END_TEST

/* ---- revisit ---- */

/* Whoever holds it locked may roll back, and then it is new to nobody. */
START_TEST(locked_row_is_missed_and_had_on_a_revisit)
{
    enqueue(conn, "a,a,a");
    exec(other, "BEGIN; SELECT FROM outbox.job WHERE id IN (1, 3) FOR UPDATE");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "2");
    ck_assert_str_eq(said("missed"), "1 2 3"); /* in the order of the claims */
    ck_rows(conn, "SELECT claim FROM outbox.job WHERE id = 2", "2");
    const char *from = text("%s", here());
    look(conn, &(struct look){.position = from, .revisit = "'{1,3}'", .first_claim = "4"});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("held"), "1 3");
    exec(other, "ROLLBACK");
    look(conn, &(struct look){.position = from, .revisit = "'{1,3}'", .first_claim = "6"});
    ck_assert_str_eq(saw.ids, "1 3");
    ck_assert_str_eq(said("missed"), "-");
    ck_assert_str_eq(said("held"), "-");
}
END_TEST

/* A rival's claim, rolled back; and one that was committed. */
START_TEST(rivals_claim_is_missed_until_it_is_decided)
{
    ck_rows(conn, REGISTER("2", "two"), "registered");
    enqueue(conn, "a,a");
    exec(other, "BEGIN");
    ck_rows(other, "SELECT id FROM outbox.claim(2, 1, '{a}', '{2}')", "1;2");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("missed"), "1 2");
    exec(other, "ROLLBACK");
    ck_rows(other, "SELECT id FROM outbox.claim(2, 3, '{a}', '{1}')", "1");
    look(conn, &(struct look){.position = here(), .revisit = "'{1,2}'", .first_claim = "3"});
    ck_assert_str_eq(saw.ids, "2");
    ck_assert_str_eq(said("missed"), "-");
}
END_TEST

START_TEST(revisited_row_that_is_gone_owned_or_scheduled_is_forgotten)
{
    ck_rows(conn, REGISTER("2", "two"), "registered");
    enqueue(conn, "a,a,a,c");
    ck_rows(conn, "SELECT outbox.cancel(1)", "cancelled");
    ck_rows(conn, "SELECT id FROM outbox.claim(2, 1, '{a}', '{2}')", "2;3");
    ck_rows(conn, "SELECT * FROM outbox.release(2, '{3}', '{2}', '1 hour')", "3|done");
    look(conn, &(struct look){.position = "NULL, NULL", .revisit = "'{1,2,3,4,99}'"});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_str_eq(said("missed"), "-");
    ck_assert_str_eq(said("blocked"), "-");
}
END_TEST

START_TEST(revisited_row_without_a_slot_opens_its_lane)
{
    enqueue(conn, "a,a,b");
    look(conn,
         &(struct look){.position = "NULL, NULL", .revisit = "'{2,3,1}'", .slots = "'{1,0}'"});
    ck_assert_str_eq(saw.ids, "1");
    ck_assert_str_eq(said("blocked"), text("%d:2 %d:3", A2, B2));
}
END_TEST

/* The walk comes to it, too, and finds no slot for it: its lane stays open. */
START_TEST(revisited_row_of_an_open_lane_keeps_it_open)
{
    exec(conn, "SELECT outbox.enqueue('a', priority => p) FROM unnest('{1,1,2}'::int[]) AS p");
    look(conn, &(struct look){.position = "NULL, NULL",
                              .revisit = "'{3}'",
                              .slots = "'{2,0}'",
                              .lanes = text("'{%d,%d}', '{0,0}', '{0,0}', '{2,2}'", A2 - 1, A2)});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_str_eq(said("lanes"), text("%d:3", A2));
}
END_TEST

/* Read in the stream, revisited and walked, all in one look. */
START_TEST(row_that_is_read_three_times_is_claimed_once)
{
    enqueue(conn, "a,b");
    look(conn,
         &(struct look){.revisit = "'{1,2,2}'", .lanes = text("'{%d}', '{0}', '{0}', '{9}'", A2)});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_str_eq(said("missed"), "-");
    ck_assert_str_eq(said("lanes"), "-");
    ck_rows(conn, "SELECT id, claim, attempts FROM outbox.job ORDER BY id", "1|1|1;2|2|1");
}
END_TEST

/* ---- what is scheduled ---- */

START_TEST(due_jobs_are_claimed_in_the_same_look)
{
    exec(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 3)");
    exec(conn, "UPDATE outbox.job SET run_at = now() - interval '1 s' WHERE id < 3");
    exec(conn, "UPDATE outbox.job SET run_at = '2100-01-02 03:04:05.678901Z' WHERE id = 3");
    look(conn, &(struct look){.position = "NULL, NULL"});
    ck_assert_str_eq(saw.ids, ""); /* no position: what is made ready now lies behind it */
    ck_assert_uint_gt(saw.seen->xid, 0);
    look(conn, &(struct look){.position = here()});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_int_eq(saw.seen->next_due_us, INT64_C(4102542245678901));
    exec(conn, "UPDATE outbox.job SET run_at = now() - interval '1 s' WHERE id = 3");
    look(conn, &(struct look){.position = here(), .first_claim = "3"});
    ck_assert_str_eq(saw.ids, "3");
    ck_assert_int_eq(saw.seen->next_due_us, INT64_MAX);
}
END_TEST

START_TEST(scheduled_jobs_before_due_from_are_not_looked_for)
{
    exec(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 2)");
    exec(conn, "UPDATE outbox.job SET run_at = '2020-01-01Z' WHERE id = 1");
    look(conn, &(struct look){.due_from = "'2020-01-01 00:00:01Z'"});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_int_gt(saw.seen->next_due_us, INT64_C(1577836801000000));
    look(conn, &(struct look){.due_from = "'2020-01-01 00:00:00Z'"});
    ck_assert_str_eq(saw.ids, "1");
}
END_TEST

/* No more than a batch a look: the next one is in the past, so that the caller looks again. */
START_TEST(due_jobs_are_made_ready_in_batches)
{
    exec(conn, "SELECT outbox.enqueue('a', delay => '1 hour') FROM generate_series(1, 5)");
    exec(conn, "UPDATE outbox.job SET run_at = now() - interval '1 min' * id");
    look(conn, &(struct look){.rest = ", 3"});
    ck_assert_str_eq(saw.ids, "3 4 5");
    ck_assert_int_lt(saw.seen->next_due_us, saw.seen->now_us);
    look(conn, &(struct look){.rest = ", 3", .position = here(), .first_claim = "4"});
    ck_assert_str_eq(saw.ids, "1 2");
    ck_assert_int_eq(saw.seen->next_due_us, INT64_MAX);
}
END_TEST

START_TEST(due_row_that_is_locked_is_told_as_due)
{
    exec(conn, "SELECT outbox.enqueue('a', delay => '1 hour')");
    exec(conn, "UPDATE outbox.job SET run_at = '2020-01-01Z'");
    exec(other, "BEGIN; SELECT FROM outbox.job FOR UPDATE");
    look(conn, &(struct look){0});
    ck_assert_str_eq(saw.ids, "");
    ck_assert_int_eq(saw.seen->next_due_us, INT64_C(1577836800000000));
    exec(other, "COMMIT");
    look(conn, &(struct look){.position = here()});
    ck_assert_str_eq(saw.ids, "1");
}
END_TEST

START_TEST(clock_is_the_servers)
{
    look(conn, &(struct look){0});
    int64_t first = saw.seen->now_us;
    look(conn, &(struct look){0});
    ck_assert_int_ge(saw.seen->now_us, first);
    ck_rows(conn,
            text("SELECT to_timestamp(%" PRId64 " / 1e6) BETWEEN now() - interval '1 min' AND"
                 " clock_timestamp()",
                 first),
            "t");
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
    Suite *s = suite_create("sql_look");
    TCase *tc = add_case(s, "slots");
    tcase_add_test(tc, each_task_has_its_slots);
    tcase_add_test(tc, shared_slots_are_for_all_who_share);
    tcase_add_test(tc, shared_slots_are_not_spent_on_a_task_that_is_full);
    tcase_add_test(tc, priority_comes_first_then_age);
    tcase_add_test(tc, claims_are_numbered_from_the_first_on);
    tcase_add_test(tc, job_comes_with_all_that_a_handler_needs);
    tcase_add_test(tc, large_payload_does_not_come_along);
    tcase_add_test(tc, tasks_without_a_handler_are_passed_over);
    tcase_add_test(tc, tasks_are_told_apart_by_their_bytes);
    tcase_add_test(tc, unregistered_dispatcher_claims_nothing);
    tcase_add_test(tc, bounds_enclose_what_is_claimed);
    tcase_add_test(tc, looking_in_vain_writes_nothing);
    tc = add_case(s, "position");
    tcase_add_test(tc, position_is_behind_all_that_was_read);
    tcase_add_test(tc, no_position_means_from_now_on);
    tcase_add_test(tc, first_look_finds_what_was_there);
    tcase_add_test(tc, first_look_has_running_transactions_pending);
    tcase_add_test(tc, position_stays_below_running_transactions);
    tcase_add_test(tc, position_stays_below_our_own_transaction);
    tcase_add_test(tc, position_is_not_taken_from_a_row_of_the_future);
    tcase_add_test(tc, full_look_goes_on_behind_its_last_row);
    tcase_add_test(tc, full_look_passes_running_transactions);
    tc = add_case(s, "pending");
    tcase_add_test(tc, old_transactions_become_pending);
    tcase_add_test(tc, pending_transaction_that_was_rolled_back_has_ended);
    tcase_add_test(tc, pending_transaction_is_read_in_parts);
    tcase_add_test(tc, late_row_of_an_open_lane_is_told_of);
    tc = add_case(s, "lanes");
    tcase_add_test(tc, backlog_is_walked_from_where_it_continues);
    tcase_add_test(tc, limit_of_a_lane_bounds_what_is_read);
    tcase_add_test(tc, row_of_a_lane_without_slots_is_where_it_continues);
    tcase_add_test(tc, stream_does_not_overtake_a_backlog);
    tcase_add_test(tc, stream_goes_on_while_backlogs_are_open);
    tc = add_case(s, "together");
    tcase_add_test(tc, lanes_are_walked_together_in_the_order_of_the_stream);
    tcase_add_test(tc, walk_that_comes_to_the_end_says_nothing_of_it);
    tcase_add_test(tc, walk_passes_over_other_lanes);
    tcase_add_test(tc, walked_lanes_that_share_slots_have_them_by_age);
    tcase_add_test(tc, lanes_are_walked_alone_and_together_in_one_look);
    tcase_add_test(tc, locked_row_of_a_walk_is_missed);
    tcase_add_test(tc, running_transactions_are_named_on_request);
    tc = add_case(s, "revisit");
    tcase_add_test(tc, locked_row_is_missed_and_had_on_a_revisit);
    tcase_add_test(tc, rivals_claim_is_missed_until_it_is_decided);
    tcase_add_test(tc, revisited_row_that_is_gone_owned_or_scheduled_is_forgotten);
    tcase_add_test(tc, revisited_row_without_a_slot_opens_its_lane);
    tcase_add_test(tc, revisited_row_of_an_open_lane_keeps_it_open);
    tcase_add_test(tc, row_that_is_read_three_times_is_claimed_once);
    tc = add_case(s, "what is scheduled");
    tcase_add_test(tc, due_jobs_are_claimed_in_the_same_look);
    tcase_add_test(tc, scheduled_jobs_before_due_from_are_not_looked_for);
    tcase_add_test(tc, due_jobs_are_made_ready_in_batches);
    tcase_add_test(tc, due_row_that_is_locked_is_told_as_due);
    tcase_add_test(tc, clock_is_the_servers);
    return s;
}
