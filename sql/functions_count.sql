-- functions_count.sql: how many jobs there are, without reading them all.
-- min_level: 1

-- outbox.sample_percent(tab): how much of a table is to be sampled for about 50,000 rows, by its size
-- and how dense it was when it was analysed last: above 0, up to 100. Internal.
CREATE OR REPLACE FUNCTION outbox.sample_percent(tab regclass) RETURNS float8
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pages constant float8 := pg_relation_size(tab) / current_setting('block_size')::float8;
    per_page float8;
BEGIN
    SELECT CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages ELSE 20 END
    INTO per_page FROM pg_class c WHERE c.oid = tab;
    RETURN least(100, 100 * 50000 / greatest(pages * per_page, 1));
END
$$;
COMMENT ON FUNCTION outbox.sample_percent(regclass) IS
    'internal: how much of a table to sample for some ten thousand rows';

-- outbox.count_live(bound): the live ones of outbox.count_jobs. Internal.
CREATE OR REPLACE FUNCTION outbox.count_live(bound integer)
RETURNS TABLE(task text, state text, count bigint, estimated boolean, oldest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    percent constant float8 := outbox.sample_percent('outbox.job');
BEGIN
    RETURN QUERY
    WITH RECURSIVE lane AS ( -- each task by one look at the index
        (SELECT j.task FROM outbox.job j WHERE j.ready_xid IS NOT NULL ORDER BY j.task LIMIT 1)
        UNION ALL
        SELECT (SELECT j.task FROM outbox.job j WHERE j.ready_xid IS NOT NULL AND j.task > l.task
                ORDER BY j.task LIMIT 1)
        FROM lane l WHERE l.task IS NOT NULL),
    seen AS (
        SELECT l.task, r.state, count(*) AS n, min(r.created_at) AS oldest,
               sum(count(*)) OVER (PARTITION BY l.task) > bound AS is_full
        FROM lane l CROSS JOIN LATERAL (
            SELECT CASE WHEN j.owner IS NULL THEN 'ready' ELSE 'running' END AS state, j.created_at
            FROM outbox.job j WHERE j.task = l.task AND j.ready_xid IS NOT NULL
            ORDER BY j.task, j.priority, j.ready_xid, j.id LIMIT bound + 1) AS r
        WHERE l.task IS NOT NULL GROUP BY l.task, r.state
        UNION ALL
        SELECT r.task, 'scheduled', count(*), min(r.created_at), sum(count(*)) OVER () > bound
        FROM (SELECT j.task, j.created_at FROM outbox.job j
              WHERE j.ready_xid IS NULL AND j.run_at IS NOT NULL AND NOT j.waiting
              ORDER BY j.run_at, j.id LIMIT bound + 1) AS r
        GROUP BY r.task
        UNION ALL
        SELECT r.task, 'waiting', count(*), min(r.created_at), sum(count(*)) OVER () > bound
        FROM ((SELECT j.task, j.created_at FROM outbox.job j WHERE j.place IS NOT NULL AND j.waiting
               LIMIT bound + 1)
              UNION ALL
              SELECT j.task, j.created_at
              FROM (SELECT DISTINCT d.job_id FROM outbox.dependency d LIMIT bound + 1) AS d
              JOIN outbox.job j ON j.id = d.job_id WHERE j.waiting AND j.place IS NULL) AS r
        GROUP BY r.task),
    full_state AS (SELECT DISTINCT s.state FROM seen s WHERE s.is_full),
    sampled AS (
        SELECT r.task, r.state, round(count(*) * 100 / percent)::bigint AS n,
               min(r.created_at) AS oldest
        FROM (SELECT j.task, j.created_at,
                     CASE WHEN j.owner IS NOT NULL THEN 'running'
                          WHEN j.ready_xid IS NOT NULL THEN 'ready'
                          WHEN j.waiting OR j.run_at IS NULL THEN 'waiting'
                          ELSE 'scheduled' END AS state
              FROM outbox.job j TABLESAMPLE SYSTEM (percent)
              WHERE EXISTS (SELECT FROM full_state)) AS r
        GROUP BY r.task, r.state)
    SELECT s.task, s.state,
           CASE WHEN s.is_full THEN greatest(s.n, p.n) ELSE s.n END, s.is_full AND percent < 100,
           s.oldest
    FROM seen s LEFT JOIN sampled p ON p.task = s.task AND p.state = s.state
    UNION ALL -- of those that are too many, who was not among the first
    SELECT p.task, p.state, p.n, percent < 100, p.oldest
    FROM sampled p
    WHERE p.state IN (SELECT f.state FROM full_state f WHERE f.state IN ('scheduled', 'waiting'))
      AND NOT EXISTS (SELECT FROM seen s WHERE s.task = p.task AND s.state = p.state)
    UNION ALL
    SELECT p.task, p.state, p.n, percent < 100, p.oldest
    FROM sampled p
    WHERE p.state IN ('ready', 'running')
      AND EXISTS (SELECT FROM seen s WHERE s.task = p.task AND s.is_full
                  AND s.state IN ('ready', 'running'))
      AND NOT EXISTS (SELECT FROM seen s WHERE s.task = p.task AND s.state = p.state);
END
$$;
COMMENT ON FUNCTION outbox.count_live(integer) IS 'internal: outbox.count_jobs of live jobs';

-- outbox.count_jobs(bound): jobs a task and state, like the view outbox.stats, without reading them
-- all: up to `bound` of a task are counted (of the scheduled and of the waiting: of all tasks
-- together), and of more an estimate is made from a sample of the table.
-- Returns count; estimated, whether that is an estimate; and oldest, when the oldest of those seen
-- was enqueued. Errors: 22023 bound is NULL or below 1.
CREATE OR REPLACE FUNCTION outbox.count_jobs(bound integer DEFAULT 10000)
RETURNS TABLE(task text, state text, count bigint, estimated boolean, oldest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    dead_percent constant float8 := outbox.sample_percent('outbox.dead');
    done_percent constant float8 := outbox.sample_percent('outbox.done');
BEGIN
    IF (bound > 0) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'bound is NULL or below 1',
            'Pass how many jobs of a task are to be counted at most.');
    END IF;
    RETURN QUERY SELECT * FROM outbox.count_live(bound);
    RETURN QUERY
    WITH RECURSIVE ended AS (
        (SELECT d.task FROM outbox.dead d ORDER BY d.task LIMIT 1)
        UNION ALL
        SELECT (SELECT d.task FROM outbox.dead d WHERE d.task > e.task ORDER BY d.task LIMIT 1)
        FROM ended e WHERE e.task IS NOT NULL),
    seen AS (
        SELECT e.task, count(*) AS n, min(r.created_at) AS oldest
        FROM ended e CROSS JOIN LATERAL (
            SELECT d.created_at FROM outbox.dead d WHERE d.task = e.task
            ORDER BY d.task, d.finished_at LIMIT bound + 1) AS r
        WHERE e.task IS NOT NULL GROUP BY e.task),
    sampled AS (
        SELECT d.task, round(count(*) * 100 / dead_percent)::bigint AS n
        FROM outbox.dead d TABLESAMPLE SYSTEM (dead_percent)
        WHERE EXISTS (SELECT FROM seen s WHERE s.n > bound) GROUP BY d.task)
    SELECT s.task, 'dead', CASE WHEN s.n > bound THEN greatest(s.n, p.n) ELSE s.n END,
           s.n > bound AND dead_percent < 100, s.oldest
    FROM seen s LEFT JOIN sampled p ON p.task = s.task;
    RETURN QUERY
    WITH RECURSIVE ended AS (
        (SELECT d.task FROM outbox.done d ORDER BY d.task LIMIT 1)
        UNION ALL
        SELECT (SELECT d.task FROM outbox.done d WHERE d.task > e.task ORDER BY d.task LIMIT 1)
        FROM ended e WHERE e.task IS NOT NULL),
    seen AS (
        SELECT e.task, count(*) AS n, min(r.created_at) AS oldest
        FROM ended e CROSS JOIN LATERAL (
            SELECT d.created_at FROM outbox.done d WHERE d.task = e.task
            ORDER BY d.task, d.finished_at LIMIT bound + 1) AS r
        WHERE e.task IS NOT NULL GROUP BY e.task),
    sampled AS (
        SELECT d.task, round(count(*) * 100 / done_percent)::bigint AS n
        FROM outbox.done d TABLESAMPLE SYSTEM (done_percent)
        WHERE EXISTS (SELECT FROM seen s WHERE s.n > bound) GROUP BY d.task)
    SELECT s.task, 'done', CASE WHEN s.n > bound THEN greatest(s.n, p.n) ELSE s.n END,
           s.n > bound AND done_percent < 100, s.oldest
    FROM seen s LEFT JOIN sampled p ON p.task = s.task;
END
$$;
COMMENT ON FUNCTION outbox.count_jobs(integer) IS
    'jobs a task and state: exact up to a bound, then an estimate';

-- outbox.count_matching(...): how many of all jobs, live, dead and done, are such; each NULL: any.
--   tasks, states   names
--   key
--   created_before, created_since   when it was enqueued
--   error           this text is in the reason for which it is dead, in any case of letters
--   ended_before, ended_since       when it died, or was done
--   bound           so many are counted at most; of more an estimate is made, from samples of the
--                   tables: of tasks and states by outbox.count_jobs, as that does
-- Returns count; and estimated, whether that is an estimate. With other conditions than tasks and
-- states, what is below the bound is known only when all were read.
-- Errors: 22023 bound is NULL or below 1.
CREATE OR REPLACE FUNCTION outbox.count_matching(
    tasks text[] DEFAULT NULL, states text[] DEFAULT NULL, key text DEFAULT NULL,
    created_before timestamptz DEFAULT NULL, created_since timestamptz DEFAULT NULL,
    error text DEFAULT NULL, ended_before timestamptz DEFAULT NULL,
    ended_since timestamptz DEFAULT NULL, bound integer DEFAULT 10000,
    OUT count bigint, OUT estimated boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    live_percent float8;
    dead_percent float8;
    done_percent float8;
BEGIN
    IF (bound > 0) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'bound is NULL or below 1',
            'Pass how many jobs are to be counted at most.');
    END IF;
    IF num_nonnulls(key, created_before, created_since, error, ended_before, ended_since) = 0 THEN
        SELECT coalesce(sum(c.count), 0), coalesce(bool_or(c.estimated), false)
        INTO count, estimated FROM outbox.count_jobs(bound) c
        WHERE (tasks IS NULL OR c.task = ANY (tasks))
          AND (states IS NULL OR c.state = ANY (states));
        RETURN;
    END IF;
    estimated := false;
    SELECT count(*) INTO count
    FROM (SELECT FROM outbox.jobs j
          WHERE (tasks IS NULL OR j.task = ANY (tasks))
              AND (states IS NULL OR j.state = ANY (states))
              AND (count_matching.key IS NULL OR j.key = count_matching.key)
              AND (created_before IS NULL OR j.created_at < created_before)
              AND (created_since IS NULL OR j.created_at >= created_since)
              AND (error IS NULL OR position(lower(error) IN lower(j.reason)) > 0)
              AND (ended_before IS NULL OR j.finished_at <= ended_before)
              AND (ended_since IS NULL OR j.finished_at >= ended_since)
              AND (error IS NULL AND ended_before IS NULL AND ended_since IS NULL
                   OR j.finished_at IS NOT NULL) -- leaves the live ones alone
          LIMIT bound + 1) AS r;
    IF count <= bound THEN
        RETURN;
    END IF;
    live_percent := outbox.sample_percent('outbox.job');
    dead_percent := outbox.sample_percent('outbox.dead');
    done_percent := outbox.sample_percent('outbox.done');
    SELECT greatest(round(sum(100 / s.percent)), bound + 1), bool_or(s.percent < 100)
    INTO count, estimated
    FROM (SELECT live_percent AS percent, j.task,
                 CASE WHEN j.owner IS NOT NULL THEN 'running'
                      WHEN j.ready_xid IS NOT NULL THEN 'ready'
                      WHEN j.waiting OR j.run_at IS NULL THEN 'waiting'
                      ELSE 'scheduled' END AS state,
                 j.key, j.created_at, NULL::timestamptz AS finished_at, NULL::text AS reason
          FROM outbox.job j TABLESAMPLE SYSTEM (live_percent)
          UNION ALL
          SELECT dead_percent, d.task, 'dead', d.key, d.created_at, d.finished_at, d.reason
          FROM outbox.dead d TABLESAMPLE SYSTEM (dead_percent)
          UNION ALL
          SELECT done_percent, d.task, 'done', d.key, d.created_at, d.finished_at, NULL
          FROM outbox.done d TABLESAMPLE SYSTEM (done_percent)) AS s
    WHERE (tasks IS NULL OR s.task = ANY (tasks))
              AND (states IS NULL OR s.state = ANY (states))
              AND (count_matching.key IS NULL OR s.key = count_matching.key)
              AND (created_before IS NULL OR s.created_at < created_before)
              AND (created_since IS NULL OR s.created_at >= created_since)
              AND (error IS NULL OR position(lower(error) IN lower(s.reason)) > 0)
              AND (ended_before IS NULL OR s.finished_at <= ended_before)
              AND (ended_since IS NULL OR s.finished_at >= ended_since);
    estimated := coalesce(estimated, true); -- none was in the samples
END
$$;
COMMENT ON FUNCTION outbox.count_matching(text[], text[], text, timestamptz, timestamptz, text,
    timestamptz, timestamptz, integer) IS
    'how many jobs match: exact up to a bound, then an estimate';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
