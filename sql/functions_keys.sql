-- functions_keys.sql: order per key: jobs of one task and key run one at a time. All internal.
-- min_level: 1
--
-- The jobs of a (task, key) that may run stand in a line, by `place`. One of them is at the head:
-- ready, running, or to be tried again. The others wait: they are in neither index that the
-- dispatchers read, so that a long line costs the others nothing. Who ends makes the next one ready
-- (outbox.hand_over). A job that is scheduled, or depends on others, joins the line when its time
-- has come (outbox.join_lines). place is the job's id, or a later number of the same sequence.
--
-- What makes it exact: every change of a line happens under the key's advisory lock, (1869968491,
-- 0..1023), held until the transaction ends, and what the line is like is read by a statement that
-- began after the lock was taken. One statement for both would read what was there before it
-- waited: the last of a line would end without seeing the next one come, which would wait for ever.
-- An older snapshot, as REPEATABLE READ keeps it, does the same: it is refused. Because of the lock,
-- places of one key are committed in their order.
--
-- Locks come before rows, and in their order. The slow check, and a time that comes, only try them.

-- outbox.key_bucket(task, key): number of the key's lock. Inlined: all names are qualified.
CREATE OR REPLACE FUNCTION outbox.key_bucket(task text, key text) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.hashtext(task || ' ' || key) & 1023
$$;
COMMENT ON FUNCTION outbox.key_bucket(text, text) IS 'internal: number of a key''s lock';

-- outbox.check_isolation(): Errors: 0A000 if statements do not see what was committed before them.
CREATE OR REPLACE FUNCTION outbox.check_isolation() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        PERFORM outbox.refuse('0A000',
            format('a job with a key or with dependencies cannot be put or changed at isolation '
                   'level %s', current_setting('transaction_isolation')),
            'Who comes after whom is told by what others committed a moment ago: use READ '
            'COMMITTED for this transaction, or leave key and after out.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_isolation() IS
    'internal: raises an error at other isolation levels than READ COMMITTED';

-- outbox.lock_keys(buckets): waits for these locks, in their order. A statement of its own.
CREATE OR REPLACE FUNCTION outbox.lock_keys(buckets integer[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.check_isolation();
    PERFORM pg_advisory_xact_lock(1869968491, s.bucket)
    FROM (SELECT DISTINCT u.bucket FROM unnest(buckets) AS u(bucket) ORDER BY u.bucket) AS s;
END
$$;
COMMENT ON FUNCTION outbox.lock_keys(integer[]) IS 'internal: takes the locks of keys, in order';

-- outbox.try_keys(buckets): takes those that are free, and returns them.
CREATE OR REPLACE FUNCTION outbox.try_keys(buckets integer[]) RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.check_isolation();
    RETURN ARRAY(SELECT s.bucket
                 FROM (SELECT DISTINCT u.bucket FROM unnest(buckets) AS u(bucket)) AS s
                 WHERE pg_try_advisory_xact_lock(1869968491, s.bucket));
END
$$;
COMMENT ON FUNCTION outbox.try_keys(integer[]) IS 'internal: takes the locks of keys that are free';

-- outbox.key_is_taken(task, key): whether a job that joins the line now has to wait. The caller
-- holds the lock. The end of the line first: in a long one, that is a live row, while the places of
-- those that have ended may be full of dead ones.
CREATE OR REPLACE FUNCTION outbox.key_is_taken(task text, key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM outbox.job j
    WHERE j.task = key_is_taken.task AND j.key = key_is_taken.key
      AND j.place IS NOT NULL AND j.waiting
    ORDER BY j.task DESC, j.key DESC, j.place DESC LIMIT 1;
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM FROM outbox.job j
    WHERE j.task = key_is_taken.task AND j.key = key_is_taken.key
      AND j.place IS NOT NULL AND NOT j.waiting
    ORDER BY j.task DESC, j.key DESC, j.place DESC LIMIT 1;
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM FROM outbox.dead d
    WHERE d.task = key_is_taken.task AND d.key = key_is_taken.key AND d.blocks LIMIT 1;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION outbox.key_is_taken(text, text) IS
    'internal: whether a job that joins the line of a key has to wait';

-- outbox.next_in_line(task, key, place): id of the one behind that place; NULL: nobody waits.
CREATE OR REPLACE FUNCTION outbox.next_in_line(task text, key text, place bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT j.id FROM outbox.job j
            WHERE j.task = next_in_line.task AND j.key = next_in_line.key
              AND j.place > next_in_line.place AND j.place IS NOT NULL AND j.waiting
            ORDER BY j.task, j.key, j.place LIMIT 1);
END
$$;
COMMENT ON FUNCTION outbox.next_in_line(text, text, bigint) IS
    'internal: the job that waits behind a place in the line of a key';

-- outbox.hand_over(ids): makes those ready that wait behind these jobs, and wakes. They are about to
-- end, locked, and still there; who is not at the head of a line does not count. The caller holds
-- the keys' locks. Returns whether a job became ready.
CREATE OR REPLACE FUNCTION outbox.hand_over(ids bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    next_ids bigint[];
    tasks text[];
BEGIN
    SELECT array_agg(n.id), array_agg(DISTINCT h.task) INTO next_ids, tasks
    FROM unnest(ids) AS i(id)
    CROSS JOIN LATERAL (
        SELECT j.task, j.key, j.place FROM outbox.job j
        WHERE j.id = i.id AND j.place IS NOT NULL AND NOT j.waiting OFFSET 0) AS h
    CROSS JOIN LATERAL (SELECT outbox.next_in_line(h.task, h.key, h.place) AS id OFFSET 0) AS n
    WHERE n.id IS NOT NULL;
    IF next_ids IS NULL THEN
        RETURN false;
    END IF;
    UPDATE outbox.job AS j SET waiting = false, ready_xid = pg_current_xact_id()
    WHERE j.id = ANY (next_ids);
    PERFORM outbox.wake_tasks(tasks, false);
    RETURN true;
END
$$;
COMMENT ON FUNCTION outbox.hand_over(bigint[]) IS
    'internal: makes the jobs ready that wait behind these, which end';

-- outbox.open_line(task, key): makes the first one ready if nobody is at the head. The caller holds
-- the lock, in an earlier statement.
CREATE OR REPLACE FUNCTION outbox.open_line(task text, key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first_id bigint;
BEGIN
    IF EXISTS (SELECT FROM outbox.job j
               WHERE j.task = open_line.task AND j.key = open_line.key
                 AND j.place IS NOT NULL AND NOT j.waiting)
       OR EXISTS (SELECT FROM outbox.dead d
                  WHERE d.task = open_line.task AND d.key = open_line.key AND d.blocks) THEN
        RETURN false;
    END IF;
    first_id := outbox.next_in_line(task, key, -1);
    IF first_id IS NULL THEN
        RETURN false;
    END IF;
    UPDATE outbox.job AS j SET waiting = false, ready_xid = pg_current_xact_id()
    WHERE j.id = first_id;
    PERFORM outbox.wake_tasks(ARRAY[task], false);
    RETURN true;
END
$$;
COMMENT ON FUNCTION outbox.open_line(text, text) IS
    'internal: makes the first of a line ready if nobody is at its head';

-- outbox.join_lines(ids): jobs with a key whose time has come, in the order given, join their lines:
-- at the head they are ready. The caller has locked the rows, and wakes. Only tries the keys' locks:
-- who holds one may wait for these rows. Returns how many have joined.
CREATE OR REPLACE FUNCTION outbox.join_lines(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    got integer[];
    n integer;
BEGIN
    got := outbox.try_keys(ARRAY(SELECT outbox.key_bucket(j.task, j.key) FROM outbox.job j
                                 WHERE j.id = ANY (ids)));
    WITH joining AS MATERIALIZED (
        SELECT q.id, q.place, q.n > 1 OR outbox.key_is_taken(q.task, q.key) AS waits
        FROM (SELECT s.*, nextval('outbox.job_id_seq') AS place
              FROM (SELECT j.id, j.task, j.key,
                           row_number() OVER (PARTITION BY j.task, j.key ORDER BY i.n) AS n
                    FROM unnest(ids) WITH ORDINALITY AS i(id, n)
                    CROSS JOIN LATERAL (
                        SELECT o.id, o.task, o.key FROM outbox.job o WHERE o.id = i.id OFFSET 0)
                        AS j
                    WHERE outbox.key_bucket(j.task, j.key) = ANY (got)
                    ORDER BY i.n) AS s) AS q)
    UPDATE outbox.job AS j
    SET place = q.place, waiting = q.waits,
        ready_xid = CASE WHEN NOT q.waits THEN pg_current_xact_id() END
    FROM joining q WHERE j.id = q.id;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;
COMMENT ON FUNCTION outbox.join_lines(bigint[]) IS
    'internal: jobs whose time has come join the lines of their keys';

-- outbox.busy_keys(ids): which of these jobs, locked and about to end, can't be ended without
-- waiting: their key's lock, or the job behind them, is held by somebody. Takes what it can.
CREATE OR REPLACE FUNCTION outbox.busy_keys(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    got integer[];
    free bigint[];
BEGIN
    got := outbox.try_keys(ARRAY(SELECT outbox.key_bucket(j.task, j.key) FROM outbox.job j
                                 WHERE j.id = ANY (ids)));
    WITH heads AS MATERIALIZED (
        SELECT j.id, outbox.next_in_line(j.task, j.key, j.place) AS next_id
        FROM outbox.job j
        WHERE j.id = ANY (ids) AND outbox.key_bucket(j.task, j.key) = ANY (got)),
    followed AS MATERIALIZED (
        SELECT h.id FROM heads h
        CROSS JOIN LATERAL (
            SELECT FROM outbox.job n WHERE n.id = h.next_id FOR NO KEY UPDATE SKIP LOCKED) AS n)
    SELECT array_agg(h.id) INTO free FROM heads h
    WHERE h.next_id IS NULL OR h.id IN (SELECT f.id FROM followed f);
    RETURN ARRAY(SELECT i FROM unnest(ids) AS i WHERE (i = ANY (free)) IS NOT TRUE);
END
$$;
COMMENT ON FUNCTION outbox.busy_keys(bigint[]) IS
    'internal: which jobs can''t be ended without waiting for somebody';

-- outbox.mend(batch): the slow check of the lines: one whose head has gone in a way that nobody
-- handed over (a row deleted by hand) goes on; and of the dependencies: of those on such a row, the
-- dependents are dead. Looks at so many of each, from where the last call came to; only one call at
-- a time looks. And it removes finished jobs that were kept for long enough, so many at most. Claims
-- nothing, waits for nobody.
-- Returns how many lines went on, and rows deleted by hand were dealt with.
CREATE OR REPLACE FUNCTION outbox.mend(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    start record;
    line record;
    parent bigint;
    mended integer := 0;
BEGIN
    SELECT m.task, m.key, m.after_id INTO start FROM outbox.mended m FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT start.task, start.key INTO line;
    FOR i IN 1..batch LOOP
        SELECT j.task, j.key INTO line FROM outbox.job j
        WHERE (j.task, j.key) > (line.task, line.key) AND j.place IS NOT NULL AND j.waiting
        ORDER BY j.task, j.key, j.place LIMIT 1;
        EXIT WHEN NOT FOUND;
        PERFORM FROM outbox.job j
        WHERE j.task = line.task AND j.key = line.key AND j.place IS NOT NULL AND NOT j.waiting
        ORDER BY j.task DESC, j.key DESC, j.place DESC LIMIT 1;
        IF NOT FOUND
           AND cardinality(outbox.try_keys(ARRAY[outbox.key_bucket(line.task, line.key)])) = 1 THEN
            mended := mended + outbox.open_line(line.task, line.key)::integer;
        END IF;
    END LOOP;
    IF line.task IS NOT NULL OR start.task <> '' THEN
        UPDATE outbox.mended SET task = coalesce(line.task, ''), key = coalesce(line.key, '');
    END IF;
    parent := start.after_id;
    FOR i IN 1..batch LOOP
        SELECT d.after_id INTO parent FROM outbox.dependency d
        WHERE d.after_id > parent ORDER BY d.after_id, d.job_id LIMIT 1;
        EXIT WHEN NOT FOUND;
        PERFORM FROM outbox.job j WHERE j.id = parent;
        IF NOT FOUND AND outbox.busy_dependents(ARRAY[parent], true) = '{}' THEN
            PERFORM outbox.resolve(ARRAY[parent], 'is gone');
            mended := mended + 1;
        END IF;
    END LOOP;
    IF parent IS NOT NULL OR start.after_id > 0 THEN
        UPDATE outbox.mended SET after_id = coalesce(parent, 0);
    END IF;
    PERFORM outbox.purge_kept(batch);
    RETURN mended;
END
$$;
COMMENT ON FUNCTION outbox.mend(integer) IS
    'the slow check of the keys: a line without a head, as after a row was deleted by hand, goes on';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
