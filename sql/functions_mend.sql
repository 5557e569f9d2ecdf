-- functions_mend.sql: what operators do to single jobs.
-- min_level: 1

-- outbox.payload(id): the stored payload of a job, live, dead or done. NULL: no such job.
CREATE OR REPLACE FUNCTION outbox.payload(id bigint) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN coalesce((SELECT j.payload FROM outbox.job j WHERE j.id = payload.id),
                    (SELECT d.payload FROM outbox.dead d WHERE d.id = payload.id),
                    (SELECT d.payload FROM outbox.done d WHERE d.id = payload.id));
END
$$;
COMMENT ON FUNCTION outbox.payload(bigint) IS 'the stored payload of a job, live, dead or done';

-- outbox.lock_job_key(id): takes the lock of a job's key, if it has one, live or dead. Internal.
CREATE OR REPLACE FUNCTION outbox.lock_job_key(id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    buckets integer[];
BEGIN
    SELECT array_agg(outbox.key_bucket(k.task, k.key)) INTO buckets
    FROM (SELECT j.task, j.key FROM outbox.job j WHERE j.id = lock_job_key.id
          UNION ALL
          SELECT d.task, d.key FROM outbox.dead d WHERE d.id = lock_job_key.id) AS k
    WHERE k.key IS NOT NULL;
    IF buckets IS NOT NULL THEN
        PERFORM outbox.lock_keys(buckets);
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.lock_job_key(bigint) IS 'internal: takes the lock of a job''s key';

-- outbox.cancel(id): removes a job, a dead one too, with its attempt rows. A running one ends first:
-- its dispatcher is told once this is committed, and it never runs again.
-- Returns 'cancelled', 'cancelling' or 'not found'. Waits for who holds the row. Asking again about
-- one that was 'cancelling' tells: 'cancelled' (for a minute), or 'not found': it was done before.
-- Errors: 0A000 a job with a key, and the transaction is not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.cancel(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state text;
    is_linked boolean;
    dead_task text;
    dead_key text;
    blocked boolean;
BEGIN
    PERFORM outbox.lock_job_key(id);
    -- Again: it may move from dead to job, or back, or be given back, between the looks.
    FOR i IN 1..3 LOOP
        SELECT j.linked INTO is_linked FROM outbox.job j
        WHERE j.id = cancel.id AND j.owner IS NULL FOR UPDATE;
        IF FOUND THEN
            PERFORM outbox.remove_cancelled(ARRAY[id]);
        ELSE
            state := outbox.ask_to_cancel(id);
            IF state = 'cancelling' THEN
                RETURN state;
            ELSIF state = 'free' THEN
                CONTINUE;
            END IF;
            DELETE FROM outbox.dead d WHERE d.id = cancel.id
            RETURNING d.task, d.key, d.blocks INTO dead_task, dead_key, blocked;
            IF blocked THEN
                PERFORM outbox.open_line(dead_task, dead_key);
            END IF;
        END IF;
        IF is_linked IS NOT NULL OR dead_task IS NOT NULL THEN
            DELETE FROM outbox.attempt a WHERE a.job_id = cancel.id;
            RETURN 'cancelled';
        END IF;
    END LOOP;
    PERFORM FROM outbox.cancelling c WHERE c.id = cancel.id AND c.ended_at IS NOT NULL;
    IF FOUND THEN
        RETURN 'cancelled';
    END IF;
    RETURN 'not found';
END
$$;
COMMENT ON FUNCTION outbox.cancel(bigint) IS
    'removes a job; one that runs is ended first, by its dispatcher';

-- outbox.retry(id): makes a dead job a job again (same id), or a scheduled one ready now. Its failures
-- are forgotten, also those of one that is ready: no attempts and no losses are counted any more; its
-- attempt rows are kept. So is an expires_at that has passed. A dead one with a key joins its line at
-- the end, unless it blocked that: then it is where it was.
-- Returns 'retried', 'ready' (it is already), 'waiting' (for another job), 'exists' (nothing happened:
-- a job with its unique key waits), 'running' (nothing happened) or 'not found'.
-- Errors: 0A000 a job with a key, and the transaction is not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.retry(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live outbox.job;
BEGIN
    PERFORM outbox.lock_job_key(id);
    BEGIN
        WITH risen AS (DELETE FROM outbox.dead d WHERE d.id = retry.id RETURNING d.*),
        line AS MATERIALIZED (
            SELECT r.id AS of_id,
                   CASE WHEN r.blocks THEN r.place
                        WHEN r.key IS NOT NULL THEN nextval('outbox.job_id_seq') END AS place,
                   r.key IS NOT NULL AND NOT r.blocks AND outbox.key_is_taken(r.task, r.key) AS waits
            FROM risen r)
        INSERT INTO outbox.job (id, ready_xid, created_at, run_at, expires_at, max_attempts, priority,
                                logged, task, encoding, key, unique_key, headers, payload, repeat_every,
                                notify_done, place, waiting, linked)
        OVERRIDING SYSTEM VALUE
        SELECT r.id, CASE WHEN NOT l.waits THEN pg_current_xact_id() END, r.created_at, r.run_at,
               CASE WHEN r.expires_at > clock_timestamp() THEN r.expires_at END, r.max_attempts,
               r.priority, r.logged, r.task, r.encoding, r.key, r.unique_key, r.headers, r.payload,
               r.repeat_every, r.notify_done, l.place, l.waits,
               r.key IS NOT NULL OR r.repeat_every IS NOT NULL OR r.notify_done IS TRUE
        FROM risen r CROSS JOIN line l
        RETURNING job.* INTO live;
        IF FOUND THEN
            PERFORM outbox.inserted(ARRAY[live.task],
                                    CASE WHEN NOT live.waiting THEN ARRAY[live.task] END);
            RETURN 'retried';
        END IF;
    EXCEPTION WHEN unique_violation THEN
        RETURN 'exists'; -- and stays dead
    END;
    SELECT j.* INTO live FROM outbox.job j WHERE j.id = retry.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'not found';
    ELSIF live.owner IS NOT NULL THEN
        RETURN 'running';
    ELSIF live.waiting THEN
        RETURN 'waiting';
    ELSIF live.ready_xid IS NOT NULL THEN
        UPDATE outbox.job j
        SET attempts = 0, lost = 0,
            expires_at = CASE WHEN j.expires_at > clock_timestamp() THEN j.expires_at END
        WHERE j.id = retry.id
          AND (j.attempts > 0 OR j.lost > 0 OR j.expires_at <= clock_timestamp());
        RETURN 'ready';
    END IF;
    UPDATE outbox.job j
    SET ready_xid = CASE WHEN j.key IS NULL OR j.place IS NOT NULL THEN pg_current_xact_id() END,
        run_at = clock_timestamp(), attempts = 0, lost = 0,
        expires_at = CASE WHEN j.expires_at > clock_timestamp() THEN j.expires_at END
    WHERE j.id = retry.id;
    IF live.key IS NOT NULL AND live.place IS NULL THEN
        PERFORM outbox.join_lines(ARRAY[id]);
    END IF;
    PERFORM outbox.wake_tasks(ARRAY[live.task], false);
    RETURN 'retried';
END
$$;
COMMENT ON FUNCTION outbox.retry(bigint) IS
    'makes a dead job a job again, or a scheduled one ready now; its failures are forgotten';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
