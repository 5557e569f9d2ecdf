-- views.sql: what readers see. Plain reads that lock nothing; no payloads.
-- min_level: 1
--
-- When you change this file: columns are added at the end only (CREATE OR REPLACE VIEW).

-- outbox.jobs: all jobs, live, dead and done, with their state.
CREATE OR REPLACE VIEW outbox.jobs AS
SELECT j.id, j.task,
       CASE WHEN j.owner IS NOT NULL THEN 'running'
            WHEN j.ready_xid IS NOT NULL THEN 'ready'
            WHEN j.run_at IS NOT NULL THEN 'scheduled'
            ELSE 'waiting' END AS state,
       j.priority, j.key, j.run_at, j.expires_at, j.attempts, j.max_attempts, j.lost, j.created_at,
       NULL::timestamptz AS finished_at, NULL::text AS reason, j.encoding,
       octet_length(j.payload) AS payload_size, j.owner,
       -- Not a join: a page of jobs by id then reads the primary keys and no more.
       (SELECT d.name FROM outbox.dispatcher d WHERE d.id = j.owner) AS dispatcher, j.headers
FROM outbox.job j
UNION ALL
SELECT id, task, 'dead', priority, key, run_at, expires_at, attempts, max_attempts, lost,
       created_at, finished_at, reason, encoding, octet_length(payload), NULL, NULL, headers
FROM outbox.dead
UNION ALL
SELECT id, task, 'done', priority, key, run_at, expires_at, attempts, max_attempts, lost,
       created_at, finished_at, NULL, encoding, octet_length(payload), NULL, NULL, headers
FROM outbox.done;
COMMENT ON VIEW outbox.jobs IS
    'all jobs with their state (ready, scheduled, waiting, running, dead, done), without payloads';

-- outbox.dispatchers: who is there. live: it beat within its lease, by the server's clock.
CREATE OR REPLACE VIEW outbox.dispatchers AS
SELECT d.id, d.name, d.host, d.pid, d.version, d.tasks, d.started_at, d.beat, d.beat_at, d.lease,
       d.beat_at + d.lease > clock_timestamp() AS live,
       coalesce(r.running, 0) AS running, d.boot_id, d.lock_id, d.backends
FROM outbox.dispatcher d
LEFT JOIN (SELECT j.owner, count(*) AS running FROM outbox.job j
           WHERE j.owner IS NOT NULL AND j.ready_xid IS NOT NULL GROUP BY j.owner) AS r
               ON r.owner = d.id;
COMMENT ON VIEW outbox.dispatchers IS
    'registered dispatchers: heartbeat, tasks, and how many jobs each runs';

-- outbox.stats: jobs a task and state; handlers: live dispatchers that have a handler for the task.
-- 0: nobody will run these.
CREATE OR REPLACE VIEW outbox.stats AS
SELECT s.task, s.state, s.count, clock_timestamp() - s.oldest AS oldest_age,
       (SELECT count(DISTINCT d.name)::integer FROM outbox.dispatcher d
        WHERE s.task = ANY (d.tasks) AND d.beat_at + d.lease > clock_timestamp()) AS handlers
FROM (SELECT j.task, j.state, count(*) AS count, min(j.created_at) AS oldest
      FROM outbox.jobs j GROUP BY j.task, j.state) AS s;
COMMENT ON VIEW outbox.stats IS
    'per task and state: how many jobs, age of the oldest, live dispatchers that handle it';

-- outbox.attempts: attempts that did not succeed, of jobs that are still there.
CREATE OR REPLACE VIEW outbox.attempts AS
SELECT job_id, attempt, started_at, duration_ms, outcome, reason, exit_code, signal, http_status,
       output_head, output_tail, output_bytes, dispatcher
FROM outbox.attempt
ORDER BY job_id, seq;
COMMENT ON VIEW outbox.attempts IS
    'attempts that did not succeed, with the head and tail of their output';
