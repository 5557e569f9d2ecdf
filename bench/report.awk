# report.awk - the table (mode=table) and the JSON (mode=json) of bench/run: first file, the targets;
# second, the samples. Plain awk: no arrays of arrays, no sort of its own.
BEGIN { FS = "\t" }

FNR == NR {
    n_spec++
    for (i = 1; i <= 9; i++) spec[n_spec, i] = $i
    next
}

# A sample: row, variant, x, metric, value.
{
    key = $1 SUBSEP $2 SUBSEP $3 SUBSEP $4
    if (!(key in count)) keys[++n_keys] = key
    values[key, ++count[key]] = $5 + 0
}

# Sorts v[1..n], and sets median, low, high.
function summarise(v, n,    i, j, t) {
    for (i = 2; i <= n; i++) {
        t = v[i]
        for (j = i - 1; j >= 1 && v[j] > t; j--) v[j + 1] = v[j]
        v[j + 1] = t
    }
    median = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    low = v[1]
    high = v[n]
}

function summarise_key(key,    v, i) {
    for (i = 1; i <= count[key]; i++) v[i] = values[key, i]
    summarise(v, count[key])
}

# Of the runs that both have.
function summarise_ratio(ours, base,    v, i, n) {
    n = count[ours] < count[base] ? count[ours] : count[base]
    for (i = 1; i <= n; i++) v[i] = values[base, i] != 0 ? values[ours, i] / values[base, i] : 0
    summarise(v, n)
}

function figure(x) {
    if (x == int(x) && x < 1e15 || x >= 100) return sprintf("%.0f", x)
    return sprintf(x >= 10 ? "%.1f" : x >= 1 ? "%.2f" : "%.3f", x)
}

function spread(m, l, h) { return figure(m) " (" figure(l) "-" figure(h) ")" }

function verdict(kind, value, limit) {
    if (kind ~ />=$/) return value >= limit
    return value <= limit
}

function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    gsub(/[\001-\037]/, " ", text)
    return "\"" text "\""
}

# Sets the globals of one target; false where nothing was measured.
function target(i) {
    ours = spec[i, 1] SUBSEP spec[i, 4] SUBSEP spec[i, 5] SUBSEP spec[i, 3]
    base = spec[i, 1] SUBSEP spec[i, 6] SUBSEP spec[i, 7] SUBSEP spec[i, 3]
    kind = spec[i, 8]
    if (!(ours in count)) return 0
    has_base = spec[i, 6] != "" && base in count
    summarise_key(ours); ours_text = spread(median, low, high); ours_median = median
    base_text = ""; base_median = 0; ratio_text = ""; ratio = 0
    if (has_base) {
        summarise_key(base); base_text = spread(median, low, high); base_median = median
        summarise_ratio(ours, base); ratio = median; ratio_text = sprintf("%.2f (%.2f-%.2f)", median, low, high)
    }
    target_text = ""; reached = ""
    if (kind != "info" && (kind ~ /^value/ || has_base)) {
        target_text = (kind ~ /^ratio/ ? "ratio " : "") substr(kind, 6) " " spec[i, 9]
        reached = verdict(kind, kind ~ /^ratio/ ? ratio : ours_median, spec[i, 9] + 0) ? "yes" : "no"
    }
    base_name = spec[i, 6] (spec[i, 7] != "-" ? " " spec[i, 7] : "")
    return 1
}

function cost(key, name) {
    if (!(key in count)) {
        printf " %-15s", ""
        return
    }
    summarise_key(key)
    printf " %-15s", name " " figure(median)
}

function print_table(    i, part, group) {
    printf "%-9s%-45s%-28s%-14s%-28s%-19s%-16s%s\n", "row", "median (lowest-highest)", "pgoutbox", "beside", "baseline",
        "ratio", "target", "reached"
    for (i = 1; i <= n_spec; i++) {
        if (!target(i)) continue
        printf "%-9s%-45s%-28s%-14s%-28s%-19s%-16s%s\n", spec[i, 1], spec[i, 2], ours_text, has_base ? base_name : "",
            base_text, ratio_text, target_text, reached
    }
    print "\ncost of one job or transaction: WAL bytes, and processor microseconds of the server and of the process"
    for (i = 1; i <= n_keys; i++) {
        split(keys[i], part, SUBSEP)
        if (part[4] != "process_us") continue
        printf "%-9s%-14s%-10s", part[1], part[2], part[3] == "-" ? "" : part[3]
        group = part[1] SUBSEP part[2] SUBSEP part[3] SUBSEP
        cost(group "wal_bytes", "wal")
        cost(group "server_us", "server")
        cost(keys[i], "process")
        printf "\n"
    }
}

function print_json(    i, j, part, comma) {
    printf "{\n  \"date\": %s,\n  \"commit\": %s,\n  \"quick\": %s,\n  \"runs\": %d,\n", quoted(date), quoted(commit), quick, runs
    printf "  \"machine\": {\"processor\": %s, \"cores\": %d, \"kernel\": %s, \"load_at_start\": %s},\n", quoted(processor), cores,
        quoted(kernel), load
    printf "  \"postgresql\": %s,\n  \"results\": [", quoted(server)
    for (i = 1; i <= n_spec; i++) {
        if (!target(i)) continue
        printf "%s\n    {\"row\": %s, \"what\": %s, \"median\": %.10g", comma, quoted(spec[i, 1]), quoted(spec[i, 2]), ours_median
        if (has_base) printf ", \"baseline\": %s, \"baseline_median\": %.10g, \"ratio\": %.4g", quoted(base_name), base_median, ratio
        if (reached != "") printf ", \"target\": %s, \"reached\": %s", quoted(target_text), reached == "yes" ? "true" : "false"
        printf "}"
        comma = ","
    }
    printf "\n  ],\n  \"samples\": ["
    comma = ""
    for (i = 1; i <= n_keys; i++) {
        split(keys[i], part, SUBSEP)
        printf "%s\n    {\"row\": %s, \"variant\": %s, \"x\": %s, \"metric\": %s, \"values\": [", comma, quoted(part[1]),
            quoted(part[2]), quoted(part[3]), quoted(part[4])
        for (j = 1; j <= count[keys[i]]; j++) printf "%s%.10g", (j > 1 ? ", " : ""), values[keys[i], j]
        printf "]}"
        comma = ","
    }
    print "\n  ]\n}"
}

END { if (mode == "json") print_json(); else print_table() }
