-- functions_claim.sql: claims: taking ready jobs, handing claims over. What the dispatcher uses is
-- what a pull consumer in any language may use.
-- min_level: 1
--
-- A claim's token is (owner, claim). The owner is a registered dispatcher (outbox.register); the
-- claim number comes from a counter in that dispatcher's memory, so that no token is ever issued
-- twice, whatever the server forgot in a crash. Every change of a running job asks for its token.
--
-- Sessions that call these run at READ COMMITTED. A claim changes no indexed column, but the unique
-- key of the jobs that have one: a HOT update for all others.

-- outbox.hold_dispatcher(id): keeps the dispatcher from being taken over until the transaction
-- ends, so that no claim can be committed for one that was. Internal.
-- Errors: 22023 it is not registered.
CREATE OR REPLACE FUNCTION outbox.hold_dispatcher(id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM outbox.owner o WHERE o.id = hold_dispatcher.id FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM outbox.refuse('22023',
            format('no dispatcher %s is registered', coalesce(id::text, 'NULL')),
            'Call outbox.register first; one that was taken over registers again, with a new id.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.hold_dispatcher(bigint) IS
    'internal: keeps a dispatcher''s row until the transaction ends, or raises an error';

-- outbox.note_claims(owner, oldest, newest): records that every job it owns became ready in a
-- transaction between these, or the bounds that are known already. Internal.
-- The upper one is raised by some more than needed, so that it is written once in a while.
CREATE OR REPLACE FUNCTION outbox.note_claims(
    owner bigint, INOUT oldest xid8, INOUT newest xid8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    d record;
BEGIN
    SELECT x.oldest_claim, x.newest_claim INTO d
    FROM outbox.dispatcher x WHERE x.id = note_claims.owner;
    IF d.oldest_claim <= oldest AND d.newest_claim >= newest THEN
        oldest := d.oldest_claim;
        newest := d.newest_claim;
        RETURN;
    END IF;
    UPDATE outbox.dispatcher AS x
    SET oldest_claim = CASE WHEN x.oldest_claim <= oldest THEN x.oldest_claim ELSE oldest END,
        newest_claim = CASE WHEN x.newest_claim >= newest THEN x.newest_claim
                            ELSE (newest::text::bigint + 20000)::text::xid8 END
    WHERE x.id = note_claims.owner
    RETURNING x.oldest_claim, x.newest_claim INTO oldest, newest; -- as they are by now
END
$$;
COMMENT ON FUNCTION outbox.note_claims(bigint, xid8, xid8) IS
    'internal: records between which transactions a dispatcher''s jobs became ready';

-- outbox.claim(owner, first_claim, tasks, slots, payload_max): claims ready jobs that nobody owns.
--   owner        a registered dispatcher
--   first_claim  the number of the first claim; as many numbers are used as rows come back
--   tasks        task names, each at most once
--   slots        as many numbers: how many jobs of each task at most; 0 or less: none
--   payload_max  larger payloads (in bytes) come as NULL: fetch them with outbox.payload
-- Returns the claimed jobs, by task in the order given, then by priority, then in the order in
-- which they became ready (ready_xid, id). Rows that somebody holds locked are passed over. Of a task
-- that is paused none come back (what was claimed before goes on). attempt counts this claim;
-- expired: expires_at has passed, so settle it as dead instead of running it.
-- Errors: 22023 owner not registered, NULL or unequal arrays.
-- Looking without finding anything writes nothing and takes no transaction id.
CREATE OR REPLACE FUNCTION outbox.claim(
    owner bigint, first_claim bigint, tasks text[], slots integer[],
    payload_max integer DEFAULT 65536)
RETURNS TABLE(id bigint, claim bigint, task text, priority smallint, attempt integer,
              max_attempts integer, lost integer, encoding text, payload bytea,
              payload_size integer, headers text, key text, created_at timestamptz,
              expired boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_memoize = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    resting constant text[] := ARRAY(SELECT p.task FROM outbox.paused p); -- few, and mostly none
    picked tid[];
    oldest xid8;
    newest xid8;
BEGIN
    IF (cardinality(tasks) = cardinality(slots) AND first_claim IS NOT NULL) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'tasks and slots differ in length, or something is NULL',
            'Pass a number of slots for each task, and the first claim''s number.');
    END IF;
    PERFORM FROM outbox.owner o WHERE o.id = claim.owner;
    IF NOT FOUND THEN
        PERFORM outbox.hold_dispatcher(owner); -- raises the error
    END IF;
    WITH taken AS MATERIALIZED (
        SELECT r.ctid, r.ready_xid
        FROM ROWS FROM (unnest(tasks), unnest(slots)) WITH ORDINALITY AS t(task, slots, n)
        CROSS JOIN LATERAL (
            SELECT j.ctid, j.ready_xid FROM outbox.job j
            WHERE j.task = t.task AND j.ready_xid IS NOT NULL AND j.owner IS NULL
            ORDER BY j.priority, j.ready_xid, j.id
            LIMIT greatest(t.slots, 0)
            FOR NO KEY UPDATE SKIP LOCKED) AS r
        WHERE t.task <> ALL (resting))
    SELECT array_agg(taken.ctid), -- in their order: no aggregate here may ask for another one
           (SELECT x.ready_xid FROM taken x ORDER BY x.ready_xid LIMIT 1),
           (SELECT x.ready_xid FROM taken x ORDER BY x.ready_xid DESC LIMIT 1)
    INTO picked, oldest, newest FROM taken;
    IF picked IS NULL THEN
        RETURN;
    END IF;
    PERFORM outbox.hold_dispatcher(owner);
    PERFORM outbox.note_claims(owner, oldest, newest);
    RETURN QUERY
    WITH claimed AS (
        UPDATE outbox.job AS j
        SET owner = claim.owner, claim = first_claim + p.n - 1, attempts = j.attempts + 1,
            unique_key = NULL, claimed_unique_key = j.unique_key
        FROM unnest(picked) WITH ORDINALITY AS p(tid, n)
        WHERE j.ctid = p.tid
        RETURNING j.id, j.claim, j.task, j.priority, j.attempts, j.max_attempts::integer, j.lost,
                  j.encoding, CASE WHEN octet_length(j.payload) <= payload_max THEN j.payload END,
                  octet_length(j.payload), j.headers::text, j.key, j.created_at,
                  coalesce(j.expires_at <= clock_timestamp(), false))
    SELECT * FROM claimed c ORDER BY c.claim;
END
$$;
COMMENT ON FUNCTION outbox.claim(bigint, bigint, text[], integer[], integer) IS
    'claims ready jobs of the tasks for a registered dispatcher, and returns them';

-- outbox.adopt(owner, previous, ids, claims, first_claim): hands running jobs of one dispatcher id
-- to another: the same dispatcher after it lost its connection and registered anew.
--   owner        the new id, registered
--   previous     the old id
--   ids, claims  the jobs that still run here, and their claim numbers under the old id
--   first_claim  the number of the first new claim; as many are used as rows come back
-- Returns the jobs that are now owner's, in the order of ids, with their new claim numbers. A job
-- that is missing was taken over, settled or cancelled meanwhile: stop it.
-- Errors: 22023 owner not registered, NULL or unequal arrays.
CREATE OR REPLACE FUNCTION outbox.adopt(
    owner bigint, previous bigint, ids bigint[], claims bigint[], first_claim bigint)
RETURNS TABLE(id bigint, claim bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    held tid[];
    oldest xid8;
    newest xid8;
BEGIN
    IF (cardinality(ids) = cardinality(claims) AND first_claim IS NOT NULL) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'ids and claims differ in length, or something is NULL',
            'Pass the claim number of each job, and the first new claim''s number.');
    END IF;
    PERFORM outbox.hold_dispatcher(owner);
    WITH locked AS MATERIALIZED (
        SELECT r.ctid, r.ready_xid, t.n
        FROM (SELECT u.* FROM unnest(ids, claims) WITH ORDINALITY AS u(id, claim, n)
              ORDER BY u.id) AS t
        CROSS JOIN LATERAL (
            SELECT j.ctid, j.ready_xid FROM outbox.job j
            WHERE j.id = t.id AND j.owner = previous AND j.claim = t.claim
            FOR NO KEY UPDATE) AS r)
    SELECT array_agg(l.ctid ORDER BY l.n), (array_agg(l.ready_xid ORDER BY l.ready_xid))[1],
           (array_agg(l.ready_xid ORDER BY l.ready_xid DESC))[1]
    INTO held, oldest, newest FROM locked l;
    IF held IS NULL THEN
        RETURN;
    END IF;
    PERFORM outbox.note_claims(owner, oldest, newest);
    RETURN QUERY
    WITH adopted AS (
        UPDATE outbox.job AS j SET owner = adopt.owner, claim = first_claim + h.n - 1
        FROM unnest(held) WITH ORDINALITY AS h(tid, n)
        WHERE j.ctid = h.tid
        RETURNING j.id, j.claim),
    asked AS ( -- a request to give a run back follows it
        UPDATE outbox.requeueing AS r SET owner = adopt.owner, claim = a.claim
        FROM adopted a JOIN unnest(ids, claims) AS u(id, claim) ON u.id = a.id
        WHERE r.id = a.id AND r.owner = previous AND r.claim = u.claim)
    SELECT a.id, a.claim FROM adopted a ORDER BY a.claim;
END
$$;
COMMENT ON FUNCTION outbox.adopt(bigint, bigint, bigint[], bigint[], bigint) IS
    'hands running jobs from a dispatcher''s previous id to its new one, by token';

-- outbox.make_due(due_from, batch): makes scheduled jobs ready whose time has come, and wakes. Those
-- with a key join its line, unless somebody holds its lock.
--   due_from  none is scheduled before it that is not ready already
--   batch     at most so many
-- Returns moved, how many; and next_due, the earliest run_at still scheduled from due_from on
-- (NULL: nothing is). One in the past: there are more, or somebody holds the row locked. Internal.
CREATE OR REPLACE FUNCTION outbox.make_due(
    due_from timestamptz, batch integer, OUT moved integer, OUT next_due timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    cut constant timestamptz := clock_timestamp();
    picked bigint[];
    joining bigint[];
    tasks text[];
BEGIN
    moved := 0;
    SELECT j.run_at INTO next_due FROM outbox.job j
    WHERE j.ready_xid IS NULL AND j.run_at IS NOT NULL AND NOT j.waiting AND j.run_at >= due_from
    ORDER BY j.run_at, j.id LIMIT 1;
    IF (next_due <= cut) IS NOT TRUE THEN
        RETURN;
    END IF;
    WITH taken AS MATERIALIZED (
        SELECT j.id, j.task, j.key IS NOT NULL AND j.place IS NULL AS joins FROM outbox.job j
        WHERE j.ready_xid IS NULL AND j.run_at IS NOT NULL AND NOT j.waiting
          AND j.run_at >= due_from AND j.run_at <= cut
        ORDER BY j.run_at, j.id
        LIMIT greatest(batch, 0)
        FOR NO KEY UPDATE SKIP LOCKED)
    SELECT array_agg(t.id) FILTER (WHERE NOT t.joins), array_agg(t.id) FILTER (WHERE t.joins),
           array_agg(DISTINCT t.task)
    INTO picked, joining, tasks FROM taken t;
    moved := coalesce(cardinality(picked), 0);
    IF moved > 0 THEN
        UPDATE outbox.job AS j SET ready_xid = pg_current_xact_id() WHERE j.id = ANY (picked);
    END IF;
    IF joining IS NOT NULL THEN
        moved := moved + outbox.join_lines(joining);
    END IF;
    IF moved = 0 THEN
        RETURN;
    END IF;
    PERFORM outbox.wake_tasks(tasks, false);
    SELECT j.run_at INTO next_due FROM outbox.job j
    WHERE j.ready_xid IS NULL AND j.run_at IS NOT NULL AND NOT j.waiting AND j.run_at >= due_from
    ORDER BY j.run_at, j.id LIMIT 1;
END
$$;
COMMENT ON FUNCTION outbox.make_due(timestamptz, integer) IS
    'internal: makes scheduled jobs ready whose time has come';

-- outbox.due(batch): makes scheduled jobs ready whose time has come, and wakes.
--   batch  at most so many
-- Returns moved, how many; and next_due, the earliest run_at still scheduled (NULL: nothing is).
-- With moved = batch call again; a next_due in the past is a row that somebody holds locked.
CREATE OR REPLACE FUNCTION outbox.due(batch integer DEFAULT 1000, OUT moved integer,
    OUT next_due timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT d.moved, d.next_due INTO moved, next_due FROM outbox.make_due('-infinity', batch) d;
END
$$;
COMMENT ON FUNCTION outbox.due(integer) IS
    'makes scheduled jobs ready whose time has come; returns how many, and when the next is due';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
