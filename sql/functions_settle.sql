-- functions_settle.sql: what became of claimed jobs.
-- min_level: 1

-- outbox.answers(ids, claims, held_ids, held_claims): the answer for each (id, claim), in their
-- order: 'done' for those held, 'lost' where the row is there under another claim, 'gone' where
-- there is none. Internal: called after the work, in the same transaction.
CREATE OR REPLACE FUNCTION outbox.answers(
    ids bigint[], claims bigint[], held_ids bigint[], held_claims bigint[])
RETURNS TABLE(id bigint, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = on SET jit = off AS $$
BEGIN
    IF cardinality(ids) = cardinality(held_ids) THEN
        RETURN QUERY SELECT u.id, 'done'::text FROM unnest(ids) AS u(id);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT u.id, CASE WHEN h.id IS NOT NULL THEN 'done'
                      WHEN l.id IS NOT NULL THEN 'lost'
                      ELSE 'gone' END
    FROM unnest(ids, claims) WITH ORDINALITY AS u(id, claim, n)
    LEFT JOIN unnest(held_ids, held_claims) AS h(id, claim) ON h.id = u.id AND h.claim = u.claim
    LEFT JOIN LATERAL (SELECT j.id FROM outbox.job j WHERE j.id = u.id OFFSET 0) AS l ON true
    ORDER BY u.n;
END
$$;
COMMENT ON FUNCTION outbox.answers(bigint[], bigint[], bigint[], bigint[]) IS
    'internal: tells for each token whether it still held';

-- outbox.check_tokens(ids, claims): Internal.
-- Errors: 22023 NULL or unequal arrays.
CREATE OR REPLACE FUNCTION outbox.check_tokens(ids bigint[], claims bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (cardinality(ids) = cardinality(claims)) IS NOT TRUE THEN
        PERFORM outbox.refuse('22023', 'ids and claims differ in length, or are NULL',
            'Pass the claim number of each job.');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_tokens(bigint[], bigint[]) IS
    'internal: raises an error unless the arrays match';

-- outbox.busy(owner, ids, claims, outcomes): locks what can be locked of these jobs, and of what
-- their end changes. Internal.
-- Returns the ids of those that are held by these tokens, and cannot be settled without waiting.
CREATE OR REPLACE FUNCTION outbox.busy(
    owner bigint, ids bigint[], claims bigint[], outcomes jsonb) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = on
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off
SET enable_memoize = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    locked bigint[];
    keyed bigint[];
    given bigint[];
    parents bigint[];
    dying bigint[];
    stuck bigint[] := '{}';
BEGIN
    WITH taken AS MATERIALIZED (
        SELECT r.id, r.is_head AND (r.is_unique OR w.ends OR r.is_asked) AS hands_over,
               r.linked AND w.is_done AS resolves,
               r.linked AND NOT w.is_done AND (w.ends OR r.is_asked) AS dies,
               r.is_unique AND (NOT w.ends OR r.repeats) AS is_given_back
        FROM (SELECT u.id, u.claim, u.fate
              FROM ROWS FROM (unnest(ids), unnest(claims), jsonb_array_elements(outcomes))
                   AS u(id, claim, fate)
              ORDER BY u.id) AS t
        CROSS JOIN LATERAL (
            SELECT coalesce(t.fate ->> 'outcome', 'done') IN ('done', 'dead') AS ends,
                   coalesce(t.fate ->> 'outcome', 'done') = 'done' AS is_done) AS w
        CROSS JOIN LATERAL (
            SELECT j.id, j.place IS NOT NULL AS is_head, j.linked,
                   j.repeat_every IS NOT NULL AS repeats,
                   j.claimed_unique_key IS NOT NULL AS is_unique,
                   j.linked AND EXISTS (SELECT FROM outbox.cancelling c
                                        WHERE c.id = j.id AND c.ended_at IS NULL) AS is_asked
            FROM outbox.job j
            WHERE j.id = t.id AND j.owner = busy.owner AND j.claim = t.claim
            FOR UPDATE SKIP LOCKED) AS r)
    SELECT coalesce(array_agg(t.id), '{}'), array_agg(t.id) FILTER (WHERE t.hands_over),
           array_agg(t.id) FILTER (WHERE t.is_given_back),
           array_agg(t.id) FILTER (WHERE t.resolves), array_agg(t.id) FILTER (WHERE t.dies)
    INTO locked, keyed, given, parents, dying FROM taken t;
    IF keyed IS NOT NULL THEN
        stuck := outbox.busy_keys(keyed);
    END IF;
    IF given IS NOT NULL THEN
        stuck := stuck || ARRAY(
            SELECT i FROM unnest(given) AS i
            CROSS JOIN LATERAL (SELECT outbox.try_give_back(i) AS twin OFFSET 0) AS g
            WHERE i <> ALL (stuck) AND (g.twin = 0 OR outbox.busy_merge(i, g.twin)));
    END IF;
    IF parents IS NOT NULL THEN
        stuck := stuck || outbox.busy_dependents(
            ARRAY(SELECT i FROM unnest(parents) AS i WHERE i <> ALL (stuck)), false);
    END IF;
    IF dying IS NOT NULL THEN
        stuck := stuck || outbox.busy_dependents(
            ARRAY(SELECT i FROM unnest(dying) AS i WHERE i <> ALL (stuck)), true);
    END IF;
    RETURN stuck || ARRAY(
        SELECT r.id FROM unnest(ids, claims) AS t(id, claim)
        CROSS JOIN LATERAL (
            SELECT j.id FROM outbox.job j
            WHERE j.id = t.id AND j.owner = busy.owner AND j.claim = t.claim OFFSET 0) AS r
        WHERE r.id <> ALL (locked));
END
$$;
COMMENT ON FUNCTION outbox.busy(bigint, bigint[], bigint[], jsonb) IS
    'internal: locks claimed jobs; returns those that somebody else holds locked';

-- outbox.settle(owner, ids, claims, outcomes, skip_locked, brief): records what became of claimed
-- jobs.
--   owner        the dispatcher
--   ids, claims  the jobs and their claim numbers
--   outcomes     NULL: all succeeded. Else a JSON array as long as ids; null: done, or an object:
--     outcome       done | retry | dead | release
--     delay_ms      retry, release: not before so many milliseconds from now; default 0: at once
--     reason        text; needed for retry and dead
--     keep_ms       done: to be kept for so long, in outbox.done
--     block         dead: true if the jobs of its key are to wait until it is retried or cancelled
--     uncounted     dead: true if this attempt was not run (expired, too often lost)
--     started_at    RFC 3339; duration_ms, exit_code, signal, http_status, output_bytes: numbers;
--                   head, tail: base64. For the attempt's row; each may be null or absent
-- done: the job and its attempt rows are deleted; with keep_ms it is moved to outbox.done; one that
-- repeats is scheduled anew. retry: an attempt row; ready again after the delay, unless another job
-- with its unique key was put meanwhile: that one is it now. dead: moved to outbox.dead, with an
-- attempt row unless uncounted, which also gives the attempt back. release: the attempt is given back, no row; ready again after the delay.
--   skip_locked  true: does not wait for rows that somebody else holds locked
--   brief        true: what was recorded is not answered; but (0, 'more') if other jobs became
--                ready by it, which the caller is not notified of if it is asleep itself
-- Returns for each job: 'done' recorded; 'cancelled' recorded, and the job removed instead of being
-- run again or kept as dead; 'lost' it is there under another claim: this result is
-- void; 'gone' there is no such job any more; 'busy' (with skip_locked) its row is locked: nothing
-- was recorded, say it again later. The locks of keys are taken first, then rows, both in order.
-- Errors: 0A000 a job with a key, and the transaction is not READ COMMITTED; 22023 NULL or unequal arrays, an unknown outcome or a missing reason, named by position
-- from 0.
CREATE OR REPLACE FUNCTION outbox.settle(
    owner bigint, ids bigint[], claims bigint[], outcomes jsonb DEFAULT NULL,
    skip_locked boolean DEFAULT false, brief boolean DEFAULT false)
RETURNS TABLE(id bigint, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off
SET enable_hashjoin = on SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    got_ids bigint[];
    got_claims bigint[];
    logged_ids bigint[];
    busy bigint[];
    cancelled bigint[];
    more boolean;
BEGIN
    PERFORM outbox.check_tokens(ids, claims);
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    IF skip_locked THEN
        busy := outbox.busy(owner, ids, claims, outcomes);
        IF cardinality(busy) > 0 THEN
            RETURN QUERY SELECT u.id, 'busy'::text FROM unnest(busy) AS u(id);
            SELECT coalesce(array_agg(u.id ORDER BY u.n), '{}'),
                   coalesce(array_agg(u.claim ORDER BY u.n), '{}'),
                   CASE WHEN outcomes IS NOT NULL
                        THEN coalesce(jsonb_agg(outcomes -> (u.n - 1)::integer ORDER BY u.n),
                                      '[]') END
            INTO ids, claims, outcomes
            FROM unnest(ids, claims) WITH ORDINALITY AS u(id, claim, n)
            WHERE u.id <> ALL (busy);
        END IF;
    END IF;
    IF outcomes IS NULL THEN
        WITH gone AS (
            DELETE FROM outbox.job AS j
            USING (SELECT u.id, u.claim FROM unnest(ids, claims) AS u(id, claim) ORDER BY u.id) AS t
            WHERE j.id = ANY (ids) AND j.id = t.id AND j.owner = settle.owner AND j.claim = t.claim
              AND NOT j.linked
            RETURNING j.id, j.claim, j.logged)
        SELECT array_agg(g.id), array_agg(g.claim), array_agg(g.id) FILTER (WHERE g.logged)
        INTO got_ids, got_claims, logged_ids FROM gone g;
        IF logged_ids IS NOT NULL THEN
            DELETE FROM outbox.attempt a WHERE a.job_id = ANY (logged_ids);
        END IF;
    END IF;
    IF cardinality(got_ids) = cardinality(ids) THEN
        IF brief THEN
            RETURN;
        END IF;
    ELSE
        SELECT got_ids || m.held_ids, got_claims || m.held_claims, m.cancelled,
               m.more
        INTO got_ids, got_claims, cancelled, more
        FROM outbox.settle_mixed(owner, ids, claims, outcomes) m;
        IF more AND brief THEN
            RETURN QUERY SELECT 0::bigint, 'more'::text;
        END IF;
    END IF;
    RETURN QUERY
    SELECT s.id, s.answer
    FROM (SELECT a.id, CASE WHEN a.answer = 'done' AND a.id = ANY (cancelled)
                            THEN 'cancelled' ELSE a.answer END AS answer
          FROM outbox.answers(ids, claims, got_ids, got_claims) a) AS s
    WHERE NOT brief OR s.answer <> 'done';
END
$$;
COMMENT ON FUNCTION outbox.settle(bigint, bigint[], bigint[], jsonb, boolean, boolean) IS
    'records what became of claimed jobs; says which claims no longer held';

-- outbox.settle_mixed(...): outbox.settle when not all succeeded, or their end means something to
-- others. Internal. Returns those that were held, and more: whether another job became ready.
CREATE OR REPLACE FUNCTION outbox.settle_mixed(
    owner bigint, ids bigint[], claims bigint[], outcomes jsonb,
    OUT held_ids bigint[], OUT held_claims bigint[],
    OUT cancelled bigint[], OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = on
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off
SET enable_memoize = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    buckets integer[];
    logged_ids bigint[];
    done_ids bigint[]; -- to be deleted
    kept_ids bigint[]; -- done, and kept
    keep_ms text[]; -- for so long
    again_ids bigint[]; -- done, and repeated
    won_ids bigint[]; -- done, and others are concerned
    lost_ids bigint[]; -- dead, likewise
    passing_ids bigint[]; -- of those, who do not block their key
    unique_ids bigint[];
    tied_ids bigint[]; -- whose end means something to others
    ended_ids bigint[];
    fate_ids bigint[];
    fates jsonb[];
    held_attempts integer[];
BEGIN
    IF outcomes IS NOT NULL THEN
        PERFORM outbox.check_outcomes(outcomes, cardinality(ids));
    END IF;
    SELECT array_agg(outbox.key_bucket(r.task, r.key)) INTO buckets
    FROM ROWS FROM (unnest(ids), unnest(claims), jsonb_array_elements(outcomes))
         AS t(id, claim, fate)
    CROSS JOIN LATERAL (
        SELECT j.task, j.key FROM outbox.job j
        WHERE j.id = t.id AND j.owner = settle_mixed.owner AND j.claim = t.claim
          AND j.key IS NOT NULL OFFSET 0) AS r
    WHERE coalesce(t.fate ->> 'outcome', 'done') IN ('done', 'dead');
    IF buckets IS NOT NULL THEN
        PERFORM outbox.lock_keys(buckets);
    END IF;
    WITH locked AS MATERIALIZED (
        SELECT r.*, t.claim, nullif(t.fate, 'null') AS fate,
               coalesce(t.fate ->> 'outcome', 'done') AS outcome
        FROM (SELECT u.*
              FROM ROWS FROM (unnest(ids), unnest(claims), jsonb_array_elements(outcomes))
                   AS u(id, claim, fate)
              ORDER BY u.id) AS t
        CROSS JOIN LATERAL (
            SELECT j.id, j.attempts, j.linked, j.claimed_unique_key IS NOT NULL AS is_unique,
                   j.repeat_every IS NOT NULL AS repeats
            FROM outbox.job j
            WHERE j.id = t.id AND j.owner = settle_mixed.owner AND j.claim = t.claim
            FOR UPDATE) AS r)
    SELECT array_agg(l.id), array_agg(l.claim), array_agg(l.attempts),
           array_agg(l.id) FILTER (WHERE l.outcome = 'done' AND NOT l.repeats
                                     AND l.fate ->> 'keep_ms' IS NULL),
           array_agg(l.id) FILTER (WHERE l.outcome = 'done' AND NOT l.repeats
                                     AND l.fate ->> 'keep_ms' IS NOT NULL),
           array_agg(l.fate ->> 'keep_ms') FILTER (WHERE l.outcome = 'done' AND NOT l.repeats
                                     AND l.fate ->> 'keep_ms' IS NOT NULL),
           array_agg(l.id) FILTER (WHERE l.outcome = 'done' AND l.repeats),
           array_agg(l.id) FILTER (WHERE l.linked AND l.outcome = 'done'),
           array_agg(l.id) FILTER (WHERE l.linked AND l.outcome = 'dead'),
           array_agg(l.id) FILTER (WHERE l.linked AND l.outcome = 'dead'
                                     AND (l.fate ->> 'block')::boolean IS NOT TRUE),
           array_agg(l.id) FILTER (WHERE l.outcome <> 'done'),
           array_agg(l.fate) FILTER (WHERE l.outcome <> 'done'),
           array_agg(l.id) FILTER (WHERE l.is_unique AND l.outcome IN ('retry', 'release')),
           array_agg(l.id) FILTER (WHERE l.linked)
    INTO held_ids, held_claims, held_attempts, done_ids, kept_ids, keep_ms, again_ids, won_ids,
         lost_ids, passing_ids, fate_ids, fates, unique_ids, tied_ids
    FROM locked l;
    more := false;
    cancelled := outbox.end_cancelled(fate_ids);
    IF cancelled IS NOT NULL THEN
        SELECT array_agg(f.id), array_agg(f.fate) INTO fate_ids, fates
        FROM unnest(fate_ids, fates) AS f(id, fate) WHERE f.id <> ALL (cancelled);
        lost_ids := ARRAY(SELECT i FROM unnest(lost_ids) AS i WHERE i <> ALL (cancelled));
        passing_ids := ARRAY(SELECT i FROM unnest(passing_ids) AS i WHERE i <> ALL (cancelled));
        unique_ids := ARRAY(SELECT i FROM unnest(unique_ids) AS i WHERE i <> ALL (cancelled));
    END IF;
    IF unique_ids IS NOT NULL THEN
        SELECT m.fate_ids, m.fates, m.more INTO fate_ids, fates, more
        FROM outbox.give_back_all(unique_ids, fate_ids, fates) m;
    END IF;
    more := more OR coalesce(cancelled && tied_ids, false);
    IF won_ids IS NOT NULL OR lost_ids IS NOT NULL THEN
        PERFORM outbox.check_isolation();
        more := outbox.hand_over(won_ids || passing_ids) OR more;
    END IF;
    IF won_ids IS NOT NULL THEN
        more := outbox.resolve(won_ids, NULL) OR more;
        PERFORM outbox.tell_done(won_ids, 'done');
    END IF;
    IF again_ids IS NOT NULL THEN -- who was cancelled succeeded for the last time
        ended_ids := ARRAY(SELECT c.id FROM outbox.cancelling c
                           WHERE c.id = ANY (again_ids) AND c.ended_at IS NULL);
        PERFORM outbox.tell_done(ended_ids, 'cancelled');
        done_ids := done_ids || ended_ids;
        again_ids := ARRAY(SELECT i FROM unnest(again_ids) AS i WHERE i <> ALL (ended_ids));
        PERFORM outbox.repeat(again_ids);
        more := true;
    END IF;
    IF kept_ids IS NOT NULL THEN
        PERFORM outbox.keep(kept_ids, keep_ms);
    END IF;
    IF done_ids IS NOT NULL THEN
        WITH gone AS (
            DELETE FROM outbox.job AS j WHERE j.id = ANY (done_ids) RETURNING j.id, j.logged)
        SELECT array_agg(g.id) INTO logged_ids FROM gone g WHERE g.logged;
        DELETE FROM outbox.attempt a WHERE a.job_id = ANY (logged_ids);
    END IF;
    IF fate_ids IS NOT NULL THEN
        PERFORM outbox.log_attempts(owner, fate_ids, fates, held_ids, held_attempts);
        PERFORM outbox.put_back(fate_ids, fates);
        PERFORM outbox.bury(fate_ids, fates);
    END IF;
    IF lost_ids IS NOT NULL THEN
        more := outbox.resolve(lost_ids, 'is dead') OR more;
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.settle_mixed(bigint, bigint[], bigint[], jsonb) IS
    'internal: outbox.settle when not all succeeded, or their end means something to others';

-- outbox.repeat(ids): jobs that succeeded, and repeat: they are as new, and scheduled. Internal; they
-- are locked, and have handed over.
CREATE OR REPLACE FUNCTION outbox.repeat(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    one record;
    twin bigint;
BEGIN
    PERFORM pg_current_xact_id(); -- first: what is due before it began is ready, not scheduled
    FOR one IN SELECT j.id, j.claimed_unique_key FROM outbox.job j WHERE j.id = ANY (ids)
               ORDER BY j.claimed_unique_key COLLATE "C", j.id LOOP
        LOOP -- until the twin, if there is one, has not ended meanwhile
            twin := CASE WHEN one.claimed_unique_key IS NOT NULL THEN outbox.give_back(one.id) END;
            EXIT WHEN twin IS NULL;
            UPDATE outbox.job AS j SET repeat_every = coalesce(j.repeat_every, r.repeat_every),
                                       linked = true
            FROM outbox.job r WHERE j.id = twin AND r.id = one.id;
            EXIT WHEN FOUND;
        END LOOP;
        DELETE FROM outbox.attempt a WHERE a.job_id = one.id;
        IF twin IS NOT NULL THEN
            PERFORM outbox.tell_done(ARRAY[one.id], 'merged');
            DELETE FROM outbox.job j WHERE j.id = one.id;
        ELSE
            UPDATE outbox.job AS j
            SET owner = NULL, claim = NULL, attempts = 0, lost = 0, logged = false, place = NULL,
                created_at = clock_timestamp(), ready_xid = NULL, run_at = clock_timestamp() + j.repeat_every
            WHERE j.id = one.id;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION outbox.repeat(bigint[]) IS 'internal: schedules repeating jobs anew';

-- outbox.keep(ids, keep_ms): jobs that succeeded move to outbox.done, with their attempts, for so
-- many milliseconds each. Internal; they are locked.
CREATE OR REPLACE FUNCTION outbox.keep(ids bigint[], keep_ms text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    WITH gone AS (
        DELETE FROM outbox.job AS j USING unnest(ids, keep_ms) AS k(id, ms)
        WHERE j.id = ANY (ids) AND j.id = k.id
        RETURNING j.*, clock_timestamp() + k.ms::float8 * interval '1 millisecond' AS until)
    INSERT INTO outbox.done (id, created_at, run_at, expires_at, finished_at, keep_until, attempts, lost,
                             max_attempts, priority, logged, task, encoding, key, unique_key,
                             headers, payload)
    SELECT g.id, g.created_at, g.run_at, g.expires_at, clock_timestamp(), g.until, g.attempts, g.lost,
           g.max_attempts, g.priority, g.logged, g.task, g.encoding, g.key,
           coalesce(g.unique_key, g.claimed_unique_key), g.headers, g.payload
    FROM gone g;
END
$$;
COMMENT ON FUNCTION outbox.keep(bigint[], text[]) IS 'internal: moves jobs that succeeded to outbox.done';

-- outbox.check_outcomes(outcomes, count): Internal.
-- Errors: 22023, naming outcomes[i].
CREATE OR REPLACE FUNCTION outbox.check_outcomes(outcomes jsonb, count integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bad record;
BEGIN
    IF jsonb_typeof(outcomes) <> 'array' OR jsonb_array_length(outcomes) <> count THEN
        PERFORM outbox.refuse('22023', 'outcomes is not an array as long as ids',
            'Pass null, or an object such as {"outcome": "retry", "reason": "exit 1"}, '
            'for each job.');
    END IF;
    SELECT e.n - 1 AS n, e.fate INTO bad
    FROM jsonb_array_elements(outcomes) WITH ORDINALITY AS e(fate, n)
    WHERE e.fate <> 'null'
      AND CASE WHEN jsonb_typeof(e.fate) <> 'object' THEN true
               WHEN e.fate ->> 'outcome' IN ('done', 'release') THEN false
               WHEN e.fate ->> 'outcome' IN ('retry', 'dead') THEN e.fate ->> 'reason' IS NULL
               ELSE true END
    LIMIT 1;
    IF FOUND THEN
        PERFORM outbox.refuse('22023',
            format('outcomes[%s] is not an outcome: %s', bad.n, left(bad.fate::text, 100)),
            'It is null, or an object whose "outcome" is done, retry, dead or release; '
            'retry and dead have a "reason".');
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.check_outcomes(jsonb, integer) IS
    'internal: raises an error unless these are outcomes';

-- outbox.log_attempts(owner, ids, fates, claimed_ids, attempts): the attempt rows of retry and dead.
-- claimed_ids, attempts: each job's number of attempts, of other jobs too. Internal.
CREATE OR REPLACE FUNCTION outbox.log_attempts(
    owner bigint, ids bigint[], fates jsonb[], claimed_ids bigint[], attempts integer[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on
SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO outbox.attempt (job_id, attempt, started_at, duration_ms, outcome, reason,
                                exit_code, signal, http_status, output_head, output_tail,
                                output_bytes, dispatcher)
    SELECT j.id, j.attempts, (f.fate ->> 'started_at')::timestamptz,
           (f.fate ->> 'duration_ms')::bigint, f.fate ->> 'outcome', f.fate ->> 'reason',
           (f.fate ->> 'exit_code')::integer, (f.fate ->> 'signal')::integer,
           (f.fate ->> 'http_status')::integer, decode(f.fate ->> 'head', 'base64'),
           decode(f.fate ->> 'tail', 'base64'), (f.fate ->> 'output_bytes')::bigint,
           (SELECT d.name FROM outbox.dispatcher d WHERE d.id = log_attempts.owner)
    FROM unnest(ids, fates) AS f(id, fate)
    JOIN (SELECT DISTINCT u.* FROM unnest(claimed_ids, attempts) AS u(id, attempts)) AS j
        ON j.id = f.id
    WHERE f.fate ->> 'outcome' = 'retry'
       OR f.fate ->> 'outcome' = 'dead' AND (f.fate ->> 'uncounted')::boolean IS NOT TRUE;
END
$$;
COMMENT ON FUNCTION outbox.log_attempts(bigint, bigint[], jsonb[], bigint[], integer[]) IS
    'internal: writes attempt rows';

-- outbox.put_back(ids, fates): those with the outcome retry or release lose their owner and become
-- ready, at once or later. Internal; the jobs are locked.
CREATE OR REPLACE FUNCTION outbox.put_back(ids bigint[], fates jsonb[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off
SET enable_hashjoin = on SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    tasks text[];
BEGIN
    WITH back AS (
        UPDATE outbox.job AS j
        SET owner = NULL, claim = NULL,
            attempts = j.attempts - (f.outcome = 'release')::integer,
            logged = j.logged OR f.outcome = 'retry',
            ready_xid = CASE WHEN f.delay_ms > 0 THEN NULL ELSE pg_current_xact_id() END,
            run_at = CASE WHEN f.delay_ms > 0
                          THEN clock_timestamp() + f.delay_ms * interval '1 millisecond'
                          ELSE j.run_at END
        FROM (SELECT u.id, u.fate ->> 'outcome' AS outcome,
                     coalesce((u.fate ->> 'delay_ms')::float8, 0) AS delay_ms
              FROM unnest(ids, fates) AS u(id, fate)) AS f
        WHERE j.id = ANY (ids) AND j.id = f.id AND f.outcome IN ('retry', 'release')
        RETURNING j.task, j.ready_xid)
    SELECT array_agg(DISTINCT b.task) FILTER (WHERE b.ready_xid IS NOT NULL) INTO tasks FROM back b;
    PERFORM outbox.wake_tasks(tasks, false);
END
$$;
COMMENT ON FUNCTION outbox.put_back(bigint[], jsonb[]) IS
    'internal: gives claimed jobs back, at once or after a delay';

-- outbox.bury(ids, fates): those with the outcome dead move to outbox.dead. Internal; the jobs are
-- locked.
CREATE OR REPLACE FUNCTION outbox.bury(ids bigint[], fates jsonb[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off
SET enable_hashjoin = on SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    n integer;
BEGIN
    WITH gone AS (
        DELETE FROM outbox.job AS j
        USING (SELECT u.id, u.fate ->> 'reason' AS reason,
                      (u.fate ->> 'uncounted')::boolean IS TRUE AS uncounted,
                      u.fate ? 'never' AS never,
                      (u.fate ->> 'block')::boolean IS TRUE AS block
               FROM unnest(ids, fates) AS u(id, fate) WHERE u.fate ->> 'outcome' = 'dead') AS f
        WHERE j.id = ANY (ids) AND j.id = f.id
        RETURNING j.*, f.reason, f.uncounted, f.never, f.block AND j.place IS NOT NULL AS blocks)
    INSERT INTO outbox.dead (id, created_at, run_at, expires_at, finished_at, attempts, lost,
                             max_attempts, priority, logged, task, encoding, key, unique_key,
                             reason, headers, payload, repeat_every, notify_done, blocks, place)
    SELECT g.id, g.created_at, g.run_at, g.expires_at, clock_timestamp(),
           g.attempts - g.uncounted::integer, g.lost, g.max_attempts, g.priority,
           g.logged OR NOT (g.uncounted OR g.never), g.task, g.encoding, g.key,
           coalesce(g.unique_key, g.claimed_unique_key), g.reason,
           g.headers, g.payload, g.repeat_every, g.notify_done, g.blocks,
           CASE WHEN g.blocks THEN g.place END
    FROM gone g;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        PERFORM outbox.tell_dead(ids);
    END IF;
END
$$;
COMMENT ON FUNCTION outbox.bury(bigint[], jsonb[]) IS 'internal: moves jobs to outbox.dead';

-- outbox.release(owner, ids, claims, delay): gives claimed jobs back that were not run: the attempt
-- is not counted, and they are ready again at once or after the delay.
-- Returns and errors: as outbox.settle.
CREATE OR REPLACE FUNCTION outbox.release(
    owner bigint, ids bigint[], claims bigint[], delay interval DEFAULT '0')
RETURNS TABLE(id bigint, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fate jsonb;
BEGIN
    PERFORM outbox.check_tokens(ids, claims);
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    fate := jsonb_build_object('outcome', 'release',
                               'delay_ms', round(1000 * extract(epoch FROM coalesce(delay, '0'))));
    RETURN QUERY SELECT * FROM outbox.settle(owner, ids, claims,
        to_jsonb(array_fill(fate, ARRAY[cardinality(ids)])));
END
$$;
COMMENT ON FUNCTION outbox.release(bigint, bigint[], bigint[], interval) IS
    'gives claimed jobs back, uncounted, at once or after a delay';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
