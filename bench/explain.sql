-- explain.sql - the dispatcher's main statements, each with the plans and buffers of what it runs
-- inside. For `bench/run --explain`, and for a session of a superuser on any database whose
-- outbox.job may be touched: it claims, settles, and rolls all of it back.
-- Tasks bench1 and bench2 are to have ready jobs. Plain SQL: any client that prints notices will do.
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_analyze = on;
SET auto_explain.log_buffers = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_level = notice;
SET synchronous_commit = off;
SET outbox.notify = off;
BEGIN;
SET LOCAL auto_explain.log_min_duration = -1;
SELECT answer FROM outbox.register(1, 'explain', 'host', 'boot', 'lock', 1, '{}', '0', '{bench1,bench2}', '1 minute');

SET LOCAL auto_explain.log_min_duration = 0;
DO $$ BEGIN RAISE NOTICE '==== look: the stream from its beginning, 100 slots'; END $$;
SELECT count(*) FROM outbox.look(1, 1, '{bench1,bench2}', '{50,50}', '{f,f}', 0, '0', 0, '0', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}', '2100-01-01', NULL, NULL, 100);

DO $$ BEGIN RAISE NOTICE '==== look: the backlog of one lane, 100 slots'; END $$;
SELECT count(*) FROM outbox.look(1, 1001, '{bench1,bench2}', '{100,0}', '{f,f}', 0, NULL, NULL, '0', '{}', '{}',
    '{5}', '{0}', '{0}', '{100}', '{}', '2100-01-01', NULL, NULL, 100);

DO $$ BEGIN RAISE NOTICE '==== look: lanes walked together, 100 slots'; END $$;
SELECT count(*) FROM outbox.look(1, 2001, '{bench1,bench2}', '{50,50}', '{f,f}', 0, NULL, NULL, '0', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}', '2100-01-01', NULL, NULL, 100, 65536, true, true, 400, '0', 0, 2::smallint,
    '{50,50}');

DO $$ BEGIN RAISE NOTICE '==== look: what is due, and a revisit'; END $$;
SELECT count(*) FROM outbox.look(1, 3001, '{bench1,bench2}', '{50,50}', '{f,f}', 0, NULL, NULL, '0', '{}', '{}',
    '{}', '{}', '{}', '{}', (SELECT array_agg(j.id) FROM (
        SELECT id FROM outbox.job WHERE owner IS NULL AND ready_xid IS NOT NULL ORDER BY id LIMIT 10) AS j),
    '-infinity', NULL, NULL, 100);

DO $$ BEGIN RAISE NOTICE '==== settle: 100 that succeeded'; END $$;
SELECT count(*) FROM outbox.settle(1,
    ARRAY(SELECT id FROM outbox.job WHERE owner = 1 AND claim BETWEEN 1 AND 100 ORDER BY claim),
    ARRAY(SELECT claim FROM outbox.job WHERE owner = 1 AND claim BETWEEN 1 AND 100 ORDER BY claim),
    NULL, false, true);

DO $$ BEGIN RAISE NOTICE '==== settle: 100, a third to be tried again, a third dead'; END $$;
SELECT count(*) FROM outbox.settle(1,
    ARRAY(SELECT id FROM outbox.job WHERE owner = 1 AND claim BETWEEN 1001 AND 1100 ORDER BY claim),
    ARRAY(SELECT claim FROM outbox.job WHERE owner = 1 AND claim BETWEEN 1001 AND 1100 ORDER BY claim),
    (SELECT jsonb_agg(CASE claim % 3
                      WHEN 0 THEN '{"outcome": "retry", "reason": "exit 1", "delay_ms": 5000}'::jsonb
                      WHEN 1 THEN '{"outcome": "dead", "reason": "exit 65"}'::jsonb
                      ELSE 'null'::jsonb END ORDER BY claim)
     FROM outbox.job WHERE owner = 1 AND claim BETWEEN 1001 AND 1100), true, true);

DO $$ BEGIN RAISE NOTICE '==== claim: 100, as pull consumers do'; END $$;
SELECT count(*) FROM outbox.claim(1, 4001, '{bench1,bench2}', '{50,50}');
ROLLBACK;
