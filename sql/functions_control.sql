-- functions_control.sql: what operators tell dispatchers: to end a running job, for good or to begin
-- it anew, to leave a task alone. Rare, so it costs a NOTIFY outbox, 'control'; who misses that asks at its next heartbeat.
-- min_level: 1

-- outbox.tell_dispatchers(): all of them ask outbox.orders once this transaction has committed.
-- Internal. Where outbox.notify is off they do within a sixth of their lease.
CREATE OR REPLACE FUNCTION outbox.tell_dispatchers() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF outbox.may_notify() THEN
        PERFORM pg_notify('outbox', 'control');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.tell_dispatchers() IS
    'internal: all dispatchers ask what operators have asked for';

-- outbox.ask_to_cancel(id): asks for the end of a running job. Internal, for outbox.cancel.
-- Returns 'cancelling'; 'free' if nobody runs it, with its row locked; NULL: there is no such job.
-- The row stays locked until the transaction ends: a claim that ends meanwhile waits to see whether
-- this was committed, so that no run of the job begins after a request for its end.
CREATE OR REPLACE FUNCTION outbox.ask_to_cancel(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live record;
BEGIN
    PERFORM FROM outbox.cancelling c JOIN outbox.job j ON j.id = c.id
    WHERE c.id = ask_to_cancel.id AND c.ended_at IS NULL AND j.owner IS NOT NULL;
    IF FOUND THEN
        RETURN 'cancelling'; -- asked before, and not ended yet
    END IF;
    SELECT j.owner INTO live FROM outbox.job j WHERE j.id = ask_to_cancel.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF live.owner IS NULL THEN
        RETURN 'free';
    END IF;
    INSERT INTO outbox.cancelling AS c (id, requested_at, requested_by)
    VALUES (id, clock_timestamp(), session_user)
    ON CONFLICT ON CONSTRAINT cancelling_pkey
        DO UPDATE SET requested_at = excluded.requested_at, requested_by = excluded.requested_by,
                      ended_at = NULL;
    PERFORM outbox.tell_dispatchers();
    RETURN 'cancelling';
END
$$;
COMMENT ON FUNCTION outbox.ask_to_cancel(bigint) IS
    'internal: asks the dispatcher that runs a job to end it';

-- outbox.end_cancelled(ids): removes those of these jobs that are to be cancelled, with their
-- attempt rows, instead of giving them another run. Internal: called where claims end, with the
-- jobs' rows locked by a statement before this one.
-- Returns their ids; NULL: none.
CREATE OR REPLACE FUNCTION outbox.end_cancelled(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ended bigint[];
BEGIN
    PERFORM FROM outbox.cancelling c WHERE c.ended_at IS NULL LIMIT 1; -- rarely: not a probe a job
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    WITH asked AS (
        UPDATE outbox.cancelling AS c SET ended_at = clock_timestamp()
        WHERE c.id = ANY (ids) AND c.ended_at IS NULL
        RETURNING c.id)
    SELECT array_agg(a.id) INTO ended FROM asked a;
    IF ended IS NOT NULL THEN
        PERFORM outbox.remove_cancelled(ended);
        DELETE FROM outbox.attempt a WHERE a.job_id = ANY (ended);
    END IF;
    RETURN ended;
END
$$;
COMMENT ON FUNCTION outbox.end_cancelled(bigint[]) IS
    'internal: removes jobs that are to be cancelled, where their claims end';

-- outbox.busy_cancelled(ids): which of these jobs, locked, are to be cancelled, but can't be ended
-- without waiting: for their key's lock, or for the jobs behind them or that depend on them. Takes
-- what it can. Internal: for who must not wait for a producer.
CREATE OR REPLACE FUNCTION outbox.busy_cancelled(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    asked bigint[];
    keyed bigint[];
    stuck bigint[];
BEGIN
    PERFORM FROM outbox.cancelling c WHERE c.ended_at IS NULL LIMIT 1;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    SELECT array_agg(a.id), array_agg(a.id) FILTER (WHERE a.is_keyed),
           array_agg(a.id) FILTER (WHERE NOT a.is_free)
    INTO asked, keyed, stuck
    FROM (SELECT c.id, j.is_keyed, f.id IS NOT NULL AS is_free
          FROM outbox.cancelling c
          CROSS JOIN LATERAL (
              SELECT o.key IS NOT NULL AS is_keyed FROM outbox.job o
              WHERE o.id = c.id AND o.linked OFFSET 0) AS j
          LEFT JOIN LATERAL ( -- who puts one that depends on it holds FOR KEY SHARE
              SELECT o.id FROM outbox.job o WHERE o.id = c.id FOR UPDATE SKIP LOCKED) AS f ON true
          WHERE c.id = ANY (ids) AND c.ended_at IS NULL) AS a;
    stuck := coalesce(stuck, '{}');
    IF keyed IS NOT NULL THEN
        stuck := stuck || outbox.busy_keys(keyed);
    END IF;
    RETURN stuck || outbox.busy_dependents(
        ARRAY(SELECT i FROM unnest(asked) AS i WHERE i <> ALL (stuck)), true);
END
$$;
COMMENT ON FUNCTION outbox.busy_cancelled(bigint[]) IS
    'internal: which jobs that are to be cancelled can''t be ended without waiting';

-- outbox.requeue(id): asks for the end of a running job's run, after which it is ready again, at
-- once and uncounted. Its dispatcher is told once this is committed, and gives the job back when the
-- run has ended: never do two run it. The request is for this run alone: one that ends by itself
-- first, or with its dispatcher, ends as ever, and no later one is meant.
-- Returns 'requeueing'; 'silent': asked, but its dispatcher has not been heard of for its lease: the
-- job is ready when that comes back, or is taken over; 'cancelling': it ends, and never runs again;
-- 'not running': it is ready, scheduled or waiting; 'dead'; 'not found'. Waits for nobody.
CREATE OR REPLACE FUNCTION outbox.requeue(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live record;
BEGIN
    SELECT j.owner, j.claim INTO live FROM outbox.job j WHERE j.id = requeue.id;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM outbox.dead d WHERE d.id = requeue.id)
                    THEN 'dead' ELSE 'not found' END;
    ELSIF live.owner IS NULL THEN
        RETURN 'not running';
    ELSIF EXISTS (SELECT FROM outbox.cancelling c
                  WHERE c.id = requeue.id AND c.ended_at IS NULL) THEN
        RETURN 'cancelling';
    END IF;
    INSERT INTO outbox.requeueing AS r (id, owner, claim, requested_at, requested_by)
    VALUES (id, live.owner, live.claim, clock_timestamp(), session_user)
    ON CONFLICT ON CONSTRAINT requeueing_pkey
        DO UPDATE SET owner = excluded.owner, claim = excluded.claim,
                      requested_at = excluded.requested_at, requested_by = excluded.requested_by
        WHERE (r.owner, r.claim) <> (excluded.owner, excluded.claim);
    IF FOUND THEN -- not asked before
        PERFORM outbox.tell_dispatchers();
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM outbox.dispatcher d WHERE d.id = live.owner
                             AND d.beat_at + d.lease > clock_timestamp())
                THEN 'requeueing' ELSE 'silent' END;
END
$$;
COMMENT ON FUNCTION outbox.requeue(bigint) IS
    'ends a running job''s run, by its dispatcher; the job is ready again, uncounted';

-- outbox.orders(owner): what operators have asked for, for the dispatcher of this id.
--   cancelled        jobs that it owns and shall end (their settle then answers 'cancelled')
--   paused           tasks that it shall not claim
--   requeued         jobs whose runs it shall end, and settle as 'release', unless they are done
--   requeued_claims  and the claim numbers of these runs
-- Asked when NOTIFY outbox, 'control' comes, and with each heartbeat. Also forgets requests that
-- ended a minute ago.
CREATE OR REPLACE FUNCTION outbox.orders(
    owner bigint, OUT cancelled bigint[], OUT paused text[], OUT requeued bigint[],
    OUT requeued_claims bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM outbox.cancelling c
    WHERE coalesce(c.ended_at, c.requested_at) < clock_timestamp() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM outbox.job j WHERE j.id = c.id);
    DELETE FROM outbox.requeueing r
    WHERE r.requested_at < clock_timestamp() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM outbox.job j
                      WHERE j.id = r.id AND j.owner = r.owner AND j.claim = r.claim);
    SELECT coalesce(array_agg(j.id), '{}') INTO cancelled
    FROM (SELECT c.id FROM outbox.cancelling c WHERE c.ended_at IS NULL) AS r
    CROSS JOIN LATERAL (
        SELECT o.id, o.owner FROM outbox.job o WHERE o.id = r.id OFFSET 0) AS j
    WHERE j.owner = orders.owner;
    SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}'),
           coalesce(array_agg(r.claim ORDER BY r.id), '{}')
    INTO requeued, requeued_claims
    FROM outbox.requeueing r
    CROSS JOIN LATERAL (
        SELECT o.owner, o.claim FROM outbox.job o WHERE o.id = r.id OFFSET 0) AS j
    WHERE r.owner = orders.owner AND j.owner = r.owner AND j.claim = r.claim;
    SELECT coalesce(array_agg(p.task), '{}') INTO paused FROM outbox.paused p;
END
$$;
COMMENT ON FUNCTION outbox.orders(bigint) IS
    'jobs that a dispatcher shall end or give back, and tasks that it shall not claim';

-- outbox.pause(task, reason): no dispatcher claims jobs of the task any more, from within a second
-- after the commit until outbox.resume; outbox.claim and outbox.take hand out none from the commit
-- on. Jobs that run go on; jobs are taken in as before.
--   task    a task name, also one that nobody has a handler for
--   reason  text for those who look
-- Returns 'paused', or 'already paused' (a reason that is given replaces the one before).
-- Errors: 22023 not a task name.
CREATE OR REPLACE FUNCTION outbox.pause(task text, reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$') IS NOT TRUE THEN
        PERFORM outbox.refuse_task('', task);
    END IF;
    INSERT INTO outbox.paused (task, since, paused_by, reason)
    VALUES (task, clock_timestamp(), session_user, left(reason, 1000))
    ON CONFLICT ON CONSTRAINT paused_pkey DO NOTHING;
    IF FOUND THEN
        PERFORM outbox.tell_dispatchers();
        RETURN 'paused';
    END IF;
    UPDATE outbox.paused AS p SET reason = left(pause.reason, 1000)
    WHERE p.task = pause.task AND pause.reason IS NOT NULL;
    RETURN 'already paused';
END
$$;
COMMENT ON FUNCTION outbox.pause(text, text) IS
    'no dispatcher claims jobs of the task until outbox.resume';

-- outbox.resume(task): the end of outbox.pause; wakes.
-- Returns 'resumed' or 'not paused'.
CREATE OR REPLACE FUNCTION outbox.resume(task text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM outbox.paused p WHERE p.task = resume.task;
    IF NOT FOUND THEN
        RETURN 'not paused';
    END IF;
    PERFORM outbox.tell_dispatchers();
    RETURN 'resumed';
END
$$;
COMMENT ON FUNCTION outbox.resume(text) IS 'dispatchers claim jobs of the task again';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
