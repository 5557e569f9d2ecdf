#!/usr/bin/env bash
# Sourced by bench/run: the rows and their targets, and what is measured of enqueue, latency and claim.
# A row is a function row_NAME.
# shellcheck disable=SC2154,SC2034 # bench/run sets bench, dir, runs, server_pid, and uses rows

rows=(
    "enqueue    transactions/s of 32 clients that enqueue beside a business write, the dispatcher draining"
    "producers  the same by the number of clients, 1 to 64"
    "latency    from COMMIT to the start of the handler, idle"
    "claim      jobs/s claimed and completed, discard handler, 100 and 1000 slots"
    "backlog    the same by the jobs that wait, 10,000 to 10 million"
    "dead       the same by the finished jobs that an old snapshot keeps, none to 1 million"
    "tasks      the same by the number of tasks, 1 to 100"
    "writers    the same by connections that have written and not committed, none to 200"
    "crowd      the same with 100 tasks and 200 open writers, and with 1 and 1"
    "payload    MB/s and jobs/s by the size of the payload, 100 B to 1 MB: enqueued, claimed, delivered"
    "exec       jobs/s that run /bin/true"
    "worker     jobs/s done by resident worker processes"
    "webhook    jobs/s posted to nginx on loopback, 1, 10 and 50 at once, and with TLS"
    "graphile   the same work done by graphile-worker: trivial task, fetch, executable"
    "memory     what a dispatcher costs when idle, and with a backlog"
)

# One line each: row, what, metric, ours, its x, baseline, its x, kind, limit. A ratio is taken of each
# run's two figures; the targets are the design's.
targets() {
    local dead
    dead=$(pick 100000 1000000)
    tr '|' '\t' <<END
enqueue|transactions/s, beside a plain INSERT|tps|outbox|-|plain|-|ratio>=|0.95
enqueue|transactions/s, beside a NOTIFY trigger|tps|outbox|-|notify|-|ratio>=|2
enqueue|the same, beside a plain INSERT undrained|tps|outbox|-|undrained|-|info|
latency|ms from commit to handler, p50|p50_ms|webhook|-|bare|-|value<=|1.5
latency|ms from commit to handler, p99|p99_ms|webhook|-|bare|-|value<=|5
claim|jobs/s, 100 slots|jobs_per_s|outbox|100|bare|100|value>=|150000
claim|jobs/s, 1000 slots|jobs_per_s|outbox|1000|bare|1000|value>=|150000
backlog|jobs/s, $backlog_max waiting against 10000|jobs_per_s|outbox|$backlog_max|outbox|10000|ratio>=|0.9
dead|jobs/s, $dead dead against none|jobs_per_s|outbox|$dead|outbox|0|ratio>=|0.9
crowd|jobs/s, 100 tasks, 200 writers against 1, 1|jobs_per_s|outbox|100x200|outbox|1x1|ratio>=|0.9
exec|jobs/s of /bin/true, beside posix_spawn|jobs_per_s|outbox|-|posix_spawn|-|ratio>=|0.9
exec|jobs/s of /bin/true, beside xargs -P|jobs_per_s|outbox|-|xargs|-|info|
exec|processor us of a job, beside posix_spawn|process_us|outbox|-|posix_spawn|-|info|
exec|processes/s without a database, small|jobs_per_s|path|0|posix_spawn|0|ratio>=|0.9
exec|processes/s without a database, 200 MB|jobs_per_s|path|200|posix_spawn|200|ratio>=|0.9
exec|processor us without a database, small|process_us|path|0|posix_spawn|0|info|
exec|processes/s beside uv_spawn, small|jobs_per_s|path|0|uv_spawn|0|info|
exec|processes/s beside uv_spawn, 200 MB|jobs_per_s|path|200|uv_spawn|200|info|
worker|jobs/s, window 16|jobs_per_s|outbox|16|bare|16|value>=|60000
worker|jobs/s, window 1|jobs_per_s|outbox|1|bare|1|info|
worker|jobs/s, window 16, beside bare pipes|jobs_per_s|outbox|16|bare|16|info|
webhook|jobs/s, 50 at once, beside a bare libcurl loop|jobs_per_s|outbox|50|libcurl|50|ratio>=|0.6
webhook|the same, 10 at once|jobs_per_s|outbox|10|libcurl|10|info|
webhook|the same, one at a time|jobs_per_s|outbox|1|libcurl|1|info|
webhook|the same, 50 at once with TLS|jobs_per_s|outbox|tls50|libcurl|tls50|info|
webhook|processor us of a job, 50 at once|process_us|outbox|50|libcurl|50|info|
webhook|jobs/s, 50 at once, beside wrk|jobs_per_s|outbox|50|wrk|50|info|
graphile|jobs/s, trivial task, its best batched mode|jobs_per_s|outbox|trivial|graphile|trivial|ratio>=|4
graphile|jobs/s, webhook, its task calling fetch|jobs_per_s|outbox|webhook|graphile|webhook|ratio>=|4
graphile|jobs/s, command, its executables|jobs_per_s|outbox|command|graphile|command|ratio>=|3
memory|kB resident, idle|rss_kb|idle|-||-|value<=|16384
memory|kB private, idle|private_kb|idle|-||-|value<=|4096
memory|statements/s, idle|statements_per_s|idle|-||-|value<=|1.5
memory|% of a processor, idle|cpu_percent|idle|-||-|value<=|0.1
memory|kB resident, with a backlog of $(pick 100000 1000000)|rss_kb|backlog|-||-|value<=|32768
END
}

each_run() { seq "$runs"; }

# Measures the jobs of a database while a command drains it: when the first tenth is gone the clock starts.
watch() { # ROW VARIANT X DATABASE JOBS COMMAND...
    local row=$1 variant=$2 x=$3 db=$4 jobs=$5 ids limit
    shift 5
    limit=$(pick 20 60)
    ids=$(value "$db" "SELECT (SELECT id FROM $jobs_table WHERE $unclaimed ORDER BY id OFFSET $((jobs / 10)) LIMIT 1),
        (SELECT id FROM $jobs_table WHERE $unclaimed ORDER BY id OFFSET $((jobs - 1)) LIMIT 1)")
    measure "$row" "$variant" "$x" $((limit * 2 + 30)) "${bench}watch" "$(conninfo "$db")" "$jobs_table" \
        "${ids%|*}" "${ids#*|}" "$server_pid" "$limit" "$@"
}
jobs_table=outbox.job
unclaimed='owner IS NULL'

discard_config() { # SLOTS
    configure <<END
tasks: { bench: { discard: true, concurrency: $1 } }
END
}

# --- enqueue ---

# The same table and the same draining dispatcher for all but undrained: only the way in differs.
enqueue_db() { # VARIANT
    new_db bench_enqueue
    if [[ $1 == notify ]]; then
        value bench_enqueue "CREATE FUNCTION notify_row() RETURNS trigger LANGUAGE plpgsql AS
                \$\$BEGIN PERFORM pg_notify('outbox', ''); RETURN NULL; END\$\$;
            CREATE TRIGGER notify_row AFTER INSERT ON outbox.job
                FOR EACH ROW EXECUTE FUNCTION notify_row()"
    fi
}

enqueue_one() { # ROW VARIANT X CLIENTS MS TEXT_BYTES
    local mode=outbox.job
    enqueue_db "$2"
    [[ $2 == undrained ]] || start_daemon bench_enqueue
    settle_disk
    [[ $2 != outbox ]] || mode=outbox
    measure "$1" "$2" "$3" $(($5 / 1000 + 60)) "${bench}enqueue" "$(conninfo bench_enqueue)" "$mode" "$4" "$5" "$6" \
        "$server_pid" "${daemon_pid:-0}"
    stop_daemon
}

text_bytes=50

row_enqueue() {
    local variant ms
    ms=$(pick 800 15000)
    discard_config 1000
    for _ in $(each_run); do
        for variant in plain outbox notify undrained; do
            enqueue_one enqueue "$variant" - 32 "$ms" $text_bytes
        done
    done
    drop_db bench_enqueue
}

row_producers() {
    local variant ms clients counts
    ms=$(pick 500 2000)
    read -ra counts <<<"$(pick "1 64" "1 2 4 8 16 32 64")"
    discard_config 1000
    for _ in $(each_run); do
        for clients in "${counts[@]}"; do
            for variant in plain outbox notify; do
                enqueue_one producers "$variant" "$clients" "$clients" "$ms" $text_bytes
            done
        done
    done
    drop_db bench_enqueue
}

# --- latency ---

row_latency() {
    local count pause measuring
    count=$(pick 40 500)
    pause=$(pick 15 30)
    for _ in $(each_run); do
        new_db bench_latency
        measure latency bare - 300 "${bench}latency" "$(conninfo bench_latency)" bare "$count" "$pause"
        rm -f "$dir/port"
        measure latency webhook - 300 "${bench}latency" "$(conninfo bench_latency)" webhook "$count" "$pause" \
            "$dir/port" &
        measuring=$!
        wait_for 10 "bench_latency listens" test -s "$dir/port"
        configure <<END
tasks: { bench: { webhook: "http://127.0.0.1:$(<"$dir/port")/" } }
END
        start_daemon bench_latency
        wait "$measuring"
        stop_daemon
    done
    drop_db bench_latency
}

# --- claim and complete ---

row_claim() {
    local slots jobs
    jobs=$(pick 30000 300000)
    for _ in $(each_run); do
        for slots in 100 1000; do
            new_db bench_claim
            fill bench_claim "$jobs"
            watch claim bare "$slots" bench_claim "$jobs" "${bench}claim" "$(conninfo bench_claim)" "$slots"
            new_db bench_claim
            fill bench_claim "$jobs"
            discard_config "$slots"
            use_daemon bench_claim
            watch claim outbox "$slots" bench_claim "$jobs" "${run_command[@]}"
        done
    done
    drop_db bench_claim
}
