#!/usr/bin/env bash
# Sourced by bench/run: what is measured, the database's side. A row is a function row_NAME.
# shellcheck disable=SC2154,SC2034 # bench/run sets bench, dir, runs, server_pid, and uses rows

rows=(
    "enqueue  transactions/s of 32 clients that enqueue beside a business write, the dispatcher draining"
    "latency  from COMMIT to the start of the handler, idle"
    "claim    jobs/s claimed and completed, discard handler"
    "backlog  the same with 10,000 jobs waiting, and with millions"
    "dead     the same with dead tuples that an old snapshot keeps"
    "tasks    the same with 1 task and 1 open writer, and with 100 and 200"
    "exec     jobs/s that run /bin/true"
    "webhook  jobs/s posted to nginx on loopback"
    "memory   what a dispatcher costs when idle, and with a backlog"
)

# One line each: row, what, metric, ours, its x, baseline, its x, kind, limit. A ratio is taken of each
# run's two figures; the targets are the design's.
targets() {
    local big dead
    big=$(pick 1000000 10000000)
    dead=$(pick 200000 1000000)
    tr '|' '\t' <<END
enqueue|transactions/s, beside a plain INSERT|tps|outbox|-|plain|-|ratio>=|0.95
enqueue|transactions/s, beside a NOTIFY trigger|tps|outbox|-|notify|-|ratio>=|2
enqueue|beside a plain INSERT that nobody drains|tps|outbox|-|undrained|-|info|
latency|ms, p50|p50_ms|webhook|-|bare|-|value<=|1.5
latency|ms, p99|p99_ms|webhook|-|bare|-|value<=|5
claim|jobs/s, 100 slots|jobs_per_s|outbox|100|bare|100|value>=|150000
claim|jobs/s, 1000 slots|jobs_per_s|outbox|1000|bare|1000|info|
backlog|jobs/s, backlog $big against 10000|jobs_per_s|outbox|$big|outbox|10000|ratio>=|0.9
dead|jobs/s, $dead dead against none|jobs_per_s|outbox|$dead|outbox|0|ratio>=|0.9
tasks|jobs/s, 100 tasks, 200 writers against 1, 1|jobs_per_s|outbox|100x200|outbox|1x1|ratio>=|0.9
exec|jobs/s of /bin/true, beside posix_spawn|jobs_per_s|outbox|-|posix_spawn|-|ratio>=|0.9
exec|jobs/s of /bin/true, beside xargs -P|jobs_per_s|outbox|-|xargs|-|info|
webhook|jobs/s, beside a bare libcurl loop|jobs_per_s|outbox|-|libcurl|-|ratio>=|0.6
webhook|jobs/s, beside wrk|jobs_per_s|outbox|-|wrk|-|info|
memory|kB resident, idle|rss_kb|idle|-||-|value<=|16384
memory|kB private, idle|private_kb|idle|-||-|value<=|4096
memory|statements/s, idle|statements_per_s|idle|-||-|value<=|1.5
memory|% of a processor, idle|cpu_percent|idle|-||-|value<=|0.1
memory|kB resident, with a backlog of $(pick 200000 1000000)|rss_kb|backlog|-||-|value<=|32768
END
}

each_run() { seq "$runs"; }

# Measures jobs FIRST (excluded) to LAST of a database, in order of ids, while a command drains it.
watch() { # ROW VARIANT X DATABASE JOBS COMMAND...
    local row=$1 variant=$2 x=$3 db=$4 jobs=$5 first last limit
    shift 5
    limit=$(pick 20 60)
    first=$(value "$db" "SELECT id FROM outbox.job WHERE owner IS NULL ORDER BY id OFFSET $((jobs / 10)) LIMIT 1")
    last=$(value "$db" "SELECT id FROM outbox.job WHERE owner IS NULL ORDER BY id OFFSET $((jobs - 1)) LIMIT 1")
    settle_disk
    measure "$row" "$variant" "$x" $((limit * 2 + 30)) \
        "${bench}watch" "$(conninfo "$db")" "$first" "$last" "$server_pid" "$limit" "$@"
}

discard_config() { # SLOTS
    configure <<END
tasks: { bench: { discard: true, concurrency: $1 } }
END
}

# --- enqueue ---

# The same table and the same draining dispatcher for all but undrained: only the way in differs.
enqueue_db() { # VARIANT
    new_db bench_enqueue
    case $1 in
    plain)
        value bench_enqueue 'ALTER TABLE outbox.job DISABLE TRIGGER job_inserted'
        ;;
    notify)
        value bench_enqueue "ALTER TABLE outbox.job DISABLE TRIGGER job_inserted;
            CREATE FUNCTION notify_row() RETURNS trigger LANGUAGE plpgsql AS
                \$\$BEGIN PERFORM pg_notify('outbox', ''); RETURN NULL; END\$\$;
            CREATE TRIGGER notify_row AFTER INSERT ON outbox.job
                FOR EACH ROW EXECUTE FUNCTION notify_row()"
        ;;
    undrained)
        value bench_enqueue 'ALTER TABLE outbox.job DISABLE TRIGGER job_inserted'
        ;;
    esac
}

row_enqueue() {
    local variant mode seconds
    seconds=$(pick 3 15)
    discard_config 1000
    for _ in $(each_run); do
        for variant in plain outbox notify undrained; do
            enqueue_db "$variant"
            [[ $variant == undrained ]] || start_daemon bench_enqueue
            settle_disk
            mode=outbox.job
            [[ $variant != outbox ]] || mode=outbox
            measure enqueue "$variant" - $((seconds + 60)) "${bench}enqueue" "$(conninfo bench_enqueue)" \
                "$mode" 32 "$seconds" "$server_pid" "${daemon_pid:-0}"
            stop_daemon
        done
    done
    drop_db bench_enqueue
}

# --- latency ---

row_latency() {
    local count pause
    count=$(pick 100 1000)
    pause=$(pick 20 50)
    for _ in $(each_run); do
        new_db bench_latency
        measure latency bare - 300 "${bench}latency" "$(conninfo bench_latency)" bare "$count" "$pause"
        rm -f "$dir/port"
        measure latency webhook - 300 "${bench}latency" "$(conninfo bench_latency)" webhook "$count" "$pause" \
            "$dir/port" &
        local measuring=$!
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
    jobs=$(pick 50000 200000)
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

# The first 10,000 jobs of each backlog are measured; between runs it is filled up again and vacuumed.
row_backlog() {
    local size sizes=(10000 1000000)
    $quick || sizes=(10000 100000 1000000 10000000)
    discard_config 100
    for size in "${sizes[@]}"; do
        new_db "bench_$size"
    done
    for _ in $(each_run); do
        for size in "${sizes[@]}"; do
            # What the run before claimed and gave back has a new place at the end: not in the way here.
            value "bench_$size" "WITH front AS (SELECT id FROM outbox.job WHERE owner IS NULL
                                              ORDER BY ready_xid, id LIMIT 1)
                DELETE FROM outbox.job AS j USING front WHERE j.id < front.id"
            fill "bench_$size" $((size - $(value "bench_$size" 'SELECT count(*) FROM outbox.job')))
            value "bench_$size" 'VACUUM ANALYZE outbox.job'
            use_daemon "bench_$size"
            watch backlog outbox "$size" "bench_$size" 10000 "${run_command[@]}"
        done
    done
    for size in "${sizes[@]}"; do
        drop_db "bench_$size"
    done
}

# Jobs that were enqueued, claimed and deleted while a snapshot from before them is held: vacuum can't
# remove them. Then 10,000 new ones are measured.
row_dead() {
    local size sizes=(0 50000 200000)
    $quick || sizes=(0 50000 100000 200000 500000 1000000)
    discard_config 100
    for _ in $(each_run); do
        for size in "${sizes[@]}"; do
            new_db bench_dead
            hold bench_dead 1 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox.job'
            fill bench_dead "$size"
            value bench_dead 'UPDATE outbox.job SET owner = 1, claim = id, attempts = 1'
            value bench_dead 'DELETE FROM outbox.job'
            fill bench_dead 10000
            use_daemon bench_dead
            watch dead outbox "$size" bench_dead 10000 "${run_command[@]}"
            release_held
        done
    done
    drop_db bench_dead
}

# The same 100 slots in all; each writer has enqueued a job, and does not commit.
row_tasks() {
    local point tasks writers jobs
    jobs=$(pick 20000 100000)
    for _ in $(each_run); do
        for point in 1x1 100x1 1x200 100x200; do
            tasks=${point%x*}
            writers=${point#*x}
            new_db bench_tasks
            {
                echo "tasks:"
                if [[ $tasks -eq 1 ]]; then
                    echo "  bench: { discard: true, concurrency: 100 }"
                else
                    seq -f "  bench%.0f: { discard: true, concurrency: 1 }" "$tasks"
                fi
            } | configure
            hold bench_tasks "$writers" "BEGIN; SELECT outbox.enqueue('bench')"
            fill bench_tasks "$jobs" "$tasks"
            use_daemon bench_tasks
            watch tasks outbox "$point" bench_tasks "$jobs" "${run_command[@]}"
            release_held
        done
    done
    drop_db bench_tasks
}
