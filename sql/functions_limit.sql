-- functions_limit.sql: what is set for a task in the database: how many jobs of it may be ready.
-- min_level: 1

-- outbox.set_task(task, max_ready): refuses new jobs of the task while so many are ready; NULL: no
-- limit. Holds for transactions that enqueue from its commit on.
-- Errors: 22023 not a task name, or a limit below 1.
CREATE OR REPLACE FUNCTION outbox.set_task(task text, max_ready integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$') IS NOT TRUE THEN
        PERFORM outbox.refuse_task('', task);
    ELSIF max_ready < 1 THEN
        PERFORM outbox.refuse('22023', format('max_ready is %s', max_ready),
            'It is at least 1; NULL for no limit.');
    END IF;
    IF max_ready IS NULL THEN
        DELETE FROM outbox.task t WHERE t.task = set_task.task;
        RETURN;
    END IF;
    INSERT INTO outbox.task AS t (task, max_ready) VALUES (set_task.task, set_task.max_ready)
    ON CONFLICT ON CONSTRAINT task_pkey DO UPDATE SET max_ready = excluded.max_ready
    WHERE t.max_ready <> excluded.max_ready;
END
$$;
COMMENT ON FUNCTION outbox.set_task(text, integer) IS
    'limits how many jobs of a task may be ready: further ones are refused';

-- outbox.check_ready(tasks): Internal: after rows of these tasks, which have limits, were inserted.
-- One transaction at a time, so that each counts what the others have committed.
-- Errors: 53400 there are more than the limit; 0A000 a snapshot that does not show the others.
CREATE OR REPLACE FUNCTION outbox.check_ready(tasks text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    limited record;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        PERFORM outbox.refuse('0A000',
            format('jobs of task %s, which has a limit, cannot be put at isolation level %s',
                   tasks[1], current_setting('transaction_isolation')),
            'They are counted with what others committed a moment ago: use READ COMMITTED for this '
            'transaction.');
    END IF;
    PERFORM pg_advisory_xact_lock(1869968492, hashtext(s.task))
    FROM (SELECT u.task FROM unnest(tasks) AS u(task) ORDER BY hashtext(u.task)) AS s;
    FOR limited IN SELECT t.task, t.max_ready FROM outbox.task t WHERE t.task = ANY (tasks) LOOP
        IF (SELECT count(*) FROM (
                SELECT FROM outbox.job j
                WHERE j.task = limited.task AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                LIMIT limited.max_ready + 1) AS r) > limited.max_ready THEN
            PERFORM outbox.refuse('53400',
                format('task %s has its limit of %s ready jobs', limited.task, limited.max_ready),
                'Try again when some of them have run, or raise the limit with outbox.set_task.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION outbox.check_ready(text[]) IS
    'internal: raises an error if a task has more ready jobs than its limit';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
