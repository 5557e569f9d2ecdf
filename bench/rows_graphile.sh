#!/usr/bin/env bash
# Sourced by bench/run: graphile-worker, from npm, doing the same work on the same server.
# shellcheck disable=SC2154,SC2034 # bench, dir, quick, names, root: bench/run's; watch uses what is set here

graphile= # the folder with node_modules
graphile_node=

# Finds or installs it; else says why not, and returns 1.
use_graphile() {
    graphile=${OUTBOX_BENCH_GRAPHILE:-}
    if [[ -n $graphile ]]; then
        graphile=$(cd "$graphile" && pwd) || return 1
    elif $quick && [[ ${#names[@]} -gt 1 ]]; then
        skip "graphile: not in a quick run, as it downloads 200 MB; bench/run --quick graphile does"
        return 1
    elif ! command -v npm >/dev/null; then
        skip "graphile: it wants npm (Debian: npm), to install graphile-worker and a node from the registry"
        return 1
    else
        graphile=$dir/graphile
        mkdir -p "$graphile"
        echo '{ "private": true }' >"$graphile/package.json"
        echo "  installing graphile-worker and node from npm, in the temporary folder"
        # npm 11 runs the installation script that fetches node only when allowed to.
        if ! (cd "$graphile" && timeout 300 npm install --no-audit --no-fund graphile-worker@^0.18 node@22) \
            >>"$dir/programs.log" 2>&1; then
            skip "graphile: npm could not install it (no network?)"
            return 1
        fi
    fi
    graphile_node=$graphile/node_modules/.bin/node
    [[ -x $graphile_node ]] || graphile_node=$(command -v node || true)
    if ! "$graphile_node" -e 'process.exit(parseInt(process.versions.node) >= 22 ? 0 : 1)' 2>/dev/null; then
        skip "graphile: no node 22 or later, which it wants"
        return 1
    fi
    fact graphile_worker "$(sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' \
        "$graphile/node_modules/graphile-worker/package.json")"
    fact node "$("$graphile_node" --version)"
}

use_graphile_command() { # DATABASE MODE PROCESSES CONCURRENCY [WHERE]
    local db=$1
    shift
    run_command=(env PGHOST="$dir" PGUSER=postgres PGDATABASE="$db" NODE_ENV=production
        "$graphile_node" "$root/bench/graphile.mjs" "$graphile" "$@")
}

graphile_db() { # COUNT
    drop_db bench_graphile
    value postgres 'CREATE DATABASE bench_graphile TEMPLATE bench_graphile_template'
    value bench_graphile "SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
        SELECT json_populate_record(NULL::graphile_worker.job_spec, json_build_object('identifier', 'bench',
            'payload', json_build_object('order', g, 'email', 'ann@example.com')))
        FROM generate_series(1, $1) AS g))" >/dev/null
    value bench_graphile 'ANALYZE'
}

# Theirs, then ours with what is configured.
graphile_pair() { # X THEIR_JOBS OUR_JOBS MODE PROCESSES CONCURRENCY [WHERE]
    local x=$1 theirs=$2 ours=$3
    shift 3
    graphile_db "$theirs"
    use_graphile_command bench_graphile "$@"
    jobs_table=graphile_worker._private_jobs
    unclaimed='locked_at IS NULL'
    watch graphile graphile "$x" bench_graphile "$theirs" "${run_command[@]}"
    jobs_table=outbox.job
    unclaimed='owner IS NULL'
    new_db bench_ours
    fill bench_ours "$ours"
    use_daemon bench_ours
    watch graphile outbox "$x" bench_ours "$ours" "${run_command[@]}"
}

row_graphile() {
    local port
    use_graphile || return 0
    value postgres 'CREATE DATABASE bench_graphile_template'
    use_graphile_command bench_graphile_template migrate
    timeout 60 "${run_command[@]}" >>"$dir/programs.log" 2>&1 || fail "graphile-worker could not make its schema"
    mkdir -p "$dir/tasks"
    cp "${bench}noop" "$dir/tasks/bench"
    start_receiver
    port=$(<"$dir/port")
    for _ in $(each_run); do
        discard_config 1000
        graphile_pair trivial "$(pick 20000 200000)" "$(pick 20000 200000)" trivial 2 48
        configure <<END
tasks: { bench: { webhook: "http://127.0.0.1:$port/", concurrency: 50 } }
END
        graphile_pair webhook "$(pick 4000 30000)" "$(pick 8000 100000)" webhook 2 25 "http://127.0.0.1:$port/"
        configure <<END
concurrency: 10
tasks: { bench: { exec: [$dir/tasks/bench] } }
END
        graphile_pair command "$(pick 800 5000)" "$(pick 2000 20000)" command 1 10 "$dir/tasks"
    done
    release_held
    drop_db bench_graphile
    drop_db bench_graphile_template
    drop_db bench_ours
}
