#!/usr/bin/env bash
# Sourced by bench/run: growth curves. What some of them measure lasts a tenth of a second, so that each
# run measures it several times.
# shellcheck disable=SC2154,SC2034 # bench, dir, runs, backlog_max: bench/run's; it uses bytes_each

# The first 10,000 jobs of each backlog are measured; between passes it is filled up again and vacuumed.
row_backlog() {
    local size sizes=() missing pass passes
    for ((size = 10000; size < backlog_max; size *= 10)); do
        sizes+=("$size")
    done
    sizes+=("$backlog_max")
    discard_config 100
    for size in "${sizes[@]}"; do
        new_db "bench_$size"
    done
    passes=$((runs * $(pick 1 3)))
    for ((pass = 0; pass < passes; pass++)); do
        for size in "${sizes[@]}"; do
            # What the pass before claimed and gave back has a new place at the end: not in the way here.
            value "bench_$size" "WITH front AS (SELECT id FROM outbox.job WHERE owner IS NULL
                                              ORDER BY ready_xid, id LIMIT 1)
                DELETE FROM outbox.job AS j USING front WHERE j.id < front.id"
            missing=$((size - $(value "bench_$size" 'SELECT count(*) FROM outbox.job')))
            fill "bench_$size" "$missing"
            value "bench_$size" 'VACUUM ANALYZE outbox.job'
            settle_disk
            use_daemon "bench_$size"
            watch backlog outbox "$size" "bench_$size" 10000 "${run_command[@]}"
        done
    done
    for size in "${sizes[@]}"; do
        drop_db "bench_$size"
    done
}

dead_begin() {
    release_held
    new_db bench_dead
    hold bench_dead 1 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox.job'
}

# Jobs that were enqueued, claimed and deleted while a snapshot from before them is held: vacuum can't
# remove them. They become more in one database; 10,000 new jobs are measured behind them each time (and
# are dead then themselves).
row_dead() {
    local size sizes before again
    read -ra sizes <<<"$(pick "0 20000 100000" "0 50000 100000 200000 500000 1000000")"
    discard_config 100
    for _ in $(each_run); do
        before=0
        dead_begin
        for size in "${sizes[@]}"; do
            fill bench_dead $((size - before))
            value bench_dead 'UPDATE outbox.job SET owner = 1, claim = id, attempts = 1'
            value bench_dead 'DELETE FROM outbox.job'
            before=$size
            for ((again = $(pick 1 3); again > 0; again--)); do
                [[ $size -gt 0 ]] || dead_begin # none means none
                fill bench_dead 10000
                settle_disk
                use_daemon bench_dead
                watch dead outbox "$size" bench_dead 10000 "${run_command[@]}"
            done
        done
        release_held
    done
    drop_db bench_dead
}

# The same 100 slots in all, however many tasks; each writer has enqueued a job, and does not commit.
crowd_one() { # ROW X TASKS WRITERS JOBS
    local slots=$((100 / $3)) task
    new_db bench_tasks
    {
        echo "tasks:"
        if [[ $3 -eq 1 ]]; then
            echo "  bench: { discard: true, concurrency: $slots }"
        else
            for ((task = 1; task <= $3; task++)); do
                echo "  bench$task: { discard: true, concurrency: $slots }"
            done
        fi
    } | configure
    [[ $4 -eq 0 ]] || hold bench_tasks "$4" "BEGIN; SELECT outbox.enqueue('bench')"
    fill bench_tasks "$5" "$3"
    use_daemon bench_tasks
    watch "$1" outbox "$2" bench_tasks "$5" "${run_command[@]}"
    release_held
}

row_tasks() {
    local tasks counts
    read -ra counts <<<"$(pick "1 10 100" "1 2 5 10 20 50 100")"
    for _ in $(each_run); do
        for tasks in "${counts[@]}"; do
            crowd_one tasks "$tasks" "$tasks" 0 "$(pick 10000 100000)"
        done
    done
    drop_db bench_tasks
}

row_writers() {
    local writers counts
    read -ra counts <<<"$(pick "0 1 200" "0 1 10 50 100 200")"
    for _ in $(each_run); do
        for writers in "${counts[@]}"; do
            crowd_one writers "$writers" 1 "$writers" "$(pick 10000 100000)"
        done
    done
    drop_db bench_tasks
}

row_crowd() {
    for _ in $(each_run); do
        crowd_one crowd 1x1 1 1 "$(pick 10000 100000)"
        crowd_one crowd 100x200 100 200 "$(pick 10000 100000)"
    done
    drop_db bench_tasks
}

# --- payload ---

payload_db() { # TEXT_BYTES COUNT
    new_db bench_payload
    value bench_payload "WITH data AS MATERIALIZED
            (SELECT string_agg(md5(g::text), '') AS text FROM generate_series(0, $1 / 32) AS g)
        INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
        SELECT 'bench', 'json', convert_to('{\"order\": ' || g || ', \"text\": \"' || left(text, $1) || '\"}', 'UTF8'),
               clock_timestamp(), pg_current_xact_id()
        FROM data, generate_series(1, $2) AS g"
}

# Enqueued by 4 clients, plain and by outbox; claimed by the bare loop and by discard; delivered to a
# server on loopback that reads it all. Text that can't be compressed.
row_payload() {
    local size sizes jobs port
    read -ra sizes <<<"$(pick "100 1000000" "100 1000 10000 100000 1000000")"
    start_receiver
    port=$(<"$dir/port")
    for _ in $(each_run); do
        for size in "${sizes[@]}"; do
            bytes_each=$size
            discard_config 20
            enqueue_one payload plain "$size" 4 "$(pick 200 2000)" "$size"
            enqueue_one payload outbox "$size" 4 "$(pick 200 2000)" "$size"
            jobs=$(($(pick 60000000 600000000) / size))
            [[ $jobs -le $(pick 4000 30000) ]] || jobs=$(pick 4000 30000)
            payload_db "$size" "$jobs"
            watch payload bare "$size" bench_payload "$jobs" "${bench}claim" "$(conninfo bench_payload)" 20
            payload_db "$size" "$jobs"
            use_daemon bench_payload
            watch payload discard "$size" bench_payload "$jobs" "${run_command[@]}"
            payload_db "$size" "$jobs"
            configure <<END
tasks: { bench: { webhook: "http://127.0.0.1:$port/", concurrency: 20 } }
END
            watch payload webhook "$size" bench_payload "$jobs" "${run_command[@]}"
        done
    done
    bytes_each=
    release_held
    drop_db bench_payload
    drop_db bench_enqueue
}
