#!/bin/sh
# send-email.sh SPOOL - a shell handler that may be run twice for one job without doing its work twice.
#
# Jobs are executed at least once: after a crash, a job that had just finished runs again. Here the work is
# one file a job in the folder SPOOL, under the job's idempotency key. A handler that talks to a mail
# provider passes the key on instead.
set -eu
spool=$1
mkdir -p "$spool"
name=$spool/$OUTBOX_IDEMPOTENCY_KEY

if [ -e "$name" ]; then
  echo "job $OUTBOX_JOB_ID was sent before"
  exit 0
fi

part=$name.part.$$
trap 'rm -f "$part"' EXIT
{
  echo "X-Job: $OUTBOX_JOB_ID, attempt $OUTBOX_ATTEMPT, task $OUTBOX_TASK"
  echo
  cat # the payload: JSON
  echo
} >"$part"
# Whole or not at all; of two at once, one wins.
ln "$part" "$name" 2>/dev/null || [ -e "$name" ]
