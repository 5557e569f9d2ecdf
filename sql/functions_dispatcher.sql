-- functions_dispatcher.sql: dispatchers: registering, beating, being taken over.
-- min_level: 1
--
-- A dispatcher whose beat stays the same for a whole lease, on its observer's own clock over one
-- unbroken connection, is lost: the observer ends its sessions (outbox.terminate) and takes its
-- jobs over.

-- outbox.level(): the level of this schema, and the lowest one of a program that it still takes.
CREATE OR REPLACE FUNCTION outbox.level(OUT level integer, OUT min_level integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT max(m.version), max(m.min_level) INTO level, min_level FROM outbox.migration m;
END
$$;
COMMENT ON FUNCTION outbox.level() IS
    'the schema''s level, and the oldest program level that may still use it';

-- outbox.register(...): makes a dispatcher known, if nobody else has its name.
--   id        random and never used before: a new one for each work connection
--   name      exclusive among the living (default of the program: the host's name)
--   lock_id   identity of the name's lock file, which the caller holds; boot_id: of its host
--   backends  server process ids of its sessions; tasks: what it has handlers for
--   lease     how long it may be silent; it beats (outbox.extend) several times in that time
--   previous  its own id before its connection broke: that row is no rival. Afterwards it adopts
--             from it what still runs (outbox.adopt) and gives the rest back (outbox.take_over)
-- Returns one row. answer 'registered', and other_* NULL. Or 'taken': nothing happened, other_* is
-- who has the name; a caller that knows it to be gone (it holds the lock file that other_lock_id
-- names, on that host, since that boot) takes it over with outbox.take_over(other_id, other_beat)
-- and tries again.
-- Errors: 22023 a NULL argument (previous may be) or a lease below 1 s, 23505 the id exists.
CREATE OR REPLACE FUNCTION outbox.register(
    id bigint, name text, host text, boot_id text, lock_id text, pid integer, backends integer[],
    version text, tasks text[], lease interval, previous bigint DEFAULT NULL)
RETURNS TABLE(answer text, other_id bigint, other_host text, other_boot_id text, other_lock_id text,
              other_pid integer, other_beat bigint, other_since timestamptz, other_lease interval)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF num_nulls(id, name, host, boot_id, lock_id, pid, backends, version, tasks, lease) > 0
       OR lease < interval '1 second' THEN
        PERFORM outbox.refuse('22023',
            'outbox.register: an argument is NULL, or the lease is below one second',
            'All arguments but the last are needed; an unknown text may be empty.');
    END IF;
    PERFORM pg_advisory_xact_lock(1869968483, hashtext(name));
    RETURN QUERY
    SELECT 'taken', d.id, d.host, d.boot_id, d.lock_id, d.pid, d.beat, d.started_at, d.lease
    FROM outbox.dispatcher d WHERE d.name = register.name AND d.id IS DISTINCT FROM previous
    ORDER BY d.started_at DESC LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO outbox.dispatcher (id, name, host, boot_id, lock_id, pid, backends, version,
                                       tasks, lease, beat_at, started_at)
        VALUES (id, name, host, boot_id, lock_id, pid, backends, version, tasks, lease,
                clock_timestamp(), clock_timestamp());
        INSERT INTO outbox.owner (id) VALUES (register.id);
        answer := 'registered';
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.register(bigint, text, text, text, text, integer, integer[], text,
    text[], interval, bigint) IS
    'makes a dispatcher known under an exclusive name, or says who has that name';

-- outbox.owned(owner): whether the dispatcher owns a job. Internal.
CREATE OR REPLACE FUNCTION outbox.owned(owner bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (SELECT FROM outbox.dispatcher d CROSS JOIN LATERAL (
                       SELECT FROM outbox.job j
                       WHERE j.ready_xid >= d.oldest_claim AND j.ready_xid <= d.newest_claim
                         AND j.ready_xid IS NOT NULL AND j.owner = d.id
                       ORDER BY j.ready_xid, j.id
                       LIMIT 1) AS o
                   WHERE d.id = owned.owner);
END
$$;
COMMENT ON FUNCTION outbox.owned(bigint) IS 'internal: whether a dispatcher owns a job';

-- outbox.unregister(id): removes the dispatcher's row.
-- Returns true; false, and nothing happens, while it still owns jobs, or when it is not registered.
CREATE OR REPLACE FUNCTION outbox.unregister(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tasks text[];
BEGIN
    PERFORM FROM outbox.owner o WHERE o.id = unregister.id FOR UPDATE;
    IF NOT FOUND OR outbox.owned(id) THEN
        RETURN false;
    END IF;
    DELETE FROM outbox.dispatcher d WHERE d.id = unregister.id RETURNING d.tasks INTO tasks;
    PERFORM outbox.wake_tasks(tasks, false); -- who sleeps must learn what is scheduled
    RETURN true;
END
$$;
COMMENT ON FUNCTION outbox.unregister(bigint) IS 'removes a dispatcher that owns no job any more';

-- outbox.extend(owner, tasks, backends): the heartbeat. Also replaces what is known of its tasks
-- and server sessions, where not NULL.
-- Returns false when there is no such dispatcher any more: taken over, it stops all it runs.
CREATE OR REPLACE FUNCTION outbox.extend(
    owner bigint, tasks text[] DEFAULT NULL, backends integer[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE outbox.dispatcher AS d
    SET beat = d.beat + 1, beat_at = clock_timestamp(), tasks = coalesce(extend.tasks, d.tasks),
        backends = coalesce(extend.backends, d.backends)
    WHERE d.id = owner;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION outbox.extend(bigint, text[], integer[]) IS
    'a dispatcher''s heartbeat; false: it was taken over';

-- outbox.take_over(dispatcher, beat, batch, started): takes the jobs of a lost dispatcher away from
-- it and makes them ready, if its beat is still the one that was seen.
--   dispatcher  its id
--   beat        the heartbeat count that stood still for a whole lease; NULL: any (the caller knows
--               it gone)
--   batch       at most so many jobs in this call
--   started     false: none of them was begun (their claim's answer never arrived)
-- Each job: owner none, ready again (stamped and woken); started: lost + 1 and an attempt row
-- 'lost'; not started: the attempt is given back. One that is to be cancelled is removed instead.
-- Rows that somebody holds locked are passed over, and so are those whose end would have to wait.
-- Once it owns none, the dispatcher's row goes too.
-- Returns how many jobs; -1 if it has beaten since, or is gone. Call until it is below batch.
CREATE OR REPLACE FUNCTION outbox.take_over(
    dispatcher bigint, beat bigint, batch integer DEFAULT 1000, started boolean DEFAULT true)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    lost record;
    picked bigint[];
    stuck bigint[];
    tasks text[];
    has_unique boolean;
    n integer := 0; -- merged, or left
BEGIN
    -- Waits for a claim of its that is being committed; a later one finds the row gone.
    PERFORM FROM outbox.owner o WHERE o.id = dispatcher FOR UPDATE;
    SELECT d.name, d.oldest_claim, d.newest_claim, d.tasks INTO lost
    FROM outbox.dispatcher d
    WHERE d.id = dispatcher AND (take_over.beat IS NULL OR d.beat = take_over.beat) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN -1;
    END IF;
    WITH taken AS MATERIALIZED (
        SELECT j.id, j.task, j.claimed_unique_key IS NOT NULL AS is_unique FROM outbox.job j
        WHERE j.ready_xid >= lost.oldest_claim AND j.ready_xid <= lost.newest_claim
          AND j.ready_xid IS NOT NULL AND j.owner = dispatcher
        ORDER BY j.ready_xid, j.id
        LIMIT greatest(batch, 0)
        FOR NO KEY UPDATE SKIP LOCKED)
    SELECT array_agg(t.id), array_agg(DISTINCT t.task), coalesce(bool_or(t.is_unique), false)
    INTO picked, tasks, has_unique FROM taken t;
    IF picked IS NOT NULL THEN
        stuck := outbox.busy_cancelled(picked);
        IF cardinality(stuck) > 0 THEN
            picked := ARRAY(SELECT i FROM unnest(picked) AS i WHERE i <> ALL (stuck));
        END IF;
        PERFORM outbox.end_cancelled(picked);
    END IF;
    IF has_unique THEN
        n := cardinality(picked);
        picked := outbox.release_unique(picked);
        n := n - cardinality(picked);
    END IF;
    IF cardinality(picked) > 0 THEN
        WITH back AS (
            UPDATE outbox.job AS j
            SET owner = NULL, claim = NULL, ready_xid = pg_current_xact_id(),
                lost = j.lost + (started IS NOT FALSE)::integer,
                logged = j.logged OR started IS NOT FALSE,
                attempts = j.attempts - (started IS FALSE)::integer
            WHERE j.id = ANY (picked)
            RETURNING j.id, j.attempts)
        INSERT INTO outbox.attempt (job_id, attempt, outcome, reason, dispatcher)
        SELECT b.id, b.attempts, 'lost', 'dispatcher lost', lost.name
        FROM back b WHERE started IS NOT FALSE;
        PERFORM outbox.wake_tasks(tasks, false);
    END IF;
    IF NOT outbox.owned(dispatcher) THEN
        DELETE FROM outbox.dispatcher d WHERE d.id = take_over.dispatcher;
        PERFORM outbox.wake_tasks(lost.tasks, false); -- who sleeps must learn what is scheduled
    END IF;
    RETURN coalesce(cardinality(picked), 0) + n;
END
$$;
COMMENT ON FUNCTION outbox.take_over(bigint, bigint, integer, boolean) IS
    'makes a lost dispatcher''s jobs ready again, if its heartbeat is still the one that was seen';

-- outbox.terminate(dispatcher): ends the server sessions that the dispatcher's row names, where
-- they are still its own (application_name 'outbox ID'): one that stopped in the middle of a
-- transaction would hold row locks for ever. SECURITY INVOKER: the caller needs the right to end
-- them, as the same role has.
-- Returns how many were ended; those that the caller may not end are left, with a warning.
CREATE OR REPLACE FUNCTION outbox.terminate(dispatcher bigint) RETURNS integer
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    backend integer;
    ended integer := 0;
BEGIN
    FOR backend IN
        SELECT a.pid FROM outbox.dispatchers d CROSS JOIN LATERAL unnest(d.backends) AS b(pid)
        JOIN pg_stat_activity a ON a.pid = b.pid
        WHERE d.id = terminate.dispatcher AND a.application_name = 'outbox ' || d.id
          AND a.pid <> pg_backend_pid()
    LOOP
        BEGIN
            ended := ended + pg_terminate_backend(backend)::integer;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'may not end session % of dispatcher %', backend, dispatcher
                USING HINT =
                    'Run all dispatchers as one role, or grant this one pg_signal_backend.';
        END;
    END LOOP;
    RETURN ended;
END
$$;
COMMENT ON FUNCTION outbox.terminate(bigint) IS 'ends the server sessions of a lost dispatcher';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
