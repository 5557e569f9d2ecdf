-- functions_look.sql: the dispatcher's look at the stream of committed jobs: what is new, what it
-- knows to be waiting, what it could not get before; claimed as far as slots are free.
-- min_level: 1
--
-- The dispatcher keeps where it stands in its memory, for one connection, and hands it in with each
-- look: a position in the stream index, transactions that were still running when the position
-- passed them (pending), lanes with a backlog, and rows that somebody held locked (revisit).
--
-- What makes it exact:
--   position  everything at or below it has been read, but for what is on one of the lists. It
--             never reaches a transaction that may still commit: it stays below `cut`, which is
--             below every transaction running in the snapshot of the statement that read (and
--             below our own).
--   reading and locking are two steps: a row that was read and could not be locked is named in the
--             answer, because whoever holds it may roll back, and then it is not new to anybody.
-- The settings of look() keep its plans on the two indexes, whatever the statistics say.

-- outbox.restamp(): ready rows that carry the id of a transaction that is still to come (a dump of
-- another cluster, or a promoted or crashed server that has forgotten some) get ours. Internal:
-- called once a connection, before its first look.
-- Returns how many.
CREATE OR REPLACE FUNCTION outbox.restamp() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    horizon constant xid8 := pg_snapshot_xmax(pg_current_snapshot());
    picked bigint[];
    n integer;
BEGIN
    WITH taken AS MATERIALIZED (
        SELECT r.id FROM outbox.job r
        WHERE r.ready_xid >= horizon AND r.ready_xid IS NOT NULL
        ORDER BY r.ready_xid, r.id
        FOR NO KEY UPDATE SKIP LOCKED)
    SELECT array_agg(t.id) INTO picked FROM taken t;
    IF picked IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE outbox.job AS j SET ready_xid = pg_current_xact_id() WHERE j.id = ANY (picked);
    GET DIAGNOSTICS n = ROW_COUNT;
    UPDATE outbox.dispatcher SET newest_claim = pg_current_xact_id()
    WHERE newest_claim IS NOT NULL AND newest_claim < pg_current_xact_id();
    RETURN n;
END
$$;
COMMENT ON FUNCTION outbox.restamp() IS
    'gives ready rows from the future, as after a restore, a transaction id of today';

-- outbox.pick(...): which of the rows that were read get a slot: by priority, then by age, at most
-- slots[n] of task n and shared_slots of the tasks that share. Internal.
--   ids, tasks, priorities, xids  the rows; a task is its index
-- Returns places in those arrays: chosen, best first; and rest. A row that is there twice counts
-- once, at its last place: if its lane was walked, the walk has to know that it is left.
CREATE OR REPLACE FUNCTION outbox.pick(
    ids bigint[], tasks integer[], priorities smallint[], xids xid8[],
    slots integer[], shares boolean[], shared_slots integer,
    OUT chosen integer[], OUT rest integer[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT array_agg(q.place ORDER BY q.priority, q.xid, q.id)
               FILTER (WHERE q.has_slot AND (NOT q.is_sharing OR q.shared_rank <= shared_slots)),
           array_agg(q.place)
               FILTER (WHERE NOT q.has_slot OR q.is_sharing AND q.shared_rank > shared_slots)
    INTO chosen, rest
    FROM (SELECT p.*, count(*) FILTER (WHERE p.is_sharing AND p.has_slot) OVER (
                     ORDER BY p.priority, p.xid, p.id) AS shared_rank
          FROM (SELECT r.id, r.xid, r.priority, r.place::integer AS place,
                       shares[r.task] AS is_sharing,
                       row_number() OVER (PARTITION BY r.task
                           ORDER BY r.priority, r.xid, r.id) <= slots[r.task] AS has_slot
                FROM (SELECT DISTINCT ON (u.id) u.*
                      FROM unnest(ids, tasks, priorities, xids) WITH ORDINALITY
                          AS u(id, task, priority, xid, place)
                      ORDER BY u.id, u.place DESC) AS r) AS p) AS q;
END
$$;
COMMENT ON FUNCTION outbox.pick(bigint[], integer[], smallint[], xid8[], integer[], boolean[],
    integer) IS 'internal: chooses rows for free slots, by priority and age';

-- outbox.look(...): reads what is new in the stream and what was left before, claims what slots are
-- free for, and says where the reading stands now.
--   owner         a registered dispatcher
--   first_claim   number of the first claim; at most as many are used as slots were offered
--   tasks         names of the tasks it handles, in byte order
--   slots         free slots of each
--   shares        whether the task takes part in shared_slots
--   shared_slots  free slots of all tasks that share
--   pos_xid, pos_id      the position: the last answer's; at first ('0', 0), or NULL: nothing is
--                 read but what comes from now on
--   older         transactions below it that still run become pending instead of holding the
--                 position back
--   pending, pending_ids transactions that the position passed, and the last id read of each
--   lanes         lanes with a backlog: task index * 4 + priority - 1, of tasks with free slots
--   lane_xids, lane_ids  where each continues: the first row that was not read
--   lane_limits   at most so many rows of each are wanted; 0: not now, it is only known to be open
--   revisit       ids of rows that could not be locked before
--   due_from      scheduled jobs before it are ready already
--   oldest, newest  the last answer's; at first NULL: all its jobs became ready in a transaction
--                 between these
--   batch         at most so many rows of the stream are read
--   payload_max   larger payloads (in bytes) come as NULL: fetch them with outbox.payload
--   apart         lane_limits and walk_slots together take no more slots than there are
--   list_running  whether to answer `running`
--   walk_rows     more than 0: many lanes of one priority are walked at once, in the stream instead
--                 of each in its index; at most so many rows are read
--   walk_xid, walk_id    the walk begins at this row
--   walk_priority of its lanes
--   walk_slots    at most so many rows of each task are wanted; 0: none
-- Returns the claimed jobs, in no promised order; then one row in which only state is set, a JSON
-- object:
--   position, position_id  hand them in again
--   cut, xmax              transactions: all below cut are finished, or pending; none at xmax or
--                          above was visible
--   full                   the stream has more
--   running                transactions running in the snapshot (absent: none, or not asked for)
--   pending                those to add to the list
--   ended, partial         those to take off it, as they are finished and read; [xid, id] of those
--                          read in part
--   blocked                [lane, xid, id]: rows read that found no slot; the first of each lane
--   lanes                  [lane, xid, id]: where a walked lane continues, if it was not exhausted
--   walked                 [[n, xid, id]], if the walk did not come to the end: how many rows it
--                          wanted, and the last one that it read
--   missed                 ids that were tried, if not all were obtained: revisit those that did
--                          not come
--   held                   ids of `revisit` that somebody still holds locked: revisit them
--   now, next_due          the server's clock, and the earliest scheduled job's time, in
--                          microseconds since 1970
--   xid                    our own transaction, if it has one
-- Lanes that were walked together continue behind `walked` if they are not among `lanes`.
-- A lane of `blocked` that is open and continues at or before that row needs nothing.
-- Errors: 22023 the owner is not registered.
CREATE OR REPLACE FUNCTION outbox.look(
    owner bigint, first_claim bigint,
    tasks text[], slots integer[], shares boolean[], shared_slots integer,
    pos_xid xid8, pos_id bigint, older xid8, pending xid8[], pending_ids bigint[],
    lanes integer[], lane_xids xid8[], lane_ids bigint[], lane_limits integer[],
    revisit bigint[], due_from timestamptz, oldest xid8, newest xid8,
    batch integer DEFAULT 1000, payload_max integer DEFAULT 65536,
    apart boolean DEFAULT false, list_running boolean DEFAULT true,
    walk_rows integer DEFAULT 0, walk_xid xid8 DEFAULT '0', walk_id bigint DEFAULT 0,
    walk_priority integer DEFAULT 2, walk_slots integer[] DEFAULT '{}')
RETURNS TABLE(id bigint, claim bigint, task text, priority smallint, attempt integer,
              max_attempts integer, lost integer, encoding text, payload bytea,
              payload_size integer, headers text, key text, created_at timestamptz,
              expired boolean, state jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_indexscan = on SET enable_bitmapscan = off SET enable_sort = off
SET enable_nestloop = on SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_memoize = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    now_at constant timestamptz := clock_timestamp();
    next_due timestamptz;
    snapshot pg_snapshot;
    running xid8[];
    xmax xid8;
    cut xid8;
    own xid8;
    last_xid xid8;
    last_id bigint;
    is_full boolean;
    new_pending xid8[];
    ended jsonb;
    partial jsonb;
    held jsonb;
    blocked jsonb;
    heads jsonb;
    walked jsonb;
    -- rows that were read and may have a slot, in parallel: place on disk, id, transaction, task
    -- index, priority
    c_tids tid[];
    c_ids bigint[];
    c_xids xid8[];
    c_tasks integer[];
    c_priorities smallint[];
    -- the same of one step
    s_tids tid[];
    s_ids bigint[];
    s_xids xid8[];
    s_tasks integer[];
    s_priorities smallint[];
    -- rows that found none: lane, transaction, id
    b_lanes integer[];
    b_xids xid8[];
    b_ids bigint[];
    n_lanes integer[];
    n_xids xid8[];
    n_ids bigint[];
    l_lanes integer[]; -- the first of each walked lane that was not wanted
    l_xids xid8[];
    l_ids bigint[];
    w_from integer; -- the first of the rows that came from a lane's backlog
    seen integer;
    before constant xid8 := coalesce(pos_xid, '0');
    picked integer[];
    tids tid[];
    rest integer[];
    obtained bigint;
BEGIN
    SELECT d.next_due INTO next_due FROM outbox.make_due(due_from, batch) d;
    own := pg_current_xact_id_if_assigned();

    -- The stream, from the position on.
    SELECT pg_current_snapshot(), count(*) >= batch,
           (array_agg(r.ready_xid))[count(*)::integer], (array_agg(r.id))[count(*)::integer],
           array_agg(r.ctid) FILTER (WHERE r.is_free),
           array_agg(r.id) FILTER (WHERE r.is_free),
           array_agg(r.ready_xid) FILTER (WHERE r.is_free),
           array_agg(r.n) FILTER (WHERE r.is_free),
           array_agg(r.priority) FILTER (WHERE r.is_free),
           array_agg(r.lane) FILTER (WHERE NOT r.is_free),
           array_agg(r.ready_xid) FILTER (WHERE NOT r.is_free),
           array_agg(r.id) FILTER (WHERE NOT r.is_free)
    INTO snapshot, is_full, last_xid, last_id, c_tids, c_ids, c_xids, c_tasks, c_priorities,
         b_lanes, b_xids, b_ids
    FROM (SELECT q.*, k.n, k.n * 4 + q.priority - 1 AS lane,
                 CASE WHEN q.id <> ALL (revisit) -- else it has its turn below
                      THEN slots[k.n] > 0 AND k.n * 4 + q.priority - 1 <> ALL (lanes)
                 END AS is_free
          FROM (SELECT j.ctid, j.id, j.ready_xid, j.task, j.priority FROM outbox.job j
                WHERE (j.ready_xid, j.id) > (pos_xid, pos_id)
                  AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                ORDER BY j.ready_xid, j.id
                LIMIT batch) AS q
          CROSS JOIN LATERAL (SELECT width_bucket(q.task COLLATE "C", tasks) AS n OFFSET 0) AS b
          CROSS JOIN LATERAL (SELECT CASE WHEN tasks[b.n] = q.task THEN b.n END AS n OFFSET 0) AS k
         ) AS r;
    running := ARRAY(SELECT pg_snapshot_xip(snapshot));
    xmax := pg_snapshot_xmax(snapshot);

    -- The cut: below the oldest running transaction that is not to become pending. At first all are:
    -- else the position would go through what is known as the lanes' backlogs.
    cut := greatest(CASE WHEN pos_xid IS NULL THEN xmax::text::bigint ELSE older::text::bigint END,
                    xmax::text::bigint - 1000, 1)::text::xid8;
    IF is_full AND last_xid > cut THEN
        cut := last_xid; -- more rows than one look reads lie above: go on with them all the same
    END IF;
    IF running[cardinality(running)] >= cut THEN
        cut := running[width_bucket((cut::text::bigint - 1)::text::xid8, running) + 1];
    ELSE
        cut := xmax;
    END IF;
    IF own < cut THEN
        cut := own;
    END IF;
    IF NOT is_full OR last_xid >= cut THEN
        last_xid := (cut::text::bigint - 1)::text::xid8;
        last_id := 9223372036854775807;
    END IF;
    IF pos_xid IS NULL OR (last_xid, last_id) > (pos_xid, pos_id) THEN
        pos_xid := last_xid;
        pos_id := last_id;
    END IF;
    -- Those that it passed before are on the list.
    IF running[1] <= pos_xid THEN
        new_pending := running[width_bucket(before, running) + 1:width_bucket(pos_xid, running)];
    END IF;

    -- Pending transactions that have ended.
    IF cardinality(pending) > 0 AND pending <> running[1:cardinality(pending)] THEN
        WITH over AS MATERIALIZED (
            SELECT p.xid, p.id FROM unnest(pending, pending_ids) AS p(xid, id)
            WHERE pg_visible_in_snapshot(p.xid, snapshot) LIMIT 100),
        found AS MATERIALIZED (
            SELECT o.xid AS of_xid, q.*, k.n, k.n * 4 + q.priority - 1 AS lane,
                   slots[k.n] > 0 AND k.n * 4 + q.priority - 1 <> ALL (lanes) AS is_free
            FROM over o
            CROSS JOIN LATERAL (
                SELECT j.ctid, j.id, j.ready_xid, j.task, j.priority FROM outbox.job j
                WHERE (j.ready_xid, j.id) > (o.xid, o.id) AND j.ready_xid <= o.xid
                  AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                ORDER BY j.ready_xid, j.id
                LIMIT 200) AS q
            CROSS JOIN LATERAL (SELECT width_bucket(q.task COLLATE "C", tasks) AS n OFFSET 0) AS b
            CROSS JOIN LATERAL (SELECT CASE WHEN tasks[b.n] = q.task THEN b.n END AS n OFFSET 0)
                AS k),
        ends AS MATERIALIZED (
            SELECT o.xid, count(f.id) = 200 AS has_more, max(f.id) AS last
            FROM over o LEFT JOIN found f ON f.of_xid = o.xid GROUP BY o.xid)
        SELECT (SELECT jsonb_agg(e.xid::text::bigint) FROM ends e WHERE NOT e.has_more),
               (SELECT jsonb_agg(jsonb_build_array(e.xid::text::bigint, e.last))
                FROM ends e WHERE e.has_more),
               array_agg(r.ctid) FILTER (WHERE r.is_free),
               array_agg(r.id) FILTER (WHERE r.is_free),
               array_agg(r.ready_xid) FILTER (WHERE r.is_free),
               array_agg(r.n) FILTER (WHERE r.is_free),
               array_agg(r.priority) FILTER (WHERE r.is_free),
               array_agg(r.lane) FILTER (WHERE NOT r.is_free),
               array_agg(r.ready_xid) FILTER (WHERE NOT r.is_free),
               array_agg(r.id) FILTER (WHERE NOT r.is_free)
        INTO ended, partial, s_tids, s_ids, s_xids, s_tasks, s_priorities, n_lanes, n_xids, n_ids
        FROM found r;
        c_tids := c_tids || s_tids;
        c_ids := c_ids || s_ids;
        c_xids := c_xids || s_xids;
        c_tasks := c_tasks || s_tasks;
        c_priorities := c_priorities || s_priorities;
        b_lanes := b_lanes || n_lanes;
        b_xids := b_xids || n_xids;
        b_ids := b_ids || n_ids;
    END IF;

    -- Rows that somebody held locked: who is gone or owned is not among the answers any more, and
    -- who is still held has no slot to keep from others.
    IF cardinality(revisit) > 0 THEN
        WITH alive AS MATERIALIZED (
            SELECT q.id FROM unnest(revisit) AS v(id)
            CROSS JOIN LATERAL (
                SELECT j.id, j.ready_xid FROM outbox.job j
                WHERE j.id = v.id AND j.owner IS NULL
                OFFSET 0) AS q
            WHERE q.ready_xid IS NOT NULL), -- not above: it would let in the other indexes
        ours AS MATERIALIZED (
            SELECT q.* FROM alive a
            CROSS JOIN LATERAL (
                SELECT j.ctid, j.id, j.ready_xid, j.task, j.priority FROM outbox.job j
                WHERE j.id = a.id AND j.owner IS NULL
                FOR NO KEY UPDATE SKIP LOCKED) AS q
            WHERE q.ready_xid IS NOT NULL)
        SELECT (SELECT jsonb_agg(a.id) FROM alive a
                WHERE NOT EXISTS (SELECT FROM ours o WHERE o.id = a.id)),
               array_agg(r.ctid) FILTER (WHERE r.is_free),
               array_agg(r.id) FILTER (WHERE r.is_free),
               array_agg(r.ready_xid) FILTER (WHERE r.is_free),
               array_agg(r.n) FILTER (WHERE r.is_free),
               array_agg(r.priority) FILTER (WHERE r.is_free),
               array_agg(r.lane) FILTER (WHERE NOT r.is_free),
               array_agg(r.ready_xid) FILTER (WHERE NOT r.is_free),
               array_agg(r.id) FILTER (WHERE NOT r.is_free)
        INTO held, s_tids, s_ids, s_xids, s_tasks, s_priorities, n_lanes, n_xids, n_ids
        FROM (SELECT o.*, k.n, k.n * 4 + o.priority - 1 AS lane, slots[k.n] > 0 AS is_free
              FROM ours o
              CROSS JOIN LATERAL (SELECT width_bucket(o.task COLLATE "C", tasks) AS n OFFSET 0) AS b
              CROSS JOIN LATERAL (SELECT CASE WHEN tasks[b.n] = o.task THEN b.n END AS n OFFSET 0)
                  AS k) AS r;
        c_tids := c_tids || s_tids;
        c_ids := c_ids || s_ids;
        c_xids := c_xids || s_xids;
        c_tasks := c_tasks || s_tasks;
        c_priorities := c_priorities || s_priorities;
        b_lanes := b_lanes || n_lanes;
        b_xids := b_xids || n_xids;
        b_ids := b_ids || n_ids;
    END IF;

    -- The backlogs; after the stream, whose rows of open lanes they must see. First each lane in its
    -- own index.
    w_from := coalesce(cardinality(c_ids), 0) + 1;
    IF 0 < ANY (lane_limits) THEN
        SELECT array_agg(r.ctid) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.id) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.ready_xid) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.lane / 4) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.priority) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.lane) FILTER (WHERE r.nth > r.slots),
               array_agg(r.ready_xid) FILTER (WHERE r.nth > r.slots),
               array_agg(r.id) FILTER (WHERE r.nth > r.slots)
        INTO s_tids, s_ids, s_xids, s_tasks, s_priorities, l_lanes, l_xids, l_ids
        FROM (SELECT q.*, l.lane, l.slots
              FROM (SELECT u.*, (u.lane % 4 + 1)::smallint AS priority
                    FROM unnest(lanes, lane_xids, lane_ids, lane_limits)
                        AS u(lane, xid, id, slots)) AS l
              CROSS JOIN LATERAL (
                  SELECT j.ctid, j.id, j.ready_xid, j.priority,
                         row_number() OVER (ORDER BY j.priority, j.ready_xid, j.id) AS nth
                  FROM outbox.job j
                  WHERE j.task = tasks[l.lane / 4]
                    AND (j.priority, j.ready_xid, j.id) >= (l.priority, l.xid, l.id)
                    AND j.priority <= l.priority
                    AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                  ORDER BY j.priority, j.ready_xid, j.id
                  LIMIT l.slots + 1) AS q
              WHERE l.slots > 0) AS r;
        c_tids := c_tids || s_tids;
        c_ids := c_ids || s_ids;
        c_xids := c_xids || s_xids;
        c_tasks := c_tasks || s_tasks;
        c_priorities := c_priorities || s_priorities;
    END IF;

    -- Then those that are walked together.
    IF walk_rows > 0 THEN
        PERFORM set_config('enable_hashjoin', 'on', true), set_config('enable_nestloop', 'off', true);
        SELECT CASE WHEN count(*) >= walk_rows
                    THEN jsonb_build_array(jsonb_build_array(
                             count(*) FILTER (WHERE r.nth <= r.slots),
                             max(r.ready_xid::text::bigint),
                             (array_agg(r.id ORDER BY r.ready_xid DESC, r.id DESC))[1])) END,
               array_agg(r.ctid) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.id) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.ready_xid) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.n) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.priority) FILTER (WHERE r.nth <= r.slots),
               array_agg(r.n * 4 + r.priority - 1) FILTER (WHERE r.nth = r.slots + 1),
               array_agg(r.ready_xid) FILTER (WHERE r.nth = r.slots + 1),
               array_agg(r.id) FILTER (WHERE r.nth = r.slots + 1)
        INTO walked, s_tids, s_ids, s_xids, s_tasks, s_priorities, n_lanes, n_xids, n_ids
        FROM (SELECT q.*, k.n, k.slots,
                     row_number() OVER (PARTITION BY k.n ORDER BY q.ready_xid, q.id) AS nth
              FROM (SELECT j.ctid, j.id, j.ready_xid, j.task, j.priority FROM outbox.job j
                    WHERE (j.ready_xid, j.id) >= (walk_xid, walk_id)
                      AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                    ORDER BY j.ready_xid, j.id
                    LIMIT walk_rows) AS q
              LEFT JOIN (SELECT t.task, t.n::integer AS n, t.slots
                         FROM unnest(tasks, walk_slots) WITH ORDINALITY AS t(task, slots, n)
                         WHERE t.slots > 0) AS k
                  ON k.task = q.task AND q.priority = walk_priority) AS r;
        PERFORM set_config('enable_hashjoin', 'off', true), set_config('enable_nestloop', 'on', true);
        c_tids := c_tids || s_tids;
        c_ids := c_ids || s_ids;
        c_xids := c_xids || s_xids;
        c_tasks := c_tasks || s_tasks;
        c_priorities := c_priorities || s_priorities;
        l_lanes := l_lanes || n_lanes;
        l_xids := l_xids || n_xids;
        l_ids := l_ids || n_ids;
    END IF;

    -- Who gets a slot.
    seen := coalesce(cardinality(c_ids), 0);
    IF seen > 0 AND (w_from = 1 AND apart OR w_from > seen AND cardinality(revisit) = 0 AND
           seen <= least((SELECT min(x) FROM unnest(slots) AS x WHERE x > 0),
                         CASE WHEN true = ANY (shares) THEN shared_slots END)) THEN
        picked := ARRAY(SELECT generate_series(1, seen)); -- enough slots, whatever the tasks
    ELSIF seen > 0 THEN
        SELECT p.chosen, p.rest INTO picked, rest
        FROM outbox.pick(c_ids, c_tasks, c_priorities, c_xids, slots, shares, shared_slots) p;
    END IF;
    IF cardinality(picked) > 0 THEN
        PERFORM outbox.hold_dispatcher(owner);
        IF (oldest <= ALL (c_xids) AND newest >= ALL (c_xids)) IS NOT TRUE THEN
            SELECT b.oldest, b.newest INTO oldest, newest
            FROM outbox.note_claims(owner,
                (SELECT x FROM unnest(c_xids) AS x ORDER BY x LIMIT 1),
                (SELECT x FROM unnest(c_xids) AS x ORDER BY x DESC LIMIT 1)) b;
        END IF;
        -- By their places: nothing can have taken those since they were read, as the statement that
        -- called us began before. With index scans on, the plan of a table that was empty when
        -- last vacuumed would be one.
        PERFORM set_config('enable_indexscan', 'off', true);
        tids := ARRAY(SELECT c_tids[p] FROM unnest(picked) AS p ORDER BY 1);
        RETURN QUERY
        WITH locked AS MATERIALIZED (
            SELECT j.ctid FROM outbox.job j
            WHERE j.ctid = ANY (tids) AND j.owner IS NULL AND j.ready_xid IS NOT NULL
            FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE outbox.job AS j
        SET owner = look.owner, claim = first_claim + width_bucket(j.ctid, tids) - 1,
            attempts = j.attempts + 1, unique_key = NULL, claimed_unique_key = j.unique_key
        WHERE j.ctid = ANY (ARRAY(SELECT l.ctid FROM locked l))
        RETURNING j.id, j.claim, j.task, j.priority, j.attempts, j.max_attempts::integer, j.lost,
                  j.encoding, CASE WHEN octet_length(j.payload) <= payload_max THEN j.payload END,
                  octet_length(j.payload), j.headers::text, j.key, j.created_at,
                  coalesce(j.expires_at <= now_at, false), NULL::jsonb;
        GET DIAGNOSTICS obtained = ROW_COUNT;
    END IF;

    -- What the caller must know.
    IF l_ids IS NOT NULL OR rest IS NOT NULL THEN
        SELECT jsonb_agg(jsonb_build_array(m.lane, m.xid::text::bigint, m.id)) INTO heads
        FROM (SELECT DISTINCT ON (u.lane) u.lane, u.xid, u.id
              FROM (SELECT * FROM unnest(l_lanes, l_xids, l_ids) AS l(lane, xid, id)
                    UNION ALL
                    SELECT c_tasks[p] * 4 + c_priorities[p] - 1, c_xids[p], c_ids[p]
                    FROM unnest(rest) AS p WHERE p >= w_from) AS u
              ORDER BY u.lane, u.xid, u.id) AS m;
    END IF;
    IF b_ids IS NOT NULL OR rest IS NOT NULL THEN
        SELECT jsonb_agg(jsonb_build_array(m.lane, m.xid::text::bigint, m.id)) INTO blocked
        FROM (SELECT DISTINCT ON (u.lane) u.lane, u.xid, u.id
              FROM (SELECT * FROM unnest(b_lanes, b_xids, b_ids) AS b(lane, xid, id)
                    UNION ALL
                    SELECT c_tasks[p] * 4 + c_priorities[p] - 1, c_xids[p], c_ids[p]
                    FROM unnest(rest) AS p WHERE p < w_from) AS u
              ORDER BY u.lane, u.xid, u.id) AS m;
    END IF;
    state := jsonb_strip_nulls(jsonb_build_object(
        'position', pos_xid::text::bigint, 'position_id', pos_id,
        'cut', cut::text::bigint, 'xmax', xmax::text::bigint, 'full', is_full,
        'running', CASE WHEN list_running
                        THEN (SELECT jsonb_agg(x::text::bigint) FROM unnest(running) AS x) END,
        'pending', (SELECT jsonb_agg(x::text::bigint) FROM unnest(new_pending) AS x),
        'ended', ended, 'partial', partial, 'blocked', blocked, 'lanes', heads, 'walked', walked,
        'oldest', oldest::text::bigint, 'newest', newest::text::bigint,
        'held', held, 'missed', CASE WHEN obtained < cardinality(picked)
                       THEN (SELECT jsonb_agg(c_ids[p]) FROM unnest(picked) AS p) END,
        'now', (extract(epoch FROM now_at) * 1000000)::bigint,
        'next_due', (extract(epoch FROM next_due) * 1000000)::bigint,
        'xid', own::text::bigint));
    RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::text, NULL::smallint, NULL::integer,
        NULL::integer, NULL::integer, NULL::text, NULL::bytea, NULL::integer, NULL::text,
        NULL::text, NULL::timestamptz, NULL::boolean, state;
END
$$;
COMMENT ON FUNCTION outbox.look(bigint, bigint, text[], integer[], boolean[], integer, xid8, bigint,
    xid8, xid8[], bigint[], integer[], xid8[], bigint[], integer[], bigint[], timestamptz, xid8,
    xid8, integer, integer, boolean, boolean, integer, xid8, bigint, integer, integer[]) IS
    'reads the stream of committed jobs from a position on, and claims what slots are free for';

-- outbox.sweep(...): the slow check of a stretch of the stream that was read long ago: rows of the
-- tasks that nobody owns. Claims nothing.
--   tasks             names, in byte order
--   from_xid, from_id, to_xid, to_id  the stretch: above the first, up to the second
--   batch             at most so many unowned rows are read
-- Returns one JSON object: position, position_id: how far it came; done: the end was reached;
-- blocked: [lane, xid, id], the first row of each lane (as in outbox.look).
CREATE OR REPLACE FUNCTION outbox.sweep(
    tasks text[], from_xid xid8, from_id bigint, to_xid xid8, to_id bigint,
    batch integer DEFAULT 1000) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    n bigint;
    last_xid xid8;
    last_id bigint;
    lanes integer[];
    xids xid8[];
    ids bigint[];
BEGIN
    SELECT count(*), (array_agg(r.ready_xid))[count(*)::integer],
           (array_agg(r.id))[count(*)::integer],
           array_agg(r.n * 4 + r.priority - 1) FILTER (WHERE tasks[r.n] = r.task),
           array_agg(r.ready_xid) FILTER (WHERE tasks[r.n] = r.task),
           array_agg(r.id) FILTER (WHERE tasks[r.n] = r.task)
    INTO n, last_xid, last_id, lanes, xids, ids
    FROM (SELECT q.*, width_bucket(q.task COLLATE "C", tasks) AS n
          FROM (SELECT j.id, j.ready_xid, j.task, j.priority FROM outbox.job j
                WHERE (j.ready_xid, j.id) > (from_xid, from_id)
                  AND (j.ready_xid, j.id) <= (to_xid, to_id)
                  AND j.ready_xid IS NOT NULL AND j.owner IS NULL
                ORDER BY j.ready_xid, j.id
                LIMIT batch) AS q) AS r;
    IF n < batch THEN
        last_xid := to_xid;
        last_id := to_id;
    END IF;
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'position', last_xid::text::bigint, 'position_id', last_id, 'done', n < batch,
        'blocked', (SELECT jsonb_agg(jsonb_build_array(m.lane, m.xid::text::bigint, m.id))
                    FROM (SELECT DISTINCT ON (u.lane) u.* FROM unnest(lanes, xids, ids)
                              AS u(lane, xid, id) ORDER BY u.lane, u.xid, u.id) AS m)));
END
$$;
COMMENT ON FUNCTION outbox.sweep(text[], xid8, bigint, xid8, bigint, integer) IS
    'the slow check of a stretch of the stream that was read long ago';

-- outbox.still_writing(xids): which of these transactions hold the lock of a writer of outbox.job.
-- The end of another one can bring no job that was enqueued before this was asked.
CREATE OR REPLACE FUNCTION outbox.still_writing(xids xid8[]) RETURNS xid8[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    RETURN ARRAY(
        SELECT x FROM unnest(xids) AS x
        WHERE EXISTS (
            SELECT FROM pg_locks t JOIN pg_locks r ON r.virtualtransaction = t.virtualtransaction
            WHERE t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock' AND t.granted
              AND t.transactionid = (x::text::numeric % 4294967296)::text::xid
              AND r.locktype = 'relation' AND r.relation = 'outbox.job'::regclass
              AND r.database = (SELECT d.oid FROM pg_database d
                                WHERE d.datname = current_database())
              AND r.mode = 'RowExclusiveLock' AND r.granted));
END
$$;
COMMENT ON FUNCTION outbox.still_writing(xid8[]) IS
    'which transactions hold the lock of a writer of outbox.job';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
