-- functions_links.sql: jobs that have to do with other jobs: how they are put, and what their end
-- means for others. All internal. Jobs without such options never come here.
-- min_level: 1

-- outbox.put(...): enqueues one job whose options were checked.
--   due     not before; NULL: now
--   new_id  NULL, or its id: then the caller has locked its key, and opens its line afterwards
-- With a unique_key that a waiting job of the task has: nothing, and that one's id. That job is kept
-- from being claimed until our transaction ends: what we changed, it shall see.
CREATE OR REPLACE FUNCTION outbox.put(
    task text, priority integer, encoding text, payload bytea, key text, unique_key text,
    due timestamptz, expires_at timestamptz, max_attempts integer, headers jsonb,
    repeat_every interval, after bigint[], on_failed_dependency text, notify_done boolean,
    created timestamptz, new_id bigint, OUT id bigint, OUT existing boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    is_later constant boolean := coalesce(due > created, false);
    is_lined boolean := key IS NOT NULL AND NOT is_later;
    waits boolean;
    parents bigint[] := '{}';
    failed bigint;
    is_linked constant boolean := key IS NOT NULL OR repeat_every IS NOT NULL OR notify_done IS TRUE;
BEGIN
    IF key IS NOT NULL AND new_id IS NULL THEN
        PERFORM outbox.lock_keys(ARRAY[outbox.key_bucket(task, key)]);
    END IF;
    existing := false;
    id := coalesce(new_id, nextval('outbox.job_id_seq')); -- under the lock: in the order of commits
    IF cardinality(after) > 0 THEN
        SELECT d.parents, d.failed INTO parents, failed FROM outbox.depend(after) d;
        IF failed IS NOT NULL AND on_failed_dependency IS DISTINCT FROM 'run' THEN
            PERFORM outbox.put_dead(id, task, priority, encoding, payload, key, unique_key, due,
                expires_at, max_attempts, headers, repeat_every, notify_done, created, failed);
            RETURN;
        END IF;
        is_lined := is_lined AND cardinality(parents) = 0;
    END IF;
    waits := is_lined OR cardinality(parents) > 0;
    IF is_lined AND new_id IS NULL THEN
        waits := outbox.key_is_taken(task, key);
    END IF;
    LOOP
        INSERT INTO outbox.job AS j
            (id, task, priority, encoding, payload, key, unique_key, headers, run_at, expires_at,
             max_attempts, created_at, place, waiting, linked, repeat_every, notify_done, unmet,
             runs_anyway, ready_xid)
        OVERRIDING SYSTEM VALUE
        VALUES (put.id, put.task, coalesce(put.priority, 2), put.encoding, put.payload, put.key,
                put.unique_key, put.headers, due, put.expires_at, put.max_attempts, created,
                CASE WHEN is_lined THEN put.id END, waits, is_linked, put.repeat_every,
                nullif(put.notify_done, false), nullif(cardinality(parents), 0),
                CASE WHEN put.on_failed_dependency = 'run' THEN true END,
                CASE WHEN NOT is_later AND NOT waits THEN pg_current_xact_id() END)
        ON CONFLICT (task, unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
        EXIT WHEN FOUND;
        SELECT j.id INTO id FROM outbox.job j
        WHERE j.task = put.task AND j.unique_key = put.unique_key FOR SHARE;
        existing := FOUND; -- else it was claimed or removed just now
        EXIT WHEN existing;
        id := coalesce(new_id, nextval('outbox.job_id_seq'));
    END LOOP;
    IF cardinality(parents) > 0 AND NOT existing THEN
        INSERT INTO outbox.dependency AS d (after_id, job_id) SELECT p, put.id FROM unnest(parents) AS p;
    END IF;
    IF NOT existing AND outbox.is_awaited(task) THEN
        PERFORM outbox.inserted(ARRAY[task], CASE WHEN NOT is_later AND NOT waits THEN ARRAY[task] END);
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.put(text, integer, text, bytea, text, text, timestamptz, timestamptz,
    integer, jsonb, interval, bigint[], text, boolean, timestamptz, bigint) IS
    'internal: enqueues a job that has to do with others';

-- outbox.put_dead(...): puts a job aside at once, as a job that it depends on is dead.
CREATE OR REPLACE FUNCTION outbox.put_dead(
    id bigint, task text, priority integer, encoding text, payload bytea, key text, unique_key text,
    due timestamptz, expires_at timestamptz, max_attempts integer, headers jsonb,
    repeat_every interval, notify_done boolean, created timestamptz, failed bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO outbox.dead (id, created_at, run_at, expires_at, finished_at, repeat_every, attempts,
                             lost, max_attempts, priority, logged, notify_done, task, encoding, key,
                             unique_key, reason, headers, payload)
    VALUES (id, created, due, expires_at, clock_timestamp(), repeat_every, 0, 0, max_attempts,
            coalesce(priority, 2), false, notify_done, task, encoding, key, unique_key,
            format('dependency %s is dead', failed), headers, payload);
    PERFORM outbox.tell_dead(ARRAY[id]);
END
$$;
COMMENT ON FUNCTION outbox.put_dead(bigint, text, integer, text, bytea, text, text, timestamptz,
    timestamptz, integer, jsonb, interval, boolean, timestamptz, bigint) IS
    'internal: puts a job aside whose dependency is dead';

-- outbox.give_back(id): gives a running job its unique key back, as it is to wait again. Waits for
-- who puts, or changes, another job with that key. Returns NULL; or the id of a job that was put
-- meanwhile and waits, and then nothing is changed.
CREATE OR REPLACE FUNCTION outbox.give_back(id bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    twin bigint;
BEGIN
    LOOP
        BEGIN
            UPDATE outbox.job AS j
            SET unique_key = j.claimed_unique_key, claimed_unique_key = NULL
            WHERE j.id = give_back.id AND j.claimed_unique_key IS NOT NULL;
            RETURN NULL;
        EXCEPTION WHEN unique_violation THEN
            SELECT t.id INTO twin FROM outbox.job j
            JOIN outbox.job t ON t.task = j.task AND t.unique_key = j.claimed_unique_key
            WHERE j.id = give_back.id;
        END;
        EXIT WHEN twin IS NOT NULL; -- else it was claimed or removed just now
    END LOOP;
    RETURN twin;
END
$$;
COMMENT ON FUNCTION outbox.give_back(bigint) IS
    'internal: gives a job that is to wait again its unique key back, or names its twin';

-- outbox.try_give_back(id): the same without waiting. Returns 0 where it would have to wait.
CREATE OR REPLACE FUNCTION outbox.try_give_back(id bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1ms'
AS $$
BEGIN
    RETURN outbox.give_back(id);
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;
COMMENT ON FUNCTION outbox.try_give_back(bigint) IS
    'internal: outbox.give_back without waiting; 0 where it would have to';

-- outbox.merge(id, twin): removes a job whose twin, put while it ran, waits: that one is it from now
-- on. The job is locked, and so is its key. Returns whether another job became ready.
CREATE OR REPLACE FUNCTION outbox.merge(id bigint, twin bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    more boolean;
BEGIN
    more := outbox.hand_over(ARRAY[id]);
    more := outbox.inherit(id, twin) OR more;
    PERFORM outbox.tell_done(ARRAY[id], 'merged');
    DELETE FROM outbox.job j WHERE j.id = merge.id;
    DELETE FROM outbox.attempt a WHERE a.job_id = merge.id;
    RETURN more;
END
$$;
COMMENT ON FUNCTION outbox.merge(bigint, bigint) IS
    'internal: removes a job whose twin, put while it ran, waits';

-- outbox.busy_merge(id, twin): whether outbox.merge, or outbox.repeat, would have to wait: for who
-- holds the twin, if that is to be changed, or a job that depends on this one. Takes what it can.
CREATE OR REPLACE FUNCTION outbox.busy_merge(id bigint, twin bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    IF twin IS NULL THEN
        RETURN false;
    END IF;
    -- Who puts one that depends on it holds FOR KEY SHARE: it would not be seen, and stranded.
    PERFORM FROM outbox.job j WHERE j.id = busy_merge.id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    IF NOT EXISTS (SELECT FROM outbox.job j
                   WHERE j.id = busy_merge.id AND j.repeat_every IS NOT NULL)
       AND NOT EXISTS (SELECT FROM outbox.dependency d WHERE d.after_id = busy_merge.id) THEN
        RETURN false;
    END IF;
    PERFORM FROM outbox.job j WHERE j.id = twin FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM outbox.job j WHERE j.id = twin) THEN
        RETURN true;
    END IF;
    RETURN outbox.lock_children(ARRAY[id], true) > 0;
END
$$;
COMMENT ON FUNCTION outbox.busy_merge(bigint, bigint) IS
    'internal: whether a job can''t be merged into its twin without waiting';

-- outbox.give_back_all(ids, fate_ids, fates): the jobs of ids get their unique keys back, in order;
-- those that have a twin are merged into it, and taken off the two lists, which are returned.
CREATE OR REPLACE FUNCTION outbox.give_back_all(
    ids bigint[], INOUT fate_ids bigint[], INOUT fates jsonb[], OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one bigint;
    twin bigint;
    merged bigint[] := '{}';
BEGIN
    more := false;
    FOR one IN SELECT j.id FROM outbox.job j WHERE j.id = ANY (ids)
               ORDER BY j.claimed_unique_key COLLATE "C", j.task COLLATE "C" LOOP
        twin := outbox.give_back(one);
        IF twin IS NOT NULL THEN
            merged := merged || one;
            PERFORM outbox.lock_job_key(one);
            more := outbox.merge(one, twin) OR more;
        END IF;
    END LOOP;
    IF cardinality(merged) > 0 THEN
        SELECT array_agg(f.id ORDER BY f.n), array_agg(f.fate ORDER BY f.n) INTO fate_ids, fates
        FROM unnest(fate_ids, fates) WITH ORDINALITY AS f(id, fate, n) WHERE f.id <> ALL (merged);
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.give_back_all(bigint[], bigint[], jsonb[]) IS
    'internal: gives unique jobs their keys back, or merges them into their twins';

-- outbox.release_unique(ids): before the jobs of a lost dispatcher, locked, become ready: gives the
-- unique ones their keys back, without waiting for anybody. Returns those of ids that stay: not
-- those merged into a twin, nor those that somebody holds up, who are left for a later call.
CREATE OR REPLACE FUNCTION outbox.release_unique(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    twin bigint;
    gone bigint[] := '{}';
BEGIN
    FOR one IN SELECT j.id, j.place IS NOT NULL AS is_head FROM outbox.job j
               WHERE j.id = ANY (ids) AND j.claimed_unique_key IS NOT NULL ORDER BY j.id LOOP
        twin := outbox.try_give_back(one.id);
        IF twin > 0 AND (NOT one.is_head OR outbox.busy_keys(ARRAY[one.id]) = '{}')
           AND NOT outbox.busy_merge(one.id, twin) THEN
            PERFORM outbox.merge(one.id, twin);
        END IF;
        IF twin IS NOT NULL THEN
            gone := gone || one.id;
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT i FROM unnest(ids) AS i WHERE i <> ALL (gone));
END
$$;
COMMENT ON FUNCTION outbox.release_unique(bigint[]) IS
    'internal: gives a lost dispatcher''s unique jobs their keys back';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
