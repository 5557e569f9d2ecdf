-- 0001_tables.sql: the tables of schema outbox, their indexes and storage settings.
-- min_level: 1
--
-- Applied once, by `outbox migrate`, in one transaction, by the role that shall own the schema.
-- Tables are never written from outside: functions_*.sql are the one door, views.sql is the one
-- window.
--
-- When you change this file: it may be edited only until version 0.1.0 is tagged; afterwards add a
-- numbered file. No index of outbox.job may mention owner, claim, attempts or lost, in its columns
-- or its predicate: a claim must stay a HOT update (tests/db/check_sql_claim.c proves it).

CREATE SCHEMA outbox;
COMMENT ON SCHEMA outbox IS 'pgoutbox: jobs enqueued in transactions, and what dispatches them';

CREATE TABLE outbox.migration (
    version    integer,
    name       text        NOT NULL PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    min_level  integer     NOT NULL
);
COMMENT ON TABLE outbox.migration IS
    'which files of sql/ this schema is made of; written by `outbox migrate`';
COMMENT ON COLUMN outbox.migration.version IS
    'number of a numbered file; NULL for one that is applied again when it changes';
COMMENT ON COLUMN outbox.migration.name IS 'file name';
COMMENT ON COLUMN outbox.migration.checksum IS 'SHA-256 of the file as applied, in hexadecimal';
COMMENT ON COLUMN outbox.migration.applied_at IS 'when it was applied (last)';
COMMENT ON COLUMN outbox.migration.min_level IS
    'the level of the oldest program that may still run after it';

-- Live work only: a job leaves this table when it is done, dead or cancelled.
-- fillfactor 45 leaves room on each page for the new versions that claims write: they are 16 bytes
-- larger, and with 50 one claim in eight found no room for a HOT update.
CREATE TABLE outbox.job (
    id           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ready_xid    xid8,
    owner        bigint,
    claim        bigint,
    place        bigint,
    created_at   timestamptz NOT NULL,
    run_at       timestamptz,
    expires_at   timestamptz,
    repeat_every interval,
    attempts     integer     NOT NULL DEFAULT 0,
    lost         integer     NOT NULL DEFAULT 0,
    unmet        integer,
    max_attempts smallint,
    priority     smallint    NOT NULL DEFAULT 2,
    logged       boolean     NOT NULL DEFAULT false,
    waiting      boolean     NOT NULL DEFAULT false,
    linked       boolean     NOT NULL DEFAULT false,
    runs_anyway  boolean,
    notify_done  boolean,
    task         text        NOT NULL,
    encoding     text        NOT NULL,
    key          text,
    unique_key   text,
    claimed_unique_key text,
    headers      jsonb,
    payload      bytea       NOT NULL,
    CONSTRAINT job_priority CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT job_payload CHECK (pg_catalog.octet_length(payload) <= 16777216),
    CONSTRAINT job_claim CHECK ((owner IS NULL) = (claim IS NULL))
) WITH (
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off,
    toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 5000,
    toast.autovacuum_vacuum_cost_delay = 0,
    toast.vacuum_truncate = off
);
COMMENT ON TABLE outbox.job IS
    'live jobs: ready, scheduled, waiting or running; finished ones leave';
COMMENT ON COLUMN outbox.job.id IS 'the job''s id, for ever: kept when it dies and is retried';
COMMENT ON COLUMN outbox.job.ready_xid IS
    'transaction that made the row ready; NULL while it is not';
COMMENT ON COLUMN outbox.job.owner IS 'dispatcher that holds a claim on it; NULL: nobody';
COMMENT ON COLUMN outbox.job.claim IS
    'number of that claim: (owner, claim) is its token, never issued twice';
COMMENT ON COLUMN outbox.job.place IS
    'its place in the line of its key, of which one, not waiting, is at the head; NULL: in no line';
COMMENT ON COLUMN outbox.job.created_at IS
    'when it was enqueued (the clock, not the transaction''s start)';
COMMENT ON COLUMN outbox.job.run_at IS 'not before this time; NULL: it was never scheduled';
COMMENT ON COLUMN outbox.job.expires_at IS
    'from then on it is not run any more but put aside as dead; NULL: never';
COMMENT ON COLUMN outbox.job.repeat_every IS
    'so long after it succeeded it is to run again; NULL: it is deleted then';
COMMENT ON COLUMN outbox.job.attempts IS 'counted attempts so far, a running one included';
COMMENT ON COLUMN outbox.job.lost IS
    'claims that ended without a result: their dispatcher was lost';
COMMENT ON COLUMN outbox.job.unmet IS
    'so many of the jobs that it depends on have not succeeded yet; NULL: it depends on none';
COMMENT ON COLUMN outbox.job.max_attempts IS
    'attempts after which it is dead; NULL: as the task is configured';
COMMENT ON COLUMN outbox.job.priority IS '1 (first) to 4 (last)';
COMMENT ON COLUMN outbox.job.logged IS 'outbox.attempt holds rows of this job';
COMMENT ON COLUMN outbox.job.waiting IS
    'behind another job: of its key (place is set), or one that it depends on (unmet is not 0)';
COMMENT ON COLUMN outbox.job.linked IS
    'its end means more than its deletion: it has a key, repeats, others depend on it, or it is told';
COMMENT ON COLUMN outbox.job.runs_anyway IS
    'true: it runs even if a job that it depends on did not succeed';
COMMENT ON COLUMN outbox.job.notify_done IS 'true: its end is told on the channel outbox_done';
COMMENT ON COLUMN outbox.job.task IS 'the name it was put under; handlers are registered for names';
COMMENT ON COLUMN outbox.job.encoding IS 'of the payload: json or msgpack';
COMMENT ON COLUMN outbox.job.key IS
    'jobs of one task and key run one at a time, in order; NULL: no order';
COMMENT ON COLUMN outbox.job.unique_key IS
    'at most one waiting job of a task and unique key; NULL: any number';
COMMENT ON COLUMN outbox.job.claimed_unique_key IS
    'its unique key while it runs: a claim moves it here, where it keeps no other job out';
COMMENT ON COLUMN outbox.job.headers IS
    'JSON object handed through to the handler (trace context and the like)';
COMMENT ON COLUMN outbox.job.payload IS 'what the handler gets, as stored; at most 16 MiB';

-- The stream: ready rows in the order in which their transactions began to make them ready.
CREATE INDEX job_stream ON outbox.job (ready_xid, id) INCLUDE (task, priority)
    WHERE ready_xid IS NOT NULL;
-- The lanes: the same rows, by task and priority.
CREATE INDEX job_lanes ON outbox.job (task, priority, ready_xid, id) WHERE ready_xid IS NOT NULL;
-- What is to become ready by the clock.
CREATE INDEX job_scheduled ON outbox.job (run_at, id)
    WHERE ready_xid IS NULL AND run_at IS NOT NULL AND NOT waiting;
-- The lines of the keys: who is at the head (ready, running, or to be tried again), who is behind.
CREATE INDEX job_heads ON outbox.job (task, key, place) WHERE place IS NOT NULL AND NOT waiting;
CREATE INDEX job_lines ON outbox.job (task, key, place) WHERE place IS NOT NULL AND waiting;

-- One waiting job a unique key: a claim takes it out of here.
CREATE UNIQUE INDEX job_unique ON outbox.job (task, unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE outbox.dead (
    id           bigint      NOT NULL PRIMARY KEY,
    place        bigint,
    created_at   timestamptz NOT NULL,
    run_at       timestamptz,
    expires_at   timestamptz,
    finished_at  timestamptz NOT NULL,
    repeat_every interval,
    attempts     integer     NOT NULL,
    lost         integer     NOT NULL,
    max_attempts smallint,
    priority     smallint    NOT NULL,
    logged       boolean     NOT NULL,
    blocks       boolean     NOT NULL DEFAULT false,
    notify_done  boolean,
    task         text        NOT NULL,
    encoding     text        NOT NULL,
    key          text,
    unique_key   text,
    reason       text        NOT NULL,
    headers      jsonb,
    payload      bytea       NOT NULL
);
COMMENT ON TABLE outbox.dead IS
    'jobs that were given up, whole, until they are retried or cancelled';
COMMENT ON COLUMN outbox.dead.id IS 'the job''s id';
COMMENT ON COLUMN outbox.dead.place IS 'its place in the line of its key, if it blocks that';
COMMENT ON COLUMN outbox.dead.created_at IS 'when it was enqueued';
COMMENT ON COLUMN outbox.dead.run_at IS 'when it was last scheduled for; NULL: never';
COMMENT ON COLUMN outbox.dead.expires_at IS 'when it was to be given up at the latest; NULL: never';
COMMENT ON COLUMN outbox.dead.finished_at IS 'when it was given up';
COMMENT ON COLUMN outbox.dead.repeat_every IS 'how long after a success it was to run again';
COMMENT ON COLUMN outbox.dead.attempts IS 'counted attempts';
COMMENT ON COLUMN outbox.dead.lost IS 'claims that ended without a result';
COMMENT ON COLUMN outbox.dead.max_attempts IS 'its own limit of attempts; NULL: the task''s';
COMMENT ON COLUMN outbox.dead.priority IS '1 (first) to 4 (last)';
COMMENT ON COLUMN outbox.dead.logged IS 'outbox.attempt holds rows of this job';
COMMENT ON COLUMN outbox.dead.blocks IS
    'the jobs of its key wait until it is retried or cancelled';
COMMENT ON COLUMN outbox.dead.notify_done IS 'true: its end is told on the channel outbox_done';
COMMENT ON COLUMN outbox.dead.task IS 'the name it was put under';
COMMENT ON COLUMN outbox.dead.encoding IS 'of the payload: json or msgpack';
COMMENT ON COLUMN outbox.dead.key IS 'the key it was ordered by';
COMMENT ON COLUMN outbox.dead.unique_key IS 'the unique key it had';
COMMENT ON COLUMN outbox.dead.reason IS 'why it was given up: exit 65, HTTP 410, expired, ...';
COMMENT ON COLUMN outbox.dead.headers IS 'JSON object handed through to the handler';
COMMENT ON COLUMN outbox.dead.payload IS 'the payload, as stored';
CREATE INDEX dead_task ON outbox.dead (task, finished_at);
CREATE INDEX dead_finished ON outbox.dead (finished_at);
CREATE INDEX dead_blocks ON outbox.dead (task, key) WHERE blocks;

CREATE TABLE outbox.done (
    id           bigint      NOT NULL PRIMARY KEY,
    created_at   timestamptz NOT NULL,
    run_at       timestamptz,
    expires_at   timestamptz,
    finished_at  timestamptz NOT NULL,
    keep_until   timestamptz,
    attempts     integer     NOT NULL,
    lost         integer     NOT NULL,
    max_attempts smallint,
    priority     smallint    NOT NULL,
    logged       boolean     NOT NULL,
    task         text        NOT NULL,
    encoding     text        NOT NULL,
    key          text,
    unique_key   text,
    headers      jsonb,
    payload      bytea       NOT NULL
);
COMMENT ON TABLE outbox.done IS
    'jobs done, kept for as long as their task''s retention asks; else they are deleted';
COMMENT ON COLUMN outbox.done.id IS 'the job''s id';
COMMENT ON COLUMN outbox.done.created_at IS 'when it was enqueued';
COMMENT ON COLUMN outbox.done.run_at IS 'when it was last scheduled for; NULL: never';
COMMENT ON COLUMN outbox.done.expires_at IS 'when it was to be given up at the latest; NULL: never';
COMMENT ON COLUMN outbox.done.finished_at IS 'when its success was recorded';
COMMENT ON COLUMN outbox.done.keep_until IS
    'from then on it may be removed; NULL: by outbox.purge_done alone';
COMMENT ON COLUMN outbox.done.attempts IS 'counted attempts, the successful one included';
COMMENT ON COLUMN outbox.done.lost IS 'claims that ended without a result';
COMMENT ON COLUMN outbox.done.max_attempts IS 'its own limit of attempts; NULL: the task''s';
COMMENT ON COLUMN outbox.done.priority IS '1 (first) to 4 (last)';
COMMENT ON COLUMN outbox.done.logged IS 'outbox.attempt holds rows of this job';
COMMENT ON COLUMN outbox.done.task IS 'the name it was put under';
COMMENT ON COLUMN outbox.done.encoding IS 'of the payload: json or msgpack';
COMMENT ON COLUMN outbox.done.key IS 'the key it was ordered by';
COMMENT ON COLUMN outbox.done.unique_key IS 'the unique key it had';
COMMENT ON COLUMN outbox.done.headers IS 'JSON object handed through to the handler';
COMMENT ON COLUMN outbox.done.payload IS 'the payload, as stored';
CREATE INDEX done_task ON outbox.done (task, finished_at);
CREATE INDEX done_finished ON outbox.done (finished_at);
CREATE INDEX done_until ON outbox.done (keep_until) WHERE keep_until IS NOT NULL;

-- Limits of tasks; most have none. Once there was one, every transaction that enqueues reads this, so
-- it is kept small.
CREATE TABLE outbox.task (
    task      text    NOT NULL PRIMARY KEY,
    max_ready integer NOT NULL CHECK (max_ready > 0),
    number    bigint  NOT NULL GENERATED ALWAYS AS IDENTITY
);
COMMENT ON TABLE outbox.task IS 'tasks that have a limit';
COMMENT ON COLUMN outbox.task.number IS
    'counts the limits that were ever set; while its sequence is unused, nobody looks here';
COMMENT ON COLUMN outbox.task.task IS 'task name';
COMMENT ON COLUMN outbox.task.max_ready IS
    'while so many of its jobs are ready, further ones are refused';

-- Who waits for whom. No foreign keys: jobs leave, and whoever removes one says what that means for
-- those that wait for it. A row's parent is locked by whoever inserts it.
CREATE TABLE outbox.dependency (
    after_id bigint NOT NULL,
    job_id   bigint NOT NULL,
    PRIMARY KEY (after_id, job_id)
);
COMMENT ON TABLE outbox.dependency IS 'which jobs wait for which others to succeed';
COMMENT ON COLUMN outbox.dependency.after_id IS 'id of the job that has to succeed, which is live';
COMMENT ON COLUMN outbox.dependency.job_id IS 'id of the job that waits';
CREATE INDEX dependency_job ON outbox.dependency (job_id);

-- How far the slow check of the keys came (outbox.mend): one row, for all dispatchers.
CREATE TABLE outbox.mended (
    row_of_one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (row_of_one),
    task       text    NOT NULL DEFAULT '',
    key        text    NOT NULL DEFAULT '',
    after_id   bigint  NOT NULL DEFAULT 0
);
INSERT INTO outbox.mended DEFAULT VALUES;
COMMENT ON TABLE outbox.mended IS 'how far the slow check of the keys came: one row';
COMMENT ON COLUMN outbox.mended.row_of_one IS 'true';
COMMENT ON COLUMN outbox.mended.task IS 'the task it looked at last; empty: it begins anew';
COMMENT ON COLUMN outbox.mended.key IS 'and the key';
COMMENT ON COLUMN outbox.mended.after_id IS 'the last job that others depend on; 0: it begins anew';

-- Attempts that did not succeed. No foreign key: the job moves between tables.
CREATE TABLE outbox.attempt (
    job_id       bigint      NOT NULL,
    seq          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    started_at   timestamptz,
    duration_ms  bigint,
    output_bytes bigint,
    attempt      integer     NOT NULL,
    exit_code    integer,
    signal       integer,
    http_status  integer,
    outcome      text        NOT NULL CHECK (outcome IN ('retry', 'dead', 'lost')),
    reason       text        NOT NULL,
    dispatcher   text,
    output_head  bytea,
    output_tail  bytea,
    PRIMARY KEY (job_id, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000
);
CREATE INDEX attempt_started ON outbox.attempt (started_at);
COMMENT ON TABLE outbox.attempt IS 'attempts that did not succeed, of jobs in job, dead and done';
COMMENT ON COLUMN outbox.attempt.job_id IS 'id of the job';
COMMENT ON COLUMN outbox.attempt.seq IS
    'order of recording: attempt numbers begin again when a dead job is retried';
COMMENT ON COLUMN outbox.attempt.started_at IS
    'when it began, by the dispatcher''s clock; NULL: not known';
COMMENT ON COLUMN outbox.attempt.duration_ms IS
    'how long it took, in milliseconds; NULL: not known';
COMMENT ON COLUMN outbox.attempt.output_bytes IS
    'bytes of output in all; what head and tail do not hold was dropped';
COMMENT ON COLUMN outbox.attempt.attempt IS 'number of the attempt, from 1';
COMMENT ON COLUMN outbox.attempt.exit_code IS 'exit code of the command; NULL: none';
COMMENT ON COLUMN outbox.attempt.signal IS 'signal that ended the command; NULL: none';
COMMENT ON COLUMN outbox.attempt.http_status IS 'status of the response; NULL: none';
COMMENT ON COLUMN outbox.attempt.outcome IS 'retry, dead, or lost (its dispatcher was lost)';
COMMENT ON COLUMN outbox.attempt.reason IS 'exit 3, signal 9, timeout, HTTP 503, ...';
COMMENT ON COLUMN outbox.attempt.dispatcher IS 'name of the dispatcher that ran it';
COMMENT ON COLUMN outbox.attempt.output_head IS 'how its output, or the response, began';
COMMENT ON COLUMN outbox.attempt.output_tail IS 'how it ended, if it is longer than the head';

CREATE TABLE outbox.dispatcher (
    id         bigint      NOT NULL PRIMARY KEY,
    beat       bigint      NOT NULL DEFAULT 0,
    beat_at    timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    lease      interval    NOT NULL,
    oldest_claim xid8,
    newest_claim xid8,
    pid        integer     NOT NULL,
    name       text        NOT NULL,
    host       text        NOT NULL,
    boot_id    text        NOT NULL,
    lock_id    text        NOT NULL,
    version    text        NOT NULL,
    backends   integer[]   NOT NULL,
    tasks      text[]      NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 500,
    vacuum_truncate = off
);
COMMENT ON TABLE outbox.dispatcher IS
    'running dispatchers and pull consumers: one row, and one heartbeat, each';
COMMENT ON COLUMN outbox.dispatcher.id IS 'random; a new one for each connection it works on';
COMMENT ON COLUMN outbox.dispatcher.beat IS
    'heartbeats so far; unchanged for a whole lease: it is lost';
COMMENT ON COLUMN outbox.dispatcher.beat_at IS 'when it last beat, by the server''s clock';
COMMENT ON COLUMN outbox.dispatcher.started_at IS 'when it registered';
COMMENT ON COLUMN outbox.dispatcher.lease IS
    'how long it may be silent before its jobs are taken over';
COMMENT ON COLUMN outbox.dispatcher.oldest_claim IS
    'no job it owns was made ready by an earlier transaction; NULL: it has never owned one';
COMMENT ON COLUMN outbox.dispatcher.newest_claim IS
    'nor by a later one: so much of the stream is searched for its jobs when it is lost';
COMMENT ON COLUMN outbox.dispatcher.pid IS 'its process id, on its host';
COMMENT ON COLUMN outbox.dispatcher.name IS 'its name: exclusive among the living';
COMMENT ON COLUMN outbox.dispatcher.host IS 'host it runs on';
COMMENT ON COLUMN outbox.dispatcher.boot_id IS
    'boot id of that host: another one means that nothing of it survived';
COMMENT ON COLUMN outbox.dispatcher.lock_id IS
    'identity of the lock file of its name: who holds that lock may take its jobs back at once';
COMMENT ON COLUMN outbox.dispatcher.version IS 'version of the program';
COMMENT ON COLUMN outbox.dispatcher.backends IS
    'process ids of its server sessions, which a take-over ends';
COMMENT ON COLUMN outbox.dispatcher.tasks IS 'tasks it has a handler for';

-- Apart from outbox.dispatcher, whose rows have a new version with every heartbeat: under an old
-- snapshot, which keeps all of them, each claim would have to step over them.
CREATE TABLE outbox.owner (
    id bigint NOT NULL PRIMARY KEY REFERENCES outbox.dispatcher (id) ON DELETE CASCADE
);
COMMENT ON TABLE outbox.owner IS
    'ids under which jobs may be owned: a claim keeps its row until it has committed, a take-over '
    'removes it';
COMMENT ON COLUMN outbox.owner.id IS 'id of a row of outbox.dispatcher';

-- Small, and empty most of the time: who asks for the end of a running job, and which tasks rest.
CREATE TABLE outbox.cancelling (
    id           bigint      NOT NULL PRIMARY KEY,
    requested_at timestamptz NOT NULL,
    ended_at     timestamptz,
    requested_by text        NOT NULL
);
COMMENT ON TABLE outbox.cancelling IS
    'running jobs that are to end: whatever ends their claim removes them';
COMMENT ON COLUMN outbox.cancelling.id IS 'id of the job';
COMMENT ON COLUMN outbox.cancelling.requested_at IS 'when that was asked for';
COMMENT ON COLUMN outbox.cancelling.ended_at IS
    'when the job was removed because of it; NULL: not yet, or it was done before';
COMMENT ON COLUMN outbox.cancelling.requested_by IS 'role that asked for it';

CREATE TABLE outbox.requeueing (
    id           bigint      NOT NULL PRIMARY KEY,
    owner        bigint      NOT NULL,
    claim        bigint      NOT NULL,
    requested_at timestamptz NOT NULL,
    requested_by text        NOT NULL
);
COMMENT ON TABLE outbox.requeueing IS
    'runs that are to end, and whose jobs are to be ready again; of no meaning once the claim ended';
COMMENT ON COLUMN outbox.requeueing.id IS 'id of the job';
COMMENT ON COLUMN outbox.requeueing.owner IS 'dispatcher that runs it, with the next the claim''s token';
COMMENT ON COLUMN outbox.requeueing.claim IS 'claim number of that run: no later one is meant';
COMMENT ON COLUMN outbox.requeueing.requested_at IS 'when that was asked for';
COMMENT ON COLUMN outbox.requeueing.requested_by IS 'role that asked for it';

CREATE TABLE outbox.paused (
    task      text        NOT NULL PRIMARY KEY,
    since     timestamptz NOT NULL,
    paused_by text        NOT NULL,
    reason    text
);
COMMENT ON TABLE outbox.paused IS 'tasks of which no job is handed out, until outbox.resume';
COMMENT ON COLUMN outbox.paused.task IS 'task name';
COMMENT ON COLUMN outbox.paused.since IS 'when it was paused';
COMMENT ON COLUMN outbox.paused.paused_by IS
    'role that did it; a dispatcher''s, if an endpoint answered that it is gone';
COMMENT ON COLUMN outbox.paused.reason IS 'why, for those who look';
