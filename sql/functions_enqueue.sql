-- functions_enqueue.sql: what producers call, inside their own transactions.
-- min_level: 1
--
-- The job exists if and only if the transaction (or savepoint) of the call commits. All three names
-- have all options from the beginning: a later overload or default would make today's calls
-- ambiguous.
--
-- Options, the same everywhere (NULL always means the default):
--   key           1 to 1024 bytes: jobs of one task and key run one at a time, in the order in
--                 which they were committed (those for later: in which they fell due). Holds the
--                 key's lock until the transaction ends: others who enqueue for it wait
--   unique_key    1 to 1024 bytes: while a job of the task with this key waits (ready, scheduled, or
--                 behind another job; not one that runs), no second one is put: the call returns
--                 the id of that one, which is not begun before our transaction has ended
--   repeat_every  so long after each success it is to run again; more than 0
--   after         up to 1000 ids of jobs: it runs when all of them have succeeded. One that is done
--                 already counts as that; when one is dead or cancelled, it is dead too
--   on_failed_dependency  'run': then it runs all the same; 'dead' (default)
--   notify_done   true: its end is told by NOTIFY outbox_done, 'ID STATE'; state: done, dead,
--                 cancelled, or merged (into a newer job with its unique key)
--   priority      1 (first) to 4 (last); default 2
--   run_at        not before this time; a time in the past means now
--   delay         the same as an interval from now, not negative; excludes run_at
--   expires_at    from then on it is not run any more, but put aside as dead
--   max_attempts  1 to 32767; default: as the task is configured
--   headers       JSON object of at most 8 KiB, handed through to the handler
-- Errors, the same everywhere: 22023 bad task name, value out of range, options that exclude each
--   other; 22004 NULL payload; 54000 payload over 16 MiB or headers over 8 KiB; 23503 after
--   names a job that never was; 0A000 key or after at another isolation level than READ COMMITTED.

-- outbox.enqueue(task, payload, options...): enqueues a job with a JSON payload.
--   task     1 to 128 characters of A-Z a-z 0-9 . _ : - beginning with a letter, a digit or _
--   payload  any JSON value; at most 16 MiB as text
-- Returns the job's id; with a unique_key, that of a waiting job that has it.
CREATE OR REPLACE FUNCTION outbox.enqueue(
    task text, payload jsonb DEFAULT '{}', key text DEFAULT NULL, unique_key text DEFAULT NULL,
    priority integer DEFAULT 2, run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    headers jsonb DEFAULT NULL, repeat_every interval DEFAULT NULL, after bigint[] DEFAULT NULL,
    on_failed_dependency text DEFAULT NULL, notify_done boolean DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    created timestamptz := clock_timestamp();
    due timestamptz;
    body bytea := convert_to(payload::text, 'UTF8');
    new_id bigint;
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$' AND octet_length(body) <= 16777216
        AND priority BETWEEN 1 AND 4 AND notify_done IS NOT TRUE
        AND num_nonnulls(key, unique_key, run_at, delay, expires_at, max_attempts, headers,
                         repeat_every, after, on_failed_dependency) = 0) IS NOT TRUE
    THEN
        PERFORM outbox.check_options('', task, octet_length(body), key, unique_key, priority,
            run_at, delay, expires_at, max_attempts, headers, repeat_every, after,
            on_failed_dependency, notify_done);
        PERFORM pg_current_xact_id(); -- first: what is due before it began is ready, not scheduled
        created := clock_timestamp();
        due := coalesce(run_at, created + delay);
        IF num_nonnulls(key, unique_key, repeat_every, after) > 0 OR notify_done THEN
            SELECT p.id INTO new_id
            FROM outbox.put(task, priority, 'json', body, key, unique_key, due, expires_at,
                max_attempts, headers, repeat_every, after, on_failed_dependency, notify_done,
                created, NULL) p;
            RETURN new_id;
        END IF;
    END IF;
    INSERT INTO outbox.job (task, priority, encoding, payload, headers, run_at, expires_at,
                            max_attempts, created_at, ready_xid)
    VALUES (task, coalesce(priority, 2), 'json', body, headers, due, expires_at, max_attempts,
            created, CASE WHEN due > created THEN NULL ELSE pg_current_xact_id() END)
    RETURNING job.id INTO new_id;
    IF outbox.is_awaited(task) THEN
        PERFORM outbox.inserted(ARRAY[task], CASE WHEN (due > created) IS NOT TRUE THEN ARRAY[task] END);
    END IF;
    RETURN new_id;
END
$$;
COMMENT ON FUNCTION outbox.enqueue(text, jsonb, text, text, integer, timestamptz, interval,
    timestamptz, integer, jsonb, interval, bigint[], text, boolean) IS
    'enqueues a job with a JSON payload in the caller''s transaction; returns its id';

-- outbox.enqueue_bytes(task, payload, encoding, options...): the same with a payload that is
-- already encoded, and stored as it is.
--   payload   the bytes; at most 16 MiB
--   encoding  'json' (checked: one JSON value in UTF-8) or 'msgpack' (not looked at)
-- Returns id, and existing: whether the job was there already (unique_key).
-- Errors: as above; 22023 unknown encoding; 22P02 not JSON, not UTF-8.
CREATE OR REPLACE FUNCTION outbox.enqueue_bytes(
    task text, payload bytea, encoding text, key text DEFAULT NULL, unique_key text DEFAULT NULL,
    priority integer DEFAULT 2, run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    headers jsonb DEFAULT NULL, repeat_every interval DEFAULT NULL, after bigint[] DEFAULT NULL,
    on_failed_dependency text DEFAULT NULL, notify_done boolean DEFAULT NULL,
    OUT id bigint, OUT existing boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    created timestamptz := clock_timestamp();
    due timestamptz;
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$' AND octet_length(payload) <= 16777216
        AND encoding = 'msgpack' AND priority BETWEEN 1 AND 4 AND notify_done IS NOT TRUE
        AND num_nonnulls(key, unique_key, run_at, delay, expires_at, max_attempts, headers,
                         repeat_every, after, on_failed_dependency) = 0) IS NOT TRUE
    THEN
        PERFORM outbox.check_body('', payload, encoding);
        PERFORM outbox.check_options('', task, octet_length(payload), key, unique_key, priority,
            run_at, delay, expires_at, max_attempts, headers, repeat_every, after,
            on_failed_dependency, notify_done);
        PERFORM pg_current_xact_id(); -- first: what is due before it began is ready, not scheduled
        created := clock_timestamp();
        due := coalesce(run_at, created + delay);
        IF num_nonnulls(key, unique_key, repeat_every, after) > 0 OR notify_done THEN
            SELECT p.id, p.existing INTO id, existing
            FROM outbox.put(task, priority, encoding, payload, key, unique_key, due, expires_at,
                max_attempts, headers, repeat_every, after, on_failed_dependency, notify_done,
                created, NULL) p;
            RETURN;
        END IF;
    END IF;
    INSERT INTO outbox.job (task, priority, encoding, payload, headers, run_at, expires_at,
                            max_attempts, created_at, ready_xid)
    VALUES (task, coalesce(priority, 2), encoding, payload, headers, due, expires_at, max_attempts,
            created, CASE WHEN due > created THEN NULL ELSE pg_current_xact_id() END)
    RETURNING job.id INTO enqueue_bytes.id;
    IF outbox.is_awaited(task) THEN
        PERFORM outbox.inserted(ARRAY[task], CASE WHEN (due > created) IS NOT TRUE THEN ARRAY[task] END);
    END IF;
    existing := false;
END
$$;
COMMENT ON FUNCTION outbox.enqueue_bytes(text, bytea, text, text, text, integer, timestamptz,
    interval, timestamptz, integer, jsonb, interval, bigint[], text, boolean) IS
    'enqueues a job whose payload is encoded already (json or msgpack), like outbox.enqueue';

-- outbox.enqueue_plain(task, payload, encoding): outbox.enqueue_bytes of a job without options, as
-- <outbox/outbox.h> calls it: in less time than a plain INSERT whose plan the server has to make.
-- Parameters with defaults have it read their expressions from the catalog's text, twice, in each
-- call that is not prepared; a row as the result costs as much again; a SET of its own as much as
-- a statement. So all names here are qualified, operators and types too.
-- Returns the job's id. Errors: as outbox.enqueue_bytes.
CREATE OR REPLACE FUNCTION outbox.enqueue_plain(task text, payload bytea, encoding text)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    created constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    new_id pg_catalog.int8;
BEGIN
    IF (task OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$'
        AND pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) 16777216
        AND (encoding OPERATOR(pg_catalog.=) 'msgpack'
             OR encoding OPERATOR(pg_catalog.=) 'json' AND payload OPERATOR(pg_catalog.=) '{}'))
        IS NOT TRUE
    THEN
        SELECT b.id INTO new_id FROM outbox.enqueue_bytes(task, payload, encoding) b;
        RETURN new_id;
    END IF;
    INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
    VALUES (task, encoding, payload, created, pg_catalog.pg_current_xact_id())
    RETURNING job.id INTO new_id;
    IF outbox.is_awaited(task) THEN
        PERFORM outbox.inserted(ARRAY[task], ARRAY[task]);
    END IF;
    RETURN new_id;
END
$$;
COMMENT ON FUNCTION outbox.enqueue_plain(text, bytea, text) IS
    'enqueues a job without options whose payload is encoded already (json or msgpack)';

-- outbox.enqueue_row(): trigger function that enqueues a job a row, for programs that can't be
-- changed.
--   CREATE TRIGGER ... AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
--       EXECUTE FUNCTION outbox.enqueue_row('task');
--   CREATE TRIGGER ... AFTER INSERT ON t REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
--       EXECUTE FUNCTION outbox.enqueue_row('task');      (one INSERT for all its rows)
-- The payload is the new row as a JSON object; on DELETE the old row (statement form: OLD TABLE AS
-- old_rows). Its one argument is the task.
-- Errors: 39P01 a BEFORE or TRUNCATE trigger, not exactly one argument, or a statement trigger
-- without its transition table; 22023 bad task name; 54000 a row over 16 MiB.
CREATE OR REPLACE FUNCTION outbox.enqueue_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    created timestamptz := clock_timestamp();
    rows_name text := CASE TG_OP WHEN 'DELETE' THEN 'old_rows' ELSE 'new_rows' END;
    body bytea;
BEGIN
    IF TG_WHEN <> 'AFTER' OR TG_OP = 'TRUNCATE' OR TG_NARGS <> 1 THEN
        PERFORM outbox.refuse('39P01',
            format('trigger %I: outbox.enqueue_row is used wrongly', TG_NAME),
            'Use it AFTER INSERT, UPDATE or DELETE, with the task as its one argument.');
    ELSIF (TG_ARGV[0] ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$') IS NOT TRUE THEN
        PERFORM outbox.refuse_task(format('trigger %I: ', TG_NAME), TG_ARGV[0]);
    END IF;
    IF TG_LEVEL = 'ROW' THEN
        body := convert_to((CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD)
                                       ELSE to_jsonb(NEW) END)::text, 'UTF8');
        IF octet_length(body) > 16777216 THEN
            PERFORM outbox.check_options(format('trigger %I: ', TG_NAME), TG_ARGV[0],
                octet_length(body), NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                NULL);
        END IF;
        INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
        VALUES (TG_ARGV[0], 'json', body, created, pg_current_xact_id());
        IF outbox.is_awaited(TG_ARGV[0]) THEN
            PERFORM outbox.inserted(ARRAY[TG_ARGV[0]], ARRAY[TG_ARGV[0]]);
        END IF;
        RETURN NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
                   AND rows_name IN (t.tgnewtable, t.tgoldtable)) THEN
        PERFORM outbox.refuse('39P01',
            format('trigger %I has no transition table %s', TG_NAME, rows_name),
            format('Create it with REFERENCING %s TABLE AS %s, or FOR EACH ROW.',
                   CASE TG_OP WHEN 'DELETE' THEN 'OLD' ELSE 'NEW' END, rows_name));
    ELSIF TG_OP = 'DELETE' THEN
        -- OFFSET 0: each row is converted once. check_options raises the error.
        INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
        SELECT TG_ARGV[0], 'json', b.body, created, pg_current_xact_id()
        FROM old_rows r
        CROSS JOIN LATERAL (SELECT convert_to(to_jsonb(r)::text, 'UTF8') AS body OFFSET 0) AS b
        WHERE octet_length(b.body) <= 16777216
           OR outbox.check_options(format('trigger %I: ', TG_NAME), TG_ARGV[0],
                  octet_length(b.body), NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                  NULL, NULL) IS NULL;
    ELSE
        INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
        SELECT TG_ARGV[0], 'json', b.body, created, pg_current_xact_id()
        FROM new_rows r
        CROSS JOIN LATERAL (SELECT convert_to(to_jsonb(r)::text, 'UTF8') AS body OFFSET 0) AS b
        WHERE octet_length(b.body) <= 16777216
           OR outbox.check_options(format('trigger %I: ', TG_NAME), TG_ARGV[0],
                  octet_length(b.body), NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                  NULL, NULL) IS NULL;
    END IF;
    IF FOUND AND outbox.is_awaited(TG_ARGV[0]) THEN
        PERFORM outbox.inserted(ARRAY[TG_ARGV[0]], ARRAY[TG_ARGV[0]]);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION outbox.enqueue_row() IS
    'trigger function: enqueues a job a row, payload the row as JSON; argument: the task';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
