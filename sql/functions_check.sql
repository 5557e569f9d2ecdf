-- functions_check.sql: what is wrong with a job, exactly. Internal: the enqueue functions test the
-- common case in one expression and come here when it does not hold; nobody else may call these.
-- min_level: 1
--
-- `prefix` begins every message: '' or, for enqueue_many, 'jobs[3]: '.

-- outbox.refuse(code, message, hint): raises it.
CREATE OR REPLACE FUNCTION outbox.refuse(code text, message text, hint text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint;
END
$$;
COMMENT ON FUNCTION outbox.refuse(text, text, text) IS
    'internal: raises an error with SQLSTATE and hint';

-- outbox.refuse_task(prefix, task): says that this is not a task name.
-- Errors: 22023, always.
CREATE OR REPLACE FUNCTION outbox.refuse_task(prefix text, task text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.refuse('22023',
        CASE WHEN task IS NULL THEN prefix || 'the task is NULL'
             ELSE prefix || 'not a task name: ' || to_json(left(task, 140))::text END,
        'A task name has 1 to 128 characters of A-Z a-z 0-9 . _ : - '
        'and begins with a letter, a digit or _.');
END
$$;
COMMENT ON FUNCTION outbox.refuse_task(text, text) IS
    'internal: raises the error for a bad task name';

-- outbox.check_options(...): checks a whole job, its payload by its size.
-- Errors: 22004 no payload, 22023 a value out of range or two that exclude each other, 54000 over a
-- limit of size.
CREATE OR REPLACE FUNCTION outbox.check_options(
    prefix text, task text, payload_bytes integer, key text, unique_key text, priority integer,
    run_at timestamptz, delay interval, expires_at timestamptz, max_attempts integer, headers jsonb,
    repeat_every interval, after bigint[], on_failed_dependency text, notify_done boolean)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (task ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$') IS NOT TRUE THEN
        PERFORM outbox.refuse_task(prefix, task);
    ELSIF payload_bytes IS NULL THEN
        PERFORM outbox.refuse('22004', prefix || 'the payload is NULL',
            'Leave the payload out for {}, or pass ''null''::jsonb for a JSON null.');
    ELSIF payload_bytes > 16777216 THEN
        PERFORM outbox.refuse('54000',
            format('%sthe payload has %s bytes, the limit is 16777216 (16 MiB)', prefix,
                   payload_bytes),
            'Store the data elsewhere and enqueue a reference to it.');
    ELSIF octet_length(key) NOT BETWEEN 1 AND 1024 THEN
        PERFORM outbox.refuse('22023', format('%skey has %s bytes', prefix, octet_length(key)),
            'A key has 1 to 1024 bytes; leave it out for a job without order.');
    ELSIF octet_length(unique_key) NOT BETWEEN 1 AND 1024 THEN
        PERFORM outbox.refuse('22023',
            format('%sunique_key has %s bytes', prefix, octet_length(unique_key)),
            'A unique key has 1 to 1024 bytes; leave it out for a job that may be there twice.');
    ELSIF repeat_every <= interval '0' OR repeat_every > interval '1000 years' THEN
        PERFORM outbox.refuse('22023', format('%srepeat_every is %s', prefix, repeat_every),
            'It is the time from a success to the next run: more than 0, up to 1000 years.');
    ELSIF array_ndims(after) > 1 OR cardinality(after) > 1000
          OR array_position(after, NULL) IS NOT NULL THEN
        PERFORM outbox.refuse('22023',
            prefix || 'after is not a list of up to 1000 ids of jobs, or contains NULL',
            'Pass ids that outbox.enqueue has returned.');
    ELSIF on_failed_dependency NOT IN ('run', 'dead') THEN
        PERFORM outbox.refuse('22023',
            format('%sunknown on_failed_dependency %s', prefix,
                   to_json(left(on_failed_dependency, 40))),
            'It is ''dead'' (the default: the job is dead, too) or ''run''.');
    ELSIF priority NOT BETWEEN 1 AND 4 THEN
        PERFORM outbox.refuse('22023', format('%spriority is %s', prefix, priority),
            'A priority is 1 (first), 2 (the default), 3 or 4 (last).');
    ELSIF max_attempts NOT BETWEEN 1 AND 32767 THEN
        PERFORM outbox.refuse('22023', format('%smax_attempts is %s', prefix, max_attempts),
            'It is between 1 and 32767; leave it out for the limit of the task''s configuration.');
    ELSIF jsonb_typeof(headers) <> 'object' THEN
        PERFORM outbox.refuse('22023',
            format('%sheaders is a JSON %s', prefix, jsonb_typeof(headers)),
            'It must be a JSON object, such as {"traceparent": "..."}.');
    ELSIF octet_length(headers::text) > 8192 THEN
        PERFORM outbox.refuse('54000',
            format('%sheaders has %s bytes, the limit is 8192', prefix,
                   octet_length(headers::text)),
            'Put data for the handler into the payload.');
    END IF;
    PERFORM outbox.check_times(prefix, run_at, delay, expires_at);
    IF cardinality(after) > 0 THEN
        PERFORM outbox.check_after(prefix, after);
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_options(text, text, integer, text, text, integer, timestamptz,
    interval, timestamptz, integer, jsonb, interval, bigint[], text, boolean) IS
    'internal: raises a precise error if a job''s options are not acceptable';

-- outbox.check_after(prefix, after): the jobs to wait for: each id was given out before.
-- Errors: 23503.
CREATE OR REPLACE FUNCTION outbox.check_after(prefix text, after bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown bigint;
BEGIN
    SELECT u INTO unknown FROM unnest(after) AS u, outbox.job_id_seq s
    WHERE u < 1 OR u > s.last_value OR NOT s.is_called LIMIT 1;
    IF FOUND THEN
        PERFORM outbox.refuse('23503', format('%safter: there is no job %s', prefix, unknown),
            'A job can wait for jobs that exist: pass ids that outbox.enqueue has returned.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_after(text, bigint[]) IS
    'internal: raises an error if a job is to wait for one that never was';

-- outbox.check_times(prefix, run_at, delay, expires_at): the options about time.
-- Errors: 22023.
CREATE OR REPLACE FUNCTION outbox.check_times(
    prefix text, run_at timestamptz, delay interval, expires_at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF run_at IS NOT NULL AND delay IS NOT NULL THEN
        PERFORM outbox.refuse('22023', prefix || 'run_at and delay are both given',
            'Give run_at (a time) or delay (an interval from now).');
    ELSIF NOT isfinite(run_at) THEN
        PERFORM outbox.refuse('22023', prefix || 'run_at is not finite',
            'Give a time, or leave it out.');
    ELSIF delay < interval '0' THEN
        PERFORM outbox.refuse('22023', prefix || 'delay is negative',
            'Give an interval from now, or leave it out.');
    ELSIF delay > interval '1000 years' THEN
        PERFORM outbox.refuse('22023', prefix || 'delay is over 1000 years',
            'Give an interval from now, or leave it out.');
    ELSIF NOT isfinite(expires_at) THEN
        PERFORM outbox.refuse('22023', prefix || 'expires_at is not finite',
            'Leave it out for a job that never expires.');
    ELSIF expires_at <= coalesce(run_at, clock_timestamp() + delay) THEN
        PERFORM outbox.refuse('22023', prefix || 'the job would expire before it may run',
            'Give an expires_at that is later than run_at, or than now + delay.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_times(text, timestamptz, interval, timestamptz) IS
    'internal: raises a precise error if run_at, delay and expires_at are not acceptable';

-- outbox.check_body(prefix, payload, encoding): checks what enqueue_bytes is given.
-- Errors: 22004 NULL, 22023 unknown encoding, 22P02 said to be JSON and is not, or is not UTF-8.
CREATE OR REPLACE FUNCTION outbox.check_body(prefix text, payload bytea, encoding text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    why text;
BEGIN
    IF payload IS NULL THEN
        PERFORM outbox.refuse('22004', prefix || 'the payload is NULL', 'Pass the encoded bytes.');
    ELSIF (encoding IN ('json', 'msgpack')) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023',
            prefix || 'unknown encoding ' || coalesce(to_json(left(encoding, 40))::text, 'NULL'),
            'The encoding is ''json'' or ''msgpack''.');
    ELSIF encoding = 'json' AND octet_length(payload) <= 16777216 THEN
        BEGIN
            PERFORM convert_from(payload, 'UTF8')::json;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
        END;
        IF why IS NOT NULL THEN
            PERFORM outbox.refuse('22P02', prefix || 'the payload is not JSON in UTF-8: ' || why,
                'Pass one whole JSON value, or encoding ''msgpack'' for MessagePack.');
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_body(text, bytea, text) IS
    'internal: raises a precise error if a payload is not what its encoding says';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
