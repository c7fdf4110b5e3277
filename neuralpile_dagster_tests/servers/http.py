"""A small HTTP/1.1 server for tests: an application is a function from `Request` to `Response`.

Real sockets on 127.0.0.1, a thread per connection, keep-alive; faults on order
(`faults.Faults`), latency per request and bandwidth per connection for benches.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from neuralpile_dagster_tests.servers.bodies import FilePart, blocks, chunks, length_of
from neuralpile_dagster_tests.servers.breaking import break_off, trickle
from neuralpile_dagster_tests.servers.faults import Fault, Faults

_counting = threading.Lock()


@dataclass(frozen=True)
class Request:
    """One request; ``target`` is path and query as sent, ``path`` is decoded, header names are lower-case."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """One answer. Content-Length is added by the server."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return length_of(self.body)


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON document as a `Response`."""
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())


def file_response(request: Request, file: Path, etag: str, headers: dict[str, str] | None = None) -> Response:
    """A file with Range, ETag and If-Match, as S3 serves an object (compared with moto in `test_servers`).

    "Return the object only if its entity tag (ETag) is the same as the one specified in this header; otherwise, return
    a 412 Precondition Failed error" (docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject).
    """
    size = file.stat().st_size
    base = {
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        **(headers or {}),
    }
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted != "*" and f'"{etag}"' not in [w.strip() for w in wanted.split(",")]:
        return Response(412, {"Content-Type": "application/xml"}, b"<Error><Code>PreconditionFailed</Code></Error>")
    text = request.headers.get("range")
    if text is None:
        return Response(200, base, FilePart(file, 0, size))
    first, _, last = text.removeprefix("bytes=").partition("-")
    start, stop = (
        (int(first), min(int(last) + 1 if last else size, size)) if first else (max(size - int(last), 0), size)
    )
    if start >= size or start >= stop:
        return Response(416, {"Content-Type": "application/xml"}, b"<Error><Code>InvalidRange</Code></Error>")
    return Response(206, {**base, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}, FilePart(file, start, stop))


Application = Callable[[Request], Response]


class Server:
    """Serves an application on a free port of 127.0.0.1 while its ``with`` lasts.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:<port>`` (``https`` with ``tls``), no slash at the end.
    faults : Faults
    log : list of (method, target, status, bytes of the body)
        One entry per answered request, before it is sent; ``status`` 0 where none was sent.
    bytes_sent : int
        Bytes of bodies that were really sent (clients may hang up).
    connections, most_connections : int
        Open now, and at most at the same time so far.
    latency_s, bytes_per_s : float
        Delay of every answer, and speed of every connection (0: as fast as it goes).
    """

    def __init__(
        self,
        application: Application,
        *,
        latency_s: float = 0.0,
        bytes_per_s: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.application = application
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.faults = Faults()
        self.log: list[tuple[str, str, int, int]] = []
        self.bytes_sent = 0
        self.connections = self.most_connections = 0
        self.stopping = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        if tls is not None:
            # the handshake is made by the connection's own thread: a client that refuses must not stop the others
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def requests(self, method: str = "", part: str = "") -> list[tuple[str, str, int, int]]:
        """Entries of the log whose method (if given) is ``method`` and whose target contains ``part``."""
        return [entry for entry in list(self.log) if method in ("", entry[0]) and part in entry[1]]

    def count(self, connections: int = 0, bytes_sent: int = 0) -> None:
        """Connections that begin (1) or end (-1), bytes of bodies."""
        with _counting:
            self.bytes_sent += bytes_sent
            self.connections += connections
            self.most_connections = max(self.most_connections, self.connections)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    request_queue_size = 128
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of these tests; anything else must be seen."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HTTPServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; `Server.log` keeps what tests need."""

    def setup(self) -> None:
        super().setup()
        self.server.owner.count(connections=1)

    def finish(self) -> None:
        self.server.owner.count(connections=-1)
        super().finish()

    def _serve(self) -> None:
        owner = self.server.owner
        request = self._request()
        fault = owner.faults.take(request.method, request.target, request.headers)
        if owner.latency_s:
            time.sleep(owner.latency_s)
        response = None
        if fault is None or fault.after_serving or fault.kind not in ("status", "reset", "hang"):
            response = owner.application(request)
        if fault is not None and fault.kind == "status":
            response = Response(fault.status, dict(fault.headers), fault.body)
        if fault is not None and fault.kind in ("reset", "hang"):
            owner.log.append((request.method, request.target, 0, 0))
            self._break_off(fault.kind)
            return
        assert response is not None
        # before it is sent: a client that has its answer must find it in the log
        owner.log.append((request.method, request.target, response.status, response.length))
        self._answer(request, response, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b"".join(chunks(self.rfile))
        else:
            length = int(headers.get("content-length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionError("the client has hung up before all of its request was sent")
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return Request(self.command, self.path, unquote(parts.path), query, headers, body)

    def _answer(self, request: Request, response: Response, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if kind == "short_unmarked":
            self.send_header("Connection", "close")
            self.close_connection = True
        elif response.status != 204:
            self.send_header("Content-Length", str(response.length))
        self.end_headers()
        if request.method == "HEAD":
            return
        if kind == "trickle":
            self.close_connection = True
            trickle(self.wfile, response.body, self.server.owner.stopping)
            return
        half = response.length // 2
        cut = kind in ("reset_mid_body", "hang_mid_body", "short_body", "short_unmarked")
        self._send(response.body, half if cut else response.length, half if kind == "flip" else -1)
        if cut:
            self._break_off(kind)

    def _send(self, body: bytes | FilePart, length: int, flipped: int) -> None:
        rate = self.server.owner.bytes_per_s
        began, sent = time.monotonic(), 0
        for block in blocks(body, length):
            if sent <= flipped < sent + len(block):
                at = flipped - sent
                block = block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :]
            self.wfile.write(block)
            sent += len(block)
            self.server.owner.count(bytes_sent=len(block))
            if rate:
                time.sleep(max(0.0, began + sent / rate - time.monotonic()))

    def _break_off(self, kind: str) -> None:
        self.close_connection = True
        self.wfile.flush()
        break_off(self.connection, kind, self.server.owner.stopping)


def edit_json(server: Server, part: str, edit: Callable[[Request, Any], Any]) -> None:
    """Let a server edit the documents that it sends to requests whose path ends in ``part``."""
    original = server.application

    def application(request: Request) -> Response:
        response = original(request)
        if not request.path.endswith(part):
            return response
        assert isinstance(response.body, bytes)
        return json_response(edit(request, json.loads(response.body)))

    server.application = application
