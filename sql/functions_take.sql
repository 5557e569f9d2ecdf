-- functions_take.sql: the simplest consumer: a job is deleted in the transaction that does its work.
-- min_level: 1

-- outbox.hold_ready(task, n): locks up to n ready jobs of the task that can be ended without waiting
-- for anybody, by priority, then age. Internal. Passed over are rows that somebody holds, jobs whose
-- key's lock, next in line, or dependents somebody holds, and expired ones; it reads on until there
-- are n, each row once. Of a paused task there is none.
-- Returns ids; linked_ids, those of them whose end means something to others; and expired_ids: up to
-- a thousand of the expired jobs passed over, locked likewise.
-- A key's lock is tried before its row is locked: a row of a busy key stays free for others, who may
-- take it before we commit. FOR UPDATE, as who puts a dependent holds FOR KEY SHARE: it would not
-- be seen, and stranded.
-- Errors: 0A000 a job with a key, or with dependents, and the transaction is not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.hold_ready(
    task text, n integer, OUT ids bigint[], OUT linked_ids bigint[], OUT expired_ids bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    now_at constant timestamptz := clock_timestamp();
    passes_expired boolean := false;
    seen record;
    busy bigint[];
    at_priority smallint := 0; -- how far it came
    at_xid xid8 := '0';
    at_id bigint := 0;
BEGIN
    ids := '{}';
    linked_ids := '{}';
    expired_ids := '{}';
    PERFORM FROM outbox.paused p WHERE p.task = hold_ready.task;
    IF FOUND THEN
        RETURN;
    END IF;
    WHILE cardinality(ids) < n LOOP
        WITH taken AS MATERIALIZED (
            SELECT j.id, j.priority, j.ready_xid, j.linked,
                   coalesce(j.expires_at <= now_at, false) AS expired
            FROM outbox.job j
            WHERE j.task = hold_ready.task
              AND (j.priority, j.ready_xid, j.id) > (at_priority, at_xid, at_id)
              AND j.ready_xid IS NOT NULL AND j.owner IS NULL
              AND CASE WHEN j.owner IS NOT NULL OR passes_expired AND j.expires_at <= now_at
                       THEN false
                       WHEN j.key IS NULL THEN true
                       ELSE pg_try_advisory_xact_lock(1869968491,
                                                      outbox.key_bucket(j.task, j.key)) END
            ORDER BY j.priority, j.ready_xid, j.id
            LIMIT n - cardinality(ids)
            FOR UPDATE SKIP LOCKED)
        SELECT count(*) AS n, bool_or(t.expired) AS has_expired,
               array_agg(t.id) FILTER (WHERE NOT t.expired) AS ids,
               array_agg(t.id) FILTER (WHERE t.linked AND NOT t.expired) AS linked,
               (array_agg(t.priority))[count(*)::integer] AS priority,
               (array_agg(t.ready_xid))[count(*)::integer] AS xid,
               (array_agg(t.id))[count(*)::integer] AS id
        INTO seen FROM taken t;
        passes_expired := passes_expired OR coalesce(seen.has_expired, false);
        IF seen.linked IS NOT NULL THEN
            busy := outbox.busy_ends(seen.linked, false);
            linked_ids := linked_ids || ARRAY(SELECT i FROM unnest(seen.linked) AS i
                                              WHERE i <> ALL (busy));
            ids := ids || ARRAY(SELECT i FROM unnest(seen.ids) AS i WHERE i <> ALL (busy));
        ELSE
            ids := ids || seen.ids;
        END IF;
        EXIT WHEN seen.n = 0;
        at_priority := seen.priority;
        at_xid := seen.xid;
        at_id := seen.id;
    END LOOP;
    IF passes_expired THEN
        IF cardinality(ids) < n THEN
            at_priority := 5; -- it came to the end
        END IF;
        WITH taken AS MATERIALIZED (
            SELECT j.id, j.linked FROM outbox.job j
            WHERE j.task = hold_ready.task
              AND (j.priority, j.ready_xid, j.id) < (at_priority, at_xid, at_id)
              AND j.ready_xid IS NOT NULL AND j.owner IS NULL
              AND CASE WHEN j.owner IS NOT NULL OR (j.expires_at <= now_at) IS NOT TRUE THEN false
                       WHEN j.key IS NULL THEN true
                       ELSE pg_try_advisory_xact_lock(1869968491,
                                                      outbox.key_bucket(j.task, j.key)) END
            ORDER BY j.priority, j.ready_xid, j.id
            LIMIT 1000
            FOR UPDATE SKIP LOCKED)
        SELECT array_agg(t.id) AS ids, array_agg(t.id) FILTER (WHERE t.linked) AS linked
        INTO seen FROM taken t;
        busy := CASE WHEN seen.linked IS NULL THEN '{}'
                     ELSE outbox.busy_ends(seen.linked, true) END;
        expired_ids := ARRAY(SELECT i FROM unnest(seen.ids) AS i WHERE i <> ALL (busy));
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.hold_ready(text, integer) IS
    'internal: locks ready jobs of a task that can be ended without waiting for anybody';

-- outbox.take(task, n): takes up to n ready jobs off the task, by priority, then age. Their end, as
-- done, is part of the caller's transaction: rolled back, they are there as before. Rows that
-- somebody holds are passed over, so that any number of consumers may take at once; so are jobs
-- whose key, or whose dependents, somebody holds: it returns fewer than n only if there are no
-- others. Of a paused task there are none. Those that have expired are put aside as dead.
-- Errors: 0A000 a job with a key, or with dependents, and the transaction is not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.take(task text, n integer DEFAULT 1)
RETURNS TABLE(id bigint, priority smallint, attempts integer, max_attempts integer, encoding text,
              payload bytea, headers jsonb, key text, created_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids bigint[];
    linked_ids bigint[];
    expired_ids bigint[];
    again_ids bigint[];
BEGIN
    SELECT h.ids, h.linked_ids, h.expired_ids INTO ids, linked_ids, expired_ids
    FROM outbox.hold_ready(task, n) h;
    IF cardinality(expired_ids) > 0 THEN
        PERFORM outbox.hand_over(expired_ids);
        PERFORM outbox.bury_all(expired_ids,
                                array_fill('expired'::text, ARRAY[cardinality(expired_ids)]));
        PERFORM outbox.resolve(expired_ids, 'is dead');
    END IF;
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT j.id, j.priority, j.attempts, j.max_attempts::integer, j.encoding, j.payload, j.headers,
           j.key, j.created_at
    FROM unnest(ids) WITH ORDINALITY AS i(id, n)
    CROSS JOIN LATERAL (SELECT * FROM outbox.job x WHERE x.id = i.id OFFSET 0) AS j;
    IF cardinality(linked_ids) > 0 THEN
        PERFORM outbox.hand_over(linked_ids);
        PERFORM outbox.resolve(linked_ids, NULL);
        PERFORM outbox.tell_done(linked_ids, 'done');
        again_ids := ARRAY(SELECT j.id FROM outbox.job j
                           WHERE j.id = ANY (linked_ids) AND j.repeat_every IS NOT NULL);
        IF cardinality(again_ids) > 0 THEN
            PERFORM outbox.repeat(again_ids);
            PERFORM outbox.wake_tasks(ARRAY[task], false); -- who sleeps must learn when it is due
        END IF;
        ids := ARRAY(SELECT i FROM unnest(ids) AS i WHERE i <> ALL (again_ids));
    END IF;
    WITH gone AS (DELETE FROM outbox.job j WHERE j.id = ANY (ids) RETURNING j.id, j.logged)
    DELETE FROM outbox.attempt a
    WHERE a.job_id = ANY (ARRAY(SELECT g.id FROM gone g WHERE g.logged));
END
$$;
COMMENT ON FUNCTION outbox.take(text, integer) IS
    'takes ready jobs off a task, in the caller''s transaction: rolled back, they are there again';

-- outbox.take_failed(id, reason, delay, max_attempts): after the rollback, in a transaction of its
-- own: counts a failed attempt of a job that was taken.
--   reason        why, for the attempt's row
--   delay         not before so long from now; NULL: 5 s doubled with each attempt, up to an hour
--   max_attempts  of a job that has no limit of its own
-- Returns 'retried', 'dead' (that was the last attempt), 'waiting' (not ready any more), 'running'
-- or 'not found'. Errors: 22004 no reason.
CREATE OR REPLACE FUNCTION outbox.take_failed(
    id bigint, reason text, delay interval DEFAULT NULL, max_attempts integer DEFAULT 20)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live outbox.job;
    failed integer;
    is_dead boolean;
BEGIN
    IF reason IS NULL THEN
        PERFORM outbox.refuse('22004', 'outbox.take_failed: the reason is NULL',
            'Say what went wrong: it is kept with the attempt.');
    END IF;
    PERFORM outbox.lock_job_key(id);
    SELECT j.* INTO live FROM outbox.job j WHERE j.id = take_failed.id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not found';
    ELSIF live.owner IS NOT NULL THEN
        RETURN 'running';
    ELSIF live.ready_xid IS NULL THEN
        RETURN 'waiting';
    END IF;
    failed := live.attempts + 1;
    is_dead := failed >= coalesce(live.max_attempts, max_attempts);
    INSERT INTO outbox.attempt (job_id, started_at, attempt, outcome, reason)
    VALUES (id, clock_timestamp(), failed, CASE WHEN is_dead THEN 'dead' ELSE 'retry' END, reason);
    PERFORM pg_current_xact_id();
    UPDATE outbox.job AS j
    SET attempts = failed, logged = true, ready_xid = NULL,
        run_at = clock_timestamp() + coalesce(take_failed.delay,
            least(interval '1 hour', interval '5 s' * power(2, least(failed, 20) - 1)))
    WHERE j.id = take_failed.id;
    IF NOT is_dead THEN
        PERFORM outbox.wake_tasks(ARRAY[live.task], false); -- who sleeps must learn when it is due
        RETURN 'retried';
    END IF;
    PERFORM outbox.hand_over(ARRAY[id]);
    PERFORM outbox.bury_all(ARRAY[id], ARRAY[reason]);
    PERFORM outbox.resolve(ARRAY[id], 'is dead');
    RETURN 'dead';
END
$$;
COMMENT ON FUNCTION outbox.take_failed(bigint, text, interval, integer) IS
    'counts a failed attempt of a job that was taken, after the rollback';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
