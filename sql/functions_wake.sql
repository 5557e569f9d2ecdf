-- functions_wake.sql: who sleeps asks to be woken, nobody else pays.
-- min_level: 1
--
-- A dispatcher that goes to sleep holds a shared advisory lock a task (outbox.watch). Whoever makes
-- a row of the task ready tries that lock exclusively: it fails when somebody sleeps, and only then
-- is NOTIFY outbox sent. Lock key: (1869968482, hashtext(task)); 1869968482 is 'outb'.

-- outbox.sleeps(task): whether somebody sleeps who handles the task. Internal.
-- Trying and releasing the lock is one expression, because between two statements a cancelled
-- producer would keep it; a second try makes the other producers' tries cost no NOTIFY.
-- No SECURITY DEFINER and no SET, so that it is inlined where it is called: all names are
-- qualified.
CREATE OR REPLACE FUNCTION outbox.sleeps(task text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE
        WHEN CASE WHEN pg_catalog.pg_try_advisory_lock(1869968482, pg_catalog.hashtext(task))
                  THEN pg_catalog.pg_advisory_unlock(1869968482, pg_catalog.hashtext(task))
                  ELSE false END THEN false
        WHEN CASE WHEN pg_catalog.pg_try_advisory_lock(1869968482, pg_catalog.hashtext(task))
                  THEN pg_catalog.pg_advisory_unlock(1869968482, pg_catalog.hashtext(task))
                  ELSE false END THEN false
        ELSE true END
$$;
COMMENT ON FUNCTION outbox.sleeps(text) IS
    'internal: whether a dispatcher sleeps that handles the task';

-- outbox.wake_tasks(tasks, by_hand): sends NOTIFY outbox if somebody sleeps who handles one of the
-- tasks.
--   tasks    names, each once; NULL or empty: nothing happens
--   by_hand  false: the setting outbox.notify = off is obeyed
-- Internal: called by every function that makes rows ready by an update, after the rows have their
-- transaction id.
CREATE OR REPLACE FUNCTION outbox.wake_tasks(tasks text[], by_hand boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF by_hand OR outbox.may_notify() THEN
        PERFORM pg_notify('outbox', '') FROM unnest(tasks) AS t WHERE outbox.sleeps(t) LIMIT 1;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.wake_tasks(text[], boolean) IS
    'internal: sends NOTIFY outbox if a dispatcher sleeps that handles one of the tasks';

-- outbox.may_notify(): false where outbox.notify is off. Internal, and inlined likewise.
CREATE OR REPLACE FUNCTION outbox.may_notify() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(pg_catalog.lower(pg_catalog.current_setting('outbox.notify', true))
                    NOT IN ('off', 'false', 'no', '0'), true)
$$;
COMMENT ON FUNCTION outbox.may_notify() IS 'internal: false where outbox.notify is off';

-- outbox.job_inserted(): the statement trigger of outbox.job: limits (functions_limit.sql), and waking. Rows for later wake too: who sleeps
-- must know when the next one is due. Internal. It runs as the owner, inside the functions that
-- enqueue; without a SET of its own, as it is part of the cost of every job: all names are
-- qualified.
CREATE OR REPLACE FUNCTION outbox.job_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The size of the table: no query for those who have never set a limit.
    IF pg_catalog.pg_relation_size('outbox.task'::pg_catalog.regclass) > 0 THEN
        PERFORM outbox.check_ready(l.tasks)
        FROM (SELECT pg_catalog.array_agg(t.task) AS tasks FROM outbox.task t
              WHERE t.task IN (SELECT n.task FROM new_rows n WHERE n.ready_xid IS NOT NULL)) AS l
        WHERE l.tasks IS NOT NULL;
    END IF;
    IF outbox.may_notify() THEN
        PERFORM pg_catalog.pg_notify('outbox', '')
        FROM (SELECT DISTINCT n.task FROM new_rows n) AS t WHERE outbox.sleeps(t.task) LIMIT 1;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION outbox.job_inserted() IS
    'trigger of outbox.job: wakes sleeping dispatchers for the tasks of rows inserted';

-- Made once: replacing a trigger would lock the table against producers at each upgrade.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
                   WHERE tgrelid = 'outbox.job'::pg_catalog.regclass
                   AND tgname = 'job_inserted') THEN
        CREATE TRIGGER job_inserted AFTER INSERT ON outbox.job
            REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION outbox.job_inserted();
    END IF;
END
$$;

-- outbox.wake(task): wakes by hand the dispatchers that sleep and handle the task, whatever
-- outbox.notify says. For jobs committed where NOTIFY is forbidden (PREPARE TRANSACTION) or was
-- switched off.
--   task  a task name
-- Errors: 22023 not a task name.
CREATE OR REPLACE FUNCTION outbox.wake(task text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$') IS NOT TRUE THEN
        PERFORM outbox.refuse_task('', task);
    END IF;
    PERFORM outbox.wake_tasks(ARRAY[task], true);
END
$$;
COMMENT ON FUNCTION outbox.wake(text) IS
    'wakes the dispatchers that sleep and handle the task, by hand';

-- outbox.watch(tasks): marks this session as asleep for these tasks: from now on, whoever makes a
-- job of one of them ready sends NOTIFY outbox. The caller LISTENs already, and looks once more
-- afterwards.
--   tasks  task names; calling twice stacks, each call needs its outbox.unwatch
CREATE OR REPLACE FUNCTION outbox.watch(tasks text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(1869968482, hashtext(t)) FROM unnest(tasks) AS t;
END
$$;
COMMENT ON FUNCTION outbox.watch(text[]) IS
    'this session sleeps: send it NOTIFY outbox for jobs of these tasks';

-- outbox.unwatch(tasks): the reverse of one outbox.watch with the same tasks. Warns (01000) for a
-- task that this session does not watch.
CREATE OR REPLACE FUNCTION outbox.unwatch(tasks text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_unlock_shared(1869968482, hashtext(t)) FROM unnest(tasks) AS t;
END
$$;
COMMENT ON FUNCTION outbox.unwatch(text[]) IS
    'this session is awake again: undoes one outbox.watch';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
