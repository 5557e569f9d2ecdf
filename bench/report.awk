# report.awk - what bench/run prints (mode=table) and writes (json, markdown) from its data file, whose
# lines are: F name text - R row what date commit load seconds runs - S row variant x metric value -
# T row what metric ours x baseline x kind limit. Plain awk: no arrays of arrays, no sort of its own.
BEGIN { FS = "\t" }

$1 == "F" {
    if (!($2 in fact)) facts[++n_facts] = $2
    fact[$2] = $3
}

$1 == "R" {
    n_rows++
    for (i = 2; i <= 8; i++) rows[n_rows, i] = $i
}

$1 == "T" {
    n_spec++
    for (i = 1; i <= 9; i++) spec[n_spec, i] = $(i + 1)
}

$1 == "S" {
    key = $2 SUBSEP $3 SUBSEP $4 SUBSEP $5
    if (!(key in count)) keys[++n_keys] = key
    values[key, ++count[key]] = $6 + 0
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

# Three digits that count, or all before the point; in markdown with commas.
function figure(x,    text, head) {
    if (x == int(x) && x < 1e15 || x >= 100) text = sprintf("%.0f", x)
    else text = sprintf(x >= 10 ? "%.1f" : x >= 1 ? "%.2f" : "%.3f", x)
    if (mode != "markdown" || text ~ /\./) return text
    head = ""
    while (length(text) > 3) {
        head = "," substr(text, length(text) - 2) head
        text = substr(text, 1, length(text) - 3)
    }
    return text head
}

function spread(m, l, h, n) { return n > 1 ? figure(m) " (" figure(l) "-" figure(h) ")" : figure(m) }

function verdict(kind, value, limit) { return kind ~ />=$/ ? value >= limit : value <= limit }

function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    gsub(/[\001-\037]/, " ", text)
    return "\"" text "\""
}

# Sets the globals of one target; false where nothing was measured.
function target(i,    jobs) {
    ours = spec[i, 1] SUBSEP spec[i, 4] SUBSEP spec[i, 5] SUBSEP spec[i, 3]
    base = spec[i, 1] SUBSEP spec[i, 6] SUBSEP spec[i, 7] SUBSEP spec[i, 3]
    kind = spec[i, 8]
    if (!(ours in count)) return 0
    has_base = spec[i, 6] != "" && base in count
    summarise_key(ours); ours_text = spread(median, low, high, count[ours]); ours_median = median
    base_text = ""; base_median = 0; ratio_text = ""; ratio = 0
    if (has_base) {
        summarise_key(base); base_text = spread(median, low, high, count[base]); base_median = median
        summarise_ratio(ours, base); ratio = median
        ratio_text = count[ours] > 1 ? sprintf("%.2f (%.2f-%.2f)", median, low, high) : sprintf("%.2f", median)
    }
    target_text = ""; reached = ""
    if (kind != "info" && (kind ~ /^value/ || has_base)) {
        target_text = (kind ~ /^ratio/ ? "ratio " : "") substr(kind, 6) " " spec[i, 9]
        reached = verdict(kind, kind ~ /^ratio/ ? ratio : ours_median, spec[i, 9] + 0) ? "yes" : "no"
    }
    base_name = spec[i, 6] (spec[i, 7] != "-" ? " " spec[i, 7] : "")
    jobs = spec[i, 1] SUBSEP spec[i, 4] SUBSEP spec[i, 5] SUBSEP "jobs"
    did = count[ours] (count[ours] == 1 ? " run" : " runs")
    did_jobs = 0
    if (jobs in count) {
        summarise_key(jobs)
        did_jobs = median
        did = did " of " figure(median)
    }
    return 1
}

# The costs of a measurement, and what it left behind; "" where it has none.
function cell(group, metric,    key) {
    key = group metric
    if (!(key in count)) return ""
    summarise_key(key)
    return figure(median)
}

function cost_group(i,    part) {
    split(keys[i], part, SUBSEP)
    if (part[4] != "process_us") return ""
    cost_row = part[1]; cost_variant = part[2]; cost_x = part[3] == "-" ? "" : part[3] ~ /^[0-9]+$/ ? figure(part[3] + 0) : part[3]
    return part[1] SUBSEP part[2] SUBSEP part[3] SUBSEP
}

function print_table(    i, group) {
    printf "%-9s %-45s %-27s %-13s %-27s %-17s %-15s %-8s %s\n", "row", "median (lowest-highest)", "pgoutbox", "beside",
        "baseline", "ratio", "target", "reached", "jobs"
    for (i = 1; i <= n_spec; i++) {
        if (!target(i)) continue
        printf "%-9s %-45s %-27s %-13s %-27s %-17s %-15s %-8s %s\n", spec[i, 1], spec[i, 2], ours_text,
            has_base ? base_name : "", base_text, ratio_text, target_text, reached, did
    }
    print "\nof one job or transaction: WAL bytes, processor us of server and of program; afterwards: dead tuples"
    printf "%-9s %-12s %-9s %10s %10s %10s %8s %12s\n", "row", "what", "", "WAL", "server us", "process us", "HOT %", "dead tuples"
    for (i = 1; i <= n_keys; i++) {
        group = cost_group(i)
        if (group == "") continue
        printf "%-9s %-12s %-9s %10s %10s %10s %8s %12s\n", cost_row, cost_variant, cost_x, cell(group, "wal_bytes"),
            cell(group, "server_us"), cell(group, "process_us"), cell(group, "hot_percent"), cell(group, "dead_tuples")
    }
}

function print_json(    i, j, part, comma) {
    print "{\n  \"facts\": {"
    for (i = 1; i <= n_facts; i++)
        printf "    %s: %s%s\n", quoted(facts[i]), fact[facts[i]] ~ /^([0-9]+(\.[0-9]+)?|true|false)$/ ? fact[facts[i]] : quoted(fact[facts[i]]), (i < n_facts ? "," : "")
    printf "  },\n  \"rows\": ["
    for (i = 1; i <= n_rows; i++)
        printf "%s\n    {\"row\": %s, \"what\": %s, \"date\": %s, \"commit\": %s, \"load\": %s, \"seconds\": %d, \"runs\": %d}", (i > 1 ? "," : ""),
            quoted(rows[i, 2]), quoted(rows[i, 3]), quoted(rows[i, 4]), quoted(rows[i, 5]), rows[i, 6], rows[i, 7], rows[i, 8]
    printf "\n  ],\n  \"results\": ["
    for (i = 1; i <= n_spec; i++) {
        if (!target(i)) continue
        printf "%s\n    {\"row\": %s, \"what\": %s, \"runs\": %d, \"jobs\": %d, \"median\": %.10g", comma, quoted(spec[i, 1]),
            quoted(spec[i, 2]), count[ours], did_jobs, ours_median
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

# One table of medians: a line each x, a column each variant.
function print_curve(row, metric, title,    i, j, part, xs, n_xs, variants, n_variants, seen, key) {
    for (i = 1; i <= n_keys; i++) {
        split(keys[i], part, SUBSEP)
        if (part[1] != row || part[4] != metric) continue
        if (!((1, part[3]) in seen)) { xs[++n_xs] = part[3]; seen[1, part[3]] = 1 }
        if (!((2, part[2]) in seen)) { variants[++n_variants] = part[2]; seen[2, part[2]] = 1 }
    }
    if (n_xs < 2) return
    printf "\n**%s**\n\n| |", title
    for (j = 1; j <= n_variants; j++) printf " %s |", variants[j]
    printf "\n|--:|"
    for (j = 1; j <= n_variants; j++) printf "--:|"
    printf "\n"
    for (i = 1; i <= n_xs; i++) {
        printf "| %s |", figure(xs[i] + 0)
        for (j = 1; j <= n_variants; j++) {
            key = row SUBSEP variants[j] SUBSEP xs[i] SUBSEP metric
            if (key in count) {
                summarise_key(key)
                printf " %s |", spread(median, low, high, count[key])
            } else printf " |"
        }
        printf "\n"
    }
}

function print_markdown(    i, group) {
    printf "%s, commit %s: %s, %d processors, %.0f GB, %s, %s; a flush of the disk takes %s us. PostgreSQL %s; pgoutbox %s.", fact["date"],
        fact["commit"], fact["processor"], fact["cores"], fact["memory_mb"] / 1024, fact["system"], fact["kernel"], fact["flush_us"],
        fact["postgresql"], fact["pgoutbox"]
    if (fact["graphile_worker"] != "") printf " graphile-worker %s on node %s.", fact["graphile_worker"], fact["node"]
    if (fact["quick"] == "true") printf " Quick: for trying, not for publishing."
    print "\n\n| row | | pgoutbox | beside | | ratio | target | reached | jobs |\n|---|---|--:|---|--:|--:|---|---|--:|"
    for (i = 1; i <= n_spec; i++) {
        if (!target(i)) continue
        printf "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s |\n", spec[i, 1], spec[i, 2], ours_text,
            has_base ? "`" base_name "`" : "", base_text, ratio_text, target_text, reached == "no" ? "**no**" : reached, did
    }
    print_curve("producers", "tps", "Transactions/s by producers")
    print_curve("backlog", "jobs_per_s", "Jobs/s by backlog")
    print_curve("dead", "jobs_per_s", "Jobs/s by finished jobs under a held snapshot")
    print_curve("tasks", "jobs_per_s", "Jobs/s by tasks")
    print_curve("writers", "jobs_per_s", "Jobs/s by open writers")
    print_curve("payload", "mb_per_s", "MB/s by bytes of payload")
    print_curve("payload", "tps", "Enqueued jobs/s by bytes of payload")
    print_curve("payload", "jobs_per_s", "Claimed and completed jobs/s by bytes of payload")
    print "\n**What one job or transaction costs** (medians; dead tuples: in the whole table afterwards)\n"
    print "| row | | | WAL bytes | server us | process us | HOT % | dead tuples |\n|---|---|--:|--:|--:|--:|--:|--:|"
    for (i = 1; i <= n_keys; i++) {
        group = cost_group(i)
        if (group == "") continue
        printf "| `%s` | %s | %s | %s | %s | %s | %s | %s |\n", cost_row, cost_variant, cost_x, cell(group, "wal_bytes"),
            cell(group, "server_us"), cell(group, "process_us"), cell(group, "hot_percent"), cell(group, "dead_tuples")
    }
}

END {
    if (mode == "json") print_json()
    else if (mode == "markdown") print_markdown()
    else print_table()
}
