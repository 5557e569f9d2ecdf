#!/bin/sh
# worker.sh FILE - a resident worker in the shell: appends each payload to FILE, as one line.
#
#   tasks: { note: { worker: [/usr/local/lib/outbox/worker.sh, /var/log/notes] } }
#
# A line of JSON comes in for each job, then `len` bytes of payload; a line of JSON goes out. A shell is
# slow at this: it shows that any language will do.
set -eu
file=$1
exec 3>&1 1>&2 # standard output is the protocol's: from here on echo writes to the log

# "op" and "id" begin a header, "len" ends it: what stands between, such as the job's own headers, may
# hold anything, and is passed over.
part() { printf '%s\n' "$2" | sed -n "s/$1/\\1/p"; }

while IFS= read -r header; do
  op=$(part '^{"op":"\([a-z]*\)".*' "$header")
  if [ "$op" = hello ]; then
    echo '{"op":"ready","proto":1,"window":1}' >&3
    continue
  fi
  id=$(part '^{"op":"job","id":"\([0-9]*\)".*' "$header")
  len=$(part '.*"len":\([0-9]*\)}$' "$header")
  payload=$(head -c "$len") # not a byte more: what follows is the next job
  if printf '%s\n' "$payload" >>"$file"; then
    printf '{"id":"%s","status":"ok"}\n' "$id" >&3
  else
    printf '{"id":"%s","status":"retry","after":5,"error":"cannot write"}\n' "$id" >&3
  fi
done
