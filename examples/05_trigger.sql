-- 05_trigger.sql - jobs from programs that cannot be changed: a trigger enqueues one for each row, in the
-- writer's own transaction.
--
--   psql -d shop -f 05_trigger.sql
\set ON_ERROR_STOP on
BEGIN;

CREATE TABLE IF NOT EXISTS example_customers (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL
);

-- For each statement: one INSERT of jobs for all its rows. The payload is the new row as JSON.
DROP TRIGGER IF EXISTS welcome ON example_customers;
CREATE TRIGGER welcome AFTER INSERT ON example_customers
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION outbox.enqueue_row('send-welcome-email');

-- For each row, and only when it matters. On DELETE the payload would be the old row.
DROP TRIGGER IF EXISTS moved ON example_customers;
CREATE TRIGGER moved AFTER UPDATE ON example_customers
    FOR EACH ROW WHEN (old.email IS DISTINCT FROM new.email)
    EXECUTE FUNCTION outbox.enqueue_row('confirm-address');

INSERT INTO example_customers (email) VALUES ('ann@example.com'), ('bob@example.com');
UPDATE example_customers SET email = 'bob@example.org' WHERE email = 'bob@example.com';

-- Any SQL client can enqueue by hand as well.
SELECT outbox.enqueue('send-welcome-email', '{"id": 7}', delay => interval '5 minutes') AS job;

COMMIT;
