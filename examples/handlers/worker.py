#!/usr/bin/python3
"""worker.py - a resident worker in Python: keeps what each job says in a file, once.

    tasks: { keep-note: { worker: [/usr/bin/python3, /srv/worker.py, /var/spool/notes] } }

Payload: {"name": "a", "text": "..."}. Nothing but the standard library. Everything above
`handle` can be taken as it is for other workers.
"""
import json
import os
import sys


class Retry(Exception):
    """Try again, not before so many seconds: Retry(30, "server busy")."""


class Dead(Exception):
    """Never going to work: kept for a person to look at."""


def run(handle):
    stdin = sys.stdin.buffer
    # Standard output is the protocol's: what print() writes goes to the dispatcher's log instead.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in stdin:
        header = json.loads(line)
        if header["op"] == "hello":
            reply = {"op": "ready", "proto": 1, "window": 1}
        else:
            payload = stdin.read(header["len"])
            reply = {"id": header["id"], "status": "ok"}
            try:
                handle(header, payload)
            except Retry as e:
                reply.update(status="retry", after=e.args[0], error=str(e.args[1]))
            except Dead as e:
                reply.update(status="dead", error=str(e))
            except Exception as e:
                reply.update(status="retry", error=f"{type(e).__name__}: {e}")
        out.write(json.dumps(reply).encode() + b"\n")


def handle(job, payload):
    try:
        note = json.loads(payload)
        name, text = note["name"], note["text"]
    except (ValueError, TypeError, KeyError) as e:
        raise Dead(f"not a note: {e!r}")
    if not isinstance(name, str) or not name.isalnum():
        raise Dead("the name is not one word")  # what a payload says is never trusted
    folder = sys.argv[1]
    if not os.path.isdir(folder):
        raise Retry(30, f"{folder} is not there")
    # A second run of the job makes the same file again.
    part = os.path.join(folder, f".{name}.{job['idempotency_key']}")
    with open(part, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(part, os.path.join(folder, name))
    print(f"kept {name}")


run(handle)
