-- functions_ends.sql: dependencies, and what the end of a job means for those that wait for it.
-- All internal.
-- min_level: 1
--
-- Who depends on others (unmet > 0) waits, in no index that dispatchers read. Whoever puts one locks
-- the rows of those it depends on, so that none of them ends unseen meanwhile; the first time, it
-- marks the row as linked, so that its end is not just a deletion. No cycles: a job is put later
-- than those that it depends on (outbox.check_after).

-- outbox.depend(after): for a new job: locks those that it shall depend on.
-- Returns those that are live; and one that is dead, if any is. One that is neither is done.
-- Errors: 0A000 not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.depend(after bigint[], OUT parents bigint[], OUT failed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    unlinked bigint[];
    moved boolean;
BEGIN
    PERFORM outbox.check_isolation();
    LOOP -- until none has moved from dead to job, or back, between the two looks
        WITH locked AS MATERIALIZED (
            SELECT r.id, r.linked
            FROM (SELECT DISTINCT u.id FROM unnest(after) AS u(id) ORDER BY u.id) AS p
            CROSS JOIN LATERAL (
                SELECT j.id, j.linked FROM outbox.job j WHERE j.id = p.id FOR KEY SHARE) AS r)
        SELECT coalesce(array_agg(l.id), '{}'), array_agg(l.id) FILTER (WHERE NOT l.linked)
        INTO parents, unlinked FROM locked l;
        IF unlinked IS NOT NULL THEN
            PERFORM FROM outbox.job j WHERE j.id = ANY (unlinked) ORDER BY j.id FOR NO KEY UPDATE;
            UPDATE outbox.job AS j SET linked = true WHERE j.id = ANY (unlinked) AND NOT j.linked;
        END IF;
        SELECT (SELECT d.id FROM outbox.dead d WHERE d.id = ANY (after) ORDER BY d.id LIMIT 1),
               EXISTS (SELECT FROM outbox.job j WHERE j.id = ANY (after) AND j.id <> ALL (parents))
        INTO failed, moved;
        EXIT WHEN NOT moved;
    END LOOP;
END
$$;
COMMENT ON FUNCTION outbox.depend(bigint[]) IS
    'internal: locks the jobs that a new one shall depend on';

-- outbox.met(children, counts): so many dependencies of each are met. Those that have none left are
-- ready, or scheduled: for their time, or, as they have a key whose line they must join, for now.
-- The rows are locked. Returns whether there was one.
CREATE OR REPLACE FUNCTION outbox.met(children bigint[], counts bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    now_at timestamptz;
    free bigint[];
    tasks text[];
BEGIN
    PERFORM pg_current_xact_id(); -- first: what is due before it began is ready, not scheduled
    now_at := clock_timestamp();
    WITH told AS (
        UPDATE outbox.job AS j SET unmet = j.unmet - c.n
        FROM unnest(children, counts) AS c(id, n) WHERE j.id = c.id
        RETURNING j.id, j.task, j.unmet)
    SELECT array_agg(t.id), array_agg(DISTINCT t.task) INTO free, tasks FROM told t
    WHERE t.unmet = 0;
    IF free IS NULL THEN
        RETURN false;
    END IF;
    UPDATE outbox.job AS j
    SET waiting = false, unmet = NULL,
        run_at = CASE WHEN j.key IS NULL OR j.run_at > now_at THEN j.run_at ELSE now_at END,
        ready_xid = CASE WHEN j.key IS NULL AND (j.run_at > now_at) IS NOT TRUE
                         THEN pg_current_xact_id() END
    WHERE j.id = ANY (free);
    PERFORM outbox.wake_tasks(tasks, false);
    RETURN true;
END
$$;
COMMENT ON FUNCTION outbox.met(bigint[], bigint[]) IS
    'internal: dependencies of jobs are met; those that have none left go on';

-- outbox.lock_children(ids, skip_locked): locks those that wait for these jobs, in order. Returns how
-- many of them somebody else holds (with skip_locked; else it waits for them).
CREATE OR REPLACE FUNCTION outbox.lock_children(ids bigint[], skip_locked boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    children constant bigint[] := ARRAY(
        SELECT DISTINCT d.job_id FROM unnest(ids) AS i(id)
        CROSS JOIN LATERAL (
            SELECT x.job_id FROM outbox.dependency x WHERE x.after_id = i.id OFFSET 0) AS d
        ORDER BY d.job_id);
    n bigint;
BEGIN
    IF skip_locked THEN
        SELECT count(*) INTO n FROM unnest(children) AS c(id)
        CROSS JOIN LATERAL (
            SELECT j.id FROM outbox.job j WHERE j.id = c.id FOR UPDATE SKIP LOCKED) AS r;
        RETURN (SELECT count(*) FROM unnest(children) AS c(id)
                JOIN LATERAL (SELECT j.id FROM outbox.job j WHERE j.id = c.id OFFSET 0) AS r
                    ON true) - n;
    END IF;
    PERFORM r.id FROM unnest(children) AS c(id)
    CROSS JOIN LATERAL (SELECT j.id FROM outbox.job j WHERE j.id = c.id FOR UPDATE) AS r;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION outbox.lock_children(bigint[], boolean) IS
    'internal: locks the jobs that depend on these';

-- outbox.busy_dependents(ids, dies): which of these jobs, locked, can't be ended without waiting for
-- who holds a job that depends on them; dies: or on those that die with them, and so on. Takes what
-- it can.
CREATE OR REPLACE FUNCTION outbox.busy_dependents(ids bigint[], dies boolean) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    level bigint[] := ids;
BEGIN
    LOOP
        IF outbox.lock_children(level, true) > 0 THEN
            RETURN CASE WHEN cardinality(ids) = 1 THEN ids ELSE ARRAY(
                SELECT i FROM unnest(ids) AS i
                WHERE cardinality(outbox.busy_dependents(ARRAY[i], dies)) > 0) END;
        END IF;
        EXIT WHEN NOT dies;
        level := ARRAY(
            SELECT DISTINCT d.job_id FROM unnest(level) AS i(id)
            CROSS JOIN LATERAL (
                SELECT x.job_id FROM outbox.dependency x WHERE x.after_id = i.id OFFSET 0) AS d
            CROSS JOIN LATERAL (
                SELECT o.runs_anyway FROM outbox.job o WHERE o.id = d.job_id OFFSET 0) AS j
            WHERE j.runs_anyway IS NOT TRUE);
        EXIT WHEN level = '{}';
    END LOOP;
    RETURN '{}';
END
$$;
COMMENT ON FUNCTION outbox.busy_dependents(bigint[], boolean) IS
    'internal: which jobs can''t be ended without waiting for who holds their dependents';

-- outbox.busy_ends(ids, dies): which of these jobs, locked, can't be ended without waiting for their
-- key's lock, the job behind them, or a job that depends on them. Takes what it can.
-- Errors: 0A000 not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.busy_ends(ids bigint[], dies boolean) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    keyed bigint[];
    stuck bigint[] := '{}';
BEGIN
    PERFORM outbox.check_isolation();
    SELECT array_agg(j.id) INTO keyed FROM outbox.job j
    WHERE j.id = ANY (ids) AND j.place IS NOT NULL;
    IF keyed IS NOT NULL THEN
        stuck := outbox.busy_keys(keyed);
    END IF;
    RETURN stuck || outbox.busy_dependents(
        ARRAY(SELECT i FROM unnest(ids) AS i WHERE i <> ALL (stuck)), dies);
END
$$;
COMMENT ON FUNCTION outbox.busy_ends(bigint[], boolean) IS
    'internal: which jobs can''t be ended without waiting for somebody';

-- outbox.resolve(ids, why): what the end of these jobs means for those that depend on them.
--   why  NULL: they succeeded. Else what is said of them in the reason for which their dependents
--        are dead: 'is dead', 'was cancelled'
-- They are locked, or gone for long. Waits for who holds their dependents: who must not has asked
-- outbox.busy_dependents before. Dependents of the dead die with them, and so on.
-- Returns whether a job has become ready, or scheduled.
CREATE OR REPLACE FUNCTION outbox.resolve(ids bigint[], why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    children bigint[];
    counts bigint[];
    dying bigint[];
    reasons text[];
    more boolean := false;
BEGIN
    LOOP
        PERFORM outbox.lock_children(ids, false);
        WITH over AS (
            DELETE FROM outbox.dependency d WHERE d.after_id = ANY (ids)
            RETURNING d.job_id, d.after_id),
        each AS MATERIALIZED (
            SELECT o.job_id, count(*) AS n, min(o.after_id) AS after_id FROM over o GROUP BY o.job_id),
        child AS MATERIALIZED (
            SELECT e.*, why IS NOT NULL AND j.runs_anyway IS NOT TRUE AS dies
            FROM each e CROSS JOIN LATERAL (
                SELECT x.runs_anyway FROM outbox.job x WHERE x.id = e.job_id OFFSET 0) AS j)
        SELECT array_agg(c.job_id) FILTER (WHERE NOT c.dies),
               array_agg(c.n) FILTER (WHERE NOT c.dies),
               array_agg(c.job_id) FILTER (WHERE c.dies),
               array_agg(format('dependency %s %s', c.after_id, why)) FILTER (WHERE c.dies)
        INTO children, counts, dying, reasons FROM child c;
        IF children IS NOT NULL THEN
            more := outbox.met(children, counts) OR more;
        END IF;
        EXIT WHEN dying IS NULL;
        DELETE FROM outbox.dependency d WHERE d.job_id = ANY (dying);
        PERFORM outbox.bury_all(dying, reasons);
        ids := dying;
        why := 'is dead';
    END LOOP;
    RETURN more;
END
$$;
COMMENT ON FUNCTION outbox.resolve(bigint[], text) IS
    'internal: what the end of jobs means for those that depend on them';

-- outbox.bury_all(ids, reasons): moves jobs that were not running to outbox.dead.
CREATE OR REPLACE FUNCTION outbox.bury_all(ids bigint[], reasons text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.bury(ids, ARRAY(
        SELECT jsonb_build_object('outcome', 'dead', 'reason', r.reason, 'never', true)
        FROM unnest(reasons) WITH ORDINALITY AS r(reason, n) ORDER BY r.n));
END
$$;
COMMENT ON FUNCTION outbox.bury_all(bigint[], text[]) IS
    'internal: moves jobs that were not running to outbox.dead';

-- outbox.inherit(id, twin): those that depend on a job that is merged into its twin depend on the
-- twin. Returns whether one of them went on, as the twin has ended meanwhile.
CREATE OR REPLACE FUNCTION outbox.inherit(id bigint, twin bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    both_ids bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM outbox.dependency d WHERE d.after_id = inherit.id) THEN
        RETURN false;
    END IF;
    UPDATE outbox.job AS j SET linked = true WHERE j.id = twin;
    IF NOT FOUND THEN
        RETURN outbox.resolve(ARRAY[id], NULL);
    END IF;
    PERFORM outbox.lock_children(ARRAY[id], false);
    SELECT array_agg(d.job_id) INTO both_ids
    FROM outbox.dependency d JOIN outbox.dependency t ON t.job_id = d.job_id AND t.after_id = twin
    WHERE d.after_id = inherit.id;
    UPDATE outbox.job AS j SET unmet = j.unmet - 1 WHERE j.id = ANY (both_ids);
    DELETE FROM outbox.dependency d WHERE d.after_id = inherit.id AND d.job_id = ANY (both_ids);
    UPDATE outbox.dependency AS d SET after_id = twin WHERE d.after_id = inherit.id;
    RETURN false;
END
$$;
COMMENT ON FUNCTION outbox.inherit(bigint, bigint) IS
    'internal: who depends on a job that is merged into its twin depends on the twin';

-- outbox.tell_done(ids, state): notifies those who asked: channel outbox_done, payload 'ID STATE'.
-- The jobs are still in outbox.job; those that repeat are not at their end when they succeed.
CREATE OR REPLACE FUNCTION outbox.tell_done(ids bigint[], state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF outbox.may_notify() THEN
        PERFORM pg_notify('outbox_done', j.id || ' ' || state)
        FROM outbox.job j
        WHERE j.id = ANY (ids) AND j.notify_done AND (j.repeat_every IS NULL OR state <> 'done');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.tell_done(bigint[], text) IS
    'internal: notifies of the end of jobs, where they asked for it';

-- outbox.tell_dead(ids): notifies of jobs that are in outbox.dead by now: channel outbox_dead, payload
-- 'ID TASK'; and those who asked, as above.
CREATE OR REPLACE FUNCTION outbox.tell_dead(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF outbox.may_notify() THEN
        PERFORM pg_notify('outbox_dead', d.id || ' ' || d.task)
        FROM outbox.dead d WHERE d.id = ANY (ids);
        PERFORM pg_notify('outbox_done', d.id || ' dead')
        FROM outbox.dead d WHERE d.id = ANY (ids) AND d.notify_done;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.tell_dead(bigint[]) IS 'internal: notifies of dead jobs';

-- outbox.remove_cancelled(ids): removes jobs, locked, that nobody runs any more: their keys' next ones
-- go on, and who depends on them does not.
CREATE OR REPLACE FUNCTION outbox.remove_cancelled(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    linked_ids bigint[];
    buckets integer[];
BEGIN
    SELECT array_agg(j.id), array_agg(outbox.key_bucket(j.task, j.key)) FILTER (WHERE j.key IS NOT NULL)
    INTO linked_ids, buckets FROM outbox.job j WHERE j.id = ANY (ids) AND j.linked;
    IF buckets IS NOT NULL THEN
        PERFORM outbox.lock_keys(buckets);
    END IF;
    IF linked_ids IS NOT NULL THEN
        PERFORM outbox.hand_over(linked_ids);
        PERFORM outbox.resolve(linked_ids, 'was cancelled');
        PERFORM outbox.tell_done(linked_ids, 'cancelled');
    END IF;
    DELETE FROM outbox.dependency d WHERE d.job_id = ANY (ids);
    DELETE FROM outbox.job j WHERE j.id = ANY (ids);
END
$$;
COMMENT ON FUNCTION outbox.remove_cancelled(bigint[]) IS 'internal: removes cancelled jobs';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
