#!/usr/bin/env python3
"""A pull consumer: claims jobs, runs them, says what became of each. Needs psycopg2.

    outbox enqueue greet '{"name": "Ada"}'
    consumer.py [CONNINFO]

Two connections: one to work on, one that beats while a job runs. No transaction is open meanwhile.
docs/sql.md, "Claims, as the dispatcher does it", has the rules. Ends when nothing came for IDLE_S.
"""
import json
import os
import secrets
import select
import socket
import sys
import threading
import time

import psycopg2

TASKS, SLOTS = ["greet"], [5]
LEASE_S, IDLE_S, ATTEMPTS_MAX = 60, 2, 3


def greet(payload):
    print(f"hello, {payload['name']}", flush=True)


HANDLERS = {"greet": greet}


class Consumer:
    def __init__(self, conninfo):
        self.conn = psycopg2.connect(conninfo)
        self.conn.autocommit = True  # a claim has to be committed before its job runs
        self.id = secrets.randbits(62) + 1  # never used before
        self.next_claim = 1  # only goes up: (id, claim number) is the token
        self.stopped = threading.Event()

    def ask(self, sql, *values):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()

    def register(self):
        [(answer,)] = self.ask(
            "SELECT answer FROM outbox.register(%s, %s, %s, '', '', %s, '{}', 'consumer.py', %s,"
            " %s * interval '1 s')",
            self.id, f"greeter-{self.id}", socket.gethostname(), os.getpid(), TASKS, LEASE_S)
        if answer != "registered":
            sys.exit("the name is taken")

    def beat(self, conninfo):
        """Six times a lease. False, or no server for long: others may have our jobs, so stop."""
        with psycopg2.connect(conninfo) as conn:
            conn.autocommit = True
            while not self.stopped.wait(LEASE_S / 6):
                with conn.cursor() as cursor:
                    cursor.execute("SELECT outbox.extend(%s)", (self.id,))
                    if not cursor.fetchone()[0]:
                        os._exit(75)

    def claim(self):
        jobs = self.ask(
            "SELECT id, claim, task, attempt, max_attempts, encoding, expired,"
            " coalesce(payload, outbox.payload(id)) FROM outbox.claim(%s, %s, %s, %s)",
            self.id, self.next_claim, TASKS, SLOTS)
        self.next_claim += len(jobs)
        return jobs

    def run(self, task, attempt, max_attempts, encoding, expired, payload):
        """What became of it: None (done), or an outcome."""
        if expired:
            return {"outcome": "dead", "reason": "expired", "uncounted": True}
        try:
            if encoding != "json":
                raise ValueError("only JSON is understood here")
            HANDLERS[task](json.loads(bytes(payload)))
            return None
        except Exception as problem:  # whatever it is: the job is tried again, and then dead
            reason = f"{type(problem).__name__}: {problem}"
            if attempt >= (max_attempts or ATTEMPTS_MAX):
                return {"outcome": "dead", "reason": reason}
            return {"outcome": "retry", "reason": reason, "delay_ms": 100 * 2 ** attempt}

    def settle(self, job_id, claim, outcome):
        [(answer,)] = self.ask(
            "SELECT answer FROM outbox.settle(%s, ARRAY[%s::bigint], ARRAY[%s::bigint], %s::jsonb)",
            self.id, job_id, claim, json.dumps([outcome]))
        if answer != "done":  # lost, gone, cancelled: the result is void
            print(f"job {job_id}: {answer}", flush=True)

    def sleep(self):
        """Until a job of ours becomes ready, or a second has passed. True if it was woken."""
        self.ask("SELECT outbox.watch(%s)", TASKS)
        self.ask("SELECT outbox.due()")  # scheduled jobs, if no dispatcher runs
        woken = bool(self.ask("SELECT FROM outbox.jobs WHERE task = ANY (%s) AND state = 'ready'"
                              " LIMIT 1", TASKS))
        if not woken:
            woken = bool(select.select([self.conn], [], [], 1)[0])
        self.conn.poll()
        self.conn.notifies.clear()
        self.ask("SELECT outbox.unwatch(%s)", TASKS)
        return woken

    def loop(self):
        with self.conn.cursor() as cursor:
            cursor.execute("LISTEN outbox")
        busy_at = time.monotonic()
        while time.monotonic() - busy_at < IDLE_S:
            jobs = self.claim()
            for job_id, claim, *rest in jobs:
                self.settle(job_id, claim, self.run(*rest))
            if jobs:
                busy_at = time.monotonic()
            else:
                self.sleep()


def main():
    conninfo = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("OUTBOX_DATABASE", "")
    consumer = Consumer(conninfo)
    consumer.register()
    heart = threading.Thread(target=consumer.beat, args=(conninfo,), daemon=True)
    heart.start()
    try:
        consumer.loop()
    finally:
        consumer.stopped.set()
        heart.join()
        consumer.ask("SELECT outbox.unregister(%s)", consumer.id)


if __name__ == "__main__":
    main()
