-- functions_many.sql: outbox.enqueue_many, and what checks its JSON.
-- min_level: 1

-- outbox.check_job(prefix, job, body, has_body): checks one element of enqueue_many. Internal.
-- Errors: those of outbox.check_options and outbox.check_body; 22023 an unknown key, a
-- value of the wrong type or not a time or interval.
CREATE OR REPLACE FUNCTION outbox.check_job(
    prefix text, job jsonb, body bytea, has_body boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    types constant jsonb := '{"task": "string", "payload": "any", "encoding": "string",
        "key": "string", "unique_key": "string", "priority": "integer", "run_at": "time",
        "delay": "interval", "expires_at": "time", "max_attempts": "integer", "headers": "object",
        "repeat_every": "interval", "after": "array", "on_failed_dependency": "string",
        "notify_done": "boolean"}';
    name text;
    value jsonb;
    got text;
BEGIN
    IF (jsonb_typeof(job) = 'object') IS NOT TRUE THEN
        PERFORM outbox.refuse('22023',
            prefix || 'not an object but ' || coalesce(jsonb_typeof(job), 'NULL'),
            'Each job is an object such as {"task": "resize", "payload": {"id": 7}}.');
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(job) LOOP
        got := jsonb_typeof(value);
        IF types ->> name IS NULL THEN
            PERFORM outbox.refuse('22023',
                format('%sunknown key %s', prefix, to_json(left(name, 64))),
                'The keys are task, payload, and the names of outbox.enqueue''s options.');
        ELSIF has_body AND name = 'payload' THEN
            PERFORM outbox.refuse('22023', prefix || 'the key "payload" is given beside payloads',
                'The payload of jobs[i] is the i-th element of payloads; give its "encoding".');
        ELSIF NOT has_body AND name = 'encoding' THEN
            PERFORM outbox.refuse('22023', prefix || 'the key "encoding" is given without payloads',
                'A "payload" in the array is JSON; encoded bytes go into the second argument.');
        ELSIF got = 'null' OR types ->> name IN ('any', got) THEN
            CONTINUE;
        ELSIF types ->> name = 'integer' AND got = 'number' THEN
            IF abs(value::text::numeric) <= 1000000 AND value::text::numeric % 1 = 0 THEN
                CONTINUE;
            END IF;
            PERFORM outbox.refuse('22023',
                format('%s%s is %s', prefix, name, left(value::text, 40)),
                CASE name WHEN 'priority'
                          THEN 'A priority is 1 (first), 2 (the default), 3 or 4 (last).'
                          ELSE 'It is an integer between 1 and 32767.' END);
        ELSIF types ->> name = 'interval' AND got = 'number' THEN
            CONTINUE;
        ELSIF types ->> name IN ('time', 'interval') AND got = 'string' THEN
            CONTINUE;
        END IF;
        PERFORM outbox.refuse('22023', format('%s"%s" is a JSON %s', prefix, name, got),
            'It must be '
            || CASE types ->> name
               WHEN 'interval' THEN 'a number of seconds, or a string such as "90 seconds"'
               WHEN 'time' THEN 'a string such as "2030-01-02T03:04:05Z"'
               WHEN 'integer' THEN 'a whole number'
               ELSE 'a JSON ' || (types ->> name) END || '.');
    END LOOP;
    IF has_body THEN
        PERFORM outbox.check_body(prefix, body, job ->> 'encoding');
    END IF;
    PERFORM outbox.check_options(prefix, job ->> 'task',
        CASE WHEN has_body THEN octet_length(body)
             ELSE octet_length(convert_to(coalesce(job -> 'payload', '{}')::text, 'UTF8')) END,
        job ->> 'key', job ->> 'unique_key', (job ->> 'priority')::numeric::integer,
        outbox.json_time(prefix, 'run_at', job), outbox.json_interval(prefix, 'delay', job),
        outbox.json_time(prefix, 'expires_at', job), (job ->> 'max_attempts')::numeric::integer,
        nullif(job -> 'headers', 'null'), outbox.json_interval(prefix, 'repeat_every', job),
        outbox.json_ids(prefix, job),
        job ->> 'on_failed_dependency', (job ->> 'notify_done')::boolean);
END
$$;
COMMENT ON FUNCTION outbox.check_job(text, jsonb, bytea, boolean) IS
    'internal: raises a precise error if an element of enqueue_many is not acceptable';

-- outbox.json_time(prefix, name, job): the member `name` of job as a time; NULL for none. Internal.
-- Errors: 22023 not a time.
CREATE OR REPLACE FUNCTION outbox.json_time(prefix text, name text, job jsonb) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (job ->> name)::timestamptz;
EXCEPTION WHEN data_exception THEN
    PERFORM outbox.refuse('22023',
        format('%s"%s" is not a time: %s', prefix, name, left((job -> name)::text, 64)),
        'Write it as "2030-01-02T03:04:05Z".');
END
$$;
COMMENT ON FUNCTION outbox.json_time(text, text, jsonb) IS 'internal: a member of a job as a time';

-- outbox.json_interval(prefix, name, job): the member `name` of job, a number of seconds or a
-- string, as an interval; NULL for none. Internal.
-- Errors: 22023 not an interval.
CREATE OR REPLACE FUNCTION outbox.json_interval(prefix text, name text, job jsonb) RETURNS interval
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN jsonb_typeof(job -> name) IS DISTINCT FROM 'number'
                THEN (job ->> name)::interval
                WHEN abs((job ->> name)::numeric) <= 1e10
                THEN make_interval(secs => (job ->> name)::float8)
                -- Older servers overflow silently.
                ELSE ('too large: ' || (job ->> name))::interval END;
EXCEPTION WHEN data_exception THEN
    PERFORM outbox.refuse('22023',
        format('%s"%s" is not an interval: %s', prefix, name, left((job -> name)::text, 64)),
        'Write a number of seconds, or a string such as "90 seconds".');
END
$$;
COMMENT ON FUNCTION outbox.json_interval(text, text, jsonb) IS
    'internal: a member of a job as an interval';

-- outbox.json_ids(prefix, job): the member "after" of job, an array of ids; NULL for none. Internal.
-- Errors: 22023 not an array of whole numbers.
CREATE OR REPLACE FUNCTION outbox.json_ids(prefix text, job jsonb) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF jsonb_typeof(job -> 'after') = 'array' THEN
        RETURN ARRAY(SELECT e::bigint FROM jsonb_array_elements_text(job -> 'after') AS e);
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    PERFORM outbox.refuse('22023',
        format('%s"after" is not an array of ids: %s', prefix, left((job -> 'after')::text, 64)),
        'Pass ids that outbox.enqueue has returned, such as [17, 18].');
END
$$;
COMMENT ON FUNCTION outbox.json_ids(text, jsonb) IS 'internal: the ids that a job is to wait for';

-- outbox.put_many(jobs, payloads, created): enqueue_many when some have to do with other jobs: all
-- are put one by one, in order, under the locks of all their keys. Internal.
-- Unique ones go first, by their unique keys, so that two calls never wait for each other; they
-- have their ids from before, and the lines are opened when all are in them.
CREATE OR REPLACE FUNCTION outbox.put_many(jobs jsonb, payloads bytea[], created timestamptz)
RETURNS TABLE(id bigint, existing boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    has_unique constant boolean := EXISTS (
        SELECT FROM jsonb_array_elements(jobs) AS e(job) WHERE e.job ->> 'unique_key' IS NOT NULL);
    buckets constant integer[] := ARRAY(
        SELECT outbox.key_bucket(e.job ->> 'task', e.job ->> 'key')
        FROM jsonb_array_elements(jobs) AS e(job) WHERE e.job ->> 'key' IS NOT NULL);
BEGIN
    IF cardinality(buckets) > 0 THEN
        PERFORM outbox.lock_keys(buckets);
    END IF;
    RETURN QUERY
    WITH put AS MATERIALIZED (
        SELECT s.n, p.id, p.existing
        FROM (SELECT i.*
              FROM (SELECT e.*, e.job ->> 'unique_key' AS unique_key,
                           CASE WHEN has_unique THEN nextval('outbox.job_id_seq') END AS new_id
                    FROM ROWS FROM (jsonb_array_elements(jobs), unnest(payloads)) WITH ORDINALITY
                        AS e(job, body, n)) AS i
              ORDER BY i.unique_key COLLATE "C",
                       CASE WHEN i.unique_key IS NOT NULL THEN i.job ->> 'task' END COLLATE "C",
                       i.n) AS s
        CROSS JOIN LATERAL outbox.put(
            s.job ->> 'task', (s.job ->> 'priority')::numeric::integer,
            coalesce(s.job ->> 'encoding', 'json'),
            coalesce(s.body, convert_to(coalesce(s.job -> 'payload', '{}')::text, 'UTF8')),
            s.job ->> 'key', s.unique_key,
            coalesce((s.job ->> 'run_at')::timestamptz,
                     created + outbox.json_interval('', 'delay', s.job)),
            (s.job ->> 'expires_at')::timestamptz, (s.job ->> 'max_attempts')::numeric::integer,
            nullif(s.job -> 'headers', 'null'), outbox.json_interval('', 'repeat_every', s.job),
            outbox.json_ids('', s.job), s.job ->> 'on_failed_dependency', (s.job ->> 'notify_done')::boolean, created,
            s.new_id) p)
    SELECT p.id, p.existing FROM put p ORDER BY p.n;
    IF has_unique THEN
        PERFORM outbox.open_line(k.task, k.key)
        FROM (SELECT DISTINCT e.job ->> 'task' AS task, e.job ->> 'key' AS key
              FROM jsonb_array_elements(jobs) AS e(job) WHERE e.job ->> 'key' IS NOT NULL) AS k;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.put_many(jsonb, bytea[], timestamptz) IS
    'internal: enqueues jobs of which some have to do with others';

-- outbox.put_lines(jobs, payloads, created): enqueue_many when some have keys, and none has any other
-- of the options but priority and max_attempts: all with one INSERT. Internal.
-- The locks first, in a statement of their own: the second one sees what the lines are like while
-- they are held. The first of each key looks whether it has to wait; the others wait behind it.
-- Ids are handed out under the locks, so that they, which are the places, are in the order of
-- commits; and in the order of the array.
CREATE OR REPLACE FUNCTION outbox.put_lines(jobs jsonb, payloads bytea[], created timestamptz)
RETURNS TABLE(id bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids bigint[];
    tasks text[];
    ready text[];
BEGIN
    PERFORM outbox.lock_keys(ARRAY(
        SELECT outbox.key_bucket(e.job ->> 'task', e.job ->> 'key')
        FROM jsonb_array_elements(jobs) AS e(job) WHERE e.job ? 'key'));
    WITH given AS MATERIALIZED (
        SELECT s.*, nextval('outbox.job_id_seq') AS new_id
        FROM (SELECT e.job, e.body, e.job ->> 'task' AS task, e.job ->> 'key' AS key, e.n,
                     row_number() OVER (PARTITION BY e.job ->> 'task', e.job ->> 'key'
                                        ORDER BY e.n) AS nth
              FROM ROWS FROM (jsonb_array_elements(jobs), unnest(payloads)) WITH ORDINALITY
                  AS e(job, body, n)
              ORDER BY e.n) AS s),
    lined AS MATERIALIZED ( -- as outbox.key_is_taken
        SELECT g.*, CASE WHEN g.key IS NULL THEN false
                         WHEN g.nth > 1 THEN true
                         ELSE coalesce(behind.found, head.found, blocked.found, false) END AS waits
        FROM given g
        LEFT JOIN LATERAL (
            SELECT true AS found FROM outbox.job j
            WHERE g.nth = 1 AND j.task = g.task AND j.key = g.key
              AND j.place IS NOT NULL AND j.waiting
            ORDER BY j.task DESC, j.key DESC, j.place DESC LIMIT 1) AS behind ON true
        LEFT JOIN LATERAL (
            SELECT true AS found FROM outbox.job j
            WHERE g.nth = 1 AND behind.found IS NULL AND j.task = g.task AND j.key = g.key
              AND j.place IS NOT NULL AND NOT j.waiting
            ORDER BY j.task DESC, j.key DESC, j.place DESC LIMIT 1) AS head ON true
        LEFT JOIN LATERAL (
            SELECT true AS found FROM outbox.dead d
            WHERE g.nth = 1 AND d.task = g.task AND d.key = g.key AND d.blocks
            LIMIT 1) AS blocked ON true),
    made AS (
        INSERT INTO outbox.job AS j (id, task, priority, encoding, payload, key, max_attempts,
                                     created_at, place, waiting, linked, ready_xid)
        OVERRIDING SYSTEM VALUE
        SELECT l.new_id, l.task, coalesce((l.job ->> 'priority')::numeric::smallint, 2),
               coalesce(l.job ->> 'encoding', 'json'),
               coalesce(l.body, convert_to(coalesce(l.job -> 'payload', '{}')::text, 'UTF8')),
               l.key, (l.job ->> 'max_attempts')::numeric::smallint, created,
               CASE WHEN l.key IS NOT NULL THEN l.new_id END, l.waits, l.key IS NOT NULL,
               CASE WHEN NOT l.waits THEN pg_current_xact_id() END
        FROM lined l
        RETURNING j.id, j.task, j.ready_xid)
    SELECT array_agg(m.id ORDER BY m.id), array_agg(m.task),
           array_agg(m.task) FILTER (WHERE m.ready_xid IS NOT NULL)
    INTO ids, tasks, ready FROM made m;
    PERFORM outbox.inserted(tasks, ready);
    RETURN QUERY SELECT i FROM unnest(ids) AS i;
END
$$;
COMMENT ON FUNCTION outbox.put_lines(jsonb, bytea[], timestamptz) IS
    'internal: enqueues jobs of which some have keys, and nothing else to do with others';

-- outbox.enqueue_many(jobs, payloads): enqueues any number of jobs with one INSERT.
--   jobs      JSON array of objects. Keys: "task"; "payload" (any JSON, default {}); the options of
--             outbox.enqueue by name (delay: a string, or a number of seconds; times: strings)
--   payloads  NULL, or as many encoded payloads as there are jobs: the i-th is the payload of
--             jobs[i], which then has "encoding" ('json' or 'msgpack') instead of "payload"
-- Returns a row a job, in order: its id, and existing: whether it was there already
-- (unique_key).
-- Errors: as outbox.enqueue and outbox.enqueue_bytes, the message beginning with the first bad
-- element's position from 0: jobs[3]: unknown key "prio". Nothing is enqueued then.
CREATE OR REPLACE FUNCTION outbox.enqueue_many(jobs jsonb, payloads bytea[] DEFAULT NULL)
RETURNS TABLE(id bigint, existing boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    has_body constant boolean := payloads IS NOT NULL;
    has_keys boolean;
    is_linked boolean := false;
    is_plain boolean := true;
    created timestamptz;
    job jsonb;
    body bytea;
    n bigint;
    ids bigint[];
    tasks text[];
    ready text[];
BEGIN
    IF (jsonb_typeof(jobs) = 'array') IS NOT TRUE THEN
        PERFORM outbox.refuse('22023',
            'jobs is not a JSON array but ' || coalesce(jsonb_typeof(jobs), 'NULL'),
            'Pass an array of objects such as [{"task": "resize", "payload": {"id": 7}}].');
    ELSIF has_body AND cardinality(payloads) <> jsonb_array_length(jobs) THEN
        PERFORM outbox.refuse('22023',
            format('payloads has %s elements, jobs has %s', cardinality(payloads),
                   jsonb_array_length(jobs)),
            'Pass a payload for each job, in the same order.');
    END IF;
    -- What this does not recognise as surely right is looked at closely, one by one.
    FOR job, body, n IN
        SELECT e.job, e.body, e.n
        FROM ROWS FROM (jsonb_array_elements(jobs), unnest(payloads))
             WITH ORDINALITY AS e(job, body, n)
        WHERE (CASE WHEN jsonb_typeof(e.job) = 'object'
                     AND e.job - '{task,payload,encoding,priority,max_attempts,key}'::text[] = '{}'
                    THEN jsonb_typeof(e.job -> 'task') = 'string'
                     AND e.job ->> 'task' ~ '^[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}$'
                     AND coalesce(e.job -> 'priority', '2') IN ('1', '2', '3', '4')
                     AND coalesce(jsonb_typeof(e.job -> 'max_attempts') = 'number'
                              AND e.job ->> 'max_attempts' ~ '^[1-9][0-9]{0,3}$',
                              NOT e.job ? 'max_attempts')
                     AND coalesce(jsonb_typeof(e.job -> 'key') = 'string'
                              AND octet_length(e.job ->> 'key') BETWEEN 1 AND 1024,
                              NOT e.job ? 'key')
                     AND CASE WHEN has_body
                              THEN NOT e.job ? 'payload' AND e.job -> 'encoding' = '"msgpack"'
                                   AND octet_length(e.body) <= 16777216
                              ELSE NOT e.job ? 'encoding'
                                   AND coalesce(octet_length((e.job -> 'payload')::text), 2)
                                       <= 4194304 END
               END) IS NOT TRUE
    LOOP
        is_plain := false;
        PERFORM outbox.check_job(format('jobs[%s]: ', n - 1), job, body, has_body);
        is_linked := is_linked OR job ?| '{key,unique_key,repeat_every,after,notify_done}';
    END LOOP;
    PERFORM pg_current_xact_id(); -- first: what is due before it began is ready, not scheduled
    created := clock_timestamp();
    has_keys := jsonb_path_exists(jobs, '$[*].key');
    IF is_linked OR has_keys AND NOT is_plain THEN
        RETURN QUERY SELECT * FROM outbox.put_many(jobs, payloads, created);
        RETURN;
    ELSIF has_keys THEN
        RETURN QUERY SELECT p.id, false FROM outbox.put_lines(jobs, payloads, created) p;
        RETURN;
    END IF;
    WITH made AS (
        INSERT INTO outbox.job AS j (task, priority, encoding, payload, headers, run_at, expires_at,
                                     max_attempts, created_at, ready_xid)
        SELECT e.job ->> 'task', coalesce((e.job ->> 'priority')::numeric::smallint, 2),
               CASE WHEN has_body THEN e.job ->> 'encoding' ELSE 'json' END,
               CASE WHEN has_body THEN e.body
                    ELSE convert_to(coalesce(e.job -> 'payload', '{}')::text, 'UTF8') END,
               nullif(e.job -> 'headers', 'null'), d.due, (e.job ->> 'expires_at')::timestamptz,
               (e.job ->> 'max_attempts')::numeric::smallint, created,
               CASE WHEN d.due > created THEN NULL ELSE pg_current_xact_id() END
        FROM ROWS FROM (jsonb_array_elements(jobs), unnest(payloads))
             WITH ORDINALITY AS e(job, body, n)
        CROSS JOIN LATERAL (
            SELECT coalesce((e.job ->> 'run_at')::timestamptz,
                created + CASE jsonb_typeof(e.job -> 'delay')
                          WHEN 'number' THEN make_interval(secs => (e.job ->> 'delay')::float8)
                          ELSE (e.job ->> 'delay')::interval END) AS due) AS d
        ORDER BY e.n
        RETURNING j.id, j.task, j.ready_xid)
    SELECT array_agg(m.id ORDER BY m.id), array_agg(m.task),
           array_agg(m.task) FILTER (WHERE m.ready_xid IS NOT NULL)
    INTO ids, tasks, ready FROM made m;
    PERFORM outbox.inserted(tasks, ready);
    RETURN QUERY SELECT i, false FROM unnest(ids) AS i;
END
$$;
COMMENT ON FUNCTION outbox.enqueue_many(jsonb, bytea[]) IS
    'enqueues the jobs of a JSON array with one INSERT; returns their ids in order';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
