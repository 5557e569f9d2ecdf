-- functions_links.sql: jobs that have to do with other jobs: how they are put, and what their end
-- means for others. All internal. Jobs without such options never come here.
-- min_level: 1

-- outbox.put(...): enqueues one job whose options were checked. due: not before; NULL: now.
CREATE OR REPLACE FUNCTION outbox.put(
    task text, priority integer, encoding text, payload bytea, key text, unique_key text,
    due timestamptz, expires_at timestamptz, max_attempts integer, headers jsonb,
    repeat_every interval, after bigint[], on_failed_dependency text, notify_done boolean,
    created timestamptz, OUT id bigint, OUT existing boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_later constant boolean := coalesce(due > created, false);
    is_lined constant boolean := key IS NOT NULL AND NOT is_later;
    waits boolean := false;
BEGIN
    IF key IS NOT NULL THEN
        PERFORM outbox.lock_keys(ARRAY[outbox.key_bucket(task, key)]);
    END IF;
    id := nextval('outbox.job_id_seq'); -- under the lock: the order of a key's ids is that of commits
    IF is_lined THEN
        waits := outbox.key_is_taken(task, key);
    END IF;
    INSERT INTO outbox.job (id, task, priority, encoding, payload, key, headers, run_at, expires_at,
                            max_attempts, created_at, place, waiting, linked, ready_xid)
    OVERRIDING SYSTEM VALUE
    VALUES (id, task, coalesce(priority, 2), encoding, payload, key, headers, due, expires_at,
            max_attempts, created, CASE WHEN is_lined THEN id END, waits, key IS NOT NULL,
            CASE WHEN NOT is_later AND NOT waits THEN pg_current_xact_id() END);
    existing := false;
END
$$;
COMMENT ON FUNCTION outbox.put(text, integer, text, bytea, text, text, timestamptz, timestamptz,
    integer, jsonb, interval, bigint[], text, boolean, timestamptz) IS
    'internal: enqueues a job that has to do with others';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
