-- functions_wait.sql: for those that wait: for the end of jobs, or for one to take.
-- min_level: 1

-- outbox.states(ids): what is known of these jobs, in the order given, all as of one moment.
-- Returns state and ended, which is true where it is final:
--   ready, scheduled, waiting, running   it is still live, be it to be tried again
--   done                                 it succeeded, and is kept in outbox.done
--   dead                                 it was given up; reason says why
--   gone                                 its row is not there any more: it succeeded and was not kept,
--                                        or was cancelled, or merged into another one
--   unknown                              its id was never given out
-- A job of a transaction that has not committed yet is gone to all others: ask for ids that were
-- committed. NULL ids: no rows. Reads only: works on a standby too.
CREATE OR REPLACE FUNCTION outbox.states(ids bigint[])
RETURNS TABLE(id bigint, state text, ended boolean, reason text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT u.id,
           coalesce(l.state, f.state, CASE WHEN u.id BETWEEN 1 AND s.last_value AND s.is_called
                                           THEN 'gone' ELSE 'unknown' END),
           l.state IS NULL, f.reason
    FROM unnest(ids) WITH ORDINALITY AS u(id, n)
    CROSS JOIN outbox.job_id_seq s
    LEFT JOIN LATERAL (
        SELECT CASE WHEN j.owner IS NOT NULL THEN 'running'
                    WHEN j.ready_xid IS NOT NULL THEN 'ready'
                    WHEN j.waiting OR j.run_at IS NULL THEN 'waiting'
                    ELSE 'scheduled' END AS state
        FROM outbox.job j WHERE j.id = u.id OFFSET 0) AS l ON true
    LEFT JOIN LATERAL (
        SELECT 'dead' AS state, d.reason FROM outbox.dead d WHERE d.id = u.id
        UNION ALL
        SELECT 'done', NULL FROM outbox.done d WHERE d.id = u.id
        LIMIT 1) AS f ON true
    ORDER BY u.n;
END
$$;
COMMENT ON FUNCTION outbox.states(bigint[]) IS
    'what became of jobs: still live, done, dead, or gone';

-- outbox.can_take(task): whether outbox.take would find a job now: a ready one that nobody holds (or
-- an expired one, to put aside). For those that wait for one, outside a transaction. Scheduled jobs
-- whose time has come, of any task, are made ready first: where no dispatcher runs, nobody else does.
-- Errors: 0A000 a job with a key, and the transaction is not READ COMMITTED.
CREATE OR REPLACE FUNCTION outbox.can_take(task text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.make_due('-infinity', 1000);
    RETURN (SELECT cardinality(h.ids) + cardinality(h.expired_ids) > 0
            FROM outbox.hold_ready(task, 1) h);
END
$$;
COMMENT ON FUNCTION outbox.can_take(text) IS
    'whether a job of the task can be taken; makes scheduled ones ready';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
