#!/usr/bin/env bash
# Sourced by bench/run: what is measured, the handlers' side and the idle daemon.
# shellcheck disable=SC2154 # bench, dir, runs, server_pid: bench/run's

# --- exec ---

xargs_true() { # JOBS AT_ONCE
    local TIMEFORMAT='%R %U %S'
    { time seq "$1" | xargs -P "$2" -n 1 /bin/true; } 2>&1 |
        awk -v n="$1" '{ printf "jobs_per_s=%.0f jobs=%d process_us=%.1f\n", n / $1, n, ($2 + $3) * 1e6 / n }'
}
export -f xargs_true

row_exec() {
    local jobs mb at_once=8
    jobs=$(pick 2500 20000)
    configure <<END
concurrency: $at_once
tasks: { bench: { exec: [/bin/true] } }
END
    for _ in $(each_run); do
        measure exec posix_spawn - 60 "${bench}spawn" "$(pick 1 5)" "$at_once" bare
        new_db bench_exec
        fill bench_exec "$jobs"
        use_daemon bench_exec
        watch exec outbox - bench_exec "$jobs" "${run_command[@]}"
        measure exec xargs - 120 bash -c "xargs_true $jobs $at_once"
        for mb in 0 200; do # of touched memory: what a fork would have to copy
            measure exec posix_spawn "$mb" 60 "${bench}spawn" "$(pick 1 5)" "$at_once" bare "$mb"
            measure exec path "$mb" 60 "${bench}spawn" "$(pick 1 5)" "$at_once" path "$mb"
            measure exec uv_spawn "$mb" 60 "${bench}spawn" "$(pick 1 5)" "$at_once" uv "$mb"
        done
    done
    drop_db bench_exec
}

# --- worker ---

row_worker() {
    local jobs window processes=2
    jobs=$(pick 20000 300000)
    for _ in $(each_run); do
        for window in 1 16; do
            configure <<END
tasks:
  bench: { worker: ["${bench}worker", serve, "$window"], processes: $processes, startup: $processes,
           window: $window }
END
            measure worker bare "$window" 60 "${bench}worker" bare "$(pick 1 5)" "$window" "$processes"
            new_db bench_worker
            fill bench_worker "$jobs"
            use_daemon bench_worker
            watch worker outbox "$window" bench_worker "$jobs" "${run_command[@]}"
        done
    done
    drop_db bench_worker
}

# --- webhook ---

nginx_port=
nginx_tls_port=
start_nginx() {
    nginx_port=$((20000 + RANDOM % 10000))
    nginx_tls_port=$((nginx_port + 1))
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$dir/tls.key" -out "$dir/tls.pem" 2>>"$dir/programs.log"
    cat >"$dir/nginx.conf" <<END
worker_processes 1;
error_log stderr warn;
pid $dir/nginx.pid;
daemon off;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $dir/nginx-body;
    proxy_temp_path $dir/nginx-proxy;
    fastcgi_temp_path $dir/nginx-fastcgi;
    uwsgi_temp_path $dir/nginx-uwsgi;
    scgi_temp_path $dir/nginx-scgi;
    ssl_certificate $dir/tls.pem;
    ssl_certificate_key $dir/tls.key;
    server {
        listen 127.0.0.1:$nginx_port;
        listen 127.0.0.1:$nginx_tls_port ssl;
        location / { return 204; }
    }
}
END
    start_helper nginx -p "$dir" -c "$dir/nginx.conf" >>"$dir/programs.log"
    fact nginx "$(nginx -v 2>&1 | sed 's/.*nginx.//')"
    # shellcheck disable=SC2317 # wait_for calls it
    nginx_answers() { (: <"/dev/tcp/127.0.0.1/$nginx_port") 2>/dev/null; }
    wait_for 10 "nginx answers" nginx_answers
}

wrk_line() { # SECONDS AT_ONCE URL
    local TIMEFORMAT='%U %S'
    { time wrk -t 1 -c "$2" -d "$1s" -s "$dir/post.lua" "$3"; } 2>&1 |
        awk '/ requests in / { n = $1 }
            /^Requests\/sec:/ { rate = $2 }
            NF == 2 && /^[0-9.]+ [0-9.]+$/ { cpu = $1 + $2 }
            END { printf "jobs_per_s=%.0f jobs=%d process_us=%.1f\n", rate, n, n ? cpu * 1e6 / n : 0 }'
}
export -f wrk_line

# One configuration beside its baselines. CA is "" without TLS.
webhook_point() { # X AT_ONCE URL CA JOBS
    local x=$1 at_once=$2 url=$3 ca=$4 jobs=$5
    configure <<END
tasks: { bench: { webhook: "$url", concurrency: $at_once${ca:+, ca_file: $ca} } }
END
    measure webhook libcurl "$x" 60 "${bench}webhook" "$(pick 1 5)" "$at_once" "$webhook_body" "$url" ${ca:+"$ca"}
    new_db bench_webhook
    fill bench_webhook "$jobs"
    use_daemon bench_webhook
    watch webhook outbox "$x" bench_webhook "$jobs" "${run_command[@]}"
    if command -v wrk >/dev/null; then
        dir=$dir measure webhook wrk "$x" 60 bash -c "wrk_line $(pick 1 5) $at_once $url"
    fi
}
webhook_body=

row_webhook() {
    local body='{"order": 100000, "email": "ann@example.com"}'
    webhook_body=${#body}
    if ! command -v nginx >/dev/null || ! command -v openssl >/dev/null; then
        skip "webhook: it wants nginx and openssl (Debian: nginx, openssl)"
        return 0
    fi
    command -v wrk >/dev/null || skip "webhook: no wrk printed beside it (Debian: wrk)"
    start_nginx
    printf 'wrk.method = "POST"\nwrk.body = [[%s]]\nwrk.headers["Content-Type"] = "application/json"\n' \
        "$body" >"$dir/post.lua"
    for _ in $(each_run); do
        webhook_point 1 1 "http://127.0.0.1:$nginx_port/" "" "$(pick 1000 40000)"
        webhook_point 10 10 "http://127.0.0.1:$nginx_port/" "" "$(pick 4000 40000)"
        webhook_point 50 50 "http://127.0.0.1:$nginx_port/" "" "$(pick 8000 100000)"
        webhook_point tls50 50 "https://127.0.0.1:$nginx_tls_port/" "$dir/tls.pem" "$(pick 8000 100000)"
    done
    release_held
    drop_db bench_webhook
}

# --- memory and idle cost ---

row_memory() {
    for _ in $(each_run); do
        new_db bench_memory
        value postgres "ALTER DATABASE bench_memory SET pg_stat_statements.track = 'top'" >/dev/null 2>&1 || true
        configure <<END
tasks: { bench: { exec: [/bin/sleep, "1000"], concurrency: 1 } }
END
        start_daemon bench_memory
        sleep "$(pick 1 3)" # until it sleeps
        measure memory idle - 300 "${bench}idle" "$(conninfo postgres)" bench_memory "$server_pid" "$daemon_pid" \
            "$(pick 3 60)"
        fill bench_memory "$(pick 100000 1000000)"
        measure memory backlog - 300 "${bench}idle" "$(conninfo postgres)" bench_memory "$server_pid" "$daemon_pid" \
            "$(pick 1 20)"
        # QUIT: the job that sleeps is killed, not waited for.
        kill -s QUIT "$daemon_pid"
        wait "$daemon_pid" || true
        daemon_pid=
    done
    drop_db bench_memory
}
