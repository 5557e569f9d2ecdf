-- views.sql: what readers see. Plain reads that lock nothing; no payloads.
-- min_level: 1
--
-- When you change this file: columns are added at the end only (CREATE OR REPLACE VIEW).

-- outbox.jobs: all jobs, live, dead and done, with their state.
CREATE OR REPLACE VIEW outbox.jobs AS
SELECT j.id, j.task,
       CASE WHEN j.owner IS NOT NULL THEN 'running'
            WHEN j.ready_xid IS NOT NULL THEN 'ready'
            WHEN j.waiting THEN 'waiting'
            WHEN j.run_at IS NOT NULL THEN 'scheduled'
            ELSE 'waiting' END AS state,
       j.priority, j.key, j.run_at, j.expires_at, j.attempts, j.max_attempts, j.lost, j.created_at,
       NULL::timestamptz AS finished_at, NULL::text AS reason, j.encoding,
       octet_length(j.payload) AS payload_size, j.owner,
       -- Not a join: a page of jobs by id then reads the primary keys and no more.
       (SELECT d.name FROM outbox.dispatcher d WHERE d.id = j.owner) AS dispatcher, j.headers,
       j.owner IS NOT NULL
       AND EXISTS (SELECT FROM outbox.cancelling c WHERE c.id = j.id AND c.ended_at IS NULL)
           AS cancelling,
       j.owner IS NULL AND EXISTS (SELECT FROM outbox.paused p WHERE p.task = j.task) AS paused
FROM outbox.job j
UNION ALL
SELECT id, task, 'dead', priority, key, run_at, expires_at, attempts, max_attempts, lost,
       created_at, finished_at, reason, encoding, octet_length(payload), NULL, NULL, headers,
       false, false
FROM outbox.dead
UNION ALL
SELECT id, task, 'done', priority, key, run_at, expires_at, attempts, max_attempts, lost,
       created_at, finished_at, NULL, encoding, octet_length(payload), NULL, NULL, headers,
       false, false
FROM outbox.done;
COMMENT ON VIEW outbox.jobs IS
    'all jobs with their state (ready, scheduled, waiting, running, dead, done), without payloads';
COMMENT ON COLUMN outbox.jobs.id IS 'the job''s id';
COMMENT ON COLUMN outbox.jobs.task IS 'the name it was put under';
COMMENT ON COLUMN outbox.jobs.state IS
    'ready, scheduled (run_at is to come), waiting (for another job), running, dead or done';
COMMENT ON COLUMN outbox.jobs.priority IS '1 (first) to 4 (last)';
COMMENT ON COLUMN outbox.jobs.key IS 'jobs of one task and key run one at a time, in order';
COMMENT ON COLUMN outbox.jobs.run_at IS 'not before this time; NULL: it was never scheduled';
COMMENT ON COLUMN outbox.jobs.expires_at IS 'from then on it is not run any more; NULL: never';
COMMENT ON COLUMN outbox.jobs.attempts IS 'counted attempts so far, a running one included';
COMMENT ON COLUMN outbox.jobs.max_attempts IS
    'its own limit of attempts; NULL: as the task is configured';
COMMENT ON COLUMN outbox.jobs.lost IS 'claims that ended without a result';
COMMENT ON COLUMN outbox.jobs.created_at IS 'when it was enqueued';
COMMENT ON COLUMN outbox.jobs.finished_at IS 'when it was done or given up; NULL: it is live';
COMMENT ON COLUMN outbox.jobs.reason IS 'why it was given up; NULL: it is not dead';
COMMENT ON COLUMN outbox.jobs.encoding IS 'of the payload: json or msgpack';
COMMENT ON COLUMN outbox.jobs.payload_size IS 'bytes of the payload, as stored';
COMMENT ON COLUMN outbox.jobs.owner IS 'id of the dispatcher that runs it; NULL: nobody';
COMMENT ON COLUMN outbox.jobs.dispatcher IS 'that dispatcher''s name';
COMMENT ON COLUMN outbox.jobs.headers IS 'JSON object handed through to the handler';
COMMENT ON COLUMN outbox.jobs.cancelling IS 'it runs, and its dispatcher has been told to end it';
COMMENT ON COLUMN outbox.jobs.paused IS 'it does not begin before its task is resumed';

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
COMMENT ON COLUMN outbox.dispatchers.id IS 'random; a new one for each connection it works on';
COMMENT ON COLUMN outbox.dispatchers.name IS 'exclusive among the living';
COMMENT ON COLUMN outbox.dispatchers.host IS 'host it runs on';
COMMENT ON COLUMN outbox.dispatchers.pid IS 'its process id, on its host';
COMMENT ON COLUMN outbox.dispatchers.version IS 'version of the program';
COMMENT ON COLUMN outbox.dispatchers.tasks IS 'tasks it has a handler for';
COMMENT ON COLUMN outbox.dispatchers.started_at IS 'when it registered';
COMMENT ON COLUMN outbox.dispatchers.beat IS 'heartbeats so far';
COMMENT ON COLUMN outbox.dispatchers.beat_at IS 'when it last beat, by the server''s clock';
COMMENT ON COLUMN outbox.dispatchers.lease IS
    'how long it may be silent before its jobs are taken over';
COMMENT ON COLUMN outbox.dispatchers.live IS 'whether it beat within its lease';
COMMENT ON COLUMN outbox.dispatchers.running IS 'jobs that it holds';
COMMENT ON COLUMN outbox.dispatchers.boot_id IS 'boot id of its host';
COMMENT ON COLUMN outbox.dispatchers.lock_id IS 'identity of the lock file of its name';
COMMENT ON COLUMN outbox.dispatchers.backends IS 'process ids of its server sessions';

-- outbox.stats: jobs a task and state; handlers: live dispatchers that have a handler for the task.
-- 0: nobody will run these.
CREATE OR REPLACE VIEW outbox.stats AS
SELECT s.task, s.state, s.count, clock_timestamp() - s.oldest AS oldest_age,
       (SELECT count(DISTINCT d.name)::integer FROM outbox.dispatcher d
        WHERE s.task = ANY (d.tasks) AND d.beat_at + d.lease > clock_timestamp()) AS handlers,
       (SELECT p.since FROM outbox.paused p WHERE p.task = s.task) AS paused_since,
       (SELECT p.reason FROM outbox.paused p WHERE p.task = s.task) AS paused_reason
FROM (SELECT j.task, j.state, count(*) AS count, min(j.created_at) AS oldest
      FROM outbox.jobs j GROUP BY j.task, j.state) AS s;
COMMENT ON VIEW outbox.stats IS
    'per task and state: how many jobs, age of the oldest, live dispatchers that handle it';
COMMENT ON COLUMN outbox.stats.task IS 'task name';
COMMENT ON COLUMN outbox.stats.state IS 'state, as in outbox.jobs';
COMMENT ON COLUMN outbox.stats.count IS 'jobs of this task in this state';
COMMENT ON COLUMN outbox.stats.oldest_age IS 'how long ago the oldest of them was enqueued';
COMMENT ON COLUMN outbox.stats.handlers IS
    'live dispatchers that have a handler for the task; 0: nobody will run them';

COMMENT ON COLUMN outbox.stats.paused_since IS
    'since when no dispatcher claims jobs of the task; NULL: it is not paused';
COMMENT ON COLUMN outbox.stats.paused_reason IS 'why; NULL: nobody said';

-- outbox.pauses: tasks that no dispatcher claims, with jobs or without.
CREATE OR REPLACE VIEW outbox.pauses AS
SELECT p.task, p.since, p.paused_by, p.reason FROM outbox.paused p;
COMMENT ON VIEW outbox.pauses IS 'tasks that were paused and not resumed yet';
COMMENT ON COLUMN outbox.pauses.task IS 'task name';
COMMENT ON COLUMN outbox.pauses.since IS 'when it was paused';
COMMENT ON COLUMN outbox.pauses.paused_by IS 'role that did it';
COMMENT ON COLUMN outbox.pauses.reason IS 'why; NULL: nobody said';

-- outbox.attempts: attempts that did not succeed, of jobs that are still there.
CREATE OR REPLACE VIEW outbox.attempts AS
SELECT job_id, attempt, started_at, duration_ms, outcome, reason, exit_code, signal, http_status,
       output_head, output_tail, output_bytes, dispatcher
FROM outbox.attempt
ORDER BY job_id, seq;
COMMENT ON VIEW outbox.attempts IS
    'attempts that did not succeed, with the head and tail of their output';
COMMENT ON COLUMN outbox.attempts.job_id IS 'id of the job';
COMMENT ON COLUMN outbox.attempts.attempt IS 'number of the attempt, from 1';
COMMENT ON COLUMN outbox.attempts.started_at IS
    'when it began, by the dispatcher''s clock; NULL: not known';
COMMENT ON COLUMN outbox.attempts.duration_ms IS
    'how long it took, in milliseconds; NULL: not known';
COMMENT ON COLUMN outbox.attempts.outcome IS 'retry, dead, or lost (its dispatcher was lost)';
COMMENT ON COLUMN outbox.attempts.reason IS 'exit 3, signal 9, timeout, HTTP 503, ...';
COMMENT ON COLUMN outbox.attempts.exit_code IS 'exit code of the command; NULL: none';
COMMENT ON COLUMN outbox.attempts.signal IS 'signal that ended the command; NULL: none';
COMMENT ON COLUMN outbox.attempts.http_status IS 'status of the response; NULL: none';
COMMENT ON COLUMN outbox.attempts.output_head IS 'how its output, or the response, began';
COMMENT ON COLUMN outbox.attempts.output_tail IS 'how it ended, if it is longer than the head';
COMMENT ON COLUMN outbox.attempts.output_bytes IS
    'bytes of output in all; what head and tail do not hold was dropped';
COMMENT ON COLUMN outbox.attempts.dispatcher IS 'name of the dispatcher that ran it';
