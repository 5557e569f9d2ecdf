#!/usr/bin/env bash
# Sourced by bench/run: --explain, the plans of the statements that claim and settle.
# shellcheck disable=SC2154 # dir, backlog_max, root: bench/run's

# On a table that is filled and analysed. The plans of statements within functions come from auto_explain.
explain() {
    new_db explain
    fill explain "$backlog_max" 2
    value explain "INSERT INTO outbox.job (task, encoding, payload, created_at, run_at)
        SELECT 'bench1', 'json', '{}', now(), now() - interval '1 minute' FROM generate_series(1, 100);
        ANALYZE outbox.job" >/dev/null
    printf 'PostgreSQL %s, %s ready jobs of two tasks\n' "$(value postgres 'SHOW server_version')" "$backlog_max"
    # Notices without where they come from, and without the statement's own table.
    psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d "$(conninfo explain)" -f "$root/bench/explain.sql" 2>&1 |
        sed -E 's/^psql:[^:]*:[0-9]+: //; s/^NOTICE:  (====)/\n\1/' || fail "explaining failed: see above"
}
