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

-- outbox.cancel(id): removes a job, a dead one too, with its attempt rows. A running one ends first:
-- its dispatcher is told once this is committed, and it never runs again.
-- Returns 'cancelled', 'cancelling' or 'not found'. Waits for who holds the row. Asking again about
-- one that was 'cancelling' tells: 'cancelled' (for a minute), or 'not found': it was done before.
CREATE OR REPLACE FUNCTION outbox.cancel(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state text;
BEGIN
    -- Again: it may move from dead to job, or back, or be given back, between the looks.
    FOR i IN 1..3 LOOP
        DELETE FROM outbox.job j WHERE j.id = cancel.id AND j.owner IS NULL;
        IF NOT FOUND THEN
            state := outbox.ask_to_cancel(id);
            IF state = 'cancelling' THEN
                RETURN state;
            ELSIF state = 'free' THEN
                CONTINUE;
            END IF;
            DELETE FROM outbox.dead d WHERE d.id = cancel.id;
        END IF;
        IF FOUND THEN
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

-- outbox.retry(id): makes a dead job a job again (same id, no attempts counted, its attempt rows
-- kept), or a scheduled one ready now. An expires_at that has passed is forgotten.
-- Returns 'retried', 'ready' (it is already), 'running' or 'not found'.
CREATE OR REPLACE FUNCTION outbox.retry(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live outbox.job;
BEGIN
    WITH risen AS (DELETE FROM outbox.dead d WHERE d.id = retry.id RETURNING d.*)
    INSERT INTO outbox.job (id, ready_xid, created_at, run_at, expires_at, max_attempts, priority,
                            logged, task, encoding, key, unique_key, headers, payload)
    OVERRIDING SYSTEM VALUE
    SELECT r.id, pg_current_xact_id(), r.created_at, r.run_at,
           CASE WHEN r.expires_at > clock_timestamp() THEN r.expires_at END, r.max_attempts,
           r.priority, r.logged, r.task, r.encoding, r.key, r.unique_key, r.headers, r.payload
    FROM risen r;
    IF FOUND THEN
        RETURN 'retried';
    END IF;
    SELECT j.* INTO live FROM outbox.job j WHERE j.id = retry.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'not found';
    ELSIF live.owner IS NOT NULL THEN
        RETURN 'running';
    ELSIF live.ready_xid IS NOT NULL THEN
        RETURN 'ready';
    END IF;
    UPDATE outbox.job j SET ready_xid = pg_current_xact_id(), run_at = clock_timestamp()
    WHERE j.id = retry.id;
    PERFORM outbox.wake_tasks(ARRAY[live.task], false);
    RETURN 'retried';
END
$$;
COMMENT ON FUNCTION outbox.retry(bigint) IS
    'makes a dead job a job again, or a scheduled one ready now';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
