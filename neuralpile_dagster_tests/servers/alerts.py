"""A webhook and a mail server on this machine, which keep what they are sent.

The webhook takes what Slack documents for incoming webhooks: a POST with JSON, answered ``ok``. The mail server speaks
as much SMTP (RFC 5321) as Python's own client needs.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """What a server was sent, and the HTTP statuses that it answers before ``200``."""

    address: str = ""
    bodies: list[Any] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@contextmanager
def webhook(*statuses: int) -> Iterator[Received]:
    """A webhook that answers with these statuses first."""
    received = Received(statuses=list(statuses))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = received.statuses.pop(0) if received.statuses else 200
            if status == 200:
                received.bodies.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        received.address = f"http://127.0.0.1:{server.server_address[1]}/services/T0/B0/secret-token"
        yield received


@contextmanager
def mail_server() -> Iterator[Received]:
    """A mail server without encryption or accounts."""
    received = Received()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 mail.test ESMTP\r\n")
            while line := self.rfile.readline():
                command = line.split()[0].upper()
                if command == b"DATA":
                    self.wfile.write(b"354 end with a dot\r\n")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    received.bodies.append(b"".join(lines).decode())
                self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 mail.test\r\n")
                if command == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        received.address = f"127.0.0.1:{server.server_address[1]}"
        yield received


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()
