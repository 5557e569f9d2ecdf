-- functions_purge.sql: removing what has been kept: finished jobs, dead jobs, attempts. In batches,
-- each a transaction of the caller's, that wait for nobody and lock nothing that producers need.
-- min_level: 1

-- outbox.check_age(older_than, batch): Internal. Errors: 22023 NULL or negative.
CREATE OR REPLACE FUNCTION outbox.check_age(older_than interval, batch integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (older_than >= interval '0' AND batch > 0) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'older_than is NULL or negative, or batch is not above 0',
            'Pass an interval such as ''30 days'', and how many to remove at most.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_age(interval, integer) IS 'internal: checks what to purge';

-- outbox.purge_kept(batch): removes finished jobs whose keep_until has passed. Internal.
CREATE OR REPLACE FUNCTION outbox.purge_kept(batch integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH old AS MATERIALIZED (
        SELECT d.id FROM outbox.done d
        WHERE d.keep_until IS NOT NULL AND d.keep_until < clock_timestamp()
        ORDER BY d.keep_until LIMIT batch FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM outbox.done d WHERE d.id = ANY (ARRAY(SELECT o.id FROM old o))
        RETURNING d.id, d.logged)
    DELETE FROM outbox.attempt a
    WHERE a.job_id = ANY (ARRAY(SELECT g.id FROM gone g WHERE g.logged));
END
$$;
COMMENT ON FUNCTION outbox.purge_kept(integer) IS
    'internal: removes finished jobs that were kept for long enough';

-- outbox.purge_done(older_than, batch, task): removes jobs that were finished so long ago, of the
-- task (NULL: of all), at most `batch` of them, with their attempts. Rows that somebody holds locked
-- are passed over.
-- Returns how many; call it until it is below batch. Errors: 22023.
CREATE OR REPLACE FUNCTION outbox.purge_done(
    older_than interval, batch integer DEFAULT 1000, task text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    before constant timestamptz := clock_timestamp() - older_than;
    picked bigint[];
BEGIN
    PERFORM outbox.check_age(older_than, batch);
    IF task IS NULL THEN
        WITH old AS MATERIALIZED (
            SELECT d.id FROM outbox.done d
            WHERE d.finished_at < before
            ORDER BY d.finished_at LIMIT batch FOR UPDATE SKIP LOCKED)
        SELECT coalesce(array_agg(o.id), '{}') INTO picked FROM old o;
    ELSE -- written so that only the index on both can give the order
        PERFORM FROM (
            SELECT d.task, d.finished_at FROM outbox.done d
            WHERE (d.task, d.finished_at) >= (purge_done.task, timestamptz '-infinity')
            ORDER BY d.task, d.finished_at LIMIT 1) AS oldest
        WHERE oldest.task = purge_done.task AND oldest.finished_at < before;
        IF NOT FOUND THEN
            RETURN 0; -- else the index would be read to the task's end
        END IF;
        WITH old AS MATERIALIZED (
            SELECT d.id FROM outbox.done d
            WHERE (d.task, d.finished_at) >= (purge_done.task, timestamptz '-infinity')
              AND (d.task, d.finished_at) < (purge_done.task, before)
            ORDER BY d.task, d.finished_at LIMIT batch FOR UPDATE SKIP LOCKED)
        SELECT coalesce(array_agg(o.id), '{}') INTO picked FROM old o;
    END IF;
    DELETE FROM outbox.attempt a WHERE a.job_id = ANY (picked);
    DELETE FROM outbox.done d WHERE d.id = ANY (picked);
    RETURN cardinality(picked);
END
$$;
COMMENT ON FUNCTION outbox.purge_done(interval, integer, text) IS
    'removes finished jobs of some age, at most so many; returns how many';

-- outbox.purge_dead(older_than, batch, task): the same with dead jobs. One that blocks its key lets
-- the next go on; it is passed over while somebody holds the key's lock.
CREATE OR REPLACE FUNCTION outbox.purge_dead(
    older_than interval, batch integer DEFAULT 1000, task text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    before constant timestamptz := clock_timestamp() - older_than;
    picked bigint[];
    opened record;
BEGIN
    PERFORM outbox.check_age(older_than, batch);
    IF task IS NULL THEN
        WITH old AS MATERIALIZED (
            SELECT d.id FROM outbox.dead d
            WHERE d.finished_at < before
            ORDER BY d.finished_at LIMIT batch FOR UPDATE SKIP LOCKED)
        SELECT coalesce(array_agg(o.id), '{}') INTO picked FROM old o;
    ELSE -- written so that only the index on both can give the order
        PERFORM FROM (
            SELECT d.task, d.finished_at FROM outbox.dead d
            WHERE (d.task, d.finished_at) >= (purge_dead.task, timestamptz '-infinity')
            ORDER BY d.task, d.finished_at LIMIT 1) AS oldest
        WHERE oldest.task = purge_dead.task AND oldest.finished_at < before;
        IF NOT FOUND THEN
            RETURN 0; -- else the index would be read to the task's end
        END IF;
        WITH old AS MATERIALIZED (
            SELECT d.id FROM outbox.dead d
            WHERE (d.task, d.finished_at) >= (purge_dead.task, timestamptz '-infinity')
              AND (d.task, d.finished_at) < (purge_dead.task, before)
            ORDER BY d.task, d.finished_at LIMIT batch FOR UPDATE SKIP LOCKED)
        SELECT coalesce(array_agg(o.id), '{}') INTO picked FROM old o;
    END IF;
    FOR opened IN SELECT d.id, d.task, d.key FROM outbox.dead d
                  WHERE d.id = ANY (picked) AND d.blocks IS NOT FALSE LOOP -- not by dead_blocks
        IF outbox.try_keys(ARRAY[outbox.key_bucket(opened.task, opened.key)]) = '{}' THEN
            picked := array_remove(picked, opened.id);
        ELSE
            DELETE FROM outbox.dead d WHERE d.id = opened.id;
            PERFORM outbox.open_line(opened.task, opened.key);
        END IF;
    END LOOP;
    DELETE FROM outbox.attempt a WHERE a.job_id = ANY (picked);
    DELETE FROM outbox.dead d WHERE d.id = ANY (picked);
    RETURN cardinality(picked);
END
$$;
COMMENT ON FUNCTION outbox.purge_dead(interval, integer, text) IS
    'removes dead jobs of some age, at most so many; returns how many';

-- outbox.purge_attempts(older_than, batch): removes attempts that began so long ago, whatever became
-- of their jobs. Returns how many. Errors: 22023.
CREATE OR REPLACE FUNCTION outbox.purge_attempts(
    older_than interval, batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    before constant timestamptz := clock_timestamp() - older_than;
    n integer;
BEGIN
    PERFORM outbox.check_age(older_than, batch);
    WITH old AS MATERIALIZED (
        SELECT a.job_id, a.seq FROM outbox.attempt a
        WHERE a.started_at < before
        ORDER BY a.started_at LIMIT batch FOR UPDATE SKIP LOCKED)
    DELETE FROM outbox.attempt a USING old o WHERE a.job_id = o.job_id AND a.seq = o.seq;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;
COMMENT ON FUNCTION outbox.purge_attempts(interval, integer) IS
    'removes attempts of some age, at most so many; returns how many';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
