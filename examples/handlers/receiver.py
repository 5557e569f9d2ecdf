#!/usr/bin/env python3
"""receiver.py - a webhook receiver that does each job's work once.

    receiver.py --file FILE [--secret-file FILE]... [--port PORT] [--port-file FILE]

With --secret-file (whsec_...), a request is believed only if one of its signatures was made with one of the
secrets, over exactly these bytes, within the last five minutes (Standard Webhooks 1.0.0); others get 401. To
rotate: the receiver gets the new secret beside the old one, then the sender does, then the old one goes.

Jobs arrive at least once: a delivery whose answer was lost comes again, under the same webhook-id. This
receiver writes one line for each new webhook-id ("<webhook-id> <payload>"), answers 204 to a repeated one
without writing, and remembers what it has seen across restarts, because the file is its memory. It listens
on 127.0.0.1; without --port on a free one, whose number goes into --port-file and onto standard output.
Standard library only.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import os
import threading
import time

LARGEST_BODY = 16 * 1024 * 1024
TOLERANCE_S = 300


def read_secret(path):
    """The key's bytes in a file that holds whsec_ and their base64."""
    with open(path, encoding="ascii") as f:
        text = f.read().strip()
    if not text.startswith("whsec_"):
        raise ValueError(f"{path}: expected whsec_ and base64")
    return base64.b64decode(text[len("whsec_") :], validate=True)


def is_genuine(secrets, webhook_id, timestamp, signatures, body, now):
    """True if one of the signatures is right. The body is signed as it came: verify before you parse."""
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    for secret in secrets:
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        ours = b"v1," + base64.b64encode(digest)
        for theirs in signatures.split(" "):  # several while a secret is rotated
            if hmac.compare_digest(ours, theirs.encode("utf-8", "replace")):
                return True
    return False


class Seen:
    """The webhook-ids in the file, and the only writer to it."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = open(path, "a+", encoding="utf-8")
        self.file.seek(0)
        self.ids = {line.split(" ", 1)[0] for line in self.file}

    def add(self, webhook_id, text):
        """True if it is new. On disk before it is answered: what is not answered comes again."""
        with self.lock:
            if webhook_id in self.ids:
                return False
            self.file.write(f"{webhook_id} {text}\n")
            self.file.flush()
            os.fsync(self.file.fileno())
            self.ids.add(webhook_id)
            return True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        if status >= 400:
            self.close_connection = True
        self.end_headers()

    def do_POST(self):
        webhook_id = self.headers.get("webhook-id", "")
        length = self.headers.get("Content-Length", "")
        if not webhook_id or any(c.isspace() for c in webhook_id) or not length.isdigit():
            return self.answer(400)
        if int(length) > LARGEST_BODY:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if self.server.secrets and not is_genuine(
            self.server.secrets,
            webhook_id,
            self.headers.get("webhook-timestamp", ""),
            self.headers.get("webhook-signature", ""),
            body,
            time.time(),
        ):
            return self.answer(401)
        self.server.seen.add(webhook_id, body.decode("utf-8", "replace").replace("\n", " "))
        return self.answer(204)

    def log_message(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser(description="A webhook receiver that does each job's work once.")
    parser.add_argument("--file", required=True, help="a line for each webhook-id goes here")
    parser.add_argument("--secret-file", action="append", default=[], help="whsec_...; one of several is enough")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--port-file", help="the port's number is written here")
    options = parser.parse_args()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    server.seen = Seen(options.file)
    server.secrets = [read_secret(path) for path in options.secret_file]
    if options.port_file:
        with open(options.port_file + ".part", "w", encoding="ascii") as f:
            f.write(f"{server.server_port}\n")
        os.replace(options.port_file + ".part", options.port_file)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
