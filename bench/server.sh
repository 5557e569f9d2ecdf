#!/usr/bin/env bash
# Sourced by bench/run: the private PostgreSQL, databases in it, and dispatchers.
# shellcheck disable=SC2154 # outbox, bench: bench/run's

dir=
server_pid=
daemon_pid=
helper_pids=()

end_process() { # PID SIGNAL
    [[ -n $1 ]] && kill -0 "$1" 2>/dev/null || return 0
    kill -s "$2" "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

cleanup() {
    local status=$? pid
    trap - EXIT
    for pid in "${helper_pids[@]}" "$daemon_pid"; do
        end_process "$pid" TERM
    done
    end_process "$server_pid" QUIT
    [[ -z $dir ]] || rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "bench/run: $*" >&2
    [[ -z $dir ]] || tail -n 15 "$dir/server.log" "$dir/programs.log" >&2 2>/dev/null || true
    exit 1
}

wait_for() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [[ $SECONDS -lt $deadline ]] || fail "waited in vain until $what"
        sleep 0.02
    done
}

# The whole server's settings: a log that is flushed, room so that no checkpoint falls into a
# measurement, and connections for 200 writers. All else is PostgreSQL's default.
server_settings=(listen_addresses='' fsync=on synchronous_commit=on shared_buffers=512MB max_wal_size=8GB
    checkpoint_timeout=1h max_connections=400 log_min_messages=warning timezone=UTC)

start_server() {
    local base=${TMPDIR:-/tmp} bindir=${OUTBOX_PG_BINDIR:-$(pg_config --bindir)} owner settings=() setting
    case $(stat -f -c %T "$base") in
    tmpfs | ramfs) fail "$base is in memory, where a flush costs nothing: set TMPDIR to a folder on a disk" ;;
    esac
    dir=$(mktemp -d "$base/outbox-bench.XXXXXX")
    touch "$dir/server.log" "$dir/programs.log"
    chmod 711 "$dir"
    as_server=(setpriv --pdeathsig INT)
    if [[ $(id -u) -eq 0 ]]; then
        owner=postgres
        id -u "$owner" >/dev/null 2>&1 || owner=nobody
        chown "$owner" "$dir"
        # The change of user takes the signal away: it is asked for after.
        as_server=(setpriv --reuid="$owner" --regid="$(id -g "$owner")" --clear-groups setpriv --pdeathsig INT)
    fi
    if [[ -f $(pg_config --pkglibdir)/pg_stat_statements.so ]]; then
        server_settings+=(shared_preload_libraries=pg_stat_statements pg_stat_statements.track=none)
    fi
    for setting in "${server_settings[@]}"; do
        settings+=(-c "$setting")
    done
    (cd / && "${as_server[@]}" "$bindir/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C) \
        >>"$dir/programs.log" 2>&1 || fail "initdb failed"
    (cd / && exec "${as_server[@]}" "$bindir/postgres" -D "$dir/data" -k "$dir" "${settings[@]}") \
        >"$dir/server.log" 2>&1 &
    server_pid=$!
    wait_for 30 "PostgreSQL answers" "$bindir/pg_isready" -q -h "$dir" -U postgres
    # bash has become setpriv, and that the postmaster: one process.
    [[ $(head -n 1 "$dir/data/postmaster.pid") -eq $server_pid ]] || fail "the server is not process $server_pid"
    value postgres 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements' >/dev/null 2>&1 || true
    value postgres 'CREATE DATABASE bench_template' >/dev/null
    "$outbox" migrate --database "$(conninfo bench_template)" >>"$dir/programs.log" 2>&1 || fail "outbox migrate failed"
    value bench_template 'CREATE TABLE business (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        number bigint, customer text, amount numeric, placed_at timestamptz DEFAULT now())' >/dev/null
}

conninfo() { echo "host=$dir user=postgres dbname=$1"; }
value() { # DATABASE SQL
    psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$(conninfo "$1")" -c "$2" 2>>"$dir/programs.log"
}

# A database with the schema, and nothing in it. Dropping one makes a checkpoint: what is put in then is
# measured as if enqueued just now, without page images in the log.
new_db() { # NAME
    drop_db "$1"
    value postgres "CREATE DATABASE $1 TEMPLATE bench_template" >/dev/null
}
drop_db() { value postgres "DROP DATABASE IF EXISTS $1 WITH (FORCE)"; }

# COUNT ready jobs, put straight into the table, half a million a transaction; tasks bench1 to benchTASKS by
# turns, or all of the one task bench. Without the trigger: nobody sleeps yet who would have to be woken.
fill() { # DATABASE COUNT [TASKS]
    local task="'bench'" left=$2 chunk
    [[ ${3:-1} -eq 1 ]] || task="'bench' || (g % $3 + 1)"
    while [[ $left -gt 0 ]]; do
        chunk=$((left < 500000 ? left : 500000))
        left=$((left - chunk))
        value "$1" "SET session_replication_role = replica;
            INSERT INTO outbox.job (task, encoding, payload, created_at, ready_xid)
            SELECT $task, 'json', convert_to('{\"order\": ' || g || ', \"email\": \"ann@example.com\"}', 'UTF8'),
                   clock_timestamp(), pg_current_xact_id()
            FROM generate_series(1, $chunk) AS g"
    done
}
# A checkpoint: what is there is measured as if it were old, with an image of each page in the log.
settle_disk() { value postgres CHECKPOINT; }

# --- dispatchers ---

# The configuration is what is on standard input.
configure() { cat >"$dir/outbox.yaml"; }
run_command=() # set by use_daemon: the command that runs the dispatcher
use_daemon() { # DATABASE
    run_command=("$outbox" run --config "$dir/outbox.yaml" --database "$(conninfo "$1")" --name bench
        --lock-dir "$dir/lock" --log-level warn)
}

daemon_listens() { [[ $(value "$1" 'SELECT count(*) FROM outbox.dispatchers WHERE live') -gt 0 ]]; }
start_daemon() { # DATABASE
    use_daemon "$1"
    setpriv --pdeathsig TERM "${run_command[@]}" 2>>"$dir/programs.log" &
    daemon_pid=$!
    wait_for 30 "the dispatcher is registered" daemon_listens "$1"
}
stop_daemon() {
    end_process "$daemon_pid" TERM
    daemon_pid=
}

# A process in the background, ended by release_held.
start_helper() { # COMMAND...
    setpriv --pdeathsig TERM "$@" 2>>"$dir/programs.log" &
    helper_pids+=($!)
}

# Keeps COUNT transactions open.
hold() { # DATABASE COUNT SQL
    start_helper "${bench}hold" "$(conninfo "$1")" "$2" "$3" >"$dir/held"
    wait_for 60 "$2 transactions are open" grep -q held "$dir/held"
}

# A server on loopback that reads what is posted and answers 204; its port is in the file port.
start_receiver() {
    rm -f "$dir/port"
    start_helper "${bench}webhook" serve "$dir/port"
    wait_for 10 "the receiver listens" test -s "$dir/port"
}

release_held() {
    local pid
    for pid in "${helper_pids[@]}"; do
        end_process "$pid" TERM
    done
    helper_pids=()
}
