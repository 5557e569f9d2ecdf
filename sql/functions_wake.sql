-- functions_wake.sql: who sleeps asks to be woken, nobody else pays.
-- min_level: 1
--
-- A dispatcher that goes to sleep holds a shared advisory lock a task (outbox.watch). Whoever makes
-- a row of the task ready tries that lock exclusively: it fails when somebody sleeps, and only then
-- is NOTIFY outbox sent. Lock key: (1869968482, hashtext(task)); 1869968482 is 'outb'.

-- outbox.sleeps(task): whether somebody sleeps who handles the task; or another producer tries the
-- lock at this moment. Internal.
-- Trying and releasing the lock is one expression, because between two statements a cancelled
-- producer would keep it. No SECURITY DEFINER and no SET, so that it is inlined where it is called:
-- all names are qualified, operators too.
CREATE OR REPLACE FUNCTION outbox.sleeps(task text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_catalog.pg_try_advisory_lock(1869968482, pg_catalog.hashtext(task))
                THEN NOT pg_catalog.pg_advisory_unlock(1869968482, pg_catalog.hashtext(task))
                ELSE true END
$$;
COMMENT ON FUNCTION outbox.sleeps(text) IS
    'internal: whether a dispatcher sleeps that handles the task';

-- outbox.wake_tasks(tasks, by_hand): sends NOTIFY outbox if somebody sleeps who handles one of the
-- tasks.
--   tasks    names, as often as they come; NULL or empty: nothing happens
--   by_hand  false: the setting outbox.notify = off is obeyed
-- Internal: called by every function that makes rows ready by an update, after the rows have their
-- transaction id. It asks twice: so other producers, who try the same lock, cost no NOTIFY.
CREATE OR REPLACE FUNCTION outbox.wake_tasks(tasks text[], by_hand boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF by_hand OR outbox.may_notify() THEN
        PERFORM pg_notify('outbox', '') FROM (SELECT DISTINCT u.t FROM unnest(tasks) AS u(t)) AS d
        WHERE outbox.sleeps(t) AND outbox.sleeps(t) LIMIT 1;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.wake_tasks(text[], boolean) IS
    'internal: sends NOTIFY outbox if a dispatcher sleeps that handles one of the tasks';

-- outbox.may_notify(): false where outbox.notify is off. Internal, and inlined likewise.
CREATE OR REPLACE FUNCTION outbox.may_notify() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(pg_catalog.lower(pg_catalog.current_setting('outbox.notify', true))
                    OPERATOR(pg_catalog.<>) ALL ('{off,false,no,0}'::pg_catalog.text[]), true)
$$;
COMMENT ON FUNCTION outbox.may_notify() IS 'internal: false where outbox.notify is off';

-- outbox.has_limits(): whether any task has, or had, a limit (functions_limit.sql). The sequence of
-- their numbers tells, without a query. Internal, and inlined likewise.
CREATE OR REPLACE FUNCTION outbox.has_limits() RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT pg_catalog.pg_sequence_last_value('outbox.task_number_seq'::pg_catalog.regclass)
           IS NOT NULL
$$;
COMMENT ON FUNCTION outbox.has_limits() IS 'internal: whether any task has a limit';

-- outbox.is_awaited(task): whether somebody may have to hear of a new job of the task; then
-- outbox.inserted is called. Internal, and inlined likewise: after the row was inserted, it is all
-- that waking costs a job while nobody sleeps.
CREATE OR REPLACE FUNCTION outbox.is_awaited(task text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT outbox.has_limits() OR outbox.may_notify() AND outbox.sleeps(task)
$$;
COMMENT ON FUNCTION outbox.is_awaited(text) IS
    'internal: whether somebody has to hear of a new job of the task';

-- outbox.inserted(tasks, ready): rows of these tasks were inserted, among them some that are ready of
-- the tasks in `ready`: limits, and waking. For rows for later too: who sleeps must know when the
-- next one is due. Internal: called by every function that inserts rows, after they have their
-- transaction id.
CREATE OR REPLACE FUNCTION outbox.inserted(tasks text[], ready text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF outbox.has_limits() THEN
        PERFORM outbox.check_ready(l.tasks)
        FROM (SELECT array_agg(t.task) AS tasks FROM outbox.task t
              WHERE t.task IN (SELECT u.task FROM unnest(ready) AS u(task))) AS l
        WHERE l.tasks IS NOT NULL;
    END IF;
    PERFORM outbox.wake_tasks(tasks, false);
END
$$;
COMMENT ON FUNCTION outbox.inserted(text[], text[]) IS
    'internal: checks limits and wakes sleeping dispatchers after rows of these tasks were inserted';

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
